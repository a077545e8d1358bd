/* slide2 against sums in f64 over plain arrays, and each level against the reference, over all small shapes. */
#include "unit/kernels/guard.h"

typedef struct sample { tt_slide2 w; float *W; } sample;      /* W [rows, cols] */

/* A random legal place for each slot of a unit: columns rise; the last slots stay inside `cols` columns. */
static void random_places(int cols, int slots, int *at) {
    int last = -1;
    for (int s = 0; s < slots; s++) {
        const int low = 2 * s - 1 > last ? 2 * s - 1 : last + 1;
        int high = 2 * s + 2;
        if (high > cols - (slots - s)) high = cols - (slots - s);
        at[s] = last = low + (int)tt__rng_below(&rng, (uint64_t)(high - low + 1));
    }
}

static float half_value(uint16_t h) {
    const int e = h >> 10 & 31;
    return e ? ldexpf((float)(1024 + (h & 1023)), e - 25) : ldexpf((float)(h & 1023), -24);
}

static sample make(int64_t rows, int64_t cols, int group) {
    const int64_t panels = (rows + 15) / 16, units = (cols + 63) / 64, groups = (64 * units + group - 1) / group;
    uint8_t *codes = guard((size_t)(panels * units * TT_SLIDE2_BYTES));
    uint16_t *scales = guard((size_t)(panels * groups * 16) * sizeof *scales);
    sample s = {{group, rows, cols, units, groups, codes, scales}, guard((size_t)(rows * cols) * sizeof(float))};
    memset(codes, 0, (size_t)(panels * units * TT_SLIDE2_BYTES));
    memset(s.W, 0, (size_t)(rows * cols) * sizeof(float));
    for (int64_t i = 0; i < panels * groups * 16; i++)
        scales[i] = i / 16 / groups * 16 + i % 16 < rows ? (uint16_t)(0x1000 + tt__rng_below(&rng, 0x2000) + 0x8000 * tt__rng_below(&rng, 2)) : 0;
    for (int64_t r = 0; r < 16 * panels; r++)
        for (int64_t u = 0; u < units; u++) {
            uint8_t *unit = codes + (r / 16 * units + u) * TT_SLIDE2_BYTES;
            const int n = (int)(cols - 64 * u < 64 ? cols - 64 * u : 64), slots = r < rows ? (n + 1) / 2 : 0;
            int at[32];
            random_places(n, slots, at);
            for (int i = 0; i < 32; i++) {
                const uint16_t scale = scales[(r / 16 * groups + 64 * u / group) * 16 + r % 16];
                const int code = i < slots ? (int)tt__rng_below(&rng, 16) - 8 : 0;
                tt__slide2_put(unit, (int)(r % 16), i, code, i < slots ? at[i] - (2 * i - 1) : 1);
                if (i < slots) s.W[r * cols + 64 * u + at[i]] = half_value(scale & 0x7fff) * ((float)code + (scale >> 15 ? 0.5f : 0));
            }
        }
    return s;
}

static tt_unrolled unroll(const tt_kernels *k, const float *x, int64_t T, int64_t n) {
    tt_unrolled u = {T, (n + 63) / 64, guard((size_t)(T * ((n + 63) / 64) * TT_SLIDE2_TABLE)), guard((size_t)(T * ((n + 63) / 64)) * sizeof(float))};
    for (int64_t t = 0; t < T; t++) k->slide2_unroll(x + t * n, n, u.table + t * u.units * TT_SLIDE2_TABLE, u.d + t * u.units);
    return u;
}

