/* Paired comparison of two models on the same target tokens, with an interval that knows that tokens of a document hang together.
 *
 * Document i has n_i targets whose loss differences (b - a) sum to d_i; N = Σ n_i. The mean per token is a ratio of two random sums,
 *
 *     R = Σ d_i / N
 *
 * and its variance comes from leaving out one document at a time (jackknife of a ratio; W. G. Cochran, Sampling Techniques, 3rd ed. 1977,
 * section 6.17; B. Efron, The Jackknife, 1982, eq. 3.1):
 *
 *     R_(i) = (D - d_i) / (N - n_i),    v = (M - 1)/M Σ (R_(i) - R)²,    R_(i) - R = -(d_i - R n_i) / (N - n_i)
 *
 * For equal n_i this is the textbook M/(M-1) Σ (d_i - R n_i)² / N²; with unequal ones it weighs long documents up instead of trusting
 * them. The interval is R ± t_{ν, 0.975} √v with ν = N² / Σ n_i² - 1: documents of unequal length count for fewer (effective number of
 * L. Kish, Survey Sampling, 1965; M for equal lengths). With ν = M - 1, five documents of 20 to 400 tokens were covered 91.5 % of the time.
 * Tokens are never treated as independent: that would make the interval several times too narrow.
 */
#include "measure/measure.h"
#include <math.h>

/* P(|T| < t) for a whole number of degrees of freedom (Abramowitz & Stegun 26.7.3, 26.7.4), θ = atan(t/√ν). */
static double student_within(double t, int64_t df) {
    double theta = atan(t / sqrt((double)df)), c = cos(theta), s = sin(theta), term, sum;
    int64_t j = df % 2 ? 1 : 0;
    if (df == 1) return 2 * theta / M_PI;
    term = sum = df % 2 ? c : 1;
    for (j += 2; j <= df - 2; j += 2) {
        term *= c * c * (double)(j - 1) / (double)j;
        sum += term;
    }
    return df % 2 ? 2 / M_PI * (theta + s * sum) : s * sum;
}

static double normal_quantile(double p) {
    double lo = 0, hi = 40;
    for (int i = 0; i < 100; i++) {
        double mid = 0.5 * (lo + hi);
        if (0.5 * erfc(-mid / M_SQRT2) < p) lo = mid;
        else hi = mid;
    }
    return lo;
}

static double whole_quantile(double p, int64_t df) {
    double lo = 0, hi = 1;
    while (student_within(hi, df) < 2 * p - 1) lo = hi, hi *= 2;
    for (int i = 0; i < 100; i++) {
        double mid = 0.5 * (lo + hi);
        if (student_within(mid, df) < 2 * p - 1) lo = mid;
        else hi = mid;
    }
    return lo;
}

/* Above 500 degrees of freedom two Cornish-Fisher terms from the normal quantile are exact to 1e-6 (A & S 26.7.5). Between whole numbers
 * the quantile is nearly a straight line in 1/ν; taking it for one errs on the wide side. */
double tt__student_quantile(double p, double df) {
    if (df > 500) {
        double z = normal_quantile(p), z3 = z * z * z;
        return z + (z3 + z) / (4 * df) + (5 * z3 * z * z + 16 * z3 + 3 * z) / (96 * df * df);
    }
    double below = floor(df), t = whole_quantile(p, (int64_t)below);
    if (below == df) return t;
    double share = (1 / below - 1 / df) / (1 / below - 1 / (below + 1));
    return t + share * (whole_quantile(p, (int64_t)below + 1) - t);
}

tt_interval tt__paired_interval(const double *d, const double *n, size_t documents) {
    double D = 0, N = 0, N2 = 0, v = 0, M = (double)documents;
    for (size_t i = 0; i < documents; i++) D += d[i], N += n[i], N2 += n[i] * n[i];
    double R = D / N;
    if (documents < 2) return (tt_interval){R, NAN, NAN};
    for (size_t i = 0; i < documents; i++) {
        double e = (d[i] - R * n[i]) / (N - n[i]);
        v += e * e;
    }
    double df = fmax(1, N * N / N2 - 1), half = tt__student_quantile(0.975, df) * sqrt((M - 1) / M * v);
    return (tt_interval){R, R - half, R + half};
}

/* ------------------------------------------------------------ two files ---- */

static tt_status same_targets(const tt_losses *a, const tt_losses *b, size_t *documents, tt_err *err) {
    TT_FAIL_IF(strcmp(a->data_sha256, b->data_sha256) != 0, err, TT_MISMATCH, "losses come from different texts|%s and %s|%.12s|%.12s",
               a->map.path, b->map.path,
               b->data_sha256, a->data_sha256);
    TT_FAIL_IF(a->by_document != b->by_document || a->n != b->n, err, TT_MISMATCH,
               "losses are of different targets|%s and %s|%llu|%llu|score both with the same -c and mode",
               a->map.path, b->map.path, (unsigned long long)b->n, (unsigned long long)a->n);
    *documents = 0;
    for (uint64_t i = 0; i < a->n; i++) {
        tt_loss_entry x = tt__losses_at(a, i), y = tt__losses_at(b, i);
        TT_FAIL_IF(x.doc != y.doc || x.token != y.token || x.position != y.position, err, TT_MISMATCH,
                   "losses are of different targets|%s and %s, target %llu|token %d at %u of document %u|token %d at %u of document %u",
                       a->map.path, b->map.path,
                   (unsigned long long)i, y.token, y.position, y.doc, x.token, x.position, x.doc);
        *documents += i == 0 || tt__losses_at(a, i - 1).doc != x.doc;
    }
    return TT_OK;
}

static tt_status compare(const tt_losses *a, const tt_losses *b, tt_paired_report *report, tt_err *err) {
    size_t documents = 0;
    double *d = NULL, *n = NULL, sum_a = 0, sum_b = 0;
    TT_TRY(same_targets(a, b, &documents, err));
    TT_TRY(tt__new(&d, 2 * documents, sizeof *d, "sums per document", err));
    n = d + documents;
    size_t at = 0;
    for (uint64_t i = 0; i < a->n; i++) {
        tt_loss_entry x = tt__losses_at(a, i), y = tt__losses_at(b, i);
        if (i > 0 && tt__losses_at(a, i - 1).doc != x.doc) at++;
        d[at] += (double)y.loss - (double)x.loss;
        n[at] += 1;
        sum_a += (double)x.loss, sum_b += (double)y.loss;
    }
    tt_interval iv = tt__paired_interval(d, n, documents);
    double tokens = (double)a->n;
    *report = (tt_paired_report){.tokens = (int64_t)a->n, .documents = (int64_t)documents, .nll_a = sum_a / tokens, .nll_b = sum_b / tokens,
                                 .diff = iv.mean, .low = iv.low, .high = iv.high};
    tt__free(d);
    return TT_OK;
}

tt_status tt__compare_losses(const char *a, const char *b, tt_paired_report *report, tt_err *err) {
    tt_losses la = {0}, lb = {0};
    tt_status st;
    TT_TRY_GOTO(tt__losses_open(a, &la, err));
    TT_TRY_GOTO(tt__losses_open(b, &lb, err));
    st = compare(&la, &lb, report, err);
done:
    tt__losses_close(&la);
    tt__losses_close(&lb);
    return st;
}
