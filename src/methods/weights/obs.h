/* The walk along the columns that GPTQ, SparseGPT and their joint form share: decide a column (prune, round), push its error onto the
 * columns to the right, as optimal brain surgery tells. */
#ifndef TT_METHODS_OBS_H
#define TT_METHODS_OBS_H
#include "methods/weights/grid.h"
#include "methods/weights/mask.h"

typedef enum tt_order {
    TT_ORDER_NONE,
    TT_ORDER_DIAG,                /* columns by falling diag H; groups stay groups of neighbours, so their scales are fitted beforehand */
    TT_ORDER_GROUPS,              /* groups by falling mean diag H, columns within each by falling diag H: scales are fitted on the way */
    TT_ORDER_PIVOT                /* last the column of least variance, before it the one of least variance given those behind it, … */
} tt_order;
typedef enum tt_correct { TT_CORRECT_NONE, TT_CORRECT_GPTAQ, TT_CORRECT_QRONOS } tt_correct;
#define TT_ORDERS "false|true|groups|pivot"     /* the knob act_order */
#define TT_CORRECTIONS "none|gptaq|qronos"
tt_order tt__order_of(const char *value);
tt_correct tt__correct_of(const char *value);

typedef struct tt_obs {
    int64_t block;                /* columns decided before the rest of the matrix is updated: 64, 128 or 256 */
    double damp;
    double sparsity;              /* > 0 with pattern.m = 0: unstructured, per block of columns over all rows */
    tt_pattern pattern;           /* m > 0: N of M */
    int64_t slide2;               /* > 0: a slide2 mask (slide2.c), chosen so many columns at a time: 8, 16, 32 or 64 */
    tt_grid grid;                 /* bits 0: no rounding */
    int64_t columns;              /* that share a scale; ≥ cols: the row */
    int group;                    /* as stored */
    bool static_groups;
    tt_order order;
    tt_correct correct;           /* towards the outputs of the uncompressed model; needs stats.cross */
    double alpha;                 /* share of the correction */
    int refine;                   /* rounds of tt__refine after the walk; -1: none, 0: scales alone */
} tt_obs;

/* The best slide2 mask of n columns (even, or the last of a row) up to the end of a unit, per lane: keep [n][lanes] is 0 or 1, and the
 * sum of the kept scores (≥ 0) is largest. `ahead` [lanes], in: kept so far less half of the columns so far, -1, 0 or 1. */
void tt__slide2_choose(const float (*score)[TT_LANES], int64_t n, const int *ahead, float (*keep)[TT_LANES]);
/* Bits per weight of the operator slide2. */
double tt__slide2_cost(int64_t rows, int64_t cols, int64_t group);

/* Changes d in place: W, keep (when the walk prunes; a mask that is there already is kept to), codes and scales (when it rounds). */
tt_status tt__obs(tt_ctx *ctx, const tt_obs *o, tt_draft *d, const tt_stats *s, tt_err *err);

/* Bytes that it takes beside the draft, E, the gradient and the Hessian's copy, at most. */
uint64_t tt__refine_bytes(int64_t rows, int64_t cols);
/* Improves scales and codes of a quantized draft: E [rows, cols] = target - d->W, *E is freed. damp: as of the factor of H. */
tt_status tt__refine(tt_ctx *ctx, const tt_grid *g, int64_t columns, int rounds, const float *H, double damp, float **E, tt_draft *d, tt_err *err);
#endif
