/* The kernel table: every hot inner loop, as a function pointer. `kernels.inc` lists them; `ref/` defines each in plain C; the ISA
 * folders override entries (`tt__kernels_avx2(&table)` and so on) after run-time detection. The level is a property of the context.
 * A kernel's name is its specification. Kernels read and write only what the caller owns and never allocate.
 *
 * Above the table, gemm.h drives f32 products through compressed weights, attention.h the attention.
 */
#ifndef TT_KERNELS_H
#define TT_KERNELS_H
#include "kernels/batch.h"
#include "kernels/bitmask.h"
#include "kernels/panel.h"
#include "kernels/slide2.h"
#include "kernels/trellis.h"
#include "trimtab/status.h"
#include <stdint.h>

/* Activations rounded to 8 bits in blocks of 32 along the row: x ≈ d[b] * q[32 b + i]; sum[b] = Σ q of the block.
 * q: [T, n_pad] int8 (|q| ≤ 127), d: [T, blocks] f32, sum: the same shape, int32; n_pad = n rounded up to 64, blocks = n_pad / 32. All
 * beyond n is q = 0, d = 0, sum = 0. */
typedef struct tt_q8 { int64_t T, n, n_pad, blocks; int8_t *q; float *d; int32_t *sum; } tt_q8;

typedef struct tt_kernels {
    const char *isa;                     /* "scalar", "avx2", "avx512-vnni" … */
    int mr, nr;                          /* tile of gemm_ukr: tokens x outputs */
    int batch_tokens;                    /* tokens of a tile of batch_pack and panel_gemm */
    int bf16;                            /* has the bf16 tile: twice as fast as gemm_ukr where the machine multiplies bf16, else 0 */
    int super;                           /* super_rowdot is faster than the rowdots of the block types */
#define TT_KERNEL(ret, name, args) ret (*name) args;
#include "kernels/kernels.inc"
#undef TT_KERNEL
} tt_kernels;

/* Chosen for this machine and request ("scalar", "avx2", "avx512", "neon", "neon-dotprod", "neon-i8mm" or NULL for the best; a level the machine
 * lacks is TT_USAGE). */
tt_status tt__kernels_get(const char *isa, const tt_kernels **out, tt_err *err);
/* The levels that this machine runs, best last, NULL-terminated; for tests that repeat a case on each. */
const char *const *tt__kernels_levels(void);
#endif
