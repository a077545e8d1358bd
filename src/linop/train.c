/* Training of what an operator holds: the gradients of its scales and minima from that of its weights.
 *
 *     w[r, c] = Σ_i p_i[r, c / unit] b_i[r, c]       an operator is linear in its parameters p; b is the basis: the codes for a scale, 1 for a minimum
 *     dW = G^T X,   dp_i[r, u] += Σ_{c in u} dW[r, c] b_i[r, c]
 *
 * dW is made a strip of rows at a time (gemm.h) in the scratch of worker 0, behind what the product itself uses, and reduced there; no sum depends
 * on the thread count. An operator whose parameters are not of this form brings its own reduction of a strip. An embedding look-up is the case where G is a one in each row, so its dW is a few rows of dX.
 *
 * Cost: the product, 2 T rows cols, as much as backward through the weight.
 */
#include "linop/codes.h"

#include "base/util.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum { STRIP_FLOATS = 512 * 1024, STRIP_ROWS = 512, REDUCE_ROWS = 16 };

/* Whole tiles of REDUCE_ROWS. */
static int64_t strip_rows(const tt_linop *op) {
    const int64_t rows = STRIP_FLOATS / op->cols / REDUCE_ROWS * REDUCE_ROWS;
    return rows < REDUCE_ROWS ? REDUCE_ROWS : rows > STRIP_ROWS ? STRIP_ROWS : rows;
}

static size_t gemm_bytes(tt_ctx *ctx, const tt_linop *op) { return (tt__linop_scratch(ctx, op) + 63) & ~(size_t)63; }

/* gemm's part | a strip of dW; workers that reduce take a row of the basis each from their own gemm part. */
size_t tt__linop_grad_scratch(tt_ctx *ctx, const tt_linop *op) { return gemm_bytes(ctx, op) + sizeof(float) * (size_t)(strip_rows(op) * op->cols); }

tt_status tt__linop_trainable(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err) {
    char label[128];
    *out = NULL;
    tt__linop_label(op, label, sizeof label);
    TT_FAIL_IF(!op->v->trainable, err, TT_TARGET, "nothing in this operator can be trained||%s", label);
    return op->v->trainable(ctx, op, out, err);
}

int tt__linop_params(tt_linop *op, tt_param out[TT_MAX_PARAMS]) { return op->v->params ? op->v->params(op, out) : 0; }

tt_status tt__linop_params_changed(tt_ctx *ctx, tt_linop *op, tt_err *err) { return op->v->changed(ctx, op, err); }

tt_status tt__round_master(float *x, uint16_t *out, tt_err *err) {
    TT_FAIL_IF(!isfinite(*x), err, TT_FAIL, "a trained number is not finite");
    if (fabsf(*x) > 65504) *x = copysignf(65504, *x);
    *out = tt__f32_to_f16(*x + 0.0f);                    /* no -0 */
    return TT_OK;
}

typedef struct reduce_job { tt_ctx *ctx; const tt_linop *op; float *dW; int64_t r0, rows; const tt_param *param; int n; float *const *grad; } reduce_job;

/* One row of dW into the gradients of that row's parameters. */
static void reduce_row(const tt_linop *op, const tt_param *param, int n, int64_t r, const float *dW, float *basis, const tt_kernels *k, float *const *grad) {
    for (int i = 0; i < n; i++) {
        if (!grad[i]) continue;
        op->v->basis(op, i, r, r + 1, basis);
        float *g = grad[i] + r * param[i].per_row;
        for (int64_t c = 0; c < op->cols; c += param[i].unit, g++)
            *g += k->dot_f32(dW + c, basis + c, op->cols - c < param[i].unit ? op->cols - c : param[i].unit);
    }
}

static void reduce_tile(void *arg, int64_t tile, int worker) {
    const reduce_job *j = arg;
    const int64_t first = tile * REDUCE_ROWS, end = first + REDUCE_ROWS < j->rows ? first + REDUCE_ROWS : j->rows;
    if (j->op->v->reduce) {
        j->op->v->reduce(j->op, j->r0 + first, j->r0 + end, j->dW + first * j->op->cols, j->grad, tt__scratch(j->ctx, worker));
        return;
    }
    for (int64_t i = first; i < end; i++)
        reduce_row(j->op, j->param, j->n, j->r0 + i, j->dW + i * j->op->cols, tt__scratch(j->ctx, worker), j->ctx->k, j->grad);
}

/* What the tiles left for numbers that all rows share, summed in their order. */
static void add_shared(const tt_linop *op, const tt_param *param, int n, int64_t rows, float *dW, const tt_kernels *k, float *const *grad) {
    for (int64_t r = REDUCE_ROWS; r < rows; r += REDUCE_ROWS) k->axpy_f32(dW, 1, dW + r * op->cols, op->cols);
    for (int i = 0; i < n; i++)
        if (!param[i].per_row && grad[i]) k->axpy_f32(grad[i], 1, dW, op->cols);
}

void tt__linop_grad_params(tt_ctx *ctx, const tt_linop *op, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T, float *const grad[TT_MAX_PARAMS]) {
    tt_param param[TT_MAX_PARAMS];
    if (op->v->grad_params) {
        op->v->grad_params(ctx, op, X, ldx, G, ldg, T, grad);
        return;
    }
    float *strip = (float *)(void *)((uint8_t *)tt__scratch(ctx, 0) + gemm_bytes(ctx, op));
    const int n = tt__linop_params((tt_linop *)(uintptr_t)op, param);
    assert(ctx->scratch_bytes >= tt__linop_grad_scratch(ctx, op));
    for (int64_t r0 = 0, step = strip_rows(op); r0 < op->rows; r0 += step) {
        reduce_job j = {ctx, op, strip, r0, op->rows - r0 < step ? op->rows - r0 : step, param, n, grad};
        tt__gemm_tn(ctx, j.rows, op->cols, T, G + r0, ldg, X, ldx, strip, op->cols, false);
        tt__parallel(ctx, (j.rows + REDUCE_ROWS - 1) / REDUCE_ROWS, reduce_tile, &j);
        if (op->v->reduce) add_shared(op, param, n, j.rows, strip, ctx->k, grad);
    }
}

void tt__linop_grad_rows(tt_ctx *ctx, const tt_linop *op, const int32_t *ids, int64_t T, const float *dX, int64_t lddx, float *const grad[TT_MAX_PARAMS]) {
    tt_param param[TT_MAX_PARAMS];
    const int n = tt__linop_params((tt_linop *)(uintptr_t)op, param);
    float *row = (float *)(void *)((uint8_t *)tt__scratch(ctx, 0) + gemm_bytes(ctx, op));
    for (int64_t t = 0; t < T; t++) {
        if (!op->v->reduce) {
            reduce_row(op, param, n, ids[t], dX + t * lddx, tt__scratch(ctx, 0), ctx->k, grad);
            continue;
        }
        memcpy(row, dX + t * lddx, (size_t)op->cols * sizeof *row);
        op->v->reduce(op, ids[t], ids[t] + 1, row, grad, tt__scratch(ctx, 0));
        add_shared(op, param, n, 1, row, ctx->k, grad);
    }
}
