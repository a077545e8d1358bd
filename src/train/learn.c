/* Learning end to end (learn.h). What may interrupt must not change the result. Everything a run needs is in its state files: values, moments,
 * counters, the validation curve, and the number of steps (fixed once, also under a time budget). The order of windows is a function of seed and
 * step, the last good point a function of the step; the clock decides only when the state is written. So a run that was killed anywhere ends with
 * the bytes of one that was not.
 *
 *     STATE/NAME.state    "TTLEARN" | u32 version | u32 0 | fingerprint 32 B | counters | curve | guard | x m v of all sets | sha256 of it all
 *     STATE/NAME.good-S   "TTPOINT" | u32 version | u32 arrays | fingerprint | i64 step | x m v | sha256         the last validation
 *     STATE/NAME.best-S   the same with x alone                                                                the best one
 *
 * Points are written at validations and not kept in memory: values of the size of a model would be there seven times. Each has two slots S; a new
 * point goes where the saved state does not look, so a killed run finds the one it was saved with.
 *
 * A loss, gradient or validation that is not finite goes back to the last good point with half the rate, three times; then it fails and names
 * the step (RELIABILITY 3.7).
 */
#include "train/learn.h"

#include "base/checked.h"
#include "base/fault.h"
#include "train/optim.h"
#include "train/rawfile.h"
#include <math.h>
#include <stdio.h>

enum { VERSION = 4, MAX_HALVINGS = 3, HEAD_BYTES = 48, POINT_BYTES = 56, SHA_BYTES = 32, MAX_CURVE = 1 << 20, ADAM_PIECE = 1 << 15, GOOD = 0, BEST = 1 };
static const double LEAST_RATE = 0.05, SAVE_SHARE = 0.05;      /* of a cosine; of the time that may go into saving */

/* Counters of a run, stored as they lie here: 8-byte members only, so there is no padding. */
typedef struct counters {
    int64_t total, step, updates;            /* updates: Adam's t */
    int64_t slot[2], point[2];               /* of the good and the best point: where it is, its step */
    int64_t good_updates, good_tokens;
    int64_t halvings, n_curve, tokens_seen, recent_n;
    double rate;                             /* 2^-halvings */
    double first_loss, last_loss, first_valid, best_valid, recent_sum, seconds;
} counters;

typedef struct curve_point { int64_t step; double train, valid; } curve_point;   /* train: mean since the point before */

struct tt_learner {
    tt_ctx *ctx;
    const tt_learn_options *o;
    const tt_learn_task *task;
    tt_train_job *job;
    int64_t n;                               /* numbers of all sets */
    char *state_path;
    uint8_t fingerprint[32];
    counters c;
    int64_t saved_slot[2];                   /* what the state on disk refers to; -1: none */
    curve_point *curve;
    int64_t curve_cap;
    float *arrays;                           /* [3, n] x, m, v, as they lie in the file */
    float *g;                                /* [n] */
    tt_tokens train, valid;                  /* joined texts */
    tt_window *train_windows, *valid_windows;
    size_t n_train, n_valid;
    int64_t *order, epoch;                   /* windows of an epoch; -1: not made yet */
    int32_t *ids;                            /* [batch, length] */
    tt_guard *guard;                         /* NULL: no text is watched */
    double saved_at, save_took, began;
    bool resumed;
};

static bool trains(const tt_learner *l) { return l->o->steps > 0; }

/* ------------------------------------------------------------ data ---- */

static int32_t separator(const tt_tokenizer *t) {
    int32_t id = tt__tokenizer_find(t, "<|endoftext|>", strlen("<|endoftext|>"));
    return id >= 0 ? id : tt__tokenizer_eos(t);
}

static tt_status pack(tt_learner *l, const tt_tokens *text, const char *what, tt_tokens *joined, tt_window **w, size_t *n, tt_err *err) {
    TT_TRY(tt__windows_packed(text, l->o->length, separator(l->job->tokenizer), l->job->seed, joined, w, n, err));
    TT_FAIL_IF(*n == 0, err, TT_USAGE, "%s text is too short|length=%lld|%zu tokens|at least one window|lower length, or give more text",
               what, (long long)l->o->length, text->n);
    return TT_OK;
}

static tt_status prepare_data(tt_learner *l, tt_err *err) {
    TT_TRY(pack(l, l->job->train, "training", &l->train, &l->train_windows, &l->n_train, err));
    TT_TRY(pack(l, l->job->valid, "validation", &l->valid, &l->valid_windows, &l->n_valid, err));
    if (l->n_valid > (size_t)l->o->valid_windows) l->n_valid = (size_t)l->o->valid_windows;
    l->epoch = -1;
    TT_TRY(tt__new(&l->ids, (size_t)(l->o->batch * l->o->length), sizeof *l->ids, "a batch", err));
    return tt__new(&l->order, l->n_train, sizeof *l->order, "the order of windows", err);
}

