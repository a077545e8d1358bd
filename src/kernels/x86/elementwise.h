/* Elementwise kernels, reductions, attention tiles and products with float rows, for vectors of 4, 8 or 16: the body of elementwise.c of
 * aarch64, x86_avx2 and x86_avx512. Sums run in several vectors side by side, so their order differs from ref.
 */
#include "kernels/isa.h"
#ifdef __aarch64__
#include "kernels/aarch64/vec.h"
#else
#include "kernels/x86/vec.h"
#endif
#include <math.h>

/* for each whole vector at i, then once for the n - i lanes that are left */
#define WHOLE(i, n) for (; i + VN <= n; i += VN)

static float dot_f32(const float *a, const float *b, int64_t n) {
    vf s[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    int64_t i = 0;
    for (; i + 4 * VN <= n; i += 4 * VN)
        for (int j = 0; j < 4; j++) s[j] = v_fma(v_load(a + i + j * VN), v_load(b + i + j * VN), s[j]);
    WHOLE(i, n) s[0] = v_fma(v_load(a + i), v_load(b + i), s[0]);
    if (i < n) s[1] = v_fma(v_load_n(a + i, n - i), v_load_n(b + i, n - i), s[1]);
    return v_sum(v_add(v_add(s[0], s[1]), v_add(s[2], s[3])));
}

static double sumsq_f32(const float *x, int64_t n) {
    vd s = vd_zero(), s2 = vd_zero();
    int64_t i = 0;
    for (; i + 2 * VN <= n; i += 2 * VN) {
        const vf a = v_load(x + i), b = v_load(x + i + VN);
        s = vd_fma(a, a, s);
        s2 = vd_fma(b, b, s2);
    }
    for (; i < n; i += VN) {
        const vf a = v_load_n(x + i, n - i < VN ? n - i : VN);
        s = vd_fma(a, a, s);
    }
    return vd_sum(s) + vd_sum(s2);
}

static void add_f32(float *y, const float *a, const float *b, int64_t n) {
    int64_t i = 0;
    WHOLE(i, n) v_store(y + i, v_add(v_load(a + i), v_load(b + i)));
    if (i < n) v_store_n(y + i, v_add(v_load_n(a + i, n - i), v_load_n(b + i, n - i)), n - i);
}

static void axpy_f32(float *y, float s, const float *x, int64_t n) {
    const vf sv = v_set1(s);
    int64_t i = 0;
    WHOLE(i, n) v_store(y + i, v_fma(sv, v_load(x + i), v_load(y + i)));
    if (i < n) v_store_n(y + i, v_fma(sv, v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
}

INLINE vf v_sigmoid(vf x) { return v_div(v_set1(1.0f), v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), x)))); }

static void silu_mul_f32(float *y, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i += VN) {
        const int64_t m = n - i < VN ? n - i : VN;
        const vf g = v_load_n(gate + i, m);
        v_store_n(y + i, v_mul(v_mul(g, v_sigmoid(g)), v_load_n(up + i, m)), m);
    }
}

static void silu_mul_bwd_f32(float *dgate, float *dup, const float *gate, const float *up, const float *dy, int64_t n) {
    for (int64_t i = 0; i < n; i += VN) {
        const int64_t m = n - i < VN ? n - i : VN;
        const vf g = v_load_n(gate + i, m), u = v_load_n(up + i, m), d = v_load_n(dy + i, m), s = v_sigmoid(g), gs = v_mul(g, s);
        v_store_n(dup + i, v_mul(d, gs), m);
        v_store_n(dgate + i, v_mul(v_mul(d, u), v_fma(gs, v_sub(v_set1(1.0f), s), s)), m);
    }
}

static void rmsnorm_f32(float *y, const float *x, const float *g, float eps, int64_t n) {
    const vf r = v_set1((float)(1.0 / sqrt(sumsq_f32(x, n) / (double)n + (double)eps)));
    int64_t i = 0;
    WHOLE(i, n) v_store(y + i, v_mul(v_mul(v_load(x + i), r), v_load(g + i)));
    if (i < n) v_store_n(y + i, v_mul(v_mul(v_load_n(x + i, n - i), r), v_load_n(g + i, n - i)), n - i);
}

static void rmsnorm_bwd_f32(float *dx, const float *x, const float *g, const float *dy, float eps, int64_t n) {
    const double r = 1.0 / sqrt(sumsq_f32(x, n) / (double)n + (double)eps);
    vd s = vd_zero();
    for (int64_t i = 0; i < n; i += VN) {
        const int64_t m = n - i < VN ? n - i : VN;
        s = vd_fma(v_mul(v_load_n(g + i, m), v_load_n(dy + i, m)), v_load_n(x + i, m), s);
    }
    const vf rv = v_set1((float)r), c = v_set1((float)(r * r * r * vd_sum(s) / (double)n));
    for (int64_t i = 0; i < n; i += VN) {
        const int64_t m = n - i < VN ? n - i : VN;
        const vf d = v_fma(v_mul(rv, v_load_n(g + i, m)), v_load_n(dy + i, m), v_load_n(dx + i, m));
        v_store_n(dx + i, v_fnma(c, v_load_n(x + i, m), d), m);
    }
}

