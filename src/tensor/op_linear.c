/* prep and linear: y = x W^T through an operator (linop.h), whatever it is. prep makes what operators that read the same input share
 * (rows rounded to 8 bits in fast runs). With frozen weights backward needs neither x nor y:
 *     dx = dy W          summed over the operators that read x (q, k, v; gate, up), each adding to the same buffer
 * A graph made for weights (tt__graph_train) reads x too, and hands x and dy to the hooks: dW = dy^T x is theirs to form or to reduce.
 * Rounding in prep is a straight-through step: its gradient is the identity. */
#include "tensor/op.h"
#include <assert.h>
#include <string.h>

/* ---- prep ---- */

static void prep_forward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    tt_mat x = tt__run_mat(r, n->in[0]);
    const tt_value *root = &r->g->vals[n->out[0]];
    tt__act_prepare(r->ctx, tt__run_act(r, n->out[0]), x.x, x.ld, tt__run_rows(r), x.cols, r->env->fast, r->ws + root->offset);
    tt__run_act(r, n->out[0])->bf16 = r->env->bf16;
}

static void prep_gradient(tt_graph *g, const tt_node *n) { tt__g_grad_add(g, n->in[0], tt__g_grad(g, n->out[0])); }

static double prep_macs(const tt_graph *g, const tt_node *n, const tt_env *env) {
    return env->fast ? (double)env->rows * (double)g->vals[n->in[0]].cols : 0;
}

const tt_op tt__op_prep = {.name = "prep", .forward = prep_forward, .gradient = prep_gradient, .macs = prep_macs};

tt_val tt__g_prep(tt_graph *g, tt_val x) {
    if (!tt__g_is_rows(g, x, -1)) { tt__g_fail(g, "bad arguments", "prep"); return -1; }
    return tt__g_op1(g, &tt__op_prep, &x, 1, NULL, TT_VAL_ACT, g->vals[x].cols);
}

/* ---- linear ---- */

/* Operators of few rows of activations share one parallel region: three waits of a microsecond per layer are worth saving. Tiles are
 * dealt over the operators one after the other, TILE rows (whole panels of 16) each. */
enum { TILE = 32, MAX_JOINT = 8 };
typedef struct joint { tt_ctx *ctx; const tt_act *act; int n; const tt_linop *op[MAX_JOINT]; tt_mat y[MAX_JOINT]; int64_t end[MAX_JOINT]; } joint;

static void joint_tile(void *arg, int64_t tile, int worker) {
    joint *j = arg;
    (void)worker;
    int i = 0;
    while (tile >= j->end[i]) i++;
    int64_t r0 = (tile - (i ? j->end[i - 1] : 0)) * TILE, r1 = r0 + TILE < j->op[i]->rows ? r0 + TILE : j->op[i]->rows;
    j->op[i]->v->rowdot(j->ctx, j->op[i], j->act, r0, r1, j->y[i].x, j->y[i].ld);
}

static void forward(const tt_run *r, const tt_node *n, int count) {
    const tt_act *act = tt__run_act(r, n->in[0]);
    joint j = {.ctx = r->ctx, .act = act, .n = count};
    bool together = count > 1 && count <= MAX_JOINT && act->q8.q;
    for (int i = 0; i < count && together; i++) {
        j.op[i] = tt__linop_base(r->env->ops[n[i].p.slot]);
        j.y[i] = tt__run_mat(r, n[i].out[0]);
        j.end[i] = (i ? j.end[i - 1] : 0) + (j.op[i]->rows + TILE - 1) / TILE;
        together = j.op[i]->v->rowdot != NULL;
    }
    if (together) {
        for (int i = 0; i < count; i++)
            if (j.op[i]->v->prepare) j.op[i]->v->prepare(r->ctx, act);
        tt__parallel(r->ctx, j.end[count - 1], joint_tile, &j);
        for (int i = 0; i < count; i++) tt__linop_add_low(r->ctx, r->env->ops[n[i].p.slot], act, j.y[i].x, j.y[i].ld);
        return;
    }
    for (int i = 0; i < count; i++) {
        tt_mat y = tt__run_mat(r, n[i].out[0]);
        const tt_linop *op = r->env->ops[n[i].p.slot];
        assert(op->rows == y.cols && op->cols == act->n);
        tt__linop_apply(r->ctx, op, act, y.x, y.ld);
    }
}

static void gradient(tt_graph *g, const tt_node *n) {
    tt_val a = n->in[0], in[3] = {tt__g_grad(g, n->out[0]), tt__g_grad(g, a), g->vals[a].base};
    tt_val dx = tt__g_grad_value(g, g->vals[a].cols);
    tt__g_grad_node(g, &tt__op_linear, in, g->train ? 3 : 2, &dx, 1, &n->p);
    tt__g_grad_set(g, a, dx);
}

static void copy_rows(tt_mat to, tt_mat from, int64_t rows) {
    for (int64_t i = 0; i < rows; i++) memcpy(to.x + i * to.ld, from.x + i * from.ld, (size_t)to.cols * sizeof(float));
}

static void weight_gradient(const tt_run *r, const tt_node *n, tt_mat dy) {
    const tt_train_hooks *h = r->env->hooks;
    size_t weight = r->env->weight0 + (size_t)n->p.slot;
    if (n->n_in < 3 || !h || !h->wants || !h->wants(h->user, weight)) return;
    tt_mat x = tt__run_mat(r, n->in[2]);
    h->matrix(h->user, weight, x.x, x.ld, dy.x, dy.ld, tt__run_rows(r));
}

static void backward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    tt_mat dy = tt__run_mat(r, n->in[0]), dx = tt__run_mat(r, n->out[0]);
    weight_gradient(r, n, dy);
    bool accumulate = n->in[1] >= 0;
    if (accumulate) {
        tt_mat acc = tt__run_mat(r, n->in[1]);
        if (acc.x != dx.x) copy_rows(dx, acc, tt__run_rows(r));
    }
    tt__linop_apply_t(r->ctx, r->env->ops[n->p.slot], dy.x, dy.ld, tt__run_rows(r), dx.x, dx.ld, accumulate, r->env->bf16);
}

static double macs(const tt_graph *g, const tt_node *n, const tt_env *env) {
    return (double)env->rows * (double)g->vals[n->in[0]].cols * (double)g->vals[n->out[0]].cols;
}

const tt_op tt__op_linear = {.name = "linear", .grad_in_place = 1u << 1, .grouped = true, .forward = forward, .gradient = gradient,
                             .backward = backward, .macs = macs};

tt_val tt__g_linear(tt_graph *g, tt_val prepared, int weight_slot, int64_t rows, int64_t cols) {
    if (prepared < 0 || prepared >= g->n_vals || g->vals[prepared].kind != TT_VAL_ACT || g->vals[prepared].cols != cols || rows < 1 || weight_slot < 0) {
        tt__g_fail(g, "bad arguments", "linear");
        return -1;
    }
    return tt__g_op1(g, &tt__op_linear, &prepared, 1, &(tt_params){.slot = weight_slot}, TT_VAL_ROWS, rows);
}
