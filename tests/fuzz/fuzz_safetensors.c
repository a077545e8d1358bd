/* safetensors from any bytes; texts that begin with '{' also as index.json and config.json of a folder with two shards. */
#include "base/mem.h"
#include "formats/hf.h"
#include "formats/mutate.h"
#include "formats/safetensors.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)

static void use(tt_st *st) {
    for (size_t i = 0; i < tt__st_n(st); i++) {
        const tt_st_tensor *t = tt__st_tensor(st, i);
        float x[4];
        uint64_t n = 1;
        for (int d = 0; d < t->n_dims; d++) n *= t->shape[d];
        MUST(tt__st_find(st, t->name) == t);
        if (t->type != TT_ST_BOOL) MUST(tt__st_to_f32(t, n > 4 ? n - 4 : 0, n > 4 ? 4 : n, x, NULL) == TT_OK);
        MUST(tt__st_to_f32(t, n, 1, x, NULL) != TT_OK);
    }
    for (size_t i = 0; i < tt__st_n_metadata(st); i++) {
        const char *value;
        MUST(tt__st_metadata(st, i, &value) && value);
    }
}

static void shard(const char *name, const char *tensor) {
    char file[160];
    int n = snprintf(file + 8, sizeof file - 8, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}1234", tensor);
    uint64_t header = (uint64_t)n - 4;
    memcpy(file, &header, 8);
    scratch_file(name, file, (size_t)n + 8);
}

static void as_folder(const uint8_t *data, size_t size) {
    static int ready;
    tt_err err = {0};
    tt_st *st = NULL;
    json_t *config = NULL;
    if (!ready) {
        shard("one.safetensors", "a");
        shard("two.safetensors", "b");
        MUST(mkfifo(scratch_path("pipe.safetensors"), 0600) == 0 && symlink("/etc/passwd", scratch_path("out.safetensors")) == 0);
        ready = 1;
    }
    scratch_file("model.safetensors.index.json", data, size);
    scratch_file("config.json", data, size);
    tt_status status = tt__st_open(scratch(), &st, &err);
    MUST((status == TT_OK) == (st != NULL) && (status == TT_OK || err.what[0]));
    if (st) {
        for (size_t i = 0; i < tt__st_n(st); i++) MUST(strcmp(tt__st_tensor(st, i)->name, "a") == 0 || strcmp(tt__st_tensor(st, i)->name, "b") == 0);
        use(st);
    }
    tt__st_close(st);
    if (tt__hf_config(scratch(), &config, &err) == TT_OK) json_decref(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tt_err err = {0};
    tt_st *st = NULL;
    uint64_t before = tt__mem_now();
    tt_status status = tt__st_open_memory(data, size, "input", &st, &err);
    MUST((status == TT_OK) == (st != NULL) && (status == TT_OK || (status == TT_BADFILE && err.what[0])));
    if (st) use(st);
    tt__st_close(st);
    if (size && data[0] == '{') as_folder(data, size);
    MUST(tt__mem_now() == before);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    uint64_t s = seed;
    return mutate_random(&s) % 2 ? mutate_json(data, size, max, size && data[0] == '{' ? 0 : 8, &s) : LLVMFuzzerMutate(data, size, max);
}
