/* Products of panels with small scales by vpdpbusd. As panel_vnni.c: one register is four columns of 16 rows, their activations are broadcast.
 *
 * Integers run over 32 columns: the sums of 16 columns times their small scale (vpmulld), or the sum of 32 times theirs; then one float
 * step with d of the 256 columns. The offset of signed codes starts a sum at -2^(bits-1) Σx of its 16 columns, which four registers of
 * the unit's activations give at once; the minima of sixteen columns are taken times the same sums.
 */
#include "kernels/isa.h"
#include "kernels/x86/vec.h"

enum { MANY = 4, AHEAD = 2048, SUBS_AHEAD = 512 };          /* activations at a time; bytes */

typedef struct tokens { const int8_t *q[MANY]; const float *d[MANY]; const int32_t *sum[MANY]; } tokens;

INLINE __m512i bits8(__m512i v, int shift, int mask) {
    const __m512i at = shift > 0 ? _mm512_srli_epi16(v, (unsigned)shift) : shift < 0 ? _mm512_slli_epi16(v, (unsigned)-shift) : v;
    return _mm512_and_si512(at, _mm512_set1_epi8((char)mask));
}
INLINE __m512i quad(const int8_t *q, int k) {
    int32_t four;
    memcpy(&four, q + 4 * k, 4);
    return _mm512_set1_epi32(four);
}

/* Codes of columns 4 k … 4 k + 3 of half h of a unit. */
INLINE __m512i code(int bits, const uint8_t *unit, int h, int k) {
    if (bits == 3) {
        const uint8_t *a = unit + 192 * h;
        if (k < 6) return bits8(_mm512_load_si512(a + 64 * (k % 3)), k / 3 * 3, 7);
        return _mm512_or_si512(bits8(_mm512_load_si512(a + 64 * (k - 6)), 5, 6), bits8(_mm512_load_si512(a + 128), k, 1));
    }
    if (bits == 2) return bits8(_mm512_load_si512(unit + 128 * h + 64 * (k / 4)), k % 4 * 2, 3);
    const uint8_t *half = unit + 64 * bits * h;
    const __m512i low = bits8(_mm512_load_si512(half + 64 * (k / 2)), k % 2 * 4, 15);
    if (bits == 5) return _mm512_or_si512(low, bits8(_mm512_load_si512(half + 256), k - 4, 16));
    if (bits == 6) return _mm512_or_si512(low, bits8(_mm512_load_si512(half + 256 + 64 * (k / 4)), k % 4 * 2 - 4, 48));
    return low;
}

/* Σx of each 16 of 64 columns, four lanes each. */
INLINE __m512i sums16(const int8_t *q) {
    __m512i s = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_loadu_si512(q));
    s = _mm512_add_epi32(s, _mm512_shuffle_epi32(s, _MM_PERM_CDAB));
    s = _mm512_add_epi32(s, _mm512_shuffle_epi32(s, _MM_PERM_BADC));
    return s;
}

INLINE __m512i dot16(const __m512i c[4], const int8_t *q, __m512i s) {
    for (int k = 0; k < 4; k++) s = _mm512_dpbusd_epi32(s, c[k], quad(q, k));
    return s;
}

/* Half h of a unit; b: its number among the blocks of 32. */
INLINE void step(int bits, tt_panel_grid grid, int T, const uint8_t *unit, int h, const uint8_t *sub, vf d, vf m, const __m512i sum16[MANY], const tokens *x, int64_t b,
                 vf acc[MANY]) {
    __m512i c[8];
    for (int k = 0; k < 8; k++) c[k] = code(bits, unit, h, k);
    const __m128i first = _mm_load_si128((const __m128i *)sub), second = _mm_load_si128((const __m128i *)(sub + 16));
    const __m512i s = grid == TT_GRID_SINGLE ? _mm512_cvtepi8_epi32(first) : _mm512_cvtepu8_epi32(first);
    const __m512i other = grid == TT_GRID_SINGLE ? _mm512_cvtepi8_epi32(second) : _mm512_cvtepu8_epi32(second);
    for (int t = 0; t < T; t++) {
        const int8_t *q = x->q[t] + 32 * b;
        const vf dx = v_set1(x->d[t][b]);
        __m512i sum;
        if (grid == TT_GRID_PAIR) {
            const __m512i zero = _mm512_setzero_si512();
            sum = _mm512_mullo_epi32(s, _mm512_add_epi32(dot16(c, q, zero), dot16(c + 4, q + 16, zero)));
        } else {
            const __m512i x0 = _mm512_permutexvar_epi32(_mm512_set1_epi32(8 * h), sum16[t]), x1 = _mm512_permutexvar_epi32(_mm512_set1_epi32(8 * h + 4), sum16[t]);
            if (grid == TT_GRID_NIBBLES) {
                const __m512i nibble = _mm512_set1_epi32(15), s0 = dot16(c, q, _mm512_setzero_si512()), s1 = dot16(c + 4, q + 16, _mm512_setzero_si512());
                sum = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_and_si512(s, nibble), s0), _mm512_mullo_epi32(_mm512_and_si512(other, nibble), s1));
                const __m512i less = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(s, 4), x0), _mm512_mullo_epi32(_mm512_srli_epi32(other, 4), x1));
                acc[t] = _mm512_fnmadd_ps(v_mul(m, dx), _mm512_cvtepi32_ps(less), acc[t]);
            } else {
                const __m512i zero = _mm512_setzero_si512();
                const __m512i s0 = dot16(c, q, _mm512_sub_epi32(zero, _mm512_slli_epi32(x0, (unsigned)(bits - 1))));
                const __m512i s1 = dot16(c + 4, q + 16, _mm512_sub_epi32(zero, _mm512_slli_epi32(x1, (unsigned)(bits - 1))));
                sum = _mm512_add_epi32(_mm512_mullo_epi32(s, s0), _mm512_mullo_epi32(other, s1));
            }
        }
        acc[t] = v_fma(v_mul(d, dx), _mm512_cvtepi32_ps(sum), acc[t]);
        if (grid == TT_GRID_PAIR) acc[t] = _mm512_fnmadd_ps(v_mul(m, _mm512_cvtepi32_ps(other)), v_set1(x->d[t][b] * (float)x->sum[t][b]), acc[t]);
    }
}

