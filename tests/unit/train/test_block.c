/* Training through rounding, in textbook form: gradients element by element in doubles; a step of either trainer by hand; and that nothing but the
 * settings decides what comes out. */
#include "train/block.h"

#include "base/file.h"
#include "harness/tiny.h"
#include "train/fakequant.h"
#include <math.h>

/* ------------------------------------------------------------ the operator ---- */

typedef struct fq_case { int bits, group; bool mins, half, v, mask, negative; int rows, cols; } fq_case;
static const fq_case fq_cases[] = {
    {2, 64, false, true, true, false, false, 5, 100}, {2, 64, false, true, false, false, false, 33, 64}, {3, 32, true, false, true, false, false, 4, 96},
    {4, 32, false, false, true, false, true, 3, 40},  {4, 128, true, false, false, true, false, 2, 200}, {8, 64, false, false, false, true, false, 1, 63},
    {0, 0, false, false, false, true, false, 7, 50},  {5, 32, false, true, true, true, false, 17, 32},   {2, 32, true, false, true, false, false, 1, 1}};

typedef struct fq_rig { tt_fakequant f; int64_t n, groups; float *w, *v, *scale, *min, *G, *G0, *ds, *dm; uint8_t *keep, *half; } fq_rig;

static float *normals(tt__rng *rng, int64_t n, double spread) {
    float *x = tt__alloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(spread * tt__rng_normal(rng));
    return x;
}

static void fq_open(fq_rig *r, const fq_case *c, uint64_t seed) {
    tt__rng rng;
    tt__rng_seed(&rng, seed);
    *r = (fq_rig){.n = (int64_t)c->rows * c->cols, .groups = c->bits ? (int64_t)c->rows * ((c->cols + c->group - 1) / c->group) : 0};
    r->w = normals(&rng, r->n, 1);
    r->v = normals(&rng, r->n, 0.3);
    r->G = normals(&rng, r->n, 1);
    r->scale = normals(&rng, r->groups + 1, 0.1);
    r->min = normals(&rng, r->groups + 1, 0.5);
    r->G0 = tt__alloc((size_t)r->n * 4);
    r->ds = tt__calloc((size_t)r->groups + 1, 4);
    r->dm = tt__calloc((size_t)r->groups + 1, 4);
    r->keep = tt__calloc((size_t)r->n, 1);
    r->half = tt__calloc((size_t)r->groups + 1, 1);
    memcpy(r->G0, r->G, (size_t)r->n * 4);
    for (int64_t i = 0; i < r->n; i++) r->keep[i] = tt__rng_below(&rng, 3) > 0;
    for (int64_t g = 0; g < r->groups; g++) {
        r->scale[g] = (float)((0.3 + fabs((double)r->scale[g])) * (c->negative && g % 2 ? -1 : 1) * 4 / (1 << c->bits));
        r->half[g] = g % 2 == 0;
    }
    r->f = (tt_fakequant){.bits = c->bits, .group = c->group, .w = r->w, .v = c->v ? r->v : NULL, .keep = c->mask ? r->keep : NULL, .scale = r->scale,
                          .min = c->mins ? r->min : NULL, .halfgrid = c->half ? r->half : NULL};
    tt__fakequant_init(&r->f, c->rows, c->cols);
}

static void fq_close(fq_rig *r) {
    void *all[] = {r->w, r->v, r->G, r->scale, r->min, r->G0, r->ds, r->dm, r->keep, r->half};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tt__free(all[i]);
}

static double as16(double x) { return (double)tt__f16_to_f32(tt__f32_to_f16((float)x)); }

