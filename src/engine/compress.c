/* tt_compress: a model goes in, the compress steps of a recipe are applied matrix by matrix, a GGUF comes out.
 *
 *     sample     calibration text from the model itself (data "self")
 *     collect  ┐ of each layer: the inputs of its matrices are summed up, its matrices compressed (methods), and the calibration
 *     compress ├ tokens sent on through the compressed layer                                              (train/calib.h)
 *     train    │ with block trainers in the recipe: the layer's matrices learn together                   (train/block.h)
 *     advance  ┘
 *     done       everything is in the state folder; the file is written beside its target and renamed, the folder removed
 *
 * The position in this sequence is a value (tt_position), every step goes from one to the next, and between two steps everything can be
 * saved: a run that is killed at any moment and repeated loses less than half a minute and ends with the same bytes. Operators of
 * finished layers are mapped from the state folder, so memory is bounded by one layer and the calibration.
 *
 * What is compressed: the linear matrices of the layers. Embedding and output stay as they are, unless the recipe is a plain type name
 * ("Q4_K_M"): then every matrix gets the type that llama-quantize gives it (engine/mix.h); or unless they have a recipe of their own, which
 * comes last, as a layer of its own behind the others, and is told what the output matrix reads: the final norm of the compressed layers.
 */
#include "base/env.h"
#include "base/file.h"
#include "base/limits.h"
#include "engine/allocate.h"
#include "engine/compress_state.h"
#include "engine/mix.h"
#include "engine/model.h"
#include "engine/sample.h"
#include "engine/texts.h"
#include "methods/method.h"
#include "methods/weights/grid.h"
#include "methods/weights/obs.h"
#include "models/store.h"
#include "text/dataset.h"
#include "train/block.h"
#include "train/calib.h"
#include "train/linalg.h"
#include "train/rawfile.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { MAX_STEPS = 64, DECODE_ROWS = 32 };
static const uint64_t DEFAULT_RAM = 1ull << 30;

typedef struct step { const tt_method *method; tt_knobs knobs; } step;

/* A recipe of its own for a matrix outside the layers. */
typedef struct side { const char *option, *text; tt_recipe *recipe; char *line; step steps[MAX_STEPS]; int n_steps; unsigned wants; } side;
enum { EMBEDDING, OUTPUT, SIDES };

typedef struct cjob {
    tt_ctx *ctx;
    const tt_compress_options *o;
    int64_t samples, length;
    uint64_t max_ram;
    char *state, *lock;                        /* the folder, and the file beside it that says who works there */
    int lock_fd;
    tt_recipe *recipe;
    const tt_mix *mix;                         /* one of recipe and mix */
    char *line;                                /* canonical */
    step steps[MAX_STEPS];
    int n_steps, n_blocks;                     /* block trainers are the last ones */
    unsigned wants;                            /* of the layers and of both sides */
    side sides[SIDES];                         /* n_steps 0: it stays as it is */
    const tt_allocation *allocation;           /* or NULL */
    side *allocated;                           /* [allocation->n] */
    tt_model *model;
    tt_net *net;
    char recipe_sha256[65], base_sha256[65], data_sha256[65], fingerprint[65];
    tt_sources sources;
    int64_t self_rows;                         /* of the calibration sequences: the last ones are sampled from the model */
    int32_t *ids;                              /* [samples, length] */
    tt_selftext *self;
    tt_model *sampled;                         /* the model once more, for fast runs */
    tt_calib *calib;
    bool hidden_in_memory, full;
    unsigned passes[TT_CALIB_INPUTS];          /* inputs collected together */
    int n_passes;
    bool sequential;
    tt_position at;
    bool torn;                                 /* a step failed half-way: what is in memory must not be saved */
    tt_linop **ops;                            /* [n_weights] in place of the net's */
    tt_outcome *outcome;                       /* [n_weights] */
    tt_draft *drafts;                          /* [n_weights] of the layer at hand, for block trainers; or NULL */
    tt_block *trainer;
    float *targets;                            /* [samples, length, width] what the layer should give; NULL: in the folder */
    tt_gguf **files;                           /* [n_layer + 1] that finished operators lend from */
    double last_save, save_seconds;
    bool resumed;
    uint64_t file_bytes;
} cjob;

tt_compress_options tt_compress_default_options(void) { return (tt_compress_options){.size = sizeof(tt_compress_options), .resume = true}; }

static bool calibrates(const cjob *j) { return j->wants != TT_WANT_NOTHING; }
static bool is_self(const cjob *j) { return j->self_rows > 0; }
static int32_t *self_ids(const cjob *j) { return j->ids + (j->samples - j->self_rows) * j->length; }
static bool has_sides(const cjob *j) { return j->sides[EMBEDDING].n_steps || j->sides[OUTPUT].n_steps; }
static bool head_calibrates(const cjob *j) { return (j->sides[EMBEDDING].wants | j->sides[OUTPUT].wants) != TT_WANT_NOTHING; }
static int n_units(const cjob *j) { return (int)j->net->hp.n_layer + (j->mix || has_sides(j) ? 1 : 0); }
static int unit_of(const cjob *j, int layer) { return layer < j->net->hp.n_layer ? layer : -1; }

/* The recipe of its own of weight i, or NULL: of a layer where types were allocated, of embedding and output. A tied matrix has one, whichever option named it. */
static const side *side_of(const cjob *j, size_t i) {
    if (j->allocation && j->allocation->of[i]) return &j->allocated[j->allocation->of[i] - 1];
    if (i == j->net->output && j->sides[OUTPUT].n_steps) return &j->sides[OUTPUT];
    return i == j->net->embd && j->sides[EMBEDDING].n_steps ? &j->sides[EMBEDDING] : NULL;
}

static bool treated(const cjob *j, size_t i) { return j->net->weights[i].op && (j->mix || j->net->weights[i].linear || side_of(j, i)); }

/* Inputs collected together in pass `pass` of a layer; the matrices behind the layers have one pass, over what the output reads. */
static unsigned pass_set(const cjob *j, int layer, int pass) {
    if (layer < j->net->hp.n_layer) return j->passes[pass];
    return head_calibrates(j) ? 1u << TT_CALIB_HEAD : 0;
}
static int passes_of(const cjob *j, int layer) { return layer < j->net->hp.n_layer ? j->n_passes : 1; }
static bool collects(const cjob *j, int layer) { return calibrates(j) && (layer < j->net->hp.n_layer || head_calibrates(j)); }

/* ------------------------------------------------------------ recipe ---- */

static tt_status unknown_recipe(const cjob *j, tt_status st, tt_err *err) {
    const char *text = j->o->recipe, *near = strpbrk(text, "(+{") ? NULL : tt__mix_nearest(text);
    if (!near || tt_method_find(text)) return st;
    return tt__fail(err, TT_USAGE, "unknown type|recipe|%s||did you mean '%s'?", text, near);
}

/* A type by itself is that type by its own search. */
static tt_status read_side(side *s, const char *option, const char *text, tt_err *err) {
    char plain[64];
    tt_dtype type;
    *s = (side){.option = option, .text = text};
    if (!text) return TT_OK;
    if (tt__dtype_from_name(text, &type)) snprintf(plain, sizeof plain, "rtn(type=%s)", tt__dtype(type)->label), text = plain;
    tt_status st = tt_recipe_parse(text, strlen(text), &s->recipe, err);
    if (st != TT_OK) return tt__err_at(err, st, "%s", option);
    for (size_t i = 0; i < tt_recipe_step_count(s->recipe); i++) {
        const tt_method *m = tt__method_of(tt_recipe_get_method(s->recipe, i));
        TT_FAIL_IF(!m->compress, err, TT_USAGE, "not a method that compresses|%s, step %zu|%s|stage compress", option, i + 1, m->info.name);
        TT_FAIL_IF(m->compress->block, err, TT_USAGE, "only the recipe of all layers can train blocks|%s, step %zu|%s", option, i + 1, m->info.name);
        step *t = &s->steps[s->n_steps++];
        *t = (step){m, {s->recipe, i}};
        s->wants |= m->compress->wants(&t->knobs);
    }
    return tt_recipe_line(s->recipe, true, &s->line, err);
}

static tt_status read_outer(cjob *j, side *s, const char *option, const char *text, tt_err *err) {
    TT_TRY(read_side(s, option, text, err));
    TT_FAIL_IF(s->wants & ~(unsigned)(TT_WANT_SUMSQ | TT_WANT_HESSIAN), err, TT_USAGE, "method needs two streams of calibration, which only layers have|%s|%s", option, s->text);
    TT_FAIL_IF(s->wants && j->mix, err, TT_USAGE, "a plain type for the layers reads no text, this recipe does|%s|%s||a recipe for the layers, or one without calibration here", option,
               s->text);
    j->wants |= s->wants;
    return TT_OK;
}

static tt_status read_sides(cjob *j, tt_err *err) {
    const size_t n = j->allocation ? j->allocation->n : 0;
    TT_TRY(read_outer(j, &j->sides[EMBEDDING], "--token-embedding-type", j->o->token_embedding, err));
    TT_TRY(read_outer(j, &j->sides[OUTPUT], "--output-tensor-type", j->o->output_tensor, err));
    TT_FAIL_IF(n && j->n_blocks, err, TT_USAGE, "types that are allocated are not trained|recipe|%s||leave the block trainer out", j->o->recipe);
    if (n) TT_TRY(tt__new(&j->allocated, n, sizeof *j->allocated, "an allocation", err));
    for (size_t i = 0; i < n; i++) {
        TT_TRY(read_side(&j->allocated[i], "allocation", j->allocation->recipe[i], err));
        j->wants |= j->allocated[i].wants;
        for (int k = 0; k < j->allocated[i].n_steps; k++) {
            const step *t = &j->allocated[i].steps[k];
            j->sequential |= t->method->compress->sequential && t->method->compress->sequential(&t->knobs);
        }
    }
    return TT_OK;
}

