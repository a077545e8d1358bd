/* Names of repositories, and the choice of files. */
#include "hub/hub.h"
#include <ctype.h>
#include <fnmatch.h>
#include <strings.h>

static bool word_char(char c) { return isalnum((unsigned char)c) || c == '.' || c == '_' || c == '-'; }

/* A part of a repository's name: the hub allows letters, digits, '.', '_', '-', and no leading dot or "..". */
static size_t part_length(const char *s) {
    size_t n = 0;
    if (s[0] == '.' || s[0] == '-') return 0;
    while (word_char(s[n])) {
        if (s[n] == '.' && s[n + 1] == '.') return 0;
        n++;
    }
    return n <= 96 ? n : 0;
}

/* Branches may hold '/'; never a way out of refs/. */
static bool revision_ok(const char *s) {
    if (!*s || *s == '/' || *s == '.' || strstr(s, "..") || strstr(s, "//")) return false;
    for (; *s; s++)
        if (!word_char(*s) && *s != '/') return false;
    return s[-1] != '/';
}

bool tt__ref_parse(const char *text, tt__ref *out) {
    *out = (tt__ref){0};
    size_t org = part_length(text);
    if (org == 0 || text[org] != '/') return false;
    size_t name = part_length(text + org + 1), n = org + 1 + name;
    if (name == 0) return false;
    memcpy(out->repo, text, n);
    const char *p = text + n;
    if (*p == ':') {
        size_t len = part_length(++p);
        if (len == 0 || len >= sizeof out->type) return false;
        memcpy(out->type, p, len);
        p += len;
    }
    if (*p == '@') {
        if (strlen(++p) >= sizeof out->revision || !revision_ok(p)) return false;
        memcpy(out->revision, p, strlen(p));
        return true;
    }
    return *p == 0;
}

/* ------------------------------------------------------------------ choosing ---- */

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), t = strlen(tail);
    return n >= t && strcasecmp(s + n - t, tail) == 0;
}

static bool in_root(const char *s) { return strchr(s, '/') == NULL; }

static const char *base_name(const char *s) {
    const char *slash = strrchr(s, '/');
    return slash ? slash + 1 : s;
}

/* Projectors and draft heads lie beside a model but are none. */
static bool is_model_gguf(const char *s) {
    const char *b = base_name(s);
    return ends_with(b, ".gguf") && strncasecmp(b, "mmproj", 6) != 0 && strncasecmp(b, "mtp-", 4) != 0 && !strstr(b, "imatrix");
}

/* `type` stands in the name as a word of its own: "Q4_K" is not in "Q4_K_M". */
static bool has_type(const char *s, const char *type) {
    size_t n = strlen(type);
    for (const char *b = base_name(s), *p = b; *p; p++) {
        if (strncasecmp(p, type, n) != 0) continue;
        bool left = p == b || (!isalnum((unsigned char)p[-1]) && p[-1] != '_'), right = !isalnum((unsigned char)p[n]) && p[n] != '_';
        if (left && right) return true;
    }
    return false;
}

static int five_digits(const char *s) {
    int v = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9') return -1;
        v = 10 * v + (s[i] - '0');
    }
    return v;
}

int tt__gguf_shard(const char *name, size_t *stem, int *of) {
    size_t n = strlen(name), tail = strlen("-00001-of-00005.gguf");
    const char *t = name + n - tail;
    if (n <= tail || t[0] != '-' || strncmp(t + 6, "-of-", 4) != 0 || strcmp(t + 15, ".gguf") != 0) return 0;
    int k = five_digits(t + 1), count = five_digits(t + 10);
    if (k < 1 || count < k) return 0;
    *stem = n - tail;
    *of = count;
    return k;
}

static long choose_gguf(const char *const *files, size_t n, const char *type) {
    long first = -1;
    for (size_t i = 0; i < n; i++) {
        size_t stem;
        int of;
        if (!is_model_gguf(files[i]) || tt__gguf_shard(files[i], &stem, &of) > 1) continue;
        if (has_type(files[i], *type ? type : "Q4_K_M")) return (long)i;
        if (first < 0 || strcmp(files[i], files[first]) < 0) first = (long)i;
    }
    return *type ? -1 : first;
}

static void mark_shards(const char *const *files, size_t n, long main, bool *wanted) {
    size_t stem, other;
    int of;
    wanted[main] = true;
    if (tt__gguf_shard(files[main], &stem, &of) == 0) return;
    for (size_t i = 0; i < n; i++)
        if (tt__gguf_shard(files[i], &other, &of) && other == stem && strncmp(files[i], files[main], stem) == 0) wanted[i] = true;
}

/* The parts of a Hugging Face folder that a model needs. */
static bool mark_folder(const char *const *files, size_t n, bool *wanted) {
    static const char *const small[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "chat_template.jinja", "vocab.json", "vocab.txt", "merges.txt", "model.safetensors.index.json"};
    bool config = false, weights = false, index = false;
    for (size_t i = 0; i < n; i++) index |= strcmp(files[i], "model.safetensors.index.json") == 0;
    for (size_t i = 0; i < n; i++) {
        if (!in_root(files[i])) continue;
        for (size_t k = 0; k < sizeof small / sizeof *small; k++) wanted[i] |= strcmp(files[i], small[k]) == 0;
        config |= strcmp(files[i], "config.json") == 0;
        bool part = index ? strncmp(files[i], "model-", 6) == 0 && ends_with(files[i], ".safetensors") : strcmp(files[i], "model.safetensors") == 0;
        wanted[i] |= part;
        weights |= part;
    }
    return config && weights;
}

static long only_gguf(const char *const *files, size_t n, const bool *wanted) {
    long found = -1;
    for (size_t i = 0; i < n; i++) {
        if (!wanted[i] || !is_model_gguf(files[i])) continue;
        if (found >= 0) return -1;
        found = (long)i;
    }
    return found;
}

bool tt__choose_files(const char *const *files, size_t n, const char *type, const char *include, bool *wanted, long *main) {
    *main = -1;
    for (size_t i = 0; i < n; i++) wanted[i] = include && fnmatch(include, files[i], 0) == 0;
    if (include) {
        bool any = false;
        for (size_t i = 0; i < n; i++) any |= wanted[i];
        *main = only_gguf(files, n, wanted);
        return any;
    }
    *main = choose_gguf(files, n, type);
    if (*main >= 0) return mark_shards(files, n, *main, wanted), true;
    return !*type && mark_folder(files, n, wanted);
}
