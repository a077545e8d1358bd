/* Batches against panels: the definitions. Layouts: kernels/batch.h, kernels/panel.h. */
#include "kernels/half.h"
#include "kernels/isa.h"
#include <math.h>

enum { TOKENS = 4, UNIT = TT_PANEL_UNIT, HALF = UNIT / 2, ROWS = TT_PANEL_ROWS };

static uint32_t magnitude(const float *x, int64_t n) {
    uint32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t a = f32_bits(x[i]) & 0x7fffffffu;
        top = a > top ? a : top;
    }
    return top;
}

/* `count` columns of half h on, n of them there, of the token in place t of a tile: its quads, and Σ q of each 16 columns. Returns the scale. */
static float round_columns(const tt_batch *b, int64_t cell, int t, int h, int count, const float *x, int64_t n, int32_t quarter[4]) {
    const uint32_t top = magnitude(x, n);
    const float amax = half_bits_to_f32(top), inverse = 127.0f / amax;
    const int usable = top < 0x7f800000u && amax >= 0x1p-100f;
    for (int i = 0; i < count; i++) {
        const int q = usable && i < n ? (int)(x[i] * inverse + 12582912.0f - 12582912.0f) : 0, c = HALF * h + i;
        b->q[((16 * cell + c / 4) * b->tokens + t) * 4 + c % 4] = (int8_t)q;
        quarter[c / 16] += q;
    }
    return usable ? amax / 127.0f : top < 0x7f800000u ? 0.0f : NAN;
}

/* Unit u of the token; n of its columns are there. */
static void pack_unit(const tt_batch *b, int64_t tile, int64_t u, int t, const float *x, int64_t n) {
    const int64_t cell = tile * b->units + u;
    int32_t quarter[4] = {0};
    float d[2];
    if (b->per == UNIT) d[0] = d[1] = round_columns(b, cell, t, 0, UNIT, x, n, quarter);
    else
        for (int h = 0; h < 2; h++) {
            const int64_t left = n < HALF * h ? 0 : n - HALF * h;
            d[h] = round_columns(b, cell, t, h, HALF, left ? x + HALF * h : NULL, left < HALF ? left : HALF, quarter);
        }
    const int32_t sum[2] = {quarter[0] + quarter[1], quarter[2] + quarter[3]}, sums[3] = {sum[0], sum[1], sum[0] + sum[1]};
    const float masses[3] = {d[0] * (float)sum[0], d[1] * (float)sum[1], b->per == UNIT ? d[0] * (float)sums[2] : 0.0f};
    for (int h = 0; h < 2; h++) b->d[(2 * cell + h) * b->tokens + t] = d[h];
    for (int i = 0; i < 4; i++) b->quarters[((2 * cell + i / 2) * b->tokens + t) * 2 + i % 2] = (int16_t)-quarter[i];
    for (int i = 0; i < 3; i++) {
        b->less[(3 * cell + i) * b->tokens + t] = -sums[i];
        b->mass[(3 * cell + i) * b->tokens + t] = masses[i];
    }
}

static void batch_pack(const float *x, int64_t ldx, const tt_batch *b, int64_t tile) {
    for (int t = 0; t < b->tokens; t++) {
        const int64_t row = tile * b->tokens + t;
        for (int64_t u = 0; u < b->units; u++) {
            const int64_t left = b->n - UNIT * u, n = row >= b->T ? 0 : left < UNIT ? left : UNIT;
            pack_unit(b, tile, u, t, n ? x + row * ldx + UNIT * u : NULL, n);
        }
    }
}

