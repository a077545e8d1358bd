/* See calib.h. Files in the folder: "hidden.L.B" and "dense.L.B" f32 rows of batch B as layer L reads them in the two streams, "sum.TAG.I"
 * and "cross.TAG.I" the sums of input I. Layer 0 reads the embedding, which is made anew. */
#include "train/calib.h"

#include "base/file.h"
#include "base/util.h"
#include "kernels/gemm.h"
#include "models/runner.h"
#include "train/rawfile.h"
#include <math.h>
#include <stdio.h>

enum { BATCH_ROWS = 2048, BATCH_FLOATS = 64 << 20 };

int64_t tt__calib_row(const tt_net *net) { return 8 * net->hp.n_embd + 4 * net->hp.n_ff; }

/* Rows enough for full speed, but a wide block's values must not weigh more than its Hessians. */
int64_t tt__calib_batch(const tt_net *net, int64_t length) {
    int64_t rows = BATCH_FLOATS / tt__calib_row(net);
    if (rows > BATCH_ROWS) rows = BATCH_ROWS;
    return length >= rows ? 1 : rows / length;
}

int64_t tt__calib_input(const tt_net *net, int id) {
    for (size_t i = net->layer_first[0]; net->hp.n_layer && i < net->layer_first[1]; i++)
        if (net->weights[i].linear && net->weights[i].input == id) return net->weights[i].cols;
    return 0;
}

tt_status tt__calib_create(tt_ctx *ctx, const tt_net *net, const tt_calib_options *o, tt_calib **out, tt_err *err) {
    tt_calib *c = NULL;
    *out = NULL;
    TT_TRY(tt__new(&c, 1, sizeof *c, "calibration", err));
    *c = (tt_calib){.ctx = ctx, .net = net, .ids = o->ids, .samples = o->samples, .length = o->length, .width = net->hp.n_embd, .full = o->full,
                    .in_memory = o->in_memory, .dense = o->dense || o->cross, .cross = o->cross && o->full};
    c->batch = tt__calib_batch(net, o->length);
    c->n_batches = (o->samples + c->batch - 1) / c->batch;
    for (int i = 0; i < TT_CALIB_INPUTS; i++) c->n[i] = tt__calib_input(net, i);
    if (o->head) c->n[TT_CALIB_HEAD] = c->width;
    tt_runner_options r = {.max_rows = c->batch * c->length};
    tt_status st;
    c->dir = tt__strdup(o->dir);
    if (!c->dir) {
        st = tt__fail(err, TT_RESOURCE, "out of memory|a path");
        goto done;
    }
    TT_TRY_GOTO(tt__runner_create(ctx, net, &r, &c->runner, err));
    TT_TRY_GOTO(tt__new(&c->X, (size_t)(r.max_rows * c->width), sizeof *c->X, "a calibration batch", err));
    TT_TRY_GOTO(tt__new(&c->op, net->n_weights, sizeof *c->op, "operators", err));
    for (int s = 0; s < (c->dense ? TT_STREAMS : 1) && c->in_memory; s++)
        TT_TRY_GOTO(tt__new(&c->hidden[s], (size_t)(tt__calib_tokens(c) * c->width), sizeof *c->hidden[s], "hidden states", err));
    *out = c;
    return TT_OK;
done:
    tt__calib_free(c);
    return st;
}

void tt__calib_free(tt_calib *c) {
    if (!c) return;
    tt__runner_free(c->runner);
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        tt__free(c->sum[i]);
        tt__free(c->moment[i]);
        tt__free(c->taken[i]);
    }
    for (int s = 0; s < TT_STREAMS; s++) tt__free(c->hidden[s]);
    tt__free(c->op);
    tt__free(c->X);
    tt__free(c->dir);
    tt__free(c);
}

void tt__calib_set_op(tt_calib *c, size_t weight, const tt_linop *op) {
    c->op[weight] = op;
    tt__runner_set_op(c->runner, weight, op);
}

/* ------------------------------------------------------------ hidden states ---- */

int64_t tt__calib_sequences(const tt_calib *c, int64_t b) {
    int64_t left = c->samples - b * c->batch;
    return left < c->batch ? left : c->batch;
}

static size_t batch_bytes(const tt_calib *c, int64_t b) { return (size_t)(tt__calib_sequences(c, b) * c->length * c->width) * sizeof(float); }
static float *batch_in_memory(const tt_calib *c, tt_stream s, int64_t b) { return c->hidden[s] + b * c->batch * c->length * c->width; }

