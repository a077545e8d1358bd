/* Random numbers, clock, string builder, strict number texts, 16-bit floats, UTF-8, nearest names, JSON. SHA-256 is in sha256.c. */
#include "base/util.h"

#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------ random numbers ----
 * xoshiro256** 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018); the state is filled by
 * splitmix64, as its authors advise, so that neighbouring seeds give unrelated streams. */

static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

static uint64_t splitmix64(uint64_t *x) {
    uint64_t z = (*x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void tt__rng_seed(tt__rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) r->s[i] = splitmix64(&seed);
}

uint64_t tt__rng_u64(tt__rng *r) {
    uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double tt__rng_unit(tt__rng *r) { return (double)(tt__rng_u64(r) >> 11) * 0x1p-53; }

/* Box-Muller, the cosine half only: two draws for one number, and no state beside the stream. 1 - u lies in (0, 1]. */
double tt__rng_normal(tt__rng *r) {
    double u = 1.0 - tt__rng_unit(r), v = tt__rng_unit(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

/* Lemire's multiply-and-reject (2019): the high half of x * n is uniform once the few short residues are drawn again. */
uint64_t tt__rng_below(tt__rng *r, uint64_t n) {
    __extension__ typedef unsigned __int128 u128;
    u128 m = (u128)tt__rng_u64(r) * n;
    if ((uint64_t)m < n) {
        uint64_t reject = (0 - n) % n;
        while ((uint64_t)m < reject) m = (u128)tt__rng_u64(r) * n;
    }
    return (uint64_t)(m >> 64);
}

/* ------------------------------------------------------------ clock and memory of the process ---- */

double tt__now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* "VmHWM:     1234 kB" of /proc/self/status. Measuring aid, hence outside the file doors: 0 where there is no /proc. */
static uint64_t proc_status_bytes(const char *key) {
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    unsigned long long kb = 0;
    size_t n = strlen(key);
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && line[n] == ':') {
            kb = strtoull(line + n + 1, NULL, 10);
            break;
        }
    if (f) fclose(f);
    return (uint64_t)kb * 1024;
}

uint64_t tt__peak_rss(void) { return proc_status_bytes("VmHWM"); }
uint64_t tt__rss(void) { return proc_status_bytes("VmRSS"); }

void tt__peak_rss_reset(void) {
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}

/* ------------------------------------------------------------ string builder ---- */

static bool str_grow(tt__str *b, size_t more) {
    size_t need;
    if (b->failed) return false;
    if (__builtin_add_overflow(b->n, more, &need) || __builtin_add_overflow(need, 1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->cap) return true;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *s = tt__realloc(b->s, cap);
    if (!s) {
        b->failed = true;
        return false;
    }
    b->s = s;
    b->cap = cap;
    return true;
}

void tt__str_add(tt__str *b, const char *s, size_t n) {
    if (!str_grow(b, n)) return;
    if (n) memcpy(b->s + b->n, s, n);
    b->n += n;
    b->s[b->n] = 0;
}

void tt__str_puts(tt__str *b, const char *s) { tt__str_add(b, s, strlen(s)); }

void tt__str_printf(tt__str *b, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        b->failed = true;
    } else if (str_grow(b, (size_t)n)) {
        vsnprintf(b->s + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

void tt__str_free(tt__str *b) {
    tt__free(b->s);
    *b = (tt__str){0};
}

/* ------------------------------------------------------------ strict numbers ---- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool tt__parse_i64(const char *s, int64_t *out) {
    bool minus = *s == '-';
    if (minus) s++;
    if (!is_digit(*s)) return false;
    int64_t v = 0;
    for (; is_digit(*s); s++)                              /* built downwards: INT64_MIN has no positive twin */
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, *s - '0', &v)) return false;
    if (*s || (!minus && v == INT64_MIN)) return false;
    *out = minus ? v : -v;
    return true;
}

bool tt__scan_int(const char **s, int most, int *out) {
    const char *p = *s;
    int v = 0;
    if (!is_digit(*p)) return false;
    for (; is_digit(*p); p++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *p - '0', &v) || v > most) return false;
    *s = p;
    *out = v;
    return true;
}

/* digits [. digits] [e [sign] digits], at least one digit before the exponent. Returns the end, or NULL. */
static const char *decimal_end(const char *s) {
    const char *p = s;
    bool any = false;
    for (; is_digit(*p); p++) any = true;
    if (*p == '.')
        for (p++; is_digit(*p); p++) any = true;
    if (!any) return NULL;
    if (*p == 'e' || *p == 'E') {
        const char *e = p + 1;
        if (*e == '-' || *e == '+') e++;
        if (!is_digit(*e)) return NULL;
        while (is_digit(*e)) e++;
        p = e;
    }
    return p;
}

/* strtod under the "C" locale, whatever the host program has set. */
static double strtod_c(const char *s) {
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0) return strtod(s, NULL);
    locale_t old = uselocale(c);
    double v = strtod(s, NULL);
    uselocale(old);
    freelocale(c);
    return v;
}

/* The number at the start of s; *rest is what follows. Texts above 63 bytes are no settings of ours. */
static bool parse_head(const char *s, double *out, const char **rest) {
    char buf[64];
    const char *end = decimal_end(*s == '-' ? s + 1 : s);
    if (!end || (size_t)(end - s) >= sizeof buf) return false;
    memcpy(buf, s, (size_t)(end - s));
    buf[end - s] = 0;
    double v = strtod_c(buf);
    if (!isfinite(v)) return false;
    *out = v;
    *rest = end;
    return true;
}

bool tt__parse_f64(const char *s, double *out) {
    double v;
    const char *rest;
    if (!parse_head(s, &v, &rest) || *rest) return false;
    *out = v;
    return true;
}

bool tt__parse_bytes(const char *s, uint64_t *out) {
    static const char letters[] = "kmgt";
    double v, scale = 1;
    const char *rest;
    if (*s == '-' || !parse_head(s, &v, &rest)) return false;
    char c = (char)(*rest | 0x20);
    const char *at = *rest ? strchr(letters, c) : NULL;
    if (at) {
        scale = ldexp(1.0, 10 * (int)(at - letters + 1));
        rest++;
        if (*rest == 'i') rest++;
        if (rest[0] == 'i' || (rest[-1] == 'i' && *rest != 'B' && *rest != 'b' && *rest)) return false;
    }
    if (*rest == 'B' || *rest == 'b') rest++;
    v *= scale;
    if (*rest || v >= 0x1p64) return false;
    if (scale == 1 && v != floor(v)) return false;         /* half a byte is a slip of the pen */
    *out = (uint64_t)v;
    return true;
}

bool tt__parse_duration(const char *s, double *seconds) {
    double v, scale = 1;
    const char *rest;
    if (*s == '-' || !parse_head(s, &v, &rest)) return false;
    if (rest[0] == 'm' && rest[1] == 's') scale = 1e-3, rest += 2;
    else if (*rest == 's') rest++;
    else if (*rest == 'm') scale = 60, rest++;
    else if (*rest == 'h') scale = 3600, rest++;
    else if (*rest == 'd') scale = 86400, rest++;
    if (*rest || !isfinite(v * scale)) return false;
    *seconds = v * scale;
    return true;
}

/* ------------------------------------------------------------ 16-bit floats ---- */

float tt__f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 0x3ff, u;
    float f;
    if (e == 31) {
        u = sign | 0x7f800000u | (m << 13);
    } else if (e) {
        u = sign | ((e + 112) << 23) | (m << 13);
    } else {                                               /* zero and subnormals: m * 2^-24, exact in f32 */
        f = (float)m * 0x1p-24f;
        memcpy(&u, &f, 4);
        u |= sign;
    }
    memcpy(&f, &u, 4);
    return f;
}

