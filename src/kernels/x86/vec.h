/* A vector of floats, 8 or 16 wide, for kernels that read the same in both: included by the files of x86_avx2 and x86_avx512 only,
 * each compiled with its own flags. v_*_n touch only the first n lanes of memory; lanes beyond read as 0.
 */
#ifndef TT_KERNELS_X86_VEC_H
#define TT_KERNELS_X86_VEC_H
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef __m128 v4;
INLINE void v4_store(float *p, v4 x) { _mm_storeu_ps(p, x); }
INLINE void v_prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

#ifdef __AVX512F__
enum { VN = 16 };
typedef __m512 vf;
typedef struct vd { __m512d lo, hi; } vd;

INLINE __mmask16 first_lanes(int64_t n) { return (__mmask16)((1u << n) - 1u); }
INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE vf v_load_n(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
INLINE void v_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
INLINE void v_store_n(float *p, vf x, int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), x); }
INLINE vf v_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf v_load_f16_n(const uint16_t *p, int64_t n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
INLINE void v_store_f16_n(uint16_t *p, vf x, int64_t n) {
    _mm256_mask_storeu_epi16(p, first_lanes(n), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE vf bf16_bits(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
INLINE vf v_load_bf16(const uint16_t *p) { return bf16_bits(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vf v_load_bf16_n(const uint16_t *p, int64_t n) { return bf16_bits(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
INLINE vf v_set1(float x) { return _mm512_set1_ps(x); }
INLINE vf v_zero(void) { return _mm512_setzero_ps(); }
INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }       /* b where either is NaN */
INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf v_round(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf v_times_2_to(vf x, vf n) { return _mm512_scalef_ps(x, n); }
INLINE float v_sum(vf x) { return _mm512_reduce_add_ps(x); }
INLINE float v_top(vf x) { return _mm512_reduce_max_ps(x); }
INLINE vf v_select_n(vf x, vf other, int64_t n) { return _mm512_mask_blend_ps(first_lanes(n), other, x); }

INLINE vd vd_zero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
INLINE __m512d low_half(vf x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
INLINE __m512d high_half(vf x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }
INLINE vd vd_add(vd s, vf x) { return (vd){_mm512_add_pd(s.lo, low_half(x)), _mm512_add_pd(s.hi, high_half(x))}; }
INLINE vd vd_fma(vf a, vf b, vd s) {
    return (vd){_mm512_fmadd_pd(low_half(a), low_half(b), s.lo), _mm512_fmadd_pd(high_half(a), high_half(b), s.hi)};
}
INLINE double vd_sum(vd s) { return _mm512_reduce_add_pd(_mm512_add_pd(s.lo, s.hi)); }

/* Σ of each of four vectors. */
INLINE v4 v_sum4(vf a, vf b, vf c, vf d) {
    const vf ab = v_add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)), cd = v_add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const vf abcd = v_add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

#else
enum { VN = 8 };
typedef __m256 vf;
typedef struct vd { __m256d lo, hi; } vd;

INLINE __m256i first_lanes(int64_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE vf v_load_n(const float *p, int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
INLINE void v_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
INLINE void v_store_n(float *p, vf x, int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), x); }
INLINE __m128i load_halves_n(const uint16_t *p, int64_t n) {
    uint16_t buf[8] = {0};
    memcpy(buf, p, (size_t)n * 2);
    return _mm_loadu_si128((const __m128i *)buf);
}
INLINE vf v_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
INLINE vf v_load_f16_n(const uint16_t *p, int64_t n) { return _mm256_cvtph_ps(load_halves_n(p, n)); }
INLINE void v_store_f16_n(uint16_t *p, vf x, int64_t n) {
    const __m128i h = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    if (n >= 8) _mm_storeu_si128((__m128i *)p, h);
    else memcpy(p, &h, (size_t)n * 2);
}
INLINE vf bf16_bits(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
INLINE vf v_load_bf16(const uint16_t *p) { return bf16_bits(_mm_loadu_si128((const __m128i *)p)); }
INLINE vf v_load_bf16_n(const uint16_t *p, int64_t n) { return bf16_bits(load_halves_n(p, n)); }
INLINE vf v_set1(float x) { return _mm256_set1_ps(x); }
INLINE vf v_zero(void) { return _mm256_setzero_ps(); }
INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }       /* b where either is NaN */
INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf v_round(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* |n| ≤ 252, integral: two factors, so that subnormal and infinite results come out right */
INLINE vf v_times_2_to(vf x, vf n) {
    const __m256i e = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(e, 1), bias = _mm256_set1_epi32(127);
    const vf a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const vf b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(e, half), bias), 23));
    return v_mul(v_mul(x, a), b);
}
INLINE __m128 halves_added(vf x) { return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }
INLINE float v_sum(vf x) {
    __m128 s = halves_added(x);
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE float v_top(vf x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
INLINE vf v_select_n(vf x, vf other, int64_t n) { return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(first_lanes(n))); }

INLINE vd vd_zero(void) { return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()}; }
INLINE __m256d low_half(vf x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
INLINE __m256d high_half(vf x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
INLINE vd vd_add(vd s, vf x) { return (vd){_mm256_add_pd(s.lo, low_half(x)), _mm256_add_pd(s.hi, high_half(x))}; }
INLINE vd vd_fma(vf a, vf b, vd s) {
    return (vd){_mm256_fmadd_pd(low_half(a), low_half(b), s.lo), _mm256_fmadd_pd(high_half(a), high_half(b), s.hi)};
}
INLINE double vd_sum(vd s) {
    const __m256d x = _mm256_add_pd(s.lo, s.hi);
    const __m128d h = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(h, _mm_unpackhi_pd(h, h)));
}

INLINE v4 v_sum4(vf a, vf b, vf c, vf d) {
    const vf ab = v_add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)), cd = v_add(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    return halves_added(v_add(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee)));
}
#endif

#include "kernels/x86/exp.h"
#endif
