/* The choice of types under a size: equal to trying everything. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "engine/knapsack.h"

enum { GROUPS = 6, MOST = 5 };

typedef struct problem { size_t n, first[GROUPS + 1]; tt_option o[GROUPS * MOST]; } problem;

static problem random_problem(tt__rng *r, int kind) {
    problem p = {.n = 1 + tt__rng_below(r, GROUPS)};
    for (size_t g = 0; g < p.n; g++) {
        size_t options = 1 + tt__rng_below(r, MOST);
        p.first[g + 1] = p.first[g] + options;
        for (size_t i = p.first[g]; i < p.first[g + 1]; i++) {
            p.o[i].bytes = kind == 0 ? 1 + tt__rng_below(r, 8) : 1000 + tt__rng_below(r, 100000);
            p.o[i].loss = kind == 2 ? 1.0 / (double)p.o[i].bytes : kind == 0 ? (double)tt__rng_below(r, 6) : tt__rng_unit(r);
        }
    }
    return p;
}

/* Textbook: all choices. */
static double exhaustive(const problem *p, size_t g, uint64_t bytes, double loss, uint64_t limit) {
    if (bytes > limit) return INFINITY;
    if (g >= p->n || g >= GROUPS) return loss;
    double best = INFINITY;
    for (size_t i = p->first[g]; i < p->first[g + 1]; i++) best = fmin(best, exhaustive(p, g + 1, bytes + p->o[i].bytes, loss + p->o[i].loss, limit));
    return best;
}

TT_CASE(equal_to_all_choices) {
    tt__rng r;
    tt_err err = {0};
    int impossible = 0;
    tt__rng_seed(&r, 3);
    for (int trial = 0; trial < 3000; trial++) {
        problem p = random_problem(&r, trial % 3);
        uint64_t low = 0, high = 0, limit, bytes = 0;
        size_t choice[GROUPS];
        double loss = 0;
        for (size_t g = 0; g < p.n; g++) {
            uint64_t a = UINT64_MAX, b = 0;
            for (size_t i = p.first[g]; i < p.first[g + 1]; i++) a = p.o[i].bytes < a ? p.o[i].bytes : a, b = p.o[i].bytes > b ? p.o[i].bytes : b;
            low += a, high += b;
        }
        limit = trial % 7 == 0 ? low - 1 : low + tt__rng_below(&r, (uint32_t)(high - low + 2));
        double best = exhaustive(&p, 0, 0, 0, limit);
        tt_status st = tt__knapsack(p.o, p.first, p.n, limit, choice, &err);
        tt_test_note("trial %d, limit %llu", trial, (unsigned long long)limit);
        TT_CHECK(st == (isfinite(best) ? TT_OK : TT_TARGET));
        for (size_t g = 0; g < p.n; g++) {
            TT_CHECK(choice[g] < p.first[g + 1] - p.first[g]);
            bytes += p.o[p.first[g] + choice[g]].bytes, loss += p.o[p.first[g] + choice[g]].loss;
        }
        if (st != TT_OK) {
            impossible++;
            TT_CHECK_EQ(bytes, low);                                 /* the nearest miss */
            continue;
        }
        TT_CHECK(bytes <= limit);
        TT_CHECK_NEAR(loss, best, 1e-9 * (fabs(best) + 1));
    }
    TT_CHECK(impossible > 20);
}

/* As many matrices as a model has, losses as rounding gives them; sizes near each other and no multiples of anything. */
TT_CASE(a_whole_model) {
    enum { N = 420, K = 10 };
    static tt_option o[N * K];
    static size_t first[N + 1], choice[N];
    tt__rng r;
    tt_err err = {0};
    tt__rng_seed(&r, 4);
    uint64_t low = 0, high = 0, bytes = 0;
    for (size_t g = 0; g < N; g++) {
        double sensitivity = exp(2 * tt__rng_normal(&r)), weights = 1e5 + (double)tt__rng_below(&r, 1000000);
        first[g + 1] = (g + 1) * K;
        for (size_t k = 0; k < K; k++) {
            double bits = 2 + 0.3 * (double)k + 0.02 * tt__rng_unit(&r);
            o[g * K + k] = (tt_option){(uint64_t)(weights * bits / 8), sensitivity * pow(4, -bits) * (1 + 0.1 * tt__rng_unit(&r))};
        }
        low += o[g * K].bytes, high += o[g * K + K - 1].bytes;
    }
    TT_CHECK_OK(tt__knapsack(o, first, N, (low + high) / 2, choice, &err));
    double loss = 0, uniform = 0;
    for (size_t g = 0; g < N; g++) bytes += o[g * K + choice[g]].bytes, loss += o[g * K + choice[g]].loss, uniform += o[g * K + 4].loss;
    TT_CHECK(bytes <= (low + high) / 2 && bytes + 1000 > (low + high) / 2);
    TT_CHECK(loss < uniform);
}

TT_CASE(no_memory) {
    static const tt_option o[4] = {{1, 3}, {2, 1}, {1, 2}, {3, 0.5}};
    static const size_t first[3] = {0, 2, 4};
    tt_err err = {0};
    size_t choice[2];
    for (uint64_t k = 1;; k++) {
        TT_CHECK(k < 100);
        tt__fault_set(TT_FAULT_ALLOC, k, TT_FAULT_ONCE);
        tt_status st = tt__knapsack(o, first, 2, 4, choice, &err);
        tt__fault_set(TT_FAULT_ALLOC, 0, TT_FAULT_OFF);
        if (st == TT_OK) break;
        TT_CHECK_EQ(st, TT_RESOURCE);
    }
    TT_CHECK(choice[0] == 1 && choice[1] == 0);
}
