/* f32 products over panels: the loop nest around the micro-kernel. The operand that may be compressed is always B, the one whose
 * rows or columns become the lanes of a panel; C [M, N] = alpha A op(B).
 *
 *     for each block of A (≤ 2048 of k, ≤ 8 MB)               packed once, by all workers:  tiles [k][mr], tile i lies in the
 *                                                             scratch of worker i % threads, behind that worker's panel
 *       tiles of (n block, m range), dealt to the workers:
 *         for each k block of ~256                            decode or read B, pack: panels [kc][nr], ≤ 256 KB, stays in L2
 *           for each tile of A, for each panel of B           micro-kernel: C[mr, nr] (+)= A tile · B panel
 *
 * An element of C is the sum of its k blocks in order, whatever the tiles are; block borders in k depend on K and the weight's
 * column unit alone. So results do not depend on the number of threads, although the n blocks do.
 *
 * After Goto & van de Geijn, "Anatomy of high-performance matrix multiplication" (2008), with the packing of B replaced by decoding.
 */
#include "kernels/gemm.h"
#include "base/ctx.h"
#include "kernels/kernels.h"
#include <assert.h>
#include <string.h>

enum {
    KC = 256,                   /* k block: a panel [KC][32] is 32 KB, an A tile [KC][14] 14 KB, together one L1 */
    NB = 192,                   /* columns of an n block (256 where the weight's blocks ask for it) */
    PANEL = 256 * 256,          /* floats of a packed n block */
    TEMP = 32 * 256,            /* floats of a decoded strip before packing */
    K_CHUNK = 2048,
    A_FLOATS = 2 * 1024 * 1024, /* packed part of A, all workers together */
    A_STRIP = 32,               /* rows of a [K, M] operand packed at a time */
    SKINNY = 3                  /* up to so many rows, products row by row beat the tile */
};

/* How a tile lies packed: panels of floats, or of words that hold two bf16 (kernels.inc). */
typedef struct packing {
    int pair;                                     /* k in a packed element */
    void (*ukr)(int64_t k, const float *Ap, const float *Bp, float *C, int64_t ldc, int m, int n, int accumulate);
    void (*rows)(float *dst, const float *src, int64_t ld, int rows, int64_t k, int r);
    void (*cols)(float *dst, const float *src, int64_t ld, int64_t k, int cols, int r);
} packing;

typedef enum layout { ROWS, COLS } layout;   /* the operand's lanes (m or n) are its rows, or its columns */

typedef struct job {
    tt_ctx *ctx;
    const tt_kernels *k;
    packing p;
    int64_t M, N, K;
    float alpha;
    const float *A; int64_t lda; layout a_layout;
    const tt_wsrc *w;                             /* compressed B, or NULL: */
    const float *B; int64_t ldb;
    layout b_layout;
    float *C; int64_t ldc;
    bool accumulate, upper;                       /* upper: only tiles that touch the upper triangle */
    int64_t unit;                                 /* borders in k or n of a compressed B are multiples of it */
    int64_t kc, nb, n_blocks, m_ranges;
    int64_t m0, m1, k0, k1;                       /* the block of A that is packed now */
} job;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

static int64_t packed(const job *j, int64_t k) { return ceil_div(k, j->p.pair); }   /* elements of a column of a panel */

static size_t a_share(const tt_ctx *ctx) {        /* floats; one tile more than an even share, because tiles are not divided */
    return (size_t)(ceil_div(A_FLOATS, tt__threads(ctx)) + K_CHUNK * 32);
}

size_t tt__gemm_scratch(const tt_ctx *ctx, int64_t max_rows, int64_t max_cols) {
    (void)max_rows;
    (void)max_cols;
    return sizeof(float) * (PANEL + TEMP + a_share(ctx));
}

static float *panel_of(const job *j, int worker) { return tt__scratch(j->ctx, worker); }
static float *temp_of(const job *j, int worker) { return panel_of(j, worker) + PANEL; }

static float *a_tile(const job *j, int64_t tile) {
    const int threads = tt__threads(j->ctx);
    return temp_of(j, (int)(tile % threads)) + TEMP + tile / threads * (packed(j, j->k1 - j->k0) * j->k->mr);
}

static void scale_a(const job *j, float *dst, int64_t floats) {
    for (int64_t i = 0; j->alpha != 1.0f && i < floats; i++) dst[i] *= j->alpha;
}