static tt_status check_applies(const cjob *j, const side *s, tt_err *err) {
    for (int i = 0; i < s->n_steps; i++)
        if (s->steps[i].method->applies) TT_TRY(s->steps[i].method->applies(j->net, &s->steps[i].knobs, err));
    return TT_OK;
}

/* What a tied or an untied model does not allow. */
static tt_status check_sides(const cjob *j, tt_err *err) {
    const side *embedding = &j->sides[EMBEDDING], *output = &j->sides[OUTPUT];
    const bool tied = j->net->output == j->net->embd, both = embedding->n_steps && output->n_steps;
    TT_FAIL_IF(tied && both && strcmp(embedding->line, output->line), err, TT_USAGE, "embedding and output are one matrix in this model|--output-tensor-type|%s|%s, or one option only",
               output->text, embedding->text);
    TT_FAIL_IF(!tied && embedding->wants, err, TT_USAGE, "an embedding that is not the output has no inputs to learn from|--token-embedding-type|%s|a recipe without calibration",
               embedding->text);
    for (int s = 0; s < SIDES; s++) TT_TRY(check_applies(j, &j->sides[s], err));
    for (size_t i = 0; j->allocation && i < j->allocation->n; i++) TT_TRY(check_applies(j, &j->allocated[i], err));
    return TT_OK;
}

static tt_status take_step(cjob *j, size_t i, tt_err *err) {
    const tt_method_info *info = tt_recipe_get_method(j->recipe, i);
    const tt_method *m = tt__method_of(info);
    if (!strcmp(info->stage, "train")) {
        tt__log(j->ctx, TT_LOG_INFO, "compress: step %zu, %s, is left to tune", i + 1, info->name);
        return TT_OK;
    }
    TT_FAIL_IF(!m->compress, err, TT_USAGE, "not a method that compresses|recipe, step %zu|%s|stage compress", i + 1, info->name);
    TT_FAIL_IF(j->n_blocks && !m->compress->block, err, TT_USAGE, "methods that train blocks come last|recipe, step %zu|%s", i + 1, info->name);
    step *s = &j->steps[j->n_steps++];
    *s = (step){m, {j->recipe, i}};
    j->n_blocks += m->compress->block != NULL;
    j->wants |= m->compress->wants(&s->knobs);
    j->sequential |= m->compress->sequential && m->compress->sequential(&s->knobs);
    return TT_OK;
}

static tt_status read_recipe(cjob *j, tt_err *err) {
    const char *text = j->o->recipe;
    TT_FAIL_IF(!text || !*text, err, TT_USAGE, "no recipe given|||a type such as Q4_0, or methods such as gptq(bits=4)");
    j->mix = tt__mix_find(text);
    if (j->mix) {
        j->line = tt__strdup(j->mix->name);
        TT_FAIL_IF(!j->line, err, TT_RESOURCE, "out of memory|the recipe");
        tt__sha256_hex(j->line, strlen(j->line), j->recipe_sha256);
        return TT_OK;
    }
    tt_status st = tt_recipe_parse(text, strlen(text), &j->recipe, err);
    if (st != TT_OK) return unknown_recipe(j, st, err);
    for (size_t i = 0; i < tt_recipe_step_count(j->recipe); i++) TT_TRY(take_step(j, i, err));
    TT_FAIL_IF(!j->n_steps, err, TT_USAGE, "no compress step in the recipe|recipe|%s", text);
    tt_recipe_sha256(j->recipe, j->recipe_sha256);
    return tt_recipe_line(j->recipe, true, &j->line, err);
}

/* ------------------------------------------------------------ model and output ---- */

static tt_status open_model(cjob *j, tt_err *err) {
    tt_model_options mo = tt_model_default_options();
    mo.numerics = TT_EXACT;
    TT_TRY(tt_model_open(j->ctx, j->o->model, &mo, &j->model, err));
    j->net = j->model->net;
    TT_FAIL_IF(!j->net, err, TT_BADFILE, "cannot compress this architecture|%s|%s", j->model->path, j->model->info.architecture);
    TT_FAIL_IF(calibrates(j) && !j->model->tok, err, TT_BADFILE, "model has no tokenizer that this build can use|%s", j->model->path);
    TT_FAIL_IF(tt__same_file(j->model->path, j->o->output), err, TT_USAGE, "output is the model itself|%s", j->o->output);
    for (int i = 0; i < j->n_steps; i++)
        if (j->steps[i].method->applies) TT_TRY(j->steps[i].method->applies(j->net, &j->steps[i].knobs, err));
    TT_TRY(check_sides(j, err));
    TT_TRY(tt__new(&j->ops, j->net->n_weights, sizeof *j->ops, "operators", err));
    TT_TRY(tt__new(&j->outcome, j->net->n_weights, sizeof *j->outcome, "operators", err));
    if (j->n_blocks) TT_TRY(tt__new(&j->drafts, j->net->n_weights, sizeof *j->drafts, "drafts", err));
    return tt__new(&j->files, (size_t)j->net->hp.n_layer + 1, sizeof *j->files, "operators", err);
}

static tt_status name_state(cjob *j, tt_err *err) {
    tt__str s = {0};
    if (j->o->state) tt__str_puts(&s, j->o->state);
    else tt__str_printf(&s, "%s.state", j->o->output);
    j->state = s.s;                            /* freed with the job, whole or not */
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

static tt_status name_lock(cjob *j, tt_err *err) {
    tt__str s = {0};
    tt__str_printf(&s, "%s.lock", j->state);
    j->lock = s.s;
    TT_FAIL_IF(s.failed, err, TT_RESOURCE, "out of memory|a path");
    return TT_OK;
}

/* What a run that was killed at its last act left: whoever holds the lock takes it away at the end. */
static tt_status clear_away(cjob *j, tt_err *err) {
    tt_err ignored = {0};
    TT_TRY(name_lock(j, err));
    if (tt__exists(j->state) || tt__exists(j->lock)) tt__lock_take(j->lock, &j->lock_fd, &ignored);
    return TT_OK;
}

static tt_status lock_state(cjob *j, tt_err *err) {
    TT_TRY(name_lock(j, err));
    TT_TRY(tt__mkdirs(j->state, err));
    TT_TRY(tt__lock_take(j->lock, &j->lock_fd, err));
    TT_FAIL_IF(j->lock_fd < 0, err, TT_USAGE, "another process works on this output|%s|||wait for it, or give --state another folder", j->state);
    return TT_OK;
}

/* Rows that are not whole blocks get another type: said once, or refused. */
static tt_status check_fallbacks(cjob *j, tt_err *err) {
    size_t n = 0, all = 0;
    const char *from = "", *to = "";
    for (size_t i = 0; j->mix && i < j->net->n_weights; i++) {
        if (!treated(j, i) || side_of(j, i)) continue;
        tt_dtype wanted, type = tt__mix_type(j->mix, j->net, i, &wanted);
        all++;
        if (type == wanted) continue;
        n++;
        from = tt__dtype(wanted)->label, to = tt__dtype(type)->label;
        TT_FAIL_IF(j->o->no_fallback, err, TT_TARGET, "type does not fit the tensor|%s|%lld columns|a multiple of %lld for %s|allow the fallback to %s, or use a type with blocks of 32",
                   j->net->weights[i].name, (long long)j->net->weights[i].cols, (long long)tt__dtype(wanted)->block, from, to);
    }
    if (n) tt__log(j->ctx, TT_LOG_WARN, "compress: %zu of %zu matrices do not hold whole blocks and get a larger type (%s becomes %s)", n, all, from, to);
    return TT_OK;
}

/* ------------------------------------------------------------ plan: memory and passes ---- */

typedef struct needs { uint64_t fixed, sums, largest_sum, hidden; } needs;   /* sums: with what belongs to them in the dense stream */

static const step *block_step(const cjob *j, int i) { return &j->steps[j->n_steps - j->n_blocks + i]; }

static tt_status block_options(const cjob *j, int i, tt_block_options *o, tt_err *err) {
    const step *s = block_step(j, i);
    TT_TRY(s->method->compress->block(&s->knobs, o, err));
    o->seed = j->o->seed + (uint64_t)i;
    return TT_OK;
}

/* Drafts of the widest layer, and the trainer at work on them. */
static tt_status trainer_needs(const cjob *j, uint64_t *bytes, tt_err *err) {
    *bytes = 0;
    for (int i = 0; i < j->n_blocks; i++) {
        tt_block_options o;
        TT_TRY(block_options(j, i, &o, err));
        uint64_t n = tt__block_bytes(j->net, o.mode, o.batch * j->length) + 10 * tt__block_weights(j->net);
        if (n > *bytes) *bytes = n;
    }
    return TT_OK;
}

/* Bytes beside the mapped model. A matrix in work, at most: three dense copies (weights, errors, their gradient), codes and mask, and either
 * the factor of its Hessian (with a correction two more of that size) and what the walk and the polish take, or the operator that was made of it. */
static needs memory_needs(const cjob *j) {
    const tt_hparams *h = &j->net->hp;
    needs m = {0};
    uint64_t work = 0, rows = calibrates(j) ? (uint64_t)(tt__calib_batch(j->net, j->length) * j->length) : 0;
    for (size_t i = 0; i < j->net->n_weights; i++) {
        const tt_weight *w = &j->net->weights[i];
        if (!treated(j, i)) continue;
        uint64_t n = (uint64_t)(w->rows * w->cols), square = (uint64_t)(w->cols * w->cols) * (j->wants & TT_WANT_CROSS ? 12 : 4);
        uint64_t factored = calibrates(j) ? 14 * n + square + (uint64_t)w->rows * 256 * 9 + (uint64_t)w->cols * 4096 + tt__refine_bytes(w->rows, w->cols) : 0;
        if (14 * n > work) work = 14 * n;
        if (factored > work) work = factored;
    }
    m.fixed = work;
    if (!calibrates(j)) return m;
    m.fixed += rows * (uint64_t)tt__calib_row(j->net) * 4 + (uint64_t)(j->samples * j->length) * 4;
    m.hidden = (uint64_t)(j->samples * j->length * h->n_embd) * (j->n_blocks ? 12 : j->wants & (TT_WANT_CROSS | TT_WANT_DENSE) ? 8 : 4);
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        uint64_t n = (uint64_t)tt__calib_input(j->net, i), bytes = j->wants & TT_WANT_CROSS ? 8 * n * n + 4 * n * rows : 4 * n * n;
        m.sums += bytes;
        if (bytes > m.largest_sum) m.largest_sum = bytes;
    }
    uint64_t head = head_calibrates(j) ? 4 * (uint64_t)h->n_embd * (uint64_t)h->n_embd : 0;
    if (head > m.largest_sum) m.largest_sum = head;
    return m;
}

