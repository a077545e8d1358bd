#!/usr/bin/env bash
# The documents say what the program says: the page of methods is current, every verb has its keys in the contract, links lead somewhere.
#   tests/docs/run.sh BUILD
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=$1/trimtab
passed=0 failed=0
check() { if "${@:2}"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $1"; fi; }
methods_current() { python3 tools/gen_method_pages.py "$bin" | diff -u docs/METHODS.md - | head -n 20; [ "${PIPESTATUS[1]}" -eq 0 ]; }
verbs_in_contract() { local v bad=0; for v in pull list show convert compress tune perplexity run tokenize detokenize methods doctor version; do grep -q "^| \`$v" docs/CONTRACT.md || { echo "no row for $v"; bad=1; }; done; return $bad; }
links_lead() {
    local file link bad=0
    for file in README.md docs/*.md docs/results/*.md; do
        while read -r link; do
            [ -e "$(dirname "$file")/${link%%#*}" ] || { echo "$file: $link"; bad=1; }
        done < <(grep -oE '\]\([^)#: ]+\)' "$file" | sed 's/^](//; s/)$//')
    done
    return $bad
}
check "docs/METHODS.md is current (tools/gen_method_pages.py)" methods_current
check "every verb has its JSON keys in docs/CONTRACT.md" verbs_in_contract
check "links between documents" links_lead
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
