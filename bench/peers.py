#!/usr/bin/env python3
"""Speed and memory beside llama.cpp: the same models on both, A B B A A B ..., ratios pair by pair. Writes docs/results/speed.csv and speed.md.

  peers.py [--work build/bench] [--peer NAME=PATH]... [--only PATTERN] [--threads 1,2] [--isa best,avx2] [--pairs 5] [--pause 2] [--force]
           [--model ROW=FILE] [--peer-model ROW=FILE] [--list] [--report]

A peer is any binary that speaks llama-bench's options and JSON; without --peer the one that bench/build_peer.sh built in WORK/peer. The peer that stands in
for another instruction set is named with it: --peer llama.cpp-avx2=PATH runs for avx2 only, a name without such an ending for all.

Every pair is one run of each program and is kept in WORK/pairs.jsonl as it ends: stop at any time, repeat to go on. --only takes rows whose name matches;
--report only writes the two files from what is there. Model files are made when a row first needs them: the packaged model by `compress` (2 and 3 bits and
masks by methods that need no data or little, since speed does not depend on quality), the 1B one by bench/make_model.py. A row whose recipe this
build does not know is left out and named. Nothing runs while the machine does something else (more than a tenth of it) unless --force.
Rates are medians over a run's repetitions; first token and memory are those of a whole process, from its start to its end, with a prompt of 16 tokens.
"""
import argparse
import csv
import fnmatch
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(HERE, "build", "trimtab")
RESULTS = os.path.join(HERE, "docs", "results")
SOURCE = "smollm2-135m-instruct"

MODELS = {   # name: how it is made; "type T" and "recipe R" by compress, "outtype T" by convert, "shape S T" by make_model.py
    "135m-q4_0": "type Q4_0",
    "135m-q8_0": "outtype q8_0",
    "135m-own3": "recipe rtn(bits=3)",
    "135m-own2": "recipe rtn(bits=2)",
    "135m-sparse50": "recipe magnitude(sparsity=0.5)+rtn(bits=4)",
    "135m-slide2": "recipe slide2",
    "1b-q4_0": "shape 1b q4_0",
    "1b-q8_0": "shape 1b q8_0",
}
FEW_SAMPLES = ["--samples", "2", "--length", "64"]

ROWS = {     # name: (what it says, kind, our model, the peer's, llama-bench's options)
    "decode-4bit": ("generation, 135M, 4 bits", "rate", "135m-q4_0", "135m-q4_0", "-p 0 -n 128"),
    "decode-4bit-1k": ("generation behind 1024 tokens, 135M, 4 bits", "rate", "135m-q4_0", "135m-q4_0", "-p 0 -n 64 -d 1024"),
    "decode-8bit": ("generation, 135M, 8 bits", "rate", "135m-q8_0", "135m-q8_0", "-p 0 -n 128"),
    "decode-3bit": ("generation, 135M, 3 bits", "rate", "135m-own3", "135m-q4_0", "-p 0 -n 128"),
    "decode-2bit": ("generation, 135M, 2 bits", "rate", "135m-own2", "135m-q4_0", "-p 0 -n 128"),
    "decode-sparse50": ("generation, 135M, half of the weights anywhere, 4 bits", "rate", "135m-sparse50", "135m-q4_0", "-p 0 -n 128"),
    "decode-sparse50-auto": ("the same in the run format that a clock at opening chooses", "rate", "135m-sparse50", "135m-q4_0", "-p 0 -n 128"),
    "decode-slide2": ("generation, 135M, half of the weights by slide2, 4 bits", "rate", "135m-slide2", "135m-q4_0", "-p 0 -n 128"),
    "prefill-512": ("prompt of 512, 135M, 4 bits", "rate", "135m-q4_0", "135m-q4_0", "-p 512 -n 0"),
    "prefill-2k": ("prompt of 2048, 135M, 4 bits", "rate", "135m-q4_0", "135m-q4_0", "-p 2048 -n 0"),
    "prefill-8bit": ("prompt of 512, 135M, 8 bits", "rate", "135m-q8_0", "135m-q8_0", "-p 512 -n 0"),
    "decode-1b": ("generation, 1B, 4 bits", "rate", "1b-q4_0", "1b-q4_0", "-p 0 -n 32"),
    "prefill-1b": ("prompt of 512, 1B, 4 bits", "rate", "1b-q4_0", "1b-q4_0", "-p 512 -n 0 -r 2"),
    "first-1b": ("start to first token, 1B, 4 bits", "seconds", "1b-q4_0", "1b-q4_0", "-p 16 -n 0 -r 1 --no-warmup"),
    "memory-1b": ("peak resident memory, 1B, 4 bits", "bytes", "1b-q4_0", "1b-q4_0", "-p 16 -n 0 -r 1 --no-warmup"),
}
OURS_ONLY = {"decode-sparse50-auto": ["--run-format", "auto"]}
ISA_NAMES = ("scalar", "avx2", "avx512", "neon")


