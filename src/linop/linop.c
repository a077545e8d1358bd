/* What all operators share: the table of representations, prepared activations, makers of standard types, and the choice of a path.
 *
 *     y = x W^T   few rows, fast   rowdot of the representation on activations rounded to 8 bits, rows of W dealt in tiles
 *                 many, fast       batch of the representation, if it has one: integer products of tiles of rows
 *                 otherwise        gemm.h over decode(): a panel at a time, W is never dense in memory; weights stored as BF16 in fast runs are
 *                                  multiplied as such where the machine can, with activations rounded to it
 *
 * An output is always summed by one worker, so no path depends on the thread count.
 */
#include "linop/linop.h"

#include "base/checked.h"
#include "base/limits.h"
#include "base/util.h"
#include "linop/sparse.h"
#include "linop/standard.h"
#include <assert.h>
#include <stdio.h>

enum { MAX_ROWDOT_T = 8 };                            /* rows of activations that a rowdot kernel takes */

const tt_linop_vtable *tt__linop_find(const char *name) {
#define TT_LINOP(n) if (!strcmp(name, #n)) return &tt__linop_v_##n;
#include "linop/linops.inc"
#undef TT_LINOP
    return NULL;
}

void tt__linop_free(tt_linop *op) {
    if (op) op->v->free(op);
}

/* ------------------------------------------------------------ prepared activations ---- */

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

/* Workspace of many rows: tt_batch and its parts. Of few: q int8 [T, n_pad] | d f32 [T, blocks] | sum i32 [T, blocks] | tt_unrolled, its table and scales, each from a 64-byte boundary. */
size_t tt__act_bytes(int64_t T, int64_t n) {
    size_t t = (size_t)(T < MAX_ROWDOT_T ? T : MAX_ROWDOT_T), blocks = (size_t)(n + 63) / 64 * 2;
    size_t many = T > MAX_ROWDOT_T ? align64(sizeof(tt_batch)) + tt__batch_bytes(T, n) + 64 : 0;
    size_t unrolled = align64(sizeof(tt_unrolled)) + t * (blocks / 2) * TT_SLIDE2_TABLE + align64(t * (blocks / 2) * sizeof(float));
    size_t few = align64(t * blocks * 32) + 2 * align64(t * blocks * sizeof(float)) + unrolled + 64;
    return few > many ? few : many;
}

void tt__act_prepare(tt_ctx *ctx, tt_act *act, const float *x, int64_t ldx, int64_t T, int64_t n, bool fast, void *ws) {
    *act = (tt_act){.x = x, .ldx = ldx, .T = T, .n = n, .fast = fast};
    if (!fast || !ws) return;
    int64_t written = (n + 31) / 32, blocks = (n + 63) / 64 * 2;
    uint8_t *p = (uint8_t *)(((uintptr_t)ws + 63) & ~(uintptr_t)63);
    if (T > MAX_ROWDOT_T) {
        act->batch = memset(p, 0, sizeof(tt_batch));
        return;
    }
    tt_q8 *q = &act->q8;
    q->T = T, q->n = n, q->n_pad = 32 * blocks, q->blocks = blocks;
    q->q = (int8_t *)p;
    q->d = (float *)(void *)(p + align64((size_t)(T * q->n_pad)));
    q->sum = (int32_t *)(void *)((uint8_t *)q->d + align64((size_t)(T * blocks) * sizeof(float)));
    act->unrolled = (tt_unrolled *)(void *)((uint8_t *)q->sum + align64((size_t)(T * blocks) * sizeof(float)));
    uint8_t *table = (uint8_t *)act->unrolled + align64(sizeof(tt_unrolled));
    *act->unrolled = (tt_unrolled){0, blocks / 2, table, (float *)(void *)(table + T * (blocks / 2) * TT_SLIDE2_TABLE)};
    for (int64_t t = 0; t < T; t++) {
        ctx->k->quant_q8(x + t * ldx, n, q->q + t * q->n_pad, q->d + t * blocks, q->sum + t * blocks);
        if (written < blocks) {
            memset(q->q + t * q->n_pad + 32 * written, 0, 32);
            q->d[t * blocks + written] = 0.0f;
            q->sum[t * blocks + written] = 0;
        }
    }
}

/* ------------------------------------------------------------ standard types ---- */

bool tt__linop_is_dense(tt_dtype t) { return t == TT_F32 || t == TT_F16 || t == TT_BF16; }
static bool is_matrix_type(tt_dtype t) { return tt__linop_is_dense(t) || (t < TT_DTYPE_COUNT && tt__dtype(t)->quantized); }

