/* trimtab compress: the arguments in llama-quantize's order (MODEL OUT TYPE THREADS), or a recipe; then what became of each layer. */
#include "cli.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A recipe is a line, or the name of a file that holds one. What is wrong in a file is a damaged file, not wrong usage. */
static int read_recipe(cli *c, const char *arg, const char **recipe) {
    struct stat s;
    char *text = NULL;
    size_t n;
    *recipe = arg;
    if (stat(arg, &s) != 0 || !S_ISREG(s.st_mode)) return 0;
    int code = read_all(c, arg, &text, &n);
    if (code) return code;
    *recipe = keep(c, text);
    tt_recipe *r = NULL;
    tt_err err = {0};
    tt_status st = tt_recipe_parse(text, n, &r, &err);
    tt_recipe_free(r);
    if (st == TT_USAGE) st = err.status = TT_BADFILE;
    return st == TT_OK ? 0 : fail(c, st, &err);
}

/* Checks a recipe before anything is opened, and says which steps belong to another verb. */
static int check_recipe(cli *c, const char *recipe) {
    tt_recipe *r = NULL;
    tt_err err = {0};
    size_t mine = 0;
    tt_status st = tt_recipe_parse(recipe, strlen(recipe), &r, &err);
    if (st != TT_OK) return fail(c, st, &err);
    for (size_t i = 0; i < tt_recipe_step_count(r); i++) {
        const tt_method_info *m = tt_recipe_get_method(r, i);
        if (strcmp(m->stage, "compress") == 0) mine++;
        else note(c, "trimtab compress: step %zu, %s, is a %s step: afterwards, 'trimtab tune' applies it", i + 1, m->name, m->stage);
    }
    tt_recipe_free(r);
    return mine ? 0 : usage_error(c, "no compress step in the recipe", recipe, NULL, "'trimtab methods' lists the methods and their stages");
}

static bool looks_like_type(const char *s) { return !strpbrk(s, "(+{=") && !tt_method_find(s); }

static json_t *layer_json(const tt_layer_report *l) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "tensor", j_text(l->tensor), "type", j_text(l->type), "error", j_real(l->error), "weight_error",
                     j_real(l->weight_error), "sparsity", j_real(l->sparsity), "bits_per_weight", j_real(l->bits_per_weight), "seconds", j_real(l->seconds));
}

static int report_json(const cli *c, const tt_compress_options *o, const tt_compress_report *r) {
    json_t *layers = json_array();
    for (size_t i = 0; i < r->n_layers; i++) json_array_append_new(layers, layer_json(&r->layers[i]));
    json_t *doc = json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:b}", "model", j_text(o->model), "output", j_text(o->output), "recipe", j_text(o->recipe),
                            "recipe_sha256", j_text(r->recipe_sha256), "data_sha256", j_text(r->data_sha256), "dry_run", o->dry_run, "resumed", r->resumed);
    json_object_set_new(doc, "bytes_before", json_integer((json_int_t)r->bytes_before));
    json_object_set_new(doc, "bytes", json_integer((json_int_t)r->bytes_after));
    json_object_set_new(doc, "file_bytes", json_integer((json_int_t)r->file_bytes));
    json_object_set_new(doc, "bits_per_weight_before", j_real(r->bits_before));
    json_object_set_new(doc, "bits_per_weight", j_real(r->bits_after));
    json_object_set_new(doc, "linear_bits_per_weight_before", j_real(r->linear_bits_before));
    json_object_set_new(doc, "linear_bits_per_weight", j_real(r->linear_bits_after));
    json_object_set_new(doc, "seconds", j_real(r->seconds));
    json_object_set_new(doc, "peak_bytes", json_integer((json_int_t)r->peak_bytes));
    json_object_set_new(doc, "threads", json_integer(tt_ctx_threads(c->ctx)));
    json_object_set_new(doc, "isa", j_text(tt_ctx_isa(c->ctx)));
    const bool target = o->target_bytes || o->target_bpw;
    json_object_set_new(doc, "target", !target ? json_null() : json_pack("{s:o, s:o, s:b, s:o, s:o}", "bytes", o->target_bytes ? json_integer((json_int_t)o->target_bytes) : json_null(),
                        "bits_per_weight", o->target_bpw ? json_real(o->target_bpw) : json_null(), "mixed", r->mixed, "mix_loss", j_real(r->mix_loss), "uniform_loss", j_real(r->uniform_loss)));
    json_object_set_new(doc, "layers", layers);
    return print_json(c, doc);
}

static void print_share(double x) {
    if (isfinite(x)) printf(" %12.6f", x);
    else printf(" %12s", "-");
}

