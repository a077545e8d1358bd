/* trimtab bench: llama-bench's options, table and field names over tt_bench; what this machine allows beside them.
 *
 * Order of the tests, as there: models, then threads, then depths; for each the prompts, the generations, the pairs. Every row opens its model
 * anew, so that time to open, memory and page faults are the row's own.
 */
#include "cli.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 256, MODELS = 64 };

typedef struct test { int64_t n_prompt, n_gen, n_depth; } test;

typedef struct plan {
    cli *c;
    const char *models[MODELS];
    int n_models, n_threads, n_prompts, n_gens, n_pg, n_depths;
    int64_t threads[MOST], prompts[MOST], gens[MOST], pg[MOST], depths[MOST];
    tt_machine_info *machine;    /* [n_threads], measured the first time */
    double work, done;           /* of progress */
    int rows, row;
    const char *format;
} plan;

typedef struct row {
    const char *model;
    test t;
    int threads;
    const char *isa;
    const tt_machine_info *machine;
    const tt_bench_report *r;
    char time[32];               /* of the start */
} row;

/* ------------------------------------------------------------ the plan ---- */

static int take_models(plan *p) {
    cli *c = p->c;
    if (opt_s(c, O_bench_model)) {
        char *list = keep(c, strdup(opt_s(c, O_bench_model))), *state = NULL;
        for (char *word = list ? strtok_r(list, ",\n", &state) : NULL; word && p->n_models < MODELS; word = strtok_r(NULL, ",\n", &state)) p->models[p->n_models++] = word;
    }
    for (int i = 0; i < c->n_args && p->n_models < MODELS; i++) p->models[p->n_models++] = c->args[i];
    if (p->n_models) return 0;
    return usage_error(c, "no model given", NULL, c->verb->args, "name it, or use -m MODEL; 'trimtab list' shows what is at hand");
}

static int numbers(const plan *p, enum opt_id id, int64_t *out) { return opt_s(p->c, id) ? list_numbers(opt_s(p->c, id), out, MOST) : 0; }

/* Prompts are cheap, tokens one by one about eight times as dear, a depth is filled once. */
static double work_of(const plan *p, test t) { return (double)(opt_i(p->c, O_repetitions) * (t.n_prompt + 8 * t.n_gen) + t.n_depth + t.n_prompt) + 1; }

typedef int (*visit)(plan *p, test t, void *arg);

static int visit_some(plan *p, int64_t depth, visit fn, void *arg) {
    int code = 0;
    for (int i = 0; i < p->n_prompts && !code; i++)
        if (p->prompts[i]) code = fn(p, (test){p->prompts[i], 0, depth}, arg);
    for (int i = 0; i < p->n_gens && !code; i++)
        if (p->gens[i]) code = fn(p, (test){0, p->gens[i], depth}, arg);
    for (int i = 0; i + 1 < p->n_pg && !code; i += 2)
        if (p->pg[i] + p->pg[i + 1]) code = fn(p, (test){p->pg[i], p->pg[i + 1], depth}, arg);
    return code;
}

static int visit_tests(plan *p, visit fn, void *arg) {
    int code = 0;
    for (int d = 0; d < p->n_depths && !code; d++) code = visit_some(p, p->depths[d], fn, arg);
    return code;
}

static int count_test(plan *p, test t, void *longest) {
    int64_t *most = longest, all = t.n_depth + t.n_prompt + t.n_gen;
    p->work += work_of(p, t);
    p->rows++;
    if (all > *most) *most = all;
    return 0;
}

