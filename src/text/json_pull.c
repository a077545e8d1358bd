/* See json_pull.h. The grammar is RFC 8259 without leniency: no comments, no trailing commas, no bare control bytes in strings, surrogates
 * only in pairs. */
#include "text/json_pull.h"
#include "base/err.h"
#include "base/mem.h"
#include "text/unicode.h"

tt_jp tt__jp_begin(const char *s, size_t n, const char *where, tt_err *err) { return (tt_jp){.s = s, .n = n, .where = where, .err = err}; }

bool tt__jp_fail(tt_jp *r, const char *what, const char *expected) {
    if (!r->status) r->status = tt__fail(r->err, TT_BADFILE, "%s|%s, byte %zu||%s", what, r->where, r->at, expected);
    return false;
}

static void skip_space(tt_jp *r) {
    while (r->at < r->n && (r->s[r->at] == ' ' || r->s[r->at] == '\n' || r->s[r->at] == '\t' || r->s[r->at] == '\r')) r->at++;
}

char tt__jp_peek(tt_jp *r) {
    skip_space(r);
    if (r->status || r->at == r->n) return 0;
    char c = r->s[r->at];
    return c == '-' || (c >= '0' && c <= '9') ? '0' : c;
}

static bool take(tt_jp *r, char c, const char *expected) {
    if (r->status) return false;
    skip_space(r);
    if (r->at == r->n || r->s[r->at] != c) return tt__jp_fail(r, "bad JSON", expected);
    r->at++;
    return true;
}

static bool enter(tt_jp *r, char c, const char *expected) {
    if (!take(r, c, expected)) return false;
    if (r->depth == sizeof r->open) return tt__jp_fail(r, "JSON nested too deep", "at most 64 levels (JSON_DEPTH)");
    r->open[r->depth++] = c;
    return r->first = true;
}
bool tt__jp_object(tt_jp *r) { return enter(r, '{', "an object"); }
bool tt__jp_array(tt_jp *r) { return enter(r, '[', "a list"); }

/* To the next member of the innermost bracket; false at its end, which is left, and on errors. */
static bool next(tt_jp *r, char close) {
    char c = tt__jp_peek(r);
    if (r->status) return false;
    if (c == close) {
        r->at++;
        r->depth--;
        return r->first = false;
    }
    if (!r->first && !take(r, ',', close == '}' ? "',' or '}'" : "',' or ']'")) return false;
    r->first = false;
    return true;
}
bool tt__jp_item(tt_jp *r) { return next(r, ']'); }
bool tt__jp_key(tt_jp *r, tt_jp_text *key) { return next(r, '}') && tt__jp_string(r, key) && take(r, ':', "':'"); }

/* ---- strings ---- */
static bool room(tt_jp *r, tt_jp_text *out, size_t n) {
    if (n <= out->cap - out->n) return true;
    size_t cap = (out->n + n) * 2 + 64;
    char *s = tt__realloc(out->s, cap);
    if (!s) {
        r->status = tt__fail(r->err, TT_RESOURCE, "out of memory|%s, byte %zu", r->where, r->at);
        return false;
    }
    out->s = s;
    out->cap = cap;
    return true;
}

static bool hex4(tt_jp *r, uint32_t *out) {
    uint32_t v = 0;
    if (r->n - r->at < 4) return tt__jp_fail(r, "bad JSON", "four hexadecimal digits");
    for (int i = 0; i < 4; i++) {
        char c = r->s[r->at++];
        uint32_t d = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a' + 10) : 99;
        if (d == 99) return tt__jp_fail(r, "bad JSON", "four hexadecimal digits");
        v = v << 4 | d;
    }
    *out = v;
    return true;
}

static bool escape(tt_jp *r, tt_jp_text *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->n) return tt__jp_fail(r, "bad JSON", "the end of a string");
    char c = r->s[r->at++];
    if (c != 'u') {
        const char *p = c ? strchr(from, c) : NULL;
        if (!p) return tt__jp_fail(r, "bad JSON", "an escape of JSON");
        out->s[out->n++] = to[p - from];
        return true;
    }
    uint32_t hi = 0, lo = 0;
    if (!hex4(r, &hi)) return false;
    if (hi - 0xD800 < 0x400) {
        if (r->n - r->at < 2 || r->s[r->at] != '\\' || r->s[r->at + 1] != 'u') return tt__jp_fail(r, "bad JSON", "a pair of surrogates");
        r->at += 2;
        if (!hex4(r, &lo)) return false;
        if (lo - 0xDC00 >= 0x400) return tt__jp_fail(r, "bad JSON", "a pair of surrogates");
        hi = 0x10000 + ((hi - 0xD800) << 10) + (lo - 0xDC00);
    } else if (hi - 0xDC00 < 0x400) {
        return tt__jp_fail(r, "bad JSON", "a pair of surrogates");
    }
    out->n += (size_t)tt__utf8_encode(hi, out->s + out->n);
    return true;
}