/* Σ over half h of unit u, row r of panel p: d * (dw * (Σ q x - middle Σ x) + m Σ x), the sums in integers. */
static float dot_half(const tt_panel *w, int64_t p, int64_t u, int h, int r, const uint8_t *codes, const tt_batch *b, int64_t tile, int t) {
    const int64_t cell = tile * b->units + u, at = (p * w->groups + (UNIT * u + HALF * h) / w->group) * ROWS + r;
    const int8_t *q = b->q + 64 * cell * b->tokens;
    const int log2 = tt__panel_middle(w->grid, w->bits), middle = log2 < 0 ? 0 : 1 << log2;
    const uint16_t scale = w->scales[at];
    const float d = half_to_f32(w->grid == TT_GRID_HALF ? scale & 0x7fffu : scale);
    const float m = w->grid == TT_GRID_MIN ? half_to_f32(w->mins[at]) : w->grid == TT_GRID_HALF && scale & 0x8000u ? 0.5f * d : 0.0f;
    int32_t sum = middle * b->less[(3 * cell + h) * b->tokens + t];
    for (int c = HALF * h; c < HALF * h + HALF; c++) sum += codes[UNIT * r + c] * q[(c / 4 * b->tokens + t) * 4 + c % 4];
    return d * (float)sum * b->d[(2 * cell + h) * b->tokens + t] + m * b->mass[(3 * cell + h) * b->tokens + t];
}

/* The same with small scales, as ref/super.c has them: d * (dw * Σ s (q - middle) x - m Σ t x), the sums in integers. */
static float dot_half_super(const tt_panel *w, int64_t p, int64_t u, int h, int r, const uint8_t *codes, const tt_batch *b, int64_t tile, int t) {
    const int64_t cell = tile * b->units + u, at = (p * w->groups + u / 4) * ROWS + r, half = (2 * cell + h) * b->tokens + t;
    const uint8_t *sub = w->subs + (p * 2 * w->units + 2 * u + h) * 32 + r;
    const int8_t *x = b->q + 64 * cell * b->tokens;
    const int middle = w->grid == TT_GRID_SINGLE ? 1 << (w->bits - 1) : 0;
    int32_t sum = 0, less = 0;
    for (int i = 0; i < 2; i++) {
        const int own = sub[16 * i], s = w->grid == TT_GRID_SINGLE ? (int8_t)own : w->grid == TT_GRID_PAIR ? sub[0] : own & 15;
        int32_t dot = middle * b->quarters[2 * half + i];
        for (int c = HALF * h + 16 * i; c < HALF * h + 16 * i + 16; c++) dot += codes[UNIT * r + c] * x[(c / 4 * b->tokens + t) * 4 + c % 4];
        sum += s * dot;
        less += (w->grid == TT_GRID_SINGLE ? 0 : w->grid == TT_GRID_PAIR ? sub[16] : own >> 4) * b->quarters[2 * half + i];
    }
    return b->d[half] * (half_to_f32(w->scales[at]) * (float)sum + (w->mins ? half_to_f32(w->mins[at]) * (float)less : 0.0f));
}

static void panel_gemm(const tt_panel *w, int64_t p0, int64_t p1, const tt_batch *b, int64_t tile0, int64_t tile1, float *y, int64_t ldy) {
    uint8_t codes[ROWS * UNIT];
    const int64_t t0 = tile0 * b->tokens, t1 = tile1 * b->tokens < b->T ? tile1 * b->tokens : b->T;
    for (int64_t p = p0; p < p1; p++) {
        const int rows = (int)(w->rows - p * ROWS < ROWS ? w->rows - p * ROWS : ROWS);
        for (int64_t t = t0; t < t1; t++)
            for (int r = 0; r < rows; r++) y[t * ldy + p * ROWS + r] = 0.0f;
        for (int64_t u = 0; u < w->units; u++) {
            tt__panel_codes(w, p, u, codes);
            for (int64_t t = t0; t < t1; t++)
                for (int r = 0; r < rows; r++)
                    for (int h = 0; h < 2; h++)
                        y[t * ldy + p * ROWS + r] += (tt__panel_is_super(w) ? dot_half_super : dot_half)(w, p, u, h, r, codes, b, t / b->tokens, (int)(t % b->tokens));
        }
    }
}

void tt__kernels_ref_batch(tt_kernels *k) {
    k->batch_tokens = TOKENS;
    k->batch_pack = batch_pack;
    k->panel_gemm = panel_gemm;
    k->super_gemm = panel_gemm;
}
