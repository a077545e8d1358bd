/* A tiny Llama with a byte-level tokenizer, made on the spot as a GGUF file: 2 layers, width 32, 258 tokens, random f32 weights. `noise`
 * adds a second random part to the matrices, so that tiny_write(path, seed, 0) and tiny_write(path, seed, 0.3) are a model and its damaged copy.
 * Needs the formats layer. */
#ifndef TT_TINY_H
#define TT_TINY_H
#include "base/util.h"
#include "formats/gguf.h"
#include "harness/tt_test.h"
#include <stdio.h>

enum { TINY_V = 258, TINY_D = 32, TINY_L = 2, TINY_H = 4, TINY_HKV = 2, TINY_FF = 64, TINY_CTX = 2048, TINY_END = 257 };

/* Byte b as GPT-2's alphabet writes it. */
static inline void tiny_byte_token(int b, char out[8]) {
    int shifted = 0;
    bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    for (int i = 0; i < b; i++) shifted += !((i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174);
    int n = tt__utf8_encode(plain ? (uint32_t)b : 256 + (uint32_t)shifted, out);
    out[n] = 0;
}

static inline void tiny_tokenizer(tt_gguf_writer *w, bool add_bos) {
    tt_err err = {0};
    static char text[TINY_V][16];
    const char *tokens[TINY_V], *merges[] = {"\xc4\xa0 t"};
    int32_t types[TINY_V];
    for (int i = 0; i < TINY_V; i++) {
        if (i < 256) tiny_byte_token(i, text[i]);
        else snprintf(text[i], sizeof text[i], "%s", i == TINY_END ? "<|endoftext|>" : "\xc4\xa0t");
        tokens[i] = text[i];
        types[i] = i == TINY_END ? 3 : 1;
    }
    TT_CHECK_OK(tt__gguf_set_str(w, "tokenizer.ggml.model", "gpt2", &err));
    TT_CHECK_OK(tt__gguf_set_str(w, "tokenizer.ggml.pre", "smollm", &err));
    TT_CHECK_OK(tt__gguf_set_strs(w, "tokenizer.ggml.tokens", tokens, NULL, TINY_V, &err));
    TT_CHECK_OK(tt__gguf_set_i32s(w, "tokenizer.ggml.token_type", types, TINY_V, &err));
    TT_CHECK_OK(tt__gguf_set_strs(w, "tokenizer.ggml.merges", merges, NULL, 1, &err));
    TT_CHECK_OK(tt__gguf_set_u32(w, "tokenizer.ggml.bos_token_id", TINY_END, &err));
    TT_CHECK_OK(tt__gguf_set_u32(w, "tokenizer.ggml.eos_token_id", TINY_END, &err));
    TT_CHECK_OK(tt__gguf_set_bool(w, "tokenizer.ggml.add_bos_token", add_bos, &err));
}

static inline void tiny_hparams(tt_gguf_writer *w) {
    static const struct { const char *key; uint32_t value; } keys[] = {
        {"llama.block_count", TINY_L}, {"llama.embedding_length", TINY_D}, {"llama.feed_forward_length", TINY_FF},
            {"llama.attention.head_count", TINY_H},
        {"llama.attention.head_count_kv", TINY_HKV}, {"llama.context_length", TINY_CTX}, {"llama.rope.dimension_count", TINY_D / TINY_H},
            {"llama.vocab_size", TINY_V}};
    tt_err err = {0};
    TT_CHECK_OK(tt__gguf_set_str(w, "general.architecture", "llama", &err));
    TT_CHECK_OK(tt__gguf_set_str(w, "general.name", "tiny", &err));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) TT_CHECK_OK(tt__gguf_set_u32(w, keys[i].key, keys[i].value, &err));
    TT_CHECK_OK(tt__gguf_set_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f, &err));
    TT_CHECK_OK(tt__gguf_set_f32(w, "llama.rope.freq_base", 10000, &err));
}

typedef struct tiny_weights { tt_gguf_writer *w; tt__rng rng, damage; double noise; float *data; size_t used; } tiny_weights;

static inline void tiny_matrix(tiny_weights *t, const char *name, uint64_t rows, uint64_t cols, double spread, double noise) {
    tt_err err = {0};
    float *x = t->data + t->used;
    uint64_t ne[2] = {cols, rows};
    for (uint64_t i = 0; i < rows * cols; i++) x[i] = (float)(spread * (tt__rng_normal(&t->rng) + (noise > 0
        ? noise * tt__rng_normal(&t->damage) : 0)));
    t->used += rows * cols;
    TT_CHECK_OK(tt__gguf_add_tensor(t->w, name, TT_F32, 2, ne, x, NULL, NULL, &err));
}

static inline void tiny_gain(tiny_weights *t, const char *name) {
    tt_err err = {0};
    float *x = t->data + t->used;
    uint64_t ne[1] = {TINY_D};
    for (int i = 0; i < TINY_D; i++) x[i] = 1;
    t->used += TINY_D;
    TT_CHECK_OK(tt__gguf_add_tensor(t->w, name, TT_F32, 1, ne, x, NULL, NULL, &err));
}

static inline void tiny_write(const char *path, uint64_t seed, double noise, bool add_bos) {
    static const struct { const char *name; int rows, cols; } m[] = {{"attn_q", TINY_D, TINY_D}, {"attn_k", TINY_D / 2, TINY_D}, {"attn_v",
        TINY_D / 2, TINY_D},
                                                                   {"attn_output", TINY_D, TINY_D}, {"ffn_gate", TINY_FF, TINY_D},
                                                                       {"ffn_up", TINY_FF, TINY_D},
                                                                   {"ffn_down", TINY_D, TINY_FF}};
    tt_err err = {0};
    char name[64];
    tiny_weights t = {.noise = noise, .data = tt__alloc(1 << 20)};
    TT_CHECK_OK(tt__gguf_writer_create(&t.w, &err));
    tt__rng_seed(&t.rng, seed);
    tt__rng_seed(&t.damage, seed + 1000);
    tiny_hparams(t.w);
    tiny_tokenizer(t.w, add_bos);
    tiny_matrix(&t, "token_embd.weight", TINY_V, TINY_D, 0.4, 0);
    tiny_gain(&t, "output_norm.weight");
    for (int l = 0; l < TINY_L; l++) {
        snprintf(name, sizeof name, "blk.%d.attn_norm.weight", l);
        tiny_gain(&t, name);
        snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", l);
        tiny_gain(&t, name);
        for (size_t i = 0; i < sizeof m / sizeof *m; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, m[i].name);
            tiny_matrix(&t, name, (uint64_t)m[i].rows, (uint64_t)m[i].cols, 1 / sqrt((double)m[i].cols), noise);
        }
    }
    TT_CHECK_OK(tt__gguf_writer_save(t.w, path, &err));
    tt__gguf_writer_free(t.w);
    tt__free(t.data);
}

/* n words from a small vocabulary, with a line break now and then: text with something to learn in it. Freed with tt__free. */
static inline char *tiny_text(uint64_t seed, int n) {
    static const char *const words[] = {"the", "tab", "moves", "rudder", "ship", "small", "steers", "and", "a", "back", "then", "turns",
        "water", "of"};
    tt__rng rng;
    tt__str s = {0};
    tt__rng_seed(&rng, seed);
    for (int i = 0; i < n; i++) tt__str_printf(&s, "%s%s", words[tt__rng_below(&rng, 14)], tt__rng_below(&rng, 12) == 0 ? ".\n" : " ");
    return s.s;
}
#endif
