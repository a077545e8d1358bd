/* The run cache: one GGUF file per model that was repacked, in a folder beside the pulled models ("run").
 *
 *     name                      of the source's device and inode: a source that changes replaces its old file
 *     general.architecture      "trimtab-run"
 *     trimtab.run.source        layout version, and the hash of device, inode, size, time and metadata of every file of the source
 *     trimtab.run.checksum      of the tensors
 *     operators                 as models/store.h stores them, tensors aligned to 64 bytes; those that were not repacked are not here
 *
 * A file that does not say exactly this, or whose checksum differs, is passed over and replaced. It is written beside and renamed, so two
 * processes that build the same one end with one whole file. The folder is kept under a size (TRIMTAB_RUN_CACHE), the least recently used
 * files go first. Small models are repacked in less time than a file costs.
 *
 * The operators are copied out of the file into huge pages rather than mapped: a model of 650 MB opens in 0.1 s instead of 0.04, and then decodes
 * a fifth faster than from small pages. Pages of the file are given back as they are read, so there is one copy here too.
 *
 * Writing takes longer than repacking, so a thread does it while the model runs; closing the model waits for it.
 */
#include "engine/runcache.h"

#include "base/env.h"
#include "base/hash.h"
#include "base/util.h"
#include "hub/hub.h"
#include "models/run.h"
#include "models/store.h"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

enum { LAYOUT = 2, PIECE = 1 << 18 };
static const char architecture[] = "trimtab-run";

struct tt__runcache {
    bool used, writing;          /* the operators come from a file; one is being written */
    pthread_t writer;
    const tt_net *net;
    char *path, source[64];
};

static uint64_t bytes_from(tt__env_id id, uint64_t otherwise) {
    const char *text = tt__env(id);
    uint64_t bytes;
    if (!text) return otherwise;
    if (!tt__env_true(id)) return 0;
    return tt__parse_bytes(text, &bytes) ? bytes : otherwise;
}
static uint64_t size_limit(void) { return bytes_from(TT_ENV_RUN_CACHE, 16ull << 30); }
static uint64_t size_least(void) { return bytes_from(TT_ENV_RUN_CACHE_LEAST, 64ull << 20); }

/* ------------------------------------------------------------ checksum ---- */

typedef struct piece { const uint8_t *data; uint8_t *copy; size_t bytes; uint64_t seed; } piece;

static void hash_piece(void *arg, int64_t i, int worker) {
    (void)worker;
    piece *p = (piece *)arg + i;
    if (p->copy) memcpy(p->copy, p->data, p->bytes);
    p->seed = tt__hash64(p->copy ? p->copy : p->data, p->bytes, p->seed);
}

/* Of parameters and segments of an operator, in pieces that the threads of ctx share (NULL: this thread alone). Each segment is copied
 * to the next multiple of 64 from `copy` on (NULL: none). False: out of memory. */
static bool hash_op(tt_ctx *ctx, const tt_linop *op, uint8_t *copy, uint64_t *sum) {
    tt_segment seg[8];
    const int n_seg = op->v->segments(op, seg);
    size_t n = 0, at = 0;
    piece *pieces;
    for (int i = 0; i < n_seg; i++) n += (size_t)(seg[i].bytes + PIECE - 1) / PIECE;
    if (tt__new(&pieces, n ? n : 1, sizeof *pieces, "a checksum", NULL) != TT_OK) return false;
    for (int i = 0; i < n_seg; i++) {
        for (uint64_t from = 0; from < seg[i].bytes; from += PIECE, at++)
            pieces[at] = (piece){(const uint8_t *)seg[i].data + from, copy ? copy + from : NULL, (size_t)(seg[i].bytes - from < PIECE ? seg[i].bytes - from : PIECE), at};
        if (copy) copy += (seg[i].bytes + 63) & ~63ull;
    }
    if (ctx) tt__parallel(ctx, (int64_t)n, hash_piece, pieces);
    else for (size_t i = 0; i < n; i++) hash_piece(pieces, (int64_t)i, 0);
    char params[96] = "";
    op->v->describe(op, params, sizeof params);
    *sum = tt__hash64(params, strlen(params), *sum);
    for (size_t i = 0; i < n; i++) *sum = tt__hash_mix(*sum, pieces[i].seed);
    tt__free(pieces);
    return true;
}

