/* How fast a model runs here: opening, prompt, generation, and what bounds them. llama-bench's protocol: tokens are made up, nothing is
 * sampled, one warm-up, every repetition timed by itself; the positions of a depth are filled once and the session goes back to them. */
#include "engine/model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { MAX_REPETITIONS = 10000 };

typedef struct bench {
    tt_ctx *ctx;
    const tt_bench_options *o;
    tt_model *model;
    tt_tab *tab;
    tt_session *session;
    int32_t *ids;                /* [most of depth, prompt, generation] */
    double *token_seconds;       /* [repetitions * n_gen] */
    int64_t n_token_seconds;
    double started, faults;
    tt_bench_report *report;
} bench;

tt_bench_options tt_bench_default_options(void) { return (tt_bench_options){.size = sizeof(tt_bench_options), .n_prompt = 512, .repetitions = 5}; }

void tt_bench_free_report(tt_bench_report *r) {
    if (!r) return;
    tt__free(r->seconds);
    tt__free(r);
}

static tt_status check_options(const tt_bench_options *o, tt_err *err) {
    const int64_t most = (int64_t)1 << 40;
    TT_FAIL_IF(o->n_prompt < 0 || o->n_gen < 0 || o->n_depth < 0 || o->n_prompt > most || o->n_gen > most || o->n_depth > most, err, TT_USAGE,
               "bad number of tokens|n_prompt %lld, n_gen %lld, n_depth %lld", (long long)o->n_prompt, (long long)o->n_gen, (long long)o->n_depth);
    TT_FAIL_IF(o->n_prompt + o->n_gen == 0, err, TT_USAGE, "nothing to measure||no prompt and no generation|n_prompt or n_gen above 0");
    TT_FAIL_IF(o->repetitions < 1 || o->repetitions > MAX_REPETITIONS, err, TT_USAGE, "bad number of repetitions||%d|1 to %d", o->repetitions, MAX_REPETITIONS);
    return TT_OK;
}

static double major_faults(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)use.ru_majflt;
}

static tt_status open_model(bench *b, tt_err *err) {
    tt_model_options mo = tt_model_default_options();
    mo.numerics = b->o->numerics;
    mo.expand = b->o->expand;
    mo.run_format = b->o->run_format;
    tt__peak_rss_reset();
    b->faults = major_faults();
    b->started = tt__now();
    TT_TRY(tt_model_open(b->ctx, b->o->model, &mo, &b->model, err));
    b->report->open_seconds = tt__now() - b->started;
    TT_FAIL_IF(!b->model->net, err, TT_BADFILE, "cannot run this architecture|%s|%s||`show` and `convert` work on it", b->model->path, b->model->info.architecture);
    return TT_OK;
}

static tt_status open_session(bench *b, tt_err *err) {
    const int64_t model_ctx = b->model->net->hp.n_ctx;
    int64_t need = b->o->n_depth + b->o->n_prompt + b->o->n_gen;
    if (b->o->adapter) {
        TT_TRY(tt_tab_open(b->model, b->o->adapter, &b->tab, err));
        need += b->tab->prompt.tokens;
    }
    TT_FAIL_IF(need > model_ctx, err, TT_USAGE, "test is longer than the model's context|%s|%lld positions|at most %lld", b->model->path, (long long)need, (long long)model_ctx);
    const tt_session_options so = {.size = sizeof so, .n_ctx = need, .cache_k = b->o->cache_k, .cache_v = b->o->cache_v};
    TT_TRY(tt_session_create(b->model, &so, &b->session, err));
    return b->tab ? tt_session_attach(b->session, b->tab, err) : TT_OK;
}

/* Tokens spread over the vocabulary: which they are does not change the work. */
static tt_status make_tokens(bench *b, tt_err *err) {
    const int64_t n = b->o->n_depth + b->o->n_prompt + b->o->n_gen + 1, vocab = b->model->net->hp.n_vocab;
    TT_TRY(tt__new(&b->ids, (size_t)n, sizeof *b->ids, "the tokens", err));
    for (int64_t i = 0; i < n; i++) b->ids[i] = (int32_t)((i * 7919 + 17) % vocab);
    TT_TRY(tt__new(&b->report->seconds, (size_t)b->o->repetitions, sizeof *b->report->seconds, "the samples", err));
    return tt__new(&b->token_seconds, (size_t)(b->o->n_gen * b->o->repetitions + 1), sizeof *b->token_seconds, "the samples", err);
}

