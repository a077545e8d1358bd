/* panel: the run format. Rows in panels of 16, unsigned codes, as kernels/panel.h draws them; made from other operators while a model is
 * opened, never chosen by a compression method.
 *
 *     codes         [panels][units][128 bits bytes]
 *     scales, mins  f16 [panels][groups][16]         mins with grid "min" only
 *
 *     Q4_0            4 bits, groups of 32, grid offset        Q8_0    8 bits, groups of 32, grid offset, code = weight + 128
 *     Q4_1            4 bits, groups of 32, grid min           group   its bits and groups, grid offset or half
 *
 * The weights decode to the same bits. Types that have no such panel of about their own size stay what they are, and so does a matrix whose
 * filling up (rows to 16, columns to 64) would cost more than a twentieth.
 */
#include "linop/codes.h"

#include "base/checked.h"
#include "base/limits.h"
#include "base/util.h"
#include "kernels/codes.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>

/* Bytes of the segments; in one block of memory each starts at a multiple of 64. */
typedef struct sizes { uint64_t codes, scales, mins; } sizes;
typedef struct panel_op { tt_linop op; const tt_kernels *k; tt_panel p; sizes s; } panel_op;

static const char *const grid_names[] = {"offset", "half", "min"};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ------------------------------------------------------------ sizes ---- */

static uint64_t up64(uint64_t n) { return (n + 63) & ~63ull; }
static uint64_t all_bytes(sizes s) { return up64(s.codes) + up64(s.scales) + s.mins; }

static bool measure(int64_t rows, int64_t cols, int bits, int group, tt_panel_grid grid, tt_panel *p, sizes *s) {
    uint64_t weights;
    if (rows < 1 || cols < 1 || (uint64_t)rows > TT_LIMIT_DIM || (uint64_t)cols > TT_LIMIT_DIM) return false;
    if (!tt__mul_u64((uint64_t)rows + 15, (uint64_t)cols + 127, &weights) || weights > (uint64_t)INT64_MAX / 32) return false;
    *p = (tt_panel){.bits = bits, .group = group, .grid = grid, .rows = rows, .cols = cols, .units = (cols + 63) / 64};
    p->groups = (64 * p->units + group - 1) / group;
    s->codes = (uint64_t)(tt__panels(rows) * p->units * tt__panel_unit_bytes(bits));
    s->scales = (uint64_t)(tt__panels(rows) * p->groups * TT_PANEL_ROWS) * sizeof(uint16_t);
    s->mins = grid == TT_GRID_MIN ? s->scales : 0;
    return true;
}

static tt_status create(tt_ctx *ctx, tt_panel p, sizes s, panel_op **out, tt_err *err) {
    TT_TRY(tt__new(out, 1, sizeof **out, "an operator", err));
    **out = (panel_op){.op = {.v = &tt__linop_v_panel, .rows = p.rows, .cols = p.cols, .col_unit = TT_PANEL_UNIT, .dtype = TT_DTYPE_COUNT}, .k = ctx->k, .p = p, .s = s};
    return TT_OK;
}

/* ------------------------------------------------------------ use ---- */

/* Parts of a panel (a row of an embedding) are decoded beside and copied. */
static void decode_part(const panel_op *o, int64_t p, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    enum { STRIP = 256 };
    float strip[TT_PANEL_ROWS * STRIP];
    for (int64_t c = c0; c < c1; c += STRIP) {
        const int64_t n = least(STRIP, c1 - c);
        o->k->panel_decode(&o->p, p, c, c + n, strip, STRIP);
        for (int64_t r = r0; r < r1; r++) memcpy(out + (r - r0) * ld + c - c0, strip + (r - TT_PANEL_ROWS * p) * STRIP, (size_t)n * sizeof(float));
    }
}

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const panel_op *o = (const panel_op *)op;
    for (int64_t r = r0, end; r < r1; r = end, out += (end - r0) * ld, r0 = end) {
        const int64_t p = r / TT_PANEL_ROWS;
        end = least(r1, (p + 1) * TT_PANEL_ROWS);
        if (r == p * TT_PANEL_ROWS && end == least(op->rows, (p + 1) * TT_PANEL_ROWS)) o->k->panel_decode(&o->p, p, c0, c1, out, ld);
        else decode_part(o, p, r, end, c0, c1, out, ld);
    }
}

