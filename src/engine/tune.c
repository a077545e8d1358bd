/* tt_tune: opens the model through which the tab learns and the teacher, reads and splits the text, and hands a job to the recipe's method. What comes
 * out is the folder of a tab, or, of a method that trains the weights themselves, a model: the file of the one that went in with other numbers.
 *
 * The models are opened with exact numerics and their stored operators: a tab learns through the very weights that will be served. */
#include "base/env.h"
#include "base/util.h"
#include "engine/model.h"
#include "engine/tune_texts.h"
#include "hub/hub.h"
#include "methods/method.h"
#include "models/store.h"
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>

tt_tune_options tt_tune_default_options(void) { return (tt_tune_options){.size = sizeof(tt_tune_options), .resume = true}; }

typedef struct tuning {
    tt_ctx *ctx;
    const tt_tune_options *o;
    tt_recipe *recipe;
    size_t step;                               /* the one that trains: the last */
    const tt_method *method;
    tt_model *model, *teacher;
    char *teacher_ref, *state, *line, *cache_dir;
    tt_tune_texts texts;
    char recipe_sha256[65], base_sha256[65], dense_sha256[65], teacher_sha256[65];
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

/* One method that trains; compress steps may stand before it when the model was made by them, "gptq(bits=2)+dwq". */
static tt_status read_recipe(tuning *t, tt_err *err) {
    const char *text = t->o->recipe ? t->o->recipe : "prompt";
    TT_TRY(tt_recipe_parse(text, strlen(text), &t->recipe, err));
    t->step = tt_recipe_step_count(t->recipe) - 1;
    bool good = true;
    for (size_t i = 0; i <= t->step; i++) good = good && !strcmp(tt_recipe_get_method(t->recipe, i)->stage, i < t->step ? "compress" : "train");
    TT_FAIL_IF(!good, err, TT_USAGE, "tune takes one method that trains|recipe|%s|prompt(…), or the model's own recipe and one|use compress for the others", text);
    t->method = tt__method_of(tt_recipe_get_method(t->recipe, t->step));
    tt_recipe_sha256(t->recipe, t->recipe_sha256);
    return tt_recipe_line(t->recipe, true, &t->line, err);
}

/* A method that distils has a knob loss=kl, and no steps means no teacher. */
static bool wants_teacher(const tuning *t) {
    const char *loss = tt_recipe_get_value(t->recipe, t->step, "loss"), *steps = tt_recipe_get_value(t->recipe, t->step, "steps");
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
    TT_TRY(tt__dense_sha256(t->model, true, t->dense_sha256, err));
    if (!wants_teacher(t)) return TT_OK;
    TT_TRY(name_teacher(t, err));
    TT_TRY(open_runnable(t->ctx, t->teacher_ref, &t->teacher, err));
    TT_TRY(same_vocabulary(t->model->tok, t->teacher->tok, t->teacher_ref, err));
    TT_TRY(tt_model_sha256(t->teacher, t->teacher_sha256, err));
    return is_recorded_base(t, err);
}

/* ------------------------------------------------------------ a model as the result ---- */

static bool ends_in(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcmp(s + n - m, end);
}

static tt_status check_kind(const tuning *t, tt_err *err) {
    bool file = ends_in(t->o->output, ".gguf");
    if (!t->method->train->model) {
        TT_FAIL_IF(file && !tt__is_dir(t->o->output), err, TT_USAGE, "this method writes a folder|%s|%s|a name without .gguf|dwq and qat write models", t->o->output,
                   t->method->info.name);
        return TT_OK;
    }
    TT_FAIL_IF(!file, err, TT_USAGE, "this method writes a model|%s|%s|a name that ends in .gguf|prompt and prefix write tabs", t->o->output, t->method->info.name);
    TT_FAIL_IF(tt__same_file(t->model->path, t->o->output), err, TT_USAGE, "output is the model itself|%s", t->o->output);
    return TT_OK;
}

static tt_status add_tokenizer(void *user, tt_gguf_writer *w, tt_err *err) {
    const tuning *t = user;
    if (t->model->gguf) return TT_OK;
    TT_TRY(tt__gguf_set_str(w, "general.name", t->model->info.name, err));
    return tt__tokenizer_to_gguf(t->model->tok, w, err);
}

/* A string of the model's metadata, copied; *out stays NULL when there is none. */
static tt_status recorded(const tuning *t, const char *key, char **out, tt_err *err) {
    const char *value = NULL;
    size_t n = 0;
    if (t->model->gguf) TT_TRY(tt__gguf_str(t->model->gguf, key, false, &value, &n, err));
    if (!value) return TT_OK;
    *out = tt__strndup(value, n);
    TT_FAIL_IF(!*out, err, TT_RESOURCE, "out of memory|metadata");
    return TT_OK;
}

/* The model's recipe `before` (NULL: none) and this one: they overlap where the caller named the compress steps too, or compress had left this step. */
static bool continues(const tuning *t, const char *before) {
    size_t n = before ? strlen(before) : 0;
    return before && !strncmp(t->line, before, n) && (!t->line[n] || (t->line[n] == '+' && t->step > 0));
}

/* Compress steps that are named have to be those that made the model. */
static tt_status check_lineage(const tuning *t, tt_err *err) {
    char *before = NULL;
    if (t->step == 0) return TT_OK;
    TT_TRY(recorded(t, "trimtab.recipe", &before, err));
    bool good = continues(t, before);
    if (!good) tt__fail(err, TT_USAGE, "model was made by another recipe|%s|%s|%s|name the step that trains alone", t->model->path, before ? before : "none", t->line);
    tt__free(before);
    return good ? TT_OK : TT_USAGE;
}

/* The recipe grows by this step. The base stays the dense model, which is what later tabs follow; the model that was trained is the parent. */
static tt_status store_model(tuning *t, const tt_net *net, const char *record, const char *before, tt_err *err) {
    tt__str recipe = {0};
    char sha[65] = "";
    bool has_base = before || (t->model->gguf && tt__gguf_has(t->model->gguf, "trimtab.base")), alone = !before || continues(t, before);
    tt__str_printf(&recipe, "%s%s%s", alone ? "" : before, alone ? "" : "+", t->line);
    if (!recipe.failed) tt__sha256_hex(recipe.s, recipe.n, sha);
    const char *extra[] = {"trimtab.version", tt_version(), "trimtab.recipe", recipe.s, "trimtab.recipe_sha256", sha, "trimtab.parent_sha256", t->base_sha256,
                           "trimtab.tune_sha256", t->texts.sha256, "trimtab.tune", record, has_base || !t->teacher ? NULL : "trimtab.base", t->teacher_ref,
                           "trimtab.base_sha256", t->teacher_sha256, NULL};
    tt_status st = recipe.failed ? tt__fail(err, TT_RESOURCE, "out of memory|a recipe")
                                 : tt__store_gguf(net, NULL, t->model->gguf, add_tokenizer, t, extra, t->o->output, NULL, err);
    tt__str_free(&recipe);
    return st;
}

static tt_status save_model(void *user, const tt_net *net, const char *record, tt_err *err) {
    tuning *t = user;
    char *before = NULL;
    TT_TRY(recorded(t, "trimtab.recipe", &before, err));
    tt_status st = store_model(t, net, record, before, err);
    tt__free(before);
    return st;
}

/* ------------------------------------------------------------ the job ---- */

/* Where a teacher's logits are kept; without a place for it they stay with the run. */
static void find_cache(tuning *t) {
    uint64_t limit = tt__env_bytes(TT_ENV_TEACHER_CACHE, 8ull << 30);
    if (!t->teacher || !limit) return;
    if (tt__teacher_folder(&t->cache_dir, NULL) == TT_OK && tt__mkdirs_private(t->cache_dir, NULL) == TT_OK) {
        tt__make_room(t->cache_dir, ".logits", limit, 0);
        return;
    }
    tt__free(t->cache_dir);
    t->cache_dir = NULL;
}

static tt_status name_state(tuning *t, tt_err *err) {
    tt__str s = {0};
    TT_FAIL_IF(!t->o->output || !*t->o->output, err, TT_USAGE, "no output given|||a folder|add -o FOLDER");
    if (t->o->state) tt__str_puts(&s, t->o->state);
    else tt__str_printf(&s, "%s.state", t->o->output);
    t->state = s.s;
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

/* The method's knob, for text that is sampled for it. */
static int64_t window_length(const tuning *t) {
    const char *length = tt_recipe_get_value(t->recipe, t->step, "length"), *steps = tt_recipe_get_value(t->recipe, t->step, "steps");
    int64_t n;
    if (steps && !strcmp(steps, "0")) return 0;
    return length && tt__parse_i64(length, &n) ? n : 256;
}

/* Asked for and not met: the tab is written all the same. */
static tt_status check_guard(const tuning *t, const tt_guard_report *g, tt_err *err) {
    if (!g->n_texts || g->harmless) return TT_OK;
    TT_FAIL_IF(t->texts.guards_named, err, TT_TARGET, "no checkpoint left every guarded text as good as before|%s|||the best one by validation is written; "
               "learn from mixed text, or with loss=kl, fewer tokens or a lower rate", t->o->output);
    tt__log(t->ctx, TT_LOG_WARN, "tune: no checkpoint left self-sampled text as good as before; the best one by validation is written");
    return TT_OK;
}

/* Before anything is sampled for a run that cannot be. */
static tt_status check_output(const tuning *t, tt_err *err) {
    bool begun = false;
    if (t->o->force || !tt__exists(t->o->output)) return TT_OK;
    if (t->o->resume) TT_TRY(tt__tune_texts_sweep(t->state, &begun, err));
    TT_FAIL_IF(!begun, err, TT_USAGE, "output exists|%s|||use --force to replace it", t->o->output);
    return TT_OK;
}

static tt_status run(tuning *t, tt_tune_report *report, tt_err *err) {
    TT_TRY(name_state(t, err));
    TT_TRY(check_output(t, err));
    TT_TRY(read_recipe(t, err));
    TT_TRY(open_models(t, err));
    TT_TRY(check_kind(t, err));
    TT_TRY(check_lineage(t, err));
    TT_TRY(tt__tune_texts_read(t->ctx, t->o, t->state, t->model, t->teacher, window_length(t), &t->texts, err));
    find_cache(t);
    tt_knobs knobs = {t->recipe, t->step};
    tt_train_job job = {
        .student = t->model->net, .teacher = t->teacher ? t->teacher->net : NULL, .tokenizer = t->model->tok, .train = &t->texts.train,
            .valid = &t->texts.valid, .guards = t->texts.guards, .n_guards = t->texts.n_guards,
        .time = t->o->time, .seed = t->o->seed, .max_ram = t->o->max_ram, .state_dir = t->state, .output = t->o->output,
        .cache_dir = t->cache_dir, .save_model = save_model, .save_user = t,
        .base_ref = t->o->model, .base_sha256 = t->base_sha256, .dense_sha256 = t->dense_sha256, .teacher_sha256 = t->teacher ? t->teacher_sha256 : NULL,
        .recipe_line = t->line, .recipe_sha256 = t->recipe_sha256, .data_sha256 = t->texts.sha256,
        .resume = t->o->resume, .force = t->o->force, .checkpoint_seconds = tt__save_seconds(), .deterministic = t->ctx->opt.deterministic,
    };
    if (t->method->applies) TT_TRY(t->method->applies(job.student, &knobs, err));
    TT_TRY(t->method->train->train(t->ctx, &knobs, &job, err));
    if (report) *report = job.report;
    TT_TRY(tt__tune_texts_done(&t->texts, t->state, err));
    return check_guard(t, &job.report.guard, err);
}

/* Sampled text without a state to go on from is of no use behind a failure. */
static void forget_samples(const tuning *t) {
    tt_err ignored = {0};
    bool begun;
    if (t->state && t->o->resume) tt__tune_texts_sweep(t->state, &begun, &ignored);
}

tt_status tt_tune(tt_ctx *ctx, const tt_tune_options *options, tt_tune_report *report, tt_err *err) {
    tuning t = {.ctx = ctx, .o = options};
    tt__mem_reset_peak();
    tt_status st = run(&t, report, err);
    if (st != TT_OK && st != TT_INTERRUPTED && st != TT_TERMINATED) forget_samples(&t);
    tt__tune_texts_free(&t.texts);
    tt_recipe_free(t.recipe);
    tt_model_close(t.teacher);
    tt_model_close(t.model);
    tt__free(t.teacher_ref);
    tt__free(t.state);
    tt__free(t.cache_dir);
    tt_free(t.line);
    return st;
}
