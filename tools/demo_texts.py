#!/usr/bin/env python3
"""Texts written by people, for the demo and the measurements: from Debian's text packages, disjoint by document, with a manifest.

  demo_texts.py OUT_DIR

Writes JSON Lines files, one document per line, {"text": ..., "id": ...}:
  jargon-train / jargon-valid / jargon-test   entries of the Jargon File (jargon-text): the tab's kind of text
  faq-test                                    sections of the Debian FAQ (debian-faq): another kind, explanations
  fortunes-test                               quotations and verse (fortunes): another kind, prose and poems
and manifest.json: for each file its source, package version, SHA-256, documents and characters. A document is in exactly one file; equal
texts are kept once. Exit code 6 when a package is missing (its name is printed).
"""
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys

JARGON = "/usr/share/doc/jargon-text/jargon.txt.gz"
FAQ = ("/usr/share/doc/debian/FAQ/debian-faq.en.txt.gz", "/usr/share/doc/debian/FAQ/debian-faq.txt.gz")
FORTUNES = "/usr/share/games/fortunes"
FORTUNE_FILES = ("law", "literature", "people", "politics", "science", "songs-poems", "wisdom")
SHORTEST = 240  # characters: a document below this gives too few target tokens to say anything


def read_gz(path):
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as f:
        return f.read()


def unwrap(text):
    """Joins the lines of a paragraph; keeps blank lines, and lines indented deeper than their paragraph (verse, code)."""
    out = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        indent = min(len(l) - len(l.lstrip()) for l in lines if l.strip()) if any(l.strip() for l in lines) else 0
        lines = [l[indent:].rstrip() for l in lines]
        deep = [l for l in lines if l.startswith("  ")]
        out.append("\n".join(lines) if len(deep) * 2 > len(lines) else " ".join(l.strip() for l in lines))
    return "\n\n".join(p for p in out if p.strip())


def jargon():
    body = read_gz(JARGON).split("\nAppendix A. Hacker Folklore")[0]
    starts = [m.start() for m in re.finditer(r"(?m)^   :[^:\n]+:", body)]
    for a, b in zip(starts, starts[1:] + [len(body)]):
        yield re.sub(r"[{}]", "", unwrap(body[a:b])).lstrip(":").replace(":", ",", 1)


def faq(path):
    body = read_gz(path)
    body = body[re.search(r"(?m)^Chapter\s1\.", body).start():]
    starts = [m.start() for m in re.finditer(r"(?m)^\d+\.\d+(\.\d+)*\.\s", body)]
    for a, b in zip(starts, starts[1:] + [len(body)]):
        head, _, rest = body[a:b].partition("\n\n")
        yield re.sub(r"^[\d.]+\s+", "", " ".join(head.split())) + "\n\n" + unwrap(re.sub(r"\nChapter\s\d+\..*", "", rest))


def fortunes():
    for name in FORTUNE_FILES:
        path = os.path.join(FORTUNES, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as f:
                for text in f.read().split("\n%\n"):
                    yield text.replace("\t", "    ").strip()


def version(package):
    try:
        return subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(out, name, docs, package, manifest):
    path = os.path.join(out, name + ".jsonl")
    with open(path, "w", encoding="utf-8") as f:
        for i, text in docs:
            f.write(json.dumps({"id": i, "text": text}, ensure_ascii=False) + "\n")
    with open(path, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    manifest["files"].append({"file": name + ".jsonl", "package": package, "version": version(package), "sha256": digest,
                              "documents": len(docs), "characters": sum(len(t) for _, t in docs)})


def unique(docs, seen):
    for text in docs:
        text = text.strip()
        key = " ".join(text.split())
        if len(text) >= SHORTEST and key not in seen:
            seen.add(key)
            yield text


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = sys.argv[1]
    faq_path = next((p for p in FAQ if os.path.exists(p)), None)
    missing = [p for p, there in (("jargon-text", os.path.exists(JARGON)), ("debian-faq", faq_path), ("fortunes", os.path.isdir(FORTUNES))) if not there]
    if missing:
        print("missing packages: " + " ".join(missing))
        sys.exit(6)
    os.makedirs(out, exist_ok=True)
    seen, manifest = set(), {"texts": "written by people", "files": []}
    parts = {"train": [], "valid": [], "test": []}
    for i, text in enumerate(unique(jargon(), seen)):
        h = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 100  # the part depends on the text alone
        parts["test" if h < 18 else "valid" if h < 25 else "train"].append((f"jargon-{i}", text))
    for part, docs in parts.items():
        write(out, "jargon-" + part, docs, "jargon-text", manifest)
    write(out, "faq-test", [(f"faq-{i}", t) for i, t in enumerate(unique(faq(faq_path), seen))], "debian-faq", manifest)
    write(out, "fortunes-test", [(f"fortune-{i}", t) for i, t in enumerate(unique(fortunes(), seen))], "fortunes", manifest)
    with open(os.path.join(out, "manifest.json"), "w", encoding="utf-8") as f:
        json.dump(manifest, f, indent=1)
        f.write("\n")


main()
