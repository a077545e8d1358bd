/* Filling a tt_err.
 *
 * The format of tt__fail is walked here, conversion by conversion, instead of being handed to vsnprintf whole. Only so can a '|'
 * that stands in the format divide the fields while a '|' that comes out of an argument (a file name, a key of a damaged file)
 * stays text, and only so is each field cut by itself when one argument is a megabyte long. What comes out is always printable
 * UTF-8: control bytes, broken sequences and the code points that reorder a line on a terminal are written as escapes.
 */
#include "base/err.h"

#include "base/util.h"
#include <stdarg.h>
#include <stdio.h>

const char *tt_status_name(tt_status status) {
    switch (status) {
#define X(name, number, meaning) case name: return #name;
        TT_STATUS_LIST(X)
#undef X
    }
    return "TT_UNKNOWN";
}

const char *tt_status_meaning(tt_status status) {
    switch (status) {
#define X(name, number, meaning) case name: return meaning;
        TT_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

/* ------------------------------------------------------------ one bounded, escaped text ---- */

/* Invariants: n < cap, s[n] == 0, and s[0..n) never ends inside a UTF-8 sequence or an escape. */
typedef struct field { char *s; size_t n, cap; bool full; } field;

static void put_unit(field *f, const char *unit, size_t n) {
    if (f->full) return;
    if (f->n + n >= f->cap) {
        f->full = true;
        return;
    }
    memcpy(f->s + f->n, unit, n);
    f->n += n;
    f->s[f->n] = 0;
}

/* Right-to-left marks and their kin would let a file name rewrite the line it is shown in. */
static bool reorders_line(uint32_t cp) {
    return (cp >= 0x80 && cp < 0xa0) || cp == 0x061c || cp == 0x200e || cp == 0x200f || (cp >= 0x2028 && cp <= 0x202e) ||
           (cp >= 0x2066 && cp <= 0x2069) || cp == 0xfeff;
}

static void put_text(field *f, const char *text, size_t n) {
    const uint8_t *s = (const uint8_t *)text;
    char escape[16];
    for (size_t i = 0; i < n && !f->full;) {
        uint32_t cp;
        int len = tt__utf8_decode(s + i, n - i, &cp);
        if (len == 0 || cp < 0x20 || cp == 0x7f) {
            int e = s[i] == '\n' ? snprintf(escape, sizeof escape, "\\n") : snprintf(escape, sizeof escape, "\\x%02x", s[i]);
            put_unit(f, escape, (size_t)e);
            i += 1;
        } else if (reorders_line(cp)) {
            int e = snprintf(escape, sizeof escape, "\\u%04x", (unsigned)cp);
            put_unit(f, escape, (size_t)e);
            i += (size_t)len;
        } else {
            put_unit(f, text + i, (size_t)len);
            i += (size_t)len;
        }
    }
}

/* A text that did not fit ends in "…", so that nobody takes the half for the whole. */
static void mark_cut(field *f) {
    if (!f->full || f->cap < 8) return;
    while (f->n > f->cap - 4 || (f->n > 0 && ((uint8_t)f->s[f->n] & 0xc0) == 0x80)) f->n--;
    memcpy(f->s + f->n, "…", 4);
    f->n += 3;
}

/* ------------------------------------------------------------ the format ---- */

typedef struct spec { char text[24]; int width, precision; bool has_width, has_precision; char length, conv; } spec;

static int digits(const char **p) {
    int v = 0;
    for (; **p >= '0' && **p <= '9'; (*p)++)
        if (v < 100000) v = 10 * v + (**p - '0');
    return v;
}

/* Reads "%-08.3lld" behind its '%'. Lengths: 'q' is ll, 'b' is hh. Width and precision move into the arguments of snprintf. */
static const char *read_spec(const char *p, spec *s, va_list *args) {
    *s = (spec){0};
    size_t n = 0;
    s->text[n++] = '%';
    for (; *p && strchr("-+ #0", *p); p++)
        if (n < 6) s->text[n++] = *p;
    if (*p == '*') {
        s->has_width = true;
        s->width = va_arg(*args, int);
        p++;
    } else if (*p >= '1' && *p <= '9') {
        s->has_width = true;
        s->width = digits(&p);
    }
    if (*p == '.') {
        p++;
        s->has_precision = true;
        if (*p == '*') {
            s->precision = va_arg(*args, int);
            p++;
        } else {
            s->precision = digits(&p);
        }
        if (s->precision < 0) s->has_precision = false;
    }
    if (*p == 'h' || *p == 'l') {
        s->length = *p++;
        if (*p == s->length) {
            s->length = s->length == 'l' ? 'q' : 'b';
            p++;
        }
    } else if (*p && strchr("zjtL", *p)) {
        s->length = *p++;
    }
    if (*p) s->conv = *p++;
    s->text[n++] = '*';
    if (s->has_precision) {
        s->text[n++] = '.';
        s->text[n++] = '*';
    }
    s->text[n] = 0;
    return p;
}

static size_t bounded(int printed, size_t cap) { return printed < 0 ? 0 : (size_t)printed < cap ? (size_t)printed : cap - 1; }

static intmax_t signed_arg(char length, va_list *args) {
    switch (length) {
    case 'q': return va_arg(*args, long long);
    case 'l': return va_arg(*args, long);
    case 'z': return va_arg(*args, ssize_t);
    case 't': return va_arg(*args, ptrdiff_t);
    case 'j': return va_arg(*args, intmax_t);
    case 'h': return (short)va_arg(*args, int);
    case 'b': return (signed char)va_arg(*args, int);
    default: return va_arg(*args, int);
    }
}

static uintmax_t unsigned_arg(char length, va_list *args) {
    switch (length) {
    case 'q': return va_arg(*args, unsigned long long);
    case 'l': return va_arg(*args, unsigned long);
    case 'z': return va_arg(*args, size_t);
    case 't': return (uintmax_t)va_arg(*args, ptrdiff_t);
    case 'j': return va_arg(*args, uintmax_t);
    case 'h': return (unsigned short)va_arg(*args, unsigned);
    case 'b': return (unsigned char)va_arg(*args, unsigned);
    default: return va_arg(*args, unsigned);
    }
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void put_conversion(field *f, spec *s, va_list *args) {
    char buf[512], fmt[32];
    int n = 0, width = s->has_width ? (s->width > 200 ? 200 : s->width < -200 ? -200 : s->width) : 0;
    if (s->conv == 's') {
        const char *text = va_arg(*args, const char *);
        if (!text) text = "(none)";
        if (strchr(s->text, '-') && width > 0) width = -width;
        size_t len = s->has_precision ? strnlen(text, (size_t)s->precision) : strlen(text);
        for (size_t pad = len; width > 0 && pad < (size_t)width; pad++) put_unit(f, " ", 1);
        put_text(f, text, len);
        for (size_t pad = len; width < 0 && pad < (size_t)-width; pad++) put_unit(f, " ", 1);
        return;
    }
    bool number = s->conv && strchr("diuxXo", s->conv), real = s->conv && strchr("fFeEgGaA", s->conv);
    int precision = s->precision > 200 ? 200 : s->precision;
    snprintf(fmt, sizeof fmt, "%s%s%c", s->text, number ? "j" : s->length == 'L' ? "L" : "", s->conv);
#define PRINT(value) (s->has_precision ? snprintf(buf, sizeof buf, fmt, width, precision, value) : snprintf(buf, sizeof buf, fmt, width, value))
    if (s->conv == 'd' || s->conv == 'i') {
        n = PRINT(signed_arg(s->length, args));
    } else if (number) {
        n = PRINT(unsigned_arg(s->length, args));
    } else if (real) {
        n = s->length == 'L' ? PRINT(va_arg(*args, long double)) : PRINT(va_arg(*args, double));
    } else if (s->conv == 'c') {
        buf[0] = (char)va_arg(*args, int);
        n = 1;
    } else if (s->conv == 'p') {
        n = snprintf(buf, sizeof buf, "%p", va_arg(*args, void *));
    }
#undef PRINT
    put_text(f, buf, bounded(n, sizeof buf));
}
#pragma GCC diagnostic pop

/* Writes fields until the format ends; a '|' in the format moves to the next field, and the last field takes what is left. */
static void fill(field *fields, size_t n_fields, const char *fmt, va_list *args) {
    size_t at = 0;
    while (*fmt) {
        size_t run = strcspn(fmt, "%|");
        put_text(&fields[at], fmt, run);
        fmt += run;
        if (*fmt == '|') {
            if (at + 1 < n_fields) at++;
            else put_unit(&fields[at], "|", 1);
            fmt++;
        } else if (*fmt == '%' && fmt[1] == '%') {
            put_unit(&fields[at], "%", 1);
            fmt += 2;
        } else if (*fmt == '%') {
            spec s;
            fmt = read_spec(fmt + 1, &s, args);
            put_conversion(&fields[at], &s, args);
        }
    }
    for (size_t i = 0; i < n_fields; i++) mark_cut(&fields[i]);
}

#define FIELD(array) {array, 0, sizeof(array), false}

tt_status (tt__fail)(tt_err *err, tt_status status, const char *fmt, ...) {
    if (!err) return status;
    memset(err, 0, sizeof *err);
    err->status = status;
    field fields[5] = {FIELD(err->what), FIELD(err->where), FIELD(err->got), FIELD(err->expected), FIELD(err->hint)};
    va_list args;
    va_start(args, fmt);
    fill(fields, 5, fmt, &args);
    va_end(args);
    return status;
}

tt_status tt__err_at(tt_err *err, tt_status status, const char *fmt, ...) {
    if (!err) return status;
    char old[sizeof err->where];
    memcpy(old, err->where, sizeof old);
    field where = FIELD(err->where);
    va_list args;
    va_start(args, fmt);
    fill(&where, 1, fmt, &args);
    va_end(args);
    if (old[0]) {
        put_unit(&where, ": ", 2);
        put_text(&where, old, strnlen(old, sizeof old));
        mark_cut(&where);
    }
    return status;
}

void tt__escape(char *out, size_t cap, const char *text, size_t n) {
    if (cap == 0) return;
    out[0] = 0;
    field f = {out, 0, cap, false};
    put_text(&f, text, n);
    mark_cut(&f);
}

const char *tt_err_line(const tt_err *err, char *buf, size_t n) {
    if (n == 0) return buf;
    buf[0] = 0;
    if (!err) return buf;
    field f = {buf, 0, n, false};
    put_text(&f, err->what, strlen(err->what));
    if (!err->what[0]) put_text(&f, tt_status_meaning(err->status), strlen(tt_status_meaning(err->status)));
    const char *parts[][2] = {{": ", err->where}, {err->got[0] ? " (got " : " (expected ", err->got[0] ? err->got : err->expected}};
    for (size_t i = 0; i < 2; i++) {
        if (!parts[i][1][0]) continue;
        put_text(&f, parts[i][0], strlen(parts[i][0]));
        put_text(&f, parts[i][1], strlen(parts[i][1]));
    }
    if (err->got[0] && err->expected[0]) {
        put_text(&f, ", expected ", 11);
        put_text(&f, err->expected, strlen(err->expected));
    }
    if (err->got[0] || err->expected[0]) put_unit(&f, ")", 1);
    if (err->hint[0]) {
        put_unit(&f, "; ", 2);
        put_text(&f, err->hint, strlen(err->hint));
    }
    mark_cut(&f);
    return buf;
}
