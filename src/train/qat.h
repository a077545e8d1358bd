/* End-to-end training of the weights behind the codes, with their scales, minima and norm gains. The method is methods/tuning/qat.c. */
#ifndef TT_TRAIN_QAT_H
#define TT_TRAIN_QAT_H
#include "train/learn.h"

typedef struct tt_qat_options {
    tt_learn_options learn;
    bool kl;
    int64_t topk;
    double temperature;
    double lr, scale_lr, norm_lr;    /* relative: to the mean scale of a matrix (weights, scales, minima), to the rms of a vector */
} tt_qat_options;
tt_status tt__qat_train(tt_ctx *ctx, const tt_qat_options *o, tt_train_job *job, tt_err *err);
#endif
