/* The run format: decodes to the same bits as what it was made from, products agree, parts of panels decode alike, state survives a round trip,
 * hostile state is refused, and what has no panel of its size stays. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "linop/linop.h"

static tt__rng rng;

static uint8_t *random_blocks(tt_dtype type, int64_t rows, int64_t cols) {
    const tt_dtype_info *t = tt__dtype(type);
    const int64_t n = rows * (cols / t->block);
    uint8_t *w = tt__alloc((size_t)(n * t->bytes));
    for (int64_t i = 0; i < n * t->bytes; i++) w[i] = (uint8_t)tt__rng_u64(&rng);
    for (int64_t b = 0; b < n; b++)
        for (int k = 0; k < (type == TT_Q4_1 || type == TT_Q5_1 || type == TT_Q2_K || type == TT_Q4_K || type == TT_Q5_K ? 2 : 1); k++) {
            const uint16_t h = tt__f32_to_f16((float)(tt__rng_unit(&rng) - 0.5));
            memcpy(w + b * t->bytes + 2 * k + (type == TT_Q3_K ? 108 : type == TT_Q6_K ? 208 : type == TT_Q2_K ? 80 : 0), &h, 2);
        }
    return w;
}

enum { OFFSET, HALF, MIN };
static tt_linop *random_group(tt_ctx *ctx, int bits, int group, int grid, int64_t rows, int64_t cols) {
    tt_err err = {0};
    const int64_t groups = (cols + group - 1) / group;
    uint8_t *codes = tt__alloc((size_t)(rows * cols)), *kind = tt__calloc((size_t)(rows * groups), 1);
    float *scales = tt__alloc((size_t)(rows * groups) * sizeof *scales), *mins = tt__alloc((size_t)(rows * groups) * sizeof *mins);
    tt_linop *op;
    for (int64_t i = 0; i < rows * cols; i++) codes[i] = (uint8_t)tt__rng_below(&rng, 1u << bits);
    for (int64_t i = 0; i < rows * groups; i++) {
        scales[i] = i % 7 == 3 ? 0 : (float)tt__rng_unit(&rng);
        kind[i] = grid == HALF && tt__rng_below(&rng, 2);
        mins[i] = i % 5 == 2 ? 0 : (float)tt__rng_unit(&rng) - 0.5f;
        if (grid == MIN && i % 3 == 1) scales[i] = -scales[i];
    }
    TT_CHECK_OK(tt__linop_group(ctx, bits, group, codes, scales, kind, grid == MIN ? mins : NULL, rows, cols, &op, &err));
    tt__free(codes);
    tt__free(scales);
    tt__free(mins);
    tt__free(kind);
    return op;
}

static void check_decodes_alike(const tt_linop *op, const tt_linop *panel) {
    const size_t n = (size_t)(op->rows * op->cols);
    float *want = tt__alloc(n * sizeof *want), *got = tt__alloc(n * sizeof *got);
    tt__linop_rows(op, 0, op->rows, want);
    tt__linop_rows(panel, 0, op->rows, got);
    TT_CHECK(!memcmp(want, got, n * sizeof *want));
    for (int64_t r0 = 0; r0 < op->rows; r0 += 1 + r0 / 2) {              /* single rows and spans that begin and end inside of panels */
        const int64_t r1 = r0 + (r0 % 3 == 0 ? 1 : 21) < op->rows ? r0 + (r0 % 3 == 0 ? 1 : 21) : op->rows;
        tt__linop_rows(panel, r0, r1, got);
        TT_CHECK(!memcmp(want + r0 * op->cols, got, (size_t)((r1 - r0) * op->cols) * sizeof *want));
    }
    tt__free(want);
    tt__free(got);
}

