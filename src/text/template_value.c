/* Values of templates: strings with marks, lists, dictionaries in order of insertion, and their text forms as Python writes them. */
#include "base/checked.h"
#include "base/err.h"
#include "base/limits.h"
#include "text/template_int.h"
#include "text/unicode.h"
#include <math.h>
#include <stdio.h>

/* ---- budgets ---- */
enum { ARENA = 128 << 20 };                            /* bytes of one rendering: 8 times its largest output */

_Noreturn void tt__tpl_fail(cx *c, tt_status st, const char *what, const char *got, const char *expected) {
    c->status = tt__fail(c->err, st, "%s|chat template, line %d|%s|%s", what, c->line, got ? got : "", expected ? expected : "");
    tt__unwind_leave(&c->fail);
}

void tt__tpl_step(cx *c, uint64_t n) {
    c->steps += n;
    if (c->steps > TT_LIMIT_TEMPLATE_STEPS) tt__tpl_fail(c, TT_BADFILE, "template works too long", NULL, "at most 5000000 steps (TEMPLATE_STEPS)");
}

void *tt__tpl_alloc(cx *c, size_t bytes) {
    if (bytes > ARENA - c->arena_bytes) tt__tpl_fail(c, TT_BADFILE, "template needs too much memory", NULL, "at most 128 MiB");
    c->arena_bytes += bytes;
    void *p = tt__arena_alloc(&c->arena, bytes ? bytes : 1);
    if (!p) tt__tpl_fail(c, TT_RESOURCE, "out of memory", NULL, NULL);
    return p;
}

/* ---- strings ---- */
/* Room for n bytes and their marks; copying costs work, so that doubling a string in a loop ends. */
static str *str_room(cx *c, size_t n, char **s, uint8_t **mark) {
    str *r = tt__tpl_alloc(c, sizeof *r);
    char *p = tt__tpl_alloc(c, 2 * n + 1);
    tt__tpl_step(c, n / 64);
    *s = p;
    *mark = (uint8_t *)p + n + 1;
    *r = (str){p, *mark, n};
    return r;
}

str *tt__str_new(cx *c, const char *s, size_t n, uint8_t mark) {
    char *p;
    uint8_t *m;
    str *r = str_room(c, n, &p, &m);
    if (n) memcpy(p, s, n);
    memset(m, mark, n);
    return r;
}
const str *tt__str_of(cx *c, const char *text) { return tt__str_new(c, text, strlen(text), 0); }

const str *tt__str_sub(cx *c, const str *s, size_t from, size_t to) {
    char *p;
    uint8_t *m;
    if (from == 0 && to == s->n) return s;
    str *r = str_room(c, to - from, &p, &m);
    memcpy(p, s->s + from, to - from);
    memcpy(m, s->mark + from, to - from);
    return r;
}

bool tt__str_is(const str *s, const char *text) { return s->n == strlen(text) && memcmp(s->s, text, s->n) == 0; }
bool tt__str_same(const str *a, const str *b) { return a->n == b->n && memcmp(a->s, b->s, a->n) == 0; }

size_t tt__str_find(cx *c, const str *in, const str *what, size_t from) {
    if (what->n == 0) return from <= in->n ? from : SIZE_MAX;
    for (size_t i = from, begun = from; i < in->n && what->n <= in->n - i; i++) {
        const char *p = memchr(in->s + i, what->s[0], in->n - i - what->n + 1);
        if (!p) return SIZE_MAX;
        i = (size_t)(p - in->s);
        tt__tpl_step(c, (i - begun) / 64 + what->n / 64);      /* work follows what was looked at */
        begun = i;
        if (memcmp(p, what->s, what->n) == 0) return i;
    }
    return SIZE_MAX;
}

size_t tt__char_count(const str *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) n += (s->s[i] & 0xC0) != 0x80;
    return n;
}
size_t tt__char_at(const str *s, size_t index) {
    size_t i = 0;
    for (; i < s->n; i++)
        if ((s->s[i] & 0xC0) != 0x80 && index-- == 0) break;
    return i;
}

/* ---- output ---- */
void tt__out_add(cx *c, out *o, const char *s, const uint8_t *mark, size_t n) {
    if (n == 0) return;
    if (n > TT_LIMIT_TEMPLATE_OUTPUT - o->n) tt__tpl_fail(c, TT_BADFILE, "template writes too much", NULL, "at most 16 MiB (TEMPLATE_OUTPUT)");
    if (n > o->cap - o->n) {
        size_t cap = 2 * (o->n + n) + 16;
        char *p = tt__tpl_alloc(c, 2 * cap);
        if (o->n) memcpy(p, o->s, o->n);
        if (o->n) memcpy(p + cap, o->mark, o->n);
        *o = (out){p, (uint8_t *)p + cap, o->n, cap};
    }
    tt__tpl_step(c, n / 64);
    memcpy(o->s + o->n, s, n);
    if (mark) memcpy(o->mark + o->n, mark, n);
    else memset(o->mark + o->n, 0, n);
    o->n += n;
}
void tt__out_str(cx *c, out *o, const str *s) { tt__out_add(c, o, s->s, s->mark, s->n); }
static void put(cx *c, out *o, const char *s) { tt__out_add(c, o, s, NULL, strlen(s)); }

