/* Converting models between containers and element types.
 *
 *   source                                what is written
 *   GGUF, kept as it is                   GGUF: every key and tensor copied (shards become one file)
 *   an architecture this build can run    GGUF or a Hugging Face folder, through the net: names, row order and types of the target
 *   another architecture in GGUF          GGUF: tensors listed one by one, types changed, all keys kept
 *   another architecture in safetensors   a folder with the types changed; encoders of the BERT kind to GGUF (convert_bert.c)
 *
 * Each tensor to be written is an `item`: where its rows come from, in which order, and the type they become. Rows that keep type and
 * bytes are copied from the map; others are decoded and encoded in parallel, some megabytes at a time. GGUF stores the rows of q and k
 * of this kind of model for rotary pairs (2i, 2i+1), Hugging Face for (i, i + D/2): row 2i + j of a head is row j D/2 + i there.
 *
 * Metadata that the target has no place for is kept. A folder made from a GGUF file gets metadata.gguf, a file without tensors that holds
 * every key which config.json and the tokenizer do not tell; it is read on the way back. Strings in safetensors stay strings there.
 */
#include "engine/convert.h"
#include "base/checked.h"
#include "engine/mix.h"
#include "engine/pull.h"
#include "formats/hf.h"
#include <math.h>
#include <stdio.h>

enum { CHUNK_BYTES = 8 << 20 };
#define SHARD_BYTES 5000000000u                       /* as the hub's own tools cut them */

/* ------------------------------------------------------------ items ---- */

/* The type of stored rows of an item, TT_DTYPE_COUNT when they are no standard type. */
static tt_dtype stored_type(const tt__item *it) {
    if (it->op) return it->op->dtype;
    if (it->vec) return TT_F32;
    if (it->gguf) return it->gguf->type;
    switch (it->st->type) {
    case TT_ST_F32: return TT_F32;
    case TT_ST_F16: return TT_F16;
    case TT_ST_BF16: return TT_BF16;
    case TT_ST_F64: return TT_F64;
    case TT_ST_I8: return TT_I8;
    case TT_ST_I16: return TT_I16;
    case TT_ST_I32: return TT_I32;
    case TT_ST_I64: return TT_I64;
    default: return TT_DTYPE_COUNT;
    }
}

static const uint8_t *stored_bytes(const tt__item *it) {
    return it->op ? it->op->data : it->vec ? (const uint8_t *)it->vec : it->gguf ? it->gguf->data : it->st->data;
}

/* Row of the source that becomes row r. */
static int64_t source_row(const tt__item *it, int64_t r) {
    if (it->order == TT__ROWS_AS_STORED) return r;
    int64_t D = it->rows / it->heads, head = r / D, k = r % D;
    int64_t from = it->order == TT__ROWS_TO_PAIRS ? k % 2 * (D / 2) + k / 2 : k % (D / 2) * 2 + k / (D / 2);
    return head * D + from;
}

static tt_status fetch_row(const tt__item *it, int64_t r, float *out, tt_err *err) {
    int64_t from = source_row(it, r);
    if (it->op) tt__linop_rows(it->op, from, from + 1, out);
    else if (it->st) return tt__st_to_f32(it->st, (uint64_t)(from * it->cols), (uint64_t)it->cols, out, err);
    else {
        uint64_t row;
        tt_dtype t = stored_type(it);
        TT_FAIL_IF(!tt__dtype_bytes(t, (uint64_t)it->cols, &row), err, TT_FAIL, "row is not whole blocks|%s", it->name);
        tt__dtype_decode(t, stored_bytes(it) + (uint64_t)from * row, out, it->cols);
    }
    return TT_OK;
}

/* ---- producing the bytes of an item ---- */

typedef struct chunk { const tt__item *it; int64_t first; uint64_t row_bytes; uint8_t *out; uint8_t *failed; } chunk;

static void encode_row(void *arg, int64_t tile, int worker) {
    chunk *c = arg;
    float *row = tt__scratch(c->it->ctx, worker);
    tt_status st = fetch_row(c->it, c->first + tile, row, NULL);
    if (st == TT_OK) st = tt__dtype_encode(c->it->type, row, c->out + (uint64_t)tile * c->row_bytes, c->it->cols, NULL, NULL);
    c->failed[tile] = st != TT_OK;
}

/* The first failed row again, for its error. */
static tt_status explain(chunk *c, int64_t n, tt_err *err) {
    float *row = tt__scratch(c->it->ctx, 0);
    for (int64_t t = 0; t < n; t++) {
        if (!c->failed[t]) continue;
        tt_status st = fetch_row(c->it, c->first + t, row, err);
        if (st == TT_OK) st = tt__dtype_encode(c->it->type, row, c->out, c->it->cols, NULL, err);
        if (st != TT_OK) return tt__err_at(err, st, "%s, row %lld", c->it->name, (long long)(c->first + t));
    }
    return TT_OK;
}

