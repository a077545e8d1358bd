/* Block types: first byte the GGUF type id, then bytes taken as blocks to decode, and as f32 values (and importances) to encode.
 * Decoding never faults, and is finite when no half of the blocks is infinite or NaN; encoding is refused or decodes to finite values. */
#include "base/mem.h"
#include "base/util.h"
#include "formats/dtype.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)
enum { MOST = 1024 };

/* Any two neighbouring bytes might be a scale: when none can be a broken half, all weights have to be finite. */
static int may_be_broken(const uint8_t *b, size_t n) {
    for (size_t i = 0; i + 1 < n; i++)
        if ((tt__rd16(b + i) & 0x7c00) == 0x7c00) return 1;
    return 0;
}

static void decode(tt_dtype t, const uint8_t *b, size_t size) {
    const tt_dtype_info *info = tt__dtype(t);
    float x[MOST];
    size_t blocks = size / (size_t)info->bytes, most = MOST / (size_t)info->block;
    if (blocks > most) blocks = most;
    uint8_t *exact = tt__alloc(blocks * (size_t)info->bytes);
    memcpy(exact, b, blocks * (size_t)info->bytes);
    tt__dtype_decode(t, exact, x, (int64_t)blocks * info->block);
    if (info->quantized && !may_be_broken(exact, blocks * (size_t)info->bytes))
        for (size_t i = 0; i < blocks * (size_t)info->block; i++) MUST(isfinite(x[i]));
    tt__free(exact);
}

static void encode(tt_dtype t, const uint8_t *b, size_t size, int with_importance) {
    const tt_dtype_info *info = tt__dtype(t);
    float x[MOST], y[MOST], w[MOST];
    uint8_t out[MOST * 4];
    size_t n = size / sizeof(float);
    if (n > MOST) n = MOST;
    n -= n % (size_t)info->block;
    memcpy(x, b, n * sizeof(float));
    for (size_t i = 0; i < n; i++) w[i] = fabsf(x[n - 1 - i]);
    tt_err err = {0};
    tt_status st = tt__dtype_encode(t, x, out, (int64_t)n, with_importance ? w : NULL, &err);
    MUST(st == TT_OK || ((st == TT_BADFILE || st == TT_USAGE) && err.what[0]));
    if (st != TT_OK || t == TT_F32 || t == TT_BF16) return;
    tt__dtype_decode(t, out, y, (int64_t)n);
    for (size_t i = 0; i < n; i++) MUST(isfinite(y[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tt_dtype t;
    const char *name;
    if (size < 1) return 0;
    if (!tt__dtype_from_gguf(data[0], &t, &name)) {
        MUST(name && name[0]);
        return 0;
    }
    decode(t, data + 1, size - 1);
    encode(t, data + 1, size - 1, 0);
    encode(t, data + 1, size - 1, 1);
    return 0;
}
