#!/usr/bin/env python3
"""The equal-quality ratio: how many times smaller a compressed model can be and still answer as well. Every rung of the ladder on the same target
tokens, paired with the dense model, 95 % intervals clustered by document. Makes docs/results/true-8x.csv and the tables of true-8x.md.

  true8x.py WORK_DIR --text NAME=FILE.jsonl ... [--tasks HELLASWAG.txt] [--calib FILE|self] [--only REGEX] [--chunks 100] [--seeds 1] [--bin build/trimtab]
            [--embedding SPEC] [--report] [--write]

Texts are those that no step has seen (bench/make_texts.py makes some); one may be of the kind that the tabs learn from: name it with `@domain` behind the name,
NAME@domain=FILE. Steps are compress-ROW-SEED, tune-ROW-SEED, loss-ROW-SEED-TEXT, tasks-ROW-SEED, each one run of the program, skipped when its result is there: stop
it at any time, repeat it to go on. Rows whose methods this build does not know are left out and named. Bytes are those of the whole file and of the tab.

Not worse: the upper end of the paired interval of the loss is at most +0.01 nat on every text of the group. The ratio is bytes at 16 bits per weight
over bytes of the smallest row that is not worse: (a) unseen texts against dense, (b) in the tab's domain against dense with a tab of its own, (c) the same against dense alone.
"""
import argparse
import csv
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOURCE = "smollm2-135m-instruct"
MARGIN = 0.01
TAB = "prompt(tokens=32,loss=kl,steps=300)"
ROWS = {  # name: (recipe of the compress stage, None: as it came; steps that tune runs behind it)
    "dense": (None, []),
    "dense+tab": (None, [TAB]),
    **{f"rtn-{b}": (f"rtn(bits={b},group=64)", []) for b in (4, 3, 2)},
    **{f"gptq-{b}": (f"gptq(bits={b},group=64)", []) for b in (4, 3, 2)},
    **{f"trellis-{b}": (f"trellis(bits={b})", []) for b in (4, 3, 2)},
    "sparse50-4": ("sparsegpt(sparsity=0.5,bits=4)", []),
    **{f"gptq-{b}+dwq": (f"gptq(bits={b},group=64)", ["dwq(steps=200)"]) for b in (4, 3, 2)},
    **{f"gptq-{b}+tab": (f"gptq(bits={b},group=64)", [TAB]) for b in (4, 3, 2)},
    **{f"block-{b}": (f"gptq(bits={b},group=64)+blockap(steps=200)", []) for b in (4, 3, 2)},
    **{f"block-{b}+dwq": (f"gptq(bits={b},group=64)+blockap(steps=200)", ["dwq(steps=200)"]) for b in (4, 3, 2)},
    **{f"block-{b}+dwq+tab": (f"gptq(bits={b},group=64)+blockap(steps=200)", ["dwq(steps=200)", TAB]) for b in (4, 3, 2)},
    **{f"block-{b}+dwq+prefix": (f"gptq(bits={b},group=64)+blockap(steps=200)", ["dwq(steps=200)", "prefix(tokens=16,steps=200)"]) for b in (4, 3, 2)},
    "sparse50-4+block": ("sparsegpt(sparsity=0.5,bits=4)+blockap(steps=200)", []),
    "trellis-2+tab": ("trellis(bits=2)", [TAB]),
}
FIELDS = ("row", "seed", "recipe", "linear_bits_per_weight", "bytes", "ratio_to_16_bit", "text", "tokens", "documents", "loss", "diff", "low", "high", "against", "accuracy",
          "accuracy_low", "accuracy_high", "seconds")
CHANGES_MODEL = ("dwq", "qat")     # steps that write another model; others write a tab


def size_of(path):
    if os.path.isdir(path):
        return sum(os.path.getsize(os.path.join(path, f)) for f in os.listdir(path) if f.endswith(".safetensors"))
    return os.path.getsize(path)


