/* Attention over tiles, with query rows as vector lanes. Built from the kernel table alone: the micro-kernel, the packers, two softmax
 * tiles, and for few rows rowdot and mix. Nothing of size rows x keys is ever stored.
 *
 * Many rows (flash attention; Dao et al. 2022, 2023). Unit of work: one sequence, up to 4 heads that share a kv head, 64 tokens.
 * Its query rows are panels of nr lanes, each of one head; scores are kept transposed:
 *
 *     S^T [keys, nr]  = K tile [keys, D] · Q panel [D, nr]         A: K packed by rows,    B: Q packed once
 *     softmax_tile                                                  runs down the columns: no horizontal sums
 *     O^T [D, nr]    += V^T [D, keys] · P^T [keys, nr]              A: V packed by columns, B: S^T as it lies
 *
 * Backward, with P = exp(scale S - lse) recomputed and delta = Σ_d dout·out:
 *     dP^T = V dO^T,   dS = P ∘ (dP - delta) scale,   dQ^T += K^T dS^T,   dV += P^T dO,   dK += dS^T Q
 * A unit is one sequence and one kv head, so dK and dV have one writer. The gradient of a shared prefix is a second pass over its key
 * tiles, each running through all sequences in order.
 *
 * With `fast` on a machine that multiplies bf16, Q, K, V and P are rounded to it, in pairs along the summed index; sums, softmax
 * statistics and O stay f32. Backward is always f32.
 *
 * Few rows (decoding): the keys are cut into pieces of 128, a border that depends on the position alone; each piece gives (max, sum,
 * Σ p v) per head, and the pieces are joined in order. So neither form depends on the number of threads.
 */
#include "kernels/attention.h"
#include "base/ctx.h"
#include "kernels/kernels.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    KEYS = 128,          /* keys of a tile */
    TOKENS = 64,         /* tokens of a forward unit */
    HEADS = 4,           /* heads of a forward unit */
    SUPER = 512,         /* keys whose packed forms and gradients a backward unit holds at a time */
    PIECE = 128,         /* keys of a piece in decoding */
    STRIP = 16,          /* of which so many are read through all heads before the next */
    FEW = 4,             /* up to so many new rows are decoded one by one */
    MANY_ROWS = 8,       /* from so many rows of few each, rows are dealt out, not pieces */
    JOIN_HEADS = TT_ATTN_GROUP   /* heads whose pieces are held at a time in decoding */
};
#define NOTHING_SEEN (-1e30f)

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

typedef struct job {
    tt_ctx *ctx;
    const tt_kernels *k;
    const tt_attn *a;
    int64_t group, parts;                     /* H / Hkv; forward units per kv head: group cut into HEADS */
    bool bf16;                                /* forward of many rows: products of bf16 words */
    const float *dout; float *dq, *dk, *dv, *dpk, *dpv;
    int64_t s, t, pieces, kv0, kvs;           /* decoding: row, pieces of it, kv heads at a time */
    float *results;                           /* of the pieces */
} job;

/* ---- the three stretches of keys that a row sees ---- */

typedef enum stretch { PREFIX, PAST, OWN, STRETCHES } stretch;

typedef struct keys {                         /* a stretch for one sequence and kv head, or a tile of it */
    const uint8_t *k, *v;
    int64_t k_row, v_row, n;                  /* bytes between positions */
    int64_t k_scales, v_scales;               /* of Q8: bytes from this head's codes to its scales */
    tt_kvtype k_type, v_type;
    bool causal;
} keys;

/* Head kv in a row of `width`. */
static const uint8_t *head_of(const void *row, tt_kvtype type, int64_t at) { return (const uint8_t *)row + (type == TT_KV_F32 ? 4 : type == TT_KV_F16 ? 2 : 1) * at; }
static int64_t scales_of(int64_t width, int64_t at) { return width - at + at / 16; }

static keys past_keys(const tt_attn *a, int64_t s, int64_t kv, int64_t first, int64_t n, bool causal) {
    const int64_t width = a->Hkv * a->D, at = kv * a->D;
    return (keys){.k = head_of((const uint8_t *)a->pastk + s * a->pastk_stride + first * a->pastk_row, a->pastk_type, at),
                  .v = head_of((const uint8_t *)a->pastv + s * a->pastv_stride + first * a->pastv_row, a->pastv_type, at),
                  .k_row = a->pastk_row, .v_row = a->pastv_row, .n = n, .k_scales = scales_of(width, at), .v_scales = scales_of(width, at),
                  .k_type = a->pastk_type, .v_type = a->pastv_type, .causal = causal};
}

