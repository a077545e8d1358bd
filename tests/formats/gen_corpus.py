#!/usr/bin/env python3
"""Writes the seeds of the format fuzz targets: tests/fuzz/corpus/{gguf,safetensors,peft,dequant}/.

    tests/formats/gen_corpus.py [FOLDER]   no packages needed; run.sh compares FOLDER with what is in the tree

Names promise what happens: a file ok_* opens, a file bad_* is refused with TT_BADFILE; tests/unit/formats reads them too. The seeds of
gguf_roundtrip are those of gguf (a link). What fuzzing found (find_*, bad_find_*) is kept.
"""
import json, os, struct, sys

root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fuzz", "corpus")

def clean(target):
    d = os.path.join(root, target)
    os.makedirs(d, exist_ok=True)
    for f in os.listdir(d):
        if f.startswith(("ok_", "bad_")) and "_find_" not in f:
            os.unlink(os.path.join(d, f))
    return d

def save(target, name, data):
    with open(os.path.join(root, target, name), "wb") as f:
        f.write(data)

# ---------------------------------------------------------------- GGUF ----

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
NAMES = "u8 i8 u16 i16 u32 i32 f32 bool str arr u64 i64 f64".split()
FMT = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q", I64: "<q", F64: "<d"}
# type: (id, block, bytes)
TYPES = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q5_0": (6, 32, 22), "q5_1": (7, 32, 24), "q8_0": (8, 32, 34),
         "q2_k": (10, 256, 84), "q3_k": (11, 256, 110), "q4_k": (12, 256, 144), "q5_k": (13, 256, 176), "q6_k": (14, 256, 210), "iq4_nl": (20, 32, 18),
         "i8": (24, 1, 1), "i16": (25, 1, 2), "i32": (26, 1, 4), "i64": (27, 1, 8), "f64": (28, 1, 8), "bf16": (30, 1, 2)}
BIG = {"2p32": 1 << 32, "2p63": 1 << 63, "2p64m1": (1 << 64) - 1, "2p64m31": (1 << 64) - 31}

u32 = lambda v: struct.pack("<I", v)
u64 = lambda v: struct.pack("<Q", v)
def string(s, n=None):
    b = s if isinstance(s, bytes) else s.encode()
    return u64(len(b) if n is None else n) + b
def value(t, v):
    return string(v) if t == STR else struct.pack(FMT[t], v)
def kv(key, t, v):
    return string(key) + u32(t) + value(t, v)
def arr(key, t, vs, count=None, element=None):
    return string(key) + u32(ARR) + u32(t if element is None else element) + u64(len(vs) if count is None else count) + b"".join(value(t, v) for v in vs)
def pad(b, a=32):
    return b + bytes(-len(b) % a)
def data_of(n):
    return bytes((i * 7 + 3) & 0x3f for i in range(n))        # small scales: every f16 in it is finite
def tensor(name, type, ne, **k):
    return dict(name=name, type=type, ne=list(ne), **k)
def tensor_bytes(t):
    i, block, size = TYPES[t["type"]]
    n = 1
    for d in t["ne"]:
        n *= d
    return n // block * size

def gguf(kvs=(), tensors=(), magic=b"GGUF", version=3, n_kv=None, n_tensors=None, align=32, tail=b"", unpadded=False, data=None, gap=0):
    kvs = list(kvs)
    if align != 32:
        kvs.append(kv("general.alignment", U32, align))
    out = magic + u32(version) + u64(len(tensors) if n_tensors is None else n_tensors) + u64(len(kvs) if n_kv is None else n_kv) + b"".join(kvs)
    at, blob = 0, b""
    for i, t in enumerate(tensors):
        offset = t.get("offset", at)
        out += string(t["name"], t.get("name_len")) + u32(t.get("n_dims", len(t["ne"]))) + b"".join(u64(d) for d in t.get("dims", t["ne"]))
        out += u32(t.get("id", TYPES[t["type"]][0])) + u64(offset)
        b = data_of(tensor_bytes(t))
        blob += b if unpadded and i == len(tensors) - 1 else pad(b, align)
        at = len(blob)
        blob += bytes(gap)
        at = len(blob)
    if tensors or data is not None:
        out = pad(out, align)
    return out + (blob if data is None else data) + tail