static tt_status emit_encoded(const tt__item *it, uint64_t row_bytes, tt_gguf_emit emit, void *sink, tt_err *err) {
    int64_t rows = CHUNK_BYTES / (int64_t)(it->cols * (int64_t)sizeof(float)) + 1;
    chunk c = {.it = it, .row_bytes = row_bytes};
    tt_status st = TT_OK;
    if (rows > it->rows) rows = it->rows;
    TT_TRY(tt__scratch_reserve(it->ctx, (size_t)it->cols * sizeof(float), err));
    TT_TRY_GOTO(tt__new(&c.out, (size_t)rows, (size_t)row_bytes, "converting a tensor", err));
    TT_TRY_GOTO(tt__new(&c.failed, (size_t)rows, 1, "converting a tensor", err));
    for (; c.first < it->rows; c.first += rows) {
        int64_t n = it->rows - c.first < rows ? it->rows - c.first : rows;
        TT_TRY_GOTO(tt__check_cancel(it->ctx, err));
        tt__parallel(it->ctx, n, encode_row, &c);
        TT_TRY_GOTO(explain(&c, n, err));
        TT_TRY_GOTO(emit(sink, c.out, (size_t)((uint64_t)n * row_bytes), err));
    }
done:
    tt__free(c.out);
    tt__free(c.failed);
    return st;
}

static tt_status emit_copied(const tt__item *it, uint64_t row_bytes, tt_gguf_emit emit, void *sink, tt_err *err) {
    const uint8_t *data = stored_bytes(it);
    int64_t step = it->order == TT__ROWS_AS_STORED ? (int64_t)(CHUNK_BYTES / (row_bytes + 1)) + 1 : 1;
    for (int64_t r = 0; r < it->rows; r += step) {
        int64_t n = it->rows - r < step ? it->rows - r : step;
        if (r % 4096 < step) TT_TRY(tt__check_cancel(it->ctx, err));
        TT_TRY(emit(sink, data + (uint64_t)source_row(it, r) * row_bytes, (size_t)((uint64_t)n * row_bytes), err));
    }
    return TT_OK;
}

/* tt_gguf_produce, and the same shape for safetensors. */
static tt_status produce(void *user, tt_gguf_emit emit, void *sink, tt_err *err) {
    tt__item *it = user;
    uint64_t row_bytes;
    tt__progress(it->ctx, "convert", (double)it->at, (double)it->of, "tensors", it->name);
    if (it->raw) return emit(sink, it->st->data, (size_t)it->st->bytes, err);
    TT_FAIL_IF(!tt__dtype_bytes(it->type, (uint64_t)it->cols, &row_bytes), err, TT_FAIL, "row is not whole blocks|%s", it->name);
    return stored_type(it) == it->type ? emit_copied(it, row_bytes, emit, sink, err) : emit_encoded(it, row_bytes, emit, sink, err);
}

/* ------------------------------------------------------------ lists of items ---- */

tt__item *tt__items_add(tt__items *list, const char *name, tt_err *err) {
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 256;
        tt__item *grown = tt__realloc(list->v, tt__array_bytes(cap, sizeof *grown));
        if (!grown) {
            tt__fail(err, TT_RESOURCE, "out of memory|for the list of tensors");
            return NULL;
        }
        list->v = grown;
        list->cap = cap;
    }
    tt__item *it = &list->v[list->n];
    memset(it, 0, sizeof *it);
    it->name = tt__strdup(name);
    if (!it->name) {
        tt__fail(err, TT_RESOURCE, "out of memory|for the list of tensors");
        return NULL;
    }
    list->n++;
    return it;
}

static void items_free(tt__items *list) {
    for (size_t i = 0; i < list->n; i++) tt__free(list->v[i].name);
    tt__free(list->v);
}

/* rows × cols of a row-major shape: the last dimension is the row. */
static void set_shape(tt__item *it, int n_dims, const uint64_t *shape) {
    it->n_dims = n_dims;
    it->rows = 1;
    it->cols = n_dims ? (int64_t)shape[n_dims - 1] : 1;
    for (int d = 0; d < n_dims; d++) {
        it->shape[d] = shape[d];
        if (d < n_dims - 1) it->rows *= (int64_t)shape[d];
    }
}

tt_status tt__items_add_st(tt__items *list, const char *name, const tt_st_tensor *t, tt_dtype type, tt_err *err) {
    tt__item *it = tt__items_add(list, name, err);
    if (!it) return TT_RESOURCE;
    set_shape(it, t->n_dims, t->shape);
    it->st = t;
    it->type = type;
    return TT_OK;
}

static tt_status add_gguf(tt__items *list, const tt_gguf_tensor *t, tt_dtype type, tt_err *err) {
    uint64_t shape[4];
    tt__item *it = tt__items_add(list, t->name, err);
    if (!it) return TT_RESOURCE;
    for (int d = 0; d < t->n_dims; d++) shape[d] = t->ne[t->n_dims - 1 - d];
    set_shape(it, t->n_dims, shape);
    it->gguf = t;
    it->type = type;
    return TT_OK;
}

