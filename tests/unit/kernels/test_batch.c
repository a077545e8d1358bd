/* Batches of rounded activations against panels: packing bit-equal to its definition on every level; products equal to the sum of the
 * same integers within float rounding, exactly equal where every scale is 1; neither depends on what else is asked for. Buffers end at an
 * unmapped page (codes and scales from a 64-byte boundary, as panels are); nothing beyond the rows and tokens of the call is written. */
#include "unit/kernels/super.h"

enum { KINDS = 6, TABLE = 5 };
static const int all_bits[KINDS] = {2, 3, 4, 5, 8, 4}, all_groups[] = {32, 64, 128};       /* TABLE: a table, whatever the grid */
static tt_panel_grid grid_of(int kind, int64_t grid) { return kind == TABLE ? TT_GRID_TABLE : (tt_panel_grid)grid; }

static void *guard64(int64_t bytes) { return guard((size_t)(bytes + 63) / 64 * 64); }

/* Random codes; scales random, or 1 (and minima small integers), so that sums are exact. value: what the weights mean. */
typedef struct sample { tt_panel w; double *value; } sample;

static uint16_t a_scale(tt_panel_grid grid, bool exact) {
    const uint16_t sign = grid == TT_GRID_MIN ? 0 : (uint16_t)(tt__rng_u64(&rng) & 0x8000u);
    return (uint16_t)(sign | tt__f32_to_f16(exact ? 1.0f : 0.05f + 0.05f * uniform()));
}

static double meaning(const tt_panel *w, int64_t at, unsigned q) {
    const double d = (double)tt__f16_to_f32(w->scales[at]), middle = 1 << (w->bits - 1);
    if (w->grid == TT_GRID_MIN) return d * q + (double)tt__f16_to_f32(w->mins[at]);
    if (w->grid == TT_GRID_TABLE) return d * (tt__panel_table[q] - 128);
    return w->grid == TT_GRID_OFFSET ? d * (q - middle) : fabs(d) * (q - middle + (signbit(d) ? 0.5 : 0.0));
}

static sample a_panel(int bits, int group, tt_panel_grid grid, int64_t rows, int64_t cols, bool exact) {
    sample s = {.w = {.bits = bits, .group = group, .grid = grid, .rows = rows, .cols = cols, .units = (cols + 63) / 64}};
    tt_panel *w = &s.w;
    w->groups = (64 * w->units + group - 1) / group;
    const int64_t panels = tt__panels(rows), unit = tt__panel_unit_bytes(bits), scales = panels * w->groups * 16;
    uint8_t *codes = guard64(panels * w->units * unit);
    uint16_t *d = guard64(scales * 2), *m = grid == TT_GRID_MIN ? guard64(scales * 2) : NULL;
    for (int64_t i = 0; i < scales; i++) {
        const bool there = i / 16 / w->groups * 16 + i % 16 < rows;
        d[i] = there ? a_scale(grid, exact) : 0;
        if (m) m[i] = there ? tt__f32_to_f16(exact ? (float)(tt__rng_u64(&rng) % 5) - 2.0f : uniform()) : 0;
    }
    w->codes = codes, w->scales = d, w->mins = m;
    s.value = guard((size_t)(rows * cols) * sizeof *s.value);
    for (int64_t p = 0; p < panels; p++)
        for (int64_t u = 0; u < w->units; u++) {
            uint8_t q[16 * 64] = {0};
            for (int i = 0; i < 16 * 64; i++) {
                const int64_t r = 16 * p + i / 64, c = 64 * u + i % 64;
                if (r >= rows || c >= cols) continue;
                q[i] = (uint8_t)(tt__rng_u64(&rng) & ((1u << bits) - 1));
                s.value[r * cols + c] = meaning(w, (p * w->groups + c / group) * 16 + i / 64, q[i]);
            }
            tt__panel_pack(bits, q, codes + (p * w->units + u) * unit);
        }
    return s;
}

