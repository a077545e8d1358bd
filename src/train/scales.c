/* The trainer of scales, minima and norm gains (scales.h).
 *
 *     p = p0 + u x        what is served (rounded to 16 bits where files hold 16 bits) from what the optimiser moves
 *     u = |scale of the group| for scales and minima, |gain| for gains of columns, rms of the vector for norm gains;  x = 0 at the start
 *
 * so one rate fits all: a step of Adam moves a scale by a part of itself, whatever its size, and a minimum by a part of a level. The loss runs through
 * trainable copies of the operators (linop.h), that is, through exactly the weights that are stored at the end. The tied output matrix trains only as
 * far as it has few enough bits, its look-up and its use as head together.
 *
 * Memory: 16 bytes for each trained number: at 2 bits in groups of 64 less than half a byte per weight of the matrices.
 */
#include "train/scales.h"

#include "train/distil.h"
#include <math.h>

enum { SCALES, MINIMA, GAINS, SETS };

typedef struct matrix { tt_linop *op; tt_param param[TT_MAX_PARAMS]; int n; float *start[TT_MAX_PARAMS]; int64_t at[TT_MAX_PARAMS]; } matrix;

typedef struct trainer {
    tt_ctx *ctx;
    const tt_scales_options *o;
    tt_train_job *job;
    const tt_net *net;
    matrix *matrix;                          /* [n_weights]; op NULL: frozen */
    float **gain;                            /* [n_weights] the vector that is run, or NULL: frozen */
    int64_t *gain_at;                        /* [n_weights] place in the set */
    float *start;                            /* what the operators began with, scales first, then minima */
    tt_pset set[SETS];
    int place[SETS], n_sets;                 /* the learner sees no empty sets */
    tt_pset shown[SETS];
    tt_distil distil;
} trainer;

static tt_pset *set_of(trainer *t, int kind) { return &t->shown[t->place[kind]]; }
static int kind_of(const tt_param *p) { return !strcmp(p->name, "minima") ? MINIMA : !strcmp(p->name, "scales") || !strcmp(p->name, "gains") ? SCALES : -1; }

/* ------------------------------------------------------------ what learns ---- */

static bool small_enough(const trainer *t, const tt_weight *w) {
    return 8.0 * (double)tt__linop_bytes(w->op) <= t->o->max_bits * (double)w->rows * (double)w->cols;
}

/* Only operators whose numbers are scales or minima of groups of columns; others are frozen. */
static tt_status open_matrix(trainer *t, size_t i, tt_err *err) {
    const tt_weight *w = &t->net->weights[i];
    matrix *m = &t->matrix[i];
    tt_err why = {0};
    if (!w->op || !small_enough(t, w)) return TT_OK;
    tt_status st = tt__linop_trainable(t->ctx, w->op, &m->op, &why);
    if (st == TT_TARGET) return TT_OK;
    if (st != TT_OK) {
        *err = why;
        return st;
    }
    m->n = tt__linop_params(m->op, m->param);
    for (int k = 0; k < m->n; k++) {
        int kind = kind_of(&m->param[k]);
        if (kind < 0 || !m->param[k].unit) {
            tt__linop_free(m->op);
            *m = (matrix){0};
            return TT_OK;
        }
    }
    for (int k = 0; k < m->n; k++) {
        tt_pset *s = &t->set[kind_of(&m->param[k])];
        m->at[k] = s->n;
        s->n += m->param[k].n;
    }
    return TT_OK;
}

static tt_status open_gain(trainer *t, size_t i, tt_err *err) {
    const tt_weight *w = &t->net->weights[i];
    if (!w->vector || t->o->norm_lr <= 0) return TT_OK;
    TT_TRY(tt__new(&t->gain[i], (size_t)w->cols, sizeof(float), "norm gains", err));
    memcpy(t->gain[i], w->vec, (size_t)w->cols * sizeof(float));
    t->gain_at[i] = t->set[GAINS].n;
    t->set[GAINS].n += w->cols;
    return TT_OK;
}

static tt_status keep_start(trainer *t, tt_err *err) {
    int64_t at = 0;
    TT_TRY(tt__new(&t->start, (size_t)(t->set[SCALES].n + t->set[MINIMA].n), sizeof(float), "scales", err));
    for (size_t i = 0; i < t->net->n_weights; i++)
        for (int k = 0; k < t->matrix[i].n; at += t->matrix[i].param[k++].n) {
            t->matrix[i].start[k] = t->start + at;
            memcpy(t->start + at, t->matrix[i].param[k].x, (size_t)t->matrix[i].param[k].n * sizeof(float));
        }
    return TT_OK;
}

