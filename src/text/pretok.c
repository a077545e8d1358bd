/* The scanners. How an expression became code: its alternatives are tried in order at the current position, and each needs to see one
 * character ahead at most, because the classes are disjoint:
 *
 *   letter L, number N, white space S, other O (all else, the apostrophe too)
 *
 *   gpt-2    's|'t|'re|'ve|'m|'ll|'d |  ?L+ |  ?N+ |  ?O+ | S+(?!\S) | S+
 *   llama3   (?i:'s|…)  | [^\r\n L N]?L+ | N{1,3} |  ?O+[\r\n]* | S*[\r\n]+ | S+(?!\S) | S+
 *   qwen2    llama3 with N{1,3} replaced by N
 *
 * S+(?!\S) at a run of white space takes all of it at the end of the text, else all but its last character, else (one character) fails and
 * leaves that one to S+. S*[\r\n]+ takes the run up to and with its last line break. */
#include "text/pretok.h"
#include "text/unicode.h"
#include <string.h>

#define LETTER TT_UC_LETTER
#define NUMBER TT_UC_NUMBER
#define SPACE TT_UC_SPACE
enum { SOLID = LETTER | NUMBER | SPACE };                /* what is not "other" */

/* One character: its class bits and the place after it; at the end of the text, class END. */
enum { END = 1 << 8 };
typedef struct look { unsigned kind; uint32_t cp; size_t next; } look;
static inline look look_at(const uint8_t *s, size_t n, size_t i) {
    if (i >= n) return (look){END, 0, n};
    size_t len;
    uint32_t cp = tt__utf8_next(s + i, &len);
    return (look){tt__class(cp), cp, i + len};
}
static inline bool is_other(unsigned kind) { return !(kind & (SOLID | END)); }

/* End of the run of characters whose class has a bit of `any` (or, with any = 0, of "other" ones). */
static size_t run(const uint8_t *s, size_t n, size_t i, unsigned any) {
    for (;;) {
        look c = look_at(s, n, i);
        if (any ? !(c.kind & any) : !is_other(c.kind)) return i;
        i = c.next;
    }
}

