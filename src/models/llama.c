/* The Llama decoder (Touvron et al. 2023; SmolLM2, Llama 2 and 3 are of this kind):
 *
 *     x += o(attention(rope(q(n)), rope(k(n)), v(n)))   n = rmsnorm(x)
 *     x += down(silu(gate(n)) ⊙ up(n))                  n = rmsnorm(x)
 *
 * grouped key/value heads, no biases, embedding tied or not. Hyper-parameters are checked one by one (type, range), then against each
 * other (divisibility); net.c checks every tensor's shape against what follows from them. Biases, experts and frequency scalings other
 * than linear and Llama 3's are refused by name.
 */
#include "base/limits.h"
#include "kernels/attention.h"
#include "models/net.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>

/* ------------------------------------------------------------------ hyper-parameters ---- */

typedef struct int_param { const char *gguf, *hf; size_t offset; bool required; uint64_t max; } int_param;
static const int_param int_params[] = {
    {"llama.block_count", "num_hidden_layers", offsetof(tt_hparams, n_layer), true, TT_LIMIT_LAYERS},
    {"llama.embedding_length", "hidden_size", offsetof(tt_hparams, n_embd), true, TT_LIMIT_EMBD},
    {"llama.feed_forward_length", "intermediate_size", offsetof(tt_hparams, n_ff), true, TT_LIMIT_FFN},
    {"llama.attention.head_count", "num_attention_heads", offsetof(tt_hparams, n_head), true, TT_LIMIT_HEADS},
    {"llama.attention.head_count_kv", "num_key_value_heads", offsetof(tt_hparams, n_head_kv), false, TT_LIMIT_HEADS},
    {"llama.attention.key_length", "head_dim", offsetof(tt_hparams, head_dim), false, TT_LIMIT_EMBD},
    {"llama.context_length", "max_position_embeddings", offsetof(tt_hparams, n_ctx), false, TT_LIMIT_CONTEXT},
};

static tt_status check_rope(const tt_hparams *h, tt_err *err) {
    TT_FAIL_IF(!(h->rope_base > 1 && h->rope_base < 1e12f), err, TT_BADFILE, "rotary base out of range||%g|1 … 1e12", (double)h->rope_base);
    TT_FAIL_IF(!(h->rope_linear >= 1e-3f && h->rope_linear <= 1e6f), err, TT_BADFILE, "rotary scale out of range||%g|0.001 … 1e6", (double)h->rope_linear);
    if (h->rope_factor == 0) return TT_OK;
    bool good = h->rope_factor >= 1 && h->rope_factor <= 1e6f && h->rope_low > 0 && h->rope_high > h->rope_low && h->rope_high < 1e6f
                && h->rope_orig > 0 && (uint64_t)h->rope_orig <= TT_LIMIT_CONTEXT;
    TT_FAIL_IF(!good, err, TT_BADFILE, "rotary scaling out of range||factor %g, low %g, high %g, context %lld", (double)h->rope_factor,
               (double)h->rope_low, (double)h->rope_high, (long long)h->rope_orig);
    return TT_OK;
}

/* Fills what follows from the others, then the rules between them. */
static tt_status check(tt_hparams *h, tt_err *err) {
    if (!h->n_head_kv) h->n_head_kv = h->n_head;
    if (!h->n_ctx) h->n_ctx = 2048;
    TT_FAIL_IF(!h->head_dim && h->n_embd % h->n_head, err, TT_BADFILE, "embedding length is not a multiple of the heads||%lld / %lld",
               (long long)h->n_embd, (long long)h->n_head);
    if (!h->head_dim) h->head_dim = h->n_embd / h->n_head;
    TT_FAIL_IF(h->n_head % h->n_head_kv, err, TT_BADFILE, "heads are not a multiple of the key/value heads||%lld / %lld", (long long)h->n_head,
               (long long)h->n_head_kv);
    TT_FAIL_IF(h->n_head / h->n_head_kv > TT_ATTN_GROUP, err, TT_BADFILE, "too many heads share a key/value head||%lld|at most %d",
               (long long)(h->n_head / h->n_head_kv), (int)TT_ATTN_GROUP);
    TT_FAIL_IF(h->head_dim % 2, err, TT_BADFILE, "head size is odd||%lld", (long long)h->head_dim);
    TT_FAIL_IF(h->n_head * h->head_dim > (int64_t)TT_LIMIT_EMBD, err, TT_BADFILE, "heads are too large||%lld x %lld|at most %llu in all",
               (long long)h->n_head, (long long)h->head_dim, (unsigned long long)TT_LIMIT_EMBD);
    TT_FAIL_IF(!(h->rms_eps >= 0 && h->rms_eps < 1), err, TT_BADFILE, "normalisation epsilon out of range||%g|0 … 1", (double)h->rms_eps);
    TT_FAIL_IF(h->n_vocab < 1 || (uint64_t)h->n_vocab > TT_LIMIT_VOCAB, err, TT_BADFILE, "vocabulary size out of range||%lld|1 … %llu",
               (long long)h->n_vocab, (unsigned long long)TT_LIMIT_VOCAB);
    return check_rope(h, err);
}