static void rowdot(tt_ctx *ctx, const tt_linop *op, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy) {
    const panel_op *o = (const panel_op *)op;
    assert(r0 % TT_PANEL_ROWS == 0 && (r1 % TT_PANEL_ROWS == 0 || r1 == op->rows));
    ctx->k->panel_rowdot(&o->p, r0 / TT_PANEL_ROWS, tt__panels(r1), &act->q8, Y, ldy);
}

static void batch(tt_ctx *ctx, const tt_linop *op, const tt_batch *x, int64_t tile0, int64_t tile1, int64_t r0, int64_t r1, float *Y, int64_t ldy, int worker) {
    (void)worker;
    ctx->k->panel_gemm(&((const panel_op *)op)->p, r0 / TT_PANEL_ROWS, tt__panels(r1), x, tile0, tile1, Y, ldy);
}

const tt_panel *tt__linop_panel(const tt_linop *op) { return op->v == &tt__linop_v_panel ? &((const panel_op *)op)->p : NULL; }

/* ------------------------------------------------------------ state ---- */

static int segments(const tt_linop *op, tt_segment out[8]) {
    const tt_panel *p = &((const panel_op *)op)->p;
    const sizes *s = &((const panel_op *)op)->s;
    out[0] = (tt_segment){"codes", p->codes, s->codes};
    out[1] = (tt_segment){"scales", p->scales, s->scales};
    out[2] = (tt_segment){"mins", p->mins, s->mins};
    return p->grid == TT_GRID_MIN ? 3 : 2;
}

static void describe(const tt_linop *op, char *buf, size_t n) {
    const tt_panel *p = &((const panel_op *)op)->p;
    snprintf(buf, n, "bits=%d,group=%d,grid=%s", p->bits, p->group, grid_names[p->grid]);
}

static void release(tt_linop *op) {
    tt__free(op->owned);
    tt__free(op);
}

static tt_status parse(const char *params, int *bits, int *group, tt_panel_grid *grid, tt_err *err) {
    char text[64];
    const char *name = strstr(params, ",grid=");
    int g = 0;
    TT_FAIL_IF(!name || (size_t)(name - params) >= sizeof text, err, TT_BADFILE, "unknown operator parameters||%s|bits=B,group=G,grid=NAME", params);
    snprintf(text, sizeof text, "%.*s", (int)(name - params), params);
    TT_TRY(tt__params_parse(text, bits, group, err));
    while (g < 3 && strcmp(name + 6, grid_names[g]) != 0) g++;
    TT_FAIL_IF(g == 3 || !tt__group_is_valid(*group) || !(*bits == 2 || *bits == 3 || *bits == 4 || *bits == 8), err, TT_BADFILE, "unsupported panel operator||%s",
               params);
    *grid = (tt_panel_grid)g;
    return TT_OK;
}

/* Where the three parts lie in one block of memory. */
static void place(tt_panel *p, sizes s, uint8_t *memory) {
    p->codes = memory;
    p->scales = (const uint16_t *)(const void *)(memory + up64(s.codes));
    p->mins = s.mins ? (const uint16_t *)(const void *)(memory + up64(s.codes) + up64(s.scales)) : NULL;
}

/* Kernels read whole vectors from 64-byte boundaries: crooked segments are copied. */
static tt_status straighten(panel_op *o, tt_err *err) {
    const tt_panel from = o->p;
    const sizes s = o->s;
    if (!(((uintptr_t)from.codes | (uintptr_t)from.scales | (uintptr_t)from.mins) % 64)) return TT_OK;
    o->op.owned = tt__alloc((size_t)all_bytes(s));
    TT_FAIL_IF(!o->op.owned, err, TT_RESOURCE, "out of memory|for a matrix|%llu bytes", (unsigned long long)all_bytes(s));
    place(&o->p, s, o->op.owned);
    memcpy((void *)(uintptr_t)o->p.codes, from.codes, s.codes);
    memcpy((void *)(uintptr_t)o->p.scales, from.scales, s.scales);
    if (s.mins) memcpy((void *)(uintptr_t)o->p.mins, from.mins, s.mins);
    return TT_OK;
}

