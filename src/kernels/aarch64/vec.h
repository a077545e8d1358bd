/* A vector of four floats with the names of x86/vec.h, so that kernels in that vocabulary read the same here. Included by the files of this
 * folder only. v_*_n touch only the first n lanes of memory; lanes beyond read as 0. Nothing is contracted behind our back
 * (-ffp-contract=off): a fused multiply-add is one where v_fma says so.
 */
#ifndef TT_KERNELS_AARCH64_VEC_H
#define TT_KERNELS_AARCH64_VEC_H
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { VN = 4 };
typedef float32x4_t vf;
typedef float32x4_t v4;
typedef struct vd { float64x2_t lo, hi; } vd;

INLINE void v_prefetch(const void *p) { __builtin_prefetch(p); }
INLINE void v4_store(float *p, v4 x) { vst1q_f32(p, x); }

INLINE vf v_zero(void) { return vdupq_n_f32(0.0f); }
INLINE vf v_set1(float x) { return vdupq_n_f32(x); }
INLINE vf v_load(const float *p) { return vld1q_f32(p); }
INLINE vf v_load_n(const float *p, int64_t n) {
    if (n >= 4) return vld1q_f32(p);
    float lanes[4] = {0};
    for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
    return vld1q_f32(lanes);
}
INLINE void v_store(float *p, vf x) { vst1q_f32(p, x); }
INLINE void v_store_n(float *p, vf x, int64_t n) {
    if (n >= 4) {
        vst1q_f32(p, x);
        return;
    }
    float lanes[4];
    vst1q_f32(lanes, x);
    for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
}
INLINE uint16x4_t load_halves_n(const uint16_t *p, int64_t n) {
    uint16_t lanes[4] = {0};
    for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
    return vld1_u16(lanes);
}
INLINE vf f16_bits(uint16x4_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }
INLINE vf v_load_f16(const uint16_t *p) { return f16_bits(vld1_u16(p)); }
INLINE vf v_load_f16_n(const uint16_t *p, int64_t n) { return f16_bits(load_halves_n(p, n)); }
INLINE void v_store_f16_n(uint16_t *p, vf x, int64_t n) {
    const uint16x4_t h = vreinterpret_u16_f16(vcvt_f16_f32(x));
    if (n >= 4) vst1_u16(p, h);
    else memcpy(p, &h, (size_t)n * 2);
}
INLINE vf bf16_bits(uint16x4_t h) { return vreinterpretq_f32_u32(vshll_n_u16(h, 16)); }
INLINE vf v_load_bf16(const uint16_t *p) { return bf16_bits(vld1_u16(p)); }
INLINE vf v_load_bf16_n(const uint16_t *p, int64_t n) { return bf16_bits(load_halves_n(p, n)); }
INLINE vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
INLINE vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
INLINE vf v_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }     /* b where either is NaN */
INLINE vf v_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
INLINE vf v_round(vf x) { return vrndnq_f32(x); }
/* |n| ≤ 252, integral: two factors, so that subnormal and infinite results come out right */
INLINE vf v_times_2_to(vf x, vf n) {
    const int32x4_t e = vcvtq_s32_f32(n), half = vshrq_n_s32(e, 1), bias = vdupq_n_s32(127);
    const vf a = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    const vf b = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(e, half), bias), 23));
    return v_mul(v_mul(x, a), b);
}
INLINE float v_sum(vf x) { return vaddvq_f32(x); }
INLINE float v_top(vf x) { return vmaxvq_f32(x); }
INLINE vf v_select_n(vf x, vf other, int64_t n) {
    static const int32_t lane[4] = {0, 1, 2, 3};
    return vbslq_f32(vcgtq_s32(vdupq_n_s32((int32_t)n), vld1q_s32(lane)), x, other);
}

INLINE vd vd_zero(void) { return (vd){vdupq_n_f64(0), vdupq_n_f64(0)}; }
INLINE float64x2_t low_half(vf x) { return vcvt_f64_f32(vget_low_f32(x)); }
INLINE float64x2_t high_half(vf x) { return vcvt_high_f64_f32(x); }
INLINE vd vd_add(vd s, vf x) { return (vd){vaddq_f64(s.lo, low_half(x)), vaddq_f64(s.hi, high_half(x))}; }
INLINE vd vd_fma(vf a, vf b, vd s) { return (vd){vfmaq_f64(s.lo, low_half(a), low_half(b)), vfmaq_f64(s.hi, high_half(a), high_half(b))}; }
INLINE double vd_sum(vd s) { return vaddvq_f64(vaddq_f64(s.lo, s.hi)); }

/* Σ of each of four vectors. */
INLINE v4 v_sum4(vf a, vf b, vf c, vf d) { return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)); }

#include "kernels/x86/exp.h"
#endif
