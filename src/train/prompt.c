/* The prompt trainer: E [P, d] learns, everything else is frozen.
 *
 *     rows of a step:   E (P rows, positions 0 … P-1) | sequence 1 (T rows, positions P …) | sequence 2 | …      every sequence sees E
 *     targets:          row t of a sequence predicts its token t+1, t = 0 … T-2: the paper's targets x_2 … x_T, the same for both losses.
 *                       The rows of E and the last row have none, and the mean divides by the number of targets, by nothing else.
 *     loss, CE:         mean over targets of -log p(x_{t+1} | E, x_0 … x_t)
 *     loss, KL:         mean over targets of KL(teacher(· | x_0 … x_t) ‖ student(· | E, x_0 … x_t)); the teacher reads the text without E
 *
 * What may interrupt must not change the result. Everything a run needs is in the state file: E, moments, counters, the best tab so far, the
 * last good point, the validation curve, and the number of steps (fixed once, also under a time budget). The order of windows is a function
 * of seed and step, the last good point a function of the step; the clock decides only when the file is written. So a run that was
 * killed anywhere ends with the bytes of one that was not.
 *
 *     STATE/prompt.state   "TTPROMPT" | u32 version | u32 0 | fingerprint 32 B | counters | curve | E m v, good E m v, best E | sha256 of it all
 *
 * A loss, gradient or validation that is not finite goes back to the last good point (the last validation) with half the rate, three times; then
 * it fails and names the step (RELIABILITY 3.7).
 */
#include "train/prompt.h"

#include "base/checked.h"
#include "base/fault.h"
#include "base/limits.h"
#include "formats/peft.h"
#include "train/optim.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { STATE_VERSION = 2, MAX_HALVINGS = 3, FREQUENT = 5000, ARRAYS = 7, HEAD_BYTES = 48, SHA_BYTES = 32, MAX_CURVE = 1 << 20 };

/* Counters of a run, stored as they lie here: 8-byte members only, so there is no padding. */
typedef struct counters {
    int64_t total, step, updates;            /* updates: Adam's t */
    int64_t good_step, good_updates, good_tokens;
    int64_t best_step, halvings, n_curve, tokens_seen, recent_n;
    double rate;                             /* 2^-halvings */
    double first_loss, last_loss, first_valid, best_valid, recent_sum, seconds;
} counters;

typedef struct curve_point { int64_t step; double train, valid; } curve_point;   /* train: mean since the point before */

typedef struct trainer {
    tt_ctx *ctx;
    const tt_prompt_options *o;
    tt_train_job *job;
    int64_t P, d, n;                         /* n = P * d */
    bool trains, kl;                         /* steps to do at all; a teacher at work */
    char *state_path;
    uint8_t fingerprint[32];
    counters c;
    curve_point *curve;
    int64_t curve_cap;
    float *arrays;                           /* [ARRAYS, n], in the order of the file: */
    float *E, *m, *v, *good, *best;          /* good: E, m, v of the last good point */
    tt_tokens train, valid;                  /* joined texts */
    tt_window *train_windows, *valid_windows;
    size_t n_train, n_valid;
    int64_t *order, epoch;                   /* windows of an epoch; -1: not made yet */
    tt_runner *student, *teacher;
    float *X, *dX, *H;                       /* [P + S*T, d] twice, [S*T, teacher's d] */
    int32_t *ids, *target;                   /* [S*T], [P + S*T] */
    double saved_at, began;
    bool resumed;
} trainer;

/* ------------------------------------------------------------ data ---- */

static int32_t separator(const tt_tokenizer *t) {
    int32_t id = tt__tokenizer_find(t, "<|endoftext|>", strlen("<|endoftext|>"));
    return id >= 0 ? id : tt__tokenizer_eos(t);
}

static tt_status pack(trainer *t, const tt_tokens *text, const char *what, uint64_t seed, tt_tokens *joined, tt_window **w, size_t *n,
        tt_err *err) {
    TT_TRY(tt__windows_packed(text, t->o->length, separator(t->job->tokenizer), seed, joined, w, n, err));
    TT_FAIL_IF(*n == 0, err, TT_USAGE, "%s text is too short|length=%lld|%zu tokens|at least one window|lower length, or give more text",
               what, (long long)t->o->length, text->n);
    return TT_OK;
}

