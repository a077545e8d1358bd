/* Every hot loop of the kernel table on its own, beside what the machine allows: `doctor --bench-kernels`.
 *
 * A loop runs on one thread with its operands in the second-level cache. Its ideal time is the longest of bytes / l2, operations / fma and
 * operations / dot (kernels/probe.h); share = ideal / measured. Loops that stream weights run a second time on all threads over
 * more bytes than the caches hold: there the ceiling is what memory delivers.
 *
 *     chunk    what one call of a streaming loop reads: some rows, their segments one behind the other from 64-byte boundaries
 *     stream   the same chunk again and again, STREAM_BYTES in all; one tile of the pool is one chunk
 *
 * A new kernel gets a line in one of the functions `*_loops` below.
 */
#include "base/util.h"
#include "engine/model.h"
#include "kernels/attention.h"
#include "kernels/batch.h"
#include "kernels/bitmask.h"
#include "kernels/codes.h"
#include "kernels/probe.h"
#include "kernels/slide2.h"
#include <math.h>
#include <stdio.h>

enum {
    COLS = 1024, MAX_T = 8, MAX_ROWS = 1024,
    CHUNK_BYTES = 160 << 10, STREAM_BYTES = 160 << 20,
    N = 16384, FLOATS = 26 * N,                    /* elements of a vector loop; all floats at hand */
    HALF = 0x211f,                                 /* 0.01 as f16 */
    DECODED = 32,                                  /* rows that a decoder writes: 128 KB */
    BATCH = 256,                                   /* tokens of a batch */
    TABLE_ROWS = 160, USUAL_LOOPS = 123
};
static const double usual_seconds = 8;

typedef struct lab {
    tt_ctx *ctx, one;                              /* `one` has a single thread */
    const tt_kernels *k;
    tt_kernel_table *table;
    uint8_t *chunk, *stream;
    float *f, *y;                                  /* [FLOATS] random; results, [workers][MAX_T * MAX_ROWS] */
    tt_q8 x;                                       /* MAX_T tokens of COLS */
    tt_unrolled unrolled;                          /* one */
    void *batch;                                   /* room for BATCH tokens of COLS */
    tt__rng rng;
    double slot;                                   /* seconds for one measurement */
} lab;

typedef struct loop loop;
struct loop {
    const char *kernel;
    void (*call)(const lab *l, const loop *o, const uint8_t *chunk, float *y);
    double bytes, ops;                             /* of a call */
    bool integer;                                  /* `dot` bounds the operations, else `fma` */
    int bits, group, T;
    tt_panel_grid grid;
    tt_dtype type;
    int64_t rows, row_bytes, at[4], chunk_bytes;   /* of weights: segment i of a chunk begins at at[i] */
};

/* ------------------------------------------------------------ time ---- */

/* The best of several batches, each long enough for the clock; as many as the slot holds, three at least. */
static double best_call(const lab *l, const loop *o) {
    double best = 1e30, used = 0;
    int64_t calls = 1;
    for (int batch = 0; batch < 3 || used < l->slot; batch++) {
        const double start = tt__now();
        for (int64_t i = 0; i < calls; i++) o->call(l, o, l->chunk, l->y);
        const double seconds = tt__now() - start;
        used += seconds;
        best = fmin(best, seconds / (double)calls);
        if (seconds < 2e-4 && calls < 1 << 20) calls *= 4, batch = 0;
    }
    return best;
}

typedef struct pass { const lab *l; const loop *o; int64_t stride; } pass;

static void stream_tile(void *arg, int64_t tile, int worker) {
    const pass *p = arg;
    p->o->call(p->l, p->o, p->l->stream + tile * p->stride, p->l->y + (size_t)worker * MAX_T * MAX_ROWS);
}

/* Bytes per second of all threads through the stream; through less of it where a loop of so many seconds a chunk is too slow to meet the memory. */
static double stream_rate(const lab *l, const loop *o, double seconds_each) {
    const int64_t stride = (o->chunk_bytes + 63) / 64 * 64, all = STREAM_BYTES / stride;
    const int64_t tiles = (int64_t)fmin((double)all, fmax(16, 4 * l->slot * tt__threads(l->ctx) / seconds_each));
    pass p = {l, o, stride};
    double best = 1e30, used = 0;
    for (int64_t t = 0; t < tiles; t++) memcpy(l->stream + t * stride, l->chunk, (size_t)o->chunk_bytes);
    for (int i = 0; i < 2 || used < l->slot; i++) {
        const double start = tt__now();
        tt__parallel(l->ctx, tiles, stream_tile, &p);
        const double seconds = tt__now() - start;
        used += seconds;
        best = fmin(best, seconds);
    }
    return (double)(tiles * o->chunk_bytes) / best;
}

static void measure(lab *l, const loop *o, const char *variant) {
    tt_kernel_table *t = l->table;
    if (t->n == TABLE_ROWS || atomic_load(&l->ctx->cancel)) return;
    tt__progress(l->ctx, "kernels", (double)t->n, (double)(t->n < USUAL_LOOPS ? USUAL_LOOPS : t->n + 1), "loops", o->kernel);
    tt_kernel_rate *r = &t->rows[t->n++];
    *r = (tt_kernel_rate){.kernel = o->kernel, .seconds = best_call(l, o)};
    snprintf(r->variant, sizeof r->variant, "%s", variant);
    r->gb_s = 1e-9 * o->bytes / r->seconds;
    r->gop_s = 1e-9 * o->ops / r->seconds;
    const double by_bytes = r->gb_s / t->one.l2_gb_s, by_ops = r->gop_s / (o->integer ? t->one.dot_gops : t->one.fma_gflops);
    r->bound = by_bytes >= by_ops ? "l2" : o->integer ? "dot" : "fma";
    r->share = fmax(by_bytes, by_ops);
    if (!o->chunk_bytes || o->T != 1) return;
    r->memory_gb_s = 1e-9 * stream_rate(l, o, r->seconds);
    r->memory_share = r->memory_gb_s / t->all.read_gb_s;
}

