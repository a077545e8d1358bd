/* tt_generate: sequences sampled in lock-step (train/selftext.h) become documents of a JSON Lines file that text/dataset.c reads, and a manifest
 * says where they come from.
 *
 *     plain            opening (a prompt, or one drawn token) and what the model goes on with, up to an end token or `tokens`
 *     chat, prompts    the template with the prompt as the user's turn; the reply is drawn
 *     chat             the template up to where the user's text stands; the model writes that too, then its reply (Xu et al. 2024, "Magpie",
 *                      arXiv 2406.08464). A chat whose user never ends is dropped.
 *
 * State: OUT.state/key, what the bytes depend on, and the sampler's files. The documents are written at the end from the ids alone, so a run
 * that was killed anywhere ends with equal bytes. A text of bytes that are no UTF-8 (a character cut at `tokens`) gets U+FFFD.
 */
#include "engine/sample.h"
#include "text/template.h"
#include "train/rawfile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct gjob {
    tt_ctx *ctx;
    const tt_generate_options *o;
    int64_t count, tokens;
    tt_model *model, *fast;
    tt_docs prompts;
    tt_tokens openings;
    int32_t *turn; int64_t n_turn;
    char *state, *manifest;
    char prompts_sha256[65];
    int32_t *ids;
    tt_selftext *self;
    tt_selftext_options so;
    tt__sha256 sha;
    tt_generate_report report;
} gjob;

tt_generate_options tt_generate_default_options(void) {
    return (tt_generate_options){.size = sizeof(tt_generate_options), .temperature = 1, .top_p = 1, .resume = true};
}

/* ------------------------------------------------------------ names ---- */

static tt_status name_files(gjob *j, tt_err *err) {
    const char *out = j->o->output;
    size_t n = out ? strlen(out) : 0;
    tt__str state = {0}, manifest = {0};
    TT_FAIL_IF(n < 7 || strcmp(out + n - 6, ".jsonl") != 0, err, TT_USAGE, "output is no JSON Lines file|output|%s|a name that ends in .jsonl", out ? out : "nothing");
    if (j->o->state) tt__str_puts(&state, j->o->state);
    else tt__str_printf(&state, "%s.state", out);
    tt__str_add(&manifest, out, n - 6);
    tt__str_puts(&manifest, ".manifest.json");
    j->state = state.s, j->manifest = manifest.s;
    TT_FAIL_IF(state.failed || manifest.failed, err, TT_RESOURCE, "out of memory|a path");
    bool stands = !j->o->force && tt__exists(out) && !tt__raw_exists(j->state, "key");
    if (stands) tt__remove_empty(j->state);
    TT_FAIL_IF(stands, err, TT_USAGE, "output exists|%s|||use --force to replace it", out);
    TT_FAIL_IF(j->o->prompts && tt__same_file(out, j->o->prompts), err, TT_USAGE, "output is one of the inputs|%s", out);
    return TT_OK;
}

/* ------------------------------------------------------------ openings ---- */

static tt_status append(tt_tokens *to, const int32_t *ids, size_t n, tt_err *err) {
    int32_t *more = tt__realloc(to->ids, (to->n + n) * sizeof *more);
    TT_FAIL_IF(!more && to->n + n, err, TT_RESOURCE, "out of memory|openings");
    to->ids = more;
    if (n) memcpy(to->ids + to->n, ids, n * sizeof *ids);
    to->n += n;
    to->start[++to->n_docs] = to->n;
    return TT_OK;
}

static tt_status as_chats(gjob *j, tt_err *err) {
    TT_TRY(tt__new(&j->openings.start, j->prompts.n + 1, sizeof *j->openings.start, "openings", err));
    for (size_t i = 0; i < j->prompts.n; i++) {
        tt_message m[2] = {{"system", j->o->system}, {"user", j->prompts.text[i]}};
        int32_t *ids = NULL;
        size_t n = 0;
        TT_FAIL_IF(j->prompts.chat[i], err, TT_USAGE, "prompt is a document of messages already|%s, document %zu||{\"text\": \"…\"}", j->o->prompts, i + 1);
        tt_status st = tt__chat_encode(j->model->tok, j->o->system ? m : m + 1, j->o->system ? 2 : 1, true, &ids, &n, err);
        if (st == TT_OK) st = append(&j->openings, ids, n, err);
        tt__free(ids);
        TT_TRY(st);
    }
    return TT_OK;
}

