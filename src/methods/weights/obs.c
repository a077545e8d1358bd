/* Optimal brain surgery, a column at a time (weights.md A2, A3; arXiv 2210.17323 algorithm 1, 2301.00774 algorithm 1).
 *
 *     H = X X^T (inputs over the calibration tokens), damped;   H^-1 = U^T U,  U upper triangular            train/linalg.h
 *     for each column j:   q_j = the decided value of w_j       e_j = (w_j - q_j) / U_jj        w_k -= e_j U_jk   for k > j
 *     pruning score        w_j² / U_jj²    (= w² / [H^-1]_jj of the columns that are left)
 *
 *   symbol   here        shape
 *   W        job.W       [rows, cols]    in walking order (permuted under act_order)
 *   U        job.U       [cols, cols]
 *   E        job.E       [rows, block]   errors of the block, applied to the columns beyond it by one product
 *
 * Rows do not touch each other, except that an unstructured mask takes its threshold over all rows of a block of columns. So a block is
 * walked by tiles of 16 rows, one row per lane of a vector, stored [column][lane]: the inner loop is a broadcast times a vector.
 *
 * Where a mask is chosen: unstructured at the start of a block; N:M at every M-th column, from the weights as updated so far; slide2 every
 * few columns, for the rest of the 64 that stand for themselves, and those few are fixed. A group's
 * scale is fitted when its first column is reached, to the weights as they are then and to those that stay (for N:M and slide2: that would
 * stay now). With static groups, act-order (but for order by groups) or a scale per row it
 * is fitted to the original weights, in the original order.
 *
 * Under an order the walk goes over a permuted copy. GPTAQ's and Qronos' corrections: see "towards the uncompressed model" below. The same walk
 * is LDLQ (QuIP) in the other direction, which a test shows.
 *
 * Departure from both papers: the search for a scale weighs a column's squared error by 1 / U_jj², which is what an error there costs
 * after the columns to its right have made up for what they can. At 2 bits it is decisive (perplexity of a 135 M model 484 → 150).
 */
#include "methods/weights/obs.h"

#include "base/util.h"
#include "train/linalg.h"
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { MAX_BLOCK = 256, SHIFT_ROWS = 512 };

typedef float lane_row[TT_LANES];

typedef struct obs_job {
    const tt_obs *o;
    tt_draft *d;
    int64_t rows, cols;
    float *W, *U, *E;                                 /* d->W holds the target during the walk */
    float *P;                                         /* [cols, cols] of GPTAQ, or NULL */
    uint8_t *keep, *codes;                            /* in walking order; NULL where not wanted */
    float *latent;                                    /* the values that are rounded, likewise */
    int32_t *perm;                                    /* walking position → column, or NULL */
    double damp;                                      /* that the factorisation needed */
    float *weight;                                    /* [cols] of a squared error in the search for scales, by walking position; ≤ 1 */
    bool choose_block, static_scales;                 /* unstructured mask; scales known before the walk */
    int64_t i1, i2;                                   /* the block */
    float *score;                                     /* [rows, block] of an unstructured mask */
    uint8_t *block_keep;
    atomic_bool overflow;
} obs_job;

/* ------------------------------------------------------------ one tile of 16 rows ---- */

typedef struct tile_state { lane_row x[MAX_BLOCK], keep[MAX_BLOCK], q[MAX_BLOCK], e[MAX_BLOCK], before[MAX_BLOCK]; tt_fit fit; int64_t fit_group; int ahead[TT_LANES]; } tile_state;

static bool chooses_on_the_way(const tt_obs *o) { return o->pattern.m || o->slide2; }

