/* Recipes: an ordered list of methods with knob values, read from a command line or a file. Two spellings of one tree:
 *
 *     sparsegpt(sparsity=0.5,bits=4,group=64)+prompt(tokens=100)
 *     {"trimtab_recipe":1, "steps":[{"method":"sparsegpt", "knobs":{"sparsity":0.5, "bits":4, "group":64}}, …], "provenance":{…}}
 *
 *     recipe := step { '+' step }          step := name [ '(' [ knob { ',' knob } ] ')' ]
 *     knob   := name '=' value             value := bare text up to ',' or ')', or "text" with \" and \\ inside
 *
 * Strict on purpose: a knob that is misspelt, doubled, out of range, or without effect under the others (its `when` does not hold)
 * is an error with the nearest name or the range, never a silent default. The reader is a flat scan: nothing here recurses.
 *
 * Values are kept in canonical text: 0.50 becomes 0.5, 1k of bytes 1024, 3m of time 180, yes true. The canonical line names every
 * knob that has an effect, in the method's order, and parses back to an equal recipe; the hash covers that line and the versions of
 * the methods, so that equal hashes mean equal results.
 */
#include "base/limits.h"
#include "base/util.h"
#include "methods/method.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

typedef struct step {
    const tt_method_info *method;
    const char **value;          /* [n_knobs] canonical; the default where the user gave none */
    bool *given;                 /* [n_knobs] */
} step;

struct tt_recipe {
    tt__arena arena;             /* owns steps and values */
    size_t n;
    step steps[];                /* room for TT_LIMIT_RECIPE_STEPS */
};

/* ------------------------------------------------------------------ names ---- */

static bool name_char(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-'; }

/* '-' and '_' are one letter in names, as in long options. */
static bool same_name(const char *a, const char *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (b[i] == 0 || (a[i] == '-' ? '_' : a[i]) != (b[i] == '-' ? '_' : b[i])) return false;
    return b[n] == 0;
}

static const tt_method_info *find_method(const char *s, size_t n) {
    for (size_t i = 0; i < tt_method_count(); i++)
        if (same_name(s, tt_method_get(i)->name, n)) return tt_method_get(i);
    return NULL;
}

static const tt_knob *find_knob(const tt_method_info *m, const char *s, size_t n) {
    for (size_t i = 0; i < m->n_knobs; i++)
        if (same_name(s, m->knobs[i].name, n)) return &m->knobs[i];
    return NULL;
}

enum { MANY = 128 };             /* names considered for "did you mean" */

static tt_status unknown_method(const char *s, size_t n, size_t at, tt_err *err) {
    const char *names[MANY];
    size_t k = 0;
    char got[64];
    for (; k < tt_method_count() && k < MANY; k++) names[k] = tt_method_get(k)->name;
    snprintf(got, sizeof got, "%.*s", (int)(n < 60 ? n : 60), s);
    const char *near = tt__nearest(got, names, k);
    if (near) return tt__fail(err, TT_USAGE, "unknown method|recipe, step %zu|%s||did you mean '%s'?", at + 1, got, near);
    return tt__fail(err, TT_USAGE, "unknown method|recipe, step %zu|%s||'trimtab methods' lists them", at + 1, got);
}

static tt_status unknown_knob(const tt_method_info *m, const char *s, size_t n, tt_err *err) {
    const char *names[MANY];
    size_t k = 0;
    char got[64];
    for (; k < m->n_knobs && k < MANY; k++) names[k] = m->knobs[k].name;
    snprintf(got, sizeof got, "%.*s", (int)(n < 60 ? n : 60), s);
    const char *near = tt__nearest(got, names, k);
    if (near) return tt__fail(err, TT_USAGE, "unknown knob|%s|%s||did you mean '%s'?", m->name, got, near);
    return tt__fail(err, TT_USAGE, "unknown knob|%s|%s||'trimtab methods %s' lists its knobs", m->name, got, m->name);
}

/* ------------------------------------------------------------------ values ---- */

/* The shortest decimal that reads back as x, whole numbers without an exponent; "C" locale whatever the program's is. */
static void print_real(double x, char out[40]) {
    if (x > -1e15 && x < 1e15 && x == (double)(int64_t)x) {
        snprintf(out, 40, "%" PRId64, (int64_t)x);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        double back;
        snprintf(out, 40, "%.*g", digits, x);
        for (char *c = out; *c; c++)
            if (*c == ',') *c = '.';
        if (tt__parse_f64(out, &back) && back == x) return;
    }
}

static bool parse_bool(const char *s, bool *out) {
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(s, yes[i]) == 0) return *out = true, true;
        if (strcmp(s, no[i]) == 0) return *out = false, true;
    }
    return false;
}

