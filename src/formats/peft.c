/* PEFT prompt-tuning and prefix-tuning folders; the layout is quoted in tuning.md A11.
 *
 *   DIR/adapter_config.json        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": P, "token_dim": C, …}
 *                                  {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": P, "num_layers": L, "token_dim": C of keys, …}
 *   DIR/adapter_model.safetensors  one tensor "prompt_embeddings" [P, C] or [P, L * 2 * C]
 *   DIR/trimtab.json               ours: "base_sha256" of the model through which the tab learned, "dense_sha256" of the one that was compressed
 *                                  from, and the training record
 *
 * We write F32 and say RANDOM as the initialisation whatever it was: TEXT would make PEFT demand the tokenizer and the text again.
 */
#include "formats/peft.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/util.h"
#include "formats/hf.h"
#include "formats/safetensors.h"
#include <math.h>

#define CONFIG "adapter_config.json"
#define WEIGHTS "adapter_model.safetensors"
#define OURS "trimtab.json"

/* ---- loading ---- */

static tt_status copy_string(const char *s, char **out, tt_err *err) {
    if (!s) return TT_OK;
    *out = tt__strdup(s);
    TT_FAIL_IF(!*out, err, TT_RESOURCE, "out of memory|for an adapter");
    return TT_OK;
}

/* An integer member in [min, max]; missing or null keeps *out. */
static tt_status member(const json_t *config, const char *key, bool required, int64_t min, int64_t max, int64_t *out, const char *where, tt_err *err) {
    const int64_t absent = INT64_MIN;
    int64_t v = absent;
    TT_TRY(tt__json_i64(config, key, required, &v, where, err));
    if (v == absent && !required) return TT_OK;
    TT_FAIL_IF(v < min || v > max, err, TT_BADFILE, "adapter setting out of range|%s, %s|%lld|%lld to %lld|", where, key, (long long)v, (long long)min, (long long)max);
    *out = v;
    return TT_OK;
}

static tt_status read_kind(const json_t *config, const char *where, bool *prefix, tt_err *err) {
    const char *type = "", *task = NULL;
    int64_t submodules = 1;
    TT_TRY(tt__json_str(config, "peft_type", true, &type, where, err));
    *prefix = !strcmp(type, "PREFIX_TUNING");
    TT_FAIL_IF(!*prefix && strcmp(type, "PROMPT_TUNING") != 0, err, TT_BADFILE, "adapter type not supported|%s|%s|PROMPT_TUNING or PREFIX_TUNING|", where, type);
    TT_TRY(tt__json_str(config, "task_type", false, &task, where, err));
    TT_FAIL_IF(task && strcmp(task, "CAUSAL_LM") != 0, err, TT_BADFILE, "adapter is for another task|%s|%s|CAUSAL_LM|", where, task);
    TT_TRY(member(config, "num_transformer_submodules", false, 1, 2, &submodules, where, err));
    TT_FAIL_IF(submodules != 1, err, TT_BADFILE, "adapter is for an encoder-decoder model|%s|num_transformer_submodules %lld|1|", where, (long long)submodules);
    return TT_OK;
}

/* token_dim is of the keys of a layer; a row holds keys and values of all. */
static tt_status prefix_width(tt_peft_prompt *p, const char *where, tt_err *err) {
    TT_FAIL_IF(p->width % p->n_heads, err, TT_BADFILE, "adapter setting out of range|%s, token_dim|%lld|a multiple of %lld, num_attention_heads|", where, (long long)p->width,
               (long long)p->n_heads);
    p->kv_width = p->width;
    p->width *= 2 * p->n_layers;
    return TT_OK;
}

static tt_status read_config(const char *dir, tt_peft_prompt *p, tt_err *err) {
    char *path = tt__path_join(dir, CONFIG), *text = NULL;
    size_t n;
    const char *base = NULL;
    json_t *config = NULL;
    tt_status st = TT_OK;
    TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|for a path");
    TT_TRY_GOTO(tt__read_file(path, TT_LIMIT_ADAPTER_CONFIG, &text, &n, err));
    TT_TRY_GOTO(tt__json_parse(text, n, path, &config, err));
    TT_TRY_GOTO(read_kind(config, path, &p->prefix, err));
    TT_TRY_GOTO(member(config, "num_virtual_tokens", true, 1, (int64_t)TT_LIMIT_TAB_TOKENS, &p->tokens, path, err));
    TT_TRY_GOTO(member(config, "token_dim", p->prefix, 1, (int64_t)TT_LIMIT_EMBD, &p->width, path, err));
    TT_TRY_GOTO(member(config, "num_layers", p->prefix, 1, (int64_t)TT_LIMIT_LAYERS, &p->n_layers, path, err));
    TT_TRY_GOTO(member(config, "num_attention_heads", p->prefix, 1, (int64_t)TT_LIMIT_HEADS, &p->n_heads, path, err));
    if (p->prefix) TT_TRY_GOTO(prefix_width(p, path, err));
    TT_TRY_GOTO(tt__json_str(config, "base_model_name_or_path", false, &base, path, err));
    TT_TRY_GOTO(copy_string(base, &p->base_model, err));
done:
    json_decref(config);
    tt__free(text);
    tt__free(path);
    return st;
}

