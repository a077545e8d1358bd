/* Trimtab: compress a network for the machine at hand, win back what was lost, measure both, run the result.
 *
 * The whole of the public interface. In the order in which a program uses it:
 *
 *     tt_ctx      threads, instruction set, sinks for log and progress         tt_ctx_create … tt_ctx_free
 *     tt_model    architecture + weights, immutable after open, shareable      tt_model_open … tt_model_close
 *     tt_recipe   an ordered list of methods with knobs                        tt_recipe_parse … tt_recipe_free
 *     tt_tab      the small learned file that steers a model                   tt_tab_open … tt_tab_close
 *     tt_session  one mutable timeline: cache, sampler, attached tabs          tt_session_create … tt_session_free
 *
 * and verbs on them: tt_compress (trim), tt_tune (tab), tt_generate (data), tt_perplexity and tt_bench (measure).
 *
 * Rules. create/free own memory, open/close own files, get lends. Freeing NULL is fine. Options structs start with their own size
 * (`size`, for the ABI) and have a default-maker. Strings are UTF-8 and are copied unless a comment says "lent". One thread drives
 * a context and its sessions at a time; models may be shared by contexts. The library never prints and never exits.
 * SONAME 0: the ABI may change until 1.0.
 */
#ifndef TRIMTAB_TRIMTAB_H
#define TRIMTAB_TRIMTAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "trimtab/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TT_VERSION_MAJOR 0
#define TT_VERSION_MINOR 1
#define TT_VERSION_PATCH 0

/* "0.1.0"; lent. */
const char *tt_version(void);
/* Memory that a function here returned for the caller to free. */
void tt_free(void *p);

/* ------------------------------------------------------------------ context ---- */
typedef struct tt_ctx tt_ctx;

typedef enum tt_log_level { TT_LOG_ERROR, TT_LOG_WARN, TT_LOG_INFO, TT_LOG_DEBUG } tt_log_level;
typedef void (*tt_log_fn)(void *user, tt_log_level level, const char *line);
/* done of total units; called a few times a second from the driving thread. */
typedef void (*tt_progress_fn)(void *user, const char *task, double done, double total, const char *unit, const char *note);

typedef struct tt_ctx_options {
    size_t size;
    int threads;             /* 0: the cores this process may use (affinity and cgroup quota) */
    bool deterministic;      /* results depend on input, seed and instruction set only */
    const char *isa;         /* NULL: best; else "scalar", "avx2", "avx512", on Arm "neon", "neon-dotprod", "neon-i8mm" (also TRIMTAB_ISA) */
    tt_log_fn log;           /* NULL: silent */
    void *log_user;
    tt_progress_fn progress; /* NULL: none */
    void *progress_user;
} tt_ctx_options;

tt_ctx_options tt_ctx_default_options(void);
/* options may be NULL. */
tt_status tt_ctx_create(const tt_ctx_options *options, tt_ctx **out, tt_err *err);
void tt_ctx_free(tt_ctx *ctx);
/* Asks long work to stop at the next safe point with `status` (TT_INTERRUPTED or TT_TERMINATED), its state saved. Safe in a
 * signal handler and from any thread. tt_ctx_cancel(ctx, TT_OK) clears it. */
void tt_ctx_cancel(tt_ctx *ctx, tt_status status);
const char *tt_ctx_isa(const tt_ctx *ctx);        /* "avx512-vnni", lent */
int tt_ctx_threads(const tt_ctx *ctx);

/* ------------------------------------------------------------------ models ---- */
typedef struct tt_model tt_model;

typedef enum tt_numerics {
    TT_FAST,                 /* activations rounded to 8 bits before each compressed matrix, f16 cache */
    TT_EXACT                 /* f32 activations and cache; weights are still decoded from their stored form */
} tt_numerics;

/* What sparse 4-bit weights run as. */
typedef enum tt_run_format {
    TT_RUN_KEEP,             /* panels of the stored size */
    TT_RUN_AUTO,             /* what a timing at open finds fastest, dense 8-bit codes too: more memory; a deterministic context keeps */
    TT_RUN_EXPAND            /* dense 8-bit codes */
} tt_run_format;

