/* safetensors: what opens, what is refused and why, folders with shards, writing. Seeds: tests/formats/gen_corpus.py. */
#include "base/limits.h"
#include "base/util.h"
#include "formats/corpus.h"
#include "formats/hf.h"
#include "formats/mutate.h"
#include "formats/safetensors.h"
#include "harness/tt_test.h"
#include <sys/stat.h>
#include <unistd.h>

static void use(const tt_st *st) {
    tt_err err = {0};
    for (size_t i = 0; i < tt__st_n(st); i++) {
        const tt_st_tensor *t = tt__st_tensor(st, i);
        float x[8];
        uint64_t n = 1;
        for (int d = 0; d < t->n_dims; d++) n *= t->shape[d];
        TT_CHECK(tt__st_find(st, t->name) == t);
        TT_CHECK(tt__st_to_f32(t, 0, n < 8 ? n : 8, x, &err) == (t->type == TT_ST_BOOL ? TT_BADFILE : TT_OK));
        TT_CHECK(tt__st_to_f32(t, n, 1, x, &err) != TT_OK);
        TT_CHECK(tt__st_to_f32(t, UINT64_MAX, 2, x, &err) != TT_OK);
    }
    for (size_t i = 0; i < tt__st_n_metadata(st); i++) {
        const char *value;
        TT_CHECK(tt__st_metadata(st, i, &value) && value);
    }
}

/* A folder with two shards (tensors a and b), a link out of it, a pipe and a folder among the files. */
static const char *shard_folder(void) {
    tt_err err = {0};
    const char *dir = tt_test_tmpdir();
    static const float one = 1, two = 2;
    tt_st_entry a = {.name = "a", .type = TT_ST_F32, .n_dims = 1, .shape = {1}, .data = &one}, b = {.name = "b", .type = TT_ST_F32, .n_dims = 0, .data = &two};
    TT_CHECK_OK(tt__st_save(tt_test_path("one.safetensors"), &a, 1, NULL, &err));
    TT_CHECK_OK(tt__st_save(tt_test_path("two.safetensors"), &b, 1, NULL, &err));
    TT_CHECK(mkfifo(tt_test_path("pipe.safetensors"), 0600) == 0);
    TT_CHECK(symlink("/etc/passwd", tt_test_path("out.safetensors")) == 0);
    TT_CHECK(mkdir(tt_test_path("sub"), 0700) == 0);
    return dir;
}

TT_CASE(names_of_seeds_are_kept) {
    corpus c = corpus_open("safetensors");
    const char *dir = shard_folder();
    int ok = 0, bad = 0;
    for (int i = 0; i < c.n; i++) {
        size_t n;
        char *bytes = corpus_read(&c, i, &n);
        if (!bytes) continue;
        tt_err err = {0};
        tt_st *st = NULL;
        json_t *config = NULL;
        bool json = n && bytes[0] == '{';
        tt_status status;
        bool config_seed = strstr(c.list[i]->d_name, "config") != NULL;
        if (json) TT_CHECK_OK(tt__write_file(tt_test_path(config_seed ? "config.json" : "model.safetensors.index.json"), bytes, n, &err));
        uint64_t before = tt__mem_now();
        tt__mem_reset_peak();
        if (json) {
            status = config_seed ? tt__hf_config(dir, &config, &err) : tt__st_open(dir, &st, &err);
            json_decref(config);
        } else status = tt__st_open_memory(bytes, n, "seed", &st, &err);
        if (corpus_is(&c, i, "ok_")) {
            if (status != TT_OK) tt_test_fail(__FILE__, __LINE__, "refused: %s", tt_test_err_line(status, &err));
            use(st);
            ok++;
        } else if (corpus_is(&c, i, "bad_")) {
            bool missing = strstr(c.list[i]->d_name, "index_missing") != NULL;      /* a file that is not there is no damaged file */
            if (status != (missing ? TT_FAIL : TT_BADFILE) || !err.what[0]) tt_test_fail(__FILE__, __LINE__, "%s", tt_test_err_line(status, &err));
            bad++;
        }
        TT_CHECK(tt__mem_peak() - before < (16 << 20) + 4 * n);
        tt__st_close(st);
        TT_CHECK_EQ(tt__mem_now(), before);
        tt__free(bytes);
    }
    corpus_close(&c);
    TT_CHECK(ok >= 35 && bad >= 75);
}

