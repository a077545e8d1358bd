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
 * The operators are read out of the file into huge pages rather than mapped: a model of 650 MB opens in 0.1 s instead of 0.04, and then decodes
 * a fifth faster than from small pages. All threads read, each piece is summed up while it is in the cache, and no page of the file is mapped for it.
 *
 * Writing takes longer than repacking, so a thread does it while the model runs; closing the model waits for it.
 */
#include "engine/runcache.h"

#include "base/env.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/util.h"
#include "hub/hub.h"
#include "models/run.h"
#include "models/store.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

enum { LAYOUT = 4, PIECE = 1 << 18 };
static const char architecture[] = "trimtab-run";

struct tt__runcache {
    bool used, writing;          /* the operators come from a file; one is being written */
    pthread_t writer;
    const tt_net *net;
    char *path, source[64];
};

static uint64_t size_limit(void) { return tt__env_bytes(TT_ENV_RUN_CACHE, 16ull << 30); }
static uint64_t size_least(void) { return tt__env_bytes(TT_ENV_RUN_CACHE_LEAST, 16ull << 20); }

/* ------------------------------------------------------------ checksum ---- */

/* A part of a segment; while it is read, where it lies in the file. */
typedef struct piece { uint8_t *data; uint64_t offset; size_t bytes; uint64_t sum; } piece;

static uint64_t pieces_of(const tt_segment *seg) { return (seg->bytes + PIECE - 1) / PIECE; }

static piece *cut(piece *p, uint8_t *data, uint64_t bytes, uint64_t offset) {
    for (uint64_t at = 0; at < bytes; at += PIECE) *p++ = (piece){data + at, offset + at, (size_t)(bytes - at < PIECE ? bytes - at : PIECE), 0};
    return p;
}

/* The sum of an operator from those of its pieces, which are numbered within the operator. */
static void add_sum(uint64_t *sum, const char *params, const piece *p, size_t n) {
    *sum = tt__hash64(params, strlen(params), *sum);
    for (size_t i = 0; i < n; i++) *sum = tt__hash_mix(*sum, tt__hash_mix(p[i].sum, i));
}

static void sum_of(const tt_linop *op, uint64_t *sum) {
    tt_segment seg[8];
    char params[96] = "";
    const int n = op->v->segments(op, seg);
    uint64_t number = 0;
    op->v->describe(op, params, sizeof params);
    *sum = tt__hash64(params, strlen(params), *sum);
    for (int i = 0; i < n; i++)
        for (uint64_t at = 0; at < seg[i].bytes; at += PIECE, number++) {
            const size_t bytes = (size_t)(seg[i].bytes - at < PIECE ? seg[i].bytes - at : PIECE);
            *sum = tt__hash_mix(*sum, tt__hash_mix(tt__hash64((const uint8_t *)seg[i].data + at, bytes, 0), number));
        }
}

static void as_text(uint64_t h, char out[17]) { snprintf(out, 17, "%016llx", (unsigned long long)h); }

/* ------------------------------------------------------------ reading ---- */

static bool says(const tt_gguf *g, const char *key, const char *want) {
    const char *value = NULL;
    size_t n = 0;
    return tt__gguf_str(g, key, true, &value, &n, NULL) == TT_OK && n == strlen(want) && !memcmp(value, want, n);
}

/* The operators of a file on their way into the memory of the net. */
typedef struct taking {
    const char *path;
    int fd;
    size_t n;                              /* weights */
    tt_stored *stored;                     /* [n] v: NULL where the file has none; segments lie in the net's memory */
    size_t *first;                         /* [n + 1] pieces of each */
    piece *pieces;
    tt_linop **ops;
    atomic_bool failed;
} taking;

static void take_piece(void *arg, int64_t i, int worker) {
    (void)worker;
    taking *t = arg;
    piece *p = &t->pieces[i];
    if (tt__read_at(t->fd, t->path, p->offset, p->data, p->bytes, NULL) != TT_OK) atomic_store_explicit(&t->failed, true, memory_order_relaxed);
    else p->sum = tt__hash64(p->data, p->bytes, 0);
}

/* What the file has for each weight, and how many pieces that is. */
static bool find_all(const tt_net *net, const tt_gguf *g, taking *t) {
    for (size_t i = 0; i < t->n; i++) {
        const tt_weight *w = &net->weights[i];
        tt_stored *s = &t->stored[i];
        uint64_t need = w->op ? tt__linop_panel_bytes(w->op) : 0;
        t->first[i + 1] = t->first[i];
        if (!need) continue;
        if (tt__store_find_op(g, w->name, w->rows, w->cols, s, NULL) != TT_OK) return false;
        if (!s->v) continue;
        for (int j = 0; j < s->n_seg; j++) {
            need -= (s->seg[j].bytes + 63) & ~63ull;
            t->first[i + 1] += pieces_of(&s->seg[j]);
        }
        if (need) return false;
    }
    return true;
}

