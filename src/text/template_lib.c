/* Filters, tests, methods and functions of templates: the ones that public chat templates use. A new one is a function and a line. */
#include "base/err.h"
#include "text/template_int.h"
#include "text/unicode.h"
#include <stdlib.h>
#include <time.h>
#include <utf8proc.h>

/* ---- arguments ---- */
val tt__arg(cx *c, const args *a, size_t i, const char *name, val otherwise) {
    (void)c;
    if (i < a->n) return a->v[i];
    for (size_t k = 0; name && k < a->n_named; k++)
        if (tt__str_is(a->names[k], name)) return a->named[k];
    return otherwise;
}
static val required(cx *c, const args *a, size_t i, const char *name) {
    val v = tt__arg(c, a, i, name, tt__v_undefined(NULL));
    if (v.kind == V_UNDEFINED && i >= a->n) tt__tpl_fail(c, TT_BADFILE, "missing argument", name, NULL);
    return v;
}
static const str *string_of(cx *c, val v, const char *what) {
    if (v.kind != V_STRING) tt__tpl_fail(c, TT_BADFILE, what, v.kind == V_UNDEFINED && v.u.name ? v.u.name : tt__kind_name(v), "a string");
    return v.u.s;
}
static list *list_of(cx *c, val v) { return tt__to_list(c, v); }
static val text(const str *s) { return tt__v_str(s); }

/* ---- strings ---- */
static bool is_space(uint32_t cp) { return (cp >= 0x1C && cp <= 0x1F) || (tt__class(cp) & TT_UC_SPACE); }
static bool in_set(const str *set, const char *s, size_t n) {
    for (size_t i = 0, len; i < set->n; i += len) {
        tt__utf8_next((const uint8_t *)set->s + i, &len);
        if (len == n && memcmp(set->s + i, s, n) == 0) return true;
    }
    return false;
}

enum { LEFT = 1, RIGHT = 2 };
static val strip(cx *c, const str *s, val chars, int sides) {
    const str *set = chars.kind == V_STRING ? chars.u.s : NULL;
    size_t from = 0, to = s->n, len;
    while ((sides & LEFT) && from < to) {
        uint32_t cp = tt__utf8_next((const uint8_t *)s->s + from, &len);
        if (!(set ? in_set(set, s->s + from, len) : is_space(cp))) break;
        from += len;
    }
    while ((sides & RIGHT) && to > from) {
        uint32_t cp = tt__utf8_prev((const uint8_t *)s->s + from, to - from, &len);
        if (!(set ? in_set(set, s->s + to - len, len) : is_space(cp))) break;
        to -= len;
    }
    tt__tpl_step(c, (s->n - (to - from)) / 8 * (1 + (set ? set->n : 0)));
    return text(tt__str_sub(c, s, from, to));
}

/* TITLE is the method's: a word begins behind what is no letter; HEADLINE the filter's: behind a blank, a bracket or a hyphen. */
typedef enum case_kind { UPPER, LOWER, TITLE, HEADLINE, CAPITALIZE } case_kind;
static val change_case(cx *c, const str *s, case_kind how) {
    out o = {0};
    bool word = false;
    for (size_t i = 0, len; i < s->n; i += len) {
        uint32_t cp = tt__utf8_next((const uint8_t *)s->s + i, &len);
        bool up = how == UPPER || ((how == TITLE || how == HEADLINE) && !word) || (how == CAPITALIZE && i == 0);
        utf8proc_int32_t to = up ? utf8proc_toupper((utf8proc_int32_t)cp) : utf8proc_tolower((utf8proc_int32_t)cp);
        char buf[4];
        const uint8_t marks[4] = {s->mark[i], s->mark[i], s->mark[i], s->mark[i]};
        tt__out_add(c, &o, buf, marks, (size_t)tt__utf8_encode((uint32_t)to, buf));
        word = how == HEADLINE ? !is_space(cp) && !(cp && cp < 128 && strchr("-({[<", (int)cp)) : (tt__class(cp) & TT_UC_LETTER) != 0;
    }
    return text(tt__out_take(c, &o));
}

static val replace(cx *c, const str *s, const str *from, const str *to, int64_t count) {
    out o = {0};
    size_t at = 0;
    if (from->n == 0) tt__tpl_fail(c, TT_BADFILE, "replace", "an empty text", "a text to replace");
    while (count-- != 0) {
        size_t hit = tt__str_find(c, s, from, at);
        if (hit == SIZE_MAX) break;
        tt__tpl_step(c, 1);
        tt__out_add(c, &o, s->s + at, s->mark + at, hit - at);
        tt__out_str(c, &o, to);
        at = hit + from->n;
    }
    tt__out_add(c, &o, s->s + at, s->mark + at, s->n - at);
    return text(tt__out_take(c, &o));
}

