/* compress --target-size, --target-bpw: which matrix gets how many bits.
 *
 *     measure    the text runs through the uncompressed model, layer by layer. Of each matrix, and each form (bits x group) of the recipe's family,
 *                rounded to nearest with the importance of its inputs: the error of its output, tr(E H E^T). For two of the forms the model goes on
 *                from the layer's input, which is at hand, with this one matrix rounded: KL(model || model with it) over EVAL_TOKENS tokens
 *     choose     loss of a form = the KL measured, along the line through both measurements in log error; the least sum under the target (knapsack.c)
 *     compress   twice by the recipe itself: the largest uniform form that fits, and the mixture
 *     compare    KL(model || each) on other sequences of the text; the better one is shipped, a mixture that is worse never
 *
 * The idea of measured sensitivities is that of AutoRound's AutoScheme and of llama.cpp's target-bpw allocation, the losses here are those of
 * the model's output, not of a proxy. That losses add up is an assumption; the comparison at the end answers for it.
 *
 * Below OUT.state: "measured" the table so far, uniform.gguf and mix.gguf with states of their own, hidden.* as calibration keeps them.
 *
 * Cost: 10 x (rounding and error) of all matrices, 2 x half a pass over the model for each matrix, two compressions.
 */
#include "engine/allocate.h"

#include "base/file.h"
#include "engine/compress_state.h"
#include "engine/knapsack.h"
#include "engine/mix.h"
#include "engine/model.h"
#include "kernels/codes.h"
#include "methods/method.h"
#include "methods/weights/grid.h"
#include "models/runner.h"
#include "train/calib.h"
#include "train/linalg.h"
#include "train/rawfile.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { FORMS = 10, PROBES = 2, EVAL_TOKENS = 1024, CHUNK = 64, MEASURED_SEQUENCES = 16, TEXT_SLACK = 4096 };
static const struct { int bits, group; } forms[FORMS] = {{2, 128}, {2, 64}, {2, 32}, {3, 128}, {3, 64}, {3, 32}, {4, 128}, {4, 64}, {4, 32}, {8, 64}};
static const int probes[PROBES] = {1, 4};             /* of the forms: 2 and 3 bits in groups of 64 */

typedef struct row { double error[FORMS], kl[PROBES]; } row;          /* of a matrix */
typedef struct measured { char fingerprint[65]; int32_t layers; } measured;      /* head of the file; then the rows */

typedef struct ajob {
    tt_ctx *ctx;
    const tt_compress_options *o;
    double save_seconds;
    tt_model *model;
    const tt_net *net;
    bool sym;
    char *recipe[FORMS];
    char *dir, *uniform_path, *mix_path;
    int32_t *ids;
    int64_t samples, length, sequences;               /* sequences: of an evaluation */
    char data_sha256[65], fingerprint[65];
    size_t n, *weight;                                /* matrices of the layers */
    row *rows;
    int layers_done;
    uint8_t *form;                                    /* [n] of the mixture */
    uint8_t *of;                                      /* [n_weights] as tt_allocation has it */
    tt__str text;
    /* measuring */
    tt_calib *calib;
    float *at_layer, *X, *H, *dense_H, *a, *b;        /* rows of an evaluation; logits of CHUNK rows of both */
} ajob;

/* ------------------------------------------------------------ the family of the recipe ---- */

/* `line` with the value of a knob in the part of it that begins at `from` replaced. */
static tt_status set_knob(char **line, size_t from, const char *knob, const char *value, tt_err *err) {
    char name[32];
    snprintf(name, sizeof name, "%s=", knob);
    char *at = strstr(*line + from, name);
    while (at && at > *line && at[-1] != '(' && at[-1] != ',') at = strstr(at + 1, name);
    TT_FAIL_IF(!at, err, TT_USAGE, "a size target needs a recipe that rounds in groups|recipe|%s|a last step with bits, group and format, such as gptq", *line);
    const char *end = at + strcspn(at, ",)");
    tt__str s = {0};
    tt__str_printf(&s, "%.*s%s%s%s", (int)(at - *line), *line, name, value, end);
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a recipe");
    tt__free(*line);
    *line = s.s;
    return TT_OK;
}