/* keep[c0 … c0+len): per lane the n largest of the scores x² / U_cc²; ties: the last ones stay, as in mask.c. */
static void choose_n_of_m(const obs_job *j, const lane_row *x, int64_t c0, int64_t len, lane_row *keep) {
    lane_row s[32];
    int64_t kept = tt__pattern_kept(j->o->pattern, len);
    for (int64_t a = 0; a < len; a++) {
        float u = j->U[(j->i1 + c0 + a) * j->cols + j->i1 + c0 + a], w = 1.0f / (u * u);
        for (int l = 0; l < TT_LANES; l++) s[a][l] = x[c0 + a][l] * x[c0 + a][l] * w;
    }
    for (int64_t a = 0; a < len; a++) {
        float above[TT_LANES] = {0};
        for (int64_t b = 0; b < len; b++)
            for (int l = 0; l < TT_LANES; l++) above[l] += (s[b][l] > s[a][l] || (b > a && s[b][l] == s[a][l])) ? 1.0f : 0.0f;
        for (int l = 0; l < TT_LANES; l++) keep[c0 + a][l] = above[l] < (float)kept ? 1.0f : 0.0f;
    }
}

enum { UNIT = 64 };                                   /* columns of a slide2 row that stand for themselves */

/* keep[c0 … c1), c1 the end of a unit: the slide2 mask with the largest sum of scores. */
static void choose_slots(const obs_job *j, const lane_row *x, int64_t c0, int64_t c1, const int *ahead, lane_row *keep) {
    lane_row s[UNIT];
    for (int64_t c = c0; c < c1; c++) {
        float u = j->U[(j->i1 + c) * j->cols + j->i1 + c], w = 1.0f / (u * u);
        for (int l = 0; l < TT_LANES; l++) s[c - c0][l] = x[c][l] * x[c][l] * w;
    }
    tt__slide2_choose((const lane_row *)s, c1 - c0, ahead, keep + c0);
}

static int64_t unit_end(int64_t c, int64_t n) { return (c / UNIT + 1) * UNIT < n ? (c / UNIT + 1) * UNIT : n; }

/* The rest of the unit is chosen, the next `slide2` columns of it are walked by that. */
static void choose_step(const obs_job *j, tile_state *t, int64_t c, int64_t n) {
    if (c % UNIT == 0) memset(t->ahead, 0, sizeof t->ahead);
    choose_slots(j, (const lane_row *)t->x, c, unit_end(c, n), t->ahead, t->keep);
    for (int64_t i = c; i < c + j->o->slide2 && i < n; i++)
        for (int l = 0; l < TT_LANES; l++) t->ahead[l] += (int)t->keep[i][l] - (i % 2 ? 1 : 0);
}

static void choose_range(const obs_job *j, const lane_row *x, int64_t c0, int64_t c1, lane_row *keep) {
    static const int level[TT_LANES];
    if (j->o->slide2)
        for (int64_t c = c0; c < c1; c += UNIT) choose_slots(j, x, c, unit_end(c, c1), level, keep);
    if (j->o->slide2) return;
    int m = j->o->pattern.m;
    for (int64_t c = c0; c < c1; c += m) choose_n_of_m(j, x, c, c1 - c < m ? c1 - c : m, keep);
}

static void weigh_columns(const obs_job *j, int64_t c0, int64_t c1, lane_row *keep) {
    for (int64_t c = c0; c < c1; c++)
        for (int l = 0; l < TT_LANES; l++) keep[c][l] *= j->weight[j->i1 + c];
}

static int64_t column_at(const obs_job *j, int64_t i) { return j->perm ? j->perm[i] : i; }

static void fit_group(obs_job *j, tile_state *t, int64_t r0, int64_t c) {
    int64_t end = c + j->o->columns < j->i2 - j->i1 ? c + j->o->columns : j->i2 - j->i1;
    lane_row weight[MAX_BLOCK];
    if (chooses_on_the_way(j->o)) choose_range(j, (const lane_row *)t->x, c, end, weight);
    else if (j->keep) memcpy(weight + c, t->keep + c, (size_t)(end - c) * sizeof *weight);
    else
        for (int64_t i = c; i < end; i++)
            for (int l = 0; l < TT_LANES; l++) weight[i][l] = 1;
    weigh_columns(j, c, end, weight);
    tt__grid_fit(&j->o->grid, (const lane_row *)t->x + c, (const lane_row *)weight + c, end - c, &t->fit);
    if (t->fit.overflow) atomic_store(&j->overflow, true);
    tt__fit_store(j->d, r0, column_at(j, j->i1 + c) / j->d->group, &t->fit);
}

