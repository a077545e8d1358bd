/* GGUF v2/v3: the only door that makes tensor descriptors from GGUF bytes (RELIABILITY F1 … F12b). Reading: read bounded → validate →
 * build. Nothing here allocates by a declared count before the bytes for it were seen. Unknown keys survive a rewrite.
 *
 *   "GGUF" | u32 version | u64 n_tensors | u64 n_kv | kv … | tensor infos … | pad | data (offsets from here, aligned)
 */
#ifndef TT_FORMATS_GGUF_H
#define TT_FORMATS_GGUF_H
#include "base/file.h"
#include "formats/dtype.h"

typedef enum tt_gguf_type { TT_GGUF_U8, TT_GGUF_I8, TT_GGUF_U16, TT_GGUF_I16, TT_GGUF_U32, TT_GGUF_I32, TT_GGUF_F32, TT_GGUF_BOOL,
                            TT_GGUF_STRING, TT_GGUF_ARRAY, TT_GGUF_U64, TT_GGUF_I64, TT_GGUF_F64, TT_GGUF_TYPES } tt_gguf_type;

typedef struct tt_gguf_tensor {
    const char *name;             /* owned by the file object */
    tt_dtype type;
    int n_dims;
    uint64_t ne[4];               /* GGUF order: ne[0] is contiguous (row length); missing ones are 1 */
    uint64_t offset, bytes;       /* from the start of data; checked against the file */
    const uint8_t *data;          /* lent, in the map; may be unaligned beyond 32 */
} tt_gguf_tensor;

typedef struct tt_gguf tt_gguf;
/* path: also "x-00001-of-0000N.gguf" (the further shards are opened too). */
tt_status tt__gguf_open(const char *path, tt_gguf **out, tt_err *err);
/* The same over bytes in memory (fuzzing, tests); `data` must outlive the object. */
tt_status tt__gguf_open_memory(const void *data, size_t size, const char *name, tt_gguf **out, tt_err *err);
void tt__gguf_close(tt_gguf *g);
const char *tt__gguf_path(const tt_gguf *g);
/* Which file this is: hash of device and inode of the (first) file; of these, size, time and metadata of all its files. False: from memory. */
bool tt__gguf_identity(const tt_gguf *g, uint64_t *file, uint64_t *contents);
/* Where mapped bytes lie in the file of a model that is one file; false: from memory, not of this file, or of a split model. */
bool tt__gguf_offset(const tt_gguf *g, const void *data, uint64_t *offset);
/* Bytes of a mapped file that need not stay resident; others (from memory, not of this file) are left alone. */
void tt__gguf_release(const tt_gguf *g, const void *data, uint64_t bytes);

size_t tt__gguf_n_tensors(const tt_gguf *g);
const tt_gguf_tensor *tt__gguf_tensor(const tt_gguf *g, size_t i);
const tt_gguf_tensor *tt__gguf_find(const tt_gguf *g, const char *name);   /* hashed; NULL when missing */

/* ---- metadata; accessors take the wanted type (F5): any integer width where an integer is asked, range-checked ---- */
size_t tt__gguf_n_kv(const tt_gguf *g);
const char *tt__gguf_kv_key(const tt_gguf *g, size_t i, tt_gguf_type *type, tt_gguf_type *element, uint64_t *count);
bool tt__gguf_has(const tt_gguf *g, const char *key);
/* Missing: *out unchanged and TT_OK unless required. Wrong type or out of [min, max]: TT_BADFILE naming the key. */
tt_status tt__gguf_i64(const tt_gguf *g, const char *key, bool required, int64_t min, int64_t max, int64_t *out, tt_err *err);
tt_status tt__gguf_f64(const tt_gguf *g, const char *key, bool required, double *out, tt_err *err);        /* finite */
tt_status tt__gguf_bool(const tt_gguf *g, const char *key, bool required, bool *out, tt_err *err);
/* String: bytes lent (not NUL-terminated). */
tt_status tt__gguf_str(const tt_gguf *g, const char *key, bool required, const char **out, size_t *n, tt_err *err);
/* Arrays are copied, caller frees with tt__free; *n elements. Integer arrays widen to i32 (range-checked). */
tt_status tt__gguf_i32s(const tt_gguf *g, const char *key, bool required, int32_t **out, size_t *n, tt_err *err);
tt_status tt__gguf_f32s(const tt_gguf *g, const char *key, bool required, float **out, size_t *n, tt_err *err);
/* String arrays: element i as lent bytes. The iterator is cheap (offsets are indexed at open). */
tt_status tt__gguf_strs(const tt_gguf *g, const char *key, bool required, size_t *n, tt_err *err);
tt_status tt__gguf_strs_at(const tt_gguf *g, const char *key, size_t i, const char **out, size_t *bytes, tt_err *err);
/* One line of text for people. Caller frees. */
tt_status tt__gguf_kv_text(const tt_gguf *g, size_t i, size_t max_items, char **out, tt_err *err);

/* ---- writing: collect, then stream; tensors back to back in listing order, aligned to 32 bytes ---- */
typedef struct tt_gguf_writer tt_gguf_writer;
tt_status tt__gguf_writer_create(tt_gguf_writer **out, tt_err *err);
void tt__gguf_writer_free(tt_gguf_writer *w);
/* Another alignment of tensors, a power of two from 8; before the first tensor. */
tt_status tt__gguf_set_alignment(tt_gguf_writer *w, uint32_t align, tt_err *err);
/* Copies every kv of g except those whose key begins with one of the NULL-terminated `skip` prefixes ("split.", "general.alignment" always skipped). */
tt_status tt__gguf_writer_copy_kv(tt_gguf_writer *w, const tt_gguf *g, const char *const *skip, tt_err *err);
/* Setting a key again replaces it in place. */
tt_status tt__gguf_set_str(tt_gguf_writer *w, const char *key, const char *value, tt_err *err);
tt_status tt__gguf_set_u32(tt_gguf_writer *w, const char *key, uint32_t value, tt_err *err);
tt_status tt__gguf_set_u64(tt_gguf_writer *w, const char *key, uint64_t value, tt_err *err);
tt_status tt__gguf_set_f32(tt_gguf_writer *w, const char *key, float value, tt_err *err);
tt_status tt__gguf_set_bool(tt_gguf_writer *w, const char *key, bool value, tt_err *err);
tt_status tt__gguf_set_strs(tt_gguf_writer *w, const char *key, const char *const *values, const size_t *lengths /* or NULL */, size_t n, tt_err *err);
tt_status tt__gguf_set_i32s(tt_gguf_writer *w, const char *key, const int32_t *values, size_t n, tt_err *err);
tt_status tt__gguf_set_f32s(tt_gguf_writer *w, const char *key, const float *values, size_t n, tt_err *err);
/* Declares a tensor; its bytes are asked for at write time through `produce` (called once, in order; it calls emit any number of
 * times, in all exactly the tensor's bytes), or taken from `data` when produce is NULL. */
typedef tt_status (*tt_gguf_emit)(void *sink, const void *data, size_t bytes, tt_err *err);
typedef tt_status (*tt_gguf_produce)(void *user, tt_gguf_emit emit, void *sink, tt_err *err);
tt_status tt__gguf_add_tensor(tt_gguf_writer *w, const char *name, tt_dtype type, int n_dims, const uint64_t *ne, const void *data,
                              tt_gguf_produce produce, void *user, tt_err *err);
uint64_t tt__gguf_writer_bytes(const tt_gguf_writer *w);                   /* size of the file to come */
tt_status tt__gguf_writer_save(tt_gguf_writer *w, const char *path, tt_err *err);   /* beside and rename */
#endif
