/* Operators: what one weight matrix IS. W is [rows, cols] (out, in); y = x W^T.
 *
 * One file per representation, one line in linops.inc. A representation must give: decode of a rectangle to f32, its state as named
 * segments, bytes. From the decode alone it gets batches, gradients through itself and calibration (gemm.h); it adds a row kernel
 * when it wants fast decoding of single tokens.
 */
#ifndef TT_LINOP_H
#define TT_LINOP_H
#include "base/ctx.h"
#include "formats/dtype.h"
#include "kernels/gemm.h"
#include "kernels/kernels.h"

typedef struct tt_linop tt_linop;

/* A prepared activation: made once, shared by the operators that read the same input (q/k/v, gate/up). */
typedef struct tt_act {
    const float *x; int64_t ldx;       /* [T, n] */
    int64_t T, n;
    bool fast;                          /* integer path allowed */
    bool bf16;                          /* batches may round both factors to bf16 (tt_wsrc); set by the caller after tt__act_prepare */
    tt_q8 q8;                           /* filled when fast and T is small (tt__act_prepare) */
    tt_unrolled *unrolled;              /* room for it then; T is 0 until an operator asks (slide2's prepare) */
    tt_batch *batch;                    /* when fast and T is large: empty until an operator asks (tt__linop_apply) */
} tt_act;
/* Bytes of workspace for T rows of n. */
size_t tt__act_bytes(int64_t T, int64_t n);
/* x is lent. With fast the rows are rounded to 8 bits into ws. */
void tt__act_prepare(tt_ctx *ctx, tt_act *act, const float *x, int64_t ldx, int64_t T, int64_t n, bool fast, void *ws);

typedef struct tt_segment { const char *name; const void *data; uint64_t bytes; } tt_segment;   /* name: "codes", "scales", "mask" … */

/* Trainable numbers of an operator: x [n], f32. Row r, columns c … c + unit: x[r * per_row + c / unit] (so per_row 0: one for all rows); unit 0: laid out otherwise. */
enum { TT_MAX_PARAMS = 4 };
typedef struct tt_param { const char *name; float *x; int64_t n, per_row, unit; } tt_param;      /* "scales", "minima", "gains", "A" … */

typedef struct tt_linop_vtable {
    const char *name;                   /* "block", "group", "sparseq", "dense", "panel" */
    bool takes_floats;                  /* rowdot reads the activations as they are, in exact runs too */
    /* rectangle to f32 (see tt_wsrc) */
    void (*decode)(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld);
    /* Y[t, r0…r1) for T ≤ 8 rows of a fast activation, or NULL: no integer path. r0 is a multiple of 16, r1 too or rows */
    void (*rowdot)(tt_ctx *ctx, const tt_linop *op, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy);
    /* Y[t, r0…r1) of tiles tile0 … tile1 of many rows rounded to 8 bits (kernels/batch.h), r0 a multiple of 16; NULL: they go by decode */
    void (*batch)(tt_ctx *ctx, const tt_linop *op, const tt_batch *x, int64_t tile0, int64_t tile1, int64_t r0, int64_t r1, float *Y, int64_t ldy, int worker);
    /* rows r0 … r1 as a matrix tile reads them (tt_wsrc); NULL: by decode */
    bool (*pack)(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int r, int pair);
    /* what rowdot needs of a fast activation beyond q8; called before each rowdot's parallel region, by one thread; NULL: nothing */
    void (*prepare)(tt_ctx *ctx, const tt_act *act);
    /* products of an operator made of others, and the scratch they need (tt__linop_scratch); NULL: by the functions above */
    void (*apply)(tt_ctx *ctx, const tt_linop *op, const tt_act *act, float *Y, int64_t ldy);
    void (*apply_t)(tt_ctx *ctx, const tt_linop *op, const float *G, int64_t ldg, int64_t T, float *dX, int64_t lddx, bool accumulate, bool bf16);
    size_t (*scratch)(tt_ctx *ctx, const tt_linop *op);
    /* state as byte segments; returns their number (≤ 8) */
    int (*segments)(const tt_linop *op, tt_segment out[8]);
    /* the inverse: describe → operator; segments lent for the operator's life unless `copy`; every size and code is checked */
    tt_status (*load)(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err);
    /* parameters as text for the file: "bits=4,group=64" */
    void (*describe)(const tt_linop *op, char *buf, size_t n);
    void (*free)(tt_linop *op);
    /* training (below); NULL where there is nothing to train */
    tt_status (*trainable)(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err);
    int (*params)(tt_linop *op, tt_param out[TT_MAX_PARAMS]);
    tt_status (*changed)(tt_ctx *ctx, tt_linop *op, tt_err *err);
    /* ∂w / ∂(its parameter `which`), rows r0 … r1 of all columns [r1 - r0, cols]; parameters that act on other than their own columns give reduce or grad_params instead */
    void (*basis)(const tt_linop *op, int which, int64_t r0, int64_t r1, float *out);
    /* dW [r1 - r0, cols] of rows of one sixteen, which is overwritten: into the numbers of these rows in grad; what goes to the numbers that all rows share
     * (per_row 0) is left in dW's first row. room: at least 2^17 floats */
    void (*reduce)(const tt_linop *op, int64_t r0, int64_t r1, float *dW, float *const grad[TT_MAX_PARAMS], float *room);
    void (*grad_params)(tt_ctx *ctx, const tt_linop *op, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T, float *const grad[TT_MAX_PARAMS]);
} tt_linop_vtable;

