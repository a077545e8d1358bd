/* What the operators of our own share: levels and scales of a quantized group, parameters and segments of a file. In group.c. */
#ifndef TT_LINOP_CODES_H
#define TT_LINOP_CODES_H
#include "linop/linop.h"

/* The 2^bits values of a group's codes from its 16-bit scale (the sign bit chooses the grid). */
void tt__levels(int bits, uint16_t scale, float *level);
tt_status tt__scales_pack(const float *scales, const uint8_t *halfgrid, int64_t n, uint16_t *out, tt_err *err);
tt_status tt__scales_check(const uint16_t *scales, uint64_t n, tt_err *err);                    /* outside bytes: all finite */
bool tt__group_is_valid(int group);
/* What a group operator holds; false: it is another one. */
typedef struct tt__group_view { int bits, group; int64_t groups, row_bytes; const uint8_t *codes; const uint16_t *scales, *mins; } tt__group_view;
bool tt__group_view_of(const tt_linop *op, tt__group_view *v);
tt_status tt__params_parse(const char *params, int *bits, int *group, tt_err *err);             /* "bits=4,group=64", "bits=16" (group 0) */
const tt_segment *tt__segment_find(const tt_segment *seg, int n, const char *name);
/* A segment of exactly count x size bytes, aligned to size. */
tt_status tt__segment_get(const tt_segment *seg, int n, const char *name, uint64_t count, uint64_t size, const void **out, tt_err *err);
/* A master brought into the range of f16, and rounded. In train.c. */
tt_status tt__round_master(float *x, uint16_t *out, tt_err *err);
#endif
