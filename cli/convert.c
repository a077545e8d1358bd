/* trimtab convert: another container or element type, the same weights. */
#include "cli.h"

int cmd_convert(cli *c) {
    int next = 0;
    const char *ref = take_model(c, &next), *out = opt_s(c, O_output);
    tt_err err = {0};
    if (!ref) return TT_USAGE;
    if (!out && next < c->n_args) out = c->args[next++];
    if (!out) return usage_error(c, "no output given", NULL, c->verb->args, "name it, or use -o OUT");
    if (next < c->n_args) return usage_error(c, "too many arguments", c->args[next], c->verb->args, NULL);
    int code = open_ctx(c);
    if (code) return code;
    tt_convert_options o = {.size = sizeof o, .model = ref, .output = out, .outtype = opt_s(c, O_outtype), .force = opt_b(c, O_force)};
    tt_status st = tt_convert(c->ctx, &o, &err);
    if (st != TT_OK) return fail(c, st, &err);
    if (json_wanted(c)) return print_json(c, json_pack("{s:o, s:o, s:o}", "model", j_text(ref), "output", j_text(out), "outtype", j_text(o.outtype)));
    puts(out);
    return 0;
}