static int make_plan(plan *p, int64_t *longest) {
    int code = take_models(p);
    if (code) return code;
    p->n_threads = numbers(p, O_bench_threads, p->threads);
    p->n_prompts = numbers(p, O_n_prompt, p->prompts);
    p->n_gens = numbers(p, O_n_gen, p->gens);
    p->n_pg = numbers(p, O_n_pg, p->pg);
    p->n_depths = numbers(p, O_n_depth, p->depths);
    if (p->n_pg % 2) return usage_error(p->c, "half a pair", opt_s(p->c, O_n_pg), "-pg P,N", NULL);
    visit_tests(p, count_test, longest);
    if (!p->rows) return usage_error(p->c, "nothing to measure", NULL, "-p, -n or -pg above 0", NULL);
    p->rows *= p->n_models * p->n_threads;
    p->work *= p->n_models * p->n_threads;
    p->format = json_wanted(p->c) ? "json" : opt_s(p->c, O_format);
    p->machine = calloc((size_t)p->n_threads, sizeof *p->machine);
    return p->machine ? 0 : fail_text(p->c, TT_RESOURCE, "out of memory", "the plan", NULL);
}

/* Before anything is measured: a model that cannot run, or whose context is too short, would otherwise end a long run in its middle. */
static int check_models(plan *p, int64_t longest) {
    tt_err err = {0};
    int code = open_ctx_threads(p->c, (int)p->threads[0]);
    for (int i = 0; i < p->n_models && !code; i++) {
        tt_model_options mo = tt_model_default_options();
        tt_model *m = NULL;
        mo.offline = opt_b(p->c, O_offline);
        mo.stored = true;
        tt_status st = tt_model_open(p->c->ctx, p->models[i], &mo, &m, &err);
        const tt_model_info *info = m ? tt_model_get_info(m) : NULL;
        char got[64], most[64];
        if (st != TT_OK) code = fail(p->c, st, &err);
        else if (!info->runnable) code = fail_text(p->c, TT_BADFILE, "cannot run this architecture", info->architecture, "'show' and 'convert' work on it");
        else if (longest > info->n_ctx) {
            snprintf(got, sizeof got, "%" PRId64 " positions", longest);
            snprintf(most, sizeof most, "at most %" PRId64 " of %s", info->n_ctx, p->models[i]);
            code = usage_error(p->c, "test is longer than the model's context", got, most, "lower -d, -p or -n");
        }
        tt_model_close(m);
    }
    close_ctx(p->c);
    return code;
}

/* ------------------------------------------------------------ what a row says ---- */

static void test_name(test t, char out[64]) {
    int n = 0;
    if (t.n_prompt) n += snprintf(out + n, 64 - (size_t)n, "pp%" PRId64, t.n_prompt);
    if (t.n_gen) n += snprintf(out + n, 64 - (size_t)n, "%stg%" PRId64, n ? "+" : "", t.n_gen);
    if (t.n_depth) snprintf(out + n, 64 - (size_t)n, " @ d%" PRId64, t.n_depth);
}

static void model_type(const tt_bench_report *r, char out[128]) {
    int n = snprintf(out, 128, r->params >= 1000000000 ? "%s %.1fB " : "%s %.0fM ", r->architecture, (double)r->params / (r->params >= 1000000000 ? 1e9 : 1e6));
    snprintf(out + n, 128 - (size_t)n, "%.*s", (int)strcspn(r->file_type, " "), r->file_type);      /* "Q4_0 (mostly)" → "Q4_0" */
}

/* Generation waits for memory, prompts for arithmetic; NaN where the ceiling was not measured. */
static double bandwidth_share(const row *w) {
    return w->t.n_gen && !w->t.n_prompt && w->machine ? w->r->bytes_per_token * w->r->tokens_per_second / (1e9 * w->machine->read_gb_s) : NAN;
}
static double dot_share(const row *w) { return w->t.n_prompt && !w->t.n_gen && w->machine ? w->r->ops_per_token * w->r->tokens_per_second / (1e9 * w->machine->dot_gops) : NAN; }

static json_t *j_ns(double seconds) { return isfinite(seconds) ? json_integer((json_int_t)llround(1e9 * seconds)) : json_null(); }

