/* Graphs: recording, reverse mode, running. Storage is planned in plan.c, ops are in op_*.c; op.h draws the data. */
#include "base/checked.h"
#include "tensor/op.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>

static const tt_op *const all_ops[] = {
#define TT_OP(name) &tt__op_##name,
#include "tensor/ops.inc"
#undef TT_OP
};

tt_status tt__graph_create(tt_ctx *ctx, tt_graph **out, tt_err *err) {
    TT_TRY(tt__new(out, 1, sizeof **out, "a graph", err));
    (*out)->ctx = ctx;
    return TT_OK;
}

void tt__graph_free(tt_graph *g) {
    if (!g) return;
    tt__free(g->vals);
    tt__free(g->nodes[0]);
    tt__free(g->nodes[1]);
    tt__free(g->acts);
    tt__free(g->grad);
    tt__free(g->again);
    tt__free(g->active);
    tt__free(g->rope);
    tt__free(g);
}

/* ------------------------------------------------------------------ recording ---- */

void tt__g_fail(tt_graph *g, const char *what, const char *where) {
    if (g->failed == TT_OK) g->failed = tt__fail(&g->err, TT_FAIL, "%s|%s", what, where);
}

static bool grow(tt_graph *g, void *list, int32_t n, int32_t *cap, size_t size) {
    void **p = list;
    if (n < *cap) return true;
    int32_t more = *cap ? 2 * *cap : 32;
    void *bigger = tt__realloc(*p, tt__array_bytes((size_t)more, size));
    if (!bigger) {
        if (g->failed == TT_OK) g->failed = tt__fail(&g->err, TT_RESOURCE, "out of memory|recording a graph");
        return false;
    }
    *p = bigger;
    *cap = more;
    return true;
}

tt_val tt__g_value(tt_graph *g, int phase, tt_kind kind, int64_t cols, const char *name) {
    if (g->failed != TT_OK || !grow(g, &g->vals, g->n_vals, &g->cap_vals, sizeof *g->vals)) return -1;
    tt_value *v = &g->vals[g->n_vals];
    *v = (tt_value){.kind = kind, .cols = cols, .base = -1, .phase = phase, .def = -1, .last = -1, .root = g->n_vals};
    if (name) snprintf(v->name, sizeof v->name, "%s", name);
    return g->n_vals++;
}

int32_t tt__g_node(tt_graph *g, int phase, const tt_node *n) {
    if (g->failed != TT_OK || !grow(g, &g->nodes[phase], g->n_nodes[phase], &g->cap_nodes[phase], sizeof *n)) return -1;
    int32_t i = g->n_nodes[phase]++;
    g->nodes[phase][i] = *n;
    for (int o = 0; o < n->n_out; o++)
        if (n->out[o] >= 0) g->vals[n->out[o]].def = i;
    return i;
}

tt_val tt__g_op1(tt_graph *g, const tt_op *op, const tt_val *in, int n_in, const tt_params *p, tt_kind kind, int64_t cols) {
    tt_node n = {.op = op, .n_in = n_in, .n_out = 1, .tap = -1};
    for (int i = 0; i < n_in; i++) n.in[i] = in[i];
    if (p) n.p = *p;
    n.out[0] = tt__g_value(g, 0, kind, cols, NULL);
    if (n.out[0] >= 0 && kind == TT_VAL_ACT) g->vals[n.out[0]].base = in[0];
    return tt__g_node(g, 0, &n) < 0 ? -1 : n.out[0];
}

bool tt__g_is_rows(const tt_graph *g, tt_val v, int64_t cols) {
    return v >= 0 && v < g->n_vals && g->vals[v].kind == TT_VAL_ROWS && (cols < 0 || g->vals[v].cols == cols);
}

tt_val tt__g_input(tt_graph *g, const char *name, int64_t cols) {
    if (cols <= 0) tt__g_fail(g, "input without columns", name);
    tt_val v = tt__g_value(g, 0, TT_VAL_ROWS, cols, name);
    if (v >= 0) g->vals[v].bound = true;
    return v;
}

void tt__g_output(tt_graph *g, tt_val v, const char *name) {
    if (g->failed != TT_OK) return;
    if (!tt__g_is_rows(g, v, -1) || g->vals[v].bound) { tt__g_fail(g, "an output must be the result of an op", name); return; }
    snprintf(g->vals[v].name, sizeof g->vals[v].name, "%s", name);
    g->vals[v].bound = g->vals[v].output = true;
}

