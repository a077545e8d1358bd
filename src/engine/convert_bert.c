/* BERT encoders (all-MiniLM-L6-v2; attention.md C5) from a Hugging Face folder to GGUF, under the names and keys that llama.cpp reads.
 *
 * Trimtab does not run encoders yet: they are shown, converted and quantized. Names are mapped by the two tables below. The pooler
 * and the buffer of position numbers are left out, as other converters do; any further tensor (a task head) is refused, so that
 * nothing is lost in silence. WordPiece tokens are written as llama.cpp wants them: "##ing" becomes "ing", a word start gets U+2581
 * in front, control tokens stay.
 */
#include "engine/convert.h"
#include "base/err.h"
#include "formats/hf.h"
#include <stdio.h>

static const char *const globals[][2] = {
    {"embeddings.word_embeddings", "token_embd"},
    {"embeddings.position_embeddings", "position_embd"},
    {"embeddings.token_type_embeddings", "token_types"},
    {"embeddings.LayerNorm", "token_embd_norm"},
};
static const char *const per_layer[][2] = {
    {"attention.self.query", "attn_q"},
    {"attention.self.key", "attn_k"},
    {"attention.self.value", "attn_v"},
    {"attention.output.dense", "attn_output"},
    {"attention.output.LayerNorm", "attn_output_norm"},
    {"intermediate.dense", "ffn_up"},
    {"output.dense", "ffn_down"},
    {"output.LayerNorm", "layer_output_norm"},
};

/* ---- tensors ---- */

/* s = PART "." "weight" | "bias" → the suffix with its dot, or NULL */
static const char *suffix_after(const char *s, const char *part) {
    size_t n = strlen(part);
    if (strncmp(s, part, n) != 0) return NULL;
    return strcmp(s + n, ".weight") == 0 || strcmp(s + n, ".bias") == 0 ? s + n : NULL;
}

/* A layer number below n_layer and the rest behind its dot (F9). */
static bool layer_of(const char *s, int64_t n_layer, int64_t *layer, const char **rest) {
    int64_t v = 0;
    if (*s < '0' || *s > '9' || (s[0] == '0' && s[1] != '.')) return false;
    for (; *s >= '0' && *s <= '9'; s++) {
        v = v * 10 + (*s - '0');
        if (v >= n_layer) return false;
    }
    *layer = v;
    *rest = s + 1;
    return *s == '.';
}

static bool map_name(const char *name, int64_t n_layer, char out[64]) {
    static const char stem[] = "encoder.layer.";
    const char *suffix, *rest;
    int64_t layer;
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if ((suffix = suffix_after(name, globals[i][0]))) return snprintf(out, 64, "%s%s", globals[i][1], suffix) < 64;
    if (strncmp(name, stem, sizeof stem - 1) != 0 || !layer_of(name + sizeof stem - 1, n_layer, &layer, &rest)) return false;
    for (size_t i = 0; i < sizeof per_layer / sizeof *per_layer; i++)
        if ((suffix = suffix_after(rest, per_layer[i][0]))) return snprintf(out, 64, "blk.%lld.%s%s", (long long)layer, per_layer[i][1], suffix) < 64;
    return false;
}

static bool left_out(const char *name) {
    return strcmp(name, "embeddings.position_ids") == 0 || strcmp(name, "pooler.dense.weight") == 0 || strcmp(name, "pooler.dense.bias") == 0;
}

/* Embeddings of positions and segments are small tables that are added up: never below F16's precision when others are quantized. */
static tt_dtype type_of(const tt_mix *mix, const tt_st_tensor *t, const char *name) {
    tt_dtype stored = t->type == TT_ST_F16 ? TT_F16 : t->type == TT_ST_BF16 ? TT_BF16 : TT_F32;
    tt_dtype type = tt__convert_type(mix, stored, t->n_dims, t->n_dims ? t->shape[t->n_dims - 1] : 1);
    bool table = strncmp(name, "position_embd", 13) == 0 || strncmp(name, "token_types", 11) == 0;
    if (t->n_dims < 2) return TT_F32;
    return table && tt__dtype(type)->quantized ? TT_F32 : type;
}

