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
INLINE vi vi_right(vi a, int n) { return n ? _mm512_srli_epi32(a, (unsigned)n) : a; }
/* bits of a where `byte` has them, else of b */
INLINE vi vi_select(int byte, vi a, vi b) { return _mm512_ternarylogic_epi32(_mm512_set1_epi8((char)byte), a, b, 0xca); }

INLINE uint32_t largest_bits(const vf v[UV]) {
    const __m512i mask = _mm512_set1_epi32(0x7fffffff);
    __m512i m = _mm512_setzero_si512();
    for (int i = 0; i < UV; i++) m = _mm512_max_epu32(m, _mm512_and_si512(_mm512_castps_si512(v[i]), mask));
    return _mm512_reduce_max_epu32(m);
}

INLINE void round_unit(const vf v[UV], int8_t *q, int32_t sum[2]) {
    __m512i r[UV];
    for (int i = 0; i < UV; i++) {
        r[i] = _mm512_cvtps_epi32(v[i]);
        _mm_storeu_si128((__m128i *)(q + 16 * i), _mm512_cvtepi32_epi8(r[i]));
    }
    sum[0] = _mm512_reduce_add_epi32(_mm512_add_epi32(r[0], r[1]));
    sum[1] = _mm512_reduce_add_epi32(_mm512_add_epi32(r[2], r[3]));
}
#else
typedef __m256i vi;
INLINE vi vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE vi vi_and(vi a, int byte) { return _mm256_and_si256(a, _mm256_set1_epi8((char)byte)); }
INLINE vi vi_right(vi a, int n) { return n ? _mm256_srli_epi32(a, n) : a; }
INLINE vi vi_select(int byte, vi a, vi b) { return _mm256_or_si256(vi_and(a, byte), vi_and(b, ~byte)); }

INLINE uint32_t largest_bits(const vf v[UV]) {
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_setzero_si256();
    for (int i = 0; i < UV; i++) m = _mm256_max_epu32(m, _mm256_and_si256(_mm256_castps_si256(v[i]), mask));
    __m128i s = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(s);
}

INLINE void round_unit(const vf v[UV], int8_t *q, int32_t sum[2]) {
    for (int h = 0; h < 2; h++) {
        __m256i r[UV / 2];
        for (int i = 0; i < UV / 2; i++) r[i] = _mm256_cvtps_epi32(v[UV / 2 * h + i]);
        const __m256i total = _mm256_add_epi32(_mm256_add_epi32(r[0], r[1]), _mm256_add_epi32(r[2], r[3]));
        const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(r[0], r[1]), _mm256_packs_epi32(r[2], r[3]));
        _mm256_storeu_si256((__m256i *)(q + HALF * h), _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        sum[h] = _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
    }
}
#endif

/* ---- activations ---- */

/* n of the unit's columns are there (0: the token is not). Writes the 16 quads `step` bytes apart. */
INLINE void pack_unit(const float *x, int64_t n, int8_t *quads, int64_t step, float *d, int32_t *less, float *mass, int64_t stride) {
    int8_t q[UNIT] __attribute__((aligned(64))) = {0};
    int32_t sum[2] = {0, 0};
    vf v[UV];
    for (int i = 0; i < UV; i++) v[i] = n >= VN * i + VN ? v_load(x + VN * i) : n > VN * i ? v_load_n(x + VN * i, n - VN * i) : v_zero();
    const uint32_t top = largest_bits(v);
    const float amax = half_bits_to_f32(top);
    if (top < 0x7f800000u && amax >= 0x1p-100f) {
        const vf inverse = v_set1(127.0f / amax);
        for (int i = 0; i < UV; i++) v[i] = v_mul(v[i], inverse);
        round_unit(v, q, sum);
        *d = amax / 127.0f;
    } else {
        *d = top < 0x7f800000u ? 0.0f : NAN;
    }
    for (int k = 0; k < UNIT / 4; k++) memcpy(quads + k * step, q + 4 * k, 4);
    const int32_t sums[3] = {sum[0], sum[1], sum[0] + sum[1]};
    for (int i = 0; i < 3; i++) {
        less[i * stride] = -sums[i];
        mass[i * stride] = *d * (float)sums[i];
    }
}

