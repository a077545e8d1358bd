/* One file of a repository: into blobs/<etag>.incomplete, verified, renamed.
 *
 * A cut transfer leaves its bytes; the next attempt, in this run or another, asks for the rest with If-Range and the ETag of the server
 * that gave the first part (kept beside it in .incomplete.etag). A server that answers with the whole file starts it anew. The SHA-256
 * runs along while bytes arrive; a resumed part is hashed first. A file whose hash is wrong is deleted: it is never resumed and never named.
 */
#include "base/file.h"
#include "base/partial.h"
#include "hub/hub.h"
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ATTEMPTS = 5 };

typedef struct transfer {
    tt_ctx *ctx;
    const tt__blob *b;
    tt_err *err;
    char *partial, *etag_file;   /* names */
    tt__partial file;
    tt__sha256 hash;             /* of the bytes in the file */
    uint64_t asked;              /* where this request began */
    bool begun;                  /* the first bytes of this answer were seen */
} transfer;

bool tt__is_hex(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f'))) return false;
    return s[n] == 0;
}

/* ------------------------------------------------------------------ the partial file ---- */

static tt_status start_anew(transfer *t) {
    *t->b->done -= (double)t->file.bytes;
    tt__sha256_init(&t->hash);
    return tt__partial_empty(&t->file, t->err);
}

static tt_status hash_partial(transfer *t) {
    static const size_t piece = 1 << 20;
    char *buf = tt__alloc(piece);
    TT_FAIL_IF(!buf, t->err, TT_RESOURCE, "out of memory|%s", t->b->name);
    tt_status st = TT_OK;
    tt__sha256_init(&t->hash);
    for (uint64_t at = 0; st == TT_OK && at < t->file.bytes;) {
        uint64_t left = t->file.bytes - at;
        size_t n = left < piece ? (size_t)left : piece;
        st = tt__partial_read(&t->file, at, buf, n, t->err);
        tt__sha256_update(&t->hash, buf, st == TT_OK ? n : 0);
        at += n;
    }
    tt__free(buf);
    return st;
}

static tt_status open_partial(transfer *t) {
    TT_TRY(tt__partial_open(t->partial, &t->file, t->err));
    *t->b->done += (double)t->file.bytes;
    TT_TRY(t->file.bytes > t->b->size ? start_anew(t) : hash_partial(t));
    return tt__partial_room(&t->file, t->b->size - t->file.bytes, t->err);
}

/* "bytes 123-" → 123 */
static bool range_start(const char *s, uint64_t *out) {
    uint64_t v = 0;
    if (strncmp(s, "bytes ", 6) != 0 || s[6] < '0' || s[6] > '9') return false;
    for (s += 6; *s >= '0' && *s <= '9'; s++)
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (unsigned)(*s - '0'), &v)) return false;
    *out = v;
    return *s == '-';
}

/* ------------------------------------------------------------------ bytes in ---- */

/* What the first answer says about where its bytes belong. */
static tt_status begin(transfer *t, const tt__reply *r) {
    uint64_t first = 0;
    t->begun = true;
    if (r->status == 206) {
        TT_FAIL_IF(!range_start(r->content_range, &first) || first != t->asked, t->err, TT_FAIL, "wrong range from the hub|%s|%s", t->b->name, r->content_range);
    } else if (t->file.bytes) {
        tt__log(t->ctx, TT_LOG_INFO, "%s: the server sends it from the start", t->b->name);
        TT_TRY(start_anew(t));
    }
    if (r->etag[0] && strlen(r->etag) < 180) TT_TRY(tt__write_file(t->etag_file, r->etag, strlen(r->etag), t->err));
    return TT_OK;
}

static tt_status on_bytes(void *user, const tt__reply *reply, const void *data, size_t n) {
    transfer *t = user;
    if (!t->begun) TT_TRY(begin(t, reply));
    TT_FAIL_IF(n > t->b->size - t->file.bytes, t->err, TT_MISMATCH, "more bytes than announced|%s||%" PRIu64, t->b->name, t->b->size);
    TT_TRY(tt__partial_append(&t->file, data, n, t->err));
    tt__sha256_update(&t->hash, data, n);
    *t->b->done += (double)n;
    tt__progress(t->ctx, "pull", *t->b->done, t->b->total, "bytes", t->b->name);
    return tt__check_cancel(t->ctx, t->err);
}

