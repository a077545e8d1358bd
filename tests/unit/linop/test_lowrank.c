/* Thin factors beside an operator: products on every path against the dense sum, gradients against differences, state through a round trip, hostile
 * state refused. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "linop/linop.h"
#include <math.h>

enum { ROWS = 70, COLS = 160, MOST_T = 600, MOST_RANK = 40 };

static void noise(uint64_t seed, float *x, int64_t n, double scale) {
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * tt__rng_normal(&r));
}

static tt_linop *make(tt_ctx *ctx, const char *type, int64_t rank, float scale, tt_dtype base_type) {
    static float W[ROWS * COLS], a[MOST_RANK * COLS], b[ROWS * MOST_RANK];
    tt_linop *base, *A, *B, *op;
    tt_err err = {0};
    noise(1, W, ROWS * COLS, 0.3);
    noise(2, a, rank * COLS, 0.2);
    noise(3, b, ROWS * rank, 0.2);
    TT_CHECK_OK(tt__linop_encode(ctx, base_type, W, ROWS, COLS, &base, &err));
    TT_CHECK_OK(tt__linop_factor(ctx, type, a, rank, COLS, &A, &err));
    TT_CHECK_OK(tt__linop_factor(ctx, type, b, ROWS, rank, &B, &err));
    TT_CHECK_OK(tt__linop_lowrank(ctx, base, true, A, B, scale, &op, &err));
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_grad_scratch(ctx, op), &err));
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_scratch(ctx, op), &err));
    return op;
}

static void check_products(tt_ctx *ctx, const tt_linop *op, int64_t T, bool fast) {
    static float X[MOST_T * COLS], Y[MOST_T * ROWS], G[MOST_T * ROWS], dX[MOST_T * COLS], W[ROWS * COLS];
    double size = 0, off = 0;
    tt_act act;
    void *ws = tt__alloc(tt__act_bytes(T, COLS));
    noise(4, X, T * COLS, 1);
    noise(5, G, T * ROWS, 1);
    noise(6, dX, T * COLS, 1);
    tt__linop_rows(op, 0, ROWS, W);
    tt__act_prepare(ctx, &act, X, COLS, T, COLS, fast, fast ? ws : NULL);
    tt__linop_apply(ctx, op, &act, Y, ROWS);
    for (int64_t t = 0; t < T; t++)
        for (int64_t r = 0; r < ROWS; r++) {
            double y = 0;
            for (int64_t c = 0; c < COLS; c++) y += (double)W[r * COLS + c] * (double)X[t * COLS + c];
            off += pow((double)Y[t * ROWS + r] - y, 2), size += y * y;
        }
    TT_CHECK(off <= (fast ? 1e-4 : 1e-10) * size);                   /* fast: activations in 8 bits, each within 0.4 % of the largest of its 32 */
    float before = dX[7];
    tt__linop_apply_t(ctx, op, G, ROWS, T, dX, COLS, true, false);
    double want = (double)before;
    for (int64_t r = 0; r < ROWS; r++) want += (double)G[r] * (double)W[r * COLS + 7];
    TT_CHECK_NEAR(dX[7], want, 1e-4);
    tt__linop_apply_t(ctx, op, G, ROWS, T, dX, COLS, false, false);
    TT_CHECK_NEAR(dX[7], want - (double)before, 1e-4);
    tt__free(ws);
}

TT_CASE(products) {
    static const char *const types[] = {"f32", "f16", "q8"};
    static const int64_t tokens[] = {1, 2, 4, 8, 9, 33, MOST_T}, ranks[] = {1, 8, 40};
    for (const char *const *level = tt__kernels_levels(); *level; level++) {
        tt_ctx *ctx = tt_test_ctx(2, *level);
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < 3; k++) {
                tt_linop *op = make(ctx, types[i], ranks[k], 0.5f, TT_Q4_0);
                for (int t = 0; t < 7; t++)
                    for (int fast = 0; fast < 2; fast++) {
                        tt_test_note("%s: factors %s, rank %d, %d tokens, fast %d", *level, types[i], (int)ranks[k], (int)tokens[t], fast);
                        check_products(ctx, op, tokens[t], fast);
                    }
                tt__linop_free(op);
            }
    }
}

/* decode: base + scale B A; any rectangle of it. */
TT_CASE(decodes_to_the_sum) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    static float W[ROWS * COLS], piece[ROWS * COLS], a[8 * COLS], b[ROWS * 8];
    tt_linop *op = make(ctx, "f32", 8, 3, TT_Q8_0);
    noise(2, a, 8 * COLS, 0.2);
    noise(3, b, ROWS * 8, 0.2);
    tt__linop_rows(op, 0, ROWS, W);
    tt__linop_rows(tt__linop_base(op), 0, ROWS, piece);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) {
            double w = (double)piece[r * COLS + c];
            for (int k = 0; k < 8; k++) w += 3 * (double)b[r * 8 + k] * (double)a[k * COLS + c];
            TT_CHECK_NEAR(W[r * COLS + c], w, 1e-5);
        }
    op->v->decode(op, 11, 31, 64, 128, piece, 64);
    for (int r = 11; r < 31; r++)
        for (int c = 64; c < 128; c++) TT_CHECK(piece[(r - 11) * 64 + c - 64] == W[r * COLS + c]);
    tt__linop_free(op);
}

