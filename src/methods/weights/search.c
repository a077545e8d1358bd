/* The search for the scale (and minimum) of a group: which grid errs least over the weights that stay.
 *
 *     none     nothing clips
 *     range    shrink from there in steps of 5 % and keep what errs least (weights.md A1.4 with squared error; PERFORMANCE 3.4: with sparse
 *              weights a grid without a zero level gives the kept ones half a bit)
 *     full     from each of those grids, the codes it gives and the scale (and minimum) that fits those codes best, by least squares; the
 *              best of them goes on: new codes, new fit, four times; then single codes move by one while that helps ("coordinate ascent",
 *              as ik_llama.cpp does since 2025). Never worse than `range` in the error that is weighed.
 *
 *     top = max |w|     scale = f top / (2^(b-1) - 1/2),   f = 1, 0.95 … 0.55 (2 bits: 0.35)      e = Σ h (w - ŵ)²
 *     with minima       lo, hi shrunk by f towards zero (full: also hi alone towards lo, and lo alone towards hi)
 *                       scale = (hi - lo) / (2^b - 1), min = lo
 *
 *     least squares     S_ab = Σ h a b over the group, L = q - off
 *     without minima    d = S_xL / S_LL                                              e = S_xx - S_xL² / S_LL
 *     with              d = (S_11 S_xL - S_1x S_1L) / D,  m = (S_LL S_1x - S_1L S_xL) / D,  D = S_11 S_LL - S_1L²
 *
 * h is what the caller gives, 0 for a pruned weight, else the importance of its column (the mean square of its inputs, or what an error there
 * costs after repair); in `full` times sqrt(sigma2 + w²), sigma2 twice the mean square of the group's weights, as k-quants do with an
 * importance matrix. Departure from A1.1: the group need not hold zero, as
 * a minimum is stored. Scales are rounded to 16 bits before they are compared, so the error is that of the file. In `full` trials are
 * compared by least squares before that, and the winner once more after it.
 */
#include "methods/weights/grid.h"

#include "base/util.h"
#include <math.h>

enum { REFITS = 4, MOVES = 32, MOST_MOVED = 256 };

static float to16(float x, bool *overflow) {
    float y = tt__f16_to_f32(tt__f32_to_f16(x)) + 0.0f;                 /* no -0 */
    if (isfinite(y)) return y;
    *overflow = true;
    return x < 0 ? -65504.0f : 65504.0f;
}

static void set_lane(tt_fit *f, int l, float scale, float off, float min) {
    f->scale[l] = scale;
    f->inv[l] = scale != 0 ? 1.0f / scale : 0;
    f->off[l] = off;
    f->min[l] = min;
}

static void set_scale(tt_fit *f, int l, float scale, float off, float min) { set_lane(f, l, to16(scale, &f->overflow), off, to16(min, &f->overflow)); }

static void copy_lane(tt_fit *to, const tt_fit *from, int l) { set_lane(to, l, from->scale[l], from->off[l], from->min[l]); }

/* ------------------------------------------------------------ trials ---- */

/* n columns of sixteen rows; the weight of a squared error is keep (NULL: 1), by_size times sqrt(sigma2 + x²). */
typedef struct group { const float (*x)[TT_LANES], (*keep)[TT_LANES]; int64_t n; float sigma2[TT_LANES]; bool by_size; } group;

static inline float weight_of(const group *G, int64_t c, int l) {
    float h = G->keep ? G->keep[c][l] : 1.0f, v = G->x[c][l];
    return G->by_size ? h * sqrtf(G->sigma2[l] + v * v) : h;
}

typedef struct extent { float top[TT_LANES], lo[TT_LANES], hi[TT_LANES]; } extent;

