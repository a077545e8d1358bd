/* What other operators may see of a sparseq: its rows as stored. In sparseq.c. */
#ifndef TT_LINOP_SPARSE_H
#define TT_LINOP_SPARSE_H
#include "kernels/codes.h"
#include "linop/linop.h"

typedef struct tt__sparse_rows { int bits, group; const uint64_t *mask, *start; const uint8_t *codes; const uint16_t *scales; } tt__sparse_rows;
/* False: not a sparseq. */
bool tt__sparseq_rows(const tt_linop *op, tt__sparse_rows *out);
#endif
