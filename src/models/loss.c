/* The mean loss of a batch and its gradient: with respect to the input rows, and where asked to weights and to learned keys and values.
 *
 *     forward    X0 → layer inputs x_1 … x_L (kept) → final norm and head, a chunk of target rows at a time
 *     loss       CE   -log softmax(z)[target]                         dz = softmax(z) - onehot
 *                KL   Σ_v p_t (log p_t - log p_s)                     dz = (p_s - p_t) / τ     (tuning.md A7.1, temperature τ)
 *                TOPK the same over k tokens and a bucket r           dz = (p_s - p_t) / τ in a token, (p_s,r - p_t,r) u / τ in the rest,
 *                     of all others                                   u the softmax among the rest
 *     backward   dz → head' → norm' → dX (rows without target: 0) → layer L-1 … 0 in place
 *
 * dz is divided by the number of targets of the whole batch, so the gradient is that of the mean over targets; nothing else enters the
 * mean (weights.md 001, "evaluation artefact": positions without a target must not). Logits exist for one chunk only; its size follows
 * from vocabulary and loss, never from threads. What layers keep is the runner's policy: their input always, and what `keep` says.
 */
#include "models/runner.h"
#include <math.h>

enum { LOGIT_BYTES = 32 << 20 };             /* logits alive at a time; a head panel is then decoded for some hundred rows at once */

/* ------------------------------------------------------------------ storage ---- */

/* Layer inputs, kept values and target rows for the largest batch, once. */
static tt_status reserve_layers(tt_runner *r, tt_err *err) {
    uint64_t rows = (uint64_t)r->o.max_rows, d = (uint64_t)r->net->hp.n_embd, L = (uint64_t)r->net->hp.n_layer;
    if (!r->target_rows) TT_TRY(tt__runner_grow(r, &r->target_rows, rows * sizeof(int32_t), "target rows", err));
    if (!r->o.backward || r->layer_x) return TT_OK;
    r->kept_layer = tt__graph_kept_bytes(r->block, r->o.max_rows);
    if (r->kept_layer && !r->kept) TT_TRY(tt__runner_grow(r, &r->kept, L * r->kept_layer, "values kept for backward", err));
    return tt__runner_grow(r, &r->layer_x, (L + 1) * rows * d * sizeof(float), "inputs of the layers", err);
}

static int64_t default_chunk(int64_t vocab, int logit_buffers) {
    int64_t rows = LOGIT_BYTES / ((int64_t)sizeof(float) * vocab * logit_buffers) / 16 * 16;
    return rows < 16 ? 16 : rows > 1024 ? 1024 : rows;
}

/* Logits of a chunk, student's and teacher's. Between forward and backward the block's workspace is idle, so they lie there when they fit. */
static uint64_t logit_bytes(int64_t rows, int64_t vocab, bool kl) { return (uint64_t)rows * (uint64_t)vocab * (kl ? 2 : 1) * sizeof(float); }

static tt_status reserve_chunk(tt_runner *r, int64_t rows, int64_t vocab, bool kl, float **logits, tt_err *err) {
    uint64_t need = logit_bytes(rows, vocab, kl), row_bytes = (uint64_t)r->net->hp.n_embd * sizeof(float);
    if (rows > r->chunk_rows) {
        r->bytes -= 2 * (uint64_t)r->chunk_rows * row_bytes;
        r->chunk_rows = 0;
        TT_TRY(tt__runner_grow(r, &r->rows_x, (uint64_t)rows * row_bytes, "rows of a chunk", err));
        TT_TRY(tt__runner_grow(r, &r->rows_d, (uint64_t)rows * row_bytes, "rows of a chunk", err));
        r->chunk_rows = rows;
    }
    *logits = r->workspace;
    if (need <= tt__graph_workspace(r->block)) return TT_OK;
    if (need > r->logit_bytes) {
        TT_TRY(tt__runner_grow(r, &r->logits, need, "logits of a chunk", err));
        r->bytes -= r->logit_bytes;
        r->logit_bytes = need;
    }
    *logits = r->logits;
    return TT_OK;
}

