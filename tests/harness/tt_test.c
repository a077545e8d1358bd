/* The harness: main, the cases' clean-up, contexts, folders, the real model, fault loops. See tt_test.h. */
#include "harness/tt_test.h"

#include "base/env.h"
#include "base/file.h"
#include "base/util.h"
#include "kernels/kernels.h"
#include <dirent.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Weak: programs of base alone have no kernels layer. */
extern tt_status tt__kernels_get(const char *isa, const tt_kernels **out, tt_err *err) __attribute__((weak));

enum { MOST = 64 };
static tt_test_case *cases;
static jmp_buf leave;
enum { PASSED = 0, FAILED = 1, SKIPPED = 2 };
static char note[256], reason[2048];
static tt_ctx *contexts[MOST];
static char *strings[MOST * 16], *folder;
static int n_contexts, n_strings;

/* A sanitizer must hand NULL to code that asks for too much, as the C library does: that path is tested too. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "allocator_may_return_null=1"; }

/* Constructors run in the order of the file; appending keeps it. */
void tt_test_add(tt_test_case *c) {
    tt_test_case **end = &cases;
    while (*end) end = &(*end)->next;
    *end = c;
}

/* ------------------------------------------------------------ leaving a case ---- */

void tt_test_fail(const char *file, int line, const char *fmt, ...) {
    tt__fault_set(TT_FAULT_ALLOC, 0, TT_FAULT_OFF);
    const char *tests = strstr(file, "tests/");
    int n = snprintf(reason, sizeof reason, "%s:%d: %s%s", tests ? tests : file, line, note, note[0] ? ": " : "");
    va_list args;
    va_start(args, fmt);
    if (n > 0 && (size_t)n < sizeof reason) vsnprintf(reason + n, sizeof reason - (size_t)n, fmt, args);
    va_end(args);
    longjmp(leave, FAILED);
}

void tt_test_skip(const char *why) {
    snprintf(reason, sizeof reason, "%s", why);
    longjmp(leave, SKIPPED);
}

void tt_test_note(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(note, sizeof note, fmt, args);
    va_end(args);
}

const char *tt_test_err_line(tt_status status, const tt_err *err) {
    static char line[1400], text[1200];
    snprintf(line, sizeof line, "%s (%s)", tt_status_name(status), status == TT_OK ? "no failure" : tt_err_line(err, text, sizeof text));
    return line;
}

static void clean_up(void) {
    tt__fault_set(TT_FAULT_ALLOC, 0, TT_FAULT_OFF);
    while (n_contexts) {
        tt_ctx *ctx = contexts[--n_contexts];
        tt__ctx_done(ctx);
        tt__free(ctx);
    }
    if (folder) tt__remove_tree(folder, NULL);
    tt__free(folder);
    folder = NULL;
    while (n_strings) tt__free(strings[--n_strings]);
    note[0] = 0;
}

/* ------------------------------------------------------------ things for cases ---- */

tt_ctx *tt_test_ctx(int threads, const char *isa) {
    tt_ctx_options o = tt_ctx_default_options();
    tt_err err = {0};
    o.threads = threads;
    o.isa = isa;
    TT_CHECK(n_contexts < MOST);
    tt_ctx *ctx = tt__calloc(1, sizeof *ctx);
    TT_CHECK(ctx);
    tt_status st = tt__ctx_init(ctx, &o, &err);
    if (st != TT_OK) tt__free(ctx);
    TT_CHECK_OK(st);
    contexts[n_contexts++] = ctx;
    if (!tt__kernels_get) return ctx;
    st = tt__kernels_get(ctx->opt.isa, &ctx->k, &err);
    if (st == TT_USAGE && isa) tt_test_skip("this machine lacks the instruction set");
    TT_CHECK_OK(st);
    return ctx;
}

static const char *keep(char *s) {
    TT_CHECK(s && n_strings < MOST * 16);
    return strings[n_strings++] = s;
}

