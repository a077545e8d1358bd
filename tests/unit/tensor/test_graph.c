/* The planner and reverse mode on random graphs: invariants hold; sharing storage does not change a bit of the result (against the same
 * graph with a place of its own for every value); gradients are the same whatever is kept; misuse is refused. */
#include "graph_testing.h"

enum { N_INPUTS = 2, DEPTH = 14 };

/* A value that is no prepared one, of WIDTH columns, from those recorded so far; recent ones are likelier, as in real blocks. */
static tt_val pick(tt__rng *rng, const tt_val *v, int n) {
    int back = (int)tt__rng_below(rng, 4);
    return v[back < n && tt__rng_below(rng, 3) ? n - 1 - back : (int)tt__rng_below(rng, (uint64_t)n)];
}

static tt_val random_op(tt_graph *g, tt__rng *rng, const tt_val *v, int n) {
    tt_val a = pick(rng, v, n), b = pick(rng, v, n), p;
    switch (tt__rng_below(rng, 8)) {
    case 0: return tt__g_rmsnorm(g, a, (int)tt__rng_below(rng, N_SLOTS), 1e-5f);
    case 1: return tt__g_add(g, a, b);
    case 2: return tt__g_silu_mul(g, a, b);
    case 3: return tt__g_rope(g, a, HEADS, HEAD, INV_FREQ, tt__rng_below(rng, 2));
    case 4: return tt__g_copy(g, a);
    case 5: return tt__g_linear(g, tt__g_prep(g, a), 3 + (int)tt__rng_below(rng, 3), WIDTH, WIDTH);
    case 6:
        p = tt__g_prep(g, a);
        return tt__g_add(g, tt__g_linear(g, p, 0, WIDTH, WIDTH), tt__g_linear(g, p, 1, WIDTH, WIDTH));
    default:
        p = tt__g_prep(g, tt__g_rmsnorm(g, b, 0, 1e-5f));
        return tt__g_attention(g, tt__g_linear(g, p, 0, WIDTH, WIDTH), tt__g_linear(g, p, 2, HEADS_KV * HEAD, WIDTH),
                               tt__g_linear(g, p, 2, HEADS_KV * HEAD, WIDTH), HEADS, HEADS_KV, HEAD, 0.35f);
    }
}

static tt_graph *random_graph(tt_ctx *ctx, uint64_t seed, bool backward, tt_keep keep) {
    tt_graph *g;
    tt_err err = {0};
    tt__rng rng;
    tt_val v[N_INPUTS + DEPTH + 1];
    tt__rng_seed(&rng, seed);
    TT_CHECK_OK(tt__graph_create(ctx, &g, &err));
    v[0] = tt__g_input(g, "x", WIDTH);
    v[1] = tt__g_input(g, "z", WIDTH);
    int n = N_INPUTS;
    for (int i = 0; i < DEPTH; i++, n++) v[n] = random_op(g, &rng, v, n);
    v[n] = tt__g_add(g, tt__g_rmsnorm(g, v[n - 1], 0, 1e-5f), v[0]);
    tt__g_output(g, v[n], "y");
    if (backward) TT_CHECK_OK(tt__graph_backward(g, v[n], v[0], keep, &err));
    TT_CHECK_OK(tt__graph_plan(g, ROWS + 2, 0, &err));
    return g;
}

/* Every value in a place of its own. */
static void spread(tt_graph *g) {
    g->workspace = 0;
    for (int32_t i = 0; i < g->n_vals; i++) {
        tt_value *v = &g->vals[i];
        v->root = i;
        v->offset = g->workspace;
        v->bytes = v->kind == TT_VAL_ACT ? (tt__act_bytes(g->max_rows, v->cols) + 63) / 64 * 64 : (uint64_t)g->max_rows * (uint64_t)v->cols * sizeof(float) + 64;
        v->bytes = (v->bytes + 63) / 64 * 64;
        g->workspace += v->bytes;
    }
    g->kept_cols = 0;
    for (int32_t i = 0; i < g->n_vals; i++) {
        g->vals[i].kept_cols = g->kept_cols;
        if (g->vals[i].kept) g->kept_cols += g->vals[i].cols;
    }
}

