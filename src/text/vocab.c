/* Tokens and merges: filled by the readers, validated here, never changed afterwards. See tokenizer_int.h for the layout. */
#include "base/checked.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

/* ---- byte alphabet: 188 printable bytes are themselves, the other 68 follow from U+0100 on ---- */
#define ROW(b) b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7, b + 8, b + 9, b + 10, b + 11, b + 12, b + 13, b + 14, b + 15
const uint16_t tt__byte_to_cp[256] = {
    ROW(0x100), ROW(0x110), 0x120, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x2B, 0x2C, 0x2D, 0x2E, 0x2F,
    ROW(0x30), ROW(0x40), ROW(0x50), ROW(0x60), 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x7B, 0x7C, 0x7D, 0x7E,
    0x121, ROW(0x122), ROW(0x132), 0x142, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAC, 0x143, 0xAE, 0xAF,
    ROW(0xB0), ROW(0xC0), ROW(0xD0), ROW(0xE0), ROW(0xF0),
};
#undef ROW

int tt__cp_to_byte(uint32_t cp) {
    if (cp < 0x100) return tt__byte_to_cp[cp] == cp ? (int)cp : -1;
    if (cp <= 0x120) return (int)(cp - 0x100);
    if (cp <= 0x142) return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

void tt__token_bytes(const tt_tokenizer *t, int32_t id, tt__str *out) {
    const char *s = t->text + t->at[id];
    size_t n = t->at[id + 1] - t->at[id], start = out->n;
    bool plain = (t->flags[id] & TT_TOK_ADDED) || t->type[id] != TT_TOKEN_NORMAL;
    for (size_t i = 0; i < n && !plain;) {
        uint32_t cp;
        int len = tt__utf8_decode((const uint8_t *)s + i, n - i, &cp), byte = len ? tt__cp_to_byte(cp) : -1;
        if (byte < 0) { plain = true; break; }
        char c = (char)byte;
        tt__str_add(out, &c, 1);
        i += (size_t)len;
    }
    if (!plain) return;
    if (out->s) out->n = start;
    tt__str_add(out, s, n);
}

/* ---- hashes: multiply and fold, seeded, so that a hostile file cannot make all its tokens collide (P2) ---- */
static inline uint64_t fold(uint64_t a, uint64_t b) {
    __uint128_t m = (__uint128_t)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}
enum { SHORT_TAIL = 8 };
static uint64_t hash_bytes(uint64_t seed, const char *s, size_t n) {
    const uint64_t k0 = UINT64_C(0xa0761d6478bd642f), k1 = UINT64_C(0xe7037ed1a0b428db);
    uint64_t h = seed ^ fold((uint64_t)n ^ k0, k1);
    for (; n >= SHORT_TAIL; s += SHORT_TAIL, n -= SHORT_TAIL) h = fold(h ^ tt__rd64(s) ^ k0, k1 ^ seed);
    uint64_t tail = 0;
    memcpy(&tail, s, n);
    return fold(h ^ tail ^ k1, k0 ^ seed);
}
static inline uint64_t hash_pair(uint64_t seed, uint32_t l, uint32_t r) {
    return fold(((uint64_t)l << 32 | r) ^ seed, UINT64_C(0x9e3779b97f4a7c15) ^ seed);
}

static size_t power_above(size_t n) {
    size_t p = 16;
    while (p < n) p *= 2;
    return p;
}

/* ---- tokens ---- */
tt_status tt__tokenizer_new(tt_tokenizer **out, tt_err *err) {
    TT_TRY(tt__new(out, 1, sizeof **out, "a tokenizer", err));
    tt_tokenizer *t = *out;
    t->bos = t->eos = t->unk = t->pad = t->last_result = -1;
    uint64_t mix[2] = {(uint64_t)(uintptr_t)t, 0};
    double now = tt__now();
    memcpy(&mix[1], &now, sizeof now);
    t->seed = fold(mix[0] ^ UINT64_C(0x8ebc6af09c88c6e3), mix[1] ^ UINT64_C(0x589965cc75374cc3));
    return TT_OK;
}

void tt__tokenizer_free(tt_tokenizer *t) {
    if (!t) return;
    tt__free(t->text);
    tt__free(t->at);
    tt__free(t->type);
    tt__free(t->flags);
    tt__free(t->vocab);
    tt__free(t->pairs);
    tt__free(t->ends);
    tt__free(t->raw.ids);
    tt__free(t->normalized.ids);
    tt__free(t->chat_template);
    tt__free(t);
}

static bool grow(void *array, size_t n, size_t size) {
    void **p = array, *v = tt__realloc(*p, tt__array_bytes(n, size));
    if (v) *p = v;
    return v != NULL;
}

static bool make_room(tt_tokenizer *t, size_t bytes) {
    if (t->n + 1 >= t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 1024;
        if (!grow(&t->at, cap + 1, sizeof *t->at) || !grow(&t->type, cap, 1) || !grow(&t->flags, cap, 1)) return false;
        if (!t->n) t->at[0] = 0;
        t->cap = cap;
    }
    if (!t->text || bytes > t->text_cap - t->text_n) {
        size_t cap = t->text_cap * 2 + bytes + 4096;
        if (!grow(&t->text, cap, 1)) return false;
        t->text_cap = cap;
    }
    return true;
}

tt_status tt__tokenizer_push(tt_tokenizer *t, const char *s, size_t n, tt_token_type type, unsigned flags, const char *where, tt_err *err) {
    TT_FAIL_IF(t->n >= TT_LIMIT_VOCAB, err, TT_BADFILE, "too many tokens|%s|more than %zu|at most %llu (VOCAB)", where, t->n,
               (unsigned long long)TT_LIMIT_VOCAB);
    TT_FAIL_IF(n > TT_LIMIT_TOKEN_BYTES, err, TT_BADFILE, "token too long|%s, token %zu|%zu bytes|at most %llu (TOKEN_BYTES)", where, t->n, n,
               (unsigned long long)TT_LIMIT_TOKEN_BYTES);
    if (!make_room(t, n)) return tt__fail(err, TT_RESOURCE, "out of memory|for the vocabulary of %s", where);
    memcpy(t->text + t->text_n, s, n);
    t->text_n += n;
    t->type[t->n] = (uint8_t)type;
    t->flags[t->n] = (uint8_t)flags;
    t->at[++t->n] = t->text_n;
    return TT_OK;
}

static inline bool is_token(const tt_tokenizer *t, size_t id, const char *s, size_t n) {
    return t->at[id + 1] - t->at[id] == n && memcmp(t->text + t->at[id], s, n) == 0;
}

tt_status tt__tokenizer_index(tt_tokenizer *t, const char *where, tt_err *err) {
    size_t slots = power_above(t->n * 2);
    TT_TRY(tt__new(&t->vocab, slots, sizeof *t->vocab, "the vocabulary", err));
    t->vocab_mask = slots - 1;
    for (size_t id = 0; id < t->n; id++) {
        const char *s = t->text + t->at[id];
        size_t n = t->at[id + 1] - t->at[id];
        if (n == 0) continue;                     /* a hole */
        uint64_t h = hash_bytes(t->seed, s, n);
        size_t i = h & t->vocab_mask;
        for (; t->vocab[i].id1; i = (i + 1) & t->vocab_mask)
            TT_FAIL_IF(t->vocab[i].tag == (uint32_t)(h >> 32) && is_token(t, t->vocab[i].id1 - 1, s, n), err, TT_BADFILE,
                       "doubled token|%s, token %zu|\"%.*s\"|each token once|token %u is the same", where, id, (int)(n < 60 ? n : 60), s,
                       t->vocab[i].id1 - 1);
        t->vocab[i] = (tt_vocab_slot){(uint32_t)id + 1, (uint32_t)(h >> 32)};
    }
    return TT_OK;
}

int32_t tt__tokenizer_find(const tt_tokenizer *t, const char *token, size_t n) {
    if (n == 0) return -1;
    uint64_t h = hash_bytes(t->seed, token, n);
    for (size_t i = h & t->vocab_mask; t->vocab[i].id1; i = (i + 1) & t->vocab_mask)
        if (t->vocab[i].tag == (uint32_t)(h >> 32) && is_token(t, t->vocab[i].id1 - 1, token, n)) return (int32_t)t->vocab[i].id1 - 1;
    return -1;
}

/* ---- merges ---- */
const tt_pair_slot *tt__pair_find(const tt_tokenizer *t, uint32_t left, uint32_t right) {
    for (size_t i = hash_pair(t->seed, left, right) & t->pair_mask; t->pairs[i].rank1; i = (i + 1) & t->pair_mask)
        if (t->pairs[i].left == left && t->pairs[i].right == right) return &t->pairs[i];
    return NULL;
}

tt_status tt__tokenizer_reserve_merges(tt_tokenizer *t, size_t n, tt_err *err) {
    TT_FAIL_IF(n > TT_LIMIT_MERGES, err, TT_BADFILE, "too many merges||%zu|at most %llu (MERGES)", n, (unsigned long long)TT_LIMIT_MERGES);
    size_t slots = power_above(n * 2);
    TT_TRY(tt__new(&t->pairs, slots, sizeof *t->pairs, "the merges", err));
    t->pair_mask = slots - 1;
    return TT_OK;
}

static tt_status bad_merge(const tt_tokenizer *t, const char *what, const char *l, size_t nl, const char *r, size_t nr, const char *where,
                           tt_err *err) {
    return tt__fail(err, TT_BADFILE, "bad merge|%s, merge %zu|\"%.*s %.*s\"|%s", where, t->n_merges, (int)(nl < 60 ? nl : 60), l,
                    (int)(nr < 60 ? nr : 60), r, what);
}

/* In trained vocabularies the result of a merge is the token after that of the merge before: look there first. */
static int32_t result_of(const tt_tokenizer *t, int32_t guess, const char *l, size_t nl, const char *r, size_t nr) {
    char joined[512];
    if ((size_t)guess < t->n && t->at[guess + 1] - t->at[guess] == nl + nr && memcmp(t->text + t->at[guess], l, nl) == 0 &&
        memcmp(t->text + t->at[guess] + nl, r, nr) == 0)
        return guess;
    char *p = nl + nr <= sizeof joined ? joined : tt__alloc(nl + nr);
    if (!p) return -1;
    memcpy(p, l, nl);
    memcpy(p + nl, r, nr);
    int32_t id = tt__tokenizer_find(t, p, nl + nr);
    if (p != joined) tt__free(p);
    return id;
}

/* A control token in a merge would let text become one (S1). */
static bool can_merge(const tt_tokenizer *t, int32_t id) { return id >= 0 && (t->flags[id] & TT_TOK_IN_MODEL) && t->type[id] != TT_TOKEN_CONTROL; }

tt_status tt__tokenizer_add_merge(tt_tokenizer *t, const char *left, size_t nl, const char *right, size_t nr, const char *where, tt_err *err) {
    if (!nl || !nr) return bad_merge(t, "two parts", left, nl, right, nr, where, err);
    int32_t l = tt__tokenizer_find(t, left, nl), r = tt__tokenizer_find(t, right, nr);
    if (!can_merge(t, l) || !can_merge(t, r)) return bad_merge(t, "parts that are ordinary tokens", left, nl, right, nr, where, err);
    int32_t id = result_of(t, t->last_result + 1, left, nl, right, nr);
    if (!can_merge(t, id)) return bad_merge(t, "a result that is an ordinary token", left, nl, right, nr, where, err);
    t->last_result = id;
    size_t i = hash_pair(t->seed, (uint32_t)l, (uint32_t)r) & t->pair_mask;
    while (t->pairs[i].rank1 && !(t->pairs[i].left == (uint32_t)l && t->pairs[i].right == (uint32_t)r)) i = (i + 1) & t->pair_mask;
    t->pairs[i] = (tt_pair_slot){(uint32_t)l, (uint32_t)r, (uint32_t)++t->n_merges, (uint32_t)id};   /* a doubled merge: the later rank */
    return TT_OK;
}

/* ---- bytes (T5) ---- */
/* Bytes that text of assigned characters can hold: all but control characters and the lead bytes of planes without any. A vocabulary
 * that lacks others drops them, as the package does; one that lacks these is no byte-level vocabulary. */
static bool is_text_byte(int b) {
    return b == '\t' || b == '\n' || b == '\r' || (b >= 0x20 && b < 0x7F) || (b >= 0x80 && b < 0xC0) || (b >= 0xC2 && b <= 0xF0) || b == 0xF3;
}

static tt_status find_bytes(tt_tokenizer *t, const char *where, tt_err *err) {
    for (int b = 0; b < 256; b++) {
        char c[4];
        int32_t id = tt__tokenizer_find(t, c, (size_t)tt__utf8_encode(tt__byte_to_cp[b], c));
        if (!can_merge(t, id)) id = t->unk;
        TT_FAIL_IF(id < 0 && is_text_byte(b), err, TT_BADFILE, "not a byte-level vocabulary|%s|no token for byte 0x%02X|one for every byte of text|"
                   "byte-level BPE of the GPT-2, Llama 3 and Qwen2 kind is supported", where, (unsigned)b);
        t->byte_id[b] = id;
    }
    return TT_OK;
}

/* ---- added tokens (T6) ---- */
static int compare_tokens(const tt_tokenizer *t, int32_t a, int32_t b) {
    size_t na = t->at[a + 1] - t->at[a], nb = t->at[b + 1] - t->at[b];
    int c = memcmp(t->text + t->at[a], t->text + t->at[b], na < nb ? na : nb);
    return c ? c : na < nb ? -1 : na > nb;
}

/* Heap sort: the standard's qsort takes no context and may be quadratic. */
static void sift(const tt_tokenizer *t, int32_t *v, size_t i, size_t n) {
    int32_t x = v[i];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && compare_tokens(t, v[c], v[c + 1]) < 0) c++;
        if (compare_tokens(t, x, v[c]) >= 0) break;
        v[i] = v[c];
    }
    v[i] = x;
}
static void sort_tokens(const tt_tokenizer *t, int32_t *v, size_t n) {
    for (size_t i = n / 2; i-- > 0;) sift(t, v, i, n);
    for (size_t k = n; k-- > 1;) {
        int32_t x = v[0];
        v[0] = v[k];
        v[k] = x;
        sift(t, v, 0, k);
    }
}

