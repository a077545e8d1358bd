/* What this machine is: for `doctor`, and for the point that every measurement carries (DESIGN 5, Point). */
#include "base/ctx.h"
#include "base/file.h"
#include "base/util.h"
#include "kernels/kernels.h"
#include "kernels/probe.h"
#include <stdio.h>
#include <unistd.h>

/* The value of the first line "key : value" of a /proc text, or "". */
static void proc_value(const char *path, const char *key, char *out, size_t n) {
    char *text = NULL;
    size_t bytes = 0;
    tt_err ignored = {0};
    out[0] = 0;
    if (tt__read_file(path, 1u << 22, &text, &bytes, &ignored) != TT_OK) return;
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        size_t k = strlen(key);
        char *colon = strchr(line, ':');
        if (strncmp(line, key, k) || !colon || strspn(line + k, " \t") != (size_t)(colon - line) - k) continue;
        colon += 1 + strspn(colon + 1, " \t");
        snprintf(out, n, "%s", colon);
        break;
    }
    tt__free(text);
}

static uint64_t meminfo(const char *key) {
    char text[64];
    proc_value("/proc/meminfo", key, text, sizeof text);
    char *kb = strstr(text, " kB");
    int64_t v = 0;
    if (kb) *kb = 0;
    return tt__parse_i64(text, &v) && v > 0 ? (uint64_t)v * 1024 : 0;
}

/* The features that a kernel of ours asks for, in the order of /proc/cpuinfo's line of flags. */
#ifdef __aarch64__
#define FLAGS "Features"
static const char *const wanted[] = {"asimd", "asimddp", "i8mm"};
#else
#define FLAGS "flags"
static const char *const wanted[] = {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_vbmi2", "avx512_bf16", "sha_ni"};
#endif

static void features(char *out, size_t n) {
    char flags[8192];
    proc_value("/proc/cpuinfo", FLAGS, flags, sizeof flags);
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const char *hit = strstr(flags, wanted[i]);
        size_t len = strlen(wanted[i]);
        if (hit && (hit[len] == ' ' || !hit[len]) && at + len + 2 < n) at += (size_t)snprintf(out + at, n - at, "%s%s", at ? " " : "", wanted[i]);
    }
}

tt_status tt_machine_get_info(tt_ctx *ctx, bool measure, tt_machine_info *out, tt_err *err) {
    *out = (tt_machine_info){.size = sizeof *out, .cores = tt__cpus_usable(), .threads = tt__threads(ctx)};
    proc_value("/proc/cpuinfo", "model name", out->cpu, sizeof out->cpu);
    snprintf(out->isa, sizeof out->isa, "%s", ctx->k->isa);
    features(out->features, sizeof out->features);
    out->ram_bytes = meminfo("MemTotal");
    out->ram_free = meminfo("MemAvailable");
    if (!measure) return TT_OK;
    tt_ceilings c;
    TT_TRY(tt__probe(ctx, out->threads, &c, err));
    out->read_gb_s = c.read_gb_s, out->l2_gb_s = c.l2_gb_s, out->fma_gflops = c.fma_gflops, out->dot_gops = c.dot_gops;
    return TT_OK;
}