static tt_status add_tensors(const tt_st *st, const tt_mix *mix, int64_t n_layer, tt__items *items, tt_err *err) {
    for (size_t i = 0; i < tt__st_n(st); i++) {
        const tt_st_tensor *t = tt__st_tensor(st, i);
        const char *name = strncmp(t->name, "bert.", 5) == 0 ? t->name + 5 : t->name;
        char out[64];
        if (left_out(name)) continue;
        TT_FAIL_IF(!map_name(name, n_layer, out), err, TT_BADFILE, "unexpected tensor|%s||tensors of a BERT encoder without a task head|", t->name);
        TT_FAIL_IF(t->n_dims < 1 || t->n_dims > 2, err, TT_BADFILE, "tensor has the wrong shape|%s|%d dimensions|1 or 2|", t->name, t->n_dims);
        TT_TRY(tt__items_add_st(items, out, t, type_of(mix, t, out), err));
    }
    TT_FAIL_IF(items->n == 0, err, TT_BADFILE, "no tensors in the model");
    return TT_OK;
}

/* ---- hyper-parameters ---- */

static const struct { const char *hf, *gguf; enum tt__limit_id limit; } ints[] = {
    {"max_position_embeddings", "bert.context_length", TT_LIMIT_ID_CONTEXT},
    {"hidden_size", "bert.embedding_length", TT_LIMIT_ID_EMBD},
    {"intermediate_size", "bert.feed_forward_length", TT_LIMIT_ID_FFN},
    {"num_hidden_layers", "bert.block_count", TT_LIMIT_ID_LAYERS},
    {"num_attention_heads", "bert.attention.head_count", TT_LIMIT_ID_HEADS},
};

/* 1 mean, 2 the first token; from the pooling module of a sentence encoder, 0 without one. */
static tt_status pooling_type(const char *dir, uint32_t *out, tt_err *err) {
    json_t *pooling = NULL;
    bool mean = false, first = false;
    *out = 0;
    TT_TRY(tt__hf_json(dir, "1_Pooling/config.json", false, &pooling, err));
    if (!pooling) return TT_OK;
    tt_status st = tt__json_bool(pooling, "pooling_mode_mean_tokens", false, &mean, "1_Pooling/config.json", err);
    if (st == TT_OK) st = tt__json_bool(pooling, "pooling_mode_cls_token", false, &first, "1_Pooling/config.json", err);
    json_decref(pooling);
    *out = mean ? 1 : first ? 2 : 0;
    return st;
}

static tt_status set_hparams(const char *dir, const json_t *config, tt_gguf_writer *w, tt_err *err) {
    double eps = 1e-12;
    uint32_t pooling;
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        int64_t v = 0;
        uint64_t max = tt__limits[ints[i].limit].value;
        TT_TRY(tt__json_i64(config, ints[i].hf, true, &v, "config.json", err));
        TT_FAIL_IF(v < 1 || (uint64_t)v > max, err, TT_BADFILE, "value out of range|config.json: %s|%lld|1 to %llu|", ints[i].hf, (long long)v, (unsigned long long)max);
        TT_TRY(tt__gguf_set_u32(w, ints[i].gguf, (uint32_t)v, err));
    }
    TT_TRY(tt__json_f64(config, "layer_norm_eps", false, &eps, "config.json", err));
    TT_TRY(pooling_type(dir, &pooling, err));
    TT_TRY(tt__gguf_set_f32(w, "bert.attention.layer_norm_epsilon", (float)eps, err));
    TT_TRY(tt__gguf_set_bool(w, "bert.attention.causal", false, err));
    return tt__gguf_set_u32(w, "bert.pooling_type", pooling, err);
}

/* ---- WordPiece vocabulary ---- */

typedef struct vocab { size_t n; const char **token; int32_t *type; tt__arena arena; } vocab;

/* token → id has to cover 0 … n-1 exactly. */
static tt_status order_tokens(const json_t *map, vocab *v, tt_err *err) {
    const char *token;
    json_t *id, *object = (json_t *)(uintptr_t)map;               /* iterating does not change it */
    v->n = json_object_size(map);
    TT_FAIL_IF(v->n == 0 || v->n > TT_LIMIT_VOCAB, err, TT_BADFILE, "vocabulary size out of range|tokenizer.json|%zu|1 to %llu (limit VOCAB)|", v->n, (unsigned long long)TT_LIMIT_VOCAB);
    TT_TRY(tt__new(&v->token, v->n, sizeof *v->token, "a vocabulary", err));
    TT_TRY(tt__new(&v->type, v->n, sizeof *v->type, "a vocabulary", err));
    json_object_foreach(object, token, id) {
        json_int_t i = json_is_integer(id) ? json_integer_value(id) : -1;
        TT_FAIL_IF(i < 0 || (uint64_t)i >= v->n || v->token[i], err, TT_BADFILE, "bad token id|tokenizer.json, token %s||each number from 0 to %zu once|", token, v->n - 1);
        v->token[i] = token;
    }
    return TT_OK;
}

