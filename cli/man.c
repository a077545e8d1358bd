/* Manual pages in man(7), from the same tables: trimtab(1), and trimtab-VERB(1) for each verb. */
#include "cli.h"
#include <ctype.h>
#include <string.h>

/* Text for roff: '\' and a leading '.' or ''' are escaped, '-' stays a hyphen that can be copied. One sentence a line, as roff likes. */
static void roff(const char *s) {
    bool start = true;
    for (; *s; s++) {
        if (start && (*s == '.' || *s == '\'')) fputs("\\&", stdout);
        start = false;
        if (*s == '\\') fputs("\\e", stdout);
        else if (*s == '-') fputs("\\-", stdout);
        else if (*s == '\'') fputs("\\(aq", stdout);
        else if (*s == '~') fputs("\\(ti", stdout);
        else if ((*s == '.' || *s == ':' || *s == ';') && s[1] == ' ' && s[2]) fputc(*s, stdout), fputc('\n', stdout), s++, start = true;
        else fputc(*s, stdout);
    }
    putchar('\n');
}

static void upper(const char *s) {
    for (; *s; s++) putchar(toupper((unsigned char)*s));
}

static void head(const char *name, const char *verb, const char *summary) {
    fputs(".TH ", stdout);
    upper(name);
    if (verb) putchar('-'), upper(verb);
    printf(" 1 2026-11-24 \"trimtab %s\"\n.SH NAME\n%s%s%s \\- ", tt_version(), name, verb ? "\\-" : "", verb ? verb : "");
    roff(summary);
}

static void option_names(const option_spec *o) {
    fputs(".TP\n", stdout);
    for (const char *p = o->shorts; *p;) {
        int n = (int)strcspn(p, "|");
        printf("\\fB\\-%.*s\\fR, ", n, p);
        p += n + (p[n] == '|');
    }
    fputs("\\fB\\-\\-", stdout);
    if (o->type == OPT_FLAG && strcmp(o->value, "true") == 0) fputs("no\\-", stdout);
    for (const char *p = o->name; *p; p++) fputs(*p == '-' ? "\\-" : (char[]){*p, 0}, stdout);
    fputs("\\fR", stdout);
    if (*o->arg) printf(" \\fI%s\\fR", o->arg);
    putchar('\n');
}

static void option_page(const option_spec *o) {
    char text[500];
    option_names(o);
    int n = snprintf(text, sizeof text, "%s", o->help);
    if (o->type == OPT_CHOICE) n += snprintf(text + n, sizeof text - (size_t)n, " [%s]", o->range);
    if (o->type != OPT_FLAG && *o->value) snprintf(text + n, sizeof text - (size_t)n, " (%s)", o->value);
    roff(text);
}

static void examples(const char *s) {
    fputs(".SH EXAMPLES\n.nf\n", stdout);
    while (*s) {
        char line[300];
        int n = (int)strcspn(s, "\n");
        snprintf(line, sizeof line, "%.*s", n, s);
        roff(line);
        s += n + (s[n] == '\n');
    }
    fputs(".fi\n", stdout);
}

static void exit_status(void) {
    fputs(".SH EXIT STATUS\n", stdout);
    roff(exit_codes);
}

static void verb_page(const verb_spec *v) {
    head("trimtab", v->name, v->summary);
    printf(".SH SYNOPSIS\n.B trimtab %s\n", v->name);
    if (*v->args) printf("%s\n", v->args);
    fputs("[options]\n.SH DESCRIPTION\n", stdout);
    roff(v->about);
    fputs(".SH OPTIONS\n", stdout);
    for (int i = 0; i < N_OPTIONS; i++)
        if (verb_has(v, &options[i])) option_page(&options[i]);
    exit_status();
    examples(v->examples);
    fputs(".SH SEE ALSO\n.BR trimtab (1)\n", stdout);
}

static void program_page(void) {
    head("trimtab", NULL, "compress a network, win back what was lost, measure, run");
    fputs(".SH SYNOPSIS\n.B trimtab\n.I VERB\n[arguments] [options]\n.SH DESCRIPTION\n", stdout);
    roff(program_about);
    fputs(".SH VERBS\n", stdout);
    for (size_t i = 0; i < n_verbs; i++) {
        printf(".TP\n.BR trimtab\\-%s (1)\n", verbs[i].name);
        roff(verbs[i].summary);
    }
    fputs(".SH ENVIRONMENT\n.TP\n\\fBTRIMTAB_ARG_\\fINAME\\fR\nvalue of the option \\-\\-NAME\n.TP\n"
          "\\fBTRIMTAB_CACHE\\fR, \\fBHF_HUB_CACHE\\fR, \\fBHF_HOME\\fR\ncache of models, the first that is set\n.TP\n"
          "\\fBHF_TOKEN\\fR, \\fBHF_TOKEN_PATH\\fR, \\fBHF_ENDPOINT\\fR, \\fBHF_HUB_OFFLINE\\fR\nas the tools of the hub read them\n"
          ".SH FILES\n.TP\n\\fB/etc/trimtab/config.ini\\fR, \\fB$XDG_CONFIG_HOME/trimtab/config.ini\\fR\n"
          "lines \"key = value\" under [*] or [model name]; keys are the long options\n", stdout);
    exit_status();
}

void print_man(const verb_spec *v) {
    if (v) verb_page(v);
    else program_page();
}
