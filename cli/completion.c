/* trimtab completion: the two tables as shell code. Options and choices complete; everything else is a file name or a catalogue name. */
#include "cli.h"
#include <string.h>

static void long_names(const verb_spec *v, const char *sep) {
    for (int i = 0; i < N_OPTIONS; i++) {
        const option_spec *o = &options[i];
        if (!verb_has(v, o)) continue;
        printf("--%s%s", o->name, sep);
        if (o->type == OPT_FLAG && strcmp(o->name, "help") != 0) printf("--no-%s%s", o->name, sep);
    }
}

static void words(const char *list, const char *sep) {
    for (const char *p = list; *p;) {
        int n = (int)strcspn(p, "|");
        printf("%.*s%s", n, p, sep);
        p += n + (p[n] == '|');
    }
}

/* "bench:--output|tune:--output", "*:--progress": another verb's option of that name may take something else. */
static void verb_patterns(const option_spec *o) {
    if (*o->verbs == '*') printf("*:--%s", o->name);
    for (const char *p = o->verbs; *o->verbs != '*' && *p;) {
        int n = (int)strcspn(p, " ");
        printf("%s%.*s:--%s", p == o->verbs ? "" : "|", n, p, o->name);
        p += n + (p[n] == ' ');
    }
}

static void bash(void) {
    puts("# bash completion of trimtab\n_trimtab() {\n    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} opts=\n    COMPREPLY=()");
    fputs("    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        mapfile -t COMPREPLY < <(compgen -W \"", stdout);
    for (size_t i = 0; i < n_verbs; i++) printf("%s ", verbs[i].name);
    puts("\" -- \"$cur\")\n        return\n    fi\n    case $verb:$prev in");
    for (int i = 0; i < N_OPTIONS; i++) {
        if (options[i].type != OPT_CHOICE) continue;
        fputs("        ", stdout);
        verb_patterns(&options[i]);
        fputs(") mapfile -t COMPREPLY < <(compgen -W \"", stdout);
        words(options[i].range, " ");
        puts("\" -- \"$cur\"); return ;;");
    }
    puts("    esac\n    case $verb in");
    for (size_t i = 0; i < n_verbs; i++) {
        printf("        %s%s%s) opts=\"", verbs[i].name, *verbs[i].aliases ? "|" : "", verbs[i].aliases);
        long_names(&verbs[i], " ");
        puts("\" ;;");
    }
    fputs("    esac\n    if [ \"$verb\" = methods ] && [ \"$COMP_CWORD\" -eq 2 ]; then\n        mapfile -t COMPREPLY < <(compgen -W \"", stdout);
    for (size_t i = 0; i < tt_method_count(); i++) printf("%s ", tt_method_get(i)->name);
    puts("\" -- \"$cur\")\n    elif [ \"$verb\" = completion ]; then\n        mapfile -t COMPREPLY < <(compgen -W \"bash zsh fish\" -- \"$cur\")\n"
         "    elif [[ $cur == -* ]]; then\n        mapfile -t COMPREPLY < <(compgen -W \"$opts\" -- \"$cur\")\n"
         "    else\n        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n    fi\n}\ncomplete -o filenames -F _trimtab trimtab");
}

/* Help text inside '…[…]…' of _arguments. */
static void zsh_text(const char *s) {
    for (; *s; s++) {
        if (*s == '\'') fputs("'\\''", stdout);
        else if (strchr("[]:\\", *s)) printf("\\%c", *s);
        else putchar(*s);
    }
}

static void zsh_option(const option_spec *o) {
    if (o->type == OPT_FLAG && strcmp(o->value, "true") == 0) printf("                '--no-%s[", o->name);
    else printf("                '--%s%s[", o->name, *o->arg ? "=" : "");
    zsh_text(o->help);
    putchar(']');
    if (*o->arg) printf(":%s:", o->arg);
    if (o->type == OPT_CHOICE) putchar('('), words(o->range, " "), putchar(')');
    if (o->type == OPT_PATH || strcmp(o->arg, "MODEL") == 0) fputs("_files", stdout);
    puts("' \\");
}

static void zsh(void) {
    puts("#compdef trimtab\n_trimtab() {\n    local -a verbs\n    verbs=(");
    for (size_t i = 0; i < n_verbs; i++) {
        printf("        '%s:", verbs[i].name);
        zsh_text(verbs[i].summary);
        puts("'");
    }
    puts("    )\n    if (( CURRENT == 2 )); then\n        _describe verb verbs\n        return\n    fi\n    local verb=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $verb in");
    for (size_t i = 0; i < n_verbs; i++) {
        printf("        %s%s%s)\n            _arguments \\\n", verbs[i].name, *verbs[i].aliases ? "|" : "", verbs[i].aliases);
        for (int k = 0; k < N_OPTIONS; k++)
            if (verb_has(&verbs[i], &options[k])) zsh_option(&options[k]);
        puts("                '*:argument:_files'\n            ;;");
    }
    puts("    esac\n}\n_trimtab \"$@\"");
}

static void fish_text(const char *s) {
    putchar('\'');
    for (; *s; s++) {
        if (*s == '\'' || *s == '\\') putchar('\\');
        putchar(*s);
    }
    putchar('\'');
}

static void fish_option(const verb_spec *v, const option_spec *o) {
    printf("complete -c trimtab -n '__fish_seen_subcommand_from %s' -l %s%s", v->name, o->type == OPT_FLAG && strcmp(o->value, "true") == 0 ? "no-" : "", o->name);
    for (const char *p = o->shorts; *p;) {
        int n = (int)strcspn(p, "|");
        printf(n == 1 ? " -s %.*s" : " -o %.*s", n, p);
        p += n + (p[n] == '|');
    }
    if (o->type == OPT_CHOICE) fputs(" -x -a '", stdout), words(o->range, " "), putchar('\'');
    else if (o->type != OPT_FLAG) fputs(" -r", stdout);
    fputs(" -d ", stdout);
    fish_text(o->help);
    putchar('\n');
}

static void fish(void) {
    puts("# fish completion of trimtab");
    for (size_t i = 0; i < n_verbs; i++) {
        printf("complete -c trimtab -n __fish_use_subcommand -f -a %s -d ", verbs[i].name);
        fish_text(verbs[i].summary);
        putchar('\n');
    }
    for (size_t i = 0; i < n_verbs; i++)
        for (int k = 0; k < N_OPTIONS; k++)
            if (verb_has(&verbs[i], &options[k])) fish_option(&verbs[i], &options[k]);
}

int cmd_completion(cli *c) {
    const char *shell = c->args[0];
    if (strcmp(shell, "bash") == 0) bash();
    else if (strcmp(shell, "zsh") == 0) zsh();
    else if (strcmp(shell, "fish") == 0) fish();
    else return usage_error(c, "unknown shell", shell, "bash, zsh or fish", NULL);
    return 0;
}
