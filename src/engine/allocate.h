/* A recipe for each matrix of the layers: what a size target makes of one recipe. */
#ifndef TT_ENGINE_ALLOCATE_H
#define TT_ENGINE_ALLOCATE_H
#include "base/ctx.h"

typedef struct tt_allocation {
    size_t n;                             /* recipes */
    const char *const *recipe;            /* [n] */
    const uint8_t *of;                    /* [weights of the net] 1 + index of its recipe; 0: the recipe of the options */
    const char *text;                     /* for the file's metadata, "trimtab.allocation" */
} tt_allocation;

/* tt_compress with a recipe per matrix; allocation may be NULL. In compress.c. */
tt_status tt__compress_with(tt_ctx *ctx, const tt_compress_options *options, const tt_allocation *allocation, double save_seconds, tt_compress_report **report, tt_err *err);
/* The calibration sequences of the options, from files only: ids [samples, length], fewer samples where the text is short (logged). In compress.c. */
tt_status tt__calibration_ids(tt_ctx *ctx, tt_model *model, const tt_compress_options *o, int64_t *samples, int64_t length, int32_t **ids, char sha256[65], tt_err *err);
/* tt_compress for options with a target. */
tt_status tt__allocate(tt_ctx *ctx, const tt_compress_options *options, double save_seconds, tt_compress_report **report, tt_err *err);
#endif
