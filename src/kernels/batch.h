/* Many activations rounded to 8 bits, for products with panels (panel.h): a table's panel_gemm takes them in tiles of `tokens` rows, and
 * lanes of a product are rows of W, so an activation is only ever broadcast, four columns at a time. One scale for `per` columns, 32 or 64:
 *
 *     x[t, c] ≈ d * q          d = max|x| / 127 of the columns, q = x * (127 / max|x|) rounded half to even, |q| ≤ 127
 *
 * The same special cases as quant_q8, and with 32 the same numbers. 64 saves panels of wider groups half of the scaling. Unit u is columns 64 u … 64 u + 63; columns beyond n and tokens beyond T hold q = 0, d = 0.
 *
 *     q     [tiles][16 units][tokens][4]       quads of columns
 *     d     [tiles][units][2][tokens]          of the halves of the unit; with 64 they are equal
 *     less  [tiles][units][3][tokens]          -Σ q of the first half of the unit, of the second, of all: where a product with codes
 *     mass  [tiles][units][3][tokens]          that are off by a constant starts (times the constant); and d Σ q, for codes with a minimum
 *                                              (with 32, that of all is 0)
 *     quarters  [tiles][units][2][tokens][2]   i16, -Σ q of each 16 columns, pairs of a half side by side: for panels with small scales
 */
#ifndef TT_KERNELS_BATCH_H
#define TT_KERNELS_BATCH_H
#include <stddef.h>
#include <stdint.h>

typedef struct tt_batch {
    int64_t T, n, units, tiles;
    int tokens, per;
    int8_t *q;
    float *d;
    int32_t *less;
    float *mass;
    int16_t *quarters;
} tt_batch;

/* Workspace of T rows of n for tiles of any width, and its division. */
size_t tt__batch_bytes(int64_t T, int64_t n);
void tt__batch_init(tt_batch *b, int tokens, int per, int64_t T, int64_t n, void *ws);
#endif
