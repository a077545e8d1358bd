/* Element types: the table, the names of the types we refuse, and the plain decoders.
 *
 * The decoders are the definition of every block type (weights.md A8 quotes the layouts); kernels/ref and the vector kernels are
 * tested against them. A block is read byte by byte at any alignment. What the bits of a scale say is what comes out: a file may
 * hold a NaN or infinite f16 scale, and then the decoded weights are not finite; whoever computes with them looks (N1).
 * Encoding lives in dtype_encode.c.
 */
#include "formats/dtype.h"
#include "base/checked.h"
#include "base/util.h"
#include "formats/dtype_blocks.h"
#include <assert.h>
#include <stdio.h>
#include <strings.h>

/* ---- the table ---- */

/* general.file_type of a file most of whose weights are of this type; K types stand for their usual "M" mix; -1: none */
enum { FT_F32 = 0, FT_F16 = 1, FT_Q4_0 = 2, FT_Q4_1 = 3, FT_Q8_0 = 7, FT_Q5_0 = 8, FT_Q5_1 = 9, FT_Q2_K = 10, FT_Q3_K = 12, FT_Q4_K = 15,
       FT_Q5_K = 17, FT_Q6_K = 18, FT_IQ4_NL = 25, FT_BF16 = 32, FT_I8 = -1, FT_I16 = -1, FT_I32 = -1, FT_I64 = -1, FT_F64 = -1 };

static const tt_dtype_info table[TT_DTYPE_COUNT] = {
#define TT_DTYPE(name, id, block, bytes, label) {label, id, block, bytes, (block) > 1, FT_##name},
#include "formats/dtypes.inc"
#undef TT_DTYPE
};

const tt_dtype_info *tt__dtype(tt_dtype t) {
    assert((unsigned)t < TT_DTYPE_COUNT);
    return &table[t];
}

