/* rope: rotary positions (Su et al. 2021, arXiv 2104.09864). At position p, pair i of a head turns by the angle p θ_i:
 *     (a, b) → (a cos - b sin, b cos + a sin)
 * Pairs are (x_i, x_{i+D/2}) or, for rows in GGUF order, (x_{2i}, x_{2i+1}). The gradient turns back by the same angle. Cosines and
 * sines come from the graph's table, [position, D/2, 2]. */
#include "tensor/op.h"

typedef struct args { tt_mat x, y; const float *table; const tt_env *env; int64_t heads, half; bool adjacent; float sign; } args;

static int64_t position(const tt_env *e, int64_t row) { return row < e->P_rows ? row : e->pos0 + (row - e->P_rows) % e->T; }

static void turn_halves(float *y, const float *x, const float *cs, int64_t half, float sign) {
    for (int64_t i = 0; i < half; i++) {
        float c = cs[2 * i], s = sign * cs[2 * i + 1], a = x[i], b = x[i + half];
        y[i] = a * c - b * s;
        y[i + half] = b * c + a * s;
    }
}

static void turn_neighbours(float *y, const float *x, const float *cs, int64_t half, float sign) {
    for (int64_t i = 0; i < half; i++) {
        float c = cs[2 * i], s = sign * cs[2 * i + 1], a = x[2 * i], b = x[2 * i + 1];
        y[2 * i] = a * c - b * s;
        y[2 * i + 1] = b * c + a * s;
    }
}

static void turn_rows(const void *arg, int64_t r0, int64_t r1) {
    const args *a = arg;
    for (int64_t r = r0; r < r1; r++) {
        const float *cs = a->table + position(a->env, r) * a->half * 2;
        for (int64_t h = 0; h < a->heads; h++) {
            const float *x = a->x.x + r * a->x.ld + h * 2 * a->half;
            float *y = a->y.x + r * a->y.ld + h * 2 * a->half;
            if (a->adjacent) turn_neighbours(y, x, cs, a->half, a->sign);
            else turn_halves(y, x, cs, a->half, a->sign);
        }
    }
}

static void turn(const tt_run *r, const tt_node *n, float sign) {
    args a = {tt__run_mat(r, n->in[0]), tt__run_mat(r, n->out[0]), r->g->rope, r->env, n->p.H, n->p.D / 2, n->p.adjacent, sign};
    tt__over_rows(r->ctx, tt__run_rows(r), a.x.cols, turn_rows, &a);
}

static void forward(const tt_run *r, const tt_node *n, int count) { (void)count; turn(r, n, 1); }
static void backward(const tt_run *r, const tt_node *n, int count) { (void)count; turn(r, n, -1); }

static void gradient(tt_graph *g, const tt_node *n) {
    tt_val dy = tt__g_grad(g, n->out[0]), dx = tt__g_grad_value(g, g->vals[n->in[0]].cols);
    tt__g_grad_node(g, &tt__op_rope, &dy, 1, &dx, 1, &n->p);
    tt__g_grad_add(g, n->in[0], dx);
}

static double macs(const tt_graph *g, const tt_node *n, const tt_env *env) { return 2.0 * (double)env->rows * (double)g->vals[n->in[0]].cols; }

const tt_op tt__op_rope = {.name = "rope", .in_place = 1, .grad_in_place = 1, .forward = forward, .gradient = gradient, .backward = backward, .macs = macs};

tt_val tt__g_rope(tt_graph *g, tt_val x, int64_t heads, int64_t head_dim, const float *inv_freq, bool adjacent) {
    if (!tt__g_is_rows(g, x, heads * head_dim) || head_dim < 2 || head_dim % 2 || (g->rope_half && (g->rope_half != head_dim / 2 || g->rope_inv != inv_freq))) {
        tt__g_fail(g, "bad arguments", "rope");
        return -1;
    }
    g->rope_half = head_dim / 2;
    g->rope_inv = inv_freq;
    return tt__g_op1(g, &tt__op_rope, &x, 1, &(tt_params){.H = heads, .D = head_dim, .adjacent = adjacent}, TT_VAL_ROWS, g->vals[x].cols);
}
