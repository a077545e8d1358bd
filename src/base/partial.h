/* A file that grows over several runs, such as a download that goes on where it was cut: it lies under a name of its own until it is
 * whole, and a killed run leaves its bytes. The other writers of base/file.h begin anew each time. */
#ifndef TT_BASE_PARTIAL_H
#define TT_BASE_PARTIAL_H
#include "trimtab/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct tt__partial { int fd; char *path; uint64_t bytes; } tt__partial;

/* Makes the file (mode 0600) or goes on behind its last byte. Links are not followed, only regular files are taken. */
tt_status tt__partial_open(const char *path, tt__partial *out, tt_err *err);
/* Exactly n bytes from `offset`. */
tt_status tt__partial_read(const tt__partial *p, uint64_t offset, void *buf, size_t n, tt_err *err);
tt_status tt__partial_append(tt__partial *p, const void *data, size_t n, tt_err *err);
tt_status tt__partial_empty(tt__partial *p, tt_err *err);
/* TT_RESOURCE when the disk has no room for `more` bytes. */
tt_status tt__partial_room(const tt__partial *p, uint64_t more, tt_err *err);
/* Makes it durable, gives it its final mode and name, makes the folder durable. Closes p in every case. */
tt_status tt__partial_commit(tt__partial *p, const char *target, tt_err *err);
void tt__partial_close(tt__partial *p);        /* the bytes stay */

/* A symbolic link with this text under `path`, in place of what was there, never missing in between. False where links are not to be had. */
bool tt__link_into(const char *text, const char *path);
#endif
