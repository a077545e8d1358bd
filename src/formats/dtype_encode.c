/* Rounding f32 weights into GGUF's element types.
 *
 * Simple blocks of 32 follow ggml's reference rounding bit for bit (weights.md A8), so that a file equals llama-quantize's. K blocks
 * of 256 are fitted: each sub-block searches the scale (and minimum) that make the weighted squared error small, then the sub-scales
 * are themselves rounded and all codes are taken again with the rounded ones.
 *
 *   x     the block           w   weight of each element's error       q   codes       N   largest code
 *   symmetric:  x ≈ a q       maximise (Σ w q x)² / Σ w q²; then a = Σ w q x / Σ w q²
 *   with minimum: x ≈ a q + b, b ≤ 0: weighted least squares over (a, b) for each trial of codes
 *
 * An importance matrix (mean squared input per column) makes w = imat sqrt(mean x² + x²), for the simple types as well, which then
 * search like the K types. Values beyond f16's 65504, infinities and NaN have no block representation and are refused; blocks whose
 * scale would vanish in f16 become exact zeros (N3, N4).
 */
#include "base/err.h"
#include "base/util.h"
#include "formats/dtype.h"
#include "formats/dtype_blocks.h"
#include <assert.h>
#include <math.h>

enum { QK = 256 };
#define F16_MAX 65504.0f

static void put16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static void put_h(uint8_t *p, float v) { put16(p, tt__f32_to_f16(v)); }
static float as_h(float v) { return tt__f16_to_f32(tt__f32_to_f16(v)); }
/* Plain comparisons: fminf and fmaxf may give either zero of ±0, and the sign would reach the file. */
static float lower(float a, float b) { return b < a ? b : a; }
static float higher(float a, float b) { return b > a ? b : a; }
static int clamp_int(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }

/* nearest-even, with values far outside of any code range clamped first: |v| may be infinite or NaN-free garbage */
static int near(float v, int lo, int hi) {
    if (!(v > (float)lo)) return lo;
    if (v >= (float)hi) return hi;
    return clamp_int((int)rintf(v), lo, hi);
}
/* 1/d, or 0 where that is no number (d = 0 or subnormal): the block then becomes zeros */
static float inverse(float d) {
    float id = d != 0.0f ? 1.0f / d : 0.0f;
    return isfinite(id) ? id : 0.0f;
}

/* ---- the fits ---- */

/* The element of largest magnitude, with its sign. */
static float signed_largest(const float *x, int n) {
    float best = 0.0f, mag = 0.0f;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > mag) mag = fabsf(x[i]), best = x[i];
    return best;
}

typedef struct moments { float wqx, wqq; } moments;   /* Σ w q x, Σ w q² */

static moments codes_at(float inv, int n, int N, const float *x, const float *w, int8_t *q) {
    moments m = {0.0f, 0.0f};
    for (int i = 0; i < n; i++) {
        int c = near(inv * x[i], -N, N - 1);
        q[i] = (int8_t)c;
        m.wqx += w[i] * (float)c * x[i];
        m.wqq += w[i] * (float)(c * c);
    }
    return m;
}

/* Symmetric fit, codes -N … N-1: 19 scales around -N/v; returns a, codes in q. */
static float fit_symmetric(int n, int N, const float *x, const float *w, int8_t *q) {
    float v = signed_largest(x, n), a = 0.0f, best = 0.0f;
    int8_t trial[32];
    for (int i = 0; i < n; i++) q[i] = 0;
    if (fabsf(v) < 1e-15f) return 0.0f;
    for (int k = 0; k < 19; k++) {
        int step = (k % 2 ? (k + 1) / 2 : -(k / 2));        /* 0, 1, -1, 2, -2 …: the plain scale first */
        moments m = codes_at(-((float)N + 0.1f * (float)step) / v, n, N, x, w, trial);
        if (m.wqq > 0.0f && (k == 0 || m.wqx * m.wqx > best * m.wqq)) {
            a = m.wqx / m.wqq;
            best = a * m.wqx;
            memcpy(q, trial, (size_t)n);
        }
    }
    return a;
}