/* Window i of the endless stream of epochs; each epoch is a shuffle of its own. */
static const int32_t *nth_window(tt_learner *l, int64_t i) {
    int64_t n = (int64_t)l->n_train, epoch = i / n;
    if (epoch != l->epoch) {
        tt__rng rng;
        tt__rng_seed(&rng, l->job->seed + 0x9e3779b97f4a7c15u * (uint64_t)(epoch + 1));
        for (int64_t k = 0; k < n; k++) l->order[k] = k;
        for (int64_t k = n - 1; k > 0; k--) {
            int64_t j = (int64_t)tt__rng_below(&rng, (uint64_t)k + 1), swap = l->order[k];
            l->order[k] = l->order[j], l->order[j] = swap;
        }
        l->epoch = epoch;
    }
    return l->train.ids + l->train_windows[l->order[i % n]].begin;
}

/* The task may prepare itself for the windows that validate, and those of the steps from … to-1 of the first epoch. */
static tt_status announce(tt_learner *l, int64_t from, int64_t to, tt_err *err) {
    if (!l->task->prepare) return TT_OK;
    const int32_t **w = NULL;
    int64_t first = from * l->o->batch, last = to * l->o->batch;
    if (last > (int64_t)l->n_train) last = (int64_t)l->n_train;          /* later epochs bring nothing new */
    if (first > last) first = last;
    size_t n = l->n_valid;
    TT_TRY(tt__new(&w, n + (size_t)(last - first), sizeof *w, "a list of windows", err));
    for (size_t i = 0; i < n; i++) w[i] = l->valid.ids + l->valid_windows[i].begin;
    for (int64_t i = first; i < last; i++) w[n++] = nth_window(l, i);
    tt_status st = l->task->prepare(l->task->user, w, n, err);
    tt__free(w);
    return st;
}

/* ------------------------------------------------------------ one batch ---- */

static tt_status batch_loss(tt_learner *l, int64_t S, bool gradient, double *loss, tt_err *err) {
    TT_TRY(l->task->loss(l->task->user, l->ids, S, gradient, loss, err));
    if (tt__fault(TT_FAULT_LOSS)) *loss = NAN;
    return TT_OK;
}

static void take_window(tt_learner *l, const int32_t *ids, int64_t slot) {
    memcpy(l->ids + slot * l->o->length, ids, (size_t)l->o->length * sizeof *ids);
}

static tt_status train_loss(tt_learner *l, int64_t step, double *loss, tt_err *err) {
    for (int64_t s = 0; s < l->o->batch; s++) take_window(l, nth_window(l, step * l->o->batch + s), s);
    return batch_loss(l, l->o->batch, true, loss, err);
}

/* Mean over all targets of the validation windows; every window has the same number of them. */
static tt_status validate(tt_learner *l, double *mean, tt_err *err) {
    double sum = 0;
    for (size_t at = 0; at < l->n_valid;) {
        int64_t S = 0;
        double loss = 0;
        TT_TRY(tt__check_cancel(l->ctx, err));
        while (S < l->o->batch && at < l->n_valid) take_window(l, l->valid.ids + l->valid_windows[at++].begin, S++);
        TT_TRY(batch_loss(l, S, false, &loss, err));
        sum += (double)S * loss;
    }
    *mean = sum / (double)l->n_valid;
    return TT_OK;
}

/* ------------------------------------------------------------ state files ---- */

static void hash_text(tt__sha256 *s, const char *text) { tt__sha256_update(s, text ? text : "-", strlen(text ? text : "-") + 1); }

static void hash_tokens(tt__sha256 *s, const tt_tokens *t) {
    tt__sha256_update(s, &t->n, sizeof t->n);
    tt__sha256_update(s, t->ids, t->n * sizeof *t->ids);
    tt__sha256_update(s, t->start, (t->n_docs + 1) * sizeof *t->start);
}