static float max_f32(const float *x, int64_t n) {
    const vf low = v_set1(-INFINITY);
    vf a = low, b = low;
    int64_t i = 0;
    for (; i + 2 * VN <= n; i += 2 * VN) {
        a = v_max(v_load(x + i), a);              /* a NaN in x loses, as in ref */
        b = v_max(v_load(x + i + VN), b);
    }
    for (; i < n; i += VN) a = v_max(v_select_n(v_load_n(x + i, n - i < VN ? n - i : VN), low, n - i < VN ? n - i : VN), a);
    return v_top(v_max(a, b));
}

static double softmax_stats_f32(const float *x, int64_t n, float *max) {
    const float top = max_f32(x, n);
    const vf m = v_set1(top);
    vd s = vd_zero();
    int64_t i = 0;
    WHOLE(i, n) s = vd_add(s, v_exp(v_sub(v_load(x + i), m)));
    if (i < n) s = vd_add(s, v_select_n(v_exp(v_sub(v_load_n(x + i, n - i), m)), v_zero(), n - i));
    *max = top;
    return vd_sum(s);
}

static void softmax_apply_f32(float *p, const float *x, int64_t n, float max, float inv_sum) {
    const vf m = v_set1(max), s = v_set1(inv_sum);
    for (int64_t i = 0; i < n; i += VN) {
        const int64_t k = n - i < VN ? n - i : VN;
        v_store_n(p + i, v_mul(v_exp(v_sub(v_load_n(x + i, k), m)), s), k);
    }
}

static float softmax_exp_f32(float *x, int64_t n, float scale, float *max) {
    const float top = max_f32(x, n) * scale;
    const vf m = v_set1(top), sc = v_set1(scale);
    vd s = vd_zero();
    for (int64_t i = 0; i < n; i += VN) {
        const int64_t k = n - i < VN ? n - i : VN;
        const vf e = v_exp(v_sub(v_mul(sc, v_load_n(x + i, k)), m));
        v_store_n(x + i, e, k);
        s = vd_add(s, v_select_n(e, v_zero(), k));
    }
    *max = top;
    return (float)vd_sum(s);
}

static void softmax_tile(float *s, int64_t keys, int lanes, float scale, float *m, float *l, float *alpha) {
    const vf sc = v_set1(scale);
    for (int j = 0; j < lanes; j += VN) {
        vf top = v_load(m + j), sum = v_zero();
        const vf before = top;
        for (int64_t i = 0; i < keys; i++) top = v_max(v_mul(sc, v_load(s + i * lanes + j)), top);
        for (int64_t i = 0; i < keys; i++) {
            const vf e = v_exp(v_sub(v_mul(sc, v_load(s + i * lanes + j)), top));
            v_store(s + i * lanes + j, e);
            sum = v_add(sum, e);
        }
        const vf a = v_exp(v_sub(before, top));
        v_store(alpha + j, a);
        v_store(l + j, v_fma(v_load(l + j), a, sum));
        v_store(m + j, top);
    }
}

static void scale_lanes(float *x, int64_t rows, int lanes, const float *by) {
    for (int j = 0; j < lanes; j += VN) {
        const vf f = v_load(by + j);
        for (int64_t i = 0; i < rows; i++) v_store(x + i * lanes + j, v_mul(v_load(x + i * lanes + j), f));
    }
}

static void softmax_bwd_tile(float *s, float *dp, int64_t keys, int lanes, float scale, const float *lse, const float *delta) {
    const vf sc = v_set1(scale);
    for (int j = 0; j < lanes; j += VN) {
        const vf le = v_load(lse + j), de = v_load(delta + j);
        for (int64_t i = 0; i < keys; i++) {
            float *at = s + i * lanes + j, *dat = dp + i * lanes + j;
            const vf p = v_exp(v_sub(v_mul(sc, v_load(at)), le));
            v_store(at, p);
            v_store(dat, v_mul(v_mul(p, v_sub(v_load(dat), de)), sc));
        }
    }
}

static void f32_to_f16(uint16_t *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += VN) {
        const int64_t m = n - i < VN ? n - i : VN;
        v_store_f16_n(y + i, v_load_n(x + i, m), m);
    }
}