/* 's 't 'm 'd, 're 've 'll after an apostrophe at i; 0 when there is none. Folding case, s is also U+017F (long s). */
static size_t contraction(const uint8_t *s, size_t n, size_t i, bool fold) {
    if (i + 1 >= n) return 0;
    uint8_t a = s[i + 1], b = i + 2 < n ? s[i + 2] : 0;
    if (fold) {
        if (a == 0xC5 && b == 0xBF) return i + 3;
        if (a >= 'A' && a <= 'Z') a |= 32;
        if (b >= 'A' && b <= 'Z') b |= 32;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return i + 2;
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l')) return i + 3;
    return 0;
}

/* S+(?!\S)|S+ over the run i … end, which is not empty. */
static size_t blanks(const uint8_t *s, size_t n, size_t i, size_t end) {
    size_t len;
    if (end == n) return end;
    tt__utf8_prev(s + i, end - i, &len);
    return end - len > i ? end - len : end;
}

static size_t gpt2(const uint8_t *s, size_t n, size_t i) {
    look c = look_at(s, n, i);
    if (c.cp == '\'') {
        size_t e = contraction(s, n, i, false);
        if (e) return e;
    }
    look d = c.cp == ' ' ? look_at(s, n, c.next) : c;    /* the optional space */
    if (d.kind & LETTER) return run(s, n, d.next, LETTER);
    if (d.kind & NUMBER) return run(s, n, d.next, NUMBER);
    if (is_other(d.kind)) return run(s, n, d.next, 0);
    return blanks(s, n, i, run(s, n, c.next, SPACE));
}

static inline size_t llama(const uint8_t *s, size_t n, size_t i, int numbers) {
    look c = look_at(s, n, i);
    if (c.cp == '\'') {
        size_t e = contraction(s, n, i, true);
        if (e) return e;
    }
    if (c.kind & LETTER) return run(s, n, c.next, LETTER);
    if (c.kind & NUMBER) {
        size_t end = c.next;
        for (look d = look_at(s, n, end); --numbers > 0 && (d.kind & NUMBER); d = look_at(s, n, end)) end = d.next;
        return end;
    }
    bool line_break = c.cp == '\r' || c.cp == '\n';
    look d = look_at(s, n, c.next);
    if (!line_break && (d.kind & LETTER)) return run(s, n, d.next, LETTER);
    if (is_other(c.kind) || (c.cp == ' ' && is_other(d.kind))) {
        size_t end = run(s, n, c.next, 0);
        while (end < n && (s[end] == '\r' || s[end] == '\n')) end++;
        return end;
    }
    size_t end = run(s, n, c.next, SPACE), last = end;
    while (last > i && s[last - 1] != '\r' && s[last - 1] != '\n') last--;
    return last > i ? last : blanks(s, n, i, end);
}
static size_t llama3(const uint8_t *s, size_t n, size_t i) { return llama(s, n, i, 3); }
static size_t qwen2(const uint8_t *s, size_t n, size_t i) { return llama(s, n, i, 1); }

static const struct { const char *name; unsigned digits; size_t (*scan)(const uint8_t *s, size_t n, size_t i); } scanners[] = {
#define X(id, name, digits, scan) {name, digits, scan},
    TT_PRETOK_LIST(X)
#undef X
};

/* Where single digits stand alone, a section is what lies between two of them, and no expression looks past its end. */
static size_t section_end(const tt_pieces *p, unsigned digits) {
    look c = look_at(p->s, p->n, p->at);
    if (c.kind & digits) return c.next;
    size_t i = c.next;
    for (c = look_at(p->s, p->n, i); !(c.kind & (digits | END)); c = look_at(p->s, p->n, i)) i = c.next;
    return i;
}

bool tt__pieces_next(tt_pieces *p, size_t *begin, size_t *end) {
    if (p->at >= p->n) return false;
    unsigned digits = scanners[p->pre].digits;
    if (p->at >= p->section) p->section = digits ? section_end(p, digits) : p->n;
    size_t e = scanners[p->pre].scan(p->s, p->section, p->at);
    *begin = p->at;
    *end = p->at = e > p->at && e <= p->section ? e : p->section;   /* progress, whatever the scanner says (T6) */
    return true;
}

/* ---- names ---- */
const char *tt__pretok_name(tt_pretok pre) { return scanners[pre].name; }

static const struct { const char *name; tt_pretok pre; } synonyms[] = {
    {"gpt2", TT_PRE_GPT2}, {"llama3", TT_PRE_LLAMA3}, {"llama-v3", TT_PRE_LLAMA3}, {"deepseek-r1-qwen", TT_PRE_QWEN2},
};

static bool same(const char *name, const char *s, size_t n) { return strlen(name) == n && memcmp(name, s, n) == 0; }

bool tt__pretok_find(const char *name, size_t n, tt_pretok *out) {
    for (int i = 0; i < TT_PRE_COUNT; i++)
        if (same(scanners[i].name, name, n)) { *out = (tt_pretok)i; return true; }
    for (size_t i = 0; i < sizeof synonyms / sizeof synonyms[0]; i++)
        if (same(synonyms[i].name, name, n)) { *out = synonyms[i].pre; return true; }
    return false;
}

static const char *const regexes[TT_PRE_COUNT] = {
    [TT_PRE_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    [TT_PRE_LLAMA3] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    [TT_PRE_QWEN2] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
};

bool tt__pretok_from_regex(const char *regex, size_t n, tt_pretok *out) {
    for (int i = 0; i < TT_PRE_COUNT; i++)
        if (regexes[i] && same(regexes[i], regex, n)) { *out = (tt_pretok)i; return true; }
    return false;
}

const char *tt__pretok_regex(tt_pretok pre) { return regexes[pre]; }
