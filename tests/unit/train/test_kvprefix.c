/* Training of a KV prefix: it begins as what the cache holds, it learns, its first position stays, and PEFT's rows hold it. */
#include "train/kvprefix.h"
#include "formats/peft.h"
#include "recover.h"

static const tt_kvprefix_options OPTIONS = {
    .learn = {.steps = 30, .batch = 2, .length = 32, .valid_every = 5, .valid_windows = 4, .clip = 1, .beta1 = 0.9, .beta2 = 0.999},
    .tokens = 6, .frozen = 1, .kl = true, .topk = 16, .temperature = 1, .lr = 2e-2};
enum { W = TINY_HKV * TINY_D / TINY_H, ROW = TINY_L * 2 * W };

TT_CASE(kl_falls_on_held_out_text) {
    for (int topk = 0; topk < 2; topk++) {
        tt_err err = {0};
        rig *r = rig_open(tt_test_ctx(2, NULL), tt_test_tmpdir(), topk ? "k" : "v");
        tt_kvprefix_options o = OPTIONS;
        if (!topk) o.topk = 0;
        TT_CHECK_OK(tt__kvprefix_train(r->ctx, &o, &r->job, &err));
        const tt_tune_report *t = &r->job.report;
        tt_test_note("validation %.4f to %.4f", t->first_valid, t->best_valid);
        TT_CHECK(t->best_valid < 0.97 * t->first_valid);
        TT_CHECK(!tt__exists(r->state));
        rig_close(r);
    }
}

/* Untrained, it is the cache of its tokens: the loss behind it is that of the text after those tokens. */
TT_CASE(it_begins_as_the_cache_of_a_text) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    tt_kvprefix_options o = OPTIONS;
    tt_peft_prompt p;
    tt_prefix *prefix = NULL;
    tt_runner *runner = NULL;
    tt_kvcache *cache = NULL, *behind = NULL;
    float H[16 * TINY_D], Hp[10 * TINY_D];
    o.learn.steps = 0;
    r->job.teacher = NULL;
    TT_CHECK_OK(tt__kvprefix_train(r->ctx, &o, &r->job, &err));
    TT_CHECK_OK(tt__peft_load(r->output, &p, &err));
    TT_CHECK(p.prefix && p.tokens == 6 && p.width == ROW && p.kv_width == W && p.n_layers == TINY_L && p.n_heads == TINY_HKV);
    TT_CHECK_OK(tt__prefix_from_rows(r->damaged, p.embeddings, 6, TT_KV_F32, &prefix, &err));
    TT_CHECK_OK(tt__runner_create(r->ctx, r->damaged, &(tt_runner_options){.max_rows = 16, .max_past = 16}, &runner, &err));
    TT_CHECK_OK(tt__kvcache_create(r->ctx, r->damaged, 1, 16, TT_KV_F32, &cache, &err));
    TT_CHECK_OK(tt__kvcache_create(r->ctx, r->damaged, 1, 10, TT_KV_F32, &behind, &err));
    behind->prefix = prefix;
    TT_CHECK_OK(tt__run_cached(runner, cache, r->train.ids, 16, false, H, &err));
    TT_CHECK_OK(tt__run_cached(runner, behind, r->train.ids + 6, 10, false, Hp, &err));
    for (int i = 0; i < 10 * TINY_D; i++) TT_CHECK_NEAR(Hp[i], H[6 * TINY_D + i], 1e-4);
    tt__prefix_free(prefix);
    tt__kvcache_free(cache);
    tt__kvcache_free(behind);
    tt__runner_free(runner);
    tt__peft_free(&p);
    rig_close(r);
}

