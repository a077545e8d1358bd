/* Inside of tt_convert: the list of tensors to be written, shared by convert.c and the encoders of convert_bert.c. */
#ifndef TT_ENGINE_CONVERT_H
#define TT_ENGINE_CONVERT_H
#include "base/limits.h"
#include "engine/mix.h"
#include "models/net.h"
#include "text/tokenizer.h"

typedef enum tt__row_order { TT__ROWS_AS_STORED, TT__ROWS_TO_PAIRS, TT__ROWS_TO_HALVES } tt__row_order;

/* Exactly one of op, vec, gguf, st is set. shape is row-major; rows x cols flattens it with the last dimension as the row.
 * raw: the bytes of st as they are. type: what is written otherwise. */
typedef struct tt__item {
    tt_ctx *ctx;
    char *name;                          /* in the target, owned */
    int n_dims;
    uint64_t shape[8];
    int64_t rows, cols, heads;           /* heads: of order */
    tt__row_order order;
    tt_dtype type;
    const tt_linop *op;
    const float *vec;
    const tt_gguf_tensor *gguf;
    const tt_st_tensor *st;
    bool raw;
    size_t at, of;                       /* for the progress */
} tt__item;
typedef struct tt__items { tt__item *v; size_t n, cap; } tt__items;

tt__item *tt__items_add(tt__items *list, const char *name, tt_err *err);      /* zeroed; NULL: out of memory */
tt_status tt__items_add_st(tt__items *list, const char *name, const tt_st_tensor *t, tt_dtype type, tt_err *err);
tt_dtype tt__convert_type(const tt_mix *mix, tt_dtype stored, int n_dims, uint64_t cols);
tt_status tt__convert_set_identity(const char *path, const char *arch, const tt__items *list, tt_gguf_writer *w, tt_err *err);
tt_status tt__convert_set_file_type(const tt__items *list, tt_gguf_writer *w, tt_err *err);
tt_status tt__convert_save_gguf(tt_ctx *ctx, tt__items *list, tt_gguf_writer *w, const char *path, tt_err *err);

/* A BERT encoder (all-MiniLM-L6-v2) from its folder to GGUF under the names that llama.cpp reads. */
tt_status tt__convert_bert(tt_ctx *ctx, const char *dir, const json_t *config, const tt_st *st, const tt_mix *mix, tt__items *items, const char *output, tt_err *err);
#endif
