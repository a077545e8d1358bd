/* Trellis codes (kernels/trellis.h) for vectors of 8 or 16: the body of x86_avx2/trellis.c and x86_avx512/trellis.c. Windows of 16 rows lie
 * within 16 bytes: a byte shuffle hands every lane the four bytes where its window begins, a shift by 0 … 7 bits and a mask make the window,
 * one multiplication and the sum of four masked bytes the value. Bit-equal to the reference. */
#include "kernels/isa.h"
#include "kernels/x86/vec.h"
#include <math.h>

#define AT(k, l) (k) * (l) / 8, (k) * (l) / 8 + 1, (k) * (l) / 8 + 2, (k) * (l) / 8 + 3
#define ROW(M, k) {M(k, 0), M(k, 1), M(k, 2), M(k, 3), M(k, 4), M(k, 5), M(k, 6), M(k, 7), M(k, 8), M(k, 9), M(k, 10), M(k, 11), M(k, 12), M(k, 13), M(k, 14), M(k, 15)}
#define SHIFT(k, l) (k) * (l) % 8
#define UP(k, l) (l) >> (k)
static const uint8_t pick[7][64] = {ROW(AT, 0), ROW(AT, 1), ROW(AT, 2), ROW(AT, 3), ROW(AT, 4), ROW(AT, 5), ROW(AT, 6)};
static const int32_t shifts[7][16] = {ROW(SHIFT, 0), ROW(SHIFT, 1), ROW(SHIFT, 2), ROW(SHIFT, 3), ROW(SHIFT, 4), ROW(SHIFT, 5), ROW(SHIFT, 6)};
static const int32_t above[7][16] = {ROW(UP, 0), ROW(UP, 1), ROW(UP, 2), ROW(UP, 3), ROW(UP, 4), ROW(UP, 5), ROW(UP, 6)};    /* lane >> bits */

/* The bytes of 16 windows that begin at byte `at` of a ring of `ring` bytes; `left`: bytes that may be read from there on. */
INLINE __m128i ring_bytes(const uint8_t *tile, int64_t at, int64_t ring, int64_t left, int bits) {
    if (at + 2 * bits < ring && left >= 16) return _mm_loadu_si128((const __m128i *)(tile + at));
    uint8_t buf[16] = {0};
    memcpy(buf, tile + at, (size_t)(2 * bits));
    memcpy(buf + 2 * bits, tile + (at + 2 * bits) % ring, 2);
    return _mm_loadu_si128((const __m128i *)buf);
}

#ifdef __AVX512F__
INLINE vf window_values(__m128i bytes, int bits, int states, int half) {
    (void)half;
    const __m512i spread = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), _mm512_loadu_si512(pick[bits]));
    const __m512i s = _mm512_and_si512(_mm512_srlv_epi32(spread, _mm512_loadu_si512(shifts[bits])), _mm512_set1_epi32((1 << states) - 1));
    const __m512i y = _mm512_and_si512(_mm512_mullo_epi32(s, _mm512_set1_epi32((int)TT_TRELLIS_FACTOR)), _mm512_set1_epi32(0x3f3f3f3f));
    const __m512i sum = _mm512_madd_epi16(_mm512_maddubs_epi16(y, _mm512_set1_epi8(1)), _mm512_set1_epi16(1));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(126)));
}
#else
INLINE vf window_values(__m128i bytes, int bits, int states, int half) {
    const __m256i spread = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), _mm256_loadu_si256((const __m256i *)(pick[bits] + 32 * half)));
    const __m256i s = _mm256_and_si256(_mm256_srlv_epi32(spread, _mm256_loadu_si256((const __m256i *)(shifts[bits] + 8 * half))), _mm256_set1_epi32((1 << states) - 1));
    const __m256i y = _mm256_and_si256(_mm256_mullo_epi32(s, _mm256_set1_epi32((int)TT_TRELLIS_FACTOR)), _mm256_set1_epi32(0x3f3f3f3f));
    const __m256i sum = _mm256_madd_epi16(_mm256_maddubs_epi16(y, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_set1_epi32(126)));
}
#endif
enum { HALVES = TT_TRELLIS_LANES / VN };

