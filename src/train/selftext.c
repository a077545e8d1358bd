/* See selftext.h. A group's slots map to sequences; a slot whose sequence is over runs idle until the group is packed.
 *
 *     t        tokens 0 … t of every live sequence of the group are there, the first t lie in the cache
 *     slot     [slots] sequence of each row of the cache
 *     len      [samples] tokens of a sequence that is over, 0: it goes on (or has not begun)
 *     turn     [samples] place of the first token of the turn, 0: none yet
 *
 * Cost of a step: one batch of `slots` rows through the net, the head, and a pass over the vocabulary for each row that draws. Rows whose next
 * token is given (openings, turns) draw nothing, and a step in which no row draws needs no head.
 */
#include "train/selftext.h"
#include "base/util.h"
#include "train/rawfile.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { CACHE_BYTES = 256 << 20, USUAL_GROUP = 64, BINS = 160 };

typedef struct candidate { float p; int32_t id; } candidate;

struct tt_selftext {
    tt_ctx *ctx;
    const tt_net *net;
    const tt_tokenizer *tok;
    tt_selftext_options o;
    int64_t vocab;
    int32_t *ids;
    int64_t group, t, slots;
    int32_t slot[TT_SELFTEXT_GROUP];
    int32_t *len, *turn;
    tt_runner *runner;
    tt_kvcache *cache;
    float *H, *logits;
    float *p;                                 /* [workers, vocab] */
    candidate *c;                             /* [workers, vocab], with top_p */
    char tag[48];                             /* of the files of the last save */
};

tt_selftext_options tt__selftext_options(int64_t samples, int64_t length, uint64_t seed) {
    return (tt_selftext_options){.samples = samples, .length = length, .seed = seed, .temperature = 1, .top_p = 1, .cache = TT_KV_F16};
}

int64_t tt__selftext_group(const tt_net *net, int64_t length, tt_kvtype cache) {
    int64_t row = 2 * net->hp.n_layer * tt__kv_row_bytes(cache, net->hp.n_head_kv * net->hp.head_dim), n = CACHE_BYTES / (row * length);
    return n < 1 ? 1 : n > USUAL_GROUP ? USUAL_GROUP : n;
}

/* ------------------------------------------------------------ sequences ---- */

static void seed_at(tt__rng *r, const tt_selftext *s, int64_t sequence, int64_t position) {
    tt__rng_seed(r, s->o.seed ^ (uint64_t)sequence * 0x9e3779b97f4a7c15u ^ (uint64_t)position * 0xc2b2ae3d27d4eb4fu);
}

static int64_t first_of(const tt_selftext *s) { return s->group * s->o.group; }
static int64_t group_size(const tt_selftext *s) { return s->o.samples - first_of(s) < s->o.group ? s->o.samples - first_of(s) : s->o.group; }
static int32_t *row_of(const tt_selftext *s, int64_t sequence) { return s->ids + sequence * s->o.length; }

static int64_t opening_of(const tt_selftext *s, int64_t sequence, const int32_t **ids) {
    const tt_tokens *o = s->o.openings;
    if (!o) return 0;
    size_t i = (size_t)sequence % o->n_docs;
    *ids = o->ids + o->start[i];
    return (int64_t)(o->start[i + 1] - o->start[i]);
}

/* The token that must stand at position t of a sequence, or -1: it is drawn. */
static int32_t given(const tt_selftext *s, int64_t sequence, int64_t t) {
    const int32_t *opening = NULL;
    int64_t n = opening_of(s, sequence, &opening), turn = s->turn[sequence];
    if (t < n) return opening[t];
    return turn && t >= turn && t < turn + s->o.n_turn ? s->o.turn[t - turn] : -1;
}

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

static tt_status new_cache(tt_selftext *s, int64_t slots, tt_kvcache **out, tt_err *err) {
    return tt__kvcache_create(s->ctx, s->net, slots, s->o.length, s->o.cache, out, err);
}

