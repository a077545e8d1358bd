/* tt_ctx_create: the base context plus the kernel table of the chosen instruction set. */
#include "base/ctx.h"
#include "kernels/kernels.h"

tt_status tt_ctx_create(const tt_ctx_options *options, tt_ctx **out, tt_err *err) {
    tt_ctx *ctx;
    *out = NULL;
    TT_TRY(tt__new(&ctx, 1, sizeof *ctx, "the context", err));
    tt_status st = tt__ctx_init(ctx, options, err);
    if (st == TT_OK && (st = tt__kernels_get(ctx->opt.isa, &ctx->k, err)) != TT_OK) tt__ctx_done(ctx);
    if (st != TT_OK) {
        tt__free(ctx);
        return st;
    }
    *out = ctx;
    return TT_OK;
}

void tt_ctx_free(tt_ctx *ctx) {
    if (!ctx) return;
    tt__ctx_done(ctx);
    tt__free(ctx);
}

const char *tt_ctx_isa(const tt_ctx *ctx) { return ctx->k->isa; }
