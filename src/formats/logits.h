/* A file of what a teacher says about windows of text: for each target its k likeliest tokens with log-probabilities, and the log of the mass of
 * all others. Training asks the teacher once and reads this from then on (train/teacher.h).
 *
 *     header   "TTLOGITS" | u32 version | u32 k | teacher sha256 32 B | data sha256 32 B | isa 16 B | u32 vocab | u32 length | f32 temperature |
 *              u32 0 | u64 windows | u64 0                                                                                   128 bytes
 *     window   key 16 B | rest f32 [n] | q u16 [n, k] | id u16 or u32 [n, k]        n = length - 1 targets of a window; u16 while vocab ≤ 65536
 *     trailer  sha256 of windows, then header                                                                                 32 bytes
 *
 *     log p(id) = -q / 2048: 0 … -32 in steps of 1/2048, so a probability is off by at most 0.025 % (f16 would be off by up to 0.8 % at p = e^-16).
 *     Readers normalise: the k probabilities and the rest sum to 1 exactly as far as f32 goes. ids of a row ascend.
 *
 * The key of a window is the head of the SHA-256 of its tokens (i32): a window is found by what it says, whatever order or split a run has.
 * A file is written beside its place and renamed; one that is damaged or of another teacher, text, k or temperature is refused by name.
 * At k = 64: 260 bytes a target.
 */
#ifndef TT_FORMATS_LOGITS_H
#define TT_FORMATS_LOGITS_H
#include "trimtab/status.h"
#include <stdint.h>

enum { TT_LOGITS_KEY = 16 };

/* What the numbers are of; strings of hex digits and names, NUL-terminated. */
typedef struct tt_logits_head { char teacher[65], data[65], isa[16]; int64_t vocab, k, length; float temperature; } tt_logits_head;

typedef struct tt_logits tt_logits;
/* Whole, checked against its hash. want: TT_MISMATCH names what differs; NULL: any. */
tt_status tt__logits_open(const char *path, const tt_logits_head *want, tt_logits **out, tt_err *err);
void tt__logits_close(tt_logits *l);
const tt_logits_head *tt__logits_get_head(const tt_logits *l);
int64_t tt__logits_windows(const tt_logits *l);
const uint8_t *tt__logits_key(const tt_logits *l, int64_t window);
/* The window of this key, or -1. */
int64_t tt__logits_find(const tt_logits *l, const uint8_t key[TT_LOGITS_KEY]);
/* Target `row` of a window: ids [k], their log-probabilities [k], and the log of the mass of all other tokens (-INFINITY: none). */
void tt__logits_row(const tt_logits *l, int64_t window, int64_t row, int32_t *ids, float *logp, float *rest);

/* ---- writing ---- */
typedef struct tt_logits_writer tt_logits_writer;
tt_status tt__logits_create(const char *path, const tt_logits_head *head, tt_logits_writer **out, tt_err *err);
/* ids [n, k] ascending in a row, logp [n, k] ≤ 0, rest [n] the log of the remaining mass (-INFINITY: none). */
tt_status tt__logits_add(tt_logits_writer *w, const uint8_t key[TT_LOGITS_KEY], const int32_t *ids, const float *logp, const float *rest, tt_err *err);
/* A window of another file of the same head, as it is. */
tt_status tt__logits_copy(tt_logits_writer *w, const tt_logits *from, int64_t window, tt_err *err);
int64_t tt__logits_written(const tt_logits_writer *w);
uint64_t tt__logits_bytes(const tt_logits_head *head, int64_t windows);
/* Frees w in every case. */
tt_status tt__logits_commit(tt_logits_writer *w, tt_err *err);
void tt__logits_abort(tt_logits_writer *w);
#endif
