/* bitmask by vpshufb and vpmaddubsw: eight bits of a mask choose a row of a table that says which of the next eight codes goes to each of its
 * places, four such rows are a shuffle of 32 bytes; a bit beside the code says "kept". A unit is put into a buffer first. Bound by the
 * instructions that gather codes and rows: expanding such a model to dense panels costs more memory and runs faster.
 *
 * Unsigned codes are 2 (c + 8) + h, pruned places 16, at most 31: four products of vpmaddubsw fit 16 bits.
 */
#include "kernels/bitmask.h"
#include "kernels/isa.h"
#include "kernels/x86/vec.h"

enum { MANY = 4 };                              /* activations at a time */

typedef struct unit_bytes { _Alignas(64) uint8_t b[TT_BITMASK_BLOCKS][64]; } unit_bytes;

static uint64_t places[256];                    /* byte i: how many bits are set before bit i, 0x80 where that is not */

static void fill_places(void) {
    for (int m = 0; m < 256; m++) {
        places[m] = 0;
        for (int i = 0, n = 0; i < 8; i++) places[m] |= (uint64_t)(m >> i & 1 ? n++ : 0x80) << 8 * i;
    }
}

/* Two groups of eight: codes that may go there, and where they go. */
INLINE __m128i eight_and_eight(const uint8_t *mask, const uint8_t **p, __m128i *to) {
    const uint8_t *const second = *p + _mm_popcnt_u32(mask[0]);
    const __m128i codes = _mm_castpd_si128(_mm_loadh_pd(_mm_castsi128_pd(_mm_loadl_epi64((const __m128i *)*p)), (const double *)(const void *)second));
    *to = _mm_castpd_si128(_mm_loadh_pd(_mm_castsi128_pd(_mm_loadl_epi64((const __m128i *)&places[mask[0]])), (const double *)(const void *)&places[mask[1]]));
    *p = second + _mm_popcnt_u32(mask[1]);
    return codes;
}

/* Codes (two's complement nibbles) of a unit at their places, with 0x10 where kept. */
INLINE void expand(const uint64_t *mask, tt_cursors *at, unit_bytes *out) {
    const __m256i second = _mm256_set_epi64x(0x0808080808080808ll, 0, 0x0808080808080808ll, 0);
    for (int j = 0; j < TT_BITMASK_BLOCKS; j++)
        for (int i = 0; i < 2; i++) {
            const uint8_t *m = (const uint8_t *)(mask + j) + 4 * i;
            __m128i to[2];
            const __m128i low = eight_and_eight(m, &at->at[j % 2], &to[0]), high = eight_and_eight(m + 2, &at->at[j % 2], &to[1]);
            const __m256i v = _mm256_set_m128i(high, low), code = _mm256_and_si256(j % 2 ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
            const __m256i index = _mm256_add_epi8(_mm256_set_m128i(to[1], to[0]), second);
            _mm256_store_si256((__m256i *)(out->b[j] + 32 * i), _mm256_shuffle_epi8(_mm256_or_si256(code, _mm256_set1_epi8(16)), index));
        }
}

typedef struct half_scales { vf d; __m256i half; } half_scales;       /* of eight rows; half: 1 in each byte of a row without a zero level */

INLINE half_scales scales_of(const uint16_t *p) {
    const __m128i h = _mm_loadu_si128((const __m128i *)p);
    const __m256i sign = _mm256_srli_epi32(_mm256_cvtepu16_epi32(h), 15);
    return (half_scales){_mm256_cvtph_ps(_mm_and_si128(h, _mm_set1_epi16(0x7fff))), _mm256_shuffle_epi8(sign, _mm256_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8,
                         12, 12, 12, 12, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12))};
}

/* 2 (c + 8) + h, 16 where pruned. */
INLINE __m256i twice(const uint8_t *p, __m256i half) {
    const __m256i v = _mm256_load_si256((const __m256i *)p), code = _mm256_xor_si256(_mm256_and_si256(v, _mm256_set1_epi8(15)), _mm256_set1_epi8(8));
    return _mm256_or_si256(_mm256_add_epi8(code, code), _mm256_and_si256(half, _mm256_srli_epi16(v, 4)));
}

INLINE __m256i four_columns(const int8_t *q) {
    int32_t v;
    memcpy(&v, q, 4);
    return _mm256_set1_epi32(v);
}

/* 32 columns (block b of the activations) of rows 8 part …: eight vectors of the buffer from `first`. */
INLINE void half_block(const unit_bytes *e, int first, int part, half_scales s, const tt_q8 *x, int64_t t0, int T, int64_t b, vf *acc) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a[MANY], c[MANY];
    for (int t = 0; t < T; t++) a[t] = c[t] = _mm256_setzero_si256();
    for (int j = 0; j < 4; j++) {
        const __m256i u = twice(e->b[first + j] + 32 * part, s.half), v = twice(e->b[first + 4 + j] + 32 * part, s.half);
        for (int t = 0; t < T; t++) {
            const int8_t *q = x->q + (t0 + t) * x->n_pad + 32 * b + 4 * j;
            a[t] = _mm256_add_epi16(a[t], _mm256_maddubs_epi16(u, four_columns(q)));
            c[t] = _mm256_add_epi16(c[t], _mm256_maddubs_epi16(v, four_columns(q + 16)));
        }
    }
    for (int t = 0; t < T; t++) {
        const int64_t at = (t0 + t) * x->blocks + b;
        const __m256i dot = _mm256_sub_epi32(_mm256_add_epi32(_mm256_madd_epi16(a[t], ones), _mm256_madd_epi16(c[t], ones)), _mm256_set1_epi32(16 * x->sum[at]));
        acc[t] = v_fma(v_mul(s.d, v_set1(x->d[at])), _mm256_cvtepi32_ps(dot), acc[t]);
    }
}

