/* Names of repositories, the choice of files, addresses, places. */
#include "base/file.h"
#include "harness/tt_test.h"
#include "hub/hub.h"
#include <stdlib.h>

static void accept(const char *text, const char *repo, const char *type, const char *revision) {
    tt__ref r;
    tt_test_note("%s", text);
    TT_CHECK(tt__ref_parse(text, &r));
    TT_CHECK_STR(r.repo, repo);
    TT_CHECK_STR(r.type, type);
    TT_CHECK_STR(r.revision, revision);
}

TT_CASE(references) {
    accept("org/name", "org/name", "", "");
    accept("org/name:Q4_K_M", "org/name", "Q4_K_M", "");
    accept("org/name@v1.0", "org/name", "", "v1.0");
    accept("org/name:Q8_0@refs/pr/3", "org/name", "Q8_0", "refs/pr/3");
    accept("a/b.c_d-e", "a/b.c_d-e", "", "");
}

TT_CASE(references_refused) {
    static const char *const bad[] = {"", "name", "/name", "org/", "org/name/more", "../name", "org/..", "org/.hidden", "-org/name", "org/na me", "org/name:", "org/name@",
                                      "org/name@../x", "org/name@/x", "org/name@x/", "org/name@a//b", "org/name@.x", "org/a..b", "org/name:a b", "org/name:a/b", "org/n\nm",
                                      "org/n\xc3\xa4me", "org/name:Q4@", "org/name@a b"};
    tt__ref r;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_test_note("%s", bad[i]);
        TT_CHECK(!tt__ref_parse(bad[i], &r));
    }
    char text[300];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    text[3] = '/';
    TT_CHECK(!tt__ref_parse(text, &r));
}

/* The files as one text with blanks; the wanted ones as another. */
static void choose(const char *files, const char *type, const char *include, const char *want, const char *main) {
    const char *list[32];
    bool wanted[32];
    char copy[1000], got[1000] = "";
    size_t n = 0;
    long at;
    tt_test_note("%s of %s", type, files);
    snprintf(copy, sizeof copy, "%s", files);
    for (char *p = copy; *p;) {
        list[n++] = p;
        p += strcspn(p, " ");
        if (*p) *p++ = 0;
    }
    bool found = tt__choose_files(list, n, type, include, wanted, &at);
    TT_CHECK_EQ(found, want != NULL);
    if (!found) return;
    for (size_t i = 0; i < n; i++)
        if (wanted[i]) snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", *got ? " " : "", list[i]);
    TT_CHECK_STR(got, want);
    TT_CHECK_STR(at < 0 ? "" : list[at], main);
}

TT_CASE(choice_of_gguf) {
    choose("README.md m-Q2_K.gguf m-Q4_K_M.gguf m-Q8_0.gguf", "", NULL, "m-Q4_K_M.gguf", "m-Q4_K_M.gguf");
    choose("m-Q2_K.gguf m-Q8_0.gguf", "", NULL, "m-Q2_K.gguf", "m-Q2_K.gguf");
    choose("m-Q4_K_M.gguf m-q8_0.gguf", "Q8_0", NULL, "m-q8_0.gguf", "m-q8_0.gguf");
    choose("m-Q4_K_M.gguf m-Q4_K.gguf", "q4_k", NULL, "m-Q4_K.gguf", "m-Q4_K.gguf");
    choose("m-Q4_K_M.gguf", "Q4_K", NULL, NULL, "");
    choose("mmproj-Q4_K_M.gguf m.gguf m.imatrix.gguf", "", NULL, "m.gguf", "m.gguf");
    choose("mmproj.gguf README.md", "", NULL, NULL, "");
    choose("x/m-Q4_K_M-00001-of-00002.gguf x/m-Q4_K_M-00002-of-00002.gguf y.gguf", "", NULL,
           "x/m-Q4_K_M-00001-of-00002.gguf x/m-Q4_K_M-00002-of-00002.gguf", "x/m-Q4_K_M-00001-of-00002.gguf");
}

TT_CASE(choice_of_a_folder) {
    choose("README.md config.json model.safetensors tokenizer.json pytorch_model.bin", "", NULL, "config.json model.safetensors tokenizer.json", "");
    choose("config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json extra.safetensors", "", NULL,
           "config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json", "");
    choose("config.json onnx/model.safetensors", "", NULL, NULL, "");
    choose("model.safetensors", "", NULL, NULL, "");
    choose("config.json model.safetensors", "Q8_0", NULL, NULL, "");
}

