/* Attention against a plain f64 version: many shapes, each level; gradients against finite differences of that version's loss; the
 * decoding form against the tiled one; threads. */
#include "kernels/attention.h"
#include "unit/kernels/guard.h"

typedef struct shape { int64_t S, T, H, Hkv, D, P, N; tt_kvtype p_type, past_type; } shape;

static const shape shapes[] = {
    {1, 1, 1, 1, 8, 0, 0, TT_KV_F32, TT_KV_F32},      {1, 1, 9, 3, 64, 0, 700, TT_KV_F32, TT_KV_F16},  {2, 1, 4, 2, 16, 5, 256, TT_KV_F16, TT_KV_F32},
    {1, 3, 6, 2, 20, 7, 13, TT_KV_F32, TT_KV_F16},    {1, 5, 3, 1, 8, 0, 0, TT_KV_F32, TT_KV_F32},      {2, 33, 6, 2, 16, 20, 0, TT_KV_F32, TT_KV_F32},
    {1, 70, 4, 4, 64, 0, 40, TT_KV_F32, TT_KV_F16},   {3, 40, 9, 3, 64, 20, 0, TT_KV_F32, TT_KV_F32},  {1, 150, 2, 1, 80, 3, 140, TT_KV_F16, TT_KV_F32},
    {1, 6, 12, 2, 24, 140, 5, TT_KV_F32, TT_KV_F32},  {1, 530, 2, 1, 32, 9, 0, TT_KV_F32, TT_KV_F32},
    {1, 1, 9, 3, 64, 0, 700, TT_KV_F32, TT_KV_Q8},    {2, 2, 4, 2, 32, 5, 129, TT_KV_F16, TT_KV_Q8},    {2, 70, 8, 2, 96, 3, 131, TT_KV_F32, TT_KV_Q8},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct data { tt_attn a; float *out, *lse; float *pk32, *pv32, *nk32, *nv32; int64_t ldpast; } data;

/* `rows` positions of `width` in an 8-bit cache, its rows one after the other; the f32 copy, ld apart, holds the rounded values. */
static void make_q8(size_t rows, size_t width, size_t ld, const void **stored, float *x) {
    const tt_kernels *k = level("scalar");
    const size_t row = (size_t)tt__kv_row_bytes(TT_KV_Q8, (int64_t)width);
    uint8_t *q = guard(rows * row);
    for (size_t i = 0; i < rows; i++) {
        int8_t *codes = (int8_t *)(q + i * row);
        k->kv8_pack(codes, (uint16_t *)(void *)(codes + width), x + i * ld, (int64_t)width);
        k->kv8_to_f32(x + i * ld, codes, (const uint16_t *)(const void *)(codes + width), (int64_t)width);
    }
    *stored = q;
}

/* A cache as f32 and, rounded, as f16: the f32 copy then holds the rounded values. */
static void make_cache(size_t n, tt_kvtype type, const void **stored, float **plain) {
    float *x = random_floats(n, 1);
    *plain = x;
    *stored = x;
    if (type != TT_KV_F16) return;
    uint16_t *h = guard(n * 2);
    for (size_t i = 0; i < n; i++) {
        h[i] = tt__f32_to_f16(x[i]);
        x[i] = tt__f16_to_f32(h[i]);
    }
    *stored = h;
}

static data make(const shape *s) {
    data d = {0};
    const size_t rows = (size_t)(s->S * s->T), kv = (size_t)(s->Hkv * s->D);
    d.a = (tt_attn){.S = s->S, .T = s->T, .H = s->H, .Hkv = s->Hkv, .D = s->D, .scale = 1.5f / sqrtf((float)s->D), .ldq = s->H * s->D + 3,
                    .ldkv = s->Hkv * s->D, .P = s->P, .p_type = s->p_type, .ldp = s->Hkv * s->D, .N = s->N, .pastk_type = s->past_type,
                    .pastv_type = s->past_type, .ldo = s->H * s->D};
    d.a.q = random_floats(rows * (size_t)d.a.ldq, 2);
    d.a.k = random_floats(rows * kv, 2);
    d.a.v = random_floats(rows * kv, 1);
    make_cache((size_t)s->P * kv, s->p_type, &d.a.pk, &d.pk32);
    make_cache((size_t)s->P * kv, s->p_type, &d.a.pv, &d.pv32);
    const int64_t ld = (int64_t)kv + 8;                /* rows of the past lie further apart than they are long */
    d.ldpast = ld;
    d.a.pastk_row = d.a.pastv_row = ld * (s->past_type == TT_KV_F32 ? 4 : 2);
    d.a.pastk_stride = d.a.pastv_stride = s->N * d.a.pastk_row;
    make_cache((size_t)(s->S * s->N * ld), s->past_type, &d.a.pastk, &d.nk32);
    make_cache((size_t)(s->S * s->N * ld), s->past_type, &d.a.pastv, &d.nv32);
    if (s->past_type == TT_KV_Q8) {
        d.a.pastk_row = d.a.pastv_row = tt__kv_row_bytes(TT_KV_Q8, (int64_t)kv);
        d.a.pastk_stride = d.a.pastv_stride = s->N * d.a.pastk_row;
        make_q8((size_t)(s->S * s->N), kv, (size_t)ld, &d.a.pastk, d.nk32);
        make_q8((size_t)(s->S * s->N), kv, (size_t)ld, &d.a.pastv, d.nv32);
    }
    d.a.out = d.out = guard(rows * (size_t)(s->H * s->D) * 4);
    d.a.lse = d.lse = guard(rows * (size_t)s->H * 4);
    fill_nan(d.out, rows * (size_t)(s->H * s->D));
    return d;
}

/* Key or value vector j of what row (s, t) sees. */
static const float *vector(const data *d, int value, int64_t s, int64_t kv, int64_t j) {
    const tt_attn *a = &d->a;
    if (j < a->P) return (value ? d->pv32 : d->pk32) + j * a->ldp + kv * a->D;
    j -= a->P;
    if (j < a->N) return (value ? d->nv32 : d->nk32) + (s * a->N + j) * d->ldpast + kv * a->D;
    return (value ? a->v : a->k) + (s * a->T + j - a->N) * a->ldkv + kv * a->D;
}

/* Probabilities of one row and head into p; returns log-sum-exp. */
static double probabilities(const data *d, int64_t s, int64_t t, int64_t h, double *p, int64_t *seen) {
    const tt_attn *a = &d->a;
    const int64_t kv = h / (a->H / a->Hkv);
    const float *q = a->q + (s * a->T + t) * a->ldq + h * a->D;
    double top = -1e300, sum = 0;
    *seen = a->P + a->N + t + 1;
    for (int64_t j = 0; j < *seen; j++) {
        const float *k = vector(d, 0, s, kv, j);
        p[j] = 0;
        for (int64_t i = 0; i < a->D; i++) p[j] += (double)q[i] * (double)k[i];
        p[j] *= (double)a->scale;
        top = p[j] > top ? p[j] : top;
    }
    for (int64_t j = 0; j < *seen; j++) sum += p[j] = exp(p[j] - top);
    for (int64_t j = 0; j < *seen; j++) p[j] /= sum;
    return top + log(sum);
}

static void check_forward(const data *d, double tol) {
    const tt_attn *a = &d->a;
    double *p = guard((size_t)(a->P + a->N + a->T) * 8);
    for (int64_t s = 0; s < a->S; s++)
        for (int64_t t = 0; t < a->T; t++)
            for (int64_t h = 0; h < a->H; h++) {
                int64_t seen;
                const double lse = probabilities(d, s, t, h, p, &seen);
                TT_CHECK_NEAR(a->lse[(s * a->T + t) * a->H + h], lse, 2 * tol);
                for (int64_t i = 0; i < a->D; i++) {
                    double want = 0;
                    for (int64_t j = 0; j < seen; j++) want += p[j] * (double)vector(d, 1, s, h / (a->H / a->Hkv), j)[i];
                    TT_CHECK_NEAR(a->out[(s * a->T + t) * a->ldo + h * a->D + i], want, tol);
                }
            }
}

static tt_ctx *context(int threads, const char *isa, const tt_attn *a) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(threads, isa);
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__attention_scratch(ctx, a->T, a->D, a->P, a->N), &err));
    return ctx;
}

