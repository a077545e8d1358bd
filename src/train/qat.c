/* The trainer of latent weights (qat.h): each matrix of codes becomes an operator that rounds latent weights at every use (fakequant.h), the gradient
 * goes straight through the rounding, and at the end the codes are what the latent weights round to.
 *
 *     latent w at the start = ŵ + clamp(w_dense - ŵ, ± 0.45 s)       ŵ what is served, s the scale of the group
 *
 * so the first loss is that of the model that went in: no code changes before the training does, and a latent weight leans to the side on which the
 * dense one lies. Without a dense model of the same shape it begins at ŵ.
 *
 * Memory: w, two moments and the gradient in f32, 16 bytes a weight: 1.7 GB for 106 million. max-ram bounds what is beside them.
 */
#include "train/qat.h"

#include "train/distil.h"
#include "train/fakequant.h"
#include <math.h>

#define LEAN 0.45f
#define LEAST_SCALE 5.9604645e-8f            /* 2^-24, the smallest 16-bit float */

enum { WEIGHTS, SCALES, MINIMA, PARTS };

typedef struct matrix { tt_fakequant f; bool learns; uint8_t *half; int64_t groups; int set[PARTS]; } matrix;   /* set: index, -1: none */

typedef struct trainer {
    tt_ctx *ctx;
    const tt_qat_options *o;
    tt_train_job *job;
    const tt_net *net;
    matrix *matrix;                          /* [n_weights] */
    int *gain;                               /* [n_weights] set of a norm gain, -1: none */
    tt_pset *set;
    int n_sets;
    tt_distil distil;
} trainer;

/* ------------------------------------------------------------ what learns ---- */

static const tt_segment *segment(const tt_segment *seg, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (!strcmp(seg[i].name, name)) return &seg[i];
    return NULL;
}

static uint16_t half_at(const tt_segment *s, int64_t i) { return tt__rd16((const uint8_t *)s->data + 2 * i); }

static int add_set(trainer *t, const char *name, int64_t n, double lr) {
    t->set[t->n_sets] = (tt_pset){.name = name, .n = n, .lr = lr};
    return t->n_sets++;
}

static double mean_scale(const tt_segment *s, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += fabs((double)tt__f16_to_f32(half_at(s, i)));
    return n && sum > 0 ? sum / (double)n : 1e-4;
}

/* "bits=2,group=64" and what may follow. */
static bool read_params(const char *text, tt_fakequant *f) {
    const char *bits = strstr(text, "bits="), *group = strstr(text, "group=");
    if (!bits || !group) return false;
    bits += 5, group += 6;
    return tt__scan_int(&bits, 8, &f->bits) && tt__scan_int(&group, 1024, &f->group);
}

/* Codes in groups (linop/group.c); every other operator stays as it is. */
static tt_status open_matrix(trainer *t, size_t i, tt_err *err) {
    const tt_weight *w = &t->net->weights[i];
    matrix *m = &t->matrix[i];
    tt_segment seg[8];
    char params[96] = "";
    m->set[WEIGHTS] = m->set[SCALES] = m->set[MINIMA] = -1;
    if (!w->op || !w->linear || strcmp(w->op->v->name, "group") != 0) return TT_OK;
    int n = w->op->v->segments(w->op, seg);
    w->op->v->describe(w->op, params, sizeof params);
    const tt_segment *scales = segment(seg, n, "scales"), *mins = segment(seg, n, "mins");
    if (!scales || !read_params(params, &m->f) || (n > 2 && !mins)) return TT_OK;
    m->learns = true;
    tt__fakequant_init(&m->f, w->rows, w->cols);
    m->groups = tt__fakequant_groups(&m->f);
    int64_t n_scales = w->rows * m->groups;
    TT_TRY(tt__new(&m->half, (size_t)n_scales, 1, "grids", err));
    for (int64_t k = 0; k < n_scales; k++) m->half[k] = !mins && half_at(scales, k) >> 15;
    m->f.halfgrid = mins ? NULL : m->half;
    double unit = mean_scale(scales, n_scales);
    m->set[WEIGHTS] = add_set(t, "weights", w->rows * w->cols, t->o->lr * unit);
    m->set[SCALES] = add_set(t, "scales", n_scales, t->o->scale_lr * unit);
    if (mins) m->set[MINIMA] = add_set(t, "minima", n_scales, t->o->scale_lr * unit);
    return TT_OK;
}

static double rms(const float *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum / (double)n);
}

