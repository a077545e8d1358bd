/* The operator trellis: what is decoded is what the formula says, whole or in parts, turned or not; state survives; hostile state is refused. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "kernels/hadamard.h"
#include "linop/trellis.h"

typedef struct sample { tt_trellis_form form; int64_t rows, cols, padded; uint8_t *rates, *codes, *signs; uint16_t *scales, *gains; float *W; int64_t n_codes; } sample;

/* W = W' H S / sqrt(n) by definition, a column at a time: w'[r, :] against column c of H. */
static void turn_back(sample *s, const float *turned) {
    const int n = s->form.turn;
    float *h = tt__alloc((size_t)n * 16 * sizeof *h);
    const tt_kernels *k = NULL;
    tt_err err = {0};
    TT_CHECK_OK(tt__kernels_get("scalar", &k, &err));
    for (int64_t c = 0; c < s->cols; c++) {
        memset(h, 0, (size_t)n * 16 * sizeof *h);
        h[c % n * 16] = 1;
        k->hadamard_lanes(h, n, 0);
        for (int64_t r = 0; r < s->rows; r++) {
            double sum = 0;
            for (int i = 0; i < n; i++) sum += (double)turned[r * s->cols + c / n * n + i] * (double)h[i * 16];
            s->W[r * s->cols + c] = (float)(sum / sqrt(n) * (s->signs[c / 8] >> c % 8 & 1 ? -1 : 1));
        }
    }
    tt__free(h);
}

static sample make(tt_trellis_form form, int64_t rows, int64_t cols) {
    const int64_t padded = (rows + 15) / 16 * 16, group = form.group ? form.group : cols, groups = (cols + group - 1) / group;
    sample s = {form, rows, cols, padded, tt__calloc((size_t)cols, 1), NULL, tt__calloc((size_t)cols, 1), tt__calloc((size_t)(groups * padded), 2), tt__calloc((size_t)cols, 2),
                tt__calloc((size_t)(rows * cols), 4), 0};
    float *turned = tt__calloc((size_t)(rows * cols), 4);
    tt__rng r;
    tt__rng_seed(&r, 7);
    for (int64_t c = 0; c < cols; c++) {
        s.rates[c] = (uint8_t)tt__rng_below(&r, 7);
        s.n_codes += padded / 8 * s.rates[c];
        s.gains[c] = tt__f32_to_f16((float)(0.02 + 0.01 * tt__rng_unit(&r)));
        s.signs[c / 8] |= (uint8_t)(tt__rng_below(&r, 2) << c % 8);
    }
    for (int64_t i = 0; i < groups * padded; i++) s.scales[i] = tt__f32_to_f16((float)(0.5 + tt__rng_unit(&r)));
    s.codes = tt__alloc((size_t)s.n_codes);
    for (int64_t i = 0; i < s.n_codes; i++) s.codes[i] = (uint8_t)tt__rng_below(&r, 256);
    const uint8_t *at = s.codes;
    for (int64_t c = 0; c < cols; c++)
        for (int64_t t = 0; t < padded; t += form.tile) {
            const int64_t n = padded - t < form.tile ? padded - t : form.tile;
            for (int64_t i = 0; i < n && t + i < rows && s.rates[c]; i++)
                turned[(t + i) * cols + c] = tt__f16_to_f32(s.scales[c / group * padded + t + i]) * tt__f16_to_f32(s.gains[c]) *
                                             (float)tt__trellis_value(tt__trellis_window(at, n, s.rates[c], form.states, i));
            at += n * s.rates[c] / 8;
        }
    if (form.turn) turn_back(&s, turned);
    else memcpy(s.W, turned, (size_t)(rows * cols) * sizeof *turned);
    tt__free(turned);
    return s;
}

static void done(sample *s) {
    void *const all[] = {s->rates, s->codes, s->signs, s->scales, s->gains, s->W};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tt__free(all[i]);
}

static tt_linop *operator_of(tt_ctx *ctx, const sample *s) {
    tt_linop *op;
    tt_err err = {0};
    TT_CHECK_OK(tt__linop_trellis(ctx, &s->form, s->rates, s->codes, s->scales, s->gains, s->form.turn ? s->signs : NULL, s->rows, s->cols, &op, &err));
    return op;
}

