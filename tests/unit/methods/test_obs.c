/* What goes beyond the plain walk, each against its slow textbook form in f64: orders of the columns, corrections towards the uncompressed model,
 * the identity with LDLQ, and the polish of scales and codes. */
#include "harness/tt_test.h"

#include "base/util.h"
#include "methods/method.h"
#include "methods/weights/obs.h"
#include <stdio.h>
#include <stdlib.h>

enum { R = 48, N = 112, T = 400, G = 32 };

/* Inputs X as they come out of compressed layers, Y as they would be; W with its moments. */
typedef struct layer { float W[R * N], H[N * N], D[N * N], sumsq[N]; double X[T * N], Y[T * N]; tt_stats stats; } layer;

static layer *make_layer(uint64_t seed) {
    layer *l = tt__calloc(1, sizeof *l);
    tt__rng r;
    tt__rng_seed(&r, seed);
    for (int i = 0; i < R * N; i++) l->W[i] = (float)tt__rng_normal(&r);
    for (int t = 0; t < T; t++) {
        double common = tt__rng_normal(&r), other = tt__rng_normal(&r);
        for (int i = 0; i < N; i++) {
            l->Y[t * N + i] = (tt__rng_normal(&r) + common + (i % 3 == 0) * other) * (0.4 + (double)(i * 7 % N) / N);
            l->X[t * N + i] = l->Y[t * N + i] + 0.15 * tt__rng_normal(&r) + 0.1 * other;
        }
    }
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) {
            double h = 0, d = 0;
            for (int t = 0; t < T; t++) {
                h += l->X[t * N + i] * l->X[t * N + k];
                d += l->X[t * N + i] * (l->Y[t * N + k] - l->X[t * N + k]);
            }
            l->H[i * N + k] = (float)(h / T);
            l->D[i * N + k] = (float)(d / T);
        }
    for (int i = 0; i < N; i++) l->sumsq[i] = l->H[i * N + i];
    l->stats = (tt_stats){.n = N, .tokens = T, .hessian = l->H, .cross = l->D, .sumsq = l->sumsq};
    return l;
}

static void apply(tt_ctx *ctx, const char *recipe, const layer *l, tt_draft *d) {
    tt_err err = {0};
    tt_recipe *r = NULL;
    TT_CHECK_OK(tt__draft_init(d, "w", 0, R, N, &err));
    memcpy(d->W, l->W, sizeof l->W);
    TT_CHECK_OK(tt_recipe_parse(recipe, strlen(recipe), &r, &err));
    for (size_t i = 0; i < tt_recipe_step_count(r); i++) {
        const tt_method *m = tt__method_of(tt_recipe_get_method(r, i));
        TT_CHECK_OK(m->compress->matrix(ctx, &(tt_knobs){r, i}, d, &l->stats, &err));
    }
    tt_recipe_free(r);
}

/* ------------------------------------------------------------ slow linear algebra ---- */

static void damped(const layer *l, double damp, const int *perm, double *H) {
    double mean = 0;
    for (int i = 0; i < N; i++) mean += (double)l->H[i * N + i] / N;
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) H[i * N + k] = (double)l->H[perm[i] * N + perm[k]] + (i == k) * damp * mean;
}

/* A [n, n] (ld apart) ← A^-1, Gauss-Jordan of a positive definite matrix. */
static void invert(double *A, int n, int ld) {
    for (int p = 0; p < n; p++) {
        double inv = 1 / A[p * ld + p];
        A[p * ld + p] = 1;
        for (int k = 0; k < n; k++) A[p * ld + k] *= inv;
        for (int i = 0; i < n; i++) {
            double f = A[i * ld + p];
            if (i == p) continue;
            A[i * ld + p] = 0;
            for (int k = 0; k < n; k++) A[i * ld + k] -= f * A[p * ld + k];
        }
    }
}

