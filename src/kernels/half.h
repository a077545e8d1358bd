/* 16-bit floats in plain C, for the reference kernels and for the tails of the fast ones. */
#ifndef TT_KERNELS_HALF_H
#define TT_KERNELS_HALF_H
#include <stdint.h>
#include <string.h>

static inline float half_bits_to_f32(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t f32_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

/* Exact. Exponent and mantissa are moved into place and the exponent is rebiased by a multiplication, which is exact for normals
 * and subnormals alike; all-ones exponents (inf, NaN) are set apart. A signalling NaN becomes quiet. */
static inline float half_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    if (rest >= 0x0f800000u) return half_bits_to_f32(sign | 0x7f800000u | rest | (rest > 0x0f800000u ? 0x400000u : 0u));
    const float magnitude = half_bits_to_f32(rest) * 0x1p112f;
    return half_bits_to_f32(sign | f32_bits(magnitude));
}

/* Rounds to nearest, ties to even, as vcvtps2ph does; too large becomes infinity; a NaN keeps its upper bits and becomes quiet. */
static inline uint16_t f32_to_half(float f) {
    const uint32_t u = f32_bits(f), a = u & 0x7fffffffu;
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) {                       /* subnormal half: let the adder round at 2^-24 */
        const float r = half_bits_to_f32(a) + 0.5f;
        return (uint16_t)(sign | (f32_bits(r) - 0x3f000000u));
    }
    const uint32_t odd = a >> 13 & 1u;
    return (uint16_t)(sign | ((a + 0xfffu + odd - 0x38000000u) >> 13));
}

static inline float bf16_bits_to_f32(uint16_t h) { return half_bits_to_f32((uint32_t)h << 16); }
#endif
