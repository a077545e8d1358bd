/* Elementwise ops: silu_mul (SwiGLU's gate, Shazeer 2020), add (residual), copy. With σ the logistic function and s = z σ(z):
 *     y = silu(gate) ⊙ up      d gate = dy ⊙ up ⊙ σ(gate)(1 + gate (1 - σ(gate)))      d up = dy ⊙ silu(gate)
 * add and copy hand the gradient on as it is. */
#include "tensor/op.h"
#include <string.h>

typedef struct args { const tt_kernels *k; tt_mat a, b, dy, y, z; } args;

/* ---- silu_mul ---- */

static void silu_rows(const void *arg, int64_t r0, int64_t r1) {
    const args *m = arg;
    for (int64_t r = r0; r < r1; r++) m->k->silu_mul_f32(m->y.x + r * m->y.ld, m->a.x + r * m->a.ld, m->b.x + r * m->b.ld, m->y.cols);
}

static void silu_forward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    args m = {.k = r->ctx->k, .a = tt__run_mat(r, n->in[0]), .b = tt__run_mat(r, n->in[1]), .y = tt__run_mat(r, n->out[0])};
    tt__over_rows(r->ctx, tt__run_rows(r), m.y.cols, silu_rows, &m);
}

static void silu_gradient(tt_graph *g, const tt_node *n) {
    tt_val in[3] = {n->in[0], n->in[1], tt__g_grad(g, n->out[0])}, d[2];
    for (int i = 0; i < 2; i++) d[i] = tt__g_grad_value(g, g->vals[n->out[0]].cols);
    tt__g_grad_node(g, &tt__op_silu_mul, in, 3, d, 2, &n->p);
    for (int i = 0; i < 2; i++) tt__g_grad_add(g, n->in[i], d[i]);
}

static void silu_backward_rows(const void *arg, int64_t r0, int64_t r1) {
    const args *m = arg;
    for (int64_t r = r0; r < r1; r++)
        m->k->silu_mul_bwd_f32(m->y.x + r * m->y.ld, m->z.x + r * m->z.ld, m->a.x + r * m->a.ld, m->b.x + r * m->b.ld, m->dy.x + r * m->dy.ld, m->y.cols);
}

static void silu_backward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    args m = {.k = r->ctx->k, .a = tt__run_mat(r, n->in[0]), .b = tt__run_mat(r, n->in[1]), .dy = tt__run_mat(r, n->in[2]),
              .y = tt__run_mat(r, n->out[0]), .z = tt__run_mat(r, n->out[1])};
    tt__over_rows(r->ctx, tt__run_rows(r), m.y.cols, silu_backward_rows, &m);
}

static double silu_macs(const tt_graph *g, const tt_node *n, const tt_env *env) { return 4.0 * (double)env->rows * (double)g->vals[n->out[0]].cols; }

const tt_op tt__op_silu_mul = {.name = "silu_mul", .in_place = 3, .spare = 2, .forward = silu_forward, .gradient = silu_gradient, .backward = silu_backward,
                               .macs = silu_macs};

tt_val tt__g_silu_mul(tt_graph *g, tt_val gate, tt_val up) {
    if (!tt__g_is_rows(g, gate, -1) || !tt__g_is_rows(g, up, g->vals[gate].cols)) { tt__g_fail(g, "bad arguments", "silu_mul"); return -1; }
    tt_val in[2] = {gate, up};
    return tt__g_op1(g, &tt__op_silu_mul, in, 2, NULL, TT_VAL_ROWS, g->vals[gate].cols);
}

/* ---- add ---- */

static void add_rows(const void *arg, int64_t r0, int64_t r1) {
    const args *m = arg;
    for (int64_t r = r0; r < r1; r++) m->k->add_f32(m->y.x + r * m->y.ld, m->a.x + r * m->a.ld, m->b.x + r * m->b.ld, m->y.cols);
}

static void add_forward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    args m = {.k = r->ctx->k, .a = tt__run_mat(r, n->in[0]), .b = tt__run_mat(r, n->in[1]), .y = tt__run_mat(r, n->out[0])};
    tt__over_rows(r->ctx, tt__run_rows(r), m.y.cols, add_rows, &m);
}

static void add_gradient(tt_graph *g, const tt_node *n) {
    tt_val d = tt__g_grad(g, n->out[0]);
    tt__g_grad_add(g, n->in[0], d);
    tt__g_grad_add(g, n->in[1], d);
}

static double row_macs(const tt_graph *g, const tt_node *n, const tt_env *env) { return (double)env->rows * (double)g->vals[n->out[0]].cols; }

const tt_op tt__op_add = {.name = "add", .in_place = 3, .forward = add_forward, .gradient = add_gradient, .macs = row_macs};

tt_val tt__g_add(tt_graph *g, tt_val a, tt_val b) {
    if (!tt__g_is_rows(g, a, -1) || !tt__g_is_rows(g, b, g->vals[a].cols)) { tt__g_fail(g, "bad arguments", "add"); return -1; }
    tt_val in[2] = {a, b};
    return tt__g_op1(g, &tt__op_add, in, 2, NULL, TT_VAL_ROWS, g->vals[a].cols);
}

/* ---- copy ---- */

static void copy_rows(const void *arg, int64_t r0, int64_t r1) {
    const args *m = arg;
    for (int64_t r = r0; r < r1; r++) memmove(m->y.x + r * m->y.ld, m->a.x + r * m->a.ld, (size_t)m->y.cols * sizeof(float));
}

static void copy_forward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    args m = {.a = tt__run_mat(r, n->in[0]), .y = tt__run_mat(r, n->out[0])};
    if (m.a.x != m.y.x) tt__over_rows(r->ctx, tt__run_rows(r), m.y.cols, copy_rows, &m);
}

static void copy_gradient(tt_graph *g, const tt_node *n) { tt__g_grad_add(g, n->in[0], tt__g_grad(g, n->out[0])); }

const tt_op tt__op_copy = {.name = "copy", .in_place = 1, .forward = copy_forward, .gradient = copy_gradient, .macs = row_macs};

tt_val tt__g_copy(tt_graph *g, tt_val x) {
    if (!tt__g_is_rows(g, x, -1)) { tt__g_fail(g, "bad arguments", "copy"); return -1; }
    return tt__g_op1(g, &tt__op_copy, &x, 1, NULL, TT_VAL_ROWS, g->vals[x].cols);
}