static tt_status form_recipe(const char *line, int f, char **out, tt_err *err) {
    char number[16];
    const char *last = strrchr(line, '+');
    size_t from = last ? (size_t)(last - line) : 0;
    *out = tt__strdup(line);
    TT_FAIL_IF(!*out, err, TT_RESOURCE, "out of memory|a recipe");
    snprintf(number, sizeof number, "%d", forms[f].bits);
    TT_TRY(set_knob(out, from, "bits", number, err));
    snprintf(number, sizeof number, "%d", forms[f].group);
    TT_TRY(set_knob(out, from, "group", number, err));
    TT_TRY(set_knob(out, from, "format", "own", err));
    tt_recipe *r = NULL;                              /* what no longer fits together is said now */
    tt_status st = tt_recipe_parse(*out, strlen(*out), &r, err);
    tt_recipe_free(r);
    return st;
}

static tt_status read_family(ajob *j, tt_err *err) {
    tt_recipe *r = NULL;
    char *line = NULL;
    tt_status st;
    const char *text = j->o->recipe;
    TT_FAIL_IF(!text || !*text || tt__mix_find(text), err, TT_USAGE, "a size target needs a recipe that rounds in groups|recipe|%s|gptq or another method with bits and group", text ? text : "");
    TT_TRY_GOTO(tt_recipe_parse(text, strlen(text), &r, err));
    for (size_t i = 0; i < tt_recipe_step_count(r); i++) {
        const tt_method_info *m = tt_recipe_get_method(r, i);
        st = TT_USAGE;
        if (strcmp(m->stage, "compress") || tt_recipe_get_value(r, i, "pattern")) {
            st = tt__fail(err, TT_USAGE, "a size target chooses among dense roundings|recipe, step %zu|%s|methods that round", i + 1, m->name);
            goto done;
        }
    }
    const char *sym = tt_recipe_get_value(r, tt_recipe_step_count(r) - 1, "sym");
    j->sym = !sym || !strcmp(sym, "true");
    TT_TRY_GOTO(tt_recipe_line(r, true, &line, err));
    for (int f = 0; f < FORMS; f++) TT_TRY_GOTO(form_recipe(line, f, &j->recipe[f], err));
done:
    tt_free(line);
    tt_recipe_free(r);
    return st;
}

/* Bytes of one matrix in a form: linop/group.c. */
static uint64_t bytes_of(const ajob *j, size_t i, int f) {
    const tt_weight *w = &j->net->weights[j->weight[i]];
    const int64_t groups = (w->cols + forms[f].group - 1) / forms[f].group;
    return (uint64_t)(w->rows * (tt__codes_row_bytes(forms[f].bits, forms[f].group, w->cols) + groups * (j->sym ? 2 : 4)));
}

static uint64_t uniform_bytes(const ajob *j, int f) {
    uint64_t sum = 0;
    for (size_t i = 0; i < j->n; i++) sum += bytes_of(j, i, f);
    return sum;
}

/* ------------------------------------------------------------ KL between two models ---- */

typedef struct kl_job { const tt_kernels *k; const float *a, *b; int64_t V; double *kl; } kl_job;

/* KL(p || q) = Σ p (a - b) - (log Σ e^a - log Σ e^b), a and b the logits. */
static void kl_row(void *arg, int64_t r, int worker) {
    (void)worker;
    const kl_job *j = arg;
    const float *a = j->a + r * j->V, *b = j->b + r * j->V;
    float ma, mb, p[512];
    double sa = j->k->softmax_stats_f32(a, j->V, &ma), sb = j->k->softmax_stats_f32(b, j->V, &mb), sum = 0;
    for (int64_t c = 0; c < j->V; c += 512) {
        const int64_t n = j->V - c < 512 ? j->V - c : 512;
        j->k->softmax_apply_f32(p, a + c, n, ma, (float)(1 / sa));
        for (int64_t i = 0; i < n; i++) sum += (double)(p[i] * (a[c + i] - b[c + i]));
    }
    j->kl[r] = sum - ((double)ma + log(sa)) + ((double)mb + log(sb));
}

/* Mean over rows of hidden states, each under the head of its runner. */
static tt_status divergence(ajob *j, tt_runner *dense, const float *dense_H, tt_runner *other, const float *H, int64_t rows, double *out, tt_err *err) {
    double kl[CHUNK], sum = 0;
    const int64_t d = j->net->hp.n_embd;
    for (int64_t r = 0; r < rows; r += CHUNK) {
        const int64_t n = rows - r < CHUNK ? rows - r : CHUNK;
        TT_TRY(tt__run_logits(dense, dense_H + r * d, n, j->a, err));
        TT_TRY(tt__run_logits(other, H + r * d, n, j->b, err));
        tt__parallel(j->ctx, n, kl_row, &(kl_job){j->ctx->k, j->a, j->b, j->net->hp.n_vocab, kl});
        for (int64_t i = 0; i < n; i++) sum += kl[i];
    }
    *out = sum / (double)rows;
    return TT_OK;
}

