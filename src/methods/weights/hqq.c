/* hqq: half-quadratic quantization. Without data, it moves the offset of each group so that the error is sparse: most weights are met
 * well, the few large ones may be missed (weights.md A6; Badri and Shaji 2023, mobiusml/hqq, optimize_weights_proximal).
 *
 *     q   = clamp(round(k w + z), 0, 2^b - 1)                      k = (2^b - 1) / (max - min), z = -k min at the start; w_r = (q - z) / k
 *     e'  = sign(e) max(0, |e| - |e|^(p-1) / beta)                 e = w - w_r: the shrinkage of the norm p < 1
 *     z   = mean over the group of  q - k (w - e')                 at most `iters` times, while the mean |e| of the group falls
 *
 * Departures: each group stops by itself and keeps its best z (the code stops when the whole matrix gets worse); the minimum -z/k and the scale
 * 1/k are rounded to 16 bits, as they are stored, before the codes are chosen. |e|^(p-1) at e = 0 is infinite: e' = 0 there.
 *
 * Stored as scale and minimum: Q4_1, Q5_1 or our group operator. Cost: b + 32/group bits per weight; seconds per 100 M weights.
 */
#include "methods/weights/grid.h"
#include <math.h>
#include <stdatomic.h>

enum { MAX_GROUP = 128 };

static const tt_knob knobs[] = {
    {"bits", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "2|3|4|5|8", "4", NULL, "bits of a code"},
    {"group", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "32|64|128", "64", NULL, "columns that share a scale and a minimum"},
    {"iters", TT_KNOB_INT, 0, 1000, TT_LINEAR, NULL, "20", NULL, "most steps of a group; 0: rounding between its smallest and largest weight"},
    {"p", TT_KNOB_REAL, 0.05, 1, TT_LINEAR, NULL, "0.7", NULL, "norm of the error; 1: absolute values"},
    {"beta", TT_KNOB_REAL, 0.01, 1e6, TT_LOG, NULL, "10", NULL, "weight of the quadratic part"},
    {"format", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "auto|gguf|own", "auto", NULL, "storage: standard types where they fit, always, or never"},
};

typedef float lane_row[TT_LANES];
typedef struct hqq_job { tt_draft *d; int iters; float p, beta; atomic_bool overflow; } hqq_job;

static float shrunk(float e, float p, float beta) {
    float a = fabsf(e), left = a > 0 ? a - powf(a, p - 1) / beta : 0;
    return left > 0 ? copysignf(left, e) : 0;
}

/* One lane of a group: the z of the least mean |e|. */
static float best_offset(const lane_row *x, int64_t n, int lane, float k, float z, float top_code, const hqq_job *j) {
    float best = z, least = INFINITY;
    for (int i = 0; i <= j->iters; i++) {
        float error = 0, sum = 0;
        for (int64_t c = 0; c < n; c++) {
            float w = x[c][lane], q = fminf(fmaxf(nearbyintf(k * w + z), 0), top_code), e = w - (q - z) / k;
            error += fabsf(e);
            sum += q - k * (w - shrunk(e, j->p, j->beta));
        }
        if (!(error < least)) break;
        least = error;
        best = z;
        z = sum / (float)n;
    }
    return best;
}

static void fit_group(hqq_job *j, const lane_row *x, int64_t n, tt_fit *fit) {
    float top_code = (float)((1 << j->d->bits) - 1);
    *fit = (tt_fit){.overflow = false};
    for (int l = 0; l < TT_LANES; l++) {
        float lo = INFINITY, hi = -INFINITY;
        for (int64_t c = 0; c < n; c++) lo = fminf(lo, x[c][l]), hi = fmaxf(hi, x[c][l]);
        float k = hi - lo > 0 ? top_code / (hi - lo) : 0, scale = k > 0 ? 1 / k : 0, min = lo;
        if (k > 0) min = -best_offset(x, n, l, k, -lo * k, top_code, j) * scale;
        fit->scale[l] = tt__f16_to_f32(tt__f32_to_f16(scale));
        fit->min[l] = tt__f16_to_f32(tt__f32_to_f16(min));
        fit->inv[l] = fit->scale[l] > 0 ? 1 / fit->scale[l] : 0;
        fit->overflow |= !isfinite(fit->scale[l]) || !isfinite(fit->min[l]);
    }
}

static void fit_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    hqq_job *j = arg;
    tt_draft *d = j->d;
    lane_row x[MAX_GROUP];
    int64_t r0 = tile * TT_LANES;
    for (int64_t c = 0; c < d->cols; c += d->group) {
        int64_t n = d->cols - c < d->group ? d->cols - c : d->group;
        tt_fit fit;
        tt__tile_load(d->W, d->cols, d->rows, r0, c, n, x);
        fit_group(j, (const lane_row *)x, n, &fit);
        if (fit.overflow) atomic_store(&j->overflow, true);
        tt__fit_store(d, r0, c / d->group, &fit);
    }
}

static tt_status applies(const tt_net *net, const tt_knobs *k, tt_err *err) {
    (void)net;
    int64_t bits = tt__knob_i(k, "bits");
    const char *format = tt__knob_s(k, "format");
    TT_FAIL_IF(!strcmp(format, "own") && bits == 5, err, TT_USAGE, "our group operator has no codes of 5 bits|hqq, format|own|2, 3, 4 or 8 bits");
    TT_FAIL_IF(!strcmp(format, "gguf") && bits != 4 && bits != 5, err, TT_USAGE, "no standard type holds these codes|hqq, format|gguf with %lld bits|4 or 5", (long long)bits);
    return TT_OK;
}

static unsigned wants(const tt_knobs *k) {
    (void)k;
    return TT_WANT_NOTHING;
}

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    (void)s;
    TT_FAIL_IF(d->keep, err, TT_USAGE, "hqq moves zero, which a mask needs|%s|||round pruned weights with rtn or gptq", d->name);
    hqq_job j = {.d = d, .iters = (int)tt__knob_i(k, "iters"), .p = (float)tt__knob_f(k, "p"), .beta = (float)tt__knob_f(k, "beta")};
    TT_TRY(tt__draft_quantize(d, (int)tt__knob_i(k, "bits"), (int)tt__knob_i(k, "group"), true, err));
    tt__parallel(ctx, (d->rows + TT_LANES - 1) / TT_LANES, fit_tile, &j);
    if (atomic_load(&j.overflow)) return tt__fit_overflow(d, err);
    tt__grid_round_draft(ctx, d);
    return TT_OK;
}

static const char *format(const tt_knobs *k) { return tt__knob_s(k, "format"); }

static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    (void)rows;
    return tt__grid_cost(k, cols, (int)tt__knob_i(k, "bits"), false, 0, tt__knob_s(k, "format"));
}

static const tt_compress_vtable compress = {.wants = wants, .matrix = matrix, .format = format};
const tt_method tt__method_hqq = {
    .info = {.name = "hqq", .family = "weights", .title = "Half-Quadratic Quantization of Large Machine Learning Models", .id = "Mobius Labs, 2023", .year = 2023,
             .summary = "rounds without data, each group's offset moved so that most weights are met well and few badly", .version = 1, .stage = "compress",
             .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .applies = applies, .cost_bits = cost_bits, .compress = &compress};
