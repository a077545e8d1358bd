/* Lists of texts with weights, and their mixture. */
#include "engine/texts.h"
#include "harness/tt_test.h"
#include <math.h>

TT_CASE(lists_are_read) {
    tt_err err = {0};
    tt_sources s;
    TT_CHECK_OK(tt__sources_parse("own.txt:2,self,b:0.5", "data", &s, &err));
    TT_CHECK_EQ(s.n, 3);
    TT_CHECK_STR(s.item[0].path, "own.txt");
    TT_CHECK_NEAR(s.item[0].weight, 2, 0);
    TT_CHECK(s.item[1].self && s.item[1].weight == 1 && tt__sources_self(&s) == 1);
    TT_CHECK_NEAR(s.item[2].weight, 0.5, 0);
    tt__sources_free(&s);
    const char *odd = tt_test_file("a,b:3", "text", 4);           /* a file of that name is that file */
    TT_CHECK_OK(tt__sources_parse(odd, "data", &s, &err));
    TT_CHECK_EQ(s.n, 1);
    TT_CHECK_STR(s.item[0].path, odd);
    tt__sources_free(&s);
    const char *bad[] = {"", "a,", ",a", "a:0", "a:-1", "a:1e9", "self,self:2", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) TT_CHECK_FAILS(TT_USAGE, tt__sources_parse(bad[i], "data", &s, &err));
}

static tt_tokens docs(int32_t mark, size_t n_docs, size_t each) {
    tt_err err = {0};
    tt_tokens t = {.n_docs = n_docs, .n = n_docs * each};
    TT_CHECK_OK(tt__new(&t.ids, t.n, sizeof *t.ids, "t", &err));
    TT_CHECK_OK(tt__new(&t.start, n_docs + 1, sizeof *t.start, "t", &err));
    for (size_t i = 0; i < t.n; i++) t.ids[i] = mark;
    for (size_t i = 0; i <= n_docs; i++) t.start[i] = i * each;
    return t;
}

static void check(const double *weights, size_t n0, size_t n1) {
    tt_err err = {0};
    tt_tokens t[2] = {docs(0, n0, 10), docs(1, n1, 7)}, out;
    TT_CHECK_OK(tt__tokens_mix(t, weights, 2, &out, &err));
    double count[2] = {0, 0};
    for (size_t i = 0; i < out.n; i++) count[out.ids[i]]++;
    for (size_t i = 0; i < out.n_docs; i++) TT_CHECK(out.start[i] < out.start[i + 1] && out.ids[out.start[i]] == out.ids[out.start[i + 1] - 1]);
    TT_CHECK_EQ(out.start[out.n_docs], out.n);
    int largest = (double)t[0].n / weights[0] < (double)t[1].n / weights[1];
    TT_CHECK_NEAR(count[largest], (double)t[largest].n, 0);
    TT_CHECK(fabs(count[!largest] - count[largest] * weights[!largest] / weights[largest]) <= 10);
    tt__tokens_free(&out);
    tt__tokens_free(&t[0]);
    tt__tokens_free(&t[1]);
}

TT_CASE(shares_are_those_of_the_weights_and_nothing_is_left_out) {
    for (size_t a = 1; a < 60; a += 7)
        for (size_t b = 1; b < 60; b += 5) {
            check((double[]){1, 1}, a, b);
            check((double[]){3, 1}, a, b);
            check((double[]){0.25, 1}, a, b);
        }
    tt_err err = {0};
    tt_tokens one = docs(5, 3, 4), out;
    TT_CHECK_OK(tt__tokens_mix(&one, (double[]){9}, 1, &out, &err));
    TT_CHECK(out.n == 12 && out.n_docs == 3);
    tt__tokens_free(&out);
    one.n = 0;
    TT_CHECK_FAILS(TT_USAGE, tt__tokens_mix(&one, (double[]){1}, 1, &out, &err));
    tt__tokens_free(&one);
}
