/* The thread pool.
 *
 *     caller                                     worker i
 *     fn, arg, total = job                       wait until `round` moves (spin, then park on it)
 *     left = total            (release)          t = left--         (acquire)    t <= 0: nothing for me, wait again
 *     round++, wake parked workers               fn(arg, total - t, i) …         until t <= 0
 *     deals tiles to itself like a worker        done += my tiles
 *     waits until done == total                  done == total: ended++, wake the caller
 *
 * Nobody waits for a worker that did not wake in time: whoever is awake takes the tiles, and only taken tiles are waited for. A worker
 * may read the job only after it has taken a tile. The run cannot end before that tile is done, so the job stands still under
 * it; one that comes late and takes a tile of the next run has taken it rightly, and then reads that run's job. No lock, no run
 * number, and nothing for a race detector to complain about.
 *
 * Between two matrix products lie a few microseconds of serial work, and waking a parked thread costs as many: so a worker spins
 * first. How long is learned: a spin that was rewarded doubles the next one, one in vain halves it, and where there are more
 * threads than usable cores nobody spins at all.
 */
#include "base/thread.h"

#include "base/err.h"
#include "base/fault.h"
#include "base/mem.h"
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_LEAST_NS = 2000, SPIN_MOST_NS = 64000, THREADS_MOST = 1024, LINE = 64 };

struct tt__pool {
    /* the job: written by the caller between runs, read by holders of a tile */
    tt__tile_fn fn;
    void *arg;
    int64_t total;
    _Alignas(LINE) atomic_int_least64_t left;
    _Alignas(LINE) atomic_int_least64_t done;
    _Alignas(LINE) atomic_uint round;      /* futex of parked workers */
    atomic_int parked;
    atomic_bool stop;
    _Alignas(LINE) atomic_uint ended;      /* futex of the parked caller */
    atomic_int caller_parked;
    int threads, started;
    bool may_spin;
    uint64_t caller_spin_ns;
    struct worker { tt__pool *pool; pthread_t thread; int index; } *workers;
};

/* The tile that this thread is inside of, if any: nested runs stay on the thread and keep its worker number and scratch. */
static _Thread_local struct { const tt__pool *pool; int worker; } inside;

static void futex_wait(atomic_uint *word, unsigned seen) { syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0); }
static void futex_wake(atomic_uint *word, int n) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0); }

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Spins until *word differs from `seen`, at most about *budget; true when it did. */
static bool spin_until_moved(atomic_uint *word, unsigned seen, uint64_t *budget) {
    uint64_t start = now_ns();
    do {
        for (int i = 0; i < 16; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != seen) {
                *budget = *budget * 2 > SPIN_MOST_NS ? SPIN_MOST_NS : *budget * 2;
                return true;
            }
            relax();
        }
    } while (now_ns() - start < *budget);
    *budget = *budget / 2 < SPIN_LEAST_NS ? SPIN_LEAST_NS : *budget / 2;
    return false;
}

/* ------------------------------------------------------------ workers ---- */

/* Takes tiles until none is left; tells the caller when the last tile of the run was among them. */
static void deal(tt__pool *pool, int worker) {
    int64_t mine = 0, total = 0, t;
    inside.pool = pool;
    inside.worker = worker;
    while ((t = atomic_fetch_sub_explicit(&pool->left, 1, memory_order_acquire)) > 0) {
        total = pool->total;
        pool->fn(pool->arg, total - t, worker);
        mine++;
    }
    inside.pool = NULL;
    if (mine == 0 || atomic_fetch_add_explicit(&pool->done, mine, memory_order_acq_rel) + mine != total || worker == 0) return;
    atomic_fetch_add(&pool->ended, 1);
    if (atomic_load(&pool->caller_parked)) futex_wake(&pool->ended, 1);
}

static void wait_for_round(tt__pool *pool, unsigned seen, uint64_t *spin_ns) {
    if (pool->may_spin && spin_until_moved(&pool->round, seen, spin_ns)) return;
    atomic_fetch_add(&pool->parked, 1);
    while (atomic_load(&pool->round) == seen) futex_wait(&pool->round, seen);
    atomic_fetch_sub(&pool->parked, 1);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    tt__pool *pool = w->pool;
    uint64_t spin_ns = SPIN_MOST_NS;
    unsigned seen = 0;
    for (;;) {
        wait_for_round(pool, seen, &spin_ns);
        seen = atomic_load(&pool->round);
        if (atomic_load(&pool->stop)) return NULL;
        deal(pool, w->index);
    }
}

/* ------------------------------------------------------------ the caller ---- */

static void wait_for_end(tt__pool *pool, int64_t total) {
    for (;;) {
        unsigned seen = atomic_load(&pool->ended);
        if (atomic_load_explicit(&pool->done, memory_order_acquire) == total) return;
        if (pool->may_spin && spin_until_moved(&pool->ended, seen, &pool->caller_spin_ns)) continue;
        atomic_store(&pool->caller_parked, 1);
        if (atomic_load(&pool->ended) == seen && atomic_load(&pool->done) != total) futex_wait(&pool->ended, seen);
        atomic_store(&pool->caller_parked, 0);
    }
}

static void run_here(int64_t tiles, tt__tile_fn fn, void *arg, int worker) {
    for (int64_t t = 0; t < tiles; t++) fn(arg, t, worker);
}