/* Products of a fast activation: the panel's and the source's sum the same integers. */
static void check_products_alike(tt_ctx *ctx, const tt_linop *op, const tt_linop *panel) {
    tt_err err = {0};
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_scratch(ctx, op), &err));
    for (int64_t T = 1; T <= 9; T += 1 + T / 2) {
        float *X = tt__alloc((size_t)(T * op->cols) * sizeof *X), *a = tt__alloc((size_t)(T * op->rows) * sizeof *a), *b = tt__alloc((size_t)(T * op->rows) * sizeof *b);
        void *ws = tt__alloc(tt__act_bytes(T, op->cols));
        tt_act act;
        double top = 0;
        for (int64_t i = 0; i < T * op->cols; i++) X[i] = (float)tt__rng_normal(&rng);
        tt__act_prepare(ctx, &act, X, op->cols, T, op->cols, T <= 8, ws);
        tt__linop_apply(ctx, op, &act, a, op->rows);
        tt__linop_apply(ctx, panel, &act, b, op->rows);
        for (int64_t i = 0; i < T * op->rows; i++) top = fabs((double)a[i]) > top ? fabs((double)a[i]) : top;
        for (int64_t i = 0; i < T * op->rows; i++) TT_CHECK_NEAR(a[i], b[i], 1e-5 * top + 1e-4);
        tt__free(X);
        tt__free(a);
        tt__free(b);
        tt__free(ws);
    }
}

static void check_round_trip(tt_ctx *ctx, const tt_linop *panel) {
    tt_err err = {0};
    tt_segment seg[8];
    char params[96];
    tt_linop *again;
    const int n = panel->v->segments(panel, seg);
    panel->v->describe(panel, params, sizeof params);
    TT_CHECK_OK(panel->v->load(ctx, params, panel->rows, panel->cols, seg, n, &again, &err));
    check_decodes_alike(panel, again);
    tt__linop_free(again);
    /* from an odd address: copied */
    uint8_t *moved = tt__alloc(seg[0].bytes + 2);
    memcpy(moved + 2, seg[0].data, seg[0].bytes);
    tt_segment crooked[8];
    memcpy(crooked, seg, sizeof crooked);
    crooked[0].data = moved + 2;
    TT_CHECK_OK(panel->v->load(ctx, params, panel->rows, panel->cols, crooked, n, &again, &err));
    check_decodes_alike(panel, again);
    tt__linop_free(again);
    tt__free(moved);
    /* one byte too few */
    for (int i = 0; i < n; i++) {
        tt_segment cut[8];
        memcpy(cut, seg, sizeof cut);
        cut[i].bytes--;
        TT_CHECK_FAILS(TT_BADFILE, panel->v->load(ctx, params, panel->rows, panel->cols, cut, n, &again, &err));
        TT_CHECK(!again);
    }
}

static void check_all(tt_ctx *ctx, tt_linop *op) {
    tt_err err = {0};
    tt_linop *panel;
    TT_CHECK_OK(tt__linop_panel_from(ctx, op, NULL, &panel, &err));
    TT_CHECK_EQ(panel != NULL, tt__linop_panel_bytes(op) > 0);
    if (panel) {
        TT_CHECK(tt__linop_panel(panel) && !tt__linop_panel(op));
        TT_CHECK(20 * tt__linop_bytes(panel) <= 21 * tt__linop_bytes(op));
        check_decodes_alike(op, panel);
        check_products_alike(ctx, op, panel);
        check_round_trip(ctx, panel);
    }
    tt__linop_free(panel);
    tt__linop_free(op);
}

static void on_levels(void (*fn)(tt_ctx *ctx)) {
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt__rng_seed(&rng, 11);
        fn(tt_test_ctx(2, *isa));
    }
}

static void standard_types(tt_ctx *ctx) {
    static const tt_dtype types[] = {TT_Q4_0, TT_Q4_1, TT_Q8_0, TT_Q5_0, TT_Q5_1, TT_IQ4_NL};
    static const int64_t shapes[][2] = {{16, 64}, {48, 576}, {250, 192}, {1, 64}, {330, 320}, {64, 96}, {17, 2048}};
    for (int t = 0; t < 6; t++)
        for (int i = 0; i < 7; i++) {
            tt_err err = {0};
            tt_linop *op;
            uint8_t *w = random_blocks(types[t], shapes[i][0], shapes[i][1]);
            tt_test_note("%s, %lldx%lld", tt__dtype(types[t])->label, (long long)shapes[i][0], (long long)shapes[i][1]);
            TT_CHECK_OK(tt__linop_from_bytes(ctx, types[t], w, shapes[i][0], shapes[i][1], &op, &err));
            op->owned = w;
            check_all(ctx, op);
        }
}
TT_CASE(panels_of_standard_types) { on_levels(standard_types); }

