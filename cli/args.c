/* The command line: options from the table, whoever sets them.
 *
 *     rank 0 the table   1, 2 /etc/trimtab/config.ini   3, 4 $XDG_CONFIG_HOME/trimtab/config.ini   5, 6 --config FILE
 *     rank 7 TRIMTAB_ARG_<NAME>   8 the command line         (of a config file: section [*], then the section of the model's name)
 *
 * '-' and '_' are one letter in long names, --name=value and --name value are alike, --no-name sets a flag to false. Short names may
 * have several letters (-hf), as in llama.cpp, so they are never run together. What is not in the table ends with exit code 2 and the
 * nearest name that is.
 */
#include "cli.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const option_spec options[N_OPTIONS] = {
#define OPTION(id, ...) {__VA_ARGS__},
#include "options.inc"
#undef OPTION
};

const verb_spec verbs[] = {
#define VERB(id, aliases, args, summary, about, examples, min, max) {#id, aliases, args, summary, about, examples, min, max, cmd_##id},
#include "verbs.inc"
#undef VERB
};
const size_t n_verbs = sizeof verbs / sizeof *verbs;

enum { RANK_ENV = 7, RANK_LINE = 8, MAX_CONFIG = 1 << 20, MAX_NAMES = 256, MAX_NUMBERS = 256 };
extern char **environ;

/* ------------------------------------------------------------------ names ---- */

bool in_list(const char *list, char sep, const char *word) {
    size_t n = strlen(word);
    for (const char *p = list; *p;) {
        const char *end = strchr(p, sep);
        size_t len = end ? (size_t)(end - p) : strlen(p);
        if (len == n && memcmp(p, word, n) == 0) return true;
        p += len + (end != NULL);
    }
    return false;
}

const verb_spec *find_verb(const char *name) {
    for (size_t i = 0; i < n_verbs; i++)
        if (strcmp(verbs[i].name, name) == 0 || (*verbs[i].aliases && in_list(verbs[i].aliases, '|', name))) return &verbs[i];
    return NULL;
}

bool verb_has(const verb_spec *v, const option_spec *o) { return *o->verbs == '*' ? !in_list(o->verbs + 1, '-', v->name) : in_list(o->verbs, ' ', v->name); }

static size_t distance(const char *a, const char *b) {
    size_t n = strlen(b), row[64];
    if (n >= 63) return n;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diag = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t change = diag + (a[i] != b[j]), gap = 1 + (row[j] < row[j + 1] ? row[j] : row[j + 1]);
            diag = row[j + 1];
            row[j + 1] = change < gap ? change : gap;
        }
    }
    return row[n];
}

const char *nearest(const char *word, const char *const *names, size_t n) {
    const char *best = NULL;
    size_t best_d = strlen(word) / 3 + 2;
    if (strlen(word) > 62) return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, names[i]);
        if (d < best_d) best_d = d, best = names[i];
    }
    return best;
}

/* Lower case, '_' as '-', up to n bytes of it. */
static void plain_name(const char *s, size_t n, char out[64]) {
    size_t i = 0;
    for (; i < n && i < 63; i++) out[i] = s[i] == '_' ? '-' : (char)tolower((unsigned char)s[i]);
    out[i] = 0;
}

/* The option of that name that the verb has (v NULL: any verb), and whether it was written as no-NAME. */
static int find_long(const verb_spec *v, const char *name, bool *negated) {
    for (int pass = 0; pass < 2; pass++) {
        const char *word = pass ? name + 3 : name;
        if (pass && strncmp(name, "no-", 3) != 0) break;
        for (int i = 0; i < N_OPTIONS; i++) {
            const option_spec *o = &options[i];
            if (v && !verb_has(v, o)) continue;
            if (pass && o->type != OPT_FLAG) continue;
            if (strcmp(o->name, word) == 0 || (*o->aliases && in_list(o->aliases, '|', word))) {
                *negated = pass == 1;
                return i;
            }
        }
    }
    return -1;
}

static int find_short(const verb_spec *v, const char *name) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (*options[i].shorts && in_list(options[i].shorts, '|', name) && (!v || verb_has(v, &options[i]))) return i;
    return -1;
}

