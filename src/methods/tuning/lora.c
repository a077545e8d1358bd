/* lora: thin factors beside the matrices of a damaged model win back what was lost.
 *
 * Paper: E. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv 2106.09685.
 *
 *     y = W x + (alpha / r) B A x        A [r, in], uniform in ± 1/sqrt(in); B [out, r], zero at first; W the compressed matrix, frozen
 *
 * What it trades: r (in + out) numbers a matrix, in bytes and in multiplications of every token; a narrow model pays dear (rank 8 on all matrices
 * of SmolLM2-135M is 2.4 M numbers, as f16 0.36 bit per weight). The folder is PEFT's and loads there.
 *
 * Where we depart: W is not dequantized for the step, it is the operator that will be served; the loss is KL to the dense model by default (as prompt.c says why);
 * the rate is ten times the usual 2e-4, because steps are few: SmolLM2-135M by GPTQ at 2 bits, r=8, 30 steps of 4 x 256 tokens: KL 1.459 to 0.882.
 *
 * How it fails: too high a rate (not finite: back to the last good point with half of it); text of one kind with loss=ce: a guard keeps step 0 then.
 * The mechanism is train/lora.c.
 */
#include "methods/method.h"
#include "train/lora.h"

#include <string.h>

static tt_status train(tt_ctx *ctx, const tt_knobs *k, tt_train_job *job, tt_err *err) {
    tt_lora_options o = {
        .learn = {.steps = tt__knob_i(k, "steps"), .time = job->time > 0 ? job->time : tt__knob_f(k, "time"), .batch = tt__knob_i(k, "batch"),
                  .length = tt__knob_i(k, "length"), .warmup = tt__knob_i(k, "warmup"), .valid_every = tt__knob_i(k, "valid_every"),
                  .valid_windows = tt__knob_i(k, "valid_windows"), .clip = tt__knob_f(k, "clip"), .beta1 = tt__knob_f(k, "beta1"),
                  .beta2 = tt__knob_f(k, "beta2"), .cosine = !strcmp(tt__knob_s(k, "schedule"), "cosine")},
        .rank = tt__knob_i(k, "r"), .alpha = tt__knob_f(k, "alpha"), .targets = tt__knob_s(k, "targets"), .kl = !strcmp(tt__knob_s(k, "loss"), "kl"),
        .topk = tt__knob_i(k, "topk"), .temperature = tt__knob_f(k, "temperature"), .lr = tt__knob_f(k, "lr"), .decay = tt__knob_f(k, "decay"),
    };
    return tt__lora_train(ctx, &o, job, err);
}

static const tt_knob knobs[] = {
    {"r", TT_KNOB_INT, 1, 1024, TT_LOG, NULL, "8", NULL, "rank of the factors"},
    {"alpha", TT_KNOB_REAL, 0.01, 4096, TT_LOG, NULL, "16", NULL, "what the factors add is multiplied by alpha / r"},
    {"targets", TT_KNOB_TEXT, 0, 0, TT_LINEAR, NULL, "all", NULL, "matrices with factors: all, or names such as \"q_proj v_proj\""},
    {"loss", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "kl|ce", "kl", NULL, "kl: the dense model's distribution (needs a teacher); ce: the next token"},
    {"topk", TT_KNOB_INT, 0, 65536, TT_LOG, NULL, "64", "loss=kl",
        "likeliest tokens of a target that the teacher's cache holds, the rest as one; 0: all of them, and the teacher runs at every step"},
    {"temperature", TT_KNOB_REAL, 0.1, 10, TT_LOG, NULL, "1", "loss=kl", "of both distributions"},
    {"steps", TT_KNOB_INT, 0, 1000000, TT_LOG, NULL, "200", NULL, "training steps; 0 writes factors that do nothing"},
    {"time", TT_KNOB_DURATION, 0, 2592000, TT_LINEAR, NULL, "0", "steps>0", "time budget, turned into a number of steps once (replaces steps); 0: none"},
    {"batch", TT_KNOB_INT, 1, 1024, TT_LOG, NULL, "4", "steps>0", "windows of a step"},
    {"length", TT_KNOB_INT, 8, 65536, TT_LOG, NULL, "256", "steps>0", "tokens of a window"},
    {"lr", TT_KNOB_REAL, 1e-7, 10, TT_LOG, NULL, "2e-3", "steps>0", "learning rate"},
    {"schedule", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "cosine|linear", "linear", "steps>0", "how the rate falls: a cosine to a twentieth, a line to 0"},
    {"warmup", TT_KNOB_INT, 0, 100000, TT_LINEAR, NULL, "0", "steps>0", "steps over which the rate rises"},
    {"clip", TT_KNOB_REAL, 0, 1e9, TT_LOG, NULL, "1", "steps>0", "largest norm of a gradient; 0: no limit"},
    {"beta1", TT_KNOB_REAL, 0, 0.9999, TT_LINEAR, NULL, "0.9", "steps>0", "AdamW's decay of the first moment"},
    {"beta2", TT_KNOB_REAL, 0, 0.999999, TT_LINEAR, NULL, "0.999", "steps>0", "AdamW's decay of the second moment"},
    {"decay", TT_KNOB_REAL, 0, 1, TT_LINEAR, NULL, "0", "steps>0", "AdamW's weight decay"},
    {"valid_every", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "25", "steps>0", "steps between validations; the best tab is kept"},
    {"valid_windows", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "16", "steps>0", "held-out windows of a validation"},
};

static const tt_train_vtable vtable = {.train = train};

const tt_method tt__method_lora = {
    .info = {.name = "lora", .family = "tuning", .title = "LoRA: Low-Rank Adaptation of Large Language Models", .id = "arXiv:2106.09685", .year = 2021,
             .summary = "thin factors beside the frozen matrices win back quality for a few more bytes and multiplications", .version = 1, .stage = "train",
             .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .train = &vtable,
};