/* Element i: value, and the three derivatives. */
typedef struct fq_one { double y, dw, ds, dm; int code; int64_t group; } fq_one;
static fq_one slow(const fq_rig *r, const fq_case *c, int64_t i) {
    fq_one o = {0};
    int64_t row = i / c->cols, col = i % c->cols;
    if (c->mask && !r->keep[i]) return o;
    if (!c->bits) return (fq_one){.y = as16((double)r->w[i]), .dw = 1};
    o.group = row * ((c->cols + c->group - 1) / c->group) + col / c->group;
    double s = as16((double)r->scale[o.group]), m = c->mins ? as16((double)r->min[o.group]) : 0, top = (1 << c->bits) - 1;
    double off = c->mins ? 0 : (1 << (c->bits - 1)) - (c->half && r->half[o.group] ? 0.5 : 0);
    double u0 = ((double)r->w[i] - m) / s + off, u = u0 + (c->v ? (double)r->v[i] : 0), q = nearbyint(u);
    bool inside = q >= 0 && q <= top;
    q = q < 0 ? 0 : q > top ? top : q;
    o.code = (int)q;
    o.y = s * (q - off) + m;
    o.dw = inside ? (c->v ? s : 1) : 0;
    o.ds = inside ? q - u0 : q - off;
    o.dm = c->mins && !inside;
    return o;
}

TT_CASE(values_and_gradients) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    for (size_t k = 0; k < sizeof fq_cases / sizeof *fq_cases; k++) {
        const fq_case *c = &fq_cases[k];
        fq_rig r;
        fq_open(&r, c, 7 + k);
        tt_test_note("case %zu", k);
        float *got = tt__alloc((size_t)r.n * 4);
        double *ds = tt__calloc((size_t)r.groups + 1, 8), *dm = tt__calloc((size_t)r.groups + 1, 8);
        tt__linop_rows(&r.f.op, 0, c->rows, got);
        tt__fakequant_gradient(ctx, &r.f, r.G, r.ds, r.dm);
        for (int64_t i = 0; i < r.n; i++) {
            fq_one o = slow(&r, c, i);
            TT_CHECK_NEAR((double)got[i], o.y, 1e-6);
            TT_CHECK_NEAR((double)r.G[i], (double)r.G0[i] * o.dw, 1e-6);
            ds[o.group] += o.ds * (double)r.G0[i];
            dm[o.group] += o.dm * (double)r.G0[i];
        }
        for (int64_t g = 0; g < r.groups; g++) {
            TT_CHECK_NEAR((double)r.ds[g], ds[g], 2e-4 * (1 + fabs(ds[g])));
            if (c->mins) TT_CHECK_NEAR((double)r.dm[g], dm[g], 1e-4);
        }
        tt__free(got);
        tt__free(ds);
        tt__free(dm);
        fq_close(&r);
    }
}

/* What training sees is what is stored, bit for bit. */
TT_CASE(values_are_those_of_the_stored_operator) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tt_err err = {0};
    for (size_t k = 0; k < sizeof fq_cases / sizeof *fq_cases; k++) {
        fq_case c = fq_cases[k];
        if (c.bits == 5 || !c.bits || c.mask || c.negative) continue;
        fq_rig r;
        tt_linop *op;
        fq_open(&r, &c, 70 + k);
        float *seen = tt__alloc((size_t)r.n * 4), *values = tt__alloc((size_t)r.n * 4), *stored = tt__alloc((size_t)r.n * 4);
        uint8_t *codes = tt__alloc((size_t)r.n);
        tt__linop_rows(&r.f.op, 0, c.rows, seen);
        tt__fakequant_finish(ctx, &r.f, codes, values);
        TT_CHECK_OK(tt__linop_group(ctx, c.bits, c.group, codes, r.scale, c.half ? r.half : NULL, c.mins ? r.min : NULL, c.rows, c.cols, &op, &err));
        tt__linop_rows(op, 0, c.rows, stored);
        TT_CHECK(!memcmp(seen, values, (size_t)r.n * 4) && !memcmp(seen, stored, (size_t)r.n * 4));
        tt__linop_free(op);
        tt__free(seen);
        tt__free(values);
        tt__free(stored);
        tt__free(codes);
        fq_close(&r);
    }
}

/* ------------------------------------------------------------ the trainer ---- */

enum { SAMPLES = 9, LENGTH = 12, LAYER = 1, GROUP = 32, MATRICES = 7, MOST = TINY_FF * TINY_D };

typedef struct rig {
    tt_ctx *ctx;
    tt_gguf *g;
    tt_net *net;
    int n, bits;
    tt_block_matrix m[MATRICES];
    float W[MATRICES][MOST], scale[MATRICES][MOST], out_scale[MATRICES][MOST], min[MATRICES][MOST], latent[MATRICES][MOST], values[MATRICES][MOST];
    uint8_t half[MATRICES][MOST], keep[MATRICES][MOST], codes[MATRICES][MOST];
    float X[SAMPLES][LENGTH * TINY_D], Y[SAMPLES][LENGTH * TINY_D];
    int fetched, spoil;                           /* from this fetch on targets are not numbers; 0: never */
} rig;

