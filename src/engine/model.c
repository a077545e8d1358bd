/* Opening a model: reference → path → container → net and tokenizer → the table that `show` prints.
 *
 * A container whose architecture this build cannot run still opens (net == NULL): it can be shown and converted. A container that claims a
 * known architecture must fit it exactly, or it is refused as damaged.
 */
#include "engine/model.h"

#include "base/limits.h"
#include "base/util.h"
#include "engine/pull.h"
#include "models/sparse_run.h"
#include "engine/runcache.h"
#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

tt_model_options tt_model_default_options(void) { return (tt_model_options){.size = sizeof(tt_model_options)}; }

/* ------------------------------------------------------------ the tensor table ---- */

static const tt_weight *find_weight(const tt_net *net, const char *name, bool hf) {
    for (size_t i = 0; net && i < net->n_weights; i++)
        if (!strcmp(hf ? net->weights[i].hf : net->weights[i].name, name)) return &net->weights[i];
    return NULL;
}

/* The stored tensor "blk.0.attn_q.weight#codes" is a segment of the weight in front of the '#'. */
static tt_status gguf_rows(tt_model *m, tt_err *err) {
    size_t n = tt__gguf_n_tensors(m->gguf);
    TT_TRY(tt__new(&m->rows, n ? n : 1, sizeof *m->rows, "the tensor table", err));
    for (size_t i = 0; i < n; i++) {
        const tt_gguf_tensor *t = tt__gguf_tensor(m->gguf, i);
        const char *hash = strchr(t->name, '#');
        size_t len = hash ? (size_t)(hash - t->name) : strlen(t->name);
        tt__tensor_row *row = m->n_rows ? &m->rows[m->n_rows - 1] : NULL;
        if (hash && row && strlen(row->name) == len && !strncmp(row->name, t->name, len)) {
            row->bytes += t->bytes;
            continue;
        }
        row = &m->rows[m->n_rows];
        row->name = tt__strndup(t->name, len);
        TT_FAIL_IF(!row->name, err, TT_RESOURCE, "out of memory|the tensor table");
        m->n_rows++;
        row->bytes = t->bytes;
        const tt_weight *w = hash ? find_weight(m->net, row->name, false) : NULL;
        if (w && w->op) {
            tt__linop_label(w->op, row->type, sizeof row->type);
            row->n_dims = 2;
            row->dims[0] = w->rows;
            row->dims[1] = w->cols;
            row->params = (uint64_t)(w->rows * w->cols);
            continue;
        }
        snprintf(row->type, sizeof row->type, "%s", tt__dtype(t->type)->label);
        row->n_dims = t->n_dims;
        row->params = 1;
        for (int d = 0; d < t->n_dims; d++) {
            row->dims[t->n_dims - 1 - d] = (int64_t)t->ne[d];
            row->params *= t->ne[d];
        }
    }
    return TT_OK;
}

static tt_status st_rows(tt_model *m, tt_err *err) {
    size_t n = tt__st_n(m->st);
    TT_TRY(tt__new(&m->rows, n ? n : 1, sizeof *m->rows, "the tensor table", err));
    for (size_t i = 0; i < n; i++) {
        const tt_st_tensor *t = tt__st_tensor(m->st, i);
        tt__tensor_row *row = &m->rows[i];
        row->name = tt__strdup(t->name);
        TT_FAIL_IF(!row->name, err, TT_RESOURCE, "out of memory|the tensor table");
        m->n_rows++;
        snprintf(row->type, sizeof row->type, "%s", tt__st_dtype_name(t->type));
        row->n_dims = t->n_dims < 4 ? t->n_dims : 4;
        row->bytes = t->bytes;
        row->params = 1;
        for (int d = 0; d < t->n_dims; d++) {
            row->params *= t->shape[d];
            int slot = d < 4 ? d : 3;                 /* further dimensions are folded into the last one shown */
            row->dims[slot] = d <= 3 ? (int64_t)t->shape[d] : row->dims[3] * (int64_t)t->shape[d];
        }
    }
    return TT_OK;
}

