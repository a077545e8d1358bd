/* safetensors, reading: one file, or the shards of a folder behind one list of names. Writing is in safetensors_write.c.
 *
 *   u64 N | N bytes of JSON, padded with spaces | data        {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
 *
 * The header is scanned once by a small reader of exactly this JSON: no document tree, so that opening needs no more memory than a
 * few times the header, whatever it says (F11). The offsets of the tensors have to tile the data from 0 to its end (F12).
 */
#include "formats/safetensors.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/util.h"
#include "formats/dtype_blocks.h"
#include "formats/hf.h"
#include "formats/names.h"
#include "formats/safetensors_file.h"
#include <assert.h>
#include <stdlib.h>

typedef struct meta_pair { const char *key, *value; } meta_pair;

struct tt_st {
    tt__arena arena;
    size_t n_maps;
    tt__map *maps;
    size_t n;
    tt_st_tensor *tensors;
    tt__name *names;
    size_t n_meta, cap_meta;
    meta_pair *meta;
};

/* ---- types ---- */

static const struct { const char *name; uint8_t bytes; } types[TT_ST_DTYPES] = {
    {"BOOL", 1}, {"U8", 1}, {"I8", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2}, {"BF16", 2}, {"I32", 4},
    {"U32", 4}, {"F32", 4}, {"F64", 8}, {"I64", 8}, {"U64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
};
const char *tt__st_dtype_name(tt_st_dtype t) { return types[t].name; }
uint64_t tt__st_dtype_bytes(tt_st_dtype t) { return types[t].bytes; }

static bool type_from_name(const char *name, tt_st_dtype *out) {
    for (int t = 0; t < TT_ST_DTYPES; t++)
        if (strcmp(name, types[t].name) == 0) {
            *out = (tt_st_dtype)t;
            return true;
        }
    return false;
}

/* ---- the header's JSON ---- */

typedef struct scan { const char *s; size_t n, at; const char *path; tt__arena *arena; tt_err *err; } scan;

static tt_status bad_json(const scan *c, const char *expected) {
    return tt__fail(c->err, TT_BADFILE, "bad safetensors header|%s, header byte %zu|%.12s|%s|", c->path, c->at, c->at < c->n ? "other text" : "its end", expected);
}
static void skip_space(scan *c) {
    while (c->at < c->n && (c->s[c->at] == ' ' || c->s[c->at] == '\n' || c->s[c->at] == '\r' || c->s[c->at] == '\t')) c->at++;
}
static bool accept(scan *c, char ch) {
    skip_space(c);
    if (c->at >= c->n || c->s[c->at] != ch) return false;
    c->at++;
    return true;
}
static tt_status expect(scan *c, char ch) {
    char what[] = {'\'', ch, '\'', 0};
    return accept(c, ch) ? TT_OK : bad_json(c, what);
}

static bool hex4(const char *p, uint32_t *out) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        char ch = p[i];
        uint32_t d = ch >= '0' && ch <= '9' ? (uint32_t)(ch - '0') : ch >= 'a' && ch <= 'f' ? (uint32_t)(ch - 'a' + 10) : ch >= 'A' && ch <= 'F' ? (uint32_t)(ch - 'A' + 10) : 16;
        if (d == 16) return false;
        v = v << 4 | d;
    }
    *out = v;
    return true;
}

/* Escape sequence at s[at] = '\\' → bytes in out (at most 4); moves at. Half surrogates and NUL are refused. */
static bool unescape(scan *c, char out[4], int *n) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (c->n - c->at < 2) return false;
    const char *hit = c->s[c->at + 1] ? strchr(from, c->s[c->at + 1]) : NULL;
    if (hit) {
        out[0] = to[hit - from];
        *n = 1;
        c->at += 2;
        return true;
    }
    uint32_t cp, low;
    if (c->s[c->at + 1] != 'u' || c->n - c->at < 6 || !hex4(c->s + c->at + 2, &cp)) return false;
    c->at += 6;
    if (cp >= 0xd800 && cp < 0xdc00) {
        if (c->n - c->at < 6 || c->s[c->at] != '\\' || c->s[c->at + 1] != 'u' || !hex4(c->s + c->at + 2, &low) || low < 0xdc00 || low > 0xdfff) return false;
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
        c->at += 6;
    }
    if (cp == 0 || (cp >= 0xd800 && cp < 0xe000)) return false;
    *n = tt__utf8_encode(cp, out);
    return *n > 0;
}

