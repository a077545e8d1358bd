/* Compression methods against their slow textbook forms, exact counts, and the storage of what they produce. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "methods/method.h"
#include "methods/weights/grid.h"
#include "methods/weights/mask.h"
#include "methods/weights/obs.h"
#include <stdio.h>

/* ------------------------------------------------------------ help ---- */

typedef struct layer { int64_t rows, cols; float *W, *H, *sumsq; tt_stats stats; } layer;

static layer make_layer(int64_t rows, int64_t cols, bool identity, uint64_t seed) {
    layer l = {rows, cols, tt__alloc((size_t)(rows * cols) * sizeof(float)), tt__calloc((size_t)(cols * cols), sizeof(float)), tt__calloc((size_t)cols, sizeof(float)), {0}};
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int64_t i = 0; i < rows * cols; i++) l.W[i] = (float)tt__rng_normal(&r);
    int64_t T = 3 * cols;
    float *x = tt__alloc((size_t)cols * sizeof *x);
    for (int64_t t = 0; t < T && !identity; t++) {
        double common = tt__rng_normal(&r);
        for (int64_t i = 0; i < cols; i++) x[i] = (float)((tt__rng_normal(&r) + common) * (0.5 + (double)(i * 7 % cols) / (double)cols));
        for (int64_t i = 0; i < cols; i++)
            for (int64_t k = 0; k < cols; k++) l.H[i * cols + k] += x[i] * x[k] / (float)T;
    }
    for (int64_t i = 0; i < cols && identity; i++) l.H[i * cols + i] = 1;
    for (int64_t i = 0; i < cols; i++) l.sumsq[i] = l.H[i * cols + i];
    l.stats = (tt_stats){.n = cols, .tokens = T, .hessian = l.H, .sumsq = l.sumsq};
    tt__free(x);
    return l;
}

static void free_layer(layer *l) {
    tt__free(l->W);
    tt__free(l->H);
    tt__free(l->sumsq);
}

static tt_draft draft_of(const layer *l) {
    tt_err err = {0};
    tt_draft d;
    TT_CHECK_OK(tt__draft_init(&d, "w", 0, l->rows, l->cols, &err));
    memcpy(d.W, l->W, (size_t)(l->rows * l->cols) * sizeof(float));
    return d;
}

/* One recipe on a copy of the layer; the draft is the caller's. */
static tt_status apply(tt_ctx *ctx, const char *recipe, const layer *l, tt_draft *d, tt_err *err) {
    tt_recipe *r = NULL;
    *d = draft_of(l);
    tt_status st = tt_recipe_parse(recipe, strlen(recipe), &r, err);
    for (size_t i = 0; st == TT_OK && i < tt_recipe_step_count(r); i++) {
        const tt_method *m = tt__method_of(tt_recipe_get_method(r, i));
        tt_knobs k = {r, i};
        if (m->applies) st = m->applies(NULL, &k, err);
        if (st == TT_OK) st = m->compress->matrix(ctx, &k, d, &l->stats, err);
    }
    tt_recipe_free(r);
    return st;
}

static double output_error(const layer *l, const float *W) {
    double sum = 0;
    for (int64_t r = 0; r < l->rows; r++)
        for (int64_t i = 0; i < l->cols; i++) {
            double e = (double)l->W[r * l->cols + i] - W[r * l->cols + i], s = 0;
            for (int64_t k = 0; k < l->cols; k++) s += (double)l->H[i * l->cols + k] * ((double)l->W[r * l->cols + k] - W[r * l->cols + k]);
            sum += e * s;
        }
    return sum;
}

static int64_t zeros(const tt_draft *d, int64_t at, int64_t n) {
    int64_t z = 0;
    for (int64_t i = at; i < at + n; i++) z += d->W[i] == 0;
    return z;
}

/* The operator of a draft holds what the draft says. */
static void check_stored(tt_ctx *ctx, tt_draft *d, const char *format, const char *label) {
    tt_err err = {0};
    tt_linop *op;
    char got[64];
    float *W = tt__alloc((size_t)(d->rows * d->cols) * sizeof *W);
    TT_CHECK_OK(tt__draft_finish(ctx, d, format, &op, &err));
    tt__linop_label(op, got, sizeof got);
    TT_CHECK_STR(got, label);
    tt__linop_rows(op, 0, d->rows, W);
    for (int64_t i = 0; i < d->rows * d->cols; i++) {
        TT_CHECK_NEAR(W[i], d->W[i], d->bits ? 1e-6 * (fabsf(d->W[i]) + 1) : 1e-3 * fabsf(d->W[i]) + 1e-7);
        if (d->keep && !d->keep[i]) TT_CHECK(W[i] == 0);
    }
    tt__linop_free(op);
    tt__free(W);
}

