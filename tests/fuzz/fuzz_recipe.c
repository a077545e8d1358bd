/* Any bytes as a recipe: refused with one error, or a recipe whose canonical line is one again, with the same hash. */
#include "base/mem.h"
#include "trimtab/trimtab.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok) {
    if (!ok) abort();
}

static void check_values(const tt_recipe *r) {
    for (size_t i = 0; i < tt_recipe_step_count(r); i++) {
        const tt_method_info *m = tt_recipe_get_method(r, i);
        for (size_t k = 0; k < m->n_knobs; k++) must(tt_recipe_get_value(r, i, m->knobs[k].name) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tt_recipe *r = NULL, *again = NULL;
    tt_err err = {0};
    char *line = NULL, a[65], b[65];
    tt_status st = tt_recipe_parse((const char *)data, size, &r, &err);
    if (st != TT_OK) {
        must(r == NULL && err.what[0] && (st == TT_USAGE || st == TT_BADFILE));
        return 0;
    }
    check_values(r);
    must(tt_recipe_line(r, true, &line, &err) == TT_OK);
    tt_recipe_sha256(r, a);
    if (strlen(line) <= 65536) {                 /* the expanded line of a recipe at the limit may be longer than the limit */
        must(tt_recipe_parse(line, strlen(line), &again, &err) == TT_OK);
        tt_recipe_sha256(again, b);
        must(strcmp(a, b) == 0);
    }
    tt_free(line);
    tt_recipe_free(r);
    tt_recipe_free(again);
    return 0;
}
