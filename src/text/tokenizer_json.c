/* A tokenizer from Hugging Face files: tokenizer.json, with tokenizer_config.json and chat_template.jinja beside it.
 *
 *   { "added_tokens": […], "normalizer": …, "pre_tokenizer": …, "post_processor": …, "decoder": …,      small trees, read by Jansson
 *     "model": {"type": "BPE", "vocab": {"Ġthe": 262, …}, "merges": ["Ġ t", …] or [["Ġ", "t"], …]} }    large, pulled member by member
 *
 * The format can describe far more than byte-level BPE. What is not supported is refused by its name: a part that is skipped would split
 * text otherwise than its author meant. */
#include "base/checked.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "text/json_pull.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"
#include <stdio.h>

/* ---- parts of the file ---- */
typedef struct slice { const char *s; size_t n; } slice;
enum { ADDED, NORMALIZER, PRE_TOKENIZER, POST_PROCESSOR, DECODER, MODEL, FILE_PARTS };
static const char *const file_parts[FILE_PARTS] = {"added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"};
enum { TYPE, VOCAB, MERGES, UNK, DROPOUT, PREFIX, SUFFIX, FUSE, FALLBACK, IGNORE, MODEL_PARTS };
static const char *const model_parts[MODEL_PARTS] = {"type", "vocab", "merges", "unk_token", "dropout", "continuing_subword_prefix",
                                                     "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges"};

static bool is(slice v, const char *text) { return v.n == strlen(text) && memcmp(v.s, text, v.n) == 0; }
static bool is_absent(slice v) { return v.n == 0 || is(v, "null"); }

/* The members of an object that have a name in `names`; the others are skipped. */
static tt_status slice_members(slice text, const char *const *names, size_t n, slice *out, const char *where, tt_err *err) {
    tt_jp r = tt__jp_begin(text.s, text.n, where, err);
    tt_jp_text key = {0};
    memset(out, 0, n * sizeof *out);
    tt__jp_object(&r);
    while (!r.status && tt__jp_key(&r, &key)) {
        slice v;
        size_t i = 0;
        while (i < n && !(key.n == strlen(names[i]) && memcmp(key.s, names[i], key.n) == 0)) i++;
        if (!tt__jp_slice(&r, &v.s, &v.n) || i == n) continue;
        if (out[i].n) tt__jp_fail(&r, "doubled key", "each key once");
        out[i] = v;
    }
    tt__jp_end(&r);
    tt__free(key.s);
    return r.status;
}

/* ---- small trees ---- */
typedef struct reader {
    const char *where;
    tt_tokenizer *t;
    tt_err *err;
    slice file[FILE_PARTS], model[MODEL_PARTS];
    /* the vocabulary as it stands in the file */
    tt__str text;
    struct entry { size_t at, n; int32_t id; } *entries;
    size_t n_entries, cap_entries;
    json_t *added;                                /* array or NULL */
    int32_t *place;                               /* [n_ids] entry + 1; −(added + 1); 0: a hole */
    size_t n_ids;
} reader;

static tt_status unsupported(reader *r, const char *part, const char *got, const char *expected) {
    return tt__fail(r->err, TT_BADFILE, "unsupported tokenizer|%s, %s|%s|%s", r->where, part, got ? got : "no type", expected);
}
static const char *type_of(const json_t *v) { return json_string_value(json_object_get(v, "type")); }
static bool has_type(const json_t *v, const char *type) { return type_of(v) && strcmp(type_of(v), type) == 0; }
static bool flag_of(const json_t *v, const char *key, bool otherwise) {
    const json_t *f = json_object_get(v, key);
    return f && json_is_boolean(f) ? json_is_true(f) : otherwise;
}

static tt_status parse_part(reader *r, int part, json_t **out) {
    *out = NULL;
    if (is_absent(r->file[part])) return TT_OK;
    tt_status st = tt__json_parse(r->file[part].s, r->file[part].n, file_parts[part], out, r->err);
    return st == TT_OK ? TT_OK : tt__err_at(r->err, st, "%s", r->where);
}

