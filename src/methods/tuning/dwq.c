/* dwq: the scales, minima and norm gains of a compressed model learn to follow the dense one; the codes stay.
 *
 * Papers: "DWQ", distilled weight quantization of MLX LM (2025), which trains scales and biases against the teacher's logits; M. Chen et al.,
 * "EfficientQAT: Efficient Quantization-Aware Training for Large Language Models", 2024, arXiv 2407.11062, whose second phase (E2E-QP) trains the
 * scales end to end with the next-token loss (loss=ce here).
 *
 *     min over s, z, g of  mean_t  KL( softmax(z_t / T) ‖ softmax(z_s / T) )       w = s q + z, codes q frozen, norm gains g
 *
 * Of a trellis operator the scales of rows and the gains of columns train, which the file holds anyway.
 *
 * Cost: nothing in the file or at run time; a step is forward, backward and the product G^T X of every matrix: 3 times a forward pass; the teacher is
 * asked once per window and kept (train/teacher.h). Best between 2 and 4 bits, useless at 8.
 *
 * Where we depart. MLX trains 16-bit scales with a rate of 1e-6 over 2048 x 1024 tokens. Ours are f32 behind the 16-bit ones that are run and stored,
 * moved relative to their own size (train/scales.c); steps are few, so the rate is high: measured on SmolLM2-135M (gptq, 2 bits, groups of 64; 4 x 256 tokens a
 * step), 25 steps of 50 bring the held-out KL from 1.560 to 1.080 at 1e-3 and to 0.917 at 4e-3. Temperature 1 keeps the loss the one that is reported.
 *
 * How it fails: too high a rate (back and half), scales that were chosen for another kind of text than the training's.
 */
#include "methods/method.h"
#include "train/scales.h"

#include <string.h>

static tt_status train(tt_ctx *ctx, const tt_knobs *k, tt_train_job *job, tt_err *err) {
    tt_scales_options o = {
        .learn = {.steps = tt__knob_i(k, "steps"), .time = job->time > 0 ? job->time : tt__knob_f(k, "time"), .batch = tt__knob_i(k, "batch"),
                  .length = tt__knob_i(k, "length"), .warmup = tt__knob_i(k, "warmup"), .valid_every = tt__knob_i(k, "valid_every"),
                  .valid_windows = tt__knob_i(k, "valid_windows"), .clip = tt__knob_f(k, "clip"), .beta1 = tt__knob_f(k, "beta1"),
                  .beta2 = tt__knob_f(k, "beta2"), .cosine = !strcmp(tt__knob_s(k, "schedule"), "cosine")},
        .kl = !strcmp(tt__knob_s(k, "loss"), "kl"), .topk = tt__knob_i(k, "topk"), .temperature = tt__knob_f(k, "temperature"),
        .lr = tt__knob_f(k, "lr"), .norm_lr = tt__knob_f(k, "norm_lr"), .max_bits = tt__knob_f(k, "max_bits"),
    };
    return tt__scales_train(ctx, &o, job, err);
}

static const tt_knob knobs[] = {
    {"loss", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "kl|ce", "kl", NULL, "kl: the dense model's distribution (needs a teacher); ce: the next token (E2E-QP)"},
    {"topk", TT_KNOB_INT, 0, 65536, TT_LOG, NULL, "64", "loss=kl",
        "likeliest tokens of a target that the teacher's cache holds, the rest as one; 0: all of them, and the teacher runs at every step"},
    {"temperature", TT_KNOB_REAL, 0.1, 10, TT_LOG, NULL, "1", "loss=kl", "of both distributions (MLX: 2)"},
    {"steps", TT_KNOB_INT, 1, 1000000, TT_LOG, NULL, "200", NULL, "training steps"},
    {"time", TT_KNOB_DURATION, 0, 2592000, TT_LINEAR, NULL, "0", NULL, "time budget, turned into a number of steps once (replaces steps); 0: none"},
    {"batch", TT_KNOB_INT, 1, 1024, TT_LOG, NULL, "4", NULL, "windows of a step"},
    {"length", TT_KNOB_INT, 8, 65536, TT_LOG, NULL, "256", NULL, "tokens of a window"},
    {"lr", TT_KNOB_REAL, 1e-8, 1, TT_LOG, NULL, "4e-3", NULL, "learning rate of scales and minima, relative to the scale of their group"},
    {"norm_lr", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "4e-3", NULL, "learning rate of norm gains, relative to the size of the vector; 0: they stay"},
    {"max_bits", TT_KNOB_REAL, 1, 33, TT_LINEAR, NULL, "7", NULL, "matrices of more bits per weight stay as they are"},
    {"schedule", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "cosine|linear", "cosine", NULL, "how the rate falls: a cosine to a twentieth, a line to 0"},
    {"warmup", TT_KNOB_INT, 0, 100000, TT_LINEAR, NULL, "5", NULL, "steps over which the rate rises"},
    {"clip", TT_KNOB_REAL, 0, 1e9, TT_LOG, NULL, "1", NULL, "largest norm of a gradient; 0: no limit"},
    {"beta1", TT_KNOB_REAL, 0, 0.9999, TT_LINEAR, NULL, "0.9", NULL, "Adam's decay of the first moment"},
    {"beta2", TT_KNOB_REAL, 0, 0.999999, TT_LINEAR, NULL, "0.99", NULL, "Adam's decay of the second moment"},
    {"valid_every", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "25", NULL, "steps between validations; the best scales are kept"},
    {"valid_windows", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "16", NULL, "held-out windows of a validation"},
};

static const tt_train_vtable vtable = {.train = train, .model = true};

const tt_method tt__method_dwq = {
    .info = {.name = "dwq", .family = "tuning", .title = "EfficientQAT: Efficient Quantization-Aware Training for Large Language Models",
             .id = "arXiv:2407.11062", .year = 2024, .summary = "scales, minima and norm gains learn to follow the dense model; the codes stay: no bytes, no run time",
             .version = 1, .stage = "train", .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .train = &vtable,
};
