/* Stock type names of llama.cpp ("Q4_0", "Q4_K_M" …): which type each matrix of a model gets under one. */
#ifndef TT_ENGINE_MIX_H
#define TT_ENGINE_MIX_H
#include "models/net.h"

typedef struct tt_mix { const char *name; tt_dtype base; } tt_mix;
/* Case-insensitive; NULL: not a stock name. */
const tt_mix *tt__mix_find(const char *name);
/* The nearest stock name, or NULL. */
const char *tt__mix_nearest(const char *name);
/* The type of weight i; *wanted is what the mix asked for before the row length forced another one (equal when nothing was forced). */
tt_dtype tt__mix_type(const tt_mix *mix, const tt_net *net, size_t i, tt_dtype *wanted);
/* t, or what llama-quantize puts in its place where rows of `cols` are not whole blocks of t. */
tt_dtype tt__mix_fitting(tt_dtype t, int64_t cols);
#endif
