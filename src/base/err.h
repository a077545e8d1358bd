/* How the library fails: fill the caller's tt_err, return the status. See include/trimtab/status.h.
 *
 *     TT_FAIL_IF(n > TT_LIMIT_X, err, TT_BADFILE, "too many tensors|%s|%zu|at most %d|is this file damaged?", path, n, TT_LIMIT_X);
 *     TT_TRY(tt__map_open(ctx, path, &map, err));
 *
 * The format has up to five fields divided by '|': what | where | got | expected | hint. Later fields may be left out. Arguments
 * may hold any bytes: control bytes are escaped, a '|' in an argument is not a divider.
 */
#ifndef TT_BASE_ERR_H
#define TT_BASE_ERR_H

#include "trimtab/status.h"

/* Returns `status`. err may be NULL. */
tt_status tt__fail(tt_err *err, tt_status status, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));

/* The value is the status passed in, so that the compiler sees that a failing path never goes on. */
#define tt__fail(err, status, ...)                                  \
    __extension__({                                                 \
        const tt_status tt_fail_status_ = (tt_status)(status);      \
        (void)(tt__fail)((err), tt_fail_status_, __VA_ARGS__);      \
        tt_fail_status_;                                            \
    })

/* Prefixes err->where with "prefix: " (for callers that know the file or the tensor). Returns `status`. */
tt_status tt__err_at(tt_err *err, tt_status status, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));

/* text[0..n) into out as printable UTF-8: control bytes, broken sequences and line-reordering marks escaped, cut with "…". */
void tt__escape(char *out, size_t cap, const char *text, size_t n);

#define TT_FAIL_IF(cond, err, status, ...)                          \
    do {                                                            \
        if (__builtin_expect(!!(cond), 0)) return tt__fail((err), (status), __VA_ARGS__); \
    } while (0)

#define TT_TRY(call)                                                \
    do {                                                            \
        tt_status tt_try_status_ = (call);                          \
        if (__builtin_expect(tt_try_status_ != TT_OK, 0)) return tt_try_status_; \
    } while (0)

/* The same for functions with one cleanup exit: sets `st` and jumps to `done`. */
#define TT_TRY_GOTO(call)                                           \
    do {                                                            \
        st = (call);                                                \
        if (__builtin_expect(st != TT_OK, 0)) goto done;            \
    } while (0)

#endif
