/* PEFT prompt folders: what loads, what is refused, writing; the seeds hold u16 length, configuration, weights. */
#include "base/util.h"
#include "formats/corpus.h"
#include "formats/peft.h"
#include "harness/tt_test.h"

/* Unpacks a seed into the folder of the case. */
static void unpack(const char *bytes, size_t n) {
    tt_err err = {0};
    size_t config = n < 2 ? 0 : tt__rd16(bytes), head = n < 2 ? n : 2;
    if (config > n - head) config = n - head;
    TT_CHECK_OK(tt__write_file(tt_test_path("adapter_config.json"), bytes + head, config, &err));
    TT_CHECK_OK(tt__write_file(tt_test_path("adapter_model.safetensors"), bytes + head + config, n - head - config, &err));
}

TT_CASE(names_of_seeds_are_kept) {
    corpus c = corpus_open("peft");
    const char *dir = tt_test_tmpdir();
    int ok = 0, bad = 0;
    for (int i = 0; i < c.n; i++) {
        size_t n;
        char *bytes = corpus_read(&c, i, &n);
        tt_err err = {0};
        tt_peft_prompt p;
        if (!bytes) continue;
        unpack(bytes, n);
        uint64_t before = tt__mem_now();
        if (corpus_is(&c, i, "ok_") && !corpus_is(&c, i, "ok_prefix")) {
            TT_CHECK_OK(tt__peft_load(dir, &p, &err));
            TT_CHECK(p.tokens == 2 && p.width == 3 && isfinite(p.embeddings[5]));
            ok++;
        } else if (corpus_is(&c, i, "ok_prefix")) {
            TT_CHECK_OK(tt__peft_load(dir, &p, &err));
            TT_CHECK(p.prefix && p.tokens == 2 && p.n_layers == 2 && p.n_heads == 2 && p.kv_width == 4 && p.width == 16 && isfinite(p.embeddings[31]));
        } else {
            TT_CHECK_FAILS(TT_BADFILE, tt__peft_load(dir, &p, &err));
            bad++;
        }
        tt__peft_free(&p);
        TT_CHECK_EQ(tt__mem_now(), before);
        tt__free(bytes);
    }
    corpus_close(&c);
    TT_CHECK(ok >= 8 && bad >= 32);
}

static float numbers[6] = {1, -2, 3, 0.5f, 1e-8f, 65536};
static tt_peft_prompt prompt(void) {
    return (tt_peft_prompt){.tokens = 2, .width = 3, .embeddings = numbers, .base_model = (char *)(uintptr_t)"org/\"base\"", .n_layers = 30, .n_heads = 9};
}

TT_CASE(written_folders_read_back) {
    tt_err err = {0};
    char json[200];
    memset(json, 0, sizeof json);
    snprintf(json, sizeof json, "{\"base_sha256\":\"%064d\"}", 7);
    const char *dir = tt_test_path("tab");
    tt_peft_prompt p = prompt(), q;
    for (int again = 0; again < 2; again++) {                      /* a new folder, then one that exists */
        TT_CHECK_OK(tt__peft_save(dir, &p, json, &err));
        TT_CHECK_EQ(tt_test_count_entries(dir), 3);
        TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 1);
        TT_CHECK_OK(tt__peft_load(dir, &q, &err));
        TT_CHECK(q.tokens == 2 && q.width == 3 && q.n_layers == 30 && q.n_heads == 9 && memcmp(q.embeddings, numbers, sizeof numbers) == 0);
        TT_CHECK_STR(q.base_model, p.base_model);
        TT_CHECK(strlen(q.base_sha256) == 64 && q.base_sha256[63] == '7');
        tt__peft_free(&q);
        dir = tt_test_path("tab/");
    }
    p.base_model = NULL;
    p.n_layers = p.n_heads = 0;
    TT_CHECK_OK(tt__peft_save(dir, &p, NULL, &err));
    TT_CHECK_OK(tt__peft_load(dir, &q, &err));
    TT_CHECK(!q.base_model && q.n_layers == 0);
    tt__peft_free(&q);
    p.tokens = 0;
    TT_CHECK_FAILS(TT_FAIL, tt__peft_save(dir, &p, NULL, &err));
}