static void add_pass(cjob *j, unsigned set) {
    if (set) j->passes[j->n_passes++] = set;
}

/* One pass over a layer where it may be; one per input where inputs depend on what was compressed before, or memory is short. */
static tt_status plan(cjob *j, tt_err *err) {
    needs m = memory_needs(j);
    uint64_t trainer;
    TT_TRY(trainer_needs(j, &trainer, err));
    m.fixed += trainer;
    uint64_t ram = j->max_ram, left = ram > m.fixed ? ram - m.fixed : 0;
    unsigned all = 0;
    j->full = calibrates(j) && (j->wants & (TT_WANT_HESSIAN | TT_WANT_CROSS) || m.sums <= left);
    TT_FAIL_IF(m.fixed + (j->full ? m.largest_sum : 0) > ram, err, TT_USAGE, "memory bound is too small for this model|max_ram|%" PRIu64 " MB|at least %" PRIu64 " MB", ram >> 20,
               ((m.fixed + (j->full ? m.largest_sum : 0)) >> 20) + 1);
    bool together = !j->sequential && (!j->full || m.sums <= left);
    for (int i = 0; i < TT_CALIB_INPUTS; i++) {
        if (!calibrates(j) || !tt__calib_input(j->net, i)) continue;
        all |= 1u << i;
        if (!together) add_pass(j, 1u << i);
    }
    if (together) add_pass(j, all);
    if (!j->n_passes) j->n_passes = 1;                                  /* no calibration: one pass over nothing */
    uint64_t sums = !j->full ? 0 : together ? m.sums : m.largest_sum;
    j->hidden_in_memory = left - sums >= m.hidden;
    tt__log(j->ctx, TT_LOG_DEBUG, "compress: %d pass(es) a layer, hidden states %s", j->n_passes, j->hidden_in_memory ? "in memory" : "on disk");
    return TT_OK;
}

/* ------------------------------------------------------------ calibration data ---- */

static void hash_ids(cjob *j) { tt__sha256_hex(j->ids, (size_t)(j->samples * j->length) * sizeof *j->ids, j->data_sha256); }

/* Random windows of the text, behind which there is room for the sampled ones. Fewer than asked for is a warning, none an error. */
static tt_status take_windows(cjob *j, const tt_tokens *tokens, tt_err *err) {
    tt_tokens joined = {0};
    tt_window *windows = NULL;
    size_t n = 0;
    tt_status st;
    TT_TRY_GOTO(tt__windows_packed(tokens, j->length, tt__tokenizer_eos(j->model->tok), j->o->seed, &joined, &windows, &n, err));
    if (n == 0) {
        st = tt__fail(err, TT_USAGE, "calibration text is too short|%s|%zu tokens|at least %lld", j->o->data, tokens->n, (long long)j->length);
        goto done;
    }
    if ((int64_t)n < j->samples - j->self_rows) {
        tt__log(j->ctx, TT_LOG_WARN, "compress: the text gives %zu sequences of %lld tokens, not %lld", n, (long long)j->length, (long long)(j->samples - j->self_rows));
        j->samples = (int64_t)n + j->self_rows;
    }
    TT_TRY_GOTO(tt__new(&j->ids, (size_t)(j->samples * j->length), sizeof *j->ids, "calibration tokens", err));
    for (int64_t s = 0; s < j->samples - j->self_rows; s++) memcpy(j->ids + s * j->length, joined.ids + windows[s].begin, (size_t)j->length * sizeof *j->ids);
done:
    tt__tokens_free(&joined);
    tt__free(windows);
    return st;
}

static tt_status load_text(cjob *j, const char *path, char sha256[65], tt_tokens *out, tt_err *err) {
    tt_docs docs = {0};
    TT_TRY(tt__docs_load(path, NULL, &docs, err));
    memcpy(sha256, docs.sha256, sizeof docs.sha256);
    tt_status st = tt__docs_tokenize(&docs, j->model->tok, out, err);
    tt__docs_free(&docs);
    return st;
}

/* The texts that are files, mixed by weight. */
static tt_status read_text(cjob *j, tt_err *err) {
    tt_tokens tokens[TT_MAX_SOURCES] = {{0}}, mixed = {0};
    char sha[TT_MAX_SOURCES][65];
    const char *hashes[TT_MAX_SOURCES];
    double weights[TT_MAX_SOURCES];
    int n = 0;
    tt_status st = TT_OK;
    for (int i = 0; i < j->sources.n && st == TT_OK; i++) {
        if (j->sources.item[i].self) continue;
        weights[n] = j->sources.item[i].weight;
        hashes[n] = sha[n];
        st = load_text(j, j->sources.item[i].path, sha[n], &tokens[n], err);
        n++;
    }
    if (st == TT_OK) st = tt__tokens_mix(tokens, weights, n, &mixed, err);
    if (st == TT_OK) st = take_windows(j, &mixed, err);
    if (st == TT_OK) tt__mix_sha256(hashes, weights, n, j->data_sha256);
    for (int i = 0; i < n; i++) tt__tokens_free(&tokens[i]);
    tt__tokens_free(&mixed);
    return st;
}

/* How many of the sequences are sampled: all, or the share of self among the texts. */
static tt_status share_out(cjob *j, tt_err *err) {
    double sum = 0;
    TT_TRY(tt__sources_parse(j->o->data ? j->o->data : "self", "data", &j->sources, err));
    int self = tt__sources_self(&j->sources);
    for (int i = 0; i < j->sources.n; i++) sum += j->sources.item[i].weight;
    if (self < 0) return TT_OK;
    j->self_rows = (int64_t)((double)j->samples * j->sources.item[self].weight / sum + 0.5);
    if (j->self_rows < 1) j->self_rows = 1;
    TT_FAIL_IF(j->sources.n > 1 && j->samples < 2, err, TT_USAGE, "too few calibration sequences for several texts|samples|%lld|at least 2", (long long)j->samples);
    if (j->sources.n > 1 && j->self_rows == j->samples) j->self_rows--;
    return TT_OK;
}

static tt_status prepare_data(cjob *j, tt_err *err) {
    if (!calibrates(j)) return TT_OK;
    TT_FAIL_IF(j->samples < 1 || j->samples > 1 << 20, err, TT_USAGE, "bad number of calibration sequences|samples|%lld|1 to 1048576", (long long)j->samples);
    TT_FAIL_IF(j->length < 2 || j->length > j->net->hp.n_ctx, err, TT_USAGE, "bad length of calibration sequences|length|%lld|2 to %lld, the model's context",
               (long long)j->length, (long long)j->net->hp.n_ctx);
    TT_TRY(share_out(j, err));
    if (j->self_rows < j->samples) return read_text(j, err);
    return tt__new(&j->ids, (size_t)(j->samples * j->length), sizeof *j->ids, "calibration tokens", err);
}

tt_status tt__calibration_ids(tt_ctx *ctx, tt_model *model, const tt_compress_options *o, int64_t *samples, int64_t length, int32_t **ids, char sha256[65], tt_err *err) {
    cjob j = {.ctx = ctx, .o = o, .model = model, .net = model->net, .samples = *samples, .length = length, .wants = TT_WANT_SUMSQ};
    TT_TRY(prepare_data(&j, err));
    if (is_self(&j)) {
        tt__free(j.ids);
        return tt__fail(err, TT_USAGE, "a size target measures losses on a text|--data|self|text files; 'trimtab generate' makes one of the model itself");
    }
    *samples = j.samples;
    *ids = j.ids;
    memcpy(sha256, j.data_sha256, 65);
    return TT_OK;
}

/* ------------------------------------------------------------ state ---- */

/* All that the bytes of the result depend on. */
static tt_status make_fingerprint(cjob *j, tt_err *err) {
    tt__str s = {0};
    TT_TRY(tt_model_sha256(j->model, j->base_sha256, err));
    tt__str_printf(&s, "2 %s %s %s %s %s", tt_version(), j->base_sha256, j->recipe_sha256, j->o->model, tt_ctx_isa(j->ctx));
    if (calibrates(j))
        tt__str_printf(&s, " %s %lld %lld %lld %" PRIu64 " %d", j->data_sha256[0] ? j->data_sha256 : "self", (long long)j->self_rows, (long long)j->samples, (long long)j->length, j->o->seed, j->full);
    for (int i = 0; i < SIDES; i++)
        if (j->sides[i].line) tt__str_printf(&s, " %s %s", j->sides[i].option, j->sides[i].line);
    if (j->allocation) tt__str_printf(&s, " %s", j->allocation->text);
    if (!s.failed) tt__sha256_hex(s.s, s.n, j->fingerprint);
    tt_status st = s.failed ? tt__fail(err, TT_RESOURCE, "out of memory|the fingerprint") : TT_OK;
    tt__str_free(&s);
    return st;
}