/* Each segment gets its place, at multiples of 64 bytes, and is read there. */
static bool read_all(tt_model *m, const tt_gguf *g, uint8_t *at, taking *t) {
    piece *p = t->pieces;
    for (size_t i = 0; i < t->n; i++) {
        const tt_weight *w = &m->net->weights[i];
        uint8_t *place = at;
        if (w->op) at += tt__linop_panel_bytes(w->op);
        for (int j = 0; t->stored[i].v && j < t->stored[i].n_seg; j++) {
            tt_segment *seg = &t->stored[i].seg[j];
            uint64_t offset;
            if (!tt__gguf_offset(g, seg->data, &offset)) return false;
            p = cut(p, place, seg->bytes, offset);
            seg->data = place;
            place += (seg->bytes + 63) & ~63ull;
        }
    }
    tt__parallel(m->ctx, (int64_t)t->first[t->n], take_piece, t);
    return !atomic_load(&t->failed);
}

static bool sum_is(const tt_gguf *g, const taking *t) {
    uint64_t sum = 0;
    char text[17];
    for (size_t i = 0; i < t->n; i++)
        if (t->stored[i].v) add_sum(&sum, t->stored[i].params, t->pieces + t->first[i], t->first[i + 1] - t->first[i]);
    as_text(sum, text);
    return says(g, "trimtab.run.checksum", text);
}

static bool load_all(tt_model *m, taking *t) {
    for (size_t i = 0; i < t->n; i++) {
        const tt_weight *w = &m->net->weights[i];
        const tt_stored *s = &t->stored[i];
        if (!s->v) continue;
        if (s->v->load(m->ctx, s->params, w->rows, w->cols, s->seg, s->n_seg, &t->ops[i], NULL) != TT_OK || !tt__linop_panel(t->ops[i])) return false;
    }
    return true;
}

static bool allocate(taking *t) {
    return tt__new(&t->stored, t->n, sizeof *t->stored, "operators", NULL) == TT_OK && tt__new(&t->ops, t->n, sizeof *t->ops, "operators", NULL) == TT_OK &&
           tt__new(&t->first, t->n + 1, sizeof *t->first, "operators", NULL) == TT_OK;
}

/* Every operator of the file, in place of the stored ones; all or nothing. */
static bool take_operators(tt_model *m, const tt_gguf *g, const char *path, uint64_t bytes) {
    tt_net *net = m->net;
    taking t = {.path = path, .n = net->n_weights, .fd = -1};
    uint8_t *memory = tt__net_run_memory(net, bytes);
    bool good = memory && allocate(&t) && find_all(net, g, &t) && tt__new(&t.pieces, t.first[t.n] + 1, sizeof *t.pieces, "pieces", NULL) == TT_OK &&
                tt__read_open(path, &t.fd, NULL) == TT_OK && read_all(m, g, memory, &t) && sum_is(g, &t) && load_all(m, &t);
    for (size_t i = 0; t.ops && i < net->n_weights; i++) {
        tt_linop *leaves = t.ops[i];
        if (good && leaves) {
            leaves = net->weights[i].op;
            net->weights[i].op = t.ops[i];
        }
        tt__linop_free(leaves);
    }
    if (t.fd >= 0) tt__read_close(t.fd);
    tt__free(t.pieces);
    tt__free(t.first);
    tt__free(t.ops);
    tt__free(t.stored);
    return good;
}

static bool open_cache(tt_model *m, struct tt__runcache *c, uint64_t bytes) {
    tt_gguf *g = NULL;
    if (!tt__exists(c->path) || tt__gguf_open(c->path, &g, NULL) != TT_OK) return false;
    c->used = says(g, "general.architecture", architecture) && says(g, "trimtab.run.source", c->source) && take_operators(m, g, c->path, bytes);
    tt__gguf_close(g);
    if (c->used) utimensat(AT_FDCWD, c->path, NULL, 0);    /* the time of its use; where that is not allowed it counts as unused */
    return c->used;
}

/* ------------------------------------------------------------ writing ---- */

/* Room for `bytes` more: old files go. False when that many never fit. */
static bool make_room(const char *path, uint64_t bytes) {
    const char *slash = strrchr(path, '/');
    char *dir = slash ? tt__strndup(path, (size_t)(slash - path)) : NULL;
    const bool fits = dir && tt__make_room(dir, ".gguf", size_limit(), bytes);
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
        sum_of(op, &sum);
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