static void as_text(uint64_t h, char out[17]) { snprintf(out, 17, "%016llx", (unsigned long long)h); }

/* ------------------------------------------------------------ reading ---- */

static bool says(const tt_gguf *g, const char *key, const char *want) {
    const char *value = NULL;
    size_t n = 0;
    return tt__gguf_str(g, key, true, &value, &n, NULL) == TT_OK && n == strlen(want) && !memcmp(value, want, n);
}

/* Into the net's own memory; the pages of the file are given back. */
static bool take_over(tt_model *m, const tt_gguf *g, tt_linop *op, uint8_t *memory, uint64_t bytes, uint64_t *sum) {
    tt_segment seg[8];
    const int n = op->v->segments(op, seg);
    for (int i = 0; i < n; i++) bytes -= (seg[i].bytes + 63) & ~63ull;
    if (bytes || !tt__linop_panel(op) || !hash_op(m->ctx, op, memory, sum)) return false;
    tt__linop_panel_lend(op, memory);
    for (int i = 0; i < n; i++) tt__gguf_release(g, seg[i].data, seg[i].bytes);
    return true;
}

/* Every operator of the file, in place of the stored ones; all or nothing. */
static bool take_operators(tt_model *m, const tt_gguf *g, uint64_t bytes) {
    tt_net *net = m->net;
    tt_linop **ops;
    uint64_t sum = 0;
    char text[17];
    uint8_t *at = tt__net_run_memory(net, bytes);
    if (!at || tt__new(&ops, net->n_weights, sizeof *ops, "operators", NULL) != TT_OK) return false;
    bool good = true;
    for (size_t i = 0; i < net->n_weights && good; i++) {
        const tt_weight *w = &net->weights[i];
        const uint64_t need = w->op ? tt__linop_panel_bytes(w->op) : 0;
        if (!need) continue;
        good = tt__store_load_op(m->ctx, g, w->name, w->rows, w->cols, &ops[i], NULL) == TT_OK;
        if (good && ops[i]) good = take_over(m, g, ops[i], at, need, &sum);
        at += need;
    }
    as_text(sum, text);
    good = good && says(g, "trimtab.run.checksum", text);
    for (size_t i = 0; i < net->n_weights; i++) {
        tt_linop *leaves = good && ops[i] ? net->weights[i].op : ops[i];
        if (good && ops[i]) net->weights[i].op = ops[i];
        tt__linop_free(leaves);
    }
    tt__free(ops);
    return good;
}

static bool open_cache(tt_model *m, struct tt__runcache *c, uint64_t bytes) {
    tt_gguf *g = NULL;
    if (!tt__exists(c->path) || tt__gguf_open(c->path, &g, NULL) != TT_OK) return false;
    c->used = says(g, "general.architecture", architecture) && says(g, "trimtab.run.source", c->source) && take_operators(m, g, bytes);
    tt__gguf_close(g);
    if (c->used) utimensat(AT_FDCWD, c->path, NULL, 0);    /* the time of its use; where that is not allowed it counts as unused */
    return c->used;
}

/* ------------------------------------------------------------ writing ---- */

typedef struct old_file { char *path; uint64_t bytes; int64_t used; } old_file;

static bool oldest_of(const char *dir, old_file *oldest, uint64_t *sum) {
    DIR *d = opendir(dir);
    *sum = 0;
    *oldest = (old_file){0};
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        const size_t n = strlen(e->d_name);
        if (n < 6 || e->d_name[0] == '.' || strcmp(e->d_name + n - 5, ".gguf") != 0) continue;
        char *path = tt__path_join(dir, e->d_name);
        if (path && lstat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            *sum += (uint64_t)st.st_size;
            if (!oldest->path || st.st_mtim.tv_sec < oldest->used) {
                tt__free(oldest->path);
                *oldest = (old_file){path, (uint64_t)st.st_size, st.st_mtim.tv_sec};
                path = NULL;
            }
        }
        tt__free(path);
    }
    if (d) closedir(d);
    return oldest->path != NULL;
}

