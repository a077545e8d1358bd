/* KL statistics against plain sums in double precision, rows of the base-logit file against their definition. */
#include "harness/tt_test.h"
#include "measure/measure.h"

enum { V = 1001 };

static void random_logits(tt__rng *rng, float *x, double spread) {
    for (int i = 0; i < V; i++) x[i] = (float)(spread * tt__rng_normal(rng));
}

static double lse(const float *x) {
    double max = -1e300, sum = 0;
    for (int i = 0; i < V; i++) max = fmax(max, (double)x[i]);
    for (int i = 0; i < V; i++) sum += exp((double)x[i] - max);
    return max + log(sum);
}

static double kl(const float *p, const float *q) {
    double a = lse(p), b = lse(q), sum = 0;
    for (int i = 0; i < V; i++) sum += exp((double)p[i] - a) * (((double)p[i] - a) - ((double)q[i] - b));
    return sum;
}

TT_CASE(row_score_is_minus_log_probability) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt__rng rng;
    float x[V];
    tt__rng_seed(&rng, 1);
    for (int round = 0; round < 20; round++) {
        random_logits(&rng, x, 1 + round);
        int32_t target = (int32_t)tt__rng_below(&rng, V);
        tt_row_score s = tt__row_score(ctx->k, x, V, target);
        TT_CHECK_NEAR(s.nll, lse(x) - (double)x[target], 2e-6 * (1 + fabs(lse(x))));
        TT_CHECK_NEAR(s.max + s.log_sum, lse(x), 1e-5);
    }
}

TT_CASE(stored_rows_are_near_to_a_level) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt__rng rng;
    float x[V], lp[V];
    uint16_t row[2 * ((V + 1) / 2) + 4];
    tt__rng_seed(&rng, 2);
    for (int round = 0; round < 10; round++) {
        random_logits(&rng, x, 0.5 * round);                 /* round 0: all logits equal */
        tt_row_score s = tt__row_score(ctx->k, x, V, 0);
        tt__base_row_encode(x, V, s, row);
        tt__base_row_decode((const uint8_t *)row, V, lp);
        float level = tt__rdf32(row);
        TT_CHECK(level <= 16.0f / 65535 * 1.0001f);
        for (int i = 0; i < V; i++) {
            double exact = (double)x[i] - lse(x);
            if (x[i] > s.max - 16) TT_CHECK_NEAR(lp[i], exact, 0.51 * (double)level + 4e-6);
            else TT_CHECK_NEAR(lp[i], (double)s.max - 16 - lse(x), 1e-5);
        }
    }
    TT_CHECK_EQ(tt__base_row_units(V), 1006);                /* 1001 codes and one of padding */
    TT_CHECK_EQ(tt__base_row_units(49152), 49156);
}

TT_CASE(kl_row_matches_plain_sums) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt__rng rng;
    float p[V], q[V], lp[V];
    uint16_t row[2 * ((V + 1) / 2) + 4];
    tt__rng_seed(&rng, 3);
    for (int round = 0; round < 10; round++) {
        random_logits(&rng, p, 2);
        for (int i = 0; i < V; i++) q[i] = p[i] + (float)(0.3 * tt__rng_normal(&rng));
        int32_t target = (int32_t)tt__rng_below(&rng, V);
        tt_row_score s = tt__row_score(ctx->k, q, V, target), b = tt__row_score(ctx->k, p, V, target);
        tt_kld_row r = tt__kld_row(q, s, p, b.max + b.log_sum, -INFINITY, V, target);
        TT_CHECK_NEAR(r.kld, kl(p, q), 1e-5);
        TT_CHECK_NEAR(r.dp, exp((double)q[target] - lse(q)) - exp((double)p[target] - lse(p)), 1e-6);
        TT_CHECK_NEAR(tt__kld_row(p, b, p, b.max + b.log_sum, -INFINITY, V, target).kld, 0, 1e-6);
        tt__base_row_encode(p, V, b, row);                   /* and through the file's 16 bits */
        tt__base_row_decode((const uint8_t *)row, V, lp);
        TT_CHECK_NEAR(tt__kld_row(q, s, lp, 0, -16, V, target).kld, kl(p, q), 3e-4);
    }
}

static tt_kld_row row_of(double x) { return (tt_kld_row){.kld = x, .nll = (float)(2 + x), .nll_base = 2, .dp = (float)-x, .same_top = x < 0.5}; }

/* Values 0, 0.01 … 1: every quantile is known. */
TT_CASE(quantiles_and_means_of_known_values) {
    tt_err err = {0};
    tt_kld_sums s;
    tt_kld_stats k;
    TT_CHECK_OK(tt__kld_init(&s, 101, &err));
    for (int i = 0; i < 101; i++) {
        tt_kld_row r = row_of((i * 37 % 101) / 100.0);
        tt__kld_add(&s, &r);
    }
    TT_CHECK(tt__kld_finish(&s, &k));
    TT_CHECK_NEAR(k.mean_kld, 0.5, 1e-9);
    TT_CHECK_NEAR(k.mean_kld_err, sqrt(0.085 / 100), 1e-6);
    TT_CHECK_NEAR(k.kld.max, 1, 0);
    TT_CHECK_NEAR(k.kld.q999, 0.999, 1e-6);
    TT_CHECK_NEAR(k.kld.q99, 0.99, 1e-6);
    TT_CHECK_NEAR(k.kld.median, 0.5, 1e-7);
    TT_CHECK_NEAR(k.kld.q05, 0.05, 1e-6);
    TT_CHECK_NEAR(k.kld.q001, 0.001, 1e-6);
    TT_CHECK_NEAR(k.kld.min, 0, 0);
    TT_CHECK_NEAR(k.dp.max, 0, 0);
    TT_CHECK_NEAR(k.dp.min, -1, 0);
    TT_CHECK_NEAR(k.rms_dp, sqrt(0.335), 1e-6);
    TT_CHECK_NEAR(k.same_top, 50.0 / 101, 1e-12);
    TT_CHECK_NEAR(k.base_perplexity, exp(2), 1e-6);
    TT_CHECK_NEAR(k.mean_ln_ratio, 0.5, 1e-6);
    TT_CHECK_NEAR(k.ratio, exp(0.5), 1e-5);
    tt__kld_free(&s);
}

TT_CASE(fewer_than_100_targets_give_no_statistics) {
    tt_err err = {0};
    tt_kld_sums s;
    tt_kld_stats k;
    TT_CHECK_OK(tt__kld_init(&s, 99, &err));
    for (int i = 0; i < 99; i++) {
        tt_kld_row r = row_of(i / 99.0);
        tt__kld_add(&s, &r);
    }
    TT_CHECK(!tt__kld_finish(&s, &k));
    tt__kld_free(&s);
}
