/* Random panels with small scales (kernels/panel.h) and what their weights mean, for the tests of their kernels. */
#ifndef TT_TEST_KERNELS_SUPER_H
#define TT_TEST_KERNELS_SUPER_H
#include "unit/kernels/guard.h"

typedef struct super_sample { tt_panel w; double *value, *size; } super_sample;     /* [rows, cols]; size: of the terms that cancel in a weight */

enum { SUPER_KINDS = 5 };
static const struct { int bits; tt_panel_grid grid; } super_kinds[SUPER_KINDS] = {
    {2, TT_GRID_NIBBLES}, {3, TT_GRID_SINGLE}, {4, TT_GRID_PAIR}, {5, TT_GRID_PAIR}, {6, TT_GRID_SINGLE}};

/* Scales and minima f16; `exact`: 1, so that sums of rounded integers are integers. largest: all codes and small scales at their ends. */
static inline super_sample random_super(int kind, int64_t rows, int64_t cols, bool exact, bool largest) {
    super_sample s = {.w = {.bits = super_kinds[kind].bits, .group = 256, .grid = super_kinds[kind].grid, .rows = rows, .cols = cols, .units = cols / 64, .groups = cols / 256}};
    tt_panel *w = &s.w;
    const int64_t panels = tt__panels(rows), unit = tt__panel_unit_bytes(w->bits), n = panels * w->groups * 16;
    uint8_t *codes = guard((size_t)(panels * w->units * unit)), *subs = guard((size_t)(panels * w->units * 64));
    uint16_t *d = guard((size_t)(2 * n + 63) / 64 * 64), *m = w->grid == TT_GRID_SINGLE ? NULL : guard((size_t)(2 * n + 63) / 64 * 64);
    for (int64_t i = 0; i < n; i++) {
        d[i] = tt__f32_to_f16(exact ? 1.0f : 0.1f * uniform());
        if (m) m[i] = tt__f32_to_f16(exact ? 1.0f : 0.1f * uniform());
    }
    for (int64_t i = 0; i < panels * w->units * 64; i++)
        subs[i] = largest ? (w->grid == TT_GRID_SINGLE ? 128 : w->grid == TT_GRID_PAIR ? 63 : 255) : (uint8_t)(tt__rng_u64(&rng) & (w->grid == TT_GRID_PAIR ? 63 : 255));
    s.value = guard((size_t)(rows * cols) * sizeof *s.value);
    s.size = guard((size_t)(rows * cols) * sizeof *s.size);
    for (int64_t p = 0; p < panels; p++)
        for (int64_t u = 0; u < w->units; u++) {
            uint8_t q[16 * 64];
            for (int i = 0; i < 16 * 64; i++) {
                const int64_t r = 16 * p + i / 64, c = 64 * u + i % 64, at = (p * w->groups + c / 256) * 16 + i / 64;
                const uint8_t *sub = subs + (p * 2 * w->units + c / 32) * 32 + i / 64, own = sub[c % 32 / 16 * 16];
                q[i] = (uint8_t)(largest ? (1u << w->bits) - 1 : tt__rng_u64(&rng) & ((1u << w->bits) - 1));
                if (r >= rows) continue;
                const double dd = (double)tt__f16_to_f32(d[at]), mm = m ? (double)tt__f16_to_f32(m[at]) : 0;
                const double plus = w->grid == TT_GRID_SINGLE ? dd * (int8_t)own * (q[i] - (1 << (w->bits - 1))) : dd * (w->grid == TT_GRID_PAIR ? sub[0] : own & 15) * q[i];
                const double minus = w->grid == TT_GRID_SINGLE ? 0 : mm * (w->grid == TT_GRID_PAIR ? sub[16] : own >> 4);
                s.value[r * cols + c] = plus - minus;
                s.size[r * cols + c] = fabs(plus) + fabs(minus);
            }
            tt__panel_pack(w->bits, q, codes + (p * w->units + u) * unit);
        }
    w->codes = codes, w->scales = d, w->mins = m, w->subs = subs;
    return s;
}
#endif