static tt_status one_attempt(transfer *t, tt__http *h, bool *again) {
    tt__reply reply;
    char *etag = NULL;
    size_t n = 0;
    bool known = t->file.bytes && tt__exists(t->etag_file) && tt__read_file(t->etag_file, 200, &etag, &n, NULL) == TT_OK;
    for (size_t i = 0; known && i < n; i++)
        if ((unsigned char)etag[i] <= 32 || etag[i] == '"' || etag[i] == 127) known = false;
    t->begun = false;
    t->asked = t->file.bytes;
    tt_status st = tt__http_get(h, t->b->url, t->file.bytes, known ? etag : t->b->etag, on_bytes, t, &reply, again, t->err);
    tt__free(etag);
    if (st != TT_OK && reply.status == 416) {                       /* what lies here is not a beginning of what lies there */
        *again = true;
        tt_status emptied = start_anew(t);
        return emptied == TT_OK ? st : emptied;
    }
    if (st == TT_OK && t->file.bytes < t->b->size) {
        *again = true;
        st = tt__fail(t->err, TT_FAIL, "transfer cut|%s|%" PRIu64 " bytes|%" PRIu64 "|repeat the command to go on", t->b->name, t->file.bytes, t->b->size);
    }
    return st;
}

/* Tries again while attempts bring bytes, and at most ATTEMPTS times when they do not. */
static tt_status transfer_all(transfer *t, tt__http *h) {
    for (int k = 0;;) {
        uint64_t before = t->file.bytes;
        bool again = false;
        tt_status st = one_attempt(t, h, &again);
        if (t->file.bytes == t->b->size && st == TT_OK) return TT_OK;
        if (st != TT_OK && !again) return st;
        k = t->file.bytes > before ? 0 : k + 1;
        if (k >= ATTEMPTS) return st == TT_OK ? tt__fail(t->err, TT_FAIL, "transfer failed|%s", t->b->name) : st;
        tt__log(t->ctx, TT_LOG_INFO, "%s: cut at %" PRIu64 " of %" PRIu64 " bytes, going on", t->b->name, t->file.bytes, t->b->size);
        TT_TRY(tt__http_wait(t->ctx, k, t->err));
    }
}

/* ------------------------------------------------------------------ end ---- */

static tt_status verify(transfer *t) {
    char hex[65];
    if (!tt__is_hex(t->b->etag, 64)) return TT_OK;                  /* small files carry a git hash; their length was checked */
    tt__sha256_final_hex(&t->hash, hex);
    if (strcmp(hex, t->b->etag) == 0) return TT_OK;
    tt__remove(t->partial, NULL);
    tt__remove(t->etag_file, NULL);
    return tt__fail(t->err, TT_MISMATCH, "wrong SHA-256|%s|%s|%s|nothing was kept", t->b->name, hex, t->b->etag);
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
    if (t->file.bytes < t->b->size) TT_TRY(transfer_all(t, h));
    TT_TRY(verify(t));
    TT_TRY(tt__partial_commit(&t->file, t->b->path, t->err));
    return tt__remove(t->etag_file, t->err);
}

tt_status tt__blob_fetch(tt_ctx *ctx, tt__http *h, const tt__blob *b, bool force, tt_err *err) {
    transfer t = {.ctx = ctx, .b = b, .err = err, .file.fd = -1};
    tt__str partial = {0}, etag = {0};
    int lock = -1;
    tt__str_printf(&partial, "%s.incomplete", b->path);
    tt__str_printf(&etag, "%s.incomplete.etag", b->path);
    t.partial = partial.s;
    t.etag_file = etag.s;
    tt_status st = partial.failed || etag.failed ? tt__fail(err, TT_RESOURCE, "out of memory|%s", b->name) : tt__hub_lock(ctx, b->lock, &lock, err);
    if (st == TT_OK) st = fetch_locked(&t, h, force);
    tt__partial_close(&t.file);
    if (lock >= 0) close(lock);
    tt__str_free(&partial);
    tt__str_free(&etag);
    return st;
}
