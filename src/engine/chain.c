/* tt_chain: a named recipe (methods/recipes.inc) from a dense model to a compressed one with its tab, in one call.
 *
 *     probe      how long things take on this machine with this model: tokens sampled, one layer compressed with few and with more sequences, one
 *                training step; some seconds in all                                                          (only when the plan is made)
 *     plan       seconds of a step = fixed + amount * each. Without a time budget the usual amounts; with one, steps of least worth are left out until the
 *                least amounts fit, then all amounts are raised together as far as the time goes
 *     sample     text from the dense model                       → STATE/self.jsonl
 *     compress   calibrated on it, mixed with the caller's text  → OUTPUT, or STATE/N.gguf when a step follows that makes a better model of it
 *     recover    that step, from the same texts                  → OUTPUT
 *     tab        learned through OUTPUT from the same texts      → OUTPUT's name with .tab
 *
 * STATE/plan.json holds a hash of all settings, the amounts and how many steps are done: it is made once, so a run that was killed anywhere goes
 * on with the same amounts, each step from its own state. The times are estimates and called so.
 */
#include "base/env.h"
#include "engine/compress_state.h"
#include "engine/sample.h"
#include "engine/texts.h"
#include "methods/recipes.h"
#include "train/distil.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { LENGTH = 512, LEAST_TEXT = 64, USUAL_TEXT = 256, MOST_TEXT = 1024, PROBE_SEQUENCES = 4, PROBE_STEPS = 24, VALID_EVERY = 50, VALID_WINDOWS = 16, MAX_STEPS = TT_MAX_NAMED_STEPS + 1 };
static const double FORWARD_SHARE = 0.4;      /* of a training step: a validation does it without the way back */
static const double WEIGHTS_SHARE = 1.4;      /* of a step that trains an input: one that trains numbers in every matrix */

typedef struct cost { double fixed, each; } cost;

typedef struct plan_step {
    const tt_named_step *named;               /* NULL: sampling */
    cost cost;
    int64_t least, usual, most, amount;
    bool taken;
    char *line;
    double seconds;                           /* what it took; NaN */
} plan_step;

typedef struct cjob {
    tt_ctx *ctx;
    const tt_chain_options *o;
    tt_named_recipe recipe;
    tt_model *model;
    char model_sha256[65], key[65];
    char *state, *tab, *self, *data, *plan_path;
    plan_step step[MAX_STEPS];
    int n, done;
    bool stood, tab_stood, resumed, too_short;
    tt_chain_report report;
} cjob;

tt_chain_options tt_chain_default_options(void) { return (tt_chain_options){.size = sizeof(tt_chain_options), .resume = true}; }

/* ------------------------------------------------------------ names ---- */

static tt_status unknown_recipe(const char *name, tt_err *err) {
    const char *names[32];
    char hint[120] = "";
    tt_named_recipe r;
    size_t n = 0;
    for (; n < 32 && tt_named_recipe_get(n, &r); n++) names[n] = r.name;
    const char *near = tt__nearest(name ? name : "", names, n);
    if (near) snprintf(hint, sizeof hint, "did you mean '%s'?", near);
    return tt__fail(err, TT_USAGE, "unknown recipe|recipe|%s||%s", name ? name : "nothing", hint);
}

