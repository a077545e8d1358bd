/* tt_compress on a tiny model: what comes out, and that it comes out with the same bytes whatever interrupts it. */
#include "harness/tiny.h"

#include "base/file.h"
#include "engine/compress_state.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SAMPLES = 10, LENGTH = 24 };

static const char *text_file(void) {
    char *text = tiny_text(3, 2000);
    const char *path = tt_test_file("text.txt", text, strlen(text));
    tt__free(text);
    return path;
}

static tt_compress_options options(const char *recipe, const char *data, const char *output) {
    tt_compress_options o = tt_compress_default_options();
    o.model = tt_test_path("model.gguf");
    o.output = tt_test_path(output);
    o.recipe = recipe;
    o.data = data;
    o.samples = SAMPLES;
    o.length = LENGTH;
    o.seed = 5;
    return o;
}

static void make_model(void) { tiny_write(tt_test_path("model.gguf"), 1, 0, false); }

static bool same_bytes(const char *a, const char *b) {
    tt_err err = {0};
    tt__map x, y;
    TT_CHECK_OK(tt__map_open(a, &x, &err));
    TT_CHECK_OK(tt__map_open(b, &y, &err));
    bool same = x.size == y.size && !memcmp(x.data, y.data, x.size);
    tt__map_close(&x);
    tt__map_close(&y);
    return same;
}

static bool file_is_there(const char *path) { return tt__exists(path); }

static void plain_run(tt_ctx *ctx, const tt_compress_options *o, tt_compress_report **report) {
    tt_err err = {0};
    TT_CHECK_OK(tt_compress(ctx, o, report, &err));
    char state[512];
    snprintf(state, sizeof state, "%s.state", o->output);
    TT_CHECK(!file_is_there(state));
}

/* ------------------------------------------------------------ what comes out ---- */

TT_CASE(recipes) {
    static const struct { const char *recipe, *type; double zeros; } cases[] = {
        {"rtn(bits=4)", "Q4_0", -1}, {"rtn(bits=3)", "group(bits=3,group=64)", -1}, {"magnitude", "sparseq(bits=16)", 0.5}, {"wanda(pattern=2:4)", "sparseq(bits=16)", 0.5},
        {"sparsegpt(bits=4)", "sparseq(bits=4,group=64)", 0.5}, {"gptq(bits=4)", "Q4_0", -1}, {"gptq(bits=3,sequential=true)", "group(bits=3,group=64)", -1},
        {"wanda(sparsity=0.25)+rtn(bits=4)", "sparseq(bits=4,group=64)", 0.25}, {"rtn(type=Q5_1,importance=true)", "Q5_1", -1}, {"gptq+prompt(tokens=4)", "Q4_0", -1},
        {"gptq(bits=2,group=32)+autoround(steps=6,batch=2)", "group(bits=2,group=32)", -1}, {"autoround(bits=4,steps=6,batch=2)", "Q4_0", -1},
        {"blockap(bits=2,sym=false,group=32,steps=6,batch=2)", "group(bits=2,group=32,grid=min)", -1},
        {"sparsegpt(sparsity=0.5)+blockap(bits=4,steps=6,batch=2)", "sparseq(bits=4,group=64)", 0.5}, {"wanda+blockap(steps=4)", "sparseq(bits=16)", 0.5},
        {"gptq(bits=3)+blockap(steps=3)+autoround(steps=4)", "group(bits=3,group=64)", -1}};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    make_model();
    const char *text = text_file();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_compress_options o = options(cases[i].recipe, text, "out.gguf"), dry = o;
        tt_compress_report *r, *predicted;
        tt_model *m;
        tt_test_note("%s", cases[i].recipe);
        o.force = dry.dry_run = true;
        plain_run(ctx, &o, &r);
        TT_CHECK_EQ(r->n_layers, 14);
        for (size_t l = 0; l < r->n_layers; l++) {
            TT_CHECK_STR(r->layers[l].type, cases[i].type);
            TT_CHECK(r->layers[l].weight_error > 0 && r->layers[l].weight_error < 0.6);
            if (cases[i].zeros >= 0) TT_CHECK_NEAR(r->layers[l].sparsity, cases[i].zeros, 0.03);   /* kept weights may be rounded to 0 */
        }
        bool calibrated = strncmp(cases[i].recipe, "rtn(bits", 8) && strncmp(cases[i].recipe, "magn", 4);
        bool trained = strstr(cases[i].recipe, "steps=") != NULL;                      /* their error is that of the block */
        TT_CHECK_EQ(isfinite(r->layers[3].error) != 0, calibrated && !trained);
        TT_CHECK_EQ(r->data_sha256[0] != 0, calibrated);
        TT_CHECK_OK(tt_model_open(ctx, o.output, NULL, &m, &err));
        const tt_model_info *info = tt_model_get_info(m);
        TT_CHECK_EQ(info->bytes, r->bytes_after);
        TT_CHECK_NEAR(info->bits_per_weight, r->bits_after, 1e-9);
        TT_CHECK_NEAR(info->linear_bits_per_weight, r->linear_bits_after, 1e-9);
        for (size_t t = 0; t < tt_model_tensor_count(m); t++) {
            tt_tensor_info ti;
            TT_CHECK_OK(tt_model_get_tensor(m, t, &ti, &err));
            if (!strcmp(ti.name, "token_embd.weight")) TT_CHECK_STR(ti.type, "F32");
        }
        tt_model_close(m);
        TT_CHECK_OK(tt_compress(ctx, &dry, &predicted, &err));
        TT_CHECK_NEAR(predicted->linear_bits_after, r->linear_bits_after, 0.35);   /* filling of short rows */
        tt_compress_free_report(predicted);
        tt_compress_free_report(r);
    }
}