TT_CASE(forward_equals_plain) {
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++)
        for (int i = 0; i < SHAPES; i++) {
            tt_test_note("%s, shape %d", *isa, i);
            tt__rng_seed(&rng, (uint64_t)i);
            const data d = make(&shapes[i]);
            tt__attention(context(2, *isa, &d.a), &d.a);
            check_forward(&d, 1e-5);
            release_all();
        }
}

/* Rounded factors: a score of size 3 is off by about 3 · 2^-8 / sqrt(D), a sum of values by 2^-9 of its terms at most. */
TT_CASE(fast_forward_is_near) {
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++)
        for (int i = 0; i < SHAPES; i++) {
            tt_test_note("%s, shape %d", *isa, i);
            tt__rng_seed(&rng, (uint64_t)i);
            data d = make(&shapes[i]);
            d.a.fast = true;
            tt__attention(context(2, *isa, &d.a), &d.a);
            check_forward(&d, 0.02);
            release_all();
        }
}

/* The new rows stored behind the past first, and read from there. */
TT_CASE(own_rows_may_lie_in_the_past) {
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++)
        for (int64_t T = 1; T <= 40; T += 13) {
            tt_test_note("%s, %d rows", *isa, (int)T);
            const shape s = {1, T, 4, 2, 32, 3, 130, TT_KV_F32, TT_KV_Q8}, longer = {1, T, 4, 2, 32, 3, 130 + T, TT_KV_F32, TT_KV_Q8};
            data d = make(&longer);
            d.a.N = s.N;
            d.a.own_in_past = true;
            for (int64_t t = 0; t < T; t++) {
                memcpy((float *)(uintptr_t)d.a.k + t * 64, d.nk32 + (s.N + t) * d.ldpast, 64 * 4);
                memcpy((float *)(uintptr_t)d.a.v + t * 64, d.nv32 + (s.N + t) * d.ldpast, 64 * 4);
            }
            tt__attention(context(2, *isa, &d.a), &d.a);
            check_forward(&d, 1e-5);
            release_all();
        }
}

