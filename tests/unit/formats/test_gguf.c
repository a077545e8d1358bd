/* GGUF: what opens, what is refused and why, what survives a rewrite. The files come from tests/formats/gen_corpus.py. */
#include "base/file.h"
#include "base/limits.h"
#include "base/util.h"
#include "formats/corpus.h"
#include "formats/gguf_file.h"
#include "formats/mutate.h"
#include "harness/tt_test.h"
#include <sys/stat.h>

/* Asks everything of an open file: each key by its own type and by wrong ones, each tensor's outer blocks. */
static void use(const tt_gguf *g) {
    tt_err err = {0};
    for (size_t i = 0; i < tt__gguf_n_kv(g); i++) {
        tt_gguf_type type, element;
        uint64_t count;
        const char *key = tt__gguf_kv_key(g, i, &type, &element, &count), *s = NULL;
        char *text = NULL;
        int64_t v = 0;
        double f = 0;
        bool b = false;
        size_t n = 0;
        int32_t *is = NULL;
        float *fs = NULL;
        TT_CHECK(tt__gguf_has(g, key));
        TT_CHECK_OK(tt__gguf_kv_text(g, i, 3, &text, &err));
        TT_CHECK(strchr(text, '\n') == NULL);
        tt__free(text);
        int hits = 0;
        hits += tt__gguf_i64(g, key, true, INT64_MIN, INT64_MAX, &v, &err) == TT_OK;
        hits += tt__gguf_f64(g, key, true, &f, &err) == TT_OK;
        hits += tt__gguf_bool(g, key, true, &b, &err) == TT_OK;
        hits += tt__gguf_str(g, key, true, &s, &n, &err) == TT_OK;
        hits += tt__gguf_i32s(g, key, true, &is, &n, &err) == TT_OK;
        hits += tt__gguf_f32s(g, key, true, &fs, &n, &err) == TT_OK;
        tt__free(is);
        tt__free(fs);
        if (tt__gguf_strs(g, key, true, &n, &err) == TT_OK) {
            hits++;
            for (size_t k = 0; k < n; k++) TT_CHECK_OK(tt__gguf_strs_at(g, key, k, &s, &(size_t){0}, &err));
            TT_CHECK_FAILS(TT_BADFILE, tt__gguf_strs_at(g, key, n, &s, &(size_t){0}, &err));
        }
        TT_CHECK(hits <= 1);
    }
    for (size_t i = 0; i < tt__gguf_n_tensors(g); i++) {
        const tt_gguf_tensor *t = tt__gguf_tensor(g, i);
        const tt_dtype_info *info = tt__dtype(t->type);
        float x[256];
        TT_CHECK(tt__gguf_find(g, t->name) == t);
        tt__dtype_decode(t->type, t->data, x, info->block);
        tt__dtype_decode(t->type, t->data + t->bytes - (uint64_t)info->bytes, x, info->block);
    }
}

TT_CASE(names_of_seeds_are_kept) {
    corpus c = corpus_open("gguf");
    int ok = 0, bad = 0;
    for (int i = 0; i < c.n; i++) {
        size_t n;
        char *bytes = corpus_read(&c, i, &n);
        if (!bytes) continue;
        tt_err err = {0};
        tt_gguf *g = NULL;
        uint64_t before = tt__mem_now();
        tt__mem_reset_peak();
        if (corpus_is(&c, i, "ok_")) {
            TT_CHECK_OK(tt__gguf_open_memory(bytes, n, "seed", &g, &err));
            use(g);
            ok++;
        } else if (corpus_is(&c, i, "bad_")) {
            TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open_memory(bytes, n, "seed", &g, &err));
            TT_CHECK(strstr(err.where, "seed") != NULL);
            bad++;
        }
        TT_CHECK(tt__mem_peak() - before < (1 << 20));        /* nothing is reserved by a declared count */
        tt__gguf_close(g);
        TT_CHECK_EQ(tt__mem_now(), before);
        tt__free(bytes);
    }
    corpus_close(&c);
    TT_CHECK(ok >= 100 && bad >= 100);
}

