/* tokenizer.json that must be refused by name, limits, the files of a folder, and failing allocations. */
#include "base/limits.h"
#include "base/util.h"
#include "harness/tt_test.h"
#include "text/json_pull.h"
#include "text/tokenizer_int.h"
#include <stdio.h>

/* A byte-level vocabulary with "ab"; `more` goes into the object behind the model, `model` into the model, `merges` into its list. */
typedef struct parts { const char *model, *vocab, *merges, *more, *pre; } parts;
static const char *const byte_level = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}";

static char *make_json(const parts *p, size_t *n) {
    tt__str s = {0};
    tt__str_printf(&s, "{\"pre_tokenizer\":%s,\"model\":{\"type\":\"BPE\"%s,\"vocab\":{", p->pre ? p->pre : byte_level, p->model ? p->model : "");
    for (int b = 0; b < 256; b++) {
        char c[8] = {0};
        tt__utf8_encode(tt__byte_to_cp[b], c);
        tt__str_printf(&s, "\"%s%s\":%d,", *c == '"' || *c == '\\' ? "\\" : "", c, b);
    }
    tt__str_printf(&s, "\"ab\":256%s},\"merges\":[%s]}%s}", p->vocab ? p->vocab : "", p->merges ? p->merges : "\"a b\"", p->more ? p->more : "");
    *n = s.n;
    return s.s;
}
static tt_status load(const parts *p, tt_tokenizer **t, tt_err *err) {
    size_t n;
    char *s = make_json(p, &n);
    tt_status st = tt__tokenizer_from_json(s, n, "t.json", t, err);
    tt__free(s);
    return st;
}
static void check_refused(parts p, const char *word) {
    tt_err err = {0};
    tt_tokenizer *t;
    char line[1200];
    tt_test_note("%s", word);
    TT_CHECK_FAILS(TT_BADFILE, load(&p, &t, &err));
    TT_CHECK(t == NULL);
    if (!strstr(tt_err_line(&err, line, sizeof line), word)) tt_test_fail(__FILE__, __LINE__, "%s in %s", word, line);
}
static tt_tokenizer *accepted(parts p) {
    tt_err err = {0};
    tt_tokenizer *t;
    TT_CHECK_OK(load(&p, &t, &err));
    return t;
}
#define WITH(...) ((parts){__VA_ARGS__})

TT_CASE(the_plain_one_loads) {
    tt_tokenizer *t = accepted(WITH(.model = ""));
    int32_t *ids;
    size_t n;
    tt_err err = {0};
    TT_CHECK_EQ(tt__tokenizer_size(t), 257);
    TT_CHECK_OK(tt__tokenizer_encode(t, "abba", 4, 0, &ids, &n, &err));
    TT_CHECK_EQ(n, 3u);
    TT_CHECK_EQ(ids[0], 256);
    tt__free(ids);
    tt__tokenizer_free(t);
}