/* Applies `fn` to a part, or to each member of a Sequence. */
typedef tt_status (*part_fn)(reader *r, const json_t *v);
static tt_status each_of(reader *r, const json_t *v, const char *list, part_fn fn) {
    if (!v) return TT_OK;
    if (!has_type(v, "Sequence")) return fn(r, v);
    const json_t *item, *items = json_object_get(v, list);
    size_t i;
    json_array_foreach(items, i, item) TT_TRY(fn(r, item));
    return TT_OK;
}

static tt_status read_normalizer(reader *r, const json_t *v) {
    if (!has_type(v, "NFC")) return unsupported(r, "normalizer", type_of(v), "none or NFC");
    r->t->nfc = true;
    return TT_OK;
}

static tt_status read_decoder(reader *r, const json_t *v) {
    return has_type(v, "ByteLevel") ? TT_OK : unsupported(r, "decoder", type_of(v), "ByteLevel (byte-level BPE)");
}

static bool is_byte_level(const json_t *v, bool regex) {
    return has_type(v, "ByteLevel") && !flag_of(v, "add_prefix_space", true) && flag_of(v, "use_regex", true) == regex;
}

/* Isolated, or Removed with invert: the same, because these expressions match every character. */
static bool is_split(const json_t *v, tt_pretok *pre) {
    const json_t *regex = json_object_get(json_object_get(v, "pattern"), "Regex");
    const char *behaviour = json_string_value(json_object_get(v, "behavior"));
    if (!has_type(v, "Split") || !json_is_string(regex) || !behaviour) return false;
    bool invert = flag_of(v, "invert", false);
    if (strcmp(behaviour, invert ? "Removed" : "Isolated") != 0) return false;
    return tt__pretok_from_regex(json_string_value(regex), json_string_length(regex), pre);
}

static tt_status read_pre_tokenizer(reader *r, const json_t *v) {
    const json_t *list = has_type(v, "Sequence") ? json_object_get(v, "pretokenizers") : NULL;
    const json_t *a = list ? json_array_get(list, 0) : v, *b = json_array_get(list, 1);
    size_t n = list ? json_array_size(list) : 1;
    tt_pretok *pre = &r->t->pre;
    if (n == 1 && is_byte_level(a, true)) { *pre = TT_PRE_GPT2; return TT_OK; }
    if (n == 2 && has_type(a, "Digits") && flag_of(a, "individual_digits", false) && is_byte_level(b, true)) { *pre = TT_PRE_SMOLLM; return TT_OK; }
    if (n == 2 && is_byte_level(b, false) && is_split(a, pre)) return TT_OK;
    const json_t *regex = json_object_get(json_object_get(a, "pattern"), "Regex");
    const char *got = json_is_string(regex) ? json_string_value(regex) : type_of(a);
    return unsupported(r, "pre_tokenizer", got, "the pre-tokenizer of GPT-2, SmolLM2, Llama 3 or Qwen2, without a prefix space");
}

/* TemplateProcessing: a token before the text is BOS, one behind it EOS. */
static tt_status read_template_processing(reader *r, const json_t *v) {
    const json_t *item, *single = json_object_get(v, "single");
    size_t i;
    bool text_seen = false;
    json_array_foreach(single, i, item) {
        const char *name = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        if (!name) { text_seen = true; continue; }
        int32_t *slot = text_seen ? &r->t->eos : &r->t->bos, id = tt__tokenizer_find(r->t, name, strlen(name));
        bool *adds = text_seen ? &r->t->adds_eos : &r->t->adds_bos;
        if (id < 0 || *adds) return unsupported(r, "post_processor", name, "at most one known token before the text and one behind it");
        *slot = id;
        *adds = true;
    }
    return TT_OK;
}
static tt_status read_post_processor(reader *r, const json_t *v) {
    if (has_type(v, "ByteLevel")) return TT_OK;
    if (has_type(v, "TemplateProcessing")) return read_template_processing(r, v);
    return unsupported(r, "post_processor", type_of(v), "ByteLevel or TemplateProcessing");
}

static tt_status read_part(reader *r, int part, const char *list, part_fn fn) {
    json_t *v;
    TT_TRY(parse_part(r, part, &v));
    tt_status st = each_of(r, v, list, fn);
    json_decref(v);
    return st;
}

