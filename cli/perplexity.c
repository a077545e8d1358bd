/* trimtab perplexity: llama.cpp's protocol and words, so that numbers can be laid side by side; and paired comparisons. */
#include "cli.h"
#include <inttypes.h>
#include <math.h>

static json_t *quantiles_json(const tt_quantiles *q) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "max", j_real(q->max), "p99.9", j_real(q->q999), "p99", j_real(q->q99), "p95",
                     j_real(q->q95), "p90", j_real(q->q90), "median", j_real(q->median), "p10", j_real(q->q10), "p5", j_real(q->q05), "p1", j_real(q->q01), "p0.1",
                     j_real(q->q001), "min", j_real(q->min));
}

static json_t *kld_json(const tt_kld_stats *k) {
    struct { const char *key; double value; } rows[] = {
        {"base_perplexity", k->base_perplexity}, {"base_perplexity_error", k->base_perplexity_err}, {"correlation", k->correlation},
        {"mean_ln_ratio", k->mean_ln_ratio}, {"mean_ln_ratio_error", k->mean_ln_ratio_err}, {"ratio", k->ratio}, {"ratio_error", k->ratio_err},
        {"diff", k->diff}, {"diff_error", k->diff_err}, {"mean", k->mean_kld}, {"mean_error", k->mean_kld_err}, {"mean_dp", k->mean_dp},
        {"mean_dp_error", k->mean_dp_err}, {"rms_dp", k->rms_dp}, {"rms_dp_error", k->rms_dp_err}, {"same_top", k->same_top}, {"same_top_error", k->same_top_err}};
    json_t *o = json_object();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) json_object_set_new(o, rows[i].key, j_real(rows[i].value));
    json_object_set_new(o, "quantiles", quantiles_json(&k->kld));
    json_object_set_new(o, "dp_quantiles", quantiles_json(&k->dp));
    return o;
}

static void quantiles_text(const tt_quantiles *q, const char *what, double scale, const char *unit) {
    struct { const char *name; double value; } rows[] = {{"Maximum", q->max}, {"99.9%", q->q999}, {"99.0%", q->q99}, {"95.0%", q->q95}, {"90.0%", q->q90},
        {"Median", q->median}, {"10.0%", q->q10}, {" 5.0%", q->q05}, {" 1.0%", q->q01}, {" 0.1%", q->q001}, {"Minimum", q->min}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) printf("%-7s %s: %10.6f%s\n", rows[i].name, what, scale * rows[i].value, unit);
}

static void kld_text(const tt_kld_stats *k, const tt_perplexity_report *r) {
    printf("\n====== Perplexity statistics ======\n");
    printf("Mean PPL(Q)                   : %10.6f ± %10.6f\n", r->perplexity, r->error);
    printf("Mean PPL(base)                : %10.6f ± %10.6f\n", k->base_perplexity, k->base_perplexity_err);
    printf("Cor(ln(PPL(Q)), ln(PPL(base))): %9.2f%%\n", 100 * k->correlation);
    printf("Mean ln(PPL(Q)/PPL(base))     : %10.6f ± %10.6f\n", k->mean_ln_ratio, k->mean_ln_ratio_err);
    printf("Mean PPL(Q)/PPL(base)         : %10.6f ± %10.6f\n", k->ratio, k->ratio_err);
    printf("Mean PPL(Q)-PPL(base)         : %10.6f ± %10.6f\n", k->diff, k->diff_err);
    printf("\n====== KL divergence statistics ======\n");
    printf("Mean    KLD: %10.6f ± %10.6f\n", k->mean_kld, k->mean_kld_err);
    quantiles_text(&k->kld, "KLD", 1, "");
    printf("\n====== Token probability statistics ======\n");
    printf("Mean    Δp: %6.3f ± %5.3f %%\n", 100 * k->mean_dp, 100 * k->mean_dp_err);
    quantiles_text(&k->dp, "Δp", 100, "%");
    printf("RMS Δp    : %6.3f ± %5.3f %%\nSame top p: %6.3f ± %5.3f %%\n", 100 * k->rms_dp, 100 * k->rms_dp_err, 100 * k->same_top, 100 * k->same_top_err);
}

/* The model's hash travels with the number. */
static int model_hash(cli *c, const char *ref, char sha256[65]) {
    tt_model *m = NULL;
    tt_err err = {0};
    tt_model_options mo = tt_model_default_options();
    mo.stored = true;
    tt_status st = tt_model_open(c->ctx, ref, &mo, &m, &err);
    if (st == TT_OK) st = tt_model_sha256(m, sha256, &err);
    tt_model_close(m);
    return st == TT_OK ? 0 : fail(c, st, &err);
}

