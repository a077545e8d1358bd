/* The real model against PyTorch: SmolLM2-135M-Instruct as packaged, logits of transformers in f32 on the same dequantized weights
 * (tests/golden/smollm2_logits.txt, made by tools/gen_model_golden.py). Skips where the model is not in the cache. */
#include "base/file.h"
#include "formats/gguf.h"
#include "harness/tt_test.h"
#include "models/net.h"
#include <stdlib.h>

enum { N = 512, POSITIONS = 8, SAMPLES = 32 };
typedef struct golden { int32_t ids[N], argmax[N], position[POSITIONS], id[POSITIONS][SAMPLES]; float logit[POSITIONS][SAMPLES]; } golden;

static const char *read_ints(const char *at, const char *key, int32_t *out) {
    at = strstr(at, key);
    TT_CHECK(at);
    char *end = (char *)(uintptr_t)at + strlen(key);
    for (int i = 0; i < N; i++) out[i] = (int32_t)strtol(end, &end, 10);
    TT_CHECK(*end == '\n');
    return end;
}

static void read_golden(golden *g) {
    char *text, *end;
    size_t n;
    tt_err err = {0};
    TT_CHECK_OK(tt__read_file("tests/golden/smollm2_logits.txt", 1 << 20, &text, &n, &err));
    const char *at = read_ints(text, "\nids ", g->ids);
    at = read_ints(at, "\nargmax ", g->argmax);
    for (int p = 0; p < POSITIONS; p++) {
        at = strstr(at, "\nlogits ");
        TT_CHECK(at);
        g->position[p] = (int32_t)strtol(at + 8, &end, 10);
        for (int i = 0; i < SAMPLES; i++) {
            g->id[p][i] = (int32_t)strtol(end, &end, 10);
            g->logit[p][i] = strtof(end + 1, &end);
        }
        at = end;
    }
    tt__free(text);
}

typedef struct model { tt_ctx *ctx; tt_gguf *g; tt_net *net; } model;

static model open_model(void) {
    model m = {.ctx = NULL};
    tt_err err = {0};
    const char *path = tt_test_model();
    m.ctx = tt_test_ctx(2, NULL);
    TT_CHECK_OK(tt__gguf_open(path, &m.g, &err));
    TT_CHECK_OK(tt__net_from_gguf(m.ctx, m.g, false, &m.net, &err));
    return m;
}

static void close_model(model *m) {
    tt__net_free(m->net);
    tt__gguf_close(m->g);
}

static float *all_logits(const model *m, const int32_t *ids, bool fast, tt_kvtype type, int64_t step) {
    tt_runner *r;
    tt_kvcache *c;
    tt_err err = {0};
    int64_t d = m->net->hp.n_embd, V = m->net->hp.n_vocab;
    tt_runner_options o = {.max_rows = 128, .max_past = N, .fast = fast};
    float *H = tt__alloc((size_t)(step * d) * sizeof *H), *z = tt__alloc((size_t)(N * V) * sizeof *z);
    TT_CHECK(H && z);
    TT_CHECK_OK(tt__runner_create(m->ctx, m->net, &o, &r, &err));
    TT_CHECK_OK(tt__kvcache_create(m->ctx, m->net, 1, N, type, &c, &err));
    for (int64_t t = 0; t < N; t += step) {
        TT_CHECK_OK(tt__run_cached(r, c, ids + t, step, false, H, &err));
        TT_CHECK_OK(tt__run_logits(r, H, step, z + t * V, &err));
    }
    tt__kvcache_free(c);
    tt__runner_free(r);
    tt__free(H);
    return z;
}

static int32_t argmax(const float *z, int64_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) if (z[i] > z[best]) best = i;
    return best;
}

static double relative_error(const golden *g, const float *z, int64_t V) {
    double diff = 0, size = 0;
    for (int p = 0; p < POSITIONS; p++)
        for (int i = 0; i < SAMPLES; i++) {
            double want = (double)g->logit[p][i], got = (double)z[g->position[p] * V + g->id[p][i]];
            diff += (got - want) * (got - want);
            size += want * want;
        }
    return sqrt(diff / size);
}

TT_CASE(logits_agree_with_pytorch) {
    static golden g;
    model m = open_model();
    int64_t V = m.net->hp.n_vocab;
    TT_CHECK_EQ(V, 49152);
    read_golden(&g);
    float *z = all_logits(&m, g.ids, false, TT_KV_F32, 128);
    for (int t = 0; t < N; t++) {
        tt_test_note("position %d", t);
        TT_CHECK_EQ(argmax(z + t * V, V), g.argmax[t]);
    }
    tt_test_note("relative error %.3g", relative_error(&g, z, V));
    TT_CHECK(relative_error(&g, z, V) < 1e-3);
    tt__free(z);
    close_model(&m);
}

