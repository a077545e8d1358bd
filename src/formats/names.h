/* A sorted index over names: finding is a binary search, doubled names lie beside each other. Hostile names cannot make it slow. */
#ifndef TT_FORMATS_NAMES_H
#define TT_FORMATS_NAMES_H
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct tt__name { const char *name; size_t at; } tt__name;

static inline int tt__name_order(const void *a, const void *b) {
    return strcmp(((const tt__name *)a)->name, ((const tt__name *)b)->name);
}
static inline void tt__names_sort(tt__name *names, size_t n) {
    if (n > 1) qsort(names, n, sizeof *names, tt__name_order);
}
/* The first doubled name of a sorted index, or NULL. */
static inline const char *tt__names_doubled(const tt__name *names, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (strcmp(names[i - 1].name, names[i].name) == 0) return names[i].name;
    return NULL;
}
/* SIZE_MAX when missing. */
static inline size_t tt__names_find(const tt__name *names, size_t n, const char *name) {
    tt__name key = {name, 0};
    const tt__name *hit = n ? bsearch(&key, names, n, sizeof *names, tt__name_order) : NULL;
    return hit ? hit->at : SIZE_MAX;
}
/* Names go into errors, C strings and other files: not empty, no control bytes. */
static inline bool tt__name_ok(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f) return false;
    return n > 0;
}
#endif