/* ------------------------------------------------------------ textbook forms, f64, one column at a time ---- */

/* U with A^-1 = U^T U of the damped matrix, by Gauss-Jordan and a plain Cholesky of the inverse. */
static double *slow_factor(const float *H, int64_t n, const int32_t *perm, double damp) {
    double *A = tt__calloc((size_t)(n * 2 * n), sizeof *A), mean = 0, *V = tt__calloc((size_t)(n * n), sizeof *V);
    for (int64_t i = 0; i < n; i++) mean += (double)H[i * n + i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < n; k++) A[i * 2 * n + k] = (double)H[(perm ? perm[i] : i) * n + (perm ? perm[k] : k)] + (i == k ? damp * mean : 0);
        A[i * 2 * n + n + i] = 1;
    }
    for (int64_t p = 0; p < n; p++) {
        double inv = 1 / A[p * 2 * n + p];
        for (int64_t k = 0; k < 2 * n; k++) A[p * 2 * n + k] *= inv;
        for (int64_t i = 0; i < n; i++) {
            double f = A[i * 2 * n + p];
            for (int64_t k = 0; i != p && k < 2 * n; k++) A[i * 2 * n + k] -= f * A[p * 2 * n + k];
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = i; k < n; k++) {
            double s = A[i * 2 * n + n + k];
            for (int64_t p = 0; p < i; p++) s -= V[p * n + i] * V[p * n + k];
            V[i * n + k] = k == i ? sqrt(s) : s / V[i * n + i];
        }
    tt__free(A);
    return V;
}

/* Algorithm 1 of both papers with grids and mask given: keep [rows, cols] or NULL, scales of a draft or none. */
static double *slow_walk(const layer *l, const double *U, const int32_t *perm, const uint8_t *keep, const tt_draft *grids) {
    int64_t n = l->cols;
    double *W = tt__alloc((size_t)(l->rows * n) * sizeof *W);
    for (int64_t i = 0; i < l->rows * n; i++) W[i] = l->W[i];
    for (int64_t r = 0; r < l->rows; r++)
        for (int64_t i = 0; i < n; i++) {
            int64_t c = perm ? perm[i] : i;
            double w = W[r * n + c], q = w;
            if (grids) {
                int64_t g = r * tt__draft_groups(grids) + c / grids->group;
                double half = 1 << (grids->bits - 1), off = grids->halfgrid[g] ? half - 0.5 : half, s = grids->scales[g];
                double code = s != 0 ? nearbyint(w / s + off) : off;
                code = fmin(fmax(code, 0), 2 * half - 1);
                q = s * (code - off);
            }
            if (keep && !keep[r * n + c]) q = 0;
            double e = (w - q) / U[i * n + i];
            for (int64_t k = i; k < n; k++) W[r * n + (perm ? perm[k] : k)] -= e * U[i * n + k];
            W[r * n + c] = q;
        }
    return W;
}

/* A rounding at a tie or a threshold may fall the other way in f32; whole rows then differ. Nearly all must agree. */
static void check_rows_agree(const double *slow, const float *fast, int64_t rows, int64_t cols, double tol) {
    int64_t off = 0;
    for (int64_t r = 0; r < rows; r++) {
        bool same = true;
        for (int64_t c = 0; c < cols; c++) same &= fabs(slow[r * cols + c] - fast[r * cols + c]) <= tol;
        off += !same;
    }
    tt_test_note("%lld of %lld rows differ", (long long)off, (long long)rows);
    TT_CHECK(off * 50 <= rows);
}

/* ------------------------------------------------------------ masks ---- */