static tt_status read_pipeline(reader *r) {
    json_t *pre;
    TT_TRY(read_part(r, NORMALIZER, "normalizers", read_normalizer));
    TT_TRY(read_part(r, DECODER, "decoders", read_decoder));
    TT_TRY(parse_part(r, PRE_TOKENIZER, &pre));
    tt_status st = pre ? read_pre_tokenizer(r, pre) : unsupported(r, "pre_tokenizer", "none", "ByteLevel");
    json_decref(pre);
    return st;
}

static tt_status read_model_kind(reader *r) {
    slice *m = r->model;
    char got[60];
    int n = (int)(m[TYPE].n < sizeof got - 1 ? m[TYPE].n : sizeof got - 1);
    snprintf(got, sizeof got, "%.*s", n, m[TYPE].n ? m[TYPE].s : "");
    if (!is_absent(m[TYPE]) && !is(m[TYPE], "\"BPE\"")) return unsupported(r, "model.type", got, "\"BPE\"");
    if (!is_absent(m[DROPOUT]) && !is(m[DROPOUT], "0.0") && !is(m[DROPOUT], "0")) return unsupported(r, "model.dropout", "a number", "null");
    for (int i = PREFIX; i <= SUFFIX; i++)
        if (!is_absent(m[i]) && !is(m[i], "\"\"")) return unsupported(r, model_parts[i], "a text", "none");
    if (is(m[FALLBACK], "true")) return unsupported(r, "model.byte_fallback", "true", "false");
    TT_FAIL_IF(!m[VOCAB].n || !m[MERGES].n, r->err, TT_BADFILE, "incomplete tokenizer|%s||model.vocab and model.merges", r->where);
    r->t->fuse_unk = is(m[FUSE], "true");
    r->t->ignore_merges = is(m[IGNORE], "true");
    return TT_OK;
}

/* ---- vocabulary ---- */
static tt_status no_memory(reader *r) { return tt__fail(r->err, TT_RESOURCE, "out of memory|for the vocabulary of %s", r->where); }

static tt_status add_entry(reader *r, const tt_jp_text *s, int64_t id) {
    TT_FAIL_IF(id < 0 || (uint64_t)id >= TT_LIMIT_VOCAB, r->err, TT_BADFILE, "bad token id|%s, model.vocab|%lld|0 … %llu (VOCAB)", r->where,
               (long long)id, (unsigned long long)TT_LIMIT_VOCAB - 1);
    if (r->n_entries == r->cap_entries) {
        size_t cap = r->cap_entries ? 2 * r->cap_entries : 1024;
        struct entry *v = tt__realloc(r->entries, tt__array_bytes(cap, sizeof *v));
        if (!v) return no_memory(r);
        r->entries = v;
        r->cap_entries = cap;
    }
    r->entries[r->n_entries++] = (struct entry){r->text.n, s->n, (int32_t)id};
    tt__str_add(&r->text, s->s, s->n);
    return r->text.failed ? no_memory(r) : TT_OK;
}

static tt_status read_vocab(reader *r) {
    tt_jp p = tt__jp_begin(r->model[VOCAB].s, r->model[VOCAB].n, "model.vocab", r->err);
    tt_jp_text token = {0};
    tt_status st = TT_OK;
    tt__jp_object(&p);
    while (st == TT_OK && !p.status && tt__jp_key(&p, &token)) {
        int64_t id;
        if (!tt__jp_i64(&p, &id)) break;
        st = token.n ? add_entry(r, &token, id) : tt__fail(r->err, TT_BADFILE, "empty token|%s, model.vocab, id %lld", r->where, (long long)id);
    }
    tt__free(token.s);
    return st ? st : p.status ? tt__err_at(r->err, p.status, "%s", r->where) : TT_OK;
}