/* A is [M, K]: a tile is mr of its rows. */
static void pack_a_rows(void *arg, int64_t tile, int worker) {
    const job *j = arg;
    const int mr = j->k->mr;
    const int64_t m = j->m0 + tile * mr, k = j->k1 - j->k0;
    float *dst = a_tile(j, tile);
    (void)worker;
    j->p.rows(dst, j->A + m * j->lda + j->k0, j->lda, (int)least(mr, j->m1 - m), k, mr);
    scale_a(j, dst, k * mr);
}

/* A is [K, M]: some of its rows at a time are dealt to all tiles, so that memory is read along the rows. */
static void pack_a_cols(void *arg, int64_t strip, int worker) {
    const job *j = arg;
    const int mr = j->k->mr;
    const int64_t k = strip * A_STRIP, n = least(A_STRIP, j->k1 - j->k0 - k);
    (void)worker;
    for (int64_t m = j->m0; m < j->m1; m += mr) {
        float *dst = a_tile(j, (m - j->m0) / mr) + packed(j, k) * mr;
        j->p.cols(dst, j->A + (j->k0 + k) * j->lda + m, j->lda, n, (int)least(mr, j->m1 - m), mr);
        scale_a(j, dst, n * mr);
    }
}

static void pack_a(job *j) {
    if (j->a_layout == ROWS) tt__parallel(j->ctx, ceil_div(j->m1 - j->m0, j->k->mr), pack_a_rows, j);
    else tt__parallel(j->ctx, ceil_div(j->k1 - j->k0, A_STRIP), pack_a_cols, j);
}

/* Panels of B for columns n0 … n1 and k block k0 … k1: [(n1 - n0) / nr][k1 - k0][nr]. */
static void pack_b(const job *j, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float *panel, float *temp) {
    const int nr = j->k->nr;
    const int64_t kc = k1 - k0;
    if (j->b_layout == ROWS) {                    /* B is [N, K]: transpose strips of nr rows */
        for (int64_t n = n0; n < n1; n += nr, panel += packed(j, kc) * nr) {
            const int rows = (int)least(nr, n1 - n);
            const float *src = j->B + n * j->ldb + k0;
            if (j->w && j->w->pack && j->w->pack(j->w->self, n, n + rows, k0, k1, panel, nr, j->p.pair)) continue;
            if (j->w) j->w->decode(j->w->self, n, n + rows, k0, k1, temp, kc);
            j->p.rows(panel, j->w ? temp : src, j->w ? kc : j->ldb, rows, kc, nr);
        }
        return;
    }
    const int64_t width = n1 - n0, strip = j->w ? most(1, TEMP / width / j->p.pair) * j->p.pair : kc;
    for (int64_t k = k0; k < k1; k += strip) {    /* B is [K, N]: copy strips of rows */
        const int64_t rows = least(strip, k1 - k);
        if (j->w) j->w->decode(j->w->self, k, k + rows, n0, n1, temp, width);
        for (int64_t n = n0; n < n1; n += nr)
            j->p.cols(panel + (n - n0) * packed(j, kc) + packed(j, k - k0) * nr, j->w ? temp + (n - n0) : j->B + k * j->ldb + n, j->w ? width : j->ldb,
                            rows, (int)least(nr, n1 - n), nr);
    }
}

static void product_tile(void *arg, int64_t tile, int worker) {
    const job *j = arg;
    const int mr = j->k->mr, nr = j->k->nr;
    const int64_t n0 = tile % j->n_blocks * j->nb, n1 = least(n0 + j->nb, j->N);
    const int64_t a_tiles = ceil_div(j->m1 - j->m0, mr), range = tile / j->n_blocks;
    const int64_t first = a_tiles * range / j->m_ranges, end = a_tiles * (range + 1) / j->m_ranges;
    if (first == end || (j->upper && j->m0 + first * mr >= n1)) return;
    for (int64_t k0 = j->k0; k0 < j->k1; k0 += j->kc) {
        const int64_t k1 = least(k0 + j->kc, j->k1);
        const int accumulate = j->accumulate || k0 > 0;
        pack_b(j, n0, n1, k0, k1, panel_of(j, worker), temp_of(j, worker));
        for (int64_t i = first; i < end; i++) {
            const int64_t m = j->m0 + i * mr;
            const float *a = a_tile(j, i) + packed(j, k0 - j->k0) * mr;
            for (int64_t n = n0; n < n1; n += nr) {
                if (j->upper && m >= n + nr) continue;
                j->p.ukr(packed(j, k1 - k0), a, panel_of(j, worker) + (n - n0) * packed(j, k1 - k0), j->C + m * j->ldc + n, j->ldc,
                               (int)least(mr, j->m1 - m), (int)least(nr, n1 - n), accumulate);
            }
        }
    }
}

