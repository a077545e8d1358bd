/* Loading a network: architecture by name, hyper-parameters, table of weights, each weight with exactly the shape that follows from
 * them, nothing left over in the file. Standard matrices are lent from the mapped file; only norm gains are copied (to f32).
 * Rows of q and k stay as the container has them (rope_adjacent in net.h), so that nothing is repacked. */
#include "base/limits.h"
#include "models/net.h"
#include "models/store.h"
#include <math.h>

#define TT_ARCH(name) extern const tt_arch tt__arch_##name;
#include "models/archs.inc"
#undef TT_ARCH
static const tt_arch *const archs[] = {
#define TT_ARCH(name) &tt__arch_##name,
#include "models/archs.inc"
#undef TT_ARCH
};

const tt_arch *tt__arch_find(const char *gguf_name) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) if (!strcmp(archs[i]->name, gguf_name)) return archs[i];
    return NULL;
}

const tt_arch *tt__arch_find_hf(const char *model_type) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) if (!strcmp(archs[i]->hf_type, model_type)) return archs[i];
    return NULL;
}

void tt__net_free(tt_net *net) {
    if (!net) return;
    for (size_t i = 0; net->weights && i < net->n_weights; i++) {
        tt__linop_free(net->weights[i].op);
        tt__free(net->weights[i].vec);
    }
    tt__free(net->weights);
    tt__free(net->layer_first);
    tt__free(net->inv_freq);
    tt__free(net->rope_divisor);
    tt__free(net->run);
    tt__free(net);
}

uint64_t tt__net_bytes(const tt_net *net) {
    uint64_t sum = 0;
    for (size_t i = 0; i < net->n_weights; i++) {
        const tt_weight *w = &net->weights[i];
        sum += w->op ? tt__linop_bytes(w->op) : (uint64_t)w->cols * sizeof(float);
    }
    return sum;
}

/* ------------------------------------------------------------------ what both containers share ---- */

/* Names, shapes and indices from the hyper-parameters; no weight yet. */
static tt_status build_table(tt_net *net, tt_err *err) {
    net->n_weights = net->arch->weight(&net->hp, 0, NULL);
    TT_TRY(tt__new(&net->weights, net->n_weights, sizeof *net->weights, "the table of weights", err));
    TT_TRY(tt__new(&net->layer_first, (size_t)net->hp.n_layer + 1, sizeof *net->layer_first, "the table of weights", err));
    for (size_t i = 0; i < net->n_weights; i++) {
        tt_weight *w = &net->weights[i];
        net->arch->weight(&net->hp, i, w);
        if (!strcmp(w->name, "token_embd.weight")) net->embd = i;
        if (!strcmp(w->name, "output_norm.weight")) net->output_norm = i;
        if (!strcmp(w->name, "output.weight")) net->output = i;
        if (w->layer < 0) continue;
        if (i == 0 || net->weights[i - 1].layer != w->layer) net->layer_first[w->layer] = i;
        net->layer_first[w->layer + 1] = i + 1;
    }
    if (net->hp.tied) net->output = net->embd;
    return TT_OK;
}

/* Divisors of Llama 3's scaling: with wavelength λ = 2π/θ, 1 below ctx/high, `factor` above ctx/low, smooth between. */
float tt__llama3_divisor(const tt_hparams *h, double theta) {
    double lambda = 6.283185307179586 / theta, low = (double)h->rope_low, high = (double)h->rope_high, orig = (double)h->rope_orig;
    if (lambda < orig / high) return 1;
    if (lambda > orig / low) return h->rope_factor;
    double s = (orig / lambda - low) / (high - low);
    return (float)(1 / ((1 - s) / (double)h->rope_factor + s));
}

static tt_status build_rope(tt_net *net, tt_err *err) {
    const tt_hparams *h = &net->hp;
    size_t half = (size_t)h->head_dim / 2;
    TT_TRY(tt__new(&net->inv_freq, half, sizeof *net->inv_freq, "rotary frequencies", err));
    if (h->rope_factor != 0 && !net->rope_divisor) TT_TRY(tt__new(&net->rope_divisor, half, sizeof *net->rope_divisor, "rotary frequencies", err));
    for (size_t i = 0; i < half; i++) {
        double theta = pow((double)h->rope_base, -2.0 * (double)i / (double)h->head_dim);
        if (h->rope_factor != 0) net->rope_divisor[i] = tt__llama3_divisor(h, theta);
        double divisor = (double)h->rope_linear * (net->rope_divisor ? (double)net->rope_divisor[i] : 1);
        net->inv_freq[i] = (float)(theta / divisor);
    }
    return TT_OK;
}

