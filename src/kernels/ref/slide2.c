/* slide2: the definitions. Layout: slide2.h. */
#include "kernels/half.h"
#include "kernels/isa.h"
#include "kernels/slide2.h"
#include <string.h>

static void slide2_unroll(const float *x, int64_t n, uint8_t *table, float *d) {
    for (int64_t c = 0; c < n; c += 64, table += TT_SLIDE2_TABLE) {
        const int64_t m = n - c < 64 ? n - c : 64;
        uint32_t top = 0;
        for (int64_t i = 0; i < m; i++) {
            uint32_t bits;
            memcpy(&bits, x + c + i, 4);
            bits &= 0x7fffffffu;
            if (bits > top) top = bits;
        }
        const tt_unit_scale s = tt__unit_scale(top);
        uint8_t q[66];
        memset(q, 128, sizeof q);
        for (int64_t i = 0; s.inv != 0 && i < m; i++) q[1 + i] = (uint8_t)(128 + (int)((x[c + i] * s.inv + 12582912.0f) - 12582912.0f));
        for (int i = 0; i < 32; i++) memcpy(table + 4 * i, q + 2 * i, 4);
        *d++ = s.d;
    }
}

static void slide2_rowdot(const tt_slide2 *w, int64_t p0, int64_t p1, const tt_unrolled *x, float *y, int64_t ldy) {
    for (int64_t r = 16 * p0; r < 16 * p1 && r < w->rows; r++)
        for (int64_t t = 0; t < x->T; t++) {
            float sum = 0;
            for (int64_t u = 0; u < w->units; u++) {
                const uint8_t *unit = w->codes + (r / 16 * w->units + u) * TT_SLIDE2_BYTES, *a = x->table + (t * x->units + u) * TT_SLIDE2_TABLE;
                const uint16_t scale = w->scales[(r / 16 * w->groups + 64 * u / w->group) * 16 + r % 16];
                int32_t dot = 0;
                for (int s = 0; s < 32; s++) dot += (2 * tt__slide2_code(unit, (int)(r % 16), s) + (scale >> 15)) * (a[4 * s + tt__slide2_offset(unit, (int)(r % 16), s)] - 128);
                sum += 0.5f * half_to_f32(scale & 0x7fff) * x->d[t * x->units + u] * (float)dot;
            }
            y[t * ldy + r] = sum;
        }
}

static void slide2_decode(const tt_slide2 *w, int64_t p, int64_t c0, int64_t c1, float *dst, int64_t ld) {
    const int64_t rows = w->rows - 16 * p < 16 ? w->rows - 16 * p : 16;
    for (int r = 0; r < rows; r++) {
        memset(dst + r * ld, 0, (size_t)(c1 - c0) * sizeof *dst);
        for (int64_t c = c0; c < c1; c += 64) {
            const uint8_t *unit = w->codes + (p * w->units + c / 64) * TT_SLIDE2_BYTES;
            const uint16_t scale = w->scales[(p * w->groups + c / w->group) * 16 + r];
            const float d = 0.5f * half_to_f32(scale & 0x7fff);
            for (int64_t s = 0; s < 32 && c + 2 * s < w->cols; s++)
                dst[r * ld + c - c0 + 2 * s - 1 + tt__slide2_offset(unit, r, (int)s)] = d * (float)(2 * tt__slide2_code(unit, r, (int)s) + (scale >> 15));
        }
    }
}

static void slide2_expand(const tt_slide2 *w, int64_t p, uint8_t *codes) {
    for (int64_t u = 0; u < w->units; u++, codes += 1024) {
        const uint8_t *unit = w->codes + (p * w->units + u) * TT_SLIDE2_BYTES;
        memset(codes, 128, 1024);
        for (int r = 0; r < 16; r++) {
            const uint16_t scale = w->scales[(p * w->groups + 64 * u / w->group) * 16 + r];
            for (int64_t s = 0; s < 32 && 64 * u + 2 * s < w->cols; s++) {
                const int64_t c = 2 * s - 1 + tt__slide2_offset(unit, r, (int)s);
                codes[c / 4 * 64 + 4 * r + c % 4] = (uint8_t)(128 + 2 * tt__slide2_code(unit, r, (int)s) + (scale >> 15));
            }
        }
    }
}

void tt__kernels_ref_slide2(tt_kernels *k) {
    k->slide2_unroll = slide2_unroll;
    k->slide2_rowdot = slide2_rowdot;
    k->slide2_decode = slide2_decode;
    k->slide2_expand = slide2_expand;
}
