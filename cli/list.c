/* trimtab list: the catalogue, pulled or not, and the hub cache. */
#include "cli.h"

static int list_json(const cli *c, const tt_cache_list *list) {
    json_t *models = json_array();
    for (size_t i = 0; i < list->n; i++) {
        const tt_cached_model *m = &list->items[i];
        json_array_append_new(models, json_pack("{s:o, s:o, s:I, s:o, s:b}", "ref", j_text(m->ref), "path", m->present ? j_text(m->path) : json_null(), "bytes",
                                                (json_int_t)m->bytes, "source", j_text(m->source), "present", m->present));
    }
    return print_json(c, json_pack("{s:o}", "models", models));
}

int cmd_list(cli *c) {
    tt_cache_list *list = NULL;
    tt_err err = {0};
    int code = open_ctx(c);
    if (code) return code;
    tt_status st = tt_cache_get_list(c->ctx, &list, &err);
    if (st != TT_OK) return fail(c, st, &err);
    if (json_wanted(c)) code = list_json(c, list);
    else {
        printf("%-48s %-10s %-12s %s\n", "MODEL", "SIZE", "SOURCE", "PATH");
        for (size_t i = 0; i < list->n; i++) {
            const tt_cached_model *m = &list->items[i];
            char size[32];
            printf("%-48s %-10s %-12s %s\n", m->ref, text_bytes(m->bytes, size), m->source, m->present ? m->path : "(not pulled)");
        }
    }
    tt_cache_free_list(list);
    return code;
}
