#!/usr/bin/env bash
# What a user of the library meets: installs into a temporary prefix, then compiles a small consumer through pkg-config (shared and
# static) and through CMake; the shared library exports tt_* and nothing else; the header compiles alone, in C and in C++.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 skipped=0

try() {
    if "${@:2}" >"$tmp/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok      $1"
    else
        failed=$((failed + 1))
        echo "FAILED  $1"
        cat "$tmp/log"
    fi
}

prefix=$tmp/usr
export DESTDIR=
try install cmake --install "$build" --prefix "$prefix"
library=$(dirname "$(find "$prefix" -name 'libtrimtab.so' | head -n 1)")
export PKG_CONFIG_PATH=$library/pkgconfig LD_LIBRARY_PATH=$library
cc=${CC:-cc}
cp tests/install/consumer.c tests/install/CMakeLists.txt "$tmp/"

# shellcheck disable=SC2046
with_pkg_config() { $cc "$tmp/consumer.c" -o "$tmp/shared" $(pkg-config --cflags --libs trimtab) && "$tmp/shared"; }
# shellcheck disable=SC2046
with_pkg_config_static() {
    # trimtab itself static, the libraries below it shared, as distributions ship them
    $cc "$tmp/consumer.c" -o "$tmp/static" $(pkg-config --cflags trimtab) "$library/libtrimtab.a" $(pkg-config --libs jansson libcurl libzip libutf8proc) -lpthread -lm &&
        LD_LIBRARY_PATH='' "$tmp/static"
}
with_cmake() {
    cmake -S "$tmp" -B "$tmp/c" -DCMAKE_PREFIX_PATH="$prefix" && cmake --build "$tmp/c" && "$tmp/c/consumer_shared" && "$tmp/c/consumer_static"
}
exports() {
    local other
    other=$(nm -D --defined-only "$library/libtrimtab.so" | awk '{print $NF}' | grep -vE '^(tt_[a-z][a-z0-9_]*(@@TRIMTAB_0)?|TRIMTAB_0(@@TRIMTAB_0)?)$')
    [ -z "$other" ] || { echo "$other"; return 1; }
    nm -D --defined-only "$library/libtrimtab.so" | grep -q ' tt_version'
}
every_declared_function_is_exported() {
    local name missing=0
    while read -r name; do
        nm -D --defined-only "$library/libtrimtab.so" | grep -qE " $name(@@TRIMTAB_0)?$" || { echo "not exported: $name"; missing=1; }
    done < <(sed -nE 's/^[a-z].*[ *](tt_[a-z0-9_]+)\(.*/\1/p' include/trimtab/*.h | sort -u)
    return $missing
}
soname() { readelf -d "$library/libtrimtab.so" | grep -q 'SONAME.*libtrimtab\.so\.0\]'; }
header_in_c() { for h in "$prefix"/include/trimtab/*.h; do $cc -std=c11 -pedantic-errors -Wall -Wextra -Werror -fsyntax-only -I"$prefix/include" -x c "$h" || return 1; done; }
header_in_cxx() { for h in "$prefix"/include/trimtab/*.h; do c++ -std=c++11 -Wall -Wextra -Werror -fsyntax-only -I"$prefix/include" -x c++ "$h" || return 1; done; }
program_runs() { "$prefix/bin/trimtab" version && [ -s "$prefix/share/man/man1/trimtab.1" ] && [ -s "$prefix/share/bash-completion/completions/trimtab" ]; }

try pkg_config with_pkg_config
try pkg_config_static with_pkg_config_static
try cmake_package with_cmake
try exports_only_tt exports
try declared_is_exported every_declared_function_is_exported
try soname soname
try header_in_c header_in_c
if command -v c++ >/dev/null; then try header_in_cxx header_in_cxx; else skipped=1; fi
try program_manual_completion program_runs

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
