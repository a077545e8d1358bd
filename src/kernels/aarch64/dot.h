/* Products of signed bytes, with the dot product instruction or without: included by files of this folder, each compiled with its own flags. */
#ifndef TT_KERNELS_AARCH64_DOT_H
#define TT_KERNELS_AARCH64_DOT_H
#include "kernels/aarch64/vec.h"

INLINE int32x4_t zero32(void) { return vdupq_n_s32(0); }

/* s plus 16 products, four neighbours in a lane or, without the instruction, spread otherwise: only the sum of all lanes is the same. */
INLINE int32x4_t dot16(int32x4_t s, int8x16_t a, int8x16_t b) {
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(s, a, b);
#else
    s = vpadalq_s16(s, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vpadalq_s16(s, vmull_high_s8(a, b));
#endif
}

/* Sums of four rows: byte 4 r + q of a vector of weights is column q of row r; QUADS_ADD takes activations that are four bytes (a lane) for all
 * rows. Without the instruction, products are added in 16 bits: the caller adds up no more than fit, and widens. */
#ifdef __ARM_FEATURE_DOTPROD
typedef int32x4_t quads;
INLINE quads quads_zero(void) { return zero32(); }
INLINE quads quads_add(quads s, int8x16_t w, int8x16_t x) { return vdotq_s32(s, w, x); }
#define QUADS_ADD(s, w, x, lane) vdotq_laneq_s32(s, w, x, lane)
INLINE int32x4_t quads_sum(quads s) { return s; }
#else
typedef struct quads { int16x8_t low, high; } quads;
INLINE quads quads_zero(void) { return (quads){vdupq_n_s16(0), vdupq_n_s16(0)}; }
INLINE quads quads_add(quads s, int8x16_t w, int8x16_t x) { return (quads){vmlal_s8(s.low, vget_low_s8(w), vget_low_s8(x)), vmlal_high_s8(s.high, w, x)}; }
#define QUADS_ADD(s, w, x, lane) quads_add(s, w, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), lane)))
INLINE int32x4_t quads_sum(quads s) { return vpaddq_s32(vpaddlq_s16(s.low), vpaddlq_s16(s.high)); }
#endif
#endif
