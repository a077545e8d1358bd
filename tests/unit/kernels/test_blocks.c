/* Block types, our own codes and rounded activations: decoders and rounding bit-equal on every level, products equal to the exact sum of
 * the same integers within float rounding. Every length from 1 to beyond 130, buffers that end at an unmapped page. */
#include "kernels/codes.h"
#include "unit/kernels/guard.h"

typedef void decode_fn(const uint8_t *src, float *dst, int64_t n);
typedef void rowdot_fn(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy);
typedef struct type { const char *name; int block, bytes, d, m; decode_fn *(*decode)(const tt_kernels *k); rowdot_fn *(*rowdot)(const tt_kernels *k); } type;

#define ACCESS(t)                                                                     \
    static decode_fn *decode_of_##t(const tt_kernels *k) { return k->decode_##t; }    \
    static rowdot_fn *rowdot_of_##t(const tt_kernels *k) { return k->rowdot_##t; }
ACCESS(q4_0) ACCESS(q4_1) ACCESS(q5_0) ACCESS(q5_1) ACCESS(q8_0) ACCESS(iq4_nl) ACCESS(q2_k) ACCESS(q3_k) ACCESS(q4_k) ACCESS(q5_k) ACCESS(q6_k)
#define TYPE(t, block, bytes, d, m) {#t, block, bytes, d, m, decode_of_##t, rowdot_of_##t}
/* offsets of d and m (or dmin) in a block; -1: none */
static const type types[] = {
    TYPE(q4_0, 32, 18, 0, -1),   TYPE(q4_1, 32, 20, 0, 2),      TYPE(q5_0, 32, 22, 0, -1),     TYPE(q5_1, 32, 24, 0, 2),
    TYPE(q8_0, 32, 34, 0, -1),   TYPE(iq4_nl, 32, 18, 0, -1),   TYPE(q2_k, 256, 84, 80, 82),   TYPE(q3_k, 256, 110, 108, -1),
    TYPE(q4_k, 256, 144, 0, 2),  TYPE(q5_k, 256, 176, 0, 2),    TYPE(q6_k, 256, 210, 208, -1),
};
enum { TYPES = sizeof types / sizeof *types };

static void put_half(uint8_t *p, float x) {
    const uint16_t h = tt__f32_to_f16(x);
    memcpy(p, &h, 2);
}

static uint8_t *random_blocks(const type *t, int64_t rows, int64_t blocks) {
    uint8_t *w = guard((size_t)(rows * blocks * t->bytes));
    for (int64_t i = 0; i < rows * blocks * t->bytes; i++) w[i] = (uint8_t)tt__rng_u64(&rng);
    for (int64_t b = 0; b < rows * blocks; b++) {
        put_half(w + b * t->bytes + t->d, 0.1f * uniform());
        if (t->m >= 0) put_half(w + b * t->bytes + t->m, 0.1f * uniform());
    }
    return w;
}

/* A tt_q8 of guarded arrays, rounded by the reference. */
static tt_q8 random_q8(int64_t T, int64_t n, float **plain) {
    tt_q8 x = {.T = T, .n = n, .blocks = (n + 31) / 32};
    x.n_pad = 32 * x.blocks;
    x.q = guard((size_t)(T * x.n_pad));
    x.d = guard((size_t)(T * x.blocks) * 4);
    x.sum = guard((size_t)(T * x.blocks) * 4);
    *plain = random_floats((size_t)(T * n), 3);
    for (int64_t t = 0; t < T; t++)
        level("scalar")->quant_q8(*plain + t * n, n, x.q + t * x.n_pad, x.d + t * x.blocks, x.sum + t * x.blocks);
    return x;
}

