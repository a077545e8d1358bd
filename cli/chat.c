/* trimtab chat: a conversation. On a terminal with a prompt sign; from a pipe each line is a message. */
#include "cli.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct talk { tt_message *m; size_t n, cap; } talk;

static bool say(talk *t, const char *role, const char *content) {
    if (t->n == t->cap) {
        tt_message *grown = realloc(t->m, (2 * t->cap + 8) * sizeof *grown);
        if (!grown) return false;
        t->m = grown;
        t->cap = 2 * t->cap + 8;
    }
    char *copy = strdup(content);
    if (copy) t->m[t->n++] = (tt_message){role, copy};
    return copy != NULL;
}

static void forget(talk *t, size_t from) {
    while (t->n > from) free((void *)t->m[--t->n].content);
}

/* Keeps the system message; `system` not NULL puts another in its place. */
static bool begin_anew(talk *t, const char *system) {
    if (system) forget(t, 0);
    else forget(t, t->n && strcmp(t->m[0].role, "system") == 0 ? 1 : 0);
    return !system || !*system || say(t, "system", system);
}

static int reply(generator *g, talk *t, const char *line) {
    int32_t *ids = NULL;
    size_t n = 0, bytes = 0, before = t->n;
    char *text = NULL;
    tt_err err = {0};
    if (!say(t, "user", line)) return fail_text(g->c, TT_RESOURCE, "out of memory", "chat", NULL);
    tt_status st = tt_chat_tokenize(g->model, t->m, t->n, true, &ids, &n, &err);
    int code = st == TT_OK ? generate(g, ids, n, true, &text, &bytes) : fail(g->c, st, &err);
    tt_free(ids);
    if (code == 0) putchar('\n');
    if (code == 0) generator_timings(g);
    if (code == 0 && !say(t, "assistant", text)) code = fail_text(g->c, TT_RESOURCE, "out of memory", "chat", NULL);
    if (code) forget(t, before);
    free(text);
    return code;
}

/* 1: the chat ends. */
static int command(const generator *g, talk *t, const char *line) {
    if (strcmp(line, "/bye") == 0 || strcmp(line, "/exit") == 0) return 1;
    if (strcmp(line, "/reset") == 0) begin_anew(t, NULL);
    else if (strcmp(line, "/system") == 0 || strncmp(line, "/system ", 8) == 0) begin_anew(t, line[7] ? line + 8 : "");
    else note(g->c, "%s/bye ends, /reset forgets the conversation, /system TEXT sets the system message, Ctrl-C stops a reply",
              strcmp(line, "/help") == 0 || strcmp(line, "/?") == 0 ? "" : "unknown command; ");
    return 0;
}

/* One line without its newline; NULL at the end of input or when a signal came. */
static char *read_line(bool tty) {
    char *line = NULL;
    size_t cap = 0;
    if (tty) fputs("> ", stderr);
    errno = 0;
    ssize_t n = getline(&line, &cap, stdin);
    if (n < 0) {
        free(line);
        return NULL;
    }
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
    return line;
}

static int talk_on(generator *g, talk *t) {
    bool tty = isatty(STDIN_FILENO) == 1;
    char *line;
    int code = 0;
    while ((line = read_line(tty))) {
        bool over = line[0] == '/' && command(g, t, line);
        if (*line && line[0] != '/') code = reply(g, t, line);
        free(line);
        if (over) return 0;
        if (interrupted() == TT_INTERRUPTED && tty) interrupt_clear();
        else if (interrupted()) return interrupted();
        if (code == TT_FAIL && tty) code = 0;        /* a message that did not fit: the person may go on */
        if (code) return code;
    }
    if (tty) fputc('\n', stderr);
    return interrupted();
}

int chat_loop(generator *g) {
    talk t = {0};
    if (!tt_model_get_info(g->model)->chat_template)
        return fail_text(g->c, TT_FAIL, "the model has no chat template", tt_model_get_info(g->model)->path, "'trimtab run --raw' continues a text");
    if (json_wanted(g->c)) return usage_error(g->c, "a chat is not one document", "--json", NULL, "'trimtab run --json' answers one prompt");
    if (opt_s(g->c, O_system) && !begin_anew(&t, opt_s(g->c, O_system))) return fail_text(g->c, TT_RESOURCE, "out of memory", "chat", NULL);
    if (isatty(STDIN_FILENO)) note(g->c, "%s; /bye ends, /help", tt_model_get_info(g->model)->name);
    int code = talk_on(g, &t);
    forget(&t, 0);
    free(t.m);
    return code;
}

int cmd_chat(cli *c) {
    generator g;
    int next = 0;
    const char *ref = take_model(c, &next);
    if (!ref) return TT_USAGE;
    if (next < c->n_args) return usage_error(c, "too many arguments", c->args[next], c->verb->args, NULL);
    int code = generator_open(&g, c, ref);
    if (code == 0) code = chat_loop(&g);
    generator_close(&g);
    return code;
}
