/* bitmask by vpexpandb and vpdpbusd: a vector holds 4 columns of 16 rows. Codes are taken times 16: nibble & 0xf0 after the expansion, ^ 0x80
 * makes the unsigned 16 c + 128, and a kept place of a half grid gets 8 more, all in one ternary logic instruction. So a pruned place is
 * exactly the 128 that the accumulator starts without. (Two independent cursors: the next load need not wait for two popcounts.)
 */
#include "kernels/bitmask.h"
#include "kernels/x86_avx512/vnni.h"

enum { AND_XOR = 0x6a, AHEAD = 1024 };          /* ternary logic: (a & b) ^ c */

typedef struct unit_scales { vf d; __m512i half; } unit_scales;       /* half: 0x88 in rows without a zero level, 0x80 in the others */

INLINE unit_scales scales_of(const uint16_t *p) {
    const __m256i h = _mm256_loadu_si256((const __m256i *)p);
    const __m512i zero = _mm512_set1_epi32((int)0x80808080);
    return (unit_scales){_mm512_cvtph_ps(_mm256_and_si256(h, _mm256_set1_epi16(0x7fff))), _mm512_mask_set1_epi32(zero, _mm256_movepi16_mask(h), (int)0x88888888)};
}

/* 128 + 16 c + 8 h of the next block of a stream. */
INLINE __m512i next_block(const uint8_t **at, uint64_t mask, int high, __m512i half) {
    const __m512i v = _mm512_loadu_si512(*at);
    *at += _mm_popcnt_u64(mask);
    const __m512i placed = _mm512_maskz_expand_epi8(mask, high ? v : _mm512_slli_epi16(v, 4));
    return _mm512_ternarylogic_epi32(placed, _mm512_set1_epi8((char)0xf0), _mm512_mask_blend_epi8(mask, _mm512_set1_epi8((char)128), half), AND_XOR);
}

INLINE __m512i four_columns(const int8_t *q) {
    int32_t v;
    memcpy(&v, q, 4);
    return _mm512_set1_epi32(v);
}

INLINE void panel_tokens(const tt_bitmask *w, int64_t p, const tokens *x, int T, float *y, int64_t ldy) {
    const uint64_t *mask = w->mask + p * w->units * TT_BITMASK_BLOCKS;
    const uint16_t *scales = w->scales + p * w->groups * 16;
    const uint8_t *even = w->codes + w->start[p], *odd = even;
    const int64_t rows = w->rows - 16 * p;
    vf acc[MANY];
    unit_scales s = {v_zero(), _mm512_setzero_si512()};
    for (int t = 0; t < T; t++) acc[t] = v_zero();
    for (int64_t b = 0; b < 2 * w->units && 32 * b < w->cols; b++, mask += 8) {
        __m512i sum[MANY], more[MANY];
        if (32 * b % w->group == 0) s = scales_of(scales + 32 * b / w->group * 16);
        _mm_prefetch((const char *)mask + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)even + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)even + AHEAD + 64, _MM_HINT_T0);
        for (int t = 0; t < T; t++) {
            sum[t] = _mm512_set1_epi32(-128 * x->sum[t * x->blocks + b]);
            more[t] = _mm512_setzero_si512();
        }
        for (int j = 0; j < 8; j += 2) {
            const __m512i a = next_block(&even, mask[j], 0, s.half), c = next_block(&odd, mask[j + 1], 1, s.half);
            for (int t = 0; t < T; t++) {
                const int8_t *q = x->q + t * x->n_pad + 32 * b + 4 * j;
                sum[t] = _mm512_dpbusd_epi32(sum[t], a, four_columns(q));
                more[t] = _mm512_dpbusd_epi32(more[t], c, four_columns(q + 4));
            }
        }
        for (int t = 0; t < T; t++)
            acc[t] = v_fma(v_mul(s.d, v_set1(x->d[t * x->blocks + b])), _mm512_cvtepi32_ps(_mm512_add_epi32(sum[t], more[t])), acc[t]);
    }
    for (int t = 0; t < T; t++) {
        const vf v = v_mul(acc[t], v_set1(1.0f / 16));
        if (rows >= 16) v_store(y + t * ldy + 16 * p, v);
        else v_store_n(y + t * ldy + 16 * p, v, rows);
    }
}

