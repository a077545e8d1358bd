/* Operators: what goes in comes out, products agree with plain sums on every path, state survives a round trip, hostile state is refused. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "kernels/codes.h"
#include "linop/linop.h"

static float *random_matrix(int64_t n, uint64_t seed) {
    tt__rng r;
    tt__rng_seed(&r, seed);
    float *w = tt__alloc((size_t)n * sizeof *w);
    for (int64_t i = 0; i < n; i++) w[i] = (float)tt__rng_normal(&r);
    return w;
}

/* A quantized matrix and its values by the definition of the grids. */
typedef struct sample { int bits, group; int64_t rows, cols, groups; uint8_t *codes, *keep, *half; float *scales, *mins, *W; } sample;

static sample make_sample(int bits, int group, int64_t rows, int64_t cols, double density, uint64_t seed) {
    sample s = {bits, group, rows, cols, (cols + group - 1) / group, NULL, NULL, NULL, NULL, NULL, NULL};
    tt__rng r;
    tt__rng_seed(&r, seed);
    s.codes = tt__alloc((size_t)(rows * cols));
    s.keep = tt__alloc((size_t)(rows * cols));
    s.half = tt__alloc((size_t)(rows * s.groups));
    s.scales = tt__alloc((size_t)(rows * s.groups) * sizeof(float));
    s.W = tt__alloc((size_t)(rows * cols) * sizeof(float));
    for (int64_t i = 0; i < rows * s.groups; i++) {
        s.half[i] = (uint8_t)tt__rng_below(&r, 2);
        s.scales[i] = tt__f16_to_f32(tt__f32_to_f16((float)(0.01 + tt__rng_unit(&r))));
    }
    for (int64_t i = 0; i < rows * cols; i++) {
        int64_t g = i / cols * s.groups + i % cols / group;
        s.codes[i] = (uint8_t)tt__rng_below(&r, 1u << bits);
        s.keep[i] = tt__rng_unit(&r) < density;
        s.W[i] = s.scales[g] * ((float)s.codes[i] - ((float)(1 << (bits - 1)) - (s.half[g] ? 0.5f : 0)));
        if (!s.keep[i]) s.W[i] = 0;
    }
    return s;
}

/* The same codes on a grid of minima; scales of either sign. */
static void add_mins(sample *s) {
    s->mins = tt__alloc((size_t)(s->rows * s->groups) * sizeof(float));
    for (int64_t i = 0; i < s->rows * s->groups; i++) {
        s->mins[i] = tt__f16_to_f32(tt__f32_to_f16((float)(i % 7) * 0.11f - 0.3f));
        if (i % 3 == 0) s->scales[i] = -s->scales[i];
    }
    for (int64_t i = 0; i < s->rows * s->cols; i++) {
        int64_t g = i / s->cols * s->groups + i % s->cols / s->group;
        s->W[i] = s->scales[g] * (float)s->codes[i] + s->mins[g];
    }
}

static void free_sample(sample *s) {
    tt__free(s->mins);
    tt__free(s->codes);
    tt__free(s->keep);
    tt__free(s->half);
    tt__free(s->scales);
    tt__free(s->W);
}

static void check_values(const tt_linop *op, const float *W) {
    float *got = tt__alloc((size_t)(op->rows * op->cols) * sizeof *got);
    tt__linop_rows(op, 0, op->rows, got);
    for (int64_t i = 0; i < op->rows * op->cols; i++) TT_CHECK_NEAR(got[i], W[i], 0);
    /* a rectangle inside, from a unit boundary */
    if (op->cols > op->col_unit && op->rows > 3) {
        int64_t c0 = op->col_unit, n = op->cols - c0;
        op->v->decode(op, 1, 3, c0, op->cols, got, n);
        for (int64_t r = 0; r < 2; r++)
            for (int64_t c = 0; c < n; c++) TT_CHECK_NEAR(got[r * n + c], W[(r + 1) * op->cols + c0 + c], 0);
    }
    tt__free(got);
}

