/* Trellis codes: each level against the reference, bit by bit; the search against trying all codes; the distortion of normal data. Hadamard matrices. */
#include "unit/kernels/guard.h"

#include "kernels/hadamard.h"
#include <stdlib.h>

static void fill_random(uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)tt__rng_below(&rng, 256);
}

static tt_trellis make(int64_t rows, int64_t cols, int tile, int64_t group, int states) {
    const int64_t padded = (rows + 15) / 16 * 16, groups = (cols + group - 1) / group;
    uint8_t *rates = guard((size_t)cols);
    int64_t *start = guard((size_t)(cols + 1) * sizeof *start);
    uint16_t *scales = guard((size_t)(groups * padded) * sizeof *scales), *gains = guard((size_t)cols * sizeof *gains);
    start[0] = 0;
    for (int64_t c = 0; c < cols; c++) {
        rates[c] = (uint8_t)tt__rng_below(&rng, 7);
        start[c + 1] = start[c] + padded / 8 * rates[c];
        gains[c] = (uint16_t)(0x2000 + tt__rng_below(&rng, 0x1000));
    }
    for (int64_t i = 0; i < groups * padded; i++) scales[i] = i % 7 == 3 ? 0 : (uint16_t)(0x1800 + tt__rng_below(&rng, 0x2000));
    uint8_t *codes = guard((size_t)start[cols] + !start[cols]);
    fill_random(codes, (size_t)start[cols]);
    return (tt_trellis){states, tile, group, rows, padded, cols, rates, start, codes, scales, gains};
}

TT_CASE(decoders_are_equal_bit_by_bit) {
    tt__rng_seed(&rng, 7);
    const tt_kernels *ref = level("scalar");
    static const int shapes[][5] = {{16, 7, 16, 7, 10}, {5, 3, 192, 3, 12}, {192, 9, 192, 32, 12}, {200, 5, 64, 5, 16}, {300, 66, 256, 32, 14}, {48, 1, 32, 64, 11}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const tt_trellis w = make(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], shapes[i][4]);
        float *a = guard((size_t)w.cols * 64), *b = guard((size_t)w.cols * 64);
        tt_test_note("shape %zu", i);
        for (int64_t r = 0; r < w.padded; r += 16) {
            ref->trellis_decode(&w, r, 0, w.cols, a);
            FOR_EACH_LEVEL(k) {
                k->trellis_decode(&w, r, 0, w.cols, b);
                TT_CHECK(!memcmp(a, b, (size_t)w.cols * 64));
                if (w.cols < 3) continue;
                k->trellis_decode(&w, r, 2, w.cols, b);
                TT_CHECK(!memcmp(a + 32, b, (size_t)(w.cols - 2) * 64));
            }
        }
    }
    release_all();
}

TT_CASE(searches_are_equal_bit_by_bit) {
    tt__rng_seed(&rng, 9);
    const tt_kernels *ref = level("scalar");
    enum { N = 64, L = 10 };
    float value[1 << L], x[N], weight[N], y[N], z[N];
    tt__trellis_values(L, value);
    for (int bits = 1; bits <= 6; bits++) {
        void *room = guard(tt__trellis_room(L, bits));
        uint8_t a[N], b[N];
        for (int i = 0; i < N; i++) x[i] = (float)tt__rng_normal(&rng), weight[i] = i % 5 ? 0.5f + (float)tt__rng_unit(&rng) : 0;
        for (int n = 16; n <= N; n += 16) {
            const double sum = tt__trellis_encode(ref, L, bits, value, x, weight, n, room, a, y);
            for (int i = 0; i < n; i++) TT_CHECK_EQ((float)tt__trellis_value(tt__trellis_window(a, n, bits, L, i)) / TT_TRELLIS_SPREAD == y[i], 1);
            FOR_EACH_LEVEL(k) {
                TT_CHECK(tt__trellis_encode(k, L, bits, value, x, weight, n, room, b, z) == sum);
                TT_CHECK(!memcmp(a, b, (size_t)(n * bits / 8)) && !memcmp(y, z, (size_t)n * sizeof *y));
            }
        }
    }
    release_all();
}