static void number_items(tt_ctx *ctx, tt__items *list) {
    for (size_t i = 0; i < list->n; i++) {
        list->v[i].ctx = ctx;
        list->v[i].at = i;
        list->v[i].of = list->n;
    }
}

/* ------------------------------------------------------------ types ---- */

static bool is_float(tt_dtype t) { return t == TT_F32 || t == TT_F16 || t == TT_BF16; }
static bool is_number(tt_dtype t) { return is_float(t) || t == TT_F64 || (t < TT_DTYPE_COUNT && tt__dtype(t)->quantized); }

/* For tensors outside of a known net: vectors and integers stay what they are, a matrix takes the type or the nearest that fits its rows. */
tt_dtype tt__convert_type(const tt_mix *mix, tt_dtype stored, int n_dims, uint64_t cols) {
    if (!mix || !is_number(stored)) return stored;
    if (n_dims < 2) return TT_F32;
    return tt__mix_fitting(mix->base, (int64_t)cols);
}

/* general.file_type is the type that holds most weights. */
tt_status tt__convert_set_file_type(const tt__items *list, tt_gguf_writer *w, tt_err *err) {
    uint64_t count[TT_DTYPE_COUNT] = {0};
    int best = TT_F32;
    bool quantized = false;
    for (size_t i = 0; i < list->n; i++) {
        count[list->v[i].type] += (uint64_t)list->v[i].rows * (uint64_t)list->v[i].cols;
        quantized |= tt__dtype(list->v[i].type)->quantized;
    }
    for (int t = 0; t < TT_DTYPE_COUNT; t++)
        if (tt__dtype((tt_dtype)t)->file_type >= 0 && count[t] > count[best]) best = t;
    TT_TRY(tt__gguf_set_u32(w, "general.file_type", (uint32_t)tt__dtype((tt_dtype)best)->file_type, err));
    return quantized ? tt__gguf_set_u32(w, "general.quantization_version", 2, err) : TT_OK;
}

/* ------------------------------------------------------------ writing ---- */

tt_status tt__convert_save_gguf(tt_ctx *ctx, tt__items *list, tt_gguf_writer *w, const char *path, tt_err *err) {
    number_items(ctx, list);
    for (size_t i = 0; i < list->n; i++) {
        tt__item *it = &list->v[i];
        uint64_t ne[4] = {1, 1, 1, 1};
        TT_FAIL_IF(it->n_dims > 4, err, TT_BADFILE, "GGUF has at most 4 dimensions|%s|%d", it->name, it->n_dims);
        for (int d = 0; d < it->n_dims; d++) ne[d] = it->shape[it->n_dims - 1 - d];
        tt_status st = tt__gguf_add_tensor(w, it->name, it->type, it->n_dims ? it->n_dims : 1, ne, NULL, produce, it, err);
        if (st != TT_OK) return st;
    }
    return tt__gguf_writer_save(w, path, err);
}

static tt_st_dtype st_type(tt_dtype t) {
    switch (t) {
    case TT_F16: return TT_ST_F16;
    case TT_BF16: return TT_ST_BF16;
    case TT_F64: return TT_ST_F64;
    case TT_I8: return TT_ST_I8;
    case TT_I16: return TT_ST_I16;
    case TT_I32: return TT_ST_I32;
    case TT_I64: return TT_ST_I64;
    default: return TT_ST_F32;
    }
}

/* key, value, …, NULL: those of all shards, each key once, and the format that transformers asks for. */
static tt_status st_metadata(const tt_st *st, const char ***out, tt_err *err) {
    size_t n = 0;
    TT_TRY(tt__new(out, 2 * tt__st_n_metadata(st) + 3, sizeof **out, "metadata", err));
    (*out)[n++] = "format";
    (*out)[n++] = "pt";
    for (size_t i = 0; i < tt__st_n_metadata(st); i++) {
        const char *value, *key = tt__st_metadata(st, i, &value);
        size_t k = 0;
        while (k < n && strcmp((*out)[k], key) != 0) k += 2;
        if (k < n) continue;
        (*out)[n++] = key;
        (*out)[n++] = value;
    }
    return TT_OK;
}

/* from: the source if it is safetensors too, else NULL. */
static tt_status save_weights(tt_ctx *ctx, tt__items *list, const tt_st *from, const char *dir, tt_err *err) {
    const char **metadata = NULL;
    tt_st_entry *entries;
    number_items(ctx, list);
    TT_TRY(tt__new(&entries, list->n, sizeof *entries, "the list of tensors", err));
    for (size_t i = 0; i < list->n; i++) {
        tt__item *it = &list->v[i];
        entries[i] = (tt_st_entry){.name = it->name, .type = it->raw ? it->st->type : st_type(it->type), .n_dims = it->n_dims, .produce = produce, .user = it};
        memcpy(entries[i].shape, it->shape, sizeof entries[i].shape);
    }
    tt_status st = from ? st_metadata(from, &metadata, err) : TT_OK;
    if (st == TT_OK) st = tt__st_save_folder(dir, entries, list->n, SHARD_BYTES, metadata, err);
    tt__free(metadata);
    tt__free(entries);
    return st;
}

