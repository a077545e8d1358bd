/* Perplexity over text, in two protocols:
 *
 *   chunks     llama.cpp's: the file is tokenized once (BOS where the model asks for it, special-token text not parsed) and cut into disjoint
 *              windows of n_ctx tokens; the first token of each is replaced by BOS when the model adds one; the second half is scored:
 *              rows n_ctx/2-1 … n_ctx-2, 256 targets of 512. llama.cpp leaves out the first of them (255); so do we with `as_llama_cpp`, and
 *              always where its base-logit file or a KL report is involved, since the file has no row for it
 *   documents  each document is tokenized alone; windows of n_ctx inside it, every token but the first of a window is a target (BOS, where the
 *              model adds one, comes in front)
 *
 *     PPL = exp(mean nll), error = PPL √((mean nll² - mean²) / (n - 1))
 *
 * The flow, per window: empty cache (behind the tab's kept keys and values) → hidden rows, FEED rows at a time → logits, ROWS at a time → one
 * score per row. The base model of a KL report walks the same rows. Sums run in row order on one thread, so thread counts change nothing.
 *
 * llama.cpp's base-logit file, byte for byte:
 *     "_logits_" | u32 n_ctx | i32 n_vocab | i32 n_chunk | i32 tokens[n_ctx * n_chunk] | rows of tt__base_row_units(n_vocab) u16 (kld.c)
 */
#include "base/checked.h"
#include "base/limits.h"
#include "measure/measure.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>

enum { FEED = 512, ROWS = 32, BASE_HEADER = 20 };

typedef struct window { size_t begin; int32_t n, first, doc; } window;

typedef struct reader {                 /* one model reading windows */
    tt_runner *runner;
    tt_kvcache *cache;
    float *H, *logits;                  /* [FEED, n_embd], [ROWS, n_vocab] */
} reader;

typedef struct scored { tt_row_score q; tt_kld_row kld; } scored;

typedef struct measurer {
    tt_ctx *ctx;
    const tt_measure_job *job;
    tt_perplexity_report *report;
    int64_t n_vocab, n_ctx;
    int32_t bos;                        /* -1: the model adds none */
    int32_t *ids;                       /* of all windows, owned */
    size_t *doc_start;                  /* documents mode: for positions */
    size_t n_ids, n_windows, n_targets;
    window *windows;
    reader q, base;
    int32_t *buf;                       /* [n_ctx + 1] the window as read */
    scored rows[ROWS];
    uint16_t *codes;                    /* [ROWS, units] being written */
    tt__map load;                       /* a base-logit file being read */
    uint64_t load_at;
    tt__writer *save;
    tt_losses_writer *losses;
    tt_kld_sums sums;
    double nll, nll2;
    int64_t n, tokens_read;
} measurer;

/* ------------------------------------------------------------ what to score ---- */

static tt_status check_job(const tt_measure_job *j, tt_err *err) {
    int64_t P = j->prefix ? j->prefix->P : 0, most = j->net->hp.n_ctx - P;
    TT_FAIL_IF(!j->data && !j->load_base, err, TT_USAGE, "no text to score||||give -f FILE");
    TT_FAIL_IF(j->n_ctx < 4 || j->n_ctx > most, err, TT_USAGE,
               "context size out of range|-c|%lld|4 to %lld, what the model was trained for less the tab", (long long)j->n_ctx,
               (long long)most);
    TT_FAIL_IF(j->documents && (j->save_base || j->load_base), err, TT_USAGE,
               "base-logit files hold chunks, not documents||||use --base MODEL, or leave --documents out");
    TT_FAIL_IF(j->base && j->load_base, err, TT_USAGE, "two bases given|--base and a base-logit file||one of them");
    TT_FAIL_IF(j->save_base && (j->load_base || j->base), err, TT_USAGE,
               "a base-logit file is written by a run of its own||||first write it with the base model, then compare");
    TT_FAIL_IF(j->base && j->base->hp.n_vocab != j->net->hp.n_vocab, err, TT_USAGE,
               "models have different vocabularies|--base|%lld tokens|%lld", (long long)j->base->hp.n_vocab,
               (long long)j->net->hp.n_vocab);
    TT_FAIL_IF(j->base && j->n_ctx > j->base->hp.n_ctx, err, TT_USAGE, "context is larger than the base model's|-c|%lld|at most %lld",
               (long long)j->n_ctx, (long long)j->base->hp.n_ctx);
    return TT_OK;
}