TT_CASE(rows_of_8_bits) {
    const tt_kernels *ref = level("scalar");
    FOR_EACH_LEVEL(k)
        for (int64_t blocks = 1; blocks <= 4; blocks++)
            for (int64_t rows = 1; rows <= 9; rows++) {
                const int64_t n = 32 * blocks, ld = n + 2 * blocks + 6;
                tt_test_note("%s, %d rows of %d", k->isa, (int)rows, (int)n);
                float *x = random_floats((size_t)(rows * n), 3), *p = random_floats((size_t)(4 * n), 1), *w = random_floats((size_t)(4 * rows), 1);
                int8_t *q = guard((size_t)(rows * ld)), *q2 = guard((size_t)(rows * ld));
                if (rows == 3) x[n] = NAN;
                if (rows == 4) x[n + 5] = INFINITY;
                if (rows == 5) memset(x + n, 0, (size_t)n * 4);
                if (rows == 6) x[n] = 1e-9f;
                memset(q, 0, (size_t)(rows * ld));
                memset(q2, 0, (size_t)(rows * ld));
                for (int64_t r = 0; r < rows; r++) {
                    ref->kv8_pack(q + r * ld, (uint16_t *)(void *)(q + r * ld + n), x + r * n, n);
                    k->kv8_pack(q2 + r * ld, (uint16_t *)(void *)(q2 + r * ld + n), x + r * n, n);
                }
                TT_CHECK(!memcmp(q, q2, (size_t)(rows * ld)));
                float *plain = guard((size_t)n * 4);
                k->kv8_to_f32(plain, q, (const uint16_t *)(const void *)(q + n), n);
                for (int64_t i = 0; i < n; i++) TT_CHECK_NEAR(plain[i], x[i], 3.0 / 254 + 2e-3);
                for (int64_t T = 1; rows < 3 && T <= 4; T++) {
                    float *y = guard((size_t)(T * rows) * 4), *want = guard((size_t)(T * rows) * 4);
                    k->rowdot_kv8(q, ld, n, rows, n, p, n, T, y, rows);
                    ref->rowdot_kv8(q, ld, n, rows, n, p, n, T, want, rows);
                    for (int64_t i = 0; i < T * rows; i++) TT_CHECK_NEAR(y[i], want[i], 1e-4);
                    float *sum = random_floats((size_t)(T * n), 1), *sum2 = guard((size_t)(T * n) * 4);
                    memcpy(sum2, sum, (size_t)(T * n) * 4);
                    k->mix_kv8(q, ld, n, rows, n, w, rows, T, sum, n);
                    ref->mix_kv8(q, ld, n, rows, n, w, rows, T, sum2, n);
                    for (int64_t i = 0; i < T * n; i++) TT_CHECK_NEAR(sum[i], sum2[i], 1e-4);
                }
                release_all();
            }
}