/* What the bytes of the result depend on: instruction set, models, recipe, texts, seed, budget. */
static void take_fingerprint(tt_learner *l) {
    tt__sha256 s;
    double time = l->o->time;
    tt__sha256_init(&s);
    hash_text(&s, l->ctx->k->isa);
    hash_text(&s, l->job->base_sha256);
    hash_text(&s, l->job->teacher_sha256);
    hash_text(&s, l->job->recipe_sha256);
    hash_text(&s, l->task->salt);
    hash_tokens(&s, l->job->train);
    hash_tokens(&s, l->job->valid);
    if (l->guard) tt__guard_hash(l->guard, &s);
    tt__sha256_update(&s, &l->job->seed, sizeof l->job->seed);
    for (int i = 0; i < l->task->n_sets; i++) tt__sha256_update(&s, &l->task->sets[i].n, sizeof(int64_t));
    tt__sha256_update(&s, &time, sizeof time);
    tt__sha256_final(&s, l->fingerprint);
}

typedef struct hashed { tt__writer *w; tt__sha256 s; } hashed;

static tt_status put(hashed *h, const void *data, size_t bytes, tt_err *err) {
    tt__sha256_update(&h->s, data, bytes);
    return tt__write(h->w, data, bytes, err);
}

static tt_status put_head(hashed *h, const char magic[8], uint32_t number, const uint8_t fingerprint[32], tt_err *err) {
    uint32_t version[2] = {VERSION, number};
    tt__sha256_init(&h->s);
    TT_TRY(put(h, magic, 8, err));
    TT_TRY(put(h, version, sizeof version, err));
    return put(h, fingerprint, 32, err);
}

static tt_status put_digest(hashed *h, tt_err *err) {
    uint8_t digest[SHA_BYTES];
    tt__sha256_final(&h->s, digest);
    return tt__write(h->w, digest, sizeof digest, err);
}

static tt_status close_file(tt__writer *w, tt_status st, tt_err *err) {
    if (st == TT_OK) return tt__writer_commit(w, err);
    tt__writer_abort(w);
    return st;
}

static bool digest_fits(const tt__map *map) {
    uint8_t digest[SHA_BYTES];
    tt__sha256 s;
    tt__sha256_init(&s);
    tt__sha256_update(&s, map->data, (size_t)map->size - SHA_BYTES);
    tt__sha256_final(&s, digest);
    return memcmp(digest, map->data + map->size - SHA_BYTES, SHA_BYTES) == 0;
}

/* ---- points ---- */