/* One character or escape of a string; *n = 0 at the closing quote. */
static tt_status string_piece(scan *c, char out[4], int *n) {
    uint32_t cp;
    *n = 0;
    if (c->at >= c->n) return bad_json(c, "the end of a string");
    uint8_t ch = (uint8_t)c->s[c->at];
    if (ch == '"') {
        c->at++;
        return TT_OK;
    }
    if (ch == '\\') return unescape(c, out, n) ? TT_OK : bad_json(c, "a valid escape");
    int len = ch < 0x20 ? 0 : tt__utf8_decode((const uint8_t *)c->s + c->at, c->n - c->at, &cp);
    if (len == 0) return bad_json(c, "UTF-8 text");
    memcpy(out, c->s + c->at, (size_t)len);
    c->at += (size_t)len;
    *n = len;
    return TT_OK;
}

/* A string, unescaped into the arena: first measured, then copied. */
static tt_status string(scan *c, const char **out) {
    char piece[4];
    int n;
    size_t bytes = 0, start;
    TT_TRY(expect(c, '"'));
    start = c->at;
    do {
        TT_TRY(string_piece(c, piece, &n));
        bytes += (size_t)n;
    } while (n);
    char *s = tt__arena_alloc(c->arena, bytes + 1), *p = s;
    TT_FAIL_IF(!s, c->err, TT_RESOURCE, "out of memory|for the names of %s", c->path);
    c->at = start;
    do {
        TT_TRY(string_piece(c, piece, &n));
        memcpy(p, piece, (size_t)n);
        p += n;
    } while (n);
    *out = s;
    return TT_OK;
}

/* A string of the format itself (member name, type): short. */
static tt_status word(scan *c, char out[24]) {
    char piece[4];
    int n;
    size_t bytes = 0;
    TT_TRY(expect(c, '"'));
    do {
        TT_TRY(string_piece(c, piece, &n));
        if (bytes + (size_t)n >= 24) return bad_json(c, "a shorter word");
        memcpy(out + bytes, piece, (size_t)n);
        bytes += (size_t)n;
    } while (n);
    out[bytes] = 0;
    return TT_OK;
}

/* A plain non-negative integer without leading zeros. */
static tt_status number(scan *c, uint64_t *out) {
    uint64_t v = 0;
    size_t digits = 0;
    skip_space(c);
    for (; c->at < c->n && c->s[c->at] >= '0' && c->s[c->at] <= '9'; c->at++, digits++) {
        if (digits == 1 && v == 0) return bad_json(c, "a number without leading zeros");
        if (!tt__mul_u64(v, 10, &v) || !tt__add_u64(v, (uint64_t)(c->s[c->at] - '0'), &v)) return bad_json(c, "a number below 2^64");
    }
    if (!digits) return bad_json(c, "a non-negative whole number");
    *out = v;
    return TT_OK;
}

/* [a, b, …] of at most max numbers */
static tt_status numbers(scan *c, uint64_t *out, int max, int *n) {
    *n = 0;
    TT_TRY(expect(c, '['));
    if (accept(c, ']')) return TT_OK;
    do {
        if (*n == max) return bad_json(c, max == 2 ? "two offsets" : "at most 8 dimensions");
        TT_TRY(number(c, &out[(*n)++]));
    } while (accept(c, ','));
    return expect(c, ']');
}

/* ---- header → tensors ---- */

