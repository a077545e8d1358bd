/* Writing GGUF v3: metadata and tensors are collected, then streamed beside the target and renamed into place.
 *
 * A key-value pair is kept as the bytes that will lie in the file (type word and value), so that pairs copied from another file,
 * known or not, come out as they went in. Tensors lie back to back in listing order, each padded to the alignment.
 */
#include "base/checked.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/util.h"
#include "formats/gguf_file.h"
#include "formats/names.h"


typedef struct kv_out { char *key; size_t key_n; uint8_t *bytes; size_t n; } kv_out;   /* bytes: u32 type, value */
typedef struct tensor_out {
    char *name;
    tt_dtype type;
    int n_dims;
    uint64_t ne[4], offset, bytes;
    const void *data;
    tt_gguf_produce produce;
    void *user;
} tensor_out;

/* data_bytes = padded size of all tensors so far = offset of the next one */
struct tt_gguf_writer {
    kv_out *kv;
    size_t n_kv, cap_kv;
    tensor_out *tensors;
    size_t n_tensors, cap_tensors;
    uint64_t data_bytes, align;
};

tt_status tt__gguf_writer_create(tt_gguf_writer **out, tt_err *err) {
    TT_TRY(tt__new(out, 1, sizeof **out, "a GGUF writer", err));
    (*out)->align = 32;
    return TT_OK;
}

void tt__gguf_writer_free(tt_gguf_writer *w) {
    if (!w) return;
    for (size_t i = 0; i < w->n_kv; i++) {
        tt__free(w->kv[i].key);
        tt__free(w->kv[i].bytes);
    }
    for (size_t i = 0; i < w->n_tensors; i++) tt__free(w->tensors[i].name);
    tt__free(w->kv);
    tt__free(w->tensors);
    tt__free(w);
}

/* Room for one more element in a doubling list. */
static tt_status reserve(void *list, size_t n, size_t *cap, size_t size, const char *what, tt_err *err) {
    void *old, *grown;
    if (n < *cap) return TT_OK;
    memcpy(&old, list, sizeof old);
    size_t want = *cap ? 2 * *cap : 32;
    grown = tt__realloc(old, tt__array_bytes(want, size));
    TT_FAIL_IF(!grown, err, TT_RESOURCE, "out of memory|for %s", what);
    memcpy(list, &grown, sizeof grown);
    *cap = want;
    return TT_OK;
}

/* ---- metadata ---- */

/* Takes `bytes` (also on failure). A key that is there already is replaced in place. */
static tt_status put(tt_gguf_writer *w, const char *key, size_t key_n, uint8_t *bytes, size_t n, tt_err *err) {
    for (size_t i = 0; i < w->n_kv; i++) {
        if (w->kv[i].key_n != key_n || memcmp(w->kv[i].key, key, key_n) != 0) continue;
        tt__free(w->kv[i].bytes);
        w->kv[i].bytes = bytes;
        w->kv[i].n = n;
        return TT_OK;
    }
    tt_status st = tt__name_ok(key, key_n) && key_n <= TT_LIMIT_GGUF_KEY ? TT_OK : tt__fail(err, TT_FAIL, "bad metadata key|%.60s", key);
    if (st == TT_OK && w->n_kv >= TT_LIMIT_GGUF_KV) st = tt__fail(err, TT_FAIL, "too many metadata keys|%s||at most %llu", key, (unsigned long long)TT_LIMIT_GGUF_KV);
    if (st == TT_OK) st = reserve(&w->kv, w->n_kv, &w->cap_kv, sizeof *w->kv, "metadata", err);
    char *name = st == TT_OK ? tt__strndup(key, key_n) : NULL;
    if (st == TT_OK && !name) st = tt__fail(err, TT_RESOURCE, "out of memory|for metadata key %s", key);
    if (st != TT_OK) {
        tt__free(bytes);
        return st;
    }
    w->kv[w->n_kv++] = (kv_out){name, key_n, bytes, n};
    return TT_OK;
}