static void hidden_name(char name[64], tt_stream s, int layer, int64_t b) {
    snprintf(name, 64, "%s.%d.%lld", s == TT_STREAM_DENSE ? "dense" : "hidden", layer, (long long)b);
}

tt_status tt__calib_read(tt_calib *c, tt_stream s, int layer, int64_t b, float *X, tt_err *err) {
    char name[64];
    if (layer == 0) return tt__run_embed(c->runner, c->ids + b * c->batch * c->length, tt__calib_sequences(c, b) * c->length, X, err);
    if (c->in_memory) {
        memcpy(X, batch_in_memory(c, s, b), batch_bytes(c, b));
        return TT_OK;
    }
    hidden_name(name, s, layer, b);
    return tt__raw_read(c->dir, name, X, batch_bytes(c, b), err);
}

tt_status tt__calib_sequence(tt_calib *c, tt_stream s, int layer, int64_t sequence, float *X, tt_err *err) {
    char name[64];
    int64_t n = c->length * c->width, b = sequence / c->batch;
    if (layer == 0) return tt__run_embed(c->runner, c->ids + sequence * c->length, c->length, X, err);
    if (c->in_memory) {
        memcpy(X, c->hidden[s] + sequence * n, (size_t)n * sizeof *X);
        return TT_OK;
    }
    hidden_name(name, s, layer, b);
    return tt__raw_read_part(c->dir, name, (size_t)(sequence % c->batch * n) * sizeof *X, X, (size_t)n * sizeof *X, batch_bytes(c, b), err);
}

static tt_status put(tt_calib *c, tt_stream s, int layer, int64_t b, tt_err *err) {
    char name[64];
    if (c->in_memory) {
        memcpy(batch_in_memory(c, s, b), c->X, batch_bytes(c, b));
        return TT_OK;
    }
    hidden_name(name, s, layer, b);
    return tt__raw_write(c->dir, name, c->X, batch_bytes(c, b), err);
}

/* ------------------------------------------------------------ running a block ---- */

static void use_ops(tt_calib *c, int layer, bool replaced) {
    for (size_t i = c->net->layer_first[layer]; i < c->net->layer_first[layer + 1]; i++)
        if (c->op[i]) tt__runner_set_op(c->runner, i, replaced ? c->op[i] : NULL);
}

static bool has_ops(const tt_calib *c, int layer) {
    for (size_t i = c->net->layer_first[layer]; i < c->net->layer_first[layer + 1]; i++)
        if (c->op[i]) return true;
    return false;
}

/* The batch of a stream through its own block, in place in X. */
static tt_status run_block(tt_calib *c, tt_stream s, int layer, int64_t b, float *X, tt_tap_fn tap, int last, tt_err *err) {
    TT_TRY(tt__calib_read(c, s, layer, b, X, err));
    if (s == TT_STREAM_DENSE) use_ops(c, layer, false);
    tt_status st = tt__run_block(c->runner, layer, 0, tt__calib_sequences(c, b), c->length, X, tap, c, last, err);
    if (s == TT_STREAM_DENSE) use_ops(c, layer, true);
    return st;
}

tt_status tt__calib_target(tt_calib *c, int layer, int64_t b, float *Y, tt_err *err) {
    return run_block(c, TT_STREAM_DENSE, layer, b, Y, NULL, -1, err);
}

/* ------------------------------------------------------------ collecting ---- */

static size_t sum_count(const tt_calib *c, int i) { return (size_t)(c->full ? c->n[i] * c->n[i] : c->n[i]); }

static bool has_cross(const tt_calib *c, int i) { return c->cross && i != TT_CALIB_HEAD; }

static tt_status zeroed(float **p, size_t n, const char *what, tt_err *err) {
    if (!*p) return tt__new(p, n, sizeof **p, what, err);
    memset(*p, 0, n * sizeof **p);
    return TT_OK;
}

static void drop(float **p) {
    tt__free(*p);
    *p = NULL;
}

tt_status tt__calib_begin(tt_calib *c, unsigned set, tt_err *err) {
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        if (set >> i & 1 && c->n[i]) continue;
        drop(&c->sum[i]);
        drop(&c->moment[i]);
        drop(&c->taken[i]);
    }
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        if (!(set >> i & 1 && c->n[i])) continue;
        TT_TRY(zeroed(&c->sum[i], sum_count(c, i), "a Hessian", err));
        if (!has_cross(c, i)) continue;
        TT_TRY(zeroed(&c->moment[i], sum_count(c, i), "a cross moment", err));
        if (!c->taken[i]) TT_TRY(tt__new(&c->taken[i], (size_t)(c->batch * c->length * c->n[i]), sizeof *c->taken[i], "inputs of the dense stream", err));
    }
    return TT_OK;
}

