/* Factoring calibration matrices: deterministic, blocked, f32 storage with f64 inside the diagonal blocks. */
#ifndef TT_TRAIN_LINALG_H
#define TT_TRAIN_LINALG_H
#include "base/ctx.h"

/* A [n, n] symmetric positive definite, row-major → in place the upper triangular U with A^-1 = U^T U (zeros below). *bad_pivot is -1 on
 * success, else the column (of A, counted from the end) at which A proved not positive definite; A is destroyed then. */
tt_status tt__inverse_factor(tt_ctx *ctx, float *A, int64_t n, int64_t *bad_pivot, tt_err *err);

/* The factor that GPTQ and SparseGPT walk along. H [n, n] = Σ x x^T / tokens; perm: order of the columns or NULL. Dead inputs (H_jj = 0) get a
 * diagonal of 1; damp times the mean diagonal is added; where that is not enough it is raised tenfold, at most to 10, else TT_FAIL.
 * *U [n, n] is the caller's to free; *used is the damping that worked. */
tt_status tt__hessian_factor(tt_ctx *ctx, const float *H, int64_t n, const int32_t *perm, double damp, float **U, double *used, tt_err *err);

/* tr(E H E^T) = Σ over rows of e H e^T, in f64. E [rows, n]. */
tt_status tt__quadratic(tt_ctx *ctx, const float *E, int64_t rows, const float *H, int64_t n, double *out, tt_err *err);
#endif
