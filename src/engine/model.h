/* A model as the engine holds it: the open container, the net when this build can run it, the tokenizer, and what `show` says. */
#ifndef TT_ENGINE_MODEL_H
#define TT_ENGINE_MODEL_H
#include "formats/peft.h"
#include "models/lora.h"
#include "text/tokenizer.h"

typedef struct tt__tensor_row { char *name; char type[48]; int n_dims; int64_t dims[4]; uint64_t bytes, params; } tt__tensor_row;

struct tt_model {
    tt_ctx *ctx;
    char *path;
    tt_gguf *gguf;               /* one of the two is open */
    tt_st *st;
    struct tt__runcache *run;    /* engine/runcache.c; NULL: none */
    tt_net *net;                 /* NULL: an architecture that is only shown and converted */
    tt_tokenizer *tok;           /* NULL: the container brings none */
    tt_model_options opt;
    tt_model_info info;
    char *name, *architecture;
    char file_type[48];
    size_t n_rows;
    tt__tensor_row *rows;
    char sha256[65];             /* empty until asked for */
};

struct tt_tab {
    const tt_model *model;
    tt_peft_prompt prompt;
    tt_prefix *prefix;           /* keys and values, made by the first session that attaches the tab */
    tt_peft_lora lora;           /* n > 0: thin factors instead of positions, and the operators that carry them, by weight */
    tt_linop **ops;
    tt_tab_info info;
    char *path;
};

/* The dense model that this one comes from: as compress recorded it, else (it is dense itself) its own hash, which is taken only when `hash` or when
 * it is cheap: below 1 GiB. Empty: unknown. */
tt_status tt__dense_sha256(tt_model *model, bool hash, char out[65], tt_err *err);

/* The prefix of a tab in this model's numerics, computed once and kept in the tab; NULL: a tab without positions. */
tt_status tt__tab_prefix(tt_ctx *ctx, tt_tab *tab, const tt_prefix **out, tt_err *err);
static inline tt_kvtype tt__model_kvtype(const tt_model *m) { return m->opt.numerics == TT_EXACT ? TT_KV_F32 : TT_KV_F16; }
static inline tt_kvtype tt__cache_kvtype(const tt_model *m, tt_cache_type t) {
    return t == TT_CACHE_AUTO ? tt__model_kvtype(m) : t == TT_CACHE_F32 ? TT_KV_F32 : t == TT_CACHE_F16 ? TT_KV_F16 : TT_KV_Q8;
}

/* For the bench. Back to an earlier position: the tokens beyond are forgotten, and the sampler's memory of all. Bytes of keys and values that
 * one token behind so many positions reads, the tab's among them. Most tokens of one pass. */
void tt__session_rewind(tt_session *s, int64_t position);
double tt__session_cache_bytes(const tt_session *s, double positions);
int64_t tt__session_batch(const tt_session *s);
#endif
