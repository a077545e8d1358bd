/* Panels with small scales, with 256-bit vectors: decoding, and products by vpmaddubsw (panel.c has the idea). A vector of a panel is two
 * registers of 8 rows. Sums of 16 columns run in 16 bits: 8 * 63 * 127 does not fit as one pair sum of 2 * 63 * 127 = 16002 and four columns
 * more, so two registers of codes are added, 4 * 63 * 128 = 32256, and widened.
 */
#include "kernels/isa.h"
#include "kernels/x86/vec.h"

enum { MANY = 2, AHEAD = 2048, SUBS_AHEAD = 512 };          /* activations at a time; bytes */

typedef struct tokens { const int8_t *q[MANY]; const float *d[MANY]; const int32_t *sum[MANY]; } tokens;

INLINE __m256i load(const uint8_t *p) { return _mm256_load_si256((const __m256i *)p); }
INLINE __m256i widen(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
INLINE __m256i bits8(__m256i v, int shift, int mask) {
    const __m256i at = shift > 0 ? _mm256_srli_epi16(v, shift) : shift < 0 ? _mm256_slli_epi16(v, -shift) : v;
    return _mm256_and_si256(at, _mm256_set1_epi8((char)mask));
}
INLINE __m256i quad(const int8_t *q, int k) {
    int32_t four;
    memcpy(&four, q + 4 * k, 4);
    return _mm256_set1_epi32(four);
}

/* Codes of columns 4 k … 4 k + 3 of half h of a unit; `unit` already points at the 8 rows. */
INLINE __m256i code(int bits, const uint8_t *unit, int h, int k) {
    if (bits == 3) {
        const uint8_t *a = unit + 192 * h;
        if (k < 6) return bits8(load(a + 64 * (k % 3)), k / 3 * 3, 7);
        return _mm256_or_si256(bits8(load(a + 64 * (k - 6)), 5, 6), bits8(load(a + 128), k, 1));
    }
    if (bits == 2) return bits8(load(unit + 128 * h + 64 * (k / 4)), k % 4 * 2, 3);
    const uint8_t *half = unit + 64 * bits * h;
    const __m256i low = bits8(load(half + 64 * (k / 2)), k % 2 * 4, 15);
    if (bits == 5) return _mm256_or_si256(low, bits8(load(half + 256), k - 4, 16));
    if (bits == 6) return _mm256_or_si256(low, bits8(load(half + 256 + 64 * (k / 4)), k % 4 * 2 - 4, 48));
    return low;
}

/* Σx of each 16 of 32 columns, four lanes each. */
INLINE __m256i sums16(const int8_t *q) {
    __m256i s = widen(_mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_loadu_si256((const __m256i *)q)));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
    return s;
}

INLINE __m256i dot16(const __m256i c[4], const int8_t *q) {
    const __m256i a = _mm256_add_epi16(_mm256_maddubs_epi16(c[0], quad(q, 0)), _mm256_maddubs_epi16(c[1], quad(q, 1)));
    const __m256i b = _mm256_add_epi16(_mm256_maddubs_epi16(c[2], quad(q, 2)), _mm256_maddubs_epi16(c[3], quad(q, 3)));
    return _mm256_add_epi32(widen(a), widen(b));
}

/* 32 columns, block b, of rows 8 i … 8 i + 7. */
INLINE void step(int bits, tt_panel_grid grid, int T, const uint8_t *unit, int h, const uint8_t *sub, vf d, vf m, const __m256i sum16[MANY], const tokens *x, int64_t b,
                 vf acc[MANY]) {
    __m256i c[8];
    for (int k = 0; k < 8; k++) c[k] = code(bits, unit, h, k);
    const __m128i first = _mm_loadl_epi64((const __m128i *)sub), second = _mm_loadl_epi64((const __m128i *)(sub + 16));
    const __m256i s = grid == TT_GRID_SINGLE ? _mm256_cvtepi8_epi32(first) : _mm256_cvtepu8_epi32(first);
    const __m256i other = grid == TT_GRID_SINGLE ? _mm256_cvtepi8_epi32(second) : _mm256_cvtepu8_epi32(second);
    for (int t = 0; t < T; t++) {
        const int8_t *q = x->q[t] + 32 * b;
        __m256i s0 = dot16(c, q), s1 = dot16(c + 4, q + 16);
        if (grid == TT_GRID_PAIR) s0 = _mm256_mullo_epi32(s, _mm256_add_epi32(s0, s1));
        else {
            const __m256i x0 = _mm256_permute2x128_si256(sum16[t], sum16[t], 0x00), x1 = _mm256_permute2x128_si256(sum16[t], sum16[t], 0x11);
            if (grid == TT_GRID_NIBBLES) {
                const __m256i nibble = _mm256_set1_epi32(15);
                const __m256i less = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32(s, 4), x0), _mm256_mullo_epi32(_mm256_srli_epi32(other, 4), x1));
                acc[t] = _mm256_fnmadd_ps(v_mul(m, v_set1(x->d[t][b])), _mm256_cvtepi32_ps(less), acc[t]);
                s0 = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_and_si256(s, nibble), s0), _mm256_mullo_epi32(_mm256_and_si256(other, nibble), s1));
            } else {
                s0 = _mm256_mullo_epi32(s, _mm256_sub_epi32(s0, _mm256_slli_epi32(x0, bits - 1)));
                s1 = _mm256_mullo_epi32(other, _mm256_sub_epi32(s1, _mm256_slli_epi32(x1, bits - 1)));
                s0 = _mm256_add_epi32(s0, s1);
            }
        }
        acc[t] = v_fma(v_mul(d, v_set1(x->d[t][b])), _mm256_cvtepi32_ps(s0), acc[t]);
        if (grid == TT_GRID_PAIR) acc[t] = _mm256_fnmadd_ps(v_mul(m, _mm256_cvtepi32_ps(other)), v_set1(x->d[t][b] * (float)x->sum[t][b]), acc[t]);
    }
}

