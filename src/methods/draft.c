/* Drafts: a matrix between dense and operator. Methods fill in a mask, codes, scales; `finish` finds the storage that holds exactly that.
 *
 *     what the draft is            auto                              gguf              own
 *     nothing changed              F16                               F16               F16
 *     mask only                    sparseq(bits=16)                  F16               sparseq(bits=16)
 *     codes, also with minima      Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 where    the same, or      group(bits, group), with minima
 *                                  they hold them, else group        TT_TARGET         grid=min; 5 bits: TT_TARGET
 *     mask and codes               slide2(group) where it fits       the same types,   as auto
 *                                  (4 bits), else sparseq            zero as a code
 *
 * Codes with minima do not go with a mask: zero need not be a level. A standard block of 32 repeats the scale of its (larger) group; so a group
 * is a multiple of 32 and the row too.
 */
#include "base/util.h"
#include "methods/method.h"
#include <math.h>

tt_status tt__draft_init(tt_draft *d, const char *name, int layer, int64_t rows, int64_t cols, tt_err *err) {
    *d = (tt_draft){.name = name, .layer = layer, .rows = rows, .cols = cols};
    return tt__new(&d->W, (size_t)(rows * cols), sizeof *d->W, "a dense matrix", err);
}

void tt__draft_free(tt_draft *d) {
    tt__linop_free(d->op);
    tt__free(d->W);
    tt__free(d->keep);
    tt__free(d->codes);
    tt__free(d->scales);
    tt__free(d->halfgrid);
    tt__free(d->mins);
    tt__free(d->latent);
    *d = (tt_draft){0};
}

tt_status tt__draft_quantize(tt_draft *d, int bits, int group, bool with_mins, tt_err *err) {
    TT_FAIL_IF(d->bits || d->op, err, TT_USAGE, "matrix is quantized already|%s|||leave one of the quantizing methods out of the recipe", d->name);
    size_t groups = (size_t)((d->cols + group - 1) / group * d->rows);
    TT_TRY(tt__new(&d->codes, (size_t)(d->rows * d->cols), 1, "codes", err));
    TT_TRY(tt__new(&d->scales, groups, sizeof *d->scales, "scales", err));
    if (with_mins) TT_TRY(tt__new(&d->mins, groups, sizeof *d->mins, "minima", err));
    else TT_TRY(tt__new(&d->halfgrid, groups, 1, "kinds of grid", err));
    d->bits = bits;
    d->group = group;
    return TT_OK;
}

tt_status tt__draft_prune(tt_draft *d, tt_err *err) {
    TT_FAIL_IF(d->keep, err, TT_USAGE, "matrix is pruned already|%s|||leave one of the pruning methods out of the recipe", d->name);
    TT_FAIL_IF(d->bits || d->op, err, TT_USAGE, "matrix is quantized already|%s|||prune before rounding", d->name);
    return tt__new(&d->keep, (size_t)(d->rows * d->cols), 1, "a mask", err);
}

tt_status tt__draft_train(tt_draft *d, tt_err *err) {
    TT_TRY(tt__new(&d->latent, (size_t)(d->rows * d->cols), sizeof *d->latent, "latent weights", err));
    memcpy(d->latent, d->W, (size_t)(d->rows * d->cols) * sizeof *d->W);
    return TT_OK;
}

void tt__draft_settle(tt_draft *d) {
    int64_t groups = tt__draft_groups(d);
    float half = d->bits ? (float)(1 << (d->bits - 1)) : 0;
    for (int64_t i = 0; d->codes && i < d->rows * d->cols; i++) {
        int64_t g = i / d->cols * groups + i % d->cols / d->group;
        float off = d->mins ? 0 : d->halfgrid && d->halfgrid[g] ? half - 0.5f : half, inv = d->scales[g] != 0 ? 1.0f / d->scales[g] : 0;
        float q = rintf((d->latent[i] - (d->mins ? d->mins[g] : 0)) * inv + off);
        q = q < 0 ? 0 : q > 2 * half - 1 ? 2 * half - 1 : q;
        if (q != (float)d->codes[i]) d->latent[i] = d->W[i];
    }
}

void tt__draft_apply_mask(tt_draft *d) {
    for (int64_t i = 0; i < d->rows * d->cols; i++)
        if (!d->keep[i]) d->W[i] = 0;
}

/* ------------------------------------------------------------ standard types ---- */

static bool all_zero(const uint8_t *p, int64_t n) {
    for (int64_t i = 0; p && i < n; i++)
        if (p[i]) return false;
    return true;
}

/* The block type whose grid is the draft's: w = d (q - 2^(b-1)) or w = d q + m. */
static bool standard_type(const tt_draft *d, tt_dtype *type) {
    if (d->cols % 32 || d->group % 32 || !all_zero(d->halfgrid, d->rows * tt__draft_groups(d))) return false;
    switch (d->bits) {
    case 4: *type = d->mins ? TT_Q4_1 : TT_Q4_0; return true;
    case 5: *type = d->mins ? TT_Q5_1 : TT_Q5_0; return true;
    case 8: *type = TT_Q8_0; return !d->mins;
    default: return false;
    }
}