static double rounded(const tt_draft *d, int r, int c, double w) {
    int64_t g = r * tt__draft_groups(d) + c / d->group;
    double half = 1 << (d->bits - 1), off = d->mins ? 0 : d->halfgrid[g] ? half - 0.5 : half, s = d->scales[g], min = d->mins ? d->mins[g] : 0;
    double code = s != 0 ? nearbyint((w - min) / s + off) : off;
    return s * (fmin(fmax(code, 0), 2 * half - 1) - off) + min;
}

/* A rounding at a tie may fall the other way in f32; whole rows then differ. Nearly all must agree. */
static void check_rows(const double *slow, const float *fast, double tol) {
    int off = 0;
    for (int r = 0; r < R; r++) {
        bool same = true;
        for (int c = 0; c < N; c++) same &= fabs(slow[r * N + c] - (double)fast[r * N + c]) <= tol;
        off += !same;
    }
    tt_test_note("%d of %d rows differ", off, R);
    TT_CHECK(off * 16 <= R);
}

/* ------------------------------------------------------------ orders ---- */

static const layer *sorted;
static double group_mean(int c) {
    double s = 0;
    int c0 = c / G * G, c1 = c0 + G < N ? c0 + G : N;
    for (int k = c0; k < c1; k++) s += (double)sorted->sumsq[k];
    return s / (c1 - c0);
}
static int by_diag(const void *a, const void *b) {
    float x = sorted->sumsq[*(const int *)a], y = sorted->sumsq[*(const int *)b];
    return x > y ? -1 : x < y;
}
static int by_group(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    bool sx = x / G == N / G, sy = y / G == N / G;                  /* the short group is last */
    if (sx != sy) return sx ? 1 : -1;
    if (x / G != y / G) return group_mean(x) > group_mean(y) ? -1 : 1;
    return by_diag(a, b);
}

/* Variance of column c given the columns in `given`: 1 / [(H of c and given)^-1]_cc. */
static double conditional(const double *H, int c, const int *given, int n) {
    double A[N * N];
    int set[N];
    set[0] = c;
    memcpy(set + 1, given, (size_t)n * sizeof *given);
    for (int i = 0; i <= n; i++)
        for (int k = 0; k <= n; k++) A[i * N + k] = H[set[i] * N + set[k]];
    invert(A, n + 1, N);
    return 1 / A[0];
}

static void slow_order(const layer *l, const char *order, int *perm) {
    for (int i = 0; i < N; i++) perm[i] = i;
    sorted = l;
    if (!strcmp(order, "true")) qsort(perm, N, sizeof *perm, by_diag);
    if (!strcmp(order, "groups")) qsort(perm, N, sizeof *perm, by_group);
    if (strcmp(order, "pivot")) return;
    double H[N * N];
    bool placed[N] = {false};
    damped(l, 0.01, perm, H);
    for (int last = N - 1; last >= 0; last--) {
        double least = INFINITY;
        int best = 0;
        for (int c = 0; c < N; c++) {
            double v = placed[c] ? INFINITY : conditional(H, c, perm + last + 1, N - 1 - last);
            if (v < least) least = v, best = c;
        }
        placed[best] = true;
        perm[last] = best;
    }
}

/* ------------------------------------------------------------ the walk ---- */

/* Algorithm 1 with the grids of a draft, from W [R, N] on. mismatch: GPTAQ's term in its defining form, w_j C_j,>j (H_>j,>j)^-1 for the rest. */
static void slow_walk(const layer *l, const double *start, const int *perm, const tt_draft *d, double mismatch, double *W) {
    static double H[N * N], inv[N * N], P[N * N];
    damped(l, 0.01, perm, H);
    memcpy(W, start, (size_t)(R * N) * sizeof *W);
    for (int j = 0; j < N; j++) {
        for (int i = j; i < N; i++)
            for (int k = j; k < N; k++) inv[(i - j) * N + k - j] = H[i * N + k];
        invert(inv, N - j, N);                                      /* of the columns that are left */
        for (int r = 0; r < R; r++) {
            double w = W[r * N + perm[j]], q = rounded(d, r, perm[j], w);
            for (int k = j; k < N; k++) W[r * N + perm[k]] -= (w - q) / inv[0] * inv[k - j];
            W[r * N + perm[j]] = q;
            P[r] = w;
        }
        if (mismatch <= 0 || j + 1 == N) continue;
        for (int i = j + 1; i < N; i++)
            for (int k = j + 1; k < N; k++) inv[(i - j - 1) * N + k - j - 1] = H[i * N + k];
        invert(inv, N - j - 1, N);
        for (int k = j + 1; k < N; k++) {
            double p = 0;
            for (int i = j + 1; i < N; i++) p += (double)l->D[perm[i] * N + perm[j]] * inv[(i - j - 1) * N + k - j - 1];
            for (int r = 0; r < R; r++) W[r * N + perm[k]] += mismatch * P[r] * p;
        }
    }
}