TT_CASE(written_prefixes_read_back) {
    tt_err err = {0};
    float rows[2 * 12];
    for (int i = 0; i < 24; i++) rows[i] = (float)i / 8;
    const char *dir = tt_test_path("tab");
    tt_peft_prompt p = {.prefix = true, .tokens = 2, .width = 12, .kv_width = 2, .n_layers = 3, .n_heads = 1, .embeddings = rows}, q;
    TT_CHECK_OK(tt__peft_save(dir, &p, NULL, &err));
    TT_CHECK_OK(tt__peft_load(dir, &q, &err));
    TT_CHECK(q.prefix && q.tokens == 2 && q.width == 12 && q.kv_width == 2 && q.n_layers == 3 && q.n_heads == 1 && memcmp(q.embeddings, rows, sizeof rows) == 0);
    tt__peft_free(&q);
}

TT_CASE(refusals_say_what_is_wrong) {
    tt_err err = {0};
    tt_peft_prompt q;
    const char *dir = tt_test_path("none"), *pickle = "{\"peft_type\":\"PROMPT_TUNING\",\"num_virtual_tokens\":2}", *bad = "{\"base_sha256\":\"../../x\"}";
    TT_CHECK_FAILS(TT_FAIL, tt__peft_load(dir, &q, &err));                                   /* no folder */
    TT_CHECK_OK(tt__mkdirs(dir, &err));
    TT_CHECK_OK(tt__write_file(tt_test_path("none/adapter_config.json"), pickle, strlen(pickle), &err));
    TT_CHECK_OK(tt__write_file(tt_test_path("none/adapter_model.bin"), "x", 1, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__peft_load(dir, &q, &err));
    TT_CHECK(strstr(err.what, "pickle") != NULL);
    tt_peft_prompt p = prompt();
    TT_CHECK_OK(tt__peft_save(dir, &p, bad, &err));
    TT_CHECK_FAILS(TT_BADFILE, tt__peft_load(dir, &q, &err));                                /* D1: a hash is 64 hex digits */
    TT_CHECK(strstr(err.what, "hash") != NULL);
}

static tt_status load(void *arg, tt_err *err) {
    tt_peft_prompt q;
    tt_status st = tt__peft_load(arg, &q, err);
    if (st == TT_OK) tt__peft_free(&q);
    return st;
}
static tt_status save_new(const char *dir, tt_err *err) {
    tt_peft_prompt p = prompt();
    return tt__peft_save(dir, &p, "{}", err);
}

TT_CASE(every_failing_call_is_survived) {
    static const tt__fault_kind reading[] = {TT_FAULT_ALLOC, TT_FAULT_OPEN, TT_FAULT_READ, TT_FAULT_MMAP};
    static const tt__fault_kind writing[] = {TT_FAULT_OPEN, TT_FAULT_WRITE, TT_FAULT_FSYNC, TT_FAULT_CLOSE};
    const char *dir = tt_test_path("tab");
    tt_err err = {0};
    for (size_t i = 0; i < 4; i++)
        for (uint64_t k = 1; k < 6; k++) {
            tt__fault_set(writing[i], k, TT_FAULT_ONCE);
            tt_status st = save_new(dir, &err);
            tt__fault_set(writing[i], 0, TT_FAULT_OFF);
            TT_CHECK(st != TT_OK || tt__exists(dir));
            if (tt__exists(dir)) {                                             /* all or nothing; a failed sync comes after the rename */
                TT_CHECK_OK(load((void *)(uintptr_t)dir, &err));
                TT_CHECK_OK(tt__remove_tree(dir, &err));
            }
            TT_CHECK_EQ(tt_test_count_entries(tt_test_tmpdir()), 0);
        }
    TT_CHECK_OK(save_new(dir, &err));
    for (size_t i = 0; i < 4; i++) TT_CHECK(tt_test_fault_loop(reading[i], TT_FAULT_ONCE, load, (void *)(uintptr_t)dir) > 1);
}
