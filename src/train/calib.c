/* See calib.h. Files in the folder: "hidden.L.B" f32 rows of batch B as layer L reads them, "sum.TAG.I" the sums of input I. Layer 0
 * reads the embedding, which is made anew. */
#include "train/calib.h"

#include "base/file.h"
#include "base/util.h"
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
    *c = (tt_calib){.ctx = ctx, .net = net, .ids = o->ids, .samples = o->samples, .length = o->length, .width = net->hp.n_embd, .full = o->full};
    c->batch = tt__calib_batch(net, o->length);
    c->n_batches = (o->samples + c->batch - 1) / c->batch;
    for (int i = 0; i < TT_CALIB_INPUTS; i++) c->n[i] = tt__calib_input(net, i);
    tt_runner_options r = {.max_rows = c->batch * c->length};
    tt_status st;
    c->dir = tt__strdup(o->dir);
    if (!c->dir) {
        st = tt__fail(err, TT_RESOURCE, "out of memory|a path");
        goto done;
    }
    TT_TRY_GOTO(tt__runner_create(ctx, net, &r, &c->runner, err));
    TT_TRY_GOTO(tt__new(&c->X, (size_t)(r.max_rows * c->width), sizeof *c->X, "a calibration batch", err));
    if (o->in_memory) TT_TRY_GOTO(tt__new(&c->hidden, (size_t)(tt__calib_tokens(c) * c->width), sizeof *c->hidden, "hidden states", err));
    *out = c;
    return TT_OK;
done:
    tt__calib_free(c);
    return st;
}

void tt__calib_free(tt_calib *c) {
    if (!c) return;
    tt__runner_free(c->runner);
    for (int i = 0; i < TT_CALIB_INPUTS; i++) tt__free(c->sum[i]);
    tt__free(c->hidden);
    tt__free(c->X);
    tt__free(c->dir);
    tt__free(c);
}

/* ------------------------------------------------------------ hidden states ---- */

static int64_t batch_sequences(const tt_calib *c, int64_t b) {
    int64_t left = c->samples - b * c->batch;
    return left < c->batch ? left : c->batch;
}

static size_t batch_bytes(const tt_calib *c, int64_t b) { return (size_t)(batch_sequences(c, b) * c->length * c->width) * sizeof(float); }
static float *batch_in_memory(const tt_calib *c, int64_t b) { return c->hidden + b * c->batch * c->length * c->width; }

static void hidden_name(char name[64], int layer, int64_t b) { snprintf(name, 64, "hidden.%d.%lld", layer, (long long)b); }

/* Rows of batch b as `layer` reads them, into X. */
static tt_status get(tt_calib *c, int layer, int64_t b, tt_err *err) {
    char name[64];
    if (layer == 0) return tt__run_embed(c->runner, c->ids + b * c->batch * c->length, batch_sequences(c, b) * c->length, c->X, err);
    if (c->hidden) {
        memcpy(c->X, batch_in_memory(c, b), batch_bytes(c, b));
        return TT_OK;
    }
    hidden_name(name, layer, b);
    return tt__raw_read(c->dir, name, c->X, batch_bytes(c, b), err);
}

static tt_status put(tt_calib *c, int layer, int64_t b, tt_err *err) {
    char name[64];
    if (c->hidden) {
        memcpy(batch_in_memory(c, b), c->X, batch_bytes(c, b));
        return TT_OK;
    }
    hidden_name(name, layer, b);
    return tt__raw_write(c->dir, name, c->X, batch_bytes(c, b), err);
}

/* ------------------------------------------------------------ collecting ---- */

static size_t sum_count(const tt_calib *c, int i) { return (size_t)(c->full ? c->n[i] * c->n[i] : c->n[i]); }

tt_status tt__calib_begin(tt_calib *c, unsigned set, tt_err *err) {
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        bool wanted = set >> i & 1 && c->n[i];
        if (!wanted) {
            tt__free(c->sum[i]);
            c->sum[i] = NULL;
        } else if (!c->sum[i]) {
            TT_TRY(tt__new(&c->sum[i], sum_count(c, i), sizeof *c->sum[i], "a Hessian", err));
        } else {
            memset(c->sum[i], 0, sum_count(c, i) * sizeof *c->sum[i]);
        }
    }
    return TT_OK;
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