/* sigma2: twice the mean square of the weights that count. */
static group group_of(const float (*x)[TT_LANES], const float (*keep)[TT_LANES], int64_t n, bool by_size) {
    group G = {.x = x, .keep = keep, .n = n, .by_size = by_size};
    float counted[TT_LANES] = {0};
    for (int64_t c = 0; by_size && c < n; c++)
        for (int l = 0; l < TT_LANES; l++) {
            float one = keep && keep[c][l] == 0 ? 0.0f : 1.0f;
            G.sigma2[l] += one * x[c][l] * x[c][l];
            counted[l] += one;
        }
    for (int l = 0; l < TT_LANES; l++) G.sigma2[l] = counted[l] > 0 ? 2 * G.sigma2[l] / counted[l] : 0;
    return G;
}

static extent extent_of(const group *G) {
    extent e;
    for (int l = 0; l < TT_LANES; l++) e.top[l] = 0, e.lo[l] = INFINITY, e.hi[l] = -INFINITY;
    for (int64_t c = 0; c < G->n; c++)
        for (int l = 0; l < TT_LANES; l++) {
            if (G->keep && G->keep[c][l] == 0) continue;
            float v = G->x[c][l], a = fabsf(v);
            e.top[l] = a > e.top[l] ? a : e.top[l];
            e.lo[l] = v < e.lo[l] ? v : e.lo[l];
            e.hi[l] = v > e.hi[l] ? v : e.hi[l];
        }
    for (int l = 0; l < TT_LANES; l++)
        if (e.lo[l] > e.hi[l]) e.lo[l] = e.hi[l] = 0;         /* nothing kept */
    return e;
}

/* Trial `variant` at shrinking factor f. */
static tt_fit trial(const tt_grid *g, const extent *e, float f, int variant) {
    tt_fit fit = {.overflow = false};
    float half = (float)(1 << (g->bits - 1));
    for (int l = 0; l < TT_LANES; l++) {
        float s = e->top[l] * f / (half - 0.5f), span = e->hi[l] - e->lo[l];
        switch (g->kind) {
        case TT_GRID_BEST: set_scale(&fit, l, s, variant ? half : half - 0.5f, 0); break;
        case TT_GRID_SIGNED: set_scale(&fit, l, variant ? s : -s, half, 0); break;
        case TT_GRID_ZERO: set_scale(&fit, l, e->top[l] / (half - 1), half, 0); break;
        default: set_scale(&fit, l, f * span / (2 * half - 1), 0, variant == 0 ? f * e->lo[l] : variant == 1 ? e->lo[l] : e->hi[l] - f * span);
        }
    }
    return fit;
}

/* ------------------------------------------------------------ errors and least squares ---- */

typedef struct sums { float h[TT_LANES], hl[TT_LANES], hll[TT_LANES], hx[TT_LANES], hxl[TT_LANES]; } sums;      /* S_11 S_1L S_LL S_1x S_xL */

static void error_of(const tt_fit *f, float top_code, const group *G, float err[TT_LANES]) {
    float q[TT_LANES], y[TT_LANES];
    memset(err, 0, TT_LANES * sizeof *err);
    for (int64_t c = 0; c < G->n; c++) {
        tt__grid_round(f, top_code, G->x[c], q, y);
        for (int l = 0; l < TT_LANES; l++) {
            float d = y[l] - G->x[c][l];
            err[l] += d * d * weight_of(G, c, l);
        }
    }
}

static void sums_of(const tt_fit *f, float top_code, const group *G, sums *s, float err[TT_LANES]) {
    float q[TT_LANES], y[TT_LANES];
    memset(err, 0, TT_LANES * sizeof *err);
    memset(s, 0, sizeof *s);
    for (int64_t c = 0; c < G->n; c++) {
        tt__grid_round(f, top_code, G->x[c], q, y);
        for (int l = 0; l < TT_LANES; l++) {
            float h = weight_of(G, c, l), L = q[l] - f->off[l], d = y[l] - G->x[c][l];
            err[l] += d * d * h;
            s->h[l] += h;
            s->hl[l] += h * L;
            s->hll[l] += h * L * L;
            s->hx[l] += h * G->x[c][l];
            s->hxl[l] += h * G->x[c][l] * L;
        }
    }
}

