/* Products of compressed rows with rounded activations, by vpmaddubsw and vpmaddwd: 32 weights at a time, as bytes in natural order.
 *
 * vpmaddubsw multiplies unsigned by signed bytes and saturates pair sums at 16 bits. That never happens here: unsigned codes are at most
 * 31 (2 * 31 * 127 < 32768), and signed ones go in as |w| and sign(w) x with |w| ≤ 128 (2 * 128 * 127 = 32512). So the integer part
 * equals the reference exactly. A fixed offset (w = d (q - 8)) is taken off in integers, by starting from -8 Σx; one that comes in
 * floats (Q4_1's m, our grids) is a second product with Σx.
 *
 * Four rows share the loads of x. A row's sum is the same whatever shares the call. Prefetches may point past the end: harmless.
 */
#include "kernels/codes.h"
#include "kernels/isa.h"
#include "kernels/x86/vec.h"

enum { MANY = 2 };                              /* activations at a time */

typedef struct tokens { const int8_t *q; const float *d; const int32_t *sum; int64_t n_pad, blocks; } tokens;

/* 32 weights: codes, scale per lane (a lane is four neighbouring weights), m per lane: added as m * Σx of the lane or, when all lanes
 * share it, as m * Σx of the block. */
typedef struct block { __m256i c; vf s, m; } block;
typedef struct xblock { __m256i q; __m256i start; vf d, dsum; } xblock;

typedef enum type { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, CODES2, CODES3, CODES4, CODES8 } type;
typedef enum m_kind { M_NONE, M_BLOCK, M_LANE } m_kind;

INLINE int offset_of(type t) { return t == Q4_0 ? 8 : t == Q5_0 ? 16 : 0; }
INLINE int is_signed(type t) { return t == Q8_0 || t == IQ4_NL || t == Q3_K || t == Q6_K || t == CODES8; }
INLINE m_kind m_of(type t) { return t == Q2_K ? M_LANE : t == Q4_1 || t == Q5_1 || t == Q4_K || t == Q5_K || t >= CODES2 ? M_BLOCK : M_NONE; }

INLINE __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
INLINE __m256i load32(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE __m256i twice16(const uint8_t *p) { return _mm256_broadcastsi128_si256(load16(p)); }
INLINE __m256i and8(__m256i v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi8((char)mask)); }
INLINE float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return _cvtsh_ss(h);
}

/* 16 bytes: low nibbles, then high ones. */
INLINE __m256i nibbles(const uint8_t *p) {
    const __m128i v = load16(p);
    return and8(_mm256_inserti128_si256(_mm256_castsi128_si256(v), _mm_srli_epi16(v, 4), 1), 15);
}

/* `value` in byte i where bit i of the 32 is set. */
INLINE __m256i spread_bits(uint32_t bits, int value) {
    const __m256i where = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i one = _mm256_set1_epi64x((long long)0x8040201008040201ull);
    const __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), where), one);
    return and8(_mm256_cmpeq_epi8(v, one), value);
}

INLINE uint32_t bits_at(const uint8_t *p) {
    uint32_t u;
    memcpy(&u, p, 4);
    return u;
}

INLINE vf two_scales(float a, float b) { return _mm256_set_m128(_mm_set1_ps(b), _mm_set1_ps(a)); }

INLINE __m256i iq4_nl_table(void) {
    return _mm256_broadcastsi128_si256(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
}

/* ---- K types: s = number of the 32 weights in their block of 256 ---- */

INLINE __m256i two_bits(const uint8_t *p, int shift) { return and8(_mm256_srl_epi16(load32(p), _mm_cvtsi32_si128(shift)), 3); }

/* `value` where bit s of the 32 bytes is set */
INLINE __m256i bit_of_bytes(const uint8_t *p, int s, int value) {
    const __m256i bit = _mm256_set1_epi8((char)(1 << s));
    return and8(_mm256_cmpeq_epi8(_mm256_and_si256(load32(p), bit), bit), value);
}

INLINE block block_q2_k(const uint8_t *p, int s) {
    const float d = half_at(p + 80), dmin = -half_at(p + 82);
    const int a = p[2 * s], b = p[2 * s + 1];
    return (block){two_bits(p + 16 + s / 4 * 32, s % 4 * 2), two_scales(d * (float)(a & 15), d * (float)(b & 15)),
                   two_scales(dmin * (float)(a >> 4), dmin * (float)(b >> 4))};
}

INLINE float scale_q3_k(const uint8_t *sc, int j, float d) {
    const int lo = j < 8 ? sc[j] & 15 : sc[j - 8] >> 4, hi = sc[8 + j % 4] >> 2 * (j / 4) & 3;
    return d * (float)((lo | hi << 4) - 32);
}

INLINE block block_q3_k(const uint8_t *p, int s) {
    const float d = half_at(p + 108);
    const __m256i low = two_bits(p + 32 + s / 4 * 32, s % 4 * 2), high = bit_of_bytes(p, s, 4);
    return (block){_mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(4)),
                   two_scales(scale_q3_k(p + 96, 2 * s, d), scale_q3_k(p + 96, 2 * s + 1, d)), v_zero()};
}