static void ready_scale(obs_job *j, tile_state *t, int64_t r0, int64_t c) {
    if (!j->static_scales) {
        if ((j->i1 + c) % j->o->columns == 0) fit_group(j, t, r0, c);
        return;
    }
    int64_t group = column_at(j, j->i1 + c) / j->d->group;
    if (group != t->fit_group) tt__fit_load(j->d, r0, group, &t->fit);
    t->fit_group = group;
}

static void decide_column(obs_job *j, tile_state *t, int64_t c, float y[TT_LANES]) {
    memcpy(y, t->x[c], TT_LANES * sizeof *y);
    if (j->o->grid.bits) tt__grid_round(&t->fit, (float)((1 << j->o->grid.bits) - 1), t->x[c], t->q[c], y);
    if (j->keep)
        for (int l = 0; l < TT_LANES; l++) y[l] = t->keep[c][l] != 0 ? y[l] : 0.0f;
}

/* GPTAQ: x_k += x_c P_ck, with x_c as it was before it was decided. */
static void push_mismatch(const obs_job *j, tile_state *t, int64_t c, int64_t n) {
    const float *p = j->P + (j->i1 + c) * j->cols + j->i1;
    for (int64_t k = c + 1; k < n; k++)
        for (int l = 0; l < TT_LANES; l++) t->x[k][l] += t->x[c][l] * p[k];
}

/* e_c = (x_c - y) / U_cc;   x_k -= e_c U_ck for the columns k of the block that are still to come. */
static void push_error(const obs_job *j, tile_state *t, int64_t c, int64_t n, const float y[TT_LANES]) {
    const float *u = j->U + (j->i1 + c) * j->cols + j->i1;
    float e[TT_LANES], inv = 1.0f / u[c];
    for (int l = 0; l < TT_LANES; l++) e[l] = (t->x[c][l] - y[l]) * inv;
    for (int64_t k = c + 1; k < n; k++)
        for (int l = 0; l < TT_LANES; l++) t->x[k][l] -= e[l] * u[k];
    if (j->P) push_mismatch(j, t, c, n);
    memcpy(t->e[c], e, sizeof e);
    memcpy(t->x[c], y, sizeof e);
}

static void walk_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    obs_job *j = arg;
    tile_state t;
    int64_t r0 = tile * TT_LANES, n = j->i2 - j->i1;
    int m = j->o->pattern.m;
    t.fit_group = -1;
    tt__tile_load(j->W, j->cols, j->rows, r0, j->i1, n, t.x);
    if (j->keep && !chooses_on_the_way(j->o)) tt__tile_load_u8(j->keep, j->cols, j->rows, r0, j->i1, n, t.keep);
    for (int64_t c = 0; c < n; c++) {
        float y[TT_LANES];
        if (m && c % m == 0) choose_n_of_m(j, (const lane_row *)t.x, c, n - c < m ? n - c : m, t.keep);
        if (j->o->slide2 && c % j->o->slide2 == 0) choose_step(j, &t, c, n);
        if (j->o->grid.bits) ready_scale(j, &t, r0, c);
        memcpy(t.before[c], t.x[c], sizeof t.before[c]);
        decide_column(j, &t, c, y);
        push_error(j, &t, c, n, y);
    }
    tt__tile_store(j->W, j->cols, j->rows, r0, j->i1, n, (const lane_row *)t.x);
    tt__tile_store(j->E, j->o->block, j->rows, r0, 0, n, (const lane_row *)t.e);
    if (chooses_on_the_way(j->o)) tt__tile_store_u8(j->keep, j->cols, j->rows, r0, j->i1, n, (const lane_row *)t.keep);
    if (j->latent) tt__tile_store(j->latent, j->cols, j->rows, r0, j->i1, n, (const lane_row *)t.before);
    if (j->codes) tt__tile_store_u8(j->codes, j->cols, j->rows, r0, j->i1, n, (const lane_row *)t.q);
}

