/* The texts of a command: "own.txt:2,self" is a list of sources with weights. Sources are joined so that each gets the share of its weight: whole
 * texts are repeated, and the last repetition is cut at a document. */
#ifndef TT_ENGINE_TEXTS_H
#define TT_ENGINE_TEXTS_H
#include "text/dataset.h"

enum { TT_MAX_SOURCES = 16 };
typedef struct tt_source { char *path; double weight; bool self; } tt_source;
typedef struct tt_sources { int n; tt_source item[TT_MAX_SOURCES]; } tt_sources;

/* A spec that is a file's name as a whole is that file. TT_USAGE: nothing, too many, a weight that is not above 0 (and at most 1000), self twice. */
tt_status tt__sources_parse(const char *spec, const char *what, tt_sources *out, tt_err *err);
void tt__sources_free(tt_sources *s);
/* The index of self, or -1. */
int tt__sources_self(const tt_sources *s);

/* n texts in shares of their weights (exact up to a document; at least one of each). The largest one, counted by its weight, is taken once; at most
 * TT_LIMIT_MIX_TOKENS come out. One text comes out as it is. */
tt_status tt__tokens_mix(const tt_tokens *texts, const double *weights, int n, tt_tokens *out, tt_err *err);
/* That of the one text; of several, over their hashes and weights. */
void tt__mix_sha256(const char *const *sha256, const double *weights, int n, char out[65]);
#endif
