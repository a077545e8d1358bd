/* Converting: between containers and back without loss, row order of q and k, types, what is kept, what is refused. */
#include "engine/convert.h"
#include "formats/gguf_file.h"
#include "formats/hf.h"
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include "models/store.h"
#include "trimtab/trimtab.h"

static tt_status convert(const char *model, const char *output, const char *outtype, bool force, tt_err *err) {
    tt_convert_options o = {.size = sizeof o, .model = model, .output = output, .outtype = outtype, .force = force};
    return tt_convert(tt_test_ctx(2, NULL), &o, err);
}

static tt_gguf *open_gguf(const char *path) {
    tt_err err = {0};
    tt_gguf *g;
    TT_CHECK_OK(tt__gguf_open(path, &g, &err));
    return g;
}

static const char *tiny(void) {
    const char *path = tt_test_path("tiny.gguf");
    tiny_write(path, 1, 0, false);
    return path;
}

static void same_tensors(const char *a, const char *b) {
    tt_gguf *x = open_gguf(a), *y = open_gguf(b);
    TT_CHECK_EQ(tt__gguf_n_tensors(x), tt__gguf_n_tensors(y));
    for (size_t i = 0; i < tt__gguf_n_tensors(x); i++) {
        const tt_gguf_tensor *s = tt__gguf_tensor(x, i), *t = tt__gguf_find(y, s->name);
        tt_test_note("%s", s->name);
        TT_CHECK(t && t->type == s->type && t->n_dims == s->n_dims && memcmp(t->ne, s->ne, sizeof t->ne) == 0 && memcmp(t->data, s->data, s->bytes) == 0);
    }
    tt__gguf_close(x);
    tt__gguf_close(y);
}

TT_CASE(a_copy_is_byte_for_byte) {
    tt_err err = {0};
    char *a, *b;
    size_t n, m;
    const char *from = tiny(), *to = tt_test_path("copy.gguf");
    TT_CHECK_OK(convert(from, to, NULL, false, &err));
    TT_CHECK_OK(tt__read_file(from, 1 << 24, &a, &n, &err));
    TT_CHECK_OK(tt__read_file(to, 1 << 24, &b, &m, &err));
    TT_CHECK(n == m && memcmp(a, b, n) == 0);
    tt__free(a);
    tt__free(b);
}

TT_CASE(to_a_folder_and_back) {
    tt_err err = {0};
    const char *from = tiny(), *dir = tt_test_path("hf"), *back = tt_test_path("back.gguf");
    json_t *config;
    TT_CHECK_OK(convert(from, dir, NULL, false, &err));
    TT_CHECK_OK(tt__hf_config(dir, &config, &err));
    TT_CHECK_EQ(json_integer_value(json_object_get(config, "num_key_value_heads")), TINY_HKV);
    TT_CHECK_STR(json_string_value(json_object_get(config, "torch_dtype")), "float32");
    TT_CHECK(json_is_true(json_object_get(config, "tie_word_embeddings")));
    TT_CHECK_EQ(json_integer_value(json_object_get(config, "eos_token_id")), TINY_END);
    json_decref(config);
    static const char *const files[] = {"hf/generation_config.json", "hf/tokenizer.json", "hf/tokenizer_config.json", "hf/model.safetensors"};
    for (int i = 0; i < 4; i++) TT_CHECK(tt__exists(tt_test_path(files[i])));
    TT_CHECK_OK(convert(dir, back, NULL, false, &err));
    same_tensors(from, back);
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 3);              /* no temporary folder stays */
}

/* What nobody here knows of a config.json comes back from GGUF; what the weights decide does not. */
TT_CASE(foreign_members_of_config_travel) {
    tt_err err = {0};
    const char *dir = tt_test_path("hf"), *file = tt_test_path("once.gguf"), *again = tt_test_path("again");
    json_t *config;
    TT_CHECK_OK(convert(tiny(), dir, NULL, false, &err));
    TT_CHECK_OK(tt__hf_config(dir, &config, &err));
    json_object_set_new(config, "house_rule", json_pack("{s:[i,f]}", "x", 7, 0.25));
    json_object_set_new(config, "quantization_config", json_object());
    TT_CHECK_OK(tt__hf_write_json(dir, "config.json", config, &err));
    json_decref(config);
    TT_CHECK_OK(convert(dir, file, "f16", false, &err));
    TT_CHECK_OK(convert(file, again, NULL, false, &err));
    TT_CHECK_OK(tt__hf_config(again, &config, &err));
    json_t *x = json_object_get(json_object_get(config, "house_rule"), "x");
    TT_CHECK(json_integer_value(json_array_get(x, 0)) == 7 && json_real_value(json_array_get(x, 1)) == 0.25);
    TT_CHECK(!json_object_get(config, "quantization_config"));
    TT_CHECK_STR(json_string_value(json_object_get(config, "torch_dtype")), "float16");
    json_decref(config);
}

