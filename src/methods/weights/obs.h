/* The walk along the columns that GPTQ, SparseGPT and their joint form share: decide a column (prune, round), push its error onto the
 * columns to the right, as optimal brain surgery tells. */
#ifndef TT_METHODS_OBS_H
#define TT_METHODS_OBS_H
#include "methods/weights/grid.h"
#include "methods/weights/mask.h"

typedef struct tt_obs {
    int64_t block;                /* columns decided before the rest of the matrix is updated: 64, 128 or 256 */
    double damp;
    double sparsity;              /* > 0 with pattern.m = 0: unstructured, per block of columns over all rows */
    tt_pattern pattern;           /* m > 0: N of M */
    tt_grid grid;                 /* bits 0: no rounding */
    int64_t columns;              /* that share a scale; ≥ cols: the row */
    int group;                    /* as stored */
    bool static_groups, act_order;
} tt_obs;

/* Changes d in place: W, keep (when the walk prunes; a mask that is there already is kept to), codes and scales (when it rounds). */
tt_status tt__obs(tt_ctx *ctx, const tt_obs *o, tt_draft *d, const tt_stats *s, tt_err *err);
#endif
