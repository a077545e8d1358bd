/* A GGUF that opens is rewritten and read again: every key but the split and the alignment, and every tensor, are equal. */
#include "base/mem.h"
#include "formats/gguf_file.h"
#include "formats/mutate.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)

static void rewrite(const tt_gguf *g, const char *path) {
    tt_gguf_writer *w;
    MUST(tt__gguf_writer_create(&w, NULL) == TT_OK && tt__gguf_writer_copy_kv(w, g, NULL, NULL) == TT_OK);
    for (size_t i = 0; i < tt__gguf_n_tensors(g); i++) {
        const tt_gguf_tensor *t = tt__gguf_tensor(g, i);
        MUST(tt__gguf_add_tensor(w, t->name, t->type, t->n_dims, t->ne, t->data, NULL, NULL, NULL) == TT_OK);
    }
    uint64_t bytes = tt__gguf_writer_bytes(w);
    struct stat sb;
    MUST(tt__gguf_writer_save(w, path, NULL) == TT_OK && stat(path, &sb) == 0 && (uint64_t)sb.st_size == bytes);
    tt__gguf_writer_free(w);
}

static void compare(const tt_gguf *a, const tt_gguf *b) {
    size_t at = 0;
    for (size_t i = 0; i < tt__gguf_n_kv(a); i++) {
        const tt_gguf_kv *x = tt__gguf_kv_at(a, i), *y;
        if (strncmp(x->key, "split.", 6) == 0 || strcmp(x->key, "general.alignment") == 0) continue;
        MUST(at < tt__gguf_n_kv(b));
        y = tt__gguf_kv_at(b, at++);
        MUST(strcmp(x->key, y->key) == 0 && x->type == y->type && x->raw_bytes == y->raw_bytes && memcmp(x->raw, y->raw, x->raw_bytes) == 0);
    }
    MUST(at == tt__gguf_n_kv(b) && tt__gguf_n_tensors(a) == tt__gguf_n_tensors(b));
    for (size_t i = 0; i < tt__gguf_n_tensors(a); i++) {
        const tt_gguf_tensor *x = tt__gguf_tensor(a, i), *y = tt__gguf_tensor(b, i);
        MUST(strcmp(x->name, y->name) == 0 && x->type == y->type && x->n_dims == y->n_dims && memcmp(x->ne, y->ne, sizeof x->ne) == 0);
        MUST(x->bytes == y->bytes && memcmp(x->data, y->data, x->bytes) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tt_gguf *a, *b;
    if (tt__gguf_open_memory(data, size, "input", &a, NULL) != TT_OK) return 0;
    const char *path = scratch_path("again.gguf");
    rewrite(a, path);
    MUST(tt__gguf_open(path, &b, NULL) == TT_OK);
    compare(a, b);
    tt__gguf_close(b);
    tt__gguf_close(a);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    uint64_t s = seed;
    return mutate_random(&s) % 3 ? mutate_gguf(data, size, &s) : LLVMFuzzerMutate(data, size, max);
}
