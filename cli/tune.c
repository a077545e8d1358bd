/* trimtab tune: learn a tab through a compressed model. */
#include "cli.h"
#include <inttypes.h>
#include <string.h>

json_t *guard_json(const tt_guard_report *g) {
    json_t *texts = json_array(), *trade = json_array();
    if (!g->n_texts) return json_null();
    for (int i = 0; i < g->n_texts; i++)
        json_array_append_new(texts, json_pack("{s:o, s:I, s:o, s:o, s:o}", "name", j_text(g->text[i].name), "tokens", (json_int_t)g->text[i].tokens, "bare",
                                               j_real(g->text[i].bare), "kept", j_real(g->text[i].kept), "diff", j_real(g->text[i].kept - g->text[i].bare)));
    for (int i = 0; i < g->n_trade; i++)
        json_array_append_new(trade, json_pack("{s:I, s:o, s:o}", "step", (json_int_t)g->trade[i].step, "valid", j_real(g->trade[i].valid), "harm", j_real(g->trade[i].harm)));
    return json_pack("{s:b, s:o, s:o}", "harmless", g->harmless, "texts", texts, "trade", trade);
}

void guard_text(const tt_guard_report *g) {
    for (int i = 0; i < g->n_texts; i++)
        printf("guard %s: %.4f -> %.4f (%+.4f)\n", g->text[i].name, g->text[i].bare, g->text[i].kept, g->text[i].kept - g->text[i].bare);
    if (!g->n_texts || g->harmless) return;
    puts("no checkpoint was harmless; what could be had:");
    for (int i = 0; i < g->n_trade; i++)
        printf("  step %" PRId64 ": validation %.4f, the worst guarded text %+.4f\n", g->trade[i].step, g->trade[i].valid, g->trade[i].harm);
}

static int report_json(const cli *c, const tt_tune_options *o, const tt_tune_report *r, const char *recipe_sha256) {
    json_t *doc = json_pack("{s:o, s:o, s:o, s:o, s:o, s:b}", "model", j_text(o->model), "output", j_text(o->output), "recipe", j_text(o->recipe), "recipe_sha256",
                            j_text(recipe_sha256), "data", j_text(o->data), "resumed", r->resumed);
    json_object_set_new(doc, "steps", json_integer(r->steps));
    json_object_set_new(doc, "best_step", json_integer(r->best_step));
    json_object_set_new(doc, "tokens_seen", json_integer(r->tokens_seen));
    json_object_set_new(doc, "first_loss", j_real(r->first_loss));
    json_object_set_new(doc, "last_loss", j_real(r->last_loss));
    json_object_set_new(doc, "first_valid", j_real(r->first_valid));
    json_object_set_new(doc, "best_valid", j_real(r->best_valid));
    json_object_set_new(doc, "seconds", j_real(r->seconds));
    json_object_set_new(doc, "seconds_per_step", j_real(r->seconds_per_step));
    json_object_set_new(doc, "peak_bytes", json_integer((json_int_t)r->peak_bytes));
    json_object_set_new(doc, "guard", guard_json(&r->guard));
    json_object_set_new(doc, "threads", json_integer(tt_ctx_threads(c->ctx)));
    json_object_set_new(doc, "isa", j_text(tt_ctx_isa(c->ctx)));
    return print_json(c, doc);
}

static int report_text(const tt_tune_options *o, const tt_tune_report *r) {
    char t[32], p[32], n[32];
    puts(o->output);
    printf("%" PRId64 " steps, %s tokens, %s%s, %.3f s a step, peak %s\n", r->steps, text_count((uint64_t)r->tokens_seen, n), text_time(r->seconds, t),
           r->resumed ? " (resumed)" : "", r->seconds_per_step, text_bytes(r->peak_bytes, p));
    printf("loss %.4f -> %.4f, validation %.4f -> %.4f at step %" PRId64 " (nats per token)\n", r->first_loss, r->last_loss, r->first_valid, r->best_valid, r->best_step);
    guard_text(&r->guard);
    return 0;
}

static int check_method(const cli *c, const char *recipe, char sha256[65]) {
    tt_recipe *r = NULL;
    tt_err err = {0};
    tt_status st = tt_recipe_parse(recipe, strlen(recipe), &r, &err);
    if (st != TT_OK) return fail(c, st, &err);
    bool one = true;                           /* behind compress steps: the library asks whether they are the model's */
    for (size_t i = 0, last = tt_recipe_step_count(r) - 1; i <= last; i++)
        one = one && !strcmp(tt_recipe_get_method(r, i)->stage, i < last ? "compress" : "train");
    tt_recipe_sha256(r, sha256);
    tt_recipe_free(r);
    return one ? 0 : usage_error(c, "not one train method", recipe, "one such as 'prompt(tokens=32)'", "compress steps belong to 'trimtab compress'");
}

int cmd_tune(cli *c) {
    tt_tune_options o = tt_tune_default_options();
    tt_tune_report r = {0};
    tt_err err = {0};
    char sha256[65];
    int next = 0;
    o.model = take_model(c, &next);
    if (!o.model) return TT_USAGE;
    o.output = opt_s(c, O_output);
    if (!o.output && next < c->n_args) o.output = c->args[next++];
    if (!o.output) return usage_error(c, "no output given", NULL, c->verb->args, "name a folder, or use -o OUT");
    if (next < c->n_args) return usage_error(c, "too many arguments", c->args[next], c->verb->args, NULL);
    if (!opt_s(c, O_data)) return usage_error(c, "no text to learn from", NULL, "--data FILE", NULL);
    o.recipe = opt_s(c, O_method);
    if (!o.recipe) return usage_error(c, "no method given", NULL, "--method 'prompt(tokens=32)'", NULL);
    int code = check_method(c, o.recipe, sha256);
    if (code || (code = open_ctx(c))) return code;
    o.teacher = opt_s(c, O_teacher);
    o.data = opt_list(c, O_data);
    o.guard = opt_list(c, O_guard);
    o.valid = opt_s(c, O_valid);
    o.time = opt_f(c, O_time);
    if (opt_given(c, O_work_seed)) o.seed = (uint64_t)opt_i(c, O_work_seed);
    if (opt_given(c, O_max_ram)) o.max_ram = (uint64_t)opt_i(c, O_max_ram);
    o.state = opt_s(c, O_state);
    o.resume = opt_b(c, O_resume);
    o.force = opt_b(c, O_force);
    note(c, "trimtab tune: %s -> %s, %s, %d threads, %s", o.model, o.output, o.recipe, tt_ctx_threads(c->ctx), tt_ctx_isa(c->ctx));
    tt_status st = tt_tune(c->ctx, &o, &r, &err);
    if (st == TT_OK || st == TT_TARGET) code = json_wanted(c) ? report_json(c, &o, &r, sha256) : report_text(&o, &r);
    return st == TT_OK ? code : fail(c, st, &err);
}