static int report_json(cli *c, const tt_perplexity_options *o, const tt_perplexity_report *r) {
    char sha256[65] = "";
    bool hash = !opt_given(c, O_hash) || opt_b(c, O_hash);
    int code = hash ? model_hash(c, o->model, sha256) : 0;
    if (code) return code;
    json_t *doc = json_pack("{s:o, s:o, s:o, s:o, s:o, s:s}", "model", j_text(o->model), "model_sha256", j_text(hash ? sha256 : NULL), "adapter", j_text(o->adapter),
                            "data", j_text(o->data), "data_sha256", j_text(r->data_sha256), "numerics", o->numerics == TT_EXACT ? "exact" : "fast");
    json_object_set_new(doc, "perplexity", j_real(r->perplexity));
    json_object_set_new(doc, "error", j_real(r->error));
    json_object_set_new(doc, "nll", j_real(r->nll));
    json_object_set_new(doc, "tokens", json_integer(r->tokens));
    json_object_set_new(doc, "chunks", json_integer(r->chunks));
    json_object_set_new(doc, "documents", json_integer(r->documents));
    json_object_set_new(doc, "n_ctx", json_integer(o->n_ctx));
    json_object_set_new(doc, "seconds", j_real(r->seconds));
    json_object_set_new(doc, "tokens_per_second", j_real(r->tokens_per_second));
    json_object_set_new(doc, "peak_rss", json_integer((json_int_t)r->peak_rss));
    json_object_set_new(doc, "threads", json_integer(tt_ctx_threads(c->ctx)));
    json_object_set_new(doc, "isa", j_text(tt_ctx_isa(c->ctx)));
    json_object_set_new(doc, "kld", r->has_kld ? kld_json(&r->kld) : json_null());
    return print_json(c, doc);
}

static int report_text(const cli *c, const tt_perplexity_options *o, const tt_perplexity_report *r) {
    char n[32], t[32], m[32];
    printf("Final estimate: PPL = %.4f +/- %.5f\n", r->perplexity, r->error);
    printf("%.6f nats per token over %s tokens, %" PRId64 " %s, %s\n", r->nll, text_count((uint64_t)r->tokens, n), o->documents ? r->documents : r->chunks,
           o->documents ? "documents" : "chunks", o->numerics == TT_EXACT ? "exact f32" : "fast integer path");
    printf("%s, %.1f tokens per second, peak resident %s, %d threads, %s\n", text_time(r->seconds, t), r->tokens_per_second, text_bytes(r->peak_rss, m),
           tt_ctx_threads(c->ctx), tt_ctx_isa(c->ctx));
    if (r->has_kld) kld_text(&r->kld, r);
    return 0;
}

static json_t *pair_json(const char *file, const tt_paired_report *p) {
    return json_pack("{s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "file", j_text(file), "tokens", (json_int_t)p->tokens, "documents", (json_int_t)p->documents, "nll_a",
                     j_real(p->nll_a), "nll", j_real(p->nll_b), "diff", j_real(p->diff), "low", j_real(p->low), "high", j_real(p->high));
}

/* Every further file against the first, on the same targets. */
static int paired(cli *c) {
    if (c->n_args < 2) return usage_error(c, "too few files to compare", NULL, "--paired A B...", NULL);
    int code = open_ctx(c);
    if (code) return code;
    json_t *pairs = json_array();
    for (int i = 1; i < c->n_args; i++) {
        tt_paired_report p = {0};
        tt_err err = {0};
        tt_status st = tt_compare_losses(c->args[0], c->args[i], &p, &err);
        if (st != TT_OK) {
            json_decref(pairs);
            return fail(c, st, &err);
        }
        json_array_append_new(pairs, pair_json(c->args[i], &p));
        if (json_wanted(c)) continue;
        if (i == 1) {
            printf("%-32s %10s %12s %12s %26s\n", "FILE", "NLL", "PERPLEXITY", "DIFFERENCE", "95 % INTERVAL");
            printf("%-32s %10.5f %12.4f %12s\n", c->args[0], p.nll_a, exp(p.nll_a), "-");
        }
        printf("%-32s %10.5f %12.4f %+12.5f      [%+.5f, %+.5f]\n", c->args[i], p.nll_b, exp(p.nll_b), p.diff, p.low, p.high);
        if (i == c->n_args - 1) printf("nats per token on the same %" PRId64 " targets; interval clustered by %" PRId64 " documents\n", p.tokens, p.documents);
    }
    if (!json_wanted(c)) return json_decref(pairs), 0;
    return print_json(c, json_pack("{s:o, s:o}", "a", j_text(c->args[0]), "pairs", pairs));
}