/* Rows X of `layer` on to the final norm, into H. */
static tt_status to_the_end(ajob *j, tt_runner *r, int layer, float *X, float *H, tt_err *err) {
    for (int l = layer; l < j->net->hp.n_layer; l++) TT_TRY(tt__run_block(r, l, 0, j->sequences, j->length, X, NULL, NULL, -1, err));
    tt__runner_norm(r, X, j->net->hp.n_embd, j->sequences * j->length, H);
    return TT_OK;
}

/* ------------------------------------------------------------ measuring ---- */

static tt_status save_measured(const ajob *j, tt_err *err) {
    const size_t bytes = sizeof(measured) + j->n * sizeof(row);
    uint8_t *all = NULL;
    measured head = {.layers = j->layers_done};
    TT_TRY(tt__new(&all, bytes, 1, "measured losses", err));
    memcpy(head.fingerprint, j->fingerprint, sizeof head.fingerprint);
    memcpy(all, &head, sizeof head);
    memcpy(all + sizeof head, j->rows, j->n * sizeof(row));
    tt_status st = tt__raw_write(j->dir, "measured", all, bytes, err);
    tt__free(all);
    return st;
}

/* Anything that is not ours, or not of these settings, is as if it were not there. */
static tt_status load_measured(ajob *j, tt_err *err) {
    const size_t bytes = sizeof(measured) + j->n * sizeof(row);
    uint8_t *all = NULL;
    measured head;
    tt_err ignored = {0};
    if (!j->o->resume || !tt__raw_exists(j->dir, "measured")) return TT_OK;
    TT_TRY(tt__new(&all, bytes, 1, "measured losses", err));
    if (tt__raw_read(j->dir, "measured", all, bytes, &ignored) == TT_OK) {
        memcpy(&head, all, sizeof head);
        bool ours = !memcmp(head.fingerprint, j->fingerprint, sizeof head.fingerprint) && head.layers >= 0 && head.layers <= j->net->hp.n_layer;
        if (ours) {
            memcpy(j->rows, all + sizeof head, j->n * sizeof(row));
            j->layers_done = head.layers;
            tt__log(j->ctx, TT_LOG_INFO, "compress: losses of %d layers are measured already", head.layers);
        } else tt__log(j->ctx, TT_LOG_WARN, "compress: measured losses in %s belong to other settings: measuring anew", j->dir);
    }
    tt__free(all);
    return TT_OK;
}

static tt_status round_to(ajob *j, const tt_weight *w, const float *W, const float *importance, int f, tt_draft *d, tt_err *err) {
    const tt_grid grid = tt__grid_for(forms[f].bits, j->sym, TT_SEARCH_RANGE, false, "own");
    TT_TRY(tt__draft_init(d, w->name, w->layer, w->rows, w->cols, err));
    memcpy(d->W, W, (size_t)(w->rows * w->cols) * sizeof *W);
    TT_TRY(tt__draft_quantize(d, forms[f].bits, forms[f].group, !j->sym, err));
    TT_TRY(tt__grid_fit_draft(j->ctx, &grid, forms[f].group, importance, d, err));
    tt__grid_round_draft(j->ctx, d);
    return TT_OK;
}

/* The model from here on with this one matrix replaced. */
static tt_status probe(ajob *j, size_t weight, const tt_linop *op, double *kl, tt_err *err) {
    const int layer = j->net->weights[weight].layer;
    const int64_t rows = j->sequences * j->length;
    memcpy(j->X, j->at_layer, (size_t)(rows * j->net->hp.n_embd) * sizeof *j->X);
    tt__runner_set_op(j->calib->runner, weight, op);
    tt_status st = to_the_end(j, j->calib->runner, layer, j->X, j->H, err);
    tt__runner_set_op(j->calib->runner, weight, NULL);
    return st == TT_OK ? divergence(j, j->calib->runner, j->dense_H, j->calib->runner, j->H, rows, kl, err) : st;
}

