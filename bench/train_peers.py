#!/usr/bin/env python3
"""A tuning step beside PyTorch + PEFT: interleaved runs A B A B, ratios pair by pair, medians. CSV rows on stdout (docs/results/tuning.csv).

  train_peers.py MODEL HF_DIR TEXT --trimtab build/trimtab --python PYTHON [--pairs 5] [--raw PAIRS.jsonl] [--case NAME=KNOBS@MAX_RAM …]

MODEL is a GGUF, HF_DIR the same model for transformers; PYTHON an interpreter with torch, transformers and peft. Both learn 20 rows through batches
of 4 windows of 256 tokens with the next-token loss. A step of ours is the difference of a long and a short run, so that opening, validation and
the first touch of memory do not count; peaks are those of the whole process, as the system saw them. Nothing else should run meanwhile.
With --raw the pairs are added to a file and the table is made of all that it holds, so that the runs may be spread over quiet moments.
"""
import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def run(cmd):
    """Seconds, peak bytes, stdout."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(cmd, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(f"failed: {' '.join(cmd)}")
        out.seek(0)
        return time.perf_counter() - start, usage.ru_maxrss * 1024, out.read()


def tune(a, knobs, ram, steps):
    folder = tempfile.mkdtemp()
    recipe = f"prompt(tokens=20,batch=4,length=256,loss=ce,valid_every=100000,valid_windows=1,steps={steps}{knobs})"
    cmd = [a.trimtab, "tune", "-m", a.model, "--data", a.text, "-o", folder + "/tab", "--method", recipe, "-t", str(a.t)]
    seconds, peak, _ = run(cmd + (["--max-ram", ram] if ram else []))
    shutil.rmtree(folder)
    return seconds, peak


def ours(a, knobs, ram):
    long, peak = tune(a, knobs, ram, a.steps + 1)
    short, _ = tune(a, knobs, ram, 1)
    return (long - short) / a.steps, peak


def peer(a):
    here = os.path.dirname(os.path.abspath(__file__))
    out = run([a.python, here + "/torch_step.py", a.hf, a.text, "-r", str(a.steps), "--threads", str(a.t)])[2]
    r = json.loads(out)
    return r["median_s"], r["peak_rss"], r["torch"]


def middle(xs):
    return f"{statistics.median(xs):.3f}", f"{min(xs):.3f}", f"{max(xs):.3f}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "hf", "text"):
        p.add_argument(name)
    p.add_argument("--trimtab", default="build/trimtab")
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--raw")
    p.add_argument("--case", action="append", help="NAME=KNOBS@MAX_RAM, for example bf16=precision=bf16@200M")
    for flag, default in (("--pairs", 5), ("--steps", 3), ("-t", 2)):
        p.add_argument(flag, type=int, default=default)
    a = p.parse_args()
    cases = []
    for text in a.case or ["f32="]:
        name, rest = text.split("=", 1)
        knobs, _, ram = rest.partition("@")
        cases.append((name, "," + knobs if knobs else "", ram))
    doctor = json.loads(run([a.trimtab, "doctor", "--json"])[2])
    pairs = []
    for _ in range(a.pairs):
        torch_s, torch_peak, torch = peer(a)
        for name, knobs, ram in cases:
            s, peak = ours(a, knobs, ram)
            pairs.append({"case": name + (f" ({ram})" if ram else ""), "ours_s": s, "torch_s": torch_s, "ours_peak": peak, "torch_peak": torch_peak, "torch": torch})
    if a.raw:
        with open(a.raw, "a+", encoding="utf-8") as f:
            f.writelines(json.dumps(p) + "\n" for p in pairs)
            f.seek(0)
            pairs = [json.loads(line) for line in f]
    w = csv.writer(sys.stdout)
    w.writerow(["case", "isa", "threads", "pairs", "ours_s", "torch_s", "time_ratio", "time_ratio_min", "time_ratio_max", "ours_peak_MiB", "torch_peak_MiB", "memory_ratio",
                "memory_ratio_min", "memory_ratio_max", "torch"])
    for name in dict.fromkeys(p["case"] for p in pairs):
        r = [p for p in pairs if p["case"] == name]
        of = lambda key, unit=1: statistics.median(p[key] for p in r) / unit
        w.writerow([name, doctor["isa"], a.t, len(r), f"{of('ours_s'):.3f}", f"{of('torch_s'):.3f}", *middle([p["torch_s"] / p["ours_s"] for p in r]),
                    f"{of('ours_peak', 2**20):.0f}", f"{of('torch_peak', 2**20):.0f}", *middle([p["torch_peak"] / p["ours_peak"] for p in r]), r[0]["torch"]])


main()
