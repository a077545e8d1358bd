/* bitmask: the definitions. Layout: bitmask.h. */
#include "kernels/bitmask.h"
#include "kernels/half.h"
#include "kernels/isa.h"
#include <string.h>

/* A unit of a panel as 2 c + h, [16][64], 0 where pruned. */
static void expand(const tt_bitmask *w, int64_t p, int64_t u, tt_cursors *at, int8_t out[16][64]) {
    const uint64_t *mask = w->mask + (p * w->units + u) * TT_BITMASK_BLOCKS;
    memset(out, 0, 16 * 64);
    for (int j = 0; j < TT_BITMASK_BLOCKS; j++)
        for (uint64_t m = mask[j]; m; m &= m - 1) {
            const int bit = __builtin_ctzll(m), r = bit / 4, c = 4 * j + bit % 4;
            const uint16_t scale = w->scales[(p * w->groups + (64 * u + c) / w->group) * 16 + r];
            const int nibble = *at->at[j % 2]++ >> j % 2 * 4 & 15;
            out[r][c] = (int8_t)(2 * (nibble < 8 ? nibble : nibble - 16) + (scale >> 15));
        }
}

static float scale_at(const tt_bitmask *w, int64_t p, int r, int64_t c) { return 0.5f * half_to_f32(w->scales[(p * w->groups + c / w->group) * 16 + r] & 0x7fff); }

static void bitmask_rowdot(const tt_bitmask *w, int64_t p0, int64_t p1, const tt_q8 *x, float *y, int64_t ldy) {
    int8_t q[16][64];
    for (int64_t p = p0; p < p1; p++) {
        const int rows = w->rows - 16 * p < 16 ? (int)(w->rows - 16 * p) : 16;
        tt_cursors at = tt__bitmask_cursors(w, p, 0);
        for (int64_t t = 0; t < x->T; t++)
            for (int r = 0; r < rows; r++) y[t * ldy + 16 * p + r] = 0;
        for (int64_t u = 0; u < w->units; u++) {
            expand(w, p, u, &at, q);
            for (int64_t t = 0; t < x->T; t++)
                for (int r = 0; r < rows; r++)
                    for (int c = 0; c < 64; c += 32) {
                        int32_t dot = 0;
                        for (int k = 0; k < 32; k++) dot += q[r][c + k] * x->q[t * x->n_pad + 64 * u + c + k];
                        if (64 * u + c < w->cols) y[t * ldy + 16 * p + r] += scale_at(w, p, r, 64 * u + c) * x->d[t * x->blocks + 2 * u + c / 32] * (float)dot;
                    }
        }
    }
}

static void bitmask_decode(const tt_bitmask *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    const int64_t rows = w->rows - 16 * p < 16 ? w->rows - 16 * p : 16;
    int8_t q[16][64];
    tt_cursors at = tt__bitmask_cursors(w, p, c0 / 64);
    for (int64_t c = c0; c < c1; c += 64) {
        expand(w, p, c / 64, &at, q);
        for (int r = 0; r < rows; r++)
            for (int64_t i = 0; i < 64 && c + i < c1; i++) dst[r * ld + c - c0 + i] = scale_at(w, p, r, c + i) * (float)q[r][i];
    }
}

static void bitmask_expand(const tt_bitmask *w, int64_t p, uint8_t *codes) {
    int8_t q[16][64];
    tt_cursors at = tt__bitmask_cursors(w, p, 0);
    for (int64_t u = 0; u < w->units; u++, codes += 1024) {
        expand(w, p, u, &at, q);
        for (int r = 0; r < 16; r++)
            for (int c = 0; c < 64; c++) codes[c / 4 * 64 + 4 * r + c % 4] = (uint8_t)(128 + q[r][c]);
    }
}

void tt__kernels_ref_bitmask(tt_kernels *k) {
    k->bitmask_rowdot = bitmask_rowdot;
    k->bitmask_decode = bitmask_decode;
    k->bitmask_expand = bitmask_expand;
}
