/* Packing and unpacking of one unit of a panel; panel.h draws the layouts. A quad (four neighbouring columns of a row, four bytes) moves as
 * one word: quad k of row r is word r of its vector, and a field never crosses a byte, so shifts of whole words will do. Whole models are
 * packed while they are opened; the run loops have unpackers of their own.
 */
#include "kernels/panel.h"
#include <string.h>

enum { ROWS = TT_PANEL_ROWS, QUADS = TT_PANEL_UNIT / 4 };
typedef uint32_t word;
static const word low_bits[9] = {0, 0x01010101u, 0x03030303u, 0x07070707u, 0x0f0f0f0fu, 0, 0, 0, 0xffffffffu};
enum { NIBBLES = 512 };                              /* bytes of a unit of 4 bits */

/* Bits 4, 2, 1 and 8: 8 / bits quads share a vector, the first lowest. */
static inline void pack_plain(int bits, const uint8_t *codes, uint8_t *unit) {
    const int share = 8 / bits;
    word in[ROWS][QUADS], out[QUADS][ROWS];
    memcpy(in, codes, sizeof in);
    for (int j = 0; j < QUADS / share; j++)
        for (int r = 0; r < ROWS; r++) {
            word w = in[r][share * j];
            for (int i = 1; i < share; i++) w |= in[r][share * j + i] << bits * i;
            out[j][r] = w;
        }
    memcpy(unit, out, (size_t)tt__panel_unit_bytes(bits));
}

static inline void unpack_plain(int bits, const uint8_t *unit, uint8_t *codes) {
    const int share = 8 / bits;
    word in[QUADS][ROWS], out[ROWS][QUADS];
    memcpy(in, unit, (size_t)tt__panel_unit_bytes(bits));
    for (int k = 0; k < QUADS; k++)
        for (int r = 0; r < ROWS; r++) out[r][k] = in[k / share][r] >> k % share * bits & low_bits[bits];
    memcpy(codes, out, sizeof out);
}

/* Bits 3: eight quads of a row in three words. */
static void pack_three(const uint8_t *codes, uint8_t *unit) {
    word in[ROWS][QUADS], out[2][3][ROWS];
    memcpy(in, codes, sizeof in);
    for (int h = 0; h < 2; h++)
        for (int r = 0; r < ROWS; r++) {
            const word *q = &in[r][8 * h], one = low_bits[1];
            out[h][0][r] = q[0] | q[3] << 3 | (q[6] >> 1 & low_bits[2]) << 6;
            out[h][1][r] = q[1] | q[4] << 3 | (q[7] >> 1 & low_bits[2]) << 6;
            out[h][2][r] = q[2] | q[5] << 3 | (q[6] & one) << 6 | (q[7] & one) << 7;
        }
    memcpy(unit, out, sizeof out);
}

static void unpack_three(const uint8_t *unit, uint8_t *codes) {
    word in[2][3][ROWS], out[ROWS][QUADS];
    memcpy(in, unit, sizeof in);
    for (int h = 0; h < 2; h++)
        for (int r = 0; r < ROWS; r++) {
            const word a = in[h][0][r], b = in[h][1][r], c = in[h][2][r], q[8] = {
                a, b, c, a >> 3, b >> 3, c >> 3, (a >> 6 & low_bits[2]) << 1 | (c >> 6 & low_bits[1]), (b >> 6 & low_bits[2]) << 1 | (c >> 7 & low_bits[1])};
            for (int k = 0; k < 8; k++) out[r][8 * h + k] = q[k] & low_bits[3];
        }
    memcpy(codes, out, sizeof out);
}

/* Bits 5 and 6: halves of the low nibbles of a unit and of the rest take turns. */
static void pack_split(int bits, const uint8_t *codes, uint8_t *unit) {
    uint8_t low[ROWS * TT_PANEL_UNIT], high[ROWS * TT_PANEL_UNIT], nibbles[NIBBLES], rest[NIBBLES / 2];
    const int more = bits == 5 ? 64 : 128;                    /* bytes of the rest, of a half */
    for (int i = 0; i < ROWS * TT_PANEL_UNIT; i++) {
        low[i] = codes[i] & 15;
        high[i] = (uint8_t)(codes[i] >> 4);
    }
    pack_plain(4, low, nibbles);
    if (bits == 5) pack_plain(1, high, rest);
    else pack_plain(2, high, rest);
    for (int h = 0; h < 2; h++, unit += NIBBLES / 2 + more) {
        memcpy(unit, nibbles + NIBBLES / 2 * h, NIBBLES / 2);
        memcpy(unit + NIBBLES / 2, rest + more * h, (size_t)more);
    }
}

static void unpack_split(int bits, const uint8_t *unit, uint8_t *codes) {
    uint8_t high[ROWS * TT_PANEL_UNIT], nibbles[NIBBLES], rest[NIBBLES / 2];
    const int more = bits == 5 ? 64 : 128;
    for (int h = 0; h < 2; h++, unit += NIBBLES / 2 + more) {
        memcpy(nibbles + NIBBLES / 2 * h, unit, NIBBLES / 2);
        memcpy(rest + more * h, unit + NIBBLES / 2, (size_t)more);
    }
    unpack_plain(4, nibbles, codes);
    if (bits == 5) unpack_plain(1, rest, high);
    else unpack_plain(2, rest, high);
    for (int i = 0; i < ROWS * TT_PANEL_UNIT; i++) codes[i] = (uint8_t)(codes[i] | high[i] << 4);
}

void tt__panel_pack(int bits, const uint8_t *codes, uint8_t *unit) {
    if (bits == 2) pack_plain(2, codes, unit);
    else if (bits == 3) pack_three(codes, unit);
    else if (bits == 4) pack_plain(4, codes, unit);
    else if (bits == 5 || bits == 6) pack_split(bits, codes, unit);
    else pack_plain(8, codes, unit);
}

void tt__panel_unpack(int bits, const uint8_t *unit, uint8_t *codes) {
    if (bits == 2) unpack_plain(2, unit, codes);
    else if (bits == 3) unpack_three(unit, codes);
    else if (bits == 4) unpack_plain(4, unit, codes);
    else if (bits == 5 || bits == 6) unpack_split(bits, unit, codes);
    else unpack_plain(8, unit, codes);
}

void tt__panel_codes(const tt_panel *w, int64_t p, int64_t u, uint8_t *codes) {
    tt__panel_unpack(w->bits, w->codes + (p * w->units + u) * tt__panel_unit_bytes(w->bits), codes);
    for (int i = 0; i < ROWS * TT_PANEL_UNIT && w->grid == TT_GRID_TABLE; i++) codes[i] = tt__panel_table[codes[i]];
}