/* Fast numerics, tokens in small groups as in lock-step decoding: rounded activations move logits by a few percent, the choice rarely. */
TT_CASE(fast_logits_stay_close) {
    static golden g;
    model m = open_model();
    int64_t V = m.net->hp.n_vocab;
    read_golden(&g);
    float *z = all_logits(&m, g.ids, true, TT_KV_F16, 8);
    int same = 0;
    for (int t = 0; t < N; t++) same += argmax(z + t * V, V) == g.argmax[t];
    tt_test_note("same choice at %d of %d positions, relative error %.3g", same, N, relative_error(&g, z, V));
    TT_CHECK(same > N * 9 / 10 && relative_error(&g, z, V) < 0.05);
    tt__free(z);
    close_model(&m);
}

TT_CASE(the_packaged_model_is_what_we_think) {
    model m = open_model();
    uint64_t params = 0;
    for (size_t i = 0; i < m.net->n_weights; i++) params += (uint64_t)m.net->weights[i].rows * (uint64_t)m.net->weights[i].cols;
    TT_CHECK_EQ(params, 134515008u);
    TT_CHECK(m.net->hp.tied && m.net->output == m.net->embd && m.net->rope_adjacent);
    TT_CHECK(m.net->hp.n_layer == 30 && m.net->hp.n_embd == 576 && m.net->hp.n_head == 9 && m.net->hp.n_head_kv == 3 && m.net->hp.head_dim == 64);
    close_model(&m);
}

/* One step of training and one of serving; buffers that a first step makes are kept. */
static void step(tt_runner *r, tt_kvcache *c, const int32_t *ids, int32_t *target, float *X, float *dX, float *H) {
    enum { P = 4, T = 24 };
    tt_err err = {0};
    double loss;
    for (int i = 0; i < P + T; i++) target[i] = i < P || i == P + T - 1 ? -1 : ids[i - P + 1];
    TT_CHECK_OK(tt__run_embed(r, ids, P + T, X, &err));
    tt_loss spec = {.kind = TT_LOSS_CE, .target = target};
    TT_CHECK_OK(tt__run_loss(r, P, 1, T, X, &spec, &loss, NULL, dX, &err));
    c->n = 0;
    TT_CHECK_OK(tt__run_cached(r, c, ids, T, true, H, &err));
    TT_CHECK_OK(tt__run_cached(r, c, ids + T, 1, true, H, &err));
}

/* Weights are used where the file is mapped, in their stored form: beside it the net holds less than a twentieth of their bytes, and a step
 * takes nothing that grows with them. */
TT_CASE(weights_stay_as_they_are_stored) {
    enum { ROWS = 28 };
    static int32_t ids[N], target[ROWS];
    static float X[ROWS * 576], dX[ROWS * 576], H[576];
    tt_err err = {0};
    tt_gguf *g;
    tt_net *net;
    tt_runner *r;
    tt_kvcache *c;
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    uint64_t stored = 0;
    TT_CHECK_OK(tt__gguf_open(tt_test_model(), &g, &err));
    uint64_t before = tt__mem_now();
    TT_CHECK_OK(tt__net_from_gguf(ctx, g, false, &net, &err));
    for (size_t i = 0; i < net->n_weights; i++) stored += net->weights[i].op ? tt__linop_bytes(net->weights[i].op) : 0;
    TT_CHECK(stored > 80u << 20);
    TT_CHECK(tt__mem_now() - before < stored / 20);
    tt_runner_options o = {.max_rows = ROWS, .max_past = ROWS, .backward = true, .keep = TT_KEEP_BOUNDARY};
    TT_CHECK_OK(tt__runner_create(ctx, net, &o, &r, &err));
    TT_CHECK_OK(tt__kvcache_create(ctx, net, 1, ROWS, TT_KV_F16, &c, &err));
    for (int i = 0; i < N; i++) ids[i] = i * 97 % 49152;
    step(r, c, ids, target, X, dX, H);
    before = tt__mem_now();
    tt__mem_reset_peak();
    step(r, c, ids, target, X, dX, H);
    TT_CHECK_EQ(tt__mem_now(), before);
    TT_CHECK(tt__mem_peak() - before < 1u << 16);
    tt__kvcache_free(c);
    tt__runner_free(r);
    tt__net_free(net);
    tt__gguf_close(g);
}
