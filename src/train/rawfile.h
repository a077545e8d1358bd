/* State of long work as plain files of numbers: whole or absent (written beside and renamed), of exactly the expected size. */
#ifndef TT_TRAIN_RAWFILE_H
#define TT_TRAIN_RAWFILE_H
#include "base/file.h"
#include "base/err.h"
#include "base/mem.h"
#include <string.h>

static inline tt_status tt__raw_path(const char *dir, const char *name, char **path, tt_err *err) {
    *path = tt__path_join(dir, name);
    TT_FAIL_IF(!*path, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

static inline bool tt__raw_exists(const char *dir, const char *name) {
    char *path = tt__path_join(dir, name);
    bool yes = path && tt__exists(path);
    tt__free(path);
    return yes;
}

static inline tt_status tt__raw_write(const char *dir, const char *name, const void *data, size_t bytes, tt_err *err) {
    char *path;
    TT_TRY(tt__raw_path(dir, name, &path, err));
    tt_status st = tt__write_file(path, data, bytes, err);
    tt__free(path);
    return st;
}

/* Bytes at … at + bytes of a file of `whole` bytes. */
static inline tt_status tt__raw_read_part(const char *dir, const char *name, size_t at, void *data, size_t bytes, size_t whole, tt_err *err) {
    char *path;
    tt__map map;
    TT_TRY(tt__raw_path(dir, name, &path, err));
    tt_status st = tt__map_open(path, &map, err);
    if (st == TT_OK) {
        if (map.size == whole) memcpy(data, map.data + at, bytes);
        else st = tt__fail(err, TT_BADFILE, "state file has the wrong size|%s|%llu bytes|%zu", path, (unsigned long long)map.size, whole);
        tt__map_close(&map);
    }
    tt__free(path);
    return st;
}

static inline tt_status tt__raw_read(const char *dir, const char *name, void *data, size_t bytes, tt_err *err) {
    return tt__raw_read_part(dir, name, 0, data, bytes, bytes, err);
}
#endif
