/* trimtab: the verb is the first argument; this file finds it, parses the rest, runs it, and turns what it returns into the exit code.
 *
 * Signals. SIGINT and SIGTERM ask the library to stop at the next safe point with its state saved (130, 143); the second one ends the
 * process at once. Where no context is open there is nothing to save.
 */
#include "cli.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static cli *volatile signal_cli;
static volatile sig_atomic_t signal_code;

static void on_signal(int sig) {
    int code = sig == SIGINT ? TT_INTERRUPTED : TT_TERMINATED;
    cli *c = signal_cli;
    if (signal_code || !c || !c->ctx) _exit(code);
    signal_code = code;
    tt_ctx_cancel(c->ctx, (tt_status)code);
}

int interrupted(void) { return (int)signal_code; }

void interrupt_clear(void) {
    cli *c = signal_cli;
    signal_code = 0;
    if (c && c->ctx) tt_ctx_cancel(c->ctx, TT_OK);
}

/* Without SA_RESTART, so that a chat that waits for a line wakes up. */
static void catch_signals(cli *c) {
    struct sigaction sa = {.sa_handler = on_signal};
    signal_cli = c;
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    signal(SIGXFSZ, SIG_IGN);                              /* a file beyond its limit (ulimit -f) is a write that fails, like a full disk */
}

static int unknown_verb(const char *word) {
    const char *names[64];
    char hint[100];
    size_t n = 0;
    for (size_t i = 0; i < n_verbs && n < 64; i++) names[n++] = verbs[i].name;
    const char *near = nearest(word, names, n);
    if (near) snprintf(hint, sizeof hint, "did you mean '%s'?", near);
    else snprintf(hint, sizeof hint, "'trimtab help' lists the verbs");
    return usage_error(NULL, word[0] == '-' ? "the verb comes first" : "unknown verb", word, NULL, hint);
}

/* A full disk behind standard output must not look like success. */
static int finish_output(const cli *c, int code) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    return code ? code : fail_text(c, errno == ENOSPC ? TT_RESOURCE : TT_FAIL, "cannot write", "standard output", strerror(errno));
}

int main(int argc, char **argv) {
    static cli c;
    const char *word = argc > 1 ? argv[1] : "help";
    if (argc > 1 && (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0)) word = "help";
    if (argc > 1 && strcmp(word, "--version") == 0) word = "version";
    c.verb = find_verb(word);
    if (!c.verb) return unknown_verb(word);
    catch_signals(&c);
    int code = cli_parse(&c, argc, argv);
    if (code == 0 && opt_b(&c, O_help)) print_help(c.verb);
    else if (code == 0) code = c.verb->run(&c);
    close_ctx(&c);
    code = finish_output(&c, code);
    cli_free(&c);
    return code;
}
