/* Pre-tokenizers: the expressions of attention.md D1 as hand-written scanners. Each is one pass with bounded look-back, no recursion and
 * no backtracking beyond the white space at hand: linear in the text whatever the text (RELIABILITY T1). */
#ifndef TT_TEXT_PRETOK_H
#define TT_TEXT_PRETOK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(enumerator, name, which digits stand alone first, scanner) */
#define TT_PRETOK_LIST(X)                                                                                     \
    X(TT_PRE_GPT2, "gpt-2", 0, gpt2)              /* ByteLevel's own expression */                            \
    X(TT_PRE_SMOLLM, "smollm", TT_UC_DIGIT, gpt2) /* Digits(individual), then gpt-2 */                        \
    X(TT_PRE_LLAMA3, "llama-bpe", 0, llama3)      /* numbers in threes */                                     \
    X(TT_PRE_QWEN2, "qwen2", 0, qwen2)            /* numbers one by one */
typedef enum tt_pretok {
#define X(id, name, digits, scan) id,
    TT_PRETOK_LIST(X)
#undef X
    TT_PRE_COUNT
} tt_pretok;

const char *tt__pretok_name(tt_pretok pre);
/* By GGUF name, synonyms included ("llama3", "deepseek-r1-qwen", …). */
bool tt__pretok_find(const char *name, size_t n, tt_pretok *out);
/* The expression that a tokenizer.json writes for `Split`, where there is one. */
bool tt__pretok_from_regex(const char *regex, size_t n, tt_pretok *out);
const char *tt__pretok_regex(tt_pretok pre);

/* Walks s[0..n), valid UTF-8: `at` … returned end is the next piece; never empty. */
typedef struct tt_pieces { const uint8_t *s; size_t n, at, section; tt_pretok pre; } tt_pieces;
static inline tt_pieces tt__pieces(tt_pretok pre, const char *s, size_t n) { return (tt_pieces){(const uint8_t *)s, n, 0, 0, pre}; }
bool tt__pieces_next(tt_pieces *p, size_t *begin, size_t *end);
#endif
