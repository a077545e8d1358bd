/* block: a standard GGUF block type (Q4_0 … Q6_K, IQ4_NL), rows of whole blocks, as it lies in the file (weights.md A8). Decoding and
 * the integer row product are kernels; this file only finds them and the addresses. */
#include "linop/standard.h"

void tt__block_bind(tt__standard *s) {
    switch (s->op.dtype) {
#define CASE(TYPE, name) case TT_##TYPE: s->decode = s->k->decode_##name, s->rowdot = s->k->rowdot_##name; return;
    CASE(Q4_0, q4_0) CASE(Q4_1, q4_1) CASE(Q5_0, q5_0) CASE(Q5_1, q5_1) CASE(Q8_0, q8_0) CASE(IQ4_NL, iq4_nl)
    CASE(Q2_K, q2_k) CASE(Q3_K, q3_k) CASE(Q4_K, q4_k) CASE(Q5_K, q5_k) CASE(Q6_K, q6_k)
#undef CASE
    default: __builtin_unreachable();      /* from_bytes let only these through */
    }
}

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const tt__standard *s = (const tt__standard *)op;
    const tt_dtype_info *t = tt__dtype(op->dtype);
    const uint8_t *p = (const uint8_t *)op->data + r0 * s->row_bytes + c0 / t->block * t->bytes;
    for (int64_t r = r0; r < r1; r++, p += s->row_bytes, out += ld) s->decode(p, out, c1 - c0);
}

static void rowdot(tt_ctx *ctx, const tt_linop *op, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy) {
    (void)ctx;
    const tt__standard *s = (const tt__standard *)op;
    s->rowdot((const uint8_t *)op->data + r0 * s->row_bytes, s->row_bytes, r1 - r0, op->cols, &act->q8, Y + r0, ldy);
}

const tt_linop_vtable tt__linop_v_block = {.name = "block", .decode = decode, .rowdot = rowdot, .segments = tt__standard_segments,
                                           .load = tt__standard_load, .describe = tt__standard_describe, .free = tt__standard_free,
                                           .trainable = tt__standard_trainable, .params = tt__standard_params, .changed = tt__standard_changed, .basis = tt__block_basis};
