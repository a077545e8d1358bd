/* Buffers that end where an unmapped page begins, so that reading or writing one byte too far is a crash; freed all at once. And
 * the random numbers of these tests. */
#ifndef TT_TEST_KERNELS_GUARD_H
#define TT_TEST_KERNELS_GUARD_H
#include "base/util.h"
#include "harness/tt_test.h"
#include "kernels/kernels.h"
#include <sys/mman.h>

static struct { void *base; size_t bytes; } guarded[512];
static int guarded_count;
static tt__rng rng;

static inline void *guard(size_t bytes) {
    const size_t page = 4096, whole = (bytes + page - 1) / page * page;
    TT_CHECK(guarded_count < 512);
    char *p = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TT_CHECK(p != MAP_FAILED && mprotect(p + whole, page, PROT_NONE) == 0);
    guarded[guarded_count].base = p;
    guarded[guarded_count++].bytes = whole + page;
    return p + whole - bytes;
}

static inline void release_all(void) {
    while (guarded_count > 0) {
        guarded_count--;
        munmap(guarded[guarded_count].base, guarded[guarded_count].bytes);
    }
}

static inline float uniform(void) { return (float)(2.0 * tt__rng_unit(&rng) - 1.0); }

static inline float *random_floats(size_t n, float scale) {
    float *x = guard(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = scale * uniform();
    return x;
}

static inline void fill_nan(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = NAN;
}

static inline const tt_kernels *level(const char *isa) {
    const tt_kernels *k = NULL;
    tt_err err = {0};
    TT_CHECK_OK(tt__kernels_get(isa, &k, &err));
    return k;
}

/* All levels above the reference. */
#define FOR_EACH_LEVEL(k) \
    for (const char *const *name_ = tt__kernels_levels(); *name_; name_++) \
        for (const tt_kernels *k = level(*name_); k; k = NULL)
#endif
