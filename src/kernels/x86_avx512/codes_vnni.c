/* Our own code formats by vpdpbusd and the byte permutations of VBMI and VBMI2: dense groups and sparse blocks.
 *
 * Dense groups. 128 columns of a row are 16 * bits bytes. Where each code lies inside them is a table of 128 byte indices and bit
 * shifts, made once per call form and kept by the thread: vpermb brings the bytes, vpmultishiftqb shifts each by its own amount, an AND
 * leaves the code. So every group size, and the short group at the end of a row, takes the same few instructions.
 *
 * Sparse blocks. The kept codes of 64 columns are unpacked to bytes the same way and vpexpandb puts them to their columns, over a register
 * of codes that mean 0. Up to 4 bits a code is taken as u = 2 q + h (h: the half grid), and u - 2^bits is twice the weight's integer, so
 * pruned columns hold 2^bits. Eight bits do not fit that way: there Σ over kept of x is a second product, with the mask as ones.
 */
#include "kernels/codes.h"
#include "kernels/x86_avx512/vnni.h"

/* ---- dense groups ---- */

typedef struct layout {
    int bits, group, cols;               /* 128, or what is left at the end of a row */
    int64_t bytes;
    uint8_t index[128], shift[128];      /* vpermb; vpmultishiftqb control: 8 * (i % 8) + shift */
    uint8_t plane[128];                  /* bits 3: byte of the high bit; its bit is plane_bit */
    uint8_t plane_bit[128];
    uint32_t block_scale[4];             /* which of the chunk's scales belongs to 32-column block i */
    int scales;
} layout;

static void make_layout(layout *l, int bits, int group, int cols) {
    memset(l, 0, sizeof *l);
    l->bits = bits;
    l->group = group;
    l->cols = cols;
    const int plane = bits == 3 ? 2 : bits;
    for (int c = 0; c < cols; c++) {
        const int first = c / group * group, n = cols - first < group ? cols - first : group, g = (n + 7) / 8 * 8;
        const int base = first * bits / 8, stride = g * plane / 8, i = c - first;
        l->index[c] = (uint8_t)(base + i % stride);
        l->shift[c] = (uint8_t)(c % 8 * 8 + i / stride * plane);
        l->plane[c] = (uint8_t)(base + stride + i / 8);
        l->plane_bit[c] = (uint8_t)(1 << i % 8);
        l->block_scale[c / 32] = (uint32_t)(c / group);
    }
    l->scales = (cols + group - 1) / group;
    l->bytes = tt__codes_row_bytes(bits, group, cols);
}

/* Kept per thread: the form of the whole chunks and of the last one. */
static const layout *layout_for(int slot, int bits, int group, int cols) {
    static _Thread_local layout kept[2];
    layout *l = &kept[slot];
    if (l->bits != bits || l->group != group || l->cols != cols) make_layout(l, bits, group, cols);
    return l;
}

typedef struct group_row { const uint8_t *codes; const uint16_t *scales, *mins; } group_row;      /* mins or NULL */

/* Codes 64 j … of the chunk, a: its bytes. */
INLINE __m512i unpack64(const layout *l, int bits, int j, __m512i a) {
    const __m512i v = _mm512_permutexvar_epi8(_mm512_loadu_si512(l->index + 64 * j), a);
    const __m512i shifted = _mm512_multishift_epi64_epi8(_mm512_loadu_si512(l->shift + 64 * j), v);
    const __m512i low = _mm512_and_si512(shifted, _mm512_set1_epi8(bits == 4 ? 15 : 3));
    if (bits != 3) return low;
    const __m512i high = _mm512_permutexvar_epi8(_mm512_loadu_si512(l->plane + 64 * j), a);
    return _mm512_mask_add_epi8(low, _mm512_test_epi8_mask(high, _mm512_loadu_si512(l->plane_bit + 64 * j)), low, _mm512_set1_epi8(4));
}

