/* trellis: weights as trellis codes, a column at a time, each column's error pushed onto the columns not yet coded (QTIP, arXiv 2406.11235, with the
 * walk of gptq in the place of LDLQ, which is the same; beyond what rounding can do: kernels/trellis.h has the code, linop/trellis.c the storage).
 *
 *     H       inputs' second moments, damped; columns in walking order (act_order: by falling diagonal)        H^-1 = U^T U
 *     x_j     column j as updated so far       ŵ_j = s t_j v(x_j / (s t_j))      s: scales of the rows, t_j: gain of the column, v: the code's values
 *     e_j = (x_j - ŵ_j) / U_jj                 x_k -= e_j U_jk   for k > j
 *
 * Order of work, and where this goes beyond the paper:
 *   turn      rows times signs and a Hadamard matrix (H turned alike): weights become normal, which the code is made for; undone at decoding
 *   scales    s and t by turns, so that x / (s t) has unit rows and columns; t_j again when its column is reached, times what suits its rate
 *   rates     the bits of a column, a whole number, by what an error there costs: of all ways to spend cols * bits the one with the least
 *             Σ_j |w_j|² D(bits_j) / U_jj²,  D the code's distortion of a normal source. A mean such as 2.2 bits is reached by mixing
 *   walk      rows lie in tiles, which are independent: one Viterbi search each (its errors weighted by s²), all cores
 *   refit     the scales again, by least squares with H, for the codes that were found
 *   sweeps    each column again, all others given: x_j = ŵ_j + Σ_k H_jk (w_k - ŵ_k) / H_jj, kept where a tile's error falls; then refit
 *
 * Measured on 13 matrices of a 135 M model, mean of Σ e H e^T against gptq with groups of 64 at the same bytes: 0.325 at 2.25 bits, 0.31 at 3.25. Of that: a turn
 * of 64 columns is as good as one of all 576 or 1536 (0.326, 0.325) and is undone within a strip of a product, so it is the default, none has 0.342; scales per
 * 64 instead of rows, equal rates: 0.438; 2^14 states: 0.312 at three times the time; refit and sweeps: less than one in a hundred.
 * The whole model, 16 sequences of 512 from one half of WikiText-2 test, 20 windows of the other: perplexity 42.4 at 2.24 bits.
 *
 * All arrays are by columns, [cols][padded rows], in walking order. The result does not depend on the number of threads.
 * Cost: bits + 16/group (or 16/cols) + 20/rows bits per weight; 106 M weights at 2 bits, 4096 states: about a minute of two cores a pass.
 */
#include "methods/method.h"

#include "base/util.h"
#include "kernels/hadamard.h"
#include "linop/trellis.h"
#include "train/linalg.h"
#include <math.h>
#include <stdlib.h>

enum { BLOCK = 64, LANES = TT_TRELLIS_LANES, MOST_BITS = TT_TRELLIS_MOST_BITS, BALANCE = 4 };

/* Distortion of a unit normal source at 0 … 6 bits (4096 states, tiles of 192, measured), and the spread of the code that reaches it. */
static const float distortion[MOST_BITS + 1] = {1.0f, 0.286f, 0.0751f, 0.0198f, 0.0051f, 0.0014f, 0.0004f};
static const float spread[MOST_BITS + 1] = {1.0f, 0.90f, 1.02f, 1.06f, 1.10f, 1.15f, 1.20f};

typedef struct job {
    tt_ctx *ctx;
    tt_draft *d;
    tt_trellis_form form;
    int64_t rows, padded, cols, group, groups, tiles;
    int32_t *perm;                                    /* walking position → column */
    float *H, *U;                                     /* [cols, cols], walking order */
    float *W, *X, *Y;                                 /* the weights, as updated (later: gradients), as coded */
    float *E, *part;                                  /* [BLOCK][padded] errors, [cols][BLOCK] of U or H */
    uint16_t *scales, *gains;                         /* as stored: [groups][padded], [cols] by column */
    float *scale, *gain;                              /* the same as floats; gains by walking position, in units of the code's spread */
    uint8_t *rates, *signs, *codes;                   /* by column */
    int64_t *start;
    float *value;
    size_t room;
    int64_t at, i2;                                   /* the column in work, the end of its block */
    bool again;                                       /* a sweep: keep what was better */
} job;

