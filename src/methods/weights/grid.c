/* Tiles of sixteen rows, the groups of a draft, and which grid a storage format allows. The search for a group's scale is in search.c. */
#include "methods/weights/grid.h"

#include "base/util.h"
#include "methods/weights/mask.h"
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ------------------------------------------------------------ tiles ---- */

static inline int64_t lanes(int64_t rows, int64_t r0) { return rows - r0 < TT_LANES ? rows - r0 : TT_LANES; }

void tt__tile_load(const float *W, int64_t ld, int64_t rows, int64_t r0, int64_t c0, int64_t n, float (*x)[TT_LANES]) {
    int64_t m = lanes(rows, r0);
    if (m < TT_LANES) memset(x, 0, (size_t)n * sizeof *x);
    for (int64_t l = 0; l < m; l++)
        for (int64_t c = 0; c < n; c++) x[c][l] = W[(r0 + l) * ld + c0 + c];
}

void tt__tile_store(float *W, int64_t ld, int64_t rows, int64_t r0, int64_t c0, int64_t n, const float (*x)[TT_LANES]) {
    for (int64_t l = 0; l < lanes(rows, r0); l++)
        for (int64_t c = 0; c < n; c++) W[(r0 + l) * ld + c0 + c] = x[c][l];
}

void tt__tile_load_u8(const uint8_t *keep, int64_t ld, int64_t rows, int64_t r0, int64_t c0, int64_t n, float (*x)[TT_LANES]) {
    int64_t m = lanes(rows, r0);
    if (m < TT_LANES) memset(x, 0, (size_t)n * sizeof *x);
    for (int64_t l = 0; l < m; l++)
        for (int64_t c = 0; c < n; c++) x[c][l] = (float)keep[(r0 + l) * ld + c0 + c];
}

void tt__tile_store_u8(uint8_t *keep, int64_t ld, int64_t rows, int64_t r0, int64_t c0, int64_t n, const float (*x)[TT_LANES]) {
    for (int64_t l = 0; l < lanes(rows, r0); l++)
        for (int64_t c = 0; c < n; c++) keep[(r0 + l) * ld + c0 + c] = (uint8_t)x[c][l];
}

/* ------------------------------------------------------------ a draft's groups ---- */

void tt__fit_load(const tt_draft *d, int64_t r0, int64_t group, tt_fit *f) {
    int64_t groups = tt__draft_groups(d);
    float half = (float)(1 << (d->bits - 1));
    *f = (tt_fit){.overflow = false};
    for (int64_t l = 0; l < lanes(d->rows, r0); l++) {
        int64_t at = (r0 + l) * groups + group;
        f->scale[l] = d->scales[at];
        f->inv[l] = f->scale[l] != 0 ? 1.0f / f->scale[l] : 0;
        f->off[l] = d->mins ? 0 : d->halfgrid[at] ? half - 0.5f : half;
        f->min[l] = d->mins ? d->mins[at] : 0;
    }
}

void tt__fit_store(tt_draft *d, int64_t r0, int64_t group, const tt_fit *f) {
    int64_t groups = tt__draft_groups(d);
    float half = (float)(1 << (d->bits - 1));
    for (int64_t l = 0; l < lanes(d->rows, r0); l++) {
        int64_t at = (r0 + l) * groups + group;
        d->scales[at] = f->scale[l];
        if (d->mins) d->mins[at] = f->min[l];
        else d->halfgrid[at] = f->off[l] != half;
    }
}

tt_status tt__fit_overflow(const tt_draft *d, tt_err *err) {
    return tt__fail(err, TT_FAIL, "scale does not fit a 16-bit float|%s||weights up to 65504 times the largest code", d->name);
}

typedef struct fit_job { const tt_grid *g; int64_t columns; const float *weight; tt_draft *d; atomic_bool overflow; atomic_bool no_memory; } fit_job;

static void weigh_tile(const float *weight, bool masked, int64_t n, float (*keep)[TT_LANES]) {
    for (int64_t c = 0; c < n; c++)
        for (int l = 0; l < TT_LANES; l++) keep[c][l] = (masked ? keep[c][l] : 1.0f) * weight[c];
}

static void fit_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    fit_job *j = arg;
    tt_draft *d = j->d;
    int64_t r0 = tile * TT_LANES;
    float(*x)[TT_LANES] = tt__alloc(2 * (size_t)j->columns * sizeof *x), (*keep)[TT_LANES] = x + j->columns;
    if (!x) {
        atomic_store(&j->no_memory, true);
        return;
    }
    for (int64_t c = 0; c < d->cols; c += j->columns) {
        int64_t n = d->cols - c < j->columns ? d->cols - c : j->columns;
        tt_fit fit;
        tt__tile_load(d->W, d->cols, d->rows, r0, c, n, x);
        if (d->keep) tt__tile_load_u8(d->keep, d->cols, d->rows, r0, c, n, keep);
        if (j->weight) weigh_tile(j->weight + c, d->keep != NULL, n, keep);
        tt__grid_fit(j->g, x, d->keep || j->weight ? keep : NULL, n, &fit);
        if (fit.overflow) atomic_store(&j->overflow, true);
        for (int64_t g = c / d->group; g * d->group < c + n; g++) tt__fit_store(d, r0, g, &fit);
    }
    tt__free(x);
}

tt_status tt__grid_fit_draft(tt_ctx *ctx, const tt_grid *g, int64_t columns, const float *weight, tt_draft *d, tt_err *err) {
    fit_job job = {.g = g, .columns = columns, .weight = weight, .d = d};
    tt__parallel(ctx, (d->rows + TT_LANES - 1) / TT_LANES, fit_tile, &job);
    TT_FAIL_IF(atomic_load(&job.no_memory), err, TT_RESOURCE, "out of memory|for a tile");
    return atomic_load(&job.overflow) ? tt__fit_overflow(d, err) : TT_OK;
}

