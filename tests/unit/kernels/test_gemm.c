/* Products over panels against sums in f64: shapes around every tile border, each level, one thread and three giving the same bits. */
#include "kernels/gemm.h"
#include "unit/kernels/guard.h"

static void naive(int64_t M, int64_t N, int64_t K, const float *A, int64_t am, int64_t ak, const float *B, int64_t bn, int64_t bk, double *C, double *size) {
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            double s = 0, z = 0;
            for (int64_t k = 0; k < K; k++) {
                const double p = (double)A[m * am + k * ak] * (double)B[n * bn + k * bk];
                s += p;
                z += fabs(p);
            }
            C[m * N + n] = s;
            size[m * N + n] = z;
        }
}

static tt_ctx *context(int threads, const char *isa) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(threads, isa);
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__gemm_scratch(ctx, 0, 0), &err));
    return ctx;
}

typedef struct dense { const float *w; int64_t rows, cols, unit; } dense;

static void decode_dense(const void *self, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const dense *d = self;
    if (r0 < 0 || r1 > d->rows || c0 % d->unit || (c1 % d->unit && c1 != d->cols) || c1 > d->cols) out = NULL;   /* a broken promise crashes */
    for (int64_t r = r0; r < r1; r++) memcpy(out + (r - r0) * ld, d->w + r * d->cols + c0, (size_t)(c1 - c0) * sizeof *out);
}

/* Sums of K products of f32 in any order: |error| ≤ K 2^-24 Σ|p| in the worst case; half of that is never reached. */
static void check(const char *what, const float *C, int64_t ldc, int64_t M, int64_t N, int64_t K, const double *want, const double *size) {
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            tt_test_note("%s %lldx%lldx%lld at %lld, %lld", what, (long long)M, (long long)N, (long long)K, (long long)m, (long long)n);
            TT_CHECK_NEAR(C[m * ldc + n], want[m * N + n], size[m * N + n] * (double)(K + 8) * 0x1p-25 + 1e-30);
        }
}

static void one_shape(tt_ctx *ctx, int64_t M, int64_t N, int64_t K, int64_t unit) {
    float *A = random_floats((size_t)(M * K), 1), *B = random_floats((size_t)(N * K), 1), *Bt = guard((size_t)(N * K) * 4), *At = guard((size_t)(M * K) * 4);
    float *C = random_floats((size_t)(M * N), 1), *start = guard((size_t)(M * N) * 4);
    double *want = guard((size_t)(M * N) * 8), *size = guard((size_t)(M * N) * 8);
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++) Bt[k * N + n] = B[n * K + k];
    for (int64_t m = 0; m < M; m++)
        for (int64_t k = 0; k < K; k++) At[k * M + m] = A[m * K + k];
    memcpy(start, C, (size_t)(M * N) * 4);
    naive(M, N, K, A, K, 1, B, K, 1, want, size);
    const dense w = {B, N, K, unit}, wt = {Bt, K, N, unit};
    const tt_wsrc src = {N, K, unit, decode_dense, &w, false, NULL}, srct = {K, N, unit, decode_dense, &wt, false, NULL};

    fill_nan(C, (size_t)(M * N));
    tt__gemm_w(ctx, &src, A, K, M, C, N, false);
    check("gemm_w", C, N, M, N, K, want, size);
    fill_nan(C, (size_t)(M * N));
    tt__gemm_wt(ctx, &srct, A, K, M, C, N, false);
    check("gemm_wt", C, N, M, N, K, want, size);
    fill_nan(C, (size_t)(M * N));
    tt__gemm(ctx, M, N, K, 1.0f, A, K, B, K, true, C, N, false);
    check("gemm transposed", C, N, M, N, K, want, size);
    fill_nan(C, (size_t)(M * N));
    tt__gemm_tn(ctx, M, N, K, At, M, Bt, N, C, N, false);
    check("gemm of A^T", C, N, M, N, K, want, size);
    for (int64_t i = 0; i < M * N; i++) {
        want[i] = -2.0 * want[i] + (double)start[i];
        size[i] = 2.0 * size[i] + fabs((double)start[i]);
    }
    memcpy(C, start, (size_t)(M * N) * 4);
    tt__gemm(ctx, M, N, K, -2.0f, A, K, Bt, N, false, C, N, true);
    check("gemm accumulate", C, N, M, N, K, want, size);
    release_all();
}

TT_CASE(shapes_around_the_tiles) {
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 13, 14, 15, 28, 31, 32, 33, 65, 130};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    tt__rng_seed(&rng, 1);
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt_ctx *ctx = context(2, *isa);
        for (int i = 0; i < COUNT; i++)
            for (int l = 0; l < COUNT; l++) one_shape(ctx, sizes[i], sizes[l], sizes[(i + 3 * l) % COUNT], 1);
    }
}