static float *column(float *m, const job *j, int64_t c) { return m + c * j->padded; }
static float *scale_of(const job *j, int64_t c) { return j->scale + j->perm[c] / j->group * j->padded; }

/* ------------------------------------------------------------ turning ---- */

static int largest_turn(int64_t cols, int64_t most) {
    for (int64_t n = cols < most ? cols : most; n > 1; n--)
        if (cols % n == 0 && tt__hadamard_exists(n)) return (int)n;
    return 0;
}

typedef struct turn_job { const job *j; float *m; int64_t ld; } turn_job;

/* 16 columns of m [cols, ld]: blocks of rows of m times signs and H / sqrt(turn). */
static void turn_tile(void *arg, int64_t tile, int worker) {
    const turn_job *t = arg;
    const int64_t n = t->j->form.turn, lanes = t->ld - LANES * tile < LANES ? t->ld - LANES * tile : LANES;
    const float norm = 1.0f / sqrtf((float)n);
    float *x = tt__scratch(t->j->ctx, worker);
    for (int64_t b = 0; b < t->j->cols; b += n) {
        memset(x, 0, (size_t)(n * LANES) * sizeof *x);
        for (int64_t c = 0; c < n; c++)
            for (int64_t l = 0; l < lanes; l++) x[c * LANES + l] = t->m[(b + c) * t->ld + LANES * tile + l] * (t->j->signs[(b + c) / 8] >> (b + c) % 8 & 1 ? -norm : norm);
        t->j->ctx->k->hadamard_lanes(x, n, 0);
        for (int64_t c = 0; c < n; c++) memcpy(t->m + (b + c) * t->ld + LANES * tile, x + c * LANES, (size_t)lanes * sizeof *x);
    }
}

static void turn(const job *j, float *m, int64_t ld) { tt__parallel(j->ctx, (ld + LANES - 1) / LANES, turn_tile, &(turn_job){j, m, ld}); }

static void transpose_square(float *m, int64_t n) {
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < r; c++) {
            float t = m[r * n + c];
            m[r * n + c] = m[c * n + r], m[c * n + r] = t;
        }
}

static void choose_signs(job *j) {
    tt__rng rng;
    tt__rng_seed(&rng, 576);
    for (int64_t c = 0; c < j->cols; c++) j->signs[c / 8] |= (uint8_t)(tt__rng_below(&rng, 2) << c % 8);
}

/* ------------------------------------------------------------ order, scales, rates ---- */

typedef struct ranked { float key; int32_t index; } ranked;
static int by_falling_key(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    return x->key > y->key ? -1 : x->key < y->key ? 1 : x->index < y->index ? -1 : 1;
}

static tt_status make_order(job *j, const float *H, bool act_order, tt_err *err) {
    ranked *r = NULL;
    TT_TRY(tt__new(&r, (size_t)j->cols, sizeof *r, "an order of columns", err));
    for (int64_t c = 0; c < j->cols; c++) r[c] = (ranked){act_order ? H[c * j->cols + c] : 0, (int32_t)c};
    qsort(r, (size_t)j->cols, sizeof *r, by_falling_key);
    for (int64_t c = 0; c < j->cols; c++) j->perm[c] = r[c].index;
    tt__free(r);
    return TT_OK;
}

static tt_status round_scale(float s, uint16_t *half, float *rounded, tt_err *err) {
    *half = tt__f32_to_f16(s);
    TT_FAIL_IF(*half >= 0x7c00, err, TT_FAIL, "scale does not fit a 16-bit float||%g|0 to 65504", (double)s);
    *rounded = tt__f16_to_f32(*half);
    return TT_OK;
}