static val split_spaces(cx *c, const str *s, int64_t max) {
    list *l = tt__list_new(c);
    for (size_t i = 0, len; i < s->n;) {
        while (i < s->n && is_space(tt__utf8_next((const uint8_t *)s->s + i, &len))) i += len;
        size_t from = i;
        if (i == s->n) break;
        if (max-- == 0) { tt__list_push(c, l, strip(c, tt__str_sub(c, s, from, s->n), tt__v_none(), RIGHT)); break; }
        while (i < s->n && !is_space(tt__utf8_next((const uint8_t *)s->s + i, &len))) i += len;
        tt__list_push(c, l, text(tt__str_sub(c, s, from, i)));
    }
    return tt__v_list(l);
}
static val split(cx *c, const str *s, val sep, int64_t max) {
    if (sep.kind == V_NONE) return split_spaces(c, s, max);
    const str *by = string_of(c, sep, "split");
    if (by->n == 0) tt__tpl_fail(c, TT_BADFILE, "split", "an empty separator", "a text");
    list *l = tt__list_new(c);
    size_t at = 0;
    for (size_t hit; max-- != 0 && (hit = tt__str_find(c, s, by, at)) != SIZE_MAX; at = hit + by->n) tt__list_push(c, l, text(tt__str_sub(c, s, at, hit)));
    tt__list_push(c, l, text(tt__str_sub(c, s, at, s->n)));
    return tt__v_list(l);
}

static bool affix(cx *c, const str *s, val what, bool end) {
    if (what.kind == V_LIST) {
        for (size_t i = 0; i < what.u.l->n; i++)
            if (affix(c, s, what.u.l->v[i], end)) return true;
        return false;
    }
    const str *w = string_of(c, what, "startswith");
    return w->n <= s->n && (w->n == 0 || memcmp(end ? s->s + s->n - w->n : s->s, w->s, w->n) == 0);
}

/* "{} and {name}".format(…): plain fields only. */
static val format(cx *c, const str *s, const args *a) {
    out o = {0};
    size_t next = 0;
    for (size_t i = 0; i < s->n; i++) {
        bool brace = s->s[i] == '{' || s->s[i] == '}';
        if (brace && i + 1 < s->n && s->s[i + 1] == s->s[i]) i++;
        else if (s->s[i] == '{') {
            const char *end = memchr(s->s + i, '}', s->n - i);
            if (!end) tt__tpl_fail(c, TT_BADFILE, "format", "a brace without partner", NULL);
            const str *name = tt__str_sub(c, s, i + 1, (size_t)(end - s->s));
            int64_t number;
            bool numbered = tt__parse_i64(name->s, &number) && number >= 0;
            val v = name->n == 0 ? required(c, a, next, "format") : numbered ? required(c, a, (size_t)number, "format") : required(c, a, SIZE_MAX, name->s);
            next += name->n == 0;
            tt__out_str(c, &o, tt__to_str(c, v));
            i = (size_t)(end - s->s);
            continue;
        }
        tt__out_add(c, &o, s->s + i, s->mark + i, 1);
    }
    return text(tt__out_take(c, &o));
}

static val indent(cx *c, const str *s, val width, bool first, bool blank) {
    out o = {0}, pad = {0};
    if (width.kind == V_STRING) tt__out_str(c, &pad, width.u.s);
    else for (int64_t i = width.kind == V_INT ? width.u.i : 4; i > 0; i--) tt__out_add(c, &pad, " ", NULL, 1);
    for (size_t at = 0; at <= s->n;) {
        const char *nl = at < s->n ? memchr(s->s + at, '\n', s->n - at) : NULL;
        size_t end = nl ? (size_t)(nl - s->s) : s->n;
        if ((at ? end > at || blank : first)) tt__out_add(c, &o, pad.s, pad.mark, pad.n);
        tt__out_add(c, &o, s->s + at, s->mark + at, end - at + (nl != NULL));
        at = end + 1;
    }
    return text(tt__out_take(c, &o));
}

/* ---- attributes ---- */
val tt__get_attr(cx *c, val v, const str *name) {
    if (v.kind == V_UNDEFINED) tt__tpl_fail(c, TT_BADFILE, "attribute of an undefined value", v.u.name, "a defined value");
    if (v.kind != V_DICT) return tt__v_undefined(name->s);
    const val *found = tt__dict_get(c, v.u.d, name);
    return found ? *found : tt__v_undefined(name->s);
}

/* "a.b" of map, selectattr and sort */
static val attribute_path(cx *c, val v, const str *path) {
    for (size_t at = 0; at <= path->n;) {
        const char *dot = at < path->n ? memchr(path->s + at, '.', path->n - at) : NULL;
        size_t end = dot ? (size_t)(dot - path->s) : path->n;
        v = tt__get_attr(c, v, tt__str_sub(c, path, at, end));
        if (v.kind == V_UNDEFINED) break;
        at = end + 1;
    }
    return v;
}

