/* The thread pool.
 *
 *     caller                                      worker i
 *     cuts the tiles into one range per worker    waits until its `bell` moves (spins, then parks on it)
 *     slot[i]: fn, arg, end; left = n (release)   t = slot[i].left--  (acquire)     t <= 0: the range is taken
 *     bells, wakes those that parked              fn(arg, end - t, i) …
 *     works off its own range, then the rest      works off what is left of the other ranges
 *     waits until done == what others took        done += my tiles, wakes the caller if it parked
 *
 * A range is a stretch of neighbouring tiles, so a worker reads its weights front to back, and taking a tile costs an atomic on a line
 * that nobody else touches. Nobody waits for a worker that did not wake in time: whoever is awake takes its tiles, and only taken tiles
 * are waited for. A slot may be read only after a tile was taken from it. The run cannot end before that tile is done, so the slot
 * stands still under it; one that comes late and takes a tile of the next run has taken it rightly, and then reads that run's job. No
 * lock, no run number, and nothing for a race detector to complain about.
 *
 * Between two matrix products lie a few microseconds of serial work, and waking a parked thread costs as many: so a worker spins
 * first. How long is learned: a spin that was rewarded doubles the next one, one in vain halves it. Of more threads than usable cores
 * only as many as there are cores take part: the others sleep (4 threads on 2 cores ran at half the speed of 2).
 *
 * A busy neighbour takes the core from a worker in the middle of a tile, for milliseconds, and the run stands still. A worker that did
 * that gets no ranges for a while: twice as long each time, half as long once it has kept its core for 20 ms, longer than a time slice.
 */
#include "base/thread.h"

#include "base/err.h"
#include "base/fault.h"
#include "base/mem.h"
#include <assert.h>
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
enum { STALL_NS = 300000, REST_LEAST_NS = 1000000, REST_MOST_NS = 32000000, GOOD_NS = 20000000 };

/* What a worker looks at: one line of its own. The job is written by the caller between runs and read by holders of a tile. */
typedef struct slot {
    _Alignas(LINE) atomic_int_least64_t left;      /* tiles of the range that nobody took: end - left … end - 1 */
    int64_t end;
    tt__tile_fn fn;
    void *arg;
    atomic_uint bell;                              /* futex of the parked worker */
    atomic_bool parked, inside;
} slot;

/* Of a worker, for the caller's eyes only. */
typedef struct trust { uint64_t rest_until, rest_ns, good_since; } trust;

struct tt__pool {
    slot *slots;                                   /* [threads]; 0: the caller */
    trust *trust;                                  /* [threads] */
    int *taking;                                   /* [threads] workers that have a range in this run */
    int threads, started;
    int at_once;                                   /* that take part in a run, the caller included */
    atomic_bool may_spin;
    uint64_t caller_spin_ns;
    struct worker { tt__pool *pool; pthread_t thread; int index; } *workers;
    _Alignas(LINE) atomic_uint done;               /* tiles that workers finished in this run; futex of the parked caller */
    _Alignas(LINE) atomic_int parked;              /* workers that are, or are about to */
    atomic_bool caller_parked, stop;
};

/* The tile that this thread is inside of, if any: nested runs stay on the thread and keep its worker number and scratch. */
static _Thread_local struct { const tt__pool *pool; int worker; } inside;

static void futex_wait(atomic_uint *word, unsigned seen) { syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0); }
static void futex_wait_ns(atomic_uint *word, unsigned seen, long ns) {
    const struct timespec most = {0, ns};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, &most, NULL, 0);
}
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

/* Tiles from one slot until it is empty; returns how many. */
static int64_t take_from(slot *s, int worker) {
    int64_t n = 0, t;
    if (atomic_load_explicit(&s->left, memory_order_relaxed) <= 0) return 0;
    while ((t = atomic_fetch_sub_explicit(&s->left, 1, memory_order_acquire)) > 0) {
        s->fn(s->arg, s->end - t, worker);
        n++;
    }
    return n;
}