static bool is_choice(const char *choices, const char *s) {
    size_t n = strlen(s);
    for (const char *c = choices; c;) {
        const char *bar = strchr(c, '|');
        size_t len = bar ? (size_t)(bar - c) : strlen(c);
        if (len == n && memcmp(c, s, n) == 0) return true;
        c = bar ? bar + 1 : NULL;
    }
    return false;
}

static bool bounded(const tt_knob *k) { return k->min < k->max; }

static tt_status bad_value(const tt_method_info *m, const tt_knob *k, const char *got, const char *expected, tt_err *err) {
    return tt__fail(err, TT_USAGE, "bad value of a knob|%s, %s|%s|%s", m->name, k->name, got, expected);
}

static tt_status check_range(const tt_method_info *m, const tt_knob *k, double x, const char *got, tt_err *err) {
    char low[40], high[40];
    if (!bounded(k) || (x >= k->min && x <= k->max)) return TT_OK;
    print_real(k->min, low);
    print_real(k->max, high);
    return tt__fail(err, TT_USAGE, "knob out of range|%s, %s|%s|%s to %s", m->name, k->name, got, low, high);
}

/* Checks `text` against the knob's type, range and choices; *canonical lives in the arena. */
static tt_status canonical_value(tt__arena *a, const tt_method_info *m, const tt_knob *k, const char *text, const char **canonical, tt_err *err) {
    char buf[40] = "";
    int64_t i;
    uint64_t bytes;
    double x;
    bool b;
    const char *out = buf;
    switch (k->type) {
    case TT_KNOB_INT:
        if (!tt__parse_i64(text, &i)) return bad_value(m, k, text, "a whole number", err);
        TT_TRY(check_range(m, k, (double)i, text, err));
        snprintf(buf, sizeof buf, "%" PRId64, i);
        break;
    case TT_KNOB_REAL:
        if (!tt__parse_f64(text, &x)) return bad_value(m, k, text, "a number", err);
        TT_TRY(check_range(m, k, x, text, err));
        print_real(x, buf);
        break;
    case TT_KNOB_BYTES:
        if (!tt__parse_bytes(text, &bytes)) return bad_value(m, k, text, "a size such as 512M or 1.5g", err);
        TT_TRY(check_range(m, k, (double)bytes, text, err));
        snprintf(buf, sizeof buf, "%" PRIu64, bytes);
        break;
    case TT_KNOB_DURATION:
        if (!tt__parse_duration(text, &x)) return bad_value(m, k, text, "a time such as 45s, 20m or 2h", err);
        TT_TRY(check_range(m, k, x, text, err));
        print_real(x, buf);
        break;
    case TT_KNOB_BOOL:
        if (!parse_bool(text, &b)) return bad_value(m, k, text, "true or false", err);
        snprintf(buf, sizeof buf, "%s", b ? "true" : "false");
        break;
    case TT_KNOB_CHOICE:
        if (!is_choice(k->choices, text)) return tt__fail(err, TT_USAGE, "bad value of a knob|%s, %s|%s|one of %s", m->name, k->name, text, k->choices);
        out = text;
        break;
    case TT_KNOB_PATH:
    case TT_KNOB_TEXT:
        out = text;
        break;
    }
    *canonical = tt__arena_strndup(a, out, strlen(out));
    TT_FAIL_IF(!*canonical, err, TT_RESOURCE, "out of memory|recipe");
    return TT_OK;
}

/* Text from outside that becomes a value: whole UTF-8, no control bytes. */
static tt_status check_text(const char *s, size_t n, tt_err *err) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = tt__utf8_decode((const uint8_t *)s + i, n - i, &cp);
        TT_FAIL_IF(len == 0, err, TT_BADFILE, "recipe is not UTF-8|byte %zu", i);
        TT_FAIL_IF(cp == 0x7f || (cp < 0x20 && cp != '\n' && cp != '\r' && cp != '\t'), err, TT_BADFILE, "control byte in a recipe|byte %zu|0x%02x", i, (unsigned)cp);
        i += (size_t)len;
    }
    return TT_OK;
}

