/* Panels against batches by vpdpbusd: two panels (32 rows of W in lanes) times 6 tokens have an integer and a float accumulator each in
 * registers (24 of 32). A broadcast of four activations serves both panels, the codes of a quad serve all tokens: on a core with two
 * vpdpbusd and two loads of a vector per cycle, a broadcast for each product would leave the loads no time for anything else. After 64
 * columns (32, where the groups are) the integers are scaled into the float accumulators.
 *
 *     acc += dx * dw * (Σ q x - middle Σ x)  +  m * (dx Σ x)           batch.h: less = -Σ x, mass = dx Σ x
 */
#include "kernels/x86/batch.h"

enum { TOKENS = 6, PAIRS = 2 };

typedef struct scales16 { __m512 d, m; } scales16;

INLINE scales16 load_scales(const strip *s, tt_panel_grid grid, int64_t group) {
    const __m512 d = v_load_f16(s->scales + ROWS * group);
    if (!has_mins(grid)) return (scales16){d, d};
    if (grid == TT_GRID_MIN) return (scales16){d, v_load_f16(s->mins + ROWS * group)};
    const __m512 size = _mm512_abs_ps(d);
    return (scales16){size, _mm512_maskz_mul_ps(_mm512_movepi32_mask(_mm512_castps_si512(d)), size, v_set1(0.5f))};
}

static void batch_pack(const float *x, int64_t ldx, const tt_batch *b, int64_t i) { pack_tile(x, ldx, b, TOKENS, i); }

/* P panels times Q tiles, one of the two being 2: pair i is panel i % P and tile i % Q. */
typedef struct sums { __m512i s[PAIRS][TOKENS]; } sums;

/* Quads k0 … k1 of unit u, from where the offset of the codes puts the sums. part: which of the three sums of x. */
INLINE void sum_quads(sums *v, int bits, tt_panel_grid grid, int P, int Q, const strip *s, const tile *x, int64_t u, int64_t part, int k0, int k1) {
    const int middle = tt__panel_middle(grid, bits);
    const int64_t at = u * tt__panel_unit_bytes(bits), first = u * UNIT * TOKENS;
#pragma GCC unroll 6
    for (int t = 0; t < TOKENS; t++) {
        __m512i start[PAIRS];
        for (int q = 0; q < Q; q++) start[q] = middle < 0 ? _mm512_setzero_si512() : _mm512_slli_epi32(_mm512_set1_epi32(x[q].less[part + t]), (unsigned)middle);
        for (int i = 0; i < P * Q; i++) v->s[i][t] = start[i % Q];
    }
#pragma GCC unroll 16
    for (int k = k0; k < k1; k++) {
        __m512i codes[PAIRS];
        for (int p = 0; p < P; p++) codes[p] = quad_codes(bits, grid, 0, s[p].codes + at, k, 0);
#pragma GCC unroll 6
        for (int t = 0; t < TOKENS; t++) {
            __m512i four[PAIRS];
            for (int q = 0; q < Q; q++) four[q] = _mm512_set1_epi32(load_quad(x[q].q + first + (k * TOKENS + t) * 4));
            for (int i = 0; i < P * Q; i++) v->s[i][t] = _mm512_dpbusd_epi32(v->s[i][t], codes[i % P], four[i % Q]);
        }
    }
}

