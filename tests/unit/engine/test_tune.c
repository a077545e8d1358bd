/* tt_tune, tt_perplexity and tt_compare_losses through the public header, on a tiny model and its damaged copy. */
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include "trimtab/trimtab.h"
#include <stdio.h>

typedef struct files { const char *whole, *damaged, *text, *held_out, *tab; tt_ctx *ctx; } files;

static files make(int threads) {
    files f = {.whole = tt_test_path("whole.gguf"), .damaged = tt_test_path("damaged.gguf"), .tab = tt_test_path("tab"),
        .ctx = tt_test_ctx(threads, NULL)};
    char *a = tiny_text(1, 1500), *b = tiny_text(2, 500);
    tiny_write(f.whole, 5, 0, false);
    tiny_write(f.damaged, 5, 0.5, false);
    f.text = tt_test_file("train.txt", a, strlen(a));
    f.held_out = tt_test_file("held.txt", b, strlen(b));
    tt__free(a);
    tt__free(b);
    return f;
}

static tt_tune_options options(const files *f, const char *recipe) {
    tt_tune_options o = tt_tune_default_options();
    o.model = f->damaged, o.teacher = f->whole, o.output = f->tab, o.recipe = recipe, o.data = f->text, o.seed = 4;
    return o;
}

static double nll(const files *f, const char *adapter, const char *losses) {
    tt_err err = {0};
    tt_perplexity_report r;
    tt_perplexity_options o = tt_perplexity_default_options();
    o.model = f->damaged, o.adapter = adapter, o.data = f->held_out, o.n_ctx = 64, o.numerics = TT_EXACT, o.save_losses = losses;
    TT_CHECK_OK(tt_perplexity(f->ctx, &o, &r, &err));
    return r.nll;
}

TT_CASE(a_tuned_tab_is_better_on_held_out_text_and_the_pair_says_so) {
    tt_err err = {0};
    files f = make(2);
    tt_tune_report r;
    tt_paired_report pair;
    tt_tune_options o = options(&f, "prompt(tokens=6,loss=ce,steps=80,lr=0.05,length=32,valid_every=20)");
    TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
    TT_CHECK(r.best_valid < r.first_valid);
    TT_CHECK_EQ(r.steps, 80);
    const char *without = tt_test_path("without"), *with = tt_test_path("with");
    double a = nll(&f, NULL, without), b = nll(&f, f.tab, with);
    tt_test_note("without %.4f, with %.4f", a, b);
    TT_CHECK(b < a);
    TT_CHECK_OK(tt_compare_losses(without, with, &pair, &err));
    TT_CHECK_NEAR(pair.nll_a, a, 1e-5);
    TT_CHECK_NEAR(pair.nll_b, b, 1e-5);
    TT_CHECK(pair.high < 0);
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));         /* the output is there */
}

TT_CASE(kl_brings_the_damaged_model_nearer_to_its_teacher) {
    tt_err err = {0};
    files f = make(1);
    tt_tune_report r;
    tt_perplexity_report before, after;
    tt_tune_options o = options(&f, "prompt(tokens=6,steps=80,lr=0.05,length=32,valid_every=20)");
    TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
    tt_perplexity_options p = tt_perplexity_default_options();
    p.model = f.damaged, p.base = f.whole, p.data = f.held_out, p.n_ctx = 64, p.numerics = TT_EXACT;
    TT_CHECK_OK(tt_perplexity(f.ctx, &p, &before, &err));
    p.adapter = f.tab;
    TT_CHECK_OK(tt_perplexity(f.ctx, &p, &after, &err));
    tt_test_note("KL %.4f to %.4f", before.kld.mean_kld, after.kld.mean_kld);
    TT_CHECK(after.kld.mean_kld < 0.97 * before.kld.mean_kld);
    TT_CHECK_EQ(before.tokens, after.tokens);
}

TT_CASE(text_may_be_sampled_from_the_teacher) {
    tt_err err = {0};
    files f = make(1);
    tt_tune_report r;
    tt_tune_options o = options(&f, "prompt(tokens=2,steps=2,length=32,valid_windows=2)");
    o.data = "self";
    int before = tt_test_count_entries(tt_test_tmpdir());
    TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), before + 1);     /* the tab; no state, no samples */
}

TT_CASE(wrong_usage_is_named) {
    tt_err err = {0};
    files f = make(1);
    tt_tune_report r;
    tt_tune_options o = options(&f, "rtn(bits=4)");
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));
    o = options(&f, "prompt(tokens=2)+prompt(tokens=3)");
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));
    o = options(&f, "prompt(tokens=2)");
    o.teacher = NULL;
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));
    o = options(&f, "prompt(tokens=2)");
    o.data = NULL;
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));
    o = options(&f, "prompt(tokens=2)");
    o.output = "";
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));
    tt_perplexity_options p = tt_perplexity_default_options();
    tt_perplexity_report q;
    p.model = f.damaged, p.data = f.held_out, p.n_ctx = 64, p.save_losses = f.held_out;
    TT_CHECK_FAILS(TT_USAGE, tt_perplexity(f.ctx, &p, &q, &err));         /* would overwrite its input */
}

