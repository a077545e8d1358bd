/* rmsnorm: y = x / sqrt(mean(x²) + eps) ⊙ g, row by row (Zhang and Sennrich 2019). With r = 1/sqrt(mean(x²) + eps), C columns:
 *     dx = r (g ⊙ dy) - x r³ ⟨g ⊙ dy, x⟩ / C          (kernels.inc, rmsnorm_bwd_f32 adds it)
 * The gain is frozen: it lies in a weight slot, so that one recording serves every layer. */
#include "tensor/op.h"
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

static void backward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    args a = {.k = r->ctx->k, .x = tt__run_mat(r, n->in[0]), .dy = tt__run_mat(r, n->in[1]), .y = tt__run_mat(r, n->out[0]),
              .gain = r->env->vecs[n->p.slot], .eps = n->p.eps};
    if (n->in[2] >= 0) a.acc = tt__run_mat(r, n->in[2]);
    tt__over_rows(r->ctx, tt__run_rows(r), a.x.cols, backward_rows, &a);
}

static double macs(const tt_graph *g, const tt_node *n, const tt_env *env) { return 2.0 * (double)env->rows * (double)g->vals[n->in[0]].cols; }

const tt_op tt__op_rmsnorm = {.name = "rmsnorm", .in_place = 1, .cheap = true, .grad_in_place = 1u << 2, .forward = forward, .gradient = gradient,
                              .backward = backward, .macs = macs};

tt_val tt__g_rmsnorm(tt_graph *g, tt_val x, int gain_slot, float eps) {
    if (!tt__g_is_rows(g, x, -1) || gain_slot < 0) { tt__g_fail(g, "bad arguments", "rmsnorm"); return -1; }
    return tt__g_op1(g, &tt__op_rmsnorm, &x, 1, &(tt_params){.slot = gain_slot, .eps = eps}, TT_VAL_ROWS, g->vals[x].cols);
}
