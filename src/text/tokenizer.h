/* Byte-level BPE, equal token for token to the `tokenizers` package (attention.md D0, D1). From GGUF metadata or tokenizer.json.
 * Pre-tokenizers by name: "gpt-2", "smollm", "llama-bpe", "qwen2"; another name is refused, never guessed. Immutable after open. */
#ifndef TT_TEXT_TOKENIZER_H
#define TT_TEXT_TOKENIZER_H
#include "formats/gguf.h"
#include <stdint.h>

typedef struct tt_tokenizer tt_tokenizer;
typedef enum tt_token_type { TT_TOKEN_UNDEFINED, TT_TOKEN_NORMAL, TT_TOKEN_UNKNOWN, TT_TOKEN_CONTROL, TT_TOKEN_USER, TT_TOKEN_UNUSED, TT_TOKEN_BYTE } tt_token_type;

tt_status tt__tokenizer_from_gguf(const tt_gguf *g, tt_tokenizer **out, tt_err *err);
/* dir/tokenizer.json, with tokenizer_config.json (chat template, bos/eos, add_bos) and chat_template.jinja where present */
tt_status tt__tokenizer_from_folder(const char *dir, tt_tokenizer **out, tt_err *err);
/* tokenizer.json text alone (fuzzing, tests) */
tt_status tt__tokenizer_from_json(const char *json, size_t n, const char *where, tt_tokenizer **out, tt_err *err);
void tt__tokenizer_free(tt_tokenizer *t);

int64_t tt__tokenizer_size(const tt_tokenizer *t);
int32_t tt__tokenizer_bos(const tt_tokenizer *t);                  /* -1: none */
int32_t tt__tokenizer_eos(const tt_tokenizer *t);
bool tt__tokenizer_adds_bos(const tt_tokenizer *t);
bool tt__tokenizer_is_end(const tt_tokenizer *t, int32_t id);      /* eos, eot and the usual end-of-turn names */
const char *tt__tokenizer_token(const tt_tokenizer *t, int32_t id, size_t *n, tt_token_type *type);   /* as stored (byte alphabet); lent */
int32_t tt__tokenizer_find(const tt_tokenizer *t, const char *token, size_t n);                        /* -1 */
const char *tt__tokenizer_template(const tt_tokenizer *t);         /* Jinja source or NULL; lent */
const char *tt__tokenizer_pre(const tt_tokenizer *t);

/* flags: TT_ADD_SPECIAL, TT_PARSE_SPECIAL of trimtab.h. *ids freed with tt__free. Any bytes are accepted. */
tt_status tt__tokenizer_encode(const tt_tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids, size_t *n_ids, tt_err *err);
/* Bytes, not necessarily whole UTF-8 sequences (streaming joins them). Unknown ids: TT_USAGE. */
tt_status tt__tokenizer_decode(const tt_tokenizer *t, const int32_t *ids, size_t n, bool with_special, char **text, size_t *bytes, tt_err *err);

/* tokenizer.ggml.* keys of this tokenizer into a GGUF writer; a Hugging Face tokenizer.json + tokenizer_config.json into a folder. */
tt_status tt__tokenizer_to_gguf(const tt_tokenizer *t, tt_gguf_writer *w, tt_err *err);
tt_status tt__tokenizer_to_folder(const tt_tokenizer *t, const char *dir, tt_err *err);
#endif
