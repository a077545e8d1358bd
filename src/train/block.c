/* See block.h. All parameters of the block lie in one array, matrix by matrix: weights or V [rows, cols], scales [rows, groups], minima likewise.
 * Gradients, moments and the best parameters lie the same way, so that saving, restoring and norms are plain loops over arrays.
 *
 *     step k        look    (k = 0, every fifth of the steps, and at the end) loss of the held-out sequences; best so far → best
 *                   draw    `batch` sequences, by seed, layer and k
 *                   run     forward, loss, backward: dŴ of every matrix (models: tt__run_block_loss)
 *                   through the grid: dŴ → dV or dW, dscale, dmin
 *                   move
 *
 *   ROUNDING   V ← clamp(V - η_k sign(dV), ±1/2)                    s ← clamp(s - η_k |s0| sign(ds), s0/2 … 3 s0/2)         η_k = η (1 - k/K)
 *   ALL        w ← w - η_k |s0| Adam(dw)      s, m ← s, m - η'_k |s0| Adam(ds, dm)      s0/4 ≤ s ≤ 4 s0          η_k = η (0.05 + 0.95 (1 + cos πk/K)/2)
 *
 * Departure from both papers: rates are in units of the group's first scale s0, so that one default fits weights of any size (AutoRound's V
 * is so already; EfficientQAT's 2e-5 is for the weights of a 7 B model and 4096 samples), and the parameters that are kept are the best on held-out
 * sequences, not on the batch at hand.
 *
 * File of a state: "TTBLOCK1" | counters | parameters | best | moments (ALL).
 */
#include "train/block.h"

#include "base/checked.h"
#include "train/fakequant.h"
#include "train/optim.h"
#include "train/rawfile.h"
#include <math.h>

enum { MAX_HALVINGS = 3, LOOKS = 5, MOST_HELD_OUT = 8, TILE = 1 << 14 };
static const char MAGIC[8] = "TTBLOCK1";
static const double BETA1 = 0.9, BETA2 = 0.95;

/* Stored as they lie here: 8-byte members only. */
typedef struct counters { int64_t step, updates, best_step, halvings; double rate, first, best; } counters;

typedef struct trained {
    tt_block_matrix m;
    tt_fakequant f;
    int64_t n, n_groups;              /* weights; groups of all rows */
    int64_t w, scale, min;            /* where they lie; min -1: none */
    float unit;                       /* without a grid: the mean size of a weight */
    bool touched;                     /* has a gradient in this step */
} trained;

struct tt_block {
    tt_ctx *ctx;
    const tt_net *net;
    int layer;
    tt_block_data data;
    tt_block_options o;
    int n;
    trained *t;
    int64_t n_params, held_out;
    float *p, *g, *best, *m1, *m2;    /* [n_params]; moments: ALL */
    float *X, *Y, *out;               /* [batch * length, n_embd] */
    int64_t *order;                   /* [samples] for drawing */
    tt_runner *runner;
    counters c;
};

/* ------------------------------------------------------------ making one ---- */

static bool trains_weights(const tt_block *b) { return b->o.mode == TT_BLOCK_ALL; }

static float mean_size(const float *w, const uint8_t *keep, int64_t n) {
    double sum = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        if (!keep || keep[i]) sum += fabs((double)w[i]), count++;
    return count ? (float)(sum / (double)count) : 0;
}

static tt_status check_matrix(const tt_block *b, const tt_block_matrix *m, tt_err *err) {
    const tt_weight *w = &b->net->weights[m->weight];
    TT_FAIL_IF(w->layer != b->layer || !w->op, err, TT_USAGE, "weight does not belong to the block|%s", w->name);
    TT_FAIL_IF(!m->bits && !trains_weights(b), err, TT_USAGE, "nothing is rounded here|%s|||round the weights first, or train them too", w->name);
    return TT_OK;
}

