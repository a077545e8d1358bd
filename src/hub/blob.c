/* One file of a repository: into blobs/<etag>.incomplete, verified, renamed.
 *
 * A cut transfer leaves its bytes; the next attempt, in this run or another, asks for the rest with If-Range and the ETag of the server
 * that gave the first part (kept beside it in .incomplete.etag). A server that answers with the whole file starts it anew. The SHA-256
 * runs along while bytes arrive; a resumed part is hashed first. A file whose hash is wrong is deleted: it is never resumed and never named.
 */
#include "base/fault.h"
#include "base/file.h"
#include "hub/hub.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { ATTEMPTS = 5 };

typedef struct transfer {
    tt_ctx *ctx;
    const tt__blob *b;
    tt_err *err;
    int fd;
    char *partial, *etag_file;
    tt__sha256 hash;
    uint64_t have, asked;        /* bytes in the file; where this request began */
    bool begun;                  /* the first bytes of this answer were seen */
} transfer;

bool tt__is_hex(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f'))) return false;
    return s[n] == 0;
}

static tt_status io_error(tt_err *err, int e, const char *what, const char *path) {
    return tt__fail(err, e == ENOSPC || e == EDQUOT || e == EFBIG ? TT_RESOURCE : TT_FAIL, "%s|%s|%s", what, path, strerror(e));
}

/* ------------------------------------------------------------------ the partial file ---- */

static tt_status start_anew(transfer *t) {
    t->have = 0;
    tt__sha256_init(&t->hash);
    if (ftruncate(t->fd, 0) != 0 || lseek(t->fd, 0, SEEK_SET) != 0) return io_error(t->err, errno, "cannot empty a file", t->partial);
    return TT_OK;
}

static tt_status hash_partial(transfer *t) {
    static const size_t piece = 1 << 20;
    char *buf = tt__alloc(piece);
    TT_FAIL_IF(!buf, t->err, TT_RESOURCE, "out of memory|%s", t->b->name);
    tt_status st = TT_OK;
    tt__sha256_init(&t->hash);
    for (uint64_t at = 0; st == TT_OK && at < t->have;) {
        uint64_t left = t->have - at;
        ssize_t n = tt__fault(TT_FAULT_READ) ? (errno = EIO, -1) : pread(t->fd, buf, left < piece ? (size_t)left : piece, (off_t)at);
        if (n <= 0 && !(n < 0 && errno == EINTR)) st = io_error(t->err, n < 0 ? errno : EIO, "cannot read", t->partial);
        if (n > 0) tt__sha256_update(&t->hash, buf, (size_t)n), at += (uint64_t)n;
    }
    tt__free(buf);
    return st;
}