/* Y and dX against sums in f64; fast runs within the bound of activations rounded to 8 bits: half a step, max|x| / 254, per weight. */
static void check_products(tt_ctx *ctx, const tt_linop *op, int64_t T, bool fast) {
    tt_err err = {0};
    int64_t n = op->cols, m = op->rows;
    float *W = tt__alloc((size_t)(m * n) * sizeof *W), *X = random_matrix(T * n, 5), *G = random_matrix(T * m, 6);
    float *Y = tt__alloc((size_t)(T * m) * sizeof *Y), *dX = tt__alloc((size_t)(T * n) * sizeof *dX);
    void *ws = tt__alloc(tt__act_bytes(T, n));
    tt_act act;
    tt__linop_rows(op, 0, m, W);
    TT_CHECK_OK(tt__scratch_reserve(ctx, tt__linop_scratch(ctx, op), &err));
    tt__act_prepare(ctx, &act, X, n, T, n, fast, ws);
    tt__linop_apply(ctx, op, &act, Y, m);
    tt__linop_apply_t(ctx, op, G, m, T, dX, n, false, false);
    tt_test_note("%s, T %lld, fast %d", op->v->name, (long long)T, fast);
    for (int64_t t = 0; t < T; t++) {
        for (int64_t r = 0; r < m; r++) {
            double sum = 0, size = 0, weights = 0, top = 0;
            for (int64_t c = 0; c < n; c++) {
                sum += (double)W[r * n + c] * X[t * n + c];
                size += pow((double)W[r * n + c] * X[t * n + c], 2);
                weights += fabs((double)W[r * n + c]);
                top = fmax(top, fabs((double)X[t * n + c]));
            }
            TT_CHECK_NEAR(Y[t * m + r], sum, 2e-5 * (sqrt(size) + 0.01) + (fast ? weights * top / 253 + 1e-5 * top : 0));
        }
        for (int64_t c = 0; c < n; c++) {
            double sum = 0, size = 0;
            for (int64_t r = 0; r < m; r++) sum += (double)W[r * n + c] * G[t * m + r], size += pow((double)W[r * n + c] * G[t * m + r], 2);
            TT_CHECK_NEAR(dX[t * n + c], sum, 2e-5 * (sqrt(size) + 1e-3));
        }
    }
    tt__free(ws);
    tt__free(W);
    tt__free(X);
    tt__free(G);
    tt__free(Y);
    tt__free(dX);
}

/* Out and in again through the segments of a file. */
static void check_round_trip(tt_ctx *ctx, const tt_linop *op, const float *W) {
    tt_err err = {0};
    tt_segment seg[8];
    char params[96];
    tt_linop *again;
    int n = op->v->segments(op, seg);
    uint64_t bytes = 0;
    op->v->describe(op, params, sizeof params);
    for (int i = 0; i < n; i++) bytes += seg[i].bytes;
    TT_CHECK_EQ(bytes, tt__linop_bytes(op));
    TT_CHECK_OK(op->v->load(ctx, params, op->rows, op->cols, seg, n, &again, &err));
    check_values(again, W);
    tt__linop_free(again);
    /* every segment cut or grown by a byte, a missing one, a wrong shape, wrong parameters */
    for (int i = 0; i < n; i++) {
        tt_segment bad[8];
        for (int d = -1; d <= 1; d += 2) {
            memcpy(bad, seg, sizeof bad);
            bad[i].bytes += (uint64_t)(int64_t)d;
            TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, params, op->rows, op->cols, bad, n, &again, &err));
            TT_CHECK(!again);
        }
        memcpy(bad, seg, sizeof bad);
        bad[i].name = "other";
        TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, params, op->rows, op->cols, bad, n, &again, &err));
    }
    static const char *const wrong[] = {"", "bits=", "bits=4,group=", "bits=7,group=64", "bits=4,group=48", "bits=4,group=64 ", "bits=+4,group=64", "bits=-4,group=64",
                                        "bits=99999999999,group=64", "bits=4,group=64,grid=", "bits=4,group=64,grid=minimal", "bits=4,group=64,grid=min,", ",grid=min", "type=Q9_9", "type=", "bits=16,group=64"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, wrong[i], op->rows, op->cols, seg, n, &again, &err));
    TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, params, op->rows + 1, op->cols, seg, n, &again, &err));
    TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, params, 0, op->cols, seg, n, &again, &err));
    TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, params, INT64_MAX, INT64_MAX, seg, n, &again, &err));
}

