/* prefix: keys and values learned directly, in front of every text: the most quality per byte that a file beside the model can hold.
 *
 * Papers: X. L. Li, P. Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", 2021, arXiv 2101.00190; the recipe is that of S. Eyuboglu
 * et al., "Cartridges: Lightweight and general-purpose long context representations via self-study", 2025, arXiv 2506.06266: begin from the keys and
 * values of a real text, keep the first position (the attention sink) as it is, Adam on keys and values themselves, follow the teacher's distribution.
 *
 *     min over K_l, V_l of  mean_t  KL( p(· | x_1 … x_{t-1}; θ) ‖ p(· | [K; V], x_1 … x_{t-1}; θ̂) )      θ dense, θ̂ compressed, frozen
 *
 * What it trades: `tokens` more cached positions, 2 layers x kv width numbers each (SmolLM2-135M: 11,520, or 45 KiB in f32). No weight changes.
 * Unlike a prompt's, its numbers are not tied to what the layers make of an input vector: every layer is steered by itself.
 *
 * Where we depart: one file of cache entries, no network that makes them; steps are few. A prefix knows its model's layers: another model of the same
 * shape may use it, as with prompts, and gains less.
 *
 * How it fails: a random beginning (init=random is there to show it); too high a rate (back and half); text of one kind with loss=ce.
 */
#include "methods/method.h"
#include "train/kvprefix.h"

#include <string.h>

static tt_status train(tt_ctx *ctx, const tt_knobs *k, tt_train_job *job, tt_err *err) {
    tt_kvprefix_options o = {
        .learn = {.steps = tt__knob_i(k, "steps"), .time = job->time > 0 ? job->time : tt__knob_f(k, "time"), .batch = tt__knob_i(k, "batch"),
                  .length = tt__knob_i(k, "length"), .warmup = tt__knob_i(k, "warmup"), .valid_every = tt__knob_i(k, "valid_every"),
                  .valid_windows = tt__knob_i(k, "valid_windows"), .clip = tt__knob_f(k, "clip"), .beta1 = tt__knob_f(k, "beta1"),
                  .beta2 = tt__knob_f(k, "beta2"), .cosine = !strcmp(tt__knob_s(k, "schedule"), "cosine")},
        .tokens = tt__knob_i(k, "tokens"), .frozen = tt__knob_i(k, "frozen"), .kl = !strcmp(tt__knob_s(k, "loss"), "kl"),
        .random = !strcmp(tt__knob_s(k, "init"), "random"), .topk = tt__knob_i(k, "topk"), .temperature = tt__knob_f(k, "temperature"),
        .lr = tt__knob_f(k, "lr"), .init_text = tt__knob_s(k, "init_text"),
    };
    return tt__kvprefix_train(ctx, &o, job, err);
}

static const tt_knob knobs[] = {
    {"tokens", TT_KNOB_INT, 2, 8192, TT_LOG, NULL, "16", NULL, "positions of the prefix"},
    {"frozen", TT_KNOB_INT, 0, 64, TT_LINEAR, NULL, "1", NULL, "first positions that keep what the text gave: the attention sink"},
    {"init", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "text|random", "text", NULL, "keys and values of a real text, or small random numbers"},
    {"init_text", TT_KNOB_TEXT, 0, 0, TT_LINEAR, NULL, "", "init=text", "that text, repeated; empty: the beginning of the training text"},
    {"loss", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "kl|ce", "kl", NULL, "kl: the dense model's distribution (needs a teacher); ce: the next token"},
    {"topk", TT_KNOB_INT, 0, 65536, TT_LOG, NULL, "64", "loss=kl",
        "likeliest tokens of a target that the teacher's cache holds, the rest as one; 0: all of them, and the teacher runs at every step"},
    {"temperature", TT_KNOB_REAL, 0.1, 10, TT_LOG, NULL, "1", "loss=kl", "of both distributions"},
    {"steps", TT_KNOB_INT, 0, 1000000, TT_LOG, NULL, "200", NULL, "training steps; 0 writes the untrained prefix"},
    {"time", TT_KNOB_DURATION, 0, 2592000, TT_LINEAR, NULL, "0", "steps>0", "time budget, turned into a number of steps once (replaces steps); 0: none"},
    {"batch", TT_KNOB_INT, 1, 1024, TT_LOG, NULL, "4", "steps>0", "windows of a step"},
    {"length", TT_KNOB_INT, 8, 65536, TT_LOG, NULL, "256", "steps>0", "tokens of a window"},
    {"lr", TT_KNOB_REAL, 1e-7, 10, TT_LOG, NULL, "2e-2", "steps>0", "learning rate"},
    {"schedule", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "cosine|linear", "linear", "steps>0", "how the rate falls: a cosine to a twentieth, a line to 0"},
    {"warmup", TT_KNOB_INT, 0, 100000, TT_LINEAR, NULL, "0", "steps>0", "steps over which the rate rises"},
    {"clip", TT_KNOB_REAL, 0, 1e9, TT_LOG, NULL, "1", "steps>0", "largest norm of a gradient; 0: no limit"},
    {"beta1", TT_KNOB_REAL, 0, 0.9999, TT_LINEAR, NULL, "0.9", "steps>0", "Adam's decay of the first moment"},
    {"beta2", TT_KNOB_REAL, 0, 0.999999, TT_LINEAR, NULL, "0.999", "steps>0", "Adam's decay of the second moment"},
    {"valid_every", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "25", "steps>0", "steps between validations; the best prefix is kept"},
    {"valid_windows", TT_KNOB_INT, 1, 100000, TT_LOG, NULL, "16", "steps>0", "held-out windows of a validation"},
};

static const tt_train_vtable vtable = {.train = train};

const tt_method tt__method_prefix = {
    .info = {.name = "prefix", .family = "tuning", .title = "Prefix-Tuning: Optimizing Continuous Prompts for Generation", .id = "arXiv:2101.00190", .year = 2021,
             .summary = "learned keys and values in front of every text win back quality for a few cached positions", .version = 1, .stage = "train",
             .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .train = &vtable,
};