typedef struct tt_model_options {
    size_t size;
    tt_numerics numerics;
    bool expand;             /* decode all weights to f32 at open: faster batches, more memory (labelled, never the default) */
    bool offline;            /* a reference that is not in the cache fails with TT_OFFLINE instead of being pulled */
    tt_run_format run_format;
    bool stored;             /* leave the weights as the file has them: for looking, not for running. Otherwise fast runs repack them at open */
} tt_model_options;

tt_model_options tt_model_default_options(void);
/* `ref` is a GGUF file, a Hugging Face folder, a catalogue name ("smollm2-135m-instruct"), or "org/name[:TYPE][@rev]" in the
 * hub cache. The files stay mapped until close and must not change. */
tt_status tt_model_open(tt_ctx *ctx, const char *ref, const tt_model_options *options, tt_model **out, tt_err *err);
void tt_model_close(tt_model *model);

typedef struct tt_model_info {
    size_t size;
    const char *path;            /* as resolved; lent */
    const char *name;            /* general.name or the folder's name; lent */
    const char *architecture;    /* "llama"; lent */
    const char *file_type;       /* "Q4_1 (mostly)"; lent */
    const char *container;       /* "gguf" or "safetensors"; lent */
    uint64_t params;             /* all tensors, tied ones once */
    uint64_t linear_params;      /* those of matrices a compression method may replace */
    uint64_t bytes;              /* stored bytes of all tensors, every overhead counted */
    uint64_t linear_bytes;
    double bits_per_weight;      /* 8 bytes / params */
    double linear_bits_per_weight;
    int64_t n_vocab, n_embd, n_layer, n_head, n_head_kv, n_ff, n_ctx;
    bool runnable;               /* an architecture this build can run; otherwise only shown and converted */
    const char *chat_template;   /* Jinja source or NULL; lent */
} tt_model_info;
/* Filled and lent until close. */
const tt_model_info *tt_model_get_info(const tt_model *model);
/* SHA-256 of the file (of the files in order, for folders), 64 hex digits; reads the whole file the first time. */
tt_status tt_model_sha256(tt_model *model, char out[65], tt_err *err);

typedef struct tt_tensor_info {
    size_t size;
    const char *name;            /* lent */
    const char *type;            /* "Q4_1", "F32", "sparseq(bits=4,group=64)" ; lent */
    int n_dims;
    int64_t dims[4];             /* row-major, outermost first: [out, in] */
    uint64_t bytes;
    double bits_per_weight;
} tt_tensor_info;
size_t tt_model_tensor_count(const tt_model *model);
tt_status tt_model_get_tensor(const tt_model *model, size_t i, tt_tensor_info *out, tt_err *err);

typedef struct tt_meta_info { size_t size; const char *key; const char *type; } tt_meta_info;   /* lent */
size_t tt_model_meta_count(const tt_model *model);
/* The value as one line of text (arrays shortened to `max_items`); *value is freed by the caller with tt_free. */
tt_status tt_model_get_meta(const tt_model *model, size_t i, size_t max_items, tt_meta_info *out, char **value, tt_err *err);

/* ---- files ---- */
typedef struct tt_convert_options {
    size_t size;
    const char *model;           /* reference */
    const char *output;          /* "x.gguf" writes GGUF; a folder path writes a Hugging Face folder */
    const char *outtype;         /* "f32", "f16", "bf16", "q8_0", "q4_0" …, or NULL: keep (safetensors: f32/f16/bf16 only) */
    bool force;                  /* overwrite */
} tt_convert_options;
tt_status tt_convert(tt_ctx *ctx, const tt_convert_options *options, tt_err *err);

/* Fetches a model into the cache and gives the path of its main file or folder (caller frees). See docs/CONTRACT.md, "pull". */
typedef struct tt_pull_options {
    size_t size;
    const char *ref;             /* catalogue name or org/name[:TYPE][@rev] */
    const char *include;         /* glob over repository files, or NULL */
    const char *revision;        /* NULL: main */
    const char *token;           /* NULL: HF_TOKEN, HF_TOKEN_PATH */
    bool offline;
    bool force;                  /* fetch again */
} tt_pull_options;
tt_status tt_pull(tt_ctx *ctx, const tt_pull_options *options, char **path, tt_err *err);

