/* f32 products through compressed weights. The weight is a callback that decodes a rectangle into f32; it is asked for a panel at a
 * time (a few hundred KB in the scratch of a worker), so no dense copy of a matrix exists. One stored copy serves W and W^T.
 * Results do not depend on the thread count: every output is summed by one worker in a fixed order of k tiles. */
#ifndef TT_KERNELS_GEMM_H
#define TT_KERNELS_GEMM_H
#include "trimtab/status.h"
#include <stdbool.h>
#include <stdint.h>
struct tt_ctx;

typedef struct tt_wsrc {
    int64_t rows, cols;
    int64_t col_unit;      /* c0 is a multiple of it, c1 too or cols (1 for dense, 32 or 256 for blocks) */
    void (*decode)(const void *self, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld);  /* thread-safe */
    const void *self;
    bool bf16;             /* a product may round both factors to bf16, where the table has the tile for it (sums stay f32) */
    /* In the place of decode, for tt__gemm_w: rows r0 … r1 (r0 a multiple of r, r1 - r0 ≤ r) as the tile reads them, out[(c1 - c0) / pair][r], as pack_rows (pair 1) or pack_rows_bf16
     * (pair 2) make them of what decode gives. False: not in this form. NULL: never. */
    bool (*pack)(const void *self, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int r, int pair);
} tt_wsrc;

/* Scratch per worker that the calls below need for these sizes; reserve before (tt__scratch_reserve). It is the same for all sizes.
 * The calls use the scratch of every worker, so they must not be made from inside a tile of tt__parallel. */
size_t tt__gemm_scratch(const struct tt_ctx *ctx, int64_t max_rows, int64_t max_cols);

/* Y [T, rows] = (or +=) X [T, cols] W^T.   G [T, rows] → dX [T, cols] = (or +=) G W. */
void tt__gemm_w(struct tt_ctx *ctx, const tt_wsrc *w, const float *X, int64_t ldx, int64_t T, float *Y, int64_t ldy, bool accumulate);
void tt__gemm_wt(struct tt_ctx *ctx, const tt_wsrc *w, const float *G, int64_t ldg, int64_t T, float *dX, int64_t lddx, bool accumulate);
/* H [n, n] += X^T X over T rows; both triangles are written. */
void tt__syrk(struct tt_ctx *ctx, const float *X, int64_t ldx, int64_t T, int64_t n, float *H);
/* C [M, N] = (or +=) A^T B over K rows: A [K, M], B [K, N]. With A = G and B = X the gradient of a weight, dW = G^T X. */
void tt__gemm_tn(struct tt_ctx *ctx, int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C, int64_t ldc,
                 bool accumulate);
/* Plain dense: C [M, N] = (or +=) alpha A [M, K] op(B); transposed: B is [N, K], else [K, N]. */
void tt__gemm(struct tt_ctx *ctx, int64_t M, int64_t N, int64_t K, float alpha, const float *A, int64_t lda, const float *B, int64_t ldb,
              bool transposed, float *C, int64_t ldc, bool accumulate);
#endif