static void lay_out(tt_block *b, trained *t, const tt_block_matrix *m) {
    const tt_weight *w = &b->net->weights[m->weight];
    *t = (trained){.m = *m, .n = w->rows * w->cols, .min = -1};
    t->f = (tt_fakequant){.bits = m->bits, .group = m->group, .keep = m->keep, .halfgrid = m->halfgrid};
    tt__fakequant_init(&t->f, w->rows, w->cols);
    t->n_groups = w->rows * tt__fakequant_groups(&t->f);
    t->w = b->n_params;
    t->scale = t->w + t->n;
    b->n_params = t->scale + t->n_groups;
    if (!m->min) return;
    t->min = b->n_params;
    b->n_params += t->n_groups;
}

static void bind(tt_block *b, trained *t) {
    float *start = b->p + t->w;
    if (t->m.bits) {
        memcpy(b->p + t->scale, t->m.scale, (size_t)t->n_groups * sizeof(float));
        if (t->min >= 0) memcpy(b->p + t->min, t->m.min, (size_t)t->n_groups * sizeof(float));
    }
    if (trains_weights(b)) memcpy(start, t->m.W, (size_t)t->n * sizeof(float));
    t->f.w = trains_weights(b) ? start : (float *)(uintptr_t)t->m.W;
    t->f.v = trains_weights(b) ? NULL : start;
    t->f.scale = b->p + t->scale;
    t->f.min = t->min >= 0 ? b->p + t->min : NULL;
    t->unit = t->m.bits ? 0 : mean_size(t->m.W, t->m.keep, t->n);
    tt__runner_set_op(b->runner, t->m.weight, &t->f.op);
}

static int64_t held_out(int64_t samples) { return samples / 8 < 1 ? 1 : samples / 8 < MOST_HELD_OUT ? samples / 8 : MOST_HELD_OUT; }

static tt_status make(tt_block *b, const tt_block_matrix *m, tt_err *err) {
    TT_TRY(tt__new(&b->t, (size_t)b->n, sizeof *b->t, "a block trainer", err));
    for (int i = 0; i < b->n; i++) {
        TT_TRY(check_matrix(b, &m[i], err));
        lay_out(b, &b->t[i], &m[i]);
    }
    b->held_out = held_out(b->data.samples);
    int64_t free = b->data.samples - b->held_out, rows;
    if (b->o.batch > free) b->o.batch = free > 0 ? free : 1;
    rows = b->o.batch * b->data.length;
    size_t n = (size_t)b->n_params, values = (size_t)(rows * b->net->hp.n_embd);
    TT_TRY(tt__new(&b->p, n, sizeof(float), "parameters of a block", err));
    TT_TRY(tt__new(&b->g, n, sizeof(float), "gradients of a block", err));
    TT_TRY(tt__new(&b->best, n, sizeof(float), "the best parameters of a block", err));
    if (trains_weights(b)) {
        TT_TRY(tt__new(&b->m1, n, sizeof(float), "moments of a block", err));
        TT_TRY(tt__new(&b->m2, n, sizeof(float), "moments of a block", err));
    }
    TT_TRY(tt__new(&b->X, values, sizeof(float), "rows of a batch", err));
    TT_TRY(tt__new(&b->Y, values, sizeof(float), "rows of a batch", err));
    TT_TRY(tt__new(&b->out, values, sizeof(float), "rows of a batch", err));
    TT_TRY(tt__new(&b->order, (size_t)b->data.samples, sizeof *b->order, "an order of sequences", err));
    tt_runner_options ro = {.max_rows = rows, .backward = true, .weights = true, .keep = TT_KEEP_ALL};
    TT_TRY(tt__runner_create(b->ctx, b->net, &ro, &b->runner, err));
    tt__runner_set_bf16(b->runner, b->o.bf16);
    for (int i = 0; i < b->n; i++) bind(b, &b->t[i]);
    memcpy(b->best, b->p, n * sizeof(float));
    return TT_OK;
}

tt_status tt__block_create(tt_ctx *ctx, const tt_net *net, int layer, const tt_block_data *data, const tt_block_options *o, const tt_block_matrix *m, int n,
                           tt_block **out, tt_err *err) {
    tt_block *b = NULL;
    *out = NULL;
    TT_FAIL_IF(data->samples < 1 || data->length < 1 || o->steps < 1 || o->batch < 1 || n < 1, err, TT_USAGE, "nothing to train a block with||%lld sequences, %lld steps",
               (long long)data->samples, (long long)o->steps);
    TT_TRY(tt__new(&b, 1, sizeof *b, "a block trainer", err));
    *b = (tt_block){.ctx = ctx, .net = net, .layer = layer, .data = *data, .o = *o, .n = n, .c = {.rate = 1}};
    tt_status st = make(b, m, err);
    if (st != TT_OK) tt__block_free(b);
    else *out = b;
    return st;
}

