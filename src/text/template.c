/* Chat templates: rendering into segments, and rendering straight into tokens. See template_int.h for how the engine works. */
#include "text/template.h"
#include "base/err.h"
#include "base/limits.h"
#include "text/template_int.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

/* ---- variables ---- */
static void set_variable(cx *c, const char *name, val v) {
    const str *k = tt__str_of(c, name);
    scope *s = c->root;
    const str **keys = tt__tpl_alloc(c, (s->n + 1) * sizeof *keys);
    val *vals = tt__tpl_alloc(c, (s->n + 1) * sizeof *vals);
    if (s->n) memcpy(keys, s->k, s->n * sizeof *keys);
    if (s->n) memcpy(vals, s->v, s->n * sizeof *vals);
    keys[s->n] = k;
    vals[s->n] = v;
    *s = (scope){s->up, keys, vals, s->n + 1, s->n + 1};
}

/* Roles that the program writes are markup, because templates build control tokens from them ("<|" + role + "|>"); any other is text. */
static bool is_known_role(const char *role) {
    static const char *const known[] = {"system", "user", "assistant", "tool", "developer", "function", "ipython", "model"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(role, known[i]) == 0) return true;
    return false;
}

/* Text from a message, with the replacement character for what is no UTF-8. */
static const str *message_text(cx *c, const char *s, uint8_t mark) {
    size_t n = strlen(s), span = tt__utf8_span((const uint8_t *)s, n);
    if (span == n) return tt__str_new(c, s, n, mark);
    char *fixed = tt__tpl_alloc(c, 3 * n);
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        span = tt__utf8_span((const uint8_t *)s + i, n - i);
        memcpy(fixed + k, s + i, span);
        i += span;
        k += span;
        if (i == n) break;
        memcpy(fixed + k, "\xEF\xBF\xBD", 3);
        k += 3;
        i++;
    }
    return tt__str_new(c, fixed, k, mark);
}

static val message_list(cx *c, const tt_message *m, size_t n) {
    const str *role = tt__str_of(c, "role"), *content = tt__str_of(c, "content");
    list *l = tt__list_new(c);
    for (size_t i = 0; i < n; i++) {
        dict *d = tt__dict_new(c);
        tt__dict_set(c, d, role, tt__v_str(message_text(c, m[i].role ? m[i].role : "", m[i].role && !is_known_role(m[i].role))));
        tt__dict_set(c, d, content, tt__v_str(message_text(c, m[i].content ? m[i].content : "", 1)));
        tt__list_push(c, l, (val){.kind = V_DICT, .u.d = d});
    }
    return tt__v_list(l);
}

/* Further variables may only be further ones (J3). */
static void set_extra(cx *c) {
    const char *key;
    json_t *v;
    if (!c->extra) return;
    if (!json_is_object(c->extra)) tt__tpl_fail(c, TT_USAGE, "template variables", "no object", "a JSON object");
    json_object_foreach(c->extra, key, v) {
        const str *k = tt__str_of(c, key);
        bool reserved = tt__is_global(k);
        for (size_t i = 0; i < c->root->n; i++) reserved |= tt__str_same(c->root->k[i], k);
        if (reserved) tt__tpl_fail(c, TT_USAGE, "template variable is reserved", key, "another name");
        set_variable(c, key, tt__from_json(c, v));
    }
}

/* ---- segments ---- */
static size_t count_segments(const out *o) {
    size_t n = o->n > 0;
    for (size_t i = 1; i < o->n; i++) n += o->mark[i] != o->mark[i - 1];
    return n;
}

static tt_status make_segments(const out *o, tt_template_output *result, tt_err *err) {
    TT_TRY(tt__new(&result->seg, count_segments(o), sizeof *result->seg, "a rendered template", err));
    for (size_t i = 0, j; i < o->n; i = j) {
        for (j = i; j < o->n && o->mark[j] == o->mark[i];) j++;
        char *text = tt__strndup(o->s + i, j - i);
        if (!text) {
            tt__template_output_free(result);
            return tt__fail(err, TT_RESOURCE, "out of memory|for a rendered template");
        }
        result->seg[result->n++] = (tt_template_segment){text, j - i, !o->mark[i]};
    }
    return TT_OK;
}

void tt__template_output_free(tt_template_output *o) {
    for (size_t i = 0; i < o->n; i++) tt__free(o->seg[i].text);
    tt__free(o->seg);
    *o = (tt_template_output){0};
}

/* ---- rendering ---- */
typedef struct job { cx *c; out *to; const char *source; const tt_message *messages; size_t n; bool generation; const char *bos, *eos; } job;

static void render(void *arg) {
    const job *j = arg;
    cx *c = j->c;
    token *tokens = tt__tpl_lex(c, j->source, strlen(j->source));
    node *body = tt__tpl_parse(c, tokens);
    c->root = c->scope = tt__tpl_alloc(c, sizeof *c->root);
    set_variable(c, "messages", message_list(c, j->messages, j->n));
    set_variable(c, "add_generation_prompt", tt__v_bool(j->generation));
    set_variable(c, "bos_token", tt__v_str(tt__str_of(c, j->bos ? j->bos : "")));
    set_variable(c, "eos_token", tt__v_str(tt__str_of(c, j->eos ? j->eos : "")));
    set_extra(c);
    c->to = j->to;
    tt__tpl_run(c, body);
}

