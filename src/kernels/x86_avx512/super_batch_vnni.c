/* Panels with small scales against batches by vpdpbusd. As batch_vnni.c: two panels times 6 tokens have their float accumulators in registers,
 * a broadcast of four activations serves both panels. The sum of the columns that share a small scale, 16 or (grid PAIR) 32, is an integer
 * from where the offset of its codes puts it, and goes into the accumulators at once:
 *
 *     acc += dx * (d s) * (Σ q x - middle Σ x)          and with minima  acc -= dx * m * Σ t x
 *
 * Sums of x come as pairs of 16 bits (batch.h: quarters), so the minima of 32 columns of grid NIBBLES are one vpmaddwd.
 */
#include "kernels/x86/batch.h"

enum { TOKENS = 6, PAIRS = 2, SUBS = 32 };       /* bytes of small scales of 32 columns */

/* 32 columns of a panel: d s of each half (of the first for all with PAIR), m t of all with PAIR; with NIBBLES m and the pairs of t. */
typedef struct scales32 { vf ds[2], m; __m512i t; } scales32;

INLINE __m512i bytes(const uint8_t *p, bool sign) {
    const __m128i b = _mm_loadu_si128((const __m128i *)p);
    return sign ? _mm512_cvtepi8_epi32(b) : _mm512_cvtepu8_epi32(b);
}

INLINE scales32 load_scales(const strip *s, tt_panel_grid grid, int64_t b) {
    const uint8_t *sub = s->subs + SUBS * b;
    const __m512i first = bytes(sub, grid == TT_GRID_SINGLE), second = bytes(sub + ROWS, grid == TT_GRID_SINGLE), nibble = _mm512_set1_epi32(15);
    const vf d = v_load_f16(s->scales + ROWS * (b / 8));
    scales32 w = {{d, d}, d, first};
    if (grid == TT_GRID_NIBBLES) {
        for (int i = 0; i < 2; i++) w.ds[i] = v_mul(d, _mm512_cvtepi32_ps(_mm512_and_si512(i ? second : first, nibble)));
        w.m = v_load_f16(s->mins + ROWS * (b / 8));
        w.t = _mm512_or_si512(_mm512_srli_epi32(first, 4), _mm512_slli_epi32(_mm512_srli_epi32(second, 4), 16));
        return w;
    }
    w.ds[0] = v_mul(d, _mm512_cvtepi32_ps(first));
    if (grid == TT_GRID_SINGLE) w.ds[1] = v_mul(d, _mm512_cvtepi32_ps(second));
    else w.m = v_mul(v_load_f16(s->mins + ROWS * (b / 8)), _mm512_cvtepi32_ps(second));
    return w;
}

/* -middle Σx of 16 columns, from a pair of sums. */
INLINE __m512i start_of(int bits, __m512i pair, int second) {
    return second ? _mm512_slli_epi32(_mm512_srai_epi32(pair, 16), (unsigned)(bits - 1)) : _mm512_srai_epi32(_mm512_slli_epi32(pair, 16), (unsigned)(17 - bits));
}

typedef struct sums { vf a[PAIRS][TOKENS]; } sums;

/* Quads k … k + n, n 4 or 8, whose columns share the scale ds[part]. P panels times Q tiles, one of the two being 2: pair i is panel i % P and tile i % Q. */
INLINE void add_quads(sums *acc, int bits, tt_panel_grid grid, int P, int Q, const strip *s, const tile *x, const scales32 w[PAIRS], int part, int64_t u, int k, int n) {
    const int64_t at = u * tt__panel_unit_bytes(bits), first = u * UNIT * TOKENS, h = 2 * u + k / 8;
    __m512i codes[PAIRS][8];
#pragma GCC unroll 8
    for (int j = 0; j < n; j++)
        for (int p = 0; p < P; p++) codes[p][j] = quad_codes(bits, grid, 0, s[p].codes + at, k + j, 0);
#pragma GCC unroll 6
    for (int t = 0; t < TOKENS; t++) {
        __m512i sum[PAIRS];
        for (int i = 0; i < P * Q; i++)
            sum[i] = grid == TT_GRID_SINGLE ? start_of(bits, _mm512_set1_epi32(x[i % Q].quarters[h * TOKENS + t]), part) : _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int j = 0; j < n; j++) {
            __m512i four[PAIRS];
            for (int q = 0; q < Q; q++) four[q] = _mm512_set1_epi32(load_quad(x[q].q + first + ((k + j) * TOKENS + t) * 4));
            for (int i = 0; i < P * Q; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], codes[i % P][j], four[i % Q]);
        }
        for (int i = 0; i < P * Q; i++)
            acc->a[i][t] = v_fma(_mm512_cvtepi32_ps(sum[i]), v_mul(w[i % P].ds[part], v_set1(x[i % Q].d[h * TOKENS + t])), acc->a[i][t]);
    }
}

