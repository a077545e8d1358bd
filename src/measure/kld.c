/* Statistics of one model's next-token distribution Q against a base model's P, as llama.cpp's perplexity tool defines them:
 *
 *     KLD      = Σ_i p_i (ln p_i - ln q_i)                    per target; mean, standard error, quantiles
 *     ln ratio = mean nll(Q) - mean nll(P)                    its error uses the covariance: both saw the same tokens
 *     Δp       = q_target - p_target ; same top = share of targets with argmax q = argmax p
 *
 * and the rows of its base-logit file: log-probabilities in [max - 16, max] on a grid of 65,536 levels,
 *
 *     f32 scale | f32 ln p_min | u16 code[n_vocab, rounded up to even]        ln p_i ≈ scale * code_i + ln p_min
 *
 * Arithmetic follows that tool's precision (f32 row values, f64 sums) so that both programs print the same digits for the same logits.
 */
#include "measure/measure.h"
#include <math.h>
#include <stdlib.h>

tt_row_score tt__row_score(const tt_kernels *k, const float *logits, int64_t n_vocab, int32_t target) {
    tt_row_score s;
    double sum = k->softmax_stats_f32(logits, n_vocab, &s.max);
    double log_sum = log(sum);
    s.log_sum = (float)log_sum;
    s.nll = log_sum - (double)(logits[target] - s.max);
    return s;
}

/* ------------------------------------------------------------ rows of the base-logit file ---- */

void tt__base_row_encode(const float *logits, int64_t n_vocab, tt_row_score s, uint16_t *row) {
    float lowest = logits[0];
    for (int64_t i = 1; i < n_vocab; i++) lowest = logits[i] < lowest ? logits[i] : lowest;
    if (lowest < s.max - 16) lowest = s.max - 16;
    float head[2] = {(s.max - lowest) / 65535.0f, lowest - s.max - s.log_sum};
    memcpy(row, head, sizeof head);
    uint16_t *code = row + 4;
    memset(code, 0, (size_t)(tt__base_row_units(n_vocab) - 4) * sizeof *code);
    if (head[0] == 0) return;                       /* all logits equal */
    float inv = 1 / head[0];
    for (int64_t i = 0; i < n_vocab; i++)
        if (logits[i] > lowest) code[i] = (uint16_t)lrintf(inv * (logits[i] - lowest));
}

void tt__base_row_decode(const uint8_t *row, int64_t n_vocab, float *log_probs) {
    float scale = tt__rdf32(row), lowest = tt__rdf32(row + 4);
    const uint8_t *code = row + 8;
    for (int64_t i = 0; i < n_vocab; i++) log_probs[i] = scale * (float)tt__rd16(code + 2 * i) + lowest;
}

/* ------------------------------------------------------------ one target ---- */

