/* Watching texts that a training does not learn from: see guard.h. */
#include "train/guard.h"
#include "base/ctx.h"
#include "base/err.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>

enum { MAX_POINTS = 1 << 20 };

typedef struct point { double step, valid, harm; } point;

/* As it is stored; 8-byte members only. */
typedef struct course {
    uint64_t bytes;                           /* of the whole state */
    int64_t n_texts, n_points, kept_step, harmless;
    double kept_valid, kept_harm;
    double bare[TT_MAX_GUARDS], kept[TT_MAX_GUARDS];
} course;

typedef struct watched { char name[64]; int32_t *ids; int64_t windows; } watched;   /* ids [windows, length] */

struct tt_guard {
    tt_ctx *ctx;
    tt_guard_options o;
    watched text[TT_MAX_GUARDS];
    course c;
    point *points;                            /* [room], of which c.n_points count */
    int64_t room;
};

/* ------------------------------------------------------------ making one ---- */

static void take_name(char to[64], const char *from) {
    const char *slash = strrchr(from, '/');
    if (slash && slash[1]) from = slash + 1;
    snprintf(to, 64, "%s", from);
}

/* The windows are drawn once, by seed, and never change. */
static tt_status take_text(tt_guard *g, int i, const tt_guard_text *t, tt_err *err) {
    watched *w = &g->text[i];
    tt_tokens joined = {0};
    tt_window *windows = NULL;
    size_t n = 0;
    take_name(w->name, t->name);
    tt_status st = tt__windows_packed(t->tokens, g->o.length, g->o.separator, g->o.seed, &joined, &windows, &n, err);
    if (st == TT_OK && n == 0)
        st = tt__fail(err, TT_USAGE, "guard text is too short|%s|%zu tokens|at least one window of %lld", t->name, t->tokens->n, (long long)g->o.length);
    if (st == TT_OK) {
        w->windows = (int64_t)n < g->o.windows ? (int64_t)n : g->o.windows;
        st = tt__new(&w->ids, (size_t)(w->windows * g->o.length), sizeof *w->ids, "a guard text", err);
    }
    for (int64_t k = 0; st == TT_OK && k < w->windows; k++) memcpy(w->ids + k * g->o.length, joined.ids + windows[k].begin, (size_t)g->o.length * sizeof *w->ids);
    tt__tokens_free(&joined);
    tt__free(windows);
    return st;
}

tt_status tt__guard_create(tt_ctx *ctx, const tt_guard_options *o, tt_guard **out, tt_err *err) {
    tt_guard *g = NULL;
    *out = NULL;
    TT_FAIL_IF(o->n_texts < 1 || o->n_texts > TT_MAX_GUARDS, err, TT_USAGE, "bad number of guard texts|guard|%d|1 to %d", o->n_texts, TT_MAX_GUARDS);
    TT_TRY(tt__new(&g, 1, sizeof *g, "a guard", err));
    *g = (tt_guard){.ctx = ctx, .o = *o, .c = {.n_texts = o->n_texts}};
    tt_status st = TT_OK;
    for (int i = 0; i < o->n_texts && st == TT_OK; i++) st = take_text(g, i, &o->texts[i], err);
    g->o.texts = NULL;
    if (st != TT_OK) tt__guard_free(g);
    else *out = g;
    return st;
}

void tt__guard_free(tt_guard *g) {
    if (!g) return;
    for (int i = 0; i < TT_MAX_GUARDS; i++) tt__free(g->text[i].ids);
    tt__free(g->points);
    tt__free(g);
}

/* ------------------------------------------------------------ measuring ---- */

static tt_status measure(const tt_guard *g, int i, bool bare, double *mean, tt_err *err) {
    const watched *w = &g->text[i];
    double sum = 0;
    for (int64_t at = 0; at < w->windows; at += g->o.batch) {
        int64_t S = w->windows - at < g->o.batch ? w->windows - at : g->o.batch;
        double loss = 0;
        TT_TRY(tt__check_cancel(g->ctx, err));
        TT_TRY(g->o.loss(g->o.user, w->ids + at * g->o.length, S, bare, &loss, err));
        sum += (double)S * loss;
    }
    *mean = sum / (double)w->windows;
    return TT_OK;
}

tt_status tt__guard_begin(tt_guard *g, tt_err *err) {
    for (int i = 0; i < g->c.n_texts; i++) {
        TT_TRY(measure(g, i, true, &g->c.bare[i], err));
        TT_FAIL_IF(!isfinite(g->c.bare[i]), err, TT_FAIL, "loss on a guard text is not a finite number|%s|%g||the model's weights may be damaged", g->text[i].name, g->c.bare[i]);
    }
    return TT_OK;
}

static tt_status add_point(tt_guard *g, point p, tt_err *err) {
    if (g->c.n_points == g->room) {
        int64_t room = g->room ? 2 * g->room : 16;
        point *more = tt__realloc(g->points, (size_t)room * sizeof *more);
        TT_FAIL_IF(!more, err, TT_RESOURCE, "out of memory|the guard's course");
        g->points = more;
        g->room = room;
    }
    g->points[g->c.n_points++] = p;
    return TT_OK;
}