/* All code words of 16 weights at one bit that agree with the one found on the bits of the seam: none is better. */
TT_CASE(search_finds_the_best_code_word_of_its_seam) {
    tt__rng_seed(&rng, 5);
    const tt_kernels *k = level(NULL);
    enum { N = 16, L = 10, SEAM_BITS = L - 1 };
    float value[1 << L], x[N], weight[N], y[N];
    void *room = guard(tt__trellis_room(L, 1));
    tt__trellis_values(L, value);
    for (int trial = 0; trial < 20; trial++) {
        uint8_t codes[N / 8];
        double best = 1e30;
        for (int i = 0; i < N; i++) x[i] = (float)tt__rng_normal(&rng), weight[i] = 0.5f + (float)tt__rng_unit(&rng);
        const double sum = tt__trellis_encode(k, L, 1, value, x, weight, N, room, codes, y);
        const uint32_t seam = (codes[0] | (uint32_t)codes[1] << 8) & ((1u << SEAM_BITS) - 1);
        for (uint32_t word = seam; word < 1u << N; word += 1u << SEAM_BITS) {
            double cost = 0;
            for (int i = 0; i < N; i++) {
                const uint32_t s = ((word >> i) | (i ? word << (N - i) : 0)) & ((1u << L) - 1);
                cost += (double)weight[i] * ((double)x[i] - (double)value[s]) * ((double)x[i] - (double)value[s]);
            }
            if (cost < best) best = cost;
        }
        TT_CHECK_NEAR(sum, best, 1e-5 * best);
    }
    release_all();
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Mean squared error of the best scalar code of so many bits for these n numbers, which are sorted on the way (Lloyd, Max). */
static double lloyd_max(double *x, int n, int bits) {
    double level[16], error = 0;
    const int levels = 1 << bits;
    qsort(x, (size_t)n, sizeof *x, by_size);
    for (int i = 0; i < levels; i++) level[i] = x[(2 * i + 1) * n / (2 * levels)];
    for (int round = 0; round < 200; round++) {
        double sum[16] = {0}, count[16] = {0};
        error = 0;
        for (int i = 0, l = 0; i < n; i++) {
            while (l + 1 < levels && x[i] > (level[l] + level[l + 1]) / 2) l++;
            sum[l] += x[i], count[l]++;
            error += (x[i] - level[l]) * (x[i] - level[l]);
        }
        for (int l = 0; l < levels; l++)
            if (count[l] > 0) level[l] = sum[l] / count[l];
    }
    return error / n;
}

/* Mean squared error of unit normal data, 4096 states, tiles of 192: 0.0751, 0.0200, 0.0053 at 2, 3, 4 bits; the best scalar codes have 0.1175, 0.0345, 0.0095. */
TT_CASE(distortion_of_normal_data) {
    tt__rng_seed(&rng, 13);
    static const struct { int bits; float spread; double most, least, scalar; } want[] = {{2, 1.02f, 0.0785, 0.072, 0.1175}, {3, 1.06f, 0.0209, 0.0186, 0.0345}, {4, 1.10f, 0.0054, 0.0045, 0.0095}};
    static double data[192 * 24];
    const tt_kernels *k = level(NULL);
    enum { L = 12, N = 192, TILES = 24 };
    float *value = guard(sizeof(float) << L), x[N], weight[N], y[N];
    uint8_t codes[N];
    if (!strcmp(k->isa, "scalar")) TT_SKIP("minutes without vectors");
    tt__trellis_values(L, value);
    for (size_t w = 0; w < 3; w++) {
        void *room = guard(tt__trellis_room(L, want[w].bits));
        double error = 0, squares = 0;
        for (int t = 0; t < TILES; t++) {
            for (int i = 0; i < N; i++) {
                const double g = tt__rng_normal(&rng);
                squares += g * g;
                data[t * N + i] = g;
                x[i] = (float)g / want[w].spread, weight[i] = want[w].spread * want[w].spread;
            }
            error += tt__trellis_encode(k, L, want[w].bits, value, x, weight, N, room, codes, y);
        }
        tt_test_note("%d bits: %.5f", want[w].bits, error / squares);
        TT_CHECK(error / squares < want[w].most && error / squares > want[w].least);
        const double scalar = lloyd_max(data, N * TILES, want[w].bits);
        tt_test_note("%d bits, scalar: %.5f", want[w].bits, scalar);
        TT_CHECK_NEAR(scalar, want[w].scalar, 0.08 * want[w].scalar);
        TT_CHECK(error / (N * TILES) < 0.7 * scalar);
    }
    release_all();
}

TT_CASE(hadamard_matrices_are_orthogonal) {
    tt__rng_seed(&rng, 15);
    static const int orders[] = {1, 2, 4, 8, 12, 20, 24, 28, 48, 64, 144, 192, 240, 336, 576, 1536};
    const tt_kernels *ref = level("scalar");
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        const int n = orders[o];
        float *x = guard((size_t)n * 64), *y = guard((size_t)n * 64), *z = guard((size_t)n * 64);
        tt_test_note("order %d", n);
        TT_CHECK(tt__hadamard_exists(n));
        for (int i = 0; i < n * 16; i++) x[i] = (float)((int)tt__rng_below(&rng, 201) - 100);        /* whole numbers: sums are exact */
        memcpy(y, x, (size_t)n * 64);
        ref->hadamard_lanes(y, n, 0);
        FOR_EACH_LEVEL(k) {
            memcpy(z, x, (size_t)n * 64);
            k->hadamard_lanes(z, n, 0);
            TT_CHECK(!memcmp(y, z, (size_t)n * 64));
            k->hadamard_lanes(z, n, 1);
            for (int i = 0; i < n * 16; i++) TT_CHECK_EQ(z[i], n * x[i]);
        }
        memset(x, 0, (size_t)n * 64);                                                                /* entries are ±1 */
        x[(n - 1) * 16] = 1;
        ref->hadamard_lanes(x, n, 0);
        for (int i = 0; i < n; i++) TT_CHECK_EQ(fabsf(x[i * 16]), 1);
    }
    static const int none[] = {0, -4, 3, 6, 9, 36, 44, 100, 4096};
    for (size_t o = 0; o < sizeof none / sizeof *none; o++) TT_CHECK(!tt__hadamard_exists(none[o]));
    release_all();
}