/* Words against the f32 tile of the same level: each probability within a rounding to bf16, all else as there. */
TT_CASE(softmax_words) {
    FOR_EACH_LEVEL(k) {
        if (!k->bf16) continue;
        for (int keys = 1; keys <= 33; keys++) {
            const size_t n = (size_t)(keys * k->nr), lanes = (size_t)k->nr;
            float *s = random_floats(n, 30), *plain = guard(n * 4), *m = guard(lanes * 4), *l = guard(lanes * 4), *alpha = guard(lanes * 4);
            float *m2 = guard(lanes * 4), *l2 = guard(lanes * 4), *alpha2 = guard(lanes * 4);
            for (size_t i = 0; i < lanes; i++) {
                m[i] = m2[i] = i % 3 ? 2 * uniform() : -1e30f;
                l[i] = l2[i] = i % 3 ? 1.5f : 0.0f;
            }
            for (int i = 0; i < keys; i++) s[i * k->nr + 1] = -INFINITY;
            s[0] = -INFINITY;
            memcpy(plain, s, n * 4);
            k->softmax_tile(plain, keys, k->nr, 0.5f, m2, l2, alpha2);
            k->softmax_tile_bf16(s, keys, k->nr, 0.5f, m, l, alpha);
            for (size_t i = 0; i < lanes; i++) {
                tt_test_note("%s, %d keys, lane %zu", k->isa, keys, i);
                TT_CHECK_NEAR(m[i], m2[i], 1e-6 * (1 + fabs(m2[i])));
                TT_CHECK_NEAR(alpha[i], alpha2[i], 1e-6);
                TT_CHECK_NEAR(l[i], l2[i], 2e-5 * l2[i]);
                for (int j = 0; j < (keys + 1) / 2 * 2; j++) {
                    uint32_t word;
                    float p;
                    memcpy(&word, &s[(size_t)(j / 2) * lanes + i], 4);
                    word = j % 2 ? word & 0xffff0000u : word << 16;
                    memcpy(&p, &word, 4);
                    const double want = j < keys ? (double)plain[(size_t)j * lanes + i] : 0;
                    TT_CHECK_NEAR(p, want, 0x1.02p-8 * want + 1e-38);
                }
            }
            release_all();
        }
    }
}

/* Around the borders of pieces and tiles, each type of cache: one bit pattern for any number of threads, also when they are more than cores. */
TT_CASE(borders_and_threads) {
    static const int64_t past[] = {0, 1, 15, 16, 17, 127, 128, 129, 255, 256, 257, 384, 1023, 1025};
    static const int64_t rows[] = {1, 4, 5, 65};
    enum { COUNTS = 4 };
    static const int threads[COUNTS] = {1, 2, 3, 7};
    tt_ctx *ctxs[COUNTS];
    tt_err err = {0};
    for (int j = 0; j < COUNTS; j++) {
        ctxs[j] = tt_test_ctx(threads[j], NULL);
        tt__pool_at_once(ctxs[j]->pool, threads[j]);
    }
    for (size_t i = 0; i < sizeof past / sizeof *past; i++)
        for (size_t t = 0; t < sizeof rows / sizeof *rows; t++) {
            const shape s = {1, rows[t], 6, 2, 32, (int64_t)i % 3, past[i], TT_KV_F16, (tt_kvtype)(i % 3)};
            tt_test_note("%d behind %d", (int)rows[t], (int)past[i]);
            data d = make(&s);
            const size_t n = (size_t)(s.T * s.H * s.D) * 4;
            void *first = guard(n);
            d.a.fast = i % 2;
            for (int j = 0; j < COUNTS; j++) {
                TT_CHECK_OK(tt__scratch_reserve(ctxs[j], tt__attention_scratch(ctxs[j], s.T, s.D, s.P, s.N), &err));
                tt__attention(ctxs[j], &d.a);
                if (j == 0) memcpy(first, d.out, n);
                else TT_CHECK(!memcmp(first, d.out, n));
            }
            release_all();
        }
}