INLINE void one_panel(int bits, tt_panel_grid grid, int T, const tt_panel *w, int64_t p, const tokens *x, float *y, int64_t ldy) {
    const uint8_t *v = w->codes + p * w->units * (128 * bits), *sub = w->subs + p * w->units * 64;
    vf acc[2][MANY];
    for (int t = 0; t < T; t++) acc[0][t] = acc[1][t] = v_zero();
    for (int64_t g = 0; g < w->groups; g++) {
        const int64_t at = (p * w->groups + g) * 16;
        vf d[2], m[2] = {v_zero(), v_zero()};
        for (int i = 0; i < 2; i++) {
            d[i] = v_load_f16(w->scales + at + 8 * i);
            if (grid != TT_GRID_SINGLE) m[i] = v_load_f16(w->mins + at + 8 * i);
        }
        for (int64_t b = 8 * g; b < 8 * g + 8; b++, sub += 32) {
            const int h = (int)(b % 2);
            __m256i sum16[MANY];
            for (int i = 0; i < bits; i++) _mm_prefetch((const char *)(v + 64 * (i + h * bits) + AHEAD), _MM_HINT_T0);
            if (!h) _mm_prefetch((const char *)sub + SUBS_AHEAD, _MM_HINT_T0);
            if (grid != TT_GRID_PAIR)
                for (int t = 0; t < T; t++) sum16[t] = sums16(x->q[t] + 32 * b);
            for (int i = 0; i < 2; i++) step(bits, grid, T, v + 32 * i, h, sub + 8 * i, d[i], m[i], sum16, x, b, acc[i]);
            v += h ? 128 * bits : 0;
        }
    }
    for (int t = 0; t < T; t++)
        for (int i = 0; i < 2; i++) {
            const int64_t rows = w->rows - 16 * p - 8 * i;
            if (rows >= 8) v_store(y + t * ldy + 16 * p + 8 * i, acc[i][t]);
            else if (rows > 0) v_store_n(y + t * ldy + 16 * p + 8 * i, acc[i][t], rows);
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
#define CALL(bits, grid, T) case (bits) * 2 + (T) - 1: panels(bits, grid, T, w, p0, p1, &xt, yt, ldy); break;
#define TOKENS(bits, grid) CALL(bits, grid, 1) CALL(bits, grid, 2)
        switch (w->bits * 2 + T - 1) { TOKENS(2, TT_GRID_NIBBLES) TOKENS(3, TT_GRID_SINGLE) TOKENS(4, TT_GRID_PAIR) TOKENS(5, TT_GRID_PAIR) TOKENS(6, TT_GRID_SINGLE) }
#undef CALL
#undef TOKENS
    }
}

/* 16 columns of a row: (d s) (q - offset) - m t. */
INLINE void decode16(const uint8_t *q, float ds, int offset, float less, float *dst) {
    for (int i = 0; i < 16; i += 8) {
        const __m256i c = _mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(q + i))), _mm256_set1_epi32(offset));
        v_store(dst + i, v_fma(v_set1(ds), _mm256_cvtepi32_ps(c), v_set1(less)));
    }
}

static void super_decode(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    uint8_t codes[16][64];
    const int64_t rows = w->rows - 16 * p < 16 ? w->rows - 16 * p : 16;
    const int single = w->grid == TT_GRID_SINGLE, offset = single ? 1 << (w->bits - 1) : 0;
    for (int64_t c = c0; c < c1; c += 64) {
        const int64_t at = (p * w->groups + c / 256) * 16;
        const uint8_t *sub = w->subs + (p * w->units + c / 64) * 64;
        tt__panel_unpack(w->bits, w->codes + (p * w->units + c / 64) * tt__panel_unit_bytes(w->bits), codes[0]);
        for (int64_t r = 0; r < rows; r++) {
            const float d = _cvtsh_ss(w->scales[at + r]), m = single ? 0.0f : _cvtsh_ss(w->mins[at + r]);
            for (int i = 0; i < 4; i++) {
                const uint8_t *s = sub + i / 2 * 32 + r;
                const int own = s[i % 2 * 16], scale = single ? (int8_t)own : w->grid == TT_GRID_PAIR ? s[0] : own & 15, min = w->grid == TT_GRID_PAIR ? s[16] : own >> 4;
                decode16(&codes[r][16 * i], d * (float)scale, offset, single ? 0.0f : -m * (float)min, dst + r * ld + c - c0 + 16 * i);
            }
        }
    }
}

void tt__kernels_avx2_super(tt_kernels *k) {
    k->super_rowdot = super_rowdot;
    k->super_decode = super_decode;
}
