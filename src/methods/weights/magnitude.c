/* magnitude: the smallest weights become zero; no data is needed. Unstructured: the threshold is taken over the whole matrix
 * (Han et al. 2015, arXiv 1506.02626, layer by layer); N:M: the N largest of every M neighbours of a row stay.
 *
 * Cost: see sparseq; alone 1 + 16 (1 - sparsity) bits per weight, with a quantizer behind it 1 + b (1 - sparsity) + 16/group.
 */
#include "methods/weights/mask.h"
#include "methods/weights/grid.h"
#include <math.h>

static const tt_knob knobs[] = {
    {"sparsity", TT_KNOB_REAL, 0, 0.95, TT_LINEAR, NULL, "0.5", "pattern=unstructured", "share of the weights that become zero"},
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
    return TT_WANT_NOTHING;
}

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    (void)s;
    (void)ctx;
    tt_pattern p;
    TT_TRY(tt__pattern_parse(tt__knob_s(k, "pattern"), &p, err));
    TT_TRY(tt__draft_prune(d, err));
    double sparsity = p.m ? 0 : tt__knob_f(k, "sparsity");
    if (!p.m) tt__keep_largest(d->W, d->rows * d->cols, tt__pruned_of(d->rows * d->cols, sparsity), d->keep);   /* scores go by |w|: the sign does not count */
    else
        for (int64_t r = 0; r < d->rows; r++) tt__keep_row(d->W + r * d->cols, d->cols, p, 0, d->keep + r * d->cols);
    tt__draft_apply_mask(d);
    return TT_OK;
}

static const char *format(const tt_knobs *k) { return tt__knob_s(k, "format"); }
static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    (void)rows;
    return tt__prune_cost(k, cols);
}

static const tt_compress_vtable compress = {.wants = wants, .matrix = matrix, .format = format};
const tt_method tt__method_magnitude = {
    .info = {.name = "magnitude", .family = "weights", .title = "Learning both Weights and Connections for Efficient Neural Networks", .id = "arXiv 1506.02626",
             .year = 2015, .summary = "prunes the smallest weights of each matrix: no data; the baseline of all pruners", .version = 1, .stage = "compress",
             .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .applies = applies, .cost_bits = cost_bits, .compress = &compress};
