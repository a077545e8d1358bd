/* See unwind.h. No local changes between setjmp and the return behind it, so that none is indeterminate. */
#include "base/unwind.h"

bool tt__unwind_run(tt__unwind *u, void (*fn)(void *arg), void *arg) {
    if (setjmp(u->at) != 0) return false;
    fn(arg);
    return true;
}

void tt__unwind_leave(tt__unwind *u) { longjmp(u->at, 1); }
