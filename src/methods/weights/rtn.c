/* rtn: round to nearest. Each weight goes to the closest level of its group's grid; no data is needed (weights.md A1, A8).
 *
 *     symmetric    w ≈ d (q - off)      asymmetric    w ≈ d q + m       one 16-bit d (and m) per group
 *
 * With `type` the weights go into that standard GGUF type by its own search (for K types weighted least squares), with
 * `importance` weighted by the mean squared input of each column.
 *
 * Cost: b + 16/group bits per weight (asymmetric + 32/group). Memory-bound; a few seconds per 100 M weights.
 */
#include "methods/weights/grid.h"
#include <math.h>

static const tt_knob knobs[] = {
    {"type", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "none|Q4_0|Q4_1|Q5_0|Q5_1|Q8_0|Q2_K|Q3_K|Q4_K|Q5_K|Q6_K|IQ4_NL|F16|BF16|F32", "none", NULL,
     "standard GGUF type with its own search instead of bits and group"},
    {"importance", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "false", NULL, "weight the search by the mean squared inputs (needs calibration data)"},
    {"bits", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "2|3|4|5|8", "4", "type=none", "bits of a code"},
    {"group", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "32|64|128|row", "64", "type=none", "columns that share a scale"},
    {"sym", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "true", "type=none", "symmetric grid; false: scale and minimum"},
    {"search", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "none|range|full", "range", "type=none", "of the scale: none (nothing clips), range (the best of several), full (least squares and single codes)"},
    {"format", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "auto|gguf|own", "auto", "type=none", "storage: standard types where they fit, always, or never"},
};

static bool standard(const tt_knobs *k, tt_dtype *type) { return strcmp(tt__knob_s(k, "type"), "none") && tt__dtype_from_name(tt__knob_s(k, "type"), type); }

static unsigned wants(const tt_knobs *k) {
    return tt__knob_b(k, "importance") ? TT_WANT_SUMSQ : TT_WANT_NOTHING;
}

/* Into the type and back, so that a report sees the values that are stored. */
static tt_status into_type(tt_ctx *ctx, tt_dtype type, const float *importance, tt_draft *d, tt_err *err) {
    TT_FAIL_IF(d->bits || d->op, err, TT_USAGE, "matrix is quantized already|%s|||leave one of the quantizing methods out of the recipe", d->name);
    TT_FAIL_IF(d->cols % tt__dtype(type)->block, err, TT_TARGET, "type does not fit the tensor|%s|%lld columns|a multiple of %lld|use a type with blocks of 32",
               d->name, (long long)d->cols, (long long)tt__dtype(type)->block);
    TT_TRY(tt__linop_encode_weighted(ctx, type, d->W, importance, d->rows, d->cols, &d->op, err));
    tt__linop_rows(d->op, 0, d->rows, d->W);
    return TT_OK;
}

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    tt_dtype type;
    const float *importance = tt__knob_b(k, "importance") && s ? s->sumsq : NULL;
    if (standard(k, &type)) return into_type(ctx, type, importance, d, err);
    int stored, bits = (int)tt__knob_i(k, "bits");
    int64_t columns = tt__group_columns(k, d->cols, &stored);
    tt_grid grid = tt__grid_for(bits, tt__knob_b(k, "sym"), tt__search_of(k), d->keep, tt__knob_s(k, "format"));
    TT_TRY(tt__draft_quantize(d, bits, stored, grid.kind == TT_GRID_FREE, err));
    TT_TRY(tt__grid_fit_draft(ctx, &grid, columns, importance, d, err));
    tt__grid_round_draft(ctx, d);
    return TT_OK;
}

static const char *format(const tt_knobs *k) { return strcmp(tt__knob_s(k, "type"), "none") ? "gguf" : tt__knob_s(k, "format"); }

static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    (void)rows;
    tt_dtype type;
    if (standard(k, &type)) return 8.0 * (double)tt__dtype(type)->bytes / (double)tt__dtype(type)->block;
    return tt__grid_cost(k, cols, (int)tt__knob_i(k, "bits"), tt__knob_b(k, "sym"), 0, tt__knob_s(k, "format"));
}

static const tt_compress_vtable compress = {.wants = wants, .matrix = matrix, .format = format};
const tt_method tt__method_rtn = {
    .info = {.name = "rtn", .family = "weights", .title = "Round to nearest, by groups", .id = "baseline of arXiv 2210.17323", .year = 2022,
             .summary = "rounds every weight to the nearest level of its group: no data, seconds; the baseline of all quantizers", .version = 1,
             .stage = "compress", .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .cost_bits = cost_bits, .compress = &compress};
