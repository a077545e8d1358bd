/* Multiple choice by likelihood, in the file format and by the rule of llama.cpp's HellaSwag score. A task is six lines:
 *
 *     the beginning | the number of the right ending, 0 to 3 | four endings
 *
 * Each ending is read behind the beginning and one space; the answer is the ending with the highest mean log-probability per token (acc_norm). Tokens
 * that all four share at their front are read once and not scored. The interval of the accuracy is Wilson's, 95 %.
 *
 *     task: keys and values of the shared tokens stay in the cache; each ending is appended, scored, and taken off again
 */
#include "base/limits.h"
#include "measure/measure.h"
#include <math.h>
#include <stdlib.h>

enum { ENDINGS = 4, LINES = 2 + ENDINGS, FEED = 512, ROWS = 32 };

typedef struct line { const char *text; size_t n; } line;
typedef struct choices {
    tt_ctx *ctx;
    const tt_choices_job *job;
    char *text;
    line *lines;
    size_t n_tasks, n_ctx;
    tt_runner *runner;
    tt_kvcache *cache;
    float *H, *logits;                      /* [FEED, n_embd], [ROWS, n_vocab] */
    int32_t *ids[ENDINGS];                  /* of the task at hand: beginning and ending */
    size_t n_ids[ENDINGS];
} choices;

/* ------------------------------------------------------------ the file ---- */

static size_t cut_lines(char *text, size_t bytes, line *out) {
    size_t n = 0;
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        size_t len = end ? (size_t)(end - text) - at : bytes - at;
        if (out) out[n] = (line){text + at, len && text[at + len - 1] == '\r' ? len - 1 : len};
        n++;
        at += len + 1;
    }
    return n;
}

static tt_status load_tasks(choices *c, char sha256[65], tt_err *err) {
    const tt_choices_job *j = c->job;
    size_t bytes = 0;
    TT_TRY(tt__read_file(j->data, TT_LIMIT_TEXT_BYTES, &c->text, &bytes, err));
    tt__sha256_hex(c->text, bytes, sha256);
    while (bytes && (c->text[bytes - 1] == '\n' || c->text[bytes - 1] == '\r')) bytes--;
    const size_t n = cut_lines(c->text, bytes, NULL);
    TT_FAIL_IF(!n || n % LINES, err, TT_BADFILE, "not a file of tasks|%s|%zu lines|six a task: beginning, number of the right ending, four endings", j->data, n);
    TT_TRY(tt__new(&c->lines, n, sizeof *c->lines, "tasks", err));
    cut_lines(c->text, bytes, c->lines);
    for (size_t i = 0; i < n; i++) {
        const line *l = &c->lines[i];
        TT_FAIL_IF(!l->n, err, TT_BADFILE, "empty line in a task|%s, line %zu", j->data, i + 1);
        TT_FAIL_IF(i % LINES == 1 && (l->n != 1 || l->text[0] < '0' || l->text[0] >= '0' + ENDINGS), err, TT_BADFILE, "no number of an ending|%s, line %zu|%.*s|0 to 3",
                   j->data, i + 1, (int)(l->n < 40 ? l->n : 40), l->text);
    }
    c->n_tasks = n / LINES;
    if (j->tasks > 0 && (size_t)j->tasks < c->n_tasks) c->n_tasks = (size_t)j->tasks;
    return TT_OK;
}

/* ------------------------------------------------------------ one task ---- */

static void forget(choices *c) {
    for (int e = 0; e < ENDINGS; e++) {
        tt__free(c->ids[e]);
        c->ids[e] = NULL;
    }
}

static tt_status tokenize(choices *c, size_t task, tt_err *err) {
    const line *l = c->lines + task * LINES;
    forget(c);
    for (int e = 0; e < ENDINGS; e++) {
        const size_t n = l[0].n + 1 + l[2 + e].n;
        char *text = tt__alloc(n);
        TT_FAIL_IF(!text, err, TT_RESOURCE, "out of memory|for a task");
        memcpy(text, l[0].text, l[0].n);
        text[l[0].n] = ' ';
        memcpy(text + l[0].n + 1, l[2 + e].text, l[2 + e].n);
        tt_status st = tt__tokenizer_encode(c->job->tok, text, n, TT_ADD_SPECIAL, &c->ids[e], &c->n_ids[e], err);
        tt__free(text);
        TT_TRY(st);
        TT_FAIL_IF(c->n_ids[e] > c->n_ctx, err, TT_USAGE, "task is longer than the model's context|%s, line %zu|%zu tokens|at most %zu", c->job->data, task * LINES + 1, c->n_ids[e], c->n_ctx);
    }
    return TT_OK;
}

/* Tokens that all endings share at their front; each keeps at least one of its own. */
static size_t shared(const choices *c) {
    size_t n = c->n_ids[0];
    for (int e = 0; e < ENDINGS; e++) {
        size_t same = 0;
        while (same < n && same < c->n_ids[e] && c->ids[e][same] == c->ids[0][same]) same++;
        n = same < n ? same : n;
        if (c->n_ids[e] && n > c->n_ids[e] - 1) n = c->n_ids[e] - 1;
    }
    return n;
}

/* Σ log-probability of `target` under the rows of logits that begin at hidden row `row`. */
static tt_status add_rows(choices *c, const float *H, int64_t n, const int32_t *target, double *sum, tt_err *err) {
    const tt_hparams *hp = &c->job->net->hp;
    for (int64_t r = 0; r < n; r += ROWS) {
        const int64_t m = n - r < ROWS ? n - r : ROWS;
        TT_TRY(tt__run_logits(c->runner, H + r * hp->n_embd, m, c->logits, err));
        for (int64_t i = 0; i < m; i++) *sum -= tt__row_score(c->ctx->k, c->logits + i * hp->n_vocab, hp->n_vocab, target[r + i]).nll;
    }
    TT_FAIL_IF(!isfinite(*sum), err, TT_FAIL, "loss is not a finite number|%s|||the model's weights or the tab may be damaged", c->job->data);
    return TT_OK;
}