static tt_status expand_weight(tt_net *net, tt_weight *w, tt_err *err) {
    if (!w->op || w->op->dtype == TT_F32) return TT_OK;
    tt_linop *dense;
    TT_TRY(tt__linop_expand(net->ctx, w->op, &dense, err));
    tt__linop_free(w->op);
    w->op = dense;
    return TT_OK;
}

static tt_status check_finite(const float *v, int64_t n, const char *name, tt_err *err) {
    for (int64_t i = 0; i < n; i++) TT_FAIL_IF(!isfinite(v[i]), err, TT_BADFILE, "tensor holds a value that is not a number|%s|element %lld", name, (long long)i);
    return TT_OK;
}

/* ------------------------------------------------------------------ GGUF ---- */

static tt_status find_arch_gguf(tt_net *net, const tt_gguf *g, bool *own, tt_err *err) {
    const char *name = NULL;
    size_t n = 0;
    char text[64];
    TT_TRY(tt__gguf_str(g, "general.architecture", true, &name, &n, err));
    *own = n == 7 && !memcmp(name, "trimtab", 7);
    if (*own) {
        int64_t schema = 0;
        TT_TRY(tt__gguf_i64(g, "trimtab.schema", true, 0, INT64_MAX, &schema, err));
        TT_FAIL_IF(schema != 1, err, TT_BADFILE, "file of another schema|trimtab.schema|%lld|1|a newer trimtab may read it", (long long)schema);
        TT_TRY(tt__gguf_str(g, "trimtab.architecture", true, &name, &n, err));
    }
    snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text ? n : sizeof text - 1), name);
    net->arch = tt__arch_find(text);
    TT_FAIL_IF(!net->arch || strlen(net->arch->name) != n, err, TT_BADFILE, "unsupported architecture|general.architecture|%s|llama", text);
    return TT_OK;
}

static bool is_float_type(tt_dtype t) { return t == TT_F32 || t == TT_F16 || t == TT_BF16; }

static tt_status load_vector_gguf(tt_weight *w, const tt_gguf_tensor *t, tt_err *err) {
    bool shape = t->ne[0] == (uint64_t)w->cols && t->ne[1] == 1 && t->ne[2] == 1 && t->ne[3] == 1;
    TT_FAIL_IF(!shape, err, TT_BADFILE, "tensor has the wrong shape|%s|[%llu, %llu]|[%lld]", w->name, (unsigned long long)t->ne[0],
               (unsigned long long)t->ne[1], (long long)w->cols);
    TT_FAIL_IF(!is_float_type(t->type), err, TT_BADFILE, "a vector of this type is not supported|%s|%s|F32, F16 or BF16", w->name, tt__dtype(t->type)->label);
    TT_TRY(tt__new(&w->vec, (size_t)w->cols, sizeof(float), "a norm gain", err));
    tt__dtype_decode(t->type, t->data, w->vec, w->cols);
    return check_finite(w->vec, w->cols, w->name, err);
}

static tt_status load_gguf(tt_net *net, const tt_gguf *g, bool own, tt_weight *w, tt_err *err) {
    if (own && !w->vector) {
        TT_TRY(tt__store_load_op(net->ctx, g, w->name, w->rows, w->cols, &w->op, err));
        if (w->op) return TT_OK;
    }
    const tt_gguf_tensor *t = tt__gguf_find(g, w->name);
    TT_FAIL_IF(!t, err, TT_BADFILE, "tensor is missing|%s", w->name);
    if (w->vector) return load_vector_gguf(w, t, err);
    bool shape = t->ne[0] == (uint64_t)w->cols && t->ne[1] == (uint64_t)w->rows && t->ne[2] == 1 && t->ne[3] == 1;
    TT_FAIL_IF(!shape, err, TT_BADFILE, "tensor has the wrong shape|%s|[%llu, %llu]|[%lld, %lld]", w->name, (unsigned long long)t->ne[0],
               (unsigned long long)t->ne[1], (long long)w->cols, (long long)w->rows);
    tt_status st = tt__linop_from_bytes(net->ctx, t->type, t->data, w->rows, w->cols, &w->op, err);
    return st == TT_OK ? st : tt__err_at(err, st, "%s", w->name);
}