uint64_t tt__runner_loss_bytes(const tt_runner *r, bool kl) {
    uint64_t rows = (uint64_t)r->o.max_rows, d = (uint64_t)r->net->hp.n_embd, L = (uint64_t)r->net->hp.n_layer;
    int64_t V = r->ops[r->net->output]->rows, chunk = default_chunk(V, kl ? 2 : 1);
    uint64_t logits = logit_bytes(chunk, V, kl);
    return rows * sizeof(int32_t) + L * tt__graph_kept_bytes(r->block, r->o.max_rows) + ((L + 1) * rows * d + 2 * (uint64_t)chunk * d) * sizeof(float)
           + (logits <= tt__graph_workspace(r->block) ? 0 : logits);
}

/* ------------------------------------------------------------------ one row of logits ---- */

typedef struct chunk {
    const tt_kernels *k;
    float *z, *zt;                            /* [rows, V] logits, on return dz; the teacher's */
    const int32_t *row, *target;              /* row of the batch; its target */
    float *row_loss;                          /* by row of the batch, or NULL */
    double *loss;                             /* [rows] of the chunk */
    int64_t V;
    float scale;                              /* 1 / targets of the batch; 0: no gradient */
    float sharp;                              /* 1 / temperature */
    const tt_loss *top; int64_t top_at;       /* TOPK: the spec; index of the chunk's first row among the targets */
    float *top_z;                             /* [rows, k] */
} chunk;

static double ce_row(const chunk *c, float *z, int32_t target) {
    float max;
    double sum = c->k->softmax_stats_f32(z, c->V, &max), loss = (double)max + log(sum) - (double)z[target];
    if (c->scale != 0) {
        c->k->softmax_apply_f32(z, z, c->V, max, (float)((double)c->scale / sum));
        z[target] -= c->scale;
    }
    return loss;
}

static void sharpen(float *z, int64_t n, float by) {
    for (int64_t i = 0; by != 1 && i < n; i++) z[i] *= by;
}

/* With a = max + log Σ exp(z - max):  KL = Σ p_t (z_t - z_s) + a_s - a_t, the differences taken before they are weighed. */
static double kl_row(const chunk *c, float *z, float *zt) {
    enum { PIECE = 1024 };
    float max, max_t, diff[PIECE];
    sharpen(z, c->V, c->sharp);
    sharpen(zt, c->V, c->sharp);
    double sum = c->k->softmax_stats_f32(z, c->V, &max), sum_t = c->k->softmax_stats_f32(zt, c->V, &max_t);
    double loss = ((double)max - (double)max_t) + (log(sum) - log(sum_t));
    for (int64_t i = 0; i < c->V; i += PIECE) {
        int64_t n = c->V - i < PIECE ? c->V - i : PIECE;
        for (int64_t j = 0; j < n; j++) diff[j] = zt[i + j] - z[i + j];
        c->k->softmax_apply_f32(zt + i, zt + i, n, max_t, (float)(1 / sum_t));
        loss += (double)c->k->dot_f32(zt + i, diff, n);
    }
    if (c->scale != 0) {
        const float scale = c->scale * c->sharp;
        c->k->softmax_apply_f32(z, z, c->V, max, (float)((double)scale / sum));
        c->k->axpy_f32(z, -scale, zt, c->V);
    }
    return loss;
}

/* The k tokens are taken out of z (-inf there), so that the softmax of what is left is that of the rest; with a = log Σ exp of either,
 * log q_i = z_i - a and log q_rest = a_rest - a. Nothing is a difference of nearly equal masses. */
