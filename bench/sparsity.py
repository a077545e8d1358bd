#!/usr/bin/env python3
"""What sparsity buys: loss and speed of every pattern beside dense codes of about the same bytes, on the same target tokens.

  sparsity.py WORK_DIR [--only PATTERN] [--text FILE]... [--calib FILE] [--windows 200] [--threads 2] [--isa avx512,avx2] [--rounds 5]
              [--peer PATH/llama-bench --peer-model Q4_0.gguf] [--report] [--write]

Steps are compress-ROW, loss-ROW-TEXT and speed-ROUND; --only takes those that match. Each is one run of a program of build/ and is skipped when its
result is there: stop it at any time, repeat it to go on. A speed round runs every row (and the peer) once, one after the other, so that rows of one
round belong together; the table gives medians over rounds. Nothing else should run during speed rounds. Without --text the texts of tools/demo_texts.py
are used. What is finished is printed as a table; --report does nothing else; --write also puts the numbers into docs/results/sparsity.csv and the table
between the markers of docs/results/sparsity.md (the page is begun where there is none).
"""
import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = "smollm2-135m-instruct"
ROWS = {  # name: (what it is, recipe; None: the model as it came)
    "source": ("as it came", None),
    "dense4": ("dense, 4 bit", "gptq(bits=4,format=own)"),
    "dense3": ("dense, 3 bit", "gptq(bits=3)"),
    "dense2": ("dense, 2 bit", "gptq(bits=2)"),
    "un50-4": ("50 % unstructured + 4 bit", "sparsegpt(sparsity=0.5,bits=4)"),
    "slide2-4": ("slide2 + 4 bit", "slide2"),
    "4of8-4": ("4:8 + 4 bit", "sparsegpt(pattern=4:8,bits=4)"),
    "2of4-4": ("2:4 + 4 bit", "sparsegpt(pattern=2:4,bits=4)"),
    "un75-4": ("75 % unstructured + 4 bit", "sparsegpt(sparsity=0.75,bits=4)"),
    "un50-16": ("50 % unstructured, 16 bit", "sparsegpt(sparsity=0.5,bits=0)"),
}
RUN_FORMATS = ("keep", "auto")
SPARSEQ = ("un50-4", "4of8-4", "un75-4")  # rows that have more than one form to run in


def output(cmd):
    return subprocess.run(cmd, check=True, capture_output=True, text=True).stdout


def rates(rows):
    """Of llama-bench's rows, or ours in the same form."""
    return json.dumps({("prefill" if r["n_prompt"] else "decode") + "_tokens_per_second": r["avg_ts"] for r in json.loads(rows)})


