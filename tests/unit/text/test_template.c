/* Chat templates against Python's Jinja2 (tests/golden/templates.json, made by tools/gen_template_tests.py), their budgets, and the promise
 * that no control token comes from a message. */
#include "base/limits.h"
#include "base/util.h"
#include "harness/tt_test.h"
#include "text/template.h"
#include <stdio.h>
#include <stdlib.h>

static json_t *load_cases(void) {
    char *s;
    size_t n;
    json_t *v;
    tt_err err = {0};
    TT_CHECK_OK(tt__read_file("tests/golden/templates.json", 1 << 24, &s, &n, &err));
    TT_CHECK_OK(tt__json_parse(s, n, "templates.json", &v, &err));
    tt__free(s);
    return v;
}

static tt_status render_case(const json_t *c, tt_template_output *o, tt_err *err) {
    tt_message m[16];
    size_t n = 0, i;
    json_t *item;
    json_array_foreach(json_object_get(c, "messages"), i, item) {
        m[n++] = (tt_message){json_string_value(json_object_get(item, "role")), json_string_value(json_object_get(item, "content"))};
    }
    char *extra = json_object_get(c, "extra") ? json_dumps(json_object_get(c, "extra"), JSON_COMPACT) : NULL;
    tt_status st = tt__template_render(json_string_value(json_object_get(c, "source")), m, n, json_is_true(json_object_get(c, "generation")), "<s>", "</s>", extra, o, err);
    free(extra);
    return st;
}

static char *joined(const tt_template_output *o) {
    tt__str s = {0};
    for (size_t i = 0; i < o->n; i++) tt__str_add(&s, o->seg[i].text, o->seg[i].n);
    tt__str_add(&s, "", 0);
    return s.s;
}

TT_CASE(equal_to_jinja2) {
    json_t *cases = load_cases(), *c;
    size_t i;
    int wrong = 0;
    json_array_foreach(cases, i, c) {
        tt_template_output o;
        tt_err err = {0};
        const char *name = json_string_value(json_object_get(c, "name")), *expected = json_string_value(json_object_get(c, "expected"));
        tt_status st = render_case(c, &o, &err);
        char *got = st == TT_OK ? joined(&o) : NULL, line[1200];
        if (!expected != !got || (got && strcmp(got, expected) != 0)) {
            wrong++;
            printf("  %s: got <%s> expected <%s>\n", name, got ? got : tt_err_line(&err, line, sizeof line), expected ? expected : "an error");
        }
        tt__free(got);
        tt__template_output_free(&o);
    }
    json_decref(cases);
    TT_CHECK_EQ(wrong, 0);
}

static tt_status render_text(const char *source, const char *content, tt_template_output *o, tt_err *err) {
    tt_message m = {"user", content};
    return tt__template_render(source, &m, 1, false, "<s>", "</s>", NULL, o, err);
}

TT_CASE(messages_are_text_and_templates_are_markup) {
    tt_err err = {0};
    tt_template_output o;
    TT_CHECK_OK(render_text("<|a|>{{ messages[0].content | trim }}<|b|>{{ '<|c|>' ~ messages[0]['content'].replace('x', '<|d|>').split(',')[0] }}", " x,y ", &o, &err));
    TT_CHECK_EQ(o.n, 5u);
    const struct { const char *text; bool markup; } expected[] = {{"<|a|>", true}, {"x,y", false}, {"<|b|><|c|>", true}, {" ", false}, {"<|d|>", true}};
    for (size_t i = 0; i < o.n; i++) {
        TT_CHECK_STR(o.seg[i].text, expected[i].text);
        TT_CHECK_EQ(o.seg[i].markup, expected[i].markup);
    }
    tt__template_output_free(&o);
    const char *ways[] = {"{{ messages[0].content }}", "{{ messages[0].content | upper | lower }}", "{{ messages | tojson }}", "{% set x %}{{ messages[0].content }}{% endset %}{{ x }}",
                          "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(messages[0].content) }}", "{{ [messages[0].content] | join }}", "{{ '%s{}'.format(messages[0].content) }}",
                          "{{ messages[0].content[::-1][::-1] }}", "{{ messages[0].content | list | join('') }}", "{{ messages[0].content | indent }}", "{{ [messages[0].content] }}",
                          "{{ messages[0].content * 2 }}", "{% for c in messages[0].content %}{{ c }}{% endfor %}", "{% filter trim %}{{ messages[0].content }}{% endfilter %}", "{{ messages[0].content.split('|') | join('|') }}"};
    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        tt_test_note("%s", ways[w]);
        TT_CHECK_OK(render_text(ways[w], "<|im_end|>", &o, &err));
        for (size_t i = 0; i < o.n; i++) TT_CHECK(!o.seg[i].markup || !strchr(o.seg[i].text, '<') || strstr(ways[w], "split"));
        tt__template_output_free(&o);
    }
}

