/* Decoding of panels to f32, in either vector width: included by panel.c of x86_avx2 and x86_avx512 only.
 *
 * A vector holds a quad (four neighbouring columns) of 8 or 16 rows. Four quads, transposed inside of 128-bit lanes, are 16 columns of
 * each row; the codes of a unit go through a small array [16 rows][64] and leave as floats row by row.
 */
#ifndef TT_KERNELS_X86_PANEL_H
#define TT_KERNELS_X86_PANEL_H
#include "kernels/isa.h"
#include "kernels/x86/vec.h"

#ifdef __AVX512F__
typedef __m512i vi;
#define VI(name) _mm512_##name
#define VI_AND(a, b) _mm512_and_si512(a, b)
#define VI_OR(a, b) _mm512_or_si512(a, b)
#define VI_LOAD(p) _mm512_loadu_si512(p)
#define VI_TABLE(t) _mm512_broadcast_i32x4(t)
enum { VI_ROWS = 16 };
INLINE __m128i vi_lane(vi x, int i) {
    return i == 0 ? _mm512_castsi512_si128(x) : i == 1 ? _mm512_extracti32x4_epi32(x, 1) : i == 2 ? _mm512_extracti32x4_epi32(x, 2) : _mm512_extracti32x4_epi32(x, 3);
}
INLINE vf codes_to_f32(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p))); }
#else
typedef __m256i vi;
#define VI(name) _mm256_##name
#define VI_AND(a, b) _mm256_and_si256(a, b)
#define VI_OR(a, b) _mm256_or_si256(a, b)
#define VI_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define VI_TABLE(t) _mm256_broadcastsi128_si256(t)
enum { VI_ROWS = 8 };
INLINE __m128i vi_lane(vi x, int i) { return i == 0 ? _mm256_castsi256_si128(x) : _mm256_extracti128_si256(x, 1); }
INLINE vf codes_to_f32(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p))); }
#endif

INLINE vi vi_bits(vi v, int shift, int mask) {
    return VI_AND(shift ? VI(srli_epi16)(v, shift) : v, VI(set1_epi8)((char)mask));
}

/* Bit `from` of each byte at `to`. */
INLINE vi vi_bit(vi v, int from, int to) {
    return VI_AND(from > to ? VI(srli_epi16)(v, from - to) : from < to ? VI(slli_epi16)(v, to - from) : v, VI(set1_epi8)((char)(1 << to)));
}

/* Codes of quad k of a unit for the rows of one vector; `unit` already points at those rows. */
INLINE vi quad_codes(int bits, const uint8_t *unit, int k) {
    if (bits == 5) {
        const uint8_t *half = unit + k / 8 * 320;
        return VI_OR(vi_bits(VI_LOAD(half + k % 8 / 2 * 64), k % 2 * 4, 15), vi_bit(VI_LOAD(half + 256), k % 8, 4));
    }
    if (bits == 8) return VI_LOAD(unit + 64 * k);
    if (bits == 4) return vi_bits(VI_LOAD(unit + 64 * (k / 2)), k % 2 * 4, 15);
    if (bits == 2) return vi_bits(VI_LOAD(unit + 64 * (k / 4)), k % 4 * 2, 3);
    const uint8_t *a = unit + k / 8 * 192;
    const int i = k % 8;
    if (i < 6) return vi_bits(VI_LOAD(a + 64 * (i % 3)), i / 3 * 3, 7);
    return VI_OR(vi_bits(VI_LOAD(a + 64 * (i - 6)), 5, 6), vi_bits(VI_LOAD(a + 128), i, 1));
}

INLINE vi looked_up(tt_panel_grid grid, vi q) {
    return grid == TT_GRID_TABLE ? VI(shuffle_epi8)(VI_TABLE(_mm_loadu_si128((const __m128i *)tt__panel_table)), q) : q;
}

INLINE void unit_codes(int bits, tt_panel_grid grid, const uint8_t *unit, uint8_t codes[16][64]) {
    for (int r = 0; r < 16; r += VI_ROWS)
        for (int i = 0; i < 4; i++) {
            const uint8_t *p = unit + 4 * r;
            const vi a = looked_up(grid, quad_codes(bits, p, 4 * i)), b = looked_up(grid, quad_codes(bits, p, 4 * i + 1));
            const vi c = looked_up(grid, quad_codes(bits, p, 4 * i + 2)), d = looked_up(grid, quad_codes(bits, p, 4 * i + 3));
            const vi ab0 = VI(unpacklo_epi32)(a, b), ab2 = VI(unpackhi_epi32)(a, b), cd0 = VI(unpacklo_epi32)(c, d), cd2 = VI(unpackhi_epi32)(c, d);
            const vi rows[4] = {VI(unpacklo_epi64)(ab0, cd0), VI(unpackhi_epi64)(ab0, cd0), VI(unpacklo_epi64)(ab2, cd2), VI(unpackhi_epi64)(ab2, cd2)};
            for (int j = 0; j < 4; j++)
                for (int l = 0; l < VI_ROWS / 4; l++) _mm_storeu_si128((__m128i *)&codes[r + 4 * l + j][16 * i], vi_lane(rows[j], l));
        }
}

/* weight = d (q + offset) + m: a product that is exact, one rounding, and zeros are +0. */
INLINE void decode_part(const uint8_t *q, uint16_t scale, float m, int bits, tt_panel_grid grid, float *dst, int n) {
    const float middle = grid == TT_GRID_MIN ? 0.0f : (float)(1 << tt__panel_middle(grid, bits));
    const float d = _cvtsh_ss(grid == TT_GRID_HALF ? scale & 0x7fffu : scale);
    const float offset = grid == TT_GRID_MIN ? 0.0f : grid == TT_GRID_HALF && scale & 0x8000u ? 0.5f - middle : -middle;
    for (int i = 0; i < n; i += VN) {
        const vf w = v_fma(v_set1(d), v_add(codes_to_f32(q + i), v_set1(offset)), v_set1(m));
        if (i + VN <= n) v_store(dst + i, w);
        else v_store_n(dst + i, w, n - i);
    }
}

INLINE void decode_panel(int bits, const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    _Alignas(64) uint8_t codes[16][64];
    const int64_t rows = w->rows - 16 * p < 16 ? w->rows - 16 * p : 16;
    const int step = w->group < 64 ? w->group : 64;
    for (int64_t c = c0; c < c1; c += 64) {
        unit_codes(bits, w->grid, w->codes + (p * w->units + c / 64) * tt__panel_unit_bytes(bits), codes);
        for (int i = 0; i < 64 && c + i < c1; i += step) {
            const int64_t at = (p * w->groups + (c + i) / w->group) * 16, n = c1 - c - i < step ? c1 - c - i : step;
            for (int64_t r = 0; r < rows; r++)
                decode_part(&codes[r][i], w->scales[at + r], w->mins ? _cvtsh_ss(w->mins[at + r]) : 0.0f, bits, w->grid, dst + r * ld + c - c0 + i, (int)n);
        }
    }
}

static void panel_decode(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    switch (w->bits) {
    case 2: decode_panel(2, w, p, c0, c1, dst, ld); break;
    case 3: decode_panel(3, w, p, c0, c1, dst, ld); break;
    case 4: decode_panel(4, w, p, c0, c1, dst, ld); break;
    case 5: decode_panel(5, w, p, c0, c1, dst, ld); break;
    default: decode_panel(8, w, p, c0, c1, dst, ld); break;
    }
}
#endif