static void check_decode(const sample *s, const tt_linop *op) {
    const double tolerance = s->form.turn ? 1e-5 * sqrt((double)s->form.turn) : 0;
    float *out = tt__alloc((size_t)(s->rows * s->cols) * 4);
    tt__linop_rows(op, 0, s->rows, out);
    for (int64_t i = 0; i < s->rows * s->cols; i++) TT_CHECK_NEAR(out[i], s->W[i], tolerance);
    for (int64_t r0 = 0; r0 < s->rows; r0 += 7)
        for (int64_t c0 = 0; c0 < s->cols; c0 += 64) {
            const int64_t r1 = r0 + 9 < s->rows ? r0 + 9 : s->rows, c1 = c0 + 64 < s->cols ? c0 + 64 : s->cols;
            float part[9 * 64];
            op->v->decode(op, r0, r1, c0, c1, part, 64);
            for (int64_t r = r0; r < r1; r++) TT_CHECK(!memcmp(part + (r - r0) * 64, out + r * s->cols + c0, (size_t)(c1 - c0) * 4));
        }
    tt__free(out);
}

static const struct { tt_trellis_form form; int64_t rows, cols; } shapes[] = {
    {{12, 192, 0, 0}, 192, 70}, {{12, 192, 32, 0}, 20, 65}, {{16, 256, 64, 0}, 300, 130}, {{10, 64, 128, 12}, 37, 144}, {{12, 192, 0, 576}, 16, 576}, {{14, 48, 0, 64}, 50, 192}, {{12, 16, 0, 0}, 1, 1}};

TT_CASE(decodes_what_the_formula_says) {
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt_ctx *ctx = tt_test_ctx(1, *isa);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            sample s = make(shapes[i].form, shapes[i].rows, shapes[i].cols);
            tt_test_note("%s, shape %zu", *isa, i);
            tt_linop *op = operator_of(ctx, &s);
            check_decode(&s, op);
            tt__linop_free(op);
            done(&s);
        }
    }
}

TT_CASE(products_go_by_the_decoded_weights) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tt_err err = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        sample s = make(shapes[i].form, shapes[i].rows, shapes[i].cols);
        tt_linop *op = operator_of(ctx, &s);
        TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_scratch(ctx, op), &err));
        for (int64_t T = 1; T <= 20; T += 19) {
            float *x = tt__alloc((size_t)(T * s.cols) * 4), *y = tt__alloc((size_t)(T * s.rows) * 4);
            void *ws = tt__alloc(tt__act_bytes(T, s.cols));
            for (int64_t c = 0; c < T * s.cols; c++) x[c] = (float)(c % 13) - 6;
            for (int fast = 0; fast < 2; fast++) {
                tt_act act;
                tt__act_prepare(ctx, &act, x, s.cols, T, s.cols, fast, ws);
                tt__linop_apply(ctx, op, &act, y, s.rows);
                for (int64_t t = 0; t < T; t++)
                    for (int64_t r = 0; r < s.rows; r++) {
                        double sum = 0, bound = 0;
                        for (int64_t c = 0; c < s.cols; c++) sum += (double)x[t * s.cols + c] * (double)s.W[r * s.cols + c], bound += fabs((double)s.W[r * s.cols + c]);
                        TT_CHECK_NEAR(y[t * s.rows + r], sum, (fast ? 0.06 : 1e-4) * (bound + 1));
                    }
            }
            tt__free(x), tt__free(y), tt__free(ws);
        }
        tt__linop_free(op);
        done(&s);
    }
}

TT_CASE(state_goes_round) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        sample s = make(shapes[i].form, shapes[i].rows, shapes[i].cols);
        tt_linop *op = operator_of(ctx, &s), *again;
        tt_segment seg[8];
        char params[96];
        const int n = op->v->segments(op, seg);
        op->v->describe(op, params, sizeof params);
        TT_CHECK_OK(op->v->load(ctx, params, s.rows, s.cols, seg, n, &again, &err));
        check_decode(&s, again);
        TT_CHECK_EQ(tt__linop_bytes(op), tt__linop_bytes(again));
        tt__linop_free(again);
        for (int j = 0; j < n; j++) {                                          /* a byte too few, and none */
            tt_segment cut[8];
            memcpy(cut, seg, sizeof cut);
            cut[j].bytes--;
            TT_CHECK_EQ(op->v->load(ctx, params, s.rows, s.cols, cut, n, &again, &err), TT_BADFILE);
            cut[j].name = "other";
            if (strcmp(seg[j].name, "codes") || seg[j].bytes) TT_CHECK_EQ(op->v->load(ctx, params, s.rows, s.cols, cut, n, &again, &err), TT_BADFILE);
        }
        tt__linop_free(op);
        done(&s);
    }
}

