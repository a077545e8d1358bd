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
    float *master;                /* of a trainable copy (standard_train.c), owned; else NULL */
} tt__standard;

bool tt__linop_is_dense(tt_dtype t);
void tt__block_bind(tt__standard *s);   /* the kernels of s->op.dtype */
int tt__standard_segments(const tt_linop *op, tt_segment out[8]);
void tt__standard_describe(const tt_linop *op, char *buf, size_t n);
tt_status tt__standard_load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err);
void tt__standard_free(tt_linop *op);
tt_status tt__standard_trainable(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err);
int tt__standard_params(tt_linop *op, tt_param out[TT_MAX_PARAMS]);
tt_status tt__standard_changed(tt_ctx *ctx, tt_linop *op, tt_err *err);
void tt__block_basis(const tt_linop *op, int which, int64_t r0, int64_t r1, float *out);
void tt__dense_grad_params(tt_ctx *ctx, const tt_linop *op, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T, float *const grad[TT_MAX_PARAMS]);
#endif