static int report_text(const tt_compress_options *o, const tt_compress_report *r) {
    char a[32], b[32], t[32];
    printf("%-36s %-26s %12s %12s %9s %9s\n", "TENSOR", "TYPE", "OUTPUT ERROR", "WEIGHT ERROR", "ZEROS", "BITS");
    for (size_t i = 0; i < r->n_layers; i++) {
        const tt_layer_report *l = &r->layers[i];
        printf("%-36s %-26s", l->tensor, l->type);
        print_share(l->error);
        print_share(l->weight_error);
        if (isfinite(l->sparsity)) printf(" %7.2f %%", 100 * l->sparsity);
        else printf(" %9s", "-");
        printf(" %8.4f\n", l->bits_per_weight);
    }
    printf("%s%s\n", o->dry_run ? "predicted: " : "", o->output);
    printf("weights %s -> %s, %.4f -> %.4f bits per weight; linear %.4f -> %.4f\n", text_bytes(r->bytes_before, a), text_bytes(r->bytes_after, b), r->bits_before,
           r->bits_after, r->linear_bits_before, r->linear_bits_after);
    if (isfinite(r->mix_loss)) printf("types per matrix: %.5f nats from the model; one type for all: %.5f; %s\n", r->mix_loss, r->uniform_loss, r->mixed ? "the first is kept" : "the second is kept");
    if (!o->dry_run) printf("file %s, %s%s, peak %s beside the model\n", text_bytes(r->file_bytes, a), text_time(r->seconds, t), r->resumed ? " (resumed)" : "", text_bytes(r->peak_bytes, b));
    return 0;
}

static int take_arguments(cli *c, tt_compress_options *o) {
    int next = 0, code = 0;
    o->model = take_model(c, &next);
    if (!o->model) return TT_USAGE;
    o->output = opt_s(c, O_output);
    if (!o->output && next < c->n_args) o->output = c->args[next++];
    if (!o->output) return usage_error(c, "no output given", NULL, c->verb->args, "name it, or use -o OUT");
    o->recipe = opt_s(c, O_recipe);
    if (next < c->n_args && o->recipe) return usage_error(c, "both a type and a recipe", c->args[next], NULL, "give one of the two");
    if (next < c->n_args) o->recipe = c->args[next++];
    if (!o->recipe) return usage_error(c, "what shall it become?", NULL, "a type such as Q4_0, or --recipe", "'trimtab methods' lists the methods");
    if (next < c->n_args && !opt_given(c, O_threads)) {
        char *end;
        long n = strtol(c->args[next], &end, 10);
        if (*end || n < 1 || n > 4096) return usage_error(c, "bad number of threads", c->args[next], "1..4096", NULL);
        c->value[O_threads] = c->args[next++];
    }
    if (next < c->n_args) return usage_error(c, "too many arguments", c->args[next], c->verb->args, NULL);
    if ((code = read_recipe(c, o->recipe, &o->recipe))) return code;
    return looks_like_type(o->recipe) ? 0 : check_recipe(c, o->recipe);
}

/* ------------------------------------------------------------------ named recipes ---- */

static json_t *step_json(const tt_chain_step *s) {
    return json_pack("{s:s, s:o, s:b, s:I, s:o, s:o}", "step", s->what, "line", j_text(s->line), "taken", s->taken, "amount", (json_int_t)s->amount, "predicted_seconds",
                     j_real(s->predicted), "seconds", j_real(s->seconds));
}

static int chain_json(const cli *c, const tt_chain_options *o, const tt_chain_report *r) {
    json_t *steps = json_array();
    for (int i = 0; i < r->n_steps; i++) json_array_append_new(steps, step_json(&r->step[i]));
    json_t *doc = json_pack("{s:o, s:o, s:o, s:o, s:b, s:b, s:o}", "model", j_text(o->model), "output", j_text(o->output), "tab", j_text(*r->tab ? r->tab : NULL), "recipe",
                            j_text(o->recipe), "dry_run", o->dry_run, "resumed", r->resumed, "steps", steps);
    json_object_set_new(doc, "predicted_seconds", j_real(r->predicted));
    json_object_set_new(doc, "seconds", j_real(r->seconds));
    json_object_set_new(doc, "bytes_before", json_integer((json_int_t)r->bytes_before));
    json_object_set_new(doc, "bytes", json_integer((json_int_t)r->bytes_after));
    json_object_set_new(doc, "file_bytes", json_integer((json_int_t)r->file_bytes));
    json_object_set_new(doc, "bits_per_weight_before", j_real(r->bits_before));
    json_object_set_new(doc, "bits_per_weight", j_real(r->bits_after));
    json_object_set_new(doc, "linear_bits_per_weight", j_real(r->linear_bits_after));
    json_object_set_new(doc, "guard", guard_json(&r->tune.guard));
    json_object_set_new(doc, "threads", json_integer(tt_ctx_threads(c->ctx)));
    json_object_set_new(doc, "isa", j_text(tt_ctx_isa(c->ctx)));
    return print_json(c, doc);
}

