/* The prompt trainer on a tiny net: it learns, it writes what PEFT folders hold, and nothing that interrupts it shows in the result. */
#include "train/prompt.h"

#include "base/file.h"
#include "formats/peft.h"
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char SHA[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

typedef struct rig {
    tt_ctx *ctx;
    tt_gguf *g[2];
    tt_net *net[2];                    /* damaged, whole */
    tt_tokenizer *tok;
    tt_tokens train, valid, other;
    tt_guard_text guard;               /* of another text: its course belongs to the state */
    tt_prompt_options o;
    tt_train_job job;
    char state[512], output[512];
} rig;

static void tokens_of(rig *r, uint64_t seed, int words, tt_tokens *out) {
    tt_err err = {0};
    char *text = tiny_text(seed, words);
    size_t bytes = strlen(text);
    tt_docs d = {.n = 1, .text = &text, .bytes = &bytes};
    TT_CHECK_OK(tt__docs_tokenize(&d, r->tok, out, &err));
    tt__free(text);
}

static void open_nets(rig *r, const char *dir) {
    tt_err err = {0};
    char path[600];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/net%d.gguf", dir, i);
        if (!tt__exists(path)) tiny_write(path, 5, i ? 0 : 0.5, false);
        TT_CHECK_OK(tt__gguf_open(path, &r->g[i], &err));
        TT_CHECK_OK(tt__net_from_gguf(r->ctx, r->g[i], false, &r->net[i], &err));
    }
    TT_CHECK_OK(tt__tokenizer_from_gguf(r->g[0], &r->tok, &err));
}

static rig *rig_open(tt_ctx *ctx, const char *dir, const char *output) {
    rig *r = tt__calloc(1, sizeof *r);
    r->ctx = ctx;
    open_nets(r, dir);
    tokens_of(r, 1, 1500, &r->train);
    tokens_of(r, 2, 300, &r->valid);
    tokens_of(r, 9, 200, &r->other);
    r->guard = (tt_guard_text){"other", &r->other};
    snprintf(r->output, sizeof r->output, "%s/%s", dir, output);
    snprintf(r->state, sizeof r->state, "%s/%s.state", dir, output);
    r->o = (tt_prompt_options){.tokens = 6, .steps = 24, .kl = true, .batch = 2, .length = 32, .valid_every = 5, .valid_windows = 4,
        .lr = 0.05, .clip = 1, .beta1 = 0.9,
                               .beta2 = 0.999, .warmup = 2};
    r->job = (tt_train_job){.student = r->net[0], .teacher = r->net[1], .tokenizer = r->tok, .train = &r->train, .valid = &r->valid,
        .seed = 3, .state_dir = r->state,
                            .output = r->output, .base_ref = "tiny", .base_sha256 = SHA, .teacher_sha256 = "11", .recipe_line = "prompt",
                                .recipe_sha256 = "22",
                            .data_sha256 = "33", .resume = true, .checkpoint_seconds = 3600};
    return r;
}

static void rig_close(rig *r) {
    tt__tokens_free(&r->train);
    tt__tokens_free(&r->valid);
    tt__tokens_free(&r->other);
    tt__tokenizer_free(r->tok);
    for (int i = 0; i < 2; i++) {
        tt__net_free(r->net[i]);
        tt__gguf_close(r->g[i]);
    }
    tt__free(r);
}

static tt_status train(rig *r, tt_err *err) { return tt__prompt_train(r->ctx, &r->o, &r->job, err); }

static bool same_bytes(const char *dir_a, const char *dir_b) {
    static const char *const files[] = {"adapter_model.safetensors", "adapter_config.json", "trimtab.json"};
    bool same = true;
    for (int i = 0; i < 3; i++) {
        char *a = NULL, *b = NULL, *pa = tt__path_join(dir_a, files[i]), *pb = tt__path_join(dir_b, files[i]);
        size_t na = 0, nb = 1;
        same = same && tt__read_file(pa, 1 << 24, &a, &na, NULL) == TT_OK && tt__read_file(pb, 1 << 24, &b, &nb, NULL) == TT_OK &&
            na == nb && memcmp(a, b, na) == 0;
        tt__free(a);
        tt__free(b);
        tt__free(pa);
        tt__free(pb);
    }
    return same;
}

