/* Hugging Face folders; see hf.h. */
#include "formats/hf.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/mem.h"
#include <limits.h>
#include <stdlib.h>

tt_status tt__hf_json(const char *dir, const char *name, bool required, json_t **out, tt_err *err) {
    char *path = tt__path_join(dir, name), *text = NULL;
    size_t n = 0;
    tt_status st = TT_OK;
    *out = NULL;
    TT_FAIL_IF(!path, err, TT_RESOURCE, "out of memory|for a path");
    if (!tt__exists(path)) {
        if (required) st = tt__fail(err, TT_BADFILE, "missing file|%s|||a Hugging Face folder holds config.json, tokenizer.json and model.safetensors", path);
        goto done;
    }
    TT_TRY_GOTO(tt__read_file(path, TT_LIMIT_JSON_BYTES, &text, &n, err));
    TT_TRY_GOTO(tt__json_parse(text, n, path, out, err));
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        st = tt__fail(err, TT_BADFILE, "not a JSON object|%s", path);
    }
done:
    tt__free(text);
    tt__free(path);
    return st;
}

tt_status tt__hf_config(const char *dir, json_t **out, tt_err *err) {
    const char *type;
    TT_TRY(tt__hf_json(dir, "config.json", true, out, err));
    tt_status st = tt__json_str(*out, "model_type", true, &type, "config.json", err);
    if (st == TT_OK) return TT_OK;
    json_decref(*out);
    *out = NULL;
    return st;
}

static int collect(const char *text, size_t n, void *b) {
    tt__str_add(b, text, n);
    return ((tt__str *)b)->failed ? -1 : 0;
}

tt_status tt__hf_write_json(const char *dir, const char *name, const json_t *value, tt_err *err) {
    tt__str b = {0};
    char *path = tt__path_join(dir, name);
    tt_status st = TT_OK;
    bool ok = path && json_dump_callback(value, collect, &b, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) == 0;
    tt__str_puts(&b, "\n");
    if (!ok || b.failed) st = tt__fail(err, TT_RESOURCE, "out of memory|for %s", name);
    else st = tt__write_file(path, b.s, b.n, err);
    tt__str_free(&b);
    tt__free(path);
    return st;
}

/* ---- where a link leads ---- */

static bool is_inside(const char *dir, const char *path) {
    size_t n = strlen(dir);
    return strncmp(dir, path, n) == 0 && (path[n] == '/' || (n > 0 && dir[n - 1] == '/'));
}

/* dir = …/snapshots/REV → …/blobs */
static bool hub_blobs(const char *dir, char out[PATH_MAX]) {
    const char *rev = strrchr(dir, '/');
    static const char parent[] = "/snapshots";
    size_t n = rev ? (size_t)(rev - dir) : 0, m = sizeof parent - 1;
    if (n < m || strncmp(rev - m, parent, m) != 0 || n - m + sizeof "/blobs" > PATH_MAX) return false;
    memcpy(out, dir, n - m);
    memcpy(out + (n - m), "/blobs", sizeof "/blobs");
    return true;
}

tt_status tt__hf_path(const char *dir, const char *name, char **out, tt_err *err) {
    char real_dir[PATH_MAX], real[PATH_MAX], blobs[PATH_MAX];
    TT_TRY(tt__path_join_checked(dir, name, out, err));
    if (!realpath(dir, real_dir) || !realpath(*out, real)) return TT_OK;          /* opening it will say what is wrong */
    if (is_inside(real_dir, real) || (hub_blobs(real_dir, blobs) && is_inside(blobs, real))) return TT_OK;
    tt__free(*out);
    *out = NULL;
    return tt__fail(err, TT_BADFILE, "link leads out of the folder|%s/%s|%s|a file inside|", dir, name, real);
}
