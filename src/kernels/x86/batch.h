/* What the batch kernels of both instruction sets share: rounding and packing of activations, and the codes of a quad. Included by the
 * files of x86_avx2 and x86_avx512 only. */
#ifndef TT_KERNELS_X86_BATCH_H
#define TT_KERNELS_X86_BATCH_H
#include "kernels/half.h"
#include "kernels/isa.h"
#include "kernels/x86/vec.h"
#include <math.h>
#include <stdbool.h>

enum { UNIT = TT_PANEL_UNIT, HALF = UNIT / 2, ROWS = TT_PANEL_ROWS, UV = UNIT / VN };

#ifdef __AVX512F__
typedef __m512i vi;
INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE vi vi_and(vi a, int byte) { return _mm512_and_si512(a, _mm512_set1_epi8((char)byte)); }
INLINE vi vi_right(vi a, int n) { return n > 0 ? _mm512_srli_epi32(a, (unsigned)n) : n < 0 ? _mm512_slli_epi32(a, (unsigned)-n) : a; }
INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
INLINE vi vi_look_up(const uint8_t *table, vi i) { return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table)), i); }
/* bits of a where `byte` has them, else of b */
INLINE vi vi_select(int byte, vi a, vi b) { return _mm512_ternarylogic_epi32(_mm512_set1_epi8((char)byte), a, b, 0xca); }
#else
typedef __m256i vi;
INLINE vi vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE vi vi_and(vi a, int byte) { return _mm256_and_si256(a, _mm256_set1_epi8((char)byte)); }
INLINE vi vi_right(vi a, int n) { return n > 0 ? _mm256_srli_epi32(a, n) : n < 0 ? _mm256_slli_epi32(a, -n) : a; }
INLINE vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
INLINE vi vi_look_up(const uint8_t *table, vi i) { return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table)), i); }
INLINE vi vi_select(int byte, vi a, vi b) { return _mm256_or_si256(vi_and(a, byte), vi_and(b, ~byte)); }
#endif

/* ---- activations ---- */

/* A unit of a token on its way: floats of its halves, rounded bytes, scale of each half, sums of quarters. */
typedef struct one_unit { vf v[UV]; int8_t q[UNIT] __attribute__((aligned(64))); float d[2]; int32_t sum[4]; } one_unit;

#ifdef __AVX512F__
/* op over all of a and over all of b, in the two lowest lanes. */
#define REDUCE_PAIR(op, op128, a, b, out)                                                                  \
    do {                                                                                                   \
        __m512i w_ = op(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));               \
        w_ = op(w_, _mm512_shuffle_i32x4(w_, w_, 0xb1));                                                   \
        out = _mm_unpacklo_epi32(_mm512_castsi512_si128(w_), _mm512_extracti32x4_epi32(w_, 2));            \
        const __m128i high_ = _mm_unpackhi_epi32(_mm512_castsi512_si128(w_), _mm512_extracti32x4_epi32(w_, 2)); \
        out = op128(out, high_);                                                                           \
        out = op128(out, _mm_shuffle_epi32(out, 0x4e));                                                    \
    } while (0)

INLINE void round_unit(one_unit *x, int per) {
    const __m512i mask = _mm512_set1_epi32(0x7fffffff);
    __m512i a[UV], r[UV];
    __m128i top, first, second;
    for (int i = 0; i < UV; i++) a[i] = _mm512_and_si512(_mm512_castps_si512(x->v[i]), mask);
    REDUCE_PAIR(_mm512_max_epu32, _mm_max_epu32, _mm512_max_epu32(a[0], a[1]), _mm512_max_epu32(a[2], a[3]), top);
    if (per == UNIT) top = _mm_max_epu32(top, _mm_shuffle_epi32(top, 0xb1));
    const __m128 amax = _mm_castsi128_ps(top), most = _mm_set1_ps(127.0f);
    const __mmask8 finite = _mm_cmplt_epu32_mask(top, _mm_set1_epi32(0x7f800000)), usable = finite & _mm_cmp_ps_mask(amax, _mm_set1_ps(0x1p-100f), _CMP_GE_OQ);
    const __m128 inverse = _mm_maskz_div_ps(usable, most, amax), d = _mm_mask_blend_ps(finite, _mm_set1_ps(NAN), _mm_maskz_div_ps(usable, amax, most));
    for (int i = 0; i < UV; i++) {
        const vf by = _mm512_broadcastss_ps(i < 2 ? inverse : _mm_movehdup_ps(inverse));
        r[i] = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(usable & (i < 2 ? 1 : 2) ? 0xffff : 0, x->v[i], by));
        _mm_store_si128((__m128i *)(x->q + 16 * i), _mm512_cvtepi32_epi8(r[i]));
    }
    REDUCE_PAIR(_mm512_add_epi32, _mm_add_epi32, r[0], r[1], first);
    REDUCE_PAIR(_mm512_add_epi32, _mm_add_epi32, r[2], r[3], second);
    x->d[0] = _mm_cvtss_f32(d);
    x->d[1] = _mm_cvtss_f32(_mm_movehdup_ps(d));
    _mm_storeu_si128((__m128i *)x->sum, _mm_unpacklo_epi64(first, second));
}
#else
INLINE uint32_t largest_bits(const vf v[UV / 2]) {
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_setzero_si256();
    for (int i = 0; i < UV / 2; i++) m = _mm256_max_epu32(m, _mm256_and_si256(_mm256_castps_si256(v[i]), mask));
    __m128i s = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(s);
}

