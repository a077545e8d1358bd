/* Reading GGUF (layout in gguf.h). The whole metadata is walked once: every count and length is compared with the bytes that are
 * left before anything is reserved for it. Values stay where they are, in the map; of string arrays the offset of each element is
 * noted, so that a vocabulary opens without copying it. Writing is in gguf_write.c.
 *
 *   open:  map → parse (bounded reads) → validate tensors (F2, F3, F6, F12) → index names (F12b) → further shards
 */
#include "formats/gguf.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/util.h"
#include "formats/gguf_file.h"
#include "formats/names.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>

typedef struct shard {
    tt__map map;                     /* data == NULL: bytes in memory, lent by the caller */
    const uint8_t *bytes;
    uint64_t size, data_at, align;
    uint64_t split_no, split_count, split_tensors;
} shard;

struct tt_gguf {
    char *path;
    tt__arena arena;
    size_t n_shards;
    shard *shards;
    size_t n_kv;
    tt_gguf_kv *kv;                  /* of the first shard, in file order */
    tt__name *kv_names;
    size_t n_tensors, cap_tensors;
    tt_gguf_tensor *tensors;
    tt__name *tensor_names;
};

/* Bytes of one element; 0 for strings and arrays. */
uint64_t tt__gguf_type_bytes(tt_gguf_type t) {
    static const uint8_t bytes[TT_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[t];
}
const char *tt__gguf_type_name(tt_gguf_type t) {
    static const char *const names[TT_GGUF_TYPES] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
    return names[t];
}

/* ---- bounded reading ---- */

typedef struct reader { const uint8_t *bytes; uint64_t size, at; const char *path; tt_err *err; } reader;

static tt_status cut_short(const reader *r, const char *what, uint64_t want) {
    return tt__fail(r->err, TT_BADFILE, "file ends inside its metadata|%s, offset %llu, %s|%llu bytes left|%llu bytes|is the download complete?",
                    r->path, (unsigned long long)r->at, what, (unsigned long long)(r->size - r->at), (unsigned long long)want);
}
static tt_status take(reader *r, uint64_t n, const char *what, const uint8_t **out) {
    *out = r->bytes + r->at;
    if (n > r->size - r->at) return cut_short(r, what, n);
    r->at += n;
    return TT_OK;
}
static tt_status take_u32(reader *r, const char *what, uint32_t *out) {
    const uint8_t *p;
    TT_TRY(take(r, 4, what, &p));
    *out = tt__rd32(p);
    return TT_OK;
}
static tt_status take_u64(reader *r, const char *what, uint64_t *out) {
    const uint8_t *p;
    TT_TRY(take(r, 8, what, &p));
    *out = tt__rd64(p);
    return TT_OK;
}
/* u64 length, bytes; length within `limit` before the bytes are looked at. */
static tt_status take_string(reader *r, uint64_t limit, const char *limit_name, const char *what, const char **s, uint64_t *n) {
    const uint8_t *p;
    TT_TRY(take_u64(r, what, n));
    TT_FAIL_IF(*n > limit, r->err, TT_BADFILE, "%s too long|%s, offset %llu|%llu bytes|at most %llu (limit %s)|", what, r->path,
               (unsigned long long)r->at, (unsigned long long)*n, (unsigned long long)limit, limit_name);
    TT_TRY(take(r, *n, what, &p));
    *s = (const char *)p;
    return TT_OK;
}

/* ---- key-value pairs ---- */

static tt_status bad_bool(const reader *r, const char *key, uint8_t v) {
    return tt__fail(r->err, TT_BADFILE, "bad boolean|%s, key %s|%u|0 or 1|", r->path, key, v);
}

/* Notes the offset of each element of a string array. The index costs 4 bytes for at least 8 of the file. */
static tt_status index_strings(reader *r, tt_gguf *g, tt_gguf_kv *kv) {
    uint64_t start = r->at, need;
    if (!tt__mul_u64(kv->count, 8, &need) || need > r->size - r->at) return cut_short(r, "string array", kv->count);
    kv->offsets = tt__arena_alloc(&g->arena, (size_t)kv->count * sizeof *kv->offsets);
    TT_FAIL_IF(!kv->offsets, r->err, TT_RESOURCE, "out of memory|for the index of %s", kv->key);
    for (uint64_t i = 0; i < kv->count; i++) {
        const char *s;
        uint64_t n;
        TT_FAIL_IF(r->at - start > TT_LIMIT_GGUF_META, r->err, TT_BADFILE, "metadata too large|%s, key %s||at most %llu bytes (limit GGUF_META)|",
                   r->path, kv->key, (unsigned long long)TT_LIMIT_GGUF_META);
        kv->offsets[i] = (uint32_t)(r->at - start);
        TT_TRY(take_string(r, TT_LIMIT_GGUF_STRING, "GGUF_STRING", "array element", &s, &n));
    }
    return TT_OK;
}

static tt_status read_array(reader *r, tt_gguf *g, tt_gguf_kv *kv) {
    uint32_t element;
    uint64_t bytes;
    const uint8_t *p;
    TT_TRY(take_u32(r, "array type", &element));
    TT_FAIL_IF(element >= TT_GGUF_TYPES || element == TT_GGUF_ARRAY, r->err, TT_BADFILE, "bad array element type|%s, key %s|%u|a value type other than array|",
               r->path, kv->key, element);
    kv->element = (tt_gguf_type)element;
    TT_TRY(take_u64(r, "array length", &kv->count));
    TT_FAIL_IF(kv->count > TT_LIMIT_GGUF_ARRAY, r->err, TT_BADFILE, "array too long|%s, key %s|%llu elements|at most %llu (limit GGUF_ARRAY)|", r->path, kv->key,
               (unsigned long long)kv->count, (unsigned long long)TT_LIMIT_GGUF_ARRAY);
    kv->value = r->bytes + r->at;
    if (kv->element == TT_GGUF_STRING) return index_strings(r, g, kv);
    if (!tt__mul_u64(kv->count, tt__gguf_type_bytes(kv->element), &bytes)) return cut_short(r, "array", kv->count);
    TT_TRY(take(r, bytes, "array", &p));
    if (kv->element == TT_GGUF_BOOL)
        for (uint64_t i = 0; i < kv->count; i++)
            if (p[i] > 1) return bad_bool(r, kv->key, p[i]);
    return TT_OK;
}

static tt_status read_value(reader *r, tt_gguf *g, tt_gguf_kv *kv) {
    const uint8_t *p;
    if (kv->type == TT_GGUF_ARRAY) return read_array(r, g, kv);
    kv->element = kv->type;
    kv->count = 1;
    if (kv->type == TT_GGUF_STRING) {
        const char *s;
        uint64_t n;
        TT_TRY(take_string(r, TT_LIMIT_GGUF_STRING, "GGUF_STRING", "string", &s, &n));
        kv->value = (const uint8_t *)s;
        kv->count = n;
        return TT_OK;
    }
    TT_TRY(take(r, tt__gguf_type_bytes(kv->type), "value", &p));
    kv->value = p;
    if (kv->type == TT_GGUF_BOOL && *p > 1) return bad_bool(r, kv->key, *p);
    return TT_OK;
}

static tt_status read_kv(reader *r, tt_gguf *g, tt_gguf_kv *kv) {
    const char *key;
    uint64_t n;
    uint32_t type;
    TT_TRY(take_string(r, TT_LIMIT_GGUF_KEY, "GGUF_KEY", "key", &key, &n));
    TT_FAIL_IF(!tt__name_ok(key, (size_t)n), r->err, TT_BADFILE, "bad key|%s, offset %llu||text without control bytes|", r->path, (unsigned long long)(r->at - n));
    kv->key = tt__arena_strndup(&g->arena, key, (size_t)n);
    TT_FAIL_IF(!kv->key, r->err, TT_RESOURCE, "out of memory|for the keys of %s", r->path);
    TT_TRY(take_u32(r, "value type", &type));
    TT_FAIL_IF(type >= TT_GGUF_TYPES, r->err, TT_BADFILE, "unknown value type|%s, key %s|%u|0 to 12|", r->path, kv->key, type);
    kv->type = (tt_gguf_type)type;
    uint64_t start = r->at;
    TT_TRY(read_value(r, g, kv));
    kv->raw = r->bytes + start;
    kv->raw_bytes = r->at - start;
    TT_FAIL_IF(r->at > TT_LIMIT_GGUF_META, r->err, TT_BADFILE, "metadata too large|%s, key %s||at most %llu bytes (limit GGUF_META)|", r->path, kv->key,
               (unsigned long long)TT_LIMIT_GGUF_META);
    return TT_OK;
}

static tt_status index_names(tt__name *names, size_t n, const char *what, const char *path, tt_err *err) {
    tt__names_sort(names, n);
    const char *twice = tt__names_doubled(names, n);
    TT_FAIL_IF(twice, err, TT_BADFILE, "doubled %s|%s|%s|each name once|", what, path, twice);
    return TT_OK;
}

static tt_status read_kvs(reader *r, tt_gguf *g, uint64_t n_kv) {
    TT_FAIL_IF(n_kv > TT_LIMIT_GGUF_KV, r->err, TT_BADFILE, "too many metadata keys|%s|%llu|at most %llu (limit GGUF_KV)|", r->path, (unsigned long long)n_kv,
               (unsigned long long)TT_LIMIT_GGUF_KV);
    if (n_kv > (r->size - r->at) / 13) return cut_short(r, "metadata keys", n_kv * 13);           /* 8 + 4 + 1 bytes at least; n_kv is small */
    TT_TRY(tt__new(&g->kv, (size_t)n_kv, sizeof *g->kv, "metadata", r->err));
    TT_TRY(tt__new(&g->kv_names, (size_t)n_kv, sizeof *g->kv_names, "metadata", r->err));
    for (; g->n_kv < n_kv; g->n_kv++) {
        TT_TRY(read_kv(r, g, &g->kv[g->n_kv]));
        g->kv_names[g->n_kv] = (tt__name){g->kv[g->n_kv].key, g->n_kv};
    }
    return index_names(g->kv_names, g->n_kv, "metadata key", r->path, r->err);
}

/* ---- tensors ---- */

/* Bytes of the tensor as rows × (row length / block) × block bytes, each product checked (F2). */
static tt_status tensor_size(const reader *r, tt_gguf_tensor *t) {
    const tt_dtype_info *info = tt__dtype(t->type);
    uint64_t rows = 1, row;
    TT_FAIL_IF(!tt__dtype_bytes(t->type, t->ne[0], &row), r->err, TT_BADFILE, "row is not a whole number of blocks|%s, tensor %s|%llu elements|a multiple of %lld (%s)|",
               r->path, t->name, (unsigned long long)t->ne[0], (long long)info->block, info->label);
    bool fits = true;
    for (int d = 1; d < 4; d++) fits = fits && tt__mul_u64(rows, t->ne[d], &rows);
    fits = fits && tt__mul_u64(rows, row, &t->bytes) && t->bytes <= INT64_MAX;
    TT_FAIL_IF(!fits, r->err, TT_BADFILE, "tensor too large|%s, tensor %s|%llu x %llu x %llu x %llu %s|a size that a file can have|", r->path, t->name,
               (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)t->ne[2], (unsigned long long)t->ne[3], info->label);
    return TT_OK;
}

static tt_status read_tensor(reader *r, tt_gguf *g, uint64_t align, tt_gguf_tensor *t) {
    const char *name, *label;
    uint64_t n;
    uint32_t dims, type;
    TT_TRY(take_string(r, TT_LIMIT_GGUF_NAME, "GGUF_NAME", "tensor name", &name, &n));
    TT_FAIL_IF(!tt__name_ok(name, (size_t)n), r->err, TT_BADFILE, "bad tensor name|%s, offset %llu||text without control bytes|", r->path, (unsigned long long)(r->at - n));
    t->name = tt__arena_strndup(&g->arena, name, (size_t)n);
    TT_FAIL_IF(!t->name, r->err, TT_RESOURCE, "out of memory|for the tensor names of %s", r->path);
    TT_TRY(take_u32(r, "tensor dimensions", &dims));
    TT_FAIL_IF(dims < 1 || dims > 4, r->err, TT_BADFILE, "bad number of dimensions|%s, tensor %s|%u|1 to 4|", r->path, t->name, dims);
    t->n_dims = (int)dims;
    for (uint32_t d = 0; d < 4; d++) {
        t->ne[d] = 1;
        if (d >= dims) continue;
        TT_TRY(take_u64(r, "tensor dimensions", &t->ne[d]));
        TT_FAIL_IF(t->ne[d] < 1 || t->ne[d] > TT_LIMIT_DIM, r->err, TT_BADFILE, "bad dimension|%s, tensor %s|%llu|1 to %llu (limit DIM)|", r->path, t->name,
                   (unsigned long long)t->ne[d], (unsigned long long)TT_LIMIT_DIM);
    }
    TT_TRY(take_u32(r, "tensor type", &type));
    TT_FAIL_IF(!tt__dtype_from_gguf(type, &t->type, &label), r->err, TT_BADFILE, "tensor type not supported|%s, tensor %s|%s|F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL|",
               r->path, t->name, label);
    TT_TRY(take_u64(r, "tensor offset", &t->offset));
    TT_FAIL_IF(t->offset % align != 0, r->err, TT_BADFILE, "tensor offset not aligned|%s, tensor %s|%llu|a multiple of %llu|", r->path, t->name,
               (unsigned long long)t->offset, (unsigned long long)align);
    return tensor_size(r, t);
}

static int by_offset(const void *a, const void *b) {
    uint64_t x = (*(tt_gguf_tensor *const *)a)->offset, y = (*(tt_gguf_tensor *const *)b)->offset;
    return x < y ? -1 : x > y;
}

/* The bytes between two tensors: less than one alignment step, all zero (F12). */
static tt_status check_gap(const shard *s, const char *path, uint64_t from, uint64_t to, const char *where, tt_err *err) {
    TT_FAIL_IF(to - from >= s->align, err, TT_BADFILE, "unused bytes between tensors|%s, %s|%llu bytes|padding of less than %llu|", path, where,
               (unsigned long long)(to - from), (unsigned long long)s->align);
    for (uint64_t i = from; i < to; i++)
        TT_FAIL_IF(s->bytes[s->data_at + i], err, TT_BADFILE, "padding is not zero|%s, %s|||", path, where);
    return TT_OK;
}

/* In order of offset the tensors of a shard cover its data: inside the file (F6), no overlap, no hidden bytes. */
static tt_status check_coverage(const shard *s, const char *path, tt_gguf_tensor *first, size_t n, tt_err *err) {
    tt_gguf_tensor **order;
    uint64_t at = 0, size = s->size - s->data_at;
    tt_status st = TT_OK;
    TT_TRY(tt__new(&order, n, sizeof *order, "tensor order", err));
    for (size_t i = 0; i < n; i++) order[i] = first + i;
    if (n > 1) qsort(order, n, sizeof *order, by_offset);
    for (size_t i = 0; i < n; i++) {
        tt_gguf_tensor *t = order[i];
        if (t->offset > size || t->bytes > size - t->offset)
            st = tt__fail(err, TT_BADFILE, "tensor reaches beyond the file|%s, tensor %s|offset %llu + %llu bytes|%llu bytes of data|is the download complete?", path,
                          t->name, (unsigned long long)t->offset, (unsigned long long)t->bytes, (unsigned long long)size);
        else if (t->offset < at)
            st = tt__fail(err, TT_BADFILE, "tensors overlap|%s, tensor %s|offset %llu|%llu or more|", path, t->name, (unsigned long long)t->offset, (unsigned long long)at);
        else st = check_gap(s, path, at, t->offset, t->name, err);
        if (st != TT_OK) break;
        at = t->offset + t->bytes;
        t->data = s->bytes + s->data_at + t->offset;
    }
    if (st == TT_OK) st = check_gap(s, path, at, size, "end of the file", err);
    tt__free(order);
    return st;
}

static tt_status grow_tensors(tt_gguf *g, size_t more, tt_err *err) {
    tt_gguf_tensor *t = tt__realloc(g->tensors, tt__array_bytes(g->n_tensors + more, sizeof *t));
    TT_FAIL_IF(!t, err, TT_RESOURCE, "out of memory|for %zu tensors", g->n_tensors + more);
    memset(t + g->n_tensors, 0, more * sizeof *t);
    g->tensors = t;
    return TT_OK;
}

static tt_status read_tensors(reader *r, tt_gguf *g, shard *s, uint64_t n) {
    TT_FAIL_IF(n > TT_LIMIT_GGUF_TENSORS || g->n_tensors + n > TT_LIMIT_GGUF_TENSORS, r->err, TT_BADFILE, "too many tensors|%s|%llu|at most %llu (limit GGUF_TENSORS)|", r->path,
               (unsigned long long)n, (unsigned long long)TT_LIMIT_GGUF_TENSORS);
    if (n > (r->size - r->at) / 33) return cut_short(r, "tensor descriptions", n * 33);            /* 8 + 1 + 4 + 8 + 4 + 8 bytes at least */
    TT_TRY(grow_tensors(g, (size_t)n, r->err));
    size_t first = g->n_tensors;
    for (uint64_t i = 0; i < n; i++) TT_TRY(read_tensor(r, g, s->align, &g->tensors[first + i]));
    TT_FAIL_IF(r->at > TT_LIMIT_GGUF_META, r->err, TT_BADFILE, "metadata too large|%s||at most %llu bytes (limit GGUF_META)|", r->path, (unsigned long long)TT_LIMIT_GGUF_META);
    TT_FAIL_IF(!tt__align_up_u64(r->at, s->align, &s->data_at), r->err, TT_BADFILE, "data begins beyond the file|%s", r->path);
    if (n == 0 && s->data_at > s->size) s->data_at = s->size;                                       /* a file of metadata only need not be padded */
    TT_FAIL_IF(s->data_at > s->size, r->err, TT_BADFILE, "file ends before its data|%s|%llu bytes|more than %llu|is the download complete?", r->path,
               (unsigned long long)s->size, (unsigned long long)s->data_at);
    for (uint64_t i = r->at; i < s->data_at; i++)
        TT_FAIL_IF(s->bytes[i], r->err, TT_BADFILE, "padding is not zero|%s, before the data|||", r->path);
    TT_TRY(check_coverage(s, r->path, g->tensors + first, (size_t)n, r->err));
    g->n_tensors += (size_t)n;
    return TT_OK;
}

/* ---- one file ---- */

static tt_status read_header(reader *r, uint64_t *n_tensors, uint64_t *n_kv) {
    const uint8_t *magic;
    uint32_t version;
    TT_FAIL_IF(r->size < 4 || memcmp(r->bytes, "GGUF", 4) != 0, r->err, TT_BADFILE, "not a GGUF file|%s|other first bytes|\"GGUF\"|", r->path);
    TT_TRY(take(r, 4, "magic", &magic));
    TT_TRY(take_u32(r, "version", &version));
    TT_FAIL_IF(version == 0x02000000u || version == 0x03000000u, r->err, TT_BADFILE, "big-endian GGUF is not supported|%s||little-endian|convert it on the machine it was made for", r->path);
    TT_FAIL_IF(version < 2 || version > 3, r->err, TT_BADFILE, "GGUF version not supported|%s|%u|2 or 3|", r->path, version);
    TT_TRY(take_u64(r, "tensor count", n_tensors));
    return take_u64(r, "key count", n_kv);
}

/* general.alignment has to be a u32, a power of two from 8 (F5). */
static tt_status read_alignment(const tt_gguf *g, const char *path, uint64_t *align, tt_err *err) {
    size_t i = tt__names_find(g->kv_names, g->n_kv, "general.alignment");
    *align = 32;
    if (i == SIZE_MAX) return TT_OK;
    const tt_gguf_kv *kv = &g->kv[i];
    TT_FAIL_IF(kv->type != TT_GGUF_U32, err, TT_BADFILE, "wrong type of metadata|%s, key general.alignment|%s|u32|", path, tt__gguf_type_name(kv->type));
    *align = tt__rd32(kv->value);
    TT_FAIL_IF(*align < 8 || *align > TT_LIMIT_GGUF_ALIGN || (*align & (*align - 1)), err, TT_BADFILE,
               "bad alignment|%s, key general.alignment|%llu|a power of two from 8 to %llu (limit GGUF_ALIGN)|", path, (unsigned long long)*align,
               (unsigned long long)TT_LIMIT_GGUF_ALIGN);
    return TT_OK;
}

static tt_status read_split(const tt_gguf *g, shard *s, tt_err *err) {
    int64_t no = 0, count = 1, tensors = -1;
    TT_TRY(tt__gguf_i64(g, "split.no", false, 0, (int64_t)TT_LIMIT_ST_SHARDS - 1, &no, err));
    TT_TRY(tt__gguf_i64(g, "split.count", false, 0, (int64_t)TT_LIMIT_ST_SHARDS, &count, err));
    TT_TRY(tt__gguf_i64(g, "split.tensors.count", false, 0, (int64_t)TT_LIMIT_GGUF_TENSORS, &tensors, err));
    s->split_no = (uint64_t)no;
    s->split_count = count > 1 ? (uint64_t)count : 1;
    s->split_tensors = tensors >= 0 ? (uint64_t)tensors : UINT64_MAX;
    return TT_OK;
}

/* Parses one shard; its metadata goes into g (whose kv must be empty), its tensors behind those already there. */
static tt_status parse(tt_gguf *g, shard *s, const char *path, tt_err *err) {
    reader r = {s->bytes, s->size, 0, path, err};
    uint64_t n_tensors, n_kv;
    TT_TRY(read_header(&r, &n_tensors, &n_kv));
    TT_TRY(read_kvs(&r, g, n_kv));
    TT_TRY(read_alignment(g, path, &s->align, err));
    TT_TRY(read_split(g, s, err));
    return read_tensors(&r, g, s, n_tensors);
}

static tt_status index_tensors(tt_gguf *g, tt_err *err) {
    TT_TRY(tt__new(&g->tensor_names, g->n_tensors, sizeof *g->tensor_names, "tensor names", err));
    for (size_t i = 0; i < g->n_tensors; i++) g->tensor_names[i] = (tt__name){g->tensors[i].name, i};
    return index_names(g->tensor_names, g->n_tensors, "tensor name", g->path, err);
}

/* ---- shards: NAME-00001-of-0000N.gguf ---- */

/* Length of NAME when path ends in "-%05u-of-%05u.gguf" with these numbers, else 0. */
static size_t shard_stem(const char *path, uint64_t no, uint64_t count) {
    char tail[40];
    int n = snprintf(tail, sizeof tail, "-%05llu-of-%05llu.gguf", (unsigned long long)no + 1, (unsigned long long)count);
    size_t len = strlen(path);
    return n > 0 && len > (size_t)n && strcmp(path + len - (size_t)n, tail) == 0 ? len - (size_t)n : 0;
}

/* Opens shard `no` beside the first; only its tensors are kept, its metadata must agree on the split. */
static tt_status open_shard(tt_gguf *g, size_t stem, uint64_t no, tt_err *err) {
    shard *s = &g->shards[no];
    tt__str path = {0};
    tt_gguf own = {0};
    tt_status st = TT_OK;
    tt__str_printf(&path, "%.*s-%05llu-of-%05llu.gguf", (int)stem, g->path, (unsigned long long)no + 1, (unsigned long long)g->n_shards);
    if (path.failed) st = tt__fail(err, TT_RESOURCE, "out of memory|for a path");
    if (st == TT_OK) st = tt__map_open(path.s, &s->map, err);
    if (st != TT_OK) goto done;
    s->bytes = s->map.data, s->size = s->map.size;
    /* parse into the same tensor list and arena, with metadata of its own */
    own = (tt_gguf){.arena = g->arena, .tensors = g->tensors, .n_tensors = g->n_tensors};
    st = parse(&own, s, path.s, err);
    g->arena = own.arena, g->tensors = own.tensors, g->n_tensors = own.n_tensors;
    if (st == TT_OK && (s->split_no != no || s->split_count != g->n_shards))
        st = tt__fail(err, TT_BADFILE, "shard does not belong here|%s|part %llu of %llu|part %llu of %zu|", path.s, (unsigned long long)s->split_no + 1,
                      (unsigned long long)s->split_count, (unsigned long long)no + 1, g->n_shards);
done:
    tt__free(own.kv);
    tt__free(own.kv_names);
    tt__str_free(&path);
    return st;
}

static tt_status open_further_shards(tt_gguf *g, tt_err *err) {
    uint64_t count = g->shards[0].split_count;
    if (count <= 1) return TT_OK;
    TT_FAIL_IF(g->shards[0].split_no != 0, err, TT_BADFILE, "not the first part of a split model|%s|part %llu of %llu|part 1|open the file named -00001-of-%05llu.gguf",
               g->path, (unsigned long long)g->shards[0].split_no + 1, (unsigned long long)count, (unsigned long long)count);
    size_t stem = shard_stem(g->path, 0, count);
    TT_FAIL_IF(stem == 0 || stem > INT32_MAX, err, TT_BADFILE, "split model under a name without its number|%s||NAME-00001-of-%05llu.gguf|", g->path, (unsigned long long)count);
    shard *all = tt__realloc(g->shards, tt__array_bytes((size_t)count, sizeof *all));
    TT_FAIL_IF(!all, err, TT_RESOURCE, "out of memory|for %llu shards", (unsigned long long)count);
    memset(all + 1, 0, ((size_t)count - 1) * sizeof *all);
    g->shards = all;
    g->n_shards = (size_t)count;
    for (uint64_t no = 1; no < count; no++) TT_TRY(open_shard(g, stem, no, err));
    uint64_t want = g->shards[0].split_tensors;
    TT_FAIL_IF(want != UINT64_MAX && want != g->n_tensors, err, TT_BADFILE, "shards miss tensors|%s|%zu|%llu|", g->path, g->n_tensors, (unsigned long long)want);
    return TT_OK;
}

/* ---- opening ---- */

static tt_status create(const char *path, tt_gguf **out, tt_err *err) {
    tt_gguf *g;
    *out = NULL;
    TT_TRY(tt__new(&g, 1, sizeof *g, "a GGUF file", err));
    g->path = tt__strdup(path);
    g->shards = tt__calloc(1, sizeof *g->shards);
    if (!g->path || !g->shards) {
        tt__gguf_close(g);
        return tt__fail(err, TT_RESOURCE, "out of memory|for a GGUF file");
    }
    g->n_shards = 1;
    *out = g;
    return TT_OK;
}

static tt_status finish_open(tt_gguf *g, tt_status st, tt_gguf **out, tt_err *err) {
    if (st == TT_OK) st = index_tensors(g, err);
    if (st == TT_OK) *out = g;
    else tt__gguf_close(g);
    return st;
}

tt_status tt__gguf_open(const char *path, tt_gguf **out, tt_err *err) {
    tt_gguf *g;
    *out = NULL;
    TT_TRY(create(path, &g, err));
    shard *s = &g->shards[0];
    tt_status st = tt__map_open(path, &s->map, err);
    if (st == TT_OK) {
        s->bytes = s->map.data, s->size = s->map.size;
        st = parse(g, s, path, err);
    }
    if (st == TT_OK) st = open_further_shards(g, err);
    return finish_open(g, st, out, err);
}

tt_status tt__gguf_open_memory(const void *data, size_t size, const char *name, tt_gguf **out, tt_err *err) {
    tt_gguf *g;
    *out = NULL;
    TT_TRY(create(name, &g, err));
    shard *s = &g->shards[0];
    s->bytes = data, s->size = size;
    tt_status st = parse(g, s, name, err);
    if (st == TT_OK && s->split_count > 1) st = tt__fail(err, TT_BADFILE, "split model in memory|%s|%llu parts|one|", name, (unsigned long long)s->split_count);
    return finish_open(g, st, out, err);
}

bool tt__gguf_identity(const tt_gguf *g, uint64_t *file, uint64_t *contents) {
    *contents = g->n_shards;
    for (size_t i = 0; i < g->n_shards; i++) {
        const shard *s = &g->shards[i];
        if (!s->map.data) return false;
        const uint64_t which = tt__hash_mix(s->map.dev, s->map.ino), meta = s->data_at < s->size ? s->data_at : s->size;
        if (i == 0) *file = which;
        *contents = tt__hash_mix(tt__hash_mix(tt__hash_mix(tt__hash_mix(*contents, which), s->map.size), s->map.mtime_ns), tt__hash64(s->bytes, (size_t)meta, i));
    }
    return g->n_shards > 0;
}

bool tt__gguf_offset(const tt_gguf *g, const void *data, uint64_t *offset) {
    const tt__map *map = &g->shards[0].map;
    if (g->n_shards != 1 || !map->data || (uintptr_t)data < (uintptr_t)map->data || (uintptr_t)data - (uintptr_t)map->data >= map->size) return false;
    *offset = (uintptr_t)data - (uintptr_t)map->data;
    return true;
}

void tt__gguf_release(const tt_gguf *g, const void *data, uint64_t bytes) {
    const uintptr_t at = (uintptr_t)data;
    for (size_t i = 0; i < g->n_shards; i++) {
        const tt__map *map = &g->shards[i].map;
        if (map->data && at >= (uintptr_t)map->data && at - (uintptr_t)map->data < map->size) tt__map_release(map, at - (uintptr_t)map->data, bytes);
    }
}

void tt__gguf_close(tt_gguf *g) {
    if (!g) return;
    for (size_t i = 0; i < g->n_shards; i++)
        if (g->shards[i].map.data) tt__map_close(&g->shards[i].map);
    tt__arena_free(&g->arena);
    tt__free(g->shards);
    tt__free(g->kv);
    tt__free(g->kv_names);
    tt__free(g->tensors);
    tt__free(g->tensor_names);
    tt__free(g->path);
    tt__free(g);
}

/* ---- asking ---- */

const char *tt__gguf_path(const tt_gguf *g) { return g->path; }
size_t tt__gguf_n_tensors(const tt_gguf *g) { return g->n_tensors; }
const tt_gguf_tensor *tt__gguf_tensor(const tt_gguf *g, size_t i) { return i < g->n_tensors ? &g->tensors[i] : NULL; }
const tt_gguf_tensor *tt__gguf_find(const tt_gguf *g, const char *name) {
    size_t i = tt__names_find(g->tensor_names, g->n_tensors, name);
    return i == SIZE_MAX ? NULL : &g->tensors[i];
}

size_t tt__gguf_n_kv(const tt_gguf *g) { return g->n_kv; }
const tt_gguf_kv *tt__gguf_kv_at(const tt_gguf *g, size_t i) { return &g->kv[i]; }
const char *tt__gguf_kv_key(const tt_gguf *g, size_t i, tt_gguf_type *type, tt_gguf_type *element, uint64_t *count) {
    const tt_gguf_kv *kv = &g->kv[i];
    if (type) *type = kv->type;
    if (element) *element = kv->element;
    if (count) *count = kv->type == TT_GGUF_STRING ? 1 : kv->count;
    return kv->key;
}
static const tt_gguf_kv *find_kv(const tt_gguf *g, const char *key) {
    size_t i = tt__names_find(g->kv_names, g->n_kv, key);
    return i == SIZE_MAX ? NULL : &g->kv[i];
}
bool tt__gguf_has(const tt_gguf *g, const char *key) { return find_kv(g, key) != NULL; }

static tt_status wrong_type(const tt_gguf *g, const tt_gguf_kv *kv, const char *expected, tt_err *err) {
    bool array = kv->type == TT_GGUF_ARRAY;
    return tt__fail(err, TT_BADFILE, "wrong type of metadata|%s, key %s|%s%s|%s|", g->path, kv->key, array ? "array of " : "", tt__gguf_type_name(kv->element), expected);
}
/* *kv = NULL and TT_OK when the key is missing and not required. */
static tt_status want(const tt_gguf *g, const char *key, bool required, const tt_gguf_kv **kv, tt_err *err) {
    *kv = find_kv(g, key);
    TT_FAIL_IF(!*kv && required, err, TT_BADFILE, "missing metadata|%s|no key %s||", g->path, key);
    return TT_OK;
}

static bool is_integer(tt_gguf_type t) { return t <= TT_GGUF_I32 || t == TT_GGUF_U64 || t == TT_GGUF_I64; }

/* Element of any integer type at p; false when a u64 does not fit. */
static bool read_integer(tt_gguf_type t, const uint8_t *p, int64_t *out) {
    switch (t) {
    case TT_GGUF_U8: *out = *p; return true;
    case TT_GGUF_I8: *out = (int8_t)*p; return true;
    case TT_GGUF_U16: *out = tt__rd16(p); return true;
    case TT_GGUF_I16: *out = (int16_t)tt__rd16(p); return true;
    case TT_GGUF_U32: *out = tt__rd32(p); return true;
    case TT_GGUF_I32: *out = (int32_t)tt__rd32(p); return true;
    case TT_GGUF_I64: *out = (int64_t)tt__rd64(p); return true;
    default: return tt__to_i64(tt__rd64(p), out);
    }
}
static double read_f64(const uint8_t *p) {
    double v;
    memcpy(&v, p, sizeof v);
    return v;
}

tt_status tt__gguf_i64(const tt_gguf *g, const char *key, bool required, int64_t min, int64_t max, int64_t *out, tt_err *err) {
    const tt_gguf_kv *kv;
    int64_t v = 0;
    TT_TRY(want(g, key, required, &kv, err));
    if (!kv) return TT_OK;
    if (!is_integer(kv->type)) return wrong_type(g, kv, "an integer", err);
    bool fits = read_integer(kv->type, kv->value, &v);
    TT_FAIL_IF(!fits || v < min || v > max, err, TT_BADFILE, "metadata out of range|%s, key %s|%s%lld|%lld to %lld|", g->path, key, fits ? "" : "more than ",
               fits ? (long long)v : (long long)INT64_MAX, (long long)min, (long long)max);
    *out = v;
    return TT_OK;
}

tt_status tt__gguf_f64(const tt_gguf *g, const char *key, bool required, double *out, tt_err *err) {
    const tt_gguf_kv *kv;
    TT_TRY(want(g, key, required, &kv, err));
    if (!kv) return TT_OK;
    if (kv->type != TT_GGUF_F32 && kv->type != TT_GGUF_F64) return wrong_type(g, kv, "a float", err);
    double v = kv->type == TT_GGUF_F32 ? (double)tt__rdf32(kv->value) : read_f64(kv->value);
    TT_FAIL_IF(!isfinite(v), err, TT_BADFILE, "metadata not finite|%s, key %s|%g|a finite number|", g->path, key, v);
    *out = v;
    return TT_OK;
}

tt_status tt__gguf_bool(const tt_gguf *g, const char *key, bool required, bool *out, tt_err *err) {
    const tt_gguf_kv *kv;
    TT_TRY(want(g, key, required, &kv, err));
    if (!kv) return TT_OK;
    if (kv->type != TT_GGUF_BOOL) return wrong_type(g, kv, "bool", err);
    *out = *kv->value != 0;
    return TT_OK;
}

tt_status tt__gguf_str(const tt_gguf *g, const char *key, bool required, const char **out, size_t *n, tt_err *err) {
    const tt_gguf_kv *kv;
    TT_TRY(want(g, key, required, &kv, err));
    if (!kv) return TT_OK;
    if (kv->type != TT_GGUF_STRING) return wrong_type(g, kv, "string", err);
    *out = (const char *)kv->value;
    *n = (size_t)kv->count;
    return TT_OK;
}

tt_status tt__gguf_i32s(const tt_gguf *g, const char *key, bool required, int32_t **out, size_t *n, tt_err *err) {
    const tt_gguf_kv *kv;
    int32_t *values;
    TT_TRY(want(g, key, required, &kv, err));
    if (!kv) return TT_OK;
    if (kv->type != TT_GGUF_ARRAY || !is_integer(kv->element)) return wrong_type(g, kv, "array of integers", err);
    TT_TRY(tt__new(&values, (size_t)kv->count, sizeof *values, key, err));
    for (uint64_t i = 0; i < kv->count; i++) {
        int64_t v = 0;
        bool fits = read_integer(kv->element, kv->value + i * tt__gguf_type_bytes(kv->element), &v) && v >= INT32_MIN && v <= INT32_MAX;
        if (!fits) {
            tt__free(values);
            return tt__fail(err, TT_BADFILE, "metadata out of range|%s, key %s, element %llu||a 32-bit integer|", g->path, key, (unsigned long long)i);
        }
        values[i] = (int32_t)v;
    }
    *out = values;
    *n = (size_t)kv->count;
    return TT_OK;
}

tt_status tt__gguf_f32s(const tt_gguf *g, const char *key, bool required, float **out, size_t *n, tt_err *err) {
    const tt_gguf_kv *kv;
    float *values;
    TT_TRY(want(g, key, required, &kv, err));
    if (!kv) return TT_OK;
    if (kv->type != TT_GGUF_ARRAY || (kv->element != TT_GGUF_F32 && kv->element != TT_GGUF_F64)) return wrong_type(g, kv, "array of floats", err);
    TT_TRY(tt__new(&values, (size_t)kv->count, sizeof *values, key, err));
    tt__dtype_decode(kv->element == TT_GGUF_F32 ? TT_F32 : TT_F64, kv->value, values, (int64_t)kv->count);
    *out = values;
    *n = (size_t)kv->count;
    return TT_OK;
}

tt_status tt__gguf_strs(const tt_gguf *g, const char *key, bool required, size_t *n, tt_err *err) {
    const tt_gguf_kv *kv;
    TT_TRY(want(g, key, required, &kv, err));
    if (!kv) return TT_OK;
    if (kv->type != TT_GGUF_ARRAY || kv->element != TT_GGUF_STRING) return wrong_type(g, kv, "array of strings", err);
    *n = (size_t)kv->count;
    return TT_OK;
}

static const char *string_at(const tt_gguf_kv *kv, size_t i, size_t *bytes) {
    const uint8_t *p = kv->value + kv->offsets[i];
    *bytes = (size_t)tt__rd64(p);            /* compared with the file when it was indexed */
    return (const char *)p + 8;
}

tt_status tt__gguf_strs_at(const tt_gguf *g, const char *key, size_t i, const char **out, size_t *bytes, tt_err *err) {
    const tt_gguf_kv *kv;
    TT_TRY(want(g, key, true, &kv, err));
    if (kv->type != TT_GGUF_ARRAY || kv->element != TT_GGUF_STRING) return wrong_type(g, kv, "array of strings", err);
    TT_FAIL_IF(i >= kv->count, err, TT_BADFILE, "metadata array too short|%s, key %s|%llu elements|more than %zu|", g->path, key, (unsigned long long)kv->count, i);
    *out = string_at(kv, i, bytes);
    return TT_OK;
}

/* ---- for people ---- */

/* "text" with \n, \t, \", \\ and \xNN for other control bytes. */
static void add_quoted(tt__str *b, const char *s, size_t n) {
    tt__str_puts(b, "\"");
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)s[i];
        if (c == '\n') tt__str_puts(b, "\\n");
        else if (c == '\t') tt__str_puts(b, "\\t");
        else if (c == '"' || c == '\\') tt__str_printf(b, "\\%c", c);
        else if (c < 0x20 || c == 0x7f) tt__str_printf(b, "\\x%02x", c);
        else tt__str_add(b, s + i, 1);
    }
    tt__str_puts(b, "\"");
}

