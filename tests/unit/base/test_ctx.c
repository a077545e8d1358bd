/* The context's base half: options, threads, scratch, cancelling, sinks; fault texts. */
#include "harness/tt_test.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

TT_CASE(options_of_any_age_are_read) {
    tt_err err = {0};
    tt_ctx ctx;
    tt_ctx_options o = tt_ctx_default_options();
    TT_CHECK_EQ(o.size, sizeof o);
    o.size = offsetof(tt_ctx_options, isa);                /* compiled against an older header */
    o.threads = 2;
    o.isa = (const char *)1;                               /* beyond the size: must not be read */
    TT_CHECK_OK(tt__ctx_init(&ctx, &o, &err));
    TT_CHECK_EQ(tt_ctx_threads(&ctx), 2);
    TT_CHECK(!ctx.opt.isa || (uintptr_t)ctx.opt.isa != 1);
    tt__ctx_done(&ctx);
    struct { tt_ctx_options o; char more[64]; } newer = {.o = tt_ctx_default_options()};
    newer.o.size = sizeof newer;
    newer.o.threads = 1;
    TT_CHECK_OK(tt__ctx_init(&ctx, &newer.o, &err));
    tt__ctx_done(&ctx);
    o.size = 0;
    TT_CHECK_FAILS(TT_USAGE, tt__ctx_init(&ctx, &o, &err));
}

TT_CASE(threads_come_from_options_then_environment_then_machine) {
    tt_err err = {0};
    tt_ctx ctx;
    tt_ctx_options o = tt_ctx_default_options();
    char *old = getenv("TRIMTAB_THREADS") ? tt__strdup(getenv("TRIMTAB_THREADS")) : NULL;
    setenv("TRIMTAB_THREADS", "3", 1);
    TT_CHECK_OK(tt__ctx_init(&ctx, NULL, &err));
    TT_CHECK_EQ(tt_ctx_threads(&ctx), 3);
    tt__ctx_done(&ctx);
    o.threads = 2;
    TT_CHECK_OK(tt__ctx_init(&ctx, &o, &err));
    TT_CHECK_EQ(tt_ctx_threads(&ctx), 2);
    tt__ctx_done(&ctx);
    static const char *const bad[] = {"0", "-1", "two", "1025", " 2", "2 "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("TRIMTAB_THREADS", bad[i], 1);
        TT_CHECK_FAILS(TT_USAGE, tt__ctx_init(&ctx, NULL, &err));
    }
    unsetenv("TRIMTAB_THREADS");
    o.threads = -1;
    TT_CHECK_FAILS(TT_USAGE, tt__ctx_init(&ctx, &o, &err));
    TT_CHECK_OK(tt__ctx_init(&ctx, NULL, &err));
    TT_CHECK_EQ(tt_ctx_threads(&ctx), tt__cpus_usable());
    tt__ctx_done(&ctx);
    if (old) setenv("TRIMTAB_THREADS", old, 1);
    tt__free(old);
}

TT_CASE(cancel_stops_long_work) {
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_err err = {0};
    TT_CHECK_OK(tt__check_cancel(ctx, &err));
    tt_ctx_cancel(ctx, TT_INTERRUPTED);
    TT_CHECK_FAILS(TT_INTERRUPTED, tt__check_cancel(ctx, &err));
    TT_CHECK_STR(err.what, "interrupted");
    tt_ctx_cancel(ctx, TT_TERMINATED);
    TT_CHECK_FAILS(TT_TERMINATED, tt__check_cancel(ctx, &err));
    tt_ctx_cancel(ctx, TT_OK);
    TT_CHECK_OK(tt__check_cancel(ctx, &err));
}

static void *cancel_soon(void *arg) {
    usleep(2000);
    tt_ctx_cancel(arg, TT_INTERRUPTED);
    return NULL;
}

TT_CASE(cancel_reaches_from_another_thread) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tt_err err = {0};
    pthread_t t;
    TT_CHECK_EQ(pthread_create(&t, NULL, cancel_soon, ctx), 0);
    while (tt__check_cancel(ctx, &err) == TT_OK) usleep(100);
    pthread_join(t, NULL);
    TT_CHECK_EQ(err.status, TT_INTERRUPTED);
}

TT_CASE(scratch_grows_for_every_worker) {
    tt_ctx *ctx = tt_test_ctx(3, NULL);
    tt_err err = {0};
    TT_CHECK_OK(tt__scratch_reserve(ctx, 100, &err));
    TT_CHECK_OK(tt__scratch_reserve(ctx, 5000, &err));
    for (int i = 0; i < 3; i++) {
        TT_CHECK((uintptr_t)tt__scratch(ctx, i) % 64 == 0);
        memset(tt__scratch(ctx, i), i, 5000);
    }
    void *before = tt__scratch(ctx, 1);
    TT_CHECK_OK(tt__scratch_reserve(ctx, 4000, &err));
    TT_CHECK(tt__scratch(ctx, 1) == before);
    tt__fault_set(TT_FAULT_ALLOC, 2, TT_FAULT_ONCE);
    TT_CHECK_FAILS(TT_RESOURCE, tt__scratch_reserve(ctx, 9000, &err));
    TT_CHECK_OK(tt__scratch_reserve(ctx, 9000, &err));
}