/* "##ing" → "ing", "[CLS]" stays and is a control token, "word" → U+2581 "word" */
static tt_status rewrite_tokens(vocab *v, tt_err *err) {
    for (size_t i = 0; i < v->n; i++) {
        const char *t = v->token[i];
        size_t n = strlen(t);
        bool control = n > 2 && t[0] == '[' && t[n - 1] == ']';
        v->type[i] = control ? TT_TOKEN_CONTROL : TT_TOKEN_NORMAL;
        if (control) continue;
        if (n > 2 && t[0] == '#' && t[1] == '#') {
            v->token[i] = t + 2;
            continue;
        }
        char *s = tt__arena_alloc(&v->arena, n + 4);
        TT_FAIL_IF(!s, err, TT_RESOURCE, "out of memory|for a vocabulary");
        memcpy(s, "\xe2\x96\x81", 3);
        memcpy(s + 3, t, n);
        v->token[i] = s;
    }
    return TT_OK;
}

static tt_status set_special(const json_t *map, const char *token, const char *key, tt_gguf_writer *w, tt_err *err) {
    const json_t *id = json_object_get(map, token);
    return json_is_integer(id) ? tt__gguf_set_u32(w, key, (uint32_t)json_integer_value(id), err) : TT_OK;
}

static tt_status set_specials(const json_t *map, tt_gguf_writer *w, tt_err *err) {
    static const char *const specials[][2] = {{"[CLS]", "bos"}, {"[SEP]", "eos"}, {"[UNK]", "unknown"}, {"[SEP]", "seperator"}, {"[PAD]", "padding"},
                                              {"[CLS]", "cls"}, {"[MASK]", "mask"}};
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++) {
        char key[64];
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", specials[i][1]);
        TT_TRY(set_special(map, specials[i][0], key, w, err));
    }
    return TT_OK;
}

static tt_status set_vocab(const json_t *tokenizer, tt_gguf_writer *w, tt_err *err) {
    const json_t *model = json_object_get(tokenizer, "model"), *map = json_object_get(model, "vocab");
    const char *type = "";
    vocab v = {0};
    TT_TRY(tt__json_str(model, "type", false, &type, "tokenizer.json", err));
    TT_FAIL_IF((type[0] && strcmp(type, "WordPiece") != 0) || !json_is_object(map), err, TT_BADFILE, "tokenizer not supported|tokenizer.json|%s|WordPiece|", type[0] ? type : "no vocabulary");
    tt_status st = order_tokens(map, &v, err);
    if (st == TT_OK) st = rewrite_tokens(&v, err);
    if (st == TT_OK) st = tt__gguf_set_str(w, "tokenizer.ggml.model", "bert", err);
    if (st == TT_OK) st = tt__gguf_set_strs(w, "tokenizer.ggml.tokens", v.token, NULL, v.n, err);
    if (st == TT_OK) st = tt__gguf_set_i32s(w, "tokenizer.ggml.token_type", v.type, v.n, err);
    if (st == TT_OK) st = tt__gguf_set_u32(w, "tokenizer.ggml.token_type_count", 2, err);
    if (st == TT_OK) st = set_specials(map, w, err);
    tt__arena_free(&v.arena);
    tt__free(v.token);
    tt__free(v.type);
    return st;
}

static tt_status set_tokenizer(const char *dir, tt_gguf_writer *w, tt_err *err) {
    json_t *tokenizer = NULL;
    TT_TRY(tt__hf_json(dir, "tokenizer.json", true, &tokenizer, err));
    tt_status st = set_vocab(tokenizer, w, err);
    json_decref(tokenizer);
    return st;
}

/* ---- all of it ---- */

tt_status tt__convert_bert(tt_ctx *ctx, const char *dir, const json_t *config, const tt_st *st, const tt_mix *mix, tt__items *items, const char *output, tt_err *err) {
    tt_gguf_writer *w;
    int64_t n_layer = 0;
    TT_TRY(tt__json_i64(config, "num_hidden_layers", true, &n_layer, "config.json", err));
    TT_TRY(add_tensors(st, mix, n_layer, items, err));
    TT_TRY(tt__gguf_writer_create(&w, err));
    tt_status status = tt__convert_set_identity(dir, "bert", items, w, err);
    if (status == TT_OK) status = set_hparams(dir, config, w, err);
    if (status == TT_OK) status = set_tokenizer(dir, w, err);
    if (status == TT_OK) status = tt__convert_set_file_type(items, w, err);
    if (status == TT_OK) status = tt__convert_save_gguf(ctx, items, w, output, err);
    tt__gguf_writer_free(w);
    return status;
}
