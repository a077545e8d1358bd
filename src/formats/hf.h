/* Hugging Face folders: the JSON files beside the weights, and paths from untrusted names. */
#ifndef TT_FORMATS_HF_H
#define TT_FORMATS_HF_H
#include "base/util.h"

/* DIR/NAME parsed (limit JSON_BYTES), an object; missing file: TT_BADFILE when required, else *out = NULL. Caller json_decref's. */
tt_status tt__hf_json(const char *dir, const char *name, bool required, json_t **out, tt_err *err);
/* config.json, with the members that every reader relies on being of the right kind. */
tt_status tt__hf_config(const char *dir, json_t **out, tt_err *err);
/* Writes value as DIR/NAME, keys sorted, indent 2, a newline at the end. */
tt_status tt__hf_write_json(const char *dir, const char *name, const json_t *value, tt_err *err);
/* A file named by another file of the folder (weight_map): the name is checked, and a link may not lead out of the folder. The hub
 * cache keeps snapshots/REV/NAME as links into blobs/ beside snapshots/, which is followed (D2). Caller frees. */
tt_status tt__hf_path(const char *dir, const char *name, char **out, tt_err *err);
#endif
