/* See env.h. */
#include "base/env.h"

#include "base/util.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <strings.h>

const tt__env_entry tt__env_list[TT_ENV_COUNT] = {
#define TT_ENV(id, name, value, help) {name, value, help},
#include "base/env.inc"
#undef TT_ENV
};

const char *tt__env(tt__env_id id) {
    const char *value = getenv(tt__env_list[id].name);
    return value && value[0] ? value : NULL;
}

bool tt__env_true(tt__env_id id) {
    static const char *const no[] = {"0", "false", "no", "off"};
    const char *value = tt__env(id);
    for (int i = 0; value && i < 4; i++)
        if (strcasecmp(value, no[i]) == 0) return false;
    return value != NULL;
}

uint64_t tt__env_bytes(tt__env_id id, uint64_t otherwise) {
    const char *text = tt__env(id);
    uint64_t bytes;
    if (!text) return otherwise;
    if (!tt__env_true(id)) return 0;
    return tt__parse_bytes(text, &bytes) ? bytes : otherwise;
}

double tt__save_seconds(void) {
    const char *value = tt__env(TT_ENV_SAVE_SECONDS);
    double seconds;
    return value && tt__parse_f64(value, &seconds) && seconds >= 0 ? seconds : 20;
}

int tt__debug_level(void) {
    static atomic_int known = -1;
    int level = atomic_load_explicit(&known, memory_order_relaxed);
    if (level >= 0) return level;
    const char *value = tt__env(TT_ENV_DEBUG);
    level = value && value[0] >= '0' && value[0] <= '6' && value[1] == 0 ? value[0] - '0' : 0;
    atomic_store_explicit(&known, level, memory_order_relaxed);
    return level;
}
