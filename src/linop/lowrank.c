/* lowrank: an operator of any kind and two thin factors beside it (E. Hu et al., LoRA, arXiv 2106.09685; closed form: eora.c).
 *
 *     W = base + s B A        A [rank, cols], B [rows, rank]: operators too, f32, f16, or 8-bit groups
 *     y = base(x) + s (x A^T) B^T         dx = base^T(g) + s (g B) A          nothing of size rows x cols but the base exists
 *     dA = s (G B)^T X,  dB = s G^T (X A^T)
 *
 *     params    "rank=8,scale=2;group(bits=4,group=64);dense(type=F16);dense(type=F16)"      base, A, B
 *     segments  those of the three, "base.codes", "A.data" …
 *
 * The base takes the path it would take alone (integers for a few tokens in a fast run); the factors are added in f32 after it. Bytes and
 * multiplications: rank (rows + cols).
 */
#include "linop/codes.h"

#include "base/util.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>

enum { MAX_RANK = 1024, CHUNK = 512, MAX_SEGMENTS = 8, DECODE_ROWS = 8, DECODE_COLS = 256 };

typedef struct lowrank_op {
    tt_linop op;
    tt_linop *base, *A, *B;
    bool owns_base;
    int64_t rank;
    float scale;
    char names[MAX_SEGMENTS][32];
} lowrank_op;

static const lowrank_op *of(const tt_linop *op) { return (const lowrank_op *)op; }

const tt_linop *tt__linop_base(const tt_linop *op) { return op->v == &tt__linop_v_lowrank ? of(op)->base : op; }

/* ------------------------------------------------------------ products ---- */

/* Behind what products use themselves: two stretches of [CHUNK, rank]. */
static size_t products_bytes(tt_ctx *ctx, const lowrank_op *l) { return (tt__linop_scratch(ctx, l->base) + 63) & ~(size_t)63; }
static size_t scratch(tt_ctx *ctx, const tt_linop *op) { return products_bytes(ctx, of(op)) + 2 * CHUNK * (size_t)of(op)->rank * sizeof(float); }
static float *thin_rows(tt_ctx *ctx, const lowrank_op *l, int which) {
    return (float *)(void *)((uint8_t *)tt__scratch(ctx, 0) + products_bytes(ctx, l)) + (int64_t)which * CHUNK * l->rank;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static void multiply(float *x, int64_t n, float by) { for (int64_t i = 0; by != 1 && i < n; i++) x[i] *= by; }

/* u [n, rank] = s X A^T;  v [n, rank] = s G B. */
static float *inner(tt_ctx *ctx, const lowrank_op *l, const float *X, int64_t ldx, int64_t n) {
    float *u = thin_rows(ctx, l, 0);
    const tt_wsrc a = tt__linop_wsrc(l->A);
    tt__gemm_w(ctx, &a, X, ldx, n, u, l->rank, false);
    multiply(u, n * l->rank, l->scale);
    return u;
}

static float *inner_t(tt_ctx *ctx, const lowrank_op *l, const float *G, int64_t ldg, int64_t n) {
    float *v = thin_rows(ctx, l, 1);
    const tt_wsrc b = tt__linop_wsrc(l->B);
    tt__gemm_wt(ctx, &b, G, ldg, n, v, l->rank, false);
    multiply(v, n * l->rank, l->scale);
    return v;
}

void tt__linop_add_low(tt_ctx *ctx, const tt_linop *op, const tt_act *act, float *Y, int64_t ldy) {
    if (op->v != &tt__linop_v_lowrank) return;
    const lowrank_op *l = of(op);
    const tt_wsrc b = tt__linop_wsrc(l->B);
    for (int64_t t = 0; t < act->T; t += CHUNK) {
        const int64_t n = least(CHUNK, act->T - t);
        tt__gemm_w(ctx, &b, inner(ctx, l, act->x + t * act->ldx, act->ldx, n), l->rank, n, Y + t * ldy, ldy, true);
    }
}

static void apply(tt_ctx *ctx, const tt_linop *op, const tt_act *act, float *Y, int64_t ldy) {
    tt__linop_apply(ctx, of(op)->base, act, Y, ldy);
    tt__linop_add_low(ctx, op, act, Y, ldy);
}

static void apply_t(tt_ctx *ctx, const tt_linop *op, const float *G, int64_t ldg, int64_t T, float *dX, int64_t lddx, bool accumulate, bool bf16) {
    const lowrank_op *l = of(op);
    const tt_wsrc a = tt__linop_wsrc(l->A);
    tt__linop_apply_t(ctx, l->base, G, ldg, T, dX, lddx, accumulate, bf16);
    for (int64_t t = 0; t < T; t += CHUNK) {
        const int64_t n = least(CHUNK, T - t);
        tt__gemm_wt(ctx, &a, inner_t(ctx, l, G + t * ldg, ldg, n), l->rank, n, dX + t * lddx, lddx, true);
    }
}

/* Some rows of B at a time, so that A is decoded once for them. */
static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const lowrank_op *l = of(op);
    float b[DECODE_ROWS * MAX_RANK], a[DECODE_COLS];
    l->base->v->decode(l->base, r0, r1, c0, c1, out, ld);
    for (int64_t r = r0; r < r1; r += DECODE_ROWS) {
        const int64_t n = least(DECODE_ROWS, r1 - r);
        l->B->v->decode(l->B, r, r + n, 0, l->rank, b, l->rank);
        for (int64_t c = c0; c < c1; c += DECODE_COLS)
            for (int64_t k = 0; k < l->rank; k++) {
                const int64_t m = least(DECODE_COLS, c1 - c);
                l->A->v->decode(l->A, k, k + 1, c, c + m, a, m);
                for (int64_t i = 0; i < n; i++) {
                    float *y = out + (r - r0 + i) * ld + c - c0, by = l->scale * b[i * l->rank + k];
                    for (int64_t j = 0; j < m; j++) y[j] += by * a[j];
                }
            }
    }
}