static void batch_pack(const float *x, int64_t ldx, const tt_batch *b, int64_t tile) {
    const int64_t step = b->tokens;
    for (int64_t u = 0; u < b->units; u++) {
        const int64_t cell = tile * b->units + u, left = b->n - UNIT * u, n = left < UNIT ? left : UNIT;
        for (int64_t t = 0; t < step; t++) {
            const int64_t row = tile * step + t;
            const bool there = row < b->T;
            pack_unit(there ? x + row * ldx + UNIT * u : x, there ? n : 0, b->q + (16 * cell * step + t) * 4, 4 * step, b->d + cell * step + t,
                      b->less + 3 * cell * step + t, b->mass + 3 * cell * step + t, step);
        }
    }
}

/* ---- weights ---- */

/* Codes of quad k (0 … 15) of a unit as bytes, from byte `at` of its vectors; k and bits are constants. Bits 8: `plane` 0 all of the code,
 * 1 its lower, 2 its upper four bits. */
INLINE vi quad_codes(int bits, int plane, const uint8_t *unit, int k, int at) {
    const uint8_t *p = unit + at;
    if (bits == 8) {
        const vi c = vi_load(p + 64 * k);
        return plane == 0 ? c : vi_and(vi_right(c, plane == 1 ? 0 : 4), 15);
    }
    if (bits == 4) return vi_and(vi_right(vi_load(p + 64 * (k / 2)), k % 2 * 4), 15);
    if (bits == 2) return vi_and(vi_right(vi_load(p + 64 * (k / 4)), k % 4 * 2), 3);
    const uint8_t *a = p + 192 * (k / 8);
    const int i = k % 8;
    if (i < 6) return vi_and(vi_right(vi_load(a + 64 * (i % 3)), i / 3 * 3), 7);
    return vi_and(vi_select(6, vi_right(vi_load(a + 64 * (i - 6)), 5), vi_right(vi_load(a + 128), i)), 7);
}

INLINE int32_t load_quad(const int8_t *q) { int32_t four; memcpy(&four, q, 4); return four; }

/* A tile of activations and where it goes; a panel and its place. */
typedef struct tile { const int8_t *q; const float *d, *mass; const int32_t *less; float *y; int64_t ldy; int tokens; } tile;
typedef struct strip { const uint8_t *codes; const uint16_t *scales, *mins; int64_t units; int group_log2, rows; } strip;

INLINE tile tile_of(const tt_batch *b, int64_t i, float *y, int64_t ldy) {
    const int64_t cells = i * b->units * b->tokens, left = b->T - i * b->tokens;
    return (tile){b->q + UNIT * cells, b->d + cells, b->mass + 3 * cells, b->less + 3 * cells, y + i * b->tokens * ldy, ldy,
                  (int)(left < b->tokens ? left : b->tokens)};
}

INLINE strip strip_of(const tt_panel *w, int64_t p) {
    const int64_t left = w->rows - p * ROWS, scales = p * w->groups * ROWS;
    return (strip){w->codes + p * w->units * tt__panel_unit_bytes(w->bits), w->scales + scales, w->mins ? w->mins + scales : NULL, w->units,
                   __builtin_ctz((unsigned)w->group), (int)(left < ROWS ? left : ROWS)};
}

/* The three grids as scale and minimum of a group: HALF has m = d / 2 where its sign bit says so. Which of them has an m, and what the
 * codes are off by, is constant in a loop. */
INLINE bool has_mins(tt_panel_grid grid) { return grid != TT_GRID_OFFSET; }
INLINE int log2_middle(tt_panel_grid grid, int bits) { return grid == TT_GRID_MIN ? -1 : bits - 1; }
#endif