static tt_status prepare_data(trainer *t, tt_err *err) {
    TT_TRY(pack(t, t->job->train, "training", t->job->seed, &t->train, &t->train_windows, &t->n_train, err));
    TT_TRY(pack(t, t->job->valid, "validation", t->job->seed, &t->valid, &t->valid_windows, &t->n_valid, err));
    if (t->n_valid > (size_t)t->o->valid_windows) t->n_valid = (size_t)t->o->valid_windows;
    t->epoch = -1;
    return tt__new(&t->order, t->n_train, sizeof *t->order, "the order of windows", err);
}

/* Window i of the endless stream of epochs; each epoch is a shuffle of its own. */
static const tt_window *nth_window(trainer *t, int64_t i) {
    int64_t n = (int64_t)t->n_train, epoch = i / n;
    if (epoch != t->epoch) {
        tt__rng rng;
        tt__rng_seed(&rng, t->job->seed + 0x9e3779b97f4a7c15u * (uint64_t)(epoch + 1));
        for (int64_t k = 0; k < n; k++) t->order[k] = k;
        for (int64_t k = n - 1; k > 0; k--) {
            int64_t j = (int64_t)tt__rng_below(&rng, (uint64_t)k + 1), swap = t->order[k];
            t->order[k] = t->order[j], t->order[j] = swap;
        }
        t->epoch = epoch;
    }
    return &t->train_windows[t->order[i % n]];
}

/* ------------------------------------------------------------ the first tab ---- */

typedef struct frequency { int32_t id, count; } frequency;

static int by_falling_count(const void *a, const void *b) {
    const frequency *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count) - (x->count > y->count) : (x->id > y->id) - (x->id < y->id);
}

/* P tokens drawn without repetition from the 5000 most frequent ones of the training text (Lester et al. 2021, section 3.2, with the
 * text's own frequencies); a text with fewer kinds gives them in rounds. */
static tt_status frequent_tokens(trainer *t, int32_t *ids, tt_err *err) {
    size_t V = (size_t)t->job->student->hp.n_vocab, kinds = 0;
    frequency *f = NULL;
    TT_TRY(tt__new(&f, V, sizeof *f, "token frequencies", err));
    for (size_t i = 0; i < V; i++) f[i].id = (int32_t)i;
    for (size_t i = 0; i < t->job->train->n; i++) f[t->job->train->ids[i]].count++;
    qsort(f, V, sizeof *f, by_falling_count);
    while (kinds < V && kinds < FREQUENT && f[kinds].count) kinds++;
    tt__rng rng;
    tt__rng_seed(&rng, t->job->seed ^ 0x70726f6d70740001u);
    for (size_t i = 0; i < (size_t)t->P; i++) {
        size_t at = i % kinds, pick = at + tt__rng_below(&rng, kinds - at);
        frequency swap = f[at];
        f[at] = f[pick], f[pick] = swap;
        ids[i] = f[at].id;
    }
    tt__free(f);
    return TT_OK;
}

static tt_status text_tokens(trainer *t, int32_t *ids, tt_err *err) {
    const char *text = t->o->init_text ? t->o->init_text : "";
    int32_t *got = NULL;
    size_t n = 0;
    TT_TRY(tt__tokenizer_encode(t->job->tokenizer, text, strlen(text), 0, &got, &n, err));
    for (int64_t i = 0; n && i < t->P; i++) ids[i] = got[(size_t)i % n];
    tt__free(got);
    TT_FAIL_IF(n == 0, err, TT_USAGE, "init=text needs a text|init_text|nothing|at least one token|prompt(init=text,init_text=\"…\")");
    return TT_OK;
}

static tt_status first_tab(trainer *t, tt_err *err) {
    if (t->o->init == TT_PROMPT_RANDOM) {
        tt__rng rng;
        tt__rng_seed(&rng, t->job->seed ^ 0x70726f6d70740002u);
        for (int64_t i = 0; i < t->n; i++) t->E[i] = (float)(tt__rng_unit(&rng) - 0.5);
        return TT_OK;
    }
    int32_t *ids = NULL;
    TT_TRY(tt__new(&ids, (size_t)t->P, sizeof *ids, "first tokens", err));
    tt_status st = t->o->init == TT_PROMPT_TEXT ? text_tokens(t, ids, err) : frequent_tokens(t, ids, err);
    if (st == TT_OK) st = tt__run_embed(t->student, ids, t->P, t->E, err);
    tt__free(ids);
    return st;
}

/* ------------------------------------------------------------ memory ---- */

/* The fullest keep policy within max_ram; the teacher's runner and the buffers count. The very fullest is taken only when max_ram is given
 * and holds it: it saves one product of a layer, some percent of a step, for a quarter of the memory. */
