/* The trainer of thin factors (lora.h).
 *
 *     x       A of the first target [rank, cols], its B [rows, rank], A of the second …        one set of numbers
 *     loss    through base + (alpha / rank) B A of every target (linop/lowrank.c), whose factors are the numbers of x themselves
 *
 * B begins at 0, so step 0 is the model as it is; A is uniform in ± 1/sqrt(cols), as PEFT makes it. The base is the operator that is served.
 */
#include "train/lora.h"

#include "models/lora.h"
#include "train/distil.h"
#include <math.h>
#include <stdio.h>

typedef struct target { size_t weight; int64_t at_a, at_b; tt_linop *op; } target;

typedef struct trainer {
    tt_ctx *ctx;
    const tt_lora_options *o;
    tt_train_job *job;
    target *targets; int n;
    int64_t numbers;
    tt_pset set;
    tt_distil distil;
    tt_train_hooks hooks;
} trainer;

static const tt_weight *weight_of(const trainer *t, int i) { return &t->job->student->weights[t->targets[i].weight]; }

/* ------------------------------------------------------------ what learns ---- */

static const char *last_name(const tt_weight *w, char module[96]) {
    tt__lora_module(w, module);
    const char *dot = strrchr(module, '.');
    return dot ? dot + 1 : module;
}

static bool may_have(const tt_weight *w) { return w->op && w->linear && w->layer >= 0; }

/* The next word of a list, NULL: none is left. */
static const char *next_word(const char **list, size_t *n) {
    const char *word = *list + strspn(*list, " ,");
    *n = strcspn(word, " ,");
    *list = word + *n;
    return *n ? word : NULL;
}

static bool is_word(const char *word, size_t n, const char *name) { return strlen(name) == n && !memcmp(word, name, n); }

static bool is_named(const char *list, const tt_weight *w) {
    char module[96];
    const char *name = last_name(w, module), *word;
    size_t n;
    if (!strcmp(list, "all")) return true;
    while ((word = next_word(&list, &n)))
        if (is_word(word, n, name)) return true;
    return false;
}

static tt_status check_names(const tt_net *net, const char *list, tt_err *err) {
    char module[96];
    const char *word;
    size_t n;
    if (!strcmp(list, "all")) return TT_OK;
    for (const char *at = list; (word = next_word(&at, &n));) {
        bool known = false;
        for (size_t i = 0; i < net->n_weights && !known; i++) known = may_have(&net->weights[i]) && is_word(word, n, last_name(&net->weights[i], module));
        TT_FAIL_IF(!known, err, TT_USAGE, "no matrix has such a name|targets|%.*s|all, or names such as q_proj v_proj", (int)n, word);
    }
    return TT_OK;
}

static tt_status choose(trainer *t, tt_err *err) {
    const tt_net *net = t->job->student;
    TT_TRY(check_names(net, t->o->targets, err));
    TT_TRY(tt__new(&t->targets, net->n_weights, sizeof *t->targets, "targets of thin factors", err));
    for (size_t i = 0; i < net->n_weights; i++) {
        const tt_weight *w = &net->weights[i];
        if (!may_have(w) || !is_named(t->o->targets, w)) continue;
        t->targets[t->n++] = (target){.weight = i, .at_a = t->numbers, .at_b = t->numbers + t->o->rank * w->cols};
        t->numbers += t->o->rank * (w->rows + w->cols);
    }
    TT_FAIL_IF(t->n == 0, err, TT_USAGE, "no matrix is named|targets|%s|all, or names such as q_proj v_proj", t->o->targets);
    return TT_OK;
}

/* Operators over the numbers of the set, in place of the net's. */
static tt_status attach(trainer *t, tt_err *err) {
    for (int i = 0; i < t->n; i++) {
        const tt_weight *w = weight_of(t, i);
        tt_linop *a = NULL, *b = NULL;
        TT_TRY(tt__linop_from_bytes(t->ctx, TT_F32, t->set.x + t->targets[i].at_a, t->o->rank, w->cols, &a, err));
        tt_status st = tt__linop_from_bytes(t->ctx, TT_F32, t->set.x + t->targets[i].at_b, w->rows, t->o->rank, &b, err);
        if (st == TT_OK) st = tt__linop_lowrank(t->ctx, w->op, false, a, b, (float)(t->o->alpha / (double)t->o->rank), &t->targets[i].op, err);
        if (st != TT_OK) {
            tt__linop_free(a);
            tt__linop_free(b);
            return st;
        }
        tt__runner_set_op(t->distil.student, t->targets[i].weight, t->targets[i].op);
    }
    return TT_OK;
}

static void show(trainer *t, bool factors) {
    for (int i = 0; i < t->n; i++) tt__runner_set_op(t->distil.student, t->targets[i].weight, factors ? t->targets[i].op : NULL);
}

static tt_status first(void *user, tt_err *err) {
    trainer *t = user;
    tt__rng rng;
    (void)err;
    tt__rng_seed(&rng, t->job->seed ^ 0x6c6f72615f61u);
    memset(t->set.x, 0, (size_t)t->numbers * sizeof(float));
    for (int i = 0; i < t->n; i++) {
        const tt_weight *w = weight_of(t, i);
        const double most = 1 / sqrt((double)w->cols);
        for (int64_t j = 0; j < t->o->rank * w->cols; j++) t->set.x[t->targets[i].at_a + j] = (float)(most * (2 * tt__rng_unit(&rng) - 1));
    }
    return TT_OK;
}

/* ------------------------------------------------------------ the loss ---- */