INLINE wide load_group(const layout *l, int bits, int full, const uint8_t *p, const uint16_t *scales, const uint16_t *mins) {
    const float middle = (float)(1 << (bits - 1));
    wide w;
    if (bits == 8) {
        w.c0 = load_bytes(p, full ? 64 : l->bytes);
        w.c1 = full ? load_bytes(p + 64, 64) : _mm512_maskz_loadu_epi8(first_bytes(l->bytes - 64), p + 64);
    } else {
        const __m512i a = load_bytes(p, full ? 16 * bits : l->bytes);
        w.c0 = unpack64(l, bits, 0, a);
        w.c1 = unpack64(l, bits, 1, a);
    }
    /* scales → |d| and d * offset of each 32-column block; with minima d and the minimum */
    const __mmask8 present = (__mmask8)((1 << l->scales) - 1);
    const __m128i h = _mm_maskz_loadu_epi16(present, scales);
    const __m128 d = _mm_cvtph_ps(mins ? h : _mm_and_si128(h, _mm_set1_epi16(0x7fff)));
    const __m128 half_grid = _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(h), 16));      /* its sign bit */
    const __m128 offset = _mm_blendv_ps(_mm_set1_ps(-middle), _mm_set1_ps(0.5f - middle), half_grid);
    const __m128i which = _mm_loadu_si128((const __m128i *)l->block_scale);
    const __m128 s = _mm_permutevar_ps(d, which);
    w.m = _mm_permutevar_ps(mins ? _mm_cvtph_ps(_mm_maskz_loadu_epi16(present, mins)) : _mm_mul_ps(d, offset), which);
    w.s0 = spread_pair(s, 0);
    w.s1 = spread_pair(s, 2);
    return w;
}

INLINE void group_step(const layout *l, int bits, int full, group_row w, int64_t code_stride, int64_t scale_stride, int R, const tokens *x, int T,
                       int64_t b, int n, vf acc[4][MANY]) {
    xwide xv[MANY];
    for (int t = 0; t < T; t++) xv[t] = load_xwide(x, t, b, n, 0, 1);
    for (int r = 0; r < R; r++) {
        const uint8_t *p = w.codes + r * code_stride;
        _mm_prefetch((const char *)(p + 4 * code_stride), _MM_HINT_T0);
        if (bits == 8) _mm_prefetch((const char *)(p + 4 * code_stride + 64), _MM_HINT_T0);
        const wide v = load_group(l, bits, full, p, w.scales + r * scale_stride, w.mins ? w.mins + r * scale_stride : NULL);
        for (int t = 0; t < T; t++) acc[r][t] = wide_dot(&v, &xv[t], 1, acc[r][t]);
    }
}

INLINE void group_rows(int bits, int group, group_row w, int64_t code_stride, int64_t scale_stride, int64_t cols, int R, const tokens *x, int T,
                       float *y, int64_t ldy) {
    const layout *l = layout_for(0, bits, group, 128);
    vf acc[4][MANY];
    int64_t c = 0;
    clear_sums(acc, R, T);
    for (; c + 128 <= cols; c += 128) {
        group_step(l, bits, 1, w, code_stride, scale_stride, R, x, T, c / 32, 4, acc);
        w.codes += 16 * bits;
        w.scales += l->scales;
        if (w.mins) w.mins += l->scales;
    }
    if (c < cols) {
        const layout *last = layout_for(1, bits, group, (int)(cols - c));
        group_step(last, bits, 0, w, code_stride, scale_stride, R, x, T, c / 32, (int)((cols - c + 31) / 32), acc);
    }
    store_sums(acc, R, T, y, ldy);
}

static void rowdot_group(const uint8_t *codes, int64_t code_stride, const uint16_t *scales, const uint16_t *mins, int64_t scale_stride, int bits, int group,
                         int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
#define BODY(b, R, T)                                                                                                                 \
    group_rows(b, group, (group_row){codes + r * code_stride, scales + r * scale_stride, mins ? mins + r * scale_stride : NULL},       \
               code_stride, scale_stride, cols, R, &xt, T, y + t0 * ldy + r, ldy)
#define BODY2(R, T) BODY(2, R, T)
#define BODY3(R, T) BODY(3, R, T)
#define BODY4(R, T) BODY(4, R, T)
#define BODY8(R, T) BODY(8, R, T)
    switch (bits) {
    case 2: FOR_TOKENS(BODY2) break;
    case 3: FOR_TOKENS(BODY3) break;
    case 4: FOR_TOKENS(BODY4) break;
    case 8: FOR_TOKENS(BODY8) break;
    }
#undef BODY
#undef BODY2
#undef BODY3
#undef BODY4
#undef BODY8
}

