/* The block trainer: the rounded weights of one decoder block learn to give what the original block gives.
 *
 *     x   rows of the compressed stream, as the block will see them         t   rows of the dense stream behind the original block
 *     loss = mean over rows and columns of (block(x; ŵ) - t)²
 *
 *   ROUNDING   which way each weight is rounded, and how far the grid of each group reaches: V and the scales move by the sign of their
 *              gradient, at a rate that falls to 0 along a line (AutoRound, arXiv 2309.05516)
 *   ALL        weights, scales and minima by Adam with its rate along half a cosine, gradients clipped (Block-AP of EfficientQAT, 2407.11062)
 *
 * Both through the operator of fakequant.h; a mask is kept, and with bits = 0 the weights under a mask (or all) learn in 16 bits. Sequences of a
 * step are drawn by seed, layer and step. Some sequences never train; now and then the loss on them decides which parameters are best, and those
 * are what comes out, so the result is never worse on them than the start. A loss or gradient that is not finite goes back to the best
 * parameters with half the rate, three times.
 *
 * Memory: parameters, gradients, the best so far, for ALL two moments: 12 or 20 bytes a weight of one block; and one block's rows of a batch.
 * A step costs three products per weight and row. Nothing depends on threads; a step is a function of the state, which can be saved between two.
 */
#ifndef TT_TRAIN_BLOCK_H
#define TT_TRAIN_BLOCK_H
#include "models/net.h"

typedef enum tt_block_mode { TT_BLOCK_ROUNDING, TT_BLOCK_ALL } tt_block_mode;

typedef struct tt_block_options {
    tt_block_mode mode;
    int64_t steps, batch;             /* batch: sequences of a step */
    double lr, lr_scale;              /* of weights (or V), in levels of their group; of scales and minima, in shares of the first scale */
    double clip;                      /* ALL: largest norm of the gradient, 0: any */
    bool bf16;                        /* products in bf16 where the machine has them */
    uint64_t seed;
} tt_block_options;

/* A matrix of the block; the arrays are the caller's, not changed before tt__block_finish, and alive as long as the trainer. */
typedef struct tt_block_matrix {
    size_t weight;                    /* its index in the net */
    int bits, group;                  /* bits 0: no grid */
    const float *W;                   /* [rows, cols] latent */
    const uint8_t *keep;
    const float *scale, *min;         /* [rows, groups]; min NULL: symmetric */
    const uint8_t *halfgrid;
} tt_block_matrix;

typedef struct tt_block_data {
    int64_t samples, length;
    /* rows X and targets Y [length, n_embd] of a sequence */
    tt_status (*sequence)(void *user, int64_t i, float *X, float *Y, tt_err *err);
    void *user;
} tt_block_data;

typedef struct tt_block tt_block;
tt_status tt__block_create(tt_ctx *ctx, const tt_net *net, int layer, const tt_block_data *data, const tt_block_options *o, const tt_block_matrix *m, int n,
                           tt_block **out, tt_err *err);
void tt__block_free(tt_block *b);
/* Weights of the widest layer of a net, and the bytes of a trainer for it, about, without the caller's arrays. */
uint64_t tt__block_weights(const tt_net *net);
uint64_t tt__block_bytes(const tt_net *net, tt_block_mode mode, int64_t rows);

bool tt__block_done(const tt_block *b);
/* One step (a look at the held-out sequences where it is due, then an update). An error other than a lost loss leaves the state as it was. */
tt_status tt__block_step(tt_block *b, tt_err *err);
typedef struct tt_block_progress { int64_t step, best_step, halvings; double first, best; /* loss on the held-out sequences */ } tt_block_progress;
tt_block_progress tt__block_progress(const tt_block *b);
double tt__block_share(const tt_block *b);            /* of the steps, 0 … 1 */
/* Matrix i as it is best: scales and minima that 16 bits hold [rows, groups], codes (NULL without a grid) and values [rows, cols], and the latent
 * weights that another trainer may go on from. These may be the arrays that the trainer was made with; it is of no use after the last matrix. */
void tt__block_finish(tt_block *b, int i, float *latent, float *scale, float *min, uint8_t *codes, float *values);

tt_status tt__block_save(const tt_block *b, const char *dir, const char *name, tt_err *err);
tt_status tt__block_load(tt_block *b, const char *dir, const char *name, tt_err *err);
#endif
