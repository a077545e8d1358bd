/* Fault injection: every fallible call of base passes one of these doors, so that a test can make the k-th one fail.
 *
 *     TT_FAULT="alloc:17:once"   the 17th allocation fails          (mode `once`)
 *     TT_FAULT="write:3:on"      from the 3rd write on, all fail    (mode `on`)
 *     TT_FAULT="write:3:kill"    the process gets SIGKILL there     (mode `kill`)
 *
 * Kinds: alloc open read write fsync rename close mmap thread loss (a training loss becomes NaN). The environment variable is read once
 * at start; tests in process use tt__fault_set. Costs one relaxed load when off.
 */
#ifndef TT_BASE_FAULT_H
#define TT_BASE_FAULT_H
#include "trimtab/status.h"
#include <stdbool.h>
#include <stdint.h>
typedef enum tt__fault_kind { TT_FAULT_ALLOC, TT_FAULT_OPEN, TT_FAULT_READ, TT_FAULT_WRITE, TT_FAULT_FSYNC, TT_FAULT_RENAME,
                              TT_FAULT_CLOSE, TT_FAULT_MMAP, TT_FAULT_THREAD, TT_FAULT_LOSS, TT_FAULT_KINDS } tt__fault_kind;
typedef enum tt__fault_mode { TT_FAULT_OFF, TT_FAULT_ONCE, TT_FAULT_ON, TT_FAULT_KILL } tt__fault_mode;
bool tt__fault(tt__fault_kind kind);                                    /* true: fail now */
void tt__fault_set(tt__fault_kind kind, uint64_t k, tt__fault_mode mode); /* also restarts the counters */
uint64_t tt__fault_count(tt__fault_kind kind);                          /* calls of this kind since the last set, while armed */
bool tt__fault_fired(void);
/* Strict: "kind:number:mode" or TT_USAGE. */
tt_status tt__fault_parse(const char *text, tt__fault_kind *kind, uint64_t *k, tt__fault_mode *mode, tt_err *err);
#endif
