/* What the decoders and the encoders of block types share: the IQ4_NL codebook and the six-bit packing of Q4_K and Q5_K. */
#ifndef TT_FORMATS_DTYPE_BLOCKS_H
#define TT_FORMATS_DTYPE_BLOCKS_H
#include <stdint.h>
#include <string.h>

static const int8_t tt__iq4_nl[16] __attribute__((unused)) = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* Pair j of 8 in the 12 bytes s: for j < 4 in bits 0-5 of s[j] and s[j+4]; above, nibbles of s[j+4] and the top bits of s[j-4], s[j]. */
static inline void tt__k_scale_pair(const uint8_t *s, int j, int *scale, int *min) {
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    *min = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
}

/* f64 bits to f32 with overflow to infinity (a plain cast of an out-of-range value is undefined). */
static inline float tt__f64_to_f32(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    if (v > (double)__FLT_MAX__) return v > 3.4028235677973366e38 ? __builtin_inff() : __FLT_MAX__;
    if (v < -(double)__FLT_MAX__) return v < -3.4028235677973366e38 ? -__builtin_inff() : -__FLT_MAX__;
    return (float)v;
}
#endif
