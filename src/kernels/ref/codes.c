/* Our own code formats, dense groups and sparse blocks: the definitions. Layouts: kernels.inc and codes.h. */
#include "kernels/codes.h"
#include "kernels/half.h"
#include "kernels/isa.h"

/* The grid of a scale: weight = d * (q + offset) + m, one rounding of a product that is exact in f32 (11 bits times 9). */
typedef struct grid { float d, offset, m; } grid;

static grid grid_of(uint16_t scale, int bits) {
    const float middle = (float)(1 << (bits - 1));
    return (grid){half_to_f32(scale & 0x7fffu), scale & 0x8000u ? 0.5f - middle : -middle, 0.0f};
}

/* With minima the codes count from the minimum, and the scale has a sign of its own. */
static grid group_grid(const uint16_t *scales, const uint16_t *mins, int64_t g, int bits) {
    return mins ? (grid){half_to_f32(scales[g]), 0.0f, half_to_f32(mins[g])} : grid_of(scales[g], bits);
}

/* Products with one q8 block or less: dx * (d * Σ (2 q + 2 offset) x / 2 + m * Σ x), the sums in integers. */
static float dot_codes(const uint8_t *codes, const uint8_t *keep, int64_t n, grid g, const int8_t *x, float dx) {
    const int twice = (int)(2.0f * g.offset);
    int32_t s = 0, sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (!keep || keep[i]) s += (2 * codes[i] + twice) * x[i], sum += x[i];
    return dx * (g.d * (0.5f * (float)s) + g.m * (float)sum);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void rowdot_group(const uint8_t *codes, int64_t code_stride, const uint16_t *scales, const uint16_t *mins, int64_t scale_stride, int bits, int group,
                         int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
    uint8_t unpacked[128];
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *p = codes + r * code_stride;
        for (int64_t t = 0; t < x->T; t++) y[t * ldy + r] = 0.0f;
        for (int64_t c = 0; c < cols; c += group) {
            const int64_t n = least(group, cols - c);
            const grid g = group_grid(scales, mins, r * scale_stride + c / group, bits);
            tt__codes_unpack(bits, p, n, unpacked);
            p += tt__codes_bytes(bits, n);
            for (int64_t t = 0; t < x->T; t++)
                for (int64_t i = 0; i < n; i += 32)
                    y[t * ldy + r] += dot_codes(unpacked + i, 0, least(32, n - i), g, x->q + t * x->n_pad + c + i,
                                                x->d[t * x->blocks + (c + i) / 32]);
        }
    }
}

static void decode_group(const uint8_t *codes, const uint16_t *scales, const uint16_t *mins, int bits, int group, int64_t cols, int64_t c0, int64_t c1, float *dst) {
    uint8_t unpacked[128];
    const uint8_t *p = codes + c0 / group * tt__codes_bytes(bits, group);
    (void)cols;
    for (int64_t c = c0; c < c1; c += group) {
        const int64_t n = least(group, c1 - c);
        const grid g = group_grid(scales, mins, c / group, bits);
        tt__codes_unpack(bits, p, n, unpacked);
        p += tt__codes_bytes(bits, n);
        for (int64_t i = 0; i < n; i++) dst[c - c0 + i] = g.d * ((float)unpacked[i] + g.offset) + g.m;      /* no -0 */
    }
}

/* Codes and keep flags of 64 columns; returns the bytes that the codes took. */
static int64_t expand64(int bits, uint64_t mask, const uint8_t *in, uint8_t codes[64], uint8_t keep[64]) {
    uint8_t kept[64];
    const int64_t n = __builtin_popcountll(mask);
    tt__stream_unpack(bits, in, n, kept);
    for (int i = 0, k = 0; i < 64; i++) {
        keep[i] = mask >> i & 1;
        codes[i] = keep[i] ? kept[k++] : 0;
    }
    return tt__stream_bytes(bits, n);
}

static void rowdot_sparseq(const uint64_t *mask, int64_t mask_stride, const uint8_t *codes, const uint64_t *start, const uint16_t *scales,
                           int64_t scale_stride, int bits, int group, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
    uint8_t q[64], keep[64];
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *p = codes + start[r];
        for (int64_t t = 0; t < x->T; t++) y[t * ldy + r] = 0.0f;
        for (int64_t c = 0; c < cols; c += 64) {
            p += expand64(bits, mask[r * mask_stride + c / 64], p, q, keep);
            for (int64_t i = 0; i < 64 && c + i < cols; i += 32) {
                const grid g = grid_of(scales[r * scale_stride + (c + i) / group], bits);
                for (int64_t t = 0; t < x->T; t++)
                    y[t * ldy + r] += dot_codes(q + i, keep + i, least(32, cols - c - i), g, x->q + t * x->n_pad + c + i,
                                                x->d[t * x->blocks + (c + i) / 32]);
            }
        }
    }
}

static void decode_sparseq(const uint64_t *mask, const uint8_t *codes, const uint16_t *scales, int bits, int group, int64_t cols,
                           int64_t c0, int64_t c1, float *dst) {
    uint8_t q[64], keep[64];
    const uint8_t *p = codes;
    (void)cols;
    for (int64_t b = 0; b < c0 / 64; b++) p += tt__stream_bytes(bits, __builtin_popcountll(mask[b]));
    for (int64_t c = c0; c < c1; c += 64) {
        p += expand64(bits, mask[c / 64], p, q, keep);
        for (int64_t i = 0; i < 64 && c + i < c1; i++) {
            const grid g = grid_of(scales[(c + i) / group], bits);
            dst[c - c0 + i] = keep[i] ? g.d * ((float)q[i] + g.offset) : 0.0f;
        }
    }
}

void tt__kernels_ref_codes(tt_kernels *k) {
    k->rowdot_group = rowdot_group;
    k->decode_group = decode_group;
    k->rowdot_sparseq = rowdot_sparseq;
    k->decode_sparseq = decode_sparseq;
}
