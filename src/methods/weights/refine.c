/* After the walk: scales and codes are improved in turn, each with the others fixed, until nothing of what can be had is left.
 *
 *     loss of a row   e H e^T,   e = t - ŵ   (t: the target, H damped)          R = E H is kept up to date: half its negative gradient
 *
 *     scales   ŵ is linear in them: ŵ = Σ_k p_k b_k, b_k the codes of group k less their offset (and its ones, where there are minima), so
 *              p += A^-1 B r^T,   A = B H B^T      least squares of all scales of a row together
 *     codes    column after column the best level given all others, to either side of it:     q_j = round(ŵ_j + R_j / H_jj)
 *
 * Codes by coordinate descent are QuantEase (arXiv 2309.01885, equation 6); here the scales join in, jointly per row. Every step lowers the
 * loss or leaves it (up to the rounding of a scale to 16 bits), so the result is never worse than the walk's by the layer's own measure.
 *
 * Masks are kept to. Cost: per round two products [rows, cols] [cols, cols] for the scales and one for the codes; deterministic, as rows do not
 * touch each other and every product has a fixed order.
 */
#include "methods/weights/obs.h"

#include "base/util.h"
#include "kernels/gemm.h"
#include <math.h>

enum { BLOCK = 128, CHUNK_ROWS = 256, SYSTEM_FLOATS = 4 << 20 };

typedef float lane_row[TT_LANES];

typedef struct refine_job {
    const tt_grid *g;
    tt_draft *d;
    int64_t columns, units, unknowns;         /* columns that share a scale; how many such units a row has; scales, or scales and minima */
    float *H, *R;                             /* damped [cols, cols]; E H [rows, cols] */
    int64_t i1, i2;                           /* columns of a block of codes */
    float *delta;                             /* [rows, BLOCK] changes in it */
    int64_t r0, r1, chunk;                    /* rows of a chunk of scales; most of them */
    float *basis, *ones, *BH, *A;             /* [chunk, cols] codes less offset; 1 where kept, or NULL; b_k H; [chunk, unknowns, unknowns] */
    double *x;                                /* [chunk, unknowns] */
} refine_job;

static int64_t unit_end(const refine_job *j, int64_t u) { return (u + 1) * j->columns < j->d->cols ? (u + 1) * j->columns : j->d->cols; }

/* ------------------------------------------------------------ scales ---- */

static void fill_basis_row(void *arg, int64_t i, int worker) {
    (void)worker;
    refine_job *j = arg;
    const tt_draft *d = j->d;
    int64_t r = j->r0 + i, groups = tt__draft_groups(d);
    float half = (float)(1 << (d->bits - 1));
    for (int64_t c = 0; c < d->cols; c++) {
        int64_t g = r * groups + c / d->group;
        float on = d->keep && !d->keep[r * d->cols + c] ? 0.0f : 1.0f, off = d->mins ? 0 : d->halfgrid[g] ? half - 0.5f : half;
        j->basis[i * d->cols + c] = on * ((float)d->codes[r * d->cols + c] - off);
        if (j->ones) j->ones[i * d->cols + c] = on;
    }
}

/* Row k of A: b_k H b_l for all l that are not done yet, b_k H of all rows of the chunk being in BH. */
typedef struct row_of_a { refine_job *j; int64_t k; } row_of_a;
static void system_row(void *arg, int64_t i, int worker) {
    (void)worker;
    const row_of_a *a = arg;
    const refine_job *j = a->j;
    int64_t n = j->d->cols, K = j->unknowns;
    const float *bh = j->BH + i * n;
    float *A = j->A + (i * K + a->k) * K;
    for (int64_t l = a->k; l < K; l++) {
        int64_t u = l % j->units;
        const float *b = (l < j->units ? j->basis : j->ones) + i * n;
        float s = 0;
        for (int64_t c = u * j->columns; c < unit_end(j, u); c++) s += bh[c] * b[c];
        A[l] = s;
    }
}

