/* Growing files: they go on where they were, become the target whole, and survive every fault. */
#include "harness/tt_test.h"

#include "base/err.h"
#include "base/file.h"
#include "base/partial.h"
#include <sys/stat.h>
#include <unistd.h>

static bool holds(const char *path, const char *text) {
    char *found = NULL;
    bool same = tt__read_file(path, 1000, &found, NULL, NULL) == TT_OK && strcmp(found, text) == 0;
    tt__free(found);
    return same;
}

TT_CASE(it_goes_on_where_it_was) {
    tt_err err = {0};
    tt__partial p;
    char back[4] = "";
    const char *path = tt_test_path("blob.incomplete"), *target = tt_test_path("blob");
    TT_CHECK_OK(tt__partial_open(path, &p, &err));
    TT_CHECK_OK(tt__partial_append(&p, "abc", 3, &err));
    tt__partial_close(&p);
    tt__partial_close(&p);
    TT_CHECK_OK(tt__partial_open(path, &p, &err));
    TT_CHECK_EQ(p.bytes, 3u);
    TT_CHECK_OK(tt__partial_append(&p, "def", 3, &err));
    TT_CHECK_OK(tt__partial_read(&p, 2, back, 3, &err));
    TT_CHECK_STR(back, "cde");
    TT_CHECK_FAILS(TT_FAIL, tt__partial_read(&p, 4, back, 3, &err));
    TT_CHECK_OK(tt__partial_room(&p, 1000, &err));
    TT_CHECK_FAILS(TT_RESOURCE, tt__partial_room(&p, UINT64_MAX, &err));
    TT_CHECK_OK(tt__partial_commit(&p, target, &err));
    TT_CHECK(holds(target, "abcdef") && !tt__exists(path));
    TT_CHECK_OK(tt__partial_open(path, &p, &err));
    TT_CHECK_OK(tt__partial_append(&p, "xyz", 3, &err));
    TT_CHECK_OK(tt__partial_empty(&p, &err));
    TT_CHECK_OK(tt__partial_append(&p, "new", 3, &err));
    TT_CHECK_OK(tt__partial_commit(&p, target, &err));
    TT_CHECK(holds(target, "new"));
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 1);
}

TT_CASE(links_pipes_and_folders_are_refused) {
    tt_err err = {0};
    tt__partial p;
    const char *link = tt_test_path("link"), *pipe_path = tt_test_path("pipe");
    TT_CHECK(symlink(tt_test_file("f", "x", 1), link) == 0 && mkfifo(pipe_path, 0600) == 0);
    TT_CHECK_FAILS(TT_FAIL, tt__partial_open(link, &p, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__partial_open(pipe_path, &p, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__partial_open(tt_test_tmpdir(), &p, &err));
    TT_CHECK(!p.path && p.fd == -1);
}

TT_CASE(a_link_replaces_what_was_there) {
    const char *path = tt_test_file("name", "old", 3);
    tt_test_file("blob", "new", 3);
    TT_CHECK(tt__link_into("blob", path) && tt__link_into("blob", path) && holds(path, "new"));
    TT_CHECK(!tt__link_into("blob", tt_test_path("no/such/folder")));
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 2);
}

static tt_status body(void *arg, tt_err *err) {
    const char *const *names = arg;
    tt__partial p;
    char back[3];
    TT_TRY(tt__partial_open(names[0], &p, err));
    tt_status st = tt__partial_append(&p, "abc", 3, err);
    if (st == TT_OK) st = tt__partial_read(&p, 0, back, 3, err);
    if (st == TT_OK) return tt__partial_commit(&p, names[1], err);
    tt__partial_close(&p);
    return st;
}

TT_CASE(it_survives_every_fault) {
    const char *names[] = {tt_test_path("blob.incomplete"), tt_test_path("blob")};
    for (int kind = 0; kind < TT_FAULT_KINDS; kind++)
        for (int mode = TT_FAULT_ONCE; mode <= TT_FAULT_ON; mode++) tt_test_fault_loop((tt__fault_kind)kind, (tt__fault_mode)mode, body, names);
    TT_CHECK(tt__exists(names[1]) && !tt__exists(names[0]));
}
