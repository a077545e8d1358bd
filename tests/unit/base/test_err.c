/* Errors: the five fields, dividers in arguments, escapes, cutting, the one line. */
#include "harness/tt_test.h"

#include "base/env.h"
#include "base/err.h"
#include "base/limits.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

TT_CASE(fields_are_divided_by_the_format_only) {
    tt_err err = {0};
    TT_CHECK_EQ(tt__fail(&err, TT_BADFILE, "bad %s|%s: %d|%.2f|at most %zu|look|here", "a|b", "x|y", -7, 1.005, (size_t)9), TT_BADFILE);
    TT_CHECK_EQ(err.status, TT_BADFILE);
    TT_CHECK_STR(err.what, "bad a|b");
    TT_CHECK_STR(err.where, "x|y: -7");
    TT_CHECK_STR(err.got, "1.00");
    TT_CHECK_STR(err.expected, "at most 9");
    TT_CHECK_STR(err.hint, "look|here");
    TT_CHECK_EQ(tt__fail(NULL, TT_FAIL, "x|%d", 1), TT_FAIL);
}

TT_CASE(every_conversion_formats_as_printf_does) {
    tt_err err = {0};
    char expected[200];
#define SAME(fmt, ...)                                                                     \
    do {                                                                                   \
        snprintf(expected, sizeof expected, fmt, __VA_ARGS__);                             \
        tt__fail(&err, TT_FAIL, fmt, __VA_ARGS__);                                         \
        TT_CHECK_STR(err.what, expected);                                                  \
    } while (0)
    SAME("%d %i %5d [%-5d] %05d %+d % d", 1, -2, 3, 4, 5, 6, 7);
    SAME("%u %x %X %#x %o %08x", 1u, 255u, 255u, 16u, 8u, 0xbeefu);
    SAME("%ld %lu %lld %llu %zu %zd %td %jd", -1L, 2UL, -3LL, 4ULL, (size_t)5, (ssize_t)-6, (ptrdiff_t)7, (intmax_t)-8);
    SAME("%" PRIu64 " %" PRId64 " %" PRIx64, UINT64_MAX, INT64_MIN, UINT64_MAX);
    SAME("%hd %hu %hhd %hhu", (short)-5, (unsigned short)65535, (signed char)-1, (unsigned char)255);
    SAME("%f %.3f %e %.2e %g %G %.0f %8.3f %-8.3fx %Lf", 1.5, 2.0 / 3, 1e10, 1e-10, 0.1, 1e20, 2.5, 3.25, 3.25, 4.5L);
    SAME("%s %.3s %.*s %10s %-10s.", "abc", "abcdef", 2, "xyz", "right", "left");
#undef SAME
}

TT_CASE(outside_bytes_come_out_printable) {
    tt_err err = {0};
    tt__fail(&err, TT_BADFILE, "%s|%s|%s", "a\nb\tc\x1b[31m", "\xff\xc0\x80 ok \xe2\x82\xac", "\xe2\x80\xaegpj.exe");
    TT_CHECK_STR(err.what, "a\\nb\\x09c\\x1b[31m");
    TT_CHECK_STR(err.where, "\\xff\\xc0\\x80 ok \xe2\x82\xac");
    TT_CHECK_STR(err.got, "\\u202egpj.exe");
    const char *volatile nothing = NULL;
    tt__fail(&err, TT_FAIL, "%s|%c%%", nothing, 'x');
    TT_CHECK_STR(err.what, "(none)");
    TT_CHECK_STR(err.where, "x%");
}

TT_CASE(long_arguments_are_cut_in_their_own_field) {
    tt_err err = {0};
    static char big[100000];
    memset(big, 'q', sizeof big - 1);
    tt__fail(&err, TT_BADFILE, "what|%s|got|exp|hint", big);
    TT_CHECK_STR(err.what, "what");
    TT_CHECK_STR(err.hint, "hint");
    size_t n = strlen(err.where);
    TT_CHECK(n < sizeof err.where && n > sizeof err.where - 8 && strcmp(err.where + n - 3, "…") == 0);
    for (size_t i = 0; i + 3 < sizeof big; i += 3) memcpy(big + i, "\xe2\x82\xac", 3);   /* cut between, not inside, characters */
    big[99] = 0;
    for (int shift = 0; shift < 3; shift++) {
        tt__fail(&err, TT_BADFILE, "%.*s%s%s%s", shift, "abc", big, big, big);
        n = strlen(err.what);
        TT_CHECK(strcmp(err.what + n - 3, "…") == 0 && (n - (size_t)shift) % 3 == 0);
    }
}