static void position_tag(const tt_position *at, char tag[40]) { snprintf(tag, 40, "%d.%d.%d.%lld", at->layer, (int)at->stage, at->pass, (long long)at->index); }
/* Are there drafts that the state must hold? */
static bool has_drafts(const cjob *j) { return j->n_blocks && (j->at.stage == TT_C_COMPRESS || j->at.stage == TT_C_TRAIN || (j->at.stage == TT_C_COLLECT && j->at.pass > 0)); }
static int trained(const cjob *j) { return j->at.stage == TT_C_TRAIN ? j->at.pass : 0; }

/* A draft changes once: from the matrix steps to the first trainer, and from one trainer to the next. */
static void draft_name(const cjob *j, size_t i, char name[48]) { snprintf(name, 48, "draft.%d.%zu", trained(j), i); }
static void trainer_name(const cjob *j, char name[64]) {
    char tag[40];
    position_tag(&j->at, tag);
    snprintf(name, 64, "train.%s", tag);
}
static void target_name(int layer, int64_t b, char name[48]) { snprintf(name, 48, "target.%d.%lld", layer, (long long)b); }

static int64_t advanced(const tt_position *at) { return at->stage == TT_C_ADVANCE ? at->index : 0; }
static bool has_sums(const tt_position *at) { return at->stage == TT_C_COMPRESS || (at->stage == TT_C_COLLECT && at->index > 0); }

static bool state_needs(void *user, const char *name) {
    const cjob *j = user;
    char tag[40], live[64];
    if (!strncmp(name, "draft.", 6)) {
        for (size_t i = 0; has_drafts(j) && i < j->net->n_weights; i++) {
            draft_name(j, i, live);
            if (tt__in_unit(j->net, i, j->at.layer) && !strcmp(name, live)) return true;
        }
        return false;
    }
    if (!strncmp(name, "train.", 6)) {
        trainer_name(j, live);
        return j->at.stage == TT_C_TRAIN && !strcmp(name, live);
    }
    if (!strncmp(name, "target.", 7)) {
        snprintf(live, sizeof live, "target.%d.", j->at.layer);
        return j->at.stage == TT_C_TRAIN && !strncmp(name, live, strlen(live));
    }
    if (!strncmp(name, "ops.", 4) || !strcmp(name, "self.ids") || !strcmp(name, "self.pos")) return true;
    if (!strncmp(name, "self.", 5)) {
        if (!j->self) return j->at.stage == TT_C_SAMPLE;               /* interrupted before the sampler was opened: its files wait */
        snprintf(live, sizeof live, "self.%.40s.", tt__selftext_tag(j->self));
        return !strncmp(name, live, strlen(live));
    }
    position_tag(&j->at, tag);
    return j->calib && tt__calib_needs(j->calib, name, j->at.layer, advanced(&j->at), tag);
}

static tt_status save_training(cjob *j, tt_err *err) {
    char name[64];
    for (size_t i = 0; has_drafts(j) && i < j->net->n_weights; i++) {
        if (!j->drafts[i].W) continue;
        draft_name(j, i, name);
        if (!tt__raw_exists(j->state, name)) TT_TRY(tt__cstate_save_draft(j->state, name, &j->drafts[i], err));
    }
    if (!j->trainer) return TT_OK;
    trainer_name(j, name);
    return tt__block_save(j->trainer, j->state, name, err);
}

static tt_status save_state(cjob *j, tt_err *err) {
    char tag[40];
    TT_TRY(tt__mkdirs(j->state, err));
    position_tag(&j->at, tag);
    TT_TRY(save_training(j, err));
    if (j->self) TT_TRY(tt__selftext_save(j->self, j->state, err));
    else if (j->calib && j->at.stage != TT_C_DONE) TT_TRY(tt__calib_save(j->calib, j->at.layer, advanced(&j->at), tag, err));
    if (j->at.stage == TT_C_COLLECT || j->at.stage == TT_C_COMPRESS || j->at.stage == TT_C_TRAIN) TT_TRY(tt__cstate_save_ops(j->state, unit_of(j, j->at.layer), j->net, j->ops, err));
    TT_TRY(tt__cstate_save(j->state, j->fingerprint, &j->at, j->outcome, j->net->n_weights, err));
    tt__cstate_sweep(j->state, state_needs, j);
    j->last_save = tt__now();
    return TT_OK;
}

static tt_status map_unit(cjob *j, int layer, tt_err *err) {
    int unit = unit_of(j, layer);
    for (size_t i = 0; i < j->net->n_weights; i++) {
        if (!tt__in_unit(j->net, i, unit) || !j->ops[i]) continue;
        tt__linop_free(j->ops[i]);
        j->ops[i] = NULL;
    }
    tt__gguf_close(j->files[layer]);
    return tt__cstate_load_ops(j->state, unit, j->net, j->ops, j->outcome, &j->files[layer], err);
}

static bool position_is_sane(const cjob *j) {
    const tt_position *at = &j->at;
    int64_t batches = j->calib ? j->calib->n_batches : 0;
    if (at->stage == TT_C_DONE) return true;
    if (at->stage == TT_C_SAMPLE) return calibrates(j) && is_self(j);
    if (at->layer >= n_units(j) || at->pass >= (at->stage == TT_C_TRAIN ? j->n_blocks : passes_of(j, at->layer))) return false;
    if (at->stage == TT_C_TRAIN) return at->layer < j->net->hp.n_layer;
    return at->stage == TT_C_COMPRESS ? at->index <= (int64_t)j->net->n_weights : at->index <= batches;
}

/* Drafts of the matrices of this layer that were made. */
static tt_status restore_drafts(cjob *j, tt_err *err) {
    char name[64];
    for (size_t i = 0; has_drafts(j) && i < j->net->n_weights; i++) {
        const tt_weight *w = &j->net->weights[i];
        if (!treated(j, i) || side_of(j, i) || !tt__in_unit(j->net, i, j->at.layer) || !j->outcome[i].done) continue;
        TT_TRY(tt__draft_init(&j->drafts[i], w->name, w->layer, w->rows, w->cols, err));
        draft_name(j, i, name);
        TT_TRY(tt__cstate_load_draft(j->state, name, &j->drafts[i], err));
    }
    return TT_OK;
}

/* The outcomes tell what is finished; operators of layers up to the position are read back. */
static tt_status restore(cjob *j, tt_err *err) {
    char tag[40];
    position_tag(&j->at, tag);
    TT_FAIL_IF(!position_is_sane(j), err, TT_BADFILE, "bad position of a state|%s", j->state);
    if (j->at.stage == TT_C_SAMPLE) return TT_OK;
    int last = j->at.stage == TT_C_DONE ? n_units(j) - 1 : j->at.layer;
    for (int l = 0; l <= last; l++) {
        bool any = false;
        for (size_t i = 0; i < j->net->n_weights; i++) any |= tt__in_unit(j->net, i, unit_of(j, l)) && j->outcome[i].done && !j->outcome[i].kept;
        if (any) TT_TRY(map_unit(j, l, err));
    }
    TT_TRY(restore_drafts(j, err));
    if (calibrates(j) && is_self(j)) TT_TRY(tt__raw_read(j->state, "self.ids", self_ids(j), (size_t)(j->self_rows * j->length) * sizeof *j->ids, err));
    if (j->calib && j->at.stage != TT_C_DONE)
        TT_TRY(tt__calib_load(j->calib, j->at.layer, advanced(&j->at), has_sums(&j->at) ? pass_set(j, j->at.layer, j->at.pass) : 0, tag, err));
    return TT_OK;
}

static void forget_drafts(cjob *j) {
    for (size_t i = 0; j->drafts && i < j->net->n_weights; i++) tt__draft_free(&j->drafts[i]);
}

static void forget(cjob *j) {
    forget_drafts(j);
    for (size_t i = 0; j->ops && i < j->net->n_weights; i++) {
        tt__linop_free(j->ops[i]);
        j->ops[i] = NULL;
        if (j->outcome) j->outcome[i] = (tt_outcome){0};
    }
    for (int64_t l = 0; j->files && l <= j->net->hp.n_layer; l++) {
        tt__gguf_close(j->files[l]);
        j->files[l] = NULL;
    }
    j->at = (tt_position){.stage = calibrates(j) && is_self(j) ? TT_C_SAMPLE : calibrates(j) ? TT_C_COLLECT : TT_C_COMPRESS};
}

