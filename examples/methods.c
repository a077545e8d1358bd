/* Lists the methods and their knobs, then parses a recipe and prints it with every default filled in.   methods [RECIPE] */
#include <stdio.h>
#include <string.h>
#include <trimtab/trimtab.h>

int main(int argc, char **argv) {
    for (size_t i = 0; i < tt_method_count(); i++) {
        const tt_method_info *m = tt_method_get(i);
        printf("%-10s %s/%s: %s\n", m->name, m->family, m->stage, m->summary);
        for (size_t k = 0; k < m->n_knobs; k++) printf("    %-14s = %-10s %s\n", m->knobs[k].name, m->knobs[k].value, m->knobs[k].help);
    }
    const char *text = argc > 1 ? argv[1] : "sparsegpt(sparsity=0.5,bits=4)+prompt(tokens=32)";
    tt_err err = {0};
    tt_recipe *recipe = NULL;
    char *line = NULL, hash[65], message[1200];
    tt_status st = tt_recipe_parse(text, strlen(text), &recipe, &err);
    if (!st) st = tt_recipe_line(recipe, true, &line, &err);
    if (!st) {
        tt_recipe_sha256(recipe, hash);
        printf("\n%s\nsha256 %s\n", line, hash);
    } else {
        fprintf(stderr, "methods: %s\n", tt_err_line(&err, message, sizeof message));
    }
    tt_free(line);
    tt_recipe_free(recipe);
    return st;
}
