/* The public measuring calls: open the models and the tab that the options name, hand nets to measure/, close everything.
 * A tab is computed once: its keys and values are kept as a prefix in front of every window. */
#include "engine/model.h"
#include "measure/measure.h"

tt_perplexity_options tt_perplexity_default_options(void) {
    return (tt_perplexity_options){.size = sizeof(tt_perplexity_options), .n_ctx = 512, .chunks = -1};
}

static tt_status open_runnable(tt_ctx *ctx, const char *ref, tt_numerics numerics, tt_model **out, tt_err *err) {
    tt_model_options o = tt_model_default_options();
    o.numerics = numerics;
    TT_TRY(tt_model_open(ctx, ref, &o, out, err));
    const tt_model *m = *out;
    TT_FAIL_IF(!m->net, err, TT_BADFILE, "cannot run this architecture|%s|%s||`show` and `convert` work on it", m->path,
               m->info.architecture);
    TT_FAIL_IF(!m->tok, err, TT_BADFILE, "model has no tokenizer that this build can use|%s", m->path);
    return TT_OK;
}

static tt_status refuse_overwriting(const char *output, const tt_perplexity_options *o, tt_err *err) {
    const char *inputs[] = {o->model, o->data, o->load_base, o->base};
    for (size_t i = 0; output && i < sizeof inputs / sizeof *inputs; i++)
        TT_FAIL_IF(inputs[i] && tt__same_file(output, inputs[i]), err, TT_USAGE, "output is also an input|%s", output);
    return TT_OK;
}

/* A tab, and what it changes: positions in front, or a view of the net with other operators. */
static tt_status open_tab(tt_ctx *ctx, tt_model *model, const char *path, tt_tab **tab, const tt_prefix **prefix, tt_net **view, tt_err *err) {
    TT_TRY(tt_tab_open(model, path, tab, err));
    TT_TRY(tt__tab_prefix(ctx, *tab, prefix, err));
    return (*tab)->ops ? tt__net_view(model->net, (*tab)->ops, view, err) : TT_OK;
}

tt_status tt_perplexity(tt_ctx *ctx, const tt_perplexity_options *options, tt_perplexity_report *report, tt_err *err) {
    const tt_perplexity_options *o = options;
    tt_model *model = NULL, *base = NULL;
    tt_tab *tab = NULL;
    tt_net *view = NULL;
    const tt_prefix *prefix = NULL;
    tt_perplexity_report unwanted;
    const bool says_cache = o->size >= offsetof(tt_perplexity_options, cache_v) + sizeof o->cache_v;
    tt_status st;
    TT_TRY(refuse_overwriting(o->save_base, o, err));
    TT_TRY(refuse_overwriting(o->save_losses, o, err));
    TT_TRY_GOTO(open_runnable(ctx, o->model, o->numerics, &model, err));
    if (o->adapter) TT_TRY_GOTO(open_tab(ctx, model, o->adapter, &tab, &prefix, &view, err));
    if (o->base) TT_TRY_GOTO(open_runnable(ctx, o->base, o->numerics, &base, err));
    tt_measure_job job = {
        .net = view ? view : model->net, .tok = model->tok, .prefix = prefix, .base = base ? base->net : NULL, .fast = o->numerics == TT_FAST,
            .model_ref = o->model, .k_type = tt__cache_kvtype(model, says_cache ? o->cache_k : TT_CACHE_AUTO),
            .v_type = tt__cache_kvtype(model, says_cache ? o->cache_v : TT_CACHE_AUTO),
        .data = o->data, .split = o->split, .n_ctx = o->n_ctx, .chunks = o->chunks, .documents = o->documents, .as_llama_cpp = o->as_llama_cpp,
        .save_base = o->save_base, .load_base = o->load_base, .save_losses = o->save_losses,
    };
    st = tt__measure_perplexity(ctx, &job, report ? report : &unwanted, err);
done:
    tt__net_view_free(view);
    tt_tab_close(tab);
    tt_model_close(base);
    tt_model_close(model);
    return st;
}

tt_choices_options tt_choices_default_options(void) { return (tt_choices_options){.size = sizeof(tt_choices_options)}; }

tt_status tt_choices(tt_ctx *ctx, const tt_choices_options *o, tt_choices_report *report, tt_err *err) {
    tt_model *model = NULL;
    tt_tab *tab = NULL;
    tt_net *view = NULL;
    const tt_prefix *prefix = NULL;
    tt_status st;
    TT_TRY_GOTO(open_runnable(ctx, o->model, o->numerics, &model, err));
    if (o->adapter) TT_TRY_GOTO(open_tab(ctx, model, o->adapter, &tab, &prefix, &view, err));
    const tt_choices_job job = {.net = view ? view : model->net, .tok = model->tok, .prefix = prefix, .fast = o->numerics == TT_FAST, .k_type = tt__cache_kvtype(model, o->cache_k),
                                .v_type = tt__cache_kvtype(model, o->cache_v), .data = o->data, .tasks = o->tasks};
    st = tt__measure_choices(ctx, &job, report, err);
done:
    tt__net_view_free(view);
    tt_tab_close(tab);
    tt_model_close(model);
    return st;
}

tt_status tt_compare_losses(const char *a, const char *b, tt_paired_report *report, tt_err *err) { return tt__compare_losses(a, b, report,
        err); }
