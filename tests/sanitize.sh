#!/usr/bin/env bash
# All unit tests and fuzz replays in a sanitizer build of their own.   tests/sanitize.sh SANITIZER BUILD
set -eu
cd "$(dirname "$0")/.."
cmake -G Ninja -S . -B "$2" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTT_SANITIZE="$1" >/dev/null
ninja -C "$2" tests fuzzers
TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp ${TSAN_OPTIONS:-}" ctest --test-dir "$2" -j2 --output-on-failure