INLINE void panel_tokens(const tt_bitmask *w, int64_t p, const tt_q8 *x, int64_t t0, int T, float *y, int64_t ldy) {
    const uint64_t *mask = w->mask + p * w->units * TT_BITMASK_BLOCKS;
    const uint16_t *scales = w->scales + p * w->groups * 16;
    tt_cursors at = tt__bitmask_cursors(w, p, 0);
    vf acc[2][MANY];
    for (int t = 0; t < T; t++) acc[0][t] = acc[1][t] = v_zero();
    for (int64_t u = 0; u < w->units; u++, mask += TT_BITMASK_BLOCKS) {
        unit_bytes e;
        expand(mask, &at, &e);
        for (int i = 0; i < 2 && 64 * u + 32 * i < w->cols; i++)
            for (int part = 0; part < 2; part++)
                half_block(&e, 8 * i, part, scales_of(scales + (64 * u + 32 * i) / w->group * 16 + 8 * part), x, t0, T, 2 * u + i, acc[part]);
    }
    for (int part = 0; part < 2; part++)
        for (int t = 0; t < T; t++) {
            const int64_t left = w->rows - 16 * p - 8 * part;
            float *to = y + (t0 + t) * ldy + 16 * p + 8 * part;
            const vf v = v_mul(acc[part][t], v_set1(0.5f));
            if (left >= 8) v_store(to, v);
            else if (left > 0) v_store_n(to, v, left);
        }
}

static void bitmask_rowdot(const tt_bitmask *w, int64_t p0, int64_t p1, const tt_q8 *x, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p++)
        for (int64_t t = 0; t < x->T; t += MANY)
            switch (x->T - t < MANY ? x->T - t : MANY) {
            case 1: panel_tokens(w, p, x, t, 1, y, ldy); break;
            case 2: panel_tokens(w, p, x, t, 2, y, ldy); break;
            case 3: panel_tokens(w, p, x, t, 3, y, ldy); break;
            default: panel_tokens(w, p, x, t, 4, y, ldy);
            }
}

/* Four blocks of eight rows are 16 columns: four by four dwords change places, then a row is 16 bytes of one half. */
INLINE void put_row(float *dst, __m128i bytes, float d, int64_t n) {
    for (int i = 0; i < 2; i++, bytes = _mm_srli_si128(bytes, 8), n -= 8) {
        const vf v = v_mul(v_set1(d), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
        if (n >= 8) v_store(dst + 8 * i, v);
        else if (n > 0) v_store_n(dst + 8 * i, v, n);
    }
}

static void put_columns(const unit_bytes *e, int block, int part, half_scales s, float *dst, int64_t ld, int64_t rows, int64_t n) {
    float d[8];
    __m256i v[4];
    v_store(d, v_mul(s.d, v_set1(0.5f)));
    for (int j = 0; j < 4; j++) v[j] = _mm256_sub_epi8(twice(e->b[block + j] + 32 * part, s.half), _mm256_set1_epi8(16));
    const __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]), c = _mm256_unpacklo_epi32(v[2], v[3]), f = _mm256_unpackhi_epi32(v[2], v[3]);
    const __m256i row[4] = {_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c), _mm256_unpacklo_epi64(b, f), _mm256_unpackhi_epi64(b, f)};
    for (int i = 0; i < 8 && i < rows; i++)
        put_row(dst + i * ld, i < 4 ? _mm256_castsi256_si128(row[i % 4]) : _mm256_extracti128_si256(row[i % 4], 1), d[i], n);
}

static void bitmask_decode(const tt_bitmask *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    const int64_t rows = w->rows - 16 * p;
    tt_cursors at = tt__bitmask_cursors(w, p, c0 / 64);
    for (int64_t c = c0; c < c1; c += 64) {
        unit_bytes e;
        expand(w->mask + (p * w->units + c / 64) * TT_BITMASK_BLOCKS, &at, &e);
        for (int i = 0; i < 4 && c + 16 * i < c1; i++)
            for (int part = 0; part < 2 && rows > 8 * part; part++)
                put_columns(&e, 4 * i, part, scales_of(w->scales + (p * w->groups + (c + 16 * i) / w->group) * 16 + 8 * part), dst + 8 * part * ld + c - c0 + 16 * i, ld,
                            rows - 8 * part, c1 - c - 16 * i);
    }
}

static void bitmask_expand(const tt_bitmask *w, int64_t p, uint8_t *codes) {
    tt_cursors at = tt__bitmask_cursors(w, p, 0);
    for (int64_t u = 0; u < w->units; u++) {
        unit_bytes e;
        expand(w->mask + (p * w->units + u) * TT_BITMASK_BLOCKS, &at, &e);
        for (int j = 0; j < TT_BITMASK_BLOCKS; j++)
            for (int part = 0; part < 2; part++, codes += 32) {
                const __m256i half = scales_of(w->scales + (p * w->groups + (64 * u + 4 * j) / w->group) * 16 + 8 * part).half;
                _mm256_storeu_si256((__m256i *)codes, _mm256_add_epi8(twice(e.b[j] + 32 * part, half), _mm256_set1_epi8(112)));
            }
    }
}

void tt__kernels_avx2_bitmask(tt_kernels *k) {
    fill_places();
    k->bitmask_rowdot = bitmask_rowdot;
    k->bitmask_decode = bitmask_decode;
    k->bitmask_expand = bitmask_expand;
}
