/* The paired statistic: the t quantile against tables, the interval against a hand-made case, and its coverage on synthetic documents whose
 * tokens hang together, where an interval that takes tokens as independent fails plainly. */
#include "harness/tt_test.h"
#include "measure/measure.h"

TT_CASE(student_quantiles_match_tables) {
    static const struct { double p, df, t; } table[] = {{0.975, 1, 12.7062047}, {0.975, 2, 4.3026527}, {0.975, 3, 3.1824463}, {0.975, 4, 2.7764451}, {0.975, 9, 2.2621572},
                                                        {0.975, 10, 2.2281389}, {0.975, 30, 2.0422725}, {0.975, 120, 1.9799304}, {0.975, 500, 1.9647198},
                                                        {0.975, 501, 1.9647108}, {0.975, 10000, 1.9602012}, {0.9, 5, 1.4758840}, {0.995, 7, 3.4994833}, {0.975, 2.5, 3.5746548}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        tt_test_note("p %g, df %g", table[i].p, table[i].df);
        TT_CHECK_NEAR(tt__student_quantile(table[i].p, table[i].df), table[i].t, table[i].df == 2.5 ? 0.06 : 2e-6);   /* interpolated, on the safe side */
    }
}

/* Equal lengths: the textbook mean of document means, s = 1, M = 4: half width 3.1824 * 1 / 2. */
TT_CASE(equal_documents_give_the_textbook_interval) {
    double d[4], n[4] = {10, 10, 10, 10}, means[4] = {2, 3, 4, 3};
    for (int i = 0; i < 4; i++) d[i] = 10 * means[i];
    tt_interval iv = tt__paired_interval(d, n, 4);
    double s = sqrt(2.0 / 3);
    TT_CHECK_NEAR(iv.mean, 3, 1e-12);
    TT_CHECK_NEAR(iv.high - iv.mean, 3.1824463 * s / 2, 1e-6);
    TT_CHECK_NEAR(iv.mean - iv.low, 3.1824463 * s / 2, 1e-6);
}

TT_CASE(one_document_has_no_interval) {
    double d = 5, n = 10;
    tt_interval iv = tt__paired_interval(&d, &n, 1);
    TT_CHECK_NEAR(iv.mean, 0.5, 0);
    TT_CHECK(isnan(iv.low) && isnan(iv.high));
}

/* M documents of 20 to 400 tokens; difference of a token = 0.1 + effect of its document (sd 0.2) + noise (sd 1). */
static double coverage(size_t M, int trials, bool clustered) {
    tt__rng rng;
    tt__rng_seed(&rng, 7);
    int inside = 0;
    for (int trial = 0; trial < trials; trial++) {
        double d[64] = {0}, n[64] = {0}, sum = 0, sum2 = 0, tokens = 0;
        for (size_t i = 0; i < M; i++) {
            double effect = 0.1 + 0.2 * tt__rng_normal(&rng);
            n[i] = 20 + (double)tt__rng_below(&rng, 381);
            for (int j = 0; j < (int)n[i]; j++) {
                double x = effect + tt__rng_normal(&rng);
                d[i] += x, sum += x, sum2 += x * x;
            }
            tokens += n[i];
        }
        double mean = sum / tokens, half = 1.96 * sqrt((sum2 / tokens - mean * mean) / (tokens - 1));
        tt_interval iv = clustered ? tt__paired_interval(d, n, M) : (tt_interval){mean, mean - half, mean + half};
        inside += iv.low <= 0.1 && 0.1 <= iv.high;
    }
    return (double)inside / trials;
}

/* 1000 trials: the standard error of a coverage of 0.95 is 0.007; four of them are allowed, and a little for the ratio's skew. */
TT_CASE(interval_covers_95_percent) {
    static const size_t sizes[] = {5, 12, 40};
    for (int i = 0; i < 3; i++) {
        double c = coverage(sizes[i], 1000, true);
        tt_test_note("%zu documents, coverage %.3f", sizes[i], c);
        TT_CHECK(c > 0.92 && c < 0.985);
    }
    double naive = coverage(40, 200, false);
    tt_test_note("tokens taken as independent: coverage %.3f", naive);
    TT_CHECK(naive < 0.75);
}
