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
    const char *state_dir, *output;           /* a folder; a folder or a file, as the method writes */
    const char *cache_dir;                    /* where a teacher's logits are kept from run to run; NULL: nowhere */
    const char *base_ref, *base_sha256;       /* for adapter_config.json and trimtab.json */
    const char *dense_sha256;                 /* of the dense model that the student comes from; NULL: unknown */
    const char *teacher_sha256;               /* NULL without teacher */
    const char *recipe_line, *recipe_sha256, *data_sha256;
    bool resume, force;                       /* force: an existing output may be replaced */
    /* for methods that change the model: writes the net with these weights to `output`, and `record` (JSON) into it */
    tt_status (*save_model)(void *user, const tt_net *net, const char *record, tt_err *err);
    void *save_user;
    double checkpoint_seconds;                /* at most this much work is lost by a kill; 0: every step */
    bool deterministic;
    tt_tune_report report;
} tt_train_job;
#endif
