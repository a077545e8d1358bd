/* The evaluator: one function per kind of node. Names live in a chain of scopes; a loop's body and a macro open one, `if` does not, as in
 * Jinja2. Work, depth, calls and output are counted as they happen, so that nested loops share one budget (RELIABILITY J1). */
#include "base/err.h"
#include "base/limits.h"
#include "text/template_int.h"
#include <math.h>

enum { MAX_DEPTH = 1000, MAX_CALLS = 64 };

/* ---- scopes ---- */
static scope *push_scope(cx *c, scope *up) {
    scope *s = tt__tpl_alloc(c, sizeof *s);
    s->up = up;
    return c->scope = s;
}

static val *find_in(cx *c, scope *s, const str *name) {
    for (size_t i = 0; i < s->n; i++)
        if (tt__str_same(s->k[i], name)) { tt__tpl_step(c, i / 8); return &s->v[i]; }
    tt__tpl_step(c, s->n / 8);
    return NULL;
}

static void assign(cx *c, scope *s, const str *name, val v) {
    val *old = find_in(c, s, name);
    if (old) { *old = v; return; }
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 4;
        const str **k = tt__tpl_alloc(c, cap * sizeof *k);
        val *w = tt__tpl_alloc(c, cap * sizeof *w);
        if (s->n) memcpy(k, s->k, s->n * sizeof *k);
        if (s->n) memcpy(w, s->v, s->n * sizeof *w);
        s->k = k;
        s->v = w;
        s->cap = cap;
    }
    s->k[s->n] = name;
    s->v[s->n++] = v;
}

static val lookup(cx *c, const str *name) {
    for (scope *s = c->scope; s; s = s->up) {
        val *v = find_in(c, s, name);
        if (v) return *v;
    }
    if (tt__is_global(name)) return (val){.kind = V_GLOBAL, .u.name = name->s};
    return tt__v_undefined(name->s);
}

/* `set` and `for` targets: a name, several, or an attribute of a namespace. */
static void assign_target(cx *c, scope *s, const node *t, val v) {
    if (t->op == N_NAME) { assign(c, s, t->name, v); return; }
    if (t->op == N_ATTR) {
        val ns = lookup(c, t->a->name);
        if (ns.kind != V_DICT || !ns.u.d->namespace) tt__tpl_fail(c, TT_BADFILE, "cannot set an attribute", tt__kind_name(ns), "a namespace");
        tt__dict_set(c, ns.u.d, t->name, v);
        return;
    }
    list *l = tt__to_list(c, v);
    size_t i = 0;
    for (const node *n = t->args; n; n = n->next, i++)
        if (i < l->n) assign(c, s, n->name, l->v[i]);
    if (i != l->n) tt__tpl_fail(c, TT_BADFILE, "cannot unpack", tt__kind_name(v), "as many items as names");
}

/* ---- arithmetic ---- */
static bool is_number(val v) { return v.kind == V_BOOL || v.kind == V_INT || v.kind == V_FLOAT; }
static double real(val v) { return v.kind == V_FLOAT ? v.u.f : v.kind == V_INT ? (double)v.u.i : v.u.b; }
static int64_t whole(val v) { return v.kind == V_INT ? v.u.i : v.u.b; }

static _Noreturn void bad_operands(cx *c, const char *what, val a, val b) {
    tt__tpl_fail(c, TT_BADFILE, what, tt__kind_name(is_number(a) ? b : a), "numbers, or two of one kind");
}

