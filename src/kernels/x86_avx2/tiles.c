/* The f32 matrix tile, 6 tokens by 16 outputs, and its packers: 12 of the 16 registers hold sums, two take B, one a broadcast of A. */
#include "kernels/isa.h"
#include "kernels/x86/vec.h"

enum { MR = 6, NR = 16 };

INLINE void store_row(float *C, vf a, vf b, int n, int accumulate) {
    if (n == NR) {
        v_store(C, accumulate ? v_add(v_load(C), a) : a);
        v_store(C + 8, accumulate ? v_add(v_load(C + 8), b) : b);
        return;
    }
    const int64_t low = n < 8 ? n : 8, high = n - low;
    v_store_n(C, accumulate ? v_add(v_load_n(C, low), a) : a, low);
    if (high > 0) v_store_n(C + 8, accumulate ? v_add(v_load_n(C + 8, high), b) : b, high);
}

INLINE void tile(int64_t k, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    vf a[MR], b[MR];
#pragma GCC unroll 6
    for (int i = 0; i < m; i++) a[i] = b[i] = v_zero();
    for (int i = 0; i < m; i++) _mm_prefetch((const char *)(C + i * ldc), _MM_HINT_T0);
    for (int64_t p = 0; p < k; p++, Ap += MR, Bp += NR) {
        const vf b0 = v_load(Bp), b1 = v_load(Bp + 8);
#pragma GCC unroll 6
        for (int i = 0; i < m; i++) {
            const vf x = v_set1(Ap[i]);
            a[i] = v_fma(x, b0, a[i]);
            b[i] = v_fma(x, b1, b[i]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < m; i++) store_row(C + i * ldc, a[i], b[i], n, accumulate);
}

static void gemm_ukr(int64_t k, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    switch (m) {
#define ROWS(i) \
    case i: tile(k, Ap, Bp, C, ldc, i, n, accumulate); break;
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#undef ROWS
    }
}

/* 8 rows of 8 → transposed, in place. */
INLINE void transpose8(vf x[8]) {
    vf t[8];
    for (int i = 0; i < 8; i += 4) {
        const vf a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpackhi_ps(x[i], x[i + 1]);
        const vf c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]), d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        x[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}

INLINE void store_lanes(float *dst, vf x, int lanes) {        /* masked stores are slow on some machines; these widths are the common ones */
    if (lanes == 8) v_store(dst, x);
    else if (lanes == 6) {
        _mm_storeu_ps(dst, _mm256_castps256_ps128(x));
        _mm_storel_pi((__m64 *)(dst + 4), _mm256_extractf128_ps(x, 1));
    } else v_store_n(dst, x, lanes);
}

INLINE void pack_block(float *dst, const float *src, int64_t ld, int rows, int64_t n, int r, int lanes) {
    vf x[8];
    for (int i = 0; i < 8; i++) x[i] = i >= rows ? v_zero() : n == 8 ? v_load(src + i * ld) : v_load_n(src + i * ld, n);
    transpose8(x);
    for (int p = 0; p < n; p++) store_lanes(dst + p * r, x[p], lanes);
}

static void pack_rows(float *dst, const float *src, int64_t ld, int rows, int64_t k, int r) {
    for (int i = 0; i < r; i += 8) {
        const int lanes = r - i < 8 ? r - i : 8, here = rows - i < 0 ? 0 : rows - i < 8 ? rows - i : 8;
        for (int64_t p = 0; p < k; p += 8) {
            const int64_t n = k - p < 8 ? k - p : 8;
            float *to = dst + p * r + i;
            const float *from = src + i * ld + p;
            if (here == 8 && lanes == 8 && n == 8) pack_block(to, from, ld, 8, 8, r, 8);
            else if (here == MR && lanes == MR && n == 8) pack_block(to, from, ld, MR, 8, r, MR);
            else pack_block(to, from, ld, here, n, r, lanes);
        }
    }
}

static void pack_cols(float *dst, const float *src, int64_t ld, int64_t k, int cols, int r) {
    for (int i = 0; i < r; i += 8) {
        const int lanes = r - i < 8 ? r - i : 8, here = cols - i < 0 ? 0 : cols - i < 8 ? cols - i : 8;
        for (int64_t p = 0; p < k; p++)
            store_lanes(dst + p * r + i, here == 8 ? v_load(src + p * ld + i) : v_load_n(src + p * ld + i, here), lanes);
    }
}

void tt__kernels_avx2_tiles(tt_kernels *k) {
    k->mr = MR;
    k->nr = NR;
    k->gemm_ukr = gemm_ukr;
    k->pack_rows = pack_rows;
    k->pack_cols = pack_cols;
}
