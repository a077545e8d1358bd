/* Panels of 16-bit floats: the definitions. Layout: kernels/panel.h. */
#include "kernels/half.h"
#include "kernels/isa.h"

static float weight(const tt_panel *w, int64_t p, int64_t row, int64_t col) {
    const uint16_t *panel = (const uint16_t *)(const void *)(w->codes + p * w->units * tt__panel_unit_bytes(16));
    if (w->grid == TT_GRID_BF16) return bf16_bits_to_f32(panel[(col / 2 * TT_PANEL_ROWS + row) * 2 + col % 2]);
    return half_to_f32(panel[col * TT_PANEL_ROWS + row]);
}

static void float_rowdot(const tt_panel *w, int64_t p0, int64_t p1, const float *x, int64_t ldx, int64_t T, float *y, int64_t ldy) {
    for (int64_t r = p0 * TT_PANEL_ROWS; r < p1 * TT_PANEL_ROWS && r < w->rows; r++)
        for (int64_t t = 0; t < T; t++) {
            float sum = 0.0f;
            for (int64_t c = 0; c < w->cols; c++) sum += weight(w, r / TT_PANEL_ROWS, r % TT_PANEL_ROWS, c) * x[t * ldx + c];
            y[t * ldy + r] = sum;
        }
}

static void float_decode(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    for (int64_t r = 0; r < TT_PANEL_ROWS && p * TT_PANEL_ROWS + r < w->rows; r++)
        for (int64_t c = c0; c < c1; c++) dst[r * ld + c - c0] = weight(w, p, r, c);
}

static void float_columns(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    for (int64_t c = c0; c < c1; c++)
        for (int64_t r = 0; r < TT_PANEL_ROWS; r++) dst[(c - c0) * ld + r] = weight(w, p, r, c);
}

void tt__kernels_ref_float_panel(tt_kernels *k) {
    k->float_rowdot = float_rowdot;
    k->float_decode = float_decode;
    k->float_columns = float_columns;
}
