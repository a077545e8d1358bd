#!/usr/bin/env bash
# The three examples, run as their first lines say. Two need the real model: without it they are skipped, or fail under
# TRIMTAB_REQUIRE_MODEL=1. Texts are this project's own documents.   tests/examples/run.sh [BUILD]
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0

# case NAME EXPECTED_CODE PATTERN COMMAND…: exit code, and a line of the output that matches.
case_of() {
    "${@:4}" >"$tmp/out" 2>"$tmp/err"
    local code=$?
    if [ $code = "$2" ] && grep -qE -- "$3" "$tmp/out" "$tmp/err"; then
        passed=$((passed + 1))
        echo "ok      $1"
    else
        failed=$((failed + 1))
        echo "FAILED  $1: exit code $code, expected $2 and a line like: $3"
        head -n 20 "$tmp/out" "$tmp/err"
    fi
}

case_of methods 0 'sparsegpt\(.*sparsity=0\.5.*\)\+prompt\(.*tokens=32' "$build/example_methods"
case_of methods_bad_recipe 2 'sparsegpt' "$build/example_methods" 'sparsegtp(bits=4)'
case_of generate_usage 2 '^usage' "$build/example_generate"
case_of generate_missing 1 'no such|not found|nowhere' "$build/example_generate" "$tmp/none.gguf" hello
case_of compress_usage 2 '^usage' "$build/example_compress_then_prompt"

model=${TRIMTAB_TEST_MODEL:-smollm2-135m-instruct}
if [ -n "${TRIMTAB_TEST_MODEL:-}" ] || "$build/trimtab" pull --offline "$model" >/dev/null 2>&1; then
    python3 - "$tmp" <<'PY'
import glob, json, sys
docs = [p for f in sorted(glob.glob("docs/**/*.md", recursive=True) + glob.glob("*.md")) for p in open(f, encoding="utf-8").read().split("\n## ")]
docs = [d for d in docs if len(d) > 400]
for name, part in (("train", docs[1::2] * 2), ("test", docs[:4])):
    with open(f"{sys.argv[1]}/{name}.jsonl", "w") as out:
        out.writelines(json.dumps({"text": d}) + "\n" for d in part)
PY
    mkdir "$tmp/work"
    case_of generate 0 'Paris' "$build/example_generate" "$model" 'The capital of France is'
    case_of compress_then_prompt 0 '95' "$build/example_compress_then_prompt" "$model" "$tmp/train.jsonl" "$tmp/test.jsonl" "$tmp/work" 3
elif [ "${TRIMTAB_REQUIRE_MODEL:-0}" = 1 ]; then
    failed=2
    echo "FAILED  generate, compress_then_prompt: the real model is required and not in the cache"
else
    skipped=2
    echo "skipped generate, compress_then_prompt: the real model is not in the cache (trimtab pull $model)"
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