/* ------------------------------------------------------------------ conditions ---- */

/* One clause of a knob's `when`: name, one of = != < <= > >=, and a number or alternatives "a|b". Ours, so asserted by the tests. */
static bool clause_holds(const step *s, const char *c, size_t n) {
    size_t name = strcspn(c, "=!<>");
    if (name >= n) return true;
    const char *op = c + name;
    size_t op_len = op[1] == '=' ? 2 : 1;
    char want[64];
    snprintf(want, sizeof want, "%.*s", (int)(n - name - op_len), op + op_len);
    const tt_knob *k = find_knob(s->method, c, name);
    if (!k) return true;
    const char *have = s->value[k - s->method->knobs];
    double x, y;
    bool equal, numbers = tt__parse_f64(have, &x) && tt__parse_f64(want, &y);
    equal = numbers ? x == y : is_choice(want, have);
    switch (*op) {
    case '=': return equal;
    case '!': return !equal;
    case '<': return numbers && (op_len == 2 ? x <= y : x < y);
    default: return numbers && (op_len == 2 ? x >= y : x > y);
    }
}

/* Clauses are joined by '&'. */
static bool active(const step *s, const tt_knob *k) {
    for (const char *c = k->when; c && *c;) {
        size_t n = strcspn(c, "&");
        if (!clause_holds(s, c, n)) return false;
        c += n + (c[n] == '&');
    }
    return true;
}

/* ------------------------------------------------------------------ building ---- */

static tt_status add_step(tt_recipe *r, const char *name, size_t n, tt_err *err) {
    TT_FAIL_IF(r->n >= TT_LIMIT_RECIPE_STEPS, err, TT_USAGE, "too many methods in a recipe|step %zu||at most %" PRIu64, r->n + 1, TT_LIMIT_RECIPE_STEPS);
    const tt_method_info *m = find_method(name, n);
    if (!m) return unknown_method(name, n, r->n, err);
    step *s = &r->steps[r->n];
    s->method = m;
    s->value = tt__arena_alloc(&r->arena, sizeof *s->value * (m->n_knobs + 1));
    s->given = tt__arena_alloc(&r->arena, sizeof *s->given * (m->n_knobs + 1));
    TT_FAIL_IF(!s->value || !s->given, err, TT_RESOURCE, "out of memory|recipe");
    r->n++;
    for (size_t i = 0; i < m->n_knobs; i++)
        TT_TRY(canonical_value(&r->arena, m, &m->knobs[i], m->knobs[i].value ? m->knobs[i].value : "", &s->value[i], err));
    return TT_OK;
}

static tt_status set_knob(tt_recipe *r, const char *name, size_t n, const char *value, tt_err *err) {
    step *s = &r->steps[r->n - 1];
    const tt_knob *k = find_knob(s->method, name, n);
    if (!k) return unknown_knob(s->method, name, n, err);
    size_t i = (size_t)(k - s->method->knobs);
    TT_FAIL_IF(s->given[i], err, TT_USAGE, "knob given twice|%s, %s", s->method->name, k->name);
    s->given[i] = true;
    return canonical_value(&r->arena, s->method, k, value, &s->value[i], err);
}

/* After all knobs of the step: one that is given has to have an effect. */
static tt_status check_step(const tt_recipe *r, tt_err *err) {
    const step *s = &r->steps[r->n - 1];
    for (size_t i = 0; i < s->method->n_knobs; i++) {
        const tt_knob *k = &s->method->knobs[i];
        TT_FAIL_IF(s->given[i] && !active(s, k), err, TT_USAGE, "knob without effect|%s, %s|%s|%s|leave it out", s->method->name, k->name, s->value[i], k->when);
    }
    return TT_OK;
}

/* ------------------------------------------------------------------ line form ---- */

typedef struct scan { const char *s; size_t n, i; } scan;

static void blanks(scan *c) {
    while (c->i < c->n && strchr(" \t\r\n", c->s[c->i]) && c->s[c->i]) c->i++;
}