/* ---- lists ---- */
/* Stable merge sort; `fold`: letters without case, as Jinja2 sorts. */
static val sort_key(cx *c, val v, const str *attribute, bool fold) {
    if (attribute) v = attribute_path(c, v, attribute);
    return fold && v.kind == V_STRING ? change_case(c, v.u.s, LOWER) : v;
}
static void sort_pairs(cx *c, val *keys, val *vals, val *spare, size_t n, bool reverse) {
    if (n < 2) return;
    size_t mid = n / 2, i = 0, j = mid, k = 0;
    sort_pairs(c, keys, vals, spare, mid, reverse);
    sort_pairs(c, keys + mid, vals + mid, spare, n - mid, reverse);
    val *keys_out = spare, *vals_out = spare + n;
    while (k < n) {
        tt__tpl_step(c, 1);
        bool right = i == mid || (j < n && (reverse ? tt__compare(c, keys[j], keys[i]) > 0 : tt__compare(c, keys[j], keys[i]) < 0));
        keys_out[k] = right ? keys[j] : keys[i];
        vals_out[k++] = right ? vals[j++] : vals[i++];
    }
    memcpy(keys, keys_out, n * sizeof *keys);
    memcpy(vals, vals_out, n * sizeof *vals);
}
static list *sorted(cx *c, const list *in, const str *attribute, bool reverse, bool fold) {
    list *l = tt__list_new(c);
    val *keys = tt__tpl_alloc(c, (in->n + 1) * sizeof *keys), *spare = tt__tpl_alloc(c, (2 * in->n + 1) * sizeof *spare);
    for (size_t i = 0; i < in->n; i++) {
        tt__list_push(c, l, in->v[i]);
        keys[i] = sort_key(c, in->v[i], attribute, fold);
    }
    sort_pairs(c, keys, l->v, spare, l->n, reverse);
    return l;
}

static val pair(cx *c, val a, val b) {
    list *l = tt__list_new(c);
    l->tuple = true;
    tt__list_push(c, l, a);
    tt__list_push(c, l, b);
    return tt__v_list(l);
}
static val items(cx *c, val v) {
    list *l = tt__list_new(c);
    if (v.kind == V_UNDEFINED) return tt__v_list(l);
    if (v.kind != V_DICT) tt__tpl_fail(c, TT_BADFILE, "items", tt__kind_name(v), "a dictionary");
    for (size_t i = 0; i < v.u.d->n; i++) tt__list_push(c, l, pair(c, text(v.u.d->k[i]), v.u.d->v[i]));
    return tt__v_list(l);
}
static val values(cx *c, const dict *d) {
    list *l = tt__list_new(c);
    for (size_t i = 0; i < d->n; i++) tt__list_push(c, l, d->v[i]);
    return tt__v_list(l);
}

