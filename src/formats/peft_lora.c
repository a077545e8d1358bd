/* PEFT LoRA folders.
 *
 *   DIR/adapter_config.json        {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", …], …}
 *   DIR/adapter_model.safetensors  "base_model.model.<module>.lora_A.weight" [r, in], "….lora_B.weight" [out, r]
 *   DIR/trimtab.json               as peft.c says
 *
 * Read: any float type, rank_pattern and alpha_pattern with plain names, rsLoRA. Variants that are another sum (DoRA, biases, saved modules,
 * embeddings) are refused by name. The rank of a part is that of its tensors; patterns must agree. Written: F32.
 */
#include "formats/peft_lora.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/util.h"
#include "formats/hf.h"
#include "formats/peft.h"
#include "formats/safetensors.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define CONFIG "adapter_config.json"
#define WEIGHTS "adapter_model.safetensors"
#define OURS "trimtab.json"
#define PREFIX "base_model.model."
enum { MAX_RANK = 1024 };

bool tt__peft_is_lora(const char *dir) {
    json_t *config = NULL;
    const char *type = NULL;
    tt_err unheard;
    const bool is = tt__hf_json(dir, CONFIG, true, &config, &unheard) == TT_OK && tt__json_str(config, "peft_type", true, &type, CONFIG, &unheard) == TT_OK && !strcmp(type, "LORA");
    json_decref(config);
    return is;
}

/* ---- the configuration ---- */

/* Members that change the sum: only the values that leave it as it is are read. */
static tt_status check_plain(const json_t *config, const char *where, tt_err *err) {
    static const char *const off[] = {"use_dora", "lora_bias", "fan_in_fan_out", "use_qalora", "use_bdlora"};
    static const char *const absent[] = {"modules_to_save", "layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens"};
    const char *bias = "none", *task = NULL;
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        const json_t *v = json_object_get(config, off[i]);
        TT_FAIL_IF(v && !json_is_null(v) && !json_is_false(v), err, TT_BADFILE, "kind of LoRA not supported|%s|%s is set||plain LoRA can be read", where, off[i]);
    }
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        const json_t *v = json_object_get(config, absent[i]);
        const bool empty = !v || json_is_null(v) || (json_is_array(v) && !json_array_size(v));
        TT_FAIL_IF(!empty, err, TT_BADFILE, "kind of LoRA not supported|%s|%s is set||plain LoRA can be read", where, absent[i]);
    }
    TT_TRY(tt__json_str(config, "bias", false, &bias, where, err));
    TT_FAIL_IF(strcmp(bias, "none") != 0, err, TT_BADFILE, "kind of LoRA not supported|%s|bias %s|none|", where, bias);
    TT_TRY(tt__json_str(config, "task_type", false, &task, where, err));
    TT_FAIL_IF(task && strcmp(task, "CAUSAL_LM") != 0, err, TT_BADFILE, "adapter is for another task|%s|%s|CAUSAL_LM|", where, task);
    return TT_OK;
}

/* Is the pattern's name the module's, or its end? Names with the signs of a regular expression are not understood. */
static bool names(const char *key, const char *module) {
    const size_t n = strlen(key), m = strlen(module);
    return n <= m && !strcmp(module + m - n, key) && (n == m || module[m - n - 1] == '.');
}

static tt_status pattern(const json_t *config, const char *which, const char *module, double *value, const char *where, tt_err *err) {
    const json_t *all = json_object_get(config, which), *v;
    const char *key;
    if (!all || json_is_null(all)) return TT_OK;
    TT_FAIL_IF(!json_is_object(all), err, TT_BADFILE, "bad adapter setting|%s, %s||an object|", where, which);
    json_object_foreach((json_t *)(uintptr_t)all, key, v) {
        TT_FAIL_IF(strpbrk(key, "*+?[](){}|^$\\"), err, TT_BADFILE, "pattern of an adapter is not a plain name|%s, %s|%.60s||", where, which, key);
        TT_FAIL_IF(!json_is_number(v), err, TT_BADFILE, "bad adapter setting|%s, %s||a number|", where, which);
        if (names(key, module)) *value = json_number_value(v);
    }
    return TT_OK;
}

