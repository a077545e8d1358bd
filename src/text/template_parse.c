/* Tokens into nodes: recursive descent after the grammar of Jinja2 3.1, whose precedence it keeps:
 *
 *   a if b else c  >  or  >  and  >  not  >  == != < <= > >= in  >  + -  >  ~  >  * / // %  >  **  >  unary - +  >  . [] () | is
 *
 * The depth of a node is one more than that of its deepest child; both it and the parser's own recursion are bounded. */
#include "base/err.h"
#include "base/limits.h"
#include "text/template_int.h"

static _Noreturn void fail(cx *c, const char *what, const char *expected) {
    const token *t = c->tok;
    static const char *const names[] = {"text", "{%", "%}", "{{", "}}", NULL, "a string", "a number", "a number", NULL, "the end"};
    char got[80];
    const char *name = names[t->type];
    size_t n = t->s && t->s->n < 60 ? t->s->n : 60;
    if (!name) { memcpy(got, t->s->s, n < t->s->n ? n : t->s->n); got[n < t->s->n ? n : t->s->n] = 0; }
    c->line = t->line;
    tt__tpl_fail(c, TT_BADFILE, what, name ? name : got, expected);
}

static node *new_node(cx *c, node_op o) {
    node *n = tt__tpl_alloc(c, sizeof *n);
    n->op = o;
    n->line = c->tok->line;
    n->depth = 1;
    return n;
}

/* Fixes the depth after the children of n are known. */
static node *settle(cx *c, node *n) {
    node *const parts[] = {n->a, n->b, n->c};
    int deepest = 0;
    for (int i = 0; i < 3; i++)
        if (parts[i] && parts[i]->depth > deepest) deepest = parts[i]->depth;
    for (const node *p = n->args; p; p = p->next)
        if (p->depth > deepest) deepest = p->depth;
    n->depth = deepest + 1;
    if (n->depth > (int)TT_LIMIT_TEMPLATE_DEPTH) fail(c, "template nested too deep", "at most 128 levels (TEMPLATE_DEPTH)");
    return n;
}
static node *binary(cx *c, node_op o, node *a, node *b) {
    node *n = new_node(c, o);
    n->a = a;
    n->b = b;
    return settle(c, n);
}

static void enter(cx *c) {
    if (++c->depth > (int)TT_LIMIT_TEMPLATE_DEPTH) fail(c, "template nested too deep", "at most 128 levels (TEMPLATE_DEPTH)");
}
static void leave(cx *c) { c->depth--; }

/* ---- looking at tokens ---- */
static bool at_op(const cx *c, const char *op) { return c->tok->type == T_OP && tt__str_is(c->tok->s, op); }
static bool at_word(const cx *c, const char *word) { return c->tok->type == T_NAME && tt__str_is(c->tok->s, word); }
static bool take_op(cx *c, const char *op) { return at_op(c, op) && c->tok++; }
static bool take_word(cx *c, const char *word) { return at_word(c, word) && c->tok++; }
static void want_op(cx *c, const char *op) { if (!take_op(c, op)) fail(c, "template syntax", op); }
static void want(cx *c, token_type t, const char *expected) {
    if (c->tok->type != t) fail(c, "template syntax", expected);
    c->tok++;
}
static const str *want_name(cx *c) {
    if (c->tok->type != T_NAME) fail(c, "template syntax", "a name");
    return c->tok++->s;
}

/* ---- expressions ---- */
static node *expression(cx *c);
static node *unary(cx *c, bool with_filter);

static node *literal(cx *c, val v) {
    node *n = new_node(c, N_LITERAL);
    n->v = v;
    return n;
}

/* Items up to `close`; a tuple in brackets when commas make one. */
static node *items(cx *c, const char *close, node *n, node **last) {
    while (!take_op(c, close)) {
        node *e = expression(c);
        *last = e;
        last = &e->next;
        if (!at_op(c, close)) want_op(c, ",");
    }
    return settle(c, n);
}

static node *parenthesis(cx *c) {
    node *n = new_node(c, N_LIST);
    n->flag = true;
    c->tok++;
    if (take_op(c, ")")) return n;
    node *first = expression(c);
    if (take_op(c, ")")) return first;
    want_op(c, ",");
    n->args = first;
    return items(c, ")", n, &first->next);
}

