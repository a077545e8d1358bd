/* panel: the run format. Rows in panels of 16, unsigned codes, as kernels/panel.h draws them; made from other operators while a model is
 * opened, never chosen by a compression method.
 *
 *     codes         [panels][units][128 bits bytes]
 *     scales, mins  f16 [panels][groups][16]         mins with grids "min" and "pair" only
 *     subs          [panels][2 units][2][16]         superpanel: small scales, per 32 columns
 *
 *     Q4_0            4 bits, groups of 32, grid offset        Q8_0    8 bits, groups of 32, grid offset, code = weight + 128
 *     Q4_1            4 bits, groups of 32, grid min           group   its bits and groups, grid offset, half or min
 *     Q5_0, Q5_1      5 bits, the same grids                   IQ4_NL  4 bits, groups of 32, grid table
 *
 * superpanel, below, is the same for types with scales of scales, grids single, pair and nibbles; where the machine has kernels that gain by it.
 *
 *     Q6_K   6 bits, single      Q3_K   3 bits, single      Q5_K   5 bits, pair      Q4_K   4 bits, pair      Q2_K   2 bits, nibbles
 *
 * floatpanel holds F16 and BF16 as they are. Few rows are products of f32 in f32, as those of dense.c, and so are many with F16; with BF16, where the
 * machine multiplies it, many rows of activations are rounded to it (8 significant bits) and sums stay f32. F32 has no panel: it is run as stored.
 *
 * The weights decode to the same bits. Types that have no such panel of about their own size stay what they are, and so does a matrix whose
 * filling up (rows to 16, columns to 64) would cost more than a twentieth.
 */
#include "linop/codes.h"
#include "linop/standard.h"

#include "base/checked.h"
#include "base/limits.h"
#include "base/util.h"
#include "kernels/codes.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>

/* Bytes of the segments; in one block of memory each starts at a multiple of 64. */
typedef struct sizes { uint64_t codes, scales, mins, subs; } sizes;
typedef struct panel_op { tt_linop op; const tt_kernels *k; tt_panel p; sizes s; } panel_op;

static const char *const grid_names[] = {"offset", "half", "min", "table", "single", "pair", "nibbles", "f16", "bf16"};
enum { N_GRIDS = 9, SUPER = 256 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ------------------------------------------------------------ sizes ---- */

static uint64_t up64(uint64_t n) { return (n + 63) & ~63ull; }
static uint64_t all_bytes(sizes s) { return up64(s.codes) + up64(s.scales) + up64(s.mins) + s.subs; }

static bool measure(int64_t rows, int64_t cols, int bits, int group, tt_panel_grid grid, tt_panel *p, sizes *s) {
    uint64_t weights;
    if (rows < 1 || cols < 1 || (uint64_t)rows > TT_LIMIT_DIM || (uint64_t)cols > TT_LIMIT_DIM) return false;
    if (!tt__mul_u64((uint64_t)rows + 15, (uint64_t)cols + 255, &weights) || weights > (uint64_t)INT64_MAX / 32) return false;
    *p = (tt_panel){.bits = bits, .group = group, .grid = grid, .rows = rows, .cols = cols, .units = (cols + 63) / 64};
    p->groups = (64 * p->units + group - 1) / group;
    s->codes = (uint64_t)(tt__panels(rows) * p->units * tt__panel_unit_bytes(bits));
    s->scales = tt__panel_is_float(p) ? 0 : (uint64_t)(tt__panels(rows) * p->groups * TT_PANEL_ROWS) * sizeof(uint16_t);
    s->mins = tt__panel_has_mins(p) ? s->scales : 0;
    s->subs = tt__panel_is_super(p) ? (uint64_t)(tt__panels(rows) * p->units * TT_PANEL_UNIT) : 0;
    return true;
}

static tt_status create(tt_ctx *ctx, tt_panel p, sizes s, panel_op **out, tt_err *err) {
    TT_TRY(tt__new(out, 1, sizeof **out, "an operator", err));
    const tt_linop_vtable *v = tt__panel_is_super(&p) ? &tt__linop_v_superpanel : tt__panel_is_float(&p) ? &tt__linop_v_floatpanel : &tt__linop_v_panel;
    **out = (panel_op){.op = {.v = v, .rows = p.rows, .cols = p.cols, .col_unit = TT_PANEL_UNIT, .dtype = TT_DTYPE_COUNT}, .k = ctx->k, .p = p, .s = s};
    return TT_OK;
}

/* ------------------------------------------------------------ use ---- */

static void decode_columns(const panel_op *o, int64_t p, int64_t c0, int64_t c1, float *out, int64_t ld) {
    (tt__panel_is_super(&o->p) ? o->k->super_decode : tt__panel_is_float(&o->p) ? o->k->float_decode : o->k->panel_decode)(&o->p, p, c0, c1, out, ld);
}

/* Parts of a panel (a row of an embedding) are decoded beside and copied. */
static void decode_part(const panel_op *o, int64_t p, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    enum { STRIP = 256 };
    float strip[TT_PANEL_ROWS * STRIP];
    for (int64_t c = c0; c < c1; c += STRIP) {
        const int64_t n = least(STRIP, c1 - c);
        decode_columns(o, p, c, c + n, strip, STRIP);
        for (int64_t r = r0; r < r1; r++) memcpy(out + (r - r0) * ld + c - c0, strip + (r - TT_PANEL_ROWS * p) * STRIP, (size_t)n * sizeof(float));
    }
}

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const panel_op *o = (const panel_op *)op;
    for (int64_t r = r0, end; r < r1; r = end, out += (end - r0) * ld, r0 = end) {
        const int64_t p = r / TT_PANEL_ROWS;
        end = least(r1, (p + 1) * TT_PANEL_ROWS);
        if (r == p * TT_PANEL_ROWS && end == least(op->rows, (p + 1) * TT_PANEL_ROWS)) decode_columns(o, p, c0, c1, out, ld);
        else decode_part(o, p, r, end, c0, c1, out, ld);
    }
}

