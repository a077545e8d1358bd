# With the real model: what the verbs print, in both shapes. Skipped when the model is not in the cache.
if needs_model model; then
    m=$model
    code show 0 trimtab show "$m"
    check show_says_bits grep -q 'bits per weight' "$scratch/out"
    code show_json 0 trimtab show "$m" --json
    check show_keys json "$scratch/out" '{"path","sha256","bits_per_weight","params","bytes","architecture","n_layer","runnable","chat_template"} <= set(d) and len(d["sha256"])==64 and 5.7<d["bits_per_weight"]<5.8 and d["params"]==134515008'
    check show_sha256 json "$scratch/out" "d['sha256']=='$(sha256sum "$m" | cut -d' ' -f1)'"
    code show_parts 0 trimtab show "$m" --json --tensors --kv --no-hash
    check show_parts_keys json "$scratch/out" 'd["sha256"] is None and len(d["tensors"])==272 and d["metadata"]["general.architecture"]["value"]=="\"llama\""'
    code show_template 0 trimtab show "$m" --template
    check show_template_words grep -q im_start "$scratch/out"
    code tokenize 0 trimtab tokenize "$m" 'Hello world'
    check tokenize_ids [ "$(cat "$scratch/out")" = '19556 905' ]
    code tokenize_json 0 trimtab tokenize "$m" --json 'Hello world'
    check tokenize_keys json "$scratch/out" 'd=={"ids":[19556,905],"n":2}'
    printf 'Hello world\n\nHello\n' >lines.txt
    code tokenize_lines 0 trimtab tokenize "$m" -f lines.txt --lines --json
    check tokenize_lines_keys json "$scratch/out" 'd["lines"][0]["ids"]==[19556,905] and d["lines"][1]["ids"]==[] and len(d["lines"])==3'
    check special_is_text bash -c "[ \$(trimtab tokenize '$m' '<|im_end|>' | wc -w) -gt 1 ]"
    check special_is_parsed bash -c "[ \"\$(trimtab tokenize '$m' '<|im_end|>' --parse-special)\" = 2 ]"
    printf 'caf\303\251 \360\237\231\202\n\tx\303y' >bytes
    check round_trip bash -c "trimtab tokenize '$m' -f bytes | trimtab detokenize '$m' | cmp - bytes"
    code detokenize_json 0 trimtab detokenize "$m" --json 19556,905
    check detokenize_keys json "$scratch/out" 'd["text"]=="Hello world" and d["n"]==2'
    code detokenize_unknown 2 trimtab detokenize "$m" 999999
    code run 0 trimtab run "$m" 'What is the capital of France?' --temp 0 -n 24 --exact
    check run_answers grep -qi paris "$scratch/out"
    check run_is_quiet [ ! -s "$scratch/err" ]
    cp "$scratch/out" first
    code run_again 0 trimtab run "$m" 'What is the capital of France?' --temp 0 -n 24 --exact
    check run_repeats cmp -s first "$scratch/out"
    code run_json 0 trimtab run "$m" -p 'Say hi.' --seed 1 -n 8 --json
    check run_keys json "$scratch/out" '{"model","text","stop","prompt_tokens","tokens","seconds","tokens_per_second"} <= set(d) and d["tokens"]<=8'
    code run_stdin 0 bash -c "echo 'Say hi.' | trimtab run '$m' -n 4 --seed 1 -v"
    check run_timings grep -q 'tokens per second' "$scratch/err"
    code run_raw 0 trimtab run "$m" --raw -p 'Once upon a time' -n 4 --temp 0
    check run_raw_words grep -q '^Once upon a time' "$scratch/out"
    code run_empty 2 trimtab run "$m" --raw -p '' -n 4
    code run_small_context 1 trimtab run "$m" -c 8 'What is the capital of France? Tell me more about it.'
    code run_context_ends 0 trimtab run "$m" -c 64 --raw -p 'Once upon a time' --temp 0 -n 500
    check run_context_said grep -q 'context is full' "$scratch/err"
    code chat 0 bash -c "printf 'My name is Ann.\nWhat is my name?\n/reset\n/system Be brief.\n/unknown\n/bye\nnever read\n' | trimtab chat '$m' --temp 0 -n 24"
    check chat_answers [ "$(grep -c . "$scratch/out")" -ge 2 ]
    code chat_ends_with_input 0 bash -c "echo hello | trimtab chat '$m' --temp 0 -n 4"
    code chat_json 2 trimtab chat "$m" --json
    (exec trimtab run "$m" --raw -p 'Once upon a time' -n 100000 -c 8192 --temp 0 >long.txt 2>/dev/null) & pid=$!
    sleep 1.5; kill -INT $pid; wait $pid; got=$?
    check interrupt [ "$got" = 130 ]
    check interrupt_text [ -s long.txt ]
    (exec trimtab run "$m" --raw -p 'Once upon a time' -n 100000 -c 8192 --temp 0 >long.txt 2>/dev/null) & pid=$!
    sleep 1.5; kill -TERM $pid; wait $pid; got=$?
    check terminate [ "$got" = 143 ]
    head -c 20000 "$root/README.md" >text.txt 2>/dev/null || head -c 20000 "$root/include/trimtab/trimtab.h" >text.txt
    code perplexity 0 trimtab perplexity "$m" -f text.txt --chunks 2 -c 128 --save-losses a.nll
    check perplexity_words grep -q '^Final estimate: PPL = ' "$scratch/out"
    code perplexity_json 0 trimtab perplexity "$m" -f text.txt --chunks 2 -c 128 --json --exact --save-losses b.nll
    check perplexity_keys json "$scratch/out" '{"perplexity","error","nll","tokens","chunks","documents","n_ctx","model","model_sha256","data","data_sha256","numerics","adapter","seconds","tokens_per_second","peak_rss","threads","isa","kld"} == set(d) and d["tokens"]>0 and abs(__import__("math").exp(d["nll"])/d["perplexity"]-1)<1e-6'
    for _ in 1 2 3 4 5 6 7 8; do cat text.txt; done >more.txt
    (exec trimtab perplexity -q "$m" -f more.txt >long.txt 2>err.txt) & pid=$!
    sleep 1; kill -INT $pid; wait $pid; got=$?
    check interrupt_perplexity [ "$got" = 130 -a ! -s long.txt ]
    check interrupt_is_one_line [ "$(wc -l <err.txt)" = 1 ]
    printf 'The capital of France is\n2\nBerlin.\nRome.\nParis.\nMadrid.\n' >tasks.txt
    code hellaswag_json 0 trimtab perplexity "$m" -f tasks.txt --hellaswag --json
    check hellaswag_keys json "$scratch/out" '{"model","adapter","data","data_sha256","numerics","tasks","correct","accuracy","low","high","results","seconds","peak_rss","threads","isa"} == set(d) and d["tasks"]==1 and d["results"]=="1"'
    code paired_json 0 trimtab perplexity --paired a.nll b.nll --json
    check paired_keys json "$scratch/out" 'd["a"]=="a.nll" and {"file","tokens","documents","nll_a","nll","diff","low","high"} == set(d["pairs"][0])'
    code paired 0 trimtab perplexity --paired a.nll b.nll a.nll
    check paired_rows [ "$(grep -c 'nll ' "$scratch/out")" -ge 3 ]
    code logits 0 trimtab perplexity "$m" -f text.txt --chunks 1 -c 128 --kl-divergence-base base.bin
    code compress_dry_run 0 trimtab compress "$m" out.gguf Q4_0 --dry-run --json
    check compress_dry_run_keys json "$scratch/out" '{"model","output","recipe","recipe_sha256","data_sha256","dry_run","resumed","bytes_before","bytes","file_bytes","bits_per_weight_before","bits_per_weight","linear_bits_per_weight_before","linear_bits_per_weight","seconds","peak_bytes","threads","isa","target","layers"} == set(d) and d["dry_run"]'
    check compress_dry_run_writes_nothing [ ! -e out.gguf ]
    code compress_type 0 trimtab compress "$m" out.gguf q4_0 2
    check compress_type_file [ -s out.gguf ]
    code compress_again 2 trimtab compress "$m" out.gguf Q4_0
    code compress_force 0 trimtab compress "$m" out.gguf Q4_0 --force --progress json
    check compress_progress grep -q '"task"' "$scratch/err"
    code compress_bad_type 2 trimtab compress "$m" out2.gguf Q4_9
    code generate_json 0 trimtab generate "$m" self.jsonl --count 3 --tokens 24 --json
    check generate_keys json "$scratch/out" '{"model","model_sha256","output","manifest","sha256","documents","dropped","tokens","drawn","seconds","tokens_per_second","peak_bytes","resumed","threads","isa"} == set(d) and d["documents"]==3'
    check generate_documents [ "$(wc -l <self.jsonl)" = 3 ]
    code generate_again 2 trimtab generate "$m" self.jsonl --count 3 --tokens 24
    code generate_chat 0 trimtab generate "$m" chat.jsonl --chat --count 2 --tokens 160 --temp 0.5 --seed 1
    check generate_chat_roles grep -q '"role":"assistant"' chat.jsonl
    code convert 0 trimtab convert "$m" back.gguf --outtype q8_0 --json
    check convert_keys json "$scratch/out" '{"model","output","outtype"} == set(d)'
    check list_shows_it bash -c "trimtab list | grep -q smollm2-135m-instruct"
fi