void tt__g_tap(tt_graph *g, tt_val v, int input_id) {
    if (g->failed != TT_OK) return;
    if (!tt__g_is_rows(g, v, -1) || g->vals[v].def < 0) { tt__g_fail(g, "a tap must be on the result of an op", "graph"); return; }
    g->nodes[0][g->vals[v].def].tap = input_id;
}

/* ------------------------------------------------------------------ reverse mode ---- */

bool tt__g_wants(const tt_graph *g, tt_val forward) { return forward >= 0 && g->active[forward]; }
tt_val tt__g_grad(const tt_graph *g, tt_val forward) { return g->grad[forward]; }
void tt__g_grad_set(tt_graph *g, tt_val forward, tt_val d) { g->grad[forward] = d; }
tt_val tt__g_grad_value(tt_graph *g, int64_t cols) { return tt__g_value(g, 1, TT_VAL_ROWS, cols, NULL); }

void tt__g_grad_add(tt_graph *g, tt_val forward, tt_val d) {
    if (g->failed != TT_OK || !tt__g_wants(g, forward)) return;
    if (g->grad[forward] < 0) { g->grad[forward] = d; return; }
    tt_node n = {.op = &tt__op_add, .n_in = 2, .n_out = 1, .in = {g->grad[forward], d}, .tap = -1};
    n.out[0] = tt__g_grad_value(g, g->vals[d].cols);
    if (tt__g_node(g, 1, &n) >= 0) g->grad[forward] = n.out[0];
}

static bool is_spare(const tt_graph *g, tt_val v) {
    if (g->vals[v].def >= 0 && g->nodes[0][g->vals[v].def].op->cheap) return true;
    for (int32_t i = 0; i < g->n_nodes[0]; i++) {
        const tt_node *n = &g->nodes[0][i];
        for (int j = 0; j < n->n_in; j++)
            if (n->in[j] == v && n->op->spare >> j & 1) return true;
    }
    return false;
}

/* The keep policy: may this forward value, which backward reads, be stored? */
static bool keepable(const tt_graph *g, tt_val v, tt_keep keep) {
    const tt_value *val = &g->vals[v];
    if (val->kind != TT_VAL_ROWS || val->bound || keep == TT_KEEP_BOUNDARY) return false;
    if (keep == TT_KEEP_ALL) return true;
    if (keep == TT_KEEP_MOST) return !is_spare(g, v);
    for (int32_t i = 0; i < g->n_nodes[0]; i++) {
        const tt_node *n = &g->nodes[0][i];
        if (!n->op->keep) continue;
        for (int j = 0; j < n->n_in; j++) if (n->in[j] == v) return true;
        for (int j = 0; j < n->n_out; j++) if (n->out[j] == v) return true;
    }
    return false;
}

/* The value that backward may read in place of forward value v: itself when it is an input or kept, else its recomputed twin, whose
 * op is repeated in the backward list (and what that op reads in turn). Recursion is as deep as the recorded segment. */
static tt_val available(tt_graph *g, tt_val v, tt_keep keep) {
    if (v < 0 || g->failed != TT_OK || g->vals[v].phase == 1) return v;
    if (g->vals[v].def < 0 || g->vals[v].kept) return v;
    if (g->again[v] >= 0) return g->again[v];
    if (keepable(g, v, keep)) {
        g->vals[v].kept = true;
        return v;
    }
    tt_node n = g->nodes[0][g->vals[v].def];
    n.tap = -1;
    for (int i = 0; i < n.n_in; i++) n.in[i] = available(g, n.in[i], keep);
    for (int i = 0; i < n.n_out; i++) {
        tt_val twin = tt__g_value(g, 1, g->vals[n.out[i]].kind, g->vals[n.out[i]].cols, NULL);
        if (twin < 0) return -1;
        if (g->vals[twin].kind == TT_VAL_ACT) g->vals[twin].base = n.in[0];
        g->again[n.out[i]] = twin;
        n.out[i] = twin;
    }
    tt__g_node(g, 1, &n);
    return g->again[v];
}