TT_CASE(where_is_prefixed) {
    tt_err err = {0};
    tt__fail(&err, TT_BADFILE, "bad|tensor 3");
    TT_CHECK_EQ(tt__err_at(&err, TT_BADFILE, "%s", "m|n.gguf"), TT_BADFILE);
    TT_CHECK_STR(err.where, "m|n.gguf: tensor 3");
    tt__fail(&err, TT_BADFILE, "bad");
    tt__err_at(&err, TT_BADFILE, "x");
    TT_CHECK_STR(err.where, "x");
    TT_CHECK_EQ(tt__err_at(NULL, TT_FAIL, "x"), TT_FAIL);
}

TT_CASE(one_line) {
    tt_err err = {0};
    char line[600], small[20];
    tt__fail(&err, TT_BADFILE, "bad magic|m.gguf|ABCD|GGUF|is it a model?");
    TT_CHECK_STR(tt_err_line(&err, line, sizeof line), "bad magic: m.gguf (got ABCD, expected GGUF); is it a model?");
    tt__fail(&err, TT_BADFILE, "bad magic|m.gguf||GGUF");
    TT_CHECK_STR(tt_err_line(&err, line, sizeof line), "bad magic: m.gguf (expected GGUF)");
    tt__fail(&err, TT_BADFILE, "bad magic||ABCD");
    TT_CHECK_STR(tt_err_line(&err, line, sizeof line), "bad magic (got ABCD)");
    err = (tt_err){.status = TT_RESOURCE};
    TT_CHECK_STR(tt_err_line(&err, line, sizeof line), "out of memory or disk");
    tt__fail(&err, TT_BADFILE, "a text that is longer than the buffer");
    TT_CHECK(strlen(tt_err_line(&err, small, sizeof small)) < sizeof small);
    TT_CHECK_STR(tt_err_line(NULL, line, sizeof line), "");
}

TT_CASE(statuses_have_names_and_pinned_numbers) {
    TT_CHECK_STR(tt_status_name(TT_BADFILE), "TT_BADFILE");
    TT_CHECK_STR(tt_status_name((tt_status)77), "TT_UNKNOWN");
    TT_CHECK(tt_status_meaning((tt_status)77)[0]);
    const int numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 130, 143};
    int i = 0;
#define X(name, number, meaning) TT_CHECK_EQ(name, numbers[i++]); TT_CHECK_STR(tt_status_meaning(name), meaning);
    TT_STATUS_LIST(X)
#undef X
    TT_CHECK_STR(tt_version(), "0.1.0");
}

TT_CASE(limits_and_environment_tables_are_whole) {
    for (int i = 0; i < TT_LIMIT_COUNT; i++) {
        TT_CHECK(tt__limits[i].name[0] && tt__limits[i].value && tt__limits[i].unit[0] && tt__limits[i].what[0]);
        for (int j = 0; j < i; j++) TT_CHECK(strcmp(tt__limits[i].name, tt__limits[j].name));
    }
    TT_CHECK_EQ(tt__limits[TT_LIMIT_ID_JSON_DEPTH].value, TT_LIMIT_JSON_DEPTH);
    for (int i = 0; i < TT_ENV_COUNT; i++) {
        TT_CHECK(tt__env_list[i].name[0] && tt__env_list[i].value[0] && tt__env_list[i].help[0]);
        for (int j = 0; j < i; j++) TT_CHECK(strcmp(tt__env_list[i].name, tt__env_list[j].name));
    }
    setenv("HF_HUB_OFFLINE", "1", 1);
    TT_CHECK(tt__env_true(TT_ENV_HF_HUB_OFFLINE));
    setenv("HF_HUB_OFFLINE", "No", 1);
    TT_CHECK(!tt__env_true(TT_ENV_HF_HUB_OFFLINE));
    setenv("HF_HUB_OFFLINE", "", 1);
    TT_CHECK(!tt__env(TT_ENV_HF_HUB_OFFLINE) && !tt__env_true(TT_ENV_HF_HUB_OFFLINE));
    unsetenv("HF_HUB_OFFLINE");
    TT_CHECK(!tt__env_true(TT_ENV_HF_HUB_OFFLINE));
}