static tt_status open_sets(trainer *t, tt_err *err) {
    static const char *const names[SETS] = {"scales", "minima", "norm gains"};
    size_t n = t->net->n_weights;
    TT_TRY(tt__new(&t->matrix, n, sizeof *t->matrix, "operators", err));
    TT_TRY(tt__new(&t->gain, n, sizeof *t->gain, "norm gains", err));
    TT_TRY(tt__new(&t->gain_at, n, sizeof *t->gain_at, "norm gains", err));
    for (size_t i = 0; i < n; i++) {
        TT_TRY(open_matrix(t, i, err));
        TT_TRY(open_gain(t, i, err));
    }
    TT_FAIL_IF(t->set[SCALES].n == 0, err, TT_USAGE, "no scales to train|the model|no quantized matrix of at most %g bits|a compressed model|compress it first",
               t->o->max_bits);
    TT_TRY(keep_start(t, err));
    for (int k = 0; k < SETS; k++) {
        t->set[k].name = names[k];
        t->set[k].lr = k == GAINS ? t->o->norm_lr : t->o->lr;
        t->set[k].decay = t->o->decay;
        t->place[k] = t->n_sets;
        if (t->set[k].n) t->shown[t->n_sets++] = t->set[k];
    }
    tt__log(t->ctx, TT_LOG_INFO, "tune: %lld scales, %lld minima, %lld norm gains", (long long)t->set[SCALES].n, (long long)t->set[MINIMA].n,
            (long long)t->set[GAINS].n);
    return TT_OK;
}

/* ------------------------------------------------------------ from x to weights, and from gradients to x ---- */

/* The units of parameter k of a matrix: a minimum's is the scale of its group, which comes first. */
static const float *units(const matrix *m, int k) { return kind_of(&m->param[k]) == MINIMA ? m->start[0] : m->start[k]; }

static double rms(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum / (double)n);
}

static tt_status apply_matrix(trainer *t, matrix *m, tt_err *err) {
    for (int k = 0; k < m->n; k++) {
        const float *unit = units(m, k), *x = set_of(t, kind_of(&m->param[k]))->x + m->at[k];
        for (int64_t j = 0; j < m->param[k].n; j++) m->param[k].x[j] = m->start[k][j] + fabsf(unit[j]) * x[j];
    }
    return tt__linop_params_changed(t->ctx, m->op, err);
}

static tt_status apply(trainer *t, tt_err *err) {
    for (size_t i = 0; i < t->net->n_weights; i++) {
        const tt_weight *w = &t->net->weights[i];
        if (t->matrix[i].op) TT_TRY(apply_matrix(t, &t->matrix[i], err));
        if (!t->gain[i]) continue;
        const float *x = set_of(t, GAINS)->x + t->gain_at[i], unit = (float)rms(w->vec, w->cols);
        for (int64_t j = 0; j < w->cols; j++) t->gain[i][j] = w->vec[j] + unit * x[j];
    }
    return TT_OK;
}

static void chain(trainer *t) {
    for (size_t i = 0; i < t->net->n_weights; i++) {
        const matrix *m = &t->matrix[i];
        for (int k = 0; k < m->n; k++) {
            float *g = set_of(t, kind_of(&m->param[k]))->g + m->at[k];
            for (int64_t j = 0; j < m->param[k].n; j++) g[j] *= fabsf(units(m, k)[j]);
        }
        if (!t->gain[i]) continue;
        const tt_weight *w = &t->net->weights[i];
        float *g = set_of(t, GAINS)->g + t->gain_at[i], unit = (float)rms(w->vec, w->cols);
        for (int64_t j = 0; j < w->cols; j++) g[j] *= unit;
    }
}

/* ------------------------------------------------------------ the loss ---- */

static bool wants(void *user, size_t weight) { return ((trainer *)user)->matrix[weight].op != NULL; }

static void gradients_of(trainer *t, const matrix *m, float *grad[TT_MAX_PARAMS]) {
    for (int k = 0; k < TT_MAX_PARAMS; k++) grad[k] = k < m->n ? set_of(t, kind_of(&m->param[k]))->g + m->at[k] : NULL;
}

static void matrix_gradient(void *user, size_t weight, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T) {
    trainer *t = user;
    float *grad[TT_MAX_PARAMS];
    gradients_of(t, &t->matrix[weight], grad);
    tt__linop_grad_params(t->ctx, t->matrix[weight].op, X, ldx, G, ldg, T, grad);
}

static float *gain_gradient(void *user, size_t weight) {
    trainer *t = user;
    return t->gain[weight] ? set_of(t, GAINS)->g + t->gain_at[weight] : NULL;
}

