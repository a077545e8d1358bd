/* Tabs: a PEFT prompt-tuning or prefix-tuning folder opened for one model. The keys and values of a prompt are computed once, when the first session
 * attaches it, those of a prefix are what the folder holds; all sessions share them: serving pays only for k more cached positions. The factors of a
 * LoRA folder stand beside the model's matrices, which stay as they are. */
#include "base/util.h"
#include "engine/model.h"
#include "text/template.h"

static const uint64_t CHEAP_TO_HASH = 1ull << 30;

tt_status tt__dense_sha256(tt_model *model, bool hash, char out[65], tt_err *err) {
    const char *sha = NULL;
    size_t n = 0;
    out[0] = 0;
    if (model->gguf) TT_TRY(tt__gguf_str(model->gguf, "trimtab.base_sha256", false, &sha, &n, err));
    if (sha && n == 64) {
        memcpy(out, sha, 64);
        out[64] = 0;
        return TT_OK;
    }
    return hash || model->info.bytes < CHEAP_TO_HASH ? tt_model_sha256(model, out, err) : TT_OK;
}

/* A tab serves every compression of the dense model it was made for; with another one it is used all the same. */
static tt_status tell_lineage(const tt_model *model, const char *made_for, const char *path, tt_err *err) {
    char dense[65];
    if (!made_for) return TT_OK;
    TT_TRY(tt__dense_sha256((tt_model *)(uintptr_t)model, false, dense, err));
    if (dense[0] && strcmp(dense, made_for) != 0)
        tt__log(model->ctx, TT_LOG_WARN, "tab %s was made for compressions of another dense model (%.12s…, this one comes from %.12s…): measure before you trust it", path,
                made_for, dense);
    return TT_OK;
}

static tt_status fits(const tt_model *model, const char *path, const tt_peft_prompt *p, tt_err *err) {
    const tt_hparams *hp = &model->net->hp;
    if (p->prefix) {
        TT_FAIL_IF(p->n_layers != hp->n_layer || p->kv_width != hp->n_head_kv * hp->head_dim, err, TT_BADFILE,
                   "tab does not fit the model|%s|%lld layers of %lld keys|%lld layers of %lld, as %s has|a prefix serves models of the same layers and tokenizer", path,
                   (long long)p->n_layers, (long long)p->kv_width, (long long)hp->n_layer, (long long)(hp->n_head_kv * hp->head_dim), model->path);
        return TT_OK;
    }
    TT_FAIL_IF(p->width != hp->n_embd, err, TT_BADFILE,
               "tab does not fit the model|%s|width %lld|%lld, the embedding length of %s|a tab serves models of the same width and tokenizer", path,
               (long long)p->width, (long long)hp->n_embd, model->path);
    if (p->n_layers && p->n_layers != hp->n_layer)
        tt__log(model->ctx, TT_LOG_WARN, "tab %s was made for a model of %lld layers; this one has %lld", path, (long long)p->n_layers, (long long)hp->n_layer);
    return TT_OK;
}

static tt_status open_lora(tt_tab *tab, const char *path, tt_err *err) {
    const tt_model *m = tab->model;
    uint64_t bytes = 0;
    TT_TRY(tt__peft_lora_load(path, &tab->lora, err));
    TT_TRY(tt__lora_ops(m->ctx, m->net, &tab->lora, &tab->ops, err));
    tab->path = tt__strdup(path);
    TT_FAIL_IF(!tab->path, err, TT_RESOURCE, "out of memory|a tab");
    for (size_t i = 0; i < tab->lora.n; i++) bytes += (uint64_t)(tab->lora.parts[i].rank * (tab->lora.parts[i].rows + tab->lora.parts[i].cols)) * sizeof(float);
    tab->info = (tt_tab_info){.size = sizeof tab->info, .path = tab->path, .method = "lora", .width = tab->lora.rank, .bytes = bytes, .base_sha256 = tab->lora.base_sha256};
    return tell_lineage(m, tab->lora.dense_sha256, path, err);
}

tt_status tt_tab_open(const tt_model *model, const char *path, tt_tab **out, tt_err *err) {
    *out = NULL;
    TT_FAIL_IF(!model->net, err, TT_BADFILE, "tabs need a model that this build can run|%s|architecture %s", model->path, model->info.architecture);
    tt_tab *tab = NULL;
    TT_TRY(tt__new(&tab, 1, sizeof *tab, "a tab", err));
    tab->model = model;
    tt_status st;
    if (tt__peft_is_lora(path)) {
        TT_TRY_GOTO(open_lora(tab, path, err));
        *out = tab;
        return TT_OK;
    }
    const tt_peft_prompt *p = &tab->prompt;
    TT_TRY_GOTO(tt__peft_load(path, &tab->prompt, err));
    TT_TRY_GOTO(fits(model, path, p, err));
    tab->path = tt__strdup(path);
    if (!tab->path) {
        st = tt__fail(err, TT_RESOURCE, "out of memory|a tab");
        goto done;
    }
    TT_TRY_GOTO(tell_lineage(model, p->dense_sha256, path, err));
    tab->info = (tt_tab_info){.size = sizeof tab->info, .path = tab->path, .method = p->prefix ? "prefix" : "prompt", .tokens = p->tokens, .width = p->width,
                              .bytes = (uint64_t)(p->tokens * p->width) * 4, .base_sha256 = p->base_sha256};
    *out = tab;
    return TT_OK;
done:
    tt_tab_close(tab);
    return st;
}

void tt_tab_close(tt_tab *tab) {
    if (!tab) return;
    tt__prefix_free(tab->prefix);
    tt__peft_free(&tab->prompt);
    tt__lora_free_ops(tab->model->net, tab->ops);
    tt__peft_lora_free(&tab->lora);
    tt__free(tab->path);
    tt__free(tab);
}

const tt_tab_info *tt_tab_get_info(const tt_tab *tab) { return &tab->info; }

tt_status tt__tab_prefix(tt_ctx *ctx, tt_tab *tab, const tt_prefix **out, tt_err *err) {
    if (!tab->prefix && tab->prompt.prefix)
        TT_TRY(tt__prefix_from_rows(tab->model->net, tab->prompt.embeddings, tab->prompt.tokens, tt__model_kvtype(tab->model), &tab->prefix, err));
    if (!tab->prefix && !tab->ops) {
        tt_runner *r = NULL;
        tt_runner_options o = {.max_rows = tab->prompt.tokens, .fast = tab->model->opt.numerics == TT_FAST};
        TT_TRY(tt__runner_create(ctx, tab->model->net, &o, &r, err));
        tt_status st = tt__prefix_compute(r, tab->prompt.embeddings, tab->prompt.tokens, tt__model_kvtype(tab->model), &tab->prefix, err);
        tt__runner_free(r);
        TT_TRY(st);
    }
    *out = tab->prefix;
    return TT_OK;
}

tt_status tt_chat_tokenize(const tt_model *model, const tt_message *messages, size_t n_messages, bool add_generation_prompt, int32_t **ids,
                           size_t *n, tt_err *err) {
    TT_FAIL_IF(!model->tok, err, TT_BADFILE, "model has no tokenizer that this build can use|%s", model->path);
    TT_FAIL_IF(!tt__tokenizer_template(model->tok), err, TT_BADFILE, "model has no chat template|%s||tokenizer.chat_template|use `run` with a plain prompt", model->path);
    return tt__chat_encode(model->tok, messages, n_messages, add_generation_prompt, ids, n, err);
}
