/* Element types: tables, byte equality with the reference rounding, quality of the fits, and numbers at the edges.
 *
 * The hashes below were taken from bytes that llama-quantize (simple types) and the python package `gguf` (decoding of all types) agree with;
 * tests/formats/oracle.py repeats that comparison where the package is installed. They are taken over the output for values() below.
 */
#include "base/file.h"
#include "base/util.h"
#include "formats/corpus.h"
#include "formats/dtype.h"
#include "harness/tt_test.h"
#include <stdio.h>
#include <stdlib.h>

enum { N = 256 * 24 };
static const tt_dtype encodable[] = {TT_F32, TT_F16, TT_BF16, TT_Q4_0, TT_Q4_1, TT_Q5_0, TT_Q5_1, TT_Q8_0, TT_IQ4_NL, TT_Q2_K, TT_Q3_K, TT_Q4_K, TT_Q5_K, TT_Q6_K};
enum { N_ENCODABLE = sizeof encodable / sizeof *encodable };

/* Like weights: Gaussian-shaped (a sum of uniform numbers: the same on every machine), some rows scaled, shifted, sparse, constant or zero. */
static void values(float *x, int n) {
    tt__rng r;
    tt__rng_seed(&r, 7);
    for (int i = 0; i < n; i++) {
        int kind = i / 256 % 8;
        float v = 0;
        for (int k = 0; k < 12; k++) v += (float)tt__rng_unit(&r);
        v = (v - 6) * 0.05f;
        x[i] = kind == 1 ? v * 1000 : kind == 2 ? v * 1e-3f : kind == 3 ? v + 0.2f : kind == 4 ? (i % 3 ? 0 : v) : kind == 5 ? 0.125f : kind == 6 ? 0 : v;
    }
}
static void gaussian(float *x, int n, uint64_t seed) {
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int i = 0; i < n; i++) x[i] = (float)tt__rng_normal(&r);
}

static uint8_t *encode(tt_dtype t, const float *x, int n, const float *imatrix, uint64_t *bytes) {
    tt_err err = {0};
    TT_CHECK(tt__dtype_bytes(t, (uint64_t)n, bytes));
    uint8_t *b = tt__alloc(*bytes);
    TT_CHECK_OK(tt__dtype_encode(t, x, b, n, imatrix, &err));
    return b;
}

TT_CASE(table) {
    for (int t = 0; t < TT_DTYPE_COUNT; t++) {
        const tt_dtype_info *info = tt__dtype((tt_dtype)t);
        tt_dtype back;
        const char *name;
        uint64_t bytes;
        TT_CHECK(tt__dtype_from_gguf((uint32_t)info->gguf_id, &back, &name) && back == (tt_dtype)t);
        TT_CHECK(tt__dtype_from_name(info->label, &back) && back == (tt_dtype)t);
        TT_CHECK(tt__dtype_bytes((tt_dtype)t, (uint64_t)info->block * 3, &bytes) && bytes == (uint64_t)info->bytes * 3);
        TT_CHECK(info->block == 1 || !tt__dtype_bytes((tt_dtype)t, (uint64_t)info->block * 3 + 1, &bytes));
        TT_CHECK(info->bytes <= info->block || !tt__dtype_bytes((tt_dtype)t, UINT64_MAX / (uint64_t)info->block * (uint64_t)info->block, &bytes));
    }
    tt_dtype t;
    TT_CHECK(tt__dtype_from_name("q4_k", &t) && t == TT_Q4_K);
    TT_CHECK(!tt__dtype_from_name("Q4_K_M", &t) && !tt__dtype_from_name("", &t));
}

/* By hand, element by element, as weights.md A8 states the layouts. */
TT_CASE(simple_blocks_by_hand) {
    float x[32], y[32];
    for (int i = 0; i < 32; i++) x[i] = (float)(i - 16) / 8;             /* -2 … 1.875 */
    uint64_t n;
    uint8_t *b = encode(TT_Q4_0, x, 32, NULL, &n);
    TT_CHECK_NEAR(tt__f16_to_f32(tt__rd16(b)), 0.25, 0);                  /* d = -2 / -8 */
    for (int j = 0; j < 16; j++) {
        int lo = (int)(x[j] * 4 + 8.5f), hi = (int)(x[j + 16] * 4 + 8.5f);
        TT_CHECK_EQ(b[2 + j], (lo > 15 ? 15 : lo) | (hi > 15 ? 15 : hi) << 4);
    }
    tt__free(b);
    b = encode(TT_Q8_0, x, 32, NULL, &n);
    for (int j = 0; j < 32; j++) TT_CHECK_EQ((int8_t)b[2 + j], (int)roundf(x[j] * (1 / (2.0f / 127))));
    tt__free(b);
    b = encode(TT_Q5_1, x, 32, NULL, &n);
    for (int j = 0; j < 32; j++) {
        int nib = j < 16 ? b[8 + j] & 15 : b[8 + j - 16] >> 4, q = nib | (int)((tt__rd32(b + 4) >> j) & 1) << 4;
        TT_CHECK_EQ(q, j == 31 ? 31 : (int)((x[j] + 2) / (3.875f / 31) + 0.5f));
    }
    tt__dtype_decode(TT_Q5_1, b, y, 32);
    for (int j = 0; j < 32; j++) TT_CHECK_NEAR(y[j], x[j], 0.001);
    tt__free(b);
}