static bool take(scan *c, char want) {
    blanks(c);
    if (c->i >= c->n || c->s[c->i] != want) return false;
    c->i++;
    return true;
}

static tt_status take_name(scan *c, const char *what, const char **name, size_t *n, tt_err *err) {
    blanks(c);
    size_t start = c->i;
    while (c->i < c->n && name_char(c->s[c->i])) c->i++;
    TT_FAIL_IF(c->i == start, err, TT_USAGE, "bad recipe|byte %zu|%.20s|%s", c->i, c->i < c->n ? c->s + c->i : "end of text", what);
    *name = c->s + start;
    *n = c->i - start;
    return TT_OK;
}

static tt_status take_quoted(scan *c, tt__str *out, tt_err *err) {
    for (size_t start = c->i++; c->i < c->n; c->i++) {
        char ch = c->s[c->i];
        if (ch == '"') {
            c->i++;
            return TT_OK;
        }
        if (ch == '\\') {
            c->i++;
            TT_FAIL_IF(c->i >= c->n || (c->s[c->i] != '"' && c->s[c->i] != '\\'), err, TT_USAGE, "bad escape in a recipe|byte %zu||\\\" or \\\\", start);
            ch = c->s[c->i];
        }
        tt__str_add(out, &ch, 1);
    }
    return tt__fail(err, TT_USAGE, "bad recipe|byte %zu|end of text|a closing quote", c->n);
}

static void take_bare(scan *c, tt__str *out) {
    size_t start = c->i;
    while (c->i < c->n && c->s[c->i] != ',' && c->s[c->i] != ')') c->i++;
    size_t end = c->i;
    while (end > start && strchr(" \t\r\n", c->s[end - 1])) end--;
    tt__str_add(out, c->s + start, end - start);
}

static tt_status take_knob(scan *c, tt_recipe *r, tt_err *err) {
    const char *name;
    size_t n;
    tt__str value = {0};
    TT_TRY(take_name(c, "a knob's name", &name, &n, err));
    TT_FAIL_IF(!take(c, '='), err, TT_USAGE, "bad recipe|byte %zu|%.20s|'=' after the knob '%.*s'", c->i, c->i < c->n ? c->s + c->i : "end of text", (int)n, name);
    blanks(c);
    tt_status st = TT_OK;
    tt__str_add(&value, "", 0);
    if (c->i < c->n && c->s[c->i] == '"') st = take_quoted(c, &value, err);
    else take_bare(c, &value);
    if (st == TT_OK && value.failed) st = tt__fail(err, TT_RESOURCE, "out of memory|recipe");
    if (st == TT_OK) st = set_knob(r, name, n, value.s ? value.s : "", err);
    tt__str_free(&value);
    return st;
}

static tt_status take_step(scan *c, tt_recipe *r, tt_err *err) {
    const char *name;
    size_t n;
    TT_TRY(take_name(c, "a method's name", &name, &n, err));
    TT_TRY(add_step(r, name, n, err));
    if (!take(c, '(')) return TT_OK;
    if (take(c, ')')) return TT_OK;
    do TT_TRY(take_knob(c, r, err));
    while (take(c, ','));
    TT_FAIL_IF(!take(c, ')'), err, TT_USAGE, "bad recipe|byte %zu|%.20s|',' or ')'", c->i, c->i < c->n ? c->s + c->i : "end of text");
    return check_step(r, err);
}

static tt_status parse_line(const char *s, size_t n, tt_recipe *r, tt_err *err) {
    scan c = {s, n, 0};
    do TT_TRY(take_step(&c, r, err));
    while (take(&c, '+'));
    blanks(&c);
    TT_FAIL_IF(c.i != c.n, err, TT_USAGE, "bad recipe|byte %zu|%.20s|'+' and a method, or the end", c.i, s + c.i);
    return TT_OK;
}

/* ------------------------------------------------------------------ JSON form ---- */

