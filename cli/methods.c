/* trimtab methods: the registry, as a table or one method with its knobs. */
#include "cli.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

static const char *const types[] = {"int", "real", "bool", "choice", "bytes", "duration", "path", "text"};

static json_t *knob_json(const tt_knob *k) {
    bool range = k->min < k->max;
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o}", "name", k->name, "type", types[k->type], "min", range ? j_real(k->min) : json_null(), "max",
                     range ? j_real(k->max) : json_null(), "scale", k->scale == TT_LOG ? "log" : "linear", "choices", j_text(k->choices), "default", j_text(k->value),
                     "when", j_text(k->when), "help", j_text(k->help));
}

static json_t *method_json(const tt_method_info *m) {
    json_t *knobs = json_array();
    for (size_t i = 0; i < m->n_knobs; i++) json_array_append_new(knobs, knob_json(&m->knobs[i]));
    json_t *paper = json_pack("{s:o, s:o, s:i}", "title", j_text(m->title), "id", j_text(m->id), "year", m->year);
    return json_pack("{s:s, s:s, s:s, s:i, s:o, s:o, s:o}", "name", m->name, "family", m->family, "stage", m->stage, "version", m->version, "summary", j_text(m->summary),
                     "paper", paper, "knobs", knobs);
}

static void knob_text(const tt_knob *k) {
    char range[80] = "";
    if (k->type == TT_KNOB_CHOICE) snprintf(range, sizeof range, "%s", k->choices);
    else if (k->type == TT_KNOB_BOOL) snprintf(range, sizeof range, "true|false");
    else if (k->min < k->max) snprintf(range, sizeof range, "%g..%g", k->min, k->max);
    printf("  %-18s %-9s %-22s %-12s %s", k->name, types[k->type], range, k->value && *k->value ? k->value : "-", k->help ? k->help : "");
    if (k->when) printf(" (when %s)", k->when);
    putchar('\n');
}

static int one_method(const cli *c, const tt_method_info *m) {
    if (json_wanted(c)) return print_json(c, method_json(m));
    printf("%s: %s\n%s, stage %s, version %d\n", m->name, m->summary, m->family, m->stage, m->version);
    if (m->title && *m->title) printf("%s (%d) %s\n", m->title, m->year, m->id ? m->id : "");
    printf("\n  %-18s %-9s %-22s %-12s %s\n", "KNOB", "TYPE", "RANGE", "DEFAULT", "MEANING");
    for (size_t i = 0; i < m->n_knobs; i++) knob_text(&m->knobs[i]);
    return 0;
}

static int unknown_method(const cli *c, const char *name) {
    const char *names[128];
    char hint[100] = "'trimtab methods' lists them";
    size_t n = 0;
    for (; n < tt_method_count() && n < 128; n++) names[n] = tt_method_get(n)->name;
    const char *near = nearest(name, names, n);
    if (near) snprintf(hint, sizeof hint, "did you mean '%s'?", near);
    return usage_error(c, "unknown method", name, NULL, hint);
}

/* ------------------------------------------------------------------ named recipes ---- */

static const char *stage_name(tt_named_stage s) { return s == TT_NAMED_TAB ? "tab" : s == TT_NAMED_RECOVER ? "recover" : "compress"; }

static json_t *recipe_json(const tt_named_recipe *r) {
    json_t *steps = json_array();
    for (int i = 0; i < r->n_steps; i++)
        json_array_append_new(steps, json_pack("{s:s, s:s, s:i, s:I, s:I, s:I}", "stage", stage_name(r->step[i].stage), "line", r->step[i].line, "worth", r->step[i].worth, "least",
                                               (json_int_t)r->step[i].least, "usual", (json_int_t)r->step[i].usual, "most", (json_int_t)r->step[i].most));
    return json_pack("{s:s, s:s, s:s, s:o, s:I, s:o}", "name", r->name, "summary", r->summary, "embedding", r->embedding, "bits", j_real(r->bits), "samples", (json_int_t)r->samples, "steps", steps);
}

static void print_step(const tt_named_step *s) {
    printf("  %-9s %s", stage_name(s->stage), s->line);
    if (s->most) printf("   n = %" PRId64 ", with --time %" PRId64 " to %" PRId64, s->usual, s->least, s->most);
    puts(s->worth ? "; left out when time is short" : "");
}

void print_recipes(void) {
    tt_named_recipe r;
    puts("Named recipes, 'trimtab compress MODEL OUT.gguf --recipe NAME [--time 30m]': text is sampled from the model (and mixed with --data), the model compressed, a tab\n"
         "learned through it. --dry-run tells how long it will take here. The bits are those of a linear weight.\n");
    for (size_t i = 0; tt_named_recipe_get(i, &r); i++) {
        printf("%-14s %.2f bits, %" PRId64 " x 512 tokens of calibration: %s\n", r.name, r.bits, r.samples, r.summary);
        if (*r.embedding) printf("  %-9s %s\n", "embedding", r.embedding);
        for (int k = 0; k < r.n_steps; k++) print_step(&r.step[k]);
    }
}

static void print_names(void) {
    tt_named_recipe r;
    fputs("named recipes, explained by 'trimtab help recipes':", stdout);
    for (size_t i = 0; tt_named_recipe_get(i, &r); i++) printf(" %s", r.name);
    putchar('\n');
}

static json_t *recipes_json(void) {
    tt_named_recipe r;
    json_t *list = json_array();
    for (size_t i = 0; tt_named_recipe_get(i, &r); i++) json_array_append_new(list, recipe_json(&r));
    return list;
}

int cmd_methods(cli *c) {
    if (c->n_args == 1) {
        const tt_method_info *m = tt_method_find(c->args[0]);
        return m ? one_method(c, m) : unknown_method(c, c->args[0]);
    }
    if (json_wanted(c)) {
        json_t *list = json_array();
        for (size_t i = 0; i < tt_method_count(); i++) json_array_append_new(list, method_json(tt_method_get(i)));
        return print_json(c, json_pack("{s:o, s:o}", "methods", list, "recipes", recipes_json()));
    }
    printf("%-14s %-10s %-10s %s\n", "METHOD", "FAMILY", "STAGE", "WHAT IT TRADES");
    for (size_t i = 0; i < tt_method_count(); i++) {
        const tt_method_info *m = tt_method_get(i);
        printf("%-14s %-10s %-10s %s\n", m->name, m->family, m->stage, m->summary);
    }
    puts("\n'trimtab methods NAME' shows the knobs; a recipe joins methods: 'sparsegpt(sparsity=0.5,bits=4)'");
    print_names();
    return 0;
}
