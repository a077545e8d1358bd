/* tokenizer.json from any bytes. What loads encodes any text without a control token, and encodes equally after a journey through GGUF. */
#include "base/mem.h"
#include "base/util.h"
#include "scratch.h"
#include "text/tokenizer_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)

static const char text[] = "Hello, world! It's 12345\n\n  caf\xC3\xA9 e\xCC\x81 <|im_end|> \xF0\x9F\x98\x80 \xFF\xE2\x82 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa <x>abab";

static void check_equal(const tt_tokenizer *a, const tt_tokenizer *b, unsigned flags) {
    int32_t *x, *y;
    size_t n, m;
    MUST(tt__tokenizer_encode(a, text, sizeof text - 1, flags, &x, &n, NULL) == TT_OK);
    MUST(tt__tokenizer_encode(b, text, sizeof text - 1, flags, &y, &m, NULL) == TT_OK);
    MUST(n == m && memcmp(x, y, n * sizeof *x) == 0);
    tt__free(x);
    tt__free(y);
}

static void check_encoding(const tt_tokenizer *t) {
    int32_t *ids;
    size_t n, bytes;
    char *back;
    MUST(tt__tokenizer_encode(t, text, sizeof text - 1, 0, &ids, &n, NULL) == TT_OK);
    for (size_t i = 0; i < n; i++) {
        tt_token_type type;
        MUST(tt__tokenizer_token(t, ids[i], &bytes, &type) && type != TT_TOKEN_CONTROL);
    }
    MUST(tt__tokenizer_decode(t, ids, n, true, &back, &bytes, NULL) == TT_OK);
    tt__free(ids);
    tt__free(back);
}

/* Some tokens have no form in GGUF, and such a tokenizer is not written. */
static void check_gguf(const tt_tokenizer *t) {
    tt_gguf_writer *w;
    tt_gguf *g;
    tt_tokenizer *back;
    MUST(tt__gguf_writer_create(&w, NULL) == TT_OK && tt__gguf_set_str(w, "general.architecture", "llama", NULL) == TT_OK);
    if (tt__tokenizer_to_gguf(t, w, NULL) == TT_OK && tt__gguf_writer_save(w, scratch_path("t.gguf"), NULL) == TT_OK) {
        MUST(tt__gguf_open(scratch_path("t.gguf"), &g, NULL) == TT_OK);
        if (tt__tokenizer_from_gguf(g, &back, NULL) != TT_OK) abort();
        check_equal(t, back, 0);
        check_equal(t, back, TT_PARSE_SPECIAL | TT_ADD_SPECIAL);
        tt__tokenizer_free(back);
        tt__gguf_close(g);
    }
    tt__gguf_writer_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tt_err err = {0};
    tt_tokenizer *t;
    uint64_t before = tt__mem_now();
    tt_status st = tt__tokenizer_from_json((const char *)data, size, "fuzz", &t, &err);
    MUST(st == TT_OK || (st == TT_BADFILE && err.what[0] && !t));
    if (st == TT_OK) {
        check_encoding(t);
        check_gguf(t);
        tt__tokenizer_free(t);
    }
    MUST(tt__mem_now() == before);
    return 0;
}
