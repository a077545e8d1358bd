#!/usr/bin/env python3
"""A GGUF model of a given shape with generated weights: for speed and memory, which do not depend on what the weights say. Needs no packages.

  make_model.py OUT.gguf [--shape 1b|7b3|tiny|huge] [--type q4_0|q8_0|f16|f32] [--holes] [--seed 1]

  1b     that of Llama 3.2 1B: 2048 wide, 16 blocks, 32 / 8 heads of 64, 8192, vocabulary 128256, output tied to the embedding
  7b3    three blocks of a 7B model: 3584 wide, 28 / 4 heads of 128, 18944, vocabulary 152064, tied: enough for peaks of memory, which repeat block by block
  tiny   a few hundred KB, for tests
  huge   1.7 TB of f32, to be written with --holes: a file that fits no memory

With q4_0 and q8_0 the embedding is what llama-quantize makes of it when it is the output as well: Q6_K, or Q8_0 where the width is no multiple of 256
(and with q8_0). Weights are random codes with one scale that gives each matrix the spread of 1 / sqrt(width), so that activations stay near 1. The vocabulary
is the 256 bytes, one merge, and words w256, w257 ... that no text contains. --holes writes no weights at all: the file is a hole of zeros.
"""
import argparse
import os
import random
import struct
import sys

SHAPES = {   # width, blocks, inner width, heads, kv heads, vocabulary, context
    "1b": (2048, 16, 8192, 32, 8, 128256, 131072),
    "7b3": (3584, 3, 18944, 28, 4, 152064, 32768),
    "tiny": (64, 2, 128, 4, 2, 320, 512),
    "huge": (16384, 100, 65536, 128, 8, 128256, 8192),
}
IDS = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "q6_k": 14}             # GGUF type ids
BLOCK = {"f32": (1, 4), "f16": (1, 2), "q4_0": (32, 18), "q8_0": (32, 34), "q6_k": (256, 210)}
FILE_TYPE = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}
POOL = 16381                                                             # blocks; a prime, so that rows differ


def half(x):
    return struct.pack("<e", x)


def pool(kind, spread, rng):
    """POOL blocks of random weights with that standard deviation."""
    if kind == "q4_0":      # d (q - 8), q uniform
        d = half(spread / 4.61)
        return b"".join(d + rng.randbytes(16) for _ in range(POOL))
    if kind == "q8_0":      # d q
        d = half(spread / 73.9)
        return b"".join(d + rng.randbytes(32) for _ in range(POOL))
    if kind == "q6_k":      # d scale (q - 32); low bits 128, high bits 64, sixteen scales
        d = half(spread / (18.5 * 32))
        return b"".join(rng.randbytes(192) + bytes([32] * 16) + d for _ in range(POOL))
    values = [rng.gauss(0, spread) for _ in range(POOL)]
    return struct.pack(f"<{POOL}{'e' if kind == 'f16' else 'f'}", *values)


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(s)) + s


