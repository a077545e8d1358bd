/* Training of scales, minima and norm gains: gradients against finite differences are those of tests/unit/linop and models; here the whole: it learns,
 * codes stay, the file holds what validated, and nothing that interrupts shows. */
#include "train/scales.h"
#include "recover.h"

static const tt_scales_options OPTIONS = {
    .learn = {.steps = 30, .batch = 2, .length = 32, .valid_every = 5, .valid_windows = 4, .clip = 1, .beta1 = 0.9, .beta2 = 0.99, .cosine = true, .warmup = 2},
    .kl = true, .topk = 16, .temperature = 1, .lr = 1e-2, .norm_lr = 1e-2, .max_bits = 7};

static void check_learns(tt_scales_options o, damage how) {
    tt_err err = {0};
    rig *r = rig_open_with(tt_test_ctx(2, NULL), tt_test_tmpdir(), "a.gguf", how);
    r->job.force = true;
    TT_CHECK_OK(tt__scales_train(r->ctx, &o, &r->job, &err));
    const tt_tune_report *t = &r->job.report;
    tt_test_note("validation %.4f to %.4f, training %.4f to %.4f", t->first_valid, t->best_valid, t->first_loss, t->last_loss);
    TT_CHECK(t->best_valid < 0.9 * t->first_valid);
    TT_CHECK_EQ(t->steps, 30);
    TT_CHECK(!tt__exists(r->state));
    rig_close(r);
}

TT_CASE(kl_against_the_cache_falls) { check_learns(OPTIONS, SCALES_ONLY); }
TT_CASE(minima_learn_too) { check_learns(OPTIONS, WITH_MINIMA); }

TT_CASE(a_trellis_learns) {
    tt_scales_options o = OPTIONS;
    check_learns(o, ON_TRELLIS);
    o.norm_lr = 0;                                           /* and not by the norm gains alone */
    check_learns(o, ON_TRELLIS);
}

TT_CASE(kl_against_the_whole_vocabulary_falls) {
    tt_scales_options o = OPTIONS;
    o.topk = 0;
    check_learns(o, SCALES_ONLY);
}

/* The model that is written has the codes of the one that went in, other scales and gains, and the loss that validated. */
static void check_file(damage how) {
    tt_err err = {0};
    rig *r = rig_open_with(tt_test_ctx(1, NULL), tt_test_tmpdir(), "a.gguf", how);
    const int codes = how == ON_TRELLIS ? 1 : 0;             /* among the segments: rates come before them, scales behind */
    r->job.force = true;
    TT_CHECK_OK(tt__scales_train(r->ctx, &OPTIONS, &r->job, &err));
    tt_gguf *g = NULL;
    tt_net *net = NULL;
    TT_CHECK_OK(tt__gguf_open(r->output, &g, &err));
    TT_CHECK_OK(tt__net_from_gguf(r->ctx, g, false, &net, &err));
    for (size_t i = 0; i < net->n_weights; i++) {
        const tt_weight *a = &r->damaged->weights[i], *b = &net->weights[i];
        tt_segment x[8], y[8];
        if (a->vector) TT_CHECK(memcmp(a->vec, b->vec, (size_t)a->cols * sizeof(float)) != 0);
        if (!a->linear) continue;
        TT_CHECK_EQ(a->op->v->segments(a->op, x), b->op->v->segments(b->op, y));
        TT_CHECK(x[codes].bytes == y[codes].bytes && memcmp(x[codes].data, y[codes].data, x[codes].bytes) == 0);
        TT_CHECK(x[codes + 1].bytes == y[codes + 1].bytes && memcmp(x[codes + 1].data, y[codes + 1].data, x[codes + 1].bytes) != 0);
    }
    double best = r->job.report.best_valid;                  /* a training of no rate from there begins where this one was best */
    tt_scales_options o = OPTIONS;
    o.learn.steps = 1, o.lr = 1e-12, o.norm_lr = 0;
    r->job.student = net;
    snprintf(r->output, sizeof r->output, "%s/b.gguf", tt_test_tmpdir());
    TT_CHECK_OK(tt__scales_train(r->ctx, &o, &r->job, &err));
    TT_CHECK_NEAR(r->job.report.first_valid, best, 1e-6 * best);
    tt__net_free(net);
    tt__gguf_close(g);
    rig_close(r);
}

