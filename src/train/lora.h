/* Learning thin factors beside a net's matrices, the matrices frozen. The method is methods/tuning/lora.c. */
#ifndef TT_TRAIN_LORA_H
#define TT_TRAIN_LORA_H
#include "train/learn.h"

typedef struct tt_lora_options {
    tt_learn_options learn;
    int64_t rank;
    double alpha;
    const char *targets;         /* names of matrices as PEFT has them, "q_proj v_proj", or "all" */
    bool kl;
    int64_t topk;
    double temperature, lr, decay;
} tt_lora_options;
tt_status tt__lora_train(tt_ctx *ctx, const tt_lora_options *o, tt_train_job *job, tt_err *err);
#endif