void tt__g_grad_node(tt_graph *g, const tt_op *op, const tt_val *in, int n_in, const tt_val *out, int n_out, const tt_params *p) {
    tt_node n = {.op = op, .grad = true, .n_in = n_in, .n_out = n_out, .tap = -1, .p = *p};
    for (int i = 0; i < n_in; i++) n.in[i] = available(g, in[i], g->keep);
    for (int i = 0; i < n_out; i++) n.out[i] = out[i];
    tt__g_node(g, 1, &n);
}

/* active[v]: the differentiated input reaches v. */
static void mark_active(tt_graph *g, tt_val in) {
    g->active[in] = true;
    for (int32_t i = 0; i < g->n_nodes[0]; i++) {
        const tt_node *n = &g->nodes[0][i];
        for (int j = 0; j < n->n_in; j++)
            if (n->in[j] >= 0 && g->active[n->in[j]])
                for (int o = 0; o < n->n_out; o++) g->active[n->out[o]] = true;
    }
}

static void reverse_sweep(tt_graph *g) {
    for (int32_t i = g->n_nodes[0] - 1; i >= 0 && g->failed == TT_OK; i--) {
        tt_node n = g->nodes[0][i];
        if (g->grad[n.out[0]] >= 0 && g->active[n.out[0]]) n.op->gradient(g, &n);
    }
}

static void name_gradient(tt_graph *g, tt_val d, tt_val of) {
    char name[24];
    snprintf(name, sizeof name, "d:%.20s", g->vals[of].name);
    memcpy(g->vals[d].name, name, sizeof name);
    g->vals[d].bound = true;
}

/* Names the gradient of `in` as an output; a gradient that is d(out) itself is copied first. */
static void name_result(tt_graph *g, tt_val in) {
    tt_val d = g->grad[in];
    if (g->failed != TT_OK) return;
    if (d < 0) { tt__g_fail(g, "the output does not depend on the input", g->vals[in].name); return; }
    if (g->vals[d].bound) {
        tt_node n = {.op = &tt__op_copy, .n_in = 1, .n_out = 1, .in = {d}, .tap = -1};
        n.out[0] = tt__g_grad_value(g, g->vals[d].cols);
        if (tt__g_node(g, 1, &n) < 0) return;
        d = n.out[0];
    }
    name_gradient(g, d, in);
    g->vals[d].output = true;
}

void tt__graph_train(tt_graph *g) { g->train = true; }

tt_status tt__graph_backward(tt_graph *g, tt_val out, tt_val in, tt_keep keep, tt_err *err) {
    if (g->failed == TT_OK) {
        if (!tt__g_is_rows(g, out, -1) || !tt__g_is_rows(g, in, -1) || g->vals[in].def >= 0 || g->n_nodes[1] || g->planned)
            tt__g_fail(g, "backward wants an output, an input, and to be called once before the plan", "graph");
    }
    if (g->failed == TT_OK) {
        g->n_grad = g->n_vals;
        g->keep = keep;
        size_t n = (size_t)g->n_grad;
        TT_TRY(tt__new(&g->grad, n, sizeof *g->grad, "gradients of a graph", err));
        TT_TRY(tt__new(&g->again, n, sizeof *g->again, "gradients of a graph", err));
        TT_TRY(tt__new(&g->active, n, sizeof *g->active, "gradients of a graph", err));
        for (size_t i = 0; i < n; i++) g->grad[i] = g->again[i] = -1;
        mark_active(g, in);
        tt_val d = tt__g_value(g, 1, TT_VAL_ROWS, g->vals[out].cols, NULL);
        if (d >= 0) {
            name_gradient(g, d, out);
            g->grad[out] = d;
            reverse_sweep(g);
            name_result(g, in);
        }
    }
    if (g->failed != TT_OK && err) *err = g->err;
    return g->failed;
}

/* ------------------------------------------------------------------ planning and sizes ---- */

void tt__graph_exact(tt_graph *g) { g->exact = true; }

tt_status tt__graph_plan(tt_graph *g, int64_t max_rows, int64_t max_past, tt_err *err) {
    if (g->failed == TT_OK && (max_rows < 1 || max_past < 0 || g->planned)) tt__g_fail(g, "a plan wants rows, and is made once", "graph");
    if (g->failed != TT_OK) {
        if (err) *err = g->err;
        return g->failed;
    }
    TT_TRY(tt__new(&g->acts, (size_t)g->n_vals, sizeof *g->acts, "prepared activations", err));
    g->max_rows = max_rows;
    g->rope_want = max_rows + max_past;
    tt__plan_uses(g);
    tt__plan_groups(g);
    tt__plan_storage(g);
    TT_TRY(tt__plan_offsets(g, err));
    g->planned = true;
    assert(tt__graph_is_valid(g));
    return TT_OK;
}

