/* qat: quantization-aware training end to end: all weights learn behind their codes, with scales, minima and norm gains. The strong control.
 *
 * Paper: Z. Liu et al., "ParetoQ: Scaling Laws in Extremely Low-bit LLM Quantization", 2025, arXiv 2502.02631, which trains with the next-token loss on
 * billions of tokens (loss=ce here); Y. Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013, arXiv 1308.3432, for the
 * gradient that goes straight through the rounding.
 *
 *     min over w, s, z, g of  mean_t  KL( softmax(z_t) ‖ softmax(z_s(ŵ)) )       ŵ = s (clamp(round((w - z)/s + off)) - off) + z
 *
 * Cost: nothing in the file or at run time; 16 bytes of memory for each weight (1.7 GB for 106 million), a step of 3 forward passes.
 *
 * Where we depart. The grid is the one that the model came with (with or without a zero level), groups keep their own scales; the loss is KL; the start
 * is a compressed model rather than the dense one (train/qat.c), because steps are few. Rates are relative to the scale of a matrix: at lr a weight
 * crosses half a step of its grid in 1/(2 lr) steps at the earliest.
 *
 * How it fails: too few steps (codes have no time to move), too high a rate (codes flicker), memory.
 */
#include "methods/method.h"
#include "train/qat.h"

#include <string.h>

static tt_status train(tt_ctx *ctx, const tt_knobs *k, tt_train_job *job, tt_err *err) {
    tt_qat_options o = {
        .learn = {.steps = tt__knob_i(k, "steps"), .time = job->time > 0 ? job->time : tt__knob_f(k, "time"), .batch = tt__knob_i(k, "batch"),
                  .length = tt__knob_i(k, "length"), .warmup = tt__knob_i(k, "warmup"), .valid_every = tt__knob_i(k, "valid_every"),
                  .valid_windows = tt__knob_i(k, "valid_windows"), .clip = tt__knob_f(k, "clip"), .beta1 = tt__knob_f(k, "beta1"),
                  .beta2 = tt__knob_f(k, "beta2"), .cosine = !strcmp(tt__knob_s(k, "schedule"), "cosine")},
        .kl = !strcmp(tt__knob_s(k, "loss"), "kl"), .topk = tt__knob_i(k, "topk"), .temperature = tt__knob_f(k, "temperature"),
        .lr = tt__knob_f(k, "lr"), .scale_lr = tt__knob_f(k, "scale_lr"), .norm_lr = tt__knob_f(k, "norm_lr"),
    };
    return tt__qat_train(ctx, &o, job, err);
}

static const tt_knob knobs[] = {
    {"loss", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "kl|ce", "kl", NULL, "kl: the dense model's distribution (needs a teacher); ce: the next token"},
    {"topk", TT_KNOB_INT, 0, 65536, TT_LOG, NULL, "64", "loss=kl",
        "likeliest tokens of a target that the teacher's cache holds, the rest as one; 0: all of them, and the teacher runs at every step"},
    {"temperature", TT_KNOB_REAL, 0.1, 10, TT_LOG, NULL, "1", "loss=kl", "of both distributions (MLX: 2)"},
    {"steps", TT_KNOB_INT, 1, 1000000, TT_LOG, NULL, "200", NULL, "training steps"},
    {"time", TT_KNOB_DURATION, 0, 2592000, TT_LINEAR, NULL, "0", NULL, "time budget, turned into a number of steps once (replaces steps); 0: none"},
    {"batch", TT_KNOB_INT, 1, 1024, TT_LOG, NULL, "4", NULL, "windows of a step"},
    {"length", TT_KNOB_INT, 8, 65536, TT_LOG, NULL, "256", NULL, "tokens of a window"},
    {"lr", TT_KNOB_REAL, 1e-8, 1, TT_LOG, NULL, "4e-3", NULL, "learning rate of the weights, relative to the mean scale of their matrix"},
    {"scale_lr", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "1e-3", NULL, "learning rate of scales and minima, relative to the same"},
    {"norm_lr", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "1e-3", NULL, "learning rate of norm gains, relative to the size of the vector; 0: they stay"},
    {"schedule", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "cosine|linear", "cosine", NULL, "how the rate falls: a cosine to a twentieth, a line to 0"},
    {"warmup", TT_KNOB_INT, 0, 100000, TT_LINEAR, NULL, "5", NULL, "steps over which the rate rises"},
    {"clip", TT_KNOB_REAL, 0, 1e9, TT_LOG, NULL, "1", NULL, "largest norm of a gradient; 0: no limit"},
    {"beta1", TT_KNOB_REAL, 0, 0.9999, TT_LINEAR, NULL, "0.9", NULL, "Adam's decay of the first moment"},
    {"beta2", TT_KNOB_REAL, 0, 0.999999, TT_LINEAR, NULL, "0.99", NULL, "Adam's decay of the second moment"},
    {"valid_every", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "25", NULL, "steps between validations; the best weights are kept"},
    {"valid_windows", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "16", NULL, "held-out windows of a validation"},
};

static const tt_train_vtable vtable = {.train = train, .model = true};

const tt_method tt__method_qat = {
    .info = {.name = "qat", .family = "tuning", .title = "ParetoQ: Scaling Laws in Extremely Low-bit LLM Quantization", .id = "arXiv:2502.02631", .year = 2025,
             .summary = "all weights learn end to end behind their codes: the strongest and the most expensive, 16 bytes of memory a weight",
             .version = 1, .stage = "train", .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .train = &vtable,
};