static tt_status refuse_scaling(const char *name, size_t n, tt_err *err) {
    return tt__fail(err, TT_BADFILE, "unsupported rotary scaling|llama|%.*s|none, linear or llama3", (int)(n < 64 ? n : 64), name);
}

static tt_status rope_gguf(const tt_gguf *g, tt_hparams *h, tt_err *err) {
    const char *type = NULL;
    size_t n = 0;
    double base = 10000, scale = 1;
    TT_TRY(tt__gguf_f64(g, "llama.rope.freq_base", false, &base, err));
    TT_TRY(tt__gguf_str(g, "llama.rope.scaling.type", false, &type, &n, err));
    TT_TRY(tt__gguf_f64(g, "llama.rope.scale_linear", false, &scale, err));
    bool linear = type && n == 6 && !memcmp(type, "linear", 6);
    if (type && !linear && !(n == 4 && !memcmp(type, "none", 4))) return refuse_scaling(type, n, err);
    if (linear) TT_TRY(tt__gguf_f64(g, "llama.rope.scaling.factor", true, &scale, err));
    h->rope_base = (float)base;
    h->rope_linear = (float)scale;
    return TT_OK;
}

static tt_status same_as_head(const tt_gguf *g, const char *key, const tt_hparams *h, tt_err *err) {
    int64_t v = h->head_dim;
    TT_TRY(tt__gguf_i64(g, key, false, 1, (int64_t)TT_LIMIT_EMBD, &v, err));
    TT_FAIL_IF(v != h->head_dim, err, TT_BADFILE, "unsupported head layout|%s|%lld|%lld, the head size", key, (long long)v, (long long)h->head_dim);
    return TT_OK;
}

/* Rows of the embedding: of the tensor, or as an own operator describes itself ("NAME;rows=R;…", models/store.h, which checks it in full). */
static tt_status vocab_gguf(const tt_gguf *g, tt_hparams *h, tt_err *err) {
    static const char own[] = "trimtab.op.token_embd.weight";
    const tt_gguf_tensor *embd = tt__gguf_find(g, "token_embd.weight");
    if (embd) {
        h->n_vocab = embd->ne[1] > TT_LIMIT_VOCAB ? -1 : (int64_t)embd->ne[1];
        return TT_OK;
    }
    TT_FAIL_IF(!tt__gguf_has(g, own), err, TT_BADFILE, "tensor is missing|token_embd.weight");
    const char *value = NULL, *rows;
    size_t n = 0;
    char text[128];
    int64_t v = 0;
    TT_TRY(tt__gguf_str(g, own, true, &value, &n, err));
    snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text ? n : sizeof text - 1), value);
    rows = strstr(text, ";rows=");
    if (rows) {
        char *end = strchr(rows + 1, ';');
        if (end) *end = 0;
    }
    TT_FAIL_IF(!rows || !tt__parse_i64(rows + 6, &v), err, TT_BADFILE, "bad operator description|%s|%.100s|NAME;rows=R;cols=C;PARAMS", own, text);
    h->n_vocab = v < 1 || v > (int64_t)TT_LIMIT_VOCAB ? -1 : v;
    return TT_OK;
}

static tt_status hparams_gguf(const tt_gguf *g, tt_hparams *h, tt_err *err) {
    int64_t experts = 0;
    double eps = 1e-5;
    *h = (tt_hparams){0};
    for (size_t i = 0; i < sizeof int_params / sizeof *int_params; i++)
        TT_TRY(tt__gguf_i64(g, int_params[i].gguf, int_params[i].required, 1, (int64_t)int_params[i].max, (int64_t *)(void *)((char *)h + int_params[i].offset), err));
    TT_TRY(tt__gguf_i64(g, "llama.expert_count", false, 0, INT64_MAX, &experts, err));
    TT_FAIL_IF(experts > 0, err, TT_BADFILE, "mixtures of experts are not supported|llama.expert_count|%lld|0", (long long)experts);
    TT_TRY(tt__gguf_f64(g, "llama.attention.layer_norm_rms_epsilon", true, &eps, err));
    h->rms_eps = (float)eps;
    TT_TRY(rope_gguf(g, h, err));
    TT_TRY(vocab_gguf(g, h, err));
    h->tied = !tt__gguf_find(g, "output.weight") && !tt__gguf_has(g, "trimtab.op.output.weight");
    TT_TRY(check(h, err));
    TT_TRY(same_as_head(g, "llama.attention.value_length", h, err));
    return same_as_head(g, "llama.rope.dimension_count", h, err);
}

