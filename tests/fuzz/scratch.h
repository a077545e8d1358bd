/* A folder for fuzz targets that work on files: in memory where the system has such a place, made once, emptied by the target. */
#ifndef TT_FUZZ_SCRATCH_H
#define TT_FUZZ_SCRATCH_H
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch_dir[256];

static void scratch_remove(void) {
    DIR *d = opendir(scratch_dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    rmdir(scratch_dir);
}
static inline const char *scratch(void) {
    const char *tmp = getenv("TMPDIR");
    if (scratch_dir[0]) return scratch_dir;
    snprintf(scratch_dir, sizeof scratch_dir, "%s/trimtab-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : tmp ? tmp : "/tmp");
    if (!mkdtemp(scratch_dir)) abort();
    atexit(scratch_remove);
    return scratch_dir;
}
static inline const char *scratch_path(const char *name) {
    static char path[2][512];
    static int turn;
    turn ^= 1;
    snprintf(path[turn], sizeof path[turn], "%s/%s", scratch(), name);
    return path[turn];
}
static inline void scratch_file(const char *name, const void *data, size_t n) {
    FILE *f = fopen(scratch_path(name), "wb");
    if (!f || (n && fwrite(data, 1, n, f) != n) || fclose(f) != 0) abort();
}
#endif
