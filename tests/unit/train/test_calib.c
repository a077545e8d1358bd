/* The two streams of calibration, against nets run by themselves: the main stream is a damaged net's, the dense one that of the whole net. */
#include "train/calib.h"

#include "base/file.h"
#include "harness/tiny.h"
#include <math.h>
#include <unistd.h>

enum { SAMPLES = 7, LENGTH = 24, INPUTS = 4 };

typedef struct rig { tt_ctx *ctx; tt_gguf *g[2]; tt_net *net[2]; int32_t ids[SAMPLES * LENGTH]; } rig;   /* whole, damaged */

static void rig_open(rig *r, int threads) {
    tt_err err = {0};
    tt__rng rng;
    r->ctx = tt_test_ctx(threads, NULL);
    for (int i = 0; i < 2; i++) {
        const char *path = tt_test_path(i ? "damaged.gguf" : "whole.gguf");
        tiny_write(path, 4, i ? 0.3 : 0, false);
        TT_CHECK_OK(tt__gguf_open(path, &r->g[i], &err));
        TT_CHECK_OK(tt__net_from_gguf(r->ctx, r->g[i], false, &r->net[i], &err));
    }
    tt__rng_seed(&rng, 9);
    for (int i = 0; i < SAMPLES * LENGTH; i++) r->ids[i] = (int32_t)tt__rng_below(&rng, 256);
}

static void rig_close(rig *r) {
    for (int i = 0; i < 2; i++) {
        tt__net_free(r->net[i]);
        tt__gguf_close(r->g[i]);
    }
}

/* Inputs of all matrices of all layers of a net, and what its blocks give. */
typedef struct trace { float in[TINY_L][INPUTS][SAMPLES * LENGTH * TINY_FF], out[TINY_L][SAMPLES * LENGTH * TINY_D]; int layer; } trace;

static void note(void *user, int id, const float *x, int64_t ldx, int64_t rows, int64_t n) {
    trace *t = user;
    for (int64_t r = 0; r < rows; r++) memcpy(t->in[t->layer][id] + r * n, x + r * ldx, (size_t)n * sizeof *x);
}

/* Net `which` by itself; or, with `of`, its blocks one by one on what the blocks before gave in `of`. */
static trace *run(const rig *r, int which, const trace *of) {
    tt_err err = {0};
    tt_runner *runner;
    trace *t = tt__calloc(1, sizeof *t);
    float *X = tt__calloc(SAMPLES * LENGTH * TINY_D, sizeof *X);
    TT_CHECK_OK(tt__runner_create(r->ctx, r->net[which], &(tt_runner_options){.max_rows = SAMPLES * LENGTH}, &runner, &err));
    TT_CHECK_OK(tt__run_embed(runner, r->ids, SAMPLES * LENGTH, X, &err));
    for (t->layer = 0; t->layer < TINY_L; t->layer++) {
        if (of && t->layer) memcpy(X, of->out[t->layer - 1], sizeof of->out[0]);
        TT_CHECK_OK(tt__run_block(runner, t->layer, 0, SAMPLES, LENGTH, X, note, t, -1, &err));
        memcpy(t->out[t->layer], X, sizeof t->out[0]);
    }
    tt__runner_free(runner);
    tt__free(X);
    return t;
}

static void install(const rig *r, tt_calib *c, int layer, bool in) {
    for (size_t i = r->net[0]->layer_first[layer]; i < r->net[0]->layer_first[layer + 1]; i++)
        if (r->net[0]->weights[i].op) tt__calib_set_op(c, i, in ? r->net[1]->weights[i].op : NULL);
}

/* Σ a b^T (or Σ a (b - a)^T) / tokens. */
static void check_moment(const float *got, const float *a, const float *b, int64_t n, bool difference) {
    double worst = 0, size = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double want = 0;
            for (int64_t t = 0; t < SAMPLES * LENGTH; t++) want += (double)a[t * n + i] * ((double)b[t * n + j] - (difference ? (double)a[t * n + j] : 0));
            want /= SAMPLES * LENGTH;
            worst = fmax(worst, fabs(want - (double)got[i * n + j]));
            size = fmax(size, fabs(want));
        }
    TT_CHECK(worst <= 2e-5 * size + 1e-7);
}

typedef struct traces { trace *dense, *main, *seen; } traces;         /* seen: blocks before they are replaced, reading the main stream */

