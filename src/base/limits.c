/* The table behind limits.h: for the help text, the documents and the tests of every ceiling. */
#include "base/limits.h"

const tt__limit tt__limits[TT_LIMIT_COUNT] = {
#define TT_LIMIT(name, value, unit, what) {#name, (uint64_t)(value), unit, what},
#include "base/limits.inc"
#undef TT_LIMIT
};
