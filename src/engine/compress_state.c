/* See compress_state.h. A state file is ours, yet read with the suspicion due to bytes that were on a disk: what does not fit is treated as
 * no state at all. */
#include "engine/compress_state.h"

#include "base/file.h"
#include "base/limits.h"
#include "models/store.h"
#include "train/rawfile.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>

static const char *const stage_names[TT_C_STAGES] = {"sample", "collect", "compress", "train", "advance", "done"};

/* ------------------------------------------------------------ position and outcomes ---- */

static json_t *real_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }
static double real_of(const json_t *v) { return json_is_number(v) ? json_number_value(v) : NAN; }

static json_t *outcomes_json(const tt_outcome *o, size_t n) {
    json_t *all = json_array();
    for (size_t i = 0; all && i < n; i++) {
        if (!o[i].done) continue;
        json_t *row = json_array();
        json_array_append_new(row, json_integer((json_int_t)i));
        json_array_append_new(row, json_string(o[i].type));
        json_array_append_new(row, json_integer((json_int_t)o[i].bytes));
        json_array_append_new(row, real_or_null(o[i].error));
        json_array_append_new(row, real_or_null(o[i].weight_error));
        json_array_append_new(row, real_or_null(o[i].sparsity));
        json_array_append_new(row, real_or_null(o[i].seconds));
        json_array_append_new(row, json_boolean(o[i].kept));
        json_array_append_new(all, row);
    }
    return all;
}

static bool outcome_of(const json_t *row, tt_outcome *o, size_t n) {
    const json_t *i = json_array_get(row, 0), *type = json_array_get(row, 1), *bytes = json_array_get(row, 2);
    if (!json_is_integer(i) || !json_is_string(type) || !json_is_integer(bytes)) return false;
    json_int_t at = json_integer_value(i);
    if (at < 0 || (uint64_t)at >= n || strlen(json_string_value(type)) >= sizeof o->type) return false;
    o += at;
    o->done = true;
    snprintf(o->type, sizeof o->type, "%s", json_string_value(type));
    o->bytes = (uint64_t)json_integer_value(bytes);
    o->error = real_of(json_array_get(row, 3));
    o->weight_error = real_of(json_array_get(row, 4));
    o->sparsity = real_of(json_array_get(row, 5));
    o->seconds = real_of(json_array_get(row, 6));
    o->kept = json_is_true(json_array_get(row, 7));
    return true;
}

tt_status tt__cstate_save(const char *dir, const char *fingerprint, const tt_position *at, const tt_outcome *outcome, size_t n, tt_err *err) {
    json_t *doc = json_object();
    json_object_set_new(doc, "schema", json_integer(1));
    json_object_set_new(doc, "fingerprint", json_string(fingerprint));
    json_object_set_new(doc, "stage", json_string(stage_names[at->stage]));
    json_object_set_new(doc, "layer", json_integer(at->layer));
    json_object_set_new(doc, "pass", json_integer(at->pass));
    json_object_set_new(doc, "index", json_integer((json_int_t)at->index));
    json_object_set_new(doc, "outcomes", outcomes_json(outcome, n));
    tt__str text = {0};
    tt__json_write(&text, doc, JSON_COMPACT | JSON_REAL_PRECISION(17));
    tt_status st = text.failed || !text.s ? tt__fail(err, TT_RESOURCE, "out of memory|the state file") : tt__raw_write(dir, "state.json", text.s, text.n, err);
    tt__str_free(&text);
    json_decref(doc);
    return st;
}

static bool read_position(const json_t *doc, tt_position *at, tt_outcome *outcome, size_t n) {
    const char *stage = json_string_value(json_object_get(doc, "stage"));
    const json_t *layer = json_object_get(doc, "layer"), *pass = json_object_get(doc, "pass"), *index = json_object_get(doc, "index");
    const json_t *rows = json_object_get(doc, "outcomes"), *row;
    size_t i;
    at->stage = TT_C_STAGES;
    for (int s = 0; stage && s < TT_C_STAGES; s++)
        if (!strcmp(stage, stage_names[s])) at->stage = (tt_cstage)s;
    if (at->stage == TT_C_STAGES || !json_is_integer(layer) || !json_is_integer(pass) || !json_is_integer(index)) return false;
    at->layer = (int)json_integer_value(layer);
    at->pass = (int)json_integer_value(pass);
    at->index = json_integer_value(index);
    json_array_foreach(rows, i, row) if (!outcome_of(row, outcome, n)) return false;
    return at->layer >= 0 && at->pass >= 0 && at->index >= 0;
}

