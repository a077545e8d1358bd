/* group: b-bit codes (2, 3, 4, 8) with one scale, and a minimum where the grid is one of minima, per group of 32, 64 or 128 columns of a
 * row; a short last group is a smaller one, so any width gets the bits it was promised.
 *
 *     codes    u8  [rows, row_bytes]     packed by groups as kernels/codes.h says
 *     scales   f16 [rows, groups]        groups = ceil(cols / group)
 *     mins     f16 [rows, groups]        with grid=min only
 *
 *     w = d (q - 2^(b-1))          sign bit of the scale 0: a grid with a zero level
 *     w = d (q - 2^(b-1) + 1/2)    sign bit 1: a grid without one, symmetric about zero (d itself is never negative)
 *     w = d q + m                  grid=min: d with its sign, m any
 *
 * Bits per weight: b + 16/group, with minima b + 32/group.
 */
#include "linop/codes.h"

#include "base/checked.h"
#include "base/util.h"
#include "kernels/codes.h"
#include <assert.h>
#include <stdio.h>

typedef struct group_op {
    tt_linop op;
    const tt_kernels *k;
    int bits, group;
    int64_t groups, row_bytes;
    const uint8_t *codes;
    const uint16_t *scales, *mins;        /* mins: NULL without */
    float *master;                        /* of a trainable copy: scales, then minima, [rows, groups] each; the two arrays above are its own */
} group_op;

/* ------------------------------------------------------------ shared with sparseq.c ---- */

void tt__levels(int bits, uint16_t scale, float *level) {
    float d = tt__f16_to_f32(scale & 0x7fff), offset = (float)(1 << (bits - 1)) - (scale >> 15 ? 0.5f : 0.0f);
    for (int q = 0; q < 1 << bits; q++) level[q] = d * ((float)q - offset) + 0.0f;      /* no -0 */
}

static void levels_from_min(int bits, uint16_t scale, uint16_t min, float *level) {
    const float d = tt__f16_to_f32(scale), m = tt__f16_to_f32(min);
    for (int q = 0; q < 1 << bits; q++) level[q] = d * (float)q + m;
}

tt_status tt__scales_pack(const float *scales, const uint8_t *halfgrid, int64_t n, uint16_t *out, tt_err *err) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = tt__f32_to_f16(scales[i]);
        TT_FAIL_IF(h >= 0x7c00, err, TT_FAIL, "scale does not fit a 16-bit float||%g|0 to 65504", (double)scales[i]);   /* negative, infinite, NaN */
        out[i] = (uint16_t)(h | (halfgrid && halfgrid[i] ? 0x8000 : 0));
    }
    return TT_OK;
}

/* Numbers with their sign; -0 becomes 0. */
static tt_status pack_signed(const float *x, int64_t n, uint16_t *out, tt_err *err) {
    for (int64_t i = 0; i < n; i++) {
        out[i] = tt__f32_to_f16(x[i] + 0.0f);
        TT_FAIL_IF((out[i] & 0x7c00) == 0x7c00, err, TT_FAIL, "scale or minimum does not fit a 16-bit float||%g|at most 65504", (double)x[i]);
    }
    return TT_OK;
}

tt_status tt__scales_check(const uint16_t *scales, uint64_t n, tt_err *err) {
    for (uint64_t from = 0; from < n; from += 4096) {
        const uint64_t to = from + 4096 < n ? from + 4096 : n;
        uint16_t odd = 0;
        for (uint64_t i = from; i < to; i++) odd |= (uint16_t)((scales[i] & 0x7c00) == 0x7c00);
        for (uint64_t i = from; i < to && odd; i++)
            TT_FAIL_IF((scales[i] & 0x7c00) == 0x7c00, err, TT_BADFILE, "scale is not a finite number|group %llu", (unsigned long long)i);
    }
    return TT_OK;
}

bool tt__group_is_valid(int group) { return group == 32 || group == 64 || group == 128; }

/* `word`, then a number without leading zeros. */
static bool take_number(const char **at, const char *word, int most, int *out) {
    size_t n = strlen(word);
    if (strncmp(*at, word, n) != 0) return false;
    *at += n;
    return **at != '0' && tt__scan_int(at, most, out);
}

