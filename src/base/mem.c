/* Memory: the only caller of the C allocator. The size of a block is asked from the allocator itself (malloc_usable_size), so a
 * block has no header of ours and sanitizers see its exact end. */
#include "base/mem.h"

#include "base/checked.h"
#include "base/err.h"
#include "base/fault.h"
#include "trimtab/trimtab.h"
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* One block is at most 1 TiB: sizes beyond it are mistakes or attacks, and refusing them here keeps every allocator from
 * being asked (some tools end the process instead of returning NULL). */
#define MOST_BYTES ((size_t)1 << 40)

static atomic_uint_least64_t now_bytes, peak_bytes;

static void count_in(const void *p) {
    uint64_t bytes = malloc_usable_size((void *)(uintptr_t)p);
    uint64_t now = atomic_fetch_add_explicit(&now_bytes, bytes, memory_order_relaxed) + bytes;
    uint64_t peak = atomic_load_explicit(&peak_bytes, memory_order_relaxed);
    while (now > peak && !atomic_compare_exchange_weak_explicit(&peak_bytes, &peak, now, memory_order_relaxed, memory_order_relaxed)) {}
}

static void count_out(const void *p) {
    atomic_fetch_sub_explicit(&now_bytes, malloc_usable_size((void *)(uintptr_t)p), memory_order_relaxed);
}

void *tt__alloc(size_t bytes) {
    void *p = NULL;
    if (tt__fault(TT_FAULT_ALLOC) || bytes > MOST_BYTES) return NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 1) != 0) return NULL;
    count_in(p);
    return p;
}

void *tt__calloc(size_t n, size_t size) {
    size_t bytes = tt__array_bytes(n, size);
    void *p = tt__alloc(bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

/* Grows by copying: realloc of the C library would lose the alignment. */
void *tt__realloc(void *p, size_t bytes) {
    void *q = tt__alloc(bytes);
    if (!q || !p) return q;
    size_t old = malloc_usable_size(p);
    memcpy(q, p, old < bytes ? old : bytes);
    tt__free(p);
    return q;
}

void tt__free(void *p) {
    if (!p) return;
    count_out(p);
    free(p);
}

void tt_free(void *p) { tt__free(p); }

char *tt__strndup(const char *s, size_t n) {
    size_t bytes;
    if (__builtin_add_overflow(n, 1, &bytes)) return NULL;
    char *copy = tt__alloc(bytes);
    if (!copy) return NULL;
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

char *tt__strdup(const char *s) { return tt__strndup(s, strlen(s)); }

tt_status tt__new(void *out, size_t n, size_t size, const char *what, tt_err *err) {
    void *p = tt__calloc(n, size);
    memcpy(out, &p, sizeof p);
    if (p) return TT_OK;
    size_t bytes = tt__array_bytes(n, size);
    if (bytes > MOST_BYTES) return tt__fail(err, TT_RESOURCE, "out of memory|for %s|%zu x %zu bytes", what, n, size);
    return tt__fail(err, TT_RESOURCE, "out of memory|for %s|%zu bytes", what, bytes);
}

uint64_t tt__mem_now(void) { return atomic_load_explicit(&now_bytes, memory_order_relaxed); }
uint64_t tt__mem_peak(void) { return atomic_load_explicit(&peak_bytes, memory_order_relaxed); }
void tt__mem_reset_peak(void) { atomic_store_explicit(&peak_bytes, tt__mem_now(), memory_order_relaxed); }

/* ------------------------------------------------------------ arena ----
 *
 *     a.head ─► [next|size| used ………… free ]─► [next|size| full ]─► NULL
 *
 * a.used counts within the head chunk, a.bytes all bytes of all chunks. Large objects get a chunk of their own behind the head,
 * so that they do not end a half-empty one.
 */
typedef struct tt__arena_chunk { struct tt__arena_chunk *next; size_t size; _Alignas(16) unsigned char data[]; } chunk;

enum { CHUNK_LEAST = 4096, CHUNK_MOST = 1 << 20 };

static chunk *chunk_new(tt__arena *a, size_t size) {
    size_t bytes;
    if (__builtin_add_overflow(size, sizeof(chunk), &bytes)) return NULL;
    chunk *c = tt__calloc(1, bytes);
    if (!c) return NULL;
    c->size = size;
    a->bytes += bytes;
    return c;
}

void *tt__arena_alloc(tt__arena *a, size_t bytes) {
    if (bytes > MOST_BYTES) return NULL;
    size_t need = (bytes + 15) & ~(size_t)15;
    if (need == 0) need = 16;
    if (a->head && a->head->size - a->used >= need) {
        void *p = a->head->data + a->used;
        a->used += need;
        return p;
    }
    size_t size = a->bytes < CHUNK_LEAST ? CHUNK_LEAST : a->bytes > CHUNK_MOST ? CHUNK_MOST : a->bytes;
    bool own = need > size / 2;
    chunk *c = chunk_new(a, own ? need : size);
    if (!c) return NULL;
    if (own && a->head) {
        c->next = a->head->next;
        a->head->next = c;
        return c->data;
    }
    c->next = a->head;
    a->head = c;
    a->used = need;
    return c->data;
}

char *tt__arena_strndup(tt__arena *a, const char *s, size_t n) {
    if (n >= MOST_BYTES) return NULL;
    char *copy = tt__arena_alloc(a, n + 1);
    if (copy) memcpy(copy, s, n);
    return copy;
}

void tt__arena_free(tt__arena *a) {
    for (chunk *c = a->head; c;) {
        chunk *next = c->next;
        tt__free(c);
        c = next;
    }
    *a = (tt__arena){0};
}
