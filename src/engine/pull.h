/* From what a person writes to the path of a file or a folder: local path, catalogue name, or a repository of the hub. */
#ifndef TT_ENGINE_PULL_H
#define TT_ENGINE_PULL_H
#include "base/ctx.h"
/* *path is freed by the caller with tt__free. What is not in the cache is pulled, or is TT_OFFLINE when `offline` or HF_HUB_OFFLINE. */
tt_status tt__resolve_ref(tt_ctx *ctx, const char *ref, bool offline, char **path, tt_err *err);
#endif