INLINE void add_minima(sums *acc, tt_panel_grid grid, int P, int Q, const tile *x, const scales32 w[PAIRS], int64_t u, int h) {
    const int64_t at = (2 * u + h) * TOKENS, mass = (3 * u + h) * TOKENS;
    for (int i = 0; i < P * Q; i++) {
        const tile *xi = x + i % Q;
        const scales32 *wi = w + i % P;
#pragma GCC unroll 6
        for (int t = 0; t < TOKENS; t++) {
            if (grid == TT_GRID_PAIR) acc->a[i][t] = v_fnma(wi->m, v_set1(xi->mass[mass + t]), acc->a[i][t]);
            else {
                const __m512i less = _mm512_madd_epi16(wi->t, _mm512_set1_epi32(xi->quarters[at + t]));
                acc->a[i][t] = v_fma(v_mul(wi->m, v_set1(xi->d[at + t])), _mm512_cvtepi32_ps(less), acc->a[i][t]);
            }
        }
    }
}

INLINE void block(int bits, tt_panel_grid grid, int P, int Q, const strip *s, const tile *x) {
    sums acc;
    for (int i = 0; i < P * Q; i++)
        for (int t = 0; t < TOKENS; t++) acc.a[i][t] = v_zero();
    for (int64_t u = 0; u < s->units; u++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            scales32 w[PAIRS];
            for (int p = 0; p < P; p++) w[p] = load_scales(s + p, grid, 2 * u + h);
            if (grid == TT_GRID_PAIR) add_quads(&acc, bits, grid, P, Q, s, x, w, 0, u, 8 * h, 8);
            else
                for (int part = 0; part < 2; part++) add_quads(&acc, bits, grid, P, Q, s, x, w, part, u, 8 * h + 4 * part, 4);
            if (grid != TT_GRID_SINGLE) add_minima(&acc, grid, P, Q, x, w, u, h);
        }
    for (int i = 0; i < P * Q; i++)
#pragma GCC unroll 6
        for (int t = 0; t < TOKENS; t++)
            if (t < x[i % Q].tokens) v_store_n(x[i % Q].y + t * x[i % Q].ldy + ROWS * (i % P), acc.a[i][t], s[i % P].rows);
}

typedef void (*block_fn)(const strip *s, int panels, const tile *x, int tiles);
#define BLOCK(bits, grid)                                                                    \
    static void block_##bits(const strip *s, int panels, const tile *x, int tiles) {         \
        if (panels == 2) block(bits, TT_GRID_##grid, 2, 1, s, x);                            \
        else if (tiles == 2) block(bits, TT_GRID_##grid, 1, 2, s, x);                        \
        else block(bits, TT_GRID_##grid, 1, 1, s, x);                                        \
    }
BLOCK(2, NIBBLES)
BLOCK(3, SINGLE)
BLOCK(4, PAIR)
BLOCK(5, PAIR)
BLOCK(6, SINGLE)
static const block_fn block_fns[] = {block_2, block_3, block_4, block_5, block_6};

static void super_gemm(const tt_panel *w, int64_t p0, int64_t p1, const tt_batch *b, int64_t tile0, int64_t tile1, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p += 2) {
        const int panels = p + 1 < p1 ? 2 : 1;
        const strip s[PAIRS] = {strip_of(w, p), strip_of(w, p + panels - 1)};
        for (int64_t i = tile0, tiles; i < tile1; i += tiles) {
            tiles = panels == 1 && i + 1 < tile1 ? 2 : 1;
            const tile x[PAIRS] = {tile_of(b, i, y + p * ROWS, ldy), tile_of(b, i + tiles - 1, y + p * ROWS, ldy)};
            block_fns[w->bits - 2](s, panels, x, (int)tiles);
        }
    }
}

void tt__kernels_avx512_super_batch_vnni(tt_kernels *k) { k->super_gemm = super_gemm; }
