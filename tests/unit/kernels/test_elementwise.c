/* Elementwise kernels, reductions, softmax tiles, packers, float rows: every level against f64 or the reference, lengths 0 to 130,
 * buffers that end at an unmapped page, special values. */
#include "unit/kernels/guard.h"

enum { MOST = 131 };

static double ulp_of(double x) {
    int e;
    frexp(x, &e);
    return ldexp(1.0, e - 24);
}

/* Every float whose exp is normal, in steps of 4099 patterns; the claim of kernels.inc. */
TT_CASE(exp_is_within_two_ulp) {
    FOR_EACH_LEVEL(k) {
        double worst = 0;
        for (uint32_t sign = 0; sign < 2; sign++)
            for (uint32_t u = 0; u < 0x42b00000u; u += 4099 * 16) {
                float x[16], y[16];
                for (uint32_t i = 0; i < 16; i++) {
                    const uint32_t bits = (u + 4099 * i) | sign << 31;
                    memcpy(&x[i], &bits, 4);
                    if (fabsf(x[i]) > 87.3f) x[i] = 1.0f;
                }
                k->softmax_apply_f32(y, x, 16, 0.0f, 1.0f);
                for (int i = 0; i < 16; i++) {
                    const double want = exp((double)x[i]), off = fabs((double)y[i] - want) / ulp_of(want);
                    worst = off > worst ? off : worst;
                }
            }
        tt_test_note("%s, %.2f ULP", k->isa, worst);
        TT_CHECK(worst <= 2.0);
    }
}

TT_CASE(exp_of_special_values) {
    const float x[8] = {-INFINITY, INFINITY, NAN, 0.0f, -0.0f, 89.0f, -104.0f, 88.72f};
    FOR_EACH_LEVEL(k) {
        float y[8];
        tt_test_note("%s", k->isa);
        k->softmax_apply_f32(y, x, 8, 0.0f, 1.0f);
        TT_CHECK(y[0] == 0.0f && isinf(y[1]) && isnan(y[2]) && y[3] == 1.0f && y[4] == 1.0f && isinf(y[5]) && y[6] == 0.0f && isfinite(y[7]));
    }
}

TT_CASE(sums) {
    tt__rng_seed(&rng, 1);
    FOR_EACH_LEVEL(k)
        for (int64_t n = 0; n < MOST; n++) {
            const float *a = random_floats((size_t)n, 1), *b = random_floats((size_t)n, 1);
            double dot = 0, sq = 0;
            for (int64_t i = 0; i < n; i++) {
                dot += (double)a[i] * (double)b[i];
                sq += (double)a[i] * (double)a[i];
            }
            tt_test_note("%s, n %lld", k->isa, (long long)n);
            TT_CHECK_NEAR(k->dot_f32(a, b, n), dot, (double)(n + 1) * 0x1p-24);
            TT_CHECK_NEAR(k->sumsq_f32(a, n), sq, 1e-12);
            release_all();
        }
}

TT_CASE(maps) {
    tt__rng_seed(&rng, 2);
    FOR_EACH_LEVEL(k)
        for (int64_t n = 0; n < MOST; n++) {
            const float *a = random_floats((size_t)n, 8), *b = random_floats((size_t)n, 2), *c = random_floats((size_t)n, 1);
            float *y = guard((size_t)n * 4), *z = guard((size_t)n * 4);
            tt_test_note("%s, n %lld", k->isa, (long long)n);
            k->add_f32(y, a, b, n);
            for (int64_t i = 0; i < n; i++) TT_CHECK(y[i] == a[i] + b[i]);
            memcpy(y, c, (size_t)n * 4);
            k->axpy_f32(y, 1.5f, a, n);
            for (int64_t i = 0; i < n; i++) TT_CHECK_NEAR(y[i], (double)c[i] + 1.5 * (double)a[i], 4e-6);
            k->silu_mul_f32(y, a, b, n);
            for (int64_t i = 0; i < n; i++) TT_CHECK_NEAR(y[i], (double)a[i] / (1 + exp(-(double)a[i])) * (double)b[i], 4e-6);
            k->silu_mul_bwd_f32(y, z, a, b, c, n);
            for (int64_t i = 0; i < n; i++) {
                const double g = (double)a[i], s = 1 / (1 + exp(-g));
                TT_CHECK_NEAR(z[i], (double)c[i] * g * s, 4e-6);
                TT_CHECK_NEAR(y[i], (double)c[i] * (double)b[i] * (s + g * s * (1 - s)), 4e-6);
            }
            release_all();
        }
}

