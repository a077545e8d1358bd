/* Panels against few activations: the body of panel.c and panel_dotprod.c, each compiled with its own flags. */
#include "kernels/aarch64/panel.h"

enum { PARTS = ROWS / 4, MANY = 2, AHEAD = 2048, SCALES_AHEAD = 512 };     /* a part: the rows of a register; activations at a time; bytes */

typedef struct tokens { const int8_t *q[MANY]; const float *d[MANY]; const int32_t *sum[MANY]; } tokens;

/* s[t] += Σ code x over 32 columns of a part; v: its registers from the right half of the unit on. */
INLINE void dot32(int bits, tt_panel_grid grid, const uint8_t *v, const tokens *x, int64_t col, int T, int32x4_t s[MANY]) {
    quads a[MANY];
    for (int t = 0; t < T; t++) a[t] = quads_zero();
#define QUAD(i, lane)                                                                                                     \
    {                                                                                                                     \
        const int8x16_t w = signed_codes(bits, grid, v, 4 * (i) + (lane));                                                \
        for (int t = 0; t < T; t++) a[t] = QUADS_ADD(a[t], w, vld1q_s8(x->q[t] + col + 16 * (i)), lane);                  \
    }
#define WIDEN if (code_offset(bits, grid)) for (int t = 0; t < T; t++) s[t] = vaddq_s32(s[t], quads_sum(a[t])), a[t] = quads_zero();
    QUAD(0, 0) QUAD(0, 1) WIDEN QUAD(0, 2) QUAD(0, 3) WIDEN QUAD(1, 0) QUAD(1, 1) WIDEN QUAD(1, 2) QUAD(1, 3)
#undef QUAD
#undef WIDEN
    for (int t = 0; t < T; t++) s[t] = vaddq_s32(s[t], quads_sum(a[t]));
}

/* 32 columns of part i into acc. */
INLINE void step(int bits, tt_panel_grid grid, int T, const uint8_t *v, const uint16_t *scale, const uint16_t *min, const tokens *x, int64_t b, int i,
                 vf acc[PARTS][MANY]) {
    const uint16x4_t h = vld1_u16(scale + 4 * i);
    const int missing = code_offset(bits, grid) - middle_of(grid, bits);
    int32x4_t s[MANY];
    for (int t = 0; t < T; t++) s[t] = missing ? vdupq_n_s32(missing * x->sum[t][b]) : zero32();
    dot32(bits, grid, v + 16 * i, x, 32 * b, T, s);
    vf d = f16_bits(grid == TT_GRID_HALF ? vand_u16(h, vdup_n_u16(0x7fff)) : h);
    if (grid == TT_GRID_HALF) {
        const int32x4_t half = vmovl_s16(vshr_n_s16(vreinterpret_s16_u16(h), 15));
        d = v_mul(d, v_set1(0.5f));
        for (int t = 0; t < T; t++) s[t] = vaddq_s32(vaddq_s32(s[t], s[t]), vandq_s32(half, vdupq_n_s32(x->sum[t][b])));
    }
    for (int t = 0; t < T; t++) acc[i][t] = v_fma(v_mul(d, v_set1(x->d[t][b])), vcvtq_f32_s32(s[t]), acc[i][t]);
    if (grid == TT_GRID_MIN)
        for (int t = 0; t < T; t++) acc[i][t] = v_fma(v_load_f16(min + 4 * i), v_set1(x->d[t][b] * (float)x->sum[t][b]), acc[i][t]);
}

INLINE void one_panel(int bits, tt_panel_grid grid, int T, int shift, const tt_panel *w, int64_t p, const tokens *x, float *y, int64_t ldy) {
    const uint8_t *v = w->codes + p * w->units * (128 * bits);
    const uint16_t *scales = w->scales + p * w->groups * ROWS, *mins = grid == TT_GRID_MIN ? w->mins + p * w->groups * ROWS : scales;
    vf acc[PARTS][MANY];
    for (int i = 0; i < PARTS; i++)
        for (int t = 0; t < T; t++) acc[i][t] = v_zero();
    for (int64_t b = 0; b < 2 * w->units; b++, v += 64 * bits) {
        const int64_t at = (b >> shift) * ROWS;
        for (int i = 0; i < bits; i++) v_prefetch(v + 64 * i + AHEAD);
        if (b % 2 == 0) v_prefetch((const char *)(scales + at) + SCALES_AHEAD);
        if (grid == TT_GRID_MIN && b % 2 == 0) v_prefetch((const char *)(mins + at) + SCALES_AHEAD);
        for (int i = 0; i < PARTS; i++) step(bits, grid, T, v, scales + at, mins + at, x, b, i, acc);
    }
    for (int t = 0; t < T; t++)
        for (int i = 0; i < PARTS; i++) store_rows(y + t * ldy + ROWS * p + 4 * i, acc[i][t], w->rows - ROWS * p - 4 * i);
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
