/* What the two sparse formats in panels share (kernels/slide2.h, kernels/bitmask.h): a weight is d / 2 * (2 c + h) in signed bytes, |2 c + h| ≤ 16,
 * a pruned one 0, so eight products with activations fit 16 bits; and a register of 4 rows x 4 columns is a quad as in panel.h. Included by
 * files of this folder only.
 */
#ifndef TT_KERNELS_AARCH64_HALVES_H
#define TT_KERNELS_AARCH64_HALVES_H
#include "kernels/aarch64/dot.h"

enum { ROWS = 16, UNIT = 64, QUADS = 16 };       /* quads of a unit */

/* Of four rows: half of |d|, and h in each byte of a row. */
typedef struct half_scales { vf d; int8x16_t h; } half_scales;

INLINE half_scales scales_of(const uint16_t *p) {
    const uint16x4_t s = vld1_u16(p);
    const uint32x4_t sign = vmulq_n_u32(vmovl_u16(vshr_n_u16(s, 15)), 0x01010101u);
    return (half_scales){v_mul(f16_bits(vand_u16(s, vdup_n_u16(0x7fff))), v_set1(0.5f)), vreinterpretq_s8_u32(sign)};
}

/* 2 c of the low or the high nibbles, two's complement. */
INLINE int8x16_t twice(uint8x16_t v, int high) {
    return vshrq_n_s8(vreinterpretq_s8_u8(high ? vandq_u8(v, vdupq_n_u8(0xf0)) : vshlq_n_u8(v, 4)), 3);
}

/* Four rows of a unit as floats, `rows` and `cols` of them there. */
INLINE void put_unit(const int8x16_t q[QUADS], vf d, int64_t rows, int64_t cols, float *dst, int64_t ld) {
    float scale[4];
    v_store(scale, d);
    for (int k = 0; k < QUADS && 4 * k < cols; k++) {
        const int16x8_t low = vmovl_s8(vget_low_s8(q[k])), high = vmovl_high_s8(q[k]);
        const int32x4_t row[4] = {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)};
        for (int r = 0; r < 4 && r < rows; r++) v_store_n(dst + r * ld + 4 * k, v_mul(v_set1(scale[r]), vcvtq_f32_s32(row[r])), cols - 4 * k);
    }
}

/* Quads of rows 4 part … as codes of 8 bits in a panel's unit. */
INLINE void put_codes(const int8x16_t q[QUADS], int part, uint8_t *unit) {
    for (int k = 0; k < QUADS; k++) vst1q_u8(unit + 64 * k + 16 * part, veorq_u8(vreinterpretq_u8_s8(q[k]), vdupq_n_u8(128)));
}

INLINE void store_rows(float *y, vf x, int64_t rows) {
    if (rows > 0) v_store_n(y, x, rows);
}
#endif