static void trellis_decode(const tt_trellis *w, int64_t r0, int64_t c0, int64_t c1, float *out) {
    const int64_t first = r0 / w->tile * w->tile, n = w->padded - first < w->tile ? w->padded - first : w->tile, end = w->start[w->cols];
    vf scale[HALVES] = {v_zero()};
    for (int64_t c = c0; c < c1; c++, out += TT_TRELLIS_LANES) {
        const int bits = w->rates[c];
        const int64_t tile = w->start[c] + first * bits / 8, at = (r0 - first) * bits / 8;
        const vf gain = v_set1(_cvtsh_ss(w->gains[c]));
        if (c == c0 || c % w->group == 0)
            for (int i = 0; i < HALVES; i++) scale[i] = v_load_f16(w->scales + c / w->group * w->padded + r0 + VN * i);
        if (!bits) {
            for (int i = 0; i < HALVES; i++) v_store(out + VN * i, v_zero());
            continue;
        }
        const __m128i bytes = ring_bytes(w->codes + tile, at, n * bits / 8, end - tile - at, bits);
        for (int i = 0; i < HALVES; i++) v_store(out + VN * i, v_fma(v_mul(scale[i], gain), window_values(bytes, bits, w->states, i), v_zero()));      /* no -0 */
    }
}

/* ---- the search ---- */

/* least[(first + lane) >> bits] of a vector of states. */
#ifdef __AVX512F__
typedef __m512i vi;
INLINE vi vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE vf lanes_above(const float *least, int64_t first, int bits, vi up) { return _mm512_permutexvar_ps(up, _mm512_loadu_ps(least + (first >> bits))); }
INLINE void keep_least(vf *best, vi *from, vf cost, int h) {
    *from = _mm512_mask_mov_epi32(*from, _mm512_cmp_ps_mask(cost, *best, _CMP_LT_OQ), _mm512_set1_epi32(h));
    *best = _mm512_min_ps(cost, *best);
}
INLINE void store_from(uint8_t *p, vi from) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(from)); }
INLINE vi vi_zero(void) { return _mm512_setzero_si512(); }
#else
typedef __m256i vi;
INLINE vi vi_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE vf lanes_above(const float *least, int64_t first, int bits, vi up) { return _mm256_permutevar8x32_ps(_mm256_loadu_ps(least + (first >> bits)), up); }
INLINE void keep_least(vf *best, vi *from, vf cost, int h) {
    const vf less = _mm256_cmp_ps(cost, *best, _CMP_LT_OQ);
    *from = _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(*from), _mm256_castsi256_ps(_mm256_set1_epi32(h)), less));
    *best = _mm256_min_ps(cost, *best);
}
INLINE void store_from(uint8_t *p, vi from) {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(from), _mm256_extracti128_si256(from, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}
INLINE vi vi_zero(void) { return _mm256_setzero_si256(); }
#endif

INLINE void search(tt_viterbi *v, const int bits) {
    const int64_t p = (int64_t)1 << (v->states - bits);
    const vi up = vi_load(above[bits]);
    for (int64_t i = 0; i < v->n; i++) {
        float *const least = v->least, *const next = v->spare;
        const vf x = v_set1(v->x[i]), weight = v_set1(v->weight[i]);
        uint8_t *const from = v->from + i * p;
        for (int64_t q = 0; q < p; q += VN) {
            vf best = v_set1(INFINITY);
            vi best_from = vi_zero();
            for (int h = 0; h < 1 << bits; h++) {
                const vf d = v_sub(x, v_load(v->value + q + h * p));
                keep_least(&best, &best_from, v_fma(v_mul(weight, d), d, lanes_above(least, q + h * p, bits, up)), h);
            }
            v_store(next + q, best);
            store_from(from + q, best_from);
        }
        v->least = next, v->spare = least;
    }
}

static void trellis_search(tt_viterbi *v) {
    switch (v->bits) {
    case 1: search(v, 1); break;
    case 2: search(v, 2); break;
    case 3: search(v, 3); break;
    case 4: search(v, 4); break;
    case 5: search(v, 5); break;
    default: search(v, 6); break;
    }
}

static void override_trellis(tt_kernels *k) {
    k->trellis_decode = trellis_decode;
    k->trellis_search = trellis_search;
}
