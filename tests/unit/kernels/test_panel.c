/* Panels: packing as panel.h draws it, decoders bit-equal on every level, products equal to the exact sum of the same integers within
 * float rounding. Buffers end at an unmapped page; nothing beyond the rows of the matrix is written. */
#include "unit/kernels/super.h"

static const int all_bits[] = {2, 3, 4, 5, 8, 4}, all_groups[] = {32, 64, 128};          /* the last ones with a table, whatever the grid */
static const char *const grid_names[] = {"offset", "half", "min", "table"};
enum { KINDS = 6, CASES = 3 * 3 * KINDS };

static int bits_of(int i) { return all_bits[i % KINDS]; }
static int group_of(int i) { return all_groups[i / KINDS % 3]; }
static tt_panel_grid grid_of(int i) { return i % KINDS == KINDS - 1 ? TT_GRID_TABLE : (tt_panel_grid)(i / (3 * KINDS)); }

/* A panel matrix of random codes and scales, with what it should mean, and the size of the terms that cancel in it (d q and m). */
typedef struct sample { tt_panel w; double *value, *size; } sample;

static uint16_t random_half(float scale, bool any_sign) {
    const uint16_t h = tt__f32_to_f16(scale * uniform());
    return any_sign ? h : (uint16_t)(h ^ (tt__rng_u64(&rng) & 0x8000u));
}

static double weight_of(const tt_panel *w, int64_t r, int64_t c, unsigned q) {
    const int64_t at = (r / 16 * w->groups + c / w->group) * 16 + r % 16;
    const double d = (double)tt__f16_to_f32(w->scales[at]), middle = 1 << (w->bits - 1);
    if (w->grid == TT_GRID_MIN) return d * q + (double)tt__f16_to_f32(w->mins[at]);
    if (w->grid == TT_GRID_TABLE) return d * (tt__panel_table[q] - 128);
    if (w->grid == TT_GRID_OFFSET) return d * (q - middle);
    return fabs(d) * (q - middle + (signbit(d) ? 0.5 : 0.0));
}

/* Guarded, but codes and scales from a 64-byte boundary, as panels are. */
static void *guard64(int64_t bytes) { return guard((size_t)(bytes + 63) / 64 * 64); }

static sample random_panel(int bits, int group, tt_panel_grid grid, int64_t rows, int64_t cols) {
    sample s = {.w = {.bits = bits, .group = group, .grid = grid, .rows = rows, .cols = cols, .units = (cols + 63) / 64}};
    tt_panel *w = &s.w;
    w->groups = (64 * w->units + group - 1) / group;
    const int64_t panels = tt__panels(rows), unit = tt__panel_unit_bytes(bits), n_scales = panels * w->groups * 16;
    uint8_t *codes = guard64(panels * w->units * unit);
    uint16_t *scales = guard64(n_scales * 2), *mins = grid == TT_GRID_MIN ? guard64(n_scales * 2) : NULL;
    s.value = guard((size_t)(rows * cols) * sizeof *s.value);
    s.size = guard((size_t)(rows * cols) * sizeof *s.size);
    for (int64_t i = 0; i < n_scales; i++) {
        scales[i] = i % 16 + i / 16 / w->groups * 16 < rows ? random_half(0.1f, grid != TT_GRID_HALF) : 0;
        if (mins) mins[i] = i % 16 + i / 16 / w->groups * 16 < rows ? random_half(0.3f, true) : 0;
    }
    w->codes = codes, w->scales = scales, w->mins = mins;
    for (int64_t p = 0; p < panels; p++)
        for (int64_t u = 0; u < w->units; u++) {
            uint8_t one[16 * 64] = {0};
            for (int r = 0; r < 16; r++)
                for (int c = 0; c < 64; c++)
                    if (p * 16 + r < rows && u * 64 + c < cols) {
                        const unsigned q = (unsigned)tt__rng_u64(&rng) & ((1u << bits) - 1);
                        one[64 * r + c] = (uint8_t)q;
                        const int64_t at = (p * 16 + r) * cols + u * 64 + c;
                        s.value[at] = weight_of(w, p * 16 + r, u * 64 + c, q);
                        s.size[at] = fabs(s.value[at]) + (mins ? 2 * fabs(weight_of(w, p * 16 + r, u * 64 + c, 0)) : 0);
                    }
            tt__panel_pack(bits, one, codes + (p * w->units + u) * unit);
        }
    return s;
}

