/* Gradients of weights, norm gains, head and learned keys through a whole net and through one block: along random directions against differences of the
 * loss; the cached teacher against the teacher itself and the textbook sum; no bit depends on threads or on what is kept. */
#include "base/util.h"
#include "tiny.h"
#include <math.h>

enum { S = 2, T = 9, ROWS = S * T, P = 4, WIDTH = TINY_HKV * TINY_HD, PREFIX = TINY_L * P * WIDTH, MOST = TINY_V * TINY_FF, MAX_WEIGHTS = 2 + 9 * TINY_L + 1, K = 7 };

static void noise(uint64_t seed, float *x, int64_t n, double scale) {
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * tt__rng_normal(&r));
}

/* A net whose every weight trains: masters and gradients, by weight. */
typedef struct rig {
    tt_ctx *ctx;
    tiny t;
    tt_runner *r;
    tt_linop *op[MAX_WEIGHTS];
    float *x[MAX_WEIGHTS], *g[MAX_WEIGHTS];
    int64_t n[MAX_WEIGHTS];
    int from;                                 /* the first weight that is wanted */
    int32_t ids[ROWS], target[ROWS];
    float X[ROWS * TINY_D];
    float k[PREFIX], v[PREFIX], dk[PREFIX], dv[PREFIX];
    tt_train_prefix prefix;
    tt_loss spec;
    float top_logp[ROWS * K], rest_logp[ROWS]; int32_t top_id[ROWS * K];
} rig;

static bool wants(void *user, size_t w) { return (int)w >= ((rig *)user)->from; }
static float *vector(void *user, size_t w) { return wants(user, w) ? ((rig *)user)->g[w] : NULL; }

static void matrix(void *user, size_t w, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t rows) {
    rig *r = user;
    float *grad[TT_MAX_PARAMS] = {r->g[w]};
    tt__linop_grad_params(r->ctx, r->op[w], X, ldx, G, ldg, rows, grad);
}

static void clear(rig *r) {
    for (size_t i = 0; i < r->t.net->n_weights; i++) memset(r->g[i], 0, (size_t)r->n[i] * sizeof(float));
    memset(r->dk, 0, sizeof r->dk);
    memset(r->dv, 0, sizeof r->dv);
}

static void open_rig(rig *r, int threads, const char *isa, tt_keep keep, bool untied) {
    tt_err err = {0};
    memset(r, 0, sizeof *r);
    r->ctx = tt_test_ctx(threads, isa);
    r->t = tiny_open(r->ctx, tiny_file("f32.gguf", &(tiny_options){.seed = 5, .f32 = true, .untied = untied}));
    const tt_net *net = r->t.net;
    tt_runner_options o = {.max_rows = ROWS, .max_past = 8, .backward = true, .keep = keep, .weights = true};
    TT_CHECK_OK(tt__runner_create(r->ctx, net, &o, &r->r, &err));
    for (size_t i = 0; i < net->n_weights; i++) {
        tt_param p[TT_MAX_PARAMS] = {{NULL, NULL, net->weights[i].cols, 0, 0}};
        if (net->weights[i].vector) {
            r->x[i] = tt__alloc((size_t)p[0].n * sizeof(float));
            memcpy(r->x[i], net->weights[i].vec, (size_t)p[0].n * sizeof(float));
            tt__runner_set_vec(r->r, i, r->x[i]);
        } else {
            TT_CHECK_OK(tt__linop_trainable(r->ctx, net->weights[i].op, &r->op[i], &err));
            TT_CHECK_EQ(tt__linop_params(r->op[i], p), 1);
            r->x[i] = p[0].x;
            tt__runner_set_op(r->r, i, r->op[i]);
        }
        r->n[i] = p[0].n;
        r->g[i] = tt__alloc((size_t)p[0].n * sizeof(float));
    }
    tt__rng rng;
    tt__rng_seed(&rng, 9);
    for (int i = 0; i < ROWS; i++) r->ids[i] = (int32_t)tt__rng_below(&rng, TINY_V);
    for (int i = 0; i < ROWS; i++) r->target[i] = i % T == T - 1 || i == 4 ? -1 : r->ids[i + 1];
    TT_CHECK_OK(tt__run_embed(r->r, r->ids, ROWS, r->X, &err));
    noise(10, r->k, PREFIX, 0.7);
    noise(11, r->v, PREFIX, 0.7);
    r->prefix = (tt_train_prefix){P, r->k, r->v, r->dk, r->dv};
    r->spec = (tt_loss){.kind = TT_LOSS_CE, .target = r->target};
    clear(r);
}

