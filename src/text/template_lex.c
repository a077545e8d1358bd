/* Template source into tokens, with Jinja2's white space rules under trim_blocks and lstrip_blocks, as chat templates assume:
 *
 *   {%- … -%}   strips white space on that side        {%+ … +%}   keeps it
 *   %}\n  #}\n  the line break after a block or comment is dropped
 *   ␠␠{% …      blanks between the start of a line and a block or comment are dropped
 *
 * Line ends become \n first and one at the very end is dropped, both as Jinja2 does. */
#include "base/err.h"
#include "text/template_int.h"
#include "text/unicode.h"
#include <stdlib.h>

typedef struct lexer {
    cx *c;
    const char *s;
    size_t n, at;
    token *tok;
    size_t n_tok, cap;
    int line;
    bool line_start;             /* the data that comes begins a line */
} lexer;

static void push(lexer *x, token t) {
    if (x->n_tok == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 256;
        token *v = tt__tpl_alloc(x->c, cap * sizeof *v);
        if (x->n_tok) memcpy(v, x->tok, x->n_tok * sizeof *v);
        x->tok = v;
        x->cap = cap;
    }
    t.line = x->c->line = x->line;
    x->tok[x->n_tok++] = t;
}

static void advance(lexer *x, size_t to) {
    for (; x->at < to; x->at++) x->line += x->s[x->at] == '\n';
}

static bool is_space(uint32_t cp) { return (cp >= 0x1C && cp <= 0x1F) || (tt__class(cp) & TT_UC_SPACE); }
static size_t skip_space(const char *s, size_t n, size_t i) {
    for (size_t len; i < n && is_space(tt__utf8_next((const uint8_t *)s + i, &len));) i += len;
    return i;
}
static size_t strip_end(const char *s, size_t from, size_t n) {
    for (size_t len; n > from && is_space(tt__utf8_prev((const uint8_t *)s + from, n - from, &len));) n -= len;
    return n;
}

static void push_data(lexer *x, size_t from, size_t to) {
    if (to > from) push(x, (token){.type = T_DATA, .s = tt__str_new(x->c, x->s + from, to - from, 0)});
}

/* Data from..to stands before a tag whose sign is `sign`; `block`: the tag is no variable. */
static void push_data_before(lexer *x, size_t from, size_t to, char sign, bool block) {
    if (sign == '-') {
        to = strip_end(x->s, from, to);
    } else if (sign != '+' && block) {
        size_t line = to;
        while (line > from && x->s[line - 1] != '\n') line--;
        if ((line > from || x->line_start) && skip_space(x->s, to, line) == to) to = line;
    }
    push_data(x, from, to);
}

/* ---- inside tags ---- */
static bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static void lex_name(lexer *x) {
    size_t from = x->at;
    while (x->at < x->n && (is_name_start(x->s[x->at]) || is_digit(x->s[x->at]))) x->at++;
    push(x, (token){.type = T_NAME, .s = tt__str_new(x->c, x->s + from, x->at - from, 0)});
}

static void lex_number(lexer *x) {
    char buf[64];
    size_t n = 0;
    bool real = false;
    for (; x->at < x->n; x->at++) {
        char c = x->s[x->at];
        bool exponent = (c == 'e' || c == 'E') && n && x->at + 1 < x->n && (is_digit(x->s[x->at + 1]) || x->s[x->at + 1] == '-' || x->s[x->at + 1] == '+');
        bool point = c == '.' && !real && x->at + 1 < x->n && is_digit(x->s[x->at + 1]);
        bool sign = (c == '+' || c == '-') && n && buf[n - 1] == 'e';
        if (c == '_') continue;
        if (!is_digit(c) && !exponent && !point && !sign) break;
        if (n == sizeof buf - 1) tt__tpl_fail(x->c, TT_BADFILE, "number too long", NULL, "at most 63 digits");
        buf[n++] = exponent ? 'e' : c;
        real |= exponent || point;
    }
    buf[n] = 0;
    token t = {.type = real ? T_FLOAT : T_INT};
    if (real ? !tt__parse_f64(buf, &t.f) : !tt__parse_i64(buf, &t.i)) tt__tpl_fail(x->c, TT_BADFILE, "bad number", buf, "64 bits");
    push(x, t);
}

static int hex_value(char c) { return is_digit(c) ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1; }