tt_status tt__params_parse(const char *params, int *bits, int *group, tt_err *err) {
    const char *at = params;
    *group = 0;
    bool read = take_number(&at, "bits=", 16, bits) && (!*at || take_number(&at, ",group=", 256, group));
    TT_FAIL_IF(!read || *at, err, TT_BADFILE, "unknown operator parameters||%s|bits=B,group=G", params);
    return TT_OK;
}

const tt_segment *tt__segment_find(const tt_segment *seg, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (!strcmp(seg[i].name, name)) return &seg[i];
    return NULL;
}

tt_status tt__segment_get(const tt_segment *seg, int n, const char *name, uint64_t count, uint64_t size, const void **out, tt_err *err) {
    const tt_segment *s = tt__segment_find(seg, n, name);
    uint64_t bytes;
    TT_FAIL_IF(!s, err, TT_BADFILE, "operator lacks a segment|%s", name);
    TT_FAIL_IF(!tt__mul_u64(count, size, &bytes) || s->bytes != bytes, err, TT_BADFILE, "segment does not fit the operator|%s|%llu bytes|%llu x %llu", name,
               (unsigned long long)s->bytes, (unsigned long long)count, (unsigned long long)size);
    TT_FAIL_IF(size > 1 && (uintptr_t)s->data % size, err, TT_BADFILE, "segment is not aligned|%s||%llu bytes", name, (unsigned long long)size);
    *out = s->data;
    return TT_OK;
}

/* ------------------------------------------------------------ the operator ---- */

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const group_op *g = (const group_op *)op;
    float level[256];
    uint8_t q[128];
    int64_t unit = tt__codes_bytes(g->bits, g->group);
    for (int64_t r = r0; r < r1; r++, out += ld) {
        const uint8_t *codes = g->codes + r * g->row_bytes + c0 / g->group * unit;
        int64_t at = r * g->groups + c0 / g->group;
        for (int64_t c = c0; c < c1; c += g->group, codes += unit, at++) {
            int64_t n = op->cols - c < g->group ? op->cols - c : g->group;
            tt__codes_unpack(g->bits, codes, n, q);
            if (g->mins) levels_from_min(g->bits, g->scales[at], g->mins[at], level);
            else tt__levels(g->bits, g->scales[at], level);
            for (int64_t i = 0; i < n && c + i < c1; i++) out[c - c0 + i] = level[q[i]];
        }
    }
}

static void rowdot(tt_ctx *ctx, const tt_linop *op, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy) {
    const group_op *g = (const group_op *)op;
    ctx->k->rowdot_group(g->codes + r0 * g->row_bytes, g->row_bytes, g->scales + r0 * g->groups, g->mins ? g->mins + r0 * g->groups : NULL, g->groups, g->bits,
                         g->group, r1 - r0, op->cols, &act->q8, Y + r0, ldy);
}

static int segments(const tt_linop *op, tt_segment out[8]) {
    const group_op *g = (const group_op *)op;
    out[0] = (tt_segment){"codes", g->codes, (uint64_t)(op->rows * g->row_bytes)};
    out[1] = (tt_segment){"scales", g->scales, (uint64_t)(op->rows * g->groups) * sizeof(uint16_t)};
    if (g->mins) out[2] = (tt_segment){"mins", g->mins, (uint64_t)(op->rows * g->groups) * sizeof(uint16_t)};
    return g->mins ? 3 : 2;
}

static void describe(const tt_linop *op, char *buf, size_t n) {
    const group_op *g = (const group_op *)op;
    snprintf(buf, n, "bits=%d,group=%d%s", g->bits, g->group, g->mins ? ",grid=min" : "");
}

bool tt__group_view_of(const tt_linop *op, tt__group_view *v) {
    if (op->v != &tt__linop_v_group) return false;
    const group_op *g = (const group_op *)op;
    *v = (tt__group_view){g->bits, g->group, g->groups, g->row_bytes, g->codes, g->scales, g->mins};
    return true;
}

static void release(tt_linop *op) {
    tt__free(op->owned);
    tt__free(op);
}