static int unknown_option(const cli *c, const char *written, const char *name) {
    const char *names[MAX_NAMES];
    char hint[240];
    size_t n = 0;
    bool negated;
    int other = name ? find_long(NULL, name, &negated) : find_short(NULL, written + 1);
    if (other >= 0) {
        snprintf(hint, sizeof hint, "it belongs to: %s", options[other].verbs);
        return usage_error(c, "this verb has no such option", written, NULL, hint);
    }
    for (int i = 0; i < N_OPTIONS && n < MAX_NAMES; i++)
        if (verb_has(c->verb, &options[i])) names[n++] = options[i].name;
    const char *near = nearest(name ? name : written + 1, names, n);
    if (name && find_short(c->verb, name) >= 0) snprintf(hint, sizeof hint, "did you mean -%s?", name);
    else if (near) snprintf(hint, sizeof hint, "did you mean --%s?", near);
    else snprintf(hint, sizeof hint, "'trimtab help %s' lists the options", c->verb->name);
    return usage_error(c, "unknown option", written, NULL, hint);
}

/* ------------------------------------------------------------------ values ---- */

static bool read_number(const char *s, double *x, const char **rest) {
    char *end;
    if (!isdigit((unsigned char)s[*s == '-']) && s[*s == '-'] != '.') return false;   /* no blanks, hex floats, inf, nan */
    if (strchr(s, 'x') || strchr(s, 'X')) return false;
    errno = 0;
    *x = strtod(s, &end);
    *rest = end;
    return end != s && errno == 0 && isfinite(*x);
}

static bool read_int(const char *s, int64_t *out) {
    char *end;
    if (!isdigit((unsigned char)s[*s == '-'])) return false;
    errno = 0;
    *out = strtoll(s, &end, 10);
    return *end == 0 && errno == 0;
}

/* 512, 1.5g, 1536MiB, 512M: powers of 1024. */
static bool read_size(const char *s, int64_t *out) {
    static const char letters[] = "kmgt";
    double x;
    const char *rest;
    if (!read_number(s, &x, &rest) || x < 0) return false;
    const char *l = *rest ? strchr(letters, tolower((unsigned char)*rest)) : NULL;
    if (*rest && !l && strcasecmp(rest, "b") != 0) return false;
    if (l && rest[1] && strcasecmp(rest + 1, "b") != 0 && strcasecmp(rest + 1, "ib") != 0) return false;
    if (l) x = ldexp(x, 10 * (int)(l - letters + 1));
    if (x > 9e18) return false;
    *out = (int64_t)x;
    return true;
}

static bool read_time(const char *s, double *out) {
    const char *rest;
    if (!read_number(s, out, &rest) || *out < 0) return false;
    double unit = strcmp(rest, "") == 0 || strcmp(rest, "s") == 0 ? 1 : strcmp(rest, "m") == 0 ? 60 : strcmp(rest, "h") == 0 ? 3600 : strcmp(rest, "d") == 0 ? 86400 : 0;
    *out *= unit;
    return unit > 0;
}

static const char *read_bool(const char *s) {
    static const char *const yes[] = {"true", "yes", "on", "1", ""}, *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < 5; i++)
        if (strcasecmp(s, yes[i]) == 0) return "true";
    for (size_t i = 0; i < 4; i++)
        if (strcasecmp(s, no[i]) == 0) return "false";
    return NULL;
}

/* One item of a list of numbers, as far as it fits; the count, or -1. */
static int list_item(const char *s, int64_t *out, int most) {
    int64_t v[3] = {0, 0, 1};
    int n = 0, count = 0;
    char by = '+';
    for (; n < 3; n++) {
        char *end;
        if (!isdigit((unsigned char)*s)) return -1;
        errno = 0;
        v[n] = strtoll(s, &end, 10);
        if (errno) return -1;
        if (*end == 0) break;
        if (n == 0 ? *end != '-' : n == 2 || (*end != '+' && *end != '*')) return -1;
        by = n == 1 ? *end : by;
        s = end + 1;
    }
    if (n == 0) v[1] = v[0];
    if (v[1] < v[0] || v[2] < (by == '*' ? 2 : 1) || (by == '*' && v[0] == 0)) return -1;
    for (int64_t x = v[0]; x <= v[1]; count++) {
        if (count == most) return -1;
        out[count] = x;
        if (by == '*' ? x > v[1] / v[2] : x > v[1] - v[2]) return count + 1;
        x = by == '*' ? x * v[2] : x + v[2];
    }
    return count;
}

int list_numbers(const char *s, int64_t *out, int most) {
    int count = 0;
    while (true) {
        char item[80];
        size_t n = strcspn(s, ",\n");
        if (n == 0 || n >= sizeof item) return -1;
        memcpy(item, s, n);
        item[n] = 0;
        int got = list_item(item, out + count, most - count);
        if (got < 0) return -1;
        count += got;
        if (s[n] == 0) return count;
        s += n + 1;
    }
}

