/* Inside of kernels/: who fills the table. dispatch.c starts with ref and lets faster files override entries, in the order below. */
#ifndef TT_KERNELS_ISA_H
#define TT_KERNELS_ISA_H
#include "kernels/kernels.h"

void tt__kernels_ref_elementwise(tt_kernels *k);
void tt__kernels_ref_tiles(tt_kernels *k);
void tt__kernels_ref_bf16(tt_kernels *k);
void tt__kernels_ref_attention(tt_kernels *k);
void tt__kernels_ref_blocks(tt_kernels *k);
void tt__kernels_ref_codes(tt_kernels *k);
void tt__kernels_ref_slide2(tt_kernels *k);
void tt__kernels_ref_bitmask(tt_kernels *k);
void tt__kernels_ref_panel(tt_kernels *k);
void tt__kernels_ref_super(tt_kernels *k);
void tt__kernels_ref_float_panel(tt_kernels *k);
void tt__kernels_ref_batch(tt_kernels *k);
void tt__kernels_ref_trellis(tt_kernels *k);
void tt__kernels_ref_hadamard(tt_kernels *k);

/* AVX2, FMA, F16C, BMI2, POPCNT */
void tt__kernels_avx2_elementwise(tt_kernels *k);
void tt__kernels_avx2_tiles(tt_kernels *k);
void tt__kernels_avx2_attention(tt_kernels *k);
void tt__kernels_avx2_decode(tt_kernels *k);
void tt__kernels_avx2_rowdot(tt_kernels *k);
void tt__kernels_avx2_slide2(tt_kernels *k);
void tt__kernels_avx2_bitmask(tt_kernels *k);
void tt__kernels_avx2_batch(tt_kernels *k);
void tt__kernels_avx2_panel(tt_kernels *k);
void tt__kernels_avx2_super(tt_kernels *k);
void tt__kernels_avx2_super_batch(tt_kernels *k);
void tt__kernels_avx2_float_panel(tt_kernels *k);
void tt__kernels_avx2_trellis(tt_kernels *k);
void tt__kernels_avx2_hadamard(tt_kernels *k);

/* AVX-512 F, BW, DQ, VL */
void tt__kernels_avx512_elementwise(tt_kernels *k);
void tt__kernels_avx512_tiles(tt_kernels *k);
void tt__kernels_avx512_attention(tt_kernels *k);
void tt__kernels_avx512_decode(tt_kernels *k);
void tt__kernels_avx512_panel(tt_kernels *k);
void tt__kernels_avx512_float_panel(tt_kernels *k);
void tt__kernels_avx512_trellis(tt_kernels *k);
void tt__kernels_avx512_hadamard(tt_kernels *k);

/* and VNNI, VBMI, VBMI2 */
void tt__kernels_avx512_rowdot_vnni(tt_kernels *k);
void tt__kernels_avx512_codes_vnni(tt_kernels *k);
void tt__kernels_avx512_slide2_vnni(tt_kernels *k);
void tt__kernels_avx512_bitmask_vnni(tt_kernels *k);
void tt__kernels_avx512_batch_vnni(tt_kernels *k);
void tt__kernels_avx512_panel_vnni(tt_kernels *k);
void tt__kernels_avx512_super_vnni(tt_kernels *k);
void tt__kernels_avx512_super_batch_vnni(tt_kernels *k);

/* and BF16 */
void tt__kernels_avx512_tile_bf16(tt_kernels *k);
void tt__kernels_avx512_attention_bf16(tt_kernels *k);

/* NEON as every 64-bit Arm has it */
void tt__kernels_neon_elementwise(tt_kernels *k);
void tt__kernels_neon_tiles(tt_kernels *k);
void tt__kernels_neon_attention(tt_kernels *k);
void tt__kernels_neon_decode(tt_kernels *k);
void tt__kernels_neon_rowdot(tt_kernels *k);
void tt__kernels_neon_slide2(tt_kernels *k);
void tt__kernels_neon_bitmask(tt_kernels *k);
void tt__kernels_neon_panel(tt_kernels *k);
void tt__kernels_neon_float_panel(tt_kernels *k);
void tt__kernels_neon_batch(tt_kernels *k);

/* and the dot product */
void tt__kernels_neon_dotprod_rowdot(tt_kernels *k);
void tt__kernels_neon_dotprod_slide2(tt_kernels *k);
void tt__kernels_neon_dotprod_bitmask(tt_kernels *k);
void tt__kernels_neon_dotprod_panel(tt_kernels *k);
void tt__kernels_neon_dotprod_batch(tt_kernels *k);

/* and products of 8-bit matrices */
void tt__kernels_neon_i8mm_batch(tt_kernels *k);
#endif
