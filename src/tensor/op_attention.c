/* attention: causal, grouped heads, many sequences (kernels/attention.h has the sum). Two uses, never together:
 *
 *   cache       rows = S x T; positions before them come from env->kv, and the new keys and values are appended there (k not NULL).
 *               Its prefix may be learned: backward adds to dpk and dpv; the past is constant
 *   prefix rows rows = P + S x T; the P rows attend among themselves, and are the prefix of every sequence:
 *
 *       rows   [ P prefix rows | sequence 0: T rows | sequence 1: T rows | … ]
 *
 *   In backward each sequence adds its share to the gradient of the prefix keys and values, which then flows on into the prefix rows.
 * The log-sum-exp [rows, H] is a second output; backward rebuilds probabilities from it. */
#include "tensor/op.h"
#include <string.h>

static tt_attn new_rows(const tt_env *e, const tt_node *n, tt_mat q, tt_mat k, tt_mat v, tt_mat out, float *lse, int64_t first) {
    return (tt_attn){.S = e->S, .T = e->T, .H = n->p.H, .Hkv = n->p.Hkv, .D = n->p.D, .scale = n->p.scale,
                     .q = q.x + first * q.ld, .ldq = q.ld, .k = k.x + first * k.ld, .v = v.x + first * v.ld, .ldkv = k.ld,
                     .fast = e->fast, .out = out.x + first * out.ld, .ldo = out.ld, .lse = lse ? lse + first * n->p.H : NULL};
}

static tt_attn prefix_rows(const tt_env *e, const tt_node *n, tt_mat q, tt_mat k, tt_mat v, tt_mat out, float *lse) {
    tt_attn a = new_rows(e, n, q, k, v, out, lse, 0);
    a.S = 1;
    a.T = e->P_rows;
    return a;
}

static void see_prefix_rows(tt_attn *a, const tt_env *e, tt_mat k, tt_mat v) {
    a->P = e->P_rows;
    a->p_type = TT_KV_F32;
    a->pk = k.x;
    a->pv = v.x;
    a->ldp = k.ld;
}

static void see_cache(tt_attn *a, const tt_kvview *c, int64_t width) {
    a->P = c->P;
    a->p_type = c->p_type;
    a->pk = c->pk;
    a->pv = c->pv;
    a->ldp = width;
    a->N = c->N;
    a->pastk_type = c->k_type;
    a->pastv_type = c->v_type;
    a->pastk = c->k;
    a->pastv = c->v;
    a->pastk_row = tt__kv_row_bytes(c->k_type, width);
    a->pastv_row = tt__kv_row_bytes(c->v_type, width);
    a->pastk_stride = c->room * a->pastk_row;
    a->pastv_stride = c->room * a->pastv_row;
}

static void store_row(const tt_kernels *k, uint8_t *to, tt_kvtype type, const float *from, int64_t width) {
    if (type == TT_KV_F32) memcpy(to, from, (size_t)width * sizeof(float));
    else if (type == TT_KV_F16) k->f32_to_f16((uint16_t *)(void *)to, from, width);
    else k->kv8_pack((int8_t *)to, (uint16_t *)(void *)(to + width), from, width);
}

static void append(const tt_run *r, const tt_kvview *c, const tt_attn *a) {
    const int64_t width = a->Hkv * a->D;
    for (int64_t s = 0; s < a->S; s++)
        for (int64_t t = 0; t < a->T; t++) {
            const int64_t from = (s * a->T + t) * a->ldkv, at = c->N + t;
            store_row(r->ctx->k, (uint8_t *)c->k + s * a->pastk_stride + at * a->pastk_row, c->k_type, a->k + from, width);
            store_row(r->ctx->k, (uint8_t *)c->v + s * a->pastv_stride + at * a->pastv_row, c->v_type, a->v + from, width);
        }
}

/* What a lossy cache holds is what is attended to, from the first row on: else the loss would depend on how a prompt is cut into passes. The
 * rounding of f16 is too small for that to matter, and the rows at hand are read before it. */
static bool reads_own_from_cache(const tt_kvview *c) { return c->k && (c->k_type == TT_KV_Q8 || c->v_type == TT_KV_Q8); }