/* ------------------------------------------------------------ making ---- */

static void release(tt_linop *op) {
    lowrank_op *l = (lowrank_op *)op;
    if (l->owns_base) tt__linop_free(l->base);
    tt__linop_free(l->A);
    tt__linop_free(l->B);
    tt__free(l);
}

static int part_segments(const tt_linop *part, tt_segment *out) { return part->v->segments(part, out); }

static int segments(const tt_linop *op, tt_segment out[8]) {
    const lowrank_op *l = of(op);
    const tt_linop *part[3] = {l->base, l->A, l->B};
    tt_segment seg[MAX_SEGMENTS];
    int n = 0;
    for (int p = 0; p < 3; p++)
        for (int i = 0, count = part_segments(part[p], seg); i < count; i++, n++) out[n] = (tt_segment){l->names[n], seg[i].data, seg[i].bytes};
    return n;
}

static void describe(const tt_linop *op, char *buf, size_t n) {
    const lowrank_op *l = of(op);
    const tt_linop *part[3] = {l->base, l->A, l->B};
    char params[96];
    size_t at = (size_t)snprintf(buf, n, "rank=%lld,scale=%.9g", (long long)l->rank, (double)l->scale);
    for (int i = 0; i < 3; i++) {
        part[i]->v->describe(part[i], params, sizeof params);
        if (at < n) at += (size_t)snprintf(buf + at, n - at, ";%s(%s)", part[i]->v->name, params);
    }
}

static tt_status name_segments(lowrank_op *l, tt_err *err) {
    static const char *const prefix[3] = {"base", "A", "B"};
    const tt_linop *part[3] = {l->base, l->A, l->B};
    tt_segment seg[3][MAX_SEGMENTS];
    int n = 0, count[3];
    for (int p = 0; p < 3; p++) n += count[p] = part_segments(part[p], seg[p]);
    TT_FAIL_IF(n > MAX_SEGMENTS, err, TT_BADFILE, "operator has too many parts||%d|at most %d", n, MAX_SEGMENTS);
    n = 0;
    for (int p = 0; p < 3; p++)
        for (int i = 0; i < count[p]; i++) snprintf(l->names[n++], sizeof l->names[0], "%s.%.24s", prefix[p], seg[p][i].name);
    return TT_OK;
}

tt_status tt__linop_lowrank(tt_ctx *ctx, tt_linop *base, bool own_base, tt_linop *A, tt_linop *B, float scale, tt_linop **out, tt_err *err) {
    lowrank_op *l = NULL;
    (void)ctx;
    *out = NULL;
    TT_FAIL_IF(base->v == &tt__linop_v_lowrank, err, TT_BADFILE, "operator has thin factors already");
    TT_FAIL_IF(A->rows != B->cols || A->cols != base->cols || B->rows != base->rows || A->rows > MAX_RANK, err, TT_BADFILE,
               "thin factors do not fit||[%lld, %lld] and [%lld, %lld] beside [%lld, %lld]|rank at most %d", (long long)A->rows, (long long)A->cols, (long long)B->rows,
               (long long)B->cols, (long long)base->rows, (long long)base->cols, MAX_RANK);
    TT_FAIL_IF(!isfinite(scale), err, TT_BADFILE, "scale of thin factors is not finite");
    TT_TRY(tt__new(&l, 1, sizeof *l, "an operator", err));
    const int64_t unit = base->col_unit > A->col_unit ? base->col_unit : A->col_unit;      /* both are powers of two */
    *l = (lowrank_op){.op = {.v = &tt__linop_v_lowrank, .rows = base->rows, .cols = base->cols, .col_unit = unit, .dtype = TT_DTYPE_COUNT},
                      .base = base, .A = A, .B = B, .rank = A->rows, .scale = scale};
    tt_status st = name_segments(l, err);
    if (st != TT_OK) tt__free(l);
    else {
        l->owns_base = own_base;
        *out = &l->op;
    }
    return st;
}

