/* A fast 64-bit checksum against damage and mix-ups, not against an attacker: eight lanes of xor, rotate, multiply over 64 bytes at a time, so
 * that it runs at the speed of memory. Never changes: files carry it. */
#ifndef TT_BASE_HASH_H
#define TT_BASE_HASH_H
#include <stddef.h>
#include <stdint.h>
uint64_t tt__hash64(const void *data, size_t bytes, uint64_t seed);
/* Another word into a running value. */
uint64_t tt__hash_mix(uint64_t h, uint64_t word);
#endif
