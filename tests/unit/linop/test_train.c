/* What trains in an operator: gradients of scales, minima and weights against the textbook sum over a dense dW and against differences of the
 * product, masters rounded to what is stored, the same bits on any number of threads. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "linop/trellis.h"
#include <math.h>

enum { ROWS = 37, COLS = 512, T = 21, MOST = ROWS * COLS };

static void noise(uint64_t seed, float *x, int64_t n, double scale) {
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * tt__rng_normal(&r));
}

static tt_linop *make_group(tt_ctx *ctx, int bits, int group, int64_t rows, int64_t cols, bool with_mins) {
    static uint8_t codes[MOST], half[MOST];
    static float scales[MOST], mins[MOST];
    tt__rng r;
    tt_linop *op;
    tt_err err = {0};
    tt__rng_seed(&r, 4);
    for (int64_t i = 0; i < rows * cols; i++) codes[i] = (uint8_t)tt__rng_below(&r, 1u << bits);
    for (int64_t i = 0; i < MOST; i++) {
        scales[i] = (float)(0.05 + 0.1 * tt__rng_unit(&r));
        mins[i] = (float)(0.1 * tt__rng_normal(&r));
        half[i] = (uint8_t)tt__rng_below(&r, 2);
    }
    TT_CHECK_OK(tt__linop_group(ctx, bits, group, codes, scales, half, with_mins ? mins : NULL, rows, cols, &op, &err));
    return op;
}

static tt_linop *make_standard(tt_ctx *ctx, tt_dtype type) {
    static float W[MOST];
    tt_linop *op;
    tt_err err = {0};
    noise(5, W, MOST, 0.3);
    TT_CHECK_OK(tt__linop_encode(ctx, type, W, ROWS, COLS, &op, &err));
    return op;
}

static tt_linop *make_trellis(tt_ctx *ctx, tt_trellis_form form, int64_t rows, int64_t cols) {
    static uint8_t codes[MOST], rates[COLS], signs[COLS];
    static uint16_t scales[MOST], gains[COLS];
    tt__rng r;
    tt_linop *op;
    tt_err err = {0};
    tt__rng_seed(&r, 4);
    for (int i = 0; i < MOST; i++) codes[i] = (uint8_t)tt__rng_below(&r, 256), scales[i] = tt__f32_to_f16((float)(0.5 + tt__rng_unit(&r)));
    for (int i = 0; i < COLS; i++) {
        rates[i] = (uint8_t)(i % 7 ? 1 + tt__rng_below(&r, 3) : 0), signs[i] = codes[i + 1];
        gains[i] = tt__f32_to_f16((float)(0.02 + 0.01 * tt__rng_unit(&r)));
    }
    TT_CHECK_OK(tt__linop_trellis(ctx, &form, rates, codes, scales, gains, form.turn ? signs : NULL, rows, cols, &op, &err));
    return op;
}

/* Σ Y ⊙ G over the batch, Y = X W^T in f64. */
static double product(const tt_linop *op, const float *X, const float *G) {
    static float w[COLS];
    double sum = 0;
    for (int64_t r = 0; r < op->rows; r++) {
        tt__linop_rows(op, r, r + 1, w);
        for (int64_t t = 0; t < T; t++) {
            double y = 0;
            for (int64_t c = 0; c < op->cols; c++) y += (double)w[c] * (double)X[t * op->cols + c];
            sum += y * (double)G[t * op->rows + r];
        }
    }
    return sum;
}

/* The operator is linear in its parameters, so a difference over any step that both roundings hold exactly is the gradient. */
static void check_differences(tt_ctx *ctx, tt_linop *op, const tt_param *p, const float *grad, const float *X, const float *G, double largest) {
    tt_err err = {0};
    for (int64_t k = 0; k < 12; k++) {
        const int64_t i = k * (p->n - 1) / 11;
        const float at = p->x[i];
        double value[2], where[2];
        for (int side = 0; side < 2; side++) {
            p->x[i] = side ? at + 0.25f : at + 0.125f;
            p->x[i] = op->dtype == TT_BF16 ? tt__bf16_to_f32(tt__f32_to_bf16(p->x[i])) : tt__f16_to_f32(tt__f32_to_f16(p->x[i]));
            TT_CHECK_OK(tt__linop_params_changed(ctx, op, &err));
            where[side] = (double)p->x[i];
            value[side] = product(op, X, G);
        }
        p->x[i] = at;
        TT_CHECK_OK(tt__linop_params_changed(ctx, op, &err));
        TT_CHECK_NEAR(grad[i], (value[1] - value[0]) / (where[1] - where[0]), 2e-4 * largest);
    }
}

