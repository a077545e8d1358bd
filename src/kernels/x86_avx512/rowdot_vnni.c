/* Products of compressed rows with rounded activations, by vpdpbusd (u8 weights times s8 activations, four products into an int32 lane).
 * Needs VNNI and VBMI beyond the base level.
 *
 * A step takes 128 weights of a row. Codes become unsigned bytes in registers; an offset (w = d (q - 8)) is taken off in integers, by
 * starting the lanes at -8 Σx, so the integer part equals the reference exactly. Floats enter once per step: lanes to f32, times
 * weight scale times activation scale. Two forms:
 *
 *   nibble types (Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL): four blocks of 18 … 24 bytes are two loads and one byte permutation away from
 *     lo = [b0 b1 b2 b3] (16 weights each, the low nibbles) and hi; x is permuted the same way, once for all rows.
 *   all others: two vectors of 64 codes in natural order with scales per lane (a lane is four neighbouring weights).
 *
 * Four rows at a time share the loads of x (two rows when there are several activations). A row's sum is the same whatever shares the
 * call. Each row prefetches where the next rows will be read; the last ones prefetch past the end, which is harmless.
 */
#include "kernels/x86_avx512/vnni.h"

INLINE __m512 halves_to_f32(__m512i words) { return _mm512_cvtph_ps(_mm512_castsi512_si256(words)); }

#define R4(F, i, ...) F((i), __VA_ARGS__), F((i) + 1, __VA_ARGS__), F((i) + 2, __VA_ARGS__), F((i) + 3, __VA_ARGS__)
#define R16(F, i, ...) R4(F, (i), __VA_ARGS__), R4(F, (i) + 4, __VA_ARGS__), R4(F, (i) + 8, __VA_ARGS__), R4(F, (i) + 12, __VA_ARGS__)
#define R64(F, ...) R16(F, 0, __VA_ARGS__), R16(F, 16, __VA_ARGS__), R16(F, 32, __VA_ARGS__), R16(F, 48, __VA_ARGS__)

/* ---- four blocks of a nibble type ----
 * Two loads cover the 4 * stride bytes: [0, 64) and [4 stride - 64, 4 stride). Index of byte `at` in the pair: */
#define IN_PAIR(at, stride) ((at) < 64 ? (at) : (at) - (4 * (stride) - 64) + 64)
#define CODE_INDEX(i, stride, field) IN_PAIR((stride) * ((i) / 16) + (field) + (i) % 16, stride)
#define BIT_INDEX(i, stride, field) IN_PAIR((stride) * ((i) / 16) + (field) + (i) % 16 / 8, stride)
#define WORD_INDEX(i, stride, field) (IN_PAIR((stride) * ((i) / 4) + (field), stride) / 2)

typedef enum nibble_type { Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL } nibble_type;
typedef struct wquad { __m512i lo, hi; __m512 d, m; } wquad;
typedef struct xquad { __m512i lo, hi, start; __m512 d, dsum; } xquad;

INLINE int nibble_stride(nibble_type t) { return t == Q4_0 || t == IQ4_NL ? 18 : t == Q4_1 ? 20 : t == Q5_0 ? 22 : 24; }
INLINE int nibble_offset(nibble_type t) { return t == Q4_0 ? 8 : t == Q5_0 ? 16 : t == IQ4_NL ? 128 : 0; }
INLINE int nibble_has_m(nibble_type t) { return t == Q4_1 || t == Q5_1; }

#define TABLES(name, stride, codes, fifth)                                                       \
    static const uint8_t name##_codes[64] = {R64(CODE_INDEX, stride, codes)};                    \
    static const uint8_t name##_low_bits[64] = {R64(BIT_INDEX, stride, fifth)};                  \
    static const uint8_t name##_high_bits[64] = {R64(BIT_INDEX, stride, (fifth) + 2)};           \
    static const uint16_t name##_d[32] = {R16(WORD_INDEX, 0, stride, 0)};                        \
    static const uint16_t name##_m[32] = {R16(WORD_INDEX, 0, stride, 2)};
TABLES(s18, 18, 2, 0)
TABLES(s20, 20, 4, 0)
TABLES(s22, 22, 6, 2)
TABLES(s24, 24, 8, 4)
#undef TABLES

typedef struct tables { const uint8_t *codes, *low_bits, *high_bits; const uint16_t *d, *m; } tables;
INLINE tables tables_of(nibble_type t) {
#define OF(name) (tables){name##_codes, name##_low_bits, name##_high_bits, name##_d, name##_m}
    return nibble_stride(t) == 18 ? OF(s18) : nibble_stride(t) == 20 ? OF(s20) : nibble_stride(t) == 22 ? OF(s22) : OF(s24);
#undef OF
}