/* ------------------------------------------------------------ one block of columns ---- */

static void choose_unstructured(obs_job *j) {
    int64_t n = j->i2 - j->i1;
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t c = 0; c < n; c++) {
            float x = j->W[r * j->cols + j->i1 + c], u = j->U[(j->i1 + c) * j->cols + j->i1 + c];
            j->score[r * n + c] = x * x / (u * u);
        }
    tt__keep_largest(j->score, j->rows * n, tt__pruned_of(j->rows * n, j->o->sparsity), j->block_keep);
    for (int64_t r = 0; r < j->rows; r++) memcpy(j->keep + r * j->cols + j->i1, j->block_keep + r * n, (size_t)n);
}

static tt_status walk(tt_ctx *ctx, obs_job *j, tt_err *err) {
    for (j->i1 = 0; j->i1 < j->cols; j->i1 = j->i2) {
        TT_TRY(tt__check_cancel(ctx, err));
        j->i2 = j->i1 + j->o->block < j->cols ? j->i1 + j->o->block : j->cols;
        if (j->choose_block) choose_unstructured(j);
        tt__parallel(ctx, (j->rows + TT_LANES - 1) / TT_LANES, walk_tile, j);
        if (j->i2 >= j->cols) break;
        int64_t left = j->cols - j->i2, n = j->i2 - j->i1;
        tt__gemm(ctx, j->rows, left, n, -1.0f, j->E, j->o->block, j->U + j->i1 * j->cols + j->i2, j->cols, false, j->W + j->i2, j->cols, true);
        if (j->P) tt__gemm(ctx, j->rows, left, n, 1.0f, j->W + j->i1, j->cols, j->P + j->i1 * j->cols + j->i2, j->cols, false, j->W + j->i2, j->cols, true);
    }
    return atomic_load(&j->overflow) ? tt__fit_overflow(j->d, err) : TT_OK;
}

/* ------------------------------------------------------------ the whole matrix ---- */

typedef struct ranked { int partial; float group, diag; int32_t column; } ranked;
static int by_falling_diag(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->partial != y->partial) return x->partial - y->partial;
    if (x->group != y->group) return x->group > y->group ? -1 : 1;
    return x->diag > y->diag ? -1 : x->diag < y->diag ? 1 : x->column < y->column ? -1 : 1;
}

/* Mean of diag H over the group of a column; groups of equal means by their place. */
static float mean_of_group(const obs_job *j, const float *H, int64_t c) {
    int64_t c0 = c / j->o->columns * j->o->columns, c1 = c0 + j->o->columns < j->cols ? c0 + j->o->columns : j->cols;
    float sum = 0;
    for (int64_t k = c0; k < c1; k++) sum += H[k * j->cols + k];
    return sum / (float)(c1 - c0);
}

/* Groups of equal means must not mix: the group's rank by mean, then place. */
static void rank_groups(const obs_job *j, const float *H, ranked *r) {
    for (int64_t c = 0; c < j->cols; c++) {
        float mean = mean_of_group(j, H, c);
        int64_t above = 0;
        for (int64_t k = 0; k < j->cols; k += j->o->columns) {
            float other = mean_of_group(j, H, k);
            above += other > mean || (other == mean && k / j->o->columns < c / j->o->columns);
        }
        r[c].group = -(float)above;
        r[c].partial = (c / j->o->columns + 1) * j->o->columns > j->cols;        /* a short group is last: all others begin at a multiple */
    }
}

