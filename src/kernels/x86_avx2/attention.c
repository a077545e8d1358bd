/* The kernels of x86/attention.h, compiled for this level. */
#include "kernels/x86/attention.h"

void tt__kernels_avx2_attention(tt_kernels *k) { override_attention(k); }
