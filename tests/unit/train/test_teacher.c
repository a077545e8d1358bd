/* What a teacher says: it is what its logits say, it is asked once, and what interrupts does not show. */
#include "train/teacher.h"
#include "recover.h"
#include <dirent.h>

enum { LENGTH = 24, WINDOWS = 11, K = 7 };

static const tt_teacher_options OPTIONS = {.k = K, .batch = 3, .length = LENGTH, .temperature = 1};

static void windows_of(const rig *r, const int32_t *w[WINDOWS]) {
    for (int i = 0; i < WINDOWS; i++) w[i] = r->train.ids + i * LENGTH;
}

static tt_runner *runner_of(rig *r) {
    tt_err err = {0};
    tt_runner *runner = NULL;
    tt_runner_options o = {.max_rows = OPTIONS.batch * LENGTH};
    TT_CHECK_OK(tt__runner_create(r->ctx, r->whole, &o, &runner, &err));
    return runner;
}

TT_CASE(the_k_largest_are_found) {
    tt__rng rng;
    tt__rng_seed(&rng, 1);
    for (int64_t n = 1; n < 40; n++)
        for (int64_t k = 1; k <= n; k++) {
            float z[40];
            tt_top top[40];
            for (int64_t i = 0; i < n; i++) z[i] = (float)tt__rng_below(&rng, 9);      /* many ties */
            tt__top_k(z, n, k, top);
            for (int64_t i = 0; i < n; i++) {
                int64_t ahead = 0;                           /* slow textbook form: how many come before i */
                for (int64_t j = 0; j < n; j++) ahead += z[j] > z[i] || (z[j] == z[i] && j < i);
                bool in = false;
                for (int64_t j = 0; j < k; j++) in |= top[j].id == i && top[j].z == z[i];
                TT_CHECK_EQ(in, ahead < k);
            }
            for (int64_t j = 1; j < k; j++) TT_CHECK(top[j].id > top[j - 1].id);
        }
}

/* Against softmax of the logits themselves, at two temperatures. */
TT_CASE(rows_are_the_teachers_distribution) {
    for (int warm = 0; warm < 2; warm++) {
        tt_err err = {0};
        rig *r = rig_open(tt_test_ctx(2, NULL), tt_test_tmpdir(), "x");
        tt_runner *runner = runner_of(r);
        tt_teacher *t = NULL;
        tt_teacher_options o = OPTIONS;
        const int32_t *w[WINDOWS];
        int32_t top[(LENGTH - 1) * K];
        float logp[(LENGTH - 1) * K], rest[LENGTH - 1], H[LENGTH * TINY_D], z[TINY_V];
        o.temperature = warm ? 2 : 1;
        windows_of(r, w);
        TT_CHECK_OK(tt__teacher_open(r->ctx, &o, &r->job, runner, &t, &err));
        TT_CHECK_EQ(tt__teacher_rows(t, w[4], 1, top, logp, rest, &err), TT_FAIL);             /* not prepared */
        TT_CHECK_OK(tt__teacher_prepare(t, w, WINDOWS, &err));
        TT_CHECK_OK(tt__teacher_rows(t, w[4], 1, top, logp, rest, &err));
        TT_CHECK_OK(tt__run_hidden(runner, 1, LENGTH, w[4], H, &err));
        for (int row = 0; row < LENGTH - 1; row++) {
            TT_CHECK_OK(tt__run_logits(runner, H + row * TINY_D, 1, z, &err));
            double sum = 0, left = 1;
            for (int v = 0; v < TINY_V; v++) sum += exp((double)z[v] / o.temperature);
            for (int i = 0; i < K; i++) {
                double p = exp((double)z[top[row * K + i]] / o.temperature) / sum;
                left -= p;
                TT_CHECK_NEAR(exp((double)logp[row * K + i]), p, 6e-4 * p);
            }
            TT_CHECK_NEAR(exp((double)rest[row]), left, 6e-4);
        }
        tt__teacher_close(t);
        tt__runner_free(runner);
        rig_close(r);
    }
}

typedef struct count { tt_ctx *ctx; int calls; } count;
static void count_calls(void *user, const char *task, double done, double total, const char *unit, const char *note) {
    count *c = user;
    (void)done, (void)total, (void)unit, (void)note;
    c->ctx->progress_at = -1e9;
    c->calls += !strcmp(task, "teacher");
}