ARCH = kv("general.architecture", STR, "llama")
T = [tensor("token_embd.weight", "f32", [4, 3])]
SAMPLES = {U8: [0, 255], I8: [-128, 127], U16: [0, 65535], I16: [-32768, 32767], U32: [0, 2**32 - 1], I32: [-2**31, 2**31 - 1], F32: [0.5, float("inf"), -0.0],
           BOOL: [0, 1], STR: ["", "text", "日本語 🙂", "a\nb"], U64: [0, 2**64 - 1], I64: [-2**63, 2**63 - 1], F64: [1e300, float("nan")]}

def gguf_seeds():
    ok, bad = {}, {}
    ok["empty"] = gguf()
    ok["version2"] = gguf([ARCH], T, version=2)
    ok["one_tensor"] = gguf([ARCH], T)
    ok["last_unpadded"] = gguf([ARCH], [tensor("a", "i8", [5])], unpadded=True)
    ok["keys_only"] = gguf([ARCH, kv("x", U8, 1)])
    for t, vs in SAMPLES.items():
        for i, v in enumerate(vs):
            ok[f"kv_{NAMES[t]}_{i}"] = gguf([ARCH, kv("key", t, v)], T)
        for n in (0, 1, 3):
            ok[f"array_{NAMES[t]}_{n}"] = gguf([ARCH, arr("key", t, (vs * 3)[:n])], T)
    for name, (i, block, size) in TYPES.items():
        ok[f"type_{name}"] = gguf([ARCH], [tensor("w", name, [block * 2])])
        ok[f"type_{name}_matrix"] = gguf([ARCH], [tensor("w", name, [block, 2])])
    for n in range(1, 5):
        ok[f"dims_{n}"] = gguf([ARCH], [tensor("w", "f32", [2] * n)])
    for a in (8, 16, 64, 128, 256, 512, 1024):
        ok[f"align_{a}"] = gguf([ARCH], [tensor("a", "i8", [3]), tensor("b", "f32", [2, 2])], align=a)
    ok["two_tensors"] = gguf([ARCH], [tensor("a", "q8_0", [64]), tensor("b", "f16", [3, 5])])
    ok["offsets_out_of_order"] = gguf([ARCH], [tensor("a", "f32", [8], offset=32), tensor("b", "f32", [8], offset=0)])
    ok["name_63"] = gguf([ARCH], [tensor("n" * 63, "i8", [1])])
    ok["key_long"] = gguf([ARCH, kv("k" * 700, U32, 1)], T)
    ok["key_utf8"] = gguf([ARCH, kv("ключ", U32, 1)], T)
    ok["tokens"] = gguf([ARCH, kv("tokenizer.ggml.model", STR, "gpt2"), kv("tokenizer.ggml.pre", STR, "smollm"),
                         arr("tokenizer.ggml.tokens", STR, ["<|im_end|>", "a", "b", "ab", "Ġ"]), arr("tokenizer.ggml.token_type", I32, [3, 1, 1, 1, 1]),
                         arr("tokenizer.ggml.merges", STR, ["a b"]), arr("tokenizer.ggml.scores", F32, [0.0] * 5)], T)
    ok["llama_keys"] = gguf([ARCH] + [kv("llama." + k, U32, v) for k, v in (("block_count", 1), ("context_length", 32), ("embedding_length", 4),
                            ("feed_forward_length", 8), ("attention.head_count", 2), ("attention.head_count_kv", 1))]
                            + [kv("llama.attention.layer_norm_rms_epsilon", F32, 1e-5), kv("llama.rope.freq_base", F32, 1e4)], T)
    ok["split_count_1"] = gguf([ARCH, kv("split.no", U16, 0), kv("split.count", U16, 1)], T)

    good = ok["one_tensor"]
    bad["nothing"] = b""
    bad["magic"] = gguf([ARCH], T, magic=b"GGML")
    bad["version_1"] = gguf([ARCH], T, version=1)
    bad["version_4"] = gguf([ARCH], T, version=4)
    bad["big_endian"] = gguf([ARCH], T, version=0x03000000)
    for n in (3, 4, 7, 12, 20, 24, 30, 40, len(good) - 17, len(good) - 33, 60, 70, 80, 90):
        bad[f"cut_at_{n:03d}"] = good[:n]
    for name, n in BIG.items():
        bad[f"n_kv_{name}"] = gguf([ARCH], T, n_kv=n)
        bad[f"n_tensors_{name}"] = gguf([ARCH], T, n_tensors=n)
        bad[f"key_length_{name}"] = gguf([string("k", n) + u32(U32) + u32(1)])
        bad[f"string_length_{name}"] = gguf([string("k") + u32(STR) + string("v", n)])
        bad[f"array_count_{name}"] = gguf([arr("k", U32, [1, 2], count=n)])
        bad[f"string_array_count_{name}"] = gguf([arr("k", STR, ["a"], count=n)])
        bad[f"element_length_{name}"] = gguf([string("k") + u32(ARR) + u32(STR) + u64(1) + string("v", n)])
        bad[f"name_length_{name}"] = gguf([ARCH], [tensor("t", "f32", [4], name_len=n)])
        bad[f"dim_{name}"] = gguf([ARCH], [tensor("t", "f32", [4], dims=[n])])
        bad[f"offset_{name}"] = gguf([ARCH], [tensor("t", "f32", [4], offset=n & ~31)])
    bad["dims_product_wraps"] = gguf([ARCH], [tensor("t", "f32", [4], n_dims=3, dims=[4, (1 << 30) - 1, (1 << 30) + 1])])
    bad["dims_product_wraps_to_small"] = gguf([ARCH], [tensor("t", "f32", [4], n_dims=2, dims=[1 << 32, 1 << 32])])
    bad["dims_int64_max"] = gguf([ARCH], [tensor("t", "f32", [4], n_dims=2, dims=[(1 << 63) - 1, 2])])
    bad["exabyte_tensor"] = gguf([ARCH], [tensor("t", "f32", [4], n_dims=2, dims=[1 << 40, 1 << 20])])
    bad["dim_zero"] = gguf([ARCH], [tensor("t", "f32", [4], dims=[0])])
    bad["dims_none"] = gguf([ARCH], [tensor("t", "f32", [4], n_dims=0, dims=[])])
    bad["dims_five"] = gguf([ARCH], [tensor("t", "f32", [1], n_dims=5, dims=[1] * 5)])
    bad["row_not_whole_blocks"] = gguf([ARCH], [tensor("t", "q4_0", [32], dims=[33])])
    bad["row_not_whole_k_blocks"] = gguf([ARCH], [tensor("t", "q4_k", [256], dims=[576])])
    for i, name in ((4, "q4_2"), (9, "q8_1"), (16, "iq2_xxs"), (31, "q4_0_4_4"), (39, "mxfp4"), (137, "iq2_k"), (77, "unknown"), (0xffffffff, "minus_one")):
        bad[f"type_{name}"] = gguf([ARCH], [tensor("t", "f32", [4], id=i)])
    bad["offset_not_aligned"] = gguf([ARCH], [tensor("t", "f32", [4], offset=4)], tail=bytes(32))
    bad["offset_beyond"] = gguf([ARCH], [tensor("t", "f32", [4], offset=1024)])
    bad["overlap"] = gguf([ARCH], [tensor("a", "f32", [16], offset=0), tensor("b", "f32", [16], offset=32)])
    bad["same_bytes_twice"] = gguf([ARCH], [tensor("a", "f32", [8], offset=0), tensor("b", "f32", [8], offset=0)])
    bad["gap"] = gguf([ARCH], [tensor("a", "f32", [8]), tensor("b", "f32", [8])], gap=64)
    bad["hidden_padding"] = gguf([ARCH], [tensor("a", "i8", [3])], data=data_of(3) + b"X" * 29)
    bad["trailing_payload"] = gguf([ARCH], T, tail=b"payload" * 10)
    bad["data_missing"] = gguf([ARCH], T, data=b"")
    bad["doubled_key"] = gguf([ARCH, kv("k", U32, 1), kv("k", U32, 2)], T)
    bad["doubled_tensor"] = gguf([ARCH], [tensor("t", "i8", [1]), tensor("t", "i8", [1])])
    bad["key_empty"] = gguf([ARCH, kv("", U32, 1)])
    bad["key_nul"] = gguf([ARCH, kv(b"a\0b", U32, 1)])
    bad["name_empty"] = gguf([ARCH], [tensor("", "i8", [1])])
    bad["name_newline"] = gguf([ARCH], [tensor("a\nb", "i8", [1])])
    bad["name_64"] = gguf([ARCH], [tensor("n" * 64, "i8", [1])])
    bad["value_type_13"] = gguf([string("k") + u32(13) + u32(0)])
    bad["value_type_big"] = gguf([string("k") + u32(0xffffffff) + u32(0)])
    bad["array_of_arrays"] = gguf([string("k") + u32(ARR) + u32(ARR) + u64(1) + u32(U8) + u64(1) + b"\1"])
    bad["array_element_13"] = gguf([arr("k", U8, [1], element=13)])
    bad["bool_2"] = gguf([string("k") + u32(BOOL) + b"\2"])
    bad["bool_array_2"] = gguf([string("k") + u32(ARR) + u32(BOOL) + u64(2) + b"\1\2"])
    for name, v in (("0", 0), ("1", 1), ("4", 4), ("24", 24), ("131072", 131072), ("2p32m1", 2**32 - 1)):
        bad[f"align_{name}"] = gguf([ARCH, kv("general.alignment", U32, v)], T)
    bad["align_i32"] = gguf([ARCH, kv("general.alignment", I32, 32)], T)
    bad["align_u64"] = gguf([ARCH, kv("general.alignment", U64, 32)], T)
    bad["align_string"] = gguf([ARCH, kv("general.alignment", STR, "32")], T)
    bad["align_array"] = gguf([ARCH, arr("general.alignment", U32, [32])], T)
    bad["split_count_string"] = gguf([ARCH, kv("split.count", STR, "2")], T)
    bad["split_in_memory"] = gguf([ARCH, kv("split.no", U16, 0), kv("split.count", U16, 2)], T)
    bad["split_count_huge"] = gguf([ARCH, kv("split.count", U32, 1 << 30)], T)
    return ok, bad