static void spread(const tt_bench_report *r, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    for (int i = 0; i < r->repetitions; i++) sum += r->seconds[i];
    *mean = sum / r->repetitions;
    for (int i = 0; i < r->repetitions; i++) squares += (r->seconds[i] - *mean) * (r->seconds[i] - *mean);
    *deviation = r->repetitions > 1 ? sqrt(squares / (r->repetitions - 1)) : 0;
}

static void put(json_t *o, const char *key, json_t *value) { json_object_set_new(o, key, value); }
static void put_int(json_t *o, const char *key, double value) { put(o, key, json_integer((json_int_t)value)); }

static void put_samples(json_t *o, const row *w) {
    json_t *ns = json_array(), *ts = json_array();
    for (int i = 0; i < w->r->repetitions; i++) {
        json_array_append_new(ns, j_ns(w->r->seconds[i]));
        json_array_append_new(ts, j_real((double)(w->t.n_prompt + w->t.n_gen) / w->r->seconds[i]));
    }
    put(o, "samples_ns", ns);
    put(o, "samples_ts", ts);
}

static void put_ceilings(json_t *o, const row *w) {
    const tt_machine_info *m = w->machine;
    put(o, "read_gb_s", j_real(m ? m->read_gb_s : NAN));
    put(o, "l2_gb_s", j_real(m ? m->l2_gb_s : NAN));
    put(o, "fma_gflops", j_real(m ? m->fma_gflops : NAN));
    put(o, "dot_gops", j_real(m ? m->dot_gops : NAN));
    put(o, "bandwidth_share", j_real(bandwidth_share(w)));
    put(o, "dot_share", j_real(dot_share(w)));
}

/* llama-bench's fields under their names, then ours. */
static json_t *row_json(const plan *p, const row *w) {
    const tt_bench_report *r = w->r;
    char type[128];
    double mean, deviation;
    tt_machine_info plain = {.size = sizeof plain};
    tt_machine_get_info(p->c->ctx, false, &plain, NULL);
    model_type(r, type);
    spread(r, &mean, &deviation);
    json_t *o = json_pack("{s:s, s:i, s:o, s:s, s:s, s:o, s:o}", "build_commit", git_hash, "build_number", 10000 * TT_VERSION_MAJOR + 100 * TT_VERSION_MINOR + TT_VERSION_PATCH,
                          "cpu_info", j_text(plain.cpu), "gpu_info", "", "backends", "CPU", "model_filename", j_text(w->model), "model_type", j_text(type));
    put_int(o, "model_size", (double)r->bytes);
    put_int(o, "model_n_params", (double)r->params);
    put_int(o, "n_batch", (double)r->batch);
    put_int(o, "n_ubatch", (double)r->batch);
    put_int(o, "n_threads", w->threads);
    put(o, "type_k", j_text(r->type_k));
    put(o, "type_v", j_text(r->type_v));
    put_int(o, "n_prompt", (double)w->t.n_prompt);
    put_int(o, "n_gen", (double)w->t.n_gen);
    put_int(o, "n_depth", (double)w->t.n_depth);
    put(o, "test_time", j_text(w->time));
    put(o, "avg_ns", j_ns(mean));
    put(o, "stddev_ns", j_ns(deviation));
    put(o, "avg_ts", j_real(r->tokens_per_second));
    put(o, "stddev_ts", j_real(r->deviation));
    put(o, "isa", j_text(w->isa));
    put(o, "numerics", j_text(opt_b(p->c, O_exact) ? "exact" : "fast"));
    put(o, "adapter", j_text(opt_s(p->c, O_adapter)));
    put(o, "bits_per_weight", j_real(r->bits_per_weight));
    put_int(o, "resident_bytes", (double)r->resident_bytes);
    put_int(o, "peak_rss", (double)r->peak_rss);
    put_int(o, "majflt", (double)r->major_faults);
    put(o, "open_ns", j_ns(r->open_seconds));
    put(o, "ttft_ns", j_ns(r->first_seconds));
    put(o, "itl_p50_ns", j_ns(r->token_median));
    put(o, "itl_p95_ns", j_ns(r->token_p95));
    put_int(o, "bytes_per_token", r->bytes_per_token);
    put_int(o, "ops_per_token", r->ops_per_token);
    put_ceilings(o, w);
    put_samples(o, w);
    return o;
}