static keys keys_of(const tt_attn *a, stretch which, int64_t s, int64_t kv) {
    if (which == PREFIX) {
        const int64_t row = tt__kv_row_bytes(a->p_type, a->ldp), at = kv * a->D;
        return (keys){.k = head_of(a->pk, a->p_type, at), .v = head_of(a->pv, a->p_type, at), .k_row = row, .v_row = row, .n = a->P,
                      .k_type = a->p_type, .v_type = a->p_type};
    }
    if (which == PAST) return past_keys(a, s, kv, 0, a->N, false);
    if (a->own_in_past) return past_keys(a, s, kv, a->N, a->T, true);
    const int64_t at = s * a->T * a->ldkv + kv * a->D, row = a->ldkv * (int64_t)sizeof(float);
    return (keys){.k = (const uint8_t *)(a->k + at), .v = (const uint8_t *)(a->v + at), .k_row = row, .v_row = row, .n = a->T, .causal = true};
}

/* Keys, or values, j0 … j0 + n of a stretch as f32: where they lie, or converted into buf [n, D]. */
typedef enum half { KEYS_OF, VALUES_OF } half;

static const float *rows_f32(const tt_kernels *k, const keys *ks, half which, int64_t j0, int64_t n, int64_t D, float *buf, int64_t *ld) {
    const tt_kvtype type = which == KEYS_OF ? ks->k_type : ks->v_type;
    const int64_t row = which == KEYS_OF ? ks->k_row : ks->v_row, scales = which == KEYS_OF ? ks->k_scales : ks->v_scales;
    const uint8_t *from = (which == KEYS_OF ? ks->k : ks->v) + j0 * row;
    *ld = row / (int64_t)sizeof(float);
    if (type == TT_KV_F32) return (const float *)(const void *)from;
    for (int64_t j = 0; j < n; j++, from += row) {
        if (type == TT_KV_F16) k->f16_to_f32(buf + j * D, (const uint16_t *)(const void *)from, D);
        else k->kv8_to_f32(buf + j * D, (const int8_t *)from, (const uint16_t *)(const void *)(from + scales), D);
    }
    *ld = D;
    return buf;
}

/* A operand whose lanes are keys, [keys / mr][D][mr]; and whose lanes are features, [D / mr][keys][mr]. */
static void pack_keys(const tt_kernels *k, float *dst, const float *src, int64_t ld, int64_t n, int64_t D) {
    for (int64_t j = 0; j < n; j += k->mr) k->pack_rows(dst + j * D, src + j * ld, ld, (int)least(k->mr, n - j), D, k->mr);
}

static void pack_features(const tt_kernels *k, float *dst, const float *src, int64_t ld, int64_t n, int64_t D) {
    for (int64_t d = 0; d < D; d += k->mr) k->pack_cols(dst + d * n, src + d, ld, n, (int)least(k->mr, D - d), k->mr);
}

/* C [m, nr] (+)= A · B for an A of `m` lanes in tiles of mr, each tile a_k deep of which k are used. */
static void tiles_times_panel(const tt_kernels *k, const float *A, int64_t a_k, int64_t m, int64_t kk, const float *B, float *C, int accumulate) {
    for (int64_t i = 0; i < m; i += k->mr)
        k->gemm_ukr(kk, A + i * a_k, B, C + i * k->nr, k->nr, (int)least(k->mr, m - i), k->nr, accumulate);
}

/* Own keys j0 … j0 + n against the tokens t0, t0 + 1, … in the lanes: what lies in the future becomes -inf. */
static void mask_future(float *S, int lanes, int64_t n, int64_t j0, int64_t t0) {
    for (int64_t j = most(0, t0 - j0 + 1); j < n; j++)
        for (int64_t i = 0; i < least(lanes, j0 + j - t0); i++) S[j * lanes + i] = -INFINITY;
}

/* ---- forward, many rows ---- */

/* With bf16 the packed operands hold words, two steps of the product each: half as deep. */
static int64_t depth(const job *j, int64_t k) { return j->bf16 ? (k + 1) / 2 : k; }

typedef struct forward_ws { float *kp, *vp, *convert, *S, *Q, *O, *m, *l, *alpha; } forward_ws;

static size_t forward_floats(int mr, int nr, int64_t D) {
    const size_t d = (size_t)round_up(D, mr), panels = (size_t)(HEADS * ceil_div(TOKENS, nr));
    return (size_t)round_up(KEYS, mr) * (size_t)D + KEYS * d + KEYS * (size_t)D + KEYS * (size_t)nr + panels * (2 * (size_t)D + 2) * (size_t)nr +
           (size_t)nr;
}