TT_CASE(decoders_are_bit_equal) {
    tt__rng_seed(&rng, 1);
    for (int i = 0; i < TYPES; i++)
        for (int64_t blocks = 1; blocks < 20; blocks++) {
            const type *t = &types[i];
            const int64_t n = blocks * t->block;
            const uint8_t *w = random_blocks(t, 1, blocks);
            float *want = guard((size_t)n * 4), *got = guard((size_t)n * 4);
            t->decode(level("scalar"))(w, want, n);
            FOR_EACH_LEVEL(k) {
                tt_test_note("%s, %s, %lld blocks", t->name, k->isa, (long long)blocks);
                fill_nan(got, (size_t)n);
                t->decode(k)(w, got, n);
                for (int64_t l = 0; l < n; l++) TT_CHECK(!memcmp(got + l, want + l, 4));
            }
            release_all();
        }
}

TT_CASE(rounding_is_bit_equal) {
    tt__rng_seed(&rng, 2);
    for (int64_t n = 1; n < 140; n++)
        for (int kind = 0; kind < 6; kind++) {
            const int64_t blocks = (n + 31) / 32;
            float *x = random_floats((size_t)n, kind == 1 ? 1e-37f : kind == 2 ? 1e30f : 1.0f);
            if (kind == 3) x[n / 2] = NAN;
            if (kind == 4) x[n / 2] = -INFINITY;
            for (int64_t i = 0; kind == 5 && i < n; i++) x[i] = 0.5f * (float)(i % 7 - 3) + (i % 32 == 0 ? 127.0f : 0.0f);      /* ties */
            int8_t *q = guard((size_t)(32 * blocks)), *rq = guard((size_t)(32 * blocks));
            float *d = guard((size_t)blocks * 4), *rd = guard((size_t)blocks * 4);
            int32_t *sum = guard((size_t)blocks * 4), *rsum = guard((size_t)blocks * 4);
            level("scalar")->quant_q8(x, n, rq, rd, rsum);
            FOR_EACH_LEVEL(k) {
                tt_test_note("%s, n %lld, kind %d", k->isa, (long long)n, kind);
                memset(q, 99, (size_t)(32 * blocks));
                k->quant_q8(x, n, q, d, sum);
                TT_CHECK(!memcmp(q, rq, (size_t)(32 * blocks)) && !memcmp(sum, rsum, (size_t)blocks * 4));
                for (int64_t b = 0; b < blocks; b++) TT_CHECK(!memcmp(d + b, rd + b, 4) || (isnan(d[b]) && isnan(rd[b])));
            }
            release_all();
        }
}

TT_CASE(rounding_means_what_it_says) {
    const float x[5] = {-127, 0.5f, 1.5f, -2.5f, 3};
    int8_t q[32];
    float d;
    int32_t sum;
    FOR_EACH_LEVEL(k) {
        k->quant_q8(x, 5, q, &d, &sum);
        TT_CHECK(q[0] == -127 && q[1] == 0 && q[2] == 2 && q[3] == -2 && q[4] == 3 && q[5] == 0 && d == 1.0f);
        TT_CHECK_EQ(sum, -124);
    }
}

/* y against Σ_b dx Σ w q in f64, with the decoded weights: they are exact, so only float summation differs. */
static void check_rowdot(const float *y, int64_t ldy, const float *w, int64_t ldw, int64_t rows, int64_t cols, const tt_q8 *x) {
    for (int64_t t = 0; t < x->T; t++)
        for (int64_t r = 0; r < rows; r++) {
            double want = 0, size = 0;
            for (int64_t i = 0; i < cols; i++) {
                const double p = (double)w[r * ldw + i] * (double)x->d[t * x->blocks + i / 32] * (double)x->q[t * x->n_pad + i];
                want += p;
                size += fabs(p);
            }
            /* offsets are taken off after the multiplication by up to 128 times smaller codes: the terms are larger than the products */
            TT_CHECK_NEAR(y[t * ldy + r], want, 40 * size * 0x1p-24 + (double)cols * 1e-6);
        }
}