/* type word and `n` bytes of value */
static tt_status put_value(tt_gguf_writer *w, const char *key, uint32_t type, const void *value, size_t n, tt_err *err) {
    uint8_t *bytes = n <= SIZE_MAX - 4 ? tt__alloc(4 + n) : NULL;
    TT_FAIL_IF(!bytes, err, TT_RESOURCE, "out of memory|for metadata key %s", key);
    memcpy(bytes, &type, 4);
    if (n) memcpy(bytes + 4, value, n);
    return put(w, key, strlen(key), bytes, 4 + n, err);
}

/* type array, element type, count, `bytes` of elements */
static tt_status put_array(tt_gguf_writer *w, const char *key, uint32_t element, uint64_t count, const void *data, size_t n, tt_err *err) {
    uint32_t type = TT_GGUF_ARRAY;
    uint8_t *bytes = n <= SIZE_MAX - 16 ? tt__alloc(16 + n) : NULL;
    TT_FAIL_IF(!bytes, err, TT_RESOURCE, "out of memory|for metadata key %s", key);
    memcpy(bytes, &type, 4);
    memcpy(bytes + 4, &element, 4);
    memcpy(bytes + 8, &count, 8);
    if (n) memcpy(bytes + 16, data, n);
    return put(w, key, strlen(key), bytes, 16 + n, err);
}

tt_status tt__gguf_set_u32(tt_gguf_writer *w, const char *key, uint32_t v, tt_err *err) { return put_value(w, key, TT_GGUF_U32, &v, 4, err); }
tt_status tt__gguf_set_u64(tt_gguf_writer *w, const char *key, uint64_t v, tt_err *err) { return put_value(w, key, TT_GGUF_U64, &v, 8, err); }
tt_status tt__gguf_set_f32(tt_gguf_writer *w, const char *key, float v, tt_err *err) { return put_value(w, key, TT_GGUF_F32, &v, 4, err); }
tt_status tt__gguf_set_bool(tt_gguf_writer *w, const char *key, bool v, tt_err *err) {
    uint8_t b = v;
    return put_value(w, key, TT_GGUF_BOOL, &b, 1, err);
}
tt_status tt__gguf_set_i32s(tt_gguf_writer *w, const char *key, const int32_t *v, size_t n, tt_err *err) {
    return put_array(w, key, TT_GGUF_I32, n, v, tt__array_bytes(n, 4), err);
}
tt_status tt__gguf_set_f32s(tt_gguf_writer *w, const char *key, const float *v, size_t n, tt_err *err) {
    return put_array(w, key, TT_GGUF_F32, n, v, tt__array_bytes(n, 4), err);
}

static void add_string(tt__str *b, const char *s, size_t n) {
    uint64_t n64 = n;
    tt__str_add(b, (const char *)&n64, 8);
    tt__str_add(b, s, n);
}

tt_status tt__gguf_set_str(tt_gguf_writer *w, const char *key, const char *value, tt_err *err) {
    tt__str b = {0};
    add_string(&b, value, strlen(value));
    tt_status st = b.failed ? tt__fail(err, TT_RESOURCE, "out of memory|for metadata key %s", key) : put_value(w, key, TT_GGUF_STRING, b.s, b.n, err);
    tt__str_free(&b);
    return st;
}

tt_status tt__gguf_set_strs(tt_gguf_writer *w, const char *key, const char *const *values, const size_t *lengths, size_t n, tt_err *err) {
    tt__str b = {0};
    for (size_t i = 0; i < n && !b.failed; i++) add_string(&b, values[i], lengths ? lengths[i] : strlen(values[i]));
    tt_status st = b.failed ? tt__fail(err, TT_RESOURCE, "out of memory|for metadata key %s", key) : put_array(w, key, TT_GGUF_STRING, n, b.s, b.n, err);
    tt__str_free(&b);
    return st;
}

static bool has_prefix(const char *s, const char *const *prefixes) {
    for (; prefixes && *prefixes; prefixes++)
        if (strncmp(s, *prefixes, strlen(*prefixes)) == 0) return true;
    return false;
}

tt_status tt__gguf_writer_copy_kv(tt_gguf_writer *w, const tt_gguf *g, const char *const *skip, tt_err *err) {
    static const char *const always[] = {"split.", NULL};
    for (size_t i = 0; i < tt__gguf_n_kv(g); i++) {
        const tt_gguf_kv *kv = tt__gguf_kv_at(g, i);
        if (has_prefix(kv->key, always) || has_prefix(kv->key, skip) || strcmp(kv->key, "general.alignment") == 0) continue;
        TT_TRY(put_value(w, kv->key, (uint32_t)kv->type, kv->raw, (size_t)kv->raw_bytes, err));
    }
    return TT_OK;
}