/* Python: // rounds down, % has the sign of the divisor. */
static bool integer_op(cx *c, node_op o, int64_t a, int64_t b, int64_t *r) {
    switch (o) {
    case N_ADD: return !__builtin_add_overflow(a, b, r);
    case N_SUB: return !__builtin_sub_overflow(a, b, r);
    case N_MUL: return !__builtin_mul_overflow(a, b, r);
    case N_FLOORDIV: case N_MOD:
        if (b == 0) tt__tpl_fail(c, TT_BADFILE, "division by zero", NULL, NULL);
        if (b == -1) { *r = 0; return o == N_MOD || !__builtin_sub_overflow((int64_t)0, a, r); }
        *r = o == N_MOD ? a % b : a / b - (a % b != 0 && (a < 0) != (b < 0));
        if (o == N_MOD && *r != 0 && (*r < 0) != (b < 0)) *r += b;
        return true;
    default: return false;
    }
}
static double real_op(cx *c, node_op o, double a, double b) {
    if ((o == N_DIV || o == N_FLOORDIV || o == N_MOD) && b == 0) tt__tpl_fail(c, TT_BADFILE, "division by zero", NULL, NULL);
    switch (o) {
    case N_ADD: return a + b;
    case N_SUB: return a - b;
    case N_MUL: return a * b;
    case N_DIV: return a / b;
    case N_FLOORDIV: return floor(a / b);
    case N_POW: return pow(a, b);
    default: return a - b * floor(a / b);
    }
}

static val integer_power(cx *c, int64_t a, int64_t b) {
    int64_t r = 1;
    for (; b > 0; b--) {
        tt__tpl_step(c, 1);
        if (__builtin_mul_overflow(r, a, &r)) tt__tpl_fail(c, TT_BADFILE, "number too large", NULL, "64 bits");
        if (r == 0 || (r == 1 && a == 1)) break;
    }
    return tt__v_int(r);
}

static val join_strings(cx *c, const str *a, const str *b) {
    out o = {0};
    tt__out_str(c, &o, a);
    tt__out_str(c, &o, b);
    return tt__v_str(tt__out_take(c, &o));
}
static val repeat(cx *c, val v, int64_t times) {
    out o = {0};
    list *l = tt__list_new(c);
    for (int64_t i = 0; i < times; i++) {
        tt__tpl_step(c, 1);
        if (v.kind == V_STRING) tt__out_str(c, &o, v.u.s);
        else for (size_t k = 0; k < v.u.l->n; k++) tt__list_push(c, l, v.u.l->v[k]);
    }
    return v.kind == V_STRING ? tt__v_str(tt__out_take(c, &o)) : tt__v_list(l);
}

static val arithmetic(cx *c, node_op o, val a, val b) {
    static const char *const names[] = {[N_ADD] = "+", [N_SUB] = "-", [N_MUL] = "*", [N_DIV] = "/", [N_FLOORDIV] = "//", [N_MOD] = "%", [N_POW] = "**"};
    if (o == N_ADD && a.kind == V_STRING && b.kind == V_STRING) return join_strings(c, a.u.s, b.u.s);
    if (o == N_ADD && a.kind == V_LIST && b.kind == V_LIST) {
        list *l = tt__list_new(c);
        for (size_t i = 0; i < a.u.l->n; i++) tt__list_push(c, l, a.u.l->v[i]);
        for (size_t i = 0; i < b.u.l->n; i++) tt__list_push(c, l, b.u.l->v[i]);
        return tt__v_list(l);
    }
    if (o == N_MUL && (a.kind == V_STRING || a.kind == V_LIST) && b.kind == V_INT) return repeat(c, a, b.u.i);
    if (!is_number(a) || !is_number(b)) bad_operands(c, names[o], a, b);
    if (a.kind == V_FLOAT || b.kind == V_FLOAT || o == N_DIV) return tt__v_float(real_op(c, o, real(a), real(b)));
    if (o == N_POW) return whole(b) < 0 ? tt__v_float(pow(real(a), real(b))) : integer_power(c, whole(a), whole(b));
    int64_t r;
    if (!integer_op(c, o, whole(a), whole(b), &r)) tt__tpl_fail(c, TT_BADFILE, "number too large", NULL, "64 bits");
    return tt__v_int(r);
}