TT_CASE(lse_may_be_absent) {
    data d = make(&shapes[5]);
    d.a.lse = NULL;
    tt__attention(context(1, NULL, &d.a), &d.a);
    TT_CHECK(isfinite(d.out[0]));
    release_all();
}

/* Plain gradients in f64, from the textbook formulas. */
typedef struct grads { double *q, *k, *v, *pk, *pv; } grads;

static double *slot(const data *d, const grads *g, int value, int64_t s, int64_t kv, int64_t j) {
    const tt_attn *a = &d->a;
    const int64_t ld = a->Hkv * a->D;
    if (j < a->P) return (value ? g->pv : g->pk) + j * ld + kv * a->D;
    j -= a->P;
    if (j < a->N) return NULL;
    return (value ? g->v : g->k) + (s * a->T + j - a->N) * ld + kv * a->D;
}

static void plain_gradients(const data *d, const float *dout, const grads *g) {
    const tt_attn *a = &d->a;
    double *p = guard((size_t)(a->P + a->N + a->T) * 8), *dp = guard((size_t)(a->P + a->N + a->T) * 8);
    for (int64_t s = 0; s < a->S; s++)
        for (int64_t t = 0; t < a->T; t++)
            for (int64_t h = 0; h < a->H; h++) {
                const int64_t kv = h / (a->H / a->Hkv), row = s * a->T + t;
                const float *q = a->q + row * a->ldq + h * a->D, *o = dout + row * a->H * a->D + h * a->D;
                int64_t seen;
                double mean = 0;
                probabilities(d, s, t, h, p, &seen);
                for (int64_t j = 0; j < seen; j++) {
                    dp[j] = 0;
                    for (int64_t i = 0; i < a->D; i++) dp[j] += (double)o[i] * (double)vector(d, 1, s, kv, j)[i];
                    mean += p[j] * dp[j];
                }
                for (int64_t j = 0; j < seen; j++) {
                    const double ds = p[j] * (dp[j] - mean) * (double)a->scale;
                    double *dk = slot(d, g, 0, s, kv, j), *dv = slot(d, g, 1, s, kv, j);
                    for (int64_t i = 0; i < a->D; i++) {
                        g->q[row * a->H * a->D + h * a->D + i] += ds * (double)vector(d, 0, s, kv, j)[i];
                        if (dk) dk[i] += ds * (double)q[i];
                        if (dv) dv[i] += p[j] * (double)o[i];
                    }
                }
            }
}

static void check_near(const char *what, const float *got, const double *want, size_t n, double tol) {
    for (size_t i = 0; i < n; i++) {
        tt_test_note("%s[%zu]", what, i);
        TT_CHECK_NEAR(got[i], want[i], tol);
    }
}

static double *zeros(size_t n) { return guard(n * 8); }    /* fresh pages are zero */

static void check_backward(const char *isa, const shape *s, int threads) {
    const data d = make(s);
    tt_ctx *ctx = context(threads, isa, &d.a);
    const size_t nq = (size_t)(s->S * s->T * s->H * s->D), nk = (size_t)(s->S * s->T * s->Hkv * s->D), np = (size_t)(s->P * s->Hkv * s->D);
    float *dout = random_floats(nq, 1), *dq = guard(nq * 4), *dk = guard(nk * 4), *dv = guard(nk * 4), *dpk = random_floats(np, 1), *dpv = random_floats(np, 1);
    const grads g = {zeros(nq), zeros(nk), zeros(nk), zeros(np), zeros(np)};
    for (size_t i = 0; i < np; i++) {
        g.pk[i] = (double)dpk[i];
        g.pv[i] = (double)dpv[i];
    }
    fill_nan(dq, nq);
    fill_nan(dk, nk);
    fill_nan(dv, nk);
    tt__attention(ctx, &d.a);
    tt__attention_bwd(ctx, &d.a, dout, dq, dk, dv, dpk, dpv);
    plain_gradients(&d, dout, &g);
    check_near("dq", dq, g.q, nq, 2e-5);
    check_near("dk", dk, g.k, nk, 5e-5);
    check_near("dv", dv, g.v, nk, 5e-5);
    check_near("dpk", dpk, g.pk, np, 1e-4);
    check_near("dpv", dpv, g.pv, np, 1e-4);
    release_all();
}