TT_CASE(standard_types) {
    static const tt_dtype types[] = {TT_F32, TT_F16, TT_BF16, TT_Q4_0, TT_Q4_1, TT_Q5_0, TT_Q5_1, TT_Q8_0, TT_IQ4_NL, TT_Q2_K, TT_Q3_K, TT_Q4_K, TT_Q5_K, TT_Q6_K};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const tt_dtype_info *t = tt__dtype(types[i]);
        int64_t rows = 35, cols = t->block == 1 ? 75 : t->block * (t->block == 32 ? 3 : 1);
        float *W = random_matrix(rows * cols, 10 + i), *stored = tt__alloc((size_t)(rows * cols) * sizeof *stored);
        uint64_t bytes;
        tt_linop *op;
        char label[64];
        TT_CHECK(tt__dtype_bytes(types[i], (uint64_t)(rows * cols), &bytes));
        uint8_t *raw = tt__alloc(bytes);
        TT_CHECK_OK(tt__dtype_encode(types[i], W, raw, rows * cols, NULL, &err));
        tt__dtype_decode(types[i], raw, stored, rows * cols);
        TT_CHECK_OK(tt__linop_encode(ctx, types[i], W, rows, cols, &op, &err));
        tt__linop_label(op, label, sizeof label);
        TT_CHECK_STR(label, t->label);
        TT_CHECK_EQ(tt__linop_bytes(op), bytes);
        TT_CHECK(!memcmp(op->data, raw, bytes));
        float *got = tt__alloc((size_t)(rows * cols) * sizeof *got);
        tt__linop_rows(op, 0, rows, got);
        for (int64_t k = 0; k < rows * cols; k++) TT_CHECK_NEAR(got[k], stored[k], 1e-6 * (fabsf(stored[k]) + 1));   /* a fused multiply-add may differ in the last bit */
        for (int64_t T = 1; T <= 17; T += T < 3 ? 1 : 7) {
            check_products(ctx, op, T, false);
            check_products(ctx, op, T, true);
        }
        tt_linop *dense;
        TT_CHECK_OK(tt__linop_expand(ctx, op, &dense, &err));
        check_values(dense, got);
        tt__linop_free(dense);
        check_round_trip(ctx, op, got);
        tt__linop_free(op);
        /* a crooked address, as safetensors may bring */
        uint8_t *crooked = tt__alloc(bytes + 1);
        memcpy(crooked + 1, raw, bytes);
        TT_CHECK_OK(tt__linop_from_bytes(ctx, types[i], crooked + 1, rows, cols, &op, &err));
        check_values(op, got);
        tt__linop_free(op);
        tt__free(crooked);
        tt__free(got);
        tt__free(raw);
        tt__free(W);
        tt__free(stored);
    }
}

