/* The cache of keys and values: [n_layer, S, n_ctx, width] each, f32 or f16. Keys are stored rotated. */
#include "base/checked.h"
#include "models/net.h"

tt_status tt__kvcache_create(tt_ctx *ctx, const tt_net *net, int64_t S, int64_t n_ctx, tt_kvtype type, tt_kvcache **out, tt_err *err) {
    (void)ctx;
    tt_kvcache *c;
    int64_t width = net->hp.n_head_kv * net->hp.head_dim;
    uint64_t n = (uint64_t)net->hp.n_layer;
    size_t bytes;
    *out = NULL;
    TT_FAIL_IF(S < 1 || n_ctx < 1, err, TT_USAGE, "a cache needs sequences and positions||%lld x %lld", (long long)S, (long long)n_ctx);
    bool fits = tt__mul_u64(n, (uint64_t)S, &n) && tt__mul_u64(n, (uint64_t)n_ctx, &n) && tt__mul_u64(n, (uint64_t)width * (type == TT_KV_F32 ? 4 : 2), &n)
                && tt__to_size(n, &bytes);
    TT_FAIL_IF(!fits, err, TT_RESOURCE, "cache is too large||%lld x %lld positions", (long long)S, (long long)n_ctx);
    TT_TRY(tt__new(&c, 1, sizeof *c, "a cache", err));
    *c = (tt_kvcache){.S = S, .n_ctx = n_ctx, .type = type, .k = tt__alloc(bytes), .v = tt__alloc(bytes), .n_layer = net->hp.n_layer, .width = width};
    if (!c->k || !c->v) {
        tt__kvcache_free(c);
        return tt__fail(err, TT_RESOURCE, "out of memory|for keys and values|2 x %zu bytes", bytes);
    }
    *out = c;
    return TT_OK;
}

void tt__kvcache_free(tt_kvcache *c) {
    if (!c) return;
    tt__free(c->k);
    tt__free(c->v);
    tt__free(c);
}
