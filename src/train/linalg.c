/* One Cholesky factorisation and one triangular inverse give what the column-wise methods need (PERFORMANCE 4.6, weights.md A2.6):
 *
 *     J reverses rows and columns.   J A J = L L^T   →   A^-1 = (J L^-T J)(J L^-1 J) = U^T U   with   U = J L^-1 J  (upper)
 *
 * In row-major storage J M J is the n*n numbers in reverse order, so everything happens in one buffer.
 *
 *   Cholesky, by block columns k (left-looking):        inverse M = L^-1, by block rows i:
 *     C  = A[k:, k] - L[k:, 0:k] L[k, 0:k]^T   gemm       T       = L[i, 0:i] M[0:i, 0:i]        gemm
 *     L[k, k] = chol(C[k])                     f64        M[i, i] = L[i, i]^-1                   f64
 *     L[r, k] L[k, k]^T = C[r]  for rows r > k f64        M[i, 0:i] = -M[i, i] T                 gemm
 *
 * Every sum runs in an order fixed by n alone.
 */
#include "train/linalg.h"

#include "base/util.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"
#include <math.h>

enum { NB = 64, SOLVE_ROWS = 16 };

/* ------------------------------------------------------------ one diagonal block, f64 ---- */

/* D [m, m] (NB apart) lower ← its Cholesky factor; the column that fails, or -1. */
static int64_t block_cholesky(double *D, int64_t m) {
    for (int64_t j = 0; j < m; j++) {
        double d = D[j * NB + j];
        for (int64_t p = 0; p < j; p++) d -= D[j * NB + p] * D[j * NB + p];
        if (!(d > 0) || !isfinite(d)) return j;
        d = sqrt(d);
        D[j * NB + j] = d;
        for (int64_t i = j + 1; i < m; i++) {
            double s = D[i * NB + j];
            for (int64_t p = 0; p < j; p++) s -= D[i * NB + p] * D[j * NB + p];
            D[i * NB + j] = s / d;
        }
    }
    return -1;
}

/* V [m, m] = D^-1 of a lower triangular D. */
static void block_inverse(const double *D, double *V, int64_t m) {
    for (int64_t c = 0; c < m; c++)
        for (int64_t i = 0; i < m; i++) {
            double s = i == c;
            for (int64_t p = c; p < i; p++) s -= D[i * NB + p] * V[p * NB + c];
            V[i * NB + c] = i < c ? 0 : s / D[i * NB + i];
        }
}

/* ------------------------------------------------------------ Cholesky ---- */

typedef struct solve_job { float *A; int64_t n, k, first, m; const double *upper; } solve_job;   /* upper: L[k, k]^T, rows contiguous */

static void solve_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    const solve_job *j = arg;
    int64_t r1 = j->first + (tile + 1) * SOLVE_ROWS;
    for (int64_t r = j->first + tile * SOLVE_ROWS; r < r1 && r < j->n; r++) {
        float *row = j->A + r * j->n + j->k;
        double x[NB];
        for (int64_t c = 0; c < j->m; c++) x[c] = (double)row[c];
        for (int64_t p = 0; p < j->m; p++) {
            const double *u = j->upper + p * NB;
            double v = x[p] /= u[p];
            for (int64_t c = p + 1; c < j->m; c++) x[c] -= v * u[c];
        }
        for (int64_t c = 0; c < j->m; c++) row[c] = (float)x[c];
    }
}

static int64_t cholesky(tt_ctx *ctx, float *A, int64_t n) {
    double D[NB * NB], T[NB * NB];
    for (int64_t k = 0; k < n; k += NB) {
        int64_t m = n - k < NB ? n - k : NB;
        if (k) tt__gemm(ctx, n - k, m, k, -1.0f, A + k * n, n, A + k * n, n, true, A + k * n + k, n, true);
        for (int64_t i = 0; i < m; i++)
            for (int64_t c = 0; c <= i; c++) D[i * NB + c] = (double)A[(k + i) * n + k + c];
        int64_t bad = block_cholesky(D, m);
        if (bad >= 0) return k + bad;
        for (int64_t i = 0; i < m; i++)
            for (int64_t c = 0; c <= i; c++) {
                A[(k + i) * n + k + c] = (float)D[i * NB + c];
                T[c * NB + i] = D[i * NB + c];
            }
        solve_job job = {A, n, k, k + m, m, T};
        tt__parallel(ctx, (n - k - m + SOLVE_ROWS - 1) / SOLVE_ROWS, solve_tile, &job);
    }
    return -1;
}

/* ------------------------------------------------------------ inverse of the factor ---- */

