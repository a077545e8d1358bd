#!/usr/bin/env python3
"""Writes the seeds of the text layer's fuzz targets: tests/fuzz/corpus/{tokenizer_json,tokenize,template}.

    python3 tools/gen_text_seeds.py        (needs nothing; reads tests/golden/templates.json)

Names say what a seed is: ok_… loads, bad_… is refused. Vocabularies name an unknown token, so that they need not hold all 256 bytes.
"""
import json
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def write(target, name, data):
    folder = os.path.join(ROOT, "tests/fuzz/corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode("utf-8"))


def split(regex, behaviour="Isolated", invert=False):
    return {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": regex}, "behavior": behaviour, "invert": invert},
                                                  dict(BYTE_LEVEL, use_regex=False)]}


def tokenizer(model=(), **parts):
    vocab = {"<u>": 0, "a": 1, "b": 2, "e": 3, "h": 4, "l": 5, "o": 6, "\u0120": 7, "\u010a": 8, "1": 9, "ab": 10, "he": 11, "ll": 12, "hell": 13, "aa": 14, "aaaa": 15, "\u0120a": 16}
    merges = [["a", "b"], ["h", "e"], ["l", "l"], ["he", "ll"], ["a", "a"], ["aa", "aa"], ["\u0120", "a"]]
    m = {"type": "BPE", "dropout": None, "unk_token": "<u>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
         "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges}
    m.update(model)
    t = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": BYTE_LEVEL, "post_processor": None,
         "decoder": BYTE_LEVEL, "model": m}
    t.update(parts)
    return t


def added(i, content, **flags):
    return dict({"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}, **flags)


def tokenizer_seeds():
    def put(name, model=(), **parts):
        write("tokenizer_json", name, json.dumps(tokenizer(model, **parts), ensure_ascii=False, separators=(",", ":")))

    base = tokenizer()["model"]
    put("ok_plain")
    put("ok_merges_as_text", {"merges": [" ".join(m) for m in base["merges"]]})
    put("ok_no_merges", {"merges": []})
    put("ok_fuse_unk", {"fuse_unk": True})
    put("ok_ignore_merges", {"ignore_merges": True})
    put("ok_empty_prefix", {"continuing_subword_prefix": "", "end_of_word_suffix": ""})
    put("ok_doubled_merge", {"merges": base["merges"] + base["merges"][:2]})
    put("ok_merges_in_odd_order", {"merges": base["merges"][::-1]})
    put("ok_hole", {"vocab": dict(base["vocab"], zz=40)})
    put("ok_nfc", normalizer={"type": "NFC"})
    put("ok_nfc_sequence", normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]})
    put("ok_digits", pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL]})
    put("ok_llama3", pre_tokenizer=split(LLAMA3))
    put("ok_llama3_removed", pre_tokenizer=split(LLAMA3, "Removed", True))
    put("ok_qwen2", pre_tokenizer=split(LLAMA3.replace("{1,3}", "")), normalizer={"type": "NFC"})
    put("ok_sequence_of_one", pre_tokenizer={"type": "Sequence", "pretokenizers": [BYTE_LEVEL]})
    put("ok_no_decoder", decoder=None)
    put("ok_decoder_sequence", decoder={"type": "Sequence", "decoders": [BYTE_LEVEL]})
    put("ok_post_byte_level", post_processor=BYTE_LEVEL)
    bos = [added(20, "<|im_end|>"), added(21, "<x>", special=False)]
    special = {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    put("ok_bos", added_tokens=bos, post_processor={"type": "TemplateProcessing", "single": [special, text], "pair": [], "special_tokens": {}})
    put("ok_eos", added_tokens=bos, post_processor={"type": "Sequence", "processors": [BYTE_LEVEL, {"type": "TemplateProcessing", "single": [text, special]}]})
    for flag in ("single_word", "lstrip", "rstrip", "normalized"):
        put("ok_added_" + flag, added_tokens=[added(20, "<x>", special=False, **{flag: True}), added(21, "<|im_end|>", **{flag: True})])
    put("ok_added_overlap", added_tokens=[added(20, "<|im_"), added(21, "<|im_end|>"), added(22, "end|>", special=False)])
    put("ok_added_in_vocab", added_tokens=[added(0, "<u>"), added(10, "ab", special=False)])
    put("ok_added_escaped", added_tokens=[added(20, "\u00e9\"\\\n\u0001")])
    put("ok_many_added", added_tokens=[added(20 + i, f"<t{i}>", special=bool(i % 2)) for i in range(60)])
    put("ok_unknown_fields", {"x": {"y": [1, 2.5e3, None, True, {}]}}, z=[[[]]])
    write("tokenizer_json", "ok_spaces", json.dumps(tokenizer(), indent=1))
    write("tokenizer_json", "ok_ascii", json.dumps(tokenizer(), ensure_ascii=True))
    put("bad_model_type", {"type": "WordPiece"})
    put("bad_unigram", {"type": "Unigram", "vocab": [["a", -1.5]]})
    put("bad_no_vocab", {"vocab": None})
    put("bad_vocab_list", {"vocab": ["a"]})
    put("bad_vocab_text_id", {"vocab": {"a": "0"}})
    put("bad_vocab_negative", {"vocab": {"a": -1}})
    put("bad_vocab_huge_id", {"vocab": {"a": 2 ** 40}})
    put("bad_vocab_holes", {"vocab": dict(base["vocab"], zz=1000000)})
    put("bad_vocab_doubled_id", {"vocab": dict(base["vocab"], zz=3)})
    put("bad_vocab_empty_token", {"vocab": dict(base["vocab"], **{"": 17})})
    put("bad_no_unk", {"unk_token": None})
    put("bad_unk_missing", {"unk_token": "<none>"})
    put("bad_merge_part", {"merges": [["a", "q"]]})
    put("bad_merge_result", {"merges": [["b", "a"]]})
    put("bad_merge_one", {"merges": ["ab"]})
    put("bad_merge_three", {"merges": [["a", "b", "e"]]})
    put("bad_merge_number", {"merges": [1]})
    put("bad_merge_control", added_tokens=[added(10, "ab")])
    put("bad_dropout", {"dropout": 0.1})
    put("bad_byte_fallback", {"byte_fallback": True})
    put("bad_prefix", {"continuing_subword_prefix": "##"})
    put("bad_normalizer", normalizer={"type": "Lowercase"})
    put("bad_normalizer_text", normalizer="NFC")
    put("bad_pre_metaspace", pre_tokenizer={"type": "Metaspace", "replacement": "_"})
    put("bad_pre_regex", pre_tokenizer=split("(a+)+b"))
    put("bad_pre_prefix_space", pre_tokenizer=dict(BYTE_LEVEL, add_prefix_space=True))
    put("bad_pre_none", pre_tokenizer=None)
    put("bad_decoder", decoder={"type": "WordPiece"})
    put("bad_post_bert", post_processor={"type": "BertProcessing"})
    put("bad_post_unknown", post_processor={"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<none>"}}]})
    put("bad_added_empty", added_tokens=[added(20, "")])
    put("bad_added_long", added_tokens=[added(20, "x" * 1025)])
    put("bad_added_clash", added_tokens=[added(1, "zz")])
    put("bad_added_not_nfc", normalizer={"type": "NFC"}, added_tokens=[added(20, "e\u0301", normalized=True)])
    for name, data in {"empty": b"", "cut": json.dumps(tokenizer()).encode()[:500], "deep": b'{"x":' + b"[" * 300, "doubled_key": b'{"model":{},"model":{}}', "number": b"1",
                       "not_utf8": b'{"\xff":1}', "surrogate": b'{"a":"\\ud800"}', "trailing": json.dumps(tokenizer()).encode() + b"x", "no_model": b"{}"}.items():
        write("tokenizer_json", "bad_" + name, data)