# ---- the machine ----

def cpu_times():
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:]]
    return sum(v[:8]), v[3] + v[4], v[7]             # all, idle, stolen


def busy_share(seconds=1.0):
    a = cpu_times()
    time.sleep(seconds)
    b = cpu_times()
    return 1 - (b[1] - a[1]) / max(1, b[0] - a[0])


def wait_until_quiet(a):
    for _ in range(30):
        share = busy_share()
        if share <= 0.1 or a.force:
            return
        print(f"  the machine is {share:.0%} busy, waiting", file=sys.stderr, flush=True)
        time.sleep(10)
    sys.exit("peers.py: the machine stays busy; what would be measured is its other work (--force measures all the same)")


# ---- files ----

def make(cmd):
    print("+ " + " ".join(cmd), file=sys.stderr, flush=True)
    return subprocess.run(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def model_file(a, name, missing):
    """The path of a model, made if need be; None where this build cannot make it."""
    path = os.path.join(a.work, name + ".gguf")
    if os.path.exists(path) or name in missing:
        return None if name in missing else path
    kind, _, rest = MODELS[name].partition(" ")
    source = subprocess.run([a.trimtab, "pull", SOURCE], capture_output=True, text=True, check=True).stdout.strip() if kind != "shape" else None
    if kind == "type":
        done = make([a.trimtab, "compress", source, path, rest])
    elif kind == "outtype":
        done = make([a.trimtab, "convert", source, path, "--outtype", rest])
    elif kind == "recipe":
        done = make([a.trimtab, "compress", source, path, "--recipe", rest, *FEW_SAMPLES])
    else:
        shape, kind = rest.split()
        done = make([sys.executable, os.path.join(HERE, "bench", "make_model.py"), path, "--shape", shape, "--type", kind])
    if done.returncode == 0:
        return path
    print(f"  {name} cannot be made: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}", file=sys.stderr)
    missing.add(name)
    return None


# ---- one run ----

def run(cmd, env):
    """Standard output, seconds and peak resident bytes of a whole process."""
    log = tempfile.TemporaryFile("w+")
    start = time.monotonic()
    child = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - start
    if child.returncode:
        log.seek(0)
        raise SystemExit(f"peers.py: {' '.join(cmd)}: exit {child.returncode}: {log.read().strip()[-300:]}")
    return out, seconds, usage.ru_maxrss * 1024


def measure(kind, program, model, threads, options, env, extra):
    cmd = [*program, "-m", model, "-t", str(threads), "-o", "json", *options, *extra]
    if "-r" not in options:
        cmd += ["-r", "3"]
    before = cpu_times()
    out, seconds, peak = run(cmd, env)
    after = cpu_times()
    row = json.loads(out)[0]
    value = {"rate": statistics.median(row["samples_ts"]), "seconds": seconds, "bytes": peak}[kind]
    return value, row, (after[2] - before[2]) / max(1, after[0] - before[0])


def peers_for(a, isa):
    """Those named for this instruction set; if there are none, those named for no one."""
    own = {n: p for n, p in a.peer.items() if n.endswith("-" + isa)}
    return own or {n: p for n, p in a.peer.items() if not n.endswith(tuple("-" + x for x in ISA_NAMES))}


def one_pair(a, name, isa, threads, peer, files, index):
    what, kind, _, _, options = ROWS[name]
    env = dict(os.environ)
    env.pop("TRIMTAB_ISA", None)
    if isa != "best":
        env["TRIMTAB_ISA"] = isa
    ours_extra = ["--quiet", *OURS_ONLY.get(name, [])] + ([] if kind == "rate" else ["--no-ceilings"])
    sides = [("ours", [a.trimtab, "bench"], files[0], ours_extra), ("peer", [a.peer[peer]], files[1], a.peer_args)]
    got = {}
    for side, program, model, extra in sides if index % 2 == 0 else sides[::-1]:
        wait_until_quiet(a)
        time.sleep(a.pause)
        got[side] = measure(kind, program, model, threads, options.split(), env, extra)
    ours, theirs = got["ours"][1], got["peer"][1]
    return {
        "row": name, "isa_asked": isa, "isa": ours["isa"], "threads": threads, "peer": peer, "ours": got["ours"][0], "theirs": got["peer"][0],
        "steal": max(got["ours"][2], got["peer"][2]), "cpu": ours["cpu_info"], "build": ours["build_commit"], "peer_build": theirs.get("build_commit"),
        "type": ours["model_type"], "peer_type": theirs.get("model_type"), "bytes": ours["model_size"], "peer_bytes": theirs.get("model_size"),
        "bits_per_weight": ours["bits_per_weight"], "time": ours["test_time"],
        **{k: ours[k] for k in ("read_gb_s", "l2_gb_s", "fma_gflops", "dot_gops", "bandwidth_share", "dot_share", "open_ns", "ttft_ns")},
    }


# ---- what came out ----

def load(a):
    path = os.path.join(a.work, "pairs.jsonl")
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


def better(kind, ours, theirs):
    return ours / theirs if kind == "rate" else theirs / ours


def median_of(pairs, key):
    v = [p[key] for p in pairs if p.get(key) is not None]
    return statistics.median(v) if v else None


def summary(pairs):
    """One line per (row, instruction set, threads, peer), in the order of ROWS."""
    groups = {}
    for p in pairs:
        if p["row"] in ROWS:
            groups.setdefault((p["isa"], list(ROWS).index(p["row"]), p["threads"], p["peer"]), []).append(p)
    for (isa, row, threads, peer), group in sorted(groups.items()):
        name = list(ROWS)[row]
        what, kind = ROWS[name][:2]
        ratios = [better(kind, p["ours"], p["theirs"]) for p in group]
        yield {
            "row": name, "what": what, "unit": {"rate": "tokens/s", "seconds": "s", "bytes": "bytes"}[kind], "isa": isa, "threads": threads, "peer": peer,
            "type": group[-1]["type"], "peer_type": group[-1]["peer_type"], "model_bytes": group[-1]["bytes"], "peer_model_bytes": group[-1]["peer_bytes"],
            "ours_median": median_of(group, "ours"), "ours_min": min(p["ours"] for p in group), "ours_max": max(p["ours"] for p in group),
            "peer_median": median_of(group, "theirs"), "peer_min": min(p["theirs"] for p in group), "peer_max": max(p["theirs"] for p in group),
            "ratio_median": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios), "pairs": len(group),
            "bandwidth_share": median_of(group, "bandwidth_share"), "dot_share": median_of(group, "dot_share"), "read_gb_s": median_of(group, "read_gb_s"),
            "l2_gb_s": median_of(group, "l2_gb_s"), "fma_gflops": median_of(group, "fma_gflops"), "dot_gops": median_of(group, "dot_gops"),
            "steal_max": max(p["steal"] for p in group), "cpu": group[-1]["cpu"], "build": group[-1]["build"], "peer_build": group[-1]["peer_build"],
        }


