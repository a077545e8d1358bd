/* What a teacher says about the windows of a training, asked once: its k likeliest tokens of each target, kept on disk (formats/logits.h) and read
 * from there by every further run with the same teacher and text.
 *
 *     prepare    the windows that are not known yet go through the teacher; what it says is written to parts in the state folder, every now and
 *                then, so that a killed run loses little; at the end parts and old file become the new file, and the parts go
 *     rows       of a batch of windows, for the loss
 *
 * The file is CACHE/<hash of teacher, text, instruction set, k, length, temperature>.logits; without a cache folder it is in the state folder and
 * goes with it. Cost: one forward pass of the teacher per window, ever.
 */
#ifndef TT_TRAIN_TEACHER_H
#define TT_TRAIN_TEACHER_H
#include "formats/logits.h"
#include "train/trainer.h"

typedef struct tt_teacher_options { int64_t k, batch, length; double temperature; } tt_teacher_options;
typedef struct tt_teacher tt_teacher;
/* The runner is lent, made for batch * length rows. A damaged or foreign file is refused. */
tt_status tt__teacher_open(tt_ctx *ctx, const tt_teacher_options *o, tt_train_job *job, tt_runner *runner, tt_teacher **out, tt_err *err);
void tt__teacher_close(tt_teacher *t);
int64_t tt__teacher_k(const tt_teacher *t);                 /* at most the vocabulary */
tt_status tt__teacher_prepare(tt_teacher *t, const int32_t *const *windows, size_t n, tt_err *err);
/* Targets 0 … length-2 of each of S windows lying in ids, one after the other: top [·, k] ascending, logp [·, k], rest [·]. */
tt_status tt__teacher_rows(tt_teacher *t, const int32_t *ids, int64_t S, int32_t *top, float *logp, float *rest, tt_err *err);
/* After the result is safe: a file in the state folder goes. */
void tt__teacher_done(tt_teacher *t);
/* The k largest of z [n], ids ascending; of equal ones the first. heap [k] is room. */
typedef struct tt_top { float z; int32_t id; } tt_top;
void tt__top_k(const float *z, int64_t n, int64_t k, tt_top *heap);
#endif