typedef struct tt_cached_model { const char *ref, *path; uint64_t bytes; const char *source; bool present; } tt_cached_model; /* lent until the list is freed */
typedef struct tt_cache_list { size_t n; tt_cached_model *items; } tt_cache_list;
tt_status tt_cache_get_list(tt_ctx *ctx, tt_cache_list **out, tt_err *err);   /* catalogue entries first, then what lies in the hub cache */
void tt_cache_free_list(tt_cache_list *list);
/* The folder of the shared hub cache and that of catalogue models; the caller frees both. They need not exist. */
tt_status tt_cache_get_folders(tt_ctx *ctx, char **hub, char **catalogue, tt_err *err);

/* ------------------------------------------------------------------ text ---- */
/* flags for tt_tokenize */
enum { TT_ADD_SPECIAL = 1,       /* BOS/EOS where the model asks for them */
       TT_PARSE_SPECIAL = 2 };   /* "<|im_end|>" in the text becomes the control token */
/* *ids (caller frees with tt_free) of *n tokens. Invalid UTF-8 is tokenized byte by byte. */
tt_status tt_tokenize(const tt_model *model, const char *text, size_t bytes, unsigned flags, int32_t **ids, size_t *n, tt_err *err);
/* *text is NUL-terminated, *bytes long, caller frees. with_special: control tokens are written out. */
tt_status tt_detokenize(const tt_model *model, const int32_t *ids, size_t n, bool with_special, char **text, size_t *bytes, tt_err *err);
bool tt_model_is_end(const tt_model *model, int32_t id);      /* a token that ends a generation */

typedef struct tt_message { const char *role, *content; } tt_message;
/* Renders the model's chat template and tokenizes it. Text of messages never becomes a control token. */
tt_status tt_chat_tokenize(const tt_model *model, const tt_message *messages, size_t n_messages, bool add_generation_prompt,
                           int32_t **ids, size_t *n, tt_err *err);

/* ------------------------------------------------------------------ methods and recipes ---- */
typedef enum tt_knob_type { TT_KNOB_INT, TT_KNOB_REAL, TT_KNOB_BOOL, TT_KNOB_CHOICE, TT_KNOB_BYTES, TT_KNOB_DURATION, TT_KNOB_PATH, TT_KNOB_TEXT } tt_knob_type;
typedef enum tt_knob_scale { TT_LINEAR, TT_LOG } tt_knob_scale;

typedef struct tt_knob {
    const char *name;
    tt_knob_type type;
    double min, max;             /* of numbers, sizes, times; equal: no bounds */
    tt_knob_scale scale;
    const char *choices;         /* "kl|ce" of TT_KNOB_CHOICE */
    const char *value;           /* default, as written on a command line */
    const char *when;            /* condition such as "bits>0" or "loss=kl|both&steps>0" (= != < <= > >=, '&' joins), or NULL: always meaningful */
    const char *help;            /* one line */
} tt_knob;

typedef struct tt_method_info {
    const char *name, *family;             /* "sparsegpt", "weights" */
    const char *title, *id; int year;      /* the paper */
    const char *summary;                   /* one line: what it trades */
    int version;                           /* raised when results change; part of a recipe's hash */
    const char *stage;                     /* "compress", "train", "run", "strategy", "statistic", "architecture" */
    const tt_knob *knobs; size_t n_knobs;
} tt_method_info;
size_t tt_method_count(void);
const tt_method_info *tt_method_get(size_t i);           /* static; NULL when out of range */
const tt_method_info *tt_method_find(const char *name);  /* NULL when there is none */

typedef struct tt_recipe tt_recipe;
/* The line form "sparsegpt(sparsity=0.5,bits=4)+prompt(tokens=32)", or the same tree as JSON {"trimtab_recipe":1,"steps":[…]}.
 * Unknown methods and knobs, doubled knobs and values out of range fail with the nearest valid name or the range. */
tt_status tt_recipe_parse(const char *text, size_t bytes, tt_recipe **out, tt_err *err);
void tt_recipe_free(tt_recipe *recipe);
size_t tt_recipe_step_count(const tt_recipe *recipe);
const tt_method_info *tt_recipe_get_method(const tt_recipe *recipe, size_t step);
/* The value of a knob in a step, defaults filled in; lent; NULL when there is no such knob. */
const char *tt_recipe_get_value(const tt_recipe *recipe, size_t step, const char *knob);
/* Canonical line with all defaults expanded (caller frees), and the hash over it and the method versions. */
tt_status tt_recipe_line(const tt_recipe *recipe, bool with_defaults, char **line, tt_err *err);
void tt_recipe_sha256(const tt_recipe *recipe, char out[65]);

