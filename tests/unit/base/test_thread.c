/* The pool: every tile once, at any number of threads, nested, repeated, idle; quotas of control groups. */
#include "harness/tt_test.h"

#include "base/file.h"
#include "base/util.h"
#include <stdio.h>
#include <unistd.h>

typedef struct job { atomic_int *hits; atomic_int bad_worker; int threads; tt__pool *pool; atomic_long sum; } job;

static void hit(void *arg, int64_t tile, int worker) {
    job *j = arg;
    if (worker < 0 || worker >= j->threads) atomic_store(&j->bad_worker, 1);
    atomic_fetch_add_explicit(&j->hits[tile], 1, memory_order_relaxed);
}

TT_CASE(every_tile_runs_once) {
    enum { MOST = 3000 };
    atomic_int *hits = tt__calloc(MOST, sizeof *hits);
    tt_err err = {0};
    for (int threads = 1; threads <= 8; threads++) {
        tt__pool *pool = NULL;
        TT_CHECK_OK(tt__pool_create(threads, &pool, &err));
        tt__pool_at_once(pool, threads);
        TT_CHECK_EQ(tt__pool_threads(pool), threads);
        const int64_t sizes[] = {0, 1, 2, 3, 7, 8, 64, MOST, -5};
        for (int rep = 0; rep < 20; rep++)
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                memset(hits, 0, MOST * sizeof *hits);
                job j = {.hits = hits, .threads = threads};
                tt__pool_run(pool, sizes[s], hit, &j);
                for (int64_t t = 0; t < MOST; t++) TT_CHECK_EQ(atomic_load(&hits[t]), t < sizes[s]);
                TT_CHECK_EQ(atomic_load(&j.bad_worker), 0);
            }
        tt__pool_free(pool);
    }
    tt__free(hits);
    tt__pool_free(NULL);
}

/* Plain, unlocked data: the pool itself must order what tiles write before what the caller reads, run after run. */
static void add_one(void *arg, int64_t tile, int worker) {
    (void)worker;
    ((int64_t *)arg)[tile] += tile;
}

TT_CASE(runs_order_plain_memory) {
    tt_err err = {0};
    for (int threads = 2; threads <= 6; threads += 2) {
        tt__pool *pool = NULL;
        int64_t data[16] = {0};
        TT_CHECK_OK(tt__pool_create(threads, &pool, &err));
        tt__pool_at_once(pool, threads);
        for (int run = 1; run <= 2000; run++) {
            tt__pool_run(pool, 1 + run % 16, add_one, data);
            if (run % 500 == 0) usleep(2000);              /* long enough for the workers to park */
            TT_CHECK(data[0] == 0);
        }
        int64_t sum = 0;
        for (int i = 0; i < 16; i++) sum += data[i];
        int64_t expected = 0;
        for (int run = 1; run <= 2000; run++)
            for (int t = 0; t < 1 + run % 16; t++) expected += t;
        TT_CHECK_EQ(sum, expected);
        tt__pool_free(pool);
    }
}

static void inner(void *arg, int64_t tile, int worker) {
    job *j = arg;
    if (worker < 0 || worker >= j->threads) atomic_store(&j->bad_worker, 1);
    atomic_fetch_add(&j->sum, tile);
}

static void outer(void *arg, int64_t tile, int worker) {
    (void)tile;
    (void)worker;
    job *j = arg;
    tt__pool_run(j->pool, 10, inner, j);
}

TT_CASE(nested_runs_stay_on_the_spot) {
    tt_err err = {0};
    for (int threads = 1; threads <= 4; threads++) {
        tt__pool *pool = NULL;
        TT_CHECK_OK(tt__pool_create(threads, &pool, &err));
        tt__pool_at_once(pool, threads);
        job j = {.pool = pool, .threads = threads};
        tt__pool_run(pool, 50, outer, &j);
        TT_CHECK_EQ(atomic_load(&j.sum), 50 * 45);
        TT_CHECK_EQ(atomic_load(&j.bad_worker), 0);
        tt__pool_run(pool, 50, inner, &j);                 /* and afterwards it is a pool again */
        TT_CHECK_EQ(atomic_load(&j.sum), 50 * 45 + 1225);
        tt__pool_free(pool);
    }
}

static void slow(void *arg, int64_t tile, int worker) {
    (void)worker;
    usleep(tile == 0 ? 20000 : 100);
    atomic_fetch_add((atomic_int *)arg, 1);
}

TT_CASE(the_caller_waits_for_slow_tiles) {
    tt_err err = {0};
    tt__pool *pool = NULL;
    atomic_int n = 0;
    TT_CHECK_OK(tt__pool_create(3, &pool, &err));
    tt__pool_at_once(pool, 3);
    for (int i = 1; i <= 10; i++) {
        tt__pool_run(pool, 4, slow, &n);
        TT_CHECK_EQ(atomic_load(&n), 4 * i);
    }
    tt__pool_free(pool);
}

/* A tile that takes its worker's core away for long: the run waits for it, later ones go on without that worker and lose no tile. */
typedef struct stall { atomic_int hits[64]; int64_t at; } stall;