/* Room for `bytes` more: old files go. False when that many never fit. */
static bool make_room(const char *path, uint64_t bytes) {
    const char *slash = strrchr(path, '/');
    char *dir = slash ? tt__strndup(path, (size_t)(slash - path)) : NULL;
    const uint64_t limit = size_limit();
    old_file old;
    uint64_t sum;
    bool fits = dir && bytes <= limit;
    while (fits && oldest_of(dir, &old, &sum)) {
        const bool enough = sum <= limit - bytes;
        if (!enough) fits = tt__remove(old.path, NULL) == TT_OK;
        tt__free(old.path);
        if (enough) break;
    }
    tt__free(dir);
    return fits;
}

static tt_status save(const struct tt__runcache *c, tt_gguf_writer *w) {
    uint64_t sum = 0;
    char text[17];
    TT_TRY(tt__gguf_set_alignment(w, 64, NULL));
    TT_TRY(tt__gguf_set_str(w, "general.architecture", architecture, NULL));
    TT_TRY(tt__gguf_set_str(w, "trimtab.run.source", c->source, NULL));
    for (size_t i = 0; i < c->net->n_weights; i++) {
        const tt_linop *op = c->net->weights[i].op;
        if (!op || !tt__linop_panel(op)) continue;
        if (!hash_op(NULL, op, NULL, &sum)) return TT_RESOURCE;
        TT_TRY(tt__store_add_op(w, c->net->weights[i].name, op, NULL));
    }
    as_text(sum, text);
    TT_TRY(tt__gguf_set_str(w, "trimtab.run.checksum", text, NULL));
    if (!make_room(c->path, tt__gguf_writer_bytes(w))) return TT_RESOURCE;
    return tt__gguf_writer_save(w, c->path, NULL);
}

static void *writer_main(void *arg) {
    tt_gguf_writer *w = NULL;
    if (tt__gguf_writer_create(&w, NULL) == TT_OK) save(arg, w);
    tt__gguf_writer_free(w);
    return NULL;
}

/* Signals belong to the program, as in the thread pool. */
static void start_writing(struct tt__runcache *c) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    c->writing = pthread_create(&c->writer, NULL, writer_main, c) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ------------------------------------------------------------ both ---- */

/* The file of this model and what it has to say about its source; false: no cache for this one. */
static bool find_place(const tt_model *m, struct tt__runcache *c) {
    uint64_t file, source;
    char name[32], *dir = NULL;
    if (!m->gguf || !tt__gguf_identity(m->gguf, &file, &source)) return false;
    if (tt__run_folder(&dir, NULL) == TT_OK && tt__mkdirs_private(dir, NULL) == TT_OK) {
        snprintf(name, sizeof name, "%016llx.gguf", (unsigned long long)file);
        snprintf(c->source, sizeof c->source, "%d-%016llx", LAYOUT, (unsigned long long)source);
        c->path = tt__path_join(dir, name);
    }
    tt__free(dir);
    return c->path != NULL;
}

tt_status tt__runcache_ready(tt_model *m, tt_err *err) {
    const uint64_t bytes = tt__net_run_bytes(m->net);
    if (!bytes) return TT_OK;
    if (bytes < size_least() || bytes > size_limit()) return tt__net_to_run(m->ctx, m->net, m->gguf, err);
    TT_TRY(tt__new(&m->run, 1, sizeof *m->run, "the run cache", err));
    m->run->net = m->net;
    const bool place = find_place(m, m->run);
    if (place && open_cache(m, m->run, bytes)) return TT_OK;
    TT_TRY(tt__net_to_run(m->ctx, m->net, m->gguf, err));
    if (place) start_writing(m->run);
    return TT_OK;
}

bool tt__runcache_used(const tt_model *m) { return m->run && m->run->used; }

void tt__runcache_finish(tt_model *m) {
    if (!m->run) return;
    if (m->run->writing) pthread_join(m->run->writer, NULL);
    tt__free(m->run->path);
    tt__free(m->run);
    m->run = NULL;
}
