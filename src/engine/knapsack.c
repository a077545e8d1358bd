/* The multiple-choice knapsack by dynamic programming over lists of undominated states, with bounds.
 *
 *     state        (bytes, loss) of a choice for the groups so far; kept when no other has fewer bytes and less loss
 *     bound        of the groups to come with c bytes left: their linear relaxation. Each group's lower convex hull is a chain of steps, from the
 *                  smallest option up; all steps by falling gain per byte, as many as fit, the last one in part
 *     incumbent    the same chain of steps, but whole ones only: a solution. A state whose loss and bound exceed it is dropped
 *
 * The gap between bound and incumbent is a part of one step, so of two hundred groups with ten options few states survive; sizes need not be
 * multiples of anything. Ties go to fewer bytes, then to the earlier option, so the result depends on nothing but the input.
 */
#include "engine/knapsack.h"

#include "base/mem.h"
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct chain { uint64_t bytes; double gain; size_t group, to; } chain;      /* one step up of a group's hull: to option `to` */
typedef struct state { uint64_t bytes; double loss; uint32_t parent, option; } state;

typedef struct sack {
    const tt_option *o;
    const size_t *first;
    size_t n;
    uint64_t limit;
    size_t *least;                    /* [n] the smallest option (of those the one with the least loss) */
    uint64_t *rest_bytes;             /* [n + 1] sum of the smallest options from group g on */
    double *rest_loss;                /* [n + 1] sum of their losses */
    chain *steps;                     /* of all groups, by falling gain per byte */
    size_t n_steps;
    uint64_t *sum_bytes;              /* [n_steps + 1] of the steps of the groups to come, in that order, with … */
    double *sum_gain;
    size_t n_sums;
    double incumbent;
    state **level;                    /* [n + 1] */
    size_t *count;
} sack;

static const tt_option *option(const sack *s, size_t g, size_t i) { return &s->o[s->first[g] + i]; }
static size_t n_options(const sack *s, size_t g) { return s->first[g + 1] - s->first[g]; }

static void find_least(sack *s) {
    for (size_t g = s->n; g-- > 0;) {
        size_t best = 0;
        for (size_t i = 1; i < n_options(s, g); i++) {
            const tt_option *a = option(s, g, i), *b = option(s, g, best);
            if (a->bytes < b->bytes || (a->bytes == b->bytes && a->loss < b->loss)) best = i;
        }
        s->least[g] = best;
        s->rest_bytes[g] = s->rest_bytes[g + 1] + option(s, g, best)->bytes;
        s->rest_loss[g] = s->rest_loss[g + 1] + option(s, g, best)->loss;
    }
}

/* ------------------------------------------------------------ hulls and their steps ---- */

/* From the smallest option always to the one that gains most per byte: gains per byte fall along the way. */
static void add_hull(sack *s, size_t g) {
    for (size_t at = s->least[g];;) {
        size_t next = SIZE_MAX;
        double best = 0;
        for (size_t i = 0; i < n_options(s, g); i++) {
            const tt_option *a = option(s, g, at), *b = option(s, g, i);
            if (b->bytes <= a->bytes || b->loss >= a->loss) continue;
            double rate = (a->loss - b->loss) / (double)(b->bytes - a->bytes);
            if (rate > best || (rate == best && b->bytes > option(s, g, next)->bytes)) best = rate, next = i;
        }
        if (next == SIZE_MAX) return;
        s->steps[s->n_steps++] = (chain){option(s, g, next)->bytes - option(s, g, at)->bytes, option(s, g, at)->loss - option(s, g, next)->loss, g, next};
        at = next;
    }
}

/* Within a group the order of the hull stays: its gains per byte fall, and equal ones do not occur. */
static int by_rate(const void *a, const void *b) {
    const chain *x = a, *y = b;
    double p = x->gain / (double)x->bytes, q = y->gain / (double)y->bytes;
    return p > q ? -1 : p < q ? 1 : x->group < y->group ? -1 : x->group > y->group ? 1 : x->bytes < y->bytes ? -1 : 1;
}

static void sums_from(sack *s, size_t g) {
    s->n_sums = 0;
    s->sum_bytes[0] = 0;
    s->sum_gain[0] = 0;
    for (size_t i = 0; i < s->n_steps; i++) {
        if (s->steps[i].group < g) continue;
        s->sum_bytes[s->n_sums + 1] = s->sum_bytes[s->n_sums] + s->steps[i].bytes;
        s->sum_gain[s->n_sums + 1] = s->sum_gain[s->n_sums] + s->steps[i].gain;
        s->n_sums++;
    }
}

/* The most that the groups of sums_from can gain with `room` bytes beyond their smallest options. */
static double most_gain(const sack *s, uint64_t room) {
    size_t lo = 0, hi = s->n_sums;
    while (lo < hi) {                                 /* the last sum that fits */
        size_t mid = (lo + hi + 1) / 2;
        if (s->sum_bytes[mid] <= room) lo = mid;
        else hi = mid - 1;
    }
    if (lo == s->n_sums) return s->sum_gain[lo];
    return s->sum_gain[lo] + (s->sum_gain[lo + 1] - s->sum_gain[lo]) * (double)(room - s->sum_bytes[lo]) / (double)(s->sum_bytes[lo + 1] - s->sum_bytes[lo]);
}

