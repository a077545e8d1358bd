/* A tokenizer into GGUF metadata, and into the two files of a Hugging Face folder. What is written reads back as a tokenizer that encodes
 * equally; where GGUF has no key for a property, a key of our own is added only when the property differs from what GGUF implies. */
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

static const char *token_text(const tt_tokenizer *t, size_t id) { return t->text + t->at[id]; }
static size_t token_size(const tt_tokenizer *t, size_t id) { return t->at[id + 1] - t->at[id]; }

/* Merges by rank; NULL where a doubled merge took another rank. */
static tt_status merges_in_order(const tt_tokenizer *t, const tt_pair_slot ***out, tt_err *err) {
    TT_TRY(tt__new(out, t->n_merges, sizeof **out, "the merges", err));
    for (size_t i = 0; i <= t->pair_mask; i++)
        if (t->pairs[i].rank1) (*out)[t->pairs[i].rank1 - 1] = &t->pairs[i];
    return TT_OK;
}

/* ---- GGUF ---- */
#define K(name) "tokenizer.ggml." name

/* String lists whose items lie in one block. */
typedef struct list { tt__str text; size_t *at, n; const char **s; size_t *len; } list;

static tt_status list_new(list *l, size_t n, tt_err *err) {
    *l = (list){0};
    TT_TRY(tt__new(&l->at, n + 1, sizeof *l->at, "metadata", err));
    TT_TRY(tt__new(&l->s, n, sizeof *l->s, "metadata", err));
    return tt__new(&l->len, n, sizeof *l->len, "metadata", err);
}
static void list_end_item(list *l) { l->at[++l->n] = l->text.n; }
static void list_free(list *l) {
    tt__str_free(&l->text);
    tt__free(l->at);
    tt__free(l->s);
    tt__free(l->len);
}
static tt_status list_write(list *l, tt_gguf_writer *w, const char *key, tt_err *err) {
    if (l->text.failed) return tt__fail(err, TT_RESOURCE, "out of memory|for metadata");
    for (size_t i = 0; i < l->n; i++) {
        l->s[i] = l->text.s + l->at[i];
        l->len[i] = l->at[i + 1] - l->at[i];
    }
    return tt__gguf_set_strs(w, key, l->s, l->len, l->n, err);
}

static tt_status write_tokens(const tt_tokenizer *t, tt_gguf_writer *w, tt_err *err) {
    list l = {0};
    tt_status st = list_new(&l, t->n, err);
    for (size_t id = 0; id < t->n && st == TT_OK; id++) {
        if (token_size(t, id)) tt__str_add(&l.text, token_text(t, id), token_size(t, id));
        else tt__str_printf(&l.text, "[PAD%zu]", id);
        list_end_item(&l);
    }
    if (st == TT_OK) st = list_write(&l, w, K("tokens"), err);
    list_free(&l);
    return st;
}

static tt_status write_types(const tt_tokenizer *t, tt_gguf_writer *w, tt_err *err) {
    int32_t *types;
    TT_TRY(tt__new(&types, t->n, sizeof *types, "token types", err));
    for (size_t id = 0; id < t->n; id++) types[id] = t->type[id];
    tt_status st = tt__gguf_set_i32s(w, K("token_type"), types, t->n, err);
    tt__free(types);
    return st;
}

static tt_status write_merges(const tt_tokenizer *t, tt_gguf_writer *w, tt_err *err) {
    const tt_pair_slot **m = NULL;
    list l = {0};
    tt_status st = merges_in_order(t, &m, err);
    if (st == TT_OK) st = list_new(&l, t->n_merges, err);
    for (size_t i = 0; i < t->n_merges && st == TT_OK; i++) {
        if (!m[i]) continue;
        const char *a = token_text(t, m[i]->left), *b = token_text(t, m[i]->right);
        size_t na = token_size(t, m[i]->left), nb = token_size(t, m[i]->right);
        if (memchr(a + 1, ' ', na - 1)) st = tt__fail(err, TT_FAIL, "merge cannot be written as GGUF|merge %zu|a part with a space", i);
        tt__str_add(&l.text, a, na);
        tt__str_add(&l.text, " ", 1);
        tt__str_add(&l.text, b, nb);
        list_end_item(&l);
    }
    if (st == TT_OK) st = list_write(&l, w, K("merges"), err);
    list_free(&l);
    tt__free(m);
    return st;
}