/* Types of other programs, so that a refusal can name them: ggml's (alive and retired) and those of ik_llama.cpp from 97 on. */
static const struct { uint32_t id; const char *name; } foreign[] = {
    {4, "Q4_2 (retired)"}, {5, "Q4_3 (retired)"}, {9, "Q8_1"}, {15, "Q8_K"}, {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
    {21, "IQ3_S"}, {22, "IQ2_S"}, {23, "IQ4_XS"}, {29, "IQ1_M"}, {31, "Q4_0_4_4 (retired)"}, {32, "Q4_0_4_8 (retired)"},
    {33, "Q4_0_8_8 (retired)"}, {34, "TQ1_0"}, {35, "TQ2_0"}, {36, "IQ4_NL_4_4 (retired) or I2_S"}, {37, "IQ4_NL_4_8 (retired)"},
    {38, "IQ4_NL_8_8 (retired)"}, {39, "MXFP4"}, {40, "NVFP4"}, {41, "Q1_0"}, {42, "Q2_0"}, {97, "Q8_0_X4"}, {98, "Q8_1_X4"}, {99, "Q8_2_X4"},
    {133, "Q6_0"}, {134, "IQ1_BN"}, {135, "IQ2_BN"}, {136, "Q8_K64"}, {137, "IQ2_K"}, {138, "IQ3_K"}, {139, "IQ4_K"}, {140, "IQ5_K"},
    {141, "IQ6_K"}, {144, "IQ4_KS"}, {145, "IQ2_KS"}, {146, "IQ4_KSS"}, {147, "Q8_K16"}, {148, "Q8_K32"}, {149, "Q8_KR8"}, {150, "Q8_K128"},
    {151, "Q8_KV"}, {152, "IQ5_KS"}, {153, "IQ2_KT"}, {154, "IQ3_KT"}, {155, "IQ4_KT"}, {156, "IQ3_KS"}, {157, "IQ2_KL"}, {158, "IQ1_KT"},
};

bool tt__dtype_from_gguf(uint32_t id, tt_dtype *out, const char **name) {
    static _Thread_local char unknown[24];
    for (int t = 0; t < TT_DTYPE_COUNT; t++)
        if ((uint32_t)table[t].gguf_id == id) {
            *out = (tt_dtype)t;
            if (name) *name = table[t].label;
            return true;
        }
    if (!name) return false;
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (foreign[i].id == id) {
            *name = foreign[i].name;
            return false;
        }
    snprintf(unknown, sizeof unknown, "unknown type %u", id);
    *name = unknown;
    return false;
}

bool tt__dtype_from_name(const char *name, tt_dtype *out) {
    for (int t = 0; t < TT_DTYPE_COUNT; t++)
        if (strcasecmp(name, table[t].label) == 0) {
            *out = (tt_dtype)t;
            return true;
        }
    return false;
}

bool tt__dtype_bytes(tt_dtype t, uint64_t n, uint64_t *out) {
    uint64_t block = (uint64_t)table[t].block;
    return n % block == 0 && tt__mul_u64(n / block, (uint64_t)table[t].bytes, out);
}

/* ---- decoders: one block each; h16 is an f16 of the file ---- */

static float h16(const uint8_t *p) { return tt__f16_to_f32(tt__rd16(p)); }

/* x = (q - 8) d */
static void decode_q4_0(const uint8_t *b, float *x) {
    float d = h16(b);
    for (int j = 0; j < 16; j++) {
        x[j] = (float)((b[2 + j] & 15) - 8) * d;
        x[j + 16] = (float)((b[2 + j] >> 4) - 8) * d;
    }
}

/* x = q d + m */
static void decode_q4_1(const uint8_t *b, float *x) {
    float d = h16(b), m = h16(b + 2);
    for (int j = 0; j < 16; j++) {
        x[j] = (float)(b[4 + j] & 15) * d + m;
        x[j + 16] = (float)(b[4 + j] >> 4) * d + m;
    }
}

/* The 5-bit code of element j: low nibbles qs[16], then bit 4 from qh. */
static int q5(const uint8_t *qs, uint32_t qh, int j) {
    int nibble = j < 16 ? qs[j] & 15 : qs[j - 16] >> 4;
    return nibble | (int)((qh >> j) & 1) << 4;
}

/* x = (q - 16) d */
static void decode_q5_0(const uint8_t *b, float *x) {
    float d = h16(b);
    uint32_t qh = tt__rd32(b + 2);
    for (int j = 0; j < 32; j++) x[j] = (float)(q5(b + 6, qh, j) - 16) * d;
}

/* x = q d + m */
static void decode_q5_1(const uint8_t *b, float *x) {
    float d = h16(b), m = h16(b + 2);
    uint32_t qh = tt__rd32(b + 4);
    for (int j = 0; j < 32; j++) x[j] = (float)q5(b + 8, qh, j) * d + m;
}

/* x = q d */
static void decode_q8_0(const uint8_t *b, float *x) {
    float d = h16(b);
    for (int j = 0; j < 32; j++) x[j] = (float)(int8_t)b[2 + j] * d;
}

/* x = codebook[q] d */
static void decode_iq4_nl(const uint8_t *b, float *x) {
    float d = h16(b);
    for (int j = 0; j < 16; j++) {
        x[j] = d * (float)tt__iq4_nl[b[2 + j] & 15];
        x[j + 16] = d * (float)tt__iq4_nl[b[2 + j] >> 4];
    }
}

/* K blocks: element e = 128 h + 32 t + l. x = d (s & 15) q - dmin (s >> 4), a scale byte s per 16 elements. */
static void decode_q2_k(const uint8_t *b, float *x) {
    const uint8_t *scales = b, *qs = b + 16;
    float d = h16(b + 80), dmin = h16(b + 82);
    for (int e = 0; e < 256; e++) {
        int h = e / 128, t = e % 128 / 32, l = e % 32, s = scales[e / 16];
        int q = (qs[32 * h + l] >> (2 * t)) & 3;
        x[e] = d * (float)(s & 15) * (float)q - dmin * (float)(s >> 4);
    }
}

/* x = d (scale - 32) (low - (high ? 0 : 4)) */
static void decode_q3_k(const uint8_t *b, float *x) {
    const uint8_t *hmask = b, *qs = b + 32, *scales = b + 96;
    float d = h16(b + 108);
    for (int j = 0; j < 16; j++) {
        int lo = j < 8 ? scales[j] & 15 : scales[j - 8] >> 4;
        int hi = (scales[8 + j % 4] >> (2 * (j / 4))) & 3;
        float scale = d * (float)((lo | hi << 4) - 32);
        for (int e = 16 * j; e < 16 * j + 16; e++) {
            int h = e / 128, t = e % 128 / 32, l = e % 32;
            int low = (qs[32 * h + l] >> (2 * t)) & 3;
            x[e] = scale * (float)(low - ((hmask[l] >> (e / 32)) & 1 ? 0 : 4));
        }
    }
}

/* x = d sc q - dmin mn, six-bit pair (sc, mn) per 32 elements; Q5_K adds a fifth bit from qh */
static void decode_q45_k(const uint8_t *b, const uint8_t *qh, const uint8_t *qs, float *x) {
    float d = h16(b), dmin = h16(b + 2);
    for (int j = 0; j < 8; j++) {
        int sc, mn;
        tt__k_scale_pair(b + 4, j, &sc, &mn);
        float scale = d * (float)sc, min = dmin * (float)mn;
        for (int l = 0; l < 32; l++) {
            uint8_t byte = qs[32 * (j / 2) + l];
            int q = j % 2 ? byte >> 4 : byte & 15;
            if (qh) q |= ((qh[l] >> j) & 1) << 4;
            x[32 * j + l] = scale * (float)q - min;
        }
    }
}
static void decode_q4_k(const uint8_t *b, float *x) { decode_q45_k(b, NULL, b + 16, x); }
static void decode_q5_k(const uint8_t *b, float *x) { decode_q45_k(b, b + 16, b + 48, x); }

/* x = d scale (q - 32) */
static void decode_q6_k(const uint8_t *b, float *x) {
    const uint8_t *ql = b, *qh = b + 128, *scales = b + 192;
    float d = h16(b + 208);
    for (int e = 0; e < 256; e++) {
        int h = e / 128, t = e % 128 / 32, l = e % 32;
        uint8_t byte = ql[64 * h + 32 * (t & 1) + l];
        int q = (t < 2 ? byte & 15 : byte >> 4) | ((qh[32 * h + l] >> (2 * t)) & 3) << 4;
        x[e] = d * (float)(int8_t)scales[e / 16] * (float)(q - 32);
    }
}

static void (*const decoders[TT_DTYPE_COUNT])(const uint8_t *block, float *x) = {
    [TT_Q4_0] = decode_q4_0, [TT_Q4_1] = decode_q4_1, [TT_Q5_0] = decode_q5_0, [TT_Q5_1] = decode_q5_1, [TT_Q8_0] = decode_q8_0,
    [TT_IQ4_NL] = decode_iq4_nl, [TT_Q2_K] = decode_q2_k, [TT_Q3_K] = decode_q3_k, [TT_Q4_K] = decode_q4_k, [TT_Q5_K] = decode_q5_k,
    [TT_Q6_K] = decode_q6_k,
};

static float number(tt_dtype t, const uint8_t *p) {
    switch (t) {
    case TT_F16: return h16(p);
    case TT_BF16: return tt__bf16_to_f32(tt__rd16(p));
    case TT_I8: return (float)(int8_t)*p;
    case TT_I16: return (float)(int16_t)tt__rd16(p);
    case TT_I32: return (float)(int32_t)tt__rd32(p);
    case TT_I64: return (float)(int64_t)tt__rd64(p);
    case TT_F64: return tt__f64_to_f32(tt__rd64(p));
    default: return tt__rdf32(p);
    }
}

void tt__dtype_decode(tt_dtype t, const void *src, float *dst, int64_t n) {
    const uint8_t *s = src;
    const tt_dtype_info *info = tt__dtype(t);
    assert(n % info->block == 0);
    if (t == TT_F32) memcpy(dst, src, (size_t)n * sizeof(float));
    else if (decoders[t]) for (int64_t i = 0; i < n; i += info->block, s += info->bytes) decoders[t](s, dst + i);
    else for (int64_t i = 0; i < n; i++, s += info->bytes) dst[i] = number(t, s);
}