uint16_t tt__f32_to_f16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t sign = (u >> 16) & 0x8000, a = u & 0x7fffffff, h;
    if (a > 0x7f800000) {
        h = 0x7e00 | ((a >> 13) & 0x3ff);                  /* NaN stays NaN, quiet, with the top of its payload */
    } else if (a >= 0x477ff000) {
        h = 0x7c00;                                        /* from 65520 on: the tie rounds to infinity */
    } else if (a >= 0x38800000) {                          /* normal: the carry of rounding may step into the exponent, rightly */
        h = (a - 0x38000000 + 0xfff + ((a >> 13) & 1)) >> 13;
    } else if (a > 0x33000000) {                           /* subnormal result: adding 1/2 lets the FPU-free shift be a rounding add */
        uint32_t e = a >> 23, m = (a & 0x7fffff) | 0x800000, shift = 126 - e;
        uint32_t half = 1u << (shift - 1), odd = (m >> shift) & 1;
        h = (m + half - 1 + odd) >> shift;
    } else {
        h = 0;                                             /* up to 2^-25 inclusive, whose tie goes to the even zero */
    }
    return (uint16_t)(sign | h);
}

uint16_t tt__f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/* ------------------------------------------------------------ UTF-8 ---- */

int tt__utf8_decode(const uint8_t *s, size_t n, uint32_t *cp) {
    if (n == 0) return 0;
    uint32_t c = s[0];
    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    int len = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (len == 0 || n < (size_t)len) return 0;
    c &= 0x7fu >> len;
    for (int i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = (c << 6) | (s[i] & 0x3fu);
    }
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    *cp = c;
    return len;
}

int tt__utf8_encode(uint32_t cp, char out[4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    static const uint8_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[len] | cp);
    return len;
}

/* ------------------------------------------------------------ did you mean ---- */

enum { NAME_MOST = 64 };

static size_t edit_distance(const char *a, size_t n, const char *b, size_t m) {
    uint8_t row[NAME_MOST + 1];
    for (size_t j = 0; j <= m; j++) row[j] = (uint8_t)j;
    for (size_t i = 1; i <= n; i++) {
        uint8_t diagonal = row[0];
        row[0] = (uint8_t)i;
        for (size_t j = 1; j <= m; j++) {
            uint8_t above = row[j], best = (uint8_t)(diagonal + (a[i - 1] != b[j - 1]));
            if (above + 1 < best) best = (uint8_t)(above + 1);
            if (row[j - 1] + 1 < best) best = (uint8_t)(row[j - 1] + 1);
            row[j] = best;
            diagonal = above;
        }
    }
    return row[m];
}

