#!/usr/bin/env python3
"""Compares our element types with the python package `gguf`: decoding of every type, encoding of the types that it can quantize.

    tests/formats/oracle.py BUILD      runs BUILD/formats_test_dtype; skips (exit 0) without numpy and gguf
"""
import hashlib, os, re, subprocess, sys, tempfile
try:
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Q, quants
except ImportError:
    print("the python packages numpy and gguf are not installed")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)

build = sys.argv[1] if len(sys.argv) > 1 else "build"
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
types = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL Q2_K Q3_K Q4_K Q5_K Q6_K".split()
passed = failed = 0

def case(name, good, why=""):
    global passed, failed
    passed, failed = passed + good, failed + (not good)
    print(("ok      " if good else "FAILED  ") + name + (": " + why if why and not good else ""))

with tempfile.TemporaryDirectory() as d:
    program = os.path.abspath(os.path.join(build, "formats_test_dtype"))
    run = subprocess.run([program, "oracle_files"], env=dict(os.environ, TT_ORACLE_DIR=d), cwd=root, stdout=subprocess.PIPE)
    case("oracle_files", run.returncode == 0, run.stdout.decode(errors="replace"))
    x = np.fromfile(f"{d}/input.f32", dtype=np.float32)
    for t in types:
        raw = np.fromfile(f"{d}/{t}.bytes", dtype=np.uint8)
        ours = np.fromfile(f"{d}/{t}.f32", dtype=np.float32)
        theirs = quants.dequantize(raw.view(np.float32) if t == "F32" else raw.view(np.float16) if t == "F16" else raw, Q[t]).reshape(-1).astype(np.float32)
        case(f"decode_{t}", np.array_equal(ours, theirs), f"{np.count_nonzero(ours != theirs)} values differ, largest {np.abs(ours - theirs).max()}")
        try:
            want = quants.quantize(x, Q[t]).reshape(-1).view(np.uint8)
        except NotImplementedError:
            continue
        case(f"encode_{t}", np.array_equal(raw, want), f"{np.count_nonzero(raw != want)} bytes differ")

# the hashes in dtype_decode_hashes.inc: any bytes, not only those an encoder makes
stream = np.array([(k * 31 + k // 7 + 5) & 0x3F for k in range(8 * 256)], dtype=np.uint8)
known = dict(re.findall(r'TT_(\w+), "(\w+)"', open(os.path.join(root, "tests/unit/formats/dtype_decode_hashes.inc")).read()))
for t in types:
    block, size = (1, {"F32": 4}.get(t, 2)) if t in ("F32", "F16", "BF16") else GGML_QUANT_SIZES[Q[t]]
    raw = stream[: 4 * size]
    theirs = quants.dequantize(raw.view(np.float32) if t == "F32" else raw.view(np.float16) if t == "F16" else raw, Q[t]).reshape(-1).astype(np.float32)
    case(f"hash_{t}", hashlib.sha256(theirs.tobytes()).hexdigest() == known.get(t), hashlib.sha256(theirs.tobytes()).hexdigest())
print(f"{passed} passed, {failed} failed, 0 skipped")
sys.exit(failed != 0)
