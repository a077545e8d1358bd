#!/usr/bin/env python3
"""The table of the demo and of docs/results: one row per model and tab, from the JSON and loss files that tools/demo.sh leaves.

  demo_table.py TRIMTAB DIR

Losses are nats per target token, on the same targets in every row; ± is the paired 95 % interval of the difference to `compressed`, clustered by
document. Repair = the share of the damage (compressed - dense) that the tab takes away.
"""
import json
import os
import subprocess
import sys

ROWS = ("dense", "compressed", "compressed+untrained", "compressed+tab", "dense+tab")
TEXTS = (("jargon", "the tab's kind of text"), ("faq", "another kind: explanations"), ("fortunes", "another kind: quotations, verse"))


def load(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as f:
        return json.load(f)


def paired(binary, folder, text, row):
    names = [os.path.join(folder, f"{r}.{text}.losses") for r in ("compressed", row)]
    out = subprocess.run([binary, "perplexity", "--paired", *names, "--json"], capture_output=True, text=True, check=True).stdout
    pairs = json.loads(out)["pairs"]
    return pairs[0]


def table(lines):
    widths = [max(len(l[i]) for l in lines) for i in range(len(lines[0]))]
    for n, l in enumerate(lines):
        print("| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(l, widths))) + " |")
        if n == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")


def main():
    binary, folder = sys.argv[1:3]
    rows = [r for r in ROWS if os.path.exists(os.path.join(folder, r + ".run.json"))]
    for text, kind in TEXTS:
        if not os.path.exists(os.path.join(folder, f"compressed.{text}.json")):
            continue
        reports = {r: load(folder, f"{r}.{text}.json") for r in rows}
        damage = reports["compressed"]["nll"] - reports["dense"]["nll"]
        print(f"\n{text} ({kind}): {reports['dense']['tokens']} target tokens of {reports['dense']['documents']} documents\n")
        lines = [["row", "loss", "perplexity", "to compressed", "95 % interval", "of the damage"]]
        for r in rows:
            cells = [r, f"{reports[r]['nll']:.4f}", f"{reports[r]['perplexity']:.2f}"]
            if r == "compressed":
                lines.append(cells + ["", "", ""])
                continue
            p = paired(binary, folder, text, r)
            share = "" if r.startswith("dense") or not damage else f"{-p['diff'] / damage * 100:+.0f} %"
            lines.append(cells + [f"{p['diff']:+.4f}", f"[{p['low']:+.4f}, {p['high']:+.4f}]", share])
        table(lines)
    print("\ncost (each row a process of its own)\n")
    lines = [["row", "stored bytes", "bits/weight", "linear bits/weight", "generation tokens/s", "peak memory"]]
    for r in rows:
        show, run = load(folder, r + ".show.json"), load(folder, r + ".run.json")
        lines.append([r, f"{show['bytes']:,}", f"{show['bits_per_weight']:.3f}", f"{show['linear_bits_per_weight']:.3f}",
                      f"{run['tokens_per_second']:.0f} ({run['isa']})", f"{run['peak_rss'] / 2**20:.0f} MiB"])
    table(lines)
    print("\nThe packaged model is already on a 4-bit grid (blocks of 32), which flatters every 4-bit result; groups of 64 with symmetric grids do re-round it.")
    print("dense+tab learned from the same data, steps and seed: what it gains is adaptation to the text, not repair.\n")
    for r in rows:
        print(f"--- {r}\n{load(folder, r + '.run.json')['text'].strip()}\n")


main()