static tt_status open_runners(trainer *t, tt_err *err) {
    static const char *const names[] = {[TT_KEEP_BOUNDARY] = "block inputs", [TT_KEEP_ATTENTION] = "block inputs and attention",
        [TT_KEEP_MOST] = "all activations but one of a gate's",        [TT_KEEP_ALL] = "all activations"};
    int64_t tokens = t->o->batch * t->o->length, rows = t->P + tokens, dt = t->kl ? t->job->teacher->hp.n_embd : 0;
    uint64_t others = (uint64_t)(2 * rows * t->d + tokens * dt + ARRAYS * t->n) * sizeof(float);
    if (t->kl) {
        tt_runner_options o = {.max_rows = tokens};
        TT_TRY(tt__runner_create(t->ctx, t->job->teacher, &o, &t->teacher, err));
        others += tt__runner_bytes(t->teacher);
    }
    for (int keep = !t->trains ? TT_KEEP_BOUNDARY : t->job->max_ram ? TT_KEEP_ALL : TT_KEEP_MOST;; keep--) {
        tt_runner_options o = {.max_rows = rows, .backward = true, .keep = (tt_keep)keep};
        TT_TRY(tt__runner_create(t->ctx, t->job->student, &o, &t->student, err));
        uint64_t own = tt__runner_bytes(t->student) + (t->trains ? tt__runner_loss_bytes(t->student, t->kl) : 0);
        uint64_t bytes = own + others, most = t->job->max_ram ? t->job->max_ram : (uint64_t)1 << 30;
        if (bytes <= most) {
            tt__log(t->ctx, TT_LOG_INFO, "tune: keeps %s for the backward pass: %.0f MiB beside the weights (student %.0f, teacher %.0f)",
                names[keep], (double)bytes / 1048576,
                    (double)own / 1048576, t->teacher ? (double)tt__runner_bytes(t->teacher) / 1048576 : 0);
            break;
        }
        TT_FAIL_IF(keep == TT_KEEP_BOUNDARY, err, TT_RESOURCE,
                   "a training step does not fit|max-ram|%.0f MiB needed|%.0f MiB|raise max-ram, or lower batch or length",
                   (double)bytes / 1048576, (double)most / 1048576);
        tt__runner_free(t->student);
        t->student = NULL;
    }
    TT_TRY(tt__new(&t->X, (size_t)(rows * t->d), sizeof(float), "input rows", err));
    TT_TRY(tt__new(&t->dX, (size_t)(rows * t->d), sizeof(float), "gradient rows", err));
    if (t->kl) TT_TRY(tt__new(&t->H, (size_t)(tokens * dt), sizeof(float), "the teacher's rows", err));
    TT_TRY(tt__new(&t->ids, (size_t)tokens, sizeof *t->ids, "a batch", err));
    return tt__new(&t->target, (size_t)rows, sizeof *t->target, "targets", err);
}

/* ------------------------------------------------------------ one batch ---- */

/* The teacher's rows that have a target, without gaps: the last of each sequence goes. */
static void drop_last_rows(float *H, int64_t S, int64_t T, int64_t d) {
    for (int64_t s = 1; s < S; s++) memmove(H + s * (T - 1) * d, H + s * T * d, (size_t)((T - 1) * d) * sizeof *H);
}

/* Mean loss of S windows lying in ids; with `gradient` also dX, whose first P rows are dE. Only steps may round to bf16: a validation is
 * always f32, as serving is. */
static tt_status batch_loss(trainer *t, int64_t S, bool gradient, double *loss, tt_err *err) {
    int64_t T = t->o->length;
    tt_loss spec = {.kind = t->kl ? TT_LOSS_KL : TT_LOSS_CE, .target = t->target};
    for (int64_t i = 0; i < t->P; i++) t->target[i] = -1;
    for (int64_t i = 0; i < S * T; i++) t->target[t->P + i] = i % T == T - 1 ? -1 : t->ids[i + 1];
    tt__runner_set_bf16(t->student, t->o->bf16 && gradient);
    if (t->kl) {
        tt__runner_set_bf16(t->teacher, t->o->bf16 && gradient);
        TT_TRY(tt__run_hidden(t->teacher, S, T, t->ids, t->H, err));
        drop_last_rows(t->H, S, T, t->job->teacher->hp.n_embd);
        spec.teacher_H = t->H;
        spec.teacher_head = t->job->teacher->weights[t->job->teacher->output].op;
    }
    memcpy(t->X, t->E, (size_t)t->n * sizeof *t->X);
    TT_TRY(tt__run_embed(t->student, t->ids, S * T, t->X + t->n, err));
    TT_TRY(tt__run_loss(t->student, t->P, S, T, t->X, &spec, loss, NULL, gradient ? t->dX : NULL, err));
    if (tt__fault(TT_FAULT_LOSS)) *loss = NAN;
    return TT_OK;
}

