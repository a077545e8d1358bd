/* The decoder on a tiny random net: the ways of running it agree with each other, the gradient agrees with finite differences through the
 * whole net, and stored nets come back the same. (test_smollm.c compares with PyTorch on the real model.) */
#include "formats/safetensors.h"
#include "models/runner.h"
#include "models/store.h"
#include "tiny.h"
#include <stdlib.h>

enum { N = 24 };
static const int32_t IDS[3 * N] = {5, 17, 90, 3, 3, 41, 8, 77, 60, 2, 95, 0, 11, 12, 13, 50, 51, 7, 88, 19, 20, 34, 66, 1,
                                   9, 9, 9, 70, 71, 3, 94, 22, 40, 41, 42, 5, 6, 80, 81, 33, 2, 1, 0, 55, 56, 57, 18, 4,
                                   30, 31, 62, 63, 64, 65, 10, 85, 25, 26, 27, 28, 29, 74, 75, 76, 1, 2, 48, 49, 91, 92, 93, 16};

static double largest_difference(const float *a, const float *b, int64_t n) {
    double d = 0;
    for (int64_t i = 0; i < n; i++) if (!(fabs((double)a[i] - (double)b[i]) <= d)) d = fabs((double)a[i] - (double)b[i]);
    return d;
}

static void noise(uint64_t seed, float *x, int64_t n, double scale) {
    tt__rng rng;
    tt__rng_seed(&rng, seed);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * tt__rng_normal(&rng));
}

/* Hidden rows of S sequences of N tokens, fed `step` at a time through a cache. */
static void cached(tt_runner *r, const tt_net *net, int64_t S, int64_t step, tt_kvtype type, const tt_prefix *prefix, const int32_t *ids, float *H) {
    tt_kvcache *c;
    tt_err err = {0};
    int32_t part[3 * N];
    static float out[3 * N * TINY_D];
    TT_CHECK_OK(tt__kvcache_create(r->ctx, net, S, N, type, &c, &err));
    c->prefix = prefix;
    for (int64_t t = 0; t < N; t += step) {
        int64_t n = N - t < step ? N - t : step;
        for (int64_t s = 0; s < S; s++) memcpy(part + s * n, ids + s * N + t, (size_t)n * sizeof *ids);
        TT_CHECK_OK(tt__run_cached(r, c, part, n, false, out, &err));
        for (int64_t s = 0; s < S; s++) memcpy(H + (s * N + t) * TINY_D, out + s * n * TINY_D, (size_t)(n * TINY_D) * sizeof *H);
    }
    TT_CHECK_EQ(c->n, N);
    TT_CHECK_FAILS(TT_FAIL, tt__run_cached(r, c, ids, 1, true, out, &err));        /* full, and unchanged */
    TT_CHECK_EQ(c->n, N);
    tt__kvcache_free(c);
}

/* An 8-bit cache: what it loses against f16 is small, and does not depend on how the prompt was cut (rounded activations are off, so that
 * only the cache differs); heads of 16 are refused. */
TT_CASE(cache_of_8_bits) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tt_err err = {0};
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 3, .wide_heads = true, .f32 = true}));
    static float exact[N * TINY_D], q8[N * TINY_D], parts[N * TINY_D];
    tt_runner *r = tiny_runner(ctx, t.net, 32, false, false, TT_KEEP_BOUNDARY);
    cached(r, t.net, 1, N, TT_KV_F32, NULL, IDS, exact);
    cached(r, t.net, 1, N, TT_KV_Q8, NULL, IDS, q8);
    const double lost = largest_difference(exact, q8, N * TINY_D);
    TT_CHECK(lost > 1e-6 && lost < 0.1);                          /* hidden rows are of size 1 */
    for (int64_t step = 1; step <= 7; step += 3) {
        cached(r, t.net, 1, step, TT_KV_Q8, NULL, IDS, parts);
        TT_CHECK_NEAR(largest_difference(q8, parts, N * TINY_D), 0, 0.03);   /* a code may fall to the other side */
    }
    tt_kvcache *c = NULL;
    TT_CHECK_OK(tt__kvcache_create_typed(ctx, t.net, 2, 10, TT_KV_Q8, TT_KV_F16, &c, &err));
    TT_CHECK_EQ(tt__kvcache_bytes(c, 10), (uint64_t)(TINY_L * 2 * 10 * (34 + 64)));
    tt__kvcache_free(c);
    tt__runner_free(r);
    tiny_close(&t);
    t = tiny_open(ctx, tiny_file("b.gguf", &(tiny_options){.seed = 3}));
    TT_CHECK_FAILS(TT_USAGE, tt__kvcache_create_typed(ctx, t.net, 1, 10, TT_KV_F16, TT_KV_Q8, &c, &err));
    TT_CHECK(!c);
    tiny_close(&t);
}