/* ------------------------------------------------------------ the four formats ---- */

static void csv_cell(const json_t *v) {
    if (json_is_integer(v)) printf("\"%" JSON_INTEGER_FORMAT "\"", json_integer_value(v));
    else if (json_is_real(v)) printf("\"%.6f\"", json_real_value(v));
    else if (!json_is_string(v)) fputs("\"\"", stdout);
    else {
        putchar('"');
        for (const char *s = json_string_value(v); *s; s++) fputs(*s == '"' ? "\"\"" : (char[]){*s, 0}, stdout);
        putchar('"');
    }
}

static void csv_line(const json_t *o, bool names) {
    const char *key;
    json_t *v;
    bool first = true;
    json_object_foreach((json_t *)o, key, v) {
        if (json_is_array(v)) continue;
        if (!first) putchar(',');
        first = false;
        if (names) fputs(key, stdout);
        else csv_cell(v);
    }
    putchar('\n');
}

static void size_text(uint64_t n, char out[32]) { snprintf(out, 32, n < 1ull << 30 ? "%.2f MiB" : "%.2f GiB", (double)n / (n < 1ull << 30 ? 1 << 20 : 1 << 30)); }
static void params_text(uint64_t n, char out[32]) { snprintf(out, 32, n < 1000000000 ? "%.2f M" : "%.2f B", (double)n / (n < 1000000000 ? 1e6 : 1e9)); }

static void md_head(void) {
    puts("| model                          |       size |     params | backend    | threads |            test |                  t/s |   bpw | isa          |   of bound | first token |       peak |\n"
         "| ------------------------------ | ---------: | ---------: | ---------- | ------: | --------------: | -------------------: | ----: | ------------ | ---------: | ----------: | ---------: |");
}

static void md_row(const row *w) {
    const tt_bench_report *r = w->r;
    char type[128], size[32], params[32], name[64], rate[40], bound[32] = "-", peak[32], first[32];
    const double read = bandwidth_share(w), dot = dot_share(w);
    model_type(r, type);
    size_text(r->bytes, size);
    params_text(r->params, params);
    size_text(r->peak_rss, peak);
    test_name(w->t, name);
    snprintf(rate, sizeof rate, "%.2f ± %.2f", r->tokens_per_second, r->deviation);
    snprintf(first, sizeof first, "%.1f ms", 1e3 * r->first_seconds);
    if (isfinite(read)) snprintf(bound, sizeof bound, "%.0f %% read", 100 * read);
    if (isfinite(dot)) snprintf(bound, sizeof bound, "%.0f %% dot", 100 * dot);
    printf("| %-30s | %10s | %10s | %-10s | %7d | %15s | %21s | %5.2f | %-12s | %10s | %11s | %10s |\n", type, size, params, "CPU", w->threads, name, rate, r->bits_per_weight, w->isa,
           bound, first, peak);
}

static void print_row(const plan *p, const row *w) {
    if (strcmp(p->format, "md") == 0) {
        if (p->row == 0) md_head();
        md_row(w);
    } else {
        json_t *o = row_json(p, w);
        if (strcmp(p->format, "csv") == 0) {
            if (p->row == 0) csv_line(o, true);
            csv_line(o, false);
        } else {
            const bool lines = strcmp(p->format, "jsonl") == 0;
            if (!lines) fputs(p->row ? ",\n" : "[\n", stdout);
            json_dumpf(o, stdout, (lines ? JSON_COMPACT : JSON_INDENT(2)) | JSON_REAL_PRECISION(9));
            if (lines) putchar('\n');
        }
        json_decref(o);
    }
    fflush(stdout);
}