/* Row scales per group and column gains by turns: the mean squares of rows and columns of w / (s t) become 1. */
static tt_status balance(job *j, tt_err *err) {
    double *sum = NULL, *weight = NULL;
    tt_status st;
    TT_TRY_GOTO(tt__new(&sum, (size_t)(j->groups * j->padded), sizeof *sum, "row scales", err));
    TT_TRY_GOTO(tt__new(&weight, (size_t)j->groups, sizeof *weight, "row scales", err));
    for (int64_t c = 0; c < j->cols; c++) j->gain[c] = 1;
    for (int round = 0; round < BALANCE; round++) {
        memset(sum, 0, (size_t)(j->groups * j->padded) * sizeof *sum);
        memset(weight, 0, (size_t)j->groups * sizeof *weight);
        for (int64_t c = 0; c < j->cols; c++) {
            const float *w = column(j->W, j, c);
            const int64_t g = j->perm[c] / j->group;
            if (!(j->gain[c] > 0)) continue;
            weight[g]++;
            for (int64_t r = 0; r < j->rows; r++) sum[g * j->padded + r] += (double)(w[r] / j->gain[c]) * (double)(w[r] / j->gain[c]);
        }
        for (int64_t i = 0; i < j->groups * j->padded; i++) j->scale[i] = weight[i / j->padded] > 0 ? (float)sqrt(sum[i] / weight[i / j->padded]) : 0;
        for (int64_t c = 0; c < j->cols; c++) {
            const float *w = column(j->W, j, c), *s = scale_of(j, c);
            double squares = 0, n = 0;
            for (int64_t r = 0; r < j->rows; r++)
                if (s[r] > 0) squares += (double)(w[r] / s[r]) * (double)(w[r] / s[r]), n++;
            j->gain[c] = n > 0 ? (float)sqrt(squares / n) : 0;
        }
    }
    st = TT_OK;
    for (int64_t i = 0; i < j->groups * j->padded && st == TT_OK; i++) st = round_scale(j->scale[i], &j->scales[i], &j->scale[i], err);
done:
    tt__free(sum);
    tt__free(weight);
    return st;
}

/* The `bits` of every column: steps of one bit sorted by what they save; D is convex, so the best steps of a column are its first ones. */
static tt_status choose_rates(job *j, double bits, bool allocate, tt_err *err) {
    const int most = j->form.states - 4 < MOST_BITS ? j->form.states - 4 : MOST_BITS;
    const int64_t budget = (int64_t)(bits * (double)j->cols + 0.5);
    ranked *step = NULL;
    if (!allocate) {
        memset(j->rates, (int)bits, (size_t)j->cols);
        return TT_OK;
    }
    TT_TRY(tt__new(&step, (size_t)(j->cols * most), sizeof *step, "rates of columns", err));
    for (int64_t c = 0; c < j->cols; c++) {
        const float u = j->U[c * j->cols + c], cost = (float)j->ctx->k->sumsq_f32(column(j->W, j, c), j->padded) / (u * u);
        for (int b = 0; b < most; b++) step[c * most + b] = (ranked){cost * (distortion[b] - distortion[b + 1]), (int32_t)(c * most + b)};
    }
    qsort(step, (size_t)(j->cols * most), sizeof *step, by_falling_key);
    for (int64_t i = 0; i < budget && i < j->cols * most; i++) j->rates[j->perm[step[i].index / most]]++;
    tt__free(step);
    return TT_OK;
}

/* ------------------------------------------------------------ one column ---- */

/* Of column `at`: gain by the spread of its weights as they are now. */
static tt_status choose_gain(job *j, tt_err *err) {
    const float *x = column(j->X, j, j->at), *s = scale_of(j, j->at);
    const int64_t c = j->perm[j->at];
    double squares = 0, of_scales = 0;
    for (int64_t r = 0; r < j->rows; r++) squares += (double)x[r] * (double)x[r], of_scales += (double)s[r] * (double)s[r];
    const float t = of_scales > 0 ? (float)sqrt(squares / of_scales) * spread[j->rates[c]] : 0;
    TT_TRY(round_scale(t / TT_TRELLIS_SPREAD, &j->gains[c], &j->gain[j->at], err));
    j->gain[j->at] *= TT_TRELLIS_SPREAD;
    return TT_OK;
}