static void name_file_type(tt_model *m) {
    /* the type that holds most weights names the file, as llama.cpp does */
    const char *best = "";
    uint64_t most = 0, all = 0, of_best = 0;
    for (size_t i = 0; i < m->n_rows; i++) {
        uint64_t sum = 0;
        for (size_t j = 0; j < m->n_rows; j++)
            if (!strcmp(m->rows[j].type, m->rows[i].type)) sum += m->rows[j].params;
        if (sum > most) most = of_best = sum, best = m->rows[i].type;
        all += m->rows[i].params;
    }
    snprintf(m->file_type, sizeof m->file_type, of_best == all ? "%.37s" : "%.37s (mostly)", best);
}

/* The shape of an architecture that is only shown, from the names that most use; what is not there stays 0. */
typedef struct shape_key { const char *gguf, *hf; size_t at; } shape_key;
static const shape_key shape_keys[] = {
    {"block_count", "num_hidden_layers", offsetof(tt_model_info, n_layer)},
    {"embedding_length", "hidden_size", offsetof(tt_model_info, n_embd)},
    {"feed_forward_length", "intermediate_size", offsetof(tt_model_info, n_ff)},
    {"attention.head_count", "num_attention_heads", offsetof(tt_model_info, n_head)},
    {"attention.head_count_kv", "num_key_value_heads", offsetof(tt_model_info, n_head_kv)},
    {"context_length", "max_position_embeddings", offsetof(tt_model_info, n_ctx)},
    {"vocab_size", "vocab_size", offsetof(tt_model_info, n_vocab)},
};
enum { N_SHAPE_KEYS = sizeof shape_keys / sizeof *shape_keys };

static void set_shape(tt_model_info *o, const shape_key *k, int64_t v) {
    if (v > 0 && v <= INT32_MAX) memcpy((char *)o + k->at, &v, sizeof v);
}

static void shape_of_gguf(tt_model *m) {
    size_t tokens = 0;
    for (int i = 0; i < N_SHAPE_KEYS; i++) {
        char key[128];
        int64_t v = 0;
        snprintf(key, sizeof key, "%s.%s", m->architecture, shape_keys[i].gguf);
        if (tt__gguf_i64(m->gguf, key, false, 0, INT32_MAX, &v, NULL) == TT_OK) set_shape(&m->info, &shape_keys[i], v);
    }
    if (!m->info.n_vocab && tt__gguf_strs(m->gguf, "tokenizer.ggml.tokens", false, &tokens, NULL) == TT_OK) m->info.n_vocab = (int64_t)tokens;
}

static void shape_of_config(tt_model *m, const json_t *config) {
    for (int i = 0; i < N_SHAPE_KEYS; i++) set_shape(&m->info, &shape_keys[i], json_integer_value(json_object_get(config, shape_keys[i].hf)));
}

static void fill_info(tt_model *m) {
    tt_model_info *o = &m->info;
    o->size = sizeof *o;
    o->path = m->path;
    o->name = m->name ? m->name : "";
    o->architecture = m->architecture ? m->architecture : "unknown";
    o->container = m->gguf ? "gguf" : "safetensors";
    for (size_t i = 0; i < m->n_rows; i++) {
        o->params += m->rows[i].params;
        o->bytes += m->rows[i].bytes;
        const tt_weight *w = find_weight(m->net, m->rows[i].name, m->st != NULL);
        if (w && w->linear) {
            o->linear_params += m->rows[i].params;
            o->linear_bytes += m->rows[i].bytes;
        }
    }
    o->bits_per_weight = o->params ? 8.0 * (double)o->bytes / (double)o->params : 0;
    o->linear_bits_per_weight = o->linear_params ? 8.0 * (double)o->linear_bytes / (double)o->linear_params : 0;
    name_file_type(m);
    o->file_type = m->file_type;
    if (m->net) {
        const tt_hparams *h = &m->net->hp;
        o->n_vocab = h->n_vocab, o->n_embd = h->n_embd, o->n_layer = h->n_layer, o->n_head = h->n_head;
        o->n_head_kv = h->n_head_kv, o->n_ff = h->n_ff, o->n_ctx = h->n_ctx;
    } else if (m->gguf) shape_of_gguf(m);
    if (!o->n_head_kv) o->n_head_kv = o->n_head;
    o->runnable = m->net && m->tok;
    o->chat_template = m->tok ? tt__tokenizer_template(m->tok) : NULL;
}

