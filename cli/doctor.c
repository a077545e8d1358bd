/* trimtab doctor: what this machine is, what of it is used, where things lie. */
#include "cli.h"
#include <string.h>

typedef struct checkup {
    tt_machine_info m;
    char *hub, *catalogue;
    size_t cached, present;
    tt_kernel_table *kernels;    /* --bench-kernels, else NULL */
} checkup;

static tt_status look(cli *c, checkup *k, tt_err *err) {
    tt_cache_list *list = NULL;
    k->m.size = sizeof k->m;
    tt_status st = tt_machine_get_info(c->ctx, true, &k->m, err);
    if (st == TT_OK && opt_b(c, O_bench_kernels)) st = tt_kernels_measure(c->ctx, 0, &k->kernels, err);
    if (st == TT_OK) st = tt_cache_get_folders(c->ctx, &k->hub, &k->catalogue, err);
    if (st == TT_OK) st = tt_cache_get_list(c->ctx, &list, err);
    for (size_t i = 0; st == TT_OK && i < list->n; i++) k->present += list->items[i].present;
    if (list) k->cached = list->n;
    tt_cache_free_list(list);
    return st;
}

static json_t *ceilings_json(const tt_machine_info *m) {
    return json_pack("{s:i, s:o, s:o, s:o, s:o}", "threads", m->threads, "read_gb_s", j_real(m->read_gb_s), "l2_gb_s", j_real(m->l2_gb_s), "fma_gflops", j_real(m->fma_gflops),
                     "dot_gops", j_real(m->dot_gops));
}

static json_t *kernels_json(const tt_kernel_table *t) {
    json_t *rows = json_array();
    for (size_t i = 0; i < t->n; i++) {
        const tt_kernel_rate *r = &t->rows[i];
        const bool streams = r->memory_gb_s > 0;
        json_array_append_new(rows, json_pack("{s:s, s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:o}", "kernel", r->kernel, "variant", r->variant, "seconds", j_real(r->seconds), "gb_s",
                                              j_real(r->gb_s), "gop_s", j_real(r->gop_s), "bound", r->bound, "share", j_real(r->share), "memory_gb_s",
                                              streams ? j_real(r->memory_gb_s) : json_null(), "memory_share", streams ? j_real(r->memory_share) : json_null()));
    }
    return rows;
}

static int report_json(const cli *c, const checkup *k) {
    json_t *o = json_pack("{s:s, s:o, s:o, s:o, s:i, s:i}", "version", tt_version(), "cpu", j_text(k->m.cpu), "isa", j_text(k->m.isa), "features", j_text(k->m.features),
                          "cores", k->m.cores, "threads", k->m.threads);
    json_object_set_new(o, "ram_bytes", json_integer((json_int_t)k->m.ram_bytes));
    json_object_set_new(o, "ram_free", json_integer((json_int_t)k->m.ram_free));
    json_object_set_new(o, "read_gb_s", j_real(k->m.read_gb_s));
    json_object_set_new(o, "l2_gb_s", j_real(k->m.l2_gb_s));
    json_object_set_new(o, "fma_gflops", j_real(k->m.fma_gflops));
    json_object_set_new(o, "dot_gops", j_real(k->m.dot_gops));
    json_object_set_new(o, "hub_cache", j_text(k->hub));
    json_object_set_new(o, "catalogue_cache", j_text(k->catalogue));
    json_object_set_new(o, "models_present", json_integer((json_int_t)k->present));
    json_object_set_new(o, "methods", json_integer((json_int_t)tt_method_count()));
    if (k->kernels) {
        json_object_set_new(o, "ceilings", json_pack("[o, o]", ceilings_json(&k->kernels->one), ceilings_json(&k->kernels->all)));
        json_object_set_new(o, "kernels", kernels_json(k->kernels));
    }
    return print_json(c, o);
}

/* "fma" of a kernel that counts no bytes, and so on: what is nought is left out. */
static void rate_text(double x, char out[16]) {
    out[0] = 0;
    if (x > 0) snprintf(out, 16, x >= 99.95 ? "%.0f" : "%.1f", x);
}

static void kernels_text(const tt_kernel_table *t) {
    printf("\n%-20s %-40s %9s %8s %8s %12s %17s\n", "KERNEL", "", "TIME", "GB/s", "GOP/s", "OF BOUND", "FROM MEMORY");
    for (size_t i = 0; i < t->n; i++) {
        const tt_kernel_rate *r = &t->rows[i];
        char gb[16], gop[16], memory[40] = "", share[40];
        rate_text(r->gb_s, gb);
        rate_text(r->gop_s, gop);
        snprintf(share, sizeof share, "%.0f %% %s", 100 * r->share, r->bound);
        if (r->memory_gb_s > 0) snprintf(memory, sizeof memory, "%.1f GB/s %3.0f %%", r->memory_gb_s, 100 * r->memory_share);
        printf("%-20s %-40s %6.1f us %8s %8s %12s %17s\n", r->kernel, r->variant, 1e6 * r->seconds, gb, gop, share, memory);
    }
    printf("On one thread, operands in the second-level cache, beside %.0f GB/s (l2), %.0f GFLOP/s (fma), %.0f GOP/s (dot); from memory on %d threads beside %.1f GB/s.\n", t->one.l2_gb_s,
           t->one.fma_gflops, t->one.dot_gops, t->all.threads, t->all.read_gb_s);
}

static int report_text(const checkup *k) {
    char a[32], b[32];
    print_version();
    printf("%-18s %s\n%-18s %d usable, %d threads\n", "processor", k->m.cpu, "cores", k->m.cores, k->m.threads);
    printf("%-18s %s, of: %s\n", "instruction set", k->m.isa, k->m.features);
    printf("%-18s %s, %s free, %.1f GB/s read\n", "memory", text_bytes(k->m.ram_bytes, a), text_bytes(k->m.ram_free, b), k->m.read_gb_s);
    printf("%-18s f32 %.0f GFLOP/s, 8 bits %.0f GOP/s, second-level cache %.0f GB/s\n", "ceilings", k->m.fma_gflops, k->m.dot_gops, k->m.l2_gb_s);
    printf("%-18s %s\n%-18s %s\n", "hub cache", k->hub, "catalogue cache", k->catalogue);
    printf("%-18s %zu present\n", "models", k->present);
    if (k->m.read_gb_s > 0) printf("%-18s a model of 100 MiB cannot generate faster than %.0f tokens per second here: each token reads all weights\n", "bound", k->m.read_gb_s * 1e9 / (100 << 20));
    if (k->kernels) kernels_text(k->kernels);
    return 0;
}

int cmd_doctor(cli *c) {
    checkup k = {0};
    tt_err err = {0};
    int code = open_ctx(c);
    if (code) return code;
    tt_status st = look(c, &k, &err);
    if (st == TT_OK) code = json_wanted(c) ? report_json(c, &k) : report_text(&k);
    else code = fail(c, st, &err);
    tt_kernels_free_table(k.kernels);
    tt_free(k.hub);
    tt_free(k.catalogue);
    return code;
}
