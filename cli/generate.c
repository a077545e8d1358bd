/* trimtab generate: text sampled from a model, as data for compress and tune. */
#include "cli.h"
#include <inttypes.h>

static int report_json(const cli *c, const tt_generate_options *o, const tt_generate_report *r) {
    json_t *doc = json_pack("{s:o, s:s, s:o, s:o, s:s, s:I, s:I, s:I, s:I, s:b}", "model", j_text(o->model), "model_sha256", r->model_sha256, "output", j_text(o->output),
                            "manifest", j_text(r->manifest), "sha256", r->sha256, "documents", (json_int_t)r->documents, "dropped", (json_int_t)r->dropped, "tokens",
                            (json_int_t)r->tokens, "drawn", (json_int_t)r->drawn, "resumed", r->resumed);
    json_object_set_new(doc, "seconds", j_real(r->seconds));
    json_object_set_new(doc, "tokens_per_second", j_real(r->tokens_per_second));
    json_object_set_new(doc, "peak_bytes", json_integer((json_int_t)r->peak_bytes));
    json_object_set_new(doc, "threads", json_integer(tt_ctx_threads(c->ctx)));
    json_object_set_new(doc, "isa", j_text(tt_ctx_isa(c->ctx)));
    return print_json(c, doc);
}

static int report_text(const tt_generate_options *o, const tt_generate_report *r) {
    char t[32], n[32], d[32], p[32];
    puts(o->output);
    printf("%s documents, %s tokens", text_count((uint64_t)r->documents, d), text_count((uint64_t)r->tokens, n));
    if (r->dropped) printf(", %" PRId64 " dropped", r->dropped);
    printf("; %s%s, %.0f tokens/s, peak %s\nmanifest %s\n", text_time(r->seconds, t), r->resumed ? " (resumed)" : "", r->tokens_per_second, text_bytes(r->peak_bytes, p),
           r->manifest);
    return 0;
}

int cmd_generate(cli *c) {
    tt_generate_options o = tt_generate_default_options();
    tt_generate_report r = {0};
    tt_err err = {0};
    int next = 0;
    o.model = take_model(c, &next);
    if (!o.model) return TT_USAGE;
    o.output = opt_s(c, O_output);
    if (!o.output && next < c->n_args) o.output = c->args[next++];
    if (!o.output) return usage_error(c, "no output given", NULL, c->verb->args, "name a file that ends in .jsonl, or use -o OUT");
    if (next < c->n_args) return usage_error(c, "too many arguments", c->args[next], c->verb->args, NULL);
    int code = open_ctx(c);
    if (code) return code;
    o.count = opt_i(c, O_count);
    o.tokens = opt_i(c, O_gen_tokens);
    o.batch = opt_i(c, O_gen_batch);
    o.temperature = opt_f(c, O_gen_temp);
    o.top_p = opt_f(c, O_gen_top_p);
    if (opt_given(c, O_work_seed)) o.seed = (uint64_t)opt_i(c, O_work_seed);
    o.prompts = opt_s(c, O_prompts);
    o.chat = opt_b(c, O_as_chat);
    o.system = opt_s(c, O_system);
    o.cache = cache_type(opt_s(c, O_gen_cache));
    o.state = opt_s(c, O_state);
    o.resume = opt_b(c, O_resume);
    o.force = opt_b(c, O_force);
    note(c, "trimtab generate: %s -> %s, %d threads, %s", o.model, o.output, tt_ctx_threads(c->ctx), tt_ctx_isa(c->ctx));
    tt_status st = tt_generate(c->ctx, &o, &r, &err);
    if (st != TT_OK) return fail(c, st, &err);
    return json_wanted(c) ? report_json(c, &o, &r) : report_text(&o, &r);
}
