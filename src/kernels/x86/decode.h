/* Rounding of activations and the block decoders, for vectors of 8 or 16: the body of x86_avx2/decode.c and x86_avx512/decode.c.
 * Layouts: ref/blocks.h. Codes are unpacked 16 at a time as bytes, in natural order; a decoded weight is one multiply-add whose product
 * is exact, so it has the bits of the reference.
 */
#include "kernels/codes.h"
#include "kernels/half.h"
#include "kernels/isa.h"
#include "kernels/x86/vec.h"
#include <math.h>

INLINE __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
INLINE float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return _cvtsh_ss(h);
}
INLINE __m128i low_bits(__m128i v, int shift, int mask) { return _mm_and_si128(_mm_srli_epi16(v, shift), _mm_set1_epi8((char)mask)); }

/* dst[0 … 16) = d * code + m, codes as signed bytes; and as unsigned ones. */
#ifdef __AVX512F__
INLINE void put16(float *dst, __m128i codes, vf d, vf m) { v_store(dst, v_fma(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)), m)); }
INLINE void put16u(float *dst, __m128i codes, vf d, vf m) { v_store(dst, v_fma(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)), m)); }
#else
INLINE void put16(float *dst, __m128i codes, vf d, vf m) {
    v_store(dst, v_fma(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)), m));
    v_store(dst + 8, v_fma(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8))), m));
}
INLINE void put16u(float *dst, __m128i codes, vf d, vf m) {
    v_store(dst, v_fma(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)), m));
    v_store(dst + 8, v_fma(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(codes, 8))), m));
}
#endif

/* `add` where bit i of the two bytes is set, for i = 0 … 15. */
INLINE __m128i bits16(uint16_t bits, int add) {
    const __m128i spread = _mm_shuffle_epi8(_mm_set1_epi16((short)bits), _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    const __m128i one = _mm_set1_epi64x((long long)0x8040201008040201ull);
    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(spread, one), one), _mm_set1_epi8((char)add));
}

/* ---- 32 weights to a block ---- */

INLINE void decode_nibbles(const uint8_t *p, int64_t stride, int field, int offset, int has_m, int fifth, float *dst, int64_t n) {
    for (int64_t b = 0; b * 32 < n; b++, p += stride, dst += 32) {
        const __m128i v = load16(p + field);
        __m128i lo = low_bits(v, 0, 15), hi = low_bits(v, 4, 15);
        const float d = half_at(p);
        if (fifth) {
            uint16_t h[2];
            memcpy(h, p + fifth, 4);
            lo = _mm_or_si128(lo, bits16(h[0], 16));
            hi = _mm_or_si128(hi, bits16(h[1], 16));
        }
        const vf dv = v_set1(d), m = v_set1(has_m ? half_at(p + 2) : d * (float)-offset);
        put16u(dst, lo, dv, m);
        put16u(dst + 16, hi, dv, m);
    }
}

static void decode_q4_0(const uint8_t *src, float *dst, int64_t n) { decode_nibbles(src, 18, 2, 8, 0, 0, dst, n); }
static void decode_q4_1(const uint8_t *src, float *dst, int64_t n) { decode_nibbles(src, 20, 4, 0, 1, 0, dst, n); }
static void decode_q5_0(const uint8_t *src, float *dst, int64_t n) { decode_nibbles(src, 22, 6, 16, 0, 2, dst, n); }
static void decode_q5_1(const uint8_t *src, float *dst, int64_t n) { decode_nibbles(src, 24, 8, 0, 1, 4, dst, n); }

static void decode_q8_0(const uint8_t *p, float *dst, int64_t n) {
    for (int64_t b = 0; b * 32 < n; b++, p += 34, dst += 32) {
        const vf d = v_set1(half_at(p));
        put16(dst, load16(p + 2), d, v_zero());
        put16(dst + 16, load16(p + 18), d, v_zero());
    }
}

static void decode_iq4_nl(const uint8_t *p, float *dst, int64_t n) {
    const __m128i table = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
    for (int64_t b = 0; b * 32 < n; b++, p += 18, dst += 32) {
        const __m128i v = load16(p + 2);
        const vf d = v_set1(half_at(p));
        put16(dst, _mm_shuffle_epi8(table, low_bits(v, 0, 15)), d, v_zero());
        put16(dst + 16, _mm_shuffle_epi8(table, low_bits(v, 4, 15)), d, v_zero());
    }
}