TT_CASE(prefill_equals_decode) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 1}));
    static float whole[N * TINY_D], parts[N * TINY_D];
    for (int fast = 0; fast < 2; fast++) {
        tt_runner *r = tiny_runner(ctx, t.net, 32, fast, false, TT_KEEP_BOUNDARY), *small = tiny_runner(ctx, t.net, 5, fast, false, TT_KEEP_BOUNDARY);
        tt_kvtype type = fast ? TT_KV_F16 : TT_KV_F32;
        cached(r, t.net, 1, N, type, NULL, IDS, whole);
        for (int64_t step = 1; step <= 7; step += 3) {
            tt_test_note("fast %d, %d at a time", fast, (int)step);
            cached(r, t.net, 1, step, type, NULL, IDS, parts);
            TT_CHECK_NEAR(largest_difference(whole, parts, N * TINY_D), 0, fast ? 0.2 : 2e-5);    /* hidden rows are of size 1; fast ones differ by
                                                                              roundings to 8 bits and, of many rows, to bf16 */
        }
        cached(small, t.net, 1, N, type, NULL, IDS, parts);        /* more tokens than rows */
        TT_CHECK_NEAR(largest_difference(whole, parts, N * TINY_D), 0, fast ? 0.2 : 2e-5);
        tt__runner_free(r);
        tt__runner_free(small);
    }
    tiny_close(&t);
}

TT_CASE(batch_equals_each_alone) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 2}));
    tt_runner *r = tiny_runner(ctx, t.net, 3 * N, false, false, TT_KEEP_BOUNDARY), *two = tiny_runner(ctx, t.net, 2 * N, false, false, TT_KEEP_BOUNDARY);
    tt_err err = {0};
    static float all[3 * N * TINY_D], hidden[3 * N * TINY_D], one[N * TINY_D], last[3 * TINY_D];
    cached(r, t.net, 3, 4, TT_KV_F32, NULL, IDS, all);
    TT_CHECK_OK(tt__run_hidden(r, 3, N, IDS, hidden, &err));
    TT_CHECK_NEAR(largest_difference(all, hidden, 3 * N * TINY_D), 0, 2e-5);
    TT_CHECK_OK(tt__run_hidden(two, 3, N, IDS, hidden, &err));             /* in two parts */
    TT_CHECK_NEAR(largest_difference(all, hidden, 3 * N * TINY_D), 0, 2e-5);
    for (int s = 0; s < 3; s++) {
        cached(r, t.net, 1, N, TT_KV_F32, NULL, IDS + s * N, one);
        TT_CHECK_NEAR(largest_difference(all + s * N * TINY_D, one, N * TINY_D), 0, 2e-5);
    }
    tt_kvcache *c;
    TT_CHECK_OK(tt__kvcache_create(ctx, t.net, 3, N, TT_KV_F32, &c, &err));
    TT_CHECK_OK(tt__run_cached(two, c, IDS, N, true, last, &err));
    for (int s = 0; s < 3; s++) TT_CHECK_NEAR(largest_difference(last + s * TINY_D, all + (s * N + N - 1) * TINY_D, TINY_D), 0, 2e-5);
    tt__kvcache_free(c);
    tt__runner_free(r);
    tt__runner_free(two);
    tiny_close(&t);
}

TT_CASE(cached_prefix_equals_prefix_rows) {
    enum { P = 6 };
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 3}));
    tt_runner *r = tiny_runner(ctx, t.net, P + 3 * N, false, false, TT_KEEP_BOUNDARY), *small = tiny_runner(ctx, t.net, 4, false, false, TT_KEEP_BOUNDARY);
    tt_err err = {0};
    static float X[(P + 3 * N) * TINY_D], rows[3 * N * TINY_D], out[3 * N * TINY_D];
    noise(4, X, P * TINY_D, 1);
    tt_prefix *p, *q;
    TT_CHECK_OK(tt__prefix_compute(r, X, P, TT_KV_F32, &p, &err));
    TT_CHECK_OK(tt__prefix_compute(small, X, P, TT_KV_F32, &q, &err));
    TT_CHECK_NEAR(largest_difference(p->k, q->k, TINY_L * P * TINY_HKV * TINY_HD), 0, 2e-5);
    TT_CHECK_NEAR(largest_difference(p->v, q->v, TINY_L * P * TINY_HKV * TINY_HD), 0, 2e-5);
    TT_CHECK_OK(tt__run_embed(r, IDS, 3 * N, X + P * TINY_D, &err));
    for (int l = 0; l < TINY_L; l++) TT_CHECK_OK(tt__run_block(r, l, P, 3, N, X, NULL, NULL, -1, &err));
    tt__runner_norm(r, X + P * TINY_D, TINY_D, 3 * N, rows);
    for (int64_t step = 1; step <= N; step += N - 1) {
        cached(r, t.net, 3, step, TT_KV_F32, p, IDS, out);
        TT_CHECK_NEAR(largest_difference(rows, out, 3 * N * TINY_D), 0, 3e-5);
    }
    tt__prefix_free(p);
    tt__prefix_free(q);
    TT_CHECK_OK(tt__prefix_compute(r, X, P, TT_KV_F16, &p, &err));
    TT_CHECK_EQ(p->type, TT_KV_F16);
    tt__prefix_free(p);
    tt__runner_free(r);
    tt__runner_free(small);
    tiny_close(&t);
}

/* ------------------------------------------------------------------ loss and gradient ---- */

enum { LP = 3, LS = 2, LT = 9, LROWS = LP + LS * LT };

typedef struct batch { float X[LROWS * TINY_D], H[LROWS * TINY_D]; int32_t target[LROWS]; tt_loss spec; } batch;