/* The textbook: all of dW in f64, then the sum over the unit of dW times (w(p = 1) - w(p = 0)). */
static void check_params(tt_ctx *ctx, const tt_linop *from, const char *what) {
    static float X[T * COLS], G[T * ROWS], grads[2][TT_MAX_PARAMS][MOST], before[COLS], after[COLS];
    float *grad[2][TT_MAX_PARAMS];
    tt_param p[TT_MAX_PARAMS];
    tt_linop *op;
    tt_err err = {0};
    TT_CHECK_EQ(tt__linop_params((tt_linop *)(uintptr_t)from, p), 0);
    TT_CHECK_OK(tt__linop_trainable(ctx, from, &op, &err));
    const int n = tt__linop_params(op, p);
    TT_CHECK(n > 0);
    TT_CHECK_OK(tt__linop_params_changed(ctx, op, &err));                    /* nothing moved: the same weights */
    for (int64_t r = 0; r < op->rows; r++) {
        tt__linop_rows(from, r, r + 1, before);
        tt__linop_rows(op, r, r + 1, after);
        for (int64_t c = 0; c < op->cols; c++) TT_CHECK(before[c] == after[c]);
    }
    noise(6, X, T * op->cols, 1);
    noise(7, G, T * op->rows, 1);
    memset(grads, 0, sizeof grads);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < TT_MAX_PARAMS; i++) grad[k][i] = grads[k][i];
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_grad_scratch(ctx, op), &err));
    tt__linop_grad_params(ctx, op, X, op->cols, G, op->rows, T, grad[0]);
    for (int i = 0; i < n; i++) {
        double largest = 0;
        tt_test_note("%s, %s", what, p[i].name);
        for (int64_t j = 0; j < p[i].n; j++) if (fabs((double)grads[0][i][j]) > largest) largest = fabs((double)grads[0][i][j]);
        TT_CHECK(largest > 0.1);
        check_differences(ctx, op, &p[i], grads[0][i], X, G, largest);
    }
    tt__linop_grad_params(ctx, op, X, op->cols, G, op->rows, T, grad[0]);    /* adds; and one that is not wanted stays away */
    grad[1][0] = n > 1 ? NULL : grad[1][0];
    tt__linop_grad_params(ctx, op, X, op->cols, G, op->rows, T, grad[1]);
    for (int64_t j = 0; j < p[n - 1].n; j++) TT_CHECK(grads[0][n - 1][j] == 2 * grads[1][n - 1][j]);
    TT_CHECK(n == 1 || grads[1][0][0] == 0);
    tt__linop_free(op);
}

static const tt_dtype types[] = {TT_Q4_0, TT_Q4_1, TT_Q5_0, TT_Q5_1, TT_Q8_0, TT_IQ4_NL, TT_Q2_K, TT_Q3_K, TT_Q4_K, TT_Q5_K, TT_Q6_K, TT_F32, TT_F16, TT_BF16};

TT_CASE(standard_types) {
    for (const char *const *level = tt__kernels_levels(); *level; level++) {
        tt_ctx *ctx = tt_test_ctx(2, *level);
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
            tt_linop *op = make_standard(ctx, types[i]);
            check_params(ctx, op, tt__dtype(types[i])->label);
            tt__linop_free(op);
        }
    }
}

TT_CASE(groups) {
    static const int bits[] = {2, 3, 4, 8}, sizes[] = {32, 64, 128};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    for (int b = 0; b < 4; b++)
        for (int s = 0; s < 3; s++)
            for (int mins = 0; mins < 2; mins++)
                for (int cols = 72; cols <= 288; cols += 72) {               /* short last groups */
                    char what[64];
                    snprintf(what, sizeof what, "bits %d, group %d, mins %d, cols %d", bits[b], sizes[s], mins, cols);
                    tt_linop *op = make_group(ctx, bits[b], sizes[s], ROWS, cols, mins);
                    check_params(ctx, op, what);
                    tt__linop_free(op);
                }
}

static const struct { tt_trellis_form form; int64_t rows, cols; } trellises[] = {
    {{12, 48, 0, 0}, 37, 70}, {{12, 32, 32, 64}, 33, 192}, {{12, 16, 64, 256}, 37, 512}, {{10, 64, 128, 12}, 5, 144}, {{14, 48, 0, 64}, 37, 192}, {{12, 16, 0, 0}, 1, 2}};