/* n blocks as wide as the L2 likes, narrower when the workers would not all get several; then ranges of m as well. */
static void choose_tiles(job *j) {
    const int threads = tt__threads(j->ctx);
    const int64_t wanted = threads > 1 ? 4 * threads : 1;
    const int64_t step = j->w && j->b_layout == COLS ? most(j->k->nr, j->unit) : j->k->nr;   /* both are powers of two times nr's factor */
    j->nb = round_up(NB, step);
    while (j->nb > most(step, 64) && ceil_div(j->N, j->nb) < wanted) j->nb = most(step, round_up(j->nb / 2, step));
    j->n_blocks = ceil_div(j->N, j->nb);
    j->m_ranges = most(1, least(wanted / j->n_blocks, (j->m1 - j->m0) / 128));
}

static void run(job *j) {
    const int64_t k_unit = most(j->w && j->b_layout == ROWS ? j->unit : 1, j->p.pair);   /* units are 1 or even */
    j->kc = round_up(ceil_div(j->K, ceil_div(j->K, KC)), k_unit);
    const int64_t k_chunk = least(round_up(j->K, k_unit), most(1, K_CHUNK / j->kc) * j->kc);
    const int64_t m_block = A_FLOATS / k_chunk / j->k->mr * j->k->mr;
    assert(j->kc * round_up(NB, most(j->unit, j->k->nr)) <= PANEL && j->kc * j->k->nr <= TEMP);
    assert(j->ctx->scratch_bytes >= tt__gemm_scratch(j->ctx, 0, 0));
    for (j->k0 = 0; j->k0 < j->K; j->k0 = j->k1) {
        j->k1 = least(j->k0 + k_chunk, j->K);
        for (j->m0 = 0; j->m0 < j->M; j->m0 = j->m1) {
            j->m1 = least(j->m0 + m_block, j->M);
            choose_tiles(j);
            pack_a(j);
            tt__parallel(j->ctx, j->n_blocks * j->m_ranges, product_tile, j);
        }
    }
}

static void clear(float *C, int64_t ldc, int64_t M, int64_t N) {
    for (int64_t m = 0; m < M; m++) memset(C + m * ldc, 0, (size_t)N * sizeof *C);
}

/* ---- few rows: decode some rows of W, take their dot products ---- */

static int64_t skinny_rows(const job *j) { return least(32, PANEL / j->K); }

static void skinny_tile(void *arg, int64_t tile, int worker) {
    const job *j = arg;
    const int64_t step = skinny_rows(j), r0 = tile * step, r1 = least(r0 + step, j->N);
    float *rows = panel_of(j, worker), *y = temp_of(j, worker);
    j->w->decode(j->w->self, r0, r1, 0, j->K, rows, j->K);
    j->k->rowdot_f32(rows, j->K, r1 - r0, j->K, j->A, j->lda, j->M, y, step);
    for (int64_t t = 0; t < j->M; t++)
        for (int64_t r = r0; r < r1; r++) {
            float *c = &j->C[t * j->ldc + r];
            *c = j->accumulate ? *c + y[t * step + r - r0] : y[t * step + r - r0];
        }
}

/* ---- the calls ---- */

static job job_for(tt_ctx *ctx, int64_t M, int64_t N, int64_t K, float *C, int64_t ldc, bool accumulate) {
    const packing f32 = {1, ctx->k->gemm_ukr, ctx->k->pack_rows, ctx->k->pack_cols};
    return (job){.ctx = ctx, .k = ctx->k, .p = f32, .M = M, .N = N, .K = K, .alpha = 1.0f, .unit = 1, .C = C, .ldc = ldc, .accumulate = accumulate};
}