static tt_status sequence(void *user, int64_t i, float *X, float *Y, tt_err *err) {
    rig *r = user;
    (void)err;
    memcpy(X, r->X[i], sizeof r->X[i]);
    memcpy(Y, r->Y[i], sizeof r->Y[i]);
    if (r->spoil && ++r->fetched > r->spoil) Y[0] = NAN;
    return TT_OK;
}

/* Targets are those of the whole block; inputs are a little off, as behind compressed layers. Scales clip nothing. */
static void rig_open(rig *r, int bits, bool masked, int threads) {
    tt_err err = {0};
    tt_runner *run;
    tt__rng rng;
    memset(r, 0, sizeof *r);
    r->ctx = tt_test_ctx(threads, NULL);
    r->bits = bits;
    const char *path = tt_test_path("model.gguf");
    tiny_write(path, 4, 0, false);
    TT_CHECK_OK(tt__gguf_open(path, &r->g, &err));
    TT_CHECK_OK(tt__net_from_gguf(r->ctx, r->g, false, &r->net, &err));
    tt__rng_seed(&rng, 3);
    for (size_t i = r->net->layer_first[LAYER]; i < r->net->layer_first[LAYER + 1]; i++) {
        const tt_weight *w = &r->net->weights[i];
        if (!w->linear) continue;
        int k = r->n++;
        tt__linop_rows(w->op, 0, w->rows, r->W[k]);
        for (int64_t e = 0; e < w->rows * w->cols; e++) r->keep[k][e] = tt__rng_below(&rng, 4) > 0;
        for (int64_t g = 0; bits && g < w->rows * w->cols / GROUP; g++) {
            float top = 0;
            for (int c = 0; c < GROUP; c++) top = fmaxf(top, fabsf(r->W[k][g * GROUP + c]));
            r->scale[k][g] = (float)as16((double)top / ((1 << (bits - 1)) - 0.5));
            r->half[k][g] = g % 3 != 0;
        }
        r->m[k] = (tt_block_matrix){i, bits, bits ? GROUP : 0, r->W[k], masked ? r->keep[k] : NULL, r->scale[k], NULL, r->half[k]};
    }
    TT_CHECK_EQ(r->n, MATRICES);
    TT_CHECK_OK(tt__runner_create(r->ctx, r->net, &(tt_runner_options){.max_rows = LENGTH}, &run, &err));
    for (int s = 0; s < SAMPLES; s++) {
        for (int i = 0; i < LENGTH * TINY_D; i++) r->Y[s][i] = (float)tt__rng_normal(&rng), r->X[s][i] = r->Y[s][i] + 0.05f * (float)tt__rng_normal(&rng);
        TT_CHECK_OK(tt__run_block(run, LAYER, 0, 1, LENGTH, r->Y[s], NULL, NULL, -1, &err));
    }
    tt__runner_free(run);
}

static void rig_close(rig *r) {
    tt__net_free(r->net);
    tt__gguf_close(r->g);
    tt__free(r);
}

static tt_block *trainer(rig *r, const tt_block_options *o) {
    tt_block_data data = {SAMPLES, LENGTH, sequence, r};
    tt_err err = {0};
    tt_block *b;
    TT_CHECK_OK(tt__block_create(r->ctx, r->net, LAYER, &data, o, r->m, r->n, &b, &err));
    return b;
}

static void finish(rig *r, tt_block *b) {
    for (int i = 0; i < r->n; i++) tt__block_finish(b, i, r->latent[i], r->out_scale[i], r->min[i], r->codes[i], r->values[i]);
}

static void run_all(tt_block *b) {
    tt_err err = {0};
    while (!tt__block_done(b)) TT_CHECK_OK(tt__block_step(b, &err));
}

