/* The thread pool of a context: spin briefly, then park on a futex. Work is a number of tiles; which worker takes a tile never
 * changes the result, because a tile writes only its own outputs and sums are split by tile, not by thread (DESIGN 5, Determinism).
 */
#ifndef TT_BASE_THREAD_H
#define TT_BASE_THREAD_H
#include "trimtab/status.h"
#include <stdint.h>
typedef struct tt__pool tt__pool;
typedef void (*tt__tile_fn)(void *arg, int64_t tile, int worker);
tt_status tt__pool_create(int threads, tt__pool **out, tt_err *err);   /* threads counts the caller; 1 makes no thread */
void tt__pool_free(tt__pool *pool);
int tt__pool_threads(const tt__pool *pool);
/* How many of them work at the same time: at first no more than there are usable cores. Tests ask for more. */
void tt__pool_at_once(tt__pool *pool, int most);
/* Runs fn for tile 0 … tiles-1 and returns when all are done. Every worker has a range of neighbouring tiles, and
 * takes from the others' when its own is done. At most 2^32 - 1 tiles. Not reentrant: called from inside a tile it runs them on the spot. Never fails. */
void tt__pool_run(tt__pool *pool, int64_t tiles, tt__tile_fn fn, void *arg);
/* Cores this process may use: affinity mask and cgroup quota, at least 1. */
int tt__cpus_usable(void);
/* The quota alone, rounded up, 0 when there is none: the groups named in `proc_cgroup` under `sys_root`. Apart for tests. */
int tt__cgroup_cpus(const char *proc_cgroup, const char *sys_root);
#endif