tt_status tt__template_render(const char *source, const tt_message *messages, size_t n_messages, bool add_generation_prompt, const char *bos, const char *eos,
                              const char *extra_json, tt_template_output *result, tt_err *err) {
    *result = (tt_template_output){0};
    TT_FAIL_IF(strlen(source) > TT_LIMIT_TEMPLATE_BYTES, err, TT_BADFILE, "chat template too long||%zu bytes|at most %llu (TEMPLATE_BYTES)", strlen(source),
               (unsigned long long)TT_LIMIT_TEMPLATE_BYTES);
    cx *c;
    out o = {0};
    TT_TRY(tt__new(&c, 1, sizeof *c, "a chat template", err));
    c->err = err;
    tt_status st = extra_json ? tt__json_parse(extra_json, strlen(extra_json), "template variables", &c->extra, err) : TT_OK;
    job j = {c, &o, source, messages, n_messages, add_generation_prompt, bos, eos};
    if (st == TT_OK && !tt__unwind_run(&c->fail, render, &j)) st = c->status;
    if (st == TT_OK) st = make_segments(&o, result, err);
    json_decref(c->extra);
    tt__arena_free(&c->arena);
    tt__free(c);
    return st;
}

/* ---- into tokens ---- */
/* All segments as one text, so that words and line breaks merge over their borders as they do for one string. */
static tt_status encode_output(const tt_tokenizer *t, const tt_template_output *o, int32_t **ids, size_t *n, tt_err *err) {
    size_t bytes = 0, at = 0;
    char *text;
    uint8_t *mark = NULL;
    for (size_t i = 0; i < o->n; i++) bytes += o->seg[i].n;
    TT_TRY(tt__new(&text, bytes + 1, 1, "a rendered template", err));
    tt_status st = tt__new(&mark, bytes + 1, 1, "a rendered template", err);
    for (size_t i = 0; i < o->n && st == TT_OK; at += o->seg[i++].n) {
        memcpy(text + at, o->seg[i].text, o->seg[i].n);
        memset(mark + at, !o->seg[i].markup, o->seg[i].n);
    }
    if (st == TT_OK) st = tt__tokenizer_encode_marked(t, text, mark, bytes, TT_PARSE_SPECIAL, ids, n, err);
    tt__free(text);
    tt__free(mark);
    return st;
}

static tt_status token_string(const tt_tokenizer *t, int32_t id, char **copy, tt_err *err) {
    size_t n = 0;
    const char *s = id < 0 ? "" : tt__tokenizer_token(t, id, &n, NULL);
    *copy = tt__strndup(s, n);
    return *copy ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|for a chat template");
}

static tt_status render_for(const tt_tokenizer *t, const tt_message *messages, size_t n_messages, bool generation, tt_template_output *o, tt_err *err) {
    const char *source = tt__tokenizer_template(t);
    char *bos = NULL, *eos = NULL;
    tt_status st;
    TT_FAIL_IF(!source, err, TT_BADFILE, "no chat template|this model||tokenizer.chat_template");
    TT_TRY_GOTO(token_string(t, t->bos, &bos, err));
    TT_TRY_GOTO(token_string(t, t->eos, &eos, err));
    TT_TRY_GOTO(tt__template_render(source, messages, n_messages, generation, bos, eos, NULL, o, err));
done:
    tt__free(bos);
    tt__free(eos);
    return st;
}

tt_status tt__chat_encode(const tt_tokenizer *t, const tt_message *messages, size_t n_messages, bool add_generation_prompt, int32_t **ids, size_t *n, tt_err *err) {
    tt_template_output o = {0};
    *ids = NULL;
    *n = 0;
    tt_status st = render_for(t, messages, n_messages, add_generation_prompt, &o, err);
    if (st == TT_OK) st = encode_output(t, &o, ids, n, err);
    tt__template_output_free(&o);
    return st;
}

/* The user's text is the one piece that a template cannot have made itself. */
tt_status tt__chat_frame(const tt_tokenizer *t, const char *system, int32_t **before, size_t *n_before, int32_t **after, size_t *n_after, tt_err *err) {
    static const char mark[] = "Zqx7";
    tt_message m[2] = {{"system", system}, {"user", mark}};
    tt_template_output o = {0};
    size_t at = 0;
    *before = *after = NULL;
    *n_before = *n_after = 0;
    tt_status st = render_for(t, system ? m : m + 1, system ? 2 : 1, true, &o, err);
    while (st == TT_OK && at < o.n && (o.seg[at].markup || strcmp(o.seg[at].text, mark) != 0)) at++;
    if (st == TT_OK && at == o.n) st = tt__fail(err, TT_BADFILE, "chat template does not show where a user's text stands|this model");
    if (st == TT_OK) st = encode_output(t, &(tt_template_output){o.seg, at}, before, n_before, err);
    if (st == TT_OK) st = encode_output(t, &(tt_template_output){o.seg + at + 1, o.n - at - 1}, after, n_after, err);
    tt__template_output_free(&o);
    return st;
}