static double topk_row(const chunk *c, float *z, int64_t i) {
    const int64_t k = c->top->k, at = (c->top_at + i) * k;
    const int32_t *id = c->top->top_id + at;
    const float *logp = c->top->top_logp + at, rest_logp = c->top->rest_logp[c->top_at + i];
    float *top = c->top_z + i * k, max_rest, max_top;
    sharpen(z, c->V, c->sharp);
    for (int64_t j = 0; j < k; j++) top[j] = z[id[j]];
    for (int64_t j = 0; j < k; j++) z[id[j]] = -INFINITY;
    const double sum_top = c->k->softmax_stats_f32(top, k, &max_top), sum_rest = k < c->V ? c->k->softmax_stats_f32(z, c->V, &max_rest) : 0;
    const double a_top = (double)max_top + log(sum_top), a_rest = k < c->V ? (double)max_rest + log(sum_rest) : -INFINITY;
    const double high = a_top > a_rest ? a_top : a_rest, a = high + log(exp(a_top - high) + exp(a_rest - high));
    const double p_rest = exp((double)rest_logp), scale = (double)c->scale * (double)c->sharp;
    double loss = p_rest > 0 ? p_rest * ((double)rest_logp - (a_rest - a)) : 0;
    for (int64_t j = 0; j < k; j++) loss += exp((double)logp[j]) * ((double)logp[j] - ((double)top[j] - a));
    if (c->scale == 0) return loss;
    if (k < c->V) c->k->softmax_apply_f32(z, z, c->V, max_rest, (float)(scale * (exp(a_rest - a) - p_rest) / sum_rest));
    for (int64_t j = 0; j < k; j++) z[id[j]] = (float)(scale * (exp((double)top[j] - a) - exp((double)logp[j])));
    return loss;
}

static void loss_row(void *arg, int64_t i, int worker) {
    const chunk *c = arg;
    (void)worker;
    float *z = c->z + i * c->V;
    c->loss[i] = c->zt ? kl_row(c, z, c->zt + i * c->V) : c->top ? topk_row(c, z, i) : ce_row(c, z, c->target[c->row[i]]);
    if (c->row_loss) c->row_loss[c->row[i]] = (float)c->loss[i];
}

/* ------------------------------------------------------------------ the head, chunk by chunk ---- */

typedef struct head_job {
    const tt_loss *spec;
    const float *X;                           /* [rows, d] output of the last layer */
    float *dX;                                /* gradient of it, zeroed; or NULL */
    float *row_loss, *logits;                 /* logits: of a chunk, the teacher's behind the student's */
    float *top_z;                             /* [chunk, k] of TOPK */
    const tt_train_hooks *hooks;              /* or NULL */
    int64_t targets, vocab;
    double sum;
} head_job;

typedef struct gather_args { const tt_runner *r; const float *X; const int32_t *row; float *out; float *dX; const float *d; } gather_args;

static void gather_rows(const void *arg, int64_t r0, int64_t r1) {
    const gather_args *a = arg;
    int64_t d = a->r->net->hp.n_embd;
    for (int64_t i = r0; i < r1; i++)
        a->r->ctx->k->rmsnorm_f32(a->out + i * d, a->X + a->row[i] * d, a->r->vecs[a->r->net->output_norm], a->r->net->hp.rms_eps, d);
}

static void scatter_rows(const void *arg, int64_t r0, int64_t r1) {
    const gather_args *a = arg;
    int64_t d = a->r->net->hp.n_embd;
    for (int64_t i = r0; i < r1; i++)
        a->r->ctx->k->rmsnorm_bwd_f32(a->dX + a->row[i] * d, a->X + a->row[i] * d, a->r->vecs[a->r->net->output_norm], a->d + i * d, a->r->net->hp.rms_eps, d);
}

static void logits_of(tt_ctx *ctx, const tt_linop *head, const float *H, int64_t n, bool bf16, float *z) {
    tt_act act;
    tt__act_prepare(ctx, &act, H, head->cols, n, head->cols, false, NULL);
    act.bf16 = bf16;
    tt__linop_apply(ctx, head, &act, z, head->rows);
}

/* Where the gain's gradient goes; NULL: nowhere. */
static float *gain_gradient(const tt_train_hooks *h, size_t weight) { return h && h->vector ? h->vector(h->user, weight) : NULL; }
static bool matrix_wanted(const tt_train_hooks *h, size_t weight) { return h && h->wants && h->wants(h->user, weight); }