/* argmin over all matrices of ‖W Y - V X‖² + λ ‖V - W‖². */
static void slow_target(const layer *l, double alpha, double *V) {
    static double A[N * N];
    int same[N];
    for (int i = 0; i < N; i++) same[i] = i;
    damped(l, 0.01, same, A);
    invert(A, N, N);
    for (int r = 0; r < R; r++)
        for (int c = 0; c < N; c++) {
            double v = l->W[r * N + c];
            for (int k = 0; k < N; k++) {
                double g = 0;
                for (int i = 0; i < N; i++) g += (double)l->W[r * N + i] * (double)l->D[k * N + i];
                v += alpha * g * A[k * N + c];
            }
            V[r * N + c] = v;
        }
}

TT_CASE(orders_and_corrections_textbook) {
    static const struct { const char *recipe, *order; double qronos, gptaq; } cases[] = {
        {"gptq(bits=3,group=32,refine=-1)", "true", 0, 0},
        {"gptq(bits=3,group=32,refine=-1,act_order=groups)", "groups", 0, 0},
        {"gptq(bits=3,group=32,refine=-1,act_order=pivot)", "pivot", 0, 0},
        {"gptq(bits=4,group=32,refine=-1,correct=qronos,format=own)", "true", 1, 0},
        {"gptq(bits=4,group=32,refine=-1,correct=qronos,alpha=0.5,act_order=false,sym=false)", "false", 0.5, 0},
        {"gptq(bits=3,group=32,refine=-1,correct=gptaq,alpha=0.25)", "true", 0, 0.25},
        {"gptq(bits=3,group=32,refine=-1,correct=gptaq,alpha=1,act_order=groups)", "groups", 0, 1}};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer *l = make_layer(1);
    static double start[R * N], W[R * N];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_draft d;
        int perm[N];
        tt_test_note("%s", cases[i].recipe);
        apply(ctx, cases[i].recipe, l, &d);
        slow_order(l, cases[i].order, perm);
        slow_target(l, cases[i].qronos, start);
        slow_walk(l, start, perm, &d, cases[i].gptaq, W);
        check_rows(W, d.W, 1e-3);
        tt__draft_free(&d);
    }
    tt__free(l);
}

/* QuIP's LDLQ is GPTQ: with H = (M + I) diag (M + I)^T, M strictly upper, column j is rounded from w_j + Σ_{k<j} (w_k - q_k) M_kj. */
TT_CASE(ldlq_is_the_same) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer *l = make_layer(2);
    static double H[N * N], M[N * N], W[R * N];
    int same[N];
    tt_draft d;
    for (int i = 0; i < N; i++) same[i] = i;
    apply(ctx, "gptq(bits=3,group=32,refine=-1,act_order=false)", l, &d);
    damped(l, 0.01, same, H);
    for (int j = N - 1; j >= 0; j--)                                /* U D U^T, from the last column to the first */
        for (int i = 0; i <= j; i++) {
            double s = H[i * N + j];
            for (int k = j + 1; k < N; k++) s -= M[i * N + k] * M[j * N + k] * M[k * N + k];
            if (i == j) M[j * N + j] = s;
            else M[i * N + j] = s;
            if (i == j)
                for (int p = 0; p < j; p++) M[p * N + j] /= s;
        }
    for (int r = 0; r < R; r++)
        for (int j = 0; j < N; j++) {
            double w = l->W[r * N + j];
            for (int k = 0; k < j; k++) w += ((double)l->W[r * N + k] - W[r * N + k]) * M[k * N + j];
            W[r * N + j] = rounded(&d, r, j, w);
        }
    check_rows(W, d.W, 1e-3);
    tt__draft_free(&d);
    tt__free(l);
}

