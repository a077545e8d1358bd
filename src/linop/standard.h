/* Operators over one run of rows in a standard type: what dense.c and block.c share. */
#ifndef TT_LINOP_STANDARD_H
#define TT_LINOP_STANDARD_H
#include "linop/linop.h"

typedef void (*tt__decode_fn)(const uint8_t *src, float *dst, int64_t n);
typedef void (*tt__rowdot_fn)(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy);

typedef struct tt__standard {
    tt_linop op;                  /* first: a tt_linop * is a tt__standard * */
    const tt_kernels *k;
    int64_t row_bytes;
    tt__decode_fn decode;         /* block only */
    tt__rowdot_fn rowdot;
} tt__standard;

bool tt__linop_is_dense(tt_dtype t);
void tt__block_bind(tt__standard *s);   /* the kernels of s->op.dtype */
int tt__standard_segments(const tt_linop *op, tt_segment out[8]);
void tt__standard_describe(const tt_linop *op, char *buf, size_t n);
tt_status tt__standard_load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err);
void tt__standard_free(tt_linop *op);
#endif