/* Of the head, from the normed rows and dz; of the final gain, from dz W, x̂ = x / rms being (normed row) / gain: taken from x itself. */
static void head_gradients(tt_runner *r, const head_job *j, const float *dz, int64_t at, int64_t n) {
    const tt_train_hooks *h = j->hooks;
    int64_t d = r->net->hp.n_embd;
    float *dgain = gain_gradient(h, r->net->output_norm);
    if (matrix_wanted(h, r->net->output)) h->matrix(h->user, r->net->output, r->rows_x, d, dz, j->vocab, n);
    if (!dgain) return;
    for (int64_t i = 0; i < n; i++) memcpy(r->rows_x + i * d, j->X + r->target_rows[at + i] * d, (size_t)d * sizeof(float));
    tt__rmsnorm_gain(r->ctx, r->rows_x, d, r->rows_d, d, n, d, r->net->hp.rms_eps, dgain);
}

static void head_chunk(tt_runner *r, head_job *j, int64_t at, int64_t n, double *loss) {
    const tt_linop *head = r->ops[r->net->output];
    int64_t d = r->net->hp.n_embd;
    bool kl = j->spec->kind == TT_LOSS_KL;
    float *z = j->logits, *zt = kl ? z + n * j->vocab : NULL;
    gather_args g = {r, j->X, r->target_rows + at, r->rows_x, j->dX, r->rows_d};
    tt__over_rows(r->ctx, n, d, gather_rows, &g);
    logits_of(r->ctx, head, r->rows_x, n, r->bf16, z);
    if (kl) logits_of(r->ctx, j->spec->teacher_head, j->spec->teacher_H + at * j->spec->teacher_head->cols, n, r->bf16, zt);
    chunk c = {.k = r->ctx->k, .z = z, .zt = zt, .row = r->target_rows + at, .target = j->spec->target, .row_loss = j->row_loss, .loss = loss,
               .V = j->vocab, .scale = j->dX ? (float)(1 / (double)j->targets) : 0,
               .sharp = j->spec->kind != TT_LOSS_CE && j->spec->temperature > 0 ? 1 / j->spec->temperature : 1,
               .top = j->spec->kind == TT_LOSS_TOPK ? j->spec : NULL, .top_at = at, .top_z = j->top_z};
    tt__parallel(r->ctx, n, loss_row, &c);
    for (int64_t i = 0; i < n; i++) j->sum += loss[i];
    if (!j->dX) return;
    tt__linop_apply_t(r->ctx, head, z, j->vocab, n, r->rows_d, d, false, r->bf16);
    tt__over_rows(r->ctx, n, d, scatter_rows, &g);
    head_gradients(r, j, z, at, n);
}

static tt_status run_head(tt_runner *r, head_job *j, tt_err *err) {
    bool kl = j->spec->kind == TT_LOSS_KL;
    int64_t step = j->spec->chunk_rows > 0 ? j->spec->chunk_rows : default_chunk(j->vocab, kl ? 2 : 1);
    double *loss;
    TT_TRY(reserve_chunk(r, step, j->vocab, kl, &j->logits, err));
    TT_TRY(tt__new(&loss, (size_t)step, sizeof *loss, "losses of a chunk", err));
    tt_status st = TT_OK;
    if (j->spec->kind == TT_LOSS_TOPK) st = tt__new(&j->top_z, (size_t)(step * j->spec->k), sizeof *j->top_z, "logits of a chunk", err);
    for (int64_t at = 0; at < j->targets && st == TT_OK; at += step) {
        head_chunk(r, j, at, j->targets - at < step ? j->targets - at : step, loss);
        st = tt__check_cancel(r->ctx, err);
    }
    tt__free(j->top_z);
    tt__free(loss);
    return st;
}

/* ------------------------------------------------------------------ the layers ---- */

static float *layer_input(const tt_runner *r, int64_t layer) { return r->layer_x + layer * r->o.max_rows * r->net->hp.n_embd; }
static uint8_t *layer_kept(const tt_runner *r, int64_t layer) { return r->kept ? r->kept + (uint64_t)layer * r->kept_layer : NULL; }

/* What a batch is: its rows, and what trains beside dX0. */
typedef struct batch { int64_t P_rows, S, T; const tt_train_hooks *hooks; const tt_train_prefix *prefix; int64_t lowest; } batch;

