/* Fault injection; see fault.h. Off, a door costs one relaxed load of `armed`. Counters run only while armed: to count the calls of
 * a piece of work, arm a k that is never reached (UINT64_MAX). */
#include "base/fault.h"

#include "base/env.h"
#include "base/err.h"
#include "base/util.h"
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static const char *const kind_names[TT_FAULT_KINDS] = {"alloc", "open", "read", "write", "fsync", "rename", "close", "mmap", "thread", "loss"};
static const char *const mode_names[] = {[TT_FAULT_OFF] = "off", [TT_FAULT_ONCE] = "once", [TT_FAULT_ON] = "on", [TT_FAULT_KILL] = "kill"};

static atomic_int armed;                                  /* mode, TT_FAULT_OFF: nothing below is read */
static atomic_int armed_kind;
static atomic_uint_least64_t armed_k, counts[TT_FAULT_KINDS];
static atomic_bool fired;

bool tt__fault(tt__fault_kind kind) {
    int mode = atomic_load_explicit(&armed, memory_order_relaxed);
    if (__builtin_expect(mode == TT_FAULT_OFF, 1)) return false;
    uint64_t n = atomic_fetch_add(&counts[kind], 1) + 1, k = atomic_load(&armed_k);
    if ((int)kind != atomic_load(&armed_kind) || n < k || (mode == TT_FAULT_ONCE && n != k)) return false;
    atomic_store(&fired, true);
    if (mode == TT_FAULT_KILL) {
        kill(getpid(), SIGKILL);
        for (;;) pause();                                  /* the signal may take a moment when another thread runs */
    }
    return true;
}

void tt__fault_set(tt__fault_kind kind, uint64_t k, tt__fault_mode mode) {
    atomic_store(&armed, TT_FAULT_OFF);
    for (int i = 0; i < TT_FAULT_KINDS; i++) atomic_store(&counts[i], 0);
    atomic_store(&fired, false);
    atomic_store(&armed_kind, (int)kind);
    atomic_store(&armed_k, k);
    atomic_store(&armed, (int)mode);
}

uint64_t tt__fault_count(tt__fault_kind kind) { return atomic_load(&counts[kind]); }
bool tt__fault_fired(void) { return atomic_load(&fired); }

static int index_of(const char *const *names, int n, const char *s, size_t len) {
    for (int i = 0; i < n; i++)
        if (strlen(names[i]) == len && memcmp(names[i], s, len) == 0) return i;
    return -1;
}

tt_status tt__fault_parse(const char *text, tt__fault_kind *kind, uint64_t *k, tt__fault_mode *mode, tt_err *err) {
    const char *a = strchr(text, ':'), *b = a ? strchr(a + 1, ':') : NULL;
    char number[24];
    int64_t value = 0;
    int which = a ? index_of(kind_names, TT_FAULT_KINDS, text, (size_t)(a - text)) : -1;
    int how = b ? index_of(mode_names, 4, b + 1, strlen(b + 1)) : -1;
    bool ok = which >= 0 && how > 0 && (size_t)(b - a - 1) < sizeof number;
    if (ok) {
        memcpy(number, a + 1, (size_t)(b - a - 1));
        number[b - a - 1] = 0;
        ok = tt__parse_i64(number, &value) && value > 0;
    }
    TT_FAIL_IF(!ok, err, TT_USAGE, "bad fault|TT_FAULT|%s|kind:number:once, :on or :kill|kinds: alloc open read write fsync rename close mmap thread loss",
               text);
    *kind = (tt__fault_kind)which;
    *k = (uint64_t)value;
    *mode = (tt__fault_mode)how;
    return TT_OK;
}

/* A library has no start of its own, hence the constructor. A text that does not parse arms nothing here; tt__ctx_init reports it. */
__attribute__((constructor)) static void arm_from_environment(void) {
    const char *text = tt__env(TT_ENV_FAULT);
    tt__fault_kind kind;
    tt__fault_mode mode;
    uint64_t k;
    if (text && tt__fault_parse(text, &kind, &k, &mode, NULL) == TT_OK) tt__fault_set(kind, k, mode);
}