/* ---- 256 weights to a block ---- */

static void decode_q2_k(const uint8_t *p, float *dst, int64_t n) {
    for (; n > 0; n -= 256, p += 84, dst += 256) {
        const float d = half_at(p + 80), dmin = half_at(p + 82);
        for (int e = 0; e < 256; e += 16) {
            const __m128i v = load16(p + 16 + e / 128 * 32 + e % 32);
            const uint8_t s = p[e / 16];
            put16u(dst + e, low_bits(_mm_srl_epi16(v, _mm_cvtsi32_si128(e % 128 / 32 * 2)), 0, 3), v_set1(d * (float)(s & 15)),
                   v_set1(-dmin * (float)(s >> 4)));
        }
    }
}

static void decode_q3_k(const uint8_t *p, float *dst, int64_t n) {
    for (; n > 0; n -= 256, p += 110, dst += 256) {
        const float d = half_at(p + 108);
        const uint8_t *sc = p + 96;
        for (int e = 0; e < 256; e += 16) {
            const int j = e / 16, lo = j < 8 ? sc[j] & 15 : sc[j - 8] >> 4, hi = sc[8 + j % 4] >> 2 * (j / 4) & 3;
            const __m128i v = load16(p + 32 + e / 128 * 32 + e % 32), h = load16(p + e % 32), bit = _mm_set1_epi8((char)(1 << e / 32));
            const __m128i low = low_bits(_mm_srl_epi16(v, _mm_cvtsi32_si128(e % 128 / 32 * 2)), 0, 3);
            const __m128i four = _mm_andnot_si128(_mm_cmpeq_epi8(_mm_and_si128(h, bit), bit), _mm_set1_epi8(4));
            put16(dst + e, _mm_sub_epi8(low, four), v_set1(d * (float)((lo | hi << 4) - 32)), v_zero());
        }
    }
}

INLINE void decode_q45_k(const uint8_t *p, int64_t stride, const int fifth, float *dst, int64_t n) {
    for (; n > 0; n -= 256, p += stride, dst += 256) {
        const float d = half_at(p), dmin = half_at(p + 2);
        const uint8_t *s = p + 4, *qs = p + (fifth ? 48 : 16);
        for (int j = 0; j < 8; j++) {
            const int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4, mn = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
            const vf dv = v_set1(d * (float)sc), m = v_set1(-dmin * (float)mn);
            for (int l = 0; l < 32; l += 16) {
                const __m128i v = load16(qs + 32 * (j / 2) + l);
                __m128i q = j % 2 ? low_bits(v, 4, 15) : low_bits(v, 0, 15);
                if (fifth) {
                    const __m128i bit = _mm_set1_epi8((char)(1 << j)), h = load16(p + 16 + l);
                    q = _mm_or_si128(q, _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(h, bit), bit), _mm_set1_epi8(16)));
                }
                put16u(dst + 32 * j + l, q, dv, m);
            }
        }
    }
}

static void decode_q4_k(const uint8_t *src, float *dst, int64_t n) { decode_q45_k(src, 144, 0, dst, n); }
static void decode_q5_k(const uint8_t *src, float *dst, int64_t n) { decode_q45_k(src, 176, 1, dst, n); }

static void decode_q6_k(const uint8_t *p, float *dst, int64_t n) {
    for (; n > 0; n -= 256, p += 210, dst += 256) {
        const float d = half_at(p + 208);
        for (int h = 0; h < 2; h++)
            for (int l = 0; l < 32; l += 16) {
                const __m128i a = load16(p + 64 * h + l), b = load16(p + 64 * h + 32 + l), high = load16(p + 128 + 32 * h + l);
                const __m128i q[4] = {
                    _mm_or_si128(low_bits(a, 0, 15), _mm_slli_epi16(low_bits(high, 0, 3), 4)),
                    _mm_or_si128(low_bits(b, 0, 15), _mm_slli_epi16(low_bits(high, 2, 3), 4)),
                    _mm_or_si128(low_bits(a, 4, 15), _mm_slli_epi16(low_bits(high, 4, 3), 4)),
                    _mm_or_si128(low_bits(b, 4, 15), _mm_slli_epi16(low_bits(high, 6, 3), 4)),
                };
                for (int t = 0; t < 4; t++) {
                    const int e = 128 * h + 32 * t + l;
                    put16(dst + e, _mm_sub_epi8(q[t], _mm_set1_epi8(32)), v_set1(d * (float)(int8_t)p[192 + e / 16]), v_zero());
                }
            }
    }
}