static void take(void *user, int id, const float *x, int64_t ldx, int64_t rows, int64_t n) {
    tt_calib *c = user;
    if (id < 0 || id >= TT_CALIB_INPUTS || !c->sum[id]) return;
    for (int64_t r = 0; r < rows; r++) memcpy(c->taken[id] + r * n, x + r * ldx, (size_t)n * sizeof *x);
}

typedef struct difference { float *taken; const float *x; int64_t ldx, rows, n; } difference;
enum { DIFF_ROWS = 64 };

static void subtract_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    const difference *d = arg;
    for (int64_t r = tile * DIFF_ROWS; r < (tile + 1) * DIFF_ROWS && r < d->rows; r++)
        for (int64_t j = 0; j < d->n; j++) d->taken[r * d->n + j] -= d->x[r * d->ldx + j];
}

static void add_cross(tt_calib *c, int id, const float *x, int64_t ldx, int64_t rows, int64_t n) {
    difference d = {c->taken[id], x, ldx, rows, n};
    tt__parallel(c->ctx, (rows + DIFF_ROWS - 1) / DIFF_ROWS, subtract_tile, &d);
    tt__gemm_tn(c->ctx, n, n, rows, x, ldx, d.taken, n, c->moment[id], n, true);
}

static void tap(void *user, int id, const float *x, int64_t ldx, int64_t rows, int64_t n) {
    tt_calib *c = user;
    if (id < 0 || id >= TT_CALIB_INPUTS || !c->sum[id]) return;
    if (c->full) {
        tt__syrk(c->ctx, x, ldx, rows, n, c->sum[id]);
        return;
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < n; j++) c->sum[id][j] += x[r * ldx + j] * x[r * ldx + j];
}

static void tap_both(void *user, int id, const float *x, int64_t ldx, int64_t rows, int64_t n) {
    tt_calib *c = user;
    tap(c, id, x, ldx, rows, n);
    if (id >= 0 && id < TT_CALIB_INPUTS && c->sum[id]) add_cross(c, id, x, ldx, rows, n);
}

/* What the output matrix reads: the final norm of what left the last layer. */
static tt_status collect_head(tt_calib *c, int64_t b, tt_err *err) {
    const int64_t rows = tt__calib_sequences(c, b) * c->length;
    TT_TRY(tt__scratch_reserve(c->ctx, tt__gemm_scratch(c->ctx, c->width, c->width), err));
    TT_TRY(tt__calib_read(c, TT_STREAM_MAIN, (int)c->net->hp.n_layer, b, c->X, err));
    tt__runner_norm(c->runner, c->X, c->width, rows, c->X);
    tap(c, TT_CALIB_HEAD, c->X, c->width, rows, c->width);
    return TT_OK;
}

tt_status tt__calib_collect(tt_calib *c, int layer, int64_t b, tt_err *err) {
    if (layer == c->net->hp.n_layer) return collect_head(c, b, err);
    int last = -1;
    for (int i = 0; i < TT_CALIB_INPUTS; i++)
        if (c->sum[i]) last = i;
    bool differ = c->cross && (layer > 0 || has_ops(c, layer));          /* the streams are one until something is compressed */
    if (differ) TT_TRY(run_block(c, TT_STREAM_DENSE, layer, b, c->X, take, last, err));
    return run_block(c, TT_STREAM_MAIN, layer, b, c->X, differ ? tap_both : tap, last, err);
}

static void scale(float *a, size_t n, float by) {
    for (size_t k = 0; k < n; k++) a[k] *= by;
}

tt_status tt__calib_finish(tt_calib *c, int layer, tt_err *err) {
    float by = 1.0f / (float)tt__calib_tokens(c);
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        if (!c->sum[i]) continue;
        scale(c->sum[i], sum_count(c, i), by);
        if (c->moment[i]) scale(c->moment[i], sum_count(c, i), by);
        for (int64_t j = 0; j < c->n[i]; j++) {
            float d = c->sum[i][c->full ? j * c->n[i] + j : j];
            TT_FAIL_IF(!isfinite(d), err, TT_FAIL, "calibration activations are not finite|layer %d, input %d, column %lld|%g||is the model damaged?", layer, i, (long long)j,
                       (double)d);
        }
    }
    return TT_OK;
}