/* ------------------------------------------------------------ weights ---- */

static void random_bytes(lab *l, uint8_t *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) p[i] = (uint8_t)tt__rng_u64(&l->rng);
}

static void fill_halves(uint8_t *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) memcpy(p + 2 * i, &(uint16_t){HALF}, 2);
}

/* Whole panels of 16 rows that fill a chunk: n segments of so many bytes a row. */
static void lay_out(loop *o, int n, const int64_t *row_bytes) {
    int64_t row = 0;
    for (int i = 0; i < n; i++) row += row_bytes[i];
    o->rows = CHUNK_BYTES / row / 16 * 16;
    if (o->rows > MAX_ROWS) o->rows = MAX_ROWS;
    o->row_bytes = row_bytes[0];
    for (int i = 0; i < n; i++) {
        o->at[i] = o->chunk_bytes;
        o->chunk_bytes += (o->rows * row_bytes[i] + 63) / 64 * 64;
    }
}

/* The same weights as a product with T tokens, and as DECODED rows of floats. */
static loop as_product(loop o, const char *kernel, void (*call)(const lab *, const loop *, const uint8_t *, float *), int T, bool integer) {
    o.kernel = kernel, o.call = call, o.T = T, o.integer = integer;
    o.bytes = (double)o.chunk_bytes;
    o.ops = 2.0 * (double)(o.rows * COLS * T);
    return o;
}

static loop as_decoder(loop o, const char *kernel, void (*call)(const lab *, const loop *, const uint8_t *, float *)) {
    if (o.rows > DECODED) o.bytes = (double)o.chunk_bytes * DECODED / (double)o.rows, o.rows = DECODED;
    else o.bytes = (double)o.chunk_bytes;
    o.kernel = kernel, o.call = call;
    o.bytes += 4.0 * (double)(o.rows * COLS);
    return o;
}

static tt_q8 tokens(const lab *l, int T) {
    tt_q8 x = l->x;
    x.T = T;
    return x;
}

typedef void (*block_rowdot)(const uint8_t *, int64_t, int64_t, int64_t, const tt_q8 *, float *, int64_t);
typedef void (*block_decode)(const uint8_t *, float *, int64_t);
typedef struct block_kernels { const char *rowdot_name, *decode_name; block_rowdot rowdot; block_decode decode; } block_kernels;

static block_kernels blocks_of(const tt_kernels *k, tt_dtype type) {
    switch (type) {
#define TYPE(name, NAME) case TT_##NAME: return (block_kernels){"rowdot_" #name, "decode_" #name, k->rowdot_##name, k->decode_##name};
    TYPE(q4_0, Q4_0) TYPE(q4_1, Q4_1) TYPE(q5_0, Q5_0) TYPE(q5_1, Q5_1) TYPE(q8_0, Q8_0) TYPE(iq4_nl, IQ4_NL)
    TYPE(q2_k, Q2_K) TYPE(q3_k, Q3_K) TYPE(q4_k, Q4_K) TYPE(q5_k, Q5_K) TYPE(q6_k, Q6_K)
#undef TYPE
    default: return (block_kernels){0};
    }
}

static void block_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_q8 x = tokens(l, o->T);
    blocks_of(l->k, o->type).rowdot(chunk, o->row_bytes, o->rows, COLS, &x, y, o->rows);
}

static void block_decoder(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)y;
    for (int64_t r = 0; r < o->rows; r++) blocks_of(l->k, o->type).decode(chunk + r * o->row_bytes, l->f + r * COLS, COLS);
}

static tt_status block_loops(lab *l, tt_err *err) {
    for (int t = 0; t < TT_DTYPE_COUNT; t++) {
        const tt_dtype type = (tt_dtype)t;
        const block_kernels b = blocks_of(l->k, type);
        uint64_t row;
        if (!b.rowdot || !tt__dtype_bytes(type, COLS, &row)) continue;
        loop o = {.type = type};
        lay_out(&o, 1, (int64_t[]){(int64_t)row});
        TT_TRY(tt__dtype_encode(type, l->f + FLOATS - COLS, l->chunk, COLS, NULL, err));
        for (int64_t r = 1; r < o.rows; r++) memcpy(l->chunk + r * o.row_bytes, l->chunk, (size_t)o.row_bytes);
        const loop product = as_product(o, b.rowdot_name, block_product, 1, true), decoder = as_decoder(o, b.decode_name, block_decoder);
        measure(l, &product, "1 token");
        measure(l, &decoder, "");
    }
    return TT_OK;
}

static void group_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_q8 x = tokens(l, o->T);
    l->k->rowdot_group(chunk, o->row_bytes, (const uint16_t *)(const void *)(chunk + o->at[1]), NULL, COLS / o->group, o->bits, o->group, o->rows, COLS, &x, y, o->rows);
}

static void group_decoder(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)y;
    const uint16_t *scales = (const uint16_t *)(const void *)(chunk + o->at[1]);
    for (int64_t r = 0; r < o->rows; r++)
        l->k->decode_group(chunk + r * o->row_bytes, scales + r * (COLS / o->group), NULL, o->bits, o->group, COLS, 0, COLS, l->f + r * COLS);
}

static void group_loops(lab *l) {
    for (int bits = 2; bits <= 8; bits += bits < 4 ? 1 : 4) {
        char variant[64];
        loop o = {.bits = bits, .group = 64};
        lay_out(&o, 2, (int64_t[]){tt__codes_row_bytes(bits, 64, COLS), COLS / 64 * 2});
        random_bytes(l, l->chunk, o.at[1]);
        fill_halves(l->chunk + o.at[1], o.rows * (COLS / 64));
        const loop product = as_product(o, "rowdot_group", group_product, 1, true), decoder = as_decoder(o, "decode_group", group_decoder);
        snprintf(variant, sizeof variant, "%d bits, groups of 64", bits);
        measure(l, &decoder, variant);
        snprintf(variant, sizeof variant, "%d bits, groups of 64, 1 token", bits);
        measure(l, &product, variant);
    }
}