/* ------------------------------------------------------------------ compress (trim) ---- */
typedef struct tt_compress_options {
    size_t size;
    const char *model;           /* reference */
    const char *output;          /* file to write: GGUF */
    const char *recipe;          /* the compress steps of it are applied in order; or a plain type name "Q4_0" */
    const char *data;            /* calibration text file, JSONL, folder; "self": text sampled from the model; several parted by commas, each with a
                                    weight behind it or 1: "own.txt:2,self"; NULL: self */
    int64_t samples, length;     /* calibration sequences and their tokens; 0: 64 x 512 */
    uint64_t seed;
    uint64_t max_ram;            /* bound on memory beside the mapped model, 0: 1 GiB */
    const char *state;           /* folder for resuming; NULL: OUTPUT.state */
    bool resume;                 /* default true */
    bool force;                  /* overwrite the output */
    bool dry_run;                /* predict sizes only */
    bool no_fallback;            /* a type that does not fit a tensor is TT_TARGET instead of being replaced */
    const char *token_embedding; /* a type or a recipe for the embedding; NULL: as the recipe has it (a plain type: its own; else it stays) */
    const char *output_tensor;   /* the same for the output matrix; where the two are one, either names it */
    uint64_t target_bytes;       /* > 0: bits and groups of the recipe are chosen per matrix, by measured loss, so that the file has at most so many bytes */
    double target_bpw;           /* the same by bits per weight of all tensors. A target that cannot be met is TT_TARGET, the nearest written and reported */
} tt_compress_options;
tt_compress_options tt_compress_default_options(void);

typedef struct tt_layer_report {
    const char *tensor;          /* lent by the report */
    const char *type;            /* what it became */
    double error;                /* relative output error ||X(W-Ŵ)^T||² / ||XW^T||² on the calibration data; NaN: not measured */
    double weight_error;         /* ||W-Ŵ||² / ||W||² */
    double sparsity;             /* share of exact zeros */
    double bits_per_weight;
    double seconds;
} tt_layer_report;

typedef struct tt_compress_report {
    size_t n_layers; tt_layer_report *layers;
    uint64_t bytes_before, bytes_after, file_bytes;
    double bits_before, bits_after;                 /* per weight, all tensors */
    double linear_bits_before, linear_bits_after;   /* per weight of the compressible matrices */
    double seconds; uint64_t peak_bytes;            /* allocations beside the mapped model */
    bool resumed; char recipe_sha256[65], data_sha256[65];
    bool mixed;                                     /* with a target: types per matrix were shipped, not the largest uniform ones that fit */
    double mix_loss, uniform_loss;                  /* KL of both to the model, nats per token, on text of the calibration; NaN: not measured */
} tt_compress_report;
/* *report is freed with tt_compress_free_report; may be NULL. */
tt_status tt_compress(tt_ctx *ctx, const tt_compress_options *options, tt_compress_report **report, tt_err *err);
void tt_compress_free_report(tt_compress_report *report);

/* ------------------------------------------------------------------ tabs ---- */
typedef struct tt_tab tt_tab;
typedef struct tt_tab_info { size_t size; const char *path, *method; int64_t tokens, width; uint64_t bytes; const char *base_sha256; } tt_tab_info;
/* Opens a PEFT folder (prompt or prefix tuning). Its shape must fit the model; a foreign base model is a warning in the log. */
tt_status tt_tab_open(const tt_model *model, const char *path, tt_tab **out, tt_err *err);
void tt_tab_close(tt_tab *tab);
const tt_tab_info *tt_tab_get_info(const tt_tab *tab);