static forward_ws forward_carve(const job *j, float *p, int64_t D) {
    const int mr = j->k->mr, nr = j->k->nr;
    const int64_t panels = HEADS * ceil_div(TOKENS, nr);
    forward_ws w;
    w.kp = p;
    w.vp = w.kp + round_up(KEYS, mr) * D;
    w.convert = w.vp + KEYS * round_up(D, mr);
    w.S = w.convert + KEYS * D;
    w.Q = w.S + KEYS * nr;
    w.O = w.Q + panels * D * nr;
    w.m = w.O + panels * D * nr;
    w.l = w.m + panels * nr;
    w.alpha = w.l + panels * nr;
    return w;
}

/* The operands of a key tile: K by rows, V by columns. */
static void forward_pack(const job *j, const forward_ws *w, const keys *ks, int64_t j0, int64_t n) {
    const tt_kernels *k = j->k;
    const int64_t D = j->a->D, mr = k->mr;
    int64_t ld;
    const float *src = rows_f32(k, ks, KEYS_OF, j0, n, D, w->convert, &ld);
    if (j->bf16)
        for (int64_t i = 0; i < n; i += mr) k->pack_rows_bf16(w->kp + i * depth(j, D), src + i * ld, ld, (int)least(mr, n - i), D, k->mr);
    else pack_keys(k, w->kp, src, ld, n, D);
    src = rows_f32(k, ks, VALUES_OF, j0, n, D, w->convert, &ld);
    if (j->bf16)
        for (int64_t d = 0; d < D; d += mr) k->pack_cols_bf16(w->vp + d * depth(j, n), src + d, ld, n, (int)least(mr, D - d), k->mr);
    else pack_features(k, w->vp, src, ld, n, D);
}

static void forward_products(const job *j, const float *A, int64_t a_k, int64_t m, int64_t kk, const float *B, float *C, int accumulate) {
    const tt_kernels *k = j->k;
    if (!j->bf16) {
        tiles_times_panel(k, A, a_k, m, kk, B, C, accumulate);
        return;
    }
    for (int64_t i = 0; i < m; i += k->mr)
        k->gemm_ukr_bf16(depth(j, kk), A + i * depth(j, a_k), B, C + i * k->nr, k->nr, (int)least(k->mr, m - i), k->nr, accumulate);
}

/* One key tile against one panel: panel p, tokens t0 …; `first`: O is not yet defined. */
static void forward_step(const job *j, const forward_ws *w, int64_t p, int64_t n, int64_t tile_keys, int64_t j0, int64_t t0, bool causal,
                         bool first) {
    const tt_kernels *k = j->k;
    const int nr = k->nr;
    const int64_t D = j->a->D;
    float *O = w->O + p * D * nr;
    forward_products(j, w->kp, D, n, D, w->Q + p * D * nr, w->S, 0);
    if (causal) mask_future(w->S, nr, n, j0, t0);
    (j->bf16 ? k->softmax_tile_bf16 : k->softmax_tile)(w->S, n, nr, j->a->scale, w->m + p * nr, w->l + p * nr, w->alpha);
    if (!first) k->scale_lanes(O, D, nr, w->alpha);
    forward_products(j, w->vp, tile_keys, D, n, w->S, O, !first);
}

static void forward_finish(const job *j, const forward_ws *w, int64_t p, int64_t row0, int64_t rows, int64_t head) {
    const tt_attn *a = j->a;
    const int nr = j->k->nr;
    float *O = w->O + p * a->D * nr, *transposed = w->convert, *l = w->l + p * nr;
    for (int i = 0; i < nr; i++) w->alpha[i] = 1.0f / l[i];
    j->k->scale_lanes(O, a->D, nr, w->alpha);
    j->k->pack_rows(transposed, O, nr, (int)a->D, rows, (int)a->D);
    for (int64_t i = 0; i < rows; i++) {
        memcpy(a->out + (row0 + i) * a->ldo + head * a->D, transposed + i * a->D, (size_t)a->D * sizeof(float));
        if (a->lse) a->lse[(row0 + i) * a->H + head] = w->m[p * nr + i] + logf(l[i]);
    }
}

