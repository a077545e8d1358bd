/* Rows of an 8-bit cache, for vectors of 4, 8 or 16: the body of attention.c of aarch64, x86_avx2 and x86_avx512. A code is widened to f32
 * and multiplied by its block's scale once for all heads that share the row; 32 codes are whole vectors, so there are no tails.
 */
#include "kernels/half.h"
#include "kernels/isa.h"
#ifdef __aarch64__
#include "kernels/aarch64/vec.h"
#else
#include "kernels/x86/vec.h"
#endif
#include <math.h>
#include <stdbool.h>

enum { BLOCK = 32, VALUES = 127 };

#if defined(__aarch64__)
INLINE vf v_load_i8(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}
INLINE void v_store_i8(int8_t *p, vf x) {
    const int16x4_t h = vqmovn_s32(vcvtnq_s32_f32(x));
    const int8x8_t four = vqmovn_s16(vcombine_s16(h, h));
    memcpy(p, &four, 4);
}
INLINE vf v_abs(vf x) { return vabsq_f32(x); }
INLINE vf v_half(uint16_t h) { return f16_bits(vdup_n_u16(h)); }
#elif defined(__AVX512F__)
INLINE vf v_load_i8(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INLINE void v_store_i8(int8_t *p, vf x) { _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x))); }
INLINE vf v_abs(vf x) { return _mm512_abs_ps(x); }
#else
INLINE vf v_load_i8(const int8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))); }
INLINE void v_store_i8(int8_t *p, vf x) {
    const __m256i i = _mm256_cvtps_epi32(x);
    const __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(h, h));
}
INLINE vf v_abs(vf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
#endif
#ifndef __aarch64__
INLINE vf v_half(uint16_t h) { return v_set1(_cvtsh_ss(h)); }
#endif

INLINE vf v_scale(const int8_t *scales, int64_t i) {
    uint16_t h;
    memcpy(&h, scales + i / BLOCK * 2, 2);
    return v_half(h);
}

static void kv8_pack(int8_t *q, uint16_t *scales, const float *x, int64_t n) {
    for (int64_t b = 0; b < n; b += BLOCK, x += BLOCK, q += BLOCK) {
        vf top = v_zero(), odd = v_zero();
        for (int i = 0; i < BLOCK; i += VN) {
            const vf a = v_abs(v_load(x + i));
            top = v_max(a, top);
            odd = v_fma(a, v_zero(), odd);           /* NaN where a is NaN or infinite */
        }
        const uint16_t h = f32_to_half(v_top(top) / VALUES);
        const float d = half_to_f32(h);
        const bool finite = v_sum(odd) == 0.0f && d < 65520.0f;
        scales[b / BLOCK] = finite ? h : 0x7e00;
        if (!finite || d == 0.0f) {
            memset(q, 0, BLOCK);
            continue;
        }
        const vf dv = v_set1(d), most = v_set1(VALUES), least = v_set1(-VALUES);
        for (int i = 0; i < BLOCK; i += VN) v_store_i8(q + i, v_max(v_min(v_div(v_load(x + i), dv), most), least));
    }
}

static void kv8_to_f32(float *y, const int8_t *q, const uint16_t *scales, int64_t n) {
    for (int64_t i = 0; i < n; i += VN) v_store(y + i, v_mul(v_scale((const int8_t *)scales, i), v_load_i8(q + i)));
}

/* Four rows and up to 3 vectors, as rowdot of floats (elementwise.h); a group of fewer rows repeats its last one. */
INLINE void rowdot_block(const int8_t *const w[4], int64_t scales_at, int64_t ahead, int64_t cols, const float *x, int64_t ldx, int T, v4 out[3]) {
    vf s[3][4];
    for (int t = 0; t < T; t++)
        for (int r = 0; r < 4; r++) s[t][r] = v_zero();
    for (int r = 0; r < 4; r++) v_prefetch(w[r] + ahead);
    for (int64_t i = 0; i < cols; i += VN) {
        vf v[4];
        for (int r = 0; r < 4; r++) v[r] = v_mul(v_scale(w[r] + scales_at, i), v_load_i8(w[r] + i));
        for (int t = 0; t < T; t++) {
            const vf xv = v_load(x + t * ldx + i);
            for (int r = 0; r < 4; r++) s[t][r] = v_fma(v[r], xv, s[t][r]);
        }
    }
    for (int t = 0; t < T; t++) out[t] = v_sum4(s[t][0], s[t][1], s[t][2], s[t][3]);
}

static void rowdot_kv8(const int8_t *q, int64_t ld, int64_t scales_at, int64_t rows, int64_t cols, const float *x, int64_t ldx, int64_t T, float *y,
                       int64_t ldy) {
    const int64_t ahead = (4096 / (4 * ld) + 1) * 4 * ld;
    for (int64_t r = 0; r < rows; r += 4) {
        const int64_t n = rows - r < 4 ? rows - r : 4;
        const int8_t *const p = q + r * ld;
        const int8_t *const four[4] = {p, p + (n > 1 ? 1 : n - 1) * ld, p + (n > 2 ? 2 : n - 1) * ld, p + (n - 1) * ld};
        for (int64_t t = 0; t < T; t += 3) {
            v4 out[3];
            const int m = T - t < 3 ? (int)(T - t) : 3;
            if (m == 1) rowdot_block(four, scales_at, ahead, cols, x + t * ldx, ldx, 1, out);
            else if (m == 2) rowdot_block(four, scales_at, ahead, cols, x + t * ldx, ldx, 2, out);
            else rowdot_block(four, scales_at, ahead, cols, x + t * ldx, ldx, 3, out);
            for (int j = 0; j < m; j++) {
                float lanes[4];
                v4_store(lanes, out[j]);
                for (int64_t i = 0; i < n; i++) y[(t + j) * ldy + r + i] = lanes[i];
            }
        }
    }
}

/* Up to 3 vectors of sums by BLOCK columns in registers, down all rows. */
INLINE void mix_block(const int8_t *q, int64_t ld, int64_t scales_at, int64_t ahead, int64_t rows, const float *p, int64_t ldp, int T, float *y,
                      int64_t ldy) {
    enum { C = BLOCK / VN };
    vf s[3][C];
    for (int t = 0; t < T; t++)
        for (int c = 0; c < C; c++) s[t][c] = v_load(y + t * ldy + c * VN);
    for (int64_t r = 0; r < rows; r++, q += ld) {
        const vf d = v_scale(q + scales_at, 0);
        vf w[C];
        v_prefetch(q + ahead);
        for (int c = 0; c < C; c++) w[c] = v_mul(d, v_load_i8(q + c * VN));
        for (int t = 0; t < T; t++) {
            const vf pv = v_set1(p[t * ldp + r]);
            for (int c = 0; c < C; c++) s[t][c] = v_fma(pv, w[c], s[t][c]);
        }
    }
    for (int t = 0; t < T; t++)
        for (int c = 0; c < C; c++) v_store(y + t * ldy + c * VN, s[t][c]);
}

static void mix_kv8(const int8_t *q, int64_t ld, int64_t scales_at, int64_t rows, int64_t cols, const float *p, int64_t ldp, int64_t T, float *y,
                    int64_t ldy) {
    const int64_t ahead = (4096 / (4 * ld) + 1) * 4 * ld;
    for (int64_t t = 0; t < T; t += 3)
        for (int64_t i = 0; i < cols; i += BLOCK) {
            const int64_t at = scales_at - i + i / BLOCK * 2;
            if (T - t == 1) mix_block(q + i, ld, at, ahead, rows, p + t * ldp, ldp, 1, y + t * ldy + i, ldy);
            else if (T - t == 2) mix_block(q + i, ld, at, ahead, rows, p + t * ldp, ldp, 2, y + t * ldy + i, ldy);
            else mix_block(q + i, ld, at, ahead, rows, p + t * ldp, ldp, 3, y + t * ldy + i, ldy);
        }
}

INLINE void override_attention(tt_kernels *k) {
    k->kv8_pack = kv8_pack;
    k->kv8_to_f32 = kv8_to_f32;
    k->rowdot_kv8 = rowdot_kv8;
    k->mix_kv8 = mix_kv8;
}