static int32_t likeliest(const float *logits, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* The first pass of a session that nothing ran before: what somebody who waits for an answer meets. It is the warm-up as well. The token
 * chosen takes the place of a made-up one, so that choosing it is not idle work. */
static tt_status first_token(bench *b, tt_err *err) {
    TT_TRY(tt_session_feed(b->session, b->ids, (size_t)(b->o->n_prompt ? b->o->n_prompt : 1), err));
    b->ids[0] = likeliest(tt_session_get_logits(b->session), b->model->net->hp.n_vocab);
    b->report->first_seconds = tt__now() - b->started;
    return TT_OK;
}

static tt_status fill_depth(bench *b, tt_err *err) {
    tt_session_reset(b->session);
    return b->o->n_depth ? tt_session_feed(b->session, b->ids, (size_t)b->o->n_depth, err) : TT_OK;
}

static tt_status generate(bench *b, int64_t n, tt_err *err) {
    for (int64_t i = 0; i < n; i++) {
        const double start = tt__now();
        TT_TRY(tt_session_feed(b->session, b->ids + i, 1, err));
        b->token_seconds[b->n_token_seconds++] = tt__now() - start;
    }
    return TT_OK;
}

/* Back to the depth, then the timed part. */
static tt_status repeat(bench *b, double *seconds, tt_err *err) {
    tt__session_rewind(b->session, b->o->n_depth);
    const double start = tt__now();
    if (b->o->n_prompt) TT_TRY(tt_session_feed(b->session, b->ids, (size_t)b->o->n_prompt, err));
    TT_TRY(generate(b, b->o->n_gen, err));
    *seconds = tt__now() - start;
    return TT_OK;
}

/* Without a warm-up a prompt of the first repetition is what one waits for; generation alone still has its first token. */
static tt_status measure(bench *b, tt_err *err) {
    const int n = b->o->repetitions;
    const bool cold = b->o->no_warmup && b->o->n_prompt && !b->o->n_gen && !b->o->n_depth;
    if (!cold) TT_TRY(first_token(b, err));
    TT_TRY(fill_depth(b, err));
    for (int i = 0; i < n; i++) {
        tt__progress(b->ctx, "bench", i, n, "runs", "");
        TT_TRY(repeat(b, &b->report->seconds[i], err));
        if (i == 0 && cold) b->report->first_seconds = tt__now() - b->started;
        b->report->repetitions = i + 1;
    }
    tt__progress(b->ctx, "bench", n, n, "runs", "");
    return TT_OK;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The sample standard deviation, as llama-bench has it; 0 of a single one. */
static void summarize(const bench *b) {
    tt_bench_report *r = b->report;
    const double tokens = (double)(b->o->n_prompt + b->o->n_gen);
    double sum = 0, squares = 0;
    for (int i = 0; i < r->repetitions; i++) sum += tokens / r->seconds[i];
    r->tokens_per_second = sum / r->repetitions;
    for (int i = 0; i < r->repetitions; i++) squares += pow(tokens / r->seconds[i] - r->tokens_per_second, 2);
    r->deviation = r->repetitions > 1 ? sqrt(squares / (r->repetitions - 1)) : 0;
    qsort(b->token_seconds, (size_t)b->n_token_seconds, sizeof *b->token_seconds, by_value);
    r->token_median = b->n_token_seconds ? b->token_seconds[b->n_token_seconds / 2] : NAN;
    r->token_p95 = b->n_token_seconds ? b->token_seconds[(int64_t)(0.95 * (double)(b->n_token_seconds - 1))] : NAN;
}

/* A token reads every matrix once, except the table of embeddings where the output has its own matrix; the output works for the last token
 * of a prompt only. */
static void count_work(const bench *b) {
    const tt_net *net = b->model->net;
    const tt_bench_options *o = b->o;
    tt_bench_report *r = b->report;
    const double outputs = (double)(o->n_gen + (o->n_prompt > 0)) / (double)(o->n_gen + o->n_prompt);
    r->bytes_per_token = tt__session_cache_bytes(b->session, (double)o->n_depth + (double)(o->n_gen ? o->n_prompt : 0) + 0.5 * (double)o->n_gen);
    for (size_t i = 0; i < net->n_weights; i++) {
        const tt_weight *w = &net->weights[i];
        if (w->vector) r->bytes_per_token += 4.0 * (double)w->cols;
        else if (i != net->embd || net->embd == net->output) {
            r->bytes_per_token += (double)tt__linop_bytes(w->op);
            r->ops_per_token += 2 * tt__linop_macs(w->op, 1) * (i == net->output ? outputs : 1);
        }
    }
}

static void describe(const bench *b) {
    tt_bench_report *r = b->report;
    const tt_model_info *info = &b->model->info;
    snprintf(r->architecture, sizeof r->architecture, "%s", info->architecture);
    snprintf(r->file_type, sizeof r->file_type, "%s", info->file_type);
    r->params = info->params;
    r->bytes = info->bytes;
    r->bits_per_weight = info->bits_per_weight;
    r->type_k = tt__kv_name(tt__cache_kvtype(b->model, b->o->cache_k));
    r->type_v = tt__kv_name(tt__cache_kvtype(b->model, b->o->cache_v));
    r->batch = tt__session_batch(b->session);
    r->resident_bytes = tt__rss();
    r->peak_rss = tt__peak_rss();
    r->major_faults = (uint64_t)(major_faults() - b->faults);
}

tt_status tt_bench(tt_ctx *ctx, const tt_bench_options *options, tt_bench_report **report, tt_err *err) {
    bench b = {.ctx = ctx, .o = options};
    tt_status st;
    *report = NULL;
    TT_TRY(check_options(options, err));
    TT_TRY(tt__new(&b.report, 1, sizeof *b.report, "a report", err));
    TT_TRY_GOTO(open_model(&b, err));
    TT_TRY_GOTO(open_session(&b, err));
    TT_TRY_GOTO(make_tokens(&b, err));
    TT_TRY_GOTO(measure(&b, err));
    summarize(&b);
    count_work(&b);
    describe(&b);
    *report = b.report;
    b.report = NULL;
done:
    tt_session_free(b.session);
    tt_tab_close(b.tab);
    tt_model_close(b.model);
    tt__free(b.ids);
    tt__free(b.token_seconds);
    tt_bench_free_report(b.report);
    return st;
}