/* env of a layer; *kv is where the learned prefix is described. */
static tt_env batch_env(const tt_runner *r, const batch *b, int64_t l, tt_kvview *kv) {
    const tt_train_prefix *p = b->prefix;
    tt_env env = tt__runner_env(r, (int)l, b->P_rows, b->S, b->T, p ? p->P : b->P_rows);
    env.fast = false;
    env.hooks = b->hooks;
    if (!p) return env;
    const int64_t at = l * p->P * r->net->hp.n_head_kv * r->net->hp.head_dim;
    *kv = (tt_kvview){.P = p->P, .p_type = TT_KV_F32, .pk = p->k + at, .pv = p->v + at, .dpk = p->dk ? p->dk + at : NULL, .dpv = p->dv ? p->dv + at : NULL};
    env.kv = kv;
    return env;
}

static tt_status forward(tt_runner *r, const batch *b, bool keep, const float **X, tt_err *err) {
    int64_t L = r->net->hp.n_layer;
    tt_kvview kv;
    for (int64_t l = 0; l < L; l++) {
        tt_env env = batch_env(r, b, l, &kv);
        TT_TRY(tt__check_cancel(r->ctx, err));
        TT_TRY(tt__runner_layer(r, &env, keep ? layer_input(r, l) : r->X, keep ? layer_input(r, l + 1) : r->X, keep ? layer_kept(r, l) : NULL, err));
    }
    *X = keep ? layer_input(r, L) : r->X;
    return TT_OK;
}

static tt_status backward(tt_runner *r, const batch *b, float *dX, tt_err *err) {
    int64_t d = r->net->hp.n_embd;
    tt_kvview kv;
    TT_TRY(tt__graph_bind(r->block, "d:y", dX, d, err));
    TT_TRY(tt__graph_bind(r->block, "d:x", dX, d, err));
    for (int64_t l = r->net->hp.n_layer - 1; l >= b->lowest; l--) {
        tt_env env = batch_env(r, b, l, &kv);
        TT_TRY(tt__check_cancel(r->ctx, err));
        TT_TRY(tt__graph_bind(r->block, "x", layer_input(r, l), d, err));
        TT_TRY(tt__graph_backprop(r->block, &env, r->workspace, layer_kept(r, l), err));
    }
    return TT_OK;
}

/* The lowest layer with a gradient that somebody wants; n_layer: none. */
static int64_t lowest_layer(const tt_runner *r, const batch *b, bool rows) {
    const tt_net *net = r->net;
    int64_t l = 0;
    if (rows || (b->prefix && (b->prefix->dk || b->prefix->dv))) return 0;
    for (; l < net->hp.n_layer; l++)
        for (size_t i = net->layer_first[l]; i < net->layer_first[l + 1]; i++)
            if (net->weights[i].vector ? gain_gradient(b->hooks, i) != NULL : matrix_wanted(b->hooks, i)) return l;
    return l;
}

static tt_status check_top(const tt_loss *spec, int64_t targets, int64_t V, tt_err *err) {
    TT_FAIL_IF(spec->k < 1 || spec->k > V || !spec->top_id || !spec->top_logp || !spec->rest_logp, err, TT_USAGE, "this loss needs a teacher's cached logits");
    for (int64_t i = 0; i < targets * spec->k; i++)
        TT_FAIL_IF(spec->top_id[i] < 0 || spec->top_id[i] >= V, err, TT_USAGE, "token of the cached logits out of range|row %lld|%d|0 … %lld", (long long)(i / spec->k),
                   (int)spec->top_id[i], (long long)V - 1);
    return TT_OK;
}

static tt_status check_spec(const tt_runner *r, const tt_loss *spec, tt_err *err) {
    int64_t V = r->ops[r->net->output]->rows;
    if (spec->kind == TT_LOSS_KL) {
        TT_FAIL_IF(!spec->teacher_H || !spec->teacher_head, err, TT_USAGE, "this loss needs a teacher");
        TT_FAIL_IF(spec->teacher_head->rows != V, err, TT_USAGE, "teacher has another vocabulary||%lld tokens|%lld", (long long)spec->teacher_head->rows, (long long)V);
    }
    return TT_OK;
}