static tt_status measure_form(ajob *j, size_t i, int f, const float *W, const float *H, const float *importance, tt_err *err) {
    const tt_weight *w = &j->net->weights[j->weight[i]];
    tt_draft d = {0};
    tt_linop *op = NULL;
    tt_status st;
    TT_TRY_GOTO(round_to(j, w, W, importance, f, &d, err));
    for (int p = 0; p < PROBES; p++) {
        if (probes[p] != f) continue;
        TT_TRY_GOTO(tt__draft_finish(j->ctx, &d, "own", &op, err));
        TT_TRY_GOTO(probe(j, j->weight[i], op, &j->rows[i].kl[p], err));
    }
    for (int64_t k = 0; k < w->rows * w->cols; k++) d.W[k] -= W[k];
    TT_TRY_GOTO(tt__quadratic(j->ctx, d.W, w->rows, H, w->cols, &j->rows[i].error[f], err));
done:
    tt__linop_free(op);
    tt__draft_free(&d);
    return st;
}

static tt_status measure_matrix(ajob *j, size_t i, tt_err *err) {
    const tt_weight *w = &j->net->weights[j->weight[i]];
    const float *H = j->calib->sum[w->input];
    float *W = NULL, *importance = NULL;
    tt_status st;
    TT_TRY_GOTO(tt__new(&W, (size_t)(w->rows * w->cols), sizeof *W, "a dense matrix", err));
    TT_TRY_GOTO(tt__new(&importance, (size_t)w->cols, sizeof *importance, "input statistics", err));
    tt__linop_rows(w->op, 0, w->rows, W);
    for (int64_t c = 0; c < w->cols; c++) importance[c] = H[c * w->cols + c];
    for (int f = 0; f < FORMS; f++) {
        TT_TRY_GOTO(tt__check_cancel(j->ctx, err));
        TT_TRY_GOTO(measure_form(j, i, f, W, H, importance, err));
    }
done:
    tt__free(W);
    tt__free(importance);
    return st == TT_OK ? st : tt__err_at(err, st, "%s", w->name);
}

static tt_status measure_layer(ajob *j, int layer, tt_err *err) {
    tt_calib *c = j->calib;
    TT_TRY(tt__calib_begin(c, (1u << TT_CALIB_HEAD) - 1, err));
    for (int64_t b = 0; b < c->n_batches; b++) {
        TT_TRY(tt__check_cancel(j->ctx, err));
        TT_TRY(tt__calib_collect(c, layer, b, err));
    }
    TT_TRY(tt__calib_finish(c, layer, err));
    TT_TRY(tt__calib_read(c, TT_STREAM_MAIN, layer, 0, j->at_layer, err));
    for (size_t i = 0; i < j->n; i++) {
        if (j->net->weights[j->weight[i]].layer != layer) continue;
        tt__progress(j->ctx, "measure", (double)i, (double)j->n, "matrices", "");
        TT_TRY(measure_matrix(j, i, err));
    }
    j->layers_done = layer + 1;
    return save_measured(j, err);
}

static tt_status open_calibration(ajob *j, tt_err *err) {
    const int64_t d = j->net->hp.n_embd, samples = j->samples < MEASURED_SEQUENCES ? j->samples : MEASURED_SEQUENCES;
    const uint64_t ram = j->o->max_ram ? j->o->max_ram : 1ull << 30;
    const tt_calib_options co = {.ids = j->ids, .samples = samples, .length = j->length, .dir = j->dir, .full = true, .in_memory = (uint64_t)(samples * j->length * d) * 4 <= ram / 4};
    TT_TRY(tt__calib_create(j->ctx, j->net, &co, &j->calib, err));
    const int64_t rows = j->calib->batch * j->length, head_rows = CHUNK;
    j->sequences = EVAL_TOKENS / j->length;
    if (j->sequences < 1) j->sequences = 1;
    if (j->sequences > j->calib->batch) j->sequences = j->calib->batch;
    if (j->sequences > samples) j->sequences = samples;
    TT_TRY(tt__new(&j->at_layer, (size_t)(rows * d), sizeof(float), "hidden states", err));
    TT_TRY(tt__new(&j->X, (size_t)(rows * d), sizeof(float), "hidden states", err));
    TT_TRY(tt__new(&j->H, (size_t)(rows * d), sizeof(float), "hidden states", err));
    TT_TRY(tt__new(&j->dense_H, (size_t)(rows * d), sizeof(float), "hidden states", err));
    TT_TRY(tt__new(&j->a, (size_t)(head_rows * j->net->hp.n_vocab), sizeof(float), "logits", err));
    return tt__new(&j->b, (size_t)(head_rows * j->net->hp.n_vocab), sizeof(float), "logits", err);
}

