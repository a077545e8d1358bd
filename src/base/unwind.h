/* The one way back over many frames at once, for interpreters: a parser or evaluator whose memory lies in one arena may leave from any depth
 * instead of testing a status after every step. Nothing between the two calls may own memory, a file or a lock of its own. Only base/unwind.c
 * calls setjmp.
 *
 *     static void work(void *arg) { …  tt__unwind_leave(&job->way_out);  … }
 *     if (!tt__unwind_run(&job->way_out, work, job)) …      false: it was left early
 */
#ifndef TT_BASE_UNWIND_H
#define TT_BASE_UNWIND_H
#include <setjmp.h>
#include <stdbool.h>
typedef struct tt__unwind { jmp_buf at; } tt__unwind;
bool tt__unwind_run(tt__unwind *u, void (*fn)(void *arg), void *arg);
_Noreturn void tt__unwind_leave(tt__unwind *u);           /* only while tt__unwind_run of the same record is running, on its thread */
#endif