static tt_status check_batch(const tt_runner *r, const batch *b, bool gradient, tt_err *err) {
    int64_t rows = b->P_rows + b->S * b->T;
    TT_FAIL_IF(gradient && !r->o.backward, err, TT_USAGE, "runner was made without gradients");
    TT_FAIL_IF(b->hooks && !r->o.weights, err, TT_USAGE, "runner was made without gradients of weights");
    TT_FAIL_IF(b->prefix && b->P_rows, err, TT_USAGE, "prefix rows and learned keys in one batch");
    TT_FAIL_IF(rows < 1 || rows > r->o.max_rows, err, TT_USAGE, "batch does not fit the runner||%lld rows|1 … %lld", (long long)rows, (long long)r->o.max_rows);
    return TT_OK;
}

static tt_status find_targets(tt_runner *r, const tt_loss *spec, int64_t rows, int64_t *n, tt_err *err) {
    int64_t V = r->ops[r->net->output]->rows;
    *n = 0;
    for (int64_t i = 0; i < rows; i++) {
        TT_FAIL_IF(spec->target[i] >= V, err, TT_USAGE, "target out of range|row %lld|%d|-1 … %lld", (long long)i, (int)spec->target[i], (long long)V - 1);
        if (spec->target[i] >= 0) r->target_rows[(*n)++] = (int32_t)i;
    }
    TT_FAIL_IF(*n == 0, err, TT_USAGE, "no row has a target");
    return spec->kind == TT_LOSS_TOPK ? check_top(spec, *n, V, err) : TT_OK;
}

/* Scratch of the workers for the batch, and for what hooks do with the weights they want. */
static tt_status reserve_scratch(tt_runner *r, int64_t T, int64_t P, const tt_train_hooks *hooks, size_t first, size_t end, tt_err *err) {
    TT_TRY(tt__runner_ready(r, T > P ? T : P, P, 0, err));
    for (size_t i = first; i < end; i++)
        if (!r->net->weights[i].vector && matrix_wanted(hooks, i)) TT_TRY(tt__scratch_reserve(r->ctx, tt__linop_grad_scratch(r->ctx, r->ops[i]), err));
    return TT_OK;
}

tt_status tt__run_loss_train(tt_runner *r, int64_t P_rows, int64_t S, int64_t T, const float *X0, const tt_loss *spec, const tt_train_hooks *hooks,
                             const tt_train_prefix *prefix, double *loss, float *row_loss, float *dX0, tt_err *err) {
    batch b = {.P_rows = P_rows, .S = S, .T = T, .hooks = hooks, .prefix = prefix};
    bool gradient = dX0 || hooks || (prefix && (prefix->dk || prefix->dv));
    int64_t rows = P_rows + S * T, d = r->net->hp.n_embd;
    head_job j = {.spec = spec, .dX = !gradient ? NULL : dX0 ? dX0 : r->X, .row_loss = row_loss, .hooks = hooks, .vocab = r->ops[r->net->output]->rows};
    TT_TRY(check_spec(r, spec, err));
    TT_TRY(check_batch(r, &b, gradient, err));
    TT_TRY(reserve_layers(r, err));
    TT_TRY(find_targets(r, spec, rows, &j.targets, err));
    TT_TRY(reserve_scratch(r, T, prefix ? prefix->P : P_rows, hooks, 0, r->net->n_weights, err));
    if (spec->teacher_head) TT_TRY(tt__scratch_reserve(r->ctx, tt__linop_scratch(r->ctx, spec->teacher_head), err));
    if (row_loss) memset(row_loss, 0, (size_t)rows * sizeof(float));
    memcpy(gradient ? layer_input(r, 0) : r->X, X0, (size_t)(rows * d) * sizeof(float));
    TT_TRY(forward(r, &b, gradient, &j.X, err));
    if (gradient) memset(j.dX, 0, (size_t)(rows * d) * sizeof(float));
    TT_TRY(run_head(r, &j, err));
    *loss = j.sum / (double)j.targets;
    if (!gradient) return TT_OK;
    b.lowest = lowest_layer(r, &b, dX0 != NULL);
    return backward(r, &b, j.dX, err);
}