static void check_learns(bool kl) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(2, NULL), tt_test_tmpdir(), "tab");
    tt_peft_prompt p;
    r->o.kl = kl;
    r->o.steps = 60;
    TT_CHECK_OK(train(r, &err));
    tt_tune_report *t = &r->job.report;
    tt_test_note("validation %.4f to %.4f, training %.4f to %.4f", t->first_valid, t->best_valid, t->first_loss, t->last_loss);
    TT_CHECK(t->best_valid < 0.97 * t->first_valid);
    TT_CHECK(t->best_step > 0 && t->best_step <= 60);
    TT_CHECK_EQ(t->steps, 60);
    TT_CHECK_EQ(t->tokens_seen, 60 * 2 * 32);
    TT_CHECK_OK(tt__peft_load(r->output, &p, &err));
    TT_CHECK_EQ(p.tokens, 6);
    TT_CHECK_EQ(p.width, TINY_D);
    TT_CHECK_STR(p.base_sha256, SHA);
    TT_CHECK(!tt__exists(r->state));
    tt__peft_free(&p);
    rig_close(r);
}

TT_CASE(kl_loss_falls_on_held_out_text) { check_learns(true); }
TT_CASE(ce_loss_falls_on_held_out_text) { check_learns(false); }

TT_CASE(no_steps_write_the_untrained_tab) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    tt_peft_prompt p;
    float row[TINY_D];
    r->o.steps = 0;
    r->job.teacher = NULL;                              /* nothing is learned: none is needed */
    TT_CHECK_OK(train(r, &err));
    TT_CHECK_OK(tt__peft_load(r->output, &p, &err));
    for (int i = 0; i < 6; i++) {                       /* every row is a row of the vocabulary that the text uses, none twice */
        int found = -1;
        for (int id = 0; id < TINY_V; id++) {
            tt__linop_rows(r->net[0]->weights[r->net[0]->embd].op, id, id + 1, row);
            if (memcmp(row, p.embeddings + i * TINY_D, sizeof row) == 0) found = id;
        }
        TT_CHECK(found >= 0);
        bool used = false;
        for (size_t k = 0; k < r->train.n; k++) used |= r->train.ids[k] == found;
        TT_CHECK(used);
        for (int j = 0; j < i; j++) TT_CHECK(memcmp(p.embeddings + i * TINY_D, p.embeddings + j * TINY_D, sizeof row) != 0);
    }
    tt__peft_free(&p);
    rig_close(r);
}

TT_CASE(text_init_repeats_the_tokens) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    tt_peft_prompt p;
    r->o.steps = 0, r->o.init = TT_PROMPT_TEXT, r->o.init_text = "abc";
    TT_CHECK_OK(train(r, &err));
    TT_CHECK_OK(tt__peft_load(r->output, &p, &err));
    TT_CHECK(memcmp(p.embeddings, p.embeddings + 3 * TINY_D, 3 * TINY_D * sizeof(float)) == 0);
    TT_CHECK(memcmp(p.embeddings, p.embeddings + TINY_D, TINY_D * sizeof(float)) != 0);
    tt__peft_free(&p);
    r->o.init_text = "";
    r->job.force = true;
    TT_CHECK_FAILS(TT_USAGE, train(r, &err));
    rig_close(r);
}

/* Threads do not show in the result, nor does the keep policy that a memory bound chooses: the smallest bound that works recomputes all. */
TT_CASE(threads_and_memory_change_nothing) {
    tt_err err = {0};
    const char *dir = tt_test_tmpdir();
    char a[600];
    rig *r = rig_open(tt_test_ctx(1, NULL), dir, "one");
    TT_CHECK_OK(train(r, &err));
    snprintf(a, sizeof a, "%s", r->output);
    rig_close(r);
    r = rig_open(tt_test_ctx(2, NULL), dir, "two");
    tt_status st = TT_RESOURCE;
    for (r->job.max_ram = 100000; st == TT_RESOURCE; r->job.max_ram += r->job.max_ram / 20) st = train(r, &err);
    TT_CHECK_OK(st);
    TT_CHECK(same_bytes(a, r->output));
    rig_close(r);
}