const str *tt__out_take(cx *c, out *o) {
    str *r = tt__tpl_alloc(c, sizeof *r);
    *r = (str){o->s ? o->s : "", o->s ? o->mark : (const uint8_t *)"", o->n};
    *o = (out){0};
    return r;
}

/* ---- lists and dictionaries ---- */
list *tt__list_new(cx *c) { return tt__tpl_alloc(c, sizeof(list)); }
void tt__list_push(cx *c, list *l, val v) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 8;
        val *p = tt__tpl_alloc(c, cap * sizeof *p);
        if (l->n) memcpy(p, l->v, l->n * sizeof *p);
        l->v = p;
        l->cap = cap;
    }
    tt__tpl_step(c, 1);
    l->v[l->n++] = v;
}
val tt__v_list(list *l) { return (val){.kind = V_LIST, .u.l = l}; }

dict *tt__dict_new(cx *c) { return tt__tpl_alloc(c, sizeof(dict)); }
static size_t dict_index(cx *c, const dict *d, const str *k) {
    size_t i = 0;
    while (i < d->n && !tt__str_same(d->k[i], k)) i++;
    tt__tpl_step(c, i / 8);
    return i;
}
void tt__dict_set(cx *c, dict *d, const str *k, val v) {
    size_t i = dict_index(c, d, k);
    if (i == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 8;
        const str **keys = tt__tpl_alloc(c, cap * sizeof *keys);
        val *vals = tt__tpl_alloc(c, cap * sizeof *vals);
        if (d->n) memcpy(keys, d->k, d->n * sizeof *keys);
        if (d->n) memcpy(vals, d->v, d->n * sizeof *vals);
        d->k = keys;
        d->v = vals;
        d->cap = cap;
    }
    if (i == d->n) d->k[d->n++] = k;
    d->v[i] = v;
}
const val *tt__dict_get(cx *c, const dict *d, const str *k) {
    size_t i = dict_index(c, d, k);
    return i < d->n ? &d->v[i] : NULL;
}

/* Strings and keys from outside are text. The depth was checked when the JSON was read. */
val tt__from_json(cx *c, const json_t *j) {
    size_t i;
    const char *key;
    json_t *item;
    tt__tpl_step(c, 1);
    switch (json_typeof(j)) {
    case JSON_STRING: return tt__v_str(tt__str_new(c, json_string_value(j), json_string_length(j), 1));
    case JSON_INTEGER: return tt__v_int(json_integer_value(j));
    case JSON_REAL: return tt__v_float(json_real_value(j));
    case JSON_TRUE: case JSON_FALSE: return tt__v_bool(json_is_true(j));
    case JSON_NULL: return tt__v_none();
    case JSON_ARRAY: {
        list *l = tt__list_new(c);
        json_array_foreach(j, i, item) tt__list_push(c, l, tt__from_json(c, item));
        return tt__v_list(l);
    }
    case JSON_OBJECT: {
        dict *d = tt__dict_new(c);
        json_object_foreach((json_t *)(uintptr_t)j, key, item) tt__dict_set(c, d, tt__str_new(c, key, strlen(key), 1), tt__from_json(c, item));
        return (val){.kind = V_DICT, .u.d = d};
    }
    }
    return tt__v_none();
}

/* ---- questions ---- */
const char *tt__kind_name(val v) {
    static const char *const names[] = {"undefined", "none", "a boolean", "an integer", "a float", "a string", "a list", "a dictionary", "a macro", "a function"};
    return names[v.kind];
}

bool tt__truth(val v) {
    switch (v.kind) {
    case V_UNDEFINED: case V_NONE: return false;
    case V_BOOL: return v.u.b;
    case V_INT: return v.u.i != 0;
    case V_FLOAT: return v.u.f != 0;
    case V_STRING: return v.u.s->n != 0;
    case V_LIST: return v.u.l->n != 0;
    case V_DICT: return v.u.d->namespace || v.u.d->n != 0;
    default: return true;
    }
}

static bool is_number(val v) { return v.kind == V_BOOL || v.kind == V_INT || v.kind == V_FLOAT; }
static double number(val v) { return v.kind == V_FLOAT ? v.u.f : v.kind == V_INT ? (double)v.u.i : v.u.b; }