/* 16 where the fifth bit is set: bring each code's byte of the bit field to it, test its bit. */
INLINE __m512i with_fifth(__m512i codes, __m512i a, const uint8_t *index, __m512i b) {
    const __m512i bits = _mm512_permutex2var_epi8(a, _mm512_loadu_si512(index), b);
    const __mmask64 set = _mm512_test_epi8_mask(bits, _mm512_set1_epi64((long long)0x8040201008040201ull));
    return _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8(16));
}

INLINE wquad load_wquad(nibble_type type, const uint8_t *p, int n) {
    const int stride = nibble_stride(type), second = 4 * stride - 64;
    const tables t = tables_of(type);
    const __m512i a = load_bytes(p, n * stride), b = load_bytes(p + second, n * stride - second);
    const __m512i v = _mm512_permutex2var_epi8(a, _mm512_loadu_si512(t.codes), b), low = _mm512_set1_epi8(15);
    wquad w;
    w.lo = _mm512_and_si512(v, low);
    w.hi = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    if (type == Q5_0 || type == Q5_1) {
        w.lo = with_fifth(w.lo, a, t.low_bits, b);
        w.hi = with_fifth(w.hi, a, t.high_bits, b);
    }
    if (type == IQ4_NL) {                       /* the table plus 128 */
        const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));
        w.lo = _mm512_shuffle_epi8(table, w.lo);
        w.hi = _mm512_shuffle_epi8(table, w.hi);
    }
    if (stride <= 20) {                         /* the fields of all four blocks lie in the first 64 bytes */
        w.d = halves_to_f32(_mm512_permutexvar_epi16(_mm512_loadu_si512(t.d), a));
        if (nibble_has_m(type)) w.m = halves_to_f32(_mm512_permutexvar_epi16(_mm512_loadu_si512(t.m), a));
    } else {
        w.d = halves_to_f32(_mm512_permutex2var_epi16(a, _mm512_loadu_si512(t.d), b));
        if (nibble_has_m(type)) w.m = halves_to_f32(_mm512_permutex2var_epi16(a, _mm512_loadu_si512(t.m), b));
    }
    return w;
}

INLINE xquad load_xquad(nibble_type type, const tokens *x, int t, int64_t b, int n) {
    const int8_t *q = x->q + t * x->n_pad + 32 * b;
    const __m512i a = load_bytes(q, 32 * n), c = n > 2 ? load_bytes(q + 64, 32 * n - 64) : _mm512_setzero_si512();
    const __m128 d = _mm_maskz_loadu_ps((__mmask8)((1 << n) - 1), x->d + t * x->blocks + b);
    const __m128i sum = _mm_maskz_loadu_epi32((__mmask8)((1 << n) - 1), x->sum + t * x->blocks + b);
    const __m512i each4 = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __mmask16 leading = 0x1111;
    xquad v;
    v.lo = _mm512_shuffle_i64x2(a, c, 0x88);
    v.hi = _mm512_shuffle_i64x2(a, c, 0xdd);
    v.d = _mm512_permutexvar_ps(each4, _mm512_castps128_ps512(d));
    if (nibble_offset(type))
        v.start = _mm512_maskz_permutexvar_epi32(leading, each4, _mm512_castsi128_si512(_mm_mullo_epi32(sum, _mm_set1_epi32(-nibble_offset(type)))));
    else v.start = _mm512_setzero_si512();
    if (nibble_has_m(type))
        v.dsum = _mm512_maskz_permutexvar_ps(leading, each4, _mm512_castps128_ps512(_mm_mul_ps(d, _mm_cvtepi32_ps(sum))));
    return v;
}

INLINE void nibble_step(nibble_type type, const uint8_t *w, int64_t row_bytes, int R, const tokens *x, int T, int64_t b, int n, vf acc[4][MANY]) {
    const int64_t at = b * nibble_stride(type);
    xquad xv[MANY];
    for (int t = 0; t < T; t++) xv[t] = load_xquad(type, x, t, b, n);
    for (int r = 0; r < R; r++) {
        const uint8_t *p = w + r * row_bytes + at;
        _mm_prefetch((const char *)(p + 4 * row_bytes), _MM_HINT_T0);
        const wquad v = load_wquad(type, p, n);
        for (int t = 0; t < T; t++) {
            const __m512i s = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(xv[t].start, v.lo, xv[t].lo), v.hi, xv[t].hi);
            acc[r][t] = v_fma(v_mul(v.d, xv[t].d), _mm512_cvtepi32_ps(s), acc[r][t]);
            if (nibble_has_m(type)) acc[r][t] = v_fma(v.m, xv[t].dsum, acc[r][t]);
        }
    }
}