static void f16_to_f32(float *y, const uint16_t *x, int64_t n) {
    int64_t i = 0;
    WHOLE(i, n) v_store(y + i, v_load_f16(x + i));
    if (i < n) v_store_n(y + i, v_load_f16_n(x + i, n - i), n - i);
}

static void bf16_to_f32(float *y, const uint16_t *x, int64_t n) {
    int64_t i = 0;
    WHOLE(i, n) v_store(y + i, v_load_bf16(x + i));
    if (i < n) v_store_n(y + i, v_load_bf16_n(x + i, n - i), n - i);
}

/* Rows of a cache are short pieces of long rows, and hardware does not guess the next one: about 4 KB ahead, in whole fours of rows. */
INLINE int64_t elements_ahead(int64_t ld, int64_t size) {
    const int64_t four = 4 * ld;
    return four * size >= 4096 || four <= 0 ? four : (4096 / (four * size) + 1) * four;
}

/* ---- float rows times few vectors ----
 * Four rows and up to 3 vectors at a time: 12 sums in registers, four of them reduced together. A group of fewer rows repeats its
 * last one, so that every product is summed in the same order wherever it lies. */

INLINE void store_first(float *to, v4 x, int64_t n) {
    float lanes[4];
    if (n == 4) {
        v4_store(to, x);
        return;
    }
    v4_store(lanes, x);
    for (int64_t i = 0; i < n; i++) to[i] = lanes[i];
}

#define ROWDOT(name, type, load, load_n)                                                                                        \
    INLINE void name##_block(const type *const w[4], int64_t ahead, int64_t cols, const float *x, int64_t ldx, int T, v4 out[3]) { \
        vf s[3][4];                                                                                                             \
        int64_t i = 0;                                                                                                          \
        for (int t = 0; t < T; t++)                                                                                             \
            for (int r = 0; r < 4; r++) s[t][r] = v_zero();                                                                     \
        WHOLE(i, cols) {                                                                                                        \
            vf v[4];                                                                                                            \
            for (int r = 0; r < 4; r++) {                                                                                       \
                v[r] = load(w[r] + i);                                                                                          \
                v_prefetch(w[r] + i + ahead);                                                                                   \
            }                                                                                                                   \
            for (int t = 0; t < T; t++) {                                                                                       \
                const vf xv = v_load(x + t * ldx + i);                                                                          \
                for (int r = 0; r < 4; r++) s[t][r] = v_fma(v[r], xv, s[t][r]);                                                 \
            }                                                                                                                   \
        }                                                                                                                       \
        if (i < cols)                                                                                                           \
            for (int t = 0; t < T; t++)                                                                                         \
                for (int r = 0; r < 4; r++)                                                                                     \
                    s[t][r] = v_fma(load_n(w[r] + i, cols - i), v_load_n(x + t * ldx + i, cols - i), s[t][r]);                  \
        for (int t = 0; t < T; t++) out[t] = v_sum4(s[t][0], s[t][1], s[t][2], s[t][3]);                                        \
    }                                                                                                                           \
    static void name(const type *w, int64_t ldw, int64_t rows, int64_t cols, const float *x, int64_t ldx, int64_t T, float *y,  \
                     int64_t ldy) {                                                                                             \
        const int64_t ahead = elements_ahead(ldw, sizeof *w);                                                                   \
        for (int64_t r = 0; r < rows; r += 4) {                                                                                 \
            const int64_t n = rows - r < 4 ? rows - r : 4;                                                                      \
            const type *const p = w + r * ldw;                                                                                  \
            const type *const four[4] = {p, p + (n > 1 ? 1 : n - 1) * ldw, p + (n > 2 ? 2 : n - 1) * ldw, p + (n - 1) * ldw};   \
            for (int64_t t = 0; t < T; t += 3) {                                                                                \
                v4 out[3];                                                                                                  \
                const int m = T - t < 3 ? (int)(T - t) : 3;                                                                     \
                if (m == 1) name##_block(four, ahead, cols, x + t * ldx, ldx, 1, out);                                                 \
                else if (m == 2) name##_block(four, ahead, cols, x + t * ldx, ldx, 2, out);                                            \
                else name##_block(four, ahead, cols, x + t * ldx, ldx, 3, out);                                                        \
                for (int j = 0; j < m; j++) store_first(y + (t + j) * ldy + r, out[j], n);                                      \
            }                                                                                                                   \
        }                                                                                                                       \
    }