/* {"id": 0, "content": "<|im_end|>", "special": true, "normalized": false, …} */
static tt_status added_at(reader *r, size_t i, const char **content, size_t *n, int64_t *id, unsigned *flags, bool *special) {
    const json_t *v = json_array_get(r->added, i), *c = json_object_get(v, "content"), *k = json_object_get(v, "id");
    TT_FAIL_IF(!json_is_string(c) || !json_is_integer(k), r->err, TT_BADFILE, "bad added token|%s, added_tokens[%zu]||an object with id and content", r->where, i);
    *content = json_string_value(c);
    *n = json_string_length(c);
    *id = json_integer_value(k);
    *special = flag_of(v, "special", false);
    *flags = TT_TOK_ADDED | (flag_of(v, "single_word", false) ? TT_TOK_SINGLE_WORD : 0) | (flag_of(v, "lstrip", false) ? TT_TOK_LSTRIP : 0) |
             (flag_of(v, "rstrip", false) ? TT_TOK_RSTRIP : 0) | (flag_of(v, "normalized", !*special) ? TT_TOK_NORMALIZED : 0);
    TT_FAIL_IF(*n == 0, r->err, TT_BADFILE, "empty added token|%s, added_tokens[%zu]", r->where, i);
    TT_FAIL_IF(*id < 0 || (uint64_t)*id >= TT_LIMIT_VOCAB, r->err, TT_BADFILE, "bad token id|%s, added_tokens[%zu]|%lld|0 … %llu (VOCAB)", r->where, i,
               (long long)*id, (unsigned long long)TT_LIMIT_VOCAB - 1);
    return TT_OK;
}

static tt_status count_ids(reader *r) {
    size_t n = json_array_size(r->added);
    int64_t top = -1;
    for (size_t i = 0; i < r->n_entries; i++)
        if (r->entries[i].id > top) top = r->entries[i].id;
    for (size_t i = 0; i < n; i++) {
        const char *s;
        size_t len;
        int64_t id;
        unsigned flags;
        bool special;
        TT_TRY(added_at(r, i, &s, &len, &id, &flags, &special));
        if (id > top) top = id;
    }
    r->n_ids = (size_t)(top + 1);
    TT_FAIL_IF(r->n_ids == 0, r->err, TT_BADFILE, "empty vocabulary|%s, model.vocab", r->where);
    TT_FAIL_IF(r->n_ids > 8 * (r->n_entries + n) + 1024, r->err, TT_BADFILE, "token ids leave too many holes|%s|%zu tokens, highest id %zu|nearly all ids in use",
               r->where, r->n_entries + n, r->n_ids - 1);
    return tt__new(&r->place, r->n_ids, sizeof *r->place, "the vocabulary", r->err);
}

/* The contents of added tokens stay valid with r->added. */
static tt_status place_tokens(reader *r) {
    for (size_t i = 0; i < r->n_entries; i++) {
        int32_t *p = &r->place[r->entries[i].id];
        TT_FAIL_IF(*p, r->err, TT_BADFILE, "doubled token id|%s, model.vocab|%d|each id once", r->where, r->entries[i].id);
        *p = (int32_t)i + 1;
    }
    for (size_t i = 0; i < json_array_size(r->added); i++) {
        const char *s;
        size_t n;
        int64_t id;
        unsigned flags;
        bool special;
        TT_TRY(added_at(r, i, &s, &n, &id, &flags, &special));
        int32_t *p = &r->place[id];
        if (*p == 0) { *p = -(int32_t)i - 1; continue; }
        const struct entry *e = *p > 0 ? &r->entries[*p - 1] : NULL;
        TT_FAIL_IF(!e || e->n != n || memcmp(r->text.s + e->at, s, n) != 0, r->err, TT_BADFILE,
                   "added token has the id of another token|%s, added_tokens[%zu]|%lld|a free id, or that of the same token", r->where, i, (long long)id);
    }
    return TT_OK;
}

static tt_status push_tokens(reader *r) {
    tt_tokenizer *t = r->t;
    for (size_t id = 0; id < r->n_ids; id++) {
        int32_t p = r->place[id];
        if (p > 0) {
            const struct entry *e = &r->entries[p - 1];
            TT_TRY(tt__tokenizer_push(t, r->text.s + e->at, e->n, TT_TOKEN_NORMAL, TT_TOK_IN_MODEL, r->where, r->err));
        } else if (p < 0) {
            const json_t *c = json_object_get(json_array_get(r->added, (size_t)(-(p + 1))), "content");
            TT_TRY(tt__tokenizer_push(t, json_string_value(c), json_string_length(c), TT_TOKEN_USER, 0, r->where, r->err));
        } else {
            TT_TRY(tt__tokenizer_push(t, "", 0, TT_TOKEN_UNUSED, 0, r->where, r->err));
        }
    }
    return tt__tokenizer_index(t, r->where, r->err);
}