static tt_status point_path(const tt_learner *l, int kind, int64_t slot, char **path, tt_err *err) {
    tt__str s = {0};
    tt__str_printf(&s, "%s/%s.%s-%d", l->job->state_dir, l->task->file, kind == GOOD ? "good" : "best", (int)slot);
    *path = s.s;
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

static size_t point_arrays(int kind) { return kind == GOOD ? 3 : 1; }

static tt_status write_point(tt_learner *l, int kind, tt__writer *w, tt_err *err) {
    hashed h = {.w = w};
    TT_TRY(put_head(&h, "TTPOINT", (uint32_t)point_arrays(kind), l->fingerprint, err));
    TT_TRY(put(&h, &l->c.step, sizeof l->c.step, err));
    TT_TRY(put(&h, l->arrays, point_arrays(kind) * (size_t)l->n * sizeof *l->arrays, err));
    return put_digest(&h, err);
}

/* The present values become the good or the best point. */
static tt_status save_point(tt_learner *l, int kind, tt_err *err) {
    char *path = NULL;
    tt__writer *w = NULL;
    int64_t slot = l->saved_slot[kind] == 0 ? 1 : 0;
    TT_TRY(tt__mkdirs(l->job->state_dir, err));
    tt_status st = point_path(l, kind, slot, &path, err);
    if (st == TT_OK) st = tt__writer_open(path, 0, &w, err);
    if (st == TT_OK) st = close_file(w, write_point(l, kind, w, err), err);
    tt__free(path);
    TT_TRY(st);
    l->c.slot[kind] = slot;
    l->c.point[kind] = l->c.step;
    return TT_OK;
}

static bool point_fits(const tt_learner *l, int kind, const tt__map *map) {
    size_t bytes = POINT_BYTES + point_arrays(kind) * (size_t)l->n * sizeof(float) + SHA_BYTES;
    const uint8_t *p = map->data;
    return map->size == bytes && !memcmp(p, "TTPOINT", 8) && tt__rd32(p + 8) == VERSION && tt__rd32(p + 12) == point_arrays(kind) &&
           !memcmp(p + 16, l->fingerprint, 32) && (int64_t)tt__rd64(p + HEAD_BYTES) == l->c.point[kind] && digest_fits(map);
}

/* Into x (m, v) unless `look` only. */
static tt_status read_point(tt_learner *l, int kind, bool look, tt_err *err) {
    char *path = NULL;
    tt__map map;
    TT_TRY(point_path(l, kind, l->c.slot[kind], &path, err));
    tt_status st = tt__map_open(path, &map, err);
    if (st == TT_OK) {
        if (!point_fits(l, kind, &map)) st = tt__fail(err, TT_BADFILE, "saved point is damaged|%s|||remove it to start afresh", path);
        else if (!look) memcpy(l->arrays, map.data + POINT_BYTES, point_arrays(kind) * (size_t)l->n * sizeof *l->arrays);
        tt__map_close(&map);
    }
    tt__free(path);
    return st;
}

/* ---- the state ---- */

static tt_status put_guard(hashed *h, const tt_guard *g, tt_err *err) {
    uint8_t *bytes = NULL;
    TT_TRY(tt__new(&bytes, tt__guard_bytes(g), 1, "a guard's state", err));
    tt__guard_store(g, bytes);
    tt_status st = put(h, bytes, tt__guard_bytes(g), err);
    tt__free(bytes);
    return st;
}

static tt_status write_state(tt_learner *l, tt__writer *w, tt_err *err) {
    hashed h = {.w = w};
    TT_TRY(put_head(&h, "TTLEARN", 0, l->fingerprint, err));
    TT_TRY(put(&h, &l->c, sizeof l->c, err));
    TT_TRY(put(&h, l->curve, (size_t)l->c.n_curve * sizeof *l->curve, err));
    if (l->guard) TT_TRY(put_guard(&h, l->guard, err));
    TT_TRY(put(&h, l->arrays, 3 * (size_t)l->n * sizeof *l->arrays, err));
    return put_digest(&h, err);
}

static tt_status save_state(tt_learner *l, tt_err *err) {
    tt__writer *w = NULL;
    double now = tt__now();
    l->c.seconds += now - l->began;
    l->began = now;
    TT_TRY(tt__mkdirs(l->job->state_dir, err));
    TT_TRY(tt__writer_open(l->state_path, 0, &w, err));
    TT_TRY(close_file(w, write_state(l, w, err), err));
    for (int i = 0; i < 2; i++) l->saved_slot[i] = l->c.slot[i];
    l->saved_at = tt__now();
    l->save_took = l->saved_at - now;
    return TT_OK;
}

/* Large states are saved less often: saving takes a twentieth of the time at most. */
static bool save_is_due(const tt_learner *l) {
    double wait = l->job->checkpoint_seconds;
    if (wait > 0 && l->save_took > SAVE_SHARE * wait) wait = l->save_took / SAVE_SHARE;
    return tt__now() - l->saved_at >= wait;
}

/* Counters that no run of ours can have written are refused, whatever the hash says. */
static bool plausible(const tt_learner *l, const counters *c) {
    bool steps = c->total >= 0 && c->step >= 0 && c->step <= c->total && c->updates >= 0 && c->tokens_seen >= 0;
    bool points = c->good_updates >= 0;
    for (int i = 0; i < 2; i++) points = points && (c->slot[i] == 0 || c->slot[i] == 1) && c->point[i] >= 0 && c->point[i] <= c->step;
    bool rest = c->halvings >= 0 && c->halvings <= MAX_HALVINGS && c->n_curve >= 1 && c->n_curve <= MAX_CURVE;
    return steps && points && rest && (l->o->time > 0 || c->total == l->o->steps);
}

static tt_status grow_curve(tt_learner *l, int64_t n, tt_err *err) {
    if (n <= l->curve_cap) return TT_OK;
    curve_point *more = tt__realloc(l->curve, (size_t)(2 * n) * sizeof *more);
    TT_FAIL_IF(!more, err, TT_RESOURCE, "out of memory|the validation curve");
    l->curve = more;
    l->curve_cap = 2 * n;
    return TT_OK;
}

/* Says why the file cannot be used, or NULL after everything was taken over. */
static const char *take_state(tt_learner *l, const tt__map *map, tt_err *err) {
    const uint8_t *p = map->data;
    counters c;
    if (map->size < HEAD_BYTES + sizeof c + SHA_BYTES || memcmp(p, "TTLEARN", 8) != 0 || tt__rd32(p + 8) != VERSION)
        return "it is not a state file of this version";
    if (memcmp(p + 16, l->fingerprint, sizeof l->fingerprint) != 0) return "model, teacher, recipe, text or seed changed";
    memcpy(&c, p + HEAD_BYTES, sizeof c);
    if (!digest_fits(map) || !plausible(l, &c)) return "it is damaged";
    size_t curve = (size_t)c.n_curve * sizeof *l->curve, arrays = 3 * (size_t)l->n * sizeof(float), guard = 0, at = HEAD_BYTES + sizeof c + curve;
    if (map->size < at + TT_GUARD_HEAD) return "it is damaged";
    if (l->guard && !(guard = tt__guard_size(p + at))) return "it is damaged";
    if (map->size != at + guard + arrays + SHA_BYTES) return "it is damaged";
    if (grow_curve(l, c.n_curve + 1, err) != TT_OK) return "there is not enough memory for it";
    if (l->guard && !tt__guard_take(l->guard, p + at, guard, err)) return "it is damaged";
    l->c = c;
    for (int i = 0; i < 2; i++) {
        tt_err why = {0};
        if (read_point(l, i, true, &why) != TT_OK) return "a point beside it is missing or damaged";
        l->saved_slot[i] = c.slot[i];
    }
    memcpy(l->curve, p + HEAD_BYTES + sizeof c, curve);
    memcpy(l->arrays, p + at + guard, arrays);
    return NULL;
}

static tt_status load_state(tt_learner *l, tt_err *err) {
    if (!l->job->resume || !tt__exists(l->state_path)) return TT_OK;
    tt__map map;
    TT_TRY(tt__map_open(l->state_path, &map, err));
    const char *why = take_state(l, &map, err);
    tt__map_close(&map);
    l->resumed = !why;
    if (why) {
        l->c = (counters){0};
        l->saved_slot[GOOD] = l->saved_slot[BEST] = -1;
        tt__log(l->ctx, TT_LOG_WARN, "tune: starts afresh, the state in %s does not fit: %s", l->state_path, why);
    } else
        tt__log(l->ctx, TT_LOG_INFO, "tune: goes on at step %lld of %lld", (long long)l->c.step, (long long)l->c.total);
    return TT_OK;
}

/* The state first: points without one are rubbish that the next run takes away, a state without points would be a loss. */
static tt_status remove_state(tt_learner *l, tt_err *err) {
    TT_TRY(tt__remove(l->state_path, err));
    for (int kind = 0; kind < 2; kind++)
        for (int slot = 0; slot < 2; slot++) {
            char *path = NULL;
            TT_TRY(point_path(l, kind, slot, &path, err));
            tt_status st = tt__remove(path, err);
            tt__free(path);
            TT_TRY(st);
        }
    tt__remove_empty(l->job->state_dir);
    return TT_OK;
}

/* ------------------------------------------------------------ steps ---- */

static tt_status mark_good(tt_learner *l, tt_err *err) {
    TT_TRY(save_point(l, GOOD, err));
    l->c.good_updates = l->c.updates;
    l->c.good_tokens = l->c.tokens_seen;
    return TT_OK;
}

static tt_status back_to_good(tt_learner *l, const char *what, double got, tt_err *err) {
    counters *c = &l->c;
    TT_FAIL_IF(c->halvings == MAX_HALVINGS, err, TT_FAIL,
               "%s is not a finite number|step %lld|%g after %d halvings of the rate||lower lr; the last good %s is kept beside %s", what,
               (long long)c->step, got, MAX_HALVINGS, l->task->what, l->state_path);
    tt__log(l->ctx, TT_LOG_WARN, "tune: %s at step %lld is %g; back to step %lld with half the rate", what, (long long)c->step, got,
            (long long)c->point[GOOD]);
    TT_TRY(read_point(l, GOOD, false, err));
    c->step = c->point[GOOD], c->updates = c->good_updates, c->tokens_seen = c->good_tokens;
    c->recent_sum = 0, c->recent_n = 0;
    c->halvings++;
    c->rate *= 0.5;
    return TT_OK;
}

/* A point of the validation curve; the best values so far are kept: by validation, or as the guard says. */
static tt_status validation_point(tt_learner *l, tt_err *err) {
    counters *c = &l->c;
    double valid = 0;
    TT_TRY(validate(l, &valid, err));
    if (!isfinite(valid)) return back_to_good(l, "validation loss", valid, err);
    bool best = valid < c->best_valid;
    if (l->guard) TT_TRY(tt__guard_point(l->guard, c->step, valid, &best, err));
    TT_TRY(grow_curve(l, c->n_curve + 1, err));
    TT_TRY(mark_good(l, err));
    if (best) {
        TT_TRY(save_point(l, BEST, err));
        c->best_valid = valid;
    }
    l->curve[c->n_curve++] = (curve_point){c->step, c->recent_n ? c->recent_sum / (double)c->recent_n : 0, valid};
    c->recent_sum = 0, c->recent_n = 0;
    tt__log(l->ctx, TT_LOG_DEBUG, "tune: step %lld, validation loss %.5f, best %.5f at step %lld", (long long)c->step, valid, c->best_valid,
            (long long)c->point[BEST]);
    return TT_OK;
}

static double rate_of(const tt_learner *l) {
    const counters *c = &l->c;
    int64_t warmup = l->o->warmup < c->total ? l->o->warmup : c->total;
    return c->rate * (l->o->cosine ? tt__lr_cosine(c->step, warmup, c->total, LEAST_RATE) : tt__lr_linear(c->step, warmup, c->total));
}

typedef struct adam_args { tt_adamw adam; int64_t t; double lr; const tt_pset *set; float *m, *v; } adam_args;

static void adam_piece(void *arg, int64_t i, int worker) {
    const adam_args *a = arg;
    int64_t from = i * ADAM_PIECE, n = a->set->n - from < ADAM_PIECE ? a->set->n - from : ADAM_PIECE;
    (void)worker;
    tt__adamw_step(&a->adam, a->t, a->lr, n, a->set->x + from, a->m + from, a->v + from, a->set->g + from);
}

static void update(tt_learner *l) {
    double rate = rate_of(l);
    int64_t at = 0;
    l->c.updates++;
    for (int i = 0; i < l->task->n_sets; at += l->task->sets[i++].n) {
        const tt_pset *s = &l->task->sets[i];
        adam_args a = {{l->o->beta1, l->o->beta2, 1e-8, s->decay}, l->c.updates, rate * s->lr, s, l->arrays + l->n + at, l->arrays + 2 * l->n + at};
        tt__parallel(l->ctx, (s->n + ADAM_PIECE - 1) / ADAM_PIECE, adam_piece, &a);
    }
}

static tt_status train_step(tt_learner *l, tt_err *err) {
    counters *c = &l->c;
    double loss = 0;
    TT_TRY(train_loss(l, c->step, &loss, err));
    if (!isfinite(loss)) return back_to_good(l, "loss", loss, err);
    for (int i = 0; i < l->task->n_sets; i++) {
        double norm = tt__clip_norm(l->task->sets[i].g, l->task->sets[i].n, l->o->clip);
        if (!isfinite(norm)) return back_to_good(l, "gradient", norm, err);
    }
    update(l);
    if (c->step == 0) c->first_loss = loss;
    c->last_loss = loss;
    c->recent_sum += loss, c->recent_n++;
    c->tokens_seen += l->o->batch * l->o->length;
    c->step++;
    return TT_OK;
}

/* A budget in seconds becomes a number of steps, once: one step to warm up, one timed; validation and what is prepared for each window share it. */
static tt_status fix_steps(tt_learner *l, double validation_seconds, tt_err *err) {
    double loss = 0, at = tt__now();
    l->c.total = l->o->steps;
    if (l->o->time <= 0) return announce(l, 0, l->c.total, err);
    TT_TRY(announce(l, 0, 1, err));
    double prepared = tt__now() - at;
    for (int i = 0; i < 2; i++) {
        at = tt__now();
        TT_TRY(tt__check_cancel(l->ctx, err));
        TT_TRY(train_loss(l, 0, &loss, err));
    }
    double per_step = tt__now() - at + validation_seconds / (double)l->o->valid_every, left = l->o->time - (tt__now() - l->began);
    double epoch = (double)l->n_train / (double)l->o->batch, steps = left / (per_step + prepared > 1e-9 ? per_step + prepared : 1e-9);
    if (steps > epoch) steps = epoch + (left - epoch * (per_step + prepared)) / (per_step > 1e-9 ? per_step : 1e-9);
    l->c.total = steps < 1 ? 1 : steps > 1e6 ? 1000000 : (int64_t)steps;
    tt__log(l->ctx, TT_LOG_INFO, "tune: %.0f s are %lld steps of %.2f s", l->o->time, (long long)l->c.total, per_step);
    return announce(l, 1, l->c.total, err);
}

static tt_status begin(tt_learner *l, tt_err *err) {
    l->c = (counters){.rate = 1};
    TT_TRY(l->task->first(l->task->user, err));
    TT_TRY(announce(l, 0, 0, err));
    double start = tt__now();
    double valid = 0;
    TT_TRY(validate(l, &valid, err));
    TT_FAIL_IF(!isfinite(valid), err, TT_FAIL, "validation loss is not a finite number|step 0|%g||the model's weights may be damaged",
               valid);
    l->c.first_valid = l->c.best_valid = valid;
    bool best = true;
    if (l->guard) TT_TRY(tt__guard_begin(l->guard, err));
    if (l->guard) TT_TRY(tt__guard_point(l->guard, 0, valid, &best, err));
    TT_TRY(grow_curve(l, 1, err));
    l->curve[l->c.n_curve++] = (curve_point){0, 0, valid};
    TT_TRY(mark_good(l, err));
    TT_TRY(save_point(l, BEST, err));
    TT_TRY(fix_steps(l, tt__now() - start, err));
    return save_state(l, err);
}

static void show_progress(tt_learner *l) {
    char note[96];
    snprintf(note, sizeof note, "loss %.4f, validation %.4f, best %.4f", l->c.last_loss, l->curve[l->c.n_curve - 1].valid, l->c.best_valid);
    tt__progress(l->ctx, "tune", (double)l->c.step, (double)l->c.total, "steps", note);
}

/* After every valid_every steps and after the last one, unless this point is on the curve already. */
static bool validation_is_due(const tt_learner *l) {
    const counters *c = &l->c;
    return (c->step % l->o->valid_every == 0 || c->step == c->total) && l->curve[c->n_curve - 1].step != c->step;
}

/* Between two actions the state is whole, and an action that is cancelled leaves no trace: so it can be saved whenever one returns. */
static tt_status run_steps(tt_learner *l, tt_err *err) {
    TT_TRY(l->resumed ? announce(l, 0, l->c.total, err) : begin(l, err));
    while (l->c.step < l->c.total || validation_is_due(l)) {
        tt_status st = tt__check_cancel(l->ctx, err);
        if (st == TT_OK) st = validation_is_due(l) ? validation_point(l, err) : train_step(l, err);
        if (st == TT_INTERRUPTED || st == TT_TERMINATED) TT_TRY(save_state(l, err));
        TT_TRY(st);
        if (save_is_due(l)) TT_TRY(save_state(l, err));
        show_progress(l);
    }
    return TT_OK;
}

tt_status tt__learn_run(tt_learner *l, tt_err *err) {
    if (!trains(l)) return l->task->first(l->task->user, err);
    TT_TRY(prepare_data(l, err));
    return run_steps(l, err);
}

tt_status tt__learn_best(tt_learner *l, tt_err *err) {
    if (!trains(l)) return TT_OK;
    TT_TRY(read_point(l, BEST, true, err));
    return read_point(l, BEST, false, err);
}

/* ------------------------------------------------------------ the result ---- */

static json_t *curve_json(const tt_learner *l) {
    json_t *list = json_array();
    for (int64_t i = 0; i < l->c.n_curve; i++) {
        const curve_point *p = &l->curve[i];
        json_array_append_new(list, i == 0 ? json_pack("{s:I, s:f}", "step", (json_int_t)p->step, "valid", p->valid)
                                           : json_pack("{s:I, s:f, s:f}", "step", (json_int_t)p->step, "train", p->train, "valid", p->valid));
    }
    return list;
}

static json_t *course_json(const tt_learner *l, const char *loss) {
    const counters *c = &l->c;
    if (!trains(l)) return json_object();
    return json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:o}", "loss", loss, "best_step", (json_int_t)c->point[BEST], "tokens_seen",
                     (json_int_t)c->tokens_seen, "first_loss", c->first_loss, "last_loss", c->last_loss, "first_valid", c->first_valid,
                     "best_valid", c->best_valid, "halvings", (json_int_t)c->halvings, "curve", curve_json(l));
}

