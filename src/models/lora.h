/* LoRA on a net: which weights a folder's parts belong to, and the operators that carry them. */
#ifndef TT_MODELS_LORA_H
#define TT_MODELS_LORA_H
#include "formats/peft_lora.h"
#include "models/net.h"

/* By weight: the net's operator, lent, with the part's factors in f32 beside it; NULL where there is no part. Freed with tt__lora_free_ops. */
tt_status tt__lora_ops(tt_ctx *ctx, const tt_net *net, const tt_peft_lora *l, tt_linop ***out, tt_err *err);
void tt__lora_free_ops(const tt_net *net, tt_linop **ops);
/* "model.layers.0.self_attn.q_proj" of a weight. */
void tt__lora_module(const tt_weight *w, char out[96]);
/* Row r of the weight as the net stores it is row tt__lora_hf_row of it in Hugging Face's order. */
int64_t tt__lora_hf_row(const tt_net *net, const tt_weight *w, int64_t r);
/* A net that shares everything with `net` but these operators, by weight (NULL: the net's); to be freed before both with tt__net_view_free. */
tt_status tt__net_view(const tt_net *net, tt_linop *const *ops, tt_net **out, tt_err *err);
void tt__net_view_free(tt_net *view);
#endif