tt_status tt__cstate_load(const char *dir, const char *fingerprint, tt_position *at, tt_outcome *outcome, size_t n, bool *found, bool *foreign, tt_err *err) {
    char *path, *text = NULL;
    size_t bytes;
    json_t *doc = NULL;
    tt_err ignored = {0};
    *found = *foreign = false;
    TT_TRY(tt__raw_path(dir, "state.json", &path, err));
    if (tt__exists(path)) {
        *foreign = true;
        if (tt__read_file(path, TT_LIMIT_JSON_BYTES, &text, &bytes, &ignored) == TT_OK && tt__json_parse(text, bytes, path, &doc, &ignored) == TT_OK) {
            const char *print = json_string_value(json_object_get(doc, "fingerprint"));
            *found = print && !strcmp(print, fingerprint) && read_position(doc, at, outcome, n);
            *foreign = !*found;
        }
    }
    if (!*found) memset(outcome, 0, n * sizeof *outcome);
    json_decref(doc);
    tt__free(text);
    tt__free(path);
    return TT_OK;
}

/* ------------------------------------------------------------ operators ---- */

static tt_status ops_path(const char *dir, int unit, char **path, tt_err *err) {
    char name[32];
    snprintf(name, sizeof name, "ops.%d", unit);
    return tt__raw_path(dir, name, path, err);
}

tt_status tt__cstate_save_ops(const char *dir, int unit, const tt_net *net, tt_linop *const *ops, tt_err *err) {
    char *path = NULL;
    tt_gguf_writer *w = NULL;
    tt_status st;
    TT_TRY_GOTO(tt__gguf_writer_create(&w, err));
    for (size_t i = 0; i < net->n_weights; i++)
        if (tt__in_unit(net, i, unit) && ops[i]) TT_TRY_GOTO(tt__store_add_op(w, net->weights[i].name, ops[i], err));
    TT_TRY_GOTO(ops_path(dir, unit, &path, err));
    TT_TRY_GOTO(tt__gguf_writer_save(w, path, err));
done:
    tt__gguf_writer_free(w);
    tt__free(path);
    return st;
}

tt_status tt__cstate_load_ops(const char *dir, int unit, const tt_net *net, tt_linop **ops, const tt_outcome *outcome, tt_gguf **file, tt_err *err) {
    char *path;
    *file = NULL;
    TT_TRY(ops_path(dir, unit, &path, err));
    tt_status st = tt__gguf_open(path, file, err);
    tt__free(path);
    for (size_t i = 0; st == TT_OK && i < net->n_weights; i++) {
        if (!tt__in_unit(net, i, unit) || ops[i] || !outcome[i].done || outcome[i].kept) continue;
        st = tt__store_load_op(net->ctx, *file, net->weights[i].name, net->weights[i].rows, net->weights[i].cols, &ops[i], err);
        if (st == TT_OK && !ops[i]) st = tt__fail(err, TT_BADFILE, "state lacks an operator|%s|%s", dir, net->weights[i].name);
    }
    return st;
}

/* ------------------------------------------------------------ drafts ---- */

/* "TTDRAFT1" | bits, group, keep?, mins?, halfgrid? | latent | keep | scales | mins | halfgrid, those that there are. */
typedef struct draft_head { char magic[8]; int32_t bits, group, keep, mins, halfgrid, none; } draft_head;
typedef struct part { void *data; size_t bytes; } part;

static int draft_parts(const tt_draft *d, part out[5]) {
    size_t n = (size_t)(d->rows * d->cols), groups = (size_t)(d->rows * tt__draft_groups(d));
    const part all[5] = {{d->latent, 4 * n}, {d->keep, n}, {d->scales, 4 * groups}, {d->mins, 4 * groups}, {d->halfgrid, groups}};
    int parts = 0;
    for (int i = 0; i < 5; i++)
        if (all[i].data) out[parts++] = all[i];
    return parts;
}