/* ------------------------------------------------------------ opening ---- */

static tt_status dup_str(const char *s, size_t n, char **out, tt_err *err) {
    *out = tt__strndup(s, n);
    TT_FAIL_IF(!*out, err, TT_RESOURCE, "out of memory|a name");
    return TT_OK;
}

static tt_status open_gguf(tt_model *m, tt_err *err) {
    TT_TRY(tt__gguf_open(m->path, &m->gguf, err));
    const char *arch = "", *name = "";
    size_t na = 0, nn = 0;
    TT_TRY(tt__gguf_str(m->gguf, "general.architecture", true, &arch, &na, err));
    if (na == 7 && !memcmp(arch, "trimtab", 7)) TT_TRY(tt__gguf_str(m->gguf, "trimtab.architecture", true, &arch, &na, err));
    TT_TRY(tt__gguf_str(m->gguf, "general.name", false, &name, &nn, err));
    TT_TRY(dup_str(arch, na, &m->architecture, err));
    TT_TRY(dup_str(name, nn, &m->name, err));
    if (tt__arch_find(m->architecture)) TT_TRY(tt__net_from_gguf(m->ctx, m->gguf, m->opt.expand, &m->net, err));
    if (m->net && tt__gguf_has(m->gguf, "tokenizer.ggml.model")) TT_TRY(tt__tokenizer_from_gguf(m->gguf, &m->tok, err));
    return gguf_rows(m, err);
}

/* Also the shape, which stands only if the architecture turns out to be unknown. */
static tt_status hf_model_type(tt_model *m, const char *dir, tt_err *err) {
    char *path = tt__path_join(dir, "config.json"), *text = NULL;
    size_t n = 0;
    json_t *json = NULL;
    const char *value = "";
    TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|a path");
    tt_status st = TT_OK;
    if (tt__exists(path)) {
        TT_TRY_GOTO(tt__read_file(path, TT_LIMIT_JSON_BYTES, &text, &n, err));
        TT_TRY_GOTO(tt__json_parse(text, n, path, &json, err));
        TT_TRY_GOTO(tt__json_str(json, "model_type", false, &value, path, err));
    }
    st = dup_str(value, strlen(value), &m->architecture, err);
    shape_of_config(m, json);
done:
    json_decref(json);
    tt__free(text);
    tt__free(path);
    return st;
}

static tt_status open_hf(tt_model *m, tt_err *err) {
    const char *dir = m->path;
    TT_TRY(tt__st_open(m->path, &m->st, err));
    if (tt__is_dir(dir)) {
        TT_TRY(hf_model_type(m, dir, err));
        const char *slash = strrchr(dir, '/');
        TT_TRY(dup_str(slash && slash[1] ? slash + 1 : dir, strlen(slash && slash[1] ? slash + 1 : dir), &m->name, err));
        if (tt__arch_find_hf(m->architecture)) {
            TT_TRY(tt__net_from_hf(m->ctx, dir, m->st, m->opt.expand, &m->net, err));
            TT_TRY(tt__tokenizer_from_folder(dir, &m->tok, err));
        }
    }
    return st_rows(m, err);
}

static tt_status check_vocab(const tt_model *m, tt_err *err) {
    if (!m->net || !m->tok) return TT_OK;
    int64_t have = tt__tokenizer_size(m->tok), rows = m->net->hp.n_vocab;
    TT_FAIL_IF(have > rows, err, TT_BADFILE, "tokenizer does not fit the model|%s|%lld tokens|at most %lld, the rows of the embedding|is the tokenizer from another model?",
               m->path, (long long)have, (long long)rows);
    return TT_OK;
}

/* Weights are mapped, so a model beyond the memory would open, and then run at the speed of the disk. Looking at one and exact work, which is slow anyhow, are possible. */
static tt_status check_memory(const tt_model *m, tt_err *err) {
    tt_machine_info machine;
    if (!m->net || m->opt.stored || m->opt.numerics == TT_EXACT) return TT_OK;
    TT_TRY(tt_machine_get_info(m->ctx, false, &machine, err));
    TT_FAIL_IF(machine.ram_bytes && m->info.bytes > machine.ram_bytes, err, TT_RESOURCE, "model does not fit into memory|%s|%.1f GiB|at most %.1f GiB of this machine|compress it further",
               m->path, (double)m->info.bytes / (1 << 30), (double)machine.ram_bytes / (1 << 30));
    return TT_OK;
}