INLINE block block_q45_k(const uint8_t *p, int s, int fifth) {
    const uint8_t *k = p + 4;
    const int sc = s < 4 ? k[s] & 63 : (k[s + 4] & 15) | k[s - 4] >> 6 << 4, mn = s < 4 ? k[s + 4] & 63 : k[s + 4] >> 4 | k[s] >> 6 << 4;
    __m256i c = and8(_mm256_srl_epi16(load32(p + (fifth ? 48 : 16) + s / 2 * 32), _mm_cvtsi32_si128(s % 2 * 4)), 15);
    if (fifth) c = _mm256_or_si256(c, bit_of_bytes(p + 16, s, 16));
    return (block){c, v_set1(half_at(p) * (float)sc), v_set1(-half_at(p + 2) * (float)mn)};
}

INLINE block block_q6_k(const uint8_t *p, int s) {
    const float d = half_at(p + 208);
    const __m256i low = and8(_mm256_srl_epi16(load32(p + s / 4 * 64 + s % 2 * 32), _mm_cvtsi32_si128(s % 4 / 2 * 4)), 15);
    const __m256i high = _mm256_slli_epi16(two_bits(p + 128 + s / 4 * 32, s % 4 * 2), 4);
    return (block){_mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32)),
                   two_scales(d * (float)(int8_t)p[192 + 2 * s], d * (float)(int8_t)p[193 + 2 * s]), v_zero()};
}

INLINE block load_block(type t, const uint8_t *row, int64_t b) {
    const uint8_t *p;
    const int s = (int)(b % 8);
    block w = {.m = v_zero()};
    switch (t) {
    case Q4_0: p = row + 18 * b; w.c = nibbles(p + 2); break;
    case Q4_1: p = row + 20 * b; w.c = nibbles(p + 4); w.m = v_set1(half_at(p + 2)); break;
    case Q5_0: p = row + 22 * b; w.c = _mm256_or_si256(nibbles(p + 6), spread_bits(bits_at(p + 2), 16)); break;
    case Q5_1: p = row + 24 * b; w.c = _mm256_or_si256(nibbles(p + 8), spread_bits(bits_at(p + 4), 16)); w.m = v_set1(half_at(p + 2)); break;
    case Q8_0: p = row + 34 * b; w.c = load32(p + 2); break;
    case IQ4_NL:
        p = row + 18 * b;
        w.c = _mm256_shuffle_epi8(iq4_nl_table(), nibbles(p + 2));
        break;
    case Q2_K: return block_q2_k(row + b / 8 * 84, s);
    case Q3_K: return block_q3_k(row + b / 8 * 110, s);
    case Q4_K: return block_q45_k(row + b / 8 * 144, s, 0);
    case Q5_K: return block_q45_k(row + b / 8 * 176, s, 1);
    default: return block_q6_k(row + b / 8 * 210, s);
    }
    w.s = v_set1(half_at(p));
    return w;
}

/* ---- the product ---- */

INLINE __m256i lane_sums(__m256i products16) { return _mm256_madd_epi16(products16, _mm256_set1_epi16(1)); }

INLINE vf first_lane(float x) { return _mm256_zextps128_ps256(_mm_set_ss(x)); }