static void check_layer(const rig *r, tt_calib *c, int layer, bool sequential, const traces *t) {
    tt_err err = {0};
    const trace *in = sequential ? t->main : t->seen, *main = t->main, *dense = t->dense;
    for (int i = 0; i < INPUTS; i++) {
        check_moment(c->sum[i], in->in[layer][i], in->in[layer][i], c->n[i], false);
        check_moment(c->moment[i], in->in[layer][i], dense->in[layer][i], c->n[i], true);
        for (int64_t k = 0; !layer && !sequential && k < c->n[i] * c->n[i]; k++) TT_CHECK(c->moment[i][k] == 0);
    }
    install(r, c, layer, true);
    float *Y = tt__calloc((size_t)(c->batch * LENGTH * TINY_D), sizeof *Y);
    for (int64_t b = 0; b < c->n_batches; b++) {
        size_t n = (size_t)(tt__calib_sequences(c, b) * LENGTH * TINY_D);
        TT_CHECK_OK(tt__calib_target(c, layer, b, Y, &err));
        for (size_t k = 0; k < n; k++) TT_CHECK_NEAR(Y[k], dense->out[layer][(size_t)(b * c->batch * LENGTH * TINY_D) + k], 1e-5);
        if (layer) TT_CHECK_OK(tt__calib_read(c, TT_STREAM_MAIN, layer, b, Y, &err));
        for (size_t k = 0; layer && k < n; k++) TT_CHECK_NEAR(Y[k], main->out[layer - 1][(size_t)(b * c->batch * LENGTH * TINY_D) + k], 1e-5);
    }
    tt__free(Y);
}

/* The whole net is calibrated, its blocks replaced by the damaged ones; at `cut` all is saved and another calibration goes on from there. */
static void walk(const rig *r, bool in_memory, bool sequential, int cut, const traces *t) {
    tt_err err = {0};
    tt_calib *c;
    tt_calib_options o = {.ids = r->ids, .samples = SAMPLES, .length = LENGTH, .dir = tt_test_path("state"), .in_memory = in_memory, .full = true, .cross = true};
    int step = 0;
    TT_CHECK_OK(tt__mkdirs(o.dir, &err));
    TT_CHECK_OK(tt__calib_create(r->ctx, r->net[0], &o, &c, &err));
    c->batch = 3;                                                     /* several batches, the last one smaller */
    c->n_batches = 3;
    for (int l = 0; l < TINY_L; l++) {
        TT_CHECK_OK(tt__calib_begin(c, 15, &err));
        if (sequential) install(r, c, l, true);
        for (int stage = 0; stage < 2; stage++) {
            for (int64_t b = 0; b < c->n_batches; b++) {
                if (step++ == cut) {
                    TT_CHECK_OK(tt__calib_save(c, l, stage ? b : 0, "t", &err));
                    tt__calib_free(c);
                    TT_CHECK_OK(tt__calib_create(r->ctx, r->net[0], &o, &c, &err));
                    c->batch = c->n_batches = 3;
                    TT_CHECK_OK(tt__calib_load(c, l, stage ? b : 0, 15, "t", &err));
                    if (stage || sequential) install(r, c, l, true);
                }
                TT_CHECK_OK(stage ? tt__calib_advance(c, l, b, &err) : tt__calib_collect(c, l, b, &err));
            }
            if (stage) continue;
            TT_CHECK_OK(tt__calib_finish(c, l, &err));
            check_layer(r, c, l, sequential, t);
        }
        install(r, c, l, false);
    }
    tt__calib_free(c);
}

TT_CASE(two_streams) {
    rig r;
    rig_open(&r, 2);
    traces t = {.dense = run(&r, 0, NULL), .main = run(&r, 1, NULL)};
    t.seen = run(&r, 0, t.main);
    for (int cut = -1; cut < 12; cut++) {
        tt_test_note("cut at %d", cut);
        walk(&r, cut % 2 == 0, cut % 3 == 0, cut, &t);
    }
    tt__free(t.dense);
    tt__free(t.main);
    tt__free(t.seen);
    rig_close(&r);
}

/* What a state with this position needs, of both streams. */
TT_CASE(files_that_stay) {
    rig r;
    tt_err err = {0};
    tt_calib *c;
    rig_open(&r, 1);
    tt_calib_options o = {.ids = r.ids, .samples = SAMPLES, .length = LENGTH, .dir = tt_test_path("state"), .full = true, .cross = true};
    TT_CHECK_OK(tt__calib_create(r.ctx, r.net[0], &o, &c, &err));
    TT_CHECK_OK(tt__calib_begin(c, 2, &err));
    TT_CHECK(tt__calib_needs(c, "hidden.1.0", 1, 0, "t") && tt__calib_needs(c, "dense.1.0", 1, 0, "t") && tt__calib_needs(c, "dense.2.0", 1, 1, "t"));
    TT_CHECK(!tt__calib_needs(c, "dense.1.0", 1, 1, "t") && !tt__calib_needs(c, "dense.1", 1, 0, "t") && !tt__calib_needs(c, "denser.1.0", 1, 0, "t"));
    TT_CHECK(tt__calib_needs(c, "sum.t.1", 1, 0, "t") && tt__calib_needs(c, "cross.t.1", 1, 0, "t") && !tt__calib_needs(c, "cross.t.0", 1, 0, "t"));
    tt__calib_free(c);
    o.cross = false;
    TT_CHECK_OK(tt__calib_create(r.ctx, r.net[0], &o, &c, &err));
    TT_CHECK(!tt__calib_needs(c, "dense.1.0", 1, 0, "t"));
    tt__calib_free(c);
    rig_close(&r);
}
