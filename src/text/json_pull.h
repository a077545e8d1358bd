/* A pull reader for JSON: what tokenizer.json needs, whose 100,000 members would cost a tree tens of megabytes. The caller asks for what
 * it expects; everything else is skipped by a loop that counts brackets, not by recursion (RELIABILITY P1).
 *
 *     tt__jp_object(&r);
 *     while (tt__jp_key(&r, &s)) …  tt__jp_string(&r, &s) / tt__jp_i64(&r, &v) / tt__jp_skip(&r) …
 *     if (r.status) …                       the first error sticks; every call after it does nothing and says false
 */
#ifndef TT_TEXT_JSON_PULL_H
#define TT_TEXT_JSON_PULL_H
#include "base/util.h"

typedef struct tt_jp {
    const char *s, *where;
    size_t n, at, depth;
    char open[64];               /* the brackets around `at` */
    bool first;                  /* just inside a bracket */
    tt_status status;
    tt_err *err;
} tt_jp;
typedef struct tt_jp_text { char *s; size_t n, cap; } tt_jp_text;   /* reused buffer; freed by the caller */

tt_jp tt__jp_begin(const char *s, size_t n, const char *where, tt_err *err);
/* '{' '[' '"' '0' (a number) 't' 'f' 'n', or 0 at the end of the text or after an error. */
char tt__jp_peek(tt_jp *r);
bool tt__jp_object(tt_jp *r);                        /* enters { */
bool tt__jp_array(tt_jp *r);                         /* enters [ */
bool tt__jp_key(tt_jp *r, tt_jp_text *key);          /* next member, or false after } */
bool tt__jp_item(tt_jp *r);                          /* next element, or false after ] */
bool tt__jp_string(tt_jp *r, tt_jp_text *out);       /* unescaped, strict UTF-8; may hold NUL */
bool tt__jp_i64(tt_jp *r, int64_t *out);             /* an integer, no fraction */
bool tt__jp_skip(tt_jp *r);                          /* one value, whatever it is */
/* The value's own text, for a tree reader. */
bool tt__jp_slice(tt_jp *r, const char **s, size_t *n);
bool tt__jp_end(tt_jp *r);                           /* nothing but white space is left */
bool tt__jp_fail(tt_jp *r, const char *what, const char *expected);
#endif
