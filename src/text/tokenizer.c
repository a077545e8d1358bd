/* Encoding and decoding, and opening a tokenizer from GGUF metadata.
 *
 * Encoding, as the `tokenizers` package does it:
 *
 *   text ─ added tokens, raw ─► stretches ─ NFC ─► ─ added tokens, normalized ─► ─ pre-tokenizer ─► pieces ─ merges ─► ids
 *
 * Bytes that are not UTF-8 are no text: each becomes its own byte token, and the valid stretches between them are encoded alone. */
#include "base/err.h"
#include "base/limits.h"
#include "base/mem.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

/* ---- questions ---- */
int64_t tt__tokenizer_size(const tt_tokenizer *t) { return (int64_t)t->n; }
int32_t tt__tokenizer_bos(const tt_tokenizer *t) { return t->bos; }
int32_t tt__tokenizer_eos(const tt_tokenizer *t) { return t->eos; }
bool tt__tokenizer_adds_bos(const tt_tokenizer *t) { return t->adds_bos; }
const char *tt__tokenizer_template(const tt_tokenizer *t) { return t->chat_template; }
const char *tt__tokenizer_pre(const tt_tokenizer *t) { return tt__pretok_name(t->pre); }

const char *tt__tokenizer_token(const tt_tokenizer *t, int32_t id, size_t *n, tt_token_type *type) {
    if (id < 0 || (size_t)id >= t->n) return NULL;
    if (n) *n = t->at[id + 1] - t->at[id];
    if (type) *type = (tt_token_type)t->type[id];
    return t->text + t->at[id];
}

/* ---- encoding ---- */
typedef struct encoder {
    const tt_tokenizer *t;
    tt_merger *merger;
    tt__str nfc;
    tt_ids ids;
    bool parse_special;
    const uint8_t *text_mark;        /* NULL, or one byte per byte of `whole`: not 0 where no control token may come from */
    const char *whole;
} encoder;

static tt_status encode_pieces(encoder *e, const char *s, size_t n, tt_err *err) {
    tt_pieces p = tt__pieces(e->t->pre, s, n);
    for (size_t begin, end; tt__pieces_next(&p, &begin, &end);)
        TT_TRY(tt__merge_piece(e->merger, (const uint8_t *)s + begin, end - begin, &e->ids, err));
    return TT_OK;
}

static bool is_word(const char *s, size_t n, bool at_end) {
    size_t len;
    if (n == 0) return false;
    uint32_t cp = at_end ? tt__utf8_prev((const uint8_t *)s, n, &len) : tt__utf8_next((const uint8_t *)s, &len);
    return (tt__class(cp) & TT_UC_WORD) != 0;
}
static size_t spaces_before(const char *s, size_t begin) {
    size_t len;
    while (begin > 0 && (tt__class(tt__utf8_prev((const uint8_t *)s, begin, &len)) & TT_UC_SPACE)) begin -= len;
    return begin;
}
static size_t spaces_after(const char *s, size_t n, size_t end) {
    size_t len;
    while (end < n && (tt__class(tt__utf8_next((const uint8_t *)s + end, &len)) & TT_UC_SPACE)) end += len;
    return end;
}

static bool all_markup(const encoder *e, const char *s, size_t n) {
    const uint8_t *mark = e->text_mark + (s - e->whole);
    for (size_t i = 0; i < n; i++)
        if (mark[i]) return false;
    return true;
}

/* A control token comes only from markup. */
static bool is_allowed(const encoder *e, int32_t id, const char *s, size_t begin, size_t end) {
    if (e->t->type[id] == TT_TOKEN_USER) return true;
    return e->parse_special && (!e->text_mark || all_markup(e, s + begin, end - begin));
}

/* A match that may become a token here; lstrip and rstrip widen it. */
static bool accept(const encoder *e, int32_t id, const char *s, size_t n, size_t from, size_t *begin, size_t *end) {
    unsigned flags = e->t->flags[id];
    if (!is_allowed(e, id, s, *begin, *end)) return false;
    if ((flags & TT_TOK_SINGLE_WORD) && (is_word(s, *begin, true) || is_word(s + *end, n - *end, false))) return false;
    if (flags & TT_TOK_LSTRIP) {
        size_t b = spaces_before(s, *begin);
        *begin = b > from ? b : from;
    }
    if (flags & TT_TOK_RSTRIP) *end = spaces_after(s, n, *end);
    return true;
}

/* Splits s at the added tokens of one list; `rest` gets what lies between. A match that is not accepted still hides shorter ones inside
 * it, as in the package; but text must not hide markup behind it. */
