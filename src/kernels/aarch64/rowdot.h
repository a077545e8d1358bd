/* Products of compressed rows with rounded activations, 32 weights at a time as signed bytes, which every type fits: the body of rowdot.c and
 * rowdot_dotprod.c. A row is unpacked once for up to four activations; its sum is the same whatever shares the call.
 */
#include "kernels/aarch64/blocks.h"
#include "kernels/aarch64/sparseq.h"
#include "kernels/isa.h"

enum { MANY = 4 };                              /* activations at a time */

typedef struct sums { vf s[MANY]; float m[MANY]; } sums;

INLINE sums no_sums(void) { return (sums){{v_zero(), v_zero(), v_zero(), v_zero()}, {0}}; }

INLINE void store_sums(const sums *a, int T, float *y, int64_t ldy) {
    for (int t = 0; t < T; t++) y[t * ldy] = v_sum(a->s[t]) + a->m[t];
}

/* Σ mn Σ x of both halves. */
INLINE int32_t min_sum(const block *w, int8x16_t x0, int8x16_t x1) { return w->mn[0] * vaddlvq_s8(x0) + w->mn[1] * vaddlvq_s8(x1); }

INLINE void row_tokens(type k, const uint8_t *row, int64_t cols, const tt_q8 *x, int64_t t0, int T, float *y, int64_t ldy) {
    sums a = no_sums();
    for (int64_t b = 0; 32 * b < cols; b++) {
        const block w = load_block(k, row, b);
        const float d = two_scales(k) ? w.d : w.d * (float)w.sc[0], m = w.m * (float)w.mn[0];
        v_prefetch(row + 34 * b + 1024);
        for (int t = 0; t < T; t++) {
            const int64_t at = (t0 + t) * x->blocks + b;
            const int8_t *q = x->q + (t0 + t) * x->n_pad + 32 * b;
            const int8x16_t x0 = vld1q_s8(q), x1 = vld1q_s8(q + 16);
            int32x4_t s = dot16(zero32(), w.q[0], x0);
            if (two_scales(k)) s = vmlaq_n_s32(vmulq_n_s32(s, w.sc[0]), dot16(zero32(), w.q[1], x1), w.sc[1]);
            else s = dot16(s, w.q[1], x1);
            a.s[t] = vfmaq_n_f32(a.s[t], vcvtq_f32_s32(s), d * x->d[at]);
            if (has_min(k)) a.m[t] += x->d[at] * (k == Q2_K ? w.m * (float)min_sum(&w, x0, x1) : m * (float)x->sum[at]);
        }
    }
    store_sums(&a, T, y, ldy);
}

INLINE void rowdot(type k, const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
    for (int64_t t = 0; t < x->T; t += MANY)
        for (int64_t r = 0; r < rows; r++) {
            const uint8_t *row = w + r * row_bytes;
            float *to = y + t * ldy + r;
            if (x->T - t == 1) row_tokens(k, row, cols, x, t, 1, to, ldy);
            else if (x->T - t == 2) row_tokens(k, row, cols, x, t, 2, to, ldy);
            else if (x->T - t == 3) row_tokens(k, row, cols, x, t, 3, to, ldy);
            else row_tokens(k, row, cols, x, t, 4, to, ldy);
        }
}

#define ROWDOT(k, name)                                                                                                                  \
    static void rowdot_##name(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) { \
        rowdot(k, w, row_bytes, rows, cols, x, y, ldy);                                                                                  \
    }
BLOCK_TYPES(ROWDOT)

/* ---- our own codes: 32 of them off by the middle of their range, which leaves signed bytes; `kept`: Σ x of those that are there ---- */

typedef struct grid { float d; int half; } grid;       /* w = d (2 q + half), q centred */

INLINE grid grid_of(uint16_t scale) { return (grid){0.5f * half_to_f32(scale & 0x7fffu), scale >> 15}; }

