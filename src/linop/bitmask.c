/* bitmask: what sparseq holds with 4-bit codes, in panels of 16 rows for running (kernels/bitmask.h). It is made from a sparseq operator
 * at load, where asked for; files keep sparseq.
 *
 *     mask     u64 [panels][units][16]       starts   u64 [panels + 1]
 *     codes    two streams of nibbles per panel, then 64 bytes that kernels may read
 *     scales   f16 [panels][groups][16]
 */
#include "linop/codes.h"

#include "base/checked.h"
#include "base/util.h"
#include "linop/sparse.h"
#include <assert.h>
#include <stdio.h>

typedef struct bitmask_op {
    tt_linop op;
    const tt_kernels *k;
    tt_bitmask w;
    uint64_t code_bytes;
} bitmask_op;

static int64_t panels_of(int64_t rows) { return (rows + TT_BITMASK_ROWS - 1) / TT_BITMASK_ROWS; }
static uint64_t mask_count(const tt_bitmask *w) { return (uint64_t)(panels_of(w->rows) * w->units) * TT_BITMASK_BLOCKS; }
static uint64_t scale_count(const tt_bitmask *w) { return (uint64_t)(panels_of(w->rows) * w->groups) * TT_BITMASK_ROWS; }

/* ------------------------------------------------------------ use ---- */

/* Rows r0 … r1 of one panel. The kernel writes whole panels: a part goes through a unit at a time. */
static void decode_part(const bitmask_op *s, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const int64_t p = r0 / TT_BITMASK_ROWS, first = p * TT_BITMASK_ROWS;
    if (r0 == first && (r1 == first + TT_BITMASK_ROWS || r1 == s->w.rows)) {
        s->k->bitmask_decode(&s->w, p, c0, c1, out, ld);
        return;
    }
    float unit[TT_BITMASK_ROWS * TT_BITMASK_UNIT];
    for (int64_t c = c0; c < c1; c += TT_BITMASK_UNIT) {
        const int64_t n = c1 - c < TT_BITMASK_UNIT ? c1 - c : TT_BITMASK_UNIT;
        s->k->bitmask_decode(&s->w, p, c, c + n, unit, TT_BITMASK_UNIT);
        for (int64_t r = r0; r < r1; r++) memcpy(out + (r - r0) * ld + c - c0, unit + (r - first) * TT_BITMASK_UNIT, (size_t)n * sizeof *out);
    }
}

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    for (int64_t r = r0, end; r < r1; r = end) {
        end = (r / TT_BITMASK_ROWS + 1) * TT_BITMASK_ROWS < r1 ? (r / TT_BITMASK_ROWS + 1) * TT_BITMASK_ROWS : r1;
        decode_part((const bitmask_op *)op, r, end, c0, c1, out + (r - r0) * ld, ld);
    }
}

static void rowdot(tt_ctx *ctx, const tt_linop *op, const tt_act *act, int64_t r0, int64_t r1, float *Y, int64_t ldy) {
    const bitmask_op *s = (const bitmask_op *)op;
    assert(r0 % TT_BITMASK_ROWS == 0 && (r1 % TT_BITMASK_ROWS == 0 || r1 == op->rows));
    ctx->k->bitmask_rowdot(&s->w, r0 / TT_BITMASK_ROWS, panels_of(r1), &act->q8, Y, ldy);
}

/* The last columns of a unit and the last rows may not exist: activations are 0 there, and rows are not written. */
void tt__expanded_gemm(tt_ctx *ctx, const tt_linop *op, const tt__expanded *e, const tt_batch *x, int64_t tile0, int64_t tile1, float *Y, int64_t ldy, uint16_t *room) {
    const int64_t rows = op->rows - e->p * 16;
    for (int64_t i = 0; i < e->groups * 16; i++) room[i] = tt__half_scale(e->scales[i]);
    const tt_panel panel = {.bits = 8, .group = e->group, .grid = TT_GRID_OFFSET, .rows = rows < 16 ? rows : 16, .cols = op->cols, .units = e->units, .groups = e->groups,
                            .codes = e->codes, .scales = room};
    ctx->k->panel_gemm(&panel, 0, 1, x, tile0, tile1, Y + e->p * 16, ldy);
}

