/* Panels of 16 rows: the definitions. Layout: kernels/panel.h. */
#include "kernels/half.h"
#include "kernels/isa.h"

/* A weight is d * (q + offset) + m: one rounding of an exact product, and a zero is +0. */
typedef struct grid { float d, offset, m; } grid;

static grid grid_of(const tt_panel *w, int64_t p, int row, int64_t col) {
    const int64_t at = (p * w->groups + col / w->group) * TT_PANEL_ROWS + row;
    const uint16_t scale = w->scales[at];
    if (w->grid == TT_GRID_MIN) return (grid){half_to_f32(scale), 0.0f, half_to_f32(w->mins[at])};
    const float middle = (float)(1 << tt__panel_middle(w->grid, w->bits));
    if (w->grid != TT_GRID_HALF) return (grid){half_to_f32(scale), -middle, 0.0f};
    return (grid){half_to_f32(scale & 0x7fffu), scale & 0x8000u ? 0.5f - middle : -middle, 0.0f};
}

/* 32 columns of a row against a block of activations: dx * (d * Σ (2 q + 2 offset) x / 2 + m * Σ x), the sums in integers. */
static float dot_block(const uint8_t *codes, grid g, const int8_t *x, float dx, int32_t sum) {
    const int twice = (int)(2.0f * g.offset);
    int32_t s = 0;
    for (int i = 0; i < 32; i++) s += (2 * codes[i] + twice) * x[i];
    return dx * (g.d * (0.5f * (float)s) + g.m * (float)sum);
}

static void panel_rowdot(const tt_panel *w, int64_t p0, int64_t p1, const tt_q8 *x, float *y, int64_t ldy) {
    uint8_t codes[TT_PANEL_ROWS][TT_PANEL_UNIT];
    for (int64_t p = p0; p < p1; p++) {
        const int64_t r0 = p * TT_PANEL_ROWS, rows = w->rows - r0 < TT_PANEL_ROWS ? w->rows - r0 : TT_PANEL_ROWS;
        for (int64_t t = 0; t < x->T; t++)
            for (int r = 0; r < rows; r++) y[t * ldy + r0 + r] = 0.0f;
        for (int64_t u = 0; u < w->units; u++) {
            tt__panel_codes(w, p, u, codes[0]);
            for (int64_t t = 0; t < x->T; t++)
                for (int r = 0; r < rows; r++)
                    for (int64_t i = 0; i < TT_PANEL_UNIT; i += 32) {
                        const int64_t col = u * TT_PANEL_UNIT + i, b = t * x->blocks + col / 32;
                        y[t * ldy + r0 + r] += dot_block(codes[r] + i, grid_of(w, p, r, col), x->q + t * x->n_pad + col, x->d[b], x->sum[b]);
                    }
        }
    }
}

static void panel_decode(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    uint8_t codes[TT_PANEL_ROWS][TT_PANEL_UNIT];
    const int64_t r0 = p * TT_PANEL_ROWS, rows = w->rows - r0 < TT_PANEL_ROWS ? w->rows - r0 : TT_PANEL_ROWS;
    for (int64_t c = c0; c < c1; c += TT_PANEL_UNIT) {
        tt__panel_codes(w, p, c / TT_PANEL_UNIT, codes[0]);
        for (int r = 0; r < rows; r++)
            for (int64_t i = 0; i < TT_PANEL_UNIT && c + i < c1; i++) {
                const grid g = grid_of(w, p, r, c + i);
                dst[r * ld + c - c0 + i] = g.d * ((float)codes[r][i] + g.offset) + g.m;
            }
    }
}

void tt__kernels_ref_panel(tt_kernels *k) {
    k->panel_rowdot = panel_rowdot;
    k->panel_decode = panel_decode;
}