/* ------------------------------------------------------------ what it is good for ---- */

/* Mean of ‖W Y - Ŵ X‖² over the tokens. */
static double loss_to_dense(const layer *l, const float *W) {
    double sum = 0;
    for (int t = 0; t < T; t++)
        for (int r = 0; r < R; r++) {
            double e = 0;
            for (int c = 0; c < N; c++) e += (double)l->W[r * N + c] * l->Y[t * N + c] - (double)W[r * N + c] * l->X[t * N + c];
            sum += e * e / T;
        }
    return sum;
}

static double row_loss(const layer *l, const double *target, const float *W, int r) {
    double sum = 0, mean = 0;
    for (int i = 0; i < N; i++) mean += (double)l->H[i * N + i] / N;
    for (int i = 0; i < N; i++) {
        double e = target[r * N + i] - (double)W[r * N + i];
        for (int k = 0; k < N; k++) sum += e * ((double)l->H[i * N + k] + (i == k) * 0.01 * mean) * (target[r * N + k] - (double)W[r * N + k]);
    }
    return sum;
}

static double total_loss(const layer *l, const double *target, const float *W) {
    double sum = 0;
    for (int r = 0; r < R; r++) sum += row_loss(l, target, W, r);
    return sum;
}

TT_CASE(corrections_come_closer) {
    static const char *const recipes[] = {"gptq(bits=4,refine=-1)", "gptq(bits=4,correct=gptaq,refine=-1)", "gptq(bits=4,correct=qronos,refine=-1)", "gptq(bits=4,correct=qronos,refine=2)"};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer *l = make_layer(3);
    double before = INFINITY;
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_draft d;
        apply(ctx, recipes[i], l, &d);
        double loss = loss_to_dense(l, d.W);
        tt_test_note("%s: %g, before %g", recipes[i], loss, before);
        TT_CHECK(loss < before);
        before = loss;
        tt__draft_free(&d);
    }
    tt__free(l);
}

/* The slope of the loss along each scale and minimum, the others fixed, is (nearly) nil. */
static void check_scales_are_best(const layer *l, const double *target, tt_draft *d) {
    int64_t groups = tt__draft_groups(d);
    float half = (float)(1 << (d->bits - 1));
    for (int r = 0; r < R; r++)
        for (int64_t g = 0; g < groups; g++)
            for (int min = 0; min < (d->mins ? 2 : 1); min++) {
                double loss[3];
                for (int side = -1; side < 2; side++) {
                    float old[G], s = d->scales[r * groups + g], step = 0.02f * s * (float)side;
                    for (int i = 0; i < G && g * G + i < N; i++) {
                        float *w = &d->W[r * N + g * G + i];
                        uint8_t q = d->codes[r * N + g * G + i];
                        old[i] = *w;
                        if (!d->keep || d->keep[r * N + g * G + i]) *w += step * (min ? 1 : d->mins ? (float)q : (float)q - (d->halfgrid[r * groups + g] ? half - 0.5f : half));
                    }
                    loss[side + 1] = row_loss(l, target, d->W, r);
                    for (int i = 0; i < G && g * G + i < N; i++) d->W[r * N + g * G + i] = old[i];
                }
                double curve = loss[0] + loss[2] - 2 * loss[1], slope = (loss[2] - loss[0]) / 2;
                TT_CHECK(fabs(slope) <= (d->mins ? 2 : 0.2) * curve + 1e-6 * loss[1]);   /* the best step is under 0.4 % of the scale (4 %): all are rounded to 16 bits */
            }
}

