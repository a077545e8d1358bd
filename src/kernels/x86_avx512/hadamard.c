/* The Hadamard transform of hadamard_body.h, compiled for this level. */
#include "kernels/hadamard_body.h"

void tt__kernels_avx512_hadamard(tt_kernels *k) { k->hadamard_lanes = hadamard_lanes; }
