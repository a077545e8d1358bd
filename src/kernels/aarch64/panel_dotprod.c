/* The panel products of panel_rowdot.h with the dot product. */
#include "kernels/aarch64/panel_rowdot.h"

void tt__kernels_neon_dotprod_panel(tt_kernels *k) { k->panel_rowdot = panel_rowdot; }