/* The token stream of a whole file; one newline at its end is dropped, as llama.cpp's reader does. */
static tt_status tokenize_file(measurer *m, tt_err *err) {
    const tt_measure_job *j = m->job;
    char *text = NULL;
    size_t bytes = 0;
    TT_FAIL_IF(tt__is_dir(j->data), err, TT_USAGE, "a folder is scored by document|%s||a file|add --documents", j->data);
    TT_TRY(tt__read_file(j->data, TT_LIMIT_TEXT_BYTES, &text, &bytes, err));
    tt__sha256_hex(text, bytes, m->report->data_sha256);
    if (bytes && text[bytes - 1] == '\n') bytes--;
    tt_status st = tt__tokenizer_encode(j->tok, text, bytes, TT_ADD_SPECIAL, &m->ids, &m->n_ids, err);
    tt__free(text);
    return st;
}

static tt_status cut_chunks(measurer *m, int64_t chunks, tt_err *err) {
    size_t n_ctx = (size_t)m->n_ctx, most = m->n_ids / n_ctx;
    if (chunks <= 0 || (size_t)chunks > most) chunks = (int64_t)most;
    TT_TRY(tt__new(&m->windows, (size_t)chunks, sizeof *m->windows, "windows", err));
    m->n_windows = (size_t)chunks;
    const tt_measure_job *j = m->job;
    bool as_llama_cpp = j->as_llama_cpp || j->save_base || j->load_base || j->base;
    int32_t first = (int32_t)(n_ctx / 2) - !as_llama_cpp;
    for (size_t i = 0; i < m->n_windows; i++) m->windows[i] = (window){i * n_ctx, (int32_t)n_ctx, first, (int32_t)i};
    return TT_OK;
}

static tt_status plan_chunks(measurer *m, tt_err *err) {
    TT_TRY(tokenize_file(m, err));
    TT_FAIL_IF(m->n_ids < 2 * (size_t)m->n_ctx, err, TT_USAGE,
               "text is too short for this context|%s|%zu tokens|at least %lld|lower -c, or add --documents", m->job->data, m->n_ids,
               (long long)(2 * m->n_ctx));
    return cut_chunks(m, m->job->chunks, err);
}