/* Rows r0 … r0 + n of column `at`: x / (s t) to windows; y: as decoded. Returns true when codes were taken. */
static bool code_rows(const job *j, int64_t r0, int64_t n, void *room, float *y) {
    const int64_t c = j->perm[j->at];
    const int bits = j->rates[c];
    const float *x = column(j->X, j, j->at) + r0, *s = scale_of(j, j->at) + r0, t = j->gain[j->at];
    float unit[TT_TRELLIS_MOST_TILE], weight[TT_TRELLIS_MOST_TILE], squares = 0;
    uint8_t codes[TT_TRELLIS_MOST_TILE * MOST_BITS / 8];
    memset(y, 0, (size_t)n * sizeof *y);
    if (!bits || !(t > 0)) return false;
    for (int64_t r = 0; r < n; r++) squares += s[r] * s[r];
    for (int64_t r = 0; r < n; r++) {
        unit[r] = s[r] > 0 ? x[r] / (s[r] * t) : 0;
        weight[r] = r0 + r < j->rows && squares > 0 ? s[r] * s[r] * (float)n / squares : 0;
    }
    tt__trellis_encode(j->ctx->k, j->form.states, bits, j->value, unit, weight, n, room, codes, y);
    double before = 0, after = 0;
    const float *old = column(j->Y, j, j->at) + r0;
    for (int64_t r = 0; r < n; r++) {
        y[r] *= s[r] * t;
        before += (double)(x[r] - old[r]) * (double)(x[r] - old[r]);
        after += (double)(x[r] - y[r]) * (double)(x[r] - y[r]);
    }
    if (j->again && !(after < before)) {
        memcpy(y, old, (size_t)n * sizeof *y);
        return false;
    }
    memcpy(j->codes + j->start[c] + r0 * bits / 8, codes, (size_t)(n * bits / 8));
    return true;
}

/* One tile of column `at`, and what its error does to the rest of the block. */
static void column_tile(void *arg, int64_t tile, int worker) {
    const job *j = arg;
    const int64_t r0 = tile * j->form.tile, n = j->padded - r0 < j->form.tile ? j->padded - r0 : j->form.tile, i1 = j->at / BLOCK * BLOCK;
    float y[TT_TRELLIS_MOST_TILE], *x = column(j->X, j, j->at) + r0, *e = column(j->E, j, j->at - i1) + r0, *coded = column(j->Y, j, j->at) + r0;
    const float *by = (j->again ? j->H : j->U) + j->at * j->cols;
    if (j->again) {                                   /* X holds H (W - Y) */
        memcpy(e, x, (size_t)n * sizeof *x);
        for (int64_t r = 0; r < n; r++) x[r] = coded[r] + x[r] / by[j->at];
    }
    code_rows(j, r0, n, tt__scratch(j->ctx, worker), y);
    if (j->again) {
        memcpy(x, e, (size_t)n * sizeof *x);
        for (int64_t r = 0; r < n; r++) e[r] = y[r] - coded[r];
    } else {
        for (int64_t r = 0; r < n; r++) e[r] = (x[r] - y[r]) / by[j->at];
    }
    memcpy(coded, y, (size_t)n * sizeof *y);
    for (int64_t k = j->again ? i1 : j->at + 1; k < j->i2; k++) j->ctx->k->axpy_f32(column(j->X, j, k) + r0, -by[k], e, n);
}

/* X[k0 … k1) -= m[i1 … i2, k]^T E */
static void push_block(job *j, const float *m, int64_t i1, int64_t k0, int64_t k1) {
    const int64_t n = j->i2 - i1;
    if (k0 >= k1) return;
    for (int64_t k = k0; k < k1; k++)
        for (int64_t i = 0; i < n; i++) j->part[(k - k0) * n + i] = m[(i1 + i) * j->cols + k];
    tt__gemm(j->ctx, k1 - k0, j->padded, n, -1.0f, j->part, n, j->E, j->padded, false, column(j->X, j, k0), j->padded, true);
}