static tt_status open_sets(trainer *t, tt_err *err) {
    size_t n = t->net->n_weights;
    TT_TRY(tt__new(&t->matrix, n, sizeof *t->matrix, "operators", err));
    TT_TRY(tt__new(&t->gain, n, sizeof *t->gain, "norm gains", err));
    TT_TRY(tt__new(&t->set, PARTS * n, sizeof *t->set, "what learns", err));
    for (size_t i = 0; i < n; i++) TT_TRY(open_matrix(t, i, err));
    TT_FAIL_IF(t->n_sets == 0, err, TT_USAGE, "no codes to train|the model|no matrix of codes in groups|a compressed model|compress it first, with format=own");
    for (size_t i = 0; i < n; i++) {
        const tt_weight *w = &t->net->weights[i];
        t->gain[i] = w->vector && t->o->norm_lr > 0 ? add_set(t, "norm gains", w->cols, t->o->norm_lr * rms(w->vec, w->cols)) : -1;
    }
    return TT_OK;
}

/* The operators work on the learner's own arrays. */
static void bind(trainer *t) {
    for (size_t i = 0; i < t->net->n_weights; i++) {
        matrix *m = &t->matrix[i];
        if (!m->learns) continue;
        m->f.w = t->set[m->set[WEIGHTS]].x;
        m->f.scale = t->set[m->set[SCALES]].x;
        m->f.min = m->set[MINIMA] >= 0 ? t->set[m->set[MINIMA]].x : NULL;
        tt__runner_set_op(t->distil.student, i, &m->f.op);
    }
    for (size_t i = 0; i < t->net->n_weights; i++)
        if (t->gain[i] >= 0) tt__runner_set_vec(t->distil.student, i, t->set[t->gain[i]].x);
}

/* ------------------------------------------------------------ where it begins ---- */

static const tt_linop *dense_of(const trainer *t, size_t i) {
    const tt_net *d = t->job->teacher;
    const tt_weight *w = &t->net->weights[i];
    if (!d || d->n_weights != t->net->n_weights || d->rope_adjacent != t->net->rope_adjacent) return NULL;
    const tt_weight *x = &d->weights[i];
    return x->op && x->rows == w->rows && x->cols == w->cols && !strcmp(x->name, w->name) ? x->op : NULL;
}

static tt_status first_matrix(trainer *t, size_t i, tt_err *err) {
    matrix *m = &t->matrix[i];
    const tt_weight *w = &t->net->weights[i];
    const tt_linop *dense = dense_of(t, i);
    tt_segment seg[8];
    int n = w->op->v->segments(w->op, seg);
    const tt_segment *scales = segment(seg, n, "scales"), *mins = segment(seg, n, "mins");
    float *row;
    for (int64_t k = 0; k < w->rows * m->groups; k++) {
        m->f.scale[k] = tt__f16_to_f32(mins ? half_at(scales, k) : half_at(scales, k) & 0x7fff);
        if (mins) m->f.min[k] = tt__f16_to_f32(half_at(mins, k));
    }
    tt__linop_rows(w->op, 0, w->rows, m->f.w);
    if (!dense) return TT_OK;
    TT_TRY(tt__new(&row, (size_t)w->cols, sizeof *row, "a row", err));
    for (int64_t r = 0; r < w->rows; r++) {
        tt__linop_rows(dense, r, r + 1, row);
        for (int64_t c = 0; c < w->cols; c++) {
            float *x = m->f.w + r * w->cols + c, most = LEAN * fabsf(m->f.scale[r * m->groups + c / m->f.group]), lean = row[c] - *x;
            *x += lean > most ? most : lean < -most ? -most : lean;
        }
    }
    tt__free(row);
    return TT_OK;
}

static tt_status first(void *user, tt_err *err) {
    trainer *t = user;
    for (size_t i = 0; i < t->net->n_weights; i++) {
        const tt_weight *w = &t->net->weights[i];
        if (t->matrix[i].learns) TT_TRY(first_matrix(t, i, err));
        if (t->gain[i] >= 0) memcpy(t->set[t->gain[i]].x, w->vec, (size_t)w->cols * sizeof(float));
    }
    return TT_OK;
}

/* ------------------------------------------------------------ the loss ---- */

static bool wants(void *user, size_t weight) { return ((trainer *)user)->matrix[weight].learns; }

static void matrix_gradient(void *user, size_t weight, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T) {
    trainer *t = user;
    const matrix *m = &t->matrix[weight];
    tt__gemm_tn(t->ctx, m->f.op.rows, m->f.op.cols, T, G, ldg, X, ldx, t->set[m->set[WEIGHTS]].g, m->f.op.cols, true);
}

static float *gain_gradient(void *user, size_t weight) {
    trainer *t = user;
    return t->gain[weight] >= 0 ? t->set[t->gain[weight]].g : NULL;
}

/* A scale is stored without a sign (group.c), and divides. */
static void keep_positive(trainer *t) {
    for (size_t i = 0; i < t->net->n_weights; i++) {
        const matrix *m = &t->matrix[i];
        for (int64_t k = 0; m->learns && k < m->f.op.rows * m->groups; k++)
            if (m->f.scale[k] < LEAST_SCALE) m->f.scale[k] = LEAST_SCALE;
    }
}