/* ------------------------------------------------------------------ tune (tab) ---- */
typedef struct tt_tune_options {
    size_t size;
    const char *model;           /* the compressed model through which the tab learns */
    const char *teacher;         /* the dense model for loss=kl; NULL: the model recorded by compress, else an error */
    const char *output;          /* folder to write; of a method that trains weights: a .gguf file */
    const char *recipe;          /* exactly one train step, "prompt(tokens=32,steps=300)" */
    const char *data;            /* training text, as for compress; texts are repeated until they have the shares of their weights */
    const char *valid;           /* validation text; NULL: a part of `data` split off by document */
    double time;                 /* seconds; 0: the method's own knobs decide */
    uint64_t seed;
    uint64_t max_ram;
    const char *state;           /* NULL: OUTPUT.state */
    bool resume, force;
    const char *guard;           /* texts not learned from that no kept checkpoint may harm, parted by commas, "self" among them; "none"; NULL: self,
                                    unless data holds it */
} tt_tune_options;
tt_tune_options tt_tune_default_options(void);
/* Next-token losses on guarded texts: bare, without what was learned; kept, with the checkpoint that was written. Unless some checkpoint was
 * harmless (no text worse than bare), the best points of validation against largest harm. */
enum { TT_MAX_GUARDS = 8, TT_MAX_TRADE = 32 };
typedef struct tt_guard_trade { int64_t step; double valid, harm; } tt_guard_trade;
typedef struct tt_guard_report {
    int n_texts; bool harmless;
    struct { char name[64]; int64_t tokens; double bare, kept; } text[TT_MAX_GUARDS];
    int n_trade; tt_guard_trade trade[TT_MAX_TRADE];
} tt_guard_report;
typedef struct tt_tune_report {
    int64_t steps, best_step, tokens_seen;
    double first_loss, last_loss, best_valid, first_valid;   /* nats per target token */
    double seconds, seconds_per_step;
    uint64_t peak_bytes;
    bool resumed;
    tt_guard_report guard;       /* n_texts 0: nothing was guarded */
} tt_tune_report;
/* TT_TARGET: guard texts were named and no checkpoint was harmless; the best one by validation is written and the report is filled. */
tt_status tt_tune(tt_ctx *ctx, const tt_tune_options *options, tt_tune_report *report, tt_err *err);

/* ------------------------------------------------------------------ named recipes ---- */
/* Chains for those who do not want to choose: compress, then win back, in one call. The names are listed by tt_named_recipe_get. */
enum { TT_MAX_NAMED_STEPS = 8 };
typedef enum tt_named_stage { TT_NAMED_COMPRESS, TT_NAMED_RECOVER, TT_NAMED_TAB } tt_named_stage;   /* a model from the dense one, a better one from that, a tab */
typedef struct tt_named_step {
    tt_named_stage stage;
    int worth;                   /* of steps that may be left out the one of least worth goes first; 0: never left out */
    int64_t least, usual, most;  /* amounts that "{n}" of the line stands for; 0: it has none */
    const char *line;
} tt_named_step;
typedef struct tt_named_recipe {
    const char *name, *summary; double bits; int64_t samples;
    const char *embedding;       /* a recipe for the embedding, "": it stays */
    int n_steps; tt_named_step step[TT_MAX_NAMED_STEPS];
} tt_named_recipe;
size_t tt_named_recipe_count(void);
bool tt_named_recipe_get(size_t i, tt_named_recipe *out);              /* texts are static; false: out of range */
bool tt_named_recipe_find(const char *name, tt_named_recipe *out);

typedef struct tt_chain_options {
    size_t size;
    const char *model, *output;  /* reference; "x.gguf", the tab becomes the folder "x.tab" beside it */
    const char *recipe;          /* a name */
    const char *data;            /* texts as for tune; they are mixed one to one with text sampled from the model; NULL: sampled text alone */
    const char *guard;           /* as for tune */
    double time;                 /* seconds for everything: steps are left out and amounts chosen so that it fits, by speeds measured first; 0: the usual amounts */
    uint64_t seed, max_ram;
    const char *state;           /* folder; NULL: OUTPUT.chain */
    bool resume, force, dry_run; /* dry_run: measure, plan and predict only */
} tt_chain_options;
tt_chain_options tt_chain_default_options(void);
typedef struct tt_chain_step {
    char line[512];
    const char *what;            /* "sample", "compress", "recover", "tab"; static */
    bool taken;
    int64_t amount;
    double predicted, seconds;   /* estimated from the probe; what it took, NaN: not yet */
} tt_chain_step;
typedef struct tt_chain_report {
    int n_steps; tt_chain_step step[TT_MAX_NAMED_STEPS + 1];
    double predicted, seconds;
    uint64_t bytes_before, bytes_after, file_bytes; double bits_before, bits_after, linear_bits_after;
    char tab[1024];              /* "": none */
    bool resumed;
    tt_tune_report tune;         /* of the tab, when it was made by this call */
} tt_chain_report;
/* TT_TARGET: even the least of the recipe takes longer than `time`; it was done all the same (unless dry_run). */
tt_status tt_chain(tt_ctx *ctx, const tt_chain_options *options, tt_chain_report *report, tt_err *err);