/* Q3_K's fit: start at -N/v, then up to 5 passes that move one code at a time when (Σwqx)²/Σwq² rises. */
static float fit_by_moves(int n, int N, const float *x, const float *w, int8_t *q) {
    float v = signed_largest(x, n);
    for (int i = 0; i < n; i++) q[i] = 0;
    if (fabsf(v) < 1e-15f) return 0.0f;
    moments m = codes_at(-(float)N / v, n, N, x, w, q);
    for (int pass = 0; pass < 5; pass++) {
        int moved = 0;
        for (int i = 0; i < n; i++) {
            float c = (float)q[i], wqx = m.wqx - w[i] * c * x[i], wqq = m.wqq - w[i] * c * c;
            if (wqx <= 0.0f) continue;
            int next = near(x[i] * wqq / wqx, -N, N - 1);
            float f = (float)next, nx = wqx + w[i] * f * x[i], nq = wqq + w[i] * f * f;
            if (next == q[i] || nq <= 0.0f || nx * nx * m.wqq <= m.wqx * m.wqx * nq) continue;
            q[i] = (int8_t)next;
            m = (moments){nx, nq};
            moved++;
        }
        if (!moved) break;
    }
    return m.wqq > 0.0f ? m.wqx / m.wqq : 0.0f;
}

typedef struct search { float from, step; int steps; bool absolute; } search;

/* Fit with minimum, codes 0 … N: x ≈ a q + b. free_min: b may be positive (Q4_1, Q5_1). Returns a ≥ 0, *b. Codes in q. */
static float fit_with_min(int n, int N, const float *x, const float *w, search s, bool free_min, uint8_t *q, float *b) {
    float lo = x[0], hi = x[0], sw = 0.0f, swx = 0.0f;
    uint8_t trial[32];
    for (int i = 0; i < n; i++) {
        lo = lower(lo, x[i]), hi = higher(hi, x[i]);
        sw += w[i], swx += w[i] * x[i];
    }
    if (!free_min && lo > 0.0f) lo = 0.0f;
    for (int i = 0; i < n; i++) q[i] = 0;
    *b = lo;
    if (!(hi - lo > 1e-30f)) return 0.0f;

    float a = (hi - lo) / (float)N, best = INFINITY;
    for (int k = -1; k <= s.steps; k++) {                       /* -1: the plain start, judged with its own (a, lo) */
        float inv = ((k < 0 ? 0.0f : s.from + s.step * (float)k) + (float)N) / (hi - lo), sq = 0.0f, sqq = 0.0f, sqx = 0.0f;
        for (int i = 0; i < n; i++) {
            int c = near(inv * (x[i] - lo), 0, N);
            float wc = w[i] * (float)c;
            trial[i] = (uint8_t)c;
            sq += wc, sqq += wc * (float)c, sqx += wc * x[i];
        }
        float ta = (hi - lo) / (float)N, tb = lo, det = sw * sqq - sq * sq;
        if (k >= 0) {
            if (!(det > 0.0f)) continue;
            ta = (sw * sqx - swx * sq) / det;
            tb = (sqq * swx - sq * sqx) / det;
            if (!free_min && tb > 0.0f) tb = 0.0f, ta = sqx / sqq;
        }
        float error = 0.0f;
        for (int i = 0; i < n; i++) {
            float e = ta * (float)trial[i] + tb - x[i];
            error += w[i] * (s.absolute ? fabsf(e) : e * e);
        }
        if (!(error < best) || !(ta >= 0.0f && ta <= F16_MAX && fabsf(tb) <= F16_MAX)) continue;
        best = error, a = ta, *b = lo = tb;                     /* the search goes on from the best minimum */
        memcpy(q, trial, (size_t)n);
    }
    return a;
}

/* Non-negative x ≈ a q, codes 0 … N, for sub-scales under an importance matrix. */
static float fit_positive(int n, int N, const float *x, const float *w, uint8_t *q) {
    float hi = 0.0f, a = 0.0f, best = INFINITY;
    for (int i = 0; i < n; i++) hi = higher(hi, x[i]);
    for (int i = 0; i < n; i++) q[i] = 0;
    if (!(hi > 1e-30f)) return 0.0f;
    for (int k = -4; k <= 4; k++) {
        float inv = ((float)N + 0.1f * (float)k) / hi, wqx = 0.0f, wqq = 0.0f, error = 0.0f;
        uint8_t trial[16];
        for (int i = 0; i < n; i++) {
            trial[i] = (uint8_t)near(inv * x[i], 0, N);
            wqx += w[i] * (float)trial[i] * x[i];
            wqq += w[i] * (float)(trial[i] * trial[i]);
        }
        if (!(wqq > 0.0f)) continue;
        float ta = wqx / wqq;
        for (int i = 0; i < n; i++) error += w[i] * (x[i] - ta * (float)trial[i]) * (x[i] - ta * (float)trial[i]);
        if (!(error < best)) continue;
        best = error, a = ta;
        memcpy(q, trial, (size_t)n);
    }
    return a;
}

