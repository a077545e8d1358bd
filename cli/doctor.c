/* trimtab doctor: what this machine is, what of it is used, where things lie. */
#include "cli.h"
#include <string.h>

typedef struct checkup {
    tt_machine_info m;
    char *hub, *catalogue;
    size_t cached, present;
} checkup;

static tt_status look(cli *c, checkup *k, tt_err *err) {
    tt_cache_list *list = NULL;
    k->m.size = sizeof k->m;
    tt_status st = tt_machine_get_info(c->ctx, true, &k->m, err);
    if (st == TT_OK) st = tt_cache_get_folders(c->ctx, &k->hub, &k->catalogue, err);
    if (st == TT_OK) st = tt_cache_get_list(c->ctx, &list, err);
    for (size_t i = 0; st == TT_OK && i < list->n; i++) k->present += list->items[i].present;
    if (list) k->cached = list->n;
    tt_cache_free_list(list);
    return st;
}

static int report_json(const cli *c, const checkup *k) {
    json_t *o = json_pack("{s:s, s:o, s:o, s:o, s:i, s:i}", "version", tt_version(), "cpu", j_text(k->m.cpu), "isa", j_text(k->m.isa), "features", j_text(k->m.features),
                          "cores", k->m.cores, "threads", k->m.threads);
    json_object_set_new(o, "ram_bytes", json_integer((json_int_t)k->m.ram_bytes));
    json_object_set_new(o, "ram_free", json_integer((json_int_t)k->m.ram_free));
    json_object_set_new(o, "read_gb_s", j_real(k->m.read_gb_s));
    json_object_set_new(o, "hub_cache", j_text(k->hub));
    json_object_set_new(o, "catalogue_cache", j_text(k->catalogue));
    json_object_set_new(o, "models_present", json_integer((json_int_t)k->present));
    json_object_set_new(o, "methods", json_integer((json_int_t)tt_method_count()));
    return print_json(c, o);
}

static int report_text(const checkup *k) {
    char a[32], b[32];
    print_version();
    printf("%-18s %s\n%-18s %d usable, %d threads\n", "processor", k->m.cpu, "cores", k->m.cores, k->m.threads);
    printf("%-18s %s, of: %s\n", "instruction set", k->m.isa, k->m.features);
    printf("%-18s %s, %s free, %.1f GB/s read\n", "memory", text_bytes(k->m.ram_bytes, a), text_bytes(k->m.ram_free, b), k->m.read_gb_s);
    printf("%-18s %s\n%-18s %s\n", "hub cache", k->hub, "catalogue cache", k->catalogue);
    printf("%-18s %zu present\n", "models", k->present);
    if (k->m.read_gb_s > 0) printf("%-18s a model of 100 MiB cannot generate faster than %.0f tokens per second here: each token reads all weights\n", "bound", k->m.read_gb_s * 1e9 / (100 << 20));
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
    tt_free(k.hub);
    tt_free(k.catalogue);
    return code;
}
