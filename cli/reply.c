/* From token ids to streamed text, shared by `run` and `chat`.
 *
 * A conversation grows at its end: the session keeps what it was fed, a new list of ids that begins with it feeds only the rest, any other
 * list starts anew. Text goes out in whole UTF-8 sequences: a token may end inside one, so up to three bytes wait for the next; bytes that
 * can belong to no sequence become U+FFFD.
 */
#include "cli.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* ------------------------------------------------------------------ open ---- */

static int64_t context_size(const cli *c, const tt_model_info *info) {
    int64_t n = opt_i(c, O_ctx_size);
    if (n <= 0) n = info->n_ctx > 0 && info->n_ctx < 4096 ? info->n_ctx : 4096;
    return n;
}

/* The parser lets no other name through. */
tt_run_format run_format(const char *name) { return !strcmp(name, "auto") ? TT_RUN_AUTO : !strcmp(name, "expand") ? TT_RUN_EXPAND : TT_RUN_KEEP; }

tt_cache_type cache_type(const char *name) {
    return !name ? TT_CACHE_AUTO : !strcmp(name, "f32") ? TT_CACHE_F32 : !strcmp(name, "f16") ? TT_CACHE_F16 : TT_CACHE_Q8_0;
}

static tt_status set_sampler(generator *g, tt_err *err) {
    const cli *c = g->c;
    tt_sampler_options s = tt_sampler_default_options();
    s.temperature = (float)opt_f(c, O_temp);
    s.top_k = (int)opt_i(c, O_top_k);
    s.top_p = (float)opt_f(c, O_top_p);
    s.min_p = (float)opt_f(c, O_min_p);
    s.repeat_penalty = (float)opt_f(c, O_repeat_penalty);
    s.repeat_last_n = (int)opt_i(c, O_repeat_last_n);
    s.presence_penalty = (float)opt_f(c, O_presence_penalty);
    s.frequency_penalty = (float)opt_f(c, O_frequency_penalty);
    s.seed = (uint64_t)opt_i(c, O_seed);
    if (opt_i(c, O_seed) < 0 && getrandom(&s.seed, sizeof s.seed, 0) < 0) s.seed = (uint64_t)(seconds_now() * 1e9);
    return tt_session_set_sampler(g->session, &s, err);
}

static tt_status open_all(generator *g, const char *ref, tt_err *err) {
    cli *c = g->c;
    tt_model_options mo = tt_model_default_options();
    mo.numerics = opt_b(c, O_exact) ? TT_EXACT : TT_FAST;
    mo.expand = opt_b(c, O_expand);
    mo.run_format = run_format(opt_s(c, O_run_format));
    mo.offline = opt_b(c, O_offline);
    tt_status st = tt_model_open(c->ctx, ref, &mo, &g->model, err);
    if (st == TT_OK && opt_s(c, O_adapter)) st = tt_tab_open(g->model, opt_s(c, O_adapter), &g->tab, err);
    if (st != TT_OK) return st;
    g->n_ctx = context_size(c, tt_model_get_info(g->model));
    tt_session_options so = {.size = sizeof so, .n_ctx = g->n_ctx, .cache_k = cache_type(opt_s(c, O_cache_k)), .cache_v = cache_type(opt_s(c, O_cache_v))};
    st = tt_session_create(g->model, &so, &g->session, err);
    if (st == TT_OK && g->tab) st = tt_session_attach(g->session, g->tab, err);
    return st == TT_OK ? set_sampler(g, err) : st;
}

int generator_open(generator *g, cli *c, const char *ref) {
    tt_err err = {0};
    double start = seconds_now();
    *g = (generator){.c = c, .stop = "end"};
    int code = open_ctx(c);
    if (code) return code;
    tt_status st = open_all(g, ref, &err);
    g->open_seconds = seconds_now() - start;
    return st == TT_OK ? 0 : fail(c, st, &err);
}

void generator_close(generator *g) {
    tt_session_free(g->session);
    tt_tab_close(g->tab);
    tt_model_close(g->model);
    free(g->fed);
}

/* ------------------------------------------------------------------ text out ---- */

typedef struct stream { char *text; size_t n, cap, out; bool print, failed; } stream;

/* Length of the sequence at s[0..n): 1 to 4, 0 when it is cut and may still become one, -1 when it never can. */
static int utf8_length(const unsigned char *s, size_t n) {
    int want = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : s[0] >= 0xe0 && s[0] <= 0xef ? 3 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : -1;
    if (want == 1 || want == -1) return want;
    if (n > 1 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))) return -1;
    for (int i = 1; i < want; i++) {
        if ((size_t)i >= n) return 0;
        if ((s[i] & 0xc0) != 0x80) return -1;
    }
    return want;
}

static void send_whole(stream *s, bool last) {
    while (s->out < s->n) {
        int len = utf8_length((const unsigned char *)s->text + s->out, s->n - s->out);
        if (len == 0 && !last) break;
        if (len <= 0) fputs("\xef\xbf\xbd", stdout);
        else fwrite(s->text + s->out, 1, (size_t)len, stdout);
        s->out += len > 0 ? (size_t)len : 1;
    }
    fflush(stdout);
}