static void round_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    tt_draft *d = arg;
    float x[128][TT_LANES], q[128][TT_LANES], top_code = (float)((1 << d->bits) - 1);
    int64_t r0 = tile * TT_LANES;
    for (int64_t c = 0; c < d->cols; c += d->group) {
        int64_t n = d->cols - c < d->group ? d->cols - c : d->group;
        tt_fit fit;
        tt__tile_load(d->W, d->cols, d->rows, r0, c, n, x);
        tt__fit_load(d, r0, c / d->group, &fit);
        for (int64_t i = 0; i < n; i++) tt__grid_round(&fit, top_code, x[i], q[i], x[i]);
        tt__tile_store(d->W, d->cols, d->rows, r0, c, n, x);
        tt__tile_store_u8(d->codes, d->cols, d->rows, r0, c, n, q);
    }
}

void tt__grid_round_draft(tt_ctx *ctx, tt_draft *d) {
    tt__parallel(ctx, (d->rows + TT_LANES - 1) / TT_LANES, round_tile, d);
    for (int64_t i = 0; d->keep && i < d->rows * d->cols; i++)
        if (!d->keep[i]) d->W[i] = 0;
}

/* ------------------------------------------------------------ choices ---- */

tt_search tt__search_of(const tt_knobs *k) {
    const char *s = tt__knob_s(k, "search");
    return !strcmp(s, "full") ? TT_SEARCH_FULL : !strcmp(s, "range") ? TT_SEARCH_RANGE : TT_SEARCH_NONE;
}

tt_grid tt__grid_for(int bits, bool sym, tt_search search, bool sparse, const char *format) {
    bool own = !strcmp(format, "own") || bits < 4 || (sparse && strcmp(format, "gguf"));
    if (!sym) return (tt_grid){TT_GRID_FREE, bits, search};
    if (own) return (tt_grid){TT_GRID_BEST, bits, search};
    return (tt_grid){bits == 8 ? TT_GRID_ZERO : TT_GRID_SIGNED, bits, search};
}

int64_t tt__group_columns(const tt_knobs *k, int64_t cols, int *stored) {
    const char *s = tt__knob_s(k, "group"), *digits = s;
    if (!tt__scan_int(&digits, 1 << 20, stored)) *stored = 128;        /* "row" */
    return !strcmp(s, "row") ? (cols + 127) / 128 * 128 : *stored;
}

double tt__prune_density(const tt_knobs *k) {
    tt_pattern p;
    tt_err err = {0};
    if (tt__pattern_parse(tt__knob_s(k, "pattern"), &p, &err) == TT_OK && p.m) return (double)p.n / p.m;
    return 1 - tt__knob_f(k, "sparsity");
}

/* A mask of whole words, the kept codes with on average half a byte less a code of filling per word, a start per row. */
double tt__sparse_cost(double density, int bits, int64_t cols) {
    double words = (double)((cols + 63) / 64);
    return density * bits + (64 * words + (bits < 8 ? (8.0 - bits) / 2 * words : 0) + 64) / (double)cols;
}

double tt__prune_cost(const tt_knobs *k, int64_t cols) {
    return strcmp(tt__knob_s(k, "format"), "gguf") ? tt__sparse_cost(tt__prune_density(k), 16, cols) : 16;
}

double tt__grid_cost(const tt_knobs *k, int64_t cols, int bits, bool sym, double density, const char *format) {
    int group;
    tt__group_columns(k, cols, &group);
    double scales = 16.0 * (double)((cols + group - 1) / group) / (double)cols;
    bool standard = strcmp(format, "own") && (bits == 4 || bits == 5 || (bits == 8 && sym)) && cols % 32 == 0 && !(density > 0 && strcmp(format, "gguf"));
    if (standard) return bits + (sym ? 0.5 : 1.0);
    return (density > 0 ? tt__sparse_cost(density, bits, cols) : bits) + (sym ? scales : 2 * scales);
}

/* ------------------------------------------------------------ where training begins ---- */

static tt_status relative_sumsq(const tt_stats *s, float **out, tt_err *err) {
    float most = 0;
    TT_TRY(tt__new(out, (size_t)s->n, sizeof **out, "column weights", err));
    for (int64_t c = 0; c < s->n; c++) most = s->sumsq[c] > most ? s->sumsq[c] : most;
    for (int64_t c = 0; c < s->n; c++) (*out)[c] = most > 0 ? s->sumsq[c] / most : 1;
    return TT_OK;
}

tt_status tt__grid_begin(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    int stored, bits = (int)tt__knob_i(k, "bits");
    int64_t columns = tt__group_columns(k, d->cols, &stored);
    tt_grid grid = tt__grid_for(bits, tt__knob_b(k, "sym"), true, d->keep, tt__knob_s(k, "format"));
    float *weight = NULL;
    TT_FAIL_IF(!s || !s->sumsq, err, TT_USAGE, "method needs calibration data|%s", d->name);
    TT_TRY(tt__draft_quantize(d, bits, stored, grid.kind == TT_GRID_FREE, err));
    TT_TRY(relative_sumsq(s, &weight, err));
    tt_status st = tt__grid_fit_draft(ctx, &grid, columns, weight, d, err);
    tt__free(weight);
    if (st == TT_OK) tt__grid_round_draft(ctx, d);
    return st;
}