/* ---- filters ---- */
static val f_length(cx *c, val v, const args *a) {
    (void)a;
    if (v.kind == V_STRING) return tt__v_int((int64_t)tt__char_count(v.u.s));
    if (v.kind == V_DICT) return tt__v_int((int64_t)v.u.d->n);
    return tt__v_int((int64_t)list_of(c, v)->n);
}
static val f_trim(cx *c, val v, const args *a) { return strip(c, tt__to_str(c, v), tt__arg(c, a, 0, "chars", tt__v_none()), LEFT | RIGHT); }
static val f_string(cx *c, val v, const args *a) { (void)a; return text(tt__to_str(c, v)); }
static val f_safe(cx *c, val v, const args *a) { (void)c; (void)a; return v; }
static val f_upper(cx *c, val v, const args *a) { (void)a; return change_case(c, tt__to_str(c, v), UPPER); }
static val f_lower(cx *c, val v, const args *a) { (void)a; return change_case(c, tt__to_str(c, v), LOWER); }
static val f_title(cx *c, val v, const args *a) { (void)a; return change_case(c, tt__to_str(c, v), HEADLINE); }
static val m_title(cx *c, val v, const args *a) { (void)a; return change_case(c, v.u.s, TITLE); }
static val f_capitalize(cx *c, val v, const args *a) { (void)a; return change_case(c, tt__to_str(c, v), CAPITALIZE); }
static val f_default(cx *c, val v, const args *a) {
    bool falsy = tt__truth(tt__arg(c, a, 1, "boolean", tt__v_bool(false)));
    return v.kind == V_UNDEFINED || (falsy && !tt__truth(v)) ? tt__arg(c, a, 0, "default_value", text(tt__str_of(c, ""))) : v;
}
static val f_items(cx *c, val v, const args *a) { (void)a; return items(c, v); }
static val f_list(cx *c, val v, const args *a) {
    list *l = tt__list_new(c), *in = list_of(c, v);
    (void)a;
    for (size_t i = 0; i < in->n; i++) tt__list_push(c, l, in->v[i]);
    return tt__v_list(l);
}
static val f_first(cx *c, val v, const args *a) {
    list *l = list_of(c, v);
    (void)a;
    return l->n ? l->v[0] : tt__v_undefined("the first of nothing");
}
static val f_last(cx *c, val v, const args *a) {
    list *l = list_of(c, v);
    (void)a;
    return l->n ? l->v[l->n - 1] : tt__v_undefined("the last of nothing");
}
static val f_reverse(cx *c, val v, const args *a) {
    list *l = tt__list_new(c), *in = list_of(c, v);
    (void)a;
    for (size_t i = in->n; i-- > 0;) tt__list_push(c, l, in->v[i]);
    if (v.kind != V_STRING) return tt__v_list(l);
    out o = {0};
    for (size_t i = 0; i < l->n; i++) tt__out_str(c, &o, l->v[i].u.s);
    return text(tt__out_take(c, &o));
}
static val f_join(cx *c, val v, const args *a) {
    out o = {0};
    const str *by = tt__to_str(c, tt__arg(c, a, 0, "d", text(tt__str_of(c, ""))));
    val attribute = tt__arg(c, a, 1, "attribute", tt__v_none());
    list *l = list_of(c, v);
    for (size_t i = 0; i < l->n; i++) {
        if (i) tt__out_str(c, &o, by);
        tt__out_str(c, &o, tt__to_str(c, attribute.kind == V_STRING ? attribute_path(c, l->v[i], attribute.u.s) : l->v[i]));
    }
    return text(tt__out_take(c, &o));
}
static val f_replace(cx *c, val v, const args *a) {
    val count = tt__arg(c, a, 2, "count", tt__v_int(-1));
    return replace(c, tt__to_str(c, v), tt__to_str(c, required(c, a, 0, "old")), tt__to_str(c, required(c, a, 1, "new")), count.kind == V_INT ? count.u.i : -1);
}
static val f_tojson(cx *c, val v, const args *a) {
    val indentation = tt__arg(c, a, 2, "indent", a->n == 1 ? a->v[0] : tt__v_none());
    return text(tt__to_json(c, v, indentation.kind == V_INT && indentation.u.i >= 0 && indentation.u.i < 64 ? (int)indentation.u.i : -1));
}
static val f_indent(cx *c, val v, const args *a) {
    return indent(c, tt__to_str(c, v), tt__arg(c, a, 0, "width", tt__v_int(4)), tt__truth(tt__arg(c, a, 1, "first", tt__v_bool(false))),
                  tt__truth(tt__arg(c, a, 2, "blank", tt__v_bool(false))));
}
static val f_dictsort(cx *c, val v, const args *a) {
    val by = tt__arg(c, a, 1, "by", tt__v_none());
    bool value = by.kind == V_STRING && tt__str_is(by.u.s, "value"), cased = tt__truth(tt__arg(c, a, 0, "case_sensitive", tt__v_bool(false)));
    list *l = items(c, v).u.l, *out_list = tt__list_new(c);
    val *keys = tt__tpl_alloc(c, (l->n + 1) * sizeof *keys), *spare = tt__tpl_alloc(c, (2 * l->n + 1) * sizeof *spare);
    for (size_t i = 0; i < l->n; i++) {
        keys[i] = sort_key(c, l->v[i].u.l->v[value], NULL, !cased);
        tt__list_push(c, out_list, l->v[i]);
    }
    sort_pairs(c, keys, out_list->v, spare, l->n, tt__truth(tt__arg(c, a, 2, "reverse", tt__v_bool(false))));
    return tt__v_list(out_list);
}
static val f_sort(cx *c, val v, const args *a) {
    val attribute = tt__arg(c, a, 2, "attribute", tt__v_none());
    return tt__v_list(sorted(c, list_of(c, v), attribute.kind == V_STRING ? attribute.u.s : NULL, tt__truth(tt__arg(c, a, 0, "reverse", tt__v_bool(false))),
                             !tt__truth(tt__arg(c, a, 1, "case_sensitive", tt__v_bool(false)))));
}
static val f_unique(cx *c, val v, const args *a) {
    list *l = tt__list_new(c), *in = list_of(c, v);
    (void)a;
    for (size_t i = 0; i < in->n; i++) {
        bool seen = false;
        val key = sort_key(c, in->v[i], NULL, true);
        for (size_t k = 0; k < l->n && !seen; k++) seen = tt__equal(c, sort_key(c, l->v[k], NULL, true), key);
        if (!seen) tt__list_push(c, l, in->v[i]);
    }
    return tt__v_list(l);
}
static val f_int(cx *c, val v, const args *a) {
    int64_t i;
    double f;
    if (v.kind == V_INT) return v;
    if (v.kind == V_BOOL) return tt__v_int(v.u.b);
    if (v.kind == V_STRING) {
        const str *s = strip(c, v.u.s, tt__v_none(), LEFT | RIGHT).u.s;
        if (tt__parse_i64(s->s, &i)) return tt__v_int(i);
        if (tt__parse_f64(s->s, &f)) v = tt__v_float(f);
    }
    if (v.kind == V_FLOAT && v.u.f > -9.2e18 && v.u.f < 9.2e18) return tt__v_int((int64_t)v.u.f);
    return tt__arg(c, a, 0, "default", tt__v_int(0));
}
static val f_float(cx *c, val v, const args *a) {
    double f;
    if (v.kind == V_FLOAT) return v;
    if (v.kind == V_INT || v.kind == V_BOOL) return tt__v_float(v.kind == V_INT ? (double)v.u.i : v.u.b);
    if (v.kind == V_STRING && tt__parse_f64(strip(c, v.u.s, tt__v_none(), LEFT | RIGHT).u.s->s, &f)) return tt__v_float(f);
    return tt__arg(c, a, 0, "default", tt__v_float(0));
}
static val f_abs(cx *c, val v, const args *a) {
    (void)a;
    if (v.kind == V_FLOAT) return tt__v_float(v.u.f < 0 ? -v.u.f : v.u.f);
    if (v.kind != V_INT || v.u.i == INT64_MIN) tt__tpl_fail(c, TT_BADFILE, "abs", tt__kind_name(v), "a number");
    return tt__v_int(v.u.i < 0 ? -v.u.i : v.u.i);
}

