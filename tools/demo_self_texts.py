#!/usr/bin/env python3
"""The fallback of the demo where Debian's text packages cannot be had: texts sampled from the model itself. The table then says so.

  demo_self_texts.py TRIMTAB MODEL OUT_DIR [DOCUMENTS]
"""
import hashlib
import json
import os
import subprocess
import sys

OPENINGS = {
    "jargon": ("A word that programmers use:", "In the dictionary of computing, the entry reads:", "The term comes from early computers:", "Definition:"),
    "faq": ("Question: How do I install a program?\nAnswer:", "To keep a system up to date,", "A package is", "The kernel is"),
    "fortunes": ("Once upon a time", "The poem begins:", "My grandfather used to say that", "In the history of the city,"),
}


def sample(binary, model, opening, seed):
    out = subprocess.run([binary, "run", "--raw", "-m", model, "-p", opening, "-n", "220", "--temp", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--seed", str(seed), "--json"],
                         capture_output=True, text=True, check=True).stdout
    return opening + json.loads(out)["text"]


def main():
    binary, model, out = sys.argv[1:4]
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 48
    os.makedirs(out, exist_ok=True)
    print("Debian's text packages are not to be had: sampling texts from the model itself", file=sys.stderr)
    manifest = {"texts": f"sampled from {model} itself (Debian's text packages could not be installed)", "files": []}
    plan = [("jargon-train", "jargon", 2 * count), ("jargon-valid", "jargon", count // 4), ("jargon-test", "jargon", count // 2), ("faq-test", "faq", count // 2), ("fortunes-test", "fortunes", count // 2)]
    seed = 1
    for name, kind, n in plan:
        path = os.path.join(out, name + ".jsonl")
        with open(path, "w", encoding="utf-8") as f:
            for i in range(n):
                text = sample(binary, model, OPENINGS[kind][i % len(OPENINGS[kind])], seed)
                seed += 1
                f.write(json.dumps({"id": f"{name}-{i}", "text": text}, ensure_ascii=False) + "\n")
        with open(path, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        manifest["files"].append({"file": name + ".jsonl", "package": "self", "version": f"seeds up to {seed - 1}", "sha256": digest, "documents": n})
    with open(os.path.join(out, "manifest.json"), "w", encoding="utf-8") as f:
        json.dump(manifest, f, indent=1)
        f.write("\n")


main()
