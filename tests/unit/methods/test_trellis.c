/* The method trellis: its walk against the textbook form (f64, an inverse by elimination), what each part is for, exact sizes, edges. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "linop/trellis.h"
#include "methods/method.h"
#include <stdio.h>

typedef struct layer { int64_t rows, cols; float *W, *H; } layer;

static layer make_layer(int64_t rows, int64_t cols, uint64_t seed) {
    layer l = {rows, cols, tt__calloc((size_t)(rows * cols), sizeof(float)), tt__calloc((size_t)(cols * cols), sizeof(float))};
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int64_t i = 0; i < rows * cols; i++) l.W[i] = (float)(tt__rng_normal(&r) * (0.02 + 0.01 * (double)(i / cols % 5)));
    float *x = tt__calloc((size_t)cols, sizeof *x);
    for (int64_t t = 0; t < 3 * cols; t++) {
        const double common = tt__rng_normal(&r);
        for (int64_t i = 0; i < cols; i++) x[i] = (float)((tt__rng_normal(&r) + common) * (0.3 + (double)(i * 7 % cols) / (double)cols));
        for (int64_t i = 0; i < cols; i++)
            for (int64_t k = 0; k < cols; k++) l.H[i * cols + k] += x[i] * x[k] / (float)(3 * cols);
    }
    tt__free(x);
    return l;
}

static void free_layer(layer *l) {
    tt__free(l->W);
    tt__free(l->H);
}

static tt_status apply(tt_ctx *ctx, const char *recipe, const layer *l, tt_draft *d, double *cost, tt_err *err) {
    tt_recipe *r = NULL;
    const tt_stats stats = {.n = l->cols, .tokens = 3 * l->cols, .hessian = l->H};
    TT_CHECK_EQ(tt__draft_init(d, "w", 0, l->rows, l->cols, err), TT_OK);
    memcpy(d->W, l->W, (size_t)(l->rows * l->cols) * sizeof(float));
    tt_status st = tt_recipe_parse(recipe, strlen(recipe), &r, err);
    for (size_t i = 0; st == TT_OK && i < tt_recipe_step_count(r); i++) {
        const tt_method *m = tt__method_of(tt_recipe_get_method(r, i));
        const tt_knobs k = {r, i};
        if (m->applies) st = m->applies(NULL, &k, err);
        if (st == TT_OK) st = m->compress->matrix(ctx, &k, d, &stats, err);
        if (st == TT_OK && cost) *cost = m->cost_bits(&k, l->rows, l->cols);
    }
    tt_recipe_free(r);
    return st;
}

/* Σ over rows of e H e^T. */
static double output_error(const layer *l, const float *W) {
    double sum = 0;
    for (int64_t r = 0; r < l->rows; r++)
        for (int64_t i = 0; i < l->cols; i++) {
            const double e = (double)l->W[r * l->cols + i] - (double)W[r * l->cols + i];
            double s = 0;
            for (int64_t k = 0; k < l->cols; k++) s += (double)l->H[i * l->cols + k] * ((double)l->W[r * l->cols + k] - (double)W[r * l->cols + k]);
            sum += e * s;
        }
    return sum;
}

static double loss_of(tt_ctx *ctx, const char *recipe, const layer *l) {
    tt_draft d;
    tt_err err = {0};
    TT_CHECK_OK(apply(ctx, recipe, l, &d, NULL, &err));
    const double loss = output_error(l, d.W);
    tt__draft_free(&d);
    return loss;
}

/* Inverse of the damped matrix by Gauss-Jordan. */
static double *slow_inverse(const float *H, int64_t n, double damp) {
    double *A = tt__calloc((size_t)(2 * n * n), sizeof *A), mean = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)H[i * n + i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < n; k++) A[i * 2 * n + k] = (double)H[i * n + k] + (i == k ? damp * mean : 0);
        A[i * 2 * n + n + i] = 1;
    }
    for (int64_t p = 0; p < n; p++) {
        const double inv = 1 / A[p * 2 * n + p];
        for (int64_t k = 0; k < 2 * n; k++) A[p * 2 * n + k] *= inv;
        for (int64_t i = 0; i < n; i++) {
            const double f = A[i * 2 * n + p];
            for (int64_t k = 0; i != p && k < 2 * n; k++) A[i * 2 * n + k] -= f * A[p * 2 * n + k];
        }
    }
    double *inverse = tt__calloc((size_t)(n * n), sizeof *inverse);
    for (int64_t i = 0; i < n; i++) memcpy(inverse + i * n, A + i * 2 * n + n, (size_t)n * sizeof *A);
    tt__free(A);
    return inverse;
}