/* Row r of a sequence predicts the next token; the last prefix row, and the last row of each sequence, have no target. */
static void make_batch(batch *b, tt_runner *r, tt_runner *teacher, const tt_net *teacher_net, bool kl) {
    tt_err err = {0};
    static float H[LS * LT * TINY_D];
    noise(8, b->X, LP * TINY_D, 0.7);
    TT_CHECK_OK(tt__run_embed(r, IDS, LS * LT, b->X + LP * TINY_D, &err));
    int n = 0;
    if (kl) TT_CHECK_OK(tt__run_hidden(teacher, LS, LT, IDS, H, &err));
    for (int i = 0; i < LROWS; i++) b->target[i] = -1;
    for (int s = 0; s < LS; s++)
        for (int t = 0; t < LT - 1; t++) {
            if (t == 4) continue;                                /* a gap */
            b->target[LP + s * LT + t] = IDS[s * LT + t + 1];
            if (kl) memcpy(b->H + n++ * TINY_D, H + (s * LT + t) * TINY_D, TINY_D * sizeof *H);
        }
    b->spec = (tt_loss){.kind = kl ? TT_LOSS_KL : TT_LOSS_CE, .target = b->target};
    if (kl) {
        b->spec.teacher_H = b->H;
        b->spec.teacher_head = teacher_net->weights[teacher_net->output].op;
    }
}

static double loss_at(tt_runner *r, batch *b, const float *X) {
    double loss;
    tt_err err = {0};
    TT_CHECK_OK(tt__run_loss(r, LP, LS, LT, X, &b->spec, &loss, NULL, NULL, &err));
    return loss;
}

/* d loss along u, by central difference: the f32 noise of a mean loss is some 1e-7, so h may be small enough for a random net's curvature. */
static double slope(tt_runner *r, batch *b, const float *u, double h) {
    static float X[LROWS * TINY_D];
    double l[2];
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < LROWS * TINY_D; i++) X[i] = (float)((double)b->X[i] + (side ? -h : h) * (double)u[i]);
        l[side] = loss_at(r, b, X);
    }
    return (l[0] - l[1]) / (2 * h);
}

static void check_gradient(bool kl, bool untied) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 5, .untied = untied})), o = tiny_open(ctx, tiny_file("b.gguf", &(tiny_options){.seed = 6}));
    tt_runner *r = tiny_runner(ctx, t.net, LROWS, false, true, TT_KEEP_ALL), *teacher = tiny_runner(ctx, o.net, LROWS, false, false, TT_KEEP_BOUNDARY);
    static batch b;
    static float d[LROWS * TINY_D], d2[LROWS * TINY_D], u[LROWS * TINY_D], row_loss[LROWS];
    tt_err err = {0};
    double loss, loss2, norm = 0;
    make_batch(&b, r, teacher, o.net, kl);
    TT_CHECK_OK(tt__run_loss(r, LP, LS, LT, b.X, &b.spec, &loss, row_loss, d, &err));
    TT_CHECK_NEAR(loss, loss_at(r, &b, b.X), 1e-6);
    double sum = 0;
    int n = 0;
    for (int i = 0; i < LROWS; i++) {
        n += b.target[i] >= 0;
        sum += (double)row_loss[i];
        TT_CHECK(b.target[i] >= 0 || row_loss[i] == 0);
    }
    TT_CHECK_NEAR(loss, sum / n, 1e-6);
    for (int k = 0; k < 10; k++) {                     /* k even: prefix rows alone; odd: all rows; last: along the gradient itself */
        tt_test_note("kl %d, direction %d", kl, k);
        memset(u, 0, sizeof u);
        noise(100 + (uint64_t)k, u, (k % 2 ? LROWS : LP) * TINY_D, 1);
        if (k == 9) {
            for (int i = 0; i < LROWS * TINY_D; i++) norm += (double)d[i] * (double)d[i];
            for (int i = 0; i < LROWS * TINY_D; i++) u[i] = (float)((double)d[i] / sqrt(norm));
        }
        double want = slope(r, &b, u, k == 9 ? 4e-3 : 5e-4), got = 0, size = 0;
        for (int i = 0; i < LROWS * TINY_D; i++) got += (double)u[i] * (double)d[i], size += pow((double)u[i] * (double)d[i], 2);
        TT_CHECK_NEAR(got, want, 0.01 * sqrt(size) + 1e-3);
    }
    TT_CHECK(norm > 1e-6);
    for (int keep = TT_KEEP_BOUNDARY; keep <= TT_KEEP_ALL; keep++) {      /* the policy changes no bit; the size of chunks at most the last ones */
        tt_runner *k = tiny_runner(ctx, t.net, LROWS + 7, false, true, (tt_keep)keep);
        TT_CHECK_OK(tt__run_loss(k, LP, LS, LT, b.X, &b.spec, &loss2, NULL, d2, &err));
        TT_CHECK(loss == loss2 && !memcmp(d, d2, sizeof d));
        b.spec.chunk_rows = 3;
        TT_CHECK_OK(tt__run_loss(k, LP, LS, LT, b.X, &b.spec, &loss2, NULL, d2, &err));
        TT_CHECK_NEAR(loss, loss2, 1e-6);
        TT_CHECK_NEAR(largest_difference(d, d2, LROWS * TINY_D), 0, 1e-5);        /* of gradients up to 1 */
        b.spec.chunk_rows = 0;
        tt__runner_free(k);
    }
    tt__runner_free(r);
    tt__runner_free(teacher);
    tiny_close(&t);
    tiny_close(&o);
}