static unsigned own_flags(const tt_tokenizer *t, size_t id) {
    unsigned f = t->flags[id];
    if (!(f & TT_TOK_ADDED)) return 0;
    bool outside = t->ignore_merges && t->type[id] == TT_TOKEN_USER && !(f & TT_TOK_IN_MODEL);
    return (f & (TT_TOK_SINGLE_WORD | TT_TOK_LSTRIP | TT_TOK_RSTRIP | TT_TOK_NORMALIZED)) | (outside ? TT_TOK_ADDED : 0);
}

static tt_status write_added_flags(const tt_tokenizer *t, tt_gguf_writer *w, tt_err *err) {
    size_t n = 0, k = 0;
    int32_t *v;
    for (size_t id = 0; id < t->n; id++) n += own_flags(t, id) != 0;
    if (n == 0) return TT_OK;
    TT_TRY(tt__new(&v, 2 * n, sizeof *v, "added tokens", err));
    for (size_t id = 0; id < t->n; id++)
        if (own_flags(t, id)) { v[k++] = (int32_t)id; v[k++] = (int32_t)own_flags(t, id); }
    tt_status st = tt__gguf_set_i32s(w, "trimtab.tokenizer.added_flags", v, k, err);
    tt__free(v);
    return st;
}

static tt_status write_own(const tt_tokenizer *t, tt_gguf_writer *w, tt_err *err) {
    if (t->nfc != (t->pre == TT_PRE_QWEN2)) TT_TRY(tt__gguf_set_bool(w, "trimtab.tokenizer.nfc", t->nfc, err));
    if (t->ignore_merges != (t->pre == TT_PRE_LLAMA3)) TT_TRY(tt__gguf_set_bool(w, "trimtab.tokenizer.ignore_merges", t->ignore_merges, err));
    if (t->unk >= 0) TT_TRY(tt__gguf_set_u32(w, "trimtab.tokenizer.unk_token_id", (uint32_t)t->unk, err));
    if (t->unk >= 0 && t->fuse_unk) TT_TRY(tt__gguf_set_bool(w, "trimtab.tokenizer.fuse_unk", true, err));
    return write_added_flags(t, w, err);
}

tt_status tt__tokenizer_to_gguf(const tt_tokenizer *t, tt_gguf_writer *w, tt_err *err) {
    TT_TRY(tt__gguf_set_str(w, K("model"), "gpt2", err));
    TT_TRY(tt__gguf_set_str(w, K("pre"), tt__pretok_name(t->pre), err));
    TT_TRY(write_tokens(t, w, err));
    TT_TRY(write_types(t, w, err));
    TT_TRY(write_merges(t, w, err));
    if (t->bos >= 0) TT_TRY(tt__gguf_set_u32(w, K("bos_token_id"), (uint32_t)t->bos, err));
    if (t->eos >= 0) TT_TRY(tt__gguf_set_u32(w, K("eos_token_id"), (uint32_t)t->eos, err));
    if (t->pad >= 0) TT_TRY(tt__gguf_set_u32(w, K("padding_token_id"), (uint32_t)t->pad, err));
    TT_TRY(tt__gguf_set_bool(w, K("add_bos_token"), t->adds_bos, err));
    if (t->adds_eos) TT_TRY(tt__gguf_set_bool(w, K("add_eos_token"), true, err));
    if (t->chat_template) TT_TRY(tt__gguf_set_str(w, "tokenizer.chat_template", t->chat_template, err));
    return write_own(t, w, err);
}

/* ---- Hugging Face ---- */
static void put_json(tt__str *o, const char *s, size_t n) {
    tt__str_add(o, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t from = i;
        while (i < n && (uint8_t)s[i] >= 0x20 && s[i] != '"' && s[i] != '\\') i++;
        if (i > from) tt__str_add(o, s + from, i - from);
        if (i == n) break;
        if (s[i] == '"' || s[i] == '\\') tt__str_printf(o, "\\%c", s[i]);
        else tt__str_printf(o, "\\u%04x", (unsigned)(uint8_t)s[i]);
        i++;
    }
    tt__str_add(o, "\"", 1);
}
static void put_token(tt__str *o, const tt_tokenizer *t, size_t id) { put_json(o, token_text(t, id), token_size(t, id)); }
static const char *truth(unsigned v) { return v ? "true" : "false"; }

