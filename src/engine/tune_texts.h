/* The texts of a tune: what is learned from, what validates, what is guarded. */
#ifndef TT_ENGINE_TUNE_TEXTS_H
#define TT_ENGINE_TUNE_TEXTS_H
#include "engine/model.h"
#include "train/guard.h"

typedef struct tt_tune_texts {
    tt_tokens train, valid;
    char sha256[65];                          /* of the texts that are learned from */
    tt_tokens guarded[TT_MAX_GUARDS];
    tt_guard_text guards[TT_MAX_GUARDS]; int n_guards;
    bool guards_named;                        /* asked for, not the default */
    char *names[TT_MAX_GUARDS];
    char *folders[2];                         /* of text being sampled; kept until the result is safe */
} tt_tune_texts;

/* Sampled text comes from the teacher (NULL: from the dense model that the student records, else from the student itself) and is kept in `state`,
 * so that a run that goes on does not sample again. `length`: tokens of a window, 0: nothing
 * will be learned and nothing is guarded. */
tt_status tt__tune_texts_read(tt_ctx *ctx, const tt_tune_options *o, const char *state, tt_model *student, tt_model *teacher, int64_t length, tt_tune_texts *out,
                              tt_err *err);
/* The result is safe: the folders go. */
tt_status tt__tune_texts_done(tt_tune_texts *t, const char *state, tt_err *err);
/* *begun: a trainer's state lies there. Otherwise sampled text that a run left, killed at its last act, goes. */
tt_status tt__tune_texts_sweep(const char *state, bool *begun, tt_err *err);
void tt__tune_texts_free(tt_tune_texts *t);
#endif