INLINE void add_codes(sums *a, const int8x16_t q[2], const int8x16_t *keep, grid g, const tt_q8 *x, int64_t t0, int T, int64_t b) {
    for (int t = 0; t < T; t++) {
        const int64_t at = (t0 + t) * x->blocks + b;
        const int8_t *p = x->q + (t0 + t) * x->n_pad + 32 * b;
        const int8x16_t x0 = vld1q_s8(p), x1 = vld1q_s8(p + 16);
        const int32_t dot = vaddvq_s32(dot16(dot16(zero32(), q[0], x0), q[1], x1));
        int32_t sum = 0;
        if (g.half) sum = keep ? vaddlvq_s8(vandq_s8(x0, keep[0])) + vaddlvq_s8(vandq_s8(x1, keep[1])) : x->sum[at];
        a->m[t] += x->d[at] * (g.d * (float)(2 * dot + sum));
    }
}

/* d q + min with q centred: the middle is put into the minimum. */
INLINE void add_codes_min(sums *a, const int8x16_t q[2], float d, float m, const tt_q8 *x, int64_t t0, int T, int64_t b) {
    for (int t = 0; t < T; t++) {
        const int64_t at = (t0 + t) * x->blocks + b;
        const int8_t *p = x->q + (t0 + t) * x->n_pad + 32 * b;
        const int32_t dot = vaddvq_s32(dot16(dot16(zero32(), q[0], vld1q_s8(p)), q[1], vld1q_s8(p + 16)));
        a->m[t] += x->d[at] * (d * (float)dot + m * (float)x->sum[at]);
    }
}

static void rowdot_group(const uint8_t *codes, int64_t code_stride, const uint16_t *scales, const uint16_t *mins, int64_t scale_stride, int bits, int group,
                         int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
    uint8_t unpacked[128] = {0};                /* those beyond the end of a row meet activations of 0 */
    const uint8x16_t middle = vdupq_n_u8((uint8_t)(1 << (bits - 1)));
    for (int64_t t = 0; t < x->T; t += MANY)
        for (int64_t r = 0; r < rows; r++) {
            const int T = x->T - t < MANY ? (int)(x->T - t) : MANY;
            const uint8_t *p = codes + r * code_stride;
            sums a = no_sums();
            for (int64_t c = 0; c < cols; c += group) {
                const int64_t n = group < cols - c ? group : cols - c;
                const int64_t at = r * scale_stride + c / group;
                const grid g = grid_of(scales[at]);
                const float d = half_to_f32(scales[at]), m = mins ? half_to_f32(mins[at]) + d * (float)(1 << (bits - 1)) : 0.0f;
                tt__codes_unpack(bits, p, n, unpacked);
                p += tt__codes_bytes(bits, n);
                for (int64_t i = 0; i < n; i += 32) {
                    const int8x16_t q[2] = {as_signed(vsubq_u8(vld1q_u8(unpacked + i), middle)), as_signed(vsubq_u8(vld1q_u8(unpacked + i + 16), middle))};
                    if (mins) add_codes_min(&a, q, d, m, x, t, T, (c + i) / 32);
                    else add_codes(&a, q, NULL, g, x, t, T, (c + i) / 32);
                }
            }
            store_sums(&a, T, y + t * ldy + r, ldy);
        }
}

static void rowdot_sparseq(const uint64_t *mask, int64_t mask_stride, const uint8_t *codes, const uint64_t *start, const uint16_t *scales, int64_t scale_stride,
                           int bits, int group, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
    int8_t q[64], keep[64];
    for (int64_t t = 0; t < x->T; t += MANY)
        for (int64_t r = 0; r < rows; r++) {
            const int T = x->T - t < MANY ? (int)(x->T - t) : MANY;
            const uint8_t *p = codes + start[r];
            sums a = no_sums();
            for (int64_t c = 0; c < cols; c += 64) {
                p += expand64(bits, mask[r * mask_stride + c / 64], p, q, keep);
                for (int64_t i = 0; i < 64 && c + i < cols; i += 32) {
                    const int8x16_t w[2] = {vld1q_s8(q + i), vld1q_s8(q + i + 16)}, there[2] = {vld1q_s8(keep + i), vld1q_s8(keep + i + 16)};
                    add_codes(&a, w, there, grid_of(scales[r * scale_stride + (c + i) / group]), x, t, T, (c + i) / 32);
                }
            }
            store_sums(&a, T, y + t * ldy + r, ldy);
        }
}

INLINE void override_rowdot(tt_kernels *k) {
#define SET(t, name) k->rowdot_##name = rowdot_##name;
    BLOCK_TYPES(SET)
#undef SET
    k->rowdot_group = rowdot_group;
    k->rowdot_sparseq = rowdot_sparseq;
}
