/* What the reader and the writer of safetensors share. */
#ifndef TT_FORMATS_SAFETENSORS_FILE_H
#define TT_FORMATS_SAFETENSORS_FILE_H
#include "formats/safetensors.h"
uint64_t tt__st_dtype_bytes(tt_st_dtype t);       /* of one element */
#endif