struct tt_linop {
    const tt_linop_vtable *v;
    int64_t rows, cols;
    int64_t col_unit;
    tt_dtype dtype;                     /* of dense and block: standard GGUF type; TT_DTYPE_COUNT for own operators */
    const void *data;                   /* of dense and block: lent from the map, or owned */
    void *owned;                        /* freed by free() */
};

#define TT_LINOP(name) extern const tt_linop_vtable tt__linop_v_##name;
#include "linop/linops.inc"
#undef TT_LINOP
const tt_linop_vtable *tt__linop_find(const char *name);
void tt__linop_free(tt_linop *op);

/* ---- makers ---- */
/* A standard type over lent bytes (a mapped tensor); dense for F32, F16, BF16, block otherwise. */
tt_status tt__linop_from_bytes(tt_ctx *ctx, tt_dtype type, const void *data, int64_t rows, int64_t cols, tt_linop **out, tt_err *err);
/* A standard type quantized or converted from f32 (copied). */
tt_status tt__linop_encode(tt_ctx *ctx, tt_dtype type, const float *W, int64_t rows, int64_t cols, tt_linop **out, tt_err *err);
/* The same with an importance per column [cols] (mean squared input), where the type's search can use one; NULL: none. */
tt_status tt__linop_encode_weighted(tt_ctx *ctx, tt_dtype type, const float *W, const float *importance, int64_t rows, int64_t cols,
                                    tt_linop **out, tt_err *err);
/* group: codes u8 [rows, cols] in 0 … 2^bits-1, scales [rows, ceil(cols/group)] with kind in `halfgrid` (1: grid without zero), or with mins as
 * scales lie: w = scale * code + min (halfgrid then does not count). */
tt_status tt__linop_group(tt_ctx *ctx, int bits, int group, const uint8_t *codes, const float *scales, const uint8_t *halfgrid, const float *mins,
                          int64_t rows, int64_t cols, tt_linop **out, tt_err *err);
/* sparseq: the same plus keep u8 [rows, cols]; bits 2, 3, 4, 8, or 16 (then values f32 → f16 and codes/scales are NULL). */
tt_status tt__linop_sparseq(tt_ctx *ctx, int bits, int group, const uint8_t *keep, const uint8_t *codes, const float *scales,
                            const uint8_t *halfgrid, const float *values, int64_t rows, int64_t cols, tt_linop **out, tt_err *err);
/* slide2 (kernels/slide2.h): 4-bit codes and a mask as above, group 64 or 128; the mask must fit: tt__linop_slide2_fits. */
tt_status tt__linop_slide2(tt_ctx *ctx, int group, const uint8_t *keep, const uint8_t *codes, const float *scales, const uint8_t *halfgrid,
                           int64_t rows, int64_t cols, tt_linop **out, tt_err *err);
bool tt__linop_slide2_fits(const uint8_t *keep, int64_t rows, int64_t cols);
/* panel: the run format (kernels/panel.h). *out = NULL when op stays as it is: a type without an exact panel of about its size. The weights
 * are bit-equal. Memory of tt__linop_panel_bytes (0: it stays) from a 64-byte boundary may be lent; with NULL the operator owns its own. */
