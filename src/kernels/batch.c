/* Where the parts of a batch of rounded activations lie; batch.h draws it. */
#include "kernels/batch.h"
#include "kernels/panel.h"

enum { WIDEST = 16, PER_TOKEN_AND_UNIT = TT_PANEL_UNIT + 8 * 4 + 4 * 2, ALIGN = 64, PARTS = 5 };

static size_t aligned(size_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

size_t tt__batch_bytes(int64_t T, int64_t n) {
    const size_t padded = (size_t)T + WIDEST, units = (size_t)(n + TT_PANEL_UNIT - 1) / TT_PANEL_UNIT;
    return padded * units * PER_TOKEN_AND_UNIT + (PARTS + 1) * ALIGN;
}

void tt__batch_init(tt_batch *b, int tokens, int per, int64_t T, int64_t n, void *ws) {
    const int64_t units = (n + TT_PANEL_UNIT - 1) / TT_PANEL_UNIT, tiles = (T + tokens - 1) / tokens;
    const size_t cells = (size_t)(tiles * tokens * units);
    uint8_t *p = (uint8_t *)(((uintptr_t)ws + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
    *b = (tt_batch){.T = T, .n = n, .units = units, .tiles = tiles, .tokens = tokens, .per = per, .q = (int8_t *)p};
    p += aligned(cells * TT_PANEL_UNIT);
    b->d = (float *)(void *)p;
    p += aligned(2 * cells * sizeof(float));
    b->less = (int32_t *)(void *)p;
    p += aligned(3 * cells * sizeof(int32_t));
    b->mass = (float *)(void *)p;
    p += aligned(3 * cells * sizeof(float));
    b->quarters = (int16_t *)(void *)p;
}