static int append(const char *text, size_t n, void *to) {
    tt__str_add(to, text, n);
    return 0;
}

tt_status tt__learn_record(const tt_learner *l, const char *method, const char *loss, json_t *more, tt__str *out, tt_err *err) {
    const tt_train_job *j = l->job;
    json_t *o = json_pack("{s:i, s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:I, s:I}", "trimtab_tab", 1, "method", method, "base_model",
                          j->base_ref, "base_sha256", j->base_sha256, "teacher_sha256", j->teacher_sha256, "recipe", j->recipe_line,
                          "recipe_sha256", j->recipe_sha256, "data_sha256", j->data_sha256, "seed", (json_int_t)j->seed, "steps",
                          (json_int_t)l->c.total);
    if (o && j->dense_sha256) json_object_set_new(o, "dense_sha256", json_string(j->dense_sha256));
    json_t *course = course_json(l, loss);
    if (l->guard && course) json_object_set_new(course, "guard", tt__guard_json(l->guard));
    bool ok = o && course && json_object_update(o, course) == 0 && (!more || json_object_update(o, more) == 0) &&
              json_dump_callback(o, append, out, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0;
    json_decref(o);
    json_decref(course);
    json_decref(more);
    tt__str_puts(out, "\n");
    TT_FAIL_IF(!ok || out->failed, err, TT_RESOURCE, "out of memory|trimtab.json");
    return TT_OK;
}

static void fill_report(tt_learner *l) {
    const counters *c = &l->c;
    double seconds = c->seconds + tt__now() - l->began;
    l->job->report = (tt_tune_report){.steps = c->total, .best_step = c->point[BEST], .tokens_seen = c->tokens_seen, .first_loss = c->first_loss,
                                      .last_loss = c->last_loss, .best_valid = c->best_valid, .first_valid = c->first_valid,
                                      .seconds = seconds, .seconds_per_step = c->total > 0 ? seconds / (double)c->total : 0,
                                      .peak_bytes = tt__mem_peak(), .resumed = l->resumed};
    if (l->guard) tt__guard_report(l->guard, &l->job->report.guard);
}

/* A state that cannot be removed is untidy, not a failure. */
void tt__learn_finish(tt_learner *l) {
    tt_err why = {0};
    char line[600];
    fill_report(l);
    if (remove_state(l, &why) != TT_OK)
        tt__log(l->ctx, TT_LOG_WARN, "tune: the %s is written, but its state stays: %s", l->task->what, tt_err_line(&why, line, sizeof line));
}

/* ------------------------------------------------------------ open and close ---- */

static tt_status reserve(tt_learner *l, tt_err *err) {
    int64_t at = 0;
    for (int i = 0; i < l->task->n_sets; i++) l->n += l->task->sets[i].n;
    TT_TRY(tt__new(&l->arrays, 3 * (size_t)l->n, sizeof(float), "what learns and its moments", err));
    TT_TRY(tt__new(&l->g, (size_t)l->n, sizeof(float), "gradients", err));
    for (int i = 0; i < l->task->n_sets; at += l->task->sets[i++].n) {
        l->task->sets[i].x = l->arrays + at;
        l->task->sets[i].g = l->g + at;
    }
    return TT_OK;
}

static tt_status open_guard(tt_learner *l, tt_err *err) {
    TT_FAIL_IF(!l->task->next, err, TT_USAGE, "this method cannot be guarded|guard|%s||leave it out, or --guard none", l->job->guards[0].name);
    tt_guard_options o = {.texts = l->job->guards, .n_texts = l->job->n_guards, .length = l->o->length, .windows = l->o->valid_windows, .batch = l->o->batch,
                          .separator = separator(l->job->tokenizer), .seed = l->job->seed, .loss = l->task->next, .user = l->task->user};
    return tt__guard_create(l->ctx, &o, &l->guard, err);
}

static tt_status open_learner(tt_learner *l, tt_err *err) {
    tt__str path = {0};
    tt__str_printf(&path, "%s/%s.state", l->job->state_dir, l->task->file);
    l->state_path = path.s;
    TT_FAIL_IF(path.failed, err, TT_RESOURCE, "out of memory|a path");
    TT_TRY(reserve(l, err));
    if (trains(l) && l->job->n_guards) TT_TRY(open_guard(l, err));
    take_fingerprint(l);
    TT_TRY(load_state(l, err));
    bool stands = !l->resumed && !l->job->force && tt__exists(l->job->output);
    tt_err ignored = {0};
    if (stands) remove_state(l, &ignored);                         /* of a run that was killed at its last act */
    TT_FAIL_IF(stands, err, TT_USAGE, "output exists|%s|||use --force to replace it", l->job->output);
    return TT_OK;
}

tt_status tt__learn_open(tt_ctx *ctx, const tt_learn_options *o, const tt_learn_task *task, tt_train_job *job, tt_learner **out, tt_err *err) {
    tt_learner *l = NULL;
    *out = NULL;
    TT_TRY(tt__new(&l, 1, sizeof *l, "the trainer", err));
    *l = (tt_learner){.ctx = ctx, .o = o, .task = task, .job = job, .saved_slot = {-1, -1}, .began = tt__now()};
    l->saved_at = l->began;
    tt_status st = open_learner(l, err);
    if (st == TT_OK) *out = l;
    else tt__learn_close(l);
    return st;
}

uint64_t tt__learn_bytes(const tt_learner *l) { return 4 * (uint64_t)l->n * sizeof(float); }

void tt__learn_close(tt_learner *l) {
    if (!l) return;
    tt__tokens_free(&l->train);
    tt__tokens_free(&l->valid);
    tt__free(l->train_windows);
    tt__free(l->valid_windows);
    tt__free(l->order);
    tt__free(l->ids);
    tt__guard_free(l->guard);
    tt__free(l->curve);
    tt__free(l->arrays);
    tt__free(l->g);
    tt__free(l->state_path);
    tt__free(l);
}
