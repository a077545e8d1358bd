/* The factor U with A^-1 = U^T U: against LAPACK where it is installed, by its residual everywhere; the same bytes for every thread count. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "train/linalg.h"
#include <dlfcn.h>

/* X^T X / T of T correlated rows: what calibration gives. */
static float *hessian(int64_t n, int64_t T, uint64_t seed) {
    tt__rng r;
    tt__rng_seed(&r, seed);
    float *H = tt__calloc((size_t)(n * n), sizeof *H), *x = tt__alloc((size_t)n * sizeof *x);
    for (int64_t t = 0; t < T; t++) {
        double common = tt__rng_normal(&r);
        for (int64_t i = 0; i < n; i++) x[i] = (float)(tt__rng_normal(&r) * (1 + i % 7) + common);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < n; k++) H[i * n + k] += x[i] * x[k] / (float)T;
    }
    tt__free(x);
    return H;
}

/* max |U A U^T - I|, in f64: U A U^T = U (U^T U)^-1 U^T. */
static double residual(const float *U, const float *A, int64_t n) {
    double *UA = tt__calloc((size_t)(n * n), sizeof *UA), worst = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = i; k < n; k++)
            for (int64_t j = 0; j < n; j++) UA[i * n + j] += (double)U[i * n + k] * A[k * n + j];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = i == j ? -1 : 0;
            for (int64_t k = j; k < n; k++) s += UA[i * n + k] * U[j * n + k];
            worst = fmax(worst, fabs(s));
        }
    tt__free(UA);
    return worst;
}

TT_CASE(inverse_factor) {
    static const int64_t sizes[] = {1, 2, 17, 63, 64, 65, 128, 200, 257};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int64_t n = sizes[s], bad;
        float *A = hessian(n, 2 * n + 3, s), *U = tt__alloc((size_t)(n * n) * sizeof *U);
        for (int64_t i = 0; i < n; i++) A[i * n + i] += 0.1f;
        memcpy(U, A, (size_t)(n * n) * sizeof *U);
        tt_test_note("n %lld", (long long)n);
        TT_CHECK_OK(tt__inverse_factor(ctx, U, n, &bad, &err));
        TT_CHECK_EQ(bad, -1);
        for (int64_t i = 0; i < n; i++) {
            TT_CHECK(U[i * n + i] > 0);
            for (int64_t j = 0; j < i; j++) TT_CHECK(U[i * n + j] == 0);
        }
        TT_CHECK_NEAR(residual(U, A, n), 0, 2e-3);
        tt__free(A);
        tt__free(U);
    }
}

/* LAPACK: A^-1 by potrf and potri in f64, then its upper factor; U is unique. */
TT_CASE(against_lapack) {
    void *lib = dlopen("liblapacke.so.3", RTLD_NOW);
    if (!lib) TT_SKIP("LAPACKE is not installed");
    int (*potrf)(int, char, int, double *, int) = NULL, (*potri)(int, char, int, double *, int) = NULL;
    *(void **)&potrf = dlsym(lib, "LAPACKE_dpotrf");
    *(void **)&potri = dlsym(lib, "LAPACKE_dpotri");
    TT_CHECK(potrf && potri);
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    int64_t n = 200, bad;
    float *A = hessian(n, 300, 9), *U = tt__alloc((size_t)(n * n) * sizeof *U);
    double *D = tt__alloc((size_t)(n * n) * sizeof *D);
    for (int64_t i = 0; i < n; i++) A[i * n + i] += 0.1f;
    memcpy(U, A, (size_t)(n * n) * sizeof *U);
    for (int64_t i = 0; i < n * n; i++) D[i] = A[i];
    TT_CHECK_EQ(potrf(101, 'U', (int)n, D, (int)n), 0);
    TT_CHECK_EQ(potri(101, 'U', (int)n, D, (int)n), 0);
    TT_CHECK_EQ(potrf(101, 'U', (int)n, D, (int)n), 0);
    TT_CHECK_OK(tt__inverse_factor(ctx, U, n, &bad, &err));
    double scale = 0, worst = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i; j < n; j++) scale = fmax(scale, fabs(D[i * n + j])), worst = fmax(worst, fabs(D[i * n + j] - U[i * n + j]));
    TT_CHECK_NEAR(worst / scale, 0, 1e-4);
    tt__free(A);
    tt__free(U);
    tt__free(D);
    dlclose(lib);
}