TT_CASE(the_file_is_what_was_trained) {
    check_file(SCALES_ONLY);
    check_file(ON_TRELLIS);
}

TT_CASE(threads_change_nothing) {
    tt_err err = {0};
    const char *dir = tt_test_tmpdir();
    char one[600];
    for (int threads = 1; threads <= 2; threads++) {
        rig *r = rig_open_with(tt_test_ctx(threads, NULL), dir, threads == 1 ? "one.gguf" : "two.gguf", ON_TRELLIS);
        tt_scales_options o = OPTIONS;
        o.learn.steps = 8;
        TT_CHECK_OK(tt__scales_train(r->ctx, &o, &r->job, &err));
        if (threads == 1) snprintf(one, sizeof one, "%s", r->output);
        else TT_CHECK(same_file(one, r->output));
        rig_close(r);
    }
}

TT_CASE(stopped_anywhere_ends_with_the_same_bytes) {
    tt_err err = {0};
    const char *dir = tt_test_tmpdir();
    char whole[600];
    tt_scales_options o = OPTIONS;
    o.learn.steps = 12;
    rig *r = rig_open(tt_test_ctx(1, NULL), dir, "whole.gguf");
    TT_CHECK_OK(tt__scales_train(r->ctx, &o, &r->job, &err));
    snprintf(whole, sizeof whole, "%s", r->output);
    TT_CHECK_OK(tt__remove_tree(r->cache, &err));            /* the second run asks its own teacher, in pieces */
    rig_close(r);
    stopper s = {tt_test_ctx(1, NULL), 0, 1};
    watch(&s);
    r = rig_open(s.ctx, dir, "stopped.gguf");
    tt_status st = TT_INTERRUPTED;
    int stops = -1;
    for (; st == TT_INTERRUPTED; stops++) {
        tt_ctx_cancel(s.ctx, TT_OK);
        s.calls = 0;
        TT_CHECK(!tt__exists(r->output));
        st = tt__scales_train(r->ctx, &o, &r->job, &err);
    }
    TT_CHECK_OK(st);
    TT_CHECK(stops >= 12);
    TT_CHECK(same_file(whole, r->output));
    rig_close(r);
}

TT_CASE(nan_goes_back_and_a_model_without_scales_is_refused) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "a.gguf");
    tt__fault_set(TT_FAULT_LOSS, 12, TT_FAULT_ONCE);
    tt_status st = tt__scales_train(r->ctx, &OPTIONS, &r->job, &err);
    tt__fault_set(TT_FAULT_LOSS, 0, TT_FAULT_OFF);
    TT_CHECK_OK(st);
    TT_CHECK_EQ(r->job.report.tokens_seen, 30 * 2 * 32);
    r->job.force = true;
    r->job.student = r->whole;
    TT_CHECK_FAILS(TT_USAGE, tt__scales_train(r->ctx, &OPTIONS, &r->job, &err));
    TT_CHECK(strstr(err.what, "scales") != NULL);
    rig_close(r);
}

static tt_status short_run(void *arg, tt_err *err) {
    rig *r = arg;
    tt_scales_options o = OPTIONS;
    o.learn.steps = 2;
    return tt__scales_train(r->ctx, &o, &r->job, err);
}

TT_CASE(failing_calls_leave_nothing_behind) {
    static const tt__fault_kind kinds[] = {TT_FAULT_ALLOC, TT_FAULT_WRITE, TT_FAULT_RENAME, TT_FAULT_MMAP};
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "a.gguf");
    TT_CHECK_OK(short_run(r, &err));                         /* the workers' scratch stays with the context */
    r->job.force = true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        TT_CHECK_OK(tt__remove_tree(r->cache, &err));
        tt_test_note("fault kind %d", (int)kinds[i]);
        TT_CHECK(tt_test_fault_loop(kinds[i], TT_FAULT_ONCE, short_run, r) > 1);
    }
    rig_close(r);
}