static tt_status loss(void *user, const int32_t *ids, int64_t S, bool gradient, double *loss, tt_err *err) {
    trainer *t = user;
    tt_train_hooks hooks = {.user = t, .wants = wants, .matrix = matrix_gradient, .vector = gain_gradient};
    const matrix *embd = &t->matrix[t->net->embd];
    TT_TRY(apply(t, err));
    for (int k = 0; k < t->n_sets && gradient; k++) memset(t->shown[k].g, 0, (size_t)t->shown[k].n * sizeof(float));
    tt_distil_want want = {.rows = gradient && embd->op, .hooks = gradient ? &hooks : NULL};
    TT_TRY(tt__distil_loss(&t->distil, ids, S, &want, loss, err));
    if (!gradient) return TT_OK;
    if (embd->op) {
        float *grad[TT_MAX_PARAMS];
        gradients_of(t, embd, grad);
        tt__linop_grad_rows(t->ctx, embd->op, ids, S * t->o->learn.length, t->distil.dX, t->distil.d, grad);
    }
    chain(t);
    return TT_OK;
}

/* The first values change nothing, so `bare` is how things stand then. */
static tt_status next_token(void *user, const int32_t *ids, int64_t S, bool bare, double *loss, tt_err *err) {
    trainer *t = user;
    TT_TRY(apply(t, err));
    return tt__distil_next(&t->distil, ids, S, NULL, bare, loss, err);
}

static tt_status first(void *user, tt_err *err) {
    trainer *t = user;
    (void)err;
    for (int k = 0; k < t->n_sets; k++) memset(t->shown[k].x, 0, (size_t)t->shown[k].n * sizeof(float));
    return TT_OK;
}

static tt_status prepare(void *user, const int32_t *const *windows, size_t n, tt_err *err) { return tt__distil_prepare(&((trainer *)user)->distil, windows, n, err); }

/* ------------------------------------------------------------ the whole ---- */

static void install(trainer *t) {
    for (size_t i = 0; i < t->net->n_weights; i++) {
        if (t->matrix[i].op) tt__runner_set_op(t->distil.student, i, t->matrix[i].op);
        if (t->gain[i]) tt__runner_set_vec(t->distil.student, i, t->gain[i]);
    }
}

/* The net with the trained operators and gains in their places. */
static tt_status save(trainer *t, tt_learner *l, tt_err *err) {
    tt_net net = *t->net;
    tt__str text = {0};
    TT_TRY(apply(t, err));
    TT_TRY(tt__new(&net.weights, net.n_weights, sizeof *net.weights, "weights", err));
    memcpy(net.weights, t->net->weights, net.n_weights * sizeof *net.weights);
    for (size_t i = 0; i < net.n_weights; i++) {
        if (t->matrix[i].op) net.weights[i].op = t->matrix[i].op;
        if (t->gain[i]) net.weights[i].vec = t->gain[i];
    }
    tt_status st = tt__learn_record(l, "dwq", t->o->kl ? "kl" : "ce", NULL, &text, err);
    if (st == TT_OK) st = t->job->save_model(t->job->save_user, &net, text.s, err);
    tt__str_free(&text);
    tt__free(net.weights);
    return st;
}

static tt_status run(trainer *t, tt_err *err) {
    const tt_learn_options *lo = &t->o->learn;
    tt_learn_task task = {.user = t, .what = "model", .file = "dwq", .sets = t->shown, .first = first, .prepare = prepare, .loss = loss, .next = next_token};
    tt_learner *l = NULL;
    TT_TRY(open_sets(t, err));
    task.n_sets = t->n_sets;
    TT_TRY(tt__learn_open(t->ctx, lo, &task, t->job, &l, err));
    tt_distil_options o = {.batch = lo->batch, .length = lo->length, .kl = t->o->kl && lo->steps > 0, .topk = t->o->topk, .temperature = t->o->temperature,
                           .weights = true, .trains = lo->steps > 0, .others = tt__learn_bytes(l)};
    tt_status st = tt__distil_open(t->ctx, &o, t->job, &t->distil, err);
    if (st == TT_OK) install(t);
    if (st == TT_OK) st = tt__learn_run(l, err);
    if (st == TT_OK) st = tt__learn_best(l, err);
    if (st == TT_OK) st = save(t, l, err);
    if (st == TT_OK) {
        tt__distil_done(&t->distil);
        tt__learn_finish(l);
    }
    tt__learn_close(l);
    tt__distil_close(&t->distil);
    return st;
}

tt_status tt__scales_train(tt_ctx *ctx, const tt_scales_options *o, tt_train_job *job, tt_err *err) {
    trainer t = {.ctx = ctx, .o = o, .job = job, .net = job->student};
    tt_status st = run(&t, err);
    for (size_t i = 0; i < t.net->n_weights; i++) {
        if (t.matrix) tt__linop_free(t.matrix[i].op);
        if (t.gain) tt__free(t.gain[i]);
    }
    tt__free(t.matrix);
    tt__free(t.gain);
    tt__free(t.gain_at);
    tt__free(t.start);
    return st;
}