static void add_text(stream *s, const char *text, size_t n) {
    if (s->n + n + 1 > s->cap) {
        size_t cap = 2 * (s->n + n) + 256;
        char *grown = realloc(s->text, cap);
        if (!grown) {
            s->failed = true;
            return;
        }
        s->text = grown;
        s->cap = cap;
    }
    memcpy(s->text + s->n, text, n);
    s->n += n;
    s->text[s->n] = 0;
    if (s->print) send_whole(s, false);
}

/* ------------------------------------------------------------------ tokens ---- */

static bool remember(generator *g, const int32_t *ids, size_t n) {
    if (g->n_fed + n > g->cap) {
        size_t cap = 2 * (g->n_fed + n) + 512;
        int32_t *grown = realloc(g->fed, cap * sizeof *grown);
        if (!grown) return false;
        g->fed = grown;
        g->cap = cap;
    }
    memcpy(g->fed + g->n_fed, ids, n * sizeof *ids);
    g->n_fed += n;
    return true;
}

static tt_status feed(generator *g, const int32_t *ids, size_t n, tt_err *err) {
    tt_status st = tt_session_feed(g->session, ids, n, err);
    if (st == TT_OK && !remember(g, ids, n)) st = TT_RESOURCE;
    return st;
}

static int64_t room(const generator *g) {
    return g->n_ctx - tt_session_position(g->session) - (g->tab ? tt_tab_get_info(g->tab)->tokens : 0);
}

/* Feeds what the session does not hold yet; at least the last token, whose logits are wanted. */
static tt_status feed_prompt(generator *g, const int32_t *ids, size_t n, tt_err *err) {
    double start = seconds_now();
    size_t same = g->n_fed;
    if (same >= n || (same && memcmp(ids, g->fed, same * sizeof *ids) != 0)) {
        tt_session_reset(g->session);
        g->n_fed = same = 0;
    }
    g->prompt_tokens = n - same;
    if ((int64_t)(n - same) > room(g)) {
        *err = (tt_err){.status = TT_FAIL, .what = "the text does not fit the context", .hint = "a longer context with -c, or /reset"};
        snprintf(err->got, sizeof err->got, "%zu tokens", n);
        snprintf(err->expected, sizeof err->expected, "at most %" PRId64, room(g) + (int64_t)same);
        return TT_FAIL;
    }
    tt_status st = feed(g, ids + same, n - same, err);
    g->prompt_seconds = seconds_now() - start;
    return st;
}

static tt_status add_token(generator *g, int32_t id, stream *s, tt_err *err) {
    char *piece = NULL;
    size_t bytes = 0;
    tt_status st = tt_detokenize(g->model, &id, 1, false, &piece, &bytes, err);
    if (st == TT_OK) add_text(s, piece, bytes);
    tt_free(piece);
    return st == TT_OK && s->failed ? TT_RESOURCE : st;
}

static tt_status sample_all(generator *g, stream *s, tt_err *err) {
    int64_t limit = opt_i(g->c, O_predict);
    tt_status st = TT_OK;
    int32_t id;
    g->stop = "length";
    for (g->tokens = 0; st == TT_OK && (limit < 0 || (int64_t)g->tokens < limit); g->tokens++) {
        if (interrupted()) return g->stop = "interrupted", TT_OK;
        if ((st = tt_session_sample(g->session, &id, err)) != TT_OK) break;
        if (tt_model_is_end(g->model, id)) return g->stop = "end", TT_OK;
        st = add_token(g, id, s, err);
        if (st == TT_OK && room(g) <= 0) return g->tokens++, g->stop = "context", TT_OK;
        if (st == TT_OK && (limit < 0 || (int64_t)g->tokens + 1 < limit)) st = feed(g, &id, 1, err);
    }
    return st;
}

int generate(generator *g, const int32_t *ids, size_t n, bool print, char **text, size_t *bytes) {
    tt_err err = {0};
    stream s = {.print = print};
    double start;
    add_text(&s, "", 0);
    tt_status st = feed_prompt(g, ids, n, &err);
    start = seconds_now();
    if (st == TT_OK) st = sample_all(g, &s, &err);
    g->seconds = seconds_now() - start;
    if (print) send_whole(&s, true);
    if ((st == TT_INTERRUPTED || st == TT_TERMINATED) && interrupted()) st = TT_OK, g->stop = "interrupted";
    if (st == TT_OK && strcmp(g->stop, "context") == 0) note(g->c, "\n(the context is full: %" PRId64 " positions)", g->n_ctx);
    *text = s.text;
    *bytes = s.n;
    return st == TT_OK ? 0 : fail(g->c, st, &err);
}

void generator_timings(const generator *g) {
    char t[32];
    if (!opt_b(g->c, O_verbose)) return;
    note(g->c, "open %s; prompt %zu tokens, %.1f tokens per second; reply %zu tokens, %.1f tokens per second; %d threads, %s", text_time(g->open_seconds, t),
         g->prompt_tokens, g->prompt_seconds > 0 ? (double)g->prompt_tokens / g->prompt_seconds : 0, g->tokens, g->seconds > 0 ? (double)g->tokens / g->seconds : 0,
         tt_ctx_threads(g->c->ctx), tt_ctx_isa(g->c->ctx));
}
