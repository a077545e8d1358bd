/* The cache of keys and values: [n_layer, S, n_ctx] rows of all kv heads, each f32, f16 or 8-bit. Keys are stored rotated. */
#include "base/checked.h"
#include "models/net.h"

static bool sized(const tt_net *net, int64_t S, int64_t n_ctx, tt_kvtype type, size_t *bytes) {
    uint64_t n = (uint64_t)net->hp.n_layer;
    return tt__mul_u64(n, (uint64_t)S, &n) && tt__mul_u64(n, (uint64_t)n_ctx, &n) &&
           tt__mul_u64(n, (uint64_t)tt__kv_row_bytes(type, net->hp.n_head_kv * net->hp.head_dim), &n) && tt__to_size(n, bytes);
}

tt_status tt__kvcache_create_typed(tt_ctx *ctx, const tt_net *net, int64_t S, int64_t n_ctx, tt_kvtype k_type, tt_kvtype v_type, tt_kvcache **out,
                                   tt_err *err) {
    (void)ctx;
    tt_kvcache *c;
    size_t k_bytes, v_bytes;
    *out = NULL;
    TT_FAIL_IF(S < 1 || n_ctx < 1, err, TT_USAGE, "a cache needs sequences and positions||%lld x %lld", (long long)S, (long long)n_ctx);
    TT_FAIL_IF((k_type == TT_KV_Q8 || v_type == TT_KV_Q8) && net->hp.head_dim % 32, err, TT_USAGE,
               "an 8-bit cache does not fit this model|head size|%lld|a multiple of 32|use f16", (long long)net->hp.head_dim);
    TT_FAIL_IF(!sized(net, S, n_ctx, k_type, &k_bytes) || !sized(net, S, n_ctx, v_type, &v_bytes), err, TT_RESOURCE,
               "cache is too large||%lld x %lld positions", (long long)S, (long long)n_ctx);
    TT_TRY(tt__new(&c, 1, sizeof *c, "a cache", err));
    *c = (tt_kvcache){.S = S, .n_ctx = n_ctx, .k_type = k_type, .v_type = v_type, .k = tt__alloc(k_bytes), .v = tt__alloc(v_bytes),
                      .n_layer = net->hp.n_layer, .width = net->hp.n_head_kv * net->hp.head_dim};
    if (!c->k || !c->v) {
        tt__kvcache_free(c);
        return tt__fail(err, TT_RESOURCE, "out of memory|for keys and values|%zu + %zu bytes", k_bytes, v_bytes);
    }
    *out = c;
    return TT_OK;
}

tt_status tt__kvcache_create(tt_ctx *ctx, const tt_net *net, int64_t S, int64_t n_ctx, tt_kvtype type, tt_kvcache **out, tt_err *err) {
    return tt__kvcache_create_typed(ctx, net, S, n_ctx, type, type, out, err);
}

uint64_t tt__kvcache_bytes(const tt_kvcache *c, int64_t positions) {
    return (uint64_t)(c->n_layer * c->S * positions * (tt__kv_row_bytes(c->k_type, c->width) + tt__kv_row_bytes(c->v_type, c->width)));
}

void tt__kvcache_free(tt_kvcache *c) {
    if (!c) return;
    tt__free(c->k);
    tt__free(c->v);
    tt__free(c);
}
