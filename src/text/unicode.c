/* Character classes by binary search over ranges, and NFC (Unicode Standard Annex 15).
 *
 * NFC works on segments: an ASCII character never composes with what stands before it, so the text is cut before each of them, and a
 * segment of one ASCII character is copied. Longer segments are decomposed fully, each run of marks is sorted stably by combining class,
 * then composed. */
#include "text/unicode.h"
#include "base/checked.h"
#include "base/err.h"
#include "base/mem.h"

#include "text/unicode_tables.inc"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Index of the last range that begins at or before cp. */
static size_t range_of(const uint32_t *r, size_t n, uint32_t cp) {
    size_t lo = 0, hi = n;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (r[mid] >> 8 <= cp) lo = mid; else hi = mid;
    }
    return lo;
}

unsigned tt__class_wide(uint32_t cp) {
    return class_ranges[range_of(class_ranges, COUNT(class_ranges), cp)] & 255;
}

#define S TT_UC_SPACE
#define W TT_UC_WORD
#define D (TT_UC_NUMBER | TT_UC_DIGIT | TT_UC_WORD)
#define L (TT_UC_LETTER | TT_UC_WORD)
const uint8_t tt__class_ascii[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, S, S, S, S, S, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    S, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, D, D, D, D, D, D, D, D, D, D, 0, 0, 0, 0, 0, 0,
    0, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, 0, 0, 0, 0, W,
    0, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, 0, 0, 0, 0, 0,
};
#undef S
#undef W
#undef D
#undef L

size_t tt__utf8_span(const uint8_t *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        if (n - i >= 8 && !(tt__rd64(s + i) & 0x8080808080808080u)) { i += 8; continue; }
        if (s[i] < 0x80) { i++; continue; }
        uint32_t cp;
        int len = tt__utf8_decode(s + i, n - i, &cp);
        if (len == 0) break;
        i += (size_t)len;
    }
    return i;
}

/* ---- NFC ---- */
enum { S_BASE = 0xAC00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11A7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = 11172 };

typedef struct mark { uint32_t cp; uint8_t ccc; } mark;
typedef struct marks { mark *v; size_t n, cap; mark *spare; } marks;   /* spare: as large as v, for merging */

static uint8_t ccc_of(uint32_t cp) { return cp < 0x300 ? 0 : (uint8_t)ccc_ranges[range_of(ccc_ranges, COUNT(ccc_ranges), cp)]; }

static bool push_mark(marks *m, uint32_t cp) {
    if (m->n == m->cap) {
        size_t cap = m->cap ? m->cap * 2 : 64;
        mark *v = tt__realloc(m->v, tt__array_bytes(cap, sizeof(mark)));
        if (!v) return false;
        m->v = v;
        mark *spare = tt__realloc(m->spare, tt__array_bytes(cap, sizeof(mark)));
        if (!spare) return false;
        m->spare = spare;
        m->cap = cap;
    }
    m->v[m->n++] = (mark){cp, ccc_of(cp)};
    return true;
}

static bool push_hangul(marks *m, uint32_t s) {
    uint32_t t = s % T_COUNT;
    if (!push_mark(m, L_BASE + s / (V_COUNT * T_COUNT)) || !push_mark(m, V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT)) return false;
    return t == 0 || push_mark(m, T_BASE + t);
}

static bool push_decomposed(marks *m, uint32_t cp) {
    if (cp - S_BASE < S_COUNT) return push_hangul(m, cp - S_BASE);
    size_t lo = 0, hi = COUNT(decompositions);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (decompositions[mid].cp < cp) lo = mid + 1; else hi = mid;
    }
    if (lo == COUNT(decompositions) || decompositions[lo].cp != cp) return push_mark(m, cp);
    for (unsigned i = 0; i < decompositions[lo].n; i++)
        if (!push_mark(m, decomposition_pool[decompositions[lo].at + i])) return false;
    return true;
}

