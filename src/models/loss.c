/* The mean loss of a batch and its gradient with respect to the input rows, through frozen weights.
 *
 *     forward    X0 → layer inputs x_1 … x_L (kept) → final norm and head, a chunk of target rows at a time
 *     loss       CE   -log softmax(z)[target]                         dz = softmax(z) - onehot
 *                KL   Σ_v p_t (log p_t - log p_s)                     dz = p_s - p_t           (tuning.md A7.1, temperature 1)
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

static tt_status grow(tt_runner *r, void *p, uint64_t bytes, const char *what, tt_err *err) {
    void **at = p, *q = tt__alloc((size_t)bytes);
    TT_FAIL_IF(!q, err, TT_RESOURCE, "out of memory|for %s|%llu bytes", what, (unsigned long long)bytes);
    tt__free(*at);
    *at = q;
    r->bytes += bytes;
    return TT_OK;
}

/* Layer inputs, kept values and target rows for the largest batch, once. */
static tt_status reserve_layers(tt_runner *r, tt_err *err) {
    uint64_t rows = (uint64_t)r->o.max_rows, d = (uint64_t)r->net->hp.n_embd, L = (uint64_t)r->net->hp.n_layer;
    if (!r->target_rows) TT_TRY(grow(r, &r->target_rows, rows * sizeof(int32_t), "target rows", err));
    if (!r->o.backward || r->layer_x) return TT_OK;
    r->kept_layer = tt__graph_kept_bytes(r->block, r->o.max_rows);
    if (r->kept_layer && !r->kept) TT_TRY(grow(r, &r->kept, L * r->kept_layer, "values kept for backward", err));
    return grow(r, &r->layer_x, (L + 1) * rows * d * sizeof(float), "inputs of the layers", err);
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
        TT_TRY(grow(r, &r->rows_x, (uint64_t)rows * row_bytes, "rows of a chunk", err));
        TT_TRY(grow(r, &r->rows_d, (uint64_t)rows * row_bytes, "rows of a chunk", err));
        r->chunk_rows = rows;
    }
    *logits = r->workspace;
    if (need <= tt__graph_workspace(r->block)) return TT_OK;
    if (need > r->logit_bytes) {
        TT_TRY(grow(r, &r->logits, need, "logits of a chunk", err));
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

/* With a = max + log Σ exp(z - max):  KL = Σ p_t (z_t - z_s) + a_s - a_t, the differences taken before they are weighed. */
static double kl_row(const chunk *c, float *z, float *zt) {
    enum { PIECE = 1024 };
    float max, max_t, diff[PIECE];
    double sum = c->k->softmax_stats_f32(z, c->V, &max), sum_t = c->k->softmax_stats_f32(zt, c->V, &max_t);
    double loss = ((double)max - (double)max_t) + (log(sum) - log(sum_t));
    for (int64_t i = 0; i < c->V; i += PIECE) {
        int64_t n = c->V - i < PIECE ? c->V - i : PIECE;
        for (int64_t j = 0; j < n; j++) diff[j] = zt[i + j] - z[i + j];
        c->k->softmax_apply_f32(zt + i, zt + i, n, max_t, (float)(1 / sum_t));
        loss += (double)c->k->dot_f32(zt + i, diff, n);
    }
    if (c->scale != 0) {
        c->k->softmax_apply_f32(z, z, c->V, max, (float)((double)c->scale / sum));
        c->k->axpy_f32(z, -c->scale, zt, c->V);
    }
    return loss;
}

static void loss_row(void *arg, int64_t i, int worker) {
    const chunk *c = arg;
    (void)worker;
    float *z = c->z + i * c->V;
    c->loss[i] = c->zt ? kl_row(c, z, c->zt + i * c->V) : ce_row(c, z, c->target[c->row[i]]);
    if (c->row_loss) c->row_loss[c->row[i]] = (float)c->loss[i];
}

/* ------------------------------------------------------------------ the head, chunk by chunk ---- */

typedef struct head_job {
    const tt_loss *spec;
    const float *X;                           /* [rows, d] output of the last layer */
    float *dX;                                /* gradient of it, zeroed; or NULL */
    float *row_loss, *logits;                 /* logits: of a chunk, the teacher's behind the student's */
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

static void head_chunk(tt_runner *r, head_job *j, int64_t at, int64_t n, double *loss) {
    const tt_linop *head = r->ops[r->net->output];
    int64_t d = r->net->hp.n_embd;
    bool kl = j->spec->kind == TT_LOSS_KL;
    float *z = j->logits, *zt = kl ? z + n * j->vocab : NULL;
    gather_args g = {r, j->X, r->target_rows + at, r->rows_x, j->dX, r->rows_d};
    tt__over_rows(r->ctx, n, d, gather_rows, &g);
    logits_of(r->ctx, head, r->rows_x, n, r->bf16, z);
    if (kl) logits_of(r->ctx, j->spec->teacher_head, j->spec->teacher_H + at * j->spec->teacher_head->cols, n, r->bf16, zt);
    chunk c = {r->ctx->k, z, zt, r->target_rows + at, j->spec->target, j->row_loss, loss, j->vocab,
               j->dX ? (float)(1 / (double)j->targets) : 0};
    tt__parallel(r->ctx, n, loss_row, &c);
    for (int64_t i = 0; i < n; i++) j->sum += loss[i];
    if (!j->dX) return;
    tt__linop_apply_t(r->ctx, head, z, j->vocab, n, r->rows_d, d, false, r->bf16);
    tt__over_rows(r->ctx, n, d, scatter_rows, &g);
}

static tt_status run_head(tt_runner *r, head_job *j, tt_err *err) {
    bool kl = j->spec->kind == TT_LOSS_KL;
    int64_t step = j->spec->chunk_rows > 0 ? j->spec->chunk_rows : default_chunk(j->vocab, kl ? 2 : 1);
    double *loss;
    TT_TRY(reserve_chunk(r, step, j->vocab, kl, &j->logits, err));
    TT_TRY(tt__new(&loss, (size_t)step, sizeof *loss, "losses of a chunk", err));
    tt_status st = TT_OK;
    for (int64_t at = 0; at < j->targets && st == TT_OK; at += step) {
        head_chunk(r, j, at, j->targets - at < step ? j->targets - at : step, loss);
        st = tt__check_cancel(r->ctx, err);
    }
    tt__free(loss);
    return st;
}

/* ------------------------------------------------------------------ the layers ---- */

static float *layer_input(const tt_runner *r, int64_t layer) { return r->layer_x + layer * r->o.max_rows * r->net->hp.n_embd; }
static uint8_t *layer_kept(const tt_runner *r, int64_t layer) { return r->kept ? r->kept + (uint64_t)layer * r->kept_layer : NULL; }

static tt_status forward(tt_runner *r, int64_t P_rows, int64_t S, int64_t T, bool keep, const float **X, tt_err *err) {
    int64_t L = r->net->hp.n_layer;
    for (int64_t l = 0; l < L; l++) {
        tt_env env = tt__runner_env(r, (int)l, P_rows, S, T, P_rows);
        env.fast = false;
        TT_TRY(tt__check_cancel(r->ctx, err));
        TT_TRY(tt__runner_layer(r, &env, keep ? layer_input(r, l) : r->X, keep ? layer_input(r, l + 1) : r->X, keep ? layer_kept(r, l) : NULL, err));
    }
    *X = keep ? layer_input(r, L) : r->X;
    return TT_OK;
}

static tt_status backward(tt_runner *r, int64_t P_rows, int64_t S, int64_t T, float *dX, tt_err *err) {
    int64_t d = r->net->hp.n_embd;
    TT_TRY(tt__graph_bind(r->block, "d:y", dX, d, err));
    TT_TRY(tt__graph_bind(r->block, "d:x", dX, d, err));
    for (int64_t l = r->net->hp.n_layer - 1; l >= 0; l--) {
        tt_env env = tt__runner_env(r, (int)l, P_rows, S, T, P_rows);
        env.fast = false;
        TT_TRY(tt__check_cancel(r->ctx, err));
        TT_TRY(tt__graph_bind(r->block, "x", layer_input(r, l), d, err));
        TT_TRY(tt__graph_backprop(r->block, &env, r->workspace, layer_kept(r, l), err));
    }
    return TT_OK;
}

static tt_status check_spec(const tt_runner *r, const tt_loss *spec, const float *dX0, tt_err *err) {
    int64_t V = r->ops[r->net->output]->rows;
    TT_FAIL_IF(dX0 && !r->o.backward, err, TT_USAGE, "runner was made without gradients");
    if (spec->kind == TT_LOSS_KL) {
        TT_FAIL_IF(!spec->teacher_H || !spec->teacher_head, err, TT_USAGE, "this loss needs a teacher");
        TT_FAIL_IF(spec->teacher_head->rows != V, err, TT_USAGE, "teacher has another vocabulary||%lld tokens|%lld", (long long)spec->teacher_head->rows, (long long)V);
    }
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
    return TT_OK;
}

tt_status tt__run_loss(tt_runner *r, int64_t P_rows, int64_t S, int64_t T, const float *X0, const tt_loss *spec, double *loss,
                       float *row_loss, float *dX0, tt_err *err) {
    int64_t rows = P_rows + S * T, d = r->net->hp.n_embd;
    head_job j = {.spec = spec, .dX = dX0, .row_loss = row_loss, .vocab = r->ops[r->net->output]->rows};
    TT_TRY(check_spec(r, spec, dX0, err));
    TT_FAIL_IF(rows < 1 || rows > r->o.max_rows, err, TT_USAGE, "batch does not fit the runner||%lld rows|1 … %lld", (long long)rows, (long long)r->o.max_rows);
    TT_TRY(reserve_layers(r, err));
    TT_TRY(find_targets(r, spec, rows, &j.targets, err));
    TT_TRY(tt__runner_ready(r, T > P_rows ? T : P_rows, P_rows, 0, err));
    if (spec->teacher_head) TT_TRY(tt__scratch_reserve(r->ctx, tt__linop_scratch(r->ctx, spec->teacher_head), err));
    if (row_loss) memset(row_loss, 0, (size_t)rows * sizeof(float));
    memcpy(dX0 ? layer_input(r, 0) : r->X, X0, (size_t)(rows * d) * sizeof(float));
    TT_TRY(forward(r, P_rows, S, T, dX0 != NULL, &j.X, err));
    if (dX0) memset(dX0, 0, (size_t)(rows * d) * sizeof(float));
    TT_TRY(run_head(r, &j, err));
    *loss = j.sum / (double)j.targets;
    return dX0 ? backward(r, P_rows, S, T, dX0, err) : TT_OK;
}
