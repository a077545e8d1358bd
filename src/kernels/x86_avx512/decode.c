/* The decoders of x86/decode.h, compiled for this level. */
#include "kernels/x86/decode.h"

void tt__kernels_avx512_decode(tt_kernels *k) { override_decode(k); }
