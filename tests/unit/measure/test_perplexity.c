/* Perplexity on a tiny net against a plain reading of the protocol: full windows, no cache, one softmax per target in double precision. */
#include "base/file.h"
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include "measure/measure.h"
#include <stdio.h>

typedef struct rig {
    tt_ctx *ctx;
    tt_gguf *g[2];
    tt_net *net[2];                    /* whole, damaged */
    tt_tokenizer *tok;
    const char *text;                  /* path */
    tt_measure_job job;
    tt_perplexity_report report;
} rig;

static rig *rig_open(int threads, bool add_bos) {
    tt_err err = {0};
    rig *r = tt__calloc(1, sizeof *r);
    char *text = tiny_text(11, 400);
    r->ctx = tt_test_ctx(threads, NULL);
    for (int i = 0; i < 2; i++) {
        const char *path = tt_test_path(i ? "damaged.gguf" : "whole.gguf");
        tiny_write(path, 5, i ? 0.4 : 0, add_bos);
        TT_CHECK_OK(tt__gguf_open(path, &r->g[i], &err));
        TT_CHECK_OK(tt__net_from_gguf(r->ctx, r->g[i], false, &r->net[i], &err));
    }
    TT_CHECK_OK(tt__tokenizer_from_gguf(r->g[0], &r->tok, &err));
    r->text = tt_test_file("text.txt", text, strlen(text));
    tt__free(text);
    r->job = (tt_measure_job){.net = r->net[0], .tok = r->tok, .model_ref = "tiny", .data = r->text, .n_ctx = 64};
    return r;
}

static void rig_close(rig *r) {
    tt__tokenizer_free(r->tok);
    for (int i = 0; i < 2; i++) {
        tt__net_free(r->net[i]);
        tt__gguf_close(r->g[i]);
    }
    tt__free(r);
}

static tt_status run(rig *r, tt_err *err) { return tt__measure_perplexity(r->ctx, &r->job, &r->report, err); }

/* -log p(target | ids[0 … row]) of a window read in one go, in double precision. */
static double plain_nll(rig *r, const tt_net *net, const int32_t *ids, int64_t n, int64_t row, int32_t target) {
    tt_err err = {0};
    tt_runner *run = NULL;
    tt_runner_options o = {.max_rows = n};
    float *H = tt__alloc((size_t)(n * TINY_D) * sizeof *H), z[TINY_V];
    double sum = 0;
    TT_CHECK_OK(tt__runner_create(r->ctx, net, &o, &run, &err));
    TT_CHECK_OK(tt__run_hidden(run, 1, n, ids, H, &err));
    TT_CHECK_OK(tt__run_logits(run, H + row * TINY_D, 1, z, &err));
    for (int i = 0; i < TINY_V; i++) sum += exp((double)z[i] - (double)z[target]);
    tt__runner_free(run);
    tt__free(H);
    return log(sum);
}

static void encode_file(rig *r, int32_t **ids, size_t *n) {
    tt_err err = {0};
    char *text = NULL;
    size_t bytes = 0;
    TT_CHECK_OK(tt__read_file(r->text, 1 << 20, &text, &bytes, &err));
    if (text[bytes - 1] == '\n') bytes--;
    TT_CHECK_OK(tt__tokenizer_encode(r->tok, text, bytes, TT_ADD_SPECIAL, ids, n, &err));
    tt__free(text);
}

/* The whole second half, or what llama.cpp takes of it: one target fewer. */
static void check_chunks(bool add_bos, bool as_llama_cpp) {
    tt_err err = {0};
    rig *r = rig_open(2, add_bos);
    int32_t *ids = NULL;
    size_t n = 0;
    double sum = 0;
    int first = as_llama_cpp ? 32 : 31;
    r->job.chunks = 3;
    r->job.as_llama_cpp = as_llama_cpp;
    TT_CHECK_OK(run(r, &err));
    encode_file(r, &ids, &n);
    TT_CHECK_EQ(ids[0] == TINY_END, add_bos);
    for (int c = 0; c < 3; c++) {
        int32_t window[64], *y = ids + 64 * c;
        memcpy(window, y, sizeof window);
        if (add_bos) window[0] = TINY_END;
        for (int row = first; row <= 62; row++) sum += plain_nll(r, r->net[0], window, 64, row, y[row + 1]);
    }
    TT_CHECK_EQ(r->report.tokens, 3 * (63 - first));
    TT_CHECK_EQ(r->report.chunks, 3);
    TT_CHECK_NEAR(r->report.nll, sum / (3 * (63 - first)), 2e-6);
    TT_CHECK_NEAR(r->report.perplexity, exp(r->report.nll), 1e-9);
    TT_CHECK(r->report.error > 0);
    tt__free(ids);
    rig_close(r);
}