/* GGUF row h D + 2i + j of q and k is Hugging Face row h D + j D/2 + i; v is not permuted. */
/* The tiny model with keys that nobody here knows. */
static const char *tiny_with_keys(void) {
    tt_err err = {0};
    static const int32_t list[3] = {7, -8, 9};
    const char *to = tt_test_path("keys.gguf");
    tt_gguf *g = open_gguf(tiny());
    tt_gguf_writer *w;
    TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
    TT_CHECK_OK(tt__gguf_writer_copy_kv(w, g, NULL, &err));
    TT_CHECK_OK(tt__gguf_set_str(w, "general.name", "A name of its own", &err));
    TT_CHECK_OK(tt__gguf_set_str(w, "general.license", "mit", &err));
    TT_CHECK_OK(tt__gguf_set_i32s(w, "stranger.list", list, 3, &err));
    for (size_t i = 0; i < tt__gguf_n_tensors(g); i++) {
        const tt_gguf_tensor *t = tt__gguf_tensor(g, i);
        TT_CHECK_OK(tt__gguf_add_tensor(w, t->name, t->type, t->n_dims, t->ne, t->data, NULL, NULL, &err));
    }
    TT_CHECK_OK(tt__gguf_writer_save(w, to, &err));
    tt__gguf_writer_free(w);
    tt__gguf_close(g);
    return to;
}

static const tt_gguf_kv *key_of(const tt_gguf *g, const char *key) {
    for (size_t i = 0; i < tt__gguf_n_kv(g); i++)
        if (!strcmp(tt__gguf_kv_at(g, i)->key, key)) return tt__gguf_kv_at(g, i);
    return NULL;
}

TT_CASE(unknown_metadata_comes_back) {
    tt_err err = {0};
    static const char *const keys[] = {"general.name", "general.license", "stranger.list"};
    const char *from = tiny_with_keys(), *dir = tt_test_path("k"), *half = tt_test_path("k16"), *back = tt_test_path("back.gguf");
    TT_CHECK_OK(convert(from, dir, NULL, false, &err));
    TT_CHECK_OK(convert(dir, half, "f16", false, &err));
    TT_CHECK_OK(convert(half, back, NULL, false, &err));
    tt_gguf *x = open_gguf(from), *y = open_gguf(back);
    for (int i = 0; i < 3; i++) {
        const tt_gguf_kv *a = key_of(x, keys[i]), *b = key_of(y, keys[i]);
        tt_test_note("%s", keys[i]);
        TT_CHECK(a && b && a->type == b->type && a->raw_bytes == b->raw_bytes && memcmp(a->raw, b->raw, a->raw_bytes) == 0);
    }
    tt__gguf_close(x);
    tt__gguf_close(y);
}

TT_CASE(strings_beside_the_weights_stay) {
    tt_err err = {0};
    static const float x[2] = {1, 2};
    static const char *const said[] = {"author", "somebody", "format", "np", NULL};
    const tt_st_entry e = {.name = "w", .type = TT_ST_F32, .n_dims = 1, .shape = {2}, .data = x};
    const char *value;
    tt_st *st;
    TT_CHECK_OK(tt__st_save_folder(tt_test_path("said"), &e, 1, 0, said, &err));
    TT_CHECK_OK(convert(tt_test_path("said"), tt_test_path("again"), "f16", false, &err));
    TT_CHECK_OK(tt__st_open(tt_test_path("again"), &st, &err));
    TT_CHECK_EQ(tt__st_n_metadata(st), 2);
    TT_CHECK_STR(tt__st_metadata(st, 0, &value), "format");
    TT_CHECK_STR(value, "pt");
    TT_CHECK_STR(tt__st_metadata(st, 1, &value), "author");
    TT_CHECK_STR(value, "somebody");
    tt__st_close(st);
}

