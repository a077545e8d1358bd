/* Grids: the levels to which the weights of a group are rounded, and the search for their scale. Sixteen rows at a time, one per lane:
 * tiles are stored [column][lane].
 *
 *     w ≈ scale (q - off) + min,   0 ≤ q < 2^bits,   scale and min are numbers that a 16-bit float holds
 */
#ifndef TT_METHODS_GRID_H
#define TT_METHODS_GRID_H
#include "methods/method.h"

enum { TT_LANES = 16 };

typedef enum tt_grid_kind {
    TT_GRID_BEST,                 /* scale > 0, with (off = 2^(b-1)) or without (off = 2^(b-1) - 1/2) a zero level, whichever errs less */
    TT_GRID_SIGNED,               /* scale of either sign, with a zero level: what Q4_0 and Q5_0 store */
    TT_GRID_ZERO,                 /* scale = max |w| / (2^(b-1) - 1), with a zero level: Q8_0 */
    TT_GRID_FREE                  /* off = 0 and a free minimum: Q4_1, Q5_1 */
} tt_grid_kind;

typedef enum tt_search { TT_SEARCH_NONE, TT_SEARCH_RANGE, TT_SEARCH_FULL } tt_search;      /* search.c */

typedef struct tt_grid { tt_grid_kind kind; int bits; tt_search search; } tt_grid;
typedef struct tt_fit { float scale[TT_LANES], inv[TT_LANES], off[TT_LANES], min[TT_LANES]; bool overflow; } tt_fit;

/* Scales of n columns x [n][TT_LANES]; keep [n][TT_LANES] is 0 for a weight that does not count, else the weight of its squared error;
 * NULL: all count alike. */
void tt__grid_fit(const tt_grid *g, const float (*x)[TT_LANES], const float (*keep)[TT_LANES], int64_t n, tt_fit *fit);

/* q = clamp(round((x - min) inv + off)), y = scale (q - off) + min. Adding and subtracting 1.5 2^23 rounds to nearest, ties to even. */
static inline void tt__grid_round(const tt_fit *f, float top_code, const float *x, float *q, float *y) {
    for (int l = 0; l < TT_LANES; l++) {
        float t = (x[l] - f->min[l]) * f->inv[l] + f->off[l];
        t = t > 0.0f ? t : 0.0f;
        t = t < top_code ? t : top_code;
        t = (t + 12582912.0f) - 12582912.0f;
        q[l] = t;
        y[l] = f->scale[l] * (t - f->off[l]) + f->min[l];
    }
}

/* The grid for a storage format: "own" and "auto" at 2, 3 bits are free to choose, standard types are not. */
tt_grid tt__grid_for(int bits, bool sym, tt_search search, bool sparse, const char *format);
/* A knob "search" of none|range|full. */
tt_search tt__search_of(const tt_knobs *k);
/* A knob "32|64|128|row" as columns of a group; a whole row is stored as groups of 128 with equal scales. */
int64_t tt__group_columns(const tt_knobs *k, int64_t cols, int *stored);

/* Predicted bits per weight, all overheads: codes at a density (0: dense, stored as standard types where the format lets them), and
 * a mask with 16-bit values, by the knobs sparsity and pattern. */
double tt__grid_cost(const tt_knobs *k, int64_t cols, int bits, bool sym, double density, const char *format);
double tt__sparse_cost(double density, int bits, int64_t cols);      /* of the operator sparseq, scales beside */
double tt__prune_density(const tt_knobs *k);
double tt__prune_cost(const tt_knobs *k, int64_t cols);

/* Fits every group of d->W (room made by tt__draft_quantize) into d->scales, halfgrid or mins; columns: those that share a scale.
 * weight [cols]: of a column's squared error, or NULL: all 1. */
tt_status tt__grid_fit_draft(tt_ctx *ctx, const tt_grid *g, int64_t columns, const float *weight, tt_draft *d, tt_err *err);
/* Rounds d->W to the grids of the draft: codes and values. */
void tt__grid_round_draft(tt_ctx *ctx, tt_draft *d);

/* Both, as the knobs bits, group, sym and format of a step say, with searched scales; errors are weighted by the mean squared inputs. */
tt_status tt__grid_begin(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err);

/* Rows r0 … of a row-major matrix to and from a tile [n][TT_LANES]; missing rows are zero. */
void tt__tile_load(const float *W, int64_t ld, int64_t rows, int64_t r0, int64_t c0, int64_t n, float (*x)[TT_LANES]);
void tt__tile_store(float *W, int64_t ld, int64_t rows, int64_t r0, int64_t c0, int64_t n, const float (*x)[TT_LANES]);
void tt__tile_load_u8(const uint8_t *keep, int64_t ld, int64_t rows, int64_t r0, int64_t c0, int64_t n, float (*x)[TT_LANES]);
void tt__tile_store_u8(uint8_t *keep, int64_t ld, int64_t rows, int64_t r0, int64_t c0, int64_t n, const float (*x)[TT_LANES]);

/* The fit of one group of a draft for rows r0 … r0+15, and its storage. */
void tt__fit_load(const tt_draft *d, int64_t r0, int64_t group, tt_fit *fit);
void tt__fit_store(tt_draft *d, int64_t r0, int64_t group, const tt_fit *fit);
tt_status tt__fit_overflow(const tt_draft *d, tt_err *err);
#endif
