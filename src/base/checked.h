/* Checked arithmetic for every size that comes from outside. All return false on overflow and leave *out untouched then.
 * No code outside this header multiplies, adds or shifts an untrusted 64-bit size bare (tools/check_banned looks for it). */
#ifndef TT_BASE_CHECKED_H
#define TT_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool tt__mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline bool tt__add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/* Rounds up to a multiple of `align`, a power of two; fails where rounding would wrap. */
static inline bool tt__align_up_u64(uint64_t a, uint64_t align, uint64_t *out) {
    uint64_t r;
    if (align == 0 || (align & (align - 1)) != 0) return false;
    if (__builtin_add_overflow(a, align - 1, &r)) return false;
    *out = r & ~(align - 1);
    return true;
}

static inline bool tt__to_size(uint64_t a, size_t *out) {
    if (a > SIZE_MAX) return false;
    *out = (size_t)a;
    return true;
}

static inline bool tt__to_i64(uint64_t a, int64_t *out) {
    if (a > INT64_MAX) return false;
    *out = (int64_t)a;
    return true;
}

/* n * size for allocations of trusted counts; SIZE_MAX (which no allocator grants) on overflow. */
static inline size_t tt__array_bytes(size_t n, size_t size) {
    size_t r;
    return __builtin_mul_overflow(n, size, &r) ? SIZE_MAX : r;
}

#endif
