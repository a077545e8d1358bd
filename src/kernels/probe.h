/* What this machine can do, measured in a fraction of a second: the yardsticks of `doctor` and of every bench report.
 *
 * The loops behind the yardsticks (tt__peaks) do nothing but the one thing that they count, from registers or with loads alone: no kernel can
 * be faster. Each instruction set has its own; they are no part of the kernel table, because nothing but this file runs them. */
#ifndef TT_KERNELS_PROBE_H
#define TT_KERNELS_PROBE_H
#include "trimtab/status.h"
#include <stdint.h>
struct tt_ctx;
struct tt_kernels;

/* 10^9 per second, the best of several passes: bytes from memory far larger than the caches, bytes from the second-level cache, operations. */
typedef struct tt_ceilings { double read_gb_s, l2_gb_s, fma_gflops, dot_gops; } tt_ceilings;
/* `workers` threads together: 1, or (anything else) all of the context. TT_RESOURCE where the 256 MB to read cannot be had. */
tt_status tt__probe(struct tt_ctx *ctx, int workers, tt_ceilings *out, tt_err *err);

typedef struct tt_peaks {
    void (*fma)(int64_t rounds);                     /* f32 multiply-adds */
    void (*dot)(int64_t rounds);                     /* multiply-adds of 8-bit integers */
    void (*read)(const void *p, int64_t bytes);      /* a multiple of 1024, 64-byte aligned */
    double fma_ops, dot_ops;                         /* operations of a round, two a multiply-add */
} tt_peaks;
void tt__peaks_ref(tt_peaks *p);
void tt__peaks_avx2(tt_peaks *p);
void tt__peaks_avx512(tt_peaks *p);
void tt__peaks_avx512_vnni(tt_peaks *p);             /* overrides `dot` */
void tt__peaks_neon(tt_peaks *p);
void tt__peaks_neon_dotprod(tt_peaks *p);            /* these, too */
void tt__peaks_neon_i8mm(tt_peaks *p);
#endif