/* Many rows, fast: a panel at a time is expanded to 8-bit codes for the dense kernel. */
static void batch(tt_ctx *ctx, const tt_linop *op, const tt_batch *x, int64_t tile0, int64_t tile1, int64_t r0, int64_t r1, float *Y, int64_t ldy, int worker) {
    const bitmask_op *s = (const bitmask_op *)op;
    uint8_t *codes = (uint8_t *)(((uintptr_t)tt__scratch(ctx, worker) + 63) & ~(uintptr_t)63);
    uint16_t *scales = (uint16_t *)(void *)(codes + s->w.units * 1024);
    for (int64_t p = r0 / 16; p < panels_of(r1); p++) {
        ctx->k->bitmask_expand(&s->w, p, codes);
        tt__expanded_gemm(ctx, op, &(tt__expanded){p, s->w.units, s->w.groups, s->w.group, codes, s->w.scales + p * s->w.groups * 16}, x, tile0, tile1, Y, ldy, scales);
    }
}

/* ------------------------------------------------------------ state ---- */

static int segments(const tt_linop *op, tt_segment out[8]) {
    const bitmask_op *s = (const bitmask_op *)op;
    out[0] = (tt_segment){"mask", s->w.mask, mask_count(&s->w) * sizeof(uint64_t)};
    out[1] = (tt_segment){"starts", s->w.start, (uint64_t)(panels_of(op->rows) + 1) * sizeof(uint64_t)};
    out[2] = (tt_segment){"codes", s->w.codes, s->code_bytes};
    out[3] = (tt_segment){"scales", s->w.scales, scale_count(&s->w) * sizeof(uint16_t)};
    return 4;
}

static void describe(const tt_linop *op, char *buf, size_t n) { snprintf(buf, n, "bits=4,group=%d", ((const bitmask_op *)op)->w.group); }

static void release(tt_linop *op) {
    tt__free(op->owned);
    tt__free(op);
}

static tt_status create(tt_ctx *ctx, int bits, int group, int64_t rows, int64_t cols, bitmask_op **out, tt_err *err) {
    uint64_t weights;
    TT_FAIL_IF(bits != 4 || !tt__group_is_valid(group), err, TT_BADFILE, "unsupported bitmask operator||bits=%d, group=%d|bits 4; groups of 32, 64, 128", bits, group);
    TT_FAIL_IF(rows < 1 || cols < 1 || !tt__mul_u64((uint64_t)rows, (uint64_t)cols, &weights) || weights > (uint64_t)INT64_MAX / 2048, err, TT_BADFILE,
               "bad matrix shape||[%lld, %lld]", (long long)rows, (long long)cols);
    TT_TRY(tt__new(out, 1, sizeof **out, "an operator", err));
    const int64_t units = (cols + TT_BITMASK_UNIT - 1) / TT_BITMASK_UNIT;
    **out = (bitmask_op){.op = {.v = &tt__linop_v_bitmask, .rows = rows, .cols = cols, .col_unit = TT_BITMASK_UNIT, .dtype = TT_DTYPE_COUNT}, .k = ctx->k,
                         .w = {.group = group, .rows = rows, .cols = cols, .units = units, .groups = (TT_BITMASK_UNIT * units + group - 1) / group}};
    return TT_OK;
}

/* Bits of block j of panel p that may be set. */
static uint64_t present(const tt_bitmask *w, int64_t p, int64_t block) {
    const int64_t rows = w->rows - p * TT_BITMASK_ROWS, cols = w->cols - 4 * block;
    const uint64_t row = cols >= 4 ? 15 : cols <= 0 ? 0 : (1u << cols) - 1;
    return row * (rows >= TT_BITMASK_ROWS ? 0x1111111111111111ull : 0x1111111111111111ull & ((1ull << 4 * rows) - 1));
}

