/* The f32 matrix tile, 6 tokens by 16 outputs, and its packers: 24 of the 32 registers hold sums, four take B, two a column of A whose lanes
 * are multiplied where they lie. */
#include "kernels/aarch64/vec.h"
#include "kernels/isa.h"

enum { MR = 6, NR = 16, NV = NR / VN };

INLINE void store_row(float *C, const vf s[NV], int n, int accumulate) {
    for (int j = 0; j < NV && VN * j < n; j++) {
        const int64_t here = n - VN * j < VN ? n - VN * j : VN;
        v_store_n(C + VN * j, accumulate ? v_add(v_load_n(C + VN * j, here), s[j]) : s[j], here);
    }
}

INLINE void step(vf s[MR][NV], const float *Ap, const float *Bp, int m) {
    const vf a = v_load(Ap), b[NV] = {v_load(Bp), v_load(Bp + 4), v_load(Bp + 8), v_load(Bp + 12)};
    const float32x2_t a2 = vld1_f32(Ap + 4);
    for (int j = 0; j < NV; j++) {
        s[0][j] = vfmaq_laneq_f32(s[0][j], b[j], a, 0);
        if (m > 1) s[1][j] = vfmaq_laneq_f32(s[1][j], b[j], a, 1);
        if (m > 2) s[2][j] = vfmaq_laneq_f32(s[2][j], b[j], a, 2);
        if (m > 3) s[3][j] = vfmaq_laneq_f32(s[3][j], b[j], a, 3);
        if (m > 4) s[4][j] = vfmaq_lane_f32(s[4][j], b[j], a2, 0);
        if (m > 5) s[5][j] = vfmaq_lane_f32(s[5][j], b[j], a2, 1);
    }
}

INLINE void tile(int64_t k, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    vf s[MR][NV];
#pragma GCC unroll 6
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < NV; j++) s[i][j] = v_zero();
        v_prefetch(C + i * ldc);
    }
    for (int64_t p = 0; p < k; p++, Ap += MR, Bp += NR) step(s, Ap, Bp, m);
#pragma GCC unroll 6
    for (int i = 0; i < m; i++) store_row(C + i * ldc, s[i], n, accumulate);
}

static void gemm_ukr(int64_t k, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    switch (m) {
#define ROWS(i) \
    case i: tile(k, Ap, Bp, C, ldc, i, n, accumulate); break;
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#undef ROWS
    }
}

/* 4 rows of 4 → transposed, in place. */
INLINE void transpose4(vf x[4]) {
    const vf a = vtrn1q_f32(x[0], x[1]), b = vtrn2q_f32(x[0], x[1]), c = vtrn1q_f32(x[2], x[3]), d = vtrn2q_f32(x[2], x[3]);
    x[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    x[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    x[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    x[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
}

/* Up to four columns of `rows` (≤ 4) rows to `lanes` (≤ 4) lanes of as many steps, r apart. */
INLINE void pack_block(float *dst, const float *src, int64_t ld, int rows, int64_t n, int r, int lanes) {
    vf x[4];
    for (int i = 0; i < 4; i++) x[i] = i < rows ? v_load_n(src + i * ld, n) : v_zero();
    transpose4(x);
    for (int p = 0; p < n; p++) v_store_n(dst + p * r, x[p], lanes);
}

static void pack_rows(float *dst, const float *src, int64_t ld, int rows, int64_t k, int r) {
    for (int i = 0; i < r; i += 4) {
        const int lanes = r - i < 4 ? r - i : 4, here = rows - i < 0 ? 0 : rows - i < 4 ? rows - i : 4;
        for (int64_t p = 0; p < k; p += 4) {
            const int64_t n = k - p < 4 ? k - p : 4;
            float *to = dst + p * r + i;
            const float *from = src + i * ld + p;
            if (here == 4 && lanes == 4 && n == 4) pack_block(to, from, ld, 4, 4, r, 4);
            else pack_block(to, from, ld, here, n, r, lanes);
        }
    }
}

static void pack_cols(float *dst, const float *src, int64_t ld, int64_t k, int cols, int r) {
    for (int i = 0; i < r; i += 4) {
        const int lanes = r - i < 4 ? r - i : 4, here = cols - i < 0 ? 0 : cols - i < 4 ? cols - i : 4;
        for (int64_t p = 0; p < k; p++) v_store_n(dst + p * r + i, v_load_n(src + p * ld + i, here), lanes);
    }
}

void tt__kernels_neon_tiles(tt_kernels *k) {
    k->mr = MR;
    k->nr = NR;
    k->gemm_ukr = gemm_ukr;
    k->pack_rows = pack_rows;
    k->pack_cols = pack_cols;
}