static void take_window(trainer *t, const tt_tokens *text, const tt_window *w, int64_t slot) {
    memcpy(t->ids + slot * t->o->length, text->ids + w->begin, (size_t)t->o->length * sizeof *t->ids);
}

static tt_status train_loss(trainer *t, int64_t step, double *loss, tt_err *err) {
    for (int64_t s = 0; s < t->o->batch; s++) take_window(t, &t->train, nth_window(t, step * t->o->batch + s), s);
    return batch_loss(t, t->o->batch, true, loss, err);
}

/* Mean over all targets of the validation windows; every window has the same number of them. */
static tt_status validate(trainer *t, double *mean, tt_err *err) {
    double sum = 0;
    for (size_t at = 0; at < t->n_valid;) {
        int64_t S = 0;
        double loss = 0;
        TT_TRY(tt__check_cancel(t->ctx, err));
        while (S < t->o->batch && at < t->n_valid) take_window(t, &t->valid, &t->valid_windows[at++], S++);
        TT_TRY(batch_loss(t, S, false, &loss, err));
        sum += (double)S * loss;
    }
    *mean = sum / (double)t->n_valid;
    return TT_OK;
}

/* ------------------------------------------------------------ the state file ---- */

static void hash_text(tt__sha256 *s, const char *text) { tt__sha256_update(s, text ? text : "-", strlen(text ? text : "-") + 1); }

static void hash_tokens(tt__sha256 *s, const tt_tokens *t) {
    tt__sha256_update(s, &t->n, sizeof t->n);
    tt__sha256_update(s, t->ids, t->n * sizeof *t->ids);
    tt__sha256_update(s, t->start, (t->n_docs + 1) * sizeof *t->start);
}

/* What the bytes of the result depend on: instruction set, models, recipe, texts, seed, budget. */
static void take_fingerprint(trainer *t) {
    tt__sha256 s;
    int64_t shape[2] = {t->P, t->d}, bf16 = t->o->bf16 && t->ctx->k->bf16;
    double time = t->o->time;
    tt__sha256_init(&s);
    hash_text(&s, t->ctx->k->isa);
    hash_text(&s, t->job->base_sha256);
    hash_text(&s, t->job->teacher_sha256);
    hash_text(&s, t->job->recipe_sha256);
    hash_tokens(&s, t->job->train);
    hash_tokens(&s, t->job->valid);
    tt__sha256_update(&s, &t->job->seed, sizeof t->job->seed);
    tt__sha256_update(&s, shape, sizeof shape);
    tt__sha256_update(&s, &bf16, sizeof bf16);
    tt__sha256_update(&s, &time, sizeof time);
    tt__sha256_final(&s, t->fingerprint);
}

static void copy_point(float *to, const float *from, int64_t n) { memcpy(to, from, (size_t)n * sizeof *to); }

static tt_status put(tt__writer *w, tt__sha256 *s, const void *data, size_t bytes, tt_err *err) {
    tt__sha256_update(s, data, bytes);
    return tt__write(w, data, bytes, err);
}

static tt_status write_state(trainer *t, tt__writer *w, tt_err *err) {
    tt__sha256 s;
    uint8_t digest[SHA_BYTES];
    uint32_t version[2] = {STATE_VERSION, 0};
    tt__sha256_init(&s);
    TT_TRY(put(w, &s, "TTPROMPT", 8, err));
    TT_TRY(put(w, &s, version, sizeof version, err));
    TT_TRY(put(w, &s, t->fingerprint, sizeof t->fingerprint, err));
    TT_TRY(put(w, &s, &t->c, sizeof t->c, err));
    TT_TRY(put(w, &s, t->curve, (size_t)t->c.n_curve * sizeof *t->curve, err));
    TT_TRY(put(w, &s, t->arrays, (size_t)(ARRAYS * t->n) * sizeof *t->arrays, err));
    tt__sha256_final(&s, digest);
    return tt__write(w, digest, sizeof digest, err);
}