TT_CASE(refusals_say_what_is_wrong) {
    static const char *const cases[][2] = {
        {"bad_header_2p63", "header too large"}, {"bad_header_limit_plus_1", "header too large"}, {"bad_cut_at_020", "ends inside"}, {"bad_shape_product_wraps", "too large"},
        {"bad_overlap", "overlap"}, {"bad_hole", "unused bytes"}, {"bad_trailing_data", "unused bytes"}, {"bad_doubled_name", "doubled tensor name"},
        {"bad_doubled_metadata", "doubled __metadata__"}, {"bad_dtype_unknown", "type not supported"}, {"bad_size_does_not_fit_shape", "does not fit its shape"}, {"bad_nested_deep", "bad safetensors header"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[256], *bytes;
        size_t n;
        tt_err err = {0};
        tt_st *st;
        snprintf(path, sizeof path, "tests/fuzz/corpus/safetensors/%s", cases[i][0]);
        TT_CHECK_OK(tt__read_file(path, 1 << 20, &bytes, &n, &err));
        TT_CHECK_FAILS(TT_BADFILE, tt__st_open_memory(bytes, n, "seed", &st, &err));
        if (!strstr(err.what, cases[i][1])) tt_test_fail(__FILE__, __LINE__, "%s: \"%s\" lacks \"%s\"", cases[i][0], err.what, cases[i][1]);
        tt__free(bytes);
    }
}

/* The names in an index that must not be followed, by what is said (D2). */
TT_CASE(weight_map_does_not_leave_the_folder) {
    static const char *const cases[][2] = {{"/etc/passwd", "unsafe file name"}, {"../one.safetensors", "unsafe file name"}, {"sub/../../x", "unsafe file name"},
                                           {"out.safetensors", "link leads out"}, {"pipe.safetensors", "not a regular file"}, {"sub", "not a regular file"}};
    const char *dir = shard_folder();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_err err = {0};
        tt_st *st;
        char index[300];
        snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", cases[i][0]);
        TT_CHECK_OK(tt__write_file(tt_test_path("model.safetensors.index.json"), index, strlen(index), &err));
        TT_CHECK_FAILS(TT_BADFILE, tt__st_open(dir, &st, &err));
        if (!strstr(err.what, cases[i][1])) tt_test_fail(__FILE__, __LINE__, "%s: \"%s\" lacks \"%s\"", cases[i][0], err.what, cases[i][1]);
    }
}

/* The hub cache: snapshots/REV/NAME → ../../blobs/HASH. A link inside the folder is followed too. */
TT_CASE(hub_cache_links_are_followed) {
    tt_err err = {0};
    tt_st *st;
    static const float one = 1;
    tt_st_entry a = {.name = "a", .type = TT_ST_F32, .n_dims = 1, .shape = {1}, .data = &one};
    const char *index = "{\"weight_map\":{\"a\":\"x.safetensors\"}}", *snapshot = tt_test_path("models--o--n/snapshots/main");
    TT_CHECK_OK(tt__mkdirs(snapshot, &err));
    TT_CHECK_OK(tt__mkdirs(tt_test_path("models--o--n/blobs"), &err));
    TT_CHECK_OK(tt__st_save(tt_test_path("models--o--n/blobs/0123"), &a, 1, NULL, &err));
    TT_CHECK_OK(tt__write_file(tt_test_path("models--o--n/snapshots/main/model.safetensors.index.json"), index, strlen(index), &err));
    TT_CHECK(symlink("../../blobs/0123", tt_test_path("models--o--n/snapshots/main/x.safetensors")) == 0);
    TT_CHECK_OK(tt__st_open(snapshot, &st, &err));
    TT_CHECK(tt__st_find(st, "a") != NULL);
    tt__st_close(st);
}

