#!/usr/bin/env bash
# Builds llama.cpp's llama-bench and llama-quantize from the source package of llama-cpp-python, with the flags of this machine, outside the tree.
#   bench/build_peer.sh FOLDER [avx2]     FOLDER/llama-bench, FOLDER/llama-quantize; avx2: only that, F16C, FMA and BMI2, as a peer for our lesser path
# The package comes through the user's own pip, so that its index and proxy settings hold. Needs cmake, ninja, a C++ compiler; some minutes.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,4s/^# *//p' "$0"; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
flags=(-DGGML_NATIVE=ON)
[ "${2:-}" = avx2 ] && flags=(-DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF -DGGML_AVX_VNNI=OFF)
if ! ls "$folder"/source/*/vendor/llama.cpp/CMakeLists.txt >/dev/null 2>&1; then
    mkdir -p "$folder/source"
    # Building its metadata would want the whole tool chain of the Python package; only the archive is of interest.
    "${TRIMTAB_PYTHON:-python3}" -m pip download --no-deps --no-binary :all: --no-build-isolation -d "$folder/source" llama-cpp-python >&2 || true
    ls "$folder"/source/llama_cpp_python-*.tar.gz >/dev/null 2>&1 || { echo "build_peer.sh: pip gave no source package" >&2; exit 1; }
    tar -xzf "$(ls -t "$folder"/source/llama_cpp_python-*.tar.gz | head -n 1)" -C "$folder/source"
fi
source=$(dirname "$(ls -t "$folder"/source/*/vendor/llama.cpp/CMakeLists.txt | head -n 1)")
cmake -G Ninja -S "$source" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF "${flags[@]}" >"$folder/configure.log" 2>&1 ||
    { cat "$folder/configure.log" >&2; exit 1; }
ninja -C "$folder/build" llama-bench llama-quantize >&2
for program in llama-bench llama-quantize; do ln -sf "build/bin/$program" "$folder/$program"; done
echo "$folder/llama-bench"
