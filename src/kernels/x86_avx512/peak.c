/* The yardsticks of AVX-512 without VNNI; as x86_avx2/peak.c, twice as wide. */
#include "kernels/probe.h"
#include <immintrin.h>

enum { SUMS = 12 };

static void fma_rounds(int64_t rounds) {
    __m512 sum[SUMS];
    const __m512 x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(0.25f);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++) sum[i] = y;
    for (int64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            sum[i] = _mm512_fmadd_ps(sum[i], x, y);
            __asm__ volatile("" : "+v"(sum[i]));
        }
    }
}

static void dot_rounds(int64_t rounds) {
    __m512i sum[SUMS], x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(-2);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++) sum[i] = y;
    for (int64_t n = 0; n < rounds; n++) {
        __asm__ volatile("" : "+v"(x));
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            __m512i product = _mm512_maddubs_epi16(x, y);
            __asm__ volatile("" : "+v"(product));
            sum[i] = _mm512_add_epi16(sum[i], product);
            __asm__ volatile("" : "+v"(sum[i]));
        }
    }
}

static void read_bytes(const void *p, int64_t bytes) {
    for (const char *at = p, *end = at + bytes; at < end; at += 512) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) __asm__ volatile("" : : "v"(_mm512_load_si512(at + 64 * i)));
    }
}

void tt__peaks_avx512(tt_peaks *p) { *p = (tt_peaks){fma_rounds, dot_rounds, read_bytes, 2 * 16 * SUMS, 2 * 64 * SUMS}; }