INLINE xblock load_x(type type_, const tokens *x, int t, int64_t b) {
    const int8_t *q = x->q + t * x->n_pad + 32 * b;
    const float d = x->d[t * x->blocks + b];
    const int32_t sum = x->sum[t * x->blocks + b];
    xblock v = {.q = _mm256_loadu_si256((const __m256i *)q), .start = _mm256_setzero_si256(), .d = v_set1(d), .dsum = v_zero()};
    if (offset_of(type_)) v.start = _mm256_zextsi128_si256(_mm_cvtsi32_si128(-offset_of(type_) * sum));
    if (m_of(type_) == M_BLOCK) v.dsum = first_lane(d * (float)sum);
    if (m_of(type_) == M_LANE) v.dsum = v_mul(v.d, _mm256_cvtepi32_ps(lane_sums(_mm256_maddubs_epi16(_mm256_set1_epi8(1), v.q))));
    return v;
}

INLINE vf block_dot(type t, const block *w, const xblock *x, vf acc) {
    const __m256i p = is_signed(t) ? _mm256_maddubs_epi16(_mm256_abs_epi8(w->c), _mm256_sign_epi8(x->q, w->c)) : _mm256_maddubs_epi16(w->c, x->q);
    __m256i s = lane_sums(p);
    if (offset_of(t)) s = _mm256_add_epi32(s, x->start);
    acc = v_fma(v_mul(w->s, x->d), _mm256_cvtepi32_ps(s), acc);
    return m_of(t) == M_NONE ? acc : v_fma(w->m, x->dsum, acc);
}

INLINE void clear_sums(vf acc[4][MANY], int R, int T) {
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) acc[r][t] = v_zero();
}

INLINE void store_sums(vf acc[4][MANY], int R, int T, float *y, int64_t ldy) {
    float lanes[4];
    for (int t = 0; t < T; t++) {
        const __m128 s = v_sum4(acc[0][t], R > 1 ? acc[1][t] : v_zero(), R > 2 ? acc[2][t] : v_zero(), R > 3 ? acc[3][t] : v_zero());
        _mm_storeu_ps(lanes, s);
        for (int r = 0; r < R; r++) y[t * ldy + r] = lanes[r];
    }
}

INLINE void block_rows(type type_, const uint8_t *w, int64_t row_bytes, int R, int64_t blocks, const tokens *x, int T, float *y, int64_t ldy) {
    vf acc[4][MANY];
    clear_sums(acc, R, T);
    for (int64_t b = 0; b < blocks; b++) {
        xblock xv[MANY];
        for (int t = 0; t < T; t++) xv[t] = load_x(type_, x, t, b);
        for (int r = 0; r < R; r++) {
            const uint8_t *row = w + r * row_bytes;
            if (b % 2 == 0) _mm_prefetch((const char *)(row + 4 * row_bytes + b * row_bytes / blocks), _MM_HINT_T0);
            const block v = load_block(type_, row, b);
            for (int t = 0; t < T; t++) acc[r][t] = block_dot(type_, &v, &xv[t], acc[r][t]);
        }
    }
    store_sums(acc, R, T, y, ldy);
}

/* body(R, T) with constants: four rows of one activation, two of two, then single rows. In scope: rows, x. */
#define FOR_ROWS(R, T, body)                          \
    do {                                              \
        int64_t r = 0;                                \
        for (; r + (R) <= rows; r += (R)) body(R, T); \
        for (; r < rows; r++) body(1, T);             \
    } while (0)
#define FOR_TOKENS(body)                                                                                                            \
    for (int64_t t0 = 0; t0 < x->T; t0 += MANY) {                                                                                   \
        const tokens xt = {x->q + t0 * x->n_pad, x->d + t0 * x->blocks, x->sum + t0 * x->blocks, x->n_pad, x->blocks};              \
        if (x->T - t0 >= MANY) FOR_ROWS(2, 2, body);                                                                                \
        else FOR_ROWS(4, 1, body);                                                                                                  \
    }

#define BLOCK_BODY(type, R, T) block_rows(type, w + r * row_bytes, row_bytes, R, cols / 32, &xt, T, y + t0 * ldy + r, ldy)
#define BLOCKS(name, type)                                                                                                           \
    static void rowdot_##name(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) { \
        FOR_TOKENS(BODY_##type)                                                                                                       \
    }
