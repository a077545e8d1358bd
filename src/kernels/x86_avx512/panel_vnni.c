/* Products of panels with rounded activations by vpdpbusd: one register is four columns of 16 rows, the activations of those columns are
 * broadcast, so no sum crosses a register.
 *
 * Codes are never shifted into place. A field that lies k bits up is 2^k times the code; fields of equal height share an accumulator, and
 * the accumulators of 32 columns are put together exactly:  lo + (hi >> 4).  The offset of the grid is where the first accumulator
 * starts: -2^(bits-1) Σx. Integers up to here, hence equal to the reference; then two float steps per 32 columns.
 *
 * Codes of five bits and of a table are put together as bytes first.
 *
 * With one activation a panel is read once, front to back, at the speed of memory: the loop asks for lines well ahead, over the end of the
 * panel into the next one, because the hardware stops at the borders of pages. Prefetches beyond the matrix are harmless.
 */
#include "kernels/isa.h"
#include "kernels/x86/vec.h"

enum { MANY = 4, AHEAD = 2048, SCALES_AHEAD = 512 };        /* activations at a time; bytes */

typedef struct tokens { const int8_t *q[MANY]; const float *d[MANY]; const int32_t *sum[MANY]; } tokens;

INLINE __m512i and8(__m512i v, int mask) { return _mm512_and_si512(v, _mm512_set1_epi8((char)mask)); }
INLINE __m512i quad(const int8_t *q, int k) {
    int32_t four;
    memcpy(&four, q + 4 * k, 4);
    return _mm512_set1_epi32(four);
}

/* Codes of quad k of 32 columns as bytes. */
INLINE __m512i whole_codes(int bits, tt_panel_grid grid, const uint8_t *v, int k) {
    const __m512i w = _mm512_load_si512(v + 64 * (k / 2)), low = and8(k % 2 ? _mm512_srli_epi16(w, 4) : w, 0x0f);
    if (grid == TT_GRID_TABLE) return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)tt__panel_table)), low);
    if (bits == 4) return low;
    const __m512i b = _mm512_load_si512(v + 256), fifth = k < 4 ? _mm512_slli_epi16(b, (unsigned)(4 - k)) : _mm512_srli_epi16(b, (unsigned)(k - 4));
    return _mm512_ternarylogic_epi32(low, fifth, _mm512_set1_epi8(16), 0xf8);           /* low | fifth & 16 */
}

/* s[t] += Σ code x over 32 columns; v: their vectors, col: where they begin. */
INLINE void dot32(int bits, tt_panel_grid grid, const uint8_t *v, const tokens *x, int64_t col, int T, __m512i s[MANY]) {
    __m512i a[MANY], b[MANY], c[MANY];
    for (int t = 0; t < T; t++) a[t] = b[t] = c[t] = _mm512_setzero_si512();
    if (bits == 8) {
        for (int j = 0; j < 8; j += 2) {
            const __m512i w0 = _mm512_load_si512(v + 64 * j), w1 = _mm512_load_si512(v + 64 * j + 64);
            for (int t = 0; t < T; t++) {
                s[t] = _mm512_dpbusd_epi32(s[t], w0, quad(x->q[t] + col, j));
                a[t] = _mm512_dpbusd_epi32(a[t], w1, quad(x->q[t] + col, j + 1));
            }
        }
        for (int t = 0; t < T; t++) s[t] = _mm512_add_epi32(s[t], a[t]);
    } else if (bits == 5 || grid == TT_GRID_TABLE) {
        for (int k = 0; k < 8; k += 2) {
            const __m512i w0 = whole_codes(bits, grid, v, k), w1 = whole_codes(bits, grid, v, k + 1);
            for (int t = 0; t < T; t++) {
                s[t] = _mm512_dpbusd_epi32(s[t], w0, quad(x->q[t] + col, k));
                a[t] = _mm512_dpbusd_epi32(a[t], w1, quad(x->q[t] + col, k + 1));
            }
        }
        for (int t = 0; t < T; t++) s[t] = _mm512_add_epi32(s[t], a[t]);
    } else if (bits == 4) {
        for (int j = 0; j < 4; j++) {
            const __m512i w = _mm512_load_si512(v + 64 * j), lo = and8(w, 0x0f), hi = and8(w, 0xf0);
            for (int t = 0; t < T; t++) {
                s[t] = _mm512_dpbusd_epi32(s[t], lo, quad(x->q[t] + col, 2 * j));
                a[t] = _mm512_dpbusd_epi32(a[t], hi, quad(x->q[t] + col, 2 * j + 1));
            }
        }
        for (int t = 0; t < T; t++) s[t] = _mm512_add_epi32(s[t], _mm512_srai_epi32(a[t], 4));
    } else if (bits == 2) {
        for (int j = 0; j < 2; j++) {
            const __m512i w = _mm512_load_si512(v + 64 * j), w0 = and8(w, 0x03), w1 = and8(w, 0x0c), w2 = and8(w, 0x30), w3 = and8(w, 0xc0);
            for (int t = 0; t < T; t++) {
                const int8_t *q = x->q[t] + col + 16 * j;
                s[t] = _mm512_dpbusd_epi32(s[t], w0, quad(q, 0));
                a[t] = _mm512_dpbusd_epi32(a[t], w1, quad(q, 1));
                b[t] = _mm512_dpbusd_epi32(b[t], w2, quad(q, 2));
                c[t] = _mm512_dpbusd_epi32(c[t], w3, quad(q, 3));
            }
        }
        for (int t = 0; t < T; t++)
            s[t] = _mm512_add_epi32(_mm512_add_epi32(s[t], _mm512_srai_epi32(a[t], 2)), _mm512_add_epi32(_mm512_srai_epi32(b[t], 4), _mm512_srai_epi32(c[t], 6)));
    } else {
        const __m512i A = _mm512_load_si512(v), B = _mm512_load_si512(v + 64), C = _mm512_load_si512(v + 128), top = _mm512_set1_epi8((char)0xc0);
        /* (top ? A : C >> 1) & e0 */
        const __m512i w6 = and8(_mm512_ternarylogic_epi32(top, A, _mm512_srli_epi16(C, 1), 0xca), 0xe0);
        const __m512i w7 = and8(_mm512_ternarylogic_epi32(top, B, _mm512_srli_epi16(C, 2), 0xca), 0xe0);
        const __m512i w0 = and8(A, 0x07), w1 = and8(B, 0x07), w2 = and8(C, 0x07), w3 = and8(A, 0x38), w4 = and8(B, 0x38), w5 = and8(C, 0x38);
        for (int t = 0; t < T; t++) {
            const int8_t *q = x->q[t] + col;
            s[t] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_dpbusd_epi32(s[t], w0, quad(q, 0)), w1, quad(q, 1)), w2, quad(q, 2));
            a[t] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_dpbusd_epi32(a[t], w3, quad(q, 3)), w4, quad(q, 4)), w5, quad(q, 5));
            b[t] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(b[t], w6, quad(q, 6)), w7, quad(q, 7));
            s[t] = _mm512_add_epi32(_mm512_add_epi32(s[t], _mm512_srai_epi32(a[t], 3)), _mm512_srai_epi32(b[t], 5));
        }
    }
}

