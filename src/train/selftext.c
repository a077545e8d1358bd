/* Calibration text from the model itself: what it would say, it is calibrated on; no file is needed and none is flattered.
 *
 * Groups of eight sequences grow a token at a time through the cache. The token at (sequence s, position t) is drawn with a stream seeded
 * by (seed, s, t) alone, so a run that goes on from a saved cache draws what an undisturbed one draws.
 *
 * Saved: "self.ids" all tokens so far, "self.pos" group and position, "self.G.T.k" and ".v" the cache of the group at work.
 */
#include "base/util.h"
#include "train/calib.h"
#include "train/rawfile.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>

enum { GROUP = 8 };

struct tt_selftext {
    tt_ctx *ctx;
    const tt_net *net;
    const tt_tokenizer *tok;
    int64_t samples, length, vocab;
    uint64_t seed;
    int32_t *ids;
    int64_t group, t;                         /* tokens 0 … t of the group at work are there; the first t are in the cache */
    tt_runner *runner;
    tt_kvcache *cache;
    float *H, *logits, *p;
    char tag[48];                             /* of the files of the last save */
};

static void seed_at(tt__rng *r, const tt_selftext *s, int64_t sequence, int64_t t) {
    tt__rng_seed(r, s->seed ^ (uint64_t)sequence * 0x9e3779b97f4a7c15u ^ (uint64_t)t * 0xc2b2ae3d27d4eb4fu);
}

static int64_t group_size(const tt_selftext *s) { return s->samples - s->group * GROUP < GROUP ? s->samples - s->group * GROUP : GROUP; }

/* An ordinary token: not a control, unknown or byte token. A vocabulary without types gives any. */
static int32_t first_token(const tt_selftext *s, int64_t sequence) {
    tt__rng r;
    int32_t id = 0;
    seed_at(&r, s, sequence, 0);
    int64_t n = tt__tokenizer_size(s->tok);
    for (int tries = 0; tries < 1000; tries++) {
        tt_token_type type = TT_TOKEN_UNDEFINED;
        size_t bytes;
        id = (int32_t)tt__rng_below(&r, (uint64_t)n);
        tt__tokenizer_token(s->tok, id, &bytes, &type);
        if (type == TT_TOKEN_NORMAL || type == TT_TOKEN_UNDEFINED) break;
    }
    return id;
}

static tt_status begin_group(tt_selftext *s, tt_err *err) {
    int64_t n = group_size(s);
    tt__kvcache_free(s->cache);
    s->cache = NULL;
    s->t = 0;
    for (int64_t i = 0; i < n; i++) s->ids[(s->group * GROUP + i) * s->length] = first_token(s, s->group * GROUP + i);
    return tt__kvcache_create(s->ctx, s->net, n, s->length, TT_KV_F16, &s->cache, err);
}

tt_status tt__selftext_create(tt_ctx *ctx, const tt_net *net, const tt_tokenizer *tok, int64_t samples, int64_t length, uint64_t seed, int32_t *ids,
                              tt_selftext **out, tt_err *err) {
    tt_selftext *s = NULL;
    *out = NULL;
    TT_TRY(tt__new(&s, 1, sizeof *s, "sampling", err));
    *s = (tt_selftext){.ctx = ctx, .net = net, .tok = tok, .samples = samples, .length = length, .vocab = net->hp.n_vocab, .seed = seed, .ids = ids};
    tt_runner_options r = {.max_rows = GROUP, .max_past = length, .fast = true};
    tt_status st;
    TT_TRY_GOTO(tt__runner_create(ctx, net, &r, &s->runner, err));
    TT_TRY_GOTO(tt__new(&s->H, (size_t)(GROUP * net->hp.n_embd), sizeof *s->H, "sampling", err));
    TT_TRY_GOTO(tt__new(&s->logits, (size_t)(GROUP * s->vocab), sizeof *s->logits, "sampling", err));
    TT_TRY_GOTO(tt__new(&s->p, (size_t)(GROUP * s->vocab), sizeof *s->p, "sampling", err));
    TT_TRY_GOTO(begin_group(s, err));
    *out = s;
    return TT_OK;
done:
    tt__selftext_free(s);
    return st;
}

void tt__selftext_free(tt_selftext *s) {
    if (!s) return;
    tt__runner_free(s->runner);
    tt__kvcache_free(s->cache);
    tt__free(s->H);
    tt__free(s->logits);
    tt__free(s->p);
    tt__free(s);
}

bool tt__selftext_done(const tt_selftext *s) { return s->group * GROUP >= s->samples; }

double tt__selftext_share(const tt_selftext *s) {
    int64_t done = s->group * GROUP * s->length + (tt__selftext_done(s) ? 0 : group_size(s) * (s->t + 1));
    double share = (double)done / (double)(s->samples * s->length);
    return share < 1 ? share : 1;
}

/* ------------------------------------------------------------ drawing ---- */

