/* Byte-pair merging in O(n log n) (RELIABILITY T3).
 *
 * The definition (Sennrich 2016; attention.md D1): start from single bytes; repeatedly merge the adjacent pair of lowest rank, leftmost
 * first, until no pair is listed. Two implementations of it:
 *
 *   short pieces   an array scanned for its lowest rank, as nearly all pieces are a few bytes long
 *   long pieces    symbols linked by their spans and a queue of (rank, position). An entry is stale when the pair at its position now has
 *                  another rank or is gone.
 *
 * The queue. Keys are rank << 32 | position. In a trained vocabulary a merge makes only pairs of higher rank than its own, so keys leave
 * in rising order: a radix heap (Ahuja, Mehlhorn, Orlin, Tarjan 1990) with bytes as digits, which moves through memory in order, instead of
 * a binary heap, whose random reads cost seconds on a piece of 16 MB. Keys below the last one, which only odd vocabularies make, wait in a small binary
 * heap that goes first: all its keys are below all others. */
#include "base/checked.h"
#include "base/err.h"
#include "base/mem.h"
#include "text/tokenizer_int.h"

enum { SHORT = 24,                                /* bytes; up to about this length scanning wins */
       WHOLE = 65536 };                           /* no token is longer (TT_LIMIT_TOKEN_BYTES) */
#define NONE UINT32_MAX

/* ---- queue ---- */
/* Level l, digit d holds the keys that agree with `last` above byte l and have digit d there: every key moves down at most 8 times, and
 * three or four times in practice. Buckets are lists of chunks from one pool, so that memory follows the keys that are alive. */
typedef struct chunk { struct chunk *next; size_t n; uint64_t v[126]; } chunk;
typedef struct slab { struct slab *next; size_t chunks; } slab;
typedef struct queue {
    chunk *bucket[8][256], *spare;
    uint64_t digits[8][4], last;                  /* which buckets hold keys */
    unsigned levels;                              /* which levels do */
    slab *slabs;
    uint64_t *urgent;
    size_t n_urgent, urgent_cap;
} queue;

static bool more_chunks(queue *q) {
    size_t n = q->slabs ? q->slabs->chunks * 2 : 16;
    if (n > 1024) n = 1024;
    slab *s = tt__alloc(sizeof(chunk) * (n + 1));      /* the first place holds the slab's own record */
    if (!s) return false;
    *s = (slab){q->slabs, n};
    q->slabs = s;
    for (size_t i = 1; i <= n; i++) {
        chunk *c = (chunk *)s + i;
        c->next = q->spare;
        q->spare = c;
    }
    return true;
}

static bool urgent_push(queue *q, uint64_t key) {
    if (q->n_urgent == q->urgent_cap) {
        size_t cap = q->urgent_cap ? q->urgent_cap * 2 : 16;
        uint64_t *v = tt__realloc(q->urgent, tt__array_bytes(cap, sizeof *v));
        if (!v) return false;
        q->urgent = v;
        q->urgent_cap = cap;
    }
    size_t i = q->n_urgent++;
    for (; i > 0 && q->urgent[(i - 1) / 2] > key; i = (i - 1) / 2) q->urgent[i] = q->urgent[(i - 1) / 2];
    q->urgent[i] = key;
    return true;
}

static uint64_t urgent_pop(queue *q) {
    uint64_t top = q->urgent[0], x = q->urgent[--q->n_urgent];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < q->n_urgent; i = c) {
        if (c + 1 < q->n_urgent && q->urgent[c + 1] < q->urgent[c]) c++;
        if (q->urgent[c] >= x) break;
        q->urgent[i] = q->urgent[c];
    }
    q->urgent[i] = x;
    return top;
}

/* False when out of memory. */
static inline bool queue_push(queue *q, uint64_t key) {
    if (key < q->last) return urgent_push(q, key);
    unsigned level = key == q->last ? 0 : (63u - (unsigned)__builtin_clzll(key ^ q->last)) / 8, digit = (unsigned)(key >> (8 * level)) & 255;
    chunk *c = q->bucket[level][digit];
    if (!c || c->n == sizeof c->v / sizeof c->v[0]) {
        if (!q->spare && !more_chunks(q)) return false;
        chunk *fresh = q->spare;
        q->spare = fresh->next;
        fresh->next = c;
        fresh->n = 0;
        q->bucket[level][digit] = c = fresh;
        q->digits[level][digit / 64] |= UINT64_C(1) << digit % 64;
        q->levels |= 1u << level;
    }
    c->v[c->n++] = key;
    return true;
}

static unsigned lowest_digit(const queue *q, unsigned level) {
    unsigned w = 0;
    while (!q->digits[level][w]) w++;
    return 64 * w + (unsigned)__builtin_ctzll(q->digits[level][w]);
}

