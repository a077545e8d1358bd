/* The yardsticks of a machine without vector code of ours: what plain C gets from it. */
#include "kernels/probe.h"

enum { LANES = 16 };

static void fma_rounds(int64_t rounds) {
    float sum[LANES] = {0}, x[LANES], y = 0.5f;
    for (int i = 0; i < LANES; i++) x[i] = (float)i;
    for (int64_t n = 0; n < rounds; n++) {
        for (int i = 0; i < LANES; i++) sum[i] += x[i] * y;
        __asm__ volatile("" : : "r"(sum) : "memory");
    }
}

static void dot_rounds(int64_t rounds) {
    int8_t x[4 * LANES], y[4 * LANES];
    int32_t sum = 0;
    for (int i = 0; i < 4 * LANES; i++) x[i] = (int8_t)i, y[i] = (int8_t)(3 * i);
    for (int64_t n = 0; n < rounds; n++) {
        for (int i = 0; i < 4 * LANES; i++) sum += x[i] * y[i];
        __asm__ volatile("" : "+r"(sum) : "r"(x), "r"(y) : "memory");
    }
}

static void read_bytes(const void *p, int64_t bytes) {
    const uint64_t *x = p;
    uint64_t all[8] = {0};
    for (int64_t i = 0; i < bytes / 8; i += 8)
        for (int k = 0; k < 8; k++) all[k] |= x[i + k];
    __asm__ volatile("" : : "r"(all) : "memory");
}

void tt__peaks_ref(tt_peaks *p) { *p = (tt_peaks){fma_rounds, dot_rounds, read_bytes, 2 * LANES, 2 * 4 * LANES}; }