TT_CASE(rows_of_q_and_k_change_order) {
    tt_err err = {0};
    const char *from = tiny(), *dir = tt_test_path("hf");
    tt_st *st;
    TT_CHECK_OK(convert(from, dir, NULL, false, &err));
    TT_CHECK_OK(tt__st_open(dir, &st, &err));
    tt_gguf *g = open_gguf(from);
    static const struct { const char *gguf, *hf; int rows; bool permuted; } m[] = {{"blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight", TINY_D, true},
                                                                                {"blk.1.attn_k.weight", "model.layers.1.self_attn.k_proj.weight", TINY_D / 2, true},
                                                                                {"blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight", TINY_D / 2, false}};
    enum { D = TINY_D / TINY_H, ROW = TINY_D * 4 };
    for (int k = 0; k < 3; k++)
        for (int r = 0; r < m[k].rows; r++) {
            int h = r / D, i = r % D / 2, j = r % 2, other = m[k].permuted ? h * D + j * D / 2 + i : r;
            TT_CHECK(memcmp(tt__gguf_find(g, m[k].gguf)->data + r * ROW, tt__st_find(st, m[k].hf)->data + other * ROW, ROW) == 0);
        }
    tt__gguf_close(g);
    tt__st_close(st);
}

TT_CASE(types_of_the_target) {
    tt_err err = {0};
    const char *from = tiny(), *to = tt_test_path("t.gguf");
    static const struct { const char *outtype; tt_dtype matrix; int64_t file_type; } cases[] = {{"f16", TT_F16, 1}, {"BF16", TT_BF16, 32}, {"q8_0", TT_Q8_0, 7}, {"q4_0", TT_Q4_0, 2}, {"f32", TT_F32, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t file_type = -1;
        TT_CHECK_OK(convert(from, to, cases[i].outtype, true, &err));
        tt_gguf *g = open_gguf(to);
        TT_CHECK(tt__gguf_find(g, "blk.0.ffn_down.weight")->type == cases[i].matrix && tt__gguf_find(g, "blk.0.attn_norm.weight")->type == TT_F32);
        TT_CHECK_OK(tt__gguf_i64(g, "general.file_type", true, 0, 100, &file_type, &err));
        TT_CHECK_EQ(file_type, cases[i].file_type);
        TT_CHECK(tt__gguf_has(g, "general.quantization_version") == tt__dtype(cases[i].matrix)->quantized);
        const char *name = "";
        size_t n = 0;
        TT_CHECK_OK(tt__gguf_str(g, "general.name", true, &name, &n, &err));      /* keys survive a change of type */
        TT_CHECK(n == 4 && memcmp(name, "tiny", 4) == 0);
        tt__gguf_close(g);
    }
    same_tensors(from, to);
}

/* The thread count changes nothing. */
TT_CASE(threads_do_not_matter) {
    tt_err err = {0};
    const char *from = tiny(), *one = tt_test_path("1.gguf"), *three = tt_test_path("3.gguf");
    tt_convert_options o = {.size = sizeof o, .model = from, .output = one, .outtype = "q4_0"};
    TT_CHECK_OK(tt_convert(tt_test_ctx(1, NULL), &o, &err));
    o.output = three;
    TT_CHECK_OK(tt_convert(tt_test_ctx(3, NULL), &o, &err));
    same_tensors(one, three);
}

TT_CASE(folder_to_folder) {
    tt_err err = {0};
    const char *dir = tt_test_path("hf"), *half = tt_test_path("half");
    json_t *config;
    tt_st *st;
    TT_CHECK_OK(convert(tiny(), dir, NULL, false, &err));
    TT_CHECK_OK(convert(dir, half, "f16", false, &err));
    TT_CHECK_OK(tt__hf_config(half, &config, &err));
    TT_CHECK_STR(json_string_value(json_object_get(config, "torch_dtype")), "float16");
    TT_CHECK_EQ(json_integer_value(json_object_get(config, "hidden_size")), TINY_D);
    json_decref(config);
    TT_CHECK_OK(tt__st_open(half, &st, &err));
    for (size_t i = 0; i < tt__st_n(st); i++) TT_CHECK(tt__st_tensor(st, i)->type == TT_ST_F16);
    tt__st_close(st);
    TT_CHECK(tt__exists(tt_test_path("half/tokenizer.json")));
}

TT_CASE(refusals) {
    tt_err err = {0};
    const char *from = tiny(), *out = tt_test_path("out.gguf"), *dir = tt_test_path("dir");
    TT_CHECK_FAILS(TT_USAGE, convert(from, from, NULL, true, &err));                   /* F8 */
    TT_CHECK(strstr(err.what, "the output is the input") != NULL);
    TT_CHECK_FAILS(TT_USAGE, convert(from, out, "q4_9", false, &err));
    TT_CHECK_FAILS(TT_USAGE, convert(from, dir, "q4_0", false, &err));
    TT_CHECK_OK(convert(from, out, NULL, false, &err));
    TT_CHECK_FAILS(TT_USAGE, convert(from, out, NULL, false, &err));
    TT_CHECK(strstr(err.hint, "--force") != NULL);
    TT_CHECK_OK(tt__mkdirs(dir, &err));
    TT_CHECK_FAILS(TT_USAGE, convert(from, dir, NULL, false, &err));
    TT_CHECK_OK(tt__write_file(tt_test_path("dir/other.txt"), "x", 1, &err));
    TT_CHECK_OK(convert(from, dir, NULL, true, &err));                                 /* files of others stay */
    TT_CHECK(tt__exists(tt_test_path("dir/other.txt")) && tt__exists(tt_test_path("dir/model.safetensors")));
}

static void write_foreign(const char *path, float value) {
    tt_err err = {0};
    tt_gguf_writer *w;
    const uint64_t ne[] = {64, 2}, odd[] = {7, 2}, vec[] = {3};
    static float x[128];
    static const int32_t ids[3] = {1, 2, 3};
    for (int i = 0; i < 128; i++) x[i] = value;
    TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
    TT_CHECK_OK(tt__gguf_set_str(w, "general.architecture", "rwkv99", &err));
    TT_CHECK_OK(tt__gguf_set_i32s(w, "rwkv99.secret", ids, 3, &err));
    TT_CHECK_OK(tt__gguf_add_tensor(w, "a", TT_F32, 2, ne, x, NULL, NULL, &err));
    TT_CHECK_OK(tt__gguf_add_tensor(w, "odd", TT_F32, 2, odd, x, NULL, NULL, &err));
    TT_CHECK_OK(tt__gguf_add_tensor(w, "ids", TT_I32, 1, vec, ids, NULL, NULL, &err));
    TT_CHECK_OK(tt__gguf_writer_save(w, path, &err));
    tt__gguf_writer_free(w);
}

/* An architecture that this build cannot run is still rewritten, every key kept. */
TT_CASE(foreign_architectures) {
    tt_err err = {0};
    const char *from = tt_test_path("f.gguf"), *to = tt_test_path("q.gguf");
    write_foreign(from, 0.5f);
    TT_CHECK_OK(convert(from, to, "q8_0", false, &err));
    tt_gguf *g = open_gguf(to);
    TT_CHECK(tt__gguf_find(g, "a")->type == TT_Q8_0 && tt__gguf_find(g, "odd")->type == TT_F16 && tt__gguf_find(g, "ids")->type == TT_I32);
    TT_CHECK(tt__gguf_has(g, "rwkv99.secret"));
    tt__gguf_close(g);
    TT_CHECK_FAILS(TT_BADFILE, convert(from, tt_test_path("folder"), NULL, false, &err));
    TT_CHECK(strstr(err.what, "architecture") != NULL && !tt__exists(tt_test_path("folder")));
}

/* N3: what f16 cannot hold fails by the tensor's name, and nothing is left. */
TT_CASE(values_beyond_f16_name_the_tensor) {
    tt_err err = {0};
    const char *from = tt_test_path("f.gguf"), *to = tt_test_path("h.gguf");
    write_foreign(from, 70000);
    TT_CHECK_FAILS(TT_BADFILE, convert(from, to, "f16", false, &err));
    TT_CHECK(strncmp(err.where, "a, row 0", 8) == 0);
    TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 1);
    TT_CHECK_OK(convert(from, to, "bf16", false, &err));
}