static tt_status load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    int bits, group;
    tt_panel_grid grid;
    tt_panel p;
    sizes s;
    panel_op *o = NULL;
    const void *codes, *scales, *mins = NULL;
    *out = NULL;
    TT_TRY(parse(params, &bits, &group, &grid, err));
    TT_FAIL_IF(!measure(rows, cols, bits, group, grid, &p, &s), err, TT_BADFILE, "bad matrix shape||[%lld, %lld]", (long long)rows, (long long)cols);
    TT_TRY(tt__segment_get(seg, n_seg, "codes", s.codes, 1, &codes, err));
    TT_TRY(tt__segment_get(seg, n_seg, "scales", s.scales / sizeof(uint16_t), sizeof(uint16_t), &scales, err));
    TT_TRY(tt__scales_check(scales, s.scales / sizeof(uint16_t), err));
    if (s.mins) {
        TT_TRY(tt__segment_get(seg, n_seg, "mins", s.mins / sizeof(uint16_t), sizeof(uint16_t), &mins, err));
        TT_TRY(tt__scales_check(mins, s.mins / sizeof(uint16_t), err));
    }
    p.codes = codes, p.scales = scales, p.mins = mins;
    TT_TRY(create(ctx, p, s, &o, err));
    tt_status st = straighten(o, err);
    if (st != TT_OK) release(&o->op);
    else *out = &o->op;
    return st;
}

/* ------------------------------------------------------------ from other operators ---- */

/* What is repacked: blocks of a standard type, or groups of our own. */
typedef struct source {
    tt_panel p;
    sizes s;
    const uint8_t *data;                  /* blocks, or codes */
    const uint16_t *scales;               /* group */
    int64_t row_bytes, block, groups;     /* groups: scales of a row */
    tt_dtype dtype;
    uint8_t *codes;
    uint16_t *d, *m;
    atomic_bool odd;                      /* a scale that is no finite number: the matrix stays as it is */
} source;

static bool has_half_grid(const uint16_t *scales, int64_t n) {
    uint16_t any = 0;
    for (int64_t i = 0; i < n; i++) any |= scales[i];
    return any >> 15;
}

static bool find_source(const tt_linop *op, source *s) {
    int bits, group = 32;
    tt_panel_grid grid = TT_GRID_OFFSET;
    tt_segment seg[8];
    char params[64];
    *s = (source){.dtype = op->dtype};
    if (op->v == &tt__linop_v_group) {
        op->v->segments(op, seg);
        op->v->describe(op, params, sizeof params);
        if (tt__params_parse(params, &bits, &group, NULL) != TT_OK) return false;
        s->data = seg[0].data;
        s->scales = seg[1].data;
        s->groups = (op->cols + group - 1) / group;
        s->row_bytes = tt__codes_row_bytes(bits, group, op->cols);
    } else if (op->dtype == TT_Q4_0 || op->dtype == TT_Q4_1 || op->dtype == TT_Q8_0) {
        bits = op->dtype == TT_Q8_0 ? 8 : 4;
        if (op->dtype == TT_Q4_1) grid = TT_GRID_MIN;
        s->data = op->data;
        s->block = tt__dtype(op->dtype)->bytes;
        s->groups = op->cols / 32;
        s->row_bytes = s->groups * s->block;
    } else return false;
    return measure(op->rows, op->cols, bits, group, grid, &s->p, &s->s) && 20 * all_bytes(s->s) <= 21 * tt__linop_bytes(op);
}

/* Eight codes at a time: models are repacked while somebody waits. */
static void block_codes(tt_dtype type, const uint8_t *block, uint8_t out[32]) {
    uint64_t v[4];
    if (type == TT_Q8_0) {
        memcpy(v, block + 2, 32);
        for (int i = 0; i < 4; i++) v[i] ^= 0x8080808080808080ull;
    } else {
        memcpy(v, block + (type == TT_Q4_1 ? 4 : 2), 16);
        for (int i = 0; i < 2; i++) v[2 + i] = v[i] >> 4 & 0x0f0f0f0f0f0f0f0full;
        for (int i = 0; i < 2; i++) v[i] &= 0x0f0f0f0f0f0f0f0full;
    }
    memcpy(out, v, 32);
}

/* 128 columns of a row, from column c on; what the row lacks stays 0. */
static void take_codes(const source *s, int64_t row, int64_t c, uint8_t out[128]) {
    const int64_t end = least(c + 128, s->p.cols);
    const uint8_t *p = s->data + row * s->row_bytes;
    memset(out, 0, 128);
    if (!s->scales) {
        for (int64_t at = c; at < end; at += 32) block_codes(s->dtype, p + at / 32 * s->block, out + (at - c));
        return;
    }
    p += tt__codes_row_bytes(s->p.bits, s->p.group, c);
    for (int64_t at = c; at < end; at += s->p.group) {
        const int64_t n = least(s->p.group, end - at);
        tt__codes_unpack(s->p.bits, p, n, out + (at - c));
        p += tt__codes_bytes(s->p.bits, n);
    }
}

