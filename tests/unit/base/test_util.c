/* Random numbers, hashes, numbers as text, 16-bit floats, UTF-8, names, JSON. */
#include "harness/tt_test.h"

#include "base/err.h"
#include "base/util.h"

/* ------------------------------------------------------------ random numbers ---- */

/* First outputs of xoshiro256** with the state of splitmix64(seed), computed with the authors' published code. */
TT_CASE(random_stream_is_the_published_one) {
    tt__rng r = {{1, 2, 3, 4}};
    const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240};
    for (int i = 0; i < 4; i++) TT_CHECK_EQ(tt__rng_u64(&r), expected[i]);
    tt__rng_seed(&r, 0);                                   /* splitmix64(0) */
    TT_CHECK_EQ(r.s[0], 0xe220a8397b1dcdafu);
    TT_CHECK_EQ(r.s[1], 0x6e789e6aa1b965f4u);
    TT_CHECK_EQ(r.s[2], 0x06c45d188009454fu);
    TT_CHECK_EQ(r.s[3], 0xf88bb8a8724c81ecu);
}

TT_CASE(random_numbers_have_their_moments) {
    tt__rng r;
    tt__rng_seed(&r, 42);
    double u1 = 0, u2 = 0, n1 = 0, n2 = 0, n4 = 0;
    enum { N = 200000 };
    int64_t bins[7] = {0};
    for (int i = 0; i < N; i++) {
        double u = tt__rng_unit(&r), n = tt__rng_normal(&r);
        TT_CHECK(u >= 0 && u < 1 && isfinite(n));
        u1 += u, u2 += u * u, n1 += n, n2 += n * n, n4 += n * n * n * n;
        bins[tt__rng_below(&r, 7)]++;
    }
    TT_CHECK_NEAR(u1 / N, 0.5, 0.003);                     /* about 5 standard errors each */
    TT_CHECK_NEAR(u2 / N, 1.0 / 3, 0.004);
    TT_CHECK_NEAR(n1 / N, 0, 0.012);
    TT_CHECK_NEAR(n2 / N, 1, 0.016);
    TT_CHECK_NEAR(n4 / N, 3, 0.11);
    for (int i = 0; i < 7; i++) TT_CHECK_NEAR(bins[i], N / 7.0, 800);
    for (int i = 0; i < 100; i++) TT_CHECK_EQ(tt__rng_below(&r, 1), 0u);
    for (int i = 0; i < 1000; i++) TT_CHECK(tt__rng_below(&r, (1ull << 63) + 1) <= 1ull << 63);
}

/* ------------------------------------------------------------ SHA-256 ---- */

