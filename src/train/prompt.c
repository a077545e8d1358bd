/* The prompt trainer: E [P, d] learns, everything else is frozen. Its loss and its rows are distil.h's, the rest is learn.h's: E is one set of numbers.
 */
#include "train/prompt.h"

#include "formats/peft.h"
#include "train/distil.h"
#include "train/learn.h"
#include <stdlib.h>

enum { FREQUENT = 5000 };

typedef struct trainer {
    tt_ctx *ctx;
    const tt_prompt_options *o;
    tt_train_job *job;
    int64_t P, d;
    tt_pset E;
    tt_distil distil;
} trainer;

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

static tt_status first_tab(void *user, tt_err *err) {
    trainer *t = user;
    if (t->o->init == TT_PROMPT_RANDOM) {
        tt__rng rng;
        tt__rng_seed(&rng, t->job->seed ^ 0x70726f6d70740002u);
        for (int64_t i = 0; i < t->E.n; i++) t->E.x[i] = (float)(tt__rng_unit(&rng) - 0.5);
        return TT_OK;
    }
    int32_t *ids = NULL;
    TT_TRY(tt__new(&ids, (size_t)t->P, sizeof *ids, "first tokens", err));
    tt_status st = t->o->init == TT_PROMPT_TEXT ? text_tokens(t, ids, err) : frequent_tokens(t, ids, err);
    if (st == TT_OK) st = tt__run_embed(t->distil.student, ids, t->P, t->E.x, err);
    tt__free(ids);
    return st;
}

/* ------------------------------------------------------------ the loss, and the result ---- */

static tt_status loss(void *user, const int32_t *ids, int64_t S, bool gradient, double *loss, tt_err *err) {
    trainer *t = user;
    size_t bytes = (size_t)t->E.n * sizeof(float);
    memcpy(t->distil.X, t->E.x, bytes);
    TT_TRY(tt__distil_loss(&t->distil, ids, S, &(tt_distil_want){.rows = gradient}, loss, err));
    if (gradient) memcpy(t->E.g, t->distil.dX, bytes);
    return TT_OK;
}

static tt_status next_token(void *user, const int32_t *ids, int64_t S, bool bare, double *loss, tt_err *err) {
    trainer *t = user;
    memcpy(t->distil.X, t->E.x, (size_t)t->E.n * sizeof(float));
    return tt__distil_next(&t->distil, ids, S, NULL, bare, loss, err);
}

static tt_status write_tab(trainer *t, tt_learner *l, tt_err *err) {
    tt_peft_prompt p = {.tokens = t->P, .width = t->d, .embeddings = t->E.x, .base_model = (char *)(uintptr_t)t->job->base_ref,
                        .n_layers = t->job->student->hp.n_layer, .n_heads = t->job->student->hp.n_head};
    tt__str text = {0};
    tt_status st = tt__learn_record(l, "prompt", t->o->kl ? "kl" : "ce", NULL, &text, err);
    if (st == TT_OK) st = tt__peft_save(t->job->output, &p, text.s, err);
    tt__str_free(&text);
    return st;
}

static tt_status run(trainer *t, const tt_learn_options *lo, const tt_learn_task *task, tt_err *err) {
    tt_learner *l = NULL;
    TT_TRY(tt__learn_open(t->ctx, lo, task, t->job, &l, err));
    tt_distil_options o = {.rows = t->P, .batch = t->o->batch, .length = t->o->length, .kl = t->o->kl && t->o->steps > 0, .bf16 = t->o->bf16,
                           .trains = t->o->steps > 0, .others = tt__learn_bytes(l)};
    tt_status st = tt__distil_open(t->ctx, &o, t->job, &t->distil, err);
    if (st == TT_OK) st = tt__learn_run(l, err);
    if (st == TT_OK) st = tt__learn_best(l, err);
    if (st == TT_OK) st = write_tab(t, l, err);
    if (st == TT_OK) tt__learn_finish(l);
    tt__learn_close(l);
    tt__distil_close(&t->distil);
    return st;
}

tt_status tt__prompt_train(tt_ctx *ctx, const tt_prompt_options *o, tt_train_job *job, tt_err *err) {
    trainer t = {.ctx = ctx, .o = o, .job = job, .P = o->tokens, .d = job->student->hp.n_embd};
    t.E = (tt_pset){.name = "prompt", .n = t.P * t.d, .lr = o->lr, .decay = o->decay};
    tt_learn_options lo = {.steps = o->steps, .time = o->time, .batch = o->batch, .length = o->length, .warmup = o->warmup,
                           .valid_every = o->valid_every, .valid_windows = o->valid_windows, .clip = o->clip, .beta1 = o->beta1, .beta2 = o->beta2};
    tt_learn_task task = {.user = &t, .what = "tab", .file = "prompt", .salt = o->bf16 && ctx->k->bf16 ? "bf16" : NULL, .sets = &t.E, .n_sets = 1,
                          .first = first_tab, .loss = loss, .next = next_token};
    return run(&t, &lo, &task, err);
}
