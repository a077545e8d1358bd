/* Texts of a tune: see tune_texts.h.
 *
 *     --data a.txt:2,self    each source is split: most of it trains, a tenth validates (by document; --valid FILE validates instead);
 *                            the parts are mixed by weight (engine/texts.h)
 *     --guard b.txt,self     each is a text of its own. By default a slice of self-sampled text, drawn apart from any that is learned from; not when
 *                            self-sampled text is learned from, for that kind of text validates then
 */
#include "engine/tune_texts.h"
#include "engine/sample.h"
#include "engine/texts.h"

#include <dirent.h>
#include <stdio.h>

enum { SELF_SEQUENCES = 160, SELF_LENGTH = 256, GUARD_SEQUENCES = 16, GUARD_LONGEST = 1024 };
#define HELD_OUT 0.1               /* share of the text that validates when no text is given for it */
#define SELF_PREFIX "self-"
static const uint64_t GUARD_SEED = 0x6775617264000001u;

typedef struct reader {
    tt_ctx *ctx;
    const tt_tune_options *o;
    const char *state;
    tt_model *student, *teacher, *dense;      /* dense: opened for sampling alone */
    tt_tune_texts *t;
    int64_t length;
} reader;

/* ------------------------------------------------------------ sampled text ---- */

/* The dense model that compress recorded, when it lies here and still is that one. */
static tt_model *recorded_base(reader *r) {
    tt_err why = {0};
    tt_model *m = NULL;
    const char *name = NULL, *sha = NULL;
    size_t n = 0, k = 0;
    char hash[65], ref[1024];
    tt_model_options mo = tt_model_default_options();
    mo.offline = mo.stored = true;
    if (!r->student->gguf || tt__gguf_str(r->student->gguf, "trimtab.base", false, &name, &n, &why) != TT_OK || !name || n >= sizeof ref) return NULL;
    if (tt__gguf_str(r->student->gguf, "trimtab.base_sha256", false, &sha, &k, &why) != TT_OK || k != 64) return NULL;
    memcpy(ref, name, n);
    ref[n] = 0;
    if (tt_model_open(r->ctx, ref, &mo, &m, &why) != TT_OK) return NULL;
    if (m->net && m->tok && tt_model_sha256(m, hash, &why) == TT_OK && !memcmp(hash, sha, 64)) return m;
    tt_model_close(m);
    return NULL;
}

static tt_model *sampled_model(reader *r) {
    if (r->teacher) return r->teacher;
    if (!r->dense) r->dense = recorded_base(r);
    if (!r->dense) tt__log(r->ctx, TT_LOG_INFO, "tune: no dense model at hand, text is sampled from the model itself");
    return r->dense ? r->dense : r->student;
}

/* A folder whose name says what is sampled: model, instruction set, seed, sizes. */
static tt_status name_folder(reader *r, tt_model *from, const tt_selftext_options *o, char **dir, tt_err *err) {
    tt__str s = {0};
    char sha[65], hash[65], key[240];
    TT_TRY(tt_model_sha256(from, sha, err));
    snprintf(key, sizeof key, "2 %s %s %llu %lld %lld", sha, tt_ctx_isa(r->ctx), (unsigned long long)o->seed, (long long)o->samples, (long long)o->length);
    tt__sha256_hex(key, strlen(key), hash);
    tt__str_printf(&s, "%s/" SELF_PREFIX "%.12s", r->state, hash);
    *dir = s.s;
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    return tt__mkdirs(*dir, err);
}

static tt_status sample(reader *r, const tt_selftext_options *o, char **dir, int32_t **ids, tt_err *err) {
    tt_model *from = sampled_model(r);
    TT_TRY(name_folder(r, from, o, dir, err));
    TT_TRY(tt__new(ids, (size_t)(o->samples * o->length), sizeof **ids, "sampled tokens", err));
    tt_err first = {0};
    tt_status st = tt__sample_ids(r->ctx, from, o, *dir, *ids, &first);
    if (st != TT_BADFILE) {
        if (st != TT_OK && err) *err = first;
        return st;
    }
    char line[600];
    tt__log(r->ctx, TT_LOG_WARN, "tune: sampling begins again: %s", tt_err_line(&first, line, sizeof line));
    TT_TRY(tt__remove_tree(*dir, err));
    TT_TRY(tt__mkdirs(*dir, err));
    return tt__sample_ids(r->ctx, from, o, *dir, *ids, err);
}

