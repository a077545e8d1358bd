/* trimtab help: the two tables as text for a terminal. */
#include "cli.h"
#include <string.h>

const char *const program_about =
    "Trimtab compresses a network for the machine at hand, wins back what was lost with a small learned tab, measures both, and runs the result.";

const char *const exit_codes =
    "0 done; 1 failed; 2 wrong usage; 3 target not met or fallback refused; 4 unsupported or damaged file; 5 verification mismatch; 6 needs the network but is "
    "offline; 7 out of memory or disk; 130, 143 interrupted with state saved: repeat the command to go on.";

enum { WIDTH = 100 };

/* Breaks at blanks; the first line begins at column `at`, further ones at `indent`. */
static void print_wrapped(const char *s, int at, int indent) {
    for (bool first = true; *s; first = false) {
        int n = (int)strcspn(s, " ");
        if (!first && at + 1 + n > WIDTH) {
            printf("\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            putchar(' ');
            at++;
        }
        printf("%.*s", n, s);
        at += n;
        s += n + (s[n] == ' ');
    }
    putchar('\n');
}

static int print_names(const option_spec *o) {
    char line[160] = "  ";
    int at = 2;
    for (const char *p = o->shorts; *p;) {
        int n = (int)strcspn(p, "|");
        at += snprintf(line + at, sizeof line - (size_t)at, "-%.*s, ", n, p);
        p += n + (p[n] == '|');
    }
    at += snprintf(line + at, sizeof line - (size_t)at, o->type == OPT_FLAG && strcmp(o->value, "true") == 0 ? "--no-%s" : "--%s", o->name);
    if (*o->arg) at += snprintf(line + at, sizeof line - (size_t)at, " %s", o->arg);
    return printf("%s", line);
}

static void print_option(const option_spec *o) {
    char text[500];
    int at = print_names(o);
    int n = snprintf(text, sizeof text, "%s", o->help);
    if (o->type == OPT_CHOICE) n += snprintf(text + n, sizeof text - (size_t)n, " [%s]", o->range);
    if (o->type != OPT_FLAG && *o->value) snprintf(text + n, sizeof text - (size_t)n, " (%s)", o->value);
    if (at > 30) putchar('\n'), at = 0;
    printf("%*s", 32 - at, "");
    print_wrapped(text, 32, 32);
}

static void print_group(const verb_spec *v, const char *group) {
    bool any = false;
    for (int i = 0; i < N_OPTIONS; i++) {
        if (strcmp(options[i].group, group) != 0 || !verb_has(v, &options[i])) continue;
        if (!any) printf("\n%s:\n", group);
        any = true;
        print_option(&options[i]);
    }
}

static void print_examples(const verb_spec *v) {
    fputs("\nExamples:\n", stdout);
    for (const char *p = v->examples; *p;) {
        int n = (int)strcspn(p, "\n");
        printf("  $ %.*s\n", n, p);
        p += n + (p[n] == '\n');
    }
}

static void print_verb(const verb_spec *v) {
    static const char *const groups[] = {"Input", "Method", "Output", "Run", "Sampling", "Text", "Show", "Common"};
    printf("trimtab %s: %s\n\nUsage: trimtab %s%s%s [options]\n", v->name, v->summary, v->name, *v->args ? " " : "", v->args);
    if (*v->aliases) printf("Also: trimtab %s\n", v->aliases);
    putchar('\n');
    print_wrapped(v->about, 0, 0);
    print_examples(v);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) print_group(v, groups[i]);
    fputs("\nLong options take '-' or '_', --name=value, and --no-name for flags; each is also TRIMTAB_ARG_<NAME> and a key of\n"
          "$XDG_CONFIG_HOME/trimtab/config.ini (sections [*] and [MODEL]). The command line wins.\n", stdout);
}

static void print_program(void) {
    print_wrapped(program_about, 0, 0);
    puts("\nUsage: trimtab VERB [arguments] [options]\n");
    for (size_t i = 0; i < n_verbs; i++) printf("  %-12s %s\n", verbs[i].name, verbs[i].summary);
    puts("\nA first day:\n"
         "  $ trimtab pull smollm2-135m-instruct\n"
         "  $ trimtab compress smollm2-135m-instruct small.gguf --recipe 'sparsegpt(sparsity=0.5,bits=4)'\n"
         "  $ trimtab tune small.gguf tab --method 'prompt(tokens=32)' --data text.txt --time 5m\n"
         "  $ trimtab perplexity small.gguf -f text.txt --adapter tab\n"
         "  $ trimtab run small.gguf --adapter tab 'Why is the sky blue?'\n\n"
         "'trimtab help VERB' explains a verb. Results go to standard output, all else to standard error; --json for scripts.");
    printf("Exit codes: ");
    print_wrapped(exit_codes, 12, 12);
}

void print_help(const verb_spec *v) {
    if (v) print_verb(v);
    else print_program();
}

int cmd_help(cli *c) {
    if (c->n_args && !strcmp(c->args[0], "recipes")) {
        print_recipes();
        return 0;
    }
    const verb_spec *v = c->n_args ? find_verb(c->args[0]) : NULL;
    if (c->n_args && !v) {
        const char *names[64];
        char hint[100] = "'trimtab help' lists the verbs";
        size_t n = 0;
        for (; n < n_verbs && n < 64; n++) names[n] = verbs[n].name;
        const char *near = nearest(c->args[0], names, n);
        if (near) snprintf(hint, sizeof hint, "did you mean '%s'?", near);
        return usage_error(c, "unknown verb", c->args[0], NULL, hint);
    }
    if (opt_b(c, O_man)) print_man(v);
    else print_help(v);
    return 0;
}