#define BODY_Q4_0(R, T) BLOCK_BODY(Q4_0, R, T)
#define BODY_Q4_1(R, T) BLOCK_BODY(Q4_1, R, T)
#define BODY_Q5_0(R, T) BLOCK_BODY(Q5_0, R, T)
#define BODY_Q5_1(R, T) BLOCK_BODY(Q5_1, R, T)
#define BODY_Q8_0(R, T) BLOCK_BODY(Q8_0, R, T)
#define BODY_IQ4_NL(R, T) BLOCK_BODY(IQ4_NL, R, T)
#define BODY_Q2_K(R, T) BLOCK_BODY(Q2_K, R, T)
#define BODY_Q3_K(R, T) BLOCK_BODY(Q3_K, R, T)
#define BODY_Q4_K(R, T) BLOCK_BODY(Q4_K, R, T)
#define BODY_Q5_K(R, T) BLOCK_BODY(Q5_K, R, T)
#define BODY_Q6_K(R, T) BLOCK_BODY(Q6_K, R, T)
BLOCKS(q4_0, Q4_0)
BLOCKS(q4_1, Q4_1)
BLOCKS(q5_0, Q5_0)
BLOCKS(q5_1, Q5_1)
BLOCKS(q8_0, Q8_0)
BLOCKS(iq4_nl, IQ4_NL)
BLOCKS(q2_k, Q2_K)
BLOCKS(q3_k, Q3_K)
BLOCKS(q4_k, Q4_K)
BLOCKS(q5_k, Q5_K)
BLOCKS(q6_k, Q6_K)

/* ---- our own codes, dense groups ---- */

INLINE type type_of_bits(int bits) { return bits == 2 ? CODES2 : bits == 3 ? CODES3 : bits == 4 ? CODES4 : CODES8; }

/* Codes 32 i … of a group of 32, 64 or 128 that begins at p. */
INLINE __m256i group_low2(const uint8_t *p, int group, int i) {
    if (group == 128) return two_bits(p, 2 * i);
    if (group == 64) {
        const __m256i shift = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
        return and8(_mm256_srlv_epi32(twice16(p), _mm256_add_epi32(shift, _mm256_set1_epi32(4 * i))), 3);
    }
    uint64_t eight;
    memcpy(&eight, p, 8);
    return and8(_mm256_srlv_epi64(_mm256_set1_epi64x((long long)eight), _mm256_setr_epi64x(0, 2, 4, 6)), 3);
}

INLINE __m256i group_codes(int bits, const uint8_t *p, int group, int i) {
    if (bits == 8) return _mm256_xor_si256(load32(p + 32 * i), _mm256_set1_epi8((char)0x80));
    if (bits == 4) {
        if (group == 32) return nibbles(p);
        const __m256i v = load32(p + 32 * i % (group / 2));
        return and8(64 * i < group ? v : _mm256_srli_epi16(v, 4), 15);
    }
    const __m256i low = group_low2(p, group, i);
    return bits == 2 ? low : _mm256_or_si256(low, spread_bits(bits_at(p + group / 4 + 4 * i), 4));
}

/* Codes of eight bits come as signed q - 128, the others as q: what is left of the offset. min: of the group, or NULL. */
INLINE block scaled(int bits, __m256i codes, uint16_t scale, const uint16_t *min) {
    const float d = _cvtsh_ss(scale & 0x7fffu), middle = bits == 8 ? 0.0f : (float)(1 << (bits - 1));
    if (min) return (block){codes, v_set1(_cvtsh_ss(scale)), v_set1(_cvtsh_ss(*min) + (bits == 8 ? 128.0f * _cvtsh_ss(scale) : 0.0f))};
    return (block){codes, v_set1(d), v_set1(d * (scale & 0x8000u ? 0.5f - middle : -middle))};
}

