/* slide2: half of the weights as 4-bit codes with a 2-bit place each, in panels of 16 rows (kernels/slide2.h has the format). What is
 * stored is what runs: nothing is unpacked at load.
 *
 *     codes    [panels][units][384]      codes and offsets of 16 rows x 64 columns
 *     scales   f16 [panels][groups][16]  groups = ceil(64 units / group), of 64 or 128 columns
 *
 * 3 + 16/group bits per weight. From outside every slot is checked: columns rise, exist, and filling is filling.
 */
#include "linop/codes.h"

#include "base/checked.h"
#include "base/util.h"
#include "linop/sparse.h"
#include <assert.h>
#include <stdio.h>

typedef struct slide2_op {
    tt_linop op;
    const tt_kernels *k;
    tt_slide2 w;
} slide2_op;

static int64_t panels_of(int64_t rows) { return (rows + TT_SLIDE2_ROWS - 1) / TT_SLIDE2_ROWS; }
static uint64_t code_bytes(const tt_slide2 *w) { return (uint64_t)(panels_of(w->rows) * w->units) * TT_SLIDE2_BYTES; }
static uint64_t scale_count(const tt_slide2 *w) { return (uint64_t)(panels_of(w->rows) * w->groups) * TT_SLIDE2_ROWS; }

/* ------------------------------------------------------------ use ---- */

/* Rows r0 … r1 of one panel. The kernel writes whole panels: a part goes through a unit at a time. */
static void decode_part(const slide2_op *s, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const int64_t p = r0 / TT_SLIDE2_ROWS, first = p * TT_SLIDE2_ROWS;
    if (r0 == first && (r1 == first + TT_SLIDE2_ROWS || r1 == s->w.rows)) {
        s->k->slide2_decode(&s->w, p, c0, c1, out, ld);
        return;
    }
    float unit[TT_SLIDE2_ROWS * TT_SLIDE2_UNIT];
    for (int64_t c = c0; c < c1; c += TT_SLIDE2_UNIT) {
        const int64_t n = c1 - c < TT_SLIDE2_UNIT ? c1 - c : TT_SLIDE2_UNIT;
        s->k->slide2_decode(&s->w, p, c, c + n, unit, TT_SLIDE2_UNIT);
        for (int64_t r = r0; r < r1; r++) memcpy(out + (r - r0) * ld + c - c0, unit + (r - first) * TT_SLIDE2_UNIT, (size_t)n * sizeof *out);
    }
}

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    for (int64_t r = r0, end; r < r1; r = end) {
        end = (r / TT_SLIDE2_ROWS + 1) * TT_SLIDE2_ROWS < r1 ? (r / TT_SLIDE2_ROWS + 1) * TT_SLIDE2_ROWS : r1;
        decode_part((const slide2_op *)op, r, end, c0, c1, out + (r - r0) * ld, ld);
    }
}

/* Once for all operators that read this activation. */
static void prepare(tt_ctx *ctx, const tt_act *act) {
    tt_unrolled *u = act->unrolled;
    if (u->T) return;
    for (int64_t t = 0; t < act->T; t++) ctx->k->slide2_unroll(act->x + t * act->ldx, act->n, u->table + t * u->units * TT_SLIDE2_TABLE, u->d + t * u->units);
    u->T = act->T;
}

static void rowdot(tt_ctx *ctx, const tt_linop *op, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy) {
    const slide2_op *s = (const slide2_op *)op;
    assert(r0 % TT_SLIDE2_ROWS == 0 && (r1 % TT_SLIDE2_ROWS == 0 || r1 == op->rows));
    ctx->k->slide2_rowdot(&s->w, r0 / TT_SLIDE2_ROWS, panels_of(r1), act->unrolled, Y, ldy);
}

/* Many rows, fast: a panel at a time is expanded to 8-bit codes for the dense kernel. */
static void batch(tt_ctx *ctx, const tt_linop *op, const tt_batch *x, int64_t tile0, int64_t tile1, int64_t r0, int64_t r1, float *Y, int64_t ldy, int worker) {
    const slide2_op *s = (const slide2_op *)op;
    uint8_t *codes = (uint8_t *)(((uintptr_t)tt__scratch(ctx, worker) + 63) & ~(uintptr_t)63);
    uint16_t *scales = (uint16_t *)(void *)(codes + s->w.units * 1024);
    for (int64_t p = r0 / 16; p < panels_of(r1); p++) {
        ctx->k->slide2_expand(&s->w, p, codes);
        tt__expanded_gemm(ctx, op, &(tt__expanded){p, s->w.units, s->w.groups, s->w.group, codes, s->w.scales + p * s->w.groups * 16}, x, tile0, tile1, Y, ldy, scales);
    }
}