/* ---- items and slices ---- */
static val item_of(cx *c, val v, val k) {
    if (v.kind == V_UNDEFINED) tt__tpl_fail(c, TT_BADFILE, "item of an undefined value", v.u.name, "a list, dictionary or string");
    if (v.kind == V_DICT && k.kind == V_STRING) {
        const val *found = tt__dict_get(c, v.u.d, k.u.s);
        return found ? *found : tt__v_undefined(k.u.s->s);
    }
    if (k.kind == V_INT && (v.kind == V_LIST || v.kind == V_STRING)) {
        int64_t n = (int64_t)(v.kind == V_LIST ? v.u.l->n : tt__char_count(v.u.s)), i = k.u.i < 0 ? k.u.i + n : k.u.i;
        if (i < 0 || i >= n) return tt__v_undefined("item");
        if (v.kind == V_LIST) return v.u.l->v[i];
        return tt__v_str(tt__str_sub(c, v.u.s, tt__char_at(v.u.s, (size_t)i), tt__char_at(v.u.s, (size_t)i + 1)));
    }
    if (k.kind == V_STRING) return tt__get_attr(c, v, k.u.s);
    return tt__v_undefined("item");
}

static int64_t bound(cx *c, const node *n, int64_t otherwise, int64_t len, int64_t low) {
    val v = n ? tt__tpl_eval(c, n) : tt__v_none();
    if (v.kind == V_NONE) return otherwise;
    if (v.kind != V_INT) tt__tpl_fail(c, TT_BADFILE, "slice", tt__kind_name(v), "integers");
    int64_t i = v.u.i < 0 ? (v.u.i < -len ? low : v.u.i + len) : v.u.i;
    return i > len + low ? len + low : i < low ? low : i;
}

/* [from:to:step] as Python: with a negative step the bounds run from −1 to n − 1. */
static val slice_of(cx *c, const node *n, val v) {
    if (v.kind != V_LIST && v.kind != V_STRING) tt__tpl_fail(c, TT_BADFILE, "slice", tt__kind_name(v), "a list or a string");
    int64_t len = (int64_t)(v.kind == V_LIST ? v.u.l->n : tt__char_count(v.u.s)), step = 1;
    val s = n->args ? tt__tpl_eval(c, n->args) : tt__v_none();
    if (s.kind == V_INT) step = s.u.i;
    if (step == 0 || step < -len - 1 || (s.kind != V_INT && s.kind != V_NONE)) {
        if (step == 0 || s.kind != V_INT) tt__tpl_fail(c, TT_BADFILE, "slice step", tt__kind_name(s), "an integer other than 0");
        step = -len - 1;
    }
    if (step > len + 1) step = len + 1;
    int64_t low = step < 0 ? -1 : 0, from = bound(c, n->b, step < 0 ? len - 1 : 0, len, low), to = bound(c, n->c, step < 0 ? -1 : len, len, low);
    if (v.kind == V_STRING && step == 1) return tt__v_str(from >= to ? tt__str_of(c, "") : tt__str_sub(c, v.u.s, tt__char_at(v.u.s, (size_t)from), tt__char_at(v.u.s, (size_t)to)));
    const list *all = tt__to_list(c, v);
    list *l = tt__list_new(c);
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step) tt__list_push(c, l, all->v[i]);
    if (v.kind == V_LIST) return tt__v_list(l);
    out o = {0};
    for (size_t i = 0; i < l->n; i++) tt__out_str(c, &o, l->v[i].u.s);
    return tt__v_str(tt__out_take(c, &o));
}

/* ---- calls ---- */
static args eval_args(cx *c, const node *first) {
    args a = {0};
    size_t n = 0;
    for (const node *p = first; p; p = p->next) n++;
    if (!n) return a;
    a.v = tt__tpl_alloc(c, n * sizeof *a.v);
    a.named = tt__tpl_alloc(c, n * sizeof *a.named);
    a.names = tt__tpl_alloc(c, n * sizeof *a.names);
    for (const node *p = first; p; p = p->next) {
        val v = tt__tpl_eval(c, p->a);
        if (p->name) { a.names[a.n_named] = p->name; a.named[a.n_named++] = v; }
        else a.v[a.n++] = v;
    }
    return a;
}

