/* What the program says. Results go to stdout; errors, log, notes and progress go to stderr. A bar is drawn only on a terminal; into a
 * file or a pipe goes one line per 5 %. An error is one line: "trimtab VERB: what: where (got …, expected …); hint".
 */
#include "cli.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ------------------------------------------------------------------ numbers as text ---- */

const char *text_bytes(uint64_t n, char buf[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double x = (double)n;
    int u = 0;
    while (x >= 1024 && u < 4) x /= 1024, u++;
    snprintf(buf, 32, u ? "%.1f %s" : "%.0f %s", x, units[u]);
    return buf;
}

const char *text_count(uint64_t n, char buf[32]) {
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%" PRIu64, n), o = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0) buf[o++] = ',';
        buf[o++] = digits[i];
    }
    buf[o] = 0;
    return buf;
}

const char *text_time(double s, char buf[32]) {
    int64_t t = (int64_t)(s + 0.5);
    if (s < 10) snprintf(buf, 32, "%.1fs", s);
    else if (t < 60) snprintf(buf, 32, "%" PRId64 "s", t);
    else if (t < 3600) snprintf(buf, 32, "%" PRId64 "m%02" PRId64 "s", t / 60, t % 60);
    else snprintf(buf, 32, "%" PRId64 "h%02" PRId64 "m", t / 3600, t / 60 % 60);
    return buf;
}

/* ------------------------------------------------------------------ progress ---- */

static struct {
    bool bar, plain, json, on_line;
    char task[40];
    double start, first, last_print;
    int last_step;
    double before, part, whole;              /* see progress_within */
    char what[80];
} progress;

static void clear_bar(void) {
    if (progress.on_line) fputs("\r\033[K", stderr);
    progress.on_line = false;
}

static bool is_bytes(const char *unit) { return strcmp(unit, "bytes") == 0 || strcmp(unit, "B") == 0; }

static void amount(double x, const char *unit, char out[32]) {
    if (is_bytes(unit)) text_bytes((uint64_t)x, out);
    else snprintf(out, 32, "%.0f", x);
}

/* "compress [=====     ]  52 %  110/210 tensors  1.4 tensors/s  ETA 1m12s  note"; without a total only what is done. */
static void draw_bar(const char *task, double done, double total, const char *unit, const char *text, double rate, double left) {
    char a[32], b[32], r[32], eta[32], bar[31];
    const char *sep = is_bytes(unit) ? "" : " ", *name = is_bytes(unit) ? "" : unit;
    int cells = total > 0 ? (int)(30 * done / total) : 0;
    memset(bar, ' ', 30);
    memset(bar, '=', (size_t)(cells > 30 ? 30 : cells));
    bar[30] = 0;
    amount(done, unit, a);
    amount(total, unit, b);
    if (is_bytes(unit)) text_bytes((uint64_t)rate, r);
    else snprintf(r, sizeof r, rate >= 10 ? "%.0f" : "%.2f", rate);
    if (total > 0) fprintf(stderr, "\r\033[K%s [%s] %3.0f %%  %s/%s%s%s  %s%s%s/s", task, bar, 100 * done / total, a, b, sep, name, r, sep, name);
    else fprintf(stderr, "\r\033[K%s  %s%s%s", task, a, sep, name);
    fprintf(stderr, "%s%s%s%.40s", left >= 0 ? "  ETA " : "", left >= 0 ? text_time(left, eta) : "", *text ? "  " : "", text);
    progress.on_line = true;
    fflush(stderr);
}

static void plain_line(const char *task, double done, double total, const char *unit, const char *text, double left) {
    char a[32], b[32], eta[32];
    const char *sep = is_bytes(unit) ? "" : " ", *name = is_bytes(unit) ? "" : unit;
    amount(done, unit, a);
    amount(total, unit, b);
    if (total > 0) fprintf(stderr, "%s: %3.0f %%, %s of %s%s%s", task, 100 * done / total, a, b, sep, name);
    else fprintf(stderr, "%s: %s%s%s", task, a, sep, name);
    fprintf(stderr, "%s%s%s%s\n", left > 0 ? ", ETA " : "", left > 0 ? text_time(left, eta) : "", *text ? ", " : "", text);
}

static void json_line(const char *task, double done, double total, const char *unit, const char *text, double rate, double left) {
    json_t *o = json_pack("{s:s, s:o, s:o, s:s, s:o, s:o, s:o}", "task", task, "done", j_real(done), "total", j_real(total), "unit", unit, "rate", j_real(rate),
                          "eta", left >= 0 ? j_real(left) : json_null(), "note", j_text(text));
    char *s = o ? json_dumps(o, JSON_COMPACT) : NULL;
    if (s) fprintf(stderr, "%s\n", s);
    free(s);
    json_decref(o);
}