static tt_status begin_group(tt_selftext *s, tt_err *err) {
    tt__kvcache_free(s->cache);
    s->cache = NULL;
    s->t = 0;
    s->slots = group_size(s);
    for (int64_t i = 0; i < s->slots; i++) {
        int64_t sequence = first_of(s) + i;
        int32_t id = given(s, sequence, 0);
        s->slot[i] = (int32_t)sequence;
        row_of(s, sequence)[0] = id >= 0 ? id : first_token(s, sequence);
    }
    return new_cache(s, s->slots, &s->cache, err);
}

static tt_status check(const tt_selftext *s, tt_err *err) {
    const tt_selftext_options *o = &s->o;
    TT_FAIL_IF(o->group < 1 || o->group > TT_SELFTEXT_GROUP, err, TT_USAGE, "bad number of sequences in lock-step|batch|%lld|1 to %d", (long long)o->group,
               TT_SELFTEXT_GROUP);
    TT_FAIL_IF(o->length < 2 || o->length > s->net->hp.n_ctx, err, TT_USAGE, "bad length of a sequence|tokens|%lld|2 to %lld, the model's context",
               (long long)o->length, (long long)s->net->hp.n_ctx);
    TT_FAIL_IF(!(o->temperature >= 0 && o->temperature <= 100), err, TT_USAGE, "sampling option out of range|temperature|%g|0 to 100", o->temperature);
    TT_FAIL_IF(!(o->top_p >= 0 && o->top_p <= 1), err, TT_USAGE, "sampling option out of range|top_p|%g|0 to 1", o->top_p);
    for (size_t i = 0; o->openings && i < o->openings->n_docs; i++) {
        size_t n = o->openings->start[i + 1] - o->openings->start[i];
        TT_FAIL_IF(n < 1 || n >= (size_t)o->length, err, TT_USAGE, "opening does not fit|prompt %zu|%zu tokens|1 to %lld|raise --tokens, or shorten it", i + 1, n,
                   (long long)o->length - 1);
    }
    return TT_OK;
}

static tt_status make(tt_selftext *s, tt_err *err) {
    size_t rows = (size_t)s->o.group, V = (size_t)s->vocab, workers = (size_t)tt_ctx_threads(s->ctx);
    tt_runner_options r = {.max_rows = s->o.group, .max_past = s->o.length, .fast = true};
    TT_TRY(tt__runner_create(s->ctx, s->net, &r, &s->runner, err));
    TT_TRY(tt__new(&s->len, (size_t)s->o.samples, sizeof *s->len, "sampling", err));
    TT_TRY(tt__new(&s->turn, (size_t)s->o.samples, sizeof *s->turn, "sampling", err));
    TT_TRY(tt__new(&s->H, rows * (size_t)s->net->hp.n_embd, sizeof *s->H, "sampling", err));
    TT_TRY(tt__new(&s->logits, rows * V, sizeof *s->logits, "sampling", err));
    TT_TRY(tt__new(&s->p, workers * V, sizeof *s->p, "sampling", err));
    if (s->o.top_p < 1) TT_TRY(tt__new(&s->c, workers * V, sizeof *s->c, "sampling", err));
    return begin_group(s, err);
}

tt_status tt__selftext_create(tt_ctx *ctx, const tt_net *net, const tt_tokenizer *tok, const tt_selftext_options *o, int32_t *ids, tt_selftext **out,
                              tt_err *err) {
    tt_selftext *s = NULL;
    *out = NULL;
    TT_TRY(tt__new(&s, 1, sizeof *s, "sampling", err));
    *s = (tt_selftext){.ctx = ctx, .net = net, .tok = tok, .o = *o, .vocab = net->hp.n_vocab, .ids = ids};
    if (!s->o.group) s->o.group = tt__selftext_group(net, o->length, o->cache);
    tt_status st = check(s, err);
    if (s->o.group > o->samples) s->o.group = o->samples;
    if (st == TT_OK) st = make(s, err);
    if (st != TT_OK) tt__selftext_free(s);
    else *out = s;
    return st;
}

