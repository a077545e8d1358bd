/* The file doors; see file.h. Every call that can fail passes tt__fault, every result is looked at, EINTR and short writes are
 * gone on with.
 *
 * A writer holds a lock (flock) on its temporary. One without a lock belongs to a run that was killed, and the next writer
 * of the same target takes it away: a killed run leaves nothing that stays.
 */
#include "base/file.h"

#include "base/checked.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------ errors of the system ---- */

static tt_status status_of(int e) {
    return e == ENOSPC || e == EDQUOT || e == EFBIG || e == ENOMEM || e == EMFILE || e == ENFILE ? TT_RESOURCE : TT_FAIL;
}

static const char *hint_of(int e) {
    switch (e) {
    case ENOSPC: case EDQUOT: return "free some space and repeat the command";
    case EMFILE: return "raise the limit of open files (ulimit -n)";
    case EROFS: return "the file system is mounted read-only";
    default: return "";
    }
}

static tt_status fail_errno(tt_err *err, int e, const char *what, const char *path) {
    char text[128];
    return tt__fail(err, status_of(e), "%s|%s|%s||%s", what, path, strerror_r(e, text, sizeof text), hint_of(e));
}

static bool faulted(tt__fault_kind kind, int e) {
    if (!tt__fault(kind)) return false;
    errno = e;
    return true;
}

static int door_open(const char *path, int flags, mode_t mode) {
    if (faulted(TT_FAULT_OPEN, EIO)) return -1;
    int fd;
    do fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int door_fsync(int fd) {
    if (faulted(TT_FAULT_FSYNC, EIO)) return -1;
    int r;
    do r = fsync(fd);
    while (r != 0 && errno == EINTR);
    return r;
}

/* Linux closes the descriptor even when it reports an error, so there is no second try. */
static int door_close(int fd) {
    int r = close(fd);
    return faulted(TT_FAULT_CLOSE, EIO) ? -1 : r != 0 && errno != EINTR ? -1 : 0;
}

/* ------------------------------------------------------------ reading ---- */

/* Opens a regular file. O_NONBLOCK: a named pipe without a writer must be refused, not waited for. */
static tt_status open_regular(const char *path, int *fd, struct stat *sb, tt_err *err) {
    int f = door_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (f < 0) return errno == ENOENT || errno == ENOTDIR ? tt__fail(err, TT_FAIL, "no such file|%s", path) : fail_errno(err, errno, "cannot open", path);
    tt_status st = TT_OK;
    if (fstat(f, sb) != 0) st = fail_errno(err, errno, "cannot open", path);
    else if (!S_ISREG(sb->st_mode))
        st = tt__fail(err, TT_BADFILE, "not a regular file|%s|%s|a file", path,
                      S_ISDIR(sb->st_mode) ? "a folder" : S_ISFIFO(sb->st_mode) ? "a pipe" : "a device or socket");
    if (st == TT_OK) *fd = f;
    else close(f);
    return st;
}

tt_status tt__map_open(const char *path, tt__map *out, tt_err *err) {
    static const uint8_t nothing[1];
    struct stat sb;
    int fd = -1;
    memset(out, 0, sizeof *out);
    TT_TRY(open_regular(path, &fd, &sb, err));
    out->size = (uint64_t)sb.st_size;
    out->dev = sb.st_dev;
    out->ino = sb.st_ino;
    out->mtime_ns = (uint64_t)sb.st_mtim.tv_sec * 1000000000u + (uint64_t)sb.st_mtim.tv_nsec;
    out->path = tt__strdup(path);
    tt_status st = out->path ? TT_OK : tt__fail(err, TT_RESOURCE, "out of memory|%s", path);
    void *p = (void *)(uintptr_t)nothing;
    if (st == TT_OK && out->size) {
        p = faulted(TT_FAULT_MMAP, ENOMEM) ? MAP_FAILED : mmap(NULL, (size_t)out->size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) st = fail_errno(err, errno, "cannot map", path);
    }
    close(fd);                                             /* opened for reading: closing cannot lose anything */
    if (st != TT_OK) {
        tt__free(out->path);
        memset(out, 0, sizeof *out);
        return st;
    }
    out->data = p;
    return TT_OK;
}

void tt__map_close(tt__map *map) {
    if (!map || !map->data) return;
    if (map->size) munmap((void *)(uintptr_t)map->data, (size_t)map->size);
    tt__free(map->path);
    memset(map, 0, sizeof *map);
}

/* Whole pages inside the range only: the neighbours' bytes share the outer ones. */
void tt__map_release(const tt__map *map, uint64_t offset, uint64_t bytes) {
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), end;
    if (offset > map->size || !tt__add_u64(offset, bytes, &end)) return;
    if (end > map->size) end = map->size;
    uint64_t first = (offset + page - 1) / page * page, last = end == map->size ? end : end / page * page;
    if (first < last) madvise((void *)(uintptr_t)(map->data + first), (size_t)(last - first), MADV_DONTNEED);
}