void tt__block_free(tt_block *b) {
    if (!b) return;
    tt__runner_free(b->runner);
    tt__free(b->t);
    tt__free(b->p);
    tt__free(b->g);
    tt__free(b->best);
    tt__free(b->m1);
    tt__free(b->m2);
    tt__free(b->X);
    tt__free(b->Y);
    tt__free(b->out);
    tt__free(b->order);
    tt__free(b);
}

uint64_t tt__block_weights(const tt_net *net) {
    uint64_t most = 0;
    for (int64_t l = 0; l < net->hp.n_layer; l++) {
        uint64_t n = 0;
        for (size_t i = net->layer_first[l]; i < net->layer_first[l + 1]; i++)
            if (net->weights[i].linear) n += (uint64_t)(net->weights[i].rows * net->weights[i].cols);
        if (n > most) most = n;
    }
    return most;
}

uint64_t tt__block_bytes(const tt_net *net, tt_block_mode mode, int64_t rows) {
    const tt_hparams *h = &net->hp;
    uint64_t width = (uint64_t)(16 * h->n_embd + 8 * h->n_ff + 4 * h->n_head * h->head_dim);       /* kept values, their gradients, the rows */
    return tt__block_weights(net) * (mode == TT_BLOCK_ALL ? 21 : 13) + (uint64_t)rows * width * sizeof(float);
}

/* ------------------------------------------------------------ data ---- */

static tt_status fetch(tt_block *b, const int64_t *which, int64_t n, tt_err *err) {
    int64_t values = b->data.length * b->net->hp.n_embd;
    for (int64_t i = 0; i < n; i++) TT_TRY(b->data.sequence(b->data.user, which[i], b->X + i * values, b->Y + i * values, err));
    return TT_OK;
}

/* The first `batch` places of `order` hold different sequences that are not held out (a single sequence is both). */
static void draw(tt_block *b) {
    int64_t first = b->data.samples > b->held_out ? b->held_out : 0, n = b->data.samples - first;
    tt__rng rng;
    tt__rng_seed(&rng, b->o.seed ^ 0x9e3779b97f4a7c15u * (uint64_t)(b->layer + 1) ^ 0xd1b54a32d192ed03u * (uint64_t)(b->c.step + 1));
    for (int64_t i = 0; i < n; i++) b->order[i] = first + i;
    for (int64_t i = 0; i < b->o.batch; i++) {
        int64_t k = i + (int64_t)tt__rng_below(&rng, (uint64_t)(n - i)), swap = b->order[i];
        b->order[i] = b->order[k], b->order[k] = swap;
    }
}

/* ------------------------------------------------------------ forward and backward ---- */

static trained *of_weight(const tt_block *b, size_t weight) {
    for (int i = 0; i < b->n; i++)
        if (b->t[i].m.weight == weight) return &b->t[i];
    return NULL;
}

static bool hook_wants(void *user, size_t weight) { return of_weight(user, weight) != NULL; }

static void hook_matrix(void *user, size_t weight, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T) {
    tt_block *b = user;
    trained *t = of_weight(b, weight);
    tt__gemm_tn(b->ctx, t->f.op.rows, t->f.op.cols, T, G, ldg, X, ldx, b->g + t->w, t->f.op.cols, t->touched);
    t->touched = true;
}

static tt_status held_out_loss(tt_block *b, double *loss, tt_err *err) {
    double sum = 0, part;
    for (int64_t i = 0; i < b->held_out; i += b->o.batch) {
        int64_t n = b->held_out - i < b->o.batch ? b->held_out - i : b->o.batch;
        for (int64_t k = 0; k < n; k++) b->order[k] = i + k;
        TT_TRY(fetch(b, b->order, n, err));
        TT_TRY(tt__run_block_loss(b->runner, b->layer, n, b->data.length, b->X, b->Y, NULL, NULL, &part, b->out, err));
        sum += part * (double)n;
    }
    *loss = sum / (double)b->held_out;
    return TT_OK;
}

