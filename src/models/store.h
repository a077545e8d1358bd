/* How a net is stored as GGUF. Standard types stay what they are; an own operator becomes one I8 tensor per segment:
 *
 *   general.architecture        "trimtab"  (so that other readers refuse the file by name), real one in trimtab.architecture
 *   trimtab.schema              u32 1
 *   trimtab.op.<weight name>    "sparseq;rows=576;cols=576;bits=4,group=64"   (name ; rows ; cols ; params of describe())
 *   tensors  <weight name>#codes, <weight name>#scales, …  I8 [bytes]
 *
 *   trimtab.rope_adjacent       bool, the row order of q and k (net.h): such a file keeps the order of the net it came from
 *
 * A file in which every operator is standard keeps its architecture and loads in llama.cpp.
 */
#ifndef TT_MODELS_STORE_H
#define TT_MODELS_STORE_H
#include "models/net.h"
/* Writes the net with ops[i] in place of weight i where not NULL. `source` gives the metadata to copy (tokenizer, unknown keys), may be NULL
 * when `prepare` fills everything. Rows of permuted weights are written in GGUF order
 * unless the file is of our own architecture. extra: key, value string pairs, NULL-terminated. */
tt_status tt__store_gguf(const tt_net *net, const tt_linop *const *ops, const tt_gguf *source,
                         tt_status (*prepare)(void *user, tt_gguf_writer *w, tt_err *err), void *user,
                         const char *const *extra, const char *path, uint64_t *file_bytes, tt_err *err);
/* One operator in this form, whatever it is: what compress keeps of finished layers is stored like this too. */
tt_status tt__store_add_op(tt_gguf_writer *w, const char *weight, const tt_linop *op, tt_err *err);
/* What a file says about the operator of an own-format weight: its kind, the parameters of load(), its segments in the file. v is NULL when the
 * weight is standard. */
typedef struct tt_stored { const tt_linop_vtable *v; char params[256]; tt_segment seg[8]; int n_seg; } tt_stored;
tt_status tt__store_find_op(const tt_gguf *g, const char *weight, int64_t rows, int64_t cols, tt_stored *out, tt_err *err);
/* For the loader: the operator of an own-format weight, or *out = NULL when the weight is standard. */
tt_status tt__store_load_op(tt_ctx *ctx, const tt_gguf *g, const char *weight, int64_t rows, int64_t cols, tt_linop **out, tt_err *err);
#endif
