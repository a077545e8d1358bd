/* The bf16 tile: packers bit-equal to rounding by hand, products against sums in f64 of the rounded factors (which f32 sums meet as they
 * do in test_gemm.c), and one thread and several giving the same bits. Levels without the tile are asked for nothing but f32. */
#include "kernels/gemm.h"
#include "unit/kernels/guard.h"

static float rounded(float x) { return tt__bf16_to_f32(tt__f32_to_bf16(x)); }

static float half_of(float word, int high) {
    uint32_t u;
    memcpy(&u, &word, 4);
    return tt__bf16_to_f32((uint16_t)(high ? u >> 16 : u & 0xffffu));
}

/* Element (lane, p) of a packed panel; the half beside an odd last one is zero. */
static void check_panel(const float *dst, const float *src, int64_t by_lane, int64_t by_k, int lanes, int64_t k, int r) {
    for (int64_t p = 0; p < k + k % 2; p++)
        for (int i = 0; i < r; i++) TT_CHECK(half_of(dst[p / 2 * r + i], p % 2) == (i < lanes && p < k ? rounded(src[i * by_lane + p * by_k]) : 0.0f));
}

TT_CASE(packers) {
    tt__rng_seed(&rng, 1);
    FOR_EACH_LEVEL(k)
        for (int64_t kk = 1; k->bf16 && kk < 70; kk += kk < 5 ? 1 : 3)
            for (int r = 1; r <= 66; r += r < 34 ? 1 : 8)
                for (int some = 0; some < 3; some++) {
                    const int lanes = some == 0 ? r : some == 1 ? (r + 1) / 2 : 1;
                    const int64_t ld = kk + 3, ldc = lanes + 2, words = (kk + 1) / 2 * r;
                    const float *rows = random_floats((size_t)((lanes - 1) * ld + kk), 1), *cols = random_floats((size_t)((kk - 1) * ldc + lanes), 1);
                    float *dst = guard((size_t)words * 4);
                    tt_test_note("%s, %lld x %d of %d", k->isa, (long long)kk, lanes, r);
                    fill_nan(dst, (size_t)words);
                    k->pack_rows_bf16(dst, rows, ld, lanes, kk, r);
                    check_panel(dst, rows, ld, 1, lanes, kk, r);
                    fill_nan(dst, (size_t)words);
                    k->pack_cols_bf16(dst, cols, ldc, kk, lanes, r);
                    check_panel(dst, cols, 1, ldc, lanes, kk, r);
                    release_all();
                }
}

TT_CASE(rounding) {
    static const uint32_t bits[] = {0x3f808000, 0x3f818000, 0x3f808001, 0xbf817fff, 0x7f7fffff, 0x7f800000, 0xff800000, 0, 0x80000000, 0x477fe000};
    enum { COUNT = sizeof bits / sizeof *bits };
    FOR_EACH_LEVEL(k) {
        if (!k->bf16) continue;
        float x[COUNT], word[(COUNT + 1) / 2];
        memcpy(x, bits, sizeof x);
        k->pack_rows_bf16(word, x, COUNT, 1, COUNT, 1);
        for (int i = 0; i < COUNT; i++) TT_CHECK(half_of(word[i / 2], i % 2) == rounded(x[i]));
        x[0] = NAN;
        k->pack_rows_bf16(word, x, COUNT, 1, COUNT, 1);
        TT_CHECK(isnan(half_of(word[0], 0)) && half_of(word[0], 1) == rounded(x[1]));
    }
}

typedef struct dense { const float *w; int64_t rows, cols; } dense;

static void decode_dense(const void *self, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const dense *d = self;
    for (int64_t r = r0; r < r1; r++) memcpy(out + (r - r0) * ld, d->w + r * d->cols + c0, (size_t)(c1 - c0) * sizeof *out);
}

/* Y[m, n] = Σ_k a[m, k] b[n, k]; bn, bk: strides of B. */
static void check(const char *what, const float *C, int64_t M, int64_t N, int64_t K, const float *A, const float *B, int64_t bn, int64_t bk) {
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            double s = 0, size = 0;
            for (int64_t k = 0; k < K; k++) {
                const double p = (double)rounded(A[m * K + k]) * (double)rounded(B[n * bn + k * bk]);
                s += p;
                size += fabs(p);
            }
            tt_test_note("%s %lldx%lldx%lld at %lld, %lld", what, (long long)M, (long long)N, (long long)K, (long long)m, (long long)n);
            TT_CHECK_NEAR(C[m * N + n], s, size * (double)(K + 8) * 0x1p-25 + 1e-30);
        }
}

static void one_shape(tt_ctx *ctx, int64_t M, int64_t N, int64_t K, int64_t unit) {
    const float *A = random_floats((size_t)(M * K), 1), *B = random_floats((size_t)(N * K), 1);
    float *C = guard((size_t)(M * N) * 4);
    const dense w = {B, N, K}, wt = {B, K, N};
    const tt_wsrc src = {N, K, unit, decode_dense, &w, true, NULL}, srct = {K, N, unit, decode_dense, &wt, true, NULL};
    fill_nan(C, (size_t)(M * N));
    tt__gemm_w(ctx, &src, A, K, M, C, N, false);
    check("gemm_w", C, M, N, K, A, B, K, 1);
    fill_nan(C, (size_t)(M * N));
    tt__gemm_wt(ctx, &srct, A, K, M, C, N, false);
    check("gemm_wt", C, M, N, K, A, B, 1, N);
    release_all();
}

static tt_ctx *context(int threads, const char *isa) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(threads, isa);
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__gemm_scratch(ctx, 0, 0), &err));
    return ctx;
}

/* More than three rows: fewer go row by row and are not rounded. */
TT_CASE(products) {
    static const int64_t sizes[] = {4, 5, 11, 12, 13, 16, 31, 32, 33, 65, 100};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    tt__rng_seed(&rng, 2);
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt_ctx *ctx = context(2, *isa);
        if (!ctx->k->bf16) continue;
        for (int i = 0; i < COUNT; i++)
            for (int l = 0; l < COUNT; l++) one_shape(ctx, sizes[i], sizes[l], sizes[(i + 3 * l) % COUNT] - 3, 1);
        one_shape(ctx, 131, 200, 576, 32);
        one_shape(ctx, 33, 512, 512, 256);
        one_shape(ctx, 6, 300, 4201, 1);
        one_shape(ctx, 40, 160, 2101, 1);
    }
}

TT_CASE(threads_do_not_change_a_bit) {
    const int64_t M = 150, N = 192, K = 701;
    tt__rng_seed(&rng, 3);
    float *A = random_floats((size_t)(M * K), 1), *B = random_floats((size_t)(N * K), 1);
    float *one = guard((size_t)(M * N) * 4), *many = guard((size_t)(M * N) * 4);
    const dense w = {B, N, K};
    const tt_wsrc src = {N, K, 1, decode_dense, &w, true, NULL};
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt__gemm_w(context(1, *isa), &src, A, K, M, one, N, false);
        for (int threads = 2; threads < 6; threads++) {
            tt__gemm_w(context(threads, *isa), &src, A, K, M, many, N, false);
            TT_CHECK(!memcmp(one, many, (size_t)(M * N) * 4));
        }
    }
    release_all();
}
