/* One option for each group, so that the sum of losses is least and the sum of bytes stays within a limit: exactly. */
#ifndef TT_ENGINE_KNAPSACK_H
#define TT_ENGINE_KNAPSACK_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

typedef struct tt_option { uint64_t bytes; double loss; } tt_option;

/* Group g has the options first[g] … first[g+1]-1, at least one, all losses finite. choice [n] gets the index within the group. TT_TARGET when
 * even the smallest options do not fit; choice then names those. */
tt_status tt__knapsack(const tt_option *options, const size_t *first, size_t n, uint64_t limit, size_t *choice, tt_err *err);
#endif
