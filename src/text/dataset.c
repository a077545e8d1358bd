/* Documents → tokens → windows. See dataset.h.
 *
 * A document is never joined with another one before its tokens are known, so that neither a merge nor a window crosses its border
 * (tt__windows_packed, made for short documents, says so). Documents of nothing but white space are left out. */
#include "text/dataset.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/util.h"
#include "text/template.h"
#include <dirent.h>
#include <errno.h>
#include <regex.h>
#include <stdlib.h>
#include <strings.h>

/* ---- documents ---- */
static bool is_blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n\v\f", s[i]) || !s[i]) return false;
    return true;
}

typedef struct loader { tt_docs *docs; size_t cap; tt__sha256 sha; } loader;

static tt_status add_doc(loader *l, const char *s, size_t n, bool chat, const char *where, tt_err *err) {
    tt_docs *d = l->docs;
    if (is_blank(s, n)) return TT_OK;
    TT_FAIL_IF(d->n >= TT_LIMIT_DOCS, err, TT_BADFILE, "too many documents|%s||at most %llu (DOCS)", where, (unsigned long long)TT_LIMIT_DOCS);
    if (d->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 16;
        char **text = tt__realloc(d->text, cap * sizeof *text);
        if (text) d->text = text;
        size_t *bytes = text ? tt__realloc(d->bytes, cap * sizeof *bytes) : NULL;
        if (bytes) d->bytes = bytes;
        bool *chats = bytes ? tt__realloc(d->chat, cap * sizeof *chats) : NULL;
        if (chats) d->chat = chats;
        if (!chats) return tt__fail(err, TT_RESOURCE, "out of memory|for the documents of %s", where);
        l->cap = cap;
    }
    char *copy = tt__strndup(s, n);
    if (!copy) return tt__fail(err, TT_RESOURCE, "out of memory|for the documents of %s|%zu bytes", where, n);
    d->text[d->n] = copy;
    d->chat[d->n] = chat;
    d->bytes[d->n++] = n;
    return TT_OK;
}

/* A matching line begins a document. */
static tt_status split_text(loader *l, const char *s, size_t n, regex_t *re, const char *where, tt_err *err) {
    size_t begin = 0;
    tt_status st = TT_OK;
    for (size_t line = 0, next; re && line < n && st == TT_OK; line = next) {
        const char *nl = memchr(s + line, '\n', n - line);
        next = nl ? (size_t)(nl - s) + 1 : n;
        size_t end = nl ? (size_t)(nl - s) : n;
        if (end > line && s[end - 1] == '\r') end--;
        regmatch_t m = {.rm_so = 0, .rm_eo = (regoff_t)(end - line)};    /* the line alone, so that ^ means its begin */
        if (line == 0 || regexec(re, s + line, 1, &m, REG_STARTEND) != 0) continue;
        st = add_doc(l, s + begin, line - begin, false, where, err);
        begin = line;
    }
    return st == TT_OK ? add_doc(l, s + begin, n - begin, false, where, err) : st;
}

/* Roles and contents of a document's messages, lent by the list. */
static tt_status take_messages(const json_t *list, tt_message *out, const char *where, tt_err *err) {
    size_t i;
    const json_t *m;
    json_array_foreach(list, i, m) {
        const char *role = json_is_object(m) ? json_string_value(json_object_get(m, "role")) : NULL;
        const char *content = role ? json_string_value(json_object_get(m, "content")) : NULL;
        TT_FAIL_IF(!content, err, TT_BADFILE, "bad message|%s, message %zu||{\"role\": \"…\", \"content\": \"…\"}", where, i + 1);
        if (out) out[i] = (tt_message){role, content};
    }
    return TT_OK;
}