TT_CASE(refinement_never_harms_and_ends_at_the_best_scales) {
    static const char *const forms[] = {"gptq(bits=2,group=32,format=own,refine=%d)", "gptq(bits=4,group=32,sym=false,refine=%d)", "gptq(bits=3,group=32,act_order=groups,refine=%d)",
                                        "wanda+gptq(bits=3,group=32,refine=%d)", "sparsegpt(bits=4,group=32,refine=%d)"};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer *l = make_layer(4);
    static double target[R * N];
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        double before = INFINITY;
        for (int rounds = -1; rounds < 4; rounds++) {
            char recipe[96];
            tt_draft d;
            snprintf(recipe, sizeof recipe, forms[i], rounds);
            apply(ctx, recipe, l, &d);
            bool masked = strstr(recipe, "wanda");                            /* what was handed to gptq */
            for (int k = 0; k < R * N; k++) target[k] = masked && !d.keep[k] ? 0 : (double)l->W[k];
            double loss = total_loss(l, target, d.W);
            tt_test_note("%s: %g, before %g", recipe, loss, before);
            TT_CHECK(loss <= before * 1.0001);
            if (rounds >= 0) check_scales_are_best(l, target, &d);
            for (int k = 0; k < R * N; k++) {
                int64_t g = k / N * tt__draft_groups(&d) + k % N / d.group;
                double half = 1 << (d.bits - 1), off = d.mins ? 0 : d.halfgrid[g] ? half - 0.5 : half, min = d.mins ? d.mins[g] : 0;
                TT_CHECK_NEAR(d.W[k], d.keep && !d.keep[k] ? 0 : (double)d.scales[g] * (d.codes[k] - off) + min, 1e-5);
            }
            before = loss;
            tt__draft_free(&d);
        }
        TT_CHECK(before < INFINITY);
    }
    tt__free(l);
}

/* With no code to move and free scales, one round is coordinate descent by hand: column after column the best level. */
TT_CASE(codes_textbook) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    layer *l = make_layer(5);
    static double target[R * N], W[R * N], H[N * N];
    int same[N];
    tt_draft a, b;
    for (int i = 0; i < N; i++) same[i] = i;
    slow_target(l, 0, target);
    damped(l, 0.01, same, H);
    apply(ctx, "gptq(bits=3,group=32,refine=0)", l, &a);            /* scales after the walk */
    for (int i = 0; i < R * N; i++) W[i] = a.W[i];
    for (int r = 0; r < R; r++)
        for (int c = 0; c < N; c++) {
            double g = 0;
            for (int k = 0; k < N; k++) g += (target[r * N + k] - W[r * N + k]) * H[k * N + c];
            W[r * N + c] = rounded(&a, r, c, W[r * N + c] + g / H[c * N + c]);
        }
    apply(ctx, "gptq(bits=3,group=32,refine=1)", l, &b);            /* its codes are those, its scales are fitted to them */
    int off = 0;
    for (int i = 0; i < R * N; i++) {
        int64_t g = i / N * tt__draft_groups(&a) + i % N / a.group;
        double half = a.halfgrid[g] ? 3.5 : 4;
        off += fabs(W[i] - (double)a.scales[g] * (b.codes[i] - half)) > 1e-3;
    }
    tt_test_note("%d codes differ", off);
    TT_CHECK(off * 100 <= R * N);
    tt__draft_free(&a);
    tt__draft_free(&b);
    tt__free(l);
}

TT_CASE(threads_do_not_matter) {
    static const char *const recipes[] = {"gptq(bits=2,correct=qronos,refine=3)", "gptq(bits=3,correct=gptaq,act_order=groups)", "gptq(bits=4,sym=false,act_order=pivot,refine=1)",
                                          "sparsegpt(bits=3,correct=qronos)", "sparsegpt(correct=gptaq,pattern=2:4)"};
    layer *l = make_layer(6);
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_draft a, b;
        apply(tt_test_ctx(1, NULL), recipes[i], l, &a);
        apply(tt_test_ctx(3, NULL), recipes[i], l, &b);
        TT_CHECK(!memcmp(a.W, b.W, sizeof l->W) && (!a.codes || !memcmp(a.codes, b.codes, R * N)));
        tt__draft_free(&a);
        tt__draft_free(&b);
    }
    tt__free(l);
}