void tt__selftext_free(tt_selftext *s) {
    if (!s) return;
    tt__runner_free(s->runner);
    tt__kvcache_free(s->cache);
    tt__free(s->len);
    tt__free(s->turn);
    tt__free(s->H);
    tt__free(s->logits);
    tt__free(s->p);
    tt__free(s->c);
    tt__free(s);
}

bool tt__selftext_done(const tt_selftext *s) { return first_of(s) >= s->o.samples; }

double tt__selftext_share(const tt_selftext *s) {
    if (tt__selftext_done(s)) return 1;
    double within = (double)group_size(s) * (double)(s->t + 1) / (double)s->o.length;
    return ((double)first_of(s) + within) / (double)s->o.samples;
}

double tt__selftext_most(const tt_selftext *s) { return (double)s->o.samples * (double)s->o.length; }

int64_t tt__selftext_length(const tt_selftext *s, int64_t sequence) { return s->len[sequence]; }
int64_t tt__selftext_turn(const tt_selftext *s, int64_t sequence) { return s->turn[sequence] ? s->turn[sequence] : -1; }

int64_t tt__selftext_drawn(const tt_selftext *s) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->o.samples; i++) {
        const int32_t *ignored = NULL;
        int64_t opening = opening_of(s, i, &ignored);
        if (s->len[i] > opening) n += s->len[i] - opening;
        if (s->turn[i]) n -= s->len[i] - s->turn[i] < s->o.n_turn ? s->len[i] - s->turn[i] : s->o.n_turn;
    }
    return n;
}

/* ------------------------------------------------------------ drawing ---- */

typedef struct draw_job { tt_selftext *s; atomic_bool bad; } draw_job;

/* The smallest i whose cumulative probability exceeds u. */
static int32_t draw_all(const float *p, int64_t V, double u) {
    int64_t id = 0;
    double at = 0;
    for (int64_t k = 0; k < V; k++) {
        if (p[k] > 0) id = k;
        if ((at += (double)p[k]) > u) break;
    }
    return (int32_t)id;
}

static int by_rank(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p) - (x->p > y->p) : (x->id > y->id) - (x->id < y->id);
}

/* Powers of two below 1. */
static int bin_of(float p) {
    uint32_t bits;
    memcpy(&bits, &p, sizeof bits);
    int bin = 127 - (int)(bits >> 23);
    return bin < 0 ? 0 : bin < BINS ? bin : BINS - 1;
}

/* Nucleus sampling (Holtzman et al. 2020): the shortest run of tokens in falling order (ties by id) whose probabilities reach top_p. Only
 * tokens down to the power of two in which that happens are sorted. */
static int32_t draw_nucleus(candidate *c, const float *p, int64_t V, double sum, double top_p, double unit) {
    double mass[BINS] = {0}, reached = 0, want = top_p * sum;
    int64_t n = 0, k = 0;
    int last = 0;
    for (int64_t i = 0; i < V; i++) mass[bin_of(p[i])] += (double)p[i];
    while (last < BINS - 1 && (reached += mass[last]) < want) last++;
    for (int64_t i = 0; i < V; i++)
        if (p[i] > 0 && bin_of(p[i]) <= last) c[n++] = (candidate){p[i], (int32_t)i};
    qsort(c, (size_t)n, sizeof *c, by_rank);
    for (reached = 0; k < n && (k == 0 || reached < want); k++) reached += (double)c[k].p;
    double u = unit * reached, at = 0;
    for (int64_t i = 0; i < k; i++)
        if ((at += (double)c[i].p) > u) return c[i].id;
    return c[k - 1].id;
}

