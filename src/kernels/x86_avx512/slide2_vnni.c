/* slide2 by vpdpbusd: a vector holds four slots of 16 rows. Codes stay in the upper nibble, that is times 16, and a half grid is bit 3
 * below it (16 (c + 1/2)), so one ternary logic instruction makes the signed operand; another makes the shuffle index out of the offsets.
 * The activations' + 128 comes off by a second product of the same codes with 128, shared by all tokens: no sums are stored.
 */
#include "kernels/slide2.h"
#include "kernels/x86_avx512/vnni.h"

enum { AND_OR = 0xea, AHEAD = 2048 };           /* ternary logic: (a & b) | c */

static void slide2_unroll(const float *x, int64_t n, uint8_t *table, float *d) {
    const __m512i step = _mm512_set1_epi64(0x0504030203020100ll), first = _mm512_setr_epi64(0, 0x0404040404040404ll, 0x0808080808080808ll, 0x0c0c0c0c0c0c0c0cll,
                            0x1010101010101010ll, 0x1414141414141414ll, 0x1818181818181818ll, 0x1c1c1c1c1c1c1c1cll);
    const __m512i low = _mm512_add_epi8(_mm512_add_epi8(step, first), _mm512_set1_epi8(-1)), high = _mm512_add_epi8(low, _mm512_set1_epi8(32));
    for (int64_t c = 0; c < n; c += 64, table += TT_SLIDE2_TABLE) {
        __m512i v[4], top = _mm512_setzero_si512();
        for (int i = 0; i < 4; i++) {
            const int64_t left = n - c - 16 * i;
            v[i] = _mm512_castps_si512(left >= 16 ? v_load(x + c + 16 * i) : left > 0 ? v_load_n(x + c + 16 * i, left) : v_zero());
            top = _mm512_max_epu32(top, _mm512_and_si512(v[i], _mm512_set1_epi32(0x7fffffff)));
        }
        const tt_unit_scale s = tt__unit_scale(_mm512_reduce_max_epu32(top));
        __m512i q = _mm512_setzero_si512();
        if (s.inv != 0) {
            __m128i b[4];
            for (int i = 0; i < 4; i++) b[i] = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v_mul(_mm512_castsi512_ps(v[i]), v_set1(s.inv))));
            q = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(b[1], b[0])), _mm256_set_m128i(b[3], b[2]), 1);
        }
        q = _mm512_xor_si512(q, _mm512_set1_epi8((char)128));
        /* column -1 is byte 0 of the first vector, column 64 the last of the second */
        _mm512_storeu_si512(table, _mm512_mask_blend_epi8(1, _mm512_permutexvar_epi8(low, q), _mm512_set1_epi8((char)128)));
        _mm512_storeu_si512(table + 64, _mm512_mask_blend_epi8(1ull << 63, _mm512_permutexvar_epi8(high, q), _mm512_set1_epi8((char)128)));
        *d++ = s.d;
    }
}

typedef struct unit_scales { vf d; __m512i half; } unit_scales;

INLINE unit_scales scales_of(const uint16_t *p) {
    const __m256i h = _mm256_loadu_si256((const __m256i *)p);
    return (unit_scales){_mm512_cvtph_ps(_mm256_and_si256(h, _mm256_set1_epi16(0x7fff))), _mm512_maskz_set1_epi32(_mm256_movepi16_mask(h), 0x08080808)};
}

/* Four slots of 16 rows: codes times 16 in `code`, offsets in bits 0 and 1 of `place`. */
INLINE void slot_step(__m512i code, __m512i place, __m512i half, const uint8_t *const *a, int at, int T, __m512i *sum, __m512i *less) {
    const __m512i w = _mm512_ternarylogic_epi32(code, _mm512_set1_epi8((char)0xf0), half, AND_OR);
    const __m512i index = _mm512_ternarylogic_epi32(place, _mm512_set1_epi8(3), _mm512_set1_epi32(0x0c080400), AND_OR);
    for (int t = 0; t < T; t++) {
        const __m512i x = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(a[t] + 16 * at)));
        sum[t] = _mm512_dpbusd_epi32(sum[t], _mm512_shuffle_epi8(x, index), w);
    }
    *less = _mm512_dpbusd_epi32(*less, _mm512_set1_epi8((char)128), w);
}