typedef tt_status (*rest_fn)(encoder *e, const char *s, size_t n, tt_err *err);
static tt_status split_added(encoder *e, const tt_added *a, const char *s, size_t n, rest_fn rest, tt_err *err) {
    size_t done = 0, from = 0, begin, end;
    int32_t id;
    while (tt__added_next(e->t, a, s, n, from, &begin, &end, &id)) {
        from = e->text_mark ? begin + 1 : end;
        if (!accept(e, id, s, n, done, &begin, &end)) continue;
        if (from < end) from = end;
        if (begin > done) TT_TRY(rest(e, s + done, begin - done, err));
        tt__ids_push(&e->ids, id);
        done = end;
    }
    return done < n ? rest(e, s + done, n - done, err) : TT_OK;
}

/* Marks do not outlive normalization: after it, a stretch is markup when all of it was. */
static tt_status encode_normalized(encoder *e, const char *s, size_t n, tt_err *err) {
    encoder plain;
    if (e->text_mark) {
        if (!e->t->nfc) return split_added(e, &e->t->normalized, s, n, encode_pieces, err);
        plain = *e;
        plain.parse_special = e->parse_special && all_markup(e, s, n);
        plain.text_mark = NULL;
        tt_status st = encode_normalized(&plain, s, n, err);
        e->ids = plain.ids;
        e->nfc = plain.nfc;
        return st;
    }
    if (e->t->nfc) {
        e->nfc.n = 0;
        TT_TRY(tt__nfc(s, n, &e->nfc, err));
        s = e->nfc.s;
        n = e->nfc.n;
    }
    return split_added(e, &e->t->normalized, s, n, encode_pieces, err);
}

static tt_status encode_bytes(encoder *e, const char *s, size_t n, tt_err *err) {
    for (size_t i = 0; i < n;) {
        size_t span = tt__utf8_span((const uint8_t *)s + i, n - i);
        if (span) TT_TRY(split_added(e, &e->t->raw, s + i, span, encode_normalized, err));
        i += span;
        if (i < n) TT_TRY(tt__merge_piece(e->merger, (const uint8_t *)s + i++, 1, &e->ids, err));
    }
    return TT_OK;
}

tt_status tt__tokenizer_encode_marked(const tt_tokenizer *t, const char *text, const uint8_t *mark, size_t n, unsigned flags, int32_t **ids, size_t *n_ids,
                                      tt_err *err) {
    encoder e = {.t = t, .parse_special = flags & TT_PARSE_SPECIAL, .text_mark = mark, .whole = text};
    *ids = NULL;
    *n_ids = 0;
    TT_TRY(tt__merger_create(t, &e.merger, err));
    if ((flags & TT_ADD_SPECIAL) && t->adds_bos && t->bos >= 0) tt__ids_push(&e.ids, t->bos);
    tt_status st = encode_bytes(&e, text, n, err);
    if ((flags & TT_ADD_SPECIAL) && t->adds_eos && t->eos >= 0) tt__ids_push(&e.ids, t->eos);
    if (!e.ids.v) tt__ids_grow(&e.ids);           /* an empty list is a list */
    if (st == TT_OK && e.ids.failed) st = tt__fail(err, TT_RESOURCE, "out of memory|for tokenizing");
    tt__merger_free(e.merger);
    tt__str_free(&e.nfc);
    if (st != TT_OK) { tt__free(e.ids.v); return st; }
    *ids = e.ids.v;
    *n_ids = e.ids.n;
    return TT_OK;
}

tt_status tt__tokenizer_encode(const tt_tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids, size_t *n_ids, tt_err *err) {
    return tt__tokenizer_encode_marked(t, text, NULL, n, flags, ids, n_ids, err);
}

tt_status tt__tokenizer_decode(const tt_tokenizer *t, const int32_t *ids, size_t n, bool with_special, char **text, size_t *bytes, tt_err *err) {
    tt__str out = {0};
    *text = NULL;
    *bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= t->n) {
            tt__str_free(&out);
            return tt__fail(err, TT_USAGE, "no such token|position %zu|id %d|0 … %zu", i, ids[i], t->n - 1);
        }
        bool special = t->type[ids[i]] == TT_TOKEN_CONTROL || ((t->flags[ids[i]] & TT_TOK_ADDED) && t->type[ids[i]] == TT_TOKEN_UNKNOWN);
        if (with_special || !special) tt__token_bytes(t, ids[i], &out);
    }
    tt__str_add(&out, "", 0);
    if (!out.s || out.failed) {
        tt__str_free(&out);
        return tt__fail(err, TT_RESOURCE, "out of memory|for decoding");
    }
    *text = out.s;
    *bytes = out.n;
    return TT_OK;
}