uint64_t tt__graph_workspace(const tt_graph *g) { return g->workspace; }

static int64_t padded_rows(int64_t rows) { return (rows + 15) / 16 * 16; }

uint64_t tt__graph_kept_bytes(const tt_graph *g, int64_t rows) {
    return (uint64_t)g->kept_cols * (uint64_t)padded_rows(rows) * sizeof(float);
}

double tt__graph_macs(const tt_graph *g, const tt_env *env, bool backward) {
    double sum = 0;
    int phase = backward ? 1 : 0;
    for (int32_t i = 0; i < g->n_nodes[phase]; i++) {
        const tt_node *n = &g->nodes[phase][i];
        sum += n->op->macs(g, n, env);
    }
    return sum;
}

/* ------------------------------------------------------------------ running ---- */

tt_status tt__graph_bind(tt_graph *g, const char *name, float *data, int64_t ld, tt_err *err) {
    bool found = false;
    for (int32_t i = 0; i < g->n_vals; i++) {
        tt_value *v = &g->vals[i];
        if (!v->bound || strcmp(v->name, name) != 0) continue;
        TT_FAIL_IF(ld < v->cols, err, TT_FAIL, "rows of a bound buffer overlap|%s|%lld apart|at least %lld", name, (long long)ld, (long long)v->cols);
        v->data = data;
        v->ld = ld;
        found = true;
    }
    TT_FAIL_IF(!found, err, TT_FAIL, "no such value to bind|%s", name);
    return TT_OK;
}

tt_mat tt__run_mat(const tt_run *r, tt_val i) {
    const tt_value *v = &r->g->vals[i], *root = &r->g->vals[v->root];
    if (v->bound) return (tt_mat){v->data, v->ld, v->cols};
    uint8_t *p = root->kept && r->kept ? r->kept + (uint64_t)root->kept_cols * (uint64_t)padded_rows(r->env->rows) * sizeof(float)
                                       : r->ws + root->offset;
    return (tt_mat){(float *)(void *)p, v->cols, v->cols};
}

tt_act *tt__run_act(const tt_run *r, tt_val v) { return &r->g->acts[v]; }

typedef struct over_rows { tt_rows_fn fn; const void *arg; int64_t rows, step; } over_rows;

static void over_rows_tile(void *arg, int64_t tile, int worker) {
    const over_rows *o = arg;
    (void)worker;
    int64_t r0 = tile * o->step, r1 = r0 + o->step;
    o->fn(o->arg, r0, r1 < o->rows ? r1 : o->rows);
}

void tt__over_rows(tt_ctx *ctx, int64_t rows, int64_t cols, tt_rows_fn fn, const void *arg) {
    enum { PER_TILE = 16384 };                 /* elements: some microseconds of work */
    over_rows o = {fn, arg, rows, PER_TILE / (cols > 0 ? cols : 1)};
    if (o.step < 1) o.step = 1;
    int64_t tiles = (rows + o.step - 1) / o.step;
    if (tiles <= 1) fn(arg, 0, rows);
    else tt__parallel(ctx, tiles, over_rows_tile, &o);
}

/* cos and sin of every position of this run; the table grows by doubling and keeps what it has. */
static tt_status rope_table(tt_graph *g, const tt_env *env, tt_err *err) {
    int64_t need = env->pos0 + env->T > env->P_rows ? env->pos0 + env->T : env->P_rows, half = g->rope_half;
    if (!half || need <= g->rope_n) return TT_OK;
    if (need > g->rope_cap) {
        int64_t cap = need > 2 * g->rope_cap ? need : 2 * g->rope_cap;
        if (cap < g->rope_want) cap = g->rope_want;
        float *t = tt__realloc(g->rope, tt__array_bytes((size_t)cap, (size_t)half * 2 * sizeof *t));
        TT_FAIL_IF(!t, err, TT_RESOURCE, "out of memory|for the rotary table|%lld positions", (long long)cap);
        g->rope = t;
        g->rope_cap = cap;
    }
    int64_t upto = (need + 63) / 64 * 64;
    if (upto > g->rope_cap) upto = g->rope_cap;
    for (int64_t p = g->rope_n; p < upto; p++)
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)p * g->rope_inv[i];
            g->rope[(p * half + i) * 2] = (float)cos((double)angle);
            g->rope[(p * half + i) * 2 + 1] = (float)sin((double)angle);
        }
    g->rope_n = upto;
    return TT_OK;
}