/* Rounded by the reference, padded to 64 as the panels want it. */
static tt_q8 random_q8(int64_t T, int64_t n) {
    tt_q8 x = {.T = T, .n = n, .n_pad = (n + 63) / 64 * 64};
    x.blocks = x.n_pad / 32;
    x.q = guard((size_t)(T * x.n_pad));
    x.d = guard((size_t)(T * x.blocks) * 4);
    x.sum = guard((size_t)(T * x.blocks) * 4);
    for (int64_t t = 0; t < T; t++) {
        float *plain = random_floats((size_t)n, 3);
        level("scalar")->quant_q8(plain, n, x.q + t * x.n_pad, x.d + t * x.blocks, x.sum + t * x.blocks);
    }
    return x;
}

TT_CASE(units_lie_as_drawn) {
    tt__rng_seed(&rng, 1);
    for (int i = 0; i < 6; i++) {
        const int bits = i < 5 ? all_bits[i] : 6;
        uint8_t codes[16 * 64], back[16 * 64], unit[1024];
        for (int k = 0; k < 16 * 64; k++) codes[k] = (uint8_t)(tt__rng_u64(&rng) & ((1u << bits) - 1));
        tt__panel_pack(bits, codes, unit);
        tt__panel_unpack(bits, unit, back);
        TT_CHECK(!memcmp(codes, back, sizeof codes));
        for (int k = 0; k < 100; k++) {
            const int r = (int)(tt__rng_u64(&rng) % 16), c = (int)(tt__rng_u64(&rng) % 64), q = c % 4, code = codes[64 * r + c];
            if (bits == 4) TT_CHECK_EQ(code, unit[64 * (c / 8) + 4 * r + q] >> (c & 4) & 15);
            if (bits == 2) TT_CHECK_EQ(code, unit[64 * (c / 16) + 4 * r + q] >> 2 * (c / 4 % 4) & 3);
            if (bits == 8) TT_CHECK_EQ(code, unit[64 * (c / 4) + 4 * r + q]);
            if (bits == 5) TT_CHECK_EQ(code, (unit[c / 32 * 320 + 64 * (c % 32 / 8) + 4 * r + q] >> (c & 4) & 15) | (unit[c / 32 * 320 + 256 + 4 * r + q] >> c % 32 / 4 & 1) << 4);
            if (bits == 6) TT_CHECK_EQ(code, (unit[c / 32 * 384 + 64 * (c % 32 / 8) + 4 * r + q] >> (c & 4) & 15) | (unit[c / 32 * 384 + 256 + 64 * (c % 32 / 16) + 4 * r + q] >> 2 * (c / 4 % 4) & 3) << 4);
            if (bits == 3) {
                const uint8_t *a = unit + c / 32 * 192 + 4 * r + q;
                const int quad = c / 4 % 8;
                if (quad < 6) TT_CHECK_EQ(code, a[64 * (quad % 3)] >> quad / 3 * 3 & 7);
                else TT_CHECK_EQ(code, (a[64 * (quad - 6)] >> 6) * 2 + (a[128] >> quad & 1));
            }
        }
    }
}

