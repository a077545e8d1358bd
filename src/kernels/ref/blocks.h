/* The GGUF block types, taken apart: 32 neighbouring weights of a row as integers and what scales them. Everything else about a type
 * (decoding, products) follows from this. Layouts as in the format's documentation; e is the index inside a block, fields in file order:
 *
 *   Q4_0   18 B  d, qs[16]                   w = d (q - 8)          q: byte j low nibble = weight j, high = weight j + 16
 *   Q4_1   20 B  d, m, qs[16]                w = d q + m
 *   Q5_0   22 B  d, qh[4], qs[16]            w = d (q - 16)         fifth bit of weight j: bit j of qh
 *   Q5_1   24 B  d, m, qh[4], qs[16]         w = d q + m
 *   Q8_0   34 B  d, qs[32]                   w = d q
 *   IQ4_NL 18 B  d, qs[16]                   w = d table[q]
 *   Q2_K   84 B  sc[16], qs[64], d, dmin     w = d (sc & 15) q - dmin (sc >> 4), sc per 16
 *   Q3_K  110 B  hmask[32], qs[64], sc[12], d   w = d (sc - 32) q, sc per 16
 *   Q4_K  144 B  d, dmin, sc[12], qs[128]    w = d sc q - dmin mn, sc and mn of six bits per 32
 *   Q5_K  176 B  d, dmin, sc[12], qh[32], qs[128]
 *   Q6_K  210 B  ql[128], qh[64], sc[16], d  w = d sc (q - 32), sc per 16
 *
 * A weight is (d * sc) * q + m * mn: the first product has at most 24 significant bits in every type, so it is exact in f32 in any
 * order, and a decoded weight is the same on every machine.
 */
#ifndef TT_KERNELS_REF_BLOCKS_H
#define TT_KERNELS_REF_BLOCKS_H
#include "kernels/half.h"

typedef struct codes32 {
    int q[32];                 /* weight i = d * sc[i / 16] * q[i] + m * mn[i / 16] */
    float d, m;
    int sc[2], mn[2];
} codes32;

static const int8_t iq4_nl_table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static inline float block_half(const uint8_t *p) { return half_to_f32((uint16_t)(p[0] | p[1] << 8)); }

static inline void nibbles32(int q[32], const uint8_t *qs) {
    for (int j = 0; j < 16; j++) {
        q[j] = qs[j] & 15;
        q[j + 16] = qs[j] >> 4;
    }
}

static inline void fifth_bits(int q[32], const uint8_t *qh) {
    for (int j = 0; j < 32; j++) q[j] |= (qh[j / 8] >> (j % 8) & 1) << 4;
}

static inline void simple_block(codes32 *c, const uint8_t *d, const uint8_t *m, int offset) {
    c->d = block_half(d);
    c->m = m ? block_half(m) : 0.0f;
    c->sc[0] = c->sc[1] = 1;
    c->mn[0] = c->mn[1] = m != 0;
    for (int j = 0; j < 32 && offset; j++) c->q[j] -= offset;
}

/* Each takes the row and the number b of the 32 weights wanted. */
static inline void codes_q4_0(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 18 * b;
    nibbles32(c->q, p + 2);
    simple_block(c, p, 0, 8);
}

static inline void codes_q4_1(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 20 * b;
    nibbles32(c->q, p + 4);
    simple_block(c, p, p + 2, 0);
}

static inline void codes_q5_0(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 22 * b;
    nibbles32(c->q, p + 6);
    fifth_bits(c->q, p + 2);
    simple_block(c, p, 0, 16);
}

static inline void codes_q5_1(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 24 * b;
    nibbles32(c->q, p + 8);
    fifth_bits(c->q, p + 4);
    simple_block(c, p, p + 2, 0);
}

static inline void codes_q8_0(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 34 * b;
    for (int j = 0; j < 32; j++) c->q[j] = (int8_t)p[2 + j];
    simple_block(c, p, 0, 0);
}

static inline void codes_iq4_nl(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 18 * b;
    nibbles32(c->q, p + 2);
    for (int j = 0; j < 32; j++) c->q[j] = iq4_nl_table[c->q[j]];
    simple_block(c, p, 0, 0);
}

static inline void codes_q2_k(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 84 * (b / 8), *qs = p + 16;
    const int s = (int)(b % 8), h = s / 4, t = s % 4;
    for (int l = 0; l < 32; l++) c->q[l] = qs[32 * h + l] >> 2 * t & 3;
    for (int i = 0; i < 2; i++) {
        c->sc[i] = p[2 * s + i] & 15;
        c->mn[i] = p[2 * s + i] >> 4;
    }
    c->d = block_half(p + 80);
    c->m = -block_half(p + 82);
}

static inline void codes_q3_k(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 110 * (b / 8), *qs = p + 32, *sc = p + 96;
    const int s = (int)(b % 8), h = s / 4, t = s % 4;
    for (int l = 0; l < 32; l++) c->q[l] = (qs[32 * h + l] >> 2 * t & 3) - (p[l] >> s & 1 ? 0 : 4);
    for (int i = 0; i < 2; i++) {
        const int j = 2 * s + i, lo = j < 8 ? sc[j] & 15 : sc[j - 8] >> 4, hi = sc[8 + j % 4] >> 2 * (j / 4) & 3;
        c->sc[i] = (lo | hi << 4) - 32;
        c->mn[i] = 0;
    }
    c->d = block_half(p + 108);
    c->m = 0.0f;
}

static inline void six_bit_pair(codes32 *c, const uint8_t *s, int j) {
    const int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    const int mn = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    c->sc[0] = c->sc[1] = sc;
    c->mn[0] = c->mn[1] = mn;
}

static inline void codes_q4_k(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 144 * (b / 8), *qs = p + 16;
    const int s = (int)(b % 8);
    for (int l = 0; l < 32; l++) c->q[l] = qs[32 * (s / 2) + l] >> 4 * (s % 2) & 15;
    six_bit_pair(c, p + 4, s);
    c->d = block_half(p);
    c->m = -block_half(p + 2);
}

static inline void codes_q5_k(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 176 * (b / 8), *qh = p + 16, *qs = p + 48;
    const int s = (int)(b % 8);
    for (int l = 0; l < 32; l++) c->q[l] = (qs[32 * (s / 2) + l] >> 4 * (s % 2) & 15) | (qh[l] >> s & 1) << 4;
    six_bit_pair(c, p + 4, s);
    c->d = block_half(p);
    c->m = -block_half(p + 2);
}

static inline void codes_q6_k(const uint8_t *row, int64_t b, codes32 *c) {
    const uint8_t *p = row + 210 * (b / 8), *qh = p + 128;
    const int s = (int)(b % 8), h = s / 4, t = s % 4;
    for (int l = 0; l < 32; l++) {
        const int low = p[64 * h + 32 * (t & 1) + l] >> (t < 2 ? 0 : 4) & 15;
        c->q[l] = (low | (qh[32 * h + l] >> 2 * t & 3) << 4) - 32;
    }
    for (int i = 0; i < 2; i++) {
        c->sc[i] = (int8_t)p[192 + 2 * s + i];
        c->mn[i] = 0;
    }
    c->d = block_half(p + 208);
    c->m = 0.0f;
}

/* (type, weights per block) of every type above */
#define TT_BLOCK_TYPES(X) \
    X(q4_0) X(q4_1) X(q5_0) X(q5_1) X(q8_0) X(iq4_nl) X(q2_k) X(q3_k) X(q4_k) X(q5_k) X(q6_k)
#endif