INLINE void one_panel(int bits, tt_panel_grid grid, int T, int shift, const tt_panel *w, int64_t p, const tokens *x, float *y, int64_t ldy) {
    const uint8_t *v = w->codes + p * w->units * (128 * bits);
    const int middle = tt__panel_middle(grid, bits);
    const uint16_t *scales = w->scales + p * w->groups * 16, *mins = grid == TT_GRID_MIN ? w->mins + p * w->groups * 16 : scales;
    vf acc[MANY];
    for (int t = 0; t < T; t++) acc[t] = v_zero();
    for (int64_t b = 0; b < 2 * w->units; b++, v += 64 * bits) {
        for (int i = 0; i < bits; i++) _mm_prefetch((const char *)(v + 64 * i + AHEAD), _MM_HINT_T0);
        const uint16_t *scale = scales + (b >> shift) * 16;
        const __m256i h = _mm256_load_si256((const __m256i *)scale);
        if (b % 2 == 0) _mm_prefetch((const char *)scale + SCALES_AHEAD, _MM_HINT_T0);
        __m512i s[MANY];
        for (int t = 0; t < T; t++) {
            const __m512i sum = _mm512_set1_epi32(x->sum[t][b]);
            s[t] = middle < 0 ? _mm512_setzero_si512() : _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum, (unsigned)middle));
        }
        dot32(bits, grid, v, x, 32 * b, T, s);
        vf d = _mm512_cvtph_ps(grid == TT_GRID_HALF ? _mm256_and_si256(h, _mm256_set1_epi16(0x7fff)) : h);
        if (grid == TT_GRID_HALF) {
            const __mmask16 half = _mm256_movepi16_mask(h);
            d = v_mul(d, v_set1(0.5f));
            for (int t = 0; t < T; t++) {
                const __m512i twice = _mm512_slli_epi32(s[t], 1);
                s[t] = _mm512_mask_add_epi32(twice, half, twice, _mm512_set1_epi32(x->sum[t][b]));
            }
        }
        for (int t = 0; t < T; t++) acc[t] = v_fma(v_mul(d, v_set1(x->d[t][b])), _mm512_cvtepi32_ps(s[t]), acc[t]);
        if (grid == TT_GRID_MIN) {
            const vf m = v_load_f16(mins + (b >> shift) * 16);
            if (b % 2 == 0) _mm_prefetch((const char *)(mins + (b >> shift) * 16) + SCALES_AHEAD, _MM_HINT_T0);
            for (int t = 0; t < T; t++) acc[t] = v_fma(m, v_set1(x->d[t][b] * (float)x->sum[t][b]), acc[t]);
        }
    }
    const int64_t rows = w->rows - 16 * p;
    for (int t = 0; t < T; t++) {
        if (rows >= 16) v_store(y + t * ldy + 16 * p, acc[t]);
        else v_store_n(y + t * ldy + 16 * p, acc[t], rows);
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
#define CALL(bits, grid, T) case ((bits) * 4 + (grid)) * 4 + (T) - 1: panels(bits, grid, T, w, p0, p1, &xt, yt, ldy); break;
#define TOKENS(bits, grid) CALL(bits, grid, 1) CALL(bits, grid, 2) CALL(bits, grid, 3) CALL(bits, grid, 4)
#define GRIDS(bits) TOKENS(bits, TT_GRID_OFFSET) TOKENS(bits, TT_GRID_HALF) TOKENS(bits, TT_GRID_MIN)
        switch ((w->bits * 4 + (int)w->grid) * 4 + T - 1) { GRIDS(2) GRIDS(3) GRIDS(4) TOKENS(4, TT_GRID_TABLE) GRIDS(5) GRIDS(8) }
#undef CALL
#undef TOKENS
#undef GRIDS
    }
}

void tt__kernels_avx512_panel_vnni(tt_kernels *k) { k->panel_rowdot = panel_rowdot; }