TT_CASE(chunks_score_their_second_half) { check_chunks(false, false); }
TT_CASE(chunks_follow_llama_cpp) { check_chunks(false, true); }
TT_CASE(bos_takes_the_first_place_of_each_chunk) { check_chunks(true, true); }

TT_CASE(all_chunks_by_default_and_too_short_is_refused) {
    tt_err err = {0};
    rig *r = rig_open(1, false);
    int32_t *ids = NULL;
    size_t n = 0;
    encode_file(r, &ids, &n);
    tt__free(ids);
    r->job.chunks = -1;
    TT_CHECK_OK(run(r, &err));
    TT_CHECK_EQ(r->report.chunks, n / 64);
    r->job.n_ctx = (int64_t)n / 2 + 1;
    TT_CHECK_FAILS(TT_USAGE, run(r, &err));
    r->job.n_ctx = TINY_CTX + 1;
    TT_CHECK_FAILS(TT_USAGE, run(r, &err));
    rig_close(r);
}

TT_CASE(threads_change_nothing) {
    tt_err err = {0};
    rig *a = rig_open(1, false), *b = rig_open(2, false);
    TT_CHECK_OK(run(a, &err));
    TT_CHECK_OK(run(b, &err));
    TT_CHECK(a->report.nll == b->report.nll && a->report.error == b->report.error);
    rig_close(a);
    rig_close(b);
}

/* ------------------------------------------------------------ documents ---- */

TT_CASE(documents_score_all_but_the_first_of_a_window) {
    tt_err err = {0};
    rig *r = rig_open(1, false);
    static const char jsonl[] = "{\"text\": \"the small tab moves the rudder\"}\n{\"text\": \"the rudder turns the ship, and the ship turns back then\"}\n{\"text\": \"a\"}\n";
    r->job.data = tt_test_file("docs.jsonl", jsonl, sizeof jsonl - 1);
    r->job.documents = true;
    r->job.n_ctx = 20;
    r->job.save_losses = tt_test_path("losses");
    TT_CHECK_OK(run(r, &err));
    tt_docs docs;
    tt_tokens t;
    TT_CHECK_OK(tt__docs_load(r->job.data, NULL, &docs, &err));
    TT_CHECK_OK(tt__docs_tokenize(&docs, r->tok, &t, &err));
    double sum = 0;
    int64_t targets = 0;
    for (size_t d = 0; d < t.n_docs; d++)
        for (size_t at = t.start[d]; at < t.start[d + 1]; at += 20) {
            int64_t n = t.start[d + 1] - at < 20 ? (int64_t)(t.start[d + 1] - at) : 20;
            for (int64_t row = 0; row + 1 < n; row++, targets++) sum += plain_nll(r, r->net[0], t.ids + at, n, row,
                t.ids[at + (size_t)row + 1]);
        }
    TT_CHECK_EQ(r->report.documents, 2);                 /* the third has one token and no target */
    TT_CHECK_EQ(r->report.tokens, targets);
    TT_CHECK_NEAR(r->report.nll, sum / (double)targets, 2e-6);
    TT_CHECK_STR(r->report.data_sha256, docs.sha256);
    tt_losses l;
    TT_CHECK_OK(tt__losses_open(r->job.save_losses, &l, &err));
    TT_CHECK_EQ(l.n, targets);
    sum = 0;
    for (uint64_t i = 0; i < l.n; i++) {
        tt_loss_entry e = tt__losses_at(&l, i);
        TT_CHECK_EQ(e.token, t.ids[t.start[e.doc] + e.position]);
        sum += (double)e.loss;
    }
    TT_CHECK_NEAR(sum / (double)targets, r->report.nll, 1e-6);
    tt__losses_close(&l);
    tt__tokens_free(&t);
    tt__docs_free(&docs);
    rig_close(r);
}

/* ------------------------------------------------------------ base models ---- */