/* In bf16 too, and it ends near where f32 ends. */
TT_CASE(bf16_learns_as_f32_does) {
    tt_err err = {0};
    double best[2];
    char one[600];
    for (int bf16 = 0; bf16 < 2; bf16++) {
        rig *r = rig_open(tt_test_ctx(2, NULL), tt_test_tmpdir(), bf16 ? "bf16" : "f32");
        r->o.bf16 = bf16;
        r->o.steps = 40;
        TT_CHECK_OK(train(r, &err));
        best[bf16] = r->job.report.best_valid;
        snprintf(one, sizeof one, "%s", r->output);
        rig_close(r);
    }
    TT_CHECK_NEAR(best[1], best[0], 0.02 * best[0]);
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "bf16 one thread");
    r->o.bf16 = true;
    r->o.steps = 40;
    TT_CHECK_OK(train(r, &err));
    TT_CHECK(same_bytes(one, r->output));
    rig_close(r);
}

TT_CASE(existing_output_is_kept_unless_forced) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    r->o.steps = 0;
    TT_CHECK_OK(train(r, &err));
    TT_CHECK_FAILS(TT_USAGE, train(r, &err));
    r->job.force = true;
    TT_CHECK_OK(train(r, &err));
    rig_close(r);
}

/* ------------------------------------------------------------ interruptions ---- */

