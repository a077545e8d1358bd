/* trimtab tokenize: text to ids. */
#include "cli.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The text: -p, -f, the argument, standard input. */
static int take_text(cli *c, int next, char **text, size_t *n) {
    const char *arg = opt_s(c, O_prompt);
    if (!arg && next < c->n_args) arg = c->args[next++];
    if (next < c->n_args) return usage_error(c, "too many arguments", c->args[next], c->verb->args, "put the text in quotes");
    if (arg && opt_s(c, O_prompt_file)) return usage_error(c, "two texts", arg, NULL, "give one of -p, -f and the argument");
    if (!arg) return read_all(c, opt_s(c, O_prompt_file) ? opt_s(c, O_prompt_file) : "-", text, n);
    *text = strdup(arg);
    *n = strlen(arg);
    return *text ? 0 : fail_text(c, TT_RESOURCE, "out of memory", "text", NULL);
}

static void print_piece(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)s[i];
        if (ch == '\n') fputs("\\n", stdout);
        else if (ch == '\t') fputs("\\t", stdout);
        else if (ch == '\\') fputs("\\\\", stdout);
        else if (ch < 32 || ch == 127) printf("\\x%02x", ch);
        else putchar(ch);
    }
}

static tt_status print_ids(const cli *c, const tt_model *m, const int32_t *ids, size_t n, tt_err *err) {
    if (!opt_b(c, O_pieces)) {
        for (size_t i = 0; i < n; i++) printf(i ? " %" PRId32 : "%" PRId32, ids[i]);
        putchar('\n');
        return TT_OK;
    }
    for (size_t i = 0; i < n; i++) {
        char *piece = NULL;
        size_t bytes;
        tt_status st = tt_detokenize(m, &ids[i], 1, true, &piece, &bytes, err);
        if (st != TT_OK) return st;
        printf("%7" PRId32 "  ", ids[i]);
        print_piece(piece, bytes);
        putchar('\n');
        tt_free(piece);
    }
    return TT_OK;
}

static json_t *ids_json(const cli *c, const tt_model *m, const int32_t *ids, size_t n) {
    json_t *list = json_array(), *pieces = json_array(), *o = json_object();
    for (size_t i = 0; i < n; i++) {
        char *piece = NULL;
        size_t bytes;
        json_array_append_new(list, json_integer(ids[i]));
        if (!opt_b(c, O_pieces) || tt_detokenize(m, &ids[i], 1, true, &piece, &bytes, NULL) != TT_OK) continue;
        json_array_append_new(pieces, j_text(piece));
        tt_free(piece);
    }
    json_object_set_new(o, "ids", list);
    json_object_set_new(o, "n", json_integer((json_int_t)n));
    if (opt_b(c, O_pieces)) json_object_set(o, "pieces", pieces);
    json_decref(pieces);
    return o;
}

/* One text: printed, or added to `lines`, or as the whole document *doc. */
static tt_status one(const cli *c, const tt_model *m, const char *text, size_t n, json_t *lines, json_t **doc, tt_err *err) {
    int32_t *ids = NULL;
    size_t n_ids = 0;
    unsigned flags = (opt_b(c, O_add_special) ? TT_ADD_SPECIAL : 0) | (opt_b(c, O_parse_special) ? TT_PARSE_SPECIAL : 0);
    tt_status st = tt_tokenize(m, text, n, flags, &ids, &n_ids, err);
    if (st == TT_OK && lines) json_array_append_new(lines, ids_json(c, m, ids, n_ids));
    else if (st == TT_OK && json_wanted(c)) *doc = ids_json(c, m, ids, n_ids);
    else if (st == TT_OK) st = print_ids(c, m, ids, n_ids, err);
    tt_free(ids);
    return st;
}

static tt_status tokenize(const cli *c, const tt_model *m, const char *text, size_t n, json_t **doc, tt_err *err) {
    if (!opt_b(c, O_lines)) return one(c, m, text, n, NULL, doc, err);
    json_t *lines = json_wanted(c) ? json_array() : NULL;
    tt_status st = TT_OK;
    for (size_t i = 0; st == TT_OK && i < n;) {
        const char *end = memchr(text + i, '\n', n - i);
        size_t len = end ? (size_t)(end - text) - i : n - i;
        st = one(c, m, text + i, len, lines, doc, err);
        i += len + 1;
    }
    if (lines) *doc = json_pack("{s:o}", "lines", lines);
    return st;
}

int cmd_tokenize(cli *c) {
    int next = 0;
    const char *ref = take_model(c, &next);
    char *text = NULL;
    size_t n = 0;
    tt_model *m = NULL;
    json_t *doc = NULL;
    tt_err err = {0};
    if (!ref) return TT_USAGE;
    int code = take_text(c, next, &text, &n);
    if (code == 0) code = open_ctx(c);
    if (code == 0) {
        tt_model_options mo = tt_model_default_options();
        mo.stored = true;
        tt_status st = tt_model_open(c->ctx, ref, &mo, &m, &err);
        if (st == TT_OK) st = tokenize(c, m, text, n, &doc, &err);
        if (st != TT_OK) code = fail(c, st, &err);
        else if (json_wanted(c)) code = print_json(c, json_incref(doc));
    }
    json_decref(doc);
    tt_model_close(m);
    free(text);
    return code;
}
