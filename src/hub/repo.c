/* Repositories of the hub: list the files of a revision, choose, fetch each into blobs/, link it into snapshots/<commit>/, and last write
 * refs/<revision>, so that a revision that the cache knows was whole for the files that were meant.
 *
 * Looking a model up touches no network: refs/<revision> gives the commit, the snapshot's own files are the list to choose from.
 */
#include "base/env.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/partial.h"
#include "hub/hub.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILES = 100000, MAX_DEPTH = 8 };

/* ------------------------------------------------------------------ lists of names ---- */

typedef struct names { char **s; size_t n, cap; } names;

static bool names_add(names *l, const char *s) {
    if (l->n == l->cap) {
        char **grown = tt__realloc(l->s, (2 * l->cap + 16) * sizeof *grown);
        if (!grown) return false;
        l->s = grown;
        l->cap = 2 * l->cap + 16;
    }
    l->s[l->n] = tt__strdup(s);
    return l->s[l->n] && ++l->n;
}

static void names_free(names *l) {
    for (size_t i = 0; i < l->n; i++) tt__free(l->s[i]);
    tt__free(l->s);
    *l = (names){0};
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void names_sort(names *l) {
    if (l->n) qsort(l->s, l->n, sizeof *l->s, by_name);
}

/* ------------------------------------------------------------------ folders ---- */

/* ROOT/models--org--name */
static tt_status repo_folder(const char *repo, char **out, tt_err *err) {
    char *root = NULL;
    tt__str s = {0};
    TT_TRY(tt__hub_folder(&root, err));
    tt__str_printf(&s, "%s/models--", root);
    for (const char *p = repo; *p; p++) tt__str_add(&s, *p == '/' ? "--" : p, *p == '/' ? 2 : 1);
    tt__free(root);
    if (!s.failed) return *out = s.s, TT_OK;
    tt__str_free(&s);
    return tt__fail(err, TT_RESOURCE, "out of memory|%s", repo);
}

static char *join3(const char *a, const char *b, const char *c) {
    tt__str s = {0};
    tt__str_printf(&s, "%s/%s/%s", a, b, c);
    if (!s.failed) return s.s;
    tt__str_free(&s);
    return NULL;
}

static const char *revision_of(const tt__ref *r) { return *r->revision ? r->revision : "main"; }

/* The commit that the cache knows for the revision; "" when none. */
static void cached_commit(const char *folder, const char *revision, char commit[41]) {
    char *path = join3(folder, "refs", revision), *text = NULL;
    size_t n = 0;
    commit[0] = 0;
    if (tt__is_hex(revision, 40)) memcpy(commit, revision, 41);
    else if (path && tt__exists(path) && tt__read_file(path, 100, &text, &n, NULL) == TT_OK) {
        text[strcspn(text, " \r\n")] = 0;
        if (tt__is_hex(text, 40)) memcpy(commit, text, 41);
    }
    tt__free(text);
    tt__free(path);
}

/* Files below `dir`, as "sub/name"; links count when they lead to a regular file. */
static void list_files(const char *dir, const char *below, int depth, names *out) {
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d && out->n < MAX_FILES && (e = readdir(d))) {
        struct stat s;
        if (e->d_name[0] == '.') continue;
        char *path = tt__path_join(dir, e->d_name), *name = *below ? tt__path_join(below, e->d_name) : tt__strdup(e->d_name);
        if (path && name && stat(path, &s) == 0) {
            if (S_ISREG(s.st_mode)) names_add(out, name);
            else if (S_ISDIR(s.st_mode) && depth < MAX_DEPTH) list_files(path, name, depth + 1, out);
        }
        tt__free(path);
        tt__free(name);
    }
    if (d) closedir(d);
}

/* ------------------------------------------------------------------ what the cache holds ---- */

