/* What the files of products by vpdpbusd share: activations of a call, loads of some bytes, 128 codes in natural order against 128
 * activations, and the loops over rows and activations.
 */
#ifndef TT_KERNELS_AVX512_VNNI_H
#define TT_KERNELS_AVX512_VNNI_H
#include "kernels/isa.h"
#include "kernels/x86/vec.h"

enum { MANY = 4 };                              /* activations at a time */

typedef struct tokens { const int8_t *q; const float *d; const int32_t *sum; int64_t n_pad, blocks; } tokens;

INLINE tokens tokens_from(const tt_q8 *x, int64_t t) {
    return (tokens){x->q + t * x->n_pad, x->d + t * x->blocks, x->sum + t * x->blocks, x->n_pad, x->blocks};
}

INLINE __mmask64 first_bytes(int64_t n) { return n >= 64 ? ~0ull : n <= 0 ? 0 : (1ull << n) - 1; }
INLINE __m512i load_bytes(const void *p, int64_t n) { return n >= 64 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(first_bytes(n), p); }

/* ---- 128 codes in natural order ----
 * s0, s1: scale of each lane (four neighbouring weights). m: per 32 weights (has_m 1) or per lane (has_m 16). */
typedef struct wide { __m512i c0, c1; vf s0, s1, m0, m1; __m128 m; } wide;
typedef struct xwide { __m512i q0, q1, start0, start1; vf d0, d1, dsum0, dsum1; __m128 d, dsum; } xwide;

INLINE __m512i pair_index(int first) {           /* first ×8, first + 1 ×8 */
    return _mm512_add_epi32(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), _mm512_set1_epi32(first));
}
INLINE vf spread_pair(__m128 x, int first) { return _mm512_permutexvar_ps(pair_index(first), _mm512_castps128_ps512(x)); }

/* Blocks b … b + n of activation t; the lanes of a product start at -offset Σx, so that codes are taken as code - offset. */
INLINE xwide load_xwide(const tokens *x, int t, int64_t b, int n, int offset, int has_m) {
    const int8_t *q = x->q + t * x->n_pad + 32 * b;
    const __mmask8 present = (__mmask8)((1 << n) - 1);
    const __m512i ones = _mm512_set1_epi8(1), zero = _mm512_setzero_si512();
    xwide v;
    v.d = _mm_maskz_loadu_ps(present, x->d + t * x->blocks + b);
    v.q0 = load_bytes(q, 32 * n);
    v.q1 = n > 2 ? load_bytes(q + 64, 32 * n - 64) : zero;
    v.d0 = spread_pair(v.d, 0);
    v.d1 = spread_pair(v.d, 2);
    v.start0 = v.start1 = zero;
    if (offset || has_m == 16) {
        const __m512i s0 = _mm512_dpbusd_epi32(zero, ones, v.q0), s1 = _mm512_dpbusd_epi32(zero, ones, v.q1), o = _mm512_set1_epi32(-offset);
        if (offset) {
            v.start0 = _mm512_mullo_epi32(s0, o);
            v.start1 = _mm512_mullo_epi32(s1, o);
        }
        if (has_m == 16) {
            v.dsum0 = v_mul(v.d0, _mm512_cvtepi32_ps(s0));
            v.dsum1 = v_mul(v.d1, _mm512_cvtepi32_ps(s1));
        }
    }
    if (has_m == 1) v.dsum = _mm_mul_ps(v.d, _mm_cvtepi32_ps(_mm_maskz_loadu_epi32(present, x->sum + t * x->blocks + b)));
    return v;
}

INLINE vf wide_dot(const wide *w, const xwide *x, int has_m, vf acc) {
    const __m512i s0 = _mm512_dpbusd_epi32(x->start0, w->c0, x->q0), s1 = _mm512_dpbusd_epi32(x->start1, w->c1, x->q1);
    acc = v_fma(v_mul(w->s0, x->d0), _mm512_cvtepi32_ps(s0), acc);
    acc = v_fma(v_mul(w->s1, x->d1), _mm512_cvtepi32_ps(s1), acc);
    if (has_m == 1) acc = v_add(acc, _mm512_zextps128_ps512(_mm_mul_ps(w->m, x->dsum)));
    if (has_m == 16) acc = v_fma(w->m1, x->dsum1, v_fma(w->m0, x->dsum0, acc));
    return acc;
}

INLINE void clear_sums(vf acc[4][MANY], int R, int T) {
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) acc[r][t] = v_zero();
}

INLINE void store_sums(vf acc[4][MANY], int R, int T, float *y, int64_t ldy) {
    for (int t = 0; t < T; t++) {
        const __m128 s = v_sum4(acc[0][t], R > 1 ? acc[1][t] : v_zero(), R > 2 ? acc[2][t] : v_zero(), R > 3 ? acc[3][t] : v_zero());
        _mm_mask_storeu_ps(y + t * ldy, (__mmask8)((1 << R) - 1), s);
    }
}

/* body(R, T) for rows r … r + R, then for the rest one by one; the same for each set of up to MANY activations (t0, xt). R and T are
 * constants, so each pair gets code of its own. In scope: rows, x. */
#define FOR_ROWS(R, T, body)                          \
    do {                                              \
        int64_t r = 0;                                \
        for (; r + (R) <= rows; r += (R)) body(R, T); \
        for (; r < rows; r++) body(1, T);             \
    } while (0)
#define FOR_TOKENS(body)                                                \
    for (int64_t t0 = 0; t0 < x->T; t0 += MANY) {                       \
        const tokens xt = tokens_from(x, t0);                           \
        switch (x->T - t0 < MANY ? x->T - t0 : MANY) {                  \
        case 1: FOR_ROWS(4, 1, body); break;                            \
        case 2: FOR_ROWS(2, 2, body); break;                            \
        case 3: FOR_ROWS(2, 3, body); break;                            \
        default: FOR_ROWS(2, 4, body); break;                           \
        }                                                               \
    }
#endif