/* From the last place to the first: the column of least variance given those that are placed (the pivots of a Cholesky factorisation). Dead
 * columns come first of all, as they cannot be repaired and need not be. */
static tt_status order_by_pivots(obs_job *j, const float *H, tt_err *err) {
    int64_t n = j->cols;
    float *A = NULL;
    tt_status st = tt__new(&A, (size_t)(n * n), sizeof *A, "conditional variances", err);
    if (st != TT_OK) return st;
    memcpy(A, H, (size_t)(n * n) * sizeof *A);
    double mean = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)H[i * n + i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        A[i * n + i] += (float)(j->o->damp * mean);
        j->perm[i] = (int32_t)i;
    }
    for (int64_t last = n - 1; last > 0; last--) {                       /* perm[0 … last] are left */
        int64_t best = last;
        for (int64_t i = 0; i <= last; i++) {
            int32_t c = j->perm[i], b = j->perm[best];
            if (A[c * n + c] < A[b * n + b] || (A[c * n + c] == A[b * n + b] && c > b)) best = i;
        }
        int32_t p = j->perm[best];
        j->perm[best] = j->perm[last], j->perm[last] = p;
        float d = A[p * n + p];
        for (int64_t i = 0; i < last && d > 0; i++) {
            float *row = A + j->perm[i] * n, f = A[p * n + j->perm[i]] / d;
            for (int64_t k = 0; k < n; k++) row[k] -= f * A[p * n + k];
        }
    }
    tt__free(A);
    return TT_OK;
}

static tt_status make_order(obs_job *j, const float *H, tt_err *err) {
    ranked *r = NULL;
    TT_TRY(tt__new(&j->perm, (size_t)j->cols, sizeof *j->perm, "an order of columns", err));
    if (j->o->order == TT_ORDER_PIVOT) return order_by_pivots(j, H, err);
    TT_TRY(tt__new(&r, (size_t)j->cols, sizeof *r, "an order of columns", err));
    for (int64_t c = 0; c < j->cols; c++) r[c] = (ranked){.diag = H[c * j->cols + c], .column = (int32_t)c};
    if (j->o->order == TT_ORDER_GROUPS) rank_groups(j, H, r);
    qsort(r, (size_t)j->cols, sizeof *r, by_falling_diag);
    for (int64_t c = 0; c < j->cols; c++) j->perm[c] = r[c].column;
    tt__free(r);
    return TT_OK;
}

/* The walk goes over copies in its own order. */
static void copy_to_walk(const obs_job *j) {
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t i = 0; i < j->cols; i++) j->W[r * j->cols + i] = j->d->W[r * j->cols + column_at(j, i)];
}

/* What the walk gave goes to d->W, and the target that stood there becomes the error, in job.W. */
static tt_status copy_from_walk(obs_job *j, tt_err *err) {
    float *row = NULL;
    TT_TRY(tt__new(&row, (size_t)j->cols, sizeof *row, "a row", err));
    for (int64_t r = 0; r < j->rows; r++) {
        float *walked = j->W + r * j->cols, *target = j->d->W + r * j->cols;
        for (int64_t i = 0; i < j->cols; i++) row[column_at(j, i)] = walked[i];
        for (int64_t c = 0; c < j->cols; c++) {
            walked[c] = target[c] - row[c];
            target[c] = row[c];
        }
    }
    tt__free(row);
    return TT_OK;
}

/* Under an order codes and mask are copies as well; `into` says in which direction. */
static void permute_u8(const obs_job *j, uint8_t *walked, uint8_t *column, bool into) {
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t c = 0; c < j->cols; c++) {
            uint8_t *a = &walked[r * j->cols + c], *b = &column[r * j->cols + j->perm[c]];
            if (into) *a = *b;
            else *b = *a;
        }
}

static void permute_f32(const obs_job *j, const float *walked, float *column) {
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t c = 0; c < j->cols; c++) column[r * j->cols + j->perm[c]] = walked[r * j->cols + c];
}

