/* The test harness. A test program is a list of cases; main is in tt_test.c.
 *
 *     #include "harness/tt_test.h"
 *     TT_CASE(add) {
 *         TT_CHECK_EQ(1 + 1, 2);
 *     }
 *
 * One line per case, and as the last line "N passed, N failed, N skipped"; exit code 1 when a case failed. Arguments are parts of
 * case names: only those run ("-l" lists). A failed check ends its case, so a check may guard what follows.
 */
#ifndef TT_TEST_H
#define TT_TEST_H

#include "base/ctx.h"
#include "base/fault.h"
#include "base/mem.h"
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

typedef struct tt_test_case { const char *name, *file; void (*run)(void); struct tt_test_case *next; } tt_test_case;
void tt_test_add(tt_test_case *c);

#define TT_CASE(name_)                                                                              \
    static void tt_case_##name_(void);                                                              \
    __attribute__((constructor)) static void tt_add_##name_(void) {                                 \
        static tt_test_case c = {#name_, __FILE__, tt_case_##name_, NULL};                          \
        tt_test_add(&c);                                                                            \
    }                                                                                               \
    static void tt_case_##name_(void)

/* Ends the case. */
_Noreturn void tt_test_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void tt_test_skip(const char *why);
/* Context for failure messages of the running case: "shape 3x65, seed 7"; cleared when the case ends. */
void tt_test_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define TT_CHECK(cond)                                                                              \
    do {                                                                                            \
        if (!(cond)) tt_test_fail(__FILE__, __LINE__, "%s", #cond);                                 \
    } while (0)

/* Integers of any width and sign; compared as such. */
#define TT_CHECK_EQ(a, b)                                                                           \
    do {                                                                                            \
        __typeof__(a) tt_a_ = (a);                                                                  \
        __typeof__(b) tt_b_ = (b);                                                                  \
        if (!(tt_a_ == (__typeof__(a))tt_b_ && (__typeof__(b))tt_a_ == tt_b_))                                                      \
            tt_test_fail(__FILE__, __LINE__, "%s == %s: %lld and %lld", #a, #b, (long long)tt_a_, (long long)tt_b_); \
    } while (0)

#define TT_CHECK_NEAR(a, b, tol)                                                                    \
    do {                                                                                            \
        double tt_a_ = (double)(a), tt_b_ = (double)(b), tt_t_ = (double)(tol);                     \
        if (!(fabs(tt_a_ - tt_b_) <= tt_t_))                                                        \
            tt_test_fail(__FILE__, __LINE__, "%s near %s: %.9g and %.9g differ by %.3g, allowed %.3g", #a, #b, tt_a_, tt_b_,  \
                         fabs(tt_a_ - tt_b_), tt_t_);                                               \
    } while (0)

#define TT_CHECK_STR(a, b)                                                                          \
    do {                                                                                            \
        const char *tt_a_ = (a), *tt_b_ = (b);                                                      \
        if (!tt_a_ || !tt_b_ || strcmp(tt_a_, tt_b_) != 0)                                          \
            tt_test_fail(__FILE__, __LINE__, "%s is \"%s\", expected \"%s\"", #a, tt_a_ ? tt_a_ : "(null)", tt_b_ ? tt_b_ : "(null)"); \
    } while (0)

/* A call that has to succeed, or has to fail with a status; shows the error line otherwise. `err` is a tt_err in scope. */
#define TT_CHECK_OK(call)                                                                           \
    do {                                                                                            \
        tt_status tt_s_ = (call);                                                                   \
        if (tt_s_ != TT_OK) tt_test_fail(__FILE__, __LINE__, "%s: %s", #call, tt_test_err_line(tt_s_, &err)); \
    } while (0)
#define TT_CHECK_FAILS(status_, call)                                                               \
    do {                                                                                            \
        tt_status tt_s_ = (call);                                                                   \
        if (tt_s_ != (status_)) tt_test_fail(__FILE__, __LINE__, "%s: %s, expected %s", #call, tt_test_err_line(tt_s_, &err), #status_); \
        if (err.status != (status_) || !err.what[0]) tt_test_fail(__FILE__, __LINE__, "%s: error record not filled", #call); \
    } while (0)
const char *tt_test_err_line(tt_status status, const tt_err *err);

#define TT_SKIP(why) tt_test_skip(why)

/* A context of this many threads; isa NULL: the best. Freed when the case ends. In programs without the kernels layer its table is
 * NULL. A level that the machine lacks skips the case. */
tt_ctx *tt_test_ctx(int threads, const char *isa);
/* A fresh empty folder, removed when the case ends. */
const char *tt_test_tmpdir(void);
/* "FOLDER/name" in the folder of this case; freed when the case ends. */
const char *tt_test_path(const char *name);
/* A file of these bytes in it; its path. */
const char *tt_test_file(const char *name, const void *data, size_t bytes);
/* The real model (a GGUF file) in the cache; without it the case is skipped, or fails under TRIMTAB_REQUIRE_MODEL=1. Never NULL. */
const char *tt_test_model(void);
/* Files and folders in a folder, "." and ".." not counted; -1 when it cannot be read. */
int tt_test_count_entries(const char *dir);

/* Makes the k-th call of `kind` fail, k = 1, 2, 3 … until a run passes without the fault firing; `body` must return TT_OK or a failure and
 * leave nothing behind: the bytes handed out by base/mem.h are compared. Returns the number of runs. Modes once and on. */
typedef tt_status (*tt_test_body)(void *arg, tt_err *err);
uint64_t tt_test_fault_loop(tt__fault_kind kind, tt__fault_mode mode, tt_test_body body, void *arg);

#endif
