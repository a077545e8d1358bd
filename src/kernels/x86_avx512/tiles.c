/* The f32 matrix tile, 12 tokens by 32 outputs, and its packers.
 *
 * 24 of the 32 registers hold sums; a step takes two loads of B, 12 broadcasts of A and 24 multiply-adds: two of them per cycle can be
 * fed from the first-level cache, and the chains cover their latency. (14 rows would use 31 registers; gcc 12 spills then and loses
 * a third.) Short tiles use the same body with a constant number of rows.
 */
#include "kernels/isa.h"
#include "kernels/x86/vec.h"
#include "kernels/x86_avx512/transpose.h"

enum { MR = 12, NR = 32 };

INLINE void store_row(float *C, vf a, vf b, int n, int accumulate) {
    if (n == NR) {
        v_store(C, accumulate ? v_add(v_load(C), a) : a);
        v_store(C + 16, accumulate ? v_add(v_load(C + 16), b) : b);
        return;
    }
    const int64_t low = n < 16 ? n : 16, high = n - low;
    v_store_n(C, accumulate ? v_add(v_load_n(C, low), a) : a, low);
    if (high > 0) v_store_n(C + 16, accumulate ? v_add(v_load_n(C + 16, high), b) : b, high);
}

INLINE void tile(int64_t k, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    vf a[MR], b[MR];
#pragma GCC unroll 12
    for (int i = 0; i < m; i++) a[i] = b[i] = v_zero();
    for (int i = 0; i < m; i++) {
        _mm_prefetch((const char *)(C + i * ldc), _MM_HINT_T0);
        _mm_prefetch((const char *)(C + i * ldc + 16), _MM_HINT_T0);
    }
    for (int64_t p = 0; p < k; p++, Ap += MR, Bp += NR) {
        const vf b0 = v_load(Bp), b1 = v_load(Bp + 16);
#pragma GCC unroll 12
        for (int i = 0; i < m; i++) {
            const vf x = v_set1(Ap[i]);
            a[i] = v_fma(x, b0, a[i]);
            b[i] = v_fma(x, b1, b[i]);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < m; i++) store_row(C + i * ldc, a[i], b[i], n, accumulate);
}

static void gemm_ukr(int64_t k, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    switch (m) {
#define ROWS(i) \
    case i: tile(k, Ap, Bp, C, ldc, i, n, accumulate); break;
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
#undef ROWS
    }
}

/* `rows` ≤ 16 rows of n ≤ 16 columns into dst[n][r], `lanes` ≤ 16 of them written. */
INLINE void pack_block(float *dst, const float *src, int64_t ld, int rows, int64_t n, int r, int lanes) {
    vf x[16];
    for (int i = 0; i < 16; i++) x[i] = i >= rows ? v_zero() : n == 16 ? v_load(src + i * ld) : v_load_n(src + i * ld, n);
    transpose16(x);
    if (n == 16 && lanes == 16)
        for (int p = 0; p < 16; p++) v_store(dst + p * r, x[p]);
    else
        for (int p = 0; p < n; p++) v_store_n(dst + p * r, x[p], lanes);
}

static void pack_rows(float *dst, const float *src, int64_t ld, int rows, int64_t k, int r) {
    for (int i = 0; i < r; i += 16) {
        const int lanes = r - i < 16 ? r - i : 16, here = rows - i < 0 ? 0 : rows - i < 16 ? rows - i : 16;
        for (int64_t p = 0; p < k; p += 16) {
            const int64_t n = k - p < 16 ? k - p : 16;
            float *to = dst + p * r + i;
            const float *from = src + i * ld + p;
            if (here == 16 && lanes == 16 && n == 16) pack_block(to, from, ld, 16, 16, r, 16);
            else if (here == MR && lanes == MR && n == 16) pack_block(to, from, ld, MR, 16, r, MR);
            else pack_block(to, from, ld, here, n, r, lanes);
        }
    }
}

static void pack_cols(float *dst, const float *src, int64_t ld, int64_t k, int cols, int r) {
    if (r == NR && cols == NR) {
        for (int64_t p = 0; p < k; p++) {
            v_store(dst + p * NR, v_load(src + p * ld));
            v_store(dst + p * NR + 16, v_load(src + p * ld + 16));
        }
        return;
    }
    for (int i = 0; i < r; i += 16) {
        const int64_t lanes = r - i < 16 ? r - i : 16, here = cols - i < 0 ? 0 : cols - i < 16 ? cols - i : 16;
        for (int64_t p = 0; p < k; p++) v_store_n(dst + p * r + i, v_load_n(src + p * ld + i, here), lanes);
    }
}

void tt__kernels_avx512_tiles(tt_kernels *k) {
    k->mr = MR;
    k->nr = NR;
    k->gemm_ukr = gemm_ukr;
    k->pack_rows = pack_rows;
    k->pack_cols = pack_cols;
}
