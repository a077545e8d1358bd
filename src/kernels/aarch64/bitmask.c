/* bitmask without the dot product; decoding of every level. */
#include "kernels/aarch64/bitmask.h"

static void bitmask_decode(const tt_bitmask *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    tt_cursors at = tt__bitmask_cursors(w, p, c0 / UNIT);
    for (int64_t c = c0; c < c1; c += UNIT) {
        const unit_scales s = load_scales(w, p, c / UNIT);
        unit_quads q;
        expand(w, p, c / UNIT, &at, &s, &q);
        for (int part = 0; part < 4; part++)
            for (int i = 0; i < 2 && c + 32 * i < c1; i++) {
                const int64_t left = c1 - c - 32 * i;
                put_unit(q.q[part] + 8 * i, s.s[i][part].d, w->rows - ROWS * p - 4 * part, left < 32 ? left : 32, dst + 4 * part * ld + c - c0 + 32 * i, ld);
            }
    }
}

static void bitmask_expand(const tt_bitmask *w, int64_t p, uint8_t *codes) {
    tt_cursors at = tt__bitmask_cursors(w, p, 0);
    for (int64_t u = 0; u < w->units; u++, codes += 1024) {
        const unit_scales s = load_scales(w, p, u);
        unit_quads q;
        expand(w, p, u, &at, &s, &q);
        for (int part = 0; part < 4; part++) put_codes(q.q[part], part, codes);
    }
}

void tt__kernels_neon_bitmask(tt_kernels *k) {
    k->bitmask_rowdot = bitmask_rowdot;
    k->bitmask_decode = bitmask_decode;
    k->bitmask_expand = bitmask_expand;
}