TT_CASE(gradients) {
    enum { T = 530 };
    static float X[T * COLS], G[T * ROWS], grads[3][2][MOST_RANK * COLS], W[ROWS * COLS];
    tt_err err = {0};
    noise(7, X, T * COLS, 0.3);
    noise(8, G, T * ROWS, 0.3);
    memset(grads, 0, sizeof grads);
    for (int threads = 1; threads <= 3; threads++) {
        tt_ctx *ctx = tt_test_ctx(threads, NULL);
        tt_linop *from = make(ctx, threads == 3 ? "q8" : "f32", 8, 0.5f, TT_Q4_0), *op;
        tt_param p[TT_MAX_PARAMS];
        TT_CHECK_OK(tt__linop_trainable(ctx, from, &op, &err));
        TT_CHECK_EQ(tt__linop_params(op, p), 2);
        float *grad[TT_MAX_PARAMS] = {grads[threads - 1][0], grads[threads - 1][1]};
        tt__linop_grad_params(ctx, op, X, COLS, G, ROWS, T, grad);
        if (threads == 2) TT_CHECK(!memcmp(grads[0], grads[1], sizeof grads[0]));
        for (int i = 0; i < 2; i++)
            for (int k = 0; k < 5; k++) {
                const int64_t j = k * (p[i].n - 1) / 4;
                const float at = p[i].x[j];
                double value[2];
                for (int side = 0; side < 2; side++) {
                    p[i].x[j] = side ? at + 1 : at - 1;      /* linear in each number */
                    TT_CHECK_OK(tt__linop_params_changed(ctx, op, &err));
                    tt__linop_rows(op, 0, ROWS, W);
                    value[side] = 0;
                    for (int t = 0; t < T; t++)
                        for (int r = 0; r < ROWS; r++) {
                            double y = 0;
                            for (int c = 0; c < COLS; c++) y += (double)W[r * COLS + c] * (double)X[t * COLS + c];
                            value[side] += y * (double)G[t * ROWS + r];
                        }
                }
                p[i].x[j] = at;
                TT_CHECK_OK(tt__linop_params_changed(ctx, op, &err));
                TT_CHECK_NEAR(grad[i][j], (value[1] - value[0]) / ((double)(at + 1) - (double)(at - 1)), 2e-4 * (fabs((double)grad[i][j]) + 1));
            }
        tt__linop_free(op);
        tt__linop_free(from);
    }
}

TT_CASE(state_comes_back) {
    static const char *const types[] = {"f32", "f16", "q8"};
    static float a[ROWS * COLS], b[ROWS * COLS];
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    for (int i = 0; i < 3; i++) {
        tt_linop *op = make(ctx, types[i], 8, 0.1f, TT_Q4_1), *again;
        tt_segment seg[8], less[8];
        char text[160];
        const int n = op->v->segments(op, seg);
        op->v->describe(op, text, sizeof text);
        tt_test_note("%s", text);
        TT_CHECK_OK(op->v->load(ctx, text, ROWS, COLS, seg, n, &again, &err));
        tt__linop_rows(op, 0, ROWS, a);
        tt__linop_rows(again, 0, ROWS, b);
        TT_CHECK(!memcmp(a, b, sizeof a));
        TT_CHECK_EQ(tt__linop_bytes(op), tt__linop_bytes(again));
        tt__linop_free(again);
        for (int drop = 0; drop < n; drop++) {
            int m = 0;
            for (int k = 0; k < n; k++) if (k != drop) less[m++] = seg[k];
            TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, text, ROWS, COLS, less, m, &again, &err));
        }
        TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, text, ROWS + 1, COLS, seg, n, &again, &err));
        tt__linop_free(op);
    }
}

TT_CASE(hostile_state_is_refused) {
    static const char *const bad[] = {
        "", "rank=8", "rank=8,scale=1", "rank=8,scale=1;dense(type=F32)", "rank=8,scale=1;dense(type=F32);dense(type=F32)", "rank=0,scale=1;dense(type=F32);dense(type=F32);dense(type=F32)",
        "rank=99999,scale=1;dense(type=F32);dense(type=F32);dense(type=F32)", "rank=8,scale=nan;dense(type=F32);dense(type=F32);dense(type=F32)",
        "rank=8,scale=1;lowrank(rank=1,scale=1);dense(type=F32);dense(type=F32)", "rank=8,scale=1;dense;dense(type=F32);dense(type=F32)",
        "rank=8,scale=1;dense)type=F32(;dense(type=F32);dense(type=F32)", "rank=8,scale=1;nothing(type=F32);dense(type=F32);dense(type=F32)",
        "rank=8,scale=1;dense(type=F32)x;dense(type=F32);dense(type=F32)",
    };
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    tt_linop *op = make(ctx, "f32", 8, 1, TT_F32), *again, *deeper, *A, *B;
    static float a[9 * COLS], b[ROWS * 8];
    tt_segment seg[8];
    const int n = op->v->segments(op, seg);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_test_note("%s", bad[i]);
        TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, bad[i], ROWS, COLS, seg, n, &again, &err));
    }
    TT_CHECK_OK(tt__linop_factor(ctx, "f32", a, 9, COLS, &A, &err));
    TT_CHECK_OK(tt__linop_factor(ctx, "f32", b, ROWS, 8, &B, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_lowrank(ctx, (tt_linop *)(uintptr_t)tt__linop_base(op), false, A, B, 1, &deeper, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_lowrank(ctx, op, false, A, B, 1, &deeper, &err));
    tt__linop_free(A);
    tt__linop_free(B);
    tt__linop_free(op);
}
