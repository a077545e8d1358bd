/* bitmask against few activations: a unit's codes go to their places eight at a time, by a table look-up whose indices count the kept ones
 * before; then it is a dense unit of 8-bit codes. The body of bitmask.c and bitmask_dotprod.c, each compiled with its own flags.
 */
#include "kernels/aarch64/halves.h"
#include "kernels/isa.h"

enum { MANY = 4 };                              /* activations at a time */

typedef struct unit_scales { half_scales s[2][4]; } unit_scales;     /* of both blocks of 32 columns */
typedef struct unit_quads { int8x16_t q[4][QUADS]; } unit_quads;     /* [part][quad]: 2 c + h, 0 where pruned */

INLINE unit_scales load_scales(const tt_bitmask *w, int64_t p, int64_t u) {
    unit_scales s;
    for (int i = 0; i < 2; i++)
        for (int part = 0; part < 4; part++) s.s[i][part] = scales_of(w->scales + (p * w->groups + (UNIT * u + 32 * i) / w->group) * ROWS + 4 * part);
    return s;
}

/* Two rows x 4 columns; `eight`: which are kept. Codes are read from p, eight bytes always (they are followed by as many). */
INLINE int8x8_t place8(uint64_t eight, const uint8_t *p, int high, int8x8_t h) {
    const uint64_t there = ((eight * 0x0101010101010101ull & 0x8040201008040201ull) + 0x7f7f7f7f7f7f7f7full) >> 7 & 0x0101010101010101ull;
    const uint64_t before = there * 0x0101010101010100ull, whole = there * 255;
    const int8x8_t codes = vget_low_s8(twice(vcombine_u8(vld1_u8(p), vdup_n_u8(0)), high));
    return vadd_s8(vtbl1_s8(codes, vcreate_s8(before | ~whole)), vand_s8(h, vcreate_s8(whole)));
}

INLINE void expand(const tt_bitmask *w, int64_t p, int64_t u, tt_cursors *at, const unit_scales *s, unit_quads *out) {
    const uint64_t *mask = w->mask + (p * w->units + u) * TT_BITMASK_BLOCKS;
    for (int j = 0; j < TT_BITMASK_BLOCKS; j++) {
        const uint8_t *codes = at->at[j % 2];
        for (int part = 0; part < 4; part++) {
            const uint64_t m = mask[j] >> 16 * part, low = m & 255, high = m >> 8 & 255;
            const int8x16_t h = s->s[j / 8][part].h;
            const int8x8_t a = place8(low, codes, j % 2, vget_low_s8(h));
            codes += __builtin_popcountll(low);
            out->q[part][j] = vcombine_s8(a, place8(high, codes, j % 2, vget_high_s8(h)));
            codes += __builtin_popcountll(high);
        }
        at->at[j % 2] = codes;
    }
}

/* Block b (32 columns, quads from k on) of the activations. */
INLINE int32x4_t dot_block(const int8x16_t q[QUADS], int k, const int8_t *x) {
    const int8x16_t x0 = vld1q_s8(x), x1 = vld1q_s8(x + 16);
    quads s = quads_zero();
    s = QUADS_ADD(s, q[k], x0, 0);
    s = QUADS_ADD(s, q[k + 1], x0, 1);
    s = QUADS_ADD(s, q[k + 2], x0, 2);
    s = QUADS_ADD(s, q[k + 3], x0, 3);
    s = QUADS_ADD(s, q[k + 4], x1, 0);
    s = QUADS_ADD(s, q[k + 5], x1, 1);
    s = QUADS_ADD(s, q[k + 6], x1, 2);
    s = QUADS_ADD(s, q[k + 7], x1, 3);
    return quads_sum(s);
}

static void panel_tokens(const tt_bitmask *w, int64_t p, const tt_q8 *x, int64_t t0, int T, float *y, int64_t ldy) {
    tt_cursors at = tt__bitmask_cursors(w, p, 0);
    vf acc[MANY][4];
    for (int t = 0; t < T; t++)
        for (int part = 0; part < 4; part++) acc[t][part] = v_zero();
    for (int64_t u = 0; u < w->units; u++) {
        const unit_scales s = load_scales(w, p, u);
        unit_quads q;
        expand(w, p, u, &at, &s, &q);
        for (int i = 0; i < 2 && UNIT * u + 32 * i < w->cols; i++)
            for (int t = 0; t < T; t++) {
                const int64_t block = (t0 + t) * x->blocks + 2 * u + i;
                const int8_t *xq = x->q + (t0 + t) * x->n_pad + UNIT * u + 32 * i;
                for (int part = 0; part < 4; part++)
                    acc[t][part] = v_fma(v_mul(s.s[i][part].d, v_set1(x->d[block])), vcvtq_f32_s32(dot_block(q.q[part], 8 * i, xq)), acc[t][part]);
            }
    }
    for (int t = 0; t < T; t++)
        for (int part = 0; part < 4; part++) store_rows(y + (t0 + t) * ldy + ROWS * p + 4 * part, acc[t][part], w->rows - ROWS * p - 4 * part);
}

static void bitmask_rowdot(const tt_bitmask *w, int64_t p0, int64_t p1, const tt_q8 *x, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p++)
        for (int64_t t = 0; t < x->T; t += MANY) panel_tokens(w, p, x, t, x->T - t < MANY ? (int)(x->T - t) : MANY, y, ldy);
}
