#!/usr/bin/env python3
"""docs/METHODS.md from the program's own list of methods: `gen_method_pages.py TRIMTAB > docs/METHODS.md`. tests/docs checks that it is current."""
import json
import subprocess
import sys

methods = json.loads(subprocess.run([sys.argv[1], "methods", "--json"], capture_output=True, text=True, check=True).stdout)["methods"]
print("# Methods\n\nMade from `src/methods/methods.inc` by `tools/gen_method_pages.py`; edit the methods, not this page.\n")
print("A recipe joins methods: `sparsegpt(sparsity=0.5,bits=4)+prompt(tokens=32)`. Compress steps belong to `trimtab compress --recipe`, a train step to `trimtab tune --method`.\n")
for m in methods:
    paper = m["paper"]
    print(f"## {m['name']}\n\n{m['summary'].capitalize()}.\n\nFamily {m['family']}, stage {m['stage']}, version {m['version']}. {paper['title']}, {paper['year']}, {paper['id']}.\n")
    print("| knob | type | range | default | when | what |\n|---|---|---|---|---|---|")
    for k in m["knobs"]:
        span = k["choices"] or (f"{k['min']:g} … {k['max']:g}" if k["min"] is not None and k["max"] is not None else "")
        print(f"| `{k['name']}` | {k['type']} | {span.replace('|', ', ')} | {k['default'] or '-'} | {(k['when'] or 'always').replace('|', ' or ')} | {k['help']} |")
    print()
