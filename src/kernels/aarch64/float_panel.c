/* Panels of 16-bit floats: a register is a column of four rows, times an activation that is broadcast; sums in f32, two chains of columns.
 * Without the bf16 instructions, which would round the activations.
 */
#include "kernels/aarch64/vec.h"
#include "kernels/isa.h"

enum { ROWS = TT_PANEL_ROWS, PARTS = ROWS / VN, AHEAD = 2048 };

INLINE const uint16_t *panel_at(const tt_panel *w, int64_t p, int64_t col) {
    return (const uint16_t *)(const void *)(w->codes + p * w->units * tt__panel_unit_bytes(16)) + col * ROWS;
}

/* Column c (its parity decides the half of a pair) of the rows of a part; v: where the pair of columns lies. */
INLINE vf column(tt_panel_grid grid, const uint16_t *v, int odd, int part) {
    if (grid == TT_GRID_F16) return v_load_f16(v + ROWS * odd + VN * part);
    const uint32x4_t pairs = vreinterpretq_u32_u16(vld1q_u16(v + 2 * VN * part));
    return vreinterpretq_f32_u32(odd ? vandq_u32(pairs, vdupq_n_u32(0xffff0000u)) : vshlq_n_u32(pairs, 16));
}

INLINE void one_panel(tt_panel_grid grid, const tt_panel *w, int64_t p, const float *x, float *y) {
    const uint16_t *v = panel_at(w, p, 0);
    vf acc[PARTS][2];
    for (int part = 0; part < PARTS; part++) acc[part][0] = acc[part][1] = v_zero();
    for (int64_t c = 0; c < w->cols; c += 2, v += 2 * ROWS) {
        v_prefetch((const char *)v + AHEAD);
        for (int odd = 0; odd < 2 && c + odd < w->cols; odd++)
            for (int part = 0; part < PARTS; part++) acc[part][odd] = v_fma(column(grid, v, odd, part), v_set1(x[c + odd]), acc[part][odd]);
    }
    for (int part = 0; part < PARTS; part++) {
        const int64_t at = ROWS * p + VN * part;
        if (at < w->rows) v_store_n(y + at, v_add(acc[part][0], acc[part][1]), w->rows - at);
    }
}

static void float_rowdot(const tt_panel *w, int64_t p0, int64_t p1, const float *x, int64_t ldx, int64_t T, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p++)
        for (int64_t t = 0; t < T; t++) {
            if (w->grid == TT_GRID_F16) one_panel(TT_GRID_F16, w, p, x + t * ldx, y + t * ldy);
            else one_panel(TT_GRID_BF16, w, p, x + t * ldx, y + t * ldy);
        }
}

static void float_columns(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    for (int64_t c = c0; c < c1; c++, dst += ld)
        for (int part = 0; part < PARTS; part++) v_store(dst + VN * part, column(w->grid, panel_at(w, p, c & ~1ll), (int)(c & 1), part));
}

static void float_decode(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    const int64_t rows = w->rows - ROWS * p < ROWS ? w->rows - ROWS * p : ROWS;
    for (int64_t c = c0; c < c1; c++) {
        float one[ROWS];
        float_columns(w, p, c, c + 1, one, ROWS);
        for (int64_t r = 0; r < rows; r++) dst[r * ld + c - c0] = one[r];
    }
}

void tt__kernels_neon_float_panel(tt_kernels *k) {
    k->float_rowdot = float_rowdot;
    k->float_decode = float_decode;
    k->float_columns = float_columns;
}