static void rowdot(tt_ctx *ctx, const tt_linop *op, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy) {
    const panel_op *o = (const panel_op *)op;
    assert(r0 % TT_PANEL_ROWS == 0 && (r1 % TT_PANEL_ROWS == 0 || r1 == op->rows));
    if (tt__panel_is_float(&o->p)) ctx->k->float_rowdot(&o->p, r0 / TT_PANEL_ROWS, tt__panels(r1), act->x, act->ldx, act->T, Y, ldy);
    else (tt__panel_is_super(&o->p) ? ctx->k->super_rowdot : ctx->k->panel_rowdot)(&o->p, r0 / TT_PANEL_ROWS, tt__panels(r1), &act->q8, Y, ldy);
}

static void batch(tt_ctx *ctx, const tt_linop *op, const tt_batch *x, int64_t tile0, int64_t tile1, int64_t r0, int64_t r1, float *Y, int64_t ldy, int worker) {
    (void)worker;
    const tt_panel *p = &((const panel_op *)op)->p;
    (tt__panel_is_super(p) ? ctx->k->super_gemm : ctx->k->panel_gemm)(p, r0 / TT_PANEL_ROWS, tt__panels(r1), x, tile0, tile1, Y, ldy);
}

/* What a matrix tile reads, without a way through rows: columns of 16 rows each, `r` of them side by side; pairs of BF16 as they lie. */
static bool pack(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int r, int pair) {
    const panel_op *o = (const panel_op *)op;
    if (r % TT_PANEL_ROWS || (pair == 2 && o->p.grid != TT_GRID_BF16)) return false;
    for (int i = 0; i < r; i += TT_PANEL_ROWS) {
        const int64_t p = (r0 + i) / TT_PANEL_ROWS;
        const float *pairs = (const float *)(const void *)(o->p.codes + p * o->p.units * tt__panel_unit_bytes(16)) + c0 / 2 * TT_PANEL_ROWS;
        if (r0 + i >= r1) for (int64_t c = 0; c < (c1 - c0 + pair - 1) / pair; c++) memset(out + c * r + i, 0, TT_PANEL_ROWS * sizeof *out);
        else if (pair == 1) o->k->float_columns(&o->p, p, c0, c1, out + i, r);
        else for (int64_t c = 0; c < (c1 - c0 + 1) / 2; c++) memcpy(out + c * r + i, pairs + c * TT_PANEL_ROWS, TT_PANEL_ROWS * sizeof *out);
    }
    return true;
}

