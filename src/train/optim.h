/* Optimisers and learning-rate schedules for the few trainable numbers of a tab, or the many of a model. f32 master values, fixed order of sums. */
#ifndef TT_TRAIN_OPTIM_H
#define TT_TRAIN_OPTIM_H
#include <stdint.h>

/* AdamW, decoupled decay (I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2; tuning.md A8). */
typedef struct tt_adamw { double beta1, beta2, eps, decay; } tt_adamw;
/* Step t = 1, 2, … : p, m, v [n] are updated with gradient g. */
void tt__adamw_step(const tt_adamw *o, int64_t t, double lr, int64_t n, float *p, float *m, float *v, const float *g);

/* Scales g to a norm of at most `max` (0: leaves it) and returns the norm it had. Not finite when an element is not. */
double tt__clip_norm(float *g, int64_t n, double max);

/* Factor of the base rate for step k = 0 … total-1: (k+1)/warmup up to warmup, then falling linearly so that step `total` would be 0. */
double tt__lr_linear(int64_t k, int64_t warmup, int64_t total);
/* The same, falling along half a cosine from 1 at the end of the warm-up to `least` at step `total`. */
double tt__lr_cosine(int64_t k, int64_t warmup, int64_t total, double least);
#endif