TT_CASE(bytes_equal_the_reference) {
    static const struct { tt_dtype type; const char *sha256; } known[] = {
#include "unit/formats/dtype_hashes.inc"
    };
    static float x[N];
    values(x, N);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char hex[65];
        uint64_t n;
        uint8_t *b = encode(known[i].type, x, N, NULL, &n);
        tt__sha256_hex(b, n, hex);
        tt__free(b);
        tt_test_note("%s", tt__dtype(known[i].type)->label);
        TT_CHECK_STR(hex, known[i].sha256);
    }
}

/* Decoding of any bytes, every type: hashes over f32 outputs of a fixed byte stream with finite scales. */
TT_CASE(decoded_values_equal_the_reference) {
    static const struct { tt_dtype type; const char *sha256; } known[] = {
#include "unit/formats/dtype_decode_hashes.inc"
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const tt_dtype_info *info = tt__dtype(known[i].type);
        static uint8_t b[8 * 256];
        static float x[8 * 256];
        char hex[65];
        for (size_t k = 0; k < sizeof b; k++) b[k] = (uint8_t)((k * 31 + k / 7 + 5) & 0x3f);
        tt__dtype_decode(known[i].type, b, x, info->block * 4);
        tt__sha256_hex(x, (size_t)info->block * 4 * sizeof *x, hex);
        tt_test_note("%s", info->label);
        TT_CHECK_STR(hex, known[i].sha256);
    }
}

static double relative_error(tt_dtype t, const float *x, const float *imatrix, const float *weight) {
    static float y[N];
    uint64_t n;
    uint8_t *b = encode(t, x, N, imatrix, &n);
    double e = 0, s = 0;
    tt__dtype_decode(t, b, y, N);
    tt__free(b);
    for (int i = 0; i < N; i++) {
        double w = weight ? (double)weight[i] : 1;
        e += w * ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
        s += w * (double)x[i] * (double)x[i];
    }
    return sqrt(e / s);
}

/* weights.md A8: relative RMS error of Gaussian rows; the bounds are its figures with a tenth on top for the rounding of sub-scales. */
TT_CASE(errors_of_gaussian_rows) {
    static const struct { tt_dtype type; double most; } bound[] = {{TT_F16, 3e-4}, {TT_BF16, 2.5e-3}, {TT_Q8_0, 0.0060}, {TT_Q6_K, 0.0195}, {TT_Q5_K, 0.038}, {TT_Q4_K, 0.077}, {TT_Q4_0, 0.095},
                                                                   {TT_Q3_K, 0.167}, {TT_Q2_K, 0.31}, {TT_Q4_1, 0.08}, {TT_Q5_0, 0.048}, {TT_Q5_1, 0.04}, {TT_IQ4_NL, 0.082}};
    static float x[N];
    gaussian(x, N, 3);
    for (size_t i = 0; i < sizeof bound / sizeof *bound; i++) {
        double e = relative_error(bound[i].type, x, NULL, NULL);
        tt_test_note("%s: %.4f", tt__dtype(bound[i].type)->label, e);
        TT_CHECK(e < bound[i].most && e > bound[i].most / 2);
    }
}

/* An importance matrix lowers the weighted error of every fitted type. */
TT_CASE(importance_lowers_the_weighted_error) {
    static float x[N], w[N];
    gaussian(x, N, 5);
    for (int i = 0; i < N; i++) w[i] = i % 7 == 0 ? 20 : i % 3 == 0 ? 3 : 0.2f;
    for (int i = 3; i < N_ENCODABLE; i++) {
        if (encodable[i] == TT_Q8_0) continue;
        double plain = relative_error(encodable[i], x, NULL, w), fitted = relative_error(encodable[i], x, w, w);
        tt_test_note("%s: %.4f plain, %.4f with importance", tt__dtype(encodable[i])->label, plain, fitted);
        TT_CHECK(fitted < plain);
    }
}

