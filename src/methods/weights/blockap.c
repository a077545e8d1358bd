/* blockap: all weights of a block, their scales and minima, trained together through the rounding, by the error at the output of the block
 * (the first stage, Block-AP, of M. Chen et al., "EfficientQAT: Efficient Quantization-Aware Training for Large Language Models", arXiv 2407.11062).
 *
 *     ŵ = s (clamp(round(w/s + off), 0, 2^b - 1) - off)              straight through round; w, s (and the minimum) by Adam, no decay
 *     L = mean (block(x) - t)²,   x: what the compressed blocks before give,  t: what the original block makes of the original rows
 *
 *     before it in the recipe      bits     what is trained
 *     nothing                      2 … 8    all weights, from rounding to nearest with searched scales
 *     gptq(bits=2)                 0        the same from GPTQ's repaired weights and scales
 *     sparsegpt(sparsity=0.5)      4        the kept weights and their scales
 *     sparsegpt(sparsity=0.5)      0        the kept weights, in 16 bits
 *
 * Departures: rates are in levels of the group's grid (and shares of its first scale), so that they fit weights of any size: the paper's 2e-5 for
 * weights of a 7 B model with levels about 0.02 apart is 1e-3 of a level, over 4096 steps; a short run needs a higher one. Best parameters
 * by held-out sequences (train/block.h).
 *
 * Cost: as autoround, with 20 bytes of state per weight of one block.
 */
#include "methods/weights/grid.h"
#include "train/block.h"

static const tt_knob knobs[] = {
    {"bits", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "0|2|3|4|5|8", "0", NULL, "bits of a code; 0: train what the steps before rounded or pruned"},
    {"group", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "32|64|128", "64", "bits>0", "columns that share a scale"},
    {"sym", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "true", "bits>0", "symmetric grid; false: scale and minimum"},
    {"steps", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "200", NULL, "steps of each block"},
    {"batch", TT_KNOB_INT, 1, 1024, TT_LOG, NULL, "4", NULL, "sequences of a step"},
    {"weight_lr", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "0.01", NULL, "Adam's rate of the weights, in levels of their group (without bits: in mean sizes of a weight)"},
    {"quant_lr", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "0.003", NULL, "Adam's rate of scales and minima, in shares of the first scale"},
    {"clip", TT_KNOB_REAL, 0, 1e9, TT_LOG, NULL, "0.3", NULL, "largest norm of a gradient; 0: no limit"},
    {"precision", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "f32|bf16", "f32", NULL, "factors of the products of a step: f32, or bf16 where the machine multiplies them"},
    {"format", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "auto|gguf|own", "auto", "bits>0", "storage: standard types where they fit, always, or never"},
};

static unsigned wants(const tt_knobs *k) { return TT_WANT_DENSE | (tt__knob_i(k, "bits") ? TT_WANT_SUMSQ : TT_WANT_NOTHING); }

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    if (tt__knob_i(k, "bits")) return tt__grid_begin(ctx, k, d, s, err);
    TT_FAIL_IF(!d->bits && !d->keep, err, TT_USAGE, "nothing is rounded or pruned yet|blockap, bits|0||give bits, or put a method that rounds or prunes before");
    return TT_OK;
}

static tt_status block(const tt_knobs *k, tt_block_options *o, tt_err *err) {
    (void)err;
    *o = (tt_block_options){.mode = TT_BLOCK_ALL, .steps = tt__knob_i(k, "steps"), .batch = tt__knob_i(k, "batch"), .lr = tt__knob_f(k, "weight_lr"),
                            .lr_scale = tt__knob_f(k, "quant_lr"), .clip = tt__knob_f(k, "clip"), .bf16 = !strcmp(tt__knob_s(k, "precision"), "bf16")};
    return TT_OK;
}

static const char *format(const tt_knobs *k) { return tt__knob_i(k, "bits") ? tt__knob_s(k, "format") : NULL; }

static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    (void)rows;
    return tt__grid_cost(k, cols, (int)tt__knob_i(k, "bits"), tt__knob_b(k, "sym"), 0, tt__knob_s(k, "format"));
}

static const tt_compress_vtable compress = {.wants = wants, .matrix = matrix, .block = block, .format = format};
const tt_method tt__method_blockap = {
    .info = {.name = "blockap", .family = "weights", .title = "EfficientQAT: Efficient Quantization-Aware Training for Large Language Models", .id = "arXiv 2407.11062",
             .year = 2024, .summary = "trains all weights and scales of each block through the rounding, and those under a mask", .version = 1, .stage = "compress",
             .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .cost_bits = cost_bits, .compress = &compress};
