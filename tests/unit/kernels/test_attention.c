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
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct data { tt_attn a; float *out, *lse; float *pk32, *pv32, *nk32, *nv32; } data;

/* A cache as f32 and, rounded, as f16: the f32 copy then holds the rounded values. */
static void make_cache(size_t n, tt_kvtype type, const void **stored, float **plain) {
    float *x = random_floats(n, 1);
    *plain = x;
    *stored = x;
    if (type == TT_KV_F32) return;
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
                    .ldkv = s->Hkv * s->D, .P = s->P, .p_type = s->p_type, .ldp = s->Hkv * s->D, .N = s->N, .past_type = s->past_type,
                    .ldpast = s->Hkv * s->D + 8, .past_stride = s->N * (s->Hkv * s->D + 8), .ldo = s->H * s->D};
    d.a.q = random_floats(rows * (size_t)d.a.ldq, 2);
    d.a.k = random_floats(rows * kv, 2);
    d.a.v = random_floats(rows * kv, 1);
    make_cache((size_t)s->P * kv, s->p_type, &d.a.pk, &d.pk32);
    make_cache((size_t)s->P * kv, s->p_type, &d.a.pv, &d.pv32);
    make_cache((size_t)(s->S * d.a.past_stride), s->past_type, &d.a.pastk, &d.nk32);
    make_cache((size_t)(s->S * d.a.past_stride), s->past_type, &d.a.pastv, &d.nv32);
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
    if (j < a->N) return (value ? d->nv32 : d->nk32) + s * a->past_stride + j * a->ldpast + kv * a->D;
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

static void check_forward(const data *d) {
    const tt_attn *a = &d->a;
    double *p = guard((size_t)(a->P + a->N + a->T) * 8);
    for (int64_t s = 0; s < a->S; s++)
        for (int64_t t = 0; t < a->T; t++)
            for (int64_t h = 0; h < a->H; h++) {
                int64_t seen;
                const double lse = probabilities(d, s, t, h, p, &seen);
                TT_CHECK_NEAR(a->lse[(s * a->T + t) * a->H + h], lse, 2e-5);
                for (int64_t i = 0; i < a->D; i++) {
                    double want = 0;
                    for (int64_t j = 0; j < seen; j++) want += p[j] * (double)vector(d, 1, s, h / (a->H / a->Hkv), j)[i];
                    TT_CHECK_NEAR(a->out[(s * a->T + t) * a->ldo + h * a->D + i], want, 1e-5);
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
            check_forward(&d);
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
    one.ldpast = ld;
    one.out = out;
    one.lse = lse;
    tt__attention(context(2, NULL, &one), &one);
    for (int64_t i = 0; i < s.H * s.D; i++) TT_CHECK_NEAR(out[i], d.a.out[t * d.a.ldo + i], 5e-6);
    for (int64_t h = 0; h < s.H; h++) TT_CHECK_NEAR(lse[h], d.a.lse[t * s.H + h], 5e-6);
    release_all();
}