/* The first position is that of the untrained one, all others moved; frozen=0 moves it too. */
TT_CASE(frozen_positions_stay) {
    tt_err err = {0};
    tt_peft_prompt p[3];
    const char *dir = tt_test_tmpdir();
    static const char *const names[] = {"untrained", "frozen", "free"};
    for (int i = 0; i < 3; i++) {
        rig *r = rig_open(tt_test_ctx(1, NULL), dir, names[i]);
        tt_kvprefix_options o = OPTIONS;
        if (i == 0) o.learn.steps = 0;
        if (i == 2) o.frozen = 0;
        TT_CHECK_OK(tt__kvprefix_train(r->ctx, &o, &r->job, &err));
        TT_CHECK_OK(tt__peft_load(r->output, &p[i], &err));
        rig_close(r);
    }
    TT_CHECK(memcmp(p[0].embeddings, p[1].embeddings, ROW * sizeof(float)) == 0);
    TT_CHECK(memcmp(p[0].embeddings, p[2].embeddings, ROW * sizeof(float)) != 0);
    for (int row = 1; row < 6; row++) TT_CHECK(memcmp(p[0].embeddings + row * ROW, p[1].embeddings + row * ROW, ROW * sizeof(float)) != 0);
    for (int i = 0; i < 3; i++) tt__peft_free(&p[i]);
}

/* Rows of GGUF's rotary order and of Hugging Face's are each other's permutation. */
TT_CASE(rows_of_peft_are_in_hugging_face_order) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "x");
    enum { D = TINY_D / TINY_H };
    float k[TINY_L * W], v[TINY_L * W], rows[ROW];
    tt_prefix f32 = {.P = 1, .type = TT_KV_F32, .k = k, .v = v}, *back = NULL;
    for (int i = 0; i < TINY_L * W; i++) k[i] = (float)i, v[i] = -(float)i;
    TT_CHECK(r->damaged->rope_adjacent);
    tt__prefix_to_rows(r->damaged, &f32, rows);
    for (int l = 0; l < TINY_L; l++)
        for (int h = 0; h < TINY_HKV; h++)
            for (int i = 0; i < D / 2; i++)
                for (int j = 0; j < 2; j++) {
                    TT_CHECK_EQ(rows[l * 2 * W + h * D + j * (D / 2) + i], k[l * W + h * D + 2 * i + j]);
                    TT_CHECK_EQ(rows[l * 2 * W + W + h * D + 2 * i + j], v[l * W + h * D + 2 * i + j]);
                }
    TT_CHECK_OK(tt__prefix_from_rows(r->damaged, rows, 1, TT_KV_F32, &back, &err));
    TT_CHECK(memcmp(back->k, k, sizeof k) == 0 && memcmp(back->v, v, sizeof v) == 0);
    tt__prefix_free(back);
    rig_close(r);
}

TT_CASE(stopped_anywhere_ends_with_the_same_bytes) {
    tt_err err = {0};
    const char *dir = tt_test_tmpdir();
    char a[700], b[700];
    tt_kvprefix_options o = OPTIONS;
    o.learn.steps = 8;
    rig *r = rig_open(tt_test_ctx(1, NULL), dir, "whole");
    TT_CHECK_OK(tt__kvprefix_train(r->ctx, &o, &r->job, &err));
    snprintf(a, sizeof a, "%s/adapter_model.safetensors", r->output);
    rig_close(r);
    stopper s = {tt_test_ctx(1, NULL), 0, 1};
    watch(&s);
    r = rig_open(s.ctx, dir, "stopped");
    tt_status st = TT_INTERRUPTED;
    while (st == TT_INTERRUPTED) {
        tt_ctx_cancel(s.ctx, TT_OK);
        s.calls = 0;
        st = tt__kvprefix_train(r->ctx, &o, &r->job, &err);
    }
    TT_CHECK_OK(st);
    snprintf(b, sizeof b, "%s/adapter_model.safetensors", r->output);
    TT_CHECK(same_file(a, b));
    rig_close(r);
}

TT_CASE(wrong_jobs_are_refused) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    tt_kvprefix_options o = OPTIONS;
    o.frozen = 6;
    TT_CHECK_FAILS(TT_USAGE, tt__kvprefix_train(r->ctx, &o, &r->job, &err));
    o = OPTIONS;
    o.tokens = TINY_CTX;
    TT_CHECK_FAILS(TT_USAGE, tt__kvprefix_train(r->ctx, &o, &r->job, &err));
    TT_CHECK(!tt__exists(r->output));
    rig_close(r);
}