static tt_status walk(job *j, tt_err *err) {
    for (int64_t i1 = 0; i1 < j->cols; i1 = j->i2) {
        TT_TRY(tt__check_cancel(j->ctx, err));
        j->i2 = i1 + BLOCK < j->cols ? i1 + BLOCK : j->cols;
        for (j->at = i1; j->at < j->i2; j->at++) {
            if (!j->again) TT_TRY(choose_gain(j, err));
            tt__parallel(j->ctx, j->tiles, column_tile, j);
        }
        if (j->again) push_block(j, j->H, i1, 0, i1);
        push_block(j, j->again ? j->H : j->U, i1, j->i2, j->cols);
    }
    return TT_OK;
}

/* ------------------------------------------------------------ refit and sweeps ---- */

/* Solves A x = b of order n in place (Cholesky, f64). False: A is not positive definite. */
static bool solve(double *A, double *b, int64_t n) {
    for (int64_t c = 0; c < n; c++)
        for (int64_t r = c; r < n; r++) {
            double s = A[r * n + c];
            for (int64_t k = 0; k < c; k++) s -= A[r * n + k] * A[c * n + k];
            if (r == c && !(s > 0)) return false;
            A[r * n + c] = r == c ? sqrt(s) : s / A[c * n + c];
        }
    for (int64_t r = 0; r < n; r++) {
        for (int64_t k = 0; k < r; k++) b[r] -= A[r * n + k] * b[k];
        b[r] /= A[r * n + r];
    }
    for (int64_t r = n - 1; r >= 0; r--) {
        for (int64_t k = r + 1; k < n; k++) b[r] -= A[k * n + r] * b[k];
        b[r] /= A[r * n + r];
    }
    return true;
}

/* For every row the factors f_g of its scales that minimise (w - Σ f_g y_g) H (w - Σ f_g y_g)^T: A f = b, A_gh = y_g H y_h^T, b_g = y_g H w^T. */
static tt_status refit(job *j, tt_err *err) {
    const int64_t G = j->groups;
    double *A = NULL, *b = NULL;
    float *take = NULL, *some = NULL;
    tt_status st;
    TT_TRY_GOTO(tt__new(&A, (size_t)(j->padded * G * G), sizeof *A, "least squares", err));
    TT_TRY_GOTO(tt__new(&b, (size_t)(j->padded * G), sizeof *b, "least squares", err));
    TT_TRY_GOTO(tt__new(&take, (size_t)(j->cols * (G > 1 ? j->group : j->cols)), sizeof *take, "least squares", err));
    TT_TRY_GOTO(tt__new(&some, (size_t)((G > 1 ? j->group : j->cols) * j->padded), sizeof *some, "least squares", err));
    for (int64_t h = 0; h < G; h++) {
        int64_t n = 0, width = j->cols - h * j->group < j->group ? j->cols - h * j->group : j->group;
        for (int64_t c = 0; c < j->cols; c++) {
            if (j->perm[c] / j->group != h) continue;
            memcpy(some + n * j->padded, column(j->Y, j, c), (size_t)j->padded * sizeof *some);
            for (int64_t k = 0; k < j->cols; k++) take[k * width + n] = j->H[c * j->cols + k];
            n++;
        }
        tt__gemm(j->ctx, j->cols, j->padded, n, 1.0f, take, width, some, j->padded, false, j->X, j->padded, false);
        for (int64_t c = 0; c < j->cols; c++) {
            const float *m = column(j->X, j, c), *y = column(j->Y, j, c), *w = column(j->W, j, c);
            const int64_t g = j->perm[c] / j->group;
            for (int64_t r = 0; r < j->rows; r++) {
                A[(r * G + g) * G + h] += (double)y[r] * (double)m[r];
                b[r * G + h] += (double)w[r] * (double)m[r];
            }
        }
    }
    for (int64_t r = 0; r < j->rows; r++) {
        double trace = 0;
        for (int64_t g = 0; g < G; g++) trace += A[(r * G + g) * G + g];
        for (int64_t g = 0; g < G; g++) {                      /* a little towards the scales that are there */
            A[(r * G + g) * G + g] += 1e-4 * trace / (double)G;
            b[r * G + g] += 1e-4 * trace / (double)G;
        }
        bool good = trace > 0 && solve(A + r * G * G, b + r * G, G);
        for (int64_t g = 0; g < G; g++) {
            const double f = good && b[r * G + g] > 0.25 && b[r * G + g] < 4 ? b[r * G + g] : 1;
            float *s = j->scale + g * j->padded + r;
            b[r * G + g] = (double)*s;
            TT_TRY_GOTO(round_scale(*s * (float)f, &j->scales[g * j->padded + r], s, err));
            b[r * G + g] = b[r * G + g] > 0 ? (double)*s / b[r * G + g] : 0;
        }
    }
    for (int64_t c = 0; c < j->cols; c++) {
        float *y = column(j->Y, j, c);
        for (int64_t r = 0; r < j->rows; r++) y[r] *= (float)b[r * G + j->perm[c] / j->group];
    }
done:
    tt__free(A);
    tt__free(b);
    tt__free(take);
    tt__free(some);
    return st;
}