INLINE void nibble_rows(nibble_type type, const uint8_t *w, int64_t row_bytes, int R, int64_t blocks, const tokens *x, int T, float *y, int64_t ldy) {
    vf acc[4][MANY];
    int64_t b = 0;
    clear_sums(acc, R, T);
    for (; b + 4 <= blocks; b += 4) nibble_step(type, w, row_bytes, R, x, T, b, 4, acc);
    if (b < blocks) nibble_step(type, w, row_bytes, R, x, T, b, (int)(blocks - b), acc);
    store_sums(acc, R, T, y, ldy);
}

#define NIBBLE(name, type)                                                                                                           \
    static void rowdot_##name(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) { \
        FOR_TOKENS(NIBBLE_BODY_##type)                                                                                                \
    }
#define NIBBLE_BODY(type, R, T) nibble_rows(type, w + r * row_bytes, row_bytes, R, cols / 32, &xt, T, y + t0 * ldy + r, ldy)
#define NIBBLE_BODY_Q4_0(R, T) NIBBLE_BODY(Q4_0, R, T)
#define NIBBLE_BODY_Q4_1(R, T) NIBBLE_BODY(Q4_1, R, T)
#define NIBBLE_BODY_Q5_0(R, T) NIBBLE_BODY(Q5_0, R, T)
#define NIBBLE_BODY_Q5_1(R, T) NIBBLE_BODY(Q5_1, R, T)
#define NIBBLE_BODY_IQ4_NL(R, T) NIBBLE_BODY(IQ4_NL, R, T)
NIBBLE(q4_0, Q4_0)
NIBBLE(q4_1, Q4_1)
NIBBLE(q5_0, Q5_0)
NIBBLE(q5_1, Q5_1)
NIBBLE(iq4_nl, IQ4_NL)

/* ---- the block types of this form: where 128 weights are, and how they become a `wide` ---- */
typedef enum wide_type { Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K } wide_type;

INLINE int64_t wide_at(wide_type t, int64_t b) {  /* of the block that holds weights 32 b … */
    return t == Q8_0 ? 34 * b : b / 8 * (t == Q2_K ? 84 : t == Q3_K ? 110 : t == Q4_K ? 144 : t == Q5_K ? 176 : 210);
}
INLINE int wide_offset(wide_type t) { return t == Q8_0 ? 128 : t == Q3_K ? 4 : t == Q6_K ? 32 : 0; }
INLINE int wide_has_m(wide_type t) { return t == Q2_K ? 16 : t == Q4_K || t == Q5_K ? 1 : 0; }

INLINE __m512i two_halves(const uint8_t *low, const uint8_t *high) {
    const __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)low));
    return _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)high), 1);
}

INLINE wide wide_q8_0(const uint8_t *p, int n) {
    static const uint16_t first[32] = {0, 0, 0, 0, 0, 0, 0, 0, 17, 17, 17, 17, 17, 17, 17, 17};
    static const uint16_t second[32] = {34, 34, 34, 34, 34, 34, 34, 34, 51, 51, 51, 51, 51, 51, 51, 51};
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const __m512i a = load_bytes(p, 34 * n), b = load_bytes(p + 64, 34 * n - 64);
    wide w;
    if (n == 4) {
        w.c0 = two_halves(p + 2, p + 36);
        w.c1 = two_halves(p + 70, p + 104);
    } else {                                     /* bytes of absent blocks are zero, and so are their x */
        w.c0 = _mm512_mask_loadu_epi8(_mm512_maskz_loadu_epi8(0xffffffffull, p + 2), n > 1 ? 0xffffffff00000000ull : 0, p + 4);
        w.c1 = n > 2 ? _mm512_maskz_loadu_epi8(0xffffffffull, p + 70) : _mm512_setzero_si512();
    }
    w.c0 = _mm512_xor_si512(w.c0, flip);
    w.c1 = _mm512_xor_si512(w.c1, flip);
    w.s0 = halves_to_f32(_mm512_permutex2var_epi16(a, _mm512_loadu_si512(first), b));
    w.s1 = halves_to_f32(_mm512_permutex2var_epi16(a, _mm512_loadu_si512(second), b));
    return w;
}

INLINE float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return _cvtsh_ss(h);
}

/* Eight scales, one per 16 weights: four lanes each. */
INLINE void spread_scales16(__m256i scales, float d, vf *s0, vf *s1) {
    const vf s = _mm512_castps256_ps512(_mm256_mul_ps(_mm256_cvtepi32_ps(scales), _mm256_set1_ps(d)));
    *s0 = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), s);
    *s1 = _mm512_permutexvar_ps(_mm512_setr_epi32(4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7), s);
}