typedef struct result { float y[ROWS * WIDTH], dx[ROWS * WIDTH]; } result;

static void run(tt_graph *g, const weights *w, bool backward, bool kept_in_forward, result *out) {
    tt_err err = {0};
    static float x[ROWS * WIDTH], z[ROWS * WIDTH], dy[ROWS * WIDTH];
    tt__rng rng;
    tt__rng_seed(&rng, 5);
    fill(&rng, x, ROWS * WIDTH, 1);
    fill(&rng, z, ROWS * WIDTH, 1);
    fill(&rng, dy, ROWS * WIDTH, 1);
    void *ws = tt__alloc(tt__graph_workspace(g)), *kept = tt__alloc(tt__graph_kept_bytes(g, ROWS));
    memset(ws, 0xa5, tt__graph_workspace(g));
    tt_env env = batch_env(w);
    TT_CHECK_OK(tt__graph_bind(g, "x", x, WIDTH, &err));
    TT_CHECK_OK(tt__graph_bind(g, "z", z, WIDTH, &err));
    TT_CHECK_OK(tt__graph_bind(g, "y", out->y, WIDTH, &err));
    TT_CHECK_OK(tt__graph_forward(g, &env, ws, kept_in_forward ? kept : NULL, NULL, NULL, -1, &err));
    if (backward) {
        memset(ws, 0x5a, tt__graph_workspace(g));           /* nothing may survive in the workspace */
        TT_CHECK_OK(tt__graph_bind(g, "d:y", dy, WIDTH, &err));
        TT_CHECK_OK(tt__graph_bind(g, "d:x", out->dx, WIDTH, &err));
        TT_CHECK_OK(tt__graph_backprop(g, &env, ws, kept, &err));
    }
    tt__free(ws);
    tt__free(kept);
}

TT_CASE(random_graphs) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    weights w = {0};
    make_weights(ctx, &w);
    for (uint64_t seed = 1; seed <= 150; seed++) {
        static result first, other;
        tt_test_note("seed %d", (int)seed);
        tt_graph *g = random_graph(ctx, seed, false, TT_KEEP_ALL);
        TT_CHECK(tt__graph_is_valid(g));
        run(g, &w, false, false, &first);
        spread(g);
        run(g, &w, false, false, &other);
        TT_CHECK(!memcmp(first.y, other.y, sizeof first.y));
        tt__graph_free(g);
        for (int keep = TT_KEEP_BOUNDARY; keep <= TT_KEEP_ALL; keep++) {
            tt_test_note("seed %d, keep %d", (int)seed, keep);
            g = random_graph(ctx, seed, true, (tt_keep)keep);
            TT_CHECK(tt__graph_is_valid(g));
            TT_CHECK(keep != TT_KEEP_BOUNDARY || tt__graph_kept_bytes(g, ROWS) == 0);
            result r;
            run(g, &w, true, true, &r);
            TT_CHECK(!memcmp(first.y, r.y, sizeof r.y));
            if (keep == TT_KEEP_BOUNDARY) memcpy(first.dx, r.dx, sizeof r.dx);
            TT_CHECK(!memcmp(first.dx, r.dx, sizeof r.dx));
            spread(g);
            run(g, &w, true, true, &other);
            TT_CHECK(!memcmp(first.dx, other.dx, sizeof other.dx));
            tt__graph_free(g);
        }
    }
    free_weights(&w);
}

