/* sparseq: any pattern of kept weights as a bit mask, the kept ones as b-bit codes (2, 3, 4, 8) with group scales, or as f16 (bits 16).
 *
 *     mask     u64 [rows, blocks]      blocks = ceil(cols / 64); bit i of block j: column 64 j + i is kept; bits beyond cols are 0
 *     starts   u64 [rows]              where a row's codes begin: the running sum of the rows' bytes
 *     codes    bytes                   per row, per block: the kept codes in column order as a bit stream (kernels/codes.h), filled to a whole byte
 *     scales   f16 [rows, groups]      as in group.c; absent for bits 16
 *
 * A pruned weight is exactly 0 and costs its mask bit only: 1 + density * b + 16/group bits per weight, plus the filling (about
 * 0.05) and 64/cols for the start. N:M patterns are stored the same way (weights.md A10).
 */
#include "linop/codes.h"
#include "linop/sparse.h"

#include "base/checked.h"
#include "base/util.h"
#include "kernels/codes.h"
#include <stdio.h>

typedef struct sparse_op {
    tt_linop op;
    const tt_kernels *k;
    int bits, group;
    int64_t blocks, groups;
    uint64_t code_bytes;
    const uint64_t *mask, *start;
    const uint8_t *codes;
    const uint16_t *scales;
} sparse_op;

static inline int64_t popcount(uint64_t m) { return __builtin_popcountll(m); }

static uint64_t row_bytes(const uint64_t *mask, int64_t blocks, int bits) {
    uint64_t n = 0;
    for (int64_t b = 0; b < blocks; b++) n += (uint64_t)tt__stream_bytes(bits, popcount(mask[b]));
    return n;
}

/* ------------------------------------------------------------ decoding ---- */

static void decode_f16(const sparse_op *s, int64_t row, int64_t c0, int64_t c1, float *out) {
    const uint64_t *mask = s->mask + row * s->blocks;
    const uint8_t *value = s->codes + s->start[row] + row_bytes(mask, c0 / 64, 16);
    memset(out, 0, (size_t)(c1 - c0) * sizeof(float));
    for (int64_t b = c0 / 64; 64 * b < c1; b++)
        for (uint64_t m = mask[b]; m; m &= m - 1, value += 2) out[64 * b - c0 + __builtin_ctzll(m)] = tt__f16_to_f32(tt__rd16(value));
}

static void decode_row(const sparse_op *s, int64_t row, int64_t c0, int64_t c1, float *out) {
    if (s->bits == 16) decode_f16(s, row, c0, c1, out);
    else s->k->decode_sparseq(s->mask + row * s->blocks, s->codes + s->start[row], s->scales + row * s->groups, s->bits, s->group, s->op.cols, c0, c1, out);
}

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    for (int64_t r = r0; r < r1; r++, out += ld) decode_row((const sparse_op *)op, r, c0, c1, out);
}

/* f16 values have no integer path: a block at a time against the unrounded activations. */
static void rowdot_f16(const sparse_op *s, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy) {
    for (int64_t r = r0; r < r1; r++) {
        float sum[8] = {0}, w[64];
        for (int64_t c = 0; c < s->op.cols; c += 64) {
            int64_t n = s->op.cols - c < 64 ? s->op.cols - c : 64;
            decode_row(s, r, c, c + n, w);
            for (int64_t t = 0; t < act->T; t++) sum[t] += s->k->dot_f32(w, act->x + t * act->ldx + c, n);
        }
        for (int64_t t = 0; t < act->T; t++) Y[t * ldy + r] = sum[t];
    }
}

static void rowdot(tt_ctx *ctx, const tt_linop *op, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy) {
    const sparse_op *s = (const sparse_op *)op;
    if (s->bits == 16) {
        rowdot_f16(s, act, r0, r1, Y, ldy);
        return;
    }
    ctx->k->rowdot_sparseq(s->mask + r0 * s->blocks, s->blocks, s->codes, s->start + r0, s->scales + r0 * s->groups, s->groups, s->bits, s->group, r1 - r0,
                           op->cols, &act->q8, Y + r0, ldy);
}

bool tt__sparseq_rows(const tt_linop *op, tt__sparse_rows *out) {
    const sparse_op *s = (const sparse_op *)op;
    if (op->v != &tt__linop_v_sparseq) return false;
    *out = (tt__sparse_rows){s->bits, s->group, s->mask, s->start, s->codes, s->scales};
    return true;
}

/* ------------------------------------------------------------ state ---- */