def byte_token(b):
    """GPT-2's alphabet: printable bytes stand for themselves, the others for U+0100 and up."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(b) if b in plain else chr(256 + [x for x in range(256) if x not in plain].index(b))


def metadata(shape, kind):
    D, L, F, H, KV, V, ctx = SHAPES[shape]
    tokens = [byte_token(b) for b in range(256)] + ["\u0120t"] + [f"w{i}" for i in range(257, V - 1)] + ["<|end_of_text|>"]
    u32, f32, boolean, string = ((n, lambda v, f=f: struct.pack(f, v)) for n, f in ((4, "<I"), (6, "<f"), (7, "<B"), (8, "<B")))
    string = (8, text)

    def array(element, body, n):
        return (9, lambda _: struct.pack("<IQ", element, n) + body)
    return [
        ("general.architecture", string, "llama"), ("general.name", string, f"generated {shape} {kind}"), ("general.file_type", u32, FILE_TYPE[kind]),
        ("llama.block_count", u32, L), ("llama.context_length", u32, ctx), ("llama.embedding_length", u32, D), ("llama.feed_forward_length", u32, F),
        ("llama.attention.head_count", u32, H), ("llama.attention.head_count_kv", u32, KV), ("llama.rope.dimension_count", u32, D // H), ("llama.vocab_size", u32, V),
        ("llama.rope.freq_base", f32, 500000.0), ("llama.attention.layer_norm_rms_epsilon", f32, 1e-5),
        ("tokenizer.ggml.model", string, "gpt2"), ("tokenizer.ggml.pre", string, "llama-bpe"),
        ("tokenizer.ggml.tokens", array(8, b"".join(map(text, tokens)), V), None),
        ("tokenizer.ggml.token_type", array(5, struct.pack(f"<{V}i", *([1] * (V - 1) + [3])), V), None),
        ("tokenizer.ggml.merges", array(8, text("\u0120 t"), 1), None),
        ("tokenizer.ggml.bos_token_id", u32, V - 1), ("tokenizer.ggml.eos_token_id", u32, V - 1), ("tokenizer.ggml.add_bos_token", boolean, 0),
    ]


def tensors(shape, kind):
    D, L, F, H, KV, V, _ = SHAPES[shape]
    kv = D // H * KV
    embedding = kind if kind[0] == "f" else "q6_k" if kind == "q4_0" and D % 256 == 0 else "q8_0"
    yield "token_embd.weight", embedding, V, D
    yield "output_norm.weight", "f32", 1, D
    for i in range(L):
        for name, rows, cols in (("attn_q", D, D), ("attn_k", kv, D), ("attn_v", kv, D), ("attn_output", D, D), ("ffn_gate", F, D), ("ffn_up", F, D), ("ffn_down", D, F)):
            yield f"blk.{i}.{name}.weight", kind, rows, cols
        yield f"blk.{i}.attn_norm.weight", "f32", 1, D
        yield f"blk.{i}.ffn_norm.weight", "f32", 1, D


def size(kind, rows, cols):
    block, n = BLOCK[kind]
    return rows * cols // block * n


def padded(n):
    return (n + 31) // 32 * 32


def write_weights(f, rows, cols, kind, pools, rng):
    left = size(kind, rows, cols)
    if rows == 1:
        f.write(struct.pack("<f", 1.0) * cols)
    else:
        key = kind, cols
        if key not in pools:
            pools[key] = pool(kind, cols ** -0.5, rng)
        data, at = pools[key], rng.randrange(POOL) * BLOCK[kind][1]
        while left:
            part = data[at:at + left]
            f.write(part)
            left -= len(part)
            at = 0
    f.write(bytes(padded(size(kind, rows, cols)) - size(kind, rows, cols)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--shape", choices=SHAPES, default="1b")
    p.add_argument("--type", choices=FILE_TYPE, default="q4_0")
    p.add_argument("--holes", action="store_true")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    rng, pools = random.Random(a.seed), {}
    meta, all_tensors = metadata(a.shape, a.type), list(tensors(a.shape, a.type))
    temporary = a.out + ".tmp"
    with open(temporary, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(all_tensors), len(meta)))
        for key, (kind, pack), value in meta:
            f.write(text(key) + struct.pack("<I", kind) + pack(value))
        offset = 0
        for name, kind, rows, cols in all_tensors:
            dims = (cols,) if rows == 1 else (cols, rows)
            f.write(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, IDS[kind], offset))
            offset += padded(size(kind, rows, cols))
        f.write(bytes(padded(f.tell()) - f.tell()))
        if a.holes:
            f.truncate(f.tell() + offset)
        else:
            for name, kind, rows, cols in all_tensors:
                write_weights(f, rows, cols, kind, pools, rng)
    os.replace(temporary, a.out)


if __name__ == "__main__":
    sys.exit(main())
