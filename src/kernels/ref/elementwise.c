/* Elementwise kernels and reductions: the definitions. See kernels.inc for the contracts. */
#include "kernels/half.h"
#include "kernels/isa.h"
#include <math.h>

static float dot_f32(const float *a, const float *b, int64_t n) {
    float part[8] = {0};                         /* eight chains: the compiler may use vectors without reordering the sum */
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) part[j] += a[i + j] * b[i + j];
    for (int j = 0; i < n; i++, j++) part[j] += a[i] * b[i];
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

static double sumsq_f32(const float *x, int64_t n) {
    double part[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++) part[j] += (double)x[i + j] * (double)x[i + j];
    for (int j = 0; i < n; i++, j++) part[j] += (double)x[i] * (double)x[i];
    return (part[0] + part[2]) + (part[1] + part[3]);
}

static void add_f32(float *y, const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void axpy_f32(float *y, float s, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += s * x[i];
}

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

static void silu_mul_f32(float *y, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

/* silu(g) = g σ(g);  silu'(g) = σ + g σ (1 - σ) */
static void silu_mul_bwd_f32(float *dgate, float *dup, const float *gate, const float *up, const float *dy, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const float g = gate[i], s = sigmoid(g), u = up[i], d = dy[i];
        dup[i] = d * (g * s);
        dgate[i] = d * u * (s + g * s * (1.0f - s));
    }
}

static void rmsnorm_f32(float *y, const float *x, const float *g, float eps, int64_t n) {
    const float r = (float)(1.0 / sqrt(sumsq_f32(x, n) / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * r * g[i];
}

/* y = r x g, r = (mean x² + eps)^-1/2:  dx += r g dy - x r³ (Σ g dy x) / n */
static void rmsnorm_bwd_f32(float *dx, const float *x, const float *g, const float *dy, float eps, int64_t n) {
    const double r = 1.0 / sqrt(sumsq_f32(x, n) / (double)n + (double)eps);
    double dot = 0;
    for (int64_t i = 0; i < n; i++) dot += (double)(g[i] * dy[i]) * (double)x[i];
    const float rf = (float)r, c = (float)(r * r * r * dot / (double)n);
    for (int64_t i = 0; i < n; i++) dx[i] += rf * g[i] * dy[i] - c * x[i];
}

static float max_f32(const float *x, int64_t n) {
    float m = -INFINITY;
    for (int64_t i = 0; i < n; i++) m = x[i] > m ? x[i] : m;
    return m;
}

static double softmax_stats_f32(const float *x, int64_t n, float *max) {
    const float m = max_f32(x, n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)expf(x[i] - m);
    *max = m;
    return sum;
}

static void softmax_apply_f32(float *p, const float *x, int64_t n, float max, float inv_sum) {
    for (int64_t i = 0; i < n; i++) p[i] = expf(x[i] - max) * inv_sum;
}

static float softmax_exp_f32(float *x, int64_t n, float scale, float *max) {
    const float m = max_f32(x, n) * scale;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)(x[i] = expf(scale * x[i] - m));
    *max = m;
    return (float)sum;
}

static void softmax_tile(float *s, int64_t keys, int lanes, float scale, float *m, float *l, float *alpha) {
    for (int j = 0; j < lanes; j++) {
        float top = m[j], sum = 0;
        for (int64_t i = 0; i < keys; i++) top = scale * s[i * lanes + j] > top ? scale * s[i * lanes + j] : top;
        for (int64_t i = 0; i < keys; i++) sum += s[i * lanes + j] = expf(scale * s[i * lanes + j] - top);
        alpha[j] = expf(m[j] - top);
        l[j] = l[j] * alpha[j] + sum;
        m[j] = top;
    }
}

static void scale_lanes(float *x, int64_t rows, int lanes, const float *by) {
    for (int64_t i = 0; i < rows; i++)
        for (int j = 0; j < lanes; j++) x[i * lanes + j] *= by[j];
}

static void softmax_bwd_tile(float *s, float *dp, int64_t keys, int lanes, float scale, const float *lse, const float *delta) {
    for (int64_t i = 0; i < keys; i++)
        for (int j = 0; j < lanes; j++) {
            const int64_t at = i * lanes + j;
            s[at] = expf(scale * s[at] - lse[j]);
            dp[at] = s[at] * (dp[at] - delta[j]) * scale;
        }
}

static void f32_to_f16(uint16_t *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = f32_to_half(x[i]);
}

static void f16_to_f32(float *y, const uint16_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = half_to_f32(x[i]);
}

static void bf16_to_f32(float *y, const uint16_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = bf16_bits_to_f32(x[i]);
}

void tt__kernels_ref_elementwise(tt_kernels *k) {
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
}
