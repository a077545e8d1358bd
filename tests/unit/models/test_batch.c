/* A net in its run format: prompts in one piece go by integer products of many rows (kernels/batch.h), tokens one at a time by those of few,
 * exact runs by f32. All three round the same weights' products, so they agree within what rounding activations to 8 bits does; and the
 * first does not depend on threads. */
#include "models/run.h"
#include "models/runner.h"
#include "tiny.h"

enum { N = 60 };

static void make_ids(int32_t ids[N]) {
    tt__rng rng;
    tt__rng_seed(&rng, 3);
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(tt__rng_u64(&rng) % TINY_V);
}

/* Logits of N tokens, `step` at a time. */
static void logits_of(tt_ctx *ctx, const tt_net *net, const int32_t *ids, bool fast, int64_t step, float *z) {
    static float H[N * TINY_D];
    tt_runner *r = tiny_runner(ctx, net, N, fast, false, TT_KEEP_BOUNDARY);
    tt_kvcache *c;
    tt_err err = {0};
    TT_CHECK_OK(tt__kvcache_create(ctx, net, 1, N, fast ? TT_KV_F16 : TT_KV_F32, &c, &err));
    for (int64_t t = 0; t < N; t += step) {
        const int64_t n = N - t < step ? N - t : step;
        TT_CHECK_OK(tt__run_cached(r, c, ids + t, n, false, H, &err));
        TT_CHECK_OK(tt__run_logits(r, H, n, z + t * TINY_V, &err));
    }
    tt__kvcache_free(c);
    tt__runner_free(r);
}

static double relative_error(const float *z, const float *right) {
    double d = 0, all = 0;
    for (int i = 0; i < N * TINY_V; i++) {
        d += ((double)z[i] - (double)right[i]) * ((double)z[i] - (double)right[i]);
        all += (double)right[i] * (double)right[i];
    }
    return sqrt(d / all);
}

/* Mean loss of the next token. */
static double loss(const float *z, const int32_t *ids) {
    double sum = 0;
    for (int t = 0; t + 1 < N; t++) {
        double e = 0;
        for (int i = 0; i < TINY_V; i++) e += exp((double)z[t * TINY_V + i]);
        sum += log(e) - (double)z[t * TINY_V + ids[t + 1]];
    }
    return sum / (N - 1);
}

TT_CASE(paths_agree) {
    static float exact[N * TINY_V], whole[N * TINY_V], parts[N * TINY_V], again[N * TINY_V];
    int32_t ids[N];
    tt_err err = {0};
    make_ids(ids);
    for (const char *const *level = tt__kernels_levels(); *level; level++) {
        tt_ctx *ctx = tt_test_ctx(2, *level), *other = tt_test_ctx(1, *level);
        const char *path = tiny_file("run.gguf", &(tiny_options){.seed = 2});
        tiny t = tiny_open(ctx, path), u = tiny_open(other, path);
        TT_CHECK(tt__net_run_bytes(t.net) > 0);
        TT_CHECK_OK(tt__net_to_run(ctx, t.net, NULL, &err));
        TT_CHECK_OK(tt__net_to_run(other, u.net, NULL, &err));
        logits_of(ctx, t.net, ids, false, N, exact);
        logits_of(ctx, t.net, ids, true, N, whole);
        logits_of(other, u.net, ids, true, N, again);
        TT_CHECK(!memcmp(whole, again, sizeof whole));
        tt_test_note("%s: relative error %.4f, loss %.4f, exact %.4f", *level, relative_error(whole, exact), loss(whole, ids), loss(exact, ids));
        TT_CHECK(relative_error(whole, exact) > 0);                               /* it did take the other path */
        TT_CHECK(relative_error(whole, exact) < 0.05);                            /* 1 % of rounding at each of some fifteen products of 64 terms */
        TT_CHECK_NEAR(loss(whole, ids), loss(exact, ids), 0.005 * loss(exact, ids));
        for (int64_t step = 1; step <= 21; step += 10) {                          /* 1, 11 and 21 tokens at a time */
            logits_of(ctx, t.net, ids, true, step, parts);
            tt_test_note("%s, %d at a time: relative error %.4f", *level, (int)step, relative_error(parts, whole));
            TT_CHECK(relative_error(parts, whole) < 0.05);
            TT_CHECK_NEAR(loss(parts, ids), loss(exact, ids), 0.005 * loss(exact, ids));
        }
        tiny_close(&t);
        tiny_close(&u);
    }
}