static const void *segment(const tt_linop *op, const char *name) {
    tt_segment seg[8];
    for (int i = op->v->segments(op, seg) - 1; i >= 0; i--)
        if (!strcmp(seg[i].name, name)) return seg[i].data;
    return NULL;
}

/* The textbook keeps no factor: column j is decided, its error moved by row j of the inverse of what is left, the inverse loses column j (optimal brain
 * surgery). What was stored for a column must be what the code gives for the column as updated so. */
TT_CASE(walk_is_the_textbook_walk) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tt_err err = {0};
    layer l = make_layer(48, 70, 3);
    tt_draft d;
    TT_CHECK_OK(apply(ctx, "trellis(bits=2,states=10,hadamard=off,allocate=false,act_order=false,refit=false,sweeps=0)", &l, &d, NULL, &err));
    const uint16_t *scales = segment(d.op, "scales"), *gains = segment(d.op, "gains");
    const uint8_t *codes = segment(d.op, "codes");
    double *V = slow_inverse(l.H, l.cols, 0.01), *X = tt__calloc((size_t)(48 * 70), sizeof *X);
    float value[1 << 10], unit[48], weight[48], y[48], *room = tt__alloc(tt__trellis_room(10, 2));
    tt__trellis_values(10, value);
    for (int64_t i = 0; i < 48 * 70; i++) X[i] = (double)l.W[i];
    for (int64_t j = 0; j < 70; j++) {
        uint8_t again[12];
        double stored = 0, fresh = 0;
        const float t = tt__f16_to_f32(gains[j]) * TT_TRELLIS_SPREAD;
        for (int r = 0; r < 48; r++) {
            const float s = tt__f16_to_f32(scales[r]);
            unit[r] = (float)X[r * 70 + j] / (s * t), weight[r] = s * s * 1000;
        }
        tt__trellis_encode(ctx->k, 10, 2, value, unit, weight, 48, room, again, y);
        for (int r = 0; r < 48; r++) {
            const double s = (double)(tt__f16_to_f32(scales[r]) * t), v = (double)tt__trellis_value(tt__trellis_window(codes + 12 * j, 48, 2, 10, r)) / (double)TT_TRELLIS_SPREAD;
            TT_CHECK_NEAR(d.W[r * 70 + j], s * v, 1e-5 * fabs(s));
            stored += (X[r * 70 + j] - s * v) * (X[r * 70 + j] - s * v);
            fresh += (X[r * 70 + j] - s * (double)y[r]) * (X[r * 70 + j] - s * (double)y[r]);
        }
        tt_test_note("column %lld", (long long)j);
        TT_CHECK_NEAR(stored, fresh, 1e-3 * fresh);
        for (int64_t r = 0; r < 48; r++) {
            const double e = (X[r * 70 + j] - (double)d.W[r * 70 + j]) / V[j * 70 + j];
            for (int64_t k = j + 1; k < 70; k++) X[r * 70 + k] -= e * V[j * 70 + k];
        }
        for (int64_t a = j + 1; a < 70; a++)
            for (int64_t b = j + 1; b < 70; b++) V[a * 70 + b] -= V[a * 70 + j] * V[j * 70 + b] / V[j * 70 + j];
    }
    tt__free(V), tt__free(X), tt__free(room);
    tt__draft_free(&d);
    free_layer(&l);
}