/* Group g of R rows, codes at p; `group` is its length. */
INLINE void group_step(int bits, int group, const uint8_t *p, int64_t code_stride, const uint16_t *scales, const uint16_t *mins, int64_t scale_stride, int64_t b, int R,
                       const tokens *x, int T, vf acc[4][MANY]) {
    const type type_ = type_of_bits(bits);
    for (int i = 0; i < group / 32; i++) {
        xblock xv[MANY];
        for (int t = 0; t < T; t++) xv[t] = load_x(type_, x, t, b + i);
        for (int r = 0; r < R; r++) {
            _mm_prefetch((const char *)(p + (r + 4) * code_stride), _MM_HINT_T0);
            const block v = scaled(bits, group_codes(bits, p + r * code_stride, group, i), scales[r * scale_stride], mins ? mins + r * scale_stride : NULL);
            for (int t = 0; t < T; t++) acc[r][t] = block_dot(type_, &v, &xv[t], acc[r][t]);
        }
    }
}

/* A short group of an unusual length n: unpacked to bytes; x is padded with zeros. */
INLINE void odd_group(int bits, const uint8_t *p, int64_t n, uint16_t scale, const uint16_t *min, int64_t b, const tokens *x, int T, vf acc[MANY]) {
    const type type_ = type_of_bits(bits);
    uint8_t codes[128];
    memset(codes, 0, sizeof codes);
    tt__codes_unpack(bits, p, n, codes);
    for (int64_t i = 0; 32 * i < n; i++) {
        const __m256i c = load32(codes + 32 * i);
        const block v = scaled(bits, bits == 8 ? _mm256_xor_si256(c, _mm256_set1_epi8((char)0x80)) : c, scale, min);
        for (int t = 0; t < T; t++) {
            const xblock xv = load_x(type_, x, t, b + i);
            acc[t] = block_dot(type_, &v, &xv, acc[t]);
        }
    }
}

INLINE void group_rows(int bits, int group, const uint8_t *codes, int64_t code_stride, const uint16_t *scales, const uint16_t *mins, int64_t scale_stride,
                       int64_t cols, int R, const tokens *x, int T, float *y, int64_t ldy) {
    const int64_t whole = cols / group, rest = cols % group, per = group / 32;
    vf acc[4][MANY];
    clear_sums(acc, R, T);
    for (int64_t g = 0; g < whole; g++, codes += group * bits / 8, scales++, mins = mins ? mins + 1 : NULL)
        group_step(bits, group, codes, code_stride, scales, mins, scale_stride, g * per, R, x, T, acc);
    if (rest == 64) group_step(bits, 64, codes, code_stride, scales, mins, scale_stride, whole * per, R, x, T, acc);
    else if (rest == 32) group_step(bits, 32, codes, code_stride, scales, mins, scale_stride, whole * per, R, x, T, acc);
    else if (rest)
        for (int r = 0; r < R; r++) odd_group(bits, codes + r * code_stride, rest, scales[r * scale_stride], mins ? mins + r * scale_stride : NULL, whole * per, x, T, acc[r]);
    store_sums(acc, R, T, y, ldy);
}