/* Steps in bf16: factors within 2^-9 of their f32, so a gradient within some of them of the f32 one (measured: 3 %), in all as in its prefix rows. What does not
 * ask for gradients in bf16 stays as it was. */
TT_CASE(gradient_in_bf16_is_near) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 5})), o = tiny_open(ctx, tiny_file("b.gguf", &(tiny_options){.seed = 6}));
    tt_runner *r = tiny_runner(ctx, t.net, LROWS, false, true, TT_KEEP_MOST), *teacher = tiny_runner(ctx, o.net, LROWS, false, false, TT_KEEP_BOUNDARY);
    static batch b;
    static float d[LROWS * TINY_D], d2[LROWS * TINY_D];
    tt_err err = {0};
    double loss, loss2;
    for (int kl = 0; kl < 2; kl++) {
        make_batch(&b, r, teacher, o.net, kl);
        TT_CHECK_OK(tt__run_loss(r, LP, LS, LT, b.X, &b.spec, &loss, NULL, d, &err));
        tt__runner_set_bf16(r, true);
        TT_CHECK_OK(tt__run_loss(r, LP, LS, LT, b.X, &b.spec, &loss2, NULL, d2, &err));
        tt__runner_set_bf16(r, false);
        TT_CHECK_NEAR(loss2, loss, 0.01 * (1 + loss));
        TT_CHECK(!ctx->k->bf16 || memcmp(d, d2, sizeof d));
        for (int rows = LP; rows <= LROWS; rows += LROWS - LP) {
            double off = 0, size = 0;
            for (int i = 0; i < rows * TINY_D; i++) off += pow((double)d2[i] - (double)d[i], 2), size += pow((double)d[i], 2);
            tt_test_note("kl %d, %d rows: relative error %.4f", kl, rows, sqrt(off / size));
            TT_CHECK(off <= 0.06 * 0.06 * size);
        }
        TT_CHECK_OK(tt__run_loss(r, LP, LS, LT, b.X, &b.spec, &loss2, NULL, d2, &err));
        TT_CHECK(loss == loss2 && !memcmp(d, d2, sizeof d));
    }
    tt__runner_free(r);
    tt__runner_free(teacher);
    tiny_close(&t);
    tiny_close(&o);
}

TT_CASE(gradient_ce) { check_gradient(false, false); }
TT_CASE(gradient_kl) { check_gradient(true, false); }
TT_CASE(gradient_untied) { check_gradient(false, true); }

TT_CASE(kl_of_a_net_with_itself_is_zero) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 5}));
    tt_runner *r = tiny_runner(ctx, t.net, LROWS, false, true, TT_KEEP_ATTENTION);
    static batch b;
    static float d[LS * LT * TINY_D];
    tt_err err = {0};
    double loss;
    make_batch(&b, r, r, t.net, true);
    b.spec.target += LP;                               /* no prefix: the same rows as the teacher's */
    TT_CHECK_OK(tt__run_loss(r, 0, LS, LT, b.X + LP * TINY_D, &b.spec, &loss, NULL, d, &err));
    TT_CHECK_NEAR(loss, 0, 1e-9);
    for (int i = 0; i < LS * LT * TINY_D; i++) TT_CHECK_NEAR(d[i], 0, 1e-7);
    tt__runner_free(r);
    tiny_close(&t);
}

/* The mistake of the paper's code, made on purpose: k more positions without a target must leave the mean as it is. */
TT_CASE(positions_without_target_do_not_count) {
    enum { MORE = 5, T2 = LT + MORE };
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 5}));
    tt_runner *r = tiny_runner(ctx, t.net, LP + LS * T2, false, true, TT_KEEP_ALL);
    static float X[(LP + LS * T2) * TINY_D], d[(LP + LS * T2) * TINY_D], d2[LROWS * TINY_D];
    static batch b;
    int32_t target[LP + LS * T2], ids[LS * T2];
    tt_err err = {0};
    double loss, loss2;
    make_batch(&b, r, NULL, NULL, false);
    TT_CHECK_OK(tt__run_loss(r, LP, LS, LT, b.X, &b.spec, &loss, NULL, d2, &err));
    for (int i = 0; i < LP + LS * T2; i++) target[i] = -1;
    for (int s = 0; s < LS; s++)
        for (int i = 0; i < T2; i++) {
            ids[s * T2 + i] = i < LT ? IDS[s * LT + i] : 7;
            if (i < LT) target[LP + s * T2 + i] = b.target[LP + s * LT + i];
        }
    memcpy(X, b.X, LP * TINY_D * sizeof *X);
    TT_CHECK_OK(tt__run_embed(r, ids, LS * T2, X + LP * TINY_D, &err));
    b.spec.target = target;
    TT_CHECK_OK(tt__run_loss(r, LP, LS, T2, X, &b.spec, &loss2, NULL, d, &err));
    TT_CHECK_NEAR(loss, loss2, 1e-6);
    TT_CHECK_NEAR(largest_difference(d, d2, LP * TINY_D), 0, 1e-6);
    for (int i = 0; i < LP + LS * T2; i++) target[i] = -1;
    TT_CHECK_FAILS(TT_USAGE, tt__run_loss(r, LP, LS, T2, X, &b.spec, &loss2, NULL, d, &err));
    target[5] = TINY_V;
    TT_CHECK_FAILS(TT_USAGE, tt__run_loss(r, LP, LS, T2, X, &b.spec, &loss2, NULL, d, &err));
    tt__runner_free(r);
    tiny_close(&t);
}

