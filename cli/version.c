/* trimtab version: what was built, from which sources, what it uses here, under which licence. */
#include "cli.h"
#if __has_include("git_hash.h")
#include "git_hash.h"            /* made by the build: TRIMTAB_GIT_HASH */
#endif
#ifndef TRIMTAB_GIT_HASH
#define TRIMTAB_GIT_HASH "unknown"
#endif

static const char *const licence = "MIT";
const char *const git_hash = TRIMTAB_GIT_HASH;

void print_version(void) { printf("trimtab %s (%s)\n", tt_version(), git_hash); }

int cmd_version(cli *c) {
    int code = open_ctx(c);
    if (code) return code;
    if (json_wanted(c))
        return print_json(c, json_pack("{s:s, s:s, s:s, s:o, s:s}", "name", "trimtab", "version", tt_version(), "git", git_hash, "isa", j_text(tt_ctx_isa(c->ctx)),
                                       "licence", licence));
    print_version();
    printf("instruction set: %s\nlicence: %s\n", tt_ctx_isa(c->ctx), licence);
    return 0;
}