void progress_within(double before, double part, double whole, const char *what) {
    progress.before = before, progress.part = part, progress.whole = whole;
    snprintf(progress.what, sizeof progress.what, "%s", what);
}

static void on_progress(void *user, const char *task, double done, double total, const char *unit, const char *text) {
    (void)user;
    double now = seconds_now();
    if (progress.whole > 0 && total > 0) {
        done = progress.before + progress.part * done / total;
        total = progress.whole;
        unit = "units";
        text = progress.what;
    }
    if (strcmp(task, progress.task) != 0 || done < progress.first) {
        clear_bar();
        snprintf(progress.task, sizeof progress.task, "%s", task);
        progress.start = now;
        progress.first = done;
        progress.last_print = 0;
        progress.last_step = -1;
    }
    bool end = total > 0 && done >= total;
    double rate = now > progress.start ? (done - progress.first) / (now - progress.start) : 0;
    double left = rate > 0 && total > done ? (total - done) / rate : end ? 0 : -1;
    int step = total > 0 ? (int)(20 * done / total) : (int)(now - progress.start) / 30;
    if (progress.bar && (end || now - progress.last_print > 0.1)) {
        draw_bar(task, done, total, unit, text ? text : "", rate, left);
        progress.last_print = now;
        if (end) fputc('\n', stderr), progress.on_line = false;
    } else if (progress.plain && step > progress.last_step) {
        plain_line(task, done, total, unit, text ? text : "", left);
        progress.last_step = step;
    } else if (progress.json && (end || now - progress.last_print > 0.5)) {
        json_line(task, done, total, unit, text, rate, left);
        progress.last_print = now;
    }
}

static void choose_progress(const cli *c) {
    const char *mode = opt_s(c, O_progress);
    bool quiet = opt_b(c, O_quiet) || (getenv("HF_HUB_DISABLE_PROGRESS_BARS") && strcmp(mode, "auto") == 0), tty = isatty(STDERR_FILENO) == 1;
    progress.bar = !quiet && strcmp(mode, "auto") == 0 && tty;
    progress.plain = !quiet && (strcmp(mode, "plain") == 0 || (strcmp(mode, "auto") == 0 && !tty));
    progress.json = strcmp(mode, "json") == 0;
}

/* ------------------------------------------------------------------ log and errors ---- */

static FILE *log_file;
static tt_log_level log_level;

static void on_log(void *user, tt_log_level level, const char *line) {
    static const char *const names[] = {"error", "warning", "info", "debug"};
    const cli *c = user;
    if (level > log_level) return;
    if (!opt_b(c, O_quiet)) {
        clear_bar();
        fprintf(stderr, "trimtab: %s: %s\n", names[level], line);
    }
    if (log_file) fprintf(log_file, "%s: %s\n", names[level], line), fflush(log_file);
}

