/* Training of thin factors: they begin as nothing, they learn, and the folder served is what was validated. */
#include "train/lora.h"
#include "models/lora.h"
#include "recover.h"

static const tt_lora_options OPTIONS = {
    .learn = {.steps = 30, .batch = 2, .length = 32, .valid_every = 5, .valid_windows = 4, .clip = 1, .beta1 = 0.9, .beta2 = 0.999},
    .rank = 4, .alpha = 8, .targets = "all", .kl = true, .topk = 16, .temperature = 1, .lr = 1e-2};

TT_CASE(kl_falls_on_held_out_text) {
    for (int i = 0; i < 3; i++) {
        tt_err err = {0};
        static const char *const names[] = {"cached", "whole", "some"};
        rig *r = rig_open(tt_test_ctx(2, NULL), tt_test_tmpdir(), names[i]);
        tt_lora_options o = OPTIONS;
        if (i == 1) o.topk = 0;
        if (i == 2) o.targets = "v_proj,down_proj";
        TT_CHECK_OK(tt__lora_train(r->ctx, &o, &r->job, &err));
        const tt_tune_report *t = &r->job.report;
        tt_test_note("validation %.4f to %.4f", t->first_valid, t->best_valid);
        TT_CHECK(t->best_valid < 0.9 * t->first_valid);
        TT_CHECK(!tt__exists(r->state));
        rig_close(r);
    }
}

/* Mean next-token loss of the windows that validate, through a net whose operators carry the folder's factors. */
static double served(const rig *r, const tt_lora_options *o) {
    tt_err err = {0};
    tt_peft_lora l;
    tt_linop **ops = NULL;
    tt_net *view = NULL;
    tt_runner *runner = NULL;
    tt_tokens joined = {0};
    tt_window *w = NULL;
    size_t n = 0;
    double sum = 0;
    float X[32 * TINY_D];
    int32_t target[32];
    TT_CHECK_OK(tt__peft_lora_load(r->output, &l, &err));
    TT_CHECK_OK(tt__lora_ops(r->ctx, r->damaged, &l, &ops, &err));
    TT_CHECK_OK(tt__net_view(r->damaged, ops, &view, &err));
    TT_CHECK_OK(tt__runner_create(r->ctx, view, &(tt_runner_options){.max_rows = 32}, &runner, &err));
    TT_CHECK_OK(tt__windows_packed(&r->valid, 32, TINY_END, r->job.seed, &joined, &w, &n, &err));
    TT_CHECK(n >= (size_t)o->learn.valid_windows);
    n = (size_t)o->learn.valid_windows;
    for (size_t i = 0; i < n; i++) {
        const int32_t *ids = joined.ids + w[i].begin;
        double loss = 0;
        for (int t = 0; t < 32; t++) target[t] = t < 31 ? ids[t + 1] : -1;
        TT_CHECK_OK(tt__run_embed(runner, ids, 32, X, &err));
        TT_CHECK_OK(tt__run_loss(runner, 0, 1, 32, X, &(tt_loss){.kind = TT_LOSS_CE, .target = target}, &loss, NULL, NULL, &err));
        sum += loss / (double)n;
    }
    tt__free(w);
    tt__tokens_free(&joined);
    tt__runner_free(runner);
    tt__net_view_free(view);
    tt__lora_free_ops(r->damaged, ops);
    tt__peft_lora_free(&l);
    return sum;
}

TT_CASE(what_is_written_is_what_was_validated) {
    for (int i = 0; i < 2; i++) {
        tt_err err = {0};
        rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), i ? "queries" : "all");
        tt_lora_options o = OPTIONS;
        o.kl = false;
        if (i) o.targets = "q_proj", o.rank = 3;
        TT_CHECK_OK(tt__lora_train(r->ctx, &o, &r->job, &err));
        TT_CHECK(r->job.report.best_valid < r->job.report.first_valid);
        TT_CHECK_NEAR(served(r, &o), r->job.report.best_valid, 1e-5);
        rig_close(r);
    }
}

TT_CASE(untrained_factors_do_nothing) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    tt_lora_options o = OPTIONS;
    tt_peft_lora l;
    o.learn.steps = 0, o.targets = "q_proj v_proj";
    r->job.teacher = NULL;
    TT_CHECK_OK(tt__lora_train(r->ctx, &o, &r->job, &err));
    TT_CHECK_OK(tt__peft_lora_load(r->output, &l, &err));
    TT_CHECK_EQ(l.n, 2 * TINY_L);
    TT_CHECK(l.rank == 4 && l.alpha == 8);
    for (size_t i = 0; i < l.n; i++) {
        bool some = false;
        for (int64_t j = 0; j < l.parts[i].rows * 4; j++) TT_CHECK(l.parts[i].B[j] == 0);
        for (int64_t j = 0; j < l.parts[i].cols * 4; j++) some |= l.parts[i].A[j] != 0;
        TT_CHECK(some);
    }
    tt__peft_lora_free(&l);
    rig_close(r);
}

TT_CASE(stopped_anywhere_and_with_any_threads_it_ends_with_the_same_bytes) {
    tt_err err = {0};
    const char *dir = tt_test_tmpdir();
    char a[700], b[700];
    tt_lora_options o = OPTIONS;
    o.learn.steps = 8;
    rig *r = rig_open(tt_test_ctx(2, NULL), dir, "whole");
    TT_CHECK_OK(tt__lora_train(r->ctx, &o, &r->job, &err));
    snprintf(a, sizeof a, "%s/adapter_model.safetensors", r->output);
    rig_close(r);
    stopper s = {tt_test_ctx(1, NULL), 0, 1};
    watch(&s);
    r = rig_open(s.ctx, dir, "stopped");
    tt_status st = TT_INTERRUPTED;
    while (st == TT_INTERRUPTED) {
        tt_ctx_cancel(s.ctx, TT_OK);
        s.calls = 0;
        st = tt__lora_train(r->ctx, &o, &r->job, &err);
    }
    TT_CHECK_OK(st);
    snprintf(b, sizeof b, "%s/adapter_model.safetensors", r->output);
    TT_CHECK(same_file(a, b));
    rig_close(r);
}

TT_CASE(wrong_jobs_are_refused) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    tt_lora_options o = OPTIONS;
    static const char *const bad[] = {"nothing", "", "q_proj,nothing", "q_pro"};
    for (int i = 0; i < 4; i++) {
        o.targets = bad[i];
        TT_CHECK_FAILS(TT_USAGE, tt__lora_train(r->ctx, &o, &r->job, &err));
    }
    o = OPTIONS;
    r->job.teacher = NULL;
    TT_CHECK_FAILS(TT_USAGE, tt__lora_train(r->ctx, &o, &r->job, &err));
    TT_CHECK(!tt__exists(r->output));
    rig_close(r);
}