static void forward_unit(void *arg, int64_t tile, int worker) {
    const job *j = arg;
    const tt_attn *a = j->a;
    const tt_kernels *k = j->k;
    const int nr = k->nr;
    const int64_t D = a->D, blocks = ceil_div(a->T, TOKENS), lanes_of_sequences = a->S * a->Hkv * j->parts;
    /* late tokens see most keys: dealt first */
    const int64_t block = blocks - 1 - tile / lanes_of_sequences, rest = tile % lanes_of_sequences;
    const int64_t s = rest / (a->Hkv * j->parts), kv = rest / j->parts % a->Hkv, part = rest % j->parts;
    const int64_t h0 = kv * j->group + part * HEADS, heads = least(HEADS, j->group - part * HEADS);
    const int64_t t0 = block * TOKENS, tokens = least(TOKENS, a->T - t0), across = ceil_div(tokens, nr);
    const forward_ws w = forward_carve(j, tt__scratch(j->ctx, worker), D);
    for (int64_t p = 0; p < heads * across; p++) {
        const int64_t t = t0 + p % across * nr, h = h0 + p / across;
        (j->bf16 ? k->pack_rows_bf16 : k->pack_rows)(w.Q + p * D * nr, a->q + (s * a->T + t) * a->ldq + h * D, a->ldq, (int)least(nr, t0 + tokens - t), D, nr);
        for (int i = 0; i < nr; i++) {
            w.m[p * nr + i] = NOTHING_SEEN;
            w.l[p * nr + i] = 0.0f;
        }
    }
    bool first = true;
    for (stretch which = PREFIX; which < STRETCHES; which++) {
        keys ks = keys_of(a, which, s, kv);
        if (ks.causal) ks.n = least(ks.n, t0 + tokens);
        for (int64_t j0 = 0; j0 < ks.n; j0 += KEYS) {
            const int64_t n = least(KEYS, ks.n - j0);
            forward_pack(j, &w, &ks, j0, n);
            for (int64_t p = 0; p < heads * across; p++) {
                const int64_t t = t0 + p % across * nr;
                const int64_t seen = ks.causal ? least(n, t + nr - j0) : n;
                if (seen > 0) forward_step(j, &w, p, seen, n, j0, t, ks.causal, first);
            }
            first = false;
        }
    }
    for (int64_t p = 0; p < heads * across; p++) {
        const int64_t t = t0 + p % across * nr;
        forward_finish(j, &w, p, s * a->T + t, least(nr, t0 + tokens - t), h0 + p / across);
    }
}

/* ---- decoding: few rows ---- */

typedef struct piece { keys ks; int64_t j0, n; } piece;

static piece piece_of(const tt_attn *a, int64_t s, int64_t t, int64_t kv, int64_t i) {
    const int64_t of_prefix = ceil_div(a->P, PIECE), of_past = ceil_div(a->N, PIECE);
    const stretch which = i < of_prefix ? PREFIX : i < of_prefix + of_past ? PAST : OWN;
    piece p = {.ks = keys_of(a, which, s, kv)};
    if (which == OWN) {
        p.n = t + 1;                           /* at most FEW */
        return p;
    }
    p.j0 = (which == PREFIX ? i : i - of_prefix) * PIECE;
    p.n = least(PIECE, p.ks.n - p.j0);
    return p;
}

static int64_t piece_count(int64_t P, int64_t N) { return ceil_div(P, PIECE) + ceil_div(N, PIECE) + 1; }

/* What piece i leaves for head h (counted from the first head of kv0): sum of v, max, sum. */
static float *piece_result(const job *j, int64_t i, int64_t h) {
    return j->results + (i * j->kvs * j->group + h) * (j->a->D + 2);
}

/* Scores of `rows` positions from r of a piece against the heads that share them; and their values, weighted. */
static void score_rows(const job *j, const piece *p, int64_t r, int64_t rows, const float *q, float *to) {
    const tt_kernels *k = j->k;
    const int64_t D = j->a->D, G = j->group, row = p->ks.k_row;
    const uint8_t *at = p->ks.k + (p->j0 + r) * row;
    if (p->ks.k_type == TT_KV_F16) k->rowdot_f16((const uint16_t *)(const void *)at, row / 2, rows, D, q, D, G, to, PIECE);
    else if (p->ks.k_type == TT_KV_F32) k->rowdot_f32((const float *)(const void *)at, row / 4, rows, D, q, D, G, to, PIECE);
    else k->rowdot_kv8((const int8_t *)at, row, p->ks.k_scales, rows, D, q, D, G, to, PIECE);
}

static void mix_rows(const job *j, const piece *p, int64_t r, int64_t rows, const float *weights, float *sums) {
    const tt_kernels *k = j->k;
    const int64_t D = j->a->D, G = j->group, row = p->ks.v_row;
    const uint8_t *at = p->ks.v + (p->j0 + r) * row;
    if (p->ks.v_type == TT_KV_F16) k->mix_f16((const uint16_t *)(const void *)at, row / 2, rows, D, weights, PIECE, G, sums, D + 2);
    else if (p->ks.v_type == TT_KV_F32) k->mix_f32((const float *)(const void *)at, row / 4, rows, D, weights, PIECE, G, sums, D + 2);
    else k->mix_kv8((const int8_t *)at, row, p->ks.v_scales, rows, D, weights, PIECE, G, sums, D + 2);
}

/* A piece for all kv heads from kv0. Rows of the cache hold all heads side by side, so a few rows at a time are taken through every
 * head: memory is read from front to end. */