/* X = H (W - Y), then every column anew. */
static tt_status sweep(job *j, tt_err *err) {
    for (int64_t i = 0; i < j->cols * j->padded; i++) j->Y[i] = j->W[i] - j->Y[i];
    tt__gemm(j->ctx, j->cols, j->padded, j->cols, 1.0f, j->H, j->cols, j->Y, j->padded, false, j->X, j->padded, false);
    for (int64_t i = 0; i < j->cols * j->padded; i++) j->Y[i] = j->W[i] - j->Y[i];
    j->again = true;
    return walk(j, err);
}

/* ------------------------------------------------------------ the whole matrix ---- */

static void place_columns(job *j) {
    for (int64_t c = 0; c < j->cols; c++) j->start[c + 1] = j->start[c] + j->padded / 8 * j->rates[c];
}

/* W by columns, turned; H turned, permuted, with the damping that the factor needed. Inputs that were always 0 have weights 0. */
static tt_status load(job *j, const float *hessian, double damp, bool act_order, tt_err *err) {
    const int64_t n = j->cols;
    float *turned = NULL;
    double used, mean = 0;
    tt_status st;
    TT_TRY_GOTO(tt__new(&turned, (size_t)(n * n), sizeof *turned, "a Hessian", err));
    memcpy(turned, hessian, (size_t)(n * n) * sizeof *turned);
    for (int64_t c = 0; c < n; c++)
        for (int64_t r = 0; r < j->rows; r++) j->X[c * j->padded + r] = hessian[c * n + c] > 0 ? j->d->W[r * n + c] : 0;
    if (j->form.turn) {
        choose_signs(j);
        turn(j, j->X, j->padded);
        turn(j, turned, n);
        transpose_square(turned, n);
        turn(j, turned, n);
    }
    TT_TRY_GOTO(make_order(j, turned, act_order, err));
    TT_TRY_GOTO(tt__hessian_factor(j->ctx, turned, n, j->perm, damp, &j->U, &used, err));
    for (int64_t c = 0; c < n; c++) mean += (double)turned[c * n + c] / (double)n;
    for (int64_t c = 0; c < n; c++) {
        memcpy(column(j->W, j, c), column(j->X, j, j->perm[c]), (size_t)j->padded * sizeof *j->W);
        for (int64_t k = 0; k < n; k++) j->H[c * n + k] = turned[(int64_t)j->perm[c] * n + j->perm[k]];
        j->H[c * n + c] += (float)(used * mean) + (j->H[c * n + c] > 0 ? 0.0f : 1.0f);
    }
    memcpy(j->X, j->W, (size_t)(n * j->padded) * sizeof *j->X);
done:
    tt__free(turned);
    return st;
}

