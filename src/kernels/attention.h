/* Causal grouped-query attention for many rows at once, f32 accumulation, probabilities never stored (recomputed in backward).
 *
 * Rows come as S independent sequences of T new rows each (row s*T + t). A sequence sees, in this order: a shared prefix of P finished
 * positions, its own past of N cached positions, and its own new rows 0…t. Any of P, N may be 0. Head h reads kv head h / (H/Hkv).
 *   out[row, h, :] = Σ_j softmax_j(scale * q[row,h]·k_j) v_j
 */
#ifndef TT_KERNELS_ATTENTION_H
#define TT_KERNELS_ATTENTION_H
#include "trimtab/status.h"
#include <stdbool.h>
#include <stdint.h>
struct tt_ctx;

enum { TT_ATTN_GROUP = 64 };      /* heads that may share a kv head */

/* How keys and values are stored. A position is one row of all kv heads, width = Hkv * D: floats, or (Q8) width codes and then their scales,
 * one f16 for 32 (kernels.inc, kv8_pack). Q8 wants heads of whole blocks: D a multiple of 32. */
typedef enum tt_kvtype { TT_KV_F32, TT_KV_F16, TT_KV_Q8 } tt_kvtype;
static inline int64_t tt__kv_row_bytes(tt_kvtype type, int64_t width) { return type == TT_KV_F32 ? 4 * width : type == TT_KV_F16 ? 2 * width : width + width / 16; }
static inline const char *tt__kv_name(tt_kvtype type) { return type == TT_KV_F32 ? "f32" : type == TT_KV_F16 ? "f16" : "q8_0"; }

typedef struct tt_attn {
    int64_t S, T;                 /* sequences, new rows of each */
    int64_t H, Hkv, D;            /* heads, kv heads, head size */
    float scale;
    const float *q; int64_t ldq;  /* [S*T, H*D] rotated */
    const float *k, *v; int64_t ldkv;   /* new rows [S*T, Hkv*D], k rotated */
    /* shared prefix, P positions: layout [P, Hkv*D], f32 or f16 */
    int64_t P; tt_kvtype p_type; const void *pk, *pv; int64_t ldp;
    /* own past, N positions: sequence s at pastk + s * pastk_stride bytes, rows pastk_row bytes apart; values likewise */
    int64_t N; tt_kvtype pastk_type, pastv_type; const void *pastk, *pastv; int64_t pastk_row, pastv_row, pastk_stride, pastv_stride;
    bool own_in_past;             /* the new rows are read from the past, where they lie at N … N + T - 1; k and v are not looked at */
    bool fast;                    /* many rows may go through bf16 products where the table has them */
    float *out; int64_t ldo;      /* [S*T, H*D] */
    float *lse;                   /* [S*T, H] log-sum-exp of the scaled scores, for backward; NULL: not wanted */
} tt_attn;

void tt__attention(struct tt_ctx *ctx, const tt_attn *a);

/* Gradients. dout [S*T, H*D]; writes dq (=), dk, dv (=) of the new rows; adds to dpk, dpv [P, Hkv*D] f32 when P > 0 and they are not NULL
 * (a prefix that is trained must be f32). The past is constant. Needs a->out and a->lse of the forward. */
void tt__attention_bwd(struct tt_ctx *ctx, const tt_attn *a, const float *dout, float *dq, float *dk, float *dv, float *dpk, float *dpv);
/* Scratch per worker for these sizes. */
size_t tt__attention_scratch(const struct tt_ctx *ctx, int64_t T, int64_t D, int64_t P, int64_t N);
#endif
