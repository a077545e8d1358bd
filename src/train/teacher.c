/* The teacher's targets, computed once (teacher.h). */
#include "train/teacher.h"

#include "train/rawfile.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_PARTS = 1000, LOGIT_BYTES = 16 << 20, MAX_CHUNK = 64 };

struct tt_teacher {
    tt_ctx *ctx;
    tt_teacher_options o;
    tt_train_job *job;
    tt_runner *runner;
    int64_t V, d, n, chunk;                       /* n: targets of a window; chunk: rows whose logits are alive */
    tt_logits_head head;
    char *path;                                   /* of the file */
    tt_logits *file, *part[MAX_PARTS];
    int n_parts;
    float *H, *z, *logp, *rest;                   /* [batch*length, d], [chunk, V], [n, k], [n] of a window */
    int32_t *ids;                                 /* [n, k] */
    tt_top *heap;                                 /* [chunk, k] */
};

/* ------------------------------------------------------------ the k likeliest ---- */

/* Root: the least likely; of equal ones the last. */
static bool before(tt_top a, tt_top b) { return a.z < b.z || (a.z == b.z && a.id > b.id); }

static void sift(tt_top *h, int64_t i, int64_t n) {
    for (int64_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && before(h[c + 1], h[c])) c++;
        if (!before(h[c], h[i])) return;
        tt_top swap = h[i];
        h[i] = h[c], h[c] = swap;
    }
}