TT_CASE(base_file_and_lock_step_agree) {
    tt_err err = {0};
    rig *r = rig_open(2, false);
    const char *path = tt_test_path("base");
    r->job.save_base = path;
    TT_CHECK_OK(run(r, &err));
    double base = r->report.perplexity;
    r->job.save_base = NULL;
    r->job.net = r->net[1];
    r->job.load_base = path;
    TT_CHECK_OK(run(r, &err));
    TT_CHECK(r->report.has_kld);
    tt_kld_stats file = r->report.kld;
    r->job.load_base = NULL;
    r->job.base = r->net[0];
    TT_CHECK_OK(run(r, &err));
    tt_kld_stats live = r->report.kld;
    TT_CHECK(live.mean_kld > 0.01);
    TT_CHECK_NEAR(file.mean_kld, live.mean_kld, 1e-3 * (1 + live.mean_kld));
    TT_CHECK_NEAR(live.base_perplexity, base, 1e-4 * base);
    TT_CHECK_NEAR(file.base_perplexity, base, 1e-3 * base);
    TT_CHECK_NEAR(live.ratio, r->report.perplexity / base, 1e-4 * live.ratio);
    TT_CHECK_NEAR(file.same_top, live.same_top, 0.02);
    r->job.net = r->net[0];                             /* against itself */
    TT_CHECK_OK(run(r, &err));
    TT_CHECK_NEAR(r->report.kld.mean_kld, 0, 1e-6);
    TT_CHECK_NEAR(r->report.kld.kld.max, 0, 1e-5);
    TT_CHECK_NEAR(r->report.kld.same_top, 1, 0);
    TT_CHECK_NEAR(r->report.kld.mean_ln_ratio, 0, 1e-6);
    rig_close(r);
}

TT_CASE(base_file_has_the_documented_layout) {
    tt_err err = {0};
    rig *r = rig_open(1, false);
    r->job.save_base = tt_test_path("base");
    r->job.chunks = 2;
    TT_CHECK_OK(run(r, &err));
    char *p = NULL;
    int32_t *ids = NULL;
    size_t n = 0, n_ids = 0, units = (size_t)tt__base_row_units(TINY_V);
    TT_CHECK_OK(tt__read_file(r->job.save_base, 1 << 24, &p, &n, &err));
    encode_file(r, &ids, &n_ids);
    TT_CHECK(memcmp(p, "_logits_", 8) == 0);
    TT_CHECK_EQ(tt__rd32(p + 8), 64);
    TT_CHECK_EQ(tt__rd32(p + 12), TINY_V);
    TT_CHECK_EQ(tt__rd32(p + 16), 2);
    TT_CHECK(memcmp(p + 20, ids, 2 * 64 * 4) == 0);
    TT_CHECK_EQ(n, 20 + 2 * 64 * 4 + 2 * 31 * units * 2);
    tt__free(ids);

    r->job.load_base = r->job.save_base, r->job.save_base = NULL;
    r->job.data = NULL;                                 /* the file holds the tokens */
    TT_CHECK_OK(run(r, &err));
    TT_CHECK_EQ(r->report.tokens, 62);
    TT_CHECK(!r->report.has_kld);                       /* fewer than 100 */
    static const struct { size_t at; uint8_t value; const char *what; } damage[] = {{0, 'x', "magic"}, {12, 7, "vocabulary"}, {16, 3,
        "chunks"}, {19, 0x80, "huge chunk count"},
                                                                                  {11, 0x7f, "huge context"}, {23, 0x7f, "token id"}, {8, 0,
                                                                                      "no context"}};
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        uint8_t keep = (uint8_t)p[damage[i].at];
        p[damage[i].at] = (char)damage[i].value;
        tt_test_note("%s", damage[i].what);
        r->job.load_base = tt_test_file("bad", p, n);
        TT_CHECK_FAILS(TT_BADFILE, run(r, &err));
        p[damage[i].at] = (char)keep;
    }
    r->job.load_base = tt_test_file("cut", p, n - 1);
    TT_CHECK_FAILS(TT_BADFILE, run(r, &err));
    r->job.load_base = tt_test_file("good", p, n);
    char *other = tiny_text(12, 400);
    r->job.data = tt_test_file("other.txt", other, strlen(other));
    tt__free(other);
    TT_CHECK_FAILS(TT_MISMATCH, run(r, &err));
    tt__free(p);
    rig_close(r);
}