class Work:
    def __init__(self, a):
        self.a, self.dir = a, a.work
        os.makedirs(self.dir, exist_ok=True)
        self.texts = {os.path.splitext(os.path.basename(t))[0]: t for t in a.text} or {t: self.path("texts", t + "-test.jsonl") for t in ("jargon", "faq", "fortunes")}
        self.calib = a.calib or self.path("texts", "jargon-train.jsonl")

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def wanted(self, name):
        return not self.a.report and re.search(self.a.only, name)

    def model(self, row):
        return MODEL if ROWS[row][1] is None else self.path(row + ".gguf")

    def ready(self, row):
        return ROWS[row][1] is None or os.path.exists(self.model(row))

    def keep(self, name, text):
        with open(self.path(name + ".tmp"), "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(self.path(name + ".tmp"), self.path(name))

    def load(self, name):
        try:
            with open(self.path(name), encoding="utf-8") as f:
                return json.load(f)
        except FileNotFoundError:
            return None

    def compress(self, row):
        if self.ready(row) or not self.wanted("compress-" + row):
            return
        print("+ compress " + row, flush=True)
        subprocess.run([self.a.bin, "compress", MODEL, self.model(row), "--recipe", ROWS[row][1], "--data", self.calib, "--seed", "1", "--progress", "off"], check=True,
                       stdout=subprocess.DEVNULL)

    def loss(self, row, text):
        name = f"loss.{row}.{text}"
        if not self.ready(row) or os.path.exists(self.path(name + ".json")) or not self.wanted(f"loss-{row}-{text}"):
            return
        print("+ loss " + row + " " + text, flush=True)
        documents = ["--documents", "-c", "256"] if self.texts[text].endswith(".jsonl") else ["-c", "512"]
        self.keep(name + ".json", output([self.a.bin, "perplexity", "-m", self.model(row), "-f", self.texts[text], *documents, "--chunks", str(self.a.windows),
                                          "--save-losses", self.path(name + ".losses"), "--json", "--progress", "off"]))

    def paired(self, row, against, text):
        files = [self.path(f"loss.{r}.{text}.losses") for r in (against, row)]
        if row == against or not all(os.path.exists(f) for f in files):
            return None
        return json.loads(output([self.a.bin, "perplexity", "--paired", *files, "--json"]))["pairs"][0]

    def speed(self, what, round_, run):
        name = f"speed.{what}.{round_}.json"
        if not os.path.exists(self.path(name)) and self.wanted(f"speed-{round_}"):
            print("+ speed " + what, flush=True)
            self.keep(name, run())

    def ours(self, row, isa, fmt):
        options = ["-p", "512", "-n", "128", "-r", "2", "-t", str(self.a.threads), "-o", "json"]
        return rates(output([self.a.bin, "bench", "-m", self.model(row), *options, "--isa", isa, "--run-format", fmt, "--no-ceilings", "-q"]))

    def peer(self):
        return rates(output([self.a.peer, "-m", self.a.peer_model, "-t", str(self.a.threads), "-p", "512", "-n", "128", "-r", "2", "-o", "json"]))

    def speed_round(self, round_):
        if self.a.peer:
            self.speed("peer", round_, self.peer)
        for isa in self.a.isa.split(","):
            for row in ROWS:
                for fmt in RUN_FORMATS if row in SPARSEQ else ("keep",):
                    if self.ready(row):
                        self.speed(f"{row}.{isa}.{fmt}", round_, lambda: self.ours(row, isa, fmt))

    def medians(self, what):
        found = [self.load(f"speed.{what}.{i}.json") for i in range(self.a.rounds)]
        found = [f for f in found if f]
        mid = lambda key: statistics.median(f[key] for f in found)
        return (mid("decode_tokens_per_second"), mid("prefill_tokens_per_second"), len(found)) if found else (None, None, 0)

    def ratio(self, what):
        """Median over rounds of ours / peer's decoding in the same round."""
        pairs = [(self.load(f"speed.{what}.{i}.json"), self.load(f"speed.peer.{i}.json")) for i in range(self.a.rounds)]
        r = [o["decode_tokens_per_second"] / p["decode_tokens_per_second"] for o, p in pairs if o and p]
        return f"{statistics.median(r):.2f}" if r else ""


def work_through(w):
    if not w.a.text and not os.path.exists(w.path("texts", "manifest.json")) and not w.a.report:
        subprocess.run([sys.executable, os.path.join(HERE, "tools", "demo_texts.py"), w.path("texts")], check=True)
    for row in ROWS:
        w.compress(row)
    for row in ROWS:
        for text in w.texts:
            w.loss(row, text)
    for i in range(w.a.rounds):
        w.speed_round(i)


def bits_of(w, row):
    if not w.ready(row):
        return None, None
    s = json.loads(output([w.a.bin, "show", w.model(row), "--json"]))
    return s["linear_bits_per_weight"], s["bytes"]


COLUMNS = ["row", "what", "recipe", "linear_bits_per_weight", "bytes", "text", "loss", "tokens", "to_source", "to_source_low", "to_source_high", "to_dense3", "to_dense3_low",
           "to_dense3_high", "isa", "run_format", "threads", "decode", "prefill", "decode_to_peer", "rounds"]
BEGIN, END = "<!-- table of bench/sparsity.py -->\n", "<!-- end of the table -->\n"
PAGE = """# What sparsity buys

SmolLM2-135M-Instruct, every row compressed once with the same calibration text and measured on the same target tokens: loss in nats per token, and decoding in
tokens per second (ratio to llama.cpp's Q4_0 of the same rounds). Bits per weight are those of the linear weights with all overheads. Made by `bench/sparsity.py`;
all figures with intervals: [CSV](sparsity.csv).

"""


def show(value, form):
    return "" if value is None else format(value, form)


def rows_of(w):
    """Rows of the CSV, and per row of the table: what, bits, {text: loss}, {isa: (decode, run format, ratio)} with the fastest run format."""
    lines, table = [], []
    for row, (what, recipe) in ROWS.items():
        bits, size = bits_of(w, row)
        head = [row, what, recipe or "", show(bits, ".3f"), size]
        losses, speeds = {}, {}
        for text in w.texts:
            loss = w.load(f"loss.{row}.{text}.json")
            if not loss:
                continue
            losses[text] = loss["nll"]
            diffs = [w.paired(row, against, text) for against in ("source", "dense3")]
            lines.append([*head, text, f"{loss['nll']:.4f}", loss["tokens"], *[show(d and d[k], "+.4f") for d in diffs for k in ("diff", "low", "high")], *[""] * 7])
        for isa in w.a.isa.split(","):
            for fmt in RUN_FORMATS:
                what_ran = f"{row}.{isa}.{fmt}"
                decode, prefill, n = w.medians(what_ran)
                if not n:
                    continue
                ratio = w.ratio(what_ran)
                lines.append([*head, *[""] * 9, isa, fmt, w.a.threads, f"{decode:.1f}", f"{prefill:.1f}", ratio, n])
                if isa not in speeds or decode > speeds[isa][0]:
                    speeds[isa] = (decode, fmt, ratio)
        if losses or speeds:
            table.append((what, bits, losses, speeds))
    return lines, table


def markdown(w, table):
    isas = w.a.isa.split(",")
    out = ["| weights | bits per weight | " + " | ".join("loss, " + t for t in w.texts) + " | " + " | ".join("decode, " + i for i in isas) + " |",
           "|---" * (2 + len(w.texts) + len(isas)) + "|"]
    for what, bits, losses, speeds in table:
        cells = [what, show(bits, ".2f"), *[show(losses.get(t), ".3f") for t in w.texts]]
        for isa in isas:
            decode, fmt, ratio = speeds.get(isa, (None, "", ""))
            notes = ", ".join(n for n in (ratio and ratio + " of the peer", fmt if fmt != "keep" else "") if n)
            cells.append(show(decode, ".0f") + (f" ({notes})" if notes else ""))
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def report(w):
    lines, table = rows_of(w)
    text = markdown(w, table)
    print(text, end="")
    if not w.a.write:
        return
    results = os.path.join(HERE, "docs", "results")
    with open(os.path.join(results, "sparsity.csv"), "w", encoding="utf-8", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows([COLUMNS, *lines])
    page = os.path.join(results, "sparsity.md")
    old = open(page, encoding="utf-8").read() if os.path.exists(page) else PAGE + BEGIN + END
    head, tail = old[:old.index(BEGIN) + len(BEGIN)], old[old.index(END):]
    with open(page, "w", encoding="utf-8") as f:
        f.write(head + text + tail)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("work")
    p.add_argument("--only", default="")
    p.add_argument("--text", action="append", default=[])
    p.add_argument("--calib")
    p.add_argument("--windows", type=int, default=200)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--isa", default="avx512,avx2")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--peer")
    p.add_argument("--peer-model")
    p.add_argument("--report", action="store_true")
    p.add_argument("--write", action="store_true")
    p.add_argument("--bin", default=os.path.join(HERE, "build", "trimtab"))
    w = Work(p.parse_args())
    if not w.a.report:
        work_through(w)
    report(w)


main()
