/* Panels without the dot product, and their decoding at every level. */
#include "kernels/aarch64/panel_rowdot.h"

/* 16 neighbouring columns of four rows, from four quads of a part. */
INLINE void transpose_quads(int bits, tt_panel_grid grid, const uint8_t *part, int k, uint8x16_t rows[4]) {
    uint32x4_t x[4];
    for (int i = 0; i < 4; i++) x[i] = vreinterpretq_u32_u8(looked_up(grid, quad_codes(bits, part, k + i)));
    const uint32x4_t a = vtrn1q_u32(x[0], x[1]), b = vtrn2q_u32(x[0], x[1]), c = vtrn1q_u32(x[2], x[3]), d = vtrn2q_u32(x[2], x[3]);
    rows[0] = vreinterpretq_u8_u32(vcombine_u32(vget_low_u32(a), vget_low_u32(c)));
    rows[1] = vreinterpretq_u8_u32(vcombine_u32(vget_low_u32(b), vget_low_u32(d)));
    rows[2] = vreinterpretq_u8_u32(vcombine_u32(vget_high_u32(a), vget_high_u32(c)));
    rows[3] = vreinterpretq_u8_u32(vcombine_u32(vget_high_u32(b), vget_high_u32(d)));
}

/* weight = d (q + offset) + m: a product that is exact, one rounding, and zeros are +0. n ≥ 1 of the 16 are wanted. */
INLINE void put_row(float *dst, uint8x16_t q, uint16_t scale, float m, int bits, tt_panel_grid grid, int64_t n) {
    const float middle = (float)middle_of(grid, bits);
    const vf d = v_set1(half_to_f32(grid == TT_GRID_HALF ? scale & 0x7fffu : scale));
    const vf offset = v_set1(grid == TT_GRID_MIN ? 0.0f : grid == TT_GRID_HALF && scale & 0x8000u ? 0.5f - middle : -middle);
    const uint16x8_t low = vmovl_u8(vget_low_u8(q)), high = vmovl_high_u8(q);
    const uint32x4_t codes[4] = {vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)};
    for (int i = 0; i < 4 && 4 * i < n; i++) v_store_n(dst + 4 * i, v_fma(d, v_add(vcvtq_f32_u32(codes[i]), offset), v_set1(m)), n - 4 * i);
}

INLINE void decode_panel(int bits, const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    const int64_t rows = w->rows - ROWS * p < ROWS ? w->rows - ROWS * p : ROWS;
    for (int64_t c = c0; c < c1; c += UNIT) {
        const uint8_t *unit = w->codes + (p * w->units + c / UNIT) * tt__panel_unit_bytes(bits);
        for (int i = 0; i < UNIT && c + i < c1; i += 16) {
            const int64_t at = (p * w->groups + (c + i) / w->group) * ROWS;
            for (int r = 0; r < rows; r += 4) {
                uint8x16_t q[4];
                transpose_quads(bits, w->grid, unit + 4 * r, i / 4, q);
                for (int j = 0; j < 4 && r + j < rows; j++)
                    put_row(dst + (r + j) * ld + c - c0 + i, q[j], w->scales[at + r + j], w->grid == TT_GRID_MIN ? half_to_f32(w->mins[at + r + j]) : 0.0f,
                            bits, w->grid, c1 - c - i);
            }
        }
    }
}

static void panel_decode(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    switch (w->bits) {
    case 2: decode_panel(2, w, p, c0, c1, dst, ld); break;
    case 3: decode_panel(3, w, p, c0, c1, dst, ld); break;
    case 4: decode_panel(4, w, p, c0, c1, dst, ld); break;
    case 5: decode_panel(5, w, p, c0, c1, dst, ld); break;
    default: decode_panel(8, w, p, c0, c1, dst, ld); break;
    }
}

void tt__kernels_neon_panel(tt_kernels *k) {
    k->panel_rowdot = panel_rowdot;
    k->panel_decode = panel_decode;
}