TT_CASE(threads_change_no_bit) {
    const char *path = tiny_file("a.gguf", &(tiny_options){.seed = 5}), *other = tiny_file("b.gguf", &(tiny_options){.seed = 6});
    static float first[LROWS * TINY_D], d[LROWS * TINY_D], logits[LT * TINY_V], logits1[LT * TINY_V], fast[N * TINY_D], fast1[N * TINY_D];
    tt_err err = {0};
    double loss1 = 0;
    for (int threads = 1; threads <= 3; threads++) {
        tt_ctx *ctx = tt_test_ctx(threads, NULL);
        tiny t = tiny_open(ctx, path), o = tiny_open(ctx, other);
        tt_runner *r = tiny_runner(ctx, t.net, LROWS, false, true, TT_KEEP_ATTENTION), *teacher = tiny_runner(ctx, o.net, LROWS, false, false, TT_KEEP_BOUNDARY);
        tt_runner *f = tiny_runner(ctx, t.net, LROWS, true, false, TT_KEEP_BOUNDARY);
        static batch b;
        double loss;
        make_batch(&b, r, teacher, o.net, true);
        TT_CHECK_OK(tt__run_loss(r, LP, LS, LT, b.X, &b.spec, &loss, NULL, d, &err));
        TT_CHECK_OK(tt__run_logits(r, b.H, LT, logits, &err));
        cached(f, t.net, 1, 3, TT_KV_F16, NULL, IDS, fast);
        if (threads == 1) {
            loss1 = loss;
            memcpy(first, d, sizeof d);
            memcpy(logits1, logits, sizeof logits);
            memcpy(fast1, fast, sizeof fast);
        }
        tt_test_note("%d threads", threads);
        TT_CHECK(loss == loss1 && !memcmp(first, d, sizeof d) && !memcmp(logits1, logits, sizeof logits) && !memcmp(fast1, fast, sizeof fast));
        tt__runner_free(r);
        tt__runner_free(teacher);
        tt__runner_free(f);
        tiny_close(&t);
        tiny_close(&o);
    }
}

/* ------------------------------------------------------------------ containers ---- */

static void logits_of(tt_ctx *ctx, const tt_net *net, float *out) {
    tt_runner *r = tiny_runner(ctx, net, N, false, false, TT_KEEP_BOUNDARY);
    static float H[N * TINY_D];
    tt_err err = {0};
    TT_CHECK_OK(tt__run_hidden(r, 1, N, IDS, H, &err));
    TT_CHECK_OK(tt__run_logits(r, H, N, out, &err));
    tt__runner_free(r);
}

static float logits_a[N * TINY_V], logits_b[N * TINY_V];

TT_CASE(store_and_load_standard) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    for (int untied = 0; untied < 2; untied++) {
        tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 9, .untied = untied}));
        tt_err err = {0};
        uint64_t bytes = 0;
        static const char *const extra[] = {"general.name", "tiny", NULL};
        logits_of(ctx, t.net, logits_a);
        const char *path = tt_test_path("b.gguf");
        TT_CHECK_OK(tt__store_gguf(t.net, NULL, t.g, NULL, NULL, extra, path, &bytes, &err));
        tiny u = tiny_open(ctx, path);
        logits_of(ctx, u.net, logits_b);
        TT_CHECK(!memcmp(logits_a, logits_b, sizeof logits_a));
        TT_CHECK(tt__net_bytes(t.net) == tt__net_bytes(u.net) && bytes > tt__net_bytes(u.net));
        const char *name;
        size_t n;
        TT_CHECK_OK(tt__gguf_str(u.g, "general.name", true, &name, &n, &err));
        TT_CHECK(n == 4 && !memcmp(name, "tiny", 4));
        TT_CHECK_OK(tt__gguf_str(u.g, "general.architecture", true, &name, &n, &err));
        TT_CHECK(n == 5 && !memcmp(name, "llama", 5));
        tiny_close(&u);
        tiny_close(&t);
    }
}