static void rowdot_group(const uint8_t *codes, int64_t code_stride, const uint16_t *scales, const uint16_t *mins, int64_t scale_stride, int bits, int group,
                         int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
#define BODY(b, g, R, T) \
    group_rows(b, g, codes + r * code_stride, code_stride, scales + r * scale_stride, mins ? mins + r * scale_stride : NULL, scale_stride, cols, R, &xt, T, \
               y + t0 * ldy + r, ldy)
#define BODY_2_32(R, T) BODY(2, 32, R, T)
#define BODY_2_64(R, T) BODY(2, 64, R, T)
#define BODY_2_128(R, T) BODY(2, 128, R, T)
#define BODY_3_32(R, T) BODY(3, 32, R, T)
#define BODY_3_64(R, T) BODY(3, 64, R, T)
#define BODY_3_128(R, T) BODY(3, 128, R, T)
#define BODY_4_32(R, T) BODY(4, 32, R, T)
#define BODY_4_64(R, T) BODY(4, 64, R, T)
#define BODY_4_128(R, T) BODY(4, 128, R, T)
#define BODY_8_32(R, T) BODY(8, 32, R, T)
#define BODY_8_64(R, T) BODY(8, 64, R, T)
#define BODY_8_128(R, T) BODY(8, 128, R, T)
    switch (bits * 256 + group) {
#define CASE(b, g) \
    case (b) * 256 + (g): FOR_TOKENS(BODY_##b##_##g) break;
        CASE(2, 32) CASE(2, 64) CASE(2, 128) CASE(3, 32) CASE(3, 64) CASE(3, 128)
        CASE(4, 32) CASE(4, 64) CASE(4, 128) CASE(8, 32) CASE(8, 64) CASE(8, 128)
#undef CASE
    }
}

/* ---- sparse blocks ----
 * Eight columns at a time: pdep puts eight kept codes of the stream to the bytes of their columns. */

/* Up to 57 bits from bit `at` of the stream begin … end (8-bit codes: at is a whole byte and all 64 count); zeros past its end. */
INLINE uint64_t stream_bits(const uint8_t *begin, const uint8_t *end, int64_t at) {
    const uint8_t *p = begin + at / 8;
    const int64_t left = end - p;
    uint64_t v = 0;
    if (left >= 8) memcpy(&v, p, 8);
    else if (end - begin >= 8) {                  /* the last eight bytes, shifted */
        memcpy(&v, end - 8, 8);
        v = left > 0 ? v >> (64 - 8 * left) : 0;
    } else for (int64_t i = 0; i < left; i++) v |= (uint64_t)p[i] << 8 * i;
    return v >> at % 8;
}

/* 32 columns from a stream; advances *at by the bits of the kept ones. Pruned columns give 0. `roomy`: eight bytes beyond the stream may
 * be read as well, which saves the careful loads and their unpredictable branches. */
INLINE __m256i expand32(int bits, uint32_t mask, const uint8_t *begin, const uint8_t *end, int roomy, int64_t *at) {
    uint64_t eight[4];
    for (int i = 0; i < 4; i++) {
        const uint64_t m = mask >> 8 * i & 255;
        uint64_t v;
        if (roomy) {
            memcpy(&v, begin + *at / 8, 8);
            v >>= *at % 8;
        } else v = stream_bits(begin, end, *at);
        eight[i] = _pdep_u64(v, _pdep_u64(m, 0x0101010101010101ull) * ((1u << bits) - 1));
        *at += __builtin_popcountll(m) * bits;
    }
    return _mm256_set_epi64x((long long)eight[3], (long long)eight[2], (long long)eight[1], (long long)eight[0]);
}

/* 32 columns of one row and activation: Σ (q - middle + h/2) x over the kept. */
INLINE vf sparse_dot(__m256i codes, __m256i ones, uint16_t scale, const tokens *x, int t, int64_t b, vf acc) {
    const __m256i q = _mm256_loadu_si256((const __m256i *)(x->q + t * x->n_pad + 32 * b));
    const vf d = v_set1(_cvtsh_ss(scale & 0x7fffu) * x->d[t * x->blocks + b]);
    acc = v_fma(d, _mm256_cvtepi32_ps(lane_sums(_mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(q, codes)))), acc);
    if (!(scale & 0x8000u)) return acc;
    return v_fma(v_mul(d, v_set1(0.5f)), _mm256_cvtepi32_ps(lane_sums(_mm256_maddubs_epi16(ones, q))), acc);
}

typedef struct sparse_row { const uint64_t *mask; const uint8_t *codes, *readable; const uint16_t *scales; } sparse_row;

/* 64 columns, n of them present. */
INLINE void sparse_block(int bits, uint64_t mask, const uint8_t *p, const uint8_t *end, int roomy, const uint16_t *scales, int group, int64_t c,
                         int64_t n, const tokens *x, int T, vf acc[8]) {
    int64_t at = 0;
    for (int64_t h = 0; h < 64 && h < n; h += 32) {
        const uint32_t m = (uint32_t)(mask >> h);
        const __m256i ones = spread_bits(m, 1), middle = _mm256_slli_epi16(ones, bits - 1);           /* 1 << 7 stays inside its byte */
        const __m256i codes = _mm256_sub_epi8(expand32(bits, m, p, end, roomy, &at), middle);
        for (int t = 0; t < T; t++) acc[t] = sparse_dot(codes, ones, scales[(c + h) / group], x, t, (c + h) / 32, acc[t]);
    }
}