static void put_added(tt__str *o, const tt_tokenizer *t) {
    const char *comma = "";
    tt__str_puts(o, "  \"added_tokens\": [");
    for (size_t id = 0; id < t->n; id++) {
        unsigned f = t->flags[id];
        if (!(f & TT_TOK_ADDED)) continue;
        tt__str_printf(o, "%s\n    {\"id\": %zu, \"content\": ", comma, id);
        put_token(o, t, id);
        tt__str_printf(o, ", \"single_word\": %s, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": %s, \"special\": %s}", truth(f & TT_TOK_SINGLE_WORD),
                       truth(f & TT_TOK_LSTRIP), truth(f & TT_TOK_RSTRIP), truth(f & TT_TOK_NORMALIZED), truth(t->type[id] != TT_TOKEN_USER));
        comma = ",";
    }
    tt__str_puts(o, "\n  ],\n");
}

#define BYTE_LEVEL(regex) "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": " regex "}"

static void put_pre_tokenizer(tt__str *o, const tt_tokenizer *t) {
    if (t->pre == TT_PRE_GPT2) { tt__str_puts(o, "  \"pre_tokenizer\": " BYTE_LEVEL("true") ",\n"); return; }
    tt__str_puts(o, "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n    ");
    if (t->pre == TT_PRE_SMOLLM) {
        tt__str_puts(o, "{\"type\": \"Digits\", \"individual_digits\": true},\n    " BYTE_LEVEL("true") "]},\n");
        return;
    }
    const char *regex = tt__pretok_regex(t->pre);
    tt__str_puts(o, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    put_json(o, regex, strlen(regex));
    tt__str_puts(o, "}, \"behavior\": \"Isolated\", \"invert\": false},\n    " BYTE_LEVEL("false") "]},\n");
}

static void put_special_item(tt__str *o, const tt_tokenizer *t, int32_t id) {
    tt__str_puts(o, "{\"SpecialToken\": {\"id\": ");
    put_token(o, t, (size_t)id);
    tt__str_puts(o, ", \"type_id\": 0}}");
}
static void put_template_row(tt__str *o, const tt_tokenizer *t, const char *name, int texts) {
    tt__str_printf(o, "\n    \"%s\": [", name);
    for (int k = 0; k < texts; k++) {
        if (k) tt__str_puts(o, ", ");
        if (t->adds_bos) { put_special_item(o, t, t->bos); tt__str_puts(o, ", "); }
        tt__str_printf(o, "{\"Sequence\": {\"id\": \"%c\", \"type_id\": %d}}", 'A' + k, k);
        if (t->adds_eos) { tt__str_puts(o, ", "); put_special_item(o, t, t->eos); }
    }
    tt__str_puts(o, "],");
}
static void put_special_entry(tt__str *o, const tt_tokenizer *t, int32_t id) {
    put_token(o, t, (size_t)id);
    tt__str_puts(o, ": {\"id\": ");
    put_token(o, t, (size_t)id);
    tt__str_printf(o, ", \"ids\": [%d], \"tokens\": [", id);
    put_token(o, t, (size_t)id);
    tt__str_puts(o, "]}");
}
static void put_post_processor(tt__str *o, const tt_tokenizer *t) {
    bool bos = t->adds_bos && t->bos >= 0, eos = t->adds_eos && t->eos >= 0;
    if (!bos && !eos) { tt__str_puts(o, "  \"post_processor\": " BYTE_LEVEL("true") ",\n"); return; }
    tt__str_puts(o, "  \"post_processor\": {\"type\": \"TemplateProcessing\",");
    put_template_row(o, t, "single", 1);
    put_template_row(o, t, "pair", 2);
    tt__str_puts(o, "\n    \"special_tokens\": {");
    if (bos) put_special_entry(o, t, t->bos);
    if (bos && eos && t->bos != t->eos) tt__str_puts(o, ", ");
    if (eos && !(bos && t->bos == t->eos)) put_special_entry(o, t, t->eos);
    tt__str_puts(o, "}},\n");
}

static tt_status put_model(tt__str *o, const tt_tokenizer *t, tt_err *err) {
    const tt_pair_slot **m;
    const char *comma = "";
    TT_TRY(merges_in_order(t, &m, err));
    tt__str_puts(o, "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": ");
    if (t->unk >= 0) put_token(o, t, (size_t)t->unk); else tt__str_puts(o, "null");
    tt__str_printf(o, ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": %s, \"byte_fallback\": false, \"ignore_merges\": %s,\n    \"vocab\": {",
                   truth(t->fuse_unk), truth(t->ignore_merges));
    for (size_t id = 0; id < t->n; id++) {
        if (!token_size(t, id)) continue;
        tt__str_printf(o, "%s\n      ", comma);
        put_token(o, t, id);
        tt__str_printf(o, ": %zu", id);
        comma = ",";
    }
    tt__str_puts(o, "},\n    \"merges\": [");
    comma = "";
    for (size_t i = 0; i < t->n_merges; i++) {
        if (!m[i]) continue;
        tt__str_printf(o, "%s\n      [", comma);
        put_token(o, t, m[i]->left);
        tt__str_puts(o, ", ");
        put_token(o, t, m[i]->right);
        tt__str_puts(o, "]");
        comma = ",";
    }
    tt__str_puts(o, "]}\n}\n");
    tt__free(m);
    return TT_OK;
}

static tt_status put_tokenizer(tt__str *o, const tt_tokenizer *t, tt_err *err) {
    tt__str_puts(o, "{\n  \"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n");
    put_added(o, t);
    tt__str_printf(o, "  \"normalizer\": %s,\n", t->nfc ? "{\"type\": \"NFC\"}" : "null");
    put_pre_tokenizer(o, t);
    put_post_processor(o, t);
    tt__str_puts(o, "  \"decoder\": " BYTE_LEVEL("true") ",\n");
    return put_model(o, t, err);
}

static void put_named(tt__str *o, const tt_tokenizer *t, const char *key, int32_t id) {
    if (id < 0) return;
    tt__str_printf(o, "  \"%s\": ", key);
    put_token(o, t, (size_t)id);
    tt__str_puts(o, ",\n");
}

static void put_config(tt__str *o, const tt_tokenizer *t) {
    tt__str_puts(o, "{\n");
    put_named(o, t, "bos_token", t->bos);
    put_named(o, t, "eos_token", t->eos);
    put_named(o, t, "pad_token", t->pad);
    put_named(o, t, "unk_token", t->unk);
    if (t->chat_template) {
        tt__str_puts(o, "  \"chat_template\": ");
        put_json(o, t->chat_template, strlen(t->chat_template));
        tt__str_puts(o, ",\n");
    }
    tt__str_printf(o, "  \"add_bos_token\": %s,\n  \"add_eos_token\": %s,\n  \"add_prefix_space\": false,\n  \"clean_up_tokenization_spaces\": false,\n"
                   "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n", truth(t->adds_bos), truth(t->adds_eos));
}

static tt_status save(const char *dir, const char *name, const tt__str *text, tt_err *err) {
    char *path = text->failed ? NULL : tt__path_join(dir, name);
    if (!path) return tt__fail(err, TT_RESOURCE, "out of memory|for %s/%s", dir, name);
    tt_status st = tt__write_file(path, text->s, text->n, err);
    tt__free(path);
    return st;
}

tt_status tt__tokenizer_to_folder(const tt_tokenizer *t, const char *dir, tt_err *err) {
    tt__str json = {0}, config = {0};
    TT_FAIL_IF(tt__utf8_span((const uint8_t *)t->text, t->text_n) != t->text_n, err, TT_FAIL, "tokens cannot be written as JSON|%s|bytes that are not UTF-8", dir);
    tt_status st = put_tokenizer(&json, t, err);
    put_config(&config, t);
    if (st == TT_OK) st = tt__mkdirs(dir, err);
    if (st == TT_OK) st = save(dir, "tokenizer.json", &json, err);
    if (st == TT_OK) st = save(dir, "tokenizer_config.json", &config, err);
    tt__str_free(&json);
    tt__str_free(&config);
    return st;
}