static uint64_t longer(const uint64_t count[2]) { return count[0] > count[1] ? count[0] : count[1]; }

static tt_status check(const bitmask_op *s, tt_err *err) {
    const tt_bitmask *w = &s->w;
    const int64_t blocks = w->units * TT_BITMASK_BLOCKS;
    uint64_t at = 0;
    for (int64_t p = 0; p < panels_of(w->rows); p++) {
        uint64_t count[2] = {0, 0};
        TT_FAIL_IF(w->start[p] != at, err, TT_BADFILE, "panel starts elsewhere than its mask says|panel %lld|%llu|%llu", (long long)p, (unsigned long long)w->start[p],
                   (unsigned long long)at);
        for (int64_t j = 0; j < blocks; j++) {
            const uint64_t m = w->mask[p * blocks + j];
            TT_FAIL_IF(m & ~present(w, p, j), err, TT_BADFILE, "mask keeps weights that do not exist|panel %lld", (long long)p);
            count[j % 2] += (uint64_t)__builtin_popcountll(m);
        }
        at += longer(count);
    }
    TT_FAIL_IF(w->start[panels_of(w->rows)] != at || s->code_bytes != at + TT_BITMASK_TAIL, err, TT_BADFILE, "codes do not fit the mask||%llu bytes|%llu",
               (unsigned long long)s->code_bytes, (unsigned long long)(at + TT_BITMASK_TAIL));
    return tt__scales_check(w->scales, scale_count(w), err);
}

static tt_status load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    int bits, group;
    bitmask_op *s = NULL;
    const void *mask, *start, *scales;
    *out = NULL;
    TT_TRY(tt__params_parse(params, &bits, &group, err));
    TT_TRY(create(ctx, bits, group, rows, cols, &s, err));
    const tt_segment *codes = tt__segment_find(seg, n_seg, "codes");
    tt_status st;
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "mask", mask_count(&s->w), sizeof(uint64_t), &mask, err));
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "starts", (uint64_t)panels_of(rows) + 1, sizeof(uint64_t), &start, err));
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "scales", scale_count(&s->w), sizeof(uint16_t), &scales, err));
    if (codes) s->w.codes = codes->data, s->code_bytes = codes->bytes;
    s->w.mask = mask, s->w.start = start, s->w.scales = scales;
    TT_TRY_GOTO(check(s, err));
    *out = &s->op;
    return TT_OK;
done:
    release(&s->op);
    return st;
}

/* ------------------------------------------------------------ making ---- */

/* Masks of a panel: bit c of a row's words goes to bit 4 r + c % 4 of block c / 4. */
static void fill_masks(const tt__sparse_rows *from, const tt_bitmask *w, int64_t p, uint64_t *mask) {
    for (int64_t r = 0; r < TT_BITMASK_ROWS && p * TT_BITMASK_ROWS + r < w->rows; r++)
        for (int64_t u = 0; u < w->units; u++) {
            const uint64_t m = from->mask[(p * TT_BITMASK_ROWS + r) * w->units + u];
            for (int j = 0; j < TT_BITMASK_BLOCKS; j++) mask[u * TT_BITMASK_BLOCKS + j] |= (m >> 4 * j & 15) << 4 * r;
        }
}

/* n codes of a row, as they are stored here, to bytes; whole words are written. */
static void take_kept(const uint8_t *stream, int n, uint8_t out[64]) {
    const int bytes = (n + 1) / 2;
    for (int i = 0; i < bytes; i++) {
        const uint8_t two = stream[i] ^ 0x88;
        out[2 * i] = two & 15;
        out[2 * i + 1] = two >> 4;
    }
}

/* A unit's codes in the order of the streams: block by block, in each the 16 rows, of a row 0 to 4 codes. Models are opened while somebody waits, so
 * four bytes are copied whatever their number. */
