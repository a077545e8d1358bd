/* gptq: rounds one column at a time and pushes the rounding error onto the columns not yet rounded (weights.md A2, arXiv 2210.17323
 * algorithm 1; the walk and its formulas are in obs.c).
 *
 *     act_order       columns by falling diag H, so that the inputs that matter are rounded while there is room to repair; groups stay
 *                     groups of neighbours, so their scales are fitted beforehand (static_groups): no index per column is stored. At 3 bits
 *                     it takes the perplexity of a 135 M model from 47 to 35, so it is the default. groups: groups stay together and their
 *                     scales are fitted on the way; pivot: the order of least conditional variances, Babai's (arXiv 2507.18553)
 *     correct         earlier layers are compressed, so inputs differ from those of the model itself: aim at its outputs (obs.c). Calibration
 *                     then sends the uncompressed stream along, which doubles its forward passes and triples its statistics. Off, because a
 *                     full correction goes astray where inputs are far off: at 2 bits, 16 x 512 tokens, perplexity 134 → 831
 *     refine          rounds of codes and scales after the walk (refine.c): there, three rounds take 164 to 134
 *     sequential      the paper's "true sequential": q k v, then o, then gate up, then down, each from inputs that the rounded ones before it give
 *     search          none: no original weight clips; range, full: the scale that errs least (search.c)
 *     sym = false     scale and minimum: Q4_1, Q5_1
 *
 * Stored as Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 where format=auto or gguf (llama.cpp loads it), as our group operator otherwise. A mask that an
 * earlier method of the recipe left is kept to.
 *
 * Cost: as sparsegpt, a round of refine about one walk more; b + 16/group bits per weight (standard types: + 16/32, asymmetric + 32/32).
 */
#include "methods/weights/obs.h"
#include <math.h>

static const tt_knob knobs[] = {
    {"bits", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "2|3|4|5|8", "4", NULL, "bits of a code"},
    {"group", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "32|64|128|row", "64", NULL, "columns that share a scale"},
    {"sym", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "true", NULL, "symmetric grid; false: scale and minimum"},
    {"search", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "none|range|full", "range", NULL, "of the scale: none (nothing clips), range (the best of several), full (least squares and single codes)"},
    {"act_order", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, TT_ORDERS, "true", NULL,
     "round the columns with the largest inputs first (implies static_groups); groups: within groups, and groups; pivot: by conditional variance"},
    {"static_groups", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "false", "act_order=false", "fit all scales to the original weights"},
    {"sequential", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "false", NULL, "within a block, collect inputs again after each rounded stage (four passes instead of one)"},
    {"correct", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, TT_CORRECTIONS, "none", NULL, "aim at the outputs of the uncompressed model, not at those from inputs that compressed layers gave"},
    {"alpha", TT_KNOB_REAL, 0, 1, TT_LINEAR, NULL, "1", "correct!=none", "share of the correction (GPTAQ's code: 0.25)"},
    {"refine", TT_KNOB_INT, -1, 20, TT_LINEAR, NULL, "2", NULL, "rounds of codes and scales after the walk; 0: scales once; -1: none"},
    {"damp", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "0.01", NULL, "share of the mean diagonal added to the Hessian; raised tenfold where that fails"},
    {"block", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "64|128|256", "128", NULL, "columns between two updates of the rest"},
    {"format", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "auto|gguf|own", "auto", NULL, "storage: standard types where they fit, always, or never"},
};

static tt_status applies(const tt_net *net, const tt_knobs *k, tt_err *err) {
    (void)net;
    int64_t bits = tt__knob_i(k, "bits");
    bool gguf = !strcmp(tt__knob_s(k, "format"), "gguf"), own = !strcmp(tt__knob_s(k, "format"), "own"), sym = tt__knob_b(k, "sym");
    int64_t group = strcmp(tt__knob_s(k, "group"), "row") ? tt__knob_i(k, "group") : 0;
    TT_FAIL_IF(gguf && !sym && bits == 8, err, TT_USAGE, "no standard type holds these codes|gptq, format|gguf with 8 bits and minima|4 or 5 bits");
    TT_FAIL_IF(own && bits == 5, err, TT_USAGE, "our group operator has 2, 3, 4 or 8 bits|gptq, format|own");
    TT_FAIL_IF(gguf && bits < 4, err, TT_USAGE, "no standard type holds these codes|gptq, format|gguf with %lld bits|4, 5 or 8", (long long)bits);
    TT_FAIL_IF(group > tt__knob_i(k, "block"), err, TT_USAGE, "group is larger than the block of columns|gptq, block|%lld|at least %lld",
               (long long)tt__knob_i(k, "block"), (long long)group);
    return TT_OK;
}

static unsigned wants(const tt_knobs *k) {
    return strcmp(tt__knob_s(k, "correct"), "none") ? TT_WANT_HESSIAN | TT_WANT_CROSS : TT_WANT_HESSIAN;
}

static bool sequential(const tt_knobs *k) { return tt__knob_b(k, "sequential"); }

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    tt_obs o = {.block = tt__knob_i(k, "block"), .damp = tt__knob_f(k, "damp"), .static_groups = tt__knob_b(k, "static_groups"), .alpha = tt__knob_f(k, "alpha"), .refine = (int)tt__knob_i(k, "refine")};
    o.order = tt__order_of(tt__knob_s(k, "act_order"));
    o.correct = tt__correct_of(tt__knob_s(k, "correct"));
    o.grid = tt__grid_for((int)tt__knob_i(k, "bits"), tt__knob_b(k, "sym"), tt__search_of(k), d->keep, tt__knob_s(k, "format"));
    o.columns = tt__group_columns(k, d->cols, &o.group);
    return tt__obs(ctx, &o, d, s, err);
}

static const char *format(const tt_knobs *k) { return tt__knob_s(k, "format"); }

static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    (void)rows;
    return tt__grid_cost(k, cols, (int)tt__knob_i(k, "bits"), tt__knob_b(k, "sym"), 0, tt__knob_s(k, "format"));
}

static const tt_compress_vtable compress = {.wants = wants, .sequential = sequential, .matrix = matrix, .format = format};
const tt_method tt__method_gptq = {
    .info = {.name = "gptq", .family = "weights", .title = "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", .id = "arXiv 2210.17323",
             .year = 2022, .summary = "rounds column by column and repairs the rest of the row by second-order updates", .version = 2, .stage = "compress",
             .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .applies = applies, .cost_bits = cost_bits, .compress = &compress};
