/* A session: one timeline over a shared model. Tokens go in by feed, logits come out, the sampler draws; nothing here is shared. */
#include "engine/model.h"
#include "models/sampler.h"

enum { FEED_ROWS = 512 };       /* rows of one pass: enough for the batch kernels, small enough for the workspace */

struct tt_session {
    tt_model *model;
    tt_runner *runner;
    tt_kvcache *cache;
    tt_sampler *sampler;
    tt_tab *tab;
    int64_t n_ctx, position;
    float *hidden, *logits;      /* [n_embd], [n_vocab] of the last token */
};

tt_sampler_options tt_sampler_default_options(void) {
    return (tt_sampler_options){.size = sizeof(tt_sampler_options), .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1.0f, .repeat_last_n = 64};
}

/* The caller may know a shorter struct, or a longer one. */
static tt_session_options known_options(const tt_session_options *from) {
    tt_session_options o = {.size = sizeof o};
    if (from) memcpy(&o, from, from->size < sizeof o ? from->size : sizeof o);
    return o;
}

tt_status tt_session_create(tt_model *model, const tt_session_options *options, tt_session **out, tt_err *err) {
    const tt_session_options o = known_options(options);
    *out = NULL;
    TT_FAIL_IF(!model->net, err, TT_BADFILE, "cannot run this architecture|%s|%s||`show` and `convert` work on it", model->path, model->info.architecture);
    int64_t n_ctx = o.n_ctx ? o.n_ctx : model->net->hp.n_ctx < 4096 ? model->net->hp.n_ctx : 4096;
    TT_FAIL_IF(n_ctx < 1 || n_ctx > model->net->hp.n_ctx, err, TT_USAGE, "context size out of range|%s|%lld|1 to %lld, what the model was trained for", model->path,
               (long long)n_ctx, (long long)model->net->hp.n_ctx);
    tt_session *s = NULL;
    TT_TRY(tt__new(&s, 1, sizeof *s, "a session", err));
    s->model = model;
    s->n_ctx = n_ctx;
    bool fast = model->opt.numerics == TT_FAST;
    tt_runner_options ro = {.max_rows = FEED_ROWS < n_ctx ? FEED_ROWS : n_ctx, .max_past = n_ctx, .fast = fast};
    tt_sampler_options so = tt_sampler_default_options();
    tt_status st;
    TT_TRY_GOTO(tt__runner_create(model->ctx, model->net, &ro, &s->runner, err));
    TT_TRY_GOTO(tt__kvcache_create_typed(model->ctx, model->net, 1, n_ctx, tt__cache_kvtype(model, o.cache_k), tt__cache_kvtype(model, o.cache_v),
                                         &s->cache, err));
    TT_TRY_GOTO(tt__new(&s->hidden, (size_t)model->net->hp.n_embd, sizeof(float), "hidden state", err));
    TT_TRY_GOTO(tt__new(&s->logits, (size_t)model->net->hp.n_vocab, sizeof(float), "logits", err));
    TT_TRY_GOTO(tt__sampler_create(&so, model->net->hp.n_vocab, &s->sampler, err));
    *out = s;
    return TT_OK;
done:
    tt_session_free(s);
    return st;
}

void tt_session_free(tt_session *s) {
    if (!s) return;
    tt__runner_free(s->runner);
    tt__kvcache_free(s->cache);
    tt__sampler_free(s->sampler);
    tt__free(s->hidden);
    tt__free(s->logits);
    tt__free(s);
}

static int64_t tab_positions(const tt_session *s) { return s->tab ? s->tab->prompt.tokens : 0; }