static bool bits_are_valid(int bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

static tt_status create(tt_ctx *ctx, int bits, int group, int64_t rows, int64_t cols, group_op **out, tt_err *err) {
    uint64_t weights;
    TT_FAIL_IF(!bits_are_valid(bits) || !tt__group_is_valid(group), err, TT_BADFILE, "unsupported group operator||bits=%d, group=%d|bits 2, 3, 4, 8; groups of 32, 64, 128",
               bits, group);
    TT_FAIL_IF(rows < 1 || cols < 1 || !tt__mul_u64((uint64_t)rows, (uint64_t)cols, &weights) || weights > (uint64_t)INT64_MAX / 32, err, TT_BADFILE,
               "bad matrix shape||[%lld, %lld]", (long long)rows, (long long)cols);
    TT_TRY(tt__new(out, 1, sizeof **out, "an operator", err));
    **out = (group_op){.op = {.v = &tt__linop_v_group, .rows = rows, .cols = cols, .col_unit = group, .dtype = TT_DTYPE_COUNT}, .k = ctx->k,
                       .bits = bits, .group = group, .groups = (cols + group - 1) / group, .row_bytes = tt__codes_row_bytes(bits, group, cols)};
    return TT_OK;
}

/* "bits=B,group=G", then ",grid=min" or nothing. */
static tt_status parse(const char *params, int *bits, int *group, bool *with_mins, tt_err *err) {
    char text[64];
    const char *grid = strstr(params, ",grid=");
    *with_mins = grid && !strcmp(grid, ",grid=min");
    if (!*with_mins) return tt__params_parse(params, bits, group, err);
    TT_FAIL_IF((size_t)(grid - params) >= sizeof text, err, TT_BADFILE, "unknown operator parameters||%s|bits=B,group=G,grid=min", params);
    snprintf(text, sizeof text, "%.*s", (int)(grid - params), params);
    return tt__params_parse(text, bits, group, err);
}

static tt_status load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    int bits, group;
    bool with_mins;
    group_op *g = NULL;
    const void *codes, *scales, *mins = NULL;
    *out = NULL;
    TT_TRY(parse(params, &bits, &group, &with_mins, err));
    TT_TRY(create(ctx, bits, group, rows, cols, &g, err));
    tt_status st;
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "codes", (uint64_t)(rows * g->row_bytes), 1, &codes, err));
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "scales", (uint64_t)(rows * g->groups), sizeof(uint16_t), &scales, err));
    TT_TRY_GOTO(tt__scales_check(scales, (uint64_t)(rows * g->groups), err));
    if (with_mins) {
        TT_TRY_GOTO(tt__segment_get(seg, n_seg, "mins", (uint64_t)(rows * g->groups), sizeof(uint16_t), &mins, err));
        TT_TRY_GOTO(tt__scales_check(mins, (uint64_t)(rows * g->groups), err));
    }
    g->codes = codes;
    g->scales = scales;
    g->mins = mins;
    *out = &g->op;
    return TT_OK;
done:
    release(&g->op);
    return st;
}

tt_status tt__linop_group(tt_ctx *ctx, int bits, int group, const uint8_t *codes, const float *scales, const uint8_t *halfgrid, const float *mins,
                          int64_t rows, int64_t cols, tt_linop **out, tt_err *err) {
    group_op *g = NULL;
    *out = NULL;
    TT_TRY(create(ctx, bits, group, rows, cols, &g, err));
    size_t code_bytes = ((size_t)(rows * g->row_bytes) + 63) & ~(size_t)63, n_scales = (size_t)(rows * g->groups);
    tt_status st;
    uint8_t *mem = NULL;
    TT_TRY_GOTO(tt__new(&mem, 1, code_bytes + n_scales * sizeof(uint16_t) * (mins ? 2 : 1), "packed codes", err));
    g->op.owned = mem;
    g->codes = mem;
    uint16_t *packed = (uint16_t *)(void *)(mem + code_bytes);
    g->scales = packed;
    if (mins) {
        g->mins = packed + n_scales;
        TT_TRY_GOTO(pack_signed(scales, (int64_t)n_scales, packed, err));
        TT_TRY_GOTO(pack_signed(mins, (int64_t)n_scales, packed + n_scales, err));
    } else TT_TRY_GOTO(tt__scales_pack(scales, halfgrid, (int64_t)n_scales, packed, err));
    for (int64_t r = 0; r < rows; r++) {
        uint8_t *p = mem + r * g->row_bytes;
        for (int64_t c = 0; c < cols; c += group) {
            int64_t n = cols - c < group ? cols - c : group;
            tt__codes_pack(bits, codes + r * cols + c, n, p);
            p += tt__codes_bytes(bits, n);
        }
    }
    *out = &g->op;
    return TT_OK;
done:
    release(&g->op);
    return st;
}

