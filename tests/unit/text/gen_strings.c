/* Writes strings `first` … `last - 1` of strings.h as (u32 little-endian length, bytes) for tools/gen_tokenizer_tests.py. */
#include "strings.h"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    static strings g;
    if (argc != 3) return 2;
    for (unsigned long long i = strtoull(argv[1], NULL, 10), last = strtoull(argv[2], NULL, 10); i < last; i++) {
        strings_make(&g, i);
        unsigned char n[4] = {(unsigned char)g.n, (unsigned char)(g.n >> 8), (unsigned char)(g.n >> 16), (unsigned char)(g.n >> 24)};
        if (fwrite(n, 1, 4, stdout) != 4 || fwrite(g.s, 1, g.n, stdout) != g.n) return 1;
    }
    return fflush(stdout) ? 1 : 0;
}