static tt_status save_state(trainer *t, tt_err *err) {
    tt__writer *w = NULL;
    double now = tt__now();
    t->c.seconds += now - t->began;
    t->began = now;
    TT_TRY(tt__mkdirs(t->job->state_dir, err));
    TT_TRY(tt__writer_open(t->state_path, 0, &w, err));
    tt_status st = write_state(t, w, err);
    if (st != TT_OK) {
        tt__writer_abort(w);
        return st;
    }
    t->saved_at = tt__now();
    return tt__writer_commit(w, err);
}

/* Counters that no run of ours can have written are refused, whatever the hash says. */
static bool plausible(const trainer *t, const counters *c) {
    bool steps = c->total >= 0 && c->step >= 0 && c->step <= c->total && c->updates >= 0 && c->tokens_seen >= 0;
    bool good = c->good_step >= 0 && c->good_step <= c->step && c->good_updates >= 0 && c->best_step >= 0 && c->best_step <= c->step;
    bool rest = c->halvings >= 0 && c->halvings <= MAX_HALVINGS && c->n_curve >= 1 && c->n_curve <= MAX_CURVE;
    return steps && good && rest && (t->o->time > 0 || c->total == t->o->steps);
}

static tt_status grow_curve(trainer *t, int64_t n, tt_err *err) {
    if (n <= t->curve_cap) return TT_OK;
    curve_point *more = tt__realloc(t->curve, (size_t)(2 * n) * sizeof *more);
    TT_FAIL_IF(!more, err, TT_RESOURCE, "out of memory|the validation curve");
    t->curve = more;
    t->curve_cap = 2 * n;
    return TT_OK;
}

/* Says why the file cannot be used, or NULL after everything was taken over. */
static const char *take_state(trainer *t, const tt__map *map, tt_err *err) {
    const uint8_t *p = map->data;
    uint8_t digest[SHA_BYTES];
    tt__sha256 s;
    counters c;
    if (map->size < HEAD_BYTES + sizeof c + SHA_BYTES || memcmp(p, "TTPROMPT", 8) != 0 ||
        tt__rd32(p + 8) != STATE_VERSION) return "it is not a state file of this version";
    if (memcmp(p + 16, t->fingerprint, sizeof t->fingerprint) != 0) return "model, teacher, recipe, text or seed changed";
    tt__sha256_init(&s);
    tt__sha256_update(&s, p, (size_t)map->size - SHA_BYTES);
    tt__sha256_final(&s, digest);
    memcpy(&c, p + HEAD_BYTES, sizeof c);
    if (memcmp(digest, p + map->size - SHA_BYTES, SHA_BYTES) != 0 || !plausible(t, &c)) return "it is damaged";
    size_t curve = (size_t)c.n_curve * sizeof *t->curve, arrays = (size_t)(ARRAYS * t->n) * sizeof(float);
    if (map->size != HEAD_BYTES + sizeof c + curve + arrays + SHA_BYTES) return "it is damaged";
    if (grow_curve(t, c.n_curve + 1, err) != TT_OK) return "there is not enough memory for it";
    t->c = c;
    memcpy(t->curve, p + HEAD_BYTES + sizeof c, curve);
    memcpy(t->arrays, p + HEAD_BYTES + sizeof c + curve, arrays);
    return NULL;
}

static tt_status load_state(trainer *t, tt_err *err) {
    if (!t->job->resume || !tt__exists(t->state_path)) return TT_OK;
    tt__map map;
    TT_TRY(tt__map_open(t->state_path, &map, err));
    const char *why = take_state(t, &map, err);
    tt__map_close(&map);
    t->resumed = !why;
    if (why) tt__log(t->ctx, TT_LOG_WARN, "tune: starts afresh, the state in %s does not fit: %s", t->state_path, why);
    else tt__log(t->ctx, TT_LOG_INFO, "tune: goes on at step %lld of %lld", (long long)t->c.step, (long long)t->c.total);
    return TT_OK;
}

/* ------------------------------------------------------------ steps ---- */

static void mark_good(trainer *t) {
    copy_point(t->good, t->E, 3 * t->n);                  /* E, m, v lie side by side */
    t->c.good_step = t->c.step;
    t->c.good_updates = t->c.updates;
    t->c.good_tokens = t->c.tokens_seen;
}