static void put_scale(source *s, int64_t at, int64_t row, int64_t g) {
    uint16_t d, m = 0;
    if (s->scales) d = s->scales[row * s->groups + g];
    else {
        const uint8_t *block = s->data + row * s->row_bytes + g * s->block;
        d = tt__rd16(block);
        if (s->m) m = tt__rd16(block + 2);
    }
    if ((d & 0x7c00) == 0x7c00 || (m & 0x7c00) == 0x7c00) atomic_store_explicit(&s->odd, true, memory_order_relaxed);
    s->d[at] = d;
    if (s->m) s->m[at] = m;
}

static void pack_panel(void *arg, int64_t p, int worker) {
    source *s = arg;
    (void)worker;
    const int64_t r0 = p * TT_PANEL_ROWS, rows = least(TT_PANEL_ROWS, s->p.rows - r0), unit = tt__panel_unit_bytes(s->p.bits);
    uint8_t codes[2][TT_PANEL_ROWS][TT_PANEL_UNIT], row[128];
    if (rows < TT_PANEL_ROWS) memset(codes, 0, sizeof codes);
    for (int64_t u = 0; u < s->p.units; u += 2) {
        for (int64_t r = 0; r < rows; r++) {
            take_codes(s, r0 + r, u * TT_PANEL_UNIT, row);
            memcpy(codes[0][r], row, TT_PANEL_UNIT);
            memcpy(codes[1][r], row + TT_PANEL_UNIT, TT_PANEL_UNIT);
        }
        for (int64_t i = 0; i < 2 && u + i < s->p.units; i++) tt__panel_pack(s->p.bits, codes[i][0], s->codes + (p * s->p.units + u + i) * unit);
    }
    const size_t first = (size_t)(p * s->p.groups * TT_PANEL_ROWS), n = (size_t)s->p.groups * TT_PANEL_ROWS;
    if (rows < TT_PANEL_ROWS || s->groups < s->p.groups) {
        memset(s->d + first, 0, n * sizeof *s->d);
        if (s->m) memset(s->m + first, 0, n * sizeof *s->m);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < s->groups; g++) put_scale(s, (int64_t)first + g * TT_PANEL_ROWS + r, r0 + r, g);
}

uint64_t tt__linop_panel_bytes(const tt_linop *op) {
    source s;
    return find_source(op, &s) ? up64(all_bytes(s.s)) : 0;
}

tt_status tt__linop_panel_from(tt_ctx *ctx, const tt_linop *op, void *memory, tt_linop **out, tt_err *err) {
    source s;
    panel_op *o = NULL;
    *out = NULL;
    if (!find_source(op, &s)) return TT_OK;
    if (s.scales && has_half_grid(s.scales, op->rows * s.groups)) s.p.grid = TT_GRID_HALF;
    TT_TRY(create(ctx, s.p, s.s, &o, err));
    if (!memory) memory = o->op.owned = tt__alloc((size_t)all_bytes(s.s));
    if (!memory) {
        release(&o->op);
        return tt__fail(err, TT_RESOURCE, "out of memory|for a matrix|%llu bytes", (unsigned long long)all_bytes(s.s));
    }
    place(&o->p, s.s, memory);
    s.codes = (uint8_t *)(uintptr_t)o->p.codes;
    s.d = (uint16_t *)(uintptr_t)o->p.scales;
    s.m = (uint16_t *)(uintptr_t)o->p.mins;
    tt__parallel(ctx, tt__panels(op->rows), pack_panel, &s);
    if (atomic_load(&s.odd)) release(&o->op);
    else *out = &o->op;
    return TT_OK;
}

void tt__linop_panel_lend(tt_linop *op, void *memory) {
    panel_op *o = (panel_op *)op;
    place(&o->p, o->s, memory);
    tt__free(op->owned);
    op->owned = NULL;
}

const tt_linop_vtable tt__linop_v_panel = {.name = "panel", .decode = decode, .rowdot = rowdot, .batch = batch, .segments = segments, .load = load,
                                           .describe = describe, .free = release};
