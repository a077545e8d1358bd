/* trellis: columns as trellis codes (kernels/trellis.h has the code), the least bytes for a loss that we know how to make. A weight costs its
 * column's rate k in bits, whatever the shape of the matrix; rates may differ between columns, so the mean may be any number.
 *
 *     params    states=12,tile=192,group=0,turn=0      group 0: the whole row shares a scale; turn: see below
 *     rates     u4  [cols]                 bits of a weight of each column, two to a byte, low half first; 0 to 6
 *     codes     u8  by columns, by tiles of rows; 0 bits take no bytes
 *     scales    f16 [groups][padded]       padded: rows up to a multiple of 16
 *     gains     f16 [cols]
 *     signs     u1  [cols]                 of turned columns only: 1 is minus
 *
 *     w'[r, c] = scales[c / group][r] * gains[c] * value(window)
 *     w [r, :] = w'[r, :] with every `turn` columns turned back:  w = S H^T w' / sqrt(turn)      (H: kernels/hadamard.h, S: the signs)
 *
 * Bits per weight: mean rate + 16/group (or 16/cols) + 20/rows (+ 1/rows). Turning makes the weights of a row normal, which is what the code
 * is made for; it is undone where weights are decoded, so nobody else needs to know.
 *
 * Scales and gains train (train.c).
 *
 * It is the size champion and runs by decoding: few instructions a weight, but as many at 2 bits as at 4.
 */
#include "linop/trellis.h"

#include "base/checked.h"
#include "base/util.h"
#include "kernels/hadamard.h"
#include "linop/codes.h"
#include <math.h>
#include <stdio.h>

enum { STRIP = TT_TRELLIS_LANES, CHUNK = 64 };

typedef struct trellis_op {
    tt_linop op;
    const tt_kernels *k;
    tt_trellis w;
    int group, turn;                                  /* as in params */
    const uint8_t *packed_rates, *signs;
    uint8_t *rates;
    int64_t *start;
    float *master;                                    /* of a trainable copy: scales [rows][groups], gains [cols]; scales and gains of w are its own then */
    const uint16_t *ones;                             /* f16 [padded or cols, the larger], of a trainable copy */
} trellis_op;

static int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
static int64_t groups_of(const tt_trellis *w) { return (w->cols + w->group - 1) / w->group; }
static uint64_t scale_count(const tt_trellis *w) { return (uint64_t)(groups_of(w) * w->padded); }

/* ------------------------------------------------------------ decoding ---- */

/* Columns [n][16] of a strip to the rows r0 … r1 of it, `from` columns on: out [r1 - r0, count]. */
static void put_strip(const tt_kernels *k, const float *lanes, int64_t from, int64_t count, int64_t r0, int64_t r1, float *out, int64_t ld) {
    float rows[STRIP * CHUNK];
    for (int64_t c = 0; c < count; c += CHUNK) {
        const int n = (int)(count - c < CHUNK ? count - c : CHUNK);
        k->pack_rows(rows, lanes + (from + c) * STRIP, STRIP, n, STRIP, CHUNK);
        for (int64_t r = r0; r < r1; r++) memcpy(out + (r - r0) * ld + c, rows + r % STRIP * CHUNK, (size_t)n * sizeof *out);
    }
}

/* Lanes of a block times its signs and 1 / sqrt(turn). */
static void put_signs(const trellis_op *t, int64_t block, float *lanes) {
    const float norm = 1.0f / sqrtf((float)t->turn);
    for (int64_t c = 0; c < t->turn; c++) {
        const int64_t column = block * t->turn + c;
        const float sign = t->signs[column / 8] >> column % 8 & 1 ? -norm : norm;
        for (int l = 0; l < STRIP; l++) lanes[c * STRIP + l] = lanes[c * STRIP + l] * sign + 0.0f;      /* no -0 */
    }
}

static void turn_back(const trellis_op *t, int64_t block, float *lanes) {
    t->k->hadamard_lanes(lanes, t->turn, 1);
    put_signs(t, block, lanes);
}