/* The own range, then what is left of the others. */
static int64_t work_off(tt__pool *pool, int worker) {
    int64_t mine = 0;
    inside.pool = pool;
    inside.worker = worker;
    for (int i = 0; i < pool->threads; i++) {
        const int at = worker + i < pool->threads ? worker + i : worker + i - pool->threads;
        mine += take_from(&pool->slots[at], worker);
    }
    inside.pool = NULL;
    return mine;
}

static void wait_for_bell(tt__pool *pool, slot *s, unsigned seen, uint64_t *spin_ns) {
    if (atomic_load_explicit(&pool->may_spin, memory_order_relaxed) && spin_until_moved(&s->bell, seen, spin_ns)) return;
    atomic_store(&s->parked, true);
    atomic_fetch_add(&pool->parked, 1);
    while (atomic_load(&s->bell) == seen) futex_wait(&s->bell, seen);
    atomic_fetch_sub(&pool->parked, 1);
    atomic_store(&s->parked, false);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    tt__pool *pool = w->pool;
    slot *s = &pool->slots[w->index];
    uint64_t spin_ns = SPIN_MOST_NS;
    unsigned seen = 0;
    for (;;) {
        wait_for_bell(pool, s, seen, &spin_ns);
        seen = atomic_load(&s->bell);
        if (atomic_load(&pool->stop)) return NULL;
        atomic_store_explicit(&s->inside, true, memory_order_relaxed);
        const int64_t mine = work_off(pool, w->index);
        atomic_store_explicit(&s->inside, false, memory_order_relaxed);
        if (mine == 0) continue;
        atomic_fetch_add(&pool->done, (unsigned)mine);
        if (atomic_load(&pool->caller_parked)) futex_wake(&pool->done, 1);
    }
}

/* ------------------------------------------------------------ the caller ---- */

/* Who gets a range: the caller, and workers that do not rest, at most one for each tile. Returns their number. */
static int choose_workers(tt__pool *pool, int64_t tiles, uint64_t now) {
    int n = 0;
    pool->taking[n++] = 0;
    for (int i = 1; i < pool->threads && n < tiles && n < pool->at_once; i++)
        if (pool->trust[i].rest_until <= now) pool->taking[n++] = i;
    return n;
}

static void hand_out(tt__pool *pool, int n, int64_t tiles, tt__tile_fn fn, void *arg) {
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    for (int i = n - 1; i >= 0; i--) {
        const int64_t first = tiles * i / n, end = tiles * (i + 1) / n;
        slot *s = &pool->slots[pool->taking[i]];
        s->fn = fn;
        s->arg = arg;
        s->end = end;
        atomic_store_explicit(&s->left, end - first, memory_order_release);
        if (i) atomic_store_explicit(&s->bell, atomic_load_explicit(&s->bell, memory_order_relaxed) + 1, memory_order_release);
    }
    atomic_thread_fence(memory_order_seq_cst);     /* a worker that is not seen parked below sees its bell before it parks */
    if (atomic_load(&pool->parked) == 0) return;
    for (int i = 1; i < n; i++)
        if (atomic_load(&pool->slots[pool->taking[i]].parked)) futex_wake(&pool->slots[pool->taking[i]].bell, 1);
}

/* Whoever is inside a tile long after everybody else was done has lost its core. */
static void lose_trust(tt__pool *pool, uint64_t now) {
    for (int i = 1; i < pool->threads; i++) {
        trust *t = &pool->trust[i];
        if (!atomic_load_explicit(&pool->slots[i].inside, memory_order_relaxed) || t->rest_until > now) continue;
        t->rest_ns = t->rest_ns * 2 > REST_MOST_NS ? REST_MOST_NS : t->rest_ns * 2;
        t->rest_until = now + t->rest_ns;
        t->good_since = t->rest_until;
    }
}

