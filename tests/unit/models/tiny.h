/* A tiny Llama of random weights as a GGUF file, for tests: 3 layers, grouped heads, mixed types. The normal path of loading makes the net. */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H
#include "formats/gguf.h"
#include "harness/tt_test.h"
#include "models/net.h"
#include <stdio.h>

enum { TINY_V = 96, TINY_D = 64, TINY_L = 3, TINY_H = 4, TINY_HKV = 2, TINY_HD = 16, TINY_FF = 96 };

typedef struct tiny_options {
    uint64_t seed;
    bool f32;                     /* all matrices F32; otherwise a mixture */
    bool untied;
    bool wide_heads;              /* 2 and 1 heads of 32 instead of 4 and 2 of 16: the same matrices */
    const char *without;          /* tensor to leave out */
    const char *extra;            /* name of one more tensor */
    void (*more_keys)(tt_gguf_writer *w);
} tiny_options;

static inline void tiny_tensor(tt_gguf_writer *w, tt__rng *rng, const tiny_options *o, const char *name, tt_dtype type, int64_t rows, int64_t cols, void **hold) {
    tt_err err = {0};
    static float x[TINY_V * TINY_FF];
    uint64_t bytes, ne[2] = {(uint64_t)cols, (uint64_t)rows};
    double scale = rows == 1 ? 0.2 : 1.2 / sqrt((double)cols);
    for (int64_t i = 0; i < rows * cols; i++) x[i] = (float)(scale * tt__rng_normal(rng) + (rows == 1));
    if (o->without && !strcmp(o->without, name)) return;
    if (o->f32) type = TT_F32;
    TT_CHECK(tt__dtype_bytes(type, (uint64_t)(rows * cols), &bytes));
    *hold = tt__alloc(bytes);
    TT_CHECK_OK(tt__dtype_encode(type, x, *hold, rows * cols, NULL, &err));
    TT_CHECK_OK(tt__gguf_add_tensor(w, name, type, rows == 1 ? 1 : 2, ne, *hold, NULL, NULL, &err));
}

/* Writes the file into the folder of the case and returns its path. */
static inline const char *tiny_file(const char *file, const tiny_options *o) {
    static const struct { const char *name; tt_dtype type; int rows, cols; } slots[9] = {
        {"attn_norm", TT_F32, 1, TINY_D}, {"attn_q", TT_Q8_0, TINY_H * TINY_HD, TINY_D}, {"attn_k", TT_Q4_1, TINY_HKV * TINY_HD, TINY_D},
        {"attn_v", TT_Q5_0, TINY_HKV * TINY_HD, TINY_D}, {"attn_output", TT_F16, TINY_D, TINY_H * TINY_HD}, {"ffn_norm", TT_F32, 1, TINY_D},
        {"ffn_gate", TT_Q4_0, TINY_FF, TINY_D}, {"ffn_up", TT_BF16, TINY_FF, TINY_D}, {"ffn_down", TT_Q8_0, TINY_D, TINY_FF}};
    tt_err err = {0};
    tt_gguf_writer *w;
    tt__rng rng;
    void *hold[9 * TINY_L + 4] = {NULL};
    int n = 0;
    char name[64];
    const char *path = tt_test_path(file);
    tt__rng_seed(&rng, o->seed);
    TT_CHECK_OK(tt__gguf_writer_create(&w, &err));
    TT_CHECK_OK(tt__gguf_set_str(w, "general.architecture", "llama", &err));
    tt_hparams h = {.n_vocab = TINY_V, .n_embd = TINY_D, .n_layer = TINY_L, .n_head = TINY_H, .n_head_kv = TINY_HKV, .head_dim = TINY_HD, .n_ff = TINY_FF,
                    .n_ctx = 128, .rms_eps = 1e-5f, .rope_base = 1000, .rope_linear = 1};
    if (o->wide_heads) h.n_head = TINY_H / 2, h.n_head_kv = TINY_HKV / 2, h.head_dim = 2 * TINY_HD;
    TT_CHECK_OK(tt__arch_find("llama")->to_gguf(&h, w, &err));
    if (o->more_keys) o->more_keys(w);
    tiny_tensor(w, &rng, o, "token_embd.weight", TT_Q8_0, TINY_V, TINY_D, &hold[n++]);
    for (int l = 0; l < TINY_L; l++)
        for (int s = 0; s < 9; s++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, slots[s].name);
            tiny_tensor(w, &rng, o, name, slots[s].type, slots[s].rows, slots[s].cols, &hold[n++]);
        }
    tiny_tensor(w, &rng, o, "output_norm.weight", TT_F32, 1, TINY_D, &hold[n++]);
    if (o->untied) tiny_tensor(w, &rng, o, "output.weight", TT_Q4_0, TINY_V, TINY_D, &hold[n++]);
    if (o->extra) tiny_tensor(w, &rng, o, o->extra, TT_F32, 1, TINY_D, &hold[n++]);
    TT_CHECK_OK(tt__gguf_writer_save(w, path, &err));
    tt__gguf_writer_free(w);
    for (int i = 0; i < n; i++) tt__free(hold[i]);
    return path;
}

typedef struct tiny { tt_gguf *g; tt_net *net; } tiny;

static inline tiny tiny_open(tt_ctx *ctx, const char *path) {
    tiny t;
    tt_err err = {0};
    TT_CHECK_OK(tt__gguf_open(path, &t.g, &err));
    TT_CHECK_OK(tt__net_from_gguf(ctx, t.g, false, &t.net, &err));
    return t;
}

static inline void tiny_close(tiny *t) {
    tt__net_free(t->net);
    tt__gguf_close(t->g);
}

static inline tt_runner *tiny_runner(tt_ctx *ctx, const tt_net *net, int64_t rows, bool fast, bool backward, tt_keep keep) {
    tt_runner *r;
    tt_err err = {0};
    tt_runner_options o = {.max_rows = rows, .max_past = 64, .fast = fast, .backward = backward, .keep = keep};
    TT_CHECK_OK(tt__runner_create(ctx, net, &o, &r, &err));
    return r;
}
#endif
