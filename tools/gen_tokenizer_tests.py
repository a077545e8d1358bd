#!/usr/bin/env python3
"""Writes what the `tokenizers` package says about 20,000 strings, and the small vocabularies that it is asked about.

    python3 tools/gen_tokenizer_tests.py MODEL.gguf          (needs tokenizers, gguf and a C compiler; about a minute)

    tests/golden/tokenizers/NAME.json     trained here under the pre-tokenizers of GPT-2, Llama 3 and Qwen2, 1,000 tokens each
    tests/golden/tokenizers.tsv           NAME  mode  block  hash of ids  hash of decoded text, for blocks of 1,000 strings

MODEL.gguf is the packaged SmolLM2, whose vocabulary is too large for the tree: its tests run where the model is in the cache. The strings
come from tests/unit/text/strings.h through gen_strings.c. Modes: `special` parses the text of special tokens, `plain` does not
(encode_special_tokens), `bos` is special with add_special_tokens. The hash is 64-bit FNV-1a over little-endian i32: the number of ids of
each string, then the ids; of the decoded text, its bytes and a zero byte.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STRINGS, BLOCK = 20000, 1000
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")


def strings(first, last):
    with tempfile.TemporaryDirectory() as d:
        exe = os.path.join(d, "gen")
        subprocess.run([os.environ.get("CC", "cc"), "-O1", "-o", exe, os.path.join(ROOT, "tests/unit/text/gen_strings.c")], check=True)
        data = subprocess.run([exe, str(first), str(last)], check=True, capture_output=True).stdout
    out, at = [], 0
    while at < len(data):
        n, = struct.unpack_from("<I", data, at)
        out.append(data[at + 4:at + 4 + n].decode("utf-8"))
        at += 4 + n
    return out


def split(regex):
    return Sequence([Split(Regex(regex), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])


def small(pre, normalizer, texts):
    t = Tokenizer(BPE())
    t.pre_tokenizer, t.decoder = pre, ByteLevelDecoder()
    if normalizer:
        t.normalizer = normalizer
    t.train_from_iterator(texts, BpeTrainer(vocab_size=1000, min_frequency=2, initial_alphabet=ByteLevel.alphabet(), show_progress=False))
    return t


def gpt2(texts):
    """Every flag of an added token."""
    t = small(ByteLevel(add_prefix_space=False, use_regex=True), None, texts)
    t.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    t.add_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False), AddedToken("[left]", lstrip=True, normalized=False),
                  AddedToken("[right]", rstrip=True, normalized=False), AddedToken("[word]", single_word=True, normalized=False),
                  AddedToken("<tool_call>", normalized=True), AddedToken("<|im_", normalized=False), AddedToken("fi\u0439", single_word=True, normalized=True)])
    return t


def llama3(texts):
    t = small(split(LLAMA3), None, texts)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    t.add_special_tokens([AddedToken(n, normalized=False) for n in names])
    t.post_processor = TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B:1",
                                          special_tokens=[("<|begin_of_text|>", t.token_to_id("<|begin_of_text|>"))])
    j = json.loads(t.to_str())
    j["model"]["ignore_merges"] = True
    # tokens that merges alone cannot reach, as in the real vocabulary: only the whole piece finds them
    vocab, merges = j["model"]["vocab"], j["model"]["merges"]
    j["model"]["merges"] = [m for i, m in enumerate(merges) if i % 7 != 3 or any("".join(m) in other for other in merges)]
    return Tokenizer.from_str(json.dumps(j))


def qwen2(texts):
    t = small(split(QWEN2), NFC(), texts)
    t.add_special_tokens([AddedToken(n, normalized=False) for n in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False), AddedToken("\u0439\u0442", normalized=True)])
    return t


def smollm2(path, individual_digits):
    import gguf
    fields = gguf.GGUFReader(path).fields
    tokens, types, merges = (fields["tokenizer.ggml." + k].contents() for k in ("tokens", "token_type", "merges"))
    t = Tokenizer(BPE(vocab={s: i for i, s in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges]))
    bl = ByteLevel(add_prefix_space=False, use_regex=True)
    t.pre_tokenizer, t.decoder = Sequence([Digits(True), bl]) if individual_digits else bl, ByteLevelDecoder()
    t.add_special_tokens([AddedToken(s, normalized=False) for s, kind in zip(tokens, types) if kind == 3])
    return t


def fnv(data, h=0xCBF29CE484222325):
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def rows(name, t, texts):
    for mode in ("special", "plain", "bos"):
        t.encode_special_tokens = mode == "plain"
        for block in range(0, len(texts), BLOCK):
            ids, decoded = bytearray(), bytearray()
            for e in t.encode_batch(texts[block:block + BLOCK], add_special_tokens=mode == "bos"):
                ids += struct.pack(f"<{len(e.ids) + 1}i", len(e.ids), *e.ids)
                decoded += t.decode(e.ids, skip_special_tokens=mode == "bos").encode("utf-8") + b"\0"
            yield f"{name}\t{mode}\t{block // BLOCK}\t{fnv(ids):016x}\t{fnv(decoded):016x}\n"


def main():
    texts, training = strings(0, STRINGS), strings(10**6, 10**6 + 3000)
    folder = os.path.join(ROOT, "tests/golden/tokenizers")
    os.makedirs(folder, exist_ok=True)
    made = {"gpt-2": gpt2(training), "llama-bpe": llama3(training), "qwen2": qwen2(training)}
    for name, t in made.items():
        j = json.loads(t.to_str())
        if name == "gpt-2":                                        # the older way to write merges
            j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]
        with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as f:
            json.dump(j, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        made[name] = Tokenizer.from_str(json.dumps(j))
    made["smollm2"] = smollm2(sys.argv[1], True)
    made["smollm2-gpt2"] = smollm2(sys.argv[1], False)
    with open(os.path.join(ROOT, "tests/golden/tokenizers.tsv"), "w", encoding="utf-8") as f:
        for name, t in made.items():
            f.writelines(rows(name, t, texts))


main()
