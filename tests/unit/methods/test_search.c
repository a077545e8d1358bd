/* The search for scales: never worse than what it started from, near the best of all codes, defined for groups that say nothing. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "methods/weights/grid.h"

enum { MOST = 300 };
typedef struct sample { int64_t n; float x[MOST][TT_LANES], keep[MOST][TT_LANES]; } sample;

static sample random_sample(int64_t n, bool pruned, uint64_t seed) {
    sample s = {.n = n};
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int64_t c = 0; c < n; c++)
        for (int l = 0; l < TT_LANES; l++) {
            double v = tt__rng_normal(&r), shift = l % 3 == 0 ? 0.7 : 0;
            s.x[c][l] = (float)(0.1 * (l % 5 == 4 ? v * v * v : v) + 0.1 * shift);
            s.keep[c][l] = pruned && tt__rng_below(&r, 2) ? 0 : (float)exp(tt__rng_normal(&r));
        }
    return s;
}

/* The weight of an error as the full search takes it. */
static double weight(const sample *s, int64_t c, int l) {
    double sum = 0, kept = 0;
    for (int64_t i = 0; i < s->n; i++)
        if (s->keep[i][l] != 0) sum += (double)s->x[i][l] * s->x[i][l], kept++;
    return kept > 0 ? (double)s->keep[c][l] * sqrt(2 * sum / kept + (double)s->x[c][l] * s->x[c][l]) : 0;
}

static double error_of(const sample *s, const tt_fit *f, int bits, int l) {
    double e = 0, top = (1 << bits) - 1;
    for (int64_t c = 0; c < s->n; c++) {
        double q = f->scale[l] != 0 ? ((double)s->x[c][l] - f->min[l]) / f->scale[l] + f->off[l] : f->off[l];
        q = fmin(fmax(nearbyint(q), 0), top);
        double d = f->scale[l] * (q - f->off[l]) + f->min[l] - s->x[c][l];
        e += d * d * weight(s, c, l);
    }
    return e;
}

TT_CASE(never_worse_than_the_range) {
    static const tt_grid_kind kinds[] = {TT_GRID_BEST, TT_GRID_SIGNED, TT_GRID_FREE, TT_GRID_ZERO};
    static const int64_t lengths[] = {1, 2, 5, 32, 64, 100, 300};
    double gain = 0, lanes = 0;
    for (int k = 0; k < 4; k++)
        for (int bits = 2; bits <= 5; bits++)
            for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
                sample s = random_sample(lengths[i], i % 2, 10 + i);
                tt_fit range, full;
                tt__grid_fit(&(tt_grid){kinds[k], bits, TT_SEARCH_RANGE}, s.x, s.keep, s.n, &range);
                tt__grid_fit(&(tt_grid){kinds[k], bits, TT_SEARCH_FULL}, s.x, s.keep, s.n, &full);
                TT_CHECK(!full.overflow);
                for (int l = 0; l < TT_LANES; l++) {
                    double a = error_of(&s, &range, bits, l), b = error_of(&s, &full, bits, l);
                    tt_test_note("kind %d, %d bits, %lld weights, lane %d: %g, %g", k, bits, (long long)s.n, l, a, b);
                    TT_CHECK(isfinite(b) && b <= a * 1.001 + 1e-12);
                    TT_CHECK(full.scale[l] == tt__f16_to_f32(tt__f32_to_f16(full.scale[l])) && full.min[l] == tt__f16_to_f32(tt__f32_to_f16(full.min[l])));
                    if (k != 3 && s.n >= 32) gain += log(b / a), lanes++;
                }
            }
    tt_test_note("mean gain %.3f", exp(gain / lanes));
    TT_CHECK(exp(gain / lanes) < 0.93);
}

/* Textbook: every choice of codes with its least squares. */
static double exhaustive(const sample *s, tt_grid_kind kind, int l) {
    double least = INFINITY;
    for (int half = 0; half < (kind == TT_GRID_BEST ? 2 : 1); half++)
        for (int64_t all = 0; all < (int64_t)1 << 2 * s->n; all++) {
            double h = 0, hl = 0, hll = 0, hx = 0, hxl = 0, hxx = 0, off = kind == TT_GRID_FREE ? 0 : half ? 1.5 : 2;
            for (int64_t c = 0; c < s->n; c++) {
                double w = weight(s, c, l), L = (double)(all >> 2 * c & 3) - off, x = s->x[c][l];
                h += w, hl += w * L, hll += w * L * L, hx += w * x, hxl += w * x * L, hxx += w * x * x;
            }
            double D = h * hll - hl * hl, e = hxx;
            if (kind == TT_GRID_FREE) e = D > 1e-12 ? hxx - (hll * hx * hx - 2 * hl * hx * hxl + h * hxl * hxl) / D : hxx - (h > 0 ? hx * hx / h : 0);
            else if (hll > 0 && (kind == TT_GRID_SIGNED || hxl > 0)) e = hxx - hxl * hxl / hll;
            least = fmin(least, e);
        }
    return least;
}

TT_CASE(near_the_best_of_all_codes) {
    static const tt_grid_kind kinds[] = {TT_GRID_BEST, TT_GRID_SIGNED, TT_GRID_FREE};
    for (int k = 0; k < 3; k++) {
        double found = 0, best = 0;
        for (uint64_t seed = 0; seed < 4; seed++) {
            sample s = random_sample(6, false, 100 + seed);
            tt_fit f;
            tt__grid_fit(&(tt_grid){kinds[k], 2, TT_SEARCH_FULL}, s.x, s.keep, s.n, &f);
            for (int l = 0; l < TT_LANES; l += 3) {
                double e = error_of(&s, &f, 2, l), least = exhaustive(&s, kinds[k], l);
                tt_test_note("kind %d, seed %d, lane %d: %g, best %g", k, (int)seed, l, e, least);
                TT_CHECK(e >= least * 0.999 - 1e-12);
                found += e;
                best += least;
            }
        }
        tt_test_note("kind %d: %g, best %g", k, found, best);
        TT_CHECK(found <= 1.35 * best + 1e-9);
    }
}

TT_CASE(groups_that_say_nothing) {
    static const tt_grid_kind kinds[] = {TT_GRID_BEST, TT_GRID_SIGNED, TT_GRID_FREE};
    for (int k = 0; k < 3; k++)
        for (int what = 0; what < 3; what++) {
            sample s = random_sample(32, false, 7);
            tt_fit f;
            for (int64_t c = 0; c < s.n; c++)
                for (int l = 0; l < TT_LANES; l++) {
                    if (what == 0) s.x[c][l] = 0;
                    if (what == 1) s.keep[c][l] = 0;
                    if (what == 2) s.x[c][l] = 0.25f;
                }
            tt__grid_fit(&(tt_grid){kinds[k], 3, TT_SEARCH_FULL}, s.x, s.keep, s.n, &f);
            tt_test_note("kind %d, what %d", k, what);
            TT_CHECK(!f.overflow);
            for (int l = 0; l < TT_LANES; l++) {
                TT_CHECK(isfinite(f.scale[l]) && isfinite(f.min[l]) && isfinite(f.inv[l]));
                if (what != 1) TT_CHECK(error_of(&s, &f, 3, l) < 1e-6);
            }
        }
}
