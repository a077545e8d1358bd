/* An operator for training: it multiplies by the rounded values of latent weights, and takes the gradient of the rounded ones back to what
 * stands behind them. Made around arrays of the caller; it is never stored.
 *
 *     u = (w - m) / s + off + v      q = clamp(round u, 0, 2^b - 1)      ŵ = s (q - off) + m        s, m: rounded to 16-bit floats
 *
 *   w     [rows, cols]     latent weights, any numbers
 *   v     [rows, cols]     what is added before rounding, in levels (AutoRound's V), or NULL: 0
 *   s, m  [rows, groups]   scale and minimum; symmetric grids: m = NULL (0), off = 2^(b-1) or, without a zero level, 2^(b-1) - 1/2
 *
 * Straight through: d round(u) / du = 1, d clamp / du = 1 inside and 0 outside. So with u0 = u - v
 *
 *     dŵ/dw = [inside]     dŵ/dv = s [inside]     dŵ/ds = q - u0 inside, q - off outside     dŵ/dm = [outside]
 *
 * bits = 0: no grid, ŵ = w rounded to a 16-bit float. Weights that a mask takes away are 0 and have no gradient.
 */
#ifndef TT_TRAIN_FAKEQUANT_H
#define TT_TRAIN_FAKEQUANT_H
#include "base/ctx.h"
#include "linop/linop.h"

typedef struct tt_fakequant {
    tt_linop op;                      /* tt__fakequant_init; the rest is the caller's */
    int bits, group;
    float *w, *v;
    const uint8_t *keep;              /* [rows, cols] 1 = there, or NULL */
    float *scale, *min;
    const uint8_t *halfgrid;          /* [rows, groups] 1: no zero level; NULL: all have one */
} tt_fakequant;

void tt__fakequant_init(tt_fakequant *f, int64_t rows, int64_t cols);
static inline int64_t tt__fakequant_groups(const tt_fakequant *f) { return f->bits ? (f->op.cols + f->group - 1) / f->group : 0; }
/* G [rows, cols], in: the gradient with respect to ŵ; out: with respect to v, or w where there is no v. dscale, dmin [rows, groups]: written; dmin
 * NULL without minima. */
void tt__fakequant_gradient(tt_ctx *ctx, const tt_fakequant *f, float *G, float *dscale, float *dmin);
/* The end: scales and minima become what 16 bits hold, codes and values [rows, cols] are those of decode. codes may be NULL without a grid. */
void tt__fakequant_finish(tt_ctx *ctx, tt_fakequant *f, uint8_t *codes, float *values);
#endif