static tt_status check_settings(const tt_obs *o, const tt_draft *d, const tt_stats *s, tt_err *err) {
    bool prunes = o->sparsity > 0 || chooses_on_the_way(o);
    TT_FAIL_IF(!s || !s->hessian, err, TT_USAGE, "method needs calibration data|%s", d->name);
    TT_FAIL_IF(o->correct && !s->cross, err, TT_USAGE, "correction needs the inputs of the uncompressed model|%s", d->name);
    TT_FAIL_IF(prunes && o->order, err, TT_USAGE, "pruning does not go with act_order|%s", d->name);
    TT_FAIL_IF(o->pattern.m && o->block % o->pattern.m, err, TT_USAGE, "pattern does not divide the block of columns|pattern|%d:%d|a divisor of %lld", o->pattern.n,
               o->pattern.m, (long long)o->block);
    TT_FAIL_IF(o->grid.bits && o->columns > o->block && o->columns < d->cols, err, TT_USAGE, "group is larger than the block of columns|block|%lld|at least %lld",
               (long long)o->block, (long long)o->columns);
    return TT_OK;
}

/* Inputs that were always 0 in calibration: nothing is known about their weights, which are taken as 0 (A2.2). */
static void drop_dead_inputs(tt_draft *d, const float *H) {
    for (int64_t c = 0; c < d->cols; c++)
        if (!(H[c * d->cols + c] > 0))
            for (int64_t r = 0; r < d->rows; r++) d->W[r * d->cols + c] = 0;
}

/* 1 / U_jj², relative to the column where an error costs most. */
static tt_status weigh(obs_job *j, tt_err *err) {
    float least = INFINITY;
    TT_TRY(tt__new(&j->weight, (size_t)j->cols, sizeof *j->weight, "column weights", err));
    for (int64_t c = 0; c < j->cols; c++) least = fminf(least, j->U[c * j->cols + c]);
    for (int64_t c = 0; c < j->cols; c++) j->weight[c] = least / j->U[c * j->cols + c] * (least / j->U[c * j->cols + c]);
    return TT_OK;
}

static tt_status fit_original(tt_ctx *ctx, obs_job *j, tt_err *err) {
    float *by_column = NULL;
    TT_TRY(tt__new(&by_column, (size_t)j->cols, sizeof *by_column, "column weights", err));
    for (int64_t c = 0; c < j->cols; c++) by_column[j->perm ? j->perm[c] : c] = j->weight[c];
    tt_status st = tt__grid_fit_draft(ctx, &j->o->grid, j->o->columns, by_column, j->d, err);
    tt__free(by_column);
    return st;
}

/* ------------------------------------------------------------ towards the uncompressed model ---- */

/* The inputs x come out of compressed layers, y of the uncompressed model: what should be met is W Y, not W X. D = Σ x (y - x)^T.
 *
 *     ‖W Y - Ŵ X‖² = ‖(W* - Ŵ) X‖² + const,     W* = W + W D^T H^-1        (least squares; W Y X^T = W (H + D^T))
 *
 * Qronos (arXiv 2505.11695): GPTQ walks on from W*. After its first column that is the same, as both go on from the best rest given what was
 * decided; the first column itself is rounded from W* here and from (G_1 w - H_1,2: w_2:) / H_11 there.
 * GPTAQ (arXiv 2504.02692, equation 15): only what the columns to the right can repair, as the walk comes by: P = triu(D^T U^T, 1) U. */

/* D, or its transpose, in walking order. */
static void walk_cross(const obs_job *j, const float *D, bool transposed, float *out) {
    for (int64_t i = 0; i < j->cols; i++)
        for (int64_t k = 0; k < j->cols; k++) {
            int64_t a = column_at(j, i), b = column_at(j, k);
            out[i * j->cols + k] = transposed ? D[b * j->cols + a] : D[a * j->cols + b];
        }
}

