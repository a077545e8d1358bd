/* rmsnorm: y = x / sqrt(mean(x²) + eps) ⊙ g, row by row (Zhang and Sennrich 2019). With r = 1/sqrt(mean(x²) + eps), C columns:
 *     dx = r (g ⊙ dy) - x r³ ⟨g ⊙ dy, x⟩ / C          (kernels.inc, rmsnorm_bwd_f32 adds it)
 * The gain lies in a weight slot, so that one recording serves every layer. Where a hook wants it:
 *     dg_i += Σ_rows r x_i dy_i
 * columns are dealt to the workers, each sums down the rows in f64. */
#include "tensor/op.h"
#include <math.h>
#include <string.h>

typedef struct args { const tt_kernels *k; tt_mat x, y, dy, acc; const float *gain; float eps; } args;

static void forward_rows(const void *arg, int64_t r0, int64_t r1) {
    const args *a = arg;
    for (int64_t r = r0; r < r1; r++) a->k->rmsnorm_f32(a->y.x + r * a->y.ld, a->x.x + r * a->x.ld, a->gain, a->eps, a->x.cols);
}

static void forward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    args a = {.k = r->ctx->k, .x = tt__run_mat(r, n->in[0]), .y = tt__run_mat(r, n->out[0]), .gain = r->env->vecs[n->p.slot], .eps = n->p.eps};
    tt__over_rows(r->ctx, tt__run_rows(r), a.x.cols, forward_rows, &a);
}

static void gradient(tt_graph *g, const tt_node *n) {
    tt_val x = n->in[0], in[3] = {x, tt__g_grad(g, n->out[0]), tt__g_grad(g, x)};
    tt_val dx = tt__g_grad_value(g, g->vals[x].cols);
    tt__g_grad_node(g, &tt__op_rmsnorm, in, 3, &dx, 1, &n->p);
    tt__g_grad_set(g, x, dx);
}

static void backward_rows(const void *arg, int64_t r0, int64_t r1) {
    const args *a = arg;
    for (int64_t r = r0; r < r1; r++) {
        float *dx = a->y.x + r * a->y.ld;
        size_t bytes = (size_t)a->y.cols * sizeof(float);
        if (!a->acc.x) memset(dx, 0, bytes);
        else if (a->acc.x != a->y.x) memcpy(dx, a->acc.x + r * a->acc.ld, bytes);
        a->k->rmsnorm_bwd_f32(dx, a->x.x + r * a->x.ld, a->gain, a->dy.x + r * a->dy.ld, a->eps, a->x.cols);
    }
}

enum { GAIN_ROWS = 16384, GAIN_COLS = 64 };     /* rows whose r fit the scratch of a worker, columns of a tile */
typedef struct gain_args { tt_ctx *ctx; const float *x, *dy; int64_t ldx, lddy, rows, cols; float eps, *inv, *dgain; } gain_args;

static void inverse_rms(const void *arg, int64_t r0, int64_t r1) {
    const gain_args *a = arg;
    for (int64_t i = r0; i < r1; i++) {
        const float *x = a->x + i * a->ldx;
        a->inv[i] = 1 / sqrtf(a->ctx->k->dot_f32(x, x, a->cols) / (float)a->cols + a->eps);
    }
}

static void gain_tile(void *arg, int64_t tile, int worker) {
    const gain_args *a = arg;
    int64_t c0 = tile * GAIN_COLS, n = a->cols - c0 < GAIN_COLS ? a->cols - c0 : GAIN_COLS;
    double sum[GAIN_COLS] = {0};
    (void)worker;
    for (int64_t i = 0; i < a->rows; i++) {
        const float *x = a->x + i * a->ldx + c0, *dy = a->dy + i * a->lddy + c0, inv = a->inv[i];
        for (int64_t c = 0; c < n; c++) sum[c] += (double)(x[c] * inv * dy[c]);
    }
    for (int64_t c = 0; c < n; c++) a->dgain[c0 + c] += (float)sum[c];
}

void tt__rmsnorm_gain(tt_ctx *ctx, const float *x, int64_t ldx, const float *dy, int64_t lddy, int64_t rows, int64_t cols, float eps, float *dgain) {
    for (int64_t at = 0; at < rows; at += GAIN_ROWS) {
        gain_args a = {ctx, x + at * ldx, dy + at * lddy, ldx, lddy, rows - at < GAIN_ROWS ? rows - at : GAIN_ROWS, cols, eps, tt__scratch(ctx, 0), dgain};
        tt__over_rows(ctx, a.rows, cols, inverse_rms, &a);
        tt__parallel(ctx, (cols + GAIN_COLS - 1) / GAIN_COLS, gain_tile, &a);
    }
}

static void gain_gradient(const tt_run *r, const tt_node *n, const args *a) {
    const tt_train_hooks *h = r->env->hooks;
    float *dgain = h && h->vector ? h->vector(h->user, r->env->weight0 + (size_t)n->p.slot) : NULL;
    if (dgain) tt__rmsnorm_gain(r->ctx, a->x.x, a->x.ld, a->dy.x, a->dy.ld, tt__run_rows(r), a->x.cols, a->eps, dgain);
}

static void backward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    args a = {.k = r->ctx->k, .x = tt__run_mat(r, n->in[0]), .dy = tt__run_mat(r, n->in[1]), .y = tt__run_mat(r, n->out[0]),
              .gain = r->env->vecs[n->p.slot], .eps = n->p.eps};
    if (n->in[2] >= 0) a.acc = tt__run_mat(r, n->in[2]);
    gain_gradient(r, n, &a);
    tt__over_rows(r->ctx, tt__run_rows(r), a.x.cols, backward_rows, &a);
}

static double macs(const tt_graph *g, const tt_node *n, const tt_env *env) { return 2.0 * (double)env->rows * (double)g->vals[n->in[0]].cols; }

const tt_op tt__op_rmsnorm = {.name = "rmsnorm", .in_place = 1, .cheap = true, .grad_in_place = 1u << 2, .forward = forward, .gradient = gradient,
                              .backward = backward, .macs = macs};

tt_val tt__g_rmsnorm(tt_graph *g, tt_val x, int gain_slot, float eps) {
    if (!tt__g_is_rows(g, x, -1) || gain_slot < 0) { tt__g_fail(g, "bad arguments", "rmsnorm"); return -1; }
    return tt__g_op1(g, &tt__op_rmsnorm, &x, 1, &(tt_params){.slot = gain_slot, .eps = eps}, TT_VAL_ROWS, g->vals[x].cols);
}
