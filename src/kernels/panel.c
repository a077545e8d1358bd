/* Packing and unpacking of one unit of a panel; panel.h draws the layouts. Quad k of row r is columns 4 k … 4 k + 3; its byte in any
 * vector is 4 r + q. The run loops have unpackers of their own; these define the layout and serve load time. */
#include "kernels/panel.h"
#include <string.h>

enum { ROWS = TT_PANEL_ROWS, COLS = TT_PANEL_UNIT, VECTOR = 64 };

static void put(uint8_t *unit, int vector, int byte, unsigned bits) { unit[VECTOR * vector + byte] = (uint8_t)(unit[VECTOR * vector + byte] | bits); }

/* Bits 4, 2 and 8: 8 / bits quads share a vector, the first lowest. */
static void pack_plain(int bits, const uint8_t *codes, uint8_t *unit) {
    const int share = 8 / bits;
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) put(unit, c / 4 / share, 4 * r + c % 4, (unsigned)codes[COLS * r + c] << c / 4 % share * bits);
}

static void unpack_plain(int bits, const uint8_t *unit, uint8_t *codes) {
    const int share = 8 / bits;
    const unsigned mask = (1u << bits) - 1;
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++)
            codes[COLS * r + c] = (uint8_t)((unsigned)unit[VECTOR * (c / 4 / share) + 4 * r + c % 4] >> c / 4 % share * bits & mask);
}

/* Bits 3, quad 0 … 7 of the half whose vectors start at a. */
static void put3(uint8_t *unit, int a, int quad, int byte, unsigned code) {
    if (quad < 6) {
        put(unit, a + quad % 3, byte, code << quad / 3 * 3);
        return;
    }
    put(unit, a + quad - 6, byte, code >> 1 << 6);
    put(unit, a + 2, byte, (code & 1) << quad);
}

static unsigned get3(const uint8_t *unit, int a, int quad, int byte) {
    if (quad < 6) return (unsigned)unit[VECTOR * (a + quad % 3) + byte] >> quad / 3 * 3 & 7;
    return (unsigned)unit[VECTOR * (a + quad - 6) + byte] >> 6 << 1 | ((unsigned)unit[VECTOR * (a + 2) + byte] >> quad & 1);
}

void tt__panel_pack(int bits, const uint8_t *codes, uint8_t *unit) {
    memset(unit, 0, (size_t)tt__panel_unit_bytes(bits));
    if (bits != 3) {
        pack_plain(bits, codes, unit);
        return;
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) put3(unit, c / 32 * 3, c / 4 % 8, 4 * r + c % 4, codes[COLS * r + c]);
}

void tt__panel_unpack(int bits, const uint8_t *unit, uint8_t *codes) {
    if (bits != 3) {
        unpack_plain(bits, unit, codes);
        return;
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) codes[COLS * r + c] = (uint8_t)get3(unit, c / 32 * 3, c / 4 % 8, 4 * r + c % 4);
}
