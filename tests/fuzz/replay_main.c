/* The main of a fuzz target without libFuzzer: runs it once over each file given, and over each file of each folder given, in order of
 * name. Links to folders are followed. Ends with the line that the test runner adds up; a crash ends the program, which is a failure. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
/* what libFuzzer offers to custom mutators; nothing mutates here */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size) {
    (void)data, (void)max_size;
    return size;
}

static size_t done, unread;

/* The bytes in a block of exactly their size, so that sanitizers see a read behind the end. */
static void run_file(const char *path) {
    FILE *f = fopen(path, "rb");
    long size = -1;
    if (f && fseek(f, 0, SEEK_END) == 0) size = ftell(f);
    uint8_t *bytes = size >= 0 ? malloc(size ? (size_t)size : 1) : NULL;
    if (bytes && fseek(f, 0, SEEK_SET) == 0 && fread(bytes, 1, (size_t)size, f) == (size_t)size) {
        if (getenv("TT_REPLAY_VERBOSE")) fprintf(stderr, "%s\n", path);
        LLVMFuzzerTestOneInput(bytes, (size_t)size);
        done++;
    } else {
        fprintf(stderr, "cannot read %s\n", path);
        unread++;
    }
    free(bytes);
    if (f) fclose(f);
}

static void run_path(const char *path, int depth) {
    struct stat sb;
    struct dirent **list;
    if (stat(path, &sb) != 0 || !S_ISDIR(sb.st_mode) || depth > 8) {
        run_file(path);
        return;
    }
    int n = scandir(path, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char child[4096];
        if (list[i]->d_name[0] != '.' && snprintf(child, sizeof child, "%s/%s", path, list[i]->d_name) < (int)sizeof child) run_path(child, depth + 1);
        free(list[i]);
    }
    if (n >= 0) free(list);
}

int main(int argc, char **argv) {
    if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) run_path(argv[i], 0);
    if (argc > 1 && done == 0) unread++;
    printf("%zu passed, %zu failed, 0 skipped\n", done, unread);
    return unread != 0;
}
