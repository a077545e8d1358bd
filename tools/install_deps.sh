#!/usr/bin/env bash
# Installs the Debian packages (12 and 13) that building and testing need and that are missing; does nothing, quickly, when all are there.
# As root directly, else through sudo; where neither goes it prints the command and fails.
set -u

missing=()
need_program() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need_library() { pkg-config --exists "$1" 2>/dev/null || missing+=("$2"); }

need_program "${CC:-cc}" gcc
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
need_program ninja ninja-build
need_program cmake cmake
need_program pkg-config pkg-config
need_library jansson libjansson-dev
need_library libcurl libcurl4-openssl-dev
need_library libzip libzip-dev
need_library zlib zlib1g-dev
need_library libutf8proc libutf8proc-dev
need_program python3 python3
python3 -c 'import importlib.util as u, sys; sys.exit(u.find_spec("pip") is None)' 2>/dev/null || missing+=(python3-pip)
python3 -c 'import importlib.util as u, sys; sys.exit(u.find_spec("ensurepip") is None)' 2>/dev/null || missing+=(python3-venv)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing, and this is not Debian; please install what corresponds to: ${missing[*]}" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    run=()
elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    run=(sudo)
else
    echo "Missing packages. Please run:  sudo apt-get install -y ${missing[*]}" >&2
    exit 1
fi
echo "Installing: ${missing[*]}"
install() { "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; }
install >/dev/null 2>&1 && exit 0
"${run[@]}" apt-get update -q || exit 1
install || exit 1