static tt_status measure_all(ajob *j, tt_err *err) {
    TT_TRY(load_measured(j, err));
    TT_TRY(open_calibration(j, err));
    if (j->layers_done == j->net->hp.n_layer) return TT_OK;
    TT_TRY(tt__run_embed(j->calib->runner, j->ids, j->sequences * j->length, j->X, err));
    TT_TRY(to_the_end(j, j->calib->runner, 0, j->X, j->dense_H, err));
    for (int l = 0; l < j->net->hp.n_layer; l++) {
        if (l >= j->layers_done) TT_TRY(measure_layer(j, l, err));
        for (int64_t b = 0; b < j->calib->n_batches && l + 1 < j->net->hp.n_layer; b++) TT_TRY(tt__calib_advance(j->calib, l, b, err));
    }
    tt__progress(j->ctx, "measure", (double)j->n, (double)j->n, "matrices", "");
    return TT_OK;
}

/* ------------------------------------------------------------ choosing ---- */

/* The KL at error e on the line through both measurements, in logarithms; its slope between the square root and the square, as a loss near a
 * minimum rises with the error itself. */
static double loss_at(const row *r, double e) {
    const double low = fmax(r->kl[1], 1e-12), high = fmax(r->kl[0], 1e-12), e_low = fmax(r->error[probes[1]], 1e-30), e_high = fmax(r->error[probes[0]], 1e-30);
    double slope = e_high > 1.001 * e_low ? log(high / low) / log(e_high / e_low) : 1;
    slope = fmin(fmax(slope, 0.5), 2);
    return e > 0 ? sqrt(low * high) * exp(slope * (log(e) - 0.5 * (log(e_low) + log(e_high)))) : 0;
}

static tt_status choose(ajob *j, uint64_t limit, tt_err *err) {
    tt_option *o = NULL;
    size_t *first = NULL, *choice = NULL;
    tt_status st;
    TT_TRY_GOTO(tt__new(&o, j->n * FORMS, sizeof *o, "a choice of types", err));
    TT_TRY_GOTO(tt__new(&first, j->n + 1, sizeof *first, "a choice of types", err));
    TT_TRY_GOTO(tt__new(&choice, j->n, sizeof *choice, "a choice of types", err));
    for (size_t i = 0; i < j->n; i++) {
        first[i + 1] = (i + 1) * FORMS;
        for (int f = 0; f < FORMS; f++) o[i * FORMS + (size_t)f] = (tt_option){bytes_of(j, i, f), loss_at(&j->rows[i], j->rows[i].error[f])};
    }
    TT_TRY_GOTO(tt__knapsack(o, first, j->n, limit, choice, err));
    for (size_t i = 0; i < j->n; i++) j->form[i] = (uint8_t)choice[i];
done:
    tt__free(o);
    tt__free(first);
    tt__free(choice);
    return st;
}

/* "bits=2,group=64: blk.0.attn_q blk.0.attn_k; bits=3,group=32: …" */
static tt_status describe(ajob *j, tt_err *err) {
    tt__str_free(&j->text);
    for (int f = 0; f < FORMS; f++) {
        bool any = false;
        for (size_t i = 0; i < j->n; i++) {
            if (j->form[i] != f) continue;
            const char *name = j->net->weights[j->weight[i]].name, *end = strstr(name, ".weight");
            if (!any) tt__str_printf(&j->text, "%sbits=%d,group=%d:", j->text.n ? "; " : "", forms[f].bits, forms[f].group);
            tt__str_printf(&j->text, " %.*s", end ? (int)(end - name) : (int)strlen(name), name);
            any = true;
        }
    }
    TT_FAIL_IF(j->text.failed, err, TT_RESOURCE, "out of memory|the allocation");
    return TT_OK;
}

/* ------------------------------------------------------------ compressing ---- */

/* One compression by the forms in j->form. */
static tt_status build(ajob *j, const char *output, bool dry, tt_compress_report **report, tt_err *err) {
    tt_compress_options o = *j->o;
    const bool is_final = !strcmp(output, j->o->output);
    o.output = output;
    o.target_bpw = 0;
    o.target_bytes = 0;
    o.state = NULL;
    o.force = is_final ? j->o->force : true;
    o.dry_run = dry;
    TT_TRY(describe(j, err));
    for (size_t i = 0; i < j->n; i++) j->of[j->weight[i]] = (uint8_t)(j->form[i] + 1);
    const tt_allocation a = {FORMS, (const char *const *)j->recipe, j->of, j->text.s};
    return tt__compress_with(j->ctx, &o, &a, j->save_seconds, report, err);
}

static tt_status build_uniform(ajob *j, int f, const char *output, bool dry, tt_compress_report **report, tt_err *err) {
    for (size_t i = 0; i < j->n; i++) j->form[i] = (uint8_t)f;
    return build(j, output, dry, report, err);
}