TT_CASE(written_folders_read_back) {
    tt_err err = {0};
    tt_st *st;
    static uint8_t data[64];
    const char *dir = tt_test_path("model"), *value;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)i;
    tt_st_entry e[] = {{.name = "byte", .type = TT_ST_U8, .n_dims = 1, .shape = {3}, .data = data}, {.name = "w \"1\"", .type = TT_ST_F32, .n_dims = 2, .shape = {2, 4}, .data = data},
                       {.name = "half", .type = TT_ST_F16, .n_dims = 1, .shape = {5}, .data = data}, {.name = "none", .type = TT_ST_F32, .n_dims = 1, .shape = {0}, .data = data}};
    for (uint64_t shard = 0; shard < 40; shard += 16) {
        TT_CHECK_OK(tt__st_save_folder(dir, e, 4, shard, NULL, &err));
        TT_CHECK(tt__exists(tt_test_path("model/model.safetensors")) == (shard == 0));
        TT_CHECK_OK(tt__st_open(dir, &st, &err));
        TT_CHECK_EQ(tt__st_n(st), 4);
        for (int i = 0; i < 4; i++) {
            const tt_st_tensor *t = tt__st_find(st, e[i].name);
            TT_CHECK(t && t->type == e[i].type && t->n_dims == e[i].n_dims && memcmp(t->shape, e[i].shape, sizeof t->shape) == 0 && memcmp(t->data, data, t->bytes) == 0);
            if (shard == 0 && t->bytes) TT_CHECK((uintptr_t)t->data % (i == 1 ? 4 : i == 2 ? 2 : 1) == 0);      /* falling element size keeps all aligned */
        }
        TT_CHECK_STR(tt__st_metadata(st, 0, &value), "format");
        TT_CHECK_STR(value, "pt");
        tt__st_close(st);
    }
    e[2].name = "byte";
    TT_CHECK_FAILS(TT_FAIL, tt__st_save_folder(dir, e, 4, 0, NULL, &err));
    e[2].name = "__metadata__";
    TT_CHECK_FAILS(TT_FAIL, tt__st_save_folder(dir, e, 4, 0, NULL, &err));
}

TT_CASE(numbers_of_each_type) {
    static const struct { tt_st_dtype type; uint8_t bytes[8]; float value; } cases[] = {
        {TT_ST_U8, {200}, 200}, {TT_ST_I8, {200}, -56}, {TT_ST_I16, {0, 0x80}, -32768}, {TT_ST_U16, {0, 0x80}, 32768}, {TT_ST_F16, {0, 0x3c}, 1}, {TT_ST_BF16, {0x80, 0xbf}, -1},
        {TT_ST_I32, {0xff, 0xff, 0xff, 0xff}, -1}, {TT_ST_U32, {0, 0, 0, 0x80}, 2147483648.0f}, {TT_ST_F32, {0, 0, 0, 0x40}, 2}, {TT_ST_F64, {0, 0, 0, 0, 0, 0, 0xf0, 0x3f}, 1},
        {TT_ST_I64, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, -2}, {TT_ST_U64, {0, 0, 0, 0, 0, 0, 0, 0x80}, 9223372036854775808.0f},
        {TT_ST_F8_E4M3, {0x7e}, 448}, {TT_ST_F8_E4M3, {0x01}, 0x1p-9f}, {TT_ST_F8_E4M3, {0xb8}, -1}, {TT_ST_F8_E5M2, {0x7b}, 57344}, {TT_ST_F8_E5M2, {0x01}, 0x1p-16f}, {TT_ST_F8_E5M2, {0xbc}, -1},
        {TT_ST_F64, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xef, 0x7f}, INFINITY},
    };
    tt_err err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_st_tensor t = {.name = "x", .type = cases[i].type, .bytes = cases[i].type == TT_ST_F8_E4M3 || cases[i].type == TT_ST_F8_E5M2 ? 1 : 8, .data = cases[i].bytes};
        float x;
        tt_test_note("%s", tt__st_dtype_name(t.type));
        TT_CHECK_OK(tt__st_to_f32(&t, 0, 1, &x, &err));
        TT_CHECK(x == cases[i].value);
    }
    static const uint8_t nan = 0x7f;
    float x;
    TT_CHECK_OK(tt__st_to_f32(&(tt_st_tensor){.name = "x", .type = TT_ST_F8_E4M3, .bytes = 1, .data = &nan}, 0, 1, &x, &err));
    TT_CHECK(isnan(x));
}

/* ---- limits and memory ---- */

