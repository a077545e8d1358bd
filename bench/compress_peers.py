#!/usr/bin/env python3
"""GPTQ and SparseGPT with their calibration beside plain PyTorch: interleaved runs A B B A, ratios pair by pair, medians. CSV rows on stdout
(docs/results/compress.csv).

  compress_peers.py MODEL HF_DIR TEXT --trimtab build/trimtab --python PYTHON [--pairs 3] [--raw PAIRS.jsonl] [--only sparsegpt,gptq] [--isa best]

MODEL is a GGUF, HF_DIR the same model for transformers; PYTHON an interpreter with torch and transformers, which runs torch_compress.py. Both read 64 windows
of 512 tokens of the text, round in groups of 64 and work layer by layer; ours searches its scales and orders its columns besides, and writes the file.
Seconds are those of calibration and compression; peaks are those of the whole process. Nothing else should run meanwhile. With --raw the pairs are
added to a file and the table is made of all that it holds, so that the runs may be spread over quiet moments.
"""
import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile

CASES = {"sparsegpt": ("sparsegpt(sparsity=0.5,bits=4)", ["--sparsity", "0.5", "--bits", "4"]), "gptq": ("gptq(bits=4)", ["--sparsity", "0", "--bits", "4"])}
TORCH_ISA = {"best": {}, "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}


def run(cmd, env):
    child = subprocess.run(cmd, capture_output=True, text=True, env={**os.environ, **env})
    if child.returncode:
        sys.exit(f"failed: {' '.join(cmd)}: {child.stderr.strip()[-300:]}")
    return json.loads(child.stdout)


def ours(a, case):
    with tempfile.TemporaryDirectory() as folder:
        cmd = [a.trimtab, "compress", a.model, folder + "/out.gguf", "--recipe", CASES[case][0], "--data", a.text, "--samples", "64", "--length", "512", "-t", str(a.t)]
        r = run([*cmd, "--json", "--progress", "off"], {} if a.isa == "best" else {"TRIMTAB_ISA": a.isa})
    return {"seconds": r["seconds"], "peak": r["peak_bytes"], "isa": r["isa"]}


def peer(a, case):
    here = os.path.dirname(os.path.abspath(__file__))
    r = run([a.python, here + "/torch_compress.py", a.hf, a.text, *CASES[case][1]], {"OMP_NUM_THREADS": str(a.t), **TORCH_ISA[a.isa]})
    return {"seconds": r["seconds"], "peak": r["peak_rss"], "torch": r["torch"]}


def pair(a, case, index):
    sides = [("ours", ours), ("peer", peer)]
    return {"case": case, "threads": a.t, **{name: fn(a, case) for name, fn in (sides if index % 2 == 0 else sides[::-1])}}


def load(path):
    if not path or not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def row(pairs):
    ratios = [p["peer"]["seconds"] / p["ours"]["seconds"] for p in pairs]
    mid = lambda side, key: statistics.median(p[side][key] for p in pairs)
    first = pairs[0]
    return {"method": first["case"], "isa": first["ours"]["isa"], "threads": first["threads"], "ours_s": f"{mid('ours', 'seconds'):.1f}", "torch_s": f"{mid('peer', 'seconds'):.1f}",
            "ratio": f"{statistics.median(ratios):.2f}", "ratio_min": f"{min(ratios):.2f}", "ratio_max": f"{max(ratios):.2f}",
            "ours_peak_mib": f"{mid('ours', 'peak') / 2**20:.0f}", "torch_peak_mib": f"{mid('peer', 'peak') / 2**20:.0f}", "torch": first["peer"]["torch"], "pairs": len(pairs)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "hf", "text"):
        p.add_argument(name)
    p.add_argument("--trimtab", default=os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build", "trimtab"))
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--pairs", type=int, default=3)
    p.add_argument("--raw")
    p.add_argument("--only", default=",".join(CASES))
    p.add_argument("--isa", choices=TORCH_ISA, default="best")
    p.add_argument("-t", type=int, default=2)
    a = p.parse_args()
    pairs = load(a.raw)
    for case in a.only.split(","):
        for index in range(a.pairs):
            pairs.append(pair(a, case, index))
            if a.raw:
                with open(a.raw, "a", encoding="utf-8") as f:
                    f.write(json.dumps(pairs[-1]) + "\n")
    groups = {}
    for one in pairs:
        groups.setdefault((one["ours"]["isa"], one["case"]), []).append(one)
    rows = [row(g) for g in groups.values()]
    w = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
    w.writeheader()
    w.writerows(rows)


main()