static void decode_unit(void *arg, int64_t i, int worker) {
    const job *j = arg;
    const tt_attn *a = j->a;
    const int64_t D = a->D, G = j->group, n = piece_of(a, j->s, j->t, j->kv0, i).n;
    const float *q = a->q + (j->s * a->T + j->t) * a->ldq + j->kv0 * G * D;
    float scores[JOIN_HEADS * PIECE];
    (void)worker;
    for (int64_t r = 0; r < n; r += STRIP)
        for (int64_t h = 0; h < j->kvs; h++) {
            const piece p = piece_of(a, j->s, j->t, j->kv0 + h, i);
            score_rows(j, &p, r, least(STRIP, n - r), q + h * G * D, scores + h * G * PIECE + r);
        }
    for (int64_t h = 0; h < j->kvs * G; h++) {
        float *result = piece_result(j, i, h);
        memset(result, 0, (size_t)D * sizeof *result);
        result[D + 1] = j->k->softmax_exp_f32(scores + h * PIECE, n, a->scale, &result[D]);
    }
    for (int64_t r = 0; r < n; r += STRIP)
        for (int64_t h = 0; h < j->kvs; h++) {
            const piece p = piece_of(a, j->s, j->t, j->kv0 + h, i);
            mix_rows(j, &p, r, least(STRIP, n - r), scores + h * G * PIECE + r, piece_result(j, i, h * G));
        }
}

/* out = Σ_i w_i (Σ p v)_i / Σ_i w_i l_i with w_i = exp(m_i - max m): itself attention over the pieces. */
static void join_pieces(const job *j, int64_t h, float *weights) {
    const tt_attn *a = j->a;
    const int64_t D = a->D, row = j->s * a->T + j->t, head = j->kv0 * j->group + h, ld = j->kvs * j->group * (D + 2);
    const float *first = piece_result(j, 0, h);
    float *out = a->out + row * a->ldo + head * D, top, total = 0.0f;
    for (int64_t i = 0; i < j->pieces; i++) weights[i] = first[i * ld + D];
    j->k->softmax_exp_f32(weights, j->pieces, 1.0f, &top);
    for (int64_t i = 0; i < j->pieces; i++) total += weights[i] * first[i * ld + D + 1];
    for (int64_t i = 0; i < j->pieces; i++) weights[i] /= total;
    memset(out, 0, (size_t)D * sizeof *out);
    j->k->mix_f32(first, ld, j->pieces, D, weights, j->pieces, 1, out, a->ldo);
    if (a->lse) a->lse[row * a->H + head] = top + logf(total);
}

static void join_all(const job *j) {
    for (int64_t h = 0; h < j->kvs * j->group; h++) join_pieces(j, h, piece_result(j, j->pieces, 0));
}

/* One row with all of its pieces and kv heads. */
static void decode_row(void *arg, int64_t i, int worker) {
    job j = *(const job *)arg;
    const int64_t at_once = most(1, JOIN_HEADS / j.group);
    j.results = tt__scratch(j.ctx, worker);
    j.s = i / j.a->T;
    j.t = i % j.a->T;
    for (j.kv0 = 0; j.kv0 < j.a->Hkv; j.kv0 += at_once) {
        j.kvs = least(at_once, j.a->Hkv - j.kv0);
        for (int64_t p = 0; p < j.pieces; p++) decode_unit(&j, p, worker);
        join_all(&j);
    }
}

/* The pieces of a row at once; or where rows are many (sequences in lock-step), rows at once: the same sums either way. */
static void decode_rows(job *j) {
    const tt_attn *a = j->a;
    const int64_t at_once = most(1, JOIN_HEADS / j->group);
    j->pieces = piece_count(a->P, a->N);
    j->results = tt__scratch(j->ctx, 0);
    if (a->S * a->T >= MANY_ROWS) {
        tt__parallel(j->ctx, a->S * a->T, decode_row, j);
        return;
    }
    for (j->s = 0; j->s < a->S; j->s++)
        for (j->t = 0; j->t < a->T; j->t++)
            for (j->kv0 = 0; j->kv0 < a->Hkv; j->kv0 += at_once) {
                j->kvs = least(at_once, a->Hkv - j->kv0);
                tt__parallel(j->ctx, j->pieces, decode_unit, j);
                join_all(j);
            }
}

/* ---- backward ---- */

typedef struct backward_ws {
    float *kp, *vp, *kf;            /* [SUPER]: K and V with lanes of keys, K with lanes of features */
    float *dk, *dv;                 /* [SUPER, D] */
    float *convert, *S, *dP;        /* [KEYS, D]; [KEYS, nr] */
    float *pt, *dst;                /* P and dS with lanes of keys: [KEYS / mr][heads * nr][mr] */
    float *Q, *dO, *dQ;             /* [heads][D][nr] */
    float *qf, *dof;                /* Q and dO as B operands of dK and dV: [D / nr][heads * nr][nr] */
    float *lse, *delta;             /* [heads][nr] */
} backward_ws;

