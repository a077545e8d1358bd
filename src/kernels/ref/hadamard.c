/* The Hadamard transform of hadamard_body.h, the definition. */
#include "kernels/hadamard_body.h"

void tt__kernels_ref_hadamard(tt_kernels *k) { k->hadamard_lanes = hadamard_lanes; }