const char *tt_test_tmpdir(void) {
    if (folder) return folder;
    const char *base = tt__env(TT_ENV_TMPDIR);
    char *made = tt__path_join(base ? base : "/tmp", "trimtab-test-XXXXXX");
    TT_CHECK(made && mkdtemp(made));
    return folder = made;
}

const char *tt_test_path(const char *name) { return keep(tt__path_join(tt_test_tmpdir(), name)); }

const char *tt_test_file(const char *name, const void *data, size_t bytes) {
    tt_err err = {0};
    const char *path = tt_test_path(name);
    TT_CHECK_OK(tt__write_file(path, data, bytes, &err));
    return path;
}

int tt_test_count_entries(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return -1;
    int n = -2;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* Where `trimtab pull smollm2-135m-instruct` puts it. The folders are those of hub/places.c, which lies layers above most tests. */
static const char *pulled_model(void) {
    static const struct { tt__env_id id; const char *below; } places[] = {
        {TT_ENV_CACHE, "models"}, {TT_ENV_XDG_CACHE_HOME, "trimtab/models"}, {TT_ENV_HOME, ".cache/trimtab/models"}};
    static char path[4096];
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *base = tt__env(places[i].id);
        if (!base) continue;
        snprintf(path, sizeof path, "%s/%s/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf", base, places[i].below);
        return path;
    }
    return NULL;
}

const char *tt_test_model(void) {
    const char *path = tt__env(TT_ENV_TEST_MODEL) ? tt__env(TT_ENV_TEST_MODEL) : pulled_model();
    if (path && tt__exists(path)) return path;
    if (tt__env_true(TT_ENV_REQUIRE_MODEL)) tt_test_fail(__FILE__, __LINE__, "the real model is required (TRIMTAB_REQUIRE_MODEL) and not in the cache");
    tt_test_skip("the real model is not in the cache (trimtab pull smollm2-135m-instruct)");
}

uint64_t tt_test_fault_loop(tt__fault_kind kind, tt__fault_mode mode, tt_test_body body, void *arg) {
    for (uint64_t k = 1; k < 100000; k++) {
        tt_err err = {0};
        uint64_t before = tt__mem_now();
        tt_test_note("fault %d, call %llu, mode %d", (int)kind, (unsigned long long)k, (int)mode);
        tt__fault_set(kind, k, mode);
        tt_status st = body(arg, &err);
        bool fired = tt__fault_fired();
        tt__fault_set(kind, 0, TT_FAULT_OFF);
        TT_CHECK_EQ(tt__mem_now(), before);
        if (!fired) {
            TT_CHECK_OK(st);
            note[0] = 0;
            return k;
        }
        if (st != TT_OK) TT_CHECK(err.status == st && err.what[0]);
    }
    tt_test_fail(__FILE__, __LINE__, "the fault loop does not end");
}

/* ------------------------------------------------------------ main ---- */

static bool wanted(const char *name, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i])) return true;
    return argc <= 1;
}

/* Apart from main, so that none of its variables lives across the jump. */
static int run_case(void (*run)(void)) {
    int how = setjmp(leave);
    if (how == PASSED) run();
    clean_up();
    return how;
}

int main(int argc, char **argv) {
    static const char *const words[] = {"ok", "FAILED", "skipped"};
    int counts[3] = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
#ifndef TT_CORE
    json_set_alloc_funcs(tt__alloc, tt__free);             /* so that fault loops reach Jansson's allocations */
#endif
    for (tt_test_case *c = cases; c; c = c->next) {
        if (argc == 2 && strcmp(argv[1], "-l") == 0) {
            printf("%s\n", c->name);
            continue;
        }
        if (!wanted(c->name, argc, argv)) continue;
        double start = tt__now();
        int how = run_case(c->run);
        counts[how]++;
        printf("%-7s %s (%.0f ms)%s%s\n", words[how], c->name, 1e3 * (tt__now() - start), how ? ": " : "", how ? reason : "");
    }
    printf("%d passed, %d failed, %d skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
    return counts[FAILED] ? 1 : 0;
}
