/* The context: thread pool, kernel table, scratch of the workers, log and progress sinks, cancellation. See trimtab.h. */
#ifndef TT_BASE_CTX_H
#define TT_BASE_CTX_H
#include "base/err.h"
#include "base/mem.h"
#include "base/thread.h"
#include "trimtab/trimtab.h"
#include <stdatomic.h>
#include <stdbool.h>

struct tt_kernels;                 /* kernels/kernels.h */

struct tt_ctx {
    tt_ctx_options opt;            /* copied, defaults filled in */
    tt__pool *pool;
    const struct tt_kernels *k;    /* chosen once at creation; immutable */
    atomic_int cancel;             /* 0, or the status to stop with (TT_INTERRUPTED, TT_TERMINATED) */
    void **scratch;                /* [threads] grown by tt__scratch_reserve */
    size_t scratch_bytes;
    double progress_at;            /* when the progress sink was last called */
    tt__arena arena;
};

/* The parts of tt_ctx_create and tt_ctx_free that base can do: everything but the kernel table, which stays NULL (engine/ctx.c sets it). */
tt_status tt__ctx_init(tt_ctx *ctx, const tt_ctx_options *options, tt_err *err);
void tt__ctx_done(tt_ctx *ctx);

static inline void tt__parallel(tt_ctx *ctx, int64_t tiles, tt__tile_fn fn, void *arg) { tt__pool_run(ctx->pool, tiles, fn, arg); }
static inline int tt__threads(const tt_ctx *ctx) { return tt__pool_threads(ctx->pool); }

/* Makes each worker's scratch at least `bytes` (64-byte aligned). Call outside parallel regions, before hot loops. */
tt_status tt__scratch_reserve(tt_ctx *ctx, size_t bytes, tt_err *err);
static inline void *tt__scratch(tt_ctx *ctx, int worker) { return ctx->scratch[worker]; }

/* TT_OK, or the cancel status with "interrupted" in err: long loops call it at least once a second. */
tt_status tt__check_cancel(tt_ctx *ctx, tt_err *err);

void tt__log(tt_ctx *ctx, tt_log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Progress of long work: `task` is a short stable word ("compress"); done of total in `unit`s; note may be "" . */
void tt__progress(tt_ctx *ctx, const char *task, double done, double total, const char *unit, const char *note);
#endif