static void close_rig(rig *r) {
    for (size_t i = 0; i < r->t.net->n_weights; i++) {
        if (!r->op[i]) tt__free(r->x[i]);
        tt__linop_free(r->op[i]);
        tt__free(r->g[i]);
    }
    tt__runner_free(r->r);
    tiny_close(&r->t);
}

/* A made-up teacher: random distributions at temperature 1, K tokens each and the rest. */
static void make_top(rig *r, float temperature) {
    tt__rng rng;
    tt__rng_seed(&rng, 12);
    for (int i = 0; i < ROWS; i++) {
        double sum = 1, w[K];
        for (int j = 0; j < K; j++) {
            r->top_id[i * K + j] = (int32_t)((i * 5 + j * 13) % TINY_V);
            sum += w[j] = exp(1.5 * tt__rng_normal(&rng));
        }
        for (int j = 0; j < K; j++) r->top_logp[i * K + j] = (float)log(w[j] / sum);
        r->rest_logp[i] = (float)-log(sum);
    }
    r->spec = (tt_loss){.kind = TT_LOSS_TOPK, .target = r->target, .k = K, .top_id = r->top_id, .top_logp = r->top_logp, .rest_logp = r->rest_logp, .temperature = temperature};
}

static double loss_of(rig *r, const float *X, bool prefix) {
    tt_err err = {0};
    double loss;
    tt_train_prefix p = {P, r->k, r->v, NULL, NULL};
    TT_CHECK_OK(tt__run_loss_train(r->r, 0, S, T, X, &r->spec, NULL, prefix ? &p : NULL, &loss, NULL, NULL, &err));
    return loss;
}

/* x and its gradient along random directions; `loss` reads the net as it stands. The f32 noise of a mean loss is some 1e-7. */
typedef double (*loss_fn)(rig *r, void *user);

static void check_along(rig *r, int weight, float *x, const float *g, int64_t n, loss_fn loss, void *user) {
    static float u[MOST], at[MOST];
    tt_err err = {0};
    for (int k = 0; k < 3; k++) {
        double l[2], got = 0, size = 0, h = 5e-4;
        noise(200 + (uint64_t)k, u, n, 1);
        memcpy(at, x, (size_t)n * sizeof *x);
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < n; i++) x[i] = (float)((double)at[i] + (side ? -h : h) * (double)u[i]);
            if (weight >= 0 && r->op[weight]) TT_CHECK_OK(tt__linop_params_changed(r->ctx, r->op[weight], &err));
            l[side] = loss(r, user);
        }
        memcpy(x, at, (size_t)n * sizeof *x);
        if (weight >= 0 && r->op[weight]) TT_CHECK_OK(tt__linop_params_changed(r->ctx, r->op[weight], &err));
        for (int64_t i = 0; i < n; i++) got += (double)u[i] * (double)g[i], size += pow((double)u[i] * (double)g[i], 2);
        TT_CHECK(size > 0);
        TT_CHECK_NEAR(got, (l[0] - l[1]) / (2 * h), 0.01 * sqrt(size) + 1e-3);
    }
}

static double whole_loss(rig *r, void *user) { return loss_of(r, r->X, *(bool *)user); }

static double loss_with_look_up(rig *r, void *user) {
    static float X[ROWS * TINY_D];
    tt_err err = {0};
    TT_CHECK_OK(tt__run_embed(r->r, r->ids, ROWS, X, &err));
    return loss_of(r, X, *(bool *)user);
}

static void check_net(rig *r, bool prefix) {
    const tt_net *net = r->t.net;
    static float dX[ROWS * TINY_D];
    tt_train_hooks hooks = {r, wants, matrix, vector};
    tt_err err = {0};
    double loss;
    clear(r);
    TT_CHECK_OK(tt__run_loss_train(r->r, 0, S, T, r->X, &r->spec, &hooks, prefix ? &r->prefix : NULL, &loss, NULL, dX, &err));
    TT_CHECK_NEAR(loss, loss_of(r, r->X, prefix), 1e-6);
    for (size_t i = 0; i < net->n_weights; i++) {
        if (i == net->embd && net->output != net->embd) continue;
        tt_test_note("loss %d, prefix %d: %s", (int)r->spec.kind, prefix, net->weights[i].name);
        check_along(r, (int)i, r->x[i], r->g[i], r->n[i], whole_loss, &prefix);
    }
    for (int i = 0; i < 2 && prefix; i++) {
        tt_test_note("loss %d: learned %s", (int)r->spec.kind, i ? "values" : "keys");
        check_along(r, -1, i ? r->v : r->k, i ? r->dv : r->dk, PREFIX, whole_loss, &prefix);
    }
    float *grad[TT_MAX_PARAMS] = {r->g[net->embd]};          /* the look-up beside the head */
    for (int t = 0; t < ROWS; t++)
        for (int c = 0; c < TINY_D; c++) grad[0][r->ids[t] * TINY_D + c] += dX[t * TINY_D + c];
    tt_test_note("loss %d, prefix %d: embedding in all", (int)r->spec.kind, prefix);
    check_along(r, (int)net->embd, r->x[net->embd], r->g[net->embd], r->n[net->embd], loss_with_look_up, &prefix);
}

