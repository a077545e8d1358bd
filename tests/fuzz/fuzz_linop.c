/* Own operators from any bytes, as a file would bring them: u8 kind, u8 rows - 1, u16 columns, u8 length of the parameters, parameters, then
 * segments: u8 name, u16 length, bytes. What loads decodes without a fault, multiplies, describes itself so that it loads again, and its run
 * form has the same bits. */
#include "base/ctx.h"
#include "base/util.h"
#include "linop/linop.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)
enum { SEGMENTS = 8 };

static const char *const kinds[] = {"group", "sparseq", "slide2", "bitmask", "panel", "superpanel", "dense", "block"};
static const char *const names[] = {"codes", "scales", "mins", "mask", "start", "values", "subs", "data", "places", "counts"};

typedef struct input { const uint8_t *at; size_t left; } input;

static unsigned take(input *in, size_t bytes) {
    unsigned v = 0;
    for (size_t i = 0; i < bytes && in->left; i++, in->at++, in->left--) v |= (unsigned)*in->at << 8 * i;
    return v;
}

static float *decoded(const tt_linop *op) {
    float *W = tt__alloc((size_t)(op->rows * op->cols) * sizeof *W);
    MUST(W);
    tt__linop_rows(op, 0, op->rows, W);
    return W;
}

static void check_same(const tt_linop *a, const tt_linop *b) {
    float *x = decoded(a), *y = decoded(b);
    for (int64_t i = 0; i < a->rows * a->cols; i++) MUST(x[i] == y[i] || (x[i] != x[i] && y[i] != y[i]));
    tt__free(x);
    tt__free(y);
}

static void multiply(tt_ctx *ctx, const tt_linop *op) {
    float *x = tt__calloc((size_t)op->cols, sizeof *x), *y = tt__alloc((size_t)op->rows * sizeof *y);
    void *ws = tt__alloc(tt__act_bytes(1, op->cols));
    tt_act act;
    MUST(x && y && ws && tt__scratch_reserve(ctx, tt__linop_scratch(ctx, op), NULL) == TT_OK);
    for (int64_t i = 0; i < op->cols; i++) x[i] = (float)(i % 7) - 3;
    tt__act_prepare(ctx, &act, x, op->cols, 1, op->cols, true, ws);
    tt__linop_apply(ctx, op, &act, y, op->rows);
    tt__free(x);
    tt__free(y);
    tt__free(ws);
}

static void use(tt_ctx *ctx, tt_linop *op) {
    tt_linop *again = NULL, *panel = NULL;
    tt_segment seg[SEGMENTS];
    char params[256];
    float *W = decoded(op);
    tt__free(W);
    multiply(ctx, op);
    int n = op->v->segments(op, seg);
    op->v->describe(op, params, sizeof params);
    MUST(op->v->load(ctx, params, op->rows, op->cols, seg, n, &again, NULL) == TT_OK);
    check_same(op, again);
    MUST(tt__linop_panel_from(ctx, op, NULL, &panel, NULL) == TT_OK);
    if (panel) check_same(op, panel), multiply(ctx, panel);
    tt__linop_free(panel);
    tt__linop_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tt_ctx *ctx;
    tt_ctx_options co = tt_ctx_default_options();
    tt_err err = {0};
    co.threads = 1;
    if (!ctx) MUST(tt_ctx_create(&co, &ctx, NULL) == TT_OK);
    MUST(tt__scratch_reserve(ctx, 1 << 22, NULL) == TT_OK);           /* so that memory is the same before and after */
    uint64_t before = tt__mem_now();
    input in = {data, size};
    tt_segment seg[SEGMENTS];
    char params[256];
    const char *kind = kinds[take(&in, 1) % (sizeof kinds / sizeof *kinds)];
    const int64_t rows = 1 + take(&in, 1), cols = take(&in, 2);
    unsigned length = take(&in, 1), n = 0;
    for (unsigned i = 0; i < length; i++) params[i] = (char)take(&in, 1);
    params[length] = 0;
    while (in.left && n < SEGMENTS) {
        const char *name = names[take(&in, 1) % (sizeof names / sizeof *names)];
        size_t bytes = take(&in, 2);
        if (bytes > in.left) bytes = in.left;
        uint8_t *copy = tt__alloc(bytes ? bytes : 1);
        MUST(copy);
        memcpy(copy, in.at, bytes);
        in.at += bytes, in.left -= bytes;
        seg[n++] = (tt_segment){name, copy, bytes};
    }
    const tt_linop_vtable *v = tt__linop_find(kind);
    tt_linop *op = NULL;
    tt_status st = v ? v->load(ctx, params, rows, cols, seg, (int)n, &op, &err) : TT_BADFILE;
    MUST((st == TT_OK) == (op != NULL) && (st == TT_OK || !v || err.what[0]));
    if (op) use(ctx, op);
    tt__linop_free(op);
    for (unsigned i = 0; i < n; i++) tt__free((void *)(uintptr_t)seg[i].data);
    MUST(st == TT_OK || tt__mem_now() == before);      /* what loaded may have made the scratch grow */
    return 0;
}