TT_CASE(standard_types_refuse_what_does_not_fit) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_linop *op;
    float W[64] = {0};
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_encode(ctx, TT_Q4_0, W, 2, 31, &op, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_encode(ctx, TT_Q4_K, W, 2, 32, &op, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_from_bytes(ctx, TT_I32, W, 2, 32, &op, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_from_bytes(ctx, TT_F32, W, 0, 32, &op, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__linop_from_bytes(ctx, TT_F32, W, INT64_MAX, INT64_MAX, &op, &err));
    TT_CHECK(!tt__linop_find("nothing"));
    tt__linop_free(NULL);
}

TT_CASE(group) {
    static const int bits[] = {2, 3, 4, 8}, groups[] = {32, 64, 128};
    static const int64_t cols[] = {1, 31, 64, 100, 192, 200, 288};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    for (int b = 0; b < 4; b++)
        for (int g = 0; g < 3; g++)
            for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
                sample s = make_sample(bits[b], groups[g], 37, cols[c], 1.1, 100 + c);
                tt_linop *op;
                tt_test_note("bits %d, group %d, cols %lld", bits[b], groups[g], (long long)cols[c]);
                TT_CHECK_OK(tt__linop_group(ctx, s.bits, s.group, s.codes, s.scales, s.half, NULL, s.rows, s.cols, &op, &err));
                check_values(op, s.W);
                TT_CHECK_EQ(tt__linop_bytes(op), (uint64_t)(37 * (tt__codes_row_bytes(s.bits, s.group, s.cols) + 2 * s.groups)));
                check_products(ctx, op, 1, false);
                check_products(ctx, op, 1, true);
                check_products(ctx, op, 8, true);
                check_products(ctx, op, 9, true);
                if (c < 3) check_round_trip(ctx, op, s.W);
                tt__linop_free(op);
                add_mins(&s);
                TT_CHECK_OK(tt__linop_group(ctx, s.bits, s.group, s.codes, s.scales, NULL, s.mins, s.rows, s.cols, &op, &err));
                check_values(op, s.W);
                TT_CHECK_EQ(tt__linop_bytes(op), (uint64_t)(37 * (tt__codes_row_bytes(s.bits, s.group, s.cols) + 4 * s.groups)));
                for (int64_t T = 1; T <= 9; T += 4) {
                    check_products(ctx, op, T, false);
                    check_products(ctx, op, T, true);
                }
                if (c < 3) check_round_trip(ctx, op, s.W);
                tt__linop_free(op);
                free_sample(&s);
            }
}

TT_CASE(sparseq) {
    static const int bits[] = {2, 3, 4, 8}, groups[] = {32, 64, 128};
    static const int64_t cols[] = {1, 33, 64, 100, 192, 288};
    static const double density[] = {0, 0.1, 0.5, 1.1};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    for (int b = 0; b < 4; b++)
        for (int g = 0; g < 3; g++)
            for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
                sample s = make_sample(bits[b], groups[g], 21, cols[c], density[(c + (size_t)b) % 4], 200 + c);
                tt_linop *op;
                tt_test_note("bits %d, group %d, cols %lld", bits[b], groups[g], (long long)cols[c]);
                TT_CHECK_OK(tt__linop_sparseq(ctx, s.bits, s.group, s.keep, s.codes, s.scales, s.half, NULL, s.rows, s.cols, &op, &err));
                check_values(op, s.W);
                check_products(ctx, op, 1, false);
                check_products(ctx, op, 1, true);
                check_products(ctx, op, 5, true);
                check_products(ctx, op, 9, false);
                tt__linop_free(op);
                free_sample(&s);
            }
}

TT_CASE(bitmask_is_sparseq_in_panels) {
    static const int64_t cols[] = {1, 33, 64, 100, 192, 288};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    for (size_t c = 0; c < 6; c++)
        for (int g = 32; g <= 128; g *= 2) {
            sample s = make_sample(4, g, c % 2 ? 48 : 37, cols[c], (double)c / 4, 400 + c);
            tt_linop *op, *run, *no;
            tt_test_note("group %d, cols %lld", g, (long long)cols[c]);
            TT_CHECK_OK(tt__linop_sparseq(ctx, 4, g, s.keep, s.codes, s.scales, s.half, NULL, s.rows, s.cols, &op, &err));
            TT_CHECK_OK(tt__linop_bitmask(ctx, op, &run, &err));
            TT_CHECK(tt__linop_bytes(run) < tt__linop_bytes(op) * 21 / 20 + 6000);
            check_values(run, s.W);
            for (int64_t T = 1; T <= 9; T += 4) check_products(ctx, run, T, true);
            if (c % 2) check_round_trip(ctx, run, s.W);
            float part[7 * 64];
            const int64_t n = s.cols < 64 ? s.cols : 64;
            run->v->decode(run, 12, 19, 0, n, part, n);
            for (int64_t i = 0; i < 7 * n; i++) TT_CHECK_NEAR(part[i], s.W[(12 + i / n) * s.cols + i % n], 0);
            TT_CHECK_FAILS(TT_TARGET, tt__linop_bitmask(ctx, run, &no, &err));
            TT_CHECK_OK(tt__linop_bitmask_dense(ctx, run, &no, &err));
            check_values(no, s.W);
            check_products(ctx, no, 1, true);
            tt__linop_free(no);
            tt__linop_free(run);
            tt__linop_free(op);
            free_sample(&s);
        }
}

