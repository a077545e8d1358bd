/* Chat templates: the Jinja subset of ECOSYSTEM 3.12 with budgets (RELIABILITY J1–J4). The output is a list of segments: markup from
 * the template, which may yield control tokens, and text from the messages, which never does (S1). */
#ifndef TT_TEXT_TEMPLATE_H
#define TT_TEXT_TEMPLATE_H
#include "text/tokenizer.h"
#include "trimtab/trimtab.h"
typedef struct tt_template_segment { char *text; size_t n; bool markup; } tt_template_segment;
typedef struct tt_template_output { tt_template_segment *seg; size_t n; } tt_template_output;
/* bos/eos: token texts for bos_token, eos_token. extra: JSON object of further variables or NULL. */
tt_status tt__template_render(const char *source, const tt_message *messages, size_t n_messages, bool add_generation_prompt,
                              const char *bos, const char *eos, const char *extra_json, tt_template_output *out, tt_err *err);
void tt__template_output_free(tt_template_output *out);
/* Renders and tokenizes: markup with special tokens parsed, text without. */
tt_status tt__chat_encode(const tt_tokenizer *t, const tt_message *messages, size_t n_messages, bool add_generation_prompt,
                          int32_t **ids, size_t *n, tt_err *err);
/* The frame of one user's turn: the tokens up to where its text stands, and those behind it up to where the reply begins. A template that
 * does not show where the text stands: TT_BADFILE. */
tt_status tt__chat_frame(const tt_tokenizer *t, const char *system, int32_t **before, size_t *n_before, int32_t **after, size_t *n_after, tt_err *err);
#endif