/* Rows r0 … r1 of one strip. */
static void decode_strip(const trellis_op *t, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    float lanes[TT_HADAMARD_MOST * STRIP];
    const int64_t step = t->turn ? t->turn : CHUNK, strip = r0 / STRIP * STRIP;
    for (int64_t c = c0, end; c < c1; c = end) {
        const int64_t first = t->turn ? c / step * step : c, last = first + step < t->op.cols ? first + step : t->op.cols;
        end = last < c1 ? last : c1;
        t->k->trellis_decode(&t->w, strip, first, t->turn ? last : end, lanes);
        if (t->turn) turn_back(t, first / step, lanes);
        put_strip(t->k, lanes, c - first, end - c, r0, r1, out + c - c0, ld);
    }
}

static void decode(const tt_linop *op, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    for (int64_t r = r0, end; r < r1; r = end) {
        end = (r / STRIP + 1) * STRIP < r1 ? (r / STRIP + 1) * STRIP : r1;
        decode_strip((const trellis_op *)op, r, end, c0, c1, out + (r - r0) * ld, ld);
    }
}

/* ------------------------------------------------------------ state ---- */

static int segments(const tt_linop *op, tt_segment out[8]) {
    const trellis_op *t = (const trellis_op *)op;
    int n = 0;
    out[n++] = (tt_segment){"rates", t->packed_rates, (uint64_t)(op->cols + 1) / 2};
    if (t->start[op->cols]) out[n++] = (tt_segment){"codes", t->w.codes, (uint64_t)t->start[op->cols]};
    out[n++] = (tt_segment){"scales", t->w.scales, scale_count(&t->w) * sizeof(uint16_t)};
    out[n++] = (tt_segment){"gains", t->w.gains, (uint64_t)op->cols * sizeof(uint16_t)};
    if (t->turn) out[n++] = (tt_segment){"signs", t->signs, (uint64_t)(op->cols + 7) / 8};
    return n;
}

static void write_params(int states, int tile, int group, int turn, char *buf, size_t n) {
    snprintf(buf, n, "states=%d,tile=%d,group=%d,turn=%d", states, tile, group, turn);
}

static void describe(const tt_linop *op, char *buf, size_t n) {
    const trellis_op *t = (const trellis_op *)op;
    write_params(t->w.states, t->w.tile, t->group, t->turn, buf, n);
}

static void release(tt_linop *op) {
    trellis_op *t = (trellis_op *)op;
    tt__free(t->rates);
    tt__free(t->start);
    tt__free(op->owned);
    tt__free(op);
}

static tt_status check_form(const tt_trellis_form *f, int64_t rows, int64_t cols, tt_err *err) {
    uint64_t weights;
    TT_FAIL_IF(rows < 1 || cols < 1 || !tt__mul_u64((uint64_t)rows + 16, (uint64_t)cols, &weights) || weights > (uint64_t)INT64_MAX / 64, err, TT_BADFILE,
               "bad matrix shape||[%lld, %lld]", (long long)rows, (long long)cols);
    TT_FAIL_IF(f->states < TT_TRELLIS_LEAST_STATES || f->states > TT_TRELLIS_MOST_STATES || f->tile < STRIP || f->tile > TT_TRELLIS_MOST_TILE || f->tile % STRIP ||
                   (f->group != 0 && f->group != 32 && f->group != 64 && f->group != 128),
               err, TT_BADFILE, "unsupported trellis operator||states=%d, tile=%d, group=%d|states 10 to 16; tiles of 16 to 256, in sixteens; groups of 0, 32, 64, 128",
               f->states, f->tile, f->group);
    TT_FAIL_IF(f->turn && (f->turn < 2 || cols % f->turn || !tt__hadamard_exists(f->turn)), err, TT_BADFILE, "no such turn of the columns||%d|a divisor of %lld that is a product of 12, 20, 28 and 2, at most %d",
               f->turn, (long long)cols, TT_HADAMARD_MOST);
    return TT_OK;
}

static tt_status create(tt_ctx *ctx, const tt_trellis_form *f, int64_t rows, int64_t cols, trellis_op **out, tt_err *err) {
    tt_status st;
    TT_TRY(check_form(f, rows, cols, err));
    TT_TRY(tt__new(out, 1, sizeof **out, "an operator", err));
    trellis_op *t = *out;
    *t = (trellis_op){.op = {.v = &tt__linop_v_trellis, .rows = rows, .cols = cols, .col_unit = CHUNK, .dtype = TT_DTYPE_COUNT}, .k = ctx->k, .group = f->group, .turn = f->turn,
                      .w = {.states = f->states, .tile = f->tile, .group = f->group ? f->group : cols, .rows = rows, .padded = round_up(rows, STRIP), .cols = cols}};
    TT_TRY_GOTO(tt__new(&t->rates, (size_t)cols, 1, "rates of columns", err));
    TT_TRY_GOTO(tt__new(&t->start, (size_t)cols + 1, sizeof *t->start, "places of columns", err));
    t->w.rates = t->rates, t->w.start = t->start;
    return TT_OK;
done:
    release(&t->op);
    *out = NULL;
    return st;
}