/* Two bits of each of 32 bytes, four times: fields 0 and 1 in *c0, 2 and 3 in *c1. */
INLINE void two_bit_fields(const uint8_t *p, __m512i *c0, __m512i *c1) {
    const __m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)p)), three = _mm512_set1_epi8(3);
    *c0 = _mm512_and_si512(_mm512_srlv_epi64(v, _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2)), three);
    *c1 = _mm512_and_si512(_mm512_srlv_epi64(v, _mm512_setr_epi64(4, 4, 4, 4, 6, 6, 6, 6)), three);
}

/* Bits `bit` (first half) and bit + 1 of 32 bytes, as a mask of 64. */
INLINE __mmask64 bit_pair(const uint8_t *p, int bit) {
    const __m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)p));
    const __m512i test = _mm512_inserti64x4(_mm512_set1_epi8((char)(1 << bit)), _mm256_set1_epi8((char)(2 << bit)), 1);
    return _mm512_test_epi8_mask(v, test);
}

INLINE wide wide_q2_k(const uint8_t *p, int half) {
    const __m256i s = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8 * half)));
    wide w;
    two_bit_fields(p + 16 + 32 * half, &w.c0, &w.c1);
    spread_scales16(_mm256_and_si256(s, _mm256_set1_epi32(15)), half_at(p + 80), &w.s0, &w.s1);
    spread_scales16(_mm256_srli_epi32(s, 4), -half_at(p + 82), &w.m0, &w.m1);
    return w;
}

INLINE wide wide_q3_k(const uint8_t *p, int half) {
    uint32_t a[3];                               /* twelve bytes of scales: low nibbles, then four times two high bits */
    memcpy(a, p + 96, 12);
    const int shift = half ? 4 : 0;
    const uint64_t low = (a[0] >> shift & 0x0f0f0f0fu) | (uint64_t)(a[1] >> shift & 0x0f0f0f0fu) << 32;
    const uint32_t h = a[2] >> shift;
    const uint64_t high = (uint64_t)(h & 0x03030303u) << 4 | (uint64_t)(h >> 2 & 0x03030303u) << 36;
    const __m256i s = _mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)(low | high))), _mm256_set1_epi32(32));
    const __m512i four = _mm512_set1_epi8(4);
    wide w;
    two_bit_fields(p + 32 + 32 * half, &w.c0, &w.c1);
    w.c0 = _mm512_mask_add_epi8(w.c0, bit_pair(p, 4 * half), w.c0, four);
    w.c1 = _mm512_mask_add_epi8(w.c1, bit_pair(p, 4 * half + 2), w.c1, four);
    spread_scales16(s, half_at(p + 108), &w.s0, &w.s1);
    return w;
}

/* Q4_K and Q5_K: 64 bytes hold the low nibbles of sub-blocks 0 and 2 of this half and the high ones of 1 and 3. */
INLINE wide wide_q45_k(const uint8_t *p, int half, int fifth) {
    uint32_t a[3];
    memcpy(a, p + 4, 12);
    const uint32_t sc = half ? (a[2] & 0x0f0f0f0fu) | (a[0] >> 2 & 0x30303030u) : a[0] & 0x3f3f3f3fu;
    const uint32_t mn = half ? (a[2] >> 4 & 0x0f0f0f0fu) | (a[1] >> 2 & 0x30303030u) : a[1] & 0x3f3f3f3fu;
    const __m128 s = _mm_mul_ps(_mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128((int)sc))), _mm_set1_ps(half_at(p)));
    const __m512i v = _mm512_loadu_si512(p + (fifth ? 48 : 16) + 64 * half), low = _mm512_set1_epi8(15), sixteen = _mm512_set1_epi8(16);
    const __m512i lo = _mm512_and_si512(v, low), hi = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    wide w;
    w.c0 = _mm512_shuffle_i64x2(lo, hi, 0x44);
    w.c1 = _mm512_shuffle_i64x2(lo, hi, 0xee);
    if (fifth) {
        w.c0 = _mm512_mask_add_epi8(w.c0, bit_pair(p + 16, 4 * half), w.c0, sixteen);
        w.c1 = _mm512_mask_add_epi8(w.c1, bit_pair(p + 16, 4 * half + 2), w.c1, sixteen);
    }
    w.m = _mm_mul_ps(_mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128((int)mn))), _mm_set1_ps(-half_at(p + 2)));
    w.s0 = spread_pair(s, 0);
    w.s1 = spread_pair(s, 2);
    return w;
}