TT_CASE(importance_of_zero_and_of_huge_values) {
    static float x[N], w[N];
    static const float scales[] = {0, 1e-38f, 1e38f};
    gaussian(x, N, 6);
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < N; i++) w[i] = scales[k];
        for (int i = 3; i < N_ENCODABLE; i++) TT_CHECK(relative_error(encodable[i], x, w, NULL) < 0.4);
    }
    tt_err err = {0};
    uint8_t b[256];
    static const float bad[] = {-1, NAN, INFINITY};
    for (int k = 0; k < 3; k++) {
        w[5] = bad[k];
        TT_CHECK_FAILS(TT_BADFILE, tt__dtype_encode(TT_Q4_K, x, b, 256, w, &err));
    }
}

/* N4: zero, tiny, huge, infinite and broken values. What is accepted decodes to finite numbers near the input. */
TT_CASE(numbers_at_the_edges) {
    static const float accepted[] = {0, -0.0f, 1e-45f, 1e-38f, 1e-30f, 6e-8f, 65504, -65504};
    static const float refused[] = {65520, -3.4e38f, INFINITY, -INFINITY, NAN};
    float x[256], y[256];
    uint8_t b[1024];
    tt_err err = {0};
    for (int i = 1; i < N_ENCODABLE; i++) {
        tt_dtype t = encodable[i];
        if (t == TT_BF16) continue;
        for (size_t k = 0; k < sizeof accepted / sizeof *accepted; k++)
            for (int mixed = 0; mixed < 2; mixed++) {
                for (int j = 0; j < 256; j++) x[j] = mixed ? accepted[(k + (size_t)j) % 8] : accepted[k];
                tt_test_note("%s, %g, %d", tt__dtype(t)->label, (double)accepted[k], mixed);
                TT_CHECK_OK(tt__dtype_encode(t, x, b, 256, NULL, &err));
                tt__dtype_decode(t, b, y, 256);
                for (int j = 0; j < 256; j++) TT_CHECK(isfinite(y[j]) && (mixed || fabsf(y[j] - x[j]) <= 1e-7f + 0.35f * fabsf(x[j])));
            }
        for (size_t k = 0; k < sizeof refused / sizeof *refused; k++) {
            memset(x, 0, sizeof x);
            x[77] = refused[k];
            TT_CHECK_FAILS(TT_BADFILE, tt__dtype_encode(t, x, b, 256, NULL, &err));
        }
    }
    TT_CHECK_FAILS(TT_USAGE, tt__dtype_encode(TT_I8, x, b, 256, NULL, &err));
}

/* Any bytes decode without a fault; with finite scales to finite numbers. */
TT_CASE(any_bytes_decode) {
    tt__rng r;
    tt__rng_seed(&r, 1);
    for (int t = 0; t < TT_DTYPE_COUNT; t++) {
        const tt_dtype_info *info = tt__dtype((tt_dtype)t);
        uint8_t *b = tt__alloc((size_t)info->bytes);
        float x[256];
        for (int k = 0; k < 500; k++) {
            for (int64_t i = 0; i < info->bytes; i++) b[i] = (uint8_t)tt__rng_u64(&r);
            tt__dtype_decode((tt_dtype)t, b, x, info->block);
        }
        tt__free(b);
    }
}

/* For tests/formats/oracle.py: inputs, encoded bytes and decoded values of each type into a folder. */
TT_CASE(oracle_files) {
    const char *dir = getenv("TT_ORACLE_DIR");
    static float x[N], y[N];
    char path[512];
    tt_err err = {0};
    if (!dir) TT_SKIP("TT_ORACLE_DIR is not set");
    values(x, N);
    snprintf(path, sizeof path, "%s/input.f32", dir);
    TT_CHECK_OK(tt__write_file(path, x, sizeof x, &err));
    for (int i = 0; i < N_ENCODABLE; i++) {
        uint64_t n;
        uint8_t *b = encode(encodable[i], x, N, NULL, &n);
        tt__dtype_decode(encodable[i], b, y, N);
        snprintf(path, sizeof path, "%s/%s.bytes", dir, tt__dtype(encodable[i])->label);
        TT_CHECK_OK(tt__write_file(path, b, n, &err));
        snprintf(path, sizeof path, "%s/%s.f32", dir, tt__dtype(encodable[i])->label);
        TT_CHECK_OK(tt__write_file(path, y, sizeof y, &err));
        tt__free(b);
    }
}