/* rope_freqs.weight holds the divisors of a scaling that the metadata does not name. */
static tt_status load_divisors(tt_net *net, const tt_gguf *g, tt_err *err) {
    const tt_gguf_tensor *t = tt__gguf_find(g, "rope_freqs.weight");
    int64_t half = net->hp.head_dim / 2;
    if (!t) return TT_OK;
    TT_FAIL_IF(t->type != TT_F32 || t->ne[0] != (uint64_t)half || t->bytes != (uint64_t)half * sizeof(float), err, TT_BADFILE,
               "tensor has the wrong shape|rope_freqs.weight|%s [%llu]|F32 [%lld]", tt__dtype(t->type)->label, (unsigned long long)t->ne[0], (long long)half);
    TT_TRY(tt__new(&net->rope_divisor, (size_t)half, sizeof(float), "rotary frequencies", err));
    memcpy(net->rope_divisor, t->data, (size_t)half * sizeof(float));
    for (int64_t i = 0; i < half; i++)
        TT_FAIL_IF(!(net->rope_divisor[i] >= 1e-3f && net->rope_divisor[i] <= 1e6f), err, TT_BADFILE, "divisor out of range|rope_freqs.weight|%g|0.001 … 1e6",
                   (double)net->rope_divisor[i]);
    return TT_OK;
}

/* A file may hold nothing that this architecture would silently leave out (biases, adapters, experts). */
static tt_status nothing_left_gguf(const tt_net *net, const tt_gguf *g, tt_err *err) {
    for (size_t i = 0, n = tt__gguf_n_tensors(g), at = 0; i < n; i++) {
        const char *name = tt__gguf_tensor(g, i)->name;
        size_t len = strcspn(name, "#"), tries = 0;
        if (!strcmp(name, "rope_freqs.weight")) continue;
        for (; tries < net->n_weights; tries++, at = (at + 1) % net->n_weights)        /* files list weights nearly in our order */
            if (!strncmp(net->weights[at].name, name, len) && !net->weights[at].name[len]) break;
        size_t l = strlen(name);
        TT_FAIL_IF(tries == net->n_weights, err, TT_BADFILE, "%s|%s||%s of architecture %s",
                   l > 5 && !strcmp(name + l - 5, ".bias") ? "biases are not supported" : "unexpected tensor", name, "only tensors", net->arch->name);
    }
    return TT_OK;
}

static tt_status fill_from_gguf(tt_net *net, const tt_gguf *g, bool expand, tt_err *err) {
    bool own;
    TT_TRY(find_arch_gguf(net, g, &own, err));
    TT_TRY(net->arch->hparams_gguf(g, &net->hp, err));
    TT_TRY(build_table(net, err));
    net->rope_adjacent = true;
    if (own) TT_TRY(tt__gguf_bool(g, "trimtab.rope_adjacent", true, &net->rope_adjacent, err));
    for (size_t i = 0; i < net->n_weights; i++) {
        TT_TRY(load_gguf(net, g, own, &net->weights[i], err));
        if (expand) TT_TRY(expand_weight(net, &net->weights[i], err));
    }
    TT_TRY(nothing_left_gguf(net, g, err));
    TT_TRY(load_divisors(net, g, err));
    return build_rope(net, err);
}

tt_status tt__net_from_gguf(tt_ctx *ctx, const tt_gguf *g, bool expand, tt_net **out, tt_err *err) {
    tt_net *net;
    *out = NULL;
    TT_TRY(tt__new(&net, 1, sizeof *net, "a network", err));
    net->ctx = ctx;
    tt_status st = fill_from_gguf(net, g, expand, err);
    if (st != TT_OK) {
        tt__net_free(net);
        return tt__err_at(err, st, "%s", tt__gguf_path(g));
    }
    *out = net;
    return TT_OK;
}

/* ------------------------------------------------------------------ Hugging Face folders ---- */

static tt_status find_arch_hf(tt_net *net, const json_t *config, tt_err *err) {
    const char *type = NULL;
    TT_FAIL_IF(!json_is_object(config), err, TT_BADFILE, "not a JSON object|config.json");
    TT_TRY(tt__json_str(config, "model_type", true, &type, "config.json", err));
    net->arch = tt__arch_find_hf(type);
    TT_FAIL_IF(!net->arch, err, TT_BADFILE, "unsupported architecture|config.json: model_type|%s|llama", type);
    return net->arch->hparams_hf(config, &net->hp, err);
}