static void put16(uint8_t *p, float f) {
    uint16_t h = tt__f32_to_f16(f);
    memcpy(p, &h, 2);
}

/* One block of 32 codes (weights.md A8): scale | min | fifth bits | nibbles j and j + 16 in byte j; Q8_0: scale | signed bytes. */
static void put_block(tt_dtype type, const uint8_t *q, float scale, float min, uint8_t *p) {
    put16(p, scale);
    p += 2;
    if (type == TT_Q8_0) {
        for (int i = 0; i < 32; i++) p[i] = (uint8_t)(q[i] - 128);
        return;
    }
    if (type == TT_Q4_1 || type == TT_Q5_1) put16(p, min), p += 2;
    if (type == TT_Q5_0 || type == TT_Q5_1) {
        uint32_t high = 0;
        for (int i = 0; i < 32; i++) high |= (uint32_t)(q[i] >> 4 & 1) << i;
        memcpy(p, &high, 4);
        p += 4;
    }
    for (int i = 0; i < 16; i++) p[i] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

static tt_status check_scales(const float *s, int64_t n, tt_err *err) {
    for (int64_t i = 0; s && i < n; i++)
        TT_FAIL_IF(!(fabsf(s[i]) < 65520.0f), err, TT_FAIL, "scale does not fit a 16-bit float||%g|at most 65504", (double)s[i]);
    return TT_OK;
}

static tt_status finish_standard(tt_ctx *ctx, const tt_draft *d, tt_dtype type, tt_linop **out, tt_err *err) {
    const tt_dtype_info *t = tt__dtype(type);
    int64_t blocks = d->cols / 32, groups = tt__draft_groups(d), bytes = d->rows * blocks * t->bytes;
    uint8_t *data = NULL, zero = (uint8_t)(1 << (d->bits - 1));
    TT_TRY(check_scales(d->scales, d->rows * groups, err));
    TT_TRY(check_scales(d->mins, d->rows * groups, err));
    TT_TRY(tt__new(&data, (size_t)bytes, 1, "packed codes", err));
    for (int64_t r = 0; r < d->rows; r++)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t at = r * d->cols + 32 * b, g = r * groups + 32 * b / d->group;
            uint8_t q[32];
            for (int i = 0; i < 32; i++) q[i] = d->keep && !d->keep[at + i] ? zero : d->codes[at + i];
            put_block(type, q, d->scales[g], d->mins ? d->mins[g] : 0, data + (r * blocks + b) * t->bytes);
        }
    tt_status st = tt__linop_from_bytes(ctx, type, data, d->rows, d->cols, out, err);
    if (st != TT_OK) tt__free(data);
    else (*out)->owned = data;
    return st;
}

/* ------------------------------------------------------------ finish ---- */

static tt_status finish_plain(tt_ctx *ctx, const tt_draft *d, bool gguf, tt_linop **out, tt_err *err) {
    if (d->keep && !gguf) return tt__linop_sparseq(ctx, 16, 0, d->keep, NULL, NULL, NULL, d->W, d->rows, d->cols, out, err);
    for (int64_t i = 0; i < d->rows * d->cols; i++)
        TT_FAIL_IF(fabsf(d->W[i]) >= 65520.0f, err, TT_FAIL, "weight does not fit a 16-bit float|%s|%g|at most 65504", d->name, (double)d->W[i]);
    return tt__linop_encode(ctx, TT_F16, d->W, d->rows, d->cols, out, err);
}

tt_status tt__draft_finish(tt_ctx *ctx, tt_draft *d, const char *format, tt_linop **out, tt_err *err) {
    bool gguf = !strcmp(format, "gguf"), own = !strcmp(format, "own");
    tt_dtype type;
    *out = NULL;
    if (d->op) {
        *out = d->op;
        d->op = NULL;
        return TT_OK;
    }
    if (!d->bits) return finish_plain(ctx, d, gguf, out, err);
    bool standard = standard_type(d, &type) && !(d->keep && d->mins);
    if (standard && (gguf || !(own || d->keep))) return finish_standard(ctx, d, type, out, err);
    TT_FAIL_IF(gguf || (d->mins && d->keep) || d->bits == 5, err, TT_TARGET, "no storage for these codes|%s|%d bits in groups of %d, %s, format=%s|%s", d->name, d->bits, d->group,
               d->mins ? "asymmetric" : "symmetric", format, (d->mins && d->keep) || d->bits == 5 ? "a standard type: rows and groups of whole blocks of 32, not sparse" :
               "4, 5 or 8 bits on a grid with zero, rows and groups of whole blocks of 32");
    if (d->keep && d->bits == 4 && d->group >= 64 && tt__linop_slide2_fits(d->keep, d->rows, d->cols))
        return tt__linop_slide2(ctx, d->group, d->keep, d->codes, d->scales, d->halfgrid, d->rows, d->cols, out, err);
    if (d->keep) return tt__linop_sparseq(ctx, d->bits, d->group, d->keep, d->codes, d->scales, d->halfgrid, NULL, d->rows, d->cols, out, err);
    return tt__linop_group(ctx, d->bits, d->group, d->codes, d->scales, d->halfgrid, d->mins, d->rows, d->cols, out, err);
}
