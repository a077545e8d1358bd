#!/usr/bin/env python3
"""Do tabs transfer? Tabs made at one compression level are scored at every other, on several texts: the stitched chain
(made at 3 bit, used at 2 bit and so on) is every pair of levels. All on the same target tokens, paired with the same model without a tab, 95 % intervals clustered by document.

  transfer.py WORK_DIR --text NAME=FILE.jsonl ... [--train NAME=FILE] [--steps 200] [--chunks 60] [--levels 4,3,2] [--loss kl] [--method prompt] [--report]

Levels are bits of gptq(bits=N,group=64), `dense` is the model itself. A tab is learned through each level from each training text (default: text sampled
from the model), and scored through every level on every text: WORK_DIR/transfer.csv. Every step is one run of build/trimtab and is skipped when
its result is there: stop it at any time, repeat it to go on. --report only writes the CSV of what is finished.
"""
import argparse
import csv
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(HERE, "build", "trimtab")
FIELDS = ("tab", "made_at", "learned_from", "used_at", "text", "tokens", "documents", "loss_without", "loss_with", "diff", "low", "high", "dense_loss")


class Work:
    def __init__(self, a):
        self.a, self.dir = a, a.work
        os.makedirs(self.dir, exist_ok=True)
        self.texts = dict(t.split("=", 1) for t in a.text)
        self.train = dict(t.split("=", 1) for t in a.train) or {"self": "self"}
        self.levels = ["dense"] + [l for l in a.levels.split(",") if l]

    def path(self, name):
        return os.path.join(self.dir, name)

    def run(self, *args):
        print("+ trimtab " + " ".join(args), flush=True)
        with open(self.path("log.txt"), "a", encoding="utf-8") as f:
            return subprocess.run([BIN, *args], check=True, stdout=subprocess.PIPE, stderr=f, text=True).stdout

    def model(self, level):
        if level == "dense":
            return self.a.model
        out = self.path(f"gptq{level}.gguf")
        if not os.path.exists(out) and not self.a.report:
            self.run("compress", self.a.model, out, "--recipe", f"gptq(bits={level},group=64)", "--data", next(iter(self.train.values())), "--samples", str(self.a.samples), "--seed", "1")
        return out

    def tab(self, level, train):
        out = self.path(f"tab-{self.a.method}-{level}-{train}")
        if not os.path.exists(os.path.join(out, "adapter_model.safetensors")) and not self.a.report:
            self.run("tune", "-m", self.model(level), "--teacher", self.a.model, "--data", self.train[train], "--guard", "none", "--seed", "1", "-o", out, "--method",
                     f"{self.a.method}(tokens={self.a.tokens},steps={self.a.steps},batch={self.a.batch},length=256,loss={self.a.loss})")
        return out

    def losses(self, level, text, tab=None):
        name = self.path(f"{level}.{text}" + (f".{os.path.basename(tab)}" if tab else ""))
        if not os.path.exists(name + ".json"):
            if self.a.report:
                return None
            out = self.run("perplexity", "-m", self.model(level), "-f", self.texts[text], "--documents", "-c", "256", "--chunks", str(self.a.chunks), "--exact", "--save-losses",
                           name + ".losses", "--json", *(["--adapter", tab] if tab else []))
            with open(name + ".tmp", "w", encoding="utf-8") as f:
                f.write(out)
            os.rename(name + ".tmp", name + ".json")
        with open(name + ".json", encoding="utf-8") as f:
            return name + ".losses", json.load(f)["nll"]

    def row(self, made, train, used, text):
        tab = self.tab(made, train)
        dense, without, with_tab = self.losses("dense", text), self.losses(used, text), self.losses(used, text, tab)
        if not (dense and without and with_tab):
            return None
        pair = json.loads(subprocess.run([BIN, "perplexity", "--paired", without[0], with_tab[0], "--json"], check=True, capture_output=True, text=True).stdout)["pairs"][0]
        return {"tab": os.path.basename(tab), "made_at": made, "learned_from": train, "used_at": used, "text": text, "tokens": pair["tokens"], "documents": pair["documents"],
                "loss_without": f"{without[1]:.5f}", "loss_with": f"{with_tab[1]:.5f}", "diff": f"{pair['diff']:+.5f}", "low": f"{pair['low']:+.5f}", "high": f"{pair['high']:+.5f}",
                "dense_loss": f"{dense[1]:.5f}"}


def main():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work")
    p.add_argument("--model", default="smollm2-135m-instruct")
    p.add_argument("--text", action="append", default=[], required=True)
    p.add_argument("--train", action="append", default=[])
    p.add_argument("--levels", default="4,3,2")
    p.add_argument("--steps", type=int, default=200)
    p.add_argument("--method", default="prompt", help="prompt or prefix")
    p.add_argument("--tokens", type=int, default=32)
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--samples", type=int, default=32)
    p.add_argument("--chunks", type=int, default=60)
    p.add_argument("--loss", default="kl")
    p.add_argument("--report", action="store_true")
    w = Work(p.parse_args())
    rows = [w.row(made, train, used, text) for made in w.levels[1:] for train in w.train for used in w.levels for text in w.texts]
    with open(w.path("transfer.csv"), "w", newline="", encoding="utf-8") as f:
        out = csv.DictWriter(f, FIELDS)
        out.writeheader()
        out.writerows(r for r in rows if r)
    for r in rows:
        if r:
            print(f"{r['text']:10} made at {r['made_at']:5} from {r['learned_from']:8} used at {r['used_at']:5}: {r['loss_without']} -> {r['loss_with']} ({r['diff']} [{r['low']}, {r['high']}])")
    return 0 if any(rows) else 1


sys.exit(main())