static bool in_range(const option_spec *o, double x) {
    double low, high;
    const char *dots = strstr(o->range, "..");
    if (!dots) return true;
    low = strtod(o->range, NULL);
    high = strtod(dots + 2, NULL);
    return x >= low && x <= high;
}

static const char *check_list(const option_spec *o, const char *s) {
    int64_t numbers[MAX_NUMBERS];
    if (!*o->range) return *s ? NULL : o->arg;
    int n = list_numbers(s, numbers, MAX_NUMBERS);
    if (n < 0) return "whole numbers such as 512, 1,2 or 128-1024*2";
    for (int i = 0; i < n; i++)
        if (!in_range(o, (double)numbers[i])) return o->range;
    return NULL;
}

/* NULL when the value fits the option, else what was expected. */
static const char *check_value(const option_spec *o, const char *s) {
    int64_t i;
    double x;
    const char *rest;
    switch (o->type) {
    case OPT_FLAG: return read_bool(s) ? NULL : "true or false";
    case OPT_INT: return !read_int(s, &i) ? "a whole number" : in_range(o, (double)i) ? NULL : o->range;
    case OPT_REAL: return !read_number(s, &x, &rest) || *rest ? "a number" : in_range(o, x) ? NULL : o->range;
    case OPT_SIZE: return read_size(s, &i) ? NULL : "a size such as 512M or 1.5g";
    case OPT_TIME: return read_time(s, &x) ? NULL : "a time such as 45s, 20m or 2h";
    case OPT_CHOICE: return in_list(o->range, '|', s) ? NULL : o->range;
    case OPT_PATH: return *s ? NULL : "a path";
    case OPT_LIST: return check_list(o, s);
    case OPT_TEXT: return NULL;
    }
    return NULL;
}

static int set_option(cli *c, int i, const char *value, unsigned char rank, const char *written) {
    const char *wrong = check_value(&options[i], value);
    if (wrong) {
        char what[300];
        snprintf(what, sizeof what, "bad value of %s", written);
        return usage_error(c, what, value, wrong, NULL);
    }
    if (options[i].type == OPT_LIST && rank == c->rank[i] && rank > 0) {       /* given again: the list goes on */
        char *longer = malloc(strlen(c->value[i]) + strlen(value) + 2);
        if (longer) sprintf(longer, "%s\n%s", c->value[i], value);
        value = keep(c, longer);
        if (!value) return fail_text(c, TT_RESOURCE, "out of memory", "command line", NULL);
    }
    if (rank >= c->rank[i]) {
        c->value[i] = options[i].type == OPT_FLAG ? read_bool(value) : value;
        c->rank[i] = rank;
    }
    return 0;
}

