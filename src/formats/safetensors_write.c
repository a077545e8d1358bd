/* safetensors, writing: tensors by falling element size, then name, so that each starts aligned; header padded to 8 bytes with
 * spaces; beside the target and renamed. A folder gets one file, or shards of a size and an index.json written last. */
#include "base/checked.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/util.h"
#include "formats/hf.h"
#include "formats/names.h"
#include "formats/safetensors_file.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct item { const tt_st_entry *e; uint64_t bytes; } item;

static int in_file_order(const void *a, const void *b) {
    const tt_st_entry *x = ((const item *)a)->e, *y = ((const item *)b)->e;
    uint64_t p = tt__st_dtype_bytes(x->type), q = tt__st_dtype_bytes(y->type);
    return p != q ? (p > q ? -1 : 1) : strcmp(x->name, y->name);
}

static tt_status entry_bytes(const tt_st_entry *e, uint64_t *bytes, tt_err *err) {
    uint64_t n = tt__st_dtype_bytes(e->type);
    bool fits = e->n_dims >= 0 && e->n_dims <= 8;
    for (int d = 0; fits && d < e->n_dims; d++) fits = tt__mul_u64(n, e->shape[d], &n);
    TT_FAIL_IF(!fits || n > INT64_MAX, err, TT_FAIL, "tensor too large|%s", e->name);
    *bytes = n;
    return TT_OK;
}

/* ---- the header ---- */

static void add_json_string(tt__str *b, const char *s) {
    tt__str_puts(b, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') tt__str_printf(b, "\\%c", *s);
        else if ((uint8_t)*s < 0x20) tt__str_printf(b, "\\u%04x", (unsigned)(uint8_t)*s);
        else tt__str_add(b, s, 1);
    }
    tt__str_puts(b, "\"");
}

static void add_metadata(tt__str *b, const char *const *metadata) {
    tt__str_puts(b, "\"__metadata__\":{");
    for (size_t i = 0; metadata[i]; i += 2) {
        if (i) tt__str_puts(b, ",");
        add_json_string(b, metadata[i]);
        tt__str_puts(b, ":");
        add_json_string(b, metadata[i + 1]);
    }
    tt__str_puts(b, "}");
}

static void add_tensor(tt__str *b, const item *t, uint64_t begin) {
    add_json_string(b, t->e->name);
    tt__str_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", tt__st_dtype_name(t->e->type));
    for (int d = 0; d < t->e->n_dims; d++) tt__str_printf(b, "%s%llu", d ? "," : "", (unsigned long long)t->e->shape[d]);
    tt__str_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)begin, (unsigned long long)(begin + t->bytes));
}

static tt_status build_header(const item *items, size_t n, const char *const *metadata, tt__str *b, uint64_t *data_bytes, tt_err *err) {
    uint64_t at = 0;
    bool first = true;
    tt__str_puts(b, "{");
    if (metadata && metadata[0]) {
        add_metadata(b, metadata);
        first = false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!first) tt__str_puts(b, ",");
        add_tensor(b, &items[i], at);
        TT_FAIL_IF(!tt__add_u64(at, items[i].bytes, &at), err, TT_FAIL, "tensors too large|%s", items[i].e->name);
        first = false;
    }
    tt__str_puts(b, "}");
    while (b->n % 8 && !b->failed) tt__str_puts(b, " ");
    TT_FAIL_IF(b->failed, err, TT_RESOURCE, "out of memory|for a safetensors header");
    TT_FAIL_IF(b->n > TT_LIMIT_ST_HEADER, err, TT_FAIL, "safetensors header too large||%zu bytes|at most %llu (limit ST_HEADER)", b->n, (unsigned long long)TT_LIMIT_ST_HEADER);
    *data_bytes = at;
    return TT_OK;
}

/* ---- the file ---- */

typedef struct sink { tt__writer *f; const item *t; uint64_t left; } sink;

static tt_status emit(void *p, const void *data, size_t n, tt_err *err) {
    sink *s = p;
    TT_FAIL_IF(n > s->left, err, TT_FAIL, "tensor longer than declared|%s||%llu bytes", s->t->e->name, (unsigned long long)s->t->bytes);
    s->left -= n;
    return tt__write(s->f, data, n, err);
}

static tt_status write_tensor(tt__writer *f, const item *t, tt_err *err) {
    sink s = {f, t, t->bytes};
    if (t->e->produce) TT_TRY(t->e->produce(t->e->user, emit, &s, err));
    else if (t->bytes) TT_TRY(emit(&s, t->e->data, (size_t)t->bytes, err));
    TT_FAIL_IF(s.left, err, TT_FAIL, "tensor shorter than declared|%s|%llu bytes missing", t->e->name, (unsigned long long)s.left);
    return TT_OK;
}

static tt_status write_file(const char *path, const item *items, size_t n, const tt__str *header, uint64_t data_bytes, tt_err *err) {
    tt__writer *f;
    uint64_t size = header->n, total;
    TT_FAIL_IF(!tt__add_u64(8 + size, data_bytes, &total), err, TT_FAIL, "tensors too large|%s", path);
    TT_TRY(tt__writer_open(path, total, &f, err));
    tt_status st = tt__write(f, &size, 8, err);
    if (st == TT_OK) st = tt__write(f, header->s, header->n, err);
    for (size_t i = 0; i < n && st == TT_OK; i++) st = write_tensor(f, &items[i], err);
    if (st == TT_OK) return tt__writer_commit(f, err);
    tt__writer_abort(f);
    return st;
}