TT_CASE(refusals_say_what_is_wrong) {
    static const char *const cases[][2] = {
        {"bad_magic", "not a GGUF file"}, {"bad_version_1", "version"}, {"bad_big_endian", "big-endian"}, {"bad_cut_at_030", "ends inside"},
        {"bad_n_kv_2p64m1", "too many metadata keys"}, {"bad_n_tensors_2p63", "too many tensors"}, {"bad_array_count_2p64m31", "array too long"},
        {"bad_string_length_2p32", "string too long"}, {"bad_dims_product_wraps", "too large"}, {"bad_exabyte_tensor", "beyond the file"}, {"bad_dims_int64_max", "bad dimension"}, {"bad_dim_zero", "bad dimension"},
        {"bad_row_not_whole_blocks", "whole number of blocks"}, {"bad_type_mxfp4", "type not supported"}, {"bad_offset_not_aligned", "not aligned"},
        {"bad_offset_beyond", "beyond the file"}, {"bad_overlap", "overlap"}, {"bad_gap", "unused bytes"}, {"bad_hidden_padding", "padding is not zero"},
        {"bad_trailing_payload", "unused bytes"}, {"bad_doubled_key", "doubled metadata key"}, {"bad_doubled_tensor", "doubled tensor name"},
        {"bad_align_i32", "wrong type"}, {"bad_align_24", "bad alignment"}, {"bad_bool_2", "bad boolean"}, {"bad_array_of_arrays", "array element type"},
        {"bad_name_64", "tensor name too long"}, {"bad_split_in_memory", "split"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[256], *bytes;
        size_t n;
        tt_err err = {0};
        tt_gguf *g;
        snprintf(path, sizeof path, "tests/fuzz/corpus/gguf/%s", cases[i][0]);
        tt_test_note("%s", cases[i][0]);
        TT_CHECK_OK(tt__read_file(path, 1 << 20, &bytes, &n, &err));
        TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open_memory(bytes, n, "seed", &g, &err));
        if (!strstr(err.what, cases[i][1])) tt_test_fail(__FILE__, __LINE__, "\"%s\" lacks \"%s\"", err.what, cases[i][1]);
        tt__free(bytes);
    }
}

/* The foreign type is named in the error. */
TT_CASE(foreign_types_are_named) {
    static const struct { uint32_t id; const char *name; } types[] = {{9, "Q8_1"}, {16, "IQ2_XXS"}, {39, "MXFP4"}, {41, "Q1_0"}, {137, "IQ2_K"}, {4, "retired"}, {77, "unknown type 77"}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        tt_dtype t;
        const char *name = "";
        TT_CHECK(!tt__dtype_from_gguf(types[i].id, &t, &name));
        TT_CHECK(strstr(name, types[i].name) != NULL);
    }
}

/* ---- writing ---- */

static tt_status two_parts(void *user, tt_gguf_emit emit, void *sink, tt_err *err) {
    const float *x = user;
    TT_TRY(emit(sink, x, 4, err));
    return emit(sink, x + 1, 20, err);
}
static tt_status too_long(void *user, tt_gguf_emit emit, void *sink, tt_err *err) {
    (void)user;
    uint8_t x[25] = {0};
    return emit(sink, x, sizeof x, err);
}
static tt_status too_short(void *user, tt_gguf_emit emit, void *sink, tt_err *err) { return emit(sink, user, 20, err); }