/* The embeddings in any float type; their shape has to be the one of the configuration (F10), their values finite (N1). */
static tt_status read_embeddings(const tt_st *st, const char *where, tt_peft_prompt *p, tt_err *err) {
    const tt_st_tensor *t = tt__st_find(st, "prompt_embeddings");
    TT_FAIL_IF(!t, err, TT_BADFILE, "adapter without prompt_embeddings|%s|%zu other tensors||", where, tt__st_n(st));
    TT_FAIL_IF(tt__st_n(st) != 1, err, TT_BADFILE, "adapter with further tensors|%s|%zu tensors|prompt_embeddings alone|modules_to_save is not supported", where, tt__st_n(st));
    TT_FAIL_IF(t->type != TT_ST_F32 && t->type != TT_ST_F16 && t->type != TT_ST_BF16, err, TT_BADFILE, "adapter type not supported|%s, prompt_embeddings|%s|F32, F16 or BF16|", where,
               tt__st_dtype_name(t->type));
    bool fits = t->n_dims == 2 && t->shape[0] == (uint64_t)p->tokens && t->shape[1] >= 1 && (p->prefix || t->shape[1] <= TT_LIMIT_EMBD) && (p->width == 0 || t->shape[1] == (uint64_t)p->width);
    TT_FAIL_IF(!fits, err, TT_BADFILE, "adapter shape does not fit its configuration|%s, prompt_embeddings|%d dimensions, %llu x %llu|%lld x %lld|", where, t->n_dims,
               (unsigned long long)(t->n_dims > 0 ? t->shape[0] : 0), (unsigned long long)(t->n_dims > 1 ? t->shape[1] : 0), (long long)p->tokens, (long long)p->width);
    p->width = (int64_t)t->shape[1];
    size_t n = (size_t)(p->tokens * p->width);
    TT_TRY(tt__new(&p->embeddings, n, sizeof(float), "prompt embeddings", err));
    TT_TRY(tt__st_to_f32(t, 0, n, p->embeddings, err));
    for (size_t i = 0; i < n; i++)
        TT_FAIL_IF(!isfinite(p->embeddings[i]), err, TT_BADFILE, "adapter holds a value that is not finite|%s, element %zu|%g|a finite number|", where, i, (double)p->embeddings[i]);
    return TT_OK;
}

static tt_status read_weights(const char *dir, tt_peft_prompt *p, tt_err *err) {
    char *path = tt__path_join(dir, WEIGHTS), *pickle = tt__path_join(dir, "adapter_model.bin");
    tt_st *st = NULL;
    tt_status status = TT_OK;
    if (!path || !pickle) status = tt__fail(err, TT_RESOURCE, "out of memory|for a path");
    else if (!tt__exists(path) && tt__exists(pickle))
        status = tt__fail(err, TT_BADFILE, "adapter is a pickle, which can run code|%s|||save it with safe_serialization", pickle);
    else status = tt__st_open(path, &st, err);
    if (status == TT_OK) status = read_embeddings(st, path, p, err);
    tt__st_close(st);
    tt__free(path);
    tt__free(pickle);
    return status;
}

static bool is_sha256(const char *s) { return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64; }

/* trimtab.json is optional; where it names a base, the name has the form of a hash (D1). */
static tt_status read_ours(const char *dir, tt_peft_prompt *p, tt_err *err) {
    json_t *ours;
    const char *sha = NULL;
    TT_TRY(tt__hf_json(dir, OURS, false, &ours, err));
    if (!ours) return TT_OK;
    tt_status st = tt__json_str(ours, "base_sha256", false, &sha, OURS, err);
    if (st == TT_OK && sha && !is_sha256(sha)) st = tt__fail(err, TT_BADFILE, "bad hash|%s/%s, base_sha256||64 lower-case hex digits|", dir, OURS);
    if (st == TT_OK) st = copy_string(sha, &p->base_sha256, err);
    sha = NULL;
    if (st == TT_OK) st = tt__json_str(ours, "dense_sha256", false, &sha, OURS, err);
    if (st == TT_OK && sha && !is_sha256(sha)) st = tt__fail(err, TT_BADFILE, "bad hash|%s/%s, dense_sha256||64 lower-case hex digits|", dir, OURS);
    if (st == TT_OK) st = copy_string(sha, &p->dense_sha256, err);
    json_decref(ours);
    return st;
}

tt_status tt__peft_load(const char *dir, tt_peft_prompt *out, tt_err *err) {
    *out = (tt_peft_prompt){0};
    tt_status st = read_config(dir, out, err);
    if (st == TT_OK) st = read_weights(dir, out, err);
    if (st == TT_OK) st = read_ours(dir, out, err);
    if (st != TT_OK) tt__peft_free(out);
    return st;
}

void tt__peft_free(tt_peft_prompt *p) {
    if (!p) return;
    tt__free(p->embeddings);
    tt__free(p->base_model);
    tt__free(p->base_sha256);
    tt__free(p->dense_sha256);
    *p = (tt_peft_prompt){0};
}

