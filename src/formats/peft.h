/* PEFT prompt-tuning and prefix-tuning folders: adapter_config.json + adapter_model.safetensors (tuning.md A11), and trimtab.json beside them.
 *
 *     prompt    a row is an input vector                                width = embedding length
 *     prefix    a row is a finished cache entry of every layer          width = layers x 2 (keys, values) x kv_width, heads side by side; keys are
 *               rotated for positions 0 … tokens-1 already, in Hugging Face's order of rotary pairs (i, i + head_dim/2)
 */
#ifndef TT_FORMATS_PEFT_H
#define TT_FORMATS_PEFT_H
#include "trimtab/status.h"
#include <stdbool.h>
#include <stdint.h>
typedef struct tt_peft_prompt {
    bool prefix;
    int64_t tokens, width;
    int64_t kv_width;             /* of a prefix: token_dim, all key-value heads of a layer; else 0 */
    float *embeddings;            /* [tokens, width], owned */
    char *base_model;             /* base_model_name_or_path or NULL, owned */
    char *base_sha256;            /* from trimtab.json or NULL, owned */
    char *dense_sha256;           /* the same: of the dense model that the one it learned through was compressed from */
    int64_t n_layers, n_heads;    /* as recorded, 0 when absent; of a prefix: layers, key-value heads */
} tt_peft_prompt;
tt_status tt__peft_load(const char *dir, tt_peft_prompt *out, tt_err *err);
void tt__peft_free(tt_peft_prompt *p);
/* Both files and trimtab.json (its text given, or NULL) appear together: written to DIR.tmp… and renamed when DIR is new,
 * file by file, weights first, when it exists. */
tt_status tt__peft_save(const char *dir, const tt_peft_prompt *p, const char *trimtab_json, tt_err *err);
/* What does that for any kind: `write` puts the files into the folder it is given, the configuration last. */
typedef tt_status (*tt_peft_write_fn)(const char *dir, const void *user, tt_err *err);
tt_status tt__peft_save_folder(const char *dir, tt_peft_write_fn write, const void *user, tt_err *err);
#endif