/* n sequences as documents. */
static tt_status as_tokens(const int32_t *ids, size_t n, size_t length, tt_tokens *to, tt_err *err) {
    TT_TRY(tt__new(&to->ids, n * length, sizeof *to->ids, "sampled tokens", err));
    TT_TRY(tt__new(&to->start, n + 1, sizeof *to->start, "sampled tokens", err));
    memcpy(to->ids, ids, n * length * sizeof *ids);
    for (size_t k = 0; k <= n; k++) to->start[k] = k * length;
    to->n_docs = n;
    to->n = n * length;
    return TT_OK;
}

/* The last tenth of the sequences, drawn like all others, validates. */
static tt_status sample_parts(reader *r, tt_tokens *train, tt_tokens *valid, char sha256[65], tt_err *err) {
    tt_selftext_options o = tt__selftext_options(SELF_SEQUENCES, SELF_LENGTH, r->o->seed);
    size_t kept = SELF_SEQUENCES - SELF_SEQUENCES / 10;
    int32_t *ids = NULL;
    tt_status st = sample(r, &o, &r->t->folders[0], &ids, err);
    if (st == TT_OK) st = as_tokens(ids, kept, SELF_LENGTH, train, err);
    if (st == TT_OK) st = as_tokens(ids + kept * SELF_LENGTH, SELF_SEQUENCES - kept, SELF_LENGTH, valid, err);
    if (st == TT_OK) tt__sha256_hex(ids, SELF_SEQUENCES * SELF_LENGTH * sizeof *ids, sha256);
    tt__free(ids);
    return st;
}

static tt_status sample_guard(reader *r, tt_tokens *out, tt_err *err) {
    int64_t n_ctx = r->student->net->hp.n_ctx, length = r->length < GUARD_LONGEST ? r->length : GUARD_LONGEST;
    if (length > n_ctx) length = n_ctx;
    tt_selftext_options o = tt__selftext_options(GUARD_SEQUENCES, length < 8 ? 8 : length, r->o->seed ^ GUARD_SEED);
    int32_t *ids = NULL;
    tt_status st = sample(r, &o, &r->t->folders[1], &ids, err);
    if (st == TT_OK) st = as_tokens(ids, GUARD_SEQUENCES, (size_t)o.length, out, err);
    tt__free(ids);
    return st;
}

/* ------------------------------------------------------------ what is learned from ---- */

static tt_status load(reader *r, const char *path, tt_tokens *out, tt_err *err) {
    tt_docs docs = {0};
    TT_TRY(tt__docs_load(path, NULL, &docs, err));
    tt_status st = tt__docs_tokenize(&docs, r->student->tok, out, err);
    tt__docs_free(&docs);
    return st;
}

/* By document; a text of one document is cut at a line break near its end. */
static tt_status load_parts(reader *r, const char *path, tt_tokens *train, tt_tokens *valid, char sha256[65], tt_err *err) {
    tt_docs docs = {0}, a = {0}, b = {0};
    TT_TRY(tt__docs_load(path, NULL, &docs, err));
    memcpy(sha256, docs.sha256, sizeof docs.sha256);
    tt_status st = TT_OK;
    if (r->o->valid) st = tt__docs_tokenize(&docs, r->student->tok, train, err);
    else st = tt__docs_split(&docs, HELD_OUT, r->o->seed, &a, &b, err);
    if (st == TT_OK && !r->o->valid) st = tt__docs_tokenize(&a, r->student->tok, train, err);
    if (st == TT_OK && !r->o->valid) st = tt__docs_tokenize(&b, r->student->tok, valid, err);
    if (st == TT_OK && !r->o->valid) tt__log(r->ctx, TT_LOG_INFO, "tune: %s: %zu documents train, %zu validate", path, a.n, b.n);
    tt__docs_free(&a);
    tt__docs_free(&b);
    tt__docs_free(&docs);
    return st;
}

static tt_status read_sources(reader *r, const tt_sources *s, tt_err *err) {
    tt_tokens train[TT_MAX_SOURCES] = {{0}}, valid[TT_MAX_SOURCES] = {{0}};
    char sha[TT_MAX_SOURCES][65];
    const char *hashes[TT_MAX_SOURCES];
    double weights[TT_MAX_SOURCES];
    tt_status st = TT_OK;
    for (int i = 0; i < s->n && st == TT_OK; i++) {
        hashes[i] = sha[i];
        weights[i] = s->item[i].weight;
        st = s->item[i].self ? sample_parts(r, &train[i], &valid[i], sha[i], err) : load_parts(r, s->item[i].path, &train[i], &valid[i], sha[i], err);
    }
    if (st == TT_OK) st = tt__tokens_mix(train, weights, s->n, &r->t->train, err);
    if (st == TT_OK) st = r->o->valid ? load(r, r->o->valid, &r->t->valid, err) : tt__tokens_mix(valid, weights, s->n, &r->t->valid, err);
    if (st == TT_OK) tt__mix_sha256(hashes, weights, s->n, r->t->sha256);
    for (int i = 0; i < s->n; i++) {
        tt__tokens_free(&train[i]);
        tt__tokens_free(&valid[i]);
    }
    return st;
}