/* The arguments behind the first `n`. */
static args rest(const args *a, size_t n) {
    args r = *a;
    r.v = a->n > n ? a->v + n : NULL;
    r.n = a->n > n ? a->n - n : 0;
    return r;
}
static val f_map(cx *c, val v, const args *a) {
    list *l = tt__list_new(c), *in = list_of(c, v);
    val attribute = tt__arg(c, a, SIZE_MAX, "attribute", tt__v_none()), otherwise = tt__arg(c, a, SIZE_MAX, "default", tt__v_none());
    bool by_filter = attribute.kind != V_STRING;
    const str *name = string_of(c, by_filter ? required(c, a, 0, "filter") : attribute, "map");
    args more = rest(a, 1);
    for (size_t i = 0; i < in->n; i++) {
        val x = by_filter ? tt__call_filter(c, name, in->v[i], &more) : attribute_path(c, in->v[i], name);
        tt__list_push(c, l, !by_filter && x.kind == V_UNDEFINED && otherwise.kind != V_NONE ? otherwise : x);
    }
    return tt__v_list(l);
}
/* select, reject: a test of the items; selectattr, rejectattr: of an attribute of them. No test: truth. */
static val filtered(cx *c, val v, const args *a, bool attr, bool keep) {
    list *l = tt__list_new(c), *in = list_of(c, v);
    const str *attribute = attr ? string_of(c, required(c, a, 0, "attribute"), "selectattr") : NULL;
    val test = tt__arg(c, a, attr, NULL, tt__v_none());
    args more = rest(a, (size_t)attr + 1);
    for (size_t i = 0; i < in->n; i++) {
        val x = attr ? attribute_path(c, in->v[i], attribute) : in->v[i];
        bool yes = test.kind == V_NONE ? tt__truth(x) : tt__call_test(c, string_of(c, test, "test"), x, &more);
        if (yes == keep) tt__list_push(c, l, in->v[i]);
    }
    return tt__v_list(l);
}
static val f_select(cx *c, val v, const args *a) { return filtered(c, v, a, false, true); }
static val f_reject(cx *c, val v, const args *a) { return filtered(c, v, a, false, false); }
static val f_selectattr(cx *c, val v, const args *a) { return filtered(c, v, a, true, true); }
static val f_rejectattr(cx *c, val v, const args *a) { return filtered(c, v, a, true, false); }

static const struct { const char *name; val (*fn)(cx *, val, const args *); } filters[] = {
    {"abs", f_abs}, {"capitalize", f_capitalize}, {"count", f_length}, {"d", f_default}, {"default", f_default}, {"dictsort", f_dictsort},
    {"first", f_first}, {"float", f_float}, {"indent", f_indent}, {"int", f_int}, {"items", f_items}, {"join", f_join}, {"last", f_last},
    {"length", f_length}, {"list", f_list}, {"lower", f_lower}, {"map", f_map}, {"reject", f_reject}, {"rejectattr", f_rejectattr},
    {"replace", f_replace}, {"reverse", f_reverse}, {"safe", f_safe}, {"select", f_select}, {"selectattr", f_selectattr}, {"sort", f_sort},
    {"string", f_string}, {"title", f_title}, {"tojson", f_tojson}, {"trim", f_trim}, {"unique", f_unique}, {"upper", f_upper},
};

val tt__call_filter(cx *c, const str *name, val v, const args *a) {
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++)
        if (tt__str_is(name, filters[i].name)) return filters[i].fn(c, v, a);
    tt__tpl_fail(c, TT_BADFILE, "unsupported filter in template", name->s, NULL);
}