/* {"rope_type": "llama3", "factor": …} of rope_scaling (older) or rope_parameters (newer, holds rope_theta too) */
static tt_status rope_object(const json_t *o, tt_hparams *h, tt_err *err) {
    const char *type = "default", *where = "config.json";
    double factor = 1, low = 1, high = 4, base = h->rope_base;
    int64_t orig = 8192;
    TT_TRY(tt__json_str(o, "type", false, &type, where, err));
    TT_TRY(tt__json_str(o, "rope_type", false, &type, where, err));
    TT_TRY(tt__json_f64(o, "rope_theta", false, &base, where, err));
    h->rope_base = (float)base;
    if (!strcmp(type, "default")) return TT_OK;
    bool linear = !strcmp(type, "linear");
    if (!linear && strcmp(type, "llama3") != 0) return refuse_scaling(type, strlen(type), err);
    TT_TRY(tt__json_f64(o, "factor", true, &factor, where, err));
    if (linear) {
        h->rope_linear = (float)factor;
        return TT_OK;
    }
    TT_TRY(tt__json_f64(o, "low_freq_factor", false, &low, where, err));
    TT_TRY(tt__json_f64(o, "high_freq_factor", false, &high, where, err));
    TT_TRY(tt__json_i64(o, "original_max_position_embeddings", false, &orig, where, err));
    h->rope_factor = (float)factor;
    h->rope_low = (float)low;
    h->rope_high = (float)high;
    h->rope_orig = orig;
    return TT_OK;
}

static tt_status rope_hf(const json_t *c, tt_hparams *h, tt_err *err) {
    double base = 10000;
    TT_TRY(tt__json_f64(c, "rope_theta", false, &base, "config.json", err));
    h->rope_base = (float)base;
    h->rope_linear = 1;
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    for (int i = 0; i < 2; i++) {
        const json_t *o = json_object_get(c, keys[i]);
        if (json_is_object(o)) TT_TRY(rope_object(o, h, err));
        else TT_FAIL_IF(o && !json_is_null(o), err, TT_BADFILE, "wrong type|config.json: %s||an object", keys[i]);
    }
    return TT_OK;
}

static tt_status no_bias(const json_t *c, const char *key, tt_err *err) {
    bool on = false;
    TT_TRY(tt__json_bool(c, key, false, &on, "config.json", err));
    TT_FAIL_IF(on, err, TT_BADFILE, "biases are not supported|config.json: %s|true|false", key);
    return TT_OK;
}

static tt_status hparams_hf(const json_t *c, tt_hparams *h, tt_err *err) {
    const char *where = "config.json", *act = "silu";
    double eps = 1e-6;
    *h = (tt_hparams){0};
    for (size_t i = 0; i < sizeof int_params / sizeof *int_params; i++) {
        const int_param *p = &int_params[i];
        int64_t *v = (int64_t *)(void *)((char *)h + p->offset);
        if (!p->required && json_is_null(json_object_get(c, p->hf))) continue;
        TT_TRY(tt__json_i64(c, p->hf, p->required, v, where, err));
        bool absent = !p->required && !json_object_get(c, p->hf);
        TT_FAIL_IF(!absent && (*v < 1 || (uint64_t)*v > p->max), err, TT_BADFILE, "value out of range|config.json: %s|%lld|1 … %llu", p->hf, (long long)*v,
                   (unsigned long long)p->max);
    }
    TT_TRY(tt__json_i64(c, "vocab_size", true, &h->n_vocab, where, err));
    TT_TRY(tt__json_f64(c, "rms_norm_eps", false, &eps, where, err));
    h->rms_eps = (float)eps;
    TT_TRY(tt__json_bool(c, "tie_word_embeddings", false, &h->tied, where, err));
    TT_TRY(tt__json_str(c, "hidden_act", false, &act, where, err));
    TT_FAIL_IF(strcmp(act, "silu") != 0, err, TT_BADFILE, "unsupported activation|config.json: hidden_act|%s|silu", act);
    TT_TRY(no_bias(c, "attention_bias", err));
    TT_TRY(no_bias(c, "mlp_bias", err));
    TT_TRY(rope_hf(c, h, err));
    return check(h, err);
}