static uint64_t linear_bytes(const ajob *j, const tt_compress_report *r) { return (uint64_t)(r->linear_bits_after * (double)j->model->info.linear_params / 8 + 0.5); }

/* Bytes for the matrices of the layers: the target less everything else. beside: of the file, around its tensors. */
static uint64_t room(const ajob *j, const tt_compress_report *r, uint64_t beside) {
    const uint64_t others = r->bytes_after - linear_bytes(j, r) + (j->o->target_bytes ? beside : 0);
    const uint64_t all = j->o->target_bytes ? j->o->target_bytes : (uint64_t)(j->o->target_bpw * (double)j->model->info.params / 8);
    return all > others ? all - others : 0;
}

static uint64_t file_size(const char *path) {
    tt__map map;
    tt_err ignored = {0};
    if (tt__map_open(path, &map, &ignored) != TT_OK) return 0;
    uint64_t n = map.size;
    tt__map_close(&map);
    return n;
}

/* The largest uniform form that fits, or -1. */
static int largest_uniform(const ajob *j, uint64_t limit) {
    int best = -1;
    for (int f = 0; f < FORMS; f++)
        if (uniform_bytes(j, f) <= limit && (best < 0 || uniform_bytes(j, f) > uniform_bytes(j, best))) best = f;
    return best;
}

static int smallest_uniform(const ajob *j) {
    int best = 0;
    for (int f = 1; f < FORMS; f++)
        if (uniform_bytes(j, f) < uniform_bytes(j, best)) best = f;
    return best;
}

/* KL of a file to the model, on the last sequences of the text. */
static tt_status judge(ajob *j, const char *path, double *kl, tt_err *err) {
    tt_model *m = NULL;
    tt_runner *r = NULL;
    tt_model_options mo = tt_model_default_options();
    const tt_runner_options ro = {.max_rows = j->sequences * j->length};
    const int32_t *ids = j->ids + (j->samples - j->sequences) * j->length;
    const int64_t rows = j->sequences * j->length;
    tt_status st;
    mo.numerics = TT_EXACT;
    TT_TRY_GOTO(tt_model_open(j->ctx, path, &mo, &m, err));
    TT_TRY_GOTO(tt__runner_create(j->ctx, m->net, &ro, &r, err));
    TT_TRY_GOTO(tt__run_embed(j->calib->runner, ids, rows, j->X, err));
    TT_TRY_GOTO(to_the_end(j, j->calib->runner, 0, j->X, j->dense_H, err));
    TT_TRY_GOTO(tt__run_embed(r, ids, rows, j->X, err));
    TT_TRY_GOTO(to_the_end(j, r, 0, j->X, j->H, err));
    TT_TRY_GOTO(divergence(j, j->calib->runner, j->dense_H, r, j->H, rows, kl, err));
done:
    tt__runner_free(r);
    tt_model_close(m);
    return st;
}

static tt_status ship(const ajob *j, const char *path, tt_err *err) {
    tt__map map;
    TT_TRY(tt__map_open(path, &map, err));
    tt_status st = tt__write_file(j->o->output, map.data, map.size, err);
    tt__map_close(&map);
    return st;
}

static void sweep(const ajob *j) {
    tt_err ignored = {0};
    tt__remove(j->uniform_path, &ignored);
    tt__remove(j->mix_path, &ignored);
    char *path = tt__path_join(j->dir, "measured");
    if (path) tt__remove(path, &ignored);
    tt__free(path);
    tt__cstate_sweep(j->dir, NULL, NULL);
}

/* The nearest miss, written, and the error that says by how much. */
static tt_status miss(ajob *j, tt_compress_report **report, tt_err *err) {
    tt_compress_report *r = NULL;
    TT_TRY(build_uniform(j, smallest_uniform(j), j->o->output, false, &r, err));
    sweep(j);
    tt_err line = {0};
    tt_status st = j->o->target_bytes
        ? tt__fail(&line, TT_TARGET, "target cannot be met; the nearest is written|%s|%llu bytes|at most %llu|compress the embedding too, or use another family of formats", j->o->output,
                   (unsigned long long)r->file_bytes, (unsigned long long)j->o->target_bytes)
        : tt__fail(&line, TT_TARGET, "target cannot be met; the nearest is written|%s|%.4f bits per weight|at most %g|compress the embedding too, or use another family of formats",
                   j->o->output, r->bits_after, j->o->target_bpw);
    if (err) *err = line;
    r->mix_loss = r->uniform_loss = NAN;
    if (report) *report = r;
    else tt_compress_free_report(r);
    return st;
}