static int find(const trainer *t, size_t weight) {
    int low = 0, high = t->n;
    while (low < high) {
        const int mid = (low + high) / 2;
        if (t->targets[mid].weight < weight) low = mid + 1;
        else high = mid;
    }
    return low < t->n && t->targets[low].weight == weight ? low : -1;
}

static bool wants(void *user, size_t weight) { return find(user, weight) >= 0; }

static void matrix(void *user, size_t weight, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T) {
    trainer *t = user;
    const target *at = &t->targets[find(t, weight)];
    float *grad[TT_MAX_PARAMS] = {t->set.g + at->at_a, t->set.g + at->at_b};
    tt__linop_grad_params(t->ctx, at->op, X, ldx, G, ldg, T, grad);
}

static tt_status loss(void *user, const int32_t *ids, int64_t S, bool gradient, double *loss, tt_err *err) {
    trainer *t = user;
    tt_distil_want want = {.hooks = gradient ? &t->hooks : NULL};
    if (gradient) memset(t->set.g, 0, (size_t)t->numbers * sizeof(float));
    return tt__distil_loss(&t->distil, ids, S, &want, loss, err);
}

static tt_status next_token(void *user, const int32_t *ids, int64_t S, bool bare, double *loss, tt_err *err) {
    trainer *t = user;
    if (bare) show(t, false);
    tt_status st = tt__distil_next(&t->distil, ids, S, NULL, bare, loss, err);
    if (bare) show(t, true);
    return st;
}

static tt_status prepare(void *user, const int32_t *const *windows, size_t n, tt_err *err) { return tt__distil_prepare(&((trainer *)user)->distil, windows, n, err); }

/* ------------------------------------------------------------ the result ---- */

/* B with its rows in Hugging Face's order, into `rows`. */
static void fill_part(const trainer *t, int i, float *rows, tt_lora_part *p) {
    const tt_weight *w = weight_of(t, i);
    const int64_t r = t->o->rank;
    tt__lora_module(w, p->module);
    p->rank = r, p->rows = w->rows, p->cols = w->cols, p->scale = (float)(t->o->alpha / (double)r);
    p->A = t->set.x + t->targets[i].at_a;
    p->B = rows;
    for (int64_t j = 0; j < w->rows; j++) memcpy(rows + tt__lora_hf_row(t->job->student, w, j) * r, t->set.x + t->targets[i].at_b + j * r, (size_t)r * sizeof(float));
}

static tt_status write_tab(trainer *t, tt_learner *l, tt_err *err) {
    tt_peft_lora out = {.lent = true, .rank = t->o->rank, .alpha = t->o->alpha};
    float *rows = NULL;
    tt__str text = {0};
    int64_t at = 0;
    tt_status st;
    TT_TRY_GOTO(tt__new(&out.parts, (size_t)t->n, sizeof *out.parts, "a tab", err));
    TT_TRY_GOTO(tt__new(&rows, (size_t)t->numbers, sizeof *rows, "a tab", err));
    for (int i = 0; i < t->n; i++) {
        fill_part(t, i, rows + at, &out.parts[out.n++]);
        at += weight_of(t, i)->rows * t->o->rank;
    }
    if (t->job->base_ref) {
        out.base_model = tt__strdup(t->job->base_ref);
        if (!out.base_model) {
            st = tt__fail(err, TT_RESOURCE, "out of memory|a name");
            goto done;
        }
    }
    TT_TRY_GOTO(tt__learn_record(l, "lora", t->o->kl ? "kl" : "ce", NULL, &text, err));
    TT_TRY_GOTO(tt__peft_lora_save(t->job->output, &out, text.s, err));
done:
    tt__str_free(&text);
    tt__peft_lora_free(&out);
    tt__free(rows);
    return st;
}

static tt_status run(trainer *t, tt_err *err) {
    const tt_learn_options *lo = &t->o->learn;
    tt_learn_task task = {.user = t, .what = "tab", .file = "lora", .sets = &t->set, .n_sets = 1, .first = first, .prepare = prepare, .loss = loss, .next = next_token};
    tt_learner *l = NULL;
    TT_TRY(choose(t, err));
    t->set = (tt_pset){.name = "factors", .n = t->numbers, .lr = t->o->lr, .decay = t->o->decay};
    TT_TRY(tt__learn_open(t->ctx, lo, &task, t->job, &l, err));
    tt_distil_options o = {.batch = lo->batch, .length = lo->length, .kl = t->o->kl && lo->steps > 0, .topk = t->o->topk, .temperature = t->o->temperature,
                           .weights = true, .trains = lo->steps > 0, .others = tt__learn_bytes(l)};
    tt_status st = tt__distil_open(t->ctx, &o, t->job, &t->distil, err);
    if (st == TT_OK) st = attach(t, err);
    if (st == TT_OK) st = tt__learn_run(l, err);
    if (st == TT_OK) st = tt__learn_best(l, err);
    if (st == TT_OK) st = write_tab(t, l, err);
    if (st == TT_OK) {
        tt__distil_done(&t->distil);
        tt__learn_finish(l);
    }
    tt__distil_close(&t->distil);
    for (int i = 0; i < t->n; i++) tt__linop_free(t->targets[i].op);
    tt__learn_close(l);
    return st;
}

tt_status tt__lora_train(tt_ctx *ctx, const tt_lora_options *o, tt_train_job *job, tt_err *err) {
    trainer t = {.ctx = ctx, .o = o, .job = job};
    t.hooks = (tt_train_hooks){.user = &t, .wants = wants, .matrix = matrix};
    tt_status st = run(&t, err);
    tt__free(t.targets);
    return st;
}
