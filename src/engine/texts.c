/* Lists of texts and their mixture: see texts.h. */
#include "engine/texts.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/util.h"

#include <math.h>
#include <stdio.h>

static const double MOST_WEIGHT = 1000;

/* ------------------------------------------------------------ the list ---- */

/* "own.txt:2": a weight stands behind the last colon, unless a file has that name. */
static tt_status take_source(const char *s, size_t n, const char *what, tt_source *out, tt_err *err) {
    char *path = tt__strndup(s, n), *colon;
    TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|a path");
    *out = (tt_source){.path = path, .weight = 1};
    TT_FAIL_IF(n == 0, err, TT_USAGE, "a text has no name|%s|||FILE, or FILE:WEIGHT", what);
    double w;
    if (!tt__exists(path) && (colon = strrchr(path, ':')) && tt__parse_f64(colon + 1, &w)) {
        TT_FAIL_IF(!(w > 0 && w <= MOST_WEIGHT), err, TT_USAGE, "bad weight of a text|%s|%s|above 0, at most %g", what, colon + 1, MOST_WEIGHT);
        *colon = 0;
        out->weight = w;
    }
    out->self = !strcmp(path, "self");
    return TT_OK;
}

tt_status tt__sources_parse(const char *spec, const char *what, tt_sources *out, tt_err *err) {
    *out = (tt_sources){0};
    bool whole = tt__exists(spec);
    tt_status st = TT_OK;
    for (const char *p = spec; st == TT_OK; p++) {
        size_t n = whole ? strlen(p) : strcspn(p, ",");
        if (out->n == TT_MAX_SOURCES) st = tt__fail(err, TT_USAGE, "too many texts|%s||at most %d", what, TT_MAX_SOURCES);
        else st = take_source(p, n, what, &out->item[out->n++], err);
        if (!*(p += n)) break;
    }
    for (int i = 0; i < out->n && st == TT_OK; i++)
        if (out->item[i].self && tt__sources_self(out) != i) st = tt__fail(err, TT_USAGE, "text from the model itself is named twice|%s|%s", what, spec);
    if (st != TT_OK) tt__sources_free(out);
    return st;
}

void tt__sources_free(tt_sources *s) {
    for (int i = 0; i < s->n; i++) tt__free(s->item[i].path);
    *s = (tt_sources){0};
}

int tt__sources_self(const tt_sources *s) {
    for (int i = 0; i < s->n; i++)
        if (s->item[i].self) return i;
    return -1;
}

/* ------------------------------------------------------------ the mixture ---- */

static tt_status add_docs(const tt_tokens *from, size_t docs, tt_tokens *to, tt_err *err) {
    size_t n = from->start[docs], more = to->n + n, starts = to->n_docs + docs + 1;
    int32_t *ids = tt__realloc(to->ids, (more ? more : 1) * sizeof *ids);
    if (ids) to->ids = ids;
    size_t *start = ids ? tt__realloc(to->start, starts * sizeof *start) : NULL;
    TT_FAIL_IF(!start, err, TT_RESOURCE, "out of memory|mixed text|%zu tokens", more);
    to->start = start;
    if (!to->n_docs) start[0] = 0;
    if (n) memcpy(to->ids + to->n, from->ids, n * sizeof *ids);
    for (size_t i = 1; i <= docs; i++) start[to->n_docs + i] = to->n + from->start[i];
    to->n_docs += docs;
    to->n = more;
    return TT_OK;
}

/* The documents whose tokens come nearest to `want`, from the front. */
static size_t docs_for(const tt_tokens *t, double want) {
    size_t docs = 0;
    while (docs < t->n_docs && fabs((double)t->start[docs + 1] - want) < fabs((double)t->start[docs] - want)) docs++;
    return docs;
}

static tt_status add_share(const tt_tokens *t, double want, tt_tokens *to, tt_err *err) {
    for (double left = want; left > 0.5; left -= (double)t->n) {
        size_t docs = left >= (double)t->n ? t->n_docs : docs_for(t, left);
        TT_TRY(add_docs(t, docs || left < want ? docs : 1, to, err));
    }
    return TT_OK;
}

tt_status tt__tokens_mix(const tt_tokens *texts, const double *weights, int n, tt_tokens *out, tt_err *err) {
    double unit = 0, total = 0;               /* tokens per weight: of the text that has most of them */
    *out = (tt_tokens){0};
    for (int i = 0; i < n; i++) {
        TT_FAIL_IF(texts[i].n == 0, err, TT_USAGE, "a text has no tokens|text %d", i + 1);
        if ((double)texts[i].n / weights[i] > unit) unit = (double)texts[i].n / weights[i];
        total += weights[i];
    }
    if (n > 1 && unit * total > (double)TT_LIMIT_MIX_TOKENS) unit = (double)TT_LIMIT_MIX_TOKENS / total;
    tt_status st = TT_OK;
    for (int i = 0; i < n && st == TT_OK; i++) st = n == 1 ? add_docs(&texts[i], texts[i].n_docs, out, err) : add_share(&texts[i], unit * weights[i], out, err);
    if (st != TT_OK) tt__tokens_free(out);
    return st;
}

void tt__mix_sha256(const char *const *sha256, const double *weights, int n, char out[65]) {
    if (n == 1) {
        snprintf(out, 65, "%s", sha256[0]);
        return;
    }
    tt__sha256 s;
    char line[120];
    tt__sha256_init(&s);
    for (int i = 0; i < n; i++) tt__sha256_update(&s, line, (size_t)snprintf(line, sizeof line, "%s %.9g\n", sha256[i], weights[i]));
    tt__sha256_final_hex(&s, out);
}
