/* Reading and writing a teacher's logits (logits.h has the layout). */
#include "formats/logits.h"

#include "base/checked.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/util.h"
#include <math.h>

enum { VERSION = 1, HEAD = 128, SHA = 32, STEPS = 2048, KEY = TT_LOGITS_KEY, NARROW = 65536 };
#define NO_REST -100.0f                       /* stands for the log of nothing */

typedef struct shape { uint64_t n, k, id, window; } shape;      /* targets of a window, its likeliest tokens, bytes of an id, of a window */

struct tt_logits {
    tt__map map;
    tt_logits_head head;
    shape s;
    int64_t windows;
    uint32_t *order;                          /* windows by key */
};

struct tt_logits_writer {
    tt__writer *w;
    tt_logits_head head;
    shape s;
    int64_t windows;
    tt__sha256 sha;
    uint8_t *window;                          /* one, as it is written */
};

/* ------------------------------------------------------------ header ---- */

static tt_status shape_of(const tt_logits_head *h, const char *where, shape *out, tt_err *err) {
    TT_FAIL_IF(h->vocab < 2 || h->vocab > (int64_t)TT_LIMIT_VOCAB, err, TT_BADFILE, "vocabulary of a logit cache out of range|%s|%lld|2 … %llu", where,
               (long long)h->vocab, (unsigned long long)TT_LIMIT_VOCAB);
    TT_FAIL_IF(h->k < 1 || h->k > h->vocab || h->k > (int64_t)TT_LIMIT_TEACHER_TOPK, err, TT_BADFILE, "tokens of a target out of range|%s|%lld|1 … %lld",
               where, (long long)h->k, h->vocab < (int64_t)TT_LIMIT_TEACHER_TOPK ? (long long)h->vocab : (long long)TT_LIMIT_TEACHER_TOPK);
    TT_FAIL_IF(h->length < 2 || h->length > (int64_t)TT_LIMIT_CONTEXT, err, TT_BADFILE, "length of a window out of range|%s|%lld|2 … %llu", where,
               (long long)h->length, (unsigned long long)TT_LIMIT_CONTEXT);
    TT_FAIL_IF(!(h->temperature >= 0.01f && h->temperature <= 100), err, TT_BADFILE, "temperature out of range|%s|%g|0.01 … 100", where,
               (double)h->temperature);
    *out = (shape){.n = (uint64_t)h->length - 1, .k = (uint64_t)h->k, .id = h->vocab <= NARROW ? 2 : 4};
    uint64_t row;
    bool fits = tt__mul_u64(out->k, 2 + out->id, &row) && tt__add_u64(row, 4, &row) && tt__mul_u64(row, out->n, &row) && tt__add_u64(row, KEY, &out->window);
    TT_FAIL_IF(!fits, err, TT_BADFILE, "size overflow|%s", where);
    return TT_OK;
}

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

/* An empty text stands for no hash: zeros. */
static bool bytes_of_hex(const char *hex, uint8_t out[32]) {
    memset(out, 0, 32);
    if (!*hex) return true;
    if (strlen(hex) != 64) return false;
    for (int i = 0; i < 32; i++) {
        int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static void hex_of_bytes(const uint8_t in[32], char out[65]) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) out[2 * i] = digits[in[i] >> 4], out[2 * i + 1] = digits[in[i] & 15];
    out[64] = 0;
}

static void put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }

static tt_status write_head(const tt_logits_head *h, int64_t windows, uint8_t p[HEAD], tt_err *err) {
    uint64_t count = (uint64_t)windows;
    memset(p, 0, HEAD);
    memcpy(p, "TTLOGITS", 8);
    put32(p + 8, VERSION);
    put32(p + 12, (uint32_t)h->k);
    TT_FAIL_IF(!bytes_of_hex(h->teacher, p + 16) || !bytes_of_hex(h->data, p + 48), err, TT_USAGE, "bad hash|logit cache");
    memcpy(p + 80, h->isa, strnlen(h->isa, sizeof h->isa - 1));
    put32(p + 96, (uint32_t)h->vocab);
    put32(p + 100, (uint32_t)h->length);
    memcpy(p + 104, &h->temperature, 4);
    memcpy(p + 112, &count, 8);
    return TT_OK;
}

static bool is_name(const char *s, size_t room) {
    size_t n = strnlen(s, room);
    for (size_t i = 0; i < room; i++)
        if (i < n ? !(s[i] > ' ' && s[i] < 127) : s[i] != 0) return false;
    return n < room;
}