char *keep(cli *c, char *text) {
    char **grown = text ? realloc(c->kept, (c->n_kept + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(text);
        return NULL;
    }
    c->kept = grown;
    return grown[c->n_kept++] = text;
}

const char *opt_s(const cli *c, enum opt_id id) { return c->value[id] && *c->value[id] ? c->value[id] : NULL; }
bool opt_b(const cli *c, enum opt_id id) { return c->value[id] && strcmp(c->value[id], "true") == 0; }
bool opt_given(const cli *c, enum opt_id id) { return c->rank[id] > 0; }

char *opt_list(cli *c, enum opt_id id) {
    char *list = opt_s(c, id) ? keep(c, strdup(opt_s(c, id))) : NULL;
    for (char *p = list; p && *p; p++)
        if (*p == '\n') *p = ',';
    return list;
}

int64_t opt_i(const cli *c, enum opt_id id) {
    int64_t i = 0;
    if (opt_s(c, id) && !(options[id].type == OPT_SIZE ? read_size(c->value[id], &i) : read_int(c->value[id], &i))) return 0;
    return i;
}

double opt_f(const cli *c, enum opt_id id) {
    double x = 0;
    const char *rest;
    if (opt_s(c, id) && !(options[id].type == OPT_TIME ? read_time(c->value[id], &x) : read_number(c->value[id], &x, &rest))) return 0;
    return x;
}

/* ------------------------------------------------------------------ the line ---- */

/* One argument that begins with '-'. *i moves on over the value. */
static int take_option(cli *c, int argc, char **argv, int *i) {
    char *a = argv[*i], name[64] = "";
    bool is_long = a[1] == '-', negated = false;
    char *eq = is_long ? strchr(a, '=') : NULL;
    if (is_long) plain_name(a + 2, eq ? (size_t)(eq - a - 2) : strlen(a + 2), name);
    int o = is_long ? find_long(c->verb, name, &negated) : find_short(c->verb, a + 1);
    if (o < 0) {
        char written[80];
        snprintf(written, sizeof written, "%.*s", eq ? (int)(eq - a) : 79, a);
        return unknown_option(c, written, is_long ? name : NULL);
    }
    const char *value = eq ? eq + 1 : NULL;
    if (options[o].type == OPT_FLAG) {
        const char *b = read_bool(value ? value : "true");
        if (!b) return usage_error(c, "bad value of a flag", a, "true or false", NULL);
        return set_option(c, o, negated == (strcmp(b, "true") == 0) ? "false" : "true", RANK_LINE, a);
    }
    if (!value && *i + 1 >= argc) return usage_error(c, "option without its value", a, options[o].arg, NULL);
    if (!value) value = argv[++*i];
    return set_option(c, o, value, RANK_LINE, a);
}

static int parse_line(cli *c, int argc, char **argv) {
    bool only_args = false;
    for (int i = 2; i < argc; i++) {
        if (!only_args && strcmp(argv[i], "--") == 0) {
            only_args = true;
        } else if (only_args || argv[i][0] != '-' || argv[i][1] == 0) {
            c->args[c->n_args++] = argv[i];
        } else {
            int code = take_option(c, argc, argv, &i);
            if (code) return code;
        }
    }
    return 0;
}

/* ------------------------------------------------------------------ environment ---- */

/* TRIMTAB_ARG_TOP_K=10. A name that no verb has is a typing error; one that only other verbs have is not for us. */
static int parse_env(cli *c) {
    static const char prefix[] = "TRIMTAB_ARG_";
    for (char **e = environ; *e; e++) {
        const char *eq = strchr(*e, '=');
        if (strncmp(*e, prefix, sizeof prefix - 1) != 0 || !eq) continue;
        char name[64], written[100];
        bool negated = false;
        const char *s = *e + sizeof prefix - 1;
        plain_name(s, (size_t)(eq - s), name);
        snprintf(written, sizeof written, "%.*s", (int)(eq - *e < 99 ? eq - *e : 99), *e);
        if (find_long(NULL, name, &negated) < 0) return unknown_option(c, written, name);
        int o = find_long(c->verb, name, &negated);
        if (o < 0) continue;
        const char *value = eq + 1;
        if (negated && read_bool(value)) value = strcmp(read_bool(value), "true") == 0 ? "false" : "true";
        int code = set_option(c, o, value, RANK_ENV, written);
        if (code) return code;
    }
    return 0;
}

/* ------------------------------------------------------------------ config files ---- */

static char *trim(char *s) {
    while (*s && isspace((unsigned char)*s)) s++;
    char *end = s + strlen(s);
    while (end > s && isspace((unsigned char)end[-1])) *--end = 0;
    return s;
}

static int config_error(const cli *c, const char *path, int line, const char *what, const char *got, const char *hint) {
    tt_err err = {.status = TT_BADFILE};
    snprintf(err.what, sizeof err.what, "%s", what);
    snprintf(err.where, sizeof err.where, "%s, line %d", path, line);
    snprintf(err.got, sizeof err.got, "%s", got ? got : "");
    snprintf(err.hint, sizeof err.hint, "%s", hint ? hint : "");
    return fail(c, TT_BADFILE, &err);
}

static int config_value(cli *c, const char *path, int line, const char *key, char *value, unsigned char rank) {
    char name[64], written[120], hint[120] = "";
    const char *names[MAX_NAMES];
    bool negated = false;
    plain_name(key, strlen(key), name);
    if (find_long(NULL, name, &negated) < 0) {
        for (size_t i = 0; i < N_OPTIONS; i++) names[i] = options[i].name;
        const char *near = nearest(name, names, N_OPTIONS);
        if (near) snprintf(hint, sizeof hint, "did you mean %s?", near);
        return config_error(c, path, line, "unknown option in a config file", key, hint);
    }
    int o = find_long(c->verb, name, &negated);
    if (o < 0 || o == O_config || o == O_help) return 0;
    size_t n = strlen(value);
    if (n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n - 1] == value[0]) value[n - 1] = 0, value++;
    if (negated && read_bool(value)) value = strcmp(read_bool(value), "true") == 0 ? "false" : "true";
    snprintf(written, sizeof written, "%s, line %d: %s", path, line, key);
    return set_option(c, o, value, rank, written);
}