/* All parts that the index names lie in the folder. */
static bool shards_there(const char *dir) {
    char *path = tt__path_join(dir, "model.safetensors.index.json"), *text = NULL;
    size_t n = 0;
    json_t *root = NULL, *v;
    const char *key;
    bool ok = true;
    if (path && tt__exists(path)) {
        ok = tt__read_file(path, TT_LIMIT_JSON_BYTES, &text, &n, NULL) == TT_OK && tt__json_parse(text, n, path, &root, NULL) == TT_OK;
        json_object_foreach(json_object_get(root, "weight_map"), key, v) {
            char *part = NULL;
            ok = ok && json_is_string(v) && tt__path_join_checked(dir, json_string_value(v), &part, NULL) == TT_OK && tt__exists(part);
            tt__free(part);
        }
    }
    json_decref(root);
    tt__free(text);
    tt__free(path);
    return ok;
}

/* As many shards of the chosen GGUF as its name says. */
static bool gguf_whole(const char *name, const bool *wanted, size_t n) {
    size_t stem, marked = 0;
    int of;
    for (size_t i = 0; i < n; i++) marked += wanted[i];
    return tt__gguf_shard(name, &stem, &of) == 0 || marked == (size_t)of;
}

static tt_status choose_cached(const char *dir, const char *type, const char *include, char **path, tt_err *err) {
    names files = {0};
    long main = -1;
    tt_status st = TT_OK;
    list_files(dir, "", 0, &files);
    names_sort(&files);
    bool *wanted = tt__calloc(files.n + 1, sizeof *wanted);
    if (wanted && tt__choose_files((const char *const *)files.s, files.n, type, include, wanted, &main)) {
        bool whole = main >= 0 ? gguf_whole(files.s[main], wanted, files.n) : include || shards_there(dir);
        if (whole) *path = main >= 0 ? tt__path_join(dir, files.s[main]) : tt__strdup(dir);
        if (whole && !*path) st = tt__fail(err, TT_RESOURCE, "out of memory|%s", dir);
    }
    tt__free(wanted);
    names_free(&files);
    return st;
}

tt_status tt__repo_cached(const tt__ref *ref, const char *include, char **path, tt_err *err) {
    char *folder = NULL, commit[41];
    *path = NULL;
    TT_TRY(repo_folder(ref->repo, &folder, err));
    cached_commit(folder, revision_of(ref), commit);
    tt_status st = TT_OK;
    if (*commit) {
        char *dir = join3(folder, "snapshots", commit);
        st = dir ? choose_cached(dir, ref->type, include, path, err) : tt__fail(err, TT_RESOURCE, "out of memory|%s", ref->repo);
        tt__free(dir);
    }
    tt__free(folder);
    return st;
}