/* The end token that the model draws itself stands for the first token behind the user's text. */
static tt_status as_frame(gjob *j, tt_err *err) {
    int32_t *before = NULL, *after = NULL;
    size_t n = 0, m = 0;
    TT_TRY(tt__new(&j->openings.start, 2, sizeof *j->openings.start, "openings", err));
    tt_status st = tt__chat_frame(j->model->tok, j->o->system, &before, &n, &after, &m, err);
    if (st == TT_OK) st = append(&j->openings, before, n, err);
    size_t skip = m && tt__tokenizer_is_end(j->model->tok, after[0]);
    if (st == TT_OK && m <= skip) st = tt__fail(err, TT_BADFILE, "chat template has nothing between a user's text and the reply|%s", j->model->path);
    if (st == TT_OK) st = tt__new(&j->turn, m - skip, sizeof *j->turn, "a turn", err);
    if (st == TT_OK) memcpy(j->turn, after + skip, (m - skip) * sizeof *after), j->n_turn = (int64_t)(m - skip);
    tt__free(before);
    tt__free(after);
    return st;
}

static tt_status make_openings(gjob *j, tt_err *err) {
    const tt_generate_options *o = j->o;
    TT_FAIL_IF(o->system && !o->chat, err, TT_USAGE, "a system message needs the chat template|system|||add --chat");
    if (!o->prompts) return o->chat ? as_frame(j, err) : TT_OK;
    TT_TRY(tt__docs_load(o->prompts, NULL, &j->prompts, err));
    memcpy(j->prompts_sha256, j->prompts.sha256, sizeof j->prompts_sha256);
    return o->chat ? as_chats(j, err) : tt__docs_tokenize(&j->prompts, j->model->tok, &j->openings, err);
}

/* ------------------------------------------------------------ state ---- */

/* A state of other settings is removed, and the log says so. */
static tt_status open_state(gjob *j, tt_err *err) {
    tt__str key = {0};
    char *old = NULL, *path = NULL;
    size_t n = 0;
    TT_TRY(tt_model_sha256(j->model, j->report.model_sha256, err));
    tt__str_printf(&key, "1 %s %s %s %lld %lld %lld %g %g %" PRIu64 " %d %d %s %s\n", tt_version(), tt_ctx_isa(j->ctx), j->report.model_sha256, (long long)j->count,
                   (long long)j->tokens, (long long)j->o->batch, j->o->temperature, j->o->top_p, j->o->seed, (int)j->so.cache, j->o->chat,
                   j->o->prompts ? j->prompts_sha256 : "-", j->o->system ? j->o->system : "-");
    tt_status st = key.failed ? tt__fail(err, TT_RESOURCE, "out of memory|a state") : tt__raw_path(j->state, "key", &path, err);
    if (st == TT_OK && tt__exists(path)) {
        st = tt__read_file(path, 1 << 20, &old, &n, err);
        bool same = st == TT_OK && j->o->resume && n == key.n && memcmp(old, key.s, n) == 0;
        if (st == TT_OK && !same) {
            if (j->o->resume) tt__log(j->ctx, TT_LOG_WARN, "generate: %s belongs to other settings: starting anew", j->state);
            st = tt__remove_tree(j->state, err);
        }
        j->report.resumed = same;
    }
    if (st == TT_OK) st = tt__mkdirs(j->state, err);
    if (st == TT_OK && !j->report.resumed) st = tt__write_file(path, key.s, key.n, err);
    tt__free(old);
    tt__free(path);
    tt__str_free(&key);
    return st;
}

static tt_status sample(gjob *j, tt_err *err) {
    TT_TRY(tt__sample_open(j->ctx, j->model, &j->fast, err));
    TT_TRY(tt__selftext_create(j->ctx, j->fast->net, j->model->tok, &j->so, j->ids, &j->self, err));
    TT_TRY(tt__selftext_load(j->self, j->state, err));
    double start = tt__now(), before = (double)tt__selftext_drawn(j->self);
    TT_TRY(tt__sample_run(j->ctx, j->self, j->state, err));
    j->report.drawn = tt__selftext_drawn(j->self);
    j->report.seconds = tt__now() - start;
    j->report.tokens_per_second = j->report.seconds > 0 ? ((double)j->report.drawn - before) / j->report.seconds : 0;
    return TT_OK;
}

/* ------------------------------------------------------------ documents ---- */

static void add_clean(tt__str *s, const char *text, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = tt__utf8_decode((const uint8_t *)text + i, n - i, &cp);
        if (len > 0 && cp) tt__str_add(s, text + i, (size_t)len);
        else tt__str_puts(s, "\xef\xbf\xbd");
        i += len > 0 ? (size_t)len : 1;
    }
}