/* The tokens of a base-logit file are the text; -f, when given too, must say the same. */
static tt_status plan_from_base(measurer *m, tt_err *err) {
    const char *path = m->job->load_base;
    TT_TRY(tt__map_open(path, &m->load, err));
    const uint8_t *p = m->load.data;
    TT_FAIL_IF(m->load.size < BASE_HEADER || memcmp(p, "_logits_", 8) != 0, err, TT_BADFILE, "not a base-logit file|%s", path);
    uint64_t n_ctx = tt__rd32(p + 8), n_vocab = tt__rd32(p + 12), chunks = tt__rd32(p + 16), tokens = 0, rows = 0, bytes = 0, ids_bytes = 0;
    TT_FAIL_IF(n_vocab != (uint64_t)m->n_vocab, err, TT_BADFILE, "base-logit file has another vocabulary|%s|%llu tokens|%lld", path,
               (unsigned long long)n_vocab, (long long)m->n_vocab);
    TT_FAIL_IF(n_ctx < 4 || n_ctx > INT_MAX || chunks < 1 || chunks > INT_MAX, err, TT_BADFILE,
               "damaged base-logit file|%s|%llu chunks of %llu tokens", path,
               (unsigned long long)chunks, (unsigned long long)n_ctx);
    bool fits = tt__mul_u64(n_ctx, chunks, &tokens) && tt__mul_u64(tokens, 4, &ids_bytes) && tt__mul_u64(chunks, n_ctx - 1 - n_ctx / 2,
        &rows) &&
                tt__mul_u64(rows, 2 * (uint64_t)tt__base_row_units(m->n_vocab), &bytes) && tt__add_u64(bytes, ids_bytes, &bytes) &&
                    tt__add_u64(bytes, BASE_HEADER, &bytes);
    TT_FAIL_IF(!fits || bytes != m->load.size, err, TT_BADFILE,
               "base-logit file has the wrong length|%s|%llu bytes|%llu chunks of %llu tokens, %llu bytes", path,
               (unsigned long long)m->load.size, (unsigned long long)chunks, (unsigned long long)n_ctx, (unsigned long long)bytes);
    m->load_at = BASE_HEADER + ids_bytes;
    if (m->job->data) TT_TRY(tokenize_file(m, err));
    TT_FAIL_IF(m->ids && (m->n_ids < tokens || memcmp(m->ids, p + BASE_HEADER, ids_bytes) != 0), err, TT_MISMATCH,
               "base-logit file is of another text|%s|||%s", path, m->job->data);
    tt__free(m->ids);
    m->ids = NULL;
    m->n_ids = (size_t)tokens;
    TT_TRY(tt__new(&m->ids, m->n_ids, sizeof *m->ids, "tokens", err));
    memcpy(m->ids, p + BASE_HEADER, ids_bytes);
    for (size_t i = 0; i < m->n_ids; i++)
        TT_FAIL_IF(m->ids[i] < 0 || m->ids[i] >= m->n_vocab, err, TT_BADFILE, "token id out of range|%s, token %zu|%d|below %lld", path, i,
                   m->ids[i], (long long)m->n_vocab);
    if (!m->job->data) tt__sha256_hex(m->ids, ids_bytes, m->report->data_sha256);
    TT_FAIL_IF((int64_t)n_ctx > m->job->net->hp.n_ctx - (m->job->prefix ? m->job->prefix->P : 0), err, TT_USAGE,
               "context of the base-logit file is too large for the model|%s|%llu|at most %lld", path, (unsigned long long)n_ctx,
                   (long long)m->job->net->hp.n_ctx);
    m->n_ctx = (int64_t)n_ctx;
    return cut_chunks(m, m->job->chunks, err);
}

static tt_status plan_documents(measurer *m, tt_err *err) {
    const tt_measure_job *j = m->job;
    tt_docs docs = {0};
    tt_tokens tokens = {0};
    tt_window *w = NULL;
    size_t n = 0;
    tt_status st;
    TT_TRY_GOTO(tt__docs_load(j->data, j->split, &docs, err));
    memcpy(m->report->data_sha256, docs.sha256, 65);
    TT_TRY_GOTO(tt__docs_tokenize(&docs, j->tok, &tokens, err));
    TT_TRY_GOTO(tt__windows(&tokens, m->n_ctx, 2, &w, &n, err));
    if (n == 0) {
        st = tt__fail(err, TT_USAGE, "nothing to score|%s|no document of two tokens or more", j->data);
        goto done;
    }
    if (j->chunks > 0 && (size_t)j->chunks < n) n = (size_t)j->chunks;
    TT_TRY_GOTO(tt__new(&m->windows, n, sizeof *m->windows, "windows", err));
    for (size_t i = 0; i < n; i++) m->windows[i] = (window){w[i].begin, w[i].n, 0, w[i].doc};
    m->n_windows = n;
    m->ids = tokens.ids, m->n_ids = tokens.n, m->doc_start = tokens.start;
    tokens = (tt_tokens){0};            /* now ours */
done:
    tt__free(w);
    tt__tokens_free(&tokens);
    tt__docs_free(&docs);
    return st;
}

