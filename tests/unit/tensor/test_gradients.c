/* Every op of ops.inc against central differences: with a fixed random W, loss = Σ W ⊙ y summed in f64, d loss / d x_i is compared with
 * (loss(x_i + h) - loss(x_i - h)) / 2h for every element of every input, on a batch with prefix rows and two sequences.
 * Tolerance: f32 forward values carry about 1e-6, so the difference quotient with h = 1e-2 carries about 1e-4 plus the third-order
 * term; 3e-3 of the largest gradient is an order of magnitude above both and far below any mistake. */
#include "graph_testing.h"
#include <sys/wait.h>

typedef struct op_case { const char *op, *what; int n_in; int64_t cols[3]; tt_val (*build)(tt_graph *g, const tt_val *in); double scale; } op_case;

static tt_val build_rmsnorm(tt_graph *g, const tt_val *in) { return tt__g_rmsnorm(g, in[0], 0, 1e-5f); }
static tt_val build_residual_norm(tt_graph *g, const tt_val *in) { return tt__g_add(g, in[0], tt__g_rmsnorm(g, in[0], 1, 1e-5f)); }
static tt_val build_linear(tt_graph *g, const tt_val *in) { return tt__g_linear(g, tt__g_prep(g, in[0]), 1, WIDTH, WIDTH); }
static tt_val build_narrow(tt_graph *g, const tt_val *in) { return tt__g_linear(g, tt__g_prep(g, in[0]), 2, HEADS_KV * HEAD, WIDTH); }
static tt_val build_shared_prep(tt_graph *g, const tt_val *in) {
    tt_val a = tt__g_prep(g, in[0]);
    return tt__g_add(g, tt__g_linear(g, a, 0, WIDTH, WIDTH), tt__g_linear(g, a, 1, WIDTH, WIDTH));
}
static tt_val build_rope(tt_graph *g, const tt_val *in) { return tt__g_rope(g, in[0], HEADS, HEAD, INV_FREQ, false); }
static tt_val build_rope_adjacent(tt_graph *g, const tt_val *in) { return tt__g_rope(g, in[0], HEADS, HEAD, INV_FREQ, true); }
static tt_val build_attention(tt_graph *g, const tt_val *in) { return tt__g_attention(g, in[0], in[1], in[2], HEADS, HEADS_KV, HEAD, 0.35f); }
static tt_val build_silu_mul(tt_graph *g, const tt_val *in) { return tt__g_silu_mul(g, in[0], in[1]); }
static tt_val build_add(tt_graph *g, const tt_val *in) { return tt__g_add(g, in[0], in[1]); }
static tt_val build_double(tt_graph *g, const tt_val *in) { return tt__g_add(g, in[0], in[0]); }
static tt_val build_copy(tt_graph *g, const tt_val *in) { return tt__g_copy(g, in[0]); }

static const op_case cases[] = {
    {"rmsnorm", "plain", 1, {WIDTH}, build_rmsnorm, 1},
    {"rmsnorm", "odd width", 1, {2 * WIDTH - 3}, build_rmsnorm, 0.5},
    {"rmsnorm", "beside a residual", 1, {WIDTH}, build_residual_norm, 1},
    {"prep", "shared by two operators", 1, {WIDTH}, build_shared_prep, 1},
    {"linear", "Q8_0", 1, {WIDTH}, build_linear, 1},
    {"linear", "fewer outputs", 1, {WIDTH}, build_narrow, 1},
    {"rope", "halves", 1, {WIDTH}, build_rope, 1},
    {"rope", "neighbours", 1, {WIDTH}, build_rope_adjacent, 1},
    {"attention", "grouped heads, prefix rows", 3, {WIDTH, HEADS_KV * HEAD, HEADS_KV * HEAD}, build_attention, 1},
    {"silu_mul", "plain", 2, {WIDTH, WIDTH}, build_silu_mul, 2},
    {"add", "two inputs", 2, {WIDTH, WIDTH}, build_add, 1},
    {"add", "one input twice", 1, {WIDTH}, build_double, 1},
    {"copy", "plain", 1, {WIDTH}, build_copy, 1},
};