static tt_status back_to_good(trainer *t, const char *what, double got, tt_err *err) {
    counters *c = &t->c;
    TT_FAIL_IF(c->halvings == MAX_HALVINGS, err, TT_FAIL,
               "%s is not a finite number|step %lld|%g after %d halvings of the rate||lower lr; the last good tab is kept in %s", what,
               (long long)c->step, got, MAX_HALVINGS, t->state_path);
    tt__log(t->ctx, TT_LOG_WARN, "tune: %s at step %lld is %g; back to step %lld with half the rate", what, (long long)c->step, got,
        (long long)c->good_step);
    copy_point(t->E, t->good, 3 * t->n);
    c->step = c->good_step, c->updates = c->good_updates, c->tokens_seen = c->good_tokens;
    c->recent_sum = 0, c->recent_n = 0;
    c->halvings++;
    c->rate *= 0.5;
    return TT_OK;
}

/* A point of the validation curve; the best tab so far is kept. */
static tt_status validation_point(trainer *t, tt_err *err) {
    counters *c = &t->c;
    double valid = 0;
    TT_TRY(validate(t, &valid, err));
    if (!isfinite(valid)) return back_to_good(t, "validation loss", valid, err);
    if (c->n_curve == 0) c->first_valid = valid;
    if (c->n_curve == 0 || valid < c->best_valid) {
        c->best_valid = valid;
        c->best_step = c->step;
        copy_point(t->best, t->E, t->n);
    }
    TT_TRY(grow_curve(t, c->n_curve + 1, err));
    t->curve[c->n_curve++] = (curve_point){c->step, c->recent_n ? c->recent_sum / (double)c->recent_n : 0, valid};
    c->recent_sum = 0, c->recent_n = 0;
    mark_good(t);
    tt__log(t->ctx, TT_LOG_DEBUG, "tune: step %lld, validation loss %.5f, best %.5f at step %lld", (long long)c->step, valid, c->best_valid,
        (long long)c->best_step);
    return TT_OK;
}

static tt_status train_step(trainer *t, tt_err *err) {
    counters *c = &t->c;
    tt_adamw adam = {t->o->beta1, t->o->beta2, 1e-8, t->o->decay};
    double loss = 0;
    TT_TRY(train_loss(t, c->step, &loss, err));
    if (!isfinite(loss)) return back_to_good(t, "loss", loss, err);
    double norm = tt__clip_norm(t->dX, t->n, t->o->clip);
    if (!isfinite(norm)) return back_to_good(t, "gradient", norm, err);
    double lr = t->o->lr * c->rate * tt__lr_linear(c->step, t->o->warmup < c->total ? t->o->warmup : c->total, c->total);
    tt__adamw_step(&adam, ++c->updates, lr, t->n, t->E, t->m, t->v, t->dX);
    if (c->step == 0) c->first_loss = loss;
    c->last_loss = loss;
    c->recent_sum += loss, c->recent_n++;
    c->tokens_seen += t->o->batch * t->o->length;
    c->step++;
    return TT_OK;
}

/* A budget in seconds becomes a number of steps, once: one step to warm up, one timed, validation shared out. */
static tt_status fix_steps(trainer *t, double validation_seconds, tt_err *err) {
    double loss = 0, at = 0;
    t->c.total = t->o->steps;
    if (t->o->time <= 0) return TT_OK;
    for (int i = 0; i < 2; i++) {
        at = tt__now();
        TT_TRY(tt__check_cancel(t->ctx, err));
        TT_TRY(train_loss(t, 0, &loss, err));
    }
    double per_step = tt__now() - at + validation_seconds / (double)t->o->valid_every, left = t->o->time - (tt__now() - t->began);
    double steps = left / (per_step > 1e-9 ? per_step : 1e-9);
    t->c.total = steps < 1 ? 1 : steps > 1e6 ? 1000000 : (int64_t)steps;
    tt__log(t->ctx, TT_LOG_INFO, "tune: %.0f s are %lld steps of %.2f s", t->o->time, (long long)t->c.total, per_step);
    return TT_OK;
}

static tt_status begin(trainer *t, tt_err *err) {
    t->c = (counters){.rate = 1};
    TT_TRY(first_tab(t, err));
    double start = tt__now();
    double valid = 0;
    TT_TRY(validate(t, &valid, err));
    TT_FAIL_IF(!isfinite(valid), err, TT_FAIL, "validation loss is not a finite number|step 0|%g||the model's weights may be damaged",
               valid);
    t->c.first_valid = t->c.best_valid = valid;
    copy_point(t->best, t->E, t->n);
    TT_TRY(grow_curve(t, 1, err));
    t->curve[t->c.n_curve++] = (curve_point){0, 0, valid};
    mark_good(t);
    TT_TRY(fix_steps(t, tt__now() - start, err));
    return save_state(t, err);
}