static tt_status check_run(tt_graph *g, const tt_env *env, const void *ws, tt_err *err) {
    TT_FAIL_IF(!g->planned, err, TT_FAIL, "graph is not planned");
    TT_FAIL_IF(env->S < 0 || env->T < 0 || env->P_rows < 0 || env->rows != env->P_rows + env->S * env->T, err, TT_FAIL,
               "rows of a run do not add up|%lld + %lld x %lld|%lld rows", (long long)env->P_rows, (long long)env->S, (long long)env->T, (long long)env->rows);
    TT_FAIL_IF(env->rows > g->max_rows, err, TT_USAGE, "too many rows for this plan||%lld|at most %lld", (long long)env->rows, (long long)g->max_rows);
    TT_FAIL_IF(env->fast && g->exact, err, TT_FAIL, "fast run of an exact plan");
    TT_FAIL_IF(env->kv && env->P_rows, err, TT_FAIL, "prefix rows and a cache in one run");
    TT_FAIL_IF(!ws && g->workspace, err, TT_FAIL, "run without a workspace");
    return rope_table(g, env, err);
}

static tt_status check_bound(const tt_graph *g, int phase, tt_err *err) {
    for (int32_t i = 0; i < g->n_vals; i++) {
        const tt_value *v = &g->vals[i];
        bool needed = v->phase == phase || (phase == 1 && v->def < 0 && v->last_b >= 0);
        TT_FAIL_IF(v->bound && needed && !v->data, err, TT_FAIL, "value is not bound|%s", v->name);
    }
    return TT_OK;
}

tt_status tt__graph_forward(tt_graph *g, const tt_env *env, void *workspace, void *kept, tt_tap_fn tap, void *user, int stop_tap, tt_err *err) {
    TT_TRY(check_run(g, env, workspace, err));
    if (stop_tap < 0) TT_TRY(check_bound(g, 0, err));
    tt_run r = {g->ctx, g, env, workspace, kept};
    for (int32_t i = 0; i < g->n_nodes[0];) {
        const tt_node *n = &g->nodes[0][i];
        n->op->forward(&r, n, n->group);
        for (int32_t last = i + n->group; i < last; i++) {
            int id = g->nodes[0][i].tap;
            if (id < 0) continue;
            if (tap) {
                tt_mat m = tt__run_mat(&r, g->nodes[0][i].out[0]);
                tap(user, id, m.x, m.ld, env->rows, m.cols);
            }
            if (id == stop_tap) return TT_OK;
        }
    }
    return TT_OK;
}

tt_status tt__graph_backprop(tt_graph *g, const tt_env *env, void *workspace, const void *kept, tt_err *err) {
    TT_TRY(check_run(g, env, workspace, err));
    TT_TRY(check_bound(g, 1, err));
    TT_FAIL_IF(g->n_nodes[1] == 0, err, TT_FAIL, "graph has no backward part");
    TT_FAIL_IF(!kept && g->kept_cols, err, TT_FAIL, "backward without the kept values");
    tt_run r = {g->ctx, g, env, workspace, (uint8_t *)(uintptr_t)kept};
    for (int32_t i = 0; i < g->n_nodes[1];) {
        const tt_node *n = &g->nodes[1][i];
        (n->grad ? n->op->backward : n->op->forward)(&r, n, n->group);
        i += n->group;
    }
    return TT_OK;
}

/* ------------------------------------------------------------------ looking inside ---- */

static void print_value(const tt_graph *g, tt_val i, tt__str *out) {
    if (i < 0) { tt__str_puts(out, " -"); return; }
    const tt_value *v = &g->vals[i];
    tt__str_printf(out, " %%%d", (int)i);
    if (v->name[0]) tt__str_printf(out, "'%s'", v->name);
    tt__str_printf(out, "[%lld]", (long long)v->cols);
}

