/* Training of standard types. A block type trains the 16-bit scale and minimum of its blocks; of types with small scales inside a block those stay, and
 * the two numbers that multiply them train, which the file stores exactly. A dense type trains its weights: a master in f32 for each, for control runs.
 *
 *     masters   f32 [rows, blocks] scales, then minima where the type has them;  dense: f32 [rows, cols]
 *     basis     a block decoded with scale 1 and minimum 0, or 0 and 1: the decoder itself says what they multiply
 */
#include "linop/codes.h"
#include "linop/standard.h"

#include "base/util.h"
#include <assert.h>
#include <math.h>
#include <string.h>

/* Where in a block scale and minimum lie; min -1: none. */
typedef struct place { int scale, min; } place;

static place place_of(tt_dtype type) {
    switch (type) {
    case TT_Q4_0: case TT_Q5_0: case TT_Q8_0: case TT_IQ4_NL: return (place){0, -1};
    case TT_Q4_1: case TT_Q5_1: case TT_Q4_K: case TT_Q5_K: return (place){0, 2};
    case TT_Q2_K: return (place){80, 82};
    case TT_Q3_K: return (place){108, -1};
    case TT_Q6_K: return (place){208, -1};
    default: __builtin_unreachable();      /* block.c knows no other */
    }
}

enum { LARGEST_BLOCK = 256 };              /* bytes */

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static void put16(uint8_t *p, uint16_t h) { p[0] = (uint8_t)h, p[1] = (uint8_t)(h >> 8); }
static int64_t blocks_of(const tt_linop *op) { return op->cols / tt__dtype(op->dtype)->block; }

int tt__standard_params(tt_linop *op, tt_param out[TT_MAX_PARAMS]) {
    float *x = ((tt__standard *)op)->master;
    if (!x) return 0;
    if (tt__linop_is_dense(op->dtype)) {
        out[0] = (tt_param){"weights", x, op->rows * op->cols, op->cols, 1};
        return 1;
    }
    const int64_t per_row = blocks_of(op), n = op->rows * per_row, unit = tt__dtype(op->dtype)->block;
    const bool mins = place_of(op->dtype).min >= 0;
    out[0] = (tt_param){"scales", x, n, per_row, unit};
    if (mins) out[1] = (tt_param){"minima", x + n, n, per_row, unit};
    return mins ? 2 : 1;
}

/* ---- masters to weights ---- */

typedef struct round_job { const tt_linop *op; float *x; uint8_t *data; } round_job;
enum { ROUND = 16384 };

static void round_tile(void *arg, int64_t tile, int worker) {
    const round_job *j = arg;
    const int64_t n = j->op->rows * j->op->cols, i0 = tile * ROUND, i1 = i0 + ROUND < n ? i0 + ROUND : n;
    (void)worker;
    for (int64_t i = i0; i < i1; i++) {
        const float x = j->x[i];
        if (j->op->dtype == TT_F32) memcpy(j->data + 4 * i, &x, sizeof x);
        else put16(j->data + 2 * i, j->op->dtype == TT_F16 ? tt__f32_to_f16(x) : tt__f32_to_bf16(x));
    }
}

static tt_status round_dense(tt_ctx *ctx, tt_linop *op, tt_err *err) {
    round_job j = {op, ((tt__standard *)op)->master, op->owned};
    const int64_t n = op->rows * op->cols;
    const float most = op->dtype == TT_F16 ? 65504 : 3.3e38f;      /* what still rounds to a finite bf16 */
    for (int64_t i = 0; i < n; i++) {
        TT_FAIL_IF(!isfinite(j.x[i]), err, TT_FAIL, "a trained number is not finite");
        if (fabsf(j.x[i]) > most) j.x[i] = copysignf(most, j.x[i]);
    }
    tt__parallel(ctx, (n + ROUND - 1) / ROUND, round_tile, &j);
    return TT_OK;
}

tt_status tt__standard_changed(tt_ctx *ctx, tt_linop *op, tt_err *err) {
    if (tt__linop_is_dense(op->dtype)) return round_dense(ctx, op, err);
    const place at = place_of(op->dtype);
    const int64_t n = op->rows * blocks_of(op), bytes = tt__dtype(op->dtype)->bytes;
    float *x = ((tt__standard *)op)->master;
    uint8_t *block = op->owned;
    for (int64_t i = 0; i < n; i++, block += bytes) {
        uint16_t h;
        TT_TRY(tt__round_master(&x[i], &h, err));
        put16(block + at.scale, h);
        if (at.min < 0) continue;
        TT_TRY(tt__round_master(&x[n + i], &h, err));
        put16(block + at.min, h);
    }
    return TT_OK;
}

static void read_masters(tt__standard *s) {
    const tt_linop *op = &s->op;
    if (tt__linop_is_dense(op->dtype)) {
        tt__linop_rows(op, 0, op->rows, s->master);
        return;
    }
    const place at = place_of(op->dtype);
    const int64_t n = op->rows * blocks_of(op), bytes = tt__dtype(op->dtype)->bytes;
    const uint8_t *block = op->data;
    for (int64_t i = 0; i < n; i++, block += bytes) {
        s->master[i] = tt__f16_to_f32(get16(block + at.scale));
        if (at.min >= 0) s->master[n + i] = tt__f16_to_f32(get16(block + at.min));
    }
}

tt_status tt__standard_trainable(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err) {
    const size_t bytes = (size_t)(((const tt__standard *)op)->row_bytes * op->rows);
    const size_t n = tt__linop_is_dense(op->dtype) ? (size_t)(op->rows * op->cols) : (size_t)(op->rows * blocks_of(op)) * (place_of(op->dtype).min < 0 ? 1 : 2);
    float *master = NULL;
    void *data = tt__alloc(bytes);
    tt_status st;
    if (!data) return tt__fail(err, TT_RESOURCE, "out of memory|for weights that train|%zu bytes", bytes);
    TT_TRY_GOTO(tt__new(&master, n, sizeof *master, "numbers that train", err));
    TT_TRY_GOTO(tt__linop_from_bytes(ctx, op->dtype, memcpy(data, op->data, bytes), op->rows, op->cols, out, err));
    (*out)->owned = data;
    ((tt__standard *)*out)->master = master;
    read_masters((tt__standard *)*out);
    return TT_OK;
done:
    tt__free(master);
    tt__free(data);
    return st;
}

/* ---- gradients ---- */

void tt__block_basis(const tt_linop *op, int which, int64_t r0, int64_t r1, float *out) {
    const tt__standard *s = (const tt__standard *)op;
    const tt_dtype_info *t = tt__dtype(op->dtype);
    const place at = place_of(op->dtype);
    const uint8_t *from = (const uint8_t *)op->data + r0 * s->row_bytes;
    const uint16_t one = 0x3c00;
    uint8_t block[LARGEST_BLOCK];
    assert(t->bytes <= LARGEST_BLOCK);
    for (int64_t i = 0; i < (r1 - r0) * blocks_of(op); i++, from += t->bytes, out += t->block) {
        memcpy(block, from, (size_t)t->bytes);
        put16(block + at.scale, which ? 0 : one);
        if (at.min >= 0) put16(block + at.min, which ? one : 0);
        s->decode(block, out, t->block);
    }
}

void tt__dense_grad_params(tt_ctx *ctx, const tt_linop *op, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T, float *const grad[TT_MAX_PARAMS]) {
    if (grad[0]) tt__gemm_tn(ctx, op->rows, op->cols, T, G, ldg, X, ldx, grad[0], op->cols, true);
}
