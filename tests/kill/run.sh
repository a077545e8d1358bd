#!/usr/bin/env bash
# What a killed, starved or misled run leaves behind. campaign.py holds the campaigns; this finds the program and makes the files they work on.
#   tests/kill/run.sh [BUILD] [SCALE]     SCALE multiplies kills and faults (1: what `make check` runs; 25: 1,000 kills a verb)
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(cd "${1:-${TRIMTAB_BUILD:-$here/../../build}}" && pwd)
if [ ! -x "$build/trimtab" ] || [ ! -x "$build/kill_make_tiny" ]; then
    echo "no programs in $build: build trimtab_cli and kill_make_tiny"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
if ! command -v python3 >/dev/null; then
    echo "skipped campaigns: python3 is not installed"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
scratch=$(mktemp -d -p /dev/shm 2>/dev/null) || scratch=$(mktemp -d)            # in memory: thousands of fsync
trap 'mountpoint -q "$scratch/small" && umount "$scratch/small"; rm -rf "$scratch"' EXIT
mkdir "$scratch/files"
if ! KILL_FOLDER=$scratch/files "$build/kill_make_tiny" >"$scratch/log" 2>&1; then
    cat "$scratch/log"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
python3 "$here/campaign.py" "$build/trimtab" "$scratch" "$here/../fuzz/corpus" "${2:-1}"
