#!/usr/bin/env bash
# `make bench`: opening, prefill and decoding of the packaged model and of its Q4_0 form on this machine, one JSON line each, threads 1 and 2.
# With PEER=path/to/llama-bench in the environment: beside llama.cpp, interleaved, ratios as CSV (bench/peers.py).
set -euo pipefail
cd "$(dirname "$0")/.."
bin=build/trimtab
work=${BENCH_DIR:-build/bench}
mkdir -p "$work"
model=$("$bin" pull smollm2-135m-instruct)
[ -s "$work/q4_0.gguf" ] || "$bin" compress "$model" "$work/q4_0.gguf" Q4_0 >/dev/null
[ -s "$work/q8_0.gguf" ] || "$bin" convert "$model" "$work/q8_0.gguf" --outtype q8_0 >/dev/null
for file in "$model" "$work/q4_0.gguf" "$work/q8_0.gguf"; do
    for threads in 1 2; do
        build/bench_speed "$file" -t "$threads"
        build/bench_speed "$file" -t "$threads" -p 0 -n 64 -d 1024
    done
done
if [ -n "${PEER:-}" ]; then
    python3 bench/peers.py "$work/q4_0.gguf" "$work/q4_0.gguf" --peer "$PEER" --label Q4_0
    python3 bench/peers.py "$work/q4_0.gguf" "$work/q4_0.gguf" --peer "$PEER" --label Q4_0 -p 0 -n 64 -d 1024
    python3 bench/peers.py "$work/q8_0.gguf" "$work/q8_0.gguf" --peer "$PEER" --label Q8_0
fi