/* A file with operators of our own becomes a plain one: decoded weights, the usual names and row order, its own architecture again. */
static void check_plain(const char *path, const float *w, const char *name) {
    tt_gguf *g = open_gguf(path);
    const tt_gguf_tensor *t = tt__gguf_find(g, name);
    const char *arch = "";
    size_t n = 0;
    tt_err err = {0};
    TT_CHECK(t && t->type == TT_F32 && memcmp(t->data, w, TINY_D * TINY_D * sizeof(float)) == 0);
    TT_CHECK_OK(tt__gguf_str(g, "general.architecture", true, &arch, &n, &err));
    TT_CHECK(n == 5 && memcmp(arch, "llama", 5) == 0);
    TT_CHECK(!tt__gguf_has(g, "trimtab.schema") && !tt__gguf_has(g, "trimtab.op.blk.0.attn_q.weight"));
    tt__gguf_close(g);
}

TT_CASE(own_operators_become_plain) {
    tt_err err = {0};
    const char *from = tiny(), *own = tt_test_path("own.gguf"), *plain = tt_test_path("plain.gguf"), *dir = tt_test_path("hf"), *copy = tt_test_path("copy.gguf");
    static const char name[] = "blk.0.attn_q.weight";
    static float values[TINY_D * TINY_D], w[TINY_D * TINY_D];
    static uint8_t keep[TINY_D * TINY_D];
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    tt_gguf *g = open_gguf(from);
    tt_net *net;
    tt_linop *op;
    TT_CHECK_OK(tt__net_from_gguf(ctx, g, false, &net, &err));
    const tt_linop **ops = tt__calloc(net->n_weights, sizeof *ops);
    size_t q = 0;
    while (strcmp(net->weights[q].name, name) != 0) q++;
    tt__linop_rows(net->weights[q].op, 0, TINY_D, values);
    for (int i = 0; i < TINY_D * TINY_D; i++) keep[i] = i % 3 == 0;
    TT_CHECK_OK(tt__linop_sparseq(ctx, 16, 64, keep, NULL, NULL, NULL, values, TINY_D, TINY_D, &op, &err));
    tt__linop_rows(op, 0, TINY_D, w);
    ops[q] = op;
    TT_CHECK_OK(tt__store_gguf(net, ops, g, NULL, NULL, NULL, own, NULL, &err));
    TT_CHECK_OK(convert(own, copy, NULL, false, &err));                   /* kept: still our own */
    same_tensors(own, copy);
    TT_CHECK_OK(convert(own, plain, "f32", false, &err));
    check_plain(plain, w, name);
    TT_CHECK_OK(convert(own, dir, NULL, false, &err));
    TT_CHECK_OK(convert(dir, plain, NULL, true, &err));
    check_plain(plain, w, name);
    tt__linop_free(op);
    tt__free(ops);
    tt__net_free(net);
    tt__gguf_close(g);
}