static bool is_uniform(const ajob *j) {
    for (size_t i = 1; i < j->n; i++)
        if (j->form[i] != j->form[0]) return false;
    return true;
}

/* Reports of what an earlier process finished are made again, should they be wanted. */
static tt_status finish(ajob *j, int uniform, bool mixed, double losses[2], tt_compress_report **uniform_report, tt_compress_report **mix_report, tt_compress_report **report,
                        tt_err *err) {
    const char *path = mixed ? j->mix_path : j->uniform_path;
    tt_compress_report **have = mixed ? mix_report : uniform_report;
    if (!*have) TT_TRY(mixed ? build(j, path, false, have, err) : build_uniform(j, uniform, path, false, have, err));
    TT_TRY(ship(j, path, err));
    (*have)->mix_loss = losses[0];
    (*have)->uniform_loss = losses[1];
    (*have)->mixed = mixed;
    if (report) {
        *report = *have;
        *have = NULL;
    }
    sweep(j);
    return TT_OK;
}

/* In an earlier process finished: the file stands and its state is gone. */
static bool stands(const char *path) {
    char *state = NULL;
    tt__str s = {0};
    tt__str_printf(&s, "%s.state", path);
    state = s.s;
    bool yes = !s.failed && tt__exists(path) && !tt__exists(state);
    tt__str_free(&s);
    return yes;
}

static tt_status both(ajob *j, int uniform, const tt_compress_report *predicted, tt_compress_report *r[2], tt_compress_report **report, tt_err *err) {
    double losses[2] = {NAN, NAN};
    const bool had = j->o->resume && stands(j->uniform_path);
    if (!had) TT_TRY(build_uniform(j, uniform, j->uniform_path, false, &r[1], err));
    const uint64_t tensors = predicted->bytes_after - linear_bytes(j, predicted) + uniform_bytes(j, uniform), size = file_size(j->uniform_path);
    const uint64_t beside = size > tensors ? size - tensors + TEXT_SLACK : TEXT_SLACK;
    TT_TRY(choose(j, room(j, predicted, beside) > uniform_bytes(j, uniform) ? room(j, predicted, beside) : uniform_bytes(j, uniform), err));
    if (is_uniform(j)) return finish(j, uniform, false, losses, &r[1], &r[0], report, err);
    if (!(j->o->resume && stands(j->mix_path))) TT_TRY(build(j, j->mix_path, false, &r[0], err));
    TT_TRY(judge(j, j->mix_path, &losses[0], err));
    TT_TRY(judge(j, j->uniform_path, &losses[1], err));
    const bool mixed = losses[0] <= losses[1];
    tt__log(j->ctx, mixed ? TT_LOG_INFO : TT_LOG_WARN, "compress: KL to the model: mixture %.5f, uniform %d bits in groups of %d %.5f%s", losses[0], forms[uniform].bits,
            forms[uniform].group, losses[1], mixed ? "" : ": the mixture is worse, the uniform one is kept");
    return finish(j, uniform, mixed, losses, &r[1], &r[0], report, err);
}

static tt_status allocate(ajob *j, tt_compress_report **report, tt_err *err) {
    tt_compress_report *predicted = NULL, *r[2] = {NULL, NULL};
    tt_status st;
    TT_TRY_GOTO(build_uniform(j, 0, j->o->output, true, &predicted, err));
    const uint64_t source = file_size(j->model->path), beside = source > j->model->info.bytes ? source - j->model->info.bytes : 0;
    const uint64_t names = j->net->n_weights * 256;               /* segments are named and described, each */
    const int uniform = largest_uniform(j, room(j, predicted, beside + names));
    if (j->o->dry_run) {
        tt_compress_free_report(predicted);
        predicted = NULL;
        TT_TRY_GOTO(build_uniform(j, uniform < 0 ? smallest_uniform(j) : uniform, j->o->output, true, &predicted, err));
        if (report) *report = predicted, predicted = NULL;
        goto done;
    }
    TT_TRY_GOTO(tt__mkdirs(j->dir, err));
    if (uniform < 0) st = miss(j, report, err);
    else {
        TT_TRY_GOTO(measure_all(j, err));
        st = both(j, uniform, predicted, r, report, err);
    }
done:
    tt_compress_free_report(predicted);
    tt_compress_free_report(r[0]);
    tt_compress_free_report(r[1]);
    return st;
}

/* ------------------------------------------------------------ the whole ---- */