/* ---- weights of the errors ---- */

/* w = imat sqrt(mean x² + x²) over a whole block of n, imat scaled to at most 1; all equal where the matrix is zero throughout. */
static void importance_weights(int n, const float *x, const float *imat, float *w) {
    float mean = 0.0f, top = 0.0f;
    for (int i = 0; i < n; i++) mean += x[i] * x[i], top = higher(top, imat[i]);
    mean /= (float)n;
    float scale = inverse(top);
    for (int i = 0; i < n; i++) w[i] = (scale > 0.0f ? imat[i] * scale : 1.0f) * sqrtf(mean + x[i] * x[i]);
}
/* w = x², in units of the largest: products of four values then neither overflow nor vanish. */
static void square_weights(int n, const float *x, float *w) {
    float scale = inverse(signed_largest(x, n));
    for (int i = 0; i < n; i++) w[i] = (x[i] * scale) * (x[i] * scale);
}
/* w = |x|, plus the root mean square where asked. */
static void magnitude_weights(int n, const float *x, bool with_rms, float *w) {
    float rms = 0.0f;
    for (int i = 0; with_rms && i < n; i++) rms += x[i] * x[i];
    rms = sqrtf(rms / (float)n);
    for (int i = 0; i < n; i++) w[i] = fabsf(x[i]) + rms;
}
static float sum(int n, const float *w) {
    float s = 0.0f;
    for (int i = 0; i < n; i++) s += w[i];
    return s;
}

/* ---- blocks of 32 ---- */