static void bitmask_rowdot(const tt_bitmask *w, int64_t p0, int64_t p1, const tt_q8 *x, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p++)
        for (int64_t t = 0; t < x->T; t += MANY) {
            const tokens xt = tokens_from(x, t);
            switch (x->T - t < MANY ? x->T - t : MANY) {
            case 1: panel_tokens(w, p, &xt, 1, y + t * ldy, ldy); break;
            case 2: panel_tokens(w, p, &xt, 2, y + t * ldy, ldy); break;
            case 3: panel_tokens(w, p, &xt, 3, y + t * ldy, ldy); break;
            default: panel_tokens(w, p, &xt, 4, y + t * ldy, ldy);
            }
        }
}

/* ---- decoding: four blocks are 16 columns; four by four dwords change places, then a row is 16 bytes of one lane ---- */

INLINE void put16(float *dst, __m128i bytes, float d, int64_t n) {
    const vf v = v_mul(v_set1(d), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
    if (n >= 16) v_store(dst, v);
    else if (n > 0) v_store_n(dst, v, n);
}

/* w [i]: rows i, 4 + i, 8 + i, 12 + i in its lanes. */
INLINE void put_rows(float *dst, int64_t ld, __m512i w, int i, const float *d, int64_t rows, int64_t n) {
    if (i < rows) put16(dst + i * ld, _mm512_castsi512_si128(w), d[i], n);
    if (4 + i < rows) put16(dst + (4 + i) * ld, _mm512_extracti32x4_epi32(w, 1), d[4 + i], n);
    if (8 + i < rows) put16(dst + (8 + i) * ld, _mm512_extracti32x4_epi32(w, 2), d[8 + i], n);
    if (12 + i < rows) put16(dst + (12 + i) * ld, _mm512_extracti32x4_epi32(w, 3), d[12 + i], n);
}

static void bitmask_decode(const tt_bitmask *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    const int64_t rows = w->rows - 16 * p;
    tt_cursors at = tt__bitmask_cursors(w, p, c0 / 64);
    for (int64_t c = c0; c < c1; c += 16) {
        const uint64_t *mask = w->mask + p * w->units * TT_BITMASK_BLOCKS + c / 4;
        const unit_scales s = scales_of(w->scales + (p * w->groups + c / w->group) * 16);
        float d[16];
        __m512i v[4];
        v_store(d, v_mul(s.d, v_set1(1.0f / 16)));
        for (int j = 0; j < 4; j++) v[j] = _mm512_xor_si512(next_block(&at.at[j % 2], mask[j], j % 2, s.half), _mm512_set1_epi8((char)128));
        const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]), e = _mm512_unpacklo_epi32(v[2], v[3]), f = _mm512_unpackhi_epi32(v[2], v[3]);
        put_rows(dst + c - c0, ld, _mm512_unpacklo_epi64(a, e), 0, d, rows, c1 - c);
        put_rows(dst + c - c0, ld, _mm512_unpackhi_epi64(a, e), 1, d, rows, c1 - c);
        put_rows(dst + c - c0, ld, _mm512_unpacklo_epi64(b, f), 2, d, rows, c1 - c);
        put_rows(dst + c - c0, ld, _mm512_unpackhi_epi64(b, f), 3, d, rows, c1 - c);
    }
}

static void bitmask_expand(const tt_bitmask *w, int64_t p, uint8_t *codes) {
    tt_cursors at = tt__bitmask_cursors(w, p, 0);
    const uint64_t *mask = w->mask + p * w->units * TT_BITMASK_BLOCKS;
    for (int64_t c = 0; c < 64 * w->units; c += 32, mask += 8) {
        const __m512i half = scales_of(w->scales + (p * w->groups + c / w->group) * 16).half;
        for (int j = 0; j < 8; j++, codes += 64) {                    /* 128 + 16 c + 8 h is 8 (16 + 2 c + h) */
            const __m512i u = _mm512_and_si512(_mm512_srli_epi16(next_block(&at.at[j % 2], mask[j], j % 2, half), 3), _mm512_set1_epi8(31));
            _mm512_storeu_si512(codes, _mm512_add_epi8(u, _mm512_set1_epi8(112)));
        }
    }
}

void tt__kernels_avx512_bitmask_vnni(tt_kernels *k) {
    k->bitmask_rowdot = bitmask_rowdot;
    k->bitmask_decode = bitmask_decode;
    k->bitmask_expand = bitmask_expand;
}
