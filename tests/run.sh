#!/usr/bin/env bash
# What `make check` runs: builds everything, then unit tests and fuzz replays, the same of the outer layers under sanitizers, the checks of
# the source, and every tests/*/run.sh. The last line adds up all cases: "N passed, N failed, N skipped".
#
#   tests/run.sh [BUILD]        TRIMTAB_CHECK_QUICK=1 leaves the sanitizer build out
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
mkdir -p "$build"
build=$(cd "$build" && pwd)
logs=$build/check
mkdir -p "$logs"
passed=0 failed=0 skipped=0
start=$SECONDS

# count LOG NAME: adds the last "N passed, N failed, N skipped" line of a log; none is one failure.
count() {
    local line
    line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$1" | tail -n 1)
    if [ -z "$line" ]; then
        failed=$((failed + 1))
        printf '%-28s no result\n' "$2"
        return
    fi
    read -r p _ f _ s _ <<<"${line//,/}"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '%-28s %s\n' "$2" "$line"
}

configure() { cmake -G Ninja -S . -B "$1" -DCMAKE_BUILD_TYPE=RelWithDebInfo "${@:2}" >"$logs/configure.log" 2>&1 || { cat "$logs/configure.log"; exit 1; }; }

make_all() {
    if ! ninja -C "$1" "${@:2}" >"$logs/build.log" 2>&1; then
        grep -aE 'error|FAILED|undefined reference|ninja:' "$logs/build.log" | head -n 40
        echo "the build failed; see $logs/build.log"
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    fi
    if grep -aqE ' warning: ' "$logs/build.log"; then
        grep -aE ' warning: ' "$logs/build.log" | head -n 20
        failed=$((failed + 1))
        echo "the build has warnings"
    fi
}

# suite BUILD LABEL [ctest arguments]: runs the test programs; each prints its own sum, a crashed one prints none and is one failure.
suite() {
    local log=$logs/$2.log
    ctest --test-dir "$1" -j2 --verbose "${@:3}" >"$log" 2>&1
    awk '
        match($0, /^[0-9]+: /)                           { id = substr($0, 1, RLENGTH - 2); text = substr($0, RLENGTH + 1)
                                                           if (text ~ /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/) sum[id] = text
                                                           if (text ~ /^FAILED |ERROR: |runtime error|Sanitizer|Assertion/) print "    " text > "/dev/stderr" }
        /^ *[0-9]+\/[0-9]+ Test +#[0-9]+:/               { match($0, /#[0-9]+/); id = substr($0, RSTART + 1, RLENGTH - 1); seen[id] = 1
                                                           name[id] = $0; sub(/^.*#[0-9]+: /, "", name[id]); sub(/ \..*$/, "", name[id])
                                                           if ($0 !~ / Passed /) bad[id] = 1 }
        END { for (id in seen) { split(sum[id], w, " "); p += w[1]; f += w[3]; s += w[5]
                                 if (!(id in sum) && !(id in bad)) p++
                                 if ((id in bad) && w[3] == 0) { f++; print "    " name[id] " ended badly" > "/dev/stderr" } }
              printf "%d passed, %d failed, %d skipped\n", p, f, s }' "$log" >"$log.sum"
    count "$log.sum" "$2"
    grep -aq 'No tests were found' "$log" && { failed=$((failed + 1)); echo "    no tests in $1"; }
}

# check NAME COMMAND…: one case; silent when it passes.
check() {
    if "${@:2}" >"$logs/$1.log" 2>&1; then
        passed=$((passed + 1))
        printf '%-28s ok\n' "$1"
    else
        failed=$((failed + 1))
        printf '%-28s FAILED\n' "$1"
        head -n 20 "$logs/$1.log" | sed 's/^/    /'
    fi
}

configure "$build"
make_all "$build" all tests fuzzers
echo "built in $((SECONDS - start)) s"

check check_deps tools/check_deps "$build"
check check_banned tools/check_banned
check check_asserts tools/check_asserts

suite "$build" tests

for script in tests/*/run.sh; do
    [ -e "$script" ] || continue
    name=$(basename "$(dirname "$script")")
    TRIMTAB_BUILD=$build bash "$script" "$build" >"$logs/$name.log" 2>&1
    code=$?
    before=$failed
    count "$logs/$name.log" "$name"
    if [ "$failed" != "$before" ] || [ $code != 0 ]; then
        [ "$failed" = "$before" ] && failed=$((failed + 1))
        grep -aiE 'fail|error|not equal|differ|^[-+]' "$logs/$name.log" | head -n 20 | sed 's/^/    /'
    fi
done

if [ -z "${TRIMTAB_CHECK_QUICK:-}" ]; then
    configure "$build/asan" -DTT_SANITIZE=address,undefined
    make_all "$build/asan" tests_outer
    suite "$build/asan" sanitized -R '^(base|formats|text|fuzz)/'
fi

echo "checked in $((SECONDS - start)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