/* A state of the same model, recipe, data and settings is gone on with; another one is removed, and the log says so. */
static tt_status open_state(cjob *j, tt_err *err) {
    bool found = false, foreign = false;
    tt_err why = {0};
    forget(j);
    tt_position fresh = j->at;
    if (j->o->resume) TT_TRY(tt__cstate_load(j->state, j->fingerprint, &j->at, j->outcome, j->net->n_weights, &found, &foreign, err));
    TT_FAIL_IF(!found && tt__exists(j->o->output) && !j->o->force, err, TT_USAGE, "output exists|%s|||use --force to replace it", j->o->output);
    if (foreign) tt__log(j->ctx, TT_LOG_WARN, "compress: %s belongs to other settings: starting anew", j->state);
    if (calibrates(j)) {
        tt_calib_options co = {.ids = j->ids, .samples = j->samples, .length = j->length, .dir = j->state, .in_memory = j->hidden_in_memory, .full = j->full,
                               .dense = j->wants & TT_WANT_DENSE, .cross = j->wants & TT_WANT_CROSS, .head = head_calibrates(j)};
        TT_TRY(tt__calib_create(j->ctx, j->net, &co, &j->calib, err));
        if (j->n_blocks && j->hidden_in_memory)
            TT_TRY(tt__new(&j->targets, (size_t)(j->samples * j->length * j->net->hp.n_embd), sizeof *j->targets, "targets of a layer", err));
    }
    if (found && restore(j, &why) == TT_OK) {
        j->resumed = true;
        tt__log(j->ctx, TT_LOG_INFO, "compress: going on at layer %d", j->at.layer);
    } else {
        if (found && j->at.stage == TT_C_DONE && tt__exists(j->o->output)) return TT_OK;   /* killed while cleaning up: the file is there */
        if (found) tt__log(j->ctx, TT_LOG_WARN, "compress: state cannot be used (%s): starting anew", why.what);
        forget(j);
        j->at = fresh;
        tt__cstate_sweep(j->state, NULL, NULL);
    }
    j->last_save = tt__now();
    return tt__mkdirs(j->state, err);
}

/* ------------------------------------------------------------ one matrix ---- */

typedef struct decode_job { const tt_linop *op; float *out; } decode_job;
static void decode_tile(void *arg, int64_t tile, int worker) {
    (void)worker;
    const decode_job *d = arg;
    int64_t r0 = tile * DECODE_ROWS, r1 = r0 + DECODE_ROWS < d->op->rows ? r0 + DECODE_ROWS : d->op->rows;
    tt__linop_rows(d->op, r0, r1, d->out + r0 * d->op->cols);
}

static void decode_all(tt_ctx *ctx, const tt_linop *op, float *out) {
    tt__parallel(ctx, (op->rows + DECODE_ROWS - 1) / DECODE_ROWS, decode_tile, &(decode_job){op, out});
}

static tt_status check_finite(const float *W, int64_t n, tt_err *err) {
    for (int64_t i = 0; i < n; i++)
        TT_FAIL_IF(!isfinite(W[i]), err, TT_BADFILE, "weight is not a finite number|element %lld|%g", (long long)i, (double)W[i]);
    return TT_OK;
}

/* The storage that the last step with an opinion wants. */
static const char *format_of(const step *steps, int n) {
    const char *format = "auto", *of;
    for (int i = 0; i < n; i++) {
        const step *s = &steps[i];
        if (s->method->compress->format && (of = s->method->compress->format(&s->knobs))) format = of;
    }
    return format;
}

static tt_status apply_steps(cjob *j, const step *steps, int n, tt_draft *d, const tt_stats *stats, tt_linop **op, tt_err *err) {
    for (int i = 0; i < n; i++) {
        const step *s = &steps[i];
        if (d->latent && !d->bits) memcpy(d->latent, d->W, (size_t)(d->rows * d->cols) * sizeof *d->W);
        TT_TRY(s->method->compress->matrix(j->ctx, &s->knobs, d, stats, err));
    }
    if (d->latent && !d->bits) memcpy(d->latent, d->W, (size_t)(d->rows * d->cols) * sizeof *d->W);
    TT_FAIL_IF(d->latent && d->op, err, TT_USAGE, "a standard type with its own search cannot be trained|%s|||round with bits and group before a block trainer", d->name);
    if (d->latent) tt__draft_settle(d);
    return tt__draft_finish(j->ctx, d, format_of(steps, n), op, err);
}

static tt_status make_stats(const cjob *j, const tt_weight *w, tt_stats *stats, tt_err *err) {
    *stats = (tt_stats){.n = w->cols};
    const side *own = side_of(j, (size_t)(w - j->net->weights));
    if (!collects(j, j->at.layer) || (own && !own->wants)) return TT_OK;
    const int input = w->layer < 0 ? TT_CALIB_HEAD : w->input;
    const float *sum = j->calib->sum[input];
    stats->tokens = tt__calib_tokens(j->calib);
    stats->hessian = j->full ? sum : NULL;
    stats->sumsq = j->full ? NULL : sum;
    stats->cross = j->calib->moment[input];
    if (!j->full) return TT_OK;
    float *diag = NULL;
    TT_TRY(tt__new(&diag, (size_t)w->cols, sizeof *diag, "input statistics", err));
    for (int64_t c = 0; c < w->cols; c++) diag[c] = sum[c * w->cols + c];
    stats->sumsq = diag;
    return TT_OK;
}

static void free_stats(tt_stats *stats) {
    if (stats->hessian) tt__free((void *)(uintptr_t)stats->sumsq);
}

/* What was lost, measured on what will be stored: E = W - Ŵ. */
static tt_status measure(cjob *j, const tt_weight *w, const tt_linop *op, const float *hessian, float *W, float *E, tt_outcome *out, tt_err *err) {
    int64_t n = w->rows * w->cols, zeros = 0;
    double before = 0, after = 0;
    decode_all(j->ctx, w->op, W);
    decode_all(j->ctx, op, E);
    for (int64_t i = 0; i < n; i++) {
        zeros += E[i] == 0;
        E[i] = W[i] - E[i];
    }
    double norm = j->ctx->k->sumsq_f32(W, n);
    out->sparsity = (double)zeros / (double)n;
    out->weight_error = norm > 0 ? j->ctx->k->sumsq_f32(E, n) / norm : 0;
    out->error = NAN;
    if (!hessian) return TT_OK;
    TT_TRY(tt__quadratic(j->ctx, W, w->rows, hessian, w->cols, &before, err));
    TT_TRY(tt__quadratic(j->ctx, E, w->rows, hessian, w->cols, &after, err));
    out->error = before > 0 ? after / before : 0;
    return TT_OK;
}

/* op, from here on the job's, takes the place of weight i. */
static tt_status accept(cjob *j, size_t i, tt_linop *op, const float *hessian, double seconds, tt_err *err) {
    const tt_weight *w = &j->net->weights[i];
    tt_outcome *out = &j->outcome[i];
    float *W = NULL, *E = NULL;
    tt_status st;
    TT_TRY_GOTO(tt__new(&W, (size_t)(w->rows * w->cols), sizeof *W, "a dense matrix", err));
    TT_TRY_GOTO(tt__new(&E, (size_t)(w->rows * w->cols), sizeof *E, "a difference", err));
    TT_TRY_GOTO(measure(j, w, op, hessian, W, E, out, err));
    tt__linop_label(op, out->type, sizeof out->type);
    out->bytes = tt__linop_bytes(op);
    out->seconds = seconds;
    out->done = true;
    tt__linop_free(j->ops[i]);                  /* made by the steps before, or of a saved run under another memory bound: its passes were others */
    j->ops[i] = op;
    op = NULL;
done:
    tt__linop_free(op);
    tt__free(W);
    tt__free(E);
    return st;
}

static tt_status replace(cjob *j, size_t i, tt_err *err) {
    const tt_weight *w = &j->net->weights[i];
    tt_draft d = {0};
    tt_stats stats = {0};
    tt_linop *op = NULL;
    double start = tt__now();
    tt_dtype wanted;
    tt_status st;
    TT_TRY_GOTO(tt__draft_init(&d, w->name, w->layer, w->rows, w->cols, err));
    decode_all(j->ctx, w->op, d.W);
    TT_TRY_GOTO(check_finite(d.W, w->rows * w->cols, err));
    TT_TRY_GOTO(make_stats(j, w, &stats, err));
    const side *own = side_of(j, i);
    bool trains = j->n_blocks && !own;
    if (trains) TT_TRY_GOTO(tt__draft_train(&d, err));
    if (own) TT_TRY_GOTO(apply_steps(j, own->steps, own->n_steps, &d, &stats, &op, err));
    else if (j->mix) TT_TRY_GOTO(tt__linop_encode(j->ctx, tt__mix_type(j->mix, j->net, i, &wanted), d.W, w->rows, w->cols, &op, err));
    else TT_TRY_GOTO(apply_steps(j, j->steps, j->n_steps, &d, &stats, &op, err));
    if (!trains) tt__draft_free(&d);
    st = accept(j, i, op, stats.hessian, tt__now() - start, err);
    op = NULL;
    if (st != TT_OK || !trains) goto done;
    tt__draft_free(&j->drafts[i]);
    j->drafts[i] = d;
    d = (tt_draft){0};
done:
    free_stats(&stats);
    tt__linop_free(op);
    tt__draft_free(&d);
    return st == TT_OK ? st : tt__err_at(err, st, "%s", w->name);
}

