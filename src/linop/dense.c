/* dense: F32, F16 or BF16, row-major. Few rows read the weights in their stored width; batches go through decode. */
#include "linop/standard.h"
#include <string.h>

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const tt__standard *s = (const tt__standard *)op;
    int64_t n = c1 - c0;
    for (int64_t r = r0; r < r1; r++, out += ld) {
        const uint8_t *row = (const uint8_t *)op->data + r * s->row_bytes;
        if (op->dtype == TT_F32) memcpy(out, row + 4 * c0, (size_t)n * sizeof(float));
        else if (op->dtype == TT_F16) s->k->f16_to_f32(out, (const uint16_t *)(const void *)row + c0, n);
        else s->k->bf16_to_f32(out, (const uint16_t *)(const void *)row + c0, n);
    }
}

static void rowdot(tt_ctx *ctx, const tt_linop *op, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy) {
    const tt__standard *s = (const tt__standard *)op;
    const void *w = (const uint8_t *)op->data + r0 * s->row_bytes;
    int64_t n = op->cols;
    if (op->dtype == TT_F32) ctx->k->rowdot_f32(w, n, r1 - r0, n, act->x, act->ldx, act->T, Y + r0, ldy);
    else if (op->dtype == TT_F16) ctx->k->rowdot_f16(w, n, r1 - r0, n, act->x, act->ldx, act->T, Y + r0, ldy);
    else ctx->k->rowdot_bf16(w, n, r1 - r0, n, act->x, act->ldx, act->T, Y + r0, ldy);
}

const tt_linop_vtable tt__linop_v_dense = {.name = "dense", .takes_floats = true, .decode = decode, .rowdot = rowdot, .segments = tt__standard_segments,
                                           .load = tt__standard_load, .describe = tt__standard_describe, .free = tt__standard_free,
                                           .trainable = tt__standard_trainable, .params = tt__standard_params, .changed = tt__standard_changed,
                                           .grad_params = tt__dense_grad_params};