/* Whole steps in order; a group that could not take a step takes no later one. */
static void greedy(sack *s, uint8_t *stopped) {
    uint64_t bytes = s->rest_bytes[0];
    s->incumbent = s->rest_loss[0];
    for (size_t i = 0; i < s->n_steps; i++) {
        const chain *c = &s->steps[i];
        if (stopped[c->group] || c->bytes > s->limit - bytes) stopped[c->group] = 1;
        else bytes += c->bytes, s->incumbent -= c->gain;
    }
}

/* ------------------------------------------------------------ states ---- */

static int by_bytes(const void *a, const void *b) {
    const state *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    if (x->loss != y->loss) return x->loss < y->loss ? -1 : 1;
    if (x->parent != y->parent) return x->parent < y->parent ? -1 : 1;
    return x->option < y->option ? -1 : x->option > y->option;
}

static size_t undominated(state *a, size_t n) {
    size_t kept = 0;
    qsort(a, n, sizeof *a, by_bytes);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || a[i].loss < a[kept - 1].loss) a[kept++] = a[i];
    return kept;
}

/* Rounding of sums must not drop the incumbent itself. */
static bool hopeless(const sack *s, double loss) { return loss > s->incumbent + 1e-12 * (fabs(s->rest_loss[0]) + fabs(s->incumbent)); }

static tt_status extend(sack *s, size_t g, tt_err *err) {
    const size_t from = s->count[g], options = n_options(s, g);
    size_t n = 0;
    state *next = NULL;
    TT_FAIL_IF(from > UINT32_MAX / options, err, TT_RESOURCE, "too many mixtures to choose from|group %zu|%zu", g, from);
    TT_TRY(tt__new(&next, from * options, sizeof *next, "a choice of types", err));
    sums_from(s, g + 1);
    for (size_t i = 0; i < from; i++)
        for (size_t k = 0; k < options; k++) {
            const state *a = &s->level[g][i];
            const tt_option *o = option(s, g, k);
            const uint64_t least = a->bytes + s->rest_bytes[g + 1];
            if (least > s->limit || o->bytes > s->limit - least) continue;
            const double loss = a->loss + o->loss;
            if (hopeless(s, loss + s->rest_loss[g + 1] - most_gain(s, s->limit - least - o->bytes))) continue;
            next[n++] = (state){a->bytes + o->bytes, loss, (uint32_t)i, (uint32_t)k};
        }
    s->count[g + 1] = undominated(next, n);
    s->level[g + 1] = next;
    return TT_OK;
}

static void walk_back(const sack *s, size_t *choice) {
    size_t at = s->count[s->n] - 1;                   /* least loss: the last one */
    for (size_t g = s->n; g-- > 0;) {
        const state *a = &s->level[g + 1][at];
        choice[g] = a->option;
        at = a->parent;
    }
}

static tt_status solve(sack *s, size_t *choice, tt_err *err) {
    uint8_t *stopped = NULL;
    const size_t all = s->first[s->n];
    TT_TRY(tt__new(&s->least, s->n + 1, sizeof *s->least, "a choice of types", err));
    TT_TRY(tt__new(&s->rest_bytes, s->n + 1, sizeof *s->rest_bytes, "a choice of types", err));
    TT_TRY(tt__new(&s->rest_loss, s->n + 1, sizeof *s->rest_loss, "a choice of types", err));
    TT_TRY(tt__new(&s->steps, all + 1, sizeof *s->steps, "a choice of types", err));
    TT_TRY(tt__new(&s->sum_bytes, all + 1, sizeof *s->sum_bytes, "a choice of types", err));
    TT_TRY(tt__new(&s->sum_gain, all + 1, sizeof *s->sum_gain, "a choice of types", err));
    TT_TRY(tt__new(&s->level, s->n + 1, sizeof *s->level, "a choice of types", err));
    TT_TRY(tt__new(&s->count, s->n + 1, sizeof *s->count, "a choice of types", err));
    find_least(s);
    memcpy(choice, s->least, s->n * sizeof *choice);
    TT_FAIL_IF(s->rest_bytes[0] > s->limit, err, TT_TARGET, "target cannot be met||at least %llu bytes|%llu", (unsigned long long)s->rest_bytes[0], (unsigned long long)s->limit);
    for (size_t g = 0; g < s->n; g++) add_hull(s, g);
    qsort(s->steps, s->n_steps, sizeof *s->steps, by_rate);
    TT_TRY(tt__new(&stopped, s->n + 1, 1, "a choice of types", err));
    greedy(s, stopped);
    tt__free(stopped);
    TT_TRY(tt__new(&s->level[0], 1, sizeof **s->level, "a choice of types", err));
    s->count[0] = 1;
    for (size_t g = 0; g < s->n; g++) TT_TRY(extend(s, g, err));
    walk_back(s, choice);
    return TT_OK;
}

tt_status tt__knapsack(const tt_option *options, const size_t *first, size_t n, uint64_t limit, size_t *choice, tt_err *err) {
    sack s = {.o = options, .first = first, .n = n, .limit = limit};
    if (n == 0) return TT_OK;
    tt_status st = solve(&s, choice, err);
    for (size_t g = 0; s.level && g <= n; g++) tt__free(s.level[g]);
    tt__free(s.level);
    tt__free(s.count);
    tt__free(s.least);
    tt__free(s.rest_bytes);
    tt__free(s.rest_loss);
    tt__free(s.steps);
    tt__free(s.sum_bytes);
    tt__free(s.sum_gain);
    return st;
}
