/* Run format of dense codes: panels of 16 rows, so that one vector register holds the same columns of 16 rows and no sum runs across a
 * register. The layout is the same on every instruction set.
 *
 * A panel is 16 rows of W (missing rows of the last one: codes and scales 0) cut into units of 64 columns (missing columns: codes 0; the
 * activations there are 0). Unit u of panel p lies at codes + (p * units + u) * 128 * bits bytes, always 64-byte aligned:
 *
 *     bits 4   8 vectors of 64 bytes. Vector j, byte 4 r + q: low nibble column 8 j + q, high nibble column 8 j + 4 + q of row r
 *     bits 2   4 vectors. Vector j, byte 4 r + q, bits 2 k, 2 k + 1: column 16 j + 4 k + q of row r
 *     bits 8   16 vectors. Vector j, byte 4 r + q: column 4 j + q of row r, code 0 … 255 (a signed weight + 128)
 *     bits 5   two halves of 32 columns, each 4 vectors of low nibbles as bits 4 has them, then one: bit k of byte 4 r + q belongs to column 4 k + q
 *     bits 6   two halves of 32 columns, each 4 vectors of low nibbles, then 2 for the rest as bits 2 has them
 *     bits 3   two halves of 32 columns, each three vectors A, B, C. Byte 4 r + q holds column 4 k + q of the half for quad k:
 *              quads 0, 1, 2: bits 0-2 of A, B, C;  quads 3, 4, 5: bits 3-5 of A, B, C;
 *              quad 6: bits 7, 6 of A are its bits 2, 1 and bit 6 of C its bit 0;  quad 7: bits 7, 6 of B and bit 7 of C likewise
 *
 *     bits 16  floats as they are. BF16: 32 vectors; vector j, word r: columns 2 j (low half) and 2 j + 1 of row r, the factor of a product of
 *              pairs. F16: 64 halves of vectors; half c: column c of the 16 rows
 *
 * Scales are f16 [panels][groups][16], groups = ceil(64 units / group) of 32, 64 or 128 columns. What a code means, `grid`:
 *
 *     OFFSET   w = d (q - 2^(bits-1))                      d signed
 *     HALF     w = |d| (q - 2^(bits-1) + h)                h = 1/2 where the sign bit of d is set, else 0
 *     MIN      w = d q + m                                 m f16, as the scales lie
 *     TABLE    w = d (table[q] - 128)                      bits 4
 *
 * Types with scales of scales (Q2_K … Q6_K) have groups of 256 columns, whole ones, and 32 bytes of small scales per 32 columns of a panel,
 * subs [panels][2 units][2][16]; kernels of their own, super_rowdot and super_decode:
 *
 *     SINGLE   w = d s (q - 2^(bits-1))                    bits 3, 6; s int8 of the first 16 columns, then of the others
 *     PAIR     w = d s q - m t                             bits 4, 5; s u8 of the 32 columns, then t; both below 64
 *     NIBBLES  w = d s q - m t                             bits 2; s + 16 t u8 of the first 16 columns, then of the others
 *
 * Floats (grids F16, BF16; bits 16) have no scales and kernels of their own, float_rowdot, float_columns and float_decode, which take
 * activations as they are: products of f32 in f32.
 */
#ifndef TT_KERNELS_PANEL_H
#define TT_KERNELS_PANEL_H
#include <stdint.h>

enum { TT_PANEL_ROWS = 16, TT_PANEL_UNIT = 64 };
typedef enum tt_panel_grid { TT_GRID_OFFSET, TT_GRID_HALF, TT_GRID_MIN, TT_GRID_TABLE, TT_GRID_SINGLE, TT_GRID_PAIR, TT_GRID_NIBBLES, TT_GRID_F16, TT_GRID_BF16 } tt_panel_grid;

typedef struct tt_panel {
    int bits, group;                  /* 2, 3, 4, 5, 8; 32, 64, 128 (2 … 6 and 256 with small scales; 16 and 64, floats) */
    tt_panel_grid grid;
    int64_t rows, cols;
    int64_t units, groups;            /* of a row, rounded up */
    const uint8_t *codes;             /* [panels][units][128 bits] */
    const uint16_t *scales, *mins;    /* f16 [panels][groups][16], NULL with floats; mins where the grid has m, else NULL */
    const uint8_t *subs;              /* small scales, else NULL */
} tt_panel;

static inline int tt__panel_is_super(const tt_panel *w) { return w->grid >= TT_GRID_SINGLE && w->grid <= TT_GRID_NIBBLES; }
static inline int tt__panel_is_float(const tt_panel *w) { return w->grid >= TT_GRID_F16; }
static inline int64_t tt__panels(int64_t rows) { return (rows + TT_PANEL_ROWS - 1) / TT_PANEL_ROWS; }
static inline int64_t tt__panel_unit_bytes(int bits) { return (int64_t)bits * (TT_PANEL_ROWS * TT_PANEL_UNIT / 8); }

static inline int tt__panel_has_mins(const tt_panel *w) { return w->grid == TT_GRID_MIN || w->grid == TT_GRID_PAIR || w->grid == TT_GRID_NIBBLES; }
/* The zero among the codes of a grid, as its logarithm; -1: the grid has a minimum instead. */
static inline int tt__panel_middle(tt_panel_grid grid, int bits) {
    return grid == TT_GRID_MIN || grid == TT_GRID_PAIR || grid == TT_GRID_NIBBLES ? -1 : grid == TT_GRID_TABLE ? 7 : bits - 1;
}

/* Of IQ4_NL. */
static const uint8_t tt__panel_table[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

/* One unit to and from codes [16][64] (row-major, each < 2^bits). */
void tt__panel_pack(int bits, const uint8_t *codes, uint8_t *unit);
void tt__panel_unpack(int bits, const uint8_t *unit, uint8_t *codes);
/* Codes [16][64] of unit u of panel p as they are multiplied: TABLE looked up. */
void tt__panel_codes(const tt_panel *w, int64_t p, int64_t u, uint8_t *codes);
#endif