/* The recipe on some rows of random weights as wide as w, with inputs that are all alike. */
static tt_status rehearse_one(cjob *j, size_t weight, tt_err *err) {
    const tt_weight *w = &j->net->weights[weight];
    const side *own = side_of(j, weight);
    int64_t rows = w->rows < 64 ? w->rows : 64, cols = w->cols > 4096 ? 2048 + w->cols % 2048 : w->cols;
    bool full = j->wants & (TT_WANT_HESSIAN | TT_WANT_CROSS);
    tt_stats stats = {.n = cols};
    float *H = NULL, *cross = NULL, *ones = NULL;
    tt_draft d = {0};
    tt_linop *op = NULL;
    tt__rng rng;
    tt_status st;
    tt__rng_seed(&rng, 1);
    TT_TRY_GOTO(tt__draft_init(&d, w->name, w->layer, rows, cols, err));
    TT_TRY_GOTO(tt__new(&ones, (size_t)cols, sizeof *ones, "a rehearsal", err));
    if (full) TT_TRY_GOTO(tt__new(&H, (size_t)(cols * cols), sizeof *H, "a rehearsal", err));
    if (j->wants & TT_WANT_CROSS) TT_TRY_GOTO(tt__new(&cross, (size_t)(cols * cols), sizeof *cross, "a rehearsal", err));
    for (int64_t i = 0; i < rows * cols; i++) d.W[i] = (float)tt__rng_normal(&rng);
    for (int64_t c = 0; c < cols; c++) ones[c] = 1;
    for (int64_t c = 0; H && c < cols; c++) H[c * cols + c] = 1;
    if (calibrates(j)) stats.hessian = H, stats.cross = cross, stats.sumsq = ones, stats.tokens = 1;
    if (j->n_blocks && !own) TT_TRY_GOTO(tt__draft_train(&d, err));
    st = own ? apply_steps(j, own->steps, own->n_steps, &d, &stats, &op, err) : apply_steps(j, j->steps, j->n_steps, &d, &stats, &op, err);
done:
    tt__linop_free(op);
    tt__draft_free(&d);
    tt__free(H);
    tt__free(cross);
    tt__free(ones);
    return st;
}

/* Every width once, before hours of work: what a method or no storage takes is refused now. */
static tt_status rehearse(cjob *j, tt_err *err) {
    for (size_t i = 0; i < j->net->n_weights; i++) {
        const side *own = side_of(j, i);
        bool seen = !treated(j, i) || (j->mix && !own);
        for (size_t k = 0; k < i && !seen; k++) seen = treated(j, k) && side_of(j, k) == own && j->net->weights[k].cols == j->net->weights[i].cols;
        if (seen) continue;
        tt_status st = rehearse_one(j, i, err);
        if (st != TT_OK) return tt__err_at(err, st, "%s", j->net->weights[i].name);
    }
    return TT_OK;
}

static tt_status treat(cjob *j, size_t i, tt_err *err) {
    const tt_weight *w = &j->net->weights[i];
    tt_dtype wanted;
    if (!j->mix || side_of(j, i) || tt__mix_type(j->mix, j->net, i, &wanted) != w->op->dtype) return replace(j, i, err);
    tt_outcome *out = &j->outcome[i];
    *out = (tt_outcome){.done = true, .kept = true, .bytes = tt__linop_bytes(w->op), .error = NAN};
    tt__linop_label(w->op, out->type, sizeof out->type);
    return TT_OK;
}

/* ------------------------------------------------------------ from position to position ---- */

static bool in_pass(const cjob *j, size_t i) {
    const tt_weight *w = &j->net->weights[i];
    if (!treated(j, i) || w->layer != unit_of(j, j->at.layer)) return false;
    return !calibrates(j) || w->layer < 0 || j->passes[j->at.pass] >> w->input & 1;
}

/* The index-th matrix of the pass, or n_weights. */
static size_t matrix_at(const cjob *j, int64_t index) {
    for (size_t i = 0; i < j->net->n_weights; i++)
        if (in_pass(j, i) && index-- == 0) return i;
    return j->net->n_weights;
}

static void install(cjob *j, int layer, bool in) {
    for (size_t i = 0; i < j->net->n_weights; i++)
        if (tt__in_unit(j->net, i, layer) && j->ops[i]) tt__calib_set_op(j->calib, i, in ? j->ops[i] : NULL);
}

/* Pages of a mapped file that this operator lends from: read again if need be. */
static void let_go(const tt_gguf *file, const tt_linop *op) {
    tt_segment seg[8];
    for (int i = file && op ? op->v->segments(op, seg) - 1 : -1; i >= 0; i--) tt__gguf_release(file, seg[i].data, seg[i].bytes);
}

/* What is behind us, the model's matrices and those made of them, need not stay resident. */
static void leave_layer(cjob *j) {
    for (size_t i = 0; i < j->net->n_weights; i++) {
        if (!tt__in_unit(j->net, i, unit_of(j, j->at.layer))) continue;
        let_go(j->model->gguf, j->net->weights[i].op);
        let_go(j->files[j->at.layer], j->ops[i]);
    }
}

static void next_layer(cjob *j) {
    leave_layer(j);
    j->at = (tt_position){.stage = collects(j, j->at.layer + 1) ? TT_C_COLLECT : TT_C_COMPRESS, .layer = j->at.layer + 1};
    if (j->at.layer >= n_units(j)) j->at = (tt_position){.stage = TT_C_DONE};
}

static tt_status end_layer(cjob *j, tt_err *err) {
    int layer = j->at.layer;
    TT_TRY(tt__cstate_save_ops(j->state, unit_of(j, layer), j->net, j->ops, err));
    TT_TRY(map_unit(j, layer, err));
    if (layer + 1 >= n_units(j) || !collects(j, layer + 1)) {
        next_layer(j);
        return TT_OK;
    }
    j->at.stage = TT_C_ADVANCE;
    j->at.index = 0;
    return TT_OK;
}

static tt_status step_sample(cjob *j, tt_err *err) {
    if (!j->self) {
        tt_selftext_options so = tt__selftext_options(j->self_rows, j->length, j->o->seed);
        TT_TRY(tt__sample_open(j->ctx, j->model, &j->sampled, err));
        TT_TRY(tt__selftext_create(j->ctx, j->sampled->net, j->model->tok, &so, self_ids(j), &j->self, err));
        TT_TRY(tt__selftext_load(j->self, j->state, err));
    }
    if (!tt__selftext_done(j->self)) return tt__selftext_step(j->self, err);
    TT_TRY(tt__selftext_save(j->self, j->state, err));
    tt__selftext_free(j->self);
    tt_model_close(j->sampled);
    j->self = NULL;
    j->sampled = NULL;
    j->at = (tt_position){.stage = TT_C_COLLECT};
    return save_state(j, err);
}

static tt_status step_collect(cjob *j, tt_err *err) {
    if (j->sequential) install(j, j->at.layer, true);                /* at every step: a resumed run begins in the middle */
    if (j->at.index == 0) TT_TRY(tt__calib_begin(j->calib, pass_set(j, j->at.layer, j->at.pass), err));
    if (j->at.index < j->calib->n_batches) TT_TRY(tt__calib_collect(j->calib, j->at.layer, j->at.index++, err));
    if (j->at.index < j->calib->n_batches) return TT_OK;
    TT_TRY(tt__calib_finish(j->calib, j->at.layer, err));
    j->at.stage = TT_C_COMPRESS;
    j->at.index = 0;
    return TT_OK;
}

static tt_status step_compress(cjob *j, tt_err *err) {
    size_t i = matrix_at(j, j->at.index);
    if (i < j->net->n_weights) {
        TT_TRY(treat(j, i, err));
        j->at.index++;
        return TT_OK;
    }
    if (calibrates(j)) TT_TRY(tt__calib_begin(j->calib, 0, err));
    if (j->at.pass + 1 >= passes_of(j, j->at.layer) && j->n_blocks && j->at.layer < j->net->hp.n_layer) {
        j->at = (tt_position){.stage = TT_C_TRAIN, .layer = j->at.layer};
        return TT_OK;
    }
    if (j->at.pass + 1 >= passes_of(j, j->at.layer)) return end_layer(j, err);
    j->at = (tt_position){.stage = TT_C_COLLECT, .layer = j->at.layer, .pass = j->at.pass + 1};
    return TT_OK;
}

/* ------------------------------------------------------------ training a block ---- */

/* What the original layer makes of the dense stream, batch by batch; finished files of an interrupted run are taken over. */
static tt_status make_targets(cjob *j, tt_err *err) {
    tt_calib *c = j->calib;
    float *Y = NULL;
    char name[48];
    tt_status st = TT_OK;
    if (!j->targets) TT_TRY(tt__new(&Y, (size_t)(c->batch * c->length * c->width), sizeof *Y, "targets of a batch", err));
    for (int64_t b = 0; b < c->n_batches; b++) {
        size_t bytes = (size_t)(tt__calib_sequences(c, b) * c->length * c->width) * sizeof *Y;
        target_name(j->at.layer, b, name);
        TT_TRY_GOTO(tt__check_cancel(j->ctx, err));
        if (!j->targets && tt__raw_exists(j->state, name)) continue;
        TT_TRY_GOTO(tt__calib_target(c, j->at.layer, b, Y ? Y : j->targets + b * c->batch * c->length * c->width, err));
        if (Y) TT_TRY_GOTO(tt__raw_write(j->state, name, Y, bytes, err));
    }
done:
    tt__free(Y);
    return st;
}

static tt_status read_sequence(void *user, int64_t i, float *X, float *Y, tt_err *err) {
    cjob *j = user;
    tt_calib *c = j->calib;
    int64_t n = c->length * c->width, b = i / c->batch;
    char name[48];
    TT_TRY(tt__calib_sequence(c, TT_STREAM_MAIN, j->at.layer, i, X, err));
    if (j->targets) {
        memcpy(Y, j->targets + i * n, (size_t)n * sizeof *Y);
        return TT_OK;
    }
    target_name(j->at.layer, b, name);
    return tt__raw_read_part(j->state, name, (size_t)(i % c->batch * n) * sizeof *Y, Y, (size_t)n * sizeof *Y, (size_t)(tt__calib_sequences(c, b) * n) * sizeof *Y, err);
}

