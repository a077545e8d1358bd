/* Rounding of activations and the decoders of the block types and of our own codes. A decoded weight is one multiply-add whose product is
 * exact, so it has the bits of the reference. */
#include "kernels/aarch64/blocks.h"
#include "kernels/aarch64/sparseq.h"
#include "kernels/isa.h"
#include <math.h>

static void quant_q8(const float *x, int64_t n, int8_t *q, float *d, int32_t *sum) {
    for (int64_t b = 0; 32 * b < n; b++) {
        vf v[8];
        uint32x4_t top = vdupq_n_u32(0);
        for (int i = 0; i < 8; i++) {
            const int64_t left = n - 32 * b - 4 * i;
            v[i] = left > 0 ? v_load_n(x + 32 * b + 4 * i, left) : v_zero();
            top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(v[i]), vdupq_n_u32(0x7fffffffu)));
        }
        const uint32_t most = vmaxvq_u32(top);
        const float amax = half_bits_to_f32(most), inverse = 127.0f / amax;
        const int usable = most < 0x7f800000u && amax >= 0x1p-100f;
        int32x4_t total = zero32();
        for (int i = 0; i < 8; i += 4) {
            int32x4_t r[4];
            for (int j = 0; j < 4; j++) {
                r[j] = usable ? vcvtnq_s32_f32(vmulq_n_f32(v[i + j], inverse)) : zero32();
                total = vaddq_s32(total, r[j]);
            }
            vst1q_s8(q + 32 * b + 4 * i, vcombine_s8(vmovn_s16(vcombine_s16(vmovn_s32(r[0]), vmovn_s32(r[1]))), vmovn_s16(vcombine_s16(vmovn_s32(r[2]), vmovn_s32(r[3])))));
        }
        d[b] = usable ? amax / 127.0f : most < 0x7f800000u ? 0.0f : NAN;
        sum[b] = vaddvq_s32(total);
    }
}

/* dst[0 … 16) = d q + m */
INLINE void put16(float *dst, int8x16_t q, float d, float m) {
    const int16x8_t low = vmovl_s8(vget_low_s8(q)), high = vmovl_high_s8(q);
    const int32x4_t w[4] = {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)};
    for (int i = 0; i < 4; i++) v_store(dst + 4 * i, v_fma(v_set1(d), vcvtq_f32_s32(w[i]), v_set1(m)));
}

INLINE void decode(type t, const uint8_t *src, float *dst, int64_t n) {
    for (int64_t b = 0; 32 * b < n; b++) {
        const block w = load_block(t, src, b);
        for (int h = 0; h < 2; h++) put16(dst + 32 * b + 16 * h, w.q[h], w.d * (float)w.sc[h], has_min(t) ? w.m * (float)w.mn[h] : 0.0f);
    }
}

#define DECODE(t, name) static void decode_##name(const uint8_t *src, float *dst, int64_t n) { decode(t, src, dst, n); }
BLOCK_TYPES(DECODE)

static void decode_group(const uint8_t *codes, const uint16_t *scales, const uint16_t *mins, int bits, int group, int64_t cols, int64_t c0, int64_t c1, float *dst) {
    uint8_t unpacked[128];
    const uint8_t *p = codes + c0 / group * tt__codes_bytes(bits, group);
    const float middle = (float)(1 << (bits - 1));
    (void)cols;
    for (int64_t c = c0; c < c1; c += group) {
        const int64_t n = group < c1 - c ? group : c1 - c;
        const uint16_t scale = scales[c / group];
        const vf d = v_set1(half_to_f32(mins ? scale : scale & 0x7fffu)), m = mins ? v_set1(half_to_f32(mins[c / group])) : v_zero();
        const vf offset = v_set1(mins ? 0.0f : scale & 0x8000u ? 0.5f - middle : -middle);
        tt__codes_unpack(bits, p, n, unpacked);
        p += tt__codes_bytes(bits, n);
        for (int64_t i = 0; i < n; i += 8) {
            const uint16x8_t q = vmovl_u8(vld1_u8(unpacked + i));
            v_store_n(dst + c - c0 + i, v_fma(d, v_add(vcvtq_f32_u32(vmovl_u16(vget_low_u16(q))), offset), m), n - i);
            if (n - i > 4) v_store_n(dst + c - c0 + i + 4, v_fma(d, v_add(vcvtq_f32_u32(vmovl_high_u16(q)), offset), m), n - i - 4);
        }
    }
}

static void decode_sparseq(const uint64_t *mask, const uint8_t *codes, const uint16_t *scales, int bits, int group, int64_t cols, int64_t c0, int64_t c1,
                           float *dst) {
    int8_t q[64], keep[64];
    (void)cols;
    for (int64_t b = 0; b < c0 / 64; b++) codes += tt__stream_bytes(bits, __builtin_popcountll(mask[b]));
    for (int64_t c = c0; c < c1; c += 64) {
        codes += expand64(bits, mask[c / 64], codes, q, keep);
        for (int i = 0; i < 64 && c + i < c1; i += 8) {
            const uint16_t scale = scales[(c + i) / group];
            const vf d = v_set1(half_to_f32(scale & 0x7fffu)), offset = v_set1(scale & 0x8000u ? 0.5f : 0.0f);
            const int16x8_t w = vmovl_s8(vld1_s8(q + i)), there = vmovl_s8(vld1_s8(keep + i));
            const int32x4_t half[2] = {vmovl_s16(vget_low_s16(w)), vmovl_high_s16(w)}, mask_of[2] = {vmovl_s16(vget_low_s16(there)), vmovl_high_s16(there)};
            for (int h = 0; h < 2 && c + i + 4 * h < c1; h++) {
                const vf v = v_mul(d, v_add(vcvtq_f32_s32(half[h]), offset));
                v_store_n(dst + c - c0 + i + 4 * h, vreinterpretq_f32_s32(vandq_s32(vreinterpretq_s32_f32(v), mask_of[h])), c1 - c - i - 4 * h);
            }
        }
    }
}

void tt__kernels_neon_decode(tt_kernels *k) {
    k->quant_q8 = quant_q8;
    k->decode_group = decode_group;
    k->decode_sparseq = decode_sparseq;
#define SET(t, name) k->decode_##name = decode_##name;
    BLOCK_TYPES(SET)
}
