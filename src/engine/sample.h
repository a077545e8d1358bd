/* Text sampled from a model, as the verbs use it: calibration (compress), training and guard text (tune), a file (generate). */
#ifndef TT_ENGINE_SAMPLE_H
#define TT_ENGINE_SAMPLE_H
#include "engine/model.h"
#include "train/selftext.h"

/* The model once more for fast runs; with its stored weights when a repacked copy would take more than 1 GiB. */
tt_status tt__sample_open(tt_ctx *ctx, const tt_model *model, tt_model **out, tt_err *err);
/* Goes on to the end: progress, and the state in `dir` every tt__save_seconds() and when interrupted. */
tt_status tt__sample_run(tt_ctx *ctx, tt_selftext *s, const char *dir, tt_err *err);
/* Both, into ids [samples, length]. */
tt_status tt__sample_ids(tt_ctx *ctx, const tt_model *model, const tt_selftext_options *o, const char *dir, int32_t *ids, tt_err *err);
#endif