/* A process of its own runs the whole training with a fault armed; returns its wait status. */
static int run_apart(const char *dir, const char *output, tt__fault_kind kind, uint64_t k, tt__fault_mode mode) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        tt_err err = {0};
        rig *r = rig_open(tt_test_ctx(1, NULL), dir, output);
        r->job.checkpoint_seconds = 0;                  /* a state file after every step */
        r->o.steps = 12;
        r->job.guards = &r->guard, r->job.n_guards = 1;
        tt__fault_set(kind, k, mode);
        _exit(train(r, &err) == TT_OK ? 0 : 1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

/* Killed at the k-th write (and rename) of a run, again and again with growing k; then left alone. */
TT_CASE(killed_anywhere_ends_with_the_same_bytes) {
    const char *dir = tt_test_tmpdir();
    char whole[600], killed[600];
    snprintf(whole, sizeof whole, "%s/whole", dir);
    snprintf(killed, sizeof killed, "%s/killed", dir);
    TT_CHECK_EQ(run_apart(dir, "whole", TT_FAULT_WRITE, 0, TT_FAULT_OFF), 0);
    static const tt__fault_kind kinds[] = {TT_FAULT_WRITE, TT_FAULT_RENAME, TT_FAULT_FSYNC};
    int kills = 0;
    for (size_t kind = 0; kind < 3; kind++) {
        for (uint64_t k = 1; k < 40; k += k < 6 ? 1 : 7) {
            tt_test_note("fault kind %d, killed at call %llu", (int)kinds[kind], (unsigned long long)k);
            int status = run_apart(dir, "killed", kinds[kind], k, TT_FAULT_KILL);
            kills += WIFSIGNALED(status);
            /* After its last act but one, the removal of the state file, a run can only say that the output stands: it is whole then. */
            if (WIFSIGNALED(status)) TT_CHECK(run_apart(dir, "killed", TT_FAULT_WRITE, 0, TT_FAULT_OFF) == 0 || tt__exists(killed));
            else TT_CHECK_EQ(status, 0);
            TT_CHECK(same_bytes(whole, killed));
            tt_err err = {0};
            TT_CHECK_OK(tt__remove_tree(killed, &err));
            TT_CHECK_EQ(tt_test_count_entries(dir), 3);     /* two nets, the whole run: no temporary, no state */
        }
    }
    TT_CHECK(kills >= 20);
}

typedef struct stopper { tt_ctx *ctx; int calls, at; } stopper;

static void stop_at(void *user, const char *task, double done, double total, const char *unit, const char *note) {
    stopper *s = user;
    (void)task, (void)done, (void)total, (void)unit, (void)note;
    s->ctx->progress_at = -1e9;                         /* not a few times a second: at every step */
    if (++s->calls == s->at) tt_ctx_cancel(s->ctx, TT_INTERRUPTED);
}

TT_CASE(cancelled_run_goes_on_where_it_was) {
    tt_err err = {0};
    const char *dir = tt_test_tmpdir();
    char whole[600];
    rig *r = rig_open(tt_test_ctx(1, NULL), dir, "whole");
    TT_CHECK_OK(train(r, &err));
    snprintf(whole, sizeof whole, "%s", r->output);
    rig_close(r);
    stopper s = {tt_test_ctx(1, NULL), 0, 1};
    s.ctx->opt.progress = stop_at;
    s.ctx->opt.progress_user = &s;
    r = rig_open(s.ctx, dir, "stopped");
    tt_status st = train(r, &err);
    int stops = 0;
    for (; st == TT_INTERRUPTED; stops++) {             /* each run does one step or one validation */
        TT_CHECK(tt__exists(r->state));
        TT_CHECK(!tt__exists(r->output));
        tt_ctx_cancel(s.ctx, TT_OK);
        s.calls = 0;
        st = train(r, &err);
        TT_CHECK(r->job.report.resumed || st != TT_OK);
    }
    TT_CHECK_OK(st);
    tt_test_note("%d stops", stops);
    TT_CHECK(stops >= 20);
    TT_CHECK(same_bytes(whole, r->output));
    rig_close(r);
}

TT_CASE(changed_recipe_or_damaged_state_starts_afresh) {
    tt_err err = {0};
    stopper s = {tt_test_ctx(1, NULL), 0, 1};
    s.ctx->opt.progress = stop_at;
    s.ctx->opt.progress_user = &s;
    rig *r = rig_open(s.ctx, tt_test_tmpdir(), "tab");
    TT_CHECK_EQ(train(r, &err), TT_INTERRUPTED);
    tt_ctx_cancel(s.ctx, TT_OK);
    r->job.recipe_sha256 = "another";
    TT_CHECK_OK(train(r, &err));
    TT_CHECK(!r->job.report.resumed);

    r->job.force = true;
    s.calls = 0;
    TT_CHECK_EQ(train(r, &err), TT_INTERRUPTED);
    tt_ctx_cancel(s.ctx, TT_OK);
    char *bytes = NULL, *path = tt__path_join(r->state, "prompt.state");
    size_t n = 0;
    TT_CHECK_OK(tt__read_file(path, 1 << 24, &bytes, &n, &err));
    bytes[n / 2] ^= 1;
    TT_CHECK_OK(tt__write_file(path, bytes, n, &err));
    tt__free(bytes);
    tt__free(path);
    TT_CHECK_OK(train(r, &err));
    TT_CHECK(!r->job.report.resumed);
    rig_close(r);
}

/* The number of steps is chosen once: a resumed run keeps it whatever its own speed. */
TT_CASE(time_budget_is_fixed_once) {
    tt_err err = {0};
    stopper s = {tt_test_ctx(1, NULL), 0, 1};
    s.ctx->opt.progress = stop_at;
    s.ctx->opt.progress_user = &s;
    rig *r = rig_open(s.ctx, tt_test_tmpdir(), "tab");
    r->o.time = 0.2;
    TT_CHECK_EQ(train(r, &err), TT_INTERRUPTED);
    tt_ctx_cancel(s.ctx, TT_OK);
    char *bytes = NULL, *path = tt__path_join(r->state, "prompt.state");
    size_t n = 0;
    int64_t total = 0;
    TT_CHECK_OK(tt__read_file(path, 1 << 24, &bytes, &n, &err));
    memcpy(&total, bytes + 48, sizeof total);           /* the first counter */
    tt__free(bytes);
    tt__free(path);
    s.at = 0;
    TT_CHECK_OK(train(r, &err));
    TT_CHECK(r->job.report.resumed);
    TT_CHECK_EQ(r->job.report.steps, total);
    TT_CHECK(r->job.report.seconds < 20);
    rig_close(r);
}

/* Every allocation and every write may fail: an error, nothing leaked, and a tab that is either whole or not there. A failure that only leaves the
 * state behind is none, so the loop meets finished tabs too: hence force. */
static tt_status short_run(void *arg, tt_err *err) {
    rig *r = arg;
    tt_peft_prompt p;
    tt_err why = {0};
    tt_status st = train(r, err);
    if (tt__fault_fired() && tt__exists(r->output)) {
        if (tt__peft_load(r->output, &p, &why) != TT_OK) tt_test_fail(__FILE__, __LINE__, "after \"%s\": %s", err->what,
            tt_test_err_line(why.status, &why));
        tt__peft_free(&p);
    }
    return st;
}

TT_CASE(failing_calls_leave_nothing_behind) {
    tt_err err = {0};
    static const tt__fault_kind kinds[] = {TT_FAULT_ALLOC, TT_FAULT_WRITE, TT_FAULT_RENAME, TT_FAULT_FSYNC, TT_FAULT_CLOSE};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    r->o.steps = 3;
    TT_CHECK_OK(train(r, &err));                        /* the workers' scratch stays with the context */
    r->job.checkpoint_seconds = 0;
    r->job.force = true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        TT_CHECK_OK(tt__remove_tree(r->output, &err));
        tt_test_note("fault kind %d", (int)kinds[i]);
        TT_CHECK(tt_test_fault_loop(kinds[i], TT_FAULT_ONCE, short_run, r) > 1);
    }
    rig_close(r);
}