/* ------------------------------------------------------------ one conversion ---- */

typedef struct convert {
    tt_ctx *ctx;
    const tt_convert_options *o;
    const tt_mix *mix;                   /* NULL: keep */
    char *path;                          /* of the source */
    bool to_gguf;
    tt_gguf *g;                          /* one of the two is open */
    tt_st *st;
    json_t *config;                      /* of a Hugging Face folder, may be NULL */
    tt_net *net;                         /* where the conversion needs one */
    tt_tokenizer *tok;
    tt__items items;
} convert;

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static tt_status parse_outtype(convert *c, tt_err *err) {
    if (!c->o->outtype) return TT_OK;
    c->mix = tt__mix_find(c->o->outtype);
    if (!c->mix) {
        const char *near = tt__mix_nearest(c->o->outtype);
        return tt__fail(err, TT_USAGE, "unknown type|--outtype|%s|f32, f16, bf16, q8_0, q4_0 …|%s%s", c->o->outtype, near ? "did you mean " : "", near ? near : "");
    }
    TT_FAIL_IF(!c->to_gguf && !is_float(c->mix->base), err, TT_USAGE, "safetensors folders hold no block types|--outtype|%s|f32, f16 or bf16|name an output ending in .gguf", c->o->outtype);
    return TT_OK;
}

static tt_status check_output(const convert *c, tt_err *err) {
    const char *out = c->o->output;
    bool folder = tt__is_dir(out);
    TT_FAIL_IF(tt__exists(out) && tt__same_file(out, c->path), err, TT_USAGE, "the output is the input|%s", out);
    TT_FAIL_IF(c->to_gguf && folder, err, TT_USAGE, "output is a folder|%s||a file", out);
    TT_FAIL_IF(!c->to_gguf && tt__exists(out) && !folder, err, TT_USAGE, "output is a file|%s||a folder, or a name ending in .gguf", out);
    TT_FAIL_IF(tt__exists(out) && !c->o->force, err, TT_USAGE, "output exists|%s|||--force overwrites it", out);
    return TT_OK;
}

/* ---- sources ---- */

static tt_status gguf_arch(const tt_gguf *g, char out[64], bool *own, tt_err *err) {
    const char *name = "";
    size_t n = 0;
    TT_TRY(tt__gguf_str(g, "general.architecture", true, &name, &n, err));
    *own = n == 7 && memcmp(name, "trimtab", 7) == 0;
    if (*own) TT_TRY(tt__gguf_str(g, "trimtab.architecture", true, &name, &n, err));
    snprintf(out, 64, "%.*s", (int)(n < 63 ? n : 63), name);
    return TT_OK;
}

static tt_status open_source(convert *c, tt_err *err) {
    if (!tt__is_dir(c->path) && !ends_with(c->path, ".safetensors")) return tt__gguf_open(c->path, &c->g, err);
    TT_TRY(tt__st_open(c->path, &c->st, err));
    return tt__is_dir(c->path) ? tt__hf_json(c->path, "config.json", false, &c->config, err) : TT_OK;
}

/* ---- through the net ---- */

static tt_dtype net_type(const convert *c, size_t i) {
    const tt_weight *w = &c->net->weights[i];
    tt_dtype wanted, stored = w->op ? w->op->dtype : TT_F32;
    if (c->to_gguf && w->vector) return TT_F32;
    if (c->mix) return w->vector ? c->mix->base : tt__mix_type(c->mix, c->net, i, &wanted);
    return c->to_gguf && stored != TT_DTYPE_COUNT ? stored : is_float(stored) ? stored : TT_F32;
}

static tt_status add_net_weight(convert *c, size_t i, tt_err *err) {
    const tt_weight *w = &c->net->weights[i];
    const uint64_t shape[2] = {(uint64_t)w->rows, (uint64_t)w->cols};
    tt__item *it = tt__items_add(&c->items, c->to_gguf ? w->name : w->hf, err);
    if (!it) return TT_RESOURCE;
    set_shape(it, w->vector ? 1 : 2, w->vector ? shape + 1 : shape);
    it->op = w->vector ? NULL : w->op;
    it->vec = w->vector ? w->vec : NULL;
    it->type = net_type(c, i);
    if (w->permute && c->net->rope_adjacent != c->to_gguf) {
        it->order = c->to_gguf ? TT__ROWS_TO_PAIRS : TT__ROWS_TO_HALVES;
        it->heads = w->permute_heads;
    }
    return TT_OK;
}