TT_CASE(trellises) {
    for (const char *const *level = tt__kernels_levels(); *level; level++) {
        tt_ctx *ctx = tt_test_ctx(2, *level);
        for (size_t i = 0; i < sizeof trellises / sizeof *trellises; i++) {
            char what[64];
            tt_linop *op = make_trellis(ctx, trellises[i].form, trellises[i].rows, trellises[i].cols);
            snprintf(what, sizeof what, "%s, trellis %zu", *level, i);
            check_params(ctx, op, what);
            tt__linop_free(op);
        }
    }
}

/* A look-up is a product with a one in each row of G. */
static void check_rows_looked_up(tt_ctx *ctx, tt_linop *from) {
    static float dX[T * COLS], onehot[T * ROWS], grads[2][2][MOST];
    static int32_t ids[T];
    tt_err err = {0};
    tt_linop *op;
    tt_param p[TT_MAX_PARAMS];
    TT_CHECK_OK(tt__linop_trainable(ctx, from, &op, &err));
    const int n = tt__linop_params(op, p);
    noise(8, dX, T * op->cols, 1);
    memset(onehot, 0, sizeof onehot);
    memset(grads, 0, sizeof grads);
    for (int t = 0; t < T; t++) ids[t] = (int32_t)(t * 5 % 13), onehot[t * ROWS + ids[t]] = 1;
    float *a[TT_MAX_PARAMS] = {grads[0][0], grads[0][1]}, *b[TT_MAX_PARAMS] = {grads[1][0], grads[1][1]};
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_grad_scratch(ctx, op), &err));
    tt__linop_grad_params(ctx, op, dX, op->cols, onehot, ROWS, T, a);
    tt__linop_grad_rows(ctx, op, ids, T, dX, op->cols, b);
    for (int i = 0; i < n; i++)
        for (int64_t j = 0; j < p[i].n; j++) TT_CHECK_NEAR(grads[0][i][j], grads[1][i][j], 1e-3);      /* sums of up to 128 products of some units */
    tt__linop_free(op);
    tt__linop_free(from);
}

TT_CASE(rows_looked_up) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    check_rows_looked_up(ctx, make_group(ctx, 4, 64, ROWS, 200, true));
    check_rows_looked_up(ctx, make_trellis(ctx, (tt_trellis_form){12, 48, 0, 64}, ROWS, 192));
}

/* Many rows of weights: several strips. And no number of threads changes a bit. */
TT_CASE(threads_change_no_bit) {
    enum { R = 1300, C = 96 };
    static float X[T * C], G[T * R], W[R * C], grads[3][R * 3 * 2];
    noise(1, X, T * C, 1);
    noise(2, G, T * R, 1);
    noise(3, W, R * C, 1);
    memset(grads, 0, sizeof grads);
    for (int threads = 1; threads <= 3; threads++) {
        tt_ctx *ctx = tt_test_ctx(threads, NULL);
        tt_err err = {0};
        tt_linop *from, *op;
        TT_CHECK_OK(tt__linop_encode(ctx, TT_Q4_1, W, R, C, &from, &err));
        TT_CHECK_OK(tt__linop_trainable(ctx, from, &op, &err));
        float *grad[TT_MAX_PARAMS] = {grads[threads - 1], grads[threads - 1] + R * 3};
        TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_grad_scratch(ctx, op), &err));
        tt__linop_grad_params(ctx, op, X, C, G, R, T, grad);
        TT_CHECK(!memcmp(grads[0], grads[threads - 1], sizeof grads[0]));
        for (int64_t r = 0; r < R && threads == 1; r += 43) {                /* minima: the basis is 1 */
            double want = 0;
            for (int t = 0; t < T; t++)
                for (int c = 32; c < 64; c++) want += (double)G[t * R + r] * (double)X[t * C + c];
            TT_CHECK_NEAR(grad[1][r * 3 + 1], want, 1e-3);
        }
        tt__linop_free(op);
        tt__linop_free(from);
    }
}

/* Sums over all rows too. */
TT_CASE(threads_change_no_bit_of_shared_gains) {
    enum { R = 560, C = 32 };
    static float X[T * C], G[T * R], grads[3][R + C];
    noise(1, X, T * C, 1);
    noise(2, G, T * R, 1);
    memset(grads, 0, sizeof grads);
    for (int threads = 1; threads <= 3; threads++) {
        tt_ctx *ctx = tt_test_ctx(threads, NULL);
        tt_err err = {0};
        tt_linop *from = make_trellis(ctx, (tt_trellis_form){12, 64, 0, 32}, R, C), *op;
        TT_CHECK_OK(tt__linop_trainable(ctx, from, &op, &err));
        float *grad[TT_MAX_PARAMS] = {grads[threads - 1], grads[threads - 1] + R};
        TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_grad_scratch(ctx, op), &err));
        tt__linop_grad_params(ctx, op, X, C, G, R, T, grad);
        TT_CHECK(grads[0][R + 1] != 0 && !memcmp(grads[0], grads[threads - 1], sizeof grads[0]));
        tt__linop_free(op);
        tt__linop_free(from);
    }
}

