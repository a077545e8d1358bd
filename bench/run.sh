#!/usr/bin/env bash
# `make bench`: opening, prompt and generation of the packaged model, of its Q4_0 and of its Q8_0 form on this machine, threads 1 and 2, as a table;
# then every inner loop beside what the machine allows. BENCH_DIR: where the models are kept (build/bench).
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${TRIMTAB:-build/trimtab}
work=${BENCH_DIR:-build/bench}
mkdir -p "$work"
model=$("$bin" pull smollm2-135m-instruct)
[ -s "$work/135m-q4_0.gguf" ] || "$bin" compress "$model" "$work/135m-q4_0.gguf" Q4_0 >/dev/null
[ -s "$work/135m-q8_0.gguf" ] || "$bin" convert "$model" "$work/135m-q8_0.gguf" --outtype q8_0 >/dev/null
"$bin" bench "$model" "$work/135m-q4_0.gguf" "$work/135m-q8_0.gguf" -t 1,2 -p 512,2048 -n 128 "$@"
"$bin" bench "$model" "$work/135m-q4_0.gguf" "$work/135m-q8_0.gguf" -t 1,2 -p 0 -n 64 -d 1024 "$@"
"$bin" doctor --bench-kernels