/* ------------------------------------------------------------ state ---- */

static int segments(const tt_linop *op, tt_segment out[8]) {
    const slide2_op *s = (const slide2_op *)op;
    out[0] = (tt_segment){"codes", s->w.codes, code_bytes(&s->w)};
    out[1] = (tt_segment){"scales", s->w.scales, scale_count(&s->w) * sizeof(uint16_t)};
    return 2;
}

static void describe(const tt_linop *op, char *buf, size_t n) { snprintf(buf, n, "bits=4,group=%d", ((const slide2_op *)op)->w.group); }

static void release(tt_linop *op) {
    tt__free(op->owned);
    tt__free(op);
}

static tt_status create(tt_ctx *ctx, int bits, int group, int64_t rows, int64_t cols, slide2_op **out, tt_err *err) {
    uint64_t weights;
    TT_FAIL_IF(bits != 4 || (group != 64 && group != 128), err, TT_BADFILE, "unsupported slide2 operator||bits=%d, group=%d|bits 4; groups of 64, 128", bits, group);
    TT_FAIL_IF(rows < 1 || cols < 1 || !tt__mul_u64((uint64_t)rows, (uint64_t)cols, &weights) || weights > (uint64_t)INT64_MAX / 2048, err, TT_BADFILE,
               "bad matrix shape||[%lld, %lld]", (long long)rows, (long long)cols);
    TT_TRY(tt__new(out, 1, sizeof **out, "an operator", err));
    const int64_t units = (cols + TT_SLIDE2_UNIT - 1) / TT_SLIDE2_UNIT;
    **out = (slide2_op){.op = {.v = &tt__linop_v_slide2, .rows = rows, .cols = cols, .col_unit = TT_SLIDE2_UNIT, .dtype = TT_DTYPE_COUNT}, .k = ctx->k,
                        .w = {.group = group, .rows = rows, .cols = cols, .units = units, .groups = (TT_SLIDE2_UNIT * units + group - 1) / group}};
    return TT_OK;
}

/* Kept columns of one row of a unit of n columns rise and exist; the rest is code 0 at offset 1. */
static bool slots_are_valid(const uint8_t *unit, int row, int64_t n) {
    int64_t last = -1;
    for (int s = 0; s < TT_SLIDE2_SLOTS; s++) {
        const int64_t column = 2 * s - 1 + tt__slide2_offset(unit, row, s);
        if (2 * s < n ? column <= last || column >= n : column != 2 * s || tt__slide2_code(unit, row, s)) return false;
        last = column;
    }
    return true;
}

/* The same of a whole unit by bits. A dword holds 16 slots, slot 4 k + q in bits 2 k of byte q: `next` is the dword of the slots behind. Slots
 * a, b in a row are wrong where a = 2, 3 and b = 0, 1, but for (2, 1); the first is not 0, the last not 3. */
static bool whole_slots_are_valid(const uint8_t *unit, int row) {
    uint32_t v[2], wrong = 0;
    memcpy(v, unit + 256 + 4 * row, 4);
    memcpy(v + 1, unit + 320 + 4 * row, 4);
    for (int i = 0; i < 2; i++) {
        const uint32_t behind = i ? 1 : v[1] & 3, first = (v[i] >> 2 & 63) | behind << 6, next = v[i] >> 8 | first << 24;
        wrong |= v[i] >> 1 & ~(next >> 1) & (v[i] | ~next) & 0x55555555u;
    }
    return !wrong && v[0] & 3;
}

static tt_status check(const tt_slide2 *w, tt_err *err) {
    for (int64_t i = 0; i < panels_of(w->rows) * w->units; i++)
        for (int r = 0; r < TT_SLIDE2_ROWS; r++) {
            const int64_t row = i / w->units * TT_SLIDE2_ROWS + r, c = i % w->units * TT_SLIDE2_UNIT, n = w->cols - c < TT_SLIDE2_UNIT ? w->cols - c : TT_SLIDE2_UNIT;
            const uint8_t *unit = w->codes + i * TT_SLIDE2_BYTES;
            TT_FAIL_IF(!(row < w->rows && n == 64 ? whole_slots_are_valid(unit, r) : slots_are_valid(unit, r, row < w->rows ? n : 0)), err, TT_BADFILE,
                       "kept weights do not lie in order, or beyond the matrix|row %lld, columns from %lld", (long long)row, (long long)c);
        }
    return tt__scales_check(w->scales, scale_count(w), err);
}