TT_CASE(panel_decode) {
    tt__rng_seed(&rng, 2);
    for (int i = 0; i < CASES; i++)
        for (int shape = 1; shape < 14; shape++) {
            const int64_t rows = shape == 1 ? 1 : 1 + (shape * 37 + i) % 50, cols = shape == 2 ? 1 : 1 + (shape * 59 + i * 17) % 330, ld = cols + 5;
            const sample s = random_panel(bits_of(i), group_of(i), grid_of(i), rows, cols);
            for (int64_t p = 0; p < tt__panels(rows); p++)
                for (int64_t c0 = 0; c0 < cols; c0 += 128) {
                    const int64_t c1 = shape % 2 && c0 + 192 < cols ? c0 + 192 : cols, here = rows - 16 * p < 16 ? rows - 16 * p : 16;
                    const size_t floats = (size_t)((here - 1) * ld + c1 - c0);
                    FOR_EACH_LEVEL(k) {
                        float *got = guard(floats * 4);
                        tt_test_note("%s, %d bits, groups of %d, %s, %lldx%lld", k->isa, s.w.bits, s.w.group, grid_names[s.w.grid], (long long)rows, (long long)cols);
                        fill_nan(got, floats);
                        k->panel_decode(&s.w, p, c0, c1, got, ld);
                        for (int64_t r = 0; r < here; r++)
                            for (int64_t c = 0; c < c1 - c0; c++) {
                                const float want = (float)s.value[(16 * p + r) * cols + c0 + c] + 0.0f;
                                TT_CHECK(!memcmp(&got[r * ld + c], &want, 4));
                            }
                        for (int64_t r = 0; r + 1 < here; r++)
                            for (int64_t c = c1 - c0; c < ld; c++) TT_CHECK(isnan(got[r * ld + c]));
                    }
                }
            release_all();
        }
}

static void check_products(const sample *s, int64_t T, int64_t p0, int64_t p1) {
    const tt_panel *w = &s->w;
    const tt_q8 x = random_q8(T, w->cols);
    const int64_t r0 = 16 * p0, r1 = 16 * p1 < w->rows ? 16 * p1 : w->rows, ldy = w->rows + 3;
    float *y = guard((size_t)((T - 1) * ldy + r1) * 4);
    FOR_EACH_LEVEL(k) {
        fill_nan(y, (size_t)((T - 1) * ldy + r1));
        tt_test_note("%s, %d bits, groups of %d, %s, %lldx%lld, T %lld", k->isa, w->bits, w->group, grid_names[w->grid], (long long)w->rows, (long long)w->cols,
                     (long long)T);
        k->panel_rowdot(w, p0, p1, &x, y, ldy);
        for (int64_t t = 0; t < T; t++) {
            for (int64_t r = 0; r < r1; r++) {
                double sum = 0, size = 0;
                for (int64_t c = 0; c < w->cols; c++) {
                    const double d = (double)x.d[t * x.blocks + c / 32], q = x.q[t * x.n_pad + c];
                    sum += s->value[r * w->cols + c] * d * q;
                    size += fabs(s->size[r * w->cols + c] * d * q);
                }
                if (r >= r0) TT_CHECK_NEAR(y[t * ldy + r], sum, 4e-6 * size + 1e-30);
                else TT_CHECK(isnan(y[t * ldy + r]));
            }
            for (int64_t r = r1; r < ldy && t + 1 < T; r++) TT_CHECK(isnan(y[t * ldy + r]));
        }
    }
}

TT_CASE(panel_rowdot) {
    tt__rng_seed(&rng, 3);
    for (int i = 0; i < CASES; i++)
        for (int64_t n = 1; n <= 130; n += 1 + (int64_t)(tt__rng_u64(&rng) % 7)) {
            const int64_t rows = 1 + (n * 31 + i) % 67, cols = n + (n % 5 == 4 ? 700 : 0), panels = tt__panels(rows);
            const sample s = random_panel(bits_of(i), group_of(i), grid_of(i), rows, cols);
            check_products(&s, 1 + n % 8, 0, panels);
            if (panels > 1) check_products(&s, 1 + (n + 3) % 8, 1, panels - (panels > 2));
            release_all();
        }
}