static tt_status open_partial(transfer *t) {
    struct stat s;
    t->fd = tt__fault(TT_FAULT_OPEN) ? (errno = EIO, -1) : open(t->partial, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (t->fd < 0 || fstat(t->fd, &s) != 0) return io_error(t->err, errno, "cannot open", t->partial);
    TT_FAIL_IF(!S_ISREG(s.st_mode), t->err, TT_BADFILE, "not a regular file|%s", t->partial);
    t->have = (uint64_t)s.st_size;
    if (t->have > t->b->size) return start_anew(t);
    if (lseek(t->fd, 0, SEEK_END) < 0) return io_error(t->err, errno, "cannot seek", t->partial);
    return hash_partial(t);
}

static tt_status check_space(const transfer *t) {
    struct statvfs v;
    if (fstatvfs(t->fd, &v) != 0) return TT_OK;
    uint64_t room = (uint64_t)v.f_bavail * v.f_frsize, need = t->b->size - t->have;
    TT_FAIL_IF(need > room, t->err, TT_RESOURCE, "disk too small|%s|%" PRIu64 " MiB free|%" PRIu64 " MiB", t->b->path, room >> 20, need >> 20);
    return TT_OK;
}

/* ------------------------------------------------------------------ bytes in ---- */

/* What the first answer says about where its bytes belong. */
static tt_status begin(transfer *t, const tt__reply *r) {
    uint64_t first = 0;
    t->begun = true;
    if (r->status == 206) {
        TT_FAIL_IF(sscanf(r->content_range, "bytes %" SCNu64 "-", &first) != 1 || first != t->asked, t->err, TT_FAIL, "wrong range from the hub|%s|%s", t->b->name, r->content_range);
    } else if (t->have) {
        tt__log(t->ctx, TT_LOG_INFO, "%s: the server sends it from the start", t->b->name);
        *t->b->done -= (double)t->have;
        TT_TRY(start_anew(t));
    }
    if (r->etag[0] && strlen(r->etag) < 180) TT_TRY(tt__write_file(t->etag_file, r->etag, strlen(r->etag), t->err));
    return TT_OK;
}

static tt_status write_all(transfer *t, const char *p, size_t n) {
    while (n) {
        ssize_t k = tt__fault(TT_FAULT_WRITE) ? (errno = ENOSPC, -1) : write(t->fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return io_error(t->err, errno, "cannot write", t->partial);
        p += k;
        n -= (size_t)k;
    }
    return TT_OK;
}

static tt_status on_bytes(void *user, const tt__reply *reply, const void *data, size_t n) {
    transfer *t = user;
    if (!t->begun) TT_TRY(begin(t, reply));
    TT_FAIL_IF(n > t->b->size - t->have, t->err, TT_MISMATCH, "more bytes than announced|%s||%" PRIu64, t->b->name, t->b->size);
    TT_TRY(write_all(t, data, n));
    tt__sha256_update(&t->hash, data, n);
    t->have += n;
    *t->b->done += (double)n;
    tt__progress(t->ctx, "pull", *t->b->done, t->b->total, "bytes", t->b->name);
    return tt__check_cancel(t->ctx, t->err);
}

static tt_status one_attempt(transfer *t, tt__http *h, bool *again) {
    tt__reply reply;
    char *etag = NULL;
    size_t n = 0;
    bool known = t->have && tt__exists(t->etag_file) && tt__read_file(t->etag_file, 200, &etag, &n, NULL) == TT_OK;
    for (size_t i = 0; known && i < n; i++)
        if ((unsigned char)etag[i] <= 32 || etag[i] == '"' || etag[i] == 127) known = false;
    t->begun = false;
    t->asked = t->have;
    tt_status st = tt__http_get(h, t->b->url, t->have, known ? etag : t->b->etag, on_bytes, t, &reply, again, t->err);
    tt__free(etag);
    if (st != TT_OK && reply.status == 416) {                       /* what lies here is not a beginning of what lies there */
        *again = true;
        *t->b->done -= (double)t->have;
        return start_anew(t);
    }
    if (st == TT_OK && t->have < t->b->size) {
        *again = true;
        st = tt__fail(t->err, TT_FAIL, "transfer cut|%s|%" PRIu64 " bytes|%" PRIu64 "|repeat the command to go on", t->b->name, t->have, t->b->size);
    }
    return st;
}

/* Tries again while attempts bring bytes, and at most ATTEMPTS times when they do not. */
static tt_status transfer_all(transfer *t, tt__http *h) {
    for (int k = 0;;) {
        uint64_t before = t->have;
        bool again = false;
        tt_status st = one_attempt(t, h, &again);
        if (t->have == t->b->size && st == TT_OK) return TT_OK;
        if (st != TT_OK && !again) return st;
        k = t->have > before ? 0 : k + 1;
        if (k >= ATTEMPTS) return st == TT_OK ? tt__fail(t->err, TT_FAIL, "transfer failed|%s", t->b->name) : st;
        tt__log(t->ctx, TT_LOG_INFO, "%s: cut at %" PRIu64 " of %" PRIu64 " bytes, going on", t->b->name, t->have, t->b->size);
        TT_TRY(tt__http_wait(t->ctx, k, t->err));
    }
}

/* ------------------------------------------------------------------ end ---- */

static tt_status verify(transfer *t) {
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[32];
    char hex[65] = {0};
    if (!tt__is_hex(t->b->etag, 64)) return TT_OK;                  /* small files carry a git hash; their length was checked */
    tt__sha256_final(&t->hash, raw);
    for (int i = 0; i < 32; i++) hex[2 * i] = digits[raw[i] >> 4], hex[2 * i + 1] = digits[raw[i] & 15];
    if (strcmp(hex, t->b->etag) == 0) return TT_OK;
    unlink(t->partial);
    unlink(t->etag_file);
    return tt__fail(t->err, TT_MISMATCH, "wrong SHA-256|%s|%s|%s|nothing was kept", t->b->name, hex, t->b->etag);
}

static void sync_folder_of(const char *path) {
    char *dir = tt__strdup(path);
    char *slash = dir ? strrchr(dir, '/') : NULL;
    if (slash) {
        *slash = 0;
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) fsync(fd), close(fd);
    }
    tt__free(dir);
}

static tt_status name_it(transfer *t) {
    mode_t mask = umask(022);
    umask(mask);
    if (tt__fault(TT_FAULT_FSYNC) || fsync(t->fd) != 0) return io_error(t->err, errno ? errno : EIO, "cannot write", t->partial);
    fchmod(t->fd, 0666 & ~mask);
    if (tt__fault(TT_FAULT_RENAME) || rename(t->partial, t->b->path) != 0) return io_error(t->err, errno ? errno : EIO, "cannot rename into place", t->b->path);
    unlink(t->etag_file);
    sync_folder_of(t->b->path);
    return TT_OK;
}

static bool blob_there(const tt__blob *b) {
    struct stat s;
    return stat(b->path, &s) == 0 && S_ISREG(s.st_mode) && (uint64_t)s.st_size == b->size;
}

static tt_status fetch_locked(transfer *t, tt__http *h, bool force) {
    if (!force && blob_there(t->b)) {
        *t->b->done += (double)t->b->size;
        return TT_OK;
    }
    TT_TRY(open_partial(t));
    TT_TRY(check_space(t));
    *t->b->done += (double)t->have;
    if (t->have < t->b->size) TT_TRY(transfer_all(t, h));
    TT_TRY(verify(t));
    return name_it(t);
}

tt_status tt__blob_fetch(tt_ctx *ctx, tt__http *h, const tt__blob *b, bool force, tt_err *err) {
    transfer t = {.ctx = ctx, .b = b, .err = err, .fd = -1};
    tt__str partial = {0}, etag = {0};
    int lock = -1;
    tt__str_printf(&partial, "%s.incomplete", b->path);
    tt__str_printf(&etag, "%s.incomplete.etag", b->path);
    t.partial = partial.s;
    t.etag_file = etag.s;
    tt_status st = partial.failed || etag.failed ? tt__fail(err, TT_RESOURCE, "out of memory|%s", b->name) : tt__hub_lock(ctx, b->lock, &lock, err);
    if (st == TT_OK) st = fetch_locked(&t, h, force);
    if (t.fd >= 0) close(t.fd);
    if (lock >= 0) close(lock);
    tt__str_free(&partial);
    tt__str_free(&etag);
    return st;
}