/* An own operator in place of one matrix: the file names an architecture of ours, and comes back the same. */
static void check_own(int bits, bool sparse, bool nothing_kept) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 9}));
    tt_err err = {0};
    const tt_linop *ops[1 + 9 * TINY_L + 1] = {NULL};
    tt_linop *own;
    static uint8_t codes[TINY_D * TINY_FF], keep[TINY_D * TINY_FF];
    static float scales[TINY_D * TINY_FF / 32];
    size_t w = t.net->layer_first[1] + 8, q = t.net->layer_first[1] + 1;
    tt__rng rng;
    tt__rng_seed(&rng, 1);
    for (int i = 0; i < TINY_D * TINY_FF; i++) codes[i] = (uint8_t)tt__rng_below(&rng, 1u << bits), keep[i] = !nothing_kept && tt__rng_below(&rng, 2);
    for (int i = 0; i < TINY_D * TINY_FF / 32; i++) scales[i] = 0.02f + 0.01f * (float)(i % 5);
    if (sparse) TT_CHECK_OK(tt__linop_sparseq(ctx, bits, 32, keep, codes, scales, NULL, NULL, TINY_D, TINY_FF, &own, &err));
    else TT_CHECK_OK(tt__linop_group(ctx, bits, 32, codes, scales, NULL, NULL, TINY_D, TINY_FF, &own, &err));
    ops[w] = own;
    const char *path = tt_test_path("own.gguf"), *name;
    size_t n;
    TT_CHECK_OK(tt__store_gguf(t.net, ops, t.g, NULL, NULL, NULL, path, NULL, &err));
    tiny u = tiny_open(ctx, path);
    TT_CHECK_OK(tt__gguf_str(u.g, "general.architecture", true, &name, &n, &err));
    TT_CHECK(n == 7 && !memcmp(name, "trimtab", 7));
    TT_CHECK_EQ(u.net->weights[w].op->dtype, TT_DTYPE_COUNT);
    TT_CHECK(u.net->weights[q].op->dtype == t.net->weights[q].op->dtype && u.net->rope_adjacent == t.net->rope_adjacent);
    tt_runner *r = tiny_runner(ctx, t.net, N, false, false, TT_KEEP_BOUNDARY);
    static float H[N * TINY_D];
    tt__runner_set_op(r, w, own);
    TT_CHECK_OK(tt__run_hidden(r, 1, N, IDS, H, &err));
    TT_CHECK_OK(tt__run_logits(r, H, N, logits_a, &err));
    logits_of(ctx, u.net, logits_b);
    TT_CHECK(!memcmp(logits_a, logits_b, sizeof logits_a));
    logits_of(ctx, t.net, logits_b);
    TT_CHECK(memcmp(logits_a, logits_b, sizeof logits_a));
    tt__runner_set_op(r, w, NULL);
    TT_CHECK_OK(tt__run_hidden(r, 1, N, IDS, H, &err));
    TT_CHECK_OK(tt__run_logits(r, H, N, logits_a, &err));
    TT_CHECK(!memcmp(logits_a, logits_b, sizeof logits_a));
    tt__runner_free(r);
    tiny_close(&u);
    tt__linop_free(own);
    tiny_close(&t);
}

TT_CASE(store_and_load_group) { check_own(3, false, false); }
TT_CASE(store_and_load_sparse) { check_own(4, true, false); }
TT_CASE(store_and_load_an_empty_matrix) { check_own(4, true, true); }          /* no codes: GGUF has no empty tensors */

/* A Hugging Face folder of the same weights: rows of q and k un-permuted, everything f32. */
static tt_net *make_hf(tt_ctx *ctx, const tt_net *net, tt_st **st) {
    static tt_st_entry e[1 + 9 * TINY_L + 1];
    tt_err err = {0};
    const char *dir = tt_test_path("hf");
    char path[4096];
    TT_CHECK_OK(tt__mkdirs(dir, &err));
    for (size_t i = 0; i < net->n_weights; i++) {
        const tt_weight *w = &net->weights[i];
        float *x = tt__alloc((size_t)(w->rows * w->cols) * sizeof *x), *row = tt__alloc((size_t)w->cols * sizeof *x);
        for (int64_t r = 0; r < w->rows; r++) {
            int64_t D = w->permute ? w->rows / w->permute_heads : 1, half = D / 2, to = r;
            if (w->permute) to = r / D * D + r % 2 * half + r % D / 2;
            if (w->vector) memcpy(row, w->vec, (size_t)w->cols * sizeof *x);
            else tt__linop_rows(w->op, r, r + 1, row);
            memcpy(x + to * w->cols, row, (size_t)w->cols * sizeof *x);
        }
        tt__free(row);
        e[i] = (tt_st_entry){.name = w->hf, .type = TT_ST_F32, .n_dims = w->vector ? 1 : 2, .data = x};
        e[i].shape[0] = (uint64_t)(w->vector ? w->cols : w->rows);
        e[i].shape[1] = (uint64_t)w->cols;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    TT_CHECK_OK(tt__st_save(path, e, net->n_weights, NULL, &err));
    for (size_t i = 0; i < net->n_weights; i++) tt__free((void *)(uintptr_t)e[i].data);
    json_t *config = json_object();
    TT_CHECK_OK(net->arch->to_hf(&net->hp, config, &err));
    char *text = json_dumps(config, 0);
    snprintf(path, sizeof path, "%s/config.json", dir);
    TT_CHECK_OK(tt__write_file(path, text, strlen(text), &err));
    free(text);
    json_decref(config);
    tt_net *out;
    TT_CHECK_OK(tt__st_open(dir, st, &err));
    TT_CHECK_OK(tt__net_from_hf(ctx, dir, *st, false, &out, &err));
    return out;
}

TT_CASE(both_row_orders_agree) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 9}));
    tt_err err = {0};
    tt_st *st;
    tt_net *hf = make_hf(ctx, t.net, &st);
    TT_CHECK(t.net->rope_adjacent && !hf->rope_adjacent);
    logits_of(ctx, t.net, logits_a);
    logits_of(ctx, hf, logits_b);
    TT_CHECK_NEAR(largest_difference(logits_a, logits_b, N * TINY_V), 0, 5e-5);
    const char *path = tt_test_path("back.gguf");
    TT_CHECK_OK(tt__store_gguf(hf, NULL, NULL, NULL, NULL, NULL, path, NULL, &err));
    tiny u = tiny_open(ctx, path);
    TT_CHECK(u.net->rope_adjacent);
    logits_of(ctx, u.net, logits_b);
    TT_CHECK_NEAR(largest_difference(logits_a, logits_b, N * TINY_V), 0, 5e-5);
    tiny_close(&u);

    /* beside an own operator the file keeps the net's row order, and says so */
    const tt_linop *ops[1 + 9 * TINY_L + 1] = {NULL};
    tt_linop *own;
    size_t w = hf->layer_first[0] + 1;
    static float values[TINY_D * TINY_D];
    static uint8_t all[TINY_D * TINY_D];
    memset(all, 1, sizeof all);
    tt__linop_rows(hf->weights[w].op, 0, TINY_D, values);
    TT_CHECK_OK(tt__linop_sparseq(ctx, 16, 32, all, NULL, NULL, NULL, values, TINY_D, TINY_D, &own, &err));
    ops[w] = own;
    TT_CHECK_OK(tt__store_gguf(hf, ops, NULL, NULL, NULL, NULL, path, NULL, &err));
    u = tiny_open(ctx, path);
    TT_CHECK(!u.net->rope_adjacent);
    logits_of(ctx, u.net, logits_b);
    TT_CHECK_NEAR(largest_difference(logits_a, logits_b, N * TINY_V), 0, 2e-2);       /* one matrix rounded to f16 */
    tiny_close(&u);
    tt__linop_free(own);
    tt__net_free(hf);
    tt__st_close(st);
    tiny_close(&t);
}