static void add_scalar(tt__str *b, tt_gguf_type t, const uint8_t *p) {
    int64_t v;
    if (t == TT_GGUF_BOOL) tt__str_puts(b, *p ? "true" : "false");
    else if (t == TT_GGUF_F32) tt__str_printf(b, "%.9g", (double)tt__rdf32(p));
    else if (t == TT_GGUF_F64) tt__str_printf(b, "%.17g", read_f64(p));
    else if (t == TT_GGUF_U64) tt__str_printf(b, "%llu", (unsigned long long)tt__rd64(p));
    else if (read_integer(t, p, &v)) tt__str_printf(b, "%lld", (long long)v);
}

tt_status tt__gguf_kv_text(const tt_gguf *g, size_t i, size_t max_items, char **out, tt_err *err) {
    const tt_gguf_kv *kv = &g->kv[i];
    tt__str b = {0};
    *out = NULL;
    if (kv->type == TT_GGUF_STRING) add_quoted(&b, (const char *)kv->value, (size_t)kv->count);
    else if (kv->type != TT_GGUF_ARRAY) add_scalar(&b, kv->type, kv->value);
    else {
        tt__str_puts(&b, "[");
        for (uint64_t k = 0; k < kv->count && k < max_items; k++) {
            if (k) tt__str_puts(&b, ", ");
            size_t n;
            const char *s;
            if (kv->element == TT_GGUF_STRING) {
                s = string_at(kv, (size_t)k, &n);
                add_quoted(&b, s, n);
            } else add_scalar(&b, kv->element, kv->value + k * tt__gguf_type_bytes(kv->element));
        }
        if (kv->count > max_items) tt__str_printf(&b, "%s… %llu in all", max_items ? ", " : "", (unsigned long long)kv->count);
        tt__str_puts(&b, "]");
    }
    if (b.failed || !b.s) {
        tt__str_free(&b);
        return tt__fail(err, TT_RESOURCE, "out of memory|for the text of %s", kv->key);
    }
    *out = b.s;
    return TT_OK;
}