/* A mask of the pattern: of each two columns one, or of two pairs the inner or the outer ones. */
static void slide2_mask(sample *s, uint64_t seed) {
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int64_t i = 0; i < s->rows * s->cols; i += s->cols)
        for (int64_t c = 0; c < s->cols; c += 4) {
            static const uint8_t masks[] = {5, 6, 9, 10, 3, 12};
            const uint8_t m = s->cols - c < 4 ? 5 : masks[tt__rng_below(&r, 6)];
            for (int64_t k = c; k < c + 4 && k < s->cols; k++) {
                s->keep[i + k] = m >> (k - c) & 1;
                if (!s->keep[i + k]) s->W[i + k] = 0;
            }
        }
}

TT_CASE(slide2) {
    static const int64_t cols[] = {1, 2, 33, 64, 100, 131, 192, 288};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
        const int64_t rows = c % 2 ? 32 : 37;
        sample s = make_sample(4, c % 3 ? 64 : 128, rows, cols[c], 1.1, 300 + c);
        tt_linop *op;
        slide2_mask(&s, c);
        tt_test_note("group %d, cols %lld", s.group, (long long)cols[c]);
        TT_CHECK_OK(tt__linop_slide2(ctx, s.group, s.keep, s.codes, s.scales, s.half, s.rows, s.cols, &op, &err));
        check_values(op, s.W);
        for (int64_t T = 1; T <= 9; T += 4) check_products(ctx, op, T, T != 5), check_products(ctx, op, T, true);
        if (rows == 32) check_round_trip(ctx, op, s.W);
        float part[7 * 64];                                              /* rows that are no whole panel */
        const int64_t n = s.cols < 64 ? s.cols : 64;
        op->v->decode(op, 12, 19, 0, n, part, n);
        for (int64_t i = 0; i < 7 * n; i++) TT_CHECK_NEAR(part[i], s.W[(12 + i / n) * s.cols + i % n], 0);
        tt__linop_free(op);
        s.keep[0] ^= 1;
        TT_CHECK_FAILS(TT_TARGET, tt__linop_slide2(ctx, s.group, s.keep, s.codes, s.scales, s.half, s.rows, s.cols, &op, &err));
        free_sample(&s);
    }
}

/* Any one bit changed: refused, or another matrix of the same kind, never a read or a write astray. */
TT_CASE(hostile_slide2_state) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    sample s = make_sample(4, 64, 16, 70, 1.1, 4);
    tt_linop *op, *again;
    int refused = 0;
    slide2_mask(&s, 4);
    TT_CHECK_OK(tt__linop_slide2(ctx, 64, s.keep, s.codes, s.scales, s.half, s.rows, s.cols, &op, &err));
    tt_segment seg[8];
    int n = op->v->segments(op, seg);
    for (int which = 0; which < 2; which++) {
        uint8_t *copy = tt__alloc(seg[which].bytes);
        tt_segment bad[8];
        memcpy(bad, seg, sizeof bad);
        bad[which].data = copy;
        for (uint64_t bit = 0; bit < 8 * seg[which].bytes; bit++) {
            float row[70];
            memcpy(copy, seg[which].data, seg[which].bytes);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (op->v->load(ctx, "bits=4,group=64", s.rows, s.cols, bad, n, &again, &err) != TT_OK) {
                refused++;
                continue;
            }
            for (int64_t r = 0; r < s.rows; r++) tt__linop_rows(again, r, r + 1, row);
            tt__linop_free(again);
        }
        tt__free(copy);
    }
    TT_CHECK(refused > 1000);
    tt__linop_free(op);
    free_sample(&s);
}

TT_CASE(sparse_floats) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    sample s = make_sample(4, 64, 19, 150, 0.5, 7);
    for (int64_t i = 0; i < s.rows * s.cols; i++) s.W[i] = tt__f16_to_f32(tt__f32_to_f16(s.W[i] * 1.3f));
    tt_linop *op;
    TT_CHECK_OK(tt__linop_sparseq(ctx, 16, 0, s.keep, NULL, NULL, NULL, s.W, s.rows, s.cols, &op, &err));
    check_values(op, s.W);
    check_products(ctx, op, 1, true);
    check_products(ctx, op, 4, false);
    check_round_trip(ctx, op, s.W);
    tt__linop_free(op);
    int64_t kept = 0;
    while (!s.keep[kept]) kept++;
    s.W[kept] = 1e6f;
    TT_CHECK_FAILS(TT_FAIL, tt__linop_sparseq(ctx, 16, 0, s.keep, NULL, NULL, NULL, s.W, s.rows, s.cols, &op, &err));
    free_sample(&s);
}

