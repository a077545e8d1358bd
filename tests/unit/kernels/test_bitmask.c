/* bitmask against sums in f64 over plain arrays, and each level against the reference, over all small shapes. */
#include "unit/kernels/guard.h"

typedef struct sample { tt_bitmask w; float *W; } sample;     /* W [rows, cols] */

static float half_value(uint16_t h) {
    const int e = h >> 10 & 31;
    return e ? ldexpf((float)(1024 + (h & 1023)), e - 25) : ldexpf((float)(h & 1023), -24);
}

static sample make(int64_t rows, int64_t cols, int group, double density) {
    const int64_t panels = (rows + 15) / 16, units = (cols + 63) / 64, groups = (64 * units + group - 1) / group, blocks = 16 * units;
    uint64_t *mask = guard((size_t)(panels * blocks) * 8), *start = guard((size_t)(panels + 1) * 8), at = 0;
    uint16_t *scales = guard((size_t)(panels * groups * 16) * sizeof *scales);
    float *W = guard((size_t)(rows * cols) * sizeof *W);
    memset(W, 0, (size_t)(rows * cols) * sizeof *W);
    memset(mask, 0, (size_t)(panels * blocks) * 8);
    for (int64_t i = 0; i < panels * groups * 16; i++) scales[i] = (uint16_t)(0x1000 + tt__rng_below(&rng, 0x2000) + 0x8000 * tt__rng_below(&rng, 2));
    for (int64_t p = 0; p < panels; p++) {
        uint64_t count[2] = {0, 0};
        for (int64_t j = 0; j < blocks; j++)
            for (int bit = 0; bit < 64; bit++)
                if (16 * p + bit / 4 < rows && 4 * j + bit % 4 < cols && tt__rng_unit(&rng) < density) mask[p * blocks + j] |= 1ull << bit, count[j % 2]++;
        start[p] = at;
        at += count[0] > count[1] ? count[0] : count[1];
    }
    start[panels] = at;
    uint8_t *codes = guard((size_t)at + TT_BITMASK_TAIL);
    memset(codes, 0x5a, (size_t)at + TT_BITMASK_TAIL);         /* what is beyond a stream does not matter */
    for (int64_t p = 0; p < panels; p++) {
        uint64_t next[2] = {start[p], start[p]};
        for (int64_t j = 0; j < blocks; j++)
            for (int bit = 0; bit < 64; bit++) {
                if (!(mask[p * blocks + j] >> bit & 1)) continue;
                const int code = (int)tt__rng_below(&rng, 16) - 8, shift = (int)(j % 2) * 4;
                const int64_t r = 16 * p + bit / 4, c = 4 * j + bit % 4;
                uint8_t *byte = &codes[next[j % 2]++];
                *byte = (uint8_t)((*byte & ~(15 << shift)) | (code & 15) << shift);
                const uint16_t scale = scales[(p * groups + c / group) * 16 + r % 16];
                W[r * cols + c] = half_value(scale & 0x7fff) * ((float)code + (scale >> 15 ? 0.5f : 0));
            }
    }
    return (sample){{group, rows, cols, units, groups, mask, start, codes, scales}, W};
}

static tt_q8 rounded(const float *x, int64_t T, int64_t n) {
    const int64_t pad = (n + 63) / 64 * 64, blocks = pad / 32;
    tt_q8 q = {T, n, pad, blocks, guard((size_t)(T * pad)), guard((size_t)(T * blocks) * sizeof(float)), guard((size_t)(T * blocks) * sizeof(int32_t))};
    memset(q.q, 0, (size_t)(T * pad));
    memset(q.d, 0, (size_t)(T * blocks) * sizeof(float));
    memset(q.sum, 0, (size_t)(T * blocks) * sizeof(int32_t));
    for (int64_t t = 0; t < T; t++) level("scalar")->quant_q8(x + t * n, n, q.q + t * pad, q.d + t * blocks, q.sum + t * blocks);
    return q;
}

static void check_shape(int64_t rows, int64_t cols, int group, double density, int64_t T) {
    const tt_kernels *ref = level("scalar");
    const sample s = make(rows, cols, group, density);
    float *x = random_floats((size_t)(T * cols), 3.0f), *y = guard((size_t)(T * rows) * sizeof *y), *z = guard((size_t)(T * rows) * sizeof *z);
    const int64_t panels = (rows + 15) / 16;
    const tt_q8 a = rounded(x, T, cols);
    tt_test_note("rows %lld, cols %lld, group %d, T %lld", (long long)rows, (long long)cols, group, (long long)T);
    fill_nan(y, (size_t)(T * rows));
    ref->bitmask_rowdot(&s.w, 0, panels, &a, y, rows);
    for (int64_t t = 0; t < T; t++)
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0, size = 0;
            for (int64_t c = 0; c < cols; c++) {
                const double v = (double)s.W[r * cols + c] * a.q[t * a.n_pad + c] * a.d[t * a.blocks + c / 32];
                sum += v;
                size += fabs(v);
            }
            TT_CHECK_NEAR(y[t * rows + r], sum, 1e-5 * size + 1e-6);
        }
    for (const char *const *name = tt__kernels_levels(); *name; name++) {
        const tt_kernels *k = level(*name);
        fill_nan(z, (size_t)(T * rows));
        k->bitmask_rowdot(&s.w, 0, panels, &a, z, rows);
        for (int64_t i = 0; i < T * rows; i++) TT_CHECK_NEAR(z[i], y[i], 1e-4 * (fabsf(y[i]) + 0.1));
        for (int64_t p = 0; p < panels; p++) {
            const int64_t n = rows - 16 * p < 16 ? rows - 16 * p : 16;
            uint8_t *wide = guard((size_t)s.w.units * 1024);
            k->bitmask_expand(&s.w, p, wide);
            for (int64_t i = 0; i < n * cols; i++) {
                const int64_t r = i / cols, c = i % cols;
                const uint16_t scale = tt__half_scale(s.w.scales[(p * s.w.groups + c / group) * 16 + r]);
                TT_CHECK_EQ(half_value(scale) * (float)(wide[c / 4 * 64 + 4 * r + c % 4] - 128), s.W[(16 * p + r) * cols + c]);
            }
            for (int64_t c0 = 0; c0 < cols && c0 <= 64; c0 += 64) {
                const int64_t width = cols - c0;
                float *w = guard((size_t)(n * width) * sizeof *w);
                fill_nan(w, (size_t)(n * width));
                k->bitmask_decode(&s.w, p, c0, cols, w, width);
                for (int64_t i = 0; i < n * width; i++) TT_CHECK_EQ(w[i], s.W[(16 * p + i / width) * cols + c0 + i % width]);
            }
        }
    }
    release_all();
}

TT_CASE(all_columns) {
    static const int groups[] = {32, 64, 128};
    static const double density[] = {0, 0.5, 0.25, 1, 0.9};
    tt__rng_seed(&rng, 1);
    for (int64_t cols = 1; cols <= 200; cols++) check_shape(1 + cols % 19, cols, groups[cols % 3], density[cols % 5], 1);
}

TT_CASE(all_rows) {
    static const int groups[] = {32, 64, 128};
    for (int64_t rows = 1; rows <= 50; rows++) check_shape(rows, 130 + rows % 3, groups[rows % 3], 0.5, 1 + rows % 8);
}

TT_CASE(tokens) {
    for (int64_t T = 1; T <= 8; T++) check_shape(33, 320, 64, 0.5, T), check_shape(16, 192, 32, 0.5, T);
}