static tt_status scale_of(const json_t *config, const tt_peft_lora *l, tt_lora_part *p, const char *where, tt_err *err) {
    double rank = (double)l->rank, alpha = l->alpha;
    const json_t *rs = json_object_get(config, "use_rslora");
    TT_TRY(pattern(config, "rank_pattern", p->module, &rank, where, err));
    TT_TRY(pattern(config, "alpha_pattern", p->module, &alpha, where, err));
    TT_FAIL_IF(rank != (double)p->rank, err, TT_BADFILE, "adapter shape does not fit its configuration|%s, %s|rank %lld|%g|", where, p->module, (long long)p->rank, rank);
    p->scale = (float)(alpha / (json_is_true(rs) ? sqrt(rank) : rank));
    TT_FAIL_IF(!isfinite(p->scale), err, TT_BADFILE, "bad adapter setting|%s, lora_alpha|%g|a number|", where, alpha);
    return TT_OK;
}

static tt_status read_config(const json_t *config, const char *where, tt_peft_lora *l, tt_err *err) {
    const char *base = NULL, *type = NULL;
    const json_t *alpha = json_object_get(config, "lora_alpha");
    l->rank = 8, l->alpha = 8;
    TT_TRY(tt__json_str(config, "peft_type", true, &type, where, err));
    TT_FAIL_IF(strcmp(type, "LORA") != 0, err, TT_BADFILE, "adapter type not supported|%s|%s|LORA|", where, type);
    TT_TRY(check_plain(config, where, err));
    TT_TRY(tt__json_i64(config, "r", false, &l->rank, where, err));
    TT_FAIL_IF(l->rank < 1 || l->rank > MAX_RANK, err, TT_BADFILE, "adapter setting out of range|%s, r|%lld|1 to %d|", where, (long long)l->rank, MAX_RANK);
    TT_FAIL_IF(alpha && !json_is_number(alpha), err, TT_BADFILE, "bad adapter setting|%s, lora_alpha||a number|", where);
    if (alpha) l->alpha = json_number_value(alpha);
    TT_TRY(tt__json_str(config, "base_model_name_or_path", false, &base, where, err));
    if (!base) return TT_OK;
    l->base_model = tt__strdup(base);
    TT_FAIL_IF(!l->base_model, err, TT_RESOURCE, "out of memory|for an adapter");
    return TT_OK;
}

/* ---- the weights ---- */

static bool ends(const char *s, const char *with, size_t *at) {
    const size_t n = strlen(s), m = strlen(with);
    *at = n < m ? 0 : n - m;
    return n >= m && !strcmp(s + n - m, with);
}

static tt_status read_factor(const tt_st_tensor *t, const char *where, float **out, tt_err *err) {
    const size_t n = (size_t)(t->shape[0] * t->shape[1]);
    TT_FAIL_IF(t->type != TT_ST_F32 && t->type != TT_ST_F16 && t->type != TT_ST_BF16, err, TT_BADFILE, "adapter type not supported|%s, %.100s|%s|F32, F16 or BF16|", where, t->name,
               tt__st_dtype_name(t->type));
    TT_TRY(tt__new(out, n, sizeof(float), "an adapter", err));
    TT_TRY(tt__st_to_f32(t, 0, n, *out, err));
    for (size_t i = 0; i < n; i++)
        TT_FAIL_IF(!isfinite((*out)[i]), err, TT_BADFILE, "adapter holds a value that is not finite|%s, %.100s, element %zu|%g|a finite number|", where, t->name, i, (double)(*out)[i]);
    return TT_OK;
}

static bool is_matrix(const tt_st_tensor *t) {
    return t->n_dims == 2 && t->shape[0] >= 1 && t->shape[0] <= TT_LIMIT_DIM && t->shape[1] >= 1 && t->shape[1] <= TT_LIMIT_DIM;
}

/* The part whose A is tensor a. */
static tt_status read_part(const tt_st *st, const tt_st_tensor *a, size_t module_end, const char *where, tt_lora_part *p, tt_err *err) {
    char name[160];
    const size_t start = strlen(PREFIX);
    TT_FAIL_IF(module_end - start >= sizeof p->module, err, TT_BADFILE, "name in an adapter is too long|%s|%.100s||", where, a->name);
    snprintf(p->module, sizeof p->module, "%.*s", (int)(module_end - start), a->name + start);
    snprintf(name, sizeof name, PREFIX "%s.lora_B.weight", p->module);
    const tt_st_tensor *b = tt__st_find(st, name);
    TT_FAIL_IF(!b, err, TT_BADFILE, "adapter lacks a factor|%s|||%s", where, name);
    TT_FAIL_IF(!is_matrix(a) || !is_matrix(b) || a->shape[0] != b->shape[1] || a->shape[0] > MAX_RANK, err, TT_BADFILE,
               "factors of an adapter do not fit|%s, %s||A [rank, in], B [out, rank], rank at most %d|", where, p->module, MAX_RANK);
    p->rank = (int64_t)a->shape[0], p->cols = (int64_t)a->shape[1], p->rows = (int64_t)b->shape[0];
    TT_TRY(read_factor(a, where, &p->A, err));
    return read_factor(b, where, &p->B, err);
}