/* Segments: mask, starts of the rows, scales, codes. */
static void sparse_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_q8 x = tokens(l, o->T);
    l->k->rowdot_sparseq((const uint64_t *)(const void *)chunk, COLS / 64, chunk + o->at[3], (const uint64_t *)(const void *)(chunk + o->at[1]),
                         (const uint16_t *)(const void *)(chunk + o->at[2]), COLS / o->group, o->bits, o->group, o->rows, COLS, &x, y, o->rows);
}

static void sparse_decoder(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)y;
    const uint64_t *mask = (const uint64_t *)(const void *)chunk, *start = (const uint64_t *)(const void *)(chunk + o->at[1]);
    const uint16_t *scales = (const uint16_t *)(const void *)(chunk + o->at[2]);
    for (int64_t r = 0; r < o->rows; r++)
        l->k->decode_sparseq(mask + r * (COLS / 64), chunk + o->at[3] + start[r], scales + r * (COLS / o->group), o->bits, o->group, COLS, 0, COLS, l->f + r * COLS);
}

/* Half of the weights, anywhere: masks of coin tosses. */
static void sparse_loops(lab *l) {
    for (int bits = 2; bits <= 4; bits++) {
        char variant[64];
        loop o = {.bits = bits, .group = 64};
        lay_out(&o, 4, (int64_t[]){COLS / 8, 8, COLS / 64 * 2, COLS * bits / 8});
        uint64_t *mask = (uint64_t *)(void *)l->chunk, *start = (uint64_t *)(void *)(l->chunk + o.at[1]), end = 0;
        for (int64_t r = 0; r < o.rows; r++) {
            start[r] = end;
            for (int u = 0; u < COLS / 64; u++) {
                mask[r * (COLS / 64) + u] = tt__rng_u64(&l->rng);
                end += (uint64_t)tt__stream_bytes(bits, __builtin_popcountll(mask[r * (COLS / 64) + u]));
            }
        }
        o.chunk_bytes = o.at[3] + (int64_t)end;
        fill_halves(l->chunk + o.at[2], o.rows * (COLS / 64));
        random_bytes(l, l->chunk + o.at[3], (int64_t)end);
        const loop decoder = as_decoder(o, "decode_sparseq", sparse_decoder);
        loop product = as_product(o, "rowdot_sparseq", sparse_product, 1, true);
        product.ops /= 2;
        snprintf(variant, sizeof variant, "half of the weights, %d bits", bits);
        measure(l, &decoder, variant);
        snprintf(variant, sizeof variant, "half of the weights, %d bits, 1 token", bits);
        measure(l, &product, variant);
    }
}

static tt_panel panel_at(const loop *o, const uint8_t *chunk) {
    return (tt_panel){.bits = o->bits, .group = o->group, .grid = o->grid, .rows = o->rows, .cols = COLS, .units = COLS / 64, .groups = COLS / o->group,
                      .codes = chunk, .scales = (const uint16_t *)(const void *)(chunk + o->at[1])};
}

static void panel_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_q8 x = tokens(l, o->T);
    const tt_panel w = panel_at(o, chunk);
    l->k->panel_rowdot(&w, 0, tt__panels(o->rows), &x, y, o->rows);
}

static void panel_decoder(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_panel w = panel_at(o, chunk);
    (void)y;
    for (int64_t p = 0; p < tt__panels(o->rows); p++) l->k->panel_decode(&w, p, 0, COLS, l->f + 16 * p * COLS, COLS);
}

static void panel_loops(lab *l) {
    static const struct { int bits, group, T; tt_panel_grid grid; } forms[] = {{2, 32, 1, 0}, {2, 64, 1, 0}, {3, 32, 1, 0}, {3, 64, 1, 0}, {4, 32, 1, 0}, {4, 64, 1, 0}, {4, 64, 4, 0},
                                                                              {4, 64, MAX_T, 0}, {4, 32, 1, TT_GRID_TABLE}, {5, 32, 1, 0}, {8, 32, 1, 0}, {8, 64, 1, 0}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char variant[64];
        const int bits = forms[i].bits, group = forms[i].group, T = forms[i].T;
        const char *table = forms[i].grid == TT_GRID_TABLE ? ", table" : "";
        loop o = {.bits = bits, .group = group, .grid = forms[i].grid};
        lay_out(&o, 2, (int64_t[]){COLS * bits / 8, COLS / group * 2});
        random_bytes(l, l->chunk, o.at[1]);
        fill_halves(l->chunk + o.at[1], o.rows * (COLS / group));
        const loop product = as_product(o, "panel_rowdot", panel_product, T, true), decoder = as_decoder(o, "panel_decode", panel_decoder);
        snprintf(variant, sizeof variant, "%d bits, groups of %d%s, %d token%s", bits, group, table, T, T > 1 ? "s" : "");
        measure(l, &product, variant);
        snprintf(variant, sizeof variant, "%d bits, groups of %d", bits, group);
        if (group == 64 && T == 1) measure(l, &decoder, variant);
    }
}

/* Panels with small scales: segments codes, small scales, scales, minima. */
static tt_panel super_at(const loop *o, const uint8_t *chunk) {
    tt_panel w = {.bits = o->bits, .group = 256, .grid = o->grid, .rows = o->rows, .cols = COLS, .units = COLS / 64, .groups = COLS / 256, .codes = chunk, .subs = chunk + o->at[1]};
    w.scales = (const uint16_t *)(const void *)(chunk + o->at[2]);
    w.mins = (const uint16_t *)(const void *)(chunk + o->at[3]);
    return w;
}