/* A token's products do not depend on the other tokens of the call or on which panels it asks for. */
TT_CASE(panel_rowdot_is_the_same_alone) {
    tt__rng_seed(&rng, 4);
    for (int i = 0; i < CASES; i++) {
        const sample s = random_panel(bits_of(i), group_of(i), grid_of(i), 70, 450);
        const tt_q8 x = random_q8(8, 450);
        FOR_EACH_LEVEL(k) {
            float y[8 * 70], alone[70];
            k->panel_rowdot(&s.w, 0, 5, &x, y, 70);
            for (int64_t t = 0; t < 8; t++) {
                const tt_q8 one = {1, x.n, x.n_pad, x.blocks, x.q + t * x.n_pad, x.d + t * x.blocks, x.sum + t * x.blocks};
                for (int64_t p = 0; p < 5; p++) k->panel_rowdot(&s.w, p, p + 1, &one, alone, 70);
                TT_CHECK(!memcmp(alone, y + 70 * t, sizeof alone));
            }
        }
        release_all();
    }
}

/* The largest codes against the largest activations, for sums that run in 16 bits. */
TT_CASE(panel_rowdot_does_not_overflow) {
    tt__rng_seed(&rng, 5);
    for (int i = 0; i < CASES; i++)
        for (int sign = -1; sign <= 1; sign += 2) {
            sample s = random_panel(bits_of(i), group_of(i), grid_of(i), 17, 256);
            uint8_t ones[16 * 64];
            memset(ones, (1 << s.w.bits) - 1, sizeof ones);
            for (int64_t u = 0; u < 2 * s.w.units; u++) tt__panel_pack(s.w.bits, ones, (uint8_t *)(uintptr_t)s.w.codes + u * tt__panel_unit_bytes(s.w.bits));
            tt_q8 x = random_q8(2, 256);
            memset(x.q, sign * 127, (size_t)(2 * x.n_pad));
            for (int64_t b = 0; b < 2 * x.blocks; b++) x.sum[b] = sign * 127 * 32;
            FOR_EACH_LEVEL(k) {
                float y[2 * 17];
                tt_test_note("%s, %d bits, groups of %d, %s", k->isa, s.w.bits, s.w.group, grid_names[s.w.grid]);
                k->panel_rowdot(&s.w, 0, 2, &x, y, 17);
                for (int t = 0; t < 2; t++)
                    for (int64_t r = 0; r < 17; r++) {
                        double sum = 0, size = 0;
                        for (int64_t c = 0; c < 256; c++) {
                            const double p = weight_of(&s.w, r, c, (1u << s.w.bits) - 1) * (double)x.d[t * x.blocks + c / 32] * (sign * 127);
                            sum += p, size += fabs(p) + (s.w.mins ? 2 * fabs(weight_of(&s.w, r, c, 0) * (double)x.d[t * x.blocks + c / 32] * 127) : 0);
                        }
                        TT_CHECK_NEAR(y[t * 17 + r], sum, 4e-6 * size + 1e-30);
                    }
            }
            release_all();
        }
}

/* ---- floats ---- */

typedef struct floats { tt_panel w; float *value; } floats;

static floats random_float_panel(tt_panel_grid grid, int64_t rows, int64_t cols) {
    floats f = {.w = {.bits = 16, .group = 64, .grid = grid, .rows = rows, .cols = cols, .units = (cols + 63) / 64, .groups = (cols + 63) / 64}};
    const int64_t padded = 64 * f.w.units;
    uint16_t *codes = guard64(tt__panels(rows) * 16 * padded * 2);
    f.value = guard((size_t)(rows * cols) * sizeof *f.value);
    f.w.codes = (const uint8_t *)codes;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            const float x = ldexpf(uniform(), (int)(tt__rng_u64(&rng) % 12) - 6);
            uint32_t u;
            memcpy(&u, &x, 4);
            const uint16_t h = grid == TT_GRID_F16 ? tt__f32_to_f16(x) : (uint16_t)(u >> 16);
            const int64_t panel = r / 16 * 16 * padded, i = grid == TT_GRID_F16 ? c * 16 + r % 16 : (c / 2 * 16 + r % 16) * 2 + c % 2;
            codes[panel + i] = h;
            u = (uint32_t)h << 16;
            memcpy(&f.value[r * cols + c], &u, 4);
            if (grid == TT_GRID_F16) f.value[r * cols + c] = tt__f16_to_f32(h);
        }
    return f;
}