typedef struct draw_job { tt_selftext *s; atomic_bool bad; } draw_job;

/* The smallest i whose cumulative probability exceeds u. */
static void draw_tile(void *arg, int64_t i, int worker) {
    (void)worker;
    draw_job *j = arg;
    tt_selftext *s = j->s;
    float *x = s->logits + i * s->vocab, *p = s->p + i * s->vocab, max;
    int64_t sequence = s->group * GROUP + i, id = 0;
    double sum = s->ctx->k->softmax_stats_f32(x, s->vocab, &max), at = 0;
    tt__rng r;
    if (!isfinite(sum) || !isfinite(max) || !(sum > 0)) {
        atomic_store(&j->bad, true);
        return;
    }
    s->ctx->k->softmax_apply_f32(p, x, s->vocab, max, 1.0f);
    seed_at(&r, s, sequence, s->t + 1);
    double u = tt__rng_unit(&r) * sum;
    for (int64_t k = 0; k < s->vocab; k++) {
        if (p[k] > 0) id = k;
        if ((at += (double)p[k]) > u) break;
    }
    s->ids[sequence * s->length + s->t + 1] = (int32_t)id;
}

tt_status tt__selftext_step(tt_selftext *s, tt_err *err) {
    if (s->t + 1 >= s->length) {
        s->group++;
        return tt__selftext_done(s) ? TT_OK : begin_group(s, err);
    }
    int32_t now[GROUP];
    int64_t n = group_size(s);
    draw_job job = {.s = s};
    for (int64_t i = 0; i < n; i++) now[i] = s->ids[(s->group * GROUP + i) * s->length + s->t];
    TT_TRY(tt__run_cached(s->runner, s->cache, now, 1, true, s->H, err));
    TT_TRY(tt__run_logits(s->runner, s->H, n, s->logits, err));
    tt__parallel(s->ctx, n, draw_tile, &job);
    TT_FAIL_IF(atomic_load(&job.bad), err, TT_FAIL, "non-finite logits|while sampling calibration text|||is the model damaged?");
    s->t++;
    return TT_OK;
}

/* ------------------------------------------------------------ saving ---- */

static size_t cache_bytes(const tt_kvcache *c) { return (size_t)tt__kvcache_bytes(c, c->n_ctx) / 2; }

static void cache_name(char name[64], const tt_selftext *s, char which) { snprintf(name, 64, "self.%s.%c", s->tag, which); }
static void set_tag(tt_selftext *s) { snprintf(s->tag, sizeof s->tag, "%lld.%lld", (long long)s->group, (long long)s->t); }
const char *tt__selftext_tag(const tt_selftext *s) { return s->tag; }

tt_status tt__selftext_save(tt_selftext *s, const char *dir, tt_err *err) {
    char name[64];
    set_tag(s);
    int64_t pos[2] = {s->group, s->t};
    if (!tt__selftext_done(s)) {
        cache_name(name, s, 'k');
        TT_TRY(tt__raw_write(dir, name, s->cache->k, cache_bytes(s->cache), err));
        cache_name(name, s, 'v');
        TT_TRY(tt__raw_write(dir, name, s->cache->v, cache_bytes(s->cache), err));
    }
    TT_TRY(tt__raw_write(dir, "self.ids", s->ids, (size_t)(s->samples * s->length) * sizeof *s->ids, err));
    return tt__raw_write(dir, "self.pos", pos, sizeof pos, err);
}

/* Tokens of a later save than the position's are harmless: they are drawn again, and come out the same. */
tt_status tt__selftext_load(tt_selftext *s, const char *dir, tt_err *err) {
    char name[64];
    int64_t pos[2];
    if (!tt__raw_exists(dir, "self.pos")) return TT_OK;
    TT_TRY(tt__raw_read(dir, "self.pos", pos, sizeof pos, err));
    TT_TRY(tt__raw_read(dir, "self.ids", s->ids, (size_t)(s->samples * s->length) * sizeof *s->ids, err));
    TT_FAIL_IF(pos[0] < 0 || pos[1] < 0 || pos[1] >= s->length || pos[0] > (s->samples + GROUP - 1) / GROUP, err, TT_BADFILE, "bad state of sampling|%s", dir);
    s->group = pos[0];
    if (tt__selftext_done(s)) return TT_OK;
    tt__kvcache_free(s->cache);
    s->cache = NULL;
    TT_TRY(tt__kvcache_create(s->ctx, s->net, group_size(s), s->length, TT_KV_F16, &s->cache, err));
    s->t = pos[1];
    s->cache->n = s->t;
    set_tag(s);
    cache_name(name, s, 'k');
    TT_TRY(tt__raw_read(dir, name, s->cache->k, cache_bytes(s->cache), err));
    cache_name(name, s, 'v');
    return tt__raw_read(dir, name, s->cache->v, cache_bytes(s->cache), err);
}
