/* Where models come from and where they lie.
 *
 *     places.c      the folders of the caches              names.c   org/name[:TYPE][@rev], and which files of a repository are meant
 *     catalogue.c   the built-in list; wheels through pip   wheel.c   pip as a child process, one pinned member of a zip
 *     repo.c        repositories of the hub                blob.c    one file: resume, verify, rename       http.c   requests
 *
 *     hub cache (shared with Python tools)                             catalogue
 *     models--org--name/blobs/<etag>                                   models/<name>/<file>
 *     models--org--name/blobs/<etag>.incomplete[.etag]  while pulling
 *     models--org--name/refs/<revision>: a commit
 *     models--org--name/snapshots/<commit>/<file> -> ../../blobs/<etag>
 *     .locks/models--org--name/<etag>.lock
 *
 * Nothing a server says becomes a path before it is checked: etags and commits are hexadecimal of one length (D1), file names go through
 * tt__path_join_checked (D2). The token goes to the endpoint's own origin only (D5), every hop's address is looked at when the socket is
 * opened (D6), answers have bounds and are never decompressed (D7).
 */
#ifndef TT_HUB_HUB_H
#define TT_HUB_HUB_H
#include "base/ctx.h"
#include "base/util.h"

/* ---- places ---- */
tt_status tt__hub_folder(char **out, tt_err *err);            /* caller frees */
tt_status tt__catalogue_folder(char **out, tt_err *err);
tt_status tt__run_folder(char **out, tt_err *err);            /* of models repacked for running */
tt_status tt__teacher_folder(char **out, tt_err *err);        /* of what teachers said (train/teacher.h) */
/* Room for `bytes` more under a limit of such a folder: the oldest files with this suffix go. False when that many never fit. */
bool tt__make_room(const char *dir, const char *suffix, uint64_t limit, uint64_t bytes);
bool tt__hub_offline(void);                                    /* HF_HUB_OFFLINE */
tt_status tt__mkdirs_private(const char *path, tt_err *err);   /* folders that are new get mode 0700 */
/* Waits for the lock file of that name, asking for cancellation meanwhile. *fd is given back with close. */
tt_status tt__hub_lock(tt_ctx *ctx, const char *path, int *fd, tt_err *err);

/* ---- names ---- */
typedef struct tt__ref { char repo[200], type[32], revision[128]; } tt__ref;  /* "org/name", "" or "Q4_K_M", "" or "main" */
bool tt__ref_parse(const char *text, tt__ref *out);            /* false: it does not look like one */
/* Marks what is meant among n file names: `include` glob, else one GGUF (its shards), else the parts of a Hugging Face folder.
 * *main: the index of the file to open, -1 when the folder is meant. False when there is nothing to open. */
bool tt__choose_files(const char *const *files, size_t n, const char *type, const char *include, bool *wanted, long *main);

/* Of "x-00002-of-00005.gguf" the number 2, *stem = 1, *of = 5; 0 when it is no shard. */
int tt__gguf_shard(const char *name, size_t *stem, int *of);

/* ---- catalogue ---- */
typedef struct tt__member { const char *catalogue, *member, *file; uint64_t bytes; const char *sha256; } tt__member;
typedef struct tt__catalogue { const char *name, *package, *version, *licence, *main; } tt__catalogue;  /* main: "" means the folder */
size_t tt__catalogue_count(void);
const tt__catalogue *tt__catalogue_get(size_t i);
const tt__catalogue *tt__catalogue_find(const char *name);
uint64_t tt__catalogue_bytes(const tt__catalogue *e);
tt_status tt__catalogue_path(const tt__catalogue *e, bool *present, char **path, tt_err *err);
tt_status tt__catalogue_pull(tt_ctx *ctx, const tt__catalogue *e, bool force, char **path, tt_err *err);

/* ---- wheels ---- */
tt_status tt__wheel_download(tt_ctx *ctx, const char *package, const char *version, const char *dir, char **wheel, tt_err *err);
tt_status tt__wheel_extract(tt_ctx *ctx, const char *wheel, const tt__member *m, const char *target, tt_err *err);

/* ---- requests ---- */
typedef struct tt__http tt__http;
typedef struct tt__reply {
    long status;
    char etag[200], linked_etag[200], commit[64], location[4096], content_range[100];
    int64_t length, linked_size;                               /* -1: not said */
} tt__reply;
/* Bytes of a 200 or 206 answer; another status than TT_OK stops the transfer. */
typedef tt_status (*tt__sink_fn)(void *user, const tt__reply *reply, const void *data, size_t n);

tt_status tt__http_open(tt_ctx *ctx, const char *endpoint, const char *token, tt__http **out, tt_err *err);
void tt__http_close(tt__http *h);
/* HEAD; follows redirects only inside the endpoint's origin, because the headers of the first hop are the ones that count. */
tt_status tt__http_head(tt__http *h, const char *url, tt__reply *reply, tt_err *err);
tt_status tt__http_json(tt__http *h, const char *url, json_t **out, tt_err *err);
/* GET from byte `from` on (if_range may be NULL). *again: the failure may pass (cut, stalled, 5xx, 429). */
tt_status tt__http_get(tt__http *h, const char *url, uint64_t from, const char *if_range, tt__sink_fn sink, void *user, tt__reply *reply, bool *again, tt_err *err);
/* Before attempt k + 1: 0.25 s, 0.5 s, 1 s … unless cancelled. */
tt_status tt__http_wait(tt_ctx *ctx, int k, tt_err *err);
/* "text" as one or more path segments of a URL. Caller frees; NULL when out of memory. */
char *tt__url_escape(const char *path);

/* ---- one file ---- */
typedef struct tt__blob {
    const char *url, *name;          /* for requests, for people */
    const char *path, *lock;         /* blobs/<etag> */
    const char *etag;                /* 64 hex: a SHA-256 that is verified */
    uint64_t size;
    double *done, total;             /* progress over all files of a pull */
} tt__blob;
tt_status tt__blob_fetch(tt_ctx *ctx, tt__http *h, const tt__blob *b, bool force, tt_err *err);
bool tt__is_hex(const char *s, size_t n);

/* ---- repositories ---- */
typedef struct tt__repo_options { const char *include, *token; bool force; } tt__repo_options;
/* *path stays NULL when the cache holds nothing that fits. */
tt_status tt__repo_cached(const tt__ref *ref, const char *include, char **path, tt_err *err);
tt_status tt__repo_pull(tt_ctx *ctx, const tt__ref *ref, const tt__repo_options *o, char **path, tt_err *err);
/* Calls visit for each repository of the cache; path as tt__repo_cached gives it (NULL: nothing to open). */
typedef tt_status (*tt__repo_fn)(void *user, const char *repo, const char *path, uint64_t bytes, tt_err *err);
tt_status tt__repo_each(tt__repo_fn visit, void *user, tt_err *err);
#endif