/* With normalization, a token that is sought in normalized text must be normalized itself. */
static tt_status check_normal_form(reader *r, const char *s, size_t n) {
    tt__str form = {0};
    tt_status st = tt__nfc(s, n, &form, r->err);
    if (st == TT_OK && (form.n != n || memcmp(form.s, s, n) != 0)) st = unsupported(r, "added_tokens", "a normalized token that is not in NFC", "NFC");
    tt__str_free(&form);
    return st;
}

static tt_status mark_added(reader *r) {
    for (size_t i = 0; i < json_array_size(r->added); i++) {
        const char *s;
        size_t n;
        int64_t id;
        unsigned flags;
        bool special;
        TT_TRY(added_at(r, i, &s, &n, &id, &flags, &special));
        if (r->t->nfc && (flags & TT_TOK_NORMALIZED)) TT_TRY(check_normal_form(r, s, n));
        r->t->flags[id] |= (uint8_t)flags;
        r->t->type[id] = special ? TT_TOKEN_CONTROL : TT_TOKEN_USER;
    }
    return TT_OK;
}

static tt_status read_unk(reader *r) {
    slice v = r->model[UNK];
    if (is_absent(v)) return TT_OK;
    tt_jp p = tt__jp_begin(v.s, v.n, "model.unk_token", r->err);
    tt_jp_text name = {0};
    if (tt__jp_string(&p, &name)) {
        r->t->unk = tt__tokenizer_find(r->t, name.s, name.n);
        if (r->t->unk >= 0 && (r->t->flags[r->t->unk] & TT_TOK_ADDED)) r->t->type[r->t->unk] = TT_TOKEN_UNKNOWN;
        if (r->t->unk < 0) p.status = tt__fail(r->err, TT_BADFILE, "unknown token is no token|%s, model.unk_token|\"%.*s\"", r->where, (int)(name.n < 60 ? name.n : 60), name.s);
    }
    tt__free(name.s);
    return p.status;
}

/* ---- merges ---- */
/* Reads ["left", "right"], inside the list of merges. */
static bool read_pair(tt_jp *p, tt_jp_text *left, tt_jp_text *right) {
    if (!tt__jp_array(p) || !tt__jp_item(p) || !tt__jp_string(p, left) || !tt__jp_item(p) || !tt__jp_string(p, right)) return false;
    return !tt__jp_item(p) && !p->status;
}

static tt_status add_pair(reader *r, tt_jp *p, tt_jp_text *left, tt_jp_text *right) {
    if (tt__jp_peek(p) == '"') {
        if (!tt__jp_string(p, left)) return p->status;
        char *space = left->n > 1 ? memchr(left->s + 1, ' ', left->n - 1) : NULL;
        size_t n = space ? (size_t)(space - left->s) : left->n;
        return tt__tokenizer_add_merge(r->t, left->s, n, space ? space + 1 : left->s, space ? left->n - n - 1 : 0, r->where, r->err);
    }
    if (!read_pair(p, left, right)) return p->status ? p->status : tt__fail(r->err, TT_BADFILE, "bad merge|%s, byte %zu||two parts", r->where, p->at);
    return tt__tokenizer_add_merge(r->t, left->s, left->n, right->s, right->n, r->where, r->err);
}

static tt_status count_merges(reader *r, size_t *n) {
    tt_jp p = tt__jp_begin(r->model[MERGES].s, r->model[MERGES].n, "model.merges", r->err);
    *n = 0;
    tt__jp_array(&p);
    while (!p.status && tt__jp_item(&p) && tt__jp_skip(&p)) ++*n;
    return p.status;
}

