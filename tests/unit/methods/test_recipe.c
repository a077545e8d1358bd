/* Recipes: both spellings, canonical text, hashes, and every way to be wrong. */
#include "base/limits.h"
#include "base/util.h"
#include "harness/tt_test.h"
#include "methods/method.h"
#include <stdio.h>

static tt_recipe *parse(const char *text) {
    tt_recipe *r = NULL;
    tt_err err = {0};
    TT_CHECK_OK(tt_recipe_parse(text, strlen(text), &r, &err));
    return r;
}

static void refuse(const char *text, tt_status status, const char *part_of_error) {
    tt_recipe *r = (tt_recipe *)1;
    tt_err err = {0};
    char line[1300];
    tt_test_note("%.100s", text);
    TT_CHECK_FAILS(status, tt_recipe_parse(text, strlen(text), &r, &err));
    TT_CHECK(r == NULL);
    tt_err_line(&err, line, sizeof line);
    if (!strstr(line, part_of_error)) tt_test_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", line, part_of_error);
}

static void check_line(const char *text, bool defaults, const char *want) {
    char *line = NULL;
    tt_err err = {0};
    tt_recipe *r = parse(text);
    TT_CHECK_OK(tt_recipe_line(r, defaults, &line, &err));
    TT_CHECK_STR(line, want);
    tt_free(line);
    tt_recipe_free(r);
}

static void hash_of(const char *text, char out[65]) {
    tt_recipe *r = parse(text);
    tt_recipe_sha256(r, out);
    tt_recipe_free(r);
}

TT_CASE(registry) {
    TT_CHECK(tt_method_count() >= 6);
    TT_CHECK(tt_method_get(tt_method_count()) == NULL);
    TT_CHECK(tt_method_find("nothing") == NULL);
    TT_CHECK(tt_method_find(NULL) == NULL);
    for (size_t i = 0; i < tt_method_count(); i++) {
        const tt_method_info *m = tt_method_get(i);
        TT_CHECK(tt_method_find(m->name) == m);
        TT_CHECK(&tt__method_of(m)->info == m);
        TT_CHECK(m->summary && *m->summary && m->title && m->version >= 1);
    }
}

/* Every default fits its own type and range, every `when` names a knob of the method: a bare name parses. */
TT_CASE(defaults_are_valid) {
    for (size_t i = 0; i < tt_method_count(); i++) {
        const tt_method_info *m = tt_method_get(i);
        tt_test_note("%s", m->name);
        tt_recipe *r = parse(m->name);
        for (size_t k = 0; k < m->n_knobs; k++) {
            TT_CHECK(m->knobs[k].help && *m->knobs[k].help);
            TT_CHECK(tt_recipe_get_value(r, 0, m->knobs[k].name) != NULL);
            for (const char *c = m->knobs[k].when; c && *c;) {
                char name[64];
                size_t n = strcspn(c, "=!<>"), end = strcspn(c, "&");
                bool known = false;
                TT_CHECK(n > 0 && n < end && n < sizeof name);
                snprintf(name, sizeof name, "%.*s", (int)n, c);
                for (size_t j = 0; j < m->n_knobs; j++) known |= strcmp(m->knobs[j].name, name) == 0;
                TT_CHECK(known);
                c += end + (c[end] == '&');
            }
        }
        tt_recipe_free(r);
    }
}

TT_CASE(one_step) {
    tt_recipe *r = parse("sparsegpt(sparsity=0.5,bits=4)");
    TT_CHECK_EQ(tt_recipe_step_count(r), (size_t)1);
    TT_CHECK_STR(tt_recipe_get_method(r, 0)->name, "sparsegpt");
    TT_CHECK(tt_recipe_get_method(r, 1) == NULL);
    TT_CHECK_STR(tt_recipe_get_value(r, 0, "sparsity"), "0.5");
    TT_CHECK_STR(tt_recipe_get_value(r, 0, "group"), "64");
    TT_CHECK(tt_recipe_get_value(r, 0, "nothing") == NULL);
    TT_CHECK(tt_recipe_get_value(r, 1, "bits") == NULL);
    tt_knobs k = {r, 0};
    TT_CHECK_EQ(tt__knob_i(&k, "bits"), 4);
    TT_CHECK_NEAR(tt__knob_f(&k, "sparsity"), 0.5, 0);
    TT_CHECK(!tt__knob_b(&k, "sequential"));
    TT_CHECK_STR(tt__knob_s(&k, "format"), "auto");
    tt_recipe_free(r);
}

