/* Guarding texts: which checkpoint is kept, the trade, the state; the slow form is a scan over all points. */
#include "harness/tt_test.h"
#include "train/guard.h"
#include <math.h>

enum { LENGTH = 8, POINTS = 40 };

/* Losses that the "trainer" reports: of text t (its first id tells) at the present point. */
typedef struct world { double now[2], bare[2]; int calls; tt_status fails; } world;

static tt_status loss(void *user, const int32_t *ids, int64_t S, bool bare, double *out, tt_err *err) {
    world *w = user;
    (void)err;
    w->calls++;
    for (int64_t s = 1; s < S; s++) TT_CHECK(ids[s * LENGTH] / 1000 == ids[0] / 1000);
    *out = (bare ? w->bare : w->now)[ids[0] / 1000];
    return w->fails;
}

typedef struct texts { int32_t ids[2][100]; size_t start[2][2]; tt_tokens t[2]; tt_guard_text g[2]; } texts;

static void fill(texts *x) {
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 100; k++) x->ids[i][k] = 1000 * i + k;
        x->start[i][0] = 0, x->start[i][1] = 100;
        x->t[i] = (tt_tokens){.n_docs = 1, .n = 100, .ids = x->ids[i], .start = x->start[i]};
        x->g[i] = (tt_guard_text){i ? "dir/b.txt" : "a.txt", &x->t[i]};
    }
}

static tt_guard *make(texts *x, world *w, int n) {
    tt_err err = {0};
    tt_guard *g = NULL;
    fill(x);
    tt_guard_options o = {.texts = x->g, .n_texts = n, .length = LENGTH, .windows = 5, .batch = 2, .separator = -1, .seed = 1, .loss = loss, .user = w};
    TT_CHECK_OK(tt__guard_create(tt_test_ctx(1, NULL), &o, &g, &err));
    return g;
}

TT_CASE(the_best_harmless_point_is_kept_else_the_best) {
    tt_err err = {0};
    tt__rng rng;
    tt__rng_seed(&rng, 3);
    for (int round = 0; round < 30; round++) {
        texts x;
        world w = {.bare = {3, 4}};
        tt_guard *g = make(&x, &w, 2);
        TT_CHECK_OK(tt__guard_begin(g, &err));
        double shift = 0.1 * round / 30, valid[POINTS], harm[POINTS];
        int kept = -1;
        for (int i = 0; i < POINTS; i++) {
            bool keep;
            for (int t = 0; t < 2; t++) w.now[t] = w.bare[t] + shift - 0.1 * tt__rng_unit(&rng);
            valid[i] = 5 + 0.01 * (double)tt__rng_below(&rng, 20);
            harm[i] = fmax(w.now[0] - w.bare[0], w.now[1] - w.bare[1]);
            TT_CHECK_OK(tt__guard_point(g, 10 * i, valid[i], &keep, &err));
            if (keep) kept = i;
        }
        int want = -1;
        bool any = false;
        for (int i = 0; i < POINTS; i++) any |= harm[i] <= 0;
        for (int i = 0; i < POINTS; i++)
            if ((!any || harm[i] <= 0) && (want < 0 || valid[i] < valid[want])) want = i;
        TT_CHECK_EQ(kept, want);
        tt_guard_report r;
        tt__guard_report(g, &r);
        TT_CHECK_EQ(r.harmless, any);
        TT_CHECK_STR(r.text[1].name, "b.txt");
        TT_CHECK_EQ(r.text[0].tokens, 5 * (LENGTH - 1));
        TT_CHECK_NEAR(fmax(r.text[0].kept - r.text[0].bare, r.text[1].kept - r.text[1].bare), harm[want], 1e-12);
        TT_CHECK(any == (r.n_trade == 0));
        for (int k = 0; k < r.n_trade; k++)
            for (int i = 0; i < POINTS; i++) TT_CHECK(!(valid[i] < r.trade[k].valid && harm[i] < r.trade[k].harm));
        tt__guard_free(g);
    }
}

TT_CASE(a_loss_that_is_not_finite_is_harm) {
    tt_err err = {0};
    texts x;
    world w = {.bare = {3, 4}, .now = {NAN, 1}};
    tt_guard *g = make(&x, &w, 2);
    bool keep;
    TT_CHECK_OK(tt__guard_begin(g, &err));
    TT_CHECK_OK(tt__guard_point(g, 0, 1, &keep, &err));
    tt_guard_report r;
    tt__guard_report(g, &r);
    TT_CHECK(!r.harmless);
    tt__guard_free(g);
    w.bare[1] = NAN;
    g = make(&x, &w, 2);
    TT_CHECK_FAILS(TT_FAIL, tt__guard_begin(g, &err));
    tt__guard_free(g);
}

TT_CASE(the_state_comes_back_whole_and_nothing_else_does) {
    tt_err err = {0};
    texts x;
    world w = {.bare = {3, 4}, .now = {2.5, 4.5}};
    tt_guard *a = make(&x, &w, 2), *b = make(&x, &w, 2), *one = make(&x, &w, 1);
    bool keep;
    TT_CHECK_OK(tt__guard_begin(a, &err));
    for (int i = 0; i < 20; i++) TT_CHECK_OK(tt__guard_point(a, i, 5 - 0.1 * i, &keep, &err));
    uint8_t bytes[4096], again[4096];
    size_t n = tt__guard_bytes(a);
    TT_CHECK(n <= sizeof bytes);
    tt__guard_store(a, bytes);
    TT_CHECK_EQ(tt__guard_size(bytes), n);
    TT_CHECK(tt__guard_take(b, bytes, n, &err));
    TT_CHECK_EQ(tt__guard_bytes(b), n);
    tt__guard_store(b, again);
    TT_CHECK(!memcmp(bytes, again, n));
    TT_CHECK(!tt__guard_take(b, bytes, n - 1, &err));
    TT_CHECK(!tt__guard_take(b, bytes, 4, &err));
    TT_CHECK(!tt__guard_take(one, bytes, n, &err));
    memset(bytes, 0xff, 8);
    TT_CHECK_EQ(tt__guard_size(bytes), 0u);
    tt__guard_free(a);
    tt__guard_free(b);
    tt__guard_free(one);
}

TT_CASE(texts_that_cannot_be_watched_are_refused) {
    tt_err err = {0};
    texts x;
    world w = {0};
    tt_guard *g = NULL;
    fill(&x);
    tt_guard_options o = {.texts = x.g, .n_texts = 0, .length = LENGTH, .windows = 5, .batch = 2, .separator = -1, .loss = loss, .user = &w};
    TT_CHECK_FAILS(TT_USAGE, tt__guard_create(tt_test_ctx(1, NULL), &o, &g, &err));
    o.n_texts = TT_MAX_GUARDS + 1;
    TT_CHECK_FAILS(TT_USAGE, tt__guard_create(tt_test_ctx(1, NULL), &o, &g, &err));
    o.n_texts = 2, o.length = 101;
    TT_CHECK_FAILS(TT_USAGE, tt__guard_create(tt_test_ctx(1, NULL), &o, &g, &err));
}
