/* Writes what tests/kill works on into the folder $KILL_FOLDER: the tiny model and texts. A test program only because tiny.h is written for one. */
#include "harness/tiny.h"

#include <stdlib.h>

static void write_words(const char *folder, const char *name, uint64_t seed, int words) {
    char *path = tt__path_join(folder, name), *text = tiny_text(seed, words);
    tt_err err = {0};
    TT_CHECK(path && text);
    TT_CHECK_OK(tt__write_file(path, text, strlen(text), &err));
    tt__free(path);
    tt__free(text);
}

TT_CASE(tiny_files) {
    const char *folder = getenv("KILL_FOLDER");
    if (!folder) TT_SKIP("KILL_FOLDER names no folder");
    char *model = tt__path_join(folder, "tiny.gguf");
    TT_CHECK(model);
    tiny_write(model, 1, 0, false);
    tt__free(model);
    write_words(folder, "text.txt", 2, 6000);
    write_words(folder, "other.txt", 3, 800);
    write_words(folder, "long.txt", 4, 100000);
}
