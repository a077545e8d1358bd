/* Panels of 16-bit floats with 256-bit vectors. */
#include "kernels/x86/float_panel.h"

void tt__kernels_avx2_float_panel(tt_kernels *k) {
    k->float_rowdot = float_rowdot;
    k->float_decode = float_decode;
    k->float_columns = float_columns;
}