static node *list_literal(cx *c) {
    node *n = new_node(c, N_LIST);
    c->tok++;
    return items(c, "]", n, &n->args);
}

/* Keys and values alternate in args. */
static node *dict_literal(cx *c) {
    node *n = new_node(c, N_DICT), **last = &n->args;
    c->tok++;
    while (!take_op(c, "}")) {
        node *k = expression(c);
        want_op(c, ":");
        k->next = expression(c);
        *last = k;
        last = &k->next->next;
        if (!at_op(c, "}")) want_op(c, ",");
    }
    return settle(c, n);
}

static node *string_literal(cx *c) {
    const str *s = c->tok++->s;
    if (c->tok->type != T_STRING) return literal(c, tt__v_str(s));
    out joined = {0};                                  /* "a" "b" */
    tt__out_str(c, &joined, s);
    while (c->tok->type == T_STRING) tt__out_str(c, &joined, c->tok++->s);
    return literal(c, tt__v_str(tt__out_take(c, &joined)));
}

static node *name_or_word(cx *c) {
    static const struct { const char *word; val v; } words[] = {
        {"true", {.kind = V_BOOL, .u.b = true}}, {"True", {.kind = V_BOOL, .u.b = true}}, {"false", {.kind = V_BOOL}}, {"False", {.kind = V_BOOL}},
        {"none", {.kind = V_NONE}}, {"None", {.kind = V_NONE}},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (take_word(c, words[i].word)) return literal(c, words[i].v);
    node *n = new_node(c, N_NAME);
    n->name = want_name(c);
    return n;
}

static node *primary(cx *c) {
    switch (c->tok->type) {
    case T_NAME: return name_or_word(c);
    case T_STRING: return string_literal(c);
    case T_INT: return literal(c, tt__v_int(c->tok++->i));
    case T_FLOAT: return literal(c, tt__v_float(c->tok++->f));
    case T_OP:
        if (at_op(c, "(")) return parenthesis(c);
        if (at_op(c, "[")) return list_literal(c);
        if (at_op(c, "{")) return dict_literal(c);
        break;
    default: break;
    }
    fail(c, "template syntax", "an expression");
}

/* (a, b, key=c), the bracket already taken */
static node *arguments(cx *c) {
    node *first = NULL, **last = &first;
    while (!take_op(c, ")")) {
        node *arg = new_node(c, N_ARG);
        if (at_op(c, "*") || at_op(c, "**")) fail(c, "unsupported in templates", "arguments one by one");
        if (c->tok->type == T_NAME && c->tok[1].type == T_OP && tt__str_is(c->tok[1].s, "=")) {
            arg->name = want_name(c);
            c->tok++;
        }
        arg->a = expression(c);
        *last = settle(c, arg);
        last = &arg->next;
        if (!at_op(c, ")")) want_op(c, ",");
    }
    return first;
}

static node *subscript(cx *c, node *base) {
    node *n = new_node(c, N_ITEM);
    n->a = base;
    if (!at_op(c, ":")) n->b = expression(c);
    if (at_op(c, ":")) {                               /* [from:to:step] */
        n->op = N_SLICE;
        c->tok++;
        if (!at_op(c, "]") && !at_op(c, ":")) n->c = expression(c);
        if (take_op(c, ":") && !at_op(c, "]")) n->args = expression(c);
    }
    want_op(c, "]");
    return settle(c, n);
}

static node *call(cx *c, node *base) {
    node *n = new_node(c, N_CALL);
    n->a = base;
    n->args = arguments(c);
    return settle(c, n);
}

static node *postfix(cx *c, node *n) {
    for (;;) {
        if (take_op(c, ".")) {
            node *p = new_node(c, c->tok->type == T_INT ? N_ITEM : N_ATTR);
            p->a = n;
            if (p->op == N_ITEM) p->b = literal(c, tt__v_int(c->tok++->i));
            else p->name = want_name(c);
            n = settle(c, p);
        } else if (take_op(c, "[")) {
            n = subscript(c, n);
        } else if (take_op(c, "(")) {
            n = call(c, n);
        } else {
            return n;
        }
    }
}

static node *filter(cx *c, node *base) {
    node *n = new_node(c, N_FILTER);
    n->a = base;
    n->name = want_name(c);
    if (take_op(c, "(")) n->args = arguments(c);
    return settle(c, n);
}

/* A test takes one bare argument, as in `is divisibleby 3`. */
static bool begins_argument(const cx *c) {
    if (c->tok->type == T_NAME) return !at_word(c, "else") && !at_word(c, "or") && !at_word(c, "and") && !at_word(c, "is") && !at_word(c, "if") && !at_word(c, "in");
    return c->tok->type == T_STRING || c->tok->type == T_INT || c->tok->type == T_FLOAT || at_op(c, "[") || at_op(c, "{");
}
static node *test(cx *c, node *base) {
    node *n = new_node(c, N_TEST);
    n->a = base;
    n->flag = take_word(c, "not");
    n->name = want_name(c);
    if (take_op(c, "(")) {
        n->args = arguments(c);
    } else if (begins_argument(c)) {
        node *arg = new_node(c, N_ARG);
        arg->a = postfix(c, primary(c));
        n->args = settle(c, arg);
    }
    return settle(c, n);
}

static node *filters_and_tests(cx *c, node *n) {
    for (;;) {
        if (take_op(c, "|")) n = filter(c, n);
        else if (take_word(c, "is")) n = test(c, n);
        else if (take_op(c, "(")) n = call(c, n);
        else return n;
    }
}

static node *unary(cx *c, bool with_filter) {
    node *n;
    enter(c);
    if (at_op(c, "-") || at_op(c, "+")) {
        n = new_node(c, at_op(c, "-") ? N_NEG : N_POS);
        c->tok++;
        n->a = unary(c, false);
        n = settle(c, n);
    } else {
        n = primary(c);
    }
    n = postfix(c, n);
    if (with_filter) n = filters_and_tests(c, n);
    leave(c);
    return n;
}

static node *power(cx *c) {
    node *n = unary(c, true);
    while (take_op(c, "**")) n = binary(c, N_POW, n, unary(c, true));
    return n;
}
static node *product(cx *c) {
    node *n = power(c);
    for (;;) {
        node_op o = at_op(c, "*") ? N_MUL : at_op(c, "/") ? N_DIV : at_op(c, "//") ? N_FLOORDIV : at_op(c, "%") ? N_MOD : N_LITERAL;
        if (o == N_LITERAL) return n;
        c->tok++;
        n = binary(c, o, n, power(c));
    }
}
static node *concatenation(cx *c) {
    node *n = product(c);
    while (take_op(c, "~")) n = binary(c, N_CONCAT, n, product(c));
    return n;
}
static node *sum(cx *c) {
    node *n = concatenation(c);
    for (;;) {
        node_op o = at_op(c, "+") ? N_ADD : at_op(c, "-") ? N_SUB : N_LITERAL;
        if (o == N_LITERAL) return n;
        c->tok++;
        n = binary(c, o, n, concatenation(c));
    }
}

/* The operator at hand as a text, `not in` as one; NULL when there is none. */
static const str *compare_operator(cx *c) {
    static const char *const ops[] = {"==", "!=", "<", ">", "<=", ">="};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (at_op(c, ops[i])) return c->tok++->s;
    if (at_word(c, "in")) return c->tok++->s;
    if (at_word(c, "not") && c->tok[1].type == T_NAME && tt__str_is(c->tok[1].s, "in")) {
        c->tok += 2;
        return tt__str_of(c, "not in");
    }
    return NULL;
}
/* a < b < c: a node with args b, c, whose names are the operators */
static node *comparison(cx *c) {
    node *first = sum(c), *n = NULL, **last = NULL;
    for (const str *o; (o = compare_operator(c));) {
        if (!n) {
            n = new_node(c, N_COMPARE);
            n->a = first;
            last = &n->args;
        }
        node *arg = new_node(c, N_ARG);
        arg->name = o;
        arg->a = sum(c);
        *last = settle(c, arg);
        last = &arg->next;
    }
    return n ? settle(c, n) : first;
}
static node *negation(cx *c) {
    if (!at_word(c, "not")) return comparison(c);
    node *n = new_node(c, N_NOT);
    c->tok++;
    enter(c);
    n->a = negation(c);
    leave(c);
    return settle(c, n);
}
static node *conjunction(cx *c) {
    node *n = negation(c);
    while (take_word(c, "and")) n = binary(c, N_AND, n, negation(c));
    return n;
}
static node *disjunction(cx *c) {
    node *n = conjunction(c);
    while (take_word(c, "or")) n = binary(c, N_OR, n, conjunction(c));
    return n;
}
static node *expression(cx *c) {
    enter(c);
    node *n = disjunction(c);
    while (take_word(c, "if")) {
        node *cond = new_node(c, N_COND);
        cond->a = disjunction(c);
        cond->b = n;
        if (take_word(c, "else")) cond->c = expression(c);
        n = settle(c, cond);
    }
    leave(c);
    return n;
}
/* a, b, c without brackets */
static node *tuple(cx *c, node *first) {
    node *n = new_node(c, N_LIST), **last = &first->next;
    n->flag = true;
    n->args = first;
    while (take_op(c, ",")) {
        if (c->tok->type == T_BLOCK_END || c->tok->type == T_VAR_END) break;
        node *e = expression(c);
        *last = e;
        last = &e->next;
    }
    return settle(c, n);
}
static node *expression_or_tuple(cx *c) {
    node *n = expression(c);
    return at_op(c, ",") ? tuple(c, n) : n;
}

/* ---- statements ---- */
static node *body(cx *c, const char *const *ends);
static void end_block(cx *c) { want(c, T_BLOCK_END, "%}"); }
static void end_of(cx *c, const char *word) {
    if (!take_word(c, word)) fail(c, "template syntax", word);
    end_block(c);
}

static node *parse_if(cx *c) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    node *first = new_node(c, S_IF), *n = first;       /* arms hang on c: a flat chain, run by a loop */
    for (;;) {
        n->a = expression(c);
        end_block(c);
        n->b = body(c, ends);
        settle(c, n);
        if (take_word(c, "elif")) {
            n->c = new_node(c, S_IF);
            n = n->c;
            continue;
        }
        if (take_word(c, "else")) {
            node *otherwise = new_node(c, S_IF);       /* no condition */
            end_block(c);
            otherwise->b = body(c, last);
            n->c = settle(c, otherwise);
        }
        end_of(c, "endif");
        for (const node *arm = first; arm; arm = arm->c)
            if (arm->depth > first->depth) first->depth = arm->depth;
        return first;
    }
}