/* ------------------------------------------------------------------ writing them ---- */

static tt_status to_gguf(const tt_hparams *h, tt_gguf_writer *w, tt_err *err) {
    for (size_t i = 0; i < sizeof int_params / sizeof *int_params; i++)
        TT_TRY(tt__gguf_set_u32(w, int_params[i].gguf, (uint32_t)*(const int64_t *)(const void *)((const char *)h + int_params[i].offset), err));
    TT_TRY(tt__gguf_set_u32(w, "llama.attention.value_length", (uint32_t)h->head_dim, err));
    TT_TRY(tt__gguf_set_u32(w, "llama.rope.dimension_count", (uint32_t)h->head_dim, err));
    TT_TRY(tt__gguf_set_u32(w, "llama.vocab_size", (uint32_t)h->n_vocab, err));
    TT_TRY(tt__gguf_set_f32(w, "llama.attention.layer_norm_rms_epsilon", h->rms_eps, err));
    TT_TRY(tt__gguf_set_f32(w, "llama.rope.freq_base", h->rope_base, err));
    if (h->rope_linear == 1) return TT_OK;
    TT_TRY(tt__gguf_set_str(w, "llama.rope.scaling.type", "linear", err));
    return tt__gguf_set_f32(w, "llama.rope.scaling.factor", h->rope_linear, err);
}

static json_t *rope_json(const tt_hparams *h) {
    if (h->rope_factor != 0)
        return json_pack("{s:s, s:f, s:f, s:f, s:I, s:f}", "rope_type", "llama3", "factor", (double)h->rope_factor, "low_freq_factor", (double)h->rope_low,
                         "high_freq_factor", (double)h->rope_high, "original_max_position_embeddings", (json_int_t)h->rope_orig, "rope_theta",
                         (double)h->rope_base);
    if (h->rope_linear != 1) return json_pack("{s:s, s:f, s:f}", "rope_type", "linear", "factor", (double)h->rope_linear, "rope_theta", (double)h->rope_base);
    return NULL;
}

static tt_status to_hf(const tt_hparams *h, json_t *c, tt_err *err) {
    int bad = 0;
    for (size_t i = 0; i < sizeof int_params / sizeof *int_params; i++)
        bad |= json_object_set_new(c, int_params[i].hf, json_integer(*(const int64_t *)(const void *)((const char *)h + int_params[i].offset)));
    bad |= json_object_set_new(c, "architectures", json_pack("[s]", "LlamaForCausalLM"));
    bad |= json_object_set_new(c, "model_type", json_string("llama"));
    bad |= json_object_set_new(c, "vocab_size", json_integer(h->n_vocab));
    bad |= json_object_set_new(c, "rms_norm_eps", json_real((double)h->rms_eps));
    bad |= json_object_set_new(c, "rope_theta", json_real((double)h->rope_base));
    bad |= json_object_set_new(c, "tie_word_embeddings", json_boolean(h->tied));
    bad |= json_object_set_new(c, "hidden_act", json_string("silu"));
    bad |= json_object_set_new(c, "attention_bias", json_false());
    bad |= json_object_set_new(c, "mlp_bias", json_false());
    if (h->rope_factor != 0 || h->rope_linear != 1) bad |= json_object_set_new(c, "rope_scaling", rope_json(h));
    TT_FAIL_IF(bad, err, TT_RESOURCE, "out of memory|for config.json");
    return TT_OK;
}

/* ------------------------------------------------------------------ weights and block ---- */

/* Slots of a block: index of a weight - index of the layer's first weight. */
enum { ATTN_NORM, Q, K, V, O, FFN_NORM, GATE, UP, DOWN, PER_LAYER };
enum { READS_QKV, READS_O, READS_GATE_UP, READS_DOWN };

static const struct { const char *gguf, *hf; int input; } slots[PER_LAYER] = {
    [ATTN_NORM] = {"attn_norm", "input_layernorm", -1},
    [Q] = {"attn_q", "self_attn.q_proj", READS_QKV},
    [K] = {"attn_k", "self_attn.k_proj", READS_QKV},
    [V] = {"attn_v", "self_attn.v_proj", READS_QKV},
    [O] = {"attn_output", "self_attn.o_proj", READS_O},
    [FFN_NORM] = {"ffn_norm", "post_attention_layernorm", -1},
    [GATE] = {"ffn_gate", "mlp.gate_proj", READS_GATE_UP},
    [UP] = {"ffn_up", "mlp.up_proj", READS_GATE_UP},
    [DOWN] = {"ffn_down", "mlp.down_proj", READS_DOWN},
};