tt_status tt__run_loss(tt_runner *r, int64_t P_rows, int64_t S, int64_t T, const float *X0, const tt_loss *spec, double *loss,
                       float *row_loss, float *dX0, tt_err *err) {
    return tt__run_loss_train(r, P_rows, S, T, X0, spec, NULL, NULL, loss, row_loss, dX0, err);
}

/* ------------------------------------------------------------------ one block against its target ---- */

typedef struct square_args { const float *out, *Y, *weight; float *d; double *sum; int64_t cols; double scale; } square_args;

/* Per row the sum of squares, and the gradient 2 w (out - Y) scale. */
static void square_rows(const void *arg, int64_t r0, int64_t r1) {
    const square_args *a = arg;
    for (int64_t r = r0; r < r1; r++) {
        const float *y = a->out + r * a->cols, *t = a->Y + r * a->cols, w = a->weight ? a->weight[r] : 1, g = (float)(2 * (double)w * a->scale);
        double sum = 0;
        for (int64_t c = 0; c < a->cols; c++) {
            const float e = y[c] - t[c];
            sum += (double)e * (double)e;
            a->d[r * a->cols + c] = g * e;
        }
        a->sum[r] = w != 0 ? (double)w * sum : 0;
    }
}

static tt_status reserve_block(tt_runner *r, tt_err *err) {
    uint64_t rows = (uint64_t)r->o.max_rows, kept = tt__graph_kept_bytes(r->block, r->o.max_rows);
    if (!r->block_d) TT_TRY(tt__runner_grow(r, &r->block_d, rows * (uint64_t)r->net->hp.n_embd * sizeof(float), "gradients of a block", err));
    if (!r->row_sum) TT_TRY(tt__runner_grow(r, &r->row_sum, rows * sizeof *r->row_sum, "losses of rows", err));
    if (kept && r->o.backward && !r->block_kept) TT_TRY(tt__runner_grow(r, &r->block_kept, kept, "values kept for backward", err));
    return TT_OK;
}

static tt_status weight_sum(const float *w, int64_t rows, double *sum, tt_err *err) {
    *sum = w ? 0 : (double)rows;
    for (int64_t i = 0; w && i < rows; i++) *sum += (double)w[i];
    TT_FAIL_IF(!(*sum > 0), err, TT_USAGE, "no row has a weight");
    return TT_OK;
}

tt_status tt__run_block_loss(tt_runner *r, int layer, int64_t S, int64_t T, const float *X, const float *Y, const float *row_weight,
                             const tt_train_hooks *hooks, double *loss, float *out, tt_err *err) {
    batch b = {.S = S, .T = T, .hooks = hooks};
    int64_t rows = S * T, d = r->net->hp.n_embd;
    double weights;
    TT_TRY(check_batch(r, &b, hooks != NULL, err));
    TT_TRY(weight_sum(row_weight, rows, &weights, err));
    TT_TRY(reserve_block(r, err));
    TT_TRY(reserve_scratch(r, T, 0, hooks, r->net->layer_first[layer], r->net->layer_first[layer + 1], err));
    tt_env env = batch_env(r, &b, layer, NULL);
    TT_TRY(tt__runner_layer(r, &env, (float *)(uintptr_t)X, out, hooks ? r->block_kept : NULL, err));
    square_args a = {out, Y, row_weight, r->block_d, r->row_sum, d, 1 / (weights * (double)d)};
    tt__over_rows(r->ctx, rows, d, square_rows, &a);
    *loss = 0;
    for (int64_t i = 0; i < rows; i++) *loss += r->row_sum[i];
    *loss *= a.scale;
    if (!hooks) return TT_OK;
    TT_TRY(tt__graph_bind(r->block, "d:y", r->block_d, d, err));
    TT_TRY(tt__graph_bind(r->block, "d:x", r->block_d, d, err));
    return tt__graph_backprop(r->block, &env, r->workspace, r->block_kept, err);
}
