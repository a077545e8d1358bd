/* Trellis codes: weights as windows on a stream of bits (QTIP, arXiv 2406.11235: the bit-shift trellis).
 *
 * n weights of one column at k bits each are k n bits in a ring, little-endian. Weight i sees the window of L bits that begins at bit k i,
 * so neighbours share L - k bits, and a window becomes a value by arithmetic alone:
 *
 *     s_i = bits k i … k i + L - 1 of the ring                      value(s) = Σ of the four bytes of (s A mod 2^32) & 0x3f3f3f3f, less 126
 *
 * close to normal, |value| ≤ 126, spread about 37. Each bit string is a code word (tail-biting: nothing is stored but k bits per weight), 2^L
 * values are reachable from each place with k new bits: at 2 bits a unit normal source is coded with an error of 0.075 (L = 12), where
 * the best scalar code has 0.1175 and the limit is 0.0625.
 *
 * A matrix is coded column by column, because methods that push errors to later columns need a column whole. Rows are cut into tiles of `tile`;
 * the last one is filled up to a multiple of 16 rows. Every column has its own rate k, 0 (nothing stored, weights 0) to 6:
 *
 *     codes     column 0: tile 0, tile 1, … | column 1: …           n k / 8 bytes a tile of n rows
 *     w[r, c] = scales[c / group][r] * gains[c] * value(s)
 *
 * The lanes of the kernels are 16 rows of a tile: their windows begin 2 k bytes apart.
 */
#ifndef TT_KERNELS_TRELLIS_H
#define TT_KERNELS_TRELLIS_H
#include <stddef.h>
#include <stdint.h>

enum { TT_TRELLIS_LANES = 16, TT_TRELLIS_MOST_BITS = 6, TT_TRELLIS_LEAST_STATES = 10, TT_TRELLIS_MOST_STATES = 16, TT_TRELLIS_MOST_TILE = 256 };
#define TT_TRELLIS_FACTOR 0xcbac1fedu
#define TT_TRELLIS_SPREAD 36.946f     /* of the sum of four numbers that are uniform on 0 … 63 */

typedef struct tt_trellis {
    int states, tile;                 /* L; rows of a tile, a multiple of 16 */
    int64_t group;                    /* columns that share a scale */
    int64_t rows, padded, cols;       /* padded: rows up to a multiple of 16 */
    const uint8_t *rates;             /* [cols] */
    const int64_t *start;             /* [cols + 1] of a column in codes */
    const uint8_t *codes;
    const uint16_t *scales;           /* f16 [groups][padded], not negative */
    const uint16_t *gains;            /* f16 [cols], not negative */
} tt_trellis;

static inline int tt__trellis_value(uint32_t s) {
    const uint32_t y = s * TT_TRELLIS_FACTOR & 0x3f3f3f3fu;
    return (int)(y & 63) + (int)(y >> 8 & 63) + (int)(y >> 16 & 63) + (int)(y >> 24) - 126;
}

/* ---- the search for the best windows ---- */
/* Forward steps of the Viterbi algorithm. A window seen from the far end of a column is a state that shifts: s' = (s << bits | new) mod 2^L.
 * `least` [P + 16], P = 2^(L - bits): cost of the best path that ends with each value of the L - bits bits that the next window keeps; in: before
 * x[0], out: after x[n-1]. from[i][p]: the top bits h of the best state at i that leaves p, that is p + h P. Ties: the smallest h.
 *
 *     least'[p] = min over h of  least[s >> bits] + weight[i] (x[i] - value[s])²,   s = p + h P        (fma(weight d, d, least): equal on all levels) */
typedef struct tt_viterbi {
    int states, bits;
    int64_t n;
    const float *x, *weight, *value;  /* value [2^states] */
    float *least, *spare;             /* [P + 16] each */
    uint8_t *from;                    /* [n][P] */
} tt_viterbi;

struct tt_kernels;
/* Bytes that an encoding needs, and values of all states over the spread of the code. */
size_t tt__trellis_room(int states, int bits);
void tt__trellis_values(int states, float *value);
/* x [n] (in units of the code's spread; n a multiple of 16, 16 … 256) to the windows with the least Σ weight (x - value)², into the ring `codes`
 * (n bits / 8 bytes); y [n]: their values. bits 1 … 6, bits ≤ states - 4. Returns the sum. */
double tt__trellis_encode(const struct tt_kernels *k, int states, int bits, const float *value, const float *x, const float *weight, int64_t n, void *room,
                          uint8_t *codes, float *y);
/* The window of weight i of a tile of n. */
uint32_t tt__trellis_window(const uint8_t *codes, int64_t n, int bits, int states, int64_t i);
#endif