static tt_status open_trainer(cjob *j, tt_err *err) {
    tt_block_data data = {j->samples, j->length, read_sequence, j};
    tt_block_matrix *m = NULL;
    tt_block_options o;
    char name[64];
    int n = 0;
    tt_status st;
    install(j, j->at.layer, false);                                     /* sequential passes left operators there that will be replaced */
    TT_TRY(make_targets(j, err));
    TT_TRY(block_options(j, j->at.pass, &o, err));
    TT_TRY(tt__new(&m, j->net->n_weights, sizeof *m, "a block trainer", err));
    for (size_t i = 0; i < j->net->n_weights; i++) {
        const tt_draft *d = &j->drafts[i];
        if (d->W) m[n++] = (tt_block_matrix){i, d->bits, d->group, d->latent, d->keep, d->scales, d->mins, d->halfgrid};
    }
    TT_TRY_GOTO(tt__block_create(j->ctx, j->net, j->at.layer, &data, &o, m, n, &j->trainer, err));
    trainer_name(j, name);
    if (tt__raw_exists(j->state, name)) TT_TRY_GOTO(tt__block_load(j->trainer, j->state, name, err));
done:
    tt__free(m);
    if (st != TT_OK) {
        tt__block_free(j->trainer);
        j->trainer = NULL;
    }
    return st;
}

/* The trained drafts become the layer's operators. */
static tt_status close_trainer(cjob *j, tt_err *err) {
    tt_block_progress p = tt__block_progress(j->trainer);
    int n = 0;
    tt__log(j->ctx, TT_LOG_INFO, "compress: layer %d, %s: error of the block %.4g, %.4g after %lld of %lld steps", j->at.layer, block_step(j, j->at.pass)->method->info.name,
            p.first, p.best, (long long)p.best_step, (long long)p.step - 1);
    for (size_t i = 0; i < j->net->n_weights; i++) {
        tt_draft *d = &j->drafts[i];
        tt_linop *op;
        if (!d->W) continue;
        tt__block_finish(j->trainer, n++, d->latent, d->scales, d->mins, d->codes, d->W);
        TT_TRY(tt__draft_finish(j->ctx, d, format_of(j->steps, j->n_steps), &op, err));
        TT_TRY(accept(j, i, op, NULL, j->outcome[i].seconds, err));
    }
    tt__block_free(j->trainer);
    j->trainer = NULL;
    if (j->at.pass + 1 < j->n_blocks) {
        j->at = (tt_position){.stage = TT_C_TRAIN, .layer = j->at.layer, .pass = j->at.pass + 1};
        return TT_OK;
    }
    forget_drafts(j);
    return end_layer(j, err);
}

static tt_status step_train(cjob *j, tt_err *err) {
    if (!j->trainer) TT_TRY(open_trainer(j, err));
    if (tt__block_done(j->trainer)) return close_trainer(j, err);
    TT_TRY(tt__block_step(j->trainer, err));
    j->at.index = tt__block_progress(j->trainer).step;
    return TT_OK;
}

static tt_status step_advance(cjob *j, tt_err *err) {
    install(j, j->at.layer, true);
    if (j->at.index < j->calib->n_batches) TT_TRY(tt__calib_advance(j->calib, j->at.layer, j->at.index++, err));
    if (j->at.index < j->calib->n_batches) return TT_OK;
    install(j, j->at.layer, false);
    next_layer(j);
    return TT_OK;
}

static void report_progress(const cjob *j) {
    if (j->at.stage == TT_C_SAMPLE) {
        tt__progress(j->ctx, "sample", j->self ? tt__selftext_share(j->self) * tt__selftext_most(j->self) : 0, (double)(j->self_rows * j->length), "tokens", "");
        return;
    }
    double within = 0, batches = j->calib ? (double)j->calib->n_batches : 1;
    if (j->at.stage == TT_C_COLLECT) within = 0.4 * ((double)j->at.index / batches + j->at.pass) / passes_of(j, j->at.layer);
    if (j->at.stage == TT_C_COMPRESS) within = calibrates(j) ? 0.4 : 0;
    if (j->at.stage == TT_C_TRAIN && j->trainer) within = 0.4 + 0.5 * (tt__block_share(j->trainer) + j->at.pass) / j->n_blocks;
    if (j->at.stage == TT_C_ADVANCE) within = j->n_blocks ? 0.9 + 0.1 * (double)j->at.index / batches : 0.6 + 0.4 * (double)j->at.index / batches;
    double done = j->at.stage == TT_C_DONE ? n_units(j) : j->at.layer + within;
    tt__progress(j->ctx, "compress", done, n_units(j), "layers", "");
}

static tt_status one_step(cjob *j, tt_err *err) {
    switch (j->at.stage) {
    case TT_C_SAMPLE: return step_sample(j, err);
    case TT_C_COLLECT: return step_collect(j, err);
    case TT_C_COMPRESS: return step_compress(j, err);
    case TT_C_TRAIN: return step_train(j, err);
    default: return step_advance(j, err);
    }
}

static tt_status run(cjob *j, tt_err *err) {
    while (j->at.stage != TT_C_DONE) {
        report_progress(j);
        TT_TRY(tt__check_cancel(j->ctx, err));
        tt_cstage stage = j->at.stage;
        tt_status st = one_step(j, err);
        j->torn = st != TT_OK && stage != TT_C_COMPRESS && stage != TT_C_TRAIN;       /* a matrix or a step of a trainer that failed left nothing behind */
        TT_TRY(st);
        if (tt__now() - j->last_save >= j->save_seconds && j->at.stage != TT_C_DONE) TT_TRY(save_state(j, err));
    }
    report_progress(j);
    return TT_OK;
}

/* ------------------------------------------------------------ the file ---- */

static tt_status add_tokenizer(void *user, tt_gguf_writer *w, tt_err *err) {
    const cjob *j = user;
    if (j->model->gguf) return TT_OK;
    TT_TRY(tt__gguf_set_str(w, "general.name", j->model->info.name, err));
    return j->model->tok ? tt__tokenizer_to_gguf(j->model->tok, w, err) : TT_OK;
}

static tt_status write_file(cjob *j, tt_err *err) {
    char calib[96];
    snprintf(calib, sizeof calib, "%s, %lld x %lld tokens, seed %" PRIu64, !is_self(j) ? "text" : j->self_rows == j->samples ? "self" : "text and self", (long long)j->samples, (long long)j->length, j->o->seed);
    const char *extra[24] = {"trimtab.version", tt_version(), "trimtab.recipe", j->line, "trimtab.recipe_sha256", j->recipe_sha256, "trimtab.base", j->o->model,
                           "trimtab.base_sha256", j->base_sha256, calibrates(j) ? "trimtab.calib" : NULL, calib, "trimtab.calib_sha256", j->data_sha256, NULL};
    size_t n = 0;
    while (extra[n]) n += 2;
    for (int s = 0; s < SIDES; s++) {
        if (!j->sides[s].line) continue;
        extra[n++] = s == EMBEDDING ? "trimtab.token_embedding" : "trimtab.output_tensor";
        extra[n++] = j->sides[s].line;
    }
    if (j->allocation) extra[n++] = "trimtab.allocation", extra[n++] = j->allocation->text;
    return tt__store_gguf(j->net, (const tt_linop *const *)j->ops, j->model->gguf, add_tokenizer, j, extra, j->o->output, &j->file_bytes, err);
}

static bool outcomes_have_ops(const cjob *j) {
    for (size_t i = 0; i < j->net->n_weights; i++)
        if (j->outcome[i].done && !j->outcome[i].kept && !j->ops[i]) return false;
    return true;
}

static tt_status finish(cjob *j, tt_err *err) {
    if (outcomes_have_ops(j)) {
        if (calibrates(j) && is_self(j)) hash_ids(j);
        TT_TRY(save_state(j, err));
        TT_TRY(write_file(j, err));
    } else {
        tt__map map;
        TT_TRY(tt__map_open(j->o->output, &map, err));
        j->file_bytes = map.size;
        tt__map_close(&map);
    }
    tt__cstate_sweep(j->state, NULL, NULL);
    return TT_OK;
}

/* ------------------------------------------------------------ dry run ---- */

/* The step that decides what is stored: a trainer without bits leaves that to those before it. */
static const step *rounding_step(const tt_recipe *recipe, const step *steps, int n) {
    for (int i = n - 1; i > 0; i--) {
        const char *bits = tt_recipe_get_value(recipe, steps[i].knobs.step, "bits");
        if (!steps[i].method->compress->block || (bits && strcmp(bits, "0"))) return &steps[i];
    }
    return &steps[0];
}

/* Bits per weight of the recipe on one matrix: a pruner's density and a quantizer's codes are counted together. */
static double predicted_bits(const tt_recipe *recipe, const step *steps, int n, const tt_weight *w) {
    const step *prune = NULL, *last = rounding_step(recipe, steps, n);
    for (const step *s = steps; s < last; s++)
        if (tt_recipe_get_value(recipe, s->knobs.step, "pattern")) prune = s;
    const char *bits = tt_recipe_get_value(recipe, last->knobs.step, "bits"), *format = tt_recipe_get_value(recipe, last->knobs.step, "format");
    const char *sym = tt_recipe_get_value(recipe, last->knobs.step, "sym");
    if (prune && bits && format && strcmp(bits, "0"))
        return tt__grid_cost(&last->knobs, w->cols, (int)tt__knob_i(&last->knobs, "bits"), !sym || !strcmp(sym, "true"), tt__prune_density(&prune->knobs), format);
    return last->method->cost_bits ? last->method->cost_bits(&last->knobs, w->rows, w->cols) : NAN;
}

