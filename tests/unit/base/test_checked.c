/* Checked arithmetic at its edges: every line of checked.h in both directions. */
#include "base/checked.h"
#include "harness/tt_test.h"

static const uint64_t EDGES[] = {0, 1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 1u << 16, UINT32_MAX, (uint64_t)UINT32_MAX + 1, INT64_MAX - 1, INT64_MAX,
                                 (uint64_t)INT64_MAX + 1, UINT64_MAX - 31, UINT64_MAX - 15, UINT64_MAX - 2, UINT64_MAX - 1, UINT64_MAX};
enum { N = sizeof EDGES / sizeof *EDGES };
__extension__ typedef unsigned __int128 u128;

TT_CASE(products_and_sums_agree_with_128_bits) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            uint64_t a = EDGES[i], b = EDGES[j], out = 12345;
            u128 product = (u128)a * b, sum = (u128)a + b;
            bool fits = product <= UINT64_MAX;
            TT_CHECK_EQ(tt__mul_u64(a, b, &out), fits);
            TT_CHECK_EQ(out, fits ? (uint64_t)product : 12345u);
            out = 12345;
            fits = sum <= UINT64_MAX;
            TT_CHECK_EQ(tt__add_u64(a, b, &out), fits);
            TT_CHECK_EQ(out, fits ? (uint64_t)sum : 12345u);
        }
}

TT_CASE(rounding_up_never_wraps) {
    for (int i = 0; i < N; i++)
        for (uint64_t align = 1; align; align <<= 1) {
            uint64_t out = 12345;
            u128 up = ((u128)EDGES[i] + align - 1) / align * align;
            bool fits = (u128)EDGES[i] + align - 1 <= UINT64_MAX;
            TT_CHECK_EQ(tt__align_up_u64(EDGES[i], align, &out), fits);
            TT_CHECK_EQ(out, fits ? (uint64_t)up : 12345u);
        }
    uint64_t out = 1;
    TT_CHECK(!tt__align_up_u64(5, 0, &out) && !tt__align_up_u64(5, 3, &out) && !tt__align_up_u64(5, 48, &out));
    const uint64_t named[] = {1, 3, 16, 31};               /* 2^64 minus these made the checks of others pass */
    for (int i = 0; i < 4; i++) TT_CHECK(!tt__align_up_u64(0 - named[i], 32, &out));
    TT_CHECK(tt__align_up_u64(0 - (uint64_t)32, 32, &out) && out == UINT64_MAX - 31);
}

TT_CASE(narrowing) {
    size_t s = 1;
    int64_t v = 1;
    TT_CHECK(tt__to_size(UINT32_MAX, &s) && s == UINT32_MAX);
    TT_CHECK(tt__to_i64(INT64_MAX, &v) && v == INT64_MAX);
    TT_CHECK(!tt__to_i64((uint64_t)INT64_MAX + 1, &v) && v == INT64_MAX);
    TT_CHECK_EQ(tt__array_bytes(3, 5), 15u);
    TT_CHECK_EQ(tt__array_bytes(SIZE_MAX, 2), SIZE_MAX);
}
