/* Documents, tokens and windows. */
#include "base/util.h"
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include "text/dataset.h"
#include "text/template.h"
#include <sys/stat.h>

static tt_docs load(const char *name, const char *text, const char *split) {
    tt_docs d;
    tt_err err = {0};
    TT_CHECK_OK(tt__docs_load(tt_test_file(name, text, strlen(text)), split, &d, &err));
    return d;
}

TT_CASE(a_text_is_one_document) {
    tt_docs d = load("a.txt", "one\n\ntwo\n", NULL);
    TT_CHECK_EQ(d.n, 1u);
    TT_CHECK_STR(d.text[0], "one\n\ntwo\n");
    char sha[65];
    tt__sha256_hex("one\n\ntwo\n", 9, sha);
    TT_CHECK_STR(d.sha256, sha);
    tt__docs_free(&d);
}

TT_CASE(a_matching_line_begins_a_document) {
    tt_docs d = load("a.txt", "preface\n = A = \r\nx\n\n = B = \ny = z = \n = C =", "^ = [A-Z] = ?$");
    TT_CHECK_EQ(d.n, 4u);
    TT_CHECK_STR(d.text[0], "preface\n");
    TT_CHECK_STR(d.text[1], " = A = \r\nx\n\n");
    TT_CHECK_STR(d.text[2], " = B = \ny = z = \n");
    TT_CHECK_STR(d.text[3], " = C =");
    tt__docs_free(&d);
    tt_err err = {0};
    TT_CHECK_FAILS(TT_USAGE, tt__docs_load(tt_test_path("a.txt"), "(", &d, &err));
}

TT_CASE(json_documents) {
    tt_docs d = load("a.jsonl", "{\"text\": \"a\\nb\", \"id\": 1}\n\n{\"text\": \"\"}\n{\"text\": \"c\"}", NULL);
    TT_CHECK_EQ(d.n, 2u);
    TT_CHECK_STR(d.text[0], "a\nb");
    tt__docs_free(&d);
    d = load("a.json", "[{\"text\": \"x\"}, {\"text\": \"y\"}]", NULL);
    TT_CHECK_EQ(d.n, 2u);
    tt__docs_free(&d);
    tt_err err = {0};
    const char *bad[] = {"{\"text\": 3}", "{\"txt\": \"x\"}", "[1]", "{", "\"x\""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *path = tt_test_file("b.jsonl", bad[i], strlen(bad[i]));
        TT_CHECK_FAILS(TT_BADFILE, tt__docs_load(path, NULL, &d, &err));
        TT_CHECK(strstr(err.where, "line 1"));
    }
    TT_CHECK_FAILS(TT_BADFILE, tt__docs_load(tt_test_file("b.json", "{}", 2), NULL, &d, &err));
}

