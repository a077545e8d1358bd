/* Panels with 256-bit vectors: decoding, and products by vpmaddubsw. A vector of a panel is two registers of 8 rows.
 *
 * vpmaddubsw saturates pair sums at 16 bits, and sums of 32 columns run in 16 bits as well: unsigned codes against |x| ≤ 127 stay below
 *     4 bits  8 * 2 * 15 * 127 = 30480        3 bits  14224        2 bits  fields 1 and 4 times the code: 3048, 12192
 * Five bits are two such sums of 16 columns. Eight bits and tables do not fit; there the weight goes in as |w| and its sign on x (2 * 128 * 127 = 32512), widened at once. So the integer part
 * equals the reference exactly.
 */
#include "kernels/x86/panel.h"

/* Codes that are taken as code - 128, a signed byte. */
INLINE int are_signed(int bits, tt_panel_grid grid) { return bits == 8 || grid == TT_GRID_TABLE; }

enum { MANY = 2, AHEAD = 2048, SCALES_AHEAD = 512 };        /* activations at a time; bytes */

typedef struct tokens { const int8_t *q[MANY]; const float *d[MANY]; const int32_t *sum[MANY]; } tokens;

INLINE __m256i quad(const int8_t *q, int k) {
    int32_t four;
    memcpy(&four, q + 4 * k, 4);
    return _mm256_set1_epi32(four);
}

INLINE __m256i load(const uint8_t *p) { return _mm256_load_si256((const __m256i *)p); }
INLINE __m256i widen(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
INLINE void add16(__m256i *s, __m256i codes, __m256i x) { *s = _mm256_add_epi16(*s, _mm256_maddubs_epi16(codes, x)); }

/* s[t] += Σ code x over 32 columns of 8 rows; v: their vectors from the right half on. */
INLINE void dot32(int bits, tt_panel_grid grid, const uint8_t *v, const tokens *x, int64_t col, int T, __m256i s[MANY]) {
    __m256i a[MANY], b[MANY];
    for (int t = 0; t < T; t++) a[t] = b[t] = _mm256_setzero_si256();
    if (are_signed(bits, grid)) {
        for (int j = 0; j < 8; j++) {
            const __m256i w = _mm256_xor_si256(looked_up(grid, quad_codes(bits, v, j)), _mm256_set1_epi8((char)0x80)), size = _mm256_abs_epi8(w);
            for (int t = 0; t < T; t++)
                s[t] = _mm256_add_epi32(s[t], widen(_mm256_maddubs_epi16(size, _mm256_sign_epi8(quad(x->q[t] + col, j), w))));
        }
        return;
    }
    if (bits == 4)
        for (int j = 0; j < 4; j++) {
            const __m256i w = load(v + 64 * j), lo = vi_bits(w, 0, 15), hi = vi_bits(w, 4, 15);
            for (int t = 0; t < T; t++) {
                add16(&a[t], lo, quad(x->q[t] + col, 2 * j));
                add16(&a[t], hi, quad(x->q[t] + col, 2 * j + 1));
            }
        }
    else if (bits == 2)
        for (int j = 0; j < 2; j++) {
            const __m256i w = load(v + 64 * j), up = _mm256_srli_epi16(w, 4);
            const __m256i w0 = vi_bits(w, 0, 3), w1 = vi_bits(w, 0, 12), w2 = vi_bits(up, 0, 3), w3 = vi_bits(up, 0, 12);
            for (int t = 0; t < T; t++) {
                const int8_t *q = x->q[t] + col + 16 * j;
                add16(&a[t], w0, quad(q, 0));
                add16(&b[t], w1, quad(q, 1));
                add16(&a[t], w2, quad(q, 2));
                add16(&b[t], w3, quad(q, 3));
            }
        }
    else
        for (int k = 0; k < 8; k++) {
            const __m256i w = quad_codes(bits, v, k);
            for (int t = 0; t < T; t++) add16(bits == 5 && k >= 4 ? &b[t] : &a[t], w, quad(x->q[t] + col, k));
        }
    for (int t = 0; t < T; t++) {
        s[t] = _mm256_add_epi32(s[t], widen(a[t]));
        if (bits == 5) s[t] = _mm256_add_epi32(s[t], widen(b[t]));
        if (bits == 2) s[t] = _mm256_add_epi32(s[t], _mm256_srai_epi32(widen(b[t]), 2));
    }
}

/* 32 columns of rows 8 i … 8 i + 7 into acc. */
INLINE void step(int bits, tt_panel_grid grid, int T, const uint8_t *v, const uint16_t *scale, const uint16_t *min, const tokens *x, int64_t b, int i,
                 vf acc[2][MANY]) {
    const __m128i h = _mm_load_si128((const __m128i *)(scale + 8 * i));
    __m256i s[MANY];
    for (int t = 0; t < T; t++)
        s[t] = grid == TT_GRID_MIN       ? bits == 8 ? _mm256_slli_epi32(_mm256_set1_epi32(x->sum[t][b]), 7) : _mm256_setzero_si256()
               : are_signed(bits, grid) ? _mm256_setzero_si256()
                                        : _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(_mm256_set1_epi32(x->sum[t][b]), bits - 1));
    dot32(bits, grid, v + 32 * i, x, 32 * b, T, s);
    vf d = _mm256_cvtph_ps(grid == TT_GRID_HALF ? _mm_and_si128(h, _mm_set1_epi16(0x7fff)) : h);
    if (grid == TT_GRID_HALF) {
        const __m256i half = _mm256_cvtepi16_epi32(_mm_srai_epi16(h, 15));
        d = v_mul(d, v_set1(0.5f));
        for (int t = 0; t < T; t++) s[t] = _mm256_add_epi32(_mm256_slli_epi32(s[t], 1), _mm256_and_si256(half, _mm256_set1_epi32(x->sum[t][b])));
    }
    for (int t = 0; t < T; t++) acc[i][t] = v_fma(v_mul(d, v_set1(x->d[t][b])), _mm256_cvtepi32_ps(s[t]), acc[i][t]);
    if (grid == TT_GRID_MIN)
        for (int t = 0; t < T; t++) acc[i][t] = v_fma(v_load_f16(min + 8 * i), v_set1(x->d[t][b] * (float)x->sum[t][b]), acc[i][t]);
}

