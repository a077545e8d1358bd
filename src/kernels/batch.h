/* Many activations rounded to 8 bits, for products with panels (panel.h): a table's panel_gemm takes them in tiles of `tokens` rows, and
 * lanes of a product are rows of W, so an activation is only ever broadcast, four columns at a time. One scale per 64 columns:
 *
 *     x[t, c] ≈ d * q          d = max|x| / 127 of the 64 columns, q = x * (127 / max|x|) rounded half to even, |q| ≤ 127
 *
 * The same special cases as quant_q8. Unit u is columns 64 u … 64 u + 63; columns beyond n and tokens beyond T hold q = 0, d = 0.
 *
 *     q     [tiles][16 units][tokens][4]       quads of columns
 *     d     [tiles][units][tokens]
 *     less  [tiles][units][3][tokens]          -Σ q of the first half of the unit, of the second, of all: where a product with codes
 *     mass  [tiles][units][3][tokens]          that are off by a constant starts (times the constant); and d Σ q, for codes with a minimum
 */
#ifndef TT_KERNELS_BATCH_H
#define TT_KERNELS_BATCH_H
#include <stddef.h>
#include <stdint.h>

typedef struct tt_batch {
    int64_t T, n, units, tiles;
    int tokens;
    int8_t *q;
    float *d;
    int32_t *less;
    float *mass;
} tt_batch;

/* Workspace of T rows of n for tiles of any width, and its division. */
size_t tt__batch_bytes(int64_t T, int64_t n);
void tt__batch_init(tt_batch *b, int tokens, int64_t T, int64_t n, void *ws);
#endif
