/* Memory: alignment, accounting, overflow, failure, arenas. */
#include "harness/tt_test.h"

#include "base/util.h"

TT_CASE(blocks_are_aligned_and_counted) {
    uint64_t before = tt__mem_now();
    for (size_t n = 0; n < 3000; n += 37) {
        void *p = tt__alloc(n);
        TT_CHECK(p && (uintptr_t)p % 64 == 0);
        memset(p, 0xa5, n);
        TT_CHECK(tt__mem_now() >= before + n);
        tt__free(p);
    }
    TT_CHECK_EQ(tt__mem_now(), before);
    tt__free(NULL);
    tt_free(NULL);
}

TT_CASE(calloc_is_zeroed_and_checks_its_product) {
    unsigned char *p = tt__calloc(1000, 3);
    TT_CHECK(p);
    for (int i = 0; i < 3000; i++) TT_CHECK_EQ(p[i], 0);
    tt__free(p);
    TT_CHECK(!tt__calloc(SIZE_MAX / 2, 3));
    TT_CHECK(!tt__alloc(SIZE_MAX));
    TT_CHECK(!tt__strndup("x", SIZE_MAX));
}

TT_CASE(realloc_keeps_the_bytes_and_the_old_block_on_failure) {
    char *p = tt__strdup("trim and tab");
    p = tt__realloc(p, 100000);
    TT_CHECK_STR(p, "trim and tab");
    TT_CHECK((uintptr_t)p % 64 == 0);
    tt__fault_set(TT_FAULT_ALLOC, 1, TT_FAULT_ONCE);
    TT_CHECK(!tt__realloc(p, 200000));
    TT_CHECK_STR(p, "trim and tab");
    p = tt__realloc(p, 5);
    TT_CHECK(memcmp(p, "trim ", 5) == 0);
    tt__free(p);
}

TT_CASE(peak_follows_and_resets) {
    tt__mem_reset_peak();
    uint64_t base = tt__mem_peak();
    void *p = tt__alloc(1 << 20);
    tt__free(p);
    TT_CHECK(tt__mem_peak() >= base + (1 << 20));
    tt__mem_reset_peak();
    TT_CHECK(tt__mem_peak() < base + (1 << 20));
}

TT_CASE(new_reports_what_for) {
    tt_err err = {0};
    int *p = (int *)1;
    TT_CHECK_FAILS(TT_RESOURCE, tt__new(&p, SIZE_MAX, 8, "the tables", &err));
    TT_CHECK(!p && strstr(err.where, "the tables"));
    TT_CHECK_OK(tt__new(&p, 4, sizeof *p, "the tables", &err));
    TT_CHECK_EQ(p[3], 0);
    tt__free(p);
}

TT_CASE(arena_gives_many_disjoint_zeroed_objects) {
    tt__arena a = {0};
    uint64_t before = tt__mem_now();
    tt__rng r;
    tt__rng_seed(&r, 3);
    enum { N = 2000 };
    unsigned char *p[N];
    size_t size[N];
    for (int i = 0; i < N; i++) {
        size[i] = (size_t)tt__rng_below(&r, i % 100 == 0 ? 50000 : 60);
        p[i] = tt__arena_alloc(&a, size[i]);
        TT_CHECK(p[i] && (uintptr_t)p[i] % 16 == 0);
        for (size_t j = 0; j < size[i]; j++) TT_CHECK_EQ(p[i][j], 0);
        memset(p[i], i & 255, size[i]);
    }
    for (int i = 0; i < N; i++)
        for (size_t j = 0; j < size[i]; j++) TT_CHECK_EQ(p[i][j], (i & 255));
    TT_CHECK_STR(tt__arena_strndup(&a, "abcdef", 3), "abc");
    TT_CHECK(!tt__arena_alloc(&a, SIZE_MAX));
    tt__arena_free(&a);
    TT_CHECK(!a.head && tt__mem_now() == before);
    tt__fault_set(TT_FAULT_ALLOC, 1, TT_FAULT_ON);
    TT_CHECK(!tt__arena_alloc(&a, 8) && !tt__arena_strndup(&a, "x", 1));
}