/* The scale (and minimum) that fits the codes of `f` best, and in err what is left: the error at f less what the step to the best takes away,
 * a quadratic form without cancellation. Where the codes do not tell (all equal) f stays. */
static void solve(const tt_grid *g, const sums *s, tt_fit *f, float err[TT_LANES]) {
    for (int l = 0; l < TT_LANES; l++) {
        if (g->kind == TT_GRID_FREE) {
            float D = s->h[l] * s->hll[l] - s->hl[l] * s->hl[l];
            if (!(D > 1e-5f * s->h[l] * s->hll[l])) continue;
            float d = (s->h[l] * s->hxl[l] - s->hx[l] * s->hl[l]) / D, m = (s->hll[l] * s->hx[l] - s->hl[l] * s->hxl[l]) / D;
            float dd = f->scale[l] - d, dm = f->min[l] - m;
            err[l] -= dd * dd * s->hll[l] + 2 * dd * dm * s->hl[l] + dm * dm * s->h[l];
            set_lane(f, l, d, 0, m);
        } else {
            if (!(s->hll[l] > 0)) continue;
            float d = s->hxl[l] / s->hll[l], dd = f->scale[l] - d;
            if (g->kind == TT_GRID_BEST && !(d > 0)) continue;
            err[l] -= dd * dd * s->hll[l];
            set_lane(f, l, d, f->off[l], 0);
        }
    }
}

/* ------------------------------------------------------------ single codes ---- */

typedef struct lane { float x[MOST_MOVED], h[MOST_MOVED], q[MOST_MOVED]; } lane;

/* Explained square F = S_xx - e of the sums. */
static double explained(bool with_min, double h, double hl, double hll, double hx, double hxl) {
    if (!with_min) return hll > 0 ? hxl * hxl / hll : 0;
    double D = h * hll - hl * hl;
    return D > 1e-9 * h * hll ? (hll * hx * hx - 2 * hl * hx * hxl + h * hxl * hxl) / D : 0;
}

/* The code whose square of error falls fastest along its gradient, h |x - d L - m|, moves by one while F rises. */
static void ascend(const tt_grid *g, lane *a, int64_t n, tt_fit *f, int l) {
    const bool with_min = g->kind == TT_GRID_FREE;
    const float top = (float)((1 << g->bits) - 1), off = f->off[l];
    double h = 0, hl = 0, hll = 0, hx = 0, hxl = 0;
    for (int64_t c = 0; c < n; c++) {
        double L = a->q[c] - off;
        h += a->h[c], hl += a->h[c] * L, hll += a->h[c] * L * L, hx += a->h[c] * a->x[c], hxl += a->h[c] * a->x[c] * L;
    }
    double F = explained(with_min, h, hl, hll, hx, hxl);
    for (int moves = 0; moves < MOVES; moves++) {
        int64_t best = -1;
        float steepest = 0;
        for (int64_t c = 0; c < n; c++) {
            float r = a->x[c] - f->scale[l] * (a->q[c] - off) - f->min[l], size = fabsf(r) * a->h[c];
            bool up = (r > 0) == (f->scale[l] > 0), may = up ? a->q[c] < top : a->q[c] > 0;
            if (may && size > steepest) steepest = size, best = c;
        }
        if (best < 0) return;
        float r = a->x[best] - f->scale[l] * (a->q[best] - off) - f->min[l], step = (r > 0) == (f->scale[l] > 0) ? 1.0f : -1.0f;
        double L = a->q[best] - off, w = a->h[best];
        double hl2 = hl + w * step, hll2 = hll + w * (2 * L * step + 1), hxl2 = hxl + w * a->x[best] * step, F2 = explained(with_min, h, hl2, hll2, hx, hxl2);
        if (!(F2 > F)) return;
        hl = hl2, hll = hll2, hxl = hxl2, F = F2;
        a->q[best] += step;
        if (with_min) {
            double D = h * hll - hl * hl;
            set_lane(f, l, (float)((h * hxl - hx * hl) / D), off, (float)((hll * hx - hl * hxl) / D));
        } else set_lane(f, l, (float)(hxl / hll), off, 0);
    }
}