static void show_progress(trainer *t) {
    char note[96];
    snprintf(note, sizeof note, "loss %.4f, validation %.4f, best %.4f", t->c.last_loss, t->curve[t->c.n_curve - 1].valid, t->c.best_valid);
    tt__progress(t->ctx, "tune", (double)t->c.step, (double)t->c.total, "steps", note);
}

/* After every valid_every steps and after the last one, unless this point is on the curve already. */
static bool validation_is_due(const trainer *t) {
    const counters *c = &t->c;
    return (c->step % t->o->valid_every == 0 || c->step == c->total) && t->curve[c->n_curve - 1].step != c->step;
}

/* Between two actions the state is whole, and an action that is cancelled leaves no trace: so it can be saved whenever one returns. */
static tt_status run_steps(trainer *t, tt_err *err) {
    if (!t->resumed) TT_TRY(begin(t, err));
    while (t->c.step < t->c.total || validation_is_due(t)) {
        tt_status st = tt__check_cancel(t->ctx, err);
        if (st == TT_OK) st = validation_is_due(t) ? validation_point(t, err) : train_step(t, err);
        if (st == TT_INTERRUPTED || st == TT_TERMINATED) TT_TRY(save_state(t, err));
        TT_TRY(st);
        if (tt__now() - t->saved_at >= t->job->checkpoint_seconds) TT_TRY(save_state(t, err));
        show_progress(t);
    }
    return TT_OK;
}

/* ------------------------------------------------------------ the result ---- */

static json_t *curve_json(const trainer *t) {
    json_t *list = json_array();
    for (int64_t i = 0; i < t->c.n_curve; i++) {
        const curve_point *p = &t->curve[i];
        json_array_append_new(list, i == 0 ? json_pack("{s:I, s:f}", "step", (json_int_t)p->step, "valid", p->valid)
                                           : json_pack("{s:I, s:f, s:f}", "step", (json_int_t)p->step, "train", p->train, "valid",
                                               p->valid));
    }
    return list;
}

static int append(const char *text, size_t n, void *to) {
    tt__str_add(to, text, n);
    return 0;
}

/* Nothing here depends on the clock: equal runs write equal bytes. */
static tt_status record(const trainer *t, tt__str *out, tt_err *err) {
    const tt_train_job *j = t->job;
    const counters *c = &t->c;
    json_t *o = json_pack("{s:i, s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:I, s:I}", "trimtab_tab", 1, "method", "prompt", "base_model",
        j->base_ref, "base_sha256", j->base_sha256,
                          "teacher_sha256", j->teacher_sha256, "recipe", j->recipe_line, "recipe_sha256", j->recipe_sha256, "data_sha256",
                              j->data_sha256, "seed",
                          (json_int_t)j->seed, "steps", (json_int_t)c->total);
    json_t *more = t->trains ? json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:o}", "loss", t->kl ? "kl" : "ce", "best_step",
        (json_int_t)c->best_step, "tokens_seen",
                                        (json_int_t)c->tokens_seen, "first_loss", c->first_loss, "last_loss", c->last_loss, "first_valid",
                                            c->first_valid, "best_valid",
                                        c->best_valid, "halvings", (json_int_t)c->halvings, "curve", curve_json(t))
                            : json_object();
    bool ok = o && more && json_object_update(o, more) == 0 && json_dump_callback(o, append, out,
        JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0;
    json_decref(o);
    json_decref(more);
    tt__str_puts(out, "\n");
    TT_FAIL_IF(!ok || out->failed, err, TT_RESOURCE, "out of memory|trimtab.json");
    return TT_OK;
}

static tt_status write_tab(trainer *t, tt_err *err) {
    tt_peft_prompt p = {.tokens = t->P, .width = t->d, .embeddings = t->trains ? t->best : t->E,
        .base_model = (char *)(uintptr_t)t->job->base_ref,
                        .n_layers = t->job->student->hp.n_layer, .n_heads = t->job->student->hp.n_head};
    tt__str text = {0};
    tt_status st = record(t, &text, err);
    if (st == TT_OK) st = tt__peft_save(t->job->output, &p, text.s, err);
    tt__str_free(&text);
    return st;
}

static void fill_report(trainer *t) {
    const counters *c = &t->c;
    double seconds = c->seconds + tt__now() - t->began;
    t->job->report = (tt_tune_report){.steps = c->total, .best_step = c->best_step, .tokens_seen = c->tokens_seen,
        .first_loss = c->first_loss, .last_loss = c->last_loss,
                                      .best_valid = c->best_valid, .first_valid = c->first_valid, .seconds = seconds,
                                      .seconds_per_step = c->total > 0 ? seconds / (double)c->total : 0, .peak_bytes = tt__mem_peak(),
                                          .resumed = t->resumed};
}

