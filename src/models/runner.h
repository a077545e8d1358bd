/* The inside of a runner, shared by runner.c, loss.c and prefix.c. */
#ifndef TT_MODELS_RUNNER_H
#define TT_MODELS_RUNNER_H
#include "models/net.h"

struct tt_runner {
    tt_ctx *ctx;
    const tt_net *net;
    tt_runner_options o;
    bool bf16;                    /* tt__runner_set_bf16 */
    tt_graph *block;              /* x → y, one recording for all layers */
    void *workspace;
    void *head_ws;                /* prepared activation of the head */
    const tt_linop **ops;         /* [n_weights] the net's, or what tt__runner_set_op put there */
    const float **vecs;           /* [n_weights] */
    float *X;                     /* [max_rows, n_embd] rows on their way through the layers */
    size_t linop_scratch;
    uint64_t bytes;
    /* training (loss.c), made at the first use: layer inputs, kept values, rows and logits of a chunk */
    float *layer_x; uint8_t *kept; uint64_t kept_layer;
    float *rows_x, *rows_d, *logits; int64_t chunk_rows; uint64_t logit_bytes;
    int32_t *target_rows;
    float *block_d; double *row_sum; uint8_t *block_kept;      /* of tt__run_block_loss */
};

/* The scratch of the workers for one run of these sizes. */
tt_status tt__runner_ready(tt_runner *r, int64_t T, int64_t P, int64_t N, tt_err *err);
/* env for a layer; slots are counted from the layer's first weight. */
tt_env tt__runner_env(const tt_runner *r, int layer, int64_t P_rows, int64_t S, int64_t T, int64_t pos0);
/* Room of `bytes` in *p, counted; what was there is freed. */
tt_status tt__runner_grow(tt_runner *r, void *p, uint64_t bytes, const char *what, tt_err *err);
/* One layer from x to y (may be one buffer when nothing is kept). */
tt_status tt__runner_layer(tt_runner *r, const tt_env *env, float *x, float *y, void *kept, tt_err *err);
/* Rows X [S*T] through all layers, their keys and values appended to the cache (whose n is raised). */
tt_status tt__runner_rows(tt_runner *r, tt_kvcache *cache, int64_t T, float *X, tt_err *err);
/* H [n] = final norm of X, rows ldx apart. */
void tt__runner_norm(const tt_runner *r, const float *X, int64_t ldx, int64_t n, float *H);
#endif