/* ---- sparse blocks ---- */

/* Eight codes of `bits` bits are `bits` bytes: those of codes 8 i … go to eight bytes i, then each code to its byte. */
#define STREAM_INDEX(bits) _mm512_add_epi8(_mm512_set1_epi64(0x0706050403020100ll), \
    _mm512_setr_epi64(0, (bits) * 0x0101010101010101ll, (bits) * 0x0202020202020202ll, (bits) * 0x0303030303030303ll, (bits) * 0x0404040404040404ll, \
                      (bits) * 0x0505050505050505ll, (bits) * 0x0606060606060606ll, (bits) * 0x0707070707070707ll))
#define STREAM_SHIFT(bits) _mm512_set1_epi64((long long)((bits) * 0x0706050403020100ull))

/* The n kept codes of a block as bytes; advances *p. */
INLINE __m512i unpack_stream(int bits, const uint8_t **p, int n) {
    const int bytes = (n * bits + 7) / 8;
    const __m512i v = _mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, (unsigned)bytes), *p);
    *p += bytes;
    if (bits == 8) return v;
    const __m512i codes = _mm512_multishift_epi64_epi8(STREAM_SHIFT(bits), _mm512_permutexvar_epi8(STREAM_INDEX(bits), v));
    return _mm512_and_si512(codes, _mm512_set1_epi8((char)((1 << bits) - 1)));
}

/* Scale and half-grid flags of 64 columns; with `pair` (groups of 32) the upper half of them has a scale of its own. */
typedef struct block_scale { vf d; __mmask64 half; __mmask16 half_lanes; } block_scale;

INLINE block_scale scale_at(const uint16_t *scales, int64_t scale_count, int group, int pair, int64_t c) {
    const int64_t first = pair ? c / 32 : c / group;
    const uint16_t a = scales[first];
    block_scale s = {.d = v_set1(_cvtsh_ss(a & 0x7fffu)), .half = 0 - (uint64_t)(a >> 15), .half_lanes = (__mmask16)(a >> 15 ? 0xffff : 0)};
    if (pair) {
        const uint16_t b = scales[first + 1 < scale_count ? first + 1 : first];
        s.d = _mm512_mask_blend_ps(0xff00, s.d, v_set1(_cvtsh_ss(b & 0x7fffu)));
        s.half = (s.half & 0x00000000ffffffffull) | (0 - (uint64_t)(b >> 15)) << 32;
        s.half_lanes = (__mmask16)((s.half_lanes & 0x00ff) | (b >> 15 ? 0xff00 : 0));
    }
    return s;
}

enum { AHEAD = 1536 };                  /* bytes: the four rows after these four, more or less */

typedef struct sparse_row { const uint64_t *mask; const uint8_t *codes; const uint16_t *scales; } sparse_row;
typedef struct xsparse { __m512i q, start; vf d; } xsparse;

INLINE xsparse load_xsparse(int bits, const tokens *x, int t, int64_t b, int n) {
    const __m128 d = _mm_maskz_loadu_ps((__mmask8)((1 << n) - 1), x->d + t * x->blocks + b);
    xsparse v;
    v.q = load_bytes(x->q + t * x->n_pad + 32 * b, 32 * n);
    v.d = spread_pair(d, 0);
    v.start = _mm512_setzero_si512();
    if (bits < 8)                                 /* -2^bits Σx */
        v.start = _mm512_sub_epi32(v.start, _mm512_slli_epi32(_mm512_dpbusd_epi32(v.start, _mm512_set1_epi8(1), v.q), (unsigned)bits));
    return v;
}

