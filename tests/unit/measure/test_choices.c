/* Multiple choice on a tiny net against a plain reading: every ending read whole, without a cache, one softmax a token in double precision. */
#include "base/file.h"
#include "harness/tiny.h"
#include "measure/measure.h"
#include <stdio.h>

typedef struct rig { tt_ctx *ctx; tt_gguf *g; tt_net *net; tt_tokenizer *tok; } rig;

static rig *rig_open(int threads, bool add_bos) {
    tt_err err = {0};
    rig *r = tt__calloc(1, sizeof *r);
    const char *path = tt_test_path("tiny.gguf");
    tiny_write(path, 5, 0, add_bos);
    r->ctx = tt_test_ctx(threads, NULL);
    TT_CHECK_OK(tt__gguf_open(path, &r->g, &err));
    TT_CHECK_OK(tt__net_from_gguf(r->ctx, r->g, false, &r->net, &err));
    TT_CHECK_OK(tt__tokenizer_from_gguf(r->g, &r->tok, &err));
    return r;
}

static void rig_close(rig *r) {
    tt__tokenizer_free(r->tok);
    tt__net_free(r->net);
    tt__gguf_close(r->g);
    tt__free(r);
}

static tt_status ask(rig *r, const char *text, int64_t tasks, tt_choices_report *out, tt_err *err) {
    const tt_choices_job job = {.net = r->net, .tok = r->tok, .data = tt_test_file("tasks.txt", text, strlen(text)), .tasks = tasks, .k_type = TT_KV_F32, .v_type = TT_KV_F32};
    return tt__measure_choices(r->ctx, &job, out, err);
}

/* Mean log-probability of the tokens from `from` on. */
static double plain_mean(rig *r, const int32_t *ids, int64_t n, int64_t from) {
    tt_err err = {0};
    tt_runner *run = NULL;
    const tt_runner_options o = {.max_rows = n};
    float *H = tt__alloc((size_t)(n * TINY_D) * sizeof *H), z[TINY_V];
    double mean = 0;
    TT_CHECK_OK(tt__runner_create(r->ctx, r->net, &o, &run, &err));
    TT_CHECK_OK(tt__run_hidden(run, 1, n, ids, H, &err));
    for (int64_t i = from; i < n; i++) {
        double sum = 0;
        TT_CHECK_OK(tt__run_logits(run, H + (i - 1) * TINY_D, 1, z, &err));
        for (int v = 0; v < TINY_V; v++) sum += exp((double)z[v] - (double)z[ids[i]]);
        mean -= log(sum) / (double)(n - from);
    }
    tt__runner_free(run);
    tt__free(H);
    return mean;
}

static int plain_answer(rig *r, const char *beginning, const char *const ending[4]) {
    tt_err err = {0};
    int32_t *ids[4];
    size_t n[4], from = 0;
    double best = -INFINITY;
    int answer = 0;
    for (int e = 0; e < 4; e++) {
        char text[256];
        snprintf(text, sizeof text, "%s %s", beginning, ending[e]);
        TT_CHECK_OK(tt__tokenizer_encode(r->tok, text, strlen(text), TT_ADD_SPECIAL, &ids[e], &n[e], &err));
    }
    for (bool same = true; same; from += same)
        for (int e = 0; e < 4; e++) same &= from + 1 < n[e] && ids[e][from] == ids[0][from];
    for (int e = 0; e < 4; e++) {
        const double mean = plain_mean(r, ids[e], (int64_t)n[e], (int64_t)from);
        if (mean > best) best = mean, answer = e;
        tt__free(ids[e]);
    }
    return answer;
}

static void check_answers(int threads, bool add_bos) {
    static const char *const words[] = {"a dog", "runs", "the tall tree over there", "x", "sings", "under", "water flows", "at night he", "b", "to the", "end"};
    tt_err err = {0};
    rig *r = rig_open(threads, add_bos);
    tt_choices_report got;
    char text[8192] = "", want[13] = "";
    for (int t = 0; t < 12; t++) {
        const char *beginning = words[t % 11], *ending[4];
        for (int e = 0; e < 4; e++) ending[e] = words[(3 * t + 5 * e + e * e + 1) % 11];
        const int label = t % 4;
        want[t] = plain_answer(r, beginning, ending) == label ? '1' : '0';
        const size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "%s\n%d\n%s\n%s\r\n%s\n%s\n", beginning, label, ending[0], ending[1], ending[2], ending[3]);
    }
    TT_CHECK_OK(ask(r, text, 0, &got, &err));
    TT_CHECK_EQ(got.tasks, 12);
    TT_CHECK(!strcmp(got.results, want));
    TT_CHECK_NEAR(got.accuracy, (double)got.correct / 12, 1e-12);
    TT_CHECK(got.low >= 0 && got.low < got.accuracy + 1e-12 && got.high > got.accuracy - 1e-12 && got.high <= 1);
    tt__free(got.results);
    TT_CHECK_OK(ask(r, text, 5, &got, &err));
    TT_CHECK_EQ(got.tasks, 5);
    TT_CHECK(!strncmp(got.results, want, 5) && got.results[5] == 0);
    tt__free(got.results);
    rig_close(r);
}

TT_CASE(answers_are_those_of_a_plain_reading) { check_answers(1, false); }
TT_CASE(a_token_that_begins_texts_comes_in_front) { check_answers(2, true); }

TT_CASE(bad_files_are_refused_by_line) {
    static const struct { const char *text, *says; } bad[] = {
        {"", "not a file of tasks"}, {"a\n0\nb\nc\nd\n", "not a file of tasks"}, {"a\n4\nb\nc\nd\ne\n", "line 2"}, {"a\n00\nb\nc\nd\ne\n", "line 2"},
        {"a\n1\nb\n\nd\ne\n", "line 4"}, {"\n\n\n\n\n", "not a file of tasks"}};
    rig *r = rig_open(1, false);
    tt_choices_report got;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_err err = {0};
        TT_CHECK_EQ(ask(r, bad[i].text, 0, &got, &err), TT_BADFILE);
        TT_CHECK(strstr(err.what, bad[i].says) || strstr(err.where, bad[i].says));
        TT_CHECK(got.results == NULL);
    }
    rig_close(r);
}

TT_CASE(what_is_longer_than_the_context_is_refused) {
    tt_err err = {0};
    rig *r = rig_open(1, false);
    tt_choices_report got;
    char *text = tt__calloc(1, TINY_CTX + 64);
    memset(text, 'x', TINY_CTX);
    strcpy(text + TINY_CTX, "\n0\na\nb\nc\nd\n");
    TT_CHECK_EQ(ask(r, text, 0, &got, &err), TT_USAGE);
    tt__free(text);
    rig_close(r);
}