static tt_status gradients(tt_block *b, double *loss, tt_err *err) {
    tt_train_hooks hooks = {.user = b, .wants = hook_wants, .matrix = hook_matrix};
    for (int i = 0; i < b->n; i++) b->t[i].touched = false;
    draw(b);
    TT_TRY(fetch(b, b->order, b->o.batch, err));
    TT_TRY(tt__run_block_loss(b->runner, b->layer, b->o.batch, b->data.length, b->X, b->Y, NULL, &hooks, loss, b->out, err));
    for (int i = 0; i < b->n; i++) {
        trained *t = &b->t[i];
        tt__fakequant_gradient(b->ctx, &t->f, b->g + t->w, b->g + t->scale, t->min >= 0 ? b->g + t->min : NULL);
    }
    return TT_OK;
}

/* ------------------------------------------------------------ moving ---- */

typedef struct adam { float b1, b2, c1, c2, grad; } adam;      /* c: what undoes the zero start; grad: what clipping multiplies with */

static inline float adam_move(const adam *a, float g, float *m1, float *m2) {
    g *= a->grad;
    *m1 = a->b1 * *m1 + (1 - a->b1) * g;
    *m2 = a->b2 * *m2 + (1 - a->b2) * g * g;
    return *m1 * a->c1 / (sqrtf(*m2 * a->c2) + 1e-20f);
}

static inline float sign(float g) { return g > 0 ? 1.0f : g < 0 ? -1.0f : 0.0f; }
static inline float clamp(float x, float a, float z) { return x < a ? a : x > z ? z : x; }

typedef struct move_job { tt_block *b; trained *t; float lr, lr_scale; adam a; } move_job;

static float unit_of(const trained *t, int64_t group) { return fabsf(t->m.scale[group]); }

static void move_weights(const move_job *j, int64_t at, int64_t n, float unit) {
    tt_block *b = j->b;
    float *p = b->p + j->t->w + at, *g = b->g + j->t->w + at;
    if (!trains_weights(b)) {
        for (int64_t i = 0; i < n; i++) p[i] = clamp(p[i] - j->lr * sign(g[i]), -0.5f, 0.5f);
        return;
    }
    float *m1 = b->m1 + j->t->w + at, *m2 = b->m2 + j->t->w + at, lr = j->lr * unit;
    for (int64_t i = 0; i < n; i++) p[i] -= lr * adam_move(&j->a, g[i], &m1[i], &m2[i]);
}

static float moved(const move_job *j, int64_t at, float unit) {
    tt_block *b = j->b;
    float way = trains_weights(b) ? adam_move(&j->a, b->g[at], &b->m1[at], &b->m2[at]) : sign(b->g[at]);
    return b->p[at] - j->lr_scale * unit * way;
}

/* The scale keeps the sign it began with. */
static void move_scale(const move_job *j, int64_t group) {
    const trained *t = j->t;
    float s0 = t->m.scale[group], a = trains_weights(j->b) ? 0.25f : 0.5f, z = trains_weights(j->b) ? 4.0f : 1.5f, unit = fabsf(s0);
    float s = moved(j, t->scale + group, unit);
    j->b->p[t->scale + group] = s0 < 0 ? -clamp(-s, a * unit, z * unit) : clamp(s, a * unit, z * unit);
    if (t->min >= 0) j->b->p[t->min + group] = moved(j, t->min + group, unit);
}

static void move_row(void *arg, int64_t r, int worker) {
    (void)worker;
    const move_job *j = arg;
    int64_t cols = j->t->f.op.cols, groups = tt__fakequant_groups(&j->t->f);
    if (!groups) move_weights(j, r * cols, cols, j->t->unit);
    for (int64_t k = 0; k < groups; k++) {
        int64_t c = k * j->t->f.group, n = cols - c < j->t->f.group ? cols - c : j->t->f.group;
        move_weights(j, r * cols + c, n, unit_of(j->t, r * groups + k));
        move_scale(j, r * groups + k);
    }
}