static tt_status load_hf(tt_net *net, const tt_st *st, tt_weight *w, tt_err *err) {
    const tt_st_tensor *t = tt__st_find(st, w->hf);
    TT_FAIL_IF(!t, err, TT_BADFILE, "tensor is missing|%s", w->hf);
    bool shape = w->vector ? t->n_dims == 1 && t->shape[0] == (uint64_t)w->cols
                        : t->n_dims == 2 && t->shape[0] == (uint64_t)w->rows && t->shape[1] == (uint64_t)w->cols;
    TT_FAIL_IF(!shape, err, TT_BADFILE, "tensor has the wrong shape|%s|%d dimensions, [%llu, %llu]|[%lld, %lld]", w->hf, t->n_dims,
               t->n_dims > 0 ? (unsigned long long)t->shape[0] : 0ull, t->n_dims > 1 ? (unsigned long long)t->shape[1] : 0ull, (long long)w->rows, (long long)w->cols);
    if (w->vector) {
        TT_TRY(tt__new(&w->vec, (size_t)w->cols, sizeof(float), "a norm gain", err));
        TT_TRY(tt__st_to_f32(t, 0, (uint64_t)w->cols, w->vec, err));
        return check_finite(w->vec, w->cols, w->hf, err);
    }
    tt_dtype type = t->type == TT_ST_F32 ? TT_F32 : t->type == TT_ST_F16 ? TT_F16 : t->type == TT_ST_BF16 ? TT_BF16 : TT_DTYPE_COUNT;
    TT_FAIL_IF(type == TT_DTYPE_COUNT, err, TT_BADFILE, "a matrix of this type is not supported|%s|%s|F32, F16 or BF16", w->hf, tt__st_dtype_name(t->type));
    tt_status s = tt__linop_from_bytes(net->ctx, type, t->data, w->rows, w->cols, &w->op, err);
    return s == TT_OK ? s : tt__err_at(err, s, "%s", w->hf);
}

/* Buffers that old checkpoints carry along, and the second name of a tied embedding. */
static bool may_be_left(const tt_net *net, const char *name) {
    static const char inv[] = "rotary_emb.inv_freq";
    size_t n = strlen(name);
    return (n > sizeof inv && !strcmp(name + n - sizeof inv + 1, inv)) || (net->hp.tied && !strcmp(name, "lm_head.weight"));
}

static tt_status nothing_left_hf(const tt_net *net, const tt_st *st, tt_err *err) {
    for (size_t i = 0, n = tt__st_n(st), at = 0; i < n; i++) {
        const char *name = tt__st_tensor(st, i)->name;
        size_t tries = 0;
        if (may_be_left(net, name)) continue;
        for (; tries < net->n_weights; tries++, at = (at + 1) % net->n_weights) if (!strcmp(net->weights[at].hf, name)) break;
        TT_FAIL_IF(tries == net->n_weights, err, TT_BADFILE, "unexpected tensor|%s||only tensors of architecture %s", name, net->arch->name);
    }
    return TT_OK;
}

static tt_status fill_from_hf(tt_net *net, const json_t *config, const tt_st *st, bool expand, tt_err *err) {
    TT_TRY(find_arch_hf(net, config, err));
    TT_TRY(build_table(net, err));
    for (size_t i = 0; i < net->n_weights; i++) {
        TT_TRY(load_hf(net, st, &net->weights[i], err));
        if (expand) TT_TRY(expand_weight(net, &net->weights[i], err));
    }
    TT_TRY(nothing_left_hf(net, st, err));
    return build_rope(net, err);
}

tt_status tt__net_from_hf(tt_ctx *ctx, const char *dir, const tt_st *st, bool expand, tt_net **out, tt_err *err) {
    char *path = tt__path_join(dir, "config.json"), *text = NULL;
    json_t *config = NULL;
    tt_net *net = NULL;
    size_t n;
    tt_status s;
    *out = NULL;
    TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|for a path");
    s = tt__read_file(path, TT_LIMIT_JSON_BYTES, &text, &n, err);
    if (s == TT_OK) s = tt__json_parse(text, n, path, &config, err);
    if (s == TT_OK) s = tt__new(&net, 1, sizeof *net, "a network", err);
    if (s == TT_OK) {
        net->ctx = ctx;
        s = fill_from_hf(net, config, st, expand, err);
        if (s != TT_OK) tt__err_at(err, s, "%s", dir);
    }
    json_decref(config);
    tt__free(text);
    tt__free(path);
    if (s == TT_OK) *out = net;
    else tt__net_free(net);
    return s;
}
