/* Hadamard matrices: H of order n with entries ±1 and H H^T = n I. n = 12^a 20^b 28^c 2^k:
 *
 *     H_n = H_12 ⊗ … ⊗ H_20 ⊗ … ⊗ H_28 ⊗ … ⊗ H_2^k            576 = 12 * 12 * 4, 1536 = 12 * 128, 64 = 2^6
 *
 * applied axis by axis: n (12 + 12 + 2) additions for 576 instead of n². H_12 and H_20 are Paley's first construction over 11 and 19, H_28 his
 * second over 13. The product with a vector of mixed signs makes any vector of weights nearly normal and keeps all inner products (QuIP#,
 * arXiv 2402.04396).
 */
#ifndef TT_KERNELS_HADAMARD_H
#define TT_KERNELS_HADAMARD_H
#include <stdbool.h>
#include <stdint.h>

enum { TT_HADAMARD_MOST = 2048 };
/* The orders K > 2 of the factors of n, largest count 8, and the power of two that is left; the number of factors, or -1: no such matrix. */
static inline int tt__hadamard_factors(int64_t n, int factor[8], int64_t *power) {
    int count = 0;
    if (n < 1 || n > TT_HADAMARD_MOST) return -1;
    for (int k = 12; k <= 28; k += 8)
        while (n % k == 0) factor[count++] = k, n /= k;
    *power = n;
    return n & (n - 1) ? -1 : count;
}
static inline bool tt__hadamard_exists(int64_t n) {
    int factor[8];
    int64_t power;
    return tt__hadamard_factors(n, factor, &power) >= 0;
}

/* Entry i, j of H_12, H_20 or H_28. chi: the quadratic character, its squares as bits. */
static inline int tt__paley_chi(int q, int d) {
    const uint32_t squares = q == 11 ? 0x23a : q == 19 ? 0x30af2 : 0x161a;     /* 1 3 4 5 9 | 1 4 5 6 7 9 11 16 17 | 1 3 4 9 10 12 */
    d = ((d % q) + q) % q;
    return !d ? 0 : squares >> d & 1 ? 1 : -1;
}
static inline int tt__paley(int k, int i, int j) {
    if (k != 28) {
        const int s = i == j ? 0 : !i ? 1 : !j ? -1 : tt__paley_chi(k - 1, i - j);
        return i == j ? 1 : s;
    }
    const int a = i / 2, b = j / 2, s = a == b ? 0 : !a || !b ? 1 : tt__paley_chi(13, a - b);
    if (!s) return i % 2 == 0 && j % 2 == 0 ? 1 : -1;
    return i % 2 && j % 2 ? -s : s;
}
#endif