static void super_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_q8 x = tokens(l, o->T);
    const tt_panel w = super_at(o, chunk);
    l->k->super_rowdot(&w, 0, tt__panels(o->rows), &x, y, o->rows);
}

static void super_decoder(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_panel w = super_at(o, chunk);
    (void)y;
    for (int64_t p = 0; p < tt__panels(o->rows); p++) l->k->super_decode(&w, p, 0, COLS, l->f + 16 * p * COLS, COLS);
}

static loop super_weights(lab *l, int kind) {
    static const struct { int bits; tt_panel_grid grid; } forms[] = {{2, TT_GRID_NIBBLES}, {3, TT_GRID_SINGLE}, {4, TT_GRID_PAIR}, {5, TT_GRID_PAIR}, {6, TT_GRID_SINGLE}};
    loop o = {.bits = forms[kind].bits, .group = 256, .grid = forms[kind].grid};
    lay_out(&o, o.grid == TT_GRID_SINGLE ? 3 : 4, (int64_t[]){COLS * o.bits / 8, COLS / 16, COLS / 256 * 2, COLS / 256 * 2});
    random_bytes(l, l->chunk, o.at[2]);
    for (int64_t i = o.at[1]; i < o.at[2]; i++) l->chunk[i] &= o.grid == TT_GRID_PAIR ? 63 : 255;
    fill_halves(l->chunk + o.at[2], (o.chunk_bytes - o.at[2]) / 2);
    return o;
}

static void super_loops(lab *l) {
    for (int kind = 0; kind < 5; kind++) {
        const loop o = super_weights(l, kind), product = as_product(o, "super_rowdot", super_product, 1, true), decoder = as_decoder(o, "super_decode", super_decoder);
        char variant[64];
        snprintf(variant, sizeof variant, "Q%d_K", o.bits);
        measure(l, &decoder, variant);
        snprintf(variant, sizeof variant, "Q%d_K, 1 token", o.bits);
        measure(l, &product, variant);
    }
}

static tt_panel float_panel_at(const loop *o, const uint8_t *chunk) {
    return (tt_panel){.bits = 16, .group = 64, .grid = o->grid, .rows = o->rows, .cols = COLS, .units = COLS / 64, .groups = COLS / 64, .codes = chunk};
}

static void float_panel_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_panel w = float_panel_at(o, chunk);
    l->k->float_rowdot(&w, 0, tt__panels(o->rows), l->f, COLS, o->T, y, o->rows);
}

static void float_panel_decoder(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_panel w = float_panel_at(o, chunk);
    (void)y;
    for (int64_t p = 0; p < tt__panels(o->rows); p++) l->k->float_decode(&w, p, 0, COLS, l->f + (1 + 16 * p) * COLS, COLS);
}

static void float_panel_columns(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_panel w = float_panel_at(o, chunk);
    (void)y;
    for (int64_t p = 0; p < tt__panels(o->rows); p++) l->k->float_columns(&w, p, 0, COLS, l->f + (1 + 16 * p) * COLS, 16);
}

static void float_panel_loops(lab *l) {
    for (int bf16 = 0; bf16 < 2; bf16++) {
        loop o = {.grid = bf16 ? TT_GRID_BF16 : TT_GRID_F16};
        lay_out(&o, 1, (int64_t[]){2 * COLS});
        fill_halves(l->chunk, o.rows * COLS);
        const loop product = as_product(o, "float_rowdot", float_panel_product, 1, false), decoder = as_decoder(o, "float_decode", float_panel_decoder);
        const loop columns = as_decoder(o, "float_columns", float_panel_columns);
        measure(l, &product, bf16 ? "bf16, 1 token" : "f16, 1 token");
        measure(l, &decoder, bf16 ? "bf16" : "f16");
        measure(l, &columns, bf16 ? "bf16" : "f16");
    }
}

/* 256 tokens, rounded and packed beforehand. */
static tt_batch batch_for(const lab *l, int group) {
    tt_batch b;
    tt__batch_init(&b, l->k->batch_tokens, group == 32 ? 32 : 64, BATCH, COLS, l->batch);
    return b;
}

static void panel_batch(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_batch b = batch_for(l, o->group);
    const tt_panel w = panel_at(o, chunk);
    (void)y;
    l->k->panel_gemm(&w, 0, tt__panels(o->rows), &b, 0, b.tiles, l->f + 16 * N, o->rows);
}

static void super_batch(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_batch b = batch_for(l, o->group);
    const tt_panel w = super_at(o, chunk);
    (void)y;
    l->k->super_gemm(&w, 0, tt__panels(o->rows), &b, 0, b.tiles, l->f + 16 * N, o->rows);
}

static void pack_batch(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_batch b = batch_for(l, o->group);
    (void)chunk, (void)y;
    for (int64_t t = 0; t < b.tiles; t++) l->k->batch_pack(l->f, COLS, &b, t);
}

static void batch_loops(lab *l) {
    static const struct { int bits, group; tt_panel_grid grid; } forms[] = {{2, 64, 0}, {3, 64, 0}, {4, 32, 0}, {4, 64, 0}, {4, 32, TT_GRID_TABLE}, {5, 32, 0}, {8, 32, 0}, {8, 64, 0}};
    const loop pack = {.kernel = "batch_pack", .call = pack_batch, .group = 64, .bytes = 5.0 * BATCH * COLS};
    measure(l, &pack, "256 tokens");
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char variant[64];
        loop o = {.bits = forms[i].bits, .group = forms[i].group, .grid = forms[i].grid};
        lay_out(&o, 2, (int64_t[]){COLS * o.bits / 8, COLS / o.group * 2});
        random_bytes(l, l->chunk, o.at[1]);
        fill_halves(l->chunk + o.at[1], o.rows * (COLS / o.group));
        pack_batch(l, &o, NULL, NULL);
        if (o.rows > 256) o.rows = 256;
        loop product = as_product(o, "panel_gemm", panel_batch, BATCH, true);
        product.bytes = 0;
        snprintf(variant, sizeof variant, "%d bits, groups of %d%s, 256 tokens", o.bits, o.group, o.grid == TT_GRID_TABLE ? ", table" : "");
        measure(l, &product, variant);
    }
    for (int kind = 0; kind < 5; kind++) {
        char variant[64];
        loop o = super_weights(l, kind);
        if (o.rows > 256) o.rows = 256;
        loop product = as_product(o, "super_gemm", super_batch, BATCH, true);
        product.bytes = 0;
        pack_batch(l, &o, NULL, NULL);
        snprintf(variant, sizeof variant, "Q%d_K, 256 tokens", o.bits);
        measure(l, &product, variant);
    }
}