static int32_t likeliest(const float *x, int64_t V) {
    int64_t best = 0;
    for (int64_t i = 1; i < V; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

static void draw_tile(void *arg, int64_t i, int worker) {
    draw_job *j = arg;
    tt_selftext *s = j->s;
    int64_t sequence = s->slot[i], V = s->vocab;
    if (s->len[sequence] || given(s, sequence, s->t + 1) >= 0) return;
    float *x = s->logits + i * V, *p = s->p + worker * V, max;
    if (s->o.temperature != 1 && s->o.temperature != 0)
        for (int64_t k = 0; k < V; k++) x[k] = (float)((double)x[k] / s->o.temperature);
    double sum = s->ctx->k->softmax_stats_f32(x, V, &max);
    if (!isfinite(sum) || !isfinite(max) || !(sum > 0)) {
        atomic_store(&j->bad, true);
        return;
    }
    tt__rng r;
    seed_at(&r, s, sequence, s->t + 1);
    s->ctx->k->softmax_apply_f32(p, x, V, max, 1.0f);
    int32_t *out = row_of(s, sequence) + s->t + 1;
    if (s->o.temperature == 0) *out = likeliest(x, V);
    else if (s->o.top_p < 1) *out = draw_nucleus(s->c + worker * V, p, V, sum, s->o.top_p, tt__rng_unit(&r));
    else *out = draw_all(p, V, tt__rng_unit(&r) * sum);
}

/* ------------------------------------------------------------ packing ---- */

static int64_t kv_bytes(const tt_kvcache *c, tt_kvtype type) { return tt__kv_row_bytes(type, c->width); }

static void copy_slot(const tt_kvcache *from, int64_t a, tt_kvcache *to, int64_t b, int64_t layer) {
    int64_t k = kv_bytes(from, from->k_type), v = kv_bytes(from, from->v_type), x = (layer * from->S + a) * from->n_ctx, y = (layer * to->S + b) * to->n_ctx;
    memcpy((uint8_t *)to->k + y * k, (uint8_t *)from->k + x * k, (size_t)(from->n * k));
    memcpy((uint8_t *)to->v + y * v, (uint8_t *)from->v + x * v, (size_t)(from->n * v));
}

static int64_t live_slots(const tt_selftext *s) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->slots; i++) n += s->len[s->slot[i]] == 0;
    return n;
}

static tt_status pack(tt_selftext *s, tt_err *err) {
    int64_t live = live_slots(s), at = 0;
    tt_kvcache *smaller;
    if (live == 0 || 4 * live > 3 * s->slots) return TT_OK;
    TT_TRY(new_cache(s, live, &smaller, err));
    for (int64_t i = 0; i < s->slots; i++) {
        if (s->len[s->slot[i]]) continue;
        for (int64_t l = 0; l < smaller->n_layer; l++) copy_slot(s->cache, i, smaller, at, l);
        s->slot[at++] = s->slot[i];
    }
    smaller->n = s->cache->n;
    tt__kvcache_free(s->cache);
    s->cache = smaller;
    s->slots = live;
    return TT_OK;
}

/* ------------------------------------------------------------ a step ---- */

/* An end token ends a sequence, or begins its turn. */
static void take_ends(tt_selftext *s) {
    for (int64_t i = 0; i < s->slots; i++) {
        int64_t sequence = s->slot[i];
        if (!s->o.ends || s->len[sequence] || given(s, sequence, s->t) >= 0 || !tt__tokenizer_is_end(s->tok, row_of(s, sequence)[s->t])) continue;
        if (s->o.n_turn && !s->turn[sequence]) s->turn[sequence] = (int32_t)(s->t + 1);
        else s->len[sequence] = (int32_t)s->t;
    }
}

static tt_status end_group(tt_selftext *s, tt_err *err) {
    for (int64_t i = 0; i < s->slots; i++)
        if (!s->len[s->slot[i]]) s->len[s->slot[i]] = (int32_t)s->o.length;
    s->group++;
    return tt__selftext_done(s) ? TT_OK : begin_group(s, err);
}