TT_CASE(weights_of_a_net) {
    static rig r;
    for (const char *const *level = tt__kernels_levels(); *level; level++) {
        open_rig(&r, 2, *level, TT_KEEP_MOST, false);
        check_net(&r, false);
        check_net(&r, true);
        make_top(&r, 1);
        check_net(&r, true);
        make_top(&r, 2);
        check_net(&r, false);
        close_rig(&r);
    }
    open_rig(&r, 2, NULL, TT_KEEP_ALL, true);
    check_net(&r, true);
    close_rig(&r);
}

/* Neither threads nor policies nor what else is wanted change a bit; layers below the lowest wanted weight are not run, and need not be. */
TT_CASE(threads_and_policies_change_no_bit) {
    static rig first, r;
    tt_err err = {0};
    double loss, loss1;
    open_rig(&first, 1, NULL, TT_KEEP_ALL, false);
    tt_train_hooks hooks = {&first, wants, matrix, vector};
    make_top(&first, 2);
    TT_CHECK_OK(tt__run_loss_train(first.r, 0, S, T, first.X, &first.spec, &hooks, &first.prefix, &loss1, NULL, NULL, &err));
    for (int k = 0; k < 8; k++) {
        open_rig(&r, 1 + k % 3, NULL, (tt_keep)(k % 4), false);
        hooks.user = &r;
        make_top(&r, 2);
        r.from = k < 4 ? 0 : 9 * k / 4;
        if (k >= 4) r.prefix.dk = r.prefix.dv = NULL;
        TT_CHECK_OK(tt__run_loss_train(r.r, 0, S, T, r.X, &r.spec, &hooks, &r.prefix, &loss, NULL, NULL, &err));
        TT_CHECK(loss == loss1);
        for (size_t i = 0; i < r.t.net->n_weights; i++) {
            tt_test_note("run %d, %s", k, r.t.net->weights[i].name);
            TT_CHECK((int)i < r.from || !memcmp(r.g[i], first.g[i], (size_t)r.n[i] * sizeof(float)));
        }
        TT_CHECK(k >= 4 || (!memcmp(r.dk, first.dk, sizeof r.dk) && !memcmp(r.dv, first.dv, sizeof r.dv)));
        close_rig(&r);
    }
    close_rig(&first);
}

/* Learned keys that are those of prompt rows: the same loss and the same gradient of the text's rows. */
TT_CASE(learned_keys_are_a_prefix) {
    static rig r;
    static float X[(P + ROWS) * TINY_D], dX[(P + ROWS) * TINY_D], dX2[ROWS * TINY_D];
    int32_t target[P + ROWS];
    tt_err err = {0};
    tt_prefix *prefix;
    double loss, loss2;
    open_rig(&r, 2, NULL, TT_KEEP_MOST, false);
    tt_runner *long_r = tiny_runner(r.ctx, r.t.net, P + ROWS, false, true, TT_KEEP_ALL);
    noise(30, X, P * TINY_D, 0.5);
    memcpy(X + P * TINY_D, r.X, sizeof r.X);
    for (int i = 0; i < P; i++) target[i] = -1;
    memcpy(target + P, r.target, sizeof r.target);
    TT_CHECK_OK(tt__run_loss(long_r, P, S, T, X, &(tt_loss){.kind = TT_LOSS_CE, .target = target}, &loss, NULL, dX, &err));
    TT_CHECK_OK(tt__prefix_compute(long_r, X, P, TT_KV_F32, &prefix, &err));
    tt_train_prefix p = {P, prefix->k, prefix->v, r.dk, r.dv};
    TT_CHECK_OK(tt__run_loss_train(r.r, 0, S, T, r.X, &r.spec, NULL, &p, &loss2, NULL, dX2, &err));
    TT_CHECK_NEAR(loss, loss2, 1e-6);
    for (int i = 0; i < ROWS * TINY_D; i++) TT_CHECK_NEAR(dX[P * TINY_D + i], dX2[i], 1e-5);
    TT_CHECK_FAILS(TT_USAGE, tt__run_loss_train(long_r, P, S, T, X, &(tt_loss){.kind = TT_LOSS_CE, .target = target}, NULL, &p, &loss, NULL, NULL, &err));
    tt__prefix_free(prefix);
    tt__runner_free(long_r);
    close_rig(&r);
}