static void pack_nibbles(const uint8_t *q, uint8_t *out) {
    for (int j = 0; j < 16; j++) out[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}
static void pack_fifth_bits(const uint8_t *q, uint8_t *out) {
    uint32_t high = 0;
    for (int j = 0; j < 32; j++) high |= (uint32_t)(q[j] >> 4) << j;
    memcpy(out, &high, 4);
}

/* Symmetric codes 0 … 2N-1 standing for -N … N-1: Q4_0 (N = 8), Q5_0 (N = 16). q = min(2N-1, trunc(x/d + N + 0.5)). */
static float symmetric32(int N, const float *x, const float *imat, uint8_t *q) {
    float w[32];
    int8_t s[32];
    if (imat) {
        importance_weights(32, x, imat, w);
        float d = fit_symmetric(32, N, x, w, s);
        for (int j = 0; j < 32; j++) q[j] = (uint8_t)(s[j] + N);
        return d;
    }
    float d = signed_largest(x, 32) / (float)-N, id = inverse(d);
    for (int j = 0; j < 32; j++) q[j] = (uint8_t)clamp_int((int)(x[j] * id + ((float)N + 0.5f)), 0, 2 * N - 1);
    return d;
}

/* Codes 0 … N with minimum: Q4_1 (15), Q5_1 (31). q = min(N, trunc((x - m)/d + 0.5)). */
static float with_min32(int N, const float *x, const float *imat, uint8_t *q, float *m) {
    float w[32], lo = x[0], hi = x[0];
    if (imat) {
        importance_weights(32, x, imat, w);
        return fit_with_min(32, N, x, w, (search){-0.9f, 0.05f, 36, false}, true, q, m);
    }
    for (int j = 1; j < 32; j++) lo = lower(lo, x[j]), hi = higher(hi, x[j]);
    float d = (hi - lo) / (float)N, id = inverse(d);
    for (int j = 0; j < 32; j++) q[j] = (uint8_t)clamp_int((int)((x[j] - lo) * id + 0.5f), 0, N);
    *m = lo;
    return d;
}

static void encode_q4_0(const float *x, const float *imat, uint8_t *b) {
    uint8_t q[32];
    put_h(b, symmetric32(8, x, imat, q));
    pack_nibbles(q, b + 2);
}
static void encode_q5_0(const float *x, const float *imat, uint8_t *b) {
    uint8_t q[32];
    put_h(b, symmetric32(16, x, imat, q));
    pack_fifth_bits(q, b + 2);
    pack_nibbles(q, b + 6);
}
static void encode_q4_1(const float *x, const float *imat, uint8_t *b) {
    uint8_t q[32];
    float m, d = with_min32(15, x, imat, q, &m);
    put_h(b, d);
    put_h(b + 2, m);
    pack_nibbles(q, b + 4);
}
static void encode_q5_1(const float *x, const float *imat, uint8_t *b) {
    uint8_t q[32];
    float m, d = with_min32(31, x, imat, q, &m);
    put_h(b, d);
    put_h(b + 2, m);
    pack_fifth_bits(q, b + 4);
    pack_nibbles(q, b + 8);
}

/* d = amax / 127, q half-away from zero; fine enough that an importance matrix changes nothing worth having */
static void encode_q8_0(const float *x, const float *imat, uint8_t *b) {
    (void)imat;
    float d = fabsf(signed_largest(x, 32)) / 127.0f, id = inverse(d);
    put_h(b, d);
    for (int j = 0; j < 32; j++) b[2 + j] = (uint8_t)(int8_t)clamp_int((int)roundf(x[j] * id), -127, 127);
}

/* Codes of the nearest codebook values: the number of midpoints at or below v. Loops over lanes inside, for the vectoriser. */
static void nearest_iq4_nl(float inv, const float *x, uint8_t *q) {
    int code[32] = {0};
    for (int i = 0; i < 15; i++) {
        float mid = 0.5f * (float)(tt__iq4_nl[i] + tt__iq4_nl[i + 1]);
        for (int j = 0; j < 32; j++) code[j] += inv * x[j] >= mid;
    }
    for (int j = 0; j < 32; j++) q[j] = (uint8_t)code[j];
}

/* The codebook is not symmetric (-127 … 113), so both signs of the scale are tried: the extreme value at either end, ±7 steps. */
static void encode_iq4_nl(const float *x, const float *imat, uint8_t *b) {
    static const float level[32] = {0};
    float w[32], v = signed_largest(x, 32), a = 0.0f, best = 0.0f;
    uint8_t q[32];
    if (imat) importance_weights(32, x, imat, w); else importance_weights(32, x, level, w);
    for (int k = 0; fabsf(v) > 1e-15f && k < 30; k++) {
        float end = k < 15 ? -127.0f - (float)(k - 7) : 113.0f + (float)(k - 22), wqx = 0.0f, wqq = 0.0f;
        nearest_iq4_nl(end / v, x, q);
        for (int j = 0; j < 32; j++) {
            float c = (float)tt__iq4_nl[q[j]];
            wqx += w[j] * c * x[j];
            wqq += w[j] * c * c;
        }
        if (wqq > 0.0f && wqx * wqx > best * wqq) a = wqx / wqq, best = a * wqx;
    }
    float d = as_h(a);
    nearest_iq4_nl(inverse(d), x, q);
    put_h(b, d);
    pack_nibbles(q, b + 2);
}

/* ---- K blocks of 256 ---- */

typedef struct k_min_fit { uint8_t q[QK], scale[16], min[16]; float d, dmin; } k_min_fit;

/* Rounds the sub-block values v ≥ 0 to codes 0 … top; returns the f16-rounded unit. */
static float round_sub_values(int n, const float *v, const float *weight, int top, bool weighted, uint8_t *codes) {
    float unit = 0.0f, hi = 0.0f;
    if (weighted) unit = fit_positive(n, top, v, weight, codes);
    else {
        for (int j = 0; j < n; j++) hi = higher(hi, v[j]);
        float inv = hi > 0.0f ? (float)top / hi : 0.0f;
        for (int j = 0; j < n; j++) codes[j] = (uint8_t)near(isfinite(inv) ? inv * v[j] : 0.0f, 0, top);
        unit = hi / (float)top;
    }
    return as_h(unit);
}

/* Q2_K, Q4_K, Q5_K in common: sub-blocks of n, codes 0 … N, sub-scales and minima in 0 … top. */
static void fit_k_with_min(const float *x, const float *imat, int n, int N, int top, search s, bool with_rms, k_min_fit *f) {
    float scale[16], min[16], mass[16], w[QK];
    if (imat) {
        importance_weights(QK, x, imat, w);
        s = (search){-0.9f, 0.05f, 36, false};
    }
    for (int j = 0; j < QK / n; j++) {
        const float *xs = x + j * n;
        float *ws = w + j * n, b;
        if (!imat) magnitude_weights(n, xs, with_rms, ws);
        mass[j] = sum(n, ws);
        scale[j] = fit_with_min(n, N, xs, ws, s, false, f->q + j * n, &b);
        min[j] = -b;
    }
    f->d = round_sub_values(QK / n, scale, mass, top, imat != NULL, f->scale);
    f->dmin = round_sub_values(QK / n, min, mass, top, imat != NULL, f->min);
    for (int j = 0; j < QK / n; j++) {
        float inv = inverse(f->d * (float)f->scale[j]), m = f->dmin * (float)f->min[j];
        for (int e = j * n; e < (j + 1) * n; e++) f->q[e] = (uint8_t)near((x[e] + m) * inv, 0, N);
    }
}

static void encode_q2_k(const float *x, const float *imat, uint8_t *b) {
    k_min_fit f;
    fit_k_with_min(x, imat, 16, 3, 15, (search){-0.5f, 0.1f, 15, true}, false, &f);
    memset(b, 0, 80);
    for (int j = 0; j < 16; j++) b[j] = (uint8_t)(f.scale[j] | f.min[j] << 4);
    for (int e = 0; e < QK; e++) b[16 + 32 * (e / 128) + e % 32] |= (uint8_t)(f.q[e] << (2 * (e % 128 / 32)));
    put_h(b + 80, f.d);
    put_h(b + 82, f.dmin);
}

/* d, dmin, then the eight six-bit pairs in 12 bytes (tt__k_scale_pair reads them). */
static void put_k_header(const k_min_fit *f, uint8_t *b) {
    put_h(b, f->d);
    put_h(b + 2, f->dmin);
    memset(b + 4, 0, 12);
    for (int j = 0; j < 8; j++) {
        unsigned sc = f->scale[j], mn = f->min[j];
        if (j < 4) {
            b[4 + j] = (uint8_t)(b[4 + j] | sc);
            b[8 + j] = (uint8_t)(b[8 + j] | mn);
        } else {
            b[8 + j] = (uint8_t)((sc & 15) | (mn & 15) << 4);
            b[j] = (uint8_t)(b[j] | (sc >> 4) << 6);
            b[4 + j] = (uint8_t)(b[4 + j] | (mn >> 4) << 6);
        }
    }
}
static void put_k_nibbles(const uint8_t *q, uint8_t *out) {
    for (int g = 0; g < 4; g++)
        for (int l = 0; l < 32; l++) out[32 * g + l] = (uint8_t)((q[64 * g + l] & 15) | (q[64 * g + 32 + l] & 15) << 4);
}

static void encode_q4_k(const float *x, const float *imat, uint8_t *b) {
    k_min_fit f;
    fit_k_with_min(x, imat, 32, 15, 63, (search){-1.0f, 0.1f, 20, false}, true, &f);
    put_k_header(&f, b);
    put_k_nibbles(f.q, b + 16);
}

static void encode_q5_k(const float *x, const float *imat, uint8_t *b) {
    k_min_fit f;
    fit_k_with_min(x, imat, 32, 31, 63, (search){-0.5f, 0.1f, 15, false}, true, &f);
    put_k_header(&f, b);
    memset(b + 16, 0, 32);
    for (int e = 0; e < QK; e++) b[16 + e % 32] |= (uint8_t)((f.q[e] >> 4) << (e / 32));
    put_k_nibbles(f.q, b + 48);
}

/* Signed sub-scales a[16] to codes -top … top-1; returns the f16-rounded unit. The plain rule puts the largest at -top. */
static float round_signed_scales(const float *a, const float *mass, int top, bool weighted, int8_t *codes) {
    float v = signed_largest(a, 16), unit;
    if (weighted && top <= 32) unit = fit_symmetric(16, top, a, mass, codes);
    else {
        float inv = v != 0.0f ? (float)-top / v : 0.0f;
        if (!isfinite(inv)) inv = 0.0f;
        for (int j = 0; j < 16; j++) codes[j] = (int8_t)near(inv * a[j], -top, top - 1);
        unit = inv != 0.0f ? 1.0f / inv : 0.0f;
    }
    return as_h(unit);
}

static void encode_q3_k(const float *x, const float *imat, uint8_t *b) {
    float a[16], mass[16], w[QK];
    int8_t q[16], s[16];
    if (imat) importance_weights(QK, x, imat, w);
    for (int j = 0; j < 16; j++) {
        const float *xs = x + 16 * j;
        float *ws = w + 16 * j;
        if (!imat) square_weights(16, xs, ws);
        mass[j] = sum(16, ws);
        a[j] = imat ? fit_symmetric(16, 4, xs, ws, q) : fit_by_moves(16, 4, xs, ws, q);
    }
    float d = round_signed_scales(a, mass, 32, imat != NULL, s);
    memset(b, 0, 108);
    for (int j = 0; j < 16; j++) {
        unsigned code = (unsigned)(s[j] + 32);
        float inv = inverse(d * (float)s[j]);
        b[96 + j % 8] = (uint8_t)(b[96 + j % 8] | (code & 15) << (4 * (j / 8)));
        b[104 + j % 4] = (uint8_t)(b[104 + j % 4] | (code >> 4) << (2 * (j / 4)));
        for (int e = 16 * j; e < 16 * j + 16; e++) {
            unsigned c = (unsigned)(near(x[e] * inv, -4, 3) + 4);
            b[32 + 32 * (e / 128) + e % 32] |= (uint8_t)((c & 3) << (2 * (e % 128 / 32)));
            b[e % 32] |= (uint8_t)((c >> 2) << (e / 32));
        }
    }
    put_h(b + 108, d);
}

static void encode_q6_k(const float *x, const float *imat, uint8_t *b) {
    float a[16], w[QK];
    int8_t q[16], s[16];
    if (imat) importance_weights(QK, x, imat, w);
    for (int j = 0; j < 16; j++) {
        if (!imat) square_weights(16, x + 16 * j, w + 16 * j);
        a[j] = fit_symmetric(16, 32, x + 16 * j, w + 16 * j, q);
    }
    float d = round_signed_scales(a, NULL, 128, false, s);
    memset(b, 0, 192);
    for (int j = 0; j < 16; j++) {
        float inv = inverse(d * (float)s[j]);
        b[192 + j] = (uint8_t)s[j];
        for (int e = 16 * j; e < 16 * j + 16; e++) {
            int h = e / 128, t = e % 128 / 32, l = e % 32;
            unsigned c = (unsigned)(near(x[e] * inv, -32, 31) + 32);
            b[64 * h + 32 * (t & 1) + l] |= (uint8_t)((c & 15) << (t < 2 ? 0 : 4));
            b[128 + 32 * h + l] |= (uint8_t)((c >> 4) << (2 * t));
        }
    }
    put_h(b + 208, d);
}

/* ---- the door ---- */

static tt_status check_values(tt_dtype t, const float *src, int64_t n, tt_err *err) {
    const char *label = tt__dtype(t)->label;
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(src[i]) <= F16_MAX))
            return tt__fail(err, TT_BADFILE, "value does not fit the type|%s, element %lld|%g|at most 65504 in magnitude|use bf16 or f32", label,
                            (long long)i, (double)src[i]);
    return TT_OK;
}
static tt_status check_importance(const float *imat, int64_t n, tt_err *err) {
    for (int64_t i = 0; i < n; i++)
        if (!(imat[i] >= 0.0f) || !isfinite(imat[i]))
            return tt__fail(err, TT_BADFILE, "bad importance|column %lld|%g|a finite number from 0", (long long)i, (double)imat[i]);
    return TT_OK;
}

