/* AdamW in the symbols of the paper, without its schedule multiplier (lr carries it):
 *
 *     θ ← θ - lr·λ·θ
 *     m ← β1 m + (1-β1) g          v ← β2 v + (1-β2) g²
 *     θ ← θ - lr · (m / (1-β1^t)) / (√(v / (1-β2^t)) + ε)
 *
 * Values and moments are f32, the arithmetic of a step f64: an update 2^-24 of the value's size is not lost before it is added.
 */
#include "train/optim.h"
#include <math.h>

void tt__adamw_step(const tt_adamw *o, int64_t t, double lr, int64_t n, float *p, float *m, float *v, const float *g) {
    double c1 = 1 - pow(o->beta1, (double)t), c2 = 1 - pow(o->beta2, (double)t);
    for (int64_t i = 0; i < n; i++) {
        double gi = g[i], mi = o->beta1 * m[i] + (1 - o->beta1) * gi, vi = o->beta2 * v[i] + (1 - o->beta2) * gi * gi;
        m[i] = (float)mi;
        v[i] = (float)vi;
        p[i] = (float)((double)p[i] * (1 - lr * o->decay) - lr * (mi / c1) / (sqrt(vi / c2) + o->eps));
    }
}

double tt__clip_norm(float *g, int64_t n, double max) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)g[i] * (double)g[i];
    double norm = sqrt(sum), scale = max / (norm + 1e-6);
    if (max > 0 && scale < 1)
        for (int64_t i = 0; i < n; i++) g[i] = (float)(scale * (double)g[i]);
    return norm;
}

double tt__lr_linear(int64_t k, int64_t warmup, int64_t total) {
    if (k < warmup) return (double)(k + 1) / (double)warmup;
    int64_t span = total - warmup;
    return k >= total ? 0 : (double)(total - k) / (double)(span > 0 ? span : 1);
}

double tt__lr_cosine(int64_t k, int64_t warmup, int64_t total, double least) {
    const double pi = 3.14159265358979323846;
    if (k < warmup) return (double)(k + 1) / (double)warmup;
    double span = total > warmup ? (double)(total - warmup) : 1, at = (double)(k - warmup) / span;
    return least + (1 - least) * 0.5 * (1 + cos(pi * (at < 1 ? at : 1)));
}