/* ---- tests ---- */
typedef enum test_kind { IS_DEFINED, IS_UNDEFINED, IS_NONE, IS_STRING, IS_MAPPING, IS_ITERABLE, IS_SEQUENCE, IS_BOOLEAN, IS_TRUE, IS_FALSE, IS_NUMBER,
                         IS_INTEGER, IS_FLOAT, IS_CALLABLE, IS_ODD, IS_EVEN, IS_DIVISIBLE, IS_EQUAL, IS_UNEQUAL, IS_LESS, IS_MORE, IS_AT_MOST, IS_AT_LEAST,
                         IS_IN, IS_LOWER, IS_UPPER } test_kind;
static const struct { const char *name; test_kind kind; } tests[] = {
    {"defined", IS_DEFINED}, {"undefined", IS_UNDEFINED}, {"none", IS_NONE}, {"string", IS_STRING}, {"mapping", IS_MAPPING}, {"iterable", IS_ITERABLE},
    {"sequence", IS_SEQUENCE}, {"boolean", IS_BOOLEAN}, {"true", IS_TRUE}, {"false", IS_FALSE}, {"number", IS_NUMBER}, {"integer", IS_INTEGER},
    {"float", IS_FLOAT}, {"callable", IS_CALLABLE}, {"odd", IS_ODD}, {"even", IS_EVEN}, {"divisibleby", IS_DIVISIBLE}, {"eq", IS_EQUAL}, {"equalto", IS_EQUAL},
    {"==", IS_EQUAL}, {"sameas", IS_EQUAL}, {"ne", IS_UNEQUAL}, {"!=", IS_UNEQUAL}, {"lt", IS_LESS}, {"lessthan", IS_LESS}, {"<", IS_LESS}, {"gt", IS_MORE},
    {"greaterthan", IS_MORE}, {">", IS_MORE}, {"le", IS_AT_MOST}, {"<=", IS_AT_MOST}, {"ge", IS_AT_LEAST}, {">=", IS_AT_LEAST}, {"in", IS_IN},
    {"lower", IS_LOWER}, {"upper", IS_UPPER},
};

static int64_t integer_of(cx *c, val v) {
    if (v.kind != V_INT && v.kind != V_BOOL) tt__tpl_fail(c, TT_BADFILE, "test of a number", tt__kind_name(v), "an integer");
    return v.kind == V_INT ? v.u.i : v.u.b;
}
static bool in_case(cx *c, val v, case_kind how, case_kind other) {
    const str *s = tt__to_str(c, v);
    return tt__str_same(change_case(c, s, how).u.s, s) && !tt__str_same(change_case(c, s, other).u.s, s);
}

bool tt__call_test(cx *c, const str *name, val v, const args *a) {
    size_t i = 0;
    while (i < sizeof tests / sizeof tests[0] && !tt__str_is(name, tests[i].name)) i++;
    if (i == sizeof tests / sizeof tests[0]) tt__tpl_fail(c, TT_BADFILE, "unsupported test in template", name->s, NULL);
    kind k = v.kind;
    switch (tests[i].kind) {
    case IS_DEFINED: return k != V_UNDEFINED;
    case IS_UNDEFINED: return k == V_UNDEFINED;
    case IS_NONE: return k == V_NONE;
    case IS_STRING: return k == V_STRING;
    case IS_MAPPING: return k == V_DICT;
    case IS_ITERABLE: return k == V_STRING || k == V_LIST || k == V_DICT || k == V_UNDEFINED;
    case IS_SEQUENCE: return k == V_STRING || k == V_LIST || k == V_DICT || k == V_UNDEFINED;
    case IS_BOOLEAN: return k == V_BOOL;
    case IS_TRUE: return k == V_BOOL && v.u.b;
    case IS_FALSE: return k == V_BOOL && !v.u.b;
    case IS_NUMBER: return k == V_INT || k == V_FLOAT || k == V_BOOL;
    case IS_INTEGER: return k == V_INT;
    case IS_FLOAT: return k == V_FLOAT;
    case IS_CALLABLE: return k == V_MACRO || k == V_GLOBAL;
    case IS_ODD: return integer_of(c, v) % 2 != 0;
    case IS_EVEN: return integer_of(c, v) % 2 == 0;
    case IS_DIVISIBLE: {
        int64_t by = integer_of(c, required(c, a, 0, "num"));
        if (by == 0) tt__tpl_fail(c, TT_BADFILE, "division by zero", NULL, NULL);
        return by == -1 || integer_of(c, v) % by == 0;
    }
    case IS_EQUAL: return tt__equal(c, v, required(c, a, 0, "other"));
    case IS_UNEQUAL: return !tt__equal(c, v, required(c, a, 0, "other"));
    case IS_LESS: return tt__compare(c, v, required(c, a, 0, "other")) < 0;
    case IS_MORE: return tt__compare(c, v, required(c, a, 0, "other")) > 0;
    case IS_AT_MOST: return tt__compare(c, v, required(c, a, 0, "other")) <= 0;
    case IS_AT_LEAST: return tt__compare(c, v, required(c, a, 0, "other")) >= 0;
    case IS_IN: return tt__contains(c, v, required(c, a, 0, "seq"));
    case IS_LOWER: return in_case(c, v, LOWER, UPPER);
    case IS_UPPER: return in_case(c, v, UPPER, LOWER);
    }
    return false;
}