/* The mean loss of sequences with plain dense matrices in place of the block's. */
static double loss_of(rig *r, const float (*W)[MOST], int first, int end) {
    tt_err err = {0};
    tt_runner *run;
    tt_linop *ops[MATRICES];
    double sum = 0, part;
    float out[LENGTH * TINY_D];
    TT_CHECK_OK(tt__runner_create(r->ctx, r->net, &(tt_runner_options){.max_rows = LENGTH}, &run, &err));
    for (int i = 0; i < r->n; i++) {
        const tt_weight *w = &r->net->weights[r->m[i].weight];
        TT_CHECK_OK(tt__linop_from_bytes(r->ctx, TT_F32, W[i], w->rows, w->cols, &ops[i], &err));
        tt__runner_set_op(run, r->m[i].weight, ops[i]);
    }
    for (int s = first; s < end; s++) {
        TT_CHECK_OK(tt__run_block_loss(run, LAYER, 1, LENGTH, r->X[s], r->Y[s], NULL, NULL, &part, out, &err));
        sum += part;
    }
    for (int i = 0; i < r->n; i++) tt__linop_free(ops[i]);
    tt__runner_free(run);
    return sum / (end - first);
}

static const tt_block_options rounding = {.mode = TT_BLOCK_ROUNDING, .steps = 60, .batch = 3, .lr = 1.0 / 60, .lr_scale = 1.0 / 60, .seed = 11},
                              all = {.mode = TT_BLOCK_ALL, .steps = 60, .batch = 3, .lr = 0.03, .lr_scale = 0.01, .clip = 0.3, .seed = 11};

TT_CASE(both_modes_lower_the_loss) {
    static const struct { const tt_block_options *o; int bits; bool masked; double most; } cases[] = {
        {&rounding, 2, false, 0.9}, {&rounding, 4, true, 1}, {&all, 2, false, 0.7}, {&all, 3, true, 0.9}, {&all, 0, true, 0.9}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        rig *r = tt__alloc(sizeof *r);
        rig_open(r, cases[k].bits, cases[k].masked, 2);
        tt_test_note("case %zu", k);
        tt_block *b = trainer(r, cases[k].o);
        finish(r, b);                                       /* untouched: the start, rounded to nearest */
        double before = loss_of(r, (const float(*)[MOST])r->values, 0, 1), other = loss_of(r, (const float(*)[MOST])r->values, 1, SAMPLES);
        tt__block_free(b);
        b = trainer(r, cases[k].o);
        run_all(b);
        tt_block_progress p = tt__block_progress(b);
        TT_CHECK_NEAR(p.first, before, 1e-6 * before);       /* the first held-out loss is the start's */
        finish(r, b);
        TT_CHECK_NEAR(loss_of(r, (const float(*)[MOST])r->values, 0, 1), p.best, 1e-5 * p.best);
        TT_CHECK(p.best <= p.first && loss_of(r, (const float(*)[MOST])r->values, 1, SAMPLES) < cases[k].most * other);
        for (int i = 0; i < r->n; i++) {
            const tt_weight *w = &r->net->weights[r->m[i].weight];
            for (int64_t e = 0; e < w->rows * w->cols; e++) {
                if (cases[k].masked) TT_CHECK(r->keep[i][e] || r->values[i][e] == 0);
                if (cases[k].o == &rounding) TT_CHECK(fabsf(r->latent[i][e] - r->W[i][e]) <= 0.5001f * r->out_scale[i][e / GROUP]);
            }
        }
        tt__block_free(b);
        rig_close(r);
    }
}

/* One step by hand: gradients of plain matrices with the rounded values, through the grid element by element, then the rule of the mode. */
typedef struct by_hand { rig *r; double dW[MATRICES][MOST]; } by_hand;
static bool hand_wants(void *user, size_t weight) { return (void)user, (void)weight, true; }
static void hand_matrix(void *user, size_t weight, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T) {
    by_hand *h = user;
    const tt_weight *w = &h->r->net->weights[weight];
    int i = 0;
    while (h->r->m[i].weight != weight) i++;
    for (int64_t t = 0; t < T; t++)
        for (int64_t o = 0; o < w->rows; o++)
            for (int64_t c = 0; c < w->cols; c++) h->dW[i][o * w->cols + c] += (double)G[t * ldg + o] * (double)X[t * ldx + c];
}

