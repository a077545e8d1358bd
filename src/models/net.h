/* A network: architecture + weights, immutable after open. Public `tt_model` (engine/model.c) is a net with its tokenizer and file.
 *
 * One architecture per file and one line in archs.inc (llama.c). It declares its hyper-parameter table (type, range, divisibility; F7),
 * its weights with their GGUF and Hugging Face names, and records its block graph from tensor ops; everything else here is shared.
 */
#ifndef TT_MODELS_NET_H
#define TT_MODELS_NET_H
#include "base/util.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "linop/linop.h"
#include "tensor/graph.h"

typedef struct tt_hparams {
    int64_t n_vocab, n_embd, n_layer, n_head, n_head_kv, head_dim, n_ff, n_ctx;
    float rms_eps, rope_base;
    float rope_linear;                   /* positions are divided by it (linear scaling); 1: none */
    float rope_factor, rope_low, rope_high; int64_t rope_orig;   /* Llama 3 frequency scaling; rope_factor 0: none */
    bool tied;                           /* no output matrix of its own */
} tt_hparams;

typedef struct tt_weight {
    char name[64];                       /* GGUF: "blk.3.attn_q.weight" */
    char hf[96];                         /* "model.layers.3.self_attn.q_proj.weight" */
    int layer;                           /* -1: outside the blocks */
    int input;                           /* matrices with equal (layer, input) read the same activation: 0 q k v, 1 o, 2 gate up, 3 down */
    bool linear;                         /* a matrix that compression methods may replace */
    bool permute;                        /* rows interleaved in GGUF of this architecture (q, k of llama): see rope_adjacent */
    int64_t permute_heads;
    bool vector;                         /* a norm gain: `vec` is set (rows = 1); otherwise `op` */
    int64_t rows, cols;
    tt_linop *op;                        /* matrices; owned */
    float *vec;                          /* vectors (norm gains), f32; owned */
} tt_weight;

typedef struct tt_net tt_net;
typedef struct tt_arch {
    const char *name;                    /* GGUF general.architecture */
    const char *hf_type;                 /* config.json model_type */
    tt_status (*hparams_gguf)(const tt_gguf *g, tt_hparams *out, tt_err *err);
    tt_status (*hparams_hf)(const json_t *config, tt_hparams *out, tt_err *err);
    /* writes <arch>.* keys, and config.json members */
    tt_status (*to_gguf)(const tt_hparams *hp, tt_gguf_writer *w, tt_err *err);
    tt_status (*to_hf)(const tt_hparams *hp, json_t *config, tt_err *err);
    /* fills names, shapes, flags of weight i; returns the number of weights when out is NULL */
    size_t (*weight)(const tt_hparams *hp, size_t i, tt_weight *out);
    /* records one decoder block: input "x" → output "y" [T, n_embd]; weight slots are indices into net->weights of that layer's
     * first weight (slot = index - first) so that one recording serves all layers */
    tt_status (*block)(const tt_net *net, tt_graph *g, tt_val x, tt_val *y, int layer, tt_err *err);
} tt_arch;
const tt_arch *tt__arch_find(const char *gguf_name);
const tt_arch *tt__arch_find_hf(const char *model_type);

struct tt_net {
    tt_ctx *ctx;
    const tt_arch *arch;
    tt_hparams hp;
    size_t n_weights;
    tt_weight *weights;
    size_t embd, output_norm, output;    /* indices; output == embd when tied */
    size_t *layer_first;                 /* [n_layer + 1] index of the first weight of each layer */
    float *inv_freq;                     /* [head_dim / 2] */
    void *run;                           /* memory of operators in the run format (run.h), or NULL; owned */
    float *rope_divisor;                 /* [head_dim / 2] divisors already in inv_freq (rope_freqs.weight), or NULL */
    bool rope_adjacent;                  /* row order of `permute` weights: true as in GGUF (rotary pairs 2i, 2i+1), false as in
                                            Hugging Face (i, i + head_dim/2). Rows stay as stored, rope reads them either way;
                                            GGUF row h*D + 2i + j is Hugging Face row h*D + j*D/2 + i. */
};

/* Loads from an open container, which must outlive the net: standard matrices are lent from its map. Rows stay in stored order
 * (rope_adjacent); own operators come from trimtab.* metadata (models/store.h). expand: f32 copies. */