/* A cache of every token says what the teacher says, at any temperature; one of some tokens gives the textbook sum over k + 1 buckets. */
TT_CASE(cached_teacher) {
    static rig r;
    static float H[ROWS * TINY_D], z[ROWS * TINY_V], zs[ROWS * TINY_V], logp[ROWS * TINY_V], rest[ROWS], dX[ROWS * TINY_D], dX2[ROWS * TINY_D], row_loss[ROWS];
    static int32_t id[ROWS * TINY_V];
    tt_err err = {0};
    double loss, loss2;
    open_rig(&r, 2, NULL, TT_KEEP_MOST, false);
    tiny o = tiny_open(r.ctx, tiny_file("teacher.gguf", &(tiny_options){.seed = 6}));
    tt_runner *teacher = tiny_runner(r.ctx, o.net, ROWS, false, false, TT_KEEP_BOUNDARY);
    for (int t = 1; t <= 2; t++) {
        int n = 0;
        TT_CHECK_OK(tt__run_hidden(teacher, S, T, r.ids, H, &err));
        TT_CHECK_OK(tt__run_logits(teacher, H, ROWS, z, &err));
        for (int i = 0; i < ROWS; i++) {
            if (r.target[i] < 0) continue;
            double sum = 0;
            for (int v = 0; v < TINY_V; v++) sum += exp((double)z[i * TINY_V + v] / t);
            for (int v = 0; v < TINY_V; v++) {
                id[n * TINY_V + v] = (v * 7 + i) % TINY_V;
                logp[n * TINY_V + v] = (float)((double)z[i * TINY_V + (v * 7 + i) % TINY_V] / t - log(sum));
            }
            rest[n] = -INFINITY;
            memmove(H + n++ * TINY_D, H + i * TINY_D, TINY_D * sizeof *H);
        }
        tt_loss kl = {.kind = TT_LOSS_KL, .target = r.target, .teacher_H = H, .teacher_head = o.net->weights[o.net->output].op, .temperature = (float)t};
        tt_loss top = {.kind = TT_LOSS_TOPK, .target = r.target, .k = TINY_V, .top_id = id, .top_logp = logp, .rest_logp = rest, .temperature = (float)t};
        TT_CHECK_OK(tt__run_loss(r.r, 0, S, T, r.X, &kl, &loss, NULL, dX, &err));
        TT_CHECK_OK(tt__run_loss(r.r, 0, S, T, r.X, &top, &loss2, NULL, dX2, &err));
        TT_CHECK(loss > 0.01);
        TT_CHECK_NEAR(loss, loss2, 2e-6);
        for (int i = 0; i < ROWS * TINY_D; i++) TT_CHECK_NEAR(dX[i], dX2[i], 1e-5);
        top.chunk_rows = 5;
        TT_CHECK_OK(tt__run_loss(r.r, 0, S, T, r.X, &top, &loss2, NULL, dX2, &err));
        TT_CHECK_NEAR(loss, loss2, 2e-6);
    }
    make_top(&r, 2);
    TT_CHECK_OK(tt__run_hidden(r.r, S, T, r.ids, H, &err));
    TT_CHECK_OK(tt__run_logits(r.r, H, ROWS, zs, &err));
    TT_CHECK_OK(tt__run_loss(r.r, 0, S, T, r.X, &r.spec, &loss, row_loss, NULL, &err));
    for (int i = 0, n = 0; i < ROWS; i++) {
        double sum = 0, q_rest = 1, want = 0;
        if (r.target[i] < 0) continue;
        for (int v = 0; v < TINY_V; v++) sum += exp((double)zs[i * TINY_V + v] / 2);
        for (int j = 0; j < K; j++) {
            const double q = exp((double)zs[i * TINY_V + r.top_id[n * K + j]] / 2) / sum, p = exp((double)r.top_logp[n * K + j]);
            q_rest -= q;
            want += p * log(p / q);
        }
        want += exp((double)r.rest_logp[n]) * ((double)r.rest_logp[n] - log(q_rest));
        TT_CHECK_NEAR(row_loss[i], want, 1e-5);
        n++;
    }
    r.top_id[3] = TINY_V;
    TT_CHECK_FAILS(TT_USAGE, tt__run_loss(r.r, 0, S, T, r.X, &r.spec, &loss, NULL, NULL, &err));
    r.spec.k = 0;
    TT_CHECK_FAILS(TT_USAGE, tt__run_loss(r.r, 0, S, T, r.X, &r.spec, &loss, NULL, NULL, &err));
    tt__runner_free(teacher);
    tiny_close(&o);
    close_rig(&r);
}

