/* Choosing the kernel table: reference first, then each instruction set that this machine has overrides what it does better. */
#include "base/err.h"
#include "kernels/isa.h"
#include <pthread.h>
#include <string.h>

enum { LEVELS = 4 };
static tt_kernels tables[LEVELS];
static const char *names[LEVELS + 1];      /* the levels this machine runs, best last */
static int count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_ref(tt_kernels *k) {
    k->isa = "scalar";
    tt__kernels_ref_elementwise(k);
    tt__kernels_ref_tiles(k);
    tt__kernels_ref_bf16(k);
    tt__kernels_ref_attention(k);
    tt__kernels_ref_blocks(k);
    tt__kernels_ref_codes(k);
    tt__kernels_ref_slide2(k);
    tt__kernels_ref_bitmask(k);
    tt__kernels_ref_panel(k);
    tt__kernels_ref_super(k);
    tt__kernels_ref_float_panel(k);
    tt__kernels_ref_batch(k);
    tt__kernels_ref_trellis(k);
    tt__kernels_ref_hadamard(k);
}

static void add_level(const char *name, const tt_kernels *table) {
    tables[count] = *table;
    names[count++] = name;
}

#if defined(__x86_64__)
#include <cpuid.h>

/* __builtin_cpu_supports also asks whether the system saves the registers; F16C it does not know everywhere. */
static int has_avx2(void) {
    unsigned a, b, c = 0, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static int has_vnni(void) {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
}

static void add_machine_levels(tt_kernels *k) {
    __builtin_cpu_init();
    if (!has_avx2()) return;
    k->isa = "avx2";
    k->bf16 = 0;
    tt__kernels_avx2_elementwise(k);
    tt__kernels_avx2_tiles(k);
    tt__kernels_avx2_attention(k);
    tt__kernels_avx2_decode(k);
    tt__kernels_avx2_rowdot(k);
    tt__kernels_avx2_slide2(k);
    tt__kernels_avx2_bitmask(k);
    tt__kernels_avx2_batch(k);
    tt__kernels_avx2_panel(k);
    tt__kernels_avx2_super(k);
    tt__kernels_avx2_super_batch(k);
    tt__kernels_avx2_float_panel(k);
    tt__kernels_avx2_trellis(k);
    tt__kernels_avx2_hadamard(k);
    add_level("avx2", k);
    if (!has_avx512()) return;
    k->isa = "avx512";
    tt__kernels_avx512_elementwise(k);
    tt__kernels_avx512_tiles(k);
    tt__kernels_avx512_attention(k);
    tt__kernels_avx512_decode(k);
    tt__kernels_avx512_panel(k);
    tt__kernels_avx512_float_panel(k);
    tt__kernels_avx512_trellis(k);
    tt__kernels_avx512_hadamard(k);
    if (has_vnni()) {
        k->isa = "avx512-vnni";
        tt__kernels_avx512_rowdot_vnni(k);
        tt__kernels_avx512_codes_vnni(k);
        tt__kernels_avx512_slide2_vnni(k);
        tt__kernels_avx512_bitmask_vnni(k);
        tt__kernels_avx512_batch_vnni(k);
        tt__kernels_avx512_panel_vnni(k);
        tt__kernels_avx512_super_vnni(k);
        tt__kernels_avx512_super_batch_vnni(k);
    }
    if (__builtin_cpu_supports("avx512bf16")) {
        tt__kernels_avx512_tile_bf16(k);
        tt__kernels_avx512_attention_bf16(k);
    }
    add_level("avx512", k);
}
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

/* NEON is part of the base instruction set; i8mm is taken for a step beyond dotprod, as it is on every machine that has it. */
static void add_machine_levels(tt_kernels *k) {
    k->isa = "neon";
    k->bf16 = 0;
    k->super = 0;
    tt__kernels_neon_elementwise(k);
    tt__kernels_neon_tiles(k);
    tt__kernels_neon_attention(k);
    tt__kernels_neon_decode(k);
    tt__kernels_neon_rowdot(k);
    tt__kernels_neon_slide2(k);
    tt__kernels_neon_bitmask(k);
    tt__kernels_neon_panel(k);
    tt__kernels_neon_float_panel(k);
    tt__kernels_neon_batch(k);
    add_level("neon", k);
    if (!(getauxval(AT_HWCAP) & HWCAP_ASIMDDP)) return;
    k->isa = "neon-dotprod";
    tt__kernels_neon_dotprod_rowdot(k);
    tt__kernels_neon_dotprod_slide2(k);
    tt__kernels_neon_dotprod_bitmask(k);
    tt__kernels_neon_dotprod_panel(k);
    tt__kernels_neon_dotprod_batch(k);
    add_level("neon-dotprod", k);
    if (!(getauxval(AT_HWCAP2) & HWCAP2_I8MM)) return;
    k->isa = "neon-i8mm";
    tt__kernels_neon_i8mm_batch(k);
    add_level("neon-i8mm", k);
}
#else
static void add_machine_levels(tt_kernels *k) { (void)k; }
#endif

/* All that a machine of any kind may have, and what one of this kind may be asked for. */
static const char *const levels[] = {"avx2", "avx512", "neon", "neon-dotprod", "neon-i8mm"};
#ifdef __aarch64__
#define EXPECTED "scalar, neon, neon-dotprod or neon-i8mm"
#else
#define EXPECTED "scalar, avx2 or avx512"
#endif

static void fill_tables(void) {
    tt_kernels k;
    memset(&k, 0, sizeof k);
    fill_ref(&k);
    add_level("scalar", &k);
    add_machine_levels(&k);
}

tt_status tt__kernels_get(const char *isa, const tt_kernels **out, tt_err *err) {
    pthread_once(&once, fill_tables);
    for (int i = count - 1; i >= 0; i--)
        if (!isa || !strcmp(isa, names[i])) {
            *out = &tables[i];
            return TT_OK;
        }
    int known = 0;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) known |= !strcmp(isa, levels[i]);
    return tt__fail(err, TT_USAGE, "%s|isa|%s|" EXPECTED "|the best level here is %s",
                    known ? "this machine lacks the instruction set" : "unknown instruction set", isa, names[count - 1]);
}

const char *const *tt__kernels_levels(void) {
    pthread_once(&once, fill_tables);
    return names;
}