/* W* into job.W and, in the order of the columns, into d->W: alpha W D^T U^T U is added, in pieces of rows. */
static tt_status shift(tt_ctx *ctx, obs_job *j, const float *D, float *piece[2], tt_err *err) {
    int64_t n = j->cols;
    for (int64_t r = 0; r < j->rows; r += SHIFT_ROWS) {
        TT_TRY(tt__check_cancel(ctx, err));
        int64_t m = j->rows - r < SHIFT_ROWS ? j->rows - r : SHIFT_ROWS;
        tt__gemm(ctx, m, n, n, (float)j->o->alpha, j->W + r * n, n, D, n, true, piece[0], n, false);
        tt__gemm(ctx, m, n, n, 1.0f, piece[0], n, j->U, n, true, piece[1], n, false);
        tt__gemm(ctx, m, n, n, 1.0f, piece[1], n, j->U, n, false, j->W + r * n, n, true);
    }
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t i = 0; i < n; i++) j->d->W[r * n + column_at(j, i)] = j->W[r * n + i];
    return TT_OK;
}

static tt_status aim_at_dense(tt_ctx *ctx, obs_job *j, const float *cross, tt_err *err) {
    float *D = NULL, *piece[2] = {NULL, NULL};
    size_t n = (size_t)j->cols, m = (size_t)(j->rows < SHIFT_ROWS ? j->rows : SHIFT_ROWS);
    tt_status st;
    TT_TRY_GOTO(tt__new(&D, n * n, sizeof *D, "a cross moment", err));
    for (int i = 0; i < 2; i++) TT_TRY_GOTO(tt__new(&piece[i], m * n, sizeof *piece[i], "corrections", err));
    walk_cross(j, cross, false, D);
    TT_TRY_GOTO(shift(ctx, j, D, piece, err));
done:
    tt__free(D);
    for (int i = 0; i < 2; i++) tt__free(piece[i]);
    return st;
}

/* P = alpha triu(C U^T, 1) U,  C = D^T. */
static tt_status make_mismatch(tt_ctx *ctx, obs_job *j, const float *cross, tt_err *err) {
    float *M = NULL;
    int64_t n = j->cols;
    TT_TRY(tt__new(&j->P, (size_t)(n * n), sizeof *j->P, "a correction", err));
    TT_TRY(tt__new(&M, (size_t)(n * n), sizeof *M, "a correction", err));
    walk_cross(j, cross, true, j->P);
    tt__gemm(ctx, n, n, n, (float)j->o->alpha, j->P, n, j->U, n, true, M, n, false);
    for (int64_t i = 0; i < n; i++) memset(M + i * n, 0, (size_t)(i + 1) * sizeof *M);
    tt__gemm(ctx, n, n, n, 1.0f, M, n, j->U, n, false, j->P, n, false);
    tt__free(M);
    return TT_OK;
}