/* A block in place: the output may be bound to the input's buffer, the gradient to the buffer of d(out). */
TT_CASE(in_place_block) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    weights w = {0};
    tt_err err = {0};
    make_weights(ctx, &w);
    static float x[ROWS * WIDTH], y[ROWS * WIDTH], d[ROWS * WIDTH], dx[ROWS * WIDTH];
    tt__rng rng;
    tt__rng_seed(&rng, 5);
    fill(&rng, x, ROWS * WIDTH, 1);
    fill(&rng, d, ROWS * WIDTH, 1);
    tt_graph *g;
    TT_CHECK_OK(tt__graph_create(ctx, &g, &err));
    tt_val in = tt__g_input(g, "x", WIDTH), h = tt__g_add(g, in, tt__g_linear(g, tt__g_prep(g, tt__g_rmsnorm(g, in, 0, 1e-5f)), 0, WIDTH, WIDTH));
    tt_val out = tt__g_add(g, h, tt__g_linear(g, tt__g_prep(g, tt__g_rmsnorm(g, h, 1, 1e-5f)), 1, WIDTH, WIDTH));
    tt__g_output(g, out, "y");
    TT_CHECK_OK(tt__graph_backward(g, out, in, TT_KEEP_BOUNDARY, &err));
    TT_CHECK_OK(tt__graph_plan(g, ROWS, 0, &err));
    void *ws = tt__alloc(tt__graph_workspace(g));
    tt_env env = batch_env(&w);
    TT_CHECK_OK(tt__graph_bind(g, "x", x, WIDTH, &err));
    TT_CHECK_OK(tt__graph_bind(g, "y", y, WIDTH, &err));
    TT_CHECK_OK(tt__graph_forward(g, &env, ws, NULL, NULL, NULL, -1, &err));
    TT_CHECK_OK(tt__graph_bind(g, "d:y", d, WIDTH, &err));
    TT_CHECK_OK(tt__graph_bind(g, "d:x", dx, WIDTH, &err));
    TT_CHECK_OK(tt__graph_backprop(g, &env, ws, NULL, &err));
    TT_CHECK_OK(tt__graph_bind(g, "d:x", d, WIDTH, &err));
    TT_CHECK_OK(tt__graph_backprop(g, &env, ws, NULL, &err));
    TT_CHECK(!memcmp(d, dx, sizeof d));
    TT_CHECK_OK(tt__graph_bind(g, "y", x, WIDTH, &err));
    TT_CHECK_OK(tt__graph_forward(g, &env, ws, NULL, NULL, NULL, -1, &err));
    TT_CHECK(!memcmp(x, y, sizeof x));
    double forward = tt__graph_macs(g, &env, false), backward = tt__graph_macs(g, &env, true);
    TT_CHECK(forward >= 2.0 * ROWS * WIDTH * WIDTH && backward > 2.0 * ROWS * WIDTH * WIDTH);
    tt__str s = {0};
    tt__graph_print(g, &s);
    TT_CHECK(s.s && strstr(s.s, "rmsnorm'") && strstr(s.s, "'d:x'"));
    tt__str_free(&s);
    tt__free(ws);
    tt__graph_free(g);
    free_weights(&w);
}

typedef struct seen { int id[8], n; float first[8]; } seen;
static void note_tap(void *user, int id, const float *x, int64_t ldx, int64_t rows, int64_t n) {
    seen *s = user;
    TT_CHECK(ldx >= n && rows == ROWS && n == WIDTH);
    s->id[s->n] = id;
    s->first[s->n++] = x[0];
}

TT_CASE(taps_show_values_and_stop) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    weights w = {0};
    tt_err err = {0};
    make_weights(ctx, &w);
    static float x[ROWS * WIDTH], y[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) x[i] = 1;
    tt_graph *g;
    TT_CHECK_OK(tt__graph_create(ctx, &g, &err));
    tt_val in = tt__g_input(g, "x", WIDTH), a = tt__g_add(g, in, in);
    tt__g_tap(g, a, 0);
    tt_val b = tt__g_add(g, a, in);
    tt__g_tap(g, b, 1);
    tt__g_output(g, tt__g_add(g, b, in), "y");
    TT_CHECK_OK(tt__graph_plan(g, ROWS, 0, &err));
    void *ws = tt__alloc(tt__graph_workspace(g));
    tt_env env = batch_env(&w);
    TT_CHECK_OK(tt__graph_bind(g, "x", x, WIDTH, &err));
    TT_CHECK_OK(tt__graph_bind(g, "y", y, WIDTH, &err));
    seen s = {0};
    TT_CHECK_OK(tt__graph_forward(g, &env, ws, NULL, note_tap, &s, 0, &err));
    TT_CHECK(s.n == 1 && s.id[0] == 0 && s.first[0] == 2 && y[0] == 0);
    s.n = 0;
    TT_CHECK_OK(tt__graph_forward(g, &env, ws, NULL, note_tap, &s, -1, &err));
    TT_CHECK(s.n == 2 && s.id[1] == 1 && s.first[1] == 3 && y[0] == 4);
    tt__free(ws);
    tt__graph_free(g);
    free_weights(&w);
}