enum { MAX = ROWS * 2 * WIDTH };
static const char *const input_name[3] = {"a", "b", "c"};

typedef struct rig { tt_graph *g; tt_env env; void *ws; uint8_t *kept; float x[3][MAX], y[MAX], w[MAX], dy[MAX], dx[MAX]; int64_t out; } rig;

static void make_rig(rig *r, tt_ctx *ctx, const op_case *c, const weights *w, int wrt) {
    tt_err err = {0};
    tt_val in[3];
    tt__rng rng;
    tt__rng_seed(&rng, 11);
    TT_CHECK_OK(tt__graph_create(ctx, &r->g, &err));
    for (int i = 0; i < c->n_in; i++) in[i] = tt__g_input(r->g, input_name[i], c->cols[i]);
    tt_val y = c->build(r->g, in);
    tt__g_output(r->g, y, "y");
    r->out = r->g->vals[y].cols;
    TT_CHECK_OK(tt__graph_backward(r->g, y, in[wrt], TT_KEEP_ALL, &err));
    TT_CHECK_OK(tt__graph_plan(r->g, ROWS, 0, &err));
    TT_CHECK(tt__graph_is_valid(r->g));
    r->ws = tt__alloc(tt__graph_workspace(r->g));
    r->kept = tt__alloc(tt__graph_kept_bytes(r->g, ROWS));
    r->env = batch_env(w);
    for (int i = 0; i < c->n_in; i++) {
        fill(&rng, r->x[i], ROWS * c->cols[i], c->scale);
        TT_CHECK_OK(tt__graph_bind(r->g, input_name[i], r->x[i], c->cols[i], &err));
    }
    fill(&rng, r->w, ROWS * r->out, 1);
    memcpy(r->dy, r->w, sizeof r->dy);
    TT_CHECK_OK(tt__graph_bind(r->g, "y", r->y, r->out, &err));
    TT_CHECK_OK(tt__graph_bind(r->g, "d:y", r->dy, r->out, &err));
    char name[4] = {'d', ':', input_name[wrt][0], 0};
    TT_CHECK_OK(tt__graph_bind(r->g, name, r->dx, c->cols[wrt], &err));
}

static void free_rig(rig *r) {
    tt__graph_free(r->g);
    tt__free(r->ws);
    tt__free(r->kept);
}

static double loss(rig *r, void *kept) {
    tt_err err = {0};
    double sum = 0;
    TT_CHECK_OK(tt__graph_forward(r->g, &r->env, r->ws, kept, NULL, NULL, -1, &err));
    for (int64_t i = 0; i < ROWS * r->out; i++) sum += (double)r->y[i] * (double)r->w[i];
    return sum;
}

static double quotient(rig *r, float *x, double h) {
    float at = *x, up = (float)((double)at + h), down = (float)((double)at - h);
    *x = up;
    double a = loss(r, NULL);
    *x = down;
    double b = loss(r, NULL);
    *x = at;
    return (a - b) / ((double)up - (double)down);
}

static void check_input(tt_ctx *ctx, const op_case *c, const weights *w, int wrt) {
    static rig r;
    tt_err err = {0};
    double largest = 0;
    tt_test_note("%s (%s), input %d", c->op, c->what, wrt);
    make_rig(&r, ctx, c, w, wrt);
    loss(&r, r.kept);
    TT_CHECK_OK(tt__graph_backprop(r.g, &r.env, r.ws, r.kept, &err));
    for (int64_t i = 0; i < ROWS * c->cols[wrt]; i++) if (fabs((double)r.dx[i]) > largest) largest = fabs((double)r.dx[i]);
    TT_CHECK(largest > 0.1);
    for (int64_t i = 0; i < ROWS * c->cols[wrt]; i++) {
        tt_test_note("%s (%s), input %d, row %d column %d", c->op, c->what, wrt, (int)(i / c->cols[wrt]), (int)(i % c->cols[wrt]));
        TT_CHECK_NEAR(r.dx[i], quotient(&r, &r.x[wrt][i], 1e-2), 3e-3 * largest);
    }
    free_rig(&r);
}

