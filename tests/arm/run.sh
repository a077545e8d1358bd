#!/usr/bin/env bash
# The layers up to tensor on 64-bit Arm: cross-built without any library but libc, their unit tests run under QEMU's user mode, as a processor
# with the dot product and 8-bit matrix products (max) and as one with neither (cortex-a72). Each case repeats over all levels that
# its processor has. Skipped where compiler or emulator are missing (Debian: gcc-aarch64-linux-gnu, qemu-user-static).
#   tests/arm/run.sh [BUILD]
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build}/arm
for tool in aarch64-linux-gnu-gcc qemu-aarch64-static; do
    if ! command -v $tool >/dev/null; then
        echo "skipped: $tool is not installed"
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    fi
done
mkdir -p "$build"
if ! cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_TOOLCHAIN_FILE="$PWD/cmake/aarch64-linux-gnu.cmake" -DTT_CORE=ON >"$build/configure.log" 2>&1; then
    cat "$build/configure.log"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
if ! ninja -C "$build" tests >"$build/build.log" 2>&1; then
    grep -aE 'error|FAILED|undefined reference|ninja:' "$build/build.log" | head -n 40
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
passed=0 failed=0 skipped=0
mapfile -t programs < <(cd "$build" && ctest -N | sed -n 's|^ *Test *#[0-9]*: \(.*\)/|\1_|p')
if grep -aE ' warning: ' "$build/build.log"; then failed=1; fi
# Only kernels differ between the processors, and those in f32 do not. Emulation is slow: one long case of f32 products is left out.
runs=()
for program in "${programs[@]}"; do
    case $program in
        kernels_test_gemm) runs+=("max $program shapes_around syrk threads empty") ;;
        *_attention | *_bf16) runs+=("max $program") ;;
        kernels_*) runs+=("max $program" "cortex-a72 $program") ;;
        *) runs+=("max $program") ;;
    esac
done
export build
run() { QEMU_CPU=$1 timeout 300 qemu-aarch64-static -L /usr/aarch64-linux-gnu "$build/$2" "${@:3}" >"$build/$2.$1.log" 2>&1 || echo "ended with $?" >>"$build/$2.$1.log"; }
export -f run
printf '%s\n' "${runs[@]}" | xargs -P 2 -L 1 bash -c 'run "$@"' run
for r in "${runs[@]}"; do
    read -r cpu program _ <<<"$r"
    log=$build/$program.$cpu.log
    grep -aE '^FAILED' "$log" | sed "s/^/$r: /"
    line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
    if [ -n "$line" ]; then
        read -r p _ f _ s _ <<<"${line//,/}"
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    else
        failed=$((failed + 1))
        echo "FAILED $r: $(tail -n 1 "$log")"
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
