/* The Hadamard transform of 16 vectors side by side (kernels/hadamard.h), written so that each level's compiler vectorises the lanes. Sums run
 * in one order everywhere, and products with ±1 are exact: bit-equal on all levels. */
#include "kernels/hadamard.h"
#include "kernels/isa.h"
#include <string.h>

enum { LANES = 16, MOST_ORDER = 28 };

/* x [outer][2][half][16] */
static void butterfly(float *x, int64_t n, int64_t half) {
    for (int64_t i = 0; i < n; i += 2 * half)
        for (int64_t j = i * LANES; j < (i + half) * LANES; j++) {
            const float a = x[j], b = x[j + half * LANES];
            x[j] = a + b, x[j + half * LANES] = a - b;
        }
}

/* x [outer][k][inner][16]: along the axis of length k */
static void paley_axis(float *x, int64_t n, int k, int64_t inner, int transpose) {
    float sign[MOST_ORDER][MOST_ORDER], in[MOST_ORDER][LANES];
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) sign[i][j] = (float)(transpose ? tt__paley(k, j, i) : tt__paley(k, i, j));
    for (int64_t o = 0; o < n; o += k * inner)
        for (int64_t c = o; c < o + inner; c++) {
            for (int j = 0; j < k; j++) memcpy(in[j], x + (c + j * inner) * LANES, sizeof in[j]);
            for (int i = 0; i < k; i++) {
                float sum[LANES] = {0};
                for (int j = 0; j < k; j++)
                    for (int l = 0; l < LANES; l++) sum[l] += sign[i][j] * in[j][l];
                memcpy(x + (c + i * inner) * LANES, sum, sizeof sum);
            }
        }
}

static void hadamard_lanes(float *x, int64_t n, int transpose) {
    int factor[8];
    int64_t power = 0, inner = n;
    const int count = tt__hadamard_factors(n, factor, &power);
    for (int f = 0; f < count; f++) {
        inner /= factor[f];
        paley_axis(x, n, factor[f], inner, transpose);
    }
    for (int64_t half = power / 2; half >= 1; half /= 2) butterfly(x, n, half);
}