TT_CASE(stock_types) {
    static const struct { const char *name, *linear, *down, *embd; } cases[] = {
        {"Q4_0", "Q4_0", "Q4_0", "Q8_0"}, {"q8_0", "Q8_0", "Q8_0", "Q8_0"}, {"Q4_K_M", "Q5_0", "Q5_0", "Q8_0"}, {"Q6_K", "Q8_0", "Q8_0", "Q8_0"}, {"F16", "F16", "F16", "F16"}};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    make_model();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_compress_options o = options(cases[i].name, NULL, "stock.gguf");
        tt_compress_report *r;
        o.force = true;
        plain_run(ctx, &o, &r);
        TT_CHECK_EQ(r->n_layers, 15);
        TT_CHECK_STR(r->layers[0].tensor, "token_embd.weight");
        TT_CHECK_STR(r->layers[0].type, cases[i].embd);
        for (size_t l = 1; l < r->n_layers; l++) TT_CHECK_STR(r->layers[l].type, strstr(r->layers[l].tensor, "attn_q") ? cases[i].linear : r->layers[l].type);
        tt_gguf *g;
        const char *arch;
        size_t n;
        TT_CHECK_OK(tt__gguf_open(o.output, &g, &err));
        TT_CHECK_OK(tt__gguf_str(g, "general.architecture", true, &arch, &n, &err));
        TT_CHECK(n == 5 && !memcmp(arch, "llama", 5));
        TT_CHECK_OK(tt__gguf_str(g, "trimtab.base_sha256", true, &arch, &n, &err));
        TT_CHECK_EQ(n, 64);
        tt__gguf_close(g);
        tt_compress_free_report(r);
    }
    tt_compress_options o = options("Q4_K_M", NULL, "refused.gguf");
    o.no_fallback = true;
    TT_CHECK_FAILS(TT_TARGET, tt_compress(ctx, &o, NULL, &err));
    TT_CHECK(!file_is_there(o.output));
}

