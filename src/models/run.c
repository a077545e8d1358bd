/* Stored operators → run format. All panels lie in one block of memory, in the order of the weights: with huge pages the block costs a few
 * page faults instead of thousands, both here and in every later pass over it. */
#include "models/run.h"
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

uint64_t tt__net_run_bytes(const tt_net *net) {
    uint64_t sum = 0;
    for (size_t i = 0; i < net->n_weights; i++) sum += net->weights[i].op ? tt__linop_panel_bytes(net->weights[i].op) : 0;
    return sum;
}

uint8_t *tt__net_run_memory(tt_net *net, uint64_t bytes) {
    const bool made = net->run != NULL;
    if (!made) net->run = tt__alloc((size_t)bytes + HUGE_PAGE);
    if (!net->run) return NULL;
    uint8_t *at = (uint8_t *)(((uintptr_t)net->run + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    if (!made) madvise(at, (size_t)bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);          /* a hint: without it all is the same, slower */
    return at;
}

static void give_back(const tt_gguf *source, const tt_linop *op) {
    tt_segment seg[8];
    for (int i = op->v->segments(op, seg) - 1; source && i >= 0; i--) tt__gguf_release(source, seg[i].data, seg[i].bytes);
}

tt_status tt__net_to_run(tt_ctx *ctx, tt_net *net, const tt_gguf *source, tt_err *err) {
    const uint64_t bytes = tt__net_run_bytes(net);
    if (!bytes) return TT_OK;
    uint8_t *at = tt__net_run_memory(net, bytes);
    TT_FAIL_IF(!at, err, TT_RESOURCE, "out of memory|for the model's run format|%llu bytes", (unsigned long long)bytes);
    for (size_t i = 0; i < net->n_weights; i++) {
        tt_weight *w = &net->weights[i];
        const uint64_t need = w->op ? tt__linop_panel_bytes(w->op) : 0;
        tt_linop *panel;
        if (!need) continue;
        TT_TRY(tt__linop_panel_from(ctx, w->op, at, &panel, err));
        if (!panel) continue;
        at += need;
        give_back(source, w->op);
        tt__linop_free(w->op);
        w->op = panel;
    }
    return TT_OK;
}
