/* wanda: prunes by weight times input norm, compared within a row; nothing else is changed (weights.md A4, arXiv 2306.11695 eq. 1).
 *
 *     S_ij = |W_ij| · ||X_j||_2          ||X_j||² = Σ over calibration tokens of x_j²        here: sumsq [cols]
 *
 * Unstructured: the smallest `sparsity` of every row go. N:M: the N largest of every M neighbours stay. Cost as magnitude.
 */
#include "methods/weights/grid.h"
#include "methods/weights/mask.h"
#include "base/util.h"
#include <math.h>

static const tt_knob knobs[] = {
    {"sparsity", TT_KNOB_REAL, 0, 0.95, TT_LINEAR, NULL, "0.5", "pattern=unstructured", "share of every row's weights that become zero"},
    {"pattern", TT_KNOB_TEXT, 0, 0, TT_LINEAR, NULL, "unstructured", NULL, "unstructured, or N:M (N kept of every M neighbours), such as 2:4"},
    {"format", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "auto|gguf|own", "auto", NULL, "storage: a sparse operator, or F16 with zeros in it (gguf)"},
};

static tt_status applies(const tt_net *net, const tt_knobs *k, tt_err *err) {
    (void)net;
    tt_pattern p;
    return tt__pattern_parse(tt__knob_s(k, "pattern"), &p, err);
}

static unsigned wants(const tt_knobs *k) {
    (void)k;
    return TT_WANT_SUMSQ;
}

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    (void)ctx;
    tt_pattern p;
    float *score = NULL;
    TT_FAIL_IF(!s, err, TT_USAGE, "method needs calibration data|%s", d->name);
    TT_TRY(tt__pattern_parse(tt__knob_s(k, "pattern"), &p, err));
    TT_TRY(tt__draft_prune(d, err));
    TT_TRY(tt__new(&score, 2 * (size_t)d->cols, sizeof *score, "pruning scores", err));
    float *norm = score + d->cols;
    double sparsity = p.m ? 0 : tt__knob_f(k, "sparsity");
    for (int64_t c = 0; c < d->cols; c++) norm[c] = sqrtf(s->sumsq[c]);
    for (int64_t r = 0; r < d->rows; r++) {
        for (int64_t c = 0; c < d->cols; c++) score[c] = fabsf(d->W[r * d->cols + c]) * norm[c];
        tt__keep_row(score, d->cols, p, sparsity, d->keep + r * d->cols);
    }
    tt__free(score);
    tt__draft_apply_mask(d);
    return TT_OK;
}

static const char *format(const tt_knobs *k) { return tt__knob_s(k, "format"); }
static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    (void)rows;
    return tt__prune_cost(k, cols);
}

static const tt_compress_vtable compress = {.wants = wants, .matrix = matrix, .format = format};
const tt_method tt__method_wanda = {
    .info = {.name = "wanda", .family = "weights", .title = "A Simple and Effective Pruning Approach for Large Language Models", .id = "arXiv 2306.11695", .year = 2023,
             .summary = "prunes by weight times input norm: one forward pass, no weight is changed", .version = 1, .stage = "compress", .knobs = knobs,
             .n_knobs = sizeof knobs / sizeof *knobs},
    .applies = applies, .cost_bits = cost_bits, .compress = &compress};