static tt_status plan(measurer *m, tt_err *err) {
    const tt_measure_job *j = m->job;
    TT_TRY(j->documents ? plan_documents(m, err) : j->load_base ? plan_from_base(m, err) : plan_chunks(m, err));
    int32_t last = -1;
    for (size_t i = 0; i < m->n_windows; i++) {
        m->n_targets += (size_t)(m->windows[i].n - 1 - m->windows[i].first);
        if (j->documents) m->report->documents += m->windows[i].doc != last;
        last = m->windows[i].doc;
    }
    m->report->chunks = (int64_t)m->n_windows;
    return TT_OK;
}

/* ------------------------------------------------------------ files on the way ---- */

static tt_status start_base_file(measurer *m, tt_err *err) {
    uint64_t ids = 4 * (uint64_t)m->n_ctx * m->n_windows, rows = 2 * (uint64_t)tt__base_row_units(m->n_vocab) * m->n_targets;
    int32_t head[3] = {(int32_t)m->n_ctx, (int32_t)m->n_vocab, (int32_t)m->n_windows};
    TT_TRY(tt__writer_open(m->job->save_base, BASE_HEADER + ids + rows, &m->save, err));
    TT_TRY(tt__write(m->save, "_logits_", 8, err));
    TT_TRY(tt__write(m->save, head, sizeof head, err));
    return tt__write(m->save, m->ids, ids, err);
}

static tt_status start_outputs(measurer *m, tt_err *err) {
    const tt_measure_job *j = m->job;
    if (j->save_base) {
        TT_TRY(tt__new(&m->codes, (size_t)(ROWS * tt__base_row_units(m->n_vocab)), sizeof *m->codes, "base-logit rows", err));
        TT_TRY(start_base_file(m, err));
    }
    if (j->save_losses) TT_TRY(tt__losses_create(j->save_losses, j->model_ref, m->report->data_sha256, j->documents, &m->losses, err));
    if (j->base || j->load_base) TT_TRY(tt__kld_init(&m->sums, m->n_targets, err));
    return TT_OK;
}

/* Files appear only when the whole run succeeded. */
static tt_status finish_outputs(measurer *m, tt_err *err) {
    tt__writer *save = m->save;
    tt_losses_writer *losses = m->losses;
    m->save = NULL;
    if (save) TT_TRY(tt__writer_commit(save, err));
    m->losses = NULL;
    return losses ? tt__losses_commit(losses, err) : TT_OK;
}

/* ------------------------------------------------------------ running ---- */

static tt_status reader_open(measurer *m, const tt_net *net, const tt_prefix *prefix, tt_kvtype k_type, tt_kvtype v_type, reader *r, tt_err *err) {
    int64_t longest = m->n_ctx + 1;
    tt_runner_options o = {.max_rows = longest < FEED ? longest : FEED, .max_past = longest, .fast = m->job->fast};
    TT_TRY(tt__runner_create(m->ctx, net, &o, &r->runner, err));
    TT_TRY(tt__kvcache_create_typed(m->ctx, net, 1, longest, k_type, v_type, &r->cache, err));
    r->cache->prefix = prefix;
    TT_TRY(tt__new(&r->H, (size_t)(FEED * net->hp.n_embd), sizeof(float), "hidden rows", err));
    return tt__new(&r->logits, (size_t)(ROWS * m->n_vocab), sizeof(float), "logits", err);
}

static void reader_close(reader *r) {
    tt__runner_free(r->runner);
    tt__kvcache_free(r->cache);
    tt__free(r->H);
    tt__free(r->logits);
}

typedef struct row_task { measurer *m; const int32_t *targets; } row_task;