static tt_status json_value(tt_recipe *r, const char *name, const json_t *v, tt_err *err) {
    char buf[40];
    const char *text = buf;
    if (json_is_string(v)) {
        text = json_string_value(v);
        TT_FAIL_IF(strlen(text) != json_string_length(v), err, TT_BADFILE, "control byte in a recipe|%s|0x00", name);
        TT_TRY(check_text(text, json_string_length(v), err));
    } else if (json_is_integer(v)) snprintf(buf, sizeof buf, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v)) print_real(json_real_value(v), buf);
    else if (json_is_boolean(v)) text = json_is_true(v) ? "true" : "false";
    else return tt__fail(err, TT_BADFILE, "bad recipe|%s|null, list or object|a number, a text, true or false", name);
    return set_knob(r, name, strlen(name), text, err);
}

static tt_status json_step(tt_recipe *r, json_t *s, tt_err *err) {
    const char *key, *method = NULL;
    json_t *v, *knobs = NULL;
    TT_FAIL_IF(!json_is_object(s), err, TT_BADFILE, "bad recipe|steps[%zu]||an object", r->n);
    json_object_foreach(s, key, v) {
        if (strcmp(key, "method") == 0) method = json_string_value(v);
        else if (strcmp(key, "knobs") == 0) knobs = v;
        else return tt__fail(err, TT_BADFILE, "bad recipe|steps[%zu]|%s|method, knobs", r->n, key);
    }
    TT_FAIL_IF(!method, err, TT_BADFILE, "bad recipe|steps[%zu]||\"method\": a name", r->n);
    TT_FAIL_IF(knobs && !json_is_object(knobs), err, TT_BADFILE, "bad recipe|steps[%zu].knobs||an object", r->n);
    TT_TRY(add_step(r, method, strlen(method), err));
    json_object_foreach(knobs, key, v) TT_TRY(json_value(r, key, v, err));
    return check_step(r, err);
}

static tt_status json_recipe(tt_recipe *r, json_t *root, tt_err *err) {
    const char *key;
    json_t *v;
    size_t i;
    TT_FAIL_IF(!json_is_object(root), err, TT_BADFILE, "bad recipe|JSON form||an object");
    json_object_foreach(root, key, v)
        TT_FAIL_IF(strcmp(key, "trimtab_recipe") && strcmp(key, "steps") && strcmp(key, "provenance"), err, TT_BADFILE,
                   "bad recipe|JSON form|%s|trimtab_recipe, steps, provenance", key);
    const json_t *version = json_object_get(root, "trimtab_recipe");
    TT_FAIL_IF(!json_is_integer(version) || json_integer_value(version) != 1, err, TT_BADFILE, "unknown recipe version|trimtab_recipe||1");
    json_t *steps = json_object_get(root, "steps");
    TT_FAIL_IF(!json_is_array(steps) || json_array_size(steps) == 0, err, TT_BADFILE, "bad recipe|steps||a list of at least one step");
    json_array_foreach(steps, i, v) TT_TRY(json_step(r, v, err));
    return TT_OK;
}

static tt_status parse_json(const char *s, size_t n, tt_recipe *r, tt_err *err) {
    json_t *root = NULL;
    TT_TRY(tt__json_parse(s, n, "recipe", &root, err));
    tt_status st = json_recipe(r, root, err);
    json_decref(root);
    return st;
}

/* ------------------------------------------------------------------ public ---- */

tt_status tt_recipe_parse(const char *text, size_t bytes, tt_recipe **out, tt_err *err) {
    *out = NULL;
    TT_FAIL_IF(bytes > TT_LIMIT_RECIPE_BYTES, err, TT_BADFILE, "recipe too long|limit RECIPE_BYTES|%zu bytes|at most %" PRIu64, bytes, TT_LIMIT_RECIPE_BYTES);
    TT_TRY(check_text(text, bytes, err));
    char *copy = tt__strndup(text, bytes);       /* NUL-terminated, so that messages may quote what is left */
    tt_recipe *r = tt__calloc(1, sizeof *r + sizeof(step) * TT_LIMIT_RECIPE_STEPS);
    tt_status st = copy && r ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|recipe");
    if (st == TT_OK) {
        size_t first = strspn(copy, " \t\r\n");
        st = copy[first] == '{' ? parse_json(copy, bytes, r, err) : parse_line(copy, bytes, r, err);
    }
    tt__free(copy);
    if (st == TT_OK) *out = r;
    else tt_recipe_free(r);
    return st;
}

void tt_recipe_free(tt_recipe *r) {
    if (!r) return;
    tt__arena_free(&r->arena);
    tt__free(r);
}

