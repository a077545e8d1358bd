/* See sample.h. */
#include "engine/sample.h"
#include "base/env.h"
#include "train/rawfile.h"

#include <stdio.h>

static const uint64_t MOST_REPACKED = 1ull << 30;

tt_status tt__sample_open(tt_ctx *ctx, const tt_model *model, tt_model **out, tt_err *err) {
    tt_model_options o = tt_model_default_options();
    o.numerics = TT_FAST;
    o.stored = model->info.bytes > MOST_REPACKED;
    return tt_model_open(ctx, model->path, &o, out, err);
}

/* The cache files of the save before are of no use then. */
static tt_status save(tt_selftext *s, const char *dir, tt_err *err) {
    char before[64], name[80];
    snprintf(before, sizeof before, "%s", tt__selftext_tag(s));
    TT_TRY(tt__selftext_save(s, dir, err));
    for (int i = 0; i < 2 && before[0] && strcmp(before, tt__selftext_tag(s)) != 0; i++) {
        char *path;
        snprintf(name, sizeof name, "self.%s.%c", before, "kv"[i]);
        TT_TRY(tt__raw_path(dir, name, &path, err));
        tt_status st = tt__remove(path, err);
        tt__free(path);
        TT_TRY(st);
    }
    return TT_OK;
}

tt_status tt__sample_run(tt_ctx *ctx, tt_selftext *s, const char *dir, tt_err *err) {
    double saved = tt__now();
    TT_TRY(tt__selftext_load(s, dir, err));
    while (!tt__selftext_done(s)) {
        tt_status st = tt__check_cancel(ctx, err);
        if (st == TT_OK) st = tt__selftext_step(s, err);
        if (st == TT_INTERRUPTED || st == TT_TERMINATED) TT_TRY(save(s, dir, err));
        TT_TRY(st);
        tt__progress(ctx, "sample", tt__selftext_share(s) * tt__selftext_most(s), tt__selftext_most(s), "tokens", "");
        if (tt__now() - saved < tt__save_seconds()) continue;
        TT_TRY(save(s, dir, err));
        saved = tt__now();
    }
    return save(s, dir, err);
}

tt_status tt__sample_ids(tt_ctx *ctx, const tt_model *model, const tt_selftext_options *o, const char *dir, int32_t *ids, tt_err *err) {
    tt_model *fast = NULL;
    tt_selftext *s = NULL;
    TT_TRY(tt__sample_open(ctx, model, &fast, err));
    tt_status st = tt__selftext_create(ctx, fast->net, model->tok, o, ids, &s, err);
    if (st == TT_OK) st = tt__sample_run(ctx, s, dir, err);
    tt__selftext_free(s);
    tt_model_close(fast);
    return st;
}
