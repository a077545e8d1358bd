#!/usr/bin/env python3
"""Compress, then prompt: the evidence. Three levels of damage, both losses, three seeds for one level, three texts, all on the same target tokens.

  evidence.py WORK_DIR [--only PATTERN] [--steps 200] [--windows 200] [--report | --tables]

Every step is one run of build/trimtab and is skipped when its result is there: stop it at any time, repeat it to go on. --report only prints the CSV
(docs/results/compress-then-prompt.csv) of what is finished, --tables the same as the tables of docs/results/compress-then-prompt.md. Needs tools/demo_texts.py's packages. Nothing is estimated.
"""
import argparse
import csv
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(HERE, "build", "trimtab")
MODEL = "smollm2-135m-instruct"
LEVELS = {
    "joint4": ("joint 50 % + 4 bit", "sparsegpt(sparsity=0.5,bits=4)"),
    "joint3": ("joint 50 % + 3 bit", "sparsegpt(sparsity=0.5,bits=3)"),
    "sparse75": ("75 % sparse, 16 bit", "sparsegpt(sparsity=0.75,bits=0)"),
}
TEXTS = ("jargon", "faq", "fortunes")
SEEDS = {"joint4": (1, 2, 3)}


def run(log, *args):
    print("+ trimtab " + " ".join(args), flush=True)
    with open(log, "a", encoding="utf-8") as f:
        subprocess.run([BIN, *args], check=True, stdout=subprocess.DEVNULL, stderr=f)


class Work:
    def __init__(self, a):
        self.a, self.dir = a, a.work
        os.makedirs(self.dir, exist_ok=True)
        self.log = self.path("log.txt")

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def wanted(self, name):
        return not (self.a.report or self.a.tables) and re.search(self.a.only, name)

    def compress(self, level):
        out = self.path(level + ".gguf")
        if not os.path.exists(out) and self.wanted("compress-" + level):
            run(self.log, "compress", MODEL, out, "--recipe", LEVELS[level][1], "--data", self.path("texts", "jargon-train.jsonl"), "--seed", "1")
        return out

    def tune(self, name, model, loss, seed, steps=None):
        out = self.path(name)
        if not os.path.exists(os.path.join(out, "adapter_model.safetensors")) and self.wanted("tune-" + name):
            knobs = "tokens=32,steps=0" if steps == 0 else f"tokens=32,steps={self.a.steps},batch=2,length=256,loss={loss}"
            run(self.log, "tune", "-m", model, "--teacher", MODEL, "--method", f"prompt({knobs})", "--data", self.path("texts", "jargon-train.jsonl"),
                "--valid", self.path("texts", "jargon-valid.jsonl"), "--seed", str(seed), "-o", out)
        return out

    def measure(self, row, model, tab=None):
        for text in TEXTS:
            out = self.path(f"{row}.{text}")
            if os.path.exists(out + ".json") or not self.wanted(f"measure-{row}-{text}"):
                continue
            if tab and not os.path.exists(os.path.join(tab, "adapter_model.safetensors")):
                continue
            cmd = [BIN, "perplexity", "-m", model, "-f", self.path("texts", text + "-test.jsonl"), "--documents", "-c", "256", "--chunks", str(self.a.windows), "--exact",
                   "--save-losses", out + ".losses", "--json"] + (["--adapter", tab] if tab else [])
            print("+ measure " + row + " " + text, flush=True)
            result = subprocess.run(cmd, check=True, capture_output=True, text=True).stdout
            with open(out + ".tmp", "w", encoding="utf-8") as f:
                f.write(result)
            os.rename(out + ".tmp", out + ".json")

    def paired(self, a, b, text):
        files = [self.path(f"{r}.{text}.losses") for r in (a, b)]
        if not all(os.path.exists(f) for f in files):
            return None
        out = subprocess.run([BIN, "perplexity", "--paired", *files, "--json"], check=True, capture_output=True, text=True).stdout
        return json.loads(out)["pairs"][0]


def rows_of(level):
    """(row, model, tab, loss, seed, steps) of a level; `dense` rows are shared by all levels."""
    rows = [(level, level, None, "", 0, None), (f"{level}+untrained", level, f"tab-{level}-untrained", "kl", 1, 0)]
    for seed in SEEDS.get(level, (1,)):
        tail = "" if seed == 1 else f"-s{seed}"
        rows += [(f"{level}+{loss}{tail}", level, f"tab-{level}-{loss}{tail}", loss, seed, None) for loss in ("kl", "ce")]
    return rows