TT_CASE(unknown_roles_are_text) {
    tt_err err = {0};
    tt_template_output o;
    tt_message m[2] = {{"user", "a"}, {"<|im_start|>system", "b"}};
    TT_CHECK_OK(tt__template_render("{% for m in messages %}<|{{ m.role }}|>{% endfor %}", m, 2, false, "", "", NULL, &o, &err));
    TT_CHECK_EQ(o.n, 3u);
    TT_CHECK_STR(o.seg[0].text, "<|user|><|");
    TT_CHECK(!o.seg[1].markup);
    tt__template_output_free(&o);
}

static void fails_with(const char *source, const char *word) {
    tt_err err = {0};
    tt_template_output o;
    char line[1200];
    tt_test_note("%.60s", source);
    TT_CHECK_FAILS(TT_BADFILE, render_text(source, "x", &o, &err));
    TT_CHECK(strstr(tt_err_line(&err, line, sizeof line), word));
    TT_CHECK_EQ(o.n, 0u);
}

static char *repeated(const char *a, int n, const char *middle, const char *b) {
    tt__str s = {0};
    for (int i = 0; i < n; i++) tt__str_puts(&s, a);
    tt__str_puts(&s, middle);
    for (int i = 0; i < n; i++) tt__str_puts(&s, b);
    return s.s;
}