static void types_of_small_scales(tt_ctx *ctx) {
    static const tt_dtype types[] = {TT_Q2_K, TT_Q3_K, TT_Q4_K, TT_Q5_K, TT_Q6_K};
    static const int64_t shapes[][2] = {{16, 256}, {48, 512}, {250, 768}, {1024, 256}, {330, 1024}};
    for (int t = 0; t < 5; t++)
        for (int i = 0; i < 5; i++) {
            tt_err err = {0};
            tt_linop *op;
            uint8_t *w = random_blocks(types[t], shapes[i][0], shapes[i][1]);
            tt_test_note("%s, %lldx%lld", tt__dtype(types[t])->label, (long long)shapes[i][0], (long long)shapes[i][1]);
            TT_CHECK_OK(tt__linop_from_bytes(ctx, types[t], w, shapes[i][0], shapes[i][1], &op, &err));
            op->owned = w;
            if (shapes[i][0] == 48 || shapes[i][0] == 1024) TT_CHECK_EQ(tt__linop_panel_bytes(op) > 0, ctx->k->super);
            check_all(ctx, op);
        }
}
TT_CASE(panels_of_small_scales) { on_levels(types_of_small_scales); }

/* Many rows, fast: BF16 weights meet activations rounded to bf16 where the machine multiplies those, all others are products of f32. */
static void check_batches(tt_ctx *ctx, const tt_linop *op, const tt_linop *panel, int64_t T) {
    tt_err err = {0};
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_scratch(ctx, op), &err));
    float *X = tt__alloc((size_t)(T * op->cols) * sizeof *X), *w = tt__alloc((size_t)(op->rows * op->cols) * sizeof *w), *y = tt__alloc((size_t)(T * op->rows) * sizeof *y);
    void *ws = tt__alloc(tt__act_bytes(T, op->cols));
    tt_act act;
    for (int64_t i = 0; i < T * op->cols; i++) X[i] = (float)tt__rng_normal(&rng);
    tt__linop_rows(op, 0, op->rows, w);
    for (int fast = 0; fast < 2; fast++) {
        const bool rounded = fast && op->dtype == TT_BF16 && ctx->k->bf16;
        tt__act_prepare(ctx, &act, X, op->cols, T, op->cols, fast, ws);
        tt__linop_apply(ctx, panel, &act, y, op->rows);
        for (int64_t t = 0; t < T; t++)
            for (int64_t r = 0; r < op->rows; r++) {
                double sum = 0, size = 0;
                for (int64_t c = 0; c < op->cols; c++) sum += (double)w[r * op->cols + c] * (double)X[t * op->cols + c], size += fabs((double)w[r * op->cols + c] * (double)X[t * op->cols + c]);
                TT_CHECK_NEAR(y[t * op->rows + r], sum, (rounded ? 0x1p-8 : 1e-5) * size + 1e-30);
            }
    }
    tt__free(X);
    tt__free(w);
    tt__free(y);
    tt__free(ws);
}

static void float_types(tt_ctx *ctx) {
    static const int64_t shapes[][2] = {{16, 64}, {48, 576}, {250, 191}, {330, 320}, {61, 129}, {17, 2048}, {1, 64}, {96, 1}};
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 8; i++) {
            const int64_t rows = shapes[i][0], cols = shapes[i][1];
            tt_err err = {0};
            tt_linop *op, *panel;
            float *w = tt__alloc((size_t)(rows * cols) * sizeof *w);
            for (int64_t k = 0; k < rows * cols; k++) w[k] = (float)tt__rng_normal(&rng);
            tt_test_note("%s, %lldx%lld", t ? "F16" : "BF16", (long long)rows, (long long)cols);
            TT_CHECK_OK(tt__linop_encode(ctx, t ? TT_F16 : TT_BF16, w, rows, cols, &op, &err));
            TT_CHECK_EQ(tt__linop_panel_bytes(op) > 0, i < 4);
            TT_CHECK_OK(tt__linop_panel_from(ctx, op, NULL, &panel, &err));
            if (panel) check_batches(ctx, op, panel, 33);
            tt__linop_free(panel);
            check_all(ctx, op);
            tt__free(w);
        }
}
TT_CASE(panels_of_floats) { on_levels(float_types); }

