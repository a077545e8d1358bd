/* Panels against batches of rounded activations (kernels/batch.h), 8 rows of W (two registers) times a tile of tokens: the body of batch.c,
 * batch_dotprod.c and batch_i8mm.c. Sums run over 32 columns in integers and are scaled into f32 then; codes are bytes as in panel.h.
 *
 *     neon      4 tokens: sums of 16 bits, two for each register of rows
 *     dotprod   8 tokens: a register of activations holds a quad of four tokens; each is a lane of vdotq
 *     i8mm      8 tokens: two rows x 8 columns times 8 columns x two tokens. Neighbouring quads, zipped by words, are such rows
 *               and tokens; of two products of neighbouring rows, even lanes are the first token's, odd ones the second's
 */
#include "kernels/aarch64/panel.h"
#include <math.h>
#include <stdbool.h>

#ifdef __ARM_FEATURE_DOTPROD
enum { TOKENS = 8 };
#else
enum { TOKENS = 4 };
#endif
enum { HALF = UNIT / 2, PAIR = 2 };              /* registers of rows at a time */

typedef struct sums { int32x4_t s[TOKENS][PAIR]; } sums;

/* ---- activations ---- */

/* A unit of a token on its way: floats, scale of each half, sums of quarters. */
typedef struct one_unit { vf v[UNIT / VN]; float d[2]; int32_t sum[4]; } one_unit;

INLINE uint32_t largest_bits(const vf v[HALF / VN]) {
    uint32x4_t top = vdupq_n_u32(0);
    for (int i = 0; i < HALF / VN; i++) top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(v[i]), vdupq_n_u32(0x7fffffffu)));
    return vmaxvq_u32(top);
}

/* Rounds both halves and stores their quads at `to`, `step` bytes apart. */
INLINE void round_unit(one_unit *x, int per, int8_t *to, int64_t step) {
    uint32_t top[2] = {largest_bits(x->v), largest_bits(x->v + HALF / VN)};
    if (per == UNIT) top[0] = top[1] = top[0] > top[1] ? top[0] : top[1];
    for (int h = 0; h < 2; h++) {
        const float amax = half_bits_to_f32(top[h]), inverse = 127.0f / amax;
        const bool usable = top[h] < 0x7f800000u && amax >= 0x1p-100f;
        int32x4_t total[2] = {zero32(), zero32()};
        for (int i = HALF / VN * h; i < HALF / VN * (h + 1); i++) {
            const int32x4_t r = usable ? vcvtnq_s32_f32(vmulq_n_f32(x->v[i], inverse)) : zero32();
            const int16x4_t narrow = vmovn_s32(r);
            const int8x8_t quad = vmovn_s16(vcombine_s16(narrow, narrow));
            total[i % 8 / 4] = vaddq_s32(total[i % 8 / 4], r);
            memcpy(to + i * step, &quad, 4);
        }
        x->d[h] = usable ? amax / 127.0f : top[h] < 0x7f800000u ? 0.0f : NAN;
        for (int i = 0; i < 2; i++) x->sum[2 * h + i] = vaddvq_s32(total[i]);
    }
}

static void batch_pack(const float *x, int64_t ldx, const tt_batch *b, int64_t tile) {
    for (int64_t u = 0; u < b->units; u++) {
        const int64_t cell = tile * b->units + u;
        for (int t = 0; t < TOKENS; t++) {
            const int64_t row = tile * TOKENS + t, n = row < b->T ? b->n - UNIT * u : 0;         /* columns that are there */
            const float *p = row < b->T ? x + row * ldx + UNIT * u : x;
            float *d = b->d + 2 * cell * TOKENS + t, *mass = b->mass + 3 * cell * TOKENS + t;
            int32_t *less = b->less + 3 * cell * TOKENS + t;
            one_unit v;
            for (int i = 0; i < UNIT / VN; i++) v.v[i] = n > VN * i ? v_load_n(p + VN * i, n - VN * i) : v_zero();
            round_unit(&v, b->per, b->q + (16 * cell * TOKENS + t) * 4, 4 * TOKENS);
            const int32_t first = v.sum[0] + v.sum[1], second = v.sum[2] + v.sum[3], sum[3] = {first, second, first + second};
            for (int i = 0; i < 4; i++) b->quarters[((2 * cell + i / 2) * TOKENS + t) * 2 + i % 2] = (int16_t)-v.sum[i];
            for (int i = 0; i < 3; i++) less[i * TOKENS] = -sum[i];
            for (int h = 0; h < 2; h++) d[h * TOKENS] = v.d[h], mass[h * TOKENS] = v.d[h] * (float)sum[h];
            mass[2 * TOKENS] = b->per == UNIT ? v.d[0] * (float)sum[2] : 0.0f;
        }
    }
}