static void check_float_decoders(const tt_kernels *k, const floats *f, int64_t p, int64_t c0, int64_t c1) {
    const int64_t rows = f->w.rows - 16 * p < 16 ? f->w.rows - 16 * p : 16, n = c1 - c0, ld = n + 3;
    float *got = guard((size_t)((rows - 1) * ld + n) * 4), *columns = guard((size_t)((n - 1) * 19 + 16) * 4);
    fill_nan(got, (size_t)((rows - 1) * ld + n));
    fill_nan(columns, (size_t)((n - 1) * 19 + 16));
    k->float_decode(&f->w, p, c0, c1, got, ld);
    k->float_columns(&f->w, p, c0, c1, columns, 19);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < ld && r * ld + c < (rows - 1) * ld + n; c++) {
            const float *want = &f->value[(16 * p + r) * f->w.cols + c0 + c];
            if (c < n) TT_CHECK(!memcmp(&got[r * ld + c], want, 4) && !memcmp(&columns[c * 19 + r], want, 4));
            else TT_CHECK(isnan(got[r * ld + c]));
        }
    for (int64_t c = 0; c < n; c++)
        for (int64_t r = rows; r < 19 && c * 19 + r < (n - 1) * 19 + 16; r++) TT_CHECK(r < 16 ? columns[c * 19 + r] == 0.0f : isnan(columns[c * 19 + r]));
}

static void check_float_products(const tt_kernels *k, const floats *f, const float *x, int64_t T, int64_t p0, int64_t p1) {
    const tt_panel *w = &f->w;
    const int64_t r0 = 16 * p0, r1 = 16 * p1 < w->rows ? 16 * p1 : w->rows, ldy = w->rows + 3;
    float *y = guard((size_t)((T - 1) * ldy + r1) * 4), *alone = guard((size_t)r1 * 4);
    fill_nan(y, (size_t)((T - 1) * ldy + r1));
    k->float_rowdot(w, p0, p1, x, w->cols, T, y, ldy);
    for (int64_t t = 0; t < T; t++) {
        for (int64_t p = p0; p < p1; p++) k->float_rowdot(w, p, p + 1, x + t * w->cols, w->cols, 1, alone, ldy);
        for (int64_t r = 0; r < ldy && t * ldy + r < (T - 1) * ldy + r1; r++) {
            double sum = 0, size = 0;
            for (int64_t c = 0; c < w->cols && r < w->rows; c++) {
                const double v = (double)f->value[r * w->cols + c] * (double)x[t * w->cols + c];
                sum += v, size += fabs(v);
            }
            if (r < r0 || r >= r1) TT_CHECK(isnan(y[t * ldy + r]));
            else {
                TT_CHECK_NEAR(y[t * ldy + r], sum, 1e-5 * size + 1e-30);
                TT_CHECK(y[t * ldy + r] == alone[r]);
            }
        }
    }
}

TT_CASE(panels_of_floats) {
    tt__rng_seed(&rng, 6);
    for (int64_t n = 1; n <= 130; n++)
        for (int i = 0; i < 2; i++) {
            const int64_t rows = 1 + (n * 31 + i) % 67, cols = n + (n % 9 == 4 ? 300 : 0), panels = tt__panels(rows), T = 1 + n % 8;
            const floats f = random_float_panel(i ? TT_GRID_F16 : TT_GRID_BF16, rows, cols);
            const float *x = random_floats((size_t)(T * cols), 2);
            FOR_EACH_LEVEL(k) {
                tt_test_note("%s, %s, %lldx%lld, T %lld", k->isa, i ? "f16" : "bf16", (long long)rows, (long long)cols, (long long)T);
                check_float_products(k, &f, x, T, 0, panels);
                if (panels > 1) check_float_products(k, &f, x, T, 1, panels - (panels > 2));
                for (int64_t p = 0; p < panels; p++) {
                    check_float_decoders(k, &f, p, 0, cols);
                    if (cols > 64) check_float_decoders(k, &f, p, 64, cols);
                }
            }
            release_all();
        }
}