/* Fast runs use the run format; exact ones, and those who only look, the stored operators. */
static tt_status make_ready(tt_model *m, tt_err *err) {
    if (!m->net || m->opt.numerics != TT_FAST || m->opt.expand || m->opt.stored) return TT_OK;
    TT_TRY(tt__net_sparse_to_run(m->ctx, m->net, m->gguf, m->opt.run_format, err));
    return tt__runcache_ready(m, err);
}

tt_status tt_model_open(tt_ctx *ctx, const char *ref, const tt_model_options *options, tt_model **out, tt_err *err) {
    *out = NULL;
    tt_model *m = NULL;
    TT_FAIL_IF(!ref || !*ref, err, TT_USAGE, "no model given||||name a file, a folder or a catalogue entry (trimtab list)");
    TT_TRY(tt__new(&m, 1, sizeof *m, "a model", err));
    m->ctx = ctx;
    m->opt = options ? *options : tt_model_default_options();
    tt_status st;
    TT_TRY_GOTO(tt__resolve_ref(ctx, ref, m->opt.offline, &m->path, err));
    size_t n = strlen(m->path);
    bool st_file = n > 12 && !strcmp(m->path + n - 12, ".safetensors");
    TT_TRY_GOTO(tt__is_dir(m->path) || st_file ? open_hf(m, err) : open_gguf(m, err));
    TT_TRY_GOTO(check_vocab(m, err));
    fill_info(m);
    TT_TRY_GOTO(check_memory(m, err));
    TT_TRY_GOTO(make_ready(m, err));
    *out = m;
    return TT_OK;
done:
    tt_model_close(m);
    return st;
}

void tt_model_close(tt_model *m) {
    if (!m) return;
    tt__runcache_finish(m);
    tt__net_free(m->net);
    tt__tokenizer_free(m->tok);
    tt__gguf_close(m->gguf);
    tt__st_close(m->st);
    for (size_t i = 0; i < m->n_rows; i++) tt__free(m->rows[i].name);
    tt__free(m->rows);
    tt__free(m->name);
    tt__free(m->architecture);
    tt__free(m->path);
    tt__free(m);
}

/* ------------------------------------------------------------ questions ---- */

const tt_model_info *tt_model_get_info(const tt_model *m) { return &m->info; }
size_t tt_model_tensor_count(const tt_model *m) { return m->n_rows; }

tt_status tt_model_get_tensor(const tt_model *m, size_t i, tt_tensor_info *out, tt_err *err) {
    TT_FAIL_IF(i >= m->n_rows, err, TT_USAGE, "no such tensor|%s|%zu|below %zu", m->path, i, m->n_rows);
    const tt__tensor_row *r = &m->rows[i];
    *out = (tt_tensor_info){.size = sizeof *out, .name = r->name, .type = r->type, .n_dims = r->n_dims, .bytes = r->bytes,
                            .bits_per_weight = r->params ? 8.0 * (double)r->bytes / (double)r->params : 0};
    memcpy(out->dims, r->dims, sizeof out->dims);
    return TT_OK;
}

size_t tt_model_meta_count(const tt_model *m) { return m->gguf ? tt__gguf_n_kv(m->gguf) : tt__st_n_metadata(m->st); }

tt_status tt_model_get_meta(const tt_model *m, size_t i, size_t max_items, tt_meta_info *out, char **value, tt_err *err) {
    static const char *const names[TT_GGUF_TYPES] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "arr", "u64", "i64", "f64"};
    TT_FAIL_IF(i >= tt_model_meta_count(m), err, TT_USAGE, "no such key|%s|%zu|below %zu", m->path, i, tt_model_meta_count(m));
    out->size = sizeof *out;
    if (m->gguf) {
        tt_gguf_type type, element;
        uint64_t count;
        out->key = tt__gguf_kv_key(m->gguf, i, &type, &element, &count);
        out->type = names[type];
        return tt__gguf_kv_text(m->gguf, i, max_items, value, err);
    }
    const char *text = "";
    out->key = tt__st_metadata(m->st, i, &text);
    out->type = "str";
    return dup_str(text, strlen(text), value, err);
}