static tt_status grow(void *list, size_t n, size_t *cap, size_t size, tt_err *err) {
    void *old, *p;
    if (n < *cap) return TT_OK;
    memcpy(&old, list, sizeof old);
    size_t want = *cap ? 2 * *cap : 16;
    p = tt__realloc(old, tt__array_bytes(want, size));
    TT_FAIL_IF(!p, err, TT_RESOURCE, "out of memory|for the tensors of a safetensors file");
    memcpy(list, &p, sizeof p);
    *cap = want;
    return TT_OK;
}

typedef struct st_range { uint64_t begin, end; size_t at; } st_range;

/* The members of one tensor: dtype, shape, data_offsets, each once. */
static tt_status read_tensor(scan *c, tt_st_tensor *t, st_range *range) {
    unsigned seen = 0;
    uint64_t offsets[2];
    int n;
    TT_TRY(expect(c, '{'));
    do {
        char key[24], type[24];
        TT_TRY(word(c, key));
        TT_TRY(expect(c, ':'));
        unsigned bit = strcmp(key, "dtype") == 0 ? 1 : strcmp(key, "shape") == 0 ? 2 : strcmp(key, "data_offsets") == 0 ? 4 : 0;
        TT_FAIL_IF(!bit || (seen & bit), c->err, TT_BADFILE, "bad safetensors header|%s, tensor %s|\"%s\"|dtype, shape and data_offsets, each once|", c->path, t->name, key);
        seen |= bit;
        if (bit == 1) {
            TT_TRY(word(c, type));
            TT_FAIL_IF(!type_from_name(type, &t->type), c->err, TT_BADFILE, "tensor type not supported|%s, tensor %s|%s|F32, F16, BF16, F64, F8 or integers|", c->path, t->name, type);
        } else if (bit == 2) TT_TRY(numbers(c, t->shape, 8, &t->n_dims));
        else {
            TT_TRY(numbers(c, offsets, 2, &n));
            if (n != 2) return bad_json(c, "two offsets");
        }
    } while (accept(c, ','));
    TT_TRY(expect(c, '}'));
    TT_FAIL_IF(seen != 7, c->err, TT_BADFILE, "bad safetensors header|%s, tensor %s|a member is missing|dtype, shape and data_offsets|", c->path, t->name);
    range->begin = offsets[0], range->end = offsets[1];
    return TT_OK;
}

/* bytes = product of the shape times the element size = end - begin, inside the data */
static tt_status check_tensor(const char *path, tt_st_tensor *t, const st_range *range, uint64_t data_bytes, tt_err *err) {
    uint64_t n = 1;
    bool fits = true;
    for (int d = 0; d < t->n_dims; d++) fits = fits && t->shape[d] <= TT_LIMIT_DIM && tt__mul_u64(n, t->shape[d], &n);
    TT_FAIL_IF(!fits || !tt__mul_u64(n, types[t->type].bytes, &t->bytes), err, TT_BADFILE, "tensor too large|%s, tensor %s||dimensions up to %llu (limit DIM) and a size that fits|",
               path, t->name, (unsigned long long)TT_LIMIT_DIM);
    TT_FAIL_IF(range->begin > range->end || range->end > data_bytes, err, TT_BADFILE, "tensor reaches beyond the file|%s, tensor %s|[%llu, %llu)|within %llu bytes|is the download complete?",
               path, t->name, (unsigned long long)range->begin, (unsigned long long)range->end, (unsigned long long)data_bytes);
    TT_FAIL_IF(range->end - range->begin != t->bytes, err, TT_BADFILE, "tensor size does not fit its shape|%s, tensor %s|%llu bytes|%llu bytes|", path, t->name,
               (unsigned long long)(range->end - range->begin), (unsigned long long)t->bytes);
    return TT_OK;
}

