/* What the reader and the writer of GGUF share: a key-value pair as it lies in the file. */
#ifndef TT_FORMATS_GGUF_FILE_H
#define TT_FORMATS_GGUF_FILE_H
#include "formats/gguf.h"

/* Invariants: value points into the file; arrays have count elements there; strings count bytes. offsets: of a string array, the
 * place of each element's length relative to value. raw: all bytes of the value after the type word, as a rewrite copies them. */
typedef struct tt_gguf_kv {
    const char *key;
    tt_gguf_type type, element;      /* element == type for scalars */
    uint64_t count;
    const uint8_t *value, *raw;
    uint64_t raw_bytes;
    uint32_t *offsets;
} tt_gguf_kv;

const tt_gguf_kv *tt__gguf_kv_at(const tt_gguf *g, size_t i);
uint64_t tt__gguf_type_bytes(tt_gguf_type t);     /* 0 for strings and arrays */
const char *tt__gguf_type_name(tt_gguf_type t);   /* "u32" */
#endif
