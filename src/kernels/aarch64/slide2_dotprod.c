/* The products of slide2.h with the dot product. */
#include "kernels/aarch64/slide2.h"

void tt__kernels_neon_dotprod_slide2(tt_kernels *k) { k->slide2_rowdot = slide2_rowdot; }