static void print_place(const tt_graph *g, tt_val i, tt__str *out) {
    if (i < 0) return;
    const tt_value *v = &g->vals[i], *root = &g->vals[v->root];
    if (v->bound) tt__str_puts(out, " bound");
    else if (root->kept) tt__str_printf(out, " kept+%lld", (long long)root->kept_cols);
    else tt__str_printf(out, " ws+%llu", (unsigned long long)root->offset);
    if (v->root != i) tt__str_printf(out, " in place of %%%d", (int)v->root);
    tt__str_printf(out, " until %d", (int)v->last);
}

void tt__graph_print(const tt_graph *g, tt__str *out) {
    tt__str_printf(out, "graph: %d values, workspace %llu bytes for %lld rows, %lld kept columns\n", (int)g->n_vals,
                   (unsigned long long)g->workspace, (long long)g->max_rows, (long long)g->kept_cols);
    for (int phase = 0; phase < 2; phase++)
        for (int32_t i = 0; i < g->n_nodes[phase]; i++) {
            const tt_node *n = &g->nodes[phase][i];
            tt__str_printf(out, "%s %3d  %s%s", phase ? "bwd" : "fwd", (int)i, n->op->name, n->grad ? "'" : "");
            for (int j = 0; j < n->n_in; j++) print_value(g, n->in[j], out);
            tt__str_puts(out, " ->");
            for (int j = 0; j < n->n_out; j++) { print_value(g, n->out[j], out); print_place(g, n->out[j], out); }
            if (n->tap >= 0) tt__str_printf(out, " tap %d", n->tap);
            if (n->group > 1) tt__str_printf(out, " with the next %d", n->group - 1);
            tt__str_puts(out, "\n");
        }
}

static bool op_is_listed(const tt_op *op) {
    for (size_t i = 0; i < sizeof all_ops / sizeof *all_ops; i++) if (all_ops[i] == op) return true;
    return false;
}

/* Reads come after writes, and every value of a phase has one writer. */
static bool order_is_valid(const tt_graph *g, int phase) {
    for (int32_t i = 0; i < g->n_nodes[phase]; i++) {
        const tt_node *n = &g->nodes[phase][i];
        if (!op_is_listed(n->op) || (n->grad && phase == 0)) return false;
        for (int j = 0; j < n->n_in; j++) {
            if (n->in[j] < 0) continue;
            const tt_value *v = &g->vals[n->in[j]];
            if (v->phase == phase ? v->def >= i : v->phase > phase || (v->def >= 0 && !v->kept)) return false;
            if (v->phase == phase && v->last < i) return false;
        }
        for (int j = 0; j < n->n_out; j++) if (n->out[j] < 0 || g->vals[n->out[j]].phase != phase) return false;
    }
    return true;
}

/* Two storages of one phase that are alive together do not overlap, and all lie in the workspace. */
static bool storage_is_valid(const tt_graph *g) {
    for (int32_t i = 0; i < g->n_vals; i++) {
        const tt_value *a = &g->vals[i], *ra = &g->vals[a->root];
        if (ra->root != a->root || (a->root != i && (a->bound || ra->bound || a->kind != ra->kind || a->cols != ra->cols))) return false;
        if (a->kept && !ra->kept) return false;
        if (a->root != i || a->bound) continue;
        if (a->offset % 64 || a->offset + a->bytes > g->workspace) return false;
        for (int32_t j = 0; j < i; j++) {
            const tt_value *b = &g->vals[j];
            if (b->root != j || b->bound || b->phase != a->phase) continue;
            bool together = a->live0 <= b->live1 && b->live0 <= a->live1;
            if (together && a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes) return false;
        }
    }
    return true;
}

/* No two values of one in-place chain are alive at once: each is last read by the node that writes the next. */
static bool chains_are_valid(const tt_graph *g) {
    for (int32_t i = 0; i < g->n_vals; i++)
        for (int32_t j = 0; j < g->n_vals; j++) {
            const tt_value *a = &g->vals[i], *b = &g->vals[j];
            if (i == j || a->root != b->root || a->def > b->def) continue;
            if (a->last > b->def) return false;                  /* kept ones live for ever */
        }
    return true;
}

bool tt__graph_is_valid(const tt_graph *g) {
    if (g->failed != TT_OK || !g->planned) return false;
    return order_is_valid(g, 0) && order_is_valid(g, 1) && storage_is_valid(g) && chains_are_valid(g);
}