static tt_status add_net_weights(convert *c, tt_err *err) {
    for (size_t i = 0; i < c->net->n_weights; i++) TT_TRY(add_net_weight(c, i, err));
    if (!c->to_gguf || !c->net->rope_divisor) return TT_OK;
    const uint64_t half = (uint64_t)c->net->hp.head_dim / 2;
    tt__item *it = tt__items_add(&c->items, "rope_freqs.weight", err);
    if (!it) return TT_RESOURCE;
    set_shape(it, 1, &half);
    it->vec = c->net->rope_divisor;
    return TT_OK;
}

/* "135M", "1.2B" */
static void size_label(uint64_t params, char out[16]) {
    if (params >= 1000000000) snprintf(out, 16, "%.1fB", (double)params / 1e9);
    else if (params >= 1000000) snprintf(out, 16, "%.0fM", (double)params / 1e6);
    else snprintf(out, 16, "%.0fK", (double)params / 1e3);
}

static const char *base_name(const char *path, size_t *n) {
    size_t end = strlen(path), start;
    while (end > 1 && path[end - 1] == '/') end--;
    for (start = end; start > 0 && path[start - 1] != '/'; start--) {}
    *n = end - start;
    return path + start;
}

tt_status tt__convert_set_identity(const char *path, const char *arch, const tt__items *list, tt_gguf_writer *w, tt_err *err) {
    size_t n;
    uint64_t params = 0;
    const char *base = base_name(path, &n);
    char *name = tt__strndup(base, n), label[16];
    TT_FAIL_IF(!name, err, TT_RESOURCE, "out of memory|for a name");
    for (size_t i = 0; i < list->n; i++) params += (uint64_t)list->v[i].rows * (uint64_t)list->v[i].cols;
    size_label(params, label);
    tt_status st = tt__gguf_set_str(w, "general.architecture", arch, err);
    if (st == TT_OK) st = tt__gguf_set_str(w, "general.type", "model", err);
    if (st == TT_OK) st = tt__gguf_set_str(w, "general.name", name, err);
    if (st == TT_OK) st = tt__gguf_set_str(w, "general.size_label", label, err);
    tt__free(name);
    return st;
}

/* What the tensors decide; and that together with what other files of a folder tell. */
static const char *const own_keys[] = {"trimtab.op.", "trimtab.schema", "trimtab.architecture", "trimtab.rope_adjacent", NULL};
static const char *const told_keys[] = {"trimtab.op.", "trimtab.schema", "trimtab.architecture", "trimtab.rope_adjacent", "trimtab.config", "tokenizer.", "general.architecture",
                                        "general.file_type", "general.quantization_version", "general.size_label", NULL};

/* metadata.gguf of a folder, if it has one. Called before the keys that config.json and the tokenizer decide are set. */
static tt_status recall_keys(const char *dir, tt_gguf_writer *w, tt_err *err) {
    char *path = tt__path_join(dir, "metadata.gguf");
    tt_gguf *g = NULL;
    TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|for a path");
    tt_status st = tt__exists(path) ? tt__gguf_open(path, &g, err) : TT_OK;
    if (st == TT_OK && g) st = tt__gguf_writer_copy_kv(w, g, told_keys, err);
    tt__gguf_close(g);
    tt__free(path);
    return st;
}

static tt_status keep_keys(const convert *c, const char *dir, tt_err *err) {
    char *path = tt__path_join(dir, "metadata.gguf");
    tt_gguf_writer *w = NULL;
    tt_status st = path ? tt__gguf_writer_create(&w, err) : tt__fail(err, TT_RESOURCE, "out of memory|for a path");
    if (st == TT_OK) st = tt__gguf_set_str(w, "general.architecture", c->net->arch->name, err);
    if (st == TT_OK) st = tt__gguf_writer_copy_kv(w, c->g, told_keys, err);
    if (st == TT_OK) st = tt__gguf_writer_save(w, path, err);
    tt__gguf_writer_free(w);
    tt__free(path);
    return st;
}

/* Members of the config.json that a GGUF file came from and that nothing here knows: they travel as one string. What the weights, the
 * hyper-parameters and the tokenizer decide is never taken from there. */
static const char config_key[] = "trimtab.config";
static const char *const decided[] = {"dtype", "torch_dtype", "quantization_config", "rope_scaling", "rope_parameters", NULL};

static tt_status carry_config(const convert *c, tt_gguf_writer *w, tt_err *err) {
    tt__str text = {0};
    if (!c->config) return TT_OK;
    tt__json_write(&text, c->config, JSON_COMPACT | JSON_REAL_PRECISION(17));
    tt_status st;
    if (text.failed || !text.s) st = tt__fail(err, TT_RESOURCE, "out of memory|for config.json");
    else if (text.n > TT_LIMIT_GGUF_STRING)                             /* such a file could not be read again */
        st = tt__fail(err, TT_BADFILE, "too large for GGUF metadata|config.json|%zu bytes|at most %llu (GGUF_STRING)", text.n, (unsigned long long)TT_LIMIT_GGUF_STRING);
    else st = tt__gguf_set_str(w, config_key, text.s, err);
    tt__str_free(&text);
    return st;
}