static int64_t argmax(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

tt_kld_row tt__kld_row(const float *logits, tt_row_score s, const float *base, float base_lse, float floor, int64_t n_vocab,
        int32_t target) {
    float lse = s.max + s.log_sum;
    double kld = 0;
    for (int64_t i = 0; i < n_vocab; i++) {
        float lp = base[i] - base_lse;
        if (lp > floor) kld += (double)(expf(lp) * (lp - logits[i] + lse));
    }
    tt_kld_row r = {.kld = kld, .nll = lse - logits[target], .nll_base = base_lse - base[target]};
    r.dp = expf(-r.nll) - expf(-r.nll_base);
    r.same_top = argmax(logits, n_vocab) == argmax(base, n_vocab);
    return r;
}

/* ------------------------------------------------------------ all targets ---- */

tt_status tt__kld_init(tt_kld_sums *s, size_t targets, tt_err *err) {
    *s = (tt_kld_sums){.cap = targets};
    TT_TRY(tt__new(&s->klds, targets ? targets : 1, sizeof *s->klds, "KL values", err));
    return tt__new(&s->dps, targets ? targets : 1, sizeof *s->dps, "probability differences", err);
}

void tt__kld_free(tt_kld_sums *s) {
    tt__free(s->klds);
    tt__free(s->dps);
    *s = (tt_kld_sums){0};
}

void tt__kld_add(tt_kld_sums *s, const tt_kld_row *r) {
    double q = r->nll, p = r->nll_base, dp2 = (double)r->dp * (double)r->dp;
    s->nll += q, s->nll2 += q * q;
    s->base += p, s->base2 += p * p;
    s->cross += q * p;
    s->kld += r->kld, s->kld2 += r->kld * r->kld;
    s->dp += (double)r->dp, s->dp2 += dp2, s->dp4 += dp2 * dp2;
    s->same_top += r->same_top;
    s->klds[s->n] = (float)r->kld;
    s->dps[s->n++] = r->dp;
}

typedef struct estimate { double mean, err; } estimate;

static estimate mean_and_error(double sum, double sum2, double n) {
    double mean = sum / n, var = sum2 / n - mean * mean;
    return (estimate){mean, var > 0 ? sqrt(var / (n - 1)) : 0};
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The value at `fraction` of n sorted ones, between neighbours linearly; the position in f32 as in llama.cpp. */
static double quantile(const float *sorted, size_t n, float fraction) {
    float p = fraction * (float)(n - 1);
    size_t i = (size_t)p;
    p -= (float)i;
    return (double)((1 - p) * sorted[i] + p * sorted[i + 1 < n ? i + 1 : n - 1]);
}

static tt_quantiles quantiles(float *v, size_t n) {
    qsort(v, n, sizeof *v, by_value);
    double median = n % 2 ? (double)v[n / 2] : 0.5 * ((double)v[n / 2] + (double)v[n / 2 - 1]);
    return (tt_quantiles){.max = (double)v[n - 1], .q999 = quantile(v, n, 0.999f), .q99 = quantile(v, n, 0.99f), .q95 = quantile(v, n,
        0.95f),
                          .q90 = quantile(v, n, 0.9f), .median = median, .q10 = quantile(v, n, 0.1f), .q05 = quantile(v, n, 0.05f),
                          .q01 = quantile(v, n, 0.01f), .q001 = quantile(v, n, 0.001f), .min = (double)v[0]};
}

bool tt__kld_finish(tt_kld_sums *s, tt_kld_stats *out) {
    if (s->n < 100) return false;
    double n = (double)s->n;
    estimate q = mean_and_error(s->nll, s->nll2, n), p = mean_and_error(s->base, s->base2, n);
    double cov = (s->cross / n - q.mean * p.mean) / (n - 1);
    double ratio_var = q.err * q.err + p.err * p.err - 2 * cov;
    double ppl = exp(q.mean), base = exp(p.mean);
    double diff_var = ppl * ppl * q.err * q.err + base * base * p.err * p.err - 2 * ppl * base * cov;
    estimate kld = mean_and_error(s->kld, s->kld2, n), dp = mean_and_error(s->dp, s->dp2, n), dp2 = mean_and_error(s->dp2, s->dp4, n);
    double top = (double)s->same_top / n, rms = sqrt(dp2.mean);
    *out = (tt_kld_stats){
        .base_perplexity = base, .base_perplexity_err = base * p.err,
        .correlation = q.err > 0 && p.err > 0 ? cov / (q.err * p.err) : 0,
        .mean_ln_ratio = q.mean - p.mean, .mean_ln_ratio_err = ratio_var > 0 ? sqrt(ratio_var) : 0,
        .diff = ppl - base, .diff_err = diff_var > 0 ? sqrt(diff_var) : 0,
        .mean_kld = kld.mean, .mean_kld_err = kld.err, .kld = quantiles(s->klds, s->n),
        .mean_dp = dp.mean, .mean_dp_err = dp.err, .rms_dp = rms, .rms_dp_err = rms > 0 ? 0.5 / rms * dp2.err : 0, .dp = quantiles(s->dps,
            s->n),
        .same_top = top, .same_top_err = sqrt(top * (1 - top) / (n - 1)),
    };
    out->ratio = exp(out->mean_ln_ratio);
    out->ratio_err = out->ratio * out->mean_ln_ratio_err;
    return true;
}