static chunk *take_bucket(queue *q, unsigned level, unsigned digit) {
    chunk *c = q->bucket[level][digit];
    uint64_t *d = q->digits[level];
    q->bucket[level][digit] = NULL;
    d[digit / 64] &= ~(UINT64_C(1) << digit % 64);
    if (!(d[0] | d[1] | d[2] | d[3])) q->levels &= ~(1u << level);
    return c;
}

static inline void give_chunk(queue *q, chunk *c) {
    c->next = q->spare;
    q->spare = c;
}

/* Moves the lowest bucket down; its least key becomes `last`. */
static bool queue_settle(queue *q, unsigned level) {
    chunk *list = take_bucket(q, level, lowest_digit(q, level));
    uint64_t least = UINT64_MAX;
    for (chunk *c = list; c; c = c->next)
        for (size_t i = 0; i < c->n; i++)
            if (c->v[i] < least) least = c->v[i];
    q->last = least;
    for (chunk *next; list; list = next) {
        for (size_t i = 0; i < list->n; i++)
            if (!queue_push(q, list->v[i])) return false;
        next = list->next;
        give_chunk(q, list);
    }
    return true;
}

/* 1: *key is the least; 0: empty; -1: out of memory. */
static inline int queue_pop(queue *q, uint64_t *key) {
    if (q->n_urgent) { *key = urgent_pop(q); return 1; }
    if (!q->levels) { q->last = 0; return 0; }
    if (!(q->levels & 1) && !queue_settle(q, (unsigned)__builtin_ctz(q->levels))) return -1;
    unsigned digit = lowest_digit(q, 0);
    chunk *c = q->bucket[0][digit];
    q->last = *key = c->v[--c->n];
    if (!c->n) {
        q->bucket[0][digit] = c->next;
        if (!c->next) take_bucket(q, 0, digit);
        give_chunk(q, c);
    }
    return 1;
}

static void queue_free(queue *q) {
    for (slab *s = q->slabs, *next; s; s = next) {
        next = s->next;
        tt__free(s);
    }
    tt__free(q->urgent);
}

/* ---- merger ---- */
/* Symbols lie where their first byte's symbol lay; `span` counts the first symbols that they cover and stands at both ends of that range,
 * so that the next one begins span further and the one before ends just below. id NONE: merged away. */
typedef struct symbol { uint32_t id, span; } symbol;
struct tt_merger {
    const tt_tokenizer *t;
    symbol *sym;
    size_t sym_cap;
    queue q;
    tt__str mapped;                               /* the piece in the byte alphabet, for ignore_merges */
};

tt_status tt__merger_create(const tt_tokenizer *t, tt_merger **out, tt_err *err) {
    TT_TRY(tt__new(out, 1, sizeof **out, "tokenizing", err));
    (*out)->t = t;
    return TT_OK;
}

void tt__merger_free(tt_merger *m) {
    if (!m) return;
    queue_free(&m->q);
    tt__free(m->sym);
    tt__str_free(&m->mapped);
    tt__free(m);
}

void tt__ids_grow(tt_ids *o) {
    size_t cap = o->cap ? o->cap * 2 : 64;
    int32_t *v = o->failed ? NULL : tt__realloc(o->v, tt__array_bytes(cap, sizeof *v));
    if (!v) { o->failed = true; return; }
    o->v = v;
    o->cap = cap;
}

static tt_status no_memory(tt_err *err) { return tt__fail(err, TT_RESOURCE, "out of memory|for tokenizing"); }

/* ---- short pieces ---- */
static inline uint32_t rank_of(const tt_tokenizer *t, uint32_t l, uint32_t r) {
    const tt_pair_slot *p = tt__pair_find(t, l, r);
    return p ? p->rank1 - 1 : NONE;
}

static void merge_short(const tt_tokenizer *t, const int32_t *first, size_t n, tt_ids *out) {
    uint32_t id[SHORT], rank[SHORT];              /* rank[i]: of the pair i, i + 1 */
    for (size_t i = 0; i < n; i++) id[i] = (uint32_t)first[i];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(t, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NONE) break;
        id[best] = tt__pair_find(t, id[best], id[best + 1])->id;
        n--;
        for (size_t i = best + 1; i < n; i++) { id[i] = id[i + 1]; rank[i] = rank[i + 1]; }
        if (best > 0) rank[best - 1] = rank_of(t, id[best - 1], id[best]);
        if (best + 1 < n) rank[best] = rank_of(t, id[best], id[best + 1]);
    }
    for (size_t i = 0; i < n; i++) tt__ids_push(out, (int32_t)id[i]);
}

/* ---- long pieces ---- */
static inline bool push_pair(tt_merger *m, size_t pos, size_t next) {
    uint32_t rank = rank_of(m->t, m->sym[pos].id, m->sym[next].id);
    return rank == NONE || queue_push(&m->q, (uint64_t)rank << 32 | pos);
}

