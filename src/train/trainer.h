/* What a train-stage method is given: the student, the teacher, data, budget, a state folder, and a place for the result. */
#ifndef TT_TRAIN_TRAINER_H
#define TT_TRAIN_TRAINER_H
#include "models/net.h"
#include "text/dataset.h"
#include "train/guard.h"
typedef struct tt_train_job {
    const tt_net *student, *teacher;          /* teacher may be NULL when the loss needs none */
    const tt_tokenizer *tokenizer;
    const tt_tokens *train, *valid;
    const tt_guard_text *guards; int n_guards; /* texts that must not become worse (train/guard.h) */
    double time;                              /* seconds, 0: none; turned into steps once and kept in the state file */
    uint64_t seed, max_ram;
    const char *state_dir, *output;           /* folders */
    const char *base_ref, *base_sha256;       /* for adapter_config.json and trimtab.json */
    const char *dense_sha256;                 /* of the dense model that the student comes from; NULL: unknown */
    const char *teacher_sha256;               /* NULL without teacher */
    const char *recipe_line, *recipe_sha256, *data_sha256;
    bool resume, force;                       /* force: an existing output may be replaced */
    double checkpoint_seconds;                /* at most this much work is lost by a kill; 0: every step */
    bool deterministic;
    tt_tune_report report;
} tt_train_job;
#endif