static void stalling(void *arg, int64_t tile, int worker) {
    stall *s = arg;
    if (tile == s->at && worker) usleep(3000);
    atomic_fetch_add(&s->hits[tile], 1);
}

TT_CASE(runs_go_on_without_a_worker_that_stalls) {
    tt_err err = {0};
    for (int threads = 2; threads <= 5; threads++) {
        tt__pool *pool = NULL;
        stall s = {.at = 63};
        TT_CHECK_OK(tt__pool_create(threads, &pool, &err));
        tt__pool_at_once(pool, threads);
        for (int run = 1; run <= 300; run++) {
            tt__pool_run(pool, 64, stalling, &s);
            for (int t = 0; t < 64; t++) TT_CHECK_EQ(atomic_load(&s.hits[t]), run);
        }
        tt__pool_free(pool);
    }
}

TT_CASE(more_threads_than_cores) {
    enum { THREADS = 64 };
    tt_err err = {0};
    tt__pool *pool = NULL;
    int64_t data[200] = {0};
    TT_CHECK_OK(tt__pool_create(THREADS, &pool, &err));
    for (int most = 1; most <= 2 * THREADS; most *= 2) {
        tt__pool_at_once(pool, most);
        for (int run = 0; run < 50; run++) tt__pool_run(pool, 200, add_one, data);
    }
    for (int64_t t = 0; t < 200; t++) TT_CHECK_EQ(data[t], 8 * 50 * t);
    tt__pool_free(pool);
}

static tt_status create_body(void *arg, tt_err *err) {
    (void)arg;
    tt__pool *pool = NULL;
    tt_status st = tt__pool_create(4, &pool, err);
    tt__pool_free(pool);
    return st;
}

TT_CASE(creation_fails_cleanly) {
    tt_err err = {0};
    tt__pool *pool = NULL;
    TT_CHECK_FAILS(TT_USAGE, tt__pool_create(0, &pool, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__pool_create(100000, &pool, &err));
    TT_CHECK_EQ(tt_test_fault_loop(TT_FAULT_THREAD, TT_FAULT_ONCE, create_body, NULL), 4u);
    TT_CHECK_EQ(tt_test_fault_loop(TT_FAULT_THREAD, TT_FAULT_ON, create_body, NULL), 4u);
    TT_CHECK_EQ(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, create_body, NULL), 6u);
}

static int quota(const char *groups, const char *folder, const char *file, const char *text, const char *file2, const char *text2) {
    tt_err err = {0};
    const char *root = tt_test_path("sys"), *list = tt_test_file("cgroup", groups, strlen(groups));
    char *dir = tt__path_join(root, folder), *path = tt__path_join(dir, file);
    TT_CHECK_OK(tt__mkdirs(dir, &err));
    TT_CHECK_OK(tt__write_file(path, text, strlen(text), &err));
    tt__free(path);
    if (file2) {
        path = tt__path_join(dir, file2);
        TT_CHECK_OK(tt__write_file(path, text2, strlen(text2), &err));
        tt__free(path);
    }
    tt__free(dir);
    int n = tt__cgroup_cpus(list, root);
    TT_CHECK_OK(tt__remove_tree(root, &err));
    return n;
}

TT_CASE(control_group_quotas) {
    TT_CHECK_EQ(quota("0::/a/b\n", "a/b", "cpu.max", "150000 100000\n", NULL, NULL), 2);
    TT_CHECK_EQ(quota("0::/a/b\n", "a", "cpu.max", "100000 100000\n", NULL, NULL), 1);      /* set on a group above */
    TT_CHECK_EQ(quota("0::/\n", "", "cpu.max", "50000 100000\n", NULL, NULL), 1);
    TT_CHECK_EQ(quota("0::/gone\n", "", "cpu.max", "400000 100000\n", NULL, NULL), 4);      /* inside a container */
    TT_CHECK_EQ(quota("0::/a\n", "a", "cpu.max", "max 100000\n", NULL, NULL), 0);
    TT_CHECK_EQ(quota("0::/a\n", "a", "cpu.max", "", NULL, NULL), 0);
    TT_CHECK_EQ(quota("4:memory:/m\n5:cpu,cpuacct:/a\n", "cpu/a", "cpu.cfs_quota_us", "300000\n", "cpu.cfs_period_us", "100000\n"), 3);
    TT_CHECK_EQ(quota("5:cpuset:/a\n", "cpu/a", "cpu.cfs_quota_us", "300000\n", "cpu.cfs_period_us", "100000\n"), 0);
    TT_CHECK_EQ(quota("5:cpu:/a\n", "cpu/a", "cpu.cfs_quota_us", "-1\n", "cpu.cfs_period_us", "100000\n"), 0);
    TT_CHECK_EQ(tt__cgroup_cpus("/nonexistent", "/nonexistent"), 0);
    TT_CHECK(tt__cpus_usable() >= 1 && tt__cpus_usable() <= sysconf(_SC_NPROCESSORS_CONF));
}
