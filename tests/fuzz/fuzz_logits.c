/* A teacher's logit file from any bytes. What opens has the size its header says, ids in range, probabilities that sum to 1; written again
 * through a writer it has the same windows. A seed byte before the file: 1 puts the right hash under it, so that the checks behind it are reached. */
#include "base/mem.h"
#include "base/util.h"
#include "formats/logits.h"
#include "scratch.h"
#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond) do { if (!(cond)) abort(); } while (0)

static void sign(uint8_t *file, size_t n) {
    tt__sha256 s;
    tt__sha256_init(&s);
    tt__sha256_update(&s, file + 128, n - 160);
    tt__sha256_update(&s, file, 128);
    tt__sha256_final(&s, file + n - 32);
}

static void check_rows(const tt_logits *l) {
    const tt_logits_head *h = tt__logits_get_head(l);
    int32_t *ids;
    float *p, rest;
    MUST(h->k >= 1 && h->k <= h->vocab && h->length >= 2);
    if (tt__new(&ids, (size_t)h->k, sizeof *ids, "ids", NULL) != TT_OK) return;
    MUST(tt__new(&p, (size_t)h->k, sizeof *p, "log-probabilities", NULL) == TT_OK);
    for (int64_t w = 0; w < tt__logits_windows(l); w++) {
        int64_t found = tt__logits_find(l, tt__logits_key(l, w));
        MUST(found >= 0 && memcmp(tt__logits_key(l, found), tt__logits_key(l, w), TT_LOGITS_KEY) == 0);
        for (int64_t r = 0; r + 1 < h->length; r++) {
            tt__logits_row(l, w, r, ids, p, &rest);
            double sum = exp((double)rest);
            for (int64_t i = 0; i < h->k; i++) {
                MUST(ids[i] >= 0 && ids[i] < h->vocab && isfinite(p[i]));
                sum += exp((double)p[i]);
            }
            MUST(fabs(sum - 1) < 1e-3);
        }
    }
    tt__free(ids);
    tt__free(p);
}

static void check_copy(const tt_logits *l) {
    const char *path = scratch_path("copy");
    tt_logits_writer *w;
    tt_logits *again;
    MUST(tt__logits_create(path, tt__logits_get_head(l), &w, NULL) == TT_OK);
    for (int64_t i = 0; i < tt__logits_windows(l); i++) MUST(tt__logits_copy(w, l, i, NULL) == TT_OK);
    MUST(tt__logits_commit(w, NULL) == TT_OK);
    MUST(tt__logits_open(path, tt__logits_get_head(l), &again, NULL) == TT_OK);
    MUST(tt__logits_windows(again) == tt__logits_windows(l));
    tt__logits_close(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tt_err err = {0};
    tt_logits *l;
    uint64_t before = tt__mem_now();
    size_t n = size ? size - 1 : 0;
    uint8_t *file = malloc(n + 1);
    MUST(file);
    if (n) memcpy(file, data + 1, n);
    if (size && data[0] == 1 && n >= 160) sign(file, n);
    scratch_file("logits", file, n);
    free(file);
    tt_status st = tt__logits_open(scratch_path("logits"), NULL, &l, &err);
    MUST(st == TT_OK || (st == TT_BADFILE && err.what[0]));
    if (st == TT_OK) {
        check_rows(l);
        check_copy(l);
    }
    tt__logits_close(l);
    MUST(tt__mem_now() == before);
    return 0;
}
