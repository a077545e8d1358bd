/* The block types of GGUF as vectors: 32 neighbouring weights of a row as signed bytes and what scales them; the same taking apart as in
 * ref/blocks.h, where the layouts are. Fixed offsets (w = d (q - 8)) are in the codes. Included by files of this folder only.
 */
#ifndef TT_KERNELS_AARCH64_BLOCKS_H
#define TT_KERNELS_AARCH64_BLOCKS_H
#include "kernels/aarch64/dot.h"
#include "kernels/half.h"

typedef enum type { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K } type;

/* weight i = d * sc[i / 16] * q[i] + m * mn[i / 16]; types of 32 to a block have sc 1 and, where they have an m, mn 1 */
typedef struct block { int8x16_t q[2]; float d, m; int sc[2], mn[2]; } block;

INLINE int two_scales(type t) { return t == Q2_K || t == Q3_K || t == Q6_K; }
INLINE int has_min(type t) { return t == Q4_1 || t == Q5_1 || t == Q2_K || t == Q4_K || t == Q5_K; }

INLINE float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return half_to_f32(h);
}

INLINE int8x16_t as_signed(uint8x16_t v) { return vreinterpretq_s8_u8(v); }
INLINE uint8x16_t field(uint8x16_t v, int shift, int mask) { return vandq_u8(v >> (uint8_t)shift, vdupq_n_u8((uint8_t)mask)); }
INLINE int8x16_t less(uint8x16_t v, int offset) { return vsubq_s8(as_signed(v), vdupq_n_s8((int8_t)offset)); }

/* `value` in byte i where bit i of the 16 is set. */
INLINE uint8x16_t spread_bits(const uint8_t *p, int value) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull)), v = vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1]));
    return vandq_u8(vtstq_u8(v, bit), vdupq_n_u8((uint8_t)value));
}

/* `value` where bit s of the 16 bytes is set, or is not. */
INLINE uint8x16_t with_bit(uint8x16_t v, int s, int value) { return vandq_u8(vtstq_u8(v, vdupq_n_u8((uint8_t)(1 << s))), vdupq_n_u8((uint8_t)value)); }

INLINE int8x16_t iq4_nl(uint8x16_t q) {
    static const int8_t table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    return vqtbl1q_s8(vld1q_s8(table), q);
}

/* Nibbles at `qs`, fifth bits at `qh` or none. */
INLINE void nibbles(block *w, const uint8_t *qs, const uint8_t *qh, int offset) {
    const uint8x16_t v = vld1q_u8(qs);
    for (int h = 0; h < 2; h++) {
        uint8x16_t q = field(v, 4 * h, 15);
        if (qh) q = vorrq_u8(q, spread_bits(qh + 2 * h, 16));
        w->q[h] = less(q, offset);
    }
}

/* ---- K types: s = number of the 32 weights in their block of 256, h the half of them ---- */

INLINE void scales_q3_k(block *w, const uint8_t *sc, int s) {
    for (int h = 0; h < 2; h++) {
        const int j = 2 * s + h, lo = j < 8 ? sc[j] & 15 : sc[j - 8] >> 4, hi = sc[8 + j % 4] >> 2 * (j / 4) & 3;
        w->sc[h] = (lo | hi << 4) - 32;
    }
}

INLINE void scales_q45_k(block *w, const uint8_t *k, int s) {
    w->sc[0] = w->sc[1] = s < 4 ? k[s] & 63 : (k[s + 4] & 15) | k[s - 4] >> 6 << 4;
    w->mn[0] = w->mn[1] = s < 4 ? k[s + 4] & 63 : k[s + 4] >> 4 | k[s] >> 6 << 4;
}

INLINE void codes_k(type t, block *w, const uint8_t *p, int s) {
    for (int h = 0; h < 2; h++) {
        const int two_bits = s / 4 * 32 + 16 * h, at = s % 4 * 2;
        if (t == Q2_K) {
            w->q[h] = as_signed(field(vld1q_u8(p + 16 + two_bits), at, 3));
            w->sc[h] = p[2 * s + h] & 15;
            w->mn[h] = p[2 * s + h] >> 4;
        } else if (t == Q3_K) {
            w->q[h] = less(vorrq_u8(field(vld1q_u8(p + 32 + two_bits), at, 3), with_bit(vld1q_u8(p + 16 * h), s, 4)), 4);
        } else if (t == Q6_K) {
            const uint8x16_t low = field(vld1q_u8(p + s / 4 * 64 + s % 2 * 32 + 16 * h), s % 4 / 2 * 4, 15);
            w->q[h] = less(vorrq_u8(low, field(vld1q_u8(p + 128 + two_bits), at, 3) << 4), 32);
            w->sc[h] = (int8_t)p[192 + 2 * s + h];
        } else {
            uint8x16_t q = field(vld1q_u8(p + (t == Q5_K ? 48 : 16) + s / 2 * 32 + 16 * h), s % 2 * 4, 15);
            if (t == Q5_K) q = vorrq_u8(q, with_bit(vld1q_u8(p + 16 + 16 * h), s, 16));
            w->q[h] = as_signed(q);
        }
    }
}

INLINE block load_block(type t, const uint8_t *row, int64_t b) {
    static const int bytes[] = {[Q4_0] = 18, [Q4_1] = 20, [Q5_0] = 22, [Q5_1] = 24, [Q8_0] = 34, [IQ4_NL] = 18,
                                [Q2_K] = 84, [Q3_K] = 110, [Q4_K] = 144, [Q5_K] = 176, [Q6_K] = 210};
    const uint8_t *p = row + bytes[t] * (t >= Q2_K ? b / 8 : b);
    const int s = (int)(b % 8);
    block w = {.sc = {1, 1}, .mn = {1, 1}};
    switch (t) {
    case Q4_0: nibbles(&w, p + 2, NULL, 8); break;
    case Q4_1: nibbles(&w, p + 4, NULL, 0); break;
    case Q5_0: nibbles(&w, p + 6, p + 2, 16); break;
    case Q5_1: nibbles(&w, p + 8, p + 4, 0); break;
    case Q8_0:
        w.q[0] = vld1q_s8((const int8_t *)p + 2);
        w.q[1] = vld1q_s8((const int8_t *)p + 18);
        break;
    case IQ4_NL:
        for (int h = 0; h < 2; h++) w.q[h] = iq4_nl(field(vld1q_u8(p + 2), 4 * h, 15));
        break;
    default: codes_k(t, &w, p, s);
    }
    if (t == Q3_K) scales_q3_k(&w, p + 96, s);
    if (t == Q4_K || t == Q5_K) scales_q45_k(&w, p + 4, s);
    w.d = half_at(t == Q2_K ? p + 80 : t == Q3_K ? p + 108 : t == Q6_K ? p + 208 : p);
    w.m = t == Q4_1 || t == Q5_1 ? half_at(p + 2) : t == Q2_K ? -half_at(p + 82) : t == Q4_K || t == Q5_K ? -half_at(p + 2) : 0.0f;
    return w;
}

/* (constant, name in the table) of every type above */
#define BLOCK_TYPES(X) \
    X(Q4_0, q4_0) X(Q4_1, q4_1) X(Q5_0, q5_0) X(Q5_1, q5_1) X(Q8_0, q8_0) X(IQ4_NL, iq4_nl) X(Q2_K, q2_k) X(Q3_K, q3_k) X(Q4_K, q4_k) X(Q5_K, q5_k) X(Q6_K, q6_k)
#endif