/* ---- tensors ---- */

/* Bytes of a tensor: rows × bytes of a row. */
static bool tensor_bytes(tt_dtype type, const uint64_t ne[4], uint64_t *bytes) {
    uint64_t rows = 1;
    for (int d = 1; d < 4; d++)
        if (!tt__mul_u64(rows, ne[d], &rows)) return false;
    return tt__dtype_bytes(type, ne[0], bytes) && tt__mul_u64(*bytes, rows, bytes);
}

tt_status tt__gguf_add_tensor(tt_gguf_writer *w, const char *name, tt_dtype type, int n_dims, const uint64_t *ne, const void *data,
                              tt_gguf_produce produce, void *user, tt_err *err) {
    tensor_out t = {.type = type, .n_dims = n_dims, .ne = {1, 1, 1, 1}, .offset = w->data_bytes, .data = data, .produce = produce, .user = user};
    size_t n = strlen(name);
    TT_FAIL_IF(n > TT_LIMIT_GGUF_NAME || !tt__name_ok(name, n), err, TT_FAIL, "bad tensor name|%s|%zu bytes|1 to %llu (limit GGUF_NAME)", name, n,
               (unsigned long long)TT_LIMIT_GGUF_NAME);
    TT_FAIL_IF(n_dims < 1 || n_dims > 4, err, TT_FAIL, "bad number of dimensions|tensor %s|%d|1 to 4", name, n_dims);
    TT_FAIL_IF(w->n_tensors >= TT_LIMIT_GGUF_TENSORS, err, TT_FAIL, "too many tensors|%s||at most %llu", name, (unsigned long long)TT_LIMIT_GGUF_TENSORS);
    for (int d = 0; d < n_dims; d++) {
        t.ne[d] = ne[d];
        TT_FAIL_IF(ne[d] < 1 || ne[d] > TT_LIMIT_DIM, err, TT_FAIL, "bad dimension|tensor %s|%llu|1 to %llu (limit DIM)", name, (unsigned long long)ne[d],
                   (unsigned long long)TT_LIMIT_DIM);
    }
    uint64_t padded;
    bool fits = tensor_bytes(type, t.ne, &t.bytes) && tt__align_up_u64(t.bytes, w->align, &padded) && tt__add_u64(w->data_bytes, padded, &padded);
    TT_FAIL_IF(!fits, err, TT_FAIL, "tensor does not fit the type|%s|row of %llu|whole blocks of %s", name, (unsigned long long)t.ne[0], tt__dtype(type)->label);
    TT_TRY(reserve(&w->tensors, w->n_tensors, &w->cap_tensors, sizeof *w->tensors, "tensors", err));
    t.name = tt__strdup(name);
    TT_FAIL_IF(!t.name, err, TT_RESOURCE, "out of memory|for tensor %s", name);
    w->tensors[w->n_tensors++] = t;
    w->data_bytes = padded;
    return TT_OK;
}

tt_status tt__gguf_set_alignment(tt_gguf_writer *w, uint32_t align, tt_err *err) {
    TT_FAIL_IF(w->n_tensors || align < 8 || align > TT_LIMIT_GGUF_ALIGN || (align & (align - 1)), err, TT_FAIL, "bad alignment||%u|a power of two from 8, before the first tensor",
               align);
    TT_TRY(tt__gguf_set_u32(w, "general.alignment", align, err));
    w->align = align;
    return TT_OK;
}

/* ---- the file ---- */

static uint64_t pad_to_align(const tt_gguf_writer *w, uint64_t n) { return (w->align - n % w->align) % w->align; }

static uint64_t meta_bytes(const tt_gguf_writer *w) {
    uint64_t n = 4 + 4 + 8 + 8;
    for (size_t i = 0; i < w->n_kv; i++) n += 8 + w->kv[i].key_n + w->kv[i].n;
    for (size_t i = 0; i < w->n_tensors; i++) n += 8 + strlen(w->tensors[i].name) + 4 + 8 * (uint64_t)w->tensors[i].n_dims + 4 + 8;
    return n;
}