static void order_unit(const uint64_t mask[16], const uint8_t kept[16][64 + 4], uint8_t stream[2][512 + 4], int n[2]) {
    static const uint8_t ones[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    uint8_t *at[2] = {stream[0], stream[1]}, from[16] = {0};
    for (int j = 0; j < TT_BITMASK_BLOCKS; j++) {
        uint8_t *out = at[j % 2];
        for (int r = 0; r < 16; r++) {
            const int count = ones[mask[r] >> 4 * j & 15];
            memcpy(out, kept[r] + from[r], 4);
            from[r] = (uint8_t)(from[r] + count);
            out += count;
        }
        at[j % 2] = out;
    }
    for (int k = 0; k < 2; k++) n[k] = (int)(at[k] - stream[k]);
}

static void fill_codes(const tt__sparse_rows *from, const tt_bitmask *w, int64_t p, uint8_t *out) {
    uint8_t kept[16][64 + 4] = {{0}}, stream[2][512 + 4];
    uint8_t *low = out, *high = out;
    const int rows = (int)(w->rows - p * 16 < 16 ? w->rows - p * 16 : 16);
    const uint8_t *row[16];
    for (int r = 0; r < rows; r++) row[r] = from->codes + from->start[p * 16 + r];
    for (int64_t u = 0; u < w->units; u++) {
        uint64_t mask[16] = {0};
        int n[2];
        for (int r = 0; r < rows; r++) {
            mask[r] = from->mask[(p * 16 + r) * w->units + u];
            const int count = __builtin_popcountll(mask[r]);
            take_kept(row[r], count, kept[r]);
            row[r] += tt__stream_bytes(4, count);
        }
        order_unit(mask, kept, stream, n);
        for (int i = 0; i < n[0]; i++) low[i] |= stream[0][i];
        for (int i = 0; i < n[1]; i++) high[i] |= (uint8_t)(stream[1][i] << 4);
        low += n[0], high += n[1];
    }
}

typedef struct fill_job { const tt__sparse_rows *from; const tt_bitmask *w; uint64_t *mask; uint8_t *codes; } fill_job;

static void mask_tile(void *arg, int64_t p, int worker) {
    const fill_job *j = arg;
    (void)worker;
    fill_masks(j->from, j->w, p, j->mask + p * j->w->units * TT_BITMASK_BLOCKS);
}

static void code_tile(void *arg, int64_t p, int worker) {
    const fill_job *j = arg;
    (void)worker;
    fill_codes(j->from, j->w, p, j->codes + j->w->start[p]);
}

static uint64_t panel_bytes(const uint64_t *mask, int64_t blocks) {
    uint64_t count[2] = {0, 0};
    for (int64_t j = 0; j < blocks; j++) count[j % 2] += (uint64_t)__builtin_popcountll(mask[j]);
    return longer(count);
}

tt_status tt__linop_bitmask(tt_ctx *ctx, const tt_linop *sparse, tt_linop **out, tt_err *err) {
    tt__sparse_rows from;
    bitmask_op *s = NULL;
    tt_status st;
    *out = NULL;
    TT_FAIL_IF(!tt__sparseq_rows(sparse, &from) || from.bits != 4, err, TT_TARGET, "operator has no panelled form||%s|sparseq with 4 bits", sparse->v->name);
    TT_TRY(create(ctx, from.bits, from.group, sparse->rows, sparse->cols, &s, err));
    tt_bitmask *w = &s->w;
    const int64_t panels = panels_of(w->rows), blocks = w->units * TT_BITMASK_BLOCKS, groups = (w->cols + w->group - 1) / w->group;
    size_t words = (size_t)mask_count(w) + (size_t)panels + 1, fixed = words * sizeof(uint64_t) + (size_t)scale_count(w) * sizeof(uint16_t);
    uint64_t *mask = NULL, at = 0;
    TT_TRY_GOTO(tt__new(&mask, 1, fixed, "a mask", err));
    s->op.owned = mask;
    fill_job job = {&from, w, mask, NULL};
    tt__parallel(ctx, panels, mask_tile, &job);
    for (int64_t p = 0; p < panels; p++) {
        mask[mask_count(w) + (uint64_t)p] = at;
        at += panel_bytes(mask + p * blocks, blocks);
    }
    mask[mask_count(w) + (uint64_t)panels] = at;
    s->code_bytes = at + TT_BITMASK_TAIL;
    uint8_t *all = tt__realloc(mask, fixed + (size_t)s->code_bytes);
    if (!all) {
        st = tt__fail(err, TT_RESOURCE, "out of memory|for packed codes|%llu bytes", (unsigned long long)s->code_bytes);
        goto done;
    }
    s->op.owned = all;
    memset(all + fixed, 0, (size_t)s->code_bytes);
    w->mask = (uint64_t *)(void *)all;
    w->start = w->mask + mask_count(w);
    w->codes = all + fixed;
    uint16_t *scales = (uint16_t *)(void *)(all + words * sizeof(uint64_t));
    w->scales = scales;
    for (int64_t r = 0; r < w->rows; r++)
        for (int64_t g = 0; g < groups; g++) scales[(r / 16 * w->groups + g) * 16 + r % 16] = from.scales[r * groups + g];
    job.codes = all + fixed;
    tt__parallel(ctx, panels, code_tile, &job);
    *out = &s->op;
    return TT_OK;
done:
    release(&s->op);
    return st;
}

/* ---- dense ---- */

static bool halves_exactly(const tt_bitmask *w) {
    for (uint64_t i = 0; i < scale_count(w); i++)
        if ((w->scales[i] & 0x7fff) < 0x0800 && w->scales[i] & 1) return false;
    return true;
}

typedef struct dense_job { tt_ctx *ctx; const tt_bitmask *w; uint8_t *codes; } dense_job;

static void dense_tile(void *arg, int64_t p, int worker) {
    const dense_job *j = arg;
    (void)worker;
    j->ctx->k->bitmask_expand(j->w, p, j->codes + p * j->w->units * 1024);
}

tt_status tt__linop_bitmask_dense(tt_ctx *ctx, const tt_linop *bitmask, tt_linop **out, tt_err *err) {
    const tt_bitmask *w = &((const bitmask_op *)bitmask)->w;
    const uint64_t codes = (uint64_t)(panels_of(w->rows) * w->units) * 1024, count = scale_count(w);
    uint8_t *mem = NULL;
    char params[64];
    *out = NULL;
    if (bitmask->v != &tt__linop_v_bitmask || !halves_exactly(w)) return TT_OK;
    TT_TRY(tt__new(&mem, 1, (size_t)(codes + count * sizeof(uint16_t)) + 63, "a dense matrix", err));
    uint8_t *at = (uint8_t *)(((uintptr_t)mem + 63) & ~(uintptr_t)63);
    uint16_t *scales = (uint16_t *)(void *)(at + codes);
    for (uint64_t i = 0; i < count; i++) scales[i] = tt__half_scale(w->scales[i]);
    tt__parallel(ctx, panels_of(w->rows), dense_tile, &(dense_job){ctx, w, at});
    snprintf(params, sizeof params, "bits=8,group=%d,grid=offset", w->group);
    const tt_segment seg[2] = {{"codes", at, codes}, {"scales", scales, count * sizeof(uint16_t)}};
    tt_status st = tt__linop_v_panel.load(ctx, params, w->rows, w->cols, seg, 2, out, err);
    if (st != TT_OK) tt__free(mem);
    else (*out)->owned = mem;
    return st;
}

const tt_linop_vtable tt__linop_v_bitmask = {.name = "bitmask", .decode = decode, .rowdot = rowdot, .batch = batch, .segments = segments, .load = load, .describe = describe,
                                             .free = release};
