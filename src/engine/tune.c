/* tt_tune: opens the model through which the tab learns and the teacher, reads and splits the text, and hands a job to the recipe's method.
 *
 * The models are opened with exact numerics and their stored operators: a tab learns through the very weights that will be served. */
#include "base/env.h"
#include "base/util.h"
#include "engine/model.h"
#include "methods/method.h"
#include "train/calib.h"
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>

enum { SELF_SEQUENCES = 160, SELF_LENGTH = 256 };
#define HELD_OUT 0.1               /* share of the text that validates when no text is given for it */

tt_tune_options tt_tune_default_options(void) { return (tt_tune_options){.size = sizeof(tt_tune_options), .resume = true}; }

typedef struct tuning {
    tt_ctx *ctx;
    const tt_tune_options *o;
    tt_recipe *recipe;
    const tt_method *method;
    tt_model *model, *teacher;
    char *teacher_ref, *state, *self_dir, *line;
    tt_docs docs;
    tt_tokens train, valid;
    char recipe_sha256[65], base_sha256[65], teacher_sha256[65];
} tuning;

static tt_status open_runnable(tt_ctx *ctx, const char *ref, tt_model **out, tt_err *err) {
    tt_model_options o = tt_model_default_options();
    o.numerics = TT_EXACT;
    TT_TRY(tt_model_open(ctx, ref, &o, out, err));
    const tt_model *m = *out;
    TT_FAIL_IF(!m->net, err, TT_BADFILE, "cannot run this architecture|%s|%s", m->path, m->info.architecture);
    TT_FAIL_IF(!m->tok, err, TT_BADFILE, "model has no tokenizer that this build can use|%s", m->path);
    return TT_OK;
}

/* ------------------------------------------------------------ recipe and models ---- */

static tt_status read_recipe(tuning *t, tt_err *err) {
    const char *text = t->o->recipe ? t->o->recipe : "prompt";
    TT_TRY(tt_recipe_parse(text, strlen(text), &t->recipe, err));
    const tt_method_info *info = tt_recipe_get_method(t->recipe, 0);
    TT_FAIL_IF(tt_recipe_step_count(t->recipe) != 1 || strcmp(info->stage, "train") != 0, err, TT_USAGE,
               "tune takes one method that trains|recipe|%s|prompt(…)|use compress for the others", text);
    t->method = tt__method_of(info);
    tt_recipe_sha256(t->recipe, t->recipe_sha256);
    return tt_recipe_line(t->recipe, true, &t->line, err);
}

/* A method that distils has a knob loss=kl, and no steps means no teacher. */
static bool wants_teacher(const tuning *t) {
    const char *loss = tt_recipe_get_value(t->recipe, 0, "loss"), *steps = tt_recipe_get_value(t->recipe, 0, "steps");
    return loss && !strcmp(loss, "kl") && !(steps && !strcmp(steps, "0"));
}

/* Named by the caller, or the model that compress recorded as its source. */
static tt_status name_teacher(tuning *t, tt_err *err) {
    const char *name = t->o->teacher;
    size_t n = name ? strlen(name) : 0;
    if (!name && t->model->gguf) TT_TRY(tt__gguf_str(t->model->gguf, "trimtab.base", false, &name, &n, err));
    TT_FAIL_IF(!name, err, TT_USAGE,
               "loss=kl needs a teacher|%s|the model records none||name the dense model with --teacher, or use loss=ce", t->model->path);
    t->teacher_ref = tt__strndup(name, n);
    TT_FAIL_IF(!t->teacher_ref, err, TT_RESOURCE, "out of memory|a name");
    return TT_OK;
}

/* A recorded reference may by now lead to another file. */
static tt_status is_recorded_base(const tuning *t, tt_err *err) {
    const char *sha = NULL;
    size_t n = 0;
    if (t->o->teacher) return TT_OK;
    TT_TRY(tt__gguf_str(t->model->gguf, "trimtab.base_sha256", false, &sha, &n, err));
    TT_FAIL_IF(sha && (n != 64 || memcmp(sha, t->teacher_sha256, 64) != 0), err, TT_MISMATCH,
               "recorded teacher has changed|%s|%.12s…|%.*s…|name the dense model with --teacher",
               t->teacher_ref, t->teacher_sha256, n < 12 ? (int)n : 12, sha);
    return TT_OK;
}

