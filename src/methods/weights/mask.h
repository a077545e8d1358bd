/* Choosing which weights stay: by share of a list, or N of every M. Exact counts, ties by position. */
#ifndef TT_METHODS_MASK_H
#define TT_METHODS_MASK_H
#include "methods/method.h"

/* A knob "unstructured" or "N:M" (N kept of M; 1 ≤ N < M ≤ 32). */
typedef struct tt_pattern { int n, m; } tt_pattern;                /* m = 0: unstructured */
tt_status tt__pattern_parse(const char *text, tt_pattern *out, tt_err *err);
/* Kept of a short last group of `len` < M columns: the same share, rounded up. */
static inline int64_t tt__pattern_kept(tt_pattern p, int64_t len) { return (len * p.n + p.m - 1) / p.m; }

/* keep[i] = 0 for the `prune` smallest of n scores (finite, ≥ 0), 1 for the others; among equal scores the first ones go. */
void tt__keep_largest(const float *score, int64_t n, int64_t prune, uint8_t *keep);
/* The mask of one row of scores [cols] under a pattern; sparsity counts for unstructured ones. */
void tt__keep_row(const float *score, int64_t cols, tt_pattern p, double sparsity, uint8_t *keep);
/* How many of n weights a sparsity takes away. */
static inline int64_t tt__pruned_of(int64_t n, double sparsity) { return (int64_t)((double)n * sparsity + 1e-6); }
#endif