static int by_module(const void *a, const void *b) { return strcmp(((const tt_lora_part *)a)->module, ((const tt_lora_part *)b)->module); }

static tt_status read_parts(const tt_st *st, const json_t *config, const char *where, tt_peft_lora *l, tt_err *err) {
    const size_t n = tt__st_n(st);
    TT_FAIL_IF(n < 2 || n % 2, err, TT_BADFILE, "adapter does not hold pairs of factors|%s|%zu tensors||", where, n);
    TT_TRY(tt__new(&l->parts, n / 2, sizeof *l->parts, "an adapter", err));
    for (size_t i = 0; i < n; i++) {
        const tt_st_tensor *t = tt__st_tensor(st, i);
        size_t at;
        const bool ours = !strncmp(t->name, PREFIX, strlen(PREFIX)), is_b = ends(t->name, ".lora_B.weight", &at);
        if (ours && is_b) continue;
        TT_FAIL_IF(!ours || !ends(t->name, ".lora_A.weight", &at) || at <= strlen(PREFIX) || l->n == n / 2, err, TT_BADFILE,
                   "tensor in an adapter not supported|%s|%.100s|" PREFIX "….lora_A.weight and lora_B.weight|", where, t->name);
        l->n++;
        TT_TRY(read_part(st, t, at, where, &l->parts[l->n - 1], err));
        TT_TRY(scale_of(config, l, &l->parts[l->n - 1], where, err));
    }
    TT_FAIL_IF(2 * l->n != n, err, TT_BADFILE, "adapter does not hold pairs of factors|%s|%zu tensors||", where, n);
    qsort(l->parts, l->n, sizeof *l->parts, by_module);
    return TT_OK;
}

static tt_status hash_member(const json_t *ours, const char *key, char **out, tt_err *err) {
    const char *sha = NULL;
    TT_TRY(tt__json_str(ours, key, false, &sha, OURS, err));
    if (!sha) return TT_OK;
    TT_FAIL_IF(strlen(sha) != 64 || strspn(sha, "0123456789abcdef") != 64, err, TT_BADFILE, "bad hash|" OURS ", %s||64 lower-case hex digits|", key);
    *out = tt__strdup(sha);
    TT_FAIL_IF(!*out, err, TT_RESOURCE, "out of memory|for an adapter");
    return TT_OK;
}

static tt_status load(const char *dir, tt_peft_lora *l, tt_err *err) {
    json_t *config = NULL, *ours = NULL;
    tt_st *st = NULL;
    char *path = tt__path_join(dir, WEIGHTS), *pickle = tt__path_join(dir, "adapter_model.bin");
    tt_status status = !path || !pickle ? tt__fail(err, TT_RESOURCE, "out of memory|for a path") : tt__hf_json(dir, CONFIG, true, &config, err);
    if (status == TT_OK) status = read_config(config, dir, l, err);
    if (status == TT_OK && !tt__exists(path) && tt__exists(pickle))
        status = tt__fail(err, TT_BADFILE, "adapter is a pickle, which can run code|%s|||save it with safe_serialization", pickle);
    if (status == TT_OK) status = tt__st_open(path, &st, err);
    if (status == TT_OK) status = read_parts(st, config, path, l, err);
    if (status == TT_OK) status = tt__hf_json(dir, OURS, false, &ours, err);
    if (status == TT_OK && ours) status = hash_member(ours, "base_sha256", &l->base_sha256, err);
    if (status == TT_OK && ours) status = hash_member(ours, "dense_sha256", &l->dense_sha256, err);
    tt__st_close(st);
    json_decref(config);
    json_decref(ours);
    tt__free(path);
    tt__free(pickle);
    return status;
}

