/* The yardsticks of AVX2. Twelve independent sums hide the latency of four cycles at up to three a cycle. */
#include "kernels/probe.h"
#include <immintrin.h>

enum { SUMS = 12 };

static void fma_rounds(int64_t rounds) {
    __m256 sum[SUMS];
    const __m256 x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(0.25f);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++) sum[i] = y;
    for (int64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            sum[i] = _mm256_fmadd_ps(sum[i], x, y);
            __asm__ volatile("" : "+x"(sum[i]));
        }
    }
}

/* Unsigned by signed bytes to sums of 16 bits: nothing that keeps sums takes fewer than these two instructions. */
static void dot_rounds(int64_t rounds) {
    __m256i sum[SUMS], x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(-2);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++) sum[i] = y;
    for (int64_t n = 0; n < rounds; n++) {
        __asm__ volatile("" : "+x"(x));
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            __m256i product = _mm256_maddubs_epi16(x, y);
            __asm__ volatile("" : "+x"(product));
            sum[i] = _mm256_add_epi16(sum[i], product);
            __asm__ volatile("" : "+x"(sum[i]));
        }
    }
}

static void read_bytes(const void *p, int64_t bytes) {
    for (const char *at = p, *end = at + bytes; at < end; at += 256) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) __asm__ volatile("" : : "x"(_mm256_load_si256((const __m256i *)(at + 32 * i))));
    }
}

void tt__peaks_avx2(tt_peaks *p) { *p = (tt_peaks){fma_rounds, dot_rounds, read_bytes, 2 * 8 * SUMS, 2 * 32 * SUMS}; }