static void ascend_all(const tt_grid *g, const group *G, tt_fit *f) {
    float q[TT_LANES], y[TT_LANES], top_code = (float)((1 << g->bits) - 1);
    lane a[TT_LANES];
    if (G->n > MOST_MOVED) return;
    for (int64_t c = 0; c < G->n; c++) {
        tt__grid_round(f, top_code, G->x[c], q, y);
        for (int l = 0; l < TT_LANES; l++) a[l].x[c] = G->x[c][l], a[l].h[c] = weight_of(G, c, l), a[l].q[c] = q[l];
    }
    for (int l = 0; l < TT_LANES; l++)
        if (f->scale[l] != 0) ascend(g, &a[l], G->n, f, l);
}

/* ------------------------------------------------------------ the search ---- */

typedef struct winner { tt_fit fit; float err[TT_LANES]; } winner;

static void challenge(winner *w, const tt_fit *f, const float err[TT_LANES]) {
    w->fit.overflow |= f->overflow;
    for (int l = 0; l < TT_LANES; l++)
        if (err[l] < w->err[l]) {
            w->err[l] = err[l];
            copy_lane(&w->fit, f, l);
        }
}

/* As the file will hold it. What 16 bits do not hold is cut off there and loses by its error. */
static tt_fit stored(const tt_fit *f) {
    tt_fit s = {.overflow = false};
    for (int l = 0; l < TT_LANES; l++) set_scale(&s, l, f->scale[l], f->off[l], f->min[l]);
    s.overflow = false;
    return s;
}

static void improve(const tt_grid *g, float top_code, const group *G, winner *fitted) {
    float err[TT_LANES];
    sums s;
    for (int i = 0; i < REFITS; i++) {
        tt_fit f = fitted->fit;
        sums_of(&f, top_code, G, &s, err);
        solve(g, &s, &f, err);
        challenge(fitted, &f, err);
    }
    ascend_all(g, G, &fitted->fit);
}

void tt__grid_fit(const tt_grid *g, const float (*x)[TT_LANES], const float (*keep)[TT_LANES], int64_t n, tt_fit *fit) {
    float err[TT_LANES], top_code = (float)((1 << g->bits) - 1);
    const bool searches = g->search != TT_SEARCH_NONE && g->kind != TT_GRID_ZERO, full = searches && g->search == TT_SEARCH_FULL;
    const group G = group_of(x, keep, n, full);
    const extent e = extent_of(&G);
    const int factors = !searches ? 1 : g->bits == 2 ? 14 : 10, variants = g->kind <= TT_GRID_SIGNED ? 2 : g->kind == TT_GRID_FREE && full ? 3 : 1;
    /* a signed grid reaches one level further to one side: start where the largest weight may sit on the short side */
    const float first = g->kind == TT_GRID_SIGNED && searches ? 1.05f : 1.0f;
    winner plain = {.fit = trial(g, &e, first, 0)}, fitted;
    sums s;
    for (int l = 0; l < TT_LANES; l++) plain.err[l] = INFINITY;
    fitted = plain;
    for (int i = 0; i < factors; i++)
        for (int v = 0; v < variants; v++) {
            tt_fit t = trial(g, &e, first - 0.05f * (float)i, v);
            if (full) sums_of(&t, top_code, &G, &s, err);
            else error_of(&t, top_code, &G, err);
            challenge(&plain, &t, err);
            if (!full) continue;
            solve(g, &s, &t, err);
            challenge(&fitted, &t, err);
        }
    if (full) {
        improve(g, top_code, &G, &fitted);
        tt_fit f = stored(&fitted.fit);
        error_of(&f, top_code, &G, err);
        challenge(&plain, &f, err);
    }
    *fit = plain.fit;
}
