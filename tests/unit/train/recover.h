/* What the tests of trainings end to end share: a tiny model with its quantized copy, texts, a job. */
#ifndef TT_TEST_RECOVER_H
#define TT_TEST_RECOVER_H
#include "train/trainer.h"

#include "base/file.h"
#include "harness/tiny.h"
#include "harness/tt_test.h"
#include "linop/trellis.h"
#include "models/store.h"
#include <math.h>
#include <stdio.h>

static const char SHA[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

typedef struct rig {
    tt_ctx *ctx;
    tt_gguf *g;
    tt_net *whole, *damaged;
    tt_tokenizer *tok;
    tt_tokens train, valid;
    tt_train_job job;
    char state[512], output[512], cache[512];
} rig;

static inline void tokens_of(rig *r, uint64_t seed, int words, tt_tokens *out) {
    tt_err err = {0};
    char *text = tiny_text(seed, words);
    size_t bytes = strlen(text);
    tt_docs d = {.n = 1, .text = &text, .bytes = &bytes};
    TT_CHECK_OK(tt__docs_tokenize(&d, r->tok, out, &err));
    tt__free(text);
}

/* 2-bit codes in groups of 32, symmetric without a zero level or with minima, from the largest and least value: crude enough to leave something to learn. */
static inline void quantize(tt_ctx *ctx, tt_weight *w, bool minima) {
    enum { GROUP = 32 };
    tt_err err = {0};
    int64_t groups = (w->cols + GROUP - 1) / GROUP;
    float *W = tt__alloc((size_t)(w->rows * w->cols) * sizeof *W), *scale = tt__alloc((size_t)(w->rows * groups) * sizeof *scale);
    float *min = tt__alloc((size_t)(w->rows * groups) * sizeof *min);
    uint8_t *codes = tt__alloc((size_t)(w->rows * w->cols)), *half = tt__alloc((size_t)(w->rows * groups));
    tt__linop_rows(w->op, 0, w->rows, W);
    for (int64_t r = 0; r < w->rows; r++)
        for (int64_t g = 0; g < groups; g++) {
            int64_t c0 = g * GROUP, c1 = c0 + GROUP < w->cols ? c0 + GROUP : w->cols;
            float max = 0, least = 0;
            for (int64_t c = c0; c < c1; c++) {
                max = fmaxf(max, minima ? W[r * w->cols + c] : fabsf(W[r * w->cols + c]));
                least = fminf(least, W[r * w->cols + c]);
            }
            if (!minima) least = -max;
            float s = max > least ? (max - least) / 3 : 1;
            scale[r * groups + g] = s;
            min[r * groups + g] = least;
            half[r * groups + g] = 1;
            for (int64_t c = c0; c < c1; c++) {
                float q = roundf((W[r * w->cols + c] - least) / s);
                codes[r * w->cols + c] = (uint8_t)(q < 0 ? 0 : q > 3 ? 3 : q);
            }
        }
    tt_linop *op = NULL;
    TT_CHECK_OK(tt__linop_group(ctx, 2, GROUP, codes, scale, half, minima ? min : NULL, w->rows, w->cols, &op, &err));
    tt__linop_free(w->op);
    w->op = op;
    tt__free(W);
    tt__free(scale);
    tt__free(min);
    tt__free(codes);
    tt__free(half);
}

/* One bit per weight on a trellis, a scale per row, columns turned by pairs of sixteen. */
static inline void quantize_on_trellis(tt_ctx *ctx, tt_weight *w) {
    enum { STATES = 10, TURN = 16 };
    tt_err err = {0};
    const tt_trellis_form form = {STATES, 16, 0, TURN};
    const int64_t rows = w->rows, cols = w->cols, padded = (rows + 15) / 16 * 16;
    float *W = tt__alloc((size_t)(rows * cols) * sizeof *W), *value = tt__alloc(sizeof *value << STATES), lanes[TURN * 16], x[16], y[16], one[16];
    uint8_t *codes = tt__calloc((size_t)(cols * padded / 8), 1), *rates = tt__alloc((size_t)cols), *signs = tt__calloc((size_t)(cols + 7) / 8, 1);
    uint16_t *scales = tt__calloc((size_t)padded, sizeof *scales), *gains = tt__alloc((size_t)cols * sizeof *gains);
    void *room = tt__alloc(tt__trellis_room(STATES, 1));
    float *unit = tt__alloc((size_t)(padded * cols) * sizeof *unit);                     /* by columns, turned, rows of size 1 */
    tt__trellis_values(STATES, value);
    tt__linop_rows(w->op, 0, rows, W);
    memset(unit, 0, (size_t)(padded * cols) * sizeof *unit);
    for (int64_t r = 0; r < rows; r++) {
        double size = 0;
        for (int64_t c = 0; c < cols; c++) size += (double)W[r * cols + c] * (double)W[r * cols + c];
        size = sqrt(size / (double)cols);
        scales[r] = tt__f32_to_f16((float)size);
        for (int64_t c = 0; c < cols; c += TURN) {
            for (int i = 0; i < TURN * 16; i++) lanes[i] = i % 16 ? 0 : W[r * cols + c + i / 16];
            ctx->k->hadamard_lanes(lanes, TURN, 0);
            for (int i = 0; i < TURN; i++) unit[(c + i) * padded + r] = lanes[i * 16] / (4 * (float)size);
        }
    }
    for (int64_t c = 0; c < cols; c++) {
        rates[c] = 1;
        gains[c] = tt__f32_to_f16(0.9f / TT_TRELLIS_SPREAD);
        for (int64_t r = 0; r < padded; r += 16) {
            for (int i = 0; i < 16; i++) x[i] = unit[c * padded + r + i], one[i] = 1;
            tt__trellis_encode(ctx->k, STATES, 1, value, x, one, 16, room, codes + c * (padded / 8) + r / 8, y);
        }
    }
    tt_linop *op = NULL;
    TT_CHECK_OK(tt__linop_trellis(ctx, &form, rates, codes, scales, gains, signs, rows, cols, &op, &err));
    tt__linop_free(w->op);
    w->op = op;
    void *const all[] = {W, value, codes, rates, signs, scales, gains, room, unit};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) tt__free(all[i]);
}