TT_CASE(keep_largest) {
    tt__rng r;
    tt__rng_seed(&r, 1);
    float s[1000];
    uint8_t keep[1000];
    for (int round = 0; round < 50; round++) {
        int64_t n = 1 + (int64_t)tt__rng_below(&r, 1000), prune = (int64_t)tt__rng_below(&r, (uint64_t)n + 1), gone = 0;
        for (int64_t i = 0; i < n; i++) s[i] = (float)tt__rng_below(&r, round % 2 ? 10 : 1000000) * (tt__rng_below(&r, 2) ? 1.0f : -1.0f);   /* ties; signs do not count */
        tt__keep_largest(s, n, prune, keep);
        float top_gone = -1, low_kept = INFINITY;
        for (int64_t i = 0; i < n; i++) {
            gone += !keep[i];
            if (keep[i]) low_kept = fminf(low_kept, fabsf(s[i]));
            else top_gone = fmaxf(top_gone, fabsf(s[i]));
        }
        TT_CHECK_EQ(gone, prune);
        TT_CHECK(top_gone <= low_kept);
    }
    float ties[4] = {1, 1, 1, 1};
    tt__keep_largest(ties, 4, 2, keep);
    TT_CHECK(!keep[0] && !keep[1] && keep[2] && keep[3]);
}

TT_CASE(patterns) {
    static const char *const good[] = {"unstructured", "2:4", "4:8", "1:4", "16:32"}, *const bad[] = {"", "4:2", "2:2", "0:4", "2:64", "2:4x", " 2:4", "+2:4", "2", "a:b", "02:4"};
    tt_err err = {0};
    tt_pattern p;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) TT_CHECK_OK(tt__pattern_parse(good[i], &p, &err));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) TT_CHECK_FAILS(TT_USAGE, tt__pattern_parse(bad[i], &p, &err));
}

TT_CASE(exact_sparsity) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(30, 200, false, 2);
    tt_draft d;
    TT_CHECK_OK(apply(ctx, "magnitude(sparsity=0.37)", &l, &d, &err));
    TT_CHECK_EQ(zeros(&d, 0, 6000), 2220);
    check_stored(ctx, &d, "auto", "sparseq(bits=16)");
    check_stored(ctx, &d, "gguf", "F16");
    tt__draft_free(&d);
    TT_CHECK_OK(apply(ctx, "wanda(sparsity=0.6)", &l, &d, &err));
    for (int64_t r = 0; r < 30; r++) TT_CHECK_EQ(zeros(&d, r * 200, 200), 120);
    tt__draft_free(&d);
    TT_CHECK_OK(apply(ctx, "sparsegpt(sparsity=0.5)", &l, &d, &err));
    int64_t first = 0;
    for (int64_t r = 0; r < 30; r++) first += zeros(&d, r * 200, 128);
    TT_CHECK_EQ(first, 30 * 64);                                        /* the stripe of the first 128 columns */
    TT_CHECK_EQ(zeros(&d, 0, 6000), 3000);
    check_stored(ctx, &d, "auto", "sparseq(bits=16)");
    tt__draft_free(&d);
    static const char *const nm[] = {"magnitude(pattern=2:4)", "wanda(pattern=2:4)", "sparsegpt(pattern=2:4)", "sparsegpt(pattern=2:4,bits=4)", "sparsegpt(pattern=2:4,bits=3,group=32)"};
    for (size_t i = 0; i < sizeof nm / sizeof *nm; i++) {
        TT_CHECK_OK(apply(ctx, nm[i], &l, &d, &err));
        for (int64_t at = 0; at < 6000; at += 4) {
            int kept = 0;
            for (int k = 0; k < 4; k++) kept += d.keep[at + k];
            TT_CHECK_EQ(kept, 2);
        }
        tt__draft_free(&d);
    }
    free_layer(&l);
    l = make_layer(5, 131, false, 3);                                   /* three columns at the end: 2 of 3 stay */
    TT_CHECK_OK(apply(ctx, "sparsegpt(pattern=2:4)", &l, &d, &err));
    for (int64_t r = 0; r < 5; r++) TT_CHECK_EQ(d.keep[r * 131 + 128] + d.keep[r * 131 + 129] + d.keep[r * 131 + 130], 2);
    tt__draft_free(&d);
    free_layer(&l);
}

/* ------------------------------------------------------------ wanda, magnitude, rtn ---- */