static void place_columns(trellis_op *t) {
    for (int64_t c = 0; c < t->op.cols; c++) t->start[c + 1] = t->start[c] + t->w.padded / 8 * t->rates[c];
}

static tt_status unpack_rates(trellis_op *t, const uint8_t *packed, tt_err *err) {
    for (int64_t c = 0; c < t->op.cols; c++) {
        t->rates[c] = packed[c / 2] >> c % 2 * 4 & 15;
        TT_FAIL_IF(t->rates[c] > TT_TRELLIS_MOST_BITS, err, TT_BADFILE, "rate of a column is too high|column %lld|%d|at most %d", (long long)c, t->rates[c], TT_TRELLIS_MOST_BITS);
    }
    TT_FAIL_IF(t->op.cols % 2 && packed[t->op.cols / 2] >> 4, err, TT_BADFILE, "rates go on beyond the last column");
    t->packed_rates = packed;
    place_columns(t);
    return TT_OK;
}

/* Finite and not negative. */
static tt_status check_positive(const uint16_t *h, uint64_t n, const char *what, tt_err *err) {
    for (uint64_t i = 0; i < n; i++)
        TT_FAIL_IF(h[i] >= 0x7c00, err, TT_BADFILE, "scale is not a finite positive number|%s|element %llu", what, (unsigned long long)i);
    return TT_OK;
}

/* What write_params writes, and nothing else. */
static bool parse(const char *params, tt_trellis_form *f) {
    static const char *const words[] = {"states=", ",tile=", ",group=", ",turn="};
    int *const number[] = {&f->states, &f->tile, &f->group, &f->turn};
    char again[96];
    const char *at = params;
    for (int i = 0; i < 4; i++) {
        const size_t n = strlen(words[i]);
        if (strncmp(at, words[i], n) != 0) return false;
        at += n;
        if (!tt__scan_int(&at, TT_HADAMARD_MOST, number[i])) return false;
    }
    write_params(f->states, f->tile, f->group, f->turn, again, sizeof again);
    return !strcmp(params, again);
}

static tt_status load(tt_ctx *ctx, const char *params, int64_t rows, int64_t cols, const tt_segment *seg, int n_seg, tt_linop **out, tt_err *err) {
    trellis_op *t = NULL;
    tt_trellis_form f;
    const void *rates, *codes = NULL, *scales, *gains, *signs = NULL;
    *out = NULL;
    TT_FAIL_IF(!parse(params, &f), err, TT_BADFILE, "unknown operator parameters||%s|states=L,tile=R,group=G,turn=T", params);
    TT_TRY(create(ctx, &f, rows, cols, &t, err));
    tt_status st;
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "rates", (uint64_t)(cols + 1) / 2, 1, &rates, err));
    TT_TRY_GOTO(unpack_rates(t, rates, err));
    if (t->start[cols] || tt__segment_find(seg, n_seg, "codes")) TT_TRY_GOTO(tt__segment_get(seg, n_seg, "codes", (uint64_t)t->start[cols], 1, &codes, err));
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "scales", scale_count(&t->w), sizeof(uint16_t), &scales, err));
    TT_TRY_GOTO(tt__segment_get(seg, n_seg, "gains", (uint64_t)cols, sizeof(uint16_t), &gains, err));
    if (f.turn) TT_TRY_GOTO(tt__segment_get(seg, n_seg, "signs", (uint64_t)(cols + 7) / 8, 1, &signs, err));
    TT_TRY_GOTO(check_positive(scales, scale_count(&t->w), "scales", err));
    TT_TRY_GOTO(check_positive(gains, (uint64_t)cols, "gains", err));
    t->w.codes = codes, t->w.scales = scales, t->w.gains = gains, t->signs = signs;
    *out = &t->op;
    return TT_OK;