/* Stable sort of v[0..n) by class: insertion for the usual handful, merging from the bottom for a hostile many. */
static void sort_marks(mark *v, mark *spare, size_t n) {
    enum { RUN = 8 };
    for (size_t base = 0; base < n; base += RUN) {
        size_t end = base + RUN < n ? base + RUN : n;
        for (size_t i = base + 1; i < end; i++) {
            mark x = v[i];
            size_t j = i;
            for (; j > base && v[j - 1].ccc > x.ccc; j--) v[j] = v[j - 1];
            v[j] = x;
        }
    }
    for (size_t width = RUN; width < n; width *= 2) {
        for (size_t a = 0; a < n; a += 2 * width) {
            size_t mid = a + width < n ? a + width : n, end = a + 2 * width < n ? a + 2 * width : n;
            for (size_t i = a, j = mid, k = a; k < end; k++)
                spare[k] = i < mid && (j == end || v[i].ccc <= v[j].ccc) ? v[i++] : v[j++];
        }
        memcpy(v, spare, n * sizeof *v);
    }
}

static void order(marks *m) {
    for (size_t i = 0; i < m->n;) {
        size_t j = i;
        while (j < m->n && m->v[j].ccc) j++;
        if (j - i > 1) sort_marks(m->v + i, m->spare + i, j - i);
        i = j > i ? j : i + 1;
    }
}

/* The primary composite of a and b, or 0. */
static uint32_t composed(uint32_t a, uint32_t b) {
    if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT) return S_BASE + ((a - L_BASE) * V_COUNT + b - V_BASE) * T_COUNT;
    if (a - S_BASE < S_COUNT && (a - S_BASE) % T_COUNT == 0 && b - T_BASE - 1 < T_COUNT - 1) return a + b - T_BASE;
    size_t lo = 0, hi = COUNT(compositions);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (compositions[mid].first < a || (compositions[mid].first == a && compositions[mid].second < b)) lo = mid + 1; else hi = mid;
    }
    return lo < COUNT(compositions) && compositions[lo].first == a && compositions[lo].second == b ? compositions[lo].composite : 0;
}

/* A character joins the last starter unless one of the same or a higher class stands between them (D115, blocked). */
static void compose(marks *m) {
    size_t starter = SIZE_MAX, out = 0;
    for (size_t i = 0; i < m->n; i++) {
        mark x = m->v[i];
        bool adjacent = starter != SIZE_MAX && out == starter + 1;
        bool open = starter != SIZE_MAX && (adjacent || (x.ccc && m->v[out - 1].ccc < x.ccc));
        uint32_t c = open ? composed(m->v[starter].cp, x.cp) : 0;
        if (c) { m->v[starter].cp = c; continue; }
        if (x.ccc == 0) starter = out;
        m->v[out++] = x;
    }
    m->n = out;
}

static tt_status nfc_segment(const char *s, size_t n, marks *m, tt__str *out, tt_err *err) {
    m->n = 0;
    for (size_t i = 0, len; i < n; i += len)
        if (!push_decomposed(m, tt__utf8_next((const uint8_t *)s + i, &len)))
            return tt__fail(err, TT_RESOURCE, "out of memory|for Unicode normalization");
    order(m);
    compose(m);
    for (size_t i = 0; i < m->n; i++) {
        char buf[4];
        tt__str_add(out, buf, (size_t)tt__utf8_encode(m->v[i].cp, buf));
    }
    return TT_OK;
}

tt_status tt__nfc(const char *s, size_t n, tt__str *out, tt_err *err) {
    tt_status st = TT_OK;
    marks m = {0};
    for (size_t i = 0; i < n && st == TT_OK;) {
        size_t plain = i;
        while (plain < n && !(s[plain] & 0x80)) plain++;
        if (plain > i && plain < n) plain--;                   /* the last one may carry marks */
        if (plain > i) { tt__str_add(out, s + i, plain - i); i = plain; continue; }
        size_t end = i + 1;
        while (end < n && (s[end] & 0x80)) end++;
        st = nfc_segment(s + i, end - i, &m, out, err);
        i = end;
    }
    tt__free(m.v);
    tt__free(m.spare);
    if (st == TT_OK && out->failed) return tt__fail(err, TT_RESOURCE, "out of memory|for Unicode normalization");
    return st;
}
