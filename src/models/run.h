/* A net made ready to run fast: its operators in the run format (linop/panel.c), one copy in memory. */
#ifndef TT_MODELS_RUN_H
#define TT_MODELS_RUN_H
#include "models/net.h"

/* Replaces every operator that has a panel, one after the other, each on all threads, with the weights bit-equal; the pages of `source`
 * (NULL: none) that an operator was made from are given back as soon as its panel stands. The net owns the panels' memory. */
tt_status tt__net_to_run(tt_ctx *ctx, tt_net *net, const tt_gguf *source, tt_err *err);
/* Bytes of the panels that this would make; 0: nothing to do. */
uint64_t tt__net_run_bytes(const tt_net *net);
/* The net's memory for so many bytes of panels, in huge pages where the system has them; made once, owned by the net. NULL: out of memory. */
uint8_t *tt__net_run_memory(tt_net *net, uint64_t bytes);
#endif