static void deeper(cx *c) {
    if (++c->depth > 1000) tt__tpl_fail(c, TT_BADFILE, "value nested too deep", NULL, "at most 1000 levels");
    tt__tpl_step(c, 1);
}

static bool same_items(cx *c, const val *a, const val *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!tt__equal(c, a[i], b[i])) return false;
    return true;
}
static bool same_dicts(cx *c, const dict *a, const dict *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        const val *other = tt__dict_get(c, b, a->k[i]);
        if (!other || !tt__equal(c, a->v[i], *other)) return false;
    }
    return true;
}

bool tt__equal(cx *c, val a, val b) {
    if (is_number(a) && is_number(b)) return a.kind != V_FLOAT && b.kind != V_FLOAT ? (a.kind == V_INT ? a.u.i : a.u.b) == (b.kind == V_INT ? b.u.i : b.u.b) : number(a) == number(b);
    if (a.kind != b.kind) return false;
    deeper(c);
    bool same = true;
    switch (a.kind) {
    case V_STRING: same = tt__str_same(a.u.s, b.u.s); break;
    case V_LIST: same = a.u.l->n == b.u.l->n && same_items(c, a.u.l->v, b.u.l->v, a.u.l->n); break;
    case V_DICT: same = a.u.d == b.u.d || same_dicts(c, a.u.d, b.u.d); break;
    case V_MACRO: same = a.u.m == b.u.m; break;
    case V_GLOBAL: same = strcmp(a.u.name, b.u.name) == 0; break;
    default: break;
    }
    c->depth--;
    return same;
}

int tt__compare(cx *c, val a, val b) {
    if (is_number(a) && is_number(b)) return number(a) < number(b) ? -1 : number(a) > number(b);
    if (a.kind == V_STRING && b.kind == V_STRING) {
        size_t n = a.u.s->n < b.u.s->n ? a.u.s->n : b.u.s->n;
        int d = n ? memcmp(a.u.s->s, b.u.s->s, n) : 0;
        return d ? d : a.u.s->n < b.u.s->n ? -1 : a.u.s->n > b.u.s->n;
    }
    if (a.kind == V_LIST && b.kind == V_LIST) {
        deeper(c);
        int d = 0;
        size_t i = 0;
        for (; i < a.u.l->n && i < b.u.l->n && !d; i++)
            if (!tt__equal(c, a.u.l->v[i], b.u.l->v[i])) d = tt__compare(c, a.u.l->v[i], b.u.l->v[i]);
        c->depth--;
        return d ? d : a.u.l->n < b.u.l->n ? -1 : a.u.l->n > b.u.l->n;
    }
    tt__tpl_fail(c, TT_BADFILE, "values cannot be compared", tt__kind_name(a.kind == V_STRING ? b : a), "two numbers or two strings");
}

bool tt__contains(cx *c, val item, val in) {
    switch (in.kind) {
    case V_STRING:
        if (item.kind != V_STRING) tt__tpl_fail(c, TT_BADFILE, "'in' a string", tt__kind_name(item), "a string");
        return tt__str_find(c, in.u.s, item.u.s, 0) != SIZE_MAX;
    case V_LIST:
        for (size_t i = 0; i < in.u.l->n; i++)
            if (tt__equal(c, item, in.u.l->v[i])) return true;
        return false;
    case V_DICT: return item.kind == V_STRING && tt__dict_get(c, in.u.d, item.u.s) != NULL;
    case V_UNDEFINED: return false;
    default: tt__tpl_fail(c, TT_BADFILE, "'in' a value without members", tt__kind_name(in), "a string, list or dictionary");
    }
}

list *tt__to_list(cx *c, val v) {
    list *l = tt__list_new(c);
    switch (v.kind) {
    case V_UNDEFINED: return l;
    case V_LIST: return v.u.l;
    case V_DICT:
        for (size_t i = 0; i < v.u.d->n; i++) tt__list_push(c, l, tt__v_str(v.u.d->k[i]));
        return l;
    case V_STRING:
        for (size_t i = 0, n; i < v.u.s->n; i += n) {
            tt__utf8_next((const uint8_t *)v.u.s->s + i, &n);
            tt__list_push(c, l, tt__v_str(tt__str_sub(c, v.u.s, i, i + n)));
        }
        return l;
    default: tt__tpl_fail(c, TT_BADFILE, "value has no items", tt__kind_name(v), "a list, dictionary or string");
    }
}

