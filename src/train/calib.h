/* Calibration: token sequences stream through a net block by block; the inputs of each block's matrices are summed up as Σ x x^T.
 *
 *     for each layer:  collect   batches through the block as it was, taps add to the Hessians        (several passes when sequential)
 *                      …         the caller compresses the layer's matrices and puts the operators into the calibration (set_op)
 *                      advance   batches through the compressed block: the next layer's inputs
 *
 * Two streams, the second on demand: MAIN goes through the compressed blocks, DENSE through the original ones. With both, taps also sum
 * up Σ x (x_dense - x)^T of an input as it is and as it would be without any compression (`cross`), and a trainer of blocks reads the inputs
 * of a block from MAIN and its targets from DENSE (tt__calib_target).
 *
 * Hidden states [samples * length, width] stay in memory, or as one file per batch in a folder when memory is short. Everything that
 * changes can be saved between two calls and loaded again, so that a killed run ends with the same bytes as an undisturbed one.
 */
#ifndef TT_TRAIN_CALIB_H
#define TT_TRAIN_CALIB_H
#include "models/net.h"
#include "text/tokenizer.h"

enum { TT_CALIB_INPUTS = 8, TT_CALIB_HEAD = 7 };   /* groups of matrices that read one activation (tt_weight.input); what the output matrix reads */

typedef enum tt_stream { TT_STREAM_MAIN, TT_STREAM_DENSE, TT_STREAMS } tt_stream;

typedef struct tt_calib {
    tt_ctx *ctx;
    const tt_net *net;
    tt_runner *runner;
    const int32_t *ids;                       /* [samples, length], lent */
    int64_t samples, length, width;
    int64_t batch, n_batches;                 /* sequences of a batch: fixed by the length and the widths of the net alone */
    char *dir;                                /* folder of saved states */
    bool in_memory, dense, cross;             /* hidden states; the second stream; its moments with the first */
    float *hidden[TT_STREAMS];                /* NULL: in the folder */
    float *X;                                 /* one batch on its way */
    const tt_linop **op;                      /* [n_weights] in place of the net's in the main stream, lent, or NULL */
    bool full;                                /* Hessians; otherwise their diagonals only */
    int64_t n[TT_CALIB_INPUTS];               /* width of each input, 0: no such input */
    float *sum[TT_CALIB_INPUTS];              /* [n, n] or [n], of the inputs being collected */
    float *moment[TT_CALIB_INPUTS];           /* [n, n] Σ x (x_dense - x)^T of the same, when cross */
    float *taken[TT_CALIB_INPUTS];            /* [rows of a batch, n]: inputs of the dense stream, when cross */
} tt_calib;

typedef struct tt_calib_options {
    const int32_t *ids;
    int64_t samples, length;
    const char *dir;
    bool in_memory, full, dense, cross;       /* cross: needs full, implies dense */
    bool head;                                /* TT_CALIB_HEAD is collected too, as if of a layer behind the last; without cross moments */
} tt_calib_options;

tt_status tt__calib_create(tt_ctx *ctx, const tt_net *net, const tt_calib_options *o, tt_calib **out, tt_err *err);
void tt__calib_free(tt_calib *c);
int64_t tt__calib_batch(const tt_net *net, int64_t length);
/* Floats of a row on its way through a block, about. */
int64_t tt__calib_row(const tt_net *net);
static inline int64_t tt__calib_tokens(const tt_calib *c) { return c->samples * c->length; }
/* The width of input `id` of the layers of a net; 0 when no matrix reads it. */
int64_t tt__calib_input(const tt_net *net, int id);

/* Replaces the operator of a weight in the main stream; lent; NULL: the net's own again. */
void tt__calib_set_op(tt_calib *c, size_t weight, const tt_linop *op);

/* Makes and zeroes the sums of the inputs in `set` (bit i: input i), drops the others. */
tt_status tt__calib_begin(tt_calib *c, unsigned set, tt_err *err);
tt_status tt__calib_collect(tt_calib *c, int layer, int64_t batch, tt_err *err);
/* Sums to means over the tokens; not finite → TT_FAIL. */
tt_status tt__calib_finish(tt_calib *c, int layer, tt_err *err);
/* Both streams, where there are two: the batch is at layer + 1 then. */
tt_status tt__calib_advance(tt_calib *c, int layer, int64_t batch, tt_err *err);

/* For trainers of blocks, between the collection and the advance of a layer: sequences of a batch; its rows [sequences * length, width] as
 * `layer` reads them; and what the original block makes of the dense stream, which the main one should come to. */
int64_t tt__calib_sequences(const tt_calib *c, int64_t batch);
tt_status tt__calib_read(tt_calib *c, tt_stream stream, int layer, int64_t batch, float *X, tt_err *err);
/* Rows [length, width] of one sequence, likewise. */
tt_status tt__calib_sequence(tt_calib *c, tt_stream stream, int layer, int64_t sequence, float *X, tt_err *err);
tt_status tt__calib_target(tt_calib *c, int layer, int64_t batch, float *Y, tt_err *err);

/* Saving: `advanced` batches have left `layer`, the others have not. Sums go to files that carry `tag`. */
tt_status tt__calib_save(tt_calib *c, int layer, int64_t advanced, const char *tag, tt_err *err);
tt_status tt__calib_load(tt_calib *c, int layer, int64_t advanced, unsigned set, const char *tag, tt_err *err);
/* The files in the folder that a state with this position needs (everything else of this kind may go). */
bool tt__calib_needs(const tt_calib *c, const char *file, int layer, int64_t advanced, const char *tag);
#endif
