/* Opening, prefill and decoding of one model on this machine, through the public header. One JSON line on stdout.
 *   speed MODEL [-p 512] [-n 128] [-r 3] [-t THREADS] [-d DEPTH] [--exact] [--run-format keep|auto|expand]
 * Prefill feeds p tokens into an empty session; decoding feeds n tokens one by one behind d tokens; neither samples. As llama-bench does. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <trimtab/trimtab.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

typedef struct plan { int p, n, r, depth; } plan;

/* Tokens spread over the vocabulary: what they are does not change the work. */
static void fill(int32_t *ids, int n, int64_t vocab) {
    for (int i = 0; i < n; i++) ids[i] = (int32_t)((i * 7919LL + 17) % vocab);
}

static tt_status measure(tt_model *model, plan w, double *prefill, double *decode, tt_err *err) {
    int64_t vocab = tt_model_get_info(model)->n_vocab;
    int most = w.p > w.depth ? w.p : w.depth;
    if (w.n > most) most = w.n;
    int32_t *ids = malloc((size_t)(most + 1) * sizeof *ids);
    tt_session_options so = {.size = sizeof so, .n_ctx = w.depth + (w.p > w.n ? w.p : w.n)};
    tt_session *s = NULL;
    tt_status st = tt_session_create(model, &so, &s, err);
    if (ids) fill(ids, most + 1, vocab);
    for (int r = -1; !st && ids && r < w.r; r++) {           /* one warm-up */
        tt_session_reset(s);
        double start = now();
        if (w.p) st = tt_session_feed(s, ids, (size_t)w.p, err);
        if (r >= 0) prefill[r] = w.p / (now() - start);
        tt_session_reset(s);
        if (!st && w.depth) st = tt_session_feed(s, ids, (size_t)w.depth, err);
        start = now();
        for (int i = 0; !st && i < w.n; i++) st = tt_session_feed(s, ids + i, 1, err);
        if (r >= 0) decode[r] = w.n / (now() - start);
    }
    tt_session_free(s);
    free(ids);
    return st;
}

int main(int argc, char **argv) {
    plan w = {512, 128, 3, 0};
    tt_ctx_options co = tt_ctx_default_options();
    tt_model_options mo = tt_model_default_options();
    const char *path = NULL;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(a, "--exact")) mo.numerics = TT_EXACT;
        else if (!strcmp(a, "--run-format")) mo.run_format = !strcmp(v, "auto") ? TT_RUN_AUTO : !strcmp(v, "expand") ? TT_RUN_EXPAND : TT_RUN_KEEP, i++;
        else if (!strcmp(a, "-p")) w.p = atoi(v), i++;
        else if (!strcmp(a, "-n")) w.n = atoi(v), i++;
        else if (!strcmp(a, "-r")) w.r = atoi(v), i++;
        else if (!strcmp(a, "-d")) w.depth = atoi(v), i++;
        else if (!strcmp(a, "-t")) co.threads = atoi(v), i++;
        else path = a;
    }
    if (!path || w.r < 1 || w.r > 64 || w.p < 0 || w.n < 0 || w.depth < 0) return fprintf(stderr, "usage: speed MODEL [-p N] [-n N] [-r N] [-t N] [-d N] [--exact] [--run-format keep|auto|expand]\n"), TT_USAGE;
    double prefill[64] = {0}, decode[64] = {0}, opened[5];
    tt_err err = {0};
    tt_ctx *ctx = NULL;
    tt_model *model = NULL;
    tt_status st = tt_ctx_create(&co, &ctx, &err);
    for (int i = 0; !st && i < 5; i++) {
        tt_model_close(model);
        model = NULL;
        double start = now();
        st = tt_model_open(ctx, path, &mo, &model, &err);
        opened[i] = now() - start;
    }
    if (!st) st = measure(model, w, prefill, decode, &err);
    if (st) {
        char line[1200];
        fprintf(stderr, "speed: %s\n", tt_err_line(&err, line, sizeof line));
        return st;
    }
    qsort(prefill, (size_t)w.r, sizeof *prefill, by_value);
    qsort(decode, (size_t)w.r, sizeof *decode, by_value);
    qsort(opened, 5, sizeof *opened, by_value);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    const tt_model_info *info = tt_model_get_info(model);
    printf("{\"model\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"open_ms\":%.2f,\"n_prompt\":%d,\"prefill_tokens_per_second\":%.2f,\"n_gen\":%d,\"depth\":%d,"
           "\"decode_tokens_per_second\":%.2f,\"bytes\":%llu,\"peak_rss\":%lld}\n", info->file_type, tt_ctx_isa(ctx), tt_ctx_threads(ctx), opened[2] * 1e3, w.p,
           prefill[w.r / 2], w.n, w.depth, decode[w.r / 2], (unsigned long long)info->bytes, (long long)u.ru_maxrss * 1024);
    tt_model_close(model);
    tt_ctx_free(ctx);
    return 0;
}