/* Appends ids [n] and adds the log-probability of the token that follows each. */
static tt_status score(choices *c, const int32_t *ids, int64_t n, double *sum, tt_err *err) {
    for (int64_t at = 0; at < n; at += FEED) {
        const int64_t rows = n - at < FEED ? n - at : FEED;
        TT_TRY(tt__run_cached(c->runner, c->cache, ids + at, rows, false, c->H, err));
        TT_TRY(add_rows(c, c->H, rows, ids + at + 1, sum, err));
    }
    return TT_OK;
}

/* What the beginning says about the first token of each ending, then the endings; `best` is the likeliest per token. */
static tt_status answer(choices *c, size_t task, int *best, tt_err *err) {
    TT_TRY(tokenize(c, task, err));
    const int64_t front = (int64_t)shared(c);
    double most = -INFINITY, sum[ENDINGS] = {0};
    TT_FAIL_IF(front == 0, err, TT_BADFILE, "endings of a task share no token|%s, line %zu", c->job->data, task * LINES + 1);
    c->cache->n = 0;
    for (int64_t at = 0; at < front; at += FEED) TT_TRY(tt__run_cached(c->runner, c->cache, c->ids[0] + at, front - at < FEED ? front - at : FEED, true, c->H, err));
    for (int e = 0; e < ENDINGS; e++) TT_TRY(add_rows(c, c->H, 1, c->ids[e] + front, &sum[e], err));
    *best = 0;
    for (int e = 0; e < ENDINGS; e++) {
        const int64_t own = (int64_t)c->n_ids[e] - front;
        c->cache->n = front;
        TT_TRY(score(c, c->ids[e] + front, own - 1, &sum[e], err));
        if (sum[e] / (double)own > most) most = sum[e] / (double)own, *best = e;
    }
    return TT_OK;
}

/* ------------------------------------------------------------ all of them ---- */

static void fill(tt_choices_report *r, int64_t correct, int64_t n) {
    const double z = 1.959963984540054, p = (double)correct / (double)n, m = (double)n, mid = (p + z * z / (2 * m)) / (1 + z * z / m);
    const double half = z / (1 + z * z / m) * sqrt(p * (1 - p) / m + z * z / (4 * m * m));
    r->tasks = n;
    r->correct = correct;
    r->accuracy = p;
    r->low = mid - half;
    r->high = mid + half;
}

static tt_status ask_all(choices *c, tt_choices_report *r, tt_err *err) {
    const double start = tt__now();
    int64_t correct = 0;
    for (size_t i = 0; i < c->n_tasks; i++) {
        char note[32];
        int best;
        TT_TRY(tt__check_cancel(c->ctx, err));
        TT_TRY(answer(c, i, &best, err));
        r->results[i] = best == c->lines[i * LINES + 1].text[0] - '0' ? '1' : '0';
        correct += r->results[i] == '1';
        snprintf(note, sizeof note, "%.2f %%", 100 * (double)correct / (double)(i + 1));
        tt__progress(c->ctx, "tasks", (double)(i + 1), (double)c->n_tasks, "tasks", note);
    }
    fill(r, correct, (int64_t)c->n_tasks);
    r->seconds = tt__now() - start;
    r->peak_rss = tt__peak_rss();
    return TT_OK;
}

static tt_status measure(choices *c, tt_choices_report *r, tt_err *err) {
    const tt_choices_job *j = c->job;
    const tt_hparams *hp = &j->net->hp;
    TT_TRY(load_tasks(c, r->data_sha256, err));
    TT_TRY(tt__new(&r->results, c->n_tasks + 1, 1, "answers", err));
    c->n_ctx = (size_t)(hp->n_ctx - (j->prefix ? j->prefix->P : 0));
    size_t longest = 0;                     /* no token is shorter than a byte */
    for (size_t i = 0; i < c->n_tasks; i++)
        for (int e = 0; e < ENDINGS; e++) {
            const size_t n = c->lines[i * LINES].n + c->lines[i * LINES + 2 + (size_t)e].n + 8;
            longest = n > longest ? n : longest;
        }
    if (longest < c->n_ctx) c->n_ctx = longest;
    const int64_t room = (int64_t)c->n_ctx;
    tt_runner_options o = {.max_rows = room < FEED ? room : FEED, .max_past = room, .fast = j->fast};
    TT_TRY(tt__runner_create(c->ctx, j->net, &o, &c->runner, err));
    TT_TRY(tt__kvcache_create_typed(c->ctx, j->net, 1, room, j->k_type, j->v_type, &c->cache, err));
    c->cache->prefix = j->prefix;
    TT_TRY(tt__new(&c->H, (size_t)(FEED * hp->n_embd), sizeof(float), "hidden rows", err));
    TT_TRY(tt__new(&c->logits, (size_t)(ROWS * hp->n_vocab), sizeof(float), "logits", err));
    return ask_all(c, r, err);
}

tt_status tt__measure_choices(tt_ctx *ctx, const tt_choices_job *job, tt_choices_report *report, tt_err *err) {
    choices c = {.ctx = ctx, .job = job};
    *report = (tt_choices_report){0};
    tt_status st = measure(&c, report, err);
    if (st != TT_OK) {
        tt__free(report->results);
        report->results = NULL;
    }
    forget(&c);
    tt__runner_free(c.runner);
    tt__kvcache_free(c.cache);
    tt__free(c.H);
    tt__free(c.logits);
    tt__free(c.lines);
    tt__free(c.text);
    return st;
}