/* Embedding and output under a recipe of their own, behind the layers; everything is counted. */
TT_CASE(embedding) {
    static const struct { const char *recipe, *embedding, *type; bool learns; } cases[] = {
        {"gptq(bits=3)", "rtn(bits=4,group=32,format=own,importance=true)", "group(bits=4,group=32)", true},
        {"rtn(bits=4)", "gptq(bits=3,group=32,sym=false)", "group(bits=3,group=32,grid=min)", true},
        {"rtn(bits=4)", "q4_0", "Q4_0", false}, {"Q8_0", "rtn(bits=3,group=32)", "group(bits=3,group=32)", false},
        {"wanda", "wanda+rtn(bits=4)", "sparseq(bits=4,group=64)", true}};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    make_model();
    const char *text = text_file();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_compress_options o = options(cases[i].recipe, text, "out.gguf"), dry;
        tt_compress_report *r, *predicted;
        tt_model *m;
        tt_test_note("%s, embedding %s", cases[i].recipe, cases[i].embedding);
        o.force = true;
        if (i % 2) o.output_tensor = cases[i].embedding;
        else o.token_embedding = cases[i].embedding;
        dry = o;
        dry.dry_run = true;
        plain_run(ctx, &o, &r);
        TT_CHECK_EQ(r->n_layers, 15);
        const tt_layer_report *e = &r->layers[0];
        TT_CHECK_STR(e->tensor, "token_embd.weight");
        TT_CHECK_STR(e->type, cases[i].type);
        TT_CHECK(e->weight_error > 0 && e->weight_error < 0.6);
        TT_CHECK_EQ(isfinite(e->error) != 0, cases[i].learns);
        TT_CHECK_OK(tt_model_open(ctx, o.output, NULL, &m, &err));
        TT_CHECK_EQ(tt_model_get_info(m)->bytes, r->bytes_after);
        TT_CHECK_NEAR(tt_model_get_info(m)->bits_per_weight, r->bits_after, 1e-9);
        TT_CHECK_NEAR(tt_model_get_info(m)->linear_bits_per_weight, r->linear_bits_after, 1e-9);
        tt_model_close(m);
        TT_CHECK_OK(tt_compress(ctx, &dry, &predicted, &err));
        TT_CHECK_EQ(predicted->n_layers, 15);
        TT_CHECK_NEAR(predicted->bits_after, r->bits_after, 0.4);
        tt_compress_free_report(predicted);
        tt_compress_free_report(r);
    }
    tt_compress_options o = options("Q8_0", text, "never.gguf");
    o.token_embedding = "rtn(bits=3,importance=true)";                              /* nothing reads the text */
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
    o = options("rtn", text, "never.gguf");
    o.token_embedding = "prompt(tokens=4)";
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
    o.token_embedding = "Q4_9";
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
    o.token_embedding = "Q4_0";
    o.output_tensor = "Q8_0";                                                       /* one matrix, two types */
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
    o.token_embedding = "Q4_K";                                                     /* 32 columns are no block of 256: refused, not replaced */
    o.output_tensor = NULL;
    TT_CHECK_FAILS(TT_TARGET, tt_compress(ctx, &o, NULL, &err));
    TT_CHECK(!file_is_there(o.output));
}

TT_CASE(wrong_usage) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    make_model();
    static const char *const recipes[] = {"Q4_9", "nothing", "prompt(tokens=4)", "", "gptq(bits=3,format=gguf)", "wanda+wanda", "rtn(bits=4)+gptq",
        "autoround", "blockap", "rtn(bits=4)+blockap(bits=4)", "blockap(bits=4)+gptq", "rtn(type=Q5_1)+autoround", "wanda+autoround"};
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        tt_compress_options o = options(recipes[i], text_file(), "never.gguf");
        tt_test_note("%s", recipes[i]);
        TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
        TT_CHECK(!file_is_there(o.output));
    }
    /* what nothing stores is refused before calibration is read */
    tt_compress_options o = options("wanda+rtn(bits=3,format=gguf)", "no such text", "never.gguf");
    TT_CHECK_FAILS(TT_TARGET, tt_compress(ctx, &o, NULL, &err));
    o.recipe = "rtn(type=Q4_K,importance=true)";
    TT_CHECK_FAILS(TT_TARGET, tt_compress(ctx, &o, NULL, &err));
    o = options("rtn", NULL, "there.gguf");
    TT_CHECK_OK(tt_compress(ctx, &o, NULL, &err));
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));                     /* exists */
    o.output = o.model;
    o.force = true;
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));                     /* the model itself */
    o = options("gptq", tt_test_file("short.txt", "a b", 3), "never.gguf");
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
    o = options("gptq", text_file(), "never.gguf");
    o.max_ram = 1000;
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
    o.max_ram = 0;
    o.length = 1 << 20;
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
}