INLINE void sparse_step(int bits, int group, int pair, sparse_row w[4], int64_t scale_count, int R, const tokens *x, int T, int64_t b, int n,
                        vf acc[4][MANY]) {
    xsparse xv[MANY];
    for (int t = 0; t < T; t++) xv[t] = load_xsparse(bits, x, t, b, n);
    for (int r = 0; r < R; r++) {
        const uint64_t mask = w[r].mask[b / 2];
        _mm_prefetch((const char *)(w[r].codes + AHEAD), _MM_HINT_T0);
        if (b % 16 == 0) _mm_prefetch((const char *)(w[r].mask + b / 2) + AHEAD, _MM_HINT_T0);
        const __m512i codes = unpack_stream(bits, &w[r].codes, __builtin_popcountll(mask));
        const block_scale s = scale_at(w[r].scales, scale_count, group, pair, 32 * b);
        if (bits < 8) {
            const __m512i placed = _mm512_mask_expand_epi8(_mm512_set1_epi8((char)(1 << (bits - 1))), mask, codes);
            const __m512i twice = _mm512_add_epi8(placed, placed);
            const __m512i u = _mm512_mask_add_epi8(twice, s.half & mask, twice, _mm512_set1_epi8(1));
            const vf d = v_mul(s.d, v_set1(0.5f));
            for (int t = 0; t < T; t++)
                acc[r][t] = v_fma(v_mul(d, xv[t].d), _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(xv[t].start, u, xv[t].q)), acc[r][t]);
        } else {
            const __m512i u = _mm512_maskz_expand_epi8(mask, codes), kept = _mm512_maskz_set1_epi8(mask, 1), zero = _mm512_setzero_si512();
            for (int t = 0; t < T; t++) {
                /* Σ (2 q - 256 + h) x over the kept, in integers */
                const __m512i sum = _mm512_dpbusd_epi32(zero, kept, xv[t].q), s2 = _mm512_slli_epi32(_mm512_dpbusd_epi32(zero, u, xv[t].q), 1);
                const __m512i whole = _mm512_sub_epi32(s2, _mm512_slli_epi32(sum, 8));
                acc[r][t] = v_fma(v_mul(v_mul(s.d, v_set1(0.5f)), xv[t].d),
                                  _mm512_cvtepi32_ps(_mm512_mask_add_epi32(whole, s.half_lanes, whole, sum)), acc[r][t]);
            }
        }
    }
}

INLINE void sparse_rows(int bits, int group, int pair, const sparse_row *rows, int64_t cols, int64_t scale_count, int R, const tokens *x, int T,
                        float *y, int64_t ldy) {
    sparse_row w[4];
    vf acc[4][MANY];
    int64_t c = 0;
    for (int r = 0; r < R; r++) w[r] = rows[r];
    clear_sums(acc, R, T);
    for (; c + 64 <= cols; c += 64) sparse_step(bits, group, pair, w, scale_count, R, x, T, c / 32, 2, acc);
    if (c < cols) sparse_step(bits, group, pair, w, scale_count, R, x, T, c / 32, (int)((cols - c + 31) / 32), acc);
    store_sums(acc, R, T, y, ldy);
}

