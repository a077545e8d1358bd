/* Element types: sizes, names, and quantizing a row of f32 into each (decoding is a kernel: kernels.inc, decode_*). */
#ifndef TT_FORMATS_DTYPE_H
#define TT_FORMATS_DTYPE_H
#include "trimtab/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef enum tt_dtype {
#define TT_DTYPE(name, id, block, bytes, label) TT_##name,
#include "formats/dtypes.inc"
#undef TT_DTYPE
    TT_DTYPE_COUNT
} tt_dtype;

typedef struct tt_dtype_info { const char *label; int gguf_id; int64_t block; int64_t bytes; bool quantized; int file_type; } tt_dtype_info;
const tt_dtype_info *tt__dtype(tt_dtype t);
/* By GGUF id: known → true. Otherwise false, and *name is the foreign type's name ("IQ2_XXS", "unknown type 77") for the error. */
bool tt__dtype_from_gguf(uint32_t id, tt_dtype *out, const char **name);
bool tt__dtype_from_name(const char *name, tt_dtype *out);        /* case-insensitive: "q4_0", "Q4_K_M" is not a dtype */
/* Bytes of n elements; false unless n is a whole number of blocks (or on overflow). */
bool tt__dtype_bytes(tt_dtype t, uint64_t n, uint64_t *out);

/* Plain scalar decoders and encoders: the definitions (kernels/ref uses the same formulas and is tested against these).
 * n is a multiple of the block. Encoders follow ggml's reference rounding (weights.md A8) so that files equal llama-quantize's
 * for the simple types. imatrix: importance per column [n], or NULL. */
void tt__dtype_decode(tt_dtype t, const void *src, float *dst, int64_t n);
tt_status tt__dtype_encode(tt_dtype t, const float *src, void *dst, int64_t n, const float *imatrix, tt_err *err);
#endif