/* ---- saving ---- */

static void set_count(json_t *config, const char *key, int64_t v) {
    json_object_set_new(config, key, v > 0 ? json_integer((json_int_t)v) : json_null());
}

static tt_status write_config(const char *dir, const tt_peft_prompt *p, tt_err *err) {
    json_t *config = json_pack("{s:s?,s:b,s:s,s:s,s:i}", "base_model_name_or_path", p->base_model, "inference_mode", 1, "peft_type",
                               p->prefix ? "PREFIX_TUNING" : "PROMPT_TUNING", "task_type", "CAUSAL_LM", "num_transformer_submodules", 1);
    TT_FAIL_IF(!config, err, TT_RESOURCE, "out of memory|for " CONFIG);
    if (p->prefix) json_object_set_new(config, "prefix_projection", json_false());
    else json_object_set_new(config, "prompt_tuning_init", json_string("RANDOM"));
    set_count(config, "num_virtual_tokens", p->tokens);
    set_count(config, "token_dim", p->prefix ? p->kv_width : p->width);
    set_count(config, "num_layers", p->n_layers);
    set_count(config, "num_attention_heads", p->n_heads);
    tt_status st = json_object_size(config) == 10 ? tt__hf_write_json(dir, CONFIG, config, err) : tt__fail(err, TT_RESOURCE, "out of memory|for " CONFIG);
    json_decref(config);
    return st;
}

static tt_status write_weights(const char *dir, const tt_peft_prompt *p, tt_err *err) {
    static const char *const metadata[] = {"format", "pt", NULL};
    tt_st_entry e = {.name = "prompt_embeddings", .type = TT_ST_F32, .n_dims = 2, .shape = {(uint64_t)p->tokens, (uint64_t)p->width}, .data = p->embeddings};
    char *path = tt__path_join(dir, WEIGHTS);
    TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|for a path");
    tt_status st = tt__st_save(path, &e, 1, metadata, err);
    tt__free(path);
    return st;
}

/* Weights first: a reader that finds the configuration finds the rest. */
static tt_status write_files(const char *dir, const tt_peft_prompt *p, const char *trimtab_json, tt_err *err) {
    TT_TRY(write_weights(dir, p, err));
    if (trimtab_json) {
        char *path = tt__path_join(dir, OURS);
        TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|for a path");
        tt_status st = tt__write_file(path, trimtab_json, strlen(trimtab_json), err);
        tt__free(path);
        TT_TRY(st);
    }
    return write_config(dir, p, err);
}

/* PARENT/.NAME.tab.tmp: beside DIR, hidden; what a killed run left there is taken away first. */
static tt_status temporary_of(const char *dir, char **out, tt_err *err) {
    tt__str b = {0};
    const char *slash = strrchr(dir, '/'), *name = slash ? slash + 1 : dir;
    tt__str_add(&b, dir, (size_t)(name - dir));
    tt__str_printf(&b, ".%s.tab.tmp", name);
    if (b.failed) {
        tt__str_free(&b);
        return tt__fail(err, TT_RESOURCE, "out of memory|for a path");
    }
    *out = b.s;
    return tt__exists(*out) ? tt__remove_tree(*out, err) : TT_OK;
}

typedef struct saving { const tt_peft_prompt *p; const char *ours; } saving;
static tt_status write_prompt(const char *dir, const void *user, tt_err *err) { return write_files(dir, ((const saving *)user)->p, ((const saving *)user)->ours, err); }

/* The whole folder in one step; where an old one cannot change places with it, file by file. */
static tt_status save_beside(const char *dir, tt_peft_write_fn write, const void *user, tt_err *err) {
    char *temporary = NULL;
    bool fresh = !tt__exists(dir), done = true;
    tt_status st = temporary_of(dir, &temporary, err);
    if (st == TT_OK) {
        st = tt__mkdirs(temporary, err);
        if (st == TT_OK) st = write(temporary, user, err);
        if (st == TT_OK) st = fresh ? tt__rename_folder(temporary, dir, err) : tt__swap_folder(temporary, dir, NULL, &done, err);
        if (st != TT_OK || !done) tt__remove_tree(temporary, NULL);
        if (st == TT_OK && !done) st = write(dir, user, err);
    }
    tt__free(temporary);
    return st;
}

tt_status tt__peft_save_folder(const char *dir, tt_peft_write_fn write, const void *user, tt_err *err) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    char *plain = tt__strndup(dir, n);
    TT_FAIL_IF(!plain, err, TT_RESOURCE, "out of memory|for a path");
    tt_status st = n == 0 ? tt__fail(err, TT_USAGE, "empty folder name|") : save_beside(plain, write, user, err);
    tt__free(plain);
    return st;
}

tt_status tt__peft_save(const char *dir, const tt_peft_prompt *p, const char *trimtab_json, tt_err *err) {
    TT_FAIL_IF(p->tokens < 1 || p->width < 1, err, TT_FAIL, "empty prompt|%s", dir);
    return tt__peft_save_folder(dir, write_prompt, &(saving){p, trimtab_json}, err);
}
