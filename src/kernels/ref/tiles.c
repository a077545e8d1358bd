/* The matrix tile and its packers, and products of f32 and 16-bit rows: the definitions. */
#include "kernels/half.h"
#include "kernels/isa.h"

enum { MR = 4, NR = 16 };

static void gemm_ukr(int64_t k, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    float sum[MR][NR] = {{0}};
    for (int64_t p = 0; p < k; p++)
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < NR; j++) sum[i][j] += Ap[p * MR + i] * Bp[p * NR + j];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) C[i * ldc + j] = accumulate ? C[i * ldc + j] + sum[i][j] : sum[i][j];
}

static void pack_rows(float *dst, const float *src, int64_t ld, int rows, int64_t k, int r) {
    for (int64_t p = 0; p < k; p++)
        for (int i = 0; i < r; i++) dst[p * r + i] = i < rows ? src[i * ld + p] : 0.0f;
}

static void pack_cols(float *dst, const float *src, int64_t ld, int64_t k, int cols, int r) {
    for (int64_t p = 0; p < k; p++)
        for (int i = 0; i < r; i++) dst[p * r + i] = i < cols ? src[p * ld + i] : 0.0f;
}

/* One body for the three element types; `load` is a constant argument. */
#define ROWDOT(name, type, load)                                                                                              \
    static void name(const type *w, int64_t ldw, int64_t rows, int64_t cols, const float *x, int64_t ldx, int64_t T, float *y, \
                     int64_t ldy) {                                                                                            \
        for (int64_t r = 0; r < rows; r++)                                                                                     \
            for (int64_t t = 0; t < T; t++) {                                                                                  \
                float part[8] = {0};                                                                                           \
                for (int64_t i = 0; i < cols; i++) part[i % 8] += load(w[r * ldw + i]) * x[t * ldx + i];                       \
                y[t * ldy + r] = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));    \
            }                                                                                                                  \
    }

#define MIX(name, type, load)                                                                                                 \
    static void name(const type *w, int64_t ldw, int64_t rows, int64_t cols, const float *p, int64_t ldp, int64_t T, float *y, \
                     int64_t ldy) {                                                                                            \
        for (int64_t t = 0; t < T; t++)                                                                                        \
            for (int64_t r = 0; r < rows; r++)                                                                                 \
                for (int64_t i = 0; i < cols; i++) y[t * ldy + i] += p[t * ldp + r] * load(w[r * ldw + i]);                    \
    }

static inline float plain(float x) { return x; }
ROWDOT(rowdot_f32, float, plain)
ROWDOT(rowdot_f16, uint16_t, half_to_f32)
ROWDOT(rowdot_bf16, uint16_t, bf16_bits_to_f32)
MIX(mix_f32, float, plain)
MIX(mix_f16, uint16_t, half_to_f32)

void tt__kernels_ref_tiles(tt_kernels *k) {
    k->mr = MR;
    k->nr = NR;
    k->gemm_ukr = gemm_ukr;
    k->pack_rows = pack_rows;
    k->pack_cols = pack_cols;
    k->rowdot_f32 = rowdot_f32;
    k->rowdot_f16 = rowdot_f16;
    k->rowdot_bf16 = rowdot_bf16;
    k->mix_f32 = mix_f32;
    k->mix_f16 = mix_f16;
}