TT_CASE(written_values_read_back) {
    tt_err err = {0};
    tt_gguf_writer *w;
    tt_gguf *g;
    const char *path = tt_test_path("a.gguf"), *words[] = {"one", "", "drei\0"}, *s;
    const size_t lengths[] = {3, 0, 5};
    const int32_t ints[] = {-1, 0, 7};
    const float floats[] = {0.5f, -2}, x[6] = {1, 2, 3, 4, 5, 6};
    const uint64_t ne[] = {3, 2}, row[] = {32};
    uint8_t block[34] = {1, 2, 3};
    TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
    TT_CHECK_OK(tt__gguf_set_str(w, "s", "first", &err));
    TT_CHECK_OK(tt__gguf_set_u32(w, "u", 7, &err));
    TT_CHECK_OK(tt__gguf_set_u64(w, "big", UINT64_MAX, &err));
    TT_CHECK_OK(tt__gguf_set_f32(w, "f", 0.25f, &err));
    TT_CHECK_OK(tt__gguf_set_bool(w, "b", true, &err));
    TT_CHECK_OK(tt__gguf_set_strs(w, "words", words, lengths, 3, &err));
    TT_CHECK_OK(tt__gguf_set_i32s(w, "ints", ints, 3, &err));
    TT_CHECK_OK(tt__gguf_set_f32s(w, "floats", floats, 2, &err));
    TT_CHECK_OK(tt__gguf_set_str(w, "s", "second", &err));          /* replaced in place */
    TT_CHECK_OK(tt__gguf_add_tensor(w, "x", TT_F32, 2, ne, NULL, two_parts, (void *)(uintptr_t)x, &err));
    TT_CHECK_OK(tt__gguf_add_tensor(w, "q", TT_Q8_0, 1, row, block, NULL, NULL, &err));
    uint64_t expected = tt__gguf_writer_bytes(w);
    TT_CHECK_OK(tt__gguf_writer_save(w, path, &err));
    tt__gguf_writer_free(w);

    struct stat sb;
    TT_CHECK(stat(path, &sb) == 0 && (uint64_t)sb.st_size == expected);
    TT_CHECK_OK(tt__gguf_open(path, &g, &err));
    int64_t v = 0;
    double f = 0;
    bool b = false;
    size_t n;
    int32_t *is;
    float *fs;
    TT_CHECK_STR(tt__gguf_kv_key(g, 0, NULL, NULL, NULL), "s");
    TT_CHECK_OK(tt__gguf_str(g, "s", true, &s, &n, &err));
    TT_CHECK(n == 6 && memcmp(s, "second", 6) == 0);
    TT_CHECK_OK(tt__gguf_i64(g, "u", true, 0, 100, &v, &err));
    TT_CHECK_EQ(v, 7);
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_i64(g, "u", true, 0, 6, &v, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_i64(g, "big", true, 0, INT64_MAX, &v, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_i64(g, "missing", true, 0, 1, &v, &err));
    v = 42;
    TT_CHECK_OK(tt__gguf_i64(g, "missing", false, 0, 1, &v, &err));
    TT_CHECK_EQ(v, 42);
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_i64(g, "s", false, 0, 1, &v, &err));
    TT_CHECK_OK(tt__gguf_f64(g, "f", true, &f, &err));
    TT_CHECK(f == 0.25);
    TT_CHECK_OK(tt__gguf_bool(g, "b", true, &b, &err));
    TT_CHECK(b);
    TT_CHECK_OK(tt__gguf_strs_at(g, "words", 2, &s, &n, &err));
    TT_CHECK(n == 5 && memcmp(s, "drei", 5) == 0);
    TT_CHECK_OK(tt__gguf_i32s(g, "ints", true, &is, &n, &err));
    TT_CHECK(n == 3 && memcmp(is, ints, sizeof ints) == 0);
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_f32s(g, "ints", true, &fs, &n, &err));       /* F5 */
    TT_CHECK_OK(tt__gguf_f32s(g, "floats", true, &fs, &n, &err));
    TT_CHECK(n == 2 && memcmp(fs, floats, sizeof floats) == 0);
    const tt_gguf_tensor *t = tt__gguf_find(g, "x");
    TT_CHECK(t && t->n_dims == 2 && t->ne[0] == 3 && t->ne[1] == 2 && memcmp(t->data, x, sizeof x) == 0);
    TT_CHECK(memcmp(tt__gguf_find(g, "q")->data, block, sizeof block) == 0);
    TT_CHECK(tt__gguf_find(g, "nothing") == NULL);
    tt__free(is);
    tt__free(fs);
    tt__gguf_close(g);
}