static tt_status read_head(const char *path, const tt__map *map, tt_logits_head *h, uint64_t *windows, tt_err *err) {
    const uint8_t *p = map->data;
    TT_FAIL_IF(map->size < HEAD + SHA || memcmp(p, "TTLOGITS", 8) != 0, err, TT_BADFILE, "not a logit cache|%s", path);
    TT_FAIL_IF(tt__rd32(p + 8) != VERSION, err, TT_BADFILE, "logit cache of another version|%s|%u|%d|remove it, it is made again", path, tt__rd32(p + 8),
               VERSION);
    *h = (tt_logits_head){.k = tt__rd32(p + 12), .vocab = tt__rd32(p + 96), .length = tt__rd32(p + 100), .temperature = tt__rdf32(p + 104)};
    hex_of_bytes(p + 16, h->teacher);
    hex_of_bytes(p + 48, h->data);
    memcpy(h->isa, p + 80, sizeof h->isa);
    TT_FAIL_IF(!is_name(h->isa, sizeof h->isa) || tt__rd32(p + 108) || tt__rd64(p + 120), err, TT_BADFILE, "logit cache has a damaged header|%s", path);
    *windows = tt__rd64(p + 112);
    return TT_OK;
}

static const char *hash_or_none(const char *s) { return *s ? s : "0000000000000000000000000000000000000000000000000000000000000000"; }

static tt_status is_ours(const char *path, const tt_logits_head *h, const tt_logits_head *want, tt_err *err) {
    static const char hint[] = "remove it, it is made again";
    TT_FAIL_IF(strcmp(h->teacher, hash_or_none(want->teacher)) != 0, err, TT_MISMATCH, "logit cache is of another teacher|%s|%.12s…|%.12s…|%s", path, h->teacher,
               hash_or_none(want->teacher), hint);
    TT_FAIL_IF(strcmp(h->data, hash_or_none(want->data)) != 0, err, TT_MISMATCH, "logit cache is of another text|%s|%.12s…|%.12s…|%s", path, h->data,
               hash_or_none(want->data), hint);
    TT_FAIL_IF(strcmp(h->isa, want->isa) != 0, err, TT_MISMATCH, "logit cache was computed with another instruction set|%s|%s|%s|%s", path, h->isa, want->isa,
               hint);
    TT_FAIL_IF(h->vocab != want->vocab || h->k != want->k || h->length != want->length, err, TT_MISMATCH,
               "logit cache has another shape|%s|k %lld, length %lld, vocabulary %lld|k %lld, length %lld, vocabulary %lld|%s", path, (long long)h->k,
               (long long)h->length, (long long)h->vocab, (long long)want->k, (long long)want->length, (long long)want->vocab, hint);
    TT_FAIL_IF(h->temperature != want->temperature, err, TT_MISMATCH, "logit cache is at another temperature|%s|%g|%g|%s", path, (double)h->temperature,
               (double)want->temperature, hint);
    return TT_OK;
}

/* ------------------------------------------------------------ reading ---- */

static const uint8_t *window_at(const tt_logits *l, int64_t window) { return l->map.data + HEAD + (uint64_t)window * l->s.window; }

static uint32_t id_at(const shape *s, const uint8_t *ids, uint64_t i) { return s->id == 2 ? tt__rd16(ids + 2 * i) : tt__rd32(ids + 4 * i); }

static tt_status check_hash(const tt_logits *l, const char *path, tt_err *err) {
    uint8_t digest[SHA];
    tt__sha256 s;
    tt__sha256_init(&s);
    tt__sha256_update(&s, l->map.data + HEAD, (size_t)(l->map.size - HEAD - SHA));
    tt__sha256_update(&s, l->map.data, HEAD);
    tt__sha256_final(&s, digest);
    TT_FAIL_IF(memcmp(digest, l->map.data + l->map.size - SHA, SHA) != 0, err, TT_BADFILE, "logit cache is damaged|%s|||remove it, it is made again", path);
    return TT_OK;
}

/* A file may carry a right hash and wrong numbers. */
static tt_status check_window(const tt_logits *l, int64_t w, const char *path, tt_err *err) {
    const shape *s = &l->s;
    const uint8_t *rest = window_at(l, w) + KEY, *ids = rest + s->n * 4 + s->n * s->k * 2;
    bool good = true;
    for (uint64_t r = 0; r < s->n && good; r++) {
        float log_rest = tt__rdf32(rest + 4 * r);
        good = log_rest <= 0 && log_rest >= NO_REST;
        for (uint64_t i = 0; i < s->k && good; i++) {
            uint32_t id = id_at(s, ids, r * s->k + i);
            good = id < (uint64_t)l->head.vocab && (i == 0 || id > id_at(s, ids, r * s->k + i - 1));
        }
    }
    TT_FAIL_IF(!good, err, TT_BADFILE, "logit cache holds impossible numbers|%s, window %lld|||remove it, it is made again", path, (long long)w);
    return TT_OK;
}