class Work:
    def __init__(self, a):
        self.a, self.dir = a, a.work
        os.makedirs(self.dir, exist_ok=True)
        pairs = [t.split("=", 1) for t in a.text]
        self.texts = {n.removesuffix("@domain"): f for n, f in pairs}
        self.domain = [n.removesuffix("@domain") for n, _ in pairs if n.endswith("@domain")]
        known = json.loads(self.output("methods", "--json"))["methods"]
        self.known = {m["name"] for m in known}
        self.source = self.output("pull", SOURCE).strip()
        self.rows = {}
        for name, (recipe, steps) in ROWS.items():
            lacks = {m.group(0) for s in filter(None, [recipe, *steps]) for m in re.finditer(r"[a-z]\w*(?=\()", s)} - self.known
            if lacks:
                print(f"  {name} is left out: no {', '.join(sorted(lacks))}", file=sys.stderr)
            else:
                self.rows[name] = (recipe, steps)

    def path(self, name):
        return os.path.join(self.dir, name)

    def output(self, *args):
        return subprocess.run([self.a.bin, *args], check=True, stdout=subprocess.PIPE, text=True).stdout

    def step(self, name, out, *args):
        """One run of the program, its JSON kept; False: not there and not wanted."""
        record = self.path(name + ".json")
        if os.path.exists(record):
            return True
        if self.a.report or not re.search(self.a.only, name):
            return False
        print("+ " + name, flush=True)
        text = self.output(*args, "--json", "--progress", "off", "-q")
        if out and not os.path.exists(out):
            sys.exit(f"true8x.py: {name} wrote nothing")
        with open(record + ".tmp", "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(record + ".tmp", record)
        return True

    def load(self, name):
        with open(self.path(name + ".json"), encoding="utf-8") as f:
            return json.load(f)

    def made(self, row, seed):
        """(model, tab or None) of a row, made if need be; None: not there."""
        recipe, steps = self.rows[row]
        model, tab = self.source, None
        if recipe:
            model = self.path(f"{recipe}.{seed}.gguf")                # rows with the same recipe share it
            embedding = ["--embedding", self.a.embedding] if self.a.embedding else []
            if not self.step(f"compress-{recipe}-{seed}", model, "compress", SOURCE, model, "--recipe", recipe, "--data", self.a.calib, "--seed", str(seed), *embedding):
                return None
        done = recipe or "dense"
        for s in steps:
            done += "+" + s
            changes = s.split("(")[0] in CHANGES_MODEL
            out = self.path(f"{done}.{seed}" + (".gguf" if changes else ""))
            if not self.step(f"tune-{done}-{seed}", out, "tune", "-m", model, "--teacher", SOURCE, "--data", self.a.calib, "--method", s, "--seed", str(seed), "-o", out):
                return None
            model, tab = (out, tab) if changes else (model, out)
        return model, tab

    def score(self, row, seed):
        made = self.made(row, seed)
        if not made:
            return
        model, tab = made
        adapter = ["--adapter", tab] if tab else []
        for text, path in self.texts.items():
            name = f"loss-{row}-{seed}-{text}"
            self.step(name, None, "perplexity", "-m", model, "-f", path, "--documents", "-c", "512", "--chunks", str(self.a.chunks), "--exact", "--save-losses",
                      self.path(name + ".losses"), *adapter)
        if self.a.tasks:
            self.step(f"tasks-{row}-{seed}", None, "perplexity", "-m", model, "-f", self.a.tasks, "--hellaswag", *adapter)

    def paired(self, row, seed, text, against):
        files = [self.path(f"loss-{r}-{seed}-{text}.losses") for r in (against, row)]
        return json.loads(self.output("perplexity", "--paired", *files, "--json"))["pairs"][0] if all(map(os.path.exists, files)) and row != against else None

    def has(self, name):
        return os.path.exists(self.path(name + ".json"))

    def sizes(self, row, seed):
        recipe, steps = self.rows[row]
        report, self.a.report = self.a.report, True
        made = self.made(row, seed)
        self.a.report = report
        if not made:
            return None
        shown = json.loads(self.output("show", made[0], "--json"))
        dense = json.loads(self.output("show", self.source, "--json"))
        bytes_ = size_of(made[0]) + (size_of(made[1]) if made[1] else 0)
        return shown["linear_bits_per_weight"], bytes_, 2 * dense["params"] / bytes_, "+".join([recipe or "", *steps]).strip("+")

    def lines(self):
        for row in self.rows:
            for seed in range(1, self.a.seeds + 1):
                sizes = self.sizes(row, seed)
                if not sizes:
                    continue
                bits, bytes_, ratio, recipe = sizes
                head = {"row": row, "seed": seed, "recipe": recipe, "linear_bits_per_weight": f"{bits:.3f}", "bytes": bytes_, "ratio_to_16_bit": f"{ratio:.3f}"}
                for text in self.texts:
                    name = f"loss-{row}-{seed}-{text}"
                    if not self.has(name):
                        continue
                    loss = self.load(name)
                    measured = {"text": text, "tokens": loss["tokens"], "documents": loss["documents"], "loss": f"{loss['nll']:.5f}", "seconds": f"{loss['seconds']:.1f}"}
                    for against in ("dense", "dense+tab") if text in self.domain else ("dense",):
                        p = self.paired(row, seed, text, against)
                        yield {**head, **measured, **({k: f"{p[k]:+.5f}" for k in ("diff", "low", "high")} if p else {}), "against": against if p else ""}
                if self.has(f"tasks-{row}-{seed}"):
                    t = self.load(f"tasks-{row}-{seed}")
                    yield {**head, "text": "hellaswag", "accuracy": f"{t['accuracy']:.4f}", "accuracy_low": f"{t['low']:.4f}", "accuracy_high": f"{t['high']:.4f}"}


def equal_quality(lines, texts, against):
    """The largest ratio of a row whose every seed is not worse on every one of these texts; None: no such row, or nothing to compare."""
    best = None
    for row in {x["row"] for x in lines}:
        mine = [x for x in lines if x["row"] == row and x["text"] in texts and x.get("against") == against]
        if texts and {x["text"] for x in mine} == set(texts) and all(float(x["high"]) <= MARGIN for x in mine):
            ratio = min(float(x["ratio_to_16_bit"]) for x in mine)
            best = max(best or (0, ""), (ratio, row))
    return best


def markdown(w, lines):
    texts = list(w.texts)
    out = ["| row | bits per linear weight | MB, tab included | times smaller than 16 bit | " + " | ".join(texts) + " | HellaSwag |", "|---" * (5 + len(texts)) + "|"]
    for row, seed in dict.fromkeys((x["row"], x["seed"]) for x in lines):
        mine = [x for x in lines if (x["row"], x["seed"]) == (row, seed)]
        cells = [row + (f", seed {seed}" if seed > 1 else ""), mine[0]["linear_bits_per_weight"], f"{mine[0]['bytes'] / 1e6:.1f}", mine[0]["ratio_to_16_bit"]]
        for text in texts:
            x = next((x for x in mine if x["text"] == text and x.get("against", "") in ("dense", "")), None)
            cells.append("" if not x else x["loss"] + (f" ({x['diff']}, {x['low']} to {x['high']})" if x.get("diff") else ""))
        t = next((x for x in mine if x["text"] == "hellaswag"), None)
        cells.append(f"{t['accuracy']} ({t['accuracy_low']} to {t['accuracy_high']})" if t else "")
        out.append("| " + " | ".join(cells) + " |")
    unseen = [t for t in texts if t not in w.domain]
    out.append("")
    for what, group, against in (("(a) unseen texts, against dense", unseen, "dense"), ("(b) in the tab's domain, against dense with its own tab", w.domain, "dense+tab"),
                                 ("(c) in the tab's domain, against dense", w.domain, "dense")):
        best = equal_quality(lines, group, against)
        out.append(f"- Equal-quality ratio {what}: " + (f"{best[0]:.2f} ({best[1]})" if best else "no row measured so far is within the margin" if group else "not measured"))
    return "\n".join(out) + "\n"


BEGIN, END = "<!-- tables of bench/true8x.py -->\n", "<!-- end of the tables -->\n"


def report(w):
    lines = list(w.lines())
    text = markdown(w, lines)
    print(text, end="")
    if not w.a.write:
        return
    results = os.path.join(HERE, "docs", "results")
    with open(os.path.join(results, "true-8x.csv"), "w", encoding="utf-8", newline="") as f:
        table = csv.DictWriter(f, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(lines)
    page = os.path.join(results, "true-8x.md")
    old = open(page, encoding="utf-8").read() if os.path.exists(page) else "# A true 8x\n\n" + BEGIN + END
    with open(page, "w", encoding="utf-8") as f:
        f.write(old[:old.index(BEGIN) + len(BEGIN)] + text + old[old.index(END):])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work")
    p.add_argument("--text", action="append", default=[], required=True)
    p.add_argument("--tasks")
    p.add_argument("--calib", default="self")
    p.add_argument("--only", default="")
    p.add_argument("--chunks", type=int, default=100)
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--embedding")
    p.add_argument("--bin", default=os.path.join(HERE, "build", "trimtab"))
    p.add_argument("--report", action="store_true")
    p.add_argument("--write", action="store_true")
    w = Work(p.parse_args())
    for row in w.rows:
        for seed in range(1, w.a.seeds + 1):
            w.score(row, seed)
    report(w)


main()
