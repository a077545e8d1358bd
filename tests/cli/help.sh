# Every verb explains itself, in help, manual page and completions; all from one table.
# The name of a file would be taken for the section.
mandoc_lint() { mandoc -T lint -W warning <"$1"; }
verbs=$(sed -n 's/^VERB(\([a-z]*\),.*/\1/p' "$root/cli/verbs.inc")
check verbs_found [ "$(wc -w <<<"$verbs")" -ge 15 ]
for v in $verbs; do
    code "help_$v" 0 trimtab "$v" --help
    for part in "^trimtab $v: " '^Usage: trimtab' '^Examples:' '  \$ trimtab' '^Common:' '--json'; do
        grep -q -- "$part" "$scratch/out" || bad "help_$v" "no '$part'"
    done
    [ -s "$scratch/err" ] && bad "help_$v" "words on standard error"
    cp "$scratch/out" help
    code "help_verb_$v" 0 trimtab help "$v"
    check "help_is_one_$v" cmp -s help "$scratch/out"
    check "help_width_$v" [ "$(wc -L <help)" -le 130 ]
    code "man_$v" 0 trimtab help --man "$v"
    if command -v mandoc >/dev/null; then check "man_lint_$v" mandoc_lint "$scratch/out"; else skip "man_lint_$v" "no mandoc"; fi
done
code help 0 trimtab help
check help_lists_verbs [ "$(grep -c -E "^  ($(tr '\n' '|' <<<"$verbs" | sed 's/|$//')) " "$scratch/out")" = "$(wc -w <<<"$verbs")" ]
code help_alone 0 trimtab
code help_flag 0 trimtab --help
code help_alias 0 trimtab help quantize
code help_recipes 0 trimtab help recipes
check help_recipes_names grep -q '^near-lossless ' "$scratch/out"
code man 0 trimtab help --man
if command -v mandoc >/dev/null; then check man_lint mandoc_lint "$scratch/out"; else skip man_lint "no mandoc"; fi
code version 0 trimtab version
check version_words grep -q '^trimtab [0-9]*\.[0-9]*\.[0-9]* (' "$scratch/out"
code version_flag 0 trimtab --version
code version_json 0 trimtab version --json
check version_keys json "$scratch/out" '{"name","version","git","isa","licence"} <= set(d)'
code methods_json 0 trimtab methods --json
check methods_keys json "$scratch/out" 'len(d["methods"])>=6 and all({"name","family","stage","version","summary","paper","knobs"}<=set(m) for m in d["methods"])'
check recipes_keys json "$scratch/out" 'len(d["recipes"])>=3 and all({"name","summary","bits","samples","embedding","steps"}==set(r) for r in d["recipes"])'
code method_json 0 trimtab methods gptq --json
check method_keys json "$scratch/out" 'd["name"]=="gptq" and all({"name","type","min","max","scale","choices","default","when","help"}==set(k) for k in d["knobs"])'
code list_json 0 trimtab list --json
check list_keys json "$scratch/out" 'd["models"][0]["ref"]=="smollm2-135m-instruct" and all({"ref","path","bytes","source","present"}==set(m) for m in d["models"])'
code doctor_json 0 trimtab doctor --json
check doctor_keys json "$scratch/out" '{"version","cpu","isa","features","cores","threads","ram_bytes","ram_free","read_gb_s","hub_cache","catalogue_cache"} <= set(d) and d["read_gb_s"]>0'

for s in bash zsh fish; do
    code "completion_$s" 0 trimtab completion $s
    cp "$scratch/out" "c.$s"
    if ! command -v $s >/dev/null; then skip "completion_${s}_parses" "no $s"; continue; fi
    check "completion_${s}_parses" $s -n "c.$s"
done
check completion_bash_answers bash -c '. ./c.bash; COMP_WORDS=(trimtab com); COMP_CWORD=1; _trimtab; [[ " ${COMPREPLY[*]} " == *" compress "* ]]'
check completion_bash_options bash -c '. ./c.bash; COMP_WORDS=(trimtab run --te); COMP_CWORD=2; _trimtab; [[ " ${COMPREPLY[*]} " == *" --temp "* ]]'
check completion_bash_choices bash -c '. ./c.bash; COMP_WORDS=(trimtab run --progress j); COMP_CWORD=3; _trimtab; [ "${COMPREPLY[*]}" = json ]'
check completion_bash_methods bash -c '. ./c.bash; COMP_WORDS=(trimtab methods gp); COMP_CWORD=2; _trimtab; [ "${COMPREPLY[*]}" = gptq ]'
if command -v shellcheck >/dev/null; then check completion_bash_clean shellcheck -s bash -S warning c.bash; else skip completion_bash_clean "no shellcheck"; fi

code full_disk 7 bash -c 'trimtab help >/dev/full'
check full_disk_is_said grep -q 'cannot write' "$scratch/err"
code closed_pipe 0 bash -c 'trimtab help | head -n 1 >/dev/null'