static char *many(uint64_t tensors, uint64_t pairs, size_t *size) {
    tt__str b = {0};
    tt__str_add(&b, "\0\0\0\0\0\0\0\0{", 9);
    if (pairs) tt__str_puts(&b, "\"__metadata__\":{");
    for (uint64_t i = 0; i < pairs; i++) tt__str_printf(&b, "%s\"%llx\":\"\"", i ? "," : "", (unsigned long long)i);
    if (pairs) tt__str_puts(&b, "}");
    for (uint64_t i = 0; i < tensors; i++) tt__str_printf(&b, "%s\"%llx\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i || pairs ? "," : "", (unsigned long long)i);
    tt__str_puts(&b, "}");
    uint64_t n = b.n - 8;
    TT_CHECK(!b.failed);
    memcpy(b.s, &n, 8);
    *size = b.n;
    return b.s;
}

TT_CASE(limits) {
    const struct { uint64_t tensors, pairs; const char *limit; } cases[] = {{TT_LIMIT_ST_TENSORS, 0, NULL}, {TT_LIMIT_ST_TENSORS + 1, 0, "ST_TENSORS"}, {0, TT_LIMIT_ST_META, NULL}, {0, TT_LIMIT_ST_META + 1, "ST_META"}};
    for (int i = 0; i < 4; i++) {
        size_t n;
        char *b = many(cases[i].tensors, cases[i].pairs, &n), line[1400];
        tt_err err = {0};
        tt_st *st = NULL;
        uint64_t before = tt__mem_now();
        tt__mem_reset_peak();
        if (!cases[i].limit) TT_CHECK_OK(tt__st_open_memory(b, n, "limit", &st, &err));
        else {
            TT_CHECK_FAILS(TT_BADFILE, tt__st_open_memory(b, n, "limit", &st, &err));
            TT_CHECK(strstr(tt_err_line(&err, line, sizeof line), cases[i].limit) != NULL);
        }
        TT_CHECK(tt__mem_peak() - before <= 4 * n + (16 << 20));       /* F11 */
        tt__st_close(st);
        tt__free(b);
    }
}

TT_CASE(mutated_files_never_crash) {
    corpus c = corpus_open("safetensors");
    uint64_t seed = 1, opened = 0, refused = 0;
    for (int i = 0; i < c.n; i++) {
        size_t n;
        char *bytes = corpus_read(&c, i, &n);
        if (bytes && corpus_is(&c, i, "ok_") && n > 8 && bytes[0] != '{') {
            uint8_t *copy = tt__alloc(n + 64);
            for (int k = 0; k < 500; k++) {
                tt_err err = {0};
                tt_st *st = NULL;
                memcpy(copy, bytes, n);
                size_t m = n;
                for (uint64_t edits = 1 + mutate_random(&seed) % 2; edits; edits--) m = mutate_json(copy, m, n + 64, 8, &seed);
                uint8_t *exact = tt__alloc(m);
                memcpy(exact, copy, m);
                tt_status status = tt__st_open_memory(exact, m, "mutated", &st, &err);
                TT_CHECK(status == TT_OK || (status == TT_BADFILE && err.what[0]));
                if (st) use(st);
                opened += status == TT_OK;
                refused += status != TT_OK;
                tt__st_close(st);
                tt__free(exact);
            }
            tt__free(copy);
        }
        tt__free(bytes);
    }
    corpus_close(&c);
    TT_CHECK(opened > 100 && refused > 5000);
}

static tt_status open_all(void *arg, tt_err *err) {
    tt_st *st = NULL;
    tt_status status = tt__st_open(arg, &st, err);
    tt__st_close(st);
    return status;
}
static tt_status save_all(void *arg, tt_err *err) {
    static const float x[2] = {1, 2};
    static const tt_st_entry e[] = {{.name = "a", .type = TT_ST_F32, .n_dims = 1, .shape = {2}, .data = x}, {.name = "b", .type = TT_ST_F32, .n_dims = 1, .shape = {1}, .data = x}};
    return tt__st_save_folder(arg, e, 2, 8, NULL, err);
}

TT_CASE(every_failing_call_is_survived) {
    tt_err err = {0};
    const char *dir = tt_test_path("m");
    static const tt__fault_kind reading[] = {TT_FAULT_ALLOC, TT_FAULT_OPEN, TT_FAULT_READ, TT_FAULT_MMAP};
    static const tt__fault_kind writing[] = {TT_FAULT_ALLOC, TT_FAULT_OPEN, TT_FAULT_WRITE, TT_FAULT_FSYNC, TT_FAULT_RENAME, TT_FAULT_CLOSE};
    TT_CHECK_OK(save_all((void *)(uintptr_t)dir, &err));
    for (size_t i = 0; i < 4; i++) TT_CHECK(tt_test_fault_loop(reading[i], TT_FAULT_ONCE, open_all, (void *)(uintptr_t)dir) > 1);
    for (size_t i = 0; i < 6; i++) TT_CHECK(tt_test_fault_loop(writing[i], TT_FAULT_ON, save_all, (void *)(uintptr_t)dir) > 1);
    TT_CHECK_EQ(tt_test_count_entries(dir), 3);
}