static void make_systems(tt_ctx *ctx, refine_job *j) {
    int64_t n = j->d->cols, m = j->r1 - j->r0;
    for (int64_t k = 0; k < j->unknowns; k++) {
        int64_t u = k % j->units, c0 = u * j->columns, c1 = unit_end(j, u);
        const float *b = k < j->units ? j->basis : j->ones;
        tt__gemm(ctx, m, n, c1 - c0, 1.0f, b + c0, n, j->H + c0 * n, n, false, j->BH, n, false);
        tt__parallel(ctx, m, system_row, &(row_of_a){j, k});
    }
}

/* x ← A^-1 x; the upper triangle of A [K, K] is read and overwritten with its Cholesky factor. Unknowns without a basis stay as they are. */
static bool solve(float *A, double *x, int64_t K) {
    for (int64_t k = 0; k < K; k++) {
        double d = (double)A[k * K + k];
        if (d <= 0) {                                                     /* nothing but zeros in the group */
            for (int64_t l = 0; l < K; l++) A[l < k ? l * K + k : k * K + l] = 0;
            d = 1, x[k] = 0;
        }
        for (int64_t p = 0; p < k; p++) d -= (double)A[p * K + k] * (double)A[p * K + k];
        if (!(d > 1e-7 * (double)A[k * K + k])) return false;
        d = sqrt(d);
        for (int64_t l = k + 1; l < K; l++) {
            double s = (double)A[k * K + l];
            for (int64_t p = 0; p < k; p++) s -= (double)A[p * K + k] * (double)A[p * K + l];
            A[k * K + l] = (float)(s / d);
        }
        A[k * K + k] = (float)d;
    }
    for (int64_t k = 0; k < K; k++) {
        for (int64_t p = 0; p < k; p++) x[k] -= (double)A[p * K + k] * x[p];
        x[k] /= (double)A[k * K + k];
    }
    for (int64_t k = K - 1; k >= 0; k--) {
        for (int64_t l = k + 1; l < K; l++) x[k] -= (double)A[k * K + l] * x[l];
        x[k] /= (double)A[k * K + k];
    }
    return true;
}

static float to16(double x) { return tt__f16_to_f32(tt__f32_to_f16((float)x)); }

/* A scale that would vanish, turn round where it may not, or leave 16 bits stays; so does its minimum. */
static bool fits(const refine_job *j, float old, double scale, double min) {
    if (!isfinite(to16(scale)) || !isfinite(to16(min)) || to16(scale) == 0) return false;
    return j->g->kind == TT_GRID_SIGNED || (scale > 0) == (old > 0);
}

static void set_scales(refine_job *j, int64_t r, const double *step) {
    tt_draft *d = j->d;
    int64_t groups = tt__draft_groups(d);
    for (int64_t u = 0; u < j->units; u++) {
        int64_t first = r * groups + u * j->columns / d->group, last = r * groups + (unit_end(j, u) - 1) / d->group;
        double scale = (double)d->scales[first] + step[u], min = d->mins ? (double)d->mins[first] + step[j->units + u] : 0;
        if (!fits(j, d->scales[first], scale, min)) continue;
        for (int64_t g = first; g <= last; g++) {
            d->scales[g] = to16(scale);
            if (d->mins) d->mins[g] = to16(min);
        }
    }
}

/* Solves a row's system, sets its scales and values; what changed in the values is left in BH. */
static void scales_of_row(void *arg, int64_t i, int worker) {
    (void)worker;
    refine_job *j = arg;
    tt_draft *d = j->d;
    int64_t n = d->cols, r = j->r0 + i, K = j->unknowns, groups = tt__draft_groups(d);
    double *x = j->x + i * K;
    for (int64_t k = 0; k < K; k++) {
        int64_t u = k % j->units;
        const float *b = (k < j->units ? j->basis : j->ones) + i * n;
        x[k] = 0;
        for (int64_t c = u * j->columns; c < unit_end(j, u); c++) x[k] += (double)b[c] * (double)j->R[r * n + c];
    }
    if (solve(j->A + i * K * K, x, K)) set_scales(j, r, x);
    for (int64_t c = 0; c < n; c++) {
        int64_t g = r * groups + c / d->group;
        float old = d->W[r * n + c], new = d->scales[g] * j->basis[i * n + c] + (j->ones ? d->mins[g] * j->ones[i * n + c] : 0);
        j->BH[i * n + c] = new - old;
        d->W[r * n + c] = new;
    }
}

