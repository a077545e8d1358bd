/* One batch of a training end to end: the student's loss on windows of text, against the next token or against a teacher.
 *
 *     rows of a batch:  P rows of a tab (positions 0 … P-1) | sequence 1 (T rows, positions P …) | sequence 2 | …     every sequence sees the P rows
 *     targets:          row t of a sequence predicts its token t+1, t = 0 … T-2: the paper's targets x_2 … x_T, the same for both losses.
 *                       The rows of the tab and the last row have none, and the mean divides by the number of targets, by nothing else.
 *     loss, CE:         mean over targets of -log p(x_{t+1} | tab, x_0 … x_t)
 *     loss, KL:         mean over targets of KL(teacher(· | x_0 … x_t) ‖ student(· | tab, x_0 … x_t)); the teacher reads the text without the tab
 */
#ifndef TT_TRAIN_DISTIL_H
#define TT_TRAIN_DISTIL_H
#include "train/teacher.h"

typedef struct tt_distil_options {
    int64_t rows;                /* P */
    int64_t positions;           /* learned keys and values in front of every sequence instead (tt_train_prefix) */
    int64_t batch, length;
    bool kl;                     /* else the next token */
    int64_t topk;                /* of the teacher's cached tokens (teacher.h); 0: the whole vocabulary, and the teacher runs at every step */
    double temperature;          /* of both distributions; 0: 1 */
    bool weights;                /* hooks will ask for gradients of weights */
    bool bf16;                   /* steps (batches of which a gradient is wanted) multiply in bf16 with f32 sums, where the machine does; validation never does */
    bool trains;                 /* there will be gradients */
    uint64_t others;             /* bytes that the caller holds beside */
} tt_distil_options;

typedef struct tt_distil {
    tt_ctx *ctx;
    tt_train_job *job;
    tt_distil_options o;
    int64_t d;
    tt_runner *student, *teacher;
    tt_teacher *cache;           /* with topk */
    float *X, *dX, *H;           /* [P + S*T, d] twice, the tab's rows first; [S*T, teacher's d] */
    int32_t *top;                /* [S*(T-1), k] of a batch, and their log-probabilities; [S*(T-1)] the log of the rest */
    float *top_logp, *rest_logp;
    int32_t *target;             /* [P + S*T] */
} tt_distil;

/* Checks the job (contexts, vocabularies, a teacher when it is needed) and opens what runs, with the fullest keep policy within the job's max_ram. */
tt_status tt__distil_open(tt_ctx *ctx, const tt_distil_options *o, tt_train_job *job, tt_distil *out, tt_err *err);
void tt__distil_close(tt_distil *d);
/* Windows that will come: the teacher's cache learns of them (tt_learn_task.prepare). */
tt_status tt__distil_prepare(tt_distil *d, const int32_t *const *windows, size_t n, tt_err *err);
/* Mean loss of S windows of ids; the first P rows of X are the caller's. What of its gradient is wanted: of the input rows (in dX), of weights (hooks),
 * of keys and values (in prefix, which is also what is run through). */
typedef struct tt_distil_want { bool rows; const tt_train_hooks *hooks; const tt_train_prefix *prefix; } tt_distil_want;
tt_status tt__distil_loss(tt_distil *d, const int32_t *ids, int64_t S, const tt_distil_want *want, double *loss, tt_err *err);
/* Mean next-token loss of S windows, with the rows of X and the prefix (NULL: none), or `bare`: without. */
tt_status tt__distil_next(tt_distil *d, const int32_t *ids, int64_t S, const tt_train_prefix *prefix, bool bare, double *loss, tt_err *err);
/* After the result is safe. */
void tt__distil_done(tt_distil *d);
#endif