static int by_id(const void *a, const void *b) {
    const tt_top *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

void tt__top_k(const float *z, int64_t n, int64_t k, tt_top *heap) {
    for (int64_t i = 0; i < k; i++) heap[i] = (tt_top){z[i], (int32_t)i};
    for (int64_t i = k / 2; i-- > 0;) sift(heap, i, k);
    for (int64_t i = k; i < n; i++) {
        if (!(z[i] > heap[0].z)) continue;
        heap[0] = (tt_top){z[i], (int32_t)i};
        sift(heap, 0, k);
    }
    qsort(heap, (size_t)k, sizeof *heap, by_id);
}

typedef struct top_args { tt_teacher *t; int64_t row; } top_args;      /* row: of the window, where the chunk begins */

/* With a = max + log Σ exp(z/T - max): log p = z/T - a, and the rest's mass is what the k leave. */
static void top_row(void *arg, int64_t i, int worker) {
    const top_args *a = arg;
    tt_teacher *t = a->t;
    int64_t k = t->o.k, row = a->row + i;
    float *z = t->z + i * t->V, scale = (float)(1 / t->o.temperature), max;
    tt_top *top = t->heap + i * k;
    (void)worker;
    if (scale != 1)
        for (int64_t v = 0; v < t->V; v++) z[v] *= scale;
    double sum = t->ctx->k->softmax_stats_f32(z, t->V, &max), left = sum;
    tt__top_k(z, t->V, k, top);
    for (int64_t j = 0; j < k; j++) {
        t->ids[row * k + j] = top[j].id;
        t->logp[row * k + j] = (float)((double)top[j].z - (double)max - log(sum));
        left -= exp((double)top[j].z - (double)max);
    }
    t->rest[row] = left > 0 && k < t->V ? (float)log(left / sum) : -INFINITY;
    if (isnan(sum)) t->rest[row] = NAN;                        /* the writer refuses it */
}

/* ------------------------------------------------------------ files ---- */

static void key_of(const int32_t *ids, int64_t length, uint8_t key[TT_LOGITS_KEY]) {
    uint8_t digest[32];
    tt__sha256 s;
    tt__sha256_init(&s);
    tt__sha256_update(&s, ids, (size_t)length * sizeof *ids);
    tt__sha256_final(&s, digest);
    memcpy(key, digest, TT_LOGITS_KEY);
}

static void fill_head(tt_teacher *t) {
    tt_logits_head *h = &t->head;
    *h = (tt_logits_head){.vocab = t->V, .k = t->o.k, .length = t->o.length, .temperature = (float)t->o.temperature};
    snprintf(h->teacher, sizeof h->teacher, "%s", t->job->teacher_sha256 ? t->job->teacher_sha256 : "");
    snprintf(h->data, sizeof h->data, "%s", t->job->data_sha256 ? t->job->data_sha256 : "");
    snprintf(h->isa, sizeof h->isa, "%s", t->ctx->k->isa);
}

static tt_status name_file(tt_teacher *t, tt_err *err) {
    tt__str key = {0}, path = {0};
    char hash[65];
    const tt_logits_head *h = &t->head;
    tt__str_printf(&key, "%s %s %s %lld %lld %lld %g", h->teacher, h->data, h->isa, (long long)h->vocab, (long long)h->k, (long long)h->length, (double)h->temperature);
    if (!key.failed) tt__sha256_hex(key.s, key.n, hash);
    if (t->job->cache_dir) tt__str_printf(&path, "%s/%.16s.logits", t->job->cache_dir, hash);
    else tt__str_printf(&path, "%s/teacher.logits", t->job->state_dir);
    t->path = path.s;
    bool failed = key.failed || path.failed;
    tt__str_free(&key);
    TT_FAIL_IF(failed, err, TT_RESOURCE, "out of memory|a path");
    return tt__mkdirs(t->job->cache_dir ? t->job->cache_dir : t->job->state_dir, err);
}

static tt_status part_path(const tt_teacher *t, int i, char **path, tt_err *err) {
    tt__str s = {0};
    tt__str_printf(&s, "%s/teacher.%03d", t->job->state_dir, i);
    *path = s.s;
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

/* Part n_parts of a run that was interrupted; *more: there was one. One that does not fit is passed over, its windows are asked for again. */
static tt_status take_part(tt_teacher *t, bool *more, tt_err *err) {
    char *path = NULL;
    tt_err why = {0};
    TT_TRY(part_path(t, t->n_parts, &path, err));
    *more = tt__exists(path) && tt__logits_open(path, &t->head, &t->part[t->n_parts], &why) == TT_OK;
    if (*more) t->n_parts++;
    else if (why.what[0]) tt__log(t->ctx, TT_LOG_WARN, "tune: %s does not fit and is made again: %s", path, why.what);
    tt__free(path);
    return TT_OK;
}

static tt_status open_files(tt_teacher *t, tt_err *err) {
    bool more = t->job->resume;
    if (tt__exists(t->path)) TT_TRY(tt__logits_open(t->path, &t->head, &t->file, err));
    while (more && t->n_parts < MAX_PARTS) TT_TRY(take_part(t, &more, err));
    return TT_OK;
}

static int64_t find(const tt_teacher *t, const uint8_t key[TT_LOGITS_KEY], const tt_logits **in) {
    int64_t at = t->file ? tt__logits_find(t->file, key) : -1;
    *in = t->file;
    for (int i = 0; i < t->n_parts && at < 0; i++) {
        *in = t->part[i];
        at = tt__logits_find(t->part[i], key);
    }
    return at;
}

/* ------------------------------------------------------------ asking ---- */

/* Window s of those whose hidden rows lie in H. */
static tt_status add_window(tt_teacher *t, tt_logits_writer *w, int64_t s, const uint8_t *key, tt_err *err) {
    for (int64_t row = 0; row < t->n; row += t->chunk) {
        int64_t rows = t->n - row < t->chunk ? t->n - row : t->chunk;
        top_args a = {t, row};
        TT_TRY(tt__run_logits(t->runner, t->H + (s * t->o.length + row) * t->d, rows, t->z, err));
        tt__parallel(t->ctx, rows, top_row, &a);
    }
    return tt__logits_add(w, key, t->ids, t->logp, t->rest, err);
}

typedef struct missing { const int32_t *ids; uint8_t key[TT_LOGITS_KEY]; } missing;

static tt_status ask(tt_teacher *t, tt_logits_writer *w, const missing *m, int64_t S, int32_t *batch, tt_err *err) {
    for (int64_t s = 0; s < S; s++) memcpy(batch + s * t->o.length, m[s].ids, (size_t)t->o.length * sizeof *batch);
    TT_TRY(tt__run_hidden(t->runner, S, t->o.length, batch, t->H, err));
    for (int64_t s = 0; s < S; s++) TT_TRY(add_window(t, w, s, m[s].key, err));
    return TT_OK;
}

/* The next part: as many windows as fit between two saves. What a cancelled run has not finished is thrown away. */
static tt_status write_part(tt_teacher *t, const missing *m, size_t n, int32_t *batch, size_t *done, size_t all, tt_err *err) {
    char *path = NULL;
    tt_logits_writer *w = NULL;
    double began = tt__now();
    size_t at = 0;
    TT_FAIL_IF(t->n_parts == MAX_PARTS, err, TT_FAIL, "too many parts of a logit cache|%s|%d|", t->job->state_dir, MAX_PARTS);
    TT_TRY(tt__mkdirs(t->job->state_dir, err));
    TT_TRY(part_path(t, t->n_parts, &path, err));
    tt_status st = tt__logits_create(path, &t->head, &w, err);
    bool last = t->n_parts == MAX_PARTS - 1;                    /* then without a save */
    while (st == TT_OK && at < n && (at == 0 || last || tt__now() - began < t->job->checkpoint_seconds)) {
        int64_t S = (int64_t)(n - at) < t->o.batch ? (int64_t)(n - at) : t->o.batch;
        st = ask(t, w, m + at, S, batch, err);
        if (st != TT_OK) break;
        at += (size_t)S;
        tt__progress(t->ctx, "teacher", (double)(*done + at), (double)all, "windows", "");
        if (tt__check_cancel(t->ctx, NULL) != TT_OK) break;     /* what there is, is kept; the caller asks again */
    }
    if (st == TT_OK) st = tt__logits_commit(w, err);
    else tt__logits_abort(w);
    if (st == TT_OK) st = tt__logits_open(path, &t->head, &t->part[t->n_parts], err);
    if (st == TT_OK) t->n_parts++;
    *done += at;
    tt__free(path);
    return st;
}

/* ------------------------------------------------------------ one file of all ---- */

static tt_status copy_all(tt_logits_writer *w, const tt_logits *from, const tt_logits *known, tt_err *err) {
    for (int64_t i = 0; i < tt__logits_windows(from); i++)
        if (!known || tt__logits_find(known, tt__logits_key(from, i)) < 0) TT_TRY(tt__logits_copy(w, from, i, err));
    return TT_OK;
}

static tt_status write_file(tt_teacher *t, tt_err *err) {
    tt_logits_writer *w = NULL;
    TT_TRY(tt__logits_create(t->path, &t->head, &w, err));
    tt_status st = t->file ? copy_all(w, t->file, NULL, err) : TT_OK;
    for (int i = 0; i < t->n_parts && st == TT_OK; i++) st = copy_all(w, t->part[i], t->file, err);
    if (st == TT_OK) return tt__logits_commit(w, err);
    tt__logits_abort(w);
    return st;
}

static tt_status drop_parts(tt_teacher *t, tt_err *err) {
    tt_status st = TT_OK;
    while (t->n_parts && st == TT_OK) {
        char *path = NULL;
        tt__logits_close(t->part[--t->n_parts]);
        t->part[t->n_parts] = NULL;
        st = part_path(t, t->n_parts, &path, err);
        if (st == TT_OK) st = tt__remove(path, err);
        tt__free(path);
    }
    return st;
}

static tt_status unite(tt_teacher *t, tt_err *err) {
    if (!t->n_parts) return TT_OK;
    TT_TRY(write_file(t, err));
    tt__logits_close(t->file);
    t->file = NULL;
    TT_TRY(tt__logits_open(t->path, &t->head, &t->file, err));
    return drop_parts(t, err);
}

/* ------------------------------------------------------------ the public calls ---- */

static int by_key(const void *a, const void *b) { return memcmp(((const missing *)a)->key, ((const missing *)b)->key, TT_LOGITS_KEY); }

/* Those of the windows that no file has, each once; the order is that of their keys, so it does not depend on the caller's. */
static size_t list_missing(const tt_teacher *t, const int32_t *const *windows, size_t n, missing *m) {
    const tt_logits *in;
    size_t count = 0, kept = 0;
    for (size_t i = 0; i < n; i++) {
        m[count].ids = windows[i];
        key_of(windows[i], t->o.length, m[count].key);
        if (find(t, m[count].key, &in) < 0) count++;
    }
    qsort(m, count, sizeof *m, by_key);
    for (size_t i = 0; i < count; i++)
        if (!kept || by_key(&m[kept - 1], &m[i]) != 0) m[kept++] = m[i];
    return kept;
}

tt_status tt__teacher_prepare(tt_teacher *t, const int32_t *const *windows, size_t n, tt_err *err) {
    missing *m = NULL;
    int32_t *batch = NULL;
    size_t done = 0;
    tt_status st = tt__new(&m, n ? n : 1, sizeof *m, "a list of windows", err);
    if (st == TT_OK) st = tt__new(&batch, (size_t)(t->o.batch * t->o.length), sizeof *batch, "a batch", err);
    size_t all = st == TT_OK ? list_missing(t, windows, n, m) : 0;
    tt__runner_set_bf16(t->runner, false);
    while (st == TT_OK && done < all) {
        st = tt__check_cancel(t->ctx, err);
        if (st == TT_OK) st = write_part(t, m + done, all - done, batch, &done, all, err);
    }
    if (st == TT_OK) st = unite(t, err);
    tt__free(batch);
    tt__free(m);
    return st;
}

int64_t tt__teacher_k(const tt_teacher *t) { return t->o.k; }

tt_status tt__teacher_rows(tt_teacher *t, const int32_t *ids, int64_t S, int32_t *top, float *logp, float *rest, tt_err *err) {
    for (int64_t s = 0; s < S; s++) {
        uint8_t key[TT_LOGITS_KEY];
        const tt_logits *in;
        key_of(ids + s * t->o.length, t->o.length, key);
        int64_t at = find(t, key, &in);
        TT_FAIL_IF(at < 0, err, TT_FAIL, "window was not prepared|logit cache");
        for (int64_t r = 0; r < t->n; r++) {
            int64_t row = s * t->n + r;
            tt__logits_row(in, at, r, top + row * t->o.k, logp + row * t->o.k, rest + row);
        }
    }
    return TT_OK;
}

static tt_status reserve(tt_teacher *t, tt_err *err) {
    size_t nk = (size_t)(t->n * t->o.k), rows = (size_t)(t->o.batch * t->o.length);
    int64_t chunk = LOGIT_BYTES / ((int64_t)sizeof(float) * t->V);
    t->chunk = chunk < 1 ? 1 : chunk > MAX_CHUNK ? MAX_CHUNK : chunk;
    TT_TRY(tt__new(&t->H, rows * (size_t)t->d, sizeof(float), "the teacher's rows", err));
    TT_TRY(tt__new(&t->z, (size_t)(t->chunk * t->V), sizeof(float), "the teacher's logits", err));
    TT_TRY(tt__new(&t->heap, (size_t)(t->chunk * t->o.k), sizeof *t->heap, "the teacher's likeliest tokens", err));
    TT_TRY(tt__new(&t->ids, nk, sizeof *t->ids, "the teacher's likeliest tokens", err));
    TT_TRY(tt__new(&t->logp, nk, sizeof(float), "the teacher's likeliest tokens", err));
    return tt__new(&t->rest, (size_t)t->n, sizeof(float), "the teacher's likeliest tokens", err);
}

tt_status tt__teacher_open(tt_ctx *ctx, const tt_teacher_options *o, tt_train_job *job, tt_runner *runner, tt_teacher **out, tt_err *err) {
    tt_teacher *t = NULL;
    const tt_hparams *hp = &job->teacher->hp;
    *out = NULL;
    TT_TRY(tt__new(&t, 1, sizeof *t, "the teacher", err));
    *t = (tt_teacher){.ctx = ctx, .o = *o, .job = job, .runner = runner, .V = hp->n_vocab, .d = hp->n_embd, .n = o->length - 1};
    if (t->o.k > t->V) t->o.k = t->V;
    fill_head(t);
    tt_status st = reserve(t, err);
    if (st == TT_OK) st = name_file(t, err);
    if (st == TT_OK) st = open_files(t, err);
    if (st == TT_OK) *out = t;
    else tt__teacher_close(t);
    return st;
}

void tt__teacher_done(tt_teacher *t) {
    tt_err ignored = {0};
    if (t->job->cache_dir) return;
    tt__logits_close(t->file);
    t->file = NULL;
    tt__remove(t->path, &ignored);
    tt__remove_empty(t->job->state_dir);
}

void tt__teacher_close(tt_teacher *t) {
    if (!t) return;
    tt__logits_close(t->file);
    for (int i = 0; i < t->n_parts; i++) tt__logits_close(t->part[i]);
    tt__free(t->H);
    tt__free(t->z);
    tt__free(t->heap);
    tt__free(t->ids);
    tt__free(t->logp);
    tt__free(t->rest);
    tt__free(t->path);
    tt__free(t);
}
