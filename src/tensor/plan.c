/* The planner: who lives when, what may share storage, where in the workspace it lies.
 *
 * Both phases use one workspace, one after the other. Inside a phase storages are placed first-fit, largest first, against those alive at
 * the same time; a node's inputs and outputs are alive together, except where the output takes its input's place (op.h, in_place).
 * Values kept for backward have a place here too: it is used when the caller passes no storage for them (forward alone).
 */
#include "tensor/op.h"
#include <assert.h>

static const int32_t FOREVER = INT32_MAX;

static void use(tt_graph *g, tt_val v, int phase, int32_t node) {
    if (v < 0) return;
    tt_value *val = &g->vals[v];
    if (val->phase != phase) { if (node > val->last_b) val->last_b = node; }
    else if (node > val->last) val->last = node;
    if (val->kind == TT_VAL_ACT) use(g, val->base, phase, node);
}

/* last, last_b of every value. Kept values and outputs live to the end of their phase. */
void tt__plan_uses(tt_graph *g) {
    for (int32_t i = 0; i < g->n_vals; i++) g->vals[i].last = g->vals[i].last_b = -1;
    for (int phase = 0; phase < 2; phase++)
        for (int32_t i = 0; i < g->n_nodes[phase]; i++) {
            const tt_node *n = &g->nodes[phase][i];
            for (int j = 0; j < n->n_in; j++) use(g, n->in[j], phase, i);
            for (int j = 0; j < n->n_out; j++) if (g->vals[n->out[j]].last < i) g->vals[n->out[j]].last = i;
        }
    for (int32_t i = 0; i < g->n_vals; i++) if (g->vals[i].kept || g->vals[i].output) g->vals[i].last = FOREVER;
}

/* Neighbouring forward nodes of a `grouped` op that read the same value run as one. */
void tt__plan_groups(tt_graph *g) {
    for (int phase = 0; phase < 2; phase++)
        for (int32_t i = 0; i < g->n_nodes[phase];) {
            tt_node *n = &g->nodes[phase][i];
            int count = 1;
            while (n->op->grouped && !n->grad && i + count < g->n_nodes[phase] && n[count].op == n->op && !n[count].grad && n[count].in[0] == n->in[0]) count++;
            for (int j = 0; j < count; j++) n[j].group = 0;
            n->group = count;
            i += count;
        }
}

/* May the first output of n lie where input i was? */
static bool can_take(const tt_graph *g, const tt_node *n, int32_t at, int i, int phase) {
    unsigned allowed = n->grad ? n->op->grad_in_place : n->op->in_place;
    if (!(allowed >> i & 1) || n->in[i] < 0) return false;
    const tt_value *in = &g->vals[n->in[i]], *root = &g->vals[in->root], *out = &g->vals[n->out[0]];
    if (in->phase != phase || root->bound || out->bound || in->kind != TT_VAL_ROWS || in->cols != out->cols || root->live1 != at) return false;
    for (int j = 0; j < n->n_in; j++)      /* the same storage read in a way that does not stand being overwritten */
        if (j != i && n->in[j] >= 0 && g->vals[n->in[j]].root == in->root && !(allowed >> j & 1)) return false;
    return true;
}

/* root, live0, live1: in-place chains in node order. */
void tt__plan_storage(tt_graph *g) {
    for (int32_t i = 0; i < g->n_vals; i++) {
        tt_value *v = &g->vals[i];
        v->root = i;
        v->live0 = v->def;
        v->live1 = v->last;
    }
    for (int phase = 0; phase < 2; phase++) {
        int32_t leader = 0;
        for (int32_t at = 0; at < g->n_nodes[phase]; at++) {
            const tt_node *n = &g->nodes[phase][at];
            if (n->group) leader = at;
            for (int j = 0; j < n->n_out; j++) g->vals[n->out[j]].live0 = leader;   /* a group writes all its outputs at once */
            for (int i = 0; i < n->n_in; i++) {
                if (!can_take(g, n, at, i, phase)) continue;
                tt_value *out = &g->vals[n->out[0]], *root = &g->vals[g->vals[n->in[i]].root];
                out->root = g->vals[n->in[i]].root;
                root->live1 = out->last;
                root->kept |= out->kept;
                break;
            }
        }
    }
}

static uint64_t align64(uint64_t n) { return (n + 63) / 64 * 64; }

static uint64_t value_bytes(const tt_graph *g, const tt_value *v) {
    if (v->kind == TT_VAL_ACT) return g->exact ? 64 : align64(tt__act_bytes(g->max_rows, v->cols));
    return align64((uint64_t)g->max_rows * (uint64_t)v->cols * sizeof(float));
}

static bool needs_place(const tt_value *v, tt_val i, int phase) { return v->root == i && !v->bound && v->phase == phase && v->live0 >= 0; }

/* The lowest offset at which `v` meets none of the placed storages alive with it. Every try moves past one of them. */
static uint64_t first_fit(const tt_graph *g, const tt_value *v, const bool *placed) {
    uint64_t at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int32_t i = 0; i < g->n_vals; i++) {
            const tt_value *o = &g->vals[i];
            if (!placed[i] || o->phase != v->phase || o->live0 > v->live1 || v->live0 > o->live1) continue;
            if (at < o->offset + o->bytes && o->offset < at + v->bytes) {
                at = o->offset + o->bytes;
                moved = true;
            }
        }
    }
    return at;
}

static void place_phase(tt_graph *g, int phase, bool *placed) {
    for (;;) {
        tt_val next = -1;
        for (int32_t i = 0; i < g->n_vals; i++)
            if (needs_place(&g->vals[i], i, phase) && !placed[i] && (next < 0 || g->vals[i].bytes > g->vals[next].bytes)) next = i;
        if (next < 0) return;
        tt_value *v = &g->vals[next];
        v->offset = first_fit(g, v, placed);
        placed[next] = true;
        if (v->offset + v->bytes > g->workspace) g->workspace = v->offset + v->bytes;
    }
}

tt_status tt__plan_offsets(tt_graph *g, tt_err *err) {
    bool *placed;
    TT_TRY(tt__new(&placed, (size_t)g->n_vals, sizeof *placed, "planning", err));
    for (int32_t i = 0; i < g->n_vals; i++) {
        tt_value *v = &g->vals[i];
        if (v->bound || v->root != i) continue;
        v->bytes = value_bytes(g, v);
        if (v->kept) {
            v->kept_cols = g->kept_cols;
            g->kept_cols += v->cols;
        }
    }
    place_phase(g, 0, placed);
    place_phase(g, 1, placed);
    tt__free(placed);
    return TT_OK;
}