static void sift(const tt_logits *l, uint32_t *a, size_t i, size_t n) {
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && memcmp(window_at(l, a[child]), window_at(l, a[child + 1]), KEY) < 0) child++;
        if (memcmp(window_at(l, a[i]), window_at(l, a[child]), KEY) >= 0) return;
        uint32_t swap = a[i];
        a[i] = a[child], a[child] = swap;
    }
}

static tt_status sort_keys(tt_logits *l, tt_err *err) {
    size_t n = (size_t)l->windows;
    TT_TRY(tt__new(&l->order, n, sizeof *l->order, "keys of a logit cache", err));
    for (size_t i = 0; i < n; i++) l->order[i] = (uint32_t)i;
    for (size_t i = n / 2; i-- > 0;) sift(l, l->order, i, n);
    for (size_t last = n; last-- > 1;) {
        uint32_t swap = l->order[0];
        l->order[0] = l->order[last], l->order[last] = swap;
        sift(l, l->order, 0, last);
    }
    return TT_OK;
}

static tt_status read_all(tt_logits *l, const char *path, const tt_logits_head *want, tt_err *err) {
    uint64_t windows, bytes;
    TT_TRY(read_head(path, &l->map, &l->head, &windows, err));
    TT_TRY(shape_of(&l->head, path, &l->s, err));
    bool fits = windows <= UINT32_MAX && tt__mul_u64(windows, l->s.window, &bytes) && bytes == l->map.size - HEAD - SHA;
    TT_FAIL_IF(!fits, err, TT_BADFILE, "logit cache has the wrong size|%s|%llu bytes for %llu windows||remove it, it is made again", path,
               (unsigned long long)l->map.size, (unsigned long long)windows);
    l->windows = (int64_t)windows;
    TT_TRY(check_hash(l, path, err));
    if (want) TT_TRY(is_ours(path, &l->head, want, err));
    for (int64_t w = 0; w < l->windows; w++) TT_TRY(check_window(l, w, path, err));
    return sort_keys(l, err);
}

tt_status tt__logits_open(const char *path, const tt_logits_head *want, tt_logits **out, tt_err *err) {
    tt_logits *l = NULL;
    *out = NULL;
    TT_TRY(tt__new(&l, 1, sizeof *l, "a logit cache", err));
    tt_status st = tt__map_open(path, &l->map, err);
    if (st != TT_OK) {
        tt__free(l);
        return st;
    }
    st = read_all(l, path, want, err);
    if (st == TT_OK) *out = l;
    else tt__logits_close(l);
    return st;
}

void tt__logits_close(tt_logits *l) {
    if (!l) return;
    tt__map_close(&l->map);
    tt__free(l->order);
    tt__free(l);
}

const tt_logits_head *tt__logits_get_head(const tt_logits *l) { return &l->head; }
int64_t tt__logits_windows(const tt_logits *l) { return l->windows; }
const uint8_t *tt__logits_key(const tt_logits *l, int64_t window) { return window_at(l, window); }

int64_t tt__logits_find(const tt_logits *l, const uint8_t key[TT_LOGITS_KEY]) {
    int64_t from = 0, to = l->windows;
    while (from < to) {
        int64_t mid = from + (to - from) / 2;
        int c = memcmp(window_at(l, l->order[mid]), key, KEY);
        if (c == 0) return l->order[mid];
        if (c < 0) from = mid + 1;
        else to = mid;
    }
    return -1;
}

void tt__logits_row(const tt_logits *l, int64_t window, int64_t row, int32_t *ids, float *logp, float *rest) {
    const shape *s = &l->s;
    const uint64_t r = (uint64_t)row;
    const uint8_t *at = window_at(l, window) + KEY, *q = at + s->n * 4 + r * s->k * 2, *id = at + s->n * 4 + s->n * s->k * 2 + r * s->k * s->id;
    double left = (double)tt__rdf32(at + 4 * r), sum = exp(left);
    for (uint64_t i = 0; i < s->k; i++) {
        ids[i] = (int32_t)id_at(s, id, i);
        logp[i] = -(float)tt__rd16(q + 2 * i) / STEPS;
        sum += exp((double)logp[i]);
    }
    double excess = log(sum);
    for (uint64_t i = 0; i < s->k; i++) logp[i] = (float)((double)logp[i] - excess);
    *rest = left > (double)NO_REST ? (float)(left - excess) : -INFINITY;
}

