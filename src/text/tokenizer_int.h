/* The inside of a tokenizer: what the readers fill and the encoder reads. One block of text for all tokens, two open-addressing tables.
 *
 *   text   "!" "\"" "#" … "Ġthe" … "<|im_end|>"      stored form, back to back; token i is text[at[i] … at[i+1])
 *   vocab  hash of the stored form → id
 *   pairs  (left id, right id) → rank, result id     at most half full, so that a search ends
 *
 * Stored form: tokens of the model are written in the byte alphabet (attention.md D1), added ones as they are. A token takes part in
 * merging only when it is IN_MODEL. Invariant after tt__tokenizer_finish: every merge's parts and result are IN_MODEL, and the result is
 * no control token, so that no control token can come from text (S1). */
#ifndef TT_TEXT_TOKENIZER_INT_H
#define TT_TEXT_TOKENIZER_INT_H
#include "base/util.h"
#include "text/pretok.h"
#include "text/tokenizer.h"
#include "trimtab/trimtab.h"

enum { TT_TOK_SINGLE_WORD = 1, TT_TOK_LSTRIP = 2, TT_TOK_RSTRIP = 4, TT_TOK_NORMALIZED = 8, /* of tokenizer.json */
       TT_TOK_ADDED = 16, TT_TOK_IN_MODEL = 32 };

typedef struct tt_vocab_slot { uint32_t id1, tag; } tt_vocab_slot;              /* id + 1, 0: free */
typedef struct tt_pair_slot { uint32_t left, right, rank1, id; } tt_pair_slot;  /* rank + 1, 0: free */

/* Added tokens of one kind in byte order of their text, for leftmost-longest matching. */
typedef struct tt_added { int32_t *ids; size_t n; bool first[256]; } tt_added;

struct tt_tokenizer {
    char *text;                       /* see above */
    size_t text_n, text_cap;
    size_t *at;                       /* [n + 1] */
    size_t n, cap;
    uint8_t *type, *flags;            /* [n] tt_token_type, TT_TOK_* */
    uint64_t seed;                    /* of the hashes; results do not depend on it */
    tt_vocab_slot *vocab; size_t vocab_mask;
    tt_pair_slot *pairs; size_t pair_mask, n_merges;
    int32_t last_result;              /* of the last merge, while loading */
    int32_t byte_id[256];             /* the token of a byte; -1: the byte is dropped */
    tt_pretok pre;
    bool nfc, ignore_merges, fuse_unk, adds_bos, adds_eos;
    int32_t bos, eos, unk, pad;       /* -1: none. unk stands for missing bytes */
    int32_t *ends; size_t n_ends;
    tt_added raw, normalized;         /* matched before and after normalization */
    char *chat_template;
};

/* ---- filling, in this order; every function fails cleanly and leaves the rest to tt__tokenizer_free ---- */
tt_status tt__tokenizer_new(tt_tokenizer **out, tt_err *err);
/* Appends a token; ids are given in order. */
tt_status tt__tokenizer_push(tt_tokenizer *t, const char *s, size_t n, tt_token_type type, unsigned flags, const char *where, tt_err *err);
/* After the last token: the hash of all of them. A doubled token of the model is refused. */
tt_status tt__tokenizer_index(tt_tokenizer *t, const char *where, tt_err *err);
/* Room for n merges that were seen, then each by rank order (T4). */
tt_status tt__tokenizer_reserve_merges(tt_tokenizer *t, size_t n, tt_err *err);
tt_status tt__tokenizer_add_merge(tt_tokenizer *t, const char *left, size_t nl, const char *right, size_t nr, const char *where, tt_err *err);
/* Byte tokens (T5), added tokens (T6), end tokens. */
tt_status tt__tokenizer_finish(tt_tokenizer *t, const char *where, tt_err *err);

/* One more token that ends a generation; -1 is none. */
tt_status tt__tokenizer_add_end(tt_tokenizer *t, int32_t id, tt_err *err);

/* ---- byte alphabet ---- */
extern const uint16_t tt__byte_to_cp[256];
/* Byte of a code point of the alphabet, or -1. */
int tt__cp_to_byte(uint32_t cp);
/* Bytes that a token decodes to, appended; tokens that leave the alphabet are kept as they are, as the package does. */
void tt__token_bytes(const tt_tokenizer *t, int32_t id, tt__str *out);

/* ---- merging ---- */
typedef struct tt_ids { int32_t *v; size_t n, cap; bool failed; } tt_ids;
static inline void tt__ids_push(tt_ids *o, int32_t id);
typedef struct tt_merger tt_merger;                                            /* scratch of one encoding */
tt_status tt__merger_create(const tt_tokenizer *t, tt_merger **out, tt_err *err);
void tt__merger_free(tt_merger *m);
/* Appends the tokens of one piece of bytes. */
tt_status tt__merge_piece(tt_merger *m, const uint8_t *s, size_t n, tt_ids *out, tt_err *err);

const tt_pair_slot *tt__pair_find(const tt_tokenizer *t, uint32_t left, uint32_t right);   /* NULL: no such merge */

void tt__ids_grow(tt_ids *o);
static inline void tt__ids_push(tt_ids *o, int32_t id) {
    if (o->n == o->cap) tt__ids_grow(o);
    if (!o->failed) o->v[o->n++] = id;
}

/* As tt__tokenizer_encode; where mark[i] is not 0, byte i is text of a message and no part of a control token. mark may be NULL. */
tt_status tt__tokenizer_encode_marked(const tt_tokenizer *t, const char *text, const uint8_t *mark, size_t n, unsigned flags, int32_t **ids, size_t *n_ids,
                                      tt_err *err);

/* ---- added tokens: leftmost-longest from `from` on; false: none ---- */
bool tt__added_next(const tt_tokenizer *t, const tt_added *a, const char *s, size_t n, size_t from, size_t *begin, size_t *end, int32_t *id);
#endif