void tt__pool_run(tt__pool *pool, int64_t tiles, tt__tile_fn fn, void *arg) {
    if (tiles <= 0) return;
    if (inside.pool) {
        run_here(tiles, fn, arg, inside.pool == pool ? inside.worker : 0);
        return;
    }
    if (pool->threads == 1 || tiles == 1) {
        inside.pool = pool;
        inside.worker = 0;
        run_here(tiles, fn, arg, 0);
        inside.pool = NULL;
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->total = tiles;
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->left, tiles, memory_order_release);
    atomic_fetch_add(&pool->round, 1);
    int parked = atomic_load(&pool->parked);
    if (parked > 0) futex_wake(&pool->round, tiles - 1 < parked ? (int)(tiles - 1) : parked);
    deal(pool, 0);
    wait_for_end(pool, tiles);
}

int tt__pool_threads(const tt__pool *pool) { return pool->threads; }

void tt__pool_free(tt__pool *pool) {
    if (!pool) return;
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->round, 1);
    futex_wake(&pool->round, THREADS_MOST);
    for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    tt__free(pool->workers);
    tt__free(pool);
}

/* Signals belong to the program: workers block them all, so a handler runs on a thread that the program knows. */
static int start_worker(struct worker *w) {
    if (tt__fault(TT_FAULT_THREAD)) return EAGAIN;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return e;
}

tt_status tt__pool_create(int threads, tt__pool **out, tt_err *err) {
    *out = NULL;
    TT_FAIL_IF(threads < 1 || threads > THREADS_MOST, err, TT_USAGE, "bad number of threads|threads|%d|1 to %d", threads, THREADS_MOST);
    tt__pool *pool;
    TT_TRY(tt__new(&pool, 1, sizeof *pool, "the thread pool", err));
    pool->threads = threads;
    pool->may_spin = threads <= tt__cpus_usable();
    pool->caller_spin_ns = SPIN_MOST_NS;
    tt_status st = tt__new(&pool->workers, (size_t)threads, sizeof *pool->workers, "the thread pool", err);
    for (int i = 0; st == TT_OK && i < threads - 1; i++) {
        struct worker *w = &pool->workers[i];
        w->pool = pool;
        w->index = i + 1;
        int e = start_worker(w);
        if (e) st = tt__fail(err, TT_RESOURCE, "cannot start a thread|thread %d of %d|%s||use fewer threads", i + 2, threads, strerror(e));
        else pool->started++;
    }
    if (st != TT_OK) {
        tt__pool_free(pool);
        return st;
    }
    *out = pool;
    return TT_OK;
}

/* ------------------------------------------------------------ usable cores ---- */

/* First line of a small file of /proc or /sys; these are not outside data and pass no door. */
static bool read_line(const char *path, char *buf, size_t cap) {
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(buf, (int)cap, f);
    if (f) fclose(f);
    return ok;
}

static int quota_cpus(double quota, double period) {
    if (!(quota > 0) || !(period > 0)) return 0;
    double cpus = quota / period;
    int whole = (int)cpus;
    return cpus > whole || whole == 0 ? whole + 1 : whole;
}

/* The tightest limit of one group folder and all above it; 0: none. v2 says "max 100000" or "200000 100000" in cpu.max, v1 has two
 * files. Inside a container the folders of the path may be missing and the root itself carry the limit: missing files are skipped. */
static int group_cpus(const char *root, const char *group, bool v2) {
    char dir[1024], path[2304], line[128], line2[128];
    int least = 0;
    if ((size_t)snprintf(dir, sizeof dir, "%s", group) >= sizeof dir) return 0;
    for (;;) {
        int here = 0;
        if (v2) {
            double quota, period;
            char *end;
            snprintf(path, sizeof path, "%s%s/cpu.max", root, dir);
            if (read_line(path, line, sizeof line)) {
                quota = strtod(line, &end);
                period = strtod(end, NULL);
                here = quota_cpus(quota, period);
            }
        } else {
            snprintf(path, sizeof path, "%s%s/cpu.cfs_quota_us", root, dir);
            bool ok = read_line(path, line, sizeof line);
            snprintf(path, sizeof path, "%s%s/cpu.cfs_period_us", root, dir);
            if (ok && read_line(path, line2, sizeof line2)) here = quota_cpus(strtod(line, NULL), strtod(line2, NULL));
        }
        if (here && (!least || here < least)) least = here;
        char *slash = strrchr(dir, '/');
        if (!slash) return least;
        *slash = 0;
    }
}

/* Lines of /proc/self/cgroup: "0::/path" (v2), "4:cpu,cpuacct:/path" (v1). */
int tt__cgroup_cpus(const char *proc_cgroup, const char *sys_root) {
    FILE *f = fopen(proc_cgroup, "re");
    char line[1024], root[1100];
    int least = 0;
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        names++;
        bool v2 = names[0] == 0, cpu = false;
        char *rest = NULL;
        char copy[256];
        snprintf(copy, sizeof copy, "%s", names);
        for (char *n = strtok_r(copy, ",", &rest); n; n = strtok_r(NULL, ",", &rest)) cpu |= strcmp(n, "cpu") == 0;
        if (!v2 && !cpu) continue;
        snprintf(root, sizeof root, v2 ? "%s" : "%s/cpu", sys_root);
        if (strcmp(group, "/") == 0) group[0] = 0;
        int here = group_cpus(root, group, v2);
        if (here && (!least || here < least)) least = here;
    }
    if (f) fclose(f);
    return least;
}

static int affinity_cpus(void) {
    for (int most = 1024; most <= 1 << 20; most *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)most);
        size_t bytes = CPU_ALLOC_SIZE((size_t)most);
        if (!set) return 1;
        bool ok = sched_getaffinity(0, bytes, set) == 0;
        int n = ok ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (ok) return n;
        if (errno != EINVAL) return 1;
    }
    return 1;
}

int tt__cpus_usable(void) {
    int n = affinity_cpus(), quota = tt__cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    if (quota && quota < n) n = quota;
    return n < 1 ? 1 : n;
}
