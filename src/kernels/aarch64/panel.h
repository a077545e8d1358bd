/* Codes of panels of 16 rows (kernels/panel.h): a vector of 64 bytes is four registers of 4 rows x 4 columns. Included by files of this folder
 * only.
 *
 * Unsigned codes of 2 to 5 bits are signed bytes as they are; what they are off by comes off in integers, as a multiple of Σx. Codes of 8 bits
 * and of a table go in less 128. Without the dot product, 16 bits hold eight products of small codes (8 * 31 * 127 = 31496) and two of large ones
 * (2 * 128 * 127 = 32512). So the integer part equals the reference exactly.
 */
#ifndef TT_KERNELS_AARCH64_PANEL_H
#define TT_KERNELS_AARCH64_PANEL_H
#include "kernels/aarch64/dot.h"
#include "kernels/half.h"
#include "kernels/isa.h"

enum { UNIT = TT_PANEL_UNIT, ROWS = TT_PANEL_ROWS };

INLINE uint8x16_t field(uint8x16_t v, int shift, int mask) {
    if (shift) v = v >> (uint8_t)shift;
    return shift && mask == 255 >> shift ? v : vandq_u8(v, vdupq_n_u8((uint8_t)mask));
}

/* Codes of quad k of a unit, or (bits 3) of half a unit or both, for the rows of one register; `unit` already points at those rows. */
INLINE uint8x16_t quad_codes(int bits, const uint8_t *unit, int k) {
    if (bits == 8) return vld1q_u8(unit + 64 * k);
    if (bits == 4) return field(vld1q_u8(unit + 64 * (k / 2)), k % 2 * 4, 15);
    if (bits == 2) return field(vld1q_u8(unit + 64 * (k / 4)), k % 4 * 2, 3);
    if (bits == 5) {
        const uint8_t *half = unit + 320 * (k / 8);
        const uint8x16_t fifth = vandq_u8(vld1q_u8(half + 256), vdupq_n_u8((uint8_t)(1 << k % 8)));
        return vorrq_u8(field(vld1q_u8(half + 64 * (k % 8 / 2)), k % 2 * 4, 15), k % 8 < 4 ? fifth << (uint8_t)(4 - k % 8) : fifth >> (uint8_t)(k % 8 - 4));
    }
    const uint8_t *a = unit + k / 8 * 192;
    const int i = k % 8;
    if (i < 6) return field(vld1q_u8(a + 64 * (i % 3)), i / 3 * 3, 7);
    return vorrq_u8(field(vld1q_u8(a + 64 * (i - 6)), 5, 6), field(vld1q_u8(a + 128), i, 1));
}

INLINE uint8x16_t looked_up(tt_panel_grid grid, uint8x16_t q) { return grid == TT_GRID_TABLE ? vqtbl1q_u8(vld1q_u8(tt__panel_table), q) : q; }

/* As signed bytes: less `code_offset`. */
INLINE int code_offset(int bits, tt_panel_grid grid) { return bits == 8 || grid == TT_GRID_TABLE ? 128 : 0; }
INLINE int8x16_t signed_codes(int bits, tt_panel_grid grid, const uint8_t *unit, int k) {
    const uint8x16_t q = looked_up(grid, quad_codes(bits, unit, k));
    return vreinterpretq_s8_u8(code_offset(bits, grid) ? veorq_u8(q, vdupq_n_u8(128)) : q);
}

/* A weight's zero among its codes; minima come in floats. */
INLINE int middle_of(tt_panel_grid grid, int bits) { return grid == TT_GRID_MIN ? 0 : 1 << tt__panel_middle(grid, bits); }

INLINE void store_rows(float *y, vf x, int64_t rows) {
    if (rows >= 4) v_store(y, x);
    else if (rows > 0) v_store_n(y, x, rows);
}
#endif
