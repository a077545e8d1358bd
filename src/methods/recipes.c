/* The table of named recipes as the library gives it out. */
#include "methods/recipes.h"
#include "base/util.h"

#include <string.h>

enum { MAX_RECIPES = 32, MAX_ROWS = 128 };
enum { ROW_COMPRESS = TT_NAMED_COMPRESS, ROW_RECOVER = TT_NAMED_RECOVER, ROW_TAB = TT_NAMED_TAB, ROW_RECIPE };

typedef struct row { int kind; const char *text, *embedding, *summary; double bits; int64_t samples; tt_named_step step; } row;

static const row rows[] = {
#define TT_RECIPE(name_, bits_, samples_, embedding_, summary_) {.kind = ROW_RECIPE, .text = #name_, .embedding = embedding_, .bits = bits_, .samples = samples_, .summary = summary_},
#define TT_STEP(kind_, worth_, least_, usual_, most_, line_) \
    {.kind = ROW_##kind_, .step = {.stage = (tt_named_stage)ROW_##kind_, .worth = worth_, .least = least_, .usual = usual_, .most = most_, .line = line_}},
#include "methods/recipes.inc"
#undef TT_RECIPE
#undef TT_STEP
};
enum { N_ROWS = sizeof rows / sizeof *rows };

size_t tt_named_recipe_count(void) {
    size_t n = 0;
    for (int i = 0; i < N_ROWS; i++) n += rows[i].kind == ROW_RECIPE;
    return n;
}

bool tt_named_recipe_get(size_t i, tt_named_recipe *out) {
    int at = 0;
    for (; at < N_ROWS; at++)
        if (rows[at].kind == ROW_RECIPE && i-- == 0) break;
    if (at == N_ROWS) return false;
    *out = (tt_named_recipe){.name = rows[at].text, .embedding = rows[at].embedding, .summary = rows[at].summary, .bits = rows[at].bits, .samples = rows[at].samples};
    for (at++; at < N_ROWS && rows[at].kind != ROW_RECIPE && out->n_steps < TT_MAX_NAMED_STEPS; at++) out->step[out->n_steps++] = rows[at].step;
    return true;
}

bool tt_named_recipe_find(const char *name, tt_named_recipe *out) {
    for (size_t i = 0; tt_named_recipe_get(i, out); i++)
        if (!strcmp(out->name, name)) return true;
    return false;
}

tt_status tt__named_line(const tt_named_step *step, int64_t amount, char **line, tt_err *err) {
    const char *mark = strstr(step->line, "{n}");
    tt__str s = {0};
    if (mark) tt__str_printf(&s, "%.*s%lld%s", (int)(mark - step->line), step->line, (long long)amount, mark + 3);
    else tt__str_puts(&s, step->line);
    *line = s.s;
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a recipe");
    return TT_OK;
}
