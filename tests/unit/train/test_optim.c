/* The optimiser against numbers computed by hand or by PyTorch 2.13 (torch.optim.AdamW, float64), and against its textbook form. */
#include "train/optim.h"
#include "harness/tt_test.h"

/* AdamW(lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.2), gradient 2p at each step, p0 = 1, -3, 0.5; 5 steps. */
TT_CASE(adamw_matches_textbook_trajectory) {
    tt_adamw o = {0.9, 0.99, 1e-8, 0.2};
    float p[3] = {1, -3, 0.5f}, m[3] = {0}, v[3] = {0}, g[3];
    double P[3] = {1, -3, 0.5}, M[3] = {0}, V[3] = {0};
    for (int t = 1; t <= 5; t++) {
        for (int i = 0; i < 3; i++) {
            g[i] = 2 * p[i];
            double G = 2 * P[i];
            P[i] *= 1 - 0.1 * 0.2;
            M[i] = 0.9 * M[i] + 0.1 * G, V[i] = 0.99 * V[i] + 0.01 * G * G;
            P[i] -= 0.1 * (M[i] / (1 - pow(0.9, t))) / (sqrt(V[i] / (1 - pow(0.99, t))) + 1e-8);
        }
        tt__adamw_step(&o, t, 0.1, 3, p, m, v, g);
    }
    for (int i = 0; i < 3; i++) TT_CHECK_NEAR(p[i], P[i], 2e-6);      /* f32 state against f64 */
}

TT_CASE(first_adamw_step_has_the_size_of_lr) {
    tt_adamw o = {0.9, 0.999, 1e-8, 0};
    float p[2] = {0, 0}, m[2] = {0}, v[2] = {0}, g[2] = {1e-3f, -50};
    tt__adamw_step(&o, 1, 0.01, 2, p, m, v, g);
    TT_CHECK_NEAR(p[0], -0.01, 1e-6);
    TT_CHECK_NEAR(p[1], 0.01, 1e-6);
}

TT_CASE(clip_scales_only_what_is_too_long) {
    float g[2] = {3, 4};
    TT_CHECK_NEAR(tt__clip_norm(g, 2, 10), 5, 1e-12);
    TT_CHECK_NEAR(g[1], 4, 0);
    TT_CHECK_NEAR(tt__clip_norm(g, 2, 1), 5, 1e-12);
    TT_CHECK_NEAR(hypot((double)g[0], (double)g[1]), 1, 1e-6);
    TT_CHECK_NEAR(tt__clip_norm(g, 2, 0), 1, 1e-6);
    g[0] = NAN;
    TT_CHECK(!isfinite(tt__clip_norm(g, 2, 1)));
}

TT_CASE(linear_schedule_rises_and_falls) {
    TT_CHECK_NEAR(tt__lr_linear(0, 0, 10), 1, 0);
    TT_CHECK_NEAR(tt__lr_linear(9, 0, 10), 0.1, 1e-15);
    TT_CHECK_NEAR(tt__lr_linear(10, 0, 10), 0, 0);
    TT_CHECK_NEAR(tt__lr_linear(0, 4, 10), 0.25, 0);
    TT_CHECK_NEAR(tt__lr_linear(3, 4, 10), 1, 0);
    TT_CHECK_NEAR(tt__lr_linear(4, 4, 10), 1, 0);
    TT_CHECK_NEAR(tt__lr_linear(7, 4, 10), 0.5, 0);
    TT_CHECK_NEAR(tt__lr_linear(0, 1, 1), 1, 0);
}

TT_CASE(cosine_schedule_rises_and_falls_to_its_least) {
    TT_CHECK_NEAR(tt__lr_cosine(0, 0, 10, 0.05), 1, 0);
    TT_CHECK_NEAR(tt__lr_cosine(5, 0, 10, 0.05), 0.525, 1e-12);
    TT_CHECK_NEAR(tt__lr_cosine(10, 0, 10, 0.05), 0.05, 1e-12);
    TT_CHECK_NEAR(tt__lr_cosine(12, 0, 10, 0.05), 0.05, 1e-12);
    TT_CHECK_NEAR(tt__lr_cosine(1, 4, 10, 0), 0.5, 0);
    TT_CHECK_NEAR(tt__lr_cosine(4, 4, 10, 0), 1, 0);
    TT_CHECK_NEAR(tt__lr_cosine(0, 3, 3, 0), 1.0 / 3, 1e-15);
}