size_t tt_recipe_step_count(const tt_recipe *r) { return r->n; }

const tt_method_info *tt_recipe_get_method(const tt_recipe *r, size_t i) { return i < r->n ? r->steps[i].method : NULL; }

const char *tt_recipe_get_value(const tt_recipe *r, size_t i, const char *knob) {
    if (i >= r->n) return NULL;
    const tt_knob *k = find_knob(r->steps[i].method, knob, strlen(knob));
    return k ? r->steps[i].value[k - r->steps[i].method->knobs] : NULL;
}

static void print_value(tt__str *out, const tt_knob *k, const char *v) {
    size_t n = strlen(v);
    bool text = k->type == TT_KNOB_PATH || k->type == TT_KNOB_TEXT;
    if (!text || (n > 0 && !strpbrk(v, ",()\"\\\r\n\t") && v[0] != ' ' && v[n - 1] != ' ')) {
        tt__str_puts(out, v);
        return;
    }
    tt__str_puts(out, "\"");
    for (; *v; v++) {
        if (*v == '"' || *v == '\\') tt__str_puts(out, "\\");
        tt__str_add(out, v, 1);
    }
    tt__str_puts(out, "\"");
}

static void print_step(tt__str *out, const step *s, bool with_defaults) {
    const char *sep = "(";
    for (size_t i = 0; i < s->method->n_knobs; i++) {
        const tt_knob *k = &s->method->knobs[i];
        if (with_defaults ? !active(s, k) : !s->given[i]) continue;
        tt__str_printf(out, "%s%s=", sep, k->name);
        print_value(out, k, s->value[i]);
        sep = ",";
    }
    if (*sep == ',') tt__str_puts(out, ")");
}

tt_status tt_recipe_line(const tt_recipe *r, bool with_defaults, char **line, tt_err *err) {
    tt__str out = {0};
    for (size_t i = 0; i < r->n; i++) {
        tt__str_printf(&out, "%s%s", i ? "+" : "", r->steps[i].method->name);
        print_step(&out, &r->steps[i], with_defaults);
    }
    if (out.failed || !out.s) {
        tt__str_free(&out);
        return tt__fail(err, TT_RESOURCE, "out of memory|recipe");
    }
    *line = out.s;
    return TT_OK;
}

/* Hashed step by step, so that it cannot fail. */
static void hash_text(tt__sha256 *h, const char *s) { tt__sha256_update(h, s, strlen(s) + 1); }

void tt_recipe_sha256(const tt_recipe *r, char out[65]) {
    tt__sha256 h;
    char version[24];
    tt__sha256_init(&h);
    hash_text(&h, "trimtab_recipe 1");
    for (size_t i = 0; i < r->n; i++) {
        const step *s = &r->steps[i];
        snprintf(version, sizeof version, "%d", s->method->version);
        hash_text(&h, s->method->name);
        hash_text(&h, version);
        for (size_t k = 0; k < s->method->n_knobs; k++) {
            if (!active(s, &s->method->knobs[k])) continue;
            hash_text(&h, s->method->knobs[k].name);
            hash_text(&h, s->value[k]);
        }
        hash_text(&h, "");
    }
    tt__sha256_final_hex(&h, out);
}

/* ------------------------------------------------------------------ for methods ---- */

/* A method asks only for knobs it declares: anything else is our own mistake. */
static const char *knob_text(const tt_knobs *k, const char *name) {
    const char *v = tt_recipe_get_value(k->recipe, k->step, name);
    assert(v && "a method asked for a knob that it does not declare");
    return v ? v : "";
}

const char *tt__knob_s(const tt_knobs *k, const char *name) { return knob_text(k, name); }

bool tt__knob_b(const tt_knobs *k, const char *name) { return strcmp(knob_text(k, name), "true") == 0; }

double tt__knob_f(const tt_knobs *k, const char *name) {
    double x = 0;
    bool ok = tt__parse_f64(knob_text(k, name), &x);
    assert(ok && "not a number");
    (void)ok;
    return x;
}

int64_t tt__knob_i(const tt_knobs *k, const char *name) {
    int64_t x = 0;
    bool ok = tt__parse_i64(knob_text(k, name), &x);
    assert(ok && "not a whole number");
    (void)ok;
    return x;
}
