/* slide2: half of the weights go, chosen so that the rest runs at full speed; what is cut and rounded is made good by the columns to the
 * right, as in sparsegpt (the walk is in obs.c; weights.md A3, arXiv 2301.00774).
 *
 * The pattern: the s-th kept weight of a row lies in one of the columns 2s-1 … 2s+2, and 64 columns keep 32. Such a mask costs a bit per
 * weight, as any half does, but a 2-bit place per kept weight is what a byte shuffle wants (kernels/slide2.h). Every 2:4 mask is one. Share
 * of Σw² lost, normal weights: unstructured 7.1 %, slide2 10.0, 4:8 10.3, 2:4 13.3.
 *
 * The mask: of all masks of the pattern the one that keeps the largest Σ w_j² / U_jj². Let k weights be kept of the first 2m columns; then
 * k - m is -1, 0 or 1, so a programme over pairs of columns with three states finds it, V_m(k - m) with scores a, b of columns 2m, 2m + 1:
 *
 *     V_{m+1}(-1) = max { V_m(-1) + a, V_m(0) }
 *     V_{m+1}( 0) = max { V_m(-1) + a + b, V_m(0) + a, V_m(0) + b, V_m(1) }
 *     V_{m+1}( 1) = max { V_m(0) + a + b, V_m(1) + b }                              V_0(0) = 0, the end is state 0
 *
 * It is run again every `step` columns with the weights as updated by then, from the state reached; the next `step` columns are kept to. Once
 * per 64 columns is the default: every 16, a 135 M model lost 0.053 nats more (0.009 to 0.097, 40 windows).
 *
 * A model that is sparse already goes through the same way: its zeros have no score, so what fits the pattern stays.
 *
 * Cost: as sparsegpt; 3 + 16/group bits per weight, bits = 0: 1 + 16/2.
 */
#include "methods/weights/obs.h"

#include <math.h>

/* ------------------------------------------------------------ the mask ---- */

enum { PAIRS = 32, STATES = 3, TAKE_A = 1, TAKE_B = 2, FROM = 2 };     /* a move: which columns are taken, and the state before << FROM */
#define MOST 1e30f                                                     /* a score beyond any that is not of damaged statistics: sums stay finite */
#define NEVER -1e38f
typedef float lane_row[TT_LANES];
typedef uint8_t lane_moves[TT_LANES];

static inline void offer(float *best, uint8_t *move, float value, int from, int take) {
    if (value > *best) *best = value, *move = (uint8_t)(from << FROM | take);
}

/* One pair of columns: V in place, and the move into each state. */
static void advance(lane_row V[STATES], const float *score_a, const float *score_b, lane_moves move[STATES]) {
    for (int l = 0; l < TT_LANES; l++) {
        const float behind = V[0][l], level = V[1][l], ahead = V[2][l], a = fminf(score_a[l], MOST), b = fminf(score_b[l], MOST);
        float n0 = behind + a, n1 = behind + a + b, n2 = level + a + b;
        uint8_t m0 = 0 << FROM | TAKE_A, m1 = 0 << FROM | TAKE_A | TAKE_B, m2 = 1 << FROM | TAKE_A | TAKE_B;
        offer(&n0, &m0, level, 1, 0);
        offer(&n1, &m1, level + a, 1, TAKE_A);
        offer(&n1, &m1, level + b, 1, TAKE_B);
        offer(&n1, &m1, ahead, 2, 0);
        offer(&n2, &m2, ahead + b, 2, TAKE_B);
        V[0][l] = n0, V[1][l] = n1, V[2][l] = n2;
        move[0][l] = m0, move[1][l] = m1, move[2][l] = m2;
    }
}

void tt__slide2_choose(const float (*score)[TT_LANES], int64_t n, const int *ahead, float (*keep)[TT_LANES]) {
    lane_row V[STATES];
    lane_moves move[PAIRS][STATES];
    int state[TT_LANES];
    for (int l = 0; l < TT_LANES; l++) {
        for (int s = 0; s < STATES; s++) V[s][l] = s == ahead[l] + 1 ? 0 : NEVER;
        state[l] = 1;
    }
    for (int64_t i = 0; i < n / 2; i++) advance(V, score[2 * i], score[2 * i + 1], move[i]);
    for (int l = 0; n % 2 && l < TT_LANES; l++) {                       /* a last single column: taken from level, left from ahead */
        keep[n - 1][l] = V[1][l] + fminf(score[n - 1][l], MOST) >= V[2][l];
        if (keep[n - 1][l] == 0) state[l] = 2;
    }
    for (int64_t i = n / 2 - 1; i >= 0; i--)
        for (int l = 0; l < TT_LANES; l++) {
            const int m = move[i][state[l]][l];
            keep[2 * i][l] = m & TAKE_A ? 1 : 0;
            keep[2 * i + 1][l] = m & TAKE_B ? 1 : 0;
            state[l] = m >> FROM;
        }
}

/* ------------------------------------------------------------ the method ---- */

static const tt_knob knobs[] = {
    {"bits", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "0|4", "4", NULL, "bits of the kept weights, rounded in the same pass; 0: 16-bit floats"},
    {"group", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "64|128", "64", "bits>0", "columns that share a scale (half as many kept weights)"},
    {"step", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "8|16|32|64", "64", NULL, "columns decided before the mask is chosen again"},
    {"damp", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "0.01", NULL, "share of the mean diagonal added to the Hessian; raised tenfold where that fails"},
    {"block", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "128|256", "128", NULL, "columns between two updates of the rest"},
    {"sequential", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "false", NULL, "within a block, collect inputs again after each compressed stage"},
};

static unsigned wants(const tt_knobs *k) {
    (void)k;
    return TT_WANT_HESSIAN;
}

static bool sequential(const tt_knobs *k) { return tt__knob_b(k, "sequential"); }

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    int bits = (int)tt__knob_i(k, "bits"), group = (int)tt__knob_i(k, "group");
    tt_obs o = {.block = tt__knob_i(k, "block"), .damp = tt__knob_f(k, "damp"), .slide2 = tt__knob_i(k, "step"), .columns = group, .group = group, .refine = -1};
    if (bits) o.grid = tt__grid_for(bits, true, TT_SEARCH_RANGE, true, "own");
    return tt__obs(ctx, &o, d, s, err);
}

double tt__slide2_cost(int64_t rows, int64_t cols, int64_t group) {
    double units = (double)((cols + 63) / 64), groups = (double)((cols + group - 1) / group);
    return (64 * 3 * units + 16 * groups) / (double)cols * (double)((rows + 15) / 16 * 16) / (double)rows;
}

static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    return tt__knob_i(k, "bits") ? tt__slide2_cost(rows, cols, tt__knob_i(k, "group")) : tt__sparse_cost(0.5, 16, cols);
}

static const tt_compress_vtable compress = {.wants = wants, .sequential = sequential, .matrix = matrix};
const tt_method tt__method_slide2 = {
    .info = {.name = "slide2", .family = "weights", .title = "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", .id = "arXiv 2301.00774", .year = 2023,
             .summary = "half of the weights at 3.25 bits, in a pattern that runs fast; pruned, rounded and repaired as by sparsegpt", .version = 1, .stage = "compress",
             .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .cost_bits = cost_bits, .compress = &compress};