INLINE void one_panel(int bits, tt_panel_grid grid, int T, const tt_panel *w, int64_t p, const tokens *x, float *y, int64_t ldy) {
    const uint8_t *v = w->codes + p * w->units * (128 * bits), *sub = w->subs + p * w->units * 64;
    vf acc[MANY], m = v_zero();
    for (int t = 0; t < T; t++) acc[t] = v_zero();
    for (int64_t g = 0; g < w->groups; g++) {
        const int64_t at = (p * w->groups + g) * 16;
        const vf d = v_load_f16(w->scales + at);
        if (grid != TT_GRID_SINGLE) m = v_load_f16(w->mins + at);
        for (int64_t u = 4 * g; u < 4 * g + 4; u++, v += 128 * bits, sub += 64) {
            __m512i sum16[MANY];
            for (int i = 0; i < 2 * bits; i++) _mm_prefetch((const char *)(v + 64 * i + AHEAD), _MM_HINT_T0);
            _mm_prefetch((const char *)sub + SUBS_AHEAD, _MM_HINT_T0);
            if (grid != TT_GRID_PAIR)
                for (int t = 0; t < T; t++) sum16[t] = sums16(x->q[t] + 64 * u);
            step(bits, grid, T, v, 0, sub, d, m, sum16, x, 2 * u, acc);
            step(bits, grid, T, v, 1, sub + 32, d, m, sum16, x, 2 * u + 1, acc);
        }
    }
    const int64_t rows = w->rows - 16 * p;
    for (int t = 0; t < T; t++) {
        if (rows >= 16) v_store(y + t * ldy + 16 * p, acc[t]);
        else v_store_n(y + t * ldy + 16 * p, acc[t], rows);
    }
}

INLINE void panels(int bits, tt_panel_grid grid, int T, const tt_panel *w, int64_t p0, int64_t p1, const tokens *x, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p++) one_panel(bits, grid, T, w, p, x, y, ldy);
}

static void super_rowdot(const tt_panel *w, int64_t p0, int64_t p1, const tt_q8 *x, float *y, int64_t ldy) {
    for (int64_t t0 = 0; t0 < x->T; t0 += MANY) {
        const int T = x->T - t0 < MANY ? (int)(x->T - t0) : MANY;
        tokens xt;
        for (int t = 0; t < T; t++) {
            xt.q[t] = x->q + (t0 + t) * x->n_pad;
            xt.d[t] = x->d + (t0 + t) * x->blocks;
            xt.sum[t] = x->sum + (t0 + t) * x->blocks;
        }
        float *yt = y + t0 * ldy;
#define CALL(bits, grid, T) case (bits) * 4 + (T) - 1: panels(bits, grid, T, w, p0, p1, &xt, yt, ldy); break;
#define TOKENS(bits, grid) CALL(bits, grid, 1) CALL(bits, grid, 2) CALL(bits, grid, 3) CALL(bits, grid, 4)
        switch (w->bits * 4 + T - 1) { TOKENS(2, TT_GRID_NIBBLES) TOKENS(3, TT_GRID_SINGLE) TOKENS(4, TT_GRID_PAIR) TOKENS(5, TT_GRID_PAIR) TOKENS(6, TT_GRID_SINGLE) }
#undef CALL
#undef TOKENS
    }
}

void tt__kernels_avx512_super_vnni(tt_kernels *k) { k->super_rowdot = super_rowdot; }