const tt_panel *tt__linop_panel(const tt_linop *op) {
    const bool is = op->v == &tt__linop_v_panel || op->v == &tt__linop_v_superpanel || op->v == &tt__linop_v_floatpanel;
    return is ? &((const panel_op *)op)->p : NULL;
}

/* ------------------------------------------------------------ state ---- */

static int segments(const tt_linop *op, tt_segment out[8]) {
    const tt_panel *p = &((const panel_op *)op)->p;
    const sizes *s = &((const panel_op *)op)->s;
    out[0] = (tt_segment){"codes", p->codes, s->codes};
    int n = 1;
    if (s->scales) out[n++] = (tt_segment){"scales", p->scales, s->scales};
    if (s->mins) out[n++] = (tt_segment){"mins", p->mins, s->mins};
    if (s->subs) out[n++] = (tt_segment){"subs", p->subs, s->subs};
    return n;
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
    while (g < N_GRIDS && strcmp(name + 6, grid_names[g]) != 0) g++;
    const bool plain = g <= TT_GRID_TABLE && tt__group_is_valid(*group) && (g == TT_GRID_TABLE ? *bits == 4 : (*bits >= 2 && *bits <= 5) || *bits == 8);
    const bool super = *group == SUPER && (g == TT_GRID_SINGLE ? *bits == 3 || *bits == 6 : g == TT_GRID_PAIR ? *bits == 4 || *bits == 5 : g == TT_GRID_NIBBLES && *bits == 2);
    const bool floats = g >= TT_GRID_F16 && *bits == 16 && *group == TT_PANEL_UNIT;
    TT_FAIL_IF(!plain && !super && !floats, err, TT_BADFILE, "unsupported panel operator||%s", params);
    *grid = (tt_panel_grid)g;
    return TT_OK;
}

/* Where the parts lie in one block of memory. */
static void place(tt_panel *p, sizes s, uint8_t *memory) {
    p->codes = memory;
    p->scales = s.scales ? (const uint16_t *)(const void *)(memory + up64(s.codes)) : NULL;
    p->mins = s.mins ? (const uint16_t *)(const void *)(memory + up64(s.codes) + up64(s.scales)) : NULL;
    p->subs = s.subs ? memory + up64(s.codes) + up64(s.scales) + up64(s.mins) : NULL;
}

/* Kernels read whole vectors from 64-byte boundaries: crooked segments are copied. */
static tt_status straighten(panel_op *o, tt_err *err) {
    const tt_panel from = o->p;
    const sizes s = o->s;
    if (!(((uintptr_t)from.codes | (uintptr_t)from.scales | (uintptr_t)from.mins | (uintptr_t)from.subs) % 64)) return TT_OK;
    o->op.owned = tt__alloc((size_t)all_bytes(s));
    TT_FAIL_IF(!o->op.owned, err, TT_RESOURCE, "out of memory|for a matrix|%llu bytes", (unsigned long long)all_bytes(s));
    place(&o->p, s, o->op.owned);
    memcpy((void *)(uintptr_t)o->p.codes, from.codes, s.codes);
    if (s.scales) memcpy((void *)(uintptr_t)o->p.scales, from.scales, s.scales);
    if (s.mins) memcpy((void *)(uintptr_t)o->p.mins, from.mins, s.mins);
    if (s.subs) memcpy((void *)(uintptr_t)o->p.subs, from.subs, s.subs);
    return TT_OK;
}