TT_CASE(misuse_is_refused) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    weights w = {0};
    tt_err err = {0};
    make_weights(ctx, &w);
    static float x[2 * ROWS * WIDTH];
    tt_graph *g;
    TT_CHECK_OK(tt__graph_create(ctx, &g, &err));
    tt_val in = tt__g_input(g, "x", WIDTH), other = tt__g_input(g, "w", WIDTH / 2);
    tt__g_add(g, in, other);                                       /* columns differ: sticks */
    tt__g_output(g, tt__g_copy(g, in), "y");
    TT_CHECK_FAILS(TT_FAIL, tt__graph_plan(g, ROWS, 0, &err));
    TT_CHECK(strstr(err.where, "add"));
    tt__graph_free(g);

    TT_CHECK_OK(tt__graph_create(ctx, &g, &err));
    in = tt__g_input(g, "x", WIDTH);
    other = tt__g_input(g, "w", WIDTH);
    tt_val y = tt__g_copy(g, in);
    tt__g_output(g, y, "y");
    TT_CHECK_FAILS(TT_FAIL, tt__graph_backward(g, y, other, TT_KEEP_ALL, &err));     /* y does not depend on w */
    tt__graph_free(g);

    TT_CHECK_OK(tt__graph_create(ctx, &g, &err));
    in = tt__g_input(g, "x", WIDTH);
    tt__g_output(g, tt__g_rmsnorm(g, in, 0, 1e-5f), "y");
    TT_CHECK_OK(tt__graph_plan(g, ROWS, 0, &err));
    tt_env env = batch_env(&w);
    char ws[64];
    TT_CHECK_FAILS(TT_FAIL, tt__graph_forward(g, &env, ws, NULL, NULL, NULL, -1, &err));    /* nothing bound */
    TT_CHECK_FAILS(TT_FAIL, tt__graph_bind(g, "nothing", x, WIDTH, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__graph_bind(g, "x", x, WIDTH - 1, &err));
    TT_CHECK_OK(tt__graph_bind(g, "x", x, WIDTH, &err));
    TT_CHECK_OK(tt__graph_bind(g, "y", x, WIDTH, &err));
    TT_CHECK_OK(tt__graph_forward(g, &env, ws, NULL, NULL, NULL, -1, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__graph_backprop(g, &env, ws, NULL, &err));
    env.rows = ROWS + 1;
    TT_CHECK_FAILS(TT_FAIL, tt__graph_forward(g, &env, ws, NULL, NULL, NULL, -1, &err));
    env.P_rows++;
    TT_CHECK_FAILS(TT_USAGE, tt__graph_forward(g, &env, ws, NULL, NULL, NULL, -1, &err));
    tt__graph_free(g);
    free_weights(&w);
}

static tt_status make_one(void *arg, tt_err *err) {
    tt_graph *g;
    TT_TRY(tt__graph_create(arg, &g, err));
    tt_val in = tt__g_input(g, "x", WIDTH), y = tt__g_add(g, in, tt__g_rmsnorm(g, in, 0, 1e-5f));
    tt__g_output(g, y, "y");
    tt_status st = tt__graph_backward(g, y, in, TT_KEEP_BOUNDARY, err);
    if (st == TT_OK) st = tt__graph_plan(g, ROWS, 0, err);
    tt__graph_free(g);
    return st;
}

TT_CASE(out_of_memory) { TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, make_one, tt_test_ctx(1, NULL)) > 4); }