tt_status tt__net_from_gguf(tt_ctx *ctx, const tt_gguf *g, bool expand, tt_net **out, tt_err *err);
tt_status tt__net_from_hf(tt_ctx *ctx, const char *dir, const tt_st *st, bool expand, tt_net **out, tt_err *err);
void tt__net_free(tt_net *net);
/* By what Llama 3's frequency scaling (hp->rope_factor …) divides the frequency theta. */
float tt__llama3_divisor(const tt_hparams *hp, double theta);
uint64_t tt__net_bytes(const tt_net *net);

/* ---- caches of keys and values ---- */
/* Keys and values of a tab, computed once per (net, tab): layer l at k + l*P*Hkv*D elements. */
typedef struct tt_prefix { int64_t P; tt_kvtype type; void *k, *v; } tt_prefix;
typedef struct tt_kvcache {
    int64_t S, n_ctx, n;                 /* sequences in lock-step, capacity and filled positions of each (prefix not counted) */
    tt_kvtype k_type, v_type;
    void *k, *v;                         /* [n_layer, S, n_ctx] rows of tt__kv_row_bytes(type, Hkv*D) */
    int64_t n_layer, width;              /* Hkv*D */
    const tt_prefix *prefix;             /* lent, or NULL */
} tt_kvcache;
tt_status tt__kvcache_create(tt_ctx *ctx, const tt_net *net, int64_t S, int64_t n_ctx, tt_kvtype type, tt_kvcache **out, tt_err *err);
/* The same with a type for keys and one for values. Q8 with heads that are no whole blocks: TT_USAGE. */
tt_status tt__kvcache_create_typed(tt_ctx *ctx, const tt_net *net, int64_t S, int64_t n_ctx, tt_kvtype k_type, tt_kvtype v_type, tt_kvcache **out,
                                   tt_err *err);
void tt__kvcache_free(tt_kvcache *c);
/* Bytes of keys and values of so many positions, all layers and sequences. */
uint64_t tt__kvcache_bytes(const tt_kvcache *c, int64_t positions);

/* ---- the runner: graphs, workspace and scratch for a net; one per thread of use ---- */
typedef struct tt_runner tt_runner;
/* weights: backward can also give the gradients of weights (tt_train_hooks). */
typedef struct tt_runner_options { int64_t max_rows; int64_t max_past; bool fast; bool backward; tt_keep keep; bool weights; } tt_runner_options;
tt_status tt__runner_create(tt_ctx *ctx, const tt_net *net, const tt_runner_options *o, tt_runner **out, tt_err *err);
void tt__runner_free(tt_runner *r);
uint64_t tt__runner_bytes(const tt_runner *r);
/* What the first tt__run_loss of a runner made with `backward` will add: layer inputs, kept values, logits of a chunk. */
uint64_t tt__runner_loss_bytes(const tt_runner *r, bool kl);
/* Batches multiply in bf16 from here on, or in f32 again, where the machine has both (gemm.h). A new runner multiplies in f32. */
void tt__runner_set_bf16(tt_runner *r, bool bf16);
/* Replaces the operator of a weight for this runner only (calibration); lent; NULL restores the net's. */
void tt__runner_set_op(tt_runner *r, size_t weight, const tt_linop *op);
/* The same for a norm gain. */
void tt__runner_set_vec(tt_runner *r, size_t weight, const float *vec);

/* X [n, n_embd] = rows of the embedding. Ids out of range: TT_USAGE. */
tt_status tt__run_embed(tt_runner *r, const int32_t *ids, int64_t n, float *X, tt_err *err);
/* One block over P_rows + S*T rows in place (no cache). tap reads the linears' inputs; stop_tap ≥ 0: X stays as it was. */
tt_status tt__run_block(tt_runner *r, int layer, int64_t P_rows, int64_t S, int64_t T, float *X, tt_tap_fn tap, void *user, int stop_tap, tt_err *err);
/* Appends S*T tokens to the cache and gives the final-normed hidden rows H [S*T, n_embd] (or only each sequence's last row [S, n_embd]). */
tt_status tt__run_cached(tt_runner *r, tt_kvcache *cache, const int32_t *ids, int64_t T, bool last_only, float *H, tt_err *err);
/* logits [n, n_vocab] of hidden rows. */
tt_status tt__run_logits(tt_runner *r, const float *H, int64_t n, float *logits, tt_err *err);