static tt_status join(char **out, const char *a, const char *b, tt_err *err) {
    tt__str s = {0};
    tt__str_printf(&s, "%s%s", a, b);
    *out = s.s;
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

static double weight_of(const tt_sources *s) {
    double sum = 0;
    for (int i = 0; i < s->n; i++) sum += s->item[i].weight;
    return sum;
}

/* The caller's texts and as much of the sampled one. */
static tt_status name_data(cjob *j, tt_err *err) {
    tt__str s = {0};
    if (j->o->data) {
        tt_sources given;
        TT_TRY(tt__sources_parse(j->o->data, "data", &given, err));
        tt_status st = TT_OK;
        for (int i = 0; i < given.n && st == TT_OK; i++) {
            if (given.item[i].self) st = tt__fail(err, TT_USAGE, "sampled text comes with the recipe|data|%s||name your own texts alone", j->o->data);
            tt__str_printf(&s, "%s:%.9g,", given.item[i].path, given.item[i].weight);
        }
        tt__str_printf(&s, "%s:%.9g", j->self, weight_of(&given));
        tt__sources_free(&given);
        if (st != TT_OK) {
            tt__str_free(&s);
            return st;
        }
    } else tt__str_puts(&s, j->self);
    j->data = s.s;
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

static tt_status name_files(cjob *j, tt_err *err) {
    const char *out = j->o->output;
    size_t n = out ? strlen(out) : 0;
    TT_FAIL_IF(n < 6 || strcmp(out + n - 5, ".gguf") != 0, err, TT_USAGE, "output is no GGUF file|output|%s|a name that ends in .gguf", out ? out : "nothing");
    TT_FAIL_IF(strpbrk(out, ",:") != NULL, err, TT_USAGE, "a recipe's output cannot have this name|output|%s|no comma and no colon", out);
    TT_TRY(j->o->state ? join(&j->state, j->o->state, "", err) : join(&j->state, out, ".chain", err));
    TT_TRY(join(&j->tab, out, "", err));
    memcpy(j->tab + n - 5, ".tab", 5);
    TT_TRY(join(&j->self, j->state, "/self.jsonl", err));
    TT_TRY(join(&j->plan_path, j->state, "/plan.json", err));
    return name_data(j, err);
}

/* Everything that decides what is done, but not how long it takes. */
static tt_status make_key(cjob *j, tt_err *err) {
    tt__str s = {0};
    TT_TRY(tt_model_sha256(j->model, j->model_sha256, err));
    tt__str_printf(&s, "1 %s %s %s %s %s %s %.9g %" PRIu64 " %" PRIu64, tt_version(), tt_ctx_isa(j->ctx), j->model_sha256, j->recipe.name, j->data, j->o->guard ? j->o->guard : "-",
                   j->o->time, j->o->seed, j->o->max_ram);
    tt__str_printf(&s, " %s", j->recipe.embedding);
    for (int i = 0; i < j->recipe.n_steps; i++) tt__str_printf(&s, "\n%s", j->recipe.step[i].line);
    if (!s.failed) tt__sha256_hex(s.s, s.n, j->key);
    tt_status st = s.failed ? tt__fail(err, TT_RESOURCE, "out of memory|a state") : TT_OK;
    tt__str_free(&s);
    return st;
}

/* ------------------------------------------------------------ probe ---- */

static tt_status probe_sampling(cjob *j, plan_step *p, tt_err *err) {
    tt_model *fast = NULL;
    tt_selftext *s = NULL;
    int32_t *ids = NULL;
    tt_selftext_options o = tt__selftext_options(1, LENGTH, 1);
    TT_TRY(tt__sample_open(j->ctx, j->model, &fast, err));
    o.samples = tt__selftext_group(fast->net, LENGTH, o.cache);
    tt_status st = tt__new(&ids, (size_t)(o.samples * LENGTH), sizeof *ids, "sampled tokens", err);
    if (st == TT_OK) st = tt__selftext_create(j->ctx, fast->net, j->model->tok, &o, ids, &s, err);
    if (st == TT_OK) st = tt__selftext_step(s, err);
    double start = tt__now();
    for (int i = 0; i < PROBE_STEPS && st == TT_OK; i++) st = tt__selftext_step(s, err);
    p->cost = (cost){1, (tt__now() - start) / PROBE_STEPS / (double)o.samples * LENGTH};
    tt__selftext_free(s);
    tt__free(ids);
    tt_model_close(fast);
    return st;
}

static const char *embedding_of(const cjob *j) { return *j->recipe.embedding ? j->recipe.embedding : NULL; }

static tt_status layer_seconds(cjob *j, const tt_named_step *step, int64_t samples, int64_t amount, double *seconds, tt_err *err) {
    tt_compress_options o = tt_compress_default_options();
    char *line = NULL, *state = NULL;
    tt_status st = tt__named_line(step, amount, &line, err);
    if (st == TT_OK) st = join(&state, j->state, ".probe", err);
    o.model = j->o->model, o.output = j->o->output, o.recipe = line, o.state = state, o.samples = samples, o.length = LENGTH, o.max_ram = j->o->max_ram;
    o.token_embedding = embedding_of(j);
    if (st == TT_OK) st = tt__compress_probe(j->ctx, &o, seconds, err);
    tt__free(line);
    tt__free(state);
    return st;
}

/* Seconds of a layer are linear in sequences and in steps. The first run of a probe also pages the weights in, so it is done twice. */
static tt_status probe_compress(cjob *j, plan_step *p, tt_err *err) {
    double few, more, longer = 0, layers = (double)j->model->net->hp.n_layer, least = p->named->least ? 2 : 0;
    TT_TRY(layer_seconds(j, p->named, PROBE_SEQUENCES, (int64_t)least, &few, err));
    TT_TRY(layer_seconds(j, p->named, PROBE_SEQUENCES, (int64_t)least, &few, err));
    TT_TRY(layer_seconds(j, p->named, 2 * PROBE_SEQUENCES, (int64_t)least, &more, err));
    double per_sequence = more > few ? (more - few) / PROBE_SEQUENCES : 0;
    if (p->named->least) {
        TT_TRY(layer_seconds(j, p->named, PROBE_SEQUENCES, 6, &longer, err));
        p->cost.each = longer > few ? (longer - few) / 4 * layers : 0;
    }
    double base = few - PROBE_SEQUENCES * per_sequence - (least > 0 ? least * p->cost.each / layers : 0);
    p->cost.fixed = layers * ((base > 0 ? base : 0) + (double)j->recipe.samples * per_sequence) + 1;
    return TT_OK;
}

static int64_t knob(const tt_recipe *r, const char *name, int64_t otherwise) {
    const char *value = tt_recipe_get_value(r, 0, name);
    int64_t n;
    return value && tt__parse_i64(value, &n) ? n : otherwise;
}

/* One step of the trainer on random tokens, with the dense model in the student's place as well. */
static tt_status step_seconds(cjob *j, const tt_net *net, const tt_recipe *r, double *seconds, tt_err *err) {
    const char *loss = tt_recipe_get_value(r, 0, "loss");
    tt_distil_options o = {.rows = knob(r, "tokens", 32), .batch = knob(r, "batch", 2), .length = knob(r, "length", 256), .kl = !loss || !strcmp(loss, "kl"), .trains = true};
    tt_train_job job = {.student = net, .teacher = net, .tokenizer = j->model->tok, .max_ram = j->o->max_ram};
    tt_distil d = {0};
    int32_t *ids = NULL;
    tt__rng rng;
    double value;
    tt__rng_seed(&rng, 1);
    TT_TRY(tt__new(&ids, (size_t)(o.batch * o.length), sizeof *ids, "a batch", err));
    for (int64_t i = 0; i < o.batch * o.length; i++) ids[i] = (int32_t)tt__rng_below(&rng, (uint64_t)net->hp.n_vocab);
    tt_status st = tt__distil_open(j->ctx, &o, &job, &d, err);
    if (st == TT_OK) {
        memset(d.X, 0, (size_t)(o.rows * d.d) * sizeof(float));
        st = tt__distil_loss(&d, ids, o.batch, &(tt_distil_want){.rows = true}, &value, err);
    }
    double start = tt__now();
    if (st == TT_OK) st = tt__distil_loss(&d, ids, o.batch, &(tt_distil_want){.rows = true}, &value, err);
    *seconds = tt__now() - start;
    tt__distil_close(&d);
    tt__free(ids);
    return st;
}

/* Validations are part of a step's time, the first one and the guard's text of the fixed part. */
static tt_status probe_training(cjob *j, plan_step *p, const cost *sampling, tt_err *err) {
    tt_model_options mo = tt_model_default_options();
    tt_model *exact = NULL;
    tt_recipe *r = NULL;
    char *line = NULL;
    double step = 0;
    mo.numerics = TT_EXACT;
    TT_TRY(tt_model_open(j->ctx, j->o->model, &mo, &exact, err));
    tt_status st = tt__named_line(p->named, p->least ? p->least : 1, &line, err);
    if (st == TT_OK) st = tt_recipe_parse(line, strlen(line), &r, err);
    if (st == TT_OK) st = step_seconds(j, exact->net, r, &step, err);
    if (st == TT_OK) {
        double batches = (double)knob(r, "valid_windows", VALID_WINDOWS) / (double)knob(r, "batch", 2), validation = 2 * FORWARD_SHARE * step * batches;
        if (p->named->stage == TT_NAMED_RECOVER) step *= WEIGHTS_SHARE;
        p->cost.each = step + validation / (double)knob(r, "valid_every", VALID_EVERY);
        p->cost.fixed = 2 + 2 * validation + sampling->each * 16 * (double)knob(r, "length", 256) / LENGTH;
    }
    tt_recipe_free(r);
    tt__free(line);
    tt_model_close(exact);
    return st;
}

static tt_status probe(cjob *j, tt_err *err) {
    for (int i = 0; i < j->n; i++) {
        plan_step *p = &j->step[i];
        tt__progress(j->ctx, "probe", i, j->n, "steps", "");
        TT_TRY(!p->named ? probe_sampling(j, p, err) : p->named->stage == TT_NAMED_COMPRESS ? probe_compress(j, p, err) : probe_training(j, p, &j->step[0].cost, err));
    }
    tt__progress(j->ctx, "probe", j->n, j->n, "steps", "");
    return TT_OK;
}

/* ------------------------------------------------------------ plan ---- */

static double seconds_of(const plan_step *p) { return p->taken ? p->cost.fixed + p->cost.each * (double)p->amount : 0; }

static double total(const cjob *j) {
    double sum = 0;
    for (int i = 0; i < j->n; i++) sum += seconds_of(&j->step[i]);
    return sum;
}

static void set_share(cjob *j, double share) {
    for (int i = 0; i < j->n; i++) {
        plan_step *p = &j->step[i];
        p->amount = p->least + (int64_t)(share * (double)(p->most - p->least));
    }
}

/* False when there is nothing left to leave out. */
static bool leave_one_out(cjob *j) {
    plan_step *least = NULL;
    for (int i = 0; i < j->n; i++) {
        plan_step *p = &j->step[i];
        if (p->taken && p->named && p->named->worth && (!least || p->named->worth < least->named->worth)) least = p;
    }
    if (least) least->taken = false;
    return least != NULL;
}

static void choose_amounts(cjob *j) {
    double low = 0, high = 1;
    for (int i = 0; i < j->n; i++) j->step[i].amount = j->step[i].usual;
    if (j->o->time <= 0) return;
    set_share(j, 0);
    while (total(j) > j->o->time)
        if (!leave_one_out(j)) {
            j->too_short = true;
            return;
        }
    for (int i = 0; i < 40; i++) {
        double middle = 0.5 * (low + high);
        set_share(j, middle);
        *(total(j) > j->o->time ? &high : &low) = middle;
    }
    set_share(j, low);
}

static void list_steps(cjob *j) {
    j->step[j->n++] = (plan_step){.least = LEAST_TEXT, .usual = USUAL_TEXT, .most = MOST_TEXT, .taken = true, .seconds = NAN};
    for (int i = 0; i < j->recipe.n_steps; i++) {
        const tt_named_step *s = &j->recipe.step[i];
        j->step[j->n++] = (plan_step){.named = s, .least = s->least, .usual = s->usual, .most = s->most, .taken = true, .seconds = NAN};
    }
}

static tt_status write_lines(cjob *j, tt_err *err) {
    for (int i = 0; i < j->n; i++)
        if (j->step[i].named) TT_TRY(tt__named_line(j->step[i].named, j->step[i].amount, &j->step[i].line, err));
    return TT_OK;
}

/* ------------------------------------------------------------ the plan's file ---- */

static tt_status save_plan(const cjob *j, tt_err *err) {
    tt__str s = {0};
    json_t *steps = json_array();
    for (int i = 0; i < j->n; i++) {
        const plan_step *p = &j->step[i];
        json_array_append_new(steps, json_pack("{s:I, s:b, s:f, s:f, s:o}", "amount", (json_int_t)p->amount, "taken", p->taken, "fixed", p->cost.fixed, "each", p->cost.each,
                                               "seconds", isfinite(p->seconds) ? json_real(p->seconds) : json_null()));
    }
    json_t *o = json_pack("{s:s, s:i, s:b, s:b, s:b, s:o}", "key", j->key, "done", j->done, "stood", j->stood, "tab_stood", j->tab_stood, "too_short", j->too_short, "steps", steps);
    if (o) tt__json_write(&s, o, JSON_INDENT(1));
    tt_status st = !o || s.failed ? tt__fail(err, TT_RESOURCE, "out of memory|a plan") : tt__write_file(j->plan_path, s.s, s.n, err);
    json_decref(o);
    tt__str_free(&s);
    return st;
}

static bool take_step(plan_step *p, const json_t *v, tt_err *err) {
    double seconds = NAN;
    bool ok = tt__json_i64(v, "amount", true, &p->amount, "a plan", err) == TT_OK && tt__json_bool(v, "taken", true, &p->taken, "a plan", err) == TT_OK &&
              tt__json_f64(v, "fixed", true, &p->cost.fixed, "a plan", err) == TT_OK && tt__json_f64(v, "each", true, &p->cost.each, "a plan", err) == TT_OK;
    if (ok && json_is_number(json_object_get(v, "seconds"))) seconds = json_number_value(json_object_get(v, "seconds"));
    p->seconds = seconds;
    return ok && p->amount >= p->least && p->amount <= p->most;
}

/* A plan of other settings, or one that is damaged, is none. */
static bool take_plan(cjob *j, const json_t *v) {
    tt_err ignored = {0};
    const char *key = NULL;
    int64_t done = 0;
    const json_t *steps = json_object_get(v, "steps");
    if (tt__json_str(v, "key", true, &key, "a plan", &ignored) != TT_OK || strcmp(key, j->key) != 0) return false;
    if (tt__json_i64(v, "done", true, &done, "a plan", &ignored) != TT_OK || done < 0 || done > j->n || json_array_size(steps) != (size_t)j->n) return false;
    if (tt__json_bool(v, "stood", true, &j->stood, "a plan", &ignored) != TT_OK || tt__json_bool(v, "tab_stood", true, &j->tab_stood, "a plan", &ignored) != TT_OK) return false;
    if (tt__json_bool(v, "too_short", true, &j->too_short, "a plan", &ignored) != TT_OK) return false;
    for (int i = 0; i < j->n; i++)
        if (!take_step(&j->step[i], json_array_get(steps, (size_t)i), &ignored)) return false;
    j->done = (int)done;
    return true;
}

static void load_plan(cjob *j) {
    tt_err why = {0};
    char *text = NULL;
    size_t n = 0;
    json_t *v = NULL;
    if (!j->o->resume || !tt__exists(j->plan_path)) return;
    if (tt__read_file(j->plan_path, 1 << 20, &text, &n, &why) == TT_OK && tt__json_parse(text, n, "a plan", &v, &why) == TT_OK) j->resumed = json_is_object(v) && take_plan(j, v);
    if (!j->resumed) tt__log(j->ctx, TT_LOG_WARN, "%s belongs to other settings: starting anew", j->state);
    json_decref(v);
    tt__free(text);
}

static tt_status make_plan(cjob *j, tt_err *err) {
    load_plan(j);
    if (!j->resumed) {
        j->done = 0;
        j->stood = tt__exists(j->o->output), j->tab_stood = tt__exists(j->tab);
        TT_FAIL_IF((j->stood || j->tab_stood) && !j->o->force && !j->o->dry_run, err, TT_USAGE, "output exists|%s|||use --force to replace it", j->stood ? j->o->output : j->tab);
        for (int i = 0; i < j->n; i++) j->step[i].taken = true, j->step[i].seconds = NAN;
        j->too_short = false;
        TT_TRY(probe(j, err));
        choose_amounts(j);
    }
    TT_TRY(write_lines(j, err));
    if (j->o->dry_run || j->resumed) return TT_OK;
    TT_TRY(tt__remove_tree(j->state, err));
    TT_TRY(tt__mkdirs(j->state, err));
    return save_plan(j, err);
}

/* ------------------------------------------------------------ the steps ---- */

static tt_status run_sample(cjob *j, const plan_step *p, tt_err *err) {
    tt_generate_options o = tt_generate_default_options();
    char key[700];
    o.model = j->o->model, o.output = j->self, o.count = p->amount, o.tokens = LENGTH, o.seed = j->o->seed;
    snprintf(key, sizeof key, "%s.state/key", j->self);
    if (tt__exists(j->self) && !tt__exists(key)) return TT_OK;        /* killed between this step's end and the plan's */
    return tt_generate(j->ctx, &o, NULL, err);
}

static bool makes_model(const plan_step *p) { return p->taken && p->named && p->named->stage != TT_NAMED_TAB; }

/* The last of the steps that make a model writes the result, those before it a file of the state. */
static tt_status model_of(const cjob *j, const plan_step *p, char **path, tt_err *err) {
    char name[40] = "";
    bool last = true;
    for (const plan_step *q = p + 1; q < j->step + j->n; q++) last &= !makes_model(q);
    if (!last) snprintf(name, sizeof name, "/%d.gguf", (int)(p - j->step));
    return join(path, last ? j->o->output : j->state, name, err);
}

/* What the step before it made. */
static tt_status model_before(const cjob *j, const plan_step *p, char **path, tt_err *err) {
    do p--;
    while (p > j->step && !makes_model(p));
    return model_of(j, p, path, err);
}

static tt_status run_compress(cjob *j, const plan_step *p, tt_err *err) {
    tt_compress_options o = tt_compress_default_options();
    tt_compress_report *r = NULL;
    char *state = NULL, *out = NULL;
    TT_TRY(model_of(j, p, &out, err));
    tt_status st = join(&state, j->state, "/compress", err);
    o.model = j->o->model, o.output = out, o.recipe = p->line, o.data = j->data, o.samples = j->recipe.samples, o.length = LENGTH, o.seed = j->o->seed;
    o.max_ram = j->o->max_ram, o.state = state, o.force = true, o.dry_run = j->o->dry_run, o.token_embedding = embedding_of(j);
    if (st == TT_OK) st = tt_compress(j->ctx, &o, &r, err);
    if (st == TT_OK) {
        j->report.bytes_before = r->bytes_before, j->report.bytes_after = r->bytes_after, j->report.file_bytes = r->file_bytes;
        j->report.bits_before = r->bits_before, j->report.bits_after = r->bits_after, j->report.linear_bits_after = r->linear_bits_after;
    }
    tt_compress_free_report(r);
    tt__free(state);
    tt__free(out);
    return st;
}

static tt_status run_training(cjob *j, const plan_step *p, tt_err *err) {
    tt_tune_options o = tt_tune_default_options();
    char *state = NULL, *in = NULL, *out = NULL, name[40];
    bool tab = p->named->stage == TT_NAMED_TAB;
    snprintf(name, sizeof name, "/%s-%d", tab ? "tab" : "recover", (int)(p - j->step));
    tt_status st = join(&state, j->state, name, err);
    if (st == TT_OK) st = model_before(j, p, &in, err);
    if (st == TT_OK) st = tab ? join(&out, j->tab, "", err) : model_of(j, p, &out, err);
    o.model = in, o.teacher = j->o->model, o.output = out, o.recipe = p->line, o.data = j->data, o.guard = j->o->guard, o.seed = j->o->seed;
    o.max_ram = j->o->max_ram, o.state = state, o.force = true;
    if (st == TT_OK) st = tt_tune(j->ctx, &o, &j->report.tune, err);
    tt__free(state);
    tt__free(in);
    tt__free(out);
    return st;
}

static tt_status run_step(cjob *j, const plan_step *p, tt_err *err) {
    return !p->named ? run_sample(j, p, err) : p->named->stage == TT_NAMED_COMPRESS ? run_compress(j, p, err) : run_training(j, p, err);
}

/* A target that was missed (a guard's) does not stop the chain; it is told at the end. */
static tt_status run_steps(cjob *j, tt_err *err) {
    tt_status missed = TT_OK;
    for (; j->done < j->n; j->done++) {
        plan_step *p = &j->step[j->done];
        if (!p->taken) continue;
        if (j->done > 0) TT_TRY(save_plan(j, err));
        double start = tt__now();
        tt_err why = {0};
        tt_status st = run_step(j, p, &why);
        if (st == TT_TARGET) missed = st, *err = why;
        else if (st != TT_OK) {
            *err = why;
            return st;
        }
        p->seconds = tt__now() - start;
    }
    return missed;
}

/* ------------------------------------------------------------ report, and the whole ---- */

static void fill_report(cjob *j, double seconds) {
    static const char *const stages[] = {[TT_NAMED_COMPRESS] = "compress", [TT_NAMED_RECOVER] = "recover", [TT_NAMED_TAB] = "tab"};
    tt_chain_report *r = &j->report;
    r->n_steps = j->n;
    for (int i = 0; i < j->n; i++) {
        const plan_step *p = &j->step[i];
        tt_chain_step *s = &r->step[i];
        *s = (tt_chain_step){.what = !p->named ? "sample" : stages[p->named->stage], .taken = p->taken, .amount = p->amount,
                             .predicted = seconds_of(p), .seconds = p->seconds};
        if (p->named) snprintf(s->line, sizeof s->line, "%s", p->line);
        else snprintf(s->line, sizeof s->line, "%lld x %d tokens", (long long)p->amount, LENGTH);
        if (p->named && p->named->stage == TT_NAMED_TAB && p->taken) snprintf(r->tab, sizeof r->tab, "%s", j->tab);
    }
    r->predicted = total(j);
    r->seconds = seconds;
    r->resumed = j->resumed;
}

static tt_status open_model(cjob *j, tt_err *err) {
    tt_model_options mo = tt_model_default_options();
    mo.stored = true;
    TT_TRY(tt_model_open(j->ctx, j->o->model, &mo, &j->model, err));
    TT_FAIL_IF(!j->model->net, err, TT_BADFILE, "cannot compress this architecture|%s|%s", j->model->path, j->model->info.architecture);
    TT_FAIL_IF(!j->model->tok, err, TT_BADFILE, "model has no tokenizer that this build can use|%s", j->model->path);
    TT_FAIL_IF(j->model->net->hp.n_ctx < 2 * LENGTH, err, TT_USAGE, "model's context is too short for a named recipe|%s|%lld|at least %d", j->model->path,
               (long long)j->model->net->hp.n_ctx, 2 * LENGTH);
    TT_FAIL_IF(tt__same_file(j->model->path, j->o->output), err, TT_USAGE, "output is the model itself|%s", j->o->output);
    return TT_OK;
}

static tt_status predict(cjob *j, tt_err *err) {
    for (int i = 0; i < j->n; i++)
        if (j->step[i].named && j->step[i].named->stage == TT_NAMED_COMPRESS) return run_compress(j, &j->step[i], err);
    return TT_OK;
}

static tt_status chain(cjob *j, tt_err *err) {
    double start = tt__now();
    if (!j->o->recipe || !tt_named_recipe_find(j->o->recipe, &j->recipe)) return unknown_recipe(j->o->recipe, err);
    TT_TRY(name_files(j, err));
    TT_TRY(open_model(j, err));
    TT_TRY(make_key(j, err));
    list_steps(j);
    TT_TRY(make_plan(j, err));
    tt_status st = j->o->dry_run ? predict(j, err) : run_steps(j, err);
    if (st != TT_OK && st != TT_TARGET) return st;
    if (!j->o->dry_run) TT_TRY(tt__remove_tree(j->state, err));
    fill_report(j, tt__now() - start);
    TT_TRY(st);
    TT_FAIL_IF(j->too_short, err, TT_TARGET, "even the least of this recipe takes longer|time|%.0f s|about %.0f s|%s", j->o->time, total(j),
               j->o->dry_run ? "give more time, or another recipe" : "the least was done; give more time, or another recipe");
    return TT_OK;
}

tt_status tt_chain(tt_ctx *ctx, const tt_chain_options *options, tt_chain_report *report, tt_err *err) {
    cjob j = {.ctx = ctx, .o = options};
    tt_status st = chain(&j, err);
    if (report) *report = j.report;
    for (int i = 0; i < j.n; i++) tt__free(j.step[i].line);
    tt_model_close(j.model);
    tt__free(j.state);
    tt__free(j.tab);
    tt__free(j.self);
    tt__free(j.data);
    tt__free(j.plan_path);
    return st;
}