/* ---- our own codes ---- */

/* d (q + offset) = d q + d offset; both products are exact, and so is the sum. With a minimum (of the same group, or NULL): d q + min. */
INLINE void grid_vectors(uint16_t scale, const uint16_t *min, int bits, vf *d, vf *m) {
    if (min) {
        *d = v_set1(_cvtsh_ss(scale));
        *m = v_set1(_cvtsh_ss(*min));
        return;
    }
    const float middle = (float)(1 << (bits - 1)), dd = _cvtsh_ss(scale & 0x7fffu);
    *d = v_set1(dd);
    *m = v_set1(dd * (scale & 0x8000u ? 0.5f - middle : -middle));
}

/* Whole groups of 32, 64 or 128: 16 codes at i lie in 16 neighbouring bytes, or for 2-bit groups of 32 in two times 8. */
INLINE __m128i group_plane2(const uint8_t *p, int group, int i) {
    const int stride = group / 4;
    if (group == 32) {
        const __m128i v = _mm_loadl_epi64((const __m128i *)p);
        return i ? _mm_unpacklo_epi64(low_bits(v, 4, 3), low_bits(v, 6, 3)) : _mm_unpacklo_epi64(low_bits(v, 0, 3), low_bits(v, 2, 3));
    }
    return low_bits(_mm_srl_epi16(load16(p + i % stride), _mm_cvtsi32_si128(i / stride * 2)), 0, 3);
}

INLINE __m128i group_codes(const uint8_t *p, int bits, int group, int i) {
    if (bits == 8) return load16(p + i);
    if (bits == 4) return i < group / 2 ? low_bits(load16(p + i), 0, 15) : low_bits(load16(p + i - group / 2), 4, 15);
    const __m128i low = group_plane2(p, group, i);
    if (bits == 2) return low;
    uint16_t high;
    memcpy(&high, p + group / 4 + i / 8, 2);
    return _mm_or_si128(low, bits16(high, 4));
}

INLINE const uint8_t *decode_groups(const uint8_t *p, const uint16_t *scales, const uint16_t *mins, int bits, int group, int64_t groups, float *dst) {
    for (int64_t g = 0; g < groups; g++, p += group * bits / 8, dst += group) {
        vf d, m;
        grid_vectors(scales[g], mins ? mins + g : NULL, bits, &d, &m);
        for (int i = 0; i < group; i += 16) put16u(dst + i, group_codes(p, bits, group, i), d, m);
    }
    return p;
}

static void decode_group(const uint8_t *codes, const uint16_t *scales, const uint16_t *mins, int bits, int group, int64_t cols, int64_t c0, int64_t c1, float *dst) {
    const int64_t groups = (c1 - c0) / group, rest = (c1 - c0) % group;
    const uint8_t *p = codes + c0 / group * tt__codes_bytes(bits, group);
    (void)cols;
    scales += c0 / group;
    if (mins) mins += c0 / group;
    switch (bits * 256 + group) {
#define CASE(b, g) \
    case (b) * 256 + (g): p = decode_groups(p, scales, mins, b, g, groups, dst); break;
        CASE(2, 32) CASE(2, 64) CASE(2, 128) CASE(3, 32) CASE(3, 64) CASE(3, 128)
        CASE(4, 32) CASE(4, 64) CASE(4, 128) CASE(8, 32) CASE(8, 64) CASE(8, 128)
#undef CASE
    }
    dst += groups * group;
    scales += groups;
    if (mins) mins += groups;
    switch (bits * 256 + rest) {                     /* a short group of 32 or 64 lies as a whole one of that size */
    case 2 * 256: case 3 * 256: case 4 * 256: case 8 * 256: return;
#define CASE(b, g) \
    case (b) * 256 + (g): decode_groups(p, scales, mins, b, g, 1, dst); return;
        CASE(2, 32) CASE(2, 64) CASE(3, 32) CASE(3, 64) CASE(4, 32) CASE(4, 64) CASE(8, 32) CASE(8, 64)
#undef CASE
    }
    uint8_t unpacked[128];
    vf d, m;
    grid_vectors(scales[0], mins, bits, &d, &m);
    tt__codes_unpack(bits, p, rest, unpacked);
    memset(unpacked + rest, 0, (size_t)(128 - rest));
    float tail[128];
    for (int64_t i = 0; i < rest; i += 16) put16u(tail + i, load16(unpacked + i), d, m);
    memcpy(dst, tail, (size_t)rest * sizeof *dst);
}