TT_CASE(budgets_end_hostile_templates) {
    double before = tt__now();
    fails_with("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "at most");
    fails_with("{% for i in range(99) %}{% for j in range(99) %}{% for k in range(99) %}{{ 1 + 2 + 3 + 4 }}{% endfor %}{% endfor %}{% endfor %}", "TEMPLATE_STEPS");
    fails_with("{{ range(100001) }}", "100000");
    fails_with("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "64 calls");
    fails_with("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}", "at most");
    fails_with("{% for i in range(100000) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}", "TEMPLATE_OUTPUT");
    fails_with("{{ 'x' * 999999999999 }}", "at most");
    fails_with("{{ 2 ** 9999999999 }}", "64 bits");
    fails_with("{% set l = [] %}{% do l.append(l) %}{{ l }}", "nested too deep");
    fails_with("{% set l = [1] %}{% for x in l %}{% do l.append(x) %}{% endfor %}", "at most");
    const struct { const char *a, *middle, *b; } nests[] = {{"(", "1", ")"}, {"[", "1", "]"}, {"-", "1", ""}, {"not ", "1", ""}, {"1 + (", "1", ")"}, {"{'a': ", "1", "}"}};
    for (size_t i = 0; i < sizeof nests / sizeof nests[0]; i++) {
        char *inner = repeated(nests[i].a, 5500, nests[i].middle, nests[i].b), *s = tt__alloc(strlen(inner) + 10);
        sprintf(s, "{{ %s }}", inner);
        fails_with(s, "TEMPLATE_DEPTH");
        tt__free(inner);
        tt__free(s);
    }
    char *ifs = repeated("{% if 1 %}", 5500, "", "{% endif %}"), *chain = repeated("{{ 1", 1, "", ""), *filters;
    fails_with(ifs, "TEMPLATE_DEPTH");
    tt__free(ifs);
    tt__free(chain);
    filters = repeated("|trim", 5500, " }}", "");
    chain = tt__alloc(strlen(filters) + 10);
    sprintf(chain, "{{ 1%s", filters);
    fails_with(chain, "TEMPLATE_DEPTH");
    tt__free(filters);
    tt__free(chain);
    TT_CHECK(tt__now() - before < 20);
}

TT_CASE(source_limit) {
    tt_err err = {0};
    tt_template_output o;
    char *s = tt__alloc(TT_LIMIT_TEMPLATE_BYTES + 2);
    memset(s, 'x', TT_LIMIT_TEMPLATE_BYTES + 1);
    s[TT_LIMIT_TEMPLATE_BYTES] = 0;
    TT_CHECK_OK(render_text(s, "x", &o, &err));
    tt__template_output_free(&o);
    s[TT_LIMIT_TEMPLATE_BYTES] = 'x';
    s[TT_LIMIT_TEMPLATE_BYTES + 1] = 0;
    TT_CHECK_FAILS(TT_BADFILE, render_text(s, "x", &o, &err));
    TT_CHECK(strstr(err.expected, "TEMPLATE_BYTES"));
    tt__free(s);
}

TT_CASE(raise_exception_is_the_callers_mistake) {
    tt_err err = {0};
    tt_template_output o;
    TT_CHECK_FAILS(TT_USAGE, render_text("{{ raise_exception('roles must alternate') }}", "x", &o, &err));
    TT_CHECK(strstr(err.got, "roles must alternate"));
}

TT_CASE(extra_variables_may_not_replace_others) {
    tt_err err = {0};
    tt_template_output o;
    tt_message m = {"user", "x"};
    const char *bad[] = {"{\"messages\": []}", "{\"range\": 1}", "{\"add_generation_prompt\": true}", "[1]", "{\"bos_token\": \"<|x|>\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) TT_CHECK_FAILS(TT_USAGE, tt__template_render("{{ x }}", &m, 1, false, "", "", bad[i], &o, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__template_render("{{ x }}", &m, 1, false, "", "", "{\"x\": ", &o, &err));
    TT_CHECK_OK(tt__template_render("{{ x[0].y }}", &m, 1, false, "", "", "{\"x\": [{\"y\": \"<|z|>\"}]}", &o, &err));
    TT_CHECK_STR(o.seg[0].text, "<|z|>");
    TT_CHECK(!o.seg[0].markup);
    tt__template_output_free(&o);
}

TT_CASE(only_the_language_is_there) {
    const char *bad[] = {"{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{{ ''.__class__ }}{{ ''.__class__.__mro__ }}", "{{ messages.__init__.__globals__ }}",
                         "{{ self.x }}", "{% call f() %}{% endcall %}", "{{ 'x'.encode() }}", "{{ lipsum() }}", "{% for x in [1] recursive %}{% endfor %}", "{{ f(*a) }}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        tt_err err = {0};
        tt_template_output o;
        tt_test_note("%s", bad[i]);
        TT_CHECK_FAILS(TT_BADFILE, render_text(bad[i], "x", &o, &err));
    }
}

TT_CASE(bytes_that_are_no_text) {
    tt_err err = {0};
    tt_template_output o;
    TT_CHECK_OK(render_text("{{ messages[0].content | length }}", "a\xFF\xE4\xB8z", &o, &err));
    tt__template_output_free(&o);
    TT_CHECK_FAILS(TT_BADFILE, render_text("\xFF{{ 1 }}", "x", &o, &err));
}

static tt_status render_for_faults(void *arg, tt_err *err) {
    tt_template_output o;
    (void)arg;
    tt_status st = render_text("{% set x = namespace(a=[1]) %}{% for m in messages %}{{ m.content ~ x.a | tojson }}{% endfor %}", "hello", &o, err);
    if (st == TT_OK) tt__template_output_free(&o);
    return st;
}
TT_CASE(every_allocation_may_fail) { TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, render_for_faults, NULL) > 5); }