TT_CASE(backward_equals_plain) {
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++)
        for (int i = 0; i < SHAPES; i++) {
            tt__rng_seed(&rng, 100 + (uint64_t)i);
            check_backward(*isa, &shapes[i], 1 + i % 3);
        }
}

TT_CASE(prefix_gradient_may_be_absent) {
    tt__rng_seed(&rng, 7);
    const data d = make(&shapes[5]);
    const shape *s = &shapes[5];
    tt_ctx *ctx = context(2, NULL, &d.a);
    const size_t nq = (size_t)(s->S * s->T * s->H * s->D), nk = (size_t)(s->S * s->T * s->Hkv * s->D);
    float *dout = random_floats(nq, 1), *dq = guard(nq * 4), *dk = guard(nk * 4), *dv = guard(nk * 4);
    tt__attention(ctx, &d.a);
    tt__attention_bwd(ctx, &d.a, dout, dq, dk, dv, NULL, NULL);
    for (size_t i = 0; i < nq; i++) TT_CHECK(isfinite(dq[i]));
    release_all();
}

TT_CASE(threads_do_not_change_a_bit) {
    for (int i = 0; i < SHAPES; i++) {
        const shape *s = &shapes[i];
        tt__rng_seed(&rng, 200 + (uint64_t)i);
        data d = make(s);
        const size_t nq = (size_t)(s->S * s->T * s->H * s->D), nk = (size_t)(s->S * s->T * s->Hkv * s->D), np = (size_t)(s->P * s->Hkv * s->D);
        float *dout = random_floats(nq, 1), *r[2][6];
        for (int pass = 0; pass < 2; pass++) {
            float **x = r[pass];
            tt_ctx *ctx = context(pass ? 5 : 1, NULL, &d.a);
            for (int l = 0; l < 6; l++) x[l] = guard((l < 2 ? nq : l < 4 ? nk : np) * 4);
            d.a.out = x[0];
            tt__attention(ctx, &d.a);
            tt__attention_bwd(ctx, &d.a, dout, x[1], x[2], x[3], x[4], x[5]);
        }
        for (int l = 0; l < 6; l++) TT_CHECK(!memcmp(r[0][l], r[1][l], (l < 2 ? nq : l < 4 ? nk : np) * 4));
        release_all();
    }
}

/* A row decoded alone (pieces) and the same row inside a longer batch (tiles) agree. */
TT_CASE(decoding_equals_batch) {
    tt__rng_seed(&rng, 9);
    const shape s = {1, 37, 6, 2, 64, 11, 290, TT_KV_F32, TT_KV_F32};
    data d = make(&s);
    tt__attention(context(2, NULL, &d.a), &d.a);
    tt_attn one = d.a;
    const int64_t ld = s.Hkv * s.D, past = s.N + s.T - 1, t = s.T - 1;
    float *k = guard((size_t)(past * ld) * 4), *v = guard((size_t)(past * ld) * 4), *out = guard((size_t)(s.H * s.D) * 4), *lse = guard((size_t)s.H * 4);
    for (int64_t j = 0; j < past; j++) {
        memcpy(k + j * ld, vector(&d, 0, 0, 0, s.P + j), (size_t)ld * 4);
        memcpy(v + j * ld, vector(&d, 1, 0, 0, s.P + j), (size_t)ld * 4);
    }
    one.T = 1;
    one.N = past;
    one.q = d.a.q + t * d.a.ldq;
    one.k = d.a.k + t * d.a.ldkv;
    one.v = d.a.v + t * d.a.ldkv;
    one.pastk = k;
    one.pastv = v;
    one.pastk_row = one.pastv_row = 4 * ld;
    one.out = out;
    one.lse = lse;
    tt__attention(context(2, NULL, &one), &one);
    for (int64_t i = 0; i < s.H * s.D; i++) TT_CHECK_NEAR(out[i], d.a.out[t * d.a.ldo + i], 5e-6);
    for (int64_t h = 0; h < s.H; h++) TT_CHECK_NEAR(lse[h], d.a.lse[t * s.H + h], 5e-6);
    release_all();
}
