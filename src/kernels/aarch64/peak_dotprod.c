/* The yardstick of the dot product. */
#include "kernels/aarch64/vec.h"
#include "kernels/probe.h"

enum { SUMS = 16 };

static void dot_rounds(int64_t rounds) {
    int32x4_t sum[SUMS];
    int8x16_t x = vdupq_n_s8(3), y = vdupq_n_s8(-2);
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++) sum[i] = vdupq_n_s32(0);
    for (int64_t n = 0; n < rounds; n++) {
        __asm__ volatile("" : "+w"(x), "+w"(y));
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) {
            sum[i] = vdotq_s32(sum[i], x, y);
            __asm__ volatile("" : "+w"(sum[i]));
        }
    }
}

void tt__peaks_neon_dotprod(tt_peaks *p) {
    p->dot = dot_rounds;
    p->dot_ops = 2 * 16 * SUMS;
}
