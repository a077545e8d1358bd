#!/usr/bin/env bash
# The command line, as people meet it.
#   tests/cli/run.sh [BUILD]              runs *.txt (transcripts) and *.sh (scripts) of this folder
#   tests/cli/run.sh --refresh [BUILD]    writes what the program says now into the transcripts: review the diff like code
#
# A transcript is a list of "$ command" lines, each followed by what it prints (standard output and error) and "[code]" when that is not 0.
# A script gets $trimtab, $build, $here and the functions below; it runs in a fresh folder of its own.
set -u
refresh=
[ "${1:-}" = --refresh ] && { refresh=1; shift; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$(cd "${1:-${TRIMTAB_BUILD:-$root/build}}" && pwd)
trimtab=$build/trimtab
passed=0 failed=0 skipped=0
[ -x "$trimtab" ] || { echo "no program in $build"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }

scratch=$(mktemp -d "${TMPDIR:-/tmp}/trimtab-cli-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin"
ln -s "$trimtab" "$scratch/bin/trimtab"
PATH=$scratch/bin:$PATH
for name in $(compgen -e | grep -E '^(TRIMTAB_ARG_|HF_HUB_OFFLINE)'); do unset "$name"; done
real_cache=${TRIMTAB_CACHE:+$TRIMTAB_CACHE/models}
real_cache=${real_cache:-${XDG_CACHE_HOME:-$HOME/.cache}/trimtab/models}
model=${TRIMTAB_TEST_MODEL:-$real_cache/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf}
export XDG_CONFIG_HOME=$scratch/config LC_ALL=C.UTF-8

ok() { passed=$((passed + 1)); echo "ok      $1"; }
bad() { failed=$((failed + 1)); echo "FAILED  $1: ${*:2}"; }
skip() { skipped=$((skipped + 1)); echo "skipped $1: ${*:2}"; }
# check NAME COMMAND…: passes when the command does
check() { local name=$1; shift; if "$@" >"$scratch/check" 2>&1; then ok "$name"; else bad "$name" "$* ($(head -c 300 "$scratch/check"))"; fi; }
# code NAME WANTED COMMAND…: exit code; output in $scratch/out, $scratch/err
code() {
    local name=$1 want=$2 got; shift 2
    "$@" >"$scratch/out" 2>"$scratch/err" </dev/null; got=$?
    if [ "$got" = "$want" ]; then ok "$name"; else bad "$name" "exit $got, expected $want: $(head -c 300 "$scratch/err")"; fi
}
# json FILE EXPRESSION: a Python expression over the document d is true
json() { python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$1" "$2"; }
# needs_model NAME: false, and counted, when the real model is not there
needs_model() {
    [ -f "$model" ] && return 0
    if [ "${TRIMTAB_REQUIRE_MODEL:-0}" = 1 ]; then bad "$1" "the real model is required"; else skip "$1" "the real model is not in the cache"; fi
    return 1
}

run_block() { (cd "$scratch/folder" && bash -c "$1" </dev/null 2>&1; got=$?; [ $got = 0 ] || echo "[$got]"); }

transcript() {
    local file=$1 command='' line
    rm -rf "$scratch/folder"; mkdir "$scratch/folder"
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        '$ '*) command=${line#'$ '}; echo "$line"; run_block "$command" ;;
        '#'*) [ -z "$command" ] && echo "$line" ;;
        esac
    done <"$file" >"$scratch/now"
    if [ -n "$refresh" ]; then cp "$scratch/now" "$file"; fi
    if diff -u "$file" "$scratch/now" >"$scratch/diff"; then ok "$(basename "$file")"; else bad "$(basename "$file")" "says something else"; cat "$scratch/diff"; fi
}

for file in "$here"/*.txt; do transcript "$file"; done
for file in "$here"/*.sh; do
    [ "$file" = "$here/run.sh" ] && continue
    rm -rf "$scratch/folder"; mkdir "$scratch/folder"
    cd "$scratch/folder" || exit 1
    # shellcheck disable=SC1090
    . "$file"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