static void fit_scales(tt_ctx *ctx, refine_job *j) {
    int64_t n = j->d->cols;
    for (j->r0 = 0; j->r0 < j->d->rows; j->r0 = j->r1) {
        j->r1 = j->r0 + j->chunk < j->d->rows ? j->r0 + j->chunk : j->d->rows;
        int64_t m = j->r1 - j->r0;
        tt__parallel(ctx, m, fill_basis_row, j);
        make_systems(ctx, j);
        tt__parallel(ctx, m, scales_of_row, j);
        tt__gemm(ctx, m, n, n, -1.0f, j->BH, n, j->H, n, false, j->R + j->r0 * n, n, true);
    }
}

/* ------------------------------------------------------------ codes ---- */

typedef struct tile_state { lane_row w[BLOCK], r[BLOCK], q[BLOCK], keep[BLOCK], delta[BLOCK]; tt_fit fit; } tile_state;

static void code_column(const refine_job *j, tile_state *t, int64_t c, int64_t n) {
    const float *h = j->H + (j->i1 + c) * j->d->cols + j->i1;
    float x[TT_LANES], y[TT_LANES], inv = 1.0f / h[c], moved = 0;
    for (int l = 0; l < TT_LANES; l++) x[l] = t->w[c][l] + t->r[c][l] * inv;
    tt__grid_round(&t->fit, (float)((1 << j->d->bits) - 1), x, t->q[c], y);
    for (int l = 0; l < TT_LANES; l++) {
        y[l] = j->d->keep && t->keep[c][l] == 0 ? 0.0f : y[l];
        t->delta[c][l] = y[l] - t->w[c][l];
        moved += fabsf(t->delta[c][l]);
        t->w[c][l] = y[l];
    }
    for (int64_t k = 0; moved != 0 && k < n; k++)
        for (int l = 0; l < TT_LANES; l++) t->r[k][l] -= t->delta[c][l] * h[k];
}

static void code_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    refine_job *j = arg;
    tt_draft *d = j->d;
    tile_state t;
    int64_t r0 = tile * TT_LANES, n = j->i2 - j->i1;
    tt__tile_load(d->W, d->cols, d->rows, r0, j->i1, n, t.w);
    tt__tile_load(j->R, d->cols, d->rows, r0, j->i1, n, t.r);
    if (d->keep) tt__tile_load_u8(d->keep, d->cols, d->rows, r0, j->i1, n, t.keep);
    for (int64_t c = 0; c < n; c++) {
        if (c == 0 || (j->i1 + c) % d->group == 0) tt__fit_load(d, r0, (j->i1 + c) / d->group, &t.fit);
        code_column(j, &t, c, n);
    }
    tt__tile_store(d->W, d->cols, d->rows, r0, j->i1, n, (const lane_row *)t.w);
    tt__tile_store_u8(d->codes, d->cols, d->rows, r0, j->i1, n, (const lane_row *)t.q);
    tt__tile_store(j->delta, BLOCK, d->rows, r0, 0, n, (const lane_row *)t.delta);
}

static tt_status choose_codes(tt_ctx *ctx, refine_job *j, tt_err *err) {
    const tt_draft *d = j->d;
    for (j->i1 = 0; j->i1 < d->cols; j->i1 = j->i2) {
        TT_TRY(tt__check_cancel(ctx, err));
        j->i2 = j->i1 + BLOCK < d->cols ? j->i1 + BLOCK : d->cols;
        tt__parallel(ctx, (d->rows + TT_LANES - 1) / TT_LANES, code_tile, j);
        tt__gemm(ctx, d->rows, d->cols, j->i2 - j->i1, -1.0f, j->delta, BLOCK, j->H + j->i1 * d->cols, d->cols, false, j->R, d->cols, true);
    }
    return TT_OK;
}