/* ------------------------------------------------------------ training ---- */

static int64_t n_scales(const group_op *g) { return g->op.rows * g->groups; }

static int params(tt_linop *op, tt_param out[TT_MAX_PARAMS]) {
    const group_op *g = (const group_op *)op;
    if (!g->master) return 0;
    out[0] = (tt_param){"scales", g->master, n_scales(g), g->groups, g->group};
    if (g->mins) out[1] = (tt_param){"minima", g->master + n_scales(g), n_scales(g), g->groups, g->group};
    return g->mins ? 2 : 1;
}

/* The sign of a scale without minimum is its grid, which stays: such a scale is kept from falling below 0. */
static tt_status changed(tt_ctx *ctx, tt_linop *op, tt_err *err) {
    const group_op *g = (const group_op *)op;
    uint16_t *scales = (uint16_t *)(uintptr_t)g->scales, *mins = (uint16_t *)(uintptr_t)g->mins;
    (void)ctx;
    for (int64_t i = 0; i < n_scales(g); i++) {
        uint16_t h;
        if (!g->mins && g->master[i] < 0) g->master[i] = 0;
        TT_TRY(tt__round_master(&g->master[i], &h, err));
        scales[i] = g->mins ? h : (uint16_t)(h | (scales[i] & 0x8000));
    }
    for (int64_t i = 0; mins && i < n_scales(g); i++) TT_TRY(tt__round_master(&g->master[n_scales(g) + i], &mins[i], err));
    return TT_OK;
}

/* The codes as levels of a scale of 1; 1 for a minimum. */
static void basis(const tt_linop *op, int which, int64_t r0, int64_t r1, float *out) {
    const group_op *g = (const group_op *)op;
    const int64_t unit = tt__codes_bytes(g->bits, g->group);
    uint8_t q[128];
    for (int64_t i = 0; which && i < (r1 - r0) * op->cols; i++) out[i] = 1;
    for (int64_t r = r0; r < r1 && !which; r++, out += op->cols) {
        const uint8_t *codes = g->codes + r * g->row_bytes;
        for (int64_t c = 0, at = r * g->groups; c < op->cols; c += g->group, at++, codes += unit) {
            const int64_t n = op->cols - c < g->group ? op->cols - c : g->group;
            const float zero = g->mins ? 0 : (float)(1 << (g->bits - 1)) - (g->scales[at] >> 15 ? 0.5f : 0.0f);
            tt__codes_unpack(g->bits, codes, n, q);
            for (int64_t i = 0; i < n; i++) out[c + i] = (float)q[i] - zero;
        }
    }
}

static tt_status trainable(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err) {
    const group_op *from = (const group_op *)op;
    group_op *g = NULL;
    const int64_t n = n_scales(from), sets = from->mins ? 2 : 1;
    float *mem = NULL;
    tt_status st;
    TT_TRY(create(ctx, from->bits, from->group, op->rows, op->cols, &g, err));
    TT_TRY_GOTO(tt__new(&mem, (size_t)(n * sets), sizeof(float) + sizeof(uint16_t), "scales that train", err));
    g->op.owned = mem;
    g->master = mem;
    g->codes = from->codes;
    g->scales = memcpy(mem + n * sets, from->scales, (size_t)n * sizeof(uint16_t));
    if (from->mins) g->mins = memcpy((uint16_t *)(void *)(mem + n * sets) + n, from->mins, (size_t)n * sizeof(uint16_t));
    for (int64_t i = 0; i < n; i++) mem[i] = tt__f16_to_f32(g->mins ? g->scales[i] : g->scales[i] & 0x7fff);
    for (int64_t i = 0; g->mins && i < n; i++) mem[n + i] = tt__f16_to_f32(g->mins[i]);
    *out = &g->op;
    return TT_OK;
done:
    release(&g->op);
    return st;
}

const tt_linop_vtable tt__linop_v_group = {.name = "group", .decode = decode, .rowdot = rowdot, .segments = segments, .load = load,
                                           .describe = describe, .free = release, .trainable = trainable, .params = params, .changed = changed,
                                           .basis = basis};