static inline tt_status save_model(void *user, const tt_net *net, const char *record, tt_err *err) {
    rig *r = user;
    const char *extra[] = {"trimtab.tune", record, NULL};
    return tt__store_gguf(net, NULL, r->g, NULL, NULL, extra, r->output, NULL, err);
}

typedef enum damage { SCALES_ONLY, WITH_MINIMA, ON_TRELLIS } damage;

static inline rig *rig_open_with(tt_ctx *ctx, const char *dir, const char *output, damage how) {
    rig *r = tt__calloc(1, sizeof *r);
    tt_err err = {0};
    char path[600];
    r->ctx = ctx;
    snprintf(path, sizeof path, "%s/net.gguf", dir);
    if (!tt__exists(path)) tiny_write(path, 5, 0, false);
    TT_CHECK_OK(tt__gguf_open(path, &r->g, &err));
    TT_CHECK_OK(tt__net_from_gguf(ctx, r->g, false, &r->whole, &err));
    TT_CHECK_OK(tt__net_from_gguf(ctx, r->g, false, &r->damaged, &err));
    for (size_t i = 0; i < r->damaged->n_weights; i++)
        if (!r->damaged->weights[i].linear) continue;
        else if (how == ON_TRELLIS) quantize_on_trellis(ctx, &r->damaged->weights[i]);
        else quantize(ctx, &r->damaged->weights[i], how == WITH_MINIMA);
    TT_CHECK_OK(tt__tokenizer_from_gguf(r->g, &r->tok, &err));
    tokens_of(r, 1, 1500, &r->train);
    tokens_of(r, 2, 300, &r->valid);
    snprintf(r->output, sizeof r->output, "%s/%s", dir, output);
    snprintf(r->state, sizeof r->state, "%s/%s.state", dir, output);
    snprintf(r->cache, sizeof r->cache, "%s/cache", dir);
    r->job = (tt_train_job){.student = r->damaged, .teacher = r->whole, .tokenizer = r->tok, .train = &r->train, .valid = &r->valid, .seed = 3,
                            .state_dir = r->state, .output = r->output, .cache_dir = r->cache, .base_ref = "tiny", .base_sha256 = SHA,
                            .teacher_sha256 = SHA, .recipe_line = "x", .recipe_sha256 = "22", .data_sha256 = SHA, .save_model = save_model, .save_user = r,
                            .resume = true, .checkpoint_seconds = 3600};
    return r;
}

static inline rig *rig_open(tt_ctx *ctx, const char *dir, const char *output) { return rig_open_with(ctx, dir, output, SCALES_ONLY); }

static inline void rig_close(rig *r) {
    tt__tokens_free(&r->train);
    tt__tokens_free(&r->valid);
    tt__tokenizer_free(r->tok);
    tt__net_free(r->whole);
    tt__net_free(r->damaged);
    tt__gguf_close(r->g);
    tt__free(r);
}

typedef struct stopper { tt_ctx *ctx; int calls, at; } stopper;

static inline void stop_at(void *user, const char *task, double done, double total, const char *unit, const char *note) {
    stopper *s = user;
    (void)task, (void)done, (void)total, (void)unit, (void)note;
    s->ctx->progress_at = -1e9;                         /* not a few times a second: at every step */
    if (++s->calls == s->at) tt_ctx_cancel(s->ctx, TT_INTERRUPTED);
}

static inline void watch(stopper *s) {
    s->ctx->opt.progress = stop_at;
    s->ctx->opt.progress_user = s;
}

static inline bool same_file(const char *a, const char *b) {
    char *x = NULL, *y = NULL;
    size_t n = 0, m = 1;
    bool same = tt__read_file(a, 1 << 26, &x, &n, NULL) == TT_OK && tt__read_file(b, 1 << 26, &y, &m, NULL) == TT_OK && n == m && memcmp(x, y, n) == 0;
    tt__free(x);
    tt__free(y);
    return same;
}
#endif