/* ------------------------------------------------------------ the whole ---- */

static void damped(const float *H, int64_t n, double damp, float *out) {
    double mean = 0;
    memcpy(out, H, (size_t)(n * n) * sizeof *out);
    for (int64_t i = 0; i < n; i++) mean += (H[i * n + i] > 0 ? (double)H[i * n + i] : 1.0) / (double)n;
    for (int64_t i = 0; i < n; i++) out[i * n + i] = (float)((H[i * n + i] > 0 ? (double)H[i * n + i] : 1.0) + damp * mean);
}

/* Rows whose systems are solved together. */
static int64_t chunk_rows(int64_t rows, int64_t unknowns) {
    int64_t chunk = SYSTEM_FLOATS / (unknowns * unknowns);
    chunk = chunk < TT_LANES ? TT_LANES : chunk > CHUNK_ROWS ? CHUNK_ROWS : chunk;
    return chunk < rows ? chunk : rows;
}

uint64_t tt__refine_bytes(int64_t rows, int64_t cols) {
    int64_t unknowns = 2 * ((cols + 31) / 32), chunk = chunk_rows(rows, unknowns);
    return (uint64_t)(chunk * (3 * cols + unknowns * unknowns + 2 * unknowns) + rows * BLOCK) * sizeof(float);
}

static tt_status prepare(tt_ctx *ctx, refine_job *j, const float *H, double damp, float **E, tt_err *err) {
    const tt_draft *d = j->d;
    size_t n = (size_t)d->cols;
    TT_TRY(tt__new(&j->H, n * n, sizeof *j->H, "a damped Hessian", err));
    damped(H, d->cols, damp, j->H);
    TT_TRY(tt__new(&j->R, (size_t)d->rows * n, sizeof *j->R, "a gradient", err));
    tt__gemm(ctx, d->rows, d->cols, d->cols, 1.0f, *E, d->cols, j->H, d->cols, false, j->R, d->cols, false);
    tt__free(*E);
    *E = NULL;
    j->units = (d->cols + j->columns - 1) / j->columns;
    j->unknowns = d->mins ? 2 * j->units : j->units;
    j->chunk = chunk_rows(d->rows, j->unknowns);
    TT_TRY(tt__new(&j->basis, (size_t)j->chunk * n, sizeof *j->basis, "codes", err));
    if (d->mins) TT_TRY(tt__new(&j->ones, (size_t)j->chunk * n, sizeof *j->ones, "codes", err));
    TT_TRY(tt__new(&j->BH, (size_t)j->chunk * n, sizeof *j->BH, "products of codes", err));
    TT_TRY(tt__new(&j->A, (size_t)(j->chunk * j->unknowns * j->unknowns), sizeof *j->A, "systems of scales", err));
    TT_TRY(tt__new(&j->x, (size_t)(j->chunk * j->unknowns), sizeof *j->x, "scales", err));
    return tt__new(&j->delta, (size_t)(d->rows * BLOCK), sizeof *j->delta, "changes", err);
}

tt_status tt__refine(tt_ctx *ctx, const tt_grid *g, int64_t columns, int rounds, const float *H, double damp, float **E, tt_draft *d, tt_err *err) {
    refine_job j = {.g = g, .d = d, .columns = columns};
    tt_status st;
    TT_TRY_GOTO(prepare(ctx, &j, H, damp, E, err));
    fit_scales(ctx, &j);
    for (int i = 0; i < rounds; i++) {
        TT_TRY_GOTO(choose_codes(ctx, &j, err));
        fit_scales(ctx, &j);
    }
done:
    tt__free(j.H);
    tt__free(j.R);
    tt__free(j.basis);
    tt__free(j.ones);
    tt__free(j.BH);
    tt__free(j.A);
    tt__free(j.x);
    tt__free(j.delta);
    return st;
}