tt_status tt__read_open(const char *path, int *fd, tt_err *err) {
    struct stat sb;
    return open_regular(path, fd, &sb, err);
}

tt_status tt__read_at(int fd, const char *path, uint64_t offset, void *out, size_t bytes, tt_err *err) {
    for (size_t at = 0; at < bytes;) {
        TT_FAIL_IF(offset > INT64_MAX - bytes, err, TT_BADFILE, "file ends early|%s", path);
        const ssize_t got = faulted(TT_FAULT_READ, EIO) ? -1 : pread(fd, (char *)out + at, bytes - at, (off_t)(offset + at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_errno(err, errno, "cannot read", path);
        TT_FAIL_IF(got == 0, err, TT_BADFILE, "file ends early|%s", path);
        at += (size_t)got;
    }
    return TT_OK;
}

void tt__read_close(int fd) { close(fd); }                 /* opened for reading: closing cannot lose anything */

static ssize_t read_some(int fd, char *p, size_t n) {
    if (faulted(TT_FAULT_READ, EIO)) return -1;
    ssize_t got;
    do got = read(fd, p, n);
    while (got < 0 && errno == EINTR);
    return got;
}

tt_status tt__read_file(const char *path, uint64_t limit, char **out, size_t *size, tt_err *err) {
    struct stat sb;
    int fd = -1;
    *out = NULL;
    if (size) *size = 0;
    TT_TRY(open_regular(path, &fd, &sb, err));
    tt_status st = TT_OK;
    size_t n = 0, cap = 0;
    char *text = NULL;
    if ((uint64_t)sb.st_size > limit)
        TT_TRY_GOTO(tt__fail(err, TT_BADFILE, "file too large|%s|%lld bytes|at most %llu", path, (long long)sb.st_size, (unsigned long long)limit));
    for (;;) {                                             /* until end of file: the size may change, and /proc says 0 */
        if (n == cap) {
            uint64_t want = cap ? 2 * (uint64_t)cap : (uint64_t)sb.st_size + 1;
            char *grown = want < SIZE_MAX ? tt__realloc(text, (size_t)want + 1) : NULL;
            if (!grown) TT_TRY_GOTO(tt__fail(err, TT_RESOURCE, "out of memory|for %s|%llu bytes", path, (unsigned long long)want));
            text = grown;
            cap = (size_t)want;
        }
        ssize_t got = read_some(fd, text + n, cap - n);
        if (got < 0) TT_TRY_GOTO(fail_errno(err, errno, "cannot read", path));
        if (got == 0) break;
        n += (size_t)got;
        if (n > limit) TT_TRY_GOTO(tt__fail(err, TT_BADFILE, "file too large|%s|more than %llu bytes", path, (unsigned long long)limit));
    }
    text[n] = 0;
    *out = text;
    if (size) *size = n;
    text = NULL;
done:
    close(fd);
    tt__free(text);
    return st;
}

bool tt__exists(const char *path) {
    struct stat sb;
    return stat(path, &sb) == 0;
}

bool tt__is_dir(const char *path) {
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

bool tt__same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* ------------------------------------------------------------ writing ---- */

enum { BUFFER = 256 << 10, NAME_MOST = 255, TRIES = 64 };

struct tt__writer {
    char *path, *dir, *temporary;   /* target, its folder, what is written */
    int fd;
    uint64_t offset;                /* bytes handed to tt__write */
    size_t held;                    /* of them still in buf */
    bool reserved;                  /* blocks beyond the end may have been set aside */
    tt_status failed;               /* sticks: a file with a hole in its history is never committed */
    tt_err why;
    uint8_t buf[BUFFER];
};

static void writer_free(tt__writer *w) {
    if (w->fd >= 0) close(w->fd);
    tt__free(w->path);
    tt__free(w->dir);
    tt__free(w->temporary);
    tt__free(w);
}

/* A link is replaced itself, its target is not touched; a device, a pipe or a folder is never renamed over, nor is anything in the
 * kernel's own folders ("-o /dev/stdout" is a link there). */
static tt_status check_target(const char *path, tt_err *err) {
    struct stat sb;
    size_t n = strlen(path);
    TT_FAIL_IF(n == 0 || path[n - 1] == '/', err, TT_USAGE, "not a file name|\"%s\"", path);
    bool special = strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/sys/", 5) == 0;
    if (strncmp(path, "/dev/shm/", 9) == 0) special = false;
    bool there = stat(path, &sb) == 0;
    TT_FAIL_IF(there && S_ISDIR(sb.st_mode), err, TT_FAIL, "cannot write|%s|a folder|a file", path);
    TT_FAIL_IF(special || (there && !S_ISREG(sb.st_mode)), err, TT_FAIL, "cannot write|%s|a device, pipe or socket|a file", path);
    return TT_OK;
}

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return tt__strdup(".");
    return tt__strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ".NAME.XXXXXX.tmp"; a long NAME is cut so that the whole stays a legal name. */
static int stem_of(const char *name) { return (int)strnlen(name, NAME_MOST - 12); }

static void temporary_name(const char *name, char out[NAME_MOST + 1]) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    uint8_t r[6] = {0};
    char random[7] = "";
    if (getrandom(r, sizeof r, GRND_NONBLOCK) != (ssize_t)sizeof r) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        uint64_t x = (uint64_t)t.tv_nsec * 2654435761u + (uint64_t)getpid();
        memcpy(r, &x, sizeof r);
    }
    for (int i = 0; i < 6; i++) random[i] = letters[r[i] % 36];
    snprintf(out, NAME_MOST + 1, ".%.*s.%s.tmp", stem_of(name), name, random);
}

static bool is_temporary_of(const char *name, const char *entry) {
    size_t stem = (size_t)stem_of(name), n = strlen(entry);
    return n == stem + 12 && entry[0] == '.' && memcmp(entry + 1, name, stem) == 0 && entry[1 + stem] == '.' && strcmp(entry + n - 4, ".tmp") == 0;
}

/* Removes temporaries of `name` whose writer is gone, that is, whose lock is free. Nothing here is an error. */
static void sweep(const char *dir, const char *name) {
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d && (e = readdir(d)) != NULL) {
        if (!is_temporary_of(name, e->d_name)) continue;
        int fd = openat(dirfd(d), e->d_name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0) continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlinkat(dirfd(d), e->d_name, 0);
        close(fd);
    }
    if (d) closedir(d);
}

