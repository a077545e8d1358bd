/* Any bytes as text: the first byte chooses one of the test vocabularies and the flags. The bytes come back from decoding, where nothing is
 * normalized and no token swallows blanks; without parsing no control token appears; pieces cover the text. */
#include "base/file.h"
#include "base/mem.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"
#include <stdio.h>
#include <stdlib.h>
#include "trimtab/trimtab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)

enum { TOKENIZERS = 3 };
static tt_tokenizer *tokenizers[TOKENIZERS];

/* The vocabularies lie beside the corpus; the program runs in the folder of the source. */
static void load_tokenizers(void) {
    static const char *const names[TOKENIZERS] = {"gpt-2", "llama-bpe", "qwen2"};
    for (int i = 0; i < TOKENIZERS; i++) {
        char path[1000], *s;
        size_t n;
        snprintf(path, sizeof path, "tests/golden/tokenizers/%s.json", names[i]);
        MUST(tt__read_file(path, 1 << 20, &s, &n, NULL) == TT_OK && tt__tokenizer_from_json(s, n, path, &tokenizers[i], NULL) == TT_OK);
        tt__free(s);
    }
}

static void check_pieces(const char *s, size_t n) {
    n = tt__utf8_span((const uint8_t *)s, n);
    for (int pre = 0; pre < TT_PRE_COUNT; pre++) {
        size_t at = 0;
        tt_pieces p = tt__pieces((tt_pretok)pre, s, n);
        for (size_t begin, end; tt__pieces_next(&p, &begin, &end); at = end) MUST(begin == at && end > begin);
        MUST(at == n);
    }
}

static bool swallows(const tt_tokenizer *t, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (t->flags[ids[i]] & (TT_TOK_LSTRIP | TT_TOK_RSTRIP)) return true;
    return false;
}

/* NFC is a projection, and a text in NFC keeps its code points. */
static void check_nfc(const char *s, size_t n) {
    tt__str once = {0}, twice = {0};
    MUST(tt__nfc(s, n, &once, NULL) == TT_OK && tt__nfc(once.s ? once.s : "", once.n, &twice, NULL) == TT_OK);
    MUST(once.n == twice.n && (once.n == 0 || memcmp(once.s, twice.s, once.n) == 0));
    tt__str_free(&once);
    tt__str_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!tokenizers[0]) load_tokenizers();
    if (size == 0) return 0;
    const tt_tokenizer *t = tokenizers[data[0] % TOKENIZERS];
    unsigned flags = data[0] & 0x80 ? TT_PARSE_SPECIAL : 0;
    const char *s = (const char *)data + 1;
    size_t n = size - 1, k, bytes;
    int32_t *ids;
    char *back;
    uint64_t before = tt__mem_now();
    MUST(tt__tokenizer_encode(t, s, n, flags, &ids, &k, NULL) == TT_OK);
    for (size_t i = 0; i < k && !flags; i++) MUST(t->type[ids[i]] != TT_TOKEN_CONTROL);
    MUST(tt__tokenizer_decode(t, ids, k, true, &back, &bytes, NULL) == TT_OK);
    if (!t->nfc && !swallows(t, ids, k)) MUST(bytes == n && memcmp(back, s, n) == 0);
    tt__free(ids);
    tt__free(back);
    check_pieces(s, n);
    check_nfc(s, tt__utf8_span((const uint8_t *)s, n));
    MUST(tt__mem_now() == before);
    return 0;
}
