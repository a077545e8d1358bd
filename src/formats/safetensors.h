/* safetensors: one file, or the shards of a folder behind one list of names (weights.md A11, RELIABILITY F11, F12). */
#ifndef TT_FORMATS_SAFETENSORS_H
#define TT_FORMATS_SAFETENSORS_H
#include "base/file.h"
#include "formats/dtype.h"

typedef enum tt_st_dtype { TT_ST_BOOL, TT_ST_U8, TT_ST_I8, TT_ST_I16, TT_ST_U16, TT_ST_F16, TT_ST_BF16, TT_ST_I32, TT_ST_U32, TT_ST_F32,
                           TT_ST_F64, TT_ST_I64, TT_ST_U64, TT_ST_F8_E4M3, TT_ST_F8_E5M2, TT_ST_DTYPES } tt_st_dtype;
typedef struct tt_st_tensor { const char *name; tt_st_dtype type; int n_dims; uint64_t shape[8]; uint64_t bytes; const uint8_t *data; } tt_st_tensor;
typedef struct tt_st tt_st;
/* A .safetensors file, or a folder with model.safetensors or model.safetensors.index.json. */
tt_status tt__st_open(const char *path, tt_st **out, tt_err *err);
tt_status tt__st_open_memory(const void *data, size_t size, const char *name, tt_st **out, tt_err *err);
void tt__st_close(tt_st *st);
size_t tt__st_n(const tt_st *st);
const tt_st_tensor *tt__st_tensor(const tt_st *st, size_t i);
const tt_st_tensor *tt__st_find(const tt_st *st, const char *name);
size_t tt__st_n_metadata(const tt_st *st);
const char *tt__st_metadata(const tt_st *st, size_t i, const char **value);
const char *tt__st_dtype_name(tt_st_dtype t);
/* n elements of F32/F16/BF16/F64/I* to f32. TT_BADFILE for types with no number meaning here (F8: decoded too). */
tt_status tt__st_to_f32(const tt_st_tensor *t, uint64_t first, uint64_t n, float *out, tt_err *err);

typedef struct tt_st_entry { const char *name; tt_st_dtype type; int n_dims; uint64_t shape[8];
                             tt_status (*produce)(void *user, tt_status (*emit)(void *, const void *, size_t, tt_err *), void *sink, tt_err *err);
                             void *user; const void *data; } tt_st_entry;
/* Orders tensors by falling element size, then name; pads the header to 8; write beside and rename. metadata: key, value, …, NULL. */
tt_status tt__st_save(const char *path, const tt_st_entry *entries, size_t n, const char *const *metadata, tt_err *err);
/* Shards at max_shard_bytes with an index.json; 0: one file. metadata goes into each; NULL: format pt, which transformers asks for. */
tt_status tt__st_save_folder(const char *dir, const tt_st_entry *entries, size_t n, uint64_t max_shard_bytes, const char *const *metadata, tt_err *err);
#endif
