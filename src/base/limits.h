/* TT_LIMIT_<NAME> constants from limits.inc, and the table for help and tests. */
#ifndef TT_BASE_LIMITS_H
#define TT_BASE_LIMITS_H
#include <stdint.h>
enum tt__limit_id {
#define TT_LIMIT(name, value, unit, what) TT_LIMIT_ID_##name,
#include "base/limits.inc"
#undef TT_LIMIT
    TT_LIMIT_COUNT
};
#define TT_LIMIT(name, value, unit, what) static const uint64_t TT_LIMIT_##name __attribute__((unused)) = (uint64_t)(value);
#include "base/limits.inc"
#undef TT_LIMIT
typedef struct tt__limit { const char *name; uint64_t value; const char *unit; const char *what; } tt__limit;
extern const tt__limit tt__limits[TT_LIMIT_COUNT];
#endif