TT_CASE(failed_runs_leave_no_file) {
    tt_err err = {0};
    rig *r = rig_open(1, false);
    r->job.save_base = tt_test_path("base");
    r->job.save_losses = tt_test_path("losses");
    const char *dir = tt_test_tmpdir();
    int before = tt_test_count_entries(dir);
    tt__fault_set(TT_FAULT_WRITE, 1, TT_FAULT_ON);
    tt_status st = run(r, &err);
    tt__fault_set(TT_FAULT_WRITE, 0, TT_FAULT_OFF);
    TT_CHECK(st != TT_OK);
    tt_ctx_cancel(r->ctx, TT_INTERRUPTED);
    TT_CHECK_EQ(run(r, &err), TT_INTERRUPTED);
    TT_CHECK_EQ(tt_test_count_entries(dir), before);
    rig_close(r);
}

static tt_status run_body(void *arg, tt_err *err) { return run(arg, err); }

TT_CASE(every_allocation_may_fail) {
    tt_err err = {0};
    rig *r = rig_open(1, false);
    r->job.chunks = 2;
    r->job.base = r->net[1];
    r->job.save_losses = tt_test_path("losses");
    TT_CHECK_OK(run(r, &err));                          /* the workers' scratch stays with the context */
    TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, run_body, r) > 10);
    rig_close(r);
}

/* ------------------------------------------------------------ the averaging artefact ---- */

enum { P = 5, T = 24, S = 2 };

typedef struct batch { tt_runner *runner; float E[P * TINY_D], X[(P + 2 * S * T) * TINY_D],
        row_loss[P + 2 * S * T]; int32_t target[P + 2 * S * T]; } batch;

static void make_tab(float *E) {
    tt__rng rng;
    tt__rng_seed(&rng, 9);
    for (int i = 0; i < P * TINY_D; i++) E[i] = (float)(0.5 * tt__rng_normal(&rng));
}

/* Mean training loss over the targets of S sequences of T tokens, each followed by `extra` positions that have none. */
static double training_loss(rig *r, batch *b, const int32_t *ids, int extra) {
    tt_err err = {0};
    int64_t len = T + extra, rows = P + S * len;
    double loss = 0;
    memcpy(b->X, b->E, sizeof b->E);
    for (int i = 0; i < rows; i++) b->target[i] = -1;
    for (int s = 0; s < S; s++)
        for (int t = 0; t < len; t++) {
            int32_t id = t < T ? ids[s * T + t] : 7;
            TT_CHECK_OK(tt__run_embed(b->runner, &id, 1, b->X + (P + s * len + t) * TINY_D, &err));
            if (t + 1 < T) b->target[P + s * len + t] = ids[s * T + t + 1];
        }
    tt_loss spec = {.kind = TT_LOSS_CE, .target = b->target};
    TT_CHECK_OK(tt__run_loss(b->runner, P, S, len, b->X, &spec, &loss, b->row_loss, NULL, &err));
    (void)r;
    return loss;
}

/* The paper's evaluators divide by the k positions of the tab as well. Here is that mistake, and a mean that is immune to it: k further positions
 * without a target leave it unchanged. */
TT_CASE(positions_without_a_target_leave_the_training_loss_unchanged) {
    tt_err err = {0};
    rig *r = rig_open(1, false);
    batch *b = tt__calloc(1, sizeof *b);
    int32_t *ids = NULL;
    size_t n = 0;
    encode_file(r, &ids, &n);
    make_tab(b->E);
    tt_runner_options o = {.max_rows = P + 2 * S * T};
    TT_CHECK_OK(tt__runner_create(r->ctx, r->net[0], &o, &b->runner, &err));
    double ours = training_loss(r, b, ids, 0), sum = 0;
    int targets = S * (T - 1);
    for (int i = 0; i < P + S * T; i++) sum += (double)b->row_loss[i];
    TT_CHECK_NEAR(ours, sum / targets, 1e-6);
    double mistaken = sum / (targets + S * P), fewer = sum / (targets + S * (P + 10));
    TT_CHECK_NEAR(mistaken / ours, (double)targets / (targets + S * P), 1e-6);   /* "better" by (T-1)/(T-1+k), for free */
    TT_CHECK(fewer < mistaken && mistaken < 0.9 * ours);
    for (int extra = 1; extra <= T; extra += 7) TT_CHECK_NEAR(training_loss(r, b, ids, extra), ours, 1e-5);
    tt__runner_free(b->runner);
    tt__free(ids);
    tt__free(b);
    rig_close(r);
}

