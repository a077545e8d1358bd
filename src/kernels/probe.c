/* Measuring the machine: memory reads and multiply-adds. Runs are short, because a long one on a shared machine measures the
 * neighbours; the best of several is what the machine can do. */
#include "kernels/probe.h"
#include "base/ctx.h"
#include "base/util.h"
#include "kernels/kernels.h"

enum { READ_FLOATS = 64 * 1024 * 1024, READ_TILE = 64 * 1024, K = 256, UKR_CALLS = 2000, PASSES = 5 };

typedef struct probe { tt_ctx *ctx; const float *data; float *work; size_t stride; } probe;

/* The dot product of two neighbouring tiles: one load per multiply-add, far below what the arithmetic could do. */
static void read_tile(void *arg, int64_t tile, int worker) {
    probe *p = arg;
    const float *x = p->data + tile * READ_TILE;
    p->work[(size_t)worker * p->stride] += p->ctx->k->dot_f32(x, x + READ_TILE / 2, READ_TILE / 2);
}

static void ukr_tile(void *arg, int64_t tile, int worker) {
    const probe *p = arg;
    const tt_kernels *k = p->ctx->k;
    float *A = p->work + (size_t)worker * p->stride, *B = A + K * k->mr, *C = B + K * k->nr;
    (void)tile;
    for (int i = 0; i < UKR_CALLS; i++) k->gemm_ukr(K, A, B, C, k->nr, k->mr, k->nr, 1);
}

static double best_seconds(tt_ctx *ctx, int64_t tiles, tt__tile_fn fn, probe *p) {
    double best = 1e30;
    for (int i = 0; i < PASSES; i++) {
        const double start = tt__now();
        tt__parallel(ctx, tiles, fn, p);
        const double seconds = tt__now() - start;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static tt_status allocate_work(tt_ctx *ctx, probe *p, size_t floats, tt_err *err) {
    p->ctx = ctx;
    p->stride = floats + 16;
    return tt__new(&p->work, p->stride * (size_t)tt__threads(ctx), sizeof *p->work, "the probe", err);
}

tt_status tt__probe_read_gb_s(tt_ctx *ctx, double *gb_s, tt_err *err) {
    probe p = {0};
    float *data = NULL;
    tt_status st = TT_OK;
    TT_TRY_GOTO(allocate_work(ctx, &p, 1, err));
    TT_TRY_GOTO(tt__new(&data, READ_FLOATS, sizeof *data, "the memory probe", err));
    for (size_t i = 0; i < READ_FLOATS; i += 1024) data[i] = 1.0f;       /* a page of its own behind every address */
    p.data = data;
    *gb_s = 1e-9 * (double)READ_FLOATS * sizeof *data / best_seconds(ctx, READ_FLOATS / READ_TILE, read_tile, &p);
done:
    tt__free(data);
    tt__free(p.work);
    return st;
}

tt_status tt__probe_fma_gflops(tt_ctx *ctx, double *gflops, tt_err *err) {
    probe p = {0};
    const double flop = 2.0 * K * ctx->k->mr * ctx->k->nr * UKR_CALLS;
    const int64_t tiles = tt__threads(ctx);
    TT_TRY(allocate_work(ctx, &p, (size_t)(K * (ctx->k->mr + ctx->k->nr) + ctx->k->mr * ctx->k->nr), err));
    *gflops = 1e-9 * flop * (double)tiles / best_seconds(ctx, tiles, ukr_tile, &p);
    tt__free(p.work);
    return TT_OK;
}