INLINE void sparse_product(int bits, sparse_row w, int group, int64_t cols, const tokens *x, int T, float *y, int64_t ldy) {
    vf acc[8];
    for (int t = 0; t < T; t++) acc[t] = v_zero();
    for (int64_t c = 0; c < cols; c += 64) {
        const uint64_t mask = w.mask[c / 64];
        const uint8_t *end = w.codes + tt__stream_bytes(bits, __builtin_popcountll(mask));
        _mm_prefetch((const char *)(w.codes + 1024), _MM_HINT_T0);
        if (w.readable - end >= 8) sparse_block(bits, mask, w.codes, end, 1, w.scales, group, c, cols - c, x, T, acc);
        else sparse_block(bits, mask, w.codes, end, 0, w.scales, group, c, cols - c, x, T, acc);
        w.codes = end;
    }
    for (int t = 0; t < T; t++) y[t * ldy] = v_sum(acc[t]);
}

INLINE void sparse_tokens(int bits, sparse_row w, int group, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
    for (int64_t t0 = 0; t0 < x->T; t0 += 8) {
        const tokens xt = {x->q + t0 * x->n_pad, x->d + t0 * x->blocks, x->sum + t0 * x->blocks, x->n_pad, x->blocks};
        if (x->T == 1) sparse_product(bits, w, group, cols, &xt, 1, y, ldy);
        else sparse_product(bits, w, group, cols, &xt, x->T - t0 < 8 ? (int)(x->T - t0) : 8, y + t0 * ldy, ldy);
    }
}

static void rowdot_sparseq(const uint64_t *mask, int64_t mask_stride, const uint8_t *codes, const uint64_t *start, const uint16_t *scales,
                           int64_t scale_stride, int bits, int group, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
    uint64_t readable = 0;                        /* every byte up to where the last row begins belongs to the caller */
    for (int64_t r = 0; r < rows; r++) readable = start[r] > readable ? start[r] : readable;
    for (int64_t r = 0; r < rows; r++) {
        const sparse_row w = {mask + r * mask_stride, codes + start[r], codes + readable, scales + r * scale_stride};
        switch (bits) {
        case 2: sparse_tokens(2, w, group, cols, x, y + r, ldy); break;
        case 3: sparse_tokens(3, w, group, cols, x, y + r, ldy); break;
        case 4: sparse_tokens(4, w, group, cols, x, y + r, ldy); break;
        case 8: sparse_tokens(8, w, group, cols, x, y + r, ldy); break;
        }
    }
}

static void decode_sparseq(const uint64_t *mask, const uint8_t *codes, const uint16_t *scales, int bits, int group, int64_t cols,
                           int64_t c0, int64_t c1, float *dst) {
    const float middle = (float)(1 << (bits - 1));
    (void)cols;
    for (int64_t b = 0; b < c0 / 64; b++) codes += tt__stream_bytes(bits, __builtin_popcountll(mask[b]));
    for (int64_t c = c0; c < c1; c += 64) {
        const uint8_t *end = codes + tt__stream_bytes(bits, __builtin_popcountll(mask[c / 64]));
        int64_t at = 0;
        for (int64_t h = 0; h < 64 && c + h < c1; h += 32) {
            const uint32_t m = (uint32_t)(mask[c / 64] >> h);
            const uint16_t scale = scales[(c + h) / group];
            const float d = _cvtsh_ss(scale & 0x7fffu);
            const vf dv = v_set1(d), mv = v_set1(d * (scale & 0x8000u ? 0.5f - middle : -middle));
            uint8_t q[32], keep[32];
            _mm256_storeu_si256((__m256i *)q, expand32(bits, m, codes, end, 0, &at));
            _mm256_storeu_si256((__m256i *)keep, spread_bits(m, 255));
            for (int64_t i = 0; i < 32 && c + h + i < c1; i += 8) {
                const vf w = v_fma(dv, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(q + i)))), mv);
                const vf kept = _mm256_and_ps(_mm256_castsi256_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(keep + i)))), w);
                if (c1 - c - h - i >= 8) v_store(dst + c - c0 + h + i, kept);
                else v_store_n(dst + c - c0 + h + i, kept, c1 - c - h - i);
            }
        }
        codes = end;
    }
}

void tt__kernels_avx2_rowdot(tt_kernels *k) {
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
    k->rowdot_group = rowdot_group;
    k->rowdot_sparseq = rowdot_sparseq;
    k->decode_sparseq = decode_sparseq;
}
