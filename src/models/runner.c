/* Running a network: one block graph, one workspace, rows carried from layer to layer in place.
 *
 *     ids ─ embedding ─ X ─ block 0 ─ X ─ … ─ block L-1 ─ X ─ norm ─ H ─ head ─ logits
 *
 * Control flow between the segments is here; everything inside a block is the graph's. Nothing is allocated after creation, except once
 * for training, and when positions outgrow the rotary table.
 */
#include "models/runner.h"
#include <assert.h>

/* ------------------------------------------------------------------ making one ---- */

static tt_status record_block(tt_runner *r, tt_err *err) {
    tt_val x, y;
    TT_TRY(tt__graph_create(r->ctx, &r->block, err));
    x = tt__g_input(r->block, "x", r->net->hp.n_embd);
    TT_TRY(r->net->arch->block(r->net, r->block, x, &y, 0, err));
    tt__g_output(r->block, y, "y");
    if (r->o.weights) tt__graph_train(r->block);
    if (r->o.backward) TT_TRY(tt__graph_backward(r->block, y, x, r->o.keep, err));
    if (!r->o.fast) tt__graph_exact(r->block);
    return tt__graph_plan(r->block, r->o.max_rows, r->o.max_past, err);
}

static tt_status fill_slots(tt_runner *r, tt_err *err) {
    const tt_net *net = r->net;
    TT_TRY(tt__new(&r->ops, net->n_weights, sizeof *r->ops, "a runner", err));
    TT_TRY(tt__new(&r->vecs, net->n_weights, sizeof *r->vecs, "a runner", err));
    for (size_t i = 0; i < net->n_weights; i++) {
        r->ops[i] = net->weights[i].op;
        r->vecs[i] = net->weights[i].vec;
        size_t s = r->ops[i] ? tt__linop_scratch(r->ctx, r->ops[i]) : 0;
        if (s > r->linop_scratch) r->linop_scratch = s;
    }
    return TT_OK;
}

tt_status tt__runner_grow(tt_runner *r, void *p, uint64_t bytes, const char *what, tt_err *err) {
    void **at = p, *q = tt__alloc((size_t)bytes);
    TT_FAIL_IF(!q, err, TT_RESOURCE, "out of memory|for %s|%llu bytes", what, (unsigned long long)bytes);
    tt__free(*at);
    *at = q;
    r->bytes += bytes;
    return TT_OK;
}

static tt_status make(tt_runner *r, tt_err *err) {
    int64_t d = r->net->hp.n_embd;
    TT_TRY(fill_slots(r, err));
    TT_TRY(record_block(r, err));
    TT_TRY(tt__runner_grow(r, &r->workspace, tt__graph_workspace(r->block), "the workspace of a block", err));
    TT_TRY(tt__runner_grow(r, &r->head_ws, r->o.fast ? tt__act_bytes(r->o.max_rows, d) : 64, "the head's input", err));
    TT_TRY(tt__runner_grow(r, &r->X, (uint64_t)(r->o.max_rows * d) * sizeof(float), "rows of a run", err));
    return tt__runner_ready(r, r->o.max_rows, 0, r->o.max_past, err);
}

tt_status tt__runner_create(tt_ctx *ctx, const tt_net *net, const tt_runner_options *o, tt_runner **out, tt_err *err) {
    tt_runner *r;
    *out = NULL;
    TT_FAIL_IF(o->max_rows < 1 || o->max_rows > (int64_t)1 << 24, err, TT_USAGE, "bad number of rows for a runner||%lld|1 … 2^24", (long long)o->max_rows);
    TT_TRY(tt__new(&r, 1, sizeof *r, "a runner", err));
    r->ctx = ctx;
    r->net = net;
    r->o = *o;
    tt_status st = make(r, err);
    if (st != TT_OK) tt__runner_free(r);
    else *out = r;
    return st;
}

void tt__runner_free(tt_runner *r) {
    if (!r) return;
    tt__graph_free(r->block);
    tt__free(r->workspace);
    tt__free(r->head_ws);
    tt__free(r->ops);
    tt__free(r->vecs);
    tt__free(r->X);
    tt__free(r->layer_x);
    tt__free(r->kept);
    tt__free(r->rows_x);
    tt__free(r->rows_d);
    tt__free(r->logits);
    tt__free(r->target_rows);
    tt__free(r->block_d);
    tt__free(r->row_sum);
    tt__free(r->block_kept);
    tt__free(r);
}

uint64_t tt__runner_bytes(const tt_runner *r) { return r->bytes; }

void tt__runner_set_bf16(tt_runner *r, bool bf16) { r->bf16 = bf16; }

void tt__runner_set_op(tt_runner *r, size_t weight, const tt_linop *op) {
    const tt_weight *w = &r->net->weights[weight];
    assert(weight < r->net->n_weights && w->op && (!op || (op->rows == w->rows && op->cols == w->cols)));
    r->ops[weight] = op ? op : w->op;
    size_t s = tt__linop_scratch(r->ctx, r->ops[weight]);
    if (s > r->linop_scratch) r->linop_scratch = s;
}