static void block_shape(const tt_hparams *h, int slot, tt_weight *w) {
    int64_t d = h->n_embd, heads = h->n_head * h->head_dim, kv = h->n_head_kv * h->head_dim;
    const int64_t shape[PER_LAYER][2] = {{1, d}, {heads, d}, {kv, d}, {kv, d}, {d, heads}, {1, d}, {h->n_ff, d}, {h->n_ff, d}, {d, h->n_ff}};
    w->rows = shape[slot][0];
    w->cols = shape[slot][1];
    w->linear = slots[slot].input >= 0;
    w->vector = !w->linear;
    w->input = slots[slot].input;
    w->permute = slot == Q || slot == K;
    w->permute_heads = slot == Q ? h->n_head : slot == K ? h->n_head_kv : 0;
}

static void global_weight(tt_weight *w, const char *name, const char *hf, int64_t rows, int64_t cols) {
    *w = (tt_weight){.layer = -1, .input = -1, .rows = rows, .cols = cols};
    snprintf(w->name, sizeof w->name, "%s", name);
    snprintf(w->hf, sizeof w->hf, "%s", hf);
}

static size_t weight(const tt_hparams *h, size_t i, tt_weight *w) {
    size_t blocks = (size_t)h->n_layer * PER_LAYER;
    if (!w) return 1 + blocks + 1 + (h->tied ? 0 : 1);
    if (i == 0) global_weight(w, "token_embd.weight", "model.embed_tokens.weight", h->n_vocab, h->n_embd);
    else if (i == 1 + blocks) {
        global_weight(w, "output_norm.weight", "model.norm.weight", 1, h->n_embd);
        w->vector = true;
    }
    else if (i == 2 + blocks) global_weight(w, "output.weight", "lm_head.weight", h->n_vocab, h->n_embd);
    else {
        int layer = (int)((i - 1) / PER_LAYER), slot = (int)((i - 1) % PER_LAYER);
        *w = (tt_weight){.layer = layer};
        block_shape(h, slot, w);
        snprintf(w->name, sizeof w->name, "blk.%d.%s.weight", layer, slots[slot].gguf);
        snprintf(w->hf, sizeof w->hf, "model.layers.%d.%s.weight", layer, slots[slot].hf);
    }
    return i;
}

static tt_status block(const tt_net *net, tt_graph *g, tt_val x, tt_val *y, int layer, tt_err *err) {
    (void)layer, (void)err;                       /* all layers are alike; mistakes of recording stick to the graph */
    const tt_hparams *h = &net->hp;
    int64_t d = h->n_embd, D = h->head_dim, heads = h->n_head * D, kv = h->n_head_kv * D;
    tt_val n = tt__g_rmsnorm(g, x, ATTN_NORM, h->rms_eps), a = tt__g_prep(g, n);
    tt__g_tap(g, n, READS_QKV);
    tt_val q = tt__g_linear(g, a, Q, heads, d), k = tt__g_linear(g, a, K, kv, d), v = tt__g_linear(g, a, V, kv, d);
    q = tt__g_rope(g, q, h->n_head, D, net->inv_freq, net->rope_adjacent);
    k = tt__g_rope(g, k, h->n_head_kv, D, net->inv_freq, net->rope_adjacent);
    tt_val o = tt__g_attention(g, q, k, v, h->n_head, h->n_head_kv, D, 1 / sqrtf((float)D));
    tt__g_tap(g, o, READS_O);
    tt_val h1 = tt__g_add(g, x, tt__g_linear(g, tt__g_prep(g, o), O, d, heads));
    n = tt__g_rmsnorm(g, h1, FFN_NORM, h->rms_eps);
    tt__g_tap(g, n, READS_GATE_UP);
    a = tt__g_prep(g, n);
    tt_val gate = tt__g_linear(g, a, GATE, h->n_ff, d), up = tt__g_linear(g, a, UP, h->n_ff, d), m = tt__g_silu_mul(g, gate, up);
    tt__g_tap(g, m, READS_DOWN);
    *y = tt__g_add(g, h1, tt__g_linear(g, tt__g_prep(g, m), DOWN, d, h->n_ff));
    return TT_OK;
}

const tt_arch tt__arch_llama = {.name = "llama", .hf_type = "llama", .hparams_gguf = hparams_gguf, .hparams_hf = hparams_hf, .to_gguf = to_gguf,
                                .to_hf = to_hf, .weight = weight, .block = block};
