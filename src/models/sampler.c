/* Drawing the next token, in llama.cpp's order: penalties, top-k, top-p, min-p, temperature, then the draw.
 *
 *   penalties  of the last `repeat_last_n` accepted tokens: z > 0 ? z / repeat : z * repeat, then z -= count * frequency + presence
 *   top-k      the k largest logits
 *   top-p      the shortest run from the top whose probabilities reach p
 *   min-p      probabilities of at least min_p times the largest
 *   temperature  z / t; 0 is greedy: the largest logit after penalties, the lower id of equals
 *
 * Sums are f64 over candidates in falling order (ties by id), so that a seed gives the same tokens everywhere the logits agree.
 */
#include "models/sampler.h"
#include "base/err.h"
#include "base/mem.h"
#include <math.h>
#include <stdlib.h>

typedef struct candidate { float z; int32_t id; } candidate;

struct tt_sampler {
    tt_sampler_options o;
    int64_t n_vocab;
    tt__rng rng;
    candidate *c;                 /* [n_vocab] */
    double *p;                    /* [n_vocab] */
    int32_t *window;              /* ring of the last accepted tokens */
    int32_t *seen;                /* [n_vocab] how often each is in the window */
    int n_window, at;
};

static tt_status check_range(const char *name, double v, double min, double max, tt_err *err) {
    TT_FAIL_IF(!(v >= min && v <= max), err, TT_USAGE, "sampling option out of range|%s|%g|%g … %g", name, v, min, max);
    return TT_OK;
}

static tt_status check(const tt_sampler_options *o, tt_err *err) {
    TT_TRY(check_range("temperature", (double)o->temperature, 0, 100, err));
    TT_TRY(check_range("top_k", o->top_k, 0, 1 << 24, err));
    TT_TRY(check_range("top_p", (double)o->top_p, 0, 1, err));
    TT_TRY(check_range("min_p", (double)o->min_p, 0, 1, err));
    TT_TRY(check_range("repeat_penalty", (double)o->repeat_penalty, 0.01, 100, err));
    TT_TRY(check_range("repeat_last_n", o->repeat_last_n, 0, 1 << 20, err));
    TT_TRY(check_range("presence_penalty", (double)o->presence_penalty, -2, 2, err));
    return check_range("frequency_penalty", (double)o->frequency_penalty, -2, 2, err);
}

static tt_status make(tt_sampler *s, tt_err *err) {
    size_t n = (size_t)s->n_vocab;
    TT_TRY(tt__new(&s->c, n, sizeof *s->c, "a sampler", err));
    TT_TRY(tt__new(&s->p, n, sizeof *s->p, "a sampler", err));
    TT_TRY(tt__new(&s->seen, n, sizeof *s->seen, "a sampler", err));
    return tt__new(&s->window, (size_t)s->o.repeat_last_n + 1, sizeof *s->window, "a sampler", err);
}

tt_status tt__sampler_create(const tt_sampler_options *o, int64_t n_vocab, tt_sampler **out, tt_err *err) {
    tt_sampler *s;
    *out = NULL;
    TT_TRY(check(o, err));
    TT_FAIL_IF(n_vocab < 1 || n_vocab > INT32_MAX, err, TT_USAGE, "no vocabulary to draw from");
    TT_TRY(tt__new(&s, 1, sizeof *s, "a sampler", err));
    s->o = *o;
    s->n_vocab = n_vocab;
    tt__rng_seed(&s->rng, o->seed);
    tt_status st = make(s, err);
    if (st != TT_OK) tt__sampler_free(s);
    else *out = s;
    return st;
}

void tt__sampler_free(tt_sampler *s) {
    if (!s) return;
    tt__free(s->c);
    tt__free(s->p);
    tt__free(s->seen);
    tt__free(s->window);
    tt__free(s);
}