static tt_slide2 slide2_at(const loop *o, const uint8_t *chunk) {
    return (tt_slide2){.group = 64, .rows = o->rows, .cols = COLS, .units = COLS / 64, .groups = COLS / 64, .codes = chunk, .scales = (const uint16_t *)(const void *)(chunk + o->at[1])};
}

static void slide2_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_slide2 w = slide2_at(o, chunk);
    l->k->slide2_rowdot(&w, 0, tt__panels(o->rows), &l->unrolled, y, o->rows);
}

static void slide2_decoder(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_slide2 w = slide2_at(o, chunk);
    (void)y;
    for (int64_t p = 0; p < tt__panels(o->rows); p++) l->k->slide2_decode(&w, p, 0, COLS, l->f + 16 * p * COLS, COLS);
}

static void slide2_unroll(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)o, (void)chunk, (void)y;
    l->k->slide2_unroll(l->f + 25 * N, COLS, l->unrolled.table, l->unrolled.d);
}

static void slide2_loops(lab *l) {
    const loop unroll = {.kernel = "slide2_unroll", .call = slide2_unroll, .bytes = 6.0 * COLS};
    loop o = {.bits = 4, .group = 64};
    lay_out(&o, 2, (int64_t[]){TT_SLIDE2_BYTES / 16 * COLS / 64, COLS / 64 * 2});
    random_bytes(l, l->chunk, o.at[1]);
    fill_halves(l->chunk + o.at[1], o.rows * (COLS / 64));
    const loop decoder = as_decoder(o, "slide2_decode", slide2_decoder);
    loop product = as_product(o, "slide2_rowdot", slide2_product, 1, true);
    product.ops /= 2;
    measure(l, &unroll, "1024 columns");
    measure(l, &decoder, "half of the weights, 4 bits");
    measure(l, &product, "half of the weights, 4 bits, 1 token");
}

/* ------------------------------------------------------------ trellis codes ---- */

typedef struct trellis_lab { tt_trellis w; tt_viterbi search; uint8_t rates[COLS]; int64_t start[COLS + 1]; uint16_t halves[COLS]; } trellis_lab;

static void trellis_decoder(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)chunk, (void)y;
    for (int64_t r = 0; r < DECODED; r += TT_TRELLIS_LANES) l->k->trellis_decode(&((const trellis_lab *)(const void *)l->batch)->w, r, 0, o->row_bytes, l->f + COLS * r);
}

static void trellis_search(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)o, (void)chunk, (void)y;
    l->k->trellis_search(&((trellis_lab *)l->batch)->search);
}

static void hadamard(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)chunk, (void)y;
    memset(l->f, 0, (size_t)o->rows * 64);
    l->k->hadamard_lanes(l->f, o->rows, 0);
}

/* The lab lies where batches do; costs and choices of the search behind the floats of a decoder. */
static void trellis_loops(lab *l) {
    enum { STATES = 12, PREFIXES = 1 << (STATES - 2), TOKENS = 16 };
    trellis_lab *t = l->batch;
    for (int bits = 2; bits <= 4; bits++) {
        t->w = (tt_trellis){STATES, DECODED, COLS, DECODED, DECODED, COLS, t->rates, t->start, l->chunk, t->halves, t->halves};
        t->start[0] = 0;
        for (int c = 0; c < COLS; c++) t->rates[c] = (uint8_t)bits, t->halves[c] = HALF, t->start[c + 1] = t->start[c] + DECODED / 8 * bits;
        random_bytes(l, l->chunk, t->start[COLS]);
        const loop o = {.kernel = "trellis_decode", .call = trellis_decoder, .row_bytes = COLS, .bytes = (double)t->start[COLS] + 4.0 * DECODED * COLS};
        char variant[64];
        snprintf(variant, sizeof variant, "%d bits, 4096 states", bits);
        measure(l, &o, variant);
    }
    float *const at = l->f + 4 * N;
    t->search = (tt_viterbi){.states = STATES, .bits = 2, .n = TOKENS, .x = at, .weight = at + TOKENS, .value = at + 2 * TOKENS, .least = at + N, .spare = at + N + PREFIXES + 16,
                             .from = (uint8_t *)(at + 2 * N)};
    const loop search = {.kernel = "trellis_search", .call = trellis_search, .ops = 6.0 * TOKENS * (1 << STATES), .bytes = 4.0 * TOKENS * (1 << STATES)};
    const loop turn = {.kernel = "hadamard_lanes", .call = hadamard, .rows = 576, .ops = 16.0 * 576 * (12 + 12 + 2), .bytes = 128.0 * 576};
    measure(l, &search, "2 bits, 4096 states, 16 weights");
    measure(l, &turn, "576, 16 rows");
}

/* Segments: mask, scales, starts of the panels, codes. */
static tt_bitmask bitmask_at(const loop *o, const uint8_t *chunk) {
    return (tt_bitmask){.group = 64, .rows = o->rows, .cols = COLS, .units = COLS / 64, .groups = COLS / 64, .mask = (const uint64_t *)(const void *)chunk,
                        .scales = (const uint16_t *)(const void *)(chunk + o->at[1]), .start = (const uint64_t *)(const void *)(chunk + o->at[2]), .codes = chunk + o->at[3]};
}

