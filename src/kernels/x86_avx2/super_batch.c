/* Panels with small scales against batches by vpmaddubsw: 16 rows of W (two vectors) times 4 tokens. Sums of bytes run in 16 bits over as many
 * columns as fit (4 * 2 * 63 * 127 = 32004: two quads of 6 bits, four of 5, eight of less), of one small scale; the vpmaddwd that widens
 * them multiplies by it. So do those that take sums of x times the small scales, for the offset of the codes and for minima. 32
 * columns are one float step.
 */
#include "kernels/x86/batch.h"

enum { TOKENS = 4, PARTS = 2, SUBS = 32 };

/* Of eight rows, words side by side: a scale twice for a quarter of the unit each, both quarters' scales and both minima. */
typedef struct scales32 { __m256i s[2], both, minima; vf d, m; } scales32;

INLINE scales32 load_scales(const strip *p, tt_panel_grid grid, int64_t b, int part) {
    const uint8_t *sub = p->subs + SUBS * b + 8 * part;
    const int64_t at = ROWS * (b / 8) + 8 * part;
    __m128i s[2] = {_mm_loadl_epi64((const __m128i *)sub), _mm_loadl_epi64((const __m128i *)(sub + ROWS))}, t[2] = {s[1], s[1]};
    const __m128i nibble = _mm_set1_epi8(15);
    if (grid == TT_GRID_PAIR) s[1] = s[0];
    if (grid == TT_GRID_NIBBLES)
        for (int i = 0; i < 2; i++) {
            t[i] = _mm_and_si128(_mm_srli_epi16(s[i], 4), nibble);
            s[i] = _mm_and_si128(s[i], nibble);
        }
    const vf d = v_load_f16(p->scales + at);
    return (scales32){{_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(s[0], s[0])), _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(s[1], s[1]))},
                      _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(s[0], s[1])), _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(t[0], t[1])), d,
                      grid == TT_GRID_SINGLE ? d : v_load_f16(p->mins + at)};
}

/* s[t] += scale Σ codes x over quads k … k + n of eight rows; unit: from their bytes on. */
INLINE void add_quads(int bits, tt_panel_grid grid, const uint8_t *unit, const int8_t *q, int k, int n, __m256i scale, __m256i s[TOKENS]) {
    __m256i a[TOKENS];
#pragma GCC unroll 8
    for (int j = k; j < k + n; j++) {
        const __m256i w = quad_codes(bits, grid, 0, unit, j, 0);
#pragma GCC unroll 4
        for (int t = 0; t < TOKENS; t++) {
            const __m256i v = _mm256_maddubs_epi16(w, _mm256_set1_epi32(load_quad(q + (j * TOKENS + t) * 4)));
            a[t] = j == k ? v : _mm256_add_epi16(a[t], v);
            __asm__("" : "+x"(a[t]));                        /* as in batch.c */
        }
    }
    for (int t = 0; t < TOKENS; t++) s[t] = _mm256_add_epi32(s[t], _mm256_madd_epi16(a[t], scale));
}

INLINE void tile_strip(int bits, tt_panel_grid grid, const tile *x, const strip *s) {
    enum { QUARTER = 4 };
    const int run = bits == 6 ? 2 : bits == 5 || grid != TT_GRID_PAIR ? 4 : 8;       /* quads at a time */
    vf acc[TOKENS][PARTS];
    for (int t = 0; t < TOKENS; t++) acc[t][0] = acc[t][1] = v_zero();
    for (int64_t u = 0; u < s->units; u++)
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            const int64_t at = (2 * u + h) * TOKENS;
            for (int i = 0; i < PARTS; i++) {
                const scales32 w = load_scales(s, grid, 2 * u + h, i);
                const uint8_t *unit = s->codes + u * tt__panel_unit_bytes(bits) + 32 * i;
                __m256i n[TOKENS];
#pragma GCC unroll 4
                for (int t = 0; t < TOKENS; t++)
                    n[t] = grid == TT_GRID_SINGLE ? _mm256_slli_epi32(_mm256_madd_epi16(w.both, _mm256_set1_epi32(x->quarters[at + t])), bits - 1) : _mm256_setzero_si256();
#pragma GCC unroll 4
                for (int k = 0; k < 8; k += run) add_quads(bits, grid, unit, x->q + u * UNIT * TOKENS, 8 * h + k, run, w.s[k / QUARTER], n);
#pragma GCC unroll 4
                for (int t = 0; t < TOKENS; t++) {
                    const vf dx = v_set1(x->d[at + t]);
                    acc[t][i] = v_fma(_mm256_cvtepi32_ps(n[t]), v_mul(w.d, dx), acc[t][i]);
                    if (grid == TT_GRID_SINGLE) continue;
                    const __m256i less = _mm256_madd_epi16(w.minima, _mm256_set1_epi32(x->quarters[at + t]));
                    acc[t][i] = v_fma(_mm256_cvtepi32_ps(less), v_mul(w.m, dx), acc[t][i]);
                }
            }
        }
    for (int t = 0; t < x->tokens; t++)
        for (int i = 0; i < PARTS; i++) {
            if (s->rows >= 8 * i + 8) v_store(x->y + t * x->ldy + 8 * i, acc[t][i]);
            else if (s->rows > 8 * i) v_store_n(x->y + t * x->ldy + 8 * i, acc[t][i], s->rows - 8 * i);
        }
}

typedef void (*tile_fn)(const tile *x, const strip *s);
#define TILE(bits, grid) \
    static void tile_##bits(const tile *x, const strip *s) { tile_strip(bits, TT_GRID_##grid, x, s); }
TILE(2, NIBBLES)
TILE(3, SINGLE)
TILE(4, PAIR)
TILE(5, PAIR)
TILE(6, SINGLE)
static const tile_fn tile_fns[] = {tile_2, tile_3, tile_4, tile_5, tile_6};

static void super_gemm(const tt_panel *w, int64_t p0, int64_t p1, const tt_batch *b, int64_t tile0, int64_t tile1, float *y, int64_t ldy) {
    for (int64_t i = tile0; i < tile1; i++) {
        const tile x = tile_of(b, i, y, ldy);
        for (int64_t p = p0; p < p1; p++) {
            tile at = x;
            const strip s = strip_of(w, p);
            at.y += p * ROWS;
            tile_fns[w->bits - 2](&at, &s);
        }
    }
}

void tt__kernels_avx2_super_batch(tt_kernels *k) { k->super_gemm = super_gemm; }
