/* The context without its kernel table, which lies a layer above: engine/ctx.c adds it. */
#include "base/ctx.h"

#include "base/checked.h"
#include "base/env.h"
#include "base/fault.h"
#include "base/util.h"
#include <stdarg.h>
#include <stdio.h>

#define TEXT_OF(x) #x
#define VERSION(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)

const char *tt_version(void) { return VERSION(TT_VERSION_MAJOR, TT_VERSION_MINOR, TT_VERSION_PATCH); }

tt_ctx_options tt_ctx_default_options(void) { return (tt_ctx_options){.size = sizeof(tt_ctx_options)}; }

/* The caller may have been compiled against an older, shorter struct, or a newer, longer one: only what both know is copied. */
static tt_status copy_options(tt_ctx_options *to, const tt_ctx_options *from, tt_err *err) {
    *to = tt_ctx_default_options();
    if (!from) return TT_OK;
    TT_FAIL_IF(from->size < offsetof(tt_ctx_options, deterministic), err, TT_USAGE,
               "options without size|tt_ctx_options|%zu||start from tt_ctx_default_options()", from->size);
    memcpy(to, from, from->size < sizeof *to ? from->size : sizeof *to);
    to->size = sizeof *to;
    return TT_OK;
}

static tt_status choose_threads(int *threads, tt_err *err) {
    const char *text = tt__env(TT_ENV_THREADS);
    int64_t n = *threads;
    if (n == 0 && text)
        TT_FAIL_IF(!tt__parse_i64(text, &n) || n < 1 || n > 1024, err, TT_USAGE, "bad number of threads|TRIMTAB_THREADS|%s|1 to 1024", text);
    if (n == 0) n = tt__cpus_usable();
    TT_FAIL_IF(n < 1 || n > 1024, err, TT_USAGE, "bad number of threads|threads|%lld|1 to 1024", (long long)n);
    *threads = (int)n;
    return TT_OK;
}

/* A fault that was misspelt must not look like a test that passed. */
static tt_status check_fault_text(tt_err *err) {
    const char *text = tt__env(TT_ENV_FAULT);
    tt__fault_kind kind;
    tt__fault_mode mode;
    uint64_t k;
    return text ? tt__fault_parse(text, &kind, &k, &mode, err) : TT_OK;
}

tt_status tt__ctx_init(tt_ctx *ctx, const tt_ctx_options *options, tt_err *err) {
    memset(ctx, 0, sizeof *ctx);
    TT_TRY(check_fault_text(err));
    TT_TRY(copy_options(&ctx->opt, options, err));
    TT_TRY(choose_threads(&ctx->opt.threads, err));
    if (!ctx->opt.isa) ctx->opt.isa = tt__env(TT_ENV_ISA);
    tt_status st = TT_OK;
    if (ctx->opt.isa) {
        ctx->opt.isa = tt__arena_strndup(&ctx->arena, ctx->opt.isa, strlen(ctx->opt.isa));
        if (!ctx->opt.isa) TT_TRY_GOTO(tt__fail(err, TT_RESOURCE, "out of memory|for the context"));
    }
    TT_TRY_GOTO(tt__pool_create(ctx->opt.threads, &ctx->pool, err));
    TT_TRY_GOTO(tt__new(&ctx->scratch, (size_t)ctx->opt.threads, sizeof *ctx->scratch, "the context", err));
done:
    if (st != TT_OK) tt__ctx_done(ctx);
    return st;
}

void tt__ctx_done(tt_ctx *ctx) {
    for (int i = 0; ctx->scratch && i < ctx->opt.threads; i++) tt__free(ctx->scratch[i]);
    tt__free(ctx->scratch);
    tt__pool_free(ctx->pool);
    tt__arena_free(&ctx->arena);
    memset(ctx, 0, sizeof *ctx);
}

int tt_ctx_threads(const tt_ctx *ctx) { return tt__threads(ctx); }

/* ------------------------------------------------------------ scratch ---- */

tt_status tt__scratch_reserve(tt_ctx *ctx, size_t bytes, tt_err *err) {
    if (bytes <= ctx->scratch_bytes) return TT_OK;
    for (int i = 0; i < ctx->opt.threads; i++) {
        void *p = tt__alloc(bytes);
        TT_FAIL_IF(!p, err, TT_RESOURCE, "out of memory|for scratch of a thread|%zu bytes", bytes);
        tt__free(ctx->scratch[i]);
        ctx->scratch[i] = p;
    }
    ctx->scratch_bytes = bytes;
    return TT_OK;
}

/* ------------------------------------------------------------ cancelling ---- */

void tt_ctx_cancel(tt_ctx *ctx, tt_status status) { atomic_store_explicit(&ctx->cancel, (int)status, memory_order_relaxed); }

tt_status tt__check_cancel(tt_ctx *ctx, tt_err *err) {
    int status = atomic_load_explicit(&ctx->cancel, memory_order_relaxed);
    if (__builtin_expect(status == TT_OK, 1)) return TT_OK;
    return tt__fail(err, (tt_status)status, status == TT_TERMINATED ? "terminated|" : "interrupted|");
}

/* ------------------------------------------------------------ sinks ---- */

void tt__log(tt_ctx *ctx, tt_log_level level, const char *fmt, ...) {
    if (!ctx->opt.log) return;
    char raw[1024], line[2048];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(raw, sizeof raw, fmt, args);
    va_end(args);
    if (n < 0) return;
    tt__escape(line, sizeof line, raw, strnlen(raw, sizeof raw));
    ctx->opt.log(ctx->opt.log_user, level, line);
}

/* A few times a second, and always the end: callers report as often as they like. */
void tt__progress(tt_ctx *ctx, const char *task, double done, double total, const char *unit, const char *note) {
    if (!ctx->opt.progress) return;
    double now = tt__now();
    if (done < total && done > 0 && now - ctx->progress_at < 0.2) return;
    ctx->progress_at = now;
    ctx->opt.progress(ctx->opt.progress_user, task, done, total, unit, note ? note : "");
}
