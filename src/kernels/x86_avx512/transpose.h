/* Shared by the packers of the f32 and the bf16 tile. */
#ifndef TT_KERNELS_X86_AVX512_TRANSPOSE_H
#define TT_KERNELS_X86_AVX512_TRANSPOSE_H
#include "kernels/x86/vec.h"

/* 16 vectors of 16 → transposed, in place. */
INLINE void transpose16(vf x[16]) {
    vf t[16];
    for (int i = 0; i < 16; i += 4) {              /* pairs, then quads: 4x4 blocks inside each 128-bit lane */
        const vf a = _mm512_unpacklo_ps(x[i], x[i + 1]), b = _mm512_unpackhi_ps(x[i], x[i + 1]);
        const vf c = _mm512_unpacklo_ps(x[i + 2], x[i + 3]), d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
        t[i] = _mm512_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; i++) {                  /* then the 4x4 arrangement of lanes */
        const vf a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x44), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xee);
        const vf c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x44), d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xee);
        x[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        x[i + 4] = _mm512_shuffle_f32x4(a, c, 0xdd);
        x[i + 8] = _mm512_shuffle_f32x4(b, d, 0x88);
        x[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
#endif