/* ------------------------------------------------------------ the whole ---- */

static tt_status check_job(const trainer *t, tt_err *err) {
    const tt_net *student = t->job->student, *teacher = t->job->teacher;
    int64_t positions = t->P + t->o->length;
    TT_FAIL_IF(positions > student->hp.n_ctx, err, TT_USAGE,
               "tab and text are longer than the model's context|tokens + length|%lld|at most %lld", (long long)positions,
               (long long)student->hp.n_ctx);
    if (!t->kl) return TT_OK;
    TT_FAIL_IF(!teacher, err, TT_USAGE, "loss=kl needs a teacher||none||name the dense model with --teacher, or use loss=ce");
    TT_FAIL_IF(teacher->hp.n_vocab != student->hp.n_vocab, err, TT_USAGE, "teacher has another vocabulary|--teacher|%lld tokens|%lld",
               (long long)teacher->hp.n_vocab,
               (long long)student->hp.n_vocab);
    TT_FAIL_IF(t->o->length > teacher->hp.n_ctx, err, TT_USAGE, "length is larger than the teacher's context|length|%lld|at most %lld",
               (long long)t->o->length,
               (long long)teacher->hp.n_ctx);
    return TT_OK;
}

static tt_status open_trainer(trainer *t, tt_err *err) {
    t->state_path = tt__path_join(t->job->state_dir, "prompt.state");
    TT_FAIL_IF(!t->state_path, err, TT_RESOURCE, "out of memory|a path");
    TT_TRY(check_job(t, err));
    TT_TRY(tt__new(&t->arrays, (size_t)(ARRAYS * t->n), sizeof(float), "the tab and its moments", err));
    t->E = t->arrays, t->m = t->E + t->n, t->v = t->m + t->n, t->good = t->v + t->n, t->best = t->good + 3 * t->n;
    take_fingerprint(t);
    TT_TRY(load_state(t, err));
    bool stands = !t->resumed && !t->job->force && tt__exists(t->job->output);
    if (stands) tt__remove_empty(t->job->state_dir);               /* of a run that was killed at its last act */
    TT_FAIL_IF(stands, err, TT_USAGE, "output exists|%s|||use --force to replace it", t->job->output);
    TT_TRY(open_runners(t, err));
    return t->trains ? prepare_data(t, err) : TT_OK;
}

/* The state goes only after the result is safe; a state that cannot be removed is untidy, not a failure. */
static tt_status finish(trainer *t, tt_err *err) {
    TT_TRY(write_tab(t, err));
    fill_report(t);
    tt_err why = {0};
    char line[600];
    tt_status st = tt__remove(t->state_path, &why);
    if (st == TT_OK && tt__exists(t->job->state_dir)) st = tt__remove(t->job->state_dir, &why);
    if (st != TT_OK) tt__log(t->ctx, TT_LOG_WARN, "tune: the tab is written, but its state stays: %s", tt_err_line(&why, line,
        sizeof line));
    return TT_OK;
}

tt_status tt__prompt_train(tt_ctx *ctx, const tt_prompt_options *o, tt_train_job *job, tt_err *err) {
    trainer *t = NULL;
    TT_TRY(tt__new(&t, 1, sizeof *t, "the trainer", err));
    t->ctx = ctx, t->o = o, t->job = job;
    t->P = o->tokens, t->d = job->student->hp.n_embd, t->n = t->P * t->d;
    t->trains = o->steps > 0;
    t->kl = o->kl && t->trains;
    t->began = t->saved_at = tt__now();
    tt_status st = open_trainer(t, err);
    if (st == TT_OK) st = t->trains ? run_steps(t, err) : first_tab(t, err);
    if (st == TT_OK) st = finish(t, err);
    tt__runner_free(t->student);
    tt__runner_free(t->teacher);
    tt__tokens_free(&t->train);
    tt__tokens_free(&t->valid);
    tt__free(t->train_windows);
    tt__free(t->valid_windows);
    tt__free(t->order);
    tt__free(t->X);
    tt__free(t->dX);
    tt__free(t->H);
    tt__free(t->ids);
    tt__free(t->target);
    tt__free(t->curve);
    tt__free(t->arrays);
    tt__free(t->state_path);
    tt__free(t);
    return st;
}
