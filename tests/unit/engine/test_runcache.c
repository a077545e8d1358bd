/* The run cache: written once, used next time with the same results, rebuilt when damaged, foreign or out of date, whole when two processes make
 * it at once, absent without complaint where it cannot be. */
#include "engine/runcache.h"
#include "harness/tiny.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { D = 64, FF = 128, V = 320 };

static void add_gain(tt_gguf_writer *w, const char *name) {
    static float ones[D];
    const uint64_t ne[1] = {D};
    tt_err err = {0};
    for (int i = 0; i < D; i++) ones[i] = 1;
    TT_CHECK_OK(tt__gguf_add_tensor(w, name, TT_F32, 1, ne, ones, NULL, NULL, &err));
}

static void add_matrix(tt_gguf_writer *w, tt__rng *rng, uint8_t *data, const char *name, tt_dtype type, uint64_t rows, uint64_t cols) {
    const uint64_t ne[2] = {cols, rows}, bytes = (uint64_t)tt__dtype(type)->bytes, blocks = rows * cols / 32;
    const uint16_t d = tt__f32_to_f16(0.02f);
    tt_err err = {0};
    for (uint64_t i = 0; i < blocks * bytes; i++) data[i] = (uint8_t)tt__rng_u64(rng);
    for (uint64_t b = 0; b < blocks; b++) memcpy(data + b * bytes, &d, 2);
    TT_CHECK_OK(tt__gguf_add_tensor(w, name, type, 2, ne, data, NULL, NULL, &err));
}

/* A small Llama of Q4_0 with a Q8_0 embedding, whose matrices all have panels of their size. */
static const char *write_model(const char *file, uint64_t seed) {
    static const struct { const char *name; int rows, cols; } m[] = {{"attn_q", D, D}, {"attn_k", D / 2, D}, {"attn_v", D / 2, D}, {"attn_output", D, D},
                                                                   {"ffn_gate", FF, D}, {"ffn_up", FF, D}, {"ffn_down", D, FF}};
    static const struct { const char *key; uint32_t value; } sizes[] = {{"llama.embedding_length", D}, {"llama.feed_forward_length", FF}, {"llama.vocab_size", V},
                                                                      {"llama.rope.dimension_count", D / TINY_H}};
    const char *path = tt_test_path(file);
    uint8_t *data = tt__alloc(1 << 20), *at = data;
    tt_gguf_writer *w;
    tt__rng rng;
    tt_err err = {0};
    char name[64];
    tt__rng_seed(&rng, seed);
    TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
    tiny_hparams(w);
    tiny_tokenizer(w, false);
    for (int i = 0; i < 4; i++) TT_CHECK_OK(tt__gguf_set_u32(w, sizes[i].key, sizes[i].value, &err));
    add_matrix(w, &rng, at, "token_embd.weight", TT_Q8_0, V, D);
    at += V * D * 2;
    add_gain(w, "output_norm.weight");
    for (int l = 0; l < TINY_L; l++) {
        snprintf(name, sizeof name, "blk.%d.attn_norm.weight", l);
        add_gain(w, name);
        snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", l);
        add_gain(w, name);
        for (int i = 0; i < 7; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, m[i].name);
            add_matrix(w, &rng, at, name, TT_Q4_0, (uint64_t)m[i].rows, (uint64_t)m[i].cols);
            at += m[i].rows * m[i].cols;
        }
    }
    TT_CHECK_OK(tt__gguf_writer_save(w, path, &err));
    tt__gguf_writer_free(w);
    tt__free(data);
    return path;
}

static void set_cache(const char *dir) {
    setenv("TRIMTAB_CACHE", dir, 1);
    setenv("TT_RUN_CACHE_LEAST", "1", 1);
    unsetenv("TRIMTAB_RUN_CACHE");
}