static void bitmask_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_q8 x = tokens(l, o->T);
    const tt_bitmask w = bitmask_at(o, chunk);
    l->k->bitmask_rowdot(&w, 0, tt__panels(o->rows), &x, y, o->rows);
}

static void bitmask_decoder(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const tt_bitmask w = bitmask_at(o, chunk);
    (void)y;
    for (int64_t p = 0; p < tt__panels(o->rows); p++) l->k->bitmask_decode(&w, p, 0, COLS, l->f + 16 * p * COLS, COLS);
}

static void bitmask_loops(lab *l) {
    loop o = {.bits = 4, .group = 64};
    lay_out(&o, 4, (int64_t[]){COLS / 8, COLS / 64 * 2, 8, COLS * 9 / 32});
    uint64_t *mask = (uint64_t *)(void *)l->chunk, *start = (uint64_t *)(void *)(l->chunk + o.at[2]), end = 0;
    for (int64_t p = 0; p < o.rows / 16; p++) {
        uint64_t stream[2] = {0, 0};
        for (int b = 0; b < COLS / 4; b++) stream[b % 2] += (uint64_t)__builtin_popcountll(mask[p * (COLS / 4) + b] = tt__rng_u64(&l->rng));
        start[p] = end;
        end += stream[0] > stream[1] ? stream[0] : stream[1];
    }
    start[o.rows / 16] = end;
    o.chunk_bytes = o.at[3] + (int64_t)end + TT_BITMASK_TAIL;
    fill_halves(l->chunk + o.at[1], o.rows * (COLS / 64));
    random_bytes(l, l->chunk + o.at[3], (int64_t)end + TT_BITMASK_TAIL);
    const loop decoder = as_decoder(o, "bitmask_decode", bitmask_decoder);
    loop product = as_product(o, "bitmask_rowdot", bitmask_product, 1, true);
    product.ops /= 2;
    measure(l, &decoder, "half of the weights, 4 bits");
    measure(l, &product, "half of the weights, 4 bits, 1 token");
}

static void f32_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    l->k->rowdot_f32((const float *)(const void *)chunk, COLS, o->rows, COLS, l->f, COLS, o->T, y, o->rows);
}
static void f16_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    l->k->rowdot_f16((const uint16_t *)(const void *)chunk, COLS, o->rows, COLS, l->f, COLS, o->T, y, o->rows);
}
static void bf16_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    l->k->rowdot_bf16((const uint16_t *)(const void *)chunk, COLS, o->rows, COLS, l->f, COLS, o->T, y, o->rows);
}

static void float_loops(lab *l) {
    loop o = {0};
    lay_out(&o, 1, (int64_t[]){4 * COLS});
    memcpy(l->chunk, l->f, (size_t)o.chunk_bytes);
    const loop f32 = as_product(o, "rowdot_f32", f32_product, 1, false);
    measure(l, &f32, "1 token");
    o = (loop){0};
    lay_out(&o, 1, (int64_t[]){2 * COLS});
    fill_halves(l->chunk, o.rows * COLS);
    const loop f16 = as_product(o, "rowdot_f16", f16_product, 1, false), bf16 = as_product(o, "rowdot_bf16", bf16_product, 1, false);
    measure(l, &f16, "1 token");
    measure(l, &bf16, "1 token");
}

/* ------------------------------------------------------------ vectors of N floats ---- */

#define A (l->f)
#define B (l->f + N)
#define C (l->f + 2 * N)
#define VECTOR(name, statement)                                                                 \
    static void v_##name(const lab *l, const loop *o, const uint8_t *chunk, float *y) {         \
        (void)o, (void)chunk, (void)y;                                                          \
        statement;                                                                              \
    }
VECTOR(dot_f32, *y = l->k->dot_f32(A, B, N))
VECTOR(sumsq_f32, *y = (float)l->k->sumsq_f32(A, N))
VECTOR(add_f32, l->k->add_f32(C, A, B, N))
VECTOR(axpy_f32, l->k->axpy_f32(C, 1e-3f, A, N))
VECTOR(silu_mul_f32, l->k->silu_mul_f32(C, A, B, N))
VECTOR(rmsnorm_f32, l->k->rmsnorm_f32(C, A, B, 1e-5f, N))
VECTOR(softmax_stats_f32, *y = (float)l->k->softmax_stats_f32(A, N, y + 1))
VECTOR(softmax_apply_f32, l->k->softmax_apply_f32(C, A, N, 4.0f, 0.5f))
VECTOR(softmax_exp_f32, l->k->softmax_exp_f32(C, N, 1.0f, y))
VECTOR(f32_to_f16, l->k->f32_to_f16((uint16_t *)(void *)C, A, N))
VECTOR(f16_to_f32, l->k->f16_to_f32(C, (const uint16_t *)(const void *)A, N))
VECTOR(bf16_to_f32, l->k->bf16_to_f32(C, (const uint16_t *)(const void *)A, N))
VECTOR(quant_q8, l->k->quant_q8(A, N, (int8_t *)(void *)C, B, (int32_t *)(void *)(B + N / 32)))