uint64_t tt__linop_panel_bytes(const tt_linop *op);
tt_status tt__linop_panel_from(tt_ctx *ctx, const tt_linop *op, void *memory, tt_linop **out, tt_err *err);
const tt_panel *tt__linop_panel(const tt_linop *op);     /* of a panel operator; NULL: it is another */
/* The run form of a sparseq with 4 bits, in panels of 16 rows (kernels/bitmask.h); a copy. TT_TARGET for anything else. */
tt_status tt__linop_bitmask(tt_ctx *ctx, const tt_linop *sparse, tt_linop **out, tt_err *err);
/* A bitmask as an 8-bit panel with zeros, bit-equal; *out = NULL where a scale cannot be halved exactly. */
tt_status tt__linop_bitmask_dense(tt_ctx *ctx, const tt_linop *bitmask, tt_linop **out, tt_err *err);
/* lowrank: base + scale B A, factors A [rank, cols] and B [rows, rank], which are taken over on success; the base is lent, or taken over too. */
tt_status tt__linop_lowrank(tt_ctx *ctx, tt_linop *base, bool own_base, tt_linop *A, tt_linop *B, float scale, tt_linop **out, tt_err *err);
/* A factor of it: "f32", "f16", or "q8" (8-bit groups of 32). */
tt_status tt__linop_factor(tt_ctx *ctx, const char *type, const float *x, int64_t rows, int64_t cols, tt_linop **out, tt_err *err);
/* The operator under the factors; op itself where there are none. What they add to its product: Y += scale (x A^T) B^T; nothing where there are none. */
const tt_linop *tt__linop_base(const tt_linop *op);
void tt__linop_add_low(tt_ctx *ctx, const tt_linop *op, const tt_act *act, float *Y, int64_t ldy);
/* Any operator decoded to dense f32 (the labelled expansion). */
tt_status tt__linop_expand(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err);

/* ---- use ---- */
uint64_t tt__linop_bytes(const tt_linop *op);           /* all segments */
static inline double tt__linop_macs(const tt_linop *op, int64_t T) { return (double)op->rows * (double)op->cols * (double)T; }
void tt__linop_label(const tt_linop *op, char *buf, size_t n);   /* "Q4_0", "sparseq(bits=4,group=64)" */
tt_wsrc tt__linop_wsrc(const tt_linop *op);
void tt__linop_rows(const tt_linop *op, int64_t r0, int64_t r1, float *out);    /* [r1-r0, cols], embedding look-ups too */
/* Y [T, rows] = x W^T, by the path that fits T and act->fast.  dX [T, cols] = (or +=) G W. Scratch must be reserved. */
void tt__linop_apply(tt_ctx *ctx, const tt_linop *op, const tt_act *act, float *Y, int64_t ldy);
void tt__linop_apply_t(tt_ctx *ctx, const tt_linop *op, const float *G, int64_t ldg, int64_t T, float *dX, int64_t lddx, bool accumulate, bool bf16);
size_t tt__linop_scratch(tt_ctx *ctx, const tt_linop *op);

/* ---- training (train.c) ----
 * A trainable copy holds its numbers in f32 (masters); what it decodes, and what its segments say, is those numbers rounded to what files store. So the
 * loss is that of exactly the weights that will be served:   loop { run; grad_params; optimiser step on params; changed }, then store it as any other. */
/* Codes are lent from op where they lie apart from scales. TT_TARGET: nothing in it trains. */
tt_status tt__linop_trainable(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err);
/* The masters, lent; their number, 0: op is not trainable. */
int tt__linop_params(tt_linop *op, tt_param out[TT_MAX_PARAMS]);
/* Rounds the masters into the weights. Out of range is brought to the nearest that can be stored (masters too); not finite: TT_FAIL. */
tt_status tt__linop_params_changed(tt_ctx *ctx, tt_linop *op, tt_err *err);
/* grad[i] += the gradient of params i, given X [T, cols] and G [T, rows] (tt_train_hooks.matrix); grad[i] NULL: not wanted. dW = G^T X exists a strip of
 * rows at a time. Scratch of tt__linop_grad_scratch must be reserved. */
void tt__linop_grad_params(tt_ctx *ctx, const tt_linop *op, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T, float *const grad[TT_MAX_PARAMS]);
/* The same where op was looked up: row ids[t] gave the input row whose gradient is dX[t]. */
void tt__linop_grad_rows(tt_ctx *ctx, const tt_linop *op, const int32_t *ids, int64_t T, const float *dX, int64_t lddx, float *const grad[TT_MAX_PARAMS]);
size_t tt__linop_grad_scratch(tt_ctx *ctx, const tt_linop *op);
#endif