static void rowdot_sparseq(const uint64_t *mask, int64_t mask_stride, const uint8_t *codes, const uint64_t *start, const uint16_t *scales,
                           int64_t scale_stride, int bits, int group, int64_t rows, int64_t cols, const tt_q8 *x, float *y, int64_t ldy) {
    const int64_t scale_count = (cols + group - 1) / group;
    sparse_row four[4];
#define BODY(b, pair, R, T)                                                                                                           \
    do {                                                                                                                              \
        for (int i = 0; i < (R); i++)                                                                                                 \
            four[i] = (sparse_row){mask + (r + i) * mask_stride, codes + start[r + i], scales + (r + i) * scale_stride};              \
        sparse_rows(b, group, pair, four, cols, scale_count, R, &xt, T, y + t0 * ldy + r, ldy);                                             \
    } while (0)
#define BODY_2_0(R, T) BODY(2, 0, R, T)
#define BODY_3_0(R, T) BODY(3, 0, R, T)
#define BODY_4_0(R, T) BODY(4, 0, R, T)
#define BODY_8_0(R, T) BODY(8, 0, R, T)
#define BODY_2_1(R, T) BODY(2, 1, R, T)
#define BODY_3_1(R, T) BODY(3, 1, R, T)
#define BODY_4_1(R, T) BODY(4, 1, R, T)
#define BODY_8_1(R, T) BODY(8, 1, R, T)
    switch (2 * bits + (group == 32)) {
#define CASE(b, pair) \
    case 2 * (b) + (pair): FOR_TOKENS(BODY_##b##_##pair) break;
        CASE(2, 0) CASE(3, 0) CASE(4, 0) CASE(8, 0) CASE(2, 1) CASE(3, 1) CASE(4, 1) CASE(8, 1)
#undef CASE
    }
#undef BODY
}

/* ---- decoding for panels ---- */

/* 16 codes as f32 times d plus m, pruned ones exactly 0. */
INLINE void put_kept(float *dst, __m128i codes, __mmask16 keep, vf d, vf m, int64_t n) {
    const vf w = _mm512_maskz_fmadd_ps(keep, d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)), m);
    if (n >= 16) v_store(dst, w);
    else if (n > 0) v_store_n(dst, w, n);
}

INLINE void decode_sparse_blocks(int bits, const uint64_t *mask, const uint8_t *p, const uint16_t *scales, int64_t scale_count, int group, int64_t c0,
                                 int64_t c1, float *dst) {
    const float middle = (float)(1 << (bits - 1));
    for (int64_t c = c0; c < c1; c += 64, dst += 64) {
        const uint64_t k = mask[c / 64];
        const __m512i codes = _mm512_maskz_expand_epi8(k, unpack_stream(bits, &p, __builtin_popcountll(k)));
        const block_scale s = scale_at(scales, scale_count, group, group == 32, c);
        const vf m = v_mul(s.d, _mm512_mask_blend_ps(s.half_lanes, v_set1(-middle), v_set1(0.5f - middle)));
        const vf low_d = _mm512_shuffle_f32x4(s.d, s.d, 0x00), high_d = _mm512_shuffle_f32x4(s.d, s.d, 0xff);
        const vf low_m = _mm512_shuffle_f32x4(m, m, 0x00), high_m = _mm512_shuffle_f32x4(m, m, 0xff);
        put_kept(dst, _mm512_castsi512_si128(codes), (__mmask16)k, low_d, low_m, c1 - c);
        put_kept(dst + 16, _mm512_extracti32x4_epi32(codes, 1), (__mmask16)(k >> 16), low_d, low_m, c1 - c - 16);
        put_kept(dst + 32, _mm512_extracti32x4_epi32(codes, 2), (__mmask16)(k >> 32), high_d, high_m, c1 - c - 32);
        put_kept(dst + 48, _mm512_extracti32x4_epi32(codes, 3), (__mmask16)(k >> 48), high_d, high_m, c1 - c - 48);
    }
}

static void decode_sparseq(const uint64_t *mask, const uint8_t *codes, const uint16_t *scales, int bits, int group, int64_t cols,
                           int64_t c0, int64_t c1, float *dst) {
    const int64_t scale_count = (cols + group - 1) / group;
    for (int64_t b = 0; b < c0 / 64; b++) codes += tt__stream_bytes(bits, __builtin_popcountll(mask[b]));
    switch (bits) {
    case 2: decode_sparse_blocks(2, mask, codes, scales, scale_count, group, c0, c1, dst); break;
    case 3: decode_sparse_blocks(3, mask, codes, scales, scale_count, group, c0, c1, dst); break;
    case 4: decode_sparse_blocks(4, mask, codes, scales, scale_count, group, c0, c1, dst); break;
    case 8: decode_sparse_blocks(8, mask, codes, scales, scale_count, group, c0, c1, dst); break;
    }
}

void tt__kernels_avx512_codes_vnni(tt_kernels *k) {
    k->rowdot_group = rowdot_group;
    k->rowdot_sparseq = rowdot_sparseq;
    k->decode_sparseq = decode_sparseq;
}