/* ------------------------------------------------------------ the hash ---- */

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* NAME-00001-of-00003.gguf: where "-of-" stands, or NULL. */
static const char *split_mark(const char *name) {
    for (const char *of = strstr(name, "-of-"); of; of = strstr(of + 1, "-of-"))
        if (of - name > 6 && of[-6] == '-' && strspn(of - 5, "0123456789") == 5) return of;
    return NULL;
}

/* The weight files of a model: the shards of a split GGUF, the safetensors of a folder, or the file itself. */
static tt_status weight_files(const tt_model *m, char ***files, size_t *n, tt_err *err) {
    TT_TRY(tt__new(files, TT_LIMIT_ST_SHARDS + 1, sizeof **files, "a list of files", err));
    *n = 0;
    const char *base = strrchr(m->path, '/'), *stem = base ? base + 1 : m->path, *of = split_mark(stem);
    bool folder = tt__is_dir(m->path), split = m->gguf && of;
    if (!folder && !split) return dup_str(m->path, strlen(m->path), &(*files)[(*n)++], err);
    char *dir = folder ? tt__strdup(m->path) : base ? tt__strndup(m->path, (size_t)(base - m->path)) : tt__strdup(".");
    TT_FAIL_IF(!dir, err, TT_RESOURCE, "out of memory|a path");
    DIR *d = opendir(dir);
    size_t stem_n = split ? (size_t)(of - stem) - 5 : 0;
    tt_status st = TT_OK;
    for (struct dirent *e; d && (e = readdir(d)) && *n < TT_LIMIT_ST_SHARDS;) {
        size_t len = strlen(e->d_name);
        bool take = folder ? len > 12 && !strcmp(e->d_name + len - 12, ".safetensors") : !strncmp(e->d_name, stem, stem_n) && strstr(e->d_name, of);
        if (!take) continue;
        (*files)[*n] = tt__path_join(dir, e->d_name);
        if (!(*files)[*n]) st = tt__fail(err, TT_RESOURCE, "out of memory|a path");
        else ++*n;
    }
    if (d) closedir(d);
    tt__free(dir);
    qsort(*files, *n, sizeof **files, by_name);
    return st;
}

tt_status tt_model_sha256(tt_model *m, char out[65], tt_err *err) {
    if (!m->sha256[0]) {
        char **files = NULL;
        size_t n = 0;
        tt__sha256 s;
        tt__sha256_init(&s);
        tt_status st = weight_files(m, &files, &n, err);
        for (size_t i = 0; st == TT_OK && i < n; i++) {
            tt__map map;
            st = tt__map_open(files[i], &map, err);
            if (st != TT_OK) break;
            for (uint64_t at = 0; at < map.size; at += 1u << 24) tt__sha256_update(&s, map.data + at, (size_t)(map.size - at < 1u << 24 ? map.size - at : 1u << 24));
            tt__map_close(&map);
        }
        for (size_t i = 0; i < n; i++) tt__free(files[i]);
        tt__free(files);
        TT_TRY(st);
        tt__sha256_final_hex(&s, m->sha256);
    }
    memcpy(out, m->sha256, 65);
    return TT_OK;
}

/* ------------------------------------------------------------ text ---- */

static tt_status need_tokenizer(const tt_model *m, tt_err *err) {
    TT_FAIL_IF(!m->tok, err, TT_BADFILE, "model has no tokenizer that this build can use|%s", m->path);
    return TT_OK;
}

tt_status tt_tokenize(const tt_model *m, const char *text, size_t bytes, unsigned flags, int32_t **ids, size_t *n, tt_err *err) {
    TT_TRY(need_tokenizer(m, err));
    return tt__tokenizer_encode(m->tok, text, bytes, flags, ids, n, err);
}

tt_status tt_detokenize(const tt_model *m, const int32_t *ids, size_t n, bool with_special, char **text, size_t *bytes, tt_err *err) {
    TT_TRY(need_tokenizer(m, err));
    return tt__tokenizer_decode(m->tok, ids, n, with_special, text, bytes, err);
}

bool tt_model_is_end(const tt_model *m, int32_t id) { return m->tok && tt__tokenizer_is_end(m->tok, id); }