static tt_status bring_config(const convert *c, json_t *config, tt_err *err) {
    const char *text = NULL;
    size_t n = 0;
    json_t *old = NULL;
    if (!c->g || !tt__gguf_has(c->g, config_key)) return TT_OK;
    TT_TRY(tt__gguf_str(c->g, config_key, true, &text, &n, err));
    TT_TRY(tt__json_parse(text, n, config_key, &old, err));
    bool bad = !json_is_object(old);
    for (int i = 0; !bad && decided[i]; i++) json_object_del(old, decided[i]);
    tt_status st = bad ? tt__fail(err, TT_BADFILE, "not a JSON object|%s", config_key) : TT_OK;
    if (st == TT_OK && json_object_update_missing(config, old)) st = tt__fail(err, TT_RESOURCE, "out of memory|for config.json");
    json_decref(old);
    return st;
}

static tt_status net_keys(convert *c, tt_gguf_writer *w, tt_err *err) {
    if (c->g) {
        TT_TRY(tt__gguf_writer_copy_kv(w, c->g, own_keys, err));
        TT_TRY(tt__gguf_set_str(w, "general.architecture", c->net->arch->name, err));
    } else {
        TT_TRY(tt__convert_set_identity(c->path, c->net->arch->name, &c->items, w, err));
        TT_TRY(recall_keys(c->path, w, err));
        TT_TRY(c->net->arch->to_gguf(&c->net->hp, w, err));
        TT_TRY(tt__tokenizer_to_gguf(c->tok, w, err));
        TT_TRY(carry_config(c, w, err));
    }
    return tt__convert_set_file_type(&c->items, w, err);
}

static tt_status net_to_gguf(convert *c, tt_err *err) {
    tt_gguf_writer *w = NULL;
    TT_TRY(add_net_weights(c, err));
    TT_TRY(tt__gguf_writer_create(&w, err));
    tt_status st = net_keys(c, w, err);
    if (st == TT_OK) st = tt__convert_save_gguf(c->ctx, &c->items, w, c->o->output, err);
    tt__gguf_writer_free(w);
    return st;
}

/* ---- Hugging Face folders ---- */

/* GGUF holds the divisors of Llama 3's frequency scaling as a tensor, config.json the parameters they come from. Those of the published
 * models are tried; others have no place there. */
static tt_status name_rope_scaling(const tt_net *net, tt_hparams *hp, tt_err *err) {
    float most = 0;
    bool same = true;
    int64_t half = net->hp.head_dim / 2;
    *hp = net->hp;
    if (!net->rope_divisor || hp->rope_factor != 0) return TT_OK;
    for (int64_t i = 0; i < half; i++) most = most > net->rope_divisor[i] ? most : net->rope_divisor[i];
    hp->rope_factor = most, hp->rope_low = 1, hp->rope_high = 4, hp->rope_orig = 8192;
    for (int64_t i = 0; i < half; i++) {
        float d = tt__llama3_divisor(hp, pow((double)hp->rope_base, -2.0 * (double)i / (double)hp->head_dim));
        same = same && fabsf(d - net->rope_divisor[i]) <= 1e-3f * d;
    }
    TT_FAIL_IF(!same, err, TT_BADFILE, "rotary divisors cannot be named in config.json|rope_freqs.weight||those of Llama 3|");
    return TT_OK;
}

static const char *torch_name(tt_dtype t) { return t == TT_F16 ? "float16" : t == TT_BF16 ? "bfloat16" : "float32"; }

/* The float type that holds most weights. */
static tt_dtype main_type(const tt__items *list) {
    uint64_t count[TT_DTYPE_COUNT] = {0};
    for (size_t i = 0; i < list->n; i++)
        if (!list->v[i].raw) count[list->v[i].type] += (uint64_t)list->v[i].rows * (uint64_t)list->v[i].cols;
    tt_dtype best = TT_F32;
    if (count[TT_F16] > count[best]) best = TT_F16;
    if (count[TT_BF16] > count[best]) best = TT_BF16;
    return best;
}

static int set_id(json_t *o, const char *key, int32_t id) { return id >= 0 ? json_object_set_new(o, key, json_integer(id)) : 0; }

static int32_t padding_id(const convert *c) {
    int64_t id = -1;
    if (c->g && tt__gguf_i64(c->g, "tokenizer.ggml.padding_token_id", false, 0, INT32_MAX, &id, NULL) != TT_OK) id = -1;
    return (int32_t)id;
}