static tt_status load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    int bits, group;
    tt_panel_grid grid;
    tt_panel p;
    sizes s;
    panel_op *o = NULL;
    const void *codes, *scales = NULL, *mins = NULL, *subs = NULL;
    *out = NULL;
    TT_TRY(parse(params, &bits, &group, &grid, err));
    TT_FAIL_IF(!measure(rows, cols, bits, group, grid, &p, &s) || (s.subs && cols % SUPER), err, TT_BADFILE, "bad matrix shape||[%lld, %lld]", (long long)rows, (long long)cols);
    TT_TRY(tt__segment_get(seg, n_seg, "codes", s.codes, 1, &codes, err));
    if (s.scales) {
        TT_TRY(tt__segment_get(seg, n_seg, "scales", s.scales / sizeof(uint16_t), sizeof(uint16_t), &scales, err));
        TT_TRY(tt__scales_check(scales, s.scales / sizeof(uint16_t), err));
    }
    if (s.mins) {
        TT_TRY(tt__segment_get(seg, n_seg, "mins", s.mins / sizeof(uint16_t), sizeof(uint16_t), &mins, err));
        TT_TRY(tt__scales_check(mins, s.mins / sizeof(uint16_t), err));
    }
    if (s.subs) TT_TRY(tt__segment_get(seg, n_seg, "subs", s.subs, 1, &subs, err));
    p.codes = codes, p.scales = scales, p.mins = mins, p.subs = subs;
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
    const uint16_t *scales, *mins;        /* group; mins or NULL */
    int64_t row_bytes, block, groups;     /* groups: scales of a row */
    tt_dtype dtype;
    uint8_t *codes, *subs;
    uint16_t *d, *m;
    atomic_bool odd;                      /* a scale that is no finite number: the matrix stays as it is */
} source;

static bool has_half_grid(const uint16_t *scales, int64_t n) {
    uint16_t any = 0;
    for (int64_t i = 0; i < n; i++) any |= scales[i];
    return any >> 15;
}

static bool find_super(tt_dtype type, int *bits, tt_panel_grid *grid) {
    *bits = type == TT_Q2_K ? 2 : type == TT_Q3_K ? 3 : type == TT_Q4_K ? 4 : type == TT_Q5_K ? 5 : 6;
    *grid = type == TT_Q3_K || type == TT_Q6_K ? TT_GRID_SINGLE : type == TT_Q2_K ? TT_GRID_NIBBLES : TT_GRID_PAIR;
    return type == TT_Q2_K || type == TT_Q3_K || type == TT_Q4_K || type == TT_Q5_K || type == TT_Q6_K;
}

/* Types of blocks of 32 with a scale each. */
static bool find_simple(tt_dtype type, int *bits, tt_panel_grid *grid) {
    *bits = type == TT_Q8_0 ? 8 : type == TT_Q5_0 || type == TT_Q5_1 ? 5 : 4;
    *grid = type == TT_Q4_1 || type == TT_Q5_1 ? TT_GRID_MIN : type == TT_IQ4_NL ? TT_GRID_TABLE : TT_GRID_OFFSET;
    return type == TT_Q4_0 || type == TT_Q4_1 || type == TT_Q5_0 || type == TT_Q5_1 || type == TT_Q8_0 || type == TT_IQ4_NL;
}

static bool find_source(const tt_linop *op, source *s) {
    int bits, group = 32;
    tt_panel_grid grid = TT_GRID_OFFSET;
    tt__group_view v;
    *s = (source){.dtype = op->dtype};
    if (tt__group_view_of(op, &v)) {
        bits = v.bits;
        group = v.group;
        if (v.mins) grid = TT_GRID_MIN;
        s->data = v.codes;
        s->scales = v.scales;
        s->mins = v.mins;
        s->groups = v.groups;
        s->row_bytes = v.row_bytes;
    } else if (find_simple(op->dtype, &bits, &grid)) {
        s->data = op->data;
        s->block = tt__dtype(op->dtype)->bytes;
        s->groups = op->cols / 32;
        s->row_bytes = s->groups * s->block;
    } else if (find_super(op->dtype, &bits, &grid) && ((const tt__standard *)op)->k->super) {
        group = SUPER;
        s->data = op->data;
        s->block = tt__dtype(op->dtype)->bytes;
        s->groups = op->cols / SUPER;
        s->row_bytes = s->groups * s->block;
    } else if (op->dtype == TT_F16 || op->dtype == TT_BF16) {
        bits = 16;
        group = TT_PANEL_UNIT;
        grid = op->dtype == TT_F16 ? TT_GRID_F16 : TT_GRID_BF16;
        s->data = op->data;
        s->row_bytes = 2 * op->cols;
    } else return false;
    return measure(op->rows, op->cols, bits, group, grid, &s->p, &s->s) && 20 * all_bytes(s->s) <= 21 * tt__linop_bytes(op);
}

