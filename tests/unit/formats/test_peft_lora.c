/* PEFT LoRA folders: what is written reads back, patterns and kinds of scaling, what changes the sum is refused by name. */
#include "base/file.h"
#include "base/util.h"
#include "formats/peft_lora.h"
#include "harness/tt_test.h"

static float A[2 * 3] = {1, 2, 3, -4, 0.5f, 6}, B[4 * 2] = {1, 0, 0, 1, 2, -1, 7, 8};

static void save(const char *dir) {
    tt_err err = {0};
    tt_lora_part parts[2] = {{.module = "model.layers.0.self_attn.q_proj", .rank = 2, .rows = 4, .cols = 3, .scale = 4, .A = A, .B = B},
                             {.module = "model.layers.1.mlp.down_proj", .rank = 2, .rows = 4, .cols = 3, .scale = 4, .A = A, .B = B}};
    tt_peft_lora l = {.n = 2, .parts = parts, .lent = true, .rank = 2, .alpha = 8, .base_model = (char *)(uintptr_t)"org/base"};
    char json[120];
    snprintf(json, sizeof json, "{\"dense_sha256\":\"%064d\"}", 5);
    TT_CHECK_OK(tt__peft_lora_save(dir, &l, json, &err));
}

TT_CASE(written_folders_read_back) {
    const char *dir = tt_test_path("tab");
    tt_err err = {0};
    tt_peft_lora l;
    for (int again = 0; again < 2; again++) save(dir);
    TT_CHECK(tt__peft_is_lora(dir));
    TT_CHECK_OK(tt__peft_lora_load(dir, &l, &err));
    TT_CHECK(l.n == 2 && l.rank == 2 && l.alpha == 8 && !strcmp(l.base_model, "org/base") && l.dense_sha256 && !l.base_sha256);
    TT_CHECK_STR(l.parts[0].module, "model.layers.0.self_attn.q_proj");
    for (int i = 0; i < 2; i++) TT_CHECK(l.parts[i].scale == 4 && !memcmp(l.parts[i].A, A, sizeof A) && !memcmp(l.parts[i].B, B, sizeof B));
    tt__peft_lora_free(&l);
}

static void write_with(const char *config) {
    char text[600];
    tt_err err = {0};
    const char *dir = tt_test_path("tab");
    save(dir);
    snprintf(text, sizeof text, "{\"peft_type\":\"LORA\",%s}", config);
    TT_CHECK_OK(tt__write_file(tt_test_path("tab/adapter_config.json"), text, strlen(text), &err));
}

TT_CASE(configurations) {
    static const struct { const char *config; double scale0, scale1; } good[] = {
        {"\"r\":2,\"lora_alpha\":3", 1.5, 1.5},
        {"\"r\":2", 4, 4},
        {"\"r\":2,\"lora_alpha\":3,\"use_rslora\":true", 2.1213203, 2.1213203},
        {"\"r\":2,\"lora_alpha\":2,\"alpha_pattern\":{\"down_proj\":6}", 1, 3},
        {"\"r\":16,\"lora_alpha\":2,\"rank_pattern\":{\"q_proj\":2,\"layers.1.mlp.down_proj\":2}", 1, 1},
        {"\"r\":2,\"lora_alpha\":2,\"use_dora\":false,\"modules_to_save\":[],\"bias\":\"none\",\"strange\":[1]", 1, 1},
    };
    static const char *const bad[] = {
        "\"r\":4", "\"r\":0", "\"r\":\"2\"", "\"r\":2,\"lora_alpha\":\"x\"", "\"r\":2,\"use_dora\":true", "\"r\":2,\"bias\":\"all\"", "\"r\":2,\"modules_to_save\":[\"lm_head\"]",
        "\"r\":2,\"task_type\":\"SEQ_CLS\"", "\"r\":2,\"alpha_pattern\":{\".*proj\":2}", "\"r\":2,\"alpha_pattern\":7", "\"r\":2,\"rank_pattern\":{\"q_proj\":3}",
        "\"r\":2,\"layer_replication\":[[0,1]]", "\"r\":2,\"lora_bias\":true",
    };
    const char *dir = tt_test_path("tab");
    tt_err err = {0};
    tt_peft_lora l;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        tt_test_note("%s", good[i].config);
        write_with(good[i].config);
        TT_CHECK_OK(tt__peft_lora_load(dir, &l, &err));
        TT_CHECK_NEAR(l.parts[0].scale, good[i].scale0, 1e-6);
        TT_CHECK_NEAR(l.parts[1].scale, good[i].scale1, 1e-6);
        tt__peft_lora_free(&l);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_test_note("%s", bad[i]);
        write_with(bad[i]);
        const uint64_t before = tt__mem_now();
        TT_CHECK_FAILS(TT_BADFILE, tt__peft_lora_load(dir, &l, &err));
        TT_CHECK_EQ(tt__mem_now(), before);
    }
}

TT_CASE(other_folders) {
    tt_err err = {0};
    tt_peft_lora l;
    const char *prompt = "{\"peft_type\":\"PROMPT_TUNING\"}";
    TT_CHECK(!tt__peft_is_lora(tt_test_path("nothing")));
    TT_CHECK_OK(tt__write_file(tt_test_path("adapter_config.json"), prompt, strlen(prompt), &err));
    TT_CHECK(!tt__peft_is_lora(tt_test_tmpdir()));
    TT_CHECK_FAILS(TT_BADFILE, tt__peft_lora_load(tt_test_tmpdir(), &l, &err));
    TT_CHECK_FAILS(TT_FAIL, tt__peft_lora_save(tt_test_tmpdir(), &(tt_peft_lora){0}, NULL, &err));
}