TT_CASE(sha256_vectors_of_the_standard) {
    static const struct { const char *text, *hex; } v[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"}};
    char hex[65];
    for (int i = 0; i < 4; i++) {
        tt__sha256_hex(v[i].text, strlen(v[i].text), hex);
        TT_CHECK_STR(hex, v[i].hex);
    }
    char *a = tt__alloc(1000000);
    memset(a, 'a', 1000000);
    tt__sha256_hex(a, 1000000, hex);
    TT_CHECK_STR(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    tt__free(a);
}

TT_CASE(sha256_is_the_same_in_pieces_and_without_the_instructions) {
    tt__rng r;
    tt__rng_seed(&r, 9);
    uint8_t data[1500], whole[32], parts[32];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)tt__rng_u64(&r);
    for (size_t n = 0; n < sizeof data; n += 13) {
        tt__sha256 s;
        tt__sha256_init(&s);
        tt__sha256_update(&s, data, n);
        tt__sha256_final(&s, whole);
        tt__sha256_init(&s);
        for (size_t at = 0; at < n;) {
            size_t take = 1 + (size_t)tt__rng_below(&r, 150);
            if (take > n - at) take = n - at;
            tt__sha256_update(&s, data + at, take);
            at += take;
        }
        tt__sha256_final(&s, parts);
        TT_CHECK(memcmp(whole, parts, 32) == 0);
    }
    tt__sha256 s;
    tt__sha256_init(&s);
    uint32_t h[8];
    memcpy(h, s.h, sizeof h);
    tt__sha256_update(&s, data, 1472);                     /* 23 whole blocks */
    tt__sha256_blocks_plain(h, data, 23);
    TT_CHECK(memcmp(h, s.h, sizeof h) == 0);
}

/* ------------------------------------------------------------ strings and numbers ---- */

TT_CASE(string_builder) {
    tt__str b = {0};
    for (int i = 0; i < 1000; i++) tt__str_printf(&b, "%d,", i);
    TT_CHECK(!b.failed && b.n == 3890 && strlen(b.s) == b.n && strncmp(b.s, "0,1,2,", 6) == 0);
    tt__str_add(&b, "\0x", 2);
    TT_CHECK(b.n == 3892 && b.s[3891] == 'x' && b.s[3892] == 0);
    tt__str_free(&b);
    TT_CHECK(!b.s && !b.cap);
    tt__fault_set(TT_FAULT_ALLOC, 2, TT_FAULT_ONCE);
    for (int i = 0; i < 100; i++) tt__str_puts(&b, "abc");
    TT_CHECK(b.failed && b.n < 70);                        /* sticks, and what was there stays whole */
    TT_CHECK(strlen(b.s) == b.n);
    tt__str_free(&b);
    tt__str_add(&b, "x", SIZE_MAX);
    TT_CHECK(b.failed);
    tt__str_free(&b);
}

TT_CASE(integers_are_strict) {
    int64_t v = 0;
    TT_CHECK(tt__parse_i64("0", &v) && v == 0);
    TT_CHECK(tt__parse_i64("-17", &v) && v == -17);
    TT_CHECK(tt__parse_i64("9223372036854775807", &v) && v == INT64_MAX);
    TT_CHECK(tt__parse_i64("-9223372036854775808", &v) && v == INT64_MIN);
    TT_CHECK(tt__parse_i64("007", &v) && v == 7);
    static const char *const bad[] = {"", "-", "+1", " 1", "1 ", "1x", "0x10", "1.0", "1e3", "9223372036854775808", "-9223372036854775809",
                                      "99999999999999999999999", "--1", "١"};
    v = 5;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) TT_CHECK(!tt__parse_i64(bad[i], &v) && v == 5);
}

TT_CASE(digits_inside_a_text) {
    const char *s = "12:345x";
    int a = 0, b = 0;
    TT_CHECK(tt__scan_int(&s, 99, &a) && a == 12 && *s++ == ':');
    const char *at = s;
    TT_CHECK(!tt__scan_int(&s, 344, &b) && s == at && b == 0);
    TT_CHECK(tt__scan_int(&s, 345, &b) && b == 345 && *s == 'x' && !tt__scan_int(&s, 9, &b));
    const char *bad[] = {"", "-1", "+1", " 1", "2147483648", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) TT_CHECK(!tt__scan_int(&bad[i], INT32_MAX, &a) && a == 12);
}

TT_CASE(reals_are_strict_and_finite) {
    double v = 0;
    TT_CHECK(tt__parse_f64("0.5", &v) && v == 0.5);
    TT_CHECK(tt__parse_f64("-1e-3", &v) && v == -1e-3);
    TT_CHECK(tt__parse_f64(".5", &v) && v == 0.5);
    TT_CHECK(tt__parse_f64("5.", &v) && v == 5);
    TT_CHECK(tt__parse_f64("1E+2", &v) && v == 100);
    static const char *const bad[] = {"", ".", "-", "nan", "inf", "-inf", "infinity", "0x1p3", "1e999", "1e", "1e+", " 1", "1 ", "1,5", "+1", "1f", "e5"};
    v = 5;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) TT_CHECK(!tt__parse_f64(bad[i], &v) && v == 5);
}

