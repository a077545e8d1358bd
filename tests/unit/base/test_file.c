/* The file doors: what is refused, what is written whole or not at all, fault loops over every call, names from outside. */
#include "harness/tt_test.h"

#include "base/file.h"
#include "base/util.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static bool holds(const char *path, const void *data, size_t n) {
    char *text = NULL;
    size_t size = 0;
    bool same = tt__read_file(path, 1 << 24, &text, &size, NULL) == TT_OK && size == n && (n == 0 || memcmp(text, data, n) == 0);
    tt__free(text);
    return same;
}

/* ------------------------------------------------------------ reading ---- */

TT_CASE(map_reads_and_knows_the_file) {
    tt_err err = {0};
    tt__map m;
    const char *path = tt_test_file("a", "hello", 5);
    TT_CHECK_OK(tt__map_open(path, &m, &err));
    struct stat sb;
    TT_CHECK_EQ(stat(path, &sb), 0);
    TT_CHECK(m.size == 5 && memcmp(m.data, "hello", 5) == 0 && m.dev == sb.st_dev && m.ino == sb.st_ino && m.mtime_ns > 0);
    TT_CHECK_STR(m.path, path);
    tt__map_release(&m, 0, 5);
    tt__map_release(&m, 3, UINT64_MAX);
    tt__map_release(&m, 100, 1);
    TT_CHECK(memcmp(m.data, "hello", 5) == 0);
    tt__map_close(&m);
    TT_CHECK(!m.data && !m.path);
    tt__map_close(&m);
    tt__map_close(NULL);
    TT_CHECK_OK(tt__map_open(tt_test_file("empty", "", 0), &m, &err));
    TT_CHECK(m.data && m.size == 0);
    tt__map_close(&m);
}

TT_CASE(only_regular_files_are_read) {
    tt_err err = {0};
    tt__map m;
    char *text = NULL;
    const char *pipe_path = tt_test_path("pipe");
    TT_CHECK_EQ(mkfifo(pipe_path, 0600), 0);
    const char *const bad[] = {pipe_path, tt_test_tmpdir(), "/dev/zero", "/dev/null"};
    for (size_t i = 0; i < 4; i++) {
        TT_CHECK_FAILS(TT_BADFILE, tt__map_open(bad[i], &m, &err));
        TT_CHECK(!m.data && !m.path);
        TT_CHECK_FAILS(TT_BADFILE, tt__read_file(bad[i], 1000, &text, NULL, &err));
        TT_CHECK(!text);
    }
    TT_CHECK_FAILS(TT_FAIL, tt__map_open(tt_test_path("missing"), &m, &err));
    TT_CHECK_STR(err.what, "no such file");
    TT_CHECK_FAILS(TT_FAIL, tt__read_file(tt_test_path("missing/below"), 10, &text, NULL, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__map_open("", &m, &err));
}

TT_CASE(whole_files_have_a_limit) {
    tt_err err = {0};
    char *text = NULL;
    size_t n = 0;
    const char *path = tt_test_file("a", "12345678", 8);
    TT_CHECK_OK(tt__read_file(path, 8, &text, &n, &err));
    TT_CHECK(n == 8 && text[8] == 0);
    tt__free(text);
    TT_CHECK_FAILS(TT_BADFILE, tt__read_file(path, 7, &text, &n, &err));
    TT_CHECK(!text && n == 0);
    TT_CHECK_OK(tt__read_file("/proc/self/status", 1 << 20, &text, &n, &err));    /* its stat says 0 bytes */
    TT_CHECK(n > 100 && strlen(text) == n);
    tt__free(text);
    TT_CHECK_FAILS(TT_BADFILE, tt__read_file("/proc/self/status", 50, &text, &n, &err));
}

static tt_status read_body(void *arg, tt_err *err) {
    tt__map m;
    char *text = NULL;
    TT_TRY(tt__map_open(arg, &m, err));
    tt__map_close(&m);
    TT_TRY(tt__read_file(arg, 1 << 20, &text, NULL, err));
    tt__free(text);
    return TT_OK;
}

TT_CASE(reading_survives_every_fault) {
    static char big[40000];
    char *path = (char *)(uintptr_t)tt_test_file("a", big, sizeof big);
    for (int kind = 0; kind < TT_FAULT_KINDS; kind++)
        for (int mode = TT_FAULT_ONCE; mode <= TT_FAULT_ON; mode++) tt_test_fault_loop((tt__fault_kind)kind, (tt__fault_mode)mode, read_body, path);
}

/* ------------------------------------------------------------ writing ---- */

TT_CASE(writer_writes_all_sizes) {
    tt_err err = {0};
    tt__rng r;
    tt__rng_seed(&r, 1);
    enum { N = 3000000 };
    uint8_t *data = tt__alloc(N);
    for (int i = 0; i < N; i++) data[i] = (uint8_t)tt__rng_u64(&r);
    const char *path = tt_test_path("out");
    tt__writer *w = NULL;
    TT_CHECK_OK(tt__writer_open(path, N, &w, &err));
    const size_t sizes[] = {1, 0, 7, 262143, 262144, 262145, 1000000, 100000, 1, 524288};
    size_t at = 0;
    for (size_t i = 0; at < N; i++) {
        size_t n = sizes[i % 10] < N - at ? sizes[i % 10] : N - at;
        TT_CHECK_OK(tt__write(w, data + at, n, &err));
        at += n;
        TT_CHECK_EQ(tt__writer_offset(w), at);
    }
    TT_CHECK(!tt__exists(path));                           /* not before the commit */
    TT_CHECK_OK(tt__writer_commit(w, &err));
    TT_CHECK(holds(path, data, N));
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 1);
    tt__free(data);
}

