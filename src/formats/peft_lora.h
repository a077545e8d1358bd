/* PEFT LoRA folders: adapter_config.json + adapter_model.safetensors (tuning.md A11), and trimtab.json beside them. */
#ifndef TT_FORMATS_PEFT_LORA_H
#define TT_FORMATS_PEFT_LORA_H
#include "trimtab/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One matrix: W + scale B A. Rows of B in Hugging Face's order. */
typedef struct tt_lora_part {
    char module[96];              /* "model.layers.0.self_attn.q_proj" */
    int64_t rank, rows, cols;
    float scale;                  /* alpha / rank, or as its own pattern says */
    float *A, *B;                 /* [rank, cols], [rows, rank] */
} tt_lora_part;

typedef struct tt_peft_lora {
    size_t n;
    tt_lora_part *parts;          /* by rising module name; owned, with A and B unless `lent` */
    bool lent;
    int64_t rank;                 /* of the configuration: what parts without a pattern have */
    double alpha;
    char *base_model, *base_sha256, *dense_sha256;   /* or NULL, owned */
} tt_peft_lora;

/* Is DIR a LoRA folder by its configuration? One that cannot be read is not: whoever opens it next says why. */
bool tt__peft_is_lora(const char *dir);
tt_status tt__peft_lora_load(const char *dir, tt_peft_lora *out, tt_err *err);
void tt__peft_lora_free(tt_peft_lora *l);
/* As tt__peft_save. All parts have the rank and scale of the configuration. */
tt_status tt__peft_lora_save(const char *dir, const tt_peft_lora *l, const char *trimtab_json, tt_err *err);
#endif