/* Names that `for` and `set` assign to: args of a tuple node, or one name node. */
static node *target(cx *c) {
    node *n = new_node(c, N_NAME);
    bool bracket = take_op(c, "(");
    n->name = want_name(c);
    if (at_op(c, ",")) {
        node *t = new_node(c, N_LIST), **last = &n->next;
        t->args = n;
        while (take_op(c, ",")) {
            if (at_op(c, "=") || at_word(c, "in") || at_op(c, ")")) break;
            node *e = new_node(c, N_NAME);
            e->name = want_name(c);
            *last = e;
            last = &e->next;
        }
        n = t;
    }
    if (bracket) want_op(c, ")");
    return n;
}

static node *parse_for(cx *c) {
    static const char *const ends[] = {"else", "endfor", NULL};
    static const char *const last[] = {"endfor", NULL};
    node *n = new_node(c, S_FOR), *parts = new_node(c, S_FOR);   /* parts: a body, b else, c condition */
    n->a = target(c);
    if (!take_word(c, "in")) fail(c, "template syntax", "in");
    n->b = disjunction(c);
    if (at_op(c, ",")) n->b = tuple(c, n->b);
    if (take_word(c, "if")) parts->c = expression(c);
    if (at_word(c, "recursive")) fail(c, "unsupported in templates", "a loop that is not recursive");
    end_block(c);
    parts->a = body(c, ends);
    if (take_word(c, "else")) {
        end_block(c);
        parts->b = body(c, last);
    }
    end_of(c, "endfor");
    n->c = settle(c, parts);
    return settle(c, n);
}