TT_CASE(wanda_textbook) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(20, 96, false, 4);
    tt_draft d;
    TT_CHECK_OK(apply(ctx, "wanda(sparsity=0.5)", &l, &d, &err));
    for (int64_t r = 0; r < l.rows; r++)
        for (int64_t c = 0; c < l.cols; c++) {
            int smaller = 0;
            double s = fabs((double)l.W[r * l.cols + c]) * sqrt((double)l.H[c * l.cols + c]);
            for (int64_t k = 0; k < l.cols; k++) smaller += fabs((double)l.W[r * l.cols + k]) * sqrt((double)l.H[k * l.cols + k]) < s;
            TT_CHECK_EQ(d.keep[r * l.cols + c], smaller >= 48);
            TT_CHECK(d.W[r * l.cols + c] == (smaller >= 48 ? l.W[r * l.cols + c] : 0));
        }
    tt__draft_free(&d);
    free_layer(&l);
}

/* Every weight sits on the level of its grid that is nearest to it. */
TT_CASE(rtn_rounds_to_the_nearest_level) {
    static const char *const recipes[] = {"rtn(bits=4)", "rtn(bits=3,group=32)", "rtn(bits=2,group=128)", "rtn(bits=4,format=own)", "rtn(bits=8)", "rtn(bits=5,sym=false)",
                                          "rtn(bits=4,sym=false,search=none)", "rtn(bits=4,group=row)", "rtn(bits=5)", "rtn(bits=2,sym=false)"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(19, 224, false, 5);                           /* a short last group for 64 and 128 */
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_draft d;
        tt_test_note("%s", recipes[i]);
        TT_CHECK_OK(apply(ctx, recipes[i], &l, &d, &err));
        for (int64_t k = 0; k < l.rows * l.cols; k++) {
            int64_t g = k / l.cols * tt__draft_groups(&d) + k % l.cols / d.group;
            double best = INFINITY, half = 1 << (d.bits - 1), off = d.mins ? 0 : d.halfgrid[g] ? half - 0.5 : half;
            for (int q = 0; q < 1 << d.bits; q++) best = fmin(best, fabs((double)d.scales[g] * (q - off) + (d.mins ? d.mins[g] : 0) - l.W[k]));
            TT_CHECK_NEAR(fabs((double)d.W[k] - l.W[k]), best, 1e-5);
        }
        tt__draft_free(&d);
    }
    free_layer(&l);
}

TT_CASE(storage) {
    static const struct { const char *recipe, *format, *label; } cases[] = {
        {"rtn(bits=4)", "auto", "Q4_0"}, {"rtn(bits=4,group=128)", "gguf", "Q4_0"}, {"rtn(bits=4,sym=false)", "auto", "Q4_1"}, {"rtn(bits=5)", "auto", "Q5_0"},
        {"rtn(bits=5,sym=false)", "auto", "Q5_1"}, {"rtn(bits=8)", "auto", "Q8_0"}, {"rtn(bits=3)", "auto", "group(bits=3,group=64)"},
        {"rtn(bits=2,group=32)", "own", "group(bits=2,group=32)"}, {"rtn(bits=4,format=own)", "own", "group(bits=4,group=64)"}, {"rtn(bits=4,group=row)", "auto", "Q4_0"},
        {"gptq(bits=4)", "auto", "Q4_0"}, {"gptq(bits=4,sym=false)", "gguf", "Q4_1"}, {"gptq(bits=8)", "auto", "Q8_0"}, {"gptq(bits=3)", "auto", "group(bits=3,group=64)"},
        {"gptq(bits=4,format=own,group=32)", "own", "group(bits=4,group=32)"}, {"sparsegpt(bits=4)", "auto", "sparseq(bits=4,group=64)"},
        {"sparsegpt(bits=4,format=gguf)", "gguf", "Q4_0"}, {"sparsegpt(bits=8,format=gguf)", "gguf", "Q8_0"}, {"sparsegpt(pattern=4:8,bits=2,group=32)", "auto", "sparseq(bits=2,group=32)"},
        {"wanda+rtn(bits=4)", "auto", "sparseq(bits=4,group=64)"}, {"wanda(pattern=2:4)+gptq(bits=3)", "auto", "sparseq(bits=3,group=64)"},
        {"rtn(bits=2,sym=false)", "auto", "group(bits=2,group=64,grid=min)"}, {"rtn(bits=3,sym=false,group=128)", "own", "group(bits=3,group=128,grid=min)"},
        {"rtn(bits=4,sym=false,format=own,group=32)", "own", "group(bits=4,group=32,grid=min)"}, {"gptq(bits=3,sym=false,group=32)", "auto", "group(bits=3,group=32,grid=min)"},
        {"gptq(bits=8,sym=false)", "auto", "group(bits=8,group=64,grid=min)"}, {"rtn(type=Q5_1)", "gguf", "Q5_1"}, {"rtn(type=Q4_0,importance=true)", "gguf", "Q4_0"}, {"rtn(type=F16)", "gguf", "F16"},
    };
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(21, 160, false, 6);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_draft d;
        tt_test_note("%s", cases[i].recipe);
        TT_CHECK_OK(apply(ctx, cases[i].recipe, &l, &d, &err));
        check_stored(ctx, &d, cases[i].format, cases[i].label);
        tt__draft_free(&d);
    }
    free_layer(&l);
    l = make_layer(7, 45, false, 7);                                    /* no whole blocks: our own operator, or refused */
    tt_draft d;
    tt_linop *op;
    TT_CHECK_OK(apply(ctx, "rtn(bits=4,format=own)", &l, &d, &err));
    check_stored(ctx, &d, "auto", "group(bits=4,group=64)");
    TT_CHECK_FAILS(TT_TARGET, tt__draft_finish(ctx, &d, "gguf", &op, &err));
    tt__draft_free(&d);
    TT_CHECK_FAILS(TT_TARGET, apply(ctx, "rtn(type=Q4_0)", &l, &d, &err));
    tt__draft_free(&d);
    free_layer(&l);
}