/* ---- methods ---- */
static int64_t count_arg(cx *c, const args *a, size_t i, const char *name) {
    val v = tt__arg(c, a, i, name, tt__v_int(-1));
    return v.kind == V_INT ? v.u.i : -1;
}
static val first_arg(cx *c, const args *a) { return tt__arg(c, a, 0, NULL, tt__v_none()); }

static val m_strip(cx *c, val v, const args *a) { return strip(c, v.u.s, first_arg(c, a), LEFT | RIGHT); }
static val m_lstrip(cx *c, val v, const args *a) { return strip(c, v.u.s, first_arg(c, a), LEFT); }
static val m_rstrip(cx *c, val v, const args *a) { return strip(c, v.u.s, first_arg(c, a), RIGHT); }
static val m_split(cx *c, val v, const args *a) { return split(c, v.u.s, tt__arg(c, a, 0, "sep", tt__v_none()), count_arg(c, a, 1, "maxsplit")); }
static val m_splitlines(cx *c, val v, const args *a) {
    list *l = split(c, v.u.s, text(tt__str_of(c, "\n")), -1).u.l;
    (void)a;
    if (l->v[l->n - 1].u.s->n == 0) l->n--;
    return tt__v_list(l);
}
static val m_startswith(cx *c, val v, const args *a) { return tt__v_bool(affix(c, v.u.s, required(c, a, 0, "prefix"), false)); }
static val m_endswith(cx *c, val v, const args *a) { return tt__v_bool(affix(c, v.u.s, required(c, a, 0, "suffix"), true)); }
static val m_replace(cx *c, val v, const args *a) {
    return replace(c, v.u.s, string_of(c, required(c, a, 0, "old"), "replace"), string_of(c, required(c, a, 1, "new"), "replace"), count_arg(c, a, 2, "count"));
}
static val m_format(cx *c, val v, const args *a) { return format(c, v.u.s, a); }
static val m_join(cx *c, val v, const args *a) {
    list *l = list_of(c, required(c, a, 0, "iterable"));
    out o = {0};
    for (size_t i = 0; i < l->n; i++) {
        if (i) tt__out_str(c, &o, v.u.s);
        tt__out_str(c, &o, string_of(c, l->v[i], "join"));
    }
    return text(tt__out_take(c, &o));
}
static val m_find(cx *c, val v, const args *a) {
    size_t at = tt__str_find(c, v.u.s, string_of(c, required(c, a, 0, "sub"), "find"), 0);
    return tt__v_int(at == SIZE_MAX ? -1 : (int64_t)tt__char_count(tt__str_sub(c, v.u.s, 0, at)));
}
static val m_count(cx *c, val v, const args *a) {
    const str *w = string_of(c, required(c, a, 0, "sub"), "count");
    int64_t n = 0;
    for (size_t at = 0; w->n && (at = tt__str_find(c, v.u.s, w, at)) != SIZE_MAX; at += w->n) n++;
    return tt__v_int(n);
}
static val m_append(cx *c, val v, const args *a) {
    tt__list_push(c, v.u.l, required(c, a, 0, "object"));
    return tt__v_none();
}
static val m_list_pop(cx *c, val v, const args *a) {
    list *l = v.u.l;
    val at = tt__arg(c, a, 0, NULL, tt__v_int(-1));
    int64_t i = at.kind == V_INT ? at.u.i : -1;
    if (i < 0) i += (int64_t)l->n;
    if (i < 0 || (uint64_t)i >= l->n) tt__tpl_fail(c, TT_BADFILE, "pop", "a place outside the list", NULL);
    val gone = l->v[i];
    tt__tpl_step(c, l->n / 8);
    memmove(l->v + i, l->v + i + 1, (l->n - (size_t)i - 1) * sizeof *l->v);
    l->n--;
    return gone;
}
static val m_get(cx *c, val v, const args *a) {
    val k = required(c, a, 0, "key");
    const val *found = k.kind == V_STRING ? tt__dict_get(c, v.u.d, k.u.s) : NULL;
    return found ? *found : tt__arg(c, a, 1, "default", tt__v_none());
}
static val m_items(cx *c, val v, const args *a) { (void)a; return items(c, v); }
static val m_keys(cx *c, val v, const args *a) { (void)a; return tt__v_list(list_of(c, v)); }
static val m_values(cx *c, val v, const args *a) { (void)a; return values(c, v.u.d); }
static val m_dict_pop(cx *c, val v, const args *a) {
    dict *d = v.u.d;
    const str *k = string_of(c, required(c, a, 0, "key"), "pop");
    size_t i = 0;
    if (d->k == c->loop_keys) tt__tpl_fail(c, TT_BADFILE, "pop", "loop", "a dictionary of the template's own");
    while (i < d->n && !tt__str_same(d->k[i], k)) i++;
    if (i == d->n) return required(c, a, 1, "default");
    val gone = d->v[i];
    memmove(d->k + i, d->k + i + 1, (d->n - i - 1) * sizeof *d->k);
    memmove(d->v + i, d->v + i + 1, (d->n - i - 1) * sizeof *d->v);
    d->n--;
    return gone;
}