/* ---- activations to 8 bits: 32 floats are QV vectors ---- */
enum { QV = 32 / VN };

#ifdef __AVX512F__
INLINE uint32_t largest_bits(const vf v[QV]) {
    const __m512i mask = _mm512_set1_epi32(0x7fffffff);
    const __m512i a = _mm512_and_si512(_mm512_castps_si512(v[0]), mask), b = _mm512_and_si512(_mm512_castps_si512(v[1]), mask);
    return _mm512_reduce_max_epu32(_mm512_max_epu32(a, b));
}
INLINE int32_t store_rounded(int8_t *q, const vf v[QV]) {
    const __m512i x = _mm512_cvtps_epi32(v[0]), y = _mm512_cvtps_epi32(v[1]);
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(x));
    _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(y));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(x, y));
}
#else
INLINE uint32_t largest_bits(const vf v[QV]) {
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_setzero_si256();
    for (int i = 0; i < QV; i++) m = _mm256_max_epu32(m, _mm256_and_si256(_mm256_castps_si256(v[i]), mask));
    __m128i s = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(s);
}
INLINE int32_t store_rounded(int8_t *q, const vf v[QV]) {
    __m256i r[QV];
    for (int i = 0; i < QV; i++) r[i] = _mm256_cvtps_epi32(v[i]);
    const __m256i total = _mm256_add_epi32(_mm256_add_epi32(r[0], r[1]), _mm256_add_epi32(r[2], r[3]));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(r[0], r[1]), _mm256_packs_epi32(r[2], r[3]));
    _mm256_storeu_si256((__m256i *)q, _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
#endif

/* As ref/blocks.c: the largest magnitude by its bits, one division, one multiplication, one rounding. */
INLINE void quant_block(const float *x, int64_t n, int8_t *q, float *d, int32_t *sum) {
    vf v[QV];
    for (int i = 0; i < QV; i++) v[i] = n >= VN * i + VN ? v_load(x + VN * i) : n > VN * i ? v_load_n(x + VN * i, n - VN * i) : v_zero();
    const uint32_t top = largest_bits(v);
    const float amax = half_bits_to_f32(top);
    if (!(top < 0x7f800000u && amax >= 0x1p-100f)) {
        memset(q, 0, 32);
        *d = top < 0x7f800000u ? 0.0f : NAN;
        *sum = 0;
        return;
    }
    const vf inverse = v_set1(127.0f / amax);
    for (int i = 0; i < QV; i++) v[i] = v_mul(v[i], inverse);
    *d = amax / 127.0f;
    *sum = store_rounded(q, v);
}

static void quant_q8(const float *x, int64_t n, int8_t *q, float *d, int32_t *sum) {
    for (int64_t b = 0; b * 32 < n; b++) quant_block(x + 32 * b, n - 32 * b < 32 ? n - 32 * b : 32, q + 32 * b, d + b, sum + b);
}

INLINE void override_decode(tt_kernels *k) {
    k->quant_q8 = quant_q8;
    k->decode_q4_0 = decode_q4_0;
    k->decode_q4_1 = decode_q4_1;
    k->decode_q5_0 = decode_q5_0;
    k->decode_q5_1 = decode_q5_1;
    k->decode_q8_0 = decode_q8_0;
    k->decode_iq4_nl = decode_iq4_nl;
    k->decode_q2_k = decode_q2_k;
    k->decode_q3_k = decode_q3_k;
    k->decode_q4_k = decode_q4_k;
    k->decode_q5_k = decode_q5_k;
    k->decode_q6_k = decode_q6_k;
    k->decode_group = decode_group;
}