/* Lines "key = value" under [*] and [model's name]; '#' and ';' begin comments. The text is kept: values point into it. */
static int parse_config(cli *c, const char *path, char *text, const char *model, unsigned char rank) {
    bool here = true, preset = false;
    int line = 0;
    for (char *next = text; next && *next;) {
        char *s = next;
        next = strchr(s, '\n');
        if (next) *next++ = 0;
        line++;
        s = trim(s);
        if (*s == 0 || *s == '#' || *s == ';') continue;
        size_t n = strlen(s);
        if (*s == '[') {
            if (s[n - 1] != ']') return config_error(c, path, line, "bad section in a config file", s, "[*] or [model]");
            s[n - 1] = 0;
            preset = model && strcmp(trim(s + 1), model) == 0;
            here = preset || strcmp(trim(s + 1), "*") == 0;
            continue;
        }
        char *eq = strchr(s, '=');
        if (!eq) return config_error(c, path, line, "bad line in a config file", s, "key = value");
        *eq = 0;
        if (!here) continue;
        int code = config_value(c, path, line, trim(s), trim(eq + 1), (unsigned char)(rank + preset));
        if (code) return code;
    }
    return 0;
}

static int load_config(cli *c, const char *path, bool must_exist, const char *model, unsigned char rank) {
    FILE *f = fopen(path, "rb");
    if (!f && !must_exist) return 0;
    if (!f) return fail_text(c, TT_FAIL, "cannot read a config file", path, strerror(errno));
    char *text = calloc(1, MAX_CONFIG + 1);
    size_t n = text ? fread(text, 1, MAX_CONFIG + 1, f) : 0;
    bool bad = !text || ferror(f);
    fclose(f);
    if (text) text = keep(c, text);
    if (bad || !text) return fail_text(c, TT_FAIL, "cannot read a config file", path, NULL);
    if (n > MAX_CONFIG || memchr(text, 0, n)) return fail_text(c, TT_BADFILE, "not a config file", path, "at most 1 MiB of text");
    return parse_config(c, path, text, model, rank);
}

/* The option that names the verb's model, or -1. */
static int model_option(const cli *c) {
    bool negated;
    return find_long(c->verb, "model", &negated);
}

static int load_configs(cli *c) {
    int o = model_option(c);
    const char *model = o < 0 ? NULL : opt_s(c, (enum opt_id)o), *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char path[4096];
    if (!model && c->n_args > 0 && o >= 0) model = c->args[0];
    int code = load_config(c, "/etc/trimtab/config.ini", false, model, 1);
    if (code) return code;
    if (xdg && *xdg) snprintf(path, sizeof path, "%s/trimtab/config.ini", xdg);
    else snprintf(path, sizeof path, "%s/.config/trimtab/config.ini", home ? home : "");
    if (((xdg && *xdg) || home) && (code = load_config(c, path, false, model, 3))) return code;
    return opt_s(c, O_config) ? load_config(c, opt_s(c, O_config), true, model, 5) : 0;
}

/* A preset may say where its model lies: [small] model = /data/small.gguf makes "small" a name for it. */
static void apply_preset_model(cli *c) {
    int o = model_option(c);
    if (o < 0 || c->rank[o] == 0 || c->rank[o] >= RANK_ENV || c->rank[o] % 2 != 0) return;
    if (c->n_args > 0) c->args[0] = c->value[o], c->rank[o] = 0, c->value[o] = "";
}

/* ------------------------------------------------------------------ all of it ---- */

int cli_parse(cli *c, int argc, char **argv) {
    for (int i = 0; i < N_OPTIONS; i++) c->value[i] = options[i].value;
    c->args = calloc((size_t)argc + 1, sizeof *c->args);
    if (!c->args) return fail_text(c, TT_RESOURCE, "out of memory", "command line", NULL);
    int code = parse_line(c, argc, argv);
    if (code == 0 && opt_b(c, O_help)) return 0;
    if (code == 0) code = parse_env(c);
    if (code == 0) code = load_configs(c);
    if (code) return code;
    apply_preset_model(c);
    if (c->n_args > c->verb->max_args) return usage_error(c, "too many arguments", c->args[c->verb->max_args], c->verb->args, NULL);
    if (c->n_args < c->verb->min_args) return usage_error(c, "too few arguments", NULL, c->verb->args, NULL);
    return 0;
}

void cli_free(cli *c) {
    for (size_t i = 0; i < c->n_kept; i++) free(c->kept[i]);
    free(c->kept);
    free(c->args);
}

const char *take_model(cli *c, int *next) {
    if (opt_s(c, O_model)) return opt_s(c, O_model);
    if (*next < c->n_args) return c->args[(*next)++];
    usage_error(c, "no model given", NULL, c->verb->args, "name it, or use -m MODEL; 'trimtab list' shows what is at hand");
    return NULL;
}
