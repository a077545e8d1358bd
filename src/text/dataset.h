/* Data sets of plain text: documents, tokens, windows. A document never shares a window with another one.
 *   FILE.txt    one document, or one per line that matches `split` (POSIX extended regular expression)
 *   FILE.jsonl  one document per line: {"text": "…"}, or {"messages": [{"role": "…", "content": "…"}, …]} (further keys ignored)
 *   FILE.json   the same as an array
 *   FOLDER      every *.txt in it, in byte order of names
 */
#ifndef TT_TEXT_DATASET_H
#define TT_TEXT_DATASET_H
#include "text/tokenizer.h"
/* A document of messages holds them as JSON text; they become tokens through the model's chat template. */
typedef struct tt_docs { size_t n; char **text; size_t *bytes; bool *chat; char sha256[65]; } tt_docs;
tt_status tt__docs_load(const char *path, const char *split, tt_docs *out, tt_err *err);
void tt__docs_free(tt_docs *d);

/* Tokens of all documents, one after the other: document i is ids[start[i]] … ids[start[i+1]-1]. No special tokens are parsed. */
typedef struct tt_tokens { size_t n_docs, n; int32_t *ids; size_t *start; } tt_tokens;
tt_status tt__docs_tokenize(const tt_docs *d, const tt_tokenizer *t, tt_tokens *out, tt_err *err);
void tt__tokens_free(tt_tokens *t);

/* Windows of up to `length` tokens, none across documents; a rest of fewer than `min` tokens is dropped. */
typedef struct tt_window { size_t begin; int32_t n; int32_t doc; } tt_window;
tt_status tt__windows(const tt_tokens *t, int64_t length, int64_t min, tt_window **out, size_t *n, tt_err *err);
/* Windows of exactly `length` tokens over the joined documents (separated by `separator` id when ≥ 0), for calibration and
 * training of short documents; shuffled by seed; doc is that of the first token. `joined` owns the tokens. */
tt_status tt__windows_packed(const tt_tokens *t, int64_t length, int32_t separator, uint64_t seed, tt_tokens *joined, tt_window **out, size_t *n, tt_err *err);
/* Deterministic split by document: `share` (0 … 1) of the tokens go to b. */
tt_status tt__docs_split(const tt_docs *d, double share, uint64_t seed, tt_docs *a, tt_docs *b, tt_err *err);
#endif