static val call_macro(cx *c, const macro *m, const args *a) {
    scope *caller = c->scope;
    out *to = c->to, o = {0};
    if (++c->calls > MAX_CALLS) tt__tpl_fail(c, TT_BADFILE, "macros call one another too deep", NULL, "at most 64 calls");
    scope *s = push_scope(c, m->home);
    size_t i = 0;
    for (const node *p = m->def->args; p; p = p->next, i++) {
        val otherwise = p->a && i >= a->n ? tt__tpl_eval(c, p->a) : tt__v_undefined(p->name->s);
        assign(c, s, p->name, tt__arg(c, a, i, p->name->s, otherwise));
    }
    if (a->n > i) tt__tpl_fail(c, TT_BADFILE, "too many arguments", m->def->name->s, "as many as the macro names");
    c->to = &o;
    tt__tpl_run(c, m->def->b);
    c->to = to;
    c->scope = caller;
    c->calls--;
    return tt__v_str(tt__out_take(c, &o));
}

static val call_value(cx *c, val f, const args *a) {
    if (f.kind == V_MACRO) return call_macro(c, f.u.m, a);
    if (f.kind == V_GLOBAL) return tt__call_global(c, f.u.name, a);
    tt__tpl_fail(c, TT_BADFILE, "not a function", f.kind == V_UNDEFINED ? f.u.name : tt__kind_name(f), "a macro, a function or a method");
}

static val call(cx *c, const node *n) {
    const node *f = n->a;
    if (f->op == N_ATTR) {                             /* a method, unless the dictionary holds a macro of that name */
        val base = tt__tpl_eval(c, f->a);
        args a = eval_args(c, n->args);
        c->line = n->line;
        if (tt__has_method(base, f->name)) return tt__call_method(c, base, f->name, &a);
        val member = tt__get_attr(c, base, f->name);
        return call_value(c, member, &a);
    }
    val v = tt__tpl_eval(c, f);
    args a = eval_args(c, n->args);
    c->line = n->line;
    return call_value(c, v, &a);
}

/* ---- expressions ---- */
static bool holds(cx *c, const str *o, val a, val b) {
    if (tt__str_is(o, "==")) return tt__equal(c, a, b);
    if (tt__str_is(o, "!=")) return !tt__equal(c, a, b);
    if (tt__str_is(o, "in")) return tt__contains(c, a, b);
    if (tt__str_is(o, "not in")) return !tt__contains(c, a, b);
    int d = tt__compare(c, a, b);
    bool equal = o->n == 2 && d == 0;
    return equal || (o->s[0] == '<' ? d < 0 : d > 0);
}
static val compare(cx *c, const node *n) {
    val left = tt__tpl_eval(c, n->a);
    for (const node *p = n->args; p; p = p->next) {
        val right = tt__tpl_eval(c, p->a);
        if (!holds(c, p->name, left, right)) return tt__v_bool(false);
        left = right;
    }
    return tt__v_bool(true);
}

static val make_list(cx *c, const node *n) {
    list *l = tt__list_new(c);
    l->tuple = n->flag;
    for (const node *p = n->args; p; p = p->next) tt__list_push(c, l, tt__tpl_eval(c, p));
    return tt__v_list(l);
}
static val make_dict(cx *c, const node *n) {
    dict *d = tt__dict_new(c);
    for (const node *p = n->args; p; p = p->next->next) {
        val k = tt__tpl_eval(c, p);
        if (k.kind != V_STRING) tt__tpl_fail(c, TT_BADFILE, "dictionary key", tt__kind_name(k), "a string");
        tt__dict_set(c, d, k.u.s, tt__tpl_eval(c, p->next));
    }
    return (val){.kind = V_DICT, .u.d = d};
}

static val negative(cx *c, const node *n) {
    val v = tt__tpl_eval(c, n->a);
    if (!is_number(v)) tt__tpl_fail(c, TT_BADFILE, "sign of a value", tt__kind_name(v), "a number");
    if (n->op == N_POS) return v;
    return v.kind == V_FLOAT ? tt__v_float(-v.u.f) : arithmetic(c, N_SUB, tt__v_int(0), v);
}