static int chain_text(const tt_chain_options *o, const tt_chain_report *r) {
    char a[32], b[32], t[32];
    printf("%-10s %12s %12s  %s\n", "STEP", "ESTIMATED", "TOOK", "WHAT");
    for (int i = 0; i < r->n_steps; i++) {
        const tt_chain_step *s = &r->step[i];
        printf("%-10s %12s %12s  %s\n", s->what, s->taken ? text_time(s->predicted, a) : "left out", isfinite(s->seconds) ? text_time(s->seconds, b) : "-", s->line);
    }
    printf("%s%s, about %s\n", o->dry_run ? "predicted: " : "", o->output, text_time(r->predicted, t));
    if (r->bytes_after)
        printf("weights %s -> %s, %.4f -> %.4f bits per weight; linear %.4f\n", text_bytes(r->bytes_before, a), text_bytes(r->bytes_after, b), r->bits_before, r->bits_after,
               r->linear_bits_after);
    if (*r->tab) printf("tab %s\n", r->tab);
    if (!o->dry_run && r->tune.steps) printf("validation %.4f -> %.4f (nats per token)\n", r->tune.first_valid, r->tune.best_valid);
    guard_text(&r->tune.guard);
    return 0;
}

static int run_chain(cli *c, const tt_compress_options *from) {
    tt_chain_options o = tt_chain_default_options();
    tt_chain_report r = {0};
    tt_err err = {0};
    static const enum opt_id foreign[] = {O_samples, O_length, O_token_embedding_type, O_output_tensor_type, O_target_size, O_target_bpw, O_fallback};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (opt_given(c, foreign[i])) return usage_error(c, "a named recipe decides this itself", options[foreign[i]].name, NULL, "leave it out, or give the recipe's line");
    int code = open_ctx(c);
    if (code) return code;
    o.model = from->model, o.output = from->output, o.recipe = from->recipe;
    o.data = opt_list(c, O_data);
    o.guard = opt_list(c, O_guard);
    o.time = opt_f(c, O_time);
    if (opt_given(c, O_work_seed)) o.seed = (uint64_t)opt_i(c, O_work_seed);
    if (opt_given(c, O_max_ram)) o.max_ram = (uint64_t)opt_i(c, O_max_ram);
    o.state = opt_s(c, O_state);
    o.resume = opt_b(c, O_resume);
    o.force = opt_b(c, O_force);
    o.dry_run = opt_b(c, O_dry_run);
    note(c, "trimtab compress: %s -> %s, recipe %s, %d threads, %s", o.model, o.output, o.recipe, tt_ctx_threads(c->ctx), tt_ctx_isa(c->ctx));
    tt_status st = tt_chain(c->ctx, &o, &r, &err);
    if (st == TT_OK || st == TT_TARGET) code = json_wanted(c) ? chain_json(c, &o, &r) : chain_text(&o, &r);
    return st == TT_OK ? code : fail(c, st, &err);
}

int cmd_compress(cli *c) {
    tt_compress_options o = tt_compress_default_options();
    tt_compress_report *r = NULL;
    tt_err err = {0};
    tt_named_recipe named;
    int code = take_arguments(c, &o);
    if (code) return code;
    if (tt_named_recipe_find(o.recipe, &named)) return run_chain(c, &o);
    if (opt_given(c, O_time) || opt_given(c, O_guard)) return usage_error(c, "only a named recipe takes this", opt_given(c, O_time) ? "--time" : "--guard", NULL, "'trimtab methods' lists the recipes");
    if ((code = open_ctx(c))) return code;
    o.data = opt_list(c, O_data);
    o.samples = opt_i(c, O_samples);
    o.length = opt_i(c, O_length);
    if (opt_given(c, O_work_seed)) o.seed = (uint64_t)opt_i(c, O_work_seed);
    if (opt_given(c, O_max_ram)) o.max_ram = (uint64_t)opt_i(c, O_max_ram);
    o.state = opt_s(c, O_state);
    o.resume = opt_b(c, O_resume);
    o.force = opt_b(c, O_force);
    o.dry_run = opt_b(c, O_dry_run);
    o.no_fallback = !opt_b(c, O_fallback);
    o.token_embedding = opt_s(c, O_token_embedding_type);
    o.output_tensor = opt_s(c, O_output_tensor_type);
    if (opt_given(c, O_target_size)) o.target_bytes = (uint64_t)opt_i(c, O_target_size);
    if (opt_given(c, O_target_bpw)) o.target_bpw = opt_f(c, O_target_bpw);
    note(c, "trimtab compress: %s -> %s, %s, %d threads, %s", o.model, o.output, o.recipe, tt_ctx_threads(c->ctx), tt_ctx_isa(c->ctx));
    tt_status st = tt_compress(c->ctx, &o, &r, &err);
    if (r && (st == TT_OK || st == TT_TARGET)) code = json_wanted(c) ? report_json(c, &o, r) : report_text(&o, r);
    tt_compress_free_report(r);
    return st == TT_OK ? code : fail(c, st, &err);
}
