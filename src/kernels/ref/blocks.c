/* Rounding of activations to 8 bits, decoders of the block types, and their products with rounded activations: the definitions. */
#include "kernels/isa.h"
#include "kernels/ref/blocks.h"
#include <math.h>

/* max |x| of up to 32 floats as bits: for non-negative floats the order of the bits is the order of the values, and NaN and
 * infinities are the largest. */
static uint32_t magnitude(const float *x, int n) {
    uint32_t top = 0;
    for (int i = 0; i < n; i++) {
        const uint32_t a = f32_bits(x[i]) & 0x7fffffffu;
        top = a > top ? a : top;
    }
    return top;
}

static void quant_q8(const float *x, int64_t n, int8_t *q, float *d, int32_t *sum) {
    for (int64_t b = 0; b * 32 < n; b++) {
        const int len = n - 32 * b < 32 ? (int)(n - 32 * b) : 32;
        const uint32_t top = magnitude(x + 32 * b, len);
        const float amax = half_bits_to_f32(top), inverse = 127.0f / amax;
        const int usable = top < 0x7f800000u && amax >= 0x1p-100f;
        int32_t s = 0;
        for (int i = 0; i < 32; i++) {
            /* adding and taking off 1.5 * 2^23 rounds to an integer, half to even */
            const float r = usable && i < len ? x[32 * b + i] * inverse + 12582912.0f - 12582912.0f : 0.0f;
            q[32 * b + i] = (int8_t)r;
            s += (int32_t)r;
        }
        d[b] = usable ? amax / 127.0f : top < 0x7f800000u ? 0.0f : NAN;
        sum[b] = s;
    }
}

/* Block b of 32: Σ_half sc Σ q x and Σ_half mn Σ x in integers (|…| < 2^31 for every type), then one float step:
 *     y += dx * (d * isum + m * msum) */
static float dot_block(const codes32 *c, const int8_t *x, float dx) {
    int32_t isum = 0, msum = 0;
    for (int h = 0; h < 2; h++) {
        int32_t s = 0, sx = 0;
        for (int i = 16 * h; i < 16 * h + 16; i++) {
            s += c->q[i] * x[i];
            sx += x[i];
        }
        isum += c->sc[h] * s;
        msum += c->mn[h] * sx;
    }
    return dx * (c->d * (float)isum + c->m * (float)msum);
}

static void decode_block(const codes32 *c, float *dst) {
    for (int i = 0; i < 32; i++) dst[i] = c->d * (float)c->sc[i / 16] * (float)c->q[i] + c->m * (float)c->mn[i / 16];
}

#define TYPE(type)                                                                                                                  \
    static void decode_##type(const uint8_t *src, float *dst, int64_t n) {                                                          \
        codes32 c;                                                                                                                   \
        for (int64_t b = 0; b * 32 < n; b++) {                                                                                       \
            codes_##type(src, b, &c);                                                                                                \
            decode_block(&c, dst + 32 * b);                                                                                          \
        }                                                                                                                            \
    }                                                                                                                                \
    static void rowdot_##type(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) { \
        codes32 c;                                                                                                                   \
        for (int64_t r = 0; r < rows; r++) {                                                                                         \
            for (int64_t t = 0; t < x->T; t++) y[t * ldy + r] = 0.0f;                                                                \
            for (int64_t b = 0; b * 32 < cols; b++) {                                                                                \
                codes_##type(w + r * row_bytes, b, &c);                                                                              \
                for (int64_t t = 0; t < x->T; t++)                                                                                   \
                    y[t * ldy + r] += dot_block(&c, x->q + t * x->n_pad + 32 * b, x->d[t * x->blocks + b]);                          \
            }                                                                                                                        \
        }                                                                                                                            \
    }
TT_BLOCK_TYPES(TYPE)

void tt__kernels_ref_blocks(tt_kernels *k) {
    k->quant_q8 = quant_q8;
#define SET(type)                      \
    k->decode_##type = decode_##type;  \
    k->rowdot_##type = rowdot_##type;
    TT_BLOCK_TYPES(SET)
}
