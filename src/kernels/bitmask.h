/* bitmask: run format of unstructured masks with 4-bit codes, in panels of 16 rows. What sparseq stores row by row lies here so that the
 * codes of 16 rows x 4 columns are put to their places by one byte expansion.
 *
 *     mask     u64 [panels][units][16]    block j of a unit: 16 rows x columns 4 j … 4 j + 3; bit 4 r + q: row r, column 4 j + q is kept
 *     codes    bytes, those of panel p from start[p]: two streams of nibbles side by side, the kept codes of the even blocks in the low
 *              nibbles and those of the odd blocks in the high ones, in the order of blocks and bits; code - 8 in two's complement, so that a
 *              place that nothing is put to is exactly 0. A panel has as many bytes as the longer stream; 64 bytes more end the last one.
 *     start    u64 [panels + 1]
 *     scales   f16 [panels][groups][16]   of 32, 64 or 128 columns; w = |d| (c + h), h = 1/2 where the sign bit of d is set, else 0
 *
 * Missing rows and columns are not kept. At 50 %: 1 + 2 + 16/group bits per weight and 8 bytes per panel.
 */
#ifndef TT_KERNELS_BITMASK_H
#define TT_KERNELS_BITMASK_H
#include <stdint.h>

enum { TT_BITMASK_ROWS = 16, TT_BITMASK_UNIT = 64, TT_BITMASK_BLOCKS = 16, TT_BITMASK_TAIL = 64 };

typedef struct tt_bitmask {
    int group;
    int64_t rows, cols, units, groups;
    const uint64_t *mask, *start;
    const uint8_t *codes;
    const uint16_t *scales;
} tt_bitmask;

/* Where a panel's two streams stand. */
typedef struct tt_cursors { const uint8_t *at[2]; } tt_cursors;

/* Before unit u of panel p. */
static inline tt_cursors tt__bitmask_cursors(const tt_bitmask *w, int64_t p, int64_t u) {
    const uint64_t *m = w->mask + p * w->units * TT_BITMASK_BLOCKS;
    tt_cursors c = {{w->codes + w->start[p], w->codes + w->start[p]}};
    for (int64_t i = 0; i < u * TT_BITMASK_BLOCKS; i++) c.at[i % 2] += __builtin_popcountll(m[i]);
    return c;
}
#endif