/* Llama 3's frequency scaling is a formula in config.json and a tensor of divisors in GGUF. */
TT_CASE(frequency_scaling_survives_both_containers) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 9}));
    tt_err err = {0};
    tt_st *st;
    logits_of(ctx, t.net, logits_a);
    t.net->hp.rope_factor = 8;
    t.net->hp.rope_low = 1;
    t.net->hp.rope_high = 4;
    t.net->hp.rope_orig = 64;                          /* wavelengths of the tiny net: 6 … 2650, so all three cases occur */
    tt_net *hf = make_hf(ctx, t.net, &st);
    TT_CHECK(hf->rope_divisor && hf->rope_divisor[0] == 1 && hf->rope_divisor[TINY_HD / 2 - 1] == 8);
    bool between = false;
    for (int i = 0; i < TINY_HD / 2; i++) between |= hf->rope_divisor[i] > 1 && hf->rope_divisor[i] < 8;
    TT_CHECK(between);
    logits_of(ctx, hf, logits_b);
    TT_CHECK(largest_difference(logits_a, logits_b, N * TINY_V) > 1e-2);
    const char *path = tt_test_path("scaled.gguf");
    TT_CHECK_OK(tt__store_gguf(hf, NULL, NULL, NULL, NULL, NULL, path, NULL, &err));
    tiny u = tiny_open(ctx, path);
    TT_CHECK(u.net->rope_divisor && tt__gguf_find(u.g, "rope_freqs.weight"));
    logits_of(ctx, u.net, logits_a);
    TT_CHECK_NEAR(largest_difference(logits_a, logits_b, N * TINY_V), 0, 5e-5);
    tiny_close(&u);
    tt__net_free(hf);
    tt__st_close(st);
    tiny_close(&t);
}

TT_CASE(expanded_weights_agree) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 9}));
    tt_net *e;
    tt_err err = {0};
    TT_CHECK_OK(tt__net_from_gguf(ctx, t.g, true, &e, &err));
    for (size_t i = 0; i < e->n_weights; i++) TT_CHECK(e->weights[i].vector || e->weights[i].op->dtype == TT_F32);
    logits_of(ctx, t.net, logits_a);
    logits_of(ctx, e, logits_b);
    TT_CHECK_NEAR(largest_difference(logits_a, logits_b, N * TINY_V), 0, 5e-5);
    tt__net_free(e);
    tiny_close(&t);
}

/* ------------------------------------------------------------------ refusals ---- */

static void yarn(tt_gguf_writer *w) { tt__gguf_set_str(w, "llama.rope.scaling.type", "yarn", NULL); }
static void no_heads(tt_gguf_writer *w) { tt__gguf_set_u32(w, "llama.attention.head_count", 0, NULL); }
static void crowded_heads(tt_gguf_writer *w) {
    tt_err err = {0};
    TT_CHECK_OK(tt__gguf_set_u32(w, "llama.attention.head_count", 65, &err));
    TT_CHECK_OK(tt__gguf_set_u32(w, "llama.attention.head_count_kv", 1, &err));
}
static void odd_heads(tt_gguf_writer *w) { tt__gguf_set_u32(w, "llama.attention.head_count_kv", 3, NULL); }
static void many_layers(tt_gguf_writer *w) { tt__gguf_set_u32(w, "llama.block_count", 1025, NULL); }
static void more_layers(tt_gguf_writer *w) { tt__gguf_set_u32(w, "llama.block_count", TINY_L + 1, NULL); }
static void text_layers(tt_gguf_writer *w) { tt__gguf_set_str(w, "llama.block_count", "3", NULL); }
static void wide(tt_gguf_writer *w) { tt__gguf_set_u32(w, "llama.embedding_length", 2 * TINY_D, NULL); }
static void experts(tt_gguf_writer *w) { tt__gguf_set_u32(w, "llama.expert_count", 8, NULL); }
static void other_arch(tt_gguf_writer *w) { tt__gguf_set_str(w, "general.architecture", "qwen2", NULL); }
static void bad_base(tt_gguf_writer *w) { tt__gguf_set_f32(w, "llama.rope.freq_base", -1, NULL); }
static void one_ff(tt_gguf_writer *w) { tt__gguf_set_u32(w, "llama.feed_forward_length", 1, NULL); }
static void no_schema(tt_gguf_writer *w) { tt__gguf_set_str(w, "general.architecture", "trimtab", NULL); }