/* One row: its score, its KL row against the base, its codes for the base-logit file. */
static void score_row(void *arg, int64_t row, int worker) {
    (void)worker;
    const row_task *t = arg;
    measurer *m = t->m;
    int64_t V = m->n_vocab;
    const float *logits = m->q.logits + row * V;
    scored *s = &m->rows[row];
    s->q = tt__row_score(m->ctx->k, logits, V, t->targets[row]);
    if (m->save) tt__base_row_encode(logits, V, s->q, m->codes + row * tt__base_row_units(V));
    if (!m->sums.klds) return;
    float *base = m->base.logits + row * V, lse = 0;
    if (m->load.data) tt__base_row_decode(m->load.data + m->load_at + (uint64_t)row * 2 * (uint64_t)tt__base_row_units(V), V, base);
    else {
        tt_row_score b = tt__row_score(m->ctx->k, base, V, t->targets[row]);
        lse = b.max + b.log_sum;
    }
    s->kld = tt__kld_row(logits, s->q, base, lse, m->load.data ? -16.0f : -INFINITY, V, t->targets[row]);
}

/* Rows r0 … r0+n of the hidden rows at hand; row i of the window predicts token i+1. `at`: index in the stream of the first target. */
static tt_status score_rows(measurer *m, const window *w, int64_t r0, int64_t n, size_t at, tt_err *err) {
    row_task task = {m, m->ids + at};
    TT_TRY(tt__run_logits(m->q.runner, m->q.H + r0 * m->job->net->hp.n_embd, n, m->q.logits, err));
    if (m->job->base) TT_TRY(tt__run_logits(m->base.runner, m->base.H + r0 * m->job->base->hp.n_embd, n, m->base.logits, err));
    tt__parallel(m->ctx, n, score_row, &task);
    tt_loss_entry entries[ROWS];
    size_t doc_start = m->doc_start ? m->doc_start[w->doc] : 0;
    for (int64_t i = 0; i < n; i++) {
        double nll = m->rows[i].q.nll;
        TT_FAIL_IF(!isfinite(nll), err, TT_FAIL,
                   "loss is not a finite number|window %lld, target %zu|%g||the model's weights or the tab may be damaged",
                   (long long)(w - m->windows),
                   at + (size_t)i, nll);
        m->nll += nll;
        m->nll2 += nll * nll;
        entries[i] = (tt_loss_entry){(uint32_t)w->doc, task.targets[i], (uint32_t)(at + (size_t)i - doc_start), (float)nll};
        if (m->sums.klds) tt__kld_add(&m->sums, &m->rows[i].kld);
    }
    m->n += n;
    if (m->load.data) m->load_at += (uint64_t)n * 2 * (uint64_t)tt__base_row_units(m->n_vocab);
    if (m->save) TT_TRY(tt__write(m->save, m->codes, (size_t)(n * tt__base_row_units(m->n_vocab)) * sizeof *m->codes, err));
    return m->losses ? tt__losses_add(m->losses, entries, (size_t)n, err) : TT_OK;
}

/* In front of a document's window comes BOS; in a chunk it takes the place of the first token. Returns the number of extra tokens (0, 1). */
static int64_t lay_out(measurer *m, const window *w) {
    int64_t extra = m->bos >= 0 && m->job->documents;
    memcpy(m->buf + extra, m->ids + w->begin, (size_t)w->n * sizeof *m->buf);
    if (m->bos >= 0) m->buf[0] = m->bos;
    return extra;
}

static tt_status score_window(measurer *m, const window *w, tt_err *err) {
    int64_t extra = lay_out(m, w), n = w->n + extra, first = w->first + extra;
    m->q.cache->n = 0;
    if (m->job->base) m->base.cache->n = 0;
    for (int64_t at = 0; at < n - 1; at += FEED) {
        int64_t rows = n - at < FEED ? n - at : FEED;
        TT_TRY(tt__check_cancel(m->ctx, err));
        TT_TRY(tt__run_cached(m->q.runner, m->q.cache, m->buf + at, rows, false, m->q.H, err));
        if (m->job->base) TT_TRY(tt__run_cached(m->base.runner, m->base.cache, m->buf + at, rows, false, m->base.H, err));
        int64_t lo = first > at ? first : at, hi = at + rows < n - 1 ? at + rows : n - 1;      /* scored rows of this piece */
        for (int64_t r = lo; r < hi; r += ROWS)
            TT_TRY(score_rows(m, w, r - at, hi - r < ROWS ? hi - r : ROWS, w->begin + (size_t)(r - extra + 1), err));
    }
    m->tokens_read += n;
    return TT_OK;
}