/* y[t] += Σ_r p[t, r] w[r, :]: up to 3 vectors of sums by 4 of columns in registers, down all rows. */
#define MIX(name, type, load, load_n)                                                                                           \
    INLINE void name##_block(const type *w, int64_t ldw, int64_t rows, int64_t cols, const float *p, int64_t ldp, int T, int C,  \
                             int partial, float *y, int64_t ldy) {                                                              \
        const int64_t ahead = elements_ahead(ldw, sizeof *w);                                                                   \
        vf s[3][4];                                                                                                             \
        for (int t = 0; t < T; t++)                                                                                             \
            for (int c = 0; c < C; c++) s[t][c] = partial ? v_load_n(y + t * ldy, cols) : v_load(y + t * ldy + c * VN);         \
        for (int64_t r = 0; r < rows; r++) {                                                                                    \
            vf v[4];                                                                                                            \
            for (int c = 0; c < C; c++) {                                                                                       \
                v[c] = partial ? load_n(w + r * ldw, cols) : load(w + r * ldw + c * VN);                                        \
                v_prefetch(w + r * ldw + c * VN + ahead);                                                                       \
            }                                                                                                                   \
            for (int t = 0; t < T; t++) {                                                                                       \
                const vf pv = v_set1(p[t * ldp + r]);                                                                           \
                for (int c = 0; c < C; c++) s[t][c] = v_fma(pv, v[c], s[t][c]);                                                 \
            }                                                                                                                   \
        }                                                                                                                       \
        for (int t = 0; t < T; t++)                                                                                             \
            for (int c = 0; c < C; c++) {                                                                                       \
                if (partial) v_store_n(y + t * ldy, s[t][c], cols);                                                             \
                else v_store(y + t * ldy + c * VN, s[t][c]);                                                                    \
            }                                                                                                                   \
    }                                                                                                                           \
    INLINE void name##_columns(const type *w, int64_t ldw, int64_t rows, int64_t cols, const float *p, int64_t ldp, int T,       \
                               float *y, int64_t ldy) {                                                                         \
        int64_t c = 0;                                                                                                          \
        for (; c + 4 * VN <= cols; c += 4 * VN) name##_block(w + c, ldw, rows, 0, p, ldp, T, 4, 0, y + c, ldy);                 \
        for (; c + VN <= cols; c += VN) name##_block(w + c, ldw, rows, 0, p, ldp, T, 1, 0, y + c, ldy);                         \
        if (c < cols) name##_block(w + c, ldw, rows, cols - c, p, ldp, T, 1, 1, y + c, ldy);                                    \
    }                                                                                                                           \
    static void name(const type *w, int64_t ldw, int64_t rows, int64_t cols, const float *p, int64_t ldp, int64_t T, float *y,  \
                     int64_t ldy) {                                                                                             \
        int64_t t = 0;                                                                                                          \
        for (; t + 3 <= T; t += 3) name##_columns(w, ldw, rows, cols, p + t * ldp, ldp, 3, y + t * ldy, ldy);                   \
        if (T - t == 2) name##_columns(w, ldw, rows, cols, p + t * ldp, ldp, 2, y + t * ldy, ldy);                              \
        if (T - t == 1) name##_columns(w, ldw, rows, cols, p + t * ldp, ldp, 1, y + t * ldy, ldy);                              \
    }

ROWDOT(rowdot_f32, float, v_load, v_load_n)
ROWDOT(rowdot_f16, uint16_t, v_load_f16, v_load_f16_n)
ROWDOT(rowdot_bf16, uint16_t, v_load_bf16, v_load_bf16_n)
MIX(mix_f32, float, v_load, v_load_n)
MIX(mix_f16, uint16_t, v_load_f16, v_load_f16_n)

INLINE void override_elementwise(tt_kernels *k) {
    k->dot_f32 = dot_f32;
    k->sumsq_f32 = sumsq_f32;
    k->add_f32 = add_f32;
    k->axpy_f32 = axpy_f32;
    k->silu_mul_f32 = silu_mul_f32;
    k->silu_mul_bwd_f32 = silu_mul_bwd_f32;
    k->rmsnorm_f32 = rmsnorm_f32;
    k->rmsnorm_bwd_f32 = rmsnorm_bwd_f32;
    k->softmax_stats_f32 = softmax_stats_f32;
    k->softmax_apply_f32 = softmax_apply_f32;
    k->softmax_exp_f32 = softmax_exp_f32;
    k->softmax_tile = softmax_tile;
    k->scale_lanes = scale_lanes;
    k->softmax_bwd_tile = softmax_bwd_tile;
    k->f32_to_f16 = f32_to_f16;
    k->f16_to_f32 = f16_to_f32;
    k->bf16_to_f32 = bf16_to_f32;
    k->rowdot_f32 = rowdot_f32;
    k->rowdot_f16 = rowdot_f16;
    k->rowdot_bf16 = rowdot_bf16;
    k->mix_f32 = mix_f32;
    k->mix_f16 = mix_f16;
}
