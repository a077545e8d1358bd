/* Choosing the kernel table: reference first, then each instruction set that this machine has overrides what it does better. */
#include "base/err.h"
#include "kernels/isa.h"
#include <pthread.h>
#include <string.h>

enum { LEVELS = 3 };
static tt_kernels tables[LEVELS];
static const char *names[LEVELS + 1];      /* the levels this machine runs, best last */
static int count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_ref(tt_kernels *k) {
    k->isa = "scalar";
    tt__kernels_ref_elementwise(k);
    tt__kernels_ref_tiles(k);
    tt__kernels_ref_blocks(k);
    tt__kernels_ref_codes(k);
}

static void add_level(const char *name, const tt_kernels *table) {
    tables[count] = *table;
    names[count++] = name;
}

static void fill_tables(void) {
    tt_kernels k;
    memset(&k, 0, sizeof k);
    fill_ref(&k);
    add_level("scalar", &k);
}

tt_status tt__kernels_get(const char *isa, const tt_kernels **out, tt_err *err) {
    pthread_once(&once, fill_tables);
    for (int i = count - 1; i >= 0; i--)
        if (!isa || !strcmp(isa, names[i])) {
            *out = &tables[i];
            return TT_OK;
        }
    const int known = !strcmp(isa, "avx2") || !strcmp(isa, "avx512");
    return tt__fail(err, TT_USAGE, "%s|isa|%s|scalar, avx2 or avx512|the best level here is %s",
                    known ? "this machine lacks the instruction set" : "unknown instruction set", isa, names[count - 1]);
}

const char *const *tt__kernels_levels(void) {
    pthread_once(&once, fill_tables);
    return names;
}
