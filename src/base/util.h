/* Small shared tools: random numbers, SHA-256, clock, string builder, little-endian reads, JSON with a depth limit. */
#ifndef TT_BASE_UTIL_H
#define TT_BASE_UTIL_H
#include "trimtab/status.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* ---- random numbers: xoshiro256** seeded by splitmix64; the same stream on every machine ---- */
typedef struct tt__rng { uint64_t s[4]; } tt__rng;
void tt__rng_seed(tt__rng *r, uint64_t seed);
uint64_t tt__rng_u64(tt__rng *r);
double tt__rng_unit(tt__rng *r);                       /* [0, 1), 53 bits */
double tt__rng_normal(tt__rng *r);                     /* Box-Muller, no hidden state */
uint64_t tt__rng_below(tt__rng *r, uint64_t n);        /* unbiased, n > 0 */

/* ---- SHA-256 (FIPS 180-4), with the SHA instructions where the machine has them ---- */
typedef struct tt__sha256 { uint32_t h[8]; uint64_t bytes; uint8_t buf[64]; } tt__sha256;
void tt__sha256_init(tt__sha256 *s);
void tt__sha256_update(tt__sha256 *s, const void *data, size_t n);
void tt__sha256_final(tt__sha256 *s, uint8_t out[32]);
void tt__sha256_final_hex(tt__sha256 *s, char out[65]);
void tt__sha256_hex(const void *data, size_t n, char out[65]);
void tt__sha256_blocks_plain(uint32_t h[8], const uint8_t *p, size_t n);   /* the definition, for tests: n blocks of 64 bytes */

/* ---- clock ---- */
double tt__now(void);                                  /* seconds, monotonic */
uint64_t tt__peak_rss(void);                           /* bytes, of this process (VmHWM) */
void tt__peak_rss_reset(void);                         /* starts it anew at what is resident now, where the system can */
uint64_t tt__rss(void);                                /* bytes resident now */

/* ---- string builder; s is always NUL-terminated after the first append; `failed` sticks when out of memory ---- */
typedef struct tt__str { char *s; size_t n, cap; bool failed; } tt__str;
void tt__str_add(tt__str *b, const char *s, size_t n);
void tt__str_puts(tt__str *b, const char *s);
void tt__str_printf(tt__str *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tt__str_free(tt__str *b);

/* ---- strict numbers: the whole string must be one; no white space, no sign surprises ---- */
bool tt__parse_i64(const char *s, int64_t *out);
bool tt__scan_int(const char **s, int most, int *out); /* digits at *s, value up to `most`; *s moves behind them */
bool tt__parse_f64(const char *s, double *out);        /* finite decimals only */
bool tt__parse_bytes(const char *s, uint64_t *out);    /* 512, 1.5g, 1536MiB, 512M (powers of 1024) */
bool tt__parse_duration(const char *s, double *seconds); /* 45s, 20m, 2h, 1.5h, 90 */

/* ---- little-endian, unaligned ---- */
static inline uint16_t tt__rd16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t tt__rd32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t tt__rd64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline float tt__rdf32(const void *p) { float v; memcpy(&v, p, 4); return v; }

/* ---- 16-bit floats (bit patterns) ---- */
float tt__f16_to_f32(uint16_t h);
uint16_t tt__f32_to_f16(float f);                      /* nearest-even; overflow gives infinity */
static inline float tt__bf16_to_f32(uint16_t h) { uint32_t u = (uint32_t)h << 16; float f; memcpy(&f, &u, 4); return f; }
uint16_t tt__f32_to_bf16(float f);                     /* nearest-even; NaN stays NaN */

/* ---- UTF-8 ---- */
/* Decodes one code point at s[0..n); returns its length 1–4, or 0 for an invalid sequence (overlong, surrogate, > 10FFFF, cut). */
int tt__utf8_decode(const uint8_t *s, size_t n, uint32_t *cp);
int tt__utf8_encode(uint32_t cp, char out[4]);
/* The Levenshtein-nearest of n names to s within a third of its length, or NULL: for "did you mean". */
const char *tt__nearest(const char *s, const char *const *names, size_t n);

/* ---- JSON through Jansson ---- */
/* Parses with a flat depth scan first (TT_LIMIT_JSON_DEPTH), duplicates refused. Errors name `where`. Caller json_decref's. */
tt_status tt__json_parse(const char *text, size_t n, const char *where, json_t **out, tt_err *err);
/* Appends v as text (flags: JSON_COMPACT …); out->failed when out of memory. json_dumps would give memory of another allocator. */
void tt__json_write(tt__str *out, const json_t *v, size_t flags);
/* Typed members; missing → *out keeps its value and the call succeeds unless `required`. Wrong type → TT_BADFILE. */
tt_status tt__json_str(const json_t *obj, const char *key, bool required, const char **out, const char *where, tt_err *err);
tt_status tt__json_i64(const json_t *obj, const char *key, bool required, int64_t *out, const char *where, tt_err *err);
tt_status tt__json_f64(const json_t *obj, const char *key, bool required, double *out, const char *where, tt_err *err);
tt_status tt__json_bool(const json_t *obj, const char *key, bool required, bool *out, const char *where, tt_err *err);
#endif