TT_CASE(hostile_state) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    static const char *const params[] = {"", "states=12", "states=9,tile=192,group=0,turn=0", "states=17,tile=192,group=0,turn=0", "states=12,tile=0,group=0,turn=0",
        "states=12,tile=24,group=0,turn=0", "states=12,tile=272,group=0,turn=0", "states=12,tile=192,group=48,turn=0", "states=12,tile=192,group=-32,turn=0",
        "states=12,tile=192,group=0,turn=3", "states=12,tile=192,group=0,turn=-64", "states=12,tile=192,group=0,turn=128", "states=012,tile=192,group=0,turn=0",
        "states=12,tile=192,group=0,turn=0,x", "states=12,tile=192,group=0,turn=99999999999999999999"};
    sample s = make((tt_trellis_form){12, 192, 0, 64}, 20, 65 - 1);
    tt_linop *op = operator_of(ctx, &s), *bad;
    tt_segment seg[8];
    const int n = op->v->segments(op, seg);
    for (size_t i = 0; i < sizeof params / sizeof *params; i++) {
        tt_test_note("%s", params[i]);
        TT_CHECK_EQ(op->v->load(ctx, params[i], s.rows, s.cols, seg, n, &bad, &err), TT_BADFILE);
        TT_CHECK(!bad);
    }
    const char *good = "states=12,tile=192,group=0,turn=64";
    TT_CHECK_EQ(op->v->load(ctx, good, INT64_MAX / 2, s.cols, seg, n, &bad, &err), TT_BADFILE);
    TT_CHECK_EQ(op->v->load(ctx, good, s.rows, -1, seg, n, &bad, &err), TT_BADFILE);
    TT_CHECK_EQ(op->v->load(ctx, good, s.rows, s.cols, seg, 0, &bad, &err), TT_BADFILE);
    static const uint16_t odd[] = {0x7c00, 0x7e01, 0x8000, 0xbc00};
    for (size_t i = 0; i < 4; i++) {                                            /* infinite, NaN, negative */
        uint16_t scales[32], gains[64];
        for (int j = 0; j < n; j++) {
            tt_segment with[8];
            memcpy(with, seg, sizeof with);
            if (!strcmp(seg[j].name, "scales")) memcpy(scales, seg[j].data, sizeof scales), scales[19] = odd[i], with[j].data = scales;
            else if (!strcmp(seg[j].name, "gains")) memcpy(gains, seg[j].data, sizeof gains), gains[63] = odd[i], with[j].data = gains;
            else continue;
            TT_CHECK_EQ(op->v->load(ctx, good, s.rows, s.cols, with, n, &bad, &err), TT_BADFILE);
        }
    }
    uint8_t rates[32];
    memcpy(rates, seg[0].data, sizeof rates);
    for (int r = 7; r < 16; r++) {
        rates[5] = (uint8_t)r;
        seg[0].data = rates;
        TT_CHECK_EQ(op->v->load(ctx, good, s.rows, s.cols, seg, n, &bad, &err), TT_BADFILE);
    }
    tt__linop_free(op);
    done(&s);
}

TT_CASE(no_memory) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    sample s = make((tt_trellis_form){12, 192, 0, 64}, 20, 64);
    for (uint64_t k = 1; k < 8; k++) {
        tt_linop *op = NULL;
        const uint64_t before = tt__mem_now();
        tt__fault_set(TT_FAULT_ALLOC, k, TT_FAULT_ONCE);
        const tt_status st = tt__linop_trellis(ctx, &s.form, s.rates, s.codes, s.scales, s.gains, s.signs, s.rows, s.cols, &op, &err);
        const bool fired = tt__fault_fired();
        tt__fault_set(TT_FAULT_ALLOC, 0, TT_FAULT_OFF);
        if (st == TT_OK) tt__linop_free(op);
        TT_CHECK_EQ(st, fired ? TT_RESOURCE : TT_OK);
        TT_CHECK_EQ(tt__mem_now(), before);
    }
    done(&s);
}
