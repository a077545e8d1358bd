/* slide2 by vpmaddubsw: eight rows at a time. A byte shuffle makes 2 c + h of a nibble; activations are unsigned, x + 128. The product with
 * 128 comes off in 16 bits before anything is added up: |Σ of a pair| ≤ 2 * 127 * 16, eight of them below 2^15, so a unit needs one vpmaddwd.
 */
#include "kernels/isa.h"
#include "kernels/slide2.h"
#include "kernels/x86/vec.h"

enum { MANY = 4, AHEAD = 2048 };                /* activations at a time; prefetched bytes */

INLINE __m256i load32(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

static void slide2_unroll(const float *x, int64_t n, uint8_t *table, float *d) {
    const __m256 round = _mm256_set1_ps(12582912.0f);
    for (int64_t c = 0; c < n; c += 64, table += TT_SLIDE2_TABLE) {
        uint8_t q[66];
        __m256i v[8], top = _mm256_setzero_si256();
        memset(q, 128, sizeof q);
        for (int i = 0; i < 8; i++) {
            const int64_t left = n - c - 8 * i;
            v[i] = _mm256_castps_si256(left >= 8 ? v_load(x + c + 8 * i) : left > 0 ? v_load_n(x + c + 8 * i, left) : v_zero());
            top = _mm256_max_epu32(top, _mm256_and_si256(v[i], _mm256_set1_epi32(0x7fffffff)));
        }
        __m128i t = _mm_max_epu32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
        t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0x4e));
        t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0xb1));
        const tt_unit_scale s = tt__unit_scale((uint32_t)_mm_cvtsi128_si32(t));
        for (int i = 0; s.inv != 0 && i < 8; i++) {
            const __m256i r = _mm256_cvtps_epi32(v_sub(v_add(v_mul(_mm256_castsi256_ps(v[i]), v_set1(s.inv)), round), round));
            const __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
            _mm_storel_epi64((__m128i *)(q + 1 + 8 * i), _mm_xor_si128(_mm_packs_epi16(h, h), _mm_set1_epi8((char)128)));
        }
        for (int i = 0; i < 32; i++) memcpy(table + 4 * i, q + 2 * i, 4);
        *d++ = s.d;
    }
}

typedef struct half_scales { vf d; __m256i half; } half_scales;       /* of eight rows; h is 1 in each byte of a row without a zero level */

INLINE half_scales scales_of(const uint16_t *p) {
    const __m128i h = _mm_loadu_si128((const __m128i *)p);
    const __m256i sign = _mm256_srli_epi32(_mm256_cvtepu16_epi32(h), 15);
    return (half_scales){_mm256_cvtph_ps(_mm_and_si128(h, _mm_set1_epi16(0x7fff))), _mm256_shuffle_epi8(sign, _mm256_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8,
                         12, 12, 12, 12, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12))};
}

/* 2 c + h of the low nibbles. */
INLINE __m256i twice(__m256i v, __m256i half) {
    const __m256i table = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, -16, -14, -12, -10, -8, -6, -4, -2, 0, 2, 4, 6, 8, 10, 12, 14, -16, -14, -12, -10, -8, -6, -4, -2);
    return _mm256_or_si256(_mm256_shuffle_epi8(table, _mm256_and_si256(v, _mm256_set1_epi8(15))), half);
}

INLINE void slot_step(__m256i code, __m256i place, __m256i half, const uint8_t *const *a, int at, int T, __m256i *sum) {
    const __m256i w = twice(code, half), less = _mm256_maddubs_epi16(_mm256_set1_epi8((char)128), w);
    const __m256i index = _mm256_add_epi8(_mm256_and_si256(place, _mm256_set1_epi8(3)), _mm256_set1_epi32(0x0c080400));
    for (int t = 0; t < T; t++) {
        const __m256i x = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(a[t] + 16 * at)));
        sum[t] = _mm256_add_epi16(sum[t], _mm256_sub_epi16(_mm256_maddubs_epi16(_mm256_shuffle_epi8(x, index), w), less));
    }
}