static void forward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    const tt_env *e = r->env;
    tt_mat q = tt__run_mat(r, n->in[0]), k = tt__run_mat(r, n->in[1]), v = tt__run_mat(r, n->in[2]), out = tt__run_mat(r, n->out[0]);
    float *lse = r->g->n_nodes[1] ? tt__run_mat(r, n->out[1]).x : NULL;
    tt_attn a = new_rows(e, n, q, k, v, out, lse, e->P_rows);
    if (e->P_rows) {
        tt_attn p = prefix_rows(e, n, q, k, v, out, lse);
        tt__attention(r->ctx, &p);
        see_prefix_rows(&a, e, k, v);
    }
    if (e->kv) see_cache(&a, e->kv, a.Hkv * a.D);
    a.own_in_past = e->kv && reads_own_from_cache(e->kv);
    if (a.own_in_past) append(r, e->kv, &a);
    if (a.S && a.T) tt__attention(r->ctx, &a);
    if (e->kv && e->kv->k && !a.own_in_past) append(r, e->kv, &a);
}

static void gradient(tt_graph *g, const tt_node *n) {
    tt_val in[6] = {n->in[0], n->in[1], n->in[2], n->out[0], n->out[1], tt__g_grad(g, n->out[0])}, d[3];
    for (int i = 0; i < 3; i++) d[i] = tt__g_grad_value(g, g->vals[n->in[i]].cols);
    tt__g_grad_node(g, &tt__op_attention, in, 6, d, 3, &n->p);
    for (int i = 0; i < 3; i++) tt__g_grad_add(g, n->in[i], d[i]);
}

static void backward(const tt_run *r, const tt_node *n, int count) {
    (void)count;
    const tt_env *e = r->env;
    tt_mat q = tt__run_mat(r, n->in[0]), k = tt__run_mat(r, n->in[1]), v = tt__run_mat(r, n->in[2]), out = tt__run_mat(r, n->in[3]);
    tt_mat lse = tt__run_mat(r, n->in[4]), dout = tt__run_mat(r, n->in[5]);
    tt_mat dq = tt__run_mat(r, n->out[0]), dk = tt__run_mat(r, n->out[1]), dv = tt__run_mat(r, n->out[2]);
    tt_attn a = new_rows(e, n, q, k, v, out, lse.x, e->P_rows);
    if (e->P_rows) {
        tt_attn p = prefix_rows(e, n, q, k, v, out, lse.x);
        tt__attention_bwd(r->ctx, &p, dout.x, dq.x, dk.x, dv.x, NULL, NULL);      /* writes the prefix rows; sequences add to them */
        see_prefix_rows(&a, e, k, v);
    }
    if (e->kv) see_cache(&a, e->kv, a.Hkv * a.D);
    int64_t f = e->P_rows;
    float *dpk = e->kv ? e->kv->dpk : f ? dk.x : NULL, *dpv = e->kv ? e->kv->dpv : f ? dv.x : NULL;
    if (a.S && a.T) tt__attention_bwd(r->ctx, &a, dout.x + f * dout.ld, dq.x + f * dq.ld, dk.x + f * dk.ld, dv.x + f * dv.ld, dpk, dpv);
}

/* Scores and weighted values, of the causal half. */
static double macs(const tt_graph *g, const tt_node *n, const tt_env *e) {
    (void)g;
    double past = (double)(e->P_rows + (e->kv ? e->kv->P + e->kv->N : 0)), t = (double)e->T, p = (double)e->P_rows;
    double pairs = (double)e->S * (t * past + t * (t + 1) / 2) + p * (p + 1) / 2;
    return pairs * (double)(n->p.H * n->p.D) * (n->grad ? 5 : 2);
}

const tt_op tt__op_attention = {.name = "attention", .keep = true, .forward = forward, .gradient = gradient, .backward = backward, .macs = macs};

tt_val tt__g_attention(tt_graph *g, tt_val q, tt_val k, tt_val v, int64_t H, int64_t Hkv, int64_t D, float scale) {
    if (Hkv < 1 || D < 1 || H % Hkv || !tt__g_is_rows(g, q, H * D) || !tt__g_is_rows(g, k, Hkv * D) || !tt__g_is_rows(g, v, Hkv * D)) {
        tt__g_fail(g, "bad arguments", "attention");
        return -1;
    }
    tt_node n = {.op = &tt__op_attention, .n_in = 3, .n_out = 2, .in = {q, k, v}, .tap = -1, .p = {.H = H, .Hkv = Hkv, .D = D, .scale = scale}};
    n.out[0] = tt__g_value(g, 0, TT_VAL_ROWS, H * D, NULL);
    n.out[1] = tt__g_value(g, 0, TT_VAL_ROWS, H, NULL);
    return tt__g_node(g, 0, &n) < 0 ? -1 : n.out[0];
}
