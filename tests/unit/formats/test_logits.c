/* The file of a teacher's logits: what is written is read again as precisely as it says, and what is damaged or foreign is refused by name. */
#include "formats/logits.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/util.h"
#include "harness/tt_test.h"
#include <math.h>
#include <stdio.h>

enum { K = 5, LENGTH = 9, N = LENGTH - 1, WINDOWS = 7 };

static const tt_logits_head HEAD = {.teacher = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                                    .data = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210", .isa = "scalar",
                                    .vocab = 300, .k = K, .length = LENGTH, .temperature = 1};

static void key_of(int window, uint8_t key[TT_LOGITS_KEY]) {
    uint8_t digest[32];
    tt__sha256 s;
    tt__sha256_init(&s);
    tt__sha256_update(&s, &window, sizeof window);
    tt__sha256_final(&s, digest);
    memcpy(key, digest, TT_LOGITS_KEY);
}

/* A distribution over the vocabulary; its K last tokens of a stride are "likeliest". */
static void window_of(int window, int64_t vocab, int32_t *ids, float *logp, float *rest) {
    tt__rng rng;
    tt__rng_seed(&rng, (uint64_t)window);
    for (int r = 0; r < N; r++) {
        double p[K + 1], sum = 0;
        for (int i = 0; i <= K; i++) sum += p[i] = exp(6 * tt__rng_normal(&rng));
        for (int i = 0; i < K; i++) {
            ids[r * K + i] = (int32_t)((int64_t)(i + 1) * (vocab / K) - 1 - (int64_t)tt__rng_below(&rng, (uint64_t)(vocab / K)));
            logp[r * K + i] = (float)log(p[i] / sum);
        }
        rest[r] = r == 3 ? -INFINITY : (float)log(p[K] / sum);
    }
}

static void write_file(const char *path, const tt_logits_head *head, int windows) {
    tt_err err = {0};
    tt_logits_writer *w = NULL;
    int32_t ids[N * K];
    float logp[N * K], rest[N];
    uint8_t key[TT_LOGITS_KEY];
    TT_CHECK_OK(tt__logits_create(path, head, &w, &err));
    for (int i = 0; i < windows; i++) {
        window_of(i, head->vocab, ids, logp, rest);
        key_of(i, key);
        TT_CHECK_OK(tt__logits_add(w, key, ids, logp, rest, &err));
    }
    TT_CHECK_EQ(tt__logits_written(w), windows);
    TT_CHECK_OK(tt__logits_commit(w, &err));
}

static char *in_dir(const char *name) { return tt__path_join(tt_test_tmpdir(), name); }

static void check_window(const tt_logits *l, int window, int64_t vocab) {
    int32_t ids[N * K], got[K];
    float logp[N * K], rest[N], p[K], left;
    uint8_t key[TT_LOGITS_KEY];
    key_of(window, key);
    int64_t at = tt__logits_find(l, key);
    TT_CHECK(at >= 0);
    window_of(window, vocab, ids, logp, rest);
    for (int r = 0; r < N; r++) {
        double sum = 0;
        tt__logits_row(l, at, r, got, p, &left);
        for (int i = 0; i < K; i++) sum += exp((double)logp[r * K + i]);
        sum += exp((double)rest[r]);
        TT_CHECK(memcmp(got, ids + r * K, sizeof got) == 0);
        double total = exp((double)left);
        for (int i = 0; i < K; i++) {
            double want = exp((double)logp[r * K + i]) / sum;
            TT_CHECK_NEAR(exp((double)p[i]), want, 5e-4 * want + 1e-13);           /* half a step of its own, and as much of the sum */
            total += exp((double)p[i]);
        }
        TT_CHECK_NEAR(exp((double)left), exp((double)rest[r]) / sum, 5e-4 * exp((double)rest[r]) / sum + 1e-13);
        TT_CHECK_NEAR(total, 1, 1e-6);
    }
}

TT_CASE(what_is_written_is_read) {
    static const int64_t vocabularies[] = {300, 65536, 65540};           /* ids of two bytes and of four */
    for (int v = 0; v < 3; v++) {
        tt_err err = {0};
        tt_logits_head head = HEAD;
        tt_logits *l = NULL;
        char *path = in_dir("a.logits");
        uint8_t key[TT_LOGITS_KEY];
        head.vocab = vocabularies[v];
        write_file(path, &head, WINDOWS);
        TT_CHECK_OK(tt__logits_open(path, &head, &l, &err));
        TT_CHECK_EQ(tt__logits_windows(l), WINDOWS);
        TT_CHECK_STR(tt__logits_get_head(l)->teacher, head.teacher);
        for (int i = 0; i < WINDOWS; i++) check_window(l, i, head.vocab);
        key_of(WINDOWS, key);
        TT_CHECK_EQ(tt__logits_find(l, key), -1);
        tt__map map;
        TT_CHECK_OK(tt__map_open(path, &map, &err));
        TT_CHECK_EQ(map.size, tt__logits_bytes(&head, WINDOWS));
        tt__map_close(&map);
        tt__logits_close(l);
        tt__free(path);
    }
}