/* Rows 8 part … of panel p. */
INLINE void half_panel(const tt_slide2 *w, int64_t p, int part, const tt_unrolled *x, int64_t t0, int T, float *y, int64_t ldy) {
    const uint8_t *c = w->codes + p * w->units * TT_SLIDE2_BYTES + 32 * part, *a[MANY];
    const uint16_t *scales = w->scales + p * w->groups * 16 + 8 * part;
    const int64_t per_scale = w->group / 64, left = w->rows - 16 * p - 8 * part;
    vf acc[MANY];
    for (int t = 0; t < T; t++) acc[t] = v_zero(), a[t] = x->table + (t0 + t) * x->units * TT_SLIDE2_TABLE;
    for (int64_t u = 0; u < w->units; u++, c += TT_SLIDE2_BYTES) {
        const half_scales s = scales_of(scales + u / per_scale * 16);
        __m256i sum[MANY];
        for (int t = 0; t < T; t++) sum[t] = _mm256_setzero_si256();
        if (!part)
            for (int i = 0; i < TT_SLIDE2_BYTES; i += 64) _mm_prefetch((const char *)(c + AHEAD + i), _MM_HINT_T0);
        for (int i = 0; i < 2; i++) {
            const __m256i place = load32(c + 256 + 64 * i), v0 = load32(c + 128 * i), v1 = load32(c + 128 * i + 64);
            slot_step(v0, place, s.half, a, 4 * i, T, sum);
            slot_step(_mm256_srli_epi16(v0, 4), _mm256_srli_epi16(place, 2), s.half, a, 4 * i + 1, T, sum);
            slot_step(v1, _mm256_srli_epi16(place, 4), s.half, a, 4 * i + 2, T, sum);
            slot_step(_mm256_srli_epi16(v1, 4), _mm256_srli_epi16(place, 6), s.half, a, 4 * i + 3, T, sum);
        }
        for (int t = 0; t < T; t++) {
            const __m256i dot = _mm256_madd_epi16(sum[t], _mm256_set1_epi16(1));
            acc[t] = v_fma(v_mul(s.d, v_set1(x->d[(t0 + t) * x->units + u])), _mm256_cvtepi32_ps(dot), acc[t]);
            a[t] += TT_SLIDE2_TABLE;
        }
    }
    for (int t = 0; t < T; t++) {
        float *to = y + (t0 + t) * ldy + 16 * p + 8 * part;
        const vf sum = v_mul(acc[t], v_set1(0.5f));
        if (left >= 8) v_store(to, sum);
        else v_store_n(to, sum, left);
    }
}

static void slide2_rowdot(const tt_slide2 *w, int64_t p0, int64_t p1, const tt_unrolled *x, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p++)
        for (int part = 0; part < 2 && 16 * p + 8 * part < w->rows; part++)
            for (int64_t t = 0; t < x->T; t += MANY)
                switch (x->T - t < MANY ? x->T - t : MANY) {
                case 1: half_panel(w, p, part, x, t, 1, y, ldy); break;
                case 2: half_panel(w, p, part, x, t, 2, y, ldy); break;
                case 3: half_panel(w, p, part, x, t, 3, y, ldy); break;
                default: half_panel(w, p, part, x, t, 4, y, ldy);
                }
}

/* ---- decoding ----
 * In bytes 2 c + h, 0 where pruned. Column 2 m is slot m at offset 1 or slot m - 1 at offset 3; column 2 m + 1 is slot m at offset 2 or
 * slot m + 1 at offset 0: the neighbour slot is a byte shift inside the row's four, across to the vector before or behind. */

typedef struct placed { __m256i zero, one, two, three; } placed;      /* the slots with each offset, others 0 */

INLINE __m256i where(__m256i offset, int is, __m256i w) { return _mm256_and_si256(_mm256_cmpeq_epi8(offset, _mm256_set1_epi8((char)is)), w); }
INLINE placed place_slots(__m256i code, __m256i place, __m256i half) {
    const __m256i w = twice(code, half), o = _mm256_and_si256(place, _mm256_set1_epi8(3));
    return (placed){where(o, 0, w), where(o, 1, w), where(o, 2, w), where(o, 3, w)};
}