/* ---- text forms ---- */
/* Shortest decimal that reads back, as Python prints it; buf of 40. */
static void format_float(double f, char *buf) {
    if (isnan(f) || isinf(f)) { snprintf(buf, 40, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf"); return; }
    int precision = 1;
    char e[40];
    for (; precision <= 17; precision++) {
        snprintf(e, sizeof e, "%.*e", precision - 1, f);
        double back;
        if (tt__parse_f64(e, &back) && back == f) break;
    }
    const char *mark = strchr(e, 'e');
    int64_t exponent = 0;
    if (mark && tt__parse_i64(mark + 2, &exponent) && mark[1] == '-') exponent = -exponent;
    if (exponent < -4 || exponent >= 16) { snprintf(buf, 40, "%s", e); return; }
    int decimals = precision - 1 - (int)exponent;
    snprintf(buf, 40, "%.*f", decimals > 1 ? decimals : 1, f);
}

/* A string between quotes: Python's repr (single quotes unless only those occur) or JSON. */
static void put_quoted(cx *c, out *o, const str *s, bool json) {
    char quote = json || (memchr(s->s, '\'', s->n) && !memchr(s->s, '"', s->n)) ? '"' : '\'', esc[8];
    tt__out_add(c, o, &quote, NULL, 1);
    for (size_t i = 0; i < s->n;) {
        size_t from = i;
        while (i < s->n && (uint8_t)s->s[i] >= 0x20 && s->s[i] != '\\' && s->s[i] != quote && (json || s->s[i] != 0x7F)) i++;
        if (i > from) tt__out_add(c, o, s->s + from, s->mark + from, i - from);
        if (i == s->n) break;
        char ch = s->s[i];
        const char *p = ch ? strchr("\nn\rr\tt\bb\ff", ch) : NULL;
        if (ch == '\\' || ch == quote) snprintf(esc, sizeof esc, "\\%c", ch);
        else if (p && (json || strchr("\n\r\t", ch))) snprintf(esc, sizeof esc, "\\%c", p[1]);
        else snprintf(esc, sizeof esc, json ? "\\u%04x" : "\\x%02x", (unsigned)(uint8_t)ch);
        const uint8_t marks[8] = {s->mark[i], s->mark[i], s->mark[i], s->mark[i], s->mark[i], s->mark[i]};
        tt__out_add(c, o, esc, marks, strlen(esc));
        i++;
    }
    tt__out_add(c, o, &quote, NULL, 1);
}

static void put_scalar(cx *c, out *o, val v, bool json) {
    char buf[48];
    switch (v.kind) {
    case V_NONE: put(c, o, json ? "null" : "None"); break;
    case V_BOOL: put(c, o, v.u.b ? (json ? "true" : "True") : json ? "false" : "False"); break;
    case V_INT: snprintf(buf, sizeof buf, "%lld", (long long)v.u.i); put(c, o, buf); break;
    case V_FLOAT: format_float(v.u.f, buf); put(c, o, json && isnan(v.u.f) ? "NaN" : json && isinf(v.u.f) ? (v.u.f < 0 ? "-Infinity" : "Infinity") : buf); break;
    case V_STRING: put_quoted(c, o, v.u.s, json); break;
    default:
        if (json) tt__tpl_fail(c, TT_BADFILE, "value has no JSON form", tt__kind_name(v), "data");
        put(c, o, v.kind == V_UNDEFINED ? "Undefined" : v.kind == V_MACRO ? "<Macro>" : "<function>");
    }
}

typedef struct style { bool json; int indent; } style;
static void new_line(cx *c, out *o, style st, int level) {
    if (st.indent < 0) return;
    put(c, o, "\n");
    for (int i = 0; i < st.indent * level; i++) put(c, o, " ");
}
static void put_value(cx *c, out *o, val v, style st, int level) {
    size_t n = v.kind == V_LIST ? v.u.l->n : v.kind == V_DICT ? v.u.d->n : 0;
    if (v.kind != V_LIST && v.kind != V_DICT) { put_scalar(c, o, v, st.json); return; }
    deeper(c);
    bool is_list = v.kind == V_LIST, tuple = is_list && v.u.l->tuple && !st.json;
    put(c, o, tuple ? "(" : is_list ? "[" : "{");
    for (size_t i = 0; i < n; i++) {
        if (i) put(c, o, st.indent < 0 ? ", " : ",");
        new_line(c, o, st, level + 1);
        if (!is_list) { put_quoted(c, o, v.u.d->k[i], st.json); put(c, o, ": "); }
        put_value(c, o, is_list ? v.u.l->v[i] : v.u.d->v[i], st, level + 1);
    }
    if (n) new_line(c, o, st, level);
    put(c, o, tuple ? (n == 1 ? ",)" : ")") : is_list ? "]" : "}");
    c->depth--;
}

const str *tt__to_str(cx *c, val v) {
    out o = {0};
    if (v.kind == V_STRING) return v.u.s;
    if (v.kind != V_UNDEFINED) put_value(c, &o, v, (style){false, -1}, 0);
    return tt__out_take(c, &o);
}
const str *tt__to_json(cx *c, val v, int indent) {
    out o = {0};
    put_value(c, &o, v, (style){true, indent}, 0);
    return tt__out_take(c, &o);
}
