/* VNNI multiplies 64 bytes and adds by fours into 32 bits in one instruction. */
#include "kernels/probe.h"
#include <immintrin.h>

enum { SUMS = 12 };

static void dot_rounds(int64_t rounds) {
    __m512i sum[SUMS];
    const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(-2);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++) sum[i] = y;
    for (int64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            sum[i] = _mm512_dpbusd_epi32(sum[i], x, y);
            __asm__ volatile("" : "+v"(sum[i]));
        }
    }
}

void tt__peaks_avx512_vnni(tt_peaks *p) {
    p->dot = dot_rounds;
    p->dot_ops = 2 * 64 * SUMS;
}
