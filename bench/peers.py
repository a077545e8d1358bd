#!/usr/bin/env python3
"""Speed beside llama.cpp: interleaved A B A B runs, ratio pair by pair, medians. CSV rows on stdout.

  peers.py OURS_MODEL PEER_MODEL --speed build/bench_speed --peer PATH/llama-bench [--pairs 5] [-t 1 -t 2] [-p 512] [-n 128] [-d 0]

OURS_MODEL and PEER_MODEL are GGUF files of the same source; name the types in the row (--label). The peer is any binary that speaks llama-bench's options
and JSON. Nothing else should run meanwhile.
"""
import argparse
import csv
import json
import statistics
import subprocess
import sys


def ours(a, t):
    out = subprocess.run([a.speed, a.ours, "-p", str(a.p), "-n", str(a.n), "-d", str(a.d), "-r", "2", "-t", str(t)], capture_output=True, text=True, check=True).stdout
    r = json.loads(out)
    return r["prefill_tokens_per_second"], r["decode_tokens_per_second"], r["isa"], r["open_ms"], r["peak_rss"]


def peer(a, t):
    cmd = [a.peer, "-m", a.peer_model, "-t", str(t), "-p", str(a.p), "-n", str(a.n), "-r", "2", "-o", "json"] + (["-d", str(a.d)] if a.d else [])
    rows = json.loads(subprocess.run(cmd, capture_output=True, text=True, check=True).stdout)
    speed = {("prefill" if r["n_prompt"] else "decode"): r["avg_ts"] for r in rows}
    return speed.get("prefill", 0), speed.get("decode", 0)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ours")
    p.add_argument("peer_model")
    p.add_argument("--speed", default="build/bench_speed")
    p.add_argument("--peer", required=True)
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("-t", type=int, action="append")
    for f, d in (("-p", 512), ("-n", 128), ("-d", 0)):
        p.add_argument(f, type=int, default=d)
    p.add_argument("--label", default="")
    a = p.parse_args()
    w = csv.writer(sys.stdout)
    w.writerow(["label", "isa", "threads", "work", "ours_median", "peer_median", "ratio_median", "ratio_min", "ratio_max", "pairs", "open_ms", "peak_rss"])
    for t in a.t or [1, 2]:
        pairs = [(ours(a, t), peer(a, t)) for _ in range(a.pairs)]
        for i, work in enumerate((f"prefill {a.p}", f"decode {a.n}" + (f" at {a.d}" if a.d else ""))):
            ratios = [o[i] / q[i] for o, q in pairs if q[i]]
            if ratios:
                w.writerow([a.label, pairs[0][0][2], t, work, f"{statistics.median(o[i] for o, _ in pairs):.1f}", f"{statistics.median(q[i] for _, q in pairs):.1f}",
                            f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f}", f"{max(ratios):.3f}", len(ratios), pairs[0][0][3], pairs[0][0][4]])
                sys.stdout.flush()


main()