static void own_groups(tt_ctx *ctx) {
    static const int bits[] = {2, 3, 4, 8}, groups[] = {32, 64, 128};
    static const int64_t shapes[][2] = {{16, 64}, {32, 128}, {250, 600}, {160, 1000}, {1, 256}, {96, 1}, {63, 448}};
    for (int i = 0; i < 36; i++)
        for (int k = 0; k < 7; k++) {
            tt_test_note("%d bits, groups of %d, %lldx%lld", bits[i % 4], groups[i / 4 % 3], (long long)shapes[k][0], (long long)shapes[k][1]);
            check_all(ctx, random_group(ctx, bits[i % 4], groups[i / 4 % 3], i / 12, shapes[k][0], shapes[k][1]));
        }
}
TT_CASE(panels_of_groups) { on_levels(own_groups); }

/* Y of T rows, by the run format where there is one; the caller frees. */
static float *products(tt_ctx *ctx, const tt_linop *op, const float *X, int64_t T) {
    tt_err err = {0};
    tt_linop *panel;
    tt_act act;
    float *y = tt__alloc((size_t)(T * op->rows) * sizeof *y);
    void *ws = tt__alloc(tt__act_bytes(T, op->cols));
    TT_CHECK_OK(tt__linop_panel_from(ctx, op, NULL, &panel, &err));
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_scratch(ctx, op), &err));
    tt__act_prepare(ctx, &act, X, op->cols, T, op->cols, true, ws);
    tt__linop_apply(ctx, panel ? panel : op, &act, y, op->rows);
    tt__linop_free(panel);
    tt__free(ws);
    return y;
}

/* Against the product of the decoded weights with the activations, whose rounding to 8 bits (or to bf16) is the largest error. */
static void check_on_threads(tt_ctx *alone, tt_ctx *crowd, const tt_linop *op) {
    float *w = tt__alloc((size_t)(op->rows * op->cols) * sizeof *w);
    tt__linop_rows(op, 0, op->rows, w);
    for (int64_t T = 1; T <= 21; T += T < 8 ? 7 : 13) {
        float *X = tt__alloc((size_t)(T * op->cols) * sizeof *X);
        double top = 0;
        for (int64_t i = 0; i < T * op->cols; i++) X[i] = (float)tt__rng_normal(&rng), top = fabs((double)X[i]) > top ? fabs((double)X[i]) : top;
        float *one = products(alone, op, X, T), *many = products(crowd, op, X, T);
        TT_CHECK(!memcmp(one, many, (size_t)(T * op->rows) * sizeof *one));
        for (int64_t t = 0; t < T; t++)
            for (int64_t r = 0; r < op->rows; r++) {
                double sum = 0, size = 0;
                for (int64_t c = 0; c < op->cols; c++) sum += (double)w[r * op->cols + c] * (double)X[t * op->cols + c], size += fabs((double)w[r * op->cols + c]);
                TT_CHECK_NEAR(one[t * op->rows + r], sum, top / 250 * size + 1e-6);
            }
        tt__free(X);
        tt__free(one);
        tt__free(many);
    }
    tt__free(w);
}