TT_CASE(scales_must_be_storable) {
    static const float bad[] = {1e6f, -1.0f, INFINITY, NAN};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    sample s = make_sample(4, 64, 3, 64, 0.5, 7);
    tt_linop *op;
    for (int i = 0; i < 4; i++) {
        s.scales[1] = bad[i];
        TT_CHECK_FAILS(TT_FAIL, tt__linop_group(ctx, 4, 64, s.codes, s.scales, s.half, NULL, 3, 64, &op, &err));
        TT_CHECK_FAILS(TT_FAIL, tt__linop_sparseq(ctx, 4, 64, s.keep, s.codes, s.scales, s.half, NULL, 3, 64, &op, &err));
    }
    free_sample(&s);
}

/* Any one bit of masks and row starts changed: refused, or (a start cannot hide, a mask bit changes the row's length) never believed. */
TT_CASE(hostile_sparse_state) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    sample s = make_sample(4, 64, 9, 100, 0.5, 3);
    tt_linop *op, *again;
    TT_CHECK_OK(tt__linop_sparseq(ctx, 4, 64, s.keep, s.codes, s.scales, s.half, NULL, s.rows, s.cols, &op, &err));
    check_round_trip(ctx, op, s.W);
    tt_segment seg[8];
    int n = op->v->segments(op, seg);
    for (int which = 0; which < 2; which++) {                    /* mask, starts */
        uint8_t *copy = tt__alloc(seg[which].bytes);
        tt_segment bad[8];
        memcpy(bad, seg, sizeof bad);
        bad[which].data = copy;
        for (uint64_t bit = 0; bit < 8 * seg[which].bytes; bit++) {
            memcpy(copy, seg[which].data, seg[which].bytes);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            tt_status st = op->v->load(ctx, "bits=4,group=64", s.rows, s.cols, bad, n, &again, &err);
            if (which == 1) TT_CHECK_EQ(st, TT_BADFILE);
            if (st == TT_OK) {                                   /* an odd count became even: the same bytes */
                float row[100];
                for (int64_t r = 0; r < s.rows; r++) tt__linop_rows(again, r, r + 1, row);
                tt__linop_free(again);
            }
        }
        tt__free(copy);
    }
    uint16_t *scales = tt__alloc(seg[3].bytes);
    memcpy(scales, seg[3].data, seg[3].bytes);
    scales[2] = 0xfc01;
    seg[3].data = scales;
    TT_CHECK_FAILS(TT_BADFILE, op->v->load(ctx, "bits=4,group=64", s.rows, s.cols, seg, n, &again, &err));
    tt__free(scales);
    tt__linop_free(op);
    free_sample(&s);
}

TT_CASE(no_memory) {
    sample s = make_sample(4, 64, 5, 64, 0.5, 1);
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    for (uint64_t k = 1; k < 20; k++) {
        tt_linop *op = NULL;
        uint64_t before = tt__mem_now();
        tt__fault_set(TT_FAULT_ALLOC, k, TT_FAULT_ONCE);
        tt_status st = tt__linop_sparseq(ctx, 4, 64, s.keep, s.codes, s.scales, s.half, NULL, s.rows, s.cols, &op, &err);
        if (st == TT_OK) tt__linop_free(op), st = tt__linop_group(ctx, 4, 64, s.codes, s.scales, s.half, NULL, s.rows, s.cols, &op, &err);
        if (st == TT_OK) tt__linop_free(op), st = tt__linop_encode(ctx, TT_Q8_0, s.W, s.rows, s.cols, &op, &err);
        if (st == TT_OK) tt__linop_free(op);
        bool fired = tt__fault_fired();
        tt__fault_set(TT_FAULT_ALLOC, 0, TT_FAULT_OFF);
        TT_CHECK_EQ(st, fired ? TT_RESOURCE : TT_OK);
        TT_CHECK_EQ(tt__mem_now(), before);
    }
    free_sample(&s);
}
