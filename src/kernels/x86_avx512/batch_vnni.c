/* Panels against batches by vpdpbusd: two panels (32 rows of W in lanes) times 6 tokens have an integer and a float accumulator each in
 * registers (24 of 32). A broadcast of four activations serves both panels, the codes of a quad serve all tokens: on a core with two
 * vpdpbusd and two loads of a vector per cycle, a broadcast for each product would leave the loads no time for anything else. After 64
 * columns (32, where the groups are) the integers are scaled into the float accumulators.
 *
 *     acc += dx * dw * (Σ q x - middle Σ x)  +  m * (dx Σ x)           batch.h: less = -Σ x, mass = dx Σ x
 */
#include "kernels/x86/batch.h"

enum { TOKENS = 6, PANELS = 2 };

typedef struct scales16 { __m512 d, m; } scales16;

INLINE scales16 load_scales(const strip *s, tt_panel_grid grid, int64_t group) {
    const __m512 d = v_load_f16(s->scales + ROWS * group);
    if (grid == TT_GRID_OFFSET) return (scales16){d, d};
    if (grid == TT_GRID_MIN) return (scales16){d, v_load_f16(s->mins + ROWS * group)};
    const __m512 size = _mm512_abs_ps(d);
    return (scales16){size, _mm512_maskz_mul_ps(_mm512_movepi32_mask(_mm512_castps_si512(d)), size, v_set1(0.5f))};
}

typedef struct sums { __m512i s[PANELS][TOKENS]; } sums;

/* Quads k0 … k1 of a unit, from where the offset of the codes puts the sums. */
INLINE void sum_quads(sums *v, int bits, tt_panel_grid grid, int P, const strip *s, int64_t unit, const int8_t *q, const int32_t *less, int k0, int k1) {
    const int middle = log2_middle(grid, bits);
#pragma GCC unroll 6
    for (int t = 0; t < TOKENS; t++) {
        v->s[0][t] = middle < 0 ? _mm512_setzero_si512() : _mm512_slli_epi32(_mm512_set1_epi32(less[t]), (unsigned)middle);
        for (int p = 1; p < P; p++) v->s[p][t] = v->s[0][t];
    }
#pragma GCC unroll 16
    for (int k = k0; k < k1; k++) {
        __m512i codes[PANELS];
        for (int p = 0; p < P; p++) codes[p] = quad_codes(bits, 0, s[p].codes + unit, k, 0);
#pragma GCC unroll 6
        for (int t = 0; t < TOKENS; t++) {
            const __m512i x = _mm512_set1_epi32(load_quad(q + (k * TOKENS + t) * 4));
            for (int p = 0; p < P; p++) v->s[p][t] = _mm512_dpbusd_epi32(v->s[p][t], codes[p], x);
        }
    }
}

/* P panels from s on. halves: 2 where each half of a unit has scales of its own. */
INLINE void tile_strips(int bits, tt_panel_grid grid, int halves, int P, const tile *x, const strip *s) {
    vf acc[PANELS][TOKENS];
    sums v;
    for (int p = 0; p < P; p++)
        for (int t = 0; t < TOKENS; t++) acc[p][t] = v_zero();
    for (int64_t u = 0; u < s->units; u++) {
        const int64_t unit = u * tt__panel_unit_bytes(bits);
        const int8_t *q = x->q + u * UNIT * TOKENS;
        const float *dx = x->d + u * TOKENS;
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++) {
            const int64_t part = (3 * u + (halves == 2 ? h : 2)) * TOKENS, group = halves == 2 ? 2 * u + h : u * UNIT >> s->group_log2;
            sum_quads(&v, bits, grid, P, s, unit, q, x->less + part, halves == 2 ? 8 * h : 0, halves == 2 ? 8 * h + 8 : 16);
            for (int p = 0; p < P; p++) {
                const scales16 w = load_scales(s + p, grid, group);
#pragma GCC unroll 6
                for (int t = 0; t < TOKENS; t++) {
                    acc[p][t] = v_fma(_mm512_cvtepi32_ps(v.s[p][t]), v_mul(w.d, v_set1(dx[t])), acc[p][t]);
                    if (has_mins(grid)) acc[p][t] = v_fma(w.m, v_set1(x->mass[part + t]), acc[p][t]);
                }
            }
        }
    }
    for (int p = 0; p < P; p++)
#pragma GCC unroll 6
        for (int t = 0; t < TOKENS; t++)
            if (t < x->tokens) v_store_n(x->y + t * x->ldy + ROWS * p, acc[p][t], s[p].rows);
}

typedef void (*tile_fn)(const tile *x, const strip *s, int panels);
#define TILE(bits, grid, halves)                                                                   \
    static void tile_##bits##_##grid##_##halves(const tile *x, const strip *s, int panels) {       \
        if (panels == 2) tile_strips(bits, TT_GRID_##grid, halves, 2, x, s);                       \
        else tile_strips(bits, TT_GRID_##grid, halves, 1, x, s);                                   \
    }
#define EACH_TILE(bits) TILE(bits, OFFSET, 1) TILE(bits, OFFSET, 2) TILE(bits, HALF, 1) TILE(bits, HALF, 2) TILE(bits, MIN, 1) TILE(bits, MIN, 2)
EACH_TILE(2)
EACH_TILE(3)
EACH_TILE(4)
EACH_TILE(8)

#define ENTRIES(bits)                                                                                                          \
    { {tile_##bits##_OFFSET_1, tile_##bits##_OFFSET_2}, {tile_##bits##_HALF_1, tile_##bits##_HALF_2}, {tile_##bits##_MIN_1, tile_##bits##_MIN_2} }
static const tile_fn tile_fns[4][3][2] = {ENTRIES(2), ENTRIES(3), ENTRIES(4), ENTRIES(8)};

/* A pair of panels stays in L1 while the tiles pass. */
static void panel_gemm(const tt_panel *w, int64_t p0, int64_t p1, const tt_batch *b, int64_t tile0, int64_t tile1, float *y, int64_t ldy) {
    const tile_fn fn = tile_fns[w->bits == 8 ? 3 : w->bits - 2][w->grid][w->group == 32];
    for (int64_t p = p0; p < p1; p += PANELS) {
        const int panels = p + 1 < p1 ? 2 : 1;
        const strip s[PANELS] = {strip_of(w, p), strip_of(w, p + panels - 1)};
        for (int64_t i = tile0; i < tile1; i++) {
            const tile x = tile_of(b, i, y + p * ROWS, ldy);
            fn(&x, s, panels);
        }
    }
}

void tt__kernels_avx512_batch_vnni(tt_kernels *k) {
    k->batch_tokens = TOKENS;
    k->batch_pack = batch_pack;
    k->panel_gemm = panel_gemm;
}