/* Floats that round to themselves: integers with a 127 in every half of a unit. */
static float *whole_floats(int64_t T, int64_t n) {
    float *x = guard((size_t)(T * n) * sizeof *x);
    for (int64_t i = 0; i < T * n; i++) x[i] = i % n % 32 == 0 ? 127.0f : (float)((int)(tt__rng_u64(&rng) % 255) - 127);
    return x;
}

static tt_batch packed(const tt_kernels *k, const float *x, int per, int64_t T, int64_t n) {
    const size_t bytes = tt__batch_bytes(T, n);
    void *ws = guard(bytes);
    tt_batch b;
    memset(ws, 0xa5, bytes);
    tt__batch_init(&b, k->batch_tokens, per, T, n, ws);
    TT_CHECK((uint8_t *)(b.quarters + 4 * b.tiles * b.units * b.tokens) <= (uint8_t *)ws + bytes);
    for (int64_t i = 0; i < b.tiles; i++) k->batch_pack(x, n, &b, i);
    return b;
}

static int q_of(const tt_batch *b, int64_t t, int64_t c) {
    const int64_t cell = t / b->tokens * b->units + c / 64;
    return b->q[((16 * cell + c % 64 / 4) * b->tokens + t % b->tokens) * 4 + c % 4];
}
static int64_t part_of(const tt_batch *b, int64_t t, int64_t u, int parts, int i) {
    return (parts * (t / b->tokens * b->units + u) + i) * b->tokens + t % b->tokens;
}
static float d_of(const tt_batch *b, int64_t t, int64_t c) { return b->d[part_of(b, t, c / 64, 2, c % 64 / 32)]; }

static int quarter_of(const tt_batch *b, int64_t t, int64_t u, int i) { return b->quarters[((2 * (t / b->tokens * b->units + u) + i / 2) * b->tokens + t % b->tokens) * 2 + i % 2]; }

/* `per` columns of a token from c on share a scale. Adds up Σ q of the halves they lie in. */
static float check_columns(const tt_batch *b, const float *x, int64_t t, int64_t c0, int sum[2]) {
    float top = 0;
    bool odd = false;
    for (int64_t c = c0; c < c0 + b->per; c++) {
        const float v = t < b->T && c < b->n ? x[t * b->n + c] : 0.0f;
        odd |= !isfinite(v);
        top = fmaxf(top, fabsf(v));
    }
    const float d = odd ? NAN : top < 0x1p-100f ? 0.0f : top / 127.0f;
    for (int64_t c = c0; c < c0 + b->per; c++) {
        const float v = t < b->T && c < b->n && d > 0.0f ? x[t * b->n + c] : 0.0f;
        const int q = (int)nearbyintf(v * (d > 0.0f ? 127.0f / top : 0.0f));
        TT_CHECK_EQ(q_of(b, t, c), q);
        TT_CHECK(odd ? isnan(d_of(b, t, c)) : d_of(b, t, c) == d);
        sum[c % 64 / 32] += q;
    }
    return d;
}

static void check_unit(const tt_batch *b, const float *x, int64_t t, int64_t u) {
    int sum[3] = {0};
    float d[3] = {0};
    for (int64_t c = 0; c < 64; c += b->per) d[c / 32] = check_columns(b, x, t, 64 * u + c, sum);
    for (int i = 0; i < 4; i++) {
        int quarter = 0;
        for (int c = 16 * i; c < 16 * i + 16; c++) quarter -= q_of(b, t, 64 * u + c);
        TT_CHECK_EQ(quarter_of(b, t, u, i), quarter);
    }
    if (b->per == 64) d[1] = d[2] = d[0];
    sum[2] = sum[0] + sum[1];
    for (int i = 0; i < 3; i++) {
        const float mass = b->mass[part_of(b, t, u, 3, i)];
        TT_CHECK_EQ(b->less[part_of(b, t, u, 3, i)], -sum[i]);
        TT_CHECK(isnan(d[i]) ? isnan(mass) : mass == d[i] * (float)sum[i]);
    }
}