static tt_status read_merges(reader *r) {
    size_t n;
    TT_TRY(count_merges(r, &n));
    TT_TRY(tt__tokenizer_reserve_merges(r->t, n, r->err));
    tt_jp p = tt__jp_begin(r->model[MERGES].s, r->model[MERGES].n, "model.merges", r->err);
    tt_jp_text left = {0}, right = {0};
    tt_status st = TT_OK;
    tt__jp_array(&p);
    while (st == TT_OK && !p.status && tt__jp_item(&p)) st = add_pair(r, &p, &left, &right);
    tt__free(left.s);
    tt__free(right.s);
    return st ? st : p.status;
}

/* ---- the file ---- */
static tt_status read_added(reader *r) {
    TT_TRY(parse_part(r, ADDED, &r->added));
    TT_FAIL_IF(r->added && !json_is_array(r->added), r->err, TT_BADFILE, "bad added tokens|%s, added_tokens||a list", r->where);
    return TT_OK;
}

static tt_status read_all(reader *r, slice text) {
    TT_TRY(slice_members(text, file_parts, FILE_PARTS, r->file, r->where, r->err));
    TT_FAIL_IF(!r->file[MODEL].n, r->err, TT_BADFILE, "incomplete tokenizer|%s||a model", r->where);
    TT_TRY(slice_members(r->file[MODEL], model_parts, MODEL_PARTS, r->model, r->where, r->err));
    TT_TRY(read_model_kind(r));
    TT_TRY(read_pipeline(r));
    TT_TRY(read_added(r));
    TT_TRY(read_vocab(r));
    TT_TRY(count_ids(r));
    TT_TRY(place_tokens(r));
    TT_TRY(push_tokens(r));
    TT_TRY(mark_added(r));
    TT_TRY(read_unk(r));
    TT_TRY(read_merges(r));
    return read_part(r, POST_PROCESSOR, "processors", read_post_processor);
}

static tt_status parse(const char *json, size_t n, const char *where, tt_tokenizer **out, tt_err *err) {
    reader r = {.where = where, .err = err};
    *out = NULL;
    TT_FAIL_IF(n > TT_LIMIT_TOKENIZER_JSON, err, TT_BADFILE, "file too large|%s|%zu bytes|at most %llu (TOKENIZER_JSON)", where, n,
               (unsigned long long)TT_LIMIT_TOKENIZER_JSON);
    TT_TRY(tt__tokenizer_new(&r.t, err));
    tt_status st = read_all(&r, (slice){json, n});
    tt__str_free(&r.text);
    tt__free(r.entries);
    tt__free(r.place);
    json_decref(r.added);
    if (st != TT_OK) { tt__tokenizer_free(r.t); return st; }
    *out = r.t;
    return TT_OK;
}

tt_status tt__tokenizer_from_json(const char *json, size_t n, const char *where, tt_tokenizer **out, tt_err *err) {
    TT_TRY(parse(json, n, where, out, err));
    tt_status st = tt__tokenizer_finish(*out, where, err);
    if (st != TT_OK) { tt__tokenizer_free(*out); *out = NULL; }
    return st;
}

/* ---- the folder ---- */
/* "bos_token": "<s>" or {"content": "<s>", …}; one that the vocabulary lacks is none. */
static void named_token(const tt_tokenizer *t, const json_t *config, const char *key, int32_t *out) {
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    int32_t id = json_is_string(v) ? tt__tokenizer_find(t, json_string_value(v), json_string_length(v)) : -1;
    if (id >= 0) *out = id;
}

/* A text, or [{"name": "default", "template": text}, …]. */
static const json_t *template_of(const json_t *config) {
    const json_t *v = json_object_get(config, "chat_template"), *item;
    size_t i;
    if (!json_is_array(v)) return v;
    json_array_foreach(v, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0) return json_object_get(item, "template");
    }
    return NULL;
}

static tt_status set_template(tt_tokenizer *t, const char *s, size_t n, const char *where, tt_err *err) {
    TT_FAIL_IF(n > TT_LIMIT_TEMPLATE_BYTES, err, TT_BADFILE, "chat template too long|%s|%zu bytes|at most %llu (TEMPLATE_BYTES)", where, n,
               (unsigned long long)TT_LIMIT_TEMPLATE_BYTES);
    tt__free(t->chat_template);
    t->chat_template = tt__strndup(s, n);
    return t->chat_template ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|for a chat template");
}