static tt_status read_metadata(scan *c, tt_st *st) {
    TT_TRY(expect(c, '{'));
    if (accept(c, '}')) return TT_OK;
    do {
        meta_pair pair;
        TT_TRY(string(c, &pair.key));
        TT_TRY(expect(c, ':'));
        TT_TRY(string(c, &pair.value));
        TT_FAIL_IF(st->n_meta >= TT_LIMIT_ST_META, c->err, TT_BADFILE, "too much metadata|%s||at most %llu pairs (limit ST_META)|", c->path, (unsigned long long)TT_LIMIT_ST_META);
        TT_TRY(grow(&st->meta, st->n_meta, &st->cap_meta, sizeof *st->meta, c->err));
        st->meta[st->n_meta++] = pair;
    } while (accept(c, ','));
    return expect(c, '}');
}

/* Two equal keys in the metadata of one file. */
static tt_status check_metadata(const tt_st *st, size_t first, const scan *c) {
    size_t n = st->n_meta - first;
    tt__name *names;
    TT_TRY(tt__new(&names, n, sizeof *names, "metadata names", c->err));
    for (size_t i = 0; i < n; i++) names[i] = (tt__name){st->meta[first + i].key, i};
    tt__names_sort(names, n);
    const char *twice = tt__names_doubled(names, n);
    tt_status status = twice ? tt__fail(c->err, TT_BADFILE, "doubled metadata key|%s|%s||", c->path, twice) : TT_OK;
    tt__free(names);
    return status;
}