static int hellaswag(cli *c, const tt_perplexity_options *p) {
    tt_choices_options o = tt_choices_default_options();
    tt_choices_report r = {0};
    tt_err err = {0};
    o.model = p->model, o.adapter = p->adapter, o.data = p->data, o.numerics = p->numerics, o.cache_k = p->cache_k, o.cache_v = p->cache_v;
    o.tasks = opt_i(c, O_hellaswag_tasks);
    tt_status st = tt_choices(c->ctx, &o, &r, &err);
    if (st != TT_OK) return fail(c, st, &err);
    int code = 0;
    if (json_wanted(c))
        code = print_json(c, json_pack("{s:o, s:o, s:o, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:s, s:o, s:I, s:i, s:o}", "model", j_text(o.model), "adapter", j_text(o.adapter), "data",
                                       j_text(o.data), "data_sha256", r.data_sha256, "numerics", o.numerics == TT_EXACT ? "exact" : "fast", "tasks", (json_int_t)r.tasks, "correct",
                                       (json_int_t)r.correct, "accuracy", j_real(r.accuracy), "low", j_real(r.low), "high", j_real(r.high), "results", r.results, "seconds",
                                       j_real(r.seconds), "peak_rss", (json_int_t)r.peak_rss, "threads", tt_ctx_threads(c->ctx), "isa", j_text(tt_ctx_isa(c->ctx))));
    else
        printf("%" PRId64 " of %" PRId64 " right: %.2f %%, 95 %% interval %.2f to %.2f (acc_norm, %s)\n", r.correct, r.tasks, 100 * r.accuracy, 100 * r.low, 100 * r.high,
               o.numerics == TT_EXACT ? "exact f32" : "fast integer path");
    tt_free(r.results);
    return code;
}

int cmd_perplexity(cli *c) {
    if (opt_b(c, O_paired)) return paired(c);
    tt_perplexity_options o = tt_perplexity_default_options();
    tt_perplexity_report r = {0};
    tt_err err = {0};
    int next = 0;
    o.model = take_model(c, &next);
    if (!o.model) return TT_USAGE;
    o.data = opt_s(c, O_text);
    if (!o.data && next < c->n_args) o.data = c->args[next++];
    if (!o.data) return usage_error(c, "no text to score", NULL, "-f FILE", NULL);
    if (next < c->n_args) return usage_error(c, "too many arguments", c->args[next], c->verb->args, "several files are compared with --paired");
    const char *logits = opt_s(c, O_kl_base);
    if (opt_b(c, O_kl) && !logits) return usage_error(c, "no file to compare with", NULL, "--kl-divergence-base FILE", NULL);
    if (logits && opt_s(c, O_base)) return usage_error(c, "two references", logits, "--base or --kl-divergence-base", NULL);
    int code = open_ctx(c);
    if (code) return code;
    o.adapter = opt_s(c, O_adapter);
    if (opt_i(c, O_ctx_size) > 0) o.n_ctx = opt_i(c, O_ctx_size);
    o.chunks = opt_i(c, O_chunks);
    o.split = opt_s(c, O_split);
    o.documents = opt_b(c, O_documents) || o.split;
    o.as_llama_cpp = opt_b(c, O_as_llama_cpp);
    o.numerics = opt_b(c, O_exact) ? TT_EXACT : TT_FAST;
    o.cache_k = cache_type(opt_s(c, O_cache_k));
    o.cache_v = cache_type(opt_s(c, O_cache_v));
    if (opt_b(c, O_hellaswag)) return hellaswag(c, &o);
    o.save_base = opt_b(c, O_kl) ? NULL : logits;
    o.load_base = opt_b(c, O_kl) ? logits : NULL;
    o.base = opt_s(c, O_base);
    o.save_losses = opt_s(c, O_save_losses);
    tt_status st = tt_perplexity(c->ctx, &o, &r, &err);
    if (st != TT_OK) return fail(c, st, &err);
    return json_wanted(c) ? report_json(c, &o, &r) : report_text(c, &o, &r);
}