# ---------------------------------------------------------------- safetensors ----

def st_file(header, data=b"", n=None, tail=b""):
    h = header if isinstance(header, bytes) else json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    return u64(len(h) if n is None else n) + h + data + tail
def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
ST_SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1}

def safetensors_seeds():
    ok, bad = {}, {}
    for t, n in ST_SIZES.items():
        ok[f"type_{t.lower()}"] = st_file({"w": entry(t, [2, 3], 0, 6 * n)}, data_of(6 * n))
    ok["empty"] = st_file({})
    ok["scalar"] = st_file({"w": entry("F32", [], 0, 4)}, data_of(4))
    ok["no_elements"] = st_file({"w": entry("F32", [0, 3], 0, 0)})
    ok["two"] = st_file({"b": entry("F32", [1], 4, 8), "a": entry("F32", [1], 0, 4)}, data_of(8))
    ok["empties_between"] = st_file({"a": entry("F32", [1], 0, 4), "e": entry("F32", [0], 4, 4), "f": entry("F32", [0], 4, 4), "b": entry("F32", [1], 4, 8)}, data_of(8))
    ok["metadata"] = st_file({"__metadata__": {"format": "pt", "x": ""}, "w": entry("F32", [1], 0, 4)}, data_of(4))
    ok["metadata_last"] = st_file({"w": entry("F32", [1], 0, 4), "__metadata__": {}}, data_of(4))
    ok["spaces"] = st_file(b'{ "w" : { "shape" : [ 1 , 1 ] , "data_offsets" : [ 0 , 4 ] , "dtype" : "F32" } }   ', data_of(4))
    ok["escapes"] = st_file(b'{"a\\u0062\\/\\\\\\u00e9\\ud83d\\ude42":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    ok["utf8_name"] = st_file({"вес🙂": entry("U8", [1], 0, 1)}, b"x")
    for n in range(0, 9):
        ok[f"dims_{n}"] = st_file({"w": entry("U8", [1] * n, 0, 1)}, b"x")
    ok["prompt"] = st_file({"__metadata__": {"format": "pt"}, "prompt_embeddings": entry("F32", [2, 3], 0, 24)}, data_of(24))

    good = ok["metadata"]
    bad["nothing"] = b""
    for n in (1, 7, 8, 9, 20, len(good) - 1):
        bad[f"cut_at_{n:03d}"] = good[:n]
    for name, n in BIG.items():
        bad[f"header_{name}"] = st_file({}, n=n)
        bad[f"end_{name}"] = st_file({"w": entry("U8", [1], 0, n)}, b"x")
        bad[f"begin_{name}"] = st_file({"w": entry("U8", [1], n, n)}, b"x")
        bad[f"dim_{name}"] = st_file({"w": entry("U8", [n], 0, 1)}, b"x")
    bad["header_zero"] = u64(0)
    bad["header_limit_plus_1"] = st_file({}, n=100_000_001)
    bad["shape_product_wraps"] = st_file({"w": entry("F32", [1 << 32, 1 << 32], 0, 0)})
    bad["number_2p64"] = st_file(b'{"w":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}}', b"x")
    bad["number_negative"] = st_file({"w": entry("U8", [-1], 0, 1)}, b"x")
    bad["number_fraction"] = st_file({"w": entry("U8", [1.5], 0, 1)}, b"x")
    bad["number_exponent"] = st_file(b'{"w":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}', b"x")
    bad["number_leading_zero"] = st_file(b'{"w":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}', b"x")
    bad["dims_nine"] = st_file({"w": entry("U8", [1] * 9, 0, 1)}, b"x")
    bad["offsets_one"] = st_file({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, b"x")
    bad["offsets_three"] = st_file({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, b"x")
    bad["offsets_reversed"] = st_file({"w": entry("U8", [1], 1, 0)}, b"x")
    bad["overlap"] = st_file({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"xyz")
    bad["hole"] = st_file({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"xyz")
    bad["hole_at_start"] = st_file({"a": entry("U8", [1], 1, 2)}, b"xy")
    bad["trailing_data"] = st_file({"a": entry("U8", [1], 0, 1)}, b"xyz")
    bad["size_does_not_fit_shape"] = st_file({"a": entry("F32", [2], 0, 4)}, data_of(4))
    bad["doubled_name"] = st_file(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"xy")
    bad["doubled_metadata"] = st_file(b'{"__metadata__":{},"__metadata__":{}}')
    bad["doubled_metadata_key"] = st_file(b'{"__metadata__":{"a":"1","a":"2"}}')
    bad["metadata_number"] = st_file({"__metadata__": {"a": 1}})
    bad["metadata_nested"] = st_file({"__metadata__": {"a": {"b": "c"}}})
    bad["member_doubled"] = st_file(b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    bad["member_missing"] = st_file({"a": {"dtype": "U8", "shape": [1]}}, b"x")
    bad["member_unknown"] = st_file({"a": dict(entry("U8", [1], 0, 1), extra=1)}, b"x")
    bad["dtype_unknown"] = st_file({"a": entry("C64", [1], 0, 8)}, data_of(8))
    bad["dtype_long"] = st_file({"a": entry("F" * 100, [1], 0, 1)}, b"x")
    bad["array_at_top"] = st_file(b"[]")
    bad["space_first"] = st_file(b" {}")
    bad["junk_after"] = st_file(b"{}x")
    bad["comma_at_end"] = st_file(b'{"__metadata__":{},}')
    bad["nested_deep"] = st_file(b'{"a":' * 500)
    bad["escape_bad"] = st_file(b'{"\\q":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    bad["escape_nul"] = st_file(b'{"\\u0000":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    bad["escape_half_surrogate"] = st_file(b'{"\\ud83d":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    bad["name_empty"] = st_file({"": entry("U8", [1], 0, 1)}, b"x")
    bad["name_control"] = st_file({"a\nb": entry("U8", [1], 0, 1)}, b"x")
    bad["name_not_utf8"] = st_file(b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")

    # texts that begin with '{' are tried as index.json and config.json of a folder with shards one.safetensors and two.safetensors
    good_map = {"a": "one.safetensors", "b": "two.safetensors"}
    ok["index"] = json.dumps({"metadata": {"total_size": 8}, "weight_map": good_map}).encode()
    ok["index_one_shard"] = json.dumps({"weight_map": {"a": "one.safetensors"}}).encode()
    for name, f in (("absolute", "/etc/passwd"), ("dotdot", "../one.safetensors"), ("inner_dotdot", "x/../one.safetensors"), ("dot", "./one.safetensors"), ("empty", ""),
                    ("control", "one\n.safetensors"), ("long", "n" * 300), ("folder", "sub"), ("missing", "three.safetensors"), ("link_out", "out.safetensors"),
                    ("pipe", "pipe.safetensors"), ("number", 7)):
        bad[f"index_{name}"] = json.dumps({"weight_map": {"a": f}}).encode()
    bad["index_no_map"] = b'{"metadata":{}}'
    bad["index_map_empty"] = b'{"weight_map":{}}'
    bad["index_map_array"] = b'{"weight_map":[]}'
    bad["index_tensor_missing"] = json.dumps({"weight_map": dict(good_map, c="one.safetensors")}).encode()
    bad["index_doubled_key"] = b'{"weight_map":{"a":"one.safetensors","a":"two.safetensors"}}'
    bad["index_deep"] = b'{"a":' * 80 + b"1" + b"}" * 80
    bad["config_type_number"] = b'{"model_type":1}'
    return ok, bad

# ---------------------------------------------------------------- PEFT ----

def peft_seeds():
    ok, bad = {}, {}
    base = {"base_model_name_or_path": "x", "inference_mode": True, "num_attention_heads": 1, "num_layers": 1, "num_transformer_submodules": 1, "num_virtual_tokens": 2,
            "peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM", "task_type": "CAUSAL_LM", "token_dim": 3}
    w = st_file({"prompt_embeddings": entry("F32", [2, 3], 0, 24)}, struct.pack("<6f", *range(6)))
    def folder(config, weights=w):
        c = config if isinstance(config, bytes) else json.dumps(config).encode()
        return struct.pack("<H", len(c)) + c + weights
    def without(*keys):
        return {k: v for k, v in base.items() if k not in keys}
    ok["plain"] = folder(base)
    ok["minimal"] = folder({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2})
    ok["nulls"] = folder(dict(base, token_dim=None, num_layers=None, num_attention_heads=None, task_type=None, base_model_name_or_path=None))
    ok["unknown_keys"] = folder(dict(base, peft_version="9", runtime={"a": [1, 2]}))
    ok["f16"] = folder(base, st_file({"prompt_embeddings": entry("F16", [2, 3], 0, 12)}, data_of(12)))
    ok["bf16"] = folder(base, st_file({"prompt_embeddings": entry("BF16", [2, 3], 0, 12)}, data_of(12)))
    ok["text_init"] = folder(dict(base, prompt_tuning_init="TEXT", prompt_tuning_init_text="be kind", tokenizer_name_or_path="x"))
    ok["metadata"] = folder(base, st_file({"__metadata__": {"format": "pt"}, "prompt_embeddings": entry("F32", [2, 3], 0, 24)}, data_of(24)))
    for v in ("LORA", "P_TUNING", "IA3", "", 7, None):
        bad[f"type_{str(v).lower() or 'empty'}"] = folder(dict(base, peft_type=v))
    bad["type_missing"] = folder(without("peft_type"))
    bad["task_seq2seq"] = folder(dict(base, task_type="SEQ_2_SEQ_LM"))
    bad["submodules_2"] = folder(dict(base, num_transformer_submodules=2))
    for name, v in (("0", 0), ("minus", -1), ("limit_plus_1", 8193), ("huge", 10**18), ("string", "2"), ("real", 2.5)):
        bad[f"tokens_{name}"] = folder(dict(base, num_virtual_tokens=v))
    bad["tokens_missing"] = folder(without("num_virtual_tokens"))
    bad["tokens_differ"] = folder(dict(base, num_virtual_tokens=3))
    bad["width_differs"] = folder(dict(base, token_dim=4))
    bad["width_huge"] = folder(dict(base, token_dim=10**12))
    bad["layers_0"] = folder(dict(base, num_layers=0))
    bad["base_number"] = folder(dict(base, base_model_name_or_path=1))
    bad["config_empty"] = folder(b"")
    bad["config_array"] = folder(b"[]")
    bad["config_cut"] = folder(json.dumps(base).encode()[:60])
    bad["config_deep"] = folder(b"[" * 100 + b"]" * 100)
    bad["config_doubled"] = folder(b'{"peft_type":"LORA","peft_type":"PROMPT_TUNING","num_virtual_tokens":2}')
    bad["weights_nothing"] = folder(base, b"")
    bad["weights_cut"] = folder(base, w[:-1])
    bad["weights_other_name"] = folder(base, st_file({"base_model.model.prompt": entry("F32", [2, 3], 0, 24)}, data_of(24)))
    bad["weights_second_tensor"] = folder(base, st_file({"prompt_embeddings": entry("F32", [2, 3], 0, 24), "x": entry("U8", [1], 24, 25)}, data_of(25)))
    bad["weights_1d"] = folder(base, st_file({"prompt_embeddings": entry("F32", [6], 0, 24)}, data_of(24)))
    bad["weights_3d"] = folder(base, st_file({"prompt_embeddings": entry("F32", [2, 3, 1], 0, 24)}, data_of(24)))
    bad["weights_transposed"] = folder(base, st_file({"prompt_embeddings": entry("F32", [3, 2], 0, 24)}, data_of(24)))
    bad["weights_i32"] = folder(base, st_file({"prompt_embeddings": entry("I32", [2, 3], 0, 24)}, data_of(24)))
    bad["weights_nan"] = folder(base, st_file({"prompt_embeddings": entry("F32", [2, 3], 0, 24)}, struct.pack("<6f", 0, 1, float("nan"), 3, 4, 5)))
    bad["weights_inf"] = folder(base, st_file({"prompt_embeddings": entry("F32", [2, 3], 0, 24)}, struct.pack("<6f", 0, 1, float("inf"), 3, 4, 5)))
    bad["weights_empty"] = folder(dict(base, token_dim=None), st_file({"prompt_embeddings": entry("F32", [2, 0], 0, 0)}))
    # two layers of keys and values of one head pair, 2 tokens: [2, 2 * 2 * 4]
    prefix = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 2, "token_dim": 4, "num_layers": 2, "num_attention_heads": 2, "task_type": "CAUSAL_LM",
              "prefix_projection": False, "encoder_hidden_size": 4}
    values = struct.pack("<32f", *(i / 4 for i in range(32)))
    rows = st_file({"prompt_embeddings": entry("F32", [2, 16], 0, 128)}, values)
    ok["prefix"] = folder(prefix, rows)
    bad["prefix_heads_3"] = folder(dict(prefix, num_attention_heads=3), rows)
    bad["prefix_layers_differ"] = folder(dict(prefix, num_layers=4), rows)
    bad["prefix_nan"] = folder(prefix, st_file({"prompt_embeddings": entry("F32", [2, 16], 0, 128)}, struct.pack("<f", float("nan")) + values[4:]))
    bad["prefix_of_prompt_shape"] = folder(prefix, st_file({"prompt_embeddings": entry("F32", [2, 4], 0, 32)}, values[:32]))
    for what, key in (("width", "token_dim"), ("layers", "num_layers"), ("heads", "num_attention_heads")):
        bad[f"prefix_without_{what}"] = folder({k: v for k, v in prefix.items() if k != key}, rows)
    return ok, bad

# ---------------------------------------------------------------- block types ----

def dequant_seeds():
    """type id, then bytes: decoded as blocks, and as f32 values encoded into the type"""
    ok = {}
    for name, (i, block, size) in TYPES.items():
        ok[f"{name}_small"] = bytes([i]) + data_of(size * 2)
        ok[f"{name}_ones"] = bytes([i]) + b"\xff" * size * 2
        if block > 1:
            values = [0.0, 1.0, -1.0, 65504.0, -65504.0, 1e-30, 6e-8, 3.0] * (block // 8)
            ok[f"{name}_values"] = bytes([i]) + struct.pack(f"<{block}f", *values)
            ok[f"{name}_wild"] = bytes([i]) + struct.pack(f"<{block}f", *[v * 1e30 for v in values])
    ok["nan_scale"] = bytes([2]) + b"\x00\x7e" + bytes(16)
    ok["inf_scale"] = bytes([8]) + b"\x00\x7c" + bytes(32)
    return ok, {}

for target, make in (("gguf", gguf_seeds), ("safetensors", safetensors_seeds), ("peft", peft_seeds), ("dequant", dequant_seeds)):
    clean(target)
    ok, bad = make()
    for prefix, files in (("ok_", ok), ("bad_", bad)):
        for name, data in files.items():
            assert len(data) <= 16384, (target, name, len(data))
            save(target, prefix + name, data)
    print(f"{target}: {len(ok)} ok, {len(bad)} bad")
link = os.path.join(root, "gguf_roundtrip")
if not os.path.islink(link):
    os.symlink("gguf", link)