/* ---- encoders ---- */

static void bert_folder(const char *extra) {
    static const char *const names[] = {"embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight", "embeddings.LayerNorm.bias",
                                        "encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.output.LayerNorm.weight", "encoder.layer.0.output.dense.bias", "pooler.dense.weight"};
    static const char config[] = "{\"model_type\":\"bert\",\"max_position_embeddings\":4,\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":1,\"num_attention_heads\":2}",
                      tokenizer[] = "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[PAD]\":0,\"run\":1,\"##ning\":2}}}", pooling[] = "{\"pooling_mode_mean_tokens\":true}";
    tt_err err = {0};
    static float x[128];
    tt_st_entry e[8];
    size_t n = 0;
    for (; n < 7; n++) {
        bool matrix = strstr(names[n], "embeddings.w") || strstr(names[n], "embeddings.p") || strstr(names[n], "query") || strstr(names[n], "pooler");
        e[n] = (tt_st_entry){.name = names[n], .type = TT_ST_F32, .n_dims = matrix ? 2 : 1, .shape = {matrix ? 3 : 32, matrix ? 32 : 0}, .data = x};
    }
    if (extra) e[n++] = (tt_st_entry){.name = extra, .type = TT_ST_F32, .n_dims = 1, .shape = {1}, .data = x};
    TT_CHECK_OK(tt__mkdirs(tt_test_path("bert/1_Pooling"), &err));
    TT_CHECK_OK(tt__st_save_folder(tt_test_path("bert"), e, n, 0, NULL, &err));
    TT_CHECK_OK(tt__write_file(tt_test_path("bert/config.json"), config, strlen(config), &err));
    TT_CHECK_OK(tt__write_file(tt_test_path("bert/tokenizer.json"), tokenizer, strlen(tokenizer), &err));
    TT_CHECK_OK(tt__write_file(tt_test_path("bert/1_Pooling/config.json"), pooling, strlen(pooling), &err));
}