static tt_status score_all(measurer *m, tt_err *err) {
    double start = tt__now();
    for (size_t i = 0; i < m->n_windows; i++) {
        char note[48];
        TT_TRY(score_window(m, &m->windows[i], err));
        snprintf(note, sizeof note, "[%zu]%.4f,", i + 1, exp(m->nll / (double)m->n));
        tt__progress(m->ctx, "perplexity", (double)(i + 1), (double)m->n_windows, m->job->documents ? "windows" : "chunks", note);
    }
    m->report->seconds = tt__now() - start;
    return TT_OK;
}

static void fill_report(measurer *m) {
    tt_perplexity_report *r = m->report;
    double n = (double)m->n, mean = m->nll / n, var = m->nll2 / n - mean * mean;
    r->nll = mean;
    r->perplexity = exp(mean);
    r->error = n > 1 && var > 0 ? r->perplexity * sqrt(var / (n - 1)) : 0;
    r->tokens = m->n;
    r->tokens_per_second = r->seconds > 0 ? (double)m->tokens_read / r->seconds : 0;
    if (m->sums.klds) {
        r->has_kld = tt__kld_finish(&m->sums, &r->kld);
        if (!r->has_kld) tt__log(m->ctx, TT_LOG_WARN, "KL statistics need at least 100 targets; there are %zu", m->sums.n);
    }
    r->peak_rss = tt__peak_rss();
}

static tt_status measure(measurer *m, tt_err *err) {
    const tt_measure_job *j = m->job;
    TT_TRY(check_job(j, err));
    TT_TRY(plan(m, err));
    TT_TRY(tt__new(&m->buf, (size_t)m->n_ctx + 1, sizeof *m->buf, "a window", err));
    TT_TRY(reader_open(m, j->net, j->prefix, j->k_type, j->v_type, &m->q, err));
    if (j->base) TT_TRY(reader_open(m, j->base, NULL, j->fast ? TT_KV_F16 : TT_KV_F32, j->fast ? TT_KV_F16 : TT_KV_F32, &m->base, err));
    if (j->load_base) TT_TRY(tt__new(&m->base.logits, (size_t)(ROWS * m->n_vocab), sizeof(float), "log-probabilities", err));
    TT_TRY(start_outputs(m, err));
    TT_TRY(score_all(m, err));
    TT_TRY(finish_outputs(m, err));
    fill_report(m);
    return TT_OK;
}

tt_status tt__measure_perplexity(tt_ctx *ctx, const tt_measure_job *job, tt_perplexity_report *report, tt_err *err) {
    *report = (tt_perplexity_report){0};
    measurer *m = NULL;
    TT_TRY(tt__new(&m, 1, sizeof *m, "the measurement", err));
    m->ctx = ctx, m->job = job, m->report = report;
    m->n_vocab = job->net->hp.n_vocab;
    m->n_ctx = job->n_ctx;
    m->bos = tt__tokenizer_adds_bos(job->tok) ? tt__tokenizer_bos(job->tok) : -1;
    tt_status st = measure(m, err);
    reader_close(&m->q);
    reader_close(&m->base);
    tt__writer_abort(m->save);
    tt__losses_abort(m->losses);
    tt__kld_free(&m->sums);
    if (m->load.data) tt__map_close(&m->load);
    tt__free(m->codes);
    tt__free(m->buf);
    tt__free(m->windows);
    tt__free(m->ids);
    tt__free(m->doc_start);
    tt__free(m);
    return st;
}