tt_status tt__calib_collect(tt_calib *c, int layer, int64_t b, tt_err *err) {
    int last = -1;
    for (int i = 0; i < TT_CALIB_INPUTS; i++)
        if (c->sum[i]) last = i;
    TT_TRY(get(c, layer, b, err));
    return tt__run_block(c->runner, layer, 0, batch_sequences(c, b), c->length, c->X, tap, c, last, err);
}

tt_status tt__calib_finish(tt_calib *c, int layer, tt_err *err) {
    float scale = 1.0f / (float)tt__calib_tokens(c);
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        if (!c->sum[i]) continue;
        for (size_t k = 0; k < sum_count(c, i); k++) c->sum[i][k] *= scale;
        for (int64_t j = 0; j < c->n[i]; j++) {
            float d = c->sum[i][c->full ? j * c->n[i] + j : j];
            TT_FAIL_IF(!isfinite(d), err, TT_FAIL, "calibration activations are not finite|layer %d, input %d, column %lld|%g||is the model damaged?", layer, i, (long long)j,
                       (double)d);
        }
    }
    return TT_OK;
}

tt_status tt__calib_advance(tt_calib *c, int layer, int64_t b, tt_err *err) {
    TT_TRY(get(c, layer, b, err));
    TT_TRY(tt__run_block(c->runner, layer, 0, batch_sequences(c, b), c->length, c->X, NULL, NULL, -1, err));
    return put(c, layer + 1, b, err);
}

/* ------------------------------------------------------------ saving ---- */

static void sum_name(char name[64], const char *tag, int i) { snprintf(name, 64, "sum.%.40s.%d", tag, i); }

tt_status tt__calib_save(tt_calib *c, int layer, int64_t advanced, const char *tag, tt_err *err) {
    char name[64];
    for (int64_t b = 0; c->hidden && b < c->n_batches; b++) {
        int l = b < advanced ? layer + 1 : layer;
        hidden_name(name, l, b);
        if (l && !tt__raw_exists(c->dir, name)) TT_TRY(tt__raw_write(c->dir, name, batch_in_memory(c, b), batch_bytes(c, b), err));
    }
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        if (!c->sum[i]) continue;
        sum_name(name, tag, i);
        TT_TRY(tt__raw_write(c->dir, name, c->sum[i], sum_count(c, i) * sizeof *c->sum[i], err));
    }
    return TT_OK;
}

tt_status tt__calib_load(tt_calib *c, int layer, int64_t advanced, unsigned set, const char *tag, tt_err *err) {
    char name[64];
    for (int64_t b = 0; c->hidden && b < c->n_batches; b++) {
        int l = b < advanced ? layer + 1 : layer;
        hidden_name(name, l, b);
        if (l) TT_TRY(tt__raw_read(c->dir, name, batch_in_memory(c, b), batch_bytes(c, b), err));
    }
    TT_TRY(tt__calib_begin(c, set, err));
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        if (!c->sum[i]) continue;
        sum_name(name, tag, i);
        TT_TRY(tt__raw_read(c->dir, name, c->sum[i], sum_count(c, i) * sizeof *c->sum[i], err));
    }
    return TT_OK;
}

bool tt__calib_needs(const tt_calib *c, const char *file, int layer, int64_t advanced, const char *tag) {
    char name[64];
    int l, b;
    const char *at = file + strlen("hidden.");
    if (!strncmp(file, "hidden.", strlen("hidden.")) && tt__scan_int(&at, INT32_MAX, &l) && *at++ == '.' && tt__scan_int(&at, INT32_MAX, &b))
        return l == (b < advanced ? layer + 1 : layer);
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        sum_name(name, tag, i);
        if (c->sum[i] && !strcmp(file, name)) return true;
    }
    return false;
}