INLINE void one_panel(int bits, tt_panel_grid grid, int T, int shift, const tt_panel *w, int64_t p, const tokens *x, float *y, int64_t ldy) {
    const uint8_t *v = w->codes + p * w->units * (128 * bits);
    const uint16_t *scales = w->scales + p * w->groups * 16, *mins = grid == TT_GRID_MIN ? w->mins + p * w->groups * 16 : scales;
    vf acc[2][MANY];
    for (int t = 0; t < T; t++) acc[0][t] = acc[1][t] = v_zero();
    for (int64_t b = 0; b < 2 * w->units; b++, v += 64 * bits) {
        const int64_t at = (b >> shift) * 16;
        for (int i = 0; i < bits; i++) _mm_prefetch((const char *)(v + 64 * i + AHEAD), _MM_HINT_T0);
        if (b % 2 == 0) _mm_prefetch((const char *)(scales + at) + SCALES_AHEAD, _MM_HINT_T0);
        if (grid == TT_GRID_MIN && b % 2 == 0) _mm_prefetch((const char *)(mins + at) + SCALES_AHEAD, _MM_HINT_T0);
        step(bits, grid, T, v, scales + at, mins + at, x, b, 0, acc);
        step(bits, grid, T, v, scales + at, mins + at, x, b, 1, acc);
    }
    for (int t = 0; t < T; t++)
        for (int i = 0; i < 2; i++) {
            const int64_t rows = w->rows - 16 * p - 8 * i;
            if (rows >= 8) v_store(y + t * ldy + 16 * p + 8 * i, acc[i][t]);
            else if (rows > 0) v_store_n(y + t * ldy + 16 * p + 8 * i, acc[i][t], rows);
        }
}

INLINE void panels(int bits, tt_panel_grid grid, int T, const tt_panel *w, int64_t p0, int64_t p1, const tokens *x, float *y, int64_t ldy) {
    const int shift = w->group == 32 ? 0 : w->group == 64 ? 1 : 2;
    for (int64_t p = p0; p < p1; p++) one_panel(bits, grid, T, shift, w, p, x, y, ldy);
}

static void panel_rowdot(const tt_panel *w, int64_t p0, int64_t p1, const tt_q8 *x, float *y, int64_t ldy) {
    for (int64_t t0 = 0; t0 < x->T; t0 += MANY) {
        const int T = x->T - t0 < MANY ? (int)(x->T - t0) : MANY;
        tokens xt;
        for (int t = 0; t < T; t++) {
            xt.q[t] = x->q + (t0 + t) * x->n_pad;
            xt.d[t] = x->d + (t0 + t) * x->blocks;
            xt.sum[t] = x->sum + (t0 + t) * x->blocks;
        }
        float *yt = y + t0 * ldy;
#define CALL(bits, grid, T) case ((bits) * 4 + (grid)) * 2 + (T) - 1: panels(bits, grid, T, w, p0, p1, &xt, yt, ldy); break;
#define TOKENS(bits, grid) CALL(bits, grid, 1) CALL(bits, grid, 2)
#define GRIDS(bits) TOKENS(bits, TT_GRID_OFFSET) TOKENS(bits, TT_GRID_HALF) TOKENS(bits, TT_GRID_MIN)
        switch ((w->bits * 4 + (int)w->grid) * 2 + T - 1) { GRIDS(2) GRIDS(3) GRIDS(4) TOKENS(4, TT_GRID_TABLE) GRIDS(5) GRIDS(8) }
#undef CALL
#undef TOKENS
#undef GRIDS
    }
}

void tt__kernels_avx2_panel(tt_kernels *k) {
    k->panel_rowdot = panel_rowdot;
    k->panel_decode = panel_decode;
}