def tokenize_seeds():
    texts = {
        "empty": "", "english": "It's the river's RUDDER; we'll trim 12345 tabs.\n\n  Don't!", "code": "for (int i = 0; i < n; i++) {\n\treturn x->y[3];\r\n}\n",
        "spaces": " \t\n\u00a0\u3000\u2003  x   \n\n y\r\n", "digits": "1\u0661\u0967\uff11\u00bd\u00b2\U0001d7ce\U00011de0", "contractions": "I'M 'S 'LL 'ſ don'T we'Ve '", "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd\u2764\ufe0f",
        "cjk": "\u65e5\u672c\u8a9e text \uac00\u1100\u1161\u11a8", "marks": "e\u0301\u0323\u0327 a\u0327\u0301 \u0e33\u0e49 \u0915\u093c", "special": "<|im_end|><|endoftext|> <mask> [left] x[word] [right]  <tool_call>",
        "special_part": "<|im_<|im_end|>|><|", "arabic": "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643\u0645", "hebrew": "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd", "thai": "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "run_a": "a" * 300, "run_space": " " * 300 + "x",
        "run_newline": "\n" * 200, "run_equal": "=" * 200, "run_mark": "a" + "\u0301\u0323" * 100, "mixed": "aB\u00e91\u0416 \u4e2d\u0300!", "nul": "a\0b\0", "control": "".join(map(chr, range(32))),
    }
    data = {k: v.encode("utf-8") for k, v in texts.items()}
    data.update({"invalid": b"a\xff\xfe\xc3", "cut": "\U0001f600".encode()[:3], "overlong": b"\xc0\xaf\xe0\x80\xaf", "surrogate": b"\xed\xa0\x80x", "high": b"\xf4\x90\x80\x80", "invalid_special": b"\xe2<|im_end|>\x82",
                 "all_bytes": bytes(range(256))})
    for name, text in data.items():
        for which, head in (("gpt2", 0), ("llama3", 1), ("qwen2", 2)):
            write("tokenize", f"{name}_{which}", bytes([head]) + text)
            special = next(h for h in range(128, 256) if h % 3 == head)
            write("tokenize", f"{name}_{which}_special", bytes([special]) + text)


def template_seeds():
    with open(os.path.join(ROOT, "tests/golden/templates.json"), encoding="utf-8") as f:
        cases = json.load(f)
    seen = set()
    for c in cases:
        extra = json.dumps(c["extra"], ensure_ascii=False) if "extra" in c else ""
        if c["source"] + extra in seen:
            continue
        seen.add(c["source"] + extra)
        name = ("bad_" if c["expected"] is None else "ok_") + c["name"].replace(" ", "_")
        write("template", name, c["source"] + ("\0" + extra if extra else ""))
    for name, source in {"loop": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                         "doubling": "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "nested": "{% if 1 %}" * 200, "brackets": "{{ " + "(" * 200,
                         "minus": "{{ " + "-" * 300 + "1 }}", "cycle": "{% set l = [] %}{% do l.append(l) %}{{ l }}{{ l == l }}{{ l | tojson }}", "power": "{{ 2 ** 999999999 }}",
                         "repeat": "{{ 'x' * 99999999999 }}", "reserved": "{{ x }}\0{\"messages\": 1}", "json": "{{ x }}\0{\"x\": ", "include": "{% include '/etc/passwd' %}", "class": "{{ ''.__class__.__mro__ }}"}.items():
        write("template", "bad_" + name, source)


tokenizer_seeds()
tokenize_seeds()
template_seeds()