static uint64_t bytes_of_blobs(const char *folder) {
    char *dir = tt__path_join(folder, "blobs");
    DIR *d = dir ? opendir(dir) : NULL;
    struct dirent *e;
    struct stat s;
    uint64_t sum = 0;
    while (d && (e = readdir(d)))
        if (fstatat(dirfd(d), e->d_name, &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(s.st_mode)) sum += (uint64_t)s.st_size;
    if (d) closedir(d);
    tt__free(dir);
    return sum;
}

/* "models--org--name" → "org/name": the first "--" is the slash. */
static bool repo_of_folder(const char *entry, tt__ref *ref) {
    char text[220];
    if (strncmp(entry, "models--", 8) != 0) return false;
    const char *org = entry + strlen("models--"), *cut = strstr(org, "--");
    if (!cut || strlen(org) > 200) return false;
    snprintf(text, sizeof text, "%.*s/%s", (int)(cut - org), org, cut + 2);
    return tt__ref_parse(text, ref);
}

tt_status tt__repo_each(tt__repo_fn visit, void *user, tt_err *err) {
    char *root = NULL;
    names entries = {0};
    TT_TRY(tt__hub_folder(&root, err));
    DIR *d = opendir(root);
    struct dirent *e;
    while (d && (e = readdir(d))) names_add(&entries, e->d_name);
    if (d) closedir(d);
    names_sort(&entries);
    tt_status st = TT_OK;
    for (size_t i = 0; st == TT_OK && i < entries.n; i++) {
        tt__ref ref;
        char *path = NULL, *folder = NULL;
        if (!repo_of_folder(entries.s[i], &ref)) continue;
        st = tt__repo_cached(&ref, NULL, &path, err);
        if (st == TT_OK) st = repo_folder(ref.repo, &folder, err);
        if (st == TT_OK) st = visit(user, ref.repo, path, bytes_of_blobs(folder), err);
        tt__free(path);
        tt__free(folder);
    }
    names_free(&entries);
    tt__free(root);
    return st;
}

/* ------------------------------------------------------------------ pulling ---- */

typedef struct pull {
    tt_ctx *ctx;
    tt__http *h;
    const tt__ref *ref;
    const tt__repo_options *o;
    const char *endpoint;
    char *folder, *locks;
    char commit[41];
    names files;
    bool *wanted;
    long main;
    struct { char etag[65]; uint64_t size; } *meta;      /* per file */
    double done, total;
} pull;

static tt_status out_of_memory(const pull *p, tt_err *err) { return tt__fail(err, TT_RESOURCE, "out of memory|%s", p->ref->repo); }

/* {"sha": commit, "siblings": [{"rfilename": name}, …]} */
static tt_status read_listing(pull *p, const json_t *root, const char *url, tt_err *err) {
    const char *sha = NULL;
    json_t *list = json_object_get(root, "siblings"), *v;
    size_t i;
    TT_TRY(tt__json_str(root, "sha", true, &sha, url, err));
    TT_FAIL_IF(!tt__is_hex(sha, 40), err, TT_BADFILE, "bad commit from the hub|%s|%s|40 hexadecimal digits", url, sha);
    TT_FAIL_IF(!json_is_array(list) || json_array_size(list) > MAX_FILES, err, TT_BADFILE, "bad listing from the hub|%s||\"siblings\": a list", url);
    memcpy(p->commit, sha, 41);
    json_array_foreach(list, i, v) {
        const char *name = NULL;
        char *checked = NULL;
        TT_TRY(tt__json_str(v, "rfilename", true, &name, url, err));
        TT_TRY(tt__path_join_checked("x", name, &checked, err));
        tt__free(checked);
        if (!names_add(&p->files, name)) return out_of_memory(p, err);
    }
    return TT_OK;
}

static tt_status list_repository(pull *p, tt_err *err) {
    tt__str url = {0};
    json_t *root = NULL;
    char *revision = tt__url_escape(revision_of(p->ref));
    tt__str_printf(&url, "%s/api/models/%s/revision/%s", p->endpoint, p->ref->repo, revision ? revision : "");
    tt_status st = url.failed || !revision ? out_of_memory(p, err) : tt__http_json(p->h, url.s, &root, err);
    if (st == TT_OK) st = read_listing(p, root, url.s, err);
    json_decref(root);
    tt__free(revision);
    tt__str_free(&url);
    return st;
}

static tt_status choose(pull *p, tt_err *err) {
    names_sort(&p->files);
    TT_TRY(tt__new(&p->wanted, p->files.n + 1, sizeof *p->wanted, p->ref->repo, err));
    TT_TRY(tt__new(&p->meta, p->files.n + 1, sizeof *p->meta, p->ref->repo, err));
    if (tt__choose_files((const char *const *)p->files.s, p->files.n, p->ref->type, p->o->include, p->wanted, &p->main)) return TT_OK;
    if (p->o->include) return tt__fail(err, TT_FAIL, "no file matches|%s|%s", p->ref->repo, p->o->include);
    if (*p->ref->type) return tt__fail(err, TT_FAIL, "no GGUF file of that type|%s|%s||'--include GLOB' takes files by name", p->ref->repo, p->ref->type);
    return tt__fail(err, TT_BADFILE, "nothing to run in the repository|%s||a GGUF file, or config.json with safetensors", p->ref->repo);
}

static tt_status file_url(const pull *p, const char *file, tt__str *url, tt_err *err) {
    char *escaped = tt__url_escape(file);
    tt__str_printf(url, "%s/%s/resolve/%s/%s", p->endpoint, p->ref->repo, p->commit, escaped ? escaped : "");
    bool bad = !escaped || url->failed;
    tt__free(escaped);
    return bad ? out_of_memory(p, err) : TT_OK;
}

/* ETag and size, from the first hop's X-Linked-* where the file is a large one. */
static tt_status ask_for_file(pull *p, size_t i, tt_err *err) {
    tt__str url = {0};
    tt__reply r;
    tt_status st = file_url(p, p->files.s[i], &url, err);
    if (st == TT_OK) st = tt__http_head(p->h, url.s, &r, err);
    tt__str_free(&url);
    TT_TRY(st);
    const char *etag = *r.linked_etag ? r.linked_etag : r.etag;
    int64_t size = r.linked_size >= 0 ? r.linked_size : r.length;
    TT_FAIL_IF(!tt__is_hex(etag, 64) && !tt__is_hex(etag, 40), err, TT_BADFILE, "bad ETag from the hub|%s|%s|a hash in hexadecimal digits", p->files.s[i], etag);
    TT_FAIL_IF(*r.commit && strcmp(r.commit, p->commit) != 0, err, TT_MISMATCH, "wrong commit from the hub|%s|%s|%s", p->files.s[i], r.commit, p->commit);
    TT_FAIL_IF(size < 0, err, TT_BADFILE, "no size from the hub|%s", p->files.s[i]);
    memcpy(p->meta[i].etag, etag, strlen(etag) + 1);
    p->meta[i].size = (uint64_t)size;
    p->total += (double)size;
    return TT_OK;
}

/* ------------------------------------------------------------------ links ---- */

static tt_status parent_folder(const char *path, tt_err *err) {
    char *dir = tt__strdup(path);
    TT_FAIL_IF(!dir, err, TT_RESOURCE, "out of memory|%s", path);
    *strrchr(dir, '/') = 0;
    tt_status st = tt__mkdirs_private(dir, err);
    tt__free(dir);
    return st;
}

static tt_status copy_file(const char *from, const char *to, tt_err *err) {
    tt__map m;
    tt__writer *w = NULL;
    TT_TRY(tt__map_open(from, &m, err));
    tt_status st = tt__writer_open(to, m.size, &w, err);
    if (st == TT_OK) st = tt__write(w, m.data, (size_t)m.size, err);
    if (st == TT_OK) st = tt__writer_commit(w, err);
    else tt__writer_abort(w);
    tt__map_close(&m);
    return st;
}

/* snapshots/<commit>/a/b.gguf → ../../../blobs/<etag>; a copy where links are not to be had. */
static tt_status link_file(const pull *p, size_t i, const char *blob, tt_err *err) {
    tt__str target = {0};
    char *dir = join3(p->folder, "snapshots", p->commit), *path = NULL;
    tt_status st = dir ? tt__path_join_checked(dir, p->files.s[i], &path, err) : out_of_memory(p, err);
    if (st == TT_OK) st = parent_folder(path, err);
    tt__str_puts(&target, "../../");
    for (const char *c = p->files.s[i]; *c; c++)
        if (*c == '/') tt__str_puts(&target, "../");
    tt__str_printf(&target, "blobs/%s", p->meta[i].etag);
    if (st == TT_OK && target.failed) st = out_of_memory(p, err);
    if (st == TT_OK && (tt__env_true(TT_ENV_HF_HUB_DISABLE_SYMLINKS) || !tt__link_into(target.s, path))) st = copy_file(blob, path, err);
    tt__str_free(&target);
    tt__free(path);
    tt__free(dir);
    return st;
}

static tt_status fetch_file(pull *p, size_t i, tt_err *err) {
    tt__str url = {0}, lock = {0};
    char *path = join3(p->folder, "blobs", p->meta[i].etag);
    tt__str_printf(&lock, "%s/%s.lock", p->locks, p->meta[i].etag);
    tt_status st = path && !lock.failed ? file_url(p, p->files.s[i], &url, err) : out_of_memory(p, err);
    tt__blob b = {.url = url.s, .name = p->files.s[i], .path = path, .lock = lock.s, .etag = p->meta[i].etag, .size = p->meta[i].size, .done = &p->done, .total = p->total};
    if (st == TT_OK) st = tt__blob_fetch(p->ctx, p->h, &b, p->o->force, err);
    if (st == TT_OK) st = link_file(p, i, path, err);
    tt__free(path);
    tt__str_free(&url);
    tt__str_free(&lock);
    return st;
}

static tt_status write_ref(const pull *p, tt_err *err) {
    if (tt__is_hex(revision_of(p->ref), 40)) return TT_OK;
    char *path = join3(p->folder, "refs", revision_of(p->ref));
    tt_status st = path ? parent_folder(path, err) : out_of_memory(p, err);
    if (st == TT_OK) st = tt__write_file(path, p->commit, 40, err);
    tt__free(path);
    return st;
}

static tt_status make_folders(pull *p, tt_err *err) {
    char *root = NULL, *blobs;
    TT_TRY(repo_folder(p->ref->repo, &p->folder, err));
    TT_TRY(tt__hub_folder(&root, err));
    p->locks = join3(root, ".locks", strrchr(p->folder, '/') + 1);
    blobs = tt__path_join(p->folder, "blobs");
    tt_status st = p->locks && blobs ? tt__mkdirs_private(p->locks, err) : out_of_memory(p, err);
    if (st == TT_OK) st = tt__mkdirs_private(blobs, err);
    tt__free(blobs);
    tt__free(root);
    return st;
}

static tt_status pull_all(pull *p, char **path, tt_err *err) {
    TT_TRY(list_repository(p, err));
    TT_TRY(choose(p, err));
    for (size_t i = 0; i < p->files.n; i++)
        if (p->wanted[i]) TT_TRY(ask_for_file(p, i, err));
    TT_TRY(make_folders(p, err));
    for (size_t i = 0; i < p->files.n; i++)
        if (p->wanted[i]) TT_TRY(fetch_file(p, i, err));
    TT_TRY(write_ref(p, err));
    char *dir = join3(p->folder, "snapshots", p->commit);
    *path = dir && p->main >= 0 ? tt__path_join(dir, p->files.s[p->main]) : dir;
    if (*path != dir) tt__free(dir);
    return *path ? TT_OK : out_of_memory(p, err);
}

/* The token: given, HF_TOKEN, or the file of HF_TOKEN_PATH or HF_HOME. *owned is freed by the caller. */
static const char *find_token(const char *given, char **owned) {
    const char *home = tt__env(TT_ENV_HF_HOME), *path = tt__env(TT_ENV_HF_TOKEN_PATH);
    char *built = NULL;
    size_t n = 0;
    *owned = NULL;
    if (given && *given) return given;
    if (tt__env(TT_ENV_HF_TOKEN)) return tt__env(TT_ENV_HF_TOKEN);
    if (!path && home) path = built = tt__path_join(home, "token");
    else if (!path && tt__env(TT_ENV_HOME)) path = built = tt__path_join(tt__env(TT_ENV_HOME), ".cache/huggingface/token");
    if (path && tt__exists(path) && tt__read_file(path, 4096, owned, &n, NULL) == TT_OK) (*owned)[strcspn(*owned, " \r\n")] = 0;
    tt__free(built);
    return *owned;
}

tt_status tt__repo_pull(tt_ctx *ctx, const tt__ref *ref, const tt__repo_options *o, char **path, tt_err *err) {
    const char *endpoint = tt__env(TT_ENV_HF_ENDPOINT);
    char *token = NULL, *base = tt__strdup(endpoint ? endpoint : "https://huggingface.co");
    pull p = {.ctx = ctx, .ref = ref, .o = o, .endpoint = base, .main = -1};
    tt_status st = base ? TT_OK : out_of_memory(&p, err);
    for (size_t n = base ? strlen(base) : 0; n && base[n - 1] == '/';) base[--n] = 0;
    *path = NULL;
    if (st == TT_OK) st = tt__http_open(ctx, base, find_token(o->token, &token), &p.h, err);
    if (st == TT_OK) st = pull_all(&p, path, err);
    tt__http_close(p.h);
    names_free(&p.files);
    tt__free(p.wanted);
    tt__free(p.meta);
    tt__free(p.folder);
    tt__free(p.locks);
    tt__free(token);
    tt__free(base);
    return st;
}