/* Logits after a few tokens; says whether the cache was used. */
static bool run_model(const char *path, float logits[V]) {
    static const int32_t ids[] = {1, 50, 9, 200};
    tt_ctx_options o = tt_ctx_default_options();
    tt_ctx *ctx;
    tt_err err = {0};
    tt_model *m;
    tt_session *s;
    o.threads = 2;
    TT_CHECK_OK(tt_ctx_create(&o, &ctx, &err));
    TT_CHECK_OK(tt_model_open(ctx, path, NULL, &m, &err));
    TT_CHECK(m->run != NULL);
    for (size_t i = 0; i < m->net->n_weights; i++) TT_CHECK(!m->net->weights[i].op || tt__linop_panel(m->net->weights[i].op));
    TT_CHECK_OK(tt_session_create(m, NULL, &s, &err));
    TT_CHECK_OK(tt_session_feed(s, ids, 4, &err));
    memcpy(logits, tt_session_get_logits(s), V * sizeof(float));
    tt_session_free(s);
    const bool used = tt__runcache_used(m);
    tt_model_close(m);
    tt_ctx_free(ctx);
    return used;
}

/* The one file of the cache; freed by the caller. */
static char *cache_file(const char *cache) {
    char *dir = tt__path_join(cache, "run"), *path = NULL, command[4200], line[300] = "";
    TT_CHECK_EQ(tt_test_count_entries(dir), 1);
    snprintf(command, sizeof command, "ls '%s'", dir);
    FILE *f = popen(command, "r");
    TT_CHECK(f && fgets(line, sizeof line, f));
    pclose(f);
    line[strcspn(line, "\n")] = 0;
    path = tt__path_join(dir, line);
    tt__free(dir);
    return path;
}

static void check_same(const float *a, const float *b) { TT_CHECK(!memcmp(a, b, V * sizeof *a)); }

TT_CASE(written_then_used) {
    const char *cache = tt_test_path("cache"), *model = write_model("m.gguf", 1);
    float a[V], b[V];
    set_cache(cache);
    TT_CHECK(!run_model(model, a));
    TT_CHECK(run_model(model, b));
    check_same(a, b);
    setenv("TT_RUN_CACHE_LEAST", "1g", 1);                     /* too small for a cache */
    tt_err err = {0};
    tt_model *m;
    TT_CHECK_OK(tt_model_open(tt_test_ctx(1, NULL), model, NULL, &m, &err));
    TT_CHECK(!m->run);
    tt_model_close(m);
    tt__free(cache_file(cache));
}

static void flip(const char *path, long at, bool from_end) {
    FILE *f = fopen(path, "r+b");
    TT_CHECK(f && fseek(f, at, from_end ? SEEK_END : SEEK_SET) == 0);
    const int c = fgetc(f);
    fseek(f, at, from_end ? SEEK_END : SEEK_SET);
    fputc(c ^ 0x10, f);
    fclose(f);
}

TT_CASE(damage_is_found_and_mended) {
    const char *cache = tt_test_path("cache"), *model = write_model("m.gguf", 1);
    float a[V], b[V];
    struct stat st;
    set_cache(cache);
    run_model(model, a);
    char *path = cache_file(cache);
    TT_CHECK(stat(path, &st) == 0);
    for (long at = 0; at < st.st_size; at += at < 4000 ? 97 : 1511) {
        tt_test_note("byte %ld", at);
        flip(path, at, false);
        run_model(model, b);                                    /* a flip in zeros between tensors may also be refused: either is right */
        check_same(a, b);
        TT_CHECK(run_model(model, b));
        check_same(a, b);
    }
    for (long keep = 0; keep < st.st_size; keep += st.st_size / 7) {
        TT_CHECK(truncate(path, keep) == 0);
        TT_CHECK(!run_model(model, b));
        check_same(a, b);
    }
    flip(path, -1, true);
    TT_CHECK(!run_model(model, b));
    check_same(a, b);
    tt__free(path);
}

