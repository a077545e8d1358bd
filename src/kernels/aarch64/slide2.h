/* slide2 against few activations, four rows at a time: a table look-up in 16 bytes picks what four slots of four rows need. The body of slide2.c
 * and slide2_dotprod.c, each compiled with its own flags.
 */
#include "kernels/aarch64/halves.h"
#include "kernels/isa.h"

enum { MANY = 4, AHEAD = 2048 };                /* activations at a time; prefetched bytes */

/* Slots 4 k … 4 k + 3 of the rows of a register: 2 c + h, and offsets. `unit` already points at those rows. */
INLINE int8x16_t slot_codes(const uint8_t *unit, int8x16_t h, int k) { return vaddq_s8(twice(vld1q_u8(unit + k / 2 * 64), k % 2), h); }
INLINE uint8x16_t slot_offsets(const uint8_t *unit, int k) { return vandq_u8(vld1q_u8(unit + 256 + k / 4 * 64) >> (uint8_t)(k % 4 * 2), vdupq_n_u8(3)); }

/* Rows 4 part … of panel p. */
INLINE void quarter_panel(const tt_slide2 *w, int64_t p, int part, const tt_unrolled *x, int64_t t0, int T, float *y, int64_t ldy) {
    const uint8_t *unit = w->codes + p * w->units * TT_SLIDE2_BYTES + 16 * part, *a[MANY];
    const uint16_t *scales = w->scales + p * w->groups * ROWS + 4 * part;
    const uint8x16_t slot = vreinterpretq_u8_u32(vdupq_n_u32(0x0c080400u));      /* where the candidates of a row's four slots begin */
    const int64_t per_scale = w->group / UNIT;
    vf acc[MANY];
    for (int t = 0; t < T; t++) acc[t] = v_zero(), a[t] = x->table + (t0 + t) * x->units * TT_SLIDE2_TABLE;
    for (int64_t u = 0; u < w->units; u++, unit += TT_SLIDE2_BYTES) {
        const half_scales s = scales_of(scales + u / per_scale * ROWS);
        quads sum[MANY];
        for (int t = 0; t < T; t++) sum[t] = quads_zero();
        if (!part)
            for (int i = 0; i < TT_SLIDE2_BYTES; i += 64) v_prefetch(unit + AHEAD + i);
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            const int8x16_t c = slot_codes(unit, s.h, k);
            const uint8x16_t at = vorrq_u8(slot_offsets(unit, k), slot);
            for (int t = 0; t < T; t++) {
                const uint8x16_t table = veorq_u8(vld1q_u8(a[t] + 16 * k), vdupq_n_u8(128));
                sum[t] = quads_add(sum[t], c, vreinterpretq_s8_u8(vqtbl1q_u8(table, at)));
            }
        }
        for (int t = 0; t < T; t++) {
            acc[t] = v_fma(v_mul(s.d, v_set1(x->d[(t0 + t) * x->units + u])), vcvtq_f32_s32(quads_sum(sum[t])), acc[t]);
            a[t] += TT_SLIDE2_TABLE;
        }
    }
    for (int t = 0; t < T; t++) store_rows(y + (t0 + t) * ldy + ROWS * p + 4 * part, acc[t], w->rows - ROWS * p - 4 * part);
}

static void slide2_rowdot(const tt_slide2 *w, int64_t p0, int64_t p1, const tt_unrolled *x, float *y, int64_t ldy) {
    for (int64_t p = p0; p < p1; p++)
        for (int part = 0; part < 4 && ROWS * p + 4 * part < w->rows; part++)
            for (int64_t t = 0; t < x->T; t += MANY)
                switch (x->T - t < MANY ? x->T - t : MANY) {
                case 1: quarter_panel(w, p, part, x, t, 1, y, ldy); break;
                case 2: quarter_panel(w, p, part, x, t, 2, y, ldy); break;
                case 3: quarter_panel(w, p, part, x, t, 3, y, ldy); break;
                default: quarter_panel(w, p, part, x, t, 4, y, ldy);
                }
}
