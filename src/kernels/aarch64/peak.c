/* The yardsticks of NEON. Sixteen independent sums hide a latency of four cycles at up to four a cycle. */
#include "kernels/aarch64/vec.h"
#include "kernels/probe.h"

enum { SUMS = 16 };

static void fma_rounds(int64_t rounds) {
    float32x4_t sum[SUMS];
    const float32x4_t x = vdupq_n_f32(0.5f), y = vdupq_n_f32(0.25f);
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++) sum[i] = y;
    for (int64_t n = 0; n < rounds; n++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) {
            sum[i] = vfmaq_f32(sum[i], x, y);
            __asm__ volatile("" : "+w"(sum[i]));
        }
    }
}

/* Signed bytes to sums of 16 bits: the least that keeps sums. */
static void dot_rounds(int64_t rounds) {
    int16x8_t sum[SUMS];
    int8x8_t x = vdup_n_s8(3), y = vdup_n_s8(-2);
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++) sum[i] = vdupq_n_s16(0);
    for (int64_t n = 0; n < rounds; n++) {
        __asm__ volatile("" : "+w"(x), "+w"(y));
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++) {
            sum[i] = vmlal_s8(sum[i], x, y);
            __asm__ volatile("" : "+w"(sum[i]));
        }
    }
}

static void read_bytes(const void *p, int64_t bytes) {
    for (const uint8_t *at = p, *end = at + bytes; at < end; at += 128) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) __asm__ volatile("" : : "w"(vld1q_u8(at + 16 * i)));
    }
}

void tt__peaks_neon(tt_peaks *p) { *p = (tt_peaks){fma_rounds, dot_rounds, read_bytes, 2 * 4 * SUMS, 2 * 8 * SUMS}; }