INLINE void panel_tokens(const tt_slide2 *w, int64_t p, const tt_unrolled *x, int64_t t0, int T, float *y, int64_t ldy) {
    const uint8_t *c = w->codes + p * w->units * TT_SLIDE2_BYTES, *a[MANY];
    const uint16_t *scales = w->scales + p * w->groups * 16;
    const int64_t per_scale = w->group / 64;
    vf acc[MANY];
    unit_scales s = {v_zero(), _mm512_setzero_si512()};
    for (int t = 0; t < T; t++) acc[t] = v_zero(), a[t] = x->table + (t0 + t) * x->units * TT_SLIDE2_TABLE;
    for (int64_t u = 0; u < w->units; u++, c += TT_SLIDE2_BYTES) {
        __m512i even[MANY], odd[MANY], less0 = _mm512_setzero_si512(), less1 = less0;
        if (per_scale == 1 || u % 2 == 0) s = scales_of(scales + u / per_scale * 16);
        for (int i = 0; i < TT_SLIDE2_BYTES; i += 64) _mm_prefetch((const char *)(c + AHEAD + i), _MM_HINT_T0);
        for (int t = 0; t < T; t++) even[t] = odd[t] = _mm512_setzero_si512();
        for (int i = 0; i < 2; i++) {
            const __m512i place = _mm512_loadu_si512(c + 256 + 64 * i), v0 = _mm512_loadu_si512(c + 128 * i), v1 = _mm512_loadu_si512(c + 128 * i + 64);
            slot_step(_mm512_slli_epi16(v0, 4), place, s.half, a, 4 * i, T, even, &less0);
            slot_step(v0, _mm512_srli_epi16(place, 2), s.half, a, 4 * i + 1, T, odd, &less1);
            slot_step(_mm512_slli_epi16(v1, 4), _mm512_srli_epi16(place, 4), s.half, a, 4 * i + 2, T, even, &less0);
            slot_step(v1, _mm512_srli_epi16(place, 6), s.half, a, 4 * i + 3, T, odd, &less1);
        }
        const __m512i less = _mm512_add_epi32(less0, less1);
        for (int t = 0; t < T; t++) {
            const __m512i dot = _mm512_sub_epi32(_mm512_add_epi32(even[t], odd[t]), less);
            acc[t] = v_fma(v_mul(s.d, v_set1(x->d[(t0 + t) * x->units + u])), _mm512_cvtepi32_ps(dot), acc[t]);
            a[t] += TT_SLIDE2_TABLE;
        }
    }
    const int64_t rows = w->rows - 16 * p;
    for (int t = 0; t < T; t++) {
        const vf sum = v_mul(acc[t], v_set1(1.0f / 16));
        if (rows >= 16) v_store(y + (t0 + t) * ldy + 16 * p, sum);
        else v_store_n(y + (t0 + t) * ldy + 16 * p, sum, rows);
    }
}

static void slide2_rowdot(const tt_slide2 *w, int64_t p0, int64_t p1, const tt_unrolled *x, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p++)
        for (int64_t t = 0; t < x->T; t += MANY)
            switch (x->T - t < MANY ? x->T - t : MANY) {
            case 1: panel_tokens(w, p, x, t, 1, y, ldy); break;
            case 2: panel_tokens(w, p, x, t, 2, y, ldy); break;
            case 3: panel_tokens(w, p, x, t, 3, y, ldy); break;
            default: panel_tokens(w, p, x, t, 4, y, ldy);
            }
}

/* ---- decoding ----
 * In bytes 2 c + h, 0 where pruned. Column 2 m is slot m at offset 1 or slot m - 1 at offset 3; column 2 m + 1 is slot m at offset 2 or
 * slot m + 1 at offset 0: the neighbour slot is a byte shift inside the row's four, across to the vector before or behind. */

typedef struct placed { __m512i one, two, three, zero; } placed;      /* the slots with each offset, others 0 */

INLINE placed place_slots(__m512i code, __m512i place, __m512i half) {
    const __m512i w16 = _mm512_ternarylogic_epi32(code, _mm512_set1_epi8((char)0xf0), half, AND_OR);
    /* 16 c + 8 h → 2 c + h: an arithmetic shift of bytes by 3 */
    const __m512i w = _mm512_sub_epi8(_mm512_xor_si512(_mm512_and_si512(_mm512_srli_epi16(w16, 3), _mm512_set1_epi8(31)), _mm512_set1_epi8(16)), _mm512_set1_epi8(16));
    const __m512i o = _mm512_and_si512(place, _mm512_set1_epi8(3));
    return (placed){_mm512_maskz_mov_epi8(_mm512_cmpeq_epi8_mask(o, _mm512_set1_epi8(1)), w), _mm512_maskz_mov_epi8(_mm512_cmpeq_epi8_mask(o, _mm512_set1_epi8(2)), w),
                    _mm512_maskz_mov_epi8(_mm512_cmpeq_epi8_mask(o, _mm512_set1_epi8(3)), w), _mm512_maskz_mov_epi8(_mm512_testn_epi8_mask(o, o), w)};
}

INLINE void put8(float *dst, __m256 v, int64_t n) {
    if (n >= 8) _mm256_storeu_ps(dst, v);
    else if (n > 0) _mm256_mask_storeu_ps(dst, (__mmask8)((1 << n) - 1), v);
}