static const struct { kind kind; const char *name; val (*fn)(cx *, val, const args *); } methods[] = {
    {V_STRING, "strip", m_strip}, {V_STRING, "lstrip", m_lstrip}, {V_STRING, "rstrip", m_rstrip}, {V_STRING, "split", m_split},
    {V_STRING, "splitlines", m_splitlines}, {V_STRING, "startswith", m_startswith}, {V_STRING, "endswith", m_endswith}, {V_STRING, "replace", m_replace},
    {V_STRING, "format", m_format}, {V_STRING, "join", m_join}, {V_STRING, "find", m_find}, {V_STRING, "count", m_count}, {V_STRING, "upper", f_upper},
    {V_STRING, "lower", f_lower}, {V_STRING, "title", m_title}, {V_STRING, "capitalize", f_capitalize},
    {V_LIST, "append", m_append}, {V_LIST, "pop", m_list_pop},
    {V_DICT, "get", m_get}, {V_DICT, "items", m_items}, {V_DICT, "keys", m_keys}, {V_DICT, "values", m_values}, {V_DICT, "pop", m_dict_pop},
};

static size_t method_index(val v, const str *name) {
    size_t i = 0, n = sizeof methods / sizeof methods[0];
    while (i < n && !(methods[i].kind == v.kind && tt__str_is(name, methods[i].name))) i++;
    return i;
}
bool tt__has_method(val v, const str *name) { return method_index(v, name) < sizeof methods / sizeof methods[0]; }
val tt__call_method(cx *c, val v, const str *name, const args *a) {
    tt__tpl_step(c, 1);
    return methods[method_index(v, name)].fn(c, v, a);
}

/* ---- functions ---- */
static val g_raise(cx *c, const args *a) {
    const str *s = tt__to_str(c, first_arg(c, a));
    tt__tpl_fail(c, TT_USAGE, "the chat template refuses this conversation", s->s, NULL);
}
/* A list, within the budget: 100,000 numbers at most. */
static val g_range(cx *c, const args *a) {
    int64_t from = 0, to = integer_of(c, required(c, a, 0, "stop")), step = a->n > 2 ? integer_of(c, a->v[2]) : 1;
    if (a->n > 1) { from = to; to = integer_of(c, a->v[1]); }
    if (step == 0) tt__tpl_fail(c, TT_BADFILE, "range", "a step of 0", NULL);
    list *l = tt__list_new(c);
    for (int64_t i = from; step > 0 ? i < to : i > to;) {
        if (l->n == 100000) tt__tpl_fail(c, TT_BADFILE, "range too long", NULL, "at most 100000 numbers");
        tt__list_push(c, l, tt__v_int(i));
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    return tt__v_list(l);
}
static val make_dict(cx *c, const args *a, bool namespace) {
    dict *d = tt__dict_new(c);
    d->namespace = namespace;
    if (a->n && a->v[0].kind == V_DICT)
        for (size_t i = 0; i < a->v[0].u.d->n; i++) tt__dict_set(c, d, a->v[0].u.d->k[i], a->v[0].u.d->v[i]);
    for (size_t i = 0; i < a->n_named; i++) tt__dict_set(c, d, a->names[i], a->named[i]);
    return (val){.kind = V_DICT, .u.d = d};
}
static val g_namespace(cx *c, const args *a) { return make_dict(c, a, true); }
static val g_dict(cx *c, const args *a) { return make_dict(c, a, false); }
static val g_strftime_now(cx *c, const args *a) {
    char buf[256];
    struct tm tm;
    time_t now = time(NULL);
    localtime_r(&now, &tm);
    const str *s = string_of(c, required(c, a, 0, "format"), "strftime_now");
    if (s->n > 100) tt__tpl_fail(c, TT_BADFILE, "strftime_now", "a long format", "at most 100 bytes");
    size_t n = strftime(buf, sizeof buf, s->s, &tm);
    return text(tt__str_new(c, buf, n, 0));
}

static const struct { const char *name; val (*fn)(cx *, const args *); } globals[] = {
    {"raise_exception", g_raise}, {"range", g_range}, {"namespace", g_namespace}, {"dict", g_dict}, {"strftime_now", g_strftime_now},
};
bool tt__is_global(const str *name) {
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (tt__str_is(name, globals[i].name)) return true;
    return false;
}
val tt__call_global(cx *c, const char *name, const args *a) {
    size_t i = 0;
    while (strcmp(globals[i].name, name) != 0) i++;
    return globals[i].fn(c, a);
}