static void move(tt_block *b, double norm) {
    double factor = trains_weights(b) ? tt__lr_cosine(b->c.step, 0, b->o.steps, 0.05) : tt__lr_linear(b->c.step, 0, b->o.steps), t = (double)++b->c.updates;
    adam a = {(float)BETA1, (float)BETA2, (float)(1 / (1 - pow(BETA1, t))), (float)(1 / (1 - pow(BETA2, t))), b->o.clip > 0 && norm > b->o.clip ? (float)(b->o.clip / norm) : 1};
    for (int i = 0; i < b->n; i++) {
        move_job j = {b, &b->t[i], (float)(factor * b->c.rate * b->o.lr), (float)(factor * b->c.rate * b->o.lr_scale), a};
        tt__parallel(b->ctx, b->t[i].f.op.rows, move_row, &j);
    }
}

/* ------------------------------------------------------------ a step ---- */

/* Sums of pieces in a fixed order. */
typedef struct norm_job { const tt_block *b; double *sum; } norm_job;
static void norm_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    const norm_job *j = arg;
    int64_t n = j->b->n_params - tile * TILE < TILE ? j->b->n_params - tile * TILE : TILE;
    j->sum[tile] = j->b->ctx->k->sumsq_f32(j->b->g + tile * TILE, n);
}

static tt_status gradient_norm(const tt_block *b, double *norm, tt_err *err) {
    int64_t tiles = (b->n_params + TILE - 1) / TILE;
    norm_job j = {.b = b};
    TT_TRY(tt__new(&j.sum, (size_t)tiles, sizeof *j.sum, "sums", err));
    tt__parallel(b->ctx, tiles, norm_tile, &j);
    double sum = 0;
    for (int64_t i = 0; i < tiles; i++) sum += j.sum[i];
    tt__free(j.sum);
    *norm = sqrt(sum);
    return TT_OK;
}

static void restore_best(tt_block *b) { memcpy(b->p, b->best, (size_t)b->n_params * sizeof *b->p); }

static tt_status go_back(tt_block *b, double value, tt_err *err) {
    TT_FAIL_IF(b->c.halvings == MAX_HALVINGS, err, TT_FAIL, "training of a block diverges|layer %d, step %lld|%g||a lower rate may help", b->layer, (long long)b->c.step, value);
    b->c.halvings++;
    b->c.rate /= 2;
    tt__log(b->ctx, TT_LOG_WARN, "block %d: loss is not a number at step %lld: back to step %lld with rate x %g", b->layer, (long long)b->c.step, (long long)b->c.best_step,
            b->c.rate);
    restore_best(b);
    b->c.step = b->c.best_step;
    b->c.updates = 0;
    for (int64_t i = 0; b->m1 && i < b->n_params; i++) b->m1[i] = b->m2[i] = 0;
    return TT_OK;
}

static bool look_is_due(const tt_block *b) {
    int64_t every = (b->o.steps + LOOKS - 1) / LOOKS;
    return b->c.step % every == 0 || b->c.step == b->o.steps;
}

/* *lost: the loss is not a number. */
static tt_status look(tt_block *b, bool *lost, double *loss, tt_err *err) {
    TT_TRY(held_out_loss(b, loss, err));
    *lost = !isfinite(*loss);
    bool first = b->c.step == 0 && b->c.halvings == 0;
    TT_FAIL_IF(*lost && first, err, TT_FAIL, "loss of a block is not a number before training|layer %d|%g||is the model damaged?", b->layer, *loss);
    if (*lost || !(first || *loss < b->c.best)) return TT_OK;
    if (first) b->c.first = *loss;
    b->c.best = *loss;
    b->c.best_step = b->c.step;
    memcpy(b->best, b->p, (size_t)b->n_params * sizeof *b->p);
    return TT_OK;
}

tt_status tt__block_step(tt_block *b, tt_err *err) {
    bool lost = false;
    double loss = 0, norm = 0;
    if (look_is_due(b)) TT_TRY(look(b, &lost, &loss, err));
    if (lost) return go_back(b, loss, err);
    if (b->c.step < b->o.steps) {
        TT_TRY(gradients(b, &loss, err));
        TT_TRY(gradient_norm(b, &norm, err));
        if (!isfinite(loss) || !isfinite(norm)) return go_back(b, isfinite(loss) ? norm : loss, err);
        move(b, norm);
    } else {
        restore_best(b);
    }
    b->c.step++;
    return TT_OK;
}

