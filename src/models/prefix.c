/* A prompt's keys and values: its rows run once through the layers into a cache of exactly their length, which then is the prefix.
 * Serving pays P cached positions and nothing in the linears (weights.md 001, C). */
#include "models/runner.h"

void tt__prefix_free(tt_prefix *p) {
    if (!p) return;
    tt__free(p->k);
    tt__free(p->v);
    tt__free(p);
}

tt_status tt__prefix_compute(tt_runner *r, const float *E, int64_t P, tt_kvtype type, tt_prefix **out, tt_err *err) {
    tt_kvcache *c = NULL;
    tt_prefix *p = NULL;
    int64_t d = r->net->hp.n_embd;
    tt_status st = TT_OK;
    *out = NULL;
    TT_TRY_GOTO(tt__kvcache_create(r->ctx, r->net, 1, P, type, &c, err));
    TT_TRY_GOTO(tt__new(&p, 1, sizeof *p, "a prefix", err));
    for (int64_t at = 0; at < P;) {
        int64_t n = P - at < r->o.max_rows ? P - at : r->o.max_rows;
        memcpy(r->X, E + at * d, (size_t)(n * d) * sizeof(float));
        TT_TRY_GOTO(tt__runner_rows(r, c, n, r->X, err));
        at += n;
    }
    *p = (tt_prefix){.P = P, .type = type, .k = c->k, .v = c->v};
    c->k = c->v = NULL;
    *out = p;
    p = NULL;
done:
    tt__free(p);
    tt__kvcache_free(c);
    return st;
}

/* ---- rows of a PEFT folder ---- */

/* Where element c of a key stands in a row: net.h's order of rotary pairs, either way. */
static int64_t hf_place(const tt_net *net, int64_t c) {
    int64_t D = net->hp.head_dim, head = c / D * D, i = c % D;
    return net->rope_adjacent ? head + i % 2 * (D / 2) + i / 2 : c;
}

void tt__prefix_to_rows(const tt_net *net, const tt_prefix *f32, float *rows) {
    int64_t L = net->hp.n_layer, width = net->hp.n_head_kv * net->hp.head_dim;
    for (int64_t p = 0; p < f32->P; p++)
        for (int64_t l = 0; l < L; l++, rows += 2 * width) {
            const float *k = (const float *)f32->k + (l * f32->P + p) * width, *v = (const float *)f32->v + (l * f32->P + p) * width;
            for (int64_t c = 0; c < width; c++) rows[hf_place(net, c)] = k[c];
            memcpy(rows + width, v, (size_t)width * sizeof(float));
        }
}

static void put(void *to, tt_kvtype type, int64_t at, float value) {
    if (type == TT_KV_F32) ((float *)to)[at] = value;
    else ((uint16_t *)to)[at] = tt__f32_to_f16(value);
}

tt_status tt__prefix_from_rows(const tt_net *net, const float *rows, int64_t P, tt_kvtype type, tt_prefix **out, tt_err *err) {
    int64_t L = net->hp.n_layer, width = net->hp.n_head_kv * net->hp.head_dim;
    size_t bytes = (size_t)(L * P * width) * (type == TT_KV_F32 ? 4 : 2);
    tt_prefix *x = NULL;
    *out = NULL;
    TT_TRY(tt__new(&x, 1, sizeof *x, "a prefix", err));
    *x = (tt_prefix){.P = P, .type = type, .k = tt__alloc(bytes), .v = tt__alloc(bytes)};
    if (!x->k || !x->v) {
        tt__prefix_free(x);
        return tt__fail(err, TT_RESOURCE, "out of memory|a prefix|%zu bytes", 2 * bytes);
    }
    for (int64_t p = 0; p < P; p++)
        for (int64_t l = 0; l < L; l++, rows += 2 * width)
            for (int64_t c = 0; c < width; c++) {
                put(x->k, type, (l * P + p) * width + c, rows[hf_place(net, c)]);
                put(x->v, type, (l * P + p) * width + c, rows[width + c]);
            }
    *out = x;
    return TT_OK;
}
