/* A method: one published technique, its knobs, and the functions that apply it. One file per method, one line in methods.inc. From the
 * list come the CLI help, the docs page, the recipe parser, the search space, the test run and the bench run. */
#ifndef TT_METHODS_METHOD_H
#define TT_METHODS_METHOD_H
#include "base/ctx.h"
#include "linop/linop.h"
#include "models/net.h"

/* ---- compress stage ---- */
/* Statistics of the inputs of a matrix over the calibration tokens. */
typedef struct tt_stats {
    int64_t n;                    /* inputs (cols) */
    int64_t tokens;
    const float *hessian;         /* [n, n] Σ x x^T / tokens (f32), or NULL when not wanted */
    const float *cross;           /* [n, n] Σ x (x_dense - x)^T / tokens: x_dense is the input of the uncompressed model; or NULL when not wanted */
    const float *sumsq;           /* [n] Σ x_j² / tokens, always */
} tt_stats;

/* A matrix on its way from dense to operator; methods change it in place, in recipe order. Owned by the caller of the method. */
typedef struct tt_draft {
    const char *name;             /* "blk.3.attn_q.weight" */
    int layer;
    int64_t rows, cols;
    float *W;                     /* [rows, cols] current values; equal to the decoded codes once there are codes */
    uint8_t *keep;                /* [rows, cols] 1 = kept, or NULL: nothing pruned; W is 0 where keep is 0 */
    int bits, group;              /* 0: not quantized */
    uint8_t *codes;               /* [rows, cols] */
    float *scales;                /* [rows, groups], groups = ceil(cols / group) */
    uint8_t *halfgrid;            /* [rows, groups] symmetric grids: 1 = without zero level, or NULL: all 0 */
    float *mins;                  /* [rows, groups] asymmetric: value = scale*code + min, or NULL: symmetric */
    float *latent;                /* [rows, cols] when a later step trains (tt__draft_train): the values that rounding was applied to, from which training
                                     goes on. The caller copies W into it while nothing is rounded; methods that change W as they round write it */
    tt_linop *op;                 /* finished already (a standard type whose own search chose the codes), or NULL; W holds its values */
} tt_draft;
tt_status tt__draft_init(tt_draft *d, const char *name, int layer, int64_t rows, int64_t cols, tt_err *err);
void tt__draft_free(tt_draft *d);
/* Makes room for codes and scales (and halfgrid; and mins when asked). TT_USAGE when the draft is quantized already. */
tt_status tt__draft_quantize(tt_draft *d, int bits, int group, bool with_mins, tt_err *err);
/* Room for a mask (TT_USAGE when there is one), and W = 0 where it is 0. */
tt_status tt__draft_prune(tt_draft *d, tt_err *err);
void tt__draft_apply_mask(tt_draft *d);
/* Room for latent values, which are W now. */
tt_status tt__draft_train(tt_draft *d, tt_err *err);
/* Latent values whose rounding is not what stands in the codes (a polish came after it) become the rounded ones: training begins at what was made. */
void tt__draft_settle(tt_draft *d);
static inline int64_t tt__draft_groups(const tt_draft *d) { return d->group ? (d->cols + d->group - 1) / d->group : 0; }
/* The operator of a finished draft (an op in it is handed over): a standard GGUF type where one holds it exactly (format "auto" or
 * "gguf"), else our own (format "own" always). TT_TARGET when format is "gguf" and none fits. */
tt_status tt__draft_finish(tt_ctx *ctx, tt_draft *d, const char *format, tt_linop **out, tt_err *err);

/* Knob values of one recipe step, checked and with defaults. */
typedef struct tt_knobs { const tt_recipe *recipe; size_t step; } tt_knobs;
int64_t tt__knob_i(const tt_knobs *k, const char *name);
double tt__knob_f(const tt_knobs *k, const char *name);
bool tt__knob_b(const tt_knobs *k, const char *name);
const char *tt__knob_s(const tt_knobs *k, const char *name);

/* CROSS: the Hessian and the cross moment; DENSE: the stream through the original blocks beside that through the compressed ones (train/calib.h). */
struct tt_block_options;
enum { TT_WANT_NOTHING = 0, TT_WANT_SUMSQ = 1, TT_WANT_HESSIAN = 2, TT_WANT_CROSS = 4, TT_WANT_DENSE = 8 };
typedef struct tt_compress_vtable {
    unsigned (*wants)(const tt_knobs *k);
    bool (*sequential)(const tt_knobs *k);                    /* recollect statistics inside a block; NULL: no */
    tt_status (*matrix)(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err);
    const char *(*format)(const tt_knobs *k);                 /* "auto", "gguf", "own"; NULL, or it gives NULL: as the steps before say */
    /* How all drafts of a layer are trained together (train/block.h) once every `matrix` has been called; NULL: they are not. Such steps end a recipe. */
    tt_status (*block)(const tt_knobs *k, struct tt_block_options *o, tt_err *err);
} tt_compress_vtable;

/* ---- train stage ---- */
struct tt_train_job;              /* train/trainer.h */
typedef struct tt_train_vtable {
    /* runs to the end, to the budget or to cancellation; saves its state through the job */
    tt_status (*train)(tt_ctx *ctx, const tt_knobs *k, struct tt_train_job *job, tt_err *err);
    bool model;                   /* what it writes is a model (OUT.gguf), not the folder of a tab */
} tt_train_vtable;

typedef struct tt_method {
    tt_method_info info;
    /* TT_OK, or TT_USAGE naming what the net lacks; NULL: any net */
    tt_status (*applies)(const tt_net *net, const tt_knobs *k, tt_err *err);
    double (*cost_bits)(const tt_knobs *k, int64_t rows, int64_t cols);   /* predicted bits per weight, all overheads; NULL: unknown */
    const tt_compress_vtable *compress;
    const tt_train_vtable *train;
} tt_method;
const tt_method *tt__method_of(const tt_method_info *info);
#endif