/* halves: 2 where a half of a unit has scales of its own, be it of the panel or of the activations. */
INLINE void block(int bits, tt_panel_grid grid, int halves, int P, int Q, const strip *s, const tile *x) {
    vf acc[PAIRS][TOKENS];
    sums v;
    for (int i = 0; i < P * Q; i++)
        for (int t = 0; t < TOKENS; t++) acc[i][t] = v_zero();
    for (int64_t u = 0; u < s->units; u++)
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++) {
            const int64_t part = (3 * u + (halves == 2 ? h : 2)) * TOKENS, d = (2 * u + h) * TOKENS, group = (UNIT * u + HALF * h) >> s->group_log2;
            sum_quads(&v, bits, grid, P, Q, s, x, u, part, halves == 2 ? 8 * h : 0, halves == 2 ? 8 * h + 8 : 16);
            for (int i = 0; i < P * Q; i++) {
                const scales16 w = load_scales(s + i % P, grid, group);
                const tile *xi = x + i % Q;
#pragma GCC unroll 6
                for (int t = 0; t < TOKENS; t++) {
                    acc[i][t] = v_fma(_mm512_cvtepi32_ps(v.s[i][t]), v_mul(w.d, v_set1(xi->d[d + t])), acc[i][t]);
                    if (has_mins(grid)) acc[i][t] = v_fma(w.m, v_set1(xi->mass[part + t]), acc[i][t]);
                }
            }
        }
    for (int i = 0; i < P * Q; i++)
#pragma GCC unroll 6
        for (int t = 0; t < TOKENS; t++)
            if (t < x[i % Q].tokens) v_store_n(x[i % Q].y + t * x[i % Q].ldy + ROWS * (i % P), acc[i][t], s[i % P].rows);
}

typedef void (*block_fn)(const strip *s, int panels, const tile *x, int tiles);
#define BLOCK(bits, grid, halves)                                                                              \
    static void block_##bits##_##grid##_##halves(const strip *s, int panels, const tile *x, int tiles) {       \
        if (panels == 2) block(bits, TT_GRID_##grid, halves, 2, 1, s, x);                                      \
        else if (tiles == 2) block(bits, TT_GRID_##grid, halves, 1, 2, s, x);                                  \
        else block(bits, TT_GRID_##grid, halves, 1, 1, s, x);                                                  \
    }
#define EACH_BLOCK(bits) BLOCK(bits, OFFSET, 1) BLOCK(bits, OFFSET, 2) BLOCK(bits, HALF, 1) BLOCK(bits, HALF, 2) BLOCK(bits, MIN, 1) BLOCK(bits, MIN, 2)
EACH_BLOCK(2)
EACH_BLOCK(3)
EACH_BLOCK(4)
EACH_BLOCK(5)
EACH_BLOCK(8)
BLOCK(4, TABLE, 1)
BLOCK(4, TABLE, 2)

#define ENTRIES(bits)                                                                                                                  \
    { {block_##bits##_OFFSET_1, block_##bits##_OFFSET_2}, {block_##bits##_HALF_1, block_##bits##_HALF_2}, {block_##bits##_MIN_1, block_##bits##_MIN_2} }
static const block_fn block_fns[5][3][2] = {ENTRIES(2), ENTRIES(3), ENTRIES(4), ENTRIES(5), ENTRIES(8)}, table_fns[2] = {block_4_TABLE_1, block_4_TABLE_2};

/* A pair of panels stays in L1 while the tiles pass; a panel left over takes them two at a time. */
static void panel_gemm(const tt_panel *w, int64_t p0, int64_t p1, const tt_batch *b, int64_t tile0, int64_t tile1, float *y, int64_t ldy) {
    const int halves = w->group == 32 || b->per == 32;
    const block_fn fn = w->grid == TT_GRID_TABLE ? table_fns[halves] : block_fns[w->bits == 8 ? 4 : w->bits - 2][w->grid][halves];
    for (int64_t p = p0; p < p1; p += 2) {
        const int panels = p + 1 < p1 ? 2 : 1;
        const strip s[PAIRS] = {strip_of(w, p), strip_of(w, p + panels - 1)};
        for (int64_t i = tile0, tiles; i < tile1; i += tiles) {
            tiles = panels == 1 && i + 1 < tile1 ? 2 : 1;
            const tile x[PAIRS] = {tile_of(b, i, y + p * ROWS, ldy), tile_of(b, i + tiles - 1, y + p * ROWS, ldy)};
            fn(s, panels, x, (int)tiles);
        }
    }
}

void tt__kernels_avx512_batch_vnni(tt_kernels *k) {
    k->batch_tokens = TOKENS;
    k->batch_pack = batch_pack;
    k->panel_gemm = panel_gemm;
}