TT_CASE(rowdot_of_blocks) {
    tt__rng_seed(&rng, 3);
    for (int i = 0; i < TYPES; i++)
        for (int64_t blocks = 1; blocks < 14; blocks++)
            for (int64_t T = 1; T <= 8; T += blocks % 3 + 1) {
                const type *t = &types[i];
                const int64_t rows = 1 + (blocks * 5 + T) % 11, cols = blocks * t->block, ldy = rows + 3;
                const uint8_t *w = random_blocks(t, rows, blocks);
                float *decoded = guard((size_t)(rows * cols) * 4), *y = guard((size_t)((T - 1) * ldy + rows) * 4), *plain;
                const tt_q8 x = random_q8(T, cols, &plain);
                t->decode(level("scalar"))(w, decoded, rows * cols);
                FOR_EACH_LEVEL(k) {
                    tt_test_note("%s, %s, %lld x %lld, T %lld", t->name, k->isa, (long long)rows, (long long)cols, (long long)T);
                    fill_nan(y, (size_t)((T - 1) * ldy + rows));
                    t->rowdot(k)(w, blocks * t->bytes, rows, cols, &x, y, ldy);
                    check_rowdot(y, ldy, decoded, cols, rows, cols, &x);
                    for (int64_t l = 0; l + 1 < T; l++) TT_CHECK(isnan(y[l * ldy + rows]));     /* beyond the row: untouched */
                }
                release_all();
            }
}

/* A row's sum may not depend on how many rows and activations share the call. */
TT_CASE(rowdot_of_blocks_is_the_same_alone) {
    tt__rng_seed(&rng, 4);
    for (int i = 0; i < TYPES; i++) {
        const type *t = &types[i];
        const int64_t rows = 7, blocks = 5, cols = blocks * t->block;
        const uint8_t *w = random_blocks(t, rows, blocks);
        float *plain, y[7 * 8], one;
        const tt_q8 x = random_q8(8, cols, &plain);
        FOR_EACH_LEVEL(k) {
            t->rowdot(k)(w, blocks * t->bytes, rows, cols, &x, y, rows);
            for (int64_t l = 0; l < 8; l++)
                for (int64_t r = 0; r < rows; r++) {
                    tt_test_note("%s, %s, %lld, %lld", t->name, k->isa, (long long)l, (long long)r);
                    const tt_q8 x1 = {1, x.n, x.n_pad, x.blocks, x.q + l * x.n_pad, x.d + l * x.blocks, x.sum + l * x.blocks};
                    t->rowdot(k)(w + r * blocks * t->bytes, blocks * t->bytes, 1, cols, &x1, &one, 1);
                    TT_CHECK(!memcmp(&one, &y[l * rows + r], 4));
                }
        }
        release_all();
    }
}

/* ---- our own codes ---- */

static const int all_bits[] = {2, 3, 4, 8}, all_groups[] = {32, 64, 128};

TT_CASE(codes_come_back) {
    tt__rng_seed(&rng, 5);
    for (int b = 0; b < 4; b++)
        for (int64_t n = 1; n <= 128; n++) {
            const int bits = all_bits[b];
            uint8_t codes[128], back[128], *packed = guard((size_t)tt__codes_bytes(bits, n)), *stream = guard((size_t)tt__stream_bytes(bits, n));
            for (int64_t i = 0; i < n; i++) codes[i] = (uint8_t)tt__rng_below(&rng, 1u << bits);
            tt__codes_pack(bits, codes, n, packed);
            tt__codes_unpack(bits, packed, n, back);
            TT_CHECK(!memcmp(codes, back, (size_t)n));
            tt__stream_pack(bits, codes, n, stream);
            tt__stream_unpack(bits, stream, n, back);
            TT_CHECK(!memcmp(codes, back, (size_t)n));
            release_all();
        }
}

static uint16_t *random_scales(int64_t n) {
    uint16_t *s = guard((size_t)n * 2);
    for (int64_t i = 0; i < n; i++) s[i] = (uint16_t)(tt__f32_to_f16(0.05f + 0.05f * fabsf(uniform())) | (tt__rng_u64(&rng) & 1) << 15);
    return s;
}