const char *tt__nearest(const char *s, const char *const *names, size_t n) {
    size_t len = strnlen(s, NAME_MOST + 1), best = len < 3 ? 1 : len / 3;
    const char *found = NULL;
    if (len == 0 || len > NAME_MOST) return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t m = strnlen(names[i], NAME_MOST + 1);
        if (m > NAME_MOST) continue;
        size_t d = edit_distance(s, len, names[i], m);
        if (d < best || (d == best && !found)) {
            best = d;
            found = names[i];
        }
    }
    return found;
}

/* ------------------------------------------------------------ JSON ---- */

/* The deepest nesting of brackets outside strings, without recursion: Jansson recurses, so it must not see a deep text. */
static size_t json_depth(const char *text, size_t n) {
    size_t depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > deepest) deepest = depth;
        } else if ((c == '}' || c == ']') && depth) {
            depth--;
        }
    }
    return deepest;
}

tt_status tt__json_parse(const char *text, size_t n, const char *where, json_t **out, tt_err *err) {
    *out = NULL;
    size_t depth = json_depth(text, n);
    TT_FAIL_IF(depth > TT_LIMIT_JSON_DEPTH, err, TT_BADFILE, "JSON nested too deep|%s|%zu levels|at most %d (JSON_DEPTH)", where, depth,
               (int)TT_LIMIT_JSON_DEPTH);
    json_error_t e = {0};                                  /* Jansson leaves it as it was when its first allocations fail */
    json_t *v = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
    if (!v && (json_error_code(&e) == json_error_out_of_memory || !e.text[0])) return tt__fail(err, TT_RESOURCE, "out of memory|%s", where);
    TT_FAIL_IF(!v, err, TT_BADFILE, "bad JSON|%s, line %d, column %d|%s", where, e.line, e.column, e.text);
    *out = v;
    return TT_OK;
}

static int append_text(const char *text, size_t n, void *out) {
    tt__str *b = out;
    tt__str_add(b, text, n);
    return b->failed ? -1 : 0;
}

void tt__json_write(tt__str *out, const json_t *v, size_t flags) {
    if (json_dump_callback(v, append_text, out, flags) != 0) out->failed = true;
}

static const char *json_kind(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "nothing";
}

/* *v = the member, or NULL when it is absent (null counts as absent for optional members: that is how Python writes None). */
static tt_status json_member(const json_t *obj, const char *key, bool required, const char *expected, const json_t **v, const char *where,
                             tt_err *err) {
    TT_FAIL_IF(!json_is_object(obj), err, TT_BADFILE, "wrong JSON type|%s|%s|an object with \"%s\"", where, obj ? json_kind(obj) : "nothing", key);
    *v = json_object_get(obj, key);
    if (*v && json_is_null(*v) && !required) *v = NULL;
    TT_FAIL_IF(!*v && required, err, TT_BADFILE, "missing key|%s: \"%s\"|nothing|%s", where, key, expected);
    return TT_OK;
}

#define WRONG_TYPE(expected) tt__fail(err, TT_BADFILE, "wrong JSON type|%s: \"%s\"|%s|%s", where, key, json_kind(v), expected)

tt_status tt__json_str(const json_t *obj, const char *key, bool required, const char **out, const char *where, tt_err *err) {
    const json_t *v = NULL;
    TT_TRY(json_member(obj, key, required, "a string", &v, where, err));
    if (!v) return TT_OK;
    if (!json_is_string(v)) return WRONG_TYPE("a string");
    *out = json_string_value(v);
    return TT_OK;
}

tt_status tt__json_i64(const json_t *obj, const char *key, bool required, int64_t *out, const char *where, tt_err *err) {
    const json_t *v = NULL;
    TT_TRY(json_member(obj, key, required, "an integer", &v, where, err));
    if (!v) return TT_OK;
    if (!json_is_integer(v)) return WRONG_TYPE("an integer");
    *out = (int64_t)json_integer_value(v);
    return TT_OK;
}

tt_status tt__json_f64(const json_t *obj, const char *key, bool required, double *out, const char *where, tt_err *err) {
    const json_t *v = NULL;
    TT_TRY(json_member(obj, key, required, "a number", &v, where, err));
    if (!v) return TT_OK;
    if (!json_is_number(v)) return WRONG_TYPE("a number");
    *out = json_number_value(v);
    return TT_OK;
}

tt_status tt__json_bool(const json_t *obj, const char *key, bool required, bool *out, const char *where, tt_err *err) {
    const json_t *v = NULL;
    TT_TRY(json_member(obj, key, required, "true or false", &v, where, err));
    if (!v) return TT_OK;
    if (!json_is_boolean(v)) return WRONG_TYPE("true or false");
    *out = json_is_true(v);
    return TT_OK;
}