static void (*const encoders[TT_DTYPE_COUNT])(const float *x, const float *imat, uint8_t *block) = {
    [TT_Q4_0] = encode_q4_0, [TT_Q4_1] = encode_q4_1, [TT_Q5_0] = encode_q5_0, [TT_Q5_1] = encode_q5_1, [TT_Q8_0] = encode_q8_0,
    [TT_IQ4_NL] = encode_iq4_nl, [TT_Q2_K] = encode_q2_k, [TT_Q3_K] = encode_q3_k, [TT_Q4_K] = encode_q4_k, [TT_Q5_K] = encode_q5_k,
    [TT_Q6_K] = encode_q6_k,
};

tt_status tt__dtype_encode(tt_dtype t, const float *src, void *dst, int64_t n, const float *imatrix, tt_err *err) {
    const tt_dtype_info *info = tt__dtype(t);
    uint8_t *b = dst;
    assert(n % info->block == 0);
    if (t == TT_F16 || info->quantized) TT_TRY(check_values(t, src, n, err));
    if (imatrix && info->quantized) TT_TRY(check_importance(imatrix, n, err));
    switch (t) {
    case TT_F32: memcpy(b, src, (size_t)n * sizeof(float)); break;
    case TT_F16: for (int64_t i = 0; i < n; i++) put16(b + 2 * i, tt__f32_to_f16(src[i])); break;
    case TT_BF16: for (int64_t i = 0; i < n; i++) put16(b + 2 * i, tt__f32_to_bf16(src[i])); break;
    default:
        if (!encoders[t]) return tt__fail(err, TT_USAGE, "weights are not written in this type|%s||a float or block type", info->label);
        for (int64_t i = 0; i < n; i += info->block, b += info->bytes) encoders[t](src + i, imatrix ? imatrix + i : NULL, b);
    }
    return TT_OK;
}
