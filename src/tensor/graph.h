/* Graphs: ops recorded once as a static segment (one decoder block, one loss head), planned into one workspace, then run many times.
 *
 * Values are matrices [T, cols] of f32 whose row count T is known at run time (bounded at planning), vectors, or raw bytes. An op is one
 * file's worth of functions: shape, forward, backward, cost (ops.inc, op.h). `tt__graph_backward` appends the gradient ops; what it needs of
 * the forward is either kept (bound to storage of the caller) or recomputed, as the keep policy says, not as the model author says.
 *
 *     g = create; x = input(d); h = rmsnorm(x, g); a = prep(h); q = linear(a, op) … ; output(y)
 *     backward(g, {y}, {x}, keep) ; plan(g, T_max) ; bind(x, ptr) ; run(g, env)
 *
 * An op line without a gradient case in tests/unit/tensor/test_gradients.c fails the tests.
 */
#ifndef TT_TENSOR_GRAPH_H
#define TT_TENSOR_GRAPH_H
#include "base/ctx.h"
#include "base/util.h"
#include "kernels/attention.h"
#include "linop/linop.h"

typedef struct tt_graph tt_graph;
typedef int32_t tt_val;                      /* index of a value; -1: none */

/* Earlier positions of the layer at hand, as attention sees them: a finished prefix shared by all sequences, then each sequence's own
 * past, to which attention appends the keys and values of the new rows (positions N … N+T-1 of the buffer). */
typedef struct tt_kvview {
    int64_t P; tt_kvtype p_type; const void *pk, *pv;    /* [P, width] */
    float *dpk, *dpv;                                    /* backward: where the gradient of an f32 prefix is added (+=) [P, width]; NULL: not wanted */
    int64_t N; tt_kvtype k_type, v_type; void *k, *v;    /* [S, room] rows of tt__kv_row_bytes(type, width) */
    int64_t room;                                        /* positions between sequences */
} tt_kvview;

/* What trains beside the rows: callbacks of a backward run, made from the calling thread, by the index of the weight in the net. The order of
 * the calls and of every sum inside depends on the shape of the batch alone. */
typedef struct tt_train_hooks {
    void *user;
    /* Is the gradient of this matrix wanted? NULL: of none. */
    bool (*wants)(void *user, size_t weight);
    /* dW [rows, cols] (+=) G^T X for a wanted one, X [T, cols] what it multiplied, G [T, rows] the gradient of its result. A head is handed over
     * a chunk of rows at a time, so calls for one weight add up. Scratch of tt__linop_grad_scratch is reserved. */
    void (*matrix)(void *user, size_t weight, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T);
    /* Where the gradient of a norm gain [n] is added (+=), or NULL: not wanted. NULL itself: of none. */
    float *(*vector)(void *user, size_t weight);
} tt_train_hooks;

/* What a run needs beside the bound buffers: the shape of the rows, the weights in the slots, where attention finds earlier positions. */
typedef struct tt_env {
    int64_t rows;                            /* T of every value in this run */
    /* rows = P_rows + S*T: P_rows prefix rows (positions 0 … P_rows-1) first, then S sequences of T rows, each at positions pos0 + t */
    int64_t S, T, P_rows;
    int64_t pos0;                            /* position of the first new row of each sequence (tab and past included) */
    const tt_kvview *kv;                     /* past and cached prefix, or NULL; never together with P_rows */
    bool fast;
    bool bf16;                               /* batches may multiply in bf16 (linop.h) */
    const tt_linop *const *ops;              /* weight slots → operators (so that calibration can swap one) */
    const float *const *vecs;                /* weight slots → vectors (norm gains) */
    const tt_train_hooks *hooks;             /* backward of a graph made for weights (tt__graph_train); NULL: rows only */
    size_t weight0;                          /* the weight of slot 0, as the hooks count */
} tt_env;

/* What is stored for backward. Nothing; what attention reads and writes; all but the inputs that an op calls spare (the up projection of
 * a gated layer); all that backward reads. The rest is computed again, so the policy changes no bit of a result. */
typedef enum tt_keep { TT_KEEP_BOUNDARY, TT_KEEP_ATTENTION, TT_KEEP_MOST, TT_KEEP_ALL } tt_keep;

tt_status tt__graph_create(tt_ctx *ctx, tt_graph **out, tt_err *err);
void tt__graph_free(tt_graph *g);