static tt_status apply_config(tt_tokenizer *t, const json_t *config, const char *where, tt_err *err) {
    if (!t->adds_bos) named_token(t, config, "bos_token", &t->bos);
    if (!t->adds_eos) named_token(t, config, "eos_token", &t->eos);
    named_token(t, config, "pad_token", &t->pad);
    if (t->bos >= 0 && flag_of(config, "add_bos_token", false)) t->adds_bos = true;
    if (t->eos >= 0 && flag_of(config, "add_eos_token", false)) t->adds_eos = true;
    const json_t *v = template_of(config);
    return json_is_string(v) ? set_template(t, json_string_value(v), json_string_length(v), where, err) : TT_OK;
}

/* Only what is wanted goes through the tree reader: such files hold numbers like 1e30 written out, which no 64-bit reader takes. */
static tt_status config_tree(slice text, const char *path, json_t **out, tt_err *err) {
    static const char *const keys[] = {"bos_token", "eos_token", "pad_token", "add_bos_token", "add_eos_token", "chat_template"};
    enum { KEYS = sizeof keys / sizeof keys[0] };
    slice v[KEYS];
    tt__str small = {0};
    TT_TRY(slice_members(text, keys, KEYS, v, path, err));
    for (int i = 0; i < KEYS; i++) {
        if (!v[i].n) continue;
        tt__str_printf(&small, "%c\"%s\": ", small.n ? ',' : '{', keys[i]);
        tt__str_add(&small, v[i].s, v[i].n);
    }
    tt__str_puts(&small, small.n ? "}" : "{}");
    tt_status st = small.failed ? tt__fail(err, TT_RESOURCE, "out of memory|%s", path) : tt__json_parse(small.s, small.n, path, out, err);
    tt__str_free(&small);
    return st;
}

static tt_status read_config(tt_tokenizer *t, const char *path, tt_err *err) {
    char *s;
    size_t n;
    json_t *config;
    if (!tt__exists(path)) return TT_OK;
    TT_TRY(tt__read_file(path, TT_LIMIT_JSON_BYTES, &s, &n, err));
    tt_status st = config_tree((slice){s, n}, path, &config, err);
    tt__free(s);
    TT_TRY(st);
    st = apply_config(t, config, path, err);
    json_decref(config);
    return st;
}

static tt_status read_jinja(tt_tokenizer *t, const char *path, tt_err *err) {
    char *s;
    size_t n;
    if (!tt__exists(path)) return TT_OK;
    TT_TRY(tt__read_file(path, TT_LIMIT_TEMPLATE_BYTES, &s, &n, err));
    tt_status st = set_template(t, s, n, path, err);
    tt__free(s);
    return st;
}

static tt_status read_json(const char *path, tt_tokenizer **out, tt_err *err) {
    char *s;
    size_t n;
    TT_TRY(tt__read_file(path, TT_LIMIT_TOKENIZER_JSON, &s, &n, err));
    tt_status st = parse(s, n, path, out, err);
    tt__free(s);
    return st;
}

tt_status tt__tokenizer_from_folder(const char *dir, tt_tokenizer **out, tt_err *err) {
    *out = NULL;
    tt_status st;
    char *json = tt__path_join(dir, "tokenizer.json"), *config = tt__path_join(dir, "tokenizer_config.json"), *jinja = tt__path_join(dir, "chat_template.jinja");
    if (!json || !config || !jinja) TT_TRY_GOTO(tt__fail(err, TT_RESOURCE, "out of memory|%s", dir));
    TT_TRY_GOTO(read_json(json, out, err));
    TT_TRY_GOTO(read_config(*out, config, err));
    TT_TRY_GOTO(read_jinja(*out, jinja, err));
    TT_TRY_GOTO(tt__tokenizer_finish(*out, dir, err));
done:
    tt__free(json);
    tt__free(config);
    tt__free(jinja);
    if (st != TT_OK) { tt__tokenizer_free(*out); *out = NULL; }
    return st;
}