static tt_status check_names(const tt_st_entry *entries, size_t n, tt_err *err) {
    tt__name *names;
    TT_TRY(tt__new(&names, n, sizeof *names, "tensor names", err));
    tt_status st = n <= TT_LIMIT_ST_TENSORS ? TT_OK : tt__fail(err, TT_FAIL, "too many tensors||%zu|at most %llu (limit ST_TENSORS)", n, (unsigned long long)TT_LIMIT_ST_TENSORS);
    for (size_t i = 0; i < n && st == TT_OK; i++) {
        names[i] = (tt__name){entries[i].name, i};
        if (!tt__name_ok(entries[i].name, strlen(entries[i].name)) || strcmp(entries[i].name, "__metadata__") == 0)
            st = tt__fail(err, TT_FAIL, "bad tensor name|%s", entries[i].name);
    }
    if (st == TT_OK) {
        tt__names_sort(names, n);
        const char *twice = tt__names_doubled(names, n);
        if (twice) st = tt__fail(err, TT_FAIL, "doubled tensor name|%s", twice);
    }
    tt__free(names);
    return st;
}

tt_status tt__st_save(const char *path, const tt_st_entry *entries, size_t n, const char *const *metadata, tt_err *err) {
    tt__str header = {0};
    item *items;
    uint64_t data_bytes = 0;
    TT_TRY(check_names(entries, n, err));
    TT_TRY(tt__new(&items, n, sizeof *items, "tensors", err));
    tt_status st = TT_OK;
    for (size_t i = 0; i < n && st == TT_OK; i++) {
        items[i].e = &entries[i];
        st = entry_bytes(&entries[i], &items[i].bytes, err);
    }
    if (st == TT_OK) {
        if (n > 1) qsort(items, n, sizeof *items, in_file_order);
        st = build_header(items, n, metadata, &header, &data_bytes, err);
    }
    if (st == TT_OK) st = write_file(path, items, n, &header, data_bytes, err);
    tt__str_free(&header);
    tt__free(items);
    return st;
}

/* ---- folders ---- */

/* How many entries from `first` on go into one shard, and their bytes: at least one. */
static tt_status shard_length(const tt_st_entry *entries, size_t n, size_t first, uint64_t most, size_t *length, uint64_t *bytes, tt_err *err) {
    *length = 0, *bytes = 0;
    for (size_t i = first; i < n; i++) {
        uint64_t b, sum;
        TT_TRY(entry_bytes(&entries[i], &b, err));
        TT_FAIL_IF(!tt__add_u64(*bytes, b, &sum), err, TT_FAIL, "tensors too large|%s", entries[i].name);
        if (*length && most && sum > most) break;
        *bytes = sum;
        (*length)++;
    }
    return TT_OK;
}

static tt_status save_one(const char *dir, const char *name, const tt_st_entry *entries, size_t n, const char *const *metadata, tt_err *err) {
    char *path = tt__path_join(dir, name);
    TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|for a path");
    tt_status st = tt__st_save(path, entries, n, metadata, err);
    tt__free(path);
    return st;
}

static tt_status remove_in(const char *dir, const char *name, tt_err *err) {
    char *path = tt__path_join(dir, name);
    TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|for a path");
    tt_status st = tt__remove(path, err);
    tt__free(path);
    return st;
}

static tt_status save_shards(const char *dir, const tt_st_entry *entries, size_t n, uint64_t most, size_t shards, const char *const *metadata, tt_err *err) {
    uint64_t total = 0, bytes;
    size_t first = 0, length;
    json_t *map = json_object();
    tt_status st = map ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|for the index");
    for (size_t k = 1; st == TT_OK && k <= shards; k++, first += length) {
        char name[64];
        snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", k, shards);
        st = shard_length(entries, n, first, most, &length, &bytes, err);
        if (st == TT_OK) st = save_one(dir, name, entries + first, length, metadata, err);
        total += bytes;
        for (size_t i = first; st == TT_OK && i < first + length; i++)
            if (json_object_set_new(map, entries[i].name, json_string(name)) != 0) st = tt__fail(err, TT_RESOURCE, "out of memory|for the index");
    }
    json_t *index = json_pack("{s:{s:I},s:O}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (st == TT_OK && !index) st = tt__fail(err, TT_RESOURCE, "out of memory|for the index");
    if (st == TT_OK) st = tt__hf_write_json(dir, "model.safetensors.index.json", index, err);
    if (st == TT_OK) st = remove_in(dir, "model.safetensors", err);            /* a reader would take an old one before the index */
    json_decref(index);
    json_decref(map);
    return st;
}

tt_status tt__st_save_folder(const char *dir, const tt_st_entry *entries, size_t n, uint64_t max_shard_bytes, const char *const *metadata, tt_err *err) {
    static const char *const plain[] = {"format", "pt", NULL};
    size_t shards = 0, length;
    uint64_t bytes;
    if (!metadata) metadata = plain;
    TT_TRY(check_names(entries, n, err));
    for (size_t first = 0; first < n; first += length, shards++) TT_TRY(shard_length(entries, n, first, max_shard_bytes, &length, &bytes, err));
    TT_FAIL_IF(shards > TT_LIMIT_ST_SHARDS, err, TT_FAIL, "too many shards|%s|%zu|at most %llu (limit ST_SHARDS)", dir, shards, (unsigned long long)TT_LIMIT_ST_SHARDS);
    TT_TRY(tt__mkdirs(dir, err));
    if (shards > 1) return save_shards(dir, entries, n, max_shard_bytes, shards, metadata, err);
    TT_TRY(save_one(dir, "model.safetensors", entries, n, metadata, err));
    return remove_in(dir, "model.safetensors.index.json", err);
}