/* 8-bit groups of 32 on the grid with a zero, the largest value of a group at its end. */
static tt_status factor_q8(tt_ctx *ctx, const float *x, int64_t rows, int64_t cols, tt_linop **out, tt_err *err) {
    const int64_t groups = (cols + 31) / 32;
    uint8_t *codes = NULL;
    float *scales = NULL;
    tt_status st;
    TT_TRY_GOTO(tt__new(&codes, (size_t)(rows * cols), 1, "codes", err));
    TT_TRY_GOTO(tt__new(&scales, (size_t)(rows * groups), sizeof *scales, "scales", err));
    for (int64_t i = 0; i < rows * groups; i++) {
        const int64_t at = i / groups * cols + i % groups * 32, n = least(32, cols - i % groups * 32);
        float top = 0;
        for (int64_t j = 0; j < n; j++) top = fmaxf(top, fabsf(x[at + j]));
        const float d = scales[i] = tt__f16_to_f32(tt__f32_to_f16(top / 127));
        for (int64_t j = 0; j < n; j++) {
            const float q = d > 0 ? rintf(x[at + j] / d) : 0;
            codes[at + j] = (uint8_t)(128 + (q > 127 ? 127 : q < -128 ? -128 : q));
        }
    }
    TT_TRY_GOTO(tt__linop_group(ctx, 8, 32, codes, scales, NULL, NULL, rows, cols, out, err));
done:
    tt__free(codes);
    tt__free(scales);
    return st;
}

tt_status tt__linop_factor(tt_ctx *ctx, const char *type, const float *x, int64_t rows, int64_t cols, tt_linop **out, tt_err *err) {
    if (!strcmp(type, "q8")) return factor_q8(ctx, x, rows, cols, out, err);
    return tt__linop_encode(ctx, !strcmp(type, "f16") ? TT_F16 : TT_F32, x, rows, cols, out, err);
}

/* ---- loading ---- */

/* "NAME(PARAMS)" with what the segments say under `prefix`. */
static tt_status load_part(tt_ctx *ctx, char *text, const char *prefix, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    char *open = strchr(text, '('), *close = strrchr(text, ')');
    tt_segment own[MAX_SEGMENTS];
    const size_t len = strlen(prefix);
    int n = 0;
    TT_FAIL_IF(!open || !close || close < open || close[1], err, TT_BADFILE, "bad part of an operator|%s|%s|NAME(PARAMS)", prefix, text);
    *open = *close = 0;
    const tt_linop_vtable *v = tt__linop_find(text);
    TT_FAIL_IF(!v || v == &tt__linop_v_lowrank, err, TT_BADFILE, "this build lacks an operator|%s|%s", prefix, text);
    for (int i = 0; i < n_seg && n < MAX_SEGMENTS; i++)
        if (!strncmp(seg[i].name, prefix, len) && seg[i].name[len] == '.') own[n++] = (tt_segment){seg[i].name + len + 1, seg[i].data, seg[i].bytes};
    return v->load(ctx, open + 1, rows, cols, own, n, out, err);
}

/* rank=R,scale=S */
static tt_status parse_head(const char *text, int64_t *rank, float *scale, tt_err *err) {
    char number[32];
    const char *comma = strchr(text, ',');
    double s;
    bool good = !strncmp(text, "rank=", 5) && comma && comma - text - 5 < (ptrdiff_t)sizeof number && !strncmp(comma, ",scale=", 7);
    if (good) {
        snprintf(number, sizeof number, "%.*s", (int)(comma - text - 5), text + 5);
        good = tt__parse_i64(number, rank) && tt__parse_f64(comma + 7, &s) && *rank >= 1 && *rank <= MAX_RANK && isfinite((float)s);
    }
    TT_FAIL_IF(!good, err, TT_BADFILE, "unknown operator parameters||%s|rank=1 … %d,scale=S", text, MAX_RANK);
    *scale = (float)s;
    return TT_OK;
}

