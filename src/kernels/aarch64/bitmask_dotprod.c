/* The products of bitmask.h with the dot product. */
#include "kernels/aarch64/bitmask.h"

void tt__kernels_neon_dotprod_bitmask(tt_kernels *k) { k->bitmask_rowdot = bitmask_rowdot; }