/* B is a weight. */
static void take_weight(job *j, const tt_wsrc *w, layout b_layout) {
    j->w = w;
    j->unit = most(1, w->col_unit);
    j->b_layout = b_layout;
    if (w->bf16 && j->k->bf16) j->p = (packing){2, j->k->gemm_ukr_bf16, j->k->pack_rows_bf16, j->k->pack_cols_bf16};
}

void tt__gemm_w(tt_ctx *ctx, const tt_wsrc *w, const float *X, int64_t ldx, int64_t T, float *Y, int64_t ldy, bool accumulate) {
    job j = job_for(ctx, T, w->rows, w->cols, Y, ldy, accumulate);
    if (T <= 0 || w->rows <= 0) return;
    if (w->cols <= 0) {
        if (!accumulate) clear(Y, ldy, T, w->rows);
        return;
    }
    j.A = X;
    j.lda = ldx;
    take_weight(&j, w, ROWS);
    if (T <= SKINNY && w->cols <= PANEL) tt__parallel(ctx, ceil_div(w->rows, skinny_rows(&j)), skinny_tile, &j);
    else run(&j);
}

void tt__gemm_wt(tt_ctx *ctx, const tt_wsrc *w, const float *G, int64_t ldg, int64_t T, float *dX, int64_t lddx, bool accumulate) {
    job j = job_for(ctx, T, w->cols, w->rows, dX, lddx, accumulate);
    if (T <= 0 || w->cols <= 0) return;
    if (w->rows <= 0) {
        if (!accumulate) clear(dX, lddx, T, w->cols);
        return;
    }
    j.A = G;
    j.lda = ldg;
    take_weight(&j, w, COLS);
    run(&j);
}

void tt__gemm(tt_ctx *ctx, int64_t M, int64_t N, int64_t K, float alpha, const float *A, int64_t lda, const float *B, int64_t ldb,
              bool transposed, float *C, int64_t ldc, bool accumulate) {
    job j = job_for(ctx, M, N, K, C, ldc, accumulate);
    if (M <= 0 || N <= 0) return;
    if (K <= 0) {
        if (!accumulate) clear(C, ldc, M, N);
        return;
    }
    j.alpha = alpha;
    j.A = A;
    j.lda = lda;
    j.B = B;
    j.ldb = ldb;
    j.b_layout = transposed ? ROWS : COLS;
    run(&j);
}

void tt__gemm_tn(tt_ctx *ctx, int64_t M, int64_t N, int64_t K, const float *A, int64_t lda, const float *B, int64_t ldb, float *C, int64_t ldc,
                 bool accumulate) {
    job j = job_for(ctx, M, N, K, C, ldc, accumulate);
    if (M <= 0 || N <= 0) return;
    if (K <= 0) {
        if (!accumulate) clear(C, ldc, M, N);
        return;
    }
    j.A = A;
    j.lda = lda;
    j.a_layout = COLS;
    j.B = B;
    j.ldb = ldb;
    j.b_layout = COLS;
    run(&j);
}

enum { MIRROR = 64 };

/* Rows i … i + MIRROR of the lower triangle, from the upper one in square blocks; the block on the diagonal element by element. */
static void mirror_tile(void *arg, int64_t tile, int worker) {
    const job *j = arg;
    const int64_t i0 = tile * MIRROR, rows = least(MIRROR, j->N - i0), ld = j->ldc;
    float *block = temp_of(j, worker);
    for (int64_t c = 0; c < i0; c += MIRROR) {
        j->k->pack_rows(block, j->C + c * ld + i0, ld, MIRROR, rows, MIRROR);
        for (int64_t i = 0; i < rows; i++) memcpy(j->C + (i0 + i) * ld + c, block + i * MIRROR, MIRROR * sizeof *block);
    }
    for (int64_t i = i0; i < i0 + rows; i++)
        for (int64_t c = i0; c < i; c++) j->C[i * ld + c] = j->C[c * ld + i];
}

void tt__syrk(tt_ctx *ctx, const float *X, int64_t ldx, int64_t T, int64_t n, float *H) {
    job j = job_for(ctx, n, n, T, H, n, true);
    if (T <= 0 || n <= 0) return;
    j.A = j.B = X;
    j.lda = j.ldb = ldx;
    j.a_layout = j.b_layout = COLS;
    j.upper = true;
    run(&j);
    tt__parallel(ctx, ceil_div(n, MIRROR), mirror_tile, &j);
}