/* config.json from the hyper-parameters, generation_config.json from the tokenizer. */
static tt_status write_configs(const convert *c, const char *dir, tt_err *err) {
    json_t *config = json_object(), *generation = json_object();
    tt_hparams hp;
    tt_status st = config && generation ? name_rope_scaling(c->net, &hp, err) : tt__fail(err, TT_RESOURCE, "out of memory|for config.json");
    int bad = 0;
    if (st == TT_OK) st = c->net->arch->to_hf(&hp, config, err);
    if (st == TT_OK) {
        json_t *both[2] = {config, generation};
        for (int i = 0; i < 2; i++) {
            bad |= set_id(both[i], "bos_token_id", tt__tokenizer_bos(c->tok));
            bad |= set_id(both[i], "eos_token_id", tt__tokenizer_eos(c->tok));
            bad |= set_id(both[i], "pad_token_id", padding_id(c));
        }
        bad |= json_object_set_new(config, "torch_dtype", json_string(torch_name(main_type(&c->items))));
        bad |= json_object_set_new(config, "use_cache", json_true());
        if (bad) st = tt__fail(err, TT_RESOURCE, "out of memory|for config.json");
    }
    if (st == TT_OK) st = bring_config(c, config, err);
    if (st == TT_OK) st = tt__hf_write_json(dir, "config.json", config, err);
    if (st == TT_OK) st = tt__hf_write_json(dir, "generation_config.json", generation, err);
    json_decref(config);
    json_decref(generation);
    return st;
}

static tt_status fill_net_folder(convert *c, const char *dir, tt_err *err) {
    TT_TRY(tt__tokenizer_to_folder(c->tok, dir, err));
    TT_TRY(save_weights(c->ctx, &c->items, NULL, dir, err));
    TT_TRY(keep_keys(c, dir, err));
    return write_configs(c, dir, err);
}

/* Small files that belong to a model folder; copied as they are. Those of sentence encoders too. */
static const char *const companions[] = {
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "tokenizer.model", "chat_template.jinja", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
    "1_Pooling/config.json", "README.md", "LICENSE", "metadata.gguf", NULL,
};

static tt_status copy_companion(const char *from_dir, const char *to_dir, const char *name, tt_err *err) {
    char *from = tt__path_join(from_dir, name), *to = tt__path_join(to_dir, name), *bytes = NULL;
    size_t n = 0;
    tt_status st = from && to ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|for a path");
    if (st == TT_OK && tt__exists(from)) {
        char *slash = strrchr(to, '/');
        st = tt__read_file(from, TT_LIMIT_TOKENIZER_JSON, &bytes, &n, err);
        if (st == TT_OK && strchr(name, '/')) {
            *slash = 0;
            st = tt__mkdirs(to, err);
            *slash = '/';
        }
        if (st == TT_OK) st = tt__write_file(to, bytes, n, err);
    }
    tt__free(bytes);
    tt__free(from);
    tt__free(to);
    return st;
}

static tt_status fill_copied_folder(convert *c, const char *dir, tt_err *err) {
    TT_TRY(tt__mkdirs(dir, err));
    for (size_t i = 0; tt__is_dir(c->path) && companions[i]; i++) TT_TRY(copy_companion(c->path, dir, companions[i], err));
    TT_TRY(save_weights(c->ctx, &c->items, c->st, dir, err));
    if (!c->config) return TT_OK;
    if (c->mix) {
        const char *key = json_object_get(c->config, "dtype") ? "dtype" : "torch_dtype";
        TT_FAIL_IF(json_object_set_new(c->config, key, json_string(torch_name(c->mix->base))), err, TT_RESOURCE, "out of memory|for config.json");
    }
    return tt__hf_write_json(dir, "config.json", c->config, err);
}

/* What a reader would take before, or in place of, the new weights. */
static bool is_stale(const char *name) { return !strcmp(name, "model.safetensors") || !strcmp(name, "model.safetensors.index.json"); }

/* A folder is filled under a hidden name beside its place and put there in one step; where that cannot be, the files go one by one. */
static tt_status save_folder(convert *c, tt_status (*fill)(convert *, const char *, tt_err *), tt_err *err) {
    size_t n;
    const char *out = c->o->output, *name = base_name(out, &n);
    bool fresh = !tt__exists(out), done = true;
    tt__str tmp = {0}, plain = {0};
    tt__str_printf(&tmp, "%.*s.%.*s.convert.tmp", (int)(name - out), out, (int)n, name);
    tt__str_printf(&plain, "%.*s%.*s", (int)(name - out), out, (int)n, name);
    tt_status st = tmp.failed || plain.failed ? tt__fail(err, TT_RESOURCE, "out of memory|for a path") : TT_OK;
    if (st == TT_OK && tt__exists(tmp.s)) st = tt__remove_tree(tmp.s, err);
    if (st == TT_OK) {
        st = tt__mkdirs(tmp.s, err);
        if (st == TT_OK) st = fill(c, tmp.s, err);
        if (st == TT_OK) st = fresh ? tt__rename_folder(tmp.s, plain.s, err) : tt__swap_folder(tmp.s, plain.s, is_stale, &done, err);
        if (st != TT_OK || !done) tt__remove_tree(tmp.s, NULL);
        if (st == TT_OK && !done) st = fill(c, out, err);
    }
    tt__str_free(&tmp);
    tt__str_free(&plain);
    return st;
}

