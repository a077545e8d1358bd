/* Reading the seeds in tests/fuzz/corpus: each file by name, in order. Programs run in the root of the tree. */
#ifndef TT_TESTS_CORPUS_H
#define TT_TESTS_CORPUS_H
#include "base/file.h"
#include "base/mem.h"
#include "harness/tt_test.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct corpus { char dir[256]; struct dirent **list; int n; } corpus;

static inline corpus corpus_open(const char *target) {
    corpus c = {0};
    snprintf(c.dir, sizeof c.dir, "tests/fuzz/corpus/%s", target);
    c.n = scandir(c.dir, &c.list, NULL, alphasort);
    if (c.n <= 2) tt_test_fail(__FILE__, __LINE__, "no seeds in %s: run from the root of the tree", c.dir);
    return c;
}
static inline void corpus_close(corpus *c) {
    for (int i = 0; i < c->n; i++) free(c->list[i]);
    free(c->list);
}
/* NULL for "." and ".."; else the bytes, freed with tt__free. */
static inline char *corpus_read(const corpus *c, int i, size_t *n) {
    char path[600];
    char *bytes;
    tt_err err = {0};
    if (c->list[i]->d_name[0] == '.') return NULL;
    snprintf(path, sizeof path, "%s/%s", c->dir, c->list[i]->d_name);
    if (tt__read_file(path, 1 << 20, &bytes, n, &err) != TT_OK) tt_test_fail(__FILE__, __LINE__, "%s: %s", path, err.what);
    tt_test_note("%s", c->list[i]->d_name);
    return bytes;
}
static inline bool corpus_is(const corpus *c, int i, const char *prefix) { return strncmp(c->list[i]->d_name, prefix, strlen(prefix)) == 0; }
#endif
