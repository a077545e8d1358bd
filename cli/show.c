/* trimtab show: what a file holds, with bits per weight that count every stored byte. */
#include "cli.h"
#include <inttypes.h>
#include <string.h>

static json_t *dims_json(const tt_tensor_info *t) {
    json_t *d = json_array();
    for (int k = 0; k < t->n_dims; k++) json_array_append_new(d, json_integer(t->dims[k]));
    return d;
}

static tt_status tensors_json(const tt_model *m, json_t *list, tt_err *err) {
    for (size_t i = 0; i < tt_model_tensor_count(m); i++) {
        tt_tensor_info t = {.size = sizeof t};
        tt_status st = tt_model_get_tensor(m, i, &t, err);
        if (st != TT_OK) return st;
        json_array_append_new(list, json_pack("{s:o, s:o, s:o, s:I, s:o}", "name", j_text(t.name), "type", j_text(t.type), "shape", dims_json(&t), "bytes",
                                              (json_int_t)t.bytes, "bits_per_weight", j_real(t.bits_per_weight)));
    }
    return TT_OK;
}

static tt_status tensors_text(const tt_model *m, tt_err *err) {
    for (size_t i = 0; i < tt_model_tensor_count(m); i++) {
        tt_tensor_info t = {.size = sizeof t};
        char shape[96] = "", size[32];
        tt_status st = tt_model_get_tensor(m, i, &t, err);
        if (st != TT_OK) return st;
        for (int k = 0, at = 0; k < t.n_dims; k++) at += snprintf(shape + at, sizeof shape - (size_t)at, k ? " x %" PRId64 : "%" PRId64, t.dims[k]);
        printf("%-44s %-24s %-20s %10s  %6.3f bits\n", t.name, t.type, shape, text_bytes(t.bytes, size), t.bits_per_weight);
    }
    return TT_OK;
}

/* Where a compressed model comes from: our own keys, without the one that each operator of its own has. */
static bool is_origin(const char *key) { return !strncmp(key, "trimtab.", 8) && strncmp(key, "trimtab.op.", 11) != 0; }

/* Into the object, or printed: all keys, or those that tell the origin. */
static tt_status metadata(const tt_model *m, json_t *object, bool all, tt_err *err) {
    for (size_t i = 0; i < tt_model_meta_count(m); i++) {
        tt_meta_info k = {.size = sizeof k};
        char *value = NULL;
        tt_status st = tt_model_get_meta(m, i, 16, &k, &value, err);
        if (st != TT_OK) return st;
        if (object) json_object_set_new(object, k.key, json_pack("{s:s, s:o}", "type", k.type, "value", j_text(value)));
        else if (all || is_origin(k.key)) printf("%-44s %-10s %s\n", k.key, k.type, value);
        tt_free(value);
    }
    return TT_OK;
}

static json_t *info_json(const char *ref, const tt_model_info *m, const char *sha256) {
    json_t *doc = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "ref", j_text(ref), "path", j_text(m->path), "name", j_text(m->name), "architecture",
                            j_text(m->architecture), "container", j_text(m->container), "file_type", j_text(m->file_type), "sha256", j_text(sha256));
    struct { const char *key; uint64_t value; } counts[] = {
        {"params", m->params}, {"linear_params", m->linear_params}, {"bytes", m->bytes}, {"linear_bytes", m->linear_bytes}, {"n_vocab", (uint64_t)m->n_vocab},
        {"n_embd", (uint64_t)m->n_embd}, {"n_layer", (uint64_t)m->n_layer}, {"n_head", (uint64_t)m->n_head}, {"n_head_kv", (uint64_t)m->n_head_kv},
        {"n_ff", (uint64_t)m->n_ff}, {"n_ctx", (uint64_t)m->n_ctx}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) json_object_set_new(doc, counts[i].key, json_integer((json_int_t)counts[i].value));
    json_object_set_new(doc, "bits_per_weight", j_real(m->bits_per_weight));
    json_object_set_new(doc, "linear_bits_per_weight", j_real(m->linear_bits_per_weight));
    json_object_set_new(doc, "runnable", json_boolean(m->runnable));
    json_object_set_new(doc, "chat_template", j_text(m->chat_template));
    return doc;
}

static void info_text(const tt_model_info *m, const char *sha256) {
    char a[32], b[32];
    printf("%-16s %s\n%-16s %s\n%-16s %s, %s, %s%s\n", "name", m->name, "path", m->path, "architecture", m->architecture, m->container, m->file_type,
           m->runnable ? "" : " (this build shows and converts it, but cannot run it)");
    if (sha256[0]) printf("%-16s %s\n", "sha256", sha256);
    printf("%-16s %s, %s, %.4f bits per weight with all overheads\n", "weights", text_count(m->params, a), text_bytes(m->bytes, b), m->bits_per_weight);
    if (m->linear_params) printf("%-16s %s, %s, %.4f bits per weight\n", "of these linear", text_count(m->linear_params, a), text_bytes(m->linear_bytes, b), m->linear_bits_per_weight);
    printf("%-16s %" PRId64 " layers, width %" PRId64 ", %" PRId64 " heads (%" PRId64 " for keys and values), feed-forward %" PRId64 "\n", "shape", m->n_layer,
           m->n_embd, m->n_head, m->n_head_kv, m->n_ff);
    printf("%-16s %" PRId64 " tokens, context %" PRId64 ", chat template: %s\n", "text", m->n_vocab, m->n_ctx, m->chat_template ? "yes" : "none");
}

static tt_status show(const cli *c, const char *ref, tt_model *m, int *code, tt_err *err) {
    const tt_model_info *info = tt_model_get_info(m);
    char sha256[65] = "";
    bool hash = opt_given(c, O_hash) ? opt_b(c, O_hash) : json_wanted(c);
    tt_status st = hash ? tt_model_sha256(m, sha256, err) : TT_OK;
    if (st != TT_OK) return st;
    if (json_wanted(c)) {
        json_t *doc = info_json(ref, info, hash ? sha256 : NULL), *list = json_array(), *object = json_object();
        if (opt_b(c, O_tensors)) st = tensors_json(m, list, err), json_object_set(doc, "tensors", list);
        if (st == TT_OK && opt_b(c, O_kv)) st = metadata(m, object, true, err), json_object_set(doc, "metadata", object);
        json_decref(list);
        json_decref(object);
        if (st == TT_OK) *code = print_json(c, doc);
        else json_decref(doc);
        return st;
    }
    if (opt_b(c, O_template) && !opt_b(c, O_tensors) && !opt_b(c, O_kv)) {
        if (info->chat_template) puts(info->chat_template);
        else *code = fail_text(c, TT_FAIL, "the model has no chat template", info->path, NULL);
        return TT_OK;
    }
    info_text(info, sha256);
    st = metadata(m, NULL, opt_b(c, O_kv), err);
    if (st == TT_OK && opt_b(c, O_tensors)) st = tensors_text(m, err);
    if (st == TT_OK && opt_b(c, O_template) && info->chat_template) puts(info->chat_template);
    return st;
}

int cmd_show(cli *c) {
    int next = 0;
    const char *ref = take_model(c, &next);
    tt_model *m = NULL;
    tt_err err = {0};
    if (!ref) return TT_USAGE;
    int code = open_ctx(c);
    if (code) return code;
    tt_model_options mo = tt_model_default_options();
    mo.stored = true;
    tt_status st = tt_model_open(c->ctx, ref, &mo, &m, &err);
    if (st == TT_OK) st = show(c, ref, m, &code, &err);
    tt_model_close(m);
    return st == TT_OK ? code : fail(c, st, &err);
}