typedef struct grouped { int64_t stride, scale_stride; uint8_t *codes; uint16_t *scales, *mins; } grouped;

static grouped random_group(int bits, int group, bool with_mins, int64_t rows, int64_t cols) {
    grouped g = {.stride = tt__codes_row_bytes(bits, group, cols), .scale_stride = (cols + group - 1) / group};
    g.codes = guard((size_t)(rows * g.stride));
    g.scales = random_scales(rows * g.scale_stride);
    g.mins = with_mins ? random_scales(rows * g.scale_stride) : NULL;
    for (int64_t i = 0; i < rows * g.stride; i++) g.codes[i] = (uint8_t)tt__rng_u64(&rng);
    return g;
}

static void one_grid(int bits, int group, bool with_mins, int64_t rows, int64_t cols, int64_t T) {
    const grouped g = random_group(bits, group, with_mins, rows, cols);
    const int64_t ldy = rows + 1;
    float *want = guard((size_t)(rows * cols) * 4), *got = guard((size_t)cols * 4), *y = guard((size_t)((T - 1) * ldy + rows) * 4), *plain;
    const tt_q8 x = random_q8(T, cols, &plain);
    for (int64_t r = 0; r < rows; r++)
        level("scalar")->decode_group(g.codes + r * g.stride, g.scales + r * g.scale_stride, with_mins ? g.mins + r * g.scale_stride : NULL, bits, group, cols, 0, cols, want + r * cols);
    FOR_EACH_LEVEL(k) {
        tt_test_note("%d bits, group %d, mins %d, %s, %lld x %lld, T %lld", bits, group, with_mins, k->isa, (long long)rows, (long long)cols, (long long)T);
        for (int64_t c0 = 0; c0 < cols; c0 += group) {
            fill_nan(got, (size_t)cols);
            k->decode_group(g.codes, g.scales, g.mins, bits, group, cols, c0, cols, got + c0);
            TT_CHECK(!memcmp(got + c0, want + c0, (size_t)(cols - c0) * 4));
        }
        fill_nan(y, (size_t)((T - 1) * ldy + rows));
        k->rowdot_group(g.codes, g.stride, g.scales, g.mins, g.scale_stride, bits, group, rows, cols, &x, y, ldy);
        check_rowdot(y, ldy, want, cols, rows, cols, &x);
        for (int64_t l = 0; l + 1 < T; l++) TT_CHECK(isnan(y[l * ldy + rows]));
    }
    release_all();
}

static void one_group(int bits, int group, int64_t rows, int64_t cols, int64_t T) {
    one_grid(bits, group, false, rows, cols, T);
    one_grid(bits, group, true, rows, cols, T);
}

TT_CASE(groups_of_every_length) {
    tt__rng_seed(&rng, 6);
    for (int b = 0; b < 4; b++)
        for (int g = 0; g < 3; g++) {
            for (int64_t cols = 1; cols <= 140; cols++) one_group(all_bits[b], all_groups[g], 1 + cols % 6, cols, 1 + cols % 8);
            for (int64_t cols = 141; cols < 700; cols += 37) one_group(all_bits[b], all_groups[g], 5, cols, 1);
            one_group(all_bits[b], all_groups[g], 9, 576, 2);
            one_group(all_bits[b], all_groups[g], 4, 512, 1);
        }
}

typedef struct sparse { int64_t words, scale_stride; uint64_t *mask, *start; uint8_t *codes; uint16_t *scales; } sparse;