/* ------------------------------------------------------------ what is guarded ---- */

static tt_status add_guard(reader *r, const tt_source *s, tt_err *err) {
    tt_tune_texts *t = r->t;
    int i = t->n_guards;
    TT_FAIL_IF(i == TT_MAX_GUARDS, err, TT_USAGE, "too many guard texts|guard||at most %d", TT_MAX_GUARDS);
    TT_TRY(s->self ? sample_guard(r, &t->guarded[i], err) : load(r, s->path, &t->guarded[i], err));
    t->names[i] = tt__strdup(s->path);
    TT_FAIL_IF(!t->names[i], err, TT_RESOURCE, "out of memory|a name");
    t->guards[i] = (tt_guard_text){t->names[i], &t->guarded[i]};
    t->n_guards++;
    return TT_OK;
}

static tt_status read_guards(reader *r, bool learns_self, tt_err *err) {
    const char *spec = r->o->guard;
    tt_sources s;
    r->t->guards_named = spec != NULL;
    if (r->length < 1 || (spec ? !strcmp(spec, "none") : learns_self)) return TT_OK;
    TT_TRY(tt__sources_parse(spec ? spec : "self", "guard", &s, err));
    tt_status st = TT_OK;
    for (int i = 0; i < s.n && st == TT_OK; i++) st = add_guard(r, &s.item[i], err);
    tt__sources_free(&s);
    return st;
}

/* ------------------------------------------------------------ the whole ---- */

tt_status tt__tune_texts_read(tt_ctx *ctx, const tt_tune_options *o, const char *state, tt_model *student, tt_model *teacher, int64_t length, tt_tune_texts *out,
                              tt_err *err) {
    reader r = {.ctx = ctx, .o = o, .state = state, .student = student, .teacher = teacher, .t = out, .length = length};
    tt_sources s;
    *out = (tt_tune_texts){0};
    TT_FAIL_IF(!o->data, err, TT_USAGE, "no text to learn from|data|||give --data FILE, or self");
    TT_TRY(tt__sources_parse(o->data, "data", &s, err));
    tt_status st = read_sources(&r, &s, err);
    if (st == TT_OK) st = read_guards(&r, tt__sources_self(&s) >= 0, err);
    tt__sources_free(&s);
    tt_model_close(r.dense);
    return st;
}

tt_status tt__tune_texts_done(tt_tune_texts *t, const char *state, tt_err *err) {
    for (int i = 0; i < 2; i++)
        if (t->folders[i]) TT_TRY(tt__remove_tree(t->folders[i], err));
    tt__remove_empty(state);
    return TT_OK;
}

/* Points of the learner (train/learn.c) without its state are rubbish. */
static bool is_point(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (!strcmp(dot, ".good-0") || !strcmp(dot, ".good-1") || !strcmp(dot, ".best-0") || !strcmp(dot, ".best-1"));
}

/* Only what tuning makes, whatever else lies in a folder that somebody named. */
tt_status tt__tune_texts_sweep(const char *state, bool *begun, tt_err *err) {
    DIR *d = opendir(state);
    tt_status st = TT_OK;
    *begun = false;
    for (struct dirent *e; d && st == TT_OK && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        *begun |= n > 6 && !strcmp(e->d_name + n - 6, ".state");
    }
    if (d) rewinddir(d);
    for (struct dirent *e; d && !*begun && st == TT_OK && (e = readdir(d));) {
        const bool sampled = !strncmp(e->d_name, SELF_PREFIX, strlen(SELF_PREFIX));
        if (!sampled && !is_point(e->d_name)) continue;
        char *path = tt__path_join(state, e->d_name);
        st = !path ? tt__fail(err, TT_RESOURCE, "out of memory|a path") : sampled ? tt__remove_tree(path, err) : tt__remove(path, err);
        tt__free(path);
    }
    if (d) closedir(d);
    if (st == TT_OK && !*begun) tt__remove_empty(state);
    return st;
}

void tt__tune_texts_free(tt_tune_texts *t) {
    tt__tokens_free(&t->train);
    tt__tokens_free(&t->valid);
    for (int i = 0; i < TT_MAX_GUARDS; i++) {
        tt__tokens_free(&t->guarded[i]);
        tt__free(t->names[i]);
    }
    for (int i = 0; i < 2; i++) tt__free(t->folders[i]);
    *t = (tt_tune_texts){0};
}
