/* The k smallest of n non-negative floats: their bits order as they do, so three counting passes of 11 bits find the threshold. */
#include "methods/weights/mask.h"

#include "base/util.h"

tt_status tt__pattern_parse(const char *text, tt_pattern *out, tt_err *err) {
    const char *at = text;
    *out = (tt_pattern){0, 0};
    if (!strcmp(text, "unstructured")) return TT_OK;
    bool read = *at != '0' && tt__scan_int(&at, 31, &out->n) && *at++ == ':' && *at != '0' && tt__scan_int(&at, 32, &out->m) && !*at;
    TT_FAIL_IF(!read || out->n >= out->m, err, TT_USAGE,
               "bad sparsity pattern|pattern|%s|unstructured, or N:M such as 2:4 with 1 <= N < M <= 32", text);
    return TT_OK;
}

static inline uint32_t key(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u & 0x7fffffffu;
}

void tt__keep_largest(const float *score, int64_t n, int64_t prune, uint8_t *keep) {
    memset(keep, 1, (size_t)n);
    if (prune <= 0) return;
    if (prune >= n) {
        memset(keep, 0, (size_t)n);
        return;
    }
    uint32_t prefix = 0, mask = 0;
    int64_t rank = prune - 1;                                       /* the rank-th smallest (from 0) among those that match the prefix */
    for (int shift = 22; shift >= 0; shift -= 11) {
        int64_t count[2048] = {0};
        for (int64_t i = 0; i < n; i++)
            if ((key(score[i]) & mask) == prefix) count[key(score[i]) >> shift & 2047]++;
        uint32_t digit = 0;
        while (rank >= count[digit]) rank -= count[digit++];
        prefix |= digit << shift;
        mask |= 2047u << shift;
    }
    int64_t ties = rank + 1;                                        /* of the scores equal to the threshold */
    for (int64_t i = 0; i < n; i++) {
        uint32_t k = key(score[i]);
        if (k < prefix) keep[i] = 0;
        else if (k == prefix && ties > 0) keep[i] = 0, ties--;
    }
}

void tt__keep_row(const float *score, int64_t cols, tt_pattern p, double sparsity, uint8_t *keep) {
    if (!p.m) {
        tt__keep_largest(score, cols, tt__pruned_of(cols, sparsity), keep);
        return;
    }
    for (int64_t c = 0; c < cols; c += p.m) {
        int64_t len = cols - c < p.m ? cols - c : p.m;
        tt__keep_largest(score + c, len, len - tt__pattern_kept(p, len), keep + c);
    }
}