TT_CASE(what_is_not_byte_level_bpe_is_named) {
    check_refused(WITH(.model = ",\"type\":\"Unigram\""), "doubled key");
    check_refused(WITH(.model = ",\"dropout\":0.1"), "dropout");
    check_refused(WITH(.model = ",\"byte_fallback\":true"), "byte_fallback");
    check_refused(WITH(.model = ",\"continuing_subword_prefix\":\"##\""), "continuing_subword_prefix");
    check_refused(WITH(.model = ",\"end_of_word_suffix\":\"</w>\""), "end_of_word_suffix");
    check_refused(WITH(.more = ",\"normalizer\":{\"type\":\"Lowercase\"}"), "Lowercase");
    check_refused(WITH(.more = ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Replace\"}]}"), "Replace");
    check_refused(WITH(.more = ",\"decoder\":{\"type\":\"Metaspace\"}"), "Metaspace");
    check_refused(WITH(.more = ",\"post_processor\":{\"type\":\"BertProcessing\"}"), "BertProcessing");
    check_refused(WITH(.pre = "{\"type\":\"Metaspace\"}"), "Metaspace");
    check_refused(WITH(.pre = "null"), "pre_tokenizer");
    check_refused(WITH(.pre = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}"), "prefix space");
    check_refused(WITH(.pre = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+b\"},\"behavior\":\"Isolated\"},"
                              "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"), "(a+)+b");
    const char *wordpiece = "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}";
    tt_err err = {0};
    tt_tokenizer *t;
    TT_CHECK_FAILS(TT_BADFILE, tt__tokenizer_from_json(wordpiece, strlen(wordpiece), "t.json", &t, &err));
    TT_CHECK(strstr(err.got, "WordPiece"));
}

TT_CASE(merges_are_checked) {
    check_refused(WITH(.merges = "\"a zz\""), "bad merge");
    check_refused(WITH(.merges = "\"b a\""), "bad merge");
    check_refused(WITH(.merges = "\"ab\""), "bad merge");
    check_refused(WITH(.merges = "[\"a\"]"), "bad merge");
    check_refused(WITH(.merges = "[\"a\",\"b\",\"c\"]"), "bad merge");
    check_refused(WITH(.merges = "17"), "bad JSON");
    check_refused(WITH(.more = ",\"added_tokens\":[{\"id\":256,\"content\":\"ab\",\"special\":true}]"), "bad merge");
    tt__tokenizer_free(accepted(WITH(.merges = "[\"a\",\"b\"],\"a b\"")));
}

TT_CASE(ids_and_added_tokens_are_checked) {
    check_refused(WITH(.vocab = ",\"x\\u00e9\":256"), "doubled token id");
    check_refused(WITH(.vocab = ",\"zz\":-1"), "bad token id");
    check_refused(WITH(.vocab = ",\"zz\":99999999999999999999"), "integer");
    check_refused(WITH(.vocab = ",\"zz\":2097152"), "VOCAB");
    check_refused(WITH(.vocab = ",\"zz\":2000000"), "holes");
    check_refused(WITH(.vocab = ",\"\":257"), "empty token");
    check_refused(WITH(.vocab = ",\"ab\":257"), "doubled token");
    check_refused(WITH(.more = ",\"added_tokens\":[{\"id\":257,\"content\":\"\"}]"), "empty added token");
    check_refused(WITH(.more = ",\"added_tokens\":[{\"id\":97,\"content\":\"x\"}]"), "id of another token");
    check_refused(WITH(.more = ",\"added_tokens\":[{\"id\":257,\"content\":\"x<\"},{\"id\":257,\"content\":\"y<\"}]"), "id of another token");
    check_refused(WITH(.more = ",\"added_tokens\":[{\"content\":\"x\"}]"), "bad added token");
    check_refused(WITH(.more = ",\"added_tokens\":{}"), "a list");
    check_refused(WITH(.more = ",\"normalizer\":{\"type\":\"NFC\"},\"added_tokens\":[{\"id\":257,\"content\":\"e\\u0301<\",\"normalized\":true}]"), "NFC");
    tt__tokenizer_free(accepted(WITH(.vocab = ",\"zz\":300", .more = ",\"added_tokens\":[{\"id\":400,\"content\":\"<x>\",\"special\":true}]")));
}

TT_CASE(vocabularies_without_bytes) {
    const char *none = "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";
    const char *unk = "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"unk_token\":\"<u>\",\"fuse_unk\":true,\"vocab\":{\"a\":0,\"<u>\":1},\"merges\":[]}}";
    tt_err err = {0};
    tt_tokenizer *t;
    int32_t *ids;
    size_t n;
    TT_CHECK_FAILS(TT_BADFILE, tt__tokenizer_from_json(none, strlen(none), "t.json", &t, &err));
    TT_CHECK(strstr(err.got, "no token for byte 0x"));
    TT_CHECK_OK(tt__tokenizer_from_json(unk, strlen(unk), "t.json", &t, &err));
    TT_CHECK_OK(tt__tokenizer_encode(t, "axyza", 5, 0, &ids, &n, &err));
    TT_CHECK_EQ(n, 3u);
    TT_CHECK_EQ(ids[1], 1);
    tt__free(ids);
    tt__tokenizer_free(t);
}

TT_CASE(limits) {
    tt__str s = {0};
    char *name = tt__alloc(TT_LIMIT_TOKEN_BYTES + 2);
    memset(name, 'x', TT_LIMIT_TOKEN_BYTES + 2);
    const struct { size_t n; const char *word; bool added; } cases[] = {
        {TT_LIMIT_ADDED_TOKEN, NULL, true}, {TT_LIMIT_ADDED_TOKEN + 1, "ADDED_TOKEN", true}, {TT_LIMIT_TOKEN_BYTES, NULL, false}, {TT_LIMIT_TOKEN_BYTES + 1, "TOKEN_BYTES", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        s.n = 0;
        if (cases[i].added) tt__str_printf(&s, ",\"added_tokens\":[{\"id\":257,\"content\":\"%.*s\"}]", (int)cases[i].n, name);
        else tt__str_printf(&s, ",\"%.*s\":257", (int)cases[i].n, name);
        parts p = cases[i].added ? WITH(.more = s.s) : WITH(.vocab = s.s);
        if (cases[i].word) check_refused(p, cases[i].word);
        else tt__tokenizer_free(accepted(p));
    }
    tt__str_free(&s);
    tt__free(name);
}

TT_CASE(deep_json_in_ignored_fields) {
    tt__str s = {0};
    for (int depth = 60; depth < 70; depth += 9) {
        s.n = 0;
        tt__str_puts(&s, ",\"x\":");
        for (int i = 0; i < depth; i++) tt__str_puts(&s, i % 2 ? "{\"a\":" : "[");
        tt__str_puts(&s, "1");
        for (int i = depth; i-- > 0;) tt__str_puts(&s, i % 2 ? "}" : "]");
        if (depth < 63) tt__tokenizer_free(accepted(WITH(.more = s.s)));
        else check_refused(WITH(.more = s.s), "JSON_DEPTH");
    }
    s.n = 0;
    tt__str_puts(&s, ",\"x\":");
    for (int i = 0; i < 100000; i++) tt__str_puts(&s, "[");
    check_refused(WITH(.more = s.s), "JSON_DEPTH");
    tt__str_free(&s);
}

TT_CASE(broken_json) {
    const char *bad[] = {"", "{", "[]", "{\"model\":}", "{\"model\":{\"vocab\":{\"a\":0}", "{\"a\":1,}", "{\"a\" 1}", "{'a':1}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\\ud800\\u0041\"}", "{\"a\":\"\\x\"}",
                         "{\"a\":\"\x01\"}", "{\"a\":\"\xFF\"}", "{\"a\":01}", "{\"a\":1.}", "{\"a\":-}", "{\"a\":1e}", "{\"a\":nul}", "{\"a\":[1,]}", "{\"a\":[}", "{\"a\":{]}", "{}x", "null", "1",
                         "{\"model\":null}", "{\"model\":3}", "{\"model\":{\"vocab\":3,\"merges\":3}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        tt_err err = {0};
        tt_tokenizer *t;
        tt_test_note("%s", bad[i]);
        TT_CHECK_FAILS(TT_BADFILE, tt__tokenizer_from_json(bad[i], strlen(bad[i]), "t.json", &t, &err));
    }
    size_t n;
    char *whole = make_json(&WITH(.more = ",\"added_tokens\":[{\"id\":257,\"content\":\"<|x|>\",\"special\":true}]"), &n);
    for (size_t cut = 0; cut < n; cut += cut < 200 || cut + 200 > n ? 1 : 37) {
        tt_err err = {0};
        tt_tokenizer *t;
        TT_CHECK_FAILS(TT_BADFILE, tt__tokenizer_from_json(whole, cut, "t.json", &t, &err));
    }
    tt__free(whole);
}

TT_CASE(strings_of_the_pull_reader) {
    const char *s = "{\"a\\u00e9\\ud83d\\ude00\\n\" : [ \"\\u0000x\" , -12, {} , [] ] }";
    tt_err err = {0};
    tt_jp r = tt__jp_begin(s, strlen(s), "x", &err);
    tt_jp_text t = {0};
    int64_t i;
    TT_CHECK(tt__jp_object(&r) && tt__jp_key(&r, &t));
    TT_CHECK(t.n == 8 && memcmp(t.s, "a\xC3\xA9\xF0\x9F\x98\x80\n", 8) == 0);
    TT_CHECK(tt__jp_array(&r) && tt__jp_item(&r) && tt__jp_string(&r, &t) && t.n == 2 && t.s[0] == 0);
    TT_CHECK(tt__jp_item(&r) && tt__jp_i64(&r, &i) && i == -12);
    TT_CHECK(tt__jp_item(&r) && tt__jp_skip(&r) && tt__jp_item(&r) && tt__jp_skip(&r) && !tt__jp_item(&r) && !tt__jp_key(&r, &t) && tt__jp_end(&r));
    tt__free(t.s);
}

TT_CASE(the_config_beside_it) {
    size_t n;
    char *s = make_json(&WITH(.more = ",\"added_tokens\":[{\"id\":257,\"content\":\"<s>\",\"special\":true},{\"id\":258,\"content\":\"</s>\",\"special\":true}]"), &n);
    const char *config = "{\"model_max_length\": 1000000000000000019884624838656, \"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\", \"add_bos_token\": true,"
                         " \"chat_template\": [{\"name\": \"tool_use\", \"template\": \"x\"}, {\"name\": \"default\", \"template\": \"{{ 1 }}\"}]}";
    tt_test_file("tokenizer.json", s, n);
    tt_test_file("tokenizer_config.json", config, strlen(config));
    tt__free(s);
    tt_tokenizer *t;
    tt_err err = {0};
    TT_CHECK_OK(tt__tokenizer_from_folder(tt_test_tmpdir(), &t, &err));
    TT_CHECK_EQ(tt__tokenizer_bos(t), 257);
    TT_CHECK_EQ(tt__tokenizer_eos(t), 258);
    TT_CHECK(tt__tokenizer_adds_bos(t));
    TT_CHECK(tt__tokenizer_is_end(t, 258));
    TT_CHECK_STR(tt__tokenizer_template(t), "{{ 1 }}");
    tt__tokenizer_free(t);
    tt_test_file("chat_template.jinja", "{{ 2 }}", 7);
    TT_CHECK_OK(tt__tokenizer_from_folder(tt_test_tmpdir(), &t, &err));
    TT_CHECK_STR(tt__tokenizer_template(t), "{{ 2 }}");
    tt__tokenizer_free(t);
    tt_test_file("tokenizer_config.json", "{\"bos_token\": ", 14);
    TT_CHECK_FAILS(TT_BADFILE, tt__tokenizer_from_folder(tt_test_tmpdir(), &t, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__tokenizer_from_folder(tt_test_path("missing"), &t, &err));
}

static tt_status load_for_faults(void *arg, tt_err *err) {
    tt_tokenizer *t;
    int32_t *ids = NULL;
    size_t n;
    (void)arg;
    tt_status st = load(&WITH(.more = ",\"normalizer\":{\"type\":\"NFC\"},\"added_tokens\":[{\"id\":257,\"content\":\"<s>\",\"special\":true}]"), &t, err);
    if (st == TT_OK) st = tt__tokenizer_encode(t, "abe\xCC\x81 ab<s>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabaab", 45, TT_PARSE_SPECIAL, &ids, &n, err);
    if (st == TT_OK) tt__free(ids);
    tt__tokenizer_free(t);
    return st;
}
TT_CASE(every_allocation_may_fail) { TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, load_for_faults, NULL) > 10); }