static tt_status load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    int bits, group;
    slide2_op *s = NULL;
    const void *codes, *scales;
    *out = NULL;
    TT_TRY(tt__params_parse(params, &bits, &group, err));
    TT_TRY(create(ctx, bits, group, rows, cols, &s, err));
    tt_status st;
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "codes", code_bytes(&s->w), 1, &codes, err));
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "scales", scale_count(&s->w), sizeof(uint16_t), &scales, err));
    s->w.codes = codes, s->w.scales = scales;
    TT_TRY_GOTO(check(&s->w, err));
    *out = &s->op;
    return TT_OK;
done:
    release(&s->op);
    return st;
}

/* ------------------------------------------------------------ making ---- */

bool tt__linop_slide2_fits(const uint8_t *keep, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c += TT_SLIDE2_UNIT) {
            const int64_t n = cols - c < TT_SLIDE2_UNIT ? cols - c : TT_SLIDE2_UNIT;
            int64_t slot = 0;
            for (int64_t i = 0; i < n; i++) {
                if (!keep[r * cols + c + i]) continue;
                if (i < 2 * slot - 1 || i > 2 * slot + 2) return false;
                slot++;
            }
            if (slot != (n + 1) / 2) return false;
        }
    return true;
}

static void fill_panel(const tt_slide2 *w, int64_t p, const uint8_t *keep, const uint8_t *codes, uint8_t *out) {
    for (int64_t u = 0; u < w->units; u++, out += TT_SLIDE2_BYTES)
        for (int r = 0; r < TT_SLIDE2_ROWS; r++) {
            const int64_t row = p * TT_SLIDE2_ROWS + r, end = (u + 1) * TT_SLIDE2_UNIT < w->cols ? (u + 1) * TT_SLIDE2_UNIT : w->cols;
            int slot = 0;
            for (int64_t c = u * TT_SLIDE2_UNIT; row < w->rows && c < end; c++) {
                const int64_t at = row * w->cols + c;
                if (!keep[at]) continue;
                tt__slide2_put(out, r, slot, codes[at] - 8, (int)(c - u * TT_SLIDE2_UNIT) - (2 * slot - 1));
                slot++;
            }
            for (; slot < TT_SLIDE2_SLOTS; slot++) tt__slide2_put(out, r, slot, 0, 1);
        }
}

/* Scales go from rows to panels. */
static tt_status fill_scales(const tt_slide2 *w, const float *scales, const uint8_t *halfgrid, uint16_t *out, tt_err *err) {
    const int64_t groups = (w->cols + w->group - 1) / w->group;
    for (int64_t r = 0; r < w->rows; r++)
        for (int64_t g = 0; g < groups; g++)
            TT_TRY(tt__scales_pack(scales + r * groups + g, halfgrid ? halfgrid + r * groups + g : NULL, 1,
                                   out + (r / TT_SLIDE2_ROWS * w->groups + g) * TT_SLIDE2_ROWS + r % TT_SLIDE2_ROWS, err));
    return TT_OK;
}

tt_status tt__linop_slide2(tt_ctx *ctx, int group, const uint8_t *keep, const uint8_t *codes, const float *scales, const uint8_t *halfgrid,
                           int64_t rows, int64_t cols, tt_linop **out, tt_err *err) {
    slide2_op *s = NULL;
    uint8_t *mem = NULL;
    tt_status st;
    *out = NULL;
    TT_FAIL_IF(!tt__linop_slide2_fits(keep, rows, cols), err, TT_TARGET, "mask is not a slide2 mask||[%lld, %lld]", (long long)rows, (long long)cols);
    TT_TRY(create(ctx, 4, group, rows, cols, &s, err));
    TT_TRY_GOTO(tt__new(&mem, 1, (size_t)(code_bytes(&s->w) + scale_count(&s->w) * sizeof(uint16_t)), "packed codes", err));
    s->op.owned = mem;
    uint16_t *packed = (uint16_t *)(void *)(mem + code_bytes(&s->w));
    s->w.codes = mem, s->w.scales = packed;
    TT_TRY_GOTO(fill_scales(&s->w, scales, halfgrid, packed, err));
    for (int64_t p = 0; p < panels_of(rows); p++) fill_panel(&s->w, p, keep, codes, mem + p * s->w.units * TT_SLIDE2_BYTES);
    *out = &s->op;
    return TT_OK;
done:
    release(&s->op);
    return st;
}

const tt_linop_vtable tt__linop_v_slide2 = {.name = "slide2", .decode = decode, .rowdot = rowdot, .batch = batch, .prepare = prepare, .segments = segments, .load = load,
                                            .describe = describe, .free = release};