TT_CASE(shapes_over_several_blocks) {
    tt__rng_seed(&rng, 2);
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt_ctx *ctx = context(2, *isa);
        one_shape(ctx, 7, 257, 600, 1);
        one_shape(ctx, 131, 200, 576, 32);
        one_shape(ctx, 33, 512, 512, 256);
        one_shape(ctx, 5, 300, 4200, 1);
        one_shape(ctx, 40, 64, 2100, 1);
        one_shape(ctx, 270, 320, 640, 64);
    }
}

TT_CASE(syrk_adds_both_triangles) {
    static const int64_t shapes[][2] = {{1, 1}, {3, 15}, {40, 64}, {300, 130}, {2100, 33}, {64, 200}};
    tt__rng_seed(&rng, 3);
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt_ctx *ctx = context(3, *isa);
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
            const int64_t T = shapes[c][0], n = shapes[c][1];
            float *X = random_floats((size_t)(T * n), 1), *H = guard((size_t)(n * n) * 4);
            double *want = guard((size_t)(n * n) * 8), *size = guard((size_t)(n * n) * 8);
            naive(n, n, T, X, 1, n, X, 1, n, want, size);
            for (int64_t i = 0; i < n * n; i++) {
                H[i] = (float)(i / n + i % n);      /* symmetric */
                want[i] += (double)H[i];
                size[i] += (double)H[i];
            }
            tt__syrk(ctx, X, n, T, n, H);
            check("syrk", H, n, n, n, T, want, size);
            for (int64_t i = 0; i < n; i++)
                for (int64_t l = 0; l < i; l++) TT_CHECK(H[i * n + l] == H[l * n + i]);
            release_all();
        }
    }
}

TT_CASE(transposed_times_plain) {
    static const int64_t shapes[][3] = {{1, 1, 1}, {3, 15, 7}, {40, 64, 33}, {192, 130, 300}, {33, 70, 2100}, {257, 3, 2}};
    tt__rng_seed(&rng, 5);
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt_ctx *ctx = context(3, *isa);
        for (size_t c = 0; c < sizeof shapes / sizeof *shapes; c++) {
            const int64_t M = shapes[c][0], N = shapes[c][1], K = shapes[c][2];
            float *A = random_floats((size_t)(K * M), 1), *B = random_floats((size_t)(K * N), 1), *C = guard((size_t)(M * N) * 4);
            double *want = guard((size_t)(M * N) * 8), *size = guard((size_t)(M * N) * 8);
            naive(M, N, K, A, 1, M, B, 1, N, want, size);
            fill_nan(C, (size_t)(M * N));
            tt__gemm_tn(ctx, M, N, K, A, M, B, N, C, N, false);
            check("gemm tn", C, N, M, N, K, want, size);
            for (int64_t i = 0; i < M * N; i++) {
                C[i] = (float)i;
                want[i] += (double)i;
                size[i] += (double)i;
            }
            tt__gemm_tn(ctx, M, N, K, A, M, B, N, C, N, true);
            check("gemm tn accumulate", C, N, M, N, K, want, size);
            release_all();
        }
    }
}

TT_CASE(threads_do_not_change_a_bit) {
    const int64_t M = 150, N = 192, K = 700;
    tt__rng_seed(&rng, 4);
    float *A = random_floats((size_t)(M * K), 1), *B = random_floats((size_t)(N * K), 1);
    float *one = guard((size_t)(M * N) * 4), *many = guard((size_t)(M * N) * 4);
    const dense w = {B, N, K, 1};
    const tt_wsrc src = {N, K, 1, decode_dense, &w, false, NULL};
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt__gemm_w(context(1, *isa), &src, A, K, M, one, N, false);
        for (int threads = 2; threads < 8; threads++) {
            tt__gemm_w(context(threads, *isa), &src, A, K, M, many, N, false);
            TT_CHECK(!memcmp(one, many, (size_t)(M * N) * 4));
        }
    }
    release_all();
}

TT_CASE(empty_products) {
    tt_ctx *ctx = context(1, "scalar");
    float c[4] = {1, 2, 3, 4};
    tt__gemm(ctx, 2, 2, 0, 1.0f, c, 1, c, 1, true, c, 2, true);
    TT_CHECK(c[3] == 4.0f);
    tt__gemm(ctx, 2, 2, 0, 1.0f, c, 1, c, 1, true, c, 2, false);
    TT_CHECK(c[0] == 0.0f && c[3] == 0.0f);
    tt__gemm(ctx, 0, 2, 2, 1.0f, c, 1, c, 1, true, c, 2, false);
    tt__gemm_tn(ctx, 2, 2, 0, c, 2, c, 2, c, 2, true);
    tt__syrk(ctx, c, 2, 0, 2, c);
}