static void lower_inverse(tt_ctx *ctx, float *L, int64_t n, float *work /* [NB, n] */) {
    double D[NB * NB], V[NB * NB];
    float inv[NB * NB];
    for (int64_t k = 0; k < n; k += NB) {
        int64_t m = n - k < NB ? n - k : NB;
        for (int64_t i = 0; i < m; i++)
            for (int64_t c = 0; c <= i; c++) D[i * NB + c] = (double)L[(k + i) * n + k + c];
        block_inverse(D, V, m);
        for (int64_t i = 0; i < NB * NB; i++) inv[i] = i / NB < m && i % NB < m ? (float)V[i] : 0;
        if (k) {
            tt__gemm(ctx, m, k, k, 1.0f, L + k * n, n, L, n, false, work, n, false);
            tt__gemm(ctx, m, k, m, -1.0f, inv, NB, work, n, false, L + k * n, n, false);
        }
        for (int64_t i = 0; i < m; i++)
            for (int64_t c = 0; c < m; c++) L[(k + i) * n + k + c] = inv[i * NB + c];
    }
}

static void reverse(float *a, int64_t n) {
    for (int64_t i = 0, j = n - 1; i < j; i++, j--) {
        float t = a[i];
        a[i] = a[j], a[j] = t;
    }
}

tt_status tt__inverse_factor(tt_ctx *ctx, float *A, int64_t n, int64_t *bad_pivot, tt_err *err) {
    float *work = NULL;
    TT_TRY(tt__scratch_reserve(ctx, tt__gemm_scratch(ctx, n, n), err));
    TT_TRY(tt__new(&work, (size_t)(NB * n), sizeof *work, "a triangular inverse", err));
    reverse(A, n * n);
    *bad_pivot = cholesky(ctx, A, n);
    if (*bad_pivot < 0) {
        for (int64_t i = 0; i < n; i++) memset(A + i * n + i + 1, 0, (size_t)(n - 1 - i) * sizeof(float));
        lower_inverse(ctx, A, n, work);
        reverse(A, n * n);
    }
    tt__free(work);
    return TT_OK;
}

/* ------------------------------------------------------------ the factor of a Hessian ---- */

static void damped_copy(const float *H, int64_t n, const int32_t *perm, double damp, float *A) {
    double mean = 0;
    for (int64_t i = 0; i < n; i++) mean += (H[i * n + i] > 0 ? (double)H[i * n + i] : 1.0) / (double)n;
    for (int64_t i = 0; i < n; i++) {
        const float *row = H + (perm ? perm[i] : i) * n;
        for (int64_t j = 0; j < n; j++) A[i * n + j] = row[perm ? perm[j] : j];
        double d = (double)A[i * n + i];
        A[i * n + i] = (float)((d > 0 ? d : 1.0) + damp * mean);
    }
}

tt_status tt__hessian_factor(tt_ctx *ctx, const float *H, int64_t n, const int32_t *perm, double damp, float **U, double *used, tt_err *err) {
    float *A = NULL;
    *U = NULL;
    TT_TRY(tt__new(&A, (size_t)(n * n), sizeof *A, "a Hessian's factor", err));
    for (*used = damp;; *used = *used > 0 ? 10 * *used : 1e-4) {
        int64_t bad;
        damped_copy(H, n, perm, *used, A);
        tt_status st = tt__inverse_factor(ctx, A, n, &bad, err);
        if (st == TT_OK && bad >= 0 && *used >= 10) st = tt__fail(err, TT_FAIL, "Hessian is not positive definite|column %lld|damping %g||more calibration data may help",
                                                                  (long long)(n - 1 - bad), *used);
        if (st != TT_OK) {
            tt__free(A);
            return st;
        }
        if (bad < 0) break;
        tt__log(ctx, TT_LOG_WARN, "Hessian of %lld inputs is not positive definite with damping %g, raising it", (long long)n, *used);
    }
    *U = A;
    return TT_OK;
}

/* ------------------------------------------------------------ quadratic forms ---- */

enum { QUAD_ROWS = 128 };

tt_status tt__quadratic(tt_ctx *ctx, const float *E, int64_t rows, const float *H, int64_t n, double *out, tt_err *err) {
    float *EH = NULL;
    *out = 0;
    TT_TRY(tt__scratch_reserve(ctx, tt__gemm_scratch(ctx, n, n), err));
    TT_TRY(tt__new(&EH, (size_t)(QUAD_ROWS * n), sizeof *EH, "a quadratic form", err));
    for (int64_t r = 0; r < rows; r += QUAD_ROWS) {
        int64_t m = rows - r < QUAD_ROWS ? rows - r : QUAD_ROWS;
        tt__gemm(ctx, m, n, n, 1.0f, E + r * n, n, H, n, false, EH, n, false);
        for (int64_t i = 0; i < m; i++) *out += (double)ctx->k->dot_f32(EH + i * n, E + (r + i) * n, n);
    }
    tt__free(EH);
    return TT_OK;
}