void note(const cli *c, const char *fmt, ...) {
    va_list ap;
    if (opt_b(c, O_quiet)) return;
    clear_bar();
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

static int print_error(const cli *c, tt_status status, const tt_err *err) {
    char line[1300];
    clear_bar();
    tt_err_line(err, line, sizeof line);
    fprintf(stderr, "trimtab%s%s: %s\n", c && c->verb ? " " : "", c && c->verb ? c->verb->name : "", line);
    if (log_file) fprintf(log_file, "error: %s\n", line);
    return (int)status;
}

int fail(const cli *c, tt_status status, const tt_err *err) {
    tt_err plain = *err;
    if (!plain.what[0]) snprintf(plain.what, sizeof plain.what, "%s", tt_status_meaning(status));
    if ((status == TT_INTERRUPTED || status == TT_TERMINATED) && !plain.hint[0] && (verb_has(c->verb, &options[O_resume]) || c->verb->run == cmd_pull))
        snprintf(plain.hint, sizeof plain.hint, "repeat the command to go on");
    return print_error(c, status, &plain);
}

static void copy_text(char *to, size_t n, const char *from) {
    size_t i = 0;
    for (; from && from[i] && i + 1 < n; i++) to[i] = (unsigned char)from[i] < 32 || from[i] == 127 ? '?' : from[i];
    to[i] = 0;
}

int usage_error(const cli *c, const char *what, const char *got, const char *expected, const char *hint) {
    tt_err err = {.status = TT_USAGE};
    copy_text(err.what, sizeof err.what, what);
    copy_text(err.got, sizeof err.got, got);
    copy_text(err.expected, sizeof err.expected, expected);
    copy_text(err.hint, sizeof err.hint, hint);
    return print_error(c, TT_USAGE, &err);
}

int fail_text(const cli *c, tt_status status, const char *what, const char *where, const char *hint) {
    tt_err err = {.status = status};
    copy_text(err.what, sizeof err.what, what);
    copy_text(err.where, sizeof err.where, where);
    copy_text(err.hint, sizeof err.hint, hint);
    return print_error(c, status, &err);
}

/* ------------------------------------------------------------------ JSON ---- */

bool json_wanted(const cli *c) { return opt_b(c, O_json); }

json_t *j_real(double x) { return isfinite(x) ? json_real(x) : json_null(); }

/* Bytes that are not UTF-8 become U+FFFD; JSON has no other place for them. */
json_t *j_text(const char *s) {
    if (!s) return json_null();
    json_t *v = json_string(s);
    if (v) return v;
    size_t n = strlen(s), o = 0;
    char *clean = malloc(3 * n + 1);
    for (size_t i = 0; clean && i < n;) {
        int len = (s[i] & 0x80) == 0 ? 1 : (s[i] & 0xe0) == 0xc0 ? 2 : (s[i] & 0xf0) == 0xe0 ? 3 : 4;
        json_t *one = (size_t)len <= n - i ? json_stringn(s + i, (size_t)len) : NULL;
        if (one) memcpy(clean + o, s + i, (size_t)len), o += (size_t)len, i += (size_t)len;
        else memcpy(clean + o, "\xef\xbf\xbd", 3), o += 3, i++;
        json_decref(one);
    }
    v = clean ? json_stringn(clean, o) : NULL;
    free(clean);
    return v ? v : json_null();
}

/* Indented for people, except long lists of numbers, which go on one line. */
int print_json(const cli *c, json_t *doc) {
    bool long_lists = json_object_get(doc, "ids") || json_object_get(doc, "lines");
    int bad = !doc || json_dumpf(doc, stdout, (long_lists ? JSON_COMPACT : JSON_INDENT(2)) | JSON_REAL_PRECISION(15)) != 0;
    json_decref(doc);
    if (bad) return fail_text(c, TT_RESOURCE, "cannot write the JSON document", "standard output", NULL);
    putchar('\n');
    return 0;
}

/* ------------------------------------------------------------------ context, input ---- */

static tt_log_level wanted_level(const cli *c) {
    static const char *const names[] = {"error", "warn", "info", "debug"};
    int level = TT_LOG_WARN;
    for (int i = 0; i < 4; i++)
        if (strcmp(opt_s(c, O_log_level), names[i]) == 0) level = i;
    return (tt_log_level)(opt_b(c, O_verbose) && level < TT_LOG_INFO ? TT_LOG_INFO : level);
}

int open_ctx(cli *c) { return open_ctx_threads(c, (int)opt_i(c, O_threads)); }

int open_ctx_threads(cli *c, int threads) {
    tt_ctx_options o = tt_ctx_default_options();
    tt_err err = {0};
    choose_progress(c);
    log_level = wanted_level(c);
    if (opt_s(c, O_log_file) && !log_file && !(log_file = fopen(opt_s(c, O_log_file), "ab")))
        return fail_text(c, TT_FAIL, "cannot open the log", opt_s(c, O_log_file), strerror(errno));
    if (opt_s(c, O_cache_dir)) setenv("TRIMTAB_CACHE", opt_s(c, O_cache_dir), 1);
    if (opt_b(c, O_offline)) setenv("HF_HUB_OFFLINE", "1", 1);
    if (threads > 0) o.threads = threads;
    if (strcmp(opt_s(c, O_isa), "auto") != 0) o.isa = opt_s(c, O_isa);
    o.deterministic = opt_b(c, O_deterministic);
    o.log = on_log;
    o.log_user = c;
    o.progress = on_progress;
    tt_status st = tt_ctx_create(&o, &c->ctx, &err);
    return st == TT_OK ? 0 : fail(c, st, &err);
}

void close_ctx(cli *c) {
    tt_ctx *ctx = c->ctx;
    c->ctx = NULL;               /* first: a signal must not meet a freed context */
    clear_bar();
    tt_ctx_free(ctx);
    if (log_file) fclose(log_file);
    log_file = NULL;
}

int read_all(const cli *c, const char *path, char **text, size_t *n) {
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    size_t cap = 1 << 16, used = 0;
    char *buf = f ? malloc(cap) : NULL;
    while (f && buf) {
        size_t got = fread(buf + used, 1, cap - used - 1, f);
        used += got;
        if (got == 0) break;
        if (used + 1 < cap) continue;
        char *grown = realloc(buf, cap *= 2);
        if (!grown) free(buf);
        buf = grown;
    }
    bool bad = f && buf && ferror(f);
    int why = errno;
    if (f && f != stdin) fclose(f);
    if (!f || bad) {
        free(buf);
        return fail_text(c, interrupted() ? (tt_status)interrupted() : TT_FAIL, "cannot read", path, strerror(why));
    }
    if (!buf) return fail_text(c, TT_RESOURCE, "out of memory", path, NULL);
    buf[used] = 0;
    *text = buf;
    *n = used;
    return 0;
}