tt_status tt_session_attach(tt_session *s, tt_tab *tab, tt_err *err) {
    TT_FAIL_IF(s->position > 0, err, TT_USAGE, "a tab comes before the first token|%s|%lld tokens fed|0|attach it first, or reset the session", tab->path, (long long)s->position);
    TT_FAIL_IF(s->tab, err, TT_USAGE, "a session holds one tab|%s", tab->path);
    TT_FAIL_IF(tab->model != s->model, err, TT_USAGE, "tab was opened for another model|%s", tab->path);
    TT_FAIL_IF(tab->prompt.tokens >= s->n_ctx, err, TT_USAGE, "tab fills the whole context|%s|%lld positions|below %lld|raise -c", tab->path,
               (long long)tab->prompt.tokens, (long long)s->n_ctx);
    const tt_prefix *prefix = NULL;
    TT_TRY(tt__tab_prefix(s->model->ctx, tab, &prefix, err));
    for (size_t i = 0; tab->ops && i < s->model->net->n_weights; i++) if (tab->ops[i]) tt__runner_set_op(s->runner, i, tab->ops[i]);
    s->tab = tab;
    s->cache->prefix = prefix;
    return TT_OK;
}

tt_status tt_session_feed(tt_session *s, const int32_t *ids, size_t n, tt_err *err) {
    int64_t room = s->n_ctx - tab_positions(s) - s->position;
    TT_FAIL_IF(n == 0, err, TT_USAGE, "nothing to feed||0 tokens|at least 1");
    TT_FAIL_IF((uint64_t)n > (uint64_t)(room > 0 ? room : 0), err, TT_FAIL, "context is full|%lld of %lld positions used|%zu more tokens|at most %lld|raise -c or shorten the prompt",
               (long long)(s->position + tab_positions(s)), (long long)s->n_ctx, n, (long long)(room > 0 ? room : 0));
    for (size_t i = 0; i < n; i++)
        TT_FAIL_IF(ids[i] < 0 || ids[i] >= s->model->net->hp.n_vocab, err, TT_USAGE, "token id out of range|token %zu|%d|0 to %lld", i, ids[i], (long long)s->model->net->hp.n_vocab - 1);
    int64_t before = s->cache->n;
    for (size_t at = 0; at < n;) {
        size_t rows = n - at < FEED_ROWS ? n - at : FEED_ROWS;
        tt_status st = tt__check_cancel(s->model->ctx, err);
        if (st == TT_OK) st = tt__run_cached(s->runner, s->cache, ids + at, (int64_t)rows, true, s->hidden, err);
        if (st != TT_OK) {
            s->cache->n = before;               /* the rows beyond are never read again */
            return st;
        }
        at += rows;
    }
    for (size_t i = 0; i < n; i++) tt__sampler_accept(s->sampler, ids[i]);
    s->position += (int64_t)n;
    return tt__run_logits(s->runner, s->hidden, 1, s->logits, err);
}

const float *tt_session_get_logits(const tt_session *s) { return s->logits; }
int64_t tt_session_position(const tt_session *s) { return s->position; }

void tt_session_reset(tt_session *s) {
    s->cache->n = 0;
    s->position = 0;
    tt__sampler_forget(s->sampler);
}

void tt__session_rewind(tt_session *s, int64_t position) {
    s->cache->n -= s->position - position;      /* the rows beyond are never read again */
    s->position = position;
    tt__sampler_forget(s->sampler);
}

double tt__session_cache_bytes(const tt_session *s, double positions) {
    const double tab = s->tab ? (double)tt__kv_row_bytes(tt__model_kvtype(s->model), s->cache->width) * 2 * (double)s->cache->n_layer : 0;
    return (double)tt__kvcache_bytes(s->cache, 1) * positions + tab * (double)tab_positions(s);
}

int64_t tt__session_batch(const tt_session *s) { return FEED_ROWS < s->n_ctx ? FEED_ROWS : s->n_ctx; }

tt_status tt_session_set_sampler(tt_session *s, const tt_sampler_options *options, tt_err *err) {
    tt_sampler *fresh = NULL;
    TT_TRY(tt__sampler_create(options, s->model->net->hp.n_vocab, &fresh, err));
    tt__sampler_free(s->sampler);
    s->sampler = fresh;
    return TT_OK;
}

tt_status tt_session_sample(tt_session *s, int32_t *id, tt_err *err) {
    TT_FAIL_IF(s->position == 0, err, TT_USAGE, "nothing to continue|the session holds no token yet||feed a prompt first");
    return tt__sampler_draw(s->sampler, s->logits, id, err);
}