static void check_all(const char *isa) {
    tt_ctx *ctx = tt_test_ctx(2, isa);
    weights w = {0};
    make_weights(ctx, &w);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int wrt = 0; wrt < cases[i].n_in; wrt++) check_input(ctx, &cases[i], &w, wrt);
    free_weights(&w);
}

TT_CASE(gradients_scalar) { check_all("scalar"); }
TT_CASE(gradients_best) { check_all(NULL); }

/* ---- the same cases against PyTorch's autograd, where python3 has it (torch_gradients.py) ---- */

static void put_floats(tt__str *s, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) tt__str_printf(s, "%s%.9g", i ? "," : "[", (double)x[i]);
    tt__str_puts(s, "]");
}

static void put_weights(tt__str *s, const weights *w) {
    float row[WIDTH];
    for (int i = 0; i < N_SLOTS; i++) {
        tt__str_puts(s, i ? ",[" : "\"weights\":[[");
        for (int64_t r = 0; r < w->op[i]->rows; r++) {
            tt__linop_rows(w->op[i], r, r + 1, row);
            if (r) tt__str_puts(s, ",");
            put_floats(s, row, WIDTH);
        }
        tt__str_puts(s, "]");
    }
    for (int i = 0; i < N_SLOTS; i++) {
        tt__str_puts(s, i ? "," : "],\"gains\":[");
        put_floats(s, w->vec[i], 2 * WIDTH);
    }
    tt__str_puts(s, "]");
}

static void put_case(tt__str *s, tt_ctx *ctx, const op_case *c, const weights *w, int wrt) {
    static rig r;
    tt_err err = {0};
    make_rig(&r, ctx, c, w, wrt);
    loss(&r, r.kept);
    TT_CHECK_OK(tt__graph_backprop(r.g, &r.env, r.ws, r.kept, &err));
    tt__str_printf(s, "{\"op\":\"%s\",\"what\":\"%s\",\"wrt\":%d,\"x\":[", c->op, c->what, wrt);
    for (int i = 0; i < c->n_in; i++) {
        if (i) tt__str_puts(s, ",");
        put_floats(s, r.x[i], ROWS * c->cols[i]);
    }
    tt__str_puts(s, "],\"w\":");
    put_floats(s, r.w, ROWS * r.out);
    tt__str_puts(s, ",\"dx\":");
    put_floats(s, r.dx, ROWS * c->cols[wrt]);
    tt__str_puts(s, "}");
    free_rig(&r);
}

TT_CASE(gradients_against_pytorch) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    weights w = {0};
    tt__str s = {0};
    char command[4400];
    make_weights(ctx, &w);
    tt__str_printf(&s, "{\"shape\":{\"P\":%d,\"S\":%d,\"T\":%d,\"H\":%d,\"Hkv\":%d,\"D\":%d},\"inv_freq\":", P_ROWS, SEQS, STEPS, HEADS, HEADS_KV, HEAD);
    put_floats(&s, INV_FREQ, HEAD / 2);
    tt__str_puts(&s, ",");
    put_weights(&s, &w);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int wrt = 0; wrt < cases[i].n_in; wrt++) {
            tt__str_puts(&s, i || wrt ? "," : ",\"cases\":[");
            put_case(&s, ctx, &cases[i], &w, wrt);
        }
    tt__str_puts(&s, "]}");
    TT_CHECK(!s.failed);
    snprintf(command, sizeof command, "python3 tests/unit/tensor/torch_gradients.py '%s'", tt_test_file("cases.json", s.s, s.n));
    tt__str_free(&s);
    free_weights(&w);
    int status = system(command);
    if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 127) TT_SKIP("python3 without PyTorch");
    TT_CHECK_EQ(WEXITSTATUS(status), 0);
}

/* A line of ops.inc without a case here fails. */
TT_CASE(every_op_has_a_case) {
    static const char *const ops[] = {
#define TT_OP(name) #name,
#include "tensor/ops.inc"
#undef TT_OP
    };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        bool found = false;
        for (size_t j = 0; j < sizeof cases / sizeof *cases; j++) found |= !strcmp(cases[j].op, ops[i]);
        tt_test_note("op %s of ops.inc has no gradient case", ops[i]);
        TT_CHECK(found);
    }
}
