# Precedence: table < config files < TRIMTAB_ARG_* < command line; sections; spellings. `doctor` says how many threads are in force.
threads() { "$@" | python3 -c 'import json,sys; print(json.load(sys.stdin)["threads"])'; }
is() { [ "$(threads "${@:2}")" = "$1" ]; }
mkdir -p "$XDG_CONFIG_HOME/trimtab"
cores=$(threads trimtab doctor --json)
printf '# mine\n[*]\nthreads = 3\n' >"$XDG_CONFIG_HOME/trimtab/config.ini"
printf '; other\n[*]\n  threads="4"  \n' >more.ini
check config_default [ "$cores" -ge 1 ]
check config_home is 3 trimtab doctor --json
check config_file is 4 trimtab doctor --json --config more.ini
check config_env env TRIMTAB_ARG_THREADS=5 bash -c "[ \$(trimtab doctor --json --config more.ini | grep -o '\"threads\": [0-9]*') = '\"threads\": 5' ] || trimtab doctor --json --config more.ini | grep -q '\"threads\": 5'"
check config_line env TRIMTAB_ARG_THREADS=5 bash -c "trimtab doctor --json --config more.ini -t 6 | grep -q '\"threads\": 6'"
check config_by_env env TRIMTAB_ARG_CONFIG=more.ini bash -c "trimtab doctor --json | grep -q '\"threads\": 4'"
check equals_sign is 7 trimtab doctor --json --threads=7
check last_one_wins is 2 trimtab doctor --json -t 9 -t 2
printf '[*]\nno_json = false\njson = on\n' >json.ini
check config_flag bash -c 'trimtab version --config json.ini | grep -q "\"licence\""'
check config_flag_off bash -c '! trimtab version --config json.ini --no-json | grep -q "\"licence\""'
check underscores bash -c 'trimtab doctor --json --log_level error >/dev/null'
check env_flag env TRIMTAB_ARG_JSON=1 bash -c 'trimtab version | grep -q "\"licence\""'
check env_no_flag env TRIMTAB_ARG_NO_JSON=1 bash -c '! trimtab version | grep -q "\"licence\""'
printf '[*]\noutput = elsewhere\nno-resume = true\n' >other.ini
check config_of_other_verbs bash -c 'trimtab version --config other.ini'
printf '[small]\nmodel = ./there.gguf\nthreads = 2\n' >preset.ini
code preset_model 1 trimtab show small --config preset.ini
check preset_model_is_used grep -q './there.gguf' "$scratch/err"
code preset_of_another 1 trimtab show large --config preset.ini
check preset_not_used grep -q 'large' "$scratch/err"
rm "$XDG_CONFIG_HOME/trimtab/config.ini"
code cache_dir 0 trimtab list --json --cache-dir "$PWD/c"
check cache_dir_is_used json "$scratch/out" 'd["models"][0]["present"] is False'
code log_file 0 trimtab doctor --log-file log.txt
check log_file_made [ -f log.txt ]
