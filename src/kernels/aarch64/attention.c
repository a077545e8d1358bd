/* The rows of an 8-bit cache of x86/attention.h, compiled for this level. */
#include "kernels/x86/attention.h"

void tt__kernels_neon_attention(tt_kernels *k) { override_attention(k); }