def short(x):
    return "" if x is None else x if isinstance(x, (int, str)) else f"{x:.6g}"


def shown(line, key):
    v = line[key]
    return f"{v / 2**20:.0f} MiB" if line["unit"] == "bytes" else f"{v:.2f} s" if line["unit"] == "s" else f"{v:.1f}" if v < 1000 else f"{v:.0f}"


def bound(line):
    if line["bandwidth_share"]:
        return f"{line['bandwidth_share']:.0%} of memory"
    return f"{line['dot_share']:.0%} of 8-bit arithmetic" if line["dot_share"] else ""


def markdown(lines, pairs_wanted):
    yield "# Speed beside its peers"
    yield ""
    yield "Written by `make bench-peers` (`bench/peers.py`); the same numbers with their spread and the ceilings are in [speed.csv](speed.csv)."
    yield "Pairs of runs, the order turned from pair to pair; medians, and the ratio's median and range over the pairs: above 1, Trimtab is faster or smaller."
    yield "Bound: how much of what this machine's memory delivers, or its 8-bit multipliers, as measured in the same runs, the median reaches; models that partly fit the last-level"
    yield "cache can pass what memory delivers. First token and memory are those of a whole process with a prompt of 16 tokens."
    for isa in sorted({x["isa"] for x in lines}):
        of_isa = [x for x in lines if x["isa"] == isa]
        yield f"\n## {isa}\n"
        yield f"{of_isa[-1]['cpu']}; build {of_isa[-1]['build']}."
        for t in sorted({x["threads"] for x in of_isa}):
            one = [x for x in of_isa if x["threads"] == t and x["read_gb_s"]]
            if one:
                m = {k: statistics.median(x[k] for x in one) for k in ("read_gb_s", "l2_gb_s", "fma_gflops", "dot_gops")}
                yield f"Ceilings on {t} thread{'s' if t > 1 else ''}: memory {m['read_gb_s']:.1f} GB/s, second-level cache {m['l2_gb_s']:.0f} GB/s, f32 {m['fma_gflops']:.0f} GFLOP/s, 8 bits {m['dot_gops']:.0f} GOP/s."
        yield "\n| work | threads | ours | peer | its type | it | ratio | range | pairs | bound |\n|---|---|---|---|---|---|---|---|---|---|"
        for x in of_isa:
            few = "" if x["pairs"] >= pairs_wanted else " (too few)"
            yield (f"| {x['what']} | {x['threads']} | {shown(x, 'ours_median')} | {x['peer']} | {x['peer_type']} | {shown(x, 'peer_median')} | **{x['ratio_median']:.2f}** | "
                   f"{x['ratio_min']:.2f} to {x['ratio_max']:.2f} | {x['pairs']}{few} | {bound(x)} |")