TT_CASE(canonical_text) {
    check_line("  sparsegpt ( bits = 4 , sparsity = 0.50 ) + prompt ( tokens = 0032 ) \n", false, "sparsegpt(sparsity=0.5,bits=4)+prompt(tokens=32)");
    check_line("gptq(act-order=groups)", false, "gptq(act_order=groups)");
    check_line("gptq(sequential=yes)", false, "gptq(sequential=true)");
}

TT_CASE(canonical_numbers) {
    check_line("prompt(lr=0.00800)", false, "prompt(lr=0.008)");
    check_line("prompt(lr=8e-3)", false, "prompt(lr=0.008)");
    check_line("prompt(lr=1e-7)", false, "prompt(lr=1e-07)");
    check_line("prompt(time=3m)", false, "prompt(time=180)");
    check_line("prompt(decay=0)", false, "prompt(decay=0)");
    check_line("rtn()", false, "rtn");
    check_line("rtn", false, "rtn");
}

TT_CASE(quoted_values) {
    check_line("prompt(init=text,init_text=\"a, b) \\\"c\\\" \\\\\")", false, "prompt(init=text,init_text=\"a, b) \\\"c\\\" \\\\\")");
    check_line("prompt(init=text,init_text=two words)", false, "prompt(init=text,init_text=two words)");
    check_line("prompt(init=text,init_text=\"\")", false, "prompt(init=text,init_text=\"\")");
    check_line("prompt(init=text,init_text=\"größer\")", false, "prompt(init=text,init_text=größer)");
}

/* The expanded line leaves out what has no effect, and parses back to the same recipe. */
TT_CASE(expanded_line_is_a_recipe) {
    static const char *const texts[] = {"sparsegpt", "sparsegpt(bits=4)", "sparsegpt(pattern=2:4)", "rtn(type=Q4_0)", "rtn(bits=3)", "gptq(act_order=true)",
                                        "prompt(steps=0)", "prompt(init=text,init_text=x)", "wanda+rtn(bits=4)+prompt(tokens=8)", "magnitude(sparsity=0.25)"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *line = NULL, *again = NULL, a[65], b[65];
        tt_err err = {0};
        tt_test_note("%s", texts[i]);
        tt_recipe *r = parse(texts[i]);
        TT_CHECK_OK(tt_recipe_line(r, true, &line, &err));
        tt_recipe *s = parse(line);
        TT_CHECK_OK(tt_recipe_line(s, true, &again, &err));
        TT_CHECK_STR(again, line);
        tt_recipe_sha256(r, a);
        tt_recipe_sha256(s, b);
        TT_CHECK_STR(a, b);
        tt_free(line);
        tt_free(again);
        tt_recipe_free(r);
        tt_recipe_free(s);
    }
}

TT_CASE(hash) {
    char a[65], b[65];
    hash_of("sparsegpt(sparsity=0.5,bits=4)", a);
    hash_of("sparsegpt( bits=4, sparsity=0.500, group=64)", b);
    TT_CHECK_EQ(strlen(a), (size_t)64);
    TT_CHECK_STR(a, b);
    hash_of("sparsegpt(sparsity=0.5,bits=3)", b);
    TT_CHECK(strcmp(a, b) != 0);
    hash_of("wanda+rtn", a);
    hash_of("rtn+wanda", b);
    TT_CHECK(strcmp(a, b) != 0);
}

TT_CASE(json_form) {
    char a[65], b[65];
    hash_of("sparsegpt(sparsity=0.5,bits=4)+prompt(tokens=32)", a);
    hash_of("{\"trimtab_recipe\":1,\"steps\":[{\"method\":\"sparsegpt\",\"knobs\":{\"sparsity\":0.5,\"bits\":4}},{\"method\":\"prompt\",\"knobs\":{\"tokens\":\"32\"}}],"
            "\"provenance\":{\"by\":\"test\"}}", b);
    TT_CHECK_STR(a, b);
    hash_of(" {\"trimtab_recipe\":1,\"steps\":[{\"method\":\"gptq\",\"knobs\":{\"act_order\":true}}]}", a);
    hash_of("gptq(act_order=true)", b);
    TT_CHECK_STR(a, b);
}

