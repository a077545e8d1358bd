/* Trellis codes (kernels/trellis.h), the definition. */
#include "kernels/half.h"
#include "kernels/isa.h"
#include <math.h>

static void trellis_decode(const tt_trellis *w, int64_t r0, int64_t c0, int64_t c1, float *out) {
    const int64_t first = r0 / w->tile * w->tile, n = w->padded - first < w->tile ? w->padded - first : w->tile;
    for (int64_t c = c0; c < c1; c++, out += TT_TRELLIS_LANES) {
        const int bits = w->rates[c];
        const uint8_t *codes = w->codes + w->start[c] + first * bits / 8;
        const uint16_t *scales = w->scales + c / w->group * w->padded + r0;
        const float gain = half_to_f32(w->gains[c]);
        for (int l = 0; l < TT_TRELLIS_LANES; l++)
            out[l] = bits ? half_to_f32(scales[l]) * gain * (float)tt__trellis_value(tt__trellis_window(codes, n, bits, w->states, r0 - first + l)) + 0.0f : 0.0f;      /* no -0 */
    }
}

static void trellis_search(tt_viterbi *v) {
    const int64_t p = (int64_t)1 << (v->states - v->bits);
    for (int64_t i = 0; i < v->n; i++) {
        float *least = v->least, *next = v->spare;
        for (int64_t q = 0; q < p; q++) {
            float best = INFINITY;
            uint8_t from = 0;
            for (int64_t h = 0; h < (int64_t)1 << v->bits; h++) {
                const int64_t s = q + h * p;
                const float d = v->x[i] - v->value[s], cost = fmaf(v->weight[i] * d, d, least[s >> v->bits]);
                if (cost < best) best = cost, from = (uint8_t)h;
            }
            next[q] = best;
            v->from[i * p + q] = from;
        }
        v->least = next, v->spare = least;
    }
}

void tt__kernels_ref_trellis(tt_kernels *k) {
    k->trellis_decode = trellis_decode;
    k->trellis_search = trellis_search;
}
