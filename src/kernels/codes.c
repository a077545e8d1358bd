/* Packing and unpacking of codes; codes.h draws the layouts. Clarity before speed, except where models are repacked while they open. */
#include "kernels/codes.h"
#include <string.h>

/* The fields of a plane: code f * stride + i sits in byte i at bit f * bits. */
static void pack_plane(int bits, const uint8_t *codes, int64_t n, int64_t g, uint8_t *out) {
    const int64_t stride = g * bits / 8;
    const unsigned mask = (1u << bits) - 1;
    memset(out, 0, (size_t)stride);
    for (int64_t first = 0, at = 0; first < n; first += stride, at += bits)
        for (int64_t i = 0; i < stride && first + i < n; i++) out[i] = (uint8_t)(out[i] | (codes[first + i] & mask) << at);
}

/* Eight codes of one byte each at a time where a plane is whole (every group but a short last one). */
static void unpack_plane(int bits, const uint8_t *in, int64_t n, int64_t g, uint8_t *codes) {
    const int64_t stride = g * bits / 8;
    const unsigned mask = (1u << bits) - 1;
    for (int64_t first = 0, at = 0; first < n; first += stride, at += bits) {
        int64_t i = 0;
        for (uint64_t eight; i + 8 <= stride && first + i + 8 <= n; i += 8) {
            memcpy(&eight, in + i, 8);
            eight = eight >> at & mask * 0x0101010101010101ull;
            memcpy(codes + first + i, &eight, 8);
        }
        for (; i < stride && first + i < n; i++) codes[first + i] = (uint8_t)((unsigned)in[i] >> at & mask);
    }
}

/* Bit i of a byte as bit 2 of byte i. */
static void add_high_bits(const uint8_t *high, int64_t n, uint8_t *codes) {
    int64_t i = 0;
    for (uint64_t eight; i + 8 <= n; i += 8) {
        const uint64_t apart = high[i / 8] * 0x0101010101010101ull & 0x8040201008040201ull;
        memcpy(&eight, codes + i, 8);
        eight |= (apart + 0x7f7f7f7f7f7f7f7full) >> 5 & 0x0404040404040404ull;
        memcpy(codes + i, &eight, 8);
    }
    for (; i < n; i++) codes[i] = (uint8_t)(codes[i] | (high[i / 8] >> (i % 8) & 1) << 2);
}

void tt__codes_pack(int bits, const uint8_t *codes, int64_t n, uint8_t *out) {
    const int64_t g = (n + 7) / 8 * 8;
    if (n <= 0) return;
    if (bits != 3) {
        pack_plane(bits, codes, n, g, out);
        return;
    }
    pack_plane(2, codes, n, g, out);
    uint8_t *high = out + g / 4;
    memset(high, 0, (size_t)(g / 8));
    for (int64_t i = 0; i < n; i++) high[i / 8] = (uint8_t)(high[i / 8] | (codes[i] >> 2 & 1) << (i % 8));
}

void tt__codes_unpack(int bits, const uint8_t *in, int64_t n, uint8_t *codes) {
    const int64_t g = (n + 7) / 8 * 8;
    if (n <= 0) return;
    unpack_plane(bits == 3 ? 2 : bits, in, n, g, codes);
    if (bits == 3) add_high_bits(in + g / 4, n, codes);
}

void tt__stream_pack(int bits, const uint8_t *codes, int64_t n, uint8_t *out) {
    memset(out, 0, (size_t)tt__stream_bytes(bits, n));
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = i * bits;
        const unsigned c = (unsigned)codes[i] << (at % 8);
        out[at / 8] = (uint8_t)(out[at / 8] | c);
        if (at % 8 + bits > 8) out[at / 8 + 1] = (uint8_t)(out[at / 8 + 1] | c >> 8);
    }
}

void tt__stream_unpack(int bits, const uint8_t *in, int64_t n, uint8_t *codes) {
    const unsigned mask = (1u << bits) - 1;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = i * bits;
        unsigned c = (unsigned)in[at / 8] >> (at % 8);
        if (at % 8 + bits > 8) c |= (unsigned)in[at / 8 + 1] << (8 - at % 8);
        codes[i] = (uint8_t)(c & mask);
    }
}
