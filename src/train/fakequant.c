/* See fakequant.h. A group at a time: its scale is rounded and inverted once, the loop over its columns has no branches. Rounding to nearest,
 * ties to even, by adding and subtracting 1.5 2^23, as the methods round (methods/weights/grid.h). */
#include "train/fakequant.h"

#include "base/util.h"

enum { TILE_ROWS = 16 };

typedef struct grid { float s, inv, off, min, top; } grid;

static inline float to16(float x) { return tt__f16_to_f32(tt__f32_to_f16(x)); }
static inline float nearest(float u) { return (u + 12582912.0f) - 12582912.0f; }

static grid grid_of(const tt_fakequant *f, int64_t r, int64_t group) {
    int64_t at = r * tt__fakequant_groups(f) + group;
    float half = (float)(1 << (f->bits - 1)), s = to16(f->scale[at]);
    return (grid){.s = s, .inv = s != 0 ? 1.0f / s : 0, .off = f->min ? 0 : f->halfgrid && f->halfgrid[at] ? half - 0.5f : half,
                  .min = f->min ? to16(f->min[at]) : 0, .top = 2 * half - 1};
}

/* n columns from r, c (all of one group): values, and codes where wanted. */
static void round_span(const tt_fakequant *f, const grid *g, int64_t r, int64_t c, int64_t n, float *out, uint8_t *codes) {
    const float *w = f->w + r * f->op.cols + c, *v = f->v ? f->v + r * f->op.cols + c : NULL;
    for (int64_t i = 0; i < n; i++) {
        float u = (w[i] - g->min) * g->inv + g->off + (v ? v[i] : 0);
        u = u > 0.0f ? u : 0.0f;
        u = nearest(u < g->top ? u : g->top);
        out[i] = g->s * (u - g->off) + g->min + 0.0f;
        if (codes) codes[i] = (uint8_t)u;
    }
}

static void mask_span(const tt_fakequant *f, int64_t r, int64_t c, int64_t n, float *out) {
    const uint8_t *keep = f->keep + r * f->op.cols + c;
    for (int64_t i = 0; i < n; i++) out[i] = keep[i] ? out[i] : 0.0f;
}

/* Columns c0 … c1 of row r; c0 is the start of a group. */
static void row_values(const tt_fakequant *f, int64_t r, int64_t c0, int64_t c1, float *out, uint8_t *codes) {
    if (f->bits)
        for (int64_t c = c0; c < c1; c += f->group) {
            grid g = grid_of(f, r, c / f->group);
            round_span(f, &g, r, c, c1 - c < f->group ? c1 - c : f->group, out + c - c0, codes ? codes + c - c0 : NULL);
        }
    else
        for (int64_t c = c0; c < c1; c++) out[c - c0] = to16(f->w[r * f->op.cols + c]);
    if (f->keep) mask_span(f, r, c0, c1 - c0, out);
}

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    for (int64_t r = r0; r < r1; r++, out += ld) row_values((const tt_fakequant *)op, r, c0, c1, out, NULL);
}

static int segments(const tt_linop *op, tt_segment out[8]) {
    (void)op;
    (void)out;
    return 0;                                  /* nothing of it is stored */
}

static void release(tt_linop *op) { (void)op; }

static const tt_linop_vtable vtable = {.name = "fakequant", .decode = decode, .segments = segments, .free = release};

void tt__fakequant_init(tt_fakequant *f, int64_t rows, int64_t cols) {
    f->op = (tt_linop){.v = &vtable, .rows = rows, .cols = cols, .col_unit = f->bits ? f->group : 1, .dtype = TT_DTYPE_COUNT};
}

/* ------------------------------------------------------------ gradients ---- */

typedef struct gradient_job { const tt_fakequant *f; float *G, *dscale, *dmin; } gradient_job;

/* Sums of a group go to eight lanes, so that the loop need not wait for itself; which lane is a matter of the column alone. */
enum { LANES = 8 };

static float lane_sum(const float *lane) { return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])); }

static void gradient_span(const tt_fakequant *f, const grid *g, int64_t r, int64_t c, int64_t n, float *G, float *dscale, float *dmin) {
    const float *w = f->w + r * f->op.cols + c, *v = f->v ? f->v + r * f->op.cols + c : NULL;
    float by = v ? g->s : 1.0f, ds[LANES] = {0}, dm[LANES] = {0};
    for (int64_t i = 0; i < n; i += LANES)
        for (int64_t l = 0; l < LANES && i + l < n; l++) {
            float u0 = (w[i + l] - g->min) * g->inv + g->off, u = u0 + (v ? v[i + l] : 0);
            float q = u > 0.0f ? u : 0.0f;
            q = nearest(q < g->top ? q : g->top);
            bool inside = u >= -0.5f && u <= g->top + 0.5f;
            float d = G[i + l];
            ds[l] += d * (q - (inside ? u0 : g->off));
            dm[l] += inside ? 0.0f : d;
            G[i + l] = inside ? d * by : 0.0f;
        }
    *dscale = lane_sum(ds);
    if (dmin) *dmin = lane_sum(dm);
}

static void gradient_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    const gradient_job *j = arg;
    const tt_fakequant *f = j->f;
    int64_t cols = f->op.cols, groups = tt__fakequant_groups(f);
    for (int64_t r = tile * TILE_ROWS; r < (tile + 1) * TILE_ROWS && r < f->op.rows; r++) {
        float *G = j->G + r * cols;
        if (f->keep) mask_span(f, r, 0, cols, G);
        for (int64_t k = 0; k < groups; k++) {
            grid g = grid_of(f, r, k);
            int64_t c = k * f->group, at = r * groups + k;
            gradient_span(f, &g, r, c, cols - c < f->group ? cols - c : f->group, G + c, j->dscale + at, j->dmin ? j->dmin + at : NULL);
        }
    }
}

void tt__fakequant_gradient(tt_ctx *ctx, const tt_fakequant *f, float *G, float *dscale, float *dmin) {
    gradient_job j = {f, G, dscale, f->min ? dmin : NULL};
    tt__parallel(ctx, (f->op.rows + TILE_ROWS - 1) / TILE_ROWS, gradient_tile, &j);
}

/* ------------------------------------------------------------ the end ---- */

typedef struct finish_job { const tt_fakequant *f; uint8_t *codes; float *values; } finish_job;

static void finish_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    const finish_job *j = arg;
    int64_t cols = j->f->op.cols;
    for (int64_t r = tile * TILE_ROWS; r < (tile + 1) * TILE_ROWS && r < j->f->op.rows; r++)
        row_values(j->f, r, 0, cols, j->values + r * cols, j->codes ? j->codes + r * cols : NULL);
}

void tt__fakequant_finish(tt_ctx *ctx, tt_fakequant *f, uint8_t *codes, float *values) {
    for (int64_t i = 0; i < f->op.rows * tt__fakequant_groups(f); i++) {
        f->scale[i] = to16(f->scale[i]);
        if (f->min) f->min[i] = to16(f->min[i]);
    }
    tt__parallel(ctx, (f->op.rows + TILE_ROWS - 1) / TILE_ROWS, finish_tile, &(finish_job){f, codes, values});
}