TT_CASE(bad_nets_are_refused_by_name) {
    static const struct { tiny_options o; const char *names; } bad[] = {
        {{.more_keys = yarn}, "yarn"},
        {{.more_keys = no_heads}, "head_count"},
        {{.more_keys = odd_heads}, "heads"},
        {{.more_keys = crowded_heads}, "share"},
        {{.more_keys = many_layers}, "block_count"},
        {{.more_keys = more_layers}, "blk.3.attn_norm.weight"},
        {{.more_keys = text_layers}, "block_count"},
        {{.more_keys = wide}, "shape"},
        {{.more_keys = experts}, "experts"},
        {{.more_keys = other_arch}, "qwen2"},
        {{.more_keys = bad_base}, "rotary base"},
        {{.more_keys = one_ff}, "shape"},
        {{.more_keys = no_schema}, "trimtab.schema"},
        {{.without = "blk.1.ffn_up.weight"}, "blk.1.ffn_up.weight"},
        {{.without = "token_embd.weight"}, "token_embd.weight"},
        {{.extra = "blk.0.attn_q.bias"}, "biases are not supported"},
        {{.extra = "blk.0.ffn_gate_inp.weight"}, "blk.0.ffn_gate_inp.weight"},
        {{.extra = "rope_freqs.weight"}, "rope_freqs.weight"},
    };
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_err err = {0};
        tt_gguf *g;
        tt_net *net;
        char line[1200];
        tt_test_note("case %s", bad[i].names);
        TT_CHECK_OK(tt__gguf_open(tiny_file("bad.gguf", &bad[i].o), &g, &err));
        TT_CHECK_FAILS(TT_BADFILE, tt__net_from_gguf(ctx, g, false, &net, &err));
        TT_CHECK(!net && strstr(tt_err_line(&err, line, sizeof line), bad[i].names));
        tt__gguf_close(g);
    }
}

TT_CASE(bad_calls_are_refused) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 9}));
    tt_runner *r = tiny_runner(ctx, t.net, 8, false, false, TT_KEEP_BOUNDARY);
    tt_err err = {0};
    float X[8 * TINY_D];
    double loss;
    const int32_t high[1] = {TINY_V}, low[1] = {-1};
    TT_CHECK_FAILS(TT_USAGE, tt__run_embed(r, high, 1, X, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__run_embed(r, low, 1, X, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__run_hidden(r, 1, 9, IDS, X, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__run_block(r, 0, 4, 1, 5, X, NULL, NULL, -1, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__run_loss(r, 0, 1, 8, X, &(tt_loss){.kind = TT_LOSS_KL, .target = IDS}, &loss, NULL, NULL, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__run_loss(r, 0, 1, 8, X, &(tt_loss){.kind = TT_LOSS_CE, .target = IDS}, &loss, NULL, X, &err));
    tt_ctx_cancel(ctx, TT_INTERRUPTED);
    TT_CHECK_FAILS(TT_INTERRUPTED, tt__run_hidden(r, 1, 8, IDS, X, &err));
    tt_ctx_cancel(ctx, TT_OK);
    tt__runner_free(r);
    tiny_close(&t);
}

typedef struct opening { tt_ctx *ctx; const tt_gguf *g; } opening;
static tt_status open_and_run(void *arg, tt_err *err) {
    opening *o = arg;
    tt_net *net = NULL;
    tt_runner *r = NULL;
    tt_kvcache *c = NULL;
    tt_prefix *p = NULL;
    tt_status st;
    static float H[N * TINY_D], d[N * TINY_D], X[N * TINY_D];
    double loss;
    tt_runner_options ro = {.max_rows = N, .backward = true};
    TT_TRY_GOTO(tt__net_from_gguf(o->ctx, o->g, false, &net, err));
    TT_TRY_GOTO(tt__runner_create(o->ctx, net, &ro, &r, err));
    TT_TRY_GOTO(tt__kvcache_create(o->ctx, net, 1, N, TT_KV_F16, &c, err));
    TT_TRY_GOTO(tt__run_cached(r, c, IDS, N, false, H, err));
    noise(1, X, N * TINY_D, 1);
    TT_TRY_GOTO(tt__prefix_compute(r, X, 4, TT_KV_F16, &p, err));
    TT_TRY_GOTO(tt__run_loss(r, 0, 1, N, X, &(tt_loss){.kind = TT_LOSS_CE, .target = IDS}, &loss, NULL, d, err));
done:
    tt__prefix_free(p);
    tt__kvcache_free(c);
    tt__runner_free(r);
    tt__net_free(net);
    return st;
}

TT_CASE(out_of_memory) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tiny t = tiny_open(ctx, tiny_file("a.gguf", &(tiny_options){.seed = 9}));
    tt_err err = {0};
    opening o = {ctx, t.g};
    TT_CHECK_OK(open_and_run(&o, &err));               /* the workers' scratch stays with the context */
    TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, open_and_run, &o) > 30);
    tiny_close(&t);
}