/* set a = e, set a, b = e, set ns.a = e, or a block up to endset, with filters */
static node *parse_set(cx *c) {
    static const char *const ends[] = {"endset", NULL};
    node *n = new_node(c, S_SET);
    n->a = target(c);
    if (n->a->op == N_NAME && take_op(c, ".")) {
        node *attr = new_node(c, N_ATTR);
        attr->a = n->a;
        attr->name = want_name(c);
        n->a = settle(c, attr);
    }
    if (take_op(c, "=")) {
        n->b = expression_or_tuple(c);
        end_block(c);
        return settle(c, n);
    }
    n->op = S_SET_BLOCK;
    node *hole = literal(c, tt__v_none());             /* the text comes here when it runs */
    n->c = hole;
    while (take_op(c, "|")) n->c = filter(c, n->c);
    n->args = hole;
    end_block(c);
    n->b = body(c, ends);
    end_of(c, "endset");
    return settle(c, n);
}

static node *parse_macro(cx *c) {
    static const char *const ends[] = {"endmacro", NULL};
    node *n = new_node(c, S_MACRO), **last = &n->args;
    n->name = want_name(c);
    want_op(c, "(");
    while (!take_op(c, ")")) {
        node *p = new_node(c, N_ARG);
        p->name = want_name(c);
        if (take_op(c, "=")) p->a = expression(c);
        *last = settle(c, p);
        last = &p->next;
        if (!at_op(c, ")")) want_op(c, ",");
    }
    end_block(c);
    n->b = body(c, ends);
    end_of(c, "endmacro");
    return settle(c, n);
}

