/* The program's own header: the option table as an enum, the parsed command line, and what the verbs share.
 *
 *     main.c       verb → function, signals, exit code          args.c      table, command line, environment, config files
 *     out.c        log, progress, errors, JSON, plain tables     reply.c     tokens in, streamed text out (run, chat)
 *     VERB.c       one verb                                      help.c, man.c, completion.c   what the table says, in four shapes
 *
 * verbs.inc and options.inc are the only places that name a verb or an option. Every value stays text until a verb asks for it; its
 * type was checked when it came in. A value carries its rank: default < config files < TRIMTAB_ARG_* < command line.
 */
#ifndef TRIMTAB_CLI_H
#define TRIMTAB_CLI_H

#include "trimtab/trimtab.h"
#include <jansson.h>
#include <stdio.h>

typedef enum opt_type { OPT_FLAG, OPT_INT, OPT_REAL, OPT_SIZE, OPT_TIME, OPT_TEXT, OPT_PATH, OPT_CHOICE,
               OPT_LIST } opt_type;        /* parted by commas, or the option repeated; with a range: whole numbers, see list_numbers */

enum opt_id {
#define OPTION(id, ...) O_##id,
#include "options.inc"
#undef OPTION
    N_OPTIONS
};

typedef struct option_spec {
    const char *name, *shorts, *aliases;     /* "ctx-size", "c", "" ; several are parted by '|' */
    const char *arg;                         /* "FILE", "" for flags */
    opt_type type;
    const char *range;                       /* "a|b" of a choice, "low..high" of a number, or "" */
    const char *value;                       /* default; "" leaves the decision to the library */
    const char *verbs;                       /* "run chat", "*" for all, "*-bench" for all but one */
    const char *group, *help;
} option_spec;
extern const option_spec options[N_OPTIONS];

typedef struct cli cli;
typedef struct verb_spec {
    const char *name, *aliases;
    const char *args;                        /* "MODEL [OUT]" */
    const char *summary;                     /* one line */
    const char *about;                       /* what one has to know, a paragraph */
    const char *examples;                    /* lines "command  # what it does" */
    int min_args, max_args;
    int (*run)(cli *c);
} verb_spec;
extern const verb_spec verbs[];
extern const size_t n_verbs;

struct cli {
    const verb_spec *verb;
    const char *value[N_OPTIONS];
    unsigned char rank[N_OPTIONS];
    const char **args;                       /* positional arguments, n_args of them */
    int n_args;
    tt_ctx *ctx;
    char **kept;                             /* texts made while parsing, freed at the end */
    size_t n_kept;
};

/* ---- args.c ---- */
int cli_parse(cli *c, int argc, char **argv);            /* 0, or the exit code after the message is printed */
void cli_free(cli *c);
const verb_spec *find_verb(const char *name);
bool verb_has(const verb_spec *v, const option_spec *o);
bool in_list(const char *list, char sep, const char *word);
const char *nearest(const char *word, const char *const *names, size_t n);
const char *opt_s(const cli *c, enum opt_id id);         /* NULL when empty */
bool opt_b(const cli *c, enum opt_id id);
int64_t opt_i(const cli *c, enum opt_id id);             /* also sizes, in bytes; 0 when empty */
char *opt_list(cli *c, enum opt_id id);                  /* parted by commas, however it was given; NULL when empty */
double opt_f(const cli *c, enum opt_id id);              /* also times, in seconds */
bool opt_given(const cli *c, enum opt_id id);            /* set by anyone but the table */
/* "512", "1,2", "0-512+128", "128-1024*2" (first-last, by steps): the numbers of a list; -1 when it is none or has more than `most`. */
int list_numbers(const char *s, int64_t *out, int most);
char *keep(cli *c, char *text);                          /* frees it with the command line; NULL stays NULL */
/* The model: -m, else the next positional argument (*next moves on). NULL after a message. */
const char *take_model(cli *c, int *next);

/* ---- out.c ---- */
int usage_error(const cli *c, const char *what, const char *got, const char *expected, const char *hint);   /* 2 */
int fail(const cli *c, tt_status status, const tt_err *err);                       /* prints one line; returns the exit code */
int fail_text(const cli *c, tt_status status, const char *what, const char *where, const char *hint);
void note(const cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));     /* to stderr unless --quiet */
bool json_wanted(const cli *c);
int print_json(const cli *c, json_t *doc);               /* prints and drops the document; 0 or 7 */
json_t *j_real(double x);                                /* null where JSON has no number */
json_t *j_text(const char *s);                           /* null for NULL; not UTF-8 → escaped as it can be */
const char *text_bytes(uint64_t n, char buf[32]);        /* "93.8 MiB" */
const char *text_count(uint64_t n, char buf[32]);        /* "134,515,008" */
const char *text_time(double seconds, char buf[32]);     /* "1m04s" */
int open_ctx(cli *c);                                    /* makes c->ctx from the global options; 0 or the exit code after a message */
int open_ctx_threads(cli *c, int threads);               /* the same with so many threads, 0: as many as fit */
/* From now on the library's progress from 0 to 1 counts as `part` behind `before`, of `whole` units, and is noted as `what`; whole 0: ends that. */
void progress_within(double before, double part, double whole, const char *what);
void close_ctx(cli *c);
int read_all(const cli *c, const char *path, char **text, size_t *n);              /* a file or "-"; free() it */
double seconds_now(void);

/* ---- main.c ---- */
int interrupted(void);                                   /* 0, or the signal's exit code (130, 143) */
void interrupt_clear(void);

/* ---- reply.c ---- */
typedef struct generator {
    cli *c;
    tt_model *model;
    tt_tab *tab;
    tt_session *session;
    int64_t n_ctx;
    int32_t *fed;                            /* tokens that the session holds */
    size_t n_fed, cap;
    double open_seconds, prompt_seconds, seconds;
    size_t prompt_tokens, tokens;            /* of the last reply */
    const char *stop;                        /* "end", "length", "context", "interrupted" */
} generator;
int generator_open(generator *g, cli *c, const char *model);
void generator_close(generator *g);
/* Feeds what is new in ids, then samples. Streams to stdout when `stream`; *text (free it) has the whole reply. */
int generate(generator *g, const int32_t *ids, size_t n, bool stream, char **text, size_t *bytes);
void generator_timings(const generator *g);
int chat_loop(generator *g);
tt_cache_type cache_type(const char *name);  /* of a --cache-type option; NULL: the library decides */
tt_run_format run_format(const char *name);

/* ---- tune.c ---- */
json_t *guard_json(const tt_guard_report *g);            /* null: nothing was guarded */
void guard_text(const tt_guard_report *g);

/* ---- methods.c ---- */
void print_recipes(void);

/* ---- help.c, man.c ---- */
void print_help(const verb_spec *v);         /* NULL: the program */
void print_man(const verb_spec *v);
void print_version(void);
extern const char *const program_about, *const exit_codes, *const git_hash;

#define VERB(id, ...) int cmd_##id(cli *c);
#include "verbs.inc"
#undef VERB
#endif