done:
    release(&t->op);
    return st;
}

/* ------------------------------------------------------------ making ---- */

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

tt_status tt__linop_trellis(tt_ctx *ctx, const tt_trellis_form *f, const uint8_t *rates, const uint8_t *codes, const uint16_t *scales, const uint16_t *gains,
                            const uint8_t *signs, int64_t rows, int64_t cols, tt_linop **out, tt_err *err) {
    trellis_op *t = NULL;
    uint8_t *mem = NULL;
    tt_status st;
    *out = NULL;
    TT_TRY(create(ctx, f, rows, cols, &t, err));
    memcpy(t->rates, rates, (size_t)cols);
    place_columns(t);
    const size_t n_codes = align64((size_t)t->start[cols]), n_scales = align64(scale_count(&t->w) * 2), n_gains = align64((size_t)cols * 2), n_rates = align64((size_t)cols);
    TT_TRY_GOTO(tt__new(&mem, n_codes + n_scales + n_gains + 2 * n_rates, 1, "trellis codes", err));
    t->op.owned = mem;
    t->w.codes = memcpy(mem, codes, (size_t)t->start[cols]), mem += n_codes;
    t->w.scales = memcpy(mem, scales, scale_count(&t->w) * 2), mem += n_scales;
    t->w.gains = memcpy(mem, gains, (size_t)cols * 2), mem += n_gains;
    for (int64_t c = 0; c < cols; c++) mem[c / 2] |= (uint8_t)(rates[c] << c % 2 * 4);
    t->packed_rates = mem, mem += n_rates;
    if (f->turn) t->signs = memcpy(mem, signs, (size_t)(cols + 7) / 8);
    *out = &t->op;
    return TT_OK;
done:
    release(&t->op);
    return st;
}

/* ------------------------------------------------------------ training ----
 * The scales of the rows and the gains of the columns. With v the values of the windows and dW' the gradient of what was not yet turned back,
 *
 *     dW' = H S dW / sqrt(turn)       ds[g, r] += Σ_{c in g} dW'[r, c] gain[c] v[r, c]        dgain[c] += Σ_r dW'[r, c] s[g, r] v[r, c]
 */

static int params(tt_linop *op, tt_param out[TT_MAX_PARAMS]) {
    const trellis_op *t = (const trellis_op *)op;
    const int64_t groups = groups_of(&t->w);
    if (!t->master) return 0;
    out[0] = (tt_param){"scales", t->master, op->rows * groups, groups, t->w.group};
    out[1] = (tt_param){"gains", t->master + op->rows * groups, op->cols, 0, 1};
    return 2;
}

/* Neither is negative: the sign belongs to the code. */
static tt_status round_positive(float *x, uint16_t *out, tt_err *err) {
    if (*x < 0) *x = 0;
    return tt__round_master(x, out, err);
}

static tt_status changed(tt_ctx *ctx, tt_linop *op, tt_err *err) {
    const trellis_op *t = (const trellis_op *)op;
    const int64_t groups = groups_of(&t->w);
    uint16_t *scales = (uint16_t *)(uintptr_t)t->w.scales, *gains = (uint16_t *)(uintptr_t)t->w.gains;
    (void)ctx;
    for (int64_t r = 0; r < op->rows; r++)
        for (int64_t g = 0; g < groups; g++) TT_TRY(round_positive(&t->master[r * groups + g], &scales[g * t->w.padded + r], err));
    for (int64_t c = 0; c < op->cols; c++) TT_TRY(round_positive(&t->master[op->rows * groups + c], &gains[c], err));
    return TT_OK;
}