TT_CASE(another_model_s_file_is_not_taken) {
    const char *cache = tt_test_path("cache"), *first = write_model("m.gguf", 1), *second = write_model("n.gguf", 2);
    float a[V], b[V], c[V];
    char command[9000];
    set_cache(cache);
    run_model(first, a);
    char *one = cache_file(cache), *kept = tt__path_join(tt_test_tmpdir(), "kept");
    snprintf(command, sizeof command, "mv '%s' '%s'", one, kept);
    TT_CHECK(system(command) == 0);
    run_model(second, b);
    char *two = cache_file(cache);
    TT_CHECK(strcmp(one, two) != 0 && memcmp(a, b, sizeof a) != 0);
    snprintf(command, sizeof command, "cp '%s' '%s'", kept, two);
    TT_CHECK(system(command) == 0);
    TT_CHECK(!run_model(second, c));
    check_same(b, c);
    TT_CHECK(run_model(second, c));
    /* the source changes in place */
    struct timespec t[2] = {{100, 0}, {100, 0}};
    TT_CHECK(utimensat(AT_FDCWD, second, t, 0) == 0);
    TT_CHECK(!run_model(second, c));
    check_same(b, c);
    TT_CHECK(run_model(second, c));
    tt__free(one);
    tt__free(two);
    tt__free(kept);
}

TT_CASE(a_cache_that_cannot_be_is_no_error) {
    const char *model = write_model("m.gguf", 1), *file = tt_test_file("file", "x", 1);
    float a[V], b[V];
    set_cache(file);                                            /* a file where the folder should be */
    TT_CHECK(!run_model(model, a));
    TT_CHECK(!run_model(model, b));
    check_same(a, b);
    const char *cache = tt_test_path("cache");
    set_cache(cache);
    for (int i = 0; i < 3; i++) {
        static const char *const off[] = {"0", "off", "1000"};
        tt_err err = {0};
        tt_model *m;
        setenv("TRIMTAB_RUN_CACHE", off[i], 1);
        TT_CHECK_OK(tt_model_open(tt_test_ctx(1, NULL), model, NULL, &m, &err));
        tt_model_close(m);
        TT_CHECK(!tt__exists(cache));
    }
    unsetenv("TRIMTAB_RUN_CACHE");
}

TT_CASE(the_oldest_file_makes_room) {
    const char *cache = tt_test_path("cache"), *first = write_model("m.gguf", 1), *second = write_model("n.gguf", 2);
    float a[V];
    struct stat st;
    char limit[32];
    set_cache(cache);
    run_model(first, a);
    char *path = cache_file(cache);
    TT_CHECK(stat(path, &st) == 0);
    snprintf(limit, sizeof limit, "%lld", (long long)st.st_size * 3 / 2);
    setenv("TRIMTAB_RUN_CACHE", limit, 1);
    TT_CHECK(!run_model(second, a));
    char *left = cache_file(cache);
    TT_CHECK(strcmp(path, left) != 0);
    TT_CHECK(run_model(second, a) && !run_model(first, a));
    unsetenv("TRIMTAB_RUN_CACHE");
    tt__free(path);
    tt__free(left);
}

TT_CASE(two_processes_end_with_one_whole_file) {
    const char *cache = tt_test_path("cache"), *model = write_model("m.gguf", 1);
    float a[V], b[V];
    set_cache(cache);
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            tt_ctx_options o = tt_ctx_default_options();
            o.threads = 1;
            tt_ctx *ctx;
            tt_model *m;
            int bad = tt_ctx_create(&o, &ctx, NULL) != TT_OK || tt_model_open(ctx, model, NULL, &m, NULL) != TT_OK;
            if (!bad) tt_model_close(m);
            _exit(bad);
        }
    }
    for (int i = 0; i < 4; i++) {
        int status = 1;
        TT_CHECK(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
    }
    tt__free(cache_file(cache));
    TT_CHECK(run_model(model, a) && run_model(model, b));
    check_same(a, b);
}