/* Also after a test that failed: what stands so far is whole. */
static void print_end(const plan *p) {
    if (strcmp(p->format, "json") == 0) fputs(p->row ? "\n]\n" : "[\n]\n", stdout);
    if (strcmp(p->format, "md") != 0 || p->row == 0) return;
    printf("\nbuild: %s (%s)\n", git_hash, tt_version());
    for (int i = 0; i < p->n_threads; i++)
        if (p->machine[i].read_gb_s > 0)
            printf("this machine, %d thread%s: memory %.1f GB/s, second-level cache %.0f GB/s, f32 %.0f GFLOP/s, 8 bits %.0f GOP/s\n", p->machine[i].threads, p->machine[i].threads > 1 ? "s" : "",
                   p->machine[i].read_gb_s, p->machine[i].l2_gb_s, p->machine[i].fma_gflops, p->machine[i].dot_gops);
}

/* ------------------------------------------------------------ running ---- */

static void pause_for(double seconds) {
    struct timespec t = {(time_t)seconds, (long)(1e9 * (seconds - floor(seconds)))};
    if (seconds > 0) nanosleep(&t, NULL);
}

static int run_test(plan *p, test t, void *arg) {
    row w = *(row *)arg;
    tt_bench_options o = tt_bench_default_options();
    tt_bench_report *report = NULL;
    tt_err err = {0};
    char name[64], note_text[120];
    time_t now = time(NULL);
    o.model = w.model;
    o.adapter = opt_s(p->c, O_adapter);
    o.n_prompt = t.n_prompt, o.n_gen = t.n_gen, o.n_depth = t.n_depth;
    o.repetitions = (int)opt_i(p->c, O_repetitions);
    o.no_warmup = !opt_b(p->c, O_warmup);
    o.numerics = opt_b(p->c, O_exact) ? TT_EXACT : TT_FAST;
    o.expand = opt_b(p->c, O_expand);
    o.run_format = run_format(opt_s(p->c, O_run_format));
    o.cache_k = cache_type(opt_s(p->c, O_cache_k));
    o.cache_v = cache_type(opt_s(p->c, O_cache_v));
    test_name(t, name);
    snprintf(note_text, sizeof note_text, "test %d of %d, %s, %d threads", p->row + 1, p->rows, name, w.threads);
    progress_within(p->done, work_of(p, t), p->work, note_text);
    pause_for(opt_f(p->c, O_delay));
    strftime(w.time, sizeof w.time, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    tt_status st = tt_bench(p->c->ctx, &o, &report, &err);
    progress_within(0, 0, 0, "");
    if (st != TT_OK) return fail(p->c, st, &err);
    w.t = t, w.r = report;
    print_row(p, &w);
    tt_bench_free_report(report);
    p->row++;
    p->done += work_of(p, t);
    return 0;
}

static int ceilings(plan *p, int i) {
    tt_err err = {0};
    if (!opt_b(p->c, O_ceilings) || p->machine[i].read_gb_s > 0) return 0;
    tt_status st = tt_machine_get_info(p->c->ctx, true, &p->machine[i], &err);
    return st == TT_OK ? 0 : fail(p->c, st, &err);
}

static int run_threads(plan *p, const char *model, int i) {
    int code = open_ctx_threads(p->c, (int)p->threads[i]);
    if (!code) code = ceilings(p, i);
    if (!code) {
        row w = {.model = model, .threads = tt_ctx_threads(p->c->ctx), .isa = tt_ctx_isa(p->c->ctx), .machine = p->machine[i].read_gb_s > 0 ? &p->machine[i] : NULL};
        code = visit_tests(p, run_test, &w);
    }
    close_ctx(p->c);
    return code;
}

int cmd_bench(cli *c) {
    plan p = {.c = c};
    int64_t longest = 0;
    int code = make_plan(&p, &longest);
    if (!code) code = check_models(&p, longest);
    if (!code) {
        for (int m = 0; m < p.n_models && !code; m++)
            for (int t = 0; t < p.n_threads && !code; t++) code = run_threads(&p, p.models[m], t);
        print_end(&p);
    }
    free(p.machine);
    return code;
}