/* ---- recording (first error sticks and is returned by plan) ---- */
tt_val tt__g_input(tt_graph *g, const char *name, int64_t cols);                 /* bound by the caller at run */
tt_val tt__g_rmsnorm(tt_graph *g, tt_val x, int gain_slot, float eps);            /* gain from env->vecs[slot] */
tt_val tt__g_prep(tt_graph *g, tt_val x);                                        /* prepared activation shared by linears */
tt_val tt__g_linear(tt_graph *g, tt_val prepared, int weight_slot, int64_t rows, int64_t cols);   /* operator from env->ops[slot] */
/* inv_freq [head_dim/2] is lent. Pairs are (i, i + head_dim/2), or with `adjacent` (2i, 2i+1). */
tt_val tt__g_rope(tt_graph *g, tt_val x, int64_t heads, int64_t head_dim, const float *inv_freq, bool adjacent);
tt_val tt__g_attention(tt_graph *g, tt_val q, tt_val k, tt_val v, int64_t H, int64_t Hkv, int64_t D, float scale);
tt_val tt__g_silu_mul(tt_graph *g, tt_val gate, tt_val up);
tt_val tt__g_add(tt_graph *g, tt_val a, tt_val b);
tt_val tt__g_copy(tt_graph *g, tt_val x);
/* The value lives in a buffer of the caller, bound before the run. That buffer may be the one of an input whose last reader is not
 * behind the op that makes the output (a block in place). */
void tt__g_output(tt_graph *g, tt_val v, const char *name);
void tt__g_tap(tt_graph *g, tt_val v, int input_id);                             /* a named point: calibration reads it (tt_tap_fn) */

/* ---- gradients: appends ops computing d(in) from d(out); their buffers are bound under the names "d:"out and "d:"in; one
 * buffer serves both where the last op of backward does not read d(out), as in a decoder block. Once per graph, before the plan. ---- */
/* Before tt__graph_backward: backward also has the inputs of the linears at hand, so that hooks can be given theirs. */
void tt__graph_train(tt_graph *g);
tt_status tt__graph_backward(tt_graph *g, tt_val out, tt_val in, tt_keep keep, tt_err *err);

void tt__graph_exact(tt_graph *g);         /* before the plan: no run will be fast, so no room for rounded activations */
tt_status tt__graph_plan(tt_graph *g, int64_t max_rows, int64_t max_past, tt_err *err);   /* workspace offsets from lifetimes */
uint64_t tt__graph_workspace(const tt_graph *g);                                 /* bytes */
uint64_t tt__graph_kept_bytes(const tt_graph *g, int64_t rows);                  /* bytes the caller stores per segment between forward and backward */

/* ---- running ---- */
typedef void (*tt_tap_fn)(void *user, int input_id, const float *x, int64_t ldx, int64_t rows, int64_t n);
tt_status tt__graph_bind(tt_graph *g, const char *name, float *data, int64_t ld, tt_err *err);
/* phase 1: forward only (stops after tap `stop_tap` when ≥ 0); phase 2: backward (recomputing what was not kept from `kept`) */
tt_status tt__graph_forward(tt_graph *g, const tt_env *env, void *workspace, void *kept, tt_tap_fn tap, void *user, int stop_tap, tt_err *err);
tt_status tt__graph_backprop(tt_graph *g, const tt_env *env, void *workspace, const void *kept, tt_err *err);
double tt__graph_macs(const tt_graph *g, const tt_env *env, bool backward);       /* multiply-adds of a run */
/* fn over ranges [r0, r1) of rows, in parallel when there is enough to do; the split depends on the shape only. */
typedef void (*tt_rows_fn)(const void *arg, int64_t r0, int64_t r1);
void tt__over_rows(tt_ctx *ctx, int64_t rows, int64_t cols, tt_rows_fn fn, const void *arg);

/* dgain [cols] += of y = rmsnorm(x) ⊙ gain, given dy. Uses the scratch of worker 0. */
void tt__rmsnorm_gain(tt_ctx *ctx, const float *x, int64_t ldx, const float *dy, int64_t lddy, int64_t rows, int64_t cols, float eps, float *dgain);

void tt__graph_print(const tt_graph *g, tt__str *out);                     /* ops, lifetimes, offsets: for TT_DEBUG */
bool tt__graph_is_valid(const tt_graph *g);
#endif