TT_CASE(not_positive_definite) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    int64_t n = 100, bad;
    float *A = tt__calloc((size_t)(n * n), sizeof *A);
    for (int64_t i = 0; i < n; i++) A[i * n + i] = i == 20 ? -1.0f : 1.0f;
    TT_CHECK_OK(tt__inverse_factor(ctx, A, n, &bad, &err));
    TT_CHECK_EQ(bad, n - 1 - 20);
    memset(A, 0, (size_t)(n * n) * sizeof *A);
    A[5] = NAN;
    TT_CHECK_OK(tt__inverse_factor(ctx, A, n, &bad, &err));
    TT_CHECK(bad >= 0);
    tt__free(A);
}

/* Fewer tokens than inputs and no damping to speak of: it is raised until the factor exists. Dead inputs get a diagonal of 1. */
TT_CASE(hessian_factor) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    int64_t n = 96;
    float *H = hessian(n, 3, 4), *U;
    double used;
    TT_CHECK_OK(tt__hessian_factor(ctx, H, n, NULL, 1e-12, &U, &used, &err));
    TT_CHECK(used > 1e-12 && used <= 10);
    tt__free(U);
    TT_CHECK_OK(tt__hessian_factor(ctx, H, n, NULL, 0, &U, &used, &err));
    TT_CHECK(used > 0);
    tt__free(U);
    for (int64_t i = 0; i < n; i++) H[7 * n + i] = H[i * n + 7] = 0;
    TT_CHECK_OK(tt__hessian_factor(ctx, H, n, NULL, 0.01, &U, &used, &err));
    TT_CHECK(isfinite(U[7 * n + 7]) && U[7 * n + 7] > 0);
    tt__free(U);
    H[3 * n + 3] = INFINITY;
    TT_CHECK_FAILS(TT_FAIL, tt__hessian_factor(ctx, H, n, NULL, 0.01, &U, &used, &err));
    TT_CHECK(!U);
    tt__free(H);
}

/* Column order: the factor of the permuted matrix. */
TT_CASE(permuted_factor) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    int64_t n = 70;
    float *H = hessian(n, 200, 5), *P = tt__alloc((size_t)(n * n) * sizeof *P), *U, *V;
    int32_t perm[70];
    double used;
    for (int i = 0; i < 70; i++) perm[i] = (i * 31 + 5) % 70;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) P[i * n + j] = H[perm[i] * n + perm[j]];
    TT_CHECK_OK(tt__hessian_factor(ctx, H, n, perm, 0.01, &U, &used, &err));
    TT_CHECK_OK(tt__hessian_factor(ctx, P, n, NULL, 0.01, &V, &used, &err));
    for (int64_t i = 0; i < n * n; i++) TT_CHECK_NEAR(U[i], V[i], 1e-5);
    tt__free(U);
    tt__free(V);
    tt__free(H);
    tt__free(P);
}

TT_CASE(threads_do_not_matter) {
    tt_err err = {0};
    int64_t n = 257, bad;
    float *A = hessian(n, 400, 6), *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        float *U = tt__alloc((size_t)(n * n) * sizeof *U);
        memcpy(U, A, (size_t)(n * n) * sizeof *U);
        TT_CHECK_OK(tt__inverse_factor(tt_test_ctx(threads, NULL), U, n, &bad, &err));
        if (!first) first = U;
        else {
            TT_CHECK(!memcmp(first, U, (size_t)(n * n) * sizeof *U));
            tt__free(U);
        }
    }
    tt__free(first);
    tt__free(A);
}

TT_CASE(quadratic_form) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    int64_t n = 50, rows = 150;
    float *H = hessian(n, 100, 8), *E = hessian(rows, 1, 9);
    double want = 0, got;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) want += (double)E[r * n + i] * H[i * n + j] * E[r * n + j];
    TT_CHECK_OK(tt__quadratic(ctx, E, rows, H, n, &got, &err));
    TT_CHECK_NEAR(got / want, 1, 1e-5);
    tt__free(H);
    tt__free(E);
}