/* The report with a tab: the same targets, and the mean of exactly their losses. */
TT_CASE(tab_positions_are_not_counted_in_the_report) {
    tt_err err = {0};
    rig *r = rig_open(1, false);
    batch *b = tt__calloc(1, sizeof *b);
    int32_t *ids = NULL;
    size_t n = 0;
    tt_prefix *prefix = NULL;
    encode_file(r, &ids, &n);
    make_tab(b->E);
    tt_runner_options o = {.max_rows = P + 2 * S * T};
    TT_CHECK_OK(tt__runner_create(r->ctx, r->net[0], &o, &b->runner, &err));
    TT_CHECK_OK(tt__prefix_compute(b->runner, b->E, P, TT_KV_F32, &prefix, &err));
    r->job.n_ctx = T;
    r->job.chunks = S;
    TT_CHECK_OK(run(r, &err));
    double without = r->report.nll;
    int64_t tokens = r->report.tokens;
    r->job.prefix = prefix;
    TT_CHECK_OK(run(r, &err));
    double ours = r->report.nll, sum = 0;
    TT_CHECK_EQ(r->report.tokens, tokens);
    TT_CHECK_EQ(tokens, S * (T / 2));
    (void)training_loss(r, b, ids, 0);                  /* an independent path to the same row losses */
    for (int s = 0; s < S; s++)
        for (int t = T / 2 - 1; t + 1 < T; t++) sum += (double)b->row_loss[P + s * T + t];
    TT_CHECK_NEAR(ours, sum / (double)tokens, 1e-5);
    double mistaken = sum / (double)(tokens + S * P);
    TT_CHECK(mistaken < 0.75 * ours);                   /* what dividing by the tab's positions would have claimed */
    TT_CHECK(fabs(ours - without) > 1e-4);              /* and the tab does reach the losses */
    tt__prefix_free(prefix);
    tt__runner_free(b->runner);
    tt__free(ids);
    tt__free(b);
    rig_close(r);
}

/* ------------------------------------------------------------ the real model ---- */

/* transformers on the same dequantized weights: 26.98653 over the 256 targets of each second half, 26.92601 over the 255 that llama.cpp takes. */
TT_CASE(real_model_by_the_protocol) {
    tt_err err = {0};
    const char *text = "../shared/data/wikitext2-test.txt", *path = tt_test_model();
    if (!tt__exists(text)) TT_SKIP("no wikitext2-test.txt");
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tt_gguf *g = NULL;
    tt_net *net = NULL;
    tt_tokenizer *tok = NULL;
    tt_perplexity_report r;
    TT_CHECK_OK(tt__gguf_open(path, &g, &err));
    TT_CHECK_OK(tt__net_from_gguf(ctx, g, false, &net, &err));
    TT_CHECK_OK(tt__tokenizer_from_gguf(g, &tok, &err));
    tt_measure_job job = {.net = net, .tok = tok, .data = text, .n_ctx = 512, .chunks = 20};
    TT_CHECK_OK(tt__measure_perplexity(ctx, &job, &r, &err));
    tt_test_note("exact %.4f", r.perplexity);
    TT_CHECK_EQ(r.tokens, 5120);
    TT_CHECK_NEAR(r.perplexity, 26.98653, 1e-4 * 26.98653);
    job.as_llama_cpp = true;
    TT_CHECK_OK(tt__measure_perplexity(ctx, &job, &r, &err));
    TT_CHECK_EQ(r.tokens, 5100);
    TT_CHECK_NEAR(r.perplexity, 26.92601, 1e-4 * 26.92601);
    job.as_llama_cpp = false;
    job.fast = true;
    TT_CHECK_OK(tt__measure_perplexity(ctx, &job, &r, &err));
    tt_test_note("fast %.4f", r.perplexity);
    TT_CHECK_NEAR(r.perplexity, 26.98653, 0.005 * 26.98653);
    tt__tokenizer_free(tok);
    tt__net_free(net);
    tt__gguf_close(g);
}
