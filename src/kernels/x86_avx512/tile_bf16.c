/* The bf16 tile, 12 tokens by 32 outputs as its f32 sibling (tiles.c), and its packers. One vdpbf16ps takes two k of 16 outputs, so a
 * step does twice the work of an f32 step from the same number of loads. Sums stay f32.
 */
#include "kernels/isa.h"
#include "kernels/x86/vec.h"
#include "kernels/x86_avx512/transpose.h"

enum { MR = 12, NR = 32 };

typedef union word_vector { vf f; __m512bh h; __m512i i; } word_vector;

INLINE vf dot2(vf sum, vf a, vf b) { return _mm512_dpbf16_ps(sum, ((word_vector){a}).h, ((word_vector){b}).h); }
INLINE __m512i two_bf16(vf high, vf low) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

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

INLINE void tile(int64_t words, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    vf a[MR], b[MR];
#pragma GCC unroll 12
    for (int i = 0; i < m; i++) a[i] = b[i] = v_zero();
    for (int i = 0; i < m; i++) {
        _mm_prefetch((const char *)(C + i * ldc), _MM_HINT_T0);
        _mm_prefetch((const char *)(C + i * ldc + 16), _MM_HINT_T0);
    }
    for (int64_t p = 0; p < words; p++, Ap += MR, Bp += NR) {
        const vf b0 = v_load(Bp), b1 = v_load(Bp + 16);
#pragma GCC unroll 12
        for (int i = 0; i < m; i++) {
            const vf x = v_set1(Ap[i]);
            a[i] = dot2(a[i], x, b0);
            b[i] = dot2(b[i], x, b1);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < m; i++) store_row(C + i * ldc, a[i], b[i], n, accumulate);
}

static void gemm_ukr_bf16(int64_t words, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate) {
    switch (m) {
#define ROWS(i) \
    case i: tile(words, Ap, Bp, C, ldc, i, n, accumulate); break;
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
#undef ROWS
    }
}

/* n ≤ 32 floats as 16 words, zeros behind them. */
INLINE vf words_of(const float *src, int64_t n) {
    if (n == 32) return (vf)two_bf16(v_load(src + 16), v_load(src));
    return (vf)two_bf16(n > 16 ? v_load_n(src + 16, n - 16) : v_zero(), v_load_n(src, n < 16 ? n : 16));
}

/* `rows` ≤ 16 rows of k ≤ 32 columns into dst[(k + 1) / 2][r], `lanes` ≤ 16 of them written. */
INLINE void pack_block(float *dst, const float *src, int64_t ld, int rows, int64_t k, int r, int lanes) {
    vf x[16];
    for (int i = 0; i < 16; i++) x[i] = i < rows ? words_of(src + i * ld, k) : v_zero();
    transpose16(x);
    if (k == 32 && lanes == 16)
        for (int p = 0; p < 16; p++) v_store(dst + p * r, x[p]);
    else
        for (int p = 0; 2 * p < k; p++) v_store_n(dst + p * r, x[p], lanes);
}

static void pack_rows_bf16(float *dst, const float *src, int64_t ld, int rows, int64_t k, int r) {
    for (int i = 0; i < r; i += 16) {
        const int lanes = r - i < 16 ? r - i : 16, here = rows - i < 0 ? 0 : rows - i < 16 ? rows - i : 16;
        for (int64_t p = 0; p < k; p += 32) {
            const int64_t n = k - p < 32 ? k - p : 32;
            float *to = dst + p / 2 * r + i;
            const float *from = src + i * ld + p;
            if (here == 16 && lanes == 16 && n == 32) pack_block(to, from, ld, 16, 32, r, 16);
            else if (here == MR && lanes == MR && n == 32) pack_block(to, from, ld, MR, 32, r, MR);
            else pack_block(to, from, ld, here, n, r, lanes);
        }
    }
}

/* Column j of two rows, side by side. */
INLINE vf interleaved(vf low, vf high) {
    static const uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return (vf)_mm512_permutexvar_epi16(_mm512_loadu_si512(order), two_bf16(high, low));
}

static void pack_cols_bf16(float *dst, const float *src, int64_t ld, int64_t k, int cols, int r) {
    for (int i = 0; i < r; i += 16) {
        const int64_t lanes = r - i < 16 ? r - i : 16, here = cols - i < 0 ? 0 : cols - i < 16 ? cols - i : 16;
        for (int64_t p = 0; p < k; p += 2) {
            const float *at = src + p * ld + i;
            const vf low = here > 0 ? v_load_n(at, here) : v_zero(), high = here > 0 && p + 1 < k ? v_load_n(at + ld, here) : v_zero();
            v_store_n(dst + p / 2 * r + i, interleaved(low, high), lanes);
        }
    }
}

void tt__kernels_avx512_tile_bf16(tt_kernels *k) {
    k->bf16 = 1;
    k->gemm_ukr_bf16 = gemm_ukr_bf16;
    k->pack_rows_bf16 = pack_rows_bf16;
    k->pack_cols_bf16 = pack_cols_bf16;
}