TT_CASE(damaged_weights) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    make_model();
    char *bytes;
    size_t n;
    TT_CHECK_OK(tt__read_file(tt_test_path("model.gguf"), 1 << 24, &bytes, &n, &err));
    tt_gguf *g;
    TT_CHECK_OK(tt__gguf_open_memory(bytes, n, "model", &g, &err));
    float nan = NAN;
    memcpy(bytes + (tt__gguf_find(g, "blk.1.ffn_up.weight")->data - (const uint8_t *)bytes) + 40, &nan, 4);
    tt__gguf_close(g);
    tt_compress_options o = options("rtn(bits=4)", NULL, "nan.gguf");
    o.model = tt_test_file("bad.gguf", bytes, n);
    TT_CHECK_FAILS(TT_BADFILE, tt_compress(ctx, &o, NULL, &err));
    TT_CHECK(strstr(err.where, "blk.1.ffn_up.weight"));
    TT_CHECK(!file_is_there(o.output));
    o.recipe = "gptq";
    o.data = text_file();
    o.force = true;
    TT_CHECK(tt_compress(ctx, &o, NULL, &err) != TT_OK);
    TT_CHECK(!file_is_there(o.output));
    tt__free(bytes);
}

/* ------------------------------------------------------------ the same bytes ---- */

static const char *const resumable[] = {"sparsegpt(bits=4)", "gptq(bits=3,sequential=true)", "gptq(bits=3,correct=qronos)", "gptq(bits=2,correct=gptaq,sequential=true)", "wanda+rtn(bits=4)", "Q4_0",
                                        "gptq(bits=2)+blockap(steps=4,batch=2)"};

TT_CASE(threads_and_memory_do_not_matter) {
    tt_err err = {0};
    tt_ctx *one = tt_test_ctx(1, NULL), *three = tt_test_ctx(3, NULL);
    make_model();
    for (size_t i = 0; i < sizeof resumable / sizeof *resumable; i++) {
        tt_compress_options a = options(resumable[i], NULL, "a.gguf"), b = options(resumable[i], "self", "b.gguf"), c = b;
        tt_test_note("%s", resumable[i]);
        a.force = b.force = c.force = true;
        plain_run(one, &a, NULL);
        plain_run(three, &b, NULL);
        TT_CHECK(same_bytes(a.output, b.output));
        /* the smallest bound that is accepted: inputs one by one, hidden states on disk */
        uint64_t low = 1, high = 1ull << 24;
        while (low + low / 16 + 1 < high) {
            c.max_ram = (low + high) / 2;
            tt_status st = tt_compress(one, &c, NULL, &err);
            TT_CHECK(st == TT_OK || st == TT_USAGE);
            *(st == TT_OK ? &high : &low) = c.max_ram;
        }
        c.max_ram = high;
        plain_run(three, &c, NULL);
        TT_CHECK(same_bytes(a.output, c.output));
    }
}

/* A mark of split files in the path of a whole one says nothing: the hash is that of the file. */
TT_CASE(hash_of_a_file_in_a_strange_place) {
    static const char *const places[] = {"model.gguf", "box-of-00001-of-models/m.gguf", "king-00001-of-00002-x.gguf", "best-model-of-all.gguf"};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    char want[65], got[65];
    char *bytes;
    size_t n;
    make_model();
    TT_CHECK_OK(tt__read_file(tt_test_path("model.gguf"), 1 << 24, &bytes, &n, &err));
    tt__sha256_hex(bytes, n, want);
    TT_CHECK_OK(tt__mkdirs(tt_test_path("box-of-00001-of-models"), &err));
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        tt_model *m;
        tt_test_note("%s", places[i]);
        TT_CHECK_OK(tt_model_open(ctx, tt_test_file(places[i], bytes, n), NULL, &m, &err));
        TT_CHECK_OK(tt_model_sha256(m, got, &err));
        TT_CHECK_STR(got, want);
        tt_model_close(m);
    }
    tt__free(bytes);
}

