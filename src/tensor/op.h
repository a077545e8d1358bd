/* What an op file sees: values, nodes, the descriptor it fills, and the helpers for recording and running.
 *
 * A graph is a list of values and two lists of nodes (forward, backward). A node is one application of an op: `grad` tells whether it
 * runs the op's forward or its backward function. Every node writes values that no other node writes; sharing of storage is the
 * planner's business, and an op only says which inputs its first output may overwrite.
 *
 *     forward   x ─ rmsnorm ─ n ─ prep ─ a ─ linear ─ q …            (recorded by the model)
 *     backward  d:y ─ linear' ─ … ─ recomputed n, a, q ─ rmsnorm' ─ d:x   (recorded by tt__graph_backward)
 */
#ifndef TT_TENSOR_OP_H
#define TT_TENSOR_OP_H
#include "tensor/graph.h"

typedef enum tt_kind { TT_VAL_ROWS, TT_VAL_ACT } tt_kind;      /* a matrix [rows, cols]; a prepared activation of one */

typedef struct tt_value {
    char name[24];                /* of bound values and for printing */
    tt_kind kind;
    int64_t cols;
    tt_val base;                  /* of a prepared activation: the matrix it reads, which lives as long */
    int phase;                    /* 0 forward, 1 backward */
    int32_t def, last;            /* node that writes it (-1: bound input), last node of its phase that reads it */
    int32_t last_b;               /* forward values: last node of backward that reads it, -1: none */
    bool bound, output, kept;     /* storage of the caller; output of the graph; stored between forward and backward */
    float *data; int64_t ld;      /* of bound ones */
    tt_val root;                  /* storage is that of this value (in-place chains); itself when none */
    uint64_t bytes, offset;       /* of roots, in the workspace */
    int32_t live0, live1;         /* of roots: nodes between which the storage is taken */
    int64_t kept_cols;            /* kept roots: columns of those before it, for the offset in `kept` */
} tt_value;

/* Everything an op may want to remember; unused ones are 0. */
typedef struct tt_params { int slot; float eps, scale; int64_t H, Hkv, D; const float *inv_freq; bool adjacent; } tt_params;

enum { TT_MAX_IN = 7, TT_MAX_OUT = 3 };
struct tt_op;
typedef struct tt_node {
    const struct tt_op *op;
    bool grad;
    int n_in, n_out;
    tt_val in[TT_MAX_IN], out[TT_MAX_OUT];      /* -1: absent */
    tt_params p;
    int tap;                      /* input id to show after this node, -1: none */
    int group;                    /* nodes from here on that run as one (set by the planner), 0 inside a group */
} tt_node;

typedef struct tt_run { tt_ctx *ctx; struct tt_graph *g; const tt_env *env; uint8_t *ws, *kept; } tt_run;
typedef struct tt_mat { float *x; int64_t ld, cols; } tt_mat;

typedef struct tt_op {
    const char *name;
    unsigned in_place, grad_in_place;           /* bit i: out[0] of the node may lie where in[i] was */
    bool grouped;                               /* neighbours with the same in[0] are handed over together */
    unsigned spare;                             /* bit i: TT_KEEP_MOST computes in[i] again */
    bool cheap;                                 /* TT_KEEP_MOST computes its outputs again */
    bool keep;                                  /* TT_KEEP_ATTENTION keeps what backward needs of its inputs and outputs */
    void (*forward)(const tt_run *r, const tt_node *n, int count);
    /* records nodes with tt__g_grad_node; `n` is the forward node. dout of output i: tt__g_grad(g, n->out[i]) */
    void (*gradient)(tt_graph *g, const tt_node *n);
    void (*backward)(const tt_run *r, const tt_node *n, int count);   /* NULL: `gradient` records no node of its own */
    double (*macs)(const tt_graph *g, const tt_node *n, const tt_env *env);
} tt_op;

#define TT_OP(name) extern const tt_op tt__op_##name;
#include "tensor/ops.inc"
#undef TT_OP

struct tt_graph {
    tt_ctx *ctx;
    tt_status failed; tt_err err;               /* the first error of recording */
    tt_value *vals; int32_t n_vals, cap_vals;
    tt_node *nodes[2]; int32_t n_nodes[2], cap_nodes[2];
    tt_act *acts;                               /* [n_vals] run state of prepared activations */
    tt_val *grad, *again; int32_t n_grad;       /* while recording backward: gradient, recomputed twin of forward values */
    bool *active;                               /* forward values that depend on the differentiated input */
    tt_keep keep;
    bool planned, exact, train;                 /* train: backward reads the linears' inputs too */
    int64_t max_rows, kept_cols, rope_want;
    uint64_t workspace;
    const float *rope_inv; int64_t rope_half, rope_cap, rope_n;   /* cos, sin of rope_n positions: [position, half, 2] */
    float *rope;
};

/* ---- recording ---- */
tt_val tt__g_value(tt_graph *g, int phase, tt_kind kind, int64_t cols, const char *name);
/* Appends a node to a phase; takes note of the uses. Returns its index, or -1 after a failure. */
int32_t tt__g_node(tt_graph *g, int phase, const tt_node *n);
/* A forward node with one output of `cols` columns. */
tt_val tt__g_op1(tt_graph *g, const tt_op *op, const tt_val *in, int n_in, const tt_params *p, tt_kind kind, int64_t cols);
void tt__g_fail(tt_graph *g, const char *what, const char *where);
bool tt__g_is_rows(const tt_graph *g, tt_val v, int64_t cols /* -1: any */);

/* ---- while recording backward ---- */
bool tt__g_wants(const tt_graph *g, tt_val forward);            /* is its gradient asked for? */
tt_val tt__g_grad(const tt_graph *g, tt_val forward);           /* the sum so far, -1: none yet */
void tt__g_grad_add(tt_graph *g, tt_val forward, tt_val d);     /* one more summand */
void tt__g_grad_set(tt_graph *g, tt_val forward, tt_val d);     /* replaces the sum (d holds it already) */
tt_val tt__g_grad_value(tt_graph *g, int64_t cols);             /* a new gradient matrix */
/* A backward node; inputs may be forward values (kept or recomputed) and gradients. */
void tt__g_grad_node(tt_graph *g, const tt_op *op, const tt_val *in, int n_in, const tt_val *out, int n_out, const tt_params *p);

/* ---- running ---- */
tt_mat tt__run_mat(const tt_run *r, tt_val v);
tt_act *tt__run_act(const tt_run *r, tt_val v);
static inline int64_t tt__run_rows(const tt_run *r) { return r->env->rows; }

/* ---- plan.c ---- */
void tt__plan_uses(tt_graph *g);
void tt__plan_storage(tt_graph *g);
tt_status tt__plan_offsets(tt_graph *g, tt_err *err);
void tt__plan_groups(tt_graph *g);
#endif
