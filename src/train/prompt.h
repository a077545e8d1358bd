/* Learning the rows of a soft prompt through a frozen net. The paper's method and its knobs are in methods/tuning/prompt.c. */
#ifndef TT_TRAIN_PROMPT_H
#define TT_TRAIN_PROMPT_H
#include "train/trainer.h"

typedef enum tt_prompt_init { TT_PROMPT_VOCAB, TT_PROMPT_TEXT, TT_PROMPT_RANDOM } tt_prompt_init;

typedef struct tt_prompt_options {
    int64_t tokens, steps;           /* steps = 0 writes the untrained tab */
    bool kl;                         /* KL(teacher ‖ student) instead of next-token cross-entropy */
    bool bf16;                       /* steps multiply in bf16 with f32 sums, where the machine does */
    double time;                     /* seconds: replaces `steps`; 0: none */
    int64_t batch, length, warmup, valid_every, valid_windows;
    double lr, clip, beta1, beta2, decay;
    tt_prompt_init init;
    const char *init_text;
} tt_prompt_options;
tt_status tt__prompt_train(tt_ctx *ctx, const tt_prompt_options *o, tt_train_job *job, tt_err *err);
#endif