/* At a rate that ruins everything no later checkpoint is harmless; text of the guard's kind is what the tiny model knows nothing of. */
TT_CASE(guarded_texts_decide_what_is_kept_and_a_named_one_is_a_target) {
    tt_err err = {0};
    files f = make(1);
    tt_tune_report r;
    char *code = tiny_text(7, 800);
    for (char *p = code; *p; p++) *p = *p == ' ' ? '{' : *p == 'e' ? '=' : *p;
    tt_tune_options o = options(&f, "prompt(tokens=6,loss=ce,steps=40,lr=0.5,length=32,valid_every=10,valid_windows=8)");
    o.guard = tt_test_file("code.txt", code, strlen(code));
    tt__free(code);
    tt_status st = tt_tune(f.ctx, &o, &r, &err);
    TT_CHECK(st == (r.guard.harmless ? TT_OK : TT_TARGET));
    TT_CHECK_EQ(r.guard.n_texts, 1);
    TT_CHECK_STR(r.guard.text[0].name, "code.txt");
    TT_CHECK(r.guard.harmless == (r.guard.text[0].kept <= r.guard.text[0].bare));
    TT_CHECK(r.guard.harmless == (r.guard.n_trade == 0));
    tt_test_note("guard %.4f -> %.4f, validation %.4f -> %.4f", r.guard.text[0].bare, r.guard.text[0].kept, r.first_valid, r.best_valid);
    o.guard = NULL, o.force = true;
    TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
    TT_CHECK_EQ(r.guard.n_texts, 1);
    TT_CHECK_STR(r.guard.text[0].name, "self");
    o.guard = "none";
    TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
    TT_CHECK_EQ(r.guard.n_texts, 0);
    o.guard = "missing.txt";
    TT_CHECK_FAILS(TT_FAIL, tt_tune(f.ctx, &o, &r, &err));
}

TT_CASE(texts_may_be_mixed_by_weight) {
    tt_err err = {0};
    files f = make(1);
    tt_tune_report r;
    char spec[1500];
    snprintf(spec, sizeof spec, "%s:3,self,%s", f.text, f.held_out);
    tt_tune_options o = options(&f, "prompt(tokens=2,steps=2,length=32,valid_windows=2)");
    o.data = spec;
    TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
    TT_CHECK_EQ(r.guard.n_texts, 0);                                      /* self is learned from */
    o.data = "self:0", o.force = true;
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));
}

/* A method that trains weights writes a model, whose recipe has grown by the step; it keeps its dense base and its shape. */
TT_CASE(a_trained_model_is_a_model_again) {
    tt_err err = {0};
    files f = make(1);
    const char *small = tt_test_path("small.gguf"), *better = tt_test_path("better.gguf");
    const char *whole_recipe = "rtn(bits=2,group=32,format=own)+dwq(steps=12,lr=0.01,length=32,batch=2,valid_every=4,warmup=0)", *step = strchr(whole_recipe, '+') + 1;
    tt_compress_options c = tt_compress_default_options();
    c.model = f.whole, c.output = small, c.recipe = "rtn(bits=2,group=32,format=own)";
    TT_CHECK_OK(tt_compress(f.ctx, &c, NULL, &err));
    tt_tune_options o = options(&f, "rtn(bits=3,group=32)+dwq");
    tt_tune_report r;
    o.model = small, o.teacher = NULL, o.output = better, o.guard = "none";
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));                     /* not what made the model */
    o.recipe = step, o.output = f.tab;
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));                     /* not the name of a model */
    o.output = better;
    for (int i = 0; i < 2; i++) {
        o.recipe = i ? whole_recipe : step, o.force = true;
        TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
        TT_CHECK(r.best_valid < r.first_valid);
        tt_gguf *g = NULL;
        const char *recipe = NULL, *base = NULL;
        size_t n = 0, n_base = 0;
        TT_CHECK_OK(tt__gguf_open(better, &g, &err));
        TT_CHECK_OK(tt__gguf_str(g, "trimtab.recipe", true, &recipe, &n, &err));
        TT_CHECK_OK(tt__gguf_str(g, "trimtab.base", true, &base, &n_base, &err));
        char line[1000];
        snprintf(line, sizeof line, "%.*s", (int)n, recipe);
        const char *second = strstr(line, "+dwq(");
        TT_CHECK(!strncmp(line, "rtn(", 4) && second && !strstr(second + 2, "dwq"));      /* once, however it was called */
        TT_CHECK(n_base == strlen(f.whole) && !memcmp(base, f.whole, n_base));
        tt__gguf_close(g);
    }
}

TT_CASE(thin_factors_begin_as_nothing_and_learn) {
    tt_err err = {0};
    files f = make(2);
    tt_tune_report r;
    tt_tune_options o = options(&f, "lora(r=4,steps=0)");
    o.guard = "none";                                                     /* what a model of random weights says is harmed by any text */
    TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
    TT_CHECK(nll(&f, NULL, NULL) == nll(&f, f.tab, NULL));
    o.recipe = "lora(r=4,loss=ce,steps=60,lr=0.001,length=32,batch=2,valid_every=20)";
    o.output = tt_test_path("learned");
    TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
    TT_CHECK(r.best_valid < r.first_valid);
    double a = nll(&f, NULL, NULL), b = nll(&f, o.output, NULL);
    tt_test_note("without %.4f, with %.4f", a, b);
    TT_CHECK(b < a);
    o.recipe = "lora(targets=\"v_proj, down_proj\",topk=8,steps=60,lr=0.005,length=32,valid_every=20)";      /* some matrices, against the cached teacher */
    o.output = tt_test_path("some");
    TT_CHECK_OK(tt_tune(f.ctx, &o, &r, &err));
    tt_test_note("KL %.6f, at first %.6f", r.best_valid, r.first_valid);
    TT_CHECK(r.best_valid < 0.97 * r.first_valid);
    o.recipe = "lora(targets=nothing,steps=1)";
    o.output = tt_test_path("none");
    TT_CHECK_FAILS(TT_USAGE, tt_tune(f.ctx, &o, &r, &err));
}
