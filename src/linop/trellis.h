/* Making a trellis operator (trellis.c has its layout). */
#ifndef TT_LINOP_TRELLIS_H
#define TT_LINOP_TRELLIS_H
#include "linop/linop.h"

typedef struct tt_trellis_form { int states, tile, group, turn; } tt_trellis_form;   /* group 0: a scale per row; turn 0: columns as they are */

/* rates [cols]; codes by columns and tiles; scales f16 [groups][rows up to 16]; gains f16 [cols]; signs [ceil(cols / 8)] where turned, else NULL. Copied. */
tt_status tt__linop_trellis(tt_ctx *ctx, const tt_trellis_form *f, const uint8_t *rates, const uint8_t *codes, const uint16_t *scales, const uint16_t *gains,
                            const uint8_t *signs, int64_t rows, int64_t cols, tt_linop **out, tt_err *err);
#endif