TT_CASE(documents_of_messages) {
    tt_docs d = load("m.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n{\"text\": \"c\"}", NULL), a, b;
    tt_err err = {0};
    TT_CHECK_EQ(d.n, 2u);
    TT_CHECK(d.chat[0] && !d.chat[1]);
    TT_CHECK_OK(tt__docs_split(&d, 0.5, 1, &a, &b, &err));
    TT_CHECK(a.n == 1 && b.n == 1 && a.chat[0] != b.chat[0]);
    tt__docs_free(&a);
    tt__docs_free(&b);
    tt__docs_free(&d);
    d = load("one.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}", NULL);
    TT_CHECK_FAILS(TT_USAGE, tt__docs_split(&d, 0.5, 1, &a, &b, &err));
    tt__docs_free(&d);
    const char *bad[] = {"{\"messages\": []}", "{\"messages\": [1]}", "{\"messages\": [{\"role\": \"user\"}]}", "{\"messages\": [{\"role\": 1, \"content\": \"x\"}]}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        TT_CHECK_FAILS(TT_BADFILE, tt__docs_load(tt_test_file("b.jsonl", bad[i], strlen(bad[i])), NULL, &d, &err));
}

/* A model's own template; and the frame that it puts around a user's text. */
TT_CASE(messages_become_tokens_through_the_template) {
    tt_err err = {0};
    tt_tokenizer *t = NULL;
    tt_gguf_writer *w = NULL;
    tt_gguf *g = NULL;
    const char *path = tt_test_path("tok.gguf");
    TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
    tiny_hparams(w);
    tiny_tokenizer(w, false);
    TT_CHECK_OK(tt__gguf_set_str(w, "tokenizer.chat_template", "{% for m in messages %}<|endoftext|>{{ m.content }}.{% endfor %}{% if add_generation_prompt %}<|endoftext|>{% endif %}", &err));
    TT_CHECK_OK(tt__gguf_writer_save(w, path, &err));
    tt__gguf_writer_free(w);
    TT_CHECK_OK(tt__gguf_open(path, &g, &err));
    TT_CHECK_OK(tt__tokenizer_from_gguf(g, &t, &err));
    tt_docs d = load("m.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}, {\"role\": \"assistant\", \"content\": \"<|endoftext|>\"}]}", NULL);
    tt_tokens tokens;
    TT_CHECK_OK(tt__docs_tokenize(&d, t, &tokens, &err));
    const int32_t want[] = {TINY_END, 'a', 'b', '.', TINY_END, '<', '|'};
    TT_CHECK_EQ(tokens.n, 4u + 1 + 13 + 1);                               /* the text of a message is no control token */
    TT_CHECK(!memcmp(tokens.ids, want, sizeof want));
    int32_t *before, *after;
    size_t n, m;
    TT_CHECK_OK(tt__chat_frame(t, NULL, &before, &n, &after, &m, &err));
    TT_CHECK(n == 1 && before[0] == TINY_END && m == 2 && after[0] == '.' && after[1] == TINY_END);
    tt__free(before);
    tt__free(after);
    tt__tokens_free(&tokens);
    tt__docs_free(&d);
    tt__tokenizer_free(t);
    tt__gguf_close(g);
}
TT_CASE(folders_in_byte_order) {
    tt_test_file("b.txt", "second", 6);
    tt_test_file("a.txt", "first", 5);
    tt_test_file("c.md", "no", 2);
    tt_docs d;
    tt_err err = {0};
    TT_CHECK_OK(tt__docs_load(tt_test_tmpdir(), NULL, &d, &err));
    TT_CHECK_EQ(d.n, 2u);
    TT_CHECK_STR(d.text[0], "first");
    TT_CHECK_STR(d.text[1], "second");
    tt__docs_free(&d);
}

TT_CASE(no_text_is_an_error) {
    tt_docs d;
    tt_err err = {0};
    TT_CHECK_FAILS(TT_BADFILE, tt__docs_load(tt_test_file("a.txt", " \n\t\n", 4), NULL, &d, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__docs_load(tt_test_path("missing.txt"), NULL, &d, &err));
}

static tt_tokens tokens_of(const size_t *lengths, size_t n) {
    tt_tokens t = {.n_docs = n};
    t.start = tt__calloc(n + 1, sizeof *t.start);
    for (size_t i = 0; i < n; i++) t.start[i + 1] = t.start[i] + lengths[i];
    t.n = t.start[n];
    t.ids = tt__calloc(t.n + 1, sizeof *t.ids);
    for (size_t i = 0; i < t.n; i++) t.ids[i] = (int32_t)i;
    return t;
}

TT_CASE(windows_stay_inside_documents) {
    const size_t lengths[] = {10, 3, 0, 4, 1};
    tt_tokens t = tokens_of(lengths, 5);
    tt_window *w;
    size_t n;
    tt_err err = {0};
    TT_CHECK_OK(tt__windows(&t, 4, 2, &w, &n, &err));
    const tt_window expected[] = {{0, 4, 0}, {4, 4, 0}, {8, 2, 0}, {10, 3, 1}, {13, 4, 3}};
    TT_CHECK_EQ(n, 5u);
    for (size_t i = 0; i < n; i++) TT_CHECK(w[i].begin == expected[i].begin && w[i].n == expected[i].n && w[i].doc == expected[i].doc);
    tt__free(w);
    TT_CHECK_FAILS(TT_USAGE, tt__windows(&t, 0, 1, &w, &n, &err));
    tt__tokens_free(&t);
}

TT_CASE(packed_windows) {
    const size_t lengths[] = {3, 2, 4};
    tt_tokens t = tokens_of(lengths, 3), joined;
    tt_window *w;
    size_t n;
    tt_err err = {0};
    TT_CHECK_OK(tt__windows_packed(&t, 2, 99, 1, &joined, &w, &n, &err));
    const int32_t expected[] = {0, 1, 2, 99, 3, 4, 99, 5, 6, 7, 8};
    TT_CHECK_EQ(joined.n, 11u);
    for (size_t i = 0; i < 11; i++) TT_CHECK_EQ(joined.ids[i], expected[i]);
    TT_CHECK_EQ(n, 5u);
    size_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        seen |= (size_t)1 << w[i].begin;
        TT_CHECK_EQ(w[i].n, 2);
        TT_CHECK_EQ(w[i].doc, w[i].begin < 4 ? 0 : w[i].begin < 7 ? 1 : 2);
    }
    TT_CHECK_EQ(seen, 0x155u);
    tt__free(w);
    tt__tokens_free(&joined);
    TT_CHECK_OK(tt__windows_packed(&t, 100, -1, 1, &joined, &w, &n, &err));
    TT_CHECK_EQ(n, 0u);
    TT_CHECK_EQ(joined.n, 9u);
    tt__free(w);
    tt__tokens_free(&joined);
    tt__tokens_free(&t);
}

TT_CASE(splits_by_document) {
    tt__str s = {0};
    for (int i = 0; i < 100; i++) tt__str_printf(&s, "# %d some words that fill the line\n", i);
    tt_docs d = load("a.txt", s.s, "^#"), a, b, a2, b2;
    tt_err err = {0};
    TT_CHECK_EQ(d.n, 100u);
    TT_CHECK_OK(tt__docs_split(&d, 0.2, 5, &a, &b, &err));
    TT_CHECK(a.n + b.n == 100 && b.n >= 18 && b.n <= 22);
    TT_CHECK_OK(tt__docs_split(&d, 0.2, 5, &a2, &b2, &err));
    TT_CHECK_STR(b.sha256, b2.sha256);
    tt__docs_free(&a2);
    tt__docs_free(&b2);
    TT_CHECK_OK(tt__docs_split(&d, 0.2, 6, &a2, &b2, &err));
    TT_CHECK(strcmp(b.sha256, b2.sha256) != 0);
    tt__docs_free(&a2);
    tt__docs_free(&b2);
    tt__docs_free(&a);
    tt__docs_free(&b);
    tt__docs_free(&d);
    d = load("b.txt", s.s, NULL);                     /* one document is cut at a line */
    TT_CHECK_OK(tt__docs_split(&d, 0.25, 5, &a, &b, &err));
    TT_CHECK(a.n == 1 && b.n == 1 && a.text[0][a.bytes[0] - 1] == '\n');
    TT_CHECK_EQ(a.bytes[0] + b.bytes[0], s.n);
    TT_CHECK_NEAR(b.bytes[0], 0.25 * (double)s.n, 50);
    tt__docs_free(&a);
    tt__docs_free(&b);
    tt__docs_free(&d);
    d = load("c.txt", "# a\n# b\n", "^#");            /* never all on one side */
    TT_CHECK_OK(tt__docs_split(&d, 0.01, 5, &a, &b, &err));
    TT_CHECK(a.n == 1 && b.n == 1);
    tt__docs_free(&a);
    tt__docs_free(&b);
    tt__docs_free(&d);
    tt__str_free(&s);
}

static tt_status load_for_faults(void *arg, tt_err *err) {
    tt_docs d;
    tt_status st = tt__docs_load(arg, "^x", &d, err);
    if (st == TT_OK) tt__docs_free(&d);
    return st;
}
TT_CASE(every_allocation_may_fail) {
    const char *path = tt_test_file("a.txt", "a\nxb\nxc\n", 8);
    TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, load_for_faults, (void *)(uintptr_t)path) > 3);
}