static tt_status prepare(tt_ctx *ctx, obs_job *j, const float *H, const float *cross, tt_err *err) {
    const tt_obs *o = j->o;
    tt_draft *d = j->d;
    size_t n = (size_t)(j->rows * j->cols);
    bool prunes = o->sparsity > 0 || chooses_on_the_way(o);
    drop_dead_inputs(d, H);
    if (prunes) TT_TRY(tt__draft_prune(d, err));
    if (o->order) TT_TRY(make_order(j, H, err));
    TT_TRY(tt__hessian_factor(ctx, H, j->cols, j->perm, o->damp, &j->U, &j->damp, err));
    TT_TRY(weigh(j, err));
    TT_TRY(tt__new(&j->W, n, sizeof *j->W, "weights in walking order", err));
    copy_to_walk(j);
    if (o->correct == TT_CORRECT_QRONOS) TT_TRY(aim_at_dense(ctx, j, cross, err));
    if (o->correct == TT_CORRECT_GPTAQ) TT_TRY(make_mismatch(ctx, j, cross, err));
    if (o->grid.bits) {
        TT_TRY(tt__draft_quantize(d, o->grid.bits, o->group, o->grid.kind == TT_GRID_FREE, err));
        j->static_scales = o->static_groups || o->order == TT_ORDER_DIAG || o->order == TT_ORDER_PIVOT || o->columns > o->block;
        if (j->static_scales) TT_TRY(fit_original(ctx, j, err));
    }
    TT_TRY(tt__new(&j->E, (size_t)(j->rows * o->block), sizeof *j->E, "column errors", err));
    j->choose_block = prunes && !chooses_on_the_way(o);
    if (j->choose_block) {
        TT_TRY(tt__new(&j->score, (size_t)(j->rows * o->block), sizeof *j->score, "pruning scores", err));
        TT_TRY(tt__new(&j->block_keep, (size_t)(j->rows * o->block), 1, "a mask", err));
    }
    j->keep = d->keep, j->codes = d->codes, j->latent = d->latent;
    if (!j->perm) return TT_OK;
    j->keep = j->codes = NULL, j->latent = NULL;      /* from here on owned: see release */
    if (d->latent) TT_TRY(tt__new(&j->latent, n, sizeof *j->latent, "permuted latent weights", err));
    if (d->codes) TT_TRY(tt__new(&j->codes, n, 1, "permuted codes", err));
    if (d->keep) {
        TT_TRY(tt__new(&j->keep, n, 1, "a permuted mask", err));
        permute_u8(j, j->keep, d->keep, true);
    }
    return TT_OK;
}

static void drop(float **p) {
    tt__free(*p);
    *p = NULL;
}

static void release(obs_job *j) {
    if (j->perm) {
        tt__free(j->latent);
        tt__free(j->codes);
        tt__free(j->keep);
    }
    tt__free(j->W);
    tt__free(j->perm);
    tt__free(j->weight);
    tt__free(j->U);
    tt__free(j->P);
    tt__free(j->E);
    tt__free(j->score);
    tt__free(j->block_keep);
}

/* The walk is over: its memory goes, scales and codes are polished. */
static tt_status refine(tt_ctx *ctx, obs_job *j, const float *H, tt_err *err) {
    drop(&j->U);
    drop(&j->P);
    drop(&j->E);
    return tt__refine(ctx, &j->o->grid, j->o->columns, j->o->refine, H, j->damp, &j->W, j->d, err);
}

tt_order tt__order_of(const char *value) {
    return !strcmp(value, "true") ? TT_ORDER_DIAG : !strcmp(value, "groups") ? TT_ORDER_GROUPS : !strcmp(value, "pivot") ? TT_ORDER_PIVOT : TT_ORDER_NONE;
}

tt_correct tt__correct_of(const char *value) { return !strcmp(value, "gptaq") ? TT_CORRECT_GPTAQ : !strcmp(value, "qronos") ? TT_CORRECT_QRONOS : TT_CORRECT_NONE; }

tt_status tt__obs(tt_ctx *ctx, const tt_obs *o, tt_draft *d, const tt_stats *s, tt_err *err) {
    TT_TRY(check_settings(o, d, s, err));
    TT_TRY(tt__scratch_reserve(ctx, tt__gemm_scratch(ctx, d->rows > d->cols ? d->rows : d->cols, d->rows > d->cols ? d->rows : d->cols), err));
    obs_job j = {.o = o, .d = d, .rows = d->rows, .cols = d->cols};
    tt_status st;
    TT_TRY_GOTO(prepare(ctx, &j, s->hessian, s->cross, err));
    TT_TRY_GOTO(walk(ctx, &j, err));
    TT_TRY_GOTO(copy_from_walk(&j, err));
    if (j.perm && j.codes) permute_u8(&j, j.codes, d->codes, false);
    if (j.perm && j.latent) permute_f32(&j, j.latent, d->latent);
    if (o->grid.bits && o->refine >= 0) TT_TRY_GOTO(refine(ctx, &j, s->hessian, err));
done:
    release(&j);
    return st;
}