TT_CASE(patches_and_zeros) {
    tt_err err = {0};
    const char *path = tt_test_path("out");
    tt__writer *w = NULL;
    TT_CHECK_OK(tt__writer_open(path, 0, &w, &err));
    TT_CHECK_OK(tt__write(w, "????", 4, &err));
    TT_CHECK_OK(tt__write_zeros(w, 10000, &err));
    TT_CHECK_OK(tt__write_at(w, 1, "ab", 2, &err));
    TT_CHECK_OK(tt__write(w, "end", 3, &err));
    TT_CHECK_OK(tt__write_at(w, 10004, "E", 1, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__write_at(w, 10006, "xy", 2, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__write_at(w, UINT64_MAX, "xy", 2, &err));
    TT_CHECK_OK(tt__writer_commit(w, &err));
    char expected[10007] = "?ab?";
    memcpy(expected + 10004, "End", 3);
    TT_CHECK(holds(path, expected, sizeof expected));
}

TT_CASE(mode_follows_the_umask_and_is_private_before) {
    tt_err err = {0};
    const char *path = tt_test_path("out");
    mode_t old = umask(027);
    tt__writer *w = NULL;
    struct stat sb;
    TT_CHECK_OK(tt__writer_open(path, 100, &w, &err));
    DIR *d = opendir(tt_test_tmpdir());
    struct dirent *e;
    while ((e = readdir(d)) != NULL)
        if (strstr(e->d_name, ".tmp")) {
            TT_CHECK_EQ(fstatat(dirfd(d), e->d_name, &sb, 0), 0);
            TT_CHECK_EQ(sb.st_mode & 0777, 0600);
            TT_CHECK(strncmp(e->d_name, ".out.", 5) == 0 && strlen(e->d_name) == 15);
        }
    closedir(d);
    TT_CHECK_OK(tt__write(w, "x", 1, &err));
    TT_CHECK_OK(tt__writer_commit(w, &err));
    umask(old);
    TT_CHECK_EQ(stat(path, &sb), 0);
    TT_CHECK_EQ(sb.st_mode & 0777, 0640);
    TT_CHECK(sb.st_size == 1 && sb.st_blocks * 512 <= 4096);   /* what was set aside is given back */
}

TT_CASE(abort_leaves_the_old_file) {
    tt_err err = {0};
    const char *path = tt_test_file("out", "old", 3);
    tt__writer *w = NULL;
    TT_CHECK_OK(tt__writer_open(path, 0, &w, &err));
    TT_CHECK_OK(tt__write(w, "new", 3, &err));
    tt__writer_abort(w);
    tt__writer_abort(NULL);
    TT_CHECK(holds(path, "old", 3));
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 1);
}

TT_CASE(targets_that_are_no_files_are_refused) {
    tt_err err = {0};
    tt__writer *w = NULL;
    const char *link = tt_test_path("link"), *target = tt_test_file("target", "old", 3), *dir = tt_test_path("dir"), *pipe_path = tt_test_path("pipe");
    TT_CHECK_OK(tt__mkdirs(dir, &err));
    TT_CHECK_EQ(mkfifo(pipe_path, 0600), 0);
    TT_CHECK_FAILS(TT_FAIL, tt__writer_open(dir, 0, &w, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__writer_open(pipe_path, 0, &w, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__writer_open("/dev/null", 0, &w, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__writer_open("/dev/stdout", 0, &w, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__writer_open("", 0, &w, &err));
    TT_CHECK_FAILS(TT_USAGE, tt__writer_open("x/", 0, &w, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__writer_open(tt_test_path("no/such/dir"), 0, &w, &err));
    TT_CHECK(!w);
    TT_CHECK_EQ(symlink(target, link), 0);                 /* the link is replaced, its target is not touched */
    TT_CHECK_OK(tt__write_file(link, "new", 3, &err));
    struct stat sb;
    TT_CHECK(lstat(link, &sb) == 0 && S_ISREG(sb.st_mode) && holds(link, "new", 3) && holds(target, "old", 3));
}

TT_CASE(long_names_still_have_a_temporary) {
    tt_err err = {0};
    char name[256];
    memset(name, 'n', 255);
    name[255] = 0;
    const char *path = tt_test_path(name);
    TT_CHECK_OK(tt__write_file(path, "x", 1, &err));
    TT_CHECK(holds(path, "x", 1));
}

TT_CASE(a_full_disk_is_predicted) {
    tt_err err = {0};
    tt__writer *w = NULL;
    TT_CHECK_FAILS(TT_RESOURCE, tt__writer_open(tt_test_path("out"), UINT64_MAX / 2, &w, &err));
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 0);
}

/* A real write error of the system: the limit on file sizes, without its signal. */
TT_CASE(a_real_write_error_is_reported) {
    tt_err err = {0};
    const char *path = tt_test_file("out", "old", 3);
    struct rlimit old, small;
    static char big[300000];
    TT_CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    TT_CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    tt__writer *w = NULL;
    tt_status st = tt__writer_open(path, 0, &w, &err), again = TT_OK, last = TT_OK;
    if (st == TT_OK) {
        st = tt__write(w, big, sizeof big, &err);
        again = tt__write(w, "x", 1, NULL);
        last = tt__writer_commit(w, NULL);
    }
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    TT_CHECK_EQ(st, TT_RESOURCE);
    TT_CHECK_EQ(again, TT_RESOURCE);                       /* sticks */
    TT_CHECK_EQ(last, TT_RESOURCE);
    TT_CHECK(holds(path, "old", 3));
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 1);
}

/* ------------------------------------------------------------ fault loops ---- */

typedef struct target { const char *path; uint8_t *data; size_t n; } target;

static tt_status write_body(void *arg, tt_err *err) {
    const target *t = arg;
    tt__writer *w = NULL;
    TT_TRY(tt__writer_open(t->path, t->n, &w, err));
    tt_status st = tt__write(w, t->data, 5, err);
    if (st == TT_OK) st = tt__write(w, t->data + 5, t->n - 6, err);
    if (st == TT_OK) st = tt__write_zeros(w, 1, err);
    if (st == TT_OK) st = tt__write_at(w, t->n - 1, t->data + t->n - 1, 1, err);
    if (st == TT_OK) return tt__writer_commit(w, err);
    tt__writer_abort(w);
    return st;
}

/* Old bytes or new bytes, and nothing beside them. A failure leaves the old ones, unless the folder's fsync was what failed: then the new
 * file already stands. */
static void write_loop(tt__fault_kind kind, tt__fault_mode mode, target *t) {
    tt_err err = {0};
    for (uint64_t k = 1;; k++) {
        tt_test_note("kind %d, mode %d, call %llu", (int)kind, (int)mode, (unsigned long long)k);
        TT_CHECK_OK(tt__write_file(t->path, "old", 3, &err));
        uint64_t before = tt__mem_now();
        tt__fault_set(kind, k, mode);
        tt_status st = write_body(t, &err);
        bool fired = tt__fault_fired();
        tt__fault_set(kind, 0, TT_FAULT_OFF);
        TT_CHECK_EQ(tt__mem_now(), before);
        TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 1);
        bool is_new = holds(t->path, t->data, t->n);
        TT_CHECK(is_new || holds(t->path, "old", 3));
        if (st == TT_OK) TT_CHECK(is_new && (!fired || kind == TT_FAULT_ALLOC));
        if (st != TT_OK && kind != TT_FAULT_FSYNC) TT_CHECK(!is_new);
        if (!fired) break;
        TT_CHECK(st != TT_OK && err.status == st && err.what[0]);
    }
}

TT_CASE(writing_is_whole_or_nothing_under_every_fault) {
    target t = {tt_test_path("out"), tt__alloc(600000), 600000};
    for (size_t i = 0; i < t.n; i++) t.data[i] = (uint8_t)(i * 7 + 1);
    for (int kind = 0; kind < TT_FAULT_KINDS; kind++)
        for (int mode = TT_FAULT_ONCE; mode <= TT_FAULT_ON; mode++) write_loop((tt__fault_kind)kind, (tt__fault_mode)mode, &t);
    tt__free(t.data);
}

/* The process is killed at the k-th call of each kind; the file is old or new, and the next run sweeps up and succeeds. */
TT_CASE(writing_survives_a_kill_at_every_door) {
    tt_err err = {0};
    target t = {tt_test_path("out"), tt__alloc(600000), 600000};
    for (size_t i = 0; i < t.n; i++) t.data[i] = (uint8_t)(i * 7 + 1);
    const tt__fault_kind kinds[] = {TT_FAULT_OPEN, TT_FAULT_WRITE, TT_FAULT_FSYNC, TT_FAULT_RENAME, TT_FAULT_CLOSE};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (uint64_t k = 1;; k++) {
            tt_test_note("kind %d, call %llu", (int)kinds[i], (unsigned long long)k);
            TT_CHECK_OK(tt__write_file(t.path, "old", 3, &err));
            pid_t pid = fork();
            TT_CHECK(pid >= 0);
            if (pid == 0) {
                tt__fault_set(kinds[i], k, TT_FAULT_KILL);
                _exit(write_body(&t, NULL) == TT_OK ? 0 : 1);
            }
            int status = 0;
            TT_CHECK_EQ(waitpid(pid, &status, 0), pid);
            bool is_new = holds(t.path, t.data, t.n);
            TT_CHECK(is_new || holds(t.path, "old", 3));
            TT_CHECK_OK(write_body(&t, &err));
            TT_CHECK(holds(t.path, t.data, t.n));
            TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 1);
            if (WIFEXITED(status)) {
                TT_CHECK(WEXITSTATUS(status) == 0 && is_new);
                break;
            }
        }
    tt__free(t.data);
}

TT_CASE(a_writer_at_work_is_not_swept) {
    tt_err err = {0};
    const char *path = tt_test_path("out");
    tt__writer *a = NULL, *b = NULL;
    TT_CHECK_OK(tt__writer_open(path, 0, &a, &err));
    TT_CHECK_OK(tt__writer_open(path, 0, &b, &err));
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 2);
    TT_CHECK_OK(tt__write(a, "a", 1, &err));
    TT_CHECK_OK(tt__write(b, "b", 1, &err));
    TT_CHECK_OK(tt__writer_commit(a, &err));
    TT_CHECK(holds(path, "a", 1));
    TT_CHECK_OK(tt__writer_commit(b, &err));
    TT_CHECK(holds(path, "b", 1));
    tt_test_file(".out.abcdef.tmp", "stale", 5);
    tt_test_file(".outer.abcdef.tmp", "not ours", 8);
    TT_CHECK_OK(tt__write_file(path, "c", 1, &err));
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 2);
}