static tt_status reserve(job *j, tt_err *err) {
    const size_t cells = (size_t)(j->cols * j->padded), n = (size_t)j->cols;
    TT_TRY(tt__new(&j->perm, n, sizeof *j->perm, "an order of columns", err));
    TT_TRY(tt__new(&j->H, n * n, sizeof *j->H, "a Hessian", err));
    TT_TRY(tt__new(&j->W, cells, sizeof *j->W, "weights by columns", err));
    TT_TRY(tt__new(&j->X, cells, sizeof *j->X, "weights by columns", err));
    TT_TRY(tt__new(&j->Y, cells, sizeof *j->Y, "weights by columns", err));
    TT_TRY(tt__new(&j->E, (size_t)(BLOCK * j->padded), sizeof *j->E, "column errors", err));
    TT_TRY(tt__new(&j->part, n * BLOCK, sizeof *j->part, "column errors", err));
    TT_TRY(tt__new(&j->scales, (size_t)(j->groups * j->padded), sizeof *j->scales, "scales", err));
    TT_TRY(tt__new(&j->scale, (size_t)(j->groups * j->padded), sizeof *j->scale, "scales", err));
    TT_TRY(tt__new(&j->gains, n, sizeof *j->gains, "gains", err));
    TT_TRY(tt__new(&j->gain, n, sizeof *j->gain, "gains", err));
    TT_TRY(tt__new(&j->rates, n, 1, "rates of columns", err));
    TT_TRY(tt__new(&j->signs, n / 8 + 1, 1, "signs of columns", err));
    TT_TRY(tt__new(&j->start, n + 1, sizeof *j->start, "places of columns", err));
    TT_TRY(tt__new(&j->value, (size_t)1 << j->form.states, sizeof *j->value, "values of states", err));
    const size_t gemm = tt__gemm_scratch(j->ctx, j->padded, j->cols), room = tt__trellis_room(j->form.states, 1), lanes = (size_t)TT_HADAMARD_MOST * LANES * sizeof(float);
    tt__trellis_values(j->form.states, j->value);
    return tt__scratch_reserve(j->ctx, gemm > room ? (gemm > lanes ? gemm : lanes) : (room > lanes ? room : lanes), err);
}

static void release(job *j) {
    void *const all[] = {j->perm, j->H, j->U, j->W, j->X, j->Y, j->E, j->part, j->scales, j->scale, j->gains, j->gain, j->rates, j->signs, j->start, j->value, j->codes};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tt__free(all[i]);
}

/* ------------------------------------------------------------ the method ---- */

static const tt_knob knobs[] = {
    {"bits", TT_KNOB_REAL, 0.5, 6, TT_LINEAR, NULL, "2", NULL, "mean bits of a code; any number, reached by columns of different rates"},
    {"states", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "10|11|12|13|14|16", "12", NULL, "bits of a window; one more halves the speed of coding and lowers the error a little"},
    {"group", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "32|64|128|row", "row", NULL, "columns that share a scale"},
    {"hadamard", TT_KNOB_CHOICE, 0, 0, TT_LINEAR, "off|64|128|256|row", "64", NULL, "turn the columns, at most so many together, so that weights become normal"},
    {"allocate", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "true", NULL, "rates of columns by the cost of their errors; false: the same everywhere (whole bits)"},
    {"act_order", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "true", NULL, "code the columns with the largest inputs first"},
    {"refit", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "true", NULL, "fit the scales again to the codes that were found"},
    {"sweeps", TT_KNOB_INT, 0, 8, TT_LINEAR, NULL, "0", NULL, "times that every column is coded again, all others given"},
    {"sequential", TT_KNOB_BOOL, 0, 0, TT_LINEAR, NULL, "false", NULL, "within a block, collect inputs again after each coded stage (four passes instead of one)"},
    {"damp", TT_KNOB_REAL, 0, 1, TT_LOG, NULL, "0.01", NULL, "share of the mean diagonal added to the Hessian; raised tenfold where that fails"},
};

static tt_status applies(const tt_net *net, const tt_knobs *k, tt_err *err) {
    (void)net;
    const double bits = tt__knob_f(k, "bits");
    TT_FAIL_IF(!tt__knob_b(k, "allocate") && bits != floor(bits), err, TT_USAGE, "equal rates are whole bits|trellis, bits|%g|1, 2, 3, 4, 5 or 6", bits);
    return TT_OK;
}

static unsigned wants(const tt_knobs *k) {
    (void)k;
    return TT_WANT_HESSIAN;
}

static bool sequential(const tt_knobs *k) { return tt__knob_b(k, "sequential"); }

static int64_t knob_columns(const tt_knobs *k, const char *name, const char *all, int64_t whole) {
    return !strcmp(tt__knob_s(k, name), "off") ? 0 : !strcmp(tt__knob_s(k, name), all) ? whole : tt__knob_i(k, name);
}