/* The text of some tokens as JSON; NULL in *out when there is none but white space. */
static tt_status text_of(const gjob *j, const int32_t *ids, int64_t n, json_t **out, tt_err *err) {
    char *text = NULL;
    size_t bytes = 0;
    tt__str s = {0};
    *out = NULL;
    if (n <= 0) return TT_OK;
    TT_TRY(tt__tokenizer_decode(j->model->tok, ids, (size_t)n, false, &text, &bytes, err));
    add_clean(&s, text, bytes);
    tt__free(text);
    bool blank = !s.n || strspn(s.s, " \t\r\n\v\f") == s.n, failed = s.failed;
    if (!failed && !blank) *out = json_stringn(s.s, s.n);
    tt__str_free(&s);
    TT_FAIL_IF(failed || (!blank && !*out), err, TT_RESOURCE, "out of memory|a document");
    return TT_OK;
}

static json_t *message(const char *role, json_t *content) { return content ? json_pack("{s:s, s:o}", "role", role, "content", content) : NULL; }

/* Takes over user and reply; NULL when one of them is missing. */
static json_t *chat_json(const gjob *j, json_t *user, json_t *reply) {
    if (!user || !reply) {
        json_decref(user);
        json_decref(reply);
        return NULL;
    }
    json_t *list = json_array();
    if (j->o->system) json_array_append_new(list, message("system", json_string(j->o->system)));
    json_array_append_new(list, message("user", user));
    json_array_append_new(list, message("assistant", reply));
    return list;
}

/* *doc is NULL when the sequence makes none; *n its tokens. */
static tt_status document(const gjob *j, int64_t i, json_t **doc, int64_t *n, tt_err *err) {
    const int32_t *ids = j->ids + i * j->tokens;
    int64_t len = tt__selftext_length(j->self, i), turn = tt__selftext_turn(j->self, i);
    int64_t opening = j->openings.n_docs ? (int64_t)(j->openings.start[(size_t)i % j->openings.n_docs + 1] - j->openings.start[(size_t)i % j->openings.n_docs]) : 0;
    json_t *user = NULL, *text = NULL;
    *n = len;
    *doc = NULL;
    if (!j->o->chat) {
        TT_TRY(text_of(j, ids, len, &text, err));
        if (text) *doc = json_pack("{s:I, s:o}", "id", (json_int_t)i, "text", text);
        return TT_OK;
    }
    if (!j->n_turn) user = json_string(j->prompts.text[(size_t)i % j->prompts.n]);
    else if (turn > 0) TT_TRY(text_of(j, ids + opening, turn - 1 - opening, &user, err));
    int64_t reply = j->n_turn ? turn + j->n_turn : opening;
    tt_status st = !j->n_turn || turn > 0 ? text_of(j, ids + reply, len - reply, &text, err) : TT_OK;
    json_t *messages = chat_json(j, user, text);
    if (messages) *doc = json_pack("{s:I, s:o}", "id", (json_int_t)i, "messages", messages);
    return st;
}

static tt_status write_line(gjob *j, tt__writer *w, int64_t i, tt_err *err) {
    json_t *doc = NULL;
    int64_t n = 0;
    tt__str s = {0};
    TT_TRY(document(j, i, &doc, &n, err));
    if (!doc) {
        j->report.dropped++;
        return TT_OK;
    }
    tt__json_write(&s, doc, JSON_COMPACT);
    tt__str_puts(&s, "\n");
    json_decref(doc);
    tt__sha256_update(&j->sha, s.s, s.n);
    tt_status st = s.failed ? tt__fail(err, TT_RESOURCE, "out of memory|a document") : tt__write(w, s.s, s.n, err);
    tt__str_free(&s);
    j->report.documents++;
    j->report.tokens += n;
    return st;
}

static tt_status write_documents(gjob *j, tt_err *err) {
    tt__writer *w = NULL;
    tt__sha256_init(&j->sha);
    TT_TRY(tt__writer_open(j->o->output, 0, &w, err));
    tt_status st = TT_OK;
    for (int64_t i = 0; i < j->count && st == TT_OK; i++) st = write_line(j, w, i, err);
    if (st == TT_OK && !j->report.documents) st = tt__fail(err, TT_FAIL, "no sequence became a document|%s|%lld sequences||raise --tokens", j->model->path, (long long)j->count);
    if (st != TT_OK) {
        tt__writer_abort(w);
        return st;
    }
    tt__sha256_final_hex(&j->sha, j->report.sha256);
    return tt__writer_commit(w, err);
}