static void gain_trust(tt__pool *pool, int n, uint64_t now) {
    for (int i = 1; i < n; i++) {
        trust *t = &pool->trust[pool->taking[i]];
        if (t->rest_ns == REST_LEAST_NS / 2 || now < t->good_since + GOOD_NS) continue;
        t->rest_ns /= 2;
        t->good_since = now;
    }
}

/* Waits until the workers have finished `theirs` tiles. The run started at `start`. */
static void wait_for_end(tt__pool *pool, int64_t theirs, uint64_t start, int n) {
    const unsigned target = (unsigned)theirs;
    unsigned seen = atomic_load_explicit(&pool->done, memory_order_acquire);
    bool stalled = false;
    uint64_t from = 0;
    while (seen != target) {
        const bool moved = atomic_load_explicit(&pool->may_spin, memory_order_relaxed) && spin_until_moved(&pool->done, seen, &pool->caller_spin_ns);
        if (!moved) {
            const uint64_t now = now_ns();
            if (!from) from = now;
            if (!stalled && now - from > STALL_NS && now - from > 2 * (from - start)) lose_trust(pool, now), stalled = true;
            atomic_store(&pool->caller_parked, true);
            if (atomic_load(&pool->done) == seen) futex_wait_ns(&pool->done, seen, STALL_NS);
            atomic_store(&pool->caller_parked, false);
        }
        seen = atomic_load_explicit(&pool->done, memory_order_acquire);
    }
    if (!stalled) gain_trust(pool, n, start);
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
    const uint64_t start = now_ns();
    const int n = choose_workers(pool, tiles, start);
    assert(tiles <= UINT32_MAX);
    hand_out(pool, n, tiles, fn, arg);
    const int64_t mine = work_off(pool, 0);
    if (mine < tiles) wait_for_end(pool, tiles - mine, start, n);
}

void tt__pool_at_once(tt__pool *pool, int most) {
    pool->at_once = most < pool->threads ? most : pool->threads;
    atomic_store_explicit(&pool->may_spin, pool->at_once <= tt__cpus_usable(), memory_order_relaxed);
}

int tt__pool_threads(const tt__pool *pool) { return pool->threads; }

void tt__pool_free(tt__pool *pool) {
    if (!pool) return;
    atomic_store(&pool->stop, true);
    for (int i = 1; i <= pool->started; i++) {
        atomic_fetch_add(&pool->slots[i].bell, 1);
        futex_wake(&pool->slots[i].bell, 1);
    }
    for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    tt__free(pool->workers);
    tt__free(pool->slots);
    tt__free(pool->trust);
    tt__free(pool->taking);
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
    tt__pool_at_once(pool, tt__cpus_usable());
    pool->caller_spin_ns = SPIN_MOST_NS;
    tt_status st;
    TT_TRY_GOTO(tt__new(&pool->slots, (size_t)threads, sizeof *pool->slots, "the thread pool", err));
    TT_TRY_GOTO(tt__new(&pool->trust, (size_t)threads, sizeof *pool->trust, "the thread pool", err));
    TT_TRY_GOTO(tt__new(&pool->taking, (size_t)threads, sizeof *pool->taking, "the thread pool", err));
    TT_TRY_GOTO(tt__new(&pool->workers, (size_t)threads, sizeof *pool->workers, "the thread pool", err));
    for (int i = 0; i < threads; i++) pool->trust[i].rest_ns = REST_LEAST_NS / 2;
    for (int i = 0; st == TT_OK && i < threads - 1; i++) {
        struct worker *w = &pool->workers[i];
        w->pool = pool;
        w->index = i + 1;
        int e = start_worker(w);
        if (e) st = tt__fail(err, TT_RESOURCE, "cannot start a thread|thread %d of %d|%s||use fewer threads", i + 2, threads, strerror(e));
        else pool->started++;
    }
done:
    if (st != TT_OK) tt__pool_free(pool);
    else *out = pool;
    return st;
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
