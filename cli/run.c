/* trimtab run: one prompt, one answer; a chat when there is a terminal and no prompt. */
#include "cli.h"
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* The prompt and where it came from: -p, -f, the argument, standard input. *text is NULL when a chat shall begin. */
static int take_prompt(cli *c, int next, char **text, size_t *n) {
    const char *arg = opt_s(c, O_prompt);
    if (!arg && next < c->n_args) arg = c->args[next++];
    if (next < c->n_args) return usage_error(c, "too many arguments", c->args[next], c->verb->args, "put the prompt in quotes");
    if (arg && opt_s(c, O_prompt_file)) return usage_error(c, "two prompts", arg, NULL, "give one of -p, -f and the argument");
    *text = NULL;
    if (arg) {
        *text = strdup(arg);
        *n = strlen(arg);
        return *text ? 0 : fail_text(c, TT_RESOURCE, "out of memory", "prompt", NULL);
    }
    if (!opt_s(c, O_prompt_file) && isatty(STDIN_FILENO)) return 0;
    return read_all(c, opt_s(c, O_prompt_file) ? opt_s(c, O_prompt_file) : "-", text, n);
}

static tt_status prompt_ids(const generator *g, const char *text, size_t n, int32_t **ids, size_t *n_ids, tt_err *err) {
    tt_message messages[2];
    size_t k = 0;
    const char *system = opt_s(g->c, O_system);
    if (opt_b(g->c, O_raw) || !tt_model_get_info(g->model)->chat_template) return tt_tokenize(g->model, text, n, TT_ADD_SPECIAL, ids, n_ids, err);
    if (system) messages[k++] = (tt_message){"system", system};
    messages[k++] = (tt_message){"user", text};
    return tt_chat_tokenize(g->model, messages, k, true, ids, n_ids, err);
}

static int reply_json(const generator *g, const char *text) {
    json_t *doc = json_pack("{s:o, s:o, s:s, s:I, s:I}", "model", j_text(tt_model_get_info(g->model)->path), "text", j_text(text), "stop", g->stop, "prompt_tokens",
                            (json_int_t)g->prompt_tokens, "tokens", (json_int_t)g->tokens);
    json_object_set_new(doc, "prompt_seconds", j_real(g->prompt_seconds));
    json_object_set_new(doc, "seconds", j_real(g->seconds));
    json_object_set_new(doc, "tokens_per_second", j_real(g->seconds > 0 ? (double)g->tokens / g->seconds : 0));
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    json_object_set_new(doc, "peak_rss", json_integer((json_int_t)use.ru_maxrss * 1024));
    json_object_set_new(doc, "threads", json_integer(tt_ctx_threads(g->c->ctx)));
    json_object_set_new(doc, "isa", j_text(tt_ctx_isa(g->c->ctx)));
    return print_json(g->c, doc);
}

static int answer(generator *g, const char *text, size_t n) {
    int32_t *ids = NULL;
    size_t n_ids = 0, bytes = 0;
    char *reply = NULL;
    tt_err err = {0};
    tt_status st = prompt_ids(g, text, n, &ids, &n_ids, &err);
    if (st == TT_OK && n_ids == 0) {
        st = TT_USAGE;
        err = (tt_err){.status = TT_USAGE, .what = "the prompt is empty"};
    }
    if (st != TT_OK) {
        tt_free(ids);
        return fail(g->c, st, &err);
    }
    if (opt_b(g->c, O_raw) && !json_wanted(g->c)) fwrite(text, 1, n, stdout);
    int code = generate(g, ids, n_ids, !json_wanted(g->c), &reply, &bytes);
    if (code == 0 && json_wanted(g->c)) code = reply_json(g, reply);
    else if (code == 0) putchar('\n');
    if (code == 0) generator_timings(g);
    if (code == 0 && interrupted()) code = interrupted();
    free(reply);
    tt_free(ids);
    return code;
}

int cmd_run(cli *c) {
    generator g;
    char *text = NULL;
    size_t n = 0;
    int next = 0;
    const char *ref = take_model(c, &next);
    if (!ref) return TT_USAGE;
    int code = take_prompt(c, next, &text, &n);
    if (code) return code;
    code = generator_open(&g, c, ref);
    if (code == 0) code = text ? answer(&g, text, n) : chat_loop(&g);
    generator_close(&g);
    free(text);
    return code;
}