TT_CASE(wrong_usage) {
    refuse("", TT_USAGE, "a method's name");
    refuse("   ", TT_USAGE, "a method's name");
    refuse("sparsgpt", TT_USAGE, "did you mean 'sparsegpt'?");
    refuse("xyzzyplugh", TT_USAGE, "trimtab methods");
    refuse("sparsegpt(sparsty=0.5)", TT_USAGE, "did you mean 'sparsity'?");
    refuse("sparsegpt(sparsity=0.5,sparsity=0.5)", TT_USAGE, "given twice");
    refuse("gptq(act_order=true,act-order=true)", TT_USAGE, "given twice");
    refuse("sparsegpt(sparsity=1.5)", TT_USAGE, "0 to 0.95");
    refuse("sparsegpt(sparsity=-0.1)", TT_USAGE, "0 to 0.95");
    refuse("sparsegpt(sparsity=half)", TT_USAGE, "a number");
    refuse("sparsegpt(sparsity=nan)", TT_USAGE, "a number");
    refuse("sparsegpt(sparsity=inf)", TT_USAGE, "a number");
    refuse("sparsegpt(sparsity=0x1)", TT_USAGE, "a number");
    refuse("sparsegpt(sparsity=)", TT_USAGE, "a number");
    refuse("sparsegpt(bits=7)", TT_USAGE, "one of");
    refuse("sparsegpt(sequential=maybe)", TT_USAGE, "true or false");
    refuse("prompt(tokens=0)", TT_USAGE, "1 to 8192");
    refuse("prompt(tokens=8193)", TT_USAGE, "1 to 8192");
    refuse("prompt(tokens=1e3)", TT_USAGE, "whole number");
    refuse("prompt(tokens=99999999999999999999)", TT_USAGE, "whole number");
    refuse("prompt(time=3 parsecs)", TT_USAGE, "a time");
    refuse("sparsegpt(group=64)", TT_USAGE, "without effect");
    refuse("prompt(steps=0,lr=1)", TT_USAGE, "without effect");
    refuse("prompt(init_text=x)", TT_USAGE, "init=text");
}

TT_CASE(wrong_syntax) {
    refuse("rtn(", TT_USAGE, "a knob's name");
    refuse("rtn(bits", TT_USAGE, "'='");
    refuse("rtn(bits=4", TT_USAGE, "',' or ')'");
    refuse("rtn(bits=4,)", TT_USAGE, "a knob's name");
    refuse("rtn(bits=4))", TT_USAGE, "the end");
    refuse("rtn+", TT_USAGE, "a method's name");
    refuse("+rtn", TT_USAGE, "a method's name");
    refuse("rtn rtn", TT_USAGE, "the end");
    refuse("rtn,rtn", TT_USAGE, "the end");
    refuse("rtn(bits=\"4", TT_USAGE, "closing quote");
    refuse("rtn(bits=\"4\\n\")", TT_USAGE, "escape");
    refuse("rtn(bits=\"4\"x)", TT_USAGE, "',' or ')'");
    refuse("rtn(bits=\x01)", TT_BADFILE, "control byte");
    refuse("rtn(bits=\xff)", TT_BADFILE, "UTF-8");
    refuse("prompt(init=text,init_text=\xed\xa0\x80)", TT_BADFILE, "UTF-8");
}