static tt_status add_messages(loader *l, const json_t *list, const char *where, tt_err *err) {
    tt__str s = {0};
    TT_FAIL_IF(json_array_size(list) < 1 || json_array_size(list) > TT_LIMIT_MESSAGES, err, TT_BADFILE, "bad number of messages|%s|%zu|1 to %llu (MESSAGES)", where,
               json_array_size(list), (unsigned long long)TT_LIMIT_MESSAGES);
    TT_TRY(take_messages(list, NULL, where, err));
    tt__json_write(&s, list, JSON_COMPACT);
    tt_status st = s.failed ? tt__fail(err, TT_RESOURCE, "out of memory|for the documents of %s", where) : add_doc(l, s.s, s.n, true, where, err);
    tt__str_free(&s);
    return st;
}

static tt_status add_json_doc(loader *l, const json_t *v, const char *where, tt_err *err) {
    const json_t *text = json_is_object(v) ? json_object_get(v, "text") : NULL, *messages = json_is_object(v) ? json_object_get(v, "messages") : NULL;
    if (!text && json_is_array(messages)) return add_messages(l, messages, where, err);
    TT_FAIL_IF(!json_is_string(text), err, TT_BADFILE, "document without text|%s||{\"text\": \"…\"} or {\"messages\": […]}", where);
    return add_doc(l, json_string_value(text), json_string_length(text), false, where, err);
}

static tt_status split_jsonl(loader *l, const char *s, size_t n, const char *path, tt_err *err) {
    tt_status st = TT_OK;
    size_t number = 1;
    for (size_t line = 0, next; line < n && st == TT_OK; line = next, number++) {
        const char *nl = memchr(s + line, '\n', n - line);
        next = nl ? (size_t)(nl - s) + 1 : n;
        if (is_blank(s + line, next - line)) continue;
        json_t *v;
        st = tt__json_parse(s + line, next - line, "this line", &v, err);
        if (st == TT_OK) {
            st = add_json_doc(l, v, "this line", err);
            json_decref(v);
        }
        if (st != TT_OK) tt__err_at(err, st, "%s, line %zu", path, number);
    }
    return st;
}

static tt_status split_json(loader *l, const char *s, size_t n, const char *path, tt_err *err) {
    json_t *v, *item;
    size_t i;
    TT_TRY(tt__json_parse(s, n, path, &v, err));
    tt_status st = TT_OK;
    if (!json_is_array(v)) st = tt__fail(err, TT_BADFILE, "not a list of documents|%s||[{\"text\": \"…\"}, …]", path);
    json_array_foreach(v, i, item) {
        if (st == TT_OK && (st = add_json_doc(l, item, "this document", err)) != TT_OK) tt__err_at(err, st, "%s, document %zu", path, i);
    }
    json_decref(v);
    return st;
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcasecmp(s + n - k, tail) == 0;
}