TT_CASE(sizes) {
    static const struct { const char *text; uint64_t bytes; } good[] = {
        {"0", 0}, {"512", 512}, {"512B", 512}, {"1k", 1024}, {"1K", 1024}, {"1.5g", 1610612736}, {"1536MiB", 1610612736}, {"512M", 536870912},
        {"2T", 2199023255552}, {"1kb", 1024}, {"0.5k", 512}, {"1e3", 1000}, {"3Gib", 3221225472}};
    static const char *const bad[] = {"", "k", "-1", "1.5", "1x", "1kk", "1Mi B", "1 M", "1iB", "20000000T", "1e30", "nan", "1MBs", "1Bi", "0x10"};
    uint64_t v = 0;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        tt_test_note("%s", good[i].text);
        TT_CHECK(tt__parse_bytes(good[i].text, &v));
        TT_CHECK_EQ(v, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_test_note("%s", bad[i]);
        TT_CHECK(!tt__parse_bytes(bad[i], &v));
    }
}

TT_CASE(durations) {
    static const struct { const char *text; double seconds; } good[] = {{"45s", 45}, {"20m", 1200}, {"2h", 7200}, {"1.5h", 5400}, {"90", 90}, {"250ms", 0.25}, {"1d", 86400}, {"0", 0}};
    static const char *const bad[] = {"", "s", "-1s", "1 s", "1x", "1hm", "h1", "nan", "1sec", "1e999h", "infs"};
    double v = 0;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        tt_test_note("%s", good[i].text);
        TT_CHECK(tt__parse_duration(good[i].text, &v));
        TT_CHECK_NEAR(v, good[i].seconds, 1e-9);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_test_note("%s", bad[i]);
        TT_CHECK(!tt__parse_duration(bad[i], &v));
    }
}

/* ------------------------------------------------------------ 16-bit floats ---- */

TT_CASE(f16_all_patterns_go_round) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = tt__f16_to_f32((uint16_t)h);
        uint32_t e = (h >> 10) & 31, m = h & 0x3ff;
        if (e == 31 && m) {
            TT_CHECK(isnan(f) && (tt__f32_to_f16(f) & 0x7c00) == 0x7c00 && (tt__f32_to_f16(f) & 0x3ff));
            continue;
        }
        double expected = e == 31 ? INFINITY : e ? ldexp(1024 + m, (int)e - 25) : ldexp(m, -24);
        TT_CHECK(f == (float)(h & 0x8000 ? -expected : expected) && !!signbit(f) == !!(h & 0x8000));
        TT_CHECK_EQ(tt__f32_to_f16(f), h);
    }
}

/* Between two neighbours the nearer wins, the tie goes to the even one. */
TT_CASE(f16_rounds_to_nearest_even) {
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float a = tt__f16_to_f32((uint16_t)h), b = tt__f16_to_f32((uint16_t)(h + 1)), mid = a + (b - a) / 2;
        TT_CHECK_EQ(tt__f32_to_f16(mid), h + (h & 1));
        TT_CHECK_EQ(tt__f32_to_f16(nextafterf(mid, 0)), h);
        TT_CHECK_EQ(tt__f32_to_f16(nextafterf(mid, INFINITY)), h + 1);
        TT_CHECK_EQ(tt__f32_to_f16(-mid), 0x8000 + h + (h & 1));
    }
    TT_CHECK_EQ(tt__f32_to_f16(65519.996f), 0x7bff);
    TT_CHECK_EQ(tt__f32_to_f16(65520.0f), 0x7c00);
    TT_CHECK_EQ(tt__f32_to_f16(3.4e38f), 0x7c00);
    TT_CHECK_EQ(tt__f32_to_f16(-1e-30f), 0x8000);
}

