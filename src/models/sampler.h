/* Drawing a token from logits: penalties, top-k, top-p, min-p, temperature, in llama.cpp's order. Owns its random stream. */
#ifndef TT_MODELS_SAMPLER_H
#define TT_MODELS_SAMPLER_H
#include "base/util.h"
#include "trimtab/trimtab.h"
typedef struct tt_sampler tt_sampler;
tt_status tt__sampler_create(const tt_sampler_options *o, int64_t n_vocab, tt_sampler **out, tt_err *err);   /* ranges checked: TT_USAGE */
void tt__sampler_free(tt_sampler *s);
/* Logits are not changed. Non-finite ones: TT_FAIL "non-finite logits". */
tt_status tt__sampler_draw(tt_sampler *s, const float *logits, int32_t *id, tt_err *err);
void tt__sampler_accept(tt_sampler *s, int32_t id);       /* for the repetition window */
void tt__sampler_forget(tt_sampler *s);                   /* empties the window; the random stream goes on */
#endif
