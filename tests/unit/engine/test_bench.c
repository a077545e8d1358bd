/* tt_bench and tt_kernels_measure through the public header, on a tiny model: what they count, on every level, and what they refuse. */
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include "kernels/kernels.h"
#include "trimtab/trimtab.h"

static tt_bench_options options(const char *model) {
    tt_bench_options o = tt_bench_default_options();
    o.model = model, o.n_prompt = 20, o.n_gen = 6, o.n_depth = 10, o.repetitions = 3;
    return o;
}

static const char *model(void) {
    const char *path = tt_test_path("tiny.gguf");
    tiny_write(path, 3, 0, false);
    return path;
}

TT_CASE(a_report_adds_up) {
    const char *path = model();
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt_ctx *ctx = tt_test_ctx(2, *isa);
        tt_bench_options o = options(path);
        tt_bench_report *r = NULL;
        tt_err err = {0};
        TT_CHECK_OK(tt_bench(ctx, &o, &r, &err));
        double sum = 0;
        for (int i = 0; i < r->repetitions; i++) sum += 26 / r->seconds[i];
        TT_CHECK_EQ(r->repetitions, 3);
        TT_CHECK_NEAR(r->tokens_per_second, sum / 3, 1e-6 * sum);
        TT_CHECK(r->open_seconds > 0 && r->first_seconds > r->open_seconds);
        TT_CHECK(r->token_median > 0 && r->token_median <= r->token_p95);
        TT_CHECK(r->resident_bytes > 0 && r->peak_rss >= r->resident_bytes && r->params > 0 && r->bytes > 0);
        /* all weights once, and keys and values of 33 positions in the middle: 2 x 2 layers x 2 heads of 8, two bytes each */
        TT_CHECK_NEAR(r->bytes_per_token, (double)r->bytes + 33.0 * 2 * TINY_L * (TINY_D / 2) * 2, 0.1 * (double)r->bytes);
        tt_bench_free_report(r);
    }
}

TT_CASE(generation_alone_and_a_cold_start) {
    const char *path = model();
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_bench_options o = options(path);
    tt_bench_report *r = NULL;
    tt_err err = {0};
    o.n_prompt = 0, o.n_depth = 0, o.no_warmup = true, o.numerics = TT_EXACT;
    TT_CHECK_OK(tt_bench(ctx, &o, &r, &err));
    TT_CHECK(!strcmp(r->type_k, "f32"));
    tt_bench_free_report(r);
    o.n_prompt = 5, o.n_gen = 0, o.repetitions = 1;
    TT_CHECK_OK(tt_bench(ctx, &o, &r, &err));
    TT_CHECK(isnan(r->token_median) && r->first_seconds >= r->seconds[0] && r->deviation == 0);
    tt_bench_free_report(r);
}

TT_CASE(what_is_refused) {
    const char *path = model();
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    const struct { int64_t p, n, d; int r; } bad[] = {{0, 0, 5, 1}, {-1, 2, 0, 1}, {1, 0, 0, 0}, {1, 0, TINY_CTX, 1}, {1, INT64_MAX, 0, 1}, {1, 1, INT64_MAX, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_bench_options o = options(path);
        tt_bench_report *r = NULL;
        tt_err err = {0};
        o.n_prompt = bad[i].p, o.n_gen = bad[i].n, o.n_depth = bad[i].d, o.repetitions = bad[i].r;
        TT_CHECK_EQ(tt_bench(ctx, &o, &r, &err), TT_USAGE);
        TT_CHECK(r == NULL && err.what[0]);
    }
    tt_bench_options o = options("nowhere.gguf");
    tt_bench_report *r = NULL;
    tt_err err = {0};
    TT_CHECK(tt_bench(ctx, &o, &r, &err) != TT_OK && !r);
    tt_bench_free_report(NULL);
    tt_kernels_free_table(NULL);
}

TT_CASE(every_loop_has_a_rate) {
    for (const char *const *isa = tt__kernels_levels(); *isa; isa++) {
        tt_ctx *ctx = tt_test_ctx(2, *isa);
        tt_kernel_table *t = NULL;
        tt_err err = {0};
        TT_CHECK_OK(tt_kernels_measure(ctx, 0.01, &t, &err));
        TT_CHECK(t->n > 60 && t->one.threads == 1 && t->all.threads == 2 && t->one.l2_gb_s > 0 && t->one.fma_gflops > 0 && t->one.dot_gops > 0);
        for (size_t i = 0; i < t->n; i++) {
            tt_test_note("%s, %s %s", *isa, t->rows[i].kernel, t->rows[i].variant);
            TT_CHECK(t->rows[i].seconds > 0 && t->rows[i].share > 0 && isfinite(t->rows[i].share));
        }
        tt_kernels_free_table(t);
    }
}
