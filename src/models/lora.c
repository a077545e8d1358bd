/* A LoRA folder on a net (lora.h). Rows of q and k lie interleaved in GGUF files (net.h, rope_adjacent): B's rows move with them, A does not care. */
#include "models/lora.h"
#include <stdio.h>

void tt__lora_module(const tt_weight *w, char out[96]) {
    const char *end = strrchr(w->hf, '.');
    snprintf(out, 96, "%.*s", (int)(end ? (size_t)(end - w->hf) : strlen(w->hf)), w->hf);
}

int64_t tt__lora_hf_row(const tt_net *net, const tt_weight *w, int64_t r) {
    if (!w->permute || !net->rope_adjacent) return r;
    const int64_t D = w->rows / w->permute_heads, head = r / D, i = r % D / 2, j = r % 2;
    return head * D + j * D / 2 + i;
}

static tt_status find_weight(const tt_net *net, const tt_lora_part *p, size_t *out, tt_err *err) {
    char module[96];
    for (size_t i = 0; i < net->n_weights; i++) {
        const tt_weight *w = &net->weights[i];
        tt__lora_module(w, module);
        if (!w->op || !w->linear || strcmp(module, p->module) != 0) continue;
        TT_FAIL_IF(p->rows != w->rows || p->cols != w->cols, err, TT_BADFILE, "tab does not fit the model|%s|[%lld, %lld]|[%lld, %lld]|", p->module, (long long)p->rows,
                   (long long)p->cols, (long long)w->rows, (long long)w->cols);
        *out = i;
        return TT_OK;
    }
    return tt__fail(err, TT_BADFILE, "tab does not fit the model|%s|the model has no such linear matrix", p->module);
}

static tt_status bind(tt_ctx *ctx, const tt_net *net, const tt_lora_part *p, tt_linop **ops, tt_err *err) {
    size_t i;
    float *B = NULL;
    tt_linop *a = NULL, *b = NULL;
    tt_status st;
    TT_TRY(find_weight(net, p, &i, err));
    TT_FAIL_IF(ops[i], err, TT_BADFILE, "tab names a matrix twice|%s", p->module);
    TT_TRY_GOTO(tt__new(&B, (size_t)(p->rows * p->rank), sizeof *B, "a tab", err));
    for (int64_t r = 0; r < p->rows; r++) memcpy(B + r * p->rank, p->B + tt__lora_hf_row(net, &net->weights[i], r) * p->rank, (size_t)p->rank * sizeof *B);
    TT_TRY_GOTO(tt__linop_factor(ctx, "f32", p->A, p->rank, p->cols, &a, err));
    TT_TRY_GOTO(tt__linop_factor(ctx, "f32", B, p->rows, p->rank, &b, err));
    TT_TRY_GOTO(tt__linop_lowrank(ctx, net->weights[i].op, false, a, b, p->scale, &ops[i], err));
    a = b = NULL;
done:
    tt__linop_free(a);
    tt__linop_free(b);
    tt__free(B);
    return st;
}

tt_status tt__lora_ops(tt_ctx *ctx, const tt_net *net, const tt_peft_lora *l, tt_linop ***out, tt_err *err) {
    tt_status st = TT_OK;
    TT_TRY(tt__new(out, net->n_weights, sizeof **out, "a tab", err));
    for (size_t i = 0; i < l->n && st == TT_OK; i++) st = bind(ctx, net, &l->parts[i], *out, err);
    if (st == TT_OK) return st;
    tt__lora_free_ops(net, *out);
    *out = NULL;
    return st;
}

void tt__lora_free_ops(const tt_net *net, tt_linop **ops) {
    for (size_t i = 0; ops && i < net->n_weights; i++) tt__linop_free(ops[i]);
    tt__free(ops);
}

tt_status tt__net_view(const tt_net *net, tt_linop *const *ops, tt_net **out, tt_err *err) {
    tt_weight *weights = NULL;
    TT_TRY(tt__new(&weights, net->n_weights, sizeof *weights, "a view of a model", err));
    tt_status st = tt__new(out, 1, sizeof **out, "a view of a model", err);
    if (st != TT_OK) {
        tt__free(weights);
        return st;
    }
    **out = *net;
    (*out)->weights = memcpy(weights, net->weights, net->n_weights * sizeof *weights);
    for (size_t i = 0; i < net->n_weights; i++) if (ops[i]) weights[i].op = ops[i];
    return TT_OK;
}

void tt__net_view_free(tt_net *view) {
    if (view) tt__free(view->weights);
    tt__free(view);
}