static val eval(cx *c, const node *n) {
    switch (n->op) {
    case N_LITERAL: return n->v;
    case N_NAME: return lookup(c, n->name);
    case N_LIST: return make_list(c, n);
    case N_DICT: return make_dict(c, n);
    case N_ATTR: return tt__get_attr(c, tt__tpl_eval(c, n->a), n->name);
    case N_ITEM: {
        val v = tt__tpl_eval(c, n->a);
        return item_of(c, v, tt__tpl_eval(c, n->b));
    }
    case N_SLICE: return slice_of(c, n, tt__tpl_eval(c, n->a));
    case N_CALL: return call(c, n);
    case N_FILTER: {
        val v = tt__tpl_eval(c, n->a);
        args a = eval_args(c, n->args);
        c->line = n->line;
        return tt__call_filter(c, n->name, v, &a);
    }
    case N_TEST: {
        val v = tt__tpl_eval(c, n->a);
        args a = eval_args(c, n->args);
        c->line = n->line;
        return tt__v_bool(tt__call_test(c, n->name, v, &a) != n->flag);
    }
    case N_NEG: case N_POS: return negative(c, n);
    case N_NOT: return tt__v_bool(!tt__truth(tt__tpl_eval(c, n->a)));
    case N_AND: {
        val v = tt__tpl_eval(c, n->a);
        return tt__truth(v) ? tt__tpl_eval(c, n->b) : v;
    }
    case N_OR: {
        val v = tt__tpl_eval(c, n->a);
        return tt__truth(v) ? v : tt__tpl_eval(c, n->b);
    }
    case N_COND:
        if (tt__truth(tt__tpl_eval(c, n->a))) return tt__tpl_eval(c, n->b);
        return n->c ? tt__tpl_eval(c, n->c) : tt__v_undefined("the value of an if without else");
    case N_COMPARE: return compare(c, n);
    case N_CONCAT: {
        const str *a = tt__to_str(c, tt__tpl_eval(c, n->a));
        return join_strings(c, a, tt__to_str(c, tt__tpl_eval(c, n->b)));
    }
    default: {
        val a = tt__tpl_eval(c, n->a), b = tt__tpl_eval(c, n->b);
        c->line = n->line;
        return arithmetic(c, n->op, a, b);
    }
    }
}

val tt__tpl_eval(cx *c, const node *n) {
    if (++c->depth > MAX_DEPTH) tt__tpl_fail(c, TT_BADFILE, "template nested too deep", NULL, "at most 1000 levels at run time");
    tt__tpl_step(c, 1);
    c->line = n->line;
    val v = eval(c, n);
    c->depth--;
    return v;
}

/* ---- statements ---- */
static int run_if(cx *c, const node *n) {
    for (; n; n = n->c)
        if (!n->a || tt__truth(tt__tpl_eval(c, n->a))) return tt__tpl_run(c, n->b);
    return FLOW_NEXT;
}

/* The `loop` of one turn. Its keys are made once per rendering. */
static val loop_value(cx *c, const list *l, size_t i) {
    static const char *const names[LOOP_KEYS] = {"index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem"};
    const val v[LOOP_KEYS] = {
        tt__v_int((int64_t)i + 1), tt__v_int((int64_t)i), tt__v_bool(i == 0), tt__v_bool(i + 1 == l->n), tt__v_int((int64_t)l->n),
        tt__v_int((int64_t)(l->n - i)), tt__v_int((int64_t)(l->n - i - 1)),
        i ? l->v[i - 1] : tt__v_undefined("loop.previtem"), i + 1 < l->n ? l->v[i + 1] : tt__v_undefined("loop.nextitem"),
    };
    for (int k = 0; k < LOOP_KEYS && !c->loop_keys[k]; k++) c->loop_keys[k] = tt__str_of(c, names[k]);
    dict *d = tt__dict_new(c);
    *d = (dict){.k = c->loop_keys, .v = tt__tpl_alloc(c, sizeof v), .n = LOOP_KEYS, .cap = LOOP_KEYS};
    memcpy(d->v, v, sizeof v);
    return (val){.kind = V_DICT, .u.d = d};
}