/* ------------------------------------------------------------------ sessions ---- */
typedef struct tt_session tt_session;
/* How keys and values are kept: q8_0 takes half of f16's memory and traffic (blocks of 32; heads must be whole blocks). AUTO: f16, exact numerics f32. */
typedef enum tt_cache_type { TT_CACHE_AUTO, TT_CACHE_F32, TT_CACHE_F16, TT_CACHE_Q8_0 } tt_cache_type;
typedef struct tt_session_options {
    size_t size;
    int64_t n_ctx;               /* positions, prompt tabs included; 0: the model's, at most 4096 */
    tt_cache_type cache_k, cache_v;
} tt_session_options;
tt_status tt_session_create(tt_model *model, const tt_session_options *options, tt_session **out, tt_err *err);
void tt_session_free(tt_session *session);
/* Before the first token. The tab must outlive the session; its keys and values are computed once per (model, tab). */
tt_status tt_session_attach(tt_session *session, tt_tab *tab, tt_err *err);
/* Appends tokens; afterwards the logits of the last one are ready. Full cache: TT_FAIL, session unchanged. */
tt_status tt_session_feed(tt_session *session, const int32_t *ids, size_t n, tt_err *err);
/* [n_vocab], lent until the next feed. */
const float *tt_session_get_logits(const tt_session *session);
int64_t tt_session_position(const tt_session *session);       /* tokens fed; tab positions not counted */
void tt_session_reset(tt_session *session);                   /* forgets all tokens, keeps tabs */

typedef struct tt_sampler_options {
    size_t size;
    float temperature;           /* 0.8; 0: greedy */
    int top_k;                   /* 40; 0: off */
    float top_p, min_p;          /* 0.95, 0.05 */
    float repeat_penalty;        /* 1.0: off */
    int repeat_last_n;           /* 64 */
    float presence_penalty, frequency_penalty;
    uint64_t seed;
} tt_sampler_options;
tt_sampler_options tt_sampler_default_options(void);
tt_status tt_session_set_sampler(tt_session *session, const tt_sampler_options *options, tt_err *err);
/* Draws the next token from the logits (does not feed it). Non-finite logits: TT_FAIL. */
tt_status tt_session_sample(tt_session *session, int32_t *id, tt_err *err);

/* ------------------------------------------------------------------ generate ---- */
/* Text sampled from a model in large batches: data for calibration, training and guarding. Written as JSON Lines, a document a line:
 * {"id": n, "text": "…"}, with `chat` {"id": n, "messages": [{"role": "user", "content": "…"}, {"role": "assistant", …}]}. */
typedef struct tt_generate_options {
    size_t size;
    const char *model;           /* reference */
    const char *output;          /* file to write, "x.jsonl"; the manifest goes beside it, "x.manifest.json" */
    int64_t count, tokens;       /* sequences, and tokens of each at most, its prompt included; 0: 256 x 512 */
    int64_t batch;               /* sequences in lock-step, at most 128; 0: as many as 256 MiB of cache hold, at most 64 */
    double temperature, top_p;   /* 1, 1 */
    uint64_t seed;
    const char *prompts;         /* data set whose documents begin the sequences, in turn; NULL: one token drawn at random, with `chat` nothing:
                                    the model writes the user's turn as well */
    bool chat;                   /* through the model's chat template */
    const char *system;          /* system message, with `chat`; NULL: the template's own */
    tt_cache_type cache;
    const char *state;           /* folder for resuming; NULL: OUTPUT.state */
    bool resume, force;
} tt_generate_options;
tt_generate_options tt_generate_default_options(void);
typedef struct tt_generate_report {
    int64_t documents, dropped;  /* dropped: blank ones, and chats in which the user's turn never ended */
    int64_t tokens, drawn;       /* of the documents; drawn by the model in all sequences */
    double seconds, tokens_per_second;   /* of drawing, this run alone */
    uint64_t peak_bytes;
    bool resumed;
    char sha256[65], model_sha256[65], manifest[1024];
} tt_generate_report;
tt_status tt_generate(tt_ctx *ctx, const tt_generate_options *options, tt_generate_report *report, tt_err *err);