/* ---- containers kept ---- */

static tt_status gguf_to_gguf(convert *c, tt_err *err) {
    tt_gguf_writer *w = NULL;
    for (size_t i = 0; i < tt__gguf_n_tensors(c->g); i++) {
        const tt_gguf_tensor *t = tt__gguf_tensor(c->g, i);
        TT_TRY(add_gguf(&c->items, t, tt__convert_type(c->mix, t->type, t->n_dims, t->ne[0]), err));
    }
    TT_TRY(tt__gguf_writer_create(&w, err));
    tt_status st = tt__gguf_writer_copy_kv(w, c->g, NULL, err);
    if (st == TT_OK && c->mix) st = tt__convert_set_file_type(&c->items, w, err);
    if (st == TT_OK) st = tt__convert_save_gguf(c->ctx, &c->items, w, c->o->output, err);
    tt__gguf_writer_free(w);
    return st;
}

static tt_status add_st_kept(convert *c, tt_err *err) {
    for (size_t i = 0; i < tt__st_n(c->st); i++) {
        const tt_st_tensor *t = tt__st_tensor(c->st, i);
        bool number = t->type == TT_ST_F32 || t->type == TT_ST_F16 || t->type == TT_ST_BF16 || t->type == TT_ST_F64;
        TT_TRY(tt__items_add_st(&c->items, t->name, t, c->mix ? c->mix->base : TT_F32, err));
        c->items.v[c->items.n - 1].raw = !c->mix || !number || t->bytes == 0;
    }
    return TT_OK;
}

/* ---- choosing ---- */

static tt_status from_gguf(convert *c, tt_err *err) {
    char arch[64];
    bool own;
    TT_TRY(gguf_arch(c->g, arch, &own, err));
    bool known = tt__arch_find(arch) != NULL;
    TT_FAIL_IF(!known && (!c->to_gguf || (own && c->mix)), err, TT_BADFILE, "architecture not known to this build|%s|%s|llama|such a model can be rewritten as GGUF only", c->path, arch);
    if (c->to_gguf && (!known || !c->mix)) return gguf_to_gguf(c, err);
    TT_TRY(tt__net_from_gguf(c->ctx, c->g, false, &c->net, err));
    if (c->to_gguf) return net_to_gguf(c, err);
    TT_TRY(tt__tokenizer_from_gguf(c->g, &c->tok, err));
    TT_TRY(add_net_weights(c, err));
    return save_folder(c, fill_net_folder, err);
}

static tt_status from_hf(convert *c, tt_err *err) {
    const char *type = NULL;
    if (!c->to_gguf) {
        TT_TRY(add_st_kept(c, err));
        return save_folder(c, fill_copied_folder, err);
    }
    TT_FAIL_IF(!c->config, err, TT_BADFILE, "no config.json beside the weights|%s|||a Hugging Face folder is needed to write GGUF", c->path);
    TT_TRY(tt__json_str(c->config, "model_type", true, &type, "config.json", err));
    if (tt__arch_find_hf(type)) {
        TT_TRY(tt__net_from_hf(c->ctx, c->path, c->st, false, &c->net, err));
        TT_TRY(tt__tokenizer_from_folder(c->path, &c->tok, err));
        return net_to_gguf(c, err);
    }
    TT_FAIL_IF(strcmp(type, "bert") != 0, err, TT_BADFILE, "architecture not known to this build|%s|%s|llama or bert|such a model can be rewritten as a folder only", c->path, type);
    return tt__convert_bert(c->ctx, c->path, c->config, c->st, c->mix, &c->items, c->o->output, err);
}

static void convert_close(convert *c) {
    items_free(&c->items);
    tt__net_free(c->net);
    tt__tokenizer_free(c->tok);
    json_decref(c->config);
    tt__gguf_close(c->g);
    tt__st_close(c->st);
    tt__free(c->path);
}

tt_status tt_convert(tt_ctx *ctx, const tt_convert_options *options, tt_err *err) {
    convert c = {.ctx = ctx, .o = options};
    tt_status st;
    TT_FAIL_IF(!options || !options->model || !options->model[0], err, TT_USAGE, "no model given");
    TT_FAIL_IF(!options->output || !options->output[0], err, TT_USAGE, "no output given|||a name ending in .gguf, or a folder");
    c.to_gguf = ends_with(options->output, ".gguf");
    TT_TRY(parse_outtype(&c, err));
    TT_TRY_GOTO(tt__resolve_ref(ctx, options->model, false, &c.path, err));
    TT_TRY_GOTO(check_output(&c, err));
    TT_TRY_GOTO(open_source(&c, err));
    TT_TRY_GOTO(c.g ? from_gguf(&c, err) : from_hf(&c, err));
    tt__progress(ctx, "convert", (double)c.items.n, (double)c.items.n, "tensors", "");
done:
    convert_close(&c);
    return st;
}
