/* Status codes and the error record: the one way in which Trimtab reports failure.
 *
 * Every function that can fail returns a `tt_status`; 0 is success. The numbers are also the exit codes of the program, so that a
 * script, a C caller and a log line name the same thing. A caller that wants to know more passes a `tt_err`, which it owns, and
 * which is filled with five short texts: what failed, where, what was got, what was expected, and a hint.
 */
#ifndef TRIMTAB_STATUS_H
#define TRIMTAB_STATUS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, number, meaning). The numbers are pinned: they are exit codes. */
#define TT_STATUS_LIST(X)                                                     \
    X(TT_OK, 0, "done")                                                       \
    X(TT_FAIL, 1, "failed")                                                   \
    X(TT_USAGE, 2, "wrong usage")                                             \
    X(TT_TARGET, 3, "target not met, or a fallback was refused")              \
    X(TT_BADFILE, 4, "unsupported or damaged file")                           \
    X(TT_MISMATCH, 5, "verification mismatch")                                \
    X(TT_OFFLINE, 6, "needs the network but is offline")                      \
    X(TT_RESOURCE, 7, "out of memory or disk")                                \
    X(TT_INTERRUPTED, 130, "interrupted, state saved")                        \
    X(TT_TERMINATED, 143, "terminated, state saved")

typedef enum tt_status {
#define X(name, number, meaning) name = number,
    TT_STATUS_LIST(X)
#undef X
} tt_status;

/* Filled by a failing call; owned by the caller; every text is NUL-terminated and may be empty. Texts from outside files are
 * escaped (no control bytes). A zero-initialised record is valid. */
typedef struct tt_err {
    tt_status status;
    char what[200];     /* what failed: "bad magic" */
    char where[320];    /* the file, key, tensor, option or offset */
    char got[160];
    char expected[160];
    char hint[240];
} tt_err;

/* The name of a status ("TT_BADFILE") and its meaning; never NULL. */
const char *tt_status_name(tt_status status);
const char *tt_status_meaning(tt_status status);

/* One line "what: where (got …, expected …); hint" into buf of n bytes. Returns buf. */
const char *tt_err_line(const tt_err *err, char *buf, size_t n);

#ifdef __cplusplus
}
#endif
#endif
