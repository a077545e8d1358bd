/* slide2 against its textbook form: the best mask by trying all of them, the walk column by column, and what is stored. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "methods/weights/obs.h"
#include <math.h>

/* ------------------------------------------------------------ the mask ---- */

/* The largest Σ of scores over masks of columns at, at + 1 …, slot `slot` next; -1 where none is legal. */
static double best_from(const float *score, int n, int at, int slot, int slots) {
    if (slot == slots) return 0;
    double best = -1;
    for (int c = at > 2 * slot - 1 ? at : 2 * slot - 1; c <= 2 * slot + 2 && c < n; c++) {
        if (c < 0) continue;
        const double rest = best_from(score, n, c + 1, slot + 1, slots);
        if (rest >= 0 && score[c] + rest > best) best = score[c] + rest;
    }
    return best;
}

static void check_choice(int n, int ahead, tt__rng *r) {
    float score[64][TT_LANES] = {{0}}, keep[64][TT_LANES];
    int start[TT_LANES];
    for (int l = 0; l < TT_LANES; l++) {
        start[l] = ahead;
        for (int c = 0; c < n; c++) score[c][l] = (float)tt__rng_below(r, l % 2 ? 4 : 1000);
    }
    tt__slide2_choose((const float(*)[TT_LANES])score, n, start, keep);
    for (int l = 0; l < TT_LANES; l++) {
        float row[66];
        double sum = 0;
        int slot = 1 + ahead, last = -1;                    /* as if two columns with 1 + ahead kept ones lay in front */
        for (int c = 0; c < n; c++) {
            row[2 + c] = score[c][l];
            if (keep[c][l] == 0) continue;
            TT_CHECK(keep[c][l] == 1 && c + 2 >= 2 * slot - 1 && c + 2 <= 2 * slot + 2 && c > last);
            sum += score[c][l];
            last = c;
            slot++;
        }
        TT_CHECK_EQ(slot, (n + 3) / 2);
        TT_CHECK_NEAR(sum, best_from(row, n + 2, 2, 1 + ahead, (n + 3) / 2), 0);
    }
}

TT_CASE(mask_is_the_best_of_all) {
    tt__rng r;
    tt__rng_seed(&r, 1);
    for (int n = 1; n <= 18; n++)
        for (int ahead = n % 2 && n < 3 ? 0 : -1; ahead <= 1; ahead++) {
            if (n == 1 && ahead == 1) continue;
            tt_test_note("%d columns, ahead %d", n, ahead);
            for (int i = 0; i < 20; i++) check_choice(n, ahead, &r);
        }
}

/* Scores far apart in size, and ones that overflow when squared sums are taken, still give a legal mask. */
TT_CASE(extreme_scores) {
    static const float sizes[] = {0, 1e-38f, 1, 1e30f, 3e38f, INFINITY};
    static const int level[TT_LANES];
    float score[64][TT_LANES], keep[64][TT_LANES];
    tt__rng r;
    tt__rng_seed(&r, 2);
    for (int round = 0; round < 200; round++) {
        const int n = 1 + (int)tt__rng_below(&r, 64);
        uint8_t row[64];
        for (int c = 0; c < n; c++)
            for (int l = 0; l < TT_LANES; l++) score[c][l] = sizes[tt__rng_below(&r, 6)];
        tt__slide2_choose((const float(*)[TT_LANES])score, n, level, keep);
        for (int l = 0; l < TT_LANES; l++) {
            for (int c = 0; c < n; c++) row[c] = keep[c][l] != 0;
            TT_CHECK(tt__linop_slide2_fits(row, 1, n));
        }
    }
}

/* ------------------------------------------------------------ the walk ---- */

typedef struct layer { int64_t rows, cols; float *W, *H, *sumsq; tt_stats stats; } layer;