static void vector_loops(lab *l) {
    static const struct { const char *name; void (*call)(const lab *, const loop *, const uint8_t *, float *); double bytes, ops; } forms[] = {   /* per element */
#define FORM(name, bytes, ops) {#name, v_##name, bytes, ops},
        FORM(dot_f32, 8, 2) FORM(sumsq_f32, 4, 2) FORM(add_f32, 12, 1) FORM(axpy_f32, 12, 2) FORM(silu_mul_f32, 12, 0) FORM(rmsnorm_f32, 12, 4)
        FORM(softmax_stats_f32, 4, 0) FORM(softmax_apply_f32, 8, 0) FORM(softmax_exp_f32, 8, 0) FORM(f32_to_f16, 6, 0) FORM(f16_to_f32, 6, 0)
        FORM(bf16_to_f32, 6, 0) FORM(quant_q8, 5, 0)
#undef FORM
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const loop o = {.kernel = forms[i].name, .call = forms[i].call, .bytes = forms[i].bytes * N, .ops = forms[i].ops * N};
        measure(l, &o, "16384 floats");
    }
}

/* ------------------------------------------------------------ tiles, products of matrices, attention ---- */

enum { K = 256, TILE_KEYS = 128, HEADS = 8, KV_HEADS = 4, HEAD = 64, PAST = 256 };

static void ukr(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)o, (void)chunk;
    l->k->gemm_ukr(K, A, B, y, l->k->nr, l->k->mr, l->k->nr, 0);
}

static void ukr_bf16(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)o, (void)chunk;
    l->k->gemm_ukr_bf16(K / 2, A, B, y, l->k->nr, l->k->mr, l->k->nr, 0);
}

static void pack_rows(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)o, (void)chunk, (void)y;
    l->k->pack_rows(C, A, K, l->k->mr, K, l->k->mr);
}

static void pack_cols(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)o, (void)chunk, (void)y;
    l->k->pack_cols(C, A, l->k->nr, K, l->k->nr, l->k->nr);
}

static void softmax_tile(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)o, (void)chunk;
    for (int i = 0; i < l->k->nr; i++) y[i] = -1e30f, y[64 + i] = 0;
    l->k->softmax_tile(C, TILE_KEYS, l->k->nr, 1.0f, y, y + 64, y + 128);
}

static void mix_f16(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    (void)o;
    l->k->mix_f16((const uint16_t *)(const void *)chunk, HEAD, CHUNK_BYTES / (2 * HEAD), HEAD, A, N, 1, y, HEAD);
}

/* f32 products through Q4_0: decoding, packing and the tile together. */
typedef struct source { const lab *l; const loop *o; const uint8_t *chunk; } source;

static void decode_q4_0(const void *self, int64_t r0, int64_t r1, int64_t c0, int64_t c1, float *out, int64_t ld) {
    const source *s = self;
    for (int64_t r = r0; r < r1; r++) s->l->k->decode_q4_0(s->chunk + r * s->o->row_bytes + c0 / 32 * 18, out + (r - r0) * ld, c1 - c0);
}

static void matrix_product(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const source s = {l, o, chunk};
    const tt_wsrc w = {.rows = o->rows, .cols = COLS, .col_unit = 32, .decode = decode_q4_0, .self = &s};
    (void)y;
    tt__gemm_w((tt_ctx *)&l->one, &w, l->f, COLS, BATCH, l->f + 16 * N, o->rows, false);
}

static void attention(const lab *l, const loop *o, const uint8_t *chunk, float *y) {
    const int64_t width = KV_HEADS * HEAD;
    const tt_attn a = {.S = 1, .T = o->T, .H = HEADS, .Hkv = KV_HEADS, .D = HEAD, .scale = 0.125f, .q = l->f, .ldq = HEADS * HEAD, .k = l->f + 8 * N, .v = l->f + 12 * N,
                       .ldkv = width, .N = o->T == 1 ? PAST : 0, .pastk_type = TT_KV_F16, .pastv_type = TT_KV_F16, .pastk = chunk, .pastv = chunk, .pastk_row = 2 * (width), .pastv_row = 2 * (width), .out = l->f + 16 * N, .ldo = HEADS * HEAD};
    (void)y;
    tt__attention((tt_ctx *)&l->one, &a);
}

static void tile_loops(lab *l) {
    const tt_kernels *k = l->k;
    char variant[64];
    snprintf(variant, sizeof variant, "%d x %d, k = %d", k->mr, k->nr, K);
    const loop tile = {.kernel = "gemm_ukr", .call = ukr, .ops = 2.0 * K * k->mr * k->nr};
    const loop rows = {.kernel = "pack_rows", .call = pack_rows, .bytes = 8.0 * K * k->mr}, cols = {.kernel = "pack_cols", .call = pack_cols, .bytes = 8.0 * K * k->nr};
    const loop softmax = {.kernel = "softmax_tile", .call = softmax_tile, .bytes = 8.0 * TILE_KEYS * k->nr};
    const loop mix = {.kernel = "mix_f16", .call = mix_f16, .bytes = CHUNK_BYTES, .ops = CHUNK_BYTES};
    const loop bf16 = {.kernel = "gemm_ukr_bf16", .call = ukr_bf16, .ops = tile.ops};
    measure(l, &tile, variant);
    if (k->bf16) measure(l, &bf16, "the same, bf16 beside the f32 ceiling");
    measure(l, &rows, variant);
    measure(l, &cols, variant);
    measure(l, &softmax, "128 keys");
    fill_halves(l->chunk, CHUNK_BYTES / 2);
    measure(l, &mix, "64 columns");
}