TT_CASE(windows_are_copied_as_they_are) {
    tt_err err = {0};
    char *a = in_dir("a.logits"), *b = in_dir("b.logits");
    tt_logits *l = NULL;
    tt_logits_writer *w = NULL;
    write_file(a, &HEAD, WINDOWS);
    TT_CHECK_OK(tt__logits_open(a, NULL, &l, &err));
    TT_CHECK_OK(tt__logits_create(b, &HEAD, &w, &err));
    for (int64_t i = 0; i < WINDOWS; i++) TT_CHECK_OK(tt__logits_copy(w, l, i, &err));
    TT_CHECK_OK(tt__logits_commit(w, &err));
    char *x = NULL, *y = NULL;
    size_t nx = 0, ny = 0;
    TT_CHECK_OK(tt__read_file(a, 1 << 20, &x, &nx, &err));
    TT_CHECK_OK(tt__read_file(b, 1 << 20, &y, &ny, &err));
    TT_CHECK(nx == ny && memcmp(x, y, nx) == 0);
    tt__free(x);
    tt__free(y);
    tt__logits_close(l);
    tt__free(a);
    tt__free(b);
}

TT_CASE(foreign_files_are_refused_by_name) {
    tt_err err = {0};
    tt_logits *l = NULL;
    char *path = in_dir("a.logits");
    write_file(path, &HEAD, 2);
    for (int i = 0; i < 7; i++) {
        tt_logits_head want = HEAD;
        if (i == 0) want.teacher[0] = '1';
        if (i == 1) want.data[63] = '1';
        if (i == 2) want.isa[0] = 'S';
        if (i == 3) want.k++;
        if (i == 4) want.length++;
        if (i == 5) want.vocab++;
        if (i == 6) want.temperature = 2;
        TT_CHECK_FAILS(TT_MISMATCH, tt__logits_open(path, &want, &l, &err));
        TT_CHECK(strstr(err.where, path) != NULL && strstr(err.hint, "remove") != NULL);
    }
    TT_CHECK_FAILS(TT_FAIL, tt__logits_open("/nonexistent", &HEAD, &l, &err));
    tt__free(path);
}

/* Every part of a file is under its hash; each shorter and longer file is another one. */
TT_CASE(damaged_files_are_refused) {
    tt_err err = {0};
    tt_logits *l = NULL;
    char *path = in_dir("a.logits"), *bytes = NULL;
    size_t n = 0;
    write_file(path, &HEAD, 1);
    TT_CHECK_OK(tt__read_file(path, 1 << 20, &bytes, &n, &err));
    for (size_t i = 0; i < n; i += i < 160 ? 1 : 7) {
        bytes[i] ^= 4;
        TT_CHECK_OK(tt__write_file(path, bytes, n, &err));
        TT_CHECK_FAILS(TT_BADFILE, tt__logits_open(path, &HEAD, &l, &err));
        bytes[i] ^= 4;
    }
    for (size_t cut = 0; cut < n; cut += 13) {
        TT_CHECK_OK(tt__write_file(path, bytes, cut, &err));
        TT_CHECK_FAILS(TT_BADFILE, tt__logits_open(path, &HEAD, &l, &err));
    }
    tt__free(bytes);
    tt__free(path);
}

/* The hash of a forger is right: numbers are checked all the same. */
TT_CASE(impossible_numbers_are_refused) {
    tt_err err = {0};
    char *path = in_dir("a.logits");
    int32_t ids[N * K];
    float logp[N * K], rest[N];
    uint8_t key[TT_LOGITS_KEY] = {0};
    for (int i = 0; i < 3; i++) {
        tt_logits *l = NULL;
        tt_logits_writer *w = NULL;
        window_of(0, HEAD.vocab, ids, logp, rest);
        if (i == 0) ids[4] = 300;
        if (i == 1) ids[4] = ids[3];
        if (i == 2) rest[1] = NAN;
        TT_CHECK_OK(tt__logits_create(path, &HEAD, &w, &err));
        tt_status st = tt__logits_add(w, key, ids, logp, rest, &err);
        TT_CHECK_EQ(st, i == 2 ? TT_FAIL : TT_OK);
        if (st != TT_OK) {
            tt__logits_abort(w);
            continue;
        }
        TT_CHECK_OK(tt__logits_commit(w, &err));
        TT_CHECK_FAILS(TT_BADFILE, tt__logits_open(path, &HEAD, &l, &err));
    }
    tt_logits_head bad = HEAD;
    tt_logits_writer *w = NULL;
    bad.k = 301;
    TT_CHECK_FAILS(TT_BADFILE, tt__logits_create(path, &bad, &w, &err));
    tt__free(path);
}

static tt_status write_and_read(void *arg, tt_err *err) {
    tt_logits_writer *w = NULL;
    tt_logits *l = NULL;
    int32_t ids[N * K];
    float logp[N * K], rest[N];
    uint8_t key[TT_LOGITS_KEY];
    window_of(0, HEAD.vocab, ids, logp, rest);
    key_of(0, key);
    TT_TRY(tt__logits_create(arg, &HEAD, &w, err));
    tt_status st = tt__logits_add(w, key, ids, logp, rest, err);
    if (st != TT_OK) {
        tt__logits_abort(w);
        return st;
    }
    TT_TRY(tt__logits_commit(w, err));
    TT_TRY(tt__logits_open(arg, &HEAD, &l, err));
    tt__logits_close(l);
    return TT_OK;
}

TT_CASE(failing_calls_leave_nothing_behind) {
    static const tt__fault_kind kinds[] = {TT_FAULT_ALLOC, TT_FAULT_OPEN, TT_FAULT_WRITE, TT_FAULT_RENAME, TT_FAULT_FSYNC, TT_FAULT_CLOSE, TT_FAULT_MMAP};
    char *path = in_dir("a.logits");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        tt_test_note("fault kind %d", (int)kinds[i]);
        TT_CHECK(tt_test_fault_loop(kinds[i], TT_FAULT_ONCE, write_and_read, path) >= 1);
    }
    tt__free(path);
}