static layer make_layer(int64_t rows, int64_t cols, uint64_t seed) {
    layer l = {rows, cols, tt__alloc((size_t)(rows * cols) * sizeof(float)), tt__calloc((size_t)(cols * cols), sizeof(float)), tt__calloc((size_t)cols, sizeof(float)), {0}};
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int64_t i = 0; i < rows * cols; i++) l.W[i] = (float)tt__rng_normal(&r);
    float *x = tt__alloc((size_t)cols * sizeof *x);
    for (int64_t t = 0; t < 3 * cols; t++) {
        double common = tt__rng_normal(&r);
        for (int64_t i = 0; i < cols; i++) x[i] = (float)(tt__rng_normal(&r) + common);
        for (int64_t i = 0; i < cols * cols; i++) l.H[i] += x[i / cols] * x[i % cols] / (float)(3 * cols);
    }
    for (int64_t i = 0; i < cols; i++) l.sumsq[i] = l.H[i * cols + i];
    l.stats = (tt_stats){.n = cols, .tokens = 3 * cols, .hessian = l.H, .sumsq = l.sumsq};
    tt__free(x);
    return l;
}

static void free_layer(layer *l) {
    tt__free(l->W);
    tt__free(l->H);
    tt__free(l->sumsq);
}

static tt_status apply(tt_ctx *ctx, const char *recipe, const layer *l, tt_draft *d, tt_err *err) {
    tt_recipe *r = NULL;
    *d = (tt_draft){0};
    TT_TRY(tt_recipe_parse(recipe, strlen(recipe), &r, err));
    const tt_method *m = tt__method_of(tt_recipe_get_method(r, 0));
    tt_knobs k = {r, 0};
    tt_status st = tt__draft_init(d, "w", 0, l->rows, l->cols, err);
    if (st == TT_OK) memcpy(d->W, l->W, (size_t)(l->rows * l->cols) * sizeof(float));
    if (st == TT_OK && m->applies) st = m->applies(NULL, &k, err);
    if (st == TT_OK) st = m->compress->matrix(ctx, &k, d, &l->stats, err);
    tt_recipe_free(r);
    return st;
}

static double output_error(const layer *l, const float *W) {
    double sum = 0;
    for (int64_t r = 0; r < l->rows; r++)
        for (int64_t i = 0; i < l->cols; i++) {
            double s = 0;
            for (int64_t k = 0; k < l->cols; k++) s += (double)l->H[i * l->cols + k] * ((double)l->W[r * l->cols + k] - W[r * l->cols + k]);
            sum += ((double)l->W[r * l->cols + i] - W[r * l->cols + i]) * s;
        }
    return sum;
}

TT_CASE(between_unstructured_and_two_of_four) {
    static const char *const order[] = {"sparsegpt(sparsity=0.5)", "slide2(bits=0)", "sparsegpt(pattern=2:4)"};
    static const char *const joint[] = {"sparsegpt(sparsity=0.5,bits=4)", "slide2", "sparsegpt(pattern=2:4,bits=4)"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(96, 192, 3);
    for (int j = 0; j < 2; j++) {
        double last = 0;
        for (int i = 0; i < 3; i++) {
            tt_draft d;
            TT_CHECK_OK(apply(ctx, (j ? joint : order)[i], &l, &d, &err));
            tt_test_note("%s", (j ? joint : order)[i]);
            TT_CHECK(output_error(&l, d.W) > last);
            last = output_error(&l, d.W);
            tt__draft_free(&d);
        }
    }
    free_layer(&l);
}

TT_CASE(stored_as_it_runs) {
    static const struct { const char *recipe, *label; int64_t cols; } cases[] = {
        {"slide2", "slide2(bits=4,group=64)", 160}, {"slide2(group=128,step=8)", "slide2(bits=4,group=128)", 257}, {"slide2(step=64)", "slide2(bits=4,group=64)", 63},
        {"slide2(bits=0)", "sparseq(bits=16)", 131}, {"slide2(step=32,block=256)", "slide2(bits=4,group=64)", 300}, {"slide2", "slide2(bits=4,group=64)", 1},
        {"sparsegpt(pattern=2:4,bits=4)", "slide2(bits=4,group=64)", 130}, {"sparsegpt(pattern=2:4,bits=4,group=32)", "sparseq(bits=4,group=32)", 128},
        {"sparsegpt(pattern=2:4,bits=3)", "sparseq(bits=3,group=64)", 128}};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        layer l = make_layer(21, cases[i].cols, 5 + i);
        tt_draft d;
        tt_linop *op;
        char label[64];
        tt_test_note("%s, %lld columns", cases[i].recipe, (long long)cases[i].cols);
        TT_CHECK_OK(apply(ctx, cases[i].recipe, &l, &d, &err));
        TT_CHECK(tt__linop_slide2_fits(d.keep, d.rows, d.cols));
        TT_CHECK_OK(tt__draft_finish(ctx, &d, "auto", &op, &err));
        tt__linop_label(op, label, sizeof label);
        TT_CHECK_STR(label, cases[i].label);
        float *W = tt__alloc((size_t)(d.rows * d.cols) * sizeof *W);
        tt__linop_rows(op, 0, d.rows, W);
        for (int64_t k = 0; k < d.rows * d.cols; k++) {
            TT_CHECK_NEAR(W[k], d.W[k], d.bits ? 1e-6 * (fabsf(d.W[k]) + 1) : 1e-3 * fabsf(d.W[k]) + 1e-7);
            if (!d.keep[k]) TT_CHECK(W[k] == 0);
        }
        tt__free(W);
        tt__linop_free(op);
        tt__draft_free(&d);
        free_layer(&l);
    }
}