tt_status tt__guard_point(tt_guard *g, int64_t step, double valid, bool *keep, tt_err *err) {
    double now[TT_MAX_GUARDS] = {0}, harm = -INFINITY;
    course *c = &g->c;
    for (int i = 0; i < c->n_texts; i++) {
        TT_TRY(measure(g, i, false, &now[i], err));
        if (!isfinite(now[i])) now[i] = 1e300;    /* JSON has no other number for it */
        if (now[i] - c->bare[i] > harm) harm = now[i] - c->bare[i];
    }
    bool harmless = harm <= 0, first = c->n_points == 0;
    TT_TRY(add_point(g, (point){(double)step, valid, harm}, err));
    *keep = first || (harmless && !c->harmless) || (harmless == (c->harmless != 0) && valid < c->kept_valid);
    if (!*keep) return TT_OK;
    c->harmless = harmless;
    c->kept_step = step;
    c->kept_valid = valid;
    c->kept_harm = harm;
    memcpy(c->kept, now, sizeof now);
    return TT_OK;
}

/* ------------------------------------------------------------ what it found ---- */

/* No other point is at least as good in both and better in one; of equal ones the first. */
static bool on_front(const tt_guard *g, int64_t i) {
    const point *p = &g->points[i];
    for (int64_t k = 0; k < g->c.n_points; k++) {
        const point *q = &g->points[k];
        if (k != i && q->valid <= p->valid && q->harm <= p->harm && (q->valid < p->valid || q->harm < p->harm || k < i)) return false;
    }
    return true;
}

void tt__guard_report(const tt_guard *g, tt_guard_report *out) {
    *out = (tt_guard_report){.n_texts = (int)g->c.n_texts, .harmless = g->c.harmless != 0};
    for (int i = 0; i < out->n_texts; i++) {
        snprintf(out->text[i].name, sizeof out->text[i].name, "%s", g->text[i].name);
        out->text[i].tokens = g->text[i].windows * (g->o.length - 1);
        out->text[i].bare = g->c.bare[i];
        out->text[i].kept = g->c.kept[i];
    }
    for (int64_t i = 0; i < g->c.n_points && !out->harmless && out->n_trade < TT_MAX_TRADE; i++)
        if (on_front(g, i)) out->trade[out->n_trade++] = (tt_guard_trade){(int64_t)g->points[i].step, g->points[i].valid, g->points[i].harm};
}

json_t *tt__guard_json(const tt_guard *g) {
    tt_guard_report r;
    tt__guard_report(g, &r);
    json_t *texts = json_array(), *trade = json_array();
    for (int i = 0; i < r.n_texts; i++)
        json_array_append_new(texts, json_pack("{s:s, s:I, s:f, s:f}", "name", r.text[i].name, "tokens", (json_int_t)r.text[i].tokens, "bare", r.text[i].bare, "kept",
                                               r.text[i].kept));
    for (int i = 0; i < r.n_trade; i++)
        json_array_append_new(trade, json_pack("{s:I, s:f, s:f}", "step", (json_int_t)r.trade[i].step, "valid", r.trade[i].valid, "harm", r.trade[i].harm));
    return json_pack("{s:b, s:o, s:o}", "harmless", r.harmless, "texts", texts, "trade", trade);
}

/* ------------------------------------------------------------ state ---- */

void tt__guard_hash(const tt_guard *g, tt__sha256 *s) {
    for (int i = 0; i < g->c.n_texts; i++) {
        const watched *w = &g->text[i];
        tt__sha256_update(s, w->name, strlen(w->name) + 1);
        tt__sha256_update(s, &w->windows, sizeof w->windows);
        tt__sha256_update(s, w->ids, (size_t)(w->windows * g->o.length) * sizeof *w->ids);
    }
}

size_t tt__guard_bytes(const tt_guard *g) { return sizeof g->c + (size_t)g->c.n_points * sizeof(point); }

size_t tt__guard_size(const void *head) {
    uint64_t bytes = tt__rd64(head);
    return bytes < sizeof(course) || bytes > sizeof(course) + MAX_POINTS * sizeof(point) ? 0 : (size_t)bytes;
}

void tt__guard_store(const tt_guard *g, void *to) {
    course c = g->c;
    c.bytes = tt__guard_bytes(g);
    memcpy(to, &c, sizeof c);
    if (c.n_points) memcpy((uint8_t *)to + sizeof c, g->points, (size_t)c.n_points * sizeof *g->points);
}

bool tt__guard_take(tt_guard *g, const void *from, size_t bytes, tt_err *err) {
    course c;
    if (bytes < sizeof c) return false;
    memcpy(&c, from, sizeof c);
    if (c.n_texts != g->c.n_texts || c.n_points < 0 || c.n_points > MAX_POINTS || bytes != sizeof c + (size_t)c.n_points * sizeof(point)) return false;
    point *points = NULL;
    if (c.n_points && tt__new(&points, (size_t)c.n_points, sizeof *points, "the guard's course", err) != TT_OK) return false;
    if (c.n_points) memcpy(points, (const uint8_t *)from + sizeof c, (size_t)c.n_points * sizeof *points);
    tt__free(g->points);
    g->points = points;
    g->room = c.n_points;
    g->c = c;
    return true;
}