static node *parse_filter_block(cx *c) {
    static const char *const ends[] = {"endfilter", NULL};
    node *n = new_node(c, S_FILTER), *hole = literal(c, tt__v_none());
    n->c = filter(c, hole);
    while (take_op(c, "|")) n->c = filter(c, n->c);
    n->args = hole;
    end_block(c);
    n->b = body(c, ends);
    end_of(c, "endfilter");
    return settle(c, n);
}

static node *parse_do(cx *c) {
    node *n = new_node(c, S_DO);
    n->a = expression(c);
    end_block(c);
    return settle(c, n);
}

static node *parse_word(cx *c, node_op o) {
    node *n = new_node(c, o);
    end_block(c);
    return n;
}

/* {% generation %} … {% endgeneration %} marks what a model said; for rendering it is transparent. */
static node *parse_generation(cx *c) {
    static const char *const ends[] = {"endgeneration", NULL};
    end_block(c);
    node *n = body(c, ends);
    end_of(c, "endgeneration");
    return n;
}

static node *statement(cx *c) {
    if (take_word(c, "if")) return parse_if(c);
    if (take_word(c, "for")) return parse_for(c);
    if (take_word(c, "set")) return parse_set(c);
    if (take_word(c, "macro")) return parse_macro(c);
    if (take_word(c, "filter")) return parse_filter_block(c);
    if (take_word(c, "do")) return parse_do(c);
    if (take_word(c, "generation")) return parse_generation(c);
    if (take_word(c, "break")) return parse_word(c, S_BREAK);
    if (take_word(c, "continue")) return parse_word(c, S_CONTINUE);
    fail(c, "unsupported in templates", "if, for, set, macro, filter, generation, break, continue or raw");
}

static node *print(cx *c) {
    node *n = new_node(c, S_PRINT);
    n->a = expression_or_tuple(c);
    want(c, T_VAR_END, "}}");
    return settle(c, n);
}

static bool at_end(const cx *c, const char *const *ends) {
    for (; ends && *ends; ends++)
        if (at_word(c, *ends)) return true;
    return false;
}

/* Statements up to one of `ends`, which stays to be read; NULL ends: up to the end of the source. */
static node *body(cx *c, const char *const *ends) {
    node *n = new_node(c, S_DATA), **last = &n->args;  /* a list; its own data is empty */
    enter(c);
    for (;;) {
        node *s;
        if (c->tok->type == T_EOF) {
            if (ends) fail(c, "block without end", *ends);
            break;
        }
        if (c->tok->type == T_DATA) {
            s = new_node(c, S_DATA);
            s->v = tt__v_str(c->tok++->s);
        } else if (c->tok->type == T_VAR_BEGIN) {
            c->tok++;
            s = print(c);
        } else {
            want(c, T_BLOCK_BEGIN, "{%");
            if (at_end(c, ends)) break;
            s = statement(c);
        }
        *last = s;
        last = &s->next;
    }
    leave(c);
    return settle(c, n);
}

node *tt__tpl_parse(cx *c, token *tokens) {
    c->tok = tokens;
    c->depth = 0;
    node *n = body(c, NULL);
    c->depth = 0;
    return n;
}
