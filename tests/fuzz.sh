#!/usr/bin/env bash
# Each fuzz target with libFuzzer, one after the other, with the bounds of the plan: 512 MiB, 2 s per input, any leak is a find.
# New inputs stay in BUILD/corpus/<target>; finds in BUILD/finds.   tests/fuzz.sh BUILD SECONDS [target…]
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 seconds=$2
shift 2
compiler=$(command -v clang || command -v clang-19 || command -v clang-16 || command -v clang-15 || command -v clang-14) || { echo "libFuzzer needs clang"; exit 1; }
cmake -G Ninja -S . -B "$build" -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTT_FUZZ=ON -DTT_SANITIZE=address,undefined >/dev/null
ninja -C "$build" fuzzers
mkdir -p "$build/finds"
code=0
for program in "$build"/fuzz_*; do
    [ -x "$program" ] || continue
    name=$(basename "$program")
    name=${name#fuzz_}
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    mkdir -p "$build/corpus/$name"
    echo "== $name"
    "$program" -max_total_time="$seconds" -rss_limit_mb=512 -timeout=2 -print_final_stats=1 -artifact_prefix="$build/finds/$name-" \
        "$build/corpus/$name" "tests/fuzz/corpus/$name" 2>&1 | tail -n 25 || code=1
done
exit $code