static tt_status collect_added(tt_tokenizer *t, tt_added *a, bool normalized, tt_err *err) {
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) n += (t->flags[i] & TT_TOK_ADDED) && !(t->flags[i] & TT_TOK_NORMALIZED) == !normalized;
    if (n == 0) return TT_OK;
    TT_TRY(tt__new(&a->ids, n, sizeof *a->ids, "the added tokens", err));
    for (size_t i = 0; i < t->n; i++)
        if ((t->flags[i] & TT_TOK_ADDED) && !(t->flags[i] & TT_TOK_NORMALIZED) == !normalized) {
            a->ids[a->n++] = (int32_t)i;
            a->first[(uint8_t)t->text[t->at[i]]] = true;
        }
    sort_tokens(t, a->ids, a->n);
    return TT_OK;
}

static tt_status check_added(const tt_tokenizer *t, const char *where, tt_err *err) {
    for (size_t i = 0; i < t->n; i++) {
        if (!(t->flags[i] & TT_TOK_ADDED)) continue;
        size_t n = t->at[i + 1] - t->at[i];
        TT_FAIL_IF(n == 0, err, TT_BADFILE, "empty added token|%s, token %zu", where, i);
        TT_FAIL_IF(n > TT_LIMIT_ADDED_TOKEN, err, TT_BADFILE, "added token too long|%s, token %zu|%zu bytes|at most %llu (ADDED_TOKEN)", where, i, n,
                   (unsigned long long)TT_LIMIT_ADDED_TOKEN);
        TT_FAIL_IF(tt__utf8_span((const uint8_t *)t->text + t->at[i], n) != n, err, TT_BADFILE, "added token is not UTF-8|%s, token %zu", where, i);
    }
    return TT_OK;
}