void tt__runner_set_vec(tt_runner *r, size_t weight, const float *vec) {
    assert(weight < r->net->n_weights && r->net->weights[weight].vec);
    r->vecs[weight] = vec ? vec : r->net->weights[weight].vec;
}

/* ------------------------------------------------------------------ pieces ---- */

tt_status tt__runner_ready(tt_runner *r, int64_t T, int64_t P, int64_t N, tt_err *err) {
    size_t a = tt__attention_scratch(r->ctx, T, r->net->hp.head_dim, P, N);
    return tt__scratch_reserve(r->ctx, a > r->linop_scratch ? a : r->linop_scratch, err);
}

tt_env tt__runner_env(const tt_runner *r, int layer, int64_t P_rows, int64_t S, int64_t T, int64_t pos0) {
    size_t first = r->net->layer_first[layer];
    return (tt_env){.rows = P_rows + S * T, .S = S, .T = T, .P_rows = P_rows, .pos0 = pos0, .fast = r->o.fast, .bf16 = r->bf16, .ops = r->ops + first, .vecs = r->vecs + first,
                    .weight0 = first};
}

tt_status tt__runner_layer(tt_runner *r, const tt_env *env, float *x, float *y, void *kept, tt_err *err) {
    int64_t d = r->net->hp.n_embd;
    TT_TRY(tt__graph_bind(r->block, "x", x, d, err));
    TT_TRY(tt__graph_bind(r->block, "y", y, d, err));
    return tt__graph_forward(r->block, env, r->workspace, kept, NULL, NULL, -1, err);
}

static tt_kvview view(const tt_kvcache *c, int layer) {
    const int64_t rows = (int64_t)layer * c->S * c->n_ctx;
    tt_kvview v = {.N = c->n, .k_type = c->k_type, .v_type = c->v_type, .room = c->n_ctx,
                   .k = (uint8_t *)c->k + rows * tt__kv_row_bytes(c->k_type, c->width), .v = (uint8_t *)c->v + rows * tt__kv_row_bytes(c->v_type, c->width)};
    if (c->prefix) {
        const tt_prefix *p = c->prefix;
        const int64_t skip = (int64_t)layer * p->P * tt__kv_row_bytes(p->type, c->width);
        v.P = p->P;
        v.p_type = p->type;
        v.pk = (const uint8_t *)p->k + skip;
        v.pv = (const uint8_t *)p->v + skip;
    }
    return v;
}

tt_status tt__runner_rows(tt_runner *r, tt_kvcache *cache, int64_t T, float *X, tt_err *err) {
    int64_t P = cache->prefix ? cache->prefix->P : 0;
    assert(cache->n + T <= cache->n_ctx && cache->n_layer == r->net->hp.n_layer);
    TT_TRY(tt__runner_ready(r, T, P, cache->n, err));
    for (int l = 0; l < (int)cache->n_layer; l++) {
        tt_kvview kv = view(cache, l);
        tt_env env = tt__runner_env(r, l, 0, cache->S, T, P + cache->n);
        env.kv = &kv;
        TT_TRY(tt__check_cancel(r->ctx, err));
        TT_TRY(tt__runner_layer(r, &env, X, X, NULL, err));
    }
    cache->n += T;
    return TT_OK;
}

typedef struct norm_args { const tt_kernels *k; const float *x, *gain; float *h; int64_t ldx, d; float eps; } norm_args;

static void norm_rows(const void *arg, int64_t r0, int64_t r1) {
    const norm_args *a = arg;
    for (int64_t r = r0; r < r1; r++) a->k->rmsnorm_f32(a->h + r * a->d, a->x + r * a->ldx, a->gain, a->eps, a->d);
}

void tt__runner_norm(const tt_runner *r, const float *X, int64_t ldx, int64_t n, float *H) {
    norm_args a = {r->ctx->k, X, r->vecs[r->net->output_norm], H, ldx, r->net->hp.n_embd, r->net->hp.rms_eps};
    tt__over_rows(r->ctx, n, a.d, norm_rows, &a);
}

/* ------------------------------------------------------------------ the public calls ---- */

typedef struct embed_args { const tt_linop *op; const int32_t *ids; float *X; } embed_args;

static void embed_rows(const void *arg, int64_t r0, int64_t r1) {
    const embed_args *a = arg;
    for (int64_t r = r0; r < r1; r++) tt__linop_rows(a->op, a->ids[r], a->ids[r] + 1, a->X + r * a->op->cols);
}