TT_CASE(choice_by_glob) {
    choose("a.txt b.gguf c.gguf", "", "*.gguf", "b.gguf c.gguf", "");
    choose("a.txt b.gguf c.gguf", "", "b*", "b.gguf", "b.gguf");
    choose("a.txt b.gguf", "", "*.bin", NULL, "");
}

TT_CASE(shards) {
    size_t stem;
    int of;
    TT_CHECK_EQ(tt__gguf_shard("m-00002-of-00005.gguf", &stem, &of), 2);
    TT_CHECK_EQ(stem, (size_t)1);
    TT_CHECK_EQ(of, 5);
    TT_CHECK_EQ(tt__gguf_shard("m-00006-of-00005.gguf", &stem, &of), 0);
    TT_CHECK_EQ(tt__gguf_shard("m-00000-of-00005.gguf", &stem, &of), 0);
    TT_CHECK_EQ(tt__gguf_shard("-00001-of-00005.gguf", &stem, &of), 0);
    TT_CHECK_EQ(tt__gguf_shard("x.gguf", &stem, &of), 0);
    TT_CHECK_EQ(tt__gguf_shard("", &stem, &of), 0);
    TT_CHECK_EQ(tt__gguf_shard("m-0000x-of-00005.gguf", &stem, &of), 0);
}

TT_CASE(hex) {
    TT_CHECK(tt__is_hex("0123456789abcdef", 16));
    TT_CHECK(!tt__is_hex("0123456789abcdeF", 16));
    TT_CHECK(!tt__is_hex("0123456789abcdef0", 16));
    TT_CHECK(!tt__is_hex("0123456789abcde", 16));
    TT_CHECK(!tt__is_hex("../0123456789ab", 16));
}

TT_CASE(escaped_urls) {
    char *s = tt__url_escape("a b/\xc3\xa4?#%.gguf");
    TT_CHECK_STR(s, "a%20b/%C3%A4%3F%23%25.gguf");
    tt__free(s);
}

static void check_place(tt_status (*place)(char **, tt_err *), const char *want) {
    char *path = NULL;
    tt_err err = {0};
    TT_CHECK_OK(place(&path, &err));
    TT_CHECK_STR(path, want);
    tt__free(path);
}

TT_CASE(order_of_places) {
    static const char *const names[] = {"TRIMTAB_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"};
    static const char *const hub[] = {"/a0", "/a1", "/a2", "/a3/hub", "/a4/huggingface/hub", "/a5/.cache/huggingface/hub"};
    char *old[6], value[8];
    tt_err err = {0};
    for (int i = 0; i < 6; i++) {
        old[i] = getenv(names[i]) ? strdup(getenv(names[i])) : NULL;
        snprintf(value, sizeof value, "/a%d", i);
        setenv(names[i], value, 1);
    }
    check_place(tt__catalogue_folder, "/a0/models");
    for (int i = 0; i < 6; i++) {
        check_place(tt__hub_folder, hub[i]);
        unsetenv(names[i]);
        if (i == 0) check_place(tt__catalogue_folder, "/a4/trimtab/models");
        if (i == 4) check_place(tt__catalogue_folder, "/a5/.cache/trimtab/models");
    }
    char *path = NULL;
    TT_CHECK_FAILS(TT_FAIL, tt__hub_folder(&path, &err));
    for (int i = 0; i < 6; i++) {
        if (old[i]) setenv(names[i], old[i], 1);
        free(old[i]);
    }
}

TT_CASE(catalogue) {
    TT_CHECK(tt__catalogue_find("smollm2-135m-instruct") != NULL);
    TT_CHECK(tt__catalogue_find("nothing") == NULL);
    TT_CHECK(tt__catalogue_get(tt__catalogue_count()) == NULL);
    for (size_t i = 0; i < tt__catalogue_count(); i++) {
        const tt__catalogue *e = tt__catalogue_get(i);
        TT_CHECK(tt__catalogue_find(e->name) == e);
        TT_CHECK(tt__catalogue_bytes(e) > 0);
        TT_CHECK(*e->licence && *e->package && *e->version);
    }
}
