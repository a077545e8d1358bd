/* Measuring the machine: reads, multiply-adds. Runs are short, because a long one on a shared machine measures the neighbours; the best of
 * several is what the machine can do. */
#include "kernels/probe.h"
#include "base/ctx.h"
#include "base/util.h"
#include "kernels/kernels.h"
#include <unistd.h>

enum { READ_BYTES = 256 << 20, READ_TILE = 1 << 20, L2_ROUNDS = 100, PASSES = 8 };
static const double pass_ops = 1e9;                  /* of fma and dot: 2 to 50 ms a pass */

typedef struct probe { tt_peaks peaks; uint8_t *data; int64_t l2_bytes, rounds; } probe;

static void choose_peaks(const tt_kernels *k, tt_peaks *p) {
    tt__peaks_ref(p);
#if defined(__x86_64__)
    if (!strncmp(k->isa, "avx", 3)) tt__peaks_avx2(p);
    if (!strncmp(k->isa, "avx512", 6)) tt__peaks_avx512(p);
    if (!strncmp(k->isa, "avx512-vnni", 11)) tt__peaks_avx512_vnni(p);
#elif defined(__aarch64__)
    if (!strncmp(k->isa, "neon", 4)) tt__peaks_neon(p);
    if (!strcmp(k->isa, "neon-dotprod")) tt__peaks_neon_dotprod(p);
    if (!strcmp(k->isa, "neon-i8mm")) tt__peaks_neon_i8mm(p);
#else
    (void)k;
#endif
}

static void read_tile(void *arg, int64_t tile, int worker) {
    const probe *p = arg;
    (void)worker;
    p->peaks.read(p->data + tile * READ_TILE, READ_TILE);
}

/* Each tile has a part of its own, which one thread reads again and again. */
static void l2_tile(void *arg, int64_t tile, int worker) {
    const probe *p = arg;
    (void)worker;
    for (int i = 0; i < L2_ROUNDS; i++) p->peaks.read(p->data + tile * p->l2_bytes, p->l2_bytes);
}

static void fma_tile(void *arg, int64_t tile, int worker) {
    const probe *p = arg;
    (void)tile, (void)worker;
    p->peaks.fma(p->rounds);
}

static void dot_tile(void *arg, int64_t tile, int worker) {
    const probe *p = arg;
    (void)tile, (void)worker;
    p->peaks.dot(p->rounds);
}

static double best_seconds(tt_ctx *ctx, int workers, int64_t tiles, tt__tile_fn fn, probe *p) {
    double best = 1e30;
    for (int i = 0; i < PASSES; i++) {
        const double start = tt__now();
        if (workers == 1)
            for (int64_t t = 0; t < tiles; t++) fn(p, t, 0);
        else tt__parallel(ctx, tiles, fn, p);
        const double seconds = tt__now() - start;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static tt_status allocate(probe *p, const tt_ctx *ctx, size_t bytes, tt_err *err) {
    choose_peaks(ctx->k, &p->peaks);
    TT_TRY(tt__new(&p->data, bytes, 1, "the memory probe", err));
    for (size_t i = 0; i < bytes; i += 1024) p->data[i] = 1;             /* a page of its own behind every address */
    return TT_OK;
}

static tt_status read_gb_s(tt_ctx *ctx, int workers, double *gb_s, tt_err *err) {
    probe p = {0};
    TT_TRY(allocate(&p, ctx, READ_BYTES, err));
    *gb_s = 1e-9 * READ_BYTES / best_seconds(ctx, workers, READ_BYTES / READ_TILE, read_tile, &p);
    tt__free(p.data);
    return TT_OK;
}

/* Half of the second-level cache: beyond the first level, and room for what else lives there. */
static tt_status l2_gb_s(tt_ctx *ctx, int workers, double *gb_s, tt_err *err) {
    const long size = sysconf(_SC_LEVEL2_CACHE_SIZE);
    probe p = {.l2_bytes = size >= 256 << 10 && size <= 16 << 20 ? size / 2 & ~1023L : 256 << 10};
    TT_TRY(allocate(&p, ctx, (size_t)(workers * p.l2_bytes), err));
    *gb_s = 1e-9 * (double)(workers * p.l2_bytes * L2_ROUNDS) / best_seconds(ctx, workers, workers, l2_tile, &p);
    tt__free(p.data);
    return TT_OK;
}

static double giga_ops(tt_ctx *ctx, int workers, double round_ops, tt__tile_fn fn, probe *p) {
    p->rounds = (int64_t)(pass_ops / round_ops);
    return 1e-9 * round_ops * (double)p->rounds * workers / best_seconds(ctx, workers, workers, fn, p);
}

tt_status tt__probe(tt_ctx *ctx, int workers, tt_ceilings *out, tt_err *err) {
    probe p = {0};
    if (workers != 1) workers = tt__threads(ctx);
    choose_peaks(ctx->k, &p.peaks);
    TT_TRY(read_gb_s(ctx, workers, &out->read_gb_s, err));
    TT_TRY(l2_gb_s(ctx, workers, &out->l2_gb_s, err));
    out->fma_gflops = giga_ops(ctx, workers, p.peaks.fma_ops, fma_tile, &p);
    out->dot_gops = giga_ops(ctx, workers, p.peaks.dot_ops, dot_tile, &p);
    return TT_OK;
}