TT_CASE(masters_meet_the_file) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    tt_param p[TT_MAX_PARAMS];
    tt_linop *from = make_group(ctx, 4, 64, ROWS, 128, false), *op, *again;
    tt_segment seg[8];
    float a[128], b[128];
    TT_CHECK_OK(tt__linop_trainable(ctx, from, &op, &err));
    tt__linop_params(op, p);
    p[0].x[0] = -3;                                                          /* no scale of a grid without minima is negative */
    p[0].x[1] = 1e9f;
    p[0].x[2] = 0.1f;
    TT_CHECK_OK(tt__linop_params_changed(ctx, op, &err));
    TT_CHECK(p[0].x[0] == 0 && p[0].x[1] == 65504 && p[0].x[2] == 0.1f);     /* the master itself is not rounded */
    tt__linop_rows(op, 0, 1, a);
    for (int c = 0; c < 64; c++) TT_CHECK(a[c] == 0);
    const int n = op->v->segments(op, seg);                                  /* what is stored decodes to what was trained through */
    TT_CHECK_OK(op->v->load(ctx, "bits=4,group=64", ROWS, 128, seg, n, &again, &err));
    for (int64_t r = 0; r < ROWS; r++) {
        tt__linop_rows(op, r, r + 1, a);
        tt__linop_rows(again, r, r + 1, b);
        TT_CHECK(!memcmp(a, b, sizeof a));
    }
    p[0].x[5] = NAN;
    TT_CHECK_FAILS(TT_FAIL, tt__linop_params_changed(ctx, op, &err));
    tt__linop_free(again);
    tt__linop_free(op);
    tt__linop_free(from);
}

TT_CASE(masters_of_a_trellis_meet_the_file) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    tt_param p[TT_MAX_PARAMS];
    tt_linop *from = make_trellis(ctx, (tt_trellis_form){12, 48, 64, 64}, ROWS, 128), *op, *again;
    tt_segment seg[8];
    float a[128], b[128];
    TT_CHECK_OK(tt__linop_trainable(ctx, from, &op, &err));
    TT_CHECK_EQ(tt__linop_params(op, p), 2);
    for (int64_t i = 0; i < p[0].n; i++) p[0].x[i] *= 1 + 0.01f * (float)(i % 7);
    for (int64_t i = 0; i < p[1].n; i++) p[1].x[i] *= 1 + 0.01f * (float)(i % 5);
    p[0].x[0] = -3, p[0].x[1] = 1e9f, p[1].x[3] = -1e-3f;                       /* scales and gains are not negative */
    TT_CHECK_OK(tt__linop_params_changed(ctx, op, &err));
    TT_CHECK(p[0].x[0] == 0 && p[0].x[1] == 65504 && p[1].x[3] == 0);
    const int n = op->v->segments(op, seg);
    TT_CHECK_OK(op->v->load(ctx, "states=12,tile=48,group=64,turn=64", ROWS, 128, seg, n, &again, &err));
    for (int64_t r = 0; r < ROWS; r++) {
        tt__linop_rows(op, r, r + 1, a);
        tt__linop_rows(again, r, r + 1, b);
        TT_CHECK(!memcmp(a, b, sizeof a));
        tt__linop_rows(from, r, r + 1, b);
        TT_CHECK(memcmp(a, b, sizeof a) != 0);
    }
    p[1].x[5] = INFINITY;
    TT_CHECK_FAILS(TT_FAIL, tt__linop_params_changed(ctx, op, &err));
    tt__linop_free(again);
    tt__linop_free(op);
    tt__linop_free(from);
}

typedef struct source { tt_ctx *ctx; tt_linop *op; } source;

static tt_status make_trainable(void *arg, tt_err *err) {
    source *s = arg;
    tt_linop *op = NULL;
    const tt_status st = tt__linop_trainable(s->ctx, s->op, &op, err);
    tt__linop_free(op);
    return st;
}

TT_CASE(no_memory_to_train) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    source s = {ctx, make_trellis(ctx, (tt_trellis_form){12, 48, 64, 64}, ROWS, 128)};
    TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, make_trainable, &s) > 1);
    tt__linop_free(s.op);
}