static tt_status check_shape(tt_dtype type, int64_t rows, int64_t cols, uint64_t *row_bytes, size_t *all, tt_err *err) {
    uint64_t total;
    TT_FAIL_IF(!is_matrix_type(type), err, TT_BADFILE, "not a type for a matrix||%s", type < TT_DTYPE_COUNT ? tt__dtype(type)->label : "none");
    TT_FAIL_IF(rows < 1 || cols < 1 || (uint64_t)rows > TT_LIMIT_DIM || (uint64_t)cols > TT_LIMIT_DIM, err, TT_BADFILE,
               "bad matrix shape||[%lld, %lld]", (long long)rows, (long long)cols);
    TT_FAIL_IF(!tt__dtype_bytes(type, (uint64_t)cols, row_bytes), err, TT_BADFILE, "row length does not fit the type||%lld columns of %s|a multiple of %lld",
               (long long)cols, tt__dtype(type)->label, (long long)tt__dtype(type)->block);
    TT_FAIL_IF(!tt__mul_u64(*row_bytes, (uint64_t)rows, &total) || !tt__to_size(total, all), err, TT_BADFILE, "matrix is too large||[%lld, %lld]",
               (long long)rows, (long long)cols);
    return TT_OK;
}

tt_status tt__linop_from_bytes(tt_ctx *ctx, tt_dtype type, const void *data, int64_t rows, int64_t cols, tt_linop **out, tt_err *err) {
    uint64_t row_bytes;
    size_t all;
    *out = NULL;
    TT_TRY(check_shape(type, rows, cols, &row_bytes, &all, err));
    tt__standard *s = NULL;
    TT_TRY(tt__new(&s, 1, sizeof *s, "an operator", err));
    s->op = (tt_linop){.v = tt__linop_is_dense(type) ? &tt__linop_v_dense : &tt__linop_v_block, .rows = rows, .cols = cols,
                       .col_unit = tt__dtype(type)->block, .dtype = type, .data = data};
    s->k = ctx->k;
    s->row_bytes = (int64_t)row_bytes;
    if (!tt__linop_is_dense(type)) tt__block_bind(s);
    if (tt__linop_is_dense(type) && (uintptr_t)data % (uintptr_t)tt__dtype(type)->bytes) {   /* floats are read as floats: a crooked address is copied */
        s->op.owned = tt__alloc(all);
        if (!s->op.owned) {
            tt__free(s);
            return tt__fail(err, TT_RESOURCE, "out of memory|for a matrix|%zu bytes", all);
        }
        s->op.data = memcpy(s->op.owned, data, all);
    }
    *out = &s->op;
    return TT_OK;
}

typedef struct encode_job {
    tt_dtype type;
    const float *W, *importance;
    int64_t rows, cols, row_bytes, tile_rows;
    uint8_t *out;
    tt_err *errs;                                     /* one per tile: the first in row order is the one reported */
} encode_job;

static void encode_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    encode_job *j = arg;
    int64_t end = (tile + 1) * j->tile_rows < j->rows ? (tile + 1) * j->tile_rows : j->rows;
    for (int64_t r = tile * j->tile_rows; r < end && j->errs[tile].status == TT_OK; r++)
        tt__dtype_encode(j->type, j->W + r * j->cols, j->out + r * j->row_bytes, j->cols, j->importance, &j->errs[tile]);
}

tt_status tt__linop_encode_weighted(tt_ctx *ctx, tt_dtype type, const float *W, const float *importance, int64_t rows, int64_t cols,
                                    tt_linop **out, tt_err *err) {
    uint64_t row_bytes;
    size_t all;
    *out = NULL;
    TT_TRY(check_shape(type, rows, cols, &row_bytes, &all, err));
    int64_t tile_rows = 16, tiles = (rows + tile_rows - 1) / tile_rows;
    tt_err *errs = NULL;
    uint8_t *bytes = tt__alloc(all);
    TT_FAIL_IF(!bytes, err, TT_RESOURCE, "out of memory|for a matrix|%zu bytes", all);
    tt_status st;
    TT_TRY_GOTO(tt__new(&errs, (size_t)tiles, sizeof *errs, "row errors", err));
    encode_job job = {type, W, importance, rows, cols, (int64_t)row_bytes, tile_rows, bytes, errs};
    tt__parallel(ctx, tiles, encode_tile, &job);
    for (int64_t i = 0; i < tiles; i++)
        if (errs[i].status != TT_OK) {
            st = errs[i].status;
            if (err) *err = errs[i];
            goto done;
        }
    TT_TRY_GOTO(tt__linop_from_bytes(ctx, type, bytes, rows, cols, out, err));
    (*out)->owned = bytes;
    bytes = NULL;
done:
    tt__free(errs);
    tt__free(bytes);
    return st;
}

tt_status tt__linop_encode(tt_ctx *ctx, tt_dtype type, const float *W, int64_t rows, int64_t cols, tt_linop **out, tt_err *err) {
    return tt__linop_encode_weighted(ctx, type, W, NULL, rows, cols, out, err);
}