def write_report(a):
    lines = list(summary(load(a)))
    if not lines:
        sys.exit("peers.py: nothing was measured yet")
    os.makedirs(a.results, exist_ok=True)
    with open(os.path.join(a.results, "speed.csv"), "w", newline="") as f:
        w = csv.DictWriter(f, lines[0].keys(), lineterminator="\n")
        w.writeheader()
        w.writerows({k: short(v) for k, v in x.items()} for x in lines)
    with open(os.path.join(a.results, "speed.md"), "w") as f:
        f.write("\n".join(markdown(lines, a.pairs)) + "\n")
    print("\n".join(markdown(lines, a.pairs)))


# ---- all of it ----

def default_peer(a):
    path = os.path.join(a.work, "peer", "llama-bench")
    if not os.path.exists(path):
        subprocess.run([os.path.join(HERE, "bench", "build_peer.sh"), os.path.join(a.work, "peer")], check=True, stdout=sys.stderr)
    return {"llama.cpp": path}


def pairs_option(p, flag, help_):
    p.add_argument(flag, action="append", default=[], metavar="NAME=PATH", help=help_)


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", default=os.environ.get("BENCH_DIR", os.path.join(HERE, "build", "bench")))
    p.add_argument("--trimtab", default=BIN)
    p.add_argument("--results", default=RESULTS, help="folder of speed.csv and speed.md")
    pairs_option(p, "--peer", "a binary to compare with; repeat for several")
    pairs_option(p, "--model", "our file of a row, instead of the usual one")
    pairs_option(p, "--peer-model", "the peer's file of a row")
    p.add_argument("--peer-args", default="", help="further options for the peers")
    p.add_argument("--only", default="*")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--isa", default="best")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--pause", type=float, default=2)
    p.add_argument("--force", action="store_true")
    p.add_argument("--list", action="store_true")
    p.add_argument("--report", action="store_true")
    a = p.parse_args()
    for name in ("peer", "model", "peer_model"):
        items = getattr(a, name)
        if any("=" not in x for x in items):
            p.error(f"--{name.replace('_', '-')} takes NAME=PATH")
        setattr(a, name, dict(x.split("=", 1) for x in items))
    for name in (*a.model, *a.peer_model):
        if name not in ROWS:
            p.error(f"no row {name}; --list names them")
    a.peer_args = a.peer_args.split()
    a.threads = [int(x) for x in a.threads.split(",")]
    return a


def main():
    a = parse()
    if a.list:
        for name, (what, kind, ours, theirs, options) in ROWS.items():
            print(f"{name:16} {what}: {ours} against {theirs}, {options}")
        return
    if a.report:
        return write_report(a)
    os.makedirs(a.work, exist_ok=True)
    a.peer = a.peer or default_peer(a)
    missing, done = set(), load(a)
    wanted = [n for n in ROWS if any(fnmatch.fnmatch(n, x) for x in a.only.split(","))]
    if not wanted:
        sys.exit(f"peers.py: no row matches {a.only}; --list names them")
    for isa in a.isa.split(","):
        for name in wanted:
            files = (a.model.get(name) or model_file(a, ROWS[name][2], missing), a.peer_model.get(name) or model_file(a, ROWS[name][3], missing))
            if None in files:
                print(f"  {name} is left out", file=sys.stderr)
                continue
            for peer in peers_for(a, isa):
                for threads in a.threads:
                    have = sum(p["row"] == name and p["isa_asked"] == isa and p["threads"] == threads and p["peer"] == peer for p in done)
                    for index in range(have, a.pairs):
                        pair = one_pair(a, name, isa, threads, peer, files, index)
                        with open(os.path.join(a.work, "pairs.jsonl"), "a") as f:
                            f.write(json.dumps(pair) + "\n")
                        kind = ROWS[name][1]
                        print(f"{name}, {pair['isa']}, {threads} threads, {peer}, pair {index + 1} of {a.pairs}: {pair['ours']:.4g} beside {pair['theirs']:.4g}, "
                              f"ratio {better(kind, pair['ours'], pair['theirs']):.2f}", file=sys.stderr, flush=True)
    write_report(a)


if __name__ == "__main__":
    main()