/* Row r: eight columns out of the low or high half of each 128 bits. */
INLINE void put_row(float *dst, __m128i bytes, vf scale, int64_t n) {
    const vf v = v_mul(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
    if (n >= 8) v_store(dst, v);
    else if (n > 0) v_store_n(dst, v, n);
}

/* The slots of a unit (from its half's first byte); v[0] and v[9] are empty neighbours. */
INLINE void place_unit(const uint8_t *unit, __m256i half, placed v[10]) {
    const __m256i none = _mm256_setzero_si256();
    v[0] = v[9] = (placed){none, none, none, none};
    for (int k = 0; k < 8; k++) {
        const __m256i code = load32(unit + k / 2 * 64), place = load32(unit + 256 + k / 4 * 64);
        v[1 + k] = place_slots(k % 2 ? _mm256_srli_epi16(code, 4) : code, _mm256_srl_epi16(place, _mm_cvtsi32_si128(2 * (k % 4))), half);
    }
}

/* Eight columns of each row, eight bytes a row: rows 4 l, 4 l + 1 of each half l, and rows 4 l + 2, 4 l + 3. */
typedef struct eight_columns { __m256i part[2]; } eight_columns;
INLINE eight_columns columns_of(const placed *v) {
    const __m256i before = _mm256_or_si256(_mm256_slli_epi32(v->three, 8), _mm256_srli_epi32(v[-1].three, 24));
    const __m256i behind = _mm256_or_si256(_mm256_srli_epi32(v->zero, 8), _mm256_slli_epi32(v[1].zero, 24));
    const __m256i even = _mm256_or_si256(v->one, before), odd = _mm256_or_si256(v->two, behind);
    return (eight_columns){{_mm256_unpacklo_epi8(even, odd), _mm256_unpackhi_epi8(even, odd)}};
}

static void decode_half(const tt_slide2 *w, int64_t p, int part, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    const int64_t rows = w->rows - 16 * p - 8 * part;
    for (int64_t c = c0; c < c1; c += 64) {
        const uint8_t *unit = w->codes + (p * w->units + c / 64) * TT_SLIDE2_BYTES + 32 * part;
        const half_scales s = scales_of(w->scales + (p * w->groups + c / w->group) * 16 + 8 * part);
        float d[8];
        placed v[10];
        v_store(d, v_mul(s.d, v_set1(0.5f)));
        place_unit(unit, s.half, v);
        for (int k = 0; k < 8; k++) {
            const eight_columns e = columns_of(v + 1 + k);
            for (int r = 0; r < 8 && r < rows; r++) {
                const __m128i b = r < 4 ? _mm256_castsi256_si128(e.part[r % 4 / 2]) : _mm256_extracti128_si256(e.part[r % 4 / 2], 1);
                put_row(dst + r * ld + c - c0 + 8 * k, r % 2 ? _mm_srli_si128(b, 8) : b, v_set1(d[r]), c1 - c - 8 * k);
            }
        }
    }
}

static void slide2_decode(const tt_slide2 *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    decode_half(w, p, 0, c0, c1, dst, ld);
    if (w->rows > 16 * p + 8) decode_half(w, p, 1, c0, c1, dst + 8 * ld, ld);
}

/* Columns that do not exist may get the filling's code: activations are 0 there. */
static void slide2_expand(const tt_slide2 *w, int64_t p, uint8_t *codes) {
    const uint8_t *unit = w->codes + p * w->units * TT_SLIDE2_BYTES;
    for (int64_t u = 0; u < w->units; u++, unit += TT_SLIDE2_BYTES, codes += 1024)
        for (int part = 0; part < 2; part++) {
            placed v[10];
            place_unit(unit + 32 * part, scales_of(w->scales + (p * w->groups + 64 * u / w->group) * 16 + 8 * part).half, v);
            for (int k = 0; k < 8; k++) {
                const eight_columns e = columns_of(v + 1 + k);
                const vf low = _mm256_castsi256_ps(e.part[0]), high = _mm256_castsi256_ps(e.part[1]);
                const __m256i middle = _mm256_set1_epi8((char)128);
                uint8_t *to = codes + 128 * k + 32 * part;
                _mm256_storeu_si256((__m256i *)to, _mm256_xor_si256(_mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88)), middle));
                _mm256_storeu_si256((__m256i *)(to + 64), _mm256_xor_si256(_mm256_castps_si256(_mm256_shuffle_ps(low, high, 0xdd)), middle));
            }
        }
}

void tt__kernels_avx2_slide2(tt_kernels *k) {
    k->slide2_unroll = slide2_unroll;
    k->slide2_rowdot = slide2_rowdot;
    k->slide2_decode = slide2_decode;
    k->slide2_expand = slide2_expand;
}