/* ---- products: Σ code x over eight quads from k, of the rows of two registers ---- */

#ifdef __ARM_FEATURE_MATMUL_INT8
INLINE int8x16_t zipped(int8x16_t a, int8x16_t b, int high) {
    const int32x4_t x = vreinterpretq_s32_s8(a), y = vreinterpretq_s32_s8(b);
    return vreinterpretq_s8_s32(high ? vzip2q_s32(x, y) : vzip1q_s32(x, y));
}

INLINE sums sum_half(int bits, tt_panel_grid grid, const uint8_t *unit, const int8_t *q, int k) {
    int32x4_t s[TOKENS / 2][2 * PAIR];           /* two tokens, two rows */
    for (int t = 0; t < TOKENS / 2; t++)
        for (int r = 0; r < 2 * PAIR; r++) s[t][r] = zero32();
#pragma GCC unroll 4
    for (int j = k; j < k + 8; j += 2) {
        int8x16_t w[2 * PAIR];
        for (int i = 0; i < PAIR; i++) {
            const int8x16_t a = signed_codes(bits, grid, unit + 16 * i, j), b = signed_codes(bits, grid, unit + 16 * i, j + 1);
            w[2 * i] = zipped(a, b, 0);
            w[2 * i + 1] = zipped(a, b, 1);
        }
        for (int t = 0; t < TOKENS / 2; t++) {
            const int8_t *p = q + j * TOKENS * 4 + t / 2 * 16;
            const int8x16_t x = zipped(vld1q_s8(p), vld1q_s8(p + TOKENS * 4), t % 2);
            for (int r = 0; r < 2 * PAIR; r++) s[t][r] = vmmlaq_s32(s[t][r], w[r], x);
        }
    }
    sums v;
    for (int t = 0; t < TOKENS / 2; t++)
        for (int i = 0; i < PAIR; i++) {
            v.s[2 * t][i] = vuzp1q_s32(s[t][2 * i], s[t][2 * i + 1]);
            v.s[2 * t + 1][i] = vuzp2q_s32(s[t][2 * i], s[t][2 * i + 1]);
        }
    return v;
}
#elif defined(__ARM_FEATURE_DOTPROD)
INLINE sums sum_half(int bits, tt_panel_grid grid, const uint8_t *unit, const int8_t *q, int k) {
    sums v;
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < PAIR; i++) v.s[t][i] = zero32();
#pragma GCC unroll 8
    for (int j = k; j < k + 8; j++) {
        const int8x16_t x0 = vld1q_s8(q + j * TOKENS * 4), x1 = vld1q_s8(q + j * TOKENS * 4 + 16);
        for (int i = 0; i < PAIR; i++) {
            const int8x16_t w = signed_codes(bits, grid, unit + 16 * i, j);
#define LANE(t) v.s[t][i] = vdotq_laneq_s32(v.s[t][i], w, x0, t), v.s[t + 4][i] = vdotq_laneq_s32(v.s[t + 4][i], w, x1, t);
            LANE(0) LANE(1) LANE(2) LANE(3)
#undef LANE
        }
    }
    return v;
}
#else
INLINE sums sum_half(int bits, tt_panel_grid grid, const uint8_t *unit, const int8_t *q, int k) {
    quads a[TOKENS][PAIR];
    sums v;
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < PAIR; i++) a[t][i] = quads_zero(), v.s[t][i] = zero32();
#pragma GCC unroll 8
    for (int j = k; j < k + 8; j++) {
        const int8x16_t x = vld1q_s8(q + j * TOKENS * 4);
        for (int i = 0; i < PAIR; i++) {
            const int8x16_t w = signed_codes(bits, grid, unit + 16 * i, j);
#define LANE(t) a[t][i] = QUADS_ADD(a[t][i], w, x, t);
            LANE(0) LANE(1) LANE(2) LANE(3)
#undef LANE
        }
        if (code_offset(bits, grid) ? j % 2 == 0 : j != k + 7) continue;
        for (int t = 0; t < TOKENS; t++)
            for (int i = 0; i < PAIR; i++) v.s[t][i] = vaddq_s32(v.s[t][i], quads_sum(a[t][i])), a[t][i] = quads_zero();
    }
    return v;
}
#endif

/* ---- a tile of activations against 8 rows ---- */

typedef struct tile { const int8_t *q; const float *d, *mass; const int32_t *less; float *y; int64_t ldy; int tokens; } tile;

INLINE tile tile_of(const tt_batch *b, int64_t i, float *y, int64_t ldy) {
    const int64_t cells = i * b->units * b->tokens, left = b->T - i * b->tokens;
    return (tile){b->q + UNIT * cells, b->d + 2 * cells, b->mass + 3 * cells, b->less + 3 * cells, y + i * b->tokens * ldy, ldy,
                  (int)(left < b->tokens ? left : b->tokens)};
}