INLINE void round_half(const vf v[UV / 2], vf by, int8_t *q, int32_t sum[2]) {
    __m256i r[UV / 2];
    for (int i = 0; i < UV / 2; i++) r[i] = _mm256_cvtps_epi32(v_mul(v[i], by));
    const __m256i total = _mm256_hadd_epi32(_mm256_add_epi32(r[0], r[1]), _mm256_add_epi32(r[2], r[3]));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(r[0], r[1]), _mm256_packs_epi32(r[2], r[3]));
    _mm256_store_si256((__m256i *)q, _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    s = _mm_hadd_epi32(s, s);
    _mm_storel_epi64((__m128i *)sum, s);
}

INLINE void round_unit(one_unit *x, int per) {
    uint32_t top[2] = {largest_bits(x->v), largest_bits(x->v + UV / 2)};
    if (per == UNIT) top[0] = top[1] = top[0] > top[1] ? top[0] : top[1];
    for (int h = 0; h < 2; h++) {
        const float amax = half_bits_to_f32(top[h]);
        x->sum[2 * h] = x->sum[2 * h + 1] = 0;
        if (top[h] < 0x7f800000u && amax >= 0x1p-100f) {
            round_half(x->v + UV / 2 * h, v_set1(127.0f / amax), x->q + HALF * h, x->sum + 2 * h);
            x->d[h] = amax / 127.0f;
        } else {
            memset(x->q + HALF * h, 0, HALF);
            x->d[h] = top[h] < 0x7f800000u ? 0.0f : NAN;
        }
    }
}
#endif

/* Four quads from k on of a cell: of four tokens at a time, then of two. */
INLINE void store_quads(int8_t *to, int tokens, const one_unit *x, int k) {
    int t = 0;
    for (; t + 4 <= tokens; t += 4) {
        __m128i v[4];
        for (int i = 0; i < 4; i++) v[i] = _mm_load_si128((const __m128i *)(x[t + i].q + 4 * k));
        const __m128i a = _mm_unpacklo_epi32(v[0], v[1]), b = _mm_unpacklo_epi32(v[2], v[3]), c = _mm_unpackhi_epi32(v[0], v[1]), d = _mm_unpackhi_epi32(v[2], v[3]);
        _mm_storeu_si128((__m128i *)(to + 4 * t), _mm_unpacklo_epi64(a, b));
        _mm_storeu_si128((__m128i *)(to + 4 * (tokens + t)), _mm_unpackhi_epi64(a, b));
        _mm_storeu_si128((__m128i *)(to + 4 * (2 * tokens + t)), _mm_unpacklo_epi64(c, d));
        _mm_storeu_si128((__m128i *)(to + 4 * (3 * tokens + t)), _mm_unpackhi_epi64(c, d));
    }
    for (; t + 2 <= tokens; t += 2) {
        const __m128i u = _mm_load_si128((const __m128i *)(x[t].q + 4 * k)), v = _mm_load_si128((const __m128i *)(x[t + 1].q + 4 * k));
        const __m128i a = _mm_unpacklo_epi32(u, v), c = _mm_unpackhi_epi32(u, v);
        _mm_storel_epi64((__m128i *)(to + 4 * t), a);
        _mm_storel_epi64((__m128i *)(to + 4 * (tokens + t)), _mm_unpackhi_epi64(a, a));
        _mm_storel_epi64((__m128i *)(to + 4 * (2 * tokens + t)), c);
        _mm_storel_epi64((__m128i *)(to + 4 * (3 * tokens + t)), _mm_unpackhi_epi64(c, c));
    }
}

INLINE void store_unit(const tt_batch *b, int tokens, int64_t cell, const one_unit *x) {
    float *d = b->d + 2 * cell * tokens, *mass = b->mass + 3 * cell * tokens;
    int32_t *less = b->less + 3 * cell * tokens;
    int16_t *quarters = b->quarters + 4 * cell * tokens;
    const bool whole = b->per == UNIT;
    for (int k = 0; k < UNIT / 4; k += 4) store_quads(b->q + (16 * cell + k) * 4 * tokens, tokens, x, k);
    for (int t = 0; t < tokens; t++) {
        const int32_t *sum = x[t].sum, first = sum[0] + sum[1], second = sum[2] + sum[3], all = first + second;
        for (int i = 0; i < 4; i++) quarters[(i / 2 * tokens + t) * 2 + i % 2] = (int16_t)-sum[i];
        d[t] = x[t].d[0], d[tokens + t] = x[t].d[1];
        less[t] = -first, less[tokens + t] = -second, less[2 * tokens + t] = -all;
        mass[t] = x[t].d[0] * (float)first, mass[tokens + t] = x[t].d[1] * (float)second, mass[2 * tokens + t] = whole ? x[t].d[0] * (float)all : 0.0f;
    }
}

