/* The folders of the caches. Order of the hub cache, as the Python tools and llama.cpp have it:
 *   TRIMTAB_CACHE > HF_HUB_CACHE > HUGGINGFACE_HUB_CACHE > HF_HOME/hub > XDG_CACHE_HOME/huggingface/hub > ~/.cache/huggingface/hub
 * Catalogue models: TRIMTAB_CACHE/models > XDG_CACHE_HOME/trimtab/models > ~/.cache/trimtab/models. */
#include "base/env.h"
#include "base/file.h"
#include "hub/hub.h"
#include <dirent.h>
#include <errno.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct place { tt__env_id id; const char *below; } place;

static tt_status first_place(const place *p, size_t n, char **out, tt_err *err) {
    for (size_t i = 0; i < n; i++) {
        const char *base = tt__env(p[i].id);
        if (!base) continue;
        *out = p[i].below ? tt__path_join(base, p[i].below) : tt__strdup(base);
        return *out ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|cache folder");
    }
    return tt__fail(err, TT_FAIL, "no place for a cache|environment|HOME is not set||set TRIMTAB_CACHE");
}

tt_status tt__hub_folder(char **out, tt_err *err) {
    static const place p[] = {{TT_ENV_CACHE, NULL}, {TT_ENV_HF_HUB_CACHE, NULL}, {TT_ENV_HUGGINGFACE_HUB_CACHE, NULL}, {TT_ENV_HF_HOME, "hub"},
                              {TT_ENV_XDG_CACHE_HOME, "huggingface/hub"}, {TT_ENV_HOME, ".cache/huggingface/hub"}};
    return first_place(p, sizeof p / sizeof *p, out, err);
}

tt_status tt__catalogue_folder(char **out, tt_err *err) {
    static const place p[] = {{TT_ENV_CACHE, "models"}, {TT_ENV_XDG_CACHE_HOME, "trimtab/models"}, {TT_ENV_HOME, ".cache/trimtab/models"}};
    return first_place(p, sizeof p / sizeof *p, out, err);
}

tt_status tt__run_folder(char **out, tt_err *err) {
    static const place p[] = {{TT_ENV_CACHE, "run"}, {TT_ENV_XDG_CACHE_HOME, "trimtab/run"}, {TT_ENV_HOME, ".cache/trimtab/run"}};
    return first_place(p, sizeof p / sizeof *p, out, err);
}

tt_status tt__teacher_folder(char **out, tt_err *err) {
    static const place p[] = {{TT_ENV_CACHE, "teacher"}, {TT_ENV_XDG_CACHE_HOME, "trimtab/teacher"}, {TT_ENV_HOME, ".cache/trimtab/teacher"}};
    return first_place(p, sizeof p / sizeof *p, out, err);
}

typedef struct old_file { char *path; uint64_t bytes; int64_t used; } old_file;

static bool oldest_of(const char *dir, const char *suffix, old_file *oldest, uint64_t *sum) {
    DIR *d = opendir(dir);
    *sum = 0;
    *oldest = (old_file){0};
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        const size_t n = strlen(e->d_name), end = strlen(suffix);
        if (n <= end || e->d_name[0] == '.' || strcmp(e->d_name + n - end, suffix) != 0) continue;
        char *path = tt__path_join(dir, e->d_name);
        if (path && lstat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            *sum += (uint64_t)st.st_size;
            if (!oldest->path || st.st_mtim.tv_sec < oldest->used) {
                tt__free(oldest->path);
                *oldest = (old_file){path, (uint64_t)st.st_size, st.st_mtim.tv_sec};
                path = NULL;
            }
        }
        tt__free(path);
    }
    if (d) closedir(d);
    return oldest->path != NULL;
}

bool tt__make_room(const char *dir, const char *suffix, uint64_t limit, uint64_t bytes) {
    old_file old;
    uint64_t sum;
    bool fits = bytes <= limit;
    while (fits && oldest_of(dir, suffix, &old, &sum)) {
        const bool enough = sum <= limit - bytes;
        if (!enough) fits = tt__remove(old.path, NULL) == TT_OK;
        tt__free(old.path);
        if (enough) break;
    }
    return fits;
}

bool tt__hub_offline(void) { return tt__env_true(TT_ENV_HF_HUB_OFFLINE); }

tt_status tt__mkdirs_private(const char *path, tt_err *err) {
    mode_t old = umask(0077);
    tt_status st = tt__mkdirs(path, err);
    umask(old);
    return st;
}

static void nap(void) {
    struct timespec t = {0, 100 * 1000 * 1000};
    nanosleep(&t, NULL);
}

tt_status tt__hub_lock(tt_ctx *ctx, const char *path, int *out, tt_err *err) {
    bool told = false;
    int fd = -1;
    TT_TRY(tt__lock_open(path, &fd, err));
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        tt_status st = errno == EWOULDBLOCK || errno == EINTR ? tt__check_cancel(ctx, err) : tt__fail(err, TT_FAIL, "cannot lock|%s|%s", path, strerror(errno));
        if (st != TT_OK) {
            close(fd);
            return st;
        }
        if (!told) tt__log(ctx, TT_LOG_WARN, "another process is pulling the same file; waiting for %s", path);
        told = true;
        nap();
    }
    *out = fd;
    return TT_OK;
}
