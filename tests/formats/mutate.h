/* Structure-aware mutation of format files, shared by the unit tests and the fuzz targets: parse, then edit fields with values from a list of
 * nasty ones, so that edits get past the magic and the lengths into the checks behind them. */
#ifndef TT_TESTS_MUTATE_H
#define TT_TESTS_MUTATE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct mutate_field { size_t at; int width; } mutate_field;
typedef struct mutate_map { mutate_field field[256]; size_t n; const uint8_t *b; size_t size, at; bool ok; } mutate_map;

static inline uint64_t mutate_random(uint64_t *s) {
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Notes a little-endian field at the cursor and gives its value. */
static inline uint64_t mutate_take(mutate_map *m, int width) {
    uint64_t v = 0;
    if (!m->ok || m->size - m->at < (size_t)width) return m->ok = false, 0;
    memcpy(&v, m->b + m->at, (size_t)width);
    if (m->n < 256) m->field[m->n++] = (mutate_field){m->at, width};
    m->at += (size_t)width;
    return v;
}
static inline void mutate_skip(mutate_map *m, uint64_t n) {
    if (!m->ok || n > m->size - m->at) m->ok = false;
    else m->at += (size_t)n;
}
static inline void mutate_value(mutate_map *m, uint64_t type, int depth) {
    static const uint8_t width[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) mutate_skip(m, mutate_take(m, 8));
    else if (type == 9 && depth == 0) {
        uint64_t element = mutate_take(m, 4), n = mutate_take(m, 8);
        for (uint64_t i = 0; i < n && m->ok; i++) mutate_value(m, element, 1);
    } else if (type < 13 && width[type]) mutate_take(m, width[type]);
    else m->ok = false;
}
static inline void mutate_walk_gguf(mutate_map *m, const uint8_t *b, size_t size) {
    *m = (mutate_map){.b = b, .size = size, .ok = true};
    mutate_take(m, 4);
    mutate_take(m, 4);
    uint64_t tensors = mutate_take(m, 8), keys = mutate_take(m, 8);
    for (uint64_t i = 0; i < keys && m->ok; i++) {
        mutate_skip(m, mutate_take(m, 8));
        mutate_value(m, mutate_take(m, 4), 0);
    }
    for (uint64_t i = 0; i < tensors && m->ok; i++) {
        mutate_skip(m, mutate_take(m, 8));
        uint64_t dims = mutate_take(m, 4);
        for (uint64_t d = 0; d < dims && m->ok; d++) mutate_take(m, 8);
        mutate_take(m, 4);
        mutate_take(m, 8);
    }
}

static inline uint64_t mutate_nasty(uint64_t old, uint64_t *s) {
    static const uint64_t values[] = {0, 1, 2, 3, 4, 5, 8, 9, 12, 13, 31, 32, 33, 63, 64, 255, 256, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x3fffffffffffffff,
                                      0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffe0, 0xffffffffffffffe1, 0xfffffffffffffff0, 0xfffffffffffffffd, 0xffffffffffffffff};
    switch (mutate_random(s) % 5) {
    case 0: return old + 1;
    case 1: return old - 1;
    case 2: return old ^ (uint64_t)1 << (mutate_random(s) % 64);
    default: return values[mutate_random(s) % (sizeof values / sizeof *values)];
    }
}

/* Edits one to three fields of a GGUF file in place; cuts it now and then. Returns the new size. */
static inline size_t mutate_gguf(uint8_t *b, size_t size, uint64_t *s) {
    mutate_map m;
    mutate_walk_gguf(&m, b, size);
    for (uint64_t k = 1 + mutate_random(s) % 3; m.n && k; k--) {
        mutate_field f = m.field[mutate_random(s) % m.n];
        uint64_t v = 0;
        memcpy(&v, b + f.at, (size_t)f.width);
        v = mutate_nasty(v, s);
        memcpy(b + f.at, &v, (size_t)f.width);
    }
    if (size && mutate_random(s) % 8 == 0) b[mutate_random(s) % size] ^= (uint8_t)(1u << (mutate_random(s) % 8));
    return size && mutate_random(s) % 16 == 0 ? (size_t)(mutate_random(s) % size) : size;
}

/* Replaces a number, a quote or a bracket of a safetensors header (or of any JSON text behind `skip` bytes), keeping the length word
 * right most of the time. b has room for `max` bytes. Returns the new size. */
static inline size_t mutate_json(uint8_t *b, size_t size, size_t max, size_t skip, uint64_t *s) {
    size_t end = size, places[128], n = 0;
    uint64_t header = 0;
    if (skip == 8 && size >= 8) {
        memcpy(&header, b, 8);
        if (header < size - 8) end = 8 + (size_t)header;
    }
    for (size_t i = skip; i < end && n < 128; i++)
        if (b[i] < 0x80 && b[i] && strchr("0123456789\"{}[],:", b[i]) && mutate_random(s) % 2) places[n++] = i;
    if (!n) return size;
    size_t at = places[mutate_random(s) % n];
    char text[24];
    if (b[at] < '0' || b[at] > '9') {
        b[at] = (uint8_t)"\"{}[],: \\x"[mutate_random(s) % 10];
        return size;
    }
    size_t run = 1, len = (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)mutate_nasty(b[at] - (uint64_t)'0', s));
    while (at + run < end && b[at + run] >= '0' && b[at + run] <= '9') run++;
    if (size - run + len > max) return size;
    memmove(b + at + len, b + at + run, size - at - run);
    memcpy(b + at, text, len);
    if (header && mutate_random(s) % 8) {
        header += len - run;
        memcpy(b, &header, 8);
    }
    return size - run + len;
}
#endif
