/* The registry: what methods.inc lists, as a table. Everything that knows methods by name (recipes, the command line, docs, the
 * search space, tests, bench) reads it here, so that a new method is one file and one line.
 */
#include "methods/method.h"

#define TT_METHOD(name) extern const tt_method tt__method_##name;
#include "methods/methods.inc"
#undef TT_METHOD

static const tt_method *const methods[] = {
#define TT_METHOD(name) &tt__method_##name,
#include "methods/methods.inc"
#undef TT_METHOD
};
enum { N_METHODS = sizeof methods / sizeof *methods };

size_t tt_method_count(void) { return N_METHODS; }

const tt_method_info *tt_method_get(size_t i) { return i < N_METHODS ? &methods[i]->info : NULL; }

const tt_method_info *tt_method_find(const char *name) {
    for (size_t i = 0; name && i < N_METHODS; i++)
        if (strcmp(methods[i]->info.name, name) == 0) return &methods[i]->info;
    return NULL;
}

/* The info is the first member of its method; looked up rather than cast, so that a copy of an info works too. */
const tt_method *tt__method_of(const tt_method_info *info) {
    for (size_t i = 0; info && i < N_METHODS; i++)
        if (&methods[i]->info == info || strcmp(methods[i]->info.name, info->name) == 0) return methods[i];
    return NULL;
}
