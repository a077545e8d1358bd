/* Learning keys and values that stand in front of every text, through a frozen net. The method is methods/tuning/prefix.c. */
#ifndef TT_TRAIN_KVPREFIX_H
#define TT_TRAIN_KVPREFIX_H
#include "train/learn.h"

typedef struct tt_kvprefix_options {
    tt_learn_options learn;
    int64_t tokens, frozen;      /* positions; the first `frozen` of them keep what the text gave */
    bool kl, random;             /* random: small normal numbers instead of a text's keys and values */
    int64_t topk;
    double temperature, lr;
    const char *init_text;       /* NULL or "": the beginning of the training text */
} tt_kvprefix_options;
tt_status tt__kvprefix_train(tt_ctx *ctx, const tt_kvprefix_options *o, tt_train_job *job, tt_err *err);
#endif