INLINE wide wide_q6_k(const uint8_t *p, int half) {
    const __m512i v = _mm512_loadu_si512(p + 64 * half), low = _mm512_set1_epi8(15);
    __m512i h0, h1;
    wide w;
    two_bit_fields(p + 128 + 32 * half, &h0, &h1);
    w.c0 = _mm512_or_si512(_mm512_and_si512(v, low), _mm512_slli_epi16(h0, 4));
    w.c1 = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(v, 4), low), _mm512_slli_epi16(h1, 4));
    spread_scales16(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 192 + 8 * half))), half_at(p + 208), &w.s0, &w.s1);
    return w;
}

INLINE wide load_wide(wide_type type, const uint8_t *p, int64_t b, int n) {
    const int half = b % 8 / 4;
    return type == Q8_0 ? wide_q8_0(p, n) : type == Q2_K ? wide_q2_k(p, half) : type == Q3_K ? wide_q3_k(p, half)
         : type == Q4_K ? wide_q45_k(p, half, 0) : type == Q5_K ? wide_q45_k(p, half, 1) : wide_q6_k(p, half);
}

INLINE void wide_step(wide_type type, const uint8_t *w, int64_t row_bytes, int R, const tokens *x, int T, int64_t b, int n, vf acc[4][MANY]) {
    xwide xv[MANY];
    for (int t = 0; t < T; t++) xv[t] = load_xwide(x, t, b, n, wide_offset(type), wide_has_m(type));
    for (int r = 0; r < R; r++) {
        const uint8_t *p = w + r * row_bytes + wide_at(type, b);
        _mm_prefetch((const char *)(p + 4 * row_bytes), _MM_HINT_T0);
        if (type == Q8_0) _mm_prefetch((const char *)(p + 4 * row_bytes + 64), _MM_HINT_T0);
        const wide v = load_wide(type, p, b, n);
        for (int t = 0; t < T; t++) acc[r][t] = wide_dot(&v, &xv[t], wide_has_m(type), acc[r][t]);
    }
}

INLINE void wide_rows(wide_type type, const uint8_t *w, int64_t row_bytes, int R, int64_t blocks, const tokens *x, int T, float *y, int64_t ldy) {
    vf acc[4][MANY];
    int64_t b = 0;
    clear_sums(acc, R, T);
    for (; b + 4 <= blocks; b += 4) wide_step(type, w, row_bytes, R, x, T, b, 4, acc);
    if (type == Q8_0 && b < blocks) wide_step(type, w, row_bytes, R, x, T, b, (int)(blocks - b), acc);
    store_sums(acc, R, T, y, ldy);
}

#define WIDE(name, type)                                                                                                             \
    static void rowdot_##name(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) { \
        FOR_TOKENS(WIDE_BODY_##type)                                                                                                  \
    }
#define WIDE_BODY(type, R, T) wide_rows(type, w + r * row_bytes, row_bytes, R, cols / 32, &xt, T, y + t0 * ldy + r, ldy)
#define WIDE_BODY_Q8_0(R, T) WIDE_BODY(Q8_0, R, T)
#define WIDE_BODY_Q2_K(R, T) WIDE_BODY(Q2_K, R, T)
#define WIDE_BODY_Q3_K(R, T) WIDE_BODY(Q3_K, R, T)
#define WIDE_BODY_Q4_K(R, T) WIDE_BODY(Q4_K, R, T)
#define WIDE_BODY_Q5_K(R, T) WIDE_BODY(Q5_K, R, T)
#define WIDE_BODY_Q6_K(R, T) WIDE_BODY(Q6_K, R, T)
WIDE(q8_0, Q8_0)
WIDE(q2_k, Q2_K)
WIDE(q3_k, Q3_K)
WIDE(q4_k, Q4_K)
WIDE(q5_k, Q5_K)
WIDE(q6_k, Q6_K)

void tt__kernels_avx512_rowdot_vnni(tt_kernels *k) {
    k->rowdot_q4_0 = rowdot_q4_0;
    k->rowdot_q4_1 = rowdot_q4_1;
    k->rowdot_q5_0 = rowdot_q5_0;
    k->rowdot_q5_1 = rowdot_q5_1;
    k->rowdot_q8_0 = rowdot_q8_0;
    k->rowdot_iq4_nl = rowdot_iq4_nl;
    k->rowdot_q2_k = rowdot_q2_k;
    k->rowdot_q3_k = rowdot_q3_k;
    k->rowdot_q4_k = rowdot_q4_k;
    k->rowdot_q5_k = rowdot_q5_k;
    k->rowdot_q6_k = rowdot_q6_k;
}
