/* Shared by the tests of graphs: random matrices, weights, and running a graph on a batch with prefix rows. */
#ifndef GRAPH_TESTING_H
#define GRAPH_TESTING_H
#include "harness/tt_test.h"
#include "tensor/op.h"
#include <stdio.h>
#include <stdlib.h>

enum { P_ROWS = 3, SEQS = 2, STEPS = 4, ROWS = P_ROWS + SEQS * STEPS, WIDTH = 32, HEADS = 4, HEADS_KV = 2, HEAD = 8, N_SLOTS = 6 };

typedef struct weights { const tt_linop *op[N_SLOTS]; const float *vec[N_SLOTS]; tt_linop *owned[N_SLOTS]; float gain[N_SLOTS][2 * WIDTH]; } weights;

static inline void fill(tt__rng *rng, float *x, int64_t n, double scale) {
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * tt__rng_normal(rng));
}

/* Slots: 0, 1 [WIDTH, WIDTH] (f32, Q8_0); 2 [16, WIDTH]; 3 [WIDTH, WIDTH] f16; 4, 5 like 0 and 1. Vectors: gains around 1. */
static inline void make_weights(tt_ctx *ctx, weights *w) {
    static const tt_dtype type[N_SLOTS] = {TT_F32, TT_Q8_0, TT_F32, TT_F16, TT_Q4_1, TT_BF16};
    float W[WIDTH * WIDTH];
    tt__rng rng;
    tt_err err = {0};
    tt__rng_seed(&rng, 3);
    for (int i = 0; i < N_SLOTS; i++) {
        fill(&rng, W, WIDTH * WIDTH, 0.2);
        TT_CHECK_OK(tt__linop_encode(ctx, type[i], W, i == 2 ? HEADS_KV * HEAD : WIDTH, WIDTH, &w->owned[i], &err));
        w->op[i] = w->owned[i];
        fill(&rng, w->gain[i], 2 * WIDTH, 0.3);
        for (int j = 0; j < 2 * WIDTH; j++) w->gain[i][j] += 1;
        w->vec[i] = w->gain[i];
        TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_scratch(ctx, w->op[i]), &err));
    }
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__attention_scratch(ctx, 16, HEAD, 16, 16), &err));
}

static inline void free_weights(weights *w) { for (int i = 0; i < N_SLOTS; i++) tt__linop_free(w->owned[i]); }

static inline tt_env batch_env(const weights *w) {
    return (tt_env){.rows = ROWS, .S = SEQS, .T = STEPS, .P_rows = P_ROWS, .pos0 = P_ROWS, .ops = w->op, .vecs = w->vec};
}

static const float INV_FREQ[HEAD / 2] = {1, 0.4f, 0.1f, 0.02f};
#endif