/* ------------------------------------------------------------ folders ---- */

TT_CASE(folders_are_made_and_removed) {
    tt_err err = {0};
    const char *root = tt_test_path("a"), *deep = tt_test_path("a/b//c/"), *file = tt_test_path("a/b/f");
    TT_CHECK_OK(tt__mkdirs(deep, &err));
    TT_CHECK_OK(tt__mkdirs(deep, &err));
    TT_CHECK(tt__is_dir(deep) && tt__exists(root) && !tt__is_dir(file));
    TT_CHECK_OK(tt__write_file(file, "x", 1, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__mkdirs(file, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__mkdirs(tt_test_path("a/b/f/g"), &err));
    TT_CHECK_FAILS(TT_USAGE, tt__mkdirs("", &err));
    TT_CHECK(tt__same_file(root, tt_test_path("a/b/..")) && !tt__same_file(root, file) && !tt__same_file(root, "/nonexistent"));
    TT_CHECK_FAILS(TT_FAIL, tt__remove(root, &err));       /* not empty */
    TT_CHECK_OK(tt__remove(file, &err));
    TT_CHECK_OK(tt__remove(file, &err));
    TT_CHECK_OK(tt__remove(tt_test_path("a/b/c"), &err));
    TT_CHECK_OK(tt__write_file(file, "x", 1, &err));
    const char *outside = tt_test_file("outside", "x", 1);
    TT_CHECK_EQ(symlink(outside, tt_test_path("a/link")), 0);
    TT_CHECK_EQ(symlink(tt_test_tmpdir(), tt_test_path("a/b/up")), 0);
    TT_CHECK_OK(tt__remove_tree(root, &err));
    TT_CHECK(!tt__exists(root) && holds(outside, "x", 1));
    TT_CHECK_OK(tt__remove_tree(root, &err));
    TT_CHECK_OK(tt__mkdirs(root, &err));
    TT_CHECK_EQ(mkfifo(tt_test_path("a/pipe"), 0600), 0);
    TT_CHECK_FAILS(TT_FAIL, tt__remove_tree(root, &err));
    unlink(tt_test_path("a/pipe"));
}

static tt_status folder_body(void *arg, tt_err *err) {
    char *deep = tt__path_join(arg, "x/y/z");
    TT_FAIL_IF(!deep, err, TT_RESOURCE, "out of memory|");
    tt_status st = tt__mkdirs(deep, err);
    tt__free(deep);
    if (st == TT_OK) st = tt__remove_tree(arg, err);
    return st;
}

TT_CASE(locks_are_private_files) {
    tt_err err = {0};
    struct stat sb;
    int fd = -1;
    const char *path = tt_test_path("lock"), *link = tt_test_path("link");
    TT_CHECK_OK(tt__lock_open(path, &fd, &err));
    TT_CHECK(fstat(fd, &sb) == 0 && (sb.st_mode & 0777) == 0600 && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
    close(fd);
    TT_CHECK_EQ(symlink(path, link), 0);
    TT_CHECK_FAILS(TT_FAIL, tt__lock_open(link, &fd, &err));
    TT_CHECK_EQ(fd, -1);
}

static tt_status swap_body(void *arg, tt_err *err) {
    const char *const *names = arg;
    TT_TRY(tt__mkdirs(names[0], err));
    TT_TRY(tt__rename_folder(names[0], names[1], err));
    return tt__remove_tree(names[1], err);
}

TT_CASE(a_folder_is_renamed_whole) {
    const char *names[] = {tt_test_path("a"), tt_test_path("b")};
    for (int kind = TT_FAULT_OPEN; kind <= TT_FAULT_CLOSE; kind++)
        for (int mode = TT_FAULT_ONCE; mode <= TT_FAULT_ON; mode++) tt_test_fault_loop((tt__fault_kind)kind, (tt__fault_mode)mode, swap_body, names);
}

static bool is_old(const char *name) { return !strcmp(name, "old"); }

static const char *in(const char *dir, const char *name) {
    char both[64];
    snprintf(both, sizeof both, "%s/%s", dir, name);
    return tt_test_path(both);
}

static tt_status exchange_body(void *arg, tt_err *err) {
    bool *done = arg;
    const char *from = tt_test_path("a"), *to = tt_test_path("b");
    tt__remove_tree(from, NULL), tt__remove_tree(to, NULL);
    TT_TRY(tt__mkdirs(from, err));
    TT_TRY(tt__mkdirs(to, err));
    TT_TRY(tt__write_file(in("a", "x"), "new", 3, err));
    TT_TRY(tt__write_file(in("b", "x"), "old", 3, err));
    return tt__swap_folder(from, to, is_old, done, err);
}

TT_CASE(folders_change_places) {
    bool done = false;
    tt_err err = {0};
    char *text = NULL;
    TT_CHECK_OK(exchange_body(&done, &err));
    if (!done) TT_SKIP("no exchange of folders on this file system");
    TT_CHECK(!tt__exists(tt_test_path("a")));
    TT_CHECK_OK(tt__read_file(in("b", "x"), 10, &text, NULL, &err));
    TT_CHECK_STR(text, "new");
    tt__free(text);
    /* what the new one lacks comes along, what is stale does not */
    TT_CHECK_OK(tt__mkdirs(tt_test_path("a"), &err));
    TT_CHECK_OK(tt__write_file(in("b", "kept"), "k", 1, &err));
    TT_CHECK_OK(tt__write_file(in("b", "old"), "o", 1, &err));
    TT_CHECK_OK(tt__swap_folder(tt_test_path("a"), tt_test_path("b"), is_old, &done, &err));
    TT_CHECK(done && tt__exists(in("b", "kept")) && tt__exists(in("b", "x")) && !tt__exists(in("b", "old")));
    /* a folder inside is not ours to move */
    TT_CHECK_OK(tt__mkdirs(tt_test_path("a"), &err));
    TT_CHECK_OK(tt__mkdirs(in("b", "sub"), &err));
    TT_CHECK_OK(tt__swap_folder(tt_test_path("a"), tt_test_path("b"), NULL, &done, &err));
    TT_CHECK(!done && tt__exists(tt_test_path("a")) && tt__exists(in("b", "sub")));
    /* a folder of other things is no empty folder */
    tt__remove_empty(tt_test_path("b"));
    TT_CHECK(tt__exists(tt_test_path("b")));
}

TT_CASE(exchanged_folders_are_old_or_new) {
    bool done = false;
    for (int kind = TT_FAULT_OPEN; kind <= TT_FAULT_CLOSE; kind++) {
        for (uint64_t k = 1; k < 40; k++) {
            tt_err err = {0};
            char *text = NULL;
            tt__fault_set((tt__fault_kind)kind, k, TT_FAULT_ONCE);
            tt_status st = exchange_body(&done, &err);
            bool fired = tt__fault_fired();
            tt__fault_set(TT_FAULT_ALLOC, 0, TT_FAULT_OFF);
            if (st == TT_OK && !done) TT_SKIP("no exchange of folders on this file system");
            if (tt__read_file(in("b", "x"), 10, &text, NULL, &err) == TT_OK) TT_CHECK(!strcmp(text, "old") || !strcmp(text, "new"));
            if (st == TT_OK) TT_CHECK(!tt__exists(tt_test_path("a")));
            tt__free(text);
            if (!fired) break;
        }
    }
}

TT_CASE(folders_survive_every_fault) {
    char *root = (char *)(uintptr_t)tt_test_path("r");
    for (int kind = 0; kind < TT_FAULT_KINDS; kind++)
        for (int mode = TT_FAULT_ONCE; mode <= TT_FAULT_ON; mode++) tt_test_fault_loop((tt__fault_kind)kind, (tt__fault_mode)mode, folder_body, root);
}

TT_CASE(names_from_outside_stay_inside) {
    tt_err err = {0};
    char *path = NULL, big[300];
    memset(big, 'a', sizeof big);
    big[255] = 0;
    static const char *const good[] = {"model.safetensors", "a/b/c.json", "..a", "a..", "...", ".hidden", "a b", "\xc3\xa9.txt", "-x", "a/.b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char expected[64];
        snprintf(expected, sizeof expected, "d/%s", good[i]);
        TT_CHECK_OK(tt__path_join_checked("d", good[i], &path, &err));
        TT_CHECK_STR(path, expected);
        tt__free(path);
    }
    TT_CHECK_OK(tt__path_join_checked("d/", big, &path, &err));
    tt__free(path);
    big[255] = 'a';
    big[256] = 0;
    const char *const bad[] = {"", "/etc/passwd", "..", "../x", "a/../x", "a/..", ".", "./x", "a/./b", "a//b", "a/", "a\nb", "a\x1f", "a\x7f", "..\\x", "C:x", "~/x", "~root", "//x", big};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_test_note("%zu", i);
        TT_CHECK_FAILS(TT_BADFILE, tt__path_join_checked("d", bad[i], &path, &err));
        TT_CHECK(!path);
    }
    path = tt__path_join("", "x");
    TT_CHECK_STR(path, "x");
    tt__free(path);
    path = tt__path_join("/", "x");
    TT_CHECK_STR(path, "/x");
    tt__free(path);
}
