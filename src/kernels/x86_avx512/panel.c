/* Panels decoded to f32 with 512-bit vectors. Products without VNNI stay with the 256-bit kernel. */
#include "kernels/x86/panel.h"

void tt__kernels_avx512_panel(tt_kernels *k) { k->panel_decode = panel_decode; }