/* ------------------------------------------------------------------ measure ---- */
typedef struct tt_perplexity_options {
    size_t size;
    const char *model;           /* reference */
    const char *adapter;         /* tab folder or NULL */
    const char *data;            /* text file */
    int64_t n_ctx;               /* 512: tokens of a window (tab positions come on top) */
    int64_t chunks;              /* 0 or -1: all */
    bool documents;              /* score by document (JSONL, folder, or split by `split`) instead of llama.cpp's disjoint chunks */
    bool as_llama_cpp;           /* disjoint chunks: score rows n_ctx/2 … n_ctx-2 as llama.cpp does (255 of 512) instead of the whole second half
                                    (256). Always so with save_base, load_base and base, whose format has no row for the first one. */
    const char *split;           /* documents of a plain text: POSIX regular expression of a line that begins one; NULL: blank-line rule */
    tt_numerics numerics;
    const char *save_base;       /* write llama.cpp's base-logit file */
    const char *load_base;       /* read one and add KLD statistics */
    const char *base;            /* or: another model, run in lock-step, for KLD statistics */
    const char *save_losses;     /* per-token losses, for tt_compare_losses */
    tt_cache_type cache_k, cache_v;   /* of the model; the base keeps AUTO */
} tt_perplexity_options;
tt_perplexity_options tt_perplexity_default_options(void);

/* Of the values of all scored targets, by linear interpolation: maximum, 99.9 %, 99 %, 95 %, 90 %, median, 10 %, 5 %, 1 %, 0.1 %, minimum. */
typedef struct tt_quantiles { double max, q999, q99, q95, q90, median, q10, q05, q01, q001, min; } tt_quantiles;
/* llama.cpp's statistics; *_err: standard error. Q is the model measured, dp = p_Q - p_base of the right token. */
typedef struct tt_kld_stats {
    double base_perplexity, base_perplexity_err, correlation;   /* correlation of the two ln PPL */
    double mean_ln_ratio, mean_ln_ratio_err;                    /* ln(PPL(Q) / PPL(base)) */
    double ratio, ratio_err, diff, diff_err;                    /* PPL(Q) / PPL(base), PPL(Q) - PPL(base) */
    double mean_kld, mean_kld_err; tt_quantiles kld;            /* KL(base || Q), nats per target */
    double mean_dp, mean_dp_err, rms_dp, rms_dp_err; tt_quantiles dp;
    double same_top, same_top_err;                              /* share of targets with equal argmax */
} tt_kld_stats;
typedef struct tt_perplexity_report {
    double perplexity, error;    /* llama.cpp's error of the estimate */
    double nll;                  /* mean, nats per target token */
    int64_t tokens, chunks, documents;   /* scored targets */
    double seconds, tokens_per_second;
    uint64_t peak_rss;
    char data_sha256[65];
    bool has_kld; tt_kld_stats kld;              /* false below 100 targets */
} tt_perplexity_report;
tt_status tt_perplexity(tt_ctx *ctx, const tt_perplexity_options *options, tt_perplexity_report *report, tt_err *err);

/* Multiple choice by likelihood, llama.cpp's HellaSwag score: a file of six lines a task (beginning, number of the right ending, four endings); the
 * answer is the ending with the highest mean log-probability per token. */
typedef struct tt_choices_options {
    size_t size;
    const char *model, *adapter;     /* reference; tab folder or NULL */
    const char *data;
    int64_t tasks;                   /* 0: all */
    tt_numerics numerics;
    tt_cache_type cache_k, cache_v;
} tt_choices_options;
tt_choices_options tt_choices_default_options(void);
typedef struct tt_choices_report {
    int64_t tasks, correct;
    double accuracy, low, high;      /* share; 95 % interval (Wilson) */
    double seconds;
    uint64_t peak_rss;
    char data_sha256[65];
    char *results;                   /* '1' or '0' for each task, for paired comparisons; tt_free */
} tt_choices_report;
tt_status tt_choices(tt_ctx *ctx, const tt_choices_options *options, tt_choices_report *report, tt_err *err);

