#!/usr/bin/env bash
# The seeds in the tree are those that the generator makes; our element types equal the python package `gguf` where it is installed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=${1:-build}
if ! command -v python3 >/dev/null; then
    echo "python3 is not installed"
    echo "0 passed, 0 failed, 2 skipped"
    exit 0
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0
python3 "$here/gen_corpus.py" "$tmp" >/dev/null
for target in gguf safetensors peft dequant; do
    if diff -r "$tmp/$target" "$here/../fuzz/corpus/$target" | grep -v 'find_'; then
        echo "FAILED  seeds of $target differ from the generator's"
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
    fi
done
python3 "$here/oracle.py" "$build" >"$tmp/oracle.log"
grep -v '^ok' "$tmp/oracle.log" | sed '$d'
read -r p _ f _ s _ <<<"$(tail -n 1 "$tmp/oracle.log" | tr -d ,)"
echo "$((passed + p)) passed, $((failed + f)) failed, $s skipped"
[ $((failed + f)) = 0 ]