/* ---- one block ---- */

typedef struct block_case { int layer; const float *X, *Y, *weight; } block_case;

static double block_loss(rig *r, void *user) {
    static float out[ROWS * TINY_D];
    const block_case *b = user;
    tt_err err = {0};
    double loss;
    TT_CHECK_OK(tt__run_block_loss(r->r, b->layer, S, T, b->X, b->Y, b->weight, NULL, &loss, out, &err));
    return loss;
}

TT_CASE(weights_of_a_block) {
    static rig r;
    static float X[ROWS * TINY_D], Y[ROWS * TINY_D], out[ROWS * TINY_D], again[ROWS * TINY_D];
    float weight[ROWS];
    tt_err err = {0};
    double loss, want;
    noise(40, X, ROWS * TINY_D, 1);
    noise(41, Y, ROWS * TINY_D, 1);
    for (int i = 0; i < ROWS; i++) weight[i] = (float)(i % 3);
    for (int k = 0; k < 4; k++) {
        block_case b = {k % TINY_L, X, Y, k % 2 ? weight : NULL};
        open_rig(&r, 1 + k % 3, NULL, (tt_keep)k, false);
        const tt_net *net = r.t.net;
        tt_train_hooks hooks = {&r, wants, matrix, vector};
        clear(&r);
        TT_CHECK_OK(tt__run_block_loss(r.r, b.layer, S, T, X, Y, b.weight, &hooks, &loss, out, &err));
        memcpy(again, X, sizeof X);
        TT_CHECK_OK(tt__run_block(r.r, b.layer, 0, S, T, again, NULL, NULL, -1, &err));
        TT_CHECK(!memcmp(out, again, sizeof out));
        double sum = 0, weights = 0;
        for (int i = 0; i < ROWS; i++) {
            const double w = b.weight ? (double)weight[i] : 1;
            weights += w;
            for (int c = 0; c < TINY_D; c++) sum += w * pow((double)out[i * TINY_D + c] - (double)Y[i * TINY_D + c], 2);
        }
        want = sum / (weights * TINY_D);
        TT_CHECK_NEAR(loss, want, 1e-6 * want);
        TT_CHECK(loss == block_loss(&r, &b));
        for (size_t i = net->layer_first[b.layer]; i < net->layer_first[b.layer + 1]; i++) {
            tt_test_note("block %d: %s", b.layer, net->weights[i].name);
            check_along(&r, (int)i, r.x[i], r.g[i], r.n[i], block_loss, &b);
        }
        TT_CHECK(r.g[net->embd][0] == 0 && r.g[net->output_norm][0] == 0);
        close_rig(&r);
    }
}

TT_CASE(bad_calls_are_refused) {
    static rig r;
    static float out[ROWS * TINY_D];
    const float none[ROWS] = {0};
    tt_err err = {0};
    double loss;
    open_rig(&r, 1, NULL, TT_KEEP_MOST, false);
    tt_train_hooks hooks = {&r, wants, matrix, vector};
    tt_runner *plain = tiny_runner(r.ctx, r.t.net, ROWS, false, true, TT_KEEP_MOST);
    TT_CHECK_FAILS(TT_USAGE, tt__run_loss_train(plain, 0, S, T, r.X, &r.spec, &hooks, NULL, &loss, NULL, NULL, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__run_block_loss(plain, 0, S, T, r.X, r.X, NULL, &hooks, &loss, out, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__run_block_loss(r.r, 0, S, T, r.X, r.X, none, &hooks, &loss, out, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__run_block_loss(r.r, 0, S + 1, T, r.X, r.X, NULL, &hooks, &loss, out, &err));
    tt__runner_free(plain);
    close_rig(&r);
}