static tt_status load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    char text[256], *part[4];
    tt_linop *op[3] = {NULL, NULL, NULL};
    int64_t rank;
    float scale;
    tt_status st;
    *out = NULL;
    TT_FAIL_IF(strlen(params) >= sizeof text, err, TT_BADFILE, "operator description is too long||%zu bytes", strlen(params));
    snprintf(text, sizeof text, "%s", params);
    part[0] = text;
    for (int i = 1; i < 4; i++) {
        part[i] = strchr(part[i - 1], ';');
        TT_FAIL_IF(!part[i], err, TT_BADFILE, "unknown operator parameters||%s|rank=R,scale=S;BASE;A;B", params);
        *part[i]++ = 0;
    }
    TT_TRY(parse_head(part[0], &rank, &scale, err));
    TT_TRY_GOTO(load_part(ctx, part[1], "base", rows, cols, seg, n_seg, &op[0], err));
    TT_TRY_GOTO(load_part(ctx, part[2], "A", rank, cols, seg, n_seg, &op[1], err));
    TT_TRY_GOTO(load_part(ctx, part[3], "B", rows, rank, seg, n_seg, &op[2], err));
    TT_TRY_GOTO(tt__linop_lowrank(ctx, op[0], true, op[1], op[2], scale, out, err));
    return TT_OK;
done:
    for (int i = 0; i < 3; i++) tt__linop_free(op[i]);
    return st;
}

/* ------------------------------------------------------------ training ---- */

static int params(tt_linop *op, tt_param out[TT_MAX_PARAMS]) {
    tt_param one[TT_MAX_PARAMS];
    tt_linop *factor[2] = {of(op)->A, of(op)->B};
    for (int i = 0; i < 2; i++) {
        if (tt__linop_params(factor[i], one) != 1) return 0;
        out[i] = (tt_param){i ? "B" : "A", one[0].x, one[0].n, 0, 0};
    }
    return 2;
}

static tt_status changed(tt_ctx *ctx, tt_linop *op, tt_err *err) {
    TT_TRY(tt__linop_params_changed(ctx, of(op)->A, err));
    return tt__linop_params_changed(ctx, of(op)->B, err);
}

/* A dense factor trains as it is; any other from its values in f32. */
static tt_status trainable_factor(tt_ctx *ctx, const tt_linop *f, tt_linop **out, tt_err *err) {
    tt_linop *dense = NULL;
    if (f->v == &tt__linop_v_dense) return tt__linop_trainable(ctx, f, out, err);
    TT_TRY(tt__linop_expand(ctx, f, &dense, err));
    tt_status st = tt__linop_trainable(ctx, dense, out, err);
    tt__linop_free(dense);
    return st;
}

static tt_status trainable(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err) {
    const lowrank_op *l = of(op);
    tt_linop *A = NULL, *B = NULL;
    tt_status st;
    TT_TRY_GOTO(trainable_factor(ctx, l->A, &A, err));
    TT_TRY_GOTO(trainable_factor(ctx, l->B, &B, err));
    TT_TRY_GOTO(tt__linop_lowrank(ctx, l->base, false, A, B, l->scale, out, err));
    return TT_OK;
done:
    tt__linop_free(A);
    tt__linop_free(B);
    return st;
}

static void grad_params(tt_ctx *ctx, const tt_linop *op, const float *X, int64_t ldx, const float *G, int64_t ldg, int64_t T, float *const grad[TT_MAX_PARAMS]) {
    const lowrank_op *l = of(op);
    for (int64_t t = 0; t < T; t += CHUNK) {
        const int64_t n = least(CHUNK, T - t);
        const float *x = X + t * ldx, *g = G + t * ldg;
        if (grad[0]) tt__gemm_tn(ctx, l->rank, op->cols, n, inner_t(ctx, l, g, ldg, n), l->rank, x, ldx, grad[0], op->cols, true);
        if (grad[1]) tt__gemm_tn(ctx, op->rows, l->rank, n, g, ldg, inner(ctx, l, x, ldx, n), l->rank, grad[1], l->rank, true);
    }
}

const tt_linop_vtable tt__linop_v_lowrank = {.name = "lowrank", .decode = decode, .apply = apply, .apply_t = apply_t, .scratch = scratch, .segments = segments,
                                             .load = load, .describe = describe, .free = release, .trainable = trainable, .params = params,
                                             .changed = changed, .grad_params = grad_params};