void tt__sampler_accept(tt_sampler *s, int32_t id) {
    if (id < 0 || id >= s->n_vocab || s->o.repeat_last_n == 0) return;
    if (s->n_window == s->o.repeat_last_n) s->seen[s->window[s->at]]--;
    else s->n_window++;
    s->window[s->at] = id;
    s->seen[id]++;
    s->at = (s->at + 1) % s->o.repeat_last_n;
}

void tt__sampler_forget(tt_sampler *s) {
    memset(s->seen, 0, (size_t)s->n_vocab * sizeof *s->seen);
    s->n_window = s->at = 0;
}

static float penalise(const tt_sampler *s, float z, int32_t id) {
    int32_t count = s->seen[id];
    if (!count) return z;
    z = z > 0 ? z / s->o.repeat_penalty : z * s->o.repeat_penalty;
    return z - (float)count * s->o.frequency_penalty - s->o.presence_penalty;
}

static tt_status collect(tt_sampler *s, const float *logits, tt_err *err) {
    for (int32_t i = 0; i < s->n_vocab; i++) {
        TT_FAIL_IF(!isfinite(logits[i]), err, TT_FAIL, "non-finite logits|token %d", (int)i);
        s->c[i] = (candidate){penalise(s, logits[i], i), i};
    }
    return TT_OK;
}

static bool before(candidate a, candidate b) { return a.z > b.z || (a.z == b.z && a.id < b.id); }

static int by_rank(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return before(*x, *y) ? -1 : before(*y, *x);
}

/* Keeps a heap of the k best, the worst of them on top, then sorts it. */
static void sift(candidate *heap, int64_t n, int64_t i) {
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child], heap[child + 1])) child++;
        if (!before(heap[i], heap[child])) return;
        candidate t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
    }
}

static int64_t keep_top_k(tt_sampler *s) {
    int64_t k = s->o.top_k > 0 && s->o.top_k < s->n_vocab ? s->o.top_k : s->n_vocab;
    if (k < s->n_vocab) {
        for (int64_t i = k / 2 - 1; i >= 0; i--) sift(s->c, k, i);
        for (int64_t i = k; i < s->n_vocab; i++)
            if (before(s->c[i], s->c[0])) {
                s->c[0] = s->c[i];
                sift(s->c, k, 0);
            }
    }
    qsort(s->c, (size_t)k, sizeof *s->c, by_rank);
    return k;
}

static double softmax(tt_sampler *s, int64_t n, double temperature) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += s->p[i] = exp(((double)s->c[i].z - (double)s->c[0].z) / temperature);
    return sum;
}

static int64_t keep_top_p(tt_sampler *s, int64_t n) {
    if (s->o.top_p >= 1) return n;
    double want = (double)s->o.top_p * softmax(s, n, 1), sum = 0;
    for (int64_t i = 0; i < n; i++)
        if ((sum += s->p[i]) >= want) return i + 1;
    return n;
}

static int64_t keep_min_p(const tt_sampler *s, int64_t n) {
    if (s->o.min_p <= 0) return n;
    float floor = s->c[0].z + logf(s->o.min_p);
    int64_t i = 1;
    while (i < n && s->c[i].z >= floor) i++;
    return i;
}

static int32_t greedy(const tt_sampler *s) {
    candidate best = s->c[0];
    for (int64_t i = 1; i < s->n_vocab; i++) if (before(s->c[i], best)) best = s->c[i];
    return best.id;
}

tt_status tt__sampler_draw(tt_sampler *s, const float *logits, int32_t *id, tt_err *err) {
    TT_TRY(collect(s, logits, err));
    if (s->o.temperature == 0) {
        *id = greedy(s);
        return TT_OK;
    }
    int64_t n = keep_min_p(s, keep_top_p(s, keep_top_k(s)));
    double u = tt__rng_unit(&s->rng) * softmax(s, n, (double)s->o.temperature), sum = 0;
    *id = s->c[n - 1].id;
    for (int64_t i = 0; i < n; i++)
        if ((sum += s->p[i]) > u) {
            *id = s->c[i].id;
            break;
        }
    return TT_OK;
}