/* Floats that a unit takes; with base, also where. */
static size_t backward_carve(backward_ws *w, float *base, int mr, int nr, int64_t D) {
    const int64_t dn = round_up(D, nr), dm = round_up(D, mr), tiles = SUPER / KEYS;
    int64_t used = 0;
#define TAKE(field, n)                 \
    if (base) w->field = base + used;  \
    used += (n)
    TAKE(kp, tiles * round_up(KEYS, mr) * D);
    TAKE(vp, tiles * round_up(KEYS, mr) * D);
    TAKE(kf, SUPER * dm);
    TAKE(dk, SUPER * D);
    TAKE(dv, SUPER * D);
    TAKE(convert, KEYS * D);
    TAKE(S, KEYS * nr);
    TAKE(dP, KEYS * nr);
    TAKE(pt, round_up(KEYS, mr) * HEADS * nr);
    TAKE(dst, round_up(KEYS, mr) * HEADS * nr);
    TAKE(Q, HEADS * D * nr);
    TAKE(dO, HEADS * D * nr);
    TAKE(dQ, HEADS * D * nr);
    TAKE(qf, HEADS * nr * dn);
    TAKE(dof, HEADS * nr * dn);
    TAKE(lse, HEADS * nr);
    TAKE(delta, HEADS * nr);
#undef TAKE
    return (size_t)used;
}

/* The query side of a step: `heads` heads from h0, tokens t … t + rows of sequence s in the lanes. */
typedef struct panel { int64_t s, t, rows, h0, heads; } panel;

static void load_panel(const job *j, const backward_ws *w, const panel *p) {
    const tt_attn *a = j->a;
    const tt_kernels *k = j->k;
    const int nr = k->nr;
    const int64_t D = a->D, lanes = p->heads * nr, row0 = p->s * a->T + p->t;
    for (int64_t g = 0; g < p->heads; g++) {
        const int64_t h = p->h0 + g;
        const float *q = a->q + row0 * a->ldq + h * D, *d = j->dout + row0 * a->H * D + h * D, *o = a->out + row0 * a->ldo + h * D;
        k->pack_rows(w->Q + g * D * nr, q, a->ldq, (int)p->rows, D, nr);
        k->pack_rows(w->dO + g * D * nr, d, a->H * D, (int)p->rows, D, nr);
        for (int64_t d0 = 0; d0 < D; d0 += nr) {
            float *qf = w->qf + d0 * lanes + g * nr * nr, *df = w->dof + d0 * lanes + g * nr * nr;
            const int cols = (int)least(nr, D - d0);
            k->pack_cols(qf, q + d0, a->ldq, p->rows, cols, nr);
            k->pack_cols(df, d + d0, a->H * D, p->rows, cols, nr);
            memset(qf + p->rows * nr, 0, (size_t)((nr - p->rows) * nr) * sizeof *qf);
            memset(df + p->rows * nr, 0, (size_t)((nr - p->rows) * nr) * sizeof *df);
        }
        for (int i = 0; i < nr; i++) {
            const int64_t row = row0 + i;
            w->lse[g * nr + i] = i < p->rows ? a->lse[row * a->H + h] : 0.0f;
            w->delta[g * nr + i] = i < p->rows ? k->dot_f32(d + i * a->H * D, o + i * a->ldo, D) : 0.0f;
        }
    }
}

/* One key tile (its place in the packed stretch given by kp, vp, kf) against a panel. dk, dv NULL: keys are constant. */
typedef struct tile { const float *kp, *vp, *kf; int64_t n, all, j0; bool causal; float *dk, *dv; bool want_dq, first_dq; } tile;

static void backward_step(const job *j, const backward_ws *w, const panel *p, const tile *x) {
    const tt_kernels *k = j->k;
    const int nr = k->nr, mr = k->mr;
    const int64_t D = j->a->D, lanes = p->heads * nr;
    for (int64_t g = 0; g < p->heads; g++) {
        tiles_times_panel(k, x->kp, D, x->n, D, w->Q + g * D * nr, w->S, 0);
        tiles_times_panel(k, x->vp, D, x->n, D, w->dO + g * D * nr, w->dP, 0);
        if (x->causal) mask_future(w->S, nr, x->n, x->j0, p->t);
        k->softmax_bwd_tile(w->S, w->dP, x->n, nr, j->a->scale, w->lse + g * nr, w->delta + g * nr);
        if (x->want_dq) tiles_times_panel(k, x->kf, x->all, D, x->n, w->dP, w->dQ + g * D * nr, !x->first_dq);
        for (int64_t i = 0; x->dk && i < x->n; i += mr) {
            const int rows = (int)least(mr, x->n - i);
            k->pack_rows(w->pt + i * lanes + g * nr * mr, w->S + i * nr, nr, rows, nr, mr);
            k->pack_rows(w->dst + i * lanes + g * nr * mr, w->dP + i * nr, nr, rows, nr, mr);
        }
    }
    for (int64_t i = 0; x->dk && i < x->n; i += mr)
        for (int64_t d = 0; d < D; d += nr) {
            const int m = (int)least(mr, x->n - i), n = (int)least(nr, D - d);
            k->gemm_ukr(lanes, w->pt + i * lanes, w->dof + d * lanes, x->dv + i * D + d, D, m, n, 1);
            k->gemm_ukr(lanes, w->dst + i * lanes, w->qf + d * lanes, x->dk + i * D + d, D, m, n, 1);
        }
}