TT_CASE(recipes_that_make_no_sense) {
    static const char *const recipes[] = {"rtn+rtn", "gptq+rtn", "wanda+magnitude", "rtn+wanda", "magnitude+sparsegpt", "gptq(bits=8,sym=false,format=gguf)", "gptq(bits=3,format=gguf)",
                                          "gptq(block=64,group=128)", "sparsegpt(pattern=3:7)", "sparsegpt(pattern=4:2)", "sparsegpt(bits=3,format=gguf)", "rtn(type=Q4_0)+gptq"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    layer l = make_layer(4, 64, false, 8);
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_draft d;
        tt_test_note("%s", recipes[i]);
        TT_CHECK_FAILS(TT_USAGE, apply(ctx, recipes[i], &l, &d, &err));
        tt__draft_free(&d);
    }
    free_layer(&l);
}

/* ------------------------------------------------------------ the walk ---- */

/* Without correlations there is nothing to push on: rounding to nearest, bit for bit. */
TT_CASE(gptq_of_identity_is_rtn) {
    static const char *const args[] = {"bits=4", "bits=3,group=32", "bits=2,group=128", "bits=4,sym=false", "bits=8", "bits=4,group=row", "bits=4,format=own", "bits=5,search=none", "bits=2,sym=false", "bits=3,search=full", "bits=2,sym=false,search=full"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(37, 300, true, 9);
    for (size_t i = 0; i < sizeof args / sizeof *args; i++)
        for (int act = 0; act < 2; act++) {
            char a[96], b[96];
            tt_draft x, y;
            snprintf(a, sizeof a, "rtn(%s)", args[i]);
            snprintf(b, sizeof b, "gptq(%s,refine=-1%s)", args[i], act ? "" : ",act_order=false");
            tt_test_note("%s", b);
            TT_CHECK_OK(apply(ctx, a, &l, &x, &err));
            TT_CHECK_OK(apply(ctx, b, &l, &y, &err));
            TT_CHECK(!memcmp(x.W, y.W, (size_t)(l.rows * l.cols) * sizeof(float)));
            TT_CHECK(!memcmp(x.codes, y.codes, (size_t)(l.rows * l.cols)));
            TT_CHECK(!memcmp(x.scales, y.scales, (size_t)(l.rows * tt__draft_groups(&x)) * sizeof(float)));
            tt__draft_free(&x);
            tt__draft_free(&y);
        }
    free_layer(&l);
}

TT_CASE(gptq_textbook) {
    static const char *const recipes[] = {"gptq(bits=4,act_order=false,static_groups=true,refine=-1)", "gptq(bits=3,act_order=false,static_groups=true,group=32,refine=-1)", "gptq(bits=4,format=own,refine=-1)",
                                          "gptq(bits=4,act_order=false,group=row,refine=-1)", "gptq(bits=3,block=64,refine=-1)", "gptq(bits=4,act_order=false,refine=-1)"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(100, 200, false, 10);
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_draft d;
        int32_t order[200], *perm = strstr(recipes[i], "act_order=false") ? NULL : order;
        for (int32_t c = 0; c < 200; c++) {
            int rank = 0;
            for (int k = 0; k < 200; k++) rank += l.sumsq[k] > l.sumsq[c] || (l.sumsq[k] == l.sumsq[c] && k < c);
            order[rank] = c;
        }
        TT_CHECK_OK(apply(ctx, recipes[i], &l, &d, &err));
        double *U = slow_factor(l.H, 200, perm, 0.01), *W = slow_walk(&l, U, perm, NULL, &d);
        tt_test_note("%s", recipes[i]);
        check_rows_agree(W, d.W, l.rows, l.cols, 1e-4);
        tt__free(U);
        tt__free(W);
        tt__draft_free(&d);
    }
    free_layer(&l);
}

/* With its mask given, the walk is the exact update; and the mask is the threshold on w² / U_jj² where nothing was updated yet. */
TT_CASE(sparsegpt_textbook) {
    static const char *const recipes[] = {"sparsegpt(sparsity=0.5)", "sparsegpt(sparsity=0.75,block=64)", "sparsegpt(pattern=2:4)", "sparsegpt(bits=4,refine=-1)", "sparsegpt(pattern=4:8,bits=3,group=32,refine=-1)"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(100, 200, false, 11);
    double *U = slow_factor(l.H, 200, NULL, 0.01);
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_draft d;
        TT_CHECK_OK(apply(ctx, recipes[i], &l, &d, &err));
        double *W = slow_walk(&l, U, NULL, d.keep, d.bits ? &d : NULL);
        tt_test_note("%s", recipes[i]);
        check_rows_agree(W, d.W, l.rows, l.cols, 2e-4);
        tt__free(W);
        tt__draft_free(&d);
    }
    tt_draft d;
    TT_CHECK_OK(apply(ctx, "sparsegpt(sparsity=0.5)", &l, &d, &err));
    double top_gone = 0, low_kept = INFINITY;
    for (int64_t r = 0; r < l.rows; r++)
        for (int64_t c = 0; c < 128; c++) {
            double s = pow((double)l.W[r * 200 + c] / U[c * 200 + c], 2);
            if (d.keep[r * 200 + c]) low_kept = fmin(low_kept, s);
            else top_gone = fmax(top_gone, s);
        }
    TT_CHECK(top_gone <= low_kept * 1.001);
    tt__draft_free(&d);
    tt__free(U);
    free_layer(&l);
}

TT_CASE(repair_beats_plain_rounding) {
    static const char *const pairs[][2] = {{"gptq(bits=4)", "rtn(bits=4)"}, {"gptq(bits=3)", "rtn(bits=3)"}, {"gptq(bits=3,act_order=false)", "rtn(bits=3)"}, {"gptq(bits=4,sym=false)", "rtn(bits=4,sym=false)"},
                                           {"sparsegpt", "wanda"}, {"wanda", "magnitude"}, {"sparsegpt(bits=4)", "wanda+rtn(bits=4)"}, {"sparsegpt(pattern=2:4)", "wanda(pattern=2:4)"},
                                           {"rtn(bits=3)", "rtn(bits=3,search=none)"}, {"wanda+gptq(bits=3)", "wanda+rtn(bits=3)"}};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(64, 192, false, 12);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        tt_draft a, b;
        tt_test_note("%s against %s", pairs[i][0], pairs[i][1]);
        TT_CHECK_OK(apply(ctx, pairs[i][0], &l, &a, &err));
        TT_CHECK_OK(apply(ctx, pairs[i][1], &l, &b, &err));
        TT_CHECK(output_error(&l, a.W) < output_error(&l, b.W));
        tt__draft_free(&a);
        tt__draft_free(&b);
    }
    free_layer(&l);
}