/* ---- the part of the vtable that dense and block share ---- */

int tt__standard_segments(const tt_linop *op, tt_segment out[8]) {
    const tt__standard *s = (const tt__standard *)op;
    out[0] = (tt_segment){"data", op->data, (uint64_t)(s->row_bytes * op->rows)};
    return 1;
}

void tt__standard_describe(const tt_linop *op, char *buf, size_t n) { snprintf(buf, n, "type=%s", tt__dtype(op->dtype)->label); }

tt_status tt__standard_load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    tt_dtype type;
    uint64_t row_bytes;
    size_t all;
    *out = NULL;
    TT_FAIL_IF(strncmp(params, "type=", 5) || !tt__dtype_from_name(params + 5, &type), err, TT_BADFILE, "unknown operator parameters||%s|type=NAME", params);
    TT_TRY(check_shape(type, rows, cols, &row_bytes, &all, err));
    TT_FAIL_IF(n_seg != 1 || strcmp(seg[0].name, "data") || seg[0].bytes != all, err, TT_BADFILE, "operator does not fit its shape|%s|%llu bytes|%zu",
               params, n_seg == 1 ? (unsigned long long)seg[0].bytes : 0ull, all);
    return tt__linop_from_bytes(ctx, type, seg[0].data, rows, cols, out, err);
}

void tt__standard_free(tt_linop *op) {
    tt__free(((tt__standard *)op)->master);
    tt__free(op->owned);
    tt__free(op);
}

/* ------------------------------------------------------------ use ---- */

typedef struct expand_job { const tt_linop *op; float *out; } expand_job;
enum { EXPAND_ROWS = 32 };

static void expand_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    expand_job *j = arg;
    int64_t r0 = tile * EXPAND_ROWS, r1 = r0 + EXPAND_ROWS < j->op->rows ? r0 + EXPAND_ROWS : j->op->rows;
    tt__linop_rows(j->op, r0, r1, j->out + r0 * j->op->cols);
}

tt_status tt__linop_expand(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err) {
    uint64_t row_bytes;
    size_t all;
    *out = NULL;
    TT_TRY(check_shape(TT_F32, op->rows, op->cols, &row_bytes, &all, err));
    float *W = tt__alloc(all);
    TT_FAIL_IF(!W, err, TT_RESOURCE, "out of memory|for an expanded matrix|%zu bytes", all);
    tt__parallel(ctx, (op->rows + EXPAND_ROWS - 1) / EXPAND_ROWS, expand_tile, &(expand_job){op, W});
    tt_status st = tt__linop_from_bytes(ctx, TT_F32, W, op->rows, op->cols, out, err);
    if (st != TT_OK) tt__free(W);
    else (*out)->owned = W;
    return st;
}

uint64_t tt__linop_bytes(const tt_linop *op) {
    tt_segment seg[8];
    uint64_t sum = 0;
    for (int i = op->v->segments(op, seg) - 1; i >= 0; i--) sum += seg[i].bytes;
    return sum;
}

void tt__linop_label(const tt_linop *op, char *buf, size_t n) {
    char params[96];
    if (op->dtype != TT_DTYPE_COUNT) {
        snprintf(buf, n, "%s", tt__dtype(op->dtype)->label);
        return;
    }
    op->v->describe(op, params, sizeof params);
    snprintf(buf, n, "%s(%s)", op->v->name, params);
}

static void wsrc_decode(const void *self, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const tt_linop *op = self;
    op->v->decode(op, r0, r1, c0, c1, out, ld);
}

static bool wsrc_pack(const void *self, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int r, int pair) {
    const tt_linop *op = self;
    return op->v->pack(op, r0, r1, c0, c1, out, r, pair);
}

tt_wsrc tt__linop_wsrc(const tt_linop *op) {
    return (tt_wsrc){.rows = op->rows, .cols = op->cols, .col_unit = op->col_unit, .decode = wsrc_decode, .pack = op->v->pack ? wsrc_pack : NULL, .self = op};
}

void tt__linop_rows(const tt_linop *op, int64_t r0, int64_t r1, float *out) {
    assert(r0 >= 0 && r0 <= r1 && r1 <= op->rows);
    op->v->decode(op, r0, r1, 0, op->cols, out, op->cols);
}

typedef struct rowdot_job { tt_ctx *ctx; const tt_linop *op; const tt_act *act; float *Y; int64_t ldy, tile_rows; } rowdot_job;

static void rowdot_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    rowdot_job *j = arg;
    int64_t r0 = tile * j->tile_rows, r1 = r0 + j->tile_rows < j->op->rows ? r0 + j->tile_rows : j->op->rows;
    j->op->v->rowdot(j->ctx, j->op, j->act, r0, r1, j->Y, j->ldy);
}