tt_status tt__run_embed(tt_runner *r, const int32_t *ids, int64_t n, float *X, tt_err *err) {
    int64_t V = r->net->hp.n_vocab;
    for (int64_t i = 0; i < n; i++)
        TT_FAIL_IF(ids[i] < 0 || ids[i] >= V, err, TT_USAGE, "token id out of range|position %lld|%d|0 … %lld", (long long)i, (int)ids[i], (long long)V - 1);
    embed_args a = {r->ops[r->net->embd], ids, X};
    tt__over_rows(r->ctx, n, r->net->hp.n_embd, embed_rows, &a);
    return TT_OK;
}

tt_status tt__run_block(tt_runner *r, int layer, int64_t P_rows, int64_t S, int64_t T, float *X, tt_tap_fn tap, void *user, int stop_tap, tt_err *err) {
    tt_env env = tt__runner_env(r, layer, P_rows, S, T, P_rows);
    TT_TRY(tt__runner_ready(r, T > P_rows ? T : P_rows, P_rows, 0, err));
    TT_TRY(tt__graph_bind(r->block, "x", X, r->net->hp.n_embd, err));
    TT_TRY(tt__graph_bind(r->block, "y", X, r->net->hp.n_embd, err));
    return tt__graph_forward(r->block, &env, r->workspace, NULL, tap, user, stop_tap, err);
}

/* Tokens t0 … t0+n-1 of each sequence: embedded, run, and their hidden rows put where they belong. */
static tt_status cached_part(tt_runner *r, tt_kvcache *c, const int32_t *ids, int64_t T, int64_t t0, int64_t n, bool last_only, float *H, tt_err *err) {
    int64_t d = r->net->hp.n_embd;
    for (int64_t s = 0; s < c->S; s++) TT_TRY(tt__run_embed(r, ids + s * T + t0, n, r->X + s * n * d, err));
    TT_TRY(tt__runner_rows(r, c, n, r->X, err));
    if (!last_only)
        for (int64_t s = 0; s < c->S; s++) tt__runner_norm(r, r->X + s * n * d, d, n, H + (s * T + t0) * d);
    else if (t0 + n == T) tt__runner_norm(r, r->X + (n - 1) * d, n * d, c->S, H);
    return TT_OK;
}

tt_status tt__run_cached(tt_runner *r, tt_kvcache *cache, const int32_t *ids, int64_t T, bool last_only, float *H, tt_err *err) {
    int64_t step = r->o.max_rows / cache->S, before = cache->n;
    TT_FAIL_IF(T < 1 || T > cache->n_ctx - cache->n, err, T < 1 ? TT_USAGE : TT_FAIL, "no room for the tokens||%lld new, %lld of %lld taken|at most %lld",
               (long long)T, (long long)cache->n, (long long)cache->n_ctx, (long long)(cache->n_ctx - cache->n));
    TT_FAIL_IF(step < 1, err, TT_USAGE, "runner is too small for the sequences||%lld rows|%lld", (long long)r->o.max_rows, (long long)cache->S);
    for (int64_t t0 = 0; t0 < T; t0 += step) {
        tt_status st = cached_part(r, cache, ids, T, t0, T - t0 < step ? T - t0 : step, last_only, H, err);
        if (st == TT_OK) continue;
        cache->n = before;
        return st;
    }
    return TT_OK;
}

tt_status tt__run_logits(tt_runner *r, const float *H, int64_t n, float *logits, tt_err *err) {
    int64_t d = r->net->hp.n_embd, V = r->net->hp.n_vocab;
    TT_TRY(tt__scratch_reserve(r->ctx, r->linop_scratch, err));
    for (int64_t at = 0; at < n; at += r->o.max_rows) {
        int64_t rows = n - at < r->o.max_rows ? n - at : r->o.max_rows;
        tt_act act;
        tt__act_prepare(r->ctx, &act, H + at * d, d, rows, d, r->o.fast, r->head_ws);
        tt__linop_apply(r->ctx, r->ops[r->net->output], &act, logits + at * V, V);
    }
    return TT_OK;
}

tt_status tt__run_hidden(tt_runner *r, int64_t S, int64_t T, const int32_t *ids, float *H, tt_err *err) {
    int64_t d = r->net->hp.n_embd, step = T > 0 ? r->o.max_rows / T : 0;
    TT_FAIL_IF(step < 1, err, TT_USAGE, "sequence does not fit the runner||%lld tokens|1 … %lld", (long long)T, (long long)r->o.max_rows);
    TT_TRY(tt__runner_ready(r, T, 0, 0, err));
    for (int64_t s = 0; s < S; s += step) {
        int64_t n = S - s < step ? S - s : step;
        TT_TRY(tt__run_embed(r, ids + s * T, n * T, r->X, err));
        for (int l = 0; l < (int)r->net->hp.n_layer; l++) {
            tt_env env = tt__runner_env(r, l, 0, n, T, 0);
            TT_TRY(tt__check_cancel(r->ctx, err));
            TT_TRY(tt__runner_layer(r, &env, r->X, r->X, NULL, err));
        }
        tt__runner_norm(r, r->X, d, n * T, H + s * T * d);
    }
    return TT_OK;
}