tt_status tt__selftext_step(tt_selftext *s, tt_err *err) {
    int32_t now[TT_SELFTEXT_GROUP];
    bool draws = false;
    if (s->t + 1 >= s->o.length || live_slots(s) == 0) return end_group(s, err);
    for (int64_t i = 0; i < s->slots; i++) {
        int64_t sequence = s->slot[i], len = s->len[sequence];
        int32_t next = given(s, sequence, s->t + 1);
        now[i] = row_of(s, sequence)[len ? len - 1 : s->t];
        if (!len && next >= 0) row_of(s, sequence)[s->t + 1] = next;
        draws |= !len && next < 0;
    }
    TT_TRY(tt__run_cached(s->runner, s->cache, now, 1, true, s->H, err));
    if (draws) {
        draw_job job = {.s = s};
        TT_TRY(tt__run_logits(s->runner, s->H, s->slots, s->logits, err));
        tt__parallel(s->ctx, s->slots, draw_tile, &job);
        TT_FAIL_IF(atomic_load(&job.bad), err, TT_FAIL, "non-finite logits|while sampling text|||is the model damaged?");
    }
    s->t++;
    take_ends(s);
    return pack(s, err);
}

/* ------------------------------------------------------------ saving ---- */

typedef struct position { int64_t group, t, slots; int32_t slot[TT_SELFTEXT_GROUP]; } position;

static void cache_name(char name[64], const tt_selftext *s, char which) { snprintf(name, 64, "self.%s.%c", s->tag, which); }
static void set_tag(tt_selftext *s) { snprintf(s->tag, sizeof s->tag, "%lld.%lld", (long long)s->group, (long long)s->t); }
const char *tt__selftext_tag(const tt_selftext *s) { return s->tag; }

/* Only the positions that are filled: [layer, slot, n] rows. */
static tt_status write_cache(const tt_selftext *s, const char *dir, char which, tt_err *err) {
    const tt_kvcache *c = s->cache;
    const uint8_t *data = which == 'k' ? c->k : c->v;
    int64_t row = kv_bytes(c, which == 'k' ? c->k_type : c->v_type);
    char name[64], *path;
    tt__writer *w = NULL;
    cache_name(name, s, which);
    TT_TRY(tt__raw_path(dir, name, &path, err));
    tt_status st = tt__writer_open(path, (uint64_t)(c->n_layer * c->S * c->n * row), &w, err);
    tt__free(path);
    TT_TRY(st);
    for (int64_t i = 0; i < c->n_layer * c->S && st == TT_OK; i++) st = tt__write(w, data + i * c->n_ctx * row, (size_t)(c->n * row), err);
    if (st == TT_OK) return tt__writer_commit(w, err);
    tt__writer_abort(w);
    return st;
}

static tt_status read_cache(const tt_selftext *s, const char *dir, char which, tt_err *err) {
    const tt_kvcache *c = s->cache;
    uint8_t *data = which == 'k' ? c->k : c->v;
    size_t row = (size_t)kv_bytes(c, which == 'k' ? c->k_type : c->v_type), part = (size_t)c->n * row, parts = (size_t)(c->n_layer * c->S);
    char name[64], *path;
    tt__map map;
    cache_name(name, s, which);
    TT_TRY(tt__raw_path(dir, name, &path, err));
    tt_status st = tt__map_open(path, &map, err);
    if (st == TT_OK) {
        if (map.size != parts * part) st = tt__fail(err, TT_BADFILE, "state file has the wrong size|%s|%llu bytes|%zu", path, (unsigned long long)map.size, parts * part);
        for (size_t i = 0; i < parts && st == TT_OK; i++) memcpy(data + i * (size_t)c->n_ctx * row, map.data + i * part, part);
        tt__map_close(&map);
    }
    tt__free(path);
    return st;
}

