/* Unstructured sparse weights run in one of three forms with the same values:
 *
 *     rows      as stored (linop/sparseq.c)                       1 + 2 + 16/group bits per weight at 50 %
 *     panels    masks and codes of 16 rows (linop/bitmask.c)      the same size; fast where bytes can be expanded in registers
 *     dense     8-bit codes with zeros (linop/panel.c)            8 + 16/group: more memory, but nothing to expand; grids of the kept
 *                                                                 weights have no zero, so that 4 bits would not hold them exactly
 *
 * TT_RUN_KEEP, the default, is panels (resident weights stay what the file has), TT_RUN_EXPAND is dense. TT_RUN_AUTO lets all three compete: which
 * is fastest depends on the instruction set and on memory, so the largest such matrix is timed in each form, for some milliseconds in all, each time
 * after a walk over the other weights (of 48 MB at most), as decoding walks over them. Forms round sums differently, so what a clock chooses may
 * differ in the last digits from one run to the next: a deterministic context never asks the clock, it keeps.
 */
#include "models/sparse_run.h"
#include <math.h>

enum { ROWS, PANELS, DENSE, FORMS };
enum { SWEEP = 48 << 20, LINE = 64, REPEAT = 3 };

static bool is_sparse(const tt_linop *op) {
    char params[64];
    if (!op || op->v != &tt__linop_v_sparseq) return false;
    op->v->describe(op, params, sizeof params);
    return !strncmp(params, "bits=4,", 7);
}

/* The operator in a form; NULL without an error: it has none. */
static tt_status make_form(tt_ctx *ctx, const tt_linop *op, int form, tt_linop **out, tt_err *err) {
    tt_linop *panels = NULL;
    *out = NULL;
    if (form == ROWS) return TT_OK;
    TT_TRY(tt__linop_bitmask(ctx, op, &panels, err));
    if (form == PANELS) {
        *out = panels;
        return TT_OK;
    }
    tt_status st = tt__linop_bitmask_dense(ctx, panels, out, err);
    tt__linop_free(panels);
    return st;
}

/* ------------------------------------------------------------ timing ---- */

typedef struct timing { tt_ctx *ctx; const tt_net *net; int64_t weights; tt_act act; float *x, *y; void *ws; } timing;

static void sweep_tile(void *arg, int64_t weight, int worker) {
    const tt_linop *op = ((timing *)arg)->net->weights[weight].op;
    tt_segment seg[8];
    (void)worker;
    for (int i = op ? op->v->segments(op, seg) - 1 : -1; i >= 0; i--) {
        const volatile uint8_t *p = seg[i].data;
        for (uint64_t at = 0; at < seg[i].bytes && at < SWEEP; at += LINE) (void)p[at];
    }
}

/* The first weights, up to SWEEP bytes. */
static int64_t weights_to_sweep(const tt_net *net) {
    uint64_t bytes = 0;
    size_t n = 0;
    for (; n < net->n_weights && bytes < SWEEP; n++) bytes += net->weights[n].op ? tt__linop_bytes(net->weights[n].op) : 0;
    return (int64_t)n;
}

static double seconds_of(timing *t, const tt_linop *op) {
    double best = INFINITY;
    for (int i = 0; i < REPEAT; i++) {
        tt__parallel(t->ctx, t->weights, sweep_tile, t);
        tt__act_prepare(t->ctx, &t->act, t->x, op->cols, 1, op->cols, true, t->ws);
        const double start = tt__now();
        tt__linop_apply(t->ctx, op, &t->act, t->y, op->rows);
        const double took = tt__now() - start;
        best = took < best ? took : best;
    }
    return best;
}

static void timing_free(timing *t) {
    tt__free(t->x);
    tt__free(t->y);
    tt__free(t->ws);
}

static tt_status timing_new(timing *t, tt_ctx *ctx, const tt_net *net, const tt_linop *op, tt_err *err) {
    *t = (timing){.ctx = ctx, .net = net, .weights = weights_to_sweep(net)};
    TT_TRY(tt__new(&t->x, (size_t)op->cols, sizeof *t->x, "timing", err));
    TT_TRY(tt__new(&t->y, (size_t)op->rows, sizeof *t->y, "timing", err));
    TT_TRY(tt__new((uint8_t **)&t->ws, tt__act_bytes(1, op->cols), 1, "timing", err));
    for (int64_t i = 0; i < op->cols; i++) t->x[i] = (float)(i % 17 - 8);
    return tt__scratch_reserve(ctx, tt__linop_scratch(ctx, op), err);
}

static tt_status time_forms(tt_ctx *ctx, const tt_net *net, const tt_linop *op, int *best, tt_err *err) {
    timing t;
    tt_status st;
    double least = INFINITY;
    TT_TRY_GOTO(timing_new(&t, ctx, net, op, err));
    for (int form = ROWS; form < FORMS; form++) {
        tt_linop *made = NULL;
        TT_TRY_GOTO(make_form(ctx, op, form, &made, err));
        if (form == ROWS || made) {
            const double took = seconds_of(&t, made ? made : op);
            if (took < least) least = took, *best = form;
        }
        tt__linop_free(made);
    }
    st = TT_OK;
done:
    timing_free(&t);
    return st;
}

/* ------------------------------------------------------------ the net ---- */

static const tt_linop *largest(const tt_net *net) {
    const tt_linop *best = NULL;
    for (size_t i = 0; i < net->n_weights; i++) {
        const tt_linop *op = net->weights[i].op;
        if (is_sparse(op) && (!best || op->rows * op->cols > best->rows * best->cols)) best = op;
    }
    return best;
}

static void give_back(const tt_gguf *source, const tt_linop *op) {
    tt_segment seg[8];
    for (int i = op->v->segments(op, seg) - 1; source && i >= 0; i--) tt__gguf_release(source, seg[i].data, seg[i].bytes);
}

tt_status tt__net_sparse_to_run(tt_ctx *ctx, tt_net *net, const tt_gguf *source, tt_run_format format, tt_err *err) {
    const tt_linop *sample = largest(net);
    int form = format == TT_RUN_EXPAND ? DENSE : PANELS;
    if (!sample) return TT_OK;
    if (format == TT_RUN_AUTO && !ctx->opt.deterministic) TT_TRY(time_forms(ctx, net, sample, &form, err));
    for (size_t i = 0; i < net->n_weights; i++) {
        tt_weight *w = &net->weights[i];
        tt_linop *made = NULL;
        if (!is_sparse(w->op)) continue;
        TT_TRY(make_form(ctx, w->op, form, &made, err));
        if (!made) continue;
        give_back(source, w->op);
        tt__linop_free(w->op);
        w->op = made;
    }
    return TT_OK;
}
