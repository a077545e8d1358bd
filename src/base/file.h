/* The file doors. Reading: a mapped, bounded view of a regular file. Writing: beside the target, fsync, rename, fsync the folder;
 * a killed or failed run leaves the old file or the new one, never a third thing (RELIABILITY W1, W2, F8, D4).
 */
#ifndef TT_BASE_FILE_H
#define TT_BASE_FILE_H

#include "trimtab/status.h"
#include <stdbool.h>
#include <stdint.h>

/* ---- reading ---- */
typedef struct tt__map {
    const uint8_t *data;        /* lent; valid until tt__map_close */
    uint64_t size;
    uint64_t dev, ino, mtime_ns; /* identity at open, for caches and for "output is input" checks */
    char *path;
} tt__map;

/* Maps a regular file read-only. Empty files give data != NULL, size 0. Pipes, folders, devices are refused (TT_BADFILE); a
 * missing file is TT_FAIL "no such file". */
tt_status tt__map_open(const char *path, tt__map *out, tt_err *err);
void tt__map_close(tt__map *map);
/* Tells the system that these bytes are not needed resident any more (used after repacking). */
void tt__map_release(const tt__map *map, uint64_t offset, uint64_t bytes);

/* Reading without a map, for many threads at once: bytes that go into memory of the caller leave no pages behind. A file that ends before
 * offset + bytes is TT_BADFILE. The caller closes fd with tt__read_close. */
tt_status tt__read_open(const char *path, int *fd, tt_err *err);
tt_status tt__read_at(int fd, const char *path, uint64_t offset, void *out, size_t bytes, tt_err *err);
void tt__read_close(int fd);

/* Whole small file into memory, NUL-terminated; refuses above `limit` bytes. Caller frees *out with tt__free. */
tt_status tt__read_file(const char *path, uint64_t limit, char **out, size_t *size, tt_err *err);

bool tt__exists(const char *path);
bool tt__is_dir(const char *path);
bool tt__same_file(const char *a, const char *b);     /* dev and inode equal */

/* ---- writing ---- */
typedef struct tt__writer tt__writer;
/* Starts "DIR/.NAME.XXXXXX.tmp" beside path (O_EXCL|O_NOFOLLOW, mode 0600, final mode by umask), after removing those that a killed run
 * left (their lock is free). A link at path is replaced itself; folders, devices, pipes are refused. expect_bytes > 0: checks free
 * space and reserves it first, TT_RESOURCE when the disk is too small. */
tt_status tt__writer_open(const char *path, uint64_t expect_bytes, tt__writer **out, tt_err *err);
tt_status tt__write(tt__writer *w, const void *data, size_t bytes, tt_err *err);   /* buffered */
tt_status tt__write_zeros(tt__writer *w, size_t bytes, tt_err *err);
tt_status tt__write_at(tt__writer *w, uint64_t offset, const void *data, size_t bytes, tt_err *err); /* patch earlier bytes */
uint64_t tt__writer_offset(const tt__writer *w);
/* Frees w in every case. On failure the temporary is gone and the old file stays; only when the last step, the fsync of the folder, is
 * what failed, the new file already stands, whole. */
tt_status tt__writer_commit(tt__writer *w, tt_err *err);
void tt__writer_abort(tt__writer *w);                       /* NULL is fine */

/* write + commit of a small file */
tt_status tt__write_file(const char *path, const void *data, size_t bytes, tt_err *err);

/* Opens (or makes, mode 0600) a file to lock with flock; links are not followed. The caller closes *fd. */
tt_status tt__lock_open(const char *path, int *fd, tt_err *err);
/* Opens and locks it; *fd = -1 when another process holds it. A file that its last owner removed in between is not taken for the lock. */
tt_status tt__lock_take(const char *path, int *fd, tt_err *err);
void tt__lock_drop(const char *path, int fd);               /* removes the file and lets go; fd < 0 is fine */

tt_status tt__mkdirs(const char *path, tt_err *err);        /* like mkdir -p, mode 0777 & ~umask */
tt_status tt__remove(const char *path, tt_err *err);        /* a file or an empty folder; missing is fine */
void tt__remove_empty(const char *path);                    /* a folder if it is empty; anything else stays */
tt_status tt__remove_tree(const char *path, tt_err *err);   /* only regular files and folders, does not follow links */
/* A finished folder into its place, where nothing or an empty folder may be; both in the same parent; the parent made durable. */
tt_status tt__rename_folder(const char *from, const char *to, tt_err *err);
/* The same where a folder with files is: the two change places in one step, then the old one goes. Files of the old one that the new one
 * lacks come along, except those that `stale` (may be NULL) names. *done is false, and nothing has changed, where that cannot be: the old
 * folder holds more than plain files, or the file system lacks hard links or the exchange. */
tt_status tt__swap_folder(const char *from, const char *to, bool (*stale)(const char *name), bool *done, tt_err *err);

/* A path inside a folder, from an untrusted name: no '/', "..", NUL, control bytes at the wrong places; ≤ 255 bytes (D2).
 * Sub-folders allowed with '/'. Fails TT_BADFILE. Caller frees. */
tt_status tt__path_join_checked(const char *dir, const char *relative, char **out, tt_err *err);
char *tt__path_join(const char *dir, const char *name);     /* trusted parts; NULL when out of memory; caller frees */

#endif