/* Cancelled after a delay that grows from 0 to the length of a run; the repeated call goes on. */
typedef struct cancel_later { tt_ctx *ctx; double seconds; } cancel_later;
static void *cancel_thread(void *arg) {
    cancel_later *c = arg;
    usleep((useconds_t)(c->seconds * 1e6));
    tt_ctx_cancel(c->ctx, TT_INTERRUPTED);
    return NULL;
}

TT_CASE(cancelled_and_repeated) {
    tt_err err = {0};
    make_model();
    tt_compress_options whole = options("sparsegpt(bits=4)", "self", "whole.gguf"), o = options("sparsegpt(bits=4)", "self", "cut.gguf");
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tt_compress_report *r;
    whole.force = true;
    plain_run(ctx, &whole, &r);
    double seconds = r->seconds;
    int cut = 0;
    tt_compress_free_report(r);
    for (int k = 0; k < 24; k++) {
        cancel_later c = {.seconds = seconds * k / 24};
        tt_ctx_options co = tt_ctx_default_options();
        pthread_t thread;
        co.threads = 1;
        TT_CHECK_OK(tt_ctx_create(&co, &c.ctx, &err));
        TT_CHECK_EQ(pthread_create(&thread, NULL, cancel_thread, &c), 0);
        tt_status st = tt_compress(c.ctx, &o, NULL, &err);
        pthread_join(thread, NULL);
        tt_ctx_free(c.ctx);
        tt_test_note("cancelled after %.3f of %.3f s", c.seconds, seconds);
        TT_CHECK(st == TT_OK || st == TT_INTERRUPTED);
        if (st == TT_INTERRUPTED) {
            cut++;
            TT_CHECK(!file_is_there(o.output));
            plain_run(ctx, &o, NULL);
        }
        TT_CHECK(same_bytes(whole.output, o.output));
        unlink(o.output);
    }
    TT_CHECK(cut > 4);
}

/* SIGKILL at the k-th write of a run that saves after every step; the same call again and again until it is through. */
static tt_status killed_run(const tt_compress_options *o, uint64_t k) {
    pid_t child = fork();
    TT_CHECK(child >= 0);
    if (child == 0) {
        tt_ctx_options co = tt_ctx_default_options();
        tt_ctx *ctx = NULL;
        tt_err err = {0};
        co.threads = 1;
        if (tt_ctx_create(&co, &ctx, &err) != TT_OK) _exit(99);
        tt__fault_set(TT_FAULT_WRITE, k, TT_FAULT_KILL);
        _exit((int)tt__compress(ctx, o, 0, NULL, &err));
    }
    int status;
    TT_CHECK_EQ(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) return TT_TERMINATED;
    TT_CHECK(WIFEXITED(status));
    return (tt_status)WEXITSTATUS(status);
}

TT_CASE(killed_at_any_write) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    make_model();
    for (int self = 0; self < 2; self++)
        for (int small = 0; small < 2; small++) {
            const char *trained = small ? "gptq(bits=3,sequential=true)+blockap(steps=3)+autoround(steps=3)" : "sparsegpt+blockap(bits=4,steps=5,batch=2)";
            const char *recipe = self == small ? trained : small ? "gptq(bits=3,sequential=true)" : "gptq(bits=3)";
            tt_compress_options whole = options(recipe, self ? "self" : text_file(), "whole.gguf"), o = whole;
            o.output = tt_test_path("killed.gguf");
            whole.force = true;
            whole.length = o.length = 6;
            whole.samples = o.samples = 400;                                         /* two batches */
            if (self) whole.samples = o.samples = 12;
            if (small) o.max_ram = whole.max_ram = recipe == trained ? 9 << 20 : 6 << 20;
            else o.token_embedding = whole.token_embedding = "gptq(bits=4,group=32,format=own)";
            plain_run(ctx, &whole, NULL);
            int runs = 0;
            for (uint64_t k = 24; k < 200; k = k * 5 / 2) {                          /* a save takes up to 20 writes */
                tt_status st;
                unlink(o.output);
                while ((st = killed_run(&o, k)) == TT_TERMINATED) TT_CHECK(++runs < 500);
                tt_test_note("killed at write %llu, self %d, small %d", (unsigned long long)k, self, small);
                TT_CHECK_EQ(st, TT_OK);
                TT_CHECK(same_bytes(whole.output, o.output));
            }
            TT_CHECK(runs > 10);
        }
}

