/* The trainer of a KV prefix (kvprefix.h).
 *
 *     k, v      [L, P, W]        what every sequence attends to, keys rotated for positions 0 … P-1; W = key-value heads x head size
 *     x         [L, P-F, W]      each of the two sets that learn: all but the first F positions
 *
 * The text's own tokens stand at positions P, P+1, …, as with a prompt of P tokens; served, the prefix costs what P cached positions cost.
 */
#include "train/kvprefix.h"

#include "formats/peft.h"
#include "train/distil.h"

typedef struct trainer {
    tt_ctx *ctx;
    const tt_kvprefix_options *o;
    tt_train_job *job;
    int64_t L, P, F, W, n;                   /* n: numbers of k */
    float *kv[2], *grad[2];                  /* [L, P, W] */
    tt_pset set[2];                          /* keys, values */
    tt_distil distil;
} trainer;

/* ------------------------------------------------------------ where it begins ---- */

/* P tokens of init_text, repeated, or the first ones of the training text. */
static tt_status first_tokens(trainer *t, int32_t *ids, tt_err *err) {
    const tt_tokens *text = t->job->train;
    int32_t *got = NULL;
    size_t n = 0;
    if (t->o->init_text && *t->o->init_text)
        TT_TRY(tt__tokenizer_encode(t->job->tokenizer, t->o->init_text, strlen(t->o->init_text), 0, &got, &n, err));
    const int32_t *from = got ? got : text->ids;
    if (!got) n = text->n;
    for (int64_t i = 0; n && i < t->P; i++) ids[i] = from[(size_t)i % n];
    tt__free(got);
    TT_FAIL_IF(n == 0, err, TT_USAGE, "no text to begin from|init_text|nothing|at least one token");
    return TT_OK;
}

/* Their keys and values, as the student itself would cache them. */
static tt_status from_text(trainer *t, tt_err *err) {
    tt_kvcache *cache = NULL;
    int32_t *ids = NULL;
    float *H = NULL;
    tt_status st = tt__new(&ids, (size_t)t->P, sizeof *ids, "first tokens", err);
    if (st == TT_OK) st = tt__new(&H, (size_t)t->distil.d, sizeof *H, "a row", err);
    if (st == TT_OK) st = first_tokens(t, ids, err);
    if (st == TT_OK) st = tt__kvcache_create(t->ctx, t->job->student, 1, t->P, TT_KV_F32, &cache, err);
    if (st == TT_OK) st = tt__run_cached(t->distil.student, cache, ids, t->P, true, H, err);
    if (st == TT_OK) {
        memcpy(t->kv[0], cache->k, (size_t)t->n * sizeof(float));
        memcpy(t->kv[1], cache->v, (size_t)t->n * sizeof(float));
    }
    tt__kvcache_free(cache);
    tt__free(ids);
    tt__free(H);
    return st;
}

static void at_random(trainer *t) {
    tt__rng rng;
    tt__rng_seed(&rng, t->job->seed ^ 0x6b76707265666978u);
    for (int i = 0; i < 2; i++)
        for (int64_t j = 0; j < t->n; j++) t->kv[i][j] = (float)(0.02 * tt__rng_normal(&rng));
}

/* The positions that learn, between the whole arrays and the sets. */
static void move(trainer *t, float *whole[2], float *part[2], bool into_part) {
    int64_t m = (t->P - t->F) * t->W;
    for (int i = 0; i < 2; i++)
        for (int64_t l = 0; l < t->L; l++) {
            float *a = whole[i] + (l * t->P + t->F) * t->W, *b = part[i] + l * m;
            memcpy(into_part ? b : a, into_part ? a : b, (size_t)m * sizeof(float));
        }
}

/* Of a resumed run too: the frozen positions are not in its state. */
static tt_status begin(trainer *t, tt_err *err) {
    if (t->o->random) at_random(t);
    else TT_TRY(from_text(t, err));
    return TT_OK;
}

static tt_status first(void *user, tt_err *err) {
    trainer *t = user;
    (void)err;
    move(t, t->kv, (float *[2]){t->set[0].x, t->set[1].x}, true);
    return TT_OK;
}

/* ------------------------------------------------------------ the loss, and the result ---- */

static tt_status loss(void *user, const int32_t *ids, int64_t S, bool gradient, double *loss, tt_err *err) {
    trainer *t = user;
    tt_train_prefix p = {.P = t->P, .k = t->kv[0], .v = t->kv[1], .dk = gradient ? t->grad[0] : NULL, .dv = gradient ? t->grad[1] : NULL};
    tt_distil_want want = {.prefix = &p};
    move(t, t->kv, (float *[2]){t->set[0].x, t->set[1].x}, false);
    for (int i = 0; i < 2 && gradient; i++) memset(t->grad[i], 0, (size_t)t->n * sizeof(float));
    TT_TRY(tt__distil_loss(&t->distil, ids, S, &want, loss, err));
    if (gradient) move(t, t->grad, (float *[2]){t->set[0].g, t->set[1].g}, true);
    return TT_OK;
}

