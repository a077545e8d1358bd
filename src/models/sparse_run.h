/* Sparse 4-bit weights made ready to run: which form is fastest is measured when a model opens. */
#ifndef TT_MODELS_SPARSE_RUN_H
#define TT_MODELS_SPARSE_RUN_H
#include "models/net.h"

/* Every sparseq operator with 4 bits goes to the chosen form (all to the same one); pages of `source` (NULL: none) that they were made from
 * are given back one by one. */
tt_status tt__net_sparse_to_run(tt_ctx *ctx, tt_net *net, const tt_gguf *source, tt_run_format form, tt_err *err);
#endif
