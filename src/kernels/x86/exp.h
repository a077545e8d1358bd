/* The exponential in the vocabulary of a vec.h: both of them end with it. */
#ifndef TT_KERNELS_X86_EXP_H
#define TT_KERNELS_X86_EXP_H

/* e^x. n = round(x / ln 2), r = x - n ln 2 (ln 2 in two parts, so r has no rounding of its own), e^r = 1 + r + r² p(r) with p the
 * minimax polynomial of degree 4 on |r| ≤ ln 2 / 2 (relative error 2^-28), then the exponent. Measured over all floats: at most
 * 1 ULP where the result is normal. -inf gives 0, +inf and x > 88.73 give inf, NaN stays. */
INLINE vf v_exp(vf x) {
    x = v_min(v_set1(120.0f), v_max(v_set1(-120.0f), x));
    const vf n = v_round(v_mul(x, v_set1(0x1.715476p0f)));
    const vf r = v_fnma(n, v_set1(-0x1.05c610p-29f), v_fnma(n, v_set1(0x1.62e430p-1f), x));
    vf p = v_fma(v_set1(0x1.6a2408p-10f), r, v_set1(0x1.1239e8p-7f));
    p = v_fma(p, r, v_set1(0x1.5558f2p-5f));
    p = v_fma(p, r, v_set1(0x1.555492p-3f));
    p = v_fma(p, r, v_set1(0x1.fffffcp-2f));
    p = v_fma(v_mul(p, r), r, r);
    return v_times_2_to(v_add(p, v_set1(1.0f)), n);
}
#endif
