/* slide2 without the dot product; unrolling and decoding of every level. */
#include "kernels/aarch64/slide2.h"

static void slide2_unroll(const float *x, int64_t n, uint8_t *table, float *d) {
    for (int64_t c = 0; c < n; c += UNIT, table += TT_SLIDE2_TABLE) {
        uint8_t q[66];
        vf v[UNIT / VN];
        uint32x4_t top = vdupq_n_u32(0);
        memset(q, 128, sizeof q);
        for (int i = 0; i < UNIT / VN; i++) {
            const int64_t left = n - c - VN * i;
            v[i] = left > 0 ? v_load_n(x + c + VN * i, left) : v_zero();
            top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(v[i]), vdupq_n_u32(0x7fffffffu)));
        }
        const tt_unit_scale s = tt__unit_scale(vmaxvq_u32(top));
        for (int i = 0; s.inv != 0 && i < UNIT / VN; i++) {
            const int16x4_t r = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[i], s.inv)));
            const uint8x8_t bytes = veor_u8(vreinterpret_u8_s8(vmovn_s16(vcombine_s16(r, r))), vdup_n_u8(128));
            memcpy(q + 1 + VN * i, &bytes, 4);
        }
        for (int i = 0; i < 32; i++) memcpy(table + 4 * i, q + 2 * i, 4);
        *d++ = s.d;
    }
}

/* ---- decoding ----
 * In bytes 2 c + h, 0 where pruned. Column 2 m is slot m at offset 1 or slot m - 1 at offset 3; column 2 m + 1 is slot m at offset 2 or
 * slot m + 1 at offset 0: the neighbour slot is a byte shift inside the row's four, across to the register before or behind. */

typedef struct placed { uint8x16_t with[4]; } placed;         /* the slots with each offset, others 0 */

/* The 16 quads of four rows of a unit; `unit` points at those rows. */
INLINE void place_unit(const uint8_t *unit, int8x16_t h, int8x16_t out[QUADS]) {
    placed v[10];
    memset(&v[0], 0, sizeof v[0]);
    memset(&v[9], 0, sizeof v[9]);
    for (int k = 0; k < 8; k++) {
        const uint8x16_t c = vreinterpretq_u8_s8(slot_codes(unit, h, k)), offset = slot_offsets(unit, k);
        for (int i = 0; i < 4; i++) v[1 + k].with[i] = vandq_u8(vceqq_u8(offset, vdupq_n_u8((uint8_t)i)), c);
    }
    for (int k = 0; k < 8; k++) {
#define WORDS(v) vreinterpretq_u32_u8(v)
        const uint32x4_t before = vorrq_u32(vshlq_n_u32(WORDS(v[1 + k].with[3]), 8), vshrq_n_u32(WORDS(v[k].with[3]), 24));
        const uint32x4_t behind = vorrq_u32(vshrq_n_u32(WORDS(v[1 + k].with[0]), 8), vshlq_n_u32(WORDS(v[2 + k].with[0]), 24));
        const uint8x16_t even = vorrq_u8(v[1 + k].with[1], vreinterpretq_u8_u32(before)), odd = vorrq_u8(v[1 + k].with[2], vreinterpretq_u8_u32(behind));
        const uint32x4_t low = WORDS(vzip1q_u8(even, odd)), high = WORDS(vzip2q_u8(even, odd));      /* eight columns of two rows each */
#undef WORDS
        out[2 * k] = vreinterpretq_s8_u32(vuzp1q_u32(low, high));
        out[2 * k + 1] = vreinterpretq_s8_u32(vuzp2q_u32(low, high));
    }
}

static void slide2_decode(const tt_slide2 *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    int8x16_t q[QUADS];
    for (int part = 0; part < 4 && ROWS * p + 4 * part < w->rows; part++)
        for (int64_t c = c0; c < c1; c += UNIT) {
            const half_scales s = scales_of(w->scales + (p * w->groups + c / w->group) * ROWS + 4 * part);
            place_unit(w->codes + (p * w->units + c / UNIT) * TT_SLIDE2_BYTES + 16 * part, s.h, q);
            put_unit(q, s.d, w->rows - ROWS * p - 4 * part, c1 - c, dst + 4 * part * ld + c - c0, ld);
        }
}

/* Columns that do not exist may get the filling's code: activations are 0 there. */
static void slide2_expand(const tt_slide2 *w, int64_t p, uint8_t *codes) {
    const uint8_t *unit = w->codes + p * w->units * TT_SLIDE2_BYTES;
    int8x16_t q[QUADS];
    for (int64_t u = 0; u < w->units; u++, unit += TT_SLIDE2_BYTES, codes += 1024)
        for (int part = 0; part < 4; part++) {
            place_unit(unit + 16 * part, scales_of(w->scales + (p * w->groups + UNIT * u / w->group) * ROWS + 4 * part).h, q);
            put_codes(q, part, codes);
        }
}

void tt__kernels_neon_slide2(tt_kernels *k) {
    k->slide2_unroll = slide2_unroll;
    k->slide2_rowdot = slide2_rowdot;
    k->slide2_decode = slide2_decode;
    k->slide2_expand = slide2_expand;
}
