/* The loop that everything shares that learns end to end: tabs, scales, latent weights. What learns is named as sets of numbers, how they enter the
 * loss is the task's; data, order, schedule, optimiser, validation, state and recovery are here.
 *
 *     open     memory for the sets; the state of an interrupted run is taken over
 *     run      step 0 … total-1: batch → task's loss and gradients → clip → AdamW, each set at its own rate; validation now and then
 *     best     the values that validated best, back in the sets
 *     finish   after the result is safe: the state goes
 *
 * What may interrupt must not change the result: see learn.c.
 */
#ifndef TT_TRAIN_LEARN_H
#define TT_TRAIN_LEARN_H
#include "train/trainer.h"

/* Numbers that learn at one rate. x and g are lent by the learner from open to close. */
typedef struct tt_pset {
    const char *name;
    int64_t n;
    double lr, decay;
    float *x, *g;                /* values; gradient, written by the loss */
} tt_pset;

typedef struct tt_learn_options {
    int64_t steps;               /* 0: the sets keep their first values, no text and no teacher is touched */
    double time;                 /* seconds: replaces `steps`; 0: none */
    int64_t batch, length, warmup, valid_every, valid_windows;
    double clip, beta1, beta2;   /* clip: largest norm of a set's gradient; 0: none */
    bool cosine;                 /* the rate falls along a cosine to a twentieth; else linearly to 0 */
} tt_learn_options;

typedef struct tt_learn_task {
    void *user;
    const char *what;            /* "tab": of messages and trimtab.json */
    const char *file;            /* "prompt": its state is STATE/prompt.state and two points beside it */
    const char *salt;            /* what else the bytes of the result depend on; or NULL */
    tt_pset *sets;
    int n_sets;
    /* x of every set before step 0 */
    tt_status (*first)(void *user, tt_err *err);
    /* Before windows are asked for: all that may come, n of them (NULL: there is nothing to prepare). */
    tt_status (*prepare)(void *user, const int32_t *const *windows, size_t n, tt_err *err);
    /* Mean loss per target of S windows of `length` tokens, and with `gradient` the g of every set (=). */
    tt_status (*loss)(void *user, const int32_t *ids, int64_t S, bool gradient, double *loss, tt_err *err);
    /* Mean next-token loss of S windows, for the job's guard texts: as things stand, or bare, without what is learned (asked at step 0 alone, where
     * a task whose first values change nothing may answer as things stand). NULL: guards are refused. */
    tt_guard_loss_fn next;
} tt_learn_task;

typedef struct tt_learner tt_learner;
/* TT_USAGE when the job's output stands and neither the state nor `force` allows for it. Options, task and job outlive the learner. */
tt_status tt__learn_open(tt_ctx *ctx, const tt_learn_options *o, const tt_learn_task *task, tt_train_job *job, tt_learner **out, tt_err *err);
void tt__learn_close(tt_learner *l);
uint64_t tt__learn_bytes(const tt_learner *l);              /* values, moments, gradients */
tt_status tt__learn_run(tt_learner *l, tt_err *err);
tt_status tt__learn_best(tt_learner *l, tt_err *err);
/* trimtab.json: what `more` holds (taken over), the job, and the course of the training. Equal runs give equal text. */
tt_status tt__learn_record(const tt_learner *l, const char *method, const char *loss, json_t *more, tt__str *out, tt_err *err);
/* Fills the job's report and removes the state. */
void tt__learn_finish(tt_learner *l);
#endif