/* Paired comparison of two files of `save_losses`: same targets, or TT_MISMATCH. 95 % interval clustered by document. */
typedef struct tt_paired_report { int64_t tokens, documents; double nll_a, nll_b, diff, low, high; } tt_paired_report;   /* diff = b - a; low, high NaN below 2 documents */
tt_status tt_compare_losses(const char *a, const char *b, tt_paired_report *report, tt_err *err);

/* ------------------------------------------------------------------ the machine ---- */
/* The ceilings are what all threads of the context reach together, in 10^9 per second, measured in under half a second; 0 until measured. */
typedef struct tt_machine_info {
    size_t size;
    char cpu[128], isa[64], features[256];
    int cores, threads;
    uint64_t ram_bytes, ram_free;
    double read_gb_s;            /* bytes from memory far larger than the caches */
    double l2_gb_s;              /* bytes from the second-level cache */
    double fma_gflops;           /* f32 operations of multiply-adds in registers (two each), on the context's instruction set */
    double dot_gops;             /* the same of 8-bit integers */
} tt_machine_info;
tt_status tt_machine_get_info(tt_ctx *ctx, bool measure, tt_machine_info *out, tt_err *err);

/* Every hot loop on its own, on the context's instruction set, for about `seconds` in all (0: 8). `share` is the time that the nearest
 * ceiling would allow over the time taken, on one thread with the operands in cache. Loops that stream weights are also timed on all threads
 * over more bytes than the caches hold. */
typedef struct tt_kernel_rate {
    const char *kernel;          /* "panel_rowdot"; lent */
    char variant[64];            /* "4 bits, groups of 64, 1 token" */
    double seconds;              /* of one call */
    double gb_s, gop_s;          /* bytes and operations of that call, in 10^9 per second */
    const char *bound;           /* "l2", "fma" or "dot"; lent */
    double share;
    double memory_gb_s, memory_share;   /* 0: not a loop that streams weights */
} tt_kernel_rate;
typedef struct tt_kernel_table { tt_machine_info one, all; size_t n; tt_kernel_rate *rows; } tt_kernel_table;   /* ceilings of one thread, of all */
tt_status tt_kernels_measure(tt_ctx *ctx, double seconds, tt_kernel_table **out, tt_err *err);
void tt_kernels_free_table(tt_kernel_table *table);

/* A model's speed: one test is n_depth positions filled beforehand (not timed), then a prompt of n_prompt tokens in one go, then n_gen
 * tokens one by one; neither samples. Everything is done `repetitions` times after one warm-up. */
typedef struct tt_bench_options {
    size_t size;
    const char *model;           /* reference */
    const char *adapter;         /* tab folder or NULL */
    int64_t n_prompt, n_gen, n_depth;   /* 512, 0, 0 */
    int repetitions;             /* 5 */
    bool no_warmup;
    tt_numerics numerics;
    bool expand;
    tt_run_format run_format;
    tt_cache_type cache_k, cache_v;
} tt_bench_options;
tt_bench_options tt_bench_default_options(void);

typedef struct tt_bench_report {
    char architecture[32], file_type[48];
    uint64_t params, bytes; double bits_per_weight;             /* as tt_model_info */
    const char *type_k, *type_v; /* "f16" of the cache; static */
    int64_t batch;               /* most tokens of one pass */
    int repetitions; double *seconds;                           /* of each repetition, [repetitions] */
    double tokens_per_second, deviation;                        /* mean of the repetitions' rates, its sample deviation */
    double open_seconds;         /* tt_model_open */
    double first_seconds;        /* from the start of the opening to the first token chosen: prompt (at least one token) on a new session */
    double token_median, token_p95;                             /* seconds of a generated token; NaN without any */
    double bytes_per_token;      /* read for one generated token: weights, and keys and values at the middle of the test */
    double ops_per_token;        /* operations of the matrices, two a weight: mean over the test's tokens */
    uint64_t resident_bytes, peak_rss;                          /* of the process at the end, and at most since the opening began */
    uint64_t major_faults;       /* pages read from disk meanwhile */
} tt_bench_report;
/* A depth beyond the model's context is TT_USAGE; a model larger than the machine's memory is TT_RESOURCE. */
tt_status tt_bench(tt_ctx *ctx, const tt_bench_options *options, tt_bench_report **report, tt_err *err);
void tt_bench_free_report(tt_bench_report *report);

#ifdef __cplusplus
}
#endif
#endif
