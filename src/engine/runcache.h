/* Repacked models kept on disk, so that the next start reads them instead of repacking. */
#ifndef TT_ENGINE_RUNCACHE_H
#define TT_ENGINE_RUNCACHE_H
#include "engine/model.h"

/* Brings the model's operators into the run format: from the cache when a sound file for just this model lies there, else by repacking, and
 * then a thread writes the file while the model is in use. Trouble with the cache is no error. */
tt_status tt__runcache_ready(tt_model *m, tt_err *err);
bool tt__runcache_used(const tt_model *m);                  /* the operators are those of a file */
/* Waits for that thread and frees m->run; before the net is freed. */
void tt__runcache_finish(tt_model *m);
#endif
