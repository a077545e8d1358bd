/* Panels with small scales: the definitions. Layout: kernels/panel.h. */
#include "kernels/half.h"
#include "kernels/isa.h"

/* What 32 columns of a row share; those of column i: s[i / 16], t[i / 16]. */
typedef struct scales32 { float d, m; int s[2], t[2], offset; } scales32;

static scales32 scales_of(const tt_panel *w, int64_t p, int row, int64_t b) {
    const int64_t at = (p * w->groups + b / 8) * TT_PANEL_ROWS + row;
    const uint8_t *sub = w->subs + (p * 2 * w->units + b) * 32 + row;
    if (w->grid == TT_GRID_NIBBLES)
        return (scales32){half_to_f32(w->scales[at]), -half_to_f32(w->mins[at]), {sub[0] & 15, sub[16] & 15}, {sub[0] >> 4, sub[16] >> 4}, 0};
    if (w->grid == TT_GRID_PAIR) return (scales32){half_to_f32(w->scales[at]), -half_to_f32(w->mins[at]), {sub[0], sub[0]}, {sub[16], sub[16]}, 0};
    return (scales32){half_to_f32(w->scales[at]), 0.0f, {(int8_t)sub[0], (int8_t)sub[16]}, {0, 0}, 1 << (w->bits - 1)};
}

/* As the products of block types: two sums in integers, one float step. */
static float dot_block(const uint8_t *codes, const scales32 *c, const int8_t *x, float dx) {
    int32_t isum = 0, msum = 0;
    for (int i = 0; i < 32; i++) {
        isum += c->s[i / 16] * (codes[i] - c->offset) * x[i];
        msum += c->t[i / 16] * x[i];
    }
    return dx * (c->d * (float)isum + c->m * (float)msum);
}

static void super_rowdot(const tt_panel *w, int64_t p0, int64_t p1, const tt_q8 *x, float *y, int64_t ldy) {
    uint8_t codes[TT_PANEL_ROWS][TT_PANEL_UNIT];
    for (int64_t p = p0; p < p1; p++) {
        const int64_t r0 = p * TT_PANEL_ROWS, rows = w->rows - r0 < TT_PANEL_ROWS ? w->rows - r0 : TT_PANEL_ROWS;
        for (int64_t t = 0; t < x->T; t++)
            for (int r = 0; r < rows; r++) y[t * ldy + r0 + r] = 0.0f;
        for (int64_t b = 0; b < 2 * w->units; b++) {
            if (b % 2 == 0) tt__panel_unpack(w->bits, w->codes + (p * w->units + b / 2) * tt__panel_unit_bytes(w->bits), codes[0]);
            for (int r = 0; r < rows; r++) {
                const scales32 c = scales_of(w, p, r, b);
                for (int64_t t = 0; t < x->T; t++)
                    y[t * ldy + r0 + r] += dot_block(codes[r] + b % 2 * 32, &c, x->q + t * x->n_pad + 32 * b, x->d[t * x->blocks + b]);
            }
        }
    }
}

static void super_decode(const tt_panel *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    uint8_t codes[TT_PANEL_ROWS][TT_PANEL_UNIT];
    const int64_t r0 = p * TT_PANEL_ROWS, rows = w->rows - r0 < TT_PANEL_ROWS ? w->rows - r0 : TT_PANEL_ROWS;
    for (int64_t b = c0 / 32; 32 * b < c1; b++) {
        if (b % 2 == 0) tt__panel_unpack(w->bits, w->codes + (p * w->units + b / 2) * tt__panel_unit_bytes(w->bits), codes[0]);
        for (int r = 0; r < rows; r++) {
            const scales32 c = scales_of(w, p, r, b);
            for (int i = 0; i < 32; i++)
                dst[r * ld + 32 * b - c0 + i] = c.d * (float)c.s[i / 16] * (float)(codes[r][b % 2 * 32 + i] - c.offset) + c.m * (float)c.t[i / 16];
        }
    }
}

void tt__kernels_ref_super(tt_kernels *k) {
    k->super = 1;
    k->super_rowdot = super_rowdot;
    k->super_decode = super_decode;
}