TT_CASE(bf16_rounds_to_nearest_even) {
    TT_CHECK_EQ(tt__f32_to_bf16(1.0f), 0x3f80);
    TT_CHECK_EQ(tt__f32_to_bf16(1.00390625f), 0x3f80);     /* the tie above an even pattern */
    TT_CHECK_EQ(tt__f32_to_bf16(1.01171875f), 0x3f82);     /* the tie above an odd one */
    TT_CHECK_EQ(tt__f32_to_bf16(1.0039064f), 0x3f81);
    TT_CHECK_EQ(tt__f32_to_bf16(3.4e38f), 0x7f80);
    TT_CHECK_EQ(tt__f32_to_bf16(-INFINITY), 0xff80);
    TT_CHECK(isnan(tt__bf16_to_f32(tt__f32_to_bf16(NAN))));
    uint32_t low = 0x7f800001;                             /* a NaN whose payload lies in the bits that are dropped */
    float f;
    memcpy(&f, &low, 4);
    TT_CHECK(isnan(tt__bf16_to_f32(tt__f32_to_bf16(f))));
}

/* ------------------------------------------------------------ UTF-8 and names ---- */

TT_CASE(utf8_goes_round_for_every_code_point) {
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        if (cp >= 0xd800 && cp < 0xe000) continue;
        char s[4];
        uint32_t back = 0;
        int n = tt__utf8_encode(cp, s);
        TT_CHECK_EQ(tt__utf8_decode((const uint8_t *)s, (size_t)n, &back), n);
        TT_CHECK_EQ(back, cp);
        for (int cut = 1; cut < n; cut++) TT_CHECK_EQ(tt__utf8_decode((const uint8_t *)s, (size_t)cut, &back), 0);
    }
}

TT_CASE(utf8_refuses_what_is_not) {
    static const char *const bad[] = {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80",
                                      "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc2\x41", "\xe2\x82\x41", "\xf0\x9f\x98\x41"};
    uint32_t cp;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) TT_CHECK_EQ(tt__utf8_decode((const uint8_t *)bad[i], strlen(bad[i]), &cp), 0);
    TT_CHECK_EQ(tt__utf8_decode((const uint8_t *)"", 0, &cp), 0);
}

TT_CASE(nearest_name) {
    const char *const names[] = {"compress", "perplexity", "tokenize", "run", "chat"};
    TT_CHECK_STR(tt__nearest("compres", names, 5), "compress");
    TT_CHECK_STR(tt__nearest("perplexitty", names, 5), "perplexity");
    TT_CHECK_STR(tt__nearest("rum", names, 5), "run");
    TT_CHECK_STR(tt__nearest("chat", names, 5), "chat");
    TT_CHECK(!tt__nearest("xyz", names, 5) && !tt__nearest("", names, 5) && !tt__nearest("compress", names, 0));
    char big[500];
    memset(big, 'c', sizeof big - 1);
    big[499] = 0;
    TT_CHECK(!tt__nearest(big, names, 5));
}

/* ------------------------------------------------------------ JSON ---- */

static json_t *parse(const char *text) {
    tt_err err = {0};
    json_t *v = NULL;
    TT_CHECK_OK(tt__json_parse(text, strlen(text), "t.json", &v, &err));
    return v;
}

