/* trimtab detokenize: ids to text, byte for byte, nothing added. */
#include "cli.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct id_list { int32_t *ids; size_t n, cap; } id_list;

static int add_ids(const cli *c, id_list *l, const char *text) {
    for (const char *p = text; *p;) {
        p += strspn(p, " \t\r\n,[]");
        if (!*p) break;
        char *end;
        errno = 0;
        long id = strtol(p, &end, 10);
        if (end == p || errno || id < 0 || id > INT32_MAX || (*end && !strchr(" \t\r\n,[]", *end))) {
            char got[40];
            snprintf(got, sizeof got, "%.*s", (int)strcspn(p, " \t\r\n,"), p);
            return usage_error(c, "not a token id", got, "whole numbers parted by blanks or commas", NULL);
        }
        if (l->n == l->cap) {
            int32_t *grown = realloc(l->ids, (2 * l->cap + 256) * sizeof *grown);
            if (!grown) return fail_text(c, TT_RESOURCE, "out of memory", "ids", NULL);
            l->ids = grown;
            l->cap = 2 * l->cap + 256;
        }
        l->ids[l->n++] = (int32_t)id;
        p = end;
    }
    return 0;
}

static int take_ids(const cli *c, int next, id_list *l) {
    int code = 0;
    char *text = NULL;
    size_t n;
    for (int i = next; code == 0 && i < c->n_args; i++) code = add_ids(c, l, c->args[i]);
    if (next < c->n_args && !opt_s(c, O_prompt_file)) return code;
    if (code == 0) code = read_all(c, opt_s(c, O_prompt_file) ? opt_s(c, O_prompt_file) : "-", &text, &n);
    if (code == 0) code = add_ids(c, l, text);
    free(text);
    return code;
}

int cmd_detokenize(cli *c) {
    int next = 0;
    const char *ref = take_model(c, &next);
    id_list l = {0};
    tt_model *m = NULL;
    char *text = NULL;
    size_t bytes = 0;
    tt_err err = {0};
    if (!ref) return TT_USAGE;
    int code = take_ids(c, next, &l);
    if (code == 0) code = open_ctx(c);
    if (code == 0) {
        tt_model_options mo = tt_model_default_options();
        mo.stored = true;
        tt_status st = tt_model_open(c->ctx, ref, &mo, &m, &err);
        if (st == TT_OK) st = tt_detokenize(m, l.ids, l.n, opt_b(c, O_special), &text, &bytes, &err);
        if (st != TT_OK) code = fail(c, st, &err);
        else if (json_wanted(c)) code = print_json(c, json_pack("{s:o, s:I, s:I}", "text", j_text(text), "bytes", (json_int_t)bytes, "n", (json_int_t)l.n));
        else fwrite(text, 1, bytes, stdout);
    }
    tt_free(text);
    tt_model_close(m);
    free(l.ids);
    return code;
}
