/* Text from the model itself: what it would say. Sequences grow in lock-step, a token of each at a time, through the cache and the fast
 * integer products. What is drawn at (sequence, position) depends on seed, sequence and position alone, so a run that goes on from a saved
 * cache draws what an undisturbed one draws.
 *
 *     sequence:   opening (given)                        | drawn … , over at `length` or, with `ends`, at an end token
 *     with turn:  opening | drawn … end token | turn     | drawn … end token            a user's turn, then the reply (Xu et al. 2024, "Magpie")
 *
 * Sequences that are over leave the group when a quarter of it is idle: the cache is packed and the rest goes on in smaller batches.
 */
#ifndef TT_TRAIN_SELFTEXT_H
#define TT_TRAIN_SELFTEXT_H
#include "models/net.h"
#include "text/dataset.h"

enum { TT_SELFTEXT_GROUP = 128 };            /* most sequences in lock-step */

typedef struct tt_selftext_options {
    int64_t samples, length;                 /* sequences, and tokens of each at most, its opening included */
    int64_t group;                           /* sequences in lock-step, 0: what tt__selftext_group says */
    uint64_t seed;
    double temperature, top_p;               /* temperature 0: always the likeliest token; top_p: the smallest set of that probability, 1: all */
    tt_kvtype cache;
    bool ends;
    const tt_tokens *openings;               /* sequence i begins with document i modulo their number; NULL: one ordinary token drawn by the seed */
    const int32_t *turn; int64_t n_turn;     /* what follows the first end token; 0: nothing */
} tt_selftext_options;

typedef struct tt_selftext tt_selftext;
/* Temperature 1, all tokens, 16-bit cache, no end: calibration text. */
tt_selftext_options tt__selftext_options(int64_t samples, int64_t length, uint64_t seed);
/* As many as a cache of 256 MiB holds, 64 at most: fixed by the net and the length alone. */
int64_t tt__selftext_group(const tt_net *net, int64_t length, tt_kvtype cache);
/* ids [samples, length] is the caller's and is filled as the steps go on; what the options point to is lent until the end. */
tt_status tt__selftext_create(tt_ctx *ctx, const tt_net *net, const tt_tokenizer *tok, const tt_selftext_options *o, int32_t *ids, tt_selftext **out,
                              tt_err *err);
void tt__selftext_free(tt_selftext *s);
bool tt__selftext_done(const tt_selftext *s);
double tt__selftext_share(const tt_selftext *s);                              /* 0 … 1 */
double tt__selftext_most(const tt_selftext *s);                               /* tokens, if no sequence ends early */
tt_status tt__selftext_step(tt_selftext *s, tt_err *err);                     /* one more token of the group at work */
/* Of a sequence whose group is done: its tokens, without the end token; where its turn begins, -1: it came to none. */
int64_t tt__selftext_length(const tt_selftext *s, int64_t sequence);
int64_t tt__selftext_turn(const tt_selftext *s, int64_t sequence);
int64_t tt__selftext_drawn(const tt_selftext *s);                             /* tokens drawn by the sequences that are over */

/* The folder holds "self.ids" all tokens so far, "self.pos" the position, and "self.G.T.k", ".v" the cache of the group at work. */
tt_status tt__selftext_save(tt_selftext *s, const char *dir, tt_err *err);
/* Goes on where the last save was; a folder without one starts at the beginning. */
tt_status tt__selftext_load(tt_selftext *s, const char *dir, tt_err *err);
const char *tt__selftext_tag(const tt_selftext *s);                           /* of the cache files that the last save wrote, "G.T" */
#endif
