/* References. In this order a word means: a file or folder that exists; a name of the catalogue; org/name[:TYPE][@revision] of the hub.
 * `pull` always asks the source what is new; opening a model takes what the cache holds and pulls only what is missing. */
#include "engine/pull.h"
#include "base/file.h"
#include "hub/hub.h"

static tt_status offline_error(const char *ref, tt_err *err) {
    return tt__fail(err, TT_OFFLINE, "not in the cache, and offline|%s|||'trimtab pull %s' where there is a network", ref, ref);
}

static tt_status unknown_ref(const char *ref, tt_err *err) {
    const char *names[64];
    size_t n = 0;
    for (; n < tt__catalogue_count() && n < 64; n++) names[n] = tt__catalogue_get(n)->name;
    const char *near = tt__nearest(ref, names, n);
    if (near) return tt__fail(err, TT_FAIL, "no such file or model|%s|||did you mean '%s'?", ref, near);
    return tt__fail(err, TT_FAIL, "no such file or model|%s|||'trimtab list' shows the catalogue; hub models are org/name", ref);
}

/* "./x", "/x" and "x.gguf" are paths even when nothing is there. */
static bool looks_like_path(const char *ref) {
    size_t n = strlen(ref);
    return ref[0] == '/' || strncmp(ref, "./", 2) == 0 || strncmp(ref, "../", 3) == 0 || (n > 5 && strcmp(ref + n - 5, ".gguf") == 0) || (n && ref[n - 1] == '/');
}

static tt_status from_catalogue(tt_ctx *ctx, const tt__catalogue *e, bool offline, bool force, char **path, tt_err *err) {
    bool present = false;
    TT_TRY(tt__catalogue_path(e, &present, path, err));
    if (present && !force) return TT_OK;
    tt__free(*path);
    *path = NULL;
    return offline ? offline_error(e->name, err) : tt__catalogue_pull(ctx, e, force, path, err);
}

tt_status tt__resolve_ref(tt_ctx *ctx, const char *ref, bool offline, char **path, tt_err *err) {
    tt__ref repo;
    *path = NULL;
    TT_FAIL_IF(!ref || !*ref, err, TT_USAGE, "no model given");
    if (tt__exists(ref)) {
        *path = tt__strdup(ref);
        return *path ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|%s", ref);
    }
    offline = offline || tt__hub_offline();
    const tt__catalogue *e = tt__catalogue_find(ref);
    if (e) return from_catalogue(ctx, e, offline, false, path, err);
    TT_FAIL_IF(looks_like_path(ref), err, TT_FAIL, "no such file or folder|%s", ref);
    if (!tt__ref_parse(ref, &repo)) return unknown_ref(ref, err);
    TT_TRY(tt__repo_cached(&repo, NULL, path, err));
    if (*path) return TT_OK;
    return offline ? offline_error(ref, err) : tt__repo_pull(ctx, &repo, &(tt__repo_options){0}, path, err);
}

tt_status tt_pull(tt_ctx *ctx, const tt_pull_options *o, char **path, tt_err *err) {
    tt__ref repo;
    *path = NULL;
    TT_FAIL_IF(!o->ref || !*o->ref, err, TT_USAGE, "no model given");
    bool offline = o->offline || tt__hub_offline();
    const tt__catalogue *e = tt__catalogue_find(o->ref);
    if (e) return from_catalogue(ctx, e, offline, o->force, path, err);
    if (!tt__ref_parse(o->ref, &repo)) return unknown_ref(o->ref, err);
    if (o->revision && *o->revision) {
        tt__str text = {0};
        tt__str_printf(&text, "%s%s%s@%s", repo.repo, *repo.type ? ":" : "", repo.type, o->revision);
        bool ok = !text.failed && !*repo.revision && tt__ref_parse(text.s, &repo);
        tt__str_free(&text);
        TT_FAIL_IF(!ok, err, TT_USAGE, "bad revision|%s|%s|a branch, tag or commit, given once", o->ref, o->revision);
    }
    if (!offline) return tt__repo_pull(ctx, &repo, &(tt__repo_options){.include = o->include, .token = o->token, .force = o->force}, path, err);
    TT_TRY(tt__repo_cached(&repo, o->include, path, err));
    return *path ? TT_OK : offline_error(o->ref, err);
}

tt_status tt_cache_get_folders(tt_ctx *ctx, char **hub, char **catalogue, tt_err *err) {
    (void)ctx;
    *hub = *catalogue = NULL;
    TT_TRY(tt__hub_folder(hub, err));
    tt_status st = tt__catalogue_folder(catalogue, err);
    if (st == TT_OK) return TT_OK;
    tt__free(*hub);
    *hub = NULL;
    return st;
}

/* ------------------------------------------------------------------ the list ---- */

static tt_status add_item(void *user, const char *ref, const char *path, uint64_t bytes, const char *source, bool present, tt_err *err) {
    tt_cache_list *list = user;
    tt_cached_model *grown = tt__realloc(list->items, (list->n + 1) * sizeof *grown);
    TT_FAIL_IF(!grown, err, TT_RESOURCE, "out of memory|list of models");
    list->items = grown;
    tt_cached_model *m = &grown[list->n];
    *m = (tt_cached_model){tt__strdup(ref), path ? tt__strdup(path) : NULL, bytes, source, present};
    if (m->ref && (m->path || !path)) return list->n++, TT_OK;
    tt__free((void *)m->ref);
    tt__free((void *)m->path);
    return tt__fail(err, TT_RESOURCE, "out of memory|list of models");
}

static tt_status add_repo(void *user, const char *repo, const char *path, uint64_t bytes, tt_err *err) {
    return add_item(user, repo, path, bytes, "hub", path != NULL, err);
}

static tt_status fill_list(tt_cache_list *list, tt_err *err) {
    for (size_t i = 0; i < tt__catalogue_count(); i++) {
        const tt__catalogue *e = tt__catalogue_get(i);
        char *path = NULL;
        bool present = false;
        TT_TRY(tt__catalogue_path(e, &present, &path, err));
        tt_status st = add_item(list, e->name, path, tt__catalogue_bytes(e), "catalogue", present, err);
        tt__free(path);
        TT_TRY(st);
    }
    return tt__repo_each(add_repo, list, err);
}

tt_status tt_cache_get_list(tt_ctx *ctx, tt_cache_list **out, tt_err *err) {
    (void)ctx;
    TT_TRY(tt__new(out, 1, sizeof **out, "list of models", err));
    tt_status st = fill_list(*out, err);
    if (st == TT_OK) return TT_OK;
    tt_cache_free_list(*out);
    *out = NULL;
    return st;
}

void tt_cache_free_list(tt_cache_list *list) {
    for (size_t i = 0; list && i < list->n; i++) {
        tt__free((void *)list->items[i].ref);
        tt__free((void *)list->items[i].path);
    }
    if (list) tt__free(list->items);
    tt__free(list);
}