static tt_status same_vocabulary(const tt_tokenizer *a, const tt_tokenizer *b, const char *ref, tt_err *err) {
    int64_t n = tt__tokenizer_size(a);
    TT_FAIL_IF(tt__tokenizer_size(b) != n, err, TT_USAGE, "teacher has another vocabulary|%s|%lld tokens|%lld", ref,
               (long long)tt__tokenizer_size(b), (long long)n);
    for (int64_t i = 0; i < n; i++) {
        size_t na = 0, nb = 0;
        const char *x = tt__tokenizer_token(a, (int32_t)i, &na, NULL), *y = tt__tokenizer_token(b, (int32_t)i, &nb, NULL);
        TT_FAIL_IF(na != nb || memcmp(x, y, na) != 0, err, TT_USAGE, "teacher has another vocabulary|%s, token %lld|%.*s|%.*s", ref,
                   (long long)i, (int)nb, y, (int)na, x);
    }
    return TT_OK;
}

static tt_status open_models(tuning *t, tt_err *err) {
    TT_TRY(open_runnable(t->ctx, t->o->model, &t->model, err));
    TT_TRY(tt_model_sha256(t->model, t->base_sha256, err));
    if (!wants_teacher(t)) return TT_OK;
    TT_TRY(name_teacher(t, err));
    TT_TRY(open_runnable(t->ctx, t->teacher_ref, &t->teacher, err));
    TT_TRY(same_vocabulary(t->model->tok, t->teacher->tok, t->teacher_ref, err));
    TT_TRY(tt_model_sha256(t->teacher, t->teacher_sha256, err));
    return is_recorded_base(t, err);
}

/* ------------------------------------------------------------ text ---- */

/* By document; a text of one document is cut at a line break near its end. */
static tt_status split_text(tuning *t, tt_err *err) {
    tt_docs a = {0}, b = {0};
    TT_TRY(tt__docs_split(&t->docs, HELD_OUT, t->o->seed, &a, &b, err));
    tt_status st = tt__docs_tokenize(&a, t->model->tok, &t->train, err);
    if (st == TT_OK) st = tt__docs_tokenize(&b, t->model->tok, &t->valid, err);
    if (st == TT_OK) tt__log(t->ctx, TT_LOG_INFO, "tune: %zu documents train, %zu validate", a.n, b.n);
    tt__docs_free(&a);
    tt__docs_free(&b);
    return st;
}

/* ---- data=self: sampled from the dense model (else the model itself), resumable like the training that follows ---- */

/* A folder whose name says what was sampled: model, instruction set, seed. */
static tt_status name_self_folder(tuning *t, tt_model *from, tt_err *err) {
    tt__str s = {0};
    char sha[65], hash[65], key[200];
    TT_TRY(tt_model_sha256(from, sha, err));
    snprintf(key, sizeof key, "%s %s %llu", sha, tt_ctx_isa(t->ctx), (unsigned long long)t->o->seed);
    tt__sha256_hex(key, strlen(key), hash);
    tt__str_printf(&s, "%s.self-%.12s", t->state, hash);
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    t->self_dir = s.s;
    return tt__mkdirs(t->self_dir, err);
}

/* The cache files of the save before are of no use then. */
static tt_status save_sequences(const tuning *t, tt_selftext *s, tt_err *err) {
    char before[64], name[80];
    snprintf(before, sizeof before, "%s", tt__selftext_tag(s));
    TT_TRY(tt__selftext_save(s, t->self_dir, err));
    for (int i = 0; i < 2 && before[0] && strcmp(before, tt__selftext_tag(s)) != 0; i++) {
        snprintf(name, sizeof name, "self.%s.%c", before, "kv"[i]);
        char *path = tt__path_join(t->self_dir, name);
        TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|a path");
        tt_status st = tt__remove(path, err);
        tt__free(path);
        TT_TRY(st);
    }
    return TT_OK;
}

static tt_status sample_sequences(tuning *t, tt_selftext *s, tt_err *err) {
    double saved = tt__now();
    TT_TRY(tt__selftext_load(s, t->self_dir, err));
    while (!tt__selftext_done(s)) {
        tt_status st = tt__check_cancel(t->ctx, err);
        if (st == TT_INTERRUPTED || st == TT_TERMINATED) TT_TRY(save_sequences(t, s, err));
        TT_TRY(st);
        TT_TRY(tt__selftext_step(s, err));
        tt__progress(t->ctx, "sample", 100 * tt__selftext_share(s), 100, "%", "");
        if (tt__now() - saved < tt__save_seconds()) continue;
        TT_TRY(save_sequences(t, s, err));
        saved = tt__now();
    }
    return save_sequences(t, s, err);
}

