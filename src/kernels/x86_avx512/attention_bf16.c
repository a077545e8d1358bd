/* The softmax tile of attention over bf16 tiles: probabilities are rounded to 8 bits of mantissa, so their exponential need not be better
 * than that by much. 2^x = 2^floor(x) · p(x - floor(x)) with a polynomial of degree 4 (relative error below 4e-6, sums stay f32): a
 * reduction, four multiply-adds and a scale, less than half of v_exp's instructions.
 */
#include "kernels/isa.h"
#include "kernels/x86/vec.h"
#include <math.h>

/* 2^x for x ≤ 0; -inf gives 0. */
INLINE vf exp2_short(vf x) {
    x = v_max(x, v_set1(-200.0f));
    const vf r = _mm512_reduce_ps(x, 1);                  /* x - floor(x) */
    vf p = v_fma(v_set1(0x1.b7f732p-7f), r, v_set1(0x1.abf868p-5f));
    p = v_fma(p, r, v_set1(0x1.ee2452p-3f));
    p = v_fma(p, r, v_set1(0x1.62d6c6p-1f));
    p = v_fma(p, r, v_set1(1.0f));
    return _mm512_scalef_ps(p, x);
}

/* Keys 2p in the low and 2p + 1 in the high halves. */
INLINE vf words_of(vf low, vf high) {
    const __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low)), b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
    return (vf)_mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}

/* One step of 16 lanes. m is kept in units of e, the work is done in units of 2. */
INLINE void softmax_lanes(float *s, int64_t keys, int lanes, float scale, float *m, float *l, float *alpha) {
    const float log2e = 0x1.715476p0f;
    const vf before = v_load(m), to2 = v_set1(log2e), sc = v_set1(scale);
    vf high = v_set1(-INFINITY), high2 = high, sum = v_zero(), sum2 = v_zero();
    int64_t i = 0;
    for (; i + 2 <= keys; i += 2) {
        high = v_max(v_load(s + i * lanes), high);
        high2 = v_max(v_load(s + (i + 1) * lanes), high2);
    }
    if (i < keys) high = v_max(v_load(s + i * lanes), high);
    const vf top = v_max(v_mul(v_max(high, high2), sc), before), sc2 = v_mul(sc, to2), top2 = v_mul(top, to2);
    for (i = 0; i + 2 <= keys; i += 2) {
        const vf a = exp2_short(_mm512_fmsub_ps(v_load(s + i * lanes), sc2, top2)), b = exp2_short(_mm512_fmsub_ps(v_load(s + (i + 1) * lanes), sc2, top2));
        sum = v_add(sum, a);
        sum2 = v_add(sum2, b);
        v_store(s + i / 2 * lanes, words_of(a, b));
    }
    if (i < keys) {
        const vf a = exp2_short(_mm512_fmsub_ps(v_load(s + i * lanes), sc2, top2));
        sum = v_add(sum, a);
        v_store(s + i / 2 * lanes, words_of(a, v_zero()));
    }
    const vf shrink = v_exp(v_sub(before, top));
    v_store(alpha, shrink);
    v_store(l, v_fma(v_load(l), shrink, v_add(sum, sum2)));
    v_store(m, top);
}

static void softmax_tile_bf16(float *s, int64_t keys, int lanes, float scale, float *m, float *l, float *alpha) {
    for (int j = 0; j < lanes; j += VN) softmax_lanes(s + j, keys, lanes, scale, m + j, l + j, alpha + j);
}

void tt__kernels_avx512_attention_bf16(tt_kernels *k) { k->softmax_tile_bf16 = softmax_tile_bf16; }
