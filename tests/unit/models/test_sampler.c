/* The sampler: greedy and penalties exactly; the filters by what can still be drawn; the draw by frequencies. */
#include "harness/tt_test.h"
#include "models/sampler.h"

enum { V = 8, DRAWS = 20000 };
static const float LOGITS[V] = {1.0f, 3.0f, 2.0f, -1.0f, 0.5f, 2.5f, -20.0f, 3.0f};

static tt_sampler_options plain(void) { return (tt_sampler_options){.size = sizeof(tt_sampler_options), .temperature = 1, .top_p = 1, .repeat_penalty = 1, .repeat_last_n = 4}; }

static tt_sampler *make(tt_sampler_options o) {
    tt_sampler *s;
    tt_err err = {0};
    TT_CHECK_OK(tt__sampler_create(&o, V, &s, &err));
    return s;
}

static int32_t draw(tt_sampler *s, const float *z) {
    int32_t id;
    tt_err err = {0};
    TT_CHECK_OK(tt__sampler_draw(s, z, &id, &err));
    TT_CHECK(id >= 0 && id < V);
    return id;
}

static void count_draws(tt_sampler_options o, int count[V]) {
    tt_sampler *s = make(o);
    memset(count, 0, V * sizeof *count);
    for (int i = 0; i < DRAWS; i++) count[draw(s, LOGITS)]++;
    tt__sampler_free(s);
}

TT_CASE(greedy_takes_the_first_of_equals) {
    tt_sampler_options o = plain();
    o.temperature = 0;
    tt_sampler *s = make(o);
    TT_CHECK_EQ(draw(s, LOGITS), 1);
    tt__sampler_free(s);
}

TT_CASE(penalties_follow_the_window) {
    tt_sampler_options o = plain();
    o.temperature = 0;
    o.repeat_penalty = 4;
    tt_sampler *s = make(o);
    static const int32_t want[] = {1, 7, 5, 2, 0, 1, 7};       /* each sinks to a quarter; with a window of 4 the first returns in time */
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        tt_test_note("draw %d", (int)i);
        int32_t id = draw(s, LOGITS);
        TT_CHECK_EQ(id, want[i]);
        tt__sampler_accept(s, id);
    }
    tt__sampler_forget(s);                                     /* nothing has been said: from the start */
    TT_CHECK_EQ(draw(s, LOGITS), 1);
    tt__sampler_free(s);
    o = plain();
    o.temperature = 0;
    o.frequency_penalty = 0.3f;
    s = make(o);
    tt__sampler_accept(s, 1);
    tt__sampler_accept(s, 7);
    tt__sampler_accept(s, 7);                                  /* 2.7, 2.4, against 2.5 */
    TT_CHECK_EQ(draw(s, LOGITS), 1);
    tt__sampler_free(s);
    o.frequency_penalty = 0;
    o.presence_penalty = 1.5f;
    s = make(o);
    tt__sampler_accept(s, 1);
    tt__sampler_accept(s, 7);
    TT_CHECK_EQ(draw(s, LOGITS), 5);
    tt__sampler_free(s);
}

TT_CASE(frequencies_follow_the_softmax) {
    for (int hot = 0; hot < 2; hot++) {
        tt_sampler_options o = plain();
        o.temperature = hot ? 2.0f : 0.7f;
        int count[V];
        double p[V], sum = 0;
        count_draws(o, count);
        for (int i = 0; i < V; i++) sum += p[i] = exp((double)LOGITS[i] / (double)o.temperature);
        for (int i = 0; i < V; i++) {
            double share = p[i] / sum;
            TT_CHECK_NEAR(count[i] / (double)DRAWS, share, 5 * sqrt(share * (1 - share) / DRAWS) + 1e-4);
        }
    }
}

TT_CASE(filters_keep_the_best) {
    int count[V];
    tt_sampler_options o = plain();
    o.top_k = 3;
    count_draws(o, count);
    TT_CHECK(count[1] + count[7] + count[5] == DRAWS && count[5] > 0);
    o = plain();
    o.top_p = 0.6f;                     /* 1 and 7 have 0.31 each, 5 has 0.19 */
    count_draws(o, count);
    TT_CHECK(count[1] + count[7] == DRAWS && count[7] > 0);
    o.top_p = 0;                        /* the best alone */
    count_draws(o, count);
    TT_CHECK_EQ(count[1], DRAWS);
    o = plain();
    o.min_p = 0.5f;                     /* exp(-0.5) = 0.61 passes, exp(-1) = 0.37 not */
    count_draws(o, count);
    TT_CHECK(count[1] + count[7] + count[5] == DRAWS && count[5] > 0);
    o.min_p = 1;
    count_draws(o, count);
    TT_CHECK(count[1] + count[7] == DRAWS);
}

TT_CASE(seeds_repeat) {
    tt_sampler_options o = plain();
    o.seed = 42;
    tt_sampler *a = make(o), *b = make(o);
    o.seed = 43;
    tt_sampler *c = make(o);
    int differ = 0;
    for (int i = 0; i < 100; i++) {
        int32_t x = draw(a, LOGITS);
        TT_CHECK_EQ(x, draw(b, LOGITS));
        differ += x != draw(c, LOGITS);
    }
    TT_CHECK(differ > 0);
    tt__sampler_free(a);
    tt__sampler_free(b);
    tt__sampler_free(c);
}

TT_CASE(bad_options_and_logits) {
    tt_err err = {0};
    tt_sampler *s;
    int32_t id;
    tt_sampler_options o = plain();
    o.temperature = NAN;
    TT_CHECK_FAILS(TT_USAGE, tt__sampler_create(&o, V, &s, &err));
    o = plain();
    o.top_p = 1.5f;
    TT_CHECK_FAILS(TT_USAGE, tt__sampler_create(&o, V, &s, &err));
    o = plain();
    o.repeat_last_n = -1;
    TT_CHECK_FAILS(TT_USAGE, tt__sampler_create(&o, V, &s, &err));
    o = plain();
    o.presence_penalty = 3;
    TT_CHECK_FAILS(TT_USAGE, tt__sampler_create(&o, V, &s, &err));
    s = make(plain());
    float bad[V];
    memcpy(bad, LOGITS, sizeof bad);
    bad[3] = INFINITY;
    TT_CHECK_FAILS(TT_FAIL, tt__sampler_draw(s, bad, &id, &err));
    bad[3] = NAN;
    TT_CHECK_FAILS(TT_FAIL, tt__sampler_draw(s, bad, &id, &err));
    tt__sampler_accept(s, -1);
    tt__sampler_accept(s, V);
    tt__sampler_free(s);
}