/* The last tenth of the sequences, drawn like all others, validates. */
static tt_status share_out(tuning *t, const int32_t *ids, tt_err *err) {
    size_t held = SELF_SEQUENCES / 10;
    struct { tt_tokens *to; size_t first, n; } parts[2] = {{&t->train, 0, SELF_SEQUENCES - held}, {&t->valid, SELF_SEQUENCES - held, held}};
    for (int i = 0; i < 2; i++) {
        tt_tokens *to = parts[i].to;
        to->n_docs = parts[i].n;
        to->n = parts[i].n * SELF_LENGTH;
        TT_TRY(tt__new(&to->ids, to->n, sizeof *to->ids, "sampled tokens", err));
        TT_TRY(tt__new(&to->start, to->n_docs + 1, sizeof *to->start, "sampled tokens", err));
        memcpy(to->ids, ids + parts[i].first * SELF_LENGTH, to->n * sizeof *ids);
        for (size_t k = 0; k <= to->n_docs; k++) to->start[k] = k * SELF_LENGTH;
    }
    tt__sha256_hex(ids, SELF_SEQUENCES * SELF_LENGTH * sizeof *ids, t->docs.sha256);
    return TT_OK;
}

static tt_status sample_text(tuning *t, tt_err *err) {
    tt_model *from = t->teacher ? t->teacher : t->model;
    tt_selftext *s = NULL;
    int32_t *ids = NULL;
    TT_TRY(name_self_folder(t, from, err));
    TT_TRY(tt__new(&ids, SELF_SEQUENCES * SELF_LENGTH, sizeof *ids, "sampled tokens", err));
    tt_status st = tt__selftext_create(t->ctx, from->net, from->tok, SELF_SEQUENCES, SELF_LENGTH, t->o->seed, ids, &s, err);
    if (st == TT_OK) st = sample_sequences(t, s, err);
    if (st == TT_OK) st = share_out(t, ids, err);
    tt__selftext_free(s);
    tt__free(ids);
    return st;
}

static tt_status read_text(tuning *t, tt_err *err) {
    TT_FAIL_IF(!t->o->data, err, TT_USAGE, "no text to learn from|data|||give --data FILE, or self");
    if (!strcmp(t->o->data, "self")) return sample_text(t, err);
    TT_TRY(tt__docs_load(t->o->data, NULL, &t->docs, err));
    if (!t->o->valid) return split_text(t, err);
    TT_TRY(tt__docs_tokenize(&t->docs, t->model->tok, &t->train, err));
    tt_docs valid = {0};
    TT_TRY(tt__docs_load(t->o->valid, NULL, &valid, err));
    tt_status st = tt__docs_tokenize(&valid, t->model->tok, &t->valid, err);
    tt__docs_free(&valid);
    return st;
}

/* ------------------------------------------------------------ the job ---- */

static tt_status name_state(tuning *t, tt_err *err) {
    tt__str s = {0};
    TT_FAIL_IF(!t->o->output || !*t->o->output, err, TT_USAGE, "no output given|||a folder|add -o FOLDER");
    if (t->o->state) tt__str_puts(&s, t->o->state);
    else tt__str_printf(&s, "%s.state", t->o->output);
    t->state = s.s;
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

static tt_status run(tuning *t, tt_tune_report *report, tt_err *err) {
    TT_TRY(name_state(t, err));
    TT_TRY(read_recipe(t, err));
    TT_TRY(open_models(t, err));
    TT_TRY(read_text(t, err));
    tt_knobs knobs = {t->recipe, 0};
    tt_train_job job = {
        .student = t->model->net, .teacher = t->teacher ? t->teacher->net : NULL, .tokenizer = t->model->tok, .train = &t->train,
            .valid = &t->valid,
        .time = t->o->time, .seed = t->o->seed, .max_ram = t->o->max_ram, .state_dir = t->state, .output = t->o->output,
        .base_ref = t->o->model, .base_sha256 = t->base_sha256, .teacher_sha256 = t->teacher ? t->teacher_sha256 : NULL,
        .recipe_line = t->line, .recipe_sha256 = t->recipe_sha256, .data_sha256 = t->docs.sha256,
        .resume = t->o->resume, .force = t->o->force, .checkpoint_seconds = tt__save_seconds(), .deterministic = t->ctx->opt.deterministic,
    };
    if (t->method->applies) TT_TRY(t->method->applies(job.student, &knobs, err));
    TT_TRY(t->method->train->train(t->ctx, &knobs, &job, err));
    if (report) *report = job.report;
    return t->self_dir ? tt__remove_tree(t->self_dir, err) : TT_OK;
}

tt_status tt_tune(tt_ctx *ctx, const tt_tune_options *options, tt_tune_report *report, tt_err *err) {
    tuning t = {.ctx = ctx, .o = options};
    tt__mem_reset_peak();
    tt_status st = run(&t, report, err);
    tt__tokens_free(&t.train);
    tt__tokens_free(&t.valid);
    tt__docs_free(&t.docs);
    tt_recipe_free(t.recipe);
    tt_model_close(t.teacher);
    tt_model_close(t.model);
    tt__free(t.teacher_ref);
    tt__free(t.state);
    tt__free(t.self_dir);
    tt_free(t.line);
    return st;
}