static int by_range(const void *a, const void *b) {
    const st_range *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* Sorted ranges tile [0, data_bytes). */
static tt_status check_tiling(const tt_st *st, st_range *ranges, size_t n, uint64_t data_bytes, const scan *c) {
    uint64_t at = 0;
    if (n > 1) qsort(ranges, n, sizeof *ranges, by_range);
    for (size_t i = 0; i < n; i++) {
        TT_FAIL_IF(ranges[i].begin != at, c->err, TT_BADFILE, "%s|%s, tensor %s|begins at %llu|%llu|", ranges[i].begin < at ? "tensors overlap" : "unused bytes between tensors", c->path,
                   st->tensors[ranges[i].at].name, (unsigned long long)ranges[i].begin, (unsigned long long)at);
        at = ranges[i].end;
    }
    TT_FAIL_IF(at != data_bytes, c->err, TT_BADFILE, "unused bytes after the tensors|%s|%llu bytes of data|%llu|", c->path, (unsigned long long)data_bytes, (unsigned long long)at);
    return TT_OK;
}

/* One member of the header: the metadata or a tensor. */
static tt_status read_member(scan *c, tt_st *st, const uint8_t *data, uint64_t data_bytes, bool *has_meta, st_range *range, bool *is_tensor) {
    const char *name;
    TT_TRY(string(c, &name));
    TT_TRY(expect(c, ':'));
    *is_tensor = strcmp(name, "__metadata__") != 0;
    if (!*is_tensor) {
        TT_FAIL_IF(*has_meta, c->err, TT_BADFILE, "doubled __metadata__|%s|||", c->path);
        *has_meta = true;
        return read_metadata(c, st);
    }
    TT_FAIL_IF(!tt__name_ok(name, strlen(name)), c->err, TT_BADFILE, "bad tensor name|%s||text without control bytes|", c->path);
    TT_FAIL_IF(st->n >= TT_LIMIT_ST_TENSORS, c->err, TT_BADFILE, "too many tensors|%s||at most %llu (limit ST_TENSORS)|", c->path, (unsigned long long)TT_LIMIT_ST_TENSORS);
    tt_st_tensor *t = &st->tensors[st->n];
    memset(t, 0, sizeof *t);
    t->name = name;
    TT_TRY(read_tensor(c, t, range));
    TT_TRY(check_tensor(c->path, t, range, data_bytes, c->err));
    t->data = data + range->begin;
    range->at = st->n++;
    return TT_OK;
}

/* Room for all tensors that a header of this length can describe: the shortest description has 51 bytes. */
static tt_status reserve_tensors(tt_st *st, const scan *c, st_range **ranges, size_t *most_out) {
    size_t most = c->n / 51 + 1;
    if (most > TT_LIMIT_ST_TENSORS) most = TT_LIMIT_ST_TENSORS;
    *most_out = most;
    tt_st_tensor *t = tt__realloc(st->tensors, tt__array_bytes(st->n + most, sizeof *t));
    TT_FAIL_IF(!t, c->err, TT_RESOURCE, "out of memory|for the tensors of %s", c->path);
    st->tensors = t;
    return tt__new(ranges, most, sizeof **ranges, "tensors", c->err);
}

static tt_status read_members(scan *c, tt_st *st, const uint8_t *data, uint64_t data_bytes) {
    st_range *ranges;
    size_t n = 0, most, first_meta = st->n_meta;
    bool has_meta = false, is_tensor;
    TT_TRY(reserve_tensors(st, c, &ranges, &most));
    tt_status status = expect(c, '{');
    bool more = status == TT_OK && !accept(c, '}');
    while (status == TT_OK && more) {
        assert(n < most || st->n >= TT_LIMIT_ST_TENSORS);       /* n whole descriptions and a comma are 51 n + 1 bytes at least */
        status = read_member(c, st, data, data_bytes, &has_meta, &ranges[n], &is_tensor);
        n += status == TT_OK && is_tensor;
        if (status == TT_OK && !(more = accept(c, ','))) status = expect(c, '}');
    }
    if (status == TT_OK) status = check_tiling(st, ranges, n, data_bytes, c);
    if (status == TT_OK) status = check_metadata(st, first_meta, c);
    tt__free(ranges);
    return status;
}

/* Parses one file; its tensors go behind those already there. */
static tt_status parse(tt_st *st, const uint8_t *bytes, uint64_t size, const char *path, tt_err *err) {
    TT_FAIL_IF(size < 8, err, TT_BADFILE, "not a safetensors file|%s|%llu bytes|at least 8|is the download complete?", path, (unsigned long long)size);
    uint64_t n = tt__rd64(bytes);
    TT_FAIL_IF(n > TT_LIMIT_ST_HEADER, err, TT_BADFILE, "safetensors header too large|%s|%llu bytes|at most %llu (limit ST_HEADER)|is this a safetensors file?", path, (unsigned long long)n,
               (unsigned long long)TT_LIMIT_ST_HEADER);
    TT_FAIL_IF(n > size - 8, err, TT_BADFILE, "file ends inside its header|%s|%llu bytes|%llu and more|is the download complete?", path, (unsigned long long)size, (unsigned long long)n);
    scan c = {(const char *)bytes + 8, (size_t)n, 0, path, &st->arena, err};
    if (n < 2 || c.s[0] != '{') return bad_json(&c, "'{' as the first byte");
    TT_TRY(read_members(&c, st, bytes + 8 + n, size - 8 - n));
    for (; c.at < c.n; c.at++)
        if (c.s[c.at] != ' ') return bad_json(&c, "spaces after the header");
    return TT_OK;
}

static tt_status index_names(tt_st *st, const char *path, tt_err *err) {
    TT_TRY(tt__new(&st->names, st->n, sizeof *st->names, "tensor names", err));
    for (size_t i = 0; i < st->n; i++) st->names[i] = (tt__name){st->tensors[i].name, i};
    tt__names_sort(st->names, st->n);
    const char *twice = tt__names_doubled(st->names, st->n);
    TT_FAIL_IF(twice, err, TT_BADFILE, "doubled tensor name|%s|%s|each name once|", path, twice);
    return TT_OK;
}

static tt_status finish_open(tt_st *st, tt_status status, const char *path, tt_st **out, tt_err *err) {
    if (status == TT_OK && !st->names) status = index_names(st, path, err);
    if (status == TT_OK) *out = st;
    else tt__st_close(st);
    return status;
}

tt_status tt__st_open_memory(const void *data, size_t size, const char *name, tt_st **out, tt_err *err) {
    tt_st *st;
    *out = NULL;
    TT_TRY(tt__new(&st, 1, sizeof *st, "a safetensors file", err));
    return finish_open(st, parse(st, data, size, name, err), name, out, err);
}

static tt_status open_file(tt_st *st, const char *path, tt_err *err) {
    tt__map *maps = tt__realloc(st->maps, tt__array_bytes(st->n_maps + 1, sizeof *maps));
    TT_FAIL_IF(!maps, err, TT_RESOURCE, "out of memory|for %s", path);
    st->maps = maps;
    TT_TRY(tt__map_open(path, &maps[st->n_maps], err));
    tt__map *map = &maps[st->n_maps++];
    return parse(st, map->data, map->size, path, err);
}

/* ---- folders ---- */

/* The file names of the map, sorted, each once. Caller frees. */
static tt_status shard_names(json_t *map, const char *where, tt__name **out, size_t *n_out, tt_err *err) {
    size_t n = json_object_size(map), i = 0, unique = 0;
    const char *name;
    json_t *file;
    TT_FAIL_IF(n == 0, err, TT_BADFILE, "no weight_map|%s||an object of tensor name to file name|", where);
    TT_FAIL_IF(n > TT_LIMIT_ST_TENSORS, err, TT_BADFILE, "too many tensors|%s|%zu|at most %llu (limit ST_TENSORS)|", where, n, (unsigned long long)TT_LIMIT_ST_TENSORS);
    json_object_foreach(map, name, file) TT_FAIL_IF(!json_is_string(file), err, TT_BADFILE, "bad weight_map|%s, tensor %s||a file name|", where, name);
    TT_TRY(tt__new(out, n, sizeof **out, "shards", err));
    json_object_foreach(map, name, file) (*out)[i++] = (tt__name){json_string_value(file), 0};
    tt__names_sort(*out, n);
    for (i = 0; i < n; i++)
        if (i == 0 || strcmp((*out)[i].name, (*out)[i - 1].name) != 0) (*out)[unique++] = (*out)[i];
    *n_out = unique;
    return TT_OK;
}

static tt_status open_shard(tt_st *st, const char *dir, const char *name, tt_err *err) {
    char *path;
    TT_TRY(tt__hf_path(dir, name, &path, err));
    tt_status status = open_file(st, path, err);
    tt__free(path);
    return status;
}

/* Opens the files of the map; each of its names has to be a tensor there. Tensors that it does not list are kept too, as other
 * readers do. */
static tt_status open_shards(tt_st *st, const char *dir, json_t *index, const char *where, tt_err *err) {
    json_t *map = json_object_get(index, "weight_map"), *file;
    const char *name;
    tt__name *files = NULL;
    size_t n = 0;
    tt_status status = shard_names(map, where, &files, &n, err);
    if (status == TT_OK && n > TT_LIMIT_ST_SHARDS)
        status = tt__fail(err, TT_BADFILE, "too many shards|%s|%zu|at most %llu (limit ST_SHARDS)|", where, n, (unsigned long long)TT_LIMIT_ST_SHARDS);
    for (size_t k = 0; k < n && status == TT_OK; k++) status = open_shard(st, dir, files[k].name, err);
    tt__free(files);
    TT_TRY(status);
    TT_TRY(index_names(st, where, err));
    json_object_foreach(map, name, file)
        TT_FAIL_IF(!tt__st_find(st, name), err, TT_BADFILE, "tensor of the weight_map is missing|%s|%s||is a shard damaged?", where, name);
    return TT_OK;
}

static tt_status open_folder(tt_st *st, const char *dir, tt_err *err) {
    json_t *index = NULL;
    char *single = tt__path_join(dir, "model.safetensors");
    TT_FAIL_IF(!single, err, TT_RESOURCE, "out of memory|for a path");
    tt_status status;
    if (tt__exists(single)) status = open_file(st, single, err);
    else {
        status = tt__hf_json(dir, "model.safetensors.index.json", false, &index, err);
        if (status == TT_OK && !index)
            status = tt__fail(err, TT_BADFILE, "no weights in the folder|%s||model.safetensors or model.safetensors.index.json|%s", dir, "files of other kinds (.bin, .pt) are not read");
        if (status == TT_OK) status = open_shards(st, dir, index, "model.safetensors.index.json", err);
        json_decref(index);
    }
    tt__free(single);
    return status;
}

tt_status tt__st_open(const char *path, tt_st **out, tt_err *err) {
    tt_st *st;
    *out = NULL;
    TT_TRY(tt__new(&st, 1, sizeof *st, "a safetensors file", err));
    return finish_open(st, tt__is_dir(path) ? open_folder(st, path, err) : open_file(st, path, err), path, out, err);
}

void tt__st_close(tt_st *st) {
    if (!st) return;
    for (size_t i = 0; i < st->n_maps; i++) tt__map_close(&st->maps[i]);
    tt__free(st->maps);
    tt__free(st->tensors);
    tt__free(st->names);
    tt__free(st->meta);
    tt__arena_free(&st->arena);
    tt__free(st);
}

/* ---- asking ---- */

size_t tt__st_n(const tt_st *st) { return st->n; }
const tt_st_tensor *tt__st_tensor(const tt_st *st, size_t i) { return i < st->n ? &st->tensors[i] : NULL; }
const tt_st_tensor *tt__st_find(const tt_st *st, const char *name) {
    size_t i = tt__names_find(st->names, st->n, name);
    return i == SIZE_MAX ? NULL : &st->tensors[i];
}
size_t tt__st_n_metadata(const tt_st *st) { return st->n_meta; }
const char *tt__st_metadata(const tt_st *st, size_t i, const char **value) {
    if (value) *value = st->meta[i].value;
    return st->meta[i].key;
}

/* E4M3 (the form without infinities): s eeee mmm, bias 7, 0x7f and 0xff are NaN */
static float e4m3(uint8_t b) {
    int e = (b >> 3) & 15, m = b & 7;
    float v = e == 15 && m == 7 ? __builtin_nanf("") : e == 0 ? (float)m * 0x1p-9f : (float)(8 + m) * (e >= 10 ? (float)(1 << (e - 10)) : 1.0f / (float)(1 << (10 - e)));
    return b & 0x80 ? -v : v;
}

static float element(tt_st_dtype t, const uint8_t *p) {
    switch (t) {
    case TT_ST_U8: return (float)*p;
    case TT_ST_I8: return (float)(int8_t)*p;
    case TT_ST_I16: return (float)(int16_t)tt__rd16(p);
    case TT_ST_U16: return (float)tt__rd16(p);
    case TT_ST_F16: return tt__f16_to_f32(tt__rd16(p));
    case TT_ST_BF16: return tt__bf16_to_f32(tt__rd16(p));
    case TT_ST_I32: return (float)(int32_t)tt__rd32(p);
    case TT_ST_U32: return (float)tt__rd32(p);
    case TT_ST_F64: return tt__f64_to_f32(tt__rd64(p));
    case TT_ST_I64: return (float)(int64_t)tt__rd64(p);
    case TT_ST_U64: return (float)tt__rd64(p);
    case TT_ST_F8_E4M3: return e4m3(*p);
    case TT_ST_F8_E5M2: return tt__f16_to_f32((uint16_t)(*p << 8));
    default: return tt__rdf32(p);
    }
}

tt_status tt__st_to_f32(const tt_st_tensor *t, uint64_t first, uint64_t n, float *out, tt_err *err) {
    uint64_t size = types[t->type].bytes, count = t->bytes / size;
    TT_FAIL_IF(t->type == TT_ST_BOOL, err, TT_BADFILE, "tensor holds no numbers|%s|BOOL|a number type|", t->name);
    TT_FAIL_IF(first > count || n > count - first, err, TT_FAIL, "elements beyond the tensor|%s|%llu + %llu|%llu|", t->name, (unsigned long long)first, (unsigned long long)n,
               (unsigned long long)count);
    const uint8_t *p = t->data + first * size;
    if (t->type == TT_ST_F32) memcpy(out, p, (size_t)n * sizeof(float));
    else for (uint64_t i = 0; i < n; i++, p += size) out[i] = element(t->type, p);
    return TT_OK;
}