/* ---- from GGUF (attention.md E) ---- */
#define K(name) "tokenizer.ggml." name

static tt_status read_kind(const tt_gguf *g, tt_tokenizer *t, tt_err *err) {
    const char *s, *where = tt__gguf_path(g);
    size_t n;
    TT_TRY(tt__gguf_str(g, K("model"), true, &s, &n, err));
    TT_FAIL_IF(n != 4 || memcmp(s, "gpt2", 4) != 0, err, TT_BADFILE, "unsupported tokenizer|%s, " K("model") "|\"%.*s\"|\"gpt2\" (byte-level BPE)", where,
               (int)(n < 60 ? n : 60), s);
    TT_TRY(tt__gguf_str(g, K("pre"), true, &s, &n, err));
    TT_FAIL_IF(!tt__pretok_find(s, n, &t->pre), err, TT_BADFILE,
               "unsupported pre-tokenizer|%s, " K("pre") "|\"%.*s\"|gpt-2, smollm, llama-bpe or qwen2|a guess would split text wrongly", where,
               (int)(n < 60 ? n : 60), s);
    t->ignore_merges = t->adds_bos = t->pre == TT_PRE_LLAMA3;
    t->nfc = t->pre == TT_PRE_QWEN2;              /* GGUF has no key for it; Qwen's own tokenizers normalize */
    TT_TRY(tt__gguf_bool(g, K("add_bos_token"), false, &t->adds_bos, err));
    TT_TRY(tt__gguf_bool(g, K("add_eos_token"), false, &t->adds_eos, err));
    TT_TRY(tt__gguf_bool(g, "trimtab.tokenizer.ignore_merges", false, &t->ignore_merges, err));
    TT_TRY(tt__gguf_bool(g, "trimtab.tokenizer.fuse_unk", false, &t->fuse_unk, err));
    return tt__gguf_bool(g, "trimtab.tokenizer.nfc", false, &t->nfc, err);
}

static unsigned flags_of(int32_t type) {
    switch (type) {
    case TT_TOKEN_CONTROL: case TT_TOKEN_UNKNOWN: return TT_TOK_ADDED;
    case TT_TOKEN_USER: return TT_TOK_ADDED | TT_TOK_IN_MODEL;
    case TT_TOKEN_UNDEFINED: case TT_TOKEN_NORMAL: return TT_TOK_IN_MODEL;
    default: return 0;
    }
}

static tt_status read_tokens(const tt_gguf *g, tt_tokenizer *t, tt_err *err) {
    const char *where = tt__gguf_path(g);
    size_t n, n_types = 0;
    int32_t *types = NULL;
    TT_TRY(tt__gguf_strs(g, K("tokens"), true, &n, err));
    TT_FAIL_IF(n == 0, err, TT_BADFILE, "empty vocabulary|%s, " K("tokens"), where);
    TT_TRY(tt__gguf_i32s(g, K("token_type"), false, &types, &n_types, err));
    tt_status st = TT_OK;
    if (types && n_types != n)
        st = tt__fail(err, TT_BADFILE, "token types do not fit|%s, " K("token_type") "|%zu types|%zu, one per token", where, n_types, n);
    for (size_t i = 0; i < n && st == TT_OK; i++) {
        const char *s;
        size_t len;
        int32_t type = types ? types[i] : TT_TOKEN_NORMAL;
        if (type < 0 || type > TT_TOKEN_BYTE)
            st = tt__fail(err, TT_BADFILE, "unknown token type|%s, " K("token_type") ", token %zu|%d|0 … 6", where, i, type);
        if (st == TT_OK) st = tt__gguf_strs_at(g, K("tokens"), i, &s, &len, err);
        if (type == TT_TOKEN_UNDEFINED) type = TT_TOKEN_NORMAL;
        if (st == TT_OK) st = tt__tokenizer_push(t, s, len, (tt_token_type)type, flags_of(type), where, err);
    }
    tt__free(types);
    return st == TT_OK ? tt__tokenizer_index(t, where, err) : st;
}

static tt_status read_merges(const tt_gguf *g, tt_tokenizer *t, tt_err *err) {
    size_t n;
    TT_TRY(tt__gguf_strs(g, K("merges"), true, &n, err));
    TT_TRY(tt__tokenizer_reserve_merges(t, n, err));
    for (size_t i = 0; i < n; i++) {
        const char *s;
        size_t len;
        TT_TRY(tt__gguf_strs_at(g, K("merges"), i, &s, &len, err));
        const char *space = len > 1 ? memchr(s + 1, ' ', len - 1) : NULL;   /* a part may begin with a space, not hold one later */
        size_t left = space ? (size_t)(space - s) : len;
        TT_TRY(tt__tokenizer_add_merge(t, s, left, space ? space + 1 : s, space ? len - left - 1 : 0, tt__gguf_path(g), err));
    }
    return TT_OK;
}