/* Nothing in it depends on the clock. */
static tt_status write_manifest(gjob *j, tt_err *err) {
    const tt_generate_options *o = j->o;
    const tt_generate_report *r = &j->report;
    const char *name = strrchr(o->output, '/');
    tt__str s = {0};
    json_t *doc = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:I, s:s?, s:b, s:s?}", "trimtab_text", 1, "version", tt_version(), "file",
                            name ? name + 1 : o->output, "sha256", r->sha256, "model", o->model, "model_sha256", r->model_sha256, "count", (json_int_t)j->count, "length",
                            (json_int_t)j->tokens, "batch", (json_int_t)(o->batch ? o->batch : tt__selftext_group(j->fast->net, j->tokens, j->so.cache)), "temperature",
                            o->temperature, "top_p", o->top_p, "seed", (json_int_t)o->seed, "prompts_sha256", o->prompts ? j->prompts_sha256 : NULL, "chat", o->chat, "system",
                            o->system);
    json_t *rest = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "cache", j->so.cache == TT_KV_Q8 ? "q8_0" : j->so.cache == TT_KV_F32 ? "f32" : "f16", "isa", tt_ctx_isa(j->ctx),
                             "documents", (json_int_t)r->documents, "dropped", (json_int_t)r->dropped, "tokens", (json_int_t)r->tokens, "drawn", (json_int_t)r->drawn);
    bool ok = doc && rest && json_object_update(doc, rest) == 0;
    if (ok) tt__json_write(&s, doc, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    tt__str_puts(&s, "\n");
    tt_status st = !ok || s.failed ? tt__fail(err, TT_RESOURCE, "out of memory|the manifest") : tt__write_file(j->manifest, s.s, s.n, err);
    json_decref(doc);
    json_decref(rest);
    tt__str_free(&s);
    return st;
}

/* ------------------------------------------------------------ the whole ---- */

static tt_status open_model(gjob *j, tt_err *err) {
    tt_model_options mo = tt_model_default_options();
    mo.stored = true;
    TT_TRY(tt_model_open(j->ctx, j->o->model, &mo, &j->model, err));
    TT_FAIL_IF(!j->model->net, err, TT_BADFILE, "cannot run this architecture|%s|%s", j->model->path, j->model->info.architecture);
    TT_FAIL_IF(!j->model->tok, err, TT_BADFILE, "model has no tokenizer that this build can use|%s", j->model->path);
    return TT_OK;
}

static tt_status generate(gjob *j, tt_err *err) {
    TT_FAIL_IF(j->count < 1 || j->count > 1 << 24, err, TT_USAGE, "bad number of sequences|count|%lld|1 to %d", (long long)j->count, 1 << 24);
    TT_TRY(name_files(j, err));
    TT_TRY(open_model(j, err));
    TT_TRY(make_openings(j, err));
    j->so = (tt_selftext_options){.samples = j->count, .length = j->tokens, .group = j->o->batch, .seed = j->o->seed, .temperature = j->o->temperature, .top_p = j->o->top_p,
                                  .cache = tt__cache_kvtype(j->model, j->o->cache), .ends = true, .openings = j->openings.n_docs ? &j->openings : NULL, .turn = j->turn,
                                  .n_turn = j->n_turn};
    TT_FAIL_IF(j->tokens < 2 || j->tokens > j->model->net->hp.n_ctx, err, TT_USAGE, "bad length of a sequence|tokens|%lld|2 to %lld, the model's context",
               (long long)j->tokens, (long long)j->model->net->hp.n_ctx);
    TT_TRY(tt__new(&j->ids, (size_t)(j->count * j->tokens), sizeof *j->ids, "sampled tokens", err));
    TT_TRY(open_state(j, err));
    TT_TRY(sample(j, err));
    TT_TRY(write_documents(j, err));
    TT_TRY(write_manifest(j, err));
    return tt__remove_tree(j->state, err);
}

tt_status tt_generate(tt_ctx *ctx, const tt_generate_options *options, tt_generate_report *report, tt_err *err) {
    gjob j = {.ctx = ctx, .o = options, .count = options->count ? options->count : 256, .tokens = options->tokens ? options->tokens : 512};
    tt__mem_reset_peak();
    tt_status st = generate(&j, err);
    j.report.peak_bytes = tt__mem_peak();
    snprintf(j.report.manifest, sizeof j.report.manifest, "%s", j.manifest ? j.manifest : "");
    if (st == TT_OK && report) *report = j.report;
    tt__selftext_free(j.self);
    tt_model_close(j.fast);
    tt_model_close(j.model);
    tt__tokens_free(&j.openings);
    tt__docs_free(&j.prompts);
    tt__free(j.turn);
    tt__free(j.ids);
    tt__free(j.state);
    tt__free(j.manifest);
    return st;
}