static tt_status load_file(loader *l, const char *path, regex_t *re, tt_err *err) {
    char *s;
    size_t n;
    TT_TRY(tt__read_file(path, TT_LIMIT_TEXT_BYTES, &s, &n, err));
    tt__sha256_update(&l->sha, s, n);
    tt_status st = ends_with(path, ".jsonl") ? split_jsonl(l, s, n, path, err)
                 : ends_with(path, ".json") ? split_json(l, s, n, path, err)
                                            : split_text(l, s, n, re, path, err);
    tt__free(s);
    return st;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Names of the *.txt files of a folder, sorted. The caller frees each and the list, also after a failure. */
static tt_status list_texts(const char *dir, char ***names, size_t *n, tt_err *err) {
    DIR *d = opendir(dir);
    TT_FAIL_IF(!d, err, TT_FAIL, "cannot open folder|%s|%s", dir, strerror(errno));
    tt_status st = TT_OK;
    size_t cap = 0;
    for (struct dirent *e; st == TT_OK && (e = readdir(d));) {
        if (e->d_name[0] == '.' || !ends_with(e->d_name, ".txt")) continue;
        if (*n == cap) {
            char **v = tt__realloc(*names, (cap = cap ? 2 * cap : 16) * sizeof *v);
            if (v) *names = v; else { st = tt__fail(err, TT_RESOURCE, "out of memory|for the list of %s", dir); break; }
        }
        if (!((*names)[*n] = tt__path_join(dir, e->d_name))) st = tt__fail(err, TT_RESOURCE, "out of memory|for the list of %s", dir);
        else ++*n;
    }
    closedir(d);
    if (*n) qsort(*names, *n, sizeof **names, by_bytes);
    return st;
}

/* The hash of a folder covers each file's name and bytes; that of a file is the plain one. */
static tt_status load_folder(loader *l, const char *dir, regex_t *re, tt_err *err) {
    char **names = NULL;
    size_t n = 0;
    tt_status st = list_texts(dir, &names, &n, err);
    for (size_t i = 0; i < n; i++) {
        const char *name = names[i] + strlen(names[i]);
        while (name > names[i] && name[-1] != '/') name--;
        tt__sha256_update(&l->sha, name, strlen(name) + 1);
        if (st == TT_OK) st = load_file(l, names[i], re, err);
        tt__free(names[i]);
    }
    tt__free(names);
    return st;
}

tt_status tt__docs_load(const char *path, const char *split, tt_docs *out, tt_err *err) {
    loader l = {.docs = out};
    regex_t re;
    *out = (tt_docs){0};
    tt__sha256_init(&l.sha);
    if (split) {
        int code = regcomp(&re, split, REG_EXTENDED);
        char why[100] = "";
        if (code) regerror(code, &re, why, sizeof why);
        TT_FAIL_IF(code, err, TT_USAGE, "bad regular expression|split|%s|a POSIX extended expression|%s", split, why);
    }
    tt_status st = tt__is_dir(path) ? load_folder(&l, path, split ? &re : NULL, err) : load_file(&l, path, split ? &re : NULL, err);
    if (split) regfree(&re);
    if (st == TT_OK && out->n == 0) st = tt__fail(err, TT_BADFILE, "no text|%s|no document|at least one that is not blank", path);
    if (st != TT_OK) { tt__docs_free(out); return st; }
    tt__sha256_final_hex(&l.sha, out->sha256);
    return TT_OK;
}

void tt__docs_free(tt_docs *d) {
    for (size_t i = 0; i < d->n; i++) tt__free(d->text[i]);
    tt__free(d->text);
    tt__free(d->bytes);
    tt__free(d->chat);
    *d = (tt_docs){0};
}

/* ---- split ---- */
static void hash_docs(tt_docs *d) {
    tt__sha256 sha;
    tt__sha256_init(&sha);
    for (size_t i = 0; i < d->n; i++) {
        uint64_t n = d->bytes[i];
        tt__sha256_update(&sha, &n, sizeof n);
        tt__sha256_update(&sha, d->text[i], d->bytes[i]);
    }
    tt__sha256_final_hex(&sha, d->sha256);
}

static uint64_t distance(uint64_t a, uint64_t b) { return a > b ? a - b : b - a; }

/* Documents in shuffled order go to b while that brings b nearer to its target; one stays in a, and one goes to b. */
static void choose(const tt_docs *d, double share, uint64_t seed, size_t *order, bool *in_b) {
    uint64_t total = 0, taken = 0;
    tt__rng rng;
    tt__rng_seed(&rng, seed);
    for (size_t i = 0; i < d->n; i++) { order[i] = i; total += d->bytes[i]; }
    for (size_t i = d->n; i > 1; i--) {
        size_t j = (size_t)tt__rng_below(&rng, i), x = order[i - 1];
        order[i - 1] = order[j];
        order[j] = x;
    }
    uint64_t target = (uint64_t)(share * (double)total);
    size_t chosen = 0;
    for (size_t k = 0; k < d->n && chosen + 1 < d->n; k++) {
        uint64_t n = d->bytes[order[k]];
        if (distance(taken + n, target) < distance(taken, target)) { in_b[order[k]] = true; taken += n; chosen++; }
    }
    if (chosen == 0) in_b[order[0]] = true;
}

/* A single document is cut at the line break (else the space, else the character) next before the share. */
static size_t cut_of(const char *s, size_t n, double share) {
    size_t at = (size_t)((1.0 - share) * (double)n), i = at;
    while (i > n / 100 && s[i - 1] != '\n') i--;
    if (i > n / 100 && i > 0) return i;
    for (i = at; i > 0 && s[i - 1] != ' ';) i--;
    if (i > 0) return i;
    while (at > 0 && (s[at] & 0xC0) == 0x80) at--;
    return at;
}

tt_status tt__docs_split(const tt_docs *d, double share, uint64_t seed, tt_docs *a, tt_docs *b, tt_err *err) {
    loader la = {.docs = a}, lb = {.docs = b};
    *a = *b = (tt_docs){0};
    TT_FAIL_IF(!(share >= 0 && share <= 1), err, TT_USAGE, "bad share|splitting documents|%g|0 … 1", share);
    size_t *order = NULL;
    bool *in_b = NULL;
    tt_status st;
    TT_TRY_GOTO(tt__new(&order, d->n, sizeof *order, "splitting documents", err));
    TT_TRY_GOTO(tt__new(&in_b, d->n, sizeof *in_b, "splitting documents", err));
    if (share <= 0 || share >= 1) {
        for (size_t i = 0; i < d->n; i++) in_b[i] = share >= 1;
    } else if (d->n > 1) {
        choose(d, share, seed, order, in_b);
    } else if (d->n == 1) {
        if (d->chat[0]) {
            st = tt__fail(err, TT_USAGE, "one document of messages cannot be split|%s|||give more documents, or a text of its own for validation", "the split");
            goto done;
        }
        size_t at = cut_of(d->text[0], d->bytes[0], share);
        TT_TRY_GOTO(add_doc(&la, d->text[0], at, false, "the split", err));
        TT_TRY_GOTO(add_doc(&lb, d->text[0] + at, d->bytes[0] - at, false, "the split", err));
        goto done;
    }
    for (size_t i = 0; i < d->n; i++) TT_TRY_GOTO(add_doc(in_b[i] ? &lb : &la, d->text[i], d->bytes[i], d->chat[i], "the split", err));
done:
    tt__free(order);
    tt__free(in_b);
    if (st != TT_OK) { tt__docs_free(a); tt__docs_free(b); return st; }
    hash_docs(a);
    hash_docs(b);
    return TT_OK;
}

/* ---- tokens ---- */
static tt_status append(tt_tokens *t, size_t *cap, const int32_t *ids, size_t n, tt_err *err) {
    if (n > *cap - t->n) {
        size_t want = (t->n + n) + (t->n + n) / 2;
        int32_t *v = want <= SIZE_MAX / sizeof *v ? tt__realloc(t->ids, want * sizeof *v) : NULL;
        if (!v) return tt__fail(err, TT_RESOURCE, "out of memory|for tokens|%zu", t->n + n);
        t->ids = v;
        *cap = want;
    }
    if (n) memcpy(t->ids + t->n, ids, n * sizeof *ids);
    t->n += n;
    return TT_OK;
}

static tt_status encode_messages(const tt_tokenizer *t, const char *text, size_t bytes, int32_t **ids, size_t *n, tt_err *err) {
    json_t *list = NULL;
    tt_message *m = NULL;
    TT_TRY(tt__json_parse(text, bytes, "a document of messages", &list, err));
    tt_status st = tt__new(&m, json_array_size(list), sizeof *m, "messages", err);
    if (st == TT_OK) st = take_messages(list, m, "a document", err);
    if (st == TT_OK) st = tt__chat_encode(t, m, json_array_size(list), false, ids, n, err);
    tt__free(m);
    json_decref(list);
    return st;
}

tt_status tt__docs_tokenize(const tt_docs *d, const tt_tokenizer *t, tt_tokens *out, tt_err *err) {
    size_t cap = 0;
    *out = (tt_tokens){0};
    tt_status st = tt__new(&out->start, d->n + 1, sizeof *out->start, "the documents' tokens", err);
    for (size_t i = 0; i < d->n && st == TT_OK; i++) {
        int32_t *ids = NULL;
        size_t n = 0;
        st = d->chat && d->chat[i] ? encode_messages(t, d->text[i], d->bytes[i], &ids, &n, err) : tt__tokenizer_encode(t, d->text[i], d->bytes[i], 0, &ids, &n, err);
        if (st == TT_OK) st = append(out, &cap, ids, n, err);
        tt__free(ids);
        out->start[i + 1] = out->n;
    }
    if (st != TT_OK) { tt__tokens_free(out); return st; }
    out->n_docs = d->n;
    return TT_OK;
}

void tt__tokens_free(tt_tokens *t) {
    tt__free(t->ids);
    tt__free(t->start);
    *t = (tt_tokens){0};
}

/* ---- windows ---- */
static tt_status check_lengths(int64_t length, int64_t min, tt_err *err) {
    TT_FAIL_IF(length < 1 || length > INT32_MAX || min < 1, err, TT_USAGE, "bad window|text windows|length %lld, at least %lld|1 … %d", (long long)length,
               (long long)min, INT32_MAX);
    return TT_OK;
}

tt_status tt__windows(const tt_tokens *t, int64_t length, int64_t min, tt_window **out, size_t *n, tt_err *err) {
    *out = NULL;
    *n = 0;
    TT_TRY(check_lengths(length, min, err));
    size_t most = t->n / (size_t)length + t->n_docs;
    TT_TRY(tt__new(out, most, sizeof **out, "text windows", err));
    for (size_t i = 0; i < t->n_docs; i++)
        for (size_t at = t->start[i], end = t->start[i + 1]; at < end; at += (size_t)length) {
            size_t k = end - at < (size_t)length ? end - at : (size_t)length;
            if (k >= (size_t)min) (*out)[(*n)++] = (tt_window){at, (int32_t)k, (int32_t)i};
        }
    return TT_OK;
}

/* All tokens of all documents, each followed by the separator, except the last. */
static tt_status join(const tt_tokens *t, int32_t separator, tt_tokens *out, tt_err *err) {
    *out = (tt_tokens){0};
    TT_TRY(tt__new(&out->ids, t->n + t->n_docs, sizeof *out->ids, "joined documents", err));
    tt_status st = tt__new(&out->start, t->n_docs + 1, sizeof *out->start, "joined documents", err);
    if (st != TT_OK) { tt__tokens_free(out); return st; }
    out->n_docs = t->n_docs;
    for (size_t i = 0; i < t->n_docs; i++) {
        size_t k = t->start[i + 1] - t->start[i];
        if (k) memcpy(out->ids + out->n, t->ids + t->start[i], k * sizeof *t->ids);
        out->n += k;
        if (separator >= 0 && k && i + 1 < t->n_docs) out->ids[out->n++] = separator;
        out->start[i + 1] = out->n;
    }
    return TT_OK;
}

tt_status tt__windows_packed(const tt_tokens *t, int64_t length, int32_t separator, uint64_t seed, tt_tokens *joined, tt_window **out, size_t *n, tt_err *err) {
    *out = NULL;
    *n = 0;
    *joined = (tt_tokens){0};
    TT_TRY(check_lengths(length, 1, err));
    TT_TRY(join(t, separator, joined, err));
    size_t count = joined->n / (size_t)length;
    tt_status st = tt__new(out, count, sizeof **out, "text windows", err);
    if (st != TT_OK) { tt__tokens_free(joined); return st; }
    size_t doc = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = i * (size_t)length;
        while (joined->start[doc + 1] <= at) doc++;
        (*out)[i] = (tt_window){at, (int32_t)length, (int32_t)doc};
    }
    tt__rng rng;
    tt__rng_seed(&rng, seed);
    for (size_t i = count; i > 1; i--) {
        size_t j = (size_t)tt__rng_below(&rng, i);
        tt_window x = (*out)[i - 1];
        (*out)[i - 1] = (*out)[j];
        (*out)[j] = x;
    }
    *n = count;
    return TT_OK;
}
