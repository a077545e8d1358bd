/* The main job in four calls: compress, learn a tab through the compressed weights, measure both on the same tokens, compare.
 *   compress_then_prompt MODEL TRAIN.jsonl TEST.jsonl OUT_DIR [STEPS] */
#include <stdio.h>
#include <stdlib.h>
#include <trimtab/trimtab.h>

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: compress_then_prompt MODEL TRAIN TEST OUT_DIR [STEPS]\n");
        return TT_USAGE;
    }
    char small[512], tab[512], recipe[128], plain[512], steered[512], line[1200];
    snprintf(small, sizeof small, "%s/small.gguf", argv[4]);
    snprintf(tab, sizeof tab, "%s/tab", argv[4]);
    snprintf(plain, sizeof plain, "%s/plain.losses", argv[4]);
    snprintf(steered, sizeof steered, "%s/steered.losses", argv[4]);
    snprintf(recipe, sizeof recipe, "prompt(tokens=16,steps=%d,length=128)", argc > 5 ? atoi(argv[5]) : 60);

    tt_err err = {0};
    tt_ctx *ctx = NULL;
    tt_status st = tt_ctx_create(NULL, &ctx, &err);

    tt_compress_options c = tt_compress_default_options();
    c.model = argv[1], c.output = small, c.data = argv[2], c.recipe = "sparsegpt(sparsity=0.5,bits=4)", c.samples = 16, c.length = 256, c.force = true;
    tt_compress_report *report = NULL;
    if (!st) st = tt_compress(ctx, &c, &report, &err);
    if (!st) printf("compressed: %.2f -> %.2f bits per weight in %.0f s\n", report->bits_before, report->bits_after, report->seconds);
    tt_compress_free_report(report);

    tt_tune_options t = tt_tune_default_options();
    t.model = small, t.teacher = argv[1], t.output = tab, t.data = argv[2], t.recipe = recipe, t.force = true;
    tt_tune_report learned;
    if (!st) st = tt_tune(ctx, &t, &learned, &err);
    if (!st) printf("tuned: %lld steps, validation loss %.4f -> %.4f\n", (long long)learned.steps, learned.first_valid, learned.best_valid);

    tt_perplexity_options p = tt_perplexity_default_options();
    tt_perplexity_report without, with;
    p.model = small, p.data = argv[3], p.documents = true, p.n_ctx = 128, p.save_losses = plain;
    if (!st) st = tt_perplexity(ctx, &p, &without, &err);
    p.adapter = tab, p.save_losses = steered;
    if (!st) st = tt_perplexity(ctx, &p, &with, &err);
    tt_paired_report pair;
    if (!st) st = tt_compare_losses(plain, steered, &pair, &err);
    if (!st)
        printf("perplexity %.3f -> %.3f with the tab; paired difference %+.4f nats per token, 95 %% [%+.4f, %+.4f], %lld tokens of %lld documents\n",
               without.perplexity, with.perplexity, pair.diff, pair.low, pair.high, (long long)pair.tokens, (long long)pair.documents);
    if (st) fprintf(stderr, "compress_then_prompt: %s\n", tt_err_line(&err, line, sizeof line));
    tt_ctx_free(ctx);
    return st;
}