/* The first pairs, whose ranks repeat in the texts that are long enough to be here. */
static bool push_first_pairs(tt_merger *m, size_t n) {
    uint32_t l = NONE, r = NONE, rank = NONE;
    for (size_t i = 0; i + 1 < n; i++) {
        if (m->sym[i].id != l || m->sym[i + 1].id != r) rank = rank_of(m->t, l = m->sym[i].id, r = m->sym[i + 1].id);
        if (rank != NONE && !queue_push(&m->q, (uint64_t)rank << 32 | i)) return false;
    }
    return true;
}

static tt_status merge_long(tt_merger *m, size_t n, tt_ids *out, tt_err *err) {
    symbol *sym = m->sym;
    if (!push_first_pairs(m, n)) return no_memory(err);
    for (;;) {
        uint64_t key;
        int got = queue_pop(&m->q, &key);
        if (got < 0) return no_memory(err);
        if (!got) break;
        size_t pos = (uint32_t)key, next = pos + sym[pos].span;
        if (sym[pos].id == NONE || next >= n) continue;
        const tt_pair_slot *p = tt__pair_find(m->t, sym[pos].id, sym[next].id);
        if (!p || p->rank1 - 1 != (uint32_t)(key >> 32)) continue;       /* stale */
        size_t after = next + sym[next].span;
        sym[pos].id = p->id;
        sym[next].id = NONE;
        sym[pos].span = sym[after - 1].span = (uint32_t)(after - pos);
        if ((pos > 0 && !push_pair(m, pos - sym[pos - 1].span, pos)) || (after < n && !push_pair(m, pos, after))) return no_memory(err);
    }
    for (size_t i = 0; i < n; i += sym[i].span) tt__ids_push(out, (int32_t)sym[i].id);
    return TT_OK;
}

/* ---- a piece ---- */
/* fuse_unk: a row of unknown bytes is one unknown token. */
static inline bool is_fused(const tt_tokenizer *t, int32_t id, int32_t before) { return t->fuse_unk && id == t->unk && before == id; }

/* The tokens of the bytes, missing ones dropped or replaced by unk as decided at load. Returns how many. */
static size_t first_symbols(const tt_tokenizer *t, const uint8_t *s, size_t n, int32_t *ids) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->byte_id[s[i]];
        if (id >= 0 && !is_fused(t, id, k ? ids[k - 1] : -1)) ids[k++] = id;
    }
    return k;
}

/* ignore_merges: a piece that is a token of the model as a whole stands for itself. */
static int32_t whole_piece(tt_merger *m, const uint8_t *s, size_t n) {
    m->mapped.n = 0;
    for (size_t i = 0; i < n; i++) {
        char c[4];
        tt__str_add(&m->mapped, c, (size_t)tt__utf8_encode(tt__byte_to_cp[s[i]], c));
    }
    if (m->mapped.failed) return -1;
    int32_t id = tt__tokenizer_find(m->t, m->mapped.s, m->mapped.n);
    return id >= 0 && (m->t->flags[id] & TT_TOK_IN_MODEL) && m->t->type[id] != TT_TOKEN_CONTROL ? id : -1;
}

static tt_status grow_symbols(tt_merger *m, size_t n, tt_err *err) {
    if (n <= m->sym_cap) return TT_OK;
    size_t cap = n + n / 2;
    tt__free(m->sym);
    m->sym = tt__alloc(tt__array_bytes(cap, sizeof *m->sym));
    m->sym_cap = m->sym ? cap : 0;
    return m->sym ? TT_OK : no_memory(err);
}

tt_status tt__merge_piece(tt_merger *m, const uint8_t *s, size_t n, tt_ids *out, tt_err *err) {
    const tt_tokenizer *t = m->t;
    if (t->ignore_merges && n > 1 && n <= WHOLE) {
        int32_t id = whole_piece(m, s, n);
        if (m->mapped.failed) return no_memory(err);
        if (id >= 0) { tt__ids_push(out, id); return out->failed ? no_memory(err) : TT_OK; }
    }
    if (n <= SHORT) {
        int32_t ids[SHORT];
        merge_short(t, ids, first_symbols(t, s, n, ids), out);
        return out->failed ? no_memory(err) : TT_OK;
    }
    TT_FAIL_IF(n >= NONE, err, TT_FAIL, "text too long|tokenizing|%zu bytes in one piece|below 4 GiB|split the text", n);
    TT_TRY(grow_symbols(m, n, err));
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->byte_id[s[i]];
        if (id >= 0 && !is_fused(t, id, k ? (int32_t)m->sym[k - 1].id : -1)) m->sym[k++] = (symbol){(uint32_t)id, 1};
    }
    TT_TRY(merge_long(m, k, out, err));
    return out->failed ? no_memory(err) : TT_OK;
}