static tt_status loss(void *user, const int32_t *ids, int64_t S, bool gradient, double *loss, tt_err *err) {
    trainer *t = user;
    keep_positive(t);
    tt_train_hooks hooks = {.user = t, .wants = wants, .matrix = matrix_gradient, .vector = gain_gradient};
    for (int k = 0; k < t->n_sets && gradient; k++) memset(t->set[k].g, 0, (size_t)t->set[k].n * sizeof(float));
    TT_TRY(tt__distil_loss(&t->distil, ids, S, &(tt_distil_want){.hooks = gradient ? &hooks : NULL}, loss, err));
    for (size_t i = 0; i < t->net->n_weights && gradient; i++) {
        const matrix *m = &t->matrix[i];
        if (m->learns)
            tt__fakequant_gradient(t->ctx, &m->f, t->set[m->set[WEIGHTS]].g, t->set[m->set[SCALES]].g, m->set[MINIMA] >= 0 ? t->set[m->set[MINIMA]].g : NULL);
    }
    return TT_OK;
}

/* The first values change nothing, so `bare` is how things stand then. */
static tt_status next_token(void *user, const int32_t *ids, int64_t S, bool bare, double *loss, tt_err *err) {
    keep_positive(user);
    return tt__distil_next(&((trainer *)user)->distil, ids, S, NULL, bare, loss, err);
}

static tt_status prepare(void *user, const int32_t *const *windows, size_t n, tt_err *err) { return tt__distil_prepare(&((trainer *)user)->distil, windows, n, err); }

/* ------------------------------------------------------------ the result ---- */

static tt_status finish_matrix(trainer *t, matrix *m, tt_linop **out, tt_err *err) {
    int64_t rows = m->f.op.rows, cols = m->f.op.cols;
    uint8_t *codes = NULL;
    TT_TRY(tt__new(&codes, (size_t)(rows * cols), 1, "codes", err));
    tt__fakequant_finish(t->ctx, &m->f, codes, t->set[m->set[WEIGHTS]].g);        /* the gradient is not needed any more */
    tt_status st = tt__linop_group(t->ctx, m->f.bits, m->f.group, codes, m->f.scale, m->f.halfgrid, m->f.min, rows, cols, out, err);
    tt__free(codes);
    return st;
}

static tt_status save(trainer *t, tt_learner *l, tt_err *err) {
    tt_net net = *t->net;
    tt__str text = {0};
    keep_positive(t);
    TT_TRY(tt__new(&net.weights, net.n_weights, sizeof *net.weights, "weights", err));
    memcpy(net.weights, t->net->weights, net.n_weights * sizeof *net.weights);
    tt_status st = TT_OK;
    size_t made = 0;
    for (; made < net.n_weights && st == TT_OK; made++) {
        if (t->matrix[made].learns) st = finish_matrix(t, &t->matrix[made], &net.weights[made].op, err);
        if (t->gain[made] >= 0) net.weights[made].vec = t->set[t->gain[made]].x;
    }
    if (st == TT_OK) st = tt__learn_record(l, "qat", t->o->kl ? "kl" : "ce", NULL, &text, err);
    if (st == TT_OK) st = t->job->save_model(t->job->save_user, &net, text.s, err);
    for (size_t i = 0; i < made; i++)
        if (t->matrix[i].learns && net.weights[i].op != t->net->weights[i].op) tt__linop_free(net.weights[i].op);
    tt__str_free(&text);
    tt__free(net.weights);
    return st;
}

static tt_status run(trainer *t, tt_err *err) {
    const tt_learn_options *lo = &t->o->learn;
    tt_learner *l = NULL;
    TT_TRY(open_sets(t, err));
    tt_learn_task task = {.user = t, .what = "model", .file = "qat", .sets = t->set, .n_sets = t->n_sets, .first = first, .prepare = prepare, .loss = loss,
                          .next = next_token};
    TT_TRY(tt__learn_open(t->ctx, lo, &task, t->job, &l, err));
    tt__log(t->ctx, TT_LOG_INFO, "tune: weights, moments and gradients take %.0f MiB", (double)tt__learn_bytes(l) / 1048576);
    tt_distil_options o = {.batch = lo->batch, .length = lo->length, .kl = t->o->kl, .topk = t->o->topk, .temperature = t->o->temperature, .weights = true,
                           .trains = true};
    tt_status st = tt__distil_open(t->ctx, &o, t->job, &t->distil, err);
    if (st == TT_OK) bind(t);
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

tt_status tt__qat_train(tt_ctx *ctx, const tt_qat_options *o, tt_train_job *job, tt_err *err) {
    trainer t = {.ctx = ctx, .o = o, .job = job, .net = job->student};
    tt_status st = run(&t, err);
    for (size_t i = 0; t.matrix && i < t.net->n_weights; i++) tt__free(t.matrix[i].half);
    tt__free(t.matrix);
    tt__free(t.gain);
    tt__free(t.set);
    return st;
}