static tt_status name_paths(ajob *j, tt_err *err) {
    tt__str s = {0};
    tt__str_printf(&s, "%s%s", j->o->state ? j->o->state : j->o->output, j->o->state ? "" : ".state");
    j->dir = s.s;
    if (!s.failed) j->uniform_path = tt__path_join(j->dir, "uniform.gguf"), j->mix_path = tt__path_join(j->dir, "mix.gguf");
    TT_FAIL_IF(s.failed || !j->uniform_path || !j->mix_path, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

static tt_status open_all(ajob *j, tt_err *err) {
    const tt_compress_options *o = j->o;
    tt_model_options mo = tt_model_default_options();
    mo.numerics = TT_EXACT;
    TT_FAIL_IF(!o->output || !*o->output, err, TT_USAGE, "no output given|||a file to write");
    TT_FAIL_IF(o->target_bpw && o->target_bytes, err, TT_USAGE, "two targets|--target-size|%llu bytes and %g bits per weight|one of the two", (unsigned long long)o->target_bytes, o->target_bpw);
    TT_FAIL_IF(o->target_bpw < 0 || !isfinite(o->target_bpw), err, TT_USAGE, "bad target|--target-bpw|%g|above 0", o->target_bpw);
    TT_FAIL_IF(!o->dry_run && !o->force && tt__exists(o->output), err, TT_USAGE, "output exists|%s|||use --force to replace it", o->output);
    TT_TRY(read_family(j, err));
    TT_TRY(name_paths(j, err));
    TT_TRY(tt_model_open(j->ctx, o->model, &mo, &j->model, err));
    j->net = j->model->net;
    TT_FAIL_IF(!j->net, err, TT_BADFILE, "cannot compress this architecture|%s|%s", j->model->path, j->model->info.architecture);
    TT_FAIL_IF(!j->model->tok, err, TT_BADFILE, "model has no tokenizer that this build can use|%s", j->model->path);
    TT_TRY(tt__new(&j->weight, j->net->n_weights, sizeof *j->weight, "a table of matrices", err));
    for (size_t i = 0; i < j->net->n_weights; i++)
        if (j->net->weights[i].op && j->net->weights[i].linear) j->weight[j->n++] = i;
    TT_TRY(tt__new(&j->rows, j->n, sizeof *j->rows, "measured losses", err));
    TT_TRY(tt__new(&j->form, j->n, 1, "a choice of types", err));
    TT_TRY(tt__new(&j->of, j->net->n_weights, 1, "a choice of types", err));
    return tt__calibration_ids(j->ctx, j->model, o, &j->samples, j->length, &j->ids, j->data_sha256, err);
}

static tt_status make_fingerprint(ajob *j, tt_err *err) {
    tt__str s = {0};
    char base[65];
    TT_TRY(tt_model_sha256(j->model, base, err));
    tt__str_printf(&s, "allocate 1 %s %s %s %d %s %lld %lld %" PRIu64, tt_version(), base, tt_ctx_isa(j->ctx), j->sym, j->data_sha256, (long long)j->samples, (long long)j->length, j->o->seed);
    if (!s.failed) tt__sha256_hex(s.s, s.n, j->fingerprint);
    tt_status st = s.failed ? tt__fail(err, TT_RESOURCE, "out of memory|the fingerprint") : TT_OK;
    tt__str_free(&s);
    return st;
}

static void release(ajob *j) {
    tt__calib_free(j->calib);
    float *const floats[] = {j->at_layer, j->X, j->H, j->dense_H, j->a, j->b};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) tt__free(floats[i]);
    for (int f = 0; f < FORMS; f++) tt__free(j->recipe[f]);
    tt__str_free(&j->text);
    tt__free(j->dir);
    tt__free(j->uniform_path);
    tt__free(j->mix_path);
    tt__free(j->ids);
    tt__free(j->weight);
    tt__free(j->rows);
    tt__free(j->form);
    tt__free(j->of);
    tt_model_close(j->model);
}

tt_status tt__allocate(tt_ctx *ctx, const tt_compress_options *options, double save_seconds, tt_compress_report **report, tt_err *err) {
    ajob j = {.ctx = ctx, .o = options, .save_seconds = save_seconds, .samples = options->samples ? options->samples : 64, .length = options->length ? options->length : 512};
    const double start = tt__now();
    if (report) *report = NULL;
    tt_status st = open_all(&j, err);
    if (st == TT_OK) st = make_fingerprint(&j, err);
    if (st == TT_OK) st = allocate(&j, report, err);
    if (report && *report) (*report)->seconds = tt__now() - start;
    release(&j);
    return st;
}
