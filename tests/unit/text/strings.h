/* Diverse texts from a number: the same bytes on every machine, so that neither 20,000 strings nor Python are needed to test equality
 * with the `tokenizers` package. tools/gen_tokenizer_tests.py gets the strings from gen_strings.c, which includes this file too.
 *
 * A string is a row of parts; a part is words of a script, emoji, code, broken spacing, numbers, contractions, marks to be composed,
 * text of special tokens, runs of one character, or any code points at all. Always valid UTF-8. */
#ifndef TT_TEST_STRINGS_H
#define TT_TEST_STRINGS_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { STRINGS_MAX = 16384 };                     /* bytes of one string at most */
typedef struct strings { uint64_t state; char s[STRINGS_MAX + 64]; size_t n; } strings;

static uint64_t strings_u64(strings *g) {
    uint64_t z = g->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
static uint32_t strings_below(strings *g, uint32_t n) { return (uint32_t)((strings_u64(g) >> 32) * n >> 32); }
static uint32_t strings_range(strings *g, uint32_t lo, uint32_t hi) { return lo + strings_below(g, hi - lo + 1); }

static void strings_put(strings *g, const char *s) {
    size_t n = strlen(s);
    if (g->n + n > STRINGS_MAX) return;
    memcpy(g->s + g->n, s, n);
    g->n += n;
}
static void strings_cp(strings *g, uint32_t c) {
    unsigned char b[5] = {0};
    if (c - 0xD800 < 0x800) c = 0xFFFD;
    if (c == 0) { if (g->n < STRINGS_MAX) g->s[g->n++] = 0; return; }
    if (c < 0x80) b[0] = (unsigned char)c;
    else if (c < 0x800) { b[0] = (unsigned char)(0xC0 | c >> 6); b[1] = (unsigned char)(0x80 | (c & 63)); }
    else if (c < 0x10000) { b[0] = (unsigned char)(0xE0 | c >> 12); b[1] = (unsigned char)(0x80 | (c >> 6 & 63)); b[2] = (unsigned char)(0x80 | (c & 63)); }
    else { b[0] = (unsigned char)(0xF0 | c >> 18); b[1] = (unsigned char)(0x80 | (c >> 12 & 63)); b[2] = (unsigned char)(0x80 | (c >> 6 & 63)); b[3] = (unsigned char)(0x80 | (c & 63)); }
    strings_put(g, (const char *)b);
}

#define STRINGS_PICK(g, list) ((list)[strings_below((g), sizeof(list) / sizeof((list)[0]))])

static void strings_english(strings *g) {
    static const char *const words[] = {"the", "of", "and", "to", "a", "in", "is", "it", "you", "that", "He", "was", "for", "on", "are", "with",
        "The", "river", "rudder", "trim", "tab", "moves", "ship", "weight", "model", "compress", "token", "Language", "quantized", "network",
        "machine", "don", "I", "We", "they", "people", "science", "University", "2024", "running", "internationalization", "antidisestablishmentarianism",
        "HTTP", "JSON", "iPhone", "caf\xC3\xA9", "na\xC3\xAFve", "Z\xC3\xBCrich", "x", "ed", "ing", "un", "re", "question", "answer", "Alice", "Bob"};
    static const char *const joints[] = {" ", " ", " ", " ", " ", ", ", ". ", "  ", "-", "\n", "; ", "! ", "? ", ": ", "", "/", "'s ", "\xE2\x80\x99s ", "\n\n", " \xE2\x80\x94 "};
    for (uint32_t k = strings_range(g, 1, 12); k--;) { strings_put(g, STRINGS_PICK(g, words)); strings_put(g, STRINGS_PICK(g, joints)); }
}
static void strings_script(strings *g) {
    static const uint32_t blocks[][2] = {{0x41, 0x7A}, {0xC0, 0xFF}, {0x100, 0x24F}, {0x250, 0x2FF}, {0x370, 0x3FF}, {0x400, 0x52F}, {0x531, 0x58F},
        {0x591, 0x5F4}, {0x600, 0x6FF}, {0x700, 0x74F}, {0x780, 0x7BF}, {0x900, 0x97F}, {0x980, 0x9FF}, {0xA00, 0xA7F}, {0xB80, 0xBFF}, {0xC00, 0xC7F},
        {0xD00, 0xD7F}, {0xE00, 0xE7F}, {0xE80, 0xEFF}, {0xF00, 0xFFF}, {0x1000, 0x109F}, {0x10A0, 0x10FF}, {0x1100, 0x11FF}, {0x1200, 0x137F},
        {0x13A0, 0x13FF}, {0x1780, 0x17FF}, {0x1800, 0x18AF}, {0x1E00, 0x1EFF}, {0x1F00, 0x1FFF}, {0x2C00, 0x2C5F}, {0x2D30, 0x2D7F}, {0x3041, 0x309F},
        {0x30A0, 0x30FF}, {0x3105, 0x312F}, {0x4E00, 0x9FFF}, {0x4E00, 0x5200}, {0xA000, 0xA48F}, {0xAC00, 0xD7A3}, {0xF900, 0xFAD9}, {0xFB00, 0xFB4F},
        {0xFE70, 0xFEFF}, {0xFF01, 0xFF9F}, {0x10400, 0x1044F}, {0x12000, 0x120FF}, {0x13000, 0x130FF}, {0x1D400, 0x1D7FF}, {0x20000, 0x200FF}, {0x2F800, 0x2FA1D},
        {0x11F00, 0x11F5F}, {0x1E900, 0x1E95F}, {0x10D00, 0x10D3F}};
    const uint32_t *b = STRINGS_PICK(g, blocks);
    for (uint32_t w = strings_range(g, 1, 4); w--;) {
        for (uint32_t k = strings_range(g, 1, 9); k--;) strings_cp(g, strings_range(g, b[0], b[1]));
        if (strings_below(g, 3)) strings_cp(g, ' ');
    }
}
static void strings_emoji(strings *g) {
    static const char *const joined[] = {"\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7", "\xF0\x9F\x8F\xB3\xEF\xB8\x8F\xE2\x80\x8D\xF0\x9F\x8C\x88",
        "\xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD", "\xF0\x9F\x87\xA9\xF0\x9F\x87\xAA", "1\xEF\xB8\x8F\xE2\x83\xA3", "\xE2\x9D\xA4\xEF\xB8\x8F", "\xE2\x84\xA2", "\xC2\xA9"};
    for (uint32_t k = strings_range(g, 1, 5); k--;) {
        switch (strings_below(g, 4)) {
        case 0: strings_put(g, STRINGS_PICK(g, joined)); break;
        case 1: strings_cp(g, strings_range(g, 0x1F300, 0x1F6FF)); break;
        case 2: strings_cp(g, strings_range(g, 0x1F900, 0x1FAFF)); break;
        default: strings_cp(g, strings_range(g, 0x2600, 0x27BF)); break;
        }
        if (!strings_below(g, 4)) strings_cp(g, ' ');
    }
}
static void strings_code(strings *g) {
    static const char *const lines[] = {"for (int i = 0; i < n; i++) {\n", "    return x->y[3] != NULL && !done;\n", "}\n", "\tif err != nil {\n\t\treturn err\n\t}\n",
        "def f(self, *args, **kwargs):\n", "        self.x = {'a': 1, \"b\": [2, 3]}\n", "#include <stdio.h>\n", "SELECT * FROM t WHERE id >= 10 AND name LIKE '%x%';\n",
        "<div class=\"row\">&nbsp;</div>\r\n", "x = 3.14;\n\n  y\t= foo(\"\xC3\xA9\")\n", "let v: Vec<u8> = vec![0u8; 1 << 20];\n", "printf(\"%08lx\\n\", p);\n",
        "// TODO: it's the user's fault\n", "/* ---- */", "a=b+c*d/e%f^g|h&~i", "https://example.org/path?q=1&r=%20#frag", "user@example.com", "C:\\Users\\x\\", "$HOME/.cache/*.tmp",
        "\"\"\"doc\"\"\"", "\\begin{equation} \\alpha^2 + \\beta_{i,j} \\end{equation}", "0x1F, 0b1010, 1e-9, 1_000_000", "@decorator\n", "```python\nprint('hi')\n```\n", "{{ x }}{% if y %}"};
    for (uint32_t k = strings_range(g, 1, 4); k--;) strings_put(g, STRINGS_PICK(g, lines));
}
static void strings_spacing(strings *g) {
    static const uint32_t spaces[] = {' ', ' ', ' ', ' ', '\n', '\n', '\t', '\r', 0xB, 0xC, 0x85, 0xA0, 0x1680, 0x2000, 0x2003, 0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0x200B, 0x2060, 0xFEFF, 0x1C, 0x1F};
    static const char *const between[] = {"", "", "a", "1", ".", "word", "\xC3\xA9", "'", "\xE4\xB8\xAD", "!", "(", "\xCC\x81"};
    for (uint32_t w = strings_range(g, 1, 5); w--;) {
        uint32_t c = STRINGS_PICK(g, spaces);
        for (uint32_t k = strings_range(g, 1, 6); k--;) strings_cp(g, strings_below(g, 3) ? c : STRINGS_PICK(g, spaces));
        strings_put(g, STRINGS_PICK(g, between));
    }
}
static void strings_numbers(strings *g) {
    static const uint32_t zeros[] = {'0', '0', '0', '0', 0x660, 0x6F0, 0x966, 0x9E6, 0xE50, 0xFF10, 0x1D7CE, 0x11DE0, 0x16AC0};
    static const uint32_t odd[] = {0xB2, 0xBD, 0x2160, 0x2167, 0x2460, 0x3007, 0x3021, 0x0F2A, 0x16FF4, 0x11DE5, 0x10107, 0x1F101, 0x4E00, 0x2189};
    static const char *const marks[] = {".", ",", " ", "  ", "-", "/", ":", "%", "a", "x", "\xE2\x82\xAC", "", "e"};
    for (uint32_t w = strings_range(g, 1, 4); w--;) {
        uint32_t zero = STRINGS_PICK(g, zeros);
        for (uint32_t k = strings_range(g, 1, 8); k--;) strings_cp(g, zero + strings_below(g, 10));
        if (!strings_below(g, 3)) strings_cp(g, STRINGS_PICK(g, odd));
        strings_put(g, STRINGS_PICK(g, marks));
    }
}
static void strings_contractions(strings *g) {
    static const char *const tails[] = {"s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Ve", "M", "LL", "lL", "D", "r", "l", "v", "x", "rE", "\xC5\xBF", "\xC3\x9F", "", "'", "s1", "te", "l\xC5\x82", "\xE2\x84\xAA", "1"};
    static const char *const heads[] = {"I", "we", "WE", " ", "", "it", "\xC3\xA9", "5", "(", "\n", "don", "  ", "!"};
    for (uint32_t k = strings_range(g, 1, 4); k--;) {
        strings_put(g, STRINGS_PICK(g, heads));
        strings_put(g, strings_below(g, 8) ? "'" : "\xE2\x80\x99");
        strings_put(g, STRINGS_PICK(g, tails));
        if (strings_below(g, 2)) strings_cp(g, ' ');
    }
}
static void strings_marks(strings *g) {
    static const uint32_t bases[] = {'a', 'e', 'o', 'A', 'I', 's', 'd', 0x915, 0x5D0, 0x61, 0x1100, 0x1112, 0xAC00, 0xAC01, 0x1161, 0x11A8, 0x11A7, 0x3B1, 0x391, 0x9C7, 0x1025, 0x10AB, 0x30AB, 0x306F, 0xE0, 0x1EA5, 0x1D157, 0x212B, 0x2126, 0x11099, 0x304B};
    static const uint32_t marks[] = {0x300, 0x301, 0x302, 0x303, 0x304, 0x306, 0x308, 0x30A, 0x30C, 0x323, 0x327, 0x328, 0x331, 0x334, 0x338, 0x340, 0x344, 0x345, 0x93C, 0x9BE, 0x9D7, 0x1161, 0x1175, 0x11A8, 0x11C2, 0x3099, 0x309A, 0x5B0, 0x5C1, 0x5BC, 0x102E, 0x1D165, 0x1D16E, 0x110BA, 0x1DFA, 0x16FF0, 0x20DD, 0x200D, 0xFE0F};
    for (uint32_t w = strings_range(g, 1, 6); w--;) {
        strings_cp(g, STRINGS_PICK(g, bases));
        for (uint32_t k = strings_below(g, strings_below(g, 20) ? 4 : 40); k--;) strings_cp(g, STRINGS_PICK(g, marks));
    }
}
static void strings_special(strings *g) {
    static const char *const tokens[] = {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
        "<repo_name>", "<file_sep>", "<empty_output>", "<tool_call>", "</tool_call>", "<|im_", "end|>", "<|", "|>", "<<|im_end|>>", "<|IM_END|>", "<mask>", "<pad>", "[word]", "[left]", "[right]",
        "<jupyter_code>", "<issue_start>", "fi\xD0\xB9", "\xD0\xB8\xCC\x86\xD1\x82", "\xD0\xB9\xD1\x82"};
    static const char *const around[] = {"", "", "", " ", "  ", "\n", "user", "system\n", "a", "1", ".", "\xE3\x80\x80", "_", "\xC3\xA9"};
    for (uint32_t k = strings_range(g, 1, 5); k--;) {
        strings_put(g, STRINGS_PICK(g, around));
        strings_put(g, STRINGS_PICK(g, tokens));
        strings_put(g, STRINGS_PICK(g, around));
    }
}
static void strings_any(strings *g) {
    for (uint32_t k = strings_range(g, 1, 12); k--;)
        switch (strings_below(g, 4)) {
        case 0: strings_cp(g, strings_below(g, 0x80)); break;
        case 1: strings_cp(g, strings_below(g, 0x3000)); break;
        case 2: strings_cp(g, strings_below(g, 0x10000)); break;
        default: strings_cp(g, strings_below(g, 0x110000)); break;
        }
}
static void strings_runs(strings *g) {
    static const uint32_t chars[] = {'a', ' ', '\n', '-', '=', '0', '.', 'h', 0xE9, 0x4E2D, 0x1F600, '\t', '\r', '#', '_', 'A', 0x3000, '\'', '/', '<'};
    uint32_t c = STRINGS_PICK(g, chars), d = STRINGS_PICK(g, chars);
    for (uint32_t k = strings_range(g, 1, strings_below(g, 12) ? 30 : 900); k--;) strings_cp(g, strings_below(g, 12) ? c : d);
}

/* String number `index`: g->s[0 … g->n). */
static void strings_make(strings *g, uint64_t index) {
    static void (*const parts[])(strings *) = {strings_english, strings_english, strings_english, strings_script, strings_script, strings_emoji, strings_code, strings_spacing,
                                               strings_numbers, strings_contractions, strings_marks, strings_special, strings_any, strings_runs};
    g->state = index * UINT64_C(0xd1342543de82ef95) + 12345;
    g->n = 0;
    for (uint32_t k = strings_below(g, strings_below(g, 50) ? 5 : 60); k--;) parts[strings_below(g, sizeof parts / sizeof parts[0])](g);
}
#endif