static tt_status trainable(tt_ctx *ctx, const tt_linop *op, tt_linop **out, tt_err *err) {
    const trellis_op *from = (const trellis_op *)op;
    const tt_trellis_form form = {from->w.states, from->w.tile, from->group, from->turn};
    const int64_t groups = groups_of(&from->w), n_masters = op->rows * groups + op->cols, n_scales = groups * from->w.padded;
    const int64_t n_ones = from->w.padded > op->cols ? from->w.padded : op->cols;
    trellis_op *t = NULL;
    uint16_t *half = NULL;
    tt_status st;
    *out = NULL;
    TT_TRY(create(ctx, &form, op->rows, op->cols, &t, err));
    TT_TRY_GOTO(tt__new(&t->master, (size_t)n_masters * sizeof(float) + (size_t)(n_scales + op->cols + n_ones) * sizeof(uint16_t), 1, "scales that train", err));
    t->op.owned = t->master;
    half = (uint16_t *)(void *)(t->master + n_masters);
    memcpy(t->rates, from->rates, (size_t)op->cols);
    place_columns(t);
    t->packed_rates = from->packed_rates, t->signs = from->signs, t->w.codes = from->w.codes;
    t->w.scales = memcpy(half, from->w.scales, (size_t)n_scales * sizeof *half);
    t->w.gains = memcpy(half + n_scales, from->w.gains, (size_t)op->cols * sizeof *half);
    for (int64_t i = 0; i < n_ones; i++) half[n_scales + op->cols + i] = 0x3c00;
    t->ones = half + n_scales + op->cols;
    for (int64_t r = 0; r < op->rows; r++)
        for (int64_t g = 0; g < groups; g++) t->master[r * groups + g] = tt__f16_to_f32(t->w.scales[g * t->w.padded + r]);
    for (int64_t c = 0; c < op->cols; c++) t->master[op->rows * groups + c] = tt__f16_to_f32(t->w.gains[c]);
    *out = &t->op;
    return TT_OK;
done:
    release(&t->op);
    return st;
}

/* Rows of one strip, each in its own lane: lanes [n][16], and 16 more that may be written. pack_rows fills up with zeros. */
static void take_strip(const trellis_op *t, const float *dW, int64_t lane, int64_t rows, int64_t n, float *lanes) {
    memset(lanes, 0, STRIP * sizeof *lanes);
    t->k->pack_rows(lanes + lane, dW, t->op.cols, (int)rows, n, STRIP);
}

static void turn_gradient(const trellis_op *t, int64_t block, float *lanes) {
    put_signs(t, block, lanes);
    t->k->hadamard_lanes(lanes, t->turn, 0);
}

static void reduce(const tt_linop *op, int64_t r0, int64_t r1, float *dW, float *const grad[TT_MAX_PARAMS], float *room) {
    const trellis_op *t = (const trellis_op *)op;
    const int64_t step = t->turn ? t->turn : CHUNK, groups = groups_of(&t->w), strip = r0 / STRIP * STRIP;
    float *lanes = room, *value = room + (TT_HADAMARD_MOST + 1) * STRIP, sum[STRIP] = {0}, scale[STRIP];
    tt_trellis bare = t->w;
    bare.scales = bare.gains = t->ones, bare.group = op->cols;
    for (int64_t c0 = 0; c0 < op->cols; c0 += step) {
        const int64_t n = op->cols - c0 < step ? op->cols - c0 : step;
        take_strip(t, dW + c0, r0 - strip, r1 - r0, n, lanes);
        if (t->turn) turn_gradient(t, c0 / step, lanes);
        t->k->trellis_decode(&bare, strip, c0, c0 + n, value);
        for (int64_t c = c0; c < c0 + n; c++) {
            const int64_t g = c / t->w.group;
            const float gain = tt__f16_to_f32(t->w.gains[c]);
            float part[STRIP], *d = lanes + (c - c0) * STRIP;
            const float *v = value + (c - c0) * STRIP;
            if (c == 0 || c % t->w.group == 0)
                for (int l = 0; l < STRIP; l++) scale[l] = tt__f16_to_f32(t->w.scales[g * t->w.padded + strip + l]);
            for (int l = 0; l < STRIP; l++) d[l] *= v[l];
            for (int l = 0; l < STRIP; l++) sum[l] += gain * d[l];
            for (int l = 0; l < STRIP; l++) part[l] = scale[l] * d[l];
            for (int w = STRIP / 2; w; w /= 2)
                for (int l = 0; l < w; l++) part[l] += part[l + w];
            dW[c] = part[0];
            if ((c + 1) % t->w.group && c + 1 < op->cols) continue;
            for (int64_t r = r0; r < r1 && grad[0]; r++) grad[0][r * groups + g] += sum[r - strip];
            memset(sum, 0, sizeof sum);
        }
    }
}

const tt_linop_vtable tt__linop_v_trellis = {.name = "trellis", .decode = decode, .segments = segments, .load = load, .describe = describe, .free = release,
                                             .trainable = trainable, .params = params, .changed = changed, .reduce = reduce};
