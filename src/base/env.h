/* The environment, through one list (env.inc) and one accessor. */
#ifndef TT_BASE_ENV_H
#define TT_BASE_ENV_H
#include <stdbool.h>
#include <stdint.h>

typedef enum tt__env_id {
#define TT_ENV(id, name, value, help) TT_ENV_##id,
#include "base/env.inc"
#undef TT_ENV
    TT_ENV_COUNT
} tt__env_id;

typedef struct tt__env_entry { const char *name, *value, *help; } tt__env_entry;   /* value: the default, as text for people */
extern const tt__env_entry tt__env_list[TT_ENV_COUNT];

/* The value; NULL when unset or empty. Lent by the C library: copy it before setenv. */
const char *tt__env(tt__env_id id);
/* Unset, "0", "false", "no", "off": false. Anything else: true (as the hub's own tools read their variables). */
bool tt__env_true(tt__env_id id);
/* A number of bytes such as 16GiB; false: 0; unset or none: `otherwise`. */
uint64_t tt__env_bytes(tt__env_id id, uint64_t otherwise);
/* Seconds between two saves of a run that can be gone on with: at most so much work is lost by a kill. */
double tt__save_seconds(void);
/* TT_DEBUG as a number 0–6, read once. */
int tt__debug_level(void);
#endif
