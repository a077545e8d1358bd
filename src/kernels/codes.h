/* Packed codes of one quantization group: the layout that rowdot_group and decode_group read and that linop/group.c stores.
 *
 * A group of n codes (32, 64 or 128; the last group of a row may be shorter) is padded with zero codes to g = n rounded up to a
 * multiple of 8 and takes g * bits / 8 bytes. Codes that lie far apart share a byte, so that one load and one AND give a vector of
 * neighbours:
 *
 *     bits 8   byte i            = code i
 *     bits 4   byte i (< g/2)    = code i | code[i + g/2] << 4
 *     bits 2   byte i (< g/4)    = code i | code[i + g/4] << 2 | code[i + g/2] << 4 | code[i + 3g/4] << 6
 *     bits 3   the low two bits of every code as for bits 2 (g/4 bytes), then the high bits in order: bit i%8 of byte i/8 (g/8 bytes)
 *
 * A row is its groups one after the other; nothing is padded beyond that.
 *
 * The sparse operator packs otherwise (kernels.inc, rowdot_sparseq): a plain little-endian bit stream per 64 columns, see
 * tt__stream_pack.
 */
#ifndef TT_KERNELS_CODES_H
#define TT_KERNELS_CODES_H
#include <stdint.h>

/* Bytes of one group of n codes; bits is 2, 3, 4 or 8. */
static inline int64_t tt__codes_bytes(int bits, int64_t n) { return (n + 7) / 8 * bits; }

/* Bytes of a row of `cols` codes in groups of `group` (a multiple of 8). */
static inline int64_t tt__codes_row_bytes(int bits, int group, int64_t cols) {
    return cols / group * tt__codes_bytes(bits, group) + tt__codes_bytes(bits, cols % group);
}

/* One group of n codes (each < 2^bits) to and from its bytes. */
void tt__codes_pack(int bits, const uint8_t *codes, int64_t n, uint8_t *out);
void tt__codes_unpack(int bits, const uint8_t *in, int64_t n, uint8_t *codes);

/* A little-endian bit stream of n codes: code i occupies the bits i*bits … i*bits+bits-1; the last byte is filled with zeros. */
static inline int64_t tt__stream_bytes(int bits, int64_t n) { return (n * bits + 7) / 8; }
void tt__stream_pack(int bits, const uint8_t *codes, int64_t n, uint8_t *out);
void tt__stream_unpack(int bits, const uint8_t *in, int64_t n, uint8_t *codes);
#endif