TT_CASE(parts_are_worth_their_while) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer l = make_layer(192, 96, 5);
    const double plain = loss_of(ctx, "trellis(bits=2,states=10,allocate=false,refit=false,sweeps=0)", &l);
    const double refitted = loss_of(ctx, "trellis(bits=2,states=10,allocate=false,sweeps=0)", &l), swept = loss_of(ctx, "trellis(bits=2,states=10,allocate=false,sweeps=1)", &l);
    const double allocated = loss_of(ctx, "trellis(bits=2,states=10)", &l), scalar = loss_of(ctx, "gptq(bits=2,group=64)", &l);
    tt_test_note("plain %g, refit %g, sweep %g, rates %g; gptq %g", plain, refitted, swept, allocated, scalar);
    TT_CHECK(refitted < plain && swept < refitted && allocated < swept * 1.02 && allocated < 0.85 * scalar);
    TT_CHECK(loss_of(ctx, "trellis(bits=3,states=10)", &l) < 0.85 * loss_of(ctx, "gptq(bits=3,group=64)", &l));
    TT_CHECK(loss_of(ctx, "trellis(bits=2.5,states=10)", &l) < 0.8 * allocated);
    free_layer(&l);
}

TT_CASE(sizes_are_exact_and_threads_do_not_matter) {
    tt_ctx *one = tt_test_ctx(1, NULL), *three = tt_test_ctx(3, NULL);
    static const char *const recipes[] = {"trellis(states=10,sweeps=1)", "trellis(bits=2.3,states=10,group=32,sweeps=0)", "trellis(bits=1.5,states=10,hadamard=off)", "trellis(bits=3,states=10,hadamard=64,allocate=false)"};
    static const int64_t shapes[][2] = {{192, 64}, {40, 96}, {7, 65}, {1, 33}, {300, 1}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
            layer l = make_layer(shapes[s][0], shapes[s][1], s);
            tt_draft a, b;
            tt_err err = {0};
            double cost = 0;
            tt_test_note("%s on %lld x %lld", recipes[i], (long long)l.rows, (long long)l.cols);
            TT_CHECK_OK(apply(one, recipes[i], &l, &a, &cost, &err));
            TT_CHECK_OK(apply(three, recipes[i], &l, &b, NULL, &err));
            TT_CHECK_NEAR(cost * (double)(l.rows * l.cols), 8.0 * (double)tt__linop_bytes(a.op), 1e-6);
            TT_CHECK(!memcmp(a.W, b.W, (size_t)(l.rows * l.cols) * sizeof(float)));
            tt__draft_free(&a);
            tt__draft_free(&b);
            free_layer(&l);
        }
}

TT_CASE(edges) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    tt_draft d;
    layer l = make_layer(20, 64, 9);
    TT_CHECK_EQ(apply(ctx, "trellis(bits=2.5,allocate=false)", &l, &d, NULL, &err), TT_USAGE);
    tt__draft_free(&d);
    TT_CHECK_EQ(apply(ctx, "magnitude(sparsity=0.5)+trellis(bits=2)", &l, &d, NULL, &err), TT_USAGE);
    tt__draft_free(&d);
    memset(l.W, 0, (size_t)(l.rows * l.cols) * sizeof(float));                 /* nothing to code */
    TT_CHECK_OK(apply(ctx, "trellis(states=10)", &l, &d, NULL, &err));
    for (int64_t i = 0; i < l.rows * l.cols; i++) TT_CHECK_EQ(d.W[i], 0);
    tt__draft_free(&d);
    free_layer(&l);
    l = make_layer(20, 64, 9);
    for (int64_t k = 0; k < 64; k++) l.H[5 * 64 + k] = l.H[k * 64 + 5] = 0;    /* an input that was always 0; a row of zeros */
    memset(l.W + 3 * 64, 0, 64 * sizeof(float));
    TT_CHECK_OK(apply(ctx, "trellis(states=10,hadamard=off)", &l, &d, NULL, &err));
    for (int64_t r = 0; r < 20; r++) TT_CHECK_EQ(d.W[r * 64 + 5], 0);
    for (int64_t c = 0; c < 64; c++) TT_CHECK_EQ(d.W[3 * 64 + c], 0);
    tt__draft_free(&d);
    memset(l.H, 0, 64 * 64 * sizeof(float));
    TT_CHECK_OK(apply(ctx, "trellis(states=10)", &l, &d, NULL, &err));
    tt__draft_free(&d);
    free_layer(&l);
}
