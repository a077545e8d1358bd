/* The row products of rowdot.h, compiled for this level. */
#include "kernels/aarch64/rowdot.h"

void tt__kernels_neon_dotprod_rowdot(tt_kernels *k) { override_rowdot(k); }