TT_CASE(wrong_lengths_leave_no_file) {
    tt_err err = {0};
    const uint64_t ne[] = {6};
    const float x[6] = {0};
    tt_gguf_produce bad[] = {too_long, too_short};
    for (int i = 0; i < 2; i++) {
        tt_gguf_writer *w;
        TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
        TT_CHECK_OK(tt__gguf_add_tensor(w, "x", TT_F32, 1, ne, NULL, bad[i], (void *)(uintptr_t)x, &err));
        TT_CHECK_FAILS(TT_FAIL, tt__gguf_writer_save(w, tt_test_path("a.gguf"), &err));
        tt__gguf_writer_free(w);
        TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 0);
    }
}

TT_CASE(the_writer_refuses_what_no_reader_takes) {
    tt_err err = {0};
    tt_gguf_writer *w;
    const uint64_t ne[] = {33}, none[] = {0};
    char name[66];
    memset(name, 'n', 64);
    name[64] = 0;
    TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__gguf_add_tensor(w, "x", TT_Q4_0, 1, ne, "", NULL, NULL, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__gguf_add_tensor(w, "x", TT_F32, 1, none, "", NULL, NULL, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__gguf_add_tensor(w, "x", TT_F32, 5, ne, "", NULL, NULL, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__gguf_add_tensor(w, name, TT_F32, 1, ne, "", NULL, NULL, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__gguf_set_u32(w, "", 1, &err));
    TT_CHECK_OK(tt__gguf_add_tensor(w, "x", TT_I8, 1, ne, "", NULL, NULL, &err));
    TT_CHECK_OK(tt__gguf_add_tensor(w, "x", TT_I8, 1, ne, "", NULL, NULL, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__gguf_writer_save(w, tt_test_path("a.gguf"), &err));
    tt__gguf_writer_free(w);
}

static void rewrite(const tt_gguf *g, const char *path) {
    tt_err err = {0};
    tt_gguf_writer *w;
    TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
    TT_CHECK_OK(tt__gguf_writer_copy_kv(w, g, NULL, &err));
    for (size_t i = 0; i < tt__gguf_n_tensors(g); i++) {
        const tt_gguf_tensor *t = tt__gguf_tensor(g, i);
        TT_CHECK_OK(tt__gguf_add_tensor(w, t->name, t->type, t->n_dims, t->ne, t->data, NULL, NULL, &err));
    }
    TT_CHECK_OK(tt__gguf_writer_save(w, path, &err));
    tt__gguf_writer_free(w);
}

TT_CASE(a_rewrite_keeps_every_key_and_byte) {
    corpus c = corpus_open("gguf");
    const char *path = tt_test_path("again.gguf");
    for (int i = 0; i < c.n; i++) {
        size_t n;
        char *bytes = corpus_read(&c, i, &n);
        tt_err err = {0};
        tt_gguf *g, *h;
        if (bytes && corpus_is(&c, i, "ok_")) {
            TT_CHECK_OK(tt__gguf_open_memory(bytes, n, "seed", &g, &err));
            rewrite(g, path);
            TT_CHECK_OK(tt__gguf_open(path, &h, &err));
            size_t at = 0;
            for (size_t k = 0; k < tt__gguf_n_kv(g); k++) {
                const tt_gguf_kv *a = tt__gguf_kv_at(g, k);
                if (strncmp(a->key, "split.", 6) == 0 || strcmp(a->key, "general.alignment") == 0) continue;
                const tt_gguf_kv *b = tt__gguf_kv_at(h, at++);
                TT_CHECK_STR(b->key, a->key);
                TT_CHECK(b->type == a->type && b->raw_bytes == a->raw_bytes && memcmp(b->raw, a->raw, a->raw_bytes) == 0);
            }
            TT_CHECK_EQ(at, tt__gguf_n_kv(h));
            TT_CHECK_EQ(tt__gguf_n_tensors(h), tt__gguf_n_tensors(g));
            for (size_t k = 0; k < tt__gguf_n_tensors(g); k++) {
                const tt_gguf_tensor *a = tt__gguf_tensor(g, k), *b = tt__gguf_tensor(h, k);
                TT_CHECK_STR(b->name, a->name);
                TT_CHECK(b->type == a->type && b->n_dims == a->n_dims && memcmp(a->ne, b->ne, sizeof a->ne) == 0 && memcmp(a->data, b->data, a->bytes) == 0);
            }
            tt__gguf_close(h);
            tt__gguf_close(g);
        }
        tt__free(bytes);
    }
    corpus_close(&c);
}

/* ---- shards ---- */

static void write_shard(const char *path, int no, int count, int total, const char *tensor) {
    tt_err err = {0};
    tt_gguf_writer *w;
    const uint64_t ne[] = {4};
    static const float x[4] = {1, 2, 3, 4};
    TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
    TT_CHECK_OK(tt__gguf_set_str(w, "general.architecture", "llama", &err));
    TT_CHECK_OK(tt__gguf_set_u32(w, "split.no", (uint32_t)no, &err));
    TT_CHECK_OK(tt__gguf_set_u32(w, "split.count", (uint32_t)count, &err));
    TT_CHECK_OK(tt__gguf_set_u32(w, "split.tensors.count", (uint32_t)total, &err));
    TT_CHECK_OK(tt__gguf_add_tensor(w, tensor, TT_F32, 1, ne, x, NULL, NULL, &err));
    TT_CHECK_OK(tt__gguf_writer_save(w, path, &err));
    tt__gguf_writer_free(w);
}

TT_CASE(shards) {
    tt_err err = {0};
    tt_gguf *g;
    const char *a = tt_test_path("m-00001-of-00002.gguf"), *b = tt_test_path("m-00002-of-00002.gguf"), *other = tt_test_path("m.gguf");
    write_shard(a, 0, 2, 2, "one");
    TT_CHECK_FAILS(TT_FAIL, tt__gguf_open(a, &g, &err));                  /* the second is missing */
    write_shard(b, 1, 2, 2, "two");
    TT_CHECK_OK(tt__gguf_open(a, &g, &err));
    TT_CHECK_EQ(tt__gguf_n_tensors(g), 2);
    TT_CHECK(tt__rdf32(tt__gguf_find(g, "two")->data + 4) == 2);
    rewrite(g, other);                                                    /* joined */
    tt__gguf_close(g);
    TT_CHECK_OK(tt__gguf_open(other, &g, &err));
    TT_CHECK(!tt__gguf_has(g, "split.count") && tt__gguf_n_tensors(g) == 2);
    tt__gguf_close(g);
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open(b, &g, &err));
    TT_CHECK(strstr(err.what, "not the first part") != NULL);
    write_shard(b, 0, 2, 2, "two");
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open(a, &g, &err));
    TT_CHECK(strstr(err.what, "does not belong here") != NULL);
    write_shard(b, 1, 2, 2, "one");
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open(a, &g, &err));
    TT_CHECK(strstr(err.what, "doubled tensor name") != NULL);
    write_shard(a, 0, 2, 3, "one");
    write_shard(b, 1, 2, 3, "two");
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open(a, &g, &err));
    TT_CHECK(strstr(err.what, "miss tensors") != NULL);
    write_shard(other, 0, 2, 2, "one");
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open(other, &g, &err));
    TT_CHECK(strstr(err.what, "without its number") != NULL);
}