static bool use_rowdot(const tt_linop *op, const tt_act *act) {
    return op->v->rowdot && act->T <= MAX_ROWDOT_T && (act->q8.q || op->v->takes_floats);
}

/* ---- many rows ---- */

typedef struct pack_job { const tt_kernels *k; const tt_act *act; } pack_job;

static void pack_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    const pack_job *j = arg;
    j->k->batch_pack(j->act->x, j->act->ldx, j->act->batch, tile);
}

/* Once for all operators that read the activation; the first one's groups decide how many columns share a scale. */
static void pack_batch(tt_ctx *ctx, const tt_linop *op, const tt_act *act) {
    const tt_panel *panel = tt__linop_panel(op);
    if (act->batch->tiles) return;
    tt__batch_init(act->batch, ctx->k->batch_tokens, panel && panel->group == 32 ? 32 : 64, act->T, act->n, (uint8_t *)act->batch + align64(sizeof(tt_batch)));
    tt__parallel(ctx, act->batch->tiles, pack_tile, &(pack_job){ctx->k, act});
}

/* A piece of work: the activations of some tiles, which stay near, against rows of W. */
enum { BATCH_ROWS = 128, BATCH_TOKENS = 96 };
typedef struct batch_job { tt_ctx *ctx; const tt_linop *op; const tt_batch *x; float *Y; int64_t ldy, row_blocks, tiles; } batch_job;

static void batch_piece(void *arg, int64_t piece, int worker) {
    (void)worker;
    const batch_job *j = arg;
    const int64_t tile0 = piece / j->row_blocks * j->tiles, tile1 = tile0 + j->tiles < j->x->tiles ? tile0 + j->tiles : j->x->tiles;
    const int64_t r0 = piece % j->row_blocks * BATCH_ROWS, r1 = r0 + BATCH_ROWS < j->op->rows ? r0 + BATCH_ROWS : j->op->rows;
    j->op->v->batch(j->ctx, j->op, j->x, tile0, tile1, r0, r1, j->Y, j->ldy, worker);
}

static void apply_batch(tt_ctx *ctx, const tt_linop *op, const tt_act *act, float *Y, int64_t ldy) {
    pack_batch(ctx, op, act);
    batch_job job = {ctx, op, act->batch, Y, ldy, (op->rows + BATCH_ROWS - 1) / BATCH_ROWS, (BATCH_TOKENS + act->batch->tokens - 1) / act->batch->tokens};
    tt__parallel(ctx, (act->batch->tiles + job.tiles - 1) / job.tiles * job.row_blocks, batch_piece, &job);
}

static bool is_bf16(const tt_linop *op) {
    const tt_panel *panel = tt__linop_panel(op);
    return panel ? panel->grid == TT_GRID_BF16 : op->dtype == TT_BF16;
}

void tt__linop_apply(tt_ctx *ctx, const tt_linop *op, const tt_act *act, float *Y, int64_t ldy) {
    assert(act->n == op->cols);
    if (op->v->apply) {
        op->v->apply(ctx, op, act, Y, ldy);
        return;
    }
    if (op->v->batch && act->batch) {
        apply_batch(ctx, op, act, Y, ldy);
        return;
    }
    if (use_rowdot(op, act)) {
        if (op->v->prepare && act->unrolled) op->v->prepare(ctx, act);
        rowdot_job job = {ctx, op, act, Y, ldy, op->rows <= 4096 ? 32 : 128};
        tt__parallel(ctx, (op->rows + job.tile_rows - 1) / job.tile_rows, rowdot_tile, &job);
        return;
    }
    tt_wsrc w = tt__linop_wsrc(op);
    w.bf16 = act->bf16 || (act->fast && is_bf16(op));
    tt__gemm_w(ctx, &w, act->x, act->ldx, act->T, Y, ldy, false);
}

void tt__linop_apply_t(tt_ctx *ctx, const tt_linop *op, const float *G, int64_t ldg, int64_t T, float *dX, int64_t lddx, bool accumulate,
                       bool bf16) {
    if (op->v->apply_t) {
        op->v->apply_t(ctx, op, G, ldg, T, dX, lddx, accumulate, bf16);
        return;
    }
    tt_wsrc w = tt__linop_wsrc(op);
    w.bf16 = bf16;
    tt__gemm_wt(ctx, &w, G, ldg, T, dX, lddx, accumulate);
}

size_t tt__linop_scratch(tt_ctx *ctx, const tt_linop *op) {
    if (op->v->scratch) return op->v->scratch(ctx, op);
    const size_t gemm = tt__gemm_scratch(ctx, op->rows, op->cols), expanded = tt__expanded_bytes(op->cols);
    return gemm > expanded ? gemm : expanded;
}