/* Tokens a..b of the sorted list whose byte at `depth` is c, all of them agreeing before it. */
static size_t first_not_below(const tt_tokenizer *t, const tt_added *a, size_t lo, size_t hi, size_t depth, int c) {
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        size_t at = t->at[a->ids[mid]], n = t->at[a->ids[mid] + 1] - at;
        int b = depth < n ? (uint8_t)t->text[at + depth] : -1;
        if (b < c) lo = mid + 1; else hi = mid;
    }
    return lo;
}

/* The longest token that s[0..n) begins with, or -1. */
static int32_t longest_at(const tt_tokenizer *t, const tt_added *a, const char *s, size_t n) {
    int32_t best = -1;
    size_t lo = 0, hi = a->n;
    for (size_t depth = 0; lo < hi; depth++) {
        int32_t shortest = a->ids[lo];
        if (t->at[shortest + 1] - t->at[shortest] == depth) best = shortest, lo++;
        if (depth == n) break;
        int c = (uint8_t)s[depth];
        lo = first_not_below(t, a, lo, hi, depth, c);
        hi = first_not_below(t, a, lo, hi, depth, c + 1);
    }
    return best;
}

bool tt__added_next(const tt_tokenizer *t, const tt_added *a, const char *s, size_t n, size_t from, size_t *begin, size_t *end, int32_t *id) {
    if (a->n == 0) return false;
    for (size_t i = from; i < n; i++) {
        if (!a->first[(uint8_t)s[i]]) continue;
        int32_t found = longest_at(t, a, s + i, n - i);
        if (found < 0) continue;
        *begin = i;
        *end = i + t->at[found + 1] - t->at[found];
        *id = found;
        return true;
    }
    return false;
}