tt_status tt__calib_advance(tt_calib *c, int layer, int64_t b, tt_err *err) {
    for (int s = 0; s < (c->dense ? TT_STREAMS : 1); s++) {
        TT_TRY(run_block(c, (tt_stream)s, layer, b, c->X, NULL, -1, err));
        TT_TRY(put(c, (tt_stream)s, layer + 1, b, err));
    }
    return TT_OK;
}

/* ------------------------------------------------------------ saving ---- */

static void sum_name(char name[64], const char *kind, const char *tag, int i) { snprintf(name, 64, "%s.%.40s.%d", kind, tag, i); }

static int at_layer(int64_t b, int layer, int64_t advanced) { return b < advanced ? layer + 1 : layer; }

static tt_status save_hidden(tt_calib *c, tt_stream s, int layer, int64_t advanced, tt_err *err) {
    char name[64];
    for (int64_t b = 0; c->hidden[s] && b < c->n_batches; b++) {
        int l = at_layer(b, layer, advanced);
        hidden_name(name, s, l, b);
        if (l && !tt__raw_exists(c->dir, name)) TT_TRY(tt__raw_write(c->dir, name, batch_in_memory(c, s, b), batch_bytes(c, b), err));
    }
    return TT_OK;
}

static tt_status load_hidden(tt_calib *c, tt_stream s, int layer, int64_t advanced, tt_err *err) {
    char name[64];
    for (int64_t b = 0; c->hidden[s] && b < c->n_batches; b++) {
        int l = at_layer(b, layer, advanced);
        hidden_name(name, s, l, b);
        if (l) TT_TRY(tt__raw_read(c->dir, name, batch_in_memory(c, s, b), batch_bytes(c, b), err));
    }
    return TT_OK;
}

tt_status tt__calib_save(tt_calib *c, int layer, int64_t advanced, const char *tag, tt_err *err) {
    char name[64];
    for (int s = 0; s < TT_STREAMS; s++) TT_TRY(save_hidden(c, (tt_stream)s, layer, advanced, err));
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        if (!c->sum[i]) continue;
        sum_name(name, "sum", tag, i);
        TT_TRY(tt__raw_write(c->dir, name, c->sum[i], sum_count(c, i) * sizeof *c->sum[i], err));
        sum_name(name, "cross", tag, i);
        if (c->moment[i]) TT_TRY(tt__raw_write(c->dir, name, c->moment[i], sum_count(c, i) * sizeof *c->moment[i], err));
    }
    return TT_OK;
}

tt_status tt__calib_load(tt_calib *c, int layer, int64_t advanced, unsigned set, const char *tag, tt_err *err) {
    char name[64];
    for (int s = 0; s < TT_STREAMS; s++) TT_TRY(load_hidden(c, (tt_stream)s, layer, advanced, err));
    TT_TRY(tt__calib_begin(c, set, err));
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        if (!c->sum[i]) continue;
        sum_name(name, "sum", tag, i);
        TT_TRY(tt__raw_read(c->dir, name, c->sum[i], sum_count(c, i) * sizeof *c->sum[i], err));
        sum_name(name, "cross", tag, i);
        if (c->moment[i]) TT_TRY(tt__raw_read(c->dir, name, c->moment[i], sum_count(c, i) * sizeof *c->moment[i], err));
    }
    return TT_OK;
}

static bool is_hidden(const char *file, const char *kind, int layer, int64_t advanced) {
    int l, b;
    size_t n = strlen(kind);
    const char *at = file + n;
    return !strncmp(file, kind, n) && tt__scan_int(&at, INT32_MAX, &l) && *at++ == '.' && tt__scan_int(&at, INT32_MAX, &b) && l == at_layer(b, layer, advanced);
}

bool tt__calib_needs(const tt_calib *c, const char *file, int layer, int64_t advanced, const char *tag) {
    char name[64];
    if (is_hidden(file, "hidden.", layer, advanced) || (c->dense && is_hidden(file, "dense.", layer, advanced))) return true;
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        sum_name(name, "sum", tag, i);
        if (c->sum[i] && !strcmp(file, name)) return true;
        sum_name(name, "cross", tag, i);
        if (c->moment[i] && !strcmp(file, name)) return true;
    }
    return false;
}