static tt_status predict(cjob *j, tt_err *err) {
    TT_TRY(check_fallbacks(j, err));
    for (size_t i = 0; i < j->net->n_weights; i++) {
        const tt_weight *w = &j->net->weights[i];
        tt_outcome *out = &j->outcome[i];
        if (!treated(j, i)) continue;
        *out = (tt_outcome){.done = true, .error = NAN, .weight_error = NAN, .sparsity = NAN};
        uint64_t n = (uint64_t)(w->rows * w->cols);
        const side *own = side_of(j, i);
        if (own) {
            out->bytes = (uint64_t)(predicted_bits(own->recipe, own->steps, own->n_steps, w) * (double)n / 8);
            snprintf(out->type, sizeof out->type, "%s", own->steps[own->n_steps - 1].method->info.name);
        } else if (j->mix) {
            tt_dtype wanted, type = tt__mix_type(j->mix, j->net, i, &wanted);
            TT_FAIL_IF(!tt__dtype_bytes(type, n, &out->bytes), err, TT_FAIL, "size overflow|%s", w->name);
            snprintf(out->type, sizeof out->type, "%s", tt__dtype(type)->label);
        } else {
            out->bytes = (uint64_t)(predicted_bits(j->recipe, j->steps, j->n_steps, w) * (double)n / 8);
            snprintf(out->type, sizeof out->type, "%s", rounding_step(j->recipe, j->steps, j->n_steps)->method->info.name);
        }
    }
    return TT_OK;
}

/* ------------------------------------------------------------ report ---- */

typedef struct whole_report { tt_compress_report pub; tt__arena arena; } whole_report;   /* pub first: a pointer to one is a pointer to both */

static void sum_sizes(const cjob *j, tt_compress_report *r) {
    const tt_model_info *info = &j->model->info;
    uint64_t linear_after = info->linear_bytes;
    r->bytes_before = r->bytes_after = info->bytes;
    for (size_t i = 0; i < j->net->n_weights; i++) {
        if (!j->outcome[i].done) continue;
        uint64_t old = tt__linop_bytes(j->net->weights[i].op), new = j->outcome[i].bytes;
        r->bytes_after += new - old;
        if (j->net->weights[i].linear) linear_after += new - old;
    }
    double params = info->params ? (double)info->params : 1, linear = info->linear_params ? (double)info->linear_params : 1;
    r->bits_before = 8.0 * (double)r->bytes_before / params;
    r->bits_after = 8.0 * (double)r->bytes_after / params;
    r->linear_bits_before = 8.0 * (double)info->linear_bytes / linear;
    r->linear_bits_after = 8.0 * (double)linear_after / linear;
}

static tt_status make_report(const cjob *j, double seconds, tt_compress_report **out, tt_err *err) {
    whole_report *w = NULL;
    TT_TRY(tt__new(&w, 1, sizeof *w, "a report", err));
    tt_compress_report *r = &w->pub;
    r->layers = tt__arena_alloc(&w->arena, j->net->n_weights * sizeof *r->layers);
    for (size_t i = 0; r->layers && i < j->net->n_weights; i++) {
        const tt_outcome *o = &j->outcome[i];
        const tt_weight *weight = &j->net->weights[i];
        if (!o->done) continue;
        r->layers[r->n_layers++] = (tt_layer_report){
            .tensor = tt__arena_strndup(&w->arena, weight->name, strlen(weight->name)), .type = tt__arena_strndup(&w->arena, o->type, strlen(o->type)),
            .error = o->error, .weight_error = o->weight_error, .sparsity = o->sparsity, .seconds = o->seconds,
            .bits_per_weight = 8.0 * (double)o->bytes / ((double)weight->rows * (double)weight->cols)};
        if (!r->layers[r->n_layers - 1].tensor || !r->layers[r->n_layers - 1].type) r->layers = NULL;
    }
    if (!r->layers) {
        tt_compress_free_report(r);
        return tt__fail(err, TT_RESOURCE, "out of memory|a report");
    }
    sum_sizes(j, r);
    r->file_bytes = j->file_bytes;
    r->seconds = seconds;
    r->peak_bytes = tt__mem_peak();
    r->resumed = j->resumed;
    r->mix_loss = r->uniform_loss = NAN;
    memcpy(r->recipe_sha256, j->recipe_sha256, sizeof r->recipe_sha256);
    memcpy(r->data_sha256, j->data_sha256, sizeof r->data_sha256);
    *out = r;
    return TT_OK;
}

void tt_compress_free_report(tt_compress_report *report) {
    if (!report) return;
    whole_report *w = (whole_report *)report;
    tt__arena_free(&w->arena);
    tt__free(w);
}

/* ------------------------------------------------------------ the whole ---- */

static tt_status compress(cjob *j, tt_err *err) {
    TT_FAIL_IF(!j->o->output || !*j->o->output, err, TT_USAGE, "no output given|||a file to write");
    TT_TRY(name_state(j, err));
    bool stands = !j->o->force && !j->o->dry_run && tt__exists(j->o->output) && !tt__raw_exists(j->state, "state.json");
    if (stands) TT_TRY(clear_away(j, err));
    TT_FAIL_IF(stands, err, TT_USAGE, "output exists|%s|||use --force to replace it", j->o->output);
    TT_TRY(read_recipe(j, err));
    TT_TRY(read_sides(j, err));
    TT_TRY(open_model(j, err));
    TT_TRY(rehearse(j, err));
    if (j->o->dry_run) return predict(j, err);
    TT_TRY(check_fallbacks(j, err));
    TT_TRY(prepare_data(j, err));
    TT_TRY(plan(j, err));
    TT_TRY(make_fingerprint(j, err));
    TT_TRY(lock_state(j, err));
    TT_TRY(open_state(j, err));
    tt_status st = run(j, err);
    if ((st == TT_INTERRUPTED || st == TT_TERMINATED) && !j->torn) {
        tt_err ignored = {0};
        if (save_state(j, &ignored) != TT_OK) tt__log(j->ctx, TT_LOG_WARN, "compress: the state could not be saved: %s", ignored.what);
    }
    TT_TRY(st);
    return finish(j, err);
}

/* The first layer on tokens drawn at random: what they say does not matter to the time it takes. Nothing is written but the state, which goes. */
static tt_status probe(cjob *j, double *seconds, tt_err *err) {
    tt__rng rng;
    TT_TRY(name_state(j, err));
    TT_TRY(read_recipe(j, err));
    TT_TRY(open_model(j, err));
    TT_TRY(tt__new(&j->ids, (size_t)(j->samples * j->length), sizeof *j->ids, "calibration tokens", err));
    tt__rng_seed(&rng, 1);
    for (int64_t i = 0; i < j->samples * j->length; i++) j->ids[i] = (int32_t)tt__rng_below(&rng, (uint64_t)j->net->hp.n_vocab);
    TT_TRY(plan(j, err));
    TT_TRY(make_fingerprint(j, err));
    TT_TRY(open_state(j, err));
    double start = tt__now();
    while (j->at.stage != TT_C_DONE && j->at.layer == 0) {
        TT_TRY(tt__check_cancel(j->ctx, err));
        TT_TRY(one_step(j, err));
    }
    *seconds = tt__now() - start;
    tt__cstate_sweep(j->state, NULL, NULL);
    return TT_OK;
}

static void free_side(side *s) {
    tt_recipe_free(s->recipe);
    tt_free(s->line);
}

static void release(cjob *j) {
    tt__selftext_free(j->self);
    tt_model_close(j->sampled);
    tt__sources_free(&j->sources);
    tt__block_free(j->trainer);
    tt__calib_free(j->calib);
    tt__free(j->targets);
    if (j->net) forget(j);
    tt__free(j->ops);
    tt__free(j->outcome);
    tt__free(j->drafts);
    tt__free(j->files);
    tt__free(j->ids);
    tt_model_close(j->model);
    tt_recipe_free(j->recipe);
    tt__free(j->line);
    for (int s = 0; s < SIDES; s++) free_side(&j->sides[s]);
    for (size_t i = 0; j->allocated && i < j->allocation->n; i++) free_side(&j->allocated[i]);
    tt__free(j->allocated);
    if (j->lock_fd >= 0) tt__remove_empty(j->state);
    tt__lock_drop(j->lock, j->lock_fd);
    tt__free(j->lock);
    tt__free(j->state);
}

tt_status tt__compress_with(tt_ctx *ctx, const tt_compress_options *options, const tt_allocation *allocation, double save_seconds, tt_compress_report **report, tt_err *err) {
    cjob j = {.ctx = ctx, .o = options, .allocation = allocation, .lock_fd = -1, .samples = options->samples ? options->samples : 64, .length = options->length ? options->length : 512,
              .max_ram = options->max_ram ? options->max_ram : DEFAULT_RAM, .save_seconds = save_seconds};
    double start = tt__now();
    if (report) *report = NULL;
    tt__mem_reset_peak();
    tt_status st = compress(&j, err);
    if (st == TT_OK && report) st = make_report(&j, tt__now() - start, report, err);
    release(&j);
    return st;
}

tt_status tt__compress_probe(tt_ctx *ctx, const tt_compress_options *options, double *seconds, tt_err *err) {
    tt_compress_options o = *options;
    o.resume = false, o.force = true;
    cjob j = {.ctx = ctx, .o = &o, .samples = o.samples, .length = o.length, .max_ram = o.max_ram ? o.max_ram : DEFAULT_RAM};
    tt_status st = probe(&j, seconds, err);
    release(&j);
    return st;
}

tt_status tt__compress(tt_ctx *ctx, const tt_compress_options *options, double save_seconds, tt_compress_report **report, tt_err *err) {
    if (options->target_bytes || options->target_bpw) return tt__allocate(ctx, options, save_seconds, report, err);
    return tt__compress_with(ctx, options, NULL, save_seconds, report, err);
}

tt_status tt_compress(tt_ctx *ctx, const tt_compress_options *options, tt_compress_report **report, tt_err *err) {
    return tt__compress(ctx, options, tt__save_seconds(), report, err);
}
