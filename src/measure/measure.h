/* Measuring quality on text: perplexity by llama.cpp's protocol or by document, KL statistics against a base model, files of per-token
 * losses, and the paired comparison of two such files. Everything streams: memory is O(vocabulary), plus 8 bytes per scored target for
 * the quantiles of a KL report.
 *
 * A window is a piece of text the model reads from an empty cache; rows `first` … n-2 are scored, each predicting the token after it.
 * A tab's positions come in front of every window and are never counted, so the targets are the same with and without it.
 */
#ifndef TT_MEASURE_H
#define TT_MEASURE_H
#include "models/net.h"
#include "text/dataset.h"
#include "trimtab/trimtab.h"

/* ---- perplexity.c ---- */
typedef struct tt_measure_job {
    const tt_net *net;
    const tt_tokenizer *tok;
    const tt_prefix *prefix;         /* keys and values of a tab, or NULL */
    const tt_net *base;              /* runs in lock-step for KL statistics, or NULL */
    bool fast;
    tt_kvtype k_type, v_type;        /* of the model's cache; the base's is f16, or without `fast` f32 */
    const char *model_ref;           /* recorded in the losses file */
    const char *data;                /* may be NULL with load_base */
    const char *split;
    int64_t n_ctx, chunks;           /* chunks <= 0: all */
    bool documents, as_llama_cpp;    /* the latter: 255 targets of a window of 512, not 256 */
    const char *save_base, *load_base, *save_losses;
} tt_measure_job;
tt_status tt__measure_perplexity(tt_ctx *ctx, const tt_measure_job *job, tt_perplexity_report *report, tt_err *err);

/* ---- choices.c ---- */
typedef struct tt_choices_job {
    const tt_net *net;
    const tt_tokenizer *tok;
    const tt_prefix *prefix;         /* of a tab, or NULL */
    bool fast;
    tt_kvtype k_type, v_type;
    const char *data;
    int64_t tasks;                   /* <= 0: all */
} tt_choices_job;
tt_status tt__measure_choices(tt_ctx *ctx, const tt_choices_job *job, tt_choices_report *report, tt_err *err);

/* ---- kld.c: one row of logits at a time ---- */
typedef struct tt_row_score { double nll; float max, log_sum; } tt_row_score;    /* log Σ exp(logit - max) */
tt_row_score tt__row_score(const tt_kernels *k, const float *logits, int64_t n_vocab, int32_t target);

/* A row of llama.cpp's base-logit file: f32 scale, f32 lowest log-probability, then u16 codes; in u16 units. */
static inline int64_t tt__base_row_units(int64_t n_vocab) { return 2 * ((n_vocab + 1) / 2) + 4; }
void tt__base_row_encode(const float *logits, int64_t n_vocab, tt_row_score s, uint16_t *row);
void tt__base_row_decode(const uint8_t *row, int64_t n_vocab, float *log_probs);

typedef struct tt_kld_row { double kld; float nll, nll_base, dp; bool same_top; } tt_kld_row;
/* base[i] - base_lse is the base's log-probability. Terms with a base log-probability of `floor` or less are left out: -16 for rows
 * that were stored in 16 bits (there they stand for "too small to store", as in llama.cpp), -INFINITY otherwise. */
tt_kld_row tt__kld_row(const float *logits, tt_row_score s, const float *base, float base_lse, float floor, int64_t n_vocab, int32_t target);

typedef struct tt_kld_sums {
    double nll, nll2, base, base2, cross, kld, kld2, dp, dp2, dp4;
    size_t same_top, n, cap;
    float *klds, *dps;               /* [cap] owned */
} tt_kld_sums;
tt_status tt__kld_init(tt_kld_sums *s, size_t targets, tt_err *err);
void tt__kld_add(tt_kld_sums *s, const tt_kld_row *row);
/* false below 100 targets: too few for the quantiles. Sorts the values. */
bool tt__kld_finish(tt_kld_sums *s, tt_kld_stats *out);
void tt__kld_free(tt_kld_sums *s);

/* ---- losses.c ---- */
typedef struct tt_losses_writer tt_losses_writer;
typedef struct tt_loss_entry { uint32_t doc; int32_t token; uint32_t position; float loss; } tt_loss_entry;
tt_status tt__losses_create(const char *path, const char *model_ref, const char *data_sha256, bool by_document, tt_losses_writer **out, tt_err *err);
tt_status tt__losses_add(tt_losses_writer *w, const tt_loss_entry *e, size_t n, tt_err *err);
tt_status tt__losses_commit(tt_losses_writer *w, tt_err *err);     /* frees w in every case */
void tt__losses_abort(tt_losses_writer *w);

typedef struct tt_losses { tt__map map; uint64_t n; bool by_document; char data_sha256[65]; char model_ref[129]; } tt_losses;
tt_status tt__losses_open(const char *path, tt_losses *out, tt_err *err);
tt_loss_entry tt__losses_at(const tt_losses *l, uint64_t i);
void tt__losses_close(tt_losses *l);

/* ---- paired.c ---- */
/* The mean per-token difference and its 95 % interval, clustered: document i has tokens n[i] whose differences sum to d[i]. */
typedef struct tt_interval { double mean, low, high; } tt_interval;       /* low, high NaN below 2 documents */
tt_interval tt__paired_interval(const double *d, const double *n, size_t documents);
double tt__student_quantile(double p, double df);       /* p in (0.5, 1); df >= 1 */
tt_status tt__compare_losses(const char *a, const char *b, tt_paired_report *report, tt_err *err);
#endif