/* A model that is sparse in this pattern already keeps its mask. */
TT_CASE(projecting_what_fits_changes_no_mask) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(20, 128, 7);
    tt_draft d, e;
    for (int64_t i = 0; i < 20 * 128; i++)
        l.W[i] = i % 4 == 1 || i % 4 == 2 ? 0 : l.W[i] + copysignf(0.1f, l.W[i]);      /* far enough from 0 to count in a sum */
    for (int64_t i = 0; i < 128 * 128; i++) l.H[i] = i / 128 == i % 128;
    TT_CHECK_OK(apply(ctx, "slide2(bits=0)", &l, &d, &err));
    TT_CHECK(!memcmp(d.W, l.W, sizeof(float) * 20 * 128));
    tt__draft_free(&d);
    TT_CHECK_OK(apply(ctx, "slide2", &l, &d, &err));
    TT_CHECK_OK(apply(tt_test_ctx(1, NULL), "slide2", &l, &e, &err));
    TT_CHECK(!memcmp(d.W, e.W, sizeof(float) * 20 * 128));
    tt__draft_free(&d);
    tt__draft_free(&e);
    free_layer(&l);
}

TT_CASE(threads_do_not_matter) {
    tt_err err = {0};
    layer l = make_layer(70, 300, 8);
    tt_draft a, b;
    TT_CHECK_OK(apply(tt_test_ctx(1, NULL), "slide2(step=8)", &l, &a, &err));
    TT_CHECK_OK(apply(tt_test_ctx(3, NULL), "slide2(step=8)", &l, &b, &err));
    TT_CHECK(!memcmp(a.W, b.W, (size_t)(l.rows * l.cols) * sizeof(float)));
    tt__draft_free(&a);
    tt__draft_free(&b);
    free_layer(&l);
}

TT_CASE(no_memory) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    layer l = make_layer(9, 96, 9);
    bool fired = true;
    for (uint64_t k = 0; fired; k++) {
        tt_draft d;
        tt_linop *op = NULL;
        uint64_t before = tt__mem_now();
        if (k) tt__fault_set(TT_FAULT_ALLOC, k, TT_FAULT_ONCE);
        tt_status st = apply(ctx, "slide2", &l, &d, &err);
        if (st == TT_OK) st = tt__draft_finish(ctx, &d, "auto", &op, &err);
        fired = !k || tt__fault_fired();
        tt__fault_set(TT_FAULT_ALLOC, 0, TT_FAULT_OFF);
        tt__linop_free(op);
        tt__draft_free(&d);
        TT_CHECK_EQ(st, k && fired ? TT_RESOURCE : TT_OK);
        if (k) TT_CHECK_EQ(tt__mem_now(), before);
    }
    free_layer(&l);
}