TT_CASE(wrong_json) {
    refuse("{", TT_BADFILE, "recipe");
    refuse("{}", TT_BADFILE, "version");
    refuse("{\"trimtab_recipe\":2,\"steps\":[]}", TT_BADFILE, "version");
    refuse("{\"trimtab_recipe\":\"1\",\"steps\":[]}", TT_BADFILE, "version");
    refuse("{\"trimtab_recipe\":1}", TT_BADFILE, "steps");
    refuse("{\"trimtab_recipe\":1,\"steps\":[]}", TT_BADFILE, "steps");
    refuse("{\"trimtab_recipe\":1,\"steps\":{}}", TT_BADFILE, "steps");
    refuse("{\"trimtab_recipe\":1,\"steps\":[1]}", TT_BADFILE, "an object");
    refuse("{\"trimtab_recipe\":1,\"steps\":[{}]}", TT_BADFILE, "method");
    refuse("{\"trimtab_recipe\":1,\"steps\":[{\"method\":1}]}", TT_BADFILE, "method");
    refuse("{\"trimtab_recipe\":1,\"steps\":[{\"method\":\"rtn\",\"knobs\":[]}]}", TT_BADFILE, "knobs");
    refuse("{\"trimtab_recipe\":1,\"steps\":[{\"method\":\"rtn\",\"bits\":4}]}", TT_BADFILE, "method, knobs");
    refuse("{\"trimtab_recipe\":1,\"steps\":[{\"method\":\"rtn\",\"knobs\":{\"bits\":null}}]}", TT_BADFILE, "null");
    refuse("{\"trimtab_recipe\":1,\"steps\":[{\"method\":\"rtn\",\"knobs\":{\"bits\":4.5}}]}", TT_USAGE, "one of");
    refuse("{\"trimtab_recipe\":1,\"steps\":[{\"method\":\"prompt\",\"knobs\":{\"tokens\":true}}]}", TT_USAGE, "whole number");
    refuse("{\"trimtab_recipe\":1,\"steps\":[{\"method\":\"rtn\",\"method\":\"rtn\"}]}", TT_BADFILE, "recipe");
    refuse("{\"trimtab_recipe\":1,\"step\":[{\"method\":\"rtn\"}]}", TT_BADFILE, "step");
    refuse("{\"trimtab_recipe\":1,\"steps\":[{\"method\":\"rtn\"}]} x", TT_BADFILE, "recipe");
}

TT_CASE(limit_of_bytes) {
    size_t n = TT_LIMIT_RECIPE_BYTES;
    char *text = tt__alloc(n + 2);
    tt_recipe *r = NULL;
    tt_err err = {0};
    memset(text, ' ', n + 1);
    memcpy(text, "rtn", 3);
    TT_CHECK_OK(tt_recipe_parse(text, n, &r, &err));
    tt_recipe_free(r);
    TT_CHECK_FAILS(TT_BADFILE, tt_recipe_parse(text, n + 1, &r, &err));
    TT_CHECK(strstr(err.where, "RECIPE_BYTES"));
    tt__free(text);
}

TT_CASE(limit_of_steps) {
    tt__str s = {0};
    tt_recipe *r = NULL;
    tt_err err = {0};
    for (size_t i = 0; i < TT_LIMIT_RECIPE_STEPS; i++) tt__str_puts(&s, i ? "+rtn" : "rtn");
    TT_CHECK_OK(tt_recipe_parse(s.s, s.n, &r, &err));
    TT_CHECK_EQ(tt_recipe_step_count(r), (size_t)TT_LIMIT_RECIPE_STEPS);
    tt_recipe_free(r);
    tt__str_puts(&s, "+rtn");
    TT_CHECK_FAILS(TT_USAGE, tt_recipe_parse(s.s, s.n, &r, &err));
    tt__str_free(&s);
}

TT_CASE(deep_json_is_refused_flat) {
    tt__str s = {0};
    tt_recipe *r = NULL;
    tt_err err = {0};
    tt__str_puts(&s, "{\"trimtab_recipe\":1,\"provenance\":");
    for (int i = 0; i < 20000; i++) tt__str_puts(&s, "[");
    TT_CHECK_FAILS(TT_BADFILE, tt_recipe_parse(s.s, s.n, &r, &err));
    tt__str_free(&s);
}

static tt_status parse_once(void *arg, tt_err *err) {
    tt_recipe *r = NULL;
    char *line = NULL;
    tt_status st = tt_recipe_parse(arg, strlen(arg), &r, err);
    if (st == TT_OK) st = tt_recipe_line(r, true, &line, err);
    tt_free(line);
    tt_recipe_free(r);
    return st;
}

TT_CASE(out_of_memory_everywhere) {
    TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ONCE, parse_once, "sparsegpt(bits=4)+prompt(init=text,init_text=\"a b\")") > 3);
    TT_CHECK(tt_test_fault_loop(TT_FAULT_ALLOC, TT_FAULT_ON, parse_once, "{\"trimtab_recipe\":1,\"steps\":[{\"method\":\"rtn\"}]}") > 2);
}
