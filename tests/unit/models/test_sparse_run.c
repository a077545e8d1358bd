/* Sparse weights in every form they run as: the same values, and no more memory than was asked for. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "models/sparse_run.h"

static tt_linop *sparse_matrix(tt_ctx *ctx, int bits, int64_t rows, int64_t cols, float tiny) {
    const int64_t n = rows * cols, groups = rows * ((cols + 63) / 64);
    uint8_t *keep = tt__alloc((size_t)n), *codes = tt__alloc((size_t)n), *half = tt__alloc((size_t)groups);
    float *scales = tt__alloc((size_t)groups * sizeof *scales);
    tt__rng r;
    tt_linop *op = NULL;
    tt_err err = {0};
    tt__rng_seed(&r, (uint64_t)n);
    for (int64_t i = 0; i < n; i++) keep[i] = (uint8_t)tt__rng_below(&r, 2), codes[i] = (uint8_t)tt__rng_below(&r, 1u << bits);
    for (int64_t i = 0; i < groups; i++) half[i] = (uint8_t)tt__rng_below(&r, 2), scales[i] = tiny > 0 ? tiny : (float)(0.01 + tt__rng_unit(&r));
    TT_CHECK_OK(tt__linop_sparseq(ctx, bits, 64, keep, codes, scales, half, NULL, rows, cols, &op, &err));
    tt__free(keep);
    tt__free(codes);
    tt__free(half);
    tt__free(scales);
    return op;
}

static float *values(const tt_linop *op) {
    float *W = tt__alloc((size_t)(op->rows * op->cols) * sizeof *W);
    tt__linop_rows(op, 0, op->rows, W);
    return W;
}

static void check_form(tt_run_format format, float tiny, const char *first, const char *second) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tt_weight w[4] = {{.op = sparse_matrix(ctx, 4, 100, 200, 0)}, {.op = sparse_matrix(ctx, 3, 20, 64, 0)}, {.op = NULL}, {.op = sparse_matrix(ctx, 4, 33, 65, tiny)}};
    tt_net net = {.ctx = ctx, .n_weights = 4, .weights = w};
    float *before[4] = {values(w[0].op), values(w[1].op), NULL, values(w[3].op)};
    const uint64_t bytes = tt__linop_bytes(w[0].op);
    TT_CHECK_OK(tt__net_sparse_to_run(ctx, &net, NULL, format, &err));
    tt_test_note("format %d: %s, %s", (int)format, w[0].op->v->name, w[3].op->v->name);
    if (first) TT_CHECK_STR(w[0].op->v->name, first);
    if (second) TT_CHECK_STR(w[3].op->v->name, second);
    TT_CHECK_STR(w[1].op->v->name, "sparseq");
    if (format == TT_RUN_KEEP) TT_CHECK(tt__linop_bytes(w[0].op) <= bytes * 1.25);              /* a small matrix: 100 rows are filled up to 112 */
    for (int i = 0; i < 4; i++) {
        if (!w[i].op) continue;
        float *after = values(w[i].op);
        for (int64_t k = 0; k < w[i].op->rows * w[i].op->cols; k++) TT_CHECK_EQ(after[k], before[i][k]);
        tt__free(after);
        tt__free(before[i]);
        tt__linop_free(w[i].op);
    }
}

TT_CASE(forms_hold_the_same) {
    check_form(TT_RUN_KEEP, 0, NULL, NULL);
    check_form(TT_RUN_AUTO, 0, NULL, NULL);
    check_form(TT_RUN_EXPAND, 0, "panel", "panel");
}

/* Half of 3 * 2^-24 is no 16-bit float: such a matrix stays. */
TT_CASE(what_cannot_be_halved_stays) { check_form(TT_RUN_EXPAND, 3 * 0x1p-24f, "panel", "sparseq"); }

TT_CASE(nothing_to_do) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_net net = {.ctx = ctx};
    TT_CHECK_OK(tt__net_sparse_to_run(ctx, &net, NULL, TT_RUN_AUTO, &err));
}

TT_CASE(no_memory) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    bool fired = true;
    for (uint64_t k = 0; fired; k++) {
        tt_weight w = {.op = sparse_matrix(ctx, 4, 20, 70, 0)};
        tt_net net = {.ctx = ctx, .n_weights = 1, .weights = &w};
        if (k) tt__fault_set(TT_FAULT_ALLOC, k, TT_FAULT_ONCE);
        tt_status st = tt__net_sparse_to_run(ctx, &net, NULL, TT_RUN_AUTO, &err);
        fired = !k || tt__fault_fired();
        tt__fault_set(TT_FAULT_ALLOC, 0, TT_FAULT_OFF);
        TT_CHECK_EQ(st, k && fired ? TT_RESOURCE : TT_OK);
        tt__linop_free(w.op);
    }
}
