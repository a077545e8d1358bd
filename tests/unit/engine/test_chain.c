/* Named recipes: the table, a whole chain on a tiny model, one that is interrupted and goes on to equal bytes, budgets, refusals. */
#include "base/ctx.h"
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include "trimtab/trimtab.h"
#include <math.h>
#include <stdio.h>

TT_CASE(every_named_recipe_is_made_of_lines_that_parse) {
    tt_named_recipe r;
    TT_CHECK(tt_named_recipe_count() >= 3);
    for (size_t i = 0; tt_named_recipe_get(i, &r); i++) {
        bool compresses = false;
        if (*r.embedding) {
            tt_err err = {0};
            tt_recipe *parsed = NULL;
            TT_CHECK_OK(tt_recipe_parse(r.embedding, strlen(r.embedding), &parsed, &err));
            tt_recipe_free(parsed);
        }
        for (int k = 0; k < r.n_steps; k++) {
            const tt_named_step *s = &r.step[k];
            const char *mark = strstr(s->line, "{n}");
            char line[512];
            tt_err err = {0};
            tt_recipe *parsed = NULL;
            snprintf(line, sizeof line, "%.*s%s%s", mark ? (int)(mark - s->line) : (int)strlen(s->line), s->line, mark ? "7" : "", mark ? mark + 3 : "");
            TT_CHECK_OK(tt_recipe_parse(line, strlen(line), &parsed, &err));
            bool trains = !strcmp(tt_recipe_get_method(parsed, 0)->stage, "train");
            TT_CHECK(trains == (s->stage != TT_NAMED_COMPRESS));
            TT_CHECK((mark != NULL) == (s->most > 0) && s->least <= s->usual && s->usual <= s->most);
            compresses |= s->stage == TT_NAMED_COMPRESS && s->worth == 0;
            tt_recipe_free(parsed);
        }
        tt_named_recipe same;
        TT_CHECK(compresses && tt_named_recipe_find(r.name, &same) && !strcmp(same.name, r.name));
    }
    TT_CHECK(!tt_named_recipe_find("smal", &r));
}

typedef struct stop { tt_ctx *ctx; const char *task; } stop;

static void stop_at(void *user, const char *task, double done, double total, const char *unit, const char *note) {
    const stop *s = user;
    (void)unit, (void)note;
    s->ctx->progress_at = -1e9;                         /* not a few times a second: at every step */
    if (!strcmp(task, s->task) && done > 0.3 * total) tt_ctx_cancel(s->ctx, TT_INTERRUPTED);
}

static tt_status interrupted_at(const tt_chain_options *o, const char *task) {
    tt_err err = {0};
    stop s = {.task = task};
    tt_ctx_options co = tt_ctx_default_options();
    co.threads = 2, co.progress = stop_at, co.progress_user = &s;
    TT_CHECK_OK(tt_ctx_create(&co, &s.ctx, &err));
    s.ctx->progress_at = -1e9;
    tt_status st = tt_chain(s.ctx, o, NULL, &err);
    tt_ctx_free(s.ctx);
    return st;
}

static char *sha_of(const char *path, char out[65]) {
    tt_err err = {0};
    char *s = NULL;
    size_t n;
    TT_CHECK_OK(tt__read_file(path, 1 << 26, &s, &n, &err));
    tt__sha256_hex(s, n, out);
    tt__free(s);
    return out;
}

TT_CASE(a_chain_that_is_stopped_in_every_step_ends_as_one_that_is_not) {
    tt_err err = {0};
    tt_chain_report r;
    char a[65], b[65], path[600];
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    const char *model = tt_test_path("m.gguf"), *out = tt_test_path("out.gguf"), *tab = tt_test_path("out.tab");
    tiny_write(model, 5, 0, false);
    tt_chain_options o = tt_chain_default_options();
    o.model = model, o.output = out, o.recipe = "balanced", o.guard = "none", o.seed = 3;
    TT_CHECK_OK(tt_chain(ctx, &o, &r, &err));
    TT_CHECK_EQ(r.n_steps, 4);
    for (int i = 0; i < r.n_steps; i++) TT_CHECK(r.step[i].taken && isfinite(r.step[i].predicted) && r.step[i].predicted > 0 && isfinite(r.step[i].seconds));
    TT_CHECK(r.file_bytes > 0 && r.tune.steps == 100);
    TT_CHECK_STR(r.tab, tab);
    TT_CHECK_FAILS(TT_USAGE, tt_chain(ctx, &o, &r, &err));              /* the output stands */
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", tab);
    sha_of(out, a);
    sha_of(path, b);
    TT_CHECK_OK(tt__remove(out, &err));                                 /* once more under the same names, which are recorded */
    TT_CHECK_OK(tt__remove_tree(tab, &err));
    static const char *const tasks[] = {"sample", "compress", "tune"};
    for (int i = 0; i < 3; i++) TT_CHECK_EQ(interrupted_at(&o, tasks[i]), TT_INTERRUPTED);
    TT_CHECK_OK(tt_chain(ctx, &o, &r, &err));
    TT_CHECK(r.resumed);
    char c[65];
    TT_CHECK_STR(sha_of(out, c), a);
    TT_CHECK_STR(sha_of(path, c), b);
    snprintf(path, sizeof path, "%s.chain", out);
    TT_CHECK(!tt__exists(path));
}

TT_CASE(a_budget_that_holds_nothing_is_told_and_the_least_is_done) {
    tt_err err = {0};
    tt_chain_report r;
    const char *model = tt_test_path("m.gguf"), *out = tt_test_path("small.gguf");
    tiny_write(model, 5, 0, false);
    tt_chain_options o = tt_chain_default_options();
    o.model = model, o.output = out, o.recipe = "small", o.time = 0.01, o.dry_run = true;
    TT_CHECK_FAILS(TT_TARGET, tt_chain(tt_test_ctx(1, NULL), &o, &r, &err));
    TT_CHECK(!tt__exists(out) && r.n_steps == 4 && r.step[0].taken && r.step[1].taken && !r.step[2].taken && !r.step[3].taken && r.predicted > 0.01);
    o.dry_run = false;
    TT_CHECK_FAILS(TT_TARGET, tt_chain(tt_test_ctx(1, NULL), &o, &r, &err));
    TT_CHECK(tt__exists(out));
    o.output = tt_test_path("more.gguf"), o.time = 3600, o.dry_run = true;
    TT_CHECK_OK(tt_chain(tt_test_ctx(1, NULL), &o, &r, &err));
    TT_CHECK(r.step[2].taken && r.step[3].taken && r.step[2].amount > 300 && r.predicted <= 3600);
}

TT_CASE(wrong_usage_is_named) {
    tt_err err = {0};
    tt_chain_report r;
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    const char *model = tt_test_path("m.gguf");
    tiny_write(model, 5, 0, false);
    tt_chain_options o = tt_chain_default_options();
    o.model = model, o.output = tt_test_path("o.gguf"), o.recipe = "smal";
    TT_CHECK_FAILS(TT_USAGE, tt_chain(ctx, &o, &r, &err));
    TT_CHECK(strstr(err.hint, "small"));
    o.recipe = "small", o.output = tt_test_path("o.txt");
    TT_CHECK_FAILS(TT_USAGE, tt_chain(ctx, &o, &r, &err));
    o.output = tt_test_path("o.gguf"), o.data = "self";
    TT_CHECK_FAILS(TT_USAGE, tt_chain(ctx, &o, &r, &err));
    o.data = NULL, o.output = model;
    TT_CHECK_FAILS(TT_USAGE, tt_chain(ctx, &o, &r, &err));
}