def work_through(w):
    if not os.path.exists(w.path("texts", "manifest.json")):
        subprocess.run([sys.executable, os.path.join(HERE, "tools", "demo_texts.py"), w.path("texts")], check=True)
    w.measure("dense", MODEL)
    for further_seeds in (False, True):                    # one seed of everything first
        for level in LEVELS:
            model = w.compress(level)
            for row, _, tab, loss, seed, steps in rows_of(level):
                if (seed > 1) == further_seeds:
                    folder = w.tune(tab, model, loss, seed, steps) if tab else None
                    if os.path.exists(model):
                        w.measure(row, model, folder)
            if level == "joint4":
                for loss in ("kl", "ce"):
                    w.measure(f"dense+{loss}", MODEL, w.tune(f"tab-dense-{loss}", MODEL, loss, 1))


FIELDS = ("text", "level", "row", "loss", "perplexity", "tokens", "documents", "to_compressed", "low", "high", "share_of_damage", "repair_share")


def rows(w):
    """One dict of FIELDS per measured row, all as text. share_of_damage: how much of (compressed - dense) is gone; repair_share: the same counted to
    dense + its own tab of the same loss, so that what the tab gives the dense model as well does not count."""
    found = []
    for level in LEVELS:
        for text in TEXTS:
            names = ["dense", "dense+kl", "dense+ce"] + [r[0] for r in rows_of(level)]
            have = {n: json.load(open(w.path(f"{n}.{text}.json"), encoding="utf-8")) for n in names if os.path.exists(w.path(f"{n}.{text}.json"))}
            if "dense" not in have or level not in have:
                continue
            damage = have[level]["nll"] - have["dense"]["nll"]
            for n, r in have.items():
                p = w.paired(level, n, text)
                kind = n.rsplit("+", 1)[-1].split("-")[0] if "+" in n else ""
                own = have.get("dense+" + kind)
                repair = "" if n.startswith("dense") or not own else f"{1 - (r['nll'] - own['nll']) / damage:.3f}"
                row = [text, level, n, f"{r['nll']:.4f}", f"{r['perplexity']:.3f}", r["tokens"], r["documents"], f"{p['diff']:+.4f}", f"{p['low']:+.4f}", f"{p['high']:+.4f}",
                       f"{-p['diff'] / damage:.3f}", repair]
                found.append(dict(zip(FIELDS, map(str, row))))
    return found


def report(w):
    out = csv.DictWriter(sys.stdout, FIELDS)
    out.writeheader()
    out.writerows(rows(w))


def name_of(r):
    if r["row"] == r["level"]:
        return "compressed"
    base, tab = (r["row"].split("+") + [""])[:2]
    tab, _, seed = tab.partition("-s")
    tabs = {"kl": "KL tab", "ce": "next-token tab", "untrained": "untrained tab", "": ""}
    return ("dense" if base == "dense" else "compressed") + (" + " + tabs[tab] if tab else "") + (f", seed {seed}" if seed else "")


def percent(x):
    return f"{100 * float(x):.0f} %" if x else ""


def tables(w):
    found = rows(w)
    for level, (title, recipe) in LEVELS.items():
        print(f"## {title}\n\n`{recipe}`\n")
        for text in TEXTS:
            mine = [r for r in found if r["level"] == level and r["text"] == text]
            if not mine:
                continue
            print(f"{text}: {mine[0]['tokens']} target tokens of {mine[0]['documents']} documents\n")
            print("| row | loss | perplexity | to compressed | 95 % interval | of the damage | repair |\n|---|---|---|---|---|---|---|")
            for r in mine:
                same = r["row"] == level
                print(f"| {name_of(r)} | {r['loss']} | {float(r['perplexity']):.2f} | " + ("| | | |" if same else
                      f"{r['to_compressed']} | [{r['low']}, {r['high']}] | {'' if r['row'].startswith('dense') else percent(r['share_of_damage'])} | {percent(r['repair_share'])} |"))
            print()
    print("## Did they level off?\n\nValidation loss of each tab as it learned (its own loss on 16 windows of its kind of text).\n")
    for row in sorted(d for d in os.listdir(w.dir) if d.startswith("tab-") and os.path.exists(w.path(d, "trimtab.json"))):
        curve = json.load(open(w.path(row, "trimtab.json"), encoding="utf-8")).get("curve", [])
        if len(curve) > 1:
            print(f"- {row[4:]}: " + ", ".join(f"{p['valid']:.3f} ({p['step']})" for p in curve))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work")
    p.add_argument("--only", default="")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--windows", type=int, default=200)
    p.add_argument("--report", action="store_true")
    p.add_argument("--tables", action="store_true")
    w = Work(p.parse_args())
    if not (w.a.report or w.a.tables):
        work_through(w)
    tables(w) if w.a.tables else report(w)


main()