static tt_status init_body(void *arg, tt_err *err) {
    tt_ctx ctx;
    tt_ctx_options o = tt_ctx_default_options();
    o.threads = 3;
    o.isa = arg;
    TT_TRY(tt__ctx_init(&ctx, &o, err));
    tt__ctx_done(&ctx);
    return TT_OK;
}

TT_CASE(creation_survives_every_fault) {
    char isa[] = "scalar";
    for (int mode = TT_FAULT_ONCE; mode <= TT_FAULT_ON; mode++) {
        TT_CHECK_EQ(tt_test_fault_loop(TT_FAULT_ALLOC, (tt__fault_mode)mode, init_body, isa), 8u);
        TT_CHECK_EQ(tt_test_fault_loop(TT_FAULT_THREAD, (tt__fault_mode)mode, init_body, isa), 3u);
    }
}

typedef struct seen { int lines, reports; tt_log_level level; char line[256]; double done; } seen;
static void on_log(void *user, tt_log_level level, const char *line) {
    seen *s = user;
    s->lines++;
    s->level = level;
    snprintf(s->line, sizeof s->line, "%s", line);
}
static void on_progress(void *user, const char *task, double done, double total, const char *unit, const char *note) {
    (void)task, (void)total, (void)unit, (void)note;
    seen *s = user;
    s->reports++;
    s->done = done;
}

TT_CASE(sinks) {
    seen s = {0};
    tt_err err = {0};
    tt_ctx ctx;
    tt_ctx_options o = tt_ctx_default_options();
    o.threads = 1;
    o.log = on_log;
    o.progress = on_progress;
    o.log_user = o.progress_user = &s;
    TT_CHECK_OK(tt__ctx_init(&ctx, &o, &err));
    tt__log(&ctx, TT_LOG_WARN, "loss %d\n%s", 3, "\x1b[2J");
    TT_CHECK(s.lines == 1 && s.level == TT_LOG_WARN);
    TT_CHECK_STR(s.line, "loss 3\\n\\x1b[2J");
    for (int i = 0; i <= 1000; i++) tt__progress(&ctx, "work", i, 1000, "steps", NULL);
    TT_CHECK(s.reports >= 2 && s.reports < 20 && s.done == 1000);   /* the first, the last, and not all between */
    tt__ctx_done(&ctx);
    tt_ctx *silent = tt_test_ctx(1, NULL);
    tt__log(silent, TT_LOG_ERROR, "nobody hears");
    tt__progress(silent, "work", 1, 1, "", "");
}

/* ------------------------------------------------------------ faults ---- */

TT_CASE(fault_texts_are_strict) {
    tt_err err = {0};
    tt__fault_kind kind;
    tt__fault_mode mode;
    uint64_t k;
    TT_CHECK_OK(tt__fault_parse("alloc:17:once", &kind, &k, &mode, &err));
    TT_CHECK(kind == TT_FAULT_ALLOC && k == 17 && mode == TT_FAULT_ONCE);
    TT_CHECK_OK(tt__fault_parse("thread:1:kill", &kind, &k, &mode, &err));
    TT_CHECK(kind == TT_FAULT_THREAD && k == 1 && mode == TT_FAULT_KILL);
    static const char *const bad[] = {"", "alloc", "alloc:1", "alloc:0:once", "alloc:-1:once", "alloc:1:off", "alloc:1:twice", "Alloc:1:on", "alloc:1:on:", "alloc: 1:on",
                                      "alloc::on", "allo:1:on", ":1:on", "alloc:99999999999999999999999999:on", "alloc:1x:on"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) TT_CHECK_FAILS(TT_USAGE, tt__fault_parse(bad[i], &kind, &k, &mode, &err));
    tt_ctx ctx;
    setenv("TT_FAULT", "alloc:1:twice", 1);
    TT_CHECK_FAILS(TT_USAGE, tt__ctx_init(&ctx, NULL, &err));
    unsetenv("TT_FAULT");
}

TT_CASE(faults_count_fire_and_stop) {
    tt__fault_set(TT_FAULT_READ, UINT64_MAX, TT_FAULT_ONCE);
    for (int i = 0; i < 5; i++) TT_CHECK(!tt__fault(TT_FAULT_READ));
    TT_CHECK(!tt__fault(TT_FAULT_WRITE) && tt__fault_count(TT_FAULT_READ) == 5 && tt__fault_count(TT_FAULT_WRITE) == 1 && !tt__fault_fired());
    tt__fault_set(TT_FAULT_READ, 2, TT_FAULT_ONCE);
    TT_CHECK(!tt__fault(TT_FAULT_READ) && tt__fault(TT_FAULT_READ) && !tt__fault(TT_FAULT_READ) && tt__fault_fired());
    tt__fault_set(TT_FAULT_READ, 2, TT_FAULT_ON);
    TT_CHECK(!tt__fault(TT_FAULT_READ) && tt__fault(TT_FAULT_READ) && tt__fault(TT_FAULT_READ) && !tt__fault(TT_FAULT_OPEN));
}

TT_CASE(fault_kill_kills) {
    pid_t pid = fork();
    TT_CHECK(pid >= 0);
    if (pid == 0) {
        tt__fault_set(TT_FAULT_WRITE, 1, TT_FAULT_KILL);
        tt__fault(TT_FAULT_WRITE);
        _exit(0);
    }
    int status = 0;
    TT_CHECK_EQ(waitpid(pid, &status, 0), pid);
    TT_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}
