/* Trellis codes of x86/trellis.h, compiled for this level. */
#include "kernels/x86/trellis.h"

void tt__kernels_avx2_trellis(tt_kernels *k) { override_trellis(k); }
