/* Panels against batches by vpdpbusd: 16 rows of W are the lanes, up to 12 tokens have an integer and a float accumulator each in
 * registers (24 of 32). The codes of a quad are unpacked once for all tokens; an activation is the broadcast operand of the product
 * itself, so per quad of 16 rows a token costs one instruction. After 64 columns (32, where the groups are) the integers are scaled into
 * the float accumulators.
 *
 *     acc += dx * Σ_half dw * (Σ q x - middle Σ x)  + m * (dx Σ x)           batch.h: less = -Σ x, mass = dx Σ x
 */
#include "kernels/x86/batch.h"

enum { TOKENS = 12 };

/* acc + Σ of four products, codes unsigned, activations signed. Written out: compilers load the broadcast into a register of its own,
 * and there are none to spare. */
INLINE __m512i dot_quad(__m512i acc, __m512i codes, const int8_t *quad) {
    typedef struct { int8_t b[4]; } four;
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(codes), "m"(*(const four *)quad));
    return acc;
}

typedef struct scales16 { __m512 d, m; } scales16;

INLINE scales16 load_scales(const strip *s, tt_panel_grid grid, int64_t group) {
    const __m512 d = v_load_f16(s->scales + ROWS * group);
    if (grid == TT_GRID_OFFSET) return (scales16){d, d};
    if (grid == TT_GRID_MIN) return (scales16){d, v_load_f16(s->mins + ROWS * group)};
    const __m512 size = _mm512_abs_ps(d);
    return (scales16){size, _mm512_maskz_mul_ps(_mm512_movepi32_mask(_mm512_castps_si512(d)), size, v_set1(0.5f))};
}

/* Quads k0 … k1 of a unit for T tokens, from where the offset of the codes puts the sums. */
INLINE void sum_quads(__m512i sum[TOKENS], int bits, tt_panel_grid grid, int T, const uint8_t *unit, const int8_t *q, const int32_t *less, int k0, int k1) {
    const int middle = log2_middle(grid, bits);
    for (int t = 0; t < T; t++) sum[t] = middle < 0 ? _mm512_setzero_si512() : _mm512_slli_epi32(_mm512_set1_epi32(less[t]), (unsigned)middle);
#pragma GCC unroll 16
    for (int k = k0; k < k1; k++) {
        const __m512i codes = quad_codes(bits, 0, unit, k, 0);
#pragma GCC unroll 12
        for (int t = 0; t < T; t++) sum[t] = dot_quad(sum[t], codes, q + (k * TOKENS + t) * 4);
    }
}

/* halves: 2 where each half of a unit has scales of its own. */
INLINE void tile_strip(int bits, tt_panel_grid grid, int halves, int T, const tile *x, const strip *s) {
    __m512 acc[TOKENS];
    __m512i sum[TOKENS];
    for (int t = 0; t < T; t++) acc[t] = v_zero();
    for (int64_t u = 0; u < s->units; u++) {
        const uint8_t *unit = s->codes + u * tt__panel_unit_bytes(bits);
        const int8_t *q = x->q + u * UNIT * TOKENS;
        const float *dx = x->d + u * TOKENS;
#pragma GCC unroll 2
        for (int h = 0; h < halves; h++) {
            const int64_t part = (3 * u + (halves == 2 ? h : 2)) * TOKENS;
            sum_quads(sum, bits, grid, T, unit, q, x->less + part, halves == 2 ? 8 * h : 0, halves == 2 ? 8 * h + 8 : 16);
            const scales16 w = load_scales(s, grid, halves == 2 ? 2 * u + h : u * UNIT / s->group);
#pragma GCC unroll 12
            for (int t = 0; t < T; t++) {
                acc[t] = v_fma(_mm512_cvtepi32_ps(sum[t]), v_mul(w.d, v_set1(dx[t])), acc[t]);
                if (has_mins(grid)) acc[t] = v_fma(w.m, v_set1(x->mass[part + t]), acc[t]);
            }
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < T; t++)
        if (t < x->tokens) v_store_n(x->y + t * x->ldy, acc[t], s->rows);
}

/* Tokens beyond the batch are zeros; a last tile of few takes a narrower loop. */
INLINE void any_tile(int bits, tt_panel_grid grid, int halves, const tile *x, const strip *s) {
    if (x->tokens > 8) tile_strip(bits, grid, halves, 12, x, s);
    else if (x->tokens > 4) tile_strip(bits, grid, halves, 8, x, s);
    else tile_strip(bits, grid, halves, 4, x, s);
}

typedef void (*tile_fn)(const tile *x, const strip *s);
#define TILE(bits, grid, halves) \
    static void tile_##bits##_##grid##_##halves(const tile *x, const strip *s) { any_tile(bits, TT_GRID_##grid, halves, x, s); }
#define EACH_TILE(bits) TILE(bits, OFFSET, 1) TILE(bits, OFFSET, 2) TILE(bits, HALF, 1) TILE(bits, HALF, 2) TILE(bits, MIN, 1) TILE(bits, MIN, 2)
EACH_TILE(2)
EACH_TILE(3)
EACH_TILE(4)
EACH_TILE(8)

#define ENTRIES(bits)                                                                                                          \
    { {tile_##bits##_OFFSET_1, tile_##bits##_OFFSET_2}, {tile_##bits##_HALF_1, tile_##bits##_HALF_2}, {tile_##bits##_MIN_1, tile_##bits##_MIN_2} }
static const tile_fn tile_fns[4][3][2] = {ENTRIES(2), ENTRIES(3), ENTRIES(4), ENTRIES(8)};

static void panel_gemm(const tt_panel *w, int64_t p0, int64_t p1, const tt_batch *b, int64_t tile0, int64_t tile1, float *y, int64_t ldy) {
    const tile_fn fn = tile_fns[w->bits == 8 ? 3 : w->bits - 2][w->grid][w->group == 32];
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

void tt__kernels_avx512_batch_vnni(tt_kernels *k) {
    k->batch_tokens = TOKENS;
    k->batch_pack = batch_pack;
    k->panel_gemm = panel_gemm;
}