TT_CASE(only_regular_files) {
    tt_err err = {0};
    tt_gguf *g;
    const char *pipe = tt_test_path("p.gguf");
    TT_CHECK(mkfifo(pipe, 0600) == 0);
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open(pipe, &g, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open(tt_test_tmpdir(), &g, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__gguf_open(tt_test_path("none.gguf"), &g, &err));
}

/* ---- limits: the value passes, the next fails and names the limit ---- */

typedef struct blob { uint8_t *b; size_t n; } blob;      /* zero pages until written: large files cost nothing here */
static blob blob_new(size_t cap) { return (blob){calloc(1, cap), 0}; }
static void add_u32(blob *f, uint32_t v) { memcpy(f->b + f->n, &v, 4), f->n += 4; }
static void add_u64(blob *f, uint64_t v) { memcpy(f->b + f->n, &v, 8), f->n += 8; }
static void add_name(blob *f, const char *s, size_t n) {
    add_u64(f, n);
    if (s) memcpy(f->b + f->n, s, strlen(s) < n ? strlen(s) : n);
    f->n += n;
}
static void add_header(blob *f, uint64_t tensors, uint64_t keys) {
    memcpy(f->b, "GGUF", 4), f->n = 4;
    add_u32(f, 3);
    add_u64(f, tensors);
    add_u64(f, keys);
}
static void check_limit(blob *f, bool fits, const char *limit) {
    tt_err err = {0};
    tt_gguf *g = NULL;
    tt_test_note("%s, %s", limit, fits ? "at the limit" : "above");
    if (fits) TT_CHECK_OK(tt__gguf_open_memory(f->b, f->n, "limit", &g, &err));
    else {
        TT_CHECK_FAILS(TT_BADFILE, tt__gguf_open_memory(f->b, f->n, "limit", &g, &err));
        char line[1400];
        tt_err_line(&err, line, sizeof line);
        TT_CHECK(strstr(line, limit) != NULL);
    }
    tt__gguf_close(g);
    free(f->b);
}

TT_CASE(limits_of_keys) {
    for (uint64_t over = 0; over < 2; over++) {
        uint64_t n = TT_LIMIT_GGUF_KV + over;
        blob f = blob_new((size_t)n * 32);
        add_header(&f, 0, n);
        for (uint64_t i = 0; i < n; i++) {
            char key[24];
            snprintf(key, sizeof key, "%llx", (unsigned long long)i);
            add_name(&f, key, strlen(key));
            add_u32(&f, TT_GGUF_U8);
            f.n++;
        }
        check_limit(&f, !over, "GGUF_KV");

        n = TT_LIMIT_GGUF_KEY + over;
        f = blob_new((size_t)n + 64);
        add_header(&f, 0, 1);
        add_u64(&f, n);
        memset(f.b + f.n, 'k', n), f.n += n;
        add_u32(&f, TT_GGUF_U8);
        f.n++;
        check_limit(&f, !over, "GGUF_KEY");
    }
}

TT_CASE(limits_of_values) {
    for (uint64_t over = 0; over < 2; over++) {
        blob f = blob_new((size_t)TT_LIMIT_GGUF_STRING + 128);
        add_header(&f, 0, 1);
        add_name(&f, "s", 1);
        add_u32(&f, TT_GGUF_STRING);
        add_name(&f, NULL, TT_LIMIT_GGUF_STRING + over);
        check_limit(&f, !over, "GGUF_STRING");

        f = blob_new((size_t)TT_LIMIT_GGUF_ARRAY + 128);
        add_header(&f, 0, 1);
        add_name(&f, "a", 1);
        add_u32(&f, TT_GGUF_ARRAY);
        add_u32(&f, TT_GGUF_U8);
        add_u64(&f, TT_LIMIT_GGUF_ARRAY + over);
        f.n += TT_LIMIT_GGUF_ARRAY + over;
        check_limit(&f, !over, "GGUF_ARRAY");

        uint64_t parts = TT_LIMIT_GGUF_META / TT_LIMIT_GGUF_ARRAY, left = TT_LIMIT_GGUF_META;
        f = blob_new((size_t)TT_LIMIT_GGUF_META + 4096);
        add_header(&f, 0, parts);
        for (uint64_t i = 0; i < parts; i++) {
            char key[] = {(char)('a' + i), 0};
            add_name(&f, key, 1);
            add_u32(&f, TT_GGUF_ARRAY);
            add_u32(&f, TT_GGUF_U8);
            uint64_t n = i + 1 < parts ? TT_LIMIT_GGUF_ARRAY : left - f.n - 8 + over;
            add_u64(&f, n);
            f.n += n;
        }
        check_limit(&f, !over, "GGUF_META");
    }
}

TT_CASE(limits_of_tensors) {
    for (uint64_t over = 0; over < 2; over++) {
        uint64_t n = TT_LIMIT_GGUF_TENSORS + over;
        blob f = blob_new((size_t)n * 96 + 64);
        add_header(&f, n, 0);
        for (uint64_t i = 0; i < n; i++) {
            char name[16];
            snprintf(name, sizeof name, "%llx", (unsigned long long)i);
            add_name(&f, name, strlen(name));
            add_u32(&f, 1);
            add_u64(&f, 1);
            add_u32(&f, 24);
            add_u64(&f, i * 32);
        }
        f.n = (f.n + 31) / 32 * 32 + (size_t)n * 32;
        check_limit(&f, !over, "GGUF_TENSORS");
    }
}

/* ---- hostile bytes ---- */

TT_CASE(mutated_files_never_crash) {
    corpus c = corpus_open("gguf");
    uint64_t seed = 1, opened = 0, refused = 0;
    for (int i = 0; i < c.n; i++) {
        size_t n;
        char *bytes = corpus_read(&c, i, &n);
        if (bytes && corpus_is(&c, i, "ok_")) {
            uint8_t *copy = tt__alloc(n);
            for (int k = 0; k < 300; k++) {
                tt_err err = {0};
                tt_gguf *g = NULL;
                memcpy(copy, bytes, n);
                size_t m = mutate_gguf(copy, n, &seed);
                uint8_t *exact = tt__alloc(m);                     /* its own block: a read behind its end is seen by sanitizers */
                memcpy(exact, copy, m);
                tt_status st = tt__gguf_open_memory(exact, m, "mutated", &g, &err);
                TT_CHECK(st == TT_OK || (st == TT_BADFILE && err.what[0]));
                if (g) use(g);
                opened += st == TT_OK;
                refused += st != TT_OK;
                tt__gguf_close(g);
                tt__free(exact);
            }
            tt__free(copy);
        }
        tt__free(bytes);
    }
    corpus_close(&c);
    TT_CHECK(opened > 1000 && refused > 10000);
}

static tt_status open_all(void *arg, tt_err *err) {
    tt_gguf *g = NULL;
    tt_status st = tt__gguf_open(arg, &g, err);
    tt__gguf_close(g);
    return st;
}
static tt_status save_small(void *arg, tt_err *err) {
    tt_gguf_writer *w = NULL;
    const uint64_t ne[] = {4};
    static const float x[4] = {1, 2, 3, 4};
    tt_status st = tt__gguf_writer_create(&w, err);
    if (st == TT_OK) st = tt__gguf_set_str(w, "k", "v", err);
    if (st == TT_OK) st = tt__gguf_add_tensor(w, "x", TT_F32, 1, ne, x, NULL, NULL, err);
    if (st == TT_OK) st = tt__gguf_writer_save(w, arg, err);
    tt__gguf_writer_free(w);
    return st;
}

TT_CASE(every_failing_call_is_survived) {
    const char *a = tt_test_path("m-00001-of-00002.gguf"), *b = tt_test_path("m-00002-of-00002.gguf"), *out = tt_test_path("out.gguf");
    static const tt__fault_kind reading[] = {TT_FAULT_ALLOC, TT_FAULT_OPEN, TT_FAULT_MMAP};
    static const tt__fault_kind writing[] = {TT_FAULT_ALLOC, TT_FAULT_OPEN, TT_FAULT_WRITE, TT_FAULT_FSYNC, TT_FAULT_RENAME, TT_FAULT_CLOSE};
    write_shard(a, 0, 2, 2, "one");
    write_shard(b, 1, 2, 2, "two");
    for (size_t i = 0; i < 3; i++) TT_CHECK(tt_test_fault_loop(reading[i], TT_FAULT_ONCE, open_all, (void *)(uintptr_t)a) > 1);
    for (size_t i = 0; i < 6; i++) TT_CHECK(tt_test_fault_loop(writing[i], TT_FAULT_ON, save_small, (void *)(uintptr_t)out) > 1);
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 3);
}

/* ---- the real model ---- */

TT_CASE(real_model_opens_fast) {
    const char *path = tt_test_model();
    tt_err err = {0};
    tt_gguf *g;
    double best = 1;
    for (int i = 0; i < 3; i++) {
        uint64_t before = tt__mem_now();
        double t = tt__now();
        TT_CHECK_OK(tt__gguf_open(path, &g, &err));
        t = tt__now() - t;
        best = t < best ? t : best;
        TT_CHECK(tt__mem_now() - before < (4 << 20));          /* arrays are indexed, not copied */
        if (i == 0) use(g);
        tt__gguf_close(g);
    }
    TT_CHECK(best < 0.05);
}