/* Eight bits to eight bytes, 16 where set. */
static uint64_t fifth_bits(uint8_t eight) {
    const uint64_t apart = eight * 0x0101010101010101ull & 0x8040201008040201ull;
    return ((apart + 0x7f7f7f7f7f7f7f7full) & 0x8080808080808080ull) >> 3;
}

/* Eight codes at a time: models are repacked while somebody waits. */
static void block_codes(tt_dtype type, const uint8_t *block, uint8_t out[32]) {
    uint64_t v[4];
    if (type == TT_Q8_0) {
        memcpy(v, block + 2, 32);
        for (int i = 0; i < 4; i++) v[i] ^= 0x8080808080808080ull;
    } else {
        const bool five = type == TT_Q5_0 || type == TT_Q5_1;
        const uint8_t *p = block + (type == TT_Q4_1 || type == TT_Q5_1 ? 4 : 2);
        memcpy(v, p + (five ? 4 : 0), 16);
        for (int i = 0; i < 2; i++) v[2 + i] = v[i] >> 4 & 0x0f0f0f0f0f0f0f0full;
        for (int i = 0; i < 2; i++) v[i] &= 0x0f0f0f0f0f0f0f0full;
        for (int i = 0; five && i < 4; i++) v[i] |= fifth_bits(p[i]);
    }
    memcpy(out, v, 32);
}

/* Half of a block of 256: 128 codes, 32 at a time from 32 bytes each (kernels/ref/blocks.h has the layouts). */
static void half_codes(tt_dtype type, const uint8_t *block, int half, uint8_t out[128]) {
    const uint64_t ones = 0x0101010101010101ull;
    const uint8_t *low = type == TT_Q6_K ? block : block + (type == TT_Q5_K ? 48 : type == TT_Q3_K ? 32 : 16);
    const uint8_t *high = type == TT_Q6_K ? block + 128 + 32 * half : type == TT_Q5_K ? block + 16 : block;
    for (int s = 0; s < 4; s++)
        for (int i = 0; i < 32; i += 8) {
            uint64_t v, h;
            if (type == TT_Q2_K || type == TT_Q3_K) {
                memcpy(&v, low + 32 * half + i, 8);
                memcpy(&h, high + i, 8);
                v = v >> 2 * s & 3 * ones;
                if (type == TT_Q3_K) v |= (h >> (4 * half + s) & ones) << 2;
            } else if (type == TT_Q6_K) {
                memcpy(&v, low + 64 * half + 32 * (s & 1) + i, 8);
                memcpy(&h, high + i, 8);
                v = (v >> s / 2 * 4 & 15 * ones) | (h >> 2 * s & 3 * ones) << 4;
            } else {
                memcpy(&v, low + 64 * half + s / 2 * 32 + i, 8);
                v = v >> s % 2 * 4 & 15 * ones;
                if (type == TT_Q5_K) {
                    memcpy(&h, high + i, 8);
                    v |= (h >> (4 * half + s) & ones) << 4;
                }
            }
            memcpy(out + 32 * s + i, &v, 8);
        }
}

/* The small scales of a row's block g, two for each 32 columns. */
static void put_subs(source *s, int64_t p, int r, int64_t g, const uint8_t *block) {
    uint8_t *out = s->subs + (p * 2 * s->p.units + 8 * g) * 32 + r;
    const uint8_t *c = block + (s->dtype == TT_Q6_K ? 192 : s->dtype == TT_Q3_K ? 96 : s->dtype == TT_Q2_K ? 0 : 4);
    for (int i = 0; i < 16; i++, out += 16) {
        if (s->dtype == TT_Q6_K || s->dtype == TT_Q2_K) *out = c[i];
        else if (s->dtype == TT_Q3_K) *out = (uint8_t)(((i < 8 ? c[i] & 15 : c[i - 8] >> 4) | (c[8 + i % 4] >> i / 4 * 2 & 3) << 4) - 32);
        else {
            const int j = i / 2, min = i % 2;
            *out = (uint8_t)(j < 4 ? c[j + 4 * min] & 63 : (c[j + 4] >> 4 * min & 15) | c[j - 4 + 4 * min] >> 6 << 4);
        }
    }
}

