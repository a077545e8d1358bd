/* Panels against batches by vpmaddubsw with sums in 16 bits: 16 rows of W (two vectors) times 4 tokens. Over 32 columns of 4-bit codes a
 * sum of bytes is at most 8 * 2 * 15 * 127 = 30480, so it stays below 2^15 and is widened once; 8-bit codes, and those of a table, are two such
 * planes, 5-bit codes two such sums of 16 columns. Scaled
 * into the float accumulators (in L1) every 32 columns.
 */
#include "kernels/x86/batch.h"

enum { TOKENS = 4, PARTS = 2 };                  /* vectors of 8 rows */

static void batch_pack(const float *x, int64_t ldx, const tt_batch *b, int64_t i) { pack_tile(x, ldx, b, TOKENS, i); }

typedef struct sums { __m256i s[TOKENS][PARTS]; } sums;

/* Σ codes x over quads k0 … k1 of a unit, in pairs of columns. */
INLINE sums sum_quads(int bits, tt_panel_grid grid, int plane, const uint8_t *unit, const int8_t *q, int k0, int k1) {
    sums v;
#pragma GCC unroll 8
    for (int k = k0; k < k1; k++) {
        const __m256i w0 = quad_codes(bits, grid, plane, unit, k, 0), w1 = quad_codes(bits, grid, plane, unit, k, 32);
#pragma GCC unroll 4
        for (int t = 0; t < TOKENS; t++) {
            const __m256i x = _mm256_set1_epi32(load_quad(q + (k * TOKENS + t) * 4)), a = _mm256_maddubs_epi16(w0, x), b = _mm256_maddubs_epi16(w1, x);
            v.s[t][0] = k == k0 ? a : _mm256_add_epi16(v.s[t][0], a);
            v.s[t][1] = k == k0 ? b : _mm256_add_epi16(v.s[t][1], b);
            __asm__("" : "+x"(v.s[t][0]), "+x"(v.s[t][1]));   /* sums are not to be reordered: all terms at once do not fit the registers */
        }
    }
    return v;
}

/* Those of half h in 32 bits. */
INLINE sums widened_half(int bits, tt_panel_grid grid, const uint8_t *unit, const int8_t *q, int h) {
    const bool large = bits == 8 || grid == TT_GRID_TABLE;
    sums v = sum_quads(bits, grid, 1, unit, q, 8 * h, 8 * h + (bits == 5 ? 4 : 8));
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < PARTS; i++) v.s[t][i] = _mm256_madd_epi16(v.s[t][i], _mm256_set1_epi16(1));
    if (!large && bits != 5) return v;
    const sums more = large ? sum_quads(bits, grid, 2, unit, q, 8 * h, 8 * h + 8) : sum_quads(bits, grid, 1, unit, q, 8 * h + 4, 8 * h + 8);
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < PARTS; i++) v.s[t][i] = _mm256_add_epi32(v.s[t][i], _mm256_madd_epi16(more.s[t][i], _mm256_set1_epi16(large ? 16 : 1)));
    return v;
}

typedef struct scales8 { __m256 d, m; } scales8;

INLINE scales8 load_scales(const strip *s, tt_panel_grid grid, int64_t group, int part) {
    const int64_t at = ROWS * group + 8 * part;
    const __m256 d = v_load_f16(s->scales + at), sign = v_set1(-0.0f), size = _mm256_andnot_ps(sign, d);
    if (!has_mins(grid)) return (scales8){d, d};
    if (grid == TT_GRID_MIN) return (scales8){d, v_load_f16(s->mins + at)};
    return (scales8){size, _mm256_blendv_ps(v_zero(), v_mul(size, v_set1(0.5f)), d)};
}

INLINE void store_rows(float *y, const vf acc[PARTS], int rows) {
    for (int i = 0; i < PARTS; i++) {
        if (rows >= 8 * i + 8) v_store(y + 8 * i, acc[i]);
        else if (rows > 8 * i) v_store_n(y + 8 * i, acc[i], rows - 8 * i);
    }
}

INLINE void tile_strip(int bits, tt_panel_grid grid, const tile *x, const strip *s) {
    vf acc[TOKENS][PARTS];
    const int middle = tt__panel_middle(grid, bits);
    for (int t = 0; t < TOKENS; t++) acc[t][0] = acc[t][1] = v_zero();
    for (int64_t u = 0; u < s->units; u++) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const int64_t part = (3 * u + h) * TOKENS;
            const float *dx = x->d + (2 * u + h) * TOKENS;
            const sums v = widened_half(bits, grid, s->codes + u * tt__panel_unit_bytes(bits), x->q + u * UNIT * TOKENS, h);
            for (int i = 0; i < PARTS; i++) {
                const scales8 w = load_scales(s, grid, (UNIT * u + HALF * h) >> s->group_log2, i);
#pragma GCC unroll 4
                for (int t = 0; t < TOKENS; t++) {
                    __m256i n = v.s[t][i];
                    if (middle >= 0) n = _mm256_add_epi32(n, _mm256_slli_epi32(_mm256_set1_epi32(x->less[part + t]), middle));
                    acc[t][i] = v_fma(_mm256_cvtepi32_ps(n), v_mul(w.d, v_set1(dx[t])), acc[t][i]);
                    if (has_mins(grid)) acc[t][i] = v_fma(w.m, v_set1(x->mass[part + t]), acc[t][i]);
                }
            }
        }
    }
    for (int t = 0; t < x->tokens; t++) store_rows(x->y + t * x->ldy, acc[t], s->rows);
}

typedef void (*tile_fn)(const tile *x, const strip *s);
#define TILE(bits, grid) \
    static void tile_##bits##_##grid(const tile *x, const strip *s) { tile_strip(bits, TT_GRID_##grid, x, s); }
#define EACH_TILE(bits) TILE(bits, OFFSET) TILE(bits, HALF) TILE(bits, MIN)
EACH_TILE(2)
EACH_TILE(3)
EACH_TILE(4)
EACH_TILE(5)
EACH_TILE(8)
TILE(4, TABLE)

#define ENTRIES(bits) {tile_##bits##_OFFSET, tile_##bits##_HALF, tile_##bits##_MIN}
static const tile_fn tile_fns[5][3] = {ENTRIES(2), ENTRIES(3), ENTRIES(4), ENTRIES(5), ENTRIES(8)};

static void panel_gemm(const tt_panel *w, int64_t p0, int64_t p1, const tt_batch *b, int64_t tile0, int64_t tile1, float *y, int64_t ldy) {
    const tile_fn fn = w->grid == TT_GRID_TABLE ? tile_4_TABLE : tile_fns[w->bits == 8 ? 4 : w->bits - 2][w->grid];
    for (int64_t i = tile0; i < tile1; i++) {
        const tile x = tile_of(b, i, y, ldy);
        for (int64_t p = p0; p < p1; p++) {
            tile at = x;
            const strip s = strip_of(w, p);
            at.y += p * ROWS;
            fn(&at, &s);
        }
    }
}

void tt__kernels_avx2_batch(tt_kernels *k) {
    k->batch_tokens = TOKENS;
    k->batch_pack = batch_pack;
    k->panel_gemm = panel_gemm;
}