static void store_dq(const job *j, const backward_ws *w, const panel *p, bool add) {
    const tt_attn *a = j->a;
    const int nr = j->k->nr;
    for (int64_t g = 0; g < p->heads; g++) {
        j->k->pack_rows(w->convert, w->dQ + g * a->D * nr, nr, (int)a->D, p->rows, (int)a->D);
        for (int64_t i = 0; i < p->rows; i++) {
            float *to = j->dq + (p->s * a->T + p->t + i) * a->H * a->D + (p->h0 + g) * a->D;
            if (add) j->k->add_f32(to, to, w->convert + i * a->D, a->D);
            else memcpy(to, w->convert + i * a->D, (size_t)a->D * sizeof *to);
        }
    }
}

/* Packs keys j0 … j0 + n (n ≤ SUPER) of a stretch, tile by tile. */
static void pack_super(const job *j, const backward_ws *w, const keys *ks, int64_t j0, int64_t n) {
    const tt_kernels *k = j->k;
    const int64_t D = j->a->D, kp_tile = round_up(KEYS, k->mr) * D, kf_tile = KEYS * round_up(D, k->mr);
    for (int64_t i = 0; i < n; i += KEYS) {
        const int64_t here = least(KEYS, n - i);
        int64_t ld;
        const float *src = rows_f32(k, ks, KEYS_OF, j0 + i, here, D, w->convert, &ld);
        pack_keys(k, w->kp + i / KEYS * kp_tile, src, ld, here, D);
        pack_features(k, w->kf + i / KEYS * kf_tile, src, ld, here, D);
        src = rows_f32(k, ks, VALUES_OF, j0 + i, here, D, w->convert, &ld);
        pack_keys(k, w->vp + i / KEYS * kp_tile, src, ld, here, D);
    }
}

/* All tiles of the packed keys j0 … j0 + n against one panel. */
static void backward_panel(const job *j, const backward_ws *w, const panel *p, const keys *ks, int64_t j0, int64_t n, bool want_dq, bool want_dkv,
                           bool first_dq) {
    const tt_kernels *k = j->k;
    const int64_t D = j->a->D, kp_tile = round_up(KEYS, k->mr) * D, kf_tile = KEYS * round_up(D, k->mr);
    const int64_t seen = ks->causal ? least(n, p->t + p->rows - j0) : n;
    if (seen <= 0) return;
    load_panel(j, w, p);
    for (int64_t i = 0; i < seen; i += KEYS) {
        const int64_t at = i / KEYS;
        const tile x = {.kp = w->kp + at * kp_tile, .vp = w->vp + at * kp_tile, .kf = w->kf + at * kf_tile, .n = least(KEYS, seen - i),
                        .all = least(KEYS, n - i), .j0 = j0 + i, .causal = ks->causal, .dk = want_dkv ? w->dk + i * D : 0,
                        .dv = want_dkv ? w->dv + i * D : 0, .want_dq = want_dq, .first_dq = i == 0};
        backward_step(j, w, p, &x);
    }
    if (want_dq) store_dq(j, w, p, !first_dq);
}