/* Rows 4 l + first and the next one: eight columns of each. */
INLINE void put_rows(float *dst, int64_t ld, __m512i bytes, int l, int first, const vf *scale, int64_t rows, int64_t n) {
    const int r = 4 * l + first;
    const __m128i b = l == 0 ? _mm512_castsi512_si128(bytes) : l == 1 ? _mm512_extracti32x4_epi32(bytes, 1) : l == 2 ? _mm512_extracti32x4_epi32(bytes, 2) : _mm512_extracti32x4_epi32(bytes, 3);
    const vf v = v_mul(scale[r / 2], _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b)));
    if (r < rows) put8(dst + r * ld, _mm512_castps512_ps256(v), n);
    if (r + 1 < rows) put8(dst + (r + 1) * ld, _mm512_extractf32x8_ps(v, 1), n);
}

/* The slots of a unit; v[0] and v[9] are empty neighbours. */
INLINE void place_unit(const uint8_t *unit, __m512i half, placed v[10]) {
    const __m512i none = _mm512_setzero_si512();
    v[0] = v[9] = (placed){none, none, none, none};
    for (int k = 0; k < 8; k++) {
        const __m512i code = _mm512_loadu_si512(unit + k / 2 * 64), place = _mm512_loadu_si512(unit + 256 + k / 4 * 64);
        v[1 + k] = place_slots(k % 2 ? code : _mm512_slli_epi16(code, 4), _mm512_srl_epi16(place, _mm_cvtsi32_si128(2 * (k % 4))), half);
    }
}

/* Eight columns of each row, eight bytes a row: rows 4 l, 4 l + 1 of each lane l, and rows 4 l + 2, 4 l + 3. */
typedef struct eight_columns { __m512i low, high; } eight_columns;
INLINE eight_columns columns_of(const placed *v) {
    const __m512i even = _mm512_or_si512(v->one, _mm512_shldi_epi32(v->three, v[-1].three, 8));
    const __m512i odd = _mm512_or_si512(v->two, _mm512_shrdi_epi32(v->zero, v[1].zero, 8));
    return (eight_columns){_mm512_unpacklo_epi8(even, odd), _mm512_unpackhi_epi8(even, odd)};
}

static void slide2_decode(const tt_slide2 *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    const int64_t rows = w->rows - 16 * p;
    for (int64_t c = c0; c < c1; c += 64) {
        const uint8_t *unit = w->codes + (p * w->units + c / 64) * TT_SLIDE2_BYTES;
        const unit_scales s = scales_of(w->scales + (p * w->groups + c / w->group) * 16);
        vf scale[8];
        placed v[10];
        for (int i = 0; i < 8; i++) scale[i] = v_mul(_mm512_permutexvar_ps(pair_index(2 * i), s.d), v_set1(0.5f));
        place_unit(unit, s.half, v);
        for (int k = 0; k < 8; k++) {
            const eight_columns e = columns_of(v + 1 + k);
            float *to = dst + (c - c0) + 8 * k;
            for (int l = 0; l < 4; l++) {
                put_rows(to, ld, e.low, l, 0, scale, rows, c1 - c - 8 * k);
                put_rows(to, ld, e.high, l, 2, scale, rows, c1 - c - 8 * k);
            }
        }
    }
}

/* Columns that do not exist may get the filling's code: activations are 0 there. */
static void slide2_expand(const tt_slide2 *w, int64_t p, uint8_t *codes) {
    const uint8_t *unit = w->codes + p * w->units * TT_SLIDE2_BYTES;
    for (int64_t u = 0; u < w->units; u++, unit += TT_SLIDE2_BYTES) {
        placed v[10];
        place_unit(unit, scales_of(w->scales + (p * w->groups + 64 * u / w->group) * 16).half, v);
        for (int k = 0; k < 8; k++, codes += 128) {
            const eight_columns e = columns_of(v + 1 + k);
            const vf low = _mm512_castsi512_ps(e.low), high = _mm512_castsi512_ps(e.high);
            const __m512i middle = _mm512_set1_epi8((char)128);
            _mm512_storeu_si512(codes, _mm512_xor_si512(_mm512_castps_si512(_mm512_shuffle_ps(low, high, 0x88)), middle));
            _mm512_storeu_si512(codes + 64, _mm512_xor_si512(_mm512_castps_si512(_mm512_shuffle_ps(low, high, 0xdd)), middle));
        }
    }
}

void tt__kernels_avx512_slide2_vnni(tt_kernels *k) {
    k->slide2_unroll = slide2_unroll;
    k->slide2_rowdot = slide2_rowdot;
    k->slide2_decode = slide2_decode;
    k->slide2_expand = slide2_expand;
}