/* The items for which the loop's own condition holds: `loop` counts only these. */
static list *chosen(cx *c, const node *n, list *all) {
    scope *outer = c->scope;
    if (!n->c->c) return all;
    list *l = tt__list_new(c);
    for (size_t i = 0; i < all->n; i++) {
        assign_target(c, push_scope(c, outer), n->a, all->v[i]);
        if (tt__truth(tt__tpl_eval(c, n->c->c))) tt__list_push(c, l, all->v[i]);
    }
    c->scope = outer;
    return l;
}

static int run_for(cx *c, const node *n) {
    scope *outer = c->scope;
    const str *loop = tt__str_of(c, "loop");
    list *l = chosen(c, n, tt__to_list(c, tt__tpl_eval(c, n->b)));
    for (size_t i = 0; i < l->n; i++) {
        scope *s = push_scope(c, outer);
        tt__tpl_step(c, 8);                            /* a turn makes a scope and a `loop` */
        assign(c, s, loop, loop_value(c, l, i));
        assign_target(c, s, n->a, l->v[i]);
        if (tt__tpl_run(c, n->c->a) == FLOW_BREAK) break;
    }
    c->scope = outer;
    return l->n == 0 && n->c->b ? tt__tpl_run(c, n->c->b) : FLOW_NEXT;
}

/* Runs a body into a string of its own and sends that through the filters that hang on n->c, whose innermost operand is n->args. */
static val captured(cx *c, const node *n, int *flow) {
    out *to = c->to, o = {0};
    scope *outer = c->scope;
    c->to = &o;
    push_scope(c, outer);
    *flow = tt__tpl_run(c, n->b);
    c->scope = outer;
    c->to = to;
    n->args->v = tt__v_str(tt__out_take(c, &o));
    return tt__tpl_eval(c, n->c);
}

static int run_statement(cx *c, const node *n) {
    int flow = FLOW_NEXT;
    switch (n->op) {
    case S_DATA: tt__out_str(c, c->to, n->v.u.s); break;
    case S_PRINT: tt__out_str(c, c->to, tt__to_str(c, tt__tpl_eval(c, n->a))); break;
    case S_IF: return run_if(c, n);
    case S_FOR: return run_for(c, n);
    case S_SET: assign_target(c, c->scope, n->a, tt__tpl_eval(c, n->b)); break;
    case S_SET_BLOCK: assign_target(c, c->scope, n->a, captured(c, n, &flow)); break;
    case S_FILTER: tt__out_str(c, c->to, tt__to_str(c, captured(c, n, &flow))); break;
    case S_DO: tt__tpl_eval(c, n->a); break;
    case S_MACRO: {
        macro *m = tt__tpl_alloc(c, sizeof *m);
        *m = (macro){n, c->scope};
        assign(c, c->scope, n->name, (val){.kind = V_MACRO, .u.m = m});
        break;
    }
    case S_BREAK: return FLOW_BREAK;
    default: return FLOW_CONTINUE;
    }
    return flow;
}

int tt__tpl_run(cx *c, const node *body) {
    int flow = FLOW_NEXT;
    if (++c->depth > MAX_DEPTH) tt__tpl_fail(c, TT_BADFILE, "template nested too deep", NULL, "at most 1000 levels at run time");
    for (const node *n = body->args; n && flow == FLOW_NEXT; n = n->next) {
        tt__tpl_step(c, 1);
        c->line = n->line;
        flow = n->op == S_DATA && n->v.kind != V_STRING ? tt__tpl_run(c, n) : run_statement(c, n);   /* a body within a body: generation */
    }
    c->depth--;
    return flow;
}