static int segments(const tt_linop *op, tt_segment out[8]) {
    const sparse_op *s = (const sparse_op *)op;
    out[0] = (tt_segment){"mask", s->mask, (uint64_t)(op->rows * s->blocks) * sizeof(uint64_t)};
    out[1] = (tt_segment){"starts", s->start, (uint64_t)op->rows * sizeof(uint64_t)};
    out[2] = (tt_segment){"codes", s->codes, s->code_bytes};
    if (s->bits == 16) return 3;
    out[3] = (tt_segment){"scales", s->scales, (uint64_t)(op->rows * s->groups) * sizeof(uint16_t)};
    return 4;
}

static void describe(const tt_linop *op, char *buf, size_t n) {
    const sparse_op *s = (const sparse_op *)op;
    if (s->bits == 16) snprintf(buf, n, "bits=16");
    else snprintf(buf, n, "bits=%d,group=%d", s->bits, s->group);
}

static void release(tt_linop *op) {
    tt__free(op->owned);
    tt__free(op);
}

static bool params_are_valid(int bits, int group) {
    if (bits == 16) return group == 0;
    return (bits == 2 || bits == 3 || bits == 4 || bits == 8) && tt__group_is_valid(group);
}

static tt_status create(tt_ctx *ctx, int bits, int group, int64_t rows, int64_t cols, sparse_op **out, tt_err *err) {
    uint64_t weights;
    TT_FAIL_IF(!params_are_valid(bits, group), err, TT_BADFILE, "unsupported sparse operator||bits=%d, group=%d|bits 2, 3, 4, 8 in groups of 32, 64, 128; or bits 16",
               bits, group);
    TT_FAIL_IF(rows < 1 || cols < 1 || !tt__mul_u64((uint64_t)rows, (uint64_t)cols, &weights) || weights > (uint64_t)INT64_MAX / 32, err, TT_BADFILE,
               "bad matrix shape||[%lld, %lld]", (long long)rows, (long long)cols);
    TT_TRY(tt__new(out, 1, sizeof **out, "an operator", err));
    **out = (sparse_op){.op = {.v = &tt__linop_v_sparseq, .rows = rows, .cols = cols, .col_unit = 64, .dtype = TT_DTYPE_COUNT}, .k = ctx->k, .bits = bits,
                        .group = group, .blocks = (cols + 63) / 64, .groups = group ? (cols + group - 1) / group : 0};
    return TT_OK;
}

/* starts[r] = Σ bytes of the rows before; the last one ends where the codes end; no mask bit beyond the columns. */
static tt_status check_rows(const sparse_op *s, tt_err *err) {
    uint64_t at = 0, tail = s->op.cols % 64 ? ~0ull << s->op.cols % 64 : 0;
    for (int64_t r = 0; r < s->op.rows; r++) {
        const uint64_t *mask = s->mask + r * s->blocks;
        TT_FAIL_IF(mask[s->blocks - 1] & tail, err, TT_BADFILE, "mask keeps columns that do not exist|row %lld", (long long)r);
        TT_FAIL_IF(s->start[r] != at, err, TT_BADFILE, "row starts elsewhere than its mask says|row %lld|%llu|%llu", (long long)r, (unsigned long long)s->start[r],
                   (unsigned long long)at);
        at += row_bytes(mask, s->blocks, s->bits);
        TT_FAIL_IF(at > s->code_bytes, err, TT_BADFILE, "codes end before the rows do|row %lld|%llu bytes|%llu", (long long)r, (unsigned long long)s->code_bytes,
                   (unsigned long long)at);
    }
    TT_FAIL_IF(at != s->code_bytes, err, TT_BADFILE, "codes go on after the last row||%llu bytes|%llu", (unsigned long long)s->code_bytes, (unsigned long long)at);
    return TT_OK;
}

static tt_status check_values(const sparse_op *s, tt_err *err) {
    for (uint64_t i = 0; s->bits == 16 && i < s->code_bytes / 2; i++)
        TT_FAIL_IF((tt__rd16(s->codes + 2 * i) & 0x7c00) == 0x7c00, err, TT_BADFILE, "weight is not a finite number|value %llu", (unsigned long long)i);
    return s->bits == 16 ? TT_OK : tt__scales_check(s->scales, (uint64_t)(s->op.rows * s->groups), err);
}

