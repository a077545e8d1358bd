/* What a parallel region costs: an empty one, and one of work that splits evenly beside the same work on one thread. One JSON line.
 *   region [THREADS]
 * Reads the pool's own header: a region is nothing that the public one shows. */
#define _GNU_SOURCE
#include "../src/base/thread.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nothing(void *arg, int64_t tile, int worker) { (void)arg, (void)tile, (void)worker; }

/* Dependent multiplications: as long on every core, and no memory. */
static void work(void *arg, int64_t tile, int worker) {
    double x = 1.0 + (double)tile;
    (void)worker;
    for (int i = 0; i < 400; i++) x = x * 0.999 + 0.001;
    ((volatile double *)arg)[8 * tile] = x;
}

/* Nanoseconds of a region, the best of 20 batches of 1000. */
static double region(tt__pool *pool, int64_t tiles, tt__tile_fn fn, void *arg) {
    double best = 1e9;
    for (int batch = 0; batch < 20; batch++) {
        double start = now();
        for (int i = 0; i < 1000; i++) tt__pool_run(pool, tiles, fn, arg);
        double ns = (now() - start) * 1e6;
        if (ns < best) best = ns;
    }
    return best;
}

int main(int argc, char **argv) {
    enum { TILES = 32 };
    static double out[8 * TILES];
    int threads = argc > 1 ? atoi(argv[1]) : tt__cpus_usable();
    tt__pool *pool, *one;
    tt_err err;
    if (tt__pool_create(threads, &pool, &err) || tt__pool_create(1, &one, &err)) return fprintf(stderr, "region: bad number of threads\n"), 2;
    double empty = region(pool, threads, nothing, NULL), empty_one = region(one, threads, nothing, NULL);
    double shared = region(pool, TILES, work, out), alone = region(one, TILES, work, out);
    printf("{\"threads\":%d,\"usable\":%d,\"empty_ns\":%.0f,\"empty_one_thread_ns\":%.0f,\"work_ns\":%.0f,\"work_one_thread_ns\":%.0f,\"lost_ns\":%.0f}\n", threads,
           tt__cpus_usable(), empty, empty_one, shared, alone, shared - alone / threads);
    tt__pool_free(pool);
    tt__pool_free(one);
    return 0;
}
