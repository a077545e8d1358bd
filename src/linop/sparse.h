/* What the sparse operators share: a sparseq's rows as stored (sparseq.c), and products of many rows of activations with a sparse panel, which
 * is expanded to 8-bit codes in the scratch of a worker and goes through the dense panel's kernel (bitmask.c). */
#ifndef TT_LINOP_SPARSE_H
#define TT_LINOP_SPARSE_H
#include "kernels/codes.h"
#include "linop/linop.h"

typedef struct tt__sparse_rows { int bits, group; const uint64_t *mask, *start; const uint8_t *codes; const uint16_t *scales; } tt__sparse_rows;
/* False: not a sparseq. */
bool tt__sparseq_rows(const tt_linop *op, tt__sparse_rows *out);

/* Panel p has been expanded to codes [units][1024]; its scales as stored [groups][16] are halved to those of the 8-bit grid. */
typedef struct tt__expanded { int64_t p, units, groups; int group; const uint8_t *codes; const uint16_t *scales; } tt__expanded;
void tt__expanded_gemm(tt_ctx *ctx, const tt_linop *op, const tt__expanded *e, const tt_batch *x, int64_t tile0, int64_t tile1, float *Y, int64_t ldy, uint16_t *room);
/* Scratch of a worker for that: codes and scales of a panel. */
static inline size_t tt__expanded_bytes(int64_t cols) { return ((size_t)cols + 128) * 17 + 64; }
#endif
