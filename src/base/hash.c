/* See hash.h. Words are little-endian, as on every machine this is built for. */
#include "base/hash.h"
#include <string.h>

enum { LANES = 8 };
static const uint64_t odd = 0x9e3779b97f4a7c15ull;              /* 2^64 / golden ratio */

static uint64_t turn(uint64_t x, int n) { return x << n | x >> (64 - n); }

/* Multiplication carries differences upwards only; the rotation brings them down again. */
static inline uint64_t step(uint64_t h, uint64_t word) { return turn(h ^ word, 29) * odd; }

uint64_t tt__hash_mix(uint64_t h, uint64_t word) {
    h = step(h, word);
    h ^= h >> 32;
    return h * odd;
}

uint64_t tt__hash64(const void *data, size_t bytes, uint64_t seed) {
    const uint8_t *p = data;
    uint64_t lane[LANES], w[LANES];
    size_t left = bytes;
    for (int i = 0; i < LANES; i++) lane[i] = seed + odd * (uint64_t)(i + 1);
    for (; left >= sizeof w; left -= sizeof w, p += sizeof w) {
        memcpy(w, p, sizeof w);
        for (int i = 0; i < LANES; i++) lane[i] = step(lane[i], w[i]);
    }
    memset(w, 0, sizeof w);
    memcpy(w, p, left);
    for (int i = 0; i < LANES && left; i++) lane[i] = step(lane[i], w[i]);
    uint64_t h = tt__hash_mix(seed, (uint64_t)bytes);
    for (int i = 0; i < LANES; i++) h = tt__hash_mix(h, lane[i]);
    return h;
}
