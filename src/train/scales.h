/* Learning the numbers between the codes: scales, minima and norm gains of a compressed model, its codes frozen. The method is
 * methods/tuning/dwq.c. */
#ifndef TT_TRAIN_SCALES_H
#define TT_TRAIN_SCALES_H
#include "train/learn.h"

typedef struct tt_scales_options {
    tt_learn_options learn;
    bool kl;
    int64_t topk;
    double temperature, decay;
    double lr;                   /* of scales and minima, relative to the scale of their group */
    double norm_lr;              /* of norm gains, relative to the root mean square of the vector; 0: they stay */
    double max_bits;             /* matrices of more bits per weight stay as they are */
} tt_scales_options;
tt_status tt__scales_train(tt_ctx *ctx, const tt_scales_options *o, tt_train_job *job, tt_err *err);
#endif