/* tokens: b->tokens, an even constant. */
INLINE void pack_tile(const float *x, int64_t ldx, const tt_batch *b, int tokens, int64_t tile) {
    one_unit units[8];
    for (int64_t u = 0; u < b->units; u++) {
        for (int t = 0; t < tokens; t++) {
            const int64_t row = tile * tokens + t, n = row < b->T ? b->n - UNIT * u : 0;      /* columns that are there */
            const float *p = row < b->T ? x + row * ldx + UNIT * u : x;
            for (int i = 0; i < UV; i++) units[t].v[i] = n >= VN * i + VN ? v_load(p + VN * i) : n > VN * i ? v_load_n(p + VN * i, n - VN * i) : v_zero();
            round_unit(&units[t], b->per);
        }
        store_unit(b, tokens, tile * b->units + u, units);
    }
}

/* ---- weights ---- */

static const uint8_t table_low[16] = {1, 8, 13, 15, 15, 13, 10, 6, 1, 13, 9, 6, 5, 5, 9, 1}, table_high[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 15};

/* Codes of quad k (0 … 15) of a unit as bytes, from byte `at` of its vectors; k and bits are constants. Bits 8 and tables: `plane` 0 all of the
 * code, 1 its lower, 2 its upper four bits. */
INLINE vi quad_codes(int bits, tt_panel_grid grid, int plane, const uint8_t *unit, int k, int at) {
    const uint8_t *p = unit + at;
    if (bits == 8) {
        const vi c = vi_load(p + 64 * k);
        return plane == 0 ? c : vi_and(vi_right(c, plane == 1 ? 0 : 4), 15);
    }
    if (bits == 4) {
        const vi c = vi_and(vi_right(vi_load(p + 64 * (k / 2)), k % 2 * 4), 15);
        return grid != TT_GRID_TABLE ? c : vi_look_up(plane == 0 ? tt__panel_table : plane == 1 ? table_low : table_high, c);
    }
    if (bits == 5) {
        const uint8_t *half = p + 320 * (k / 8);
        return vi_or(vi_and(vi_right(vi_load(half + 64 * (k % 8 / 2)), k % 2 * 4), 15), vi_and(vi_right(vi_load(half + 256), k % 8 - 4), 16));
    }
    if (bits == 6) {
        const uint8_t *half = p + 384 * (k / 8);
        return vi_or(vi_and(vi_right(vi_load(half + 64 * (k % 8 / 2)), k % 2 * 4), 15), vi_and(vi_right(vi_load(half + 256 + 64 * (k % 8 / 4)), k % 4 * 2 - 4), 48));
    }
    if (bits == 2) return vi_and(vi_right(vi_load(p + 64 * (k / 4)), k % 4 * 2), 3);
    const uint8_t *a = p + 192 * (k / 8);
    const int i = k % 8;
    if (i < 6) return vi_and(vi_right(vi_load(a + 64 * (i % 3)), i / 3 * 3), 7);
    return vi_and(vi_select(6, vi_right(vi_load(a + 64 * (i - 6)), 5), vi_right(vi_load(a + 128), i)), 7);
}

INLINE int32_t load_quad(const int8_t *q) { int32_t four; memcpy(&four, q, 4); return four; }

/* A tile of activations and where it goes (quarters: pairs of 16 bits as words); a panel and its place. */
typedef struct tile { const int8_t *q; const float *d, *mass; const int32_t *less, *quarters; float *y; int64_t ldy; int tokens; } tile;
typedef struct strip { const uint8_t *codes, *subs; const uint16_t *scales, *mins; int64_t units; int group_log2, rows; } strip;

INLINE tile tile_of(const tt_batch *b, int64_t i, float *y, int64_t ldy) {
    const int64_t cells = i * b->units * b->tokens, left = b->T - i * b->tokens;
    return (tile){b->q + UNIT * cells, b->d + 2 * cells, b->mass + 3 * cells, b->less + 3 * cells, (const int32_t *)(const void *)(b->quarters + 4 * cells), y + i * b->tokens * ldy, ldy,
                  (int)(left < b->tokens ? left : b->tokens)};
}

INLINE strip strip_of(const tt_panel *w, int64_t p) {
    const int64_t left = w->rows - p * ROWS, scales = p * w->groups * ROWS;
    return (strip){w->codes + p * w->units * tt__panel_unit_bytes(w->bits), w->subs ? w->subs + p * w->units * UNIT : NULL, w->scales + scales, w->mins ? w->mins + scales : NULL, w->units,
                   __builtin_ctz((unsigned)w->group), (int)(left < ROWS ? left : ROWS)};
}

/* The grids as scale and minimum of a group: HALF has m = d / 2 where its sign bit says so. Which of them has an m, and what the
 * codes are off by, is constant in a loop. */
INLINE bool has_mins(tt_panel_grid grid) { return grid == TT_GRID_HALF || grid == TT_GRID_MIN; }
#endif