/* \x41, é, \U0001F600, \101: the number of characters taken after the backslash, 0 when it is none of them. */
static size_t numeric_escape(const char *s, size_t n, uint32_t *cp) {
    size_t digits = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : s[0] == 'U' ? 8 : 0, i;
    *cp = 0;
    if (digits) {
        if (n <= digits) return 0;
        for (i = 1; i <= digits; i++) {
            if (hex_value(s[i]) < 0) return 0;
            *cp = *cp << 4 | (uint32_t)hex_value(s[i]);
        }
        return digits + 1;
    }
    for (i = 0; i < 3 && i < n && s[i] >= '0' && s[i] <= '7'; i++) *cp = *cp * 8 + (uint32_t)(s[i] - '0');
    return i;
}

static void lex_string(lexer *x) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char quote = x->s[x->at];
    size_t i = x->at + 1, end = i, n = 0;
    while (end < x->n && x->s[end] != quote) end += x->s[end] == '\\' ? 2 : 1;
    if (end >= x->n) tt__tpl_fail(x->c, TT_BADFILE, "string without end", NULL, "a closing quote");
    char *buf = tt__tpl_alloc(x->c, end - i + 4);
    while (i < end) {
        uint32_t cp;
        if (x->s[i] != '\\') { buf[n++] = x->s[i++]; continue; }
        i++;
        const char *p = strchr(from, x->s[i]);
        size_t taken = numeric_escape(x->s + i, end - i, &cp);
        if (p && x->s[i]) { buf[n++] = to[p - from]; i++; }
        else if (x->s[i] == '\n') i++;
        else if (taken && cp < 0x110000 && cp - 0xD800 >= 0x800) { n += (size_t)tt__utf8_encode(cp, buf + n); i += taken; }
        else { buf[n++] = '\\'; }                       /* an escape that is none stays as it is */
    }
    token t = {.type = T_STRING, .s = tt__str_new(x->c, buf, n, 0)};
    push(x, t);
    advance(x, end + 1);
}

static void lex_operator(lexer *x, char *stack, size_t *depth) {
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    const char *s = x->s + x->at;
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
        if (x->n - x->at >= 2 && memcmp(s, two[i], 2) == 0) n = 2;
    if (!strchr("+-*/%~<>=!()[]{}.,:|", *s) || !*s || (n == 1 && *s == '!')) {
        char got[8] = {*s, 0};
        tt__tpl_fail(x->c, TT_BADFILE, "unexpected character", got, "an expression");
    }
    if (strchr("([{", *s)) {
        if (*depth == 128) tt__tpl_fail(x->c, TT_BADFILE, "template nested too deep", NULL, "at most 128 levels (TEMPLATE_DEPTH)");
        stack[(*depth)++] = *s == '(' ? ')' : *s == '[' ? ']' : '}';
    } else if (strchr(")]}", *s)) {
        if (*depth == 0 || stack[--*depth] != *s) tt__tpl_fail(x->c, TT_BADFILE, "bracket without partner", NULL, NULL);
    }
    push(x, (token){.type = T_OP, .s = tt__str_new(x->c, s, n, 0)});
    x->at += n;
}

/* Is the end of the tag here? Takes it, with the white space that it swallows. */
static bool take_end(lexer *x, bool block) {
    const char *close = block ? "%}" : "}}";
    char sign = x->s[x->at];
    size_t at = x->at + (sign == '-' || (block && sign == '+'));
    if (at == x->at) sign = 0;
    if (x->n - at < 2 || memcmp(x->s + at, close, 2) != 0) return false;
    push(x, (token){.type = block ? T_BLOCK_END : T_VAR_END});
    at += 2;
    if (sign == '-') at = skip_space(x->s, x->n, at);
    else if (sign != '+' && block && at < x->n && x->s[at] == '\n') at++;
    advance(x, at);
    x->line_start = x->s[at - 1] == '\n';
    return true;
}

static void lex_tag(lexer *x, bool block) {
    char stack[128];
    size_t depth = 0;
    push(x, (token){.type = block ? T_BLOCK_BEGIN : T_VAR_BEGIN});
    for (;;) {
        advance(x, skip_space(x->s, x->n, x->at));
        if (x->at >= x->n) tt__tpl_fail(x->c, TT_BADFILE, "tag without end", NULL, block ? "%}" : "}}");
        if (depth == 0 && take_end(x, block)) return;
        char ch = x->s[x->at];
        if (is_name_start(ch)) lex_name(x);
        else if (is_digit(ch)) lex_number(x);
        else if (ch == '\'' || ch == '"') lex_string(x);
        else lex_operator(x, stack, &depth);
    }
}

