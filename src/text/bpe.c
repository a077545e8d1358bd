/* Byte-pair merging in O(n log n) (RELIABILITY T3).
 *
 * The definition (Sennrich 2016; attention.md D1): start from single bytes; repeatedly merge the adjacent pair of lowest rank, leftmost
 * first, until no pair is listed. Two implementations of it:
 *
 *   short pieces   an array scanned for its lowest rank, as nearly all pieces are a few bytes long
 *   long pieces    a linked list in arrays and a queue of (rank, position). An entry is stale when the pair at its position now has
 *                  another rank or is gone.
 *
 * The queue. Keys are rank << 32 | position. In a trained vocabulary a merge makes only pairs of higher rank than its own, so keys leave
 * in rising order: a radix heap (Ahuja, Mehlhorn, Orlin, Tarjan 1990), which moves through memory in order, instead of a binary heap,
 * whose random reads cost seconds on a piece of 16 MB. Keys below the last one, which only odd vocabularies make, wait in a small binary
 * heap that goes first: all its keys are below all others. */
#include "base/checked.h"
#include "base/err.h"
#include "base/mem.h"
#include "text/tokenizer_int.h"

enum { SHORT = 24,                                /* bytes; up to about this length scanning wins */
       WHOLE = 65536 };                           /* no token is longer (TT_LIMIT_TOKEN_BYTES) */
#define NONE UINT32_MAX

/* ---- queue ---- */
typedef struct bucket { uint64_t *v; size_t n, cap; } bucket;
typedef struct queue { bucket radix[65], urgent; uint64_t last, occupied; } queue;   /* occupied: bit i-1 for radix[i] */

static bool bucket_push(bucket *b, uint64_t key) {
    if (b->n == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 16;
        uint64_t *v = tt__realloc(b->v, tt__array_bytes(cap, sizeof *v));
        if (!v) return false;
        b->v = v;
        b->cap = cap;
    }
    b->v[b->n++] = key;
    return true;
}

static bool urgent_push(bucket *b, uint64_t key) {
    if (!bucket_push(b, key)) return false;
    size_t i = b->n - 1;
    for (; i > 0 && b->v[(i - 1) / 2] > key; i = (i - 1) / 2) b->v[i] = b->v[(i - 1) / 2];
    b->v[i] = key;
    return true;
}

static uint64_t urgent_pop(bucket *b) {
    uint64_t top = b->v[0], x = b->v[--b->n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < b->n; i = c) {
        if (c + 1 < b->n && b->v[c + 1] < b->v[c]) c++;
        if (b->v[c] >= x) break;
        b->v[i] = b->v[c];
    }
    b->v[i] = x;
    return top;
}

static bool queue_push(queue *q, uint64_t key) {
    if (key < q->last) return urgent_push(&q->urgent, key);
    if (key == q->last) return bucket_push(&q->radix[0], key);
    int i = 64 - __builtin_clzll(key ^ q->last);
    q->occupied |= UINT64_C(1) << (i - 1);
    return bucket_push(&q->radix[i], key);
}

/* Moves the lowest occupied bucket down; its least key becomes `last`. False when out of memory. */
static bool queue_settle(queue *q) {
    int i = __builtin_ctzll(q->occupied) + 1;
    bucket *b = &q->radix[i];
    q->occupied &= ~(UINT64_C(1) << (i - 1));
    uint64_t least = b->v[0];
    for (size_t k = 1; k < b->n; k++)
        if (b->v[k] < least) least = b->v[k];
    q->last = least;
    size_t n = b->n;
    b->n = 0;                                     /* all keys go to lower buckets */
    for (size_t k = 0; k < n; k++)
        if (!queue_push(q, b->v[k])) return false;
    return true;
}

/* 1: *key is the least; 0: empty; -1: out of memory. */
static int queue_pop(queue *q, uint64_t *key) {
    if (q->urgent.n) { *key = urgent_pop(&q->urgent); return 1; }
    if (!q->radix[0].n) {
        if (!q->occupied) return 0;
        if (!queue_settle(q)) return -1;
    }
    *key = q->radix[0].v[--q->radix[0].n];
    return 1;
}

static void queue_reset(queue *q) {
    for (int i = 0; i < 65; i++) q->radix[i].n = 0;
    q->urgent.n = 0;
    q->last = q->occupied = 0;
}

/* ---- merger ---- */
typedef struct symbol { uint32_t id, prev, next; } symbol;   /* id NONE: merged away */
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
    for (int i = 0; i < 65; i++) tt__free(m->q.radix[i].v);
    tt__free(m->q.urgent.v);
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
static bool push_pair(tt_merger *m, uint32_t pos) {
    const symbol *s = &m->sym[pos];
    if (s->next == NONE) return true;
    uint32_t rank = rank_of(m->t, s->id, m->sym[s->next].id);
    return rank == NONE || queue_push(&m->q, (uint64_t)rank << 32 | pos);
}

static tt_status merge_long(tt_merger *m, size_t n, tt_ids *out, tt_err *err) {
    symbol *sym = m->sym;
    queue_reset(&m->q);
    for (uint32_t i = 0; i < n; i++)
        if (!push_pair(m, i)) return no_memory(err);
    for (;;) {
        uint64_t key;
        int got = queue_pop(&m->q, &key);
        if (got < 0) return no_memory(err);
        if (!got) break;
        uint32_t pos = (uint32_t)key, next = sym[pos].next;
        if (sym[pos].id == NONE || next == NONE) continue;
        const tt_pair_slot *p = tt__pair_find(m->t, sym[pos].id, sym[next].id);
        if (!p || p->rank1 - 1 != (uint32_t)(key >> 32)) continue;       /* stale */
        sym[pos].id = p->id;
        sym[next].id = NONE;
        sym[pos].next = sym[next].next;
        if (sym[pos].next != NONE) sym[sym[pos].next].prev = pos;
        if ((sym[pos].prev != NONE && !push_pair(m, sym[pos].prev)) || !push_pair(m, pos)) return no_memory(err);
    }
    for (uint32_t i = 0; i != NONE && n; i = sym[i].next) tt__ids_push(out, (int32_t)sym[i].id);
    return TT_OK;
}

/* ---- a piece ---- */
/* The tokens of the bytes, missing ones dropped or replaced by unk as decided at load. Returns how many. */
static size_t first_symbols(const tt_tokenizer *t, const uint8_t *s, size_t n, int32_t *ids) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->byte_id[s[i]];
        if (id < 0 || (t->fuse_unk && id == t->unk && k && ids[k - 1] == id)) continue;
        ids[k++] = id;
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
    uint32_t k = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = t->byte_id[s[i]];
        if (id < 0 || (t->fuse_unk && id == t->unk && k && m->sym[k - 1].id == (uint32_t)id)) continue;
        m->sym[k] = (symbol){(uint32_t)id, k ? k - 1 : NONE, k + 1};
        k++;
    }
    if (k) m->sym[k - 1].next = NONE;
    TT_TRY(merge_long(m, k, out, err));
    return out->failed ? no_memory(err) : TT_OK;
}
