/* See partial.h. */
#include "base/partial.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/util.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static bool faulted(tt__fault_kind kind, int e) {
    if (!tt__fault(kind)) return false;
    errno = e;
    return true;
}

static tt_status io_error(tt_err *err, const char *what, const char *path) {
    int e = errno;
    return tt__fail(err, e == ENOSPC || e == EDQUOT || e == EFBIG || e == ENOMEM || e == EMFILE ? TT_RESOURCE : TT_FAIL, "%s|%s|%s", what, path, strerror(e));
}

static tt_status open_regular(tt__partial *p, tt_err *err) {
    struct stat s;
    if (faulted(TT_FAULT_OPEN, EIO)) return io_error(err, "cannot open", p->path);
    p->fd = open(p->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (p->fd < 0 || fstat(p->fd, &s) != 0) return io_error(err, "cannot open", p->path);
    TT_FAIL_IF(!S_ISREG(s.st_mode) || s.st_size < 0, err, TT_BADFILE, "not a regular file|%s", p->path);
    p->bytes = (uint64_t)s.st_size;
    return lseek(p->fd, 0, SEEK_END) < 0 ? io_error(err, "cannot seek", p->path) : TT_OK;
}

tt_status tt__partial_open(const char *path, tt__partial *out, tt_err *err) {
    *out = (tt__partial){.fd = -1, .path = tt__strdup(path)};
    TT_FAIL_IF(!out->path, err, TT_RESOURCE, "out of memory|%s", path);
    tt_status st = open_regular(out, err);
    if (st != TT_OK) tt__partial_close(out);
    return st;
}

tt_status tt__partial_read(const tt__partial *p, uint64_t offset, void *buf, size_t n, tt_err *err) {
    for (size_t done = 0; done < n;) {
        ssize_t k = faulted(TT_FAULT_READ, EIO) ? -1 : pread(p->fd, (char *)buf + done, n - done, (off_t)(offset + done));
        if (k < 0 && errno == EINTR) continue;
        if (k == 0) errno = EIO;
        if (k <= 0) return io_error(err, "cannot read", p->path);
        done += (size_t)k;
    }
    return TT_OK;
}

tt_status tt__partial_append(tt__partial *p, const void *data, size_t n, tt_err *err) {
    for (size_t done = 0; done < n;) {
        ssize_t k = faulted(TT_FAULT_WRITE, ENOSPC) ? -1 : write(p->fd, (const char *)data + done, n - done);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return io_error(err, "cannot write", p->path);
        done += (size_t)k;
        p->bytes += (uint64_t)k;
    }
    return TT_OK;
}

tt_status tt__partial_empty(tt__partial *p, tt_err *err) {
    if (ftruncate(p->fd, 0) != 0 || lseek(p->fd, 0, SEEK_SET) != 0) return io_error(err, "cannot empty", p->path);
    p->bytes = 0;
    return TT_OK;
}

tt_status tt__partial_room(const tt__partial *p, uint64_t more, tt_err *err) {
    struct statvfs v;
    if (fstatvfs(p->fd, &v) != 0) return TT_OK;
    uint64_t room = v.f_frsize && v.f_bavail > UINT64_MAX / v.f_frsize ? UINT64_MAX : (uint64_t)v.f_bavail * v.f_frsize;
    TT_FAIL_IF(more > room, err, TT_RESOURCE, "disk too small|%s|%" PRIu64 " MiB free|%" PRIu64 " MiB", p->path, room >> 20, more >> 20);
    return TT_OK;
}

/* The folder of a path, opened; -1 where it may not be read, which only costs durability. */
static int open_parent(const char *path) {
    char *dir = tt__strdup(path);
    char *slash = dir ? strrchr(dir, '/') : NULL;
    if (slash) slash[slash == dir] = 0;
    int fd = dir ? open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    tt__free(dir);
    return fd;
}

static tt_status name_it(const tt__partial *p, const char *target, tt_err *err) {
    mode_t mask = umask(022);
    umask(mask);
    if (fchmod(p->fd, 0666 & ~mask) != 0 || faulted(TT_FAULT_FSYNC, EIO) || fsync(p->fd) != 0) return io_error(err, "cannot write", p->path);
    if (faulted(TT_FAULT_RENAME, EIO) || rename(p->path, target) != 0) return io_error(err, "cannot rename into place", target);
    int dir = open_parent(target);
    if (dir >= 0) fsync(dir), close(dir);
    return TT_OK;
}

tt_status tt__partial_commit(tt__partial *p, const char *target, tt_err *err) {
    tt_status st = name_it(p, target, err);
    tt__partial_close(p);
    return st;
}

void tt__partial_close(tt__partial *p) {
    if (p->path && p->fd >= 0) close(p->fd);
    tt__free(p->path);
    *p = (tt__partial){.fd = -1};
}

bool tt__link_into(const char *text, const char *path) {
    tt__str temp = {0};
    tt__str_printf(&temp, "%s.link.%ld", path, (long)getpid());
    bool ok = !temp.failed && symlink(text, temp.s) == 0;
    if (ok && rename(temp.s, path) != 0) {
        unlink(temp.s);
        ok = false;
    }
    tt__str_free(&temp);
    return ok;
}
