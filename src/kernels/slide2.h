/* slide2: half of the weights, each with a 2-bit place. The s-th kept weight of a row lies in one of the columns 2s-1 … 2s+2; kept columns
 * rise, and every 64 columns (a unit) hold exactly the slots 32u … 32u+31, so that a unit stands for itself. Every 2:4 mask is of this
 * kind. 2 x (4 + 2) bits per four columns and 16/64 or 16/128 for scales: 3.25 or 3.125 bits per weight.
 *
 * A row of `cols` columns has ceil(cols / 2) slots; the rest of its last unit is filled with code 0 at offset 1.
 *
 * A panel is 16 rows (missing rows of the last one: filled likewise, scales 0). Unit u of panel p lies at codes + (p * units + u) * 384:
 *
 *     4 vectors of 64 bytes, codes    vector j, byte 4 r + q: low nibble slot 8 j + q, high nibble slot 8 j + 4 + q of row r (two's complement)
 *     2 vectors of 64 bytes, offsets  vector i, byte 4 r + q, bits 2 k, 2 k + 1: slot 16 i + 4 k + q of row r, its column is 2 s - 1 + offset
 *
 * Scales are f16 [panels][groups][16], one per 64 or 128 columns; w = |d| (c + h), h = 1/2 where the sign bit of d is set, else 0.
 *
 * Activations (tt_unrolled): rounded to 8 bits with one scale per unit, as unsigned bytes x + 128, each slot's four candidates side by side:
 * table[slot][k] = column 2 s - 1 + k. So one byte shuffle inside 16 bytes picks what four slots of a row need. Columns that do not
 * exist, or that belong to another unit, are 128, that is 0. (PERFORMANCE: an unrolled table costs 2 bytes per column, once per token.)
 */
#ifndef TT_KERNELS_SLIDE2_H
#define TT_KERNELS_SLIDE2_H
#include <stdint.h>

enum { TT_SLIDE2_ROWS = 16, TT_SLIDE2_UNIT = 64, TT_SLIDE2_SLOTS = 32, TT_SLIDE2_BYTES = 384, TT_SLIDE2_TABLE = 128 };

typedef struct tt_slide2 {
    int group;                        /* columns that share a scale: 64 or 128 */
    int64_t rows, cols, units, groups;
    const uint8_t *codes;             /* [panels][units][384] */
    const uint16_t *scales;           /* f16 [panels][groups][16] */
} tt_slide2;

/* table [T][units][128], d [T][units] */
typedef struct tt_unrolled { int64_t T, units; uint8_t *table; float *d; } tt_unrolled;

/* Where slot s (0 … 31) of row r lies in a unit. */
static inline int tt__slide2_code(const uint8_t *unit, int r, int s) {
    const int byte = unit[s / 8 * 64 + 4 * r + s % 4], nibble = s / 4 % 2 ? byte >> 4 : byte & 15;
    return nibble < 8 ? nibble : nibble - 16;
}
static inline int tt__slide2_offset(const uint8_t *unit, int r, int s) { return unit[256 + s / 16 * 64 + 4 * r + s % 4] >> s / 4 % 4 * 2 & 3; }
static inline void tt__slide2_put(uint8_t *unit, int r, int s, int code, int offset) {
    unit[s / 8 * 64 + 4 * r + s % 4] |= (uint8_t)((code & 15) << s / 4 % 2 * 4);
    unit[256 + s / 16 * 64 + 4 * r + s % 4] |= (uint8_t)(offset << s / 4 % 4 * 2);
}

/* Half of an f16 scale without its sign (the grid). Only below 2^-13 may its last bit be rounded. */
static inline uint16_t tt__half_scale(uint16_t h) {
    const uint16_t m = h & 0x7fff;
    if (m >= 0x0800) return (uint16_t)(m - 0x0400);
    return (uint16_t)((m >> 1) + (m & m >> 1 & 1));
}

/* What every level's unrolling shares: the unit's scale d and 127 / max|x|; the rounding is that of quant_q8. */
typedef struct tt_unit_scale { float d, inv; } tt_unit_scale;
static inline tt_unit_scale tt__unit_scale(uint32_t top_bits) {
    union { uint32_t u; float f; } top = {top_bits};
    if (top_bits >= 0x7f800000u) {
        union { uint32_t u; float f; } nan = {0x7fc00000u};
        return (tt_unit_scale){nan.f, 0};
    }
    if (top.f < 0x1p-100f) return (tt_unit_scale){0, 0};
    return (tt_unit_scale){top.f / 127.0f, 127.0f / top.f};
}
#endif