/* Tiles of 256 rows, or of 192 where only those come out even. */
static int tile_rows(int64_t rows) { return rows % 256 && rows % 192 == 0 ? 192 : 256; }

static job job_for(tt_ctx *ctx, const tt_knobs *k, tt_draft *d) {
    const int64_t group = knob_columns(k, "group", "row", 0);
    job j = {.ctx = ctx, .d = d, .rows = d->rows, .padded = (d->rows + LANES - 1) / LANES * LANES, .cols = d->cols, .group = group ? group : d->cols};
    j.form = (tt_trellis_form){.states = (int)tt__knob_i(k, "states"), .tile = tile_rows(d->rows), .group = (int)group, .turn = largest_turn(d->cols, knob_columns(k, "hadamard", "row", d->cols))};
    j.groups = (d->cols + j.group - 1) / j.group;
    j.tiles = (j.padded + j.form.tile - 1) / j.form.tile;
    return j;
}

static tt_status code(job *j, const tt_knobs *k, tt_err *err) {
    TT_TRY(balance(j, err));
    TT_TRY(choose_rates(j, tt__knob_f(k, "bits"), tt__knob_b(k, "allocate"), err));
    place_columns(j);
    TT_TRY(tt__new(&j->codes, (size_t)j->start[j->cols], 1, "trellis codes", err));
    TT_TRY(walk(j, err));
    for (int64_t i = 0;; i++) {
        if (tt__knob_b(k, "refit")) TT_TRY(refit(j, err));
        if (i == tt__knob_i(k, "sweeps")) return TT_OK;
        TT_TRY(sweep(j, err));
    }
}

static tt_status matrix(tt_ctx *ctx, const tt_knobs *k, tt_draft *d, const tt_stats *s, tt_err *err) {
    tt_status st;
    TT_FAIL_IF(!s || !s->hessian, err, TT_USAGE, "method needs calibration data|%s", d->name);
    TT_FAIL_IF(d->keep || d->bits || d->op, err, TT_USAGE, "trellis codes dense weights only|%s|||leave the other methods out of the recipe", d->name);
    job j = job_for(ctx, k, d);
    TT_TRY_GOTO(reserve(&j, err));
    TT_TRY_GOTO(load(&j, s->hessian, tt__knob_f(k, "damp"), tt__knob_b(k, "act_order"), err));
    TT_TRY_GOTO(code(&j, k, err));
    TT_TRY_GOTO(tt__linop_trellis(ctx, &j.form, j.rates, j.codes, j.scales, j.gains, j.form.turn ? j.signs : NULL, j.rows, j.cols, &d->op, err));
    tt__linop_rows(d->op, 0, j.rows, d->W);
done:
    release(&j);
    return st;
}

static double cost_bits(const tt_knobs *k, int64_t rows, int64_t cols) {
    const int64_t group = knob_columns(k, "group", "row", cols), padded = (rows + LANES - 1) / LANES * LANES, groups = (cols + group - 1) / group;
    const bool turned = largest_turn(cols, knob_columns(k, "hadamard", "row", cols)) > 0;
    const double codes = floor(tt__knob_f(k, "bits") * (double)cols + 0.5) * (double)padded;
    return (codes + 16.0 * (double)(groups * padded + cols) + 8.0 * (double)((cols + 1) / 2 + (turned ? (cols + 7) / 8 : 0))) / (double)(rows * cols);
}

static const tt_compress_vtable compress = {.wants = wants, .sequential = sequential, .matrix = matrix};
const tt_method tt__method_trellis = {
    .info = {.name = "trellis", .family = "weights", .title = "QTIP: Quantization with Trellises and Incoherence Processing", .id = "arXiv 2406.11235", .year = 2024,
             .summary = "codes columns on a trellis and repairs the rest of the row: the least loss for the bytes, at any mean number of bits", .version = 1, .stage = "compress",
             .knobs = knobs, .n_knobs = sizeof knobs / sizeof *knobs},
    .applies = applies, .cost_bits = cost_bits, .compress = &compress};