/* ---- between tags ---- */
static void skip_comment(lexer *x) {
    const char *end = NULL;
    for (size_t i = x->at; i + 1 < x->n && !end; i++)
        if (x->s[i] == '#' && x->s[i + 1] == '}') end = x->s + i;
    if (!end) tt__tpl_fail(x->c, TT_BADFILE, "comment without end", NULL, "#}");
    size_t at = (size_t)(end - x->s) + 2;
    char sign = at >= 3 ? x->s[at - 3] : 0;
    if (sign == '-') at = skip_space(x->s, x->n, at);
    else if (sign != '+' && at < x->n && x->s[at] == '\n') at++;
    advance(x, at);
    x->line_start = x->s[at - 1] == '\n';
}

/* {% NAME %} at i, with signs and blanks: the place after it, or 0. `open`, `close`: its signs. */
static size_t plain_tag(const lexer *x, size_t i, const char *name, char *open, char *close) {
    size_t len = strlen(name);
    if (x->n - i < 4 || x->s[i] != '{' || x->s[i + 1] != '%') return 0;
    i += 2;
    *open = x->s[i] == '-' || x->s[i] == '+' ? x->s[i++] : 0;
    i = skip_space(x->s, x->n, i);
    if (x->n - i < len || memcmp(x->s + i, name, len) != 0) return 0;
    i = skip_space(x->s, x->n, i + len);
    *close = i < x->n && (x->s[i] == '-' || x->s[i] == '+') ? x->s[i++] : 0;
    return x->n - i >= 2 && memcmp(x->s + i, "%}", 2) == 0 ? i + 2 : 0;
}

static size_t after_sign(const lexer *x, size_t at, char sign) {
    if (sign == '-') return skip_space(x->s, x->n, at);
    return sign != '+' && at < x->n && x->s[at] == '\n' ? at + 1 : at;
}

/* Data up to {% endraw %}. */
static void lex_raw(lexer *x, size_t from, char sign) {
    char open, close;
    size_t begin = after_sign(x, from, sign), end = begin, after = 0;
    while (end < x->n && !(after = plain_tag(x, end, "endraw", &open, &close))) end++;
    if (!after) tt__tpl_fail(x->c, TT_BADFILE, "raw block without end", NULL, "{% endraw %}");
    x->line_start = begin > 0 && x->s[begin - 1] == '\n';
    push_data_before(x, begin, end, open, true);
    after = after_sign(x, after, close);
    advance(x, after);
    x->line_start = x->s[after - 1] == '\n';
}

static size_t next_tag(const lexer *x) {
    for (size_t i = x->at; i + 1 < x->n; i++)
        if (x->s[i] == '{' && (x->s[i + 1] == '{' || x->s[i + 1] == '%' || x->s[i + 1] == '#')) return i;
    return x->n;
}

static void lex_step(lexer *x) {
    size_t from = x->at, tag = next_tag(x), raw;
    if (tag >= x->n) {
        push_data(x, from, x->n);
        x->at = x->n;
        return;
    }
    char what = x->s[tag + 1], sign = tag + 2 < x->n && strchr("+-", x->s[tag + 2]) ? x->s[tag + 2] : 0, open, close;
    if (what == '{' && sign == '+') sign = 0;           /* a plus before an expression is part of it */
    push_data_before(x, from, tag, sign, what != '{');
    advance(x, tag);
    if (what == '%' && (raw = plain_tag(x, tag, "raw", &open, &close))) { lex_raw(x, raw, close); return; }
    advance(x, tag + 2 + (sign != 0));
    if (what == '#') skip_comment(x);
    else lex_tag(x, what == '%');
}

/* Line ends to \n, without the last one. */
static size_t normalize(char *to, const char *s, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '\r') { to[k++] = s[i]; continue; }
        to[k++] = '\n';
        if (i + 1 < n && s[i + 1] == '\n') i++;
    }
    return k && to[k - 1] == '\n' ? k - 1 : k;
}

token *tt__tpl_lex(cx *c, const char *source, size_t n) {
    lexer x = {.c = c, .line = 1, .line_start = true};
    char *copy = tt__tpl_alloc(c, n + 4);
    x.n = normalize(copy, source, n);
    x.s = copy;
    if (tt__utf8_span((const uint8_t *)copy, x.n) != x.n) tt__tpl_fail(c, TT_BADFILE, "template is not UTF-8", NULL, NULL);
    while (x.at < x.n) lex_step(&x);
    push(&x, (token){.type = T_EOF});
    return x.tok;
}