/* ---- training ---- */
typedef struct tt_loss {
    /* CE   cross entropy.   KL   KL(teacher ‖ student) over the vocabulary, the teacher's logits made from its hidden rows
     * TOPK KL(teacher ‖ student) over k + 1 buckets: k tokens by name and all others together, the teacher's from a cache */
    enum { TT_LOSS_CE, TT_LOSS_KL, TT_LOSS_TOPK } kind;
    const int32_t *target;               /* [rows]: id of the next token, or -1: this row has no target (all kinds) */
    /* KL: teacher's final-normed hidden rows, packed in the order of the rows with a target, and its head */
    const float *teacher_H; const tt_linop *teacher_head;
    /* TOPK, packed likewise: k ids (distinct), their log probabilities, and the log of the mass of all others (-inf: none) at `temperature` */
    int64_t k; const int32_t *top_id; const float *top_logp, *rest_logp;
    float temperature;                   /* KL, TOPK: both distributions are softmax(logits / temperature); 0: 1. The loss is not multiplied by its square */
    int64_t chunk_rows;                  /* 0: chosen from memory */
} tt_loss;
/* Forward over P_rows prefix rows + S*T rows of X0 [rows, n_embd] (not changed), mean loss per target row in *loss (nats), and when dX0 is not
 * NULL the gradient of that mean with respect to X0 (=; [rows, n_embd]). row_loss [rows] gets each row's loss (0 without target) or NULL.
 * Rows of the prefix see only the prefix; every sequence sees it. The mean divides by the number of targets, nothing else. */
tt_status tt__run_loss(tt_runner *r, int64_t P_rows, int64_t S, int64_t T, const float *X0, const tt_loss *spec, double *loss,
                       float *row_loss, float *dX0, tt_err *err);
/* Learned keys and values in front of every sequence: P positions, f32, keys rotated, layer l at l*P*width (width = n_head_kv * head_dim).
 * Their gradients are added (+=) to dk and dv; NULL: not wanted. */
typedef struct tt_train_prefix { int64_t P; const float *k, *v; float *dk, *dv; } tt_train_prefix;
/* tt__run_loss with gradients of weights of a runner made with `weights` (hooks or NULL; final norm and head among them, a tied head by its
 * part as head alone: that of the look-up is tt__linop_grad_rows of dX0), and a learned prefix (or NULL; never with P_rows). Layers below
 * the lowest gradient that anybody wants are not run backwards. */
tt_status tt__run_loss_train(tt_runner *r, int64_t P_rows, int64_t S, int64_t T, const float *X0, const tt_loss *spec, const tt_train_hooks *hooks,
                             const tt_train_prefix *prefix, double *loss, float *row_loss, float *dX0, tt_err *err);
/* One block from X to `out` [S*T, n_embd] (neither is NULL, nor the other), *loss = Σ_rows w Σ_c (out - Y)² / (n_embd Σ_rows w), row_weight w [S*T] ≥ 0
 * or NULL: all 1. With hooks also the gradients of that loss with respect to the layer's weights. Memory: one layer's, not all. */
tt_status tt__run_block_loss(tt_runner *r, int layer, int64_t S, int64_t T, const float *X, const float *Y, const float *row_weight,
                             const tt_train_hooks *hooks, double *loss, float *out, tt_err *err);
/* Final-normed hidden rows of a batch without cache (teacher). H [S*T, n_embd]. */
tt_status tt__run_hidden(tt_runner *r, int64_t S, int64_t T, const int32_t *ids, float *H, tt_err *err);

/* Keys and values of P prompt rows E [P, n_embd]. type f32 or f16. */
tt_status tt__prefix_compute(tt_runner *r, const float *E, int64_t P, tt_kvtype type, tt_prefix **out, tt_err *err);
void tt__prefix_free(tt_prefix *p);
/* From and to rows as PEFT stores them (formats/peft.h): [P, n_layer, 2, Hkv*D], keys in Hugging Face's rotary order. */
tt_status tt__prefix_from_rows(const tt_net *net, const float *rows, int64_t P, tt_kvtype type, tt_prefix **out, tt_err *err);
void tt__prefix_to_rows(const tt_net *net, const tt_prefix *f32, float *rows);
#endif