static tt_status load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    int bits, group;
    sparse_op *s = NULL;
    const void *mask, *start, *scales = NULL;
    *out = NULL;
    TT_TRY(tt__params_parse(params, &bits, &group, err));
    TT_TRY(create(ctx, bits, group, rows, cols, &s, err));
    const tt_segment *codes = tt__segment_find(seg, n_seg, "codes");
    tt_status st;
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "mask", (uint64_t)(rows * s->blocks), sizeof(uint64_t), &mask, err));
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "starts", (uint64_t)rows, sizeof(uint64_t), &start, err));
    if (bits != 16) TT_TRY_GOTO(tt__segment_get(seg, n_seg, "scales", (uint64_t)(rows * s->groups), sizeof(uint16_t), &scales, err));
    s->mask = mask, s->start = start, s->scales = scales;
    if (codes) s->codes = codes->data, s->code_bytes = codes->bytes;             /* nothing kept: an empty segment is not stored */
    TT_TRY_GOTO(check_rows(s, err));
    TT_TRY_GOTO(check_values(s, err));
    *out = &s->op;
    return TT_OK;
done:
    release(&s->op);
    return st;
}

/* ------------------------------------------------------------ making ---- */

static void fill_masks(const sparse_op *s, const uint8_t *keep, uint64_t *mask, uint64_t *start, uint64_t *code_bytes) {
    int64_t cols = s->op.cols;
    uint64_t at = 0;
    for (int64_t r = 0; r < s->op.rows; r++) {
        uint64_t *m = mask + r * s->blocks;
        for (int64_t c = 0; c < cols; c++) m[c / 64] |= (uint64_t)(keep[r * cols + c] != 0) << c % 64;
        start[r] = at;
        at += row_bytes(m, s->blocks, s->bits);
    }
    *code_bytes = at;
}

static tt_status fill_codes(const sparse_op *s, const uint8_t *codes, const float *values, uint8_t *out, tt_err *err) {
    for (int64_t r = 0; r < s->op.rows; r++)
        for (int64_t b = 0; b < s->blocks; b++) {
            uint8_t q[64];
            int64_t n = 0;
            for (uint64_t m = s->mask[r * s->blocks + b]; m; m &= m - 1, n++) {
                int64_t at = r * s->op.cols + 64 * b + __builtin_ctzll(m);
                if (s->bits != 16) {
                    q[n] = codes[at];
                    continue;
                }
                uint16_t h = tt__f32_to_f16(values[at]);
                TT_FAIL_IF((h & 0x7c00) == 0x7c00, err, TT_FAIL, "weight does not fit a 16-bit float|row %lld|%g|at most 65504", (long long)r, (double)values[at]);
                memcpy(out + 2 * n, &h, 2);
            }
            if (s->bits != 16) tt__stream_pack(s->bits, q, n, out);
            out += tt__stream_bytes(s->bits, n);
        }
    return TT_OK;
}

tt_status tt__linop_sparseq(tt_ctx *ctx, int bits, int group, const uint8_t *keep, const uint8_t *codes, const float *scales,
                            const uint8_t *halfgrid, const float *values, int64_t rows, int64_t cols, tt_linop **out, tt_err *err) {
    sparse_op *s = NULL;
    *out = NULL;
    TT_TRY(create(ctx, bits, bits == 16 ? 0 : group, rows, cols, &s, err));
    size_t words = (size_t)(rows * s->blocks), n_scales = (size_t)(rows * s->groups);
    size_t fixed = (words + (size_t)rows) * sizeof(uint64_t) + n_scales * sizeof(uint16_t);
    tt_status st;
    uint64_t *mask = NULL;
    TT_TRY_GOTO(tt__new(&mask, 1, fixed, "a mask", err));
    s->op.owned = mask;
    fill_masks(s, keep, mask, mask + words, &s->code_bytes);
    uint8_t *all = tt__realloc(mask, fixed + (size_t)s->code_bytes);
    if (!all) {
        st = tt__fail(err, TT_RESOURCE, "out of memory|for packed codes|%llu bytes", (unsigned long long)s->code_bytes);
        goto done;
    }
    s->op.owned = all;
    s->mask = (uint64_t *)(void *)all;
    s->start = s->mask + words;
    uint16_t *packed = (uint16_t *)(void *)(all + (words + (size_t)rows) * sizeof(uint64_t));
    s->scales = packed;
    s->codes = all + fixed;
    if (n_scales) TT_TRY_GOTO(tt__scales_pack(scales, halfgrid, (int64_t)n_scales, packed, err));
    TT_TRY_GOTO(fill_codes(s, codes, values, all + fixed, err));
    *out = &s->op;
    return TT_OK;
done:
    release(&s->op);
    return st;
}

const tt_linop_vtable tt__linop_v_sparseq = {.name = "sparseq", .decode = decode, .rowdot = rowdot, .segments = segments, .load = load,
                                             .describe = describe, .free = release};