/* ------------------------------------------------------------ numbers that are none ---- */

TT_CASE(nan_goes_back_and_halves_the_rate) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    tt__fault_set(TT_FAULT_LOSS, 12, TT_FAULT_ONCE);
    tt_status st = train(r, &err);
    bool fired = tt__fault_fired();
    tt__fault_set(TT_FAULT_LOSS, 0, TT_FAULT_OFF);
    TT_CHECK_OK(st);
    TT_CHECK(fired);
    TT_CHECK_EQ(r->job.report.tokens_seen, 24 * 2 * 32);      /* steps that were undone do not count */
    char *text = NULL, *path = tt__path_join(r->output, "trimtab.json");
    size_t n = 0;
    TT_CHECK_OK(tt__read_file(path, 1 << 20, &text, &n, &err));
    TT_CHECK(strstr(text, "\"halvings\": 1") != NULL);
    tt__free(text);
    tt__free(path);
    rig_close(r);
}

TT_CASE(nan_that_stays_fails_and_names_the_step) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    tt__fault_set(TT_FAULT_LOSS, 12, TT_FAULT_ON);
    tt_status st = train(r, &err);
    tt__fault_set(TT_FAULT_LOSS, 0, TT_FAULT_OFF);
    TT_CHECK_EQ(st, TT_FAIL);
    TT_CHECK(strstr(err.where, "step") != NULL);
    TT_CHECK(!tt__exists(r->output));
    TT_CHECK(tt__exists(r->state));
    rig_close(r);
}

/* ------------------------------------------------------------ wrong jobs ---- */

TT_CASE(wrong_jobs_are_refused) {
    tt_err err = {0};
    rig *r = rig_open(tt_test_ctx(1, NULL), tt_test_tmpdir(), "tab");
    r->job.teacher = NULL;
    TT_CHECK_FAILS(TT_USAGE, train(r, &err));
    r->job.teacher = r->net[1];
    r->o.length = TINY_CTX;
    TT_CHECK_FAILS(TT_USAGE, train(r, &err));
    r->o.length = 1900;
    TT_CHECK_FAILS(TT_USAGE, train(r, &err));           /* longer than the validation text */
    r->o.length = 32;
    r->job.max_ram = 1000;
    TT_CHECK_FAILS(TT_RESOURCE, train(r, &err));
    TT_CHECK(!tt__exists(r->output));
    rig_close(r);
}
