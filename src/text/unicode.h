/* Unicode as the `tokenizers` package sees it: character classes and NFC over frozen tables (tools/gen_unicode.py), so that equality does
 * not depend on the version of a system library. The package's engines follow different Unicode versions; the tables follow the engines.
 *
 * Everything here works on valid UTF-8; tt__utf8_span finds the valid stretches of a text. */
#ifndef TT_TEXT_UNICODE_H
#define TT_TEXT_UNICODE_H
#include "base/util.h"
#include <stddef.h>
#include <stdint.h>

/* \p{L}, \p{N} and \s of Oniguruma; char::is_numeric and \w of Rust. */
enum { TT_UC_LETTER = 1, TT_UC_NUMBER = 2, TT_UC_SPACE = 4, TT_UC_DIGIT = 8, TT_UC_WORD = 16 };

extern const uint8_t tt__class_ascii[128];
/* Class bits of a code point ≥ 0x80. */
unsigned tt__class_wide(uint32_t cp);
static inline unsigned tt__class(uint32_t cp) { return cp < 128 ? tt__class_ascii[cp] : tt__class_wide(cp); }

/* Code point at s, which begins a valid sequence; *n gets its length. */
static inline uint32_t tt__utf8_next(const uint8_t *s, size_t *n) {
    uint32_t c = s[0];
    if (c < 0x80) { *n = 1; return c; }
    if (c < 0xE0) { *n = 2; return (c & 31) << 6 | (s[1] & 63u); }
    if (c < 0xF0) { *n = 3; return (c & 15) << 12 | (s[1] & 63u) << 6 | (s[2] & 63u); }
    *n = 4;
    return (c & 7) << 18 | (s[1] & 63u) << 12 | (s[2] & 63u) << 6 | (s[3] & 63u);
}
/* Code point that ends before s[n], n > 0, in valid text; *len gets its length. */
static inline uint32_t tt__utf8_prev(const uint8_t *s, size_t n, size_t *len) {
    size_t at = n - 1, l;
    while (at > 0 && (s[at] & 0xC0) == 0x80) at--;
    uint32_t c = tt__utf8_next(s + at, &l);
    *len = n - at;
    return c;
}

/* Length of the longest valid prefix of s[0..n). */
size_t tt__utf8_span(const uint8_t *s, size_t n);

/* Appends the NFC form of valid UTF-8. O(n log n) whatever the text: marks are sorted by merging, not by exchanging neighbours. */
tt_status tt__nfc(const char *s, size_t n, tt__str *out, tt_err *err);
#endif
