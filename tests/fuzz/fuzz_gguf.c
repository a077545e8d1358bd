/* Opening GGUF from any bytes, and asking everything of what opened. */
#include "base/mem.h"
#include "formats/gguf.h"
#include "formats/mutate.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)

static void ask_key(const tt_gguf *g, size_t i) {
    tt_gguf_type type, element;
    uint64_t count;
    const char *key = tt__gguf_kv_key(g, i, &type, &element, &count), *s;
    char *text = NULL;
    int64_t v;
    double f;
    bool b;
    size_t n = 0, bytes;
    int32_t *is = NULL;
    float *fs = NULL;
    MUST(tt__gguf_kv_text(g, i, 4, &text, NULL) == TT_OK && tt__gguf_has(g, key));
    tt__free(text);
    int hits = (tt__gguf_i64(g, key, true, INT64_MIN, INT64_MAX, &v, NULL) == TT_OK) + (tt__gguf_f64(g, key, true, &f, NULL) == TT_OK)
             + (tt__gguf_bool(g, key, true, &b, NULL) == TT_OK) + (tt__gguf_str(g, key, true, &s, &n, NULL) == TT_OK)
             + (tt__gguf_i32s(g, key, true, &is, &n, NULL) == TT_OK) + (tt__gguf_f32s(g, key, true, &fs, &n, NULL) == TT_OK);
    tt__free(is);
    tt__free(fs);
    if (tt__gguf_strs(g, key, true, &n, NULL) == TT_OK) {
        hits++;
        volatile uint8_t sum = 0;
        for (size_t k = 0; k < n; k++) {
            MUST(tt__gguf_strs_at(g, key, k, &s, &bytes, NULL) == TT_OK);
            if (bytes) sum = (uint8_t)(sum + s[0] + s[bytes - 1]);
        }
        MUST(tt__gguf_strs_at(g, key, n, &s, &bytes, NULL) == TT_BADFILE);
    }
    MUST(hits <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tt_err err = {0};
    tt_gguf *g = NULL;
    uint64_t before = tt__mem_now();
    tt_status st = tt__gguf_open_memory(data, size, "input", &g, &err);
    MUST((st == TT_OK) == (g != NULL) && (st == TT_OK || (st == TT_BADFILE && err.what[0])));
    for (size_t i = 0; g && i < tt__gguf_n_kv(g); i++) ask_key(g, i);
    for (size_t i = 0; g && i < tt__gguf_n_tensors(g); i++) {
        const tt_gguf_tensor *t = tt__gguf_tensor(g, i);
        const tt_dtype_info *info = tt__dtype(t->type);
        float x[256];
        MUST(tt__gguf_find(g, t->name) == t);
        tt__dtype_decode(t->type, t->data, x, info->block);
        tt__dtype_decode(t->type, t->data + t->bytes - (uint64_t)info->bytes, x, info->block);
    }
    tt__gguf_close(g);
    MUST(tt__mem_now() == before);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    uint64_t s = seed;
    return mutate_random(&s) % 3 ? mutate_gguf(data, size, &s) : LLVMFuzzerMutate(data, size, max);
}
