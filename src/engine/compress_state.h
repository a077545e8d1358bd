/* The state folder of a compression: what a killed run needs to go on.
 *
 *     state.json     fingerprint, position, what became of the finished matrices
 *     ops.L          GGUF with the finished operators of layer L (models/store.h's own-operator layout, for every type)
 *     hidden.*, dense.*, sum.*, cross.*, self.*    train/calib.h
 *     draft.P.I      matrix I of a layer in work, as block trainer P takes it over
 *     train.*, target.L.B    the trainer (train/block.h), and what layer L should give for batch B
 *
 * Everything is written whole before state.json points to it; files of an earlier position are removed afterwards.
 */
#ifndef TT_ENGINE_COMPRESS_STATE_H
#define TT_ENGINE_COMPRESS_STATE_H
#include "methods/method.h"
#include "models/net.h"

typedef enum tt_cstage { TT_C_SAMPLE, TT_C_COLLECT, TT_C_COMPRESS, TT_C_TRAIN, TT_C_ADVANCE, TT_C_DONE, TT_C_STAGES } tt_cstage;

typedef struct tt_position {
    tt_cstage stage;
    int layer, pass;
    int64_t index;                    /* batches collected or advanced, matrices of the pass compressed, steps of a trainer (pass: which trainer) */
} tt_position;

/* What became of one matrix. */
typedef struct tt_outcome { bool done, kept; /* kept: the matrix stays what it was */ char type[64]; double error, weight_error, sparsity, seconds; uint64_t bytes; } tt_outcome;

tt_status tt__cstate_save(const char *dir, const char *fingerprint, const tt_position *at, const tt_outcome *outcome, size_t n, tt_err *err);
/* *found: a state of this fingerprint. Anything else (none, foreign, damaged) is not an error; *foreign says that one lay there. */
tt_status tt__cstate_load(const char *dir, const char *fingerprint, tt_position *at, tt_outcome *outcome, size_t n, bool *found, bool *foreign, tt_err *err);

/* The weights of a unit: a layer, or -1 for those outside the layers. */
static inline bool tt__in_unit(const tt_net *net, size_t i, int unit) { return net->weights[i].op && net->weights[i].layer == unit; }
/* The operators of a unit that are not NULL, into "ops.UNIT". */
tt_status tt__cstate_save_ops(const char *dir, int unit, const tt_net *net, tt_linop *const *ops, tt_err *err);
/* The file's operators where ops[i] is NULL and the outcome says replaced; they lend from *file, which the caller closes after them. */
tt_status tt__cstate_load_ops(const char *dir, int unit, const tt_net *net, tt_linop **ops, const tt_outcome *outcome, tt_gguf **file, tt_err *err);
/* What a block trainer takes over of a draft: latent values, mask, grids. A loaded draft was made for its shape (tt__draft_init); W and codes are not in it. */
tt_status tt__cstate_save_draft(const char *dir, const char *name, const tt_draft *d, tt_err *err);
tt_status tt__cstate_load_draft(const char *dir, const char *name, tt_draft *d, tt_err *err);
/* Removes the files of a state that `needed` does not claim (NULL: all but state.json, then that, then the folder when empty). */
void tt__cstate_sweep(const char *dir, bool (*needed)(void *user, const char *name), void *user);
/* tt_compress with its own interval between two saves; 0: after every step (tests). */
tt_status tt__compress(tt_ctx *ctx, const tt_compress_options *options, double save_seconds, tt_compress_report **report, tt_err *err);
/* Seconds that the first layer takes with so many samples (no model is written; the state folder is used and removed). */
tt_status tt__compress_probe(tt_ctx *ctx, const tt_compress_options *options, double *seconds, tt_err *err);
#endif
