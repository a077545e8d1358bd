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