tt_status tt__cstate_save_draft(const char *dir, const char *name, const tt_draft *d, tt_err *err) {
    draft_head head = {"TTDRAFT1", d->bits, d->group, d->keep != NULL, d->mins != NULL, d->halfgrid != NULL, 0};
    part parts[5];
    int n = draft_parts(d, parts);
    char *path;
    tt__writer *w = NULL;
    TT_TRY(tt__raw_path(dir, name, &path, err));
    tt_status st = tt__writer_open(path, 0, &w, err);
    tt__free(path);
    TT_TRY(st);
    st = tt__write(w, &head, sizeof head, err);
    for (int i = 0; st == TT_OK && i < n; i++) st = tt__write(w, parts[i].data, parts[i].bytes, err);
    if (st == TT_OK) return tt__writer_commit(w, err);
    tt__writer_abort(w);
    return st;
}

static tt_status make_draft(const draft_head *h, tt_draft *d, const char *name, tt_err *err) {
    bool grid = h->bits >= 2 && h->bits <= 8 && h->group >= 1 && h->group <= 1 << 20, none = !h->bits && !h->group && !h->mins && !h->halfgrid;
    TT_FAIL_IF(memcmp(h->magic, "TTDRAFT1", sizeof h->magic) || !(grid || none), err, TT_BADFILE, "draft of a state is damaged|%s", name);
    TT_TRY(tt__draft_train(d, err));
    if (h->keep) TT_TRY(tt__draft_prune(d, err));
    return h->bits ? tt__draft_quantize(d, h->bits, h->group, h->mins != 0, err) : TT_OK;
}

tt_status tt__cstate_load_draft(const char *dir, const char *name, tt_draft *d, tt_err *err) {
    draft_head head;
    part parts[5];
    char *path;
    tt__map map;
    TT_TRY(tt__raw_path(dir, name, &path, err));
    tt_status st = tt__map_open(path, &map, err);
    tt__free(path);
    TT_TRY(st);
    size_t at = sizeof head;
    if (map.size < at) st = tt__fail(err, TT_BADFILE, "draft of a state is damaged|%s", name);
    if (st == TT_OK) memcpy(&head, map.data, sizeof head);
    if (st == TT_OK) st = make_draft(&head, d, name, err);
    int n = st == TT_OK ? draft_parts(d, parts) : 0;
    for (int i = 0; i < n && st == TT_OK; at += parts[i].bytes, i++) {
        if (map.size < at + parts[i].bytes) st = tt__fail(err, TT_BADFILE, "draft of a state is damaged|%s", name);
        else memcpy(parts[i].data, map.data + at, parts[i].bytes);
    }
    tt__map_close(&map);
    return st;
}

/* ------------------------------------------------------------ removing ---- */

/* Files of a state, and what a killed writer left of them (".NAME.XXXXXX.tmp"). */
static bool ours(const char *name) {
    static const char *const prefixes[] = {"ops.",  "hidden.",  "dense.",  "sum.",  "cross.",  "self.",  "draft.",  "train.",  "target.",
                                           ".ops.", ".hidden.", ".dense.", ".sum.", ".cross.", ".self.", ".draft.", ".train.", ".target.", ".state.json."};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (!strncmp(name, prefixes[i], strlen(prefixes[i]))) return true;
    return false;
}

static void remove_quietly(const char *dir, const char *name) {
    tt_err ignored = {0};
    char *path = name ? tt__path_join(dir, name) : tt__strdup(dir);
    if (path && tt__exists(path)) tt__remove(path, &ignored);
    tt__free(path);
}

void tt__cstate_sweep(const char *dir, bool (*needed)(void *user, const char *name), void *user) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (ours(e->d_name) && !(needed && needed(user, e->d_name))) remove_quietly(dir, e->d_name);
    if (d) closedir(d);
    if (needed) return;
    remove_quietly(dir, "state.json");
    remove_quietly(dir, NULL);
}
