/* What this machine can do, measured in a fraction of a second: the yardsticks of `doctor` and of every bench report. */
#ifndef TT_KERNELS_PROBE_H
#define TT_KERNELS_PROBE_H
#include "trimtab/status.h"
struct tt_ctx;

/* GB/s (10^9) that all workers together read from memory far larger than the caches; best of several passes. TT_RESOURCE where the
 * 256 MB cannot be had. */
tt_status tt__probe_read_gb_s(struct tt_ctx *ctx, double *gb_s, tt_err *err);
/* GFLOP/s that all workers together reach in the f32 micro-kernel of the context's level, operands in the first-level cache. */
tt_status tt__probe_fma_gflops(struct tt_ctx *ctx, double *gflops, tt_err *err);
#endif