TT_CASE(packing_is_the_same_everywhere) {
    tt__rng_seed(&rng, 1);
    FOR_EACH_LEVEL(k)
        for (int64_t T = 1; T <= 31; T = T < 14 ? T + 1 : T + 7)
            for (int64_t n = 1; n <= 130; n += n < 66 ? 1 : 9) {
                tt_test_note("%s, %lld tokens of %lld", k->isa, (long long)T, (long long)n);
                float *x = random_floats((size_t)(T * n), 4);
                if (T == 3 || T == 6) x[n + n / 2] = NAN, x[2 * n] = INFINITY;
                if (T == 4 || T == 5) for (int64_t c = 0; c < n; c++) x[n + c] = 0.0f, x[2 * n + c] *= 0x1p-110f, x[3 * n + c] *= 0x1p-90f;
                const tt_batch b = packed(k, x, T % 2 ? 32 : 64, T, n);
                for (int64_t t = 0; t < b.tiles * b.tokens; t++)
                    for (int64_t u = 0; u < b.units; u++) check_unit(&b, x, t, u);
                release_all();
            }
}

/* Σ w x and Σ |w x| over the rounded activations. sizes: of the terms that cancel in a weight; NULL: none do. */
static double expected(const sample *s, const double *sizes, const tt_batch *b, int64_t t, int64_t r, double *size) {
    double sum = 0;
    *size = 0;
    for (int64_t c = 0; c < b->n; c++) {
        const double x = q_of(b, t, c) * (double)d_of(b, t, c), v = s->value[r * b->n + c] * x;
        sum += v;
        *size += sizes ? fabs(sizes[r * b->n + c] * x) : fabs(v);
    }
    return sum;
}

/* The middle of the matrix and its rest are computed by separate calls into y [T, rows + 3]. */
static void check_product_of(const tt_kernels *k, const sample *s, const double *sizes, const float *x, int per, int64_t T, bool exact) {
    const tt_batch b = packed(k, x, per, T, s->w.cols);
    const int64_t rows = s->w.rows, ld = rows + 3, panels = tt__panels(rows), p = panels / 2, i = b.tiles / 2;
    float *y = guard((size_t)(T * ld - 3) * sizeof *y);
    void (*const gemm)(const tt_panel *, int64_t, int64_t, const tt_batch *, int64_t, int64_t, float *, int64_t) = tt__panel_is_super(&s->w) ? k->super_gemm : k->panel_gemm;
    fill_nan(y, (size_t)(T * ld - 3));
    gemm(&s->w, p, panels, &b, i, b.tiles, y, ld);
    for (int64_t t = 0; t < T; t++)
        for (int64_t r = 0; r < ld && t * ld + r < T * ld - 3; r++)
            TT_CHECK_EQ(isnan(y[t * ld + r]), t < i * b.tokens || r < 16 * p || r >= rows);
    gemm(&s->w, 0, p, &b, i, b.tiles, y, ld);
    gemm(&s->w, 0, panels, &b, 0, i, y, ld);
    float *again = guard((size_t)(T * ld) * sizeof *again);
    gemm(&s->w, 0, panels, &b, 0, b.tiles, again, ld);
    for (int64_t t = 0; t < T; t++)
        for (int64_t r = 0; r < rows; r++) {
            double size;
            const double want = expected(s, sizes, &b, t, r, &size);
            TT_CHECK_NEAR(y[t * ld + r], want, exact ? 0 : 2e-6 * (size + 1e-9));       /* some tens of roundings of 2^-24 */
            TT_CHECK(y[t * ld + r] == again[t * ld + r]);
        }
}

static void check_product(const tt_kernels *k, const sample *s, const float *x, int per, int64_t T, bool exact) { check_product_of(k, s, NULL, x, per, T, exact); }

static void check_shape(int64_t T, int64_t rows, int64_t cols, int bits, int group, tt_panel_grid grid, bool exact) {
    const sample s = a_panel(bits, group, grid, rows, cols, exact);
    const float *x = exact ? whole_floats(T, cols) : random_floats((size_t)(T * cols), 2);
    FOR_EACH_LEVEL(k) {
        tt_test_note("%s, %lld tokens, %lld x %lld, %d bits, groups of %d, grid %d", k->isa, (long long)T, (long long)rows, (long long)cols, bits, group, grid);
        check_product(k, &s, x, group == 32 || (rows + T) % 2 ? 32 : 64, T, exact);
    }
    release_all();
}

