/* Panels of 16-bit floats with vectors of either width: a vector is a column of 16 rows (or of 8), times an activation that is broadcast. No sum
 * crosses a register, nothing is rounded but the f32 sums: column c adds to chain c % CHAINS, the chains are added at the end, whatever
 * else the call computes. Panels are read front to back with lines asked for well ahead, as in panel_vnni.c.
 */
#ifndef TT_KERNELS_X86_FLOAT_PANEL_H
#define TT_KERNELS_X86_FLOAT_PANEL_H
#include "kernels/isa.h"
#include "kernels/x86/vec.h"

enum { ROWS = TT_PANEL_ROWS, PARTS = ROWS / VN, CHAINS = 4 / PARTS, MANY = VN == 16 ? 4 : 2, AHEAD = 2048 };   /* MANY: activations at a time */

INLINE const uint16_t *panel_at(const tt_panel *w, int64_t p, int64_t col) {
    return (const uint16_t *)(const void *)(w->codes + p * w->units * tt__panel_unit_bytes(16)) + col * ROWS;
}

/* Two neighbouring columns, the first even, of the rows of a part; v: where they lie. */
INLINE void two_columns(tt_panel_grid grid, const uint16_t *v, int part, vf out[2]) {
    if (grid == TT_GRID_F16) {
        out[0] = v_load_f16(v + VN * part);
        out[1] = v_load_f16(v + ROWS + VN * part);
        return;
    }
#ifdef __AVX512F__
    const __m512i pairs = _mm512_loadu_si512(v);
    out[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    out[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u)));
#else
    const __m256i pairs = _mm256_loadu_si256((const __m256i *)(const void *)(v + 2 * VN * part));
    out[0] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    out[1] = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000u)));
#endif
}

/* ---- products ---- */

INLINE void one_panel(tt_panel_grid grid, int T, const tt_panel *w, int64_t p, const float *x, int64_t ldx, float *y, int64_t ldy) {
    const uint16_t *v = panel_at(w, p, 0);
    vf acc[MANY][PARTS][CHAINS], two[2];
    for (int t = 0; t < T; t++)
        for (int i = 0; i < PARTS * CHAINS; i++) acc[t][i / CHAINS][i % CHAINS] = v_zero();
    int64_t c = 0;
    for (; c + 4 <= w->cols; c += 4, v += 4 * ROWS) {
        v_prefetch((const char *)v + AHEAD);
        v_prefetch((const char *)v + AHEAD + 64);
        for (int i = 0; i < 2; i++)
            for (int part = 0; part < PARTS; part++) {
                two_columns(grid, v + 2 * i * ROWS, part, two);
                for (int t = 0; t < T; t++)
                    for (int j = 0; j < 2; j++) {
                        vf *const a = &acc[t][part][(2 * i + j) % CHAINS];
                        *a = v_fma(two[j], v_set1(x[t * ldx + c + 2 * i + j]), *a);
                    }
            }
    }
    for (; c < w->cols; c += 2, v += 2 * ROWS)
        for (int part = 0; part < PARTS; part++) {
            two_columns(grid, v, part, two);
            for (int t = 0; t < T; t++)
                for (int j = 0; j < 2 && c + j < w->cols; j++) acc[t][part][(c + j) % CHAINS] = v_fma(two[j], v_set1(x[t * ldx + c + j]), acc[t][part][(c + j) % CHAINS]);
        }
    for (int t = 0; t < T; t++)
        for (int part = 0; part < PARTS; part++) {
            const int64_t at = ROWS * p + VN * part, rows = w->rows - at;
            vf *const a = acc[t][part], sum = CHAINS == 4 ? v_add(v_add(a[0], a[1]), v_add(a[2 % CHAINS], a[3 % CHAINS])) : v_add(a[0], a[1]);
            if (rows >= VN) v_store(y + t * ldy + at, sum);
            else if (rows > 0) v_store_n(y + t * ldy + at, sum, rows);
        }
}

INLINE void panels(tt_panel_grid grid, int T, const tt_panel *w, int64_t p0, int64_t p1, const float *x, int64_t ldx, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p++) one_panel(grid, T, w, p, x, ldx, y, ldy);
}

static void float_rowdot(const tt_panel *w, int64_t p0, int64_t p1, const float *x, int64_t ldx, int64_t T, float *y, int64_t ldy) {
    for (int64_t t = 0; t < T; t += MANY, x += MANY * ldx, y += MANY * ldy) {
#define CALL(grid, T) case (grid) * 4 + (T) - 1: panels(grid, T, w, p0, p1, x, ldx, y, ldy); break;
#define TOKENS(T) CALL(TT_GRID_F16, T) CALL(TT_GRID_BF16, T)
        switch ((int)w->grid * 4 + (T - t < MANY ? (int)(T - t) : MANY) - 1) {
            TOKENS(1) TOKENS(2)
#ifdef __AVX512F__
            TOKENS(3) TOKENS(4)
#endif
        }
#undef CALL
#undef TOKENS
    }
}

/* ---- decoding ---- */

INLINE void columns_of(tt_panel_grid grid, const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    const uint16_t *v = panel_at(w, p, c0);
    for (int64_t c = c0; c < c1; c += 2, v += 2 * ROWS, dst += 2 * ld)
        for (int part = 0; part < PARTS; part++) {
            vf two[2];
            two_columns(grid, v, part, two);
            v_store(dst + VN * part, two[0]);
            if (c + 1 < c1) v_store(dst + ld + VN * part, two[1]);
        }
}

static void float_columns(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    if (w->grid == TT_GRID_F16) columns_of(TT_GRID_F16, w, p, c0, c1, dst, ld);
    else columns_of(TT_GRID_BF16, w, p, c0, c1, dst, ld);
}

/* By way of columns that stay in L1: this serves look-ups of rows and gradients, batches read the columns. */
static void float_decode(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    enum { STRIP = 64 };
    float columns[STRIP][ROWS];
    const int64_t rows = w->rows - ROWS * p < ROWS ? w->rows - ROWS * p : ROWS;
    for (int64_t c = c0; c < c1; c += STRIP) {
        const int64_t n = c1 - c < STRIP ? c1 - c : STRIP;
        float_columns(w, p, c, c + n, columns[0], ROWS);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < n; i++) dst[r * ld + c - c0 + i] = columns[i][r];
    }
}
#endif