TT_CASE(one_at_a_time) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(1, NULL);
    make_model();
    tt_compress_options o = options("rtn(bits=4)", NULL, "locked.gguf");
    char lock[512];
    int fd = -1;
    snprintf(lock, sizeof lock, "%s.state.lock", o.output);
    TT_CHECK_OK(tt__lock_take(lock, &fd, &err));
    TT_CHECK(fd >= 0);
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
    TT_CHECK(strstr(err.what, "another process"));
    tt__lock_drop(lock, fd);
    plain_run(ctx, &o, NULL);
    TT_CHECK(!file_is_there(lock));
}

TT_CASE(foreign_and_damaged_states) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    make_model();
    const char *text = text_file();
    tt_compress_options whole = options("sparsegpt(bits=4)", text, "whole.gguf");
    plain_run(ctx, &whole, NULL);
    static const char *const files[] = {"state.json", "ops.0", "hidden.1.0"};
    for (size_t i = 0; i < 2 * sizeof files / sizeof *files + 1; i++) {
        tt_compress_options o = options(i ? "sparsegpt(bits=4)" : "sparsegpt(bits=3)", text, "other.gguf");
        char path[512];
        TT_CHECK_EQ(killed_run(&o, 75), TT_TERMINATED);                              /* in the second layer */
        if (i) {
            const char *file = files[(i - 1) / 2];
            snprintf(path, sizeof path, "%s.state/%s", o.output, file);
            tt_test_note("%s", file);
            if (!file_is_there(path)) continue;
            if (i % 2) TT_CHECK_EQ(unlink(path), 0);
            else TT_CHECK_OK(tt__write_file(path, "{}", 2, &err));
        }
        o.recipe = whole.recipe;
        plain_run(ctx, &o, NULL);
        TT_CHECK(same_bytes(whole.output, o.output));
        unlink(o.output);
    }
    /* a state folder that is somebody else's keeps what is in it */
    tt_compress_options o = options("rtn", NULL, "mine.gguf");
    o.state = tt_test_tmpdir();
    TT_CHECK_OK(tt_compress(ctx, &o, NULL, &err));
    TT_CHECK(file_is_there(whole.output));
}

/* Every allocation, open, read, write, sync and rename that fails: an error, no output, nothing left in memory; afterwards all is well. */
typedef struct faulty { tt_compress_options o; double save; } faulty;
static tt_status faulty_run(void *arg, tt_err *err) {
    faulty *f = arg;
    tt_ctx_options co = tt_ctx_default_options();
    tt_ctx *ctx = NULL;
    co.threads = 1;
    TT_TRY(tt_ctx_create(&co, &ctx, err));
    tt_status st = tt__compress(ctx, &f->o, f->save, NULL, err);
    tt_ctx_free(ctx);
    return st;
}

TT_CASE(faults) {
    static const tt__fault_kind kinds[] = {TT_FAULT_ALLOC, TT_FAULT_WRITE, TT_FAULT_RENAME, TT_FAULT_FSYNC, TT_FAULT_OPEN, TT_FAULT_MMAP};
    make_model();
    faulty f = {options("sparsegpt(bits=4)", text_file(), "fault.gguf"), 1e9};
    f.o.samples = 2;
    f.o.length = 8;
    f.o.force = true;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) tt_test_fault_loop(kinds[i], TT_FAULT_ONCE, faulty_run, &f);
    f.save = 0;                                                                       /* a state after every step: only its own doors */
    tt_test_fault_loop(TT_FAULT_RENAME, TT_FAULT_ONCE, faulty_run, &f);
}

/* ------------------------------------------------------------ under a target ---- */