static tt_status matrix_loops(lab *l, tt_err *err) {
    loop product = {.kernel = "gemm", .call = matrix_product, .type = TT_Q4_0};
    lay_out(&product, 1, (int64_t[]){COLS / 32 * 18});
    TT_TRY(tt__dtype_encode(TT_Q4_0, l->f + FLOATS - COLS, l->chunk, COLS, NULL, err));
    for (int64_t r = 1; r < product.rows; r++) memcpy(l->chunk + r * product.row_bytes, l->chunk, (size_t)product.row_bytes);
    product.chunk_bytes = 0;
    product.ops = 2.0 * BATCH * COLS * (double)product.rows;
    size_t scratch = tt__gemm_scratch(&l->one, BATCH, COLS), more = tt__attention_scratch(&l->one, BATCH, HEAD, 0, PAST);
    TT_TRY(tt__scratch_reserve(&l->one, scratch > more ? scratch : more, err));
    measure(l, &product, "Q4_0, 256 tokens");
    const double pairs = BATCH * (BATCH + 1) / 2;
    const loop few = {.kernel = "attention", .call = attention, .T = 1, .bytes = 2.0 * PAST * KV_HEADS * HEAD * 2, .ops = 4.0 * (PAST + 1) * HEADS * HEAD};
    const loop many = {.kernel = "attention", .call = attention, .T = BATCH, .ops = 4.0 * pairs * HEADS * HEAD};
    fill_halves(l->chunk, CHUNK_BYTES / 2);
    measure(l, &few, "1 token behind 256, f16");
    measure(l, &many, "256 tokens");
    return TT_OK;
}

/* ------------------------------------------------------------ all of them ---- */

static void fill_floats(lab *l) {
    for (int64_t i = 0; i < FLOATS; i++) l->f[i] = (float)tt__rng_normal(&l->rng);
}

static tt_status prepare(lab *l, double seconds, tt_err *err) {
    tt_ctx_options one = l->ctx->opt;
    one.threads = 1;
    TT_TRY(tt__ctx_init(&l->one, &one, err));
    l->one.k = l->k = l->ctx->k;
    l->slot = (seconds > 0 ? seconds : usual_seconds) / (2 * USUAL_LOOPS);
    tt__rng_seed(&l->rng, 1);
    TT_TRY(tt__new(&l->table, 1, sizeof *l->table, "the table", err));
    TT_TRY(tt__new(&l->table->rows, TABLE_ROWS, sizeof *l->table->rows, "the table", err));
    TT_TRY(tt__new(&l->chunk, CHUNK_BYTES, 2, "the operands", err));
    TT_TRY(tt__new(&l->stream, STREAM_BYTES, 1, "the operands", err));
    TT_TRY(tt__new(&l->f, FLOATS, sizeof *l->f, "the operands", err));
    TT_TRY(tt__new(&l->y, (size_t)tt__threads(l->ctx) * MAX_T * MAX_ROWS, sizeof *l->y, "the results", err));
    l->x = (tt_q8){.T = MAX_T, .n = COLS, .n_pad = COLS, .blocks = COLS / 32};
    TT_TRY(tt__new(&l->x.q, MAX_T * COLS, 1, "the operands", err));
    TT_TRY(tt__new(&l->x.d, MAX_T * COLS / 32, sizeof *l->x.d, "the operands", err));
    TT_TRY(tt__new(&l->x.sum, MAX_T * COLS / 32, sizeof *l->x.sum, "the operands", err));
    l->unrolled = (tt_unrolled){.T = 1, .units = COLS / 64};
    TT_TRY(tt__new(&l->unrolled.table, COLS / 64 * TT_SLIDE2_TABLE, 1, "the operands", err));
    TT_TRY(tt__new(&l->unrolled.d, COLS / 64, sizeof *l->unrolled.d, "the operands", err));
    TT_TRY(tt__new(&l->batch, tt__batch_bytes(BATCH, COLS), 1, "the operands", err));
    fill_floats(l);
    l->k->slide2_unroll(l->f, COLS, l->unrolled.table, l->unrolled.d);
    for (int t = 0; t < MAX_T; t++) l->k->quant_q8(l->f + t * COLS, COLS, l->x.q + t * COLS, l->x.d + t * (COLS / 32), l->x.sum + t * (COLS / 32));
    return TT_OK;
}

static tt_status ceilings(lab *l, tt_err *err) {
    tt_machine_info *one = &l->table->one;
    tt_ceilings c;
    TT_TRY(tt_machine_get_info(l->ctx, true, &l->table->all, err));
    TT_TRY(tt__probe(l->ctx, 1, &c, err));
    *one = l->table->all;
    one->threads = 1;
    one->read_gb_s = c.read_gb_s, one->l2_gb_s = c.l2_gb_s, one->fma_gflops = c.fma_gflops, one->dot_gops = c.dot_gops;
    return TT_OK;
}

static void clear(lab *l) {
    tt__ctx_done(&l->one);
    tt__free(l->chunk);
    tt__free(l->stream);
    tt__free(l->f);
    tt__free(l->y);
    tt__free(l->x.q);
    tt__free(l->x.d);
    tt__free(l->x.sum);
    tt__free(l->unrolled.table);
    tt__free(l->unrolled.d);
    tt__free(l->batch);
}

void tt_kernels_free_table(tt_kernel_table *t) {
    if (!t) return;
    tt__free(t->rows);
    tt__free(t);
}

tt_status tt_kernels_measure(tt_ctx *ctx, double seconds, tt_kernel_table **out, tt_err *err) {
    lab l = {.ctx = ctx};
    tt_status st;
    *out = NULL;
    TT_TRY_GOTO(prepare(&l, seconds, err));
    TT_TRY_GOTO(ceilings(&l, err));
    panel_loops(&l);
    super_loops(&l);
    float_panel_loops(&l);
    TT_TRY_GOTO(block_loops(&l, err));
    group_loops(&l);
    sparse_loops(&l);
    slide2_loops(&l);
    trellis_loops(&l);
    fill_floats(&l);
    bitmask_loops(&l);
    float_loops(&l);
    fill_floats(&l);
    batch_loops(&l);
    TT_TRY_GOTO(matrix_loops(&l, err));
    vector_loops(&l);
    fill_floats(&l);
    tile_loops(&l);
    TT_TRY_GOTO(tt__check_cancel(ctx, err));
    tt__progress(ctx, "kernels", (double)l.table->n, (double)l.table->n, "loops", "");
    *out = l.table;
    l.table = NULL;
done:
    tt_kernels_free_table(l.table);
    clear(&l);
    return st;
}
