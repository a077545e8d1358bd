/* The bf16 tile and its packers: the definitions. A word is two bf16 side by side, so a step of the tile takes two k at once. */
#include "kernels/half.h"
#include "kernels/isa.h"

enum { MR = 4, NR = 16 };

/* To nearest, ties to even, as vcvtneps2bf16 does; a NaN becomes quiet. */
static uint32_t to_bf16(float x) {
    const uint32_t u = f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return u >> 16 | 0x40u;
    return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

static float word_of(float low, float high) { return half_bits_to_f32(to_bf16(low) | to_bf16(high) << 16); }
static float low_of(float word) { return bf16_bits_to_f32((uint16_t)(f32_bits(word) & 0xffffu)); }
static float high_of(float word) { return bf16_bits_to_f32((uint16_t)(f32_bits(word) >> 16)); }

static void gemm_ukr_bf16(int64_t words, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    float sum[MR][NR] = {{0}};
    for (int64_t p = 0; p < words; p++)
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < NR; j++) {
                const float a = Ap[p * MR + i], b = Bp[p * NR + j];
                sum[i][j] += high_of(a) * high_of(b);
                sum[i][j] += low_of(a) * low_of(b);
            }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) C[i * ldc + j] = accumulate ? C[i * ldc + j] + sum[i][j] : sum[i][j];
}

static void pack_rows_bf16(float *dst, const float *src, int64_t ld, int rows, int64_t k, int r) {
    for (int64_t p = 0; p < k; p += 2)
        for (int i = 0; i < r; i++) dst[p / 2 * r + i] = i < rows ? word_of(src[i * ld + p], p + 1 < k ? src[i * ld + p + 1] : 0.0f) : 0.0f;
}

static void pack_cols_bf16(float *dst, const float *src, int64_t ld, int64_t k, int cols, int r) {
    for (int64_t p = 0; p < k; p += 2)
        for (int i = 0; i < r; i++) dst[p / 2 * r + i] = i < cols ? word_of(src[p * ld + i], p + 1 < k ? src[(p + 1) * ld + i] : 0.0f) : 0.0f;
}

void tt__kernels_ref_bf16(tt_kernels *k) {
    k->bf16 = 1;
    k->gemm_ukr_bf16 = gemm_ukr_bf16;
    k->pack_rows_bf16 = pack_rows_bf16;
    k->pack_cols_bf16 = pack_cols_bf16;
}
