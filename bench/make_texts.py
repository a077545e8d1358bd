#!/usr/bin/env python3
"""Kinds of text that no step has seen, for evidence: from what Debian packages hold, disjoint by document, with a manifest.

  make_texts.py OUT_DIR [--characters 400000] [--trimtab build/trimtab] [--model smollm2-135m-instruct] [--only python,perl,...]

Writes JSON Lines files, one document per line, {"id": ..., "text": ...}:
  python    source of Python's standard library (libpython3-stdlib): code
  perl      source of Perl's modules without their manuals (perl-modules): code of another language
  manual    the manuals of the same modules (POD) as plain paragraphs: technical prose
  quotes    quotations, jokes and short dialogues (fortunes), without the files that tools/demo_texts.py uses: prose and talk
and manifest.json: for each file its package and version, SHA-256, documents, characters and, where the program is at hand, tokens. A document is
one file (cut at blank lines into parts of at most 8000 characters, of which one is taken, so that documents are many) or one quotation. Which
ones are taken depends on their text alone. Equal texts are kept once. Exit code 6 when a package is missing (its name is printed).
"""
import argparse
import glob
import hashlib
import json
import os
import re
import subprocess
import sys

SHORTEST, LONGEST = 240, 8000
FORTUNES = "/usr/share/games/fortunes"
OF_THE_DEMO = ("law", "literature", "people", "politics", "science", "songs-poems", "wisdom")


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def read(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except (OSError, UnicodeDecodeError):
        return ""


def part(text):
    """One stretch of whole paragraphs, at most LONGEST characters; which one depends on the text alone."""
    parts, now = [], ""
    for block in re.split(r"(\n\s*\n)", text):
        if len(now) + len(block) > LONGEST and len(now) >= SHORTEST:
            parts.append(now)
            now = ""
        now += block[:LONGEST]
    parts.append(now)
    parts = [p.strip("\n") for p in parts if len(p.strip()) >= SHORTEST]
    return parts[int(digest(text)[:8], 16) % len(parts)] if parts else ""


def python():
    for path in sorted(glob.glob("/usr/lib/python3.*/**/*.py", recursive=True)):
        if "/test" not in path and "/dist-packages/" not in path and "/site-packages/" not in path:
            yield os.path.relpath(path, "/usr/lib"), part(read(path))


def perl_files():
    for path in sorted(glob.glob("/usr/share/perl/5*/**/*.p[lm]", recursive=True) + glob.glob("/usr/share/perl/5*/**/*.pod", recursive=True)):
        if not os.path.islink(path) and "/unicore/" not in path:
            yield os.path.relpath(path, "/usr/share/perl"), read(path)


def perl():
    for name, text in perl_files():
        yield name, part(re.sub(r"(?ms)^=[a-z].*?(^=cut\b[^\n]*\n|\Z)", "", re.split(r"\n__(?:END|DATA)__", text)[0]))


def manual():
    for name, text in perl_files():
        pods = re.findall(r"(?ms)^=[a-z].*?(?=^=cut\b|\Z)", text)
        lines = re.sub(r"(?m)^=(head\d|item)\s+(.*)$", r"\2", re.sub(r"(?m)^=(begin|end|for|over|back|pod|encoding|cut)\b.*$", "", "\n".join(pods)))
        plain = lines
        for _ in range(3):
            plain = re.sub(r"[BCFILSX]<+\s?([^<>]*?)\s?>+", r"\1", plain)
        paragraphs = [p if p.startswith((" ", "\t")) else " ".join(p.split()) for p in re.split(r"\n\s*\n", plain) if p.strip()]
        yield name, part("\n\n".join(paragraphs))


def quotes():
    for path in sorted(glob.glob(FORTUNES + "/*")):
        name = os.path.basename(path)
        if "." in name or name in OF_THE_DEMO or os.path.islink(path):
            continue
        for i, text in enumerate(read(path).split("\n%\n")):
            yield f"{name}-{i}", text.replace("\t", "    ").strip()[:LONGEST]


KINDS = {"python": (python, "libpython3.11-stdlib"), "perl": (perl, "perl-modules-5.36"), "manual": (manual, "perl-modules-5.36"), "quotes": (quotes, "fortunes")}


def version(package):
    try:
        return subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def tokens_of(a, path):
    """Every document tokenized alone, as the measurements do; None without the program."""
    if not os.path.exists(a.trimtab):
        return None
    total = 0
    with open(path, encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in f]
    for i in range(0, len(texts), 200):        # control characters part documents; the vocabulary drops or splits there in any case
        run = subprocess.run([a.trimtab, "tokenize", a.model, "--json", "-f", "-"], input="\x1e".join(texts[i:i + 200]).encode(), capture_output=True, check=True)
        total += json.loads(run.stdout)["n"]
    return total


def is_text(text):
    """Not a table of numbers or of another script."""
    return len(text) >= SHORTEST and sum("a" <= c <= "z" for c in text) > 0.4 * len(text)


def take(kind, characters, seen):
    docs = []
    for name, text in KINDS[kind][0]():
        key = digest(" ".join(text.split()))
        if is_text(text) and key not in seen:
            seen.add(key)
            docs.append((key, name, text))
    docs.sort()
    total = 0
    for key, name, text in docs:
        if total >= characters:
            break
        total += len(text)
        yield f"{kind}:{name}", text


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--characters", type=int, default=400000)
    p.add_argument("--trimtab", default=os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build", "trimtab"))
    p.add_argument("--model", default="smollm2-135m-instruct")
    p.add_argument("--only", default=",".join(KINDS))
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    seen, manifest = set(), {"texts": "from Debian packages", "files": []}
    for kind in a.only.split(","):
        docs = list(take(kind, a.characters, seen))
        if not docs:
            print("missing package: " + KINDS[kind][1])
            sys.exit(6)
        path = os.path.join(a.out, kind + ".jsonl")
        with open(path, "w", encoding="utf-8") as f:
            for name, text in docs:
                f.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
        with open(path, "rb") as f:
            sha = hashlib.sha256(f.read()).hexdigest()
        manifest["files"].append({"file": kind + ".jsonl", "package": KINDS[kind][1], "version": version(KINDS[kind][1]), "sha256": sha, "documents": len(docs),
                                  "characters": sum(len(t) for _, t in docs), "tokens": tokens_of(a, path)})
    with open(os.path.join(a.out, "manifest.json"), "w", encoding="utf-8") as f:
        json.dump(manifest, f, indent=1)
        f.write("\n")
    for e in manifest["files"]:
        print(f"{e['file']:14} {e['documents']:5} documents {e['characters']:8} characters {e['tokens'] or '?':>8} tokens")


main()
