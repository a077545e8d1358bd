/* The elementwise kernels of x86/elementwise.h, compiled for this level. */
#include "kernels/x86/elementwise.h"

void tt__kernels_neon_elementwise(tt_kernels *k) { override_elementwise(k); }