/* One row, one column, and widths that fit no unit or group, on more threads than there are cores or rows. */
TT_CASE(odd_shapes_on_many_threads) {
    static const int64_t rows[] = {1, 3, 17, 130}, cols[] = {1, 3, 65, 130};
    static const tt_dtype types[] = {TT_Q4_0, TT_Q4_1, TT_Q5_0, TT_Q5_1, TT_Q8_0, TT_IQ4_NL, TT_Q2_K, TT_Q3_K, TT_Q4_K, TT_Q5_K, TT_Q6_K, TT_F16, TT_BF16, TT_F32};
    tt_err err = {0};
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt_ctx *ctx = tt_test_ctx(1, *isa), *crowd = tt_test_ctx(19, *isa);
        for (int i = 0; i < 4; i++) {
            for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
                const int64_t block = tt__dtype(types[t])->block, n = block == 1 ? cols[i] : block * (1 + i % 3);
                float *w = tt__alloc((size_t)(rows[i] * n) * sizeof *w);
                tt_linop *op;
                for (int64_t k = 0; k < rows[i] * n; k++) w[k] = (float)tt__rng_normal(&rng);
                tt_test_note("%s, %s, %lldx%lld", *isa, tt__dtype(types[t])->label, (long long)rows[i], (long long)n);
                TT_CHECK_OK(tt__linop_encode(ctx, types[t], w, rows[i], n, &op, &err));
                check_on_threads(ctx, crowd, op);
                tt__linop_free(op);
                tt__free(w);
            }
            for (int bits = 2; bits <= 4; bits++) {
                tt_linop *op = random_group(ctx, bits, 32 << i % 3, i % 3, rows[i], cols[i]);
                tt_test_note("%s, %d bits, %lldx%lld", *isa, bits, (long long)rows[i], (long long)cols[i]);
                check_on_threads(ctx, crowd, op);
                tt__linop_free(op);
            }
        }
    }
}

TT_CASE(what_has_no_panel_stays) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    static const tt_dtype types[] = {TT_F32};
    uint8_t *w = tt__calloc(1, 32 * 256 * 4);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        tt_linop *op, *panel;
        TT_CHECK_OK(tt__linop_from_bytes(ctx, types[i], w, 32, 256, &op, &err));
        TT_CHECK_OK(tt__linop_panel_from(ctx, op, NULL, &panel, &err));
        TT_CHECK(!panel && !tt__linop_panel_bytes(op));
        tt__linop_free(op);
    }
    /* an infinite scale: the matrix is left to the kernels of its own type */
    tt_linop *op, *panel;
    w[1] = 0x7c;
    TT_CHECK_OK(tt__linop_from_bytes(ctx, TT_Q4_0, w, 32, 256, &op, &err));
    TT_CHECK_OK(tt__linop_panel_from(ctx, op, NULL, &panel, &err));
    TT_CHECK(!panel);
    tt__linop_free(op);
    tt__free(w);
}

TT_CASE(hostile_parameters) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    tt_linop *out;
    static uint16_t infinite[16] = {0x7c00};
    static const uint8_t codes[512];
    const tt_segment seg[2] = {{"codes", codes, 512}, {"scales", infinite, 32}};
    static const char *const bad[] = {"", "bits=4,group=64", "bits=6,group=64,grid=half", "bits=4,group=48,grid=half", "bits=4,group=64,grid=most", "bits=4,group=64,grid=",
                                      "bits=4,group=64,grid=half ", "bits=5,group=64,grid=table", "bits=2,group=64,grid=nibbles", "bits=4,group=256,grid=nibbles", "bits=16,grid=half", ",grid=half", "bits=4,group=64,grid=min", "bits=6,group=64,grid=single", "bits=4,group=256,grid=offset",
                                      "bits=4,group=256,grid=single", "bits=6,group=256,grid=single", "bits=16,group=32,grid=f16", "bits=8,group=64,grid=bf16",
                                      "bits=16,group=64,grid=offset"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_test_note("%s", bad[i]);
        TT_CHECK_FAILS(TT_BADFILE, tt__linop_v_panel.load(ctx, bad[i], 16, 64, seg, 2, &out, &err));
    }
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_v_panel.load(ctx, "bits=4,group=64,grid=offset", 16, 64, seg, 2, &out, &err));
    infinite[0] = 0;
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_v_panel.load(ctx, "bits=4,group=64,grid=offset", 17, 64, seg, 2, &out, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_v_panel.load(ctx, "bits=4,group=64,grid=offset", INT64_MAX - 3, INT64_MAX - 3, seg, 2, &out, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_v_panel.load(ctx, "bits=4,group=64,grid=offset", 0, 64, seg, 2, &out, &err));
    TT_CHECK_OK(tt__linop_v_panel.load(ctx, "bits=4,group=64,grid=offset", 16, 64, seg, 2, &out, &err));
    tt__linop_free(out);
}
