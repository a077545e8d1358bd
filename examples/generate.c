/* The smallest use: open a model, feed a prompt, print what it says.   generate MODEL "prompt" [tab folder] */
#include <stdio.h>
#include <string.h>
#include <trimtab/trimtab.h>

static int fail(const tt_err *err) {
    char line[1200];
    fprintf(stderr, "generate: %s\n", tt_err_line(err, line, sizeof line));
    return err->status;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: generate MODEL PROMPT [TAB]\n");
        return TT_USAGE;
    }
    tt_err err = {0};
    tt_ctx *ctx = NULL;
    tt_model *model = NULL;
    tt_tab *tab = NULL;
    tt_session *session = NULL;
    tt_sampler_options greedy = tt_sampler_default_options();
    greedy.temperature = 0;
    int32_t *ids = NULL;
    size_t n = 0;
    tt_status st = tt_ctx_create(NULL, &ctx, &err);
    if (!st) st = tt_model_open(ctx, argv[1], NULL, &model, &err);
    if (!st) st = tt_session_create(model, NULL, &session, &err);
    if (!st && argc > 3) st = tt_tab_open(model, argv[3], &tab, &err);
    if (!st && tab) st = tt_session_attach(session, tab, &err);
    if (!st) st = tt_session_set_sampler(session, &greedy, &err);
    if (!st) st = tt_tokenize(model, argv[2], strlen(argv[2]), TT_ADD_SPECIAL, &ids, &n, &err);
    if (!st) st = tt_session_feed(session, ids, n, &err);
    for (int i = 0; !st && i < 32; i++) {
        int32_t id;
        char *text = NULL;
        size_t bytes = 0;
        st = tt_session_sample(session, &id, &err);
        if (st || tt_model_is_end(model, id)) break;
        st = tt_detokenize(model, &id, 1, false, &text, &bytes, &err);
        if (!st) fwrite(text, 1, bytes, stdout);
        tt_free(text);
        if (!st) st = tt_session_feed(session, &id, 1, &err);
    }
    putchar('\n');
    tt_free(ids);
    tt_session_free(session);
    tt_tab_close(tab);
    tt_model_close(model);
    tt_ctx_free(ctx);
    return st ? fail(&err) : 0;
}