TT_CASE(one_step_by_hand) {
    for (int mode = 0; mode < 2; mode++) {
        rig *r = tt__alloc(sizeof *r);
        by_hand *h = tt__calloc(1, sizeof *h);
        tt_err err = {0};
        tt_runner *run;
        double loss;
        rig_open(r, 2, false, 1);
        h->r = r;
        tt_block_options o = mode ? all : rounding;
        o.batch = SAMPLES;                                   /* all that are not held out, in whatever order */
        o.steps = 1;
        o.clip = 1e9;
        tt_block *b = trainer(r, &o);
        finish(r, b);
        tt__block_free(b);
        TT_CHECK_OK(tt__runner_create(r->ctx, r->net, &(tt_runner_options){.max_rows = LENGTH, .backward = true, .weights = true}, &run, &err));
        tt_linop *ops[MATRICES];
        for (int i = 0; i < r->n; i++) {
            const tt_weight *w = &r->net->weights[r->m[i].weight];
            TT_CHECK_OK(tt__linop_from_bytes(r->ctx, TT_F32, r->values[i], w->rows, w->cols, &ops[i], &err));
            tt__runner_set_op(run, r->m[i].weight, ops[i]);
        }
        tt_train_hooks hooks = {.user = h, .wants = hand_wants, .matrix = hand_matrix};
        float out[LENGTH * TINY_D];
        for (int s = 1; s < SAMPLES; s++) TT_CHECK_OK(tt__run_block_loss(run, LAYER, 1, LENGTH, r->X[s], r->Y[s], NULL, &hooks, &loss, out, &err));
        b = trainer(r, &o);
        TT_CHECK_OK(tt__block_step(b, &err));
        finish(r, b);
        int64_t checked = 0, differ = 0;
        for (int i = 0; i < r->n; i++) {
            const tt_weight *w = &r->net->weights[r->m[i].weight];
            fq_case c = {2, GROUP, false, true, mode == 0, false, false, (int)w->rows, (int)w->cols};
            static float zeros[MOST];
            fq_rig q = {.w = r->W[i], .v = zeros, .scale = r->scale[i], .half = r->half[i]};
            for (int64_t e = 0; e < w->rows * w->cols; e++) {
                fq_one one = slow(&q, &c, e);
                double g = h->dW[i][e] * one.dw, s0 = (double)r->scale[i][e / GROUP];
                /* Adam's first step is the sign of the gradient, as SignSGD's: w - lr s0 sign g;  (w + s V) with the moved scale */
                double want = (double)r->W[i][e] - (mode ? o.lr * s0 : o.lr * (double)r->out_scale[i][e / GROUP]) * (g > 0 ? 1 : g < 0 ? -1 : 0);
                if (fabs(g) < 1e-9 && g != 0) continue;      /* its sign is a matter of rounding */
                checked++;
                differ += fabs((double)r->latent[i][e] - want) > 1e-4 * s0;
            }
            for (int64_t g = 0; g < w->rows * w->cols / GROUP; g++) {
                double sum = 0, s0 = (double)r->scale[i][g];
                for (int64_t e = g * GROUP; e < (g + 1) * GROUP; e++) sum += h->dW[i][e] * slow(&q, &c, e).ds;
                if (fabs(sum) < 1e-7) continue;
                checked++;
                differ += fabs((double)r->out_scale[i][g] - as16(s0 - o.lr_scale * s0 * (sum > 0 ? 1 : -1))) > 1e-6 * s0;
            }
        }
        TT_CHECK(checked > 5000);
        TT_CHECK(differ <= checked / 1000);
        for (int i = 0; i < r->n; i++) tt__linop_free(ops[i]);
        tt__runner_free(run);
        tt__block_free(b);
        tt__free(h);
        rig_close(r);
    }
}

static void result_of(int threads, const tt_block_options *o, bool interrupted, rig *r) {
    tt_err err = {0};
    rig_open(r, 2, true, threads);
    tt_block *b = trainer(r, o);
    for (int k = 0; !tt__block_done(b); k++) {
        TT_CHECK_OK(tt__block_step(b, &err));
        if (!interrupted || k % 7) continue;
        TT_CHECK_OK(tt__block_save(b, tt_test_tmpdir(), "train.x", &err));
        tt__block_free(b);
        b = trainer(r, o);
        TT_CHECK_OK(tt__block_load(b, tt_test_tmpdir(), "train.x", &err));
    }
    finish(r, b);
    tt__block_free(b);
}