/* ------------------------------------------------------------ hard cases ---- */

TT_CASE(dead_inputs_and_empty_groups) {
    static const char *const recipes[] = {"gptq(bits=4)", "gptq(bits=3,act_order=false)", "sparsegpt(bits=4)", "sparsegpt(sparsity=0.95,bits=2,group=32)", "rtn(bits=4)", "rtn(bits=4,sym=false)", "sparsegpt"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(17, 128, false, 13);
    for (int64_t i = 0; i < 128; i++) l.H[5 * 128 + i] = l.H[i * 128 + 5] = 0;
    for (int64_t r = 0; r < 17; r++)
        for (int64_t c = 64; c < 128; c++) l.W[r * 128 + c] = 0;
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_draft d;
        tt_linop *op;
        tt_test_note("%s", recipes[i]);
        TT_CHECK_OK(apply(ctx, recipes[i], &l, &d, &err));
        for (int64_t k = 0; k < 17 * 128; k++) TT_CHECK(isfinite(d.W[k]));
        TT_CHECK_OK(tt__draft_finish(ctx, &d, "auto", &op, &err));
        tt__linop_free(op);
        tt__draft_free(&d);
    }
    free_layer(&l);
}

TT_CASE(scales_beyond_16_bits) {
    static const char *const recipes[] = {"gptq(bits=4)", "sparsegpt(bits=4)", "rtn(bits=4)", "rtn(bits=4,sym=false)", "gptq(bits=3,act_order=true)"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(17, 64, false, 14);
    l.W[70] = 3e7f;
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_draft d;
        tt_test_note("%s", recipes[i]);
        TT_CHECK_FAILS(TT_FAIL, apply(ctx, recipes[i], &l, &d, &err));
        TT_CHECK(strstr(err.where, "w"));
        tt__draft_free(&d);
    }
    tt_draft d;
    tt_linop *op;
    TT_CHECK_OK(apply(ctx, "magnitude", &l, &d, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__draft_finish(ctx, &d, "auto", &op, &err));
    tt__draft_free(&d);
    free_layer(&l);
}

TT_CASE(threads_do_not_matter) {
    static const char *const recipes[] = {"sparsegpt(bits=4)", "gptq(bits=3)", "sparsegpt(pattern=4:8,bits=4)", "rtn(bits=4)"};
    tt_err err = {0};
    layer l = make_layer(70, 300, false, 15);
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_draft a, b;
        tt_test_note("%s", recipes[i]);
        TT_CHECK_OK(apply(tt_test_ctx(1, NULL), recipes[i], &l, &a, &err));
        TT_CHECK_OK(apply(tt_test_ctx(3, NULL), recipes[i], &l, &b, &err));
        TT_CHECK(!memcmp(a.W, b.W, (size_t)(l.rows * l.cols) * sizeof(float)));
        tt__draft_free(&a);
        tt__draft_free(&b);
    }
    free_layer(&l);
}

