#include <stdio.h>
#include <trimtab/trimtab.h>

int main(void) {
    tt_err err = {0};
    tt_ctx *ctx = NULL;
    if (tt_ctx_create(NULL, &ctx, &err) != TT_OK) return 1;
    printf("trimtab %s, %s, %d threads, %zu methods\n", tt_version(), tt_ctx_isa(ctx), tt_ctx_threads(ctx), tt_method_count());
    tt_ctx_free(ctx);
    return 0;
}
