/* trimtab pull: prints the path of what was fetched, so that scripts can write $(trimtab pull NAME). */
#include "cli.h"
#include <sys/stat.h>

static uint64_t file_bytes(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode) ? (uint64_t)s.st_size : 0;
}

int cmd_pull(cli *c) {
    int next = 0;
    const char *ref = take_model(c, &next);
    char *path = NULL;
    tt_err err = {0};
    if (!ref) return TT_USAGE;
    if (next < c->n_args) return usage_error(c, "too many arguments", c->args[next], c->verb->args, NULL);
    int code = open_ctx(c);
    if (code) return code;
    tt_pull_options o = {.size = sizeof o, .ref = ref, .include = opt_s(c, O_include), .revision = opt_s(c, O_revision), .token = opt_s(c, O_token),
                         .offline = opt_b(c, O_offline), .force = opt_b(c, O_force)};
    tt_status st = tt_pull(c->ctx, &o, &path, &err);
    if (st != TT_OK) return fail(c, st, &err);
    if (json_wanted(c)) code = print_json(c, json_pack("{s:s, s:o, s:I}", "ref", ref, "path", j_text(path), "bytes", (json_int_t)file_bytes(path)));
    else puts(path);
    tt_free(path);
    return code;
}