TT_CASE(json_members_are_typed) {
    json_t *v = parse("{\"s\":\"x\",\"i\":-5,\"f\":1.5,\"b\":true,\"n\":null,\"a\":[1]}");
    tt_err err = {0};
    const char *s = "default";
    int64_t i = 7;
    double f = 7;
    bool b = false;
    TT_CHECK_OK(tt__json_str(v, "s", true, &s, "t", &err));
    TT_CHECK_OK(tt__json_i64(v, "i", true, &i, "t", &err));
    TT_CHECK_OK(tt__json_f64(v, "f", true, &f, "t", &err));
    TT_CHECK_OK(tt__json_bool(v, "b", true, &b, "t", &err));
    TT_CHECK(strcmp(s, "x") == 0 && i == -5 && f == 1.5 && b);
    TT_CHECK_OK(tt__json_f64(v, "i", true, &f, "t", &err));
    TT_CHECK_EQ(f, -5.0);
    i = 7;
    TT_CHECK_OK(tt__json_i64(v, "missing", false, &i, "t", &err));
    TT_CHECK_OK(tt__json_i64(v, "n", false, &i, "t", &err));
    TT_CHECK_EQ(i, 7);
    TT_CHECK_FAILS(TT_BADFILE, tt__json_i64(v, "missing", true, &i, "t.json", &err));
    TT_CHECK_STR(err.where, "t.json: \"missing\"");
    TT_CHECK_FAILS(TT_BADFILE, tt__json_i64(v, "n", true, &i, "t", &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__json_i64(v, "f", false, &i, "t", &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__json_str(v, "i", false, &s, "t", &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__json_f64(v, "s", false, &f, "t", &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__json_bool(v, "i", false, &b, "t", &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__json_bool(json_object_get(v, "a"), "i", false, &b, "t", &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__json_bool(NULL, "i", false, &b, "t", &err));
    json_decref(v);
}

TT_CASE(json_refuses_the_broken_the_doubled_and_the_deep) {
    static const char *const bad[] = {"", "{", "{\"a\":1,\"a\":2}", "{\"a\":1}x", "[1,]", "{'a':1}", "[NaN]", "[1e400]", "[9223372036854775808]", "[\"\\ud800\"]",
                                      "[\"\xff\"]", "[\"a\\u0000b\"]", "[01]", "\xef\xbb\xbf{}", "[\"\n\"]", "// x\n{}"};
    tt_err err = {0};
    json_t *v = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_test_note("%zu", i);
        TT_CHECK_FAILS(TT_BADFILE, tt__json_parse(bad[i], strlen(bad[i]), "bad.json", &v, &err));
        TT_CHECK(!v && strncmp(err.where, "bad.json", 8) == 0);
    }
}

TT_CASE(json_depth_is_limited_without_recursion) {
    tt_err err = {0};
    json_t *v = NULL;
    char *deep = tt__alloc(2000000);
    memset(deep, '[', 1000000);
    memset(deep + 1000000, ']', 1000000);
    TT_CHECK_FAILS(TT_BADFILE, tt__json_parse(deep, 2000000, "deep.json", &v, &err));
    TT_CHECK(strstr(err.expected, "JSON_DEPTH"));
    TT_CHECK_FAILS(TT_BADFILE, tt__json_parse(deep, 1000000, "deep.json", &v, &err));
    TT_CHECK_OK(tt__json_parse(deep + 1000000 - 64, 128, "deep.json", &v, &err));
    json_decref(v);
    TT_CHECK_FAILS(TT_BADFILE, tt__json_parse(deep + 1000000 - 65, 130, "deep.json", &v, &err));
    tt__free(deep);
    json_decref(parse("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[\"]"));
}

static tt_status write_body(void *arg, tt_err *err) {
    tt__str b = {0};
    tt__json_write(&b, arg, JSON_COMPACT);
    tt_status st = b.failed ? tt__fail(err, TT_RESOURCE, "out of memory|") : TT_OK;
    if (st == TT_OK) TT_CHECK_STR(b.s, "{\"a\":[1,2.5,\"x\"],\"b\":null}");
    tt__str_free(&b);
    return st;
}

TT_CASE(json_is_written_into_a_string) {
    json_t *v = parse("{\"a\": [1, 2.5, \"x\"], \"b\": null}");
    tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, write_body, v);
    json_decref(v);
    tt__str b = {0};
    tt__json_write(&b, NULL, 0);
    TT_CHECK(b.failed);
    tt__str_free(&b);
}

static tt_status parse_body(void *arg, tt_err *err) {
    json_t *v = NULL;
    tt_status st = tt__json_parse(arg, strlen(arg), "t.json", &v, err);
    json_decref(v);
    return st;
}

TT_CASE(json_survives_every_failing_allocation) {
    char text[] = "{\"a\":[1,2.5,\"three\",{\"b\":null}],\"long key of an object\":\"long string long string long string\"}";
    TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, parse_body, text) > 8);
    tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ON, parse_body, text);
}

TT_CASE(clock_and_memory_of_the_process) {
    double a = tt__now();
    TT_CHECK(tt__now() >= a && tt__now() - a < 60);
    TT_CHECK(tt__rss() > 100000 && tt__peak_rss() >= tt__rss() / 2);
}
