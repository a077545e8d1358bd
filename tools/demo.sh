#!/usr/bin/env bash
# The main job, end to end, on a real model: pull, compress (joint 50 % + 4 bit), learn a prompt through the compressed weights, and
# measure what was lost and won back on held-out text. Ends with one table and one generation of each row. Under 20 minutes on 2 cores.
#
#   tools/demo.sh [WORK_DIR]          default: demo/ in the clone; finished steps are kept, so that a repeated run goes on
# Knobs (environment): DEMO_MODEL, DEMO_RECIPE, DEMO_TAB (the prompt's knobs), DEMO_WINDOWS (test windows of each text).
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
dir=${1:-demo}
model=${DEMO_MODEL:-smollm2-135m-instruct}
recipe=${DEMO_RECIPE:-sparsegpt(sparsity=0.5,bits=4)}
tab=${DEMO_TAB:-tokens=32,steps=100,batch=2,length=256}
windows=${DEMO_WINDOWS:-100}
bin=$here/build/trimtab
started=$(date +%s)
say() { printf '\n== %s  [%s s]\n' "$*" "$(($(date +%s) - started))" >&2; }

tools/install_deps.sh
make -s
mkdir -p "$dir"
cd "$dir"

say "pull $model"
"$bin" pull "$model" >/dev/null

say "texts"
if ! missing=$(python3 "$here/tools/demo_texts.py" texts); then
    packages=${missing#missing packages: }
    # shellcheck disable=SC2086  # a list of package names
    "$here/tools/install_deps.sh" $packages || true
    python3 "$here/tools/demo_texts.py" texts || python3 "$here/tools/demo_self_texts.py" "$bin" "$model" texts
fi
python3 -c 'import json; m = json.load(open("texts/manifest.json")); print("texts:", m["texts"]); [print("  ", f["file"], f["documents"], "documents,", f["package"], f["version"]) for f in m["files"]]' >&2

say "compress: $recipe"
[ -s small.gguf ] || "$bin" compress "$model" small.gguf --recipe "$recipe" --data texts/jargon-train.jsonl --seed 1

tune() { # name, model, knobs of the prompt
    say "tune $1"
    [ -s "$1/adapter_model.safetensors" ] || "$bin" tune -m "$2" --teacher "$model" --method "prompt($3)" --data texts/jargon-train.jsonl \
        --valid texts/jargon-valid.jsonl --seed 1 -o "$1"
}
tune tab-untrained small.gguf "${tab%%,*},steps=0"      # the first knob is the number of tokens; the start is the same
tune tab small.gguf "$tab"
tune tab-dense "$model" "$tab"

measure() { # row, model, adapter or ""
    for text in jargon faq fortunes; do
        [ -s "$1.$text.json" ] || "$bin" perplexity -m "$2" ${3:+--adapter "$3"} -f "texts/$text-test.jsonl" --documents -c 256 --chunks "$windows" \
            --save-losses "$1.$text.losses" --json >"$1.$text.tmp"
        [ -s "$1.$text.json" ] || mv "$1.$text.tmp" "$1.$text.json"
    done
    [ -s "$1.run.json" ] || "$bin" run -m "$2" ${3:+--adapter "$3"} --raw -p "A hacker is someone who" -n 48 --temp 0 --json >"$1.run.tmp"
    [ -s "$1.run.json" ] || mv "$1.run.tmp" "$1.run.json"
    [ -s "$1.show.json" ] || "$bin" show "$2" --json >"$1.show.json"
}
say "measure"
measure dense "$model" ""
measure compressed small.gguf ""
measure compressed+untrained small.gguf tab-untrained
measure compressed+tab small.gguf tab
measure dense+tab "$model" tab-dense
python3 "$here/tools/demo_table.py" "$bin" . | tee table.md
say "done"