/* A second run asks for nothing that is known, whatever its order; a further one adds. */
TT_CASE(the_teacher_is_asked_once) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "x");
    tt_runner *runner = runner_of(r);
    count c = {r->ctx, 0};
    const int32_t *w[WINDOWS], *back[WINDOWS];
    windows_of(r, w);
    for (int i = 0; i < WINDOWS; i++) back[i] = w[WINDOWS - 1 - i];
    r->ctx->opt.progress = count_calls;
    r->ctx->opt.progress_user = &c;
    static const struct { int n; bool reversed; int batches; } runs[] = {{6, false, 2}, {6, false, 0}, {WINDOWS, true, 2}, {WINDOWS, false, 0}};
    for (int i = 0; i < 4; i++) {
        tt_teacher *t = NULL;
        c.calls = 0;
        TT_CHECK_OK(tt__teacher_open(r->ctx, &OPTIONS, &r->job, runner, &t, &err));
        TT_CHECK_OK(tt__teacher_prepare(t, runs[i].reversed ? back : w, (size_t)runs[i].n, &err));
        TT_CHECK_EQ(c.calls, runs[i].batches);
        tt__teacher_done(t);
        tt__teacher_close(t);
        TT_CHECK_EQ(tt_test_count_entries(r->cache), 1);
        TT_CHECK(!tt__exists(r->state) || tt_test_count_entries(r->state) == 0);
    }
    tt__runner_free(runner);
    rig_close(r);
}

/* The path of the only file of the cache. */
static char *cache_file(const rig *r) {
    char *path = NULL;
    DIR *d = opendir(r->cache);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' && !path) path = tt__path_join(r->cache, e->d_name);
    if (d) closedir(d);
    TT_CHECK(path != NULL);
    return path;
}

TT_CASE(stopped_anywhere_ends_with_the_same_file) {
    tt_err err = {0};
    const char *dir = tt_test_tmpdir();
    const int32_t *w[WINDOWS];
    char whole[600];
    rig *r = rig_open(tt_test_ctx(1, NULL), dir, "x");
    tt_runner *runner = runner_of(r);
    tt_teacher *t = NULL;
    windows_of(r, w);
    TT_CHECK_OK(tt__teacher_open(r->ctx, &OPTIONS, &r->job, runner, &t, &err));
    TT_CHECK_OK(tt__teacher_prepare(t, w, WINDOWS, &err));
    tt__teacher_close(t);
    char *path = cache_file(r);
    snprintf(whole, sizeof whole, "%s/whole", dir);
    TT_CHECK_EQ(rename(path, whole), 0);
    stopper s = {r->ctx, 0, 1};
    watch(&s);
    tt_status st = TT_INTERRUPTED;
    int stops = -1;
    for (; st == TT_INTERRUPTED; stops++) {                  /* each run asks for one batch */
        tt_ctx_cancel(r->ctx, TT_OK);
        s.calls = 0;
        TT_CHECK_OK(tt__teacher_open(r->ctx, &OPTIONS, &r->job, runner, &t, &err));
        st = tt__teacher_prepare(t, w, WINDOWS, &err);
        tt__teacher_close(t);
    }
    TT_CHECK_OK(st);
    TT_CHECK_EQ(stops, 3);                                   /* four batches of three windows */
    TT_CHECK(same_file(path, whole));
    TT_CHECK(!tt__exists(r->state) || tt_test_count_entries(r->state) == 0);
    tt__free(path);
    tt__runner_free(runner);
    rig_close(r);
}

TT_CASE(damaged_and_foreign_caches_are_refused) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "x");
    tt_runner *runner = runner_of(r);
    tt_teacher *t = NULL;
    const int32_t *w[WINDOWS];
    char *bytes = NULL;
    size_t n = 0;
    windows_of(r, w);
    TT_CHECK_OK(tt__teacher_open(r->ctx, &OPTIONS, &r->job, runner, &t, &err));
    TT_CHECK_OK(tt__teacher_prepare(t, w, WINDOWS, &err));
    tt__teacher_close(t);
    char *path = cache_file(r);
    TT_CHECK_OK(tt__read_file(path, 1 << 24, &bytes, &n, &err));
    bytes[n / 2] ^= 1;
    TT_CHECK_OK(tt__write_file(path, bytes, n, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__teacher_open(r->ctx, &OPTIONS, &r->job, runner, &t, &err));
    TT_CHECK(strstr(err.what, "damaged") != NULL && strstr(err.where, path) != NULL);

    tt_logits_writer *other = NULL;                          /* whole, but of another teacher */
    tt_logits_head head = {.vocab = TINY_V, .k = K, .length = LENGTH, .temperature = 1, .isa = "other"};
    TT_CHECK_OK(tt__logits_create(path, &head, &other, &err));
    TT_CHECK_OK(tt__logits_commit(other, &err));
    TT_CHECK_FAILS(TT_MISMATCH, tt__teacher_open(r->ctx, &OPTIONS, &r->job, runner, &t, &err));
    TT_CHECK(strstr(err.what, "another") != NULL);
    tt__free(bytes);
    tt__free(path);
    tt__runner_free(runner);
    rig_close(r);
}
