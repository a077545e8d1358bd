/* hqq against its slow textbook form: the loop of the released code, one group at a time, in f64. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "methods/method.h"
#include "methods/weights/grid.h"
#include <stdio.h>

enum { R = 21, N = 200 };

static tt_status apply(tt_ctx *ctx, const char *recipe, const float *W, tt_draft *d, tt_err *out) {
    tt_err err = {0};
    tt_recipe *r = NULL;
    TT_CHECK_OK(tt__draft_init(d, "w", 0, R, N, &err));
    memcpy(d->W, W, R * N * sizeof *W);
    TT_CHECK_OK(tt_recipe_parse(recipe, strlen(recipe), &r, &err));
    tt_status st = TT_OK;
    for (size_t i = 0; st == TT_OK && i < tt_recipe_step_count(r); i++) {
        const tt_method *m = tt__method_of(tt_recipe_get_method(r, i));
        tt_knobs k = {r, i};
        if (m->applies) st = m->applies(NULL, &k, out);
        if (st == TT_OK) st = m->compress->matrix(ctx, &k, d, NULL, out);
    }
    tt_recipe_free(r);
    return st;
}

static void random_weights(float *W) {
    tt__rng r;
    tt__rng_seed(&r, 3);
    for (int i = 0; i < R * N; i++) W[i] = (float)tt__rng_normal(&r) * (i % 37 ? 1 : 5);
    for (int i = 64; i < 128; i++) W[i] = 0;                              /* a group of zeros, one of equal weights */
    for (int i = N + 64; i < N + 128; i++) W[i] = -0.75f;
}

/* Scale and offset after the loop. */
static void slow_group(const float *w, int n, int bits, int iters, double *scale, double *min) {
    double lo = INFINITY, hi = -INFINITY, least = INFINITY, top = (1 << bits) - 1;
    for (int i = 0; i < n; i++) lo = fmin(lo, (double)w[i]), hi = fmax(hi, (double)w[i]);
    *scale = (hi - lo) / top, *min = lo;
    if (hi <= lo) return;
    double k = top / (hi - lo), z = -lo * k;
    for (int t = 0; t <= iters; t++) {
        double error = 0, next = 0;
        for (int i = 0; i < n; i++) {
            double q = fmin(fmax(nearbyint((double)w[i] * k + z), 0), top), e = (double)w[i] - (q - z) / k, a = fabs(e);
            double shrunk = a > 0 ? fmax(0, a - pow(a, 0.7 - 1) / 10) : 0;
            error += a;
            next += q - ((double)w[i] - (e < 0 ? -shrunk : shrunk)) * k;
        }
        if (!(error < least)) return;
        least = error;
        *min = -z / k;
        z = next / n;
    }
}

static double mean_error(const float *w, int n, int bits, double scale, double min) {
    double sum = 0, top = (1 << bits) - 1;
    for (int i = 0; i < n; i++) sum += fabs((double)w[i] - scale * fmin(fmax(scale > 0 ? nearbyint(((double)w[i] - min) / scale) : 0, 0), top) - min) / n;
    return sum;
}

TT_CASE(hqq_textbook) {
    tt_err err = {0};
    static const struct { const char *recipe; int bits, group, iters; } cases[] = {
        {"hqq", 4, 64, 20}, {"hqq(bits=2,group=64)", 2, 64, 20}, {"hqq(bits=3,group=128,iters=3)", 3, 128, 3}, {"hqq(bits=8,group=32,iters=0)", 8, 32, 0}};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    float W[R * N];
    random_weights(W);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_draft d;
        int off = 0, groups = (N + cases[i].group - 1) / cases[i].group;
        tt_test_note("%s", cases[i].recipe);
        TT_CHECK_OK(apply(ctx, cases[i].recipe, W, &d, &err));
        for (int g = 0; g < R * groups; g++) {
            double scale, min;
            int c = g % groups * cases[i].group, n = N - c < cases[i].group ? N - c : cases[i].group;
            slow_group(W + g / groups * N + c, n, cases[i].bits, cases[i].iters, &scale, &min);
            TT_CHECK_NEAR(d.scales[g], scale, 1e-3 * scale);
            off += fabs((double)d.mins[g] - min) > 2e-3 * fabs(min) + 1e-4;           /* a loop ends a step earlier or later where errors are nearly equal */
            TT_CHECK(mean_error(W + g / groups * N + c, n, cases[i].bits, d.scales[g], d.mins[g]) <=
                     1.02 * mean_error(W + g / groups * N + c, n, cases[i].bits, scale, min) + 2e-3);
        }
        TT_CHECK(off * 6 <= R * groups);
        for (int k = 0; k < R * N; k++) {
            int g = k / N * groups + k % N / cases[i].group;
            TT_CHECK_NEAR(d.W[k], d.scales[g] * (float)d.codes[k] + d.mins[g], 1e-5);
            TT_CHECK(fabsf(W[k] - d.W[k]) <= 0.75f * d.scales[g] + 2e-3f * fabsf(W[k]) || d.codes[k] == 0 || d.codes[k] == (1 << cases[i].bits) - 1);
        }
        tt__draft_free(&d);
    }
}

/* What it is for: the mean absolute error of nearly every group falls. */
TT_CASE(sparser_errors) {
    tt_err err = {0};
    float W[R * N];
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    random_weights(W);
    for (int bits = 2; bits < 5; bits++) {
        char recipe[2][48];
        tt_draft d[2];
        double sum[2] = {0};
        for (int i = 0; i < 2; i++) {
            snprintf(recipe[i], sizeof recipe[i], "hqq(bits=%d,iters=%d)", bits, i ? 20 : 0);
            TT_CHECK_OK(apply(ctx, recipe[i], W, &d[i], &err));
            for (int k = 0; k < R * N; k++) sum[i] += fabs((double)W[k] - (double)d[i].W[k]);
            tt__draft_free(&d[i]);
        }
        tt_test_note("%d bits: %g, before %g", bits, sum[1], sum[0]);
        TT_CHECK(sum[1] < sum[0]);
    }
}

TT_CASE(threads_and_wrong_usage) {
    tt_err err = {0};
    float W[R * N];
    tt_draft a, b;
    random_weights(W);
    TT_CHECK_OK(apply(tt_test_ctx(1, NULL), "hqq(bits=3)", W, &a, &err));
    TT_CHECK_OK(apply(tt_test_ctx(3, NULL), "hqq(bits=3)", W, &b, &err));
    TT_CHECK(!memcmp(a.W, b.W, sizeof W) && !memcmp(a.codes, b.codes, R * N));
    tt__draft_free(&a);
    tt__draft_free(&b);
    static const char *const wrong[] = {"magnitude+hqq", "hqq(bits=5,format=own)", "hqq(bits=3,format=gguf)", "rtn+hqq"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        tt_test_note("%s", wrong[i]);
        TT_CHECK_FAILS(TT_USAGE, apply(tt_test_ctx(1, NULL), wrong[i], W, &a, &err));
        tt__draft_free(&a);
    }
    W[7] = 1e7f;
    TT_CHECK_FAILS(TT_FAIL, apply(tt_test_ctx(1, NULL), "hqq", W, &a, &err));
    tt__draft_free(&a);
}
