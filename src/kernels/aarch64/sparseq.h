/* Sparse rows of our own codes (kernels.inc): 64 columns put to their places by table look-ups whose indices count the kept ones before. Included
 * by files of this folder only.
 */
#ifndef TT_KERNELS_AARCH64_SPARSEQ_H
#define TT_KERNELS_AARCH64_SPARSEQ_H
#include "kernels/aarch64/vec.h"
#include "kernels/codes.h"

/* Eight bits as bytes 0 or 1. */
INLINE uint64_t bits_apart(uint64_t eight) { return ((eight * 0x0101010101010101ull & 0x8040201008040201ull) + 0x7f7f7f7f7f7f7f7full) >> 7 & 0x0101010101010101ull; }

/* The kept codes of 64 columns, centred, at their places, 0 elsewhere, and 0xff where kept; returns the bytes that the codes took. */
INLINE int64_t expand64(int bits, uint64_t mask, const uint8_t *in, int8_t *codes, int8_t *keep) {
    uint8_t kept[64 + 8];
    const int64_t n = __builtin_popcountll(mask);
    const uint8_t *next = kept;
    tt__stream_unpack(bits, in, n, kept);
    memset(kept + n, 0, 8);                     /* behind the last one eight are read */
    for (int i = 0; i < 8; i++) {
        const uint64_t there = bits_apart(mask >> 8 * i & 255), before = there * 0x0101010101010100ull, whole = there * 255;
        const uint8x8_t centred = vsub_u8(vld1_u8(next), vdup_n_u8((uint8_t)(1 << (bits - 1))));
        const uint8x8_t where = vcreate_u8(before | ~whole);
        vst1_s8(codes + 8 * i, vreinterpret_s8_u8(vtbl1_u8(centred, where)));
        vst1_s8(keep + 8 * i, vcreate_s8(whole));
        next += __builtin_popcountll(mask >> 8 * i & 255);
    }
    return tt__stream_bytes(bits, n);
}
#endif
