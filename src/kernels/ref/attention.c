/* Attention's own kernels: rows of an 8-bit cache, and the softmax tile that leaves bf16 words. The definitions. */
#include "kernels/half.h"
#include "kernels/isa.h"
#include <math.h>
#include <stdbool.h>

enum { BLOCK = 32, VALUES = 127 };

static void kv8_pack(int8_t *q, uint16_t *scales, const float *x, int64_t n) {
    for (int64_t b = 0; b < n; b += BLOCK) {
        float top = 0.0f;
        bool finite = true;
        for (int i = 0; i < BLOCK; i++) {
            const float a = fabsf(x[b + i]);
            finite &= a <= 3.4e38f;
            top = a > top ? a : top;
        }
        const uint16_t h = f32_to_half(top / VALUES);
        const float d = half_to_f32(h);
        finite &= d < 65520.0f;
        scales[b / BLOCK] = finite ? h : 0x7e00;
        for (int i = 0; i < BLOCK; i++) {
            const float r = finite && d > 0.0f ? rintf(x[b + i] / d) : 0.0f;
            q[b + i] = (int8_t)(r > VALUES ? VALUES : r < -VALUES ? -VALUES : r);
        }
    }
}

static void kv8_to_f32(float *y, const int8_t *q, const uint16_t *scales, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = half_to_f32(scales[i / BLOCK]) * (float)q[i];
}

static void rowdot_kv8(const int8_t *q, int64_t ld, int64_t scales_at, int64_t rows, int64_t cols, const float *x, int64_t ldx, int64_t T, float *y,
                       int64_t ldy) {
    for (int64_t r = 0; r < rows; r++, q += ld) {
        const uint16_t *d = (const uint16_t *)(const void *)(q + scales_at);
        for (int64_t t = 0; t < T; t++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < cols; i++) sum += half_to_f32(d[i / BLOCK]) * (float)q[i] * x[t * ldx + i];
            y[t * ldy + r] = sum;
        }
    }
}

static void mix_kv8(const int8_t *q, int64_t ld, int64_t scales_at, int64_t rows, int64_t cols, const float *p, int64_t ldp, int64_t T, float *y,
                    int64_t ldy) {
    for (int64_t r = 0; r < rows; r++, q += ld) {
        const uint16_t *d = (const uint16_t *)(const void *)(q + scales_at);
        for (int64_t t = 0; t < T; t++)
            for (int64_t i = 0; i < cols; i++) y[t * ldy + i] += p[t * ldp + r] * (half_to_f32(d[i / BLOCK]) * (float)q[i]);
    }
}

static uint32_t to_bf16(float x) {
    const uint32_t u = f32_bits(x);
    return (u & 0x7fffffffu) > 0x7f800000u ? u >> 16 | 0x40u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

static void softmax_tile_bf16(float *s, int64_t keys, int lanes, float scale, float *m, float *l, float *alpha) {
    for (int j = 0; j < lanes; j++) {
        const float before = m[j];
        float top = before, sum = 0.0f;
        for (int64_t i = 0; i < keys; i++) top = scale * s[i * lanes + j] > top ? scale * s[i * lanes + j] : top;
        for (int64_t i = 0; i < keys; i += 2) {
            const float a = expf(scale * s[i * lanes + j] - top), b = i + 1 < keys ? expf(scale * s[(i + 1) * lanes + j] - top) : 0.0f;
            sum += a + b;
            s[i / 2 * lanes + j] = half_bits_to_f32(to_bf16(a) | to_bf16(b) << 16);
        }
        alpha[j] = expf(before - top);
        l[j] = l[j] * alpha[j] + sum;
        m[j] = top;
    }
}

void tt__kernels_ref_attention(tt_kernels *k) {
    k->kv8_pack = kv8_pack;
    k->kv8_to_f32 = kv8_to_f32;
    k->rowdot_kv8 = rowdot_kv8;
    k->mix_kv8 = mix_kv8;
    k->softmax_tile_bf16 = softmax_tile_bf16;
}