static tt_status read_id(const tt_gguf *g, const tt_tokenizer *t, const char *key, int32_t *out, tt_err *err) {
    int64_t id = -1;
    TT_TRY(tt__gguf_i64(g, key, false, 0, (int64_t)t->n - 1, &id, err));
    *out = (int32_t)id;
    return TT_OK;
}

/* trimtab.tokenizer.added_flags: id, flags, id, flags … of added tokens that GGUF's types do not describe fully; TT_TOK_ADDED in this list
 * says that the token is no piece of the model's own. */
static tt_status read_added_flags(const tt_gguf *g, tt_tokenizer *t, tt_err *err) {
    int32_t *v = NULL;
    size_t n = 0;
    TT_TRY(tt__gguf_i32s(g, "trimtab.tokenizer.added_flags", false, &v, &n, err));
    tt_status st = TT_OK;
    if (n % 2) st = tt__fail(err, TT_BADFILE, "odd list|%s, trimtab.tokenizer.added_flags|%zu values|pairs", tt__gguf_path(g), n);
    for (size_t i = 0; i + 1 < n && st == TT_OK; i += 2) {
        int32_t id = v[i], flags = v[i + 1];
        if (id < 0 || (size_t)id >= t->n || !(t->flags[id] & TT_TOK_ADDED) || flags < 0 || flags >= 2 * TT_TOK_ADDED) {
            st = tt__fail(err, TT_BADFILE, "bad flags|%s, trimtab.tokenizer.added_flags|token %d, flags %d|an added token, 0 … 31", tt__gguf_path(g), id, flags);
        } else {
            if (flags & TT_TOK_ADDED) t->flags[id] &= (uint8_t)~TT_TOK_IN_MODEL;
            t->flags[id] |= (uint8_t)flags;
        }
    }
    tt__free(v);
    return st;
}

static tt_status read_rest(const tt_gguf *g, tt_tokenizer *t, int32_t more_ends[2], tt_err *err) {
    const char *s = NULL;
    size_t n = 0;
    TT_TRY(read_id(g, t, K("bos_token_id"), &t->bos, err));
    TT_TRY(read_id(g, t, K("eos_token_id"), &t->eos, err));
    TT_TRY(read_id(g, t, K("padding_token_id"), &t->pad, err));
    TT_TRY(read_id(g, t, K("eot_token_id"), &more_ends[0], err));
    TT_TRY(read_id(g, t, K("eom_token_id"), &more_ends[1], err));
    TT_TRY(read_id(g, t, "trimtab.tokenizer.unk_token_id", &t->unk, err));
    TT_TRY(read_added_flags(g, t, err));
    TT_TRY(tt__gguf_str(g, "tokenizer.chat_template", false, &s, &n, err));
    TT_FAIL_IF(n > TT_LIMIT_TEMPLATE_BYTES, err, TT_BADFILE, "chat template too long|%s|%zu bytes|at most %llu (TEMPLATE_BYTES)", tt__gguf_path(g), n,
               (unsigned long long)TT_LIMIT_TEMPLATE_BYTES);
    if (s && !(t->chat_template = tt__strndup(s, n))) return tt__fail(err, TT_RESOURCE, "out of memory|for a chat template");
    return TT_OK;
}

static tt_status fill_from_gguf(const tt_gguf *g, tt_tokenizer *t, tt_err *err) {
    int32_t more_ends[2] = {-1, -1};
    TT_TRY(read_kind(g, t, err));
    TT_TRY(read_tokens(g, t, err));
    TT_TRY(read_merges(g, t, err));
    TT_TRY(read_rest(g, t, more_ends, err));
    TT_TRY(tt__tokenizer_finish(t, tt__gguf_path(g), err));
    TT_TRY(tt__tokenizer_add_end(t, more_ends[0], err));
    return tt__tokenizer_add_end(t, more_ends[1], err);
}

tt_status tt__tokenizer_from_gguf(const tt_gguf *g, tt_tokenizer **out, tt_err *err) {
    *out = NULL;
    tt_tokenizer *t;
    TT_TRY(tt__tokenizer_new(&t, err));
    tt_status st = fill_from_gguf(g, t, err);
    if (st != TT_OK) { tt__tokenizer_free(t); return st; }
    *out = t;
    return TT_OK;
}