/* 128 columns of a row, from column c on; what the row lacks stays 0. */
static void take_codes(const source *s, int64_t row, int64_t c, uint8_t out[128]) {
    const int64_t end = least(c + 128, s->p.cols);
    const uint8_t *p = s->data + row * s->row_bytes;
    if (s->subs) {
        half_codes(s->dtype, p + c / SUPER * s->block, (int)(c % SUPER / 128), out);
        return;
    }
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
    if (s->scales) {
        d = s->scales[row * s->groups + g];
        if (s->m) m = s->mins[row * s->groups + g];
    } else {
        const uint8_t *block = s->data + row * s->row_bytes + g * s->block;
        const int at_d = s->dtype == TT_Q3_K ? 108 : s->dtype == TT_Q6_K ? 208 : s->dtype == TT_Q2_K ? 80 : 0;
        d = tt__rd16(block + at_d);
        if (s->m) m = tt__rd16(block + at_d + 2);
        if (s->subs) put_subs(s, row / TT_PANEL_ROWS, (int)(row % TT_PANEL_ROWS), g, block);
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
        if (s->subs) memset(s->subs + p * s->p.units * TT_PANEL_UNIT, 0, (size_t)s->p.units * TT_PANEL_UNIT);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < s->groups; g++) put_scale(s, (int64_t)first + g * TT_PANEL_ROWS + r, r0 + r, g);
}

/* 16 rows of floats by 16 columns at a time. */
static void pack_floats(void *arg, int64_t p, int worker) {
    source *s = arg;
    (void)worker;
    const int64_t r0 = p * TT_PANEL_ROWS, rows = least(TT_PANEL_ROWS, s->p.rows - r0), padded = s->p.units * TT_PANEL_UNIT;
    uint16_t *out = (uint16_t *)(void *)s->codes + p * TT_PANEL_ROWS * padded, in[TT_PANEL_ROWS][16] = {{0}};
    const int pair = s->p.grid == TT_GRID_BF16 ? 2 : 1;
    for (int64_t c = 0; c < padded; c += 16, out += 16 * TT_PANEL_ROWS) {
        const int64_t n = least(16, s->p.cols - c);
        if (n < 16) memset(in, 0, sizeof in);
        for (int64_t r = 0; r < rows && n > 0; r++) memcpy(in[r], s->data + (r0 + r) * s->row_bytes + 2 * c, (size_t)n * 2);
        for (int i = 0; i < 16; i++)
            for (int r = 0; r < TT_PANEL_ROWS; r++) out[(i / pair * TT_PANEL_ROWS + r) * pair + i % pair] = in[r][i];
    }
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
    if (s.scales && !s.mins && has_half_grid(s.scales, op->rows * s.groups)) s.p.grid = TT_GRID_HALF;
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
    s.subs = (uint8_t *)(uintptr_t)o->p.subs;
    tt__parallel(ctx, tt__panels(op->rows), tt__panel_is_float(&s.p) ? pack_floats : pack_panel, &s);
    if (atomic_load(&s.odd)) release(&o->op);
    else *out = &o->op;
    return TT_OK;
}

const tt_linop_vtable tt__linop_v_panel = {.name = "panel", .decode = decode, .rowdot = rowdot, .batch = batch, .segments = segments, .load = load,
                                           .describe = describe, .free = release};
const tt_linop_vtable tt__linop_v_superpanel = {.name = "superpanel", .decode = decode, .rowdot = rowdot, .batch = batch, .segments = segments, .load = load, .describe = describe,
                                                .free = release};
const tt_linop_vtable tt__linop_v_floatpanel = {.name = "floatpanel", .takes_floats = true, .decode = decode, .rowdot = rowdot, .pack = pack, .segments = segments, .load = load,
                                                .describe = describe, .free = release};
