#!/usr/bin/env python3
"""Writes src/text/unicode_tables.inc by asking the `tokenizers` package itself.

The promise of src/text is equality with that package, so its own engines define the classes: Oniguruma behind `Split` and `ByteLevel`
for \\p{L}, \\p{N} and \\s, Rust's char::is_numeric behind `Digits`, Rust's \\w behind single_word, and its NFC/NFD normalizers for
decomposition, composition and combining classes. The script checks that Split and ByteLevel agree and stops when they do not.

    python3 tools/gen_unicode.py > src/text/unicode_tables.inc        (about a minute)
"""
import sys
import unicodedata
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, NFD
from tokenizers.pre_tokenizers import ByteLevel, Digits, Split

CPS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xAC00 + 11172)


def split_class(pattern):
    """Code points that a one-character pattern matches: `removed` leaves the others."""
    split, out = Split(Regex(pattern), "removed"), set()
    for i in range(0, len(CPS), 4096):
        chunk = CPS[i:i + 4096]
        left = set()
        for piece, _ in split.pre_tokenize_str("".join(map(chr, chunk))):
            left.update(piece)
        out.update(c for c in chunk if chr(c) not in left)
    return out


def byte_level_classes():
    """The same three classes seen through ByteLevel's built-in expression."""
    bl = ByteLevel(add_prefix_space=False, use_regex=True)
    letters, numbers, spaces = set(), set(), set()
    for c in CPS:
        if len(bl.pre_tokenize_str("a" + chr(c))) == 1:
            letters.add(c)
        elif len(bl.pre_tokenize_str("1" + chr(c))) == 1:
            numbers.add(c)
        elif len(bl.pre_tokenize_str("!" + chr(c))) != 1:
            spaces.add(c)
    return letters, numbers, spaces


def word_class():
    """Rust's \\w: what stops a single_word token from matching beside it."""
    t = Tokenizer(BPE(vocab={"a": 0}, merges=[]))
    t.add_tokens([AddedToken("<w>", single_word=True, normalized=False)])
    token = t.token_to_id("<w>")
    return {c for c in CPS if token not in t.encode(chr(c) + "<w>").ids}


def combining_classes(nfd):
    """Canonical combining classes from the order in which NFD puts two marks; one known mark per class is the ruler.

    The package's normalizer follows an older Unicode than Python: marks that it does not know are starters here too."""
    swaps = lambda a, b: a != b and nfd.normalize_str(a + b) == b + a
    low, high = "\u0334", "\u0345"                                    # classes 1 and 240
    marks = [c for c in CPS if (swaps(chr(c), low) or swaps(high, chr(c))) and nfd.normalize_str(chr(c)) == chr(c)]
    ruler = {}
    for c in marks:
        if unicodedata.combining(chr(c)):
            ruler.setdefault(unicodedata.combining(chr(c)), chr(c))
    classes = sorted(ruler)
    out = {}
    for c in marks:
        ch = chr(c)
        above = [k for k in classes if swaps(ch, ruler[k])]          # classes below that of c
        below = [k for k in classes if swaps(ruler[k], ch)]          # classes above it
        same = [k for k in classes if k not in above and k not in below]
        assert len(same) == 1, (hex(c), same)
        out[c] = same[0]
    return out


def decompositions(nfd):
    out = {}
    for c in CPS:
        d = nfd.normalize_str(chr(c))
        if d != chr(c) and c not in HANGUL:
            out[c] = [ord(x) for x in d]
    return out


def compositions(decomp, nfc):
    """(first, second) → composite, for composites that NFC makes."""
    out = {}
    for c, d in decomp.items():
        if nfc.normalize_str(chr(c)) != chr(c) or len(d) < 2:
            continue
        first = nfc.normalize_str("".join(map(chr, d[:-1])))
        assert len(first) == 1, hex(c)
        out[(ord(first), d[-1])] = c
    return out


def ranges(values):
    """[(start, value)] wherever the value changes."""
    out, last = [], None
    for c in range(0x110000):
        v = values(c)
        if v != last:
            out.append((c, v))
            last = v
    return out


def rows(items, per):
    for i in range(0, len(items), per):
        print("    " + " ".join(items[i:i + per]))


def main():
    letters, numbers, spaces = (split_class(p) for p in (r"\p{L}", r"\p{N}", r"\s"))
    if (letters, numbers, spaces) != byte_level_classes():
        sys.exit("Split and ByteLevel disagree about a class: two tables are needed")
    digits = {c for c in CPS if len(Digits(individual_digits=True).pre_tokenize_str(chr(c) * 2)) == 2}
    words = word_class()
    nfd, nfc = NFD(), NFC()
    ccc = combining_classes(nfd)
    decomp = decompositions(nfd)
    comp = compositions(decomp, nfc)

    kind = ranges(lambda c: (c in letters) | (c in numbers) << 1 | (c in spaces) << 2 | (c in digits) << 3 | (c in words) << 4)
    print(f"/* Made by tools/gen_unicode.py from tokenizers {tokenizers.__version__}; do not edit. */")
    print(f"/* {len(letters)} letters, {len(numbers)} numbers, {len(spaces)} spaces, {len(digits)} digits, {len(words)} word characters */")
    print("/* start << 8 | class bits (unicode.h); a range ends where the next begins */")
    print("static const uint32_t class_ranges[] = {")
    rows([f"0x{s << 8 | v:x}," for s, v in kind], 14)
    print("};\n/* start << 8 | canonical combining class */\nstatic const uint32_t ccc_ranges[] = {")
    rows([f"0x{s << 8 | v:x}," for s, v in ranges(lambda c: ccc.get(c, 0))], 14)
    pool, index = [], []
    for c, d in sorted(decomp.items()):
        index.append((c, len(pool), len(d)))
        pool += d
    print("};\n/* full canonical decompositions: code point, place in the pool, length (Hangul is computed) */")
    print("static const struct { uint32_t cp; uint16_t at, n; } decompositions[] = {")
    rows([f"{{0x{c:x},{a},{n}}}," for c, a, n in index], 10)
    print("};\nstatic const uint32_t decomposition_pool[] = {")
    rows([f"0x{c:x}," for c in pool], 18)
    print("};\n/* primary composites, sorted by first and second */\nstatic const struct { uint32_t first, second, composite; } compositions[] = {")
    rows([f"{{0x{a:x},0x{b:x},0x{c:x}}}," for (a, b), c in sorted(comp.items())], 7)
    print("};")


main()