/* ---- small scales ---- */

static void check_super_products(const tt_kernels *k, const super_sample *s, const tt_q8 *x, int64_t p0, int64_t p1) {
    const tt_panel *w = &s->w;
    const int64_t T = x->T, r0 = 16 * p0, r1 = 16 * p1 < w->rows ? 16 * p1 : w->rows, ldy = w->rows + 3;
    float *y = guard((size_t)((T - 1) * ldy + r1) * 4), *alone = guard((size_t)r1 * 4);
    fill_nan(y, (size_t)((T - 1) * ldy + r1));
    k->super_rowdot(w, p0, p1, x, y, ldy);
    for (int64_t t = 0; t < T; t++) {
        const tt_q8 one = {1, x->n, x->n_pad, x->blocks, x->q + t * x->n_pad, x->d + t * x->blocks, x->sum + t * x->blocks};
        for (int64_t p = p0; p < p1; p++) k->super_rowdot(w, p, p + 1, &one, alone, ldy);
        for (int64_t r = 0; r < ldy && t * ldy + r < (T - 1) * ldy + r1; r++) {
            double sum = 0, size = 0;
            for (int64_t c = 0; c < w->cols && r < w->rows; c++) {
                const double v = (double)x->d[t * x->blocks + c / 32] * x->q[t * x->n_pad + c];
                sum += s->value[r * w->cols + c] * v;
                size += s->size[r * w->cols + c] * fabs(v);
            }
            if (r < r0 || r >= r1) TT_CHECK(isnan(y[t * ldy + r]));
            else {
                TT_CHECK_NEAR(y[t * ldy + r], sum, 4e-6 * size + 1e-30);
                TT_CHECK(y[t * ldy + r] == alone[r]);
            }
        }
    }
}

static void check_super_decoder(const tt_kernels *k, const super_sample *s, int64_t p, int64_t c0, int64_t c1) {
    const int64_t rows = s->w.rows - 16 * p < 16 ? s->w.rows - 16 * p : 16, n = c1 - c0, ld = n + 3, all = (rows - 1) * ld + n;
    float *got = guard((size_t)all * 4);
    fill_nan(got, (size_t)all);
    k->super_decode(&s->w, p, c0, c1, got, ld);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < ld && r * ld + c < all; c++) {
            if (c < n) TT_CHECK(got[r * ld + c] == (float)s->value[(16 * p + r) * s->w.cols + c0 + c]);
            else TT_CHECK(isnan(got[r * ld + c]));
        }
}

TT_CASE(panels_of_small_scales) {
    tt__rng_seed(&rng, 7);
    for (int64_t n = 1; n <= 130; n++) {
        const int kind = (int)(n % SUPER_KINDS);
        const int64_t rows = n % 3 ? 1 + n % 40 : n, cols = 256 * (1 + n % 4), panels = tt__panels(rows), T = 1 + n % 8;
        const super_sample s = random_super(kind, rows, cols, false, n > 120);
        const tt_q8 x = random_q8(T, cols);
        if (n > 120) {                              /* the largest of all products */
            memset(x.q, n % 2 ? 127 : -127, (size_t)(T * x.n_pad));
            for (int64_t b = 0; b < T * x.blocks; b++) x.sum[b] = n % 2 ? 127 * 32 : -127 * 32;
        }
        FOR_EACH_LEVEL(k) {
            tt_test_note("%s, %d bits, %lldx%lld, T %lld", k->isa, s.w.bits, (long long)rows, (long long)cols, (long long)T);
            check_super_products(k, &s, &x, 0, panels);
            if (panels > 1) check_super_products(k, &s, &x, 1, panels - (panels > 2));
            for (int64_t p = 0; p < panels; p++) {
                check_super_decoder(k, &s, p, 0, cols);
                if (cols > 256) check_super_decoder(k, &s, p, 256, cols - 192);
            }
        }
        release_all();
    }
}
