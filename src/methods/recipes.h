/* Named recipes (recipes.inc): lines of methods for each stage, and how much work they may be. */
#ifndef TT_METHODS_RECIPES_H
#define TT_METHODS_RECIPES_H
#include "base/err.h"
#include "trimtab/trimtab.h"

/* {n} in a step's line becomes the amount. The caller frees *line with tt__free. */
tt_status tt__named_line(const tt_named_step *step, int64_t amount, char **line, tt_err *err);
#endif