TT_CASE(silu_of_large_values) {
    const float gate[4] = {-200.0f, 200.0f, -INFINITY, NAN}, up[4] = {1, 1, 0.5f, 1}, one[4] = {1, 1, 1, 1};
    FOR_EACH_LEVEL(k) {
        float y[4], z[4];
        k->silu_mul_f32(y, gate, up, 4);
        TT_CHECK(fabsf(y[0]) < 1e-30f && y[1] == 200.0f && isnan(y[3]));
        k->silu_mul_bwd_f32(y, z, gate, up, one, 2);
        TT_CHECK(fabsf(y[0]) < 1e-30f && y[1] == 1.0f && z[1] == 200.0f);
    }
}

TT_CASE(norms) {
    tt__rng_seed(&rng, 3);
    FOR_EACH_LEVEL(k)
        for (int64_t n = 1; n < MOST; n++) {
            const float *x = random_floats((size_t)n, 3), *g = random_floats((size_t)n, 1), *dy = random_floats((size_t)n, 1);
            float *y = guard((size_t)n * 4), *dx = random_floats((size_t)n, 1), *start = guard((size_t)n * 4);
            double ms = 0, dot = 0;
            memcpy(start, dx, (size_t)n * 4);
            for (int64_t i = 0; i < n; i++) {
                ms += (double)x[i] * (double)x[i];
                dot += (double)g[i] * (double)dy[i] * (double)x[i];
            }
            const double r = 1 / sqrt(ms / (double)n + 1e-5);
            tt_test_note("%s, n %lld", k->isa, (long long)n);
            k->rmsnorm_f32(y, x, g, 1e-5f, n);
            k->rmsnorm_bwd_f32(dx, x, g, dy, 1e-5f, n);
            for (int64_t i = 0; i < n; i++) {
                const double size = r * (1 + fabs(dot) * r * r * 3 / (double)n) + 1;
                TT_CHECK_NEAR(y[i], (double)x[i] * r * (double)g[i], 2e-6);
                TT_CHECK_NEAR(dx[i], (double)start[i] + r * (double)g[i] * (double)dy[i] - r * r * r * dot / (double)n * (double)x[i], size * 1e-6);
            }
            release_all();
        }
}

TT_CASE(softmax_rows) {
    tt__rng_seed(&rng, 4);
    FOR_EACH_LEVEL(k)
        for (int64_t n = 1; n < MOST; n++) {
            float *x = random_floats((size_t)n, 20), *p = guard((size_t)n * 4), max, max2;
            double top = -1e9, sum = 0, want = 0;
            for (int64_t i = 0; i < n; i++) top = (double)x[i] > top ? (double)x[i] : top;
            for (int64_t i = 0; i < n; i++) {
                sum += exp((double)x[i] - top);
                want += exp(0.25 * ((double)x[i] - top));
            }
            tt_test_note("%s, n %lld", k->isa, (long long)n);
            TT_CHECK_NEAR(k->softmax_stats_f32(x, n, &max), sum, sum * 1e-6);
            TT_CHECK(max == (float)top);
            k->softmax_apply_f32(p, x, n, max, (float)(1 / sum));
            for (int64_t i = 0; i < n; i++) TT_CHECK_NEAR(p[i], exp((double)x[i] - top) / sum, 5e-6 * p[i] + 1e-38);   /* x - top is rounded once */
            memcpy(p, x, (size_t)n * 4);
            TT_CHECK_NEAR(k->softmax_exp_f32(p, n, 0.25f, &max2), want, want * 2e-6);
            TT_CHECK(max2 == 0.25f * max);
            for (int64_t i = 0; i < n; i++) TT_CHECK_NEAR(p[i], exp(0.25 * ((double)x[i] - top)), 2e-6);
            release_all();
        }
}

TT_CASE(softmax_tiles) {
    tt__rng_seed(&rng, 5);
    FOR_EACH_LEVEL(k)
        for (int64_t keys = 1; keys < 40; keys += 3)
            for (int lanes = k->nr; lanes <= 2 * k->nr; lanes += k->nr) {
                const size_t n = (size_t)(keys * lanes);
                float *s = random_floats(n, 10), *dp = random_floats(n, 1), *m = random_floats((size_t)lanes, 1), *l = random_floats((size_t)lanes, 1);
                float *alpha = guard((size_t)lanes * 4), *rs = guard(n * 4), *rm = guard((size_t)lanes * 4), *rl = guard((size_t)lanes * 4), ralpha[64];
                float *rdp = guard(n * 4);
                for (int j = 0; j < lanes; j += 2) {
                    m[j] = -1e30f;                               /* nothing seen yet */
                    l[j] = 0;
                }
                for (int64_t i = 0; i < keys; i++) s[i * lanes + 3] = -INFINITY;      /* a column masked everywhere */
                memcpy(rs, s, n * 4);
                memcpy(rm, m, (size_t)lanes * 4);
                memcpy(rl, l, (size_t)lanes * 4);
                memcpy(rdp, dp, n * 4);
                k->softmax_tile(s, keys, lanes, 0.5f, m, l, alpha);
                level("scalar")->softmax_tile(rs, keys, lanes, 0.5f, rm, rl, ralpha);
                tt_test_note("%s, %lld x %d", k->isa, (long long)keys, lanes);
                for (size_t i = 0; i < n; i++) TT_CHECK_NEAR(s[i], rs[i], 2e-6);
                for (int j = 0; j < lanes; j++) {
                    TT_CHECK_NEAR(m[j], rm[j], 1e-6);
                    TT_CHECK_NEAR(l[j], rl[j], 1e-5);
                    TT_CHECK_NEAR(alpha[j], ralpha[j], 1e-6);
                }
                k->softmax_bwd_tile(s, dp, keys, lanes, 0.5f, m, l);
                level("scalar")->softmax_bwd_tile(rs, rdp, keys, lanes, 0.5f, m, l);
                for (size_t i = 0; i < n; i++) {
                    TT_CHECK_NEAR(s[i], rs[i], 1e-5 * fabs((double)rs[i]) + 1e-9);
                    TT_CHECK_NEAR(dp[i], rdp[i], 1e-5 * fabs((double)rdp[i]) + 1e-9);
                }
                release_all();
            }
}

