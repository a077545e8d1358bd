/* autoround: which way each weight is rounded, and how far the grid of each group reaches, learned by the sign of the gradient of the error at the
 * output of the whole block (W. Cheng et al., "Optimize Weight Rounding via Signed Gradient Descent for the Quantization of LLMs", arXiv 2309.05516).
 *
 *     ŵ = s (clamp(round(w/s + off + V), 0, 2^b - 1) - off)          V ∈ [-1/2, 1/2] from 0,  s ∈ [s0/2, 3 s0/2] from s0
 *     V ← V - η_k sign(dL/dV)     s ← s - η_k s0 sign(dL/ds)         η_k = η (1 - k/K),  η = 1/K:  the whole way is 1/2, enough to turn any rounding
 *     L = mean (block(x) - t)²,   x: what the compressed blocks before give,  t: what the original block makes of the original rows
 *
 * With bits the start is rounding to nearest with searched scales, weighted by the mean squared inputs; with bits=0 it is what the steps before in
 * the recipe rounded (`gptq(bits=2)+autoround(steps=100)`: GPTQ's repaired weights and scales). A mask that is there already is kept to.
 *
 * Departures: the clipping factors move the searched scale (and minimum) both ways, as the paper's later variants do, because a search has
 * clipped already; the best parameters are those with the least loss on held-out sequences (train/block.h), not on the batch at hand.
 *
 * Cost: steps x batch x length rows through each block, forward and twice back: 6 operations per weight and row. Storage as rtn.
 */
#include "methods/weights/grid.h"
#include "train/block.h"

static const tt_knob knobs[] = {
    {"bits", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "0|2|3|4|5|8", "0", NULL, "bits of a code; 0: train what the steps before rounded"},
    {"group", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "32|64|128", "64", "bits>0", "columns that share a scale"},
    {"sym", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "true", "bits>0", "symmetric grid; false: scale and minimum"},
    {"steps", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "200", NULL, "steps of each block (the paper's iters)"},
    {"batch", TT_KNOB_INT, 1, 1024, TT_LOG, NULL, "8", NULL, "sequences of a step"},
    {"lr", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "0", NULL, "how far a rounding moves in a step, in levels, falling linearly to 0; 0: 1/steps"},
    {"minmax_lr", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "0", NULL, "the same of scales and minima, in shares of the first scale; 0: as lr"},
    {"precision", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "f32|bf16", "f32", NULL, "factors of the products of a step: f32, or bf16 where the machine multiplies them"},
    {"format", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "auto|gguf|own", "auto", "bits>0", "storage: standard types where they fit, always, or never"},
};

static unsigned wants(const tt_knobs *k) { return TT_WANT_DENSE | (tt__knob_i(k, "bits") ? TT_WANT_SUMSQ : TT_WANT_NOTHING); }

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    if (tt__knob_i(k, "bits")) return tt__grid_begin(ctx, k, d, s, err);
    TT_FAIL_IF(!d->bits, err, TT_USAGE, "nothing is rounded yet|autoround, bits|0||give bits, or put a method that rounds before");
    return TT_OK;
}

static tt_status block(const tt_knobs *k, tt_block_options *o, tt_err *err) {
    (void)err;
    double lr = tt__knob_f(k, "lr"), minmax = tt__knob_f(k, "minmax_lr");
    *o = (tt_block_options){.mode = TT_BLOCK_ROUNDING, .steps = tt__knob_i(k, "steps"), .batch = tt__knob_i(k, "batch"),
                            .bf16 = !strcmp(tt__knob_s(k, "precision"), "bf16")};
    o->lr = lr > 0 ? lr : 1 / (double)o->steps;
    o->lr_scale = minmax > 0 ? minmax : o->lr;
    return TT_OK;
}

static const char *format(const tt_knobs *k) { return tt__knob_i(k, "bits") ? tt__knob_s(k, "format") : NULL; }

static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    (void)rows;
    return tt__grid_cost(k, cols, (int)tt__knob_i(k, "bits"), tt__knob_b(k, "sym"), 0, tt__knob_s(k, "format"));
}

static const tt_compress_vtable compress = {.wants = wants, .matrix = matrix, .block = block, .format = format};
const tt_method tt__method_autoround = {
    .info = {.name = "autoround", .family = "weights", .title = "Optimize Weight Rounding via Signed Gradient Descent for the Quantization of LLMs",
             .id = "arXiv 2309.05516", .year = 2023, .summary = "learns which way each weight is rounded, and the scales, from the output of each block", .version = 1,
             .stage = "compress", .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .cost_bits = cost_bits, .compress = &compress};