static size_t rows_bytes(const tt_selftext *s) { return (size_t)s->o.samples * sizeof(int32_t); }

/* The position goes last: what is newer than it is drawn again, and comes out the same. */
tt_status tt__selftext_save(tt_selftext *s, const char *dir, tt_err *err) {
    position at = {s->group, s->t, s->slots, {0}};
    size_t n = rows_bytes(s);
    uint8_t *all;
    set_tag(s);
    if (!tt__selftext_done(s)) {
        TT_TRY(write_cache(s, dir, 'k', err));
        TT_TRY(write_cache(s, dir, 'v', err));
    }
    TT_TRY(tt__raw_write(dir, "self.ids", s->ids, (size_t)(s->o.samples * s->o.length) * sizeof *s->ids, err));
    TT_TRY(tt__new(&all, sizeof at + 2 * n, 1, "a state", err));
    memcpy(at.slot, s->slot, (size_t)s->slots * sizeof *s->slot);
    memcpy(all, &at, sizeof at);
    memcpy(all + sizeof at, s->len, n);
    memcpy(all + sizeof at + n, s->turn, n);
    tt_status st = tt__raw_write(dir, "self.pos", all, sizeof at + 2 * n, err);
    tt__free(all);
    return st;
}

static bool plausible(const tt_selftext *s, const position *at) {
    if (at->group < 0 || at->t < 0 || at->t >= s->o.length || at->group > (s->o.samples + s->o.group - 1) / s->o.group) return false;
    if (at->slots < 1 || at->slots > s->o.group) return false;
    int64_t first = at->group * s->o.group;
    for (int64_t i = 0; i < at->slots && first < s->o.samples; i++)
        if (at->slot[i] < first || at->slot[i] >= first + s->o.group || at->slot[i] >= s->o.samples) return false;
    for (int64_t i = 0; i < s->o.samples; i++)
        if (s->len[i] < 0 || s->len[i] > s->o.length || s->turn[i] < 0 || s->turn[i] > s->o.length) return false;
    for (int64_t i = 0; i < s->o.samples * s->o.length; i++)
        if (s->ids[i] < 0 || s->ids[i] >= s->vocab) return false;
    return true;
}

static tt_status read_position(tt_selftext *s, const char *dir, position *at, tt_err *err) {
    size_t n = rows_bytes(s);
    uint8_t *all;
    TT_TRY(tt__new(&all, sizeof *at + 2 * n, 1, "a state", err));
    tt_status st = tt__raw_read(dir, "self.pos", all, sizeof *at + 2 * n, err);
    if (st == TT_OK) {
        memcpy(at, all, sizeof *at);
        memcpy(s->len, all + sizeof *at, n);
        memcpy(s->turn, all + sizeof *at + n, n);
        st = tt__raw_read(dir, "self.ids", s->ids, (size_t)(s->o.samples * s->o.length) * sizeof *s->ids, err);
    }
    tt__free(all);
    TT_TRY(st);
    TT_FAIL_IF(!plausible(s, at), err, TT_BADFILE, "bad state of sampling|%s", dir);
    return TT_OK;
}

tt_status tt__selftext_load(tt_selftext *s, const char *dir, tt_err *err) {
    position at;
    if (!tt__raw_exists(dir, "self.pos")) return TT_OK;
    TT_TRY(read_position(s, dir, &at, err));
    s->group = at.group;
    if (tt__selftext_done(s)) return TT_OK;
    tt__kvcache_free(s->cache);
    s->cache = NULL;
    TT_TRY(new_cache(s, at.slots, &s->cache, err));
    s->slots = at.slots;
    memcpy(s->slot, at.slot, (size_t)at.slots * sizeof *s->slot);
    s->t = s->cache->n = at.t;
    set_tag(s);
    TT_TRY(read_cache(s, dir, 'k', err));
    return read_cache(s, dir, 'v', err);
}