bool tt__jp_string(tt_jp *r, tt_jp_text *out) {
    if (!take(r, '"', "a string")) return false;
    out->n = 0;
    for (;;) {
        size_t from = r->at;
        while (r->at < r->n && r->s[r->at] != '"' && r->s[r->at] != '\\' && (uint8_t)r->s[r->at] >= 0x20) r->at++;
        size_t n = r->at - from;
        if (!room(r, out, n + 4)) return false;
        if (tt__utf8_span((const uint8_t *)r->s + from, n) != n) return tt__jp_fail(r, "bad JSON", "UTF-8");
        memcpy(out->s + out->n, r->s + from, n);
        out->n += n;
        if (r->at == r->n) return tt__jp_fail(r, "bad JSON", "the end of a string");
        char c = r->s[r->at++];
        if (c == '"') return true;
        if (c != '\\') return tt__jp_fail(r, "bad JSON", "no control byte in a string");
        if (!escape(r, out)) return false;
    }
}

/* ---- the rest ---- */
static bool is_digit(const tt_jp *r) { return r->at < r->n && r->s[r->at] >= '0' && r->s[r->at] <= '9'; }
static bool digits(tt_jp *r) {
    if (!is_digit(r)) return tt__jp_fail(r, "bad JSON", "a digit");
    while (is_digit(r)) r->at++;
    return true;
}

/* Integer part, then whether a fraction or an exponent follows. */
static bool number(tt_jp *r, bool *integer) {
    if (r->s[r->at] == '-') r->at++;
    if (r->at < r->n && r->s[r->at] == '0') r->at++;
    else if (!digits(r)) return false;
    *integer = true;
    if (r->at < r->n && r->s[r->at] == '.') {
        *integer = false;
        r->at++;
        if (!digits(r)) return false;
    }
    if (r->at < r->n && (r->s[r->at] | 32) == 'e') {
        *integer = false;
        r->at++;
        if (r->at < r->n && (r->s[r->at] == '+' || r->s[r->at] == '-')) r->at++;
        if (!digits(r)) return false;
    }
    return true;
}

bool tt__jp_i64(tt_jp *r, int64_t *out) {
    bool integer;
    if (tt__jp_peek(r) != '0') return tt__jp_fail(r, "bad JSON", "a number");
    size_t from = r->at;
    if (!number(r, &integer)) return false;
    char buf[24];
    size_t n = r->at - from;
    if (!integer || n >= sizeof buf) return tt__jp_fail(r, "bad JSON", "an integer of 64 bits");
    memcpy(buf, r->s + from, n);
    buf[n] = 0;
    return tt__parse_i64(buf, out) || tt__jp_fail(r, "bad JSON", "an integer of 64 bits");
}

static bool literal(tt_jp *r, const char *word) {
    size_t n = strlen(word);
    if (r->n - r->at < n || memcmp(r->s + r->at, word, n) != 0) return tt__jp_fail(r, "bad JSON", "a value");
    r->at += n;
    return true;
}

static bool skip_scalar(tt_jp *r, tt_jp_text *scratch) {
    bool integer;
    switch (tt__jp_peek(r)) {
    case '"': return tt__jp_string(r, scratch);
    case '0': return number(r, &integer);
    case 't': return literal(r, "true");
    case 'f': return literal(r, "false");
    case 'n': return literal(r, "null");
    default: return tt__jp_fail(r, "bad JSON", "a value");
    }
}

/* One loop over brackets: `depth` is where we began. */
bool tt__jp_skip(tt_jp *r) {
    tt_jp_text scratch = {0};
    size_t depth = r->depth;
    do {
        char c = tt__jp_peek(r);
        if (c == '{') tt__jp_object(r);
        else if (c == '[') tt__jp_array(r);
        else skip_scalar(r, &scratch);
        while (!r->status && r->depth > depth) {         /* on to the next value, leaving what is closed */
            bool more = r->open[r->depth - 1] == '{' ? tt__jp_key(r, &scratch) : tt__jp_item(r);
            if (more) break;
        }
    } while (!r->status && r->depth > depth);
    tt__free(scratch.s);
    return !r->status;
}

bool tt__jp_slice(tt_jp *r, const char **s, size_t *n) {
    tt__jp_peek(r);
    size_t from = r->at;
    if (!tt__jp_skip(r)) return false;
    *s = r->s + from;
    *n = r->at - from;
    return true;
}

bool tt__jp_end(tt_jp *r) {
    skip_space(r);
    return !r->status && (r->at == r->n || tt__jp_fail(r, "bad JSON", "the end of the text"));
}