/* ------------------------------------------------------------ writing ---- */

uint64_t tt__logits_bytes(const tt_logits_head *head, int64_t windows) {
    shape s;
    return shape_of(head, "", &s, NULL) == TT_OK ? HEAD + SHA + (uint64_t)windows * s.window : 0;
}

tt_status tt__logits_create(const char *path, const tt_logits_head *head, tt_logits_writer **out, tt_err *err) {
    tt_logits_writer *w = NULL;
    *out = NULL;
    TT_TRY(tt__new(&w, 1, sizeof *w, "a logit cache", err));
    w->head = *head;
    tt__sha256_init(&w->sha);
    tt_status st = shape_of(head, path, &w->s, err);
    if (st == TT_OK) st = tt__new(&w->window, (size_t)w->s.window, 1, "a logit cache", err);
    if (st == TT_OK) st = tt__writer_open(path, 0, &w->w, err);
    if (st == TT_OK) st = tt__write_zeros(w->w, HEAD, err);
    if (st == TT_OK) *out = w;
    else tt__logits_abort(w);
    return st;
}

static tt_status add_window(tt_logits_writer *w, const uint8_t *bytes, tt_err *err) {
    tt__sha256_update(&w->sha, bytes, (size_t)w->s.window);
    w->windows++;
    return tt__write(w->w, bytes, (size_t)w->s.window, err);
}

static uint16_t steps_of(float logp) {
    double q = floor(-(double)logp * STEPS + 0.5);
    return (uint16_t)(q < 0 ? 0 : q > 65535 ? 65535 : q);      /* below e^-32: nothing */
}

tt_status tt__logits_add(tt_logits_writer *w, const uint8_t key[TT_LOGITS_KEY], const int32_t *ids, const float *logp, const float *rest, tt_err *err) {
    const uint64_t n = w->s.n, all = n * w->s.k;
    uint8_t *p = w->window;
    memcpy(p, key, KEY);
    p += KEY;
    for (uint64_t i = 0; i < n; i++, p += 4) {
        TT_FAIL_IF(isnan(rest[i]), err, TT_FAIL, "teacher's logits are not numbers|target %llu", (unsigned long long)i);
        float r = rest[i] > 0 ? 0 : rest[i] < NO_REST ? NO_REST : rest[i];
        memcpy(p, &r, 4);
    }
    for (uint64_t i = 0; i < all; i++, p += 2) {
        TT_FAIL_IF(isnan(logp[i]), err, TT_FAIL, "teacher's logits are not numbers|target %llu", (unsigned long long)(i / w->s.k));
        uint16_t q = steps_of(logp[i]);
        memcpy(p, &q, 2);
    }
    for (uint64_t i = 0; i < all; i++, p += w->s.id) {
        uint32_t id = (uint32_t)ids[i];
        uint16_t narrow = (uint16_t)id;
        if (w->s.id == 2) memcpy(p, &narrow, 2);
        else memcpy(p, &id, 4);
    }
    return add_window(w, w->window, err);
}

tt_status tt__logits_copy(tt_logits_writer *w, const tt_logits *from, int64_t window, tt_err *err) { return add_window(w, window_at(from, window), err); }

int64_t tt__logits_written(const tt_logits_writer *w) { return w->windows; }

static tt_status close_writer(tt_logits_writer *w, tt_err *err) {
    uint8_t head[HEAD], digest[SHA];
    TT_TRY(write_head(&w->head, w->windows, head, err));
    tt__sha256_update(&w->sha, head, HEAD);
    tt__sha256_final(&w->sha, digest);
    TT_TRY(tt__write(w->w, digest, SHA, err));
    return tt__write_at(w->w, 0, head, HEAD, err);
}

tt_status tt__logits_commit(tt_logits_writer *w, tt_err *err) {
    tt_status st = close_writer(w, err);
    if (st == TT_OK) {
        st = tt__writer_commit(w->w, err);
        w->w = NULL;
    }
    tt__logits_abort(w);
    return st;
}

void tt__logits_abort(tt_logits_writer *w) {
    if (!w) return;
    tt__writer_abort(w->w);
    tt__free(w->window);
    tt__free(w);
}
