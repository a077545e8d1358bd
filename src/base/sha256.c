/* SHA-256, FIPS 180-4 section 6.2. The plain version is the definition; machines with the SHA instructions (about ten times faster:
 * hashing a model then costs no more than reading it) take the second one after a check at run time. */
#include "base/util.h"

#include <stdatomic.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotr(uint32_t x, int k) { return (x >> k) | (x << (32 - k)); }
static uint32_t be32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

/* Σ0 Σ1 σ0 σ1 Ch Maj as in the standard, equations 4.2 to 4.7. */
static void blocks_plain(uint32_t h[8], const uint8_t *p, size_t n) {
    for (; n; n--, p += 64) {
        uint32_t w[64], s[8];
        for (int t = 0; t < 16; t++) w[t] = be32(p + 4 * t);
        for (int t = 16; t < 64; t++) {
            uint32_t x = w[t - 15], y = w[t - 2];
            w[t] = w[t - 16] + (rotr(x, 7) ^ rotr(x, 18) ^ (x >> 3)) + w[t - 7] + (rotr(y, 17) ^ rotr(y, 19) ^ (y >> 10));
        }
        memcpy(s, h, sizeof s);
        for (int t = 0; t < 64; t++) {
            uint32_t a = s[0], e = s[4];
            uint32_t t1 = s[7] + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + K[t] + w[t];
            uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
            memmove(s + 1, s, 7 * sizeof *s);
            s[4] += t1;
            s[0] = t1 + t2;
        }
        for (int i = 0; i < 8; i++) h[i] += s[i];
    }
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/* The instructions keep the state as ABEF and CDGH; one sha256rnds2 does two rounds. m[0..3] is a sliding window of 16 words. */
__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_sha(uint32_t h[8], const uint8_t *p, size_t n) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i lo = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)h), 0xb1);
    __m128i hi = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(h + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(lo, hi, 8), cdgh = _mm_blend_epi16(hi, lo, 0xf0);
    for (; n; n--, p += 64) {
        __m128i abef0 = abef, cdgh0 = cdgh, m[4];
        for (int g = 0; g < 16; g++) {
            __m128i *now = &m[g & 3];
            if (g < 4) {
                *now = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * g)), swap);
            } else {                                       /* w[t-16] + σ0(w[t-15]) + w[t-7] + σ1(w[t-2]), four t at once */
                __m128i last = m[(g + 3) & 3];
                __m128i seven = _mm_alignr_epi8(last, m[(g + 2) & 3], 4);
                *now = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(*now, m[(g + 1) & 3]), seven), last);
            }
            __m128i wk = _mm_add_epi32(*now, _mm_loadu_si128((const __m128i *)(const void *)(K + 4 * g)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    lo = _mm_shuffle_epi32(abef, 0x1b);
    hi = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)h, _mm_blend_epi16(lo, hi, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(h + 4), _mm_alignr_epi8(hi, lo, 8));
}

static bool has_sha(void) {
    static atomic_int known;                               /* 0: not asked, 1: no, 2: yes */
    int k = atomic_load_explicit(&known, memory_order_relaxed);
    if (k == 0) {
        unsigned a, b, c, d, c1 = 0;
        if (__get_cpuid(1, &a, &b, &c, &d)) c1 = c;
        bool sse = (c1 & bit_SSE4_1) && (c1 & bit_SSSE3);
        k = sse && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29)) ? 2 : 1;
        atomic_store_explicit(&known, k, memory_order_relaxed);
    }
    return k == 2;
}

static void blocks(uint32_t h[8], const uint8_t *p, size_t n) {
    if (has_sha()) blocks_sha(h, p, n);
    else blocks_plain(h, p, n);
}
#else
static void blocks(uint32_t h[8], const uint8_t *p, size_t n) { blocks_plain(h, p, n); }
#endif

/* For the test that compares both. */
void tt__sha256_blocks_plain(uint32_t h[8], const uint8_t *p, size_t n) { blocks_plain(h, p, n); }

void tt__sha256_init(tt__sha256 *s) {
    static const uint32_t h0[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->h, h0, sizeof h0);
    s->bytes = 0;
}

void tt__sha256_update(tt__sha256 *s, const void *data, size_t n) {
    const uint8_t *p = data;
    size_t held = (size_t)(s->bytes % 64);
    s->bytes += n;
    if (held) {
        size_t take = n < 64 - held ? n : 64 - held;
        if (take) memcpy(s->buf + held, p, take);
        if (held + take < 64) return;
        blocks(s->h, s->buf, 1);
        p += take;
        n -= take;
    }
    blocks(s->h, p, n / 64);
    if (n % 64) memcpy(s->buf, p + n / 64 * 64, n % 64);
}

void tt__sha256_final(tt__sha256 *s, uint8_t out[32]) {
    uint64_t bits = s->bytes * 8;
    size_t held = (size_t)(s->bytes % 64);
    s->buf[held++] = 0x80;
    if (held > 56) {
        memset(s->buf + held, 0, 64 - held);
        blocks(s->h, s->buf, 1);
        held = 0;
    }
    memset(s->buf + held, 0, 56 - held);
    for (int i = 0; i < 8; i++) s->buf[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
    blocks(s->h, s->buf, 1);
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

void tt__sha256_final_hex(tt__sha256 *s, char out[65]) {
    uint8_t digest[32];
    tt__sha256_final(s, digest);
    for (int i = 0; i < 32; i++) {
        out[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    out[64] = 0;
}

void tt__sha256_hex(const void *data, size_t n, char out[65]) {
    tt__sha256 s;
    tt__sha256_init(&s);
    tt__sha256_update(&s, data, n);
    tt__sha256_final_hex(&s, out);
}