tt_status tt__peft_lora_load(const char *dir, tt_peft_lora *out, tt_err *err) {
    *out = (tt_peft_lora){0};
    tt_status st = load(dir, out, err);
    if (st != TT_OK) tt__peft_lora_free(out);
    return st;
}

void tt__peft_lora_free(tt_peft_lora *l) {
    if (!l) return;
    for (size_t i = 0; i < l->n && !l->lent; i++) {
        tt__free(l->parts[i].A);
        tt__free(l->parts[i].B);
    }
    tt__free(l->parts);
    tt__free(l->base_model);
    tt__free(l->base_sha256);
    tt__free(l->dense_sha256);
    *l = (tt_peft_lora){0};
}

/* ---- saving ---- */

/* The last names of the modules, each once. */
static json_t *targets(const tt_peft_lora *l) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < l->n; i++) {
        const char *dot = strrchr(l->parts[i].module, '.'), *name = dot ? dot + 1 : l->parts[i].module;
        bool known = false;
        for (size_t k = 0; k < json_array_size(list); k++) known |= !strcmp(json_string_value(json_array_get(list, k)), name);
        if (!known) json_array_append_new(list, json_string(name));
    }
    return list;
}

static tt_status write_config(const char *dir, const tt_peft_lora *l, tt_err *err) {
    json_t *config = json_pack("{s:s?,s:s,s:b,s:b,s:f,s:f,s:n,s:s,s:i,s:o,s:s,s:b,s:b}", "base_model_name_or_path", l->base_model, "bias", "none", "fan_in_fan_out", 0,
                               "inference_mode", 1, "lora_alpha", l->alpha, "lora_dropout", 0.0, "modules_to_save", "peft_type", "LORA", "r", (int)l->rank,
                               "target_modules", targets(l), "task_type", "CAUSAL_LM", "use_dora", 0, "use_rslora", 0);
    TT_FAIL_IF(!config, err, TT_RESOURCE, "out of memory|for " CONFIG);
    if (l->alpha == floor(l->alpha)) json_object_set_new(config, "lora_alpha", json_integer((json_int_t)l->alpha));   /* PEFT's own are whole */
    tt_status st = tt__hf_write_json(dir, CONFIG, config, err);
    json_decref(config);
    return st;
}

static tt_status write_weights(const char *dir, const tt_peft_lora *l, tt_err *err) {
    static const char *const metadata[] = {"format", "pt", NULL};
    tt_st_entry *e = NULL;
    char (*name)[160] = NULL, *path = tt__path_join(dir, WEIGHTS);
    tt_status st = path ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|for a path");
    if (st == TT_OK) st = tt__new(&e, 2 * l->n, sizeof *e, "an adapter", err);
    if (st == TT_OK) st = tt__new(&name, 2 * l->n, sizeof *name, "an adapter", err);
    for (size_t i = 0; st == TT_OK && i < 2 * l->n; i++) {
        const tt_lora_part *p = &l->parts[i / 2];
        const bool b = i % 2;
        snprintf(name[i], sizeof name[i], PREFIX "%s.lora_%s.weight", p->module, b ? "B" : "A");
        e[i] = (tt_st_entry){.name = name[i], .type = TT_ST_F32, .n_dims = 2, .shape = {(uint64_t)(b ? p->rows : p->rank), (uint64_t)(b ? p->rank : p->cols)},
                             .data = b ? p->B : p->A};
    }
    if (st == TT_OK) st = tt__st_save(path, e, 2 * l->n, metadata, err);
    tt__free(e);
    tt__free(name);
    tt__free(path);
    return st;
}

typedef struct saving { const tt_peft_lora *l; const char *ours; } saving;

/* Weights first: a reader that finds the configuration finds the rest. */
static tt_status write_files(const char *dir, const void *user, tt_err *err) {
    const saving *s = user;
    TT_TRY(write_weights(dir, s->l, err));
    if (s->ours) {
        char *path = tt__path_join(dir, OURS);
        TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|for a path");
        tt_status st = tt__write_file(path, s->ours, strlen(s->ours), err);
        tt__free(path);
        TT_TRY(st);
    }
    return write_config(dir, s->l, err);
}

tt_status tt__peft_lora_save(const char *dir, const tt_peft_lora *l, const char *trimtab_json, tt_err *err) {
    TT_FAIL_IF(l->n == 0, err, TT_FAIL, "empty adapter|%s", dir);
    return tt__peft_save_folder(dir, write_files, &(saving){l, trimtab_json}, err);
}