/* All 65536 halves, and floats around every rounding border. */
TT_CASE(sixteen_bit_floats) {
    uint16_t *h = guard(65536 * 2), *back = guard(65536 * 2);
    float *f = guard(65536 * 4), *g = guard(65536 * 4);
    for (uint32_t i = 0; i < 65536; i++) h[i] = (uint16_t)i;
    FOR_EACH_LEVEL(k) {
        tt_test_note("%s", k->isa);
        k->f16_to_f32(f, h, 65536);
        k->bf16_to_f32(g, h, 65536);
        for (uint32_t i = 0; i < 65536; i++) {
            const float want = tt__f16_to_f32((uint16_t)i), wantb = tt__bf16_to_f32((uint16_t)i);
            TT_CHECK(f[i] == want || (isnan(f[i]) && isnan(want)));
            TT_CHECK(!memcmp(&g[i], &wantb, 4));
        }
        k->f32_to_f16(back, f, 65536);
        for (uint32_t i = 0; i < 65536; i++) TT_CHECK(back[i] == h[i] || isnan(f[i]));
        for (uint32_t i = 0; i < 65536; i++) {
            const uint32_t bits = i * 65537u + (i & 1 ? 0x1000u : 0xfffu);        /* many exponents, near ties */
            memcpy(&g[i], &bits, 4);
        }
        k->f32_to_f16(back, g, 65536);
        for (uint32_t i = 0; i < 65536; i++) TT_CHECK(back[i] == tt__f32_to_f16(g[i]) || isnan(g[i]));
    }
    release_all();
}

TT_CASE(conversions_of_short_rows) {
    tt__rng_seed(&rng, 6);
    FOR_EACH_LEVEL(k)
        for (int64_t n = 0; n < 70; n++) {
            const float *x = random_floats((size_t)n, 1);
            uint16_t *h = guard((size_t)n * 2);
            float *y = guard((size_t)n * 4);
            k->f32_to_f16(h, x, n);
            k->f16_to_f32(y, h, n);
            for (int64_t i = 0; i < n; i++) TT_CHECK(y[i] == tt__f16_to_f32(tt__f32_to_f16(x[i])));
            k->bf16_to_f32(y, h, n);
            for (int64_t i = 0; i < n; i++) TT_CHECK(y[i] == tt__bf16_to_f32(h[i]) || isnan(y[i]));
            release_all();
        }
}

TT_CASE(packers) {
    tt__rng_seed(&rng, 7);
    FOR_EACH_LEVEL(k)
        for (int64_t kk = 1; kk < 40; kk += 2)
            for (int r = 1; r <= 70; r += r < 34 ? 1 : 9)
                for (int some = 0; some < 3; some++) {
                    const int lanes = some == 0 ? r : some == 1 ? (r + 1) / 2 : 1;
                    const int64_t ld = kk + 3, ldc = lanes + 2;
                    const float *rows = random_floats((size_t)((lanes - 1) * ld + kk), 1), *cols = random_floats((size_t)((kk - 1) * ldc + lanes), 1);
                    float *dst = guard((size_t)(kk * r) * 4);
                    tt_test_note("%s, %lld x %d of %d", k->isa, (long long)kk, lanes, r);
                    fill_nan(dst, (size_t)(kk * r));
                    k->pack_rows(dst, rows, ld, lanes, kk, r);
                    for (int64_t p = 0; p < kk; p++)
                        for (int i = 0; i < r; i++) TT_CHECK(dst[p * r + i] == (i < lanes ? rows[i * ld + p] : 0.0f));
                    fill_nan(dst, (size_t)(kk * r));
                    k->pack_cols(dst, cols, ldc, kk, lanes, r);
                    for (int64_t p = 0; p < kk; p++)
                        for (int i = 0; i < r; i++) TT_CHECK(dst[p * r + i] == (i < lanes ? cols[p * ldc + i] : 0.0f));
                    release_all();
                }
}