/* Row by row at odd starts; density from none to all. */
static sparse random_sparse(int bits, int group, int64_t rows, int64_t cols) {
    sparse s = {.words = (cols + 63) / 64, .scale_stride = (cols + group - 1) / group};
    uint64_t at = 0;
    s.mask = guard((size_t)(rows * s.words) * 8);
    s.start = guard((size_t)rows * 8);
    s.scales = random_scales(rows * s.scale_stride);
    for (int64_t r = 0; r < rows; r++) {
        s.start[r] = at;
        for (int64_t i = 0; i < s.words; i++) {
            const uint64_t a = tt__rng_u64(&rng), b = tt__rng_u64(&rng), kinds[5] = {a & b, a, a | b, ~0ull, 0};
            const int64_t left = cols - 64 * i;
            s.mask[r * s.words + i] = kinds[tt__rng_below(&rng, 5)] & (left >= 64 ? ~0ull : (1ull << left) - 1);
            at += (uint64_t)tt__stream_bytes(bits, __builtin_popcountll(s.mask[r * s.words + i]));
        }
    }
    s.codes = guard(at);
    for (uint64_t i = 0; i < at; i++) s.codes[i] = (uint8_t)tt__rng_u64(&rng);
    return s;
}

static void one_sparse(int bits, int group, int64_t rows, int64_t cols, int64_t T) {
    const sparse s = random_sparse(bits, group, rows, cols);
    const int64_t ldy = rows + 1, unit = group > 64 ? group : 64;
    float *want = guard((size_t)(rows * cols) * 4), *got = guard((size_t)cols * 4), *y = guard((size_t)((T - 1) * ldy + rows) * 4), *plain;
    const tt_q8 x = random_q8(T, cols, &plain);
    for (int64_t r = 0; r < rows; r++)
        level("scalar")->decode_sparseq(s.mask + r * s.words, s.codes + s.start[r], s.scales + r * s.scale_stride, bits, group, cols, 0, cols,
                                        want + r * cols);
    FOR_EACH_LEVEL(k) {
        tt_test_note("%d bits, group %d, %s, %lld x %lld, T %lld", bits, group, k->isa, (long long)rows, (long long)cols, (long long)T);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c0 = 0; c0 < cols; c0 += unit) {
                fill_nan(got, (size_t)cols);
                k->decode_sparseq(s.mask + r * s.words, s.codes + s.start[r], s.scales + r * s.scale_stride, bits, group, cols, c0, cols, got + c0);
                TT_CHECK(!memcmp(got + c0, want + r * cols + c0, (size_t)(cols - c0) * 4));
            }
        fill_nan(y, (size_t)((T - 1) * ldy + rows));
        k->rowdot_sparseq(s.mask, s.words, s.codes, s.start, s.scales, s.scale_stride, bits, group, rows, cols, &x, y, ldy);
        check_rowdot(y, ldy, want, cols, rows, cols, &x);
        for (int64_t l = 0; l + 1 < T; l++) TT_CHECK(isnan(y[l * ldy + rows]));
    }
    release_all();
}

TT_CASE(sparse_rows_of_every_length) {
    tt__rng_seed(&rng, 7);
    for (int b = 0; b < 4; b++)
        for (int g = 0; g < 3; g++) {
            for (int64_t cols = 1; cols <= 140; cols++) one_sparse(all_bits[b], all_groups[g], 1 + cols % 6, cols, 1 + cols % 8);
            for (int64_t cols = 141; cols < 700; cols += 37) one_sparse(all_bits[b], all_groups[g], 5, cols, 1);
            one_sparse(all_bits[b], all_groups[g], 9, 576, 2);
        }
}

/* A bad activation spoils its own outputs and no others. */
TT_CASE(nan_stays_with_its_row) {
    tt__rng_seed(&rng, 8);
    const type *t = &types[1];
    const uint8_t *w = random_blocks(t, 5, 3);
    float *plain, y[10];
    tt_q8 x = random_q8(2, 96, &plain);
    plain[40] = INFINITY;
    FOR_EACH_LEVEL(k) {
        k->quant_q8(plain, 96, x.q, x.d, x.sum);
        k->rowdot_q4_1(w, 3 * t->bytes, 5, 96, &x, y, 5);
        for (int r = 0; r < 5; r++) TT_CHECK(isnan(y[r]) && isfinite(y[5 + r]));
    }
    release_all();
}
