/* Inside of kernels/: who fills the table. dispatch.c starts with ref and lets faster files override entries; the order is the order below. */
#ifndef TT_KERNELS_ISA_H
#define TT_KERNELS_ISA_H
#include "kernels/kernels.h"

void tt__kernels_ref_elementwise(tt_kernels *k);
void tt__kernels_ref_tiles(tt_kernels *k);
void tt__kernels_ref_blocks(tt_kernels *k);
void tt__kernels_ref_codes(tt_kernels *k);
#endif