TT_CASE(float_rows) {
    tt__rng_seed(&rng, 8);
    FOR_EACH_LEVEL(k)
        for (int64_t cols = 1; cols < MOST; cols += cols < 40 ? 1 : 13)
            for (int64_t T = 1; T <= 8; T++) {
                const int64_t rows = 1 + (cols + T) % 9, ldw = cols + 1, ldx = cols + 2, ldy = rows + 1;
                const size_t nw = (size_t)((rows - 1) * ldw + cols);
                float *w = random_floats(nw, 1), *x = random_floats((size_t)((T - 1) * ldx + cols), 1), *y = guard((size_t)((T - 1) * ldy + rows) * 4);
                uint16_t *h = guard(nw * 2), *b = guard(nw * 2);
                for (size_t i = 0; i < nw; i++) {
                    h[i] = tt__f32_to_f16(w[i]);
                    b[i] = tt__f32_to_bf16(w[i]);
                }
                for (int kind = 0; kind < 3; kind++) {
                    tt_test_note("%s, kind %d, %lld x %lld, T %lld", k->isa, kind, (long long)rows, (long long)cols, (long long)T);
                    if (kind == 0) k->rowdot_f32(w, ldw, rows, cols, x, ldx, T, y, ldy);
                    if (kind == 1) k->rowdot_f16(h, ldw, rows, cols, x, ldx, T, y, ldy);
                    if (kind == 2) k->rowdot_bf16(b, ldw, rows, cols, x, ldx, T, y, ldy);
                    for (int64_t t = 0; t < T; t++)
                        for (int64_t r = 0; r < rows; r++) {
                            double want = 0;
                            for (int64_t i = 0; i < cols; i++) {
                                const int64_t at = r * ldw + i;
                                want += (double)(kind == 0 ? w[at] : kind == 1 ? tt__f16_to_f32(h[at]) : tt__bf16_to_f32(b[at])) * (double)x[t * ldx + i];
                            }
                            TT_CHECK_NEAR(y[t * ldy + r], want, (double)cols * 0x1p-24);
                        }
                }
                release_all();
            }
}

TT_CASE(mixes_of_rows) {
    tt__rng_seed(&rng, 9);
    FOR_EACH_LEVEL(k)
        for (int64_t cols = 1; cols < MOST; cols += cols < 40 ? 1 : 13)
            for (int64_t T = 1; T <= 7; T++) {
                const int64_t rows = 1 + (cols + T) % 9, ldw = cols + 1, ldp = rows + 2, ldy = cols + 1;
                const size_t nw = (size_t)((rows - 1) * ldw + cols), ny = (size_t)((T - 1) * ldy + cols);
                float *w = random_floats(nw, 1), *p = random_floats((size_t)((T - 1) * ldp + rows), 1), *start = random_floats(ny, 1), *y = guard(ny * 4);
                uint16_t *h = guard(nw * 2);
                for (size_t i = 0; i < nw; i++) h[i] = tt__f32_to_f16(w[i]);
                for (int kind = 0; kind < 2; kind++) {
                    memcpy(y, start, ny * 4);
                    tt_test_note("%s, kind %d, %lld x %lld, T %lld", k->isa, kind, (long long)rows, (long long)cols, (long long)T);
                    if (kind == 0) k->mix_f32(w, ldw, rows, cols, p, ldp, T, y, ldy);
                    else k->mix_f16(h, ldw, rows, cols, p, ldp, T, y, ldy);
                    for (int64_t t = 0; t < T; t++)
                        for (int64_t i = 0; i < cols; i++) {
                            double want = (double)start[t * ldy + i];
                            for (int64_t r = 0; r < rows; r++)
                                want += (double)p[t * ldp + r] * (double)(kind == 0 ? w[r * ldw + i] : tt__f16_to_f32(h[r * ldw + i]));
                            TT_CHECK_NEAR(y[t * ldy + i], want, 12 * 0x1p-23);
                        }
                }
                release_all();
            }
}

TT_CASE(levels_are_named) {
    const tt_kernels *k;
    tt_err err = {0};
    TT_CHECK_STR(tt__kernels_levels()[0], "scalar");
    TT_CHECK_OK(tt__kernels_get(NULL, &k, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__kernels_get("sse9", &k, &err));
    FOR_EACH_LEVEL(each) {
        const void *const *entry = (const void *const *)&each->dot_f32;
        for (size_t i = 0; i < (sizeof *each - offsetof(tt_kernels, dot_f32)) / sizeof *entry; i++) TT_CHECK(entry[i] != NULL);
    }
}