typedef struct scales { vf d, m; } scales;

INLINE scales load_scales(tt_panel_grid grid, const uint16_t *scale, const uint16_t *min) {
    const uint16x4_t h = vld1_u16(scale);
    const vf d = f16_bits(grid == TT_GRID_HALF ? vand_u16(h, vdup_n_u16(0x7fff)) : h);
    if (grid == TT_GRID_OFFSET || grid == TT_GRID_TABLE) return (scales){d, d};
    if (grid == TT_GRID_MIN) return (scales){d, v_load_f16(min)};
    const int32x4_t half = vmovl_s16(vshr_n_s16(vreinterpret_s16_u16(h), 15));
    return (scales){d, vreinterpretq_f32_s32(vandq_s32(vreinterpretq_s32_f32(v_mul(d, v_set1(0.5f))), half))};
}

/* Rows 8 part … of panel p. */
INLINE void tile_rows(int bits, tt_panel_grid grid, const tt_panel *w, int64_t p, int part, const tile *x) {
    const uint8_t *codes = w->codes + p * w->units * tt__panel_unit_bytes(bits) + 32 * part;
    const int64_t first = p * w->groups * ROWS + 8 * part;
    const int group_log2 = __builtin_ctz((unsigned)w->group), missing = middle_of(grid, bits) - code_offset(bits, grid);
    vf acc[TOKENS][PAIR];
    for (int t = 0; t < TOKENS; t++) acc[t][0] = acc[t][1] = v_zero();
    for (int64_t u = 0; u < w->units; u++, codes += tt__panel_unit_bytes(bits)) {
        for (int h = 0; h < 2; h++) {
            const float *dx = x->d + (2 * u + h) * TOKENS;
            const int64_t at = (3 * u + h) * TOKENS, group = first + ((UNIT * u + HALF * h) >> group_log2) * ROWS;
            const sums v = sum_half(bits, grid, codes, x->q + u * UNIT * TOKENS, 8 * h);
            for (int i = 0; i < PAIR; i++) {
                const scales s = load_scales(grid, w->scales + group + 4 * i, grid == TT_GRID_MIN ? w->mins + group + 4 * i : NULL);
                for (int t = 0; t < TOKENS; t++) {
                    int32x4_t n = v.s[t][i];
                    if (missing) n = vaddq_s32(n, vdupq_n_s32(missing * x->less[at + t]));
                    acc[t][i] = v_fma(vcvtq_f32_s32(n), v_mul(s.d, v_set1(dx[t])), acc[t][i]);
                    if (grid == TT_GRID_HALF || grid == TT_GRID_MIN) acc[t][i] = v_fma(s.m, v_set1(x->mass[at + t]), acc[t][i]);
                }
            }
        }
    }
    for (int t = 0; t < x->tokens; t++)
        for (int i = 0; i < PAIR; i++) store_rows(x->y + t * x->ldy + ROWS * p + 8 * part + 4 * i, acc[t][i], w->rows - ROWS * p - 8 * part - 4 * i);
}

typedef void (*tile_fn)(const tt_panel *w, int64_t p, int part, const tile *x);
#define TILE(bits, grid) \
    static void tile_##bits##_##grid(const tt_panel *w, int64_t p, int part, const tile *x) { tile_rows(bits, TT_GRID_##grid, w, p, part, x); }
#define EACH_TILE(bits) TILE(bits, OFFSET) TILE(bits, HALF) TILE(bits, MIN)
EACH_TILE(2)
EACH_TILE(3)
EACH_TILE(4)
EACH_TILE(5)
EACH_TILE(8)
TILE(4, TABLE)

#define ENTRIES(bits) {tile_##bits##_OFFSET, tile_##bits##_HALF, tile_##bits##_MIN}
static const tile_fn tile_fns[5][3] = {ENTRIES(2), ENTRIES(3), ENTRIES(4), ENTRIES(5), ENTRIES(8)};

static void panel_gemm(const tt_panel *w, int64_t p0, int64_t p1, const tt_batch *b, int64_t tile0, int64_t tile1, float *y, int64_t ldy) {
    const tile_fn fn = w->grid == TT_GRID_TABLE ? tile_4_TABLE : tile_fns[w->bits == 8 ? 4 : w->bits - 2][w->grid];
    for (int64_t i = tile0; i < tile1; i++) {
        const tile x = tile_of(b, i, y, ldy);
        for (int64_t p = p0; p < p1; p++)
            for (int part = 0; part < 2 && ROWS * p + 8 * part < w->rows; part++) fn(w, p, part, &x);
    }
}

INLINE void override_batch(tt_kernels *k) {
    k->batch_tokens = TOKENS;
    k->batch_pack = batch_pack;
    k->panel_gemm = panel_gemm;
}