static tt_status out_of_memory(tt_ctx *ctx, const char *recipe, const layer *l, tt_err *err) {
    tt_draft d = {0};
    tt_recipe *r = NULL;
    TT_TRY(tt_recipe_parse(recipe, strlen(recipe), &r, err));
    tt_knobs k = {r, 0};
    tt_linop *op = NULL;
    tt_status st = tt__draft_init(&d, "w", 0, l->rows, l->cols, err);
    if (st == TT_OK) memcpy(d.W, l->W, (size_t)(l->rows * l->cols) * sizeof(float));
    if (st == TT_OK) st = tt__method_of(tt_recipe_get_method(r, 0))->compress->matrix(ctx, &k, &d, &l->stats, err);
    if (st == TT_OK) st = tt__draft_finish(ctx, &d, "auto", &op, err);
    tt__linop_free(op);
    tt__draft_free(&d);
    tt_recipe_free(r);
    return st;
}

TT_CASE(no_memory) {
    static const char *const recipes[] = {"sparsegpt(bits=4)", "gptq(bits=3,act_order=true)", "wanda", "rtn(bits=4)", "rtn(type=Q8_0)"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    layer l = make_layer(9, 96, false, 16);
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        bool fired = true;
        TT_CHECK_OK(out_of_memory(ctx, recipes[i], &l, &err));           /* grows the scratch once */
        for (uint64_t k = 1; fired; k++) {
            uint64_t before = tt__mem_now();
            tt__fault_set(TT_FAULT_ALLOC, k, TT_FAULT_ONCE);
            tt_status st = out_of_memory(ctx, recipes[i], &l, &err);
            fired = tt__fault_fired();
            tt__fault_set(TT_FAULT_ALLOC, 0, TT_FAULT_OFF);
            tt_test_note("%s, allocation %llu", recipes[i], (unsigned long long)k);
            TT_CHECK_EQ(st, fired ? TT_RESOURCE : TT_OK);
            TT_CHECK_EQ(tt__mem_now(), before);
        }
    }
    free_layer(&l);
}
