/* A PEFT prompt folder from any bytes: u16 length of the configuration, configuration, weights. What loads has the shape it says, is
 * finite, and survives being saved and loaded again. */
#include "base/mem.h"
#include "base/util.h"
#include "formats/mutate.h"
#include "formats/peft.h"
#include "scratch.h"
#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)

static void check_again(const tt_peft_prompt *p) {
    tt_peft_prompt q;
    size_t n = (size_t)(p->tokens * p->width);
    MUST(p->tokens >= 1 && p->width >= 1 && (!p->prefix || p->width == p->n_layers * 2 * p->kv_width));
    for (size_t i = 0; i < n; i++) MUST(isfinite(p->embeddings[i]));
    MUST(tt__peft_save(scratch(), p, NULL, NULL) == TT_OK && tt__peft_load(scratch(), &q, NULL) == TT_OK);
    MUST(q.prefix == p->prefix && q.kv_width == p->kv_width && q.tokens == p->tokens && q.width == p->width && q.n_layers == p->n_layers && q.n_heads == p->n_heads && memcmp(q.embeddings, p->embeddings, n * sizeof(float)) == 0);
    MUST(!p->base_model == !q.base_model && (!p->base_model || strcmp(p->base_model, q.base_model) == 0));
    tt__peft_free(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tt_err err = {0};
    tt_peft_prompt p;
    size_t head = size < 2 ? size : 2, config = size < 2 ? 0 : tt__rd16(data);
    if (config > size - head) config = size - head;
    scratch_file("adapter_config.json", data + head, config);
    scratch_file("adapter_model.safetensors", data + head + config, size - head - config);
    uint64_t before = tt__mem_now();
    tt_status st = tt__peft_load(scratch(), &p, &err);
    MUST(st == TT_OK || (st == TT_BADFILE && err.what[0]));
    if (st == TT_OK) check_again(&p);
    tt__peft_free(&p);
    MUST(tt__mem_now() == before);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    uint64_t s = seed;
    size_t config = size < 2 ? 0 : tt__rd16(data), weights = 2 + config;
    if (mutate_random(&s) % 2 || weights > size || weights > max) return LLVMFuzzerMutate(data, size, max);
    if (mutate_random(&s) % 2) return weights + mutate_json(data + weights, size - weights, max - weights, 8, &s);
    size_t room = max < 65000 ? max : 65000, n = mutate_json(data, size, room > size ? room : size, 2, &s);       /* the configuration takes what it grew by */
    uint16_t length = (uint16_t)(config + n - size);
    memcpy(data, &length, 2);
    return n;
}