static char *metadata(const char *path, const char *key) {
    tt_err err = {0};
    tt_gguf *g;
    const char *text;
    size_t n;
    char *out = NULL;
    TT_CHECK_OK(tt__gguf_open(path, &g, &err));
    if (tt__gguf_has(g, key)) {
        TT_CHECK_OK(tt__gguf_str(g, key, true, &text, &n, &err));
        out = tt__alloc(n + 1);
        memcpy(out, text, n);
        out[n] = 0;
    }
    tt__gguf_close(g);
    return out;
}

/* The target holds, nothing worse than the uniform form is shipped, everything is cleaned up, and the file says what got what. */
TT_CASE(target) {
    static const struct { double bpw; const char *recipe, *embedding; } cases[] = {
        {0, "gptq", "rtn(bits=4,group=32,format=own)"}, {6.2, "gptq(act_order=false)", "rtn(bits=8,format=own)"}, {6.5, "rtn(sym=false)", "Q8_0"}};
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    make_model();
    const char *text = text_file();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tt_compress_options o = options(cases[i].recipe, text, "out.gguf");
        tt_compress_report *r;
        tt_test_note("%s at %g", cases[i].recipe, cases[i].bpw);
        o.force = true;
        o.token_embedding = cases[i].embedding;
        o.target_bpw = cases[i].bpw;
        if (!cases[i].bpw) o.target_bytes = 36000;
        plain_run(ctx, &o, &r);
        TT_CHECK_EQ(r->n_layers, 15);
        if (o.target_bytes) TT_CHECK(r->file_bytes <= o.target_bytes);
        else TT_CHECK(r->bits_after <= o.target_bpw);
        if (r->mixed) TT_CHECK(r->mix_loss <= r->uniform_loss);
        char *a = metadata(o.output, "trimtab.allocation");
        TT_CHECK(a && strstr(a, "bits=") && strstr(a, "blk.1.ffn_down"));
        tt__free(a);
        tt_compress_free_report(r);
    }
    tt_compress_options o = options("gptq", text, "never.gguf");
    o.target_bpw = 4;
    o.target_bytes = 10000;
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));                     /* two targets */
    o.target_bytes = 0;
    o.recipe = "Q4_0";
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));                     /* no family */
    o.recipe = "wanda+gptq";
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
    o.recipe = "gptq";
    o.data = "self";
    TT_CHECK_FAILS(TT_USAGE, tt_compress(ctx, &o, NULL, &err));
    TT_CHECK(!file_is_there(o.output));
}

/* Less than the smallest form: exit code 3, the nearest written and reported. */
TT_CASE(target_out_of_reach) {
    tt_err err = {0};
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    tt_compress_report *r = NULL;
    make_model();
    tt_compress_options o = options("gptq", text_file(), "nearest.gguf");
    o.target_bpw = 1;
    TT_CHECK_FAILS(TT_TARGET, tt_compress(ctx, &o, &r, &err));
    TT_CHECK(r && file_is_there(o.output) && r->bits_after > 1 && !r->mixed);
    for (size_t l = 0; l < r->n_layers; l++) TT_CHECK_STR(r->layers[l].type, "group(bits=2,group=128)");
    tt_compress_free_report(r);
    TT_CHECK(!file_is_there(tt_test_path("nearest.gguf.state")));
}

/* Killed at any write, in any of its parts: the same call goes on and ends with the same bytes. */
TT_CASE(target_killed_at_any_write) {
    tt_ctx *ctx = tt_test_ctx(2, NULL);
    make_model();
    tt_compress_options whole = options("gptq", text_file(), "whole.gguf"), o;
    whole.target_bpw = 14;
    whole.force = true;
    o = whole;
    o.output = tt_test_path("killed.gguf");
    plain_run(ctx, &whole, NULL);
    for (uint64_t k = 24; k < 200; k = k * 3) {
        tt_status st;
        int runs = 0;
        unlink(o.output);
        while ((st = killed_run(&o, k)) == TT_TERMINATED) TT_CHECK(++runs < 500);
        tt_test_note("killed at write %llu", (unsigned long long)k);
        TT_CHECK_EQ(st, TT_OK);
        TT_CHECK(same_bytes(whole.output, o.output));
    }
}