static void check_shape(int64_t rows, int64_t cols, int group, int64_t T) {
    const tt_kernels *ref = level("scalar");
    const sample s = make(rows, cols, group);
    float *x = random_floats((size_t)(T * cols), 3.0f), *y = guard((size_t)(T * rows) * sizeof *y), *z = guard((size_t)(T * rows) * sizeof *z);
    const int64_t panels = (rows + 15) / 16;
    const tt_unrolled a = unroll(ref, x, T, cols);
    tt_test_note("rows %lld, cols %lld, group %d, T %lld", (long long)rows, (long long)cols, group, (long long)T);
    fill_nan(y, (size_t)(T * rows));
    ref->slide2_rowdot(&s.w, 0, panels, &a, y, rows);
    for (int64_t t = 0; t < T; t++)
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0, bound = 0;
            for (int64_t c = 0; c < cols; c++) {
                sum += (double)s.W[r * cols + c] * x[t * cols + c];
                bound += fabs((double)s.W[r * cols + c]) * a.d[t * a.units + c / 64];
            }
            TT_CHECK_NEAR(y[t * rows + r], sum, 0.51 * bound + 1e-6);
        }
    FOR_EACH_LEVEL(k) {
        const tt_unrolled b = unroll(k, x, T, cols);
        TT_CHECK(!memcmp(a.table, b.table, (size_t)(T * a.units * TT_SLIDE2_TABLE)) && !memcmp(a.d, b.d, (size_t)(T * a.units) * sizeof(float)));
        fill_nan(z, (size_t)(T * rows));
        k->slide2_rowdot(&s.w, 0, panels, &b, z, rows);
        for (int64_t i = 0; i < T * rows; i++) TT_CHECK_NEAR(z[i], y[i], 1e-4 * (fabsf(y[i]) + 0.1));
        for (int64_t p = 0; p < panels; p++) {                                   /* whole rows, then from the second unit on */
            const int64_t n = rows - 16 * p < 16 ? rows - 16 * p : 16;
            uint8_t *wide = guard((size_t)s.w.units * 1024);
            k->slide2_expand(&s.w, p, wide);
            for (int64_t i = 0; i < n * cols; i++) {
                const int64_t r = i / cols, c = i % cols;
                const uint16_t scale = tt__half_scale(s.w.scales[(p * s.w.groups + c / group) * 16 + r]);
                TT_CHECK_EQ(half_value(scale) * (float)(wide[c / 4 * 64 + 4 * r + c % 4] - 128), s.W[(16 * p + r) * cols + c]);
            }
            for (int64_t c0 = 0; c0 < cols && c0 <= 64; c0 += 64) {
                const int64_t width = cols - c0;
                float *w = guard((size_t)(n * width) * sizeof *w);
                fill_nan(w, (size_t)(n * width));
                k->slide2_decode(&s.w, p, c0, cols, w, width);
                for (int64_t i = 0; i < n * width; i++) TT_CHECK_EQ(w[i], s.W[(16 * p + i / width) * cols + c0 + i % width]);
            }
        }
    }
    release_all();
}

TT_CASE(all_columns) {
    tt__rng_seed(&rng, 1);
    for (int64_t cols = 1; cols <= 200; cols++) check_shape(1 + cols % 19, cols, cols % 2 ? 64 : 128, 1);
}

TT_CASE(all_rows) {
    for (int64_t rows = 1; rows <= 50; rows++) check_shape(rows, 130 + rows % 3, rows % 2 ? 64 : 128, 1 + rows % 8);
}

TT_CASE(tokens) {
    for (int64_t T = 1; T <= 8; T++) check_shape(33, 320, 64, T), check_shape(16, 192, 128, T);
}

TT_CASE(zero_and_foreign_activations) {
    FOR_EACH_LEVEL(k) {
        float *x = random_floats(150, 1.0f), d[3];
        uint8_t table[3 * TT_SLIDE2_TABLE];
        memset(x, 0, 64 * sizeof *x);
        x[70] = NAN;
        k->slide2_unroll(x, 150, table, d);
        TT_CHECK(d[0] == 0 && isnan(d[1]) && d[2] > 0);
        for (int i = 0; i < 2 * TT_SLIDE2_TABLE; i++) TT_CHECK_EQ(table[i], 128);
        x[70] = -INFINITY;
        k->slide2_unroll(x, 150, table, d);
        TT_CHECK(isnan(d[1]));
        release_all();
    }
}

/* Codes at both ends against activations at both ends: nothing saturates on the way. */
TT_CASE(extremes) {
    for (int sign = -1; sign <= 1; sign += 2)
        for (int half = 0; half < 2; half++) {
            sample s = make(16, 256, 64);
            uint8_t *codes = (uint8_t *)s.w.codes;
            float x[256], y[16];
            memset(codes, 0, 4 * TT_SLIDE2_BYTES);
            for (int i = 0; i < 16 * 4 * 32; i++) tt__slide2_put(codes + i / 512 * TT_SLIDE2_BYTES, i / 32 % 16, i % 32, sign < 0 ? -8 : 7, 1 + i % 2);
            for (int i = 0; i < 64; i++) ((uint16_t *)s.w.scales)[i] = (uint16_t)(0x3c00 | half << 15);
            for (int i = 0; i < 256; i++) x[i] = (float)sign * 127;
            FOR_EACH_LEVEL(k) {
                const tt_unrolled a = unroll(k, x, 1, 256);
                k->slide2_rowdot(&s.w, 0, 1, &a, y, 16);
                for (int r = 0; r < 16; r++) TT_CHECK_NEAR(y[r], 128 * 127 * ((sign < 0 ? 8 : 7) + sign * half * 0.5), 0);
            }
            release_all();
        }
}