TT_CASE(products_of_all_kinds) {
    tt__rng_seed(&rng, 2);
    for (int b = 0; b < KINDS; b++)
        for (int g = 0; g < 3; g++)
            for (int grid = 0; grid < 3; grid++)
                for (int64_t T = 1; T <= 26; T += 5) check_shape(T, 10 + T, 30 * T, all_bits[b], all_groups[g], grid_of(b, grid), false);
}

TT_CASE(integer_parts_are_exact) {
    tt__rng_seed(&rng, 3);
    for (int b = 0; b < KINDS; b++)
        for (int g = 0; g < 3; g++)
            for (int grid = 0; grid < 3; grid++) check_shape(13, 33, 200, all_bits[b], all_groups[g], grid_of(b, grid), true);
}

TT_CASE(every_small_shape) {
    tt__rng_seed(&rng, 4);
    for (int64_t i = 1; i <= 130; i++) {
        check_shape(i, 1 + i * 7 % 40, 1 + i * 11 % 130, all_bits[i % KINDS], all_groups[i % 3], grid_of((int)i % KINDS, i / 3 % 3), false);
        check_shape(1 + i * 5 % 29, i, 1 + i * 3 % 97, all_bits[i / 2 % KINDS], all_groups[i / 5 % 3], grid_of((int)i / 2 % KINDS, i % 3), false);
        check_shape(1 + i * 3 % 14, 1 + i % 19, i, all_bits[i / 3 % KINDS], all_groups[i / 2 % 3], grid_of((int)i / 3 % KINDS, i / 7 % 3), false);
    }
}

/* The largest sums there are: all codes and all activations at their ends. */
TT_CASE(nothing_saturates) {
    for (int b = 0; b < KINDS; b++)
        for (int sign = -1; sign <= 1; sign += 2) {
            sample s = a_panel(all_bits[b], 128, grid_of(b, TT_GRID_MIN), 16, 256, true);
            memset((void *)(uintptr_t)s.w.codes, 0xff, (size_t)(s.w.units * tt__panel_unit_bytes(all_bits[b])));
            for (int64_t i = 0; i < 16 * 256; i++) s.value[i] = meaning(&s.w, i % 256 / 128 * 16 + i / 256, (1u << all_bits[b]) - 1);
            float *x = guard(13 * 256 * sizeof *x);
            for (int64_t i = 0; i < 13 * 256; i++) x[i] = (float)sign * 127.0f;
            FOR_EACH_LEVEL(k) check_product(k, &s, x, 64, 13, true);
            release_all();
        }
}

static void check_super(int kind, int64_t T, int64_t rows, int64_t cols, bool exact, bool largest) {
    const super_sample from = random_super(kind, rows, cols, exact, largest);
    const sample s = {from.w, from.value};
    float *x = exact ? whole_floats(T, cols) : random_floats((size_t)(T * cols), 2);
    for (int64_t i = 0; largest && i < T * cols; i++) x[i] = kind % 2 ? 127.0f : -127.0f;
    FOR_EACH_LEVEL(k)
        for (int per = 32; per <= 64; per += 32) {
            tt_test_note("%s, %lld tokens, %lld x %lld, %d bits with small scales, per %d", k->isa, (long long)T, (long long)rows, (long long)cols, s.w.bits, per);
            check_product_of(k, &s, from.size, x, per, T, false);       /* sums beyond 24 bits are rounded, even of integers */
        }
    release_all();
}

TT_CASE(products_of_small_scales) {
    tt__rng_seed(&rng, 5);
    for (int64_t i = 1; i <= 130; i++) {
        check_super((int)(i % SUPER_KINDS), i % 3 ? 1 + i % 15 : i, 1 + i * 7 % 50, 256 * (1 + i % 3), false, false);
        check_super((int)(i % SUPER_KINDS), 1 + i % 13, i, 256, false, false);
    }
    for (int kind = 0; kind < SUPER_KINDS; kind++)
        for (int largest = 0; largest < 2; largest++) check_super(kind, 13, 33, 512, true, largest);
}