static tt_status next_token(void *user, const int32_t *ids, int64_t S, bool bare, double *loss, tt_err *err) {
    trainer *t = user;
    tt_train_prefix p = {.P = t->P, .k = t->kv[0], .v = t->kv[1]};
    move(t, t->kv, (float *[2]){t->set[0].x, t->set[1].x}, false);
    return tt__distil_next(&t->distil, ids, S, &p, bare, loss, err);
}

static tt_status prepare(void *user, const int32_t *const *windows, size_t n, tt_err *err) { return tt__distil_prepare(&((trainer *)user)->distil, windows, n, err); }

static tt_status write_tab(trainer *t, tt_learner *l, tt_err *err) {
    const tt_hparams *hp = &t->job->student->hp;
    tt_prefix prefix = {.P = t->P, .type = TT_KV_F32, .k = t->kv[0], .v = t->kv[1]};
    tt_peft_prompt p = {.prefix = true, .tokens = t->P, .width = 2 * t->L * t->W, .kv_width = t->W, .n_layers = t->L, .n_heads = hp->n_head_kv,
                        .base_model = (char *)(uintptr_t)t->job->base_ref};
    tt__str text = {0};
    move(t, t->kv, (float *[2]){t->set[0].x, t->set[1].x}, false);
    TT_TRY(tt__new(&p.embeddings, 2 * (size_t)t->n, sizeof(float), "a prefix", err));
    tt__prefix_to_rows(t->job->student, &prefix, p.embeddings);
    tt_status st = tt__learn_record(l, "prefix", t->o->kl ? "kl" : "ce", NULL, &text, err);
    if (st == TT_OK) st = tt__peft_save(t->job->output, &p, text.s, err);
    tt__str_free(&text);
    tt__free(p.embeddings);
    return st;
}

/* ------------------------------------------------------------ the whole ---- */

static tt_status reserve(trainer *t, tt_err *err) {
    static const char *const names[2] = {"keys", "values"};
    for (int i = 0; i < 2; i++) {
        TT_TRY(tt__new(&t->kv[i], (size_t)t->n, sizeof(float), "a prefix", err));
        TT_TRY(tt__new(&t->grad[i], (size_t)t->n, sizeof(float), "a prefix", err));
        t->set[i] = (tt_pset){.name = names[i], .n = t->L * (t->P - t->F) * t->W, .lr = t->o->lr};
    }
    return TT_OK;
}

static tt_status run(trainer *t, tt_err *err) {
    const tt_learn_options *lo = &t->o->learn;
    tt_learn_task task = {.user = t, .what = "tab", .file = "prefix", .sets = t->set, .n_sets = 2, .first = first, .prepare = prepare, .loss = loss, .next = next_token};
    tt_learner *l = NULL;
    TT_FAIL_IF(t->F >= t->P, err, TT_USAGE, "nothing is left to learn|frozen|%lld|below tokens, %lld", (long long)t->F, (long long)t->P);
    TT_TRY(reserve(t, err));
    TT_TRY(tt__learn_open(t->ctx, lo, &task, t->job, &l, err));
    tt_distil_options o = {.positions = t->P, .batch = lo->batch, .length = lo->length, .kl = t->o->kl && lo->steps > 0, .topk = t->o->topk,
                           .temperature = t->o->temperature, .trains = lo->steps > 0, .others = tt__learn_bytes(l) + 4 * (uint64_t)t->n * sizeof(float)};
    tt_status st = tt__distil_open(t->ctx, &o, t->job, &t->distil, err);
    if (st == TT_OK) st = begin(t, err);
    if (st == TT_OK) st = tt__learn_run(l, err);
    if (st == TT_OK) st = tt__learn_best(l, err);
    if (st == TT_OK) st = write_tab(t, l, err);
    if (st == TT_OK) {
        tt__distil_done(&t->distil);
        tt__learn_finish(l);
    }
    tt__learn_close(l);
    tt__distil_close(&t->distil);
    return st;
}

tt_status tt__kvprefix_train(tt_ctx *ctx, const tt_kvprefix_options *o, tt_train_job *job, tt_err *err) {
    const tt_hparams *hp = &job->student->hp;
    trainer t = {.ctx = ctx, .o = o, .job = job, .L = hp->n_layer, .P = o->tokens, .F = o->frozen, .W = hp->n_head_kv * hp->head_dim};
    t.n = t.L * t.P * t.W;
    tt_status st = run(&t, err);
    for (int i = 0; i < 2; i++) {
        tt__free(t.kv[i]);
        tt__free(t.grad[i]);
    }
    return st;
}
