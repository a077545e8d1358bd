/* sparsegpt: one-shot pruning, alone or jointly with rounding: what is cut and what is rounded in a column is made good by the columns
 * to its right (weights.md A3, arXiv 2301.00774 algorithm 1; the walk and its formulas are in obs.c).
 *
 *     unstructured   per block of columns, over all rows: the `sparsity` smallest of w_j² / U_jj² go
 *     N:M            at every M-th column, per row: the N largest of the next M stay, by the weights as updated so far
 *     bits > 0       the joint pass: kept weights are rounded to a grid with or without a zero level, whichever errs less, its scale
 *                    searched over the kept weights of the group; one error, of cutting and rounding together, is pushed on
 *
 * `correct` aims at the outputs of the uncompressed model (obs.c), `refine` polishes scales and codes of what stays (refine.c).
 *
 * Departure from the paper's code: grids are symmetric and per group, not asymmetric per row, so that a pruned weight needs no code.
 *
 * Cost: two forward passes and, per matrix [rows, cols], cols³ (factor) + rows cols² (updates) multiplications. 1 + b (1 - sparsity) +
 * 16/group bits per weight; bits = 0: 1 + 16 (1 - sparsity).
 */
#include "methods/weights/obs.h"
#include <math.h>

static const tt_knob knobs[] = {
    {"sparsity", TT_KNOB_REAL, 0, 0.95, TT_LINEAR, NULL, "0.5", "pattern=unstructured", "share of the weights that become zero"},
    {"pattern", TT_KNOB_TEXT, 0, 0, TT_LINEAR, NULL, "unstructured", NULL, "unstructured, or N:M (N kept of every M neighbours), such as 2:4 or 4:8"},
    {"bits", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "0|2|3|4|8", "0", NULL, "bits of the kept weights, rounded in the same pass; 0: 16-bit floats"},
    {"group", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "32|64|128", "64", "bits>0", "columns that share a scale"},
    {"refine", TT_KNOB_INT, -1, 20, TT_LINEAR, NULL, "2", "bits>0", "rounds of codes and scales after the walk, the mask kept; 0: scales once; -1: none"},
    {"correct", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, TT_CORRECTIONS, "none", NULL, "aim at the outputs of the uncompressed model, not at those from inputs that compressed layers gave"},
    {"alpha", TT_KNOB_REAL, 0, 1, TT_LINEAR, NULL, "1", "correct!=none", "share of the correction (GPTAQ's code: 0.25)"},
    {"damp", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "0.01", NULL, "share of the mean diagonal added to the Hessian; raised tenfold where that fails"},
    {"block", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "64|128|256", "128", NULL, "columns between two updates of the rest, and the stripe of an unstructured mask"},
    {"sequential", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "false", NULL, "within a block, collect inputs again after each compressed stage"},
    {"format", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "auto|gguf|own", "auto", NULL, "storage: a sparse operator (2:4 with 4 bits: slide2), or dense standard types with zeros in them (gguf)"},
};

static tt_status applies(const tt_net *net, const tt_knobs *k, tt_err *err) {
    (void)net;
    tt_pattern p;
    TT_TRY(tt__pattern_parse(tt__knob_s(k, "pattern"), &p, err));
    int64_t bits = tt__knob_i(k, "bits"), block = tt__knob_i(k, "block");
    TT_FAIL_IF(p.m && block % p.m, err, TT_USAGE, "pattern does not divide the block of columns|sparsegpt, pattern|%s|M a divisor of %lld", tt__knob_s(k, "pattern"),
               (long long)block);
    TT_FAIL_IF(bits && tt__knob_i(k, "group") > block, err, TT_USAGE, "group is larger than the block of columns|sparsegpt, block|%lld|at least %lld", (long long)block,
               (long long)tt__knob_i(k, "group"));
    TT_FAIL_IF(!strcmp(tt__knob_s(k, "format"), "gguf") && bits && bits < 4, err, TT_USAGE, "no standard type holds these codes|sparsegpt, format|gguf with %lld bits|4 or 8",
               (long long)bits);
    return TT_OK;
}

static unsigned wants(const tt_knobs *k) {
    return strcmp(tt__knob_s(k, "correct"), "none") ? TT_WANT_HESSIAN | TT_WANT_CROSS : TT_WANT_HESSIAN;
}

static bool sequential(const tt_knobs *k) { return tt__knob_b(k, "sequential"); }

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    int bits = (int)tt__knob_i(k, "bits"), group = (int)tt__knob_i(k, "group");
    tt_obs o = {.block = tt__knob_i(k, "block"), .damp = tt__knob_f(k, "damp"), .columns = group, .group = group, .refine = (int)tt__knob_i(k, "refine")};
    o.correct = tt__correct_of(tt__knob_s(k, "correct"));
    o.alpha = tt__knob_f(k, "alpha");
    TT_TRY(tt__pattern_parse(tt__knob_s(k, "pattern"), &o.pattern, err));
    if (!o.pattern.m) o.sparsity = tt__knob_f(k, "sparsity");
    if (bits) o.grid = tt__grid_for(bits, true, TT_SEARCH_RANGE, true, tt__knob_s(k, "format"));
    return tt__obs(ctx, &o, d, s, err);
}

static const char *format(const tt_knobs *k) { return tt__knob_s(k, "format"); }

static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    (void)rows;
    int bits = (int)tt__knob_i(k, "bits");
    if (!bits) return tt__prune_cost(k, cols);
    if (bits == 4 && !strcmp(tt__knob_s(k, "pattern"), "2:4") && tt__knob_i(k, "group") >= 64 && strcmp(tt__knob_s(k, "format"), "gguf"))
        return tt__slide2_cost(rows, cols, tt__knob_i(k, "group"));
    return tt__grid_cost(k, cols, bits, true, tt__prune_density(k), tt__knob_s(k, "format"));
}

static const tt_compress_vtable compress = {.wants = wants, .sequential = sequential, .matrix = matrix, .format = format};
const tt_method tt__method_sparsegpt = {
    .info = {.name = "sparsegpt", .family = "weights", .title = "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", .id = "arXiv 2301.00774", .year = 2023,
             .summary = "prunes, alone or jointly with rounding, and repairs the rest of the row by second-order updates", .version = 2, .stage = "compress",
             .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .applies = applies, .cost_bits = cost_bits, .compress = &compress};