/* ---- ends of a generation (attention.md D0) ---- */
tt_status tt__tokenizer_add_end(tt_tokenizer *t, int32_t id, tt_err *err) {
    if (id < 0 || tt__tokenizer_is_end(t, id)) return TT_OK;
    if (!grow(&t->ends, t->n_ends + 1, sizeof *t->ends)) return tt__fail(err, TT_RESOURCE, "out of memory|for a tokenizer");
    t->ends[t->n_ends++] = id;
    return TT_OK;
}

bool tt__tokenizer_is_end(const tt_tokenizer *t, int32_t id) {
    for (size_t i = 0; i < t->n_ends; i++)
        if (t->ends[i] == id) return true;
    return false;
}

static tt_status find_ends(tt_tokenizer *t, tt_err *err) {
    static const char *const names[] = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>"};
    TT_TRY(tt__tokenizer_add_end(t, t->eos, err));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) TT_TRY(tt__tokenizer_add_end(t, tt__tokenizer_find(t, names[i], strlen(names[i])), err));
    return TT_OK;
}

tt_status tt__tokenizer_finish(tt_tokenizer *t, const char *where, tt_err *err) {
    if (!t->pairs) TT_TRY(tt__tokenizer_reserve_merges(t, 0, err));
    TT_TRY(check_added(t, where, err));
    TT_TRY(find_bytes(t, where, err));
    TT_TRY(collect_added(t, &t->raw, false, err));
    TT_TRY(collect_added(t, &t->normalized, true, err));
    return find_ends(t, err);
}
