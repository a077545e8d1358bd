/* Do no harm: kinds of text that a training does not learn from are watched, and the checkpoint that is kept makes none of them worse.
 *
 *     bare      the loss on each text before anything was learned: the compressed model without a tab
 *     point     at a validation: the losses as things stand. A point that leaves no text worse than bare is harmless; the best harmless one by
 *               validation is kept, and while there is none the best one at all
 *     trade     when none was harmless: the points of the course that no other one beats in both, validation and largest harm
 *
 * Losses are next-token losses in f32, means over the same windows every time, so a difference of means is a paired one. A trainer calls `begin`
 * once, `point` at its validations, and stores the guard's bytes with its state.
 */
#ifndef TT_TRAIN_GUARD_H
#define TT_TRAIN_GUARD_H
#include "base/util.h"
#include "models/net.h"
#include "text/dataset.h"
#include "trimtab/trimtab.h"

typedef struct tt_guard_text { const char *name; const tt_tokens *tokens; } tt_guard_text;

/* Mean next-token loss of S windows lying in ids, as things stand or `bare`: without what is learned. */
typedef tt_status (*tt_guard_loss_fn)(void *user, const int32_t *ids, int64_t S, bool bare, double *loss, tt_err *err);

typedef struct tt_guard_options {
    const tt_guard_text *texts; int n_texts;  /* at most TT_MAX_GUARDS; lent until create returns */
    int64_t length, windows, batch;           /* tokens of a window; windows of a text at most; windows of a call of the loss */
    int32_t separator;
    uint64_t seed;
    tt_guard_loss_fn loss; void *user;
} tt_guard_options;

typedef struct tt_guard tt_guard;
tt_status tt__guard_create(tt_ctx *ctx, const tt_guard_options *o, tt_guard **out, tt_err *err);
void tt__guard_free(tt_guard *g);
tt_status tt__guard_begin(tt_guard *g, tt_err *err);
/* *keep: this point is the one to hold so far. A loss that is not finite counts as harm. */
tt_status tt__guard_point(tt_guard *g, int64_t step, double valid, bool *keep, tt_err *err);
void tt__guard_report(const tt_guard *g, tt_guard_report *out);
/* The same as JSON: "harmless", "texts"[]: "name", "tokens", "bare", "kept"; and "trade"[]: "step", "valid", "harm". */
json_t *tt__guard_json(const tt_guard *g);

/* What the result depends on, and the state; bytes that no guard of these texts can have written are refused. */
void tt__guard_hash(const tt_guard *g, tt__sha256 *s);
size_t tt__guard_bytes(const tt_guard *g);
void tt__guard_store(const tt_guard *g, void *to);
bool tt__guard_take(tt_guard *g, const void *from, size_t bytes, tt_err *err);
/* The bytes a state begins with tell how many there are. */
enum { TT_GUARD_HEAD = 8 };
size_t tt__guard_size(const void *head);
#endif
