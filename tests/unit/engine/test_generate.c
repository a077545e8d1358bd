/* tt_generate through the public header, on a tiny model: equal bytes whatever interrupts, documents that the data set reads, refusals. */
#include "base/ctx.h"
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include "text/dataset.h"
#include "trimtab/trimtab.h"
#include <stdio.h>

static const char *model(void) {
    const char *path = tt_test_path("m.gguf");
    tiny_write(path, 5, 0, false);
    return path;
}

static tt_generate_options options(const char *ref, const char *out) {
    tt_generate_options o = tt_generate_default_options();
    o.model = ref, o.output = out, o.count = 9, o.tokens = 40, o.batch = 4, o.seed = 7;
    return o;
}

static char *slurp(const char *path) {
    tt_err err = {0};
    char *s = NULL;
    size_t n;
    TT_CHECK_OK(tt__read_file(path, 1 << 24, &s, &n, &err));
    return s;
}

static void stop_at(void *user, const char *task, double done, double total, const char *unit, const char *note) {
    (void)task, (void)total, (void)unit, (void)note;
    tt_ctx *ctx = *(tt_ctx **)user;
    ctx->progress_at = -1e9;                            /* not a few times a second: at every step */
    if (done > 30) tt_ctx_cancel(ctx, TT_INTERRUPTED);
}

TT_CASE(an_interrupted_run_goes_on_to_equal_bytes) {
    tt_err err = {0};
    tt_generate_report a, b;
    tt_ctx *ctx = tt_test_ctx(2, NULL), *stopped = NULL;
    const char *ref = model(), *one = tt_test_path("one.jsonl"), *two = tt_test_path("two.jsonl");
    tt_generate_options o = options(ref, one);
    TT_CHECK_OK(tt_generate(ctx, &o, &a, &err));
    TT_CHECK_FAILS(TT_USAGE, tt_generate(ctx, &o, &b, &err));             /* it stands */
    o.output = two;
    tt_ctx_options co = tt_ctx_default_options();
    co.threads = 1, co.progress = stop_at, co.progress_user = &stopped;
    TT_CHECK_OK(tt_ctx_create(&co, &stopped, &err));
    stopped->progress_at = -1e9;
    TT_CHECK_FAILS(TT_INTERRUPTED, tt_generate(stopped, &o, &b, &err));
    tt_ctx_free(stopped);
    TT_CHECK_OK(tt_generate(ctx, &o, &b, &err));
    TT_CHECK(b.resumed && !a.resumed);
    TT_CHECK(!strcmp(a.sha256, b.sha256));
    char *x = slurp(one), *y = slurp(two);
    TT_CHECK(!strcmp(x, y));
    tt__free(x);
    tt__free(y);
    tt_docs d;
    TT_CHECK_OK(tt__docs_load(one, NULL, &d, &err));
    TT_CHECK_EQ((int64_t)d.n, a.documents);
    TT_CHECK_EQ(a.documents + a.dropped, 9);
    tt__docs_free(&d);
    char *manifest = slurp(a.manifest);
    TT_CHECK(strstr(manifest, a.sha256) && strstr(manifest, a.model_sha256));
    tt__free(manifest);
}

TT_CASE(prompts_begin_the_documents) {
    tt_err err = {0};
    tt_generate_report r;
    tt_docs d;
    const char text[] = "{\"text\": \"the ship\"}\n{\"text\": \"a tab\"}\n";
    tt_generate_options o = options(model(), tt_test_path("p.jsonl"));
    o.prompts = tt_test_file("prompts.jsonl", text, strlen(text));
    TT_CHECK_OK(tt_generate(tt_test_ctx(1, NULL), &o, &r, &err));
    TT_CHECK_OK(tt__docs_load(o.output, NULL, &d, &err));
    for (size_t i = 0; i < d.n; i++) TT_CHECK(!strncmp(d.text[i], i % 2 ? "a tab" : "the ship", i % 2 ? 5 : 8));
    tt__docs_free(&d);
}

TT_CASE(wrong_usage_is_named) {
    tt_err err = {0};
    tt_generate_report r;
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    const char *ref = model();
    tt_generate_options o = options(ref, tt_test_path("x.txt"));
    TT_CHECK_FAILS(TT_USAGE, tt_generate(ctx, &o, &r, &err));
    o = options(ref, tt_test_path("x.jsonl"));
    o.chat = true;                                                        /* no template */
    TT_CHECK_FAILS(TT_BADFILE, tt_generate(ctx, &o, &r, &err));
    o = options(ref, tt_test_path("x.jsonl"));
    o.system = "be brief";
    TT_CHECK_FAILS(TT_USAGE, tt_generate(ctx, &o, &r, &err));
    o = options(ref, tt_test_path("x.jsonl"));
    o.tokens = 1 << 30;
    TT_CHECK_FAILS(TT_USAGE, tt_generate(ctx, &o, &r, &err));
    o = options(ref, tt_test_path("x.jsonl"));
    o.batch = 1000;
    TT_CHECK_FAILS(TT_USAGE, tt_generate(ctx, &o, &r, &err));
    o = options(ref, tt_test_path("x.jsonl"));
    o.tokens = 5;
    o.prompts = tt_test_file("long.txt", "a prompt that is too long", 25);
    TT_CHECK_FAILS(TT_USAGE, tt_generate(ctx, &o, &r, &err));
}