TT_CASE(threads_and_interruptions_do_not_matter) {
    const tt_block_options *modes[] = {&rounding, &all};
    for (int m = 0; m < 2; m++) {
        rig *a = tt__alloc(sizeof *a), *b = tt__alloc(sizeof *b);
        result_of(1, modes[m], false, a);
        result_of(3, modes[m], true, b);
        TT_CHECK(!memcmp(a->values, b->values, sizeof a->values) && !memcmp(a->codes, b->codes, sizeof a->codes));
        TT_CHECK(!memcmp(a->out_scale, b->out_scale, sizeof a->out_scale) && !memcmp(a->latent, b->latent, sizeof a->latent));
        rig_close(a);
        rig_close(b);
    }
}

TT_CASE(lost_losses) {
    rig *r = tt__alloc(sizeof *r);
    tt_err err = {0};
    rig_open(r, 2, false, 2);
    r->spoil = 40;
    tt_block *b = trainer(r, &all);
    tt_status st = TT_OK;
    for (int k = 0; k < 200 && st == TT_OK; k++) {
        st = tt__block_step(b, &err);
        if (st == TT_OK && tt__block_progress(b).halvings == 2) r->spoil = 0;        /* cured in time */
        if (tt__block_done(b)) break;
    }
    TT_CHECK_OK(st);
    TT_CHECK_EQ(tt__block_progress(b).halvings, 2);
    TT_CHECK(isfinite(tt__block_progress(b).best) && tt__block_progress(b).best < tt__block_progress(b).first);
    tt__block_free(b);
    r->spoil = 40, r->fetched = 0;
    b = trainer(r, &all);
    st = TT_OK;
    for (int k = 0; k < 200 && st == TT_OK; k++) st = tt__block_step(b, &err);
    TT_CHECK_EQ(st, TT_FAIL);
    TT_CHECK(strstr(err.what, "diverges"));
    tt__block_free(b);
    r->spoil = 1, r->fetched = 1;
    b = trainer(r, &all);
    TT_CHECK_FAILS(TT_FAIL, tt__block_step(b, &err));                                 /* damaged from the start */
    tt__block_free(b);
    rig_close(r);
}

TT_CASE(bad_use) {
    rig *r = tt__alloc(sizeof *r);
    tt_err err = {0};
    tt_block *b;
    rig_open(r, 0, false, 1);
    tt_block_data data = {SAMPLES, LENGTH, sequence, r}, one = {1, LENGTH, sequence, r};
    tt_block_options o = all;
    TT_CHECK_FAILS(TT_USAGE, tt__block_create(r->ctx, r->net, LAYER, &data, &rounding, r->m, r->n, &b, &err));     /* no grid to round to */
    TT_CHECK_FAILS(TT_USAGE, tt__block_create(r->ctx, r->net, 0, &data, &o, r->m, r->n, &b, &err));                /* another layer's weights */
    o.steps = 0;
    TT_CHECK_FAILS(TT_USAGE, tt__block_create(r->ctx, r->net, LAYER, &data, &o, r->m, r->n, &b, &err));
    o.steps = 3;
    TT_CHECK_OK(tt__block_create(r->ctx, r->net, LAYER, &one, &o, r->m, r->n, &b, &err));                          /* one sequence: trained and held out */
    TT_CHECK_OK(tt__block_step(b, &err));
    TT_CHECK_OK(tt__block_save(b, tt_test_tmpdir(), "s", &err));
    TT_CHECK_OK(tt__block_load(b, tt_test_tmpdir(), "s", &err));
    char *bytes;
    size_t n;
    TT_CHECK_OK(tt__read_file(tt_test_path("s"), 1 << 26, &bytes, &n, &err));
    bytes[8] = 127;                                                                                               /* a step beyond the end */
    TT_CHECK_OK(tt__write_file(tt_test_path("s"), bytes, n, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__block_load(b, tt_test_tmpdir(), "s", &err));
    TT_CHECK_OK(tt__write_file(tt_test_path("s"), bytes, n - 1, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__block_load(b, tt_test_tmpdir(), "s", &err));
    tt__free(bytes);
    tt__block_free(b);
    rig_close(r);
}
