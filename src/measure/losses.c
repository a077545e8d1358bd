/* Files of per-token losses: what a paired comparison needs, and nothing a later run could disagree about silently.
 *
 *     0    "TTLOSSES"            8 bytes
 *     8    u32 version = 1       | u32 flags (1: `doc` counts documents, else chunks)
 *     16   u64 n
 *     24   sha256 of the data    64 hex digits
 *     88   model reference       128 bytes, NUL-padded (cut if longer)
 *     216  n × { u32 doc | i32 token | u32 position in the document or text | f32 loss, nats }
 *
 * Little-endian. Two files compare when data hash, flags and all (doc, token, position) agree.
 */
#include "base/checked.h"
#include "measure/measure.h"
#include <math.h>

enum { VERSION = 1, FLAG_DOCUMENTS = 1, AT_N = 16, AT_SHA = 24, AT_REF = 88, REF_BYTES = 128, HEADER = 216, ENTRY = 16 };
static const char MAGIC[8] = "TTLOSSES";

struct tt_losses_writer { tt__writer *file; uint64_t n; };

tt_status tt__losses_create(const char *path, const char *model_ref, const char *data_sha256, bool by_document, tt_losses_writer **out,
        tt_err *err) {
    *out = NULL;
    uint8_t head[HEADER] = {0};
    uint32_t word[2] = {VERSION, by_document ? FLAG_DOCUMENTS : 0};
    memcpy(head, MAGIC, sizeof MAGIC);
    memcpy(head + 8, word, sizeof word);
    memcpy(head + AT_SHA, data_sha256, 64);
    if (model_ref) memcpy(head + AT_REF, model_ref, strnlen(model_ref, REF_BYTES));
    tt_losses_writer *w = NULL;
    TT_TRY(tt__new(&w, 1, sizeof *w, "a losses file", err));
    tt_status st;
    TT_TRY_GOTO(tt__writer_open(path, 0, &w->file, err));
    TT_TRY_GOTO(tt__write(w->file, head, sizeof head, err));
    *out = w;
    return TT_OK;
done:
    tt__losses_abort(w);
    return st;
}

tt_status tt__losses_add(tt_losses_writer *w, const tt_loss_entry *e, size_t n, tt_err *err) {
    _Static_assert(sizeof *e == ENTRY, "entries are written as they lie in memory");
    w->n += n;
    return tt__write(w->file, e, n * sizeof *e, err);
}

tt_status tt__losses_commit(tt_losses_writer *w, tt_err *err) {
    tt_status st = tt__write_at(w->file, AT_N, &w->n, sizeof w->n, err);
    if (st == TT_OK) {
        st = tt__writer_commit(w->file, err);
        w->file = NULL;
    }
    tt__losses_abort(w);
    return st;
}

void tt__losses_abort(tt_losses_writer *w) {
    if (!w) return;
    tt__writer_abort(w->file);
    tt__free(w);
}

/* ------------------------------------------------------------ reading ---- */

static tt_status check(tt_losses *l, const char *path, tt_err *err) {
    const uint8_t *p = l->map.data;
    TT_FAIL_IF(l->map.size < HEADER || memcmp(p, MAGIC, sizeof MAGIC) != 0, err, TT_BADFILE,
               "not a file of losses|%s|||write one with perplexity --save-losses", path);
    TT_FAIL_IF(tt__rd32(p + 8) != VERSION, err, TT_BADFILE, "unknown version of a losses file|%s|%u|%d", path, tt__rd32(p + 8), VERSION);
    uint64_t bytes = 0;
    l->n = tt__rd64(p + AT_N);
    TT_FAIL_IF(!tt__mul_u64(l->n, ENTRY, &bytes) || bytes != l->map.size - HEADER, err, TT_BADFILE,
               "losses file has the wrong length|%s|%llu bytes|%llu losses",
               path, (unsigned long long)l->map.size, (unsigned long long)l->n);
    TT_FAIL_IF(l->n == 0, err, TT_BADFILE, "losses file is empty|%s", path);
    l->by_document = tt__rd32(p + 12) & FLAG_DOCUMENTS;
    memcpy(l->data_sha256, p + AT_SHA, 64);
    memcpy(l->model_ref, p + AT_REF, REF_BYTES);
    uint32_t doc = 0;
    for (uint64_t i = 0; i < l->n; i++) {
        tt_loss_entry e = tt__losses_at(l, i);
        TT_FAIL_IF(!isfinite(e.loss) || e.doc < doc, err, TT_BADFILE,
                   "damaged losses file|%s, loss %llu|document %u, loss %g|finite losses, documents in order", path,
                   (unsigned long long)i, e.doc, (double)e.loss);
        doc = e.doc;
    }
    return TT_OK;
}

tt_status tt__losses_open(const char *path, tt_losses *out, tt_err *err) {
    *out = (tt_losses){0};
    TT_TRY(tt__map_open(path, &out->map, err));
    tt_status st = check(out, path, err);
    if (st != TT_OK) tt__losses_close(out);
    return st;
}

tt_loss_entry tt__losses_at(const tt_losses *l, uint64_t i) {
    tt_loss_entry e;
    memcpy(&e, l->map.data + HEADER + i * ENTRY, sizeof e);
    return e;
}

void tt__losses_close(tt_losses *l) {
    tt__map_close(&l->map);
    *l = (tt_losses){0};
}