TT_CASE(bert_encoders) {
    tt_err err = {0};
    const char *dir = tt_test_path("bert"), *to = tt_test_path("bert.gguf"), *s;
    size_t n;
    int64_t pooling = 0;
    bert_folder(NULL);
    TT_CHECK_OK(convert(dir, to, "q8_0", false, &err));
    tt_gguf *g = open_gguf(to);
    TT_CHECK_EQ(tt__gguf_n_tensors(g), 6);
    TT_CHECK(tt__gguf_find(g, "token_embd.weight")->type == TT_Q8_0 && tt__gguf_find(g, "position_embd.weight")->type == TT_F32);
    TT_CHECK(tt__gguf_find(g, "blk.0.attn_q.weight") && tt__gguf_find(g, "blk.0.attn_output_norm.weight") && tt__gguf_find(g, "blk.0.ffn_down.bias") && tt__gguf_find(g, "token_embd_norm.bias"));
    TT_CHECK_OK(tt__gguf_i64(g, "bert.pooling_type", true, 0, 9, &pooling, &err));
    TT_CHECK_EQ(pooling, 1);
    TT_CHECK_OK(tt__gguf_strs_at(g, "tokenizer.ggml.tokens", 1, &s, &n, &err));
    TT_CHECK(n == 6 && memcmp(s, "\xe2\x96\x81run", 6) == 0);
    TT_CHECK_OK(tt__gguf_strs_at(g, "tokenizer.ggml.tokens", 2, &s, &n, &err));
    TT_CHECK(n == 4 && memcmp(s, "ning", 4) == 0);
    tt__gguf_close(g);
    const char *const shown[] = {dir, to};
    for (int i = 0; i < 2; i++) {                                                       /* not runnable, but its shape is told */
        tt_model *m;
        TT_CHECK_OK(tt_model_open(tt_test_ctx(1, NULL), shown[i], NULL, &m, &err));
        const tt_model_info *info = tt_model_get_info(m);
        TT_CHECK(!info->runnable && info->n_layer == 1 && info->n_embd == 32 && info->n_ff == 64 && info->n_head == 2 && info->n_head_kv == 2 && info->n_ctx == 4);
        tt_model_close(m);
    }
    static const char *const refused[] = {"classifier.weight", "encoder.layer.1.output.dense.bias", "encoder.layer.536870912.output.dense.bias", "encoder.layer.00.output.dense.bias"};
    for (int i = 0; i < 4; i++) {                                                       /* F9 */
        bert_folder(refused[i]);
        TT_CHECK_FAILS(TT_BADFILE, convert(dir, to, NULL, true, &err));
        TT_CHECK(strcmp(err.where, refused[i]) == 0);
    }
}

TT_CASE(real_model_to_a_folder_and_back) {
    tt_err err = {0};
    const char *from = tt_test_model(), *dir = tt_test_path("hf"), *back = tt_test_path("back.gguf"), *direct = tt_test_path("direct.gguf");
    TT_CHECK_OK(convert(from, dir, "bf16", false, &err));
    TT_CHECK_OK(convert(dir, back, NULL, false, &err));
    TT_CHECK_OK(convert(from, direct, "bf16", false, &err));
    tt_gguf *x = open_gguf(back), *y = open_gguf(direct);
    for (size_t i = 0; i < tt__gguf_n_tensors(x); i++) {
        const tt_gguf_tensor *s = tt__gguf_tensor(x, i), *t = tt__gguf_find(y, s->name);
        if (s->n_dims == 2) TT_CHECK(t && s->type == TT_BF16 && t->type == TT_BF16 && memcmp(s->data, t->data, s->bytes) == 0);
    }
    tt__gguf_close(x);
    tt__gguf_close(y);
}