bool tt__block_done(const tt_block *b) { return b->c.step > b->o.steps; }

tt_block_progress tt__block_progress(const tt_block *b) { return (tt_block_progress){b->c.step, b->c.best_step, b->c.halvings, b->c.first, b->c.best}; }

double tt__block_share(const tt_block *b) { return b->c.step < b->o.steps ? (double)b->c.step / (double)b->o.steps : 1; }

/* What V moved is moved into the weights: (w + s V - m) / s = (w - m) / s + V. */
static void fold(const tt_block *b, const trained *t, float *latent) {
    int64_t cols = t->f.op.cols, groups = tt__fakequant_groups(&t->f);
    for (int64_t r = 0; r < t->f.op.rows; r++)
        for (int64_t c = 0; c < cols; c++) latent[r * cols + c] = t->m.W[r * cols + c] + t->f.scale[r * groups + c / t->f.group] * b->p[t->w + r * cols + c];
}

void tt__block_finish(tt_block *b, int i, float *latent, float *scale, float *min, uint8_t *codes, float *values) {
    trained *t = &b->t[i];
    tt__fakequant_finish(b->ctx, &t->f, codes, values);
    if (trains_weights(b)) memcpy(latent, b->p + t->w, (size_t)t->n * sizeof *latent);
    else fold(b, t, latent);
    if (t->m.bits) memcpy(scale, b->p + t->scale, (size_t)t->n_groups * sizeof *scale);
    if (t->min >= 0) memcpy(min, b->p + t->min, (size_t)t->n_groups * sizeof *min);
}

/* ------------------------------------------------------------ saving ---- */

typedef struct part { const void *data; size_t bytes; } part;

static int state_parts(const tt_block *b, part out[5]) {
    size_t n = (size_t)b->n_params * sizeof(float);
    int parts = 0;
    out[parts++] = (part){&b->c, sizeof b->c};
    out[parts++] = (part){b->p, n};
    out[parts++] = (part){b->best, n};
    if (b->m1) out[parts++] = (part){b->m1, n}, out[parts++] = (part){b->m2, n};
    return parts;
}

tt_status tt__block_save(const tt_block *b, const char *dir, const char *name, tt_err *err) {
    part parts[5];
    int n = state_parts(b, parts);
    char *path;
    tt__writer *w = NULL;
    TT_TRY(tt__raw_path(dir, name, &path, err));
    tt_status st = tt__writer_open(path, 0, &w, err);
    tt__free(path);
    TT_TRY(st);
    st = tt__write(w, MAGIC, sizeof MAGIC, err);
    for (int i = 0; st == TT_OK && i < n; i++) st = tt__write(w, parts[i].data, parts[i].bytes, err);
    if (st == TT_OK) return tt__writer_commit(w, err);
    tt__writer_abort(w);
    return st;
}

tt_status tt__block_load(tt_block *b, const char *dir, const char *name, tt_err *err) {
    part parts[5];
    int n = state_parts(b, parts);
    size_t whole = sizeof MAGIC, at = sizeof MAGIC;
    char magic[sizeof MAGIC];
    counters c;
    for (int i = 0; i < n; i++) whole += parts[i].bytes;
    TT_TRY(tt__raw_read_part(dir, name, 0, magic, sizeof magic, whole, err));
    TT_TRY(tt__raw_read_part(dir, name, at, &c, sizeof c, whole, err));
    bool sane = !memcmp(magic, MAGIC, sizeof magic) && c.step >= 0 && c.step <= b->o.steps + 1 && c.best_step >= 0 && c.best_step <= c.step && c.updates >= 0 &&
                c.updates <= c.step && c.halvings >= 0 && c.halvings <= MAX_HALVINGS && c.rate > 0 && c.rate <= 1;
    TT_FAIL_IF(!sane, err, TT_BADFILE, "state of a block trainer is damaged|%s/%s", dir, name);
    for (int i = 0; i < n; at += parts[i].bytes, i++) TT_TRY(tt__raw_read_part(dir, name, at, (void *)(uintptr_t)parts[i].data, parts[i].bytes, whole, err));
    return TT_OK;
}