static void backward_unit(void *arg, int64_t unit, int worker) {
    const job *j = arg;
    const tt_attn *a = j->a;
    const int nr = j->k->nr;
    const int64_t D = a->D, s = unit / a->Hkv, kv = unit % a->Hkv, ld = a->Hkv * D;
    backward_ws w;
    backward_carve(&w, tt__scratch(j->ctx, worker), j->k->mr, nr, D);
    bool first = true;                             /* the first keys define dq for every row: token 0 sees its own key at least */
    for (stretch which = PREFIX; which < STRETCHES; which++) {
        const keys ks = keys_of(a, which, s, kv);
        for (int64_t j0 = 0; j0 < ks.n; j0 += SUPER) {
            const int64_t n = least(SUPER, ks.n - j0);
            pack_super(j, &w, &ks, j0, n);
            if (which == OWN) memset(w.dk, 0, (size_t)(2 * SUPER * D) * sizeof(float));
            for (int64_t g = 0; g < j->group; g += HEADS)
                for (int64_t t = 0; t < a->T; t += nr) {
                    const panel p = {s, t, least(nr, a->T - t), kv * j->group + g, least(HEADS, j->group - g)};
                    backward_panel(j, &w, &p, &ks, j0, n, true, which == OWN, first);
                }
            first = false;
            for (int64_t i = 0; which == OWN && i < n; i++) {
                const int64_t row = s * a->T + j0 + i;
                memcpy(j->dk + row * ld + kv * D, w.dk + i * D, (size_t)D * sizeof(float));
                memcpy(j->dv + row * ld + kv * D, w.dv + i * D, (size_t)D * sizeof(float));
            }
        }
    }
}

/* Gradient of KEYS prefix positions of one kv head, over all sequences in order. */
static void prefix_unit(void *arg, int64_t unit, int worker) {
    const job *j = arg;
    const tt_attn *a = j->a;
    const int nr = j->k->nr;
    const int64_t D = a->D, kv = unit % a->Hkv, j0 = unit / a->Hkv * KEYS, n = least(KEYS, a->P - j0), ld = a->Hkv * D;
    const keys ks = keys_of(a, PREFIX, 0, kv);
    backward_ws w;
    backward_carve(&w, tt__scratch(j->ctx, worker), j->k->mr, nr, D);
    pack_super(j, &w, &ks, j0, n);
    memset(w.dk, 0, (size_t)(2 * SUPER * D) * sizeof(float));
    for (int64_t s = 0; s < a->S; s++)
        for (int64_t g = 0; g < j->group; g += HEADS)
            for (int64_t t = 0; t < a->T; t += nr) {
                const panel p = {s, t, least(nr, a->T - t), kv * j->group + g, least(HEADS, j->group - g)};
                backward_panel(j, &w, &p, &ks, j0, n, false, true, false);
            }
    for (int64_t i = 0; i < n; i++) {
        float *dpk = j->dpk + (j0 + i) * ld + kv * D, *dpv = j->dpv + (j0 + i) * ld + kv * D;
        j->k->add_f32(dpk, dpk, w.dk + i * D, D);
        j->k->add_f32(dpv, dpv, w.dv + i * D, D);
    }
}

/* ---- the calls ---- */

size_t tt__attention_scratch(const struct tt_ctx *ctx, int64_t T, int64_t D, int64_t P, int64_t N) {
    backward_ws w;
    const int mr = ctx->k->mr, nr = ctx->k->nr;
    (void)T;
    const size_t tiles = (size_t)most((int64_t)forward_floats(mr, nr, D), (int64_t)backward_carve(&w, NULL, mr, nr, D));
    const size_t pieces = (size_t)(piece_count(P, N) * (JOIN_HEADS * (D + 2) + 1));
    return sizeof(float) * (tiles > pieces ? tiles : pieces);
}

static job job_for(tt_ctx *ctx, const tt_attn *a) {
    assert(a->H % a->Hkv == 0 && a->H / a->Hkv <= JOIN_HEADS);
    assert(a->D % 32 == 0 || (a->pastk_type != TT_KV_Q8 && a->pastv_type != TT_KV_Q8));
    assert(ctx->scratch_bytes >= tt__attention_scratch(ctx, a->T, a->D, a->P, a->N));
    return (job){.ctx = ctx, .k = ctx->k, .a = a, .group = a->H / a->Hkv, .parts = ceil_div(a->H / a->Hkv, HEADS)};
}

void tt__attention(struct tt_ctx *ctx, const tt_attn *a) {
    if (a->S <= 0 || a->T <= 0) return;
    job j = job_for(ctx, a);
    if (a->T <= FEW) decode_rows(&j);
    else {
        j.bf16 = a->fast && ctx->k->bf16;
        tt__parallel(ctx, a->S * a->Hkv * j.parts * ceil_div(a->T, TOKENS), forward_unit, &j);
    }
}

void tt__attention_bwd(struct tt_ctx *ctx, const tt_attn *a, const float *dout, float *dq, float *dk, float *dv, float *dpk, float *dpv) {
    if (a->S <= 0 || a->T <= 0) return;
    job j = job_for(ctx, a);
    j.dout = dout;
    j.dq = dq;
    j.dk = dk;
    j.dv = dv;
    j.dpk = dpk;
    j.dpv = dpv;
    tt__parallel(ctx, a->S * a->Hkv, backward_unit, &j);
    if (a->P > 0 && dpk && dpv) tt__parallel(ctx, a->Hkv * ceil_div(a->P, KEYS), prefix_unit, &j);
}