/* Creates and locks the temporary. A sweep that comes between the two takes it away: then there is no link, and we try again. */
static tt_status create_temporary(tt__writer *w, tt_err *err) {
    char name[NAME_MOST + 1];
    for (int i = 0; i < TRIES; i++) {
        temporary_name(name_of(w->path), name);
        tt__free(w->temporary);
        w->temporary = tt__path_join(w->dir, name);
        TT_FAIL_IF(!w->temporary, err, TT_RESOURCE, "out of memory|%s", w->path);
        w->fd = door_open(w->temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
        if (w->fd < 0 && errno == EEXIST) continue;
        if (w->fd < 0) return fail_errno(err, errno, "cannot write", w->path);
        struct stat sb;
        if (flock(w->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {}   /* a sweep holds it; a file system without locks sweeps nothing */
        else if (fstat(w->fd, &sb) == 0 && sb.st_nlink > 0) return TT_OK;
        unlink(w->temporary);
        close(w->fd);
        w->fd = -1;
    }
    return tt__fail(err, TT_FAIL, "cannot write|%s|no free temporary name", w->path);
}

/* Predicts a full disk: better told now than after an hour. */
static tt_status reserve(tt__writer *w, uint64_t bytes, tt_err *err) {
    struct statvfs fs;
    uint64_t room = UINT64_MAX;
    if (fstatvfs(w->fd, &fs) == 0 && !tt__mul_u64(fs.f_bavail, fs.f_frsize, &room)) room = UINT64_MAX;
    TT_FAIL_IF(room < bytes, err, TT_RESOURCE, "disk too small|%s|%llu bytes free|%llu bytes|free some space and repeat the command", w->dir,
               (unsigned long long)room, (unsigned long long)bytes);
    int64_t length;
    if (!tt__to_i64(bytes, &length)) return TT_OK;
    int r;
    if (faulted(TT_FAULT_WRITE, ENOSPC)) return fail_errno(err, errno, "cannot write", w->path);
    do r = fallocate(w->fd, FALLOC_FL_KEEP_SIZE, 0, length);
    while (r != 0 && errno == EINTR);
    w->reserved = r == 0;
    if (r != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) return fail_errno(err, errno, "cannot write", w->path);
    return TT_OK;                                          /* a file system without reservation is no failure */
}

tt_status tt__writer_open(const char *path, uint64_t expect_bytes, tt__writer **out, tt_err *err) {
    tt__writer *w = tt__alloc(sizeof *w);
    *out = NULL;
    TT_FAIL_IF(!w, err, TT_RESOURCE, "out of memory|for writing %s", path);
    memset(w, 0, offsetof(tt__writer, buf));
    w->fd = -1;
    tt_status st = check_target(path, err);
    if (st == TT_OK && (!(w->path = tt__strdup(path)) || !(w->dir = folder_of(path)))) st = tt__fail(err, TT_RESOURCE, "out of memory|%s", path);
    if (st == TT_OK) {
        sweep(w->dir, name_of(w->path));
        st = create_temporary(w, err);
    }
    if (st == TT_OK && expect_bytes && (st = reserve(w, expect_bytes, err)) != TT_OK) unlink(w->temporary);
    if (st != TT_OK) {
        writer_free(w);
        return st;
    }
    *out = w;
    return TT_OK;
}

/* Remembers the first failure; later calls repeat it. */
static tt_status stick(tt__writer *w, tt_status st, tt_err *err) {
    w->failed = st;
    if (err) *err = w->why;
    return st;
}

/* All bytes at `at`, or the reason why not. */
static tt_status put_all(tt__writer *w, uint64_t at, const uint8_t *p, size_t n, tt_err *err) {
    while (n) {
        size_t part = n < (size_t)1 << 30 ? n : (size_t)1 << 30;
        ssize_t wrote = faulted(TT_FAULT_WRITE, ENOSPC) ? -1 : pwrite(w->fd, p, part, (off_t)at);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote == 0) {
            wrote = -1;
            errno = EIO;
        }
        if (wrote < 0) return stick(w, fail_errno(&w->why, errno, "cannot write", w->path), err);
        p += wrote;
        at += (uint64_t)wrote;
        n -= (size_t)wrote;
    }
    return TT_OK;
}

static tt_status flush(tt__writer *w, tt_err *err) {
    if (w->failed) return stick(w, w->failed, err);
    size_t n = w->held;
    w->held = 0;
    return put_all(w, w->offset - n, w->buf, n, err);
}

/* A count that no file can have is a mistake of ours or a size that was not checked; it must not wrap. */
static tt_status advance(tt__writer *w, size_t bytes, tt_err *err) {
    uint64_t end;
    if (w->failed) return stick(w, w->failed, err);
    if (!tt__add_u64(w->offset, bytes, &end) || end > INT64_MAX) return stick(w, tt__fail(&w->why, TT_RESOURCE, "file too large|%s", w->path), err);
    return TT_OK;
}

tt_status tt__write(tt__writer *w, const void *data, size_t bytes, tt_err *err) {
    TT_TRY(advance(w, bytes, err));
    if (bytes > BUFFER - w->held) TT_TRY(flush(w, err));
    if (bytes > BUFFER) {
        TT_TRY(put_all(w, w->offset, data, bytes, err));
    } else if (bytes) {
        memcpy(w->buf + w->held, data, bytes);
        w->held += bytes;
    }
    w->offset += bytes;
    return TT_OK;
}

tt_status tt__write_zeros(tt__writer *w, size_t bytes, tt_err *err) {
    static const uint8_t zeros[4096];
    for (; bytes > sizeof zeros; bytes -= sizeof zeros) TT_TRY(tt__write(w, zeros, sizeof zeros, err));
    return tt__write(w, zeros, bytes, err);
}

tt_status tt__write_at(tt__writer *w, uint64_t offset, const void *data, size_t bytes, tt_err *err) {
    uint64_t end;
    TT_TRY(flush(w, err));
    TT_FAIL_IF(!tt__add_u64(offset, bytes, &end) || end > w->offset, err, TT_FAIL, "patch beyond the end|%s|%llu + %zu bytes|at most %llu", w->path,
               (unsigned long long)offset, bytes, (unsigned long long)w->offset);
    return put_all(w, offset, data, bytes, err);
}

uint64_t tt__writer_offset(const tt__writer *w) { return w->offset; }

/* The process's umask, which only /proc tells without changing it under other threads. */
static mode_t mode_by_umask(void) {
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    unsigned long mask = 0;
    bool known = false;
    while (f && !known && fgets(line, sizeof line, f))
        if (strncmp(line, "Umask:", 6) == 0) {
            mask = strtoul(line + 6, NULL, 8);
            known = true;
        }
    if (f) fclose(f);
    if (!known) {
        mask = umask(022);
        umask((mode_t)mask);
    }
    return (mode_t)(0666 & ~mask);
}

static tt_status sync_folder(int dir, const char *path, tt_err *err) {
    if (door_fsync(dir) != 0 && errno != EINVAL && errno != EROFS) return fail_errno(err, errno, "cannot make durable", path);
    return TT_OK;
}

/* Everything before the rename; after it nothing but the folder's fsync can fail. */
static tt_status finish_temporary(tt__writer *w, tt_err *err) {
    TT_TRY(flush(w, err));
    if (w->reserved && ftruncate(w->fd, (off_t)w->offset) != 0) return fail_errno(err, errno, "cannot write", w->path);
    if (fchmod(w->fd, mode_by_umask()) != 0) return fail_errno(err, errno, "cannot set the mode of", w->path);
    if (door_fsync(w->fd) != 0) return fail_errno(err, errno, "cannot write", w->path);
    return TT_OK;
}

/* The lock is kept until the new name stands, hence a second descriptor for the checked close. */
static tt_status close_checked(tt__writer *w, tt_err *err) {
    int fd = w->fd;
    w->fd = -1;
    if (door_close(fd) != 0) return fail_errno(err, errno, "cannot write", w->path);
    return TT_OK;
}

static tt_status rename_into_place(tt__writer *w, tt_err *err) {
    if (faulted(TT_FAULT_RENAME, EIO) || rename(w->temporary, w->path) != 0) return fail_errno(err, errno, "cannot rename into place", w->path);
    return TT_OK;
}

tt_status tt__writer_commit(tt__writer *w, tt_err *err) {
    int dir = -1, lock = -1;
    tt_status st = finish_temporary(w, err);
    if (st == TT_OK && (lock = fcntl(w->fd, F_DUPFD_CLOEXEC, 0)) < 0) st = fail_errno(err, errno, "cannot write", w->path);
    if (st == TT_OK) st = close_checked(w, err);
    if (st == TT_OK && (dir = door_open(w->dir, O_RDONLY | O_DIRECTORY, 0)) < 0) st = fail_errno(err, errno, "cannot open the folder of", w->path);
    if (st == TT_OK) st = rename_into_place(w, err);
    if (st != TT_OK) unlink(w->temporary);
    else st = sync_folder(dir, w->path, err);
    if (dir >= 0) close(dir);
    if (lock >= 0) close(lock);
    writer_free(w);
    return st;
}

void tt__writer_abort(tt__writer *w) {
    if (!w) return;
    unlink(w->temporary);
    writer_free(w);
}

tt_status tt__write_file(const char *path, const void *data, size_t bytes, tt_err *err) {
    tt__writer *w;
    TT_TRY(tt__writer_open(path, bytes, &w, err));
    tt_status st = tt__write(w, data, bytes, err);
    if (st == TT_OK) return tt__writer_commit(w, err);
    tt__writer_abort(w);
    return st;
}

tt_status tt__lock_open(const char *path, int *fd, tt_err *err) {
    *fd = door_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (*fd < 0) return fail_errno(err, errno, "cannot open a lock", path);
    return TT_OK;
}

tt_status tt__lock_take(const char *path, int *fd, tt_err *err) {
    for (;;) {
        struct stat st;
        TT_TRY(tt__lock_open(path, fd, err));
        int failed = flock(*fd, LOCK_EX | LOCK_NB) != 0 ? errno : 0;
        if (!failed && fstat(*fd, &st) == 0 && st.st_nlink > 0) return TT_OK;
        close(*fd);
        *fd = -1;
        if (failed == EWOULDBLOCK) return TT_OK;
        if (failed && failed != EINTR) return fail_errno(err, failed, "cannot lock", path);
    }
}

void tt__lock_drop(const char *path, int fd) {
    if (fd < 0) return;
    unlink(path);
    close(fd);
}

/* ------------------------------------------------------------ folders ---- */

/* Makes one folder and its entry in the parent durable. */
static tt_status make_folder(const char *path, tt_err *err) {
    if (faulted(TT_FAULT_OPEN, EIO)) return fail_errno(err, errno, "cannot make the folder", path);
    if (mkdir(path, 0777) != 0) {
        int e = errno;
        if (tt__is_dir(path)) return TT_OK;
        if (e == EEXIST || e == ENOTDIR) return tt__fail(err, TT_FAIL, "cannot make the folder|%s|there is a file of that name", path);
        return fail_errno(err, e, "cannot make the folder", path);
    }
    char *parent = folder_of(path);
    TT_FAIL_IF(!parent, err, TT_RESOURCE, "out of memory|%s", path);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tt_status st = fd < 0 ? TT_OK : sync_folder(fd, parent, err);   /* a parent that may not be read cannot be synced */
    if (fd >= 0) close(fd);
    tt__free(parent);
    return st;
}

tt_status tt__mkdirs(const char *path, tt_err *err) {
    TT_FAIL_IF(!path[0], err, TT_USAGE, "empty folder name|");
    if (tt__is_dir(path)) return TT_OK;
    char *p = tt__strdup(path);
    TT_FAIL_IF(!p, err, TT_RESOURCE, "out of memory|%s", path);
    tt_status st = TT_OK;
    for (char *s = p + 1; st == TT_OK && *s; s++) {
        if (*s != '/' || s[-1] == '/') continue;
        *s = 0;
        if (!tt__is_dir(p)) st = make_folder(p, err);
        *s = '/';
    }
    size_t n = strlen(p);
    while (n > 1 && p[n - 1] == '/') p[--n] = 0;
    if (st == TT_OK) st = make_folder(p, err);
    tt__free(p);
    return st;
}

tt_status tt__remove(const char *path, tt_err *err) {
    if (faulted(TT_FAULT_RENAME, EIO)) return fail_errno(err, errno, "cannot remove", path);
    if (unlink(path) == 0 || errno == ENOENT) return TT_OK;
    if ((errno == EISDIR || errno == EPERM) && (rmdir(path) == 0 || errno == ENOENT)) return TT_OK;
    return fail_errno(err, errno, "cannot remove", path);
}

void tt__remove_empty(const char *path) {
    if (tt__is_dir(path)) (void)rmdir(path);
}

enum { TREE_DEPTH = 64 };

static tt_status remove_entries(int dir, const char *path, int depth, tt_err *err);

/* Links are removed themselves; what they name is not touched. */
static tt_status remove_entry(int dir, const char *name, const char *path, int depth, tt_err *err) {
    struct stat sb;
    if (faulted(TT_FAULT_RENAME, EIO)) return fail_errno(err, errno, "cannot remove", path);
    if (fstatat(dir, name, &sb, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT ? TT_OK : fail_errno(err, errno, "cannot remove", path);
    bool folder = S_ISDIR(sb.st_mode);
    TT_FAIL_IF(!folder && !S_ISREG(sb.st_mode) && !S_ISLNK(sb.st_mode), err, TT_FAIL, "cannot remove|%s: %s|a device, pipe or socket|files and folders",
               path, name);
    if (folder) {
        int sub = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub < 0) return fail_errno(err, errno, "cannot remove", path);
        TT_TRY(remove_entries(sub, path, depth + 1, err));
    }
    if (unlinkat(dir, name, folder ? AT_REMOVEDIR : 0) != 0 && errno != ENOENT) return fail_errno(err, errno, "cannot remove", path);
    return TT_OK;
}

/* Takes over `dir`. The depth is bounded, so the recursion is. */
static tt_status remove_entries(int dir, const char *path, int depth, tt_err *err) {
    DIR *d = depth < TREE_DEPTH ? fdopendir(dir) : NULL;
    tt_status st = TT_OK;
    struct dirent *e;
    if (!d) {
        close(dir);
        return tt__fail(err, TT_FAIL, "cannot remove|%s|%s", path, depth < TREE_DEPTH ? "the folder cannot be read" : "folders nested too deep");
    }
    while (st == TT_OK && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) st = remove_entry(dirfd(d), e->d_name, path, depth, err);
    closedir(d);
    return st;
}

tt_status tt__remove_tree(const char *path, tt_err *err) { return remove_entry(AT_FDCWD, path, path, 0, err); }

tt_status tt__rename_folder(const char *from, const char *to, tt_err *err) {
    if (faulted(TT_FAULT_RENAME, EIO) || rename(from, to) != 0) return fail_errno(err, errno, "cannot rename into place", to);
    char *parent = folder_of(to);
    TT_FAIL_IF(!parent, err, TT_RESOURCE, "out of memory|%s", to);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tt_status st = fd < 0 ? TT_OK : sync_folder(fd, parent, err);   /* a parent that may not be read cannot be synced */
    if (fd >= 0) close(fd);
    tt__free(parent);
    return st;
}

/* Hard links in `to` of the plain files of `from`; false at the first that cannot be had. */
static bool link_missing(int from, int to, bool (*stale)(const char *name)) {
    int own = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = own >= 0 ? fdopendir(own) : NULL;
    struct dirent *e;
    bool ok = d != NULL;
    if (!d && own >= 0) close(own);
    while (ok && (e = readdir(d)) != NULL) {
        struct stat sb;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        ok = fstatat(from, e->d_name, &sb, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(sb.st_mode);
        if (ok && !(stale && stale(e->d_name))) ok = linkat(from, e->d_name, to, e->d_name, 0) == 0 || errno == EEXIST;
    }
    if (d) closedir(d);
    return ok;
}

tt_status tt__swap_folder(const char *from, const char *to, bool (*stale)(const char *name), bool *done, tt_err *err) {
    int old = open(to, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), new = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat sb;
    tt_status st = TT_OK;
    *done = false;
    bool can = old >= 0 && new >= 0 && fstat(old, &sb) == 0 && fchmod(new, sb.st_mode & 07777) == 0 && link_missing(old, new, stale);
    if (can) st = sync_folder(new, from, err);
    if (can && st == TT_OK && faulted(TT_FAULT_RENAME, EIO)) st = fail_errno(err, errno, "cannot rename into place", to);
    if (can && st == TT_OK) *done = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0;
    if (old >= 0) close(old);
    if (new >= 0) close(new);
    if (!*done) return st;
    char *parent = folder_of(to);
    TT_FAIL_IF(!parent, err, TT_RESOURCE, "out of memory|%s", to);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) st = sync_folder(fd, parent, err);        /* before the old files go */
    if (fd >= 0) close(fd);
    tt__free(parent);
    tt_status gone = tt__remove_tree(from, NULL);
    return st != TT_OK || gone == TT_OK ? st : tt__remove_tree(from, err);
}

/* ------------------------------------------------------------ paths ---- */

char *tt__path_join(const char *dir, const char *name) {
    size_t n = strlen(dir), m = strlen(name);
    bool slash = n && dir[n - 1] != '/';
    char *p = tt__alloc(n + slash + m + 1);
    if (!p) return NULL;
    memcpy(p, dir, n);
    if (slash) p[n] = '/';
    memcpy(p + n + slash, name, m + 1);
    return p;
}

/* Why a relative name from outside is refused, or NULL. '\\' and ':' lead out of folders on other systems, where the folder may be
 * copied to; a leading '~' is expanded by shells. */
static const char *bad_relative(const char *s) {
    size_t n = strlen(s);
    if (n == 0) return "it is empty";
    if (n > NAME_MOST) return "it is longer than 255 bytes";
    if (s[0] == '/') return "it is absolute";
    if (s[0] == '~') return "it begins with '~'";
    for (size_t i = 0; i < n; i++) {
        if ((uint8_t)s[i] < 0x20 || s[i] == 0x7f) return "it holds a control byte";
        if (s[i] == '\\' || s[i] == ':') return "it holds '\\' or ':'";
    }
    for (const char *part = s; part;) {
        size_t len = strcspn(part, "/");
        if (len == 0) return "it has an empty part";
        if (part[0] == '.' && (len == 1 || (len == 2 && part[1] == '.'))) return "it has a '.' or '..' part";
        part = part[len] ? part + len + 1 : NULL;
    }
    return NULL;
}

tt_status tt__path_join_checked(const char *dir, const char *relative, char **out, tt_err *err) {
    const char *why = bad_relative(relative);
    *out = NULL;
    TT_FAIL_IF(why, err, TT_BADFILE, "unsafe file name|%s: \"%s\"|%s|a plain name inside the folder", dir, relative, why);
    *out = tt__path_join(dir, relative);
    TT_FAIL_IF(!*out, err, TT_RESOURCE, "out of memory|%s", relative);
    return TT_OK;
}