uint64_t tt__gguf_writer_bytes(const tt_gguf_writer *w) {
    uint64_t meta = meta_bytes(w);
    return meta + pad_to_align(w, meta) + w->data_bytes;
}

/* Two tensors of one name would make a file that no reader accepts. */
static tt_status check_names(const tt_gguf_writer *w, tt_err *err) {
    tt__name *names;
    TT_TRY(tt__new(&names, w->n_tensors, sizeof *names, "tensor names", err));
    for (size_t i = 0; i < w->n_tensors; i++) names[i] = (tt__name){w->tensors[i].name, i};
    tt__names_sort(names, w->n_tensors);
    const char *twice = tt__names_doubled(names, w->n_tensors);
    tt_status st = twice ? tt__fail(err, TT_FAIL, "doubled tensor name|%s", twice) : TT_OK;
    tt__free(names);
    return st;
}

static tt_status write_u32(tt__writer *f, uint32_t v, tt_err *err) { return tt__write(f, &v, 4, err); }
static tt_status write_u64(tt__writer *f, uint64_t v, tt_err *err) { return tt__write(f, &v, 8, err); }
static tt_status write_name(tt__writer *f, const char *s, tt_err *err) {
    TT_TRY(write_u64(f, strlen(s), err));
    return tt__write(f, s, strlen(s), err);
}

static tt_status write_meta(const tt_gguf_writer *w, tt__writer *f, tt_err *err) {
    TT_TRY(tt__write(f, "GGUF", 4, err));
    TT_TRY(write_u32(f, 3, err));
    TT_TRY(write_u64(f, w->n_tensors, err));
    TT_TRY(write_u64(f, w->n_kv, err));
    for (size_t i = 0; i < w->n_kv; i++) {
        TT_TRY(write_name(f, w->kv[i].key, err));
        TT_TRY(tt__write(f, w->kv[i].bytes, w->kv[i].n, err));
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        const tensor_out *t = &w->tensors[i];
        TT_TRY(write_name(f, t->name, err));
        TT_TRY(write_u32(f, (uint32_t)t->n_dims, err));
        for (int d = 0; d < t->n_dims; d++) TT_TRY(write_u64(f, t->ne[d], err));
        TT_TRY(write_u32(f, (uint32_t)tt__dtype(t->type)->gguf_id, err));
        TT_TRY(write_u64(f, t->offset, err));
    }
    return tt__write_zeros(f, (size_t)pad_to_align(w, tt__writer_offset(f)), err);
}

typedef struct sink { tt__writer *f; const tensor_out *t; uint64_t left; } sink;

static tt_status emit(void *p, const void *data, size_t n, tt_err *err) {
    sink *s = p;
    TT_FAIL_IF(n > s->left, err, TT_FAIL, "tensor longer than declared|%s||%llu bytes", s->t->name, (unsigned long long)s->t->bytes);
    s->left -= n;
    return tt__write(s->f, data, n, err);
}

static tt_status write_tensor(const tt_gguf_writer *w, const tensor_out *t, tt__writer *f, tt_err *err) {
    sink s = {f, t, t->bytes};
    if (t->produce) TT_TRY(t->produce(t->user, emit, &s, err));
    else TT_TRY(emit(&s, t->data, (size_t)t->bytes, err));
    TT_FAIL_IF(s.left, err, TT_FAIL, "tensor shorter than declared|%s|%llu bytes missing", t->name, (unsigned long long)s.left);
    return tt__write_zeros(f, (size_t)pad_to_align(w, t->bytes), err);
}

tt_status tt__gguf_writer_save(tt_gguf_writer *w, const char *path, tt_err *err) {
    tt__writer *f;
    TT_TRY(check_names(w, err));
    TT_TRY(tt__writer_open(path, tt__gguf_writer_bytes(w), &f, err));
    tt_status st = write_meta(w, f, err);
    for (size_t i = 0; i < w->n_tensors && st == TT_OK; i++) st = write_tensor(w, &w->tensors[i], f, err);
    if (st == TT_OK) return tt__writer_commit(f, err);
    tt__writer_abort(f);
    return st;
}
