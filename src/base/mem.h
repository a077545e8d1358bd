/* The one door for memory. Only base/mem.c calls malloc.
 *
 * The door is process-wide, as malloc is: a context could not free what another made, and fault injection has to reach every
 * caller. All functions are thread-safe. Allocations are 64-byte aligned, so that vector code needs no special cases.
 */
#ifndef TT_BASE_MEM_H
#define TT_BASE_MEM_H

#include "trimtab/status.h"
#include <stdint.h>

/* NULL when out of memory, or when fault injection says so. A size of 0 gives a valid pointer. */
void *tt__alloc(size_t bytes) __attribute__((malloc, warn_unused_result));
void *tt__calloc(size_t n, size_t size) __attribute__((malloc, warn_unused_result));   /* overflow-checked, zeroed */
void *tt__realloc(void *p, size_t bytes) __attribute__((warn_unused_result));           /* on failure p stays valid */
void tt__free(void *p);                                                                  /* free(NULL) is fine */
char *tt__strdup(const char *s) __attribute__((malloc, warn_unused_result));
char *tt__strndup(const char *s, size_t n) __attribute__((malloc, warn_unused_result));

/* The same with an error: TT_RESOURCE "out of memory|for WHAT|N bytes". *out = NULL on failure. */
tt_status tt__new(void *out, size_t n, size_t size, const char *what, tt_err *err);      /* out: T **; zeroed */

/* Bytes handed out now, and the highest value since start or since reset. */
uint64_t tt__mem_now(void);
uint64_t tt__mem_peak(void);
void tt__mem_reset_peak(void);

/* Arena: many small objects with one lifetime. Zero-initialise to start; free once. */
typedef struct tt__arena { struct tt__arena_chunk *head; size_t used, bytes; } tt__arena;
void *tt__arena_alloc(tt__arena *a, size_t bytes);        /* zeroed, 16-byte aligned; NULL when out of memory */
char *tt__arena_strndup(tt__arena *a, const char *s, size_t n);
void tt__arena_free(tt__arena *a);

#endif
